//! How a state that is not the trunk's is stored: as the difference from one that is there already.
//!
//! Differences stay small: one that outgrows its bounds is stored whole once, as a line of its own, and the
//! events that follow on that side of the fork differ little from it.

use super::{load, room::Room, rooms::Rooms, state::State};
use crate::{
    error::Result,
    event::{
        Stored,
        fact::{Fork, ForkBase},
    },
    ground::position::{Lineage, Order},
    store,
};

impl Rooms {
    /// The state before an event that follows `prev`, if it is not the trunk's just before it. `prev` are the events
    /// that it follows, whose own states are likely bases: of those in the log, since history may move, and what the trunk
    /// is where it stood changes then. Called without the room's lock: it reads.
    pub(super) async fn fork_of(
        &self,
        room: &Room,
        trunk: &State,
        before: &State,
        prev: &[Stored],
    ) -> Result<Option<Fork>> {
        // In keys. In a large room a larger difference is still cheap compared with the whole.
        let most = self.0.state_difference.max(before.len() / 8);
        let changes = trunk.changes_to(before);
        if changes.is_empty() {
            return Ok(None);
        }
        if changes.len() <= most {
            return Ok(Some(Fork { base: ForkBase::Trunk, changes }));
        }
        for event in prev.iter().filter(|event| event.key.is_of_log()) {
            let (line, at) = self.base_of(room, event).await?;
            let base = load::state_beside(&mut self.0.db.read().await?, line, at, before).await?;
            let changes = base.changes_to(before);
            if changes.len() <= most {
                return Ok(Some(Fork { base: ForkBase::Line(line, at), changes }));
            }
        }
        Ok(Some(Fork { base: ForkBase::Nothing, changes: State::default().changes_to(before) }))
    }

    /// What the state before an event is stored as the difference from. The line and the place on it. Of an event
    /// without a fork that is the trunk just before the event.
    async fn base_of(&self, room: &Room, event: &Stored) -> Result<(Lineage, Order)> {
        if let Some(fork) = event.fork
            && let Some((line, base, _)) = store::state::find_fork(&mut self.0.db.read().await?, fork).await?
        {
            return Ok((line, base));
        }
        Ok((room.view(|view| view.trunk), event.order.before()))
    }
}
