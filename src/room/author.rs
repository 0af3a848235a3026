//! In whose name something is done in a room.
//!
//! It is a type so that no act can forget to ask: what a guest or an administrator may do otherwise is decided where
//! the author is matched.

use ruma::{OwnedUserId, UserId};

/// A user of this server, and what they are beside that, as far as rooms go by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Author {
    User(OwnedUserId),
    /// Somebody who has not registered. Not every room lets them in.
    Guest(OwnedUserId),
    /// A user who looks after this server, and after the names and the events of its users in every room.
    Administrator(OwnedUserId),
    /// The user in whose name the server itself speaks.
    Server(OwnedUserId),
}

impl Author {
    /// Who becomes the sender of the event.
    pub fn user_id(&self) -> &UserId {
        match self {
            Self::User(user_id) | Self::Guest(user_id) | Self::Administrator(user_id) | Self::Server(user_id) => {
                user_id
            }
        }
    }

    pub(super) fn is_guest(&self) -> bool {
        matches!(self, Self::Guest(_))
    }

    pub(super) fn is_administrator(&self) -> bool {
        matches!(self, Self::Administrator(_))
    }
}
