//! `key_backups`, `key_backup_counters`, `key_backup_sessions`: the keys of encrypted rooms that users keep here, encrypted
//! by their clients.
//!
//! All of it is written with the account locked, so what a backup's row says of its sessions is so.

use std::collections::HashMap;

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::db::{Column, ColumnType, Conn, DbResult, Insert, Row, Tx, args, statements};

statements! {
    TAKE_BACKUP_VERSION = "INSERT INTO key_backup_counters (user_id, last_version) VALUES ($1, 1)
        ON CONFLICT (user_id) DO UPDATE SET last_version = key_backup_counters.last_version + 1
        RETURNING last_version";
    FIND_LAST_BACKUP_VERSION = "SELECT last_version FROM key_backup_counters WHERE user_id = $1";
    INSERT_BACKUP = "INSERT INTO key_backups
        (user_id, version, algorithm, auth_data, etag, sessions, bytes, deleted)
        VALUES ($1, $2, $3, $4, $5, 0, 0, FALSE)";
    FIND_BACKUP = "SELECT version, algorithm, auth_data, etag, sessions, bytes FROM key_backups
        WHERE user_id = $1 AND version = $2 AND NOT deleted";
    FIND_NEWEST_BACKUP = "SELECT version, algorithm, auth_data, etag, sessions, bytes FROM key_backups
        WHERE user_id = $1 AND NOT deleted ORDER BY version DESC LIMIT 1";
    SUM_BACKUPS = "SELECT COUNT(*), CAST(COALESCE(SUM(sessions), 0) AS BIGINT), CAST(COALESCE(SUM(bytes), 0) AS BIGINT)
        FROM key_backups WHERE user_id = $1 AND NOT deleted";
    SET_AUTH_DATA = "UPDATE key_backups SET auth_data = $3 WHERE user_id = $1 AND version = $2";
    SET_BACKUP_CONTENTS = "UPDATE key_backups SET etag = $3, sessions = $4, bytes = $5
        WHERE user_id = $1 AND version = $2";
    MARK_BACKUP_DELETED = "UPDATE key_backups SET deleted = TRUE, auth_data = '{}', sessions = 0, bytes = 0
        WHERE user_id = $1 AND version = $2 AND NOT deleted";
    MARK_BACKUPS_DELETED = "UPDATE key_backups SET deleted = TRUE, auth_data = '{}', sessions = 0, bytes = 0
        WHERE user_id = $1 AND NOT deleted";
    LIST_DELETED_BACKUPS = "SELECT user_id, version FROM key_backups WHERE deleted ORDER BY user_id, version LIMIT $1";
    FORGET_BACKUP = "DELETE FROM key_backups WHERE user_id = $1 AND version = $2 AND deleted";
    /// Those sessions of which each has a row in a JSON array: room and session. By CROSS JOIN SQLite takes that first, and
    /// does not read all sessions of a backup for a few.
    LIST_KEY_STANDINGS = "SELECT s.room_id, s.session_id, s.first_message_index, s.forwarded_count, s.is_verified,
            octet_length(s.room_id) + octet_length(s.session_id) + octet_length(s.session_data)
        FROM json_each($3) AS asked CROSS JOIN key_backup_sessions s
            ON s.user_id = $1 AND s.version = $2
                AND s.room_id = asked.value ->> 0 AND s.session_id = asked.value ->> 1"
        | "SELECT s.room_id, s.session_id, s.first_message_index, s.forwarded_count, s.is_verified,
            octet_length(s.room_id)::bigint + octet_length(s.session_id) + octet_length(s.session_data)
        FROM json_array_elements($3::text::json) AS asked (value) JOIN key_backup_sessions s
            ON s.user_id = $1 AND s.version = $2
                AND s.room_id = asked.value ->> 0 AND s.session_id = asked.value ->> 1";
    FIND_KEY = "SELECT first_message_index, forwarded_count, is_verified, session_data FROM key_backup_sessions
        WHERE user_id = $1 AND version = $2 AND room_id = $3 AND session_id = $4";
    /// The first $5 keys after one, and none more once they have $6 bytes. Where the page ends is found out from the lengths
    /// alone, so that no more of the keys is read than the page holds.
    PAGE_OF_KEYS = "SELECT first_message_index, forwarded_count, is_verified, session_data, room_id, session_id
        FROM key_backup_sessions WHERE user_id = $1 AND version = $2 AND (room_id, session_id) > ($3, $4)
            AND (room_id, session_id) <= (SELECT w.room_id, w.session_id FROM (
                SELECT k.room_id, k.session_id, SUM(k.size) OVER (ORDER BY k.room_id, k.session_id) - k.size AS earlier
                FROM (SELECT room_id, session_id,
                        octet_length(room_id) + octet_length(session_id) + octet_length(session_data) AS size
                    FROM key_backup_sessions WHERE user_id = $1 AND version = $2 AND (room_id, session_id) > ($3, $4)
                    ORDER BY room_id, session_id LIMIT $5) AS k) AS w
                WHERE w.earlier < $6 ORDER BY w.room_id DESC, w.session_id DESC LIMIT 1)
        ORDER BY room_id, session_id LIMIT $5";
    PAGE_OF_KEYS_OF_ROOM = "SELECT first_message_index, forwarded_count, is_verified, session_data, room_id, session_id
        FROM key_backup_sessions WHERE user_id = $1 AND version = $2 AND room_id = $3 AND session_id > $4
            AND session_id <= (SELECT w.session_id FROM (
                SELECT k.session_id, SUM(k.size) OVER (ORDER BY k.session_id) - k.size AS earlier
                FROM (SELECT session_id,
                        octet_length(room_id) + octet_length(session_id) + octet_length(session_data) AS size
                    FROM key_backup_sessions WHERE user_id = $1 AND version = $2 AND room_id = $3 AND session_id > $4
                    ORDER BY session_id LIMIT $5) AS k) AS w
                WHERE w.earlier < $6 ORDER BY w.session_id DESC LIMIT 1)
        ORDER BY session_id LIMIT $5";
    /// The first $3 keys, and none more once they have $4 bytes. Returns how many bytes each of them had.
    DELETE_SOME_KEYS = "DELETE FROM key_backup_sessions WHERE rowid IN (SELECT w.id FROM (
            SELECT k.id, SUM(k.size) OVER (ORDER BY k.room_id, k.session_id) - k.size AS earlier
            FROM (SELECT rowid AS id, room_id, session_id,
                    octet_length(room_id) + octet_length(session_id) + octet_length(session_data) AS size
                FROM key_backup_sessions WHERE user_id = $1 AND version = $2
                ORDER BY room_id, session_id LIMIT $3) AS k) AS w
            WHERE w.earlier < $4)
        RETURNING octet_length(room_id) + octet_length(session_id) + octet_length(session_data)"
        | "DELETE FROM key_backup_sessions WHERE ctid = ANY (ARRAY (SELECT w.id FROM (
            SELECT k.id, SUM(k.size) OVER (ORDER BY k.room_id, k.session_id) - k.size AS earlier
            FROM (SELECT ctid AS id, room_id, session_id,
                    octet_length(room_id) + octet_length(session_id) + octet_length(session_data) AS size
                FROM key_backup_sessions WHERE user_id = $1 AND version = $2
                ORDER BY room_id, session_id LIMIT $3) AS k) AS w
            WHERE w.earlier < $4))
        RETURNING octet_length(room_id)::bigint + octet_length(session_id) + octet_length(session_data)";
    DELETE_SOME_KEYS_OF_ROOM = "DELETE FROM key_backup_sessions WHERE rowid IN (SELECT w.id FROM (
            SELECT k.id, SUM(k.size) OVER (ORDER BY k.session_id) - k.size AS earlier
            FROM (SELECT rowid AS id, session_id,
                    octet_length(room_id) + octet_length(session_id) + octet_length(session_data) AS size
                FROM key_backup_sessions WHERE user_id = $1 AND version = $2 AND room_id = $5
                ORDER BY session_id LIMIT $3) AS k) AS w
            WHERE w.earlier < $4)
        RETURNING octet_length(room_id) + octet_length(session_id) + octet_length(session_data)"
        | "DELETE FROM key_backup_sessions WHERE ctid = ANY (ARRAY (SELECT w.id FROM (
            SELECT k.id, SUM(k.size) OVER (ORDER BY k.session_id) - k.size AS earlier
            FROM (SELECT ctid AS id, session_id,
                    octet_length(room_id) + octet_length(session_id) + octet_length(session_data) AS size
                FROM key_backup_sessions WHERE user_id = $1 AND version = $2 AND room_id = $5
                ORDER BY session_id LIMIT $3) AS k) AS w
            WHERE w.earlier < $4))
        RETURNING octet_length(room_id)::bigint + octet_length(session_id) + octet_length(session_data)";
    DELETE_KEY = "DELETE FROM key_backup_sessions
        WHERE user_id = $1 AND version = $2 AND room_id = $3 AND session_id = $4
        RETURNING octet_length(room_id) + octet_length(session_id) + octet_length(session_data)"
        | "DELETE FROM key_backup_sessions
        WHERE user_id = $1 AND version = $2 AND room_id = $3 AND session_id = $4
        RETURNING octet_length(room_id)::bigint + octet_length(session_id) + octet_length(session_data)";
}

static UPSERT_KEYS: Insert = Insert::new(
    "UPSERT_KEYS",
    "key_backup_sessions",
    &[
        ("user_id", ColumnType::Text),
        ("version", ColumnType::Int),
        ("room_id", ColumnType::Text),
        ("session_id", ColumnType::Text),
        ("first_message_index", ColumnType::Int),
        ("forwarded_count", ColumnType::Int),
        ("is_verified", ColumnType::Bool),
        ("session_data", ColumnType::Text),
    ],
    "ON CONFLICT (user_id, version, room_id, session_id) DO UPDATE
        SET first_message_index = excluded.first_message_index, forwarded_count = excluded.forwarded_count,
            is_verified = excluded.is_verified, session_data = excluded.session_data",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&UPSERT_KEYS];

/// A backup as its user has set it up, with what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backup {
    /// Counted from 1 for each user. None is given out twice.
    pub(crate) version: i64,
    pub(crate) algorithm: String,
    /// A JSON object, as the client has written it.
    pub(crate) auth_data: String,
    pub(crate) contents: Contents,
}

/// What is in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    /// Another one whenever a key is another.
    pub(crate) etag: String,
    pub(crate) sessions: i64,
    /// Of the keys, as JSON, with the identifiers of their rooms and sessions.
    pub(crate) bytes: i64,
}

/// What a user has in all of their backups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BackupUsage {
    pub(crate) versions: i64,
    pub(crate) sessions: i64,
    pub(crate) bytes: i64,
}

/// What makes one key of a session better than another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Standing {
    pub(crate) first_message_index: i64,
    pub(crate) forwarded_count: i64,
    pub(crate) is_verified: bool,
}

/// The key of a session, as clients send and read it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct KeyBackupData {
    #[serde(flatten)]
    pub(crate) standing: Standing,
    /// An object that only the user's clients can read.
    pub(crate) session_data: Box<RawValue>,
}

/// A key with the session that it is of.
#[derive(Clone, Debug)]
pub(crate) struct SessionKey {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) session_id: String,
    pub(crate) data: KeyBackupData,
}

impl SessionKey {
    /// As they are counted.
    pub(crate) fn bytes(&self) -> i64 {
        let bytes = self.room_id.as_str().len() + self.session_id.len() + self.data.session_data.get().len();
        i64::try_from(bytes).unwrap_or(i64::MAX)
    }
}

/// Keys that follow each other in a backup.
#[derive(Debug)]
pub(crate) struct KeyPage {
    /// Ordered by room and session.
    pub(crate) keys: Vec<SessionKey>,
    /// Whether there are none after them. An empty page always is the last.
    pub(crate) is_last: bool,
}

/// Keys that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeletedKeys {
    pub(crate) count: i64,
    pub(crate) bytes: i64,
    /// Whether none are left of what was to be deleted.
    pub(crate) is_all: bool,
}

/// How much is read or deleted at once: a number of keys, and bytes after which no key follows any more. One key is dealt
/// with however large it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portion {
    pub(crate) keys: i64,
    pub(crate) bytes: i64,
}

impl Portion {
    /// Whether it may be that there was more than so many keys of so many bytes.
    fn is_full(self, keys: usize, bytes: i64) -> bool {
        i64::try_from(keys).unwrap_or(i64::MAX) >= self.keys || bytes >= self.bytes
    }
}

/// Which keys of a backup.
#[derive(Clone, Copy, Debug)]
pub(crate) enum KeySelection<'a> {
    All,
    OfRoom(&'a RoomId),
    OfSession(&'a RoomId, &'a str),
}

/// A number for a new backup, by which none of this user's was ever called.
pub(crate) async fn take_version(conn: &mut Conn, user_id: &UserId) -> DbResult<i64> {
    conn.find(&TAKE_BACKUP_VERSION, args![user_id]).await?.map_or(Ok(1), |row| row.get(0))
}

/// The number of the newest backup that a user has or had, 0 where there was none.
pub(crate) async fn last_version(conn: &mut Conn, user_id: &UserId) -> DbResult<i64> {
    conn.find(&FIND_LAST_BACKUP_VERSION, args![user_id]).await?.map_or(Ok(0), |row| row.get(0))
}

/// Adds a backup with nothing in it.
pub(crate) async fn insert(
    conn: &mut Conn,
    user_id: &UserId,
    version: i64,
    (algorithm, auth_data): (&str, &str),
    etag: &str,
) -> DbResult<()> {
    conn.execute(&INSERT_BACKUP, args![user_id, version, algorithm, auth_data, etag]).await.map(drop)
}

/// A backup that is not deleted.
pub(crate) async fn find(conn: &mut Conn, user_id: &UserId, version: i64) -> DbResult<Option<Backup>> {
    conn.find(&FIND_BACKUP, args![user_id, version]).await?.map(|row| backup(&row)).transpose()
}

/// The newest backup of a user, which is the one that is in use.
pub(crate) async fn find_newest(conn: &mut Conn, user_id: &UserId) -> DbResult<Option<Backup>> {
    conn.find(&FIND_NEWEST_BACKUP, args![user_id]).await?.map(|row| backup(&row)).transpose()
}

/// What a user has in all of their backups.
pub(crate) async fn usage(conn: &mut Conn, user_id: &UserId) -> DbResult<BackupUsage> {
    let Some(row) = conn.find(&SUM_BACKUPS, args![user_id]).await? else { return Ok(BackupUsage::default()) };
    Ok(BackupUsage { versions: row.get(0)?, sessions: row.get(1)?, bytes: row.get(2)? })
}

/// Replaces what clients keep beside a backup.
pub(crate) async fn set_auth_data(conn: &mut Conn, user_id: &UserId, version: i64, auth_data: &str) -> DbResult<()> {
    conn.execute(&SET_AUTH_DATA, args![user_id, version, auth_data]).await.map(drop)
}

/// Notes what is in a backup now.
pub(crate) async fn set_contents(conn: &mut Conn, user_id: &UserId, version: i64, contents: &Contents) -> DbResult<()> {
    let Contents { etag, sessions, bytes } = contents;
    conn.execute(&SET_BACKUP_CONTENTS, args![user_id, version, etag, sessions, bytes]).await.map(drop)
}

/// From now on nobody finds the backup, and [`list_deleted`] does. Says false where there is none.
pub(crate) async fn mark_deleted(conn: &mut Conn, user_id: &UserId, version: i64) -> DbResult<bool> {
    Ok(conn.execute(&MARK_BACKUP_DELETED, args![user_id, version]).await? == 1)
}

/// As [`mark_deleted`], of all backups of a user.
pub(crate) async fn mark_all_deleted(conn: &mut Conn, user_id: &UserId) -> DbResult<()> {
    conn.execute(&MARK_BACKUPS_DELETED, args![user_id]).await.map(drop)
}

/// Some of the backups that are deleted and whose sessions may still be there.
pub(crate) async fn list_deleted(conn: &mut Conn, limit: i64) -> DbResult<Vec<(OwnedUserId, i64)>> {
    let rows = conn.list(&LIST_DELETED_BACKUPS, args![limit]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

/// Removes the row of a backup that is deleted, once its sessions are.
pub(crate) async fn forget(conn: &mut Conn, user_id: &UserId, version: i64) -> DbResult<()> {
    conn.execute(&FORGET_BACKUP, args![user_id, version]).await.map(drop)
}

/// How the keys of these sessions stand and how many bytes they take, of those that are there: by room and session.
pub(crate) async fn list_standings(
    conn: &mut Conn,
    user_id: &UserId,
    version: i64,
    keys: &[SessionKey],
) -> DbResult<HashMap<(String, String), (Standing, i64)>> {
    let asked: Vec<(&RoomId, &str)> = keys.iter().map(|key| (&*key.room_id, key.session_id.as_str())).collect();
    let asked = serde_json::json!(asked).to_string();
    let rows = conn.list(&LIST_KEY_STANDINGS, args![user_id, version, &asked]).await?;
    let read = |row: &Row| -> DbResult<_> { Ok(((row.get(0)?, row.get(1)?), (standing(row, 2)?, row.get(5)?))) };
    rows.iter().map(read).collect()
}

/// Writes keys, in place of what there is of their sessions. No two are of one session.
pub(crate) async fn upsert_keys(tx: &mut Tx, user_id: &UserId, version: i64, keys: &[&SessionKey]) -> DbResult<()> {
    let standings = || keys.iter().map(|key| key.data.standing);
    let columns = [
        Column::texts(keys.iter().map(|_| user_id.as_str())),
        Column::ints(keys.iter().map(|_| version)),
        Column::texts(keys.iter().map(|key| key.room_id.as_str())),
        Column::texts(keys.iter().map(|key| key.session_id.as_str())),
        Column::ints(standings().map(|standing| standing.first_message_index)),
        Column::ints(standings().map(|standing| standing.forwarded_count)),
        Column::Bools(standings().map(|standing| standing.is_verified).collect()),
        Column::texts(keys.iter().map(|key| key.data.session_data.get())),
    ];
    tx.insert(&UPSERT_KEYS, &columns).await
}

/// The key of one session.
pub(crate) async fn find_key(
    conn: &mut Conn,
    user_id: &UserId,
    version: i64,
    (room_id, session_id): (&RoomId, &str),
) -> DbResult<Option<KeyBackupData>> {
    let found = conn.find(&FIND_KEY, args![user_id, version, room_id, session_id]).await?;
    found.map(|row| data(&row)).transpose()
}

/// The keys after a session. `after`: the room and the session of the last one that was read, both empty to begin with;
/// within a room, only the session counts.
pub(crate) async fn page(
    conn: &mut Conn,
    user_id: &UserId,
    version: i64,
    (room_id, after): (Option<&RoomId>, (&str, &str)),
    most: Portion,
) -> DbResult<KeyPage> {
    let Portion { keys, bytes } = most;
    let rows = match room_id {
        Some(room_id) => {
            conn.list(&PAGE_OF_KEYS_OF_ROOM, args![user_id, version, room_id, after.1, keys, bytes]).await?
        }
        None => conn.list(&PAGE_OF_KEYS, args![user_id, version, after.0, after.1, keys, bytes]).await?,
    };
    let read = |row: &Row| -> DbResult<SessionKey> {
        Ok(SessionKey { data: data(row)?, room_id: row.get(4)?, session_id: row.get(5)? })
    };
    let keys = rows.iter().map(read).collect::<DbResult<Vec<_>>>()?;
    let is_last = !most.is_full(keys.len(), keys.iter().map(SessionKey::bytes).sum());
    Ok(KeyPage { keys, is_last })
}

/// Deletes keys of a backup, a portion of them at most.
pub(crate) async fn delete_some_keys(
    conn: &mut Conn,
    user_id: &UserId,
    version: i64,
    which: KeySelection<'_>,
    most: Portion,
) -> DbResult<DeletedKeys> {
    let Portion { keys, bytes } = most;
    let rows = match which {
        KeySelection::All => conn.list(&DELETE_SOME_KEYS, args![user_id, version, keys, bytes]).await?,
        KeySelection::OfRoom(room_id) => {
            conn.list(&DELETE_SOME_KEYS_OF_ROOM, args![user_id, version, keys, bytes, room_id]).await?
        }
        KeySelection::OfSession(room_id, session_id) => {
            conn.list(&DELETE_KEY, args![user_id, version, room_id, session_id]).await?
        }
    };
    let sizes = rows.iter().map(|row| row.get(0)).collect::<DbResult<Vec<i64>>>()?;
    let bytes: i64 = sizes.iter().sum();
    let is_all = matches!(which, KeySelection::OfSession(..)) || !most.is_full(sizes.len(), bytes);
    Ok(DeletedKeys { count: i64::try_from(sizes.len()).unwrap_or(i64::MAX), bytes, is_all })
}

fn backup(row: &Row) -> DbResult<Backup> {
    Ok(Backup {
        version: row.get(0)?,
        algorithm: row.get(1)?,
        auth_data: row.get(2)?,
        contents: Contents { etag: row.get(3)?, sessions: row.get(4)?, bytes: row.get(5)? },
    })
}

fn data(row: &Row) -> DbResult<KeyBackupData> {
    Ok(KeyBackupData { standing: standing(row, 0)?, session_data: row.json(3)? })
}

/// From three columns that follow each other.
fn standing(row: &Row, first: usize) -> DbResult<Standing> {
    Ok(Standing {
        first_message_index: row.get(first)?,
        forwarded_count: row.get(first + 1)?,
        is_verified: row.get(first + 2)?,
    })
}
