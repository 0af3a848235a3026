//! Taking in what other servers say has happened: the checks on receipt of a PDU, each one function, in the
//! specification's order, and then the way of this server's own events: onto the room's pending head and into the log.
//!
//! An event comes here once its signatures and hashes are verified and everything that it follows or cites is
//! known. What it says about itself never changes: the state before it depends on its own past alone. How it
//! stands depends on the room's head as well, and so that is decided under the room's lock.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu>
//!
//! Locks: the room's lock is held only in [`Rooms::try_to_place`], from reading the head to queueing the write.
//! Everything that reads, resolves or waits is done without it, and what came of it is used only if it still holds.

use std::{collections::HashSet, sync::Arc};

use ruma::{
    EventId, OwnedEventId, OwnedServerName, ServerName,
    events::{StateEventType, TimelineEventType},
    state_res::check_pdu_format,
};

use super::{
    append::{ATTEMPTS, accept},
    auth,
    early::{self, Redaction},
    head::Head,
    highlight::{self, PushEffect},
    residency::Resident,
    room::Room,
    rooms::Rooms,
    state::State,
    thread::Related,
};
use crate::{
    error::{Error, Result},
    event::{
        Pdu, Standing, Stored,
        fact::{Fact, Fork, NewEvent, Relay, SenderToOthers, Write},
    },
    ground::room_version::has_owned_state,
    log::CommitError,
    store,
};

/// An event with everything about it that does not depend on the room's head.
struct Incoming {
    pdu: Arc<Pdu>,
    /// The state before it.
    before: State,
    /// What it follows.
    prev: Vec<Stored>,
    /// What it has to do with redactions. It may be out of date when another redaction is built meanwhile, which is
    /// noticed under the lock.
    redaction: Redaction,
    /// Those of the events that it follows which are not here.
    missing: Vec<OwnedEventId>,
    /// The event as it is known as an outlier, if it is.
    outlier: Option<Stored>,
    /// The thread that it belongs to.
    thread_root: Option<OwnedEventId>,
    /// Who has handed it over for the whole room, if this server has to pass it on.
    relayed_from: Option<OwnedServerName>,
    /// Why it is rejected, if it is. By the checks that look at its past alone (4 and 5), so it holds for ever.
    refusal: Option<String>,
}

/// What is known of what came before an event.
#[derive(Clone, Copy)]
enum Past<'a> {
    /// All that it follows.
    Whole,
    /// The events that were the state before it, which are here as outliers at least. Not all that it follows is here.
    State(&'a [OwnedEventId]),
}

/// What an event that does not simply follow the head makes of the room, worked out while others go on. It holds as long
/// as the room's state and the extremities that it depends on are what they were.
struct Placement {
    /// At which it was worked out.
    head: Head,
    standing: Standing,
    /// The room's state from now on.
    state: State,
    fork: Option<Fork>,
}

impl Rooms {
    /// Takes in an event of a room whose signatures and hashes have been verified, and returns how it stands. One that
    /// is known already stands as it does.
    ///
    /// An error means that the event was dropped: it is malformed, or what it follows or cites is not known.
    /// `Unavailable` where the room does not hold still for [`ATTEMPTS`] tries, or the database fails: the sender may
    /// send it again.
    pub async fn append_remote(&self, room: &Resident, pdu: Pdu) -> Result<Standing> {
        Box::pin(self.append_after(room, pdu, Past::Whole, None)).await
    }

    /// Takes in an event that another server has handed over for all of its room, such as a join, and passes it on to
    /// the other servers there if it is accepted. Otherwise as [`Self::append_remote`].
    pub async fn append_relayed(&self, room: &Resident, pdu: Pdu, from: &ServerName) -> Result<Standing> {
        Box::pin(self.append_after(room, pdu, Past::Whole, Some(from))).await
    }

    /// Takes in an event in the same way of whose past some is missing, with the state before it as another server says
    /// it is: identifiers of events that are known here, as outliers at least. There is a gap before it from now on.
    /// Where it turns out that nothing is missing, `state` is not looked at.
    pub async fn append_after_gap(&self, room: &Resident, pdu: Pdu, state: &[OwnedEventId]) -> Result<Standing> {
        Box::pin(self.append_after(room, pdu, Past::State(state), None)).await
    }

    async fn append_after(
        &self,
        room: &Resident,
        pdu: Pdu,
        past: Past<'_>,
        relayed_from: Option<&ServerName>,
    ) -> Result<Standing> {
        if room.view(|view| view.room_id != pdu.room_id()) {
            return Err(Error::bad_json(format!("the event is of another room, {}", pdu.room_id())));
        }
        if *pdu.kind() == TimelineEventType::RoomCreate {
            return Err(Error::bad_json("a room begins only once"));
        }
        check_format(&pdu).map_err(Error::bad_json)?;
        let known = store::event::find(&mut self.0.db.read().await?, pdu.event_id()).await?;
        if let Some(known) = known.as_ref().filter(|known| known.standing != Standing::Outlier) {
            return Ok(known.standing);
        }
        let mut incoming = self.look_into(room, Arc::new(pdu), past).await?;
        incoming.outlier = known;
        incoming.relayed_from = relayed_from.map(ToOwned::to_owned);
        // What was worked out for one head is kept for the next attempt, in case it holds there too.
        let mut outcome = None;
        for _ in 0..ATTEMPTS {
            if let Some(standing) = self.try_to_place(room, &mut incoming, &mut outcome).await? {
                self.settle_after(&incoming).await;
                return Ok(standing);
            }
        }
        let room_id = incoming.pdu.room_id();
        Err(Error::Unavailable(format!("room {room_id} moves faster than this server can write to it")))
    }

    /// The target of a redaction may have been written as history meanwhile. History does not move the head, so this looks
    /// again.
    async fn settle_after(&self, incoming: &Incoming) {
        if let Some(target) = incoming.awaits() {
            self.try_to_settle_redactions(&[target]).await;
        }
    }

    /// Finds out everything that does not depend on the room's head.
    async fn look_into(&self, room: &Room, pdu: Arc<Pdu>, past: Past<'_>) -> Result<Incoming> {
        let cited = self.list_known(pdu.auth_events(), "cites").await?;
        let (prev, missing) = match past {
            Past::Whole => (self.list_known(pdu.prev_events(), "follows").await?, Vec::new()),
            Past::State(_) => self.list_placed(pdu.prev_events()).await?,
        };
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
        let before = match past {
            Past::State(state) if !missing.is_empty() => {
                let held = self.list_known(state, "has in the state before it").await?;
                held.into_iter().map(|event| event.pdu).collect()
            }
            _ => self.state_after_all(room, &pdu, &prev).await?,
        };
        let create = room.view(|view| view.state.find(&StateEventType::RoomCreate).cloned());
        let refusal = check_auth_events(&pdu, &not_rejected(&cited), create.as_ref())
            .and_then(|()| check_state_before(&pdu, &before))
            .err();
        let redaction =
            if refusal.is_none() { self.look_for_redaction(room, &pdu, &before).await? } else { Redaction::default() };
        let thread_root = self.thread_of_remote(room, &pdu).await?;
        let (outlier, relayed_from) = (None, None);
        Ok(Incoming { pdu, before, prev, redaction, missing, outlier, thread_root, relayed_from, refusal })
    }

    /// Those of the events that have a place in the room, and the identifiers of the others. Outliers have none, so
    /// they count as missing.
    pub(super) async fn list_placed(&self, event_ids: &[OwnedEventId]) -> Result<(Vec<Stored>, Vec<OwnedEventId>)> {
        let wanted: Vec<&EventId> = event_ids.iter().map(|id| &**id).collect();
        let mut known = store::event::list(&mut self.0.db.read().await?, &wanted).await?;
        known.retain(|event| event.standing != Standing::Outlier);
        let missing = event_ids.iter().filter(|id| !known.iter().any(|event| event.pdu.event_id() == **id));
        let missing = missing.cloned().collect();
        Ok((known, missing))
    }

    /// The events with these identifiers, every one. `M_NOT_FOUND` for the first that is not here. `how` is a verb for
    /// the message.
    pub(super) async fn list_known(&self, event_ids: &[OwnedEventId], how: &str) -> Result<Vec<Stored>> {
        let wanted: Vec<&EventId> = event_ids.iter().map(|id| &**id).collect();
        let known = store::event::list(&mut self.0.db.read().await?, &wanted).await?;
        match wanted.iter().find(|id| !known.iter().any(|event| event.pdu.event_id() == **id)) {
            Some(missing) => Err(Error::not_found(format!("the event {how} {missing}, which is not known here"))),
            None => Ok(known),
        }
    }

    /// The state before an event that follows `prev`. From the view where it follows the room's head, which is the
    /// rule; otherwise states are read and resolved, off the room's lock.
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
        self.resolve_states(pdu.room_id(), rules, states).await
    }

    /// Puts the event at the room's head. None if the head was another than this node knew, did not settle, or asks for
    /// more than is known of the event by now: that is looked up then, for the next time. Nothing is looked up, resolved
    /// or waited for under the room's lock.
    async fn try_to_place(
        &self,
        room: &Room,
        incoming: &mut Incoming,
        outcome: &mut Option<Placement>,
    ) -> Result<Option<Standing>> {
        let mut pending = room.pending.lock().await;
        let generation = pending.generation;
        let mut head = room.head(&pending);
        // One check against a state in memory, which is quick enough for the lock.
        let standing = incoming.standing(&head);
        let follows = standing == Standing::Accepted && incoming.follows(&head);
        let overlooked = match standing {
            Standing::Accepted => incoming.redaction.list_news(&incoming.pdu, &pending, room),
            _ => Vec::new(),
        };
        let overlooks = !overlooked.is_empty();
        let ready = outcome.take_if(|outcome| {
            let newer = head.room.head - outcome.head.room.head;
            !early::is_redaction_among(newer, &pending, room) && outcome.holds_at(&head, standing, incoming)
        });
        if overlooks || (!follows && ready.is_none()) {
            drop(pending);
            // What the others have built must be there to be read.
            if !self.has_committed(room, &head.room).await? {
                room.forget_pending(generation).await;
            } else if overlooks {
                incoming.redaction = self.look_for_redaction(room, &incoming.pdu, &incoming.before).await?;
                incoming.redaction.consider(overlooked);
                // As an outlier it may have been redacted since.
                let known = store::event::find(&mut self.0.db.read().await?, incoming.pdu.event_id()).await?;
                incoming.outlier = known.filter(|known| known.standing == Standing::Outlier);
                *outcome = None;
            } else {
                *outcome = Some(self.outcome(room, head, incoming, standing).await?);
            }
            return Ok(None);
        }
        let mut event = match ready {
            Some(Placement { state, fork, .. }) if !follows => self.add(&mut head, incoming, standing, state, fork),
            _ => {
                let (pdu, redacts) = (incoming.appended(), incoming.redaction.target.as_deref());
                accept(&mut head, pdu, None, redacts, incoming.related(), &self.0.server_name)
            }
        };
        event.missing.clone_from(&incoming.missing);
        event.outlier = incoming.outlier.as_ref().map(|outlier| outlier.key);
        if standing == Standing::Accepted {
            event.awaits = incoming.awaits().map(ToOwned::to_owned);
        }
        if standing == Standing::Accepted {
            pending.note(&event.pdu);
        }
        let submitted = self.0.log.submit(incoming.write(event));
        pending.head = Some(head);
        drop(pending);
        let Err(error) = submitted.committed().await else { return Ok(Some(standing)) };
        room.forget_pending(generation).await;
        match error {
            CommitError::Stale(_) => self.0.log.refresh().await.map(|()| None),
            // Another node received the same event and stored it first.
            CommitError::Unavailable(error) if error.is_conflict() => {
                let known = store::event::find(&mut self.0.db.read().await?, incoming.pdu.event_id()).await?;
                // As an outlier it has no place yet.
                let standing = known.as_ref().map(|known| known.standing);
                if standing == Some(Standing::Outlier) {
                    incoming.outlier = known;
                }
                Ok(standing.filter(|standing| *standing != Standing::Outlier))
            }
            error => Err(error.into()),
        }
    }

    /// What becomes of the room once the event is part of it. Resolves states and reads from the database: without the
    /// room's lock.
    async fn outcome(&self, room: &Room, head: Head, incoming: &Incoming, standing: Standing) -> Result<Placement> {
        let state = match standing {
            Standing::Accepted => self.state_with(room, &head, incoming).await?,
            _ => head.state.clone(),
        };
        let fork = self.fork_of(room, &head.state, &incoming.before, &incoming.prev).await?;
        Ok(Placement { head, standing, state, fork })
    }

    /// The room's state once the event is one of its extremities. The event's own state after it counts, and that of
    /// each other extremity which it does not follow.
    async fn state_with(&self, room: &Room, head: &Head, incoming: &Incoming) -> Result<State> {
        let mut states = Vec::new();
        let extremities = &head.room.extremities;
        let others: Vec<&EventId> =
            extremities.iter().filter(|id| !incoming.pdu.prev_events().contains(id)).map(|id| &**id).collect();
        if let ([_], [_]) = (&*others, &**extremities) {
            states.push(head.state.clone());
        } else if !others.is_empty() {
            let known = store::event::list(&mut self.0.db.read().await?, &others).await?;
            for event in &known {
                states.push(self.state_after(room, event).await?);
            }
        }
        if states.len() != others.len() {
            return Err(Error::broken(format!("an extremity of {} is not in the database", incoming.pdu.room_id())));
        }
        states.push(incoming.after());
        self.resolve_states(incoming.pdu.room_id(), head.rules, states).await
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
        let pdu = incoming.appended();
        let attention =
            if accepted { highlight::attention(&pdu, &head.state, &self.0.server_name) } else { PushEffect::default() };
        let redacts = incoming.redaction.target.as_ref().filter(|_| accepted);
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
            missing: Vec::new(),
            outlier: None,
            transaction: None,
            notifies: attention.notifies,
            thread_root: incoming.thread_root.clone().filter(|_| accepted),
            annotates_once: false,
            highlights: attention.highlights,
            highlights_everybody: attention.highlights_everybody,
            replaces: incoming.replaces(),
            redacted,
            awaits: None,
            expects: None,
            sender_to_others: SenderToOthers::of(&pdu, &self.0.server_name),
            pdu,
        }
    }
}

impl Incoming {
    /// How it stands at a head. Check 6 is asked of the room's present state, so the answer may differ from one head to
    /// the next.
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

    /// The write of the event that was made of it, and of what says that it is passed on.
    fn write(&self, event: NewEvent) -> Write {
        let Some(from) = self.relayed_from.as_ref().filter(|_| event.standing == Standing::Accepted) else {
            return Write::event(event);
        };
        let (room_id, event_id) = (event.pdu.room_id().to_owned(), event.pdu.event_id().to_owned());
        let relay = Fact::Relay(Relay { room_id, event_id, from: from.clone() });
        Write { facts: vec![relay], ..Write::event(NewEvent { sender_to_others: SenderToOthers::ThisServer, ..event }) }
    }

    /// Other servers may say the same twice.
    fn related(&self) -> Related {
        Related { thread_root: self.thread_root.clone(), annotates_once: false }
    }

    /// Whether it follows exactly what the head ends with: the state before it is then the head's.
    fn follows(&self, head: &Head) -> bool {
        is_same_set(self.pdu.prev_events(), &head.room.extremities)
    }

    /// The event as it becomes part of the room: redacted, if its redaction came before it, or while it was an outlier.
    fn appended(&self) -> Arc<Pdu> {
        let outlier = self.outlier.as_ref().map(|outlier| &outlier.pdu).filter(|pdu| pdu.redacted_because().is_some());
        Arc::clone(self.redaction.redacted.as_ref().or(outlier).unwrap_or(&self.pdu))
    }

    /// The event that it asks to redact, where that has no place yet.
    fn awaits(&self) -> Option<&EventId> {
        self.pdu.redacts().filter(|_| self.redaction.is_early)
    }

    /// The state after it. Only asked of an event that is not rejected.
    fn after(&self) -> State {
        let mut state = self.before.clone();
        if self.pdu.is_state() {
            state.insert(self.appended());
        }
        state
    }

    /// The state event whose place it takes.
    fn replaces(&self) -> Option<Arc<Pdu>> {
        let state_key = self.pdu.state_key()?;
        self.before.get(&self.pdu.kind().to_string(), state_key).cloned()
    }
}

impl Placement {
    /// Whether it still holds at a head. Where the room has one end, that is no matter of which event it is, but of the
    /// state there.
    fn holds_at(&self, head: &Head, standing: Standing, incoming: &Incoming) -> bool {
        let is_alone =
            |head: &Head| matches!(&*head.room.extremities, [end] if !incoming.pdu.prev_events().contains(end));
        self.standing == standing
            && (self.head.room == head.room
                || standing != Standing::Accepted
                || (is_alone(&self.head) && is_alone(head)))
            && self.head.state.changes_to(&head.state).is_empty()
    }
}

fn is_same_set(some: &[OwnedEventId], others: &[OwnedEventId]) -> bool {
    some.iter().collect::<HashSet<_>>() == others.iter().collect::<HashSet<_>>()
}

/// 1. Is a valid event of the room's version, otherwise it is dropped and leaves no trace here.
pub(super) fn check_format(pdu: &Pdu) -> Result<(), String> {
    let mut object = pdu.to_object().map_err(|error| error.to_string())?;
    if has_owned_state(pdu.rules()) {
        // Whose length the rules of `owned_state.rs` limit, which come later.
        object.remove("state_key");
    }
    check_pdu_format(&object, &pdu.rules().event_format)
}

// 2. and 3., signatures and hashes, lie behind an event that comes here.

/// Those of the events that count for others.
pub(super) fn not_rejected(events: &[Stored]) -> Vec<Arc<Pdu>> {
    let counting = events.iter().filter(|event| event.standing != Standing::Rejected);
    counting.map(|event| Arc::clone(&event.pdu)).collect()
}

/// 4. Passes authorization rules based on the event's auth events, otherwise it is rejected.
///
/// Since room version 12 the create event is an auth event of every event without being cited.
pub(super) fn check_auth_events(pdu: &Pdu, cited: &[Arc<Pdu>], create: Option<&Arc<Pdu>>) -> Result<(), String> {
    let accepted = || cited.iter();
    let implied = create.filter(|_| !pdu.rules().event_format.allow_room_create_in_auth_events);
    auth::check_cited(pdu, |id| accepted().chain(implied).find(|event| event.event_id() == id).cloned())?;
    auth::check(pdu, &accepted().chain(implied).cloned().collect())
}

/// 5. Passes authorization rules based on the state before the event, otherwise it is rejected.
pub(super) fn check_state_before(pdu: &Pdu, before: &State) -> Result<(), String> {
    auth::check(pdu, before)
}

/// 6. Passes authorization rules based on the current state of the room, otherwise it is soft-failed.
///
/// A soft-failed event is kept and may be followed, but is shown to nobody.
fn check_current_state(pdu: &Pdu, current: &State) -> Result<(), String> {
    auth::check(pdu, current)
}

#[cfg(test)]
pub(super) mod model;
#[cfg(test)]
mod tests;
