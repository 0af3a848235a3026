//! Batches that this node did not write: read from the database, in order, as their writer told its own readers.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use ruma::{MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedUserId, RoomId, UserId, events::TimelineEventType};

use super::Tail;
use crate::{
    db::{Conn, Db, DbResult, Engine},
    event::{Logged, Pdu, StateChange},
    fact::{AccountData, Batch, Entry, News, Presence, Receipt, Typing},
    hub::Hub,
    position::Position,
    store::{self, log::BatchRow, state::KeyAt},
    tasks::Shutdown,
};

/// How often the end of the log is looked up where nobody tells of other nodes' batches, and where somebody does.
const POLL: Duration = Duration::from_millis(250);
const SELDOM: Duration = Duration::from_secs(2);
/// Batches looked up in one go.
const BATCHES: i64 = 64;
/// Entries read in one go. Each stretch costs the same few statements, however many batches it spans, so that
/// a node that lags reads less per entry than one that keeps up.
const STRETCH: usize = 1_000;

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
        // What this node wrote itself meanwhile has been told.
        for stretch in stretches(rows.into_iter().skip_while(|row| row.last <= tail.reached())) {
            for batch in read(&mut snapshot, stretch).await? {
                tail.publish(Arc::new(batch));
            }
        }
        if !more {
            return Ok(());
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

/// Batches that follow each other, as their writers told them, from their rows and the tables.
async fn read(conn: &mut Conn, rows: Vec<BatchRow>) -> DbResult<Vec<Batch>> {
    let (Some(first), Some(last)) = (rows.first().map(|row| row.first), rows.last().map(|row| row.last)) else {
        return Ok(Vec::new());
    };
    let entries = || rows.iter().flat_map(|row| &row.entries);
    let mut events = HashMap::new();
    if entries().any(|entry| matches!(entry, Entry::Event(_))) {
        events = read_events(conn, first, last).await?;
    }
    let mut facts = read_facts(conn, entries(), first, last).await?;
    let mut batches = Vec::with_capacity(rows.len());
    for row in rows {
        let news = (row.first.0..).map(Position).zip(row.entries).map(|(at, entry)| {
            let news = match entry {
                Entry::Event(_) => events.remove(&at).map(|logged| News::Event(Arc::new(logged))),
                Entry::Receipt(..) => facts.receipts.remove(&at).map(|receipt| News::Receipt(Arc::new(receipt))),
                Entry::AccountData(..) => facts.account_data.remove(&at).map(|data| News::AccountData(Arc::new(data))),
                Entry::Typing(room_id, user_id) => {
                    let until = facts.typing.get(&(room_id.clone(), user_id.clone())).copied().flatten();
                    Some(News::Typing(Arc::new(Typing { room_id, user_id, until })))
                }
                Entry::Presence(_) => facts.presence.remove(&at).map(|presence| News::Presence(Arc::new(presence))),
                Entry::Forgotten(user_id, room_id) => Some(News::Forgotten { user_id, room_id }),
                Entry::Devices(user_id) if facts.erasures.get(&at) == Some(&user_id) => Some(News::Erased { user_id }),
                Entry::Devices(user_id) => Some(News::Devices { user_id }),
                Entry::Listing(room_id) => Some(News::Listing { room_id }),
            };
            // What has been replaced since stands at a later place and is told there.
            news.unwrap_or(News::Superseded)
        });
        batches.push(Batch { first: row.first, last: row.last, mark: row.mark, news: news.collect() });
    }
    Ok(batches)
}

/// What a stretch of the log holds beside events, by place.
struct Facts {
    receipts: HashMap<Position, Receipt>,
    account_data: HashMap<Position, AccountData>,
    presence: HashMap<Position, Presence>,
    /// As it is now, wherever it stands.
    typing: HashMap<(OwnedRoomId, OwnedUserId), Option<MilliSecondsSinceUnixEpoch>>,
    /// Who was erased where.
    erasures: HashMap<Position, OwnedUserId>,
}

async fn read_facts(
    conn: &mut Conn,
    entries: impl Iterator<Item = &Entry>,
    first: Position,
    last: Position,
) -> DbResult<Facts> {
    let (mut rooms_read, mut owners, mut typists) = (HashSet::new(), HashSet::new(), HashSet::new());
    let (mut presence, mut devices) = (false, false);
    for entry in entries {
        match entry {
            Entry::Receipt(room_id, _) => drop(rooms_read.insert(&**room_id)),
            Entry::AccountData(user_id, _) => drop(owners.insert(&**user_id)),
            Entry::Typing(room_id, user_id) => drop(typists.insert((&**room_id, &**user_id))),
            Entry::Presence(_) => presence = true,
            Entry::Devices(_) => devices = true,
            Entry::Event(_) | Entry::Forgotten(..) | Entry::Listing(_) => {}
        }
    }
    let mut facts = Facts {
        receipts: HashMap::new(),
        account_data: HashMap::new(),
        presence: HashMap::new(),
        typing: HashMap::new(),
        erasures: HashMap::new(),
    };
    if !rooms_read.is_empty() {
        facts.receipts.extend(store::ephemeral::receipts_between(conn, &as_list(rooms_read), first, last).await?);
    }
    if !owners.is_empty() {
        facts.account_data.extend(store::account_data::list_between(conn, &as_list(owners), first, last).await?);
    }
    if !typists.is_empty() {
        let (rooms, users): (HashSet<&RoomId>, HashSet<&UserId>) = typists.into_iter().unzip();
        let found = store::ephemeral::list_typing_of(conn, &as_list(rooms), &as_list(users)).await?;
        facts.typing.extend(found.into_iter().map(|typing| ((typing.room_id, typing.user_id), typing.until)));
    }
    if presence {
        facts.presence.extend(store::ephemeral::presence_between(conn, first.before(), last).await?);
    }
    if devices {
        facts.erasures.extend(store::erasure::list_between(conn, first, last).await?);
    }
    Ok(facts)
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
    for (at, user) in store::event::highlights_between(conn, first, last).await? {
        highlights.entry(at).or_default().push(user);
    }
    let mut pdus: HashMap<Position, Arc<Pdu>> =
        stored.iter().map(|event| (event.position, Arc::clone(&event.pdu))).collect();
    let older = changed.iter().filter_map(|(_, key)| key.event).filter(|at| !pdus.contains_key(at));
    let older: HashSet<i64> = older.map(|at| at.0).collect();
    if !older.is_empty() {
        let older = store::event::list_at(conn, &as_list(older)).await?;
        pdus.extend(older.into_iter().map(|event| (event.position, event.pdu)));
    }
    let mut changes: HashMap<Position, Vec<StateChange>> = HashMap::new();
    for (at, KeyAt { kind, state_key, event }) in changed {
        let event = event.and_then(|place| pdus.get(&place).cloned());
        changes.entry(at).or_default().push(StateChange { kind, state_key, event });
    }
    let mut events = HashMap::with_capacity(stored.len());
    for event in stored {
        let redacted = redacted_by(conn, &event.pdu).await?;
        let at = event.position;
        let (changes, highlights) =
            (changes.remove(&at).unwrap_or_default(), highlights.remove(&at).unwrap_or_default());
        events.insert(at, Logged { stored: event, changes, highlights, redacted });
    }
    Ok(events)
}

/// The event that a redaction has redacted, as it stands now.
async fn redacted_by(conn: &mut Conn, pdu: &Pdu) -> DbResult<Option<Arc<Pdu>>> {
    if *pdu.kind() != TimelineEventType::RoomRedaction {
        return Ok(None);
    }
    let target = match pdu.redacts() {
        Some(target) => store::event::find(conn, target).await?,
        // Redacted itself, it no longer says what it redacts in every room version.
        None => store::event::find_redacted_by(conn, pdu.event_id()).await?,
    };
    let is_its_doing =
        |target: &Arc<Pdu>| target.redacted_because().is_some_and(|because| because.event_id() == pdu.event_id());
    Ok(target.map(|target| target.pdu).filter(is_its_doing))
}
