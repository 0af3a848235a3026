//! What another server may read of a room, and in which form.
//!
//! [`Rooms::open_to_server`] is the one place that asks whether it may at all: one of its users must be in the room, and the
//! room's access control list must let it. Whatever is read then comes through a [`ServerReading`], which gives out events
//! of this room alone, says of an event of any other that it does not know it, and redacts what none of that server's users
//! may see (`for_server/sight.rs`). Walks go along the room's graph and look at so many events and no more, however few of
//! them they find (`for_server/walk.rs`).
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#retrieving-events>

mod sight;
#[cfg(test)]
mod tests;
mod walk;

use std::sync::Arc;

use ruma::{EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedServerName, RoomId, ServerName, api::Direction};

use self::{sight::ServerSight, walk::Graph};
use crate::{
    error::{Error, Result},
    event::{Pdu, Standing, Stored},
    ground::position::Order,
    room::{Room, Rooms, State},
    store,
};

/// The most events of a page of history, and of an answer to what is missing.
const MOST_BACKFILLED: usize = 100;
const MOST_MISSING: usize = 50;

/// A room as one other server may read it, at one moment.
pub struct ServerReading {
    rooms: Rooms,
    room: Arc<Room>,
    server: OwnedServerName,
    sight: ServerSight,
}

impl Rooms {
    /// Opens a room for another server that has a user in it.
    ///
    /// `M_NOT_FOUND` for a room that nobody of this server is in: what goes on there is not known here. `M_FORBIDDEN` for a
    /// server that has nobody in it or that the room keeps out.
    pub async fn open_to_server(&self, room_id: &RoomId, server: &ServerName) -> Result<ServerReading> {
        let outside = || Error::not_found(format!("Nobody of this server is in the room {room_id}"));
        let room = self.find(room_id).await?.ok_or_else(outside)?;
        let (is_in, is_allowed) = room.view(|view| (view.has_server(server), view.allows(server)));
        if !is_in {
            return Err(Error::forbidden(format!("Nobody of {server} is in this room")));
        }
        if !is_allowed {
            return Err(Error::forbidden(format!("This room does not let {server} take part")));
        }
        let sight = self.sight_of_server(&room, server).await?;
        Ok(ServerReading { rooms: self.clone(), room: room.into_room(), server: server.to_owned(), sight })
    }

    /// Opens the room of an event for another server. `M_NOT_FOUND` for an event that is not here.
    pub async fn open_event_to_server(&self, event_id: &EventId, server: &ServerName) -> Result<ServerReading> {
        let event = store::event::find(&mut self.0.db.read().await?, event_id).await?;
        let event = event.ok_or_else(|| unknown(event_id))?;
        self.open_to_server(event.pdu.room_id(), server).await
    }
}

impl ServerReading {
    /// An event of the room, also one that has no place here, or that is shown to no user. Not what was rejected.
    pub async fn event(&self, event_id: &EventId) -> Result<Arc<Pdu>> {
        let event = self.find(event_id).await?.ok_or_else(|| unknown(event_id))?;
        self.shown(&event)
    }

    /// The identifiers of the room's state before an event. `M_NOT_FOUND` for one whose place is not known.
    pub async fn state_ids_before(&self, event_id: &EventId) -> Result<Vec<OwnedEventId>> {
        let state = self.state_at_event(event_id).await?;
        Ok(state.iter().map(|pdu| pdu.event_id().to_owned()).collect())
    }

    /// The room's state before an event. It comes as it is: who is in the room needs all of it.
    pub async fn state_before(&self, event_id: &EventId) -> Result<Vec<Arc<Pdu>>> {
        Ok(self.state_at_event(event_id).await?.iter().collect())
    }

    /// What events of the room cite, directly or not. `M_NOT_FOUND` for the first that is none.
    pub async fn auth_chain(&self, event_ids: &[OwnedEventId]) -> Result<Vec<Arc<Pdu>>> {
        let mut pdus = Vec::with_capacity(event_ids.len());
        for event_id in event_ids {
            pdus.push(self.find(event_id).await?.ok_or_else(|| unknown(event_id))?.pdu);
        }
        self.rooms.auth_chain_of(&pdus).await
    }

    /// What the events of a state cite that has been read here.
    pub async fn auth_chain_of(&self, state: &[Arc<Pdu>]) -> Result<Vec<Arc<Pdu>>> {
        self.rooms.auth_chain_of(state).await
    }

    /// These events and what was before them, the newest first: up to `limit`, or to [`MOST_BACKFILLED`].
    pub async fn backfill(&self, from: &[OwnedEventId], limit: usize) -> Result<Vec<Arc<Pdu>>> {
        let mut graph = self.graph();
        let events = graph.list_before(from, limit.min(MOST_BACKFILLED)).await?;
        events.iter().map(|event| self.shown(event)).collect()
    }

    /// What a server misses that has the `earliest` events and has heard of the `latest`: what these follow, over others of
    /// it or at once, without the ones and the others. Breadth first from the latest, at most `limit` or [`MOST_MISSING`],
    /// and none whose depth is below `min_depth`. Oldest first.
    pub async fn missing_events(
        &self,
        earliest: &[OwnedEventId],
        latest: &[OwnedEventId],
        limit: usize,
        min_depth: i64,
    ) -> Result<Vec<Arc<Pdu>>> {
        let mut graph = self.graph();
        let mut events = graph.list_between(earliest, latest, limit.min(MOST_MISSING), min_depth).await?;
        events.reverse();
        events.iter().map(|event| self.shown(event)).collect()
    }

    /// The event that is closest to a time: sent then or later, backwards then or earlier. None where there is none, or
    /// that server's users may not see it.
    pub async fn event_by_timestamp(&self, ts: MilliSecondsSinceUnixEpoch, dir: Direction) -> Result<Option<Stored>> {
        let (room_id, until) = self.room.view(|view| (view.room_id.clone(), Order::at(view.position)));
        let found = self.rooms.find_closest_within(&room_id, vec![(Order::START, until)], ts, dir).await?;
        Ok(found.filter(|event| self.sight.sees(event)))
    }

    fn graph(&self) -> Graph<'_> {
        Graph::new(&self.rooms, self.room.view(|view| view.room_id.clone()))
    }

    async fn state_at_event(&self, event_id: &EventId) -> Result<State> {
        let event = self.find(event_id).await?.filter(|event| event.standing != Standing::Outlier);
        let event = event.ok_or_else(|| unknown(event_id))?;
        self.rooms.state_before(&self.room, &event).await
    }

    async fn find(&self, event_id: &EventId) -> Result<Option<Stored>> {
        let event = store::event::find(&mut self.rooms.0.db.read().await?, event_id).await?;
        Ok(event.filter(|event| self.is_own(event) && event.standing != Standing::Rejected))
    }

    /// Whether an event is one of the room.
    fn is_own(&self, event: &Stored) -> bool {
        self.room.view(|view| view.room_id == event.pdu.room_id())
    }

    /// An event as that server gets it.
    fn shown(&self, event: &Stored) -> Result<Arc<Pdu>> {
        let is_own = event.pdu.sender().server_name() == self.server;
        let sees = is_own || (self.sight.sees(event) && !self.is_erased(event));
        if sees { Ok(Arc::clone(&event.pdu)) } else { event.pdu.stripped().map(Arc::new).map_err(Error::broken) }
    }

    /// Whether an event's sender was erased, and nobody of that server was there to read it.
    fn is_erased(&self, event: &Stored) -> bool {
        let erased = self.rooms.0.active.erasures.find(event.pdu.sender()).is_some();
        erased && !self.sight.was_there(event)
    }
}

/// What is said of an event that is not here, or is one of another room.
fn unknown(event_id: &EventId) -> Error {
    Error::not_found(format!("This server knows no event {event_id} of the room"))
}
