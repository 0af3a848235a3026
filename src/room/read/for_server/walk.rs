//! Walks along a room's graph, from events to those that they follow.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events>
//!
//! Most events follow the one before them, so a stretch of the room in its own order is read at once and the walk goes
//! through that in memory; what does not stand there is read by its identifier. How many events are looked at is bounded
//! apart from how many are found: whoever asks says where to begin and what to leave out, and none of it is believed.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use ruma::{EventId, OwnedEventId, OwnedRoomId};

use crate::{
    error::Result,
    event::{Standing, Stored},
    ground::position::Order,
    room::Rooms,
    store,
};

/// How many events one walk looks at.
const MOST_STEPS: usize = 1_000;
/// How often it asks the database.
const MOST_READS: usize = 50;
/// How many events of the room are read at once.
const STRETCH: i64 = 100;
/// How many events a walk begins with at most. The others are passed over.
const MOST_STARTS: usize = 50;

/// The part of a room's graph that one walk has read.
pub(super) struct Graph<'a> {
    rooms: &'a Rooms,
    room_id: OwnedRoomId,
    /// None of what is not here or of another room.
    known: HashMap<OwnedEventId, Option<Arc<Stored>>>,
    steps: usize,
    reads: usize,
}

impl<'a> Graph<'a> {
    pub(super) fn new(rooms: &'a Rooms, room_id: OwnedRoomId) -> Self {
        Self { rooms, room_id, known: HashMap::new(), steps: 0, reads: 0 }
    }

    /// These events and what they follow, over others or at once: always the newest of what is left.
    pub(super) async fn list_before(&mut self, from: &[OwnedEventId], most: usize) -> Result<Vec<Arc<Stored>>> {
        let mut found: Vec<Arc<Stored>> = Vec::new();
        let mut seen: HashSet<OwnedEventId> = HashSet::new();
        // By place and identifier, so that what follows comes before what is followed.
        let mut todo: BTreeSet<(Order, OwnedEventId)> = BTreeSet::new();
        let mut wanted: Vec<OwnedEventId> = from.iter().take(MOST_STARTS).cloned().collect();
        while found.len() < most {
            for event in self.take(&wanted, &mut seen).await? {
                todo.insert((event.order, event.pdu.event_id().to_owned()));
            }
            let Some((_, event_id)) = todo.pop_last() else { break };
            let Some(event) = self.known.get(&event_id).cloned().flatten() else { break };
            wanted = event.pdu.prev_events().to_vec();
            found.push(event);
        }
        Ok(found)
    }

    /// What the `latest` events follow, breadth first, up to the `earliest` ones.
    pub(super) async fn list_between(
        &mut self,
        earliest: &[OwnedEventId],
        latest: &[OwnedEventId],
        most: usize,
        min_depth: i64,
    ) -> Result<Vec<Arc<Stored>>> {
        let mut found: Vec<Arc<Stored>> = Vec::new();
        let mut seen: HashSet<OwnedEventId> = earliest.iter().cloned().collect();
        let starts: Vec<OwnedEventId> = latest.iter().take(MOST_STARTS).cloned().collect();
        let mut queue: VecDeque<Arc<Stored>> = self.take(&starts, &mut seen).await?.into();
        while let Some(event) = queue.pop_front().filter(|_| found.len() < most) {
            let deep = |event: &Arc<Stored>| event.pdu.depth() >= min_depth;
            let followed = self.take(event.pdu.prev_events(), &mut seen).await?;
            for event in followed.into_iter().filter(deep) {
                if found.len() < most {
                    found.push(Arc::clone(&event));
                }
                queue.push_back(event);
            }
        }
        Ok(found)
    }

    /// Those of some events that the walk has not come to yet, and that have a place in the room. None once the walk has
    /// looked at enough.
    async fn take(&mut self, wanted: &[OwnedEventId], seen: &mut HashSet<OwnedEventId>) -> Result<Vec<Arc<Stored>>> {
        let new: Vec<OwnedEventId> = wanted.iter().filter(|id| seen.insert((*id).clone())).cloned().collect();
        self.steps += new.len();
        if self.steps > MOST_STEPS {
            return Ok(Vec::new());
        }
        self.read(&new).await?;
        Ok(new.iter().filter_map(|id| self.known.get(id).cloned().flatten()).collect())
    }

    /// Reads what is not known of these events, and what stands before them in the room.
    async fn read(&mut self, wanted: &[OwnedEventId]) -> Result<()> {
        let unread: Vec<&EventId> = wanted.iter().filter(|id| !self.known.contains_key(*id)).map(|id| &**id).collect();
        if unread.is_empty() || self.reads >= MOST_READS {
            return Ok(());
        }
        self.reads += 1;
        let mut conn = self.rooms.0.db.read().await?;
        let is_placed = |event: &Stored| !matches!(event.standing, Standing::Outlier | Standing::Rejected);
        let mut found = store::event::list(&mut conn, &unread).await?;
        found.retain(|event| self.room_id == event.pdu.room_id() && is_placed(event));
        self.known.extend(unread.iter().map(|id| ((*id).to_owned(), None)));
        if let Some(highest) = found.iter().map(|event| event.order).max() {
            let stretch = store::event::list_backward(&mut conn, &self.room_id, highest, Order::START, STRETCH).await?;
            found.extend(stretch);
        }
        for event in found {
            self.known.insert(event.pdu.event_id().to_owned(), Some(Arc::new(event)));
        }
        Ok(())
    }
}
