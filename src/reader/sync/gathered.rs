//! What a user has not seen, as it was gathered ([`super::gather`]): in parts, of which each holds some rooms.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{
    OwnedRoomId, OwnedUserId,
    events::{presence::PresenceEvent, room::member::MembershipState},
};

use super::{
    device_lists::DeviceLists, effort::Effort, key_counts::WrittenKeyCounts, state::RoomState, timeline::Timeline,
    turns::Turn, watcher::WatchedMembership,
};
use crate::{
    event::{
        Pdu,
        fact::{AccountData, OutsideMembership, Receipt},
    },
    ground::position::Position,
    people::to_device::WaitingMessage,
    reader::unread::Counts,
};

/// What has happened, or a part of it.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// Up to here.
    pub(crate) until: Position,
    /// The rooms that have not been gathered yet.
    pub(crate) rest: Rest,
    /// The rooms that the user is in.
    pub(crate) joined: Vec<JoinedRoom>,
    /// The rooms that they are invited to.
    pub(crate) invited: Vec<StrippedRoom>,
    /// The rooms that they have knocked on.
    pub(crate) knocked: Vec<StrippedRoom>,
    /// The rooms that they are in no longer, or are banned from.
    pub(crate) left: Vec<LeftRoom>,
    /// Rooms that this server holds no history of.
    pub(crate) outside: Vec<OutsideMembership>,
    /// What is global.
    pub(crate) account_data: Vec<Arc<AccountData>>,
    /// The presence of others, at most one of each.
    pub(crate) presence: Vec<PresenceEvent>,
    /// Whose devices are news.
    pub(crate) device_lists: DeviceLists,
    /// What it took to find that out.
    pub(crate) effort: Effort,
    /// How many keys the device has on the server. It comes with the first part, whether or not it is news.
    pub(crate) key_counts: Option<Arc<WrittenKeyCounts>>,
    /// Whether that has changed since the client last asked.
    pub(crate) has_new_key_counts: bool,
    /// What was sent to the device: as much of it as it gets at once, oldest first.
    pub(crate) to_device: Vec<WaitingMessage>,
    /// Up to here the device has all of that with this answer: `until`, unless more waits.
    pub(crate) delivered: Position,
    /// The turn in which it was gathered lasts until it is written.
    pub(crate) _turn: Option<Turn>,
}

/// Rooms of which there may be news, the next ones last.
#[derive(Debug, Default)]
pub(crate) struct Rest(pub(super) Vec<ChangedRoom>);

/// A room of which there may be news.
#[derive(Debug)]
pub(super) struct ChangedRoom {
    pub(super) group: Group,
    pub(super) room_id: OwnedRoomId,
    pub(super) membership: WatchedMembership,
    /// Whether the unread counts are news, whatever else is.
    pub(super) is_recounted: bool,
}

/// In this order rooms are gathered, so that an answer can be written as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    /// Invitations, knocks, and what was heard of from outside as well. They come with the first part.
    Stripped,
    Left,
    Joined,
}

/// What happened in a room that the user is in.
#[derive(Debug)]
pub(crate) struct JoinedRoom {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) timeline: Timeline,
    pub(crate) state: RoomState,
    pub(crate) summary: Option<MemberSummary>,
    /// Each with its place in the log, up to `until`.
    pub(crate) receipts: Vec<(Position, Arc<Receipt>)>,
    /// Who types now, if that has changed.
    pub(crate) typing: Option<Vec<OwnedUserId>>,
    pub(crate) account_data: Vec<Arc<AccountData>>,
    /// As they are now, which may be a little later than the timeline: the next sync says so again.
    pub(crate) unread: Counts,
}

/// A room that the user is no longer in.
#[derive(Debug)]
pub(crate) struct LeftRoom {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) timeline: Timeline,
    pub(crate) state: RoomState,
    pub(crate) account_data: Vec<Arc<AccountData>>,
}

/// A room that the user may enter, or has asked to: what is shown of it outside.
#[derive(Debug)]
pub(crate) struct StrippedRoom {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) state: Vec<Arc<Pdu>>,
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync_response-200_roomsummary>
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MemberSummary {
    /// Five others at most, for naming a room that has no name.
    pub(crate) heroes: Vec<OwnedUserId>,
    pub(crate) joined: usize,
    pub(crate) invited: usize,
}

impl Gathered {
    /// Whether nothing has happened.
    pub(crate) fn is_empty(&self) -> bool {
        self.joined.is_empty()
            && self.invited.is_empty()
            && self.knocked.is_empty()
            && self.left.is_empty()
            && self.outside.is_empty()
            && self.account_data.is_empty()
            && self.presence.is_empty()
            && self.device_lists.is_empty()
            && !self.has_new_key_counts
            && self.to_device.is_empty()
    }
}

impl Rest {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// `outside`: the rooms of which something was heard from outside.
    pub(super) fn new(rooms: HashMap<OwnedRoomId, (WatchedMembership, bool)>, outside: &HashSet<OwnedRoomId>) -> Self {
        let changed = rooms.into_iter().map(|(room_id, (membership, is_recounted))| {
            let group = match membership.state {
                _ if outside.contains(&room_id) => Group::Stripped,
                MembershipState::Join => Group::Joined,
                MembershipState::Leave | MembershipState::Ban => Group::Left,
                _ => Group::Stripped,
            };
            ChangedRoom { group, room_id, membership, is_recounted }
        });
        let mut changed: Vec<ChangedRoom> = changed.collect();
        changed.sort_unstable_by_key(|room| std::cmp::Reverse(room.group));
        Self(changed)
    }
}

impl JoinedRoom {
    /// Unread counts are not looked at: they alone are news only where whom the user ignores has changed.
    pub(super) fn is_empty(&self) -> bool {
        self.timeline.is_empty()
            && self.state.is_empty()
            && self.summary.is_none()
            && self.receipts.is_empty()
            && self.typing.is_none()
            && self.account_data.is_empty()
    }
}
