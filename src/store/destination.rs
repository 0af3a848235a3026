//! `destinations`: how it stands with other servers that something is sent to, and from where on they are owed something;
//! `destination_events`: what they are owed one by one.
//!
//! Whoever sends to the destinations of a bucket locks its cursor first (`log/cursor.rs`), by which they notice that the
//! bucket is somebody else's. Others change one row at a time and lock nothing else.

use ruma::{EventId, OwnedEventId, OwnedServerName, ServerName};

use crate::{
    db::{Column, ColumnType, Conn, DbResult, Insert, Row, Tx, args, statements},
    ground::position::Position,
};

statements! {
    FIND_DESTINATION = "SELECT server_name, owed_from, failures, failed_at, retry_at, succeeded_at, reason
        FROM destinations WHERE server_name = $1";
    LIST_DESTINATIONS = "SELECT server_name, owed_from, failures, failed_at, retry_at, succeeded_at, reason
        FROM destinations WHERE server_name > $1 ORDER BY server_name LIMIT $2";
    LIST_OWED = "SELECT server_name, owed_from FROM destinations WHERE bucket = $1 AND owed_from IS NOT NULL";
    LIST_DUE_DESTINATIONS = "SELECT server_name FROM destinations
        WHERE bucket IN LIST($1) AND owed_from IS NOT NULL AND retry_at <= $2 ORDER BY retry_at LIMIT $3";
    LOCK_FAILURES = "SELECT failures FROM destinations WHERE server_name = $1 FOR UPDATE";
    NOTE_FAILURE = "INSERT INTO destinations
            (server_name, bucket, owed_from, failures, failed_at, retry_at, heard_at, succeeded_at, reason)
        VALUES ($1, $2, $3, $4, $5, $6, 0, NULL, $7)
        ON CONFLICT (server_name) DO UPDATE SET failures = excluded.failures, failed_at = excluded.failed_at,
            retry_at = excluded.retry_at, reason = excluded.reason, owed_from = CASE
                WHEN destinations.owed_from < excluded.owed_from THEN destinations.owed_from
                ELSE excluded.owed_from END";
    NOTE_OWED = "INSERT INTO destinations
            (server_name, bucket, owed_from, failures, failed_at, retry_at, heard_at, succeeded_at, reason)
        VALUES ($1, $2, $3, 0, NULL, 0, 0, NULL, NULL)
        ON CONFLICT (server_name) DO UPDATE SET owed_from = CASE
            WHEN destinations.owed_from < excluded.owed_from THEN destinations.owed_from
            ELSE excluded.owed_from END";
    SET_OWED = "UPDATE destinations SET owed_from = $2 WHERE server_name = $1";
    SET_REACHED = "UPDATE destinations SET failures = 0, retry_at = 0, heard_at = 0, reason = NULL, succeeded_at = $2
        WHERE server_name = $1";
    /// Those among the servers that nothing is tried with before a time after $2, and with whom waiting was last ended by
    /// $3.
    LIST_BACKING_OFF = "SELECT server_name FROM destinations
        WHERE server_name IN LIST($1) AND retry_at > $2 AND heard_at <= $3";
    NOTE_HEARD = "UPDATE destinations SET failures = 0, retry_at = $2, heard_at = $2
        WHERE server_name = $1 AND retry_at > $2 AND heard_at <= $3";
    RETRY_NOW = "UPDATE destinations SET failures = 0, retry_at = 0, heard_at = 0 WHERE server_name = $1";
    /// The rooms that a server is in and in which something was sent from $2 on, in the order of what was sent last.
    LIST_OWED_ROOMS = "SELECT r.sent_position, r.extremities FROM room_servers s JOIN rooms r ON r.room_id = s.room_id
        WHERE s.server_name = $1 AND r.sent_position >= $2 ORDER BY r.sent_position LIMIT $3";
    LIST_OWED_EVENTS = "SELECT position, event_id FROM destination_events
        WHERE server_name = $1 ORDER BY position LIMIT $2";
    DELETE_OWED_EVENTS = "DELETE FROM destination_events WHERE server_name = $1 AND position <= $2";
}

/// A success is noted once a minute. Whoever is owed something is not made to look well by a success of before.
static NOTE_SUCCESSES: Insert = Insert::new(
    "NOTE_SUCCESSES",
    "destinations",
    &[
        ("server_name", ColumnType::Text),
        ("bucket", ColumnType::Int),
        ("failures", ColumnType::Int),
        ("retry_at", ColumnType::Int),
        ("heard_at", ColumnType::Int),
        ("succeeded_at", ColumnType::Int),
    ],
    "ON CONFLICT (server_name) DO UPDATE SET succeeded_at = excluded.succeeded_at, failures = 0, retry_at = 0,
        heard_at = 0, reason = NULL
        WHERE destinations.owed_from IS NULL AND (destinations.failures > 0 OR destinations.succeeded_at IS NULL
            OR destinations.succeeded_at <= excluded.succeeded_at - 60000)",
);

static INSERT_OWED_EVENTS: Insert = Insert::new(
    "INSERT_OWED_EVENTS",
    "destination_events",
    &[("server_name", ColumnType::Text), ("position", ColumnType::Int), ("event_id", ColumnType::Text)],
    "ON CONFLICT (server_name, position) DO NOTHING",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&NOTE_SUCCESSES, &INSERT_OWED_EVENTS];

/// How it stands with another server. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) server_name: OwnedServerName,
    /// From which place in the log on it may lack something. None where it has everything, or is about to get it.
    pub(crate) owed_from: Option<Position>,
    /// In a row, the newest being the last thing that happened.
    pub(crate) failures: i64,
    pub(crate) failed_at: Option<i64>,
    /// Before which nothing is tried.
    pub(crate) retry_at: i64,
    pub(crate) succeeded_at: Option<i64>,
    /// Of the last failure.
    pub(crate) reason: Option<String>,
}

/// A failure to reach a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure<'a> {
    /// In a row, this one included.
    pub(crate) failures: i64,
    pub(crate) failed_at: i64,
    pub(crate) retry_at: i64,
    pub(crate) reason: &'a str,
}

/// A room in which a server is owed something.
#[derive(Clone, Debug)]
pub(crate) struct OwedRoom {
    /// The place in the log of what was sent last.
    pub(crate) sent_at: Position,
    pub(crate) extremities: Vec<OwnedEventId>,
}

/// How it stands with a server, if something was ever sent to it.
pub(crate) async fn find(conn: &mut Conn, server: &ServerName) -> DbResult<Option<Destination>> {
    conn.find(&FIND_DESTINATION, args![server.as_str()]).await?.as_ref().map(destination).transpose()
}

/// The servers after one, in the order of their names; all of them are after the empty name.
pub(crate) async fn list(conn: &mut Conn, after: &str, limit: i64) -> DbResult<Vec<Destination>> {
    conn.list(&LIST_DESTINATIONS, args![after, limit]).await?.iter().map(destination).collect()
}

/// Who is owed something in a bucket, each with from where on.
pub(crate) async fn list_owed(conn: &mut Conn, bucket: i64) -> DbResult<Vec<(OwnedServerName, Position)>> {
    let rows = conn.list(&LIST_OWED, args![bucket]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, Position(row.get(1)?)))).collect()
}

/// Who is owed something in some buckets and may be tried by `now`, those first that have waited longest.
pub(crate) async fn list_due(conn: &mut Conn, buckets: &[i64], now: i64, limit: i64) -> DbResult<Vec<OwnedServerName>> {
    conn.list(&LIST_DUE_DESTINATIONS, args![buckets, now, limit]).await?.iter().map(|row| row.get(0)).collect()
}

/// How often in a row a server could not be reached. The row, if there is one, stays as it is until the transaction ends.
pub(crate) async fn lock_failures(tx: &mut Tx, server: &ServerName) -> DbResult<i64> {
    tx.find(&LOCK_FAILURES, args![server.as_str()]).await?.map_or(Ok(0), |row| row.get(0))
}

/// A server could not be reached, and is owed whatever it has not got from a place on.
pub(crate) async fn note_failure(
    tx: &mut Tx,
    (server, bucket): (&ServerName, i64),
    owed_from: Position,
    failure: Failure<'_>,
) -> DbResult<()> {
    let Failure { failures, failed_at, retry_at, reason } = failure;
    let args = args![server.as_str(), bucket, owed_from.0, failures, failed_at, retry_at, reason];
    tx.execute(&NOTE_FAILURE, args).await.map(drop)
}

/// A server is owed something from a place on.
pub(crate) async fn note_owed(tx: &mut Tx, (server, bucket): (&ServerName, i64), owed_from: Position) -> DbResult<()> {
    tx.execute(&NOTE_OWED, args![server.as_str(), bucket, owed_from.0]).await.map(drop)
}

/// From where on a server is still owed something; None for nothing.
pub(crate) async fn set_owed(tx: &mut Tx, server: &ServerName, owed_from: Option<Position>) -> DbResult<()> {
    tx.execute(&SET_OWED, args![server.as_str(), owed_from.map(|position| position.0)]).await.map(drop)
}

/// A server has taken something after it could not be reached.
pub(crate) async fn set_reached(tx: &mut Tx, server: &ServerName, now: i64) -> DbResult<()> {
    tx.execute(&SET_REACHED, args![server.as_str(), now]).await.map(drop)
}

/// Servers have taken something, each with its bucket. No server twice.
pub(crate) async fn note_successes(tx: &mut Tx, servers: &[(&ServerName, i64)], now: i64) -> DbResult<()> {
    let columns = [
        Column::texts(servers.iter().map(|(server, _)| server.as_str())),
        Column::ints(servers.iter().map(|(_, bucket)| *bucket)),
        Column::ints(servers.iter().map(|_| 0)),
        Column::ints(servers.iter().map(|_| 0)),
        Column::ints(servers.iter().map(|_| 0)),
        Column::ints(servers.iter().map(|_| now)),
    ];
    tx.insert(&NOTE_SUCCESSES, &columns).await
}

/// Those of the servers that wait, at `now`, for a time to be tried again, unless something that came from there has ended
/// the waiting after `since`.
pub(crate) async fn list_backing_off(
    conn: &mut Conn,
    servers: &[&str],
    now: i64,
    since: i64,
) -> DbResult<Vec<OwnedServerName>> {
    conn.list(&LIST_BACKING_OFF, args![servers, now, since]).await?.iter().map(|row| row.get(0)).collect()
}

/// Something came from a server, which may be tried again at `now`, unless that was so before since `since`.
pub(crate) async fn note_heard(conn: &mut Conn, server: &ServerName, now: i64, since: i64) -> DbResult<()> {
    conn.execute(&NOTE_HEARD, args![server.as_str(), now, since]).await.map(drop)
}

/// Has a server be tried at once. False if nothing was ever sent to it.
pub(crate) async fn retry_now(conn: &mut Conn, server: &ServerName) -> DbResult<bool> {
    Ok(conn.execute(&RETRY_NOW, args![server.as_str()]).await? == 1)
}

/// The rooms that a server is in, now, and in which something was sent from a place on; first those in which the newest
/// such event is oldest.
pub(crate) async fn list_owed_rooms(
    conn: &mut Conn,
    server: &ServerName,
    from: Position,
    limit: i64,
) -> DbResult<Vec<OwedRoom>> {
    let rows = conn.list(&LIST_OWED_ROOMS, args![server.as_str(), from.0, limit]).await?;
    rows.iter().map(|row| Ok(OwedRoom { sent_at: Position(row.get(0)?), extremities: row.json(1)? })).collect()
}

/// Notes events that servers are owed one by one, each with its place.
pub(crate) async fn insert_owed_events(tx: &mut Tx, events: &[(&ServerName, Position, &EventId)]) -> DbResult<()> {
    let columns = [
        Column::texts(events.iter().map(|(server, ..)| server.as_str())),
        Column::ints(events.iter().map(|(_, position, _)| position.0)),
        Column::texts(events.iter().map(|(.., event_id)| event_id.as_str())),
    ];
    tx.insert(&INSERT_OWED_EVENTS, &columns).await
}

/// What a server is owed one by one, oldest first.
pub(crate) async fn list_owed_events(
    conn: &mut Conn,
    server: &ServerName,
    limit: i64,
) -> DbResult<Vec<(Position, OwnedEventId)>> {
    let rows = conn.list(&LIST_OWED_EVENTS, args![server.as_str(), limit]).await?;
    rows.iter().map(|row| Ok((Position(row.get(0)?), row.get(1)?))).collect()
}

/// A server has got what it was owed one by one up to a place.
pub(crate) async fn delete_owed_events(tx: &mut Tx, server: &ServerName, until: Position) -> DbResult<()> {
    tx.execute(&DELETE_OWED_EVENTS, args![server.as_str(), until.0]).await.map(drop)
}

fn destination(row: &Row) -> DbResult<Destination> {
    Ok(Destination {
        server_name: row.get(0)?,
        owed_from: row.get::<Option<i64>>(1)?.map(Position),
        failures: row.get(2)?,
        failed_at: row.get(3)?,
        retry_at: row.get(4)?,
        succeeded_at: row.get(5)?,
        reason: row.get(6)?,
    })
}
