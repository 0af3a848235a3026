//! Account data in memory: everything of the users who are connected.

use std::{
    collections::HashSet,
    ops::Bound::{Excluded, Included},
    sync::Arc,
};

use quick_cache::{Weighter, sync::Cache};
use rpds::{HashTrieMapSync, RedBlackTreeMapSync};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::value::RawValue;

use super::IGNORED_USER_LIST;
use crate::{
    fact::{AccountData, Batch, News},
    log::Reader,
    position::Position,
};

/// How many bytes of account data are remembered, about.
const KEPT_BYTES: u64 = 48 * 1024 * 1024;
/// How many users that is, if they have as much as most have.
const KEPT_USERS: usize = 4_096;
/// What one piece takes beside its content.
const PIECE_BYTES: u64 = 400;

/// The account data that this node remembers. It follows the log.
pub struct Book(Cache<OwnedUserId, Arc<Page>, ByBytes>);

/// Everything of one user. A copy shares what it has in common with the original.
#[derive(Clone, Default)]
pub(super) struct Page {
    by_key: HashTrieMapSync<Key, Position>,
    by_position: RedBlackTreeMapSync<Position, Arc<AccountData>>,
    ignored: Arc<HashSet<OwnedUserId>>,
    bytes: u64,
    /// Everything up to here is part of the page.
    position: Position,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    room_id: Option<OwnedRoomId>,
    kind: String,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<OwnedUserId, Arc<Page>> for ByBytes {
    fn weight(&self, _: &OwnedUserId, page: &Arc<Page>) -> u64 {
        page.bytes + PIECE_BYTES
    }
}

impl Default for Book {
    fn default() -> Self {
        Self(Cache::with_weighter(KEPT_USERS, KEPT_BYTES, ByBytes))
    }
}

impl Reader for Book {
    fn read(&self, batch: &Batch) {
        for (at, news) in batch.entries() {
            let News::AccountData(data) = news else { continue };
            if let Some(page) = self.0.peek(&data.user_id)
                && at > page.position
            {
                let mut page = Page::clone(&page);
                page.set(at, data);
                self.0.insert(data.user_id.clone(), Arc::new(page));
            }
        }
    }
}

impl Book {
    pub(super) fn find(&self, user_id: &UserId) -> Option<Arc<Page>> {
        self.0.get(user_id)
    }

    /// Takes a user's account data as the database had it at `position`, and brings it up to date.
    pub(super) fn remember(
        &self,
        user_id: &UserId,
        position: Position,
        rows: &[(Position, Arc<AccountData>)],
        missed: &[Arc<Batch>],
    ) -> Arc<Page> {
        let mut page = Page::default();
        for (at, data) in rows {
            page.set(*at, data);
        }
        page.position = position;
        for (at, news) in missed.iter().flat_map(|batch| batch.entries()) {
            if let News::AccountData(data) = news
                && data.user_id == user_id
                && at > page.position
            {
                page.set(at, data);
            }
        }
        let page = Arc::new(page);
        self.0.insert(user_id.to_owned(), Arc::clone(&page));
        page
    }
}

impl Page {
    fn set(&mut self, at: Position, data: &Arc<AccountData>) {
        let key = Key { room_id: data.room_id.clone(), kind: data.kind.clone() };
        if let Some(place) = self.by_key.get(&key).copied() {
            self.bytes -= self.by_position.get(&place).map_or(0, |old| weight(old));
            self.by_position.remove_mut(&place);
        }
        self.by_key.insert_mut(key, at);
        self.bytes += weight(data);
        self.by_position.insert_mut(at, Arc::clone(data));
        self.position = at;
        if data.room_id.is_none() && data.kind == IGNORED_USER_LIST {
            self.ignored = Arc::new(ignored_users(data));
        }
    }

    pub(super) fn get(&self, room_id: Option<&RoomId>, kind: &str) -> Option<&Arc<AccountData>> {
        let key = Key { room_id: room_id.map(ToOwned::to_owned), kind: kind.to_owned() };
        self.by_position.get(self.by_key.get(&key)?)
    }

    pub(super) fn between(&self, after: Position, until: Position) -> Vec<(Position, Arc<AccountData>)> {
        if after >= until {
            return Vec::new();
        }
        let within = self.by_position.range((Excluded(after), Included(until)));
        within.map(|(at, data)| (*at, Arc::clone(data))).collect()
    }

    pub(super) fn ignored(&self) -> Arc<HashSet<OwnedUserId>> {
        Arc::clone(&self.ignored)
    }
}

fn weight(data: &AccountData) -> u64 {
    PIECE_BYTES + data.content.get().len() as u64
}

/// The users whom a list of ignored ones ignores. Clients may write anything there: what is no user identifier ignores
/// nobody, and nobody ignores themselves.
fn ignored_users(data: &AccountData) -> HashSet<OwnedUserId> {
    listed_users(&data.content).filter(|user| *user != data.user_id).collect()
}

/// The users on a list of ignored ones.
pub(super) fn listed_users(content: &RawValue) -> impl Iterator<Item = OwnedUserId> {
    #[derive(serde::Deserialize)]
    struct Content {
        ignored_users: serde_json::Map<String, serde_json::Value>,
    }
    let content: Option<Content> = serde_json::from_str(content.get()).ok();
    let listed = content.into_iter().flat_map(|content| content.ignored_users);
    listed.filter_map(|(user, _)| OwnedUserId::try_from(user).ok())
}
