//! The receipts in memory: the newest of each kind in the rooms in use, in the order of the log.
//!
//! It is a cache of the newest only. For each room it knows from which position on it is complete; whoever asks for
//! what was before is answered from the database.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound::{Excluded, Included},
    sync::Arc,
};

use parking_lot::RwLock;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, events::TimelineEventType};

use crate::{
    event::fact::{Batch, News, Receipt},
    ground::position::Position,
    log::Reader,
};

/// How many receipts of one room are remembered: the newest.
const ROOM_RECEIPTS: usize = 512;
/// How many rooms are remembered.
const KEPT_ROOMS: usize = 20_000;

/// The receipts that this node remembers. It follows the log.
#[derive(Default)]
pub struct ReceiptCache(RwLock<CachedReceipts>);

#[derive(Default)]
struct CachedReceipts {
    rooms: HashMap<OwnedRoomId, RoomReceipts>,
    /// A room that is not here has had no receipt after this, as long as this node has followed the log.
    blank_after: Position,
}

/// The receipts of one room.
#[derive(Default)]
struct RoomReceipts {
    /// Everything that was set after this is here, unless another has taken its place.
    after: Position,
    /// In the order of the log.
    by_position: BTreeMap<Position, Arc<Receipt>>,
    /// Where the receipts of each user stand.
    of_user: HashMap<OwnedUserId, Vec<Position>>,
}

impl RoomReceipts {
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
        // What is older than those that stay is not known any more.
        if self.by_position.len() > ROOM_RECEIPTS {
            self.drop_oldest();
        }
    }

    /// Forgets the oldest receipt, and that this room is complete from before it.
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

    /// The receipts in a stretch of the log that are here.
    fn between(&self, after: Position, until: Position) -> Vec<(Position, Arc<Receipt>)> {
        if after >= until {
            return Vec::new();
        }
        let within = self.by_position.range((Excluded(after), Included(until)));
        within.map(|(at, receipt)| (*at, Arc::clone(receipt))).collect()
    }
}

impl Reader for ReceiptCache {
    fn read(&self, batch: &Batch) {
        for (at, news) in batch.entries() {
            match news {
                News::Receipt(receipt) => {
                    let mut cached = self.0.write();
                    let room = cached.rooms.entry(receipt.room_id.clone());
                    // Of what was before it nothing is known here.
                    room.or_insert_with(|| RoomReceipts { after: at.before(), ..RoomReceipts::default() })
                        .add(at, receipt);
                    cached.keep_few(at);
                }
                // A new room has none: nobody need ask the database.
                News::Event(logged) if *logged.stored.pdu.kind() == TimelineEventType::RoomCreate => {
                    let pdu = &logged.stored.pdu;
                    if pdu.prev_events().is_empty() {
                        let mut cached = self.0.write();
                        cached.rooms.entry(pdu.room_id().to_owned()).or_default();
                        cached.keep_few(at);
                    }
                }
                _ => {}
            }
        }
    }
}

impl CachedReceipts {
    /// Forgets rooms where there are too many: those without receipts, or else all.
    fn keep_few(&mut self, at: Position) {
        if self.rooms.len() <= KEPT_ROOMS {
            return;
        }
        // That a room has had no receipt is known without it being here, as long as one asks for recent receipts.
        self.rooms.retain(|_, room| !room.by_position.is_empty());
        if self.rooms.len() > KEPT_ROOMS / 2 {
            self.rooms.clear();
            self.blank_after = at;
        }
    }
}

impl ReceiptCache {
    /// The receipts of a room that were set after `after`, up to `until`, if all of them are remembered. This node
    /// has followed the log since `began`.
    pub(super) fn between(
        &self,
        room_id: &RoomId,
        after: Position,
        until: Position,
        began: Position,
    ) -> Option<Vec<(Position, Arc<Receipt>)>> {
        let cached = self.0.read();
        match cached.rooms.get(room_id) {
            Some(room) => (after >= room.after).then(|| room.between(after, until)),
            None => (after >= began.max(cached.blank_after)).then(Vec::new),
        }
    }

    /// A user's receipts in a room, if they are all remembered.
    pub(super) fn find_own(&self, user_id: &UserId, room_id: &RoomId) -> Option<Vec<Arc<Receipt>>> {
        let cached = self.0.read();
        let room = cached.rooms.get(room_id).filter(|room| room.after == Position::START)?;
        let places = room.of_user.get(user_id).into_iter().flatten();
        Some(places.filter_map(|at| room.by_position.get(at)).cloned().collect())
    }

    /// Takes the receipts of a room as the database had them, and brings them up to date.
    pub(super) fn remember(&self, room_id: &RoomId, receipts: &[(Position, Arc<Receipt>)], missed: &[Arc<Batch>]) {
        let mut room = RoomReceipts::default();
        for (at, receipt) in receipts {
            room.add(*at, receipt);
        }
        for (at, news) in missed.iter().flat_map(|batch| batch.entries()) {
            if let News::Receipt(receipt) = news
                && receipt.room_id == room_id
            {
                room.add(at, receipt);
            }
        }
        // In place of what may be there: both are true, and this reaches back farther.
        self.0.write().rooms.insert(room_id.to_owned(), room);
    }

    /// Whether the user has already read as far as this receipt says, to this node's knowledge.
    pub(super) fn has(&self, receipt: &Receipt) -> bool {
        // What is not here may still be so in the database: then it is written for nothing.
        let cached = self.0.read();
        let Some(room) = cached.rooms.get(&receipt.room_id) else { return false };
        let mine = room.of_user.get(&receipt.user_id).into_iter().flatten();
        mine.filter_map(|at| room.by_position.get(at)).any(|known| {
            known.receipt_type == receipt.receipt_type
                && known.thread_id == receipt.thread_id
                && known.event_order >= receipt.event_order
        })
    }
}
