//! Erasure: what somebody sent who has had it erased is there in full for those who could read it before, and as a
//! redacted copy for everybody else, who joins later. This is the one place that knows; every way to read an event
//! leads past it.
//!
//! The tables keep the events as they were. Who is erased is in memory, with the place in the log from which on; a
//! reader gets an event in full if they could read it by then (`Sight::saw`).
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate>
//!
//! Nothing is rewritten in the database: a copy is made for each reader, each time. Whoever was in the room reads on as
//! before.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId, events::TimelineEventType};

use crate::{
    error::{Error, Result},
    event::{
        Pdu, Stored,
        fact::{AccountChange, Fact, Write},
    },
    ground::position::Order,
    room::{Rooms, State},
    store,
};

/// An event by somebody who has been erased.
struct ErasedEvent<'a> {
    pdu: &'a Arc<Pdu>,
    /// Where it stands, if that is known.
    order: Option<Order>,
    /// From here on its sender is erased. An event that they sent later is judged by the moment at which it was sent.
    since: Order,
}

/// What a reader gets in place of events that they are not to read. By identifier; an event that is missing is read as
/// it is.
struct RedactedCopies(HashMap<OwnedEventId, Arc<Pdu>>);

impl RedactedCopies {
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

/// An event that was found, of which only this much is known. Search has no more than this of a match before it reads
/// the event.
pub(crate) struct EventTrace<'a> {
    pub(crate) room_id: &'a RoomId,
    pub(crate) sender: &'a UserId,
    pub(crate) order: Order,
}

impl Rooms {
    /// From now on whoever joins a room gets redacted copies of what these users sent. One write: all of it is in
    /// the log or nothing.
    async fn erase(&self, users: Vec<OwnedUserId>) -> Result<()> {
        let facts: Vec<Fact> =
            users.into_iter().map(|user_id| Fact::AccountChange(AccountChange::Erased(user_id))).collect();
        if !facts.is_empty() {
            self.0.log.append(Write::facts(facts)).await?;
        }
        Ok(())
    }

    /// Writes into the log everybody whose account says that they have asked for it. Done again it does nothing. For
    /// the errand that follows a deactivation, which may be tried again.
    pub(crate) async fn log_erasures(&self) -> Result<()> {
        let unlogged = store::erasure::list_unlogged(&mut self.0.db.read().await?).await?;
        self.erase(unlogged).await
    }

    /// Puts redacted copies in place of those of a room's events that the reader is not to read in full, and of what is
    /// sent along with events: what they replaced, and what redacted them.
    ///
    /// Costs nothing where nobody has been erased, and no statement where none of the senders has. Errors are the
    /// database's.
    pub(crate) async fn withhold(&self, room_id: &RoomId, reader: &UserId, events: &mut [Arc<Stored>]) -> Result<()> {
        if self.0.active.erasures.is_empty() {
            return Ok(());
        }
        let mut erased = Vec::new();
        for event in &*events {
            erased.extend(self.erased(reader, &event.pdu, Some(event.order)));
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

    /// Withholds from a reader what events of whatever rooms say, one room after the other. The list keeps its order.
    pub(crate) async fn withhold_anywhere(&self, reader: &UserId, events: &mut [Arc<Stored>]) -> Result<()> {
        if self.0.active.erasures.is_empty() {
            return Ok(());
        }
        for (room_id, places) in by_room(events.iter().map(|event| event.pdu.room_id())) {
            let mut here: Vec<_> = places.iter().filter_map(|place| events.get(*place).cloned()).collect();
            self.withhold(&room_id, reader, &mut here).await?;
            put_back(events, &places, here);
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

    /// Withholds what erased users said in events of which only that is shown, such as a room's state.
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
        let erased: Vec<ErasedEvent<'_>> = with_because.filter_map(|pdu| self.erased(reader, pdu, None)).collect();
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

    /// Withholds what erased users said in state events of whatever rooms, one room after the other.
    pub(in crate::room) async fn withhold_state_anywhere(
        &self,
        reader: &UserId,
        events: &mut [Arc<Pdu>],
    ) -> Result<()> {
        if self.0.active.erasures.is_empty() {
            return Ok(());
        }
        for (room_id, places) in by_room(events.iter().map(|event| event.room_id())) {
            let mut here: Vec<_> = places.iter().filter_map(|place| events.get(*place).cloned()).collect();
            self.withhold_state(&room_id, reader, &mut here).await?;
            put_back(events, &places, here);
        }
        Ok(())
    }

    /// Withholds what erased users said in a whole state, which is then good for showing and nothing else. The
    /// authorization rules must not be asked of it: it holds events that are not what their identifiers say.
    pub(super) async fn withhold_all(&self, room_id: &RoomId, reader: &UserId, mut state: State) -> Result<State> {
        if self.0.active.erasures.is_empty() {
            return Ok(state);
        }
        let concerns = |pdu: &Arc<Pdu>| {
            let with_because = pdu.redacted_because().into_iter().chain([pdu]);
            with_because.into_iter().any(|pdu| self.erased(reader, pdu, None).is_some())
        };
        let mut events: Vec<Arc<Pdu>> = state.iter().filter(concerns).collect();
        self.withhold_state(room_id, reader, &mut events).await?;
        for event in events {
            state.insert(event);
        }
        Ok(state)
    }

    /// The places of those events that the reader is not to read in full. They are named by their
    /// orders, of which no two events have the same, of whatever rooms (`graph/placing.rs`).
    pub(crate) async fn list_withheld(
        &self,
        reader: &UserId,
        traces: impl IntoIterator<Item = EventTrace<'_>>,
    ) -> Result<HashSet<Order>> {
        let mut by_room: HashMap<OwnedRoomId, Vec<(Order, Order)>> = HashMap::new();
        if self.0.active.erasures.is_empty() {
            return Ok(HashSet::new());
        }
        for EventTrace { room_id, sender, order } in traces {
            if let Some(since) = self.0.active.erasures.find(sender).map(Order::at).filter(|_| sender != reader) {
                by_room.entry(room_id.to_owned()).or_default().push((order, since));
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

    /// An event as one of somebody else who has been erased, if it is. None of the reader's own events, and of those
    /// that [`is_needed`] says.
    fn erased<'a>(&self, reader: &UserId, pdu: &'a Arc<Pdu>, order: Option<Order>) -> Option<ErasedEvent<'a>> {
        let since = self.0.active.erasures.find(pdu.sender())?;
        (pdu.sender() != reader && !is_needed(pdu)).then_some(ErasedEvent { pdu, order, since: Order::at(since) })
    }

    /// Redacted copies of those events that the reader could not read before they were erased. The places of events
    /// that come without one are looked up in one statement.
    async fn copies(&self, room_id: &RoomId, reader: &UserId, erased: Vec<ErasedEvent<'_>>) -> Result<RedactedCopies> {
        let unplaced: Vec<&EventId> =
            erased.iter().filter(|one| one.order.is_none()).map(|one| one.pdu.event_id()).collect();
        let mut orders: HashMap<OwnedEventId, Order> = HashMap::new();
        if !unplaced.is_empty() {
            orders.extend(store::event::orders(&mut self.0.db.read().await?, &unplaced).await?);
        }
        let place = |one: &ErasedEvent<'_>| {
            let order = one.order.or_else(|| orders.get(one.pdu.event_id()).copied());
            // What is not known to have been there before is taken for later.
            (order.unwrap_or(one.since), one.since)
        };
        let places: Vec<(Order, Order)> = erased.iter().map(place).collect();
        let saw = self.saw(room_id, reader, &places).await?;
        let mut copies = HashMap::new();
        for (ErasedEvent { pdu, .. }, saw) in erased.into_iter().zip(saw) {
            if !saw && !copies.contains_key(pdu.event_id()) {
                let copy = pdu.stripped().map_err(Error::broken)?;
                copies.insert(pdu.event_id().to_owned(), Arc::new(copy));
            }
        }
        Ok(RedactedCopies(copies))
    }

    /// Whether a reader could read what stands at some places of a room before each was erased, or was there when it was
    /// sent. Nothing of a room that is not held here. From memory where the reader's membership is remembered for long
    /// enough.
    async fn saw(&self, room_id: &RoomId, reader: &UserId, places: &[(Order, Order)]) -> Result<Vec<bool>> {
        let Some(room) = self.find_held(room_id).await? else { return Ok(vec![false; places.len()]) };
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

/// The places in a list of what belongs to each room.
fn by_room<'a>(rooms: impl Iterator<Item = &'a RoomId>) -> HashMap<OwnedRoomId, Vec<usize>> {
    let mut places: HashMap<OwnedRoomId, Vec<usize>> = HashMap::new();
    for (place, room_id) in rooms.enumerate() {
        places.entry(room_id.to_owned()).or_default().push(place);
    }
    places
}

/// Puts some of a list back at the places that they were taken from.
fn put_back<T>(list: &mut [T], places: &[usize], some: Vec<T>) {
    for (place, one) in places.iter().zip(some) {
        if let Some(old) = list.get_mut(*place) {
            *old = one;
        }
    }
}

/// What clients can't do without: by the first they know what kind of room it is, by the other that they must encrypt
/// what they send. Neither is about whoever sent it.
fn is_needed(pdu: &Pdu) -> bool {
    matches!(pdu.kind(), TimelineEventType::RoomCreate | TimelineEventType::RoomEncryption)
}

#[cfg(test)]
mod tests;
