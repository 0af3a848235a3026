//! `batches`: one row for each committed stretch of the log.

use crate::{
    db::{Column, Conn, DbResult, Engine, Insert, Kind, Row, Tx, args, statements},
    fact::Entry,
    position::{Mark, Position},
};

statements! {
    /// Held until the commit is visible: positions come in the order of commits.
    LOCK_LOG = "SELECT 1" | "SELECT pg_advisory_xact_lock(4720319)::text";
    LAST_BATCH = "SELECT last_position FROM batches ORDER BY last_position DESC LIMIT 1";
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
    BATCHES_AFTER = "SELECT first_position, last_position, entries, batch_id FROM batches
        WHERE last_position > $1 ORDER BY last_position LIMIT $2";
}

static INSERT_BATCH: Insert = Insert::new(
    "INSERT_BATCH",
    "batches",
    &[("last_position", Kind::Int), ("first_position", Kind::Int), ("batch_id", Kind::Text), ("entries", Kind::Text)],
    "",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&INSERT_BATCH];

/// A batch as its row tells it.
pub(crate) struct BatchRow {
    pub(crate) first: Position,
    pub(crate) last: Position,
    pub(crate) mark: Mark,
    pub(crate) entries: Vec<Entry>,
}

/// Waits for the turn to write, and holds everybody else up until the transaction ends: it inserts a batch, or sees who
/// is in which room and writes down what follows from that before it changes.
pub(crate) async fn lock(tx: &mut Tx) -> DbResult<()> {
    match tx.engine() {
        Engine::Postgres => tx.execute(&LOCK_LOG, args![]).await.map(drop),
        // Whoever may write there is alone.
        Engine::Sqlite => Ok(()),
    }
}

/// The end of the log.
pub(crate) async fn last_position(conn: &mut Conn) -> DbResult<Position> {
    let row = conn.find(&LAST_BATCH, args![]).await?;
    row.map_or(Ok(Position::START), |row| row.get(0).map(Position))
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

pub(crate) async fn batch_exists(conn: &mut Conn, batch_id: &str) -> DbResult<bool> {
    Ok(conn.find(&FIND_BATCH, args![batch_id]).await?.is_some())
}

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

fn batch(row: &Row) -> DbResult<BatchRow> {
    let mark = Mark::of(&row.get::<String>(3)?);
    Ok(BatchRow { first: Position(row.get(0)?), last: Position(row.get(1)?), mark, entries: row.json(2)? })
}
