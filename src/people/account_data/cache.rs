//! Account data in memory: everything of the users who are connected.
//!
//! A user's data is one value that is replaced as a whole, so a sync holds it without a lock while the log goes on. It
//! is weighed in bytes: one user may have more than a thousand others.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use quick_cache::{Weighter, sync::Cache};
use rpds::HashTrieMapSync;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::value::RawValue;

use crate::{
    event::fact::{AccountData, Batch, News},
    ground::{
        position::Position,
        sizes::Sizes,
        weighed::{self, CacheWeight, Weighed},
    },
    log::Reader,
};

/// <https://spec.matrix.org/v1.19/client-server-api/#mignored_user_list>
pub(super) const IGNORED_USER_LIST: &str = "m.ignored_user_list";
/// How many users that is, if they have as much as most have.
const KEPT_USERS: usize = 4_096;
/// What one piece takes beside its content, in bytes, and what somebody on a list of ignored users does.
const PIECE_BYTES: u64 = 400;
const LISTED_BYTES: u64 = 64;
/// Few, so that each has room for a user who keeps as much as the quotas allow.
const SHARDS: usize = 1;

/// The account data that this node remembers. It follows the log.
pub struct AccountDataCache {
    users: Cache<OwnedUserId, Arc<UserData>, ByBytes>,
    limit: u64,
    /// How many earlier lists of ignored users are remembered of one user.
    ignored_lists: usize,
}

/// The pieces of one room, or the global ones, by type, each with its place.
type Pieces = HashTrieMapSync<String, (Position, Arc<AccountData>)>;

/// Everything of one user. A copy shares what it has in common with the original.
#[derive(Clone)]
pub struct UserData {
    by_room: HashTrieMapSync<Option<OwnedRoomId>, Pieces>,
    ignored: Arc<HashSet<OwnedUserId>>,
    /// Whom the user ignored before: the latest lists, oldest first, each with the place where another replaced it.
    ignored_before: VecDeque<(Position, Arc<HashSet<OwnedUserId>>)>,
    /// How many of these are remembered.
    ignored_lists: usize,
    /// From here on it is known whom they ignored.
    ignored_since: Position,
    /// What it all takes, about.
    bytes: u64,
    /// Everything up to here is part of it.
    position: Position,
}

/// Weighs what a user's data takes, for the cache's limit.
#[derive(Clone)]
struct ByBytes;

impl Weighter<OwnedUserId, Arc<UserData>> for ByBytes {
    fn weight(&self, _: &OwnedUserId, user_data: &Arc<UserData>) -> u64 {
        user_data.bytes + PIECE_BYTES
    }
}

impl Reader for AccountDataCache {
    fn read(&self, batch: &Batch) {
        for (at, news) in batch.entries() {
            let News::AccountData(data) = news else { continue };
            // Peeked at: what the log writes is no sign that anybody asks for it.
            if let Some(user_data) = self.users.peek(&data.user_id)
                && at > user_data.position
            {
                let mut user_data = UserData::clone(&user_data);
                user_data.set(at, data);
                self.users.insert(data.user_id.clone(), Arc::new(user_data));
            }
        }
    }
}

impl Weighed for AccountDataCache {
    fn weight(&self) -> CacheWeight {
        CacheWeight { name: "account_data", bytes: self.users.weight(), limit: self.limit }
    }
}

impl AccountDataCache {
    pub(in crate::people) fn new(sizes: &Sizes) -> Self {
        let limit = sizes.caches.account_data;
        let users = weighed::by_bytes(KEPT_USERS, limit, SHARDS, ByBytes);
        Self { users, limit, ignored_lists: sizes.ignored_lists }
    }

    /// All of a user's account data, as of the node's log. None where it has to be read first.
    pub(super) fn find(&self, user_id: &UserId) -> Option<Arc<UserData>> {
        self.users.get(user_id)
    }

    /// Takes a user's account data as the database had it at `position`, and brings it up to date.
    pub(super) fn remember(
        &self,
        user_id: &UserId,
        position: Position,
        rows: &[(Position, Arc<AccountData>)],
        missed: &[Arc<Batch>],
    ) -> Arc<UserData> {
        let mut user_data = UserData::new(self.ignored_lists);
        for (at, data) in rows {
            user_data.set(*at, data);
        }
        // What the list that is there has replaced is not there any more.
        while let Some(replaced) = user_data.forget_list() {
            user_data.ignored_since = replaced;
        }
        user_data.position = position;
        for (at, news) in missed.iter().flat_map(|batch| batch.entries()) {
            if let News::AccountData(data) = news
                && data.user_id == user_id
                && at > user_data.position
            {
                user_data.set(at, data);
            }
        }
        let user_data = Arc::new(user_data);
        self.users.insert(user_id.to_owned(), Arc::clone(&user_data));
        user_data
    }
}

impl UserData {
    /// Of a user of whom nothing is known.
    fn new(ignored_lists: usize) -> Self {
        Self {
            by_room: HashTrieMapSync::default(),
            ignored: Arc::default(),
            ignored_before: VecDeque::new(),
            ignored_lists,
            ignored_since: Position::START,
            bytes: list_weight(&HashSet::new()),
            position: Position::START,
        }
    }

    /// Puts a piece in place of the one of its type and room, and keeps the weight right.
    fn set(&mut self, at: Position, data: &Arc<AccountData>) {
        let mut pieces = self.by_room.get(&data.room_id).cloned().unwrap_or_default();
        self.bytes -= pieces.get(&data.kind).map_or(0, |(_, old)| weight(old));
        pieces.insert_mut(data.kind.clone(), (at, Arc::clone(data)));
        self.by_room.insert_mut(data.room_id.clone(), pieces);
        self.bytes += weight(data);
        self.position = at;
        if data.room_id.is_none() && data.kind == IGNORED_USER_LIST {
            let before = std::mem::replace(&mut self.ignored, Arc::new(ignored_users(data)));
            self.bytes += list_weight(&self.ignored);
            self.ignored_before.push_back((at, before));
            if self.ignored_before.len() > self.ignored_lists
                && let Some(replaced) = self.forget_list()
            {
                self.ignored_since = replaced;
            }
        }
    }

    /// Forgets the oldest of the earlier lists of ignored users. Returns where it was replaced.
    fn forget_list(&mut self) -> Option<Position> {
        let (replaced, list) = self.ignored_before.pop_front()?;
        self.bytes -= list_weight(&list);
        Some(replaced)
    }

    /// A piece by its type; the global one where there is no room.
    pub(super) fn get(&self, room_id: Option<&RoomId>, kind: &str) -> Option<&Arc<AccountData>> {
        let pieces = self.by_room.get(&room_id.map(ToOwned::to_owned))?;
        pieces.get(kind).map(|(_, data)| data)
    }

    /// What was set of one room after `after`, up to `until`, oldest first; of the global data where there is no room.
    /// Whoever asks from the beginning has known nothing and hears of nothing that was deleted, unless they begin anew:
    /// after a backup was restored they may know it.
    pub fn since(
        &self,
        room_id: Option<&RoomId>,
        after: Position,
        until: Position,
        begins_anew: bool,
    ) -> Vec<Arc<AccountData>> {
        let Some(pieces) = self.by_room.get(&room_id.map(ToOwned::to_owned)) else { return Vec::new() };
        let with_deleted = after > Position::START || begins_anew;
        let is_news = |(at, data): &&(Position, Arc<AccountData>)| {
            after < *at && *at <= until && (with_deleted || !data.is_deleted())
        };
        let mut news: Vec<_> = pieces.values().filter(is_news).collect();
        news.sort_unstable_by_key(|(at, _)| *at);
        news.into_iter().map(|(_, data)| Arc::clone(data)).collect()
    }

    /// The rooms for which there is something; none for global data.
    #[cfg(test)]
    pub(super) fn rooms(&self) -> impl Iterator<Item = Option<&RoomId>> {
        self.by_room.keys().map(Option::as_deref)
    }

    /// Whom the user ignores.
    pub fn ignored(&self) -> Arc<HashSet<OwnedUserId>> {
        Arc::clone(&self.ignored)
    }

    /// Whom the user ignored at a place. None if that is not remembered.
    pub fn ignored_at(&self, at: Position) -> Option<Arc<HashSet<OwnedUserId>>> {
        if at < self.ignored_since {
            return None;
        }
        let replaced = self.ignored_before.iter().find(|(replaced, _)| *replaced > at);
        Some(replaced.map_or_else(|| self.ignored(), |(_, list)| Arc::clone(list)))
    }
}

/// In bytes, about, as is all that is weighed here.
fn weight(data: &AccountData) -> u64 {
    let room = data.room_id.as_ref().map_or(0, |room_id| room_id.as_str().len());
    PIECE_BYTES + (data.content.get().len() + 2 * data.kind.len() + 2 * room) as u64
}

fn list_weight(ignored: &HashSet<OwnedUserId>) -> u64 {
    ignored.iter().map(|user_id| user_id.as_str().len() as u64 + LISTED_BYTES).sum::<u64>() + PIECE_BYTES
}

/// The users whom a list of ignored ones ignores. Clients may write anything there: what is no user identifier ignores
/// nobody, and nobody ignores themselves.
fn ignored_users(data: &AccountData) -> HashSet<OwnedUserId> {
    listed_users(&data.content).filter(|user| *user != data.user_id).collect()
}

/// The users on a list of ignored ones.
pub(super) fn listed_users(content: &RawValue) -> impl Iterator<Item = OwnedUserId> {
    #[derive(serde::Deserialize)]
    struct IgnoredUserList {
        ignored_users: serde_json::Map<String, serde_json::Value>,
    }
    let content: Option<IgnoredUserList> = serde_json::from_str(content.get()).ok();
    let listed = content.into_iter().flat_map(|content| content.ignored_users);
    listed.filter_map(|(user, _)| OwnedUserId::try_from(user).ok())
}

#[cfg(test)]
mod tests {
    use ruma::user_id;
    use serde_json::{json, value::to_raw_value};

    use super::*;
    use crate::ground::position::Mark;

    fn data(user_id: &UserId, kind: &str, bytes: usize) -> Arc<AccountData> {
        let content = to_raw_value(&json!({ "text": "x".repeat(bytes) })).unwrap().into();
        Arc::new(AccountData { user_id: user_id.to_owned(), room_id: None, kind: kind.to_owned(), content })
    }

    fn batch(at: i64, data: &Arc<AccountData>) -> Batch {
        let at = Position(at);
        Batch { first: at, last: at, mark: Mark::of("batch"), news: vec![News::AccountData(Arc::clone(data))] }
    }

    /// Neither many users nor one who keeps ever more take more than the budget, and what is too large to be remembered
    /// is not remembered as it was before.
    #[test]
    fn the_budget_holds_however_it_is_filled() {
        let mut sizes = Sizes::default();
        sizes.caches.account_data = 256 * 1024;
        let cache = AccountDataCache::new(&sizes);
        for n in 0..40 {
            let user_id = OwnedUserId::try_from(format!("@{n}:here")).unwrap();
            cache.remember(&user_id, Position(1), &[(Position(1), data(&user_id, "large", 20_000))], &[]);
            assert!(cache.weight().bytes <= cache.weight().limit);
        }
        assert!(cache.weight().bytes > 100_000, "it is used");
        let alice = user_id!("@alice:here");
        cache.remember(alice, Position(1), &[], &[]);
        for at in 2..40 {
            cache.read(&batch(at, &data(alice, &format!("kind {at}"), 20_000)));
            assert!(cache.weight().bytes <= cache.weight().limit);
            if let Some(known) = cache.find(alice) {
                assert!(known.get(None, &format!("kind {at}")).is_some(), "what is remembered is up to date");
            }
        }
        assert!(cache.find(alice).is_none(), "all of it does not fit");
    }
}
