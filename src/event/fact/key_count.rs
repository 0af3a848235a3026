//! That a device has other one-time or fallback keys on the server than before.
//!
//! How many there are is in tables of its own. The device is to know, so that there are always some.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#one-time-and-fallback-keys>

use ruma::{OwnedDeviceId, OwnedUserId, RoomId};

use super::kind::{Audience, Kind};

/// That keys of a device were uploaded or claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyCountChange {
    pub user_id: OwnedUserId,
    pub device_id: OwnedDeviceId,
}

/// What the kind is called in the list of all.
pub type KeyCount = KeyCountChange;

impl Kind for KeyCountChange {
    type Fact = Self;
    type Entry = (OwnedUserId, OwnedDeviceId);

    fn of(fact: &Self) -> Self {
        fact.clone()
    }

    fn entry(&self) -> Self::Entry {
        (self.user_id.clone(), self.device_id.clone())
    }

    fn room_id(&self) -> Option<&RoomId> {
        None
    }

    /// Users are woken as a whole. Their other devices find that nothing is for them and wait on.
    fn audience(&self) -> Audience<'_> {
        Audience::User(&self.user_id)
    }
}
