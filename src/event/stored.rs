//! An event with what this server knows about it beside its JSON.

use std::{borrow::Cow, sync::Arc};

use ruma::{DeviceId, OwnedDeviceId, OwnedEventId, OwnedTransactionId, OwnedUserId, UserId, events::TimelineEventType};

use super::{Pdu, Standing};
use crate::ground::position::{EventKey, Order, Position};

/// The request that an event came from, so that a retry of it is recognised.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#transaction-identifiers>
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub origin: TransactionOrigin,
    pub transaction_id: OwnedTransactionId,
}

/// Where the requests come from among which a transaction id is unique, for one sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionOrigin {
    /// A device of the sender's.
    Device(OwnedDeviceId),
    /// The schedule of delayed events: the transaction id is what the sender knew the event by until it was sent.
    Schedule,
    /// The server, in the name of its own user.
    Notice(NoticeFrom),
}

/// Who has the server send a notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoticeFrom {
    /// Whoever runs the server, at the command line.
    Operator,
    Administrator(OwnedUserId),
}

impl TransactionOrigin {
    /// As it becomes part of a transaction's hash. No device has an empty name, and the server's own user has no devices.
    pub(crate) fn key(&self) -> Cow<'_, str> {
        match self {
            Self::Device(device_id) => device_id.as_str().into(),
            Self::Schedule => "".into(),
            Self::Notice(NoticeFrom::Operator) => "server notices".into(),
            Self::Notice(NoticeFrom::Administrator(user_id)) => format!("notices of {user_id}").into(),
        }
    }

    /// As it is written down beside the event. Of notices it isn't: nobody gets their transaction ids.
    pub(crate) fn column(&self) -> Option<&str> {
        match self {
            Self::Device(device_id) => Some(device_id.as_str()),
            Self::Schedule => Some(""),
            Self::Notice(_) => None,
        }
    }

    /// The opposite of [`Self::column`], of events that have one.
    pub(crate) fn from_column(column: String) -> Self {
        if column.is_empty() { Self::Schedule } else { Self::Device(column.into()) }
    }
}

impl Transaction {
    /// Of a request that a device has sent.
    pub fn of_device(device_id: OwnedDeviceId, transaction_id: OwnedTransactionId) -> Self {
        Self { origin: TransactionOrigin::Device(device_id), transaction_id }
    }

    /// The request of an event that was to be sent later.
    pub fn delayed(delay_id: &str) -> Self {
        Self { origin: TransactionOrigin::Schedule, transaction_id: OwnedTransactionId::from(delay_id) }
    }
}

/// An event as this server has it.
#[derive(Clone, Debug)]
pub struct Stored {
    pub key: EventKey,
    /// Its place in the room. [`Order::START`] of an outlier, which has none.
    pub order: Order,
    pub pdu: Arc<Pdu>,
    pub standing: Standing,
    /// Names the state before this event where that is not the trunk's state just before its place.
    pub fork: Option<EventKey>,
    pub transaction: Option<Transaction>,
    /// Whether it counts as unread for everybody but its sender, by the default push rules.
    pub notifies: bool,
    /// The root of the thread that the event belongs to. None for the main timeline.
    pub thread_root: Option<OwnedEventId>,
    /// The state event whose place this one took.
    pub replaces: Option<Arc<Pdu>>,
    /// Whether it follows events that are not here: what is before it in the room may be missing.
    pub follows_gap: bool,
}

impl Stored {
    /// The transaction id, if `user_id` sent this event from `device_id`.
    pub fn transaction_for(&self, user_id: &UserId, device_id: &DeviceId) -> Option<OwnedTransactionId> {
        let transaction = self.transaction.as_ref()?;
        let is_from_there = matches!(&transaction.origin, TransactionOrigin::Device(device) if device == device_id);
        (self.pdu.sender() == user_id && is_from_there).then(|| transaction.transaction_id.clone())
    }

    /// What `user_id` knows a delayed event by that has become this one, if they sent it.
    pub fn delay_id_for(&self, user_id: &UserId) -> Option<OwnedTransactionId> {
        let transaction =
            self.transaction.as_ref().filter(|transaction| transaction.origin == TransactionOrigin::Schedule)?;
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

/// An event as the log hands it to its readers: itself and everything that it did.
#[derive(Clone, Debug)]
pub struct Logged {
    /// Where in the log.
    pub at: Position,
    pub stored: Stored,
    /// What it changed in the room's resolved state.
    pub changes: Vec<StateChange>,
    /// The users whom it highlights, where that is not everybody.
    pub highlights: Vec<OwnedUserId>,
    /// Whether it highlights everybody of this server who is in the room, but for its sender.
    pub highlights_everybody: bool,
    /// The event that it redacted, as that now stands.
    pub redacted: Option<Arc<Pdu>>,
}

impl Logged {
    /// Whether this server comes to take part in a room with it that has begun elsewhere, for the first time or again. The
    /// room's create event is among the changes then, and no other event has it there but that itself. Who else is in the
    /// room need not be among them.
    pub fn is_entry(&self) -> bool {
        *self.stored.pdu.kind() == TimelineEventType::RoomMember
            && self.changes.iter().any(|change| change.kind == "m.room.create" && change.state_key.is_empty())
    }

    /// How many bytes it takes in memory, about, with the events that it holds.
    pub fn bytes(&self) -> usize {
        let changes =
            self.changes.iter().map(|change| size_of::<StateChange>() + change.kind.len() + change.state_key.len());
        let highlights = self.highlights.iter().map(|user_id| 2 * user_id.as_str().len());
        let others = [&self.redacted, &self.stored.replaces].into_iter().flatten().map(|pdu| pdu.bytes());
        size_of::<Self>() + self.stored.pdu.bytes() + changes.chain(highlights).chain(others).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Retries of requests from before are known by these.
    #[test]
    fn the_keys_of_origins_stay_what_they_are_and_differ() {
        let administrator = NoticeFrom::Administrator("@root:here".try_into().unwrap());
        for (origin, key, column) in [
            (TransactionOrigin::Device("PHONE".into()), "PHONE", Some("PHONE")),
            (TransactionOrigin::Schedule, "", Some("")),
            (TransactionOrigin::Notice(NoticeFrom::Operator), "server notices", None),
            (TransactionOrigin::Notice(administrator), "notices of @root:here", None),
        ] {
            assert_eq!((&*origin.key(), origin.column()), (key, column));
            assert!(
                column.is_none_or(|column| TransactionOrigin::from_column(column.to_owned()) == origin),
                "{origin:?}"
            );
        }
    }
}
