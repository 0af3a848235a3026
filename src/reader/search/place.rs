//! Places among the results of a search, as clients hold them.
//!
//! A token is no secret and nothing is kept of it here: whoever changes one gets results of their own rooms in another
//! order, or is refused.

use std::{fmt, str::FromStr};

use ruma::{OwnedRoomId, OwnedUserId};

use crate::{
    error::{Error, Result},
    ground::position::{Order, Position},
    store::search::SearchHit,
};

/// A place among the results, which clients hold as a token. It names the last one that was given: whatever is redacted
/// or said meanwhile, what follows it is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResultPlace {
    /// Of what stands from here on, everything has been given, or it came later.
    pub(super) below: Order,
    /// What stands from here on has been counted. By rank, the window under way begins here and ends before `below`.
    pub(super) counted: Order,
    /// How many matches have been counted by then.
    pub(super) count: usize,
    /// By rank, the last result that was given of the window under way.
    pub(super) last: Option<(u32, Order)>,
    /// Whether the term is looked for just as it is.
    pub(super) is_literal: bool,
    /// None for all results.
    pub(crate) group: Option<Group>,
}

/// Some of the results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Room(OwnedRoomId),
    Sender(OwnedUserId),
}

impl ResultPlace {
    /// Before everything that was said up to some place in the log.
    pub(super) fn first(until: Position) -> Self {
        let below = Order::at(until.next());
        Self { below, counted: below, count: 0, last: None, is_literal: false, group: None }
    }

    /// This place among the results of one group.
    pub(crate) fn within(&self, group: Group) -> Self {
        Self { group: Some(group), ..self.clone() }
    }
}

impl Group {
    pub(super) fn holds(&self, hit: &SearchHit) -> bool {
        match self {
            Self::Room(room_id) => hit.room_id == *room_id,
            Self::Sender(user_id) => hit.sender == *user_id,
        }
    }
}

impl fmt::Display for ResultPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let literal = if self.is_literal { LITERAL } else { "" };
        write!(f, "{literal}{ORDERS}{}.{}.{}", self.below.0, self.counted.0, self.count)?;
        if let Some((rank, order)) = self.last {
            write!(f, ".{rank}.{}", order.0)?;
        }
        match &self.group {
            None => Ok(()),
            Some(Group::Room(room_id)) => write!(f, ".{room_id}"),
            Some(Group::Sender(user_id)) => write!(f, ".{user_id}"),
        }
    }
}

impl FromStr for ResultPlace {
    type Err = Error;

    fn from_str(token: &str) -> Result<Self> {
        parse(token)
            .ok_or_else(|| Error::invalid_param("next_batch is not a token that a search has given: pass it unchanged"))
    }
}

/// What the tokens of searches begin with that look for the term just as it is.
const LITERAL: &str = "=";
/// What comes before the numbers of those that name places by their orders. Older ones have positions in the log.
const ORDERS: &str = "o";

/// An optional `=`, an `o` unless the numbers are positions, `below.counted.count`, then `.rank.order` of the last result, then
/// a room or a user behind a dot. None for anything else.
fn parse(token: &str) -> Option<ResultPlace> {
    let (numbers, group) = token.split_at_checked(token.find(['!', '@']).unwrap_or(token.len()))?;
    let group = match group.chars().next() {
        None => None,
        Some('!') => Some(Group::Room(group.try_into().ok()?)),
        Some(_) => Some(Group::Sender(group.try_into().ok()?)),
    };
    let numbers = if group.is_some() { numbers.strip_suffix('.')? } else { numbers };
    let is_literal = numbers.starts_with(LITERAL);
    let numbers = numbers.strip_prefix(LITERAL).unwrap_or(numbers);
    let orders = numbers.strip_prefix(ORDERS);
    let numbers: Vec<&str> = orders.unwrap_or(numbers).split('.').collect();
    let place = |number: &str| {
        let number: i64 = number.parse().ok()?;
        match orders {
            Some(_) => Some(Order(number)),
            None => (number >= 0).then(|| Order::at(Position(number))),
        }
    };
    let (below, counted, count, last) = match *numbers.as_slice() {
        [below, counted, count] => (below, counted, count, None),
        [below, counted, count, rank, last] => (below, counted, count, Some((rank.parse().ok()?, place(last)?))),
        _ => return None,
    };
    let (below, counted) = (place(below)?, place(counted)?);
    (counted <= below).then_some(ResultPlace { below, counted, count: count.parse().ok()?, last, is_literal, group })
}
