//! Where events of a room are missing here: before this server came, and where what others sent did not arrive.
//!
//! What is missing may be had from other servers, and then stands closely before the event that follows it. So a reader who
//! comes across a gap may have it fetched and read the same stretch again.

use ruma::EventId;

use crate::{
    error::Result,
    event::Stored,
    ground::position::Order,
    room::{Room, Rooms},
    store::{self, history::Gap},
};

impl Rooms {
    /// The events of a room before which others are missing, from the lowest. No statement for a room that never had any.
    pub(crate) async fn list_gaps(&self, room: &Room) -> Result<Vec<Gap>> {
        let (room_id, has_gaps) = room.view(|view| (view.room_id.clone(), view.has_gaps));
        if !has_gaps {
            return Ok(Vec::new());
        }
        Ok(store::history::list_gaps(&mut self.0.db.read().await?, &room_id).await?)
    }

    /// The events that follow these gaps, from the lowest.
    pub(crate) async fn list_after_gaps(&self, gaps: &[Gap]) -> Result<Vec<Stored>> {
        let keys: Vec<i64> = gaps.iter().map(|gap| gap.key.0).collect();
        let mut events = store::event::list_at(&mut self.0.db.read().await?, &keys).await?;
        events.sort_unstable_by_key(|event| event.order);
        Ok(events)
    }

    /// Whether an event has a place in its room, so that it can be read.
    pub(crate) async fn has_place(&self, event_id: &EventId) -> Result<bool> {
        let known = store::event::orders(&mut self.0.db.read().await?, &[event_id]).await?;
        Ok(known.iter().any(|(_, order)| *order != Order::START))
    }
}
