//! How a state that is not the trunk's is stored: as the difference from one that is there already.
//!
//! Differences stay small: one that outgrows its bounds is stored whole once, as a line of its own, and the
//! events that follow on that side of the fork differ little from it.

use super::{Room, Rooms, State, state_at};
use crate::{
    error::Result,
    event::Stored,
    fact::{Fork, ForkBase},
    position::{Lineage, Position},
    store,
};

/// A difference may have this many keys, or an eighth of the state's.
const FEW: usize = if cfg!(test) { 3 } else { 256 };

impl Rooms {
    /// The state before an event that follows `prev`, if it is not the trunk's just before it.
    pub(super) async fn fork_of(
        &self,
        room: &Room,
        trunk: &State,
        before: &State,
        prev: &[Stored],
    ) -> Result<Option<Fork>> {
        let most = FEW.max(before.len() / 8);
        let changes = trunk.changes_to(before);
        if changes.is_empty() {
            return Ok(None);
        }
        if changes.len() <= most {
            return Ok(Some(Fork { base: ForkBase::Trunk, changes }));
        }
        for event in prev {
            let (line, at) = self.base_of(room, event).await?;
            let base = state_at::load(&mut self.0.db.read().await?, line, at).await?;
            let changes = base.changes_to(before);
            if changes.len() <= most {
                return Ok(Some(Fork { base: ForkBase::Line(line, at), changes }));
            }
        }
        Ok(Some(Fork { base: ForkBase::Nothing, changes: State::default().changes_to(before) }))
    }

    /// What the state before an event is told by its difference from.
    async fn base_of(&self, room: &Room, event: &Stored) -> Result<(Lineage, Position)> {
        if let Some(fork) = event.fork
            && let Some((line, base, _)) = store::state::find_fork(&mut self.0.db.read().await?, fork).await?
        {
            return Ok((line, base));
        }
        Ok((room.view(|view| view.trunk), event.position.before()))
    }
}
