//! Taking in what other servers say has happened: the checks on receipt of a PDU, each one function, in the
//! specification's order, and then through the one door.
//!
//! An event comes here once its signatures and hashes are verified and everything that it follows or cites is
//! known. What it says about itself never changes: the state before it depends on its own past alone. How it
//! stands depends on the room's head as well, and so that is decided under the room's lock.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu>

use std::{collections::HashSet, sync::Arc};

use ruma::{
    EventId, OwnedEventId,
    events::{StateEventType, TimelineEventType},
    state_res::check_pdu_format,
};

use super::{
    Related, Room, Rooms, State,
    append::{ATTEMPTS, Head, accept, forget_pending},
    auth, highlight,
    highlight::Attention,
    resolve::resolve_states,
};
use crate::{
    error::{Error, Result},
    event::{Pdu, Standing, Stored},
    fact::{Fork, NewEvent, Write},
    log::CommitError,
    room_version::has_owned_state,
    store,
};

/// An event with everything about it that does not depend on the room's head.
struct Incoming {
    pdu: Arc<Pdu>,
    /// The state before it.
    before: State,
    /// What it follows.
    prev: Vec<Stored>,
    /// The event that it redacts.
    redacts: Option<Arc<Pdu>>,
    /// The thread that it belongs to.
    thread_root: Option<OwnedEventId>,
    /// Why it is rejected, if it is.
    refusal: Option<String>,
}

impl Rooms {
    /// Takes in an event whose signatures and hashes have been verified, and tells how it stands. One that
    /// is known already stands as it does.
    ///
    /// An error means that the event was dropped: it is malformed, or what it follows or cites is not known.
    pub async fn append_remote(&self, pdu: Pdu) -> Result<Standing> {
        let room = self.get(pdu.room_id()).await?;
        check_format(&pdu).map_err(Error::bad_json)?;
        if let Some(standing) = self.find_standing(pdu.event_id()).await? {
            return Ok(standing);
        }
        let incoming = self.look_into(&room, Arc::new(pdu)).await?;
        for _ in 0..ATTEMPTS {
            if let Some(standing) = self.try_to_place(&room, &incoming).await? {
                return Ok(standing);
            }
        }
        let room_id = incoming.pdu.room_id();
        Err(Error::Unavailable(format!("room {room_id} moves faster than this server can write to it")))
    }

    async fn find_standing(&self, event_id: &EventId) -> Result<Option<Standing>> {
        let known = store::event::find(&mut self.0.db.read().await?, event_id).await?;
        Ok(known.map(|event| event.standing))
    }

    /// Finds out everything that does not depend on the room's head.
    async fn look_into(&self, room: &Room, pdu: Arc<Pdu>) -> Result<Incoming> {
        let cited = self.list_known(pdu.auth_events(), "cites").await?;
        let prev = self.list_known(pdu.prev_events(), "follows").await?;
        if let Some(other) = prev.iter().find(|one| one.pdu.room_id() != pdu.room_id()) {
            return Err(Error::bad_json(format!(
                "the event follows {}, which is in another room",
                other.pdu.event_id()
            )));
        }
        if let Some(outlier) = prev.iter().find(|one| one.standing == Standing::Outlier) {
            let outlier = outlier.pdu.event_id();
            return Err(Error::not_found(format!("the event follows {outlier}, whose place in the room is not known")));
        }
        let before = self.state_after_all(room, &pdu, &prev).await?;
        let create = room.view(|view| view.state.find(&StateEventType::RoomCreate).cloned());
        let refusal =
            check_auth_events(&pdu, &cited, create.as_ref()).and_then(|()| check_state_before(&pdu, &before)).err();
        let redacts = if refusal.is_none() { self.find_redacted(&pdu, &before).await? } else { None };
        let thread_root = self.thread_of_remote(room, &pdu).await?;
        Ok(Incoming { pdu, before, prev, redacts, thread_root, refusal })
    }

    /// The events with these identifiers, every one.
    async fn list_known(&self, event_ids: &[OwnedEventId], how: &str) -> Result<Vec<Stored>> {
        let wanted: Vec<&EventId> = event_ids.iter().map(|id| &**id).collect();
        let known = store::event::list(&mut self.0.db.read().await?, &wanted).await?;
        match wanted.iter().find(|id| !known.iter().any(|event| event.pdu.event_id() == **id)) {
            Some(missing) => Err(Error::not_found(format!("the event {how} {missing}, which is not known here"))),
            None => Ok(known),
        }
    }

    /// The state before an event that follows `prev`.
    async fn state_after_all(&self, room: &Room, pdu: &Pdu, prev: &[Stored]) -> Result<State> {
        let (rules, current) = room.view(|view| {
            let follows_head = is_same_set(pdu.prev_events(), &view.head.extremities);
            (view.rules, follows_head.then(|| view.state.clone()))
        });
        if let Some(state) = current {
            return Ok(state);
        }
        let mut states = Vec::with_capacity(prev.len());
        for event in prev {
            states.push(self.state_after(room, event).await?);
        }
        resolve_states(&mut self.0.db.read().await?, rules, states).await
    }

    /// The event that this one redacts, if it redacts one that is known and may do so.
    ///
    /// <https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions>
    async fn find_redacted(&self, pdu: &Pdu, before: &State) -> Result<Option<Arc<Pdu>>> {
        let Some(target) = pdu.redacts() else { return Ok(None) };
        let Some(target) = store::event::find(&mut self.0.db.read().await?, target).await? else { return Ok(None) };
        let target = target.pdu;
        let same_server = target.sender().server_name() == pdu.sender().server_name();
        let allowed = same_server || before.power_levels(pdu.rules()).user_can_redact_event_of_other(pdu.sender());
        let fresh = target.room_id() == pdu.room_id() && target.redacted_because().is_none();
        Ok((allowed && fresh).then_some(target))
    }

    /// Puts the event at the room's head. None if the head was another than this node knew, or did not settle.
    async fn try_to_place(&self, room: &Room, incoming: &Incoming) -> Result<Option<Standing>> {
        let mut pending = room.pending.lock().await;
        let mut head = pending.ahead_of(room);
        let standing = incoming.standing(&head);
        let event = if standing == Standing::Accepted && incoming.follows(&head) {
            let (pdu, redacts) = (Arc::clone(&incoming.pdu), incoming.redacts.as_deref());
            accept(&mut head, pdu, None, redacts, incoming.related(), &self.0.server_name)
        } else {
            // What the others have built must be there to be read. Nobody builds more while the lock is held.
            if !self.has_committed(room, &head.room).await? {
                pending.forget();
                return Ok(None);
            }
            let state = match standing {
                Standing::Accepted => self.state_with(room, &head, incoming).await?,
                _ => head.state.clone(),
            };
            let fork = self.fork_of(room, &head.state, &incoming.before, &incoming.prev).await?;
            self.add(&mut head, incoming, standing, state, fork)
        };
        let submitted = self.0.log.submit(Write::event(event));
        let generation = pending.generation;
        pending.head = Some(head);
        drop(pending);
        let Err(error) = submitted.committed().await else { return Ok(Some(standing)) };
        forget_pending(room, generation).await;
        match error {
            CommitError::Stale(_) => self.0.log.refresh().await.map(|()| None),
            // Somebody else was told of it, too, and was faster.
            CommitError::Unavailable(error) if error.is_conflict() => self.find_standing(incoming.pdu.event_id()).await,
            error => Err(error.into()),
        }
    }

    /// The room's state once the event is one of its extremities.
    async fn state_with(&self, room: &Room, head: &Head, incoming: &Incoming) -> Result<State> {
        let mut states = vec![incoming.after()];
        let extremities = &head.room.extremities;
        let others: Vec<&EventId> =
            extremities.iter().filter(|id| !incoming.pdu.prev_events().contains(id)).map(|id| &**id).collect();
        if others.len() == 1 && extremities.len() == 1 {
            states.push(head.state.clone());
        } else if !others.is_empty() {
            let known = store::event::list(&mut self.0.db.read().await?, &others).await?;
            for event in &known {
                states.push(self.state_after(room, event).await?);
            }
        }
        if states.len() != others.len() + 1 {
            return Err(Error::broken(format!("an extremity of {} is not in the database", incoming.pdu.room_id())));
        }
        resolve_states(&mut self.0.db.read().await?, head.rules, states).await
    }

    /// Adds an event that does not simply follow the head. `state` is the room's state from now on.
    fn add(
        &self,
        head: &mut Head,
        incoming: &Incoming,
        standing: Standing,
        state: State,
        fork: Option<Fork>,
    ) -> NewEvent {
        let accepted = standing == Standing::Accepted;
        let before = head.room.clone();
        let pdu = Arc::clone(&incoming.pdu);
        let attention =
            if accepted { highlight::attention(&pdu, &head.state, &self.0.server_name) } else { Attention::default() };
        let redacts = incoming.redacts.as_ref().filter(|_| accepted);
        let redacted = redacts.and_then(|target| target.redacted(Arc::clone(&pdu)).ok()).map(Arc::new);
        let changes = head.state.changes_to(&state);
        head.state = state;
        if let Some(redacted) = &redacted {
            head.state.redact(redacted);
        }
        head.room.follow(&pdu, standing);
        NewEvent {
            standing,
            before,
            head: head.room.clone(),
            fork,
            changes,
            transaction: None,
            notifies: attention.notifies,
            thread_root: incoming.thread_root.clone().filter(|_| accepted),
            annotates_once: false,
            highlights: attention.highlights,
            replaces: incoming.replaces(),
            redacted,
            pdu,
        }
    }
}

impl Incoming {
    /// How it stands at a head.
    fn standing(&self, head: &Head) -> Standing {
        let event_id = self.pdu.event_id();
        if let Some(reason) = &self.refusal {
            tracing::info!(%event_id, %reason, "an event is rejected");
            return Standing::Rejected;
        }
        match check_current_state(&self.pdu, &head.state) {
            Ok(()) => Standing::Accepted,
            Err(reason) => {
                tracing::info!(%event_id, %reason, "an event is soft-failed");
                Standing::SoftFailed
            }
        }
    }

    /// Other servers may say the same twice.
    fn related(&self) -> Related {
        Related { thread_root: self.thread_root.clone(), annotates_once: false }
    }

    /// Whether it follows exactly what the head ends with: the state before it is then the head's.
    fn follows(&self, head: &Head) -> bool {
        is_same_set(self.pdu.prev_events(), &head.room.extremities)
    }

    /// The state after it.
    fn after(&self) -> State {
        let mut state = self.before.clone();
        if self.pdu.is_state() {
            state.insert(Arc::clone(&self.pdu));
        }
        state
    }

    /// The state event whose place it takes.
    fn replaces(&self) -> Option<Arc<Pdu>> {
        let state_key = self.pdu.state_key()?;
        self.before.get(&self.pdu.kind().to_string(), state_key).cloned()
    }
}

fn is_same_set(some: &[OwnedEventId], others: &[OwnedEventId]) -> bool {
    some.iter().collect::<HashSet<_>>() == others.iter().collect::<HashSet<_>>()
}

/// 1. Is a valid event of the room's version, otherwise it is dropped.
fn check_format(pdu: &Pdu) -> Result<(), String> {
    if *pdu.kind() == TimelineEventType::RoomCreate {
        return Err("a room begins only once".to_owned());
    }
    let mut object = pdu.to_object().map_err(|error| error.to_string())?;
    if has_owned_state(pdu.rules()) {
        // Whose length the rules of `owned_state.rs` limit, which come later.
        object.remove("state_key");
    }
    check_pdu_format(&object, &pdu.rules().event_format)
}

// 2. and 3., signatures and hashes, lie behind an event that comes here.

/// 4. Passes authorization rules based on the event's auth events, otherwise it is rejected.
///
/// Since room version 12 the create event is an auth event of every event without being cited.
fn check_auth_events(pdu: &Pdu, cited: &[Stored], create: Option<&Arc<Pdu>>) -> Result<(), String> {
    let accepted = || cited.iter().filter(|event| event.standing != Standing::Rejected).map(|event| &event.pdu);
    let implied = create.filter(|_| !pdu.rules().event_format.allow_room_create_in_auth_events);
    auth::check_cited(pdu, |id| accepted().chain(implied).find(|event| event.event_id() == id).cloned())?;
    auth::check(pdu, &accepted().chain(implied).cloned().collect())
}

/// 5. Passes authorization rules based on the state before the event, otherwise it is rejected.
fn check_state_before(pdu: &Pdu, before: &State) -> Result<(), String> {
    auth::check(pdu, before)
}

/// 6. Passes authorization rules based on the current state of the room, otherwise it is soft-failed.
fn check_current_state(pdu: &Pdu, current: &State) -> Result<(), String> {
    auth::check(pdu, current)
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
