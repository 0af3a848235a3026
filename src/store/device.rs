//! `devices`: where each user is logged in.
//!
//! A device's row is the lock for its tokens: whoever issues, exchanges or ends them holds it.

use ruma::{DeviceId, OwnedDeviceId, UserId};

use crate::db::{Conn, DbResult, Row, args, statements};

statements! {
    /// A device that is there keeps its name and its age.
    UPSERT_DEVICE = "INSERT INTO devices (user_id, device_id, display_name, last_seen_ts, last_seen_ip, created_ts)
        VALUES ($1, $2, $3, $4, $5, $4)
        ON CONFLICT (user_id, device_id) DO UPDATE
        SET last_seen_ts = excluded.last_seen_ts, last_seen_ip = excluded.last_seen_ip";
    INSERT_UNSEEN_DEVICE = "INSERT INTO devices (user_id, device_id, display_name, created_ts) VALUES ($1, $2, $3, $4)";
    LOCK_DEVICE = "SELECT device_id FROM devices WHERE user_id = $1 AND device_id = $2 FOR UPDATE";
    FIND_DEVICE = "SELECT device_id, display_name, last_seen_ts, last_seen_ip FROM devices
        WHERE user_id = $1 AND device_id = $2";
    LIST_DEVICES = "SELECT device_id, display_name, last_seen_ts, last_seen_ip FROM devices
        WHERE user_id = $1 ORDER BY created_ts, device_id";
    COUNT_DEVICES = "SELECT COUNT(*) FROM devices WHERE user_id = $1";
    RENAME_DEVICE = "UPDATE devices SET display_name = $3 WHERE user_id = $1 AND device_id = $2";
    // Many are locked in the order of the bytes of their key, whatever order the database sorts text in: who ends some,
    // and who notes when they were seen, would wait for each other otherwise.
    DELETE_DEVICES = "DELETE FROM devices WHERE user_id = $1 AND device_id IN LIST($2) RETURNING device_id"
        | "WITH locked AS MATERIALIZED (
            SELECT device_id FROM devices WHERE user_id = $1 AND device_id IN LIST($2)
            ORDER BY device_id COLLATE \"C\" FOR UPDATE)
        DELETE FROM devices d USING locked WHERE d.user_id = $1 AND d.device_id = locked.device_id
        RETURNING d.device_id";
    DELETE_OTHER_DEVICES = "DELETE FROM devices WHERE user_id = $1 AND device_id <> $2 RETURNING device_id"
        | "WITH locked AS MATERIALIZED (
            SELECT device_id FROM devices WHERE user_id = $1 AND device_id <> $2
            ORDER BY device_id COLLATE \"C\" FOR UPDATE)
        DELETE FROM devices d USING locked WHERE d.user_id = $1 AND d.device_id = locked.device_id
        RETURNING d.device_id";
    DELETE_ALL_DEVICES = "DELETE FROM devices WHERE user_id = $1 RETURNING device_id"
        | "WITH locked AS MATERIALIZED (
            SELECT device_id FROM devices WHERE user_id = $1 ORDER BY device_id COLLATE \"C\" FOR UPDATE)
        DELETE FROM devices d USING locked WHERE d.user_id = $1 AND d.device_id = locked.device_id
        RETURNING d.device_id";
    /// Many at once, as a JSON array of objects. Devices that are gone stay gone, and what is known of one that is newer.
    SET_LAST_SEEN = "UPDATE devices SET last_seen_ts = seen.ts, last_seen_ip = seen.ip
        FROM (SELECT value ->> 'user_id' AS user_id, value ->> 'device_id' AS device_id, value ->> 'ts' AS ts,
            value ->> 'ip' AS ip FROM json_each($1)) AS seen
        WHERE devices.user_id = seen.user_id AND devices.device_id = seen.device_id
            AND (devices.last_seen_ts IS NULL OR devices.last_seen_ts < seen.ts)"
        | "UPDATE devices SET last_seen_ts = seen.ts, last_seen_ip = seen.ip
        FROM (SELECT d.user_id, d.device_id, s.ts, s.ip
            FROM json_to_recordset($1::text::json) AS s (user_id text, device_id text, ts bigint, ip text)
            JOIN devices d ON d.user_id = s.user_id AND d.device_id = s.device_id
            WHERE d.last_seen_ts IS NULL OR d.last_seen_ts < s.ts
            ORDER BY d.user_id COLLATE \"C\", d.device_id COLLATE \"C\" FOR UPDATE OF d) AS seen
        WHERE devices.user_id = seen.user_id AND devices.device_id = seen.device_id";
}

/// A device as its user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) id: OwnedDeviceId,
    /// As its user has named it, if they have.
    pub(crate) display_name: Option<String>,
    /// Milliseconds since the Unix epoch.
    pub(crate) last_seen_ts: Option<i64>,
    /// The last known address, as far as trusted proxies report it.
    pub(crate) last_seen_ip: Option<String>,
}

/// Which devices of a user.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DeviceSelection<'a> {
    These(&'a [&'a str]),
    AllBut(&'a DeviceId),
    All,
}

/// Adds a device or notes that a known one was seen. It stays locked until the transaction ends.
///
/// `now` is in milliseconds since the Unix epoch and becomes the age of a new device; `ip` is where the request came
/// from.
pub(crate) async fn upsert(
    conn: &mut Conn,
    user_id: &UserId,
    device_id: &DeviceId,
    display_name: Option<&str>,
    now: i64,
    ip: &str,
) -> DbResult<()> {
    conn.execute(&UPSERT_DEVICE, args![user_id, device_id, display_name, now, ip]).await.map(drop)
}

/// Adds a device on which nobody is logged in. `now` is in milliseconds since the Unix epoch and becomes its age.
pub(crate) async fn insert_unseen(
    conn: &mut Conn,
    user_id: &UserId,
    device_id: &DeviceId,
    display_name: Option<&str>,
    now: i64,
) -> DbResult<()> {
    conn.execute(&INSERT_UNSEEN_DEVICE, args![user_id, device_id, display_name, now]).await.map(drop)
}

/// Whether the device is there. If so, nobody else changes its tokens until the transaction ends.
pub(crate) async fn lock(conn: &mut Conn, user_id: &UserId, device_id: &DeviceId) -> DbResult<bool> {
    Ok(conn.find(&LOCK_DEVICE, args![user_id, device_id]).await?.is_some())
}

/// A device without its lock: its tokens may change meanwhile.
pub(crate) async fn find(conn: &mut Conn, user_id: &UserId, device_id: &DeviceId) -> DbResult<Option<Device>> {
    conn.find(&FIND_DEVICE, args![user_id, device_id]).await?.map(|row| device(&row)).transpose()
}

/// All devices of a user, oldest first.
pub(crate) async fn list(conn: &mut Conn, user_id: &UserId) -> DbResult<Vec<Device>> {
    conn.list(&LIST_DEVICES, args![user_id]).await?.iter().map(device).collect()
}

/// How many devices a user has. Counted with the account locked, it stays true.
pub(crate) async fn count(conn: &mut Conn, user_id: &UserId) -> DbResult<i64> {
    conn.find(&COUNT_DEVICES, args![user_id]).await?.map_or(Ok(0), |row| row.get(0))
}

/// Gives a device another name, or says false where there is no such device.
pub(crate) async fn rename(
    conn: &mut Conn,
    user_id: &UserId,
    device_id: &DeviceId,
    display_name: &str,
) -> DbResult<bool> {
    Ok(conn.execute(&RENAME_DEVICE, args![user_id, device_id, display_name]).await? == 1)
}

/// Returns those that there were. Their tokens go with [`super::token::delete_orphans`], their keys with
/// [`super::device_key::delete_with_all`].
pub(crate) async fn delete(
    conn: &mut Conn,
    user_id: &UserId,
    which: DeviceSelection<'_>,
) -> DbResult<Vec<OwnedDeviceId>> {
    let rows = match which {
        DeviceSelection::These(device_ids) => conn.list(&DELETE_DEVICES, args![user_id, device_ids]).await,
        DeviceSelection::AllBut(device_id) => conn.list(&DELETE_OTHER_DEVICES, args![user_id, device_id]).await,
        DeviceSelection::All => conn.list(&DELETE_ALL_DEVICES, args![user_id]).await,
    };
    rows?.iter().map(|row| row.get(0)).collect()
}

/// `seen`: a JSON array of objects with `user_id`, `device_id`, `ts` and `ip`.
pub(crate) async fn set_last_seen(conn: &mut Conn, seen: &str) -> DbResult<()> {
    conn.execute(&SET_LAST_SEEN, args![seen]).await.map(drop)
}

fn device(row: &Row) -> DbResult<Device> {
    Ok(Device { id: row.get(0)?, display_name: row.get(1)?, last_seen_ts: row.get(2)?, last_seen_ip: row.get(3)? })
}
