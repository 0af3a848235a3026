//! A place in the log, and what clients hold of it as a sync or pagination token.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The place of an entry in the log, counted from 1; 0 is before everything.
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

/// What a batch of the log is recognised by: the first characters of its unique id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark([u8; Mark::LENGTH]);

impl Mark {
    /// That two batches have the same is one chance in 64 to the power of this.
    const LENGTH: usize = 6;

    /// The mark of the batch with this id.
    pub fn of(batch_id: &str) -> Self {
        let mut mark = [b'-'; Self::LENGTH];
        for (character, byte) in mark.iter_mut().zip(batch_id.bytes()) {
            *character = if is_in_mark(byte) { byte } else { b'-' };
        }
        Self(mark)
    }

    fn parse(text: &str) -> Option<Self> {
        let characters: [u8; Self::LENGTH] = text.as_bytes().try_into().ok()?;
        characters.iter().all(|character| is_in_mark(*character)).then_some(Self(characters))
    }
}

fn is_in_mark(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// What stands for a place in the hands of clients: `s7_aB3-x9` for the moment just after entry 7, in the log in which
/// that is part of a batch with this mark. Older ones have none: `s7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub position: Position,
    pub mark: Option<Mark>,
    /// Of a `next_batch`: whether the client was catching up, because it did not want to wait or knew nothing yet. Clients
    /// show that until the next answer, for which they do wait, and that one comes at once whatever it has to tell. A `~`
    /// at the end says so.
    pub catching_up: bool,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.position.0)?;
        if let Some(Mark(characters)) = self.mark {
            f.write_str("_")?;
            for character in characters {
                write!(f, "{}", char::from(character))?;
            }
        }
        f.write_str(if self.catching_up { "~" } else { "" })
    }
}

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(token: &str) -> Result<Self, InvalidToken> {
        parse(token).ok_or_else(|| InvalidToken(token.chars().take(32).collect()))
    }
}

fn parse(token: &str) -> Option<Token> {
    let (token, catching_up) = token.strip_suffix('~').map_or((token, false), |token| (token, true));
    let place = token.strip_prefix('s')?;
    let (digits, mark) = place.split_once('_').map_or((place, None), |(digits, mark)| (digits, Some(mark)));
    let position = digits.parse().ok().filter(|position| *position >= 0).map(Position)?;
    let mark = match mark {
        Some(mark) => Some(Mark::parse(mark)?),
        None => None,
    };
    Some(Token { position, mark, catching_up })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went() {
        for token in ["s0", "s7", "s7~", "s7_aB3-x9", "s7_aB3-x9~", "s12______1", "s9223372036854775807"] {
            assert_eq!(token.parse::<Token>().unwrap().to_string(), token);
        }
        let is_catching_up = |token: &str| token.parse::<Token>().unwrap().catching_up;
        assert!(is_catching_up("s7_aB3-x9~") && !is_catching_up("s7_aB3-x9"));
        assert_eq!(Mark::of("aB3-x9kq0"), Mark::of("aB3-x9"));
        for token in [
            "",
            "s",
            "7",
            "s-1",
            "t7",
            "~",
            "s7~~",
            "s7x",
            "s7_",
            "s7_~",
            "s7_aB3",
            "s7_aB3-x9k",
            "s7_aB3.x9",
            "s7_é23é",
            "s9223372036854775808",
        ] {
            assert!(token.parse::<Token>().is_err(), "{token}");
        }
    }
}
