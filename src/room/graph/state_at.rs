//! The state of a room at an earlier place: undone from the view, or read from the trunk and its forks.
//!
//! The nearest source is taken: the view's memory, which undoes its latest changes, then the present state with what
//! has changed since read from the database and undone, and only for a line that is not the room's own, the whole
//! state. `at` is always just after the event at that place.
//!
//! What belongs together is taken from a room's view in one look: it moves on with the log, and two looks may be of two
//! moments.

use std::{collections::HashMap, sync::Arc};

use super::{load, room::Room, rooms::Rooms, state::State};
use crate::{
    error::Result,
    event::{Pdu, Standing, StateChange, Stored},
    ground::position::{EventKey, Order},
    store::{self, state::KeyAt},
};

impl Rooms {
    /// The state just after everything up to `at`, on the room's own line. After the newest event it is the present
    /// state. Before the first one it is empty.
    pub async fn state_at(&self, room: &Room, at: Order) -> Result<State> {
        let (remembered, trunk) = room.view(|view| (view.state_at(at), view.trunk));
        if let Some(state) = remembered {
            return Ok(state);
        }
        // The present, with what has changed since undone: that alone is read.
        let (mut state, now) = room.view(|view| (view.state.clone(), Order::at(view.position)));
        let mut conn = self.0.db.read().await?;
        let before = store::state::list_before_changes(&mut conn, trunk, at, now).await?;
        let places: Vec<i64> = before.iter().filter_map(|key| key.event).map(|place| place.0).collect();
        let mut events = store::event::list_pdus_at(&mut conn, &places).await?;
        for KeyAt { kind, state_key, event } in before {
            state.apply(&StateChange { kind, state_key, event: event.and_then(|place| events.remove(&place)) });
        }
        Ok(state)
    }

    /// The event at one key just after `at`, on the room's own line.
    pub async fn state_event_at(
        &self,
        room: &Room,
        at: Order,
        kind: &str,
        state_key: &str,
    ) -> Result<Option<Arc<Pdu>>> {
        let (remembered, trunk) = room.view(|view| (view.state_at(at), view.trunk));
        if let Some(state) = remembered {
            return Ok(state.get(kind, state_key).cloned());
        }
        let found = store::state::find_at(&mut self.0.db.read().await?, trunk, kind, state_key, at).await?;
        Ok(found.map(|stored| stored.pdu))
    }

    /// The events that some keys of one type have just after `at`, on the room's own line. Keys that held nothing are
    /// missing, and the order is not that of the keys.
    pub async fn list_state_events_at(
        &self,
        room: &Room,
        at: Order,
        kind: &str,
        state_keys: &[&str],
    ) -> Result<Vec<Arc<Pdu>>> {
        let (remembered, trunk) = room.view(|view| (view.state_at(at), view.trunk));
        if let Some(state) = remembered {
            return Ok(state_keys.iter().filter_map(|key| state.get(kind, key).cloned()).collect());
        }
        let found = store::state::list_keys_at(&mut self.0.db.read().await?, trunk, kind, state_keys, at).await?;
        Ok(found.into_iter().map(|stored| stored.pdu).collect())
    }

    /// The state that an event saw: before it, with what its fork has different from the trunk. At most one connection
    /// is held at a time.
    pub async fn state_before(&self, room: &Room, event: &Stored) -> Result<State> {
        let Some(fork) = event.fork else { return self.state_at(room, event.order.before()).await };
        let mut conn = self.0.db.read().await?;
        let Some((line, base, changes)) = store::state::find_fork(&mut conn, fork).await? else {
            drop(conn);
            return self.state_at(room, event.order.before()).await;
        };
        let places: Vec<i64> = changes.values().filter_map(|place| place.map(|at| at.0)).collect();
        let events = store::event::list_pdus_at(&mut conn, &places).await?;
        let (trunk, near) = room.view(|view| (view.trunk, view.state.clone()));
        let mut state = if line == trunk {
            drop(conn);
            self.state_at(room, base).await?
        } else {
            load::state_beside(&mut conn, line, base, &near).await?
        };
        for ((kind, state_key), place) in changes {
            let event = place.and_then(|at| events.get(&at).cloned());
            state.apply(&StateChange { kind, state_key, event });
        }
        Ok(state)
    }

    /// The state that an event left behind: what it saw, and its own doing unless it was rejected. Of a soft-failed
    /// event too: later ones may have been built on it.
    pub async fn state_after(&self, room: &Room, event: &Stored) -> Result<State> {
        let mut state = self.state_before(room, event).await?;
        if event.pdu.is_state() && event.standing != Standing::Rejected {
            state.insert(Arc::clone(&event.pdu));
        }
        Ok(state)
    }

    /// What changed after `after` and has become what at `until`, each key once. A key that lost its event is in it
    /// without one. A key that changed back is in it too.
    pub async fn list_changes(&self, room: &Room, after: Order, until: Order) -> Result<Vec<StateChange>> {
        let (remembered, trunk) = room.view(|view| (view.changed(after, until), view.trunk));
        if let Some(changes) = remembered {
            return Ok(changes);
        }
        let mut conn = self.0.db.read().await?;
        let mut last = HashMap::new();
        for (_, key) in store::state::changes_between(&mut conn, trunk, after, until).await? {
            last.insert((key.kind, key.state_key), key.event);
        }
        let places: Vec<i64> = last.values().flatten().map(|at| at.0).collect();
        let found = store::event::list_at(&mut conn, &places).await?;
        let events: HashMap<EventKey, Arc<Pdu>> = found.into_iter().map(|event| (event.key, event.pdu)).collect();
        let change = |((kind, state_key), at): (_, Option<EventKey>)| StateChange {
            kind,
            state_key,
            event: at.and_then(|at| events.get(&at).cloned()),
        };
        Ok(last.into_iter().map(change).collect())
    }

    /// The newest accepted events after `after` up to `until`, oldest first, `most` of them, and whether
    /// there are more. One event more is read than wanted, to know of further ones.
    pub async fn newest(
        &self,
        room: &Room,
        after: Order,
        until: Order,
        most: usize,
    ) -> Result<(Vec<Arc<Stored>>, bool)> {
        let (remembered, room_id) = room.view(|view| (view.timeline(after, until, most), view.room_id.clone()));
        if let Some(found) = remembered {
            return Ok(found);
        }
        let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
        let mut conn = self.0.db.read().await?;
        let mut events = store::event::list_backward(&mut conn, &room_id, until, after, limit).await?;
        let more = events.len() > most;
        events.truncate(most);
        events.reverse();
        Ok((events.into_iter().map(Arc::new).collect(), more))
    }
}
