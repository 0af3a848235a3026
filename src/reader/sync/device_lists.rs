//! Whose lists of devices a client has to fetch anew, and whose it need not follow any more.
//!
//! Between two places `changed` has everybody who shares a room with the user at the end and whose devices or keys have
//! changed in between, or with whom a room has become shared, or has become encrypted; and the user, for their own
//! devices. `left` has those who shared a room with the user at the beginning and share none any more. So for as long
//! as two users share a room, each hears of every change of the other. A signature by which one vouches for the other's
//! master key is shown to whoever made it alone, and is a change for nobody else.
//!
//! *Any* room counts, not only encrypted ones. `/keys/changes` is specified so, and clients follow users with whom they
//! share plain rooms: calls in such a room are encrypted from device to device. The specification's words for `/sync`
//! speak of encrypted rooms; they are kept, since who shares a room that becomes encrypted is in `changed` once more,
//! and a server may send more than them. Only of somebody who has left the last encrypted room and shares a plain one
//! they would have it say `left`, and then nobody would have to send what becomes of the devices: here they go on being
//! followed.
//!
//! It is known from memory whether any of this can have changed: a message costs a look at what has become of its room's
//! members, of whom nothing has. The database is read where a client was away for longer than is remembered, or rooms
//! have moved so far on that their state then is not in memory.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user>

use std::collections::{BTreeSet, HashSet};

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, events::room::member::MembershipState};

use super::{
    recent_moves::Moves,
    sources::Sources,
    watch::ENCRYPTION,
    watcher::{WatchedMembership, Watcher},
};
use crate::{
    error::Result,
    event::StateChange,
    ground::position::{Order, Position},
    room::{
        Room, State,
        graph::state::{Member, membership_of},
    },
};

/// What makes somebody a member.
const MEMBER: &str = "m.room.member";
/// In how many rooms the database is asked at once for what has become of their members.
const AT_ONCE: usize = 500;
/// How many rooms are held in memory at once.
const HELD: usize = 100;

/// Whose devices are news. Nobody is in both lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeviceLists {
    pub(crate) changed: BTreeSet<OwnedUserId>,
    pub(crate) left: BTreeSet<OwnedUserId>,
}

impl DeviceLists {
    pub(crate) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.left.is_empty()
    }
}

/// What may have changed in a room of who shares it with the user.
enum RoomChange {
    /// The user may have come or gone.
    Own,
    /// Others may have, or the room has become encrypted. The user was in it all the time.
    Others(Moves),
}

/// With whom a room has become shared, or encrypted, and with whom one is shared no longer. Another room may be.
#[derive(Default)]
struct Sharing {
    begun: BTreeSet<OwnedUserId>,
    ended: BTreeSet<OwnedUserId>,
}

impl Sources {
    /// Whose devices are news between two places. `news` are the user's rooms in which something has happened after the
    /// first, or of which their membership has changed.
    pub(super) async fn device_lists(
        &self,
        watcher: &Watcher,
        news: &[(OwnedRoomId, WatchedMembership)],
        (since, until): (Position, Position),
    ) -> Result<DeviceLists> {
        let rooms = self.list_changed_rooms(news, since).await?;
        let mut sharing = Sharing::default();
        for some in rooms.chunks(HELD) {
            let names: Vec<&RoomId> = some.iter().map(|(room_id, _)| &**room_id).collect();
            let held = self.rooms.find_each_held(&names).await?;
            for (room_id, change) in some {
                if let Some(room) = held.get(room_id) {
                    self.compare_room(&watcher.user_id, room, change, (since, until), &mut sharing).await?;
                }
            }
        }
        let Sharing { begun, ended } = sharing;
        let left: BTreeSet<OwnedUserId> = ended.difference(&begun).cloned().collect();
        let still_shared = self.watchers.list_sharing(watcher, left.clone()).await?;
        let mut changed = self.list_changed_users(watcher, since, until).await?;
        changed.extend(begun);
        Ok(DeviceLists { left: left.into_iter().filter(|one| !still_shared.contains(one)).collect(), changed })
    }

    /// Those whose devices or keys have changed between two places, as far as the watcher is shown it, and who share a
    /// room with the watcher, at the second place or now; and the watcher.
    async fn list_changed_users(
        &self,
        watcher: &Watcher,
        since: Position,
        until: Position,
    ) -> Result<BTreeSet<OwnedUserId>> {
        match self.device_changes.between(&watcher.user_id, (since, until)) {
            Some(changed) => {
                let mut sharing = self.watchers.list_sharing(watcher, changed.clone()).await?;
                let others = changed.difference(&sharing).cloned().collect();
                sharing.extend(self.list_shared_at(watcher, others, until).await?);
                Ok(sharing)
            }
            None => Ok(self.watchers.look_up_changed_neighbours(watcher, since, until).await?.into_iter().collect()),
        }
    }

    /// Those of some users who shared a room with the watcher at a place, of rooms of which that has changed since.
    ///
    /// Memory is ahead of the place. Of somebody who went in between and comes back before the client's next sync, that
    /// one would find nothing new: what changed before the place would never be said.
    async fn list_shared_at(
        &self,
        watcher: &Watcher,
        users: BTreeSet<OwnedUserId>,
        at: Position,
    ) -> Result<BTreeSet<OwnedUserId>> {
        let mut shared = BTreeSet::new();
        if users.is_empty() {
            return Ok(shared);
        }
        for (room_id, change) in self.list_changed_rooms(&watcher.changed_rooms(at), at).await? {
            let may_have_gone = |user_id: &OwnedUserId| match &change {
                RoomChange::Own => true,
                RoomChange::Others(moves) => moves.users.contains(user_id),
            };
            let gone: Vec<&OwnedUserId> = users.iter().filter(|user_id| may_have_gone(user_id)).collect();
            if gone.is_empty() {
                continue;
            }
            let held = self.rooms.find_each_held(&[&*room_id]).await?;
            let Some(room) = held.get(&room_id) else { continue };
            let state = self.rooms.state_at(room, Order::at(at)).await?;
            if state.membership(&watcher.user_id) == MembershipState::Join {
                let were_in = gone.into_iter().filter(|user_id| state.membership(user_id) == MembershipState::Join);
                shared.extend(were_in.cloned());
            }
        }
        Ok(shared)
    }

    /// The rooms of which it may have changed since who shares them with the user, or whether they are encrypted.
    async fn list_changed_rooms(
        &self,
        news: &[(OwnedRoomId, WatchedMembership)],
        since: Position,
    ) -> Result<Vec<(OwnedRoomId, RoomChange)>> {
        let (mut changed, mut forgotten) = (Vec::new(), Vec::new());
        for (room_id, membership) in news {
            if membership.state == MembershipState::Join && membership.entered <= since {
                match self.watchers.moves(room_id, since) {
                    Some(moves) if moves.is_empty() => {}
                    Some(moves) => changed.push((room_id.clone(), RoomChange::Others(moves))),
                    None => forgotten.push(&**room_id),
                }
            } else if membership.position > since {
                changed.push((room_id.clone(), RoomChange::Own));
            }
        }
        for some in forgotten.chunks(AT_ONCE) {
            let moves = self.watchers.look_up_moves(some, since).await?;
            changed.extend(moves.into_iter().map(|(room_id, moves)| (room_id, RoomChange::Others(moves))));
        }
        Ok(changed)
    }

    /// Compares who shares a room with the user at two places.
    async fn compare_room(
        &self,
        user_id: &UserId,
        room: &Room,
        change: &RoomChange,
        (since, until): (Position, Position),
        sharing: &mut Sharing,
    ) -> Result<()> {
        let (then, now) = (Order::at(since), Order::at(until));
        let state = self.rooms.state_at(room, now).await?;
        let (was_in, is_in, moves) = match change {
            RoomChange::Others(moves) => (true, true, moves.clone()),
            RoomChange::Own => {
                let own = self.rooms.state_event_at(room, then, MEMBER, user_id.as_str()).await?;
                let was_in = own.as_ref().map(membership_of) == Some(MembershipState::Join);
                let is_in = state.membership(user_id) == MembershipState::Join;
                // They may have changed no more than their name, or have been away for a moment.
                let both = was_in && is_in;
                let changes = if both { self.rooms.list_changes(room, then, now).await? } else { Vec::new() };
                (was_in, is_in, moves_of(&changes))
            }
        };
        match (was_in, is_in) {
            (false, false) => {}
            (false, true) => sharing.begun.extend(joined(&state, user_id)),
            (true, false) => sharing.ended.extend(joined(&self.rooms.state_at(room, then).await?, user_id)),
            (true, true) => self.compare_members(user_id, room, (then, &state), &moves, sharing).await?,
        }
        Ok(())
    }

    /// Compares the members of a room that the user was in and is in: as they were at a place and as they are in a
    /// state.
    async fn compare_members(
        &self,
        user_id: &UserId,
        room: &Room,
        (then, state): (Order, &State),
        moves: &Moves,
        sharing: &mut Sharing,
    ) -> Result<()> {
        let (kind, key) = ENCRYPTION;
        if moves.encryption
            && state.get(kind, key).is_some()
            && self.rooms.state_event_at(room, then, kind, key).await?.is_none()
        {
            sharing.begun.extend(joined(state, user_id));
        }
        let others: Vec<&UserId> = moves.users.iter().map(|other| &**other).filter(|other| *other != user_id).collect();
        if others.is_empty() {
            return Ok(());
        }
        let keys: Vec<&str> = others.iter().map(|other| other.as_str()).collect();
        let before = self.rooms.list_state_events_at(room, then, MEMBER, &keys).await?;
        let were_in: HashSet<&str> = before
            .iter()
            .filter(|pdu| membership_of(pdu) == MembershipState::Join)
            .filter_map(|pdu| pdu.state_key())
            .collect();
        for other in others {
            let is_in = state.membership(other) == MembershipState::Join;
            match (were_in.contains(other.as_str()), is_in) {
                (false, true) => drop(sharing.begun.insert(other.to_owned())),
                (true, false) => drop(sharing.ended.insert(other.to_owned())),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Everybody but the user who has joined.
fn joined<'a>(state: &'a State, user_id: &'a UserId) -> impl Iterator<Item = OwnedUserId> {
    let members = state.members().filter(Member::has_joined).map(|member| member.user_id);
    members.filter(move |other| *other != user_id).map(ToOwned::to_owned)
}

/// Whom changes of a room's state may make a member, or no member any more.
fn moves_of(changes: &[StateChange]) -> Moves {
    let mut moves = Moves::default();
    for change in changes {
        if (change.kind.as_str(), change.state_key.as_str()) == ENCRYPTION {
            moves.encryption = true;
        } else if change.kind == MEMBER
            && let Ok(user_id) = OwnedUserId::try_from(change.state_key.as_str())
        {
            moves.users.insert(user_id);
        }
    }
    moves
}
