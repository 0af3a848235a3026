//! Account data: what clients keep on the server for themselves.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#client-config>

use std::sync::Arc;

use ruma::{OwnedRoomId, OwnedUserId, RoomId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::kind::{Audience, Kind, SMALL};
use crate::ground::position::Position;

/// One piece of it: what a user has set of one type, globally or for one room.
#[derive(Clone, Debug)]
pub struct AccountData {
    pub user_id: OwnedUserId,
    /// None for global account data.
    pub room_id: Option<OwnedRoomId>,
    /// The type, of the client's choice. A user has one piece of each, globally and in each room.
    pub kind: String,
    /// A JSON object, as the client sent it.
    pub content: Arc<RawValue>,
}

/// Set by reading a room: <https://spec.matrix.org/v1.19/client-server-api/#fully-read-markers>
pub const FULLY_READ: &str = "m.fully_read";

/// What is left of a piece that was deleted.
pub const DELETED: &str = "{}";

/// Account data on its way into the log.
#[derive(Clone, Debug)]
pub struct NewAccountData {
    pub data: AccountData,
    /// Where the piece stands that it replaces, without which it is refused: [`Position::START`] for nothing. None for
    /// whatever is there.
    pub replaces: Option<Position>,
}

impl From<AccountData> for NewAccountData {
    /// Replaces whatever is there.
    fn from(data: AccountData) -> Self {
        Self { data, replaces: None }
    }
}

impl AccountData {
    /// Refused unless what it replaces still stands at `expected`: [`Position::START`] for nothing.
    pub fn replacing(self, expected: Position) -> NewAccountData {
        NewAccountData { data: self, replaces: Some(expected) }
    }

    /// Whether it counts as something that its owner keeps. Fully read markers do not: there is one for each room, and it
    /// is set by reading.
    pub fn is_counted(&self) -> bool {
        self.kind != FULLY_READ
    }

    /// What it takes of its owner's quota, in bytes. 0 for what was deleted.
    pub fn counted_bytes(&self) -> i64 {
        let bytes = if self.content.get() == DELETED { 0 } else { self.content.get().len() + self.kind.len() };
        i64::try_from(bytes).unwrap_or(i64::MAX)
    }

    /// Whether it was deleted: a content with nothing in it is left of that.
    ///
    /// <https://github.com/matrix-org/matrix-spec-proposals/pull/3391>
    pub fn is_deleted(&self) -> bool {
        self.content.get().bytes().filter(|byte| !byte.is_ascii_whitespace()).eq(*b"{}")
    }
}

impl Kind for AccountData {
    type Fact = NewAccountData;
    /// Global where there is no room.
    type Entry = (OwnedUserId, Option<OwnedRoomId>);

    fn of(fact: &NewAccountData) -> Self {
        fact.data.clone()
    }

    fn entry(&self) -> Self::Entry {
        (self.user_id.clone(), self.room_id.clone())
    }

    fn room_id(&self) -> Option<&RoomId> {
        self.room_id.as_deref()
    }

    fn audience(&self) -> Audience<'_> {
        Audience::User(&self.user_id)
    }

    fn bytes(&self) -> usize {
        SMALL + self.kind.len() + self.content.get().len()
    }
}

/// The account data by which somebody takes no invitations.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#invite-permission>
pub const INVITE_PERMISSION: &str = "m.invite_permission_config";

/// Whether somebody takes no invitations who has set this content of [`INVITE_PERMISSION`]. Whatever is not as
/// specified blocks nothing.
pub fn blocks_invites(content: &str) -> bool {
    #[derive(Deserialize)]
    struct InvitePermission {
        default_action: String,
    }
    serde_json::from_str::<InvitePermission>(content).is_ok_and(|content| content.default_action == "block")
}
