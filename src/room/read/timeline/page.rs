//! A page of a room's history.

use std::sync::Arc;

use ruma::api::Direction;

use crate::{event::Stored, ground::position::Order};

/// A page of events in the direction in which they were asked for.
#[derive(Debug, Default)]
pub struct EventPage {
    pub events: Vec<Arc<Stored>>,
    /// Where to go on. None where there is nothing more. May be given also where nothing follows: whoever asks with it
    /// gets an empty page.
    pub end: Option<Order>,
}

impl EventPage {
    /// The part of the page that comes before a gap in the direction of its walk, if there is one: whoever goes on from
    /// there gets what has been fetched meanwhile. The event that follows the gap stands at `gap`.
    pub fn until_gap(mut self, direction: Direction, gap: Order) -> Self {
        let is_before = |event: &Arc<Stored>| match direction {
            Direction::Backward => event.order >= gap,
            Direction::Forward => event.order < gap,
        };
        let Some(last) = self.events.iter().rposition(is_before) else { return self };
        self.events.truncate(last + 1);
        self.end = match direction {
            Direction::Backward => Some(gap.before()),
            Direction::Forward => self.events.last().map(|event| event.order),
        };
        self
    }
}
