//! Which log a client's token is of. A backup that is restored makes another log of it: what was written after the
//! backup is gone, and other things come to stand in its place.
//!
//! A batch has a unique id, so a place in the log is known by the id of the batch that holds it, and a token carries the
//! first characters of that. The ids of the newest batches are in memory, so are those that were looked up before; on
//! its own, a client that goes on syncing costs no look into the database.
//!
//! Both caches only spare statements: what is not in them is looked up in the batches' rows, which are never deleted.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use crate::ground::position::{Mark, Position};

/// How many of the newest batches are remembered: about two megabytes.
const KEPT_RECENT: usize = 100_000;
/// How many of them are read at start.
pub(super) const READ_AT_START: i64 = 10_000;
/// How many older places are remembered.
const KEPT_OLDER: usize = 50_000;

/// The marks of the newest batches, as far as this node has read.
#[derive(Default)]
pub(super) struct Recent {
    /// All batches after this are here.
    after: Position,
    /// Each with its last place, oldest first.
    batches: VecDeque<(Position, Mark)>,
}

impl Recent {
    /// The newest batches, oldest first, each with its first and its last place.
    pub(super) fn new(batches: impl IntoIterator<Item = (Position, Position, Mark)>) -> Self {
        let mut recent = Self::default();
        for (first, last, mark) in batches {
            if recent.batches.is_empty() {
                recent.after = first.before();
            }
            recent.push(last, mark);
        }
        recent
    }

    /// `last` must be higher than every place that is here; the tail calls this once for each batch, in order.
    pub(super) fn push(&mut self, last: Position, mark: Mark) {
        self.batches.push_back((last, mark));
        if self.batches.len() > KEPT_RECENT
            && let Some((oldest, _)) = self.batches.pop_front()
        {
            self.after = oldest;
        }
    }

    /// The mark of the batch that holds a place, if it is here.
    pub(super) fn find(&self, at: Position) -> Option<Mark> {
        if at <= self.after {
            return None;
        }
        // Batches are dense, so the first one that ends at the place or after it holds it.
        let batch = self.batches.partition_point(|(last, _)| *last < at);
        self.batches.get(batch).map(|(_, mark)| *mark)
    }
}

/// The marks of older places that somebody has asked for.
#[derive(Default)]
pub(super) struct Older(Mutex<HashMap<Position, Mark>>);

impl Older {
    pub(super) fn find(&self, at: Position) -> Option<Mark> {
        self.0.lock().get(&at).copied()
    }

    pub(super) fn extend(&self, marks: &HashMap<Position, Mark>) {
        let mut known = self.0.lock();
        if known.len() + marks.len() > KEPT_OLDER {
            // Everything at once rather than the oldest: no order of use is kept for what is asked for seldom.
            known.clear();
        }
        known.extend(marks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(text: &str) -> Mark {
        Mark::of(text)
    }

    #[test]
    fn a_place_is_in_the_batch_that_holds_it() {
        let mut recent = Recent::default();
        recent.push(Position(3), mark("one"));
        recent.push(Position(4), mark("two"));
        let found = [0, 1, 3, 4, 5].map(|at| recent.find(Position(at)));
        assert_eq!(found, [None, Some(mark("one")), Some(mark("one")), Some(mark("two")), None]);

        let recent =
            Recent::new([(Position(7), Position(9), mark("three")), (Position(10), Position(10), mark("four"))]);
        assert_eq!(recent.find(Position(6)), None, "that is not remembered");
        assert_eq!([7, 9, 10].map(|at| recent.find(Position(at))), ["three", "three", "four"].map(|id| Some(mark(id))));
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let mut recent = Recent::default();
        for last in 1..=i64::try_from(KEPT_RECENT).unwrap() + 2 {
            recent.push(Position(last), mark("same"));
        }
        assert_eq!((recent.find(Position(2)), recent.find(Position(3))), (None, Some(mark("same"))));
    }
}
