//! `events` and `highlights`: what was said, and whom it concerns most.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use aws_lc_rs::digest;
use ruma::{
    EventId, OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedTransactionId, OwnedUserId, RoomId, RoomVersionId, UserId,
    events::TimelineEventType,
};

use crate::{
    db::{Column, Conn, DbError, DbResult, Insert, Kind, Row, Statement, Tx, Value, args, statements},
    event::{Pdu, Standing, Stored, Transaction},
    position::{Lineage, Position},
    room_version,
};

statements! {
    FIND_EVENT = "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces
        FROM events e JOIN rooms r ON r.room_id = e.room_id WHERE e.event_id = $1";
    FIND_REDACTED_BY = "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces
        FROM events e JOIN rooms r ON r.room_id = e.room_id WHERE e.redacted_by = $1";
    LIST_EVENTS = "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces
        FROM events e JOIN rooms r ON r.room_id = e.room_id WHERE e.event_id IN LIST($1)";
    LIST_EVENTS_AT = "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces
        FROM events e JOIN rooms r ON r.room_id = e.room_id WHERE e.position IN LIST($1)";
    LIST_JSON_AT = "SELECT position, json FROM events WHERE position IN LIST($1)";
    EVENTS_BETWEEN = "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces
        FROM events e JOIN rooms r ON r.room_id = e.room_id WHERE e.position >= $1 AND e.position <= $2 ORDER BY e.position";
    /// Downwards: the newest at or below $2, above $3. Those that are accepted are asked for with `< 1`: of an equation
    /// `PostgreSQL` expects next to nothing before it knows the table, and would sort the whole room.
    ROOM_BACKWARD = "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces
        FROM events e JOIN rooms r ON r.room_id = e.room_id
        WHERE e.room_id = $1 AND e.position <= $2 AND e.position > $3 AND e.standing < 1 ORDER BY e.position DESC LIMIT $4";
    /// Upwards: the oldest above $2, at or below $3.
    ROOM_FORWARD = "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces
        FROM events e JOIN rooms r ON r.room_id = e.room_id
        WHERE e.room_id = $1 AND e.position > $2 AND e.position <= $3 AND e.standing < 1 ORDER BY e.position LIMIT $4";
    /// Around some places at once: in each room the newest after one place and up to another, $2 of them, and the oldest
    /// after a third and up to a fourth, $3 of them.
    AROUND_EACH = "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces
        FROM json_each($1) w CROSS JOIN events e CROSS JOIN rooms r WHERE e.position IN (
            SELECT position FROM (SELECT position FROM events
                WHERE room_id = w.value ->> 0 AND position > w.value ->> 1 AND position <= w.value ->> 2 AND standing < 1
                ORDER BY position DESC LIMIT $2) before
            UNION ALL SELECT position FROM (SELECT position FROM events
                WHERE room_id = w.value ->> 0 AND position > w.value ->> 3 AND position <= w.value ->> 4 AND standing < 1
                ORDER BY position LIMIT $3) after)
            AND r.room_id = e.room_id"
        | "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces
        FROM jsonb_array_elements(CAST($1 AS jsonb)) w JOIN rooms r ON r.room_id = w.value ->> 0
        CROSS JOIN LATERAL (
            (SELECT * FROM events WHERE room_id = w.value ->> 0 AND position > CAST(w.value ->> 1 AS BIGINT)
                AND position <= CAST(w.value ->> 2 AS BIGINT) AND standing < 1 ORDER BY position DESC LIMIT $2)
            UNION ALL (SELECT * FROM events WHERE room_id = w.value ->> 0 AND position > CAST(w.value ->> 3 AS BIGINT)
                AND position <= CAST(w.value ->> 4 AS BIGINT) AND standing < 1 ORDER BY position LIMIT $3)) e";
    /// Whatever its standing. Those that an older version has written beside this one have no `newest_ts`.
    NEXT_MOMENT = "SELECT position, newest_ts, late_ts, standing FROM events
        WHERE room_id = $1 AND position > $2 AND position <= $3 AND newest_ts IS NOT NULL ORDER BY position LIMIT 1";
    LAST_MOMENT = "SELECT position, newest_ts, late_ts, standing FROM events
        WHERE room_id = $1 AND position > $2 AND position <= $3 AND newest_ts IS NOT NULL ORDER BY position DESC LIMIT 1";
    LATE_FORWARD = "SELECT position, late_ts FROM events
        WHERE room_id = $1 AND late_ts >= $2 AND position > $3 AND position <= $4 ORDER BY late_ts, position LIMIT 1";
    LATE_BACKWARD = "SELECT position, late_ts FROM events
        WHERE room_id = $1 AND late_ts <= $2 AND position > $3 AND position <= $4
        ORDER BY late_ts DESC, position DESC LIMIT 1";
    POSITIONS = "SELECT event_id, position FROM events WHERE event_id IN LIST($1)";
    BY_TRANSACTIONS = "SELECT txn_hash, txn_id, event_id FROM events WHERE txn_hash IN LIST($1)";
    REDACT = "UPDATE events SET json = $2, redacted_by = $3, notifies = FALSE WHERE event_id = $1";
    /// What was redacted no longer asks for attention.
    DELETE_HIGHLIGHTS = "DELETE FROM highlights WHERE position = (SELECT position FROM events WHERE event_id = $1)";
    HIGHLIGHTS_BETWEEN = "SELECT position, user_id FROM highlights WHERE position >= $1 AND position <= $2";
    /// The event of a room, up to $2, that $3 come after.
    NTH_NEWEST = "SELECT position FROM events WHERE room_id = $1 AND position <= $2
        ORDER BY position DESC LIMIT 1 OFFSET $3";
    /// How far $2 has read each thread of a room, by a receipt or by what they have said there ($6: what does not
    /// count as that), and what asks for their attention beyond: in threads after $3, in the main timeline after $4,
    /// both up to $5. What those say whom they ignore ($7) does not, unless it became state of the room ($8: its trunk).
    /// Counted here, because whoever never reads would have all of it carried over.
    COUNT_ATTENTION = "WITH said AS (
            SELECT e.position, '' AS thread, e.notifies AND e.sender <> $2 AS notifies,
                h.position IS NOT NULL AS highlights, e.sender = $2 AND NOT (e.position IN LIST($6)) AS speaks
            FROM events e LEFT JOIN highlights h ON h.user_id = $2 AND h.room_id = $1 AND h.position = e.position
            WHERE e.room_id = $1 AND e.position > $4 AND e.position <= $5 AND e.standing = 0
                AND e.thread_root IS NULL AND (e.notifies OR e.sender = $2 OR h.position IS NOT NULL)
                AND (NOT (e.sender IN LIST($7)) OR EXISTS (SELECT 1 FROM state_versions v
                    WHERE v.lineage = $8 AND v.from_position = e.position AND v.event_position = e.position))
            UNION ALL SELECT e.position, e.thread_root, e.notifies AND e.sender <> $2,
                h.position IS NOT NULL, e.sender = $2 AND NOT (e.position IN LIST($6))
            FROM events e LEFT JOIN highlights h ON h.user_id = $2 AND h.room_id = $1 AND h.position = e.position
            WHERE e.room_id = $1 AND e.position > $3 AND e.position <= $5 AND e.standing = 0
                AND e.thread_root IS NOT NULL AND (e.notifies OR e.sender = $2 OR h.position IS NOT NULL)
                AND (NOT (e.sender IN LIST($7)) OR EXISTS (SELECT 1 FROM state_versions v
                    WHERE v.lineage = $8 AND v.from_position = e.position AND v.event_position = e.position))),
        heard AS (
            SELECT thread, max(place) AS until FROM (
                SELECT thread, position AS place FROM said WHERE speaks
                UNION ALL SELECT CASE thread_id WHEN 'main' THEN '' ELSE thread_id END, event_position FROM receipts
                    WHERE room_id = $1 AND user_id = $2 AND thread_id <> '') AS places
            GROUP BY thread)
        SELECT thread, until, 0, 0, 0 FROM heard
        UNION ALL SELECT s.thread, 0, count(*), sum(CASE WHEN s.highlights THEN 1 ELSE 0 END), max(s.position)
            FROM said s LEFT JOIN heard r ON r.thread = s.thread
            WHERE (s.notifies OR s.highlights) AND s.position > coalesce(r.until, 0) GROUP BY s.thread";
}

static INSERT_EVENTS: Insert = Insert::new(
    "INSERT_EVENTS",
    "events",
    &[
        ("position", Kind::Int),
        ("event_id", Kind::Text),
        ("room_id", Kind::Text),
        ("sender", Kind::Text),
        ("standing", Kind::Int),
        ("fork", Kind::Int),
        ("notifies", Kind::Bool),
        ("thread_root", Kind::Text),
        ("device_id", Kind::Text),
        ("txn_id", Kind::Text),
        ("txn_hash", Kind::Int),
        ("replaces", Kind::Text),
        ("newest_ts", Kind::Int),
        ("late_ts", Kind::Int),
        ("json", Kind::Text),
    ],
    "",
);

static INSERT_HIGHLIGHTS: Insert = Insert::new(
    "INSERT_HIGHLIGHTS",
    "highlights",
    &[("user_id", Kind::Text), ("room_id", Kind::Text), ("position", Kind::Int)],
    "ON CONFLICT DO NOTHING",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&INSERT_EVENTS, &INSERT_HIGHLIGHTS];

/// An event on its way into the table.
pub(crate) struct NewRow<'a> {
    pub(crate) position: Position,
    pub(crate) pdu: &'a Pdu,
    pub(crate) standing: Standing,
    pub(crate) fork: Option<Position>,
    pub(crate) notifies: bool,
    pub(crate) thread_root: Option<&'a EventId>,
    pub(crate) transaction: Option<&'a Transaction>,
    pub(crate) replaces: Option<&'a EventId>,
    pub(crate) moment: Moment,
}

/// How late it was in a room by its accepted events, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// The greatest timestamp up to this event.
    pub(crate) newest_ts: i64,
    /// The event's own timestamp, if it is accepted and did not make it later.
    pub(crate) late_ts: Option<i64>,
}

impl Moment {
    /// What an event makes of it.
    pub(crate) fn then(newest_ts: i64, pdu: &Pdu, standing: Standing) -> Self {
        let ts = i64::from(pdu.origin_server_ts().get());
        match standing {
            Standing::Accepted if ts > newest_ts => Self { newest_ts: ts, late_ts: None },
            Standing::Accepted => Self { newest_ts, late_ts: Some(ts) },
            _ => Self { newest_ts, late_ts: None },
        }
    }
}

pub(crate) async fn insert(tx: &mut Tx, rows: &[NewRow<'_>]) -> DbResult<()> {
    let columns = [
        Column::ints(rows.iter().map(|row| row.position.0)),
        Column::texts(rows.iter().map(|row| row.pdu.event_id().as_str())),
        Column::texts(rows.iter().map(|row| row.pdu.room_id().as_str())),
        Column::texts(rows.iter().map(|row| row.pdu.sender().as_str())),
        Column::ints(rows.iter().map(|row| row.standing as i64)),
        Column::Ints(rows.iter().map(|row| row.fork.map(|fork| fork.0)).collect()),
        Column::Bools(rows.iter().map(|row| row.notifies).collect()),
        Column::Texts(rows.iter().map(|row| row.thread_root.map(EventId::as_str)).collect()),
        Column::Texts(rows.iter().map(|row| row.transaction.map(|t| t.device_id.as_str())).collect()),
        Column::Texts(rows.iter().map(|row| row.transaction.map(|t| t.transaction_id.as_str())).collect()),
        Column::Ints(rows.iter().map(|row| row.transaction.map(|t| transaction_hash_of(row.pdu, t))).collect()),
        Column::Texts(rows.iter().map(|row| row.replaces.map(EventId::as_str)).collect()),
        Column::ints(rows.iter().map(|row| row.moment.newest_ts)),
        Column::Ints(rows.iter().map(|row| row.moment.late_ts).collect()),
        Column::texts(rows.iter().map(|row| row.pdu.json().get())),
    ];
    tx.insert(&INSERT_EVENTS, &columns).await
}

/// A transaction id holds for one device and one path: sender, room and event type.
fn transaction_hash(sender: &UserId, room_id: &RoomId, kind: &TimelineEventType, transaction: &Transaction) -> i64 {
    let kind = kind.to_string();
    let parts =
        [sender.as_str(), transaction.device_id.as_str(), room_id.as_str(), &kind, transaction.transaction_id.as_str()];
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

/// The event that a redaction has redacted.
pub(crate) async fn find_redacted_by(conn: &mut Conn, redaction: &EventId) -> DbResult<Option<Stored>> {
    Ok(read(conn, &FIND_REDACTED_BY, args![redaction]).await?.pop())
}

/// Those of the events that are known, in no particular order.
pub(crate) async fn list(conn: &mut Conn, event_ids: &[&EventId]) -> DbResult<Vec<Stored>> {
    let ids: Vec<&str> = event_ids.iter().map(|id| id.as_str()).collect();
    read(conn, &LIST_EVENTS, args![&ids]).await
}

pub(crate) async fn list_at(conn: &mut Conn, positions: &[i64]) -> DbResult<Vec<Stored>> {
    read(conn, &LIST_EVENTS_AT, args![positions]).await
}

/// The JSON alone of the events at some places, in no particular order.
pub(crate) async fn list_json_at(conn: &mut Conn, positions: &[i64]) -> DbResult<Vec<(Position, String)>> {
    let rows = conn.list(&LIST_JSON_AT, args![positions]).await?;
    rows.iter().map(|row| Ok((Position(row.get(0)?), row.get(1)?))).collect()
}

/// Every event of a stretch of the log, whatever its standing.
pub(crate) async fn list_between(conn: &mut Conn, first: Position, last: Position) -> DbResult<Vec<Stored>> {
    read(conn, &EVENTS_BETWEEN, args![first.0, last.0]).await
}

/// Accepted events of a room, newest first: at or before `from`, after `until`.
pub(crate) async fn list_backward(
    conn: &mut Conn,
    room_id: &RoomId,
    from: Position,
    until: Position,
    limit: i64,
) -> DbResult<Vec<Stored>> {
    read(conn, &ROOM_BACKWARD, args![room_id, from.0, until.0, limit]).await
}

/// Accepted events of a room, oldest first: after `from`, at or before `until`.
pub(crate) async fn list_forward(
    conn: &mut Conn,
    room_id: &RoomId,
    from: Position,
    until: Position,
    limit: i64,
) -> DbResult<Vec<Stored>> {
    read(conn, &ROOM_FORWARD, args![room_id, from.0, until.0, limit]).await
}

/// Those that read a room in the order of the log.
#[cfg(test)]
pub(super) static IN_ORDER: [&Statement; 3] = [&ROOM_BACKWARD, &ROOM_FORWARD, &AROUND_EACH];

/// A part of the log, after one place and up to another, and how many events of it are wanted at most.
pub(crate) type Part = ((Position, Position), usize);

/// What is wanted around a place of a room.
pub(crate) struct Around {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) before: Part,
    pub(crate) after: Part,
}

/// Accepted events around some places: for each those before it, newest first, and those after it, oldest first.
pub(crate) async fn list_around_each(
    conn: &mut Conn,
    places: &[&Around],
) -> DbResult<Vec<(Vec<Arc<Stored>>, Vec<Arc<Stored>>)>> {
    let greatest = |mosts: &mut dyn Iterator<Item = usize>| i64::try_from(mosts.max().unwrap_or(0)).unwrap_or(i64::MAX);
    let most_before = greatest(&mut places.iter().map(|place| place.before.1));
    let most_after = greatest(&mut places.iter().map(|place| place.after.1));
    let wanted = places.iter().map(|Around { room_id, before: (before, _), after: (after, _) }| {
        serde_json::json!([room_id, before.0, before.1, after.0, after.1])
    });
    let wanted = serde_json::Value::Array(wanted.collect()).to_string();
    // Places that lie close together have some of them in common.
    let mut rooms: HashMap<OwnedRoomId, BTreeMap<Position, Arc<Stored>>> = HashMap::new();
    for event in read(conn, &AROUND_EACH, args![&wanted, most_before, most_after]).await? {
        rooms.entry(event.pdu.room_id().to_owned()).or_default().insert(event.position, Arc::new(event));
    }
    let nothing = BTreeMap::new();
    let each = places.iter().map(|Around { room_id, before, after }| {
        let events = rooms.get(room_id).unwrap_or(&nothing);
        let within = |(after, until): (Position, Position)| {
            events.values().filter(move |event| after < event.position && event.position <= until).cloned()
        };
        (within(before.0).rev().take(before.1).collect(), within(after.0).take(after.1).collect())
    });
    Ok(each.collect())
}

/// An event by its time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MomentAt {
    pub(crate) position: Position,
    /// The greatest timestamp up to this event.
    pub(crate) newest_ts: i64,
    /// Whether that is its own, and it is accepted.
    pub(crate) is_newest: bool,
}

/// The first event of a room after `after` up to `until`, whatever its standing.
pub(crate) async fn next_moment(
    conn: &mut Conn,
    room_id: &RoomId,
    after: Position,
    until: Position,
) -> DbResult<Option<MomentAt>> {
    conn.find(&NEXT_MOMENT, args![room_id, after.0, until.0]).await?.as_ref().map(moment_at).transpose()
}

/// The last one.
pub(crate) async fn last_moment(
    conn: &mut Conn,
    room_id: &RoomId,
    after: Position,
    until: Position,
) -> DbResult<Option<MomentAt>> {
    conn.find(&LAST_MOMENT, args![room_id, after.0, until.0]).await?.as_ref().map(moment_at).transpose()
}

/// Of the accepted events of a room after `after` up to `until` that did not make it later there: the closest to `ts`,
/// with its timestamp. At `ts` or before it where `backward`, else at `ts` or after it.
pub(crate) async fn find_late(
    conn: &mut Conn,
    room_id: &RoomId,
    ts: i64,
    backward: bool,
    (after, until): (Position, Position),
) -> DbResult<Option<(i64, Position)>> {
    let statement = if backward { &LATE_BACKWARD } else { &LATE_FORWARD };
    let row = conn.find(statement, args![room_id, ts, after.0, until.0]).await?;
    row.map(|row| Ok((row.get(1)?, Position(row.get(0)?)))).transpose()
}

fn moment_at(row: &Row) -> DbResult<MomentAt> {
    let (late_ts, standing): (Option<i64>, i64) = (row.get(2)?, row.get(3)?);
    let is_newest = late_ts.is_none() && standing == Standing::Accepted as i64;
    Ok(MomentAt { position: Position(row.get(0)?), newest_ts: row.get(1)?, is_newest })
}

/// The places of those events that are known.
pub(crate) async fn positions(conn: &mut Conn, event_ids: &[&EventId]) -> DbResult<Vec<(OwnedEventId, Position)>> {
    let ids: Vec<&str> = event_ids.iter().map(|id| id.as_str()).collect();
    let rows = conn.list(&POSITIONS, args![&ids]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, Position(row.get(1)?)))).collect()
}

/// Puts the redacted form in place of the original, for good.
pub(crate) async fn replace_redacted(conn: &mut Conn, redacted: &Pdu, because: &EventId) -> DbResult<()> {
    conn.execute(&DELETE_HIGHLIGHTS, args![redacted.event_id()]).await?;
    conn.execute(&REDACT, args![redacted.event_id(), redacted.json().get(), because]).await.map(drop)
}

pub(crate) async fn insert_highlights(tx: &mut Tx, highlights: &[(Position, &RoomId, &UserId)]) -> DbResult<()> {
    let columns = [
        Column::texts(highlights.iter().map(|(_, _, user)| user.as_str())),
        Column::texts(highlights.iter().map(|(_, room, _)| room.as_str())),
        Column::ints(highlights.iter().map(|(at, ..)| at.0)),
    ];
    tx.insert(&INSERT_HIGHLIGHTS, &columns).await
}

/// Who is highlighted by which event of a stretch of the log.
pub(crate) async fn highlights_between(
    conn: &mut Conn,
    first: Position,
    last: Position,
) -> DbResult<Vec<(Position, OwnedUserId)>> {
    let rows = conn.list(&HIGHLIGHTS_BETWEEN, args![first.0, last.0]).await?;
    rows.iter().map(|row| Ok((Position(row.get(0)?), row.get(1)?))).collect()
}

/// What is known of one thread: how far a user has read it, or what is unread there.
#[derive(Clone, Debug)]
pub(crate) struct Attention {
    /// None for the main timeline.
    pub(crate) thread_root: Option<OwnedEventId>,
    pub(crate) read: Position,
    pub(crate) notifications: u64,
    pub(crate) highlights: u64,
    /// The newest event that was counted.
    pub(crate) last: Position,
}

/// The part of a room's history in which something may be unread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    pub(crate) threads_after: Position,
    pub(crate) main_after: Position,
    pub(crate) until: Position,
}

/// Where the event of a room is that has `newer` events after it, up to `until`.
pub(crate) async fn nth_newest(
    conn: &mut Conn,
    room_id: &RoomId,
    until: Position,
    newer: i64,
) -> DbResult<Option<Position>> {
    let row = conn.find(&NTH_NEWEST, args![room_id, until.0, newer]).await?;
    row.map(|row| Ok(Position(row.get(0)?))).transpose()
}

/// What a user has read and what is unread for them in a stretch of a room with this trunk. What they did at the places
/// of `silent` does not show that they have read; what those say whom they ignore asks for nothing. What they have read
/// of a thread comes before what they have not.
pub(crate) async fn count_attention(
    conn: &mut Conn,
    (room_id, trunk, stretch): (&RoomId, Lineage, &Stretch),
    user_id: &UserId,
    silent: &[i64],
    ignored: &[&str],
) -> DbResult<Vec<Attention>> {
    let Stretch { threads_after, main_after, until } = *stretch;
    let args = args![room_id, user_id, threads_after.0, main_after.0, until.0, silent, ignored, trunk.0];
    let rows = conn.list(&COUNT_ATTENTION, args).await?;
    let attention = rows.iter().map(|row| {
        let thread: String = row.get(0)?;
        let count = |column| row.get::<i64>(column).map(|count| u64::try_from(count).unwrap_or(0));
        Ok(Attention {
            thread_root: if thread.is_empty() { None } else { Some(row.get(0)?) },
            read: Position(row.get(1)?),
            notifications: count(2)?,
            highlights: count(3)?,
            last: Position(row.get(4)?),
        })
    });
    attention.collect()
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
    let mut pdus = HashMap::new();
    if !others.is_empty() {
        let ids: Vec<&str> = others.iter().map(|id| id.as_str()).collect();
        for row in conn.list(&LIST_EVENTS, args![&ids]).await? {
            let other = stored(&row)?;
            pdus.insert(other.pdu.event_id().to_owned(), other.pdu);
        }
    }
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
        device_id: OwnedDeviceId::from(device_id),
        transaction_id: OwnedTransactionId::from(transaction_id),
    });
    Ok(Stored {
        position: Position(row.get(0)?),
        pdu: pdu(row, 1)?,
        standing: Standing::from_i64(standing).ok_or_else(|| DbError::decode(format!("no standing {standing}")))?,
        fork: row.get::<Option<i64>>(5)?.map(Position),
        transaction,
        notifies: row.get(8)?,
        thread_root: row.get(9)?,
        replaces: None,
    })
}
