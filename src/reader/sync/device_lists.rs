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
//! have moved so far on that their state then is not in memory. What that costs is counted ([`Effort`]).
//!
//! Both places are exact, though everything is asked later than the second: whoever has come or gone after that is for
//! the next sync ([`super::sharing`]). So what two syncs say after one another is what one says of both.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user>

use std::collections::BTreeSet;

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};

use super::{
    effort::Effort,
    sharing::{HELD, MovedRoom, PAGE, RoomChange, joined, rooms_at},
    sources::Sources,
    watch::ENCRYPTION,
    watcher::{WatchedMembership, Watcher},
};
use crate::{
    error::Result,
    ground::position::{Order, Position},
    room::Room,
};

/// In how many rooms it is asked at once who has changed their devices.
const AT_ONCE: usize = 500;

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

/// Between which places a user's rooms are compared, and what has come out so far.
struct Comparison<'a> {
    user_id: &'a UserId,
    since: Position,
    until: Position,
    /// With whom a room has become shared, or encrypted: they share it at the second place.
    begun: BTreeSet<OwnedUserId>,
    /// With whom one is shared no longer. Another room may be.
    ended: BTreeSet<OwnedUserId>,
    effort: Effort,
}

impl Sources {
    /// Whose devices are news between two places that this node has read, and what it took to find out. `news` are the
    /// user's rooms in which something has happened after the first, or of which their membership has changed.
    pub(super) async fn device_lists(
        &self,
        watcher: &Watcher,
        news: &[(OwnedRoomId, WatchedMembership)],
        (since, until): (Position, Position),
    ) -> Result<(DeviceLists, Effort)> {
        let (user_id, effort) = (&*watcher.user_id, Effort::default());
        let (begun, ended) = (BTreeSet::new(), BTreeSet::new());
        let mut comparison = Comparison { user_id, since, until, begun, ended, effort };
        let rooms = self.list_moved_rooms(news, since, &mut comparison.effort).await?;
        for some in rooms.chunks(HELD) {
            let names: Vec<&RoomId> = some.iter().map(|moved| &*moved.room_id).collect();
            let held = self.rooms.find_each_held(&names).await?;
            for moved in some {
                if let Some(room) = held.get(&moved.room_id) {
                    self.compare_room(room, moved, &mut comparison).await?;
                }
            }
        }
        let Comparison { begun, ended, mut effort, .. } = comparison;
        let changed = self.list_changed_users(watcher, (since, until), &mut effort).await?;
        let others = ended.union(&changed).filter(|other| **other != watcher.user_id && !begun.contains(*other));
        let others: BTreeSet<OwnedUserId> = others.cloned().collect();
        let sharing = self.list_sharing_at(watcher, others, until, &mut effort).await?;
        let left = ended.into_iter().filter(|other| !begun.contains(other) && !sharing.contains(other)).collect();
        let is_followed = |other: &OwnedUserId| *other == watcher.user_id || sharing.contains(other);
        let changed = changed.into_iter().filter(is_followed).chain(begun).collect();
        Ok((DeviceLists { changed, left }, effort))
    }

    /// What is said of devices to a client that knows some, but not since when: everybody is news whom it may follow.
    pub(super) async fn all_device_lists(&self, watcher: &Watcher, until: Position) -> Result<DeviceLists> {
        let mut changed = self.list_all_sharing_at(watcher, until).await?;
        changed.insert(watcher.user_id.clone());
        Ok(DeviceLists { changed, left: BTreeSet::new() })
    }

    /// Those whose devices or keys have changed between two places, as far as the watcher is shown it. Not all of them
    /// share a room with the watcher.
    async fn list_changed_users(
        &self,
        watcher: &Watcher,
        (since, until): (Position, Position),
        effort: &mut Effort,
    ) -> Result<BTreeSet<OwnedUserId>> {
        if let Some(changed) = self.device_changes.between(&watcher.user_id, (since, until)) {
            return Ok(changed);
        }
        let rooms = rooms_at(watcher, until);
        let rooms: Vec<&RoomId> = rooms.iter().map(|room_id| &**room_id).collect();
        // Once also for whoever is in no room: their own devices are news to them.
        let parts: Vec<&[&RoomId]> =
            if rooms.is_empty() { vec![rooms.as_slice()] } else { rooms.chunks(AT_ONCE).collect() };
        let mut changed = BTreeSet::new();
        for some in parts {
            let found = self.watchers.look_up_changed_in(watcher, some, (since, until)).await?;
            // About as many as there are rooms are gone through at least, and all that are found.
            effort.add_memberships(some.len() + found.len());
            changed.extend(found);
        }
        Ok(changed)
    }

    /// Compares who shares a room with the user at two places.
    async fn compare_room(&self, room: &Room, moved: &MovedRoom, comparison: &mut Comparison<'_>) -> Result<()> {
        let (then, now) = (Order::at(comparison.since), Order::at(comparison.until));
        let (was_in, is_in) = match moved.change {
            RoomChange::Others { .. } => (true, true),
            RoomChange::Own => {
                let own = comparison.user_id;
                (self.is_member_at(room, then, own).await?, self.is_member_at(room, now, own).await?)
            }
        };
        match (was_in, is_in) {
            (false, false) => {}
            (false, true) => {
                let members = self.list_others_at(room, now, comparison).await?;
                comparison.begun.extend(members);
            }
            (true, false) => {
                let members = self.list_others_at(room, then, comparison).await?;
                comparison.ended.extend(members);
            }
            // They may have changed no more than their name, or have been away for a moment.
            (true, true) => self.compare_members(room, moved, comparison).await?,
        }
        Ok(())
    }

    /// Everybody but the user who is in a room at a place. It costs what has to be read.
    async fn list_others_at(
        &self,
        room: &Room,
        at: Order,
        comparison: &mut Comparison<'_>,
    ) -> Result<Vec<OwnedUserId>> {
        let remembered = room.view(|view| view.state_at(at));
        let state = if let Some(remembered) = remembered {
            remembered
        } else {
            let state = self.rooms.state_at(room, at).await?;
            comparison.effort.add_statement();
            comparison.effort.add_memberships(state.members().count());
            state
        };
        Ok(joined(&state, comparison.user_id).collect())
    }

    /// Compares the members of a room that the user was in and is in, as far as they may have come or gone.
    async fn compare_members(&self, room: &Room, moved: &MovedRoom, comparison: &mut Comparison<'_>) -> Result<()> {
        let (members, encryption) = match moved.change {
            RoomChange::Own => (true, true),
            RoomChange::Others { members, encryption } => (members, encryption),
        };
        let (kind, key) = ENCRYPTION;
        let (then, now) = (Order::at(comparison.since), Order::at(comparison.until));
        if encryption
            && self.rooms.state_event_at(room, now, kind, key).await?.is_some()
            && self.rooms.state_event_at(room, then, kind, key).await?.is_none()
        {
            let members = self.list_others_at(room, now, comparison).await?;
            comparison.begun.extend(members);
        }
        if !members {
            return Ok(());
        }
        if let Some(moves) = self.watchers.moves(&moved.room_id, comparison.since) {
            let others: Vec<OwnedUserId> = moves.users.into_iter().collect();
            return self.compare_some(room, &others, comparison).await;
        }
        let places = (comparison.since, comparison.until);
        let (mut beyond, most) = (String::new(), i64::try_from(PAGE).unwrap_or(i64::MAX));
        loop {
            let mut page = self.watchers.look_up_moved(&moved.room_id, places, (beyond.as_str(), most)).await?;
            // Each as it was and as it is.
            comparison.effort.add_memberships(2 * page.len());
            let others: Vec<OwnedUserId> =
                page.iter().filter_map(|key| OwnedUserId::try_from(key.as_str()).ok()).collect();
            self.compare_some(room, &others, comparison).await?;
            let is_last = page.len() < PAGE;
            match page.pop() {
                Some(last) if !is_last => beyond = last,
                _ => return Ok(()),
            }
        }
    }

    /// Compares some who may have come into the room or gone.
    async fn compare_some(&self, room: &Room, others: &[OwnedUserId], comparison: &mut Comparison<'_>) -> Result<()> {
        let keys: Vec<&str> =
            others.iter().filter(|other| ***other != *comparison.user_id).map(|other| other.as_str()).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let before = self.list_present(room, Order::at(comparison.since), &keys).await?;
        let after = self.list_present(room, Order::at(comparison.until), &keys).await?;
        comparison.begun.extend(after.difference(&before).cloned());
        comparison.ended.extend(before.difference(&after).cloned());
        Ok(())
    }
}
