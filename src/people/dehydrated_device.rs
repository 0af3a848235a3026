//! Dehydrated devices: where somebody is logged in nowhere, one device of theirs still takes what is sent to it. Its
//! private keys are stored beside it, encrypted, and the next device that logs in reads its messages with them.
//!
//! It is a device like any other, with keys that others see and an inbox, but for its tokens, of which it has none. So it
//! ends as others do: when it is deleted, or all of a user's devices are logged out. Whoever logs in on it wakes it.
//!
//! A new one is put in place of the old one with all of its keys in one transaction, so that there never is one to which
//! nobody could encrypt. Its messages are never deleted because they were read: whoever reads them may be broken off.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/3814>

use ruma::{
    DeviceId, UserId,
    api::{client::keys::upload_keys::v3::Request as KeyUpload, error::ErrorKind},
};

use super::{
    account::{Accounts, User, hold_account},
    device::{check_device_id, shorten_display_name},
    keys::Keys,
};
use crate::{
    db::{Db, Tx},
    error::{Error, Result},
    event::fact::{AccountChange, Fact},
    ground::{clock::Clock, position::Position},
    log::Log,
    store::{cross_signing, dehydrated_device, device, to_device},
};

pub(crate) use crate::store::{
    dehydrated_device::DehydratedDevice,
    to_device::{MessagePage, WaitingMessage},
};

/// Of what is stored beside it, in bytes: some hundred private keys.
const MAX_DATA: usize = 64 * 1024;
/// How many messages are read at once, and about how many bytes.
pub(crate) const MAX_EVENTS: usize = 100;
const MAX_EVENT_BYTES: i64 = 1024 * 1024;

/// The dehydrated devices of this server's users. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DehydratedDevices {
    db: Db,
    log: Log,
    clock: Clock,
    accounts: Accounts,
    keys: Keys,
}

/// A device as it is to be put in place of another.
#[derive(Clone, Debug)]
pub(crate) struct NewDehydratedDevice {
    pub(crate) device: DehydratedDevice,
    pub(crate) display_name: Option<String>,
    /// The device's own keys are among them.
    pub(crate) keys: KeyUpload,
}

impl DehydratedDevices {
    pub(crate) fn new((db, log): (Db, Log), clock: Clock, accounts: Accounts, keys: Keys) -> Self {
        Self { db, log, clock, accounts, keys }
    }

    /// Puts a device in place of the one that the user had. Nothing changes where it is that one: who has not got the
    /// answer sends the request again, and the device has taken messages since.
    ///
    /// `M_INVALID_PARAM` for the ID of a device on which the user is logged in, `M_TOO_LARGE` for what no client writes,
    /// `M_USER_LIMIT_EXCEEDED` for one device more than the user may have; for keys as [`Keys::read_upload`] says.
    pub(crate) async fn put(&self, user: &User, new: NewDehydratedDevice) -> Result<()> {
        let user_id = &*user.user_id;
        let NewDehydratedDevice { device: DehydratedDevice { id, data }, display_name, keys } = new;
        let device = DehydratedDevice { id: check_device_id(id)?, data };
        if device.data.len() > MAX_DATA {
            return Err(Error::refused(ErrorKind::TooLarge, format!("device_data has more than {MAX_DATA} bytes")));
        }
        // Signatures take their time, so they are verified before anything is locked.
        let keys = self.keys.read_upload(user_id, &device.id, &keys).await?;
        let mut tx = self.begin(user).await?;
        let mut facts = vec![devices_changed(user_id)];
        if let Some(old) = dehydrated_device::find(&mut tx, user_id).await? {
            if old == device {
                return Ok(());
            }
            facts.extend(self.accounts.end_unseen_device(&mut tx, user_id, &old.id).await?);
        }
        if cross_signing::is_public_key(&mut tx, user_id, device.id.as_str()).await? {
            return Err(Error::invalid_param("One of your cross-signing keys is called so: make another device"));
        }
        if device::lock(&mut tx, user_id, &device.id).await? {
            return Err(Error::invalid_param("You are logged in on a device of this ID: make another one"));
        }
        self.accounts.check_device_quota(&mut tx, user_id).await?;
        let (name, now) = (display_name.as_deref().map(shorten_display_name), self.clock.now().get().into());
        device::insert_unseen(&mut tx, user_id, &device.id, name.as_deref(), now).await?;
        facts.extend(self.keys.store_upload(&mut tx, user_id, &device.id, keys).await?);
        dehydrated_device::upsert(&mut tx, user_id, &device).await?;
        self.log.commit(tx, facts).await?;
        Ok(())
    }

    /// `M_NOT_FOUND` where the user has none.
    pub(crate) async fn get(&self, user_id: &UserId) -> Result<DehydratedDevice> {
        dehydrated_device::find(&mut self.db.read().await?, user_id).await?.ok_or_else(no_dehydrated_device)
    }

    /// Deletes the device with its keys and its messages, and returns what it was. `M_NOT_FOUND` where there is none.
    pub(crate) async fn delete(&self, user: &User) -> Result<DehydratedDevice> {
        let user_id = &*user.user_id;
        let mut tx = self.begin(user).await?;
        let device = dehydrated_device::find(&mut tx, user_id).await?.ok_or_else(no_dehydrated_device)?;
        let mut facts = vec![devices_changed(user_id)];
        facts.extend(self.accounts.end_unseen_device(&mut tx, user_id, &device.id).await?);
        self.log.commit(tx, facts).await?;
        Ok(device)
    }

    /// The oldest messages of the device after a place in the log, `limit` of them and [`MAX_EVENTS`] at most. They stay.
    ///
    /// `M_NOT_FOUND` where the user has no such device at all, `M_FORBIDDEN` where theirs is another one.
    pub(crate) async fn events(
        &self,
        user_id: &UserId,
        device_id: &DeviceId,
        after: Position,
        limit: usize,
    ) -> Result<MessagePage> {
        // A token names no place that this node has not read.
        let until = self.log.tail().reached();
        let mut conn = self.db.read().await?;
        let device = dehydrated_device::find(&mut conn, user_id).await?.ok_or_else(no_dehydrated_device)?;
        if device.id != device_id {
            return Err(Error::forbidden("This is not your dehydrated device"));
        }
        let most = (limit.clamp(1, MAX_EVENTS), MAX_EVENT_BYTES);
        Ok(to_device::list_page(&mut conn, (user_id, device_id), (after, until), most).await?)
    }

    /// Begins to write with the account locked and the session that writes: who was logged out everywhere leaves no device
    /// behind.
    async fn begin(&self, user: &User) -> Result<Tx> {
        let mut tx = self.db.begin().await?;
        hold_account(&mut tx, user).await?;
        Ok(tx)
    }
}

/// By which nodes forget what they remember of the user's devices.
fn devices_changed(user_id: &UserId) -> Fact {
    Fact::AccountChange(AccountChange::Devices(user_id.to_owned()))
}

fn no_dehydrated_device() -> Error {
    Error::not_found("You have no dehydrated device")
}
