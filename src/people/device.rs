//! Devices: where a user is logged in, as they see and tidy it themselves.
//!
//! A device is made by logging in and goes with logging out; a name and when it was last seen are all there is to it
//! here.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#device-management>

use ruma::{DeviceId, OwnedDeviceId, UserId};

use crate::{
    db::Db,
    error::{Error, Result},
    event::fact::{DeviceListChange, Fact},
    log::Log,
    store::{device, device_key},
};

pub(crate) use crate::store::device::{Device, DeviceSelection};

/// In characters.
const MAX_DISPLAY_NAME: usize = 100;

/// In bytes.
const MAX_DEVICE_ID_BYTES: usize = 255;

/// The devices of this server's users. They come and go in [`crate::people::account`], with their tokens.
#[derive(Clone)]
pub(crate) struct Devices {
    db: Db,
    log: Log,
}

impl Devices {
    pub(crate) fn new(db: Db, log: Log) -> Self {
        Self { db, log }
    }

    pub(crate) async fn list(&self, user_id: &UserId) -> Result<Vec<Device>> {
        let mut conn = self.db.read().await?;
        Ok(device::list(&mut conn, user_id).await?)
    }

    /// `M_NOT_FOUND` for a device that is not this user's.
    pub(crate) async fn get(&self, user_id: &UserId, device_id: &DeviceId) -> Result<Device> {
        let mut conn = self.db.read().await?;
        device::find(&mut conn, user_id, device_id).await?.ok_or_else(no_such_device)
    }

    /// `M_INVALID_PARAM` for a name that is too long, `M_NOT_FOUND` for a device that is not this user's.
    pub(crate) async fn rename(&self, user_id: &UserId, device_id: &DeviceId, display_name: &str) -> Result<()> {
        if display_name.chars().count() > MAX_DISPLAY_NAME {
            let message = format!("A device's display name has at most {MAX_DISPLAY_NAME} characters");
            return Err(Error::invalid_param(message));
        }
        let mut tx = self.db.begin().await?;
        if !device::rename(&mut tx, user_id, device_id, display_name).await? {
            return Err(no_such_device());
        }
        // Others are shown the name with the keys.
        if device_key::find(&mut tx, user_id, device_id).await?.is_none() {
            return Ok(tx.commit().await?);
        }
        let (user_id, device_id) = (user_id.to_owned(), Some(device_id.to_owned()));
        let change = DeviceListChange { user_id, device_id, seen_by: None };
        self.log.commit(tx, vec![Fact::DeviceList(change)]).await?;
        Ok(())
    }
}

/// A device ID that a client chose: anything that can be kept and sent in a path.
pub(crate) fn check_device_id(device_id: OwnedDeviceId) -> Result<OwnedDeviceId> {
    let text = device_id.as_str();
    if text.len() > MAX_DEVICE_ID_BYTES || text.chars().any(char::is_control) {
        let message = format!("A device ID has at most {MAX_DEVICE_ID_BYTES} bytes and no control characters");
        return Err(Error::invalid_param(message));
    }
    Ok(device_id)
}

/// A first display name, cut to size: a talkative browser should not keep anybody from logging in.
pub(crate) fn shorten_display_name(display_name: &str) -> String {
    display_name.chars().filter(|c| !c.is_control()).take(MAX_DISPLAY_NAME).collect()
}

fn no_such_device() -> Error {
    Error::not_found("You have no device with this ID")
}
