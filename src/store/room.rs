//! `rooms`: what a room's next event is built on; `published_rooms`: which of them the directory shows.
//!
//! A room's row is what writers wait for: it is locked by a batch that adds to the room, in the order of identifiers,
//! and its head is what they compare. Whatever else stands in it is kept there because it is read or changed together
//! with the head.

use std::collections::HashMap;

use ruma::{OwnedRoomId, RoomId, RoomVersionId};
use serde::Deserialize;

use crate::{
    db::{Column, ColumnType, Conn, DbResult, Insert, Row, Tx, args, statements},
    event::{StateChange, fact::RoomHead},
    ground::position::Position,
};

pub(crate) use crate::ground::position::Lineage;

statements! {
    LOCK_HEADS = "SELECT version, head, depth, extremities, trunk, joinable, world_readable, newest_ts, room_id, sent_position
        FROM rooms
        WHERE room_id IN LIST($1) ORDER BY room_id FOR UPDATE";
    FIND_HEAD = "SELECT version, head, depth, extremities, trunk FROM rooms WHERE room_id = $1";
    LIST_HEADS = "SELECT version, head, depth, extremities, trunk, room_id FROM rooms WHERE room_id IN LIST($1)";
    LIST_TRUNKS = "SELECT room_id, trunk FROM rooms WHERE room_id IN LIST($1)";
    ANY_EXISTS = "SELECT room_id FROM rooms WHERE room_id IN LIST($1) LIMIT 1";
    LIST_OPEN_AMONG = "SELECT room_id FROM rooms WHERE room_id IN LIST($1) AND (joinable OR world_readable)";
    FIND_DOORS = "SELECT joinable, world_readable FROM rooms WHERE room_id = $1";
    PUBLISH = "INSERT INTO published_rooms (room_id) VALUES ($1) ON CONFLICT DO NOTHING";
    UNPUBLISH = "DELETE FROM published_rooms WHERE room_id = $1";
    LIST_PUBLISHED = "SELECT room_id FROM published_rooms";
    LIST_PUBLISHED_AMONG = "SELECT room_id FROM published_rooms WHERE room_id IN LIST($1)";
    FIND_PUBLISHED = "SELECT room_id FROM published_rooms WHERE room_id = $1";
}

/// `head` and `trunk` are keys of events, `extremities` is a JSON array of identifiers, `newest_ts` the greatest
/// timestamp of the accepted events, `sent_position` the place in the log of the newest event that other servers get from this
/// one.
///
/// `version` and `trunk` are set once: a room keeps both for good.
static UPSERT_HEADS: Insert = Insert::new(
    "UPSERT_HEADS",
    "rooms",
    &[
        ("room_id", ColumnType::Text),
        ("version", ColumnType::Text),
        ("trunk", ColumnType::Int),
        ("head", ColumnType::Int),
        ("depth", ColumnType::Int),
        ("extremities", ColumnType::Text),
        ("joinable", ColumnType::Bool),
        ("world_readable", ColumnType::Bool),
        ("newest_ts", ColumnType::Int),
        ("sent_position", ColumnType::Int),
    ],
    "ON CONFLICT (room_id) DO UPDATE SET head = excluded.head, depth = excluded.depth,
        extremities = excluded.extremities, joinable = excluded.joinable, world_readable = excluded.world_readable,
        newest_ts = excluded.newest_ts, sent_position = excluded.sent_position",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&UPSERT_HEADS];

/// How a room stands beside its head and state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoomStanding {
    pub(crate) trunk: Lineage,
    pub(crate) access: RoomAccess,
    /// The greatest timestamp of its accepted events, in milliseconds since the Unix epoch.
    pub(crate) newest_ts: i64,
    /// The place of the newest event that this server sends to the others of the room, [`Position::START`] where there
    /// is none.
    pub(crate) sent_at: Position,
}

/// Whether people who are not in a room can enter or read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RoomAccess {
    pub(crate) joinable: bool,
    pub(crate) world_readable: bool,
}

impl RoomAccess {
    /// Those in an open room are in the user directory for everybody.
    pub(crate) fn is_open(self) -> bool {
        self.joinable || self.world_readable
    }

    /// Takes a change of the room's state.
    ///
    /// What is not a text, or is no rule that is known, lets nobody in.
    pub(crate) fn follow(&mut self, change: &StateChange) {
        #[derive(Default, Deserialize)]
        struct AccessContent {
            #[serde(default)]
            join_rule: serde_json::Value,
            #[serde(default)]
            history_visibility: serde_json::Value,
        }
        let content =
            || -> AccessContent { change.event.as_ref().and_then(|pdu| pdu.content_as().ok()).unwrap_or_default() };
        match (change.kind.as_str(), change.state_key.as_str()) {
            ("m.room.join_rules", "") => self.joinable = content().join_rule == "public",
            ("m.room.history_visibility", "") => self.world_readable = content().history_visibility == "world_readable",
            _ => {}
        }
    }
}

/// Locks the rooms' rows in the order of their identifiers and returns the head of each, and how it stands.
///
/// The order keeps two batches that touch the same rooms from waiting for each other. Rooms that are not there are left
/// out.
pub(crate) async fn lock_heads(
    tx: &mut Tx,
    rooms: &[&RoomId],
) -> DbResult<HashMap<OwnedRoomId, (RoomHead, RoomStanding)>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    let rows = tx.list(&LOCK_HEADS, args![&rooms]).await?;
    rows.iter().map(|row| Ok((row.get(8)?, (head(row)?, standing(row)?)))).collect()
}

fn head(row: &Row) -> DbResult<RoomHead> {
    let version: RoomVersionId = row.get(0)?;
    Ok(RoomHead { version, head: row.get(1)?, depth: row.get(2)?, extremities: row.json(3)? })
}

// Its columns follow those of the head, in the statement that locks.
fn standing(row: &Row) -> DbResult<RoomStanding> {
    let access = RoomAccess { joinable: row.get(5)?, world_readable: row.get(6)? };
    Ok(RoomStanding { trunk: Lineage(row.get(4)?), access, newest_ts: row.get(7)?, sent_at: Position(row.get(9)?) })
}

/// The head of a room and its trunk, if there is such a room.
pub(crate) async fn find_head(conn: &mut Conn, room_id: &RoomId) -> DbResult<Option<(RoomHead, Lineage)>> {
    let Some(row) = conn.find(&FIND_HEAD, args![room_id]).await? else { return Ok(None) };
    Ok(Some((head(&row)?, Lineage(row.get(4)?))))
}

/// The heads and trunks of those of the rooms that are known here.
pub(crate) async fn list_heads(conn: &mut Conn, rooms: &[&RoomId]) -> DbResult<Vec<(OwnedRoomId, RoomHead, Lineage)>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    let rows = conn.list(&LIST_HEADS, args![&rooms]).await?;
    rows.iter().map(|row| Ok((row.get(5)?, head(row)?, Lineage(row.get(4)?)))).collect()
}

/// The trunks of those of the rooms that are known here.
pub(crate) async fn list_trunks(conn: &mut Conn, rooms: &[&RoomId]) -> DbResult<Vec<(OwnedRoomId, Lineage)>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    let rows = conn.list(&LIST_TRUNKS, args![&rooms]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, Lineage(row.get(1)?)))).collect()
}

/// Whether any of the rooms is known here.
pub(crate) async fn any_exists(conn: &mut Conn, rooms: &[&RoomId]) -> DbResult<bool> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    Ok(conn.find(&ANY_EXISTS, args![&rooms]).await?.is_some())
}

/// Whether a room is open to those who are not in it.
///
/// Not for a room that is not known here.
pub(crate) async fn is_open(conn: &mut Conn, room_id: &RoomId) -> DbResult<bool> {
    let Some(row) = conn.find(&FIND_DOORS, args![room_id]).await? else { return Ok(false) };
    Ok(RoomAccess { joinable: row.get(0)?, world_readable: row.get(1)? }.is_open())
}

/// Those of the rooms that are open to those who are not in them.
pub(crate) async fn list_open_among(conn: &mut Conn, rooms: &[&RoomId]) -> DbResult<Vec<OwnedRoomId>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    conn.list(&LIST_OPEN_AMONG, args![&rooms]).await?.iter().map(|row| row.get(0)).collect()
}

/// Writes heads, each with how the room stands from then on. A room that is there already keeps its trunk.
pub(crate) async fn upsert_heads(tx: &mut Tx, heads: &[(&RoomId, &RoomHead, RoomStanding)]) -> DbResult<()> {
    let extremities: Vec<String> =
        heads.iter().map(|(_, head, _)| serde_json::json!(head.extremities).to_string()).collect();
    let columns = [
        Column::texts(heads.iter().map(|(room, ..)| room.as_str())),
        Column::texts(heads.iter().map(|(_, head, _)| head.version.as_str())),
        Column::ints(heads.iter().map(|(.., standing)| standing.trunk.0)),
        Column::ints(heads.iter().map(|(_, head, _)| head.head)),
        Column::ints(heads.iter().map(|(_, head, _)| head.depth)),
        Column::texts(extremities.iter().map(String::as_str)),
        Column::Bools(heads.iter().map(|(.., standing)| standing.access.joinable).collect()),
        Column::Bools(heads.iter().map(|(.., standing)| standing.access.world_readable).collect()),
        Column::ints(heads.iter().map(|(.., standing)| standing.newest_ts)),
        Column::ints(heads.iter().map(|(.., standing)| standing.sent_at.0)),
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

/// Whether the directory shows a room.
pub(crate) async fn is_published(conn: &mut Conn, room_id: &RoomId) -> DbResult<bool> {
    Ok(conn.find(&FIND_PUBLISHED, args![room_id]).await?.is_some())
}
