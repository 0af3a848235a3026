//! Writing a chunk of history, or of one that is spread over several places what goes to one of them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{EventId, OwnedEventId, RoomId};

use super::fetched::Fetched;
use crate::{
    db::{Conn, DbResult, Tx},
    error::{Error, Result},
    event::{Pdu, Relation, Standing, StateChange, Stored},
    ground::position::{EventKey, Lineage, Order},
    room::{
        Room, Rooms, State,
        graph::placing::{below_everything, between, floor_of_block},
    },
    store::{
        self,
        event::{KnownEvent, NewRow},
        history::Gap,
        state::{ForkChange, Version},
    },
};

/// How many events below the one that follows a chunk are looked at for room.
const LOOKED_AT: i64 = 1_000;
/// Where the state is written that was before everything that is known of a room.
const BEFORE_EVERYTHING: Order = Order(i64::MIN + 1);

/// Where events go in their room.
pub(super) struct Site {
    /// How often history had been fetched for the room when this was found out.
    fetched: i64,
    /// The lowest of the events that follow them.
    before: Order,
    /// They go above this. None where nothing is known below them.
    after: Option<Order>,
    /// The highest places between the two at which events stand, descending: all of them, or [`LOOKED_AT`].
    taken: Vec<Order>,
    /// The lowest of these places, where there are more.
    lowest: Option<Order>,
}

/// An event and its numbers.
struct Placed<'a> {
    event: &'a Fetched,
    /// The event as it is written: redacted, if it has been as an outlier.
    pdu: Arc<Pdu>,
    key: EventKey,
    order: Order,
    /// Those of the events that it follows which are not here.
    missing: Vec<OwnedEventId>,
    /// What it was called until now, if it is known as an outlier or stood elsewhere.
    outlier: Option<EventKey>,
    /// How the state before it differs from that of the trunk there.
    fork: Vec<StateChange>,
    change: Option<StateChange>,
}

/// What is written into a room's trunk beside the events' own changes.
struct Seams {
    /// Just before the first event: what leads to the state before it.
    lower: (Order, Vec<StateChange>),
    /// Just before the next event above: what leads to the state that it sees.
    upper: (Order, Vec<StateChange>),
}

impl Site {
    /// Finds where events go that are followed by the one at `before`, and with them others that leave their places.
    pub(super) async fn find(
        snapshot: &mut Conn,
        room_id: &RoomId,
        (events, moved): (&[&Fetched], &[Stored]),
        before: Order,
        fetched: i64,
    ) -> Result<Self> {
        let pdus = events.iter().map(|event| &event.pdu).chain(moved.iter().map(|event| &event.pdu));
        let prev: HashSet<&EventId> = pdus.flat_map(|pdu| pdu.prev_events()).map(|id| &**id).collect();
        let prev = store::event::orders(snapshot, &prev.into_iter().collect::<Vec<_>>()).await?;
        let stays = |order: &Order| moved.iter().all(|event| event.order != *order);
        // What they follow stands below them, unless it came so late that it stands above what follows them.
        let parents = prev.into_iter().map(|(_, order)| order).filter(|order| *order < before).filter(stays).max();
        let after = floor_of_block(before).max(parents.unwrap_or(Order::START));
        let is_first = store::history::list_taken(snapshot, room_id, before, Order::START, 1).await?.is_empty();
        let taken = store::history::list_taken(snapshot, room_id, before, after, LOOKED_AT).await?;
        let is_cut = i64::try_from(taken.len()).is_ok_and(|count| count == LOOKED_AT);
        let lowest =
            if is_cut { store::history::find_lowest_taken(snapshot, room_id, before, after).await? } else { None };
        Ok(Self { fetched, before, after: (!is_first).then_some(after), taken, lowest })
    }

    /// Whether so many events have room there.
    pub(super) fn has_room(&self, count: usize) -> bool {
        self.after.is_none_or(|after| self.find_places(after, count).is_some())
    }

    fn places(&self, highest: EventKey, count: usize) -> Result<Vec<Order>> {
        let Some(after) = self.after else { return Ok(below_everything(highest, count)) };
        self.find_places(after, count).ok_or_else(|| {
            Error::Unavailable("there is no room for these events between those that are here".to_owned())
        })
    }

    fn find_places(&self, after: Order, count: usize) -> Option<Vec<Order>> {
        let Some(lowest) = self.lowest else { return between(after, self.before, &self.taken, count) };
        // What stands between the last one that was looked at and the lowest is not known.
        let (looked_until, above) = self.taken.split_last()?;
        between(*looked_until, self.before, above, count).or_else(|| between(after, lowest, &[], count))
    }

    /// The next event above a place.
    fn next_above(&self, order: Order) -> Order {
        let taken = self.lowest.iter().chain(self.taken.iter().rev());
        taken.copied().find(|taken| *taken > order).unwrap_or(self.before)
    }
}

impl Rooms {
    /// Writes events where they go. False if that does not hold any more: history was fetched for the room since it was
    /// found out, or the log has told of one of the events, or it has become an outlier.
    pub(super) async fn place(
        &self,
        room: &Room,
        site: &Site,
        events: &[&Fetched],
        (gaps, moved): (&[Gap], &[(EventKey, Order)]),
    ) -> Result<bool> {
        let mut placed = self.number(site, events).await?;
        let (Some(first), Some(last)) = (placed.first(), placed.last()) else { return Ok(true) };
        let (above, bottom) = (site.next_above(last.order), first.order.before());
        let bottom = if site.after.is_none() { BEFORE_EVERYTHING } else { bottom };
        let (below_it, above_it) = (self.state_at(room, bottom).await?, self.state_at(room, above.before()).await?);
        let mut line = first.event.before.clone();
        placed.iter().filter_map(|placed| placed.change.as_ref()).for_each(|change| drop(line.apply(change)));
        // Where nothing was known, what is known now holds.
        let leading_out = if above_it.is_empty() { Vec::new() } else { line.changes_to(&above_it) };
        let seams =
            Seams { lower: (bottom, below_it.changes_to(&first.event.before)), upper: (above.before(), leading_out) };
        let (room_id, trunk) = room.view(|view| (view.room_id.clone(), view.trunk));
        let mut tx = self.0.db.begin().await?;
        let writing = async {
            if !store::history::note_fetched(&mut tx, &room_id, site.fetched).await?
                || !note_outliers(&mut tx, &mut placed, moved).await?
            {
                return Ok(false);
            }
            take_away(&mut tx, &room_id, &placed, moved).await?;
            write_events(&mut tx, &placed).await?;
            write_redactions(&mut tx, &placed).await?;
            write_state(&mut tx, trunk, &placed, &seams).await?;
            close_gaps(&mut tx, gaps, &placed.iter().map(Placed::event_id).collect()).await?;
            tx.commit().await.map(|()| true)
        };
        match writing.await {
            // The log tells of one of the events at this moment, or it becomes an outlier.
            Err(error) if error.is_conflict() || error.is_deadlock() => Ok(false),
            written => written.map_err(Error::from),
        }
    }

    /// Gives events their numbers.
    async fn number<'a>(&self, site: &Site, events: &[&'a Fetched]) -> Result<Vec<Placed<'a>>> {
        let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
        let mut tx = self.0.db.begin().await?;
        // Numbers that come to nothing are no loss: there are 2^63 of them.
        let highest = store::history::take_keys(&mut tx, count).await?;
        tx.commit().await?;
        // The newest has the highest key, so that keys run as the room does.
        let keys = (highest.0 - count + 1..=highest.0).map(EventKey);
        let numbers: Vec<_> = keys.zip(site.places(highest, events.len())?).collect();
        let ids: Vec<&EventId> = events.iter().map(|event| event.pdu.event_id()).collect();
        let mut placed = Vec::with_capacity(events.len());
        let mut line: Option<State> = None;
        for (event, (key, order)) in events.iter().copied().zip(numbers) {
            let (_, mut missing) = self.list_placed(event.pdu.prev_events()).await?;
            missing.retain(|id| !ids.contains(&&**id));
            let line = line.get_or_insert_with(|| event.before.clone());
            let (fork, change) = (line.changes_to(&event.before), event.change());
            if let Some(change) = &change {
                line.apply(change);
            }
            placed.push(Placed {
                event,
                pdu: Arc::clone(&event.pdu),
                key,
                order,
                missing,
                outlier: None,
                fork,
                change,
            });
        }
        Ok(placed)
    }
}

impl Placed<'_> {
    fn row(&self) -> NewRow<'_> {
        NewRow {
            key: self.key,
            order: self.order,
            missing: &self.missing,
            pdu: &self.pdu,
            standing: self.event.standing,
            fork: (!self.fork.is_empty()).then_some(self.key),
            // What was said so long ago is news to nobody.
            notifies: false,
            thread_root: self.event.thread_root.as_deref(),
            transaction: None,
            replaces: self.event.replaces.as_deref().map(Pdu::event_id),
            moment: None,
        }
    }

    fn event_id(&self) -> &EventId {
        self.event.pdu.event_id()
    }

    fn is_accepted(&self) -> bool {
        self.event.standing == Standing::Accepted
    }
}

/// Locks the rows that these events have already, and notes their keys. False if one was placed meanwhile.
async fn note_outliers(tx: &mut Tx, events: &mut [Placed<'_>], moved: &[(EventKey, Order)]) -> DbResult<bool> {
    let ids: Vec<&EventId> = events.iter().map(Placed::event_id).collect();
    let known = store::event::lock_known(tx, &ids).await?;
    for placed in events {
        let Some(KnownEvent { key, order, is_redacted }) = known.get(placed.event_id()).copied() else { continue };
        if order > Order::START && !moved.contains(&(key, order)) {
            return Ok(false);
        }
        placed.outlier = Some(key);
        if is_redacted && let Some(outlier) = store::event::find(tx, placed.event_id()).await? {
            placed.pdu = outlier.pdu;
        }
    }
    Ok(true)
}

/// Takes events away from where they stood. What they changed there stays until others are written around that place
/// (`write_state`): what follows sees what it has always seen.
async fn take_away(tx: &mut Tx, room_id: &RoomId, events: &[Placed<'_>], moved: &[(EventKey, Order)]) -> DbResult<()> {
    store::search::forget_history(tx, moved).await?;
    for (key, _) in moved {
        let Some(placed) = events.iter().find(|placed| placed.outlier == Some(*key)) else { continue };
        store::relation::delete(tx, placed.event_id()).await?;
        store::state::delete_fork(tx, *key).await?;
        store::ephemeral::move_receipts(tx, room_id, placed.event_id(), placed.order).await?;
    }
    Ok(())
}

async fn write_events(tx: &mut Tx, events: &[Placed<'_>]) -> DbResult<()> {
    let outliers: Vec<(EventKey, EventKey, &Pdu)> =
        events.iter().filter_map(|placed| Some((placed.outlier?, placed.key, &*placed.pdu))).collect();
    store::event::replace_outliers(tx, &outliers).await?;
    store::event::insert(tx, &events.iter().map(Placed::row).collect::<Vec<_>>()).await?;
    let accepted: Vec<EventKey> =
        events.iter().filter(|placed| placed.is_accepted()).map(|placed| placed.key).collect();
    store::search::add_history(tx, &accepted).await?;
    let relations: Vec<_> = events
        .iter()
        .filter(|placed| placed.is_accepted())
        .filter_map(|placed| Some((placed.order, &*placed.pdu, Relation::of(&placed.pdu)?)))
        .collect();
    store::relation::insert(tx, &relations).await
}

/// Notes redactions whose targets the chunk does not have as they leave them, and forgets those that have come before
/// these events. Their targets may be in caches, which only an entry of the log updates: `settle_redactions` makes it once
/// this is durable.
async fn write_redactions(tx: &mut Tx, events: &[Placed<'_>]) -> DbResult<()> {
    let is_done =
        |id: &EventId| events.iter().any(|placed| placed.event_id() == id && placed.pdu.redacted_because().is_some());
    let accepted = || events.iter().filter(|placed| placed.is_accepted());
    let early: Vec<(&EventId, &EventId)> = accepted()
        .filter(|placed| placed.event.redaction.is_early || placed.event.redaction.target.is_some())
        .filter_map(|placed| Some((placed.event.pdu.redacts().filter(|target| !is_done(target))?, placed.event_id())))
        .collect();
    if !early.is_empty() {
        store::redaction::insert_early(tx, &early).await?;
    }
    let come: Vec<&EventId> =
        accepted().filter(|placed| placed.event.redaction.redacted.is_some()).map(Placed::event_id).collect();
    if !come.is_empty() {
        store::redaction::delete_early(tx, &come).await?;
    }
    Ok(())
}

/// The trunk's changes, and where the state before an event is another. Between the seams nothing stands but these
/// events: a change there is one that an event left which has moved away, and is none for these. At the upper seam stands
/// what led to the next event from something else than these; where a room was left for long that may be much.
async fn write_state(tx: &mut Tx, trunk: Lineage, events: &[Placed<'_>], seams: &Seams) -> DbResult<()> {
    store::state::delete_versions(tx, trunk, seams.lower.0, seams.upper.0.next()).await?;
    let own = events.iter().filter_map(|placed| Some((placed.order, placed.change.as_ref()?)));
    let seams = [&seams.lower, &seams.upper].into_iter().flat_map(|(at, changes)| changes.iter().map(|one| (*at, one)));
    let changes: Vec<(Order, &StateChange)> = seams.chain(own).collect();
    let forks = || events.iter().flat_map(|placed| placed.fork.iter().map(|change| (placed.key, change)));
    let mentioned = changes.iter().map(|(_, change)| *change).chain(forks().map(|(_, change)| change));
    let keys = keys_of(tx, events, &mentioned.collect::<Vec<_>>()).await?;
    let key = |change: &StateChange| change.event.as_ref().and_then(|pdu| keys.get(pdu.event_id()).copied());
    let versions: Vec<Version<'_>> =
        changes.iter().map(|(from, change)| Version { line: trunk, change, from: *from, event: key(change) }).collect();
    store::state::upsert_versions(tx, &versions).await?;
    let forked = events.iter().filter(|placed| !placed.fork.is_empty());
    let bases: Vec<_> = forked.map(|placed| (placed.key, trunk, placed.order.before())).collect();
    let fork_changes: Vec<ForkChange<'_>> =
        forks().map(|(fork, change)| ForkChange { fork, change, event: key(change) }).collect();
    store::state::insert_forks(tx, &bases, &fork_changes).await
}

/// The keys of the events that changes refer to.
async fn keys_of(
    tx: &mut Tx,
    events: &[Placed<'_>],
    changes: &[&StateChange],
) -> DbResult<HashMap<OwnedEventId, EventKey>> {
    let mut known: HashMap<OwnedEventId, EventKey> =
        events.iter().map(|placed| (placed.event_id().to_owned(), placed.key)).collect();
    let others: HashSet<&EventId> = changes
        .iter()
        .filter_map(|change| change.event.as_deref().map(Pdu::event_id))
        .filter(|id| !known.contains_key(*id))
        .collect();
    if !others.is_empty() {
        let found = store::event::keys(tx, &others.into_iter().collect::<Vec<_>>()).await?;
        known.extend(found);
    }
    Ok(known)
}

/// What was missing before other events is no longer, where it has come.
pub(super) async fn close_gaps(tx: &mut Tx, gaps: &[Gap], come: &HashSet<&EventId>) -> DbResult<()> {
    for gap in gaps.iter().filter(|gap| gap.missing.iter().any(|id| come.contains(&**id))) {
        let missing: Vec<&EventId> = gap.missing.iter().map(|id| &**id).filter(|id| !come.contains(id)).collect();
        store::history::set_missing(tx, gap.key, &missing).await?;
    }
    Ok(())
}
