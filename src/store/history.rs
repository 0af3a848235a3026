//! `event_keys`, `room_histories`, and what `events` has that is not in the log: outliers, and history that was fetched
//! later.

use ruma::{EventId, OwnedEventId, RoomId};

use crate::{
    db::{Conn, DbResult, Row, Tx, args, statements},
    ground::position::{EventKey, Order},
};

statements! {
    TAKE_KEYS = "UPDATE event_keys SET last = last - $1 RETURNING last";
    FIND_FETCHED = "SELECT fetched FROM room_histories WHERE room_id = $1";
    /// No row where it has been fetched another number of times than $2.
    NOTE_FETCHED = "INSERT INTO room_histories (room_id, fetched) VALUES ($1, 1)
        ON CONFLICT (room_id) DO UPDATE SET fetched = room_histories.fetched + 1 WHERE room_histories.fetched = $2
        RETURNING fetched";
    LIST_GAPS = "SELECT position, room_order, missing FROM events
        WHERE room_id = $1 AND missing IS NOT NULL ORDER BY room_order";
    SET_MISSING = "UPDATE events SET missing = $2 WHERE position = $1";
    /// The places of a room below $2 and above $3, from the top.
    LIST_TAKEN = "SELECT room_order FROM events
        WHERE room_id = $1 AND room_order < $2 AND room_order > $3 ORDER BY room_order DESC LIMIT $4";
    FIND_LOWEST_TAKEN = "SELECT room_order FROM events
        WHERE room_id = $1 AND room_order < $2 AND room_order > $3 ORDER BY room_order LIMIT 1";
}

/// An event before which others are missing.
#[derive(Clone, Debug)]
pub(crate) struct Gap {
    pub(crate) key: EventKey,
    pub(crate) order: Order,
    /// Those of the events that it follows which are not here.
    pub(crate) missing: Vec<OwnedEventId>,
}

/// So many keys below all that there have been: the highest of them. The others follow downwards.
pub(crate) async fn take_keys(conn: &mut Conn, count: i64) -> DbResult<EventKey> {
    let row = conn.find(&TAKE_KEYS, args![count]).await?;
    let lowest: i64 = row.map_or(Ok(-count), |row| row.get(0))?;
    Ok(EventKey(lowest + count - 1))
}

/// How often history has been fetched for a room.
pub(crate) async fn find_fetched(conn: &mut Conn, room_id: &RoomId) -> DbResult<i64> {
    conn.find(&FIND_FETCHED, args![room_id]).await?.map_or(Ok(0), |row| row.get(0))
}

/// Notes that history is fetched for a room once more. False if that has been done by somebody else since it was so often.
pub(crate) async fn note_fetched(tx: &mut Tx, room_id: &RoomId, so_far: i64) -> DbResult<bool> {
    let row = tx.find(&NOTE_FETCHED, args![room_id, so_far]).await?;
    row.map_or(Ok(false), |row| Ok(row.get::<i64>(0)? == so_far + 1))
}

/// The events of a room before which others are missing, from the lowest.
pub(crate) async fn list_gaps(conn: &mut Conn, room_id: &RoomId) -> DbResult<Vec<Gap>> {
    let gap = |row: &Row| Ok(Gap { key: EventKey(row.get(0)?), order: Order(row.get(1)?), missing: row.json(2)? });
    conn.list(&LIST_GAPS, args![room_id]).await?.iter().map(gap).collect()
}

/// From now on these events are missing before another.
pub(crate) async fn set_missing(tx: &mut Tx, key: EventKey, missing: &[&EventId]) -> DbResult<()> {
    let missing = (!missing.is_empty()).then(|| serde_json::json!(missing).to_string());
    tx.execute(&SET_MISSING, args![key.0, missing.as_deref()]).await.map(drop)
}

/// The places of a room below one and above another at which events stand, from the top.
pub(crate) async fn list_taken(
    conn: &mut Conn,
    room_id: &RoomId,
    below: Order,
    above: Order,
    limit: i64,
) -> DbResult<Vec<Order>> {
    let rows = conn.list(&LIST_TAKEN, args![room_id, below.0, above.0, limit]).await?;
    rows.iter().map(|row| row.get(0).map(Order)).collect()
}

/// The lowest place of a room below one and above another at which an event stands.
pub(crate) async fn find_lowest_taken(
    conn: &mut Conn,
    room_id: &RoomId,
    below: Order,
    above: Order,
) -> DbResult<Option<Order>> {
    let row = conn.find(&FIND_LOWEST_TAKEN, args![room_id, below.0, above.0]).await?;
    row.map(|row| row.get(0).map(Order)).transpose()
}
