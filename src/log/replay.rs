//! Batches that this node did not write: read from the database, in order, as their writer told its own readers.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use ruma::RoomId;

use super::Tail;
use crate::{
    db::{Conn, Db, DbResult, Engine},
    event::{Logged, StateChange, Stored},
    fact::{Batch, Entry, News, Presence, Typing},
    hub::Hub,
    position::Position,
    store::{self, log::BatchRow},
    tasks::Shutdown,
};

/// How often the end of the log is looked up where nobody tells of other nodes' batches, and where somebody does.
const POLL: Duration = Duration::from_millis(250);
const SELDOM: Duration = Duration::from_secs(2);
/// Batches read in one go.
const BATCHES: i64 = 64;

/// Follows the log until the server stops. On SQLite nobody else writes, so only a gap is a reason to read.
pub(super) async fn follow(db: Db, tail: Arc<Tail>, mut hub: Hub, shutdown: Shutdown) {
    let alone = db.engine() == Engine::Sqlite;
    loop {
        let pause = if hub.is_connected() { SELDOM } else { POLL };
        tokio::select! {
            () = shutdown.requests_done() => return,
            () = tail.gap() => {}
            last = hub.heard() => if last <= tail.reached() { continue },
            () = tokio::time::sleep(pause), if !alone => {}
        }
        if let Err(error) = catch_up(&db, &tail).await {
            tracing::warn!(%error, "the log could not be followed; trying again");
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Reads everything after what this node has read.
async fn catch_up(db: &Db, tail: &Tail) -> DbResult<()> {
    loop {
        let mut snapshot = db.snapshot().await?;
        let rows = store::log::batches_after(&mut snapshot, tail.reached(), BATCHES).await?;
        let more = rows.len() == usize::try_from(BATCHES).unwrap_or(usize::MAX);
        for row in rows {
            if row.last > tail.reached() {
                tail.publish(Arc::new(read(&mut snapshot, row).await?));
            }
        }
        if !more {
            return Ok(());
        }
    }
}

/// A batch as its writer told it, from its row and the tables.
async fn read(conn: &mut Conn, row: BatchRow) -> DbResult<Batch> {
    let mut events = read_events(conn, &row).await?;
    let mut news = Vec::with_capacity(row.entries.len());
    for (at, entry) in (row.first.0..).map(Position).zip(row.entries) {
        let one = match entry {
            Entry::Event(_) => events.remove(&at).map(|logged| News::Event(Arc::new(logged))),
            Entry::Receipt(room_id, user_id) => {
                // One that has been replaced since stands at a later place and is told there.
                let found = store::ephemeral::receipts_between(conn, &room_id, &user_id, at, at).await?;
                found.into_iter().next().map(|(_, receipt)| News::Receipt(Arc::new(receipt)))
            }
            Entry::AccountData(user_id, room_id) => {
                let data = store::account_data::list_since(conn, &user_id, at.before()).await?;
                let found = data.into_iter().find(|(position, data)| *position == at && data.room_id == room_id);
                found.map(|(_, data)| News::AccountData(Arc::new(data)))
            }
            Entry::Typing(room_id, user_id) => {
                let found = store::ephemeral::find_typing(conn, &room_id, &user_id).await?;
                let typing = found.map_or(Typing { room_id, user_id, until: None }, |(_, typing)| typing);
                Some(News::Typing(Arc::new(typing)))
            }
            Entry::Presence(user_id) => {
                let found = store::ephemeral::find_presence(conn, &user_id).await?;
                found.map(|(_, presence): (_, Presence)| News::Presence(Arc::new(presence)))
            }
            Entry::Forgotten(user_id, room_id) => Some(News::Forgotten { user_id, room_id }),
            Entry::Devices(user_id) => Some(News::Devices { user_id }),
            Entry::Listing(room_id) => Some(News::Listing { room_id }),
        };
        news.push(one.unwrap_or(News::Superseded));
    }
    Ok(Batch { first: row.first, last: row.last, news })
}

/// The batch's events with what they changed, by place.
async fn read_events(conn: &mut Conn, row: &BatchRow) -> DbResult<HashMap<Position, Logged>> {
    if !row.entries.iter().any(|entry| matches!(entry, Entry::Event(_))) {
        return Ok(HashMap::new());
    }
    let stored = store::event::list_between(conn, row.first, row.last).await?;
    let rooms: HashSet<&RoomId> = stored.iter().map(|event| event.pdu.room_id()).collect();
    let rooms: Vec<&RoomId> = rooms.into_iter().collect();
    let changes = store::state::changes_of(conn, &rooms, row.first, row.last).await?;
    let mut highlights = store::event::highlights_between(conn, row.first, row.last).await?;
    let known: HashMap<Position, &Stored> = stored.iter().map(|event| (event.position, event)).collect();
    let older: HashSet<i64> =
        changes.iter().filter_map(|(_, key)| key.event).filter(|at| !known.contains_key(at)).map(|at| at.0).collect();
    let older = store::event::list_at(conn, &older.into_iter().collect::<Vec<_>>()).await?;
    let pdus: HashMap<Position, _> =
        stored.iter().chain(&older).map(|event| (event.position, Arc::clone(&event.pdu))).collect();
    let mut events = HashMap::new();
    for event in stored {
        let redacted = match event.pdu.redacts() {
            Some(target) => store::event::find(conn, target).await?.map(|target| target.pdu).filter(|target| {
                target.redacted_because().is_some_and(|because| because.event_id() == event.pdu.event_id())
            }),
            None => None,
        };
        let at = event.position;
        let changes = changes.iter().filter(|(from, _)| *from == at).map(|(_, key)| StateChange {
            kind: key.kind.clone(),
            state_key: key.state_key.clone(),
            event: key.event.and_then(|place| pdus.get(&place).cloned()),
        });
        let changes = changes.collect();
        let mine = highlights.extract_if(.., |(place, _)| *place == at).map(|(_, user)| user).collect();
        events.insert(at, Logged { stored: event, changes, highlights: mine, redacted });
    }
    Ok(events)
}
