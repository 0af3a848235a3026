//! Changes of accounts. What has changed is in tables of its own, which every node has to look up again.

use ruma::{OwnedUserId, RoomId, UserId};

use super::kind::{Audience, Kind};

/// What has changed, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountChange {
    /// Devices, tokens or the standing of an account: who is logged in, and what they may do.
    Devices(OwnedUserId),
    /// From here on whoever joins a room gets redacted copies of what this user sent.
    Erased(OwnedUserId),
}

impl AccountChange {
    /// Whose account it is.
    pub fn user_id(&self) -> &UserId {
        match self {
            Self::Devices(user_id) | Self::Erased(user_id) => user_id,
        }
    }
}

impl Kind for AccountChange {
    type Fact = Self;
    /// Both are written alike, because nodes of older versions know only the one. The table of erasures says where the
    /// other stands.
    type Entry = OwnedUserId;

    fn of(fact: &Self) -> Self {
        fact.clone()
    }

    fn entry(&self) -> OwnedUserId {
        self.user_id().to_owned()
    }

    fn room_id(&self) -> Option<&RoomId> {
        None
    }

    /// Whoever waits on a device that was logged out is to learn of it.
    fn audience(&self) -> Audience<'_> {
        match self {
            Self::Devices(user_id) => Audience::User(user_id),
            Self::Erased(_) => Audience::Nobody,
        }
    }
}
