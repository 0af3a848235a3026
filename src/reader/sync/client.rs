//! Who syncs.

use ruma::{OwnedDeviceId, OwnedUserId};

use crate::people::account::{Caller, User};

/// A user, on one of their devices. What a device is sent alone is for no other.
///
/// What both have in common, users and guests, is all that a sync goes by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    pub(crate) user_id: OwnedUserId,
    pub(crate) device_id: OwnedDeviceId,
}

impl From<&Caller> for Client {
    fn from(caller: &Caller) -> Self {
        Self { user_id: caller.user_id().to_owned(), device_id: caller.device_id().to_owned() }
    }
}

impl From<&User> for Client {
    fn from(user: &User) -> Self {
        Self { user_id: user.user_id.clone(), device_id: user.device_id.clone() }
    }
}
