//! Who is typing, in memory: everybody who has not stopped, in every room.

use std::collections::{BTreeMap, HashMap};

use parking_lot::RwLock;
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedUserId, RoomId, UserId, events::room::member::MembershipState,
};
use tokio::sync::Notify;

use crate::{
    event::Logged,
    fact::{Batch, News, Typing},
    log::Reader,
    position::Position,
    store::membership::Membership,
};

/// How many rooms are remembered.
const KEPT_ROOMS: usize = 20_000;

/// Who is typing where. It follows the log.
#[derive(Default)]
pub struct Book {
    pages: RwLock<Pages>,
    /// Rung when somebody begins to type.
    begun: Notify,
}

#[derive(Default)]
struct Pages {
    rooms: HashMap<OwnedRoomId, Page>,
    /// Everything up to here was part of what was read from the database.
    loaded: Position,
    /// Where there is no page, nobody has typed after this, as long as this node has followed the log.
    blank_after: Position,
}

/// The typists of one room, each until when.
#[derive(Default)]
struct Page {
    typists: BTreeMap<OwnedUserId, MilliSecondsSinceUnixEpoch>,
    /// When somebody last began or stopped.
    changed: Position,
}

/// What the book knows of a room since some place in the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Since {
    Unchanged,
    /// These have begun and not stopped.
    Changed(Vec<OwnedUserId>),
    /// That was before this node began to follow the log. Nobody is typing now.
    Unknown,
}

impl Page {
    fn apply(&mut self, at: Position, typing: &Typing) {
        let changed = match typing.until {
            // Somebody who goes on typing is no news.
            Some(until) => self.typists.insert(typing.user_id.clone(), until).is_none(),
            None => self.typists.remove(&typing.user_id).is_some(),
        };
        if changed {
            self.changed = at;
        }
    }
}

impl Pages {
    fn apply(&mut self, at: Position, typing: &Typing) {
        if at <= self.loaded {
            return;
        }
        match self.rooms.get_mut(&typing.room_id) {
            Some(page) => page.apply(at, typing),
            None if typing.until.is_some() => {
                self.rooms.entry(typing.room_id.clone()).or_default().apply(at, typing);
                self.keep_few(at);
            }
            None => {}
        }
    }

    /// Whoever is in a room no more does not type there, either.
    fn follow(&mut self, at: Position, logged: &Logged) {
        let room_id = logged.stored.pdu.room_id();
        for membership in logged.changes.iter().filter_map(|change| Membership::of(change, room_id, at)) {
            if membership.state != MembershipState::Join {
                let (room_id, user_id) = (room_id.to_owned(), membership.user_id.to_owned());
                self.apply(at, &Typing { room_id, user_id, until: None });
            }
        }
    }

    /// Takes an entry of the log.
    fn read(&mut self, at: Position, news: &News) {
        match news {
            News::Typing(typing) => self.apply(at, typing),
            News::Event(logged) => self.follow(at, logged),
            _ => {}
        }
    }

    fn keep_few(&mut self, at: Position) {
        if self.rooms.len() > KEPT_ROOMS {
            self.rooms.retain(|_, page| !page.typists.is_empty());
            self.blank_after = at;
        }
    }
}

impl Reader for Book {
    fn read(&self, batch: &Batch) {
        for (at, news) in batch.entries() {
            let concerns = match news {
                News::Typing(_) => true,
                News::Event(logged) => !logged.changes.is_empty(),
                _ => false,
            };
            if !concerns {
                continue;
            }
            self.pages.write().read(at, news);
            if matches!(news, News::Typing(typing) if typing.until.is_some()) {
                self.begun.notify_one();
            }
        }
    }
}

impl Book {
    /// Takes those who were typing at `position`, as the database had it, and what has happened since.
    pub(super) fn load(&self, position: Position, typists: &[(Position, Typing)], missed: &[std::sync::Arc<Batch>]) {
        let mut pages = Pages { blank_after: self.pages.read().blank_after, ..Pages::default() };
        for (at, typing) in typists {
            pages.apply(*at, typing);
        }
        pages.loaded = position;
        for (at, news) in missed.iter().flat_map(|batch| batch.entries()) {
            pages.read(at, news);
        }
        *self.pages.write() = pages;
        self.begun.notify_one();
    }

    /// Who types in a room, if that has changed after `after`, up to `until`. Those whose time is up by `now` have
    /// stopped, though the log does not say so yet. This node has followed the log since `began`.
    pub(super) fn since(
        &self,
        room_id: &RoomId,
        (after, until): (Position, Position),
        now: MilliSecondsSinceUnixEpoch,
        began: Position,
    ) -> Since {
        let pages = self.pages.read();
        // Before this node began, somebody may have stopped of whom there is no trace here.
        let is_recent = after >= began.max(pages.blank_after);
        let Some(page) = pages.rooms.get(room_id) else {
            return if is_recent || after == Position::START { Since::Unchanged } else { Since::Unknown };
        };
        if page.changed > until || (is_recent && page.changed <= after) {
            return Since::Unchanged;
        }
        let typists: Vec<_> =
            page.typists.iter().filter(|(_, until)| **until > now).map(|(user, _)| user.clone()).collect();
        if typists.is_empty() && after == Position::START { Since::Unchanged } else { Since::Changed(typists) }
    }

    /// Until when somebody types in a room, as the log has it.
    pub(super) fn find(&self, room_id: &RoomId, user_id: &UserId) -> Option<MilliSecondsSinceUnixEpoch> {
        self.pages.read().rooms.get(room_id)?.typists.get(user_id).copied()
    }

    /// Those whose time is up by then.
    pub(super) fn list_due(&self, by: MilliSecondsSinceUnixEpoch) -> Vec<Typing> {
        let pages = self.pages.read();
        let typists = pages.rooms.iter().flat_map(|(room, page)| page.typists.iter().map(move |entry| (room, entry)));
        let due = typists.filter(|(_, (_, until))| **until <= by).map(|(room_id, (user_id, until))| Typing {
            room_id: room_id.clone(),
            user_id: user_id.clone(),
            until: Some(*until),
        });
        due.collect()
    }

    /// When the next one's time is up, if anybody is typing.
    pub(super) fn find_next_expiry(&self) -> Option<MilliSecondsSinceUnixEpoch> {
        self.pages.read().rooms.values().flat_map(|page| page.typists.values()).min().copied()
    }

    /// Returns when somebody has begun to type.
    pub(super) async fn begun(&self) {
        self.begun.notified().await;
    }
}
