//! Who has had what they sent erased: held with the rooms, because it follows the log as they do. What comes of it for
//! readers is decided in `read/erasure.rs`.
//!
//! Its lock is held for one look or one change and taken last: under it no other is.

use std::collections::HashMap;

use parking_lot::RwLock;
use ruma::{OwnedUserId, UserId};

use crate::ground::position::Position;

/// Who has been erased, and from which place in the log on. It follows the log.
#[derive(Default)]
pub(in crate::room) struct Erasures(RwLock<HashMap<OwnedUserId, Position>>);

impl Erasures {
    pub(super) fn note(&self, user_id: &UserId, at: Position) {
        let mut erased = self.0.write();
        // The first counts, in whatever order they are read.
        let known = erased.entry(user_id.to_owned()).or_insert(at);
        *known = at.min(*known);
    }

    /// True on nearly all servers, for whom every read path is spared the rest.
    pub(in crate::room) fn is_empty(&self) -> bool {
        self.0.read().is_empty()
    }

    /// From which place in the log on. None for whoever was not erased.
    pub(in crate::room) fn find(&self, user_id: &UserId) -> Option<Position> {
        self.0.read().get(user_id).copied()
    }
}
