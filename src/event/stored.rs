//! An event with what this server knows about it beside its JSON.

use std::sync::Arc;

use ruma::{DeviceId, OwnedDeviceId, OwnedEventId, OwnedTransactionId, OwnedUserId, UserId};

use super::{Pdu, Standing};
use crate::position::Position;

/// The request that an event came from, so that a retry of it is recognised.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#transaction-identifiers>
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub device_id: OwnedDeviceId,
    pub transaction_id: OwnedTransactionId,
}

impl Transaction {
    /// The request of a delayed event, which comes from no device: none has an empty identifier.
    pub fn delayed(delay_id: &str) -> Self {
        Self { device_id: OwnedDeviceId::from(""), transaction_id: OwnedTransactionId::from(delay_id) }
    }

    fn is_delayed(&self) -> bool {
        self.device_id.as_str().is_empty()
    }
}

/// An event at its place in the log.
#[derive(Clone, Debug)]
pub struct Stored {
    pub position: Position,
    pub pdu: Arc<Pdu>,
    pub standing: Standing,
    /// Names the state before this event where that is not the trunk's state just before its position.
    pub fork: Option<Position>,
    pub transaction: Option<Transaction>,
    /// Whether it counts as unread for everybody but its sender, by the default push rules.
    pub notifies: bool,
    /// The root of the thread that the event belongs to. None for the main timeline.
    pub thread_root: Option<OwnedEventId>,
    /// The state event whose place this one took.
    pub replaces: Option<Arc<Pdu>>,
}

impl Stored {
    /// The transaction id, if `user_id` sent this event from `device_id`.
    pub fn transaction_for(&self, user_id: &UserId, device_id: &DeviceId) -> Option<OwnedTransactionId> {
        let transaction = self.transaction.as_ref()?;
        (self.pdu.sender() == user_id && transaction.device_id == device_id).then(|| transaction.transaction_id.clone())
    }

    /// What `user_id` knows a delayed event by that has become this one, if they sent it.
    pub fn delay_id_for(&self, user_id: &UserId) -> Option<OwnedTransactionId> {
        let transaction = self.transaction.as_ref().filter(|transaction| transaction.is_delayed())?;
        (self.pdu.sender() == user_id).then(|| transaction.transaction_id.clone())
    }
}

/// One change of a room's resolved state: the key has a new event, or none any more.
#[derive(Clone, Debug)]
pub struct StateChange {
    pub kind: String,
    pub state_key: String,
    pub event: Option<Arc<Pdu>>,
}

/// An event as the log tells it to its readers: itself and everything that it did.
#[derive(Clone, Debug)]
pub struct Logged {
    pub stored: Stored,
    /// What it changed in the room's resolved state.
    pub changes: Vec<StateChange>,
    /// The users whom it highlights.
    pub highlights: Vec<OwnedUserId>,
    /// The event that it redacted, as that now stands.
    pub redacted: Option<Arc<Pdu>>,
}
