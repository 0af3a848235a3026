//! Reading a room of which something is missing here: where a reader comes to that, other servers are asked, and the room
//! is read again.
//!
//! Asking others costs more than reading does, once for a request.

use ruma::{EventId, RoomId, UserId, api::Direction};

use crate::{
    app::App,
    error::Result,
    federation::reach::{Filled, Wait},
    ground::position::Order,
    people::{account::Pace, rate_limit::Limit},
    room::Room,
};

/// What it costs of `read` that others are asked, beside the request itself.
const COST: u32 = 20;

/// One request that reads a room.
pub(super) struct Reaching<'a> {
    app: &'a App,
    reader: (&'a UserId, Pace),
    room_id: &'a RoomId,
    /// None until somebody is asked.
    wait: Option<Wait>,
}

/// What came of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Open the room again and read it again: there is more.
    More,
    /// What was read is what there is.
    Nothing,
    /// More comes later, just before the event at this place.
    Later(Order),
}

impl<'a> Reaching<'a> {
    pub(super) fn new(app: &'a App, reader: (&'a UserId, Pace), room_id: &'a RoomId) -> Self {
        Self { app, reader, room_id, wait: None }
    }

    /// Has fetched what is missing in a stretch that was read, after one place and up to another.
    pub(super) async fn fill(&mut self, room: &Room, direction: Direction, stretch: (Order, Order)) -> Result<Asked> {
        // Who reads on from the beginning reads what is here: how much there was before nobody knows.
        if direction == Direction::Forward && stretch.0 == Order::START {
            return Ok(Asked::Nothing);
        }
        let Some(gap) = self.app.reach.find_gap(room, direction, stretch).await? else { return Ok(Asked::Nothing) };
        let (app, room_id) = (self.app, self.room_id);
        Ok(match app.reach.fill(self.begin().await?, room_id, &gap).await? {
            Filled::More => Asked::More,
            Filled::Nothing => Asked::Nothing,
            Filled::Later => Asked::Later(gap.order),
        })
    }

    /// Has fetched an event that is not here. Whether there is more here now.
    pub(super) async fn fetch_event(&mut self, room: &Room, event_id: &EventId) -> Result<bool> {
        if !self.app.reach.may_be_missing(room, event_id).await? {
            return Ok(false);
        }
        let (app, room_id) = (self.app, self.room_id);
        Ok(app.reach.fetch_event(self.begin().await?, room_id, event_id).await? == Filled::More)
    }

    /// Counts it, and begins to wait, unless that has been done.
    pub(super) async fn begin(&mut self) -> Result<&mut Wait> {
        let wait = if let Some(wait) = self.wait {
            wait
        } else {
            let (user_id, pace) = self.reader;
            self.app.rate_limits.check(Limit::Read, COST, user_id, pace).await?;
            Wait::begin()
        };
        Ok(self.wait.insert(wait))
    }
}
