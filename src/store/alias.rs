//! `aliases`: names of rooms on this server.
//!
//! An alias names one room, by the primary key. Its creator is kept, because they may remove it whatever they are in
//! the room by then.

use std::collections::HashMap;

use ruma::{OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomAliasId, RoomId, UserId};

use crate::db::{Conn, DbResult, args, statements};

statements! {
    INSERT_ALIAS = "INSERT INTO aliases (alias, room_id, creator) VALUES ($1, $2, $3)";
    DELETE_ALIAS = "DELETE FROM aliases WHERE alias = $1";
    FIND_ALIAS = "SELECT room_id, creator FROM aliases WHERE alias = $1";
    LIST_NAMED = "SELECT alias, room_id FROM aliases WHERE alias IN LIST($1)";
    COUNT_ALIASES_MADE = "SELECT COUNT(*) FROM aliases WHERE creator = $1";
    LIST_ALIASES = "SELECT alias, creator FROM aliases WHERE room_id = $1 ORDER BY alias";
}

/// Fails where the alias is taken. The log's judge has looked that up before, in the same transaction and under the log's
/// lock.
pub(crate) async fn insert(conn: &mut Conn, alias: &RoomAliasId, room_id: &RoomId, creator: &UserId) -> DbResult<()> {
    conn.execute(&INSERT_ALIAS, args![alias, room_id, creator]).await.map(drop)
}

/// Takes a name from its room, if it has one.
pub(crate) async fn delete(conn: &mut Conn, alias: &RoomAliasId) -> DbResult<()> {
    conn.execute(&DELETE_ALIAS, args![alias]).await.map(drop)
}

/// The room that an alias names, and who made it.
pub(crate) async fn find(conn: &mut Conn, alias: &RoomAliasId) -> DbResult<Option<(OwnedRoomId, OwnedUserId)>> {
    let row = conn.find(&FIND_ALIAS, args![alias]).await?;
    row.map(|row| Ok((row.get(0)?, row.get(1)?))).transpose()
}

/// The rooms that aliases name; those that name none are left out.
pub(crate) async fn list_named(
    conn: &mut Conn,
    aliases: &[&RoomAliasId],
) -> DbResult<HashMap<OwnedRoomAliasId, OwnedRoomId>> {
    let aliases: Vec<&str> = aliases.iter().map(|alias| alias.as_str()).collect();
    let rows = conn.list(&LIST_NAMED, args![&aliases]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

/// The aliases of a room, each with who made it.
pub(crate) async fn list(conn: &mut Conn, room_id: &RoomId) -> DbResult<Vec<(OwnedRoomAliasId, OwnedUserId)>> {
    let rows = conn.list(&LIST_ALIASES, args![room_id]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

/// How many aliases there are that a user has made.
pub(crate) async fn count_made(conn: &mut Conn, creator: &UserId) -> DbResult<i64> {
    conn.find(&COUNT_ALIASES_MADE, args![creator]).await?.map_or(Ok(0), |row| row.get(0))
}
