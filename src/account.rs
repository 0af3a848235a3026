//! Accounts: placeholder for the accounts branch.

use std::net::IpAddr;

use ruma::{OwnedDeviceId, OwnedUserId};

use crate::error::Result;

/// A user on one of their devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub user_id: OwnedUserId,
    pub device_id: OwnedDeviceId,
    /// Whether this account may use the admin API.
    pub admin: bool,
    /// Whether this is a guest, who may do less.
    pub guest: bool,
    /// Whether rate limits apply to this account.
    pub rate_limited: bool,
}

pub(crate) struct Accounts;

impl Accounts {
    pub(crate) async fn caller(&self, _token: &str, _address: IpAddr) -> Result<Caller> {
        Err(crate::error::Error::forbidden("no"))
    }
}
