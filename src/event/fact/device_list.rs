//! Changes of a user's devices and keys, of which everybody has to hear who encrypts for them.
//!
//! What has changed is in tables of its own: whoever hears of a change asks for the keys as they are then. The place of
//! a change in the log is the stream id by which other servers follow the user.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user>

use ruma::{OwnedDeviceId, OwnedUserId, RoomId};
use serde::{Deserialize, Serialize};

use super::kind::{Audience, Kind};

/// That a user's devices or keys are others from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceListChange {
    pub user_id: OwnedUserId,
    /// None where it is their cross-signing keys.
    pub device_id: Option<OwnedDeviceId>,
    /// The only user who is shown what has changed, if it is not everybody: whoever vouches for the master key of
    /// somebody else is alone with their devices in seeing it, and nobody else hears of it.
    pub seen_by: Option<OwnedUserId>,
}

/// What the batch's row says of a change. Where everybody is shown it, nothing is said of that: so it was before there was
/// anything else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceListEntry(
    pub OwnedUserId,
    pub Option<OwnedDeviceId>,
    #[serde(default, skip_serializing_if = "Option::is_none")] pub Option<OwnedUserId>,
);

/// What the kind is called in the list of all.
pub type DeviceList = DeviceListChange;

impl Kind for DeviceListChange {
    type Fact = Self;
    type Entry = DeviceListEntry;

    fn of(fact: &Self) -> Self {
        fact.clone()
    }

    fn entry(&self) -> Self::Entry {
        DeviceListEntry(self.user_id.clone(), self.device_id.clone(), self.seen_by.clone())
    }

    fn room_id(&self) -> Option<&RoomId> {
        None
    }

    /// The user's other devices at once, or those of the only one who is shown it. Those who share a room with the user
    /// may be very many: they are found and woken a few at a time.
    fn audience(&self) -> Audience<'_> {
        Audience::User(self.seen_by.as_ref().unwrap_or(&self.user_id))
    }
}
