//! `reports`: what users have reported to the moderators.
//!
//! A row names an event with its room, a room, or a user, and nothing that could change: what was reported is read
//! where it is.

use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};

use crate::db::{Conn, DbResult, Row, args, statements};

statements! {
    INSERT_REPORT = "INSERT INTO reports (report_id, reporter, room_id, event_id, user_id, reason, received_ts)
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    COUNT_REPORTS = "SELECT COUNT(*) FROM reports WHERE reporter = $1 AND received_ts > $2";
    LIST_REPORTS = "SELECT report_id, reporter, room_id, event_id, user_id, reason, received_ts FROM reports
        ORDER BY received_ts DESC, report_id LIMIT $1";
}

/// A report as it is kept.
///
/// Columns that say nothing are NULL: which are not shows what kind of thing was reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReportRow {
    pub(crate) id: String,
    pub(crate) reporter: OwnedUserId,
    pub(crate) room_id: Option<OwnedRoomId>,
    pub(crate) event_id: Option<OwnedEventId>,
    pub(crate) user_id: Option<OwnedUserId>,
    pub(crate) reason: String,
    /// Milliseconds since the Unix epoch.
    pub(crate) received_ts: i64,
}

/// Adds a report. Nothing keeps somebody from reporting a thing twice.
pub(crate) async fn insert(conn: &mut Conn, report: &ReportRow) -> DbResult<()> {
    let ReportRow { id, reporter, room_id, event_id, user_id, reason, received_ts } = report;
    let room_id = room_id.as_deref().map(RoomId::as_str);
    let event_id = event_id.as_deref().map(EventId::as_str);
    let user_id = user_id.as_deref().map(UserId::as_str);
    conn.execute(&INSERT_REPORT, args![id, reporter, room_id, event_id, user_id, reason, *received_ts]).await.map(drop)
}

/// How many things a user has reported after `since`, which is in milliseconds since the Unix epoch.
pub(crate) async fn count(conn: &mut Conn, reporter: &UserId, since: i64) -> DbResult<i64> {
    conn.find(&COUNT_REPORTS, args![reporter, since]).await?.map_or(Ok(0), |row| row.get(0))
}

/// The newest reports, newest first.
///
/// In the order in which they came in, and of one moment by their ids.
pub(crate) async fn list(conn: &mut Conn, limit: i64) -> DbResult<Vec<ReportRow>> {
    conn.list(&LIST_REPORTS, args![limit]).await?.iter().map(report).collect()
}

fn report(row: &Row) -> DbResult<ReportRow> {
    Ok(ReportRow {
        id: row.get(0)?,
        reporter: row.get(1)?,
        room_id: row.get(2)?,
        event_id: row.get(3)?,
        user_id: row.get(4)?,
        reason: row.get(5)?,
        received_ts: row.get(6)?,
    })
}
