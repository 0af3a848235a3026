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
    ground::{
        position::Position,
        sizes::CacheSizes,
        weighed::{CacheWeight, Weighed},
    },
    log::Reader,
};

/// How many receipts of one room are remembered: the newest.
const ROOM_RECEIPTS: usize = 512;
/// What a room takes beside its receipts, and one of these beside its texts, in bytes.
const ROOM_BYTES: u64 = 320;
const RECEIPT_BYTES: usize = 320;

/// The receipts that this node remembers. It follows the log.
pub struct ReceiptCache {
    cached: RwLock<CachedReceipts>,
    limit: u64,
}

#[derive(Default)]
struct CachedReceipts {
    rooms: HashMap<OwnedRoomId, RoomReceipts>,
    /// What they take, in bytes.
    bytes: u64,
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
    /// What the receipts take.
    bytes: u64,
}

fn bytes_of(receipt: &Receipt) -> u64 {
    let Receipt { room_id, user_id, receipt_type, thread_id, event_id, .. } = receipt;
    let texts = [room_id.as_str(), user_id.as_str(), user_id.as_str(), receipt_type, thread_id, event_id.as_str()];
    (RECEIPT_BYTES + texts.map(str::len).iter().sum::<usize>()) as u64
}

impl Weighed for ReceiptCache {
    fn weight(&self) -> CacheWeight {
        CacheWeight { name: "receipts", bytes: self.cached.read().bytes, limit: self.limit }
    }
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
            if let Some(old) = self.by_position.remove(&place) {
                self.bytes -= bytes_of(&old);
            }
            places.retain(|at| *at != place);
        }
        places.push(at);
        self.bytes += bytes_of(receipt);
        if let Some(same) = self.by_position.insert(at, Arc::clone(receipt)) {
            self.bytes -= bytes_of(&same);
        }
        // What is older than those that stay is not known any more.
        if self.by_position.len() > ROOM_RECEIPTS {
            self.drop_oldest();
        }
    }

    /// Forgets the oldest receipt, and that this room is complete from before it.
    fn drop_oldest(&mut self) {
        let Some((place, oldest)) = self.by_position.pop_first() else { return };
        self.bytes -= bytes_of(&oldest);
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
                    let mut cached = self.cached.write();
                    // Of what was before it nothing is known here.
                    let new = || RoomReceipts { after: at.before(), ..RoomReceipts::default() };
                    let room = cached.rooms.remove(&receipt.room_id);
                    cached.bytes -= room.as_ref().map_or(0, RoomReceipts::weight);
                    let mut room = room.unwrap_or_else(new);
                    room.add(at, receipt);
                    cached.insert(&receipt.room_id, room);
                    cached.keep_few(at, self.limit);
                }
                // A new room has none: nobody need ask the database.
                News::Event(logged) if *logged.stored.pdu.kind() == TimelineEventType::RoomCreate => {
                    let pdu = &logged.stored.pdu;
                    if pdu.prev_events().is_empty() {
                        let mut cached = self.cached.write();
                        if !cached.rooms.contains_key(pdu.room_id()) {
                            cached.insert(pdu.room_id(), RoomReceipts::default());
                        }
                        cached.keep_few(at, self.limit);
                    }
                }
                _ => {}
            }
        }
    }
}

impl RoomReceipts {
    fn weight(&self) -> u64 {
        ROOM_BYTES + self.bytes
    }
}

impl CachedReceipts {
    /// Keeps a room in place of what may be there of it.
    fn insert(&mut self, room_id: &RoomId, room: RoomReceipts) {
        self.bytes += room.weight();
        if let Some(old) = self.rooms.insert(room_id.to_owned(), room) {
            self.bytes -= old.weight();
        }
    }

    /// Forgets rooms where they take too much: those without receipts, or else all.
    fn keep_few(&mut self, at: Position, limit: u64) {
        if self.bytes <= limit {
            return;
        }
        // That a room has had no receipt is known without it being here, as long as one asks for recent receipts.
        self.rooms.retain(|_, room| !room.by_position.is_empty());
        self.bytes = self.rooms.values().map(RoomReceipts::weight).sum();
        if self.bytes > limit / 2 {
            self.rooms.clear();
            self.bytes = 0;
            self.blank_after = at;
        }
    }
}

impl ReceiptCache {
    pub(in crate::ephemeral) fn new(sizes: &CacheSizes) -> Self {
        Self { cached: RwLock::default(), limit: sizes.receipts }
    }

    /// The receipts of a room that were set after `after`, up to `until`, if all of them are remembered. This node
    /// has followed the log since `began`.
    pub(super) fn between(
        &self,
        room_id: &RoomId,
        after: Position,
        until: Position,
        began: Position,
    ) -> Option<Vec<(Position, Arc<Receipt>)>> {
        let cached = self.cached.read();
        match cached.rooms.get(room_id) {
            Some(room) => (after >= room.after).then(|| room.between(after, until)),
            None => (after >= began.max(cached.blank_after)).then(Vec::new),
        }
    }

    /// A user's receipts in a room, if they are all remembered.
    pub(super) fn find_own(&self, user_id: &UserId, room_id: &RoomId) -> Option<Vec<Arc<Receipt>>> {
        let cached = self.cached.read();
        let room = cached.rooms.get(room_id).filter(|room| room.after == Position::START)?;
        let places = room.of_user.get(user_id).into_iter().flatten();
        Some(places.filter_map(|at| room.by_position.get(at)).cloned().collect())
    }

    /// Takes the receipts of a room as the database had them at `position`, and brings them up to date. Called while the
    /// log stands still.
    pub(super) fn remember(
        &self,
        room_id: &RoomId,
        position: Position,
        receipts: &[(Position, Arc<Receipt>)],
        missed: &[Arc<Batch>],
    ) {
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
        let mut cached = self.cached.write();
        // In place of what may be there: both are true, and this reaches back farther.
        cached.insert(room_id, room);
        cached.keep_few(missed.last().map_or(position, |batch| batch.last), self.limit);
    }

    /// Whether the user has already read as far as this receipt says, to this node's knowledge.
    pub(super) fn has(&self, receipt: &Receipt) -> bool {
        // What is not here may still be so in the database: then it is written for nothing.
        let cached = self.cached.read();
        let Some(room) = cached.rooms.get(&receipt.room_id) else { return false };
        let mine = room.of_user.get(&receipt.user_id).into_iter().flatten();
        mine.filter_map(|at| room.by_position.get(at)).any(|known| {
            known.receipt_type == receipt.receipt_type
                && known.thread_id == receipt.thread_id
                && known.event_order >= receipt.event_order
        })
    }
}
