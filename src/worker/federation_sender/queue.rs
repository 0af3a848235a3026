//! What waits for one destination: events in the order of the log, as many as memory is for, and how much of it one
//! transaction takes.

use std::{collections::VecDeque, sync::Arc};

use crate::{event::Pdu, ground::position::Position};

/// How many events wait in memory for one destination. Whoever takes them more slowly than they come is owed the rest, and
/// gets it as after an outage.
pub(super) const MOST_QUEUED: usize = 1_000;
/// How many events a transaction has at most.
///
/// <https://spec.matrix.org/v1.19/server-server-api/#transactions>
pub(super) const MOST_PDUS: usize = 50;
/// How many bytes a transaction has at most, with what stands around its events.
const MOST_BYTES: usize = 12_500_000;
/// What stands around them, beside a comma for each.
const FRAME_BYTES: usize = 1_000;

/// An event on its way to a destination.
#[derive(Clone, Debug)]
pub(super) struct QueuedEvent {
    /// Its place in the log.
    pub(super) at: Position,
    pub(super) pdu: Arc<Pdu>,
    /// Whether it takes a user of the destination out of the room, which the destination may then be in no longer.
    pub(super) departs: bool,
}

/// What waits for a destination, oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<QueuedEvent>);

impl Queue {
    /// False where there is no room.
    #[must_use]
    pub(super) fn push(&mut self, event: QueuedEvent) -> bool {
        let has_room = self.0.len() < MOST_QUEUED;
        if has_room {
            self.0.push_back(event);
        }
        has_room
    }

    /// The place of the oldest event.
    pub(super) fn first(&self) -> Option<Position> {
        self.0.front().map(|event| event.at)
    }

    /// What goes into the next transaction. It stays in the queue until it is known to have arrived.
    pub(super) fn head(&self) -> Vec<QueuedEvent> {
        let oldest: Vec<QueuedEvent> = self.0.iter().take(MOST_PDUS).cloned().collect();
        let fitting = fitting(&oldest);
        oldest.into_iter().take(fitting).collect()
    }

    /// The oldest so many have arrived.
    pub(super) fn drop_head(&mut self, count: usize) {
        self.0.drain(..count.min(self.0.len()));
    }

    /// Takes everything out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = QueuedEvent> {
        self.0.drain(..)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &QueuedEvent> {
        self.0.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How many of these events, from the first on, go into one transaction. At least one, where there is one.
pub(super) fn fitting(events: &[QueuedEvent]) -> usize {
    let mut bytes = FRAME_BYTES;
    let fits = |event: &&QueuedEvent| {
        bytes = bytes.saturating_add(event.pdu.json().get().len()).saturating_add(1);
        bytes <= MOST_BYTES
    };
    events.iter().take(MOST_PDUS).take_while(fits).count().max(1).min(events.len())
}

#[cfg(test)]
mod tests {
    use ruma::{RoomVersionId, event_id};
    use serde_json::json;

    use super::*;
    use crate::ground::room_version::rules;

    fn event(at: i64, bytes: usize) -> QueuedEvent {
        let event = json!({
            "room_id": "!room:here",
            "sender": "@alice:here",
            "type": "m.room.message",
            "content": { "body": "x".repeat(bytes) },
            "origin_server_ts": 1,
            "depth": at,
            "prev_events": [],
            "auth_events": [],
        });
        // Larger than any event may be, so that a few are enough.
        let rules = rules(&RoomVersionId::V11).unwrap();
        let pdu = Pdu::from_stored(event_id!("$event").to_owned(), event.to_string(), rules).unwrap();
        QueuedEvent { at: Position(at), pdu: Arc::new(pdu), departs: false }
    }

    #[test]
    fn a_transaction_has_fifty_events_and_twelve_and_a_half_megabytes_at_most() {
        let mut queue = Queue::default();
        for at in 1..=120 {
            assert!(queue.push(event(at, 10)));
        }
        assert_eq!(queue.head().iter().map(|event| event.at.0).collect::<Vec<_>>(), (1..=50).collect::<Vec<_>>());
        assert_eq!(queue.len(), 120, "nothing is gone before it has arrived");
        queue.drop_head(50);
        queue.drop_head(50);
        assert_eq!((queue.first(), queue.head().len()), (Some(Position(101)), 20));
        queue.drop_head(50);
        assert!(queue.is_empty() && queue.head().is_empty());

        let large: Vec<QueuedEvent> = (1..=5).map(|at| event(at, 4_000_000)).collect();
        assert_eq!(fitting(&large), 3);
        assert_eq!(fitting(&[event(1, 13_000_000), event(2, 10)]), 1, "or it would wait for ever");
        assert_eq!(fitting(&[]), 0);
    }

    #[test]
    fn a_queue_has_an_end() {
        let (mut queue, event) = (Queue::default(), event(1, 10));
        let taken = (0..MOST_QUEUED + 5).filter(|_| queue.push(event.clone())).count();
        assert_eq!((taken, queue.len()), (MOST_QUEUED, MOST_QUEUED));
    }
}
