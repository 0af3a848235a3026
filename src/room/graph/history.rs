//! Taking in what was said in a room before what is here of it: chunks of history that were fetched from other servers,
//! from before this server came, or out of a gap.
//!
//! None of it is in the log. Every event goes closely before those that follow it (`placing.rs`), and with it goes what
//! the room's state was there: the trunk gets the state before the first event, what each of them changes, and what
//! leads from there to the state that the next event above has always seen. What stood in the room before stays as it
//! was, so that nothing that remembers it has to change; only history that was placed before it was known what leads
//! from it to something lower is moved below that. The log's lock is not held meanwhile: whoever is slower finds that
//! history was fetched since they looked, and looks again. Only the rows that the events have already are locked while they
//! are written.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events>

mod fetched;
mod write;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use ruma::{
    EventId, OwnedEventId, RoomId,
    events::{StateEventType, TimelineEventType},
};

use self::{
    fetched::Fetched,
    write::{Site, close_gaps},
};
use super::{
    early::{Redaction, may_redact},
    placing::floor_of_block,
    receive::{check_auth_events, check_format, check_state_before, not_rejected},
    room::Room,
    rooms::Rooms,
    state::State,
    thread::thread_of,
};
use crate::{
    db::Conn,
    error::{Error, Result},
    event::{Pdu, Relation, Standing, Stored},
    ground::position::{EventKey, Order},
    store::{self, history::Gap},
};

/// How often events are placed again because other history was fetched for the room meanwhile.
const ATTEMPTS: u32 = 16;
/// How many events at most are moved because of others.
const MOST_MOVED: usize = 1_000;

/// Some of a room's past.
pub struct Chunk {
    /// Verified events, each after those of the chunk that it follows.
    pub events: Vec<Pdu>,
    /// What was the room's state before those of them that follow what is neither here nor in the chunk: identifiers of
    /// events that are known here, as outliers at least.
    pub states: HashMap<OwnedEventId, Vec<OwnedEventId>>,
}

impl Rooms {
    /// Adds a chunk to a room's past. What is here already stays as it is.
    ///
    /// After an error nothing was added, or a part of the chunk that ends with a gap: an event is malformed, or nothing
    /// here follows it.
    pub async fn insert_history(&self, room_id: &RoomId, chunk: &Chunk) -> Result<()> {
        let room = self.get(room_id).await?;
        let create = room.view(|view| view.state.find(&StateEventType::RoomCreate).cloned());
        for pdu in &chunk.events {
            let is_begun_by = create.as_ref().is_some_and(|create| create.event_id() == pdu.event_id());
            if *pdu.kind() == TimelineEventType::RoomCreate && !is_begun_by {
                return Err(Error::bad_json("a room begins only once"));
            }
            check_format(pdu).map_err(Error::bad_json)?;
            if pdu.room_id() != room_id {
                return Err(Error::bad_json(format!("the event {} is of another room", pdu.event_id())));
            }
        }
        self.close_stale_gaps(room_id).await?;
        self.place_all(&room, self.look_into_chunk(&room, chunk).await?).await?;
        let ids = chunk.events.iter().flat_map(|pdu| [pdu.event_id()].into_iter().chain(pdu.redacts()));
        self.try_to_settle_redactions(&ids.collect::<Vec<_>>()).await;
        Ok(())
    }

    /// Writes events of a chunk, those that go to one place after the other.
    async fn place_all(&self, room: &Room, mut left: Vec<Fetched>) -> Result<()> {
        let room_id = &*room.view(|view| view.room_id.clone());
        let mut attempts = 0;
        while !left.is_empty() {
            let mut snapshot = self.0.db.snapshot().await?;
            let fetched = store::history::find_fetched(&mut snapshot, room_id).await?;
            let gaps = store::history::list_gaps(&mut snapshot, room_id).await?;
            let (before, group) = highest_group(&left, &gaps).ok_or_else(|| {
                Error::not_found("nothing here follows these events: their place in the room is not known")
            })?;
            let group_events: Vec<&Fetched> = group.iter().filter_map(|index| left.get(*index)).collect();
            let mut moved = list_followed(&mut snapshot, &group_events, before).await?;
            let mut site = Site::find(&mut snapshot, room_id, (&group_events, &moved), before, fetched).await?;
            if !site.has_room(group_events.len() + moved.len()) {
                // What they follow stands too close below. Below all that was fetched there is room for both.
                moved = list_followed(&mut snapshot, &group_events, floor_of_block(before).next()).await?;
                site = Site::find(&mut snapshot, room_id, (&group_events, &moved), before, fetched).await?;
            }
            drop(snapshot);
            let places: Vec<(EventKey, Order)> = moved.iter().map(|event| (event.key, event.order)).collect();
            let moved = self.look_into_moved(room, moved).await?;
            let events = sort(moved.iter().chain(group_events));
            if self.place(room, &site, &events, (&gaps, &places)).await? {
                let mut index = 0..;
                left.retain(|_| index.next().is_some_and(|index| !group.contains(&index)));
                continue;
            }
            attempts += 1;
            if attempts == ATTEMPTS {
                return Err(too_fast(room_id));
            }
            // The log may have told of some of them meanwhile.
            let ids: Vec<OwnedEventId> = left.iter().map(|event| event.pdu.event_id().to_owned()).collect();
            let (placed, _) = self.list_placed(&ids).await?;
            left.retain(|event| placed.iter().all(|placed| placed.pdu.event_id() != event.pdu.event_id()));
        }
        Ok(())
    }

    /// Takes events off what is missing before others that have come through the log since. Where somebody else fetches
    /// history at the same time, their gaps are looked at anew: what they have closed stays closed.
    async fn close_stale_gaps(&self, room_id: &RoomId) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let mut snapshot = self.0.db.snapshot().await?;
            let fetched = store::history::find_fetched(&mut snapshot, room_id).await?;
            let gaps = store::history::list_gaps(&mut snapshot, room_id).await?;
            drop(snapshot);
            let missing: Vec<OwnedEventId> = gaps.iter().flat_map(|gap| gap.missing.iter().cloned()).collect();
            let (placed, _) = self.list_placed(&missing).await?;
            if placed.is_empty() {
                return Ok(());
            }
            let placed: HashSet<&EventId> = placed.iter().map(|event| event.pdu.event_id()).collect();
            let mut tx = self.0.db.begin().await?;
            if store::history::note_fetched(&mut tx, room_id, fetched).await? {
                close_gaps(&mut tx, &gaps, &placed).await?;
                tx.commit().await?;
                return Ok(());
            }
        }
        Err(too_fast(room_id))
    }

    /// Finds out everything about a chunk's events that does not depend on where they go. Those that have a place already
    /// are left out.
    async fn look_into_chunk(&self, room: &Room, chunk: &Chunk) -> Result<Vec<Fetched>> {
        let ids: Vec<&EventId> = chunk.events.iter().map(Pdu::event_id).collect();
        let known = store::event::list(&mut self.0.db.read().await?, &ids).await?;
        let is_placed = |event: &&Stored| event.standing != Standing::Outlier;
        let placed: HashSet<&EventId> = known.iter().filter(is_placed).map(|event| event.pdu.event_id()).collect();
        let mut after_each: HashMap<OwnedEventId, State> = HashMap::new();
        let mut looked: Vec<Fetched> = Vec::with_capacity(chunk.events.len());
        for pdu in chunk.events.iter().filter(|pdu| !placed.contains(pdu.event_id())) {
            let own = self.state_before_fetched(room, pdu, chunk, &after_each).await?;
            let fetched = self.look_into_one(room, Arc::new(pdu.clone()), &own, &looked).await?;
            let mut after = own;
            if let Some(change) = fetched.change() {
                after.apply(&change);
            }
            after_each.insert(pdu.event_id().to_owned(), after);
            redact_earlier(&mut looked, &fetched)?;
            looked.push(fetched);
        }
        Ok(looked)
    }

    /// Events that have to stand lower, as they are known.
    async fn look_into_moved(&self, room: &Room, moved: Vec<Stored>) -> Result<Vec<Fetched>> {
        let mut fetched = Vec::with_capacity(moved.len());
        for stored in moved {
            let before = self.state_before(room, &stored).await?;
            let Stored { pdu, standing, thread_root, replaces, .. } = stored;
            fetched.push(Fetched { pdu, standing, before, thread_root, replaces, redaction: Redaction::default() });
        }
        Ok(fetched)
    }

    /// The state before an event of a chunk: what follows from the events that it follows, or what the chunk says.
    async fn state_before_fetched(
        &self,
        room: &Room,
        pdu: &Pdu,
        chunk: &Chunk,
        after_each: &HashMap<OwnedEventId, State>,
    ) -> Result<State> {
        let elsewhere: Vec<OwnedEventId> =
            pdu.prev_events().iter().filter(|id| !after_each.contains_key(*id)).cloned().collect();
        let (placed, missing) = self.list_placed(&elsewhere).await?;
        if let Some(missing) = missing.first() {
            let state = chunk.states.get(pdu.event_id()).ok_or_else(|| {
                let event_id = pdu.event_id();
                Error::bad_json(format!("{event_id} follows {missing}, which is not here, and comes without a state"))
            })?;
            let held = self.list_known(state, "is said to come after").await?;
            return Ok(held.into_iter().map(|event| event.pdu).collect());
        }
        let mut states: Vec<State> = pdu.prev_events().iter().filter_map(|id| after_each.get(id).cloned()).collect();
        for event in &placed {
            states.push(self.state_after(room, event).await?);
        }
        let rules = room.view(|view| view.rules);
        self.resolve_states(pdu.room_id(), rules, states).await
    }

    /// How an event of a chunk stands in the state before it, and what it has to do with others.
    async fn look_into_one(&self, room: &Room, pdu: Arc<Pdu>, before: &State, chunk: &[Fetched]) -> Result<Fetched> {
        let of_chunk = |id: &EventId| chunk.iter().find(|event| event.pdu.event_id() == id);
        let (in_chunk, elsewhere): (Vec<_>, Vec<_>) =
            pdu.auth_events().iter().cloned().partition(|id| of_chunk(id).is_some());
        let cited = self.list_known(&elsewhere, "cites").await?;
        let rejected = |id: &OwnedEventId| of_chunk(id).is_none_or(|event| event.standing == Standing::Rejected);
        let accepted = in_chunk.iter().filter(|id| !rejected(id)).filter_map(|id| of_chunk(id));
        let mut cited = not_rejected(&cited);
        cited.extend(accepted.map(|event| Arc::clone(&event.pdu)));
        let create = before.find(&StateEventType::RoomCreate).cloned();
        let judged = check_auth_events(&pdu, &cited, create.as_ref()).and_then(|()| check_state_before(&pdu, before));
        let standing = match judged {
            Ok(()) => Standing::Accepted,
            Err(reason) => {
                tracing::info!(event_id = %pdu.event_id(), %reason, "an event of a room's past is rejected");
                Standing::Rejected
            }
        };
        let redaction = if standing == Standing::Accepted {
            self.look_for_redaction(room, &pdu, before).await?
        } else {
            Redaction::default()
        };
        let relation = Relation::of(&pdu).filter(|_| standing == Standing::Accepted);
        let thread_root = match relation.as_ref().map(|relation| (relation, of_chunk(&relation.parent))) {
            Some((relation, Some(parent))) if parent.standing == Standing::Accepted => {
                thread_of(relation, &parent.pdu, parent.thread_root.as_ref())
            }
            Some((_, None)) => self.thread_of_remote(room, &pdu).await?,
            // It relates to nothing, or to what nobody is shown.
            _ => None,
        };
        let replaces = pdu.state_key().and_then(|key| before.get(&pdu.kind().to_string(), key).cloned());
        let pdu = redaction.redacted.clone().unwrap_or(pdu);
        Ok(Fetched { pdu, standing, before: before.clone(), thread_root, replaces, redaction })
    }
}

fn too_fast(room_id: &RoomId) -> Error {
    Error::Unavailable(format!("history is fetched for {room_id} faster than it can be placed"))
}

/// The events of which the lowest that follows them, over others of the chunk or at once, is the highest: their indexes,
/// and where that stands. What they follow is placed after them. None where nothing follows any.
fn highest_group(events: &[Fetched], gaps: &[Gap]) -> Option<(Order, Vec<usize>)> {
    let mut followed: HashMap<&EventId, Order> = HashMap::new();
    for (id, at) in gaps.iter().flat_map(|gap| gap.missing.iter().map(|id| (&**id, gap.order))) {
        followed.entry(id).and_modify(|lowest| *lowest = at.min(*lowest)).or_insert(at);
    }
    let mut before = Vec::with_capacity(events.len());
    for event in events.iter().rev() {
        let at = followed.get(event.pdu.event_id()).copied();
        before.push(at);
        if let Some(at) = at {
            for prev in event.pdu.prev_events() {
                followed.entry(prev).and_modify(|lowest| *lowest = at.min(*lowest)).or_insert(at);
            }
        }
    }
    before.reverse();
    let highest = before.iter().flatten().max().copied()?;
    let group = before.iter().enumerate().filter(|(_, at)| **at == Some(highest)).map(|(index, _)| index);
    Some((highest, group.collect()))
}

/// What these events follow of the history that stands at a place or above it, over others of it or at once. From the
/// lowest.
async fn list_followed(snapshot: &mut Conn, events: &[&Fetched], from: Order) -> Result<Vec<Stored>> {
    let mut found: BTreeMap<Order, Stored> = BTreeMap::new();
    let mut wanted: Vec<OwnedEventId> = events.iter().flat_map(|event| event.pdu.prev_events()).cloned().collect();
    while !wanted.is_empty() {
        let ids: Vec<&EventId> = wanted.iter().map(|id| &**id).collect();
        let known = store::event::list(snapshot, &ids).await?;
        // What is in the log stays where it is.
        let history = known.into_iter().filter(|event| !event.key.is_of_log() && event.order >= from);
        let new: Vec<Stored> = history.filter(|event| !found.contains_key(&event.order)).collect();
        wanted = new.iter().flat_map(|event| event.pdu.prev_events()).cloned().collect();
        found.extend(new.into_iter().map(|event| (event.order, event)));
        if found.len() > MOST_MOVED {
            let message = format!("more than {MOST_MOVED} events would have to be moved for these");
            return Err(Error::Unavailable(message));
        }
    }
    Ok(found.into_values().collect())
}

/// Events, each after those of them that it follows.
fn sort<'a>(events: impl IntoIterator<Item = &'a Fetched>) -> Vec<&'a Fetched> {
    let events: Vec<&Fetched> = events.into_iter().collect();
    let by_id: HashMap<&EventId, &Fetched> = events.iter().map(|event| (event.pdu.event_id(), *event)).collect();
    let (mut sorted, mut done) = (Vec::with_capacity(events.len()), HashSet::new());
    // Each with whether what it follows has its place.
    let mut todo: Vec<(&Fetched, bool)> = events.into_iter().rev().map(|event| (event, false)).collect();
    while let Some((event, is_next)) = todo.pop() {
        if done.contains(event.pdu.event_id()) {
            continue;
        }
        if is_next {
            done.insert(event.pdu.event_id());
            sorted.push(event);
            continue;
        }
        todo.push((event, true));
        let followed = event.pdu.prev_events().iter().filter_map(|id| by_id.get(&**id));
        todo.extend(followed.map(|followed| (*followed, false)));
    }
    sorted
}

/// Redacts an event of the chunk, if a later one of it may do that.
fn redact_earlier(chunk: &mut [Fetched], redaction: &Fetched) -> Result<()> {
    let Some(target) = redaction.pdu.redacts().filter(|_| redaction.standing == Standing::Accepted) else {
        return Ok(());
    };
    let target = chunk.iter_mut().find(|event| event.pdu.event_id() == target);
    if let Some(target) = target.filter(|target| may_redact(&redaction.pdu, &target.pdu, &redaction.before)) {
        target.pdu = Arc::new(target.pdu.redacted(Arc::clone(&redaction.pdu)).map_err(Error::broken)?);
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod elsewhere;
#[cfg(test)]
mod tests;
