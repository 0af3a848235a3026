//! Messages from device to device.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging>

use std::sync::Arc;

use ruma::{DeviceId, OwnedDeviceId, OwnedTransactionId, OwnedUserId, RoomId, UserId};
use serde_json::value::RawValue;

use super::kind::{Audience, Kind, SMALL};

/// Something waits for devices of a user from here on. What it is stands in their inboxes.
///
/// A request is a fact for each user whom it sends something to, so that a place of the log holds one message for a
/// device at most: whoever reads an inbox in parts never stops in the middle of a place.
#[derive(Clone, Debug)]
pub struct ToDevice {
    pub user_id: OwnedUserId,
    /// Those of them that get it: they were there, and what waits for them was not too much.
    pub device_ids: Vec<OwnedDeviceId>,
}

/// What one request sends to one user of this server.
#[derive(Clone, Debug)]
pub struct NewToDevice {
    pub sender: OwnedUserId,
    /// The type of the event.
    pub kind: String,
    pub user_id: OwnedUserId,
    /// For each device its content, a JSON object. No device is there twice.
    pub messages: Vec<(OwnedDeviceId, Arc<RawValue>)>,
}

/// A request that sends messages to devices, by which a retry of it is recognised.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#transaction-identifiers>
#[derive(Clone, Debug)]
pub struct ToDeviceRequest {
    pub sender: OwnedUserId,
    /// The sender's own.
    pub device_id: OwnedDeviceId,
    /// The type of the events, which is part of the request's path.
    pub kind: String,
    pub transaction_id: OwnedTransactionId,
    /// When it was made, in milliseconds since the Unix epoch. It says nothing of which request it is.
    pub sent_ts: i64,
}

/// By what a request is known: its sender, their device, its type and its transaction id.
pub type RequestKey<'a> = (&'a UserId, &'a DeviceId, &'a str, &'a str);

impl ToDeviceRequest {
    /// Alike for a request and its retries.
    pub fn key(&self) -> RequestKey<'_> {
        (&self.sender, &self.device_id, &self.kind, self.transaction_id.as_str())
    }
}

/// What a message takes beside its content and its type, in bytes.
const MESSAGE_BYTES: usize = 256;
/// A message of so many bytes takes about as long to write as a small one and another.
const LOAD_BYTES: usize = 4 * 1024;

impl NewToDevice {
    /// What each message takes of its inbox, in bytes.
    pub fn sizes(&self) -> impl Iterator<Item = (&OwnedDeviceId, &Arc<RawValue>, i64)> {
        let beside = MESSAGE_BYTES + self.kind.len();
        let size = move |content: &RawValue| i64::try_from(beside + content.get().len()).unwrap_or(i64::MAX);
        self.messages.iter().map(move |(device_id, content)| (device_id, content, size(content)))
    }

    /// How long it takes to write, as a number of entries that take as long.
    pub(super) fn load(&self) -> usize {
        let bytes: usize = self.messages.iter().map(|(_, content)| content.get().len()).sum();
        self.messages.len() + bytes / LOAD_BYTES
    }
}

impl Kind for ToDevice {
    type Fact = NewToDevice;
    /// Nodes that did not write it learn for whom something waits, and read no more than that.
    type Entry = (OwnedUserId, Vec<OwnedDeviceId>);

    fn of(fact: &NewToDevice) -> Self {
        let device_ids = fact.messages.iter().map(|(device_id, _)| device_id.clone()).collect();
        Self { user_id: fact.user_id.clone(), device_ids }
    }

    fn entry(&self) -> Self::Entry {
        (self.user_id.clone(), self.device_ids.clone())
    }

    fn room_id(&self) -> Option<&RoomId> {
        None
    }

    fn audience(&self) -> Audience<'_> {
        // Nothing of it waits where no device was there that could take it.
        if self.device_ids.is_empty() { Audience::Nobody } else { Audience::User(&self.user_id) }
    }

    fn bytes(&self) -> usize {
        SMALL + self.device_ids.iter().map(|device_id| 32 + device_id.as_str().len()).sum::<usize>()
    }
}
