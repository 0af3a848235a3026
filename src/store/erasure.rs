//! `erasures`: whose words are redacted for whoever joins later.
//!
//! `accounts.erased` says that somebody has asked for it; the row here says from which position on it holds. It is
//! written with the fact in the log, so that every node goes by the same place.

use ruma::{OwnedUserId, UserId};

use crate::{
    db::{Column, ColumnType, Conn, DbResult, Insert, Tx, args, statements},
    ground::position::Position,
};

statements! {
    LIST_ERASURES = "SELECT user_id, position FROM erasures";
    ERASURES_BETWEEN = "SELECT position, user_id FROM erasures WHERE position >= $1 AND position <= $2";
    /// Those who have asked for it, and of whom the log does not know yet.
    LIST_UNLOGGED = "SELECT a.user_id FROM accounts a
        WHERE a.erased AND NOT EXISTS (SELECT 1 FROM erasures e WHERE e.user_id = a.user_id)";
    FIND_UNLOGGED = "SELECT a.user_id FROM accounts a
        WHERE a.user_id = $1 AND a.erased AND NOT EXISTS (SELECT 1 FROM erasures e WHERE e.user_id = a.user_id)";
}

/// Once is enough, and the first counts.
static INSERT_ERASURES: Insert = Insert::new(
    "INSERT_ERASURES",
    "erasures",
    &[("user_id", ColumnType::Text), ("position", ColumnType::Int)],
    "ON CONFLICT (user_id) DO NOTHING",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&INSERT_ERASURES];

/// Notes from which places on erasures hold.
pub(crate) async fn insert(tx: &mut Tx, rows: &[(&UserId, Position)]) -> DbResult<()> {
    let columns = [
        Column::texts(rows.iter().map(|(user_id, _)| user_id.as_str())),
        Column::ints(rows.iter().map(|(_, at)| at.0)),
    ];
    tx.insert(&INSERT_ERASURES, &columns).await
}

/// Everybody who has been erased, and where in the log.
pub(crate) async fn list(conn: &mut Conn) -> DbResult<Vec<(OwnedUserId, Position)>> {
    let rows = conn.list(&LIST_ERASURES, args![]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, Position(row.get(1)?)))).collect()
}

/// Who was erased in a stretch of the log, and where.
pub(crate) async fn list_between(
    conn: &mut Conn,
    first: Position,
    last: Position,
) -> DbResult<Vec<(Position, OwnedUserId)>> {
    let rows = conn.list(&ERASURES_BETWEEN, args![first.0, last.0]).await?;
    rows.iter().map(|row| Ok((Position(row.get(0)?), row.get(1)?))).collect()
}

/// Those who have asked to be erased, of whom the log does not know yet.
pub(crate) async fn list_unlogged(conn: &mut Conn) -> DbResult<Vec<OwnedUserId>> {
    conn.list(&LIST_UNLOGGED, args![]).await?.iter().map(|row| row.get(0)).collect()
}

/// Whether somebody has asked to be erased, of whom the log does not know yet.
pub(crate) async fn is_unlogged(conn: &mut Conn, user_id: &UserId) -> DbResult<bool> {
    Ok(conn.find(&FIND_UNLOGGED, args![user_id]).await?.is_some())
}
