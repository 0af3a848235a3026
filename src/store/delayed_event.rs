//! `delayed_events`: what is sent later in somebody's name, and what has become of it.
//!
//! Every step is one conditional update: of several nodes that would send, restart or cancel an event at once, one
//! finds its row as it has to be, and the others change nothing. `due_ts` is when a node may next try: the event's own
//! time, or, while a node is about to send it, the time until which the others leave it alone, so that an event is sent
//! even if that node stops. `finalised_ts` is NULL while an event is scheduled.

use ruma::{
    DeviceId, EventId, OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, TransactionId, UserId,
    events::TimelineEventType,
};

use crate::db::{Conn, DbResult, Row, args, statements};

statements! {
    INSERT_DELAYED_EVENT = "INSERT INTO delayed_events (delay_id, user_id, device_id, txn_id, room_id, type, state_key,
            content, delay_ms, delayed_since_ts, due_ts, sending, finalised_ts, event_id, error)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, FALSE, NULL, NULL, NULL)";
    FIND_DELAYED_EVENT = "SELECT delay_id, user_id, room_id, type, state_key, content, delay_ms, delayed_since_ts,
            sending, finalised_ts, event_id, error
        FROM delayed_events WHERE delay_id = $1";
    FIND_DELAY_ID = "SELECT delay_id FROM delayed_events
        WHERE user_id = $1 AND device_id = $2 AND room_id = $3 AND type = $4 AND txn_id = $5";
    COUNT_SCHEDULED = "SELECT COUNT(*), MIN(due_ts) FROM delayed_events WHERE user_id = $1 AND finalised_ts IS NULL";
    LIST_DUE = "SELECT delay_id, user_id, room_id, type, state_key, content, delay_ms, delayed_since_ts,
            sending, finalised_ts, event_id, error
        FROM delayed_events WHERE finalised_ts IS NULL AND due_ts <= $1
        ORDER BY delayed_since_ts + delay_ms, delay_id LIMIT $2";
    LIST_SCHEDULED = "SELECT delay_id, user_id, room_id, type, state_key, content, delay_ms, delayed_since_ts,
            sending, finalised_ts, event_id, error
        FROM delayed_events WHERE user_id = $1 AND finalised_ts IS NULL
            AND (delayed_since_ts + delay_ms > $2 OR (delayed_since_ts + delay_ms = $2 AND delay_id > $3))
        ORDER BY delayed_since_ts + delay_ms, delay_id LIMIT $4";
    LIST_FINALISED = "SELECT delay_id, user_id, room_id, type, state_key, content, delay_ms, delayed_since_ts,
            sending, finalised_ts, event_id, error
        FROM delayed_events WHERE user_id = $1 AND finalised_ts IS NOT NULL
            AND (finalised_ts < $2 OR (finalised_ts = $2 AND delay_id > $3))
        ORDER BY finalised_ts DESC, delay_id LIMIT $4";
    LIST_DELAYED_EVENTS = "SELECT delay_id, user_id, room_id, type, state_key, content, delay_ms, delayed_since_ts,
            sending, finalised_ts, event_id, error
        FROM delayed_events WHERE user_id = $1 AND delay_id IN LIST($2) ORDER BY delayed_since_ts + delay_ms, delay_id";
    /// Whose time has come, or whom another node wanted to send and did not.
    CLAIM_DUE = "UPDATE delayed_events SET sending = TRUE, due_ts = $3
        WHERE delay_id = $1 AND finalised_ts IS NULL AND due_ts <= $2";
    CLAIM_AT_ONCE = "UPDATE delayed_events SET sending = TRUE, due_ts = $2
        WHERE delay_id = $1 AND finalised_ts IS NULL AND NOT sending";
    RELEASE = "UPDATE delayed_events SET sending = FALSE, due_ts = delayed_since_ts + delay_ms
        WHERE delay_id = $1 AND finalised_ts IS NULL";
    RESTART = "UPDATE delayed_events SET delayed_since_ts = $2, due_ts = $2 + delay_ms
        WHERE delay_id = $1 AND finalised_ts IS NULL AND NOT sending";
    CANCEL = "UPDATE delayed_events SET finalised_ts = $2
        WHERE delay_id = $1 AND finalised_ts IS NULL AND NOT sending";
    /// What was sent is so, also if it was cancelled meanwhile.
    FINALISE = "UPDATE delayed_events SET sending = FALSE, finalised_ts = $2, event_id = $3, error = $4
        WHERE delay_id = $1 AND (finalised_ts IS NULL OR (event_id IS NULL AND $3 IS NOT NULL))"
        | "UPDATE delayed_events SET sending = FALSE, finalised_ts = $2, event_id = $3, error = $4
        WHERE delay_id = $1 AND (finalised_ts IS NULL OR (event_id IS NULL AND $3::text IS NOT NULL))";
    LIST_BY_DEVICE = "SELECT delay_id, device_id, type, state_key, content FROM delayed_events
        WHERE user_id = $1 AND finalised_ts IS NULL ORDER BY delay_id FOR UPDATE";
    /// Without a delay, it is due at once however often it is restarted. What a node is sending already stays its own.
    EXPEDITE = "UPDATE delayed_events SET delay_ms = 0, due_ts = CASE WHEN sending THEN due_ts ELSE $2 END
        WHERE delay_id IN LIST($1) AND finalised_ts IS NULL";
    CANCEL_ALL = "UPDATE delayed_events SET sending = FALSE, finalised_ts = $3, error = $2
        WHERE delay_id IN LIST($1) AND finalised_ts IS NULL";
    DELETE_OF_USER = "DELETE FROM delayed_events WHERE user_id = $1";
    DELETE_FINALISED = "DELETE FROM delayed_events WHERE finalised_ts <= $1";
    /// All but the newest $2 of a user.
    DELETE_SURPLUS = "DELETE FROM delayed_events WHERE delay_id IN (
        SELECT delay_id FROM delayed_events WHERE user_id = $1 AND finalised_ts IS NOT NULL
        ORDER BY finalised_ts DESC, delay_id LIMIT 1000000 OFFSET $2)";
}

/// A delayed event.
#[derive(Clone, Debug)]
pub(crate) struct DelayedEvent {
    pub(crate) id: String,
    pub(crate) user_id: OwnedUserId,
    pub(crate) room_id: OwnedRoomId,
    pub(crate) kind: TimelineEventType,
    pub(crate) state_key: Option<String>,
    /// JSON.
    pub(crate) content: String,
    /// In milliseconds.
    pub(crate) delay_ms: i64,
    /// When it was scheduled or last restarted, in milliseconds since the Unix epoch.
    pub(crate) delayed_since_ts: i64,
    /// Whether a node is about to send it.
    pub(crate) sending: bool,
    pub(crate) finalised: Option<Finalised>,
}

/// How it has ended. Where there is neither an event nor an error, it was cancelled.
#[derive(Clone, Debug)]
pub(crate) struct Finalised {
    /// In milliseconds since the Unix epoch.
    pub(crate) ts: i64,
    pub(crate) event_id: Option<OwnedEventId>,
    /// JSON: the error as a client would have got it.
    pub(crate) error: Option<String>,
}

/// What is scheduled, as far as it decides what becomes of it when its session ends.
#[derive(Clone, Debug)]
pub(crate) struct Scheduled {
    pub(crate) id: String,
    pub(crate) device_id: OwnedDeviceId,
    pub(crate) kind: String,
    pub(crate) state_key: Option<String>,
    /// JSON.
    pub(crate) content: String,
}

/// The request that scheduled an event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScheduledBy<'a> {
    pub(crate) device_id: &'a DeviceId,
    /// None where the request named none.
    pub(crate) transaction_id: Option<&'a TransactionId>,
}

impl DelayedEvent {
    /// When it is to be sent, in milliseconds since the Unix epoch.
    pub(crate) fn send_ts(&self) -> i64 {
        self.delayed_since_ts.saturating_add(self.delay_ms)
    }
}

/// Schedules an event; it is due once its delay has passed.
pub(crate) async fn insert(conn: &mut Conn, event: &DelayedEvent, origin: ScheduledBy<'_>) -> DbResult<()> {
    let DelayedEvent { id, user_id, room_id, kind, state_key, content, delay_ms, delayed_since_ts, .. } = event;
    let (kind, transaction_id) = (kind.to_string(), origin.transaction_id.map(TransactionId::as_str));
    let args = args![
        id,
        user_id,
        origin.device_id,
        transaction_id,
        room_id,
        &kind,
        state_key,
        content,
        delay_ms,
        delayed_since_ts,
        event.send_ts(),
    ];
    conn.execute(&INSERT_DELAYED_EVENT, args).await.map(drop)
}

/// An event by its identifier, scheduled or ended.
pub(crate) async fn find(conn: &mut Conn, delay_id: &str) -> DbResult<Option<DelayedEvent>> {
    conn.find(&FIND_DELAYED_EVENT, args![delay_id]).await?.as_ref().map(delayed_event).transpose()
}

/// What a transaction has already scheduled, if it has.
pub(crate) async fn find_by_transaction(
    conn: &mut Conn,
    user_id: &UserId,
    device_id: &DeviceId,
    room_id: &RoomId,
    kind: &TimelineEventType,
    transaction_id: &TransactionId,
) -> DbResult<Option<String>> {
    let kind = kind.to_string();
    let args = args![user_id, device_id, room_id, &kind, transaction_id.as_str()];
    conn.find(&FIND_DELAY_ID, args).await?.map(|row| row.get(0)).transpose()
}

/// How many events of a user are scheduled, and when the first of them is due.
pub(crate) async fn count_scheduled(conn: &mut Conn, user_id: &UserId) -> DbResult<(i64, Option<i64>)> {
    match conn.find(&COUNT_SCHEDULED, args![user_id]).await? {
        Some(row) => Ok((row.get(0)?, row.get(1)?)),
        None => Ok((0, None)),
    }
}

/// Those that are due by `now`, in the order of their times, however late a node has tried to send them before.
pub(crate) async fn list_due(conn: &mut Conn, now: i64, limit: i64) -> DbResult<Vec<DelayedEvent>> {
    conn.list(&LIST_DUE, args![now, limit]).await?.iter().map(delayed_event).collect()
}

/// A user's events that are scheduled after a time and, at that time, an identifier: the first to be sent first.
pub(crate) async fn list_scheduled(
    conn: &mut Conn,
    user_id: &UserId,
    after: (i64, &str),
    limit: i64,
) -> DbResult<Vec<DelayedEvent>> {
    let args = args![user_id, after.0, after.1, limit];
    conn.list(&LIST_SCHEDULED, args).await?.iter().map(delayed_event).collect()
}

/// A user's events that had ended before a time and, at that time, those after an identifier: the last to end first.
pub(crate) async fn list_finalised(
    conn: &mut Conn,
    user_id: &UserId,
    before: (i64, &str),
    limit: i64,
) -> DbResult<Vec<DelayedEvent>> {
    let args = args![user_id, before.0, before.1, limit];
    conn.list(&LIST_FINALISED, args).await?.iter().map(delayed_event).collect()
}

/// Those of the events that are a user's.
pub(crate) async fn list(conn: &mut Conn, user_id: &UserId, delay_ids: &[&str]) -> DbResult<Vec<DelayedEvent>> {
    conn.list(&LIST_DELAYED_EVENTS, args![user_id, delay_ids]).await?.iter().map(delayed_event).collect()
}

/// Takes it upon this node to send what is due by `now`. Others leave it alone until `until`. False if it is not due.
pub(crate) async fn claim_due(conn: &mut Conn, delay_id: &str, now: i64, until: i64) -> DbResult<bool> {
    Ok(conn.execute(&CLAIM_DUE, args![delay_id, now, until]).await? == 1)
}

/// Takes it upon this node to send an event whenever it is due. False if a node is about to send it already, or it has
/// ended.
pub(crate) async fn claim_at_once(conn: &mut Conn, delay_id: &str, until: i64) -> DbResult<bool> {
    Ok(conn.execute(&CLAIM_AT_ONCE, args![delay_id, until]).await? == 1)
}

/// Gives it back to wait for its time.
pub(crate) async fn release(conn: &mut Conn, delay_id: &str) -> DbResult<()> {
    conn.execute(&RELEASE, args![delay_id]).await.map(drop)
}

/// Has it wait from `now` on. False if a node is about to send it, or it has ended.
pub(crate) async fn restart(conn: &mut Conn, delay_id: &str, now: i64) -> DbResult<bool> {
    Ok(conn.execute(&RESTART, args![delay_id, now]).await? == 1)
}

/// Ends it without sending it. False if a node is about to send it, or it has ended.
pub(crate) async fn cancel(conn: &mut Conn, delay_id: &str, now: i64) -> DbResult<bool> {
    Ok(conn.execute(&CANCEL, args![delay_id, now]).await? == 1)
}

/// Writes down how it has ended, unless that has been done. That it was sent counts more than that it was cancelled.
pub(crate) async fn finalise(conn: &mut Conn, delay_id: &str, finalised: &Finalised) -> DbResult<()> {
    let event_id = finalised.event_id.as_deref().map(EventId::as_str);
    conn.execute(&FINALISE, args![delay_id, finalised.ts, event_id, &finalised.error]).await.map(drop)
}

/// What a user has scheduled, with the devices that have. Nobody claims, restarts or cancels any of it until the
/// transaction ends.
pub(crate) async fn list_by_device(conn: &mut Conn, user_id: &UserId) -> DbResult<Vec<Scheduled>> {
    let scheduled = |row: &Row| {
        let (id, device_id, kind) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(Scheduled { id, device_id, kind, state_key: row.get(3)?, content: row.get(4)? })
    };
    conn.list(&LIST_BY_DEVICE, args![user_id]).await?.iter().map(scheduled).collect()
}

/// Has events be due at `now`, for good.
pub(crate) async fn expedite(conn: &mut Conn, delay_ids: &[&str], now: i64) -> DbResult<()> {
    conn.execute(&EXPEDITE, args![delay_ids, now]).await.map(drop)
}

/// Ends events without sending them, also such as a node has meant to send. `error` is JSON and says why.
pub(crate) async fn cancel_all(conn: &mut Conn, delay_ids: &[&str], error: &str, now: i64) -> DbResult<()> {
    conn.execute(&CANCEL_ALL, args![delay_ids, error, now]).await.map(drop)
}

/// Forgets everything of a user's: what is scheduled is never sent.
pub(crate) async fn delete_of_user(conn: &mut Conn, user_id: &UserId) -> DbResult<()> {
    conn.execute(&DELETE_OF_USER, args![user_id]).await.map(drop)
}

/// Forgets those that had ended by `until`.
pub(crate) async fn delete_finalised(conn: &mut Conn, until: i64) -> DbResult<()> {
    conn.execute(&DELETE_FINALISED, args![until]).await.map(drop)
}

/// Forgets all but the newest of a user's that have ended.
pub(crate) async fn delete_surplus(conn: &mut Conn, user_id: &UserId, kept: i64) -> DbResult<()> {
    conn.execute(&DELETE_SURPLUS, args![user_id, kept]).await.map(drop)
}

fn delayed_event(row: &Row) -> DbResult<DelayedEvent> {
    let (event_id, error) = (row.get(10)?, row.get(11)?);
    let finalised_ts: Option<i64> = row.get(9)?;
    Ok(DelayedEvent {
        id: row.get(0)?,
        user_id: row.get(1)?,
        room_id: row.get(2)?,
        kind: TimelineEventType::from(row.get::<String>(3)?),
        state_key: row.get(4)?,
        content: row.get(5)?,
        delay_ms: row.get(6)?,
        delayed_since_ts: row.get(7)?,
        sending: row.get(8)?,
        finalised: finalised_ts.map(|ts| Finalised { ts, event_id, error }),
    })
}
