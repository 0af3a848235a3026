//! `account_data`: what clients keep on the server for themselves, global or for a room.
//!
//! A piece has one row, with the position of the fact that it came with. Global data has an empty room, since a primary
//! key holds no NULL. What was deleted is there with an empty content, so that clients that knew it learn of that.

use std::sync::Arc;

use ruma::{OwnedUserId, RoomId, UserId};
use serde_json::value::RawValue;

use crate::{
    db::{Column, ColumnType, Conn, DbError, DbResult, Insert, Row, Tx, args, statements},
    event::fact::AccountData,
    ground::position::Position,
};

// `position` orders the pieces of a user and lets a reader of the log find what has changed; it is no part of the key.
statements! {
    FIND_ACCOUNT_DATA = "SELECT room_id, type, content, position FROM account_data
        WHERE user_id = $1 AND room_id = $2 AND type = $3";
    LIST_GLOBAL = "SELECT user_id, content FROM account_data
        WHERE user_id IN LIST($1) AND room_id = '' AND type = $2";
    ACCOUNT_DATA_SINCE = "SELECT room_id, type, content, position FROM account_data
        WHERE user_id = $1 AND position > $2 ORDER BY position";
    ACCOUNT_DATA_BETWEEN = "SELECT room_id, type, content, position, user_id FROM account_data
        WHERE user_id IN LIST($1) AND position >= $2 AND position <= $3";
}

/// The later fact always replaces the earlier one: whether it may has been judged before ([`crate::log`]).
static UPSERT_ACCOUNT_DATA: Insert = Insert::new(
    "UPSERT_ACCOUNT_DATA",
    "account_data",
    &[
        ("user_id", ColumnType::Text),
        ("room_id", ColumnType::Text),
        ("type", ColumnType::Text),
        ("content", ColumnType::Text),
        ("position", ColumnType::Int),
    ],
    "ON CONFLICT (user_id, room_id, type) DO UPDATE SET content = excluded.content, position = excluded.position",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&UPSERT_ACCOUNT_DATA];

/// Writes what facts say, each row at the place of its fact.
/// Of several facts about one piece in a batch, only the last may be among the rows.
pub(crate) async fn upsert(tx: &mut Tx, rows: &[(Position, &AccountData)]) -> DbResult<()> {
    let columns = [
        Column::texts(rows.iter().map(|(_, data)| data.user_id.as_str())),
        Column::texts(rows.iter().map(|(_, data)| data.room_id.as_ref().map_or("", |room| room.as_str()))),
        Column::texts(rows.iter().map(|(_, data)| data.kind.as_str())),
        Column::texts(rows.iter().map(|(_, data)| data.content.get())),
        Column::ints(rows.iter().map(|(at, _)| at.0)),
    ];
    tx.insert(&UPSERT_ACCOUNT_DATA, &columns).await
}

/// One piece of account data with its place; global where there is no room.
pub(crate) async fn find(
    conn: &mut Conn,
    user_id: &UserId,
    room_id: Option<&RoomId>,
    kind: &str,
) -> DbResult<Option<(Position, AccountData)>> {
    let room = room_id.map_or("", RoomId::as_str);
    let row = conn.find(&FIND_ACCOUNT_DATA, args![user_id, room, kind]).await?;
    row.map(|row| account_data(&row, user_id)).transpose()
}

/// One type of several users' global account data, as JSON.
///
/// Users without it are left out.
pub(crate) async fn list_global(
    conn: &mut Conn,
    users: &[&UserId],
    kind: &str,
) -> DbResult<Vec<(OwnedUserId, String)>> {
    let users: Vec<&str> = users.iter().map(|user| user.as_str()).collect();
    let rows = conn.list(&LIST_GLOBAL, args![&users, kind]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

/// Everything of a user that was set after `after`, oldest first.
///
/// A piece that was set twice comes once, as it is now.
pub(crate) async fn list_since(
    conn: &mut Conn,
    user_id: &UserId,
    after: Position,
) -> DbResult<Vec<(Position, AccountData)>> {
    let rows = conn.list(&ACCOUNT_DATA_SINCE, args![user_id, after.0]).await?;
    rows.iter().map(|row| account_data(row, user_id)).collect()
}

/// What of these users' account data stands in a stretch of the log.
///
/// What has been set again after `last` is not found: whoever reads that stretch finds it there.
pub(crate) async fn list_between(
    conn: &mut Conn,
    users: &[&UserId],
    first: Position,
    last: Position,
) -> DbResult<Vec<(Position, AccountData)>> {
    let users: Vec<&str> = users.iter().map(|user| user.as_str()).collect();
    let rows = conn.list(&ACCOUNT_DATA_BETWEEN, args![&users, first.0, last.0]).await?;
    rows.iter().map(|row| account_data(row, &row.get::<OwnedUserId>(4)?)).collect()
}

fn account_data(row: &Row, user_id: &UserId) -> DbResult<(Position, AccountData)> {
    // A primary key holds no NULL, so no room is an empty one.
    let room: String = row.get(0)?;
    let room_id = if room.is_empty() { None } else { Some(room.try_into().map_err(DbError::decode)?) };
    let content: Arc<RawValue> = RawValue::from_string(row.get(2)?).map_err(DbError::decode)?.into();
    let data = AccountData { user_id: OwnedUserId::from(user_id), room_id, kind: row.get(1)?, content };
    Ok((Position(row.get(3)?), data))
}
