//! Presence in memory: everybody who is not offline, and whoever has changed since this node began.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound::{Excluded, Included},
    sync::Arc,
};

use parking_lot::RwLock;
use ruma::{OwnedUserId, UserId, presence::PresenceState};

use super::{ACTIVE, millis_between};
use crate::{
    fact::{Batch, News, Presence},
    log::Reader,
    position::Position,
};

/// How many users are remembered before those who are offline are forgotten.
const KEPT_USERS: usize = 50_000;

/// The presence that this node remembers. It follows the log.
#[derive(Default)]
pub struct Book(RwLock<Pages>);

#[derive(Default)]
struct Pages {
    /// With the place where clients are told of it.
    users: HashMap<OwnedUserId, (Position, Arc<Presence>)>,
    by_position: BTreeMap<Position, Arc<Presence>>,
    /// Everything up to here was part of what was read from the database.
    loaded: Position,
    /// Changes up to here are not all remembered.
    forgotten: Position,
}

impl Pages {
    fn apply(&mut self, at: Position, presence: &Arc<Presence>) {
        if at <= self.loaded {
            return;
        }
        let mut place = at;
        if let Some((told, old)) = self.users.get(&presence.user_id) {
            if is_no_news(old, presence) {
                place = *told;
            }
            self.by_position.remove(told);
        }
        self.by_position.insert(place, Arc::clone(presence));
        self.users.insert(presence.user_id.clone(), (place, Arc::clone(presence)));
        if self.users.len() > KEPT_USERS {
            self.users.retain(|_, (_, presence)| presence.state != PresenceState::Offline);
            self.by_position.retain(|_, presence| presence.state != PresenceState::Offline);
            self.forgotten = at;
        }
    }
}

/// Whether clients that were told `old` still know all there is to know. As long as somebody is active they need
/// not be told again and again: <https://spec.matrix.org/v1.19/client-server-api/#last-active-ago>
fn is_no_news(old: &Presence, new: &Presence) -> bool {
    old.state == new.state
        && old.status_msg == new.status_msg
        && millis_between(old.last_active, new.last_active) <= u64::try_from(ACTIVE.as_millis()).unwrap_or(u64::MAX)
}

impl Reader for Book {
    fn read(&self, batch: &Batch) {
        for (at, news) in batch.entries() {
            if let News::Presence(presence) = news {
                self.0.write().apply(at, presence);
            }
        }
    }
}

impl Book {
    /// Takes those who were not offline at `position`, as the database had it, and what has happened since.
    pub(super) fn load(&self, position: Position, present: Vec<(Position, Presence)>, missed: &[Arc<Batch>]) {
        let mut pages = Pages::default();
        for (at, presence) in present {
            pages.apply(at, &Arc::new(presence));
        }
        pages.loaded = position;
        for (at, news) in missed.iter().flat_map(|batch| batch.entries()) {
            if let News::Presence(presence) = news {
                pages.apply(at, presence);
            }
        }
        *self.0.write() = pages;
    }

    /// A user's presence. None for somebody who is offline, unless that is remembered.
    pub(super) fn find(&self, user_id: &UserId) -> Option<Arc<Presence>> {
        self.0.read().users.get(user_id).map(|(_, presence)| Arc::clone(presence))
    }

    /// Takes what the database has of somebody who is not remembered, because they were offline all the time.
    pub(super) fn remember(&self, at: Position, presence: &Arc<Presence>) {
        let mut pages = self.0.write();
        pages.users.entry(presence.user_id.clone()).or_insert_with(|| (at, Arc::clone(presence)));
    }

    /// Whether clients are told of the presence that was written at a place, as far as that is remembered.
    pub(crate) fn is_news(&self, at: Position) -> bool {
        let pages = self.0.read();
        at <= pages.forgotten || pages.by_position.contains_key(&at)
    }

    /// Those who are not offline.
    pub(super) fn list_present(&self) -> Vec<Arc<Presence>> {
        let pages = self.0.read();
        let all = pages.users.values().map(|(_, presence)| presence);
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
        let pages = self.0.read();
        let first = after == Position::START;
        if !first && after < began.max(pages.forgotten) {
            return None;
        }
        if after >= until {
            return Some(Vec::new());
        }
        let within = pages.by_position.range((Excluded(after), Included(until))).map(|(_, presence)| presence);
        let told = within.filter(|presence| !first || presence.state != PresenceState::Offline);
        Some(told.filter(|presence| concerns(&presence.user_id)).cloned().collect())
    }
}
