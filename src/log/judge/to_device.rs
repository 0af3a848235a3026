//! Which messages to devices are written: none of a request that was made before, and none beyond what may wait for a
//! device.
//!
//! Everything is looked up under the log's lock, under which inboxes grow and devices go: for a device that is not there
//! now nothing will ever wait, and what is for it is left out. So is what is for a device whose inbox is full, and that
//! alone: whoever does not come for their messages is not to keep others from getting theirs. A device that confirms what
//! it has got takes no lock, so less may wait by the time that the batch is written, which leaves out too much at worst.

use std::collections::{HashMap, HashSet};

use ruma::{DeviceId, UserId};

use crate::{
    db::{DbResult, Tx},
    event::fact::{Bound, Fact, NewToDevice, RequestKey, ToDeviceRequest, Write, WriteQuota},
    log::kind::to_device::Deliveries,
    store::{self, to_device::Inboxes},
};

/// The inboxes and the requests of a batch.
#[derive(Default)]
pub(super) struct ToDeviceJudge<'a> {
    /// With what the batch adds.
    inboxes: Inboxes,
    deliveries: Deliveries,
    /// Requests that were made, before the batch or by it.
    made: HashSet<RequestKey<'a>>,
}

fn messages(write: &Write) -> impl Iterator<Item = &NewToDevice> {
    write.facts.iter().filter_map(|fact| if let Fact::ToDevice(new) = fact { Some(new) } else { None })
}

/// Every device that a write has something for.
fn devices(write: &Write) -> impl Iterator<Item = (&UserId, &DeviceId)> {
    messages(write).flat_map(|new| new.messages.iter().map(|(device_id, _)| (&*new.user_id, &**device_id)))
}

/// How many bytes may wait for each device of a user, where somebody is held to that.
fn bounds(write: &Write) -> HashMap<&UserId, i64> {
    let bounds = write.quotas.iter().filter_map(|WriteQuota { user_id, bound, .. }| match *bound {
        Bound::Inbox(most) => Some((&**user_id, most)),
        _ => None,
    });
    bounds.collect()
}

impl<'a> ToDeviceJudge<'a> {
    /// Asks nothing where the batch has no such message.
    pub(super) async fn load(tx: &mut Tx, writes: &'a [Write]) -> DbResult<Self> {
        let mut judge = Self::default();
        let devices: HashSet<_> = writes.iter().flat_map(devices).collect();
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

    /// A write is part of the batch: those after it are judged as if it were there.
    pub(super) fn add(&mut self, write: &'a Write) {
        let bounds = bounds(write);
        for new in messages(write) {
            let most = bounds.get(&*new.user_id).copied();
            let mut totals = Vec::with_capacity(new.messages.len());
            for (device_id, _, size) in new.sizes() {
                let inbox = self.inboxes.get_mut(&new.user_id).and_then(|of_user| of_user.get_mut(device_id));
                totals.push(match inbox {
                    Some(inbox) if most.is_none_or(|most| inbox.waiting() + size <= most) => {
                        inbox.newest += size;
                        Some(inbox.newest)
                    }
                    Some(_) => {
                        self.deliveries.note_full(&new.user_id, device_id);
                        None
                    }
                    None => None,
                });
            }
            self.deliveries.push(totals);
        }
        self.made.extend(write.request.as_ref().map(ToDeviceRequest::key));
    }

    /// What the batch delivers.
    pub(super) fn into_deliveries(self) -> Deliveries {
        self.deliveries
    }
}
