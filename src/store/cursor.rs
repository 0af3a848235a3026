//! `cursors`: how far readers of the log that keep tables of their own have come.

use crate::{
    db::{Conn, DbResult, Tx, args, statements},
    ground::position::Position,
};

statements! {
    FIND_CURSOR = "SELECT position FROM cursors WHERE name = $1";
    LOCK_CURSOR = "SELECT position FROM cursors WHERE name = $1 FOR UPDATE";
    CLAIM_CURSOR = "UPDATE cursors SET epoch = $2 WHERE name = $1 AND epoch <= $2 RETURNING position";
    /// In the name of a lease, which must not be older than the last one.
    ADVANCE_CURSOR = "UPDATE cursors SET position = $3, epoch = $4 WHERE name = $1 AND position = $2 AND epoch <= $4";
    /// In nobody's name.
    PUSH_CURSOR = "UPDATE cursors SET position = $3 WHERE name = $1 AND position = $2";
}

/// Up to where a reader has come.
pub(crate) async fn find(conn: &mut Conn, name: &str) -> DbResult<Option<Position>> {
    conn.find(&FIND_CURSOR, args![name]).await?.map(|row| row.get(0).map(Position)).transpose()
}

/// Up to where a reader has come, and until the transaction ends it comes no further.
pub(crate) async fn lock(tx: &mut Tx, name: &str) -> DbResult<Option<Position>> {
    tx.find(&LOCK_CURSOR, args![name]).await?.map(|row| row.get(0).map(Position)).transpose()
}

/// Makes a cursor that of a lease: those of older ones don't move it any more. Returns where it stands. None where a
/// later one has it.
pub(crate) async fn claim(conn: &mut Conn, name: &str, epoch: i64) -> DbResult<Option<Position>> {
    conn.find(&CLAIM_CURSOR, args![name, epoch]).await?.map(|row| row.get(0).map(Position)).transpose()
}

/// Moves a cursor that stands at `from`, in the name of a lease if one is given. False where it stands elsewhere, or a
/// later lease has it.
pub(crate) async fn advance(
    tx: &mut Tx,
    name: &str,
    from: Position,
    until: Position,
    epoch: Option<i64>,
) -> DbResult<bool> {
    let moved = match epoch {
        Some(epoch) => tx.execute(&ADVANCE_CURSOR, args![name, from.0, until.0, epoch]).await?,
        None => tx.execute(&PUSH_CURSOR, args![name, from.0, until.0]).await?,
    };
    Ok(moved == 1)
}
