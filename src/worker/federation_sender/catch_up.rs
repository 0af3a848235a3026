//! Catching up: what a destination gets that was away, or too slow.
//!
//! It does not get everything that was said: where something of this server's happened in a room, it gets the room's newest
//! events, and fetches what comes before as far as it wants to. Rooms are taken in rounds, in the order of what was sent
//! there last, so that each round that has succeeded need not be repeated.
//!
//! What takes the last user of a destination out of a room is noted for it one by one: the room is not among those that it
//! is in any more.

use std::collections::HashMap;

use ruma::{EventId, OwnedEventId};

use super::{
    FederationSender,
    outbox::{LaneKey, Round},
    queue::QueuedEvent,
    trouble::{Refusals, Trouble},
};
use crate::{
    error::Result,
    event::Standing,
    ground::position::Position,
    store::{
        self,
        destination::{self, OwedRoom},
    },
};

/// How many rooms a round takes, and how many events that are owed one by one.
const ROOMS: i64 = 50;
const DEPARTURES: i64 = 50;
/// How many of a room's newest events are sent, where it has many ends.
const MOST_EXTREMITIES: usize = 20;

/// How far a destination has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CaughtUp {
    /// There is more.
    InPart,
    /// It is live from now on.
    Whole,
}

/// What is sent in a round.
struct Owed {
    /// First what is owed one by one.
    events: Vec<QueuedEvent>,
    /// Up to where that is in it.
    departed: Option<Position>,
    /// The place from which on something may be owed after this round.
    next: Position,
    is_last: bool,
}

impl FederationSender {
    /// Sends a destination a round of what it is owed.
    pub(super) async fn catch_up(&self, key: &LaneKey, refusals: &mut Refusals) -> Result<CaughtUp, Trouble> {
        let Some(round) = self.0.outbox.begin_round(key) else { return Err(Trouble::Lost) };
        let owed = self.list_owed(key, &round).await?;
        let mut left = owed.events.as_slice();
        while !left.is_empty() {
            let count = self.send(key, left, refusals).await?;
            left = left.get(count..).unwrap_or_default();
        }
        self.0.outbox.sent(key, 0);
        let is_reached = !owed.events.is_empty();
        self.0.ledger.settle(key, Some(owed.next), is_reached, owed.departed).await??;
        if let Some(until) = owed.departed {
            self.0.outbox.departed(key, until);
        }
        self.0.outbox.caught_up_until(key, owed.next);
        if owed.is_last && self.0.outbox.go_live(key) {
            tracing::debug!(server = %key.server, "a server has everything that it was owed");
            return Ok(CaughtUp::Whole);
        }
        Ok(CaughtUp::InPart)
    }

    /// What a destination gets in a round.
    async fn list_owed(&self, key: &LaneKey, round: &Round) -> Result<Owed> {
        let (server, mut conn) = (&*key.server, self.0.db.read().await?);
        let noted = destination::list_owed_events(&mut conn, server, DEPARTURES).await?;
        let rooms = destination::list_owed_rooms(&mut conn, server, round.from, ROOMS).await?;
        let is_full = |count: usize, limit: i64| i64::try_from(count).is_ok_and(|count| count >= limit);
        // Those in memory are newer than those in rows: where there are more rows, they wait for their turn.
        let has_more_departures = is_full(noted.len(), DEPARTURES);
        let has_more_rooms = is_full(rooms.len(), ROOMS);
        let next = match rooms.last() {
            Some(last) if has_more_rooms => last.sent_at.next(),
            _ => round.until.next().max(round.from),
        };
        let extremities = rooms.iter().flat_map(newest).collect::<Vec<_>>();
        let wanted: Vec<&EventId> = noted.iter().map(|(_, id)| &**id).chain(extremities.iter().copied()).collect();
        let mut events = HashMap::new();
        if !wanted.is_empty() {
            for stored in store::event::list(&mut conn, &wanted).await? {
                events.insert(stored.pdu.event_id().to_owned(), stored);
            }
        }
        drop(conn);
        let mut owed: Vec<QueuedEvent> = noted
            .iter()
            .filter_map(|(at, id)| Some(QueuedEvent { at: *at, pdu: events.get(id)?.pdu.clone(), departs: true }))
            .collect();
        if !has_more_departures {
            owed.extend(round.departures.iter().cloned());
            owed.sort_by_key(|event| event.at);
            owed.dedup_by_key(|event| event.at);
        }
        let departed = owed.last().map(|event| event.at).max(noted.last().map(|(at, _)| *at));
        let newest = extremities.iter().filter_map(|id| {
            // What the destination has said itself it has.
            let stored = events.get(*id).filter(|stored| stored.standing == Standing::Accepted)?;
            let is_theirs = stored.pdu.sender().server_name() == server;
            (!is_theirs).then(|| QueuedEvent { at: Position(stored.key.0), pdu: stored.pdu.clone(), departs: false })
        });
        owed.extend(newest);
        Ok(Owed { events: owed, departed, next, is_last: !has_more_rooms && !has_more_departures })
    }
}

/// The newest events of a room.
fn newest(room: &OwedRoom) -> impl Iterator<Item = &EventId> {
    let older = room.extremities.len().saturating_sub(MOST_EXTREMITIES);
    room.extremities.iter().skip(older).map(|id: &OwnedEventId| &**id)
}
