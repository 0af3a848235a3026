//! What has to be known of a kind of fact before it can be in the log.

use ruma::{RoomId, UserId};
use serde::{Serialize, de::DeserializeOwned};

/// A kind of fact, by the value that readers get. Its rows are the log's business, which asks each kind for those too.
pub trait Kind: Sized {
    /// What is written. It may say more than readers get, such as what it must not overwrite.
    type Fact;

    /// What the batch's row says: enough to find the rest. Nodes of other versions read it, so it stays as it is.
    type Entry: Serialize + DeserializeOwned;

    /// What readers get of a fact.
    fn of(fact: &Self::Fact) -> Self;

    /// What the batch's row says of it.
    fn entry(&self) -> Self::Entry;

    /// The room in which clients find it, if it is in one: they look there if it came after what they know.
    fn room_id(&self) -> Option<&RoomId>;

    /// Who waits for it.
    fn audience(&self) -> Audience<'_>;

    /// How many bytes it takes in memory, about. What is given here is for kinds that hold a few identifiers.
    fn bytes(&self) -> usize {
        SMALL
    }
}

/// What a fact takes in memory that holds a few identifiers, in bytes.
pub const SMALL: usize = 400;

/// Which of the connected users are woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience<'a> {
    /// Nobody, or whoever it is that a reader of its own finds and wakes.
    Nobody,
    User(&'a UserId),
    /// Everybody who is in a room.
    Room(&'a RoomId),
}
