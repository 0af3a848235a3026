//! What a room's next event is built on: what has been committed, or what is on its way to the database.

use std::{collections::VecDeque, sync::Arc};

use ruma::room_version_rules::RoomVersionRules;

use super::{state::State, view::View};
use crate::event::{Pdu, fact::RoomHead};

/// How many of the events that were built last are remembered.
pub(super) const RECENT: usize = 64;

/// What the next event of a room is built on. A copy that shares its state with others: whoever plans may keep it.
#[derive(Clone, Debug)]
pub struct Head {
    pub room: RoomHead,
    pub rules: &'static RoomVersionRules,
    pub state: State,
}

impl Head {
    /// What has been committed.
    pub(in crate::room) fn of(view: &View) -> Self {
        Self { room: view.head.clone(), rules: view.rules, state: view.state.clone() }
    }
}

/// The head with everything that is on its way to the database. Under the room's lock. It is an optimisation: without
/// it every event would wait for the commit of the one before. Right or wrong, what is built on it is compared with the
/// database's head when it is written.
#[derive(Default)]
pub struct PendingHead {
    /// None where nothing was built since it was last dropped. It may also be behind the view, when another node wrote.
    pub(in crate::room) head: Option<Head>,
    /// Counts how often the head was dropped, so that a failed write drops only what was built on it.
    pub(in crate::room) generation: u64,
    /// What was built last on this node, newest last. The view need not have it yet.
    recent: VecDeque<Arc<Pdu>>,
}

impl PendingHead {
    /// Remembers an event that is on its way.
    pub(super) fn note(&mut self, pdu: &Arc<Pdu>) {
        self.recent.push_back(Arc::clone(pdu));
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }

    /// What was built last, newest first.
    pub(super) fn recent(&self) -> impl Iterator<Item = &Pdu> {
        self.recent.iter().rev().map(|pdu| &**pdu)
    }

    /// Drops the head: what comes next is built on what has been committed. What was built on it and is still on its
    /// way is refused by the judge as stale.
    pub(super) fn forget(&mut self) {
        self.head = None;
        self.recent.clear();
        self.generation += 1;
    }
}
