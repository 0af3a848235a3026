//! Erasure: what somebody sent who has had it erased is there in full for those who could read it before, and as a
//! redacted copy for everybody else, who joins later. This is the one place that knows; every way to read an event leads
//! past it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate>

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::RwLock;
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId, events::TimelineEventType};

use super::{Rooms, State};
use crate::{
    error::{Error, Result},
    event::{Pdu, Stored},
    fact::{Fact, Write},
    position::Position,
    store,
};

/// Who has been erased, and from which place in the log on. It follows the log.
#[derive(Default)]
pub(super) struct Erasures(RwLock<HashMap<OwnedUserId, Position>>);

impl Erasures {
    pub(super) fn note(&self, user_id: &UserId, at: Position) {
        let mut erased = self.0.write();
        // The first counts, in whatever order they are told.
        let known = erased.entry(user_id.to_owned()).or_insert(at);
        *known = at.min(*known);
    }

    fn is_empty(&self) -> bool {
        self.0.read().is_empty()
    }

    fn find(&self, user_id: &UserId) -> Option<Position> {
        self.0.read().get(user_id).copied()
    }
}

/// An event by somebody who has been erased.
struct Erased<'a> {
    pdu: &'a Arc<Pdu>,
    /// Where it stands, if that is known.
    position: Option<Position>,
    since: Position,
}

/// What a reader gets in place of events that they are not to read.
struct Copies(HashMap<OwnedEventId, Arc<Pdu>>);

impl Copies {
    /// The event as the reader gets it. None where that is as it is.
    fn of(&self, pdu: &Pdu) -> Option<Arc<Pdu>> {
        let copy = self.0.get(pdu.event_id());
        let because = pdu.redacted_because().and_then(|because| self.0.get(because.event_id()));
        match because {
            Some(because) => {
                let pdu = copy.map_or(pdu, |copy| copy);
                Some(Arc::new(pdu.clone().with_redacted_because(Arc::clone(because))))
            }
            None => copy.cloned(),
        }
    }
}

/// An event that was found, of which only this much is known.
pub(crate) struct Trace<'a> {
    pub(crate) room_id: &'a RoomId,
    pub(crate) sender: &'a UserId,
    pub(crate) position: Position,
}

impl Rooms {
    /// Reads who has been erased. The rooms have to follow the log by then.
    pub(crate) async fn load_erasures(&self) -> Result<()> {
        for (user_id, at) in store::erasure::list(&mut self.0.db.read().await?).await? {
            self.0.active.erasures.note(&user_id, at);
        }
        Ok(())
    }

    /// From now on whoever joins a room gets redacted copies of what these users sent.
    async fn erase(&self, users: Vec<OwnedUserId>) -> Result<()> {
        let facts: Vec<Fact> = users.into_iter().map(|user_id| Fact::Erased { user_id }).collect();
        if !facts.is_empty() {
            self.0.log.append(Write { events: Vec::new(), facts }).await?;
        }
        Ok(())
    }

    /// Tells the log of everybody whose account says that they have asked for it. Done again it does nothing.
    pub(crate) async fn tell_erasures(&self) -> Result<()> {
        let untold = store::erasure::list_untold(&mut self.0.db.read().await?).await?;
        self.erase(untold).await
    }

    /// Puts redacted copies in place of those of a room's events that the reader is not to read in full, and of what is
    /// told with events: what they replaced, and what redacted them.
    pub(crate) async fn withhold(&self, room_id: &RoomId, reader: &UserId, events: &mut [Arc<Stored>]) -> Result<()> {
        if self.0.active.erasures.is_empty() {
            return Ok(());
        }
        let mut erased = Vec::new();
        for event in &*events {
            erased.extend(self.erased(reader, &event.pdu, Some(event.position)));
            let others = event.pdu.redacted_because().into_iter().chain(&event.replaces);
            erased.extend(others.filter_map(|pdu| self.erased(reader, pdu, None)));
        }
        if erased.is_empty() {
            return Ok(());
        }
        let copies = self.copies(room_id, reader, erased).await?;
        for event in events {
            let (pdu, replaces) = (copies.of(&event.pdu), event.replaces.as_ref().and_then(|old| copies.of(old)));
            if pdu.is_some() || replaces.is_some() {
                let pdu = pdu.unwrap_or_else(|| Arc::clone(&event.pdu));
                let replaces = replaces.or_else(|| event.replaces.clone());
                *event = Arc::new(Stored { pdu, replaces, ..Stored::clone(event) });
            }
        }
        Ok(())
    }

    /// Withholds from a reader what one event says, if its sender was erased before they came.
    pub(crate) async fn withhold_one(&self, reader: &UserId, event: Stored) -> Result<Stored> {
        if self.0.active.erasures.is_empty() {
            return Ok(event);
        }
        let room_id = event.pdu.room_id().to_owned();
        let mut events = [Arc::new(event)];
        self.withhold(&room_id, reader, &mut events).await?;
        let [event] = events;
        Ok(Arc::unwrap_or_clone(event))
    }

    /// Withholds what erased users said in events of which only that is told, such as a room's state.
    pub(crate) async fn withhold_state(
        &self,
        room_id: &RoomId,
        reader: &UserId,
        events: &mut [Arc<Pdu>],
    ) -> Result<()> {
        if self.0.active.erasures.is_empty() {
            return Ok(());
        }
        let with_because = events.iter().flat_map(|pdu| pdu.redacted_because().into_iter().chain([pdu]));
        let erased: Vec<Erased<'_>> = with_because.filter_map(|pdu| self.erased(reader, pdu, None)).collect();
        if erased.is_empty() {
            return Ok(());
        }
        let copies = self.copies(room_id, reader, erased).await?;
        for event in events {
            if let Some(copy) = copies.of(event) {
                *event = copy;
            }
        }
        Ok(())
    }

    /// Withholds what erased users said in a whole state, which is then good for telling and nothing else.
    pub(super) async fn withhold_all(&self, room_id: &RoomId, reader: &UserId, mut state: State) -> Result<State> {
        if self.0.active.erasures.is_empty() {
            return Ok(state);
        }
        let concerns = |pdu: &&Arc<Pdu>| {
            let with_because = pdu.redacted_because().into_iter().chain([*pdu]);
            with_because.into_iter().any(|pdu| self.erased(reader, pdu, None).is_some())
        };
        let mut events: Vec<Arc<Pdu>> = state.iter().filter(concerns).cloned().collect();
        self.withhold_state(room_id, reader, &mut events).await?;
        for event in events {
            state.insert(event);
        }
        Ok(state)
    }

    /// The places of those events that the reader is not to read in full.
    pub(crate) async fn list_withheld(
        &self,
        reader: &UserId,
        traces: impl IntoIterator<Item = Trace<'_>>,
    ) -> Result<HashSet<Position>> {
        let mut by_room: HashMap<OwnedRoomId, Vec<(Position, Position)>> = HashMap::new();
        if self.0.active.erasures.is_empty() {
            return Ok(HashSet::new());
        }
        for Trace { room_id, sender, position } in traces {
            if let Some(since) = self.0.active.erasures.find(sender).filter(|_| sender != reader) {
                by_room.entry(room_id.to_owned()).or_default().push((position, since));
            }
        }
        let mut withheld = HashSet::new();
        for (room_id, places) in by_room {
            for ((at, _), saw) in places.iter().zip(self.saw(&room_id, reader, &places).await?) {
                if !saw {
                    withheld.insert(*at);
                }
            }
        }
        Ok(withheld)
    }

    /// An event as one of somebody else who has been erased, if it is.
    fn erased<'a>(&self, reader: &UserId, pdu: &'a Arc<Pdu>, position: Option<Position>) -> Option<Erased<'a>> {
        let since = self.0.active.erasures.find(pdu.sender())?;
        (pdu.sender() != reader && !is_needed(pdu)).then_some(Erased { pdu, position, since })
    }

    /// Redacted copies of those events that the reader could not read before they were erased.
    async fn copies(&self, room_id: &RoomId, reader: &UserId, erased: Vec<Erased<'_>>) -> Result<Copies> {
        let unplaced: Vec<&EventId> =
            erased.iter().filter(|one| one.position.is_none()).map(|one| one.pdu.event_id()).collect();
        let mut positions: HashMap<OwnedEventId, Position> = HashMap::new();
        if !unplaced.is_empty() {
            positions.extend(store::event::positions(&mut self.0.db.read().await?, &unplaced).await?);
        }
        let place = |one: &Erased<'_>| {
            let position = one.position.or_else(|| positions.get(one.pdu.event_id()).copied());
            // What is not known to have been there before is taken for later.
            (position.unwrap_or(one.since), one.since)
        };
        let places: Vec<(Position, Position)> = erased.iter().map(place).collect();
        let saw = self.saw(room_id, reader, &places).await?;
        let mut copies = HashMap::new();
        for (Erased { pdu, .. }, saw) in erased.into_iter().zip(saw) {
            if !saw && !copies.contains_key(pdu.event_id()) {
                let copy = pdu.stripped().map_err(Error::broken)?;
                copies.insert(pdu.event_id().to_owned(), Arc::new(copy));
            }
        }
        Ok(Copies(copies))
    }

    /// Whether a reader could read what stands at some places of a room before each was erased, or was there when it was
    /// sent.
    async fn saw(&self, room_id: &RoomId, reader: &UserId, places: &[(Position, Position)]) -> Result<Vec<bool>> {
        let Some(room) = self.find(room_id).await? else { return Ok(vec![false; places.len()]) };
        let remembered = self.sight(&room, reader).await?;
        let all = |sight: &super::visibility::Sight| -> Option<Vec<bool>> {
            places.iter().map(|(at, since)| sight.saw(*at, *since)).collect()
        };
        if let Some(saw) = all(&remembered) {
            return Ok(saw);
        }
        let whole = self.whole_sight(&room, reader).await?;
        all(&whole).ok_or_else(|| Error::broken("a whole sight does not remember everything"))
    }
}

/// What clients can't do without: by the first they know what kind of room it is, by the other that they must encrypt
/// what they send. Neither is about whoever sent it.
fn is_needed(pdu: &Pdu) -> bool {
    matches!(pdu.kind(), TimelineEventType::RoomCreate | TimelineEventType::RoomEncryption)
}

#[cfg(test)]
mod tests;
