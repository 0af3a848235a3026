//! What is asked of those who are connected, and of the database where they are not in memory.
//!
//! Rows and memory are of one time: whoever becomes a watcher is read at a place of the log and follows it from there,
//! and what is read of others is returned when this node has read as far as the database had.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, atomic::Ordering},
};

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, events::room::member::MembershipState};
use tokio::sync::watch;

use super::{
    recent_moves::Moves,
    watch::Registry,
    watcher::{WatchedMembership, Watcher},
};
use crate::{
    db::Db,
    error::Result,
    event::fact::OutsideMembership,
    ground::position::Position,
    log::Tail,
    store::{self, membership::MovedKind},
};

/// How many who have joined rooms are looked up at once: where there are more, it is as well to go through all members.
const MOST_NEWCOMERS: i64 = 2_000;
/// Of how many users it is asked at once in which rooms they are.
const AT_ONCE: usize = 1_000;

/// Everybody who is connected to this node.
pub(crate) struct Watchers {
    db: Db,
    tail: Arc<Tail>,
    registry: Arc<Registry>,
}

impl Watchers {
    pub(crate) fn new(db: Db, tail: Arc<Tail>, registry: Arc<Registry>) -> Self {
        Self { db, tail, registry }
    }

    /// The user as a watcher: remembered, or read from the database and from then on following the log.
    pub(crate) async fn watcher(&self, user_id: &UserId) -> Result<Arc<Watcher>> {
        // Again where the log is too far ahead by the time that the rows are read.
        loop {
            let known = self.registry.index.read().users.get(user_id).cloned();
            if let Some(watcher) = known {
                // The log's end stands for a clock: who asks later has read no less.
                watcher.used.store(self.tail.reached().0.unsigned_abs(), Ordering::Relaxed);
                return Ok(watcher);
            }
            let mut snapshot = self.tail.snapshot(&self.db).await?;
            let memberships = store::membership::list_of_user(&mut snapshot, user_id).await?;
            let outside = store::outside_membership::list_of_user(&mut snapshot, user_id).await?;
            let position = snapshot.close().await;
            // While the log stands still: nothing is missed between the snapshot and what follows it.
            let registered = self.tail.catch_up(position, |missed| {
                self.registry.register(user_id, (memberships, outside), (position, missed))
            });
            if let Some(watcher) = registered {
                return Ok(watcher);
            }
        }
    }

    /// A notice of every later event in a room, for somebody who need not be in it. What came before is what the node
    /// has read by then: it reads first and wakes afterwards.
    pub(crate) fn watch_room(&self, room_id: &RoomId) -> watch::Receiver<Position> {
        let mut index = self.registry.index.write();
        index.onlookers.retain(|_, onlookers| onlookers.receiver_count() > 0);
        index.onlookers.entry(room_id.to_owned()).or_default().subscribe()
    }

    /// Whether a watcher shares a room with a user. None where that is not in memory.
    pub(crate) fn share_room(&self, watcher: &Watcher, user_id: &UserId) -> Option<bool> {
        if watcher.user_id == user_id {
            return Some(true);
        }
        let index = self.registry.index.read();
        let mine = watcher.rooms.read();
        let mut mine = mine.iter().filter(|(_, own)| has_joined(own)).map(|(room_id, _)| room_id);
        if let Some(other) = index.users.get(user_id) {
            let theirs = other.rooms.read();
            return Some(mine.any(|room_id| theirs.get(room_id).is_some_and(has_joined)));
        }
        let theirs = index.strangers.rooms(user_id)?;
        Some(mine.any(|room_id| theirs.contains(room_id)))
    }

    /// Those of some users who share a room with a watcher, from the database.
    pub(crate) async fn look_up_sharing(
        &self,
        watcher: &Watcher,
        users: &[OwnedUserId],
    ) -> Result<HashSet<OwnedUserId>> {
        let users: Vec<&UserId> = users.iter().map(|user_id| &**user_id).collect();
        let mut conn = self.db.read().await?;
        Ok(store::membership::list_sharing(&mut conn, &watcher.user_id, &users).await?.into_iter().collect())
    }

    /// The rooms that any of some users is or was in, from the database.
    pub(super) async fn look_up_rooms_of(&self, users: &[&UserId]) -> Result<HashSet<OwnedRoomId>> {
        Ok(store::membership::list_rooms_of(&mut self.db.read().await?, users).await?)
    }

    /// All that came of a user in some rooms from outside, from the database.
    pub(super) async fn look_up_outside(
        &self,
        user_id: &UserId,
        rooms: &[&RoomId],
    ) -> Result<Vec<(Position, OutsideMembership)>> {
        Ok(store::outside_membership::list(&mut self.db.read().await?, user_id, rooms).await?)
    }

    /// Who has joined one of some rooms after a place, from the database. None if they are many.
    pub(crate) async fn look_up_newcomers(
        &self,
        rooms: &[OwnedRoomId],
        after: Position,
    ) -> Result<Option<Vec<OwnedUserId>>> {
        let rooms: Vec<&RoomId> = rooms.iter().map(|room_id| &**room_id).collect();
        let most = MOST_NEWCOMERS + 1;
        let found = store::membership::list_joined_since(&mut self.db.read().await?, &rooms, after, most).await?;
        Ok((i64::try_from(found.len()).unwrap_or(i64::MAX) < most).then_some(found))
    }

    /// Who has joined a room after a place. None if that is not remembered.
    pub(crate) fn newcomers(&self, room_id: &RoomId, after: Position) -> Option<Vec<OwnedUserId>> {
        self.registry.index.read().rooms.get(room_id)?.moves.joins_since(after)
    }

    /// What may have changed after a place of who is in a room, and of its encryption. None if that is not remembered.
    pub(super) fn moves(&self, room_id: &RoomId, after: Position) -> Option<Moves> {
        self.registry.index.read().rooms.get(room_id)?.moves.since(after)
    }

    /// In which of some rooms it may have changed after a place who is there, or the encryption, from the database.
    pub(super) async fn look_up_moved_rooms(
        &self,
        rooms: &[&RoomId],
        after: Position,
    ) -> Result<Vec<(OwnedRoomId, MovedKind)>> {
        Ok(store::membership::list_moved_rooms(&mut self.db.read().await?, rooms, after).await?)
    }

    /// Whose membership of a room may have changed after a place, up to another, from the database: at most `most`, as
    /// the state has them for keys, of those beyond one.
    pub(super) async fn look_up_moved(
        &self,
        room_id: &RoomId,
        (after, until): (Position, Position),
        (beyond, most): (&str, i64),
    ) -> Result<Vec<String>> {
        let mut conn = self.db.read().await?;
        Ok(store::membership::list_moved(&mut conn, room_id, (after, until), (beyond, most)).await?)
    }

    /// Those of some users who are in one of some rooms. The database is asked about those whose rooms are not in
    /// memory.
    pub(super) async fn list_in_any(
        &self,
        users: &BTreeSet<OwnedUserId>,
        rooms: &HashSet<OwnedRoomId>,
    ) -> Result<BTreeSet<OwnedUserId>> {
        let (mut found, mut unknown) = (BTreeSet::new(), Vec::new());
        if rooms.is_empty() {
            return Ok(found);
        }
        for user_id in users {
            match self.is_in_any(user_id, rooms) {
                Some(true) => drop(found.insert(user_id.clone())),
                Some(false) => {}
                None => unknown.push(&**user_id),
            }
        }
        let rooms: Vec<&RoomId> = rooms.iter().map(|room_id| &**room_id).collect();
        for some in unknown.chunks(AT_ONCE) {
            let mut snapshot = self.tail.snapshot(&self.db).await?;
            found.extend(store::membership::list_in_any(&mut snapshot, some, &rooms).await?);
            // Whoever asks looks in memory afterwards, and must not find it behind this.
            snapshot.close().await;
        }
        Ok(found)
    }

    /// Whether a user is in one of some rooms. None where that is not in memory.
    fn is_in_any(&self, user_id: &UserId, rooms: &HashSet<OwnedRoomId>) -> Option<bool> {
        let index = self.registry.index.read();
        if let Some(other) = index.users.get(user_id) {
            let theirs = other.rooms.read();
            return Some(theirs.iter().any(|(room_id, membership)| has_joined(membership) && rooms.contains(room_id)));
        }
        let theirs = index.strangers.rooms(user_id)?;
        Some(theirs.iter().any(|room_id| rooms.contains(room_id)))
    }

    /// Who has changed their devices or keys after a place, up to another, as far as the watcher is shown it, from the
    /// database: of the watcher, and of all who may have been in one of some rooms at the second place.
    pub(super) async fn look_up_changed_in(
        &self,
        watcher: &Watcher,
        rooms: &[&RoomId],
        (after, until): (Position, Position),
    ) -> Result<Vec<OwnedUserId>> {
        let mut conn = self.db.read().await?;
        Ok(store::device_list::list_changed_in(&mut conn, &watcher.user_id, rooms, (after, until)).await?)
    }
}

fn has_joined(membership: &WatchedMembership) -> bool {
    membership.state == MembershipState::Join
}
