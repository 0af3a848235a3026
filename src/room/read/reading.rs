//! Somebody opens a room to read it: whether they may, up to where, and as what they see its events.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#getting-events-for-a-room>

use std::{collections::HashSet, sync::Arc};

use ruma::{DeviceId, EventId, MilliSecondsSinceUnixEpoch, OwnedUserId, RoomId, UserId};

use super::visibility::Sight;
use crate::{
    error::{Error, Result},
    event::{ClientFormat, Pdu, Standing, Stored},
    ground::position::Order,
    room::{Room, Rooms, State},
    store,
};

/// A room as one user may read it, at one moment.
pub struct ReadableRoom {
    pub room: Arc<Room>,
    pub user_id: OwnedUserId,
    /// May remember the user's membership only for a while back: [`Rooms::load_memberships_from`] before older events
    /// are written.
    pub sight: Sight,
    /// What came later than this is not part of the reading.
    pub until: Order,
    /// Whose words the user does not want to read.
    pub ignored: Arc<HashSet<OwnedUserId>>,
}

impl Rooms {
    /// Opens a room for somebody who is or was in it, or anybody where the whole world may read it.
    ///
    /// `M_FORBIDDEN` otherwise, and just the same for a room that this server doesn't know.
    ///
    /// A room that somebody has left and forgotten is closed to them. It costs no statement for members of a room that
    /// hides nothing.
    pub async fn open(&self, room_id: &RoomId, user_id: &UserId) -> Result<ReadableRoom> {
        let Some(room) = self.find_held(room_id).await? else { return Err(not_a_member()) };
        let until = Order::at(room.view(|view| view.position));
        let sight = self.sight(&room, user_id).await?;
        if !sight.is_member() && !sight.is_world_readable() {
            let membership = store::membership::find(&mut self.0.db.read().await?, user_id, room_id).await?;
            if !sight.was_member() || membership.is_none_or(|membership| membership.forgotten) {
                return Err(not_a_member());
            }
        }
        Ok(ReadableRoom { room: room.into_room(), user_id: user_id.to_owned(), sight, until, ignored: Arc::default() })
    }

    /// An event of the room, if there is one and the user may see it. Accepted events only. Whoever is erased is
    /// withheld.
    pub async fn find_event(&self, reading: &mut ReadableRoom, event_id: &EventId) -> Result<Option<Stored>> {
        let Some(event) = store::event::find(&mut self.0.db.read().await?, event_id).await? else { return Ok(None) };
        let here = reading.room.view(|view| view.room_id == event.pdu.room_id());
        if !here || event.standing != Standing::Accepted || !reading.sight.sees(&event) {
            return Ok(None);
        }
        self.load_membership_from(reading, event.order).await?;
        Ok(Some(self.withhold_one(&reading.user_id, event).await?))
    }

    /// An event by its identifier alone, with the room that it is in, if the user may see it.
    pub async fn find_event_anywhere(
        &self,
        event_id: &EventId,
        user_id: &UserId,
    ) -> Result<Option<(ReadableRoom, Stored)>> {
        let Some(event) = store::event::find(&mut self.0.db.read().await?, event_id).await? else { return Ok(None) };
        let mut reading = match self.open(event.pdu.room_id(), user_id).await {
            Err(Error::Refused { .. }) => return Ok(None),
            opened => opened?,
        };
        let event = self.find_event(&mut reading, event_id).await?;
        Ok(event.map(|event| (reading, event)))
    }

    /// The room's state as the user may know it: now, or as it was when they left.
    pub async fn readable_state(&self, reading: &ReadableRoom) -> Result<State> {
        let state = self.state_at(&reading.room, reading.now()).await?;
        let room_id = reading.room.view(|view| view.room_id.clone());
        self.withhold_all(&room_id, &reading.user_id, state).await
    }

    /// One event of that state. One statement at most, where the whole state would be read for one key.
    pub async fn readable_state_event(
        &self,
        reading: &ReadableRoom,
        kind: &str,
        state_key: &str,
    ) -> Result<Option<Arc<Pdu>>> {
        let mut found = self.state_event_at(&reading.room, reading.now(), kind, state_key).await?;
        if let Some(event) = &mut found {
            let room_id = event.room_id().to_owned();
            self.withhold_state(&room_id, &reading.user_id, std::slice::from_mut(event)).await?;
        }
        Ok(found)
    }

    /// Makes sure that each of one user's readings knows their membership from some place on. All rooms in one
    /// statement; none where every reading knows enough.
    pub async fn load_memberships_from(
        &self,
        readings: impl IntoIterator<Item = (&mut ReadableRoom, Order)>,
    ) -> Result<()> {
        let forgetful: Vec<&mut ReadableRoom> = readings
            .into_iter()
            .filter_map(|(reading, at)| (at < reading.sight.remembers_from()).then_some(reading))
            .collect();
        let Some(user_id) = forgetful.first().map(|reading| reading.user_id.clone()) else { return Ok(()) };
        let rooms: Vec<Arc<Room>> = forgetful.iter().map(|reading| Arc::clone(&reading.room)).collect();
        let sights = self.whole_sights(&rooms, &user_id).await?;
        for (reading, sight) in forgetful.into_iter().zip(sights) {
            reading.sight = sight;
        }
        Ok(())
    }

    /// Makes sure that the reading knows the user's membership from `at` on.
    pub(super) async fn load_membership_from(&self, reading: &mut ReadableRoom, at: Order) -> Result<()> {
        self.load_memberships_from([(reading, at)]).await
    }
}

impl ReadableRoom {
    /// This reading without the words of those whom the user ignores, in pages and surroundings.
    pub fn ignoring(self, ignored: Arc<HashSet<OwnedUserId>>) -> Self {
        Self { ignored, ..self }
    }

    /// The moment that is the present to the user. For who has left, the place at which they did; they see nothing of
    /// what came after.
    pub fn now(&self) -> Order {
        self.sight.left_at().unwrap_or(self.until)
    }

    /// How the user gets an event to read, on this device and at this time.
    ///
    /// What a state event replaced needs no check of its own: whoever sees the event was in the room, or may
    /// read as if they had been, when the replaced one was in force.
    pub fn format(&self, event: &Stored, device_id: &DeviceId, now: MilliSecondsSinceUnixEpoch) -> ClientFormat {
        ClientFormat {
            with_room_id: true,
            now: Some(now),
            transaction_id: event.transaction_for(&self.user_id, device_id),
            delay_id: event.delay_id_for(&self.user_id),
            replaces: event.replaces.clone(),
            membership: self.sight.membership_at(event.order),
            relations: None,
        }
    }
}

/// Whether somebody who ignores these users is not to be shown an event. State goes to everybody; what an ignored user
/// says does not.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#ignoring-users>
pub(crate) fn is_ignored(pdu: &Pdu, ignored: &HashSet<OwnedUserId>) -> bool {
    !pdu.is_state() && ignored.contains(pdu.sender())
}

/// One refusal for a room that is not there and for one that is none of the caller's business.
pub fn not_a_member() -> Error {
    Error::forbidden("You are not and were not in this room, or you have forgotten it. Join it to read it")
}
