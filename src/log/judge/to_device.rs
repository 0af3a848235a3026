//! Which messages to devices are written: none of a request that was made before, and none beyond what may wait for a
//! device.
//!
//! Everything is looked up under the log's lock, under which inboxes grow and devices go: for a device that is not there
//! now nothing will ever wait, and what is for it is left out. A device that confirms what it has got takes no lock, so
//! less may wait by the time that the batch is written, which refuses too much at worst.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{DeviceId, UserId};

use super::holdings::OverQuota;
use crate::{
    db::{DbResult, Tx},
    event::fact::{Bound, Fact, NewToDevice, RequestKey, ToDeviceRequest, Write, WriteQuota},
    store::{
        self,
        to_device::{InboxTotals, Inboxes},
    },
};

/// The inboxes and the requests of a batch.
#[derive(Default)]
pub(super) struct ToDeviceJudge<'a> {
    /// Before the batch.
    inboxes: Inboxes,
    /// The bytes that the batch adds to each.
    added: HashMap<(&'a UserId, &'a DeviceId), i64>,
    /// Requests that were made, before the batch or by it.
    made: HashSet<RequestKey<'a>>,
}

fn messages(write: &Write) -> impl Iterator<Item = &NewToDevice> {
    write.facts.iter().filter_map(|fact| if let Fact::ToDevice(new) = fact { Some(new) } else { None })
}

/// Every device that a write has something for, and how many bytes that is.
fn additions(write: &Write) -> impl Iterator<Item = (&UserId, &DeviceId, i64)> {
    messages(write).flat_map(|new| new.sizes().map(move |(device_id, _, size)| (&*new.user_id, &**device_id, size)))
}

impl<'a> ToDeviceJudge<'a> {
    /// Asks nothing where the batch has no such message.
    pub(super) async fn load(tx: &mut Tx, writes: &'a [Write]) -> DbResult<Self> {
        let mut judge = Self::default();
        let devices: HashSet<_> =
            writes.iter().flat_map(additions).map(|(user_id, device_id, _)| (user_id, device_id)).collect();
        if !devices.is_empty() {
            judge.inboxes = store::to_device::list_inboxes(tx, &devices).await?;
        }
        let requests: Vec<_> = writes.iter().filter_map(|write| write.request.as_ref()).collect();
        if !requests.is_empty() {
            judge.made = store::to_device::list_made(tx, &requests).await?;
        }
        Ok(judge)
    }

    /// Whether the request that a write comes from was made before.
    pub(super) fn was_made(&self, write: &Write) -> bool {
        write.request.as_ref().is_some_and(|request| self.made.contains(&request.key()))
    }

    /// Refuses what would be too much for a device.
    pub(super) fn check(&self, write: &Write) -> Result<(), OverQuota> {
        let bounds = write.quotas.iter().filter_map(|WriteQuota { user_id, bound, info_uri }| match *bound {
            Bound::Inbox(most) => Some((&**user_id, (most, info_uri))),
            _ => None,
        });
        let bounds: HashMap<&UserId, _> = bounds.collect();
        for (user_id, device_id, size) in additions(write) {
            let (Some((most, info_uri)), Some(inbox)) = (bounds.get(user_id), self.find(user_id, device_id)) else {
                continue;
            };
            let added = self.added.get(&(user_id, device_id)).copied().unwrap_or_default();
            if inbox.waiting() + added + size > *most {
                let message = format!(
                    "As much waits for the device {device_id} of {user_id} as may: it takes no more until it comes back, \
                     or {user_id} logs it out"
                );
                return Err(OverQuota { message, info_uri: Arc::clone(info_uri) });
            }
        }
        Ok(())
    }

    /// A write is part of the batch: those after it are judged as if it were there.
    pub(super) fn add(&mut self, write: &'a Write) {
        for (user_id, device_id, size) in additions(write) {
            *self.added.entry((user_id, device_id)).or_default() += size;
        }
        self.made.extend(write.request.as_ref().map(ToDeviceRequest::key));
    }

    /// How the inboxes stand before the batch.
    pub(super) fn into_inboxes(self) -> Inboxes {
        self.inboxes
    }

    fn find(&self, user_id: &UserId, device_id: &DeviceId) -> Option<InboxTotals> {
        self.inboxes.get(user_id)?.get(device_id).copied()
    }
}
