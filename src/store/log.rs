//! `batches`: one row for each committed stretch of the log.
//!
//! A row says which positions its batch has and, entry by entry, what kind of thing stands at each; the things
//! themselves are in their own tables. Rows stay; what they say of their entries is emptied once nobody has to read it.
//! Since the batch's id is chosen by whoever writes it, a commit whose answer was lost can be looked up.

use std::collections::HashSet;

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};

use crate::{
    db::{Column, ColumnType, Conn, DbResult, Engine, Insert, Row, Tx, args, statements},
    event::fact::Entry,
    ground::position::{Mark, Position},
};

statements! {
    /// Held until the commit is visible: positions come in the order of commits. The number is the lock's name.
    LOCK_LOG = "SELECT 1" | "SELECT pg_advisory_xact_lock(4720319)::text";
    /// On SQLite the first page of the file is written as it is. `PostgreSQL` writes with each sign of life, so there only
    /// the log's lock is in question.
    TRY_WRITING = "PRAGMA user_version = 0" | "SELECT 1";
    LAST_BATCH = "SELECT last_position FROM batches ORDER BY last_position DESC LIMIT 1";
    /// The end of the log and, in further rows, which of some users ($2) are in which of some rooms ($1).
    LAST_BATCH_AND_JOINED = "SELECT NULL, NULL, (SELECT last_position FROM batches ORDER BY last_position DESC LIMIT 1)
        UNION ALL SELECT room_id, user_id, position FROM memberships
        WHERE room_id IN LIST($1) AND user_id IN LIST($2) AND membership = 'join'";
    FIND_BATCH = "SELECT last_position FROM batches WHERE batch_id = $1";
    NEWEST_BATCHES = "SELECT first_position, last_position, batch_id FROM batches
        ORDER BY last_position DESC LIMIT $1";
    /// The batches that hold these places.
    BATCHES_AT = "SELECT p.value, (SELECT batch_id FROM batches WHERE last_position >= p.value
            ORDER BY last_position LIMIT 1)
        FROM json_each($1) p"
        | "SELECT p.value, (SELECT batch_id FROM batches WHERE last_position >= p.value
            ORDER BY last_position LIMIT 1)
        FROM unnest($1::bigint[]) p(value)";
    /// Where the reader stands that has come least far, but for the one of this name: a durable cursor or a node.
    LAST_READER = "SELECT MIN(place) FROM (
            SELECT position AS place FROM cursors WHERE name <> $1 UNION ALL SELECT reached FROM nodes
        ) readers";
    EMPTY_BATCHES = "UPDATE batches SET entries = '[]' WHERE last_position > $1 AND last_position <= $2";
    BATCHES_AFTER = "SELECT first_position, last_position, entries, batch_id FROM batches
        WHERE last_position > $1 ORDER BY last_position LIMIT $2";
}

/// Its key is the last position, since a stretch is looked for by places that are not its first.
static INSERT_BATCH: Insert = Insert::new(
    "INSERT_BATCH",
    "batches",
    &[
        ("last_position", ColumnType::Int),
        ("first_position", ColumnType::Int),
        ("batch_id", ColumnType::Text),
        ("entries", ColumnType::Text),
    ],
    "",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&INSERT_BATCH];

/// A batch as its row has it.
///
/// Positions from `first` to `last` are its own, and no other batch has any of them.
pub(crate) struct BatchRow {
    pub(crate) first: Position,
    pub(crate) last: Position,
    pub(crate) mark: Mark,
    pub(crate) entries: Vec<Entry>,
}

impl BatchRow {
    /// Whether the row no longer says what the batch holds.
    pub(crate) fn is_pruned(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Waits for the turn to write, and holds everybody else up until the transaction ends: it inserts a batch, or sees who
/// is in which room and writes down what follows from that before it changes.
pub(crate) async fn lock(tx: &mut Tx) -> DbResult<()> {
    match tx.engine() {
        Engine::Postgres => {
            tx.take_turn().await;
            tx.execute(&LOCK_LOG, args![]).await.map(drop)
        }
        // Whoever may write there is alone.
        Engine::Sqlite => Ok(()),
    }
}

/// Finds out whether the log can be written. What that takes is done only by the commit.
pub(crate) async fn try_writing(tx: &mut Tx) -> DbResult<()> {
    lock(tx).await?;
    tx.execute(&TRY_WRITING, args![]).await.map(drop)
}

/// The end of the log.
pub(crate) async fn last_position(conn: &mut Conn) -> DbResult<Position> {
    let row = conn.find(&LAST_BATCH, args![]).await?;
    row.map_or(Ok(Position::START), |row| row.get(0).map(Position))
}

/// The end of the log, and which of these users are in which of these rooms: one question, for whoever holds everybody
/// else up.
pub(crate) async fn last_position_and_joined(
    tx: &mut Tx,
    rooms: &[&RoomId],
    users: &[&UserId],
) -> DbResult<(Position, HashSet<(OwnedRoomId, OwnedUserId)>)> {
    if rooms.is_empty() {
        return Ok((last_position(tx).await?, HashSet::new()));
    }
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    let users: Vec<&str> = users.iter().map(|user| user.as_str()).collect();
    let (mut last, mut joined) = (Position::START, HashSet::new());
    for row in tx.list(&LAST_BATCH_AND_JOINED, args![&rooms, &users]).await? {
        match (row.get::<Option<OwnedRoomId>>(0)?, row.get::<Option<OwnedUserId>>(1)?) {
            (Some(room_id), Some(user_id)) => drop(joined.insert((room_id, user_id))),
            _ => last = row.get::<Option<i64>>(2)?.map_or(Position::START, Position),
        }
    }
    Ok((last, joined))
}

/// The first and the last place of the newest batches and their marks, oldest first.
pub(crate) async fn newest_batches(conn: &mut Conn, limit: i64) -> DbResult<Vec<(Position, Position, Mark)>> {
    let rows = conn.list(&NEWEST_BATCHES, args![limit]).await?;
    let batch = |row: &Row| Ok((Position(row.get(0)?), Position(row.get(1)?), Mark::of(&row.get::<String>(2)?)));
    rows.iter().rev().map(batch).collect()
}

/// The marks of the batches that hold these places, as far as the log reaches.
pub(crate) async fn marks_at(conn: &mut Conn, places: &[i64]) -> DbResult<Vec<(Position, Mark)>> {
    let mut marks = Vec::with_capacity(places.len());
    for row in conn.list(&BATCHES_AT, args![places]).await? {
        if let Some(batch_id) = row.get::<Option<String>>(1)? {
            marks.push((Position(row.get(0)?), Mark::of(&batch_id)));
        }
    }
    Ok(marks)
}

/// Whether a commit whose answer was lost took place.
pub(crate) async fn batch_exists(conn: &mut Conn, batch_id: &str) -> DbResult<bool> {
    Ok(conn.find(&FIND_BATCH, args![batch_id]).await?.is_some())
}

/// Writes the row by which a batch is in the log. Whoever does so holds [`lock`]; `entries` are in the order of their
/// positions.
pub(crate) async fn insert_batch(
    tx: &mut Tx,
    first: Position,
    last: Position,
    batch_id: &str,
    entries: &[Entry],
) -> DbResult<()> {
    let entries = serde_json::json!(entries).to_string();
    let columns =
        [Column::ints([last.0]), Column::ints([first.0]), Column::texts([batch_id]), Column::texts([entries.as_str()])];
    tx.insert(&INSERT_BATCH, &columns).await
}

/// The batches that end after `position`, oldest first.
pub(crate) async fn batches_after(conn: &mut Conn, position: Position, limit: i64) -> DbResult<Vec<BatchRow>> {
    conn.list(&BATCHES_AFTER, args![position.0, limit]).await?.iter().map(batch).collect()
}

/// How far the reader has come that has come least far: a durable cursor, but for the one of this name, or a node.
///
/// Up to there nobody needs any more what batches say of their entries.
pub(crate) async fn find_last_reader(conn: &mut Conn, but: &str) -> DbResult<Option<Position>> {
    let row = conn.find(&LAST_READER, args![but]).await?;
    row.map_or(Ok(None), |row| row.get::<Option<i64>>(0).map(|place| place.map(Position)))
}

/// Empties what the batches say of their entries that end after `from` and up to `until`.
pub(crate) async fn empty_batches(tx: &mut Tx, from: Position, until: Position) -> DbResult<()> {
    tx.execute(&EMPTY_BATCHES, args![from.0, until.0]).await.map(drop)
}

fn batch(row: &Row) -> DbResult<BatchRow> {
    let mark = Mark::of(&row.get::<String>(3)?);
    Ok(BatchRow { first: Position(row.get(0)?), last: Position(row.get(1)?), mark, entries: row.json(2)? })
}
