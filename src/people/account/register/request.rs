//! What somebody asks for who registers. It is kept with their authentication session: many clients say it once, and
//! then nothing but how they complete the stages.
//!
//! As it is JSON in a row that may outlive an upgrade of the server, fields are only ever added to it. The password is
//! kept as a hash, never as a text.

use std::net::IpAddr;

use ruma::OwnedDeviceId;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    people::{account::session::NewSession, device},
    store::token::TokenHash,
};

/// As it may be written down. Whatever is not said is not decided yet.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct RegistrationRequest {
    pub(crate) username: Option<String>,
    /// In the PHC string format.
    pub(crate) password_hash: Option<String>,
    /// Shown by a guest who becomes a user.
    pub(crate) guest: Option<TokenHash>,
    device: RequestedDevice,
}

/// The device that is to be logged in.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct RequestedDevice {
    pub(crate) device_id: Option<OwnedDeviceId>,
    pub(crate) display_name: Option<String>,
    pub(crate) inhibit_login: Option<bool>,
    /// Whether the client knows how to refresh an access token.
    pub(crate) refreshable: Option<bool>,
}

impl RegistrationRequest {
    /// Everything but the password, which is hashed when everything else is right.
    pub(crate) fn new(username: Option<String>, guest_token: Option<&str>, device: RequestedDevice) -> Result<Self> {
        let device = RequestedDevice {
            device_id: device.device_id.map(device::check_device_id).transpose()?,
            display_name: device.display_name.as_deref().map(device::shorten_display_name),
            ..device
        };
        Ok(Self { username, password_hash: None, guest: guest_token.map(TokenHash::of), device })
    }

    /// This, and what was asked for earlier where this says nothing of it.
    pub(crate) fn or(self, earlier: Self) -> Self {
        let (device, before) = (self.device, earlier.device);
        Self {
            username: self.username.or(earlier.username),
            password_hash: self.password_hash.or(earlier.password_hash),
            guest: self.guest.or(earlier.guest),
            device: RequestedDevice {
                device_id: device.device_id.or(before.device_id),
                display_name: device.display_name.or(before.display_name),
                inhibit_login: device.inhibit_login.or(before.inhibit_login),
                refreshable: device.refreshable.or(before.refreshable),
            },
        }
    }

    /// What a session of interactive authentication keeps between its requests.
    pub(crate) fn from_json(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(Error::broken)
    }

    pub(crate) fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(Error::broken)
    }

    /// The session to be opened, unless none is wanted.
    pub(crate) fn session(&self, address: IpAddr) -> Option<NewSession> {
        let RequestedDevice { device_id, display_name, inhibit_login, refreshable } = self.device.clone();
        let refreshable = refreshable.unwrap_or_default();
        (!inhibit_login.unwrap_or_default()).then_some(NewSession { device_id, display_name, refreshable, address })
    }
}
