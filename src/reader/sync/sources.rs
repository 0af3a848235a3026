//! Where the parts of a `/sync` come from, and what is asked of them.

use std::sync::Arc;

use ruma::UserId;

use super::{
    client::Client, device_changes::DeviceChangeCache, key_counts::KeyCountsOfDevices, waits::Waits, wanted::Wanted,
    watchers::Watchers,
};
use crate::{
    ephemeral::{presence::PresenceOfUsers, receipt::Receipts, typing::Typists},
    error::Result,
    ground::{clock::Clock, position::Position},
    people::{account_data::AccountDataOfUsers, to_device::ToDeviceMessages},
    reader::unread::Unread,
    room::Rooms,
};

/// Where the parts of a `/sync` come from.
pub(crate) struct Sources {
    pub(crate) rooms: Rooms,
    pub(crate) watchers: Watchers,
    pub(crate) waits: Waits,
    pub(crate) receipts: Receipts,
    pub(crate) typists: Typists,
    pub(crate) presence: PresenceOfUsers,
    pub(crate) unread: Unread,
    pub(crate) account_data: AccountDataOfUsers,
    pub(crate) device_changes: Arc<DeviceChangeCache>,
    pub(crate) key_counts: KeyCountsOfDevices,
    pub(crate) to_device: ToDeviceMessages,
    pub(crate) clock: Clock,
}

/// Whose sync this is and what it asks for.
#[derive(Clone, Debug)]
pub(crate) struct SyncRequest {
    pub(crate) client: Client,
    pub(crate) wanted: Wanted,
    /// None for everything.
    pub(crate) since: Option<Position>,
    /// The client has the messages to its device up to here, which is not after `since`, and wants those that come
    /// after. None where the answer has no place for any.
    pub(crate) delivered: Option<Position>,
    /// Whether the client knows something all the same, of a log that a restored backup has replaced: what it knows may
    /// be gone, and what it does not know of comes as if it had been away.
    pub(crate) begins_anew: bool,
    /// Whether to send all state of all joined rooms.
    pub(crate) full_state: bool,
    /// Whether state is sent as it is after the timeline rather than before it.
    pub(crate) state_after: bool,
}

impl Sources {
    /// Whether a user wants to know of invitations, and of those that this inviter sends.
    pub(super) async fn shows_invite(&self, user_id: &UserId, inviter: Option<&UserId>) -> Result<bool> {
        let ignored = self.account_data.ignored(user_id).await?;
        let is_welcome = inviter.is_none_or(|inviter| !ignored.contains(inviter));
        Ok(is_welcome && !self.account_data.blocks_invites(user_id).await?)
    }
}
