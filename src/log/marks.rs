//! Which log a client's token is of. A backup that is restored makes another log of it: what was written after the
//! backup is gone, and other things come to stand in its place.
//!
//! A batch has a unique id, so a place in the log is known by the id of the batch that holds it, and a token carries the
//! first characters of that. The ids of the newest batches are in memory, so are those that were looked up before; on
//! its own, a client that goes on syncing costs no look into the database.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use super::Log;
use crate::{
    error::Error,
    position::{Mark, Position, Token},
    store,
};

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
        let batch = self.batches.partition_point(|(last, _)| *last < at);
        self.batches.get(batch).map(|(_, mark)| *mark)
    }
}

/// The marks of older places that somebody has asked for.
#[derive(Default)]
pub(super) struct Older(Mutex<HashMap<Position, Mark>>);

impl Older {
    fn find(&self, at: Position) -> Option<Mark> {
        self.0.lock().get(&at).copied()
    }

    fn extend(&self, marks: &HashMap<Position, Mark>) {
        let mut known = self.0.lock();
        if known.len() + marks.len() > KEPT_OLDER {
            known.clear();
        }
        known.extend(marks);
    }
}

/// What stands for some places of this log in the hands of a client.
#[derive(Debug, Default)]
pub struct Tokens(HashMap<Position, Mark>);

impl Tokens {
    /// The token of one of the places.
    pub fn of(&self, position: Position) -> Token {
        Token { position, mark: self.0.get(&position).copied(), catching_up: false }
    }
}

impl Log {
    /// The token of a place that this node has read.
    pub async fn token(&self, position: Position) -> Result<Token, Error> {
        Ok(self.tokens([position]).await?.of(position))
    }

    /// The tokens of places that this node has read.
    pub async fn tokens(&self, places: impl IntoIterator<Item = Position>) -> Result<Tokens, Error> {
        let (mut marks, mut unknown) = (HashMap::new(), Vec::new());
        // Before everything every log is the same.
        for place in places.into_iter().filter(|place| *place > Position::START) {
            match self.tail().mark(place).or_else(|| self.older.find(place)) {
                Some(mark) => drop(marks.insert(place, mark)),
                None => unknown.push(place.0),
            }
        }
        if !unknown.is_empty() {
            let found = store::log::marks_at(&mut self.db.read().await?, &unknown).await?;
            let found: HashMap<_, _> = found.into_iter().collect();
            self.older.extend(&found);
            marks.extend(found);
        }
        Ok(Tokens(marks))
    }

    /// The place that a token stands for. None for a token of another log: a backup has been restored since it was
    /// given out, from before its place.
    pub async fn place(&self, token: &Token) -> Result<Option<Position>, Error> {
        let position = token.position;
        if position > self.tail().reached() {
            // One from another node may be ahead of this one.
            self.refresh().await?;
            if position > self.tail().reached() {
                return Ok(None);
            }
        }
        // Those that were given out before tokens had marks are taken as they stand.
        let is_ours = match token.mark {
            Some(mark) => self.tokens([position]).await?.of(position).mark == Some(mark),
            None => true,
        };
        Ok(is_ours.then_some(position))
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
