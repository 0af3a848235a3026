//! Coming into a room of other servers: one of this server's users has joined it, another server has taken that, and has
//! said what the room's state was.
//!
//! The room may be one that nobody of this server has been in, one that was left, or, if somebody else was quicker, one
//! that this server takes part in already. Its state may be large. All of its events are kept as outliers first, and of a
//! new room the rows of its state are written, in transactions of their own (`enter/prepared.rs`), so that nobody waits
//! for more than a chunk of it. The batch then has the join, the room's head and what the log has to tell, and nothing of
//! it is seen before. Of a room that was left the batch also has what has changed since.
//!
//! There is a gap before the join: what came before may be fetched (`history.rs`). The trunk has the state before it: of a
//! new room from the beginning, where history goes below it; of one that was left it goes over from what was known to what
//! is known now at the join itself, whose own state is therefore a fork.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>

mod entering;
mod prepared;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use ruma::{EventId, OwnedEventId, events::StateEventType};
use tokio::time::{Instant, sleep};

pub use self::entering::Entry;
use self::{
    entering::{Entering, change_to},
    prepared::Prepared,
};
use super::{
    head::Head,
    residency::{Held, Resident},
    room::Room,
    rooms::Rooms,
};
use crate::{
    error::{Error, Result},
    event::{
        Pdu, Standing, StateChange,
        fact::{ExpectedAccount, Fork, ForkBase, NewEvent, RoomEntry, RoomHead, SenderToOthers, Write},
    },
    ground::position::EventKey,
    log::{CommitError, Submitted},
    store,
};

/// How many events are kept as outliers in one transaction.
const KEPT_AT_ONCE: usize = 500;
/// How long to wait before looking again where somebody else enters the room at the same moment.
const PAUSE: Duration = Duration::from_millis(250);
/// For how long it is tried to enter a room whose state is known.
const PATIENCE: Duration = Duration::from_mins(10);

impl Rooms {
    /// Comes into a room by the join of a user of this server that another server has taken. After an error nothing is
    /// here but outliers, which nobody is shown.
    ///
    /// `M_BAD_JSON` for what is no such join, `M_FORBIDDEN` where the room does not allow it, `M_UNSUPPORTED_ROOM_VERSION`,
    /// and `Unavailable` where the database fails or others are in the way for [`PATIENCE`]. Done again it changes nothing.
    pub async fn enter(&self, entry: Entry) -> Result<Resident> {
        // On the heap: the state is large, and so is what its way takes.
        Box::pin(self.enter_room(entry)).await
    }

    async fn enter_room(&self, entry: Entry) -> Result<Resident> {
        let entering = {
            let entry = Arc::new(entry);
            let (looked_at, here) = (Arc::clone(&entry), self.0.server_name.clone());
            // Off the threads that answer requests.
            let looking = tokio::task::spawn_blocking(move || Entering::new(&looked_at, &here));
            let entering = looking.await.map_err(Error::broken)??;
            for events in entry.state.chunks(KEPT_AT_ONCE).chain(entry.auth_chain.chunks(KEPT_AT_ONCE)) {
                self.keep_outliers(&entering.room_id, events).await?;
            }
            entering
        };
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let is_in = match self.find_held(&entering.room_id).await? {
                Some(Held::Resident(room)) => return self.enter_shared(room, &entering).await,
                Some(left @ Held::Left(_)) => self.enter_left(&left.into_room(), &entering).await?,
                None => self.enter_new(&entering).await?,
            };
            if is_in {
                // As an outlier it may have been redacted, or its redaction may have come first.
                self.try_to_settle_redactions(&[entering.join.event_id()]).await;
                return self.get(&entering.room_id).await;
            }
            // Another node was quicker, with whatever it was.
            self.0.log.refresh().await?;
        }
        Err(Error::Unavailable(format!("others are in the way of coming into the room {}", entering.room_id)))
    }

    /// Somebody else of this server has come into the room meanwhile: the join is an event like others.
    async fn enter_shared(&self, room: Resident, entering: &Entering) -> Result<Resident> {
        let state: Vec<OwnedEventId> = entering.before.iter().map(|pdu| pdu.event_id().to_owned()).collect();
        match self.append_after_gap(&room, Pdu::clone(&entering.join), &state).await? {
            Standing::Accepted => Ok(room),
            _ => Err(Error::forbidden("The room has changed since, and does not allow this join any more")),
        }
    }

    /// Comes into a room of which there is nothing here. False if somebody else does at the same time.
    async fn enter_new(&self, entering: &Entering) -> Result<bool> {
        let Some(prepared) = self.prepare(entering).await? else {
            sleep(PAUSE).await;
            return Ok(false);
        };
        let entered = self.enter_prepared(entering, &prepared).await;
        if !matches!(entered, Ok(true)) {
            self.try_to_clear(&entering.room_id, prepared.trunk).await;
        }
        entered
    }

    async fn enter_prepared(&self, entering: &Entering, prepared: &Prepared) -> Result<bool> {
        let before = RoomHead::new(entering.version.clone());
        let changes = entering.list_told(&self.0.server_name);
        let outlier = self.find_key(entering.join.event_id()).await?;
        if outlier.is_some_and(EventKey::is_of_log) {
            // Somebody else has entered the room by the same join.
            return Ok(false);
        }
        let event = self.entering_event(entering, (before, outlier), changes, None).await?;
        let entry =
            RoomEntry { room_id: entering.room_id.clone(), trunk: prepared.trunk, servers: prepared.servers.clone() };
        let facts = self.end_all_outside(&entering.room_id, &entering.after).await?;
        let write = Write { events: vec![event], facts, entry: Some(entry), ..Write::default() };
        has_entered(self.0.log.submit(write)).await
    }

    /// Comes back into a room that was left. What is here of it goes on with what has become of it since. False if that is
    /// something else by now.
    async fn enter_left(&self, room: &Room, entering: &Entering) -> Result<bool> {
        let head = room.view(Head::of);
        let create = StateEventType::RoomCreate;
        let creations = head.state.find(&create).zip(entering.before.find(&create));
        if creations.is_none_or(|(here, there)| here.event_id() != there.event_id()) {
            return Err(Error::bad_json("The room has begun with another event than the one that is known here"));
        }
        let outlier = self.find_key(entering.join.event_id()).await?;
        if outlier.is_some_and(EventKey::is_of_log) {
            return Err(Error::forbidden("This join is over: the room has been left since"));
        }
        let (left, after) = (head.state.clone(), entering.after.clone());
        let comparing = tokio::task::spawn_blocking(move || left.changes_to(&after));
        let mut changes = comparing.await.map_err(Error::broken)?;
        changes.extend(entering.before.find(&create).map(change_to));
        let fork = Fork { base: ForkBase::After, changes: entering.after.changes_to(&entering.before) };
        let event = self.entering_event(entering, (head.room.clone(), outlier), changes, Some(fork)).await?;
        let facts = self.end_all_outside(&entering.room_id, &entering.after).await?;

        let mut pending = room.pending.lock().await;
        if room.head(&pending).room != head.room {
            return Ok(false);
        }
        let generation = pending.generation;
        pending.note(&entering.join);
        pending.head = Some(Head { room: event.head.clone(), rules: head.rules, state: entering.after.clone() });
        let submitted = self.0.log.submit(Write { events: vec![event], facts, ..Write::default() });
        drop(pending);
        let entered = has_entered(submitted).await;
        if !matches!(entered, Ok(true)) {
            room.forget_pending(generation).await;
        }
        entered
    }

    /// The join as an entry of the log, on the head of what is here of the room. `outlier` is what it was called until now.
    async fn entering_event(
        &self,
        entering: &Entering,
        (before, outlier): (RoomHead, Option<EventKey>),
        changes: Vec<StateChange>,
        fork: Option<Fork>,
    ) -> Result<NewEvent> {
        let join = &entering.join;
        let (_, missing) = self.list_placed(join.prev_events()).await?;
        let mut head = before.clone();
        head.enter(join);
        Ok(NewEvent {
            pdu: Arc::clone(join),
            standing: Standing::Accepted,
            before,
            head,
            fork,
            changes,
            missing,
            outlier,
            transaction: None,
            notifies: false,
            thread_root: None,
            annotates_once: false,
            highlights: Vec::new(),
            highlights_everybody: false,
            replaces: entering.before.member(&entering.user_id).cloned(),
            redacted: None,
            awaits: None,
            // The one that let the user in.
            sender_to_others: SenderToOthers::AnotherServer,
            expects: Some(ExpectedAccount { user_id: entering.user_id.clone(), copied: Vec::new() }),
        })
    }

    /// What an event is called here, if it is known.
    async fn find_key(&self, event_id: &EventId) -> Result<Option<EventKey>> {
        Ok(store::event::keys(&mut self.0.db.read().await?, &[event_id]).await?.pop().map(|(_, key)| key))
    }
}

/// Waits for the log. False if the room is not any more what the write was built on.
async fn has_entered(submitted: Submitted) -> Result<bool> {
    match submitted.committed().await {
        Ok(_) => Ok(true),
        Err(CommitError::Stale(_)) => Ok(false),
        // The join has become an outlier at this moment, or was one and has come through the log.
        Err(CommitError::Unavailable(error)) if error.is_conflict() => Ok(false),
        Err(error) => Err(error.into()),
    }
}
