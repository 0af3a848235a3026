//! The state of a room at an earlier place: undone from the view, or read from the trunk and its forks.

use std::{collections::HashMap, sync::Arc};

use ruma::UserId;

use super::{Room, Rooms, State};
use crate::{
    db::{Conn, DbResult},
    error::Result,
    event::{Pdu, Standing, StateChange, Stored},
    position::Position,
    store::{self, room::Lineage},
};

const MEMBER: &str = "m.room.member";

/// The whole state of a line just after `at`, from the database.
pub(super) async fn load(conn: &mut Conn, line: Lineage, at: Position) -> DbResult<State> {
    let keys = store::state::list_at(conn, line, at).await?;
    let positions: Vec<i64> = keys.iter().filter_map(|key| key.event).map(|place| place.0).collect();
    Ok(store::event::list_at(conn, &positions).await?.into_iter().map(|stored| stored.pdu).collect())
}

impl Rooms {
    /// The state just after everything up to `at`, on the room's own line.
    pub async fn state_at(&self, room: &Room, at: Position) -> Result<State> {
        let (remembered, trunk) = room.view(|view| (view.state_at(at), view.trunk));
        if let Some(state) = remembered {
            return Ok(state);
        }
        Ok(load(&mut self.0.db.read().await?, trunk, at).await?)
    }

    /// The event at one key just after `at`, on the room's own line.
    pub async fn state_event_at(
        &self,
        room: &Room,
        at: Position,
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

    /// The events that some keys of one type have just after `at`, on the room's own line.
    pub async fn list_state_events_at(
        &self,
        room: &Room,
        at: Position,
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

    /// Who users were in rooms at places of their own, as the `m.room.member` of each says, in the order in which they
    /// are asked for and as the reader may know it. What redacted it is not told.
    pub async fn members_at(
        &self,
        reader: &UserId,
        wanted: &[(&Room, Position, &UserId)],
    ) -> Result<Vec<Option<Arc<Pdu>>>> {
        let (mut found, mut missing) = (Vec::with_capacity(wanted.len()), Vec::new());
        for (room, at, user_id) in wanted {
            let (remembered, trunk) = room.view(|view| (view.state_at(*at), view.trunk));
            if remembered.is_none() {
                missing.push((trunk, user_id.as_str(), *at));
            }
            found.push(remembered.map(|state| state.get(MEMBER, user_id.as_str()).cloned()));
        }
        let mut read = store::state::list_each_at(&mut self.0.db.read().await?, MEMBER, &missing).await?;
        let mut numbers = 0..missing.len();
        let mut members: Vec<Option<Arc<Pdu>>> = Vec::with_capacity(found.len());
        for member in found {
            let mut member = match member {
                Some(remembered) => remembered,
                None => numbers.next().and_then(|number| read.remove(&number)),
            };
            if let Some(member) = &mut member {
                let room_id = member.room_id().to_owned();
                self.withhold_state(&room_id, reader, std::slice::from_mut(member)).await?;
            }
            members.push(member);
        }
        Ok(members)
    }

    /// The state that an event saw: before it, with what its fork has different from the trunk.
    pub async fn state_before(&self, room: &Room, event: &Stored) -> Result<State> {
        let Some(fork) = event.fork else { return self.state_at(room, event.position.before()).await };
        let mut conn = self.0.db.read().await?;
        let Some((line, base, changes)) = store::state::find_fork(&mut conn, fork).await? else {
            return self.state_at(room, event.position.before()).await;
        };
        let mut state = load(&mut conn, line, base).await?;
        let places: Vec<i64> = changes.values().filter_map(|place| place.map(|at| at.0)).collect();
        let events = store::event::list_at(&mut conn, &places).await?;
        for ((kind, state_key), place) in changes {
            let event = place.and_then(|at| events.iter().find(|e| e.position == at)).map(|e| Arc::clone(&e.pdu));
            state.apply(&StateChange { kind, state_key, event });
        }
        Ok(state)
    }

    /// The state that an event left behind: what it saw, and its own doing unless it was rejected.
    pub async fn state_after(&self, room: &Room, event: &Stored) -> Result<State> {
        let mut state = self.state_before(room, event).await?;
        if event.pdu.is_state() && event.standing != Standing::Rejected {
            state.insert(Arc::clone(&event.pdu));
        }
        Ok(state)
    }

    /// What changed after `after` and has become what at `until`, each key once.
    pub async fn list_changes(&self, room: &Room, after: Position, until: Position) -> Result<Vec<StateChange>> {
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
        let events: HashMap<Position, Arc<Pdu>> = found.into_iter().map(|event| (event.position, event.pdu)).collect();
        let change = |((kind, state_key), at): (_, Option<Position>)| StateChange {
            kind,
            state_key,
            event: at.and_then(|at| events.get(&at).cloned()),
        };
        Ok(last.into_iter().map(change).collect())
    }

    /// The newest accepted events after `after` up to `until`, oldest first, `most` of them, and whether
    /// there are more.
    pub async fn newest(
        &self,
        room: &Room,
        after: Position,
        until: Position,
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
