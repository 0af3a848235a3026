//! Presence: whether somebody is there.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#presence>

use std::collections::BTreeMap;

use ruma::{MilliSecondsSinceUnixEpoch, OwnedDeviceId, OwnedUserId, RoomId, presence::PresenceState};
use serde::{Deserialize, Serialize};

use super::{
    kind::{Audience, Kind, SMALL},
    node_id::NodeId,
};

/// All that is known of one user from here on: a fact replaces the one before as a whole.
#[derive(Clone, Debug)]
pub struct Presence {
    pub user_id: OwnedUserId,
    pub state: PresenceState,
    pub status_msg: Option<String>,
    /// When they last did something, by the clock that the nodes agree on.
    pub last_active: MilliSecondsSinceUnixEpoch,
    /// When they have said of themselves that they are unavailable or offline, where that holds.
    pub claimed: Option<MilliSecondsSinceUnixEpoch>,
    /// Their devices that are connected.
    pub devices: BTreeMap<OwnedDeviceId, ConnectedDevice>,
}

/// A device that is connected to a node. The short names are what the database holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectedDevice {
    /// What it says of its user: online or unavailable.
    #[serde(rename = "s")]
    pub state: PresenceState,
    #[serde(rename = "n")]
    pub node: NodeId,
}

impl Kind for Presence {
    type Fact = Self;
    type Entry = OwnedUserId;

    fn of(fact: &Self) -> Self {
        fact.clone()
    }

    fn entry(&self) -> OwnedUserId {
        self.user_id.clone()
    }

    fn room_id(&self) -> Option<&RoomId> {
        None
    }

    /// Those who share a room with the user may be very many: they are found and woken a few at a time.
    fn audience(&self) -> Audience<'_> {
        Audience::Nobody
    }

    fn bytes(&self) -> usize {
        let devices =
            self.devices.iter().map(|(id, device)| SMALL / 2 + id.as_str().len() + device.node.as_str().len());
        SMALL + self.status_msg.as_ref().map_or(0, String::len) + devices.sum::<usize>()
    }
}
