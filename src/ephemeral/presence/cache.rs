//! Presence in memory: everybody who is not offline, and whoever has changed since this node began.
//!
//! It answers who has changed between two positions without the database, where it still knows; `forgotten` and
//! `loaded` say from where on it does.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound::{Excluded, Included},
    sync::Arc,
};

use parking_lot::RwLock;
use ruma::{OwnedUserId, UserId, presence::PresenceState};

use super::timing::{ACTIVE, millis_between};
use crate::{
    event::fact::{Batch, Kind as _, News, Presence},
    ground::{
        position::Position,
        sizes::CacheSizes,
        weighed::{CacheWeight, Load, Weighed},
    },
    log::Reader,
};

/// What one user takes beside their presence, in bytes.
const USER_BYTES: usize = 256;

/// The presence that this node remembers. It follows the log.
pub struct PresenceCache {
    cached: RwLock<CachedPresence>,
}

struct CachedPresence {
    /// What the users take. Beyond the limit those who are offline are forgotten.
    load: Load,
    /// With the place at which it is news to clients.
    users: HashMap<OwnedUserId, (Position, Arc<Presence>)>,
    /// Whoever has changed, by the place at which that is news.
    by_position: BTreeMap<Position, Arc<Presence>>,
    /// Everything up to here was part of what was read from the database.
    loaded: Position,
    /// Changes up to here are not all remembered.
    forgotten: Position,
}

impl CachedPresence {
    /// A fact that says nothing new takes the place of the one before it, and leaves its position where it was.
    fn apply(&mut self, at: Position, presence: &Arc<Presence>) {
        if at <= self.loaded {
            return;
        }
        let mut place = at;
        if let Some((known, old)) = self.users.get(&presence.user_id) {
            if is_no_news(old, presence) {
                place = *known;
            }
            self.by_position.remove(known);
        }
        self.by_position.insert(place, Arc::clone(presence));
        self.insert(place, presence);
        self.keep_few(None);
    }

    fn insert(&mut self, place: Position, presence: &Arc<Presence>) {
        self.load.bytes += bytes_of(presence);
        if let Some((_, old)) = self.users.insert(presence.user_id.clone(), (place, Arc::clone(presence))) {
            self.load.bytes -= bytes_of(&old);
        }
    }

    /// Forgets those who are offline, but this user, where all take too much. Those who are online are never forgotten:
    /// that would read as if they were offline.
    fn keep_few(&mut self, kept: Option<&UserId>) {
        if !self.load.is_due() {
            return;
        }
        let stays = |presence: &Presence| {
            presence.state != PresenceState::Offline || kept.is_some_and(|kept| presence.user_id == kept)
        };
        self.users.retain(|_, (_, presence)| stays(presence));
        let mut forgotten = self.forgotten;
        self.by_position.retain(|at, presence| {
            let stays = stays(presence);
            forgotten = if stays { forgotten } else { forgotten.max(*at) };
            stays
        });
        self.forgotten = forgotten;
        self.load.looked_through(self.users.values().map(|(_, presence)| bytes_of(presence)).sum());
    }

    fn new(limit: u64) -> Self {
        Self {
            load: Load::new(limit),
            users: HashMap::new(),
            by_position: BTreeMap::new(),
            loaded: Position::default(),
            forgotten: Position::default(),
        }
    }
}

fn bytes_of(presence: &Presence) -> u64 {
    (USER_BYTES + presence.user_id.as_str().len() + presence.bytes()) as u64
}

impl Weighed for PresenceCache {
    fn weight(&self) -> CacheWeight {
        self.cached.read().load.weight("presence")
    }
}

/// Whether clients that know `old` still know all there is to know. As long as somebody is active it need not be sent
/// again and again: <https://spec.matrix.org/v1.19/client-server-api/#last-active-ago>
fn is_no_news(old: &Presence, new: &Presence) -> bool {
    old.state == new.state
        && old.status_msg == new.status_msg
        && millis_between(old.last_active, new.last_active) <= u64::try_from(ACTIVE.as_millis()).unwrap_or(u64::MAX)
}

impl Reader for PresenceCache {
    fn read(&self, batch: &Batch) {
        for (at, news) in batch.entries() {
            if let News::Presence(presence) = news {
                self.cached.write().apply(at, presence);
            }
        }
    }
}

impl PresenceCache {
    pub(crate) fn new(sizes: &CacheSizes) -> Self {
        Self { cached: RwLock::new(CachedPresence::new(sizes.presence)) }
    }

    /// Takes those who were not offline at `position`, as the database had it, and what has happened since.
    pub(super) fn load(&self, position: Position, present: Vec<(Position, Presence)>, missed: &[Arc<Batch>]) {
        let limit = self.cached.read().load.limit();
        let mut cached = CachedPresence::new(limit);
        for (at, presence) in present {
            cached.apply(at, &Arc::new(presence));
        }
        // From here on entries up to it are no news: they were read.
        cached.loaded = position;
        for (at, news) in missed.iter().flat_map(|batch| batch.entries()) {
            if let News::Presence(presence) = news {
                cached.apply(at, presence);
            }
        }
        *self.cached.write() = cached;
    }

    /// A user's presence. None for somebody who is offline, unless that is remembered.
    pub(super) fn find(&self, user_id: &UserId) -> Option<Arc<Presence>> {
        self.cached.read().users.get(user_id).map(|(_, presence)| Arc::clone(presence))
    }

    /// Takes what the database has of somebody who is not remembered, because they were offline all the time.
    pub(super) fn remember(&self, at: Position, presence: &Arc<Presence>) {
        let mut cached = self.cached.write();
        // A newer one may have come from the log meanwhile.
        if !cached.users.contains_key(&presence.user_id) {
            cached.insert(at, presence);
            cached.keep_few(Some(&presence.user_id));
        }
    }

    /// Whether the presence that was written at a place is sent to clients, as far as that is remembered.
    pub(crate) fn is_news(&self, at: Position) -> bool {
        let cached = self.cached.read();
        at <= cached.forgotten || cached.by_position.contains_key(&at)
    }

    /// Those who are not offline.
    pub(super) fn list_present(&self) -> Vec<Arc<Presence>> {
        let cached = self.cached.read();
        let all = cached.users.values().map(|(_, presence)| presence);
        all.filter(|presence| presence.state != PresenceState::Offline).cloned().collect()
    }

    /// What was set after `after`, up to `until`, for the users whom `concerns` picks, if all of it is remembered. From
    /// the start of the log that is everybody who is not offline. This node has followed the log since `began`.
    pub(super) fn between(
        &self,
        after: Position,
        until: Position,
        began: Position,
        concerns: impl Fn(&UserId) -> bool,
    ) -> Option<Vec<Arc<Presence>>> {
        let cached = self.cached.read();
        let first = after == Position::START;
        // From the start of the log, those who are not offline are all there is to say, and they are all here.
        if !first && after < began.max(cached.forgotten) {
            return None;
        }
        if after >= until {
            return Some(Vec::new());
        }
        let within = cached.by_position.range((Excluded(after), Included(until))).map(|(_, presence)| presence);
        let known = within.filter(|presence| !first || presence.state != PresenceState::Offline);
        Some(known.filter(|presence| concerns(&presence.user_id)).cloned().collect())
    }
}
