//! Receipts: how far somebody has read.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#receipts>

use ruma::{MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId};

use super::kind::{Audience, Kind};
use crate::ground::position::Order;

/// One user's receipt of one type in one thread. A room has one row for each, which only moves forward.
#[derive(Clone, Debug)]
pub struct Receipt {
    pub room_id: OwnedRoomId,
    pub user_id: OwnedUserId,
    /// `m.read` or `m.read.private`.
    pub receipt_type: String,
    /// `main`, a thread root, or empty for an unthreaded receipt.
    pub thread_id: String,
    pub event_id: OwnedEventId,
    /// Where the event stands in the room.
    pub event_order: Order,
    /// When it was sent.
    pub ts: MilliSecondsSinceUnixEpoch,
}

impl Kind for Receipt {
    type Fact = Self;
    type Entry = (OwnedRoomId, OwnedUserId);

    fn of(fact: &Self) -> Self {
        fact.clone()
    }

    fn entry(&self) -> Self::Entry {
        (self.room_id.clone(), self.user_id.clone())
    }

    fn room_id(&self) -> Option<&RoomId> {
        Some(&self.room_id)
    }

    fn audience(&self) -> Audience<'_> {
        if self.receipt_type == "m.read.private" {
            Audience::User(&self.user_id)
        } else {
            Audience::Room(&self.room_id)
        }
    }
}
