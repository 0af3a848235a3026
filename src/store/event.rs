//! `events`: every event that is known, whatever its standing.
//!
//! `position` is the event's key, `room_order` its place in its room. An event has one row. A redaction changes it, and
//! `missing` changes when events come that fill the gap before it. Transaction ids are found by their hash, because
//! they may be long, and then compared.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use aws_lc_rs::digest;
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, OwnedTransactionId, RoomId, RoomVersionId, UserId, events::TimelineEventType,
};

use super::moment::Moment;
use crate::{
    db::{Column, ColumnType, Conn, DbError, DbResult, Insert, Row, Statement, Tx, Value, args, statements},
    event::{Pdu, Standing, Stored, Transaction, TransactionOrigin},
    ground::{
        position::{EventKey, Order, Position},
        room_version,
    },
};

statements! {
    FIND_EVENT = "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces, e.room_order, e.missing IS NOT NULL
        FROM events e JOIN rooms r ON r.room_id = e.room_id WHERE e.event_id = $1";
    LIST_EVENTS = "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces, e.room_order, e.missing IS NOT NULL
        FROM events e JOIN rooms r ON r.room_id = e.room_id WHERE e.event_id IN LIST($1)";
    LIST_EVENTS_AT = "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces, e.room_order, e.missing IS NOT NULL
        FROM events e JOIN rooms r ON r.room_id = e.room_id WHERE e.position IN LIST($1)";
    /// Only what the event itself is.
    LIST_PDUS_AT = "SELECT e.position, e.event_id, e.json, r.version, e.redacted_by
        FROM events e JOIN rooms r ON r.room_id = e.room_id WHERE e.position IN LIST($1)";
    LIST_EVENTS_IN = "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces, e.room_order, e.missing IS NOT NULL
        FROM events e JOIN rooms r ON r.room_id = e.room_id WHERE e.room_id = $1 AND e.room_order IN LIST($2)";
    LIST_WITH_GAPS = "SELECT room_id, MAX(room_order) FROM events
        WHERE room_id IN LIST($1) AND missing IS NOT NULL GROUP BY room_id";
    LIST_JSON_AT = "SELECT position, json FROM events WHERE position IN LIST($1)";
    EVENTS_BETWEEN = "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces, e.room_order, e.missing IS NOT NULL
        FROM events e JOIN rooms r ON r.room_id = e.room_id WHERE e.position >= $1 AND e.position <= $2 ORDER BY e.position";
    /// Downwards: the newest at or below $2, above $3. Those that are accepted are asked for with `< 1`: of an equation
    /// `PostgreSQL` expects next to nothing before it knows the table, and would sort the whole room.
    ROOM_BACKWARD = "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces, e.room_order, e.missing IS NOT NULL
        FROM events e JOIN rooms r ON r.room_id = e.room_id
        WHERE e.room_id = $1 AND e.room_order <= $2 AND e.room_order > $3 AND e.standing < 1 ORDER BY e.room_order DESC LIMIT $4";
    /// Upwards: the oldest above $2, at or below $3.
    ROOM_FORWARD = "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces, e.room_order, e.missing IS NOT NULL
        FROM events e JOIN rooms r ON r.room_id = e.room_id
        WHERE e.room_id = $1 AND e.room_order > $2 AND e.room_order <= $3 AND e.standing < 1 ORDER BY e.room_order LIMIT $4";
    /// Around some places at once: in each room the newest after one place and up to another, $2 of them, and the oldest
    /// after a third and up to a fourth, $3 of them.
    AROUND_EACH = "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces, e.room_order, e.missing IS NOT NULL
        FROM json_each($1) w CROSS JOIN events e CROSS JOIN rooms r WHERE e.position IN (
            SELECT position FROM (SELECT position FROM events
                WHERE room_id = w.value ->> 0 AND room_order > w.value ->> 1 AND room_order <= w.value ->> 2 AND standing < 1
                ORDER BY room_order DESC LIMIT $2) before
            UNION ALL SELECT position FROM (SELECT position FROM events
                WHERE room_id = w.value ->> 0 AND room_order > w.value ->> 3 AND room_order <= w.value ->> 4 AND standing < 1
                ORDER BY room_order LIMIT $3) after)
            AND r.room_id = e.room_id"
        | "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces, e.room_order, e.missing IS NOT NULL
        FROM jsonb_array_elements(CAST($1 AS jsonb)) w JOIN rooms r ON r.room_id = w.value ->> 0
        CROSS JOIN LATERAL (
            (SELECT * FROM events WHERE room_id = w.value ->> 0 AND room_order > CAST(w.value ->> 1 AS BIGINT)
                AND room_order <= CAST(w.value ->> 2 AS BIGINT) AND standing < 1 ORDER BY room_order DESC LIMIT $2)
            UNION ALL (SELECT * FROM events WHERE room_id = w.value ->> 0 AND room_order > CAST(w.value ->> 3 AS BIGINT)
                AND room_order <= CAST(w.value ->> 4 AS BIGINT) AND standing < 1 ORDER BY room_order LIMIT $3)) e";
    REPLACE_IN_STATE = "UPDATE state_versions SET event_position = $2 WHERE event_position = $1 AND event_position < 0";
    REPLACE_IN_FORKS = "UPDATE state_fork_changes SET event_position = $2 WHERE event_position = $1 AND event_position < 0";
    /// Nothing where it has been redacted ($2: and what takes its place is not).
    DELETE_OUTLIER = "DELETE FROM events WHERE position = $1 AND (redacted_by IS NULL OR NOT $2)";
    KEYS = "SELECT event_id, position FROM events WHERE event_id IN LIST($1)";
    /// Nobody else redacts or places them until the transaction ends. SQLite has one writer.
    LOCK_KNOWN = "SELECT event_id, position, room_order, redacted_by IS NOT NULL FROM events WHERE event_id IN LIST($1)
        ORDER BY position FOR UPDATE";
    ORDERS = "SELECT event_id, room_order FROM events WHERE event_id IN LIST($1)";
    BY_TRANSACTIONS = "SELECT txn_hash, txn_id, event_id FROM events WHERE txn_hash IN LIST($1)";
}

const EVENT_COLUMNS: &[(&str, ColumnType)] = &[
    ("position", ColumnType::Int),
    ("room_order", ColumnType::Int),
    ("missing", ColumnType::Text),
    ("event_id", ColumnType::Text),
    ("room_id", ColumnType::Text),
    ("sender", ColumnType::Text),
    ("standing", ColumnType::Int),
    ("fork", ColumnType::Int),
    ("notifies", ColumnType::Bool),
    ("thread_root", ColumnType::Text),
    ("device_id", ColumnType::Text),
    ("txn_id", ColumnType::Text),
    ("txn_hash", ColumnType::Int),
    ("replaces", ColumnType::Text),
    ("newest_ts", ColumnType::Int),
    ("late_ts", ColumnType::Int),
    ("redacted_by", ColumnType::Text),
    ("json", ColumnType::Text),
];

static INSERT_EVENTS: Insert = Insert::new("INSERT_EVENTS", "events", EVENT_COLUMNS, "");

/// Somebody else may have written the same meanwhile.
static INSERT_UNKNOWN_EVENTS: Insert =
    Insert::new("INSERT_UNKNOWN_EVENTS", "events", EVENT_COLUMNS, "ON CONFLICT (event_id) DO NOTHING");

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&INSERT_EVENTS, &INSERT_UNKNOWN_EVENTS];

/// An event on its way into the table.
pub(crate) struct NewRow<'a> {
    pub(crate) key: EventKey,
    /// [`Order::START`] of an outlier.
    pub(crate) order: Order,
    /// Those of the events that it follows which are not here.
    pub(crate) missing: &'a [OwnedEventId],
    pub(crate) pdu: &'a Pdu,
    pub(crate) standing: Standing,
    pub(crate) fork: Option<EventKey>,
    pub(crate) notifies: bool,
    pub(crate) thread_root: Option<&'a EventId>,
    pub(crate) transaction: Option<&'a Transaction>,
    pub(crate) replaces: Option<&'a EventId>,
    /// None of what never came through the log: it is found by its own timestamp alone.
    pub(crate) moment: Option<Moment>,
}

impl NewRow<'_> {
    fn late_ts(&self) -> Option<i64> {
        match self.moment {
            Some(moment) => moment.late_ts,
            None => (self.standing == Standing::Accepted).then(|| self.pdu.origin_server_ts().get().into()),
        }
    }
}

pub(crate) async fn insert(tx: &mut Tx, rows: &[NewRow<'_>]) -> DbResult<()> {
    insert_with(tx, &INSERT_EVENTS, rows).await
}

/// Adds those that are not known by their identifiers.
pub(crate) async fn insert_unless_known(tx: &mut Tx, rows: &[NewRow<'_>]) -> DbResult<()> {
    insert_with(tx, &INSERT_UNKNOWN_EVENTS, rows).await
}

async fn insert_with(tx: &mut Tx, insert: &'static Insert, rows: &[NewRow<'_>]) -> DbResult<()> {
    let missing: Vec<Option<String>> =
        rows.iter().map(|row| (!row.missing.is_empty()).then(|| serde_json::json!(row.missing).to_string())).collect();
    let columns = [
        Column::ints(rows.iter().map(|row| row.key.0)),
        Column::ints(rows.iter().map(|row| row.order.0)),
        Column::Texts(missing.iter().map(Option::as_deref).collect()),
        Column::texts(rows.iter().map(|row| row.pdu.event_id().as_str())),
        Column::texts(rows.iter().map(|row| row.pdu.room_id().as_str())),
        Column::texts(rows.iter().map(|row| row.pdu.sender().as_str())),
        Column::ints(rows.iter().map(|row| row.standing as i64)),
        Column::Ints(rows.iter().map(|row| row.fork.map(|fork| fork.0)).collect()),
        Column::Bools(rows.iter().map(|row| row.notifies).collect()),
        Column::Texts(rows.iter().map(|row| row.thread_root.map(EventId::as_str)).collect()),
        Column::Texts(rows.iter().map(|row| row.transaction.and_then(|t| t.origin.column())).collect()),
        Column::Texts(rows.iter().map(|row| row.transaction.map(|t| t.transaction_id.as_str())).collect()),
        Column::Ints(rows.iter().map(|row| row.transaction.map(|t| transaction_hash_of(row.pdu, t))).collect()),
        Column::Texts(rows.iter().map(|row| row.replaces.map(EventId::as_str)).collect()),
        Column::Ints(rows.iter().map(|row| row.moment.map(|moment| moment.newest_ts)).collect()),
        Column::Ints(rows.iter().map(NewRow::late_ts).collect()),
        Column::Texts(rows.iter().map(|row| row.pdu.redacted_because().map(|pdu| pdu.event_id().as_str())).collect()),
        Column::texts(rows.iter().map(|row| row.pdu.json().get())),
    ];
    tx.insert(insert, &columns).await
}

/// Makes place for events that were outliers until now, or stood elsewhere: each with its key until now and from now on.
///
/// An outlier that has been redacted since the caller read it stays, so that the event that is to take its place can't be
/// inserted: a conflict.
pub(crate) async fn replace_outliers(tx: &mut Tx, outliers: &[(EventKey, EventKey, &Pdu)]) -> DbResult<()> {
    let mut outliers: Vec<&(EventKey, EventKey, &Pdu)> = outliers.iter().collect();
    // In the order in which everybody locks events.
    outliers.sort_unstable_by_key(|(old, ..)| *old);
    for (old, new, pdu) in outliers {
        tx.execute(&REPLACE_IN_STATE, args![old.0, new.0]).await?;
        tx.execute(&REPLACE_IN_FORKS, args![old.0, new.0]).await?;
        tx.execute(&DELETE_OUTLIER, args![old.0, pdu.redacted_because().is_none()]).await?;
    }
    Ok(())
}

/// A transaction id holds for one origin and one path: sender, room and event type.
fn transaction_hash(sender: &UserId, room_id: &RoomId, kind: &TimelineEventType, transaction: &Transaction) -> i64 {
    let kind = kind.to_string();
    let origin = transaction.origin.key();
    let parts = [sender.as_str(), &origin, room_id.as_str(), &kind, transaction.transaction_id.as_str()];
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part.as_bytes());
        context.update(b"\0");
    }
    let hash = context.finish();
    hash.as_ref().first_chunk().map_or(0, |first| i64::from_be_bytes(*first))
}

fn transaction_hash_of(pdu: &Pdu, transaction: &Transaction) -> i64 {
    transaction_hash(pdu.sender(), pdu.room_id(), pdu.kind(), transaction)
}

/// The event that a transaction has already made, if it has.
pub(crate) async fn find_by_transaction(
    conn: &mut Conn,
    sender: &UserId,
    room_id: &RoomId,
    kind: &TimelineEventType,
    transaction: &Transaction,
) -> DbResult<Option<OwnedEventId>> {
    let hashes = [transaction_hash(sender, room_id, kind, transaction)];
    for row in conn.list(&BY_TRANSACTIONS, args![&hashes[..]]).await? {
        if row.get::<String>(1)? == transaction.transaction_id.as_str() {
            return row.get(2).map(Some);
        }
    }
    Ok(None)
}

/// For each transaction the event that it has already made, if it has.
pub(crate) async fn list_by_transactions(
    conn: &mut Conn,
    transactions: &[(&Pdu, &Transaction)],
) -> DbResult<Vec<Option<OwnedEventId>>> {
    if transactions.is_empty() {
        return Ok(Vec::new());
    }
    let hashes: Vec<i64> =
        transactions.iter().map(|(pdu, transaction)| transaction_hash_of(pdu, transaction)).collect();
    let mut found: HashMap<(i64, String), OwnedEventId> = HashMap::new();
    for row in conn.list(&BY_TRANSACTIONS, args![&hashes]).await? {
        found.insert((row.get(0)?, row.get(1)?), row.get(2)?);
    }
    if found.is_empty() {
        return Ok(vec![None; transactions.len()]);
    }
    let keys = hashes.into_iter().zip(transactions.iter().map(|(_, t)| t.transaction_id.to_string()));
    Ok(keys.map(|key| found.get(&key).cloned()).collect())
}

pub(crate) async fn find(conn: &mut Conn, event_id: &EventId) -> DbResult<Option<Stored>> {
    Ok(read(conn, &FIND_EVENT, args![event_id]).await?.pop())
}

/// Those of the events that are known, in no particular order.
pub(crate) async fn list(conn: &mut Conn, event_ids: &[&EventId]) -> DbResult<Vec<Stored>> {
    let ids: Vec<&str> = event_ids.iter().map(|id| id.as_str()).collect();
    read(conn, &LIST_EVENTS, args![&ids]).await
}

/// The events with these keys, in no particular order.
pub(crate) async fn list_at(conn: &mut Conn, keys: &[i64]) -> DbResult<Vec<Stored>> {
    read(conn, &LIST_EVENTS_AT, args![keys]).await
}

/// The events at some places of a room, in no particular order. Most are found by their key, which costs both engines
/// less: without statistics `PostgreSQL` would read the whole room.
pub(crate) async fn list_in(conn: &mut Conn, room_id: &RoomId, orders: &[Order]) -> DbResult<Vec<Stored>> {
    let keys: Vec<i64> = orders.iter().filter_map(|order| order.key()).map(|key| key.0).collect();
    let mut events = if keys.is_empty() { Vec::new() } else { list_at(conn, &keys).await? };
    events.retain(|event| event.pdu.room_id() == room_id);
    let out_of_gaps: Vec<i64> = orders.iter().filter(|order| order.key().is_none()).map(|order| order.0).collect();
    if !out_of_gaps.is_empty() {
        events.extend(read(conn, &LIST_EVENTS_IN, args![room_id, &out_of_gaps]).await?);
    }
    Ok(events)
}

/// The events with these keys alone, with what redacted them.
pub(crate) async fn list_pdus_at(conn: &mut Conn, keys: &[i64]) -> DbResult<HashMap<EventKey, Arc<Pdu>>> {
    let mut pdus = HashMap::with_capacity(keys.len());
    let mut redacted: Vec<(EventKey, OwnedEventId)> = Vec::new();
    for row in conn.list(&LIST_PDUS_AT, args![keys]).await? {
        let at = EventKey(row.get(0)?);
        redacted.extend(row.get::<Option<OwnedEventId>>(4)?.map(|because| (at, because)));
        pdus.insert(at, pdu(&row, 1)?);
    }
    let redactions = pdus_by_id(conn, redacted.iter().map(|(_, because)| &**because)).await?;
    for (at, because) in redacted {
        if let (Some(pdu), Some(because)) = (pdus.get_mut(&at), redactions.get(&because)) {
            *pdu = Arc::new(Pdu::clone(pdu).with_redacted_because(Arc::clone(because)));
        }
    }
    Ok(pdus)
}

/// Events by their identifiers, without what redacted them.
async fn pdus_by_id(
    conn: &mut Conn,
    event_ids: impl Iterator<Item = &EventId>,
) -> DbResult<HashMap<OwnedEventId, Arc<Pdu>>> {
    let ids: Vec<&str> = event_ids.map(EventId::as_str).collect();
    let mut pdus = HashMap::with_capacity(ids.len());
    if !ids.is_empty() {
        for row in conn.list(&LIST_EVENTS, args![&ids]).await? {
            pdus.insert(row.get(1)?, pdu(&row, 1)?);
        }
    }
    Ok(pdus)
}

/// The JSON alone of the events with these keys, in no particular order.
pub(crate) async fn list_json_at(conn: &mut Conn, keys: &[i64]) -> DbResult<Vec<(EventKey, String)>> {
    let rows = conn.list(&LIST_JSON_AT, args![keys]).await?;
    rows.iter().map(|row| Ok((EventKey(row.get(0)?), row.get(1)?))).collect()
}

/// Every event of a stretch of the log, whatever its standing.
pub(crate) async fn list_between(conn: &mut Conn, first: Position, last: Position) -> DbResult<Vec<Stored>> {
    read(conn, &EVENTS_BETWEEN, args![first.0, last.0]).await
}

/// Accepted events of a room, newest first: at or before `from`, after `until`.
pub(crate) async fn list_backward(
    conn: &mut Conn,
    room_id: &RoomId,
    from: Order,
    until: Order,
    limit: i64,
) -> DbResult<Vec<Stored>> {
    read(conn, &ROOM_BACKWARD, args![room_id, from.0, until.0, limit]).await
}

/// Accepted events of a room, oldest first: after `from`, at or before `until`.
pub(crate) async fn list_forward(
    conn: &mut Conn,
    room_id: &RoomId,
    from: Order,
    until: Order,
    limit: i64,
) -> DbResult<Vec<Stored>> {
    read(conn, &ROOM_FORWARD, args![room_id, from.0, until.0, limit]).await
}

/// Those of the rooms of which events are not here, each with the place of the newest event that follows such.
pub(crate) async fn list_with_gaps(conn: &mut Conn, rooms: &[&RoomId]) -> DbResult<Vec<(OwnedRoomId, Order)>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    let rows = conn.list(&LIST_WITH_GAPS, args![&rooms]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, Order(row.get(1)?)))).collect()
}

/// Those that read a room in its order.
#[cfg(test)]
pub(super) static IN_ORDER: [&Statement; 3] = [&ROOM_BACKWARD, &ROOM_FORWARD, &AROUND_EACH];

/// A part of a room, after one place and up to another, and how many events of it are wanted at most.
pub(crate) type LogRange = ((Order, Order), usize);

/// What is wanted around a place of a room.
pub(crate) struct ContextRange {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) before: LogRange,
    pub(crate) after: LogRange,
}

/// Accepted events around some places: for each those before it, newest first, and those after it, oldest first.
pub(crate) async fn list_around_each(
    conn: &mut Conn,
    places: &[&ContextRange],
) -> DbResult<Vec<(Vec<Arc<Stored>>, Vec<Arc<Stored>>)>> {
    let greatest = |mosts: &mut dyn Iterator<Item = usize>| i64::try_from(mosts.max().unwrap_or(0)).unwrap_or(i64::MAX);
    let most_before = greatest(&mut places.iter().map(|place| place.before.1));
    let most_after = greatest(&mut places.iter().map(|place| place.after.1));
    let wanted = places.iter().map(|ContextRange { room_id, before: (before, _), after: (after, _) }| {
        serde_json::json!([room_id, before.0, before.1, after.0, after.1])
    });
    let wanted = serde_json::Value::Array(wanted.collect()).to_string();
    // Places that lie close together have some of them in common.
    let mut rooms: HashMap<OwnedRoomId, BTreeMap<Order, Arc<Stored>>> = HashMap::new();
    for event in read(conn, &AROUND_EACH, args![&wanted, most_before, most_after]).await? {
        rooms.entry(event.pdu.room_id().to_owned()).or_default().insert(event.order, Arc::new(event));
    }
    let nothing = BTreeMap::new();
    let each = places.iter().map(|ContextRange { room_id, before, after }| {
        let events = rooms.get(room_id).unwrap_or(&nothing);
        let within = |(after, until): (Order, Order)| {
            events.values().filter(move |event| after < event.order && event.order <= until).cloned()
        };
        (within(before.0).rev().take(before.1).collect(), within(after.0).take(after.1).collect())
    });
    Ok(each.collect())
}

/// The keys of those events that are known.
pub(crate) async fn keys(conn: &mut Conn, event_ids: &[&EventId]) -> DbResult<Vec<(OwnedEventId, EventKey)>> {
    let ids: Vec<&str> = event_ids.iter().map(|id| id.as_str()).collect();
    let rows = conn.list(&KEYS, args![&ids]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, EventKey(row.get(1)?)))).collect()
}

/// An event that is known, as far as it matters to whoever places it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownEvent {
    pub(crate) key: EventKey,
    /// [`Order::START`] of an outlier.
    pub(crate) order: Order,
    pub(crate) is_redacted: bool,
}

/// Those of the events that are known, which stay as they are until the transaction ends.
pub(crate) async fn lock_known(tx: &mut Tx, event_ids: &[&EventId]) -> DbResult<HashMap<OwnedEventId, KnownEvent>> {
    let ids: Vec<&str> = event_ids.iter().map(|id| id.as_str()).collect();
    let rows = tx.list(&LOCK_KNOWN, args![&ids]).await?;
    let known = |row: &Row| {
        let known = KnownEvent { key: EventKey(row.get(1)?), order: Order(row.get(2)?), is_redacted: row.get(3)? };
        Ok((row.get(0)?, known))
    };
    rows.iter().map(known).collect()
}

/// The places of those events that are known, each in its room.
pub(crate) async fn orders(conn: &mut Conn, event_ids: &[&EventId]) -> DbResult<Vec<(OwnedEventId, Order)>> {
    let ids: Vec<&str> = event_ids.iter().map(|id| id.as_str()).collect();
    let rows = conn.list(&ORDERS, args![&ids]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, Order(row.get(1)?)))).collect()
}

/// Runs one of the statements that select whole events, and adds to each what redacted it and what it replaced.
pub(super) async fn read(conn: &mut Conn, statement: &'static Statement, args: &[Value<'_>]) -> DbResult<Vec<Stored>> {
    let rows = conn.list(statement, args).await?;
    let mut events = Vec::with_capacity(rows.len());
    let mut others = HashSet::new();
    for row in &rows {
        let redacted_by: Option<OwnedEventId> = row.get(10)?;
        let replaces: Option<OwnedEventId> = row.get(11)?;
        others.extend(redacted_by.iter().chain(&replaces).cloned());
        events.push((stored(row)?, redacted_by, replaces));
    }
    let pdus = pdus_by_id(conn, others.iter().map(|id| &**id)).await?;
    Ok(events
        .into_iter()
        .map(|(mut event, redacted_by, replaces)| {
            if let Some(redaction) = redacted_by.and_then(|id| pdus.get(&id)) {
                event.pdu = Arc::new(Pdu::clone(&event.pdu).with_redacted_because(Arc::clone(redaction)));
            }
            event.replaces = replaces.and_then(|id| pdus.get(&id).cloned());
            event
        })
        .collect())
}

/// An event alone, of a row that has its identifier, its JSON and its room's version from some column on.
pub(super) fn pdu(row: &Row, first: usize) -> DbResult<Arc<Pdu>> {
    let version: RoomVersionId = row.get(first + 2)?;
    let rules = room_version::rules(&version)
        .ok_or_else(|| DbError::decode(format!("room version {version} is not supported")))?;
    Ok(Arc::new(Pdu::from_stored(row.get(first)?, row.get(first + 1)?, rules).map_err(DbError::decode)?))
}

fn stored(row: &Row) -> DbResult<Stored> {
    let standing: i64 = row.get(4)?;
    let device_id: Option<String> = row.get(6)?;
    let txn_id: Option<String> = row.get(7)?;
    let transaction = device_id.zip(txn_id).map(|(device_id, transaction_id)| Transaction {
        origin: TransactionOrigin::from_column(device_id),
        transaction_id: OwnedTransactionId::from(transaction_id),
    });
    Ok(Stored {
        key: EventKey(row.get(0)?),
        order: Order(row.get(12)?),
        pdu: pdu(row, 1)?,
        standing: Standing::from_i64(standing).ok_or_else(|| DbError::decode(format!("no standing {standing}")))?,
        fork: row.get::<Option<i64>>(5)?.map(EventKey),
        transaction,
        notifies: row.get(8)?,
        thread_root: row.get(9)?,
        replaces: None,
        follows_gap: row.get(13)?,
    })
}
