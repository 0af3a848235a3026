//! Cards in memory. They follow the log: what changes a room voids its card.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{OwnedRoomId, RoomId};

use super::card::{Card, KINDS};
use crate::{
    event::Logged,
    fact::{Batch, News},
    log::Reader,
    position::Position,
};

/// How many cards are remembered.
const KEPT: usize = 20_000;
/// How many changes are remembered while cards are read. Beyond it everything is forgotten.
const KEPT_CHANGES: usize = 100_000;

/// The cards that this node remembers.
pub(crate) struct Book {
    cards: Cache<OwnedRoomId, Arc<Card>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When a room last changed, of those that have changed since the beginning or the last forgetting.
    changed: HashMap<OwnedRoomId, Position>,
    /// Changes before this place are forgotten.
    forgotten: Position,
    published: Option<Arc<Vec<OwnedRoomId>>>,
    listing_changed: Position,
}

impl Default for Book {
    fn default() -> Self {
        Self { cards: Cache::new(KEPT), state: Mutex::default() }
    }
}

impl Reader for Book {
    fn read(&self, batch: &Batch) {
        for (at, news) in batch.entries() {
            match news {
                News::Event(logged) if concerns_card(logged) => {
                    let room_id = logged.stored.pdu.room_id();
                    let mut state = self.state.lock();
                    if state.changed.len() >= KEPT_CHANGES {
                        state.changed.clear();
                        state.forgotten = at;
                        self.cards.clear();
                    }
                    state.changed.insert(room_id.to_owned(), at);
                    self.cards.remove(room_id);
                }
                News::Listing { .. } => {
                    let mut state = self.state.lock();
                    state.published = None;
                    state.listing_changed = at;
                }
                _ => {}
            }
        }
    }
}

fn concerns_card(logged: &Logged) -> bool {
    let is_part = |kind: &str| kind == "m.room.member" || KINDS.contains(&kind);
    logged.changes.iter().any(|change| is_part(&change.kind))
        || logged.redacted.as_ref().is_some_and(|redacted| redacted.is_state())
}

impl Book {
    pub(super) fn find(&self, room_id: &RoomId) -> Option<Arc<Card>> {
        self.cards.get(room_id)
    }

    /// Keeps cards, but for those of rooms that have changed since they were read. Tells whether it kept all.
    pub(super) fn remember(&self, cards: &[Arc<Card>]) -> bool {
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

    pub(super) fn published(&self) -> Option<Arc<Vec<OwnedRoomId>>> {
        self.state.lock().published.clone()
    }

    pub(super) fn remember_published(&self, position: Position, published: Arc<Vec<OwnedRoomId>>) {
        let mut state = self.state.lock();
        if state.listing_changed <= position {
            state.published = Some(published);
        }
    }
}
