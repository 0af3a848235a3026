//! `rooms`: what a room's next event is built on; `published_rooms`: which of them the directory shows.

use std::collections::HashMap;

use ruma::{OwnedRoomId, RoomId, RoomVersionId};

use crate::{
    db::{Column, Conn, DbResult, Insert, Kind, Tx, args, statements},
    fact::RoomHead,
    position::Position,
};

pub(crate) use crate::position::Lineage;

statements! {
    LOCK_HEADS = "SELECT room_id, head, trunk FROM rooms WHERE room_id IN LIST($1) ORDER BY room_id FOR UPDATE";
    FIND_HEAD = "SELECT version, head, depth, extremities, trunk FROM rooms WHERE room_id = $1";
    ANY_EXISTS = "SELECT room_id FROM rooms WHERE room_id IN LIST($1) LIMIT 1";
    PUBLISH = "INSERT INTO published_rooms (room_id) VALUES ($1) ON CONFLICT DO NOTHING";
    UNPUBLISH = "DELETE FROM published_rooms WHERE room_id = $1";
    LIST_PUBLISHED = "SELECT room_id FROM published_rooms";
    LIST_PUBLISHED_AMONG = "SELECT room_id FROM published_rooms WHERE room_id IN LIST($1)";
    FIND_PUBLISHED = "SELECT room_id FROM published_rooms WHERE room_id = $1";
}

static UPSERT_HEADS: Insert = Insert::new(
    "UPSERT_HEADS",
    "rooms",
    &[
        ("room_id", Kind::Text),
        ("version", Kind::Text),
        ("trunk", Kind::Int),
        ("head", Kind::Int),
        ("depth", Kind::Int),
        ("extremities", Kind::Text),
    ],
    "ON CONFLICT (room_id) DO UPDATE SET head = excluded.head, depth = excluded.depth,
        extremities = excluded.extremities",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&UPSERT_HEADS];

/// Locks the rooms' rows in the order of their identifiers and tells how many events each has, and its trunk.
pub(crate) async fn lock_heads(tx: &mut Tx, rooms: &[&RoomId]) -> DbResult<HashMap<OwnedRoomId, (i64, Lineage)>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    let rows = tx.list(&LOCK_HEADS, args![&rooms]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, (row.get(1)?, Lineage(row.get(2)?))))).collect()
}

/// The head of a room and its trunk, if there is such a room.
pub(crate) async fn find_head(conn: &mut Conn, room_id: &RoomId) -> DbResult<Option<(RoomHead, Lineage)>> {
    let Some(row) = conn.find(&FIND_HEAD, args![room_id]).await? else { return Ok(None) };
    let version: RoomVersionId = row.get(0)?;
    let head = RoomHead { version, head: row.get(1)?, depth: row.get(2)?, extremities: row.json(3)? };
    Ok(Some((head, Lineage(row.get(4)?))))
}

/// Whether any of the rooms is known here.
pub(crate) async fn any_exists(conn: &mut Conn, rooms: &[&RoomId]) -> DbResult<bool> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    Ok(conn.find(&ANY_EXISTS, args![&rooms]).await?.is_some())
}

/// Writes heads; `first` names the trunk of a room that is new.
pub(crate) async fn upsert_heads(tx: &mut Tx, heads: &[(&RoomId, Position, &RoomHead)]) -> DbResult<()> {
    let extremities: Vec<String> =
        heads.iter().map(|(_, _, head)| serde_json::json!(head.extremities).to_string()).collect();
    let columns = [
        Column::texts(heads.iter().map(|(room, ..)| room.as_str())),
        Column::texts(heads.iter().map(|(_, _, head)| head.version.as_str())),
        Column::ints(heads.iter().map(|(_, first, _)| first.0)),
        Column::ints(heads.iter().map(|(_, _, head)| head.head)),
        Column::ints(heads.iter().map(|(_, _, head)| head.depth)),
        Column::texts(extremities.iter().map(String::as_str)),
    ];
    tx.insert(&UPSERT_HEADS, &columns).await
}

/// Shows a room in the directory, or takes it out.
pub(crate) async fn publish(conn: &mut Conn, room_id: &RoomId, listed: bool) -> DbResult<()> {
    let statement = if listed { &PUBLISH } else { &UNPUBLISH };
    conn.execute(statement, args![room_id]).await.map(drop)
}

/// All rooms that the directory shows.
pub(crate) async fn list_published(conn: &mut Conn) -> DbResult<Vec<OwnedRoomId>> {
    conn.list(&LIST_PUBLISHED, args![]).await?.iter().map(|row| row.get(0)).collect()
}

/// Those of the rooms that the directory shows.
pub(crate) async fn list_published_among(conn: &mut Conn, rooms: &[&RoomId]) -> DbResult<Vec<OwnedRoomId>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    conn.list(&LIST_PUBLISHED_AMONG, args![&rooms]).await?.iter().map(|row| row.get(0)).collect()
}

pub(crate) async fn is_published(conn: &mut Conn, room_id: &RoomId) -> DbResult<bool> {
    Ok(conn.find(&FIND_PUBLISHED, args![room_id]).await?.is_some())
}
