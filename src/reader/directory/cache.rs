//! Cards in memory. They follow the log: what changes a room voids its card.
//!
//! A card is read from the database in one snapshot and kept only if nothing has changed its room since that position.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use quick_cache::{Weighter, sync::Cache};
use ruma::{OwnedRoomId, RoomId};

use super::card::{KINDS, RoomCard};
use crate::{
    event::{
        Logged,
        fact::{Batch, News},
    },
    ground::{
        position::Position,
        sizes::CacheSizes,
        weighed::{self, CacheWeight, Weighed},
    },
    log::Reader,
};

/// About how many cards are remembered.
const KEPT: usize = 10_000;
const SHARDS: usize = 2;
/// What a room takes of which is remembered when it changed, beside its name, in bytes.
const CHANGE_BYTES: usize = 96;

/// The cards that this node remembers.
pub(crate) struct RoomCardCache {
    /// By room. Only touched under the lock of `state`, or to look one up.
    cards: Cache<OwnedRoomId, Arc<RoomCard>, ByBytes>,
    /// In bytes. A quarter of it is for changes, beyond which everything is forgotten.
    limit: u64,
    state: Mutex<CachedCards>,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<OwnedRoomId, Arc<RoomCard>> for ByBytes {
    fn weight(&self, _: &OwnedRoomId, card: &Arc<RoomCard>) -> u64 {
        card.bytes() as u64
    }
}

impl Weighed for RoomCardCache {
    fn weight(&self) -> CacheWeight {
        CacheWeight {
            name: "room_cards",
            bytes: self.cards.weight() + self.state.lock().changed_bytes,
            limit: self.limit,
        }
    }
}

#[derive(Default)]
struct CachedCards {
    /// When a room last changed, of those that have changed since the beginning or the last forgetting.
    changed: HashMap<OwnedRoomId, Position>,
    /// What these take.
    changed_bytes: u64,
    /// Changes before this place are forgotten.
    forgotten: Position,
    /// None where it has to be read again.
    published: Option<Arc<Vec<OwnedRoomId>>>,
    /// Where the directory last came to show a room, or to hide one.
    listing_changed: Position,
}

impl Reader for RoomCardCache {
    fn read(&self, batch: &Batch) {
        for (at, news) in batch.entries() {
            match news {
                // Voided under the lock under which cards are kept: none is kept that was read before the change.
                News::Event(logged) if concerns_card(logged) => self.note_change(logged.stored.pdu.room_id(), at),
                News::LateRedaction(late) if late.redacted.is_state() => self.note_change(late.redacted.room_id(), at),
                News::Listing(_) => {
                    let mut state = self.state.lock();
                    state.published = None;
                    state.listing_changed = at;
                }
                _ => {}
            }
        }
    }
}

/// Whether a card says something else after this event.
fn concerns_card(logged: &Logged) -> bool {
    // A card counts members, so every membership concerns it.
    let is_part = |kind: &str| kind == "m.room.member" || KINDS.contains(&kind);
    logged.changes.iter().any(|change| is_part(&change.kind))
        || logged.redacted.as_ref().is_some_and(|redacted| redacted.is_state())
}

impl RoomCardCache {
    pub(in crate::reader) fn new(sizes: &CacheSizes) -> Self {
        let (limit, state) = (sizes.room_cards, Mutex::default());
        Self { cards: weighed::by_bytes(KEPT, limit - limit / 4, SHARDS, ByBytes), limit, state }
    }

    fn note_change(&self, room_id: &RoomId, at: Position) {
        let mut state = self.state.lock();
        if state.changed_bytes > self.limit / 4 {
            // What has been forgotten may have changed a card that is being read: none is kept that is older than this.
            state.changed.clear();
            state.changed_bytes = 0;
            state.forgotten = at;
            self.cards.clear();
        }
        if state.changed.insert(room_id.to_owned(), at).is_none() {
            state.changed_bytes += (CHANGE_BYTES + room_id.as_str().len()) as u64;
        }
        self.cards.remove(room_id);
    }

    pub(super) fn find(&self, room_id: &RoomId) -> Option<Arc<RoomCard>> {
        self.cards.get(room_id)
    }

    /// Keeps cards, but for those of rooms that have changed since they were read. Returns whether it kept all.
    pub(super) fn remember(&self, cards: &[Arc<RoomCard>]) -> bool {
        let state = self.state.lock();
        let mut all = true;
        for card in cards {
            let changed = state.changed.get(card.room_id()).copied().unwrap_or_default().max(state.forgotten);
            if changed <= card.position {
                self.cards.insert(card.room_id().to_owned(), Arc::clone(card));
            } else {
                all = false;
            }
        }
        all
    }

    /// The rooms that the directory shows, in no order. None where the list has to be read.
    pub(super) fn published(&self) -> Option<Arc<Vec<OwnedRoomId>>> {
        self.state.lock().published.clone()
    }

    /// Keeps the list that was read at `position`, unless it has changed since.
    pub(super) fn remember_published(&self, position: Position, published: Arc<Vec<OwnedRoomId>>) {
        let mut state = self.state.lock();
        if state.listing_changed <= position {
            state.published = Some(published);
        }
    }
}
