//! A batch's rows, table by table, as multi-row inserts.
//!
//! Everything runs under the log's lock, so statements are few: mostly one for each table, whatever the number of rooms
//! and users. What only inserts comes first: on `PostgreSQL` inserts wait for each other and are sent as one statement
//! (`db/queue.rs`), and each statement that reads sends what waits.

mod touched;

use std::{collections::HashMap, sync::Arc};

use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId, UserId, events::room::member::MembershipState};

use self::touched::{TouchedRoom, TouchedRooms};
use super::kind::{
    Facts,
    to_device::{self, Deliveries},
    typing::{self, GoneUsers, JoinedPairs},
};
use crate::{
    db::{DbResult, Tx},
    event::{
        Pdu, Relation, Standing, StateChange,
        fact::{Fact, ForkBase, NewEvent, News, RoomEntry, Write},
    },
    ground::position::{EventKey, Lineage, Order, Position},
    store::{
        self,
        event::NewRow,
        membership::{Before, MembershipRow},
        moment::Moment,
        room::RoomStanding,
        state::{ForkChange, Version},
    },
};

/// A batch on its way into the database.
pub(super) struct NewBatch<'a> {
    /// Unique among all batches ever written; the first characters of it become the mark of tokens.
    pub(super) id: &'a str,
    /// The place of its first entry.
    pub(super) first: Position,
    pub(super) writes: &'a [&'a Write],
    /// How the rooms stand that the database knows.
    pub(super) rooms: HashMap<OwnedRoomId, RoomStanding>,
    /// Those of whom it says that they begin to type who are in the room before it.
    pub(super) joined: JoinedPairs,
    /// What becomes of its messages to devices.
    pub(super) deliveries: &'a Deliveries,
}

/// Writes everything and returns what readers are to be handed, in the order of positions.
///
/// `news[i]` stands at `first + i`, also where it is [`News::Superseded`]: no place is left out. The batch's row lists
/// such entries as what they were meant to be; whoever reads them from the database finds what stands in the table.
pub(super) async fn write(tx: &mut Tx, batch: NewBatch<'_>) -> DbResult<Vec<News>> {
    let NewBatch { id: batch_id, first, writes, rooms, joined, deliveries } = batch;
    let mut at = first;
    let mut events: Vec<(Position, &NewEvent)> = Vec::new();
    let mut facts = Facts::default();
    let mut news = Vec::new();
    let mut requests = Vec::new();
    let mut delivered = deliveries.each();
    for write in writes {
        requests.extend(write.request.as_ref().map(|request| (at, request)));
        for event in &write.events {
            events.push((at, event));
            news.push(News::Event(Arc::new(event.at(at))));
            at = at.next();
        }
        for fact in &write.facts {
            facts.push(at, fact);
            news.push(match fact {
                Fact::ToDevice(new) => {
                    News::ToDevice(Arc::new(to_device::news(new, delivered.next().unwrap_or_default())))
                }
                _ => fact.news(),
            });
            at = at.next();
        }
    }
    let entries: Vec<_> = news.iter().filter_map(News::entry).collect();
    store::log::insert_batch(tx, first, at.before(), batch_id, &entries).await?;
    to_device::write(tx, &facts.to_device, &requests, deliveries).await?;
    let entries: Vec<&RoomEntry> = writes.iter().filter_map(|write| write.entry.as_ref()).collect();
    if !events.is_empty() {
        write_events(tx, &events, &rooms, &entries).await?;
    }
    // Whoever has left a room while it was on its way that they type there does not type.
    let outside = typing::list_outside(&events, &facts.typing, &joined);
    facts.typing.retain(|(at, _)| !outside.contains(at));
    let idle = facts.write(tx).await?;
    for at in outside.into_iter().chain(idle) {
        let index = usize::try_from(at.0 - first.0).ok();
        if let Some(superseded) = index.and_then(|index| news.get_mut(index)) {
            *superseded = News::Superseded;
        }
    }
    Ok(news)
}

/// The rows of events and what follows from them: heads, highlights, relations, state, redactions.
async fn write_events(
    tx: &mut Tx,
    events: &[(Position, &NewEvent)],
    known: &HashMap<OwnedRoomId, RoomStanding>,
    entries: &[&RoomEntry],
) -> DbResult<()> {
    let mut rooms = TouchedRooms::new();
    let mut rows = Vec::with_capacity(events.len());
    for (position, event) in events {
        let room_id = event.pdu.room_id();
        let entry = || entries.iter().copied().find(|entry| entry.room_id == room_id);
        let room = rooms.entry(room_id).or_insert_with(|| TouchedRoom::new(*position, event, known, entry()));
        rows.push(NewRow::new(*position, event, room.follow(*position, event)));
    }
    let outliers: Vec<(EventKey, EventKey, &Pdu)> =
        events.iter().filter_map(|(at, event)| Some((event.outlier?, (*at).into(), &*event.pdu))).collect();
    // Before the events are inserted: an event that was an outlier has a row already, under the key that it had as one.
    store::event::replace_outliers(tx, &outliers).await?;
    store::event::insert(tx, &rows).await?;
    let heads: Vec<_> = rooms.iter().map(|(room_id, room)| (*room_id, room.head, room.standing)).collect();
    store::room::upsert_heads(tx, &heads).await?;
    write_entries(tx, entries).await?;
    let mut highlights: Vec<(Position, &RoomId, Option<&UserId>)> = Vec::new();
    for (at, event) in events {
        if event.highlights_everybody {
            highlights.push((*at, event.pdu.room_id(), None));
        } else {
            highlights.extend(event.highlights.iter().map(|user| (*at, event.pdu.room_id(), Some(&**user))));
        }
    }
    store::attention::insert_highlights(tx, &highlights).await?;
    let relations: Vec<_> = events
        .iter()
        // What was rejected or soft-failed is shown to nobody, so it is no reply and no reaction either.
        .filter(|(_, event)| event.standing == Standing::Accepted)
        .filter_map(|(at, event)| Some((Order::at(*at), &*event.pdu, Relation::of(&event.pdu)?)))
        .collect();
    store::relation::insert(tx, &relations).await?;
    // After what only inserts: it reads, for which everything that waits to be inserted is sent.
    write_state(tx, events, &rooms).await?;
    write_early_redactions(tx, events).await?;
    for (_, event) in events {
        // After its own row is there: an event and its redaction may be in one batch.
        if let Some(redacted) = &event.redacted {
            store::redaction::replace(tx, redacted, event.pdu.event_id()).await?;
        }
    }
    Ok(())
}

/// What was written beforehand of rooms that are entered counts from now on: their rows name its line.
async fn write_entries(tx: &mut Tx, entries: &[&RoomEntry]) -> DbResult<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let servers: Vec<_> = entries
        .iter()
        .flat_map(|entry| entry.servers.iter().map(|(server, members)| (&*entry.room_id, &**server, *members)))
        .collect();
    store::membership::count_servers(tx, &servers).await?;
    for entry in entries {
        store::room_entry::end(tx, &entry.room_id, entry.trunk).await?;
    }
    Ok(())
}

/// Notes which redactions have come before their targets, and forgets those whose targets have come. A redaction whose
/// target has a place and was not redacted, because its sender may not, is not early and is not noted.
async fn write_early_redactions(tx: &mut Tx, events: &[(Position, &NewEvent)]) -> DbResult<()> {
    let accepted = || events.iter().map(|(_, event)| event).filter(|event| event.standing == Standing::Accepted);
    let come: Vec<&EventId> =
        accepted().filter(|event| event.pdu.redacted_because().is_some()).map(|event| event.pdu.event_id()).collect();
    if !come.is_empty() {
        store::redaction::delete_early(tx, &come).await?;
    }
    let early: Vec<(&EventId, &EventId)> =
        accepted().filter_map(|event| Some((event.awaits.as_deref()?, event.pdu.event_id()))).collect();
    if early.is_empty() { Ok(()) } else { store::redaction::insert_early(tx, &early).await }
}

/// The trunk's changes, the forks, and the memberships that follow from the trunk.
///
/// A room has one membership row for each user, however often that changed in the batch: the last change is written.
async fn write_state(tx: &mut Tx, events: &[(Position, &NewEvent)], rooms: &TouchedRooms<'_>) -> DbResult<()> {
    if events.iter().all(|(_, event)| event.changes.is_empty() && event.fork.is_none()) {
        return Ok(());
    }
    let keys = keys_of_changes(tx, events).await?;
    let key = |change: &StateChange| change.event.as_ref().and_then(|pdu| keys.get(pdu.event_id()).copied());
    let mut versions = Vec::new();
    let mut forks = Vec::new();
    let mut fork_changes = Vec::new();
    let mut memberships: HashMap<(&UserId, &RoomId), (MembershipRow<'_>, Before)> = HashMap::new();
    let mut gone = GoneUsers::new();
    for (at, event) in events {
        let Some(room) = rooms.get(event.pdu.room_id()) else { continue };
        let trunk = room.standing.trunk;
        for change in &event.changes {
            versions.push(Version { line: trunk, change, from: Order::at(*at), event: key(change) });
            if let Some(membership) = MembershipRow::of(change, event.pdu.room_id(), *at) {
                let key = (membership.user_id, membership.room_id);
                // In a room that begins with this batch nobody has typed.
                if membership.state != MembershipState::Join && !room.is_new {
                    gone.insert((membership.room_id, membership.user_id), *at);
                }
                memberships.insert(key, (membership, if room.is_new { Before::Nobody } else { Before::Somebody }));
            }
        }
        if let Some(fork) = &event.fork {
            let (line, base) = match fork.base {
                ForkBase::Trunk => (trunk, Order::at(*at).before()),
                ForkBase::After => (trunk, Order::at(*at)),
                ForkBase::Line(line, base) => (line, base),
                ForkBase::Nothing => (Lineage(at.0), Order::START),
            };
            forks.push(((*at).into(), line, base));
            for change in &fork.changes {
                let event = key(change);
                if fork.base == ForkBase::Nothing {
                    versions.push(Version { line, change, from: base, event });
                } else {
                    fork_changes.push(ForkChange { fork: (*at).into(), change, event });
                }
            }
        }
    }
    store::state::insert_versions(tx, &versions).await?;
    store::state::insert_forks(tx, &forks, &fork_changes).await?;
    let memberships: Vec<_> = memberships.into_values().collect();
    store::membership::upsert(tx, &memberships).await?;
    typing::end(tx, &gone).await
}

/// The keys of the events that state refers to: in this batch, or found in the database.
async fn keys_of_changes(tx: &mut Tx, events: &[(Position, &NewEvent)]) -> DbResult<HashMap<OwnedEventId, EventKey>> {
    let mut known: HashMap<OwnedEventId, EventKey> =
        events.iter().map(|(at, event)| (event.pdu.event_id().to_owned(), (*at).into())).collect();
    let older: Vec<&EventId> = events
        .iter()
        .flat_map(|(_, event)| event.changes.iter().chain(event.fork.iter().flat_map(|fork| &fork.changes)))
        .filter_map(|change| change.event.as_deref().map(Pdu::event_id))
        .filter(|id| !known.contains_key(*id))
        .collect();
    if !older.is_empty() {
        known.extend(store::event::keys(tx, &older).await?);
    }
    Ok(known)
}

/// A row of an event that the log takes as new: its key is its position, and its order follows from it.
impl<'a> NewRow<'a> {
    fn new(position: Position, event: &'a NewEvent, moment: Moment) -> Self {
        Self {
            key: position.into(),
            order: Order::at(position),
            missing: &event.missing,
            pdu: &event.pdu,
            standing: event.standing,
            fork: event.fork.is_some().then_some(position.into()),
            notifies: event.notifies && event.standing == Standing::Accepted,
            thread_root: event.thread_root.as_deref(),
            transaction: event.transaction.as_ref(),
            replaces: event.replaces.as_deref().map(Pdu::event_id),
            moment: Some(moment),
        }
    }
}
