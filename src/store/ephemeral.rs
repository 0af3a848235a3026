//! `receipts`, `typing` and `presence`: what is true of somebody until they do the next thing.
//!
//! Each has one row for what it is about, which the next fact replaces; `position` is that of the fact. So a row that
//! lies in a stretch of the log is the newest of its kind, and what it has replaced is not found any more by whoever
//! reads that stretch later.

use std::collections::HashSet;

use ruma::{EventId, MilliSecondsSinceUnixEpoch, OwnedUserId, RoomId, UInt, UserId, presence::PresenceState};

use crate::{
    db::{Column, ColumnType, Conn, DbResult, Insert, Row, Tx, args, statements},
    event::fact::{Presence, Receipt, Typing},
    ground::position::{Order, Position},
};

statements! {
    LIST_RECEIPTS = "SELECT room_id, user_id, receipt_type, thread_id, event_id, event_order, ts, position
        FROM receipts WHERE room_id = $1 AND position > $2";
    FIND_RECEIPTS = "SELECT room_id, user_id, receipt_type, thread_id, event_id, event_order, ts, position
        FROM receipts WHERE room_id = $1 AND user_id = $2";
    RECEIPTS_BETWEEN = "SELECT room_id, user_id, receipt_type, thread_id, event_id, event_order, ts, position
        FROM receipts WHERE room_id IN LIST($1) AND position >= $2 AND position <= $3";
    /// Which of the places from $2 on hold a receipt of these rooms.
    RECEIPTS_WRITTEN = "SELECT position FROM receipts WHERE room_id IN LIST($1) AND position >= $2";
    MOVE_RECEIPTS = "UPDATE receipts SET event_order = $3 WHERE room_id = $1 AND event_id = $2";
    LIST_TYPING = "SELECT room_id, user_id, expires_ts, position FROM typing WHERE room_id = $1";
    LIST_TYPING_OF = "SELECT room_id, user_id, expires_ts, position FROM typing
        WHERE room_id IN LIST($1) AND user_id IN LIST($2)";
    LIST_TYPISTS = "SELECT room_id, user_id, expires_ts, position FROM typing WHERE expires_ts > 0";
    FIND_PRESENCE = "SELECT user_id, presence, status_msg, last_active_ts, position, claimed_ts, devices FROM presence WHERE user_id = $1";
    PRESENCE_BETWEEN = "SELECT user_id, presence, status_msg, last_active_ts, position, claimed_ts, devices FROM presence
        WHERE position > $1 AND position <= $2 ORDER BY position";
    LIST_PRESENT = "SELECT user_id, presence, status_msg, last_active_ts, position, claimed_ts, devices FROM presence
        WHERE presence <> 'offline'";
}

/// A receipt never moves back.
///
/// Marked again at one event, it gets the later time and place.
static UPSERT_RECEIPTS: Insert = Insert::new(
    "UPSERT_RECEIPTS",
    "receipts",
    &[
        ("room_id", ColumnType::Text),
        ("user_id", ColumnType::Text),
        ("receipt_type", ColumnType::Text),
        ("thread_id", ColumnType::Text),
        ("event_id", ColumnType::Text),
        ("event_order", ColumnType::Int),
        ("ts", ColumnType::Int),
        ("position", ColumnType::Int),
    ],
    "ON CONFLICT (room_id, user_id, receipt_type, thread_id) DO UPDATE SET event_id = excluded.event_id,
        event_order = excluded.event_order, ts = excluded.ts, position = excluded.position
        WHERE excluded.event_order >= receipts.event_order",
);

/// `expires_ts` is 0 for somebody who has stopped: the row stays, with the place at which they did.
///
/// A row that was deleted would not be in the stretch of the log in which somebody has stopped.
static UPSERT_TYPING: Insert = Insert::new(
    "UPSERT_TYPING",
    "typing",
    &[
        ("room_id", ColumnType::Text),
        ("user_id", ColumnType::Text),
        ("expires_ts", ColumnType::Int),
        ("position", ColumnType::Int),
    ],
    "ON CONFLICT (room_id, user_id) DO UPDATE SET expires_ts = excluded.expires_ts, position = excluded.position",
);

/// `claimed_ts` is 0 where a user has said nothing of themselves; `devices` is JSON.
static UPSERT_PRESENCE: Insert = Insert::new(
    "UPSERT_PRESENCE",
    "presence",
    &[
        ("user_id", ColumnType::Text),
        ("presence", ColumnType::Text),
        ("status_msg", ColumnType::Text),
        ("last_active_ts", ColumnType::Int),
        ("position", ColumnType::Int),
        ("claimed_ts", ColumnType::Int),
        ("devices", ColumnType::Text),
    ],
    "ON CONFLICT (user_id) DO UPDATE SET presence = excluded.presence, status_msg = excluded.status_msg,
        last_active_ts = excluded.last_active_ts, position = excluded.position, claimed_ts = excluded.claimed_ts,
        devices = excluded.devices",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&UPSERT_RECEIPTS, &UPSERT_TYPING, &UPSERT_PRESENCE];

/// Writes what facts say, at most one of each user, type and thread in each room. What is behind the row that is there
/// changes nothing, not even its place: [`receipts_written`] says which came to be rows.
pub(crate) async fn upsert_receipts(tx: &mut Tx, rows: &[(Position, &Receipt)]) -> DbResult<()> {
    let columns = [
        Column::texts(rows.iter().map(|(_, r)| r.room_id.as_str())),
        Column::texts(rows.iter().map(|(_, r)| r.user_id.as_str())),
        Column::texts(rows.iter().map(|(_, r)| r.receipt_type.as_str())),
        Column::texts(rows.iter().map(|(_, r)| r.thread_id.as_str())),
        Column::texts(rows.iter().map(|(_, r)| r.event_id.as_str())),
        Column::ints(rows.iter().map(|(_, r)| r.event_order.0)),
        Column::ints(rows.iter().map(|(_, r)| i64::from(r.ts.get()))),
        Column::ints(rows.iter().map(|(at, _)| at.0)),
    ];
    tx.insert(&UPSERT_RECEIPTS, &columns).await
}

/// Writes what facts say, at most one of each user in each room.
pub(crate) async fn upsert_typing(tx: &mut Tx, rows: &[(Position, &Typing)]) -> DbResult<()> {
    let columns = [
        Column::texts(rows.iter().map(|(_, t)| t.room_id.as_str())),
        Column::texts(rows.iter().map(|(_, t)| t.user_id.as_str())),
        Column::ints(rows.iter().map(|(_, t)| t.until.map_or(0, |until| i64::from(until.get())))),
        Column::ints(rows.iter().map(|(at, _)| at.0)),
    ];
    tx.insert(&UPSERT_TYPING, &columns).await
}

/// Writes what facts say, at most one of each user.
pub(crate) async fn upsert_presence(tx: &mut Tx, rows: &[(Position, &Presence)]) -> DbResult<()> {
    let devices: Vec<_> = rows.iter().map(|(_, p)| serde_json::json!(p.devices).to_string()).collect();
    let columns = [
        Column::texts(rows.iter().map(|(_, p)| p.user_id.as_str())),
        Column::texts(rows.iter().map(|(_, p)| p.state.as_str())),
        Column::Texts(rows.iter().map(|(_, p)| p.status_msg.as_deref()).collect()),
        Column::ints(rows.iter().map(|(_, p)| i64::from(p.last_active.get()))),
        Column::ints(rows.iter().map(|(at, _)| at.0)),
        Column::ints(rows.iter().map(|(_, p)| p.claimed.map_or(0, |at| i64::from(at.get())))),
        Column::texts(devices.iter().map(String::as_str)),
    ];
    tx.insert(&UPSERT_PRESENCE, &columns).await
}

/// The receipts in a room that were set after `after`, each with its place in the log.
///
/// What a later receipt of the same user has replaced is not among them.
pub(crate) async fn list_receipts(
    conn: &mut Conn,
    room_id: &RoomId,
    after: Position,
) -> DbResult<Vec<(Position, Receipt)>> {
    conn.list(&LIST_RECEIPTS, args![room_id, after.0]).await?.iter().map(receipt).collect()
}

/// The places from `first` on at which a receipt of one of these rooms stands.
///
/// Asked after [`upsert_receipts`] in the same transaction, by which a batch learns which of its receipts moved ahead.
pub(crate) async fn receipts_written(
    conn: &mut Conn,
    rooms: &[&RoomId],
    first: Position,
) -> DbResult<HashSet<Position>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    let rows = conn.list(&RECEIPTS_WRITTEN, args![&rooms, first.0]).await?;
    rows.iter().map(|row| row.get(0).map(Position)).collect()
}

/// A user's own receipts in a room.
///
/// Of every type and thread, private ones included.
pub(crate) async fn receipts_of(
    conn: &mut Conn,
    room_id: &RoomId,
    user_id: &UserId,
) -> DbResult<Vec<(Position, Receipt)>> {
    conn.list(&FIND_RECEIPTS, args![room_id, user_id]).await?.iter().map(receipt).collect()
}

/// The receipts in these rooms that stand in a stretch of the log.
///
/// First and last are part of it.
pub(crate) async fn receipts_between(
    conn: &mut Conn,
    rooms: &[&RoomId],
    first: Position,
    last: Position,
) -> DbResult<Vec<(Position, Receipt)>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    conn.list(&RECEIPTS_BETWEEN, args![&rooms, first.0, last.0]).await?.iter().map(receipt).collect()
}

/// Has the receipts at an event name its place, which is another now.
///
/// History that is fetched later may move an event in its room (`room/graph/history.rs`). Receipts are compared by
/// place, so they move along.
pub(crate) async fn move_receipts(tx: &mut Tx, room_id: &RoomId, event_id: &EventId, order: Order) -> DbResult<()> {
    tx.execute(&MOVE_RECEIPTS, args![room_id, event_id, order.0]).await.map(drop)
}

/// Everybody who has typed in a room; `until` may have passed.
pub(crate) async fn list_typing(conn: &mut Conn, room_id: &RoomId) -> DbResult<Vec<(Position, Typing)>> {
    conn.list(&LIST_TYPING, args![room_id]).await?.iter().map(typing).collect()
}

/// What any of these users has said of typing in any of these rooms.
pub(crate) async fn list_typing_of(conn: &mut Conn, rooms: &[&RoomId], users: &[&UserId]) -> DbResult<Vec<Typing>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    let users: Vec<&str> = users.iter().map(|user| user.as_str()).collect();
    let rows = conn.list(&LIST_TYPING_OF, args![&rooms, &users]).await?;
    rows.iter().map(|row| typing(row).map(|(_, typing)| typing)).collect()
}

/// Everybody, in any room, who has not stopped typing; `until` may have passed.
pub(crate) async fn list_typists(conn: &mut Conn) -> DbResult<Vec<(Position, Typing)>> {
    conn.list(&LIST_TYPISTS, args![]).await?.iter().map(typing).collect()
}

/// What was last said of a user's presence, also if that they are offline.
pub(crate) async fn find_presence(conn: &mut Conn, user_id: &UserId) -> DbResult<Option<(Position, Presence)>> {
    conn.find(&FIND_PRESENCE, args![user_id]).await?.as_ref().map(presence).transpose()
}

/// What was set after `after`, up to `until`, oldest first.
pub(crate) async fn presence_between(
    conn: &mut Conn,
    after: Position,
    until: Position,
) -> DbResult<Vec<(Position, Presence)>> {
    conn.list(&PRESENCE_BETWEEN, args![after.0, until.0]).await?.iter().map(presence).collect()
}

/// Everybody who is not offline.
///
/// Read when a node starts; from then on it follows the log.
pub(crate) async fn list_present(conn: &mut Conn) -> DbResult<Vec<(Position, Presence)>> {
    conn.list(&LIST_PRESENT, args![]).await?.iter().map(presence).collect()
}

fn receipt(row: &Row) -> DbResult<(Position, Receipt)> {
    let receipt = Receipt {
        room_id: row.get(0)?,
        user_id: row.get(1)?,
        receipt_type: row.get(2)?,
        thread_id: row.get(3)?,
        event_id: row.get(4)?,
        event_order: Order(row.get(5)?),
        ts: time(row.get(6)?),
    };
    Ok((Position(row.get(7)?), receipt))
}

/// 0 is nobody's time: it stands for having stopped.
fn typing(row: &Row) -> DbResult<(Position, Typing)> {
    let expires: i64 = row.get(2)?;
    let until = (expires > 0).then(|| time(expires));
    Ok((Position(row.get(3)?), Typing { room_id: row.get(0)?, user_id: row.get(1)?, until }))
}

fn presence(row: &Row) -> DbResult<(Position, Presence)> {
    let claimed: i64 = row.get(5)?;
    let presence = Presence {
        user_id: row.get::<OwnedUserId>(0)?,
        state: PresenceState::from(row.get::<String>(1)?),
        status_msg: row.get(2)?,
        last_active: time(row.get(3)?),
        claimed: (claimed > 0).then(|| time(claimed)),
        devices: row.json(6)?,
    };
    Ok((Position(row.get(4)?), presence))
}

/// From milliseconds since the Unix epoch. What is below zero, which nothing here writes, is the epoch itself.
fn time(ms: i64) -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(UInt::try_from(ms).unwrap_or_default())
}
