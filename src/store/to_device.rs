//! `to_device_messages`, `to_device_requests` and `to_device_ended`: what waits for devices, by which requests it was sent,
//! and what of both is left of devices that have ended.
//!
//! An inbox is the messages of one device, in the order of the log. A place of the log holds one message for a device at
//! most, so a page of an inbox ends between two places. Rows are added under the log's lock ([`super::log::lock`]), and
//! only for devices that are there; they go from the oldest on, as the device confirms them, without that lock.
//!
//! `total` is a sum that runs along each inbox and begins anew where nothing waits. Of what is there it is known by the
//! newest and the oldest row how much it is.
//!
//! There may be much in an inbox whose device ends, so it is not deleted then: a row of `to_device_ended` says up to where
//! in the log everything was for a device that is gone, and whoever reads begins after that.

use std::collections::{HashMap, HashSet};

use aws_lc_rs::digest;
use ruma::{
    DeviceId, OwnedDeviceId, OwnedUserId, UserId,
    serde::{Base64, base64::UrlSafe},
};
use serde_json::value::RawValue;

use crate::{
    db::{Column, ColumnType, Conn, DbError, DbResult, Insert, Row, Tx, args, statements},
    event::fact::{RequestKey, ToDeviceRequest},
    ground::position::Position,
};

statements! {
    /// Of the devices of which each has a row in a JSON array, user and device, those that are there: the sum with the
    /// newest message that waits, and the sum before the oldest.
    LIST_INBOXES = "SELECT d.user_id, d.device_id,
            (SELECT m.total FROM to_device_messages m WHERE m.user_id = d.user_id AND m.device_id = d.device_id
                AND m.position > COALESCE(e.until, 0) ORDER BY m.position DESC LIMIT 1),
            (SELECT m.total - m.size FROM to_device_messages m
                WHERE m.user_id = d.user_id AND m.device_id = d.device_id
                    AND m.position > COALESCE(e.until, 0) ORDER BY m.position LIMIT 1)
        FROM json_each($1) AS asked JOIN devices d
            ON d.user_id = asked.value ->> 0 AND d.device_id = asked.value ->> 1
        LEFT JOIN to_device_ended e ON e.user_id = d.user_id AND e.device_id = d.device_id"
        | "SELECT d.user_id, d.device_id,
            (SELECT m.total FROM to_device_messages m WHERE m.user_id = d.user_id AND m.device_id = d.device_id
                AND m.position > COALESCE(e.until, 0) ORDER BY m.position DESC LIMIT 1),
            (SELECT m.total - m.size FROM to_device_messages m
                WHERE m.user_id = d.user_id AND m.device_id = d.device_id
                    AND m.position > COALESCE(e.until, 0) ORDER BY m.position LIMIT 1)
        FROM json_array_elements($1::text::json) AS asked (value) JOIN devices d
            ON d.user_id = asked.value ->> 0 AND d.device_id = asked.value ->> 1
        LEFT JOIN to_device_ended e ON e.user_id = d.user_id AND e.device_id = d.device_id";
    /// For each device of a user, where the oldest and the newest message stand that wait for it.
    LIST_WAITING = "SELECT d.device_id,
            (SELECT MIN(m.position) FROM to_device_messages m WHERE m.user_id = d.user_id
                AND m.device_id = d.device_id AND m.position > COALESCE(e.until, 0)),
            (SELECT MAX(m.position) FROM to_device_messages m WHERE m.user_id = d.user_id
                AND m.device_id = d.device_id AND m.position > COALESCE(e.until, 0))
        FROM devices d LEFT JOIN to_device_ended e ON e.user_id = d.user_id AND e.device_id = d.device_id
        WHERE d.user_id = $1";
    LIST_DEVICES_OF = "SELECT user_id, device_id FROM devices WHERE user_id IN LIST($1)";
    /// The first $6 messages after a place, up to another, and no more once they have $5 bytes.
    LIST_PAGE = "SELECT position, sender, type, content, size FROM to_device_messages
        WHERE user_id = $1 AND device_id = $2 AND position <= $4
            AND position > MAX($3, COALESCE(
                (SELECT e.until FROM to_device_ended e WHERE e.user_id = $1 AND e.device_id = $2), 0))
            AND total - size < $5 + (SELECT m.total - m.size FROM to_device_messages m
                WHERE m.user_id = $1 AND m.device_id = $2 AND m.position > MAX($3, COALESCE(
                    (SELECT e.until FROM to_device_ended e WHERE e.user_id = $1 AND e.device_id = $2), 0))
                ORDER BY m.position LIMIT 1)
        ORDER BY position LIMIT $6"
        | "SELECT position, sender, type, content, size FROM to_device_messages
        WHERE user_id = $1 AND device_id = $2 AND position <= $4
            AND position > GREATEST($3, COALESCE(
                (SELECT e.until FROM to_device_ended e WHERE e.user_id = $1 AND e.device_id = $2), 0))
            AND total - size < $5 + (SELECT m.total - m.size FROM to_device_messages m
                WHERE m.user_id = $1 AND m.device_id = $2 AND m.position > GREATEST($3, COALESCE(
                    (SELECT e.until FROM to_device_ended e WHERE e.user_id = $1 AND e.device_id = $2), 0))
                ORDER BY m.position LIMIT 1)
        ORDER BY position LIMIT $6";
    /// Up to a place, and not what is left of a device that has ended: that has no hurry.
    DELETE_SOME_UNTIL = "DELETE FROM to_device_messages WHERE rowid IN (
            SELECT m.rowid FROM to_device_messages m
            WHERE m.user_id = $1 AND m.device_id = $2 AND m.position <= $3 AND m.position > COALESCE(
                (SELECT e.until FROM to_device_ended e WHERE e.user_id = $1 AND e.device_id = $2), 0)
            ORDER BY m.position LIMIT $4)"
        | "DELETE FROM to_device_messages WHERE ctid = ANY (ARRAY (
            SELECT m.ctid FROM to_device_messages m
            WHERE m.user_id = $1 AND m.device_id = $2 AND m.position <= $3 AND m.position > COALESCE(
                (SELECT e.until FROM to_device_ended e WHERE e.user_id = $1 AND e.device_id = $2), 0)
            ORDER BY m.position LIMIT $4))";
    /// Nobody knows the place before the log is locked: [`SETTLE_ENDED`] writes it.
    END_INBOXES = "INSERT INTO to_device_ended (user_id, device_id)
        SELECT $1, ended.value FROM json_each($2) AS ended WHERE TRUE
        ON CONFLICT (user_id, device_id) DO UPDATE SET until = NULL"
        | "INSERT INTO to_device_ended (user_id, device_id) SELECT $1::text, unnest($2::text[])
        ON CONFLICT (user_id, device_id) DO UPDATE SET until = NULL";
    SETTLE_ENDED = "UPDATE to_device_ended SET until = $2 WHERE user_id = $1 AND until IS NULL";
    LIST_ENDED = "SELECT user_id, device_id, until FROM to_device_ended WHERE until IS NOT NULL
        ORDER BY user_id, device_id LIMIT $1";
    DELETE_SOME_ENDED = "DELETE FROM to_device_messages WHERE rowid IN (
            SELECT m.rowid FROM to_device_messages m
            WHERE m.user_id = $1 AND m.device_id = $2 AND m.position <= $3 ORDER BY m.position LIMIT $4)"
        | "DELETE FROM to_device_messages WHERE ctid = ANY (ARRAY (
            SELECT m.ctid FROM to_device_messages m
            WHERE m.user_id = $1 AND m.device_id = $2 AND m.position <= $3 ORDER BY m.position LIMIT $4))";
    /// The place is compared once more: a request that is made again meanwhile stands at a later one.
    DELETE_SOME_ENDED_REQUESTS = "DELETE FROM to_device_requests
        WHERE user_id = $1 AND device_id = $2 AND request IN (
            SELECT r.request FROM to_device_requests r
            WHERE r.user_id = $1 AND r.device_id = $2 AND r.position <= $3 LIMIT $4)"
        | "DELETE FROM to_device_requests WHERE position <= $3 AND ctid = ANY (ARRAY (
            SELECT r.ctid FROM to_device_requests r
            WHERE r.user_id = $1 AND r.device_id = $2 AND r.position <= $3 LIMIT $4))";
    /// Only once nothing is left: two nodes may have deleted at the same moment, so that either has found little.
    FORGET_ENDED = "DELETE FROM to_device_ended WHERE user_id = $1 AND device_id = $2 AND until = $3
        AND NOT EXISTS (SELECT 1 FROM to_device_messages m
            WHERE m.user_id = $1 AND m.device_id = $2 AND m.position <= $3)
        AND NOT EXISTS (SELECT 1 FROM to_device_requests r
            WHERE r.user_id = $1 AND r.device_id = $2 AND r.position <= $3)";
    /// Of the requests of which each has a row in a JSON array, user, device and hash, those that were made before, and not
    /// by an earlier device of the name.
    LIST_MADE = "SELECT r.user_id, r.device_id, r.request FROM json_each($1) AS asked JOIN to_device_requests r
            ON r.user_id = asked.value ->> 0 AND r.device_id = asked.value ->> 1 AND r.request = asked.value ->> 2
        LEFT JOIN to_device_ended e ON e.user_id = r.user_id AND e.device_id = r.device_id
        WHERE r.position > COALESCE(e.until, -1)"
        | "SELECT r.user_id, r.device_id, r.request
        FROM json_array_elements($1::text::json) AS asked (value) JOIN to_device_requests r
            ON r.user_id = asked.value ->> 0 AND r.device_id = asked.value ->> 1 AND r.request = asked.value ->> 2
        LEFT JOIN to_device_ended e ON e.user_id = r.user_id AND e.device_id = r.device_id
        WHERE r.position > COALESCE(e.until, -1)";
    DELETE_SOME_REQUESTS_BEFORE = "DELETE FROM to_device_requests WHERE (user_id, device_id, request) IN (
            SELECT r.user_id, r.device_id, r.request FROM to_device_requests r WHERE r.sent_ts <= $1 LIMIT $2)"
        | "DELETE FROM to_device_requests WHERE sent_ts <= $1 AND ctid = ANY (ARRAY (
            SELECT r.ctid FROM to_device_requests r WHERE r.sent_ts <= $1 LIMIT $2))";
}

static INSERT_MESSAGES: Insert = Insert::new(
    "INSERT_TO_DEVICE_MESSAGES",
    "to_device_messages",
    &[
        ("user_id", ColumnType::Text),
        ("device_id", ColumnType::Text),
        ("position", ColumnType::Int),
        ("sender", ColumnType::Text),
        ("type", ColumnType::Text),
        ("content", ColumnType::Text),
        ("size", ColumnType::Int),
        ("total", ColumnType::Int),
    ],
    "",
);

/// A row that is there already is of an earlier device of the name.
static INSERT_REQUESTS: Insert = Insert::new(
    "INSERT_TO_DEVICE_REQUESTS",
    "to_device_requests",
    &[
        ("user_id", ColumnType::Text),
        ("device_id", ColumnType::Text),
        ("request", ColumnType::Text),
        ("sent_ts", ColumnType::Int),
        ("position", ColumnType::Int),
    ],
    "ON CONFLICT (user_id, device_id, request) DO UPDATE
        SET sent_ts = excluded.sent_ts, position = excluded.position",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&INSERT_MESSAGES, &INSERT_REQUESTS];

/// How an inbox stands, by the sum that runs along it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InboxTotals {
    /// With the newest message.
    pub(crate) newest: i64,
    /// Before the oldest message.
    pub(crate) before: i64,
}

impl InboxTotals {
    /// The bytes that wait.
    pub(crate) fn waiting(self) -> i64 {
        self.newest - self.before
    }
}

/// The inboxes of devices that are there, by user.
pub(crate) type Inboxes = HashMap<OwnedUserId, HashMap<OwnedDeviceId, InboxTotals>>;

/// A message on its way into an inbox.
#[derive(Debug)]
pub(crate) struct MessageRow<'a> {
    pub(crate) user_id: &'a UserId,
    pub(crate) device_id: &'a DeviceId,
    pub(crate) position: Position,
    pub(crate) sender: &'a UserId,
    pub(crate) kind: &'a str,
    /// A JSON object.
    pub(crate) content: &'a str,
    /// What it takes, in bytes.
    pub(crate) size: i64,
    /// The sum along the inbox, with this message.
    pub(crate) total: i64,
}

/// A message in an inbox.
#[derive(Debug)]
pub(crate) struct WaitingMessage {
    /// Where in the log it was sent.
    pub(crate) position: Position,
    pub(crate) sender: OwnedUserId,
    /// The type of the event.
    pub(crate) kind: String,
    pub(crate) content: Box<RawValue>,
}

/// Messages of an inbox that follow each other.
#[derive(Debug)]
pub(crate) struct MessagePage {
    pub(crate) messages: Vec<WaitingMessage>,
    /// Whether it ends because there was enough, so that there may be more after the last.
    pub(crate) is_full: bool,
}

/// Where the oldest and the newest message stand that wait for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitingSpan {
    pub(crate) oldest: Position,
    pub(crate) newest: Position,
}

/// Those of some devices that are there, with how their inboxes stand.
pub(crate) async fn list_inboxes(conn: &mut Conn, devices: &HashSet<(&UserId, &DeviceId)>) -> DbResult<Inboxes> {
    let mut inboxes = Inboxes::new();
    let asked: Vec<(&str, &str)> =
        devices.iter().map(|(user_id, device_id)| (user_id.as_str(), device_id.as_str())).collect();
    let asked = serde_json::json!(asked).to_string();
    for row in conn.list(&LIST_INBOXES, args![&asked]).await? {
        let (newest, before) = (row.get::<Option<i64>>(2)?, row.get::<Option<i64>>(3)?);
        let totals = InboxTotals { newest: newest.unwrap_or_default(), before: before.unwrap_or_default() };
        inboxes.entry(row.get(0)?).or_default().insert(row.get(1)?, totals);
    }
    Ok(inboxes)
}

/// Those devices of a user for which something waits.
pub(crate) async fn list_waiting(conn: &mut Conn, user_id: &UserId) -> DbResult<Vec<(OwnedDeviceId, WaitingSpan)>> {
    let mut waiting = Vec::new();
    for row in conn.list(&LIST_WAITING, args![user_id]).await? {
        if let (Some(oldest), Some(newest)) = (row.get::<Option<i64>>(1)?, row.get::<Option<i64>>(2)?) {
            waiting.push((row.get(0)?, WaitingSpan { oldest: Position(oldest), newest: Position(newest) }));
        }
    }
    Ok(waiting)
}

/// All devices of some users.
pub(crate) async fn list_devices(conn: &mut Conn, users: &[&UserId]) -> DbResult<Vec<(OwnedUserId, OwnedDeviceId)>> {
    let users: Vec<&str> = users.iter().map(|user_id| user_id.as_str()).collect();
    let rows = conn.list(&LIST_DEVICES_OF, args![&users]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

/// The oldest messages of an inbox after a place, up to another: at most so many, and none more once they have so many
/// bytes.
pub(crate) async fn list_page(
    conn: &mut Conn,
    (user_id, device_id): (&UserId, &DeviceId),
    (after, until): (Position, Position),
    (most, bytes): (usize, i64),
) -> DbResult<MessagePage> {
    let limit = i64::try_from(most).unwrap_or(i64::MAX);
    let rows = conn.list(&LIST_PAGE, args![user_id, device_id, after.0, until.0, bytes, limit]).await?;
    let mut size = 0_i64;
    for row in &rows {
        size = size.saturating_add(row.get(4)?);
    }
    let messages = rows.iter().map(message).collect::<DbResult<Vec<_>>>()?;
    let is_full = messages.len() >= most || size >= bytes;
    Ok(MessagePage { messages, is_full })
}

/// Deletes what a device has confirmed, oldest first, `limit` messages at most. Returns how many that were. May be done
/// again.
pub(crate) async fn delete_some_until(
    conn: &mut Conn,
    (user_id, device_id): (&UserId, &DeviceId),
    until: Position,
    limit: u32,
) -> DbResult<u64> {
    conn.execute(&DELETE_SOME_UNTIL, args![user_id, device_id, until.0, i64::from(limit)]).await
}

/// Adds messages to inboxes. Under the log's lock, and only for devices that are there.
pub(crate) async fn insert(tx: &mut Tx, rows: &[MessageRow<'_>]) -> DbResult<()> {
    let columns = [
        Column::texts(rows.iter().map(|row| row.user_id.as_str())),
        Column::texts(rows.iter().map(|row| row.device_id.as_str())),
        Column::ints(rows.iter().map(|row| row.position.0)),
        Column::texts(rows.iter().map(|row| row.sender.as_str())),
        Column::texts(rows.iter().map(|row| row.kind)),
        Column::texts(rows.iter().map(|row| row.content)),
        Column::ints(rows.iter().map(|row| row.size)),
        Column::ints(rows.iter().map(|row| row.total)),
    ];
    tx.insert(&INSERT_MESSAGES, &columns).await
}

/// What is left of a device that has ended: its messages and requests up to a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndedInbox {
    pub(crate) user_id: OwnedUserId,
    pub(crate) device_id: OwnedDeviceId,
    pub(crate) until: Position,
}

/// Devices end in this transaction, and with them what waits for them and what they have sent by. The account is locked.
/// [`settle_ended`] has to follow in the same transaction.
pub(crate) async fn end_inboxes(conn: &mut Conn, user_id: &UserId, device_ids: &[&str]) -> DbResult<()> {
    conn.execute(&END_INBOXES, args![user_id, device_ids]).await.map(drop)
}

/// Whatever was sent up to `until` to devices that this transaction ends is nobody's: nothing comes for them afterwards,
/// and what comes later is for new devices of their names.
///
/// Under the log's lock. `until`: its end, or a place that this transaction writes.
pub(crate) async fn settle_ended(conn: &mut Conn, user_id: &UserId, until: Position) -> DbResult<()> {
    conn.execute(&SETTLE_ENDED, args![user_id, until.0]).await.map(drop)
}

/// Some of the devices that have ended and of which something may still be there.
pub(crate) async fn list_ended(conn: &mut Conn, limit: u32) -> DbResult<Vec<EndedInbox>> {
    let rows = conn.list(&LIST_ENDED, args![i64::from(limit)]).await?;
    let ended = |row: &Row| -> DbResult<EndedInbox> {
        Ok(EndedInbox { user_id: row.get(0)?, device_id: row.get(1)?, until: Position(row.get(2)?) })
    };
    rows.iter().map(ended).collect()
}

/// Deletes what is left of a device that has ended, `limit` messages and as many requests at most, and then forgets it.
/// Returns whether there may be more.
pub(crate) async fn delete_some_ended(conn: &mut Conn, ended: &EndedInbox, limit: u32) -> DbResult<bool> {
    let EndedInbox { user_id, device_id, until } = ended;
    for statement in [&DELETE_SOME_ENDED, &DELETE_SOME_ENDED_REQUESTS] {
        let deleted = conn.execute(statement, args![user_id, device_id, until.0, i64::from(limit)]).await?;
        if deleted >= u64::from(limit) {
            return Ok(true);
        }
    }
    conn.execute(&FORGET_ENDED, args![user_id, device_id, until.0]).await?;
    Ok(false)
}

/// What a request is known by among those of its device: a hash of its type and its transaction id.
fn hash(request: &ToDeviceRequest) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [request.kind.as_str(), request.transaction_id.as_str()] {
        context.update(part.as_bytes());
        context.update(b"\0");
    }
    Base64::<UrlSafe, _>::new(context.finish().as_ref().to_vec()).encode()
}

/// Those of some requests that were made before. Under the log's lock, it stays true.
pub(crate) async fn list_made<'a>(tx: &mut Tx, requests: &[&'a ToDeviceRequest]) -> DbResult<HashSet<RequestKey<'a>>> {
    let asked: Vec<(&str, &str, String)> =
        requests.iter().map(|request| (request.sender.as_str(), request.device_id.as_str(), hash(request))).collect();
    let parameter = serde_json::json!(asked).to_string();
    let mut found: HashSet<(String, String, String)> = HashSet::new();
    for row in tx.list(&LIST_MADE, args![&parameter]).await? {
        found.insert((row.get(0)?, row.get(1)?, row.get(2)?));
    }
    let pairs = requests.iter().zip(asked);
    let made = pairs.filter(|(_, (sender, device_id, hash))| {
        found.contains(&((*sender).to_owned(), (*device_id).to_owned(), hash.clone()))
    });
    Ok(made.map(|(request, _)| request.key()).collect())
}

/// Notes requests as made, each with its place in the log. None of them was before.
pub(crate) async fn insert_requests(tx: &mut Tx, requests: &[(Position, &ToDeviceRequest)]) -> DbResult<()> {
    let hashes: Vec<String> = requests.iter().map(|(_, request)| hash(request)).collect();
    let columns = [
        Column::texts(requests.iter().map(|(_, request)| request.sender.as_str())),
        Column::texts(requests.iter().map(|(_, request)| request.device_id.as_str())),
        Column::texts(hashes.iter().map(String::as_str)),
        Column::ints(requests.iter().map(|(_, request)| request.sent_ts)),
        Column::ints(requests.iter().map(|(at, _)| at.0)),
    ];
    tx.insert(&INSERT_REQUESTS, &columns).await
}

/// Forgets requests that were made up to a time, in milliseconds since the Unix epoch, `limit` of them at most: who repeats
/// one of them sends again. Returns how many that were.
pub(crate) async fn delete_some_requests_until(conn: &mut Conn, time: i64, limit: u32) -> DbResult<u64> {
    conn.execute(&DELETE_SOME_REQUESTS_BEFORE, args![time, i64::from(limit)]).await
}

fn message(row: &Row) -> DbResult<WaitingMessage> {
    let content = RawValue::from_string(row.get(3)?).map_err(DbError::decode)?;
    Ok(WaitingMessage { position: Position(row.get(0)?), sender: row.get(1)?, kind: row.get(2)?, content })
}
