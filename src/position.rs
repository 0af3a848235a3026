//! A place in the log, which is also what clients hold as a sync or pagination token.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The place of an entry in the log, counted from 1; 0 is before everything. A token `s7` stands for the
/// moment just after entry 7.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub i64);

/// A line of state, named by the place of the event that it began with. A room's own line is its trunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lineage(pub i64);

/// A token that this server did not give out.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a token of this server: pass next_batch, prev_batch, start or end as it was given")]
pub struct InvalidToken(String);

impl Position {
    /// Before everything.
    pub const START: Self = Self(0);

    /// The place just before this one.
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The place just after this one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

impl FromStr for Position {
    type Err = InvalidToken;

    fn from_str(token: &str) -> Result<Self, InvalidToken> {
        let position = token.strip_prefix('s').and_then(|digits| digits.parse().ok()).filter(|p| *p >= 0);
        position.map(Self).ok_or_else(|| InvalidToken(token.chars().take(32).collect()))
    }
}
