//! `early_redactions`, and what a redaction does to the event that it redacts.
//!
//! A redaction may come before its target. Until the target is known, `early_redactions` holds the two identifiers; the
//! redaction takes effect then, or turns out to have none (`room/graph/early.rs`).
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#redactions>

use ruma::{EventId, OwnedEventId};

use super::{event::read, relation};
use crate::{
    db::{Column, ColumnType, Conn, DbResult, Insert, Tx, args, statements},
    event::{Pdu, Stored},
};

statements! {
    LIST_EARLY_REDACTIONS = "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces, e.room_order, e.missing IS NOT NULL
        FROM early_redactions x JOIN events e ON e.event_id = x.redaction JOIN rooms r ON r.room_id = e.room_id
        WHERE x.target = $1 ORDER BY e.room_order";
    FIND_REDACTED_BY = "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces, e.room_order, e.missing IS NOT NULL
        FROM events e JOIN rooms r ON r.room_id = e.room_id WHERE e.redacted_by = $1";
    /// Early no longer: their targets are known.
    LIST_OVERDUE = "SELECT DISTINCT x.target FROM early_redactions x JOIN events t ON t.event_id = x.target
        WHERE x.target > $1 ORDER BY x.target LIMIT $2";
    LIST_TARGETS = "SELECT DISTINCT target FROM early_redactions WHERE target IN LIST($1)";
    FORGET_EARLY_REDACTIONS = "DELETE FROM early_redactions WHERE target = $1 AND redaction IN LIST($2)";
    DELETE_EARLY_REDACTIONS = "DELETE FROM early_redactions WHERE target IN LIST($1)";
    REDACT = "UPDATE events SET json = $2, redacted_by = $3, notifies = FALSE WHERE event_id = $1";
    /// What was redacted no longer asks for attention.
    DELETE_HIGHLIGHTS = "DELETE FROM highlights WHERE position = (SELECT position FROM events WHERE event_id = $1)";
}

static INSERT_EARLY_REDACTIONS: Insert = Insert::new(
    "INSERT_EARLY_REDACTIONS",
    "early_redactions",
    &[("target", ColumnType::Text), ("redaction", ColumnType::Text)],
    "ON CONFLICT DO NOTHING",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&INSERT_EARLY_REDACTIONS];

/// The redactions of an event that came before it, oldest first.
pub(crate) async fn list_early(conn: &mut Conn, target: &EventId) -> DbResult<Vec<Stored>> {
    read(conn, &LIST_EARLY_REDACTIONS, args![target]).await
}

/// Remembers redactions, each with the target that has not come.
pub(crate) async fn insert_early(tx: &mut Tx, redactions: &[(&EventId, &EventId)]) -> DbResult<()> {
    let columns = [
        Column::texts(redactions.iter().map(|(target, _)| target.as_str())),
        Column::texts(redactions.iter().map(|(_, redaction)| redaction.as_str())),
    ];
    tx.insert(&INSERT_EARLY_REDACTIONS, &columns).await
}

/// Events that are known although redactions are remembered that came before them: by their identifiers, those after one,
/// at most so many.
pub(crate) async fn list_overdue(conn: &mut Conn, after: Option<&EventId>, limit: i64) -> DbResult<Vec<OwnedEventId>> {
    let after = after.map_or("", EventId::as_str);
    conn.list(&LIST_OVERDUE, args![after, limit]).await?.iter().map(|row| row.get(0)).collect()
}

/// Those of the events that redactions are remembered for.
pub(crate) async fn list_targets(conn: &mut Conn, event_ids: &[&EventId]) -> DbResult<Vec<OwnedEventId>> {
    let ids: Vec<&str> = event_ids.iter().map(|id| id.as_str()).collect();
    conn.list(&LIST_TARGETS, args![&ids]).await?.iter().map(|row| row.get(0)).collect()
}

/// Forgets some of the redactions that came before an event.
pub(crate) async fn forget_early(tx: &mut Tx, target: &EventId, redactions: &[OwnedEventId]) -> DbResult<()> {
    let redactions: Vec<&str> = redactions.iter().map(|redaction| redaction.as_str()).collect();
    tx.execute(&FORGET_EARLY_REDACTIONS, args![target, &redactions]).await.map(drop)
}

/// Forgets the redactions that came before these events, which have come.
pub(crate) async fn delete_early(tx: &mut Tx, targets: &[&EventId]) -> DbResult<()> {
    let targets: Vec<&str> = targets.iter().map(|target| target.as_str()).collect();
    tx.execute(&DELETE_EARLY_REDACTIONS, args![&targets]).await.map(drop)
}

/// The event that a redaction has redacted.
pub(crate) async fn find_target(conn: &mut Conn, redaction: &EventId) -> DbResult<Option<Stored>> {
    Ok(read(conn, &FIND_REDACTED_BY, args![redaction]).await?.pop())
}

/// Puts the redacted form in place of the original, for good. It relates to nothing any more, and highlights nobody.
pub(crate) async fn replace(conn: &mut Conn, redacted: &Pdu, because: &EventId) -> DbResult<()> {
    relation::delete(conn, redacted.event_id()).await?;
    conn.execute(&DELETE_HIGHLIGHTS, args![redacted.event_id()]).await?;
    // Whoever gives the event another row at this moment (`room/graph/history/write.rs`) is waited for. On `PostgreSQL` the
    // first statement then finds the old row gone and does not see the new one; the second does.
    for _ in 0..2 {
        if conn.execute(&REDACT, args![redacted.event_id(), redacted.json().get(), because]).await? > 0 {
            break;
        }
    }
    Ok(())
}
