//! `room_entries`: rooms of other servers that are being entered, and what is written for them before they are rooms here.
//!
//! A room's state may be large, so it is written in chunks before the batch that makes the room one of this server's: under
//! a line that nothing names until then, and as memberships of users of other servers, whom nobody asks about in a room
//! that there is not. The row says whose these are. Who takes over from one that has died writes everything anew.

use std::collections::HashMap;

use ruma::{OwnedRoomId, RoomId};

use crate::{
    db::{Conn, DbResult, Tx, args, statements},
    ground::position::Lineage,
};

statements! {
    LOCK_ENTRY = "SELECT trunk, touched_ts FROM room_entries WHERE room_id = $1 FOR UPDATE";
    LOCK_ENTRIES = "SELECT room_id, trunk FROM room_entries WHERE room_id IN LIST($1) ORDER BY room_id FOR UPDATE";
    BEGIN_ENTRY = "INSERT INTO room_entries (room_id, trunk, touched_ts) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    TOUCH_ENTRY = "UPDATE room_entries SET touched_ts = $3 WHERE room_id = $1 AND trunk = $2";
    END_ENTRY = "DELETE FROM room_entries WHERE room_id = $1 AND trunk = $2";
    LIST_UNTOUCHED = "SELECT room_id, trunk FROM room_entries WHERE touched_ts < $1 ORDER BY room_id";
    DELETE_PREPARED_STATE = "DELETE FROM state_versions WHERE lineage = $1";
    /// What is written of a room beforehand, and nothing of one that there is.
    DELETE_PREPARED_MEMBERSHIPS = "DELETE FROM memberships
        WHERE room_id = $1 AND NOT EXISTS (SELECT 1 FROM rooms r WHERE r.room_id = $1)";
}

/// Under which line a room is being entered, and when that was last heard of, in milliseconds since the Unix epoch. It
/// stays so until the transaction ends.
pub(crate) async fn lock(tx: &mut Tx, room_id: &RoomId) -> DbResult<Option<(Lineage, i64)>> {
    let row = tx.find(&LOCK_ENTRY, args![room_id]).await?;
    row.map(|row| Ok((Lineage(row.get(0)?), row.get(1)?))).transpose()
}

/// Under which lines those of the rooms are being entered that are. It stays so until the transaction ends.
pub(crate) async fn lock_each(tx: &mut Tx, rooms: &[&RoomId]) -> DbResult<HashMap<OwnedRoomId, Lineage>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    let rows = tx.list(&LOCK_ENTRIES, args![&rooms]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, Lineage(row.get(1)?)))).collect()
}

/// Notes that a room is being entered. False if that is so already.
pub(crate) async fn begin(tx: &mut Tx, room_id: &RoomId, trunk: Lineage, now: i64) -> DbResult<bool> {
    Ok(tx.execute(&BEGIN_ENTRY, args![room_id, trunk.0, now]).await? == 1)
}

/// Notes that a room is still being entered under a line. False if it is not. Nobody else ends that until the transaction
/// ends.
pub(crate) async fn touch(tx: &mut Tx, room_id: &RoomId, trunk: Lineage, now: i64) -> DbResult<bool> {
    Ok(tx.execute(&TOUCH_ENTRY, args![room_id, trunk.0, now]).await? == 1)
}

/// What was written for a room counts from now on, or is of no use any more. False if it is not being entered under that
/// line.
pub(crate) async fn end(tx: &mut Tx, room_id: &RoomId, trunk: Lineage) -> DbResult<bool> {
    Ok(tx.execute(&END_ENTRY, args![room_id, trunk.0]).await? == 1)
}

/// Removes what was written for a room that has not been entered under that line.
pub(crate) async fn clear(tx: &mut Tx, room_id: &RoomId, trunk: Lineage) -> DbResult<()> {
    tx.execute(&DELETE_PREPARED_STATE, args![trunk.0]).await?;
    tx.execute(&DELETE_PREPARED_MEMBERSHIPS, args![room_id]).await.map(drop)
}

/// The rooms whose entering has not been heard of since, each with its line.
pub(crate) async fn list_untouched(conn: &mut Conn, since: i64) -> DbResult<Vec<(OwnedRoomId, Lineage)>> {
    let rows = conn.list(&LIST_UNTOUCHED, args![since]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, Lineage(row.get(1)?)))).collect()
}
