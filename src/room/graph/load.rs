//! Rooms as the database has them: many in few statements.
//!
//! All of it is read in one snapshot, at one position: a view is right at that position, and what has happened since is
//! applied to it by [`super::rooms`] before anybody else sees it. Events that hold the state are read by their keys,
//! those of the timeline only once.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{OwnedEventId, OwnedRoomId, RoomId, RoomVersionId};

use super::{
    state::{State, visibility_of},
    view::{HISTORY_VISIBILITY, View, hides},
};
use crate::{
    db::{Conn, Db, DbResult},
    error::Result,
    event::{Pdu, StateChange, Stored, fact::RoomHead},
    ground::{
        position::{EventKey, Order, Position},
        room_version,
    },
    store::{
        self,
        event::ContextRange,
        room::Lineage,
        state::{HeldSince, KeyAt},
    },
};

/// How many events are read into a new view. Enough for what most clients show first. A view grows to more as the log
/// moves on.
const LOADED_TIMELINE: usize = 24;

/// Views as they were read, each with what it is a view of, or the version of the room if that is not supported.
pub(super) type Views = HashMap<OwnedRoomId, Result<View, RoomVersionId>>;

/// What the database knows of some rooms beside their heads.
#[derive(Default)]
struct RoomRows {
    /// The newest events of each, newest first.
    timelines: HashMap<OwnedRoomId, Vec<Arc<Stored>>>,
    /// The present one of each trunk, with what leads back to where its timeline begins.
    states: HashMap<Lineage, (State, Undo)>,
    /// Those that ever hid something from whoever came later.
    hiding: HashSet<Lineage>,
    /// Of those of which events are not here, the newest event that follows such.
    gaps: HashMap<OwnedRoomId, Order>,
}

/// Reads rooms as the database has them at one moment: that and their views. A fixed number of statements, however many
/// rooms. The snapshot's connection is given back before views are made of what was read. Of rooms that the database
/// does not know nothing is returned.
pub(super) async fn views(db: &Db, room_ids: &[&RoomId]) -> Result<(Position, Views)> {
    let mut snapshot = db.snapshot().await?;
    // The first statement of the snapshot, so everything after it is as it was at this position.
    let position = store::log::last_position(&mut snapshot).await?;
    let heads = store::room::list_heads(&mut snapshot, room_ids).await?;
    let mut contents =
        if heads.is_empty() { RoomRows::default() } else { RoomRows::read(&mut snapshot, &heads, position).await? };
    drop(snapshot);
    let views = heads.into_iter().map(|(room_id, head, trunk)| {
        let view = contents.view(&room_id, (head, trunk), position);
        (room_id, view)
    });
    Ok((position, views.collect()))
}

/// The whole state of a line just after `at`, from the database. It shares with another state of the room whatever is the
/// same there: only the rest is read whole. `near` need not lie on that line. The closer it is, the fewer events are
/// read.
pub(super) async fn state_beside(conn: &mut Conn, line: Lineage, at: Order, near: &State) -> DbResult<State> {
    let held = store::state::list_ids_at(conn, line, at).await?;
    let is_unknown = |(key, id): &(&KeyAt, &OwnedEventId)| !near.holds(&key.kind, &key.state_key, id);
    let unread: Vec<i64> = held
        .iter()
        .map(|(key, id)| (key, id))
        .filter(is_unknown)
        .filter_map(|(key, _)| key.event.map(|place| place.0))
        .collect();
    let read = store::event::list_pdus_at(conn, &unread).await?;
    let mut state = near.clone();
    // Otherwise every key of `near` is held here too, and there is nothing to take out.
    if near.len() + read.len() > held.len() {
        let kept: HashSet<(&str, &str)> = held.iter().map(|(key, _)| (&*key.kind, &*key.state_key)).collect();
        for (kind, state_key) in near.keys().filter(|key| !kept.contains(key)) {
            let (kind, state_key) = (kind.to_owned(), state_key.to_owned());
            state.apply(&StateChange { kind, state_key, event: None });
        }
    }
    for pdu in read.into_values() {
        state.insert(pdu);
    }
    Ok(state)
}

/// What each change took away, oldest first.
type Undo = Vec<(Order, StateChange)>;

/// What some trunks hold at this moment, and what undoes their changes, of each after a place of its own. Of the events
/// that hold it, those in `known` need not be read. `known` are events that have been read already.
async fn current_states(
    conn: &mut Conn,
    trunks: &[(Lineage, Order)],
    known: HashMap<EventKey, Arc<Pdu>>,
) -> DbResult<HashMap<Lineage, (State, Undo)>> {
    let lines: Vec<Lineage> = trunks.iter().map(|(trunk, _)| *trunk).collect();
    let held = store::state::list_held(conn, &lines).await?;
    let changes = store::state::list_changes_after(conn, trunks).await?;
    let before = changes.iter().filter_map(|(_, _, key)| key.event);
    let wanted: HashSet<EventKey> = held.iter().map(|(_, at)| *at).chain(before).collect();
    let unread: Vec<i64> = wanted.iter().filter(|at| !known.contains_key(at)).map(|at| at.0).collect();
    let read = store::event::list_pdus_at(conn, &unread).await?;
    let find = |at: &EventKey| known.get(at).or_else(|| read.get(at)).cloned();
    let mut states: HashMap<Lineage, (State, Undo)> = HashMap::new();
    for (trunk, at) in held {
        if let Some(pdu) = find(&at) {
            states.entry(trunk).or_default().0.insert(pdu);
        }
    }
    for (trunk, at, KeyAt { kind, state_key, event }) in changes {
        let before = StateChange { kind, state_key, event: event.as_ref().and_then(find) };
        states.entry(trunk).or_default().1.push((at, before));
    }
    Ok(states)
}

impl RoomRows {
    async fn read(snapshot: &mut Conn, heads: &[(OwnedRoomId, RoomHead, Lineage)], position: Position) -> Result<Self> {
        // One more than is kept shows where what is remembered begins.
        let now = Order::at(position);
        let newest = ((Order::START, now), LOADED_TIMELINE + 1);
        let around: Vec<ContextRange> = heads
            .iter()
            .map(|(room_id, ..)| ContextRange { room_id: room_id.clone(), before: newest, after: ((now, now), 0) })
            .collect();
        let events = store::event::list_around_each(snapshot, &around.iter().collect::<Vec<_>>()).await?;
        let timelines: HashMap<OwnedRoomId, Vec<Arc<Stored>>> =
            around.into_iter().map(|place| place.room_id).zip(events.into_iter().map(|(newest, _)| newest)).collect();
        let rooms: Vec<&RoomId> = heads.iter().map(|(room_id, ..)| &**room_id).collect();
        let gaps: HashMap<OwnedRoomId, Order> =
            store::event::list_with_gaps(snapshot, &rooms).await?.into_iter().collect();
        let remembered = |(room_id, _, trunk): &(OwnedRoomId, RoomHead, Lineage)| {
            (*trunk, timelines.get(room_id).map_or(Order::START, |newest| beginning(newest, gaps.get(room_id))))
        };
        let trunks: Vec<(Lineage, Order)> = heads.iter().map(remembered).collect();
        let newest = timelines.values().flatten().map(|event| (event.key, Arc::clone(&event.pdu))).collect();
        let states = current_states(snapshot, &trunks, newest).await?;
        let trunks: Vec<Lineage> = trunks.into_iter().map(|(trunk, _)| trunk).collect();
        let visibilities = store::state::versions_of_lines(snapshot, &trunks, HISTORY_VISIBILITY).await?;
        // Ever, not only now: what was hidden once stays hidden from who came later.
        let hides = |held: &HeldSince| hides(&visibility_of(held.event.as_ref().map(|(_, pdu)| &**pdu)));
        let hiding = visibilities.into_iter().filter(|(_, history)| history.iter().any(hides)).map(|(trunk, _)| trunk);
        Ok(Self { timelines, states, hiding: hiding.collect(), gaps })
    }

    /// The view of one of the rooms, or its version if that is not supported. Takes the room's rows out, so it is
    /// called once for each.
    fn view(
        &mut self,
        room_id: &RoomId,
        (head, trunk): (RoomHead, Lineage),
        position: Position,
    ) -> Result<View, RoomVersionId> {
        let rules = room_version::rules(&head.version).ok_or_else(|| head.version.clone())?;
        let mut timeline = self.timelines.remove(room_id).unwrap_or_default();
        let after = beginning(&timeline, self.gaps.get(room_id));
        timeline.truncate(LOADED_TIMELINE);
        timeline.retain(|event| event.order > after);
        timeline.reverse();
        let (state, undo) = self.states.remove(&trunk).unwrap_or_default();
        let mut view = View::new(room_id.to_owned(), rules, (head, trunk), position, state, timeline, after);
        view.remember_undo(undo, after);
        view.has_hidden_history = self.hiding.contains(&trunk);
        view.has_gaps = self.gaps.contains_key(room_id);
        Ok(view)
    }
}

/// After which place everything is remembered of a room with these newest events, newest first. Of a room with gaps that is
/// no further back than to the newest one, which may be filled at any time, and to what was fetched, which may be moved.
fn beginning(newest: &[Arc<Stored>], gap: Option<&Order>) -> Order {
    let oldest = newest.get(LOADED_TIMELINE).map_or(Order::START, |oldest| oldest.order);
    let Some(gap) = gap else { return oldest };
    let fetched = newest.iter().find(|event| !event.key.is_of_log()).map_or(Order::START, |event| event.order);
    oldest.max(gap.before()).max(fetched)
}
