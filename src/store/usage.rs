//! `account_data_usage` and `rooms_made`: what users have of what they may have only so much of, where that is not
//! counted in the tables themselves.
//!
//! All of it is written under the log's lock ([`super::log::lock`]), with what it counts. What is to be true is read there,
//! too.

use std::collections::HashMap;

use ruma::{OwnedRoomId, OwnedUserId, UserId};

use crate::db::{Column, ColumnType, Conn, DbResult, Insert, Tx, args, statements};

statements! {
    /// The pieces of which each has a row in a JSON array: user, room and type. Deleted ones have no bytes.
    LIST_PIECES = "SELECT a.user_id, a.room_id, a.type, CASE WHEN a.content = '{}' THEN 0
            ELSE octet_length(a.content) + octet_length(a.type) END
        FROM json_each($1) AS asked JOIN account_data a
            ON a.user_id = asked.value ->> 0 AND a.room_id = asked.value ->> 1 AND a.type = asked.value ->> 2"
        | "SELECT a.user_id, a.room_id, a.type, CASE WHEN a.content = '{}' THEN 0::bigint
            ELSE octet_length(a.content)::bigint + octet_length(a.type) END
        FROM json_array_elements($1::text::json) AS asked (value) JOIN account_data a
            ON a.user_id = asked.value ->> 0 AND a.room_id = asked.value ->> 1 AND a.type = asked.value ->> 2";
    LIST_ACCOUNT_DATA_USAGE = "SELECT user_id, pieces, deleted, bytes FROM account_data_usage WHERE user_id IN LIST($1)";
    /// The oldest $2 pieces of a user that are deleted.
    FORGET_DELETED = "DELETE FROM account_data WHERE user_id = $1 AND position IN (
        SELECT position FROM account_data WHERE user_id = $1 AND content = '{}' ORDER BY position LIMIT $2)";
    COUNT_ROOMS_MADE = "SELECT user_id, COUNT(*) FROM rooms_made WHERE user_id IN LIST($1) AND made_ts > $2
        GROUP BY user_id";
    FORGET_ROOMS_MADE = "DELETE FROM rooms_made WHERE user_id IN LIST($1) AND made_ts <= $2";
}

static UPSERT_ACCOUNT_DATA_USAGE: Insert = Insert::new(
    "UPSERT_ACCOUNT_DATA_USAGE",
    "account_data_usage",
    &[
        ("user_id", ColumnType::Text),
        ("pieces", ColumnType::Int),
        ("deleted", ColumnType::Int),
        ("bytes", ColumnType::Int),
    ],
    "ON CONFLICT (user_id) DO UPDATE
        SET pieces = excluded.pieces, deleted = excluded.deleted, bytes = excluded.bytes",
);

static INSERT_ROOM_MADE: Insert = Insert::new(
    "INSERT_ROOM_MADE",
    "rooms_made",
    &[("user_id", ColumnType::Text), ("made_ts", ColumnType::Int), ("room_id", ColumnType::Text)],
    "",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&UPSERT_ACCOUNT_DATA_USAGE, &INSERT_ROOM_MADE];

/// In milliseconds: for so long it counts that somebody has made a room.
pub(crate) const DAY: i64 = 24 * 60 * 60 * 1000;

/// How many pieces that somebody has deleted are remembered, for clients that have not heard of it yet. A client that
/// was away for longer keeps what it had.
const KEPT_DELETED: i64 = 1_000;

/// A piece of account data: whose, of which room (none is empty), and of which type.
pub(crate) type PieceKey<'a> = (&'a UserId, &'a str, &'a str);

/// What a user has of account data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AccountDataUsage {
    pub(crate) pieces: i64,
    /// Those that are remembered to be deleted. They are no part of the pieces.
    pub(crate) deleted: i64,
    pub(crate) bytes: i64,
}

impl AccountDataUsage {
    /// A piece takes the place of one of so many bytes, which are 0 if it was deleted.
    pub(crate) fn replace(&mut self, before: Option<i64>, after: i64) {
        if let Some(before) = before {
            self.count(before, -1);
        }
        self.count(after, 1);
    }

    fn count(&mut self, bytes: i64, times: i64) {
        let kind = if bytes > 0 { &mut self.pieces } else { &mut self.deleted };
        *kind += times;
        self.bytes += times * bytes;
    }
}

/// A room that somebody has made.
#[derive(Debug)]
pub(crate) struct MadeRoom {
    pub(crate) user_id: OwnedUserId,
    pub(crate) room_id: OwnedRoomId,
    /// Milliseconds since the Unix epoch.
    pub(crate) made_ts: i64,
}

/// The bytes of those pieces that are there; 0 of those that are deleted.
pub(crate) async fn list_pieces<'a>(conn: &mut Conn, pieces: &[PieceKey<'a>]) -> DbResult<HashMap<PieceKey<'a>, i64>> {
    let asked = serde_json::json!(pieces).to_string();
    let mut found: HashMap<(String, String, String), i64> = HashMap::new();
    for row in conn.list(&LIST_PIECES, args![&asked]).await? {
        found.insert((row.get(0)?, row.get(1)?, row.get(2)?), row.get(3)?);
    }
    let bytes = |(user_id, room, kind): &PieceKey<'a>| {
        found.get(&(user_id.to_string(), (*room).to_owned(), (*kind).to_owned())).copied()
    };
    Ok(pieces.iter().filter_map(|piece| Some((*piece, bytes(piece)?))).collect())
}

/// What these users have; those who have never had any are left out.
pub(crate) async fn list_account_data<'a>(
    conn: &mut Conn,
    users: &[&'a UserId],
) -> DbResult<HashMap<&'a UserId, AccountDataUsage>> {
    let names: Vec<&str> = users.iter().map(|user_id| user_id.as_str()).collect();
    let mut found: HashMap<String, AccountDataUsage> = HashMap::new();
    for row in conn.list(&LIST_ACCOUNT_DATA_USAGE, args![&names]).await? {
        let usage = AccountDataUsage { pieces: row.get(1)?, deleted: row.get(2)?, bytes: row.get(3)? };
        found.insert(row.get(0)?, usage);
    }
    Ok(users.iter().filter_map(|user_id| Some((*user_id, *found.get(user_id.as_str())?))).collect())
}

/// Writes what users have now, and forgets the oldest of what they have deleted, if that is much.
pub(crate) async fn set_account_data(tx: &mut Tx, usage: HashMap<OwnedUserId, AccountDataUsage>) -> DbResult<()> {
    let (mut users, mut rows) = (Vec::new(), Vec::new());
    for (user_id, mut usage) in usage {
        let surplus = usage.deleted - KEPT_DELETED;
        if surplus > 0 {
            tx.execute(&FORGET_DELETED, args![&user_id, surplus]).await?;
            usage.deleted = KEPT_DELETED;
        }
        users.push(user_id);
        rows.push(usage);
    }
    let columns = [
        Column::texts(users.iter().map(|user_id| user_id.as_str())),
        Column::ints(rows.iter().map(|usage| usage.pieces)),
        Column::ints(rows.iter().map(|usage| usage.deleted)),
        Column::ints(rows.iter().map(|usage| usage.bytes)),
    ];
    tx.insert(&UPSERT_ACCOUNT_DATA_USAGE, &columns).await
}

/// How many rooms each of these users has made after `since`, which is in milliseconds since the Unix epoch.
pub(crate) async fn count_rooms<'a>(
    conn: &mut Conn,
    users: &[&'a UserId],
    since: i64,
) -> DbResult<HashMap<&'a UserId, i64>> {
    let names: Vec<&str> = users.iter().map(|user_id| user_id.as_str()).collect();
    let mut found: HashMap<String, i64> = HashMap::new();
    for row in conn.list(&COUNT_ROOMS_MADE, args![&names, since]).await? {
        found.insert(row.get(0)?, row.get(1)?);
    }
    Ok(users.iter().map(|user_id| (*user_id, found.get(user_id.as_str()).copied().unwrap_or_default())).collect())
}

/// Notes rooms that were made, and forgets those that the same users made before the day that counts.
pub(crate) async fn add_rooms(tx: &mut Tx, made: &[MadeRoom]) -> DbResult<()> {
    let columns = [
        Column::texts(made.iter().map(|made| made.user_id.as_str())),
        Column::ints(made.iter().map(|made| made.made_ts)),
        Column::texts(made.iter().map(|made| made.room_id.as_str())),
    ];
    tx.insert(&INSERT_ROOM_MADE, &columns).await?;
    let users: Vec<&str> = made.iter().map(|made| made.user_id.as_str()).collect();
    let Some(first) = made.iter().map(|made| made.made_ts).min() else { return Ok(()) };
    tx.execute(&FORGET_ROOMS_MADE, args![&users, first - DAY]).await.map(drop)
}
