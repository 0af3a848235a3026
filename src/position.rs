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

/// A `next_batch`: how far a client has synced, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncToken {
    pub position: Position,
    /// Whether the client was catching up: it did not want to wait, or knew nothing yet. Clients show that until the
    /// next answer, for which they do wait, and that one comes at once whatever it has to tell. A token `s7~` says so.
    pub catching_up: bool,
}

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

    /// Reads any token, of which other endpoints than `/sync` want to know no more.
    fn from_str(token: &str) -> Result<Self, InvalidToken> {
        SyncToken::from_str(token).map(|token| token.position)
    }
}

impl fmt::Display for SyncToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.position, if self.catching_up { "~" } else { "" })
    }
}

impl FromStr for SyncToken {
    type Err = InvalidToken;

    fn from_str(token: &str) -> Result<Self, InvalidToken> {
        let (place, catching_up) = token.strip_suffix('~').map_or((token, false), |place| (place, true));
        let position = place.strip_prefix('s').and_then(|digits| digits.parse().ok()).filter(|p| *p >= 0);
        let position = position.map(Position).ok_or_else(|| InvalidToken(token.chars().take(32).collect()))?;
        Ok(Self { position, catching_up })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_they_are_written() {
        for (token, position, catching_up) in [("s0", 0, false), ("s7", 7, false), ("s7~", 7, true)] {
            let read: SyncToken = token.parse().unwrap();
            assert_eq!(read, SyncToken { position: Position(position), catching_up });
            assert_eq!(read.to_string(), token);
            assert_eq!(token.parse::<Position>().unwrap(), read.position);
        }
        for broken in ["", "s", "7", "s-7", "s7~~", "~", "t7", "s7x", "s99999999999999999999"] {
            assert!(broken.parse::<SyncToken>().is_err(), "{broken}");
        }
    }
}
