//! The receipts in memory: the newest of each kind in the rooms in use, in the order of the log.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound::{Excluded, Included},
    sync::Arc,
};

use parking_lot::RwLock;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, events::TimelineEventType};

use crate::{
    fact::{Batch, News, Receipt},
    log::Reader,
    position::Position,
};

/// How many receipts of one room are remembered: the newest.
const ROOM_RECEIPTS: usize = 512;
/// How many rooms are remembered.
const KEPT_ROOMS: usize = 20_000;

/// The receipts that this node remembers. It follows the log.
#[derive(Default)]
pub struct Book(RwLock<Pages>);

#[derive(Default)]
struct Pages {
    rooms: HashMap<OwnedRoomId, Page>,
    /// A room without a page has had no receipt after this, as long as this node has followed the log.
    blank_after: Position,
}

/// The receipts of one room.
#[derive(Default)]
struct Page {
    /// Everything that was set after this is here, unless another has taken its place.
    after: Position,
    by_position: BTreeMap<Position, Arc<Receipt>>,
    /// Where the receipts of each user stand.
    of_user: HashMap<OwnedUserId, Vec<Position>>,
}

impl Page {
    /// Adds a receipt in place of the one that it replaces. One that is known already changes nothing.
    fn add(&mut self, at: Position, receipt: &Arc<Receipt>) {
        let places = self.of_user.entry(receipt.user_id.clone()).or_default();
        let replaced = places.iter().copied().find(|place| {
            self.by_position
                .get(place)
                .is_some_and(|old| old.receipt_type == receipt.receipt_type && old.thread_id == receipt.thread_id)
        });
        if replaced.is_some_and(|place| place >= at) {
            return;
        }
        if let Some(place) = replaced {
            self.by_position.remove(&place);
            places.retain(|at| *at != place);
        }
        places.push(at);
        self.by_position.insert(at, Arc::clone(receipt));
        if self.by_position.len() > ROOM_RECEIPTS {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((place, oldest)) = self.by_position.pop_first() else { return };
        self.after = self.after.max(place);
        if let Some(places) = self.of_user.get_mut(&oldest.user_id) {
            places.retain(|at| *at != place);
            if places.is_empty() {
                self.of_user.remove(&oldest.user_id);
            }
        }
    }

    fn between(&self, after: Position, until: Position) -> Vec<(Position, Arc<Receipt>)> {
        if after >= until {
            return Vec::new();
        }
        let within = self.by_position.range((Excluded(after), Included(until)));
        within.map(|(at, receipt)| (*at, Arc::clone(receipt))).collect()
    }
}

impl Reader for Book {
    fn read(&self, batch: &Batch) {
        for (at, news) in batch.entries() {
            match news {
                News::Receipt(receipt) => {
                    let mut pages = self.0.write();
                    let page = pages.rooms.entry(receipt.room_id.clone());
                    page.or_insert_with(|| Page { after: at.before(), ..Page::default() }).add(at, receipt);
                    pages.keep_few(at);
                }
                // A new room has none: nobody need ask the database.
                News::Event(logged) if *logged.stored.pdu.kind() == TimelineEventType::RoomCreate => {
                    let pdu = &logged.stored.pdu;
                    if pdu.prev_events().is_empty() {
                        let mut pages = self.0.write();
                        pages.rooms.entry(pdu.room_id().to_owned()).or_default();
                        pages.keep_few(at);
                    }
                }
                _ => {}
            }
        }
    }
}

impl Pages {
    fn keep_few(&mut self, at: Position) {
        if self.rooms.len() <= KEPT_ROOMS {
            return;
        }
        // That a page is blank can be told without it, as long as one asks for recent receipts.
        self.rooms.retain(|_, page| !page.by_position.is_empty());
        if self.rooms.len() > KEPT_ROOMS / 2 {
            self.rooms.clear();
            self.blank_after = at;
        }
    }
}

impl Book {
    /// The receipts of a room that were set after `after`, up to `until`, if all of them are remembered. This node
    /// has followed the log since `began`.
    pub(super) fn between(
        &self,
        room_id: &RoomId,
        after: Position,
        until: Position,
        began: Position,
    ) -> Option<Vec<(Position, Arc<Receipt>)>> {
        let pages = self.0.read();
        match pages.rooms.get(room_id) {
            Some(page) => (after >= page.after).then(|| page.between(after, until)),
            None => (after >= began.max(pages.blank_after)).then(Vec::new),
        }
    }

    /// A user's receipts in a room, if they are all remembered.
    pub(super) fn find_own(&self, user_id: &UserId, room_id: &RoomId) -> Option<Vec<Arc<Receipt>>> {
        let pages = self.0.read();
        let page = pages.rooms.get(room_id).filter(|page| page.after == Position::START)?;
        let places = page.of_user.get(user_id).into_iter().flatten();
        Some(places.filter_map(|at| page.by_position.get(at)).cloned().collect())
    }

    /// Takes the receipts of a room as the database had them, and brings them up to date.
    pub(super) fn remember(&self, room_id: &RoomId, receipts: &[(Position, Arc<Receipt>)], missed: &[Arc<Batch>]) {
        let mut page = Page::default();
        for (at, receipt) in receipts {
            page.add(*at, receipt);
        }
        for (at, news) in missed.iter().flat_map(|batch| batch.entries()) {
            if let News::Receipt(receipt) = news
                && receipt.room_id == room_id
            {
                page.add(at, receipt);
            }
        }
        self.0.write().rooms.insert(room_id.to_owned(), page);
    }

    /// Whether the user has already read as far as this receipt says, to this node's knowledge.
    pub(super) fn has(&self, receipt: &Receipt) -> bool {
        let pages = self.0.read();
        let Some(page) = pages.rooms.get(&receipt.room_id) else { return false };
        let mine = page.of_user.get(&receipt.user_id).into_iter().flatten();
        mine.filter_map(|at| page.by_position.get(at)).any(|known| {
            known.receipt_type == receipt.receipt_type
                && known.thread_id == receipt.thread_id
                && known.event_position >= receipt.event_position
        })
    }
}
