//! Who shares a room with a user at a place of the log.
//!
//! Memory and database know who does now, and they are ahead of any place. So it is found out in which of the user's
//! rooms anybody has come or gone since: in all others it is as it was, and in these their state then is asked. Where
//! the place is the end of the log there are mostly none.

use std::collections::{BTreeSet, HashSet};

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, events::room::member::MembershipState};

use super::{
    effort::Effort,
    sources::Sources,
    watcher::{WatchedMembership, Watcher},
};
use crate::{
    error::Result,
    ground::position::{Order, Position},
    room::{
        Room, State,
        graph::state::{Member, membership_of},
    },
    store::membership::MovedKind,
};

/// What makes somebody a member.
const MEMBER: &str = "m.room.member";
/// In how many rooms the database is asked at once for what has become of their members.
const AT_ONCE: usize = 500;
/// How many rooms are held in memory at once.
pub(super) const HELD: usize = 100;
/// How many members of a room are looked at at once.
pub(super) const PAGE: usize = 200;

/// A room of which it may have changed since a place who shares it with the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MovedRoom {
    pub(super) room_id: OwnedRoomId,
    pub(super) change: RoomChange,
}

/// What may have changed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoomChange {
    /// The user may have come or gone.
    Own,
    /// The user was in it all the time.
    Others {
        /// Whether others may have come or gone.
        members: bool,
        /// Whether it may have become encrypted.
        encryption: bool,
    },
}

impl Sources {
    /// Those of some users who shared a room with the watcher at a place that this node has read.
    pub(super) async fn list_sharing_at(
        &self,
        watcher: &Watcher,
        users: BTreeSet<OwnedUserId>,
        at: Position,
        effort: &mut Effort,
    ) -> Result<BTreeSet<OwnedUserId>> {
        if users.is_empty() {
            return Ok(users);
        }
        let mut moved = self.list_moved_since(watcher, at, effort).await?;
        let mut sharing = loop {
            let steady = steady_rooms(watcher, at, &moved);
            let sharing = self.watchers.list_in_any(&users, &steady).await?;
            // Looked at again afterwards: somebody may have come or gone while it was asked who is there.
            let moved_by_now = self.list_moved_since(watcher, at, effort).await?;
            if moved_by_now.is_subset(&moved) {
                break sharing;
            }
            moved.extend(moved_by_now);
        };
        let mut others: Vec<OwnedUserId> = users.into_iter().filter(|user_id| !sharing.contains(user_id)).collect();
        let moved: Vec<OwnedRoomId> = moved.into_iter().collect();
        for some in moved.chunks(HELD) {
            if others.is_empty() {
                break;
            }
            let names: Vec<&RoomId> = some.iter().map(|room_id| &**room_id).collect();
            let held = self.rooms.find_each_held(&names).await?;
            for room_id in some {
                let Some(room) = held.get(room_id) else { continue };
                let members = self.list_members_among(watcher, room, &others, at, effort).await?;
                others.retain(|user_id| !members.contains(user_id));
                sharing.extend(members);
            }
        }
        Ok(sharing)
    }

    /// Everybody who shares a room with the watcher at a place that this node has read, but for the watcher.
    pub(super) async fn list_all_sharing_at(&self, watcher: &Watcher, at: Position) -> Result<BTreeSet<OwnedUserId>> {
        let mut sharing = BTreeSet::new();
        for some in rooms_at(watcher, at).chunks(HELD) {
            let names: Vec<&RoomId> = some.iter().map(|room_id| &**room_id).collect();
            let held = self.rooms.find_each_held(&names).await?;
            for room in held.values() {
                let state = self.rooms.state_at(room, Order::at(at)).await?;
                if state.membership(&watcher.user_id) == MembershipState::Join {
                    sharing.extend(joined(&state, &watcher.user_id));
                }
            }
        }
        Ok(sharing)
    }

    /// The rooms of which it may have changed since who shares them with the user, or whether they are encrypted.
    /// `news` are those in which something has happened since.
    pub(super) async fn list_moved_rooms(
        &self,
        news: &[(OwnedRoomId, WatchedMembership)],
        since: Position,
        effort: &mut Effort,
    ) -> Result<Vec<MovedRoom>> {
        let (mut moved, mut forgotten) = (Vec::new(), Vec::new());
        for (room_id, membership) in news {
            if membership.state == MembershipState::Join && membership.entered <= since {
                match self.watchers.moves(room_id, since) {
                    Some(moves) if moves.is_empty() => {}
                    Some(moves) => {
                        let change = RoomChange::Others { members: true, encryption: moves.encryption };
                        moved.push(MovedRoom { room_id: room_id.clone(), change });
                    }
                    None => forgotten.push(&**room_id),
                }
            } else if membership.position > since {
                moved.push(MovedRoom { room_id: room_id.clone(), change: RoomChange::Own });
            }
        }
        for some in forgotten.chunks(AT_ONCE) {
            effort.add_statement();
            let mut kinds = self.watchers.look_up_moved_rooms(some, since).await?;
            kinds.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            for of_room in kinds.chunk_by(|(one, _), (other, _)| one == other) {
                let Some((room_id, _)) = of_room.first() else { continue };
                let has = |kind| of_room.iter().any(|(_, one)| *one == kind);
                let change =
                    RoomChange::Others { members: has(MovedKind::Member), encryption: has(MovedKind::Encryption) };
                moved.push(MovedRoom { room_id: room_id.clone(), change });
            }
        }
        Ok(moved)
    }

    /// The rooms of which it may have changed since who shares them with the watcher.
    async fn list_moved_since(
        &self,
        watcher: &Watcher,
        since: Position,
        effort: &mut Effort,
    ) -> Result<HashSet<OwnedRoomId>> {
        let moved = self.list_moved_rooms(&watcher.changed_rooms(since), since, effort).await?;
        Ok(moved.into_iter().map(|room| room.room_id).collect())
    }

    /// Those of some users who were in a room at a place, if the watcher was.
    async fn list_members_among(
        &self,
        watcher: &Watcher,
        room: &Room,
        users: &[OwnedUserId],
        at: Position,
        effort: &mut Effort,
    ) -> Result<BTreeSet<OwnedUserId>> {
        let mut members = BTreeSet::new();
        if !self.is_member_at(room, Order::at(at), &watcher.user_id).await? {
            return Ok(members);
        }
        for some in users.chunks(PAGE) {
            effort.add_memberships(some.len());
            let keys: Vec<&str> = some.iter().map(|user_id| user_id.as_str()).collect();
            members.extend(self.list_present(room, Order::at(at), &keys).await?);
        }
        Ok(members)
    }

    /// Whether a user is in a room at a place.
    pub(super) async fn is_member_at(&self, room: &Room, at: Order, user_id: &UserId) -> Result<bool> {
        let own = self.rooms.state_event_at(room, at, MEMBER, user_id.as_str()).await?;
        Ok(own.as_ref().map(membership_of) == Some(MembershipState::Join))
    }

    /// Those of some users who are in a room at a place.
    pub(super) async fn list_present(&self, room: &Room, at: Order, users: &[&str]) -> Result<BTreeSet<OwnedUserId>> {
        let found = self.rooms.list_state_events_at(room, at, MEMBER, users).await?;
        let present = found.iter().filter(|pdu| membership_of(pdu) == MembershipState::Join);
        Ok(present.filter_map(|pdu| OwnedUserId::try_from(pdu.state_key()?).ok()).collect())
    }
}

/// The rooms that the watcher was in at a place, and of which who is in them is as it was then, unless they are `moved`.
fn steady_rooms(watcher: &Watcher, at: Position, moved: &HashSet<OwnedRoomId>) -> HashSet<OwnedRoomId> {
    let rooms = watcher.rooms().into_iter();
    let steady = rooms.filter(|(room_id, membership)| {
        membership.state == MembershipState::Join && membership.entered <= at && !moved.contains(room_id)
    });
    steady.map(|(room_id, _)| room_id).collect()
}

/// The rooms that the watcher may have been in at a place: those that they are in, or of which their membership has
/// become another since.
pub(super) fn rooms_at(watcher: &Watcher, at: Position) -> Vec<OwnedRoomId> {
    let rooms = watcher.rooms().into_iter();
    let may_have_been =
        rooms.filter(|(_, membership)| membership.state == MembershipState::Join || membership.position > at);
    may_have_been.map(|(room_id, _)| room_id).collect()
}

/// Everybody but the user who has joined.
pub(super) fn joined<'a>(state: &'a State, user_id: &'a UserId) -> impl Iterator<Item = OwnedUserId> {
    let members = state.members().filter(Member::has_joined).map(|member| member.user_id);
    members.filter(move |other| *other != user_id).map(ToOwned::to_owned)
}
