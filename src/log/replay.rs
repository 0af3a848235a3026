//! Batches that this node did not write: read from the database, in order, as their writer handed them to its own
//! readers.
//!
//! The rows of the batches say which things stand where; the things come from their tables as they are now. A redaction
//! or a newer receipt that follows later may therefore be seen early, which no reader minds: it is handed the newer one
//! as well, in its turn.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use ruma::{OwnedUserId, RoomId, events::TimelineEventType};

use super::{kind, tail::Tail};
use crate::{
    db::{Conn, Db, DbResult, Engine},
    edge::hub::Hub,
    event::{
        Logged, Pdu, StateChange,
        fact::{Batch, Entry, News},
    },
    ground::{
        position::{EventKey, Position},
        tasks::Shutdown,
    },
    store::{self, log::BatchRow, state::KeyAt},
};

/// How often the end of the log is looked up where nobody announces other nodes' batches, and where somebody does.
const POLL: Duration = Duration::from_millis(250);
const SELDOM: Duration = Duration::from_secs(2);
/// Batches looked up in one go.
pub(super) const BATCHES: i64 = 64;
/// Entries read in one go. Each stretch costs the same few statements, however many batches it spans, so that
/// a node that lags reads less per entry than one that keeps up.
const STRETCH: usize = 1_000;

/// Follows the log until the server stops, or earlier where this node can't be brought up to date any more. On SQLite
/// nobody else writes, so only a gap is a reason to read. It ends with the last request and not when shutdown starts,
/// because requests wait for what it reads.
pub(super) async fn follow(db: Db, tail: Arc<Tail>, mut hub: Hub, shutdown: Shutdown) {
    let alone = db.engine() == Engine::Sqlite;
    loop {
        // Decided anew in each round: Redis comes and goes.
        let pause = if hub.is_connected() { SELDOM } else { POLL };
        tokio::select! {
            () = shutdown.requests_done() => return,
            () = tail.gap() => {}
            last = hub.heard() => if last <= tail.reached() { continue },
            () = tokio::time::sleep(pause), if !alone => {}
        }
        match catch_up(&db, &tail).await {
            Ok(Caught::Up) => {}
            Ok(Caught::TooLate) => {
                tracing::error!(
                    reached = tail.reached().0,
                    "what came next in the log has been pruned while this node was away: it has to start anew"
                );
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "the log could not be followed; trying again");
                tokio::time::sleep(POLL).await;
                // On SQLite nobody else would ask.
                tail.look();
            }
        }
    }
}

/// What became of catching up with the log.
#[derive(Debug, PartialEq, Eq)]
enum Caught {
    Up,
    /// What comes next has been pruned: this node was silent for so long that nothing was kept for it.
    TooLate,
}

/// Reads everything after what this node has read.
async fn catch_up(db: &Db, tail: &Tail) -> DbResult<Caught> {
    loop {
        // One state of the data for rows and tables: an entry whose thing was replaced between two statements would be
        // lost.
        let mut snapshot = db.snapshot().await?;
        let mut rows = store::log::batches_after(&mut snapshot, tail.reached(), BATCHES).await?;
        let more = rows.len() == usize::try_from(BATCHES).unwrap_or(usize::MAX);
        // What this node wrote itself meanwhile has been read.
        rows.retain(|row| row.last > tail.reached());
        // Nothing of this stretch has been handed out yet, so readers have no hole: they have simply stopped.
        if rows.iter().any(BatchRow::is_pruned) {
            return Ok(Caught::TooLate);
        }
        for stretch in stretches(rows.into_iter()) {
            for batch in read(&mut snapshot, stretch).await? {
                tail.publish(Arc::new(batch));
            }
        }
        if !more {
            return Ok(Caught::Up);
        }
    }
}

/// Cuts batches into stretches of about [`STRETCH`] entries.
fn stretches(rows: impl Iterator<Item = BatchRow>) -> Vec<Vec<BatchRow>> {
    let mut stretches = Vec::new();
    let mut room = 0;
    for row in rows {
        if room == 0 {
            stretches.push(Vec::new());
            room = STRETCH;
        }
        room = room.saturating_sub(row.entries.len());
        if let Some(stretch) = stretches.last_mut() {
            stretch.push(row);
        }
    }
    stretches
}

/// Batches that follow each other, as their writers handed them out, from their rows and the tables.
async fn read(conn: &mut Conn, rows: Vec<BatchRow>) -> DbResult<Vec<Batch>> {
    let Some(first) = rows.first().map(|row| row.first) else { return Ok(Vec::new()) };
    let mut batches = Vec::with_capacity(rows.len());
    let mut entries = Vec::new();
    for row in rows {
        batches.push((row.first, row.last, row.mark, row.entries.len()));
        entries.extend(row.entries);
    }
    let mut news = read_entries(conn, first, entries).await?.into_iter();
    let batch = |(first, last, mark, length)| Batch { first, last, mark, news: news.by_ref().take(length).collect() };
    Ok(batches.into_iter().map(batch).collect())
}

/// Entries that follow each other from a place on, complete.
pub(super) async fn read_entries(conn: &mut Conn, first: Position, entries: Vec<Entry>) -> DbResult<Vec<News>> {
    let places = (first.0..).map(Position).take(entries.len());
    let has_events = entries.iter().any(|entry| matches!(entry, Entry::Event(_)));
    let mut news = kind::read(conn, places.clone().zip(entries)).await?;
    if let Some(last) = places.clone().last().filter(|_| has_events) {
        let events = read_events(conn, first, last).await?;
        news.extend(events.into_iter().map(|(at, logged)| (at, News::Event(Arc::new(logged)))));
    }
    // What has been replaced since stands at a later place and is read there.
    Ok(places.map(|at| news.remove(&at).unwrap_or(News::Superseded)).collect())
}

fn as_list<T>(set: HashSet<T>) -> Vec<T> {
    set.into_iter().collect()
}

/// The events of a stretch with what they changed, by place.
async fn read_events(conn: &mut Conn, first: Position, last: Position) -> DbResult<HashMap<Position, Logged>> {
    let stored = store::event::list_between(conn, first, last).await?;
    let rooms: HashSet<&RoomId> = stored.iter().map(|event| event.pdu.room_id()).collect();
    let changed = store::state::changes_of(conn, &as_list(rooms), first, last).await?;
    let mut highlights: HashMap<Position, Vec<OwnedUserId>> = HashMap::new();
    let mut highlights_everybody = HashSet::new();
    for (at, user) in store::attention::highlights_between(conn, first, last).await? {
        match user {
            Some(user) => highlights.entry(at).or_default().push(user),
            None => drop(highlights_everybody.insert(at)),
        }
    }
    let mut pdus: HashMap<EventKey, Arc<Pdu>> =
        stored.iter().map(|event| (event.key, Arc::clone(&event.pdu))).collect();
    let older = changed.iter().filter_map(|(_, key)| key.event).filter(|key| !pdus.contains_key(key));
    // State may come to hold an event from long before, for instance where a conflict of state is resolved.
    let older: HashSet<i64> = older.map(|key| key.0).collect();
    if !older.is_empty() {
        let older = store::event::list_at(conn, &as_list(older)).await?;
        pdus.extend(older.into_iter().map(|event| (event.key, event.pdu)));
    }
    let mut changes: HashMap<Position, Vec<StateChange>> = HashMap::new();
    for (at, KeyAt { kind, state_key, event }) in changed {
        let event = event.and_then(|key| pdus.get(&key).cloned());
        changes.entry(at).or_default().push(StateChange { kind, state_key, event });
    }
    let mut events = HashMap::with_capacity(stored.len());
    for event in stored {
        let redacted = redacted_by(conn, &event.pdu).await?;
        // Whatever stands in the log has its position for a key.
        let at = Position(event.key.0);
        let (changes, highlights) =
            (changes.remove(&at).unwrap_or_default(), highlights.remove(&at).unwrap_or_default());
        let highlights_everybody = highlights_everybody.contains(&at);
        events.insert(at, Logged { at, stored: event, changes, highlights, highlights_everybody, redacted });
    }
    Ok(events)
}

/// The event that a redaction has redacted, as it stands now. None where the redaction has redacted nothing, or another
/// redaction of the event came first: an event is redacted once.
async fn redacted_by(conn: &mut Conn, pdu: &Pdu) -> DbResult<Option<Arc<Pdu>>> {
    if *pdu.kind() != TimelineEventType::RoomRedaction {
        return Ok(None);
    }
    let target = match pdu.redacts() {
        Some(target) => store::event::find(conn, target).await?,
        // Redacted itself, it no longer says what it redacts in every room version.
        None => store::redaction::find_target(conn, pdu.event_id()).await?,
    };
    let is_its_doing =
        |target: &Arc<Pdu>| target.redacted_because().is_some_and(|because| because.event_id() == pdu.event_id());
    Ok(target.map(|target| target.pdu).filter(is_its_doing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{db::testing, log::marks::Recent};

    #[tokio::test]
    async fn a_node_for_which_nothing_was_kept_notices() {
        for database in testing::databases().await {
            let db = database.db();
            let mut tx = db.begin().await.unwrap();
            for place in 1..=3 {
                let (at, entry) = (Position(place), Entry::Listing(ruma::room_id!("!a:here").to_owned()));
                store::log::insert_batch(&mut tx, at, at, &format!("batch {place}"), &[entry]).await.unwrap();
            }
            store::log::empty_batches(&mut tx, Position(0), Position(2)).await.unwrap();
            tx.commit().await.unwrap();
            for (reached, outcome) in [(0, Caught::TooLate), (1, Caught::TooLate), (2, Caught::Up), (3, Caught::Up)] {
                let tail = Tail::default();
                tail.start_at(Position(reached), Recent::default());
                let ends_at = if outcome == Caught::Up { 3 } else { reached };
                assert_eq!((catch_up(db, &tail).await.unwrap(), tail.reached()), (outcome, Position(ends_at)));
            }
            database.close().await;
        }
    }
}
