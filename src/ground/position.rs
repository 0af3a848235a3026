//! The numbers of the log and of rooms, and what clients hold of them as sync and pagination tokens.
//!
//! An event has up to three numbers, each with a type of its own, because they are the same only for what this server
//! took in as it happened:
//! - its [`Position`] in the log, if it came through the log: `/sync` goes by that;
//! - its [`Order`] in its room, if its place there is known: everything that reads a room goes by that;
//! - its [`EventKey`], by which other rows refer to it.
//!
//! Orders leave space for history that is fetched later, so that the order of an event in the log never changes.
//! Renumbering a room would break tokens and rewrite rows, and orders of any length, as texts, would make every index
//! larger for what is rare.
//!
//! A position is dense, counted from 1 and the same on every node. A token stands for the moment just after an entry: a
//! client that comes back with one is shown whatever has a greater number, so it misses nothing and sees nothing twice.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The place of an entry in the log, counted from 1; 0 is before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub i64);

/// The place of an event among those of its room, for comparing with others of that room.
///
/// An event that was taken in as it happened has its position in the log times [`Order::SPACE`]. What lies between two
/// of these is left for events that are fetched later: such as fill a gap stand closely before the event that follows
/// the gap, and what was before everything that is known of the room stands below zero. The order of what the log has
/// told of never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Order(pub i64);

/// What an event is called in other rows: its position in the log if the log has told of it, otherwise a number
/// below zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventKey(pub i64);

/// A line of state, named by the key of the event that it began with, or by a key below zero that no event has. A room's
/// own line is its trunk.
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

impl Order {
    /// Before everything. It is also what an event has whose place in the room is not known: no stretch of a room holds
    /// it, since stretches begin after a place.
    pub const START: Self = Self(i64::MIN);
    /// After everything.
    pub const END: Self = Self(i64::MAX);
    /// How many places there are from one position of the log to the next: 2^20. Positions have 2^43 left, which at 17,000
    /// events a second are 16 years.
    pub const SPACE: i64 = 1 << 20;

    /// The place of the event that the log has at a position. Of [`Position::START`] it is before everything.
    pub fn at(position: Position) -> Self {
        if position <= Position::START { Self::START } else { Self(position.0.saturating_mul(Self::SPACE)) }
    }

    /// The last place before the next position.
    pub fn until(position: Position) -> Self {
        Self(position.next().0.saturating_mul(Self::SPACE)).before()
    }

    /// The position at which the log has the event that stands here, if it is in the log.
    pub fn position(self) -> Option<Position> {
        (self.0 > 0 && self.0 % Self::SPACE == 0).then_some(Position(self.0 / Self::SPACE))
    }

    /// The key of the event that stands here, where that follows from the place: of everything that the log has told of
    /// and of what was before everything that was known of its room, but not of what came out of a gap.
    pub fn key(self) -> Option<EventKey> {
        (self != Self::START && self.0 % Self::SPACE == 0).then_some(EventKey(self.0 / Self::SPACE))
    }

    /// The last position up to here.
    pub fn floor(self) -> Position {
        Position(self.block().max(0))
    }

    /// In which block of [`Order::SPACE`] places it stands: the last position up to here, but going on below zero.
    pub fn block(self) -> i64 {
        self.0.div_euclid(Self::SPACE)
    }

    /// The place just before this one.
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The place just after this one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Default for Order {
    fn default() -> Self {
        Self::START
    }
}

impl EventKey {
    /// Whether the log has told of the event, so that it stays where it stands in its room.
    pub fn is_of_log(self) -> bool {
        self.0 >= 0
    }
}

impl From<Position> for EventKey {
    /// Of an event that was new when the log took it.
    fn from(position: Position) -> Self {
        Self(position.0)
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

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("_")?;
        self.0.iter().try_for_each(|byte| write!(f, "{}", char::from(*byte)))
    }
}

fn is_in_mark(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// What stands for a place in the hands of clients: `s7_aB3-x9` for the moment just after entry 7, in the log in which
/// that is part of a batch with this mark. Older ones have none: `s7`.
///
/// A `next_batch` says besides how far its device has got the messages that wait for it: `s7d_aB3-x9` all of them, and
/// `s7d5_aB3-x9` up to entry 5, where there were more than fit into one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub position: Position,
    pub mark: Option<Mark>,
    /// Of a `next_batch`: whether the client was catching up, because it did not want to wait or knew nothing yet.
    /// Clients show that until the next answer, for which they do wait, and that one comes at once whatever is in it. A
    /// `~` at the end says so.
    pub catching_up: bool,
    /// Of a `next_batch`: up to here its device has every message that was sent to it. Who comes with the token confirms
    /// that. Never after `position`. None of a token that says nothing of messages: it confirms none.
    pub delivered: Option<Position>,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.position.0)?;
        match self.delivered {
            Some(delivered) if delivered == self.position => f.write_str("d")?,
            Some(delivered) => write!(f, "d{}", delivered.0)?,
            None => {}
        }
        if let Some(mark) = self.mark {
            mark.fmt(f)?;
        }
        f.write_str(if self.catching_up { "~" } else { "" })
    }
}

/// What stands for a place in a room in the hands of clients that page through it: as the [`Token`] of a position where it
/// is just before the next one; otherwise with how far it lies behind the position, `s7.5`, which may be below zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageToken {
    pub order: Order,
    /// Of the batch of its position.
    pub mark: Option<Mark>,
}

impl From<Token> for PageToken {
    fn from(token: Token) -> Self {
        Self { order: Order::until(token.position), mark: token.mark }
    }
}

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { order, mark } = *self;
        if order == Order::START || order == Order::until(order.floor()) {
            return Token { position: order.floor(), mark, catching_up: false, delivered: None }.fmt(f);
        }
        write!(f, "s{}.{}", order.0.div_euclid(Order::SPACE), order.0.rem_euclid(Order::SPACE))?;
        mark.map_or(Ok(()), |mark| mark.fmt(f))
    }
}

impl FromStr for PageToken {
    type Err = InvalidToken;

    fn from_str(token: &str) -> Result<Self, InvalidToken> {
        let Some((position, rest)) = token.split_once('.') else { return token.parse::<Token>().map(Self::from) };
        let parsed = || {
            let (offset, mark) = rest.split_once('_').map_or((rest, None), |(offset, mark)| (offset, Some(mark)));
            let mark = match mark {
                Some(mark) => Some(Mark::parse(mark)?),
                None => None,
            };
            let position: i64 = position.strip_prefix('s')?.parse().ok()?;
            let offset = offset.parse().ok().filter(|offset| (0..Order::SPACE).contains(offset))?;
            Some(Self { order: Order(position.checked_mul(Order::SPACE)?.checked_add(offset)?), mark })
        };
        parsed().ok_or_else(|| InvalidToken(token.chars().take(32).collect()))
    }
}

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(token: &str) -> Result<Self, InvalidToken> {
        // A number can be written in more than one way, and only one of them was given away.
        let as_written = parse(token).filter(|read| read.to_string() == token);
        as_written.ok_or_else(|| InvalidToken(token.chars().take(32).collect()))
    }
}

/// Reads what [`Token`] is written as, and hardly anything else: a token that was shortened or joined to another is no
/// place.
fn parse(token: &str) -> Option<Token> {
    let (token, catching_up) = token.strip_suffix('~').map_or((token, false), |token| (token, true));
    let place = token.strip_prefix('s')?;
    let (digits, mark) = place.split_once('_').map_or((place, None), |(digits, mark)| (digits, Some(mark)));
    let number = |digits: &str| digits.parse().ok().filter(|number| *number >= 0).map(Position);
    let (digits, delivered) = digits.split_once('d').map_or((digits, None), |(digits, place)| (digits, Some(place)));
    let position = number(digits)?;
    let delivered = match delivered {
        Some("") => Some(position),
        Some(place) => Some(number(place).filter(|delivered| *delivered < position)?),
        None => None,
    };
    let mark = match mark {
        Some(mark) => Some(Mark::parse(mark)?),
        None => None,
    };
    Some(Token { position, mark, catching_up, delivered })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went() {
        for token in [
            "s0",
            "s7",
            "s7~",
            "s7_aB3-x9",
            "s7_aB3-x9~",
            "s12______1",
            "s9223372036854775807",
            "s0d",
            "s7d",
            "s7d_dB3-x9",
            "s7d0_aB3-x9",
            "s7d5_aB3-x9~",
            "s70d6~",
        ] {
            assert_eq!(token.parse::<Token>().unwrap().to_string(), token);
        }
        let is_catching_up = |token: &str| token.parse::<Token>().unwrap().catching_up;
        assert!(is_catching_up("s7_aB3-x9~") && !is_catching_up("s7_aB3-x9"));
        let delivered = |token: &str| token.parse::<Token>().unwrap().delivered.map(|place| place.0);
        assert_eq!(["s7", "s7d", "s7d5_aB3-x9", "s7d0"].map(delivered), [None, Some(7), Some(5), Some(0)]);
        assert_eq!("s7d5_aB3-x9".parse::<PageToken>().unwrap().to_string(), "s7_aB3-x9", "rooms know nothing of it");
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
            "s+7",
            "s007",
            "s-0",
            "s7_aB3.x9",
            "s7_é23é",
            "s9223372036854775808",
            "d",
            "sd",
            "sd5",
            "s7d7",
            "s7d8",
            "s7d-1",
            "s7d+5",
            "s7d05",
            "s7dd",
            "s7d5d",
            "s7_aB3-x9d",
            "s7~d",
        ] {
            assert!(token.parse::<Token>().is_err(), "{token}");
        }
    }

    #[test]
    fn tokens_of_pages_come_back_as_they_went() {
        for token in ["s0", "s7", "s7_aB3-x9", "s7.0", "s7.5_aB3-x9", "s-3.12", "s-8796093022208.1"] {
            assert_eq!(token.parse::<PageToken>().unwrap().to_string(), token);
        }
        let of = |order| PageToken { order, mark: None }.to_string();
        assert_eq!(of(Order::START), "s0");
        assert_eq!(of(Order::at(Position(8)).before()), "s7");
        assert_eq!(of(Order::at(Position(8))), "s8.0");
        for token in ["s7.", "s7.-1", "s7.1048576", "s7.1~", "s.1", "s9223372036854775807.1", "s7.1_aB3", "s-7", "7.1"]
        {
            assert!(token.parse::<PageToken>().is_err(), "{token}");
        }
    }

    #[test]
    fn orders_know_which_events_the_log_told_of() {
        let eighth = Order::at(Position(8));
        assert_eq!((eighth.position(), eighth.floor()), (Some(Position(8)), Position(8)));
        assert_eq!((eighth.before().position(), eighth.before().floor()), (None, Position(7)));
        assert_eq!((Order(-Order::SPACE).position(), Order(-Order::SPACE).floor()), (None, Position::START));
        assert_eq!(
            [eighth, eighth.before(), Order(0), Order(-1), Order(-Order::SPACE)].map(Order::block),
            [8, 7, 0, -1, -1]
        );
        assert_eq!((Order::START.position(), Order::START.key()), (None, None));
        assert_eq!((eighth.key(), eighth.before().key()), (Some(EventKey(8)), None));
        assert_eq!(Order(-3 * Order::SPACE).key(), Some(EventKey(-3)));
        assert!(Order::START < Order(-5) && Order(-5) < Order::at(Position(1)));
    }
}
