//! `one_time_keys`, `fallback_keys`: what a device hands out once to each who opens a session with it, and what it hands
//! out when that is used up.
//!
//! Uploads hold the device's row ([`super::device::lock`]), claims hold nothing but the keys that they take. A claim passes
//! over keys that another is taking at the same moment, so none waits for another, and none is given one twice.
//! Fallback keys are locked after one-time keys, and in the order of the bytes of their key, whatever order the database
//! sorts text in.

use std::collections::BTreeMap;

use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use serde::Serialize;

use crate::db::{Column, ColumnType, Conn, DbError, DbResult, Insert, Row, Tx, args, statements};

statements! {
    /// By algorithm, how far it is numbered and how many are unclaimed.
    LIST_HELD = "SELECT algorithm, MAX(sequence), SUM(CASE WHEN claimed THEN 0 ELSE 1 END) FROM one_time_keys
        WHERE user_id = $1 AND device_id = $2 GROUP BY algorithm";
    LIST_ONE_TIME_KEYS_BY_ID = "SELECT algorithm, key_id, json, claimed FROM one_time_keys
        WHERE user_id = $1 AND device_id = $2 AND key_id IN LIST($3)";
    DELETE_CLAIMED_KEY = "DELETE FROM one_time_keys
        WHERE user_id = $1 AND device_id = $2 AND algorithm = $3 AND key_id = $4 AND claimed";
    DELETE_OLD_CLAIMED_KEYS = "DELETE FROM one_time_keys
        WHERE user_id = $1 AND device_id = $2 AND algorithm = $3 AND sequence <= $4 AND claimed";
    DELETE_ONE_TIME_KEYS = "DELETE FROM one_time_keys WHERE user_id = $1 AND device_id IN LIST($2)";
    DELETE_FALLBACK_KEYS = "DELETE FROM fallback_keys WHERE user_id = $1 AND device_id IN LIST($2)"
        | "WITH locked AS MATERIALIZED (
            SELECT device_id, algorithm FROM fallback_keys WHERE user_id = $1 AND device_id IN LIST($2)
            ORDER BY device_id COLLATE \"C\", algorithm COLLATE \"C\" FOR UPDATE)
        DELETE FROM fallback_keys f USING locked
        WHERE f.user_id = $1 AND f.device_id = locked.device_id AND f.algorithm = locked.algorithm";
    /// What is there already stays, whether or not it was used.
    UPSERT_FALLBACK_KEY = "INSERT INTO fallback_keys (user_id, device_id, algorithm, key_id, json, used)
        VALUES ($1, $2, $3, $4, $5, FALSE)
        ON CONFLICT (user_id, device_id, algorithm) DO UPDATE
        SET key_id = excluded.key_id, json = excluded.json, used = FALSE
        WHERE fallback_keys.key_id <> excluded.key_id OR fallback_keys.json <> excluded.json";
    /// Unclaimed keys by algorithm, and with NULL for a number the algorithms with a fallback key that was not used.
    COUNT_KEYS = "SELECT algorithm, COUNT(*) FROM one_time_keys
        WHERE user_id = $1 AND device_id = $2 AND NOT claimed GROUP BY algorithm
        UNION ALL SELECT algorithm, NULL FROM fallback_keys WHERE user_id = $1 AND device_id = $2 AND NOT used";
    LIST_FALLBACK_ALGORITHMS = "SELECT algorithm FROM fallback_keys WHERE user_id = $1 AND device_id = $2";
    /// One key for each object of a JSON array, all of them different: the oldest that nobody has claimed.
    CLAIM_ONE_TIME_KEYS = "UPDATE one_time_keys SET claimed = TRUE FROM (
            SELECT w.value ->> 'user_id' AS user_id, w.value ->> 'device_id' AS device_id,
                w.value ->> 'algorithm' AS algorithm,
                (SELECT MIN(k.sequence) FROM one_time_keys k WHERE k.user_id = w.value ->> 'user_id'
                    AND k.device_id = w.value ->> 'device_id' AND k.algorithm = w.value ->> 'algorithm'
                    AND NOT k.claimed) AS sequence
            FROM json_each($1) AS w) AS chosen
        WHERE one_time_keys.user_id = chosen.user_id AND one_time_keys.device_id = chosen.device_id
            AND one_time_keys.algorithm = chosen.algorithm AND one_time_keys.sequence = chosen.sequence
        RETURNING user_id, device_id, algorithm, key_id, json"
        | "WITH chosen AS MATERIALIZED (
            SELECT k.user_id, k.device_id, k.algorithm, k.sequence
            FROM json_to_recordset($1::text::json) AS w (user_id text, device_id text, algorithm text)
            CROSS JOIN LATERAL (
                SELECT o.user_id, o.device_id, o.algorithm, o.sequence FROM one_time_keys o
                WHERE o.user_id = w.user_id AND o.device_id = w.device_id AND o.algorithm = w.algorithm
                    AND NOT o.claimed
                ORDER BY o.sequence LIMIT 1 FOR UPDATE SKIP LOCKED) AS k)
        UPDATE one_time_keys SET claimed = TRUE FROM chosen
        WHERE one_time_keys.user_id = chosen.user_id AND one_time_keys.device_id = chosen.device_id
            AND one_time_keys.algorithm = chosen.algorithm AND one_time_keys.sequence = chosen.sequence
        RETURNING one_time_keys.user_id, one_time_keys.device_id, one_time_keys.algorithm, one_time_keys.key_id,
            one_time_keys.json";
    LIST_FALLBACK_KEYS = "SELECT f.user_id, f.device_id, f.algorithm, f.key_id, f.json, f.used
        FROM json_each($1) AS w JOIN fallback_keys f ON f.user_id = w.value ->> 'user_id'
            AND f.device_id = w.value ->> 'device_id' AND f.algorithm = w.value ->> 'algorithm'"
        | "SELECT f.user_id, f.device_id, f.algorithm, f.key_id, f.json, f.used
        FROM json_to_recordset($1::text::json) AS w (user_id text, device_id text, algorithm text)
        JOIN fallback_keys f ON f.user_id = w.user_id AND f.device_id = w.device_id AND f.algorithm = w.algorithm";
    /// A key that has been replaced meanwhile is another one, and stays unused.
    USE_FALLBACK_KEYS = "UPDATE fallback_keys SET used = TRUE FROM (
            SELECT w.value ->> 'user_id' AS user_id, w.value ->> 'device_id' AS device_id,
                w.value ->> 'algorithm' AS algorithm, w.value ->> 'key_id' AS key_id
            FROM json_each($1) AS w) AS taken
        WHERE fallback_keys.user_id = taken.user_id AND fallback_keys.device_id = taken.device_id
            AND fallback_keys.algorithm = taken.algorithm AND fallback_keys.key_id = taken.key_id
            AND NOT fallback_keys.used
        RETURNING user_id, device_id"
        | "UPDATE fallback_keys SET used = TRUE FROM (
            SELECT f.user_id, f.device_id, f.algorithm
            FROM json_to_recordset($1::text::json) AS w (user_id text, device_id text, algorithm text, key_id text)
            JOIN fallback_keys f ON f.user_id = w.user_id AND f.device_id = w.device_id
                AND f.algorithm = w.algorithm AND f.key_id = w.key_id
            WHERE NOT f.used
            ORDER BY f.user_id COLLATE \"C\", f.device_id COLLATE \"C\", f.algorithm COLLATE \"C\"
            FOR UPDATE OF f) AS taken
        WHERE fallback_keys.user_id = taken.user_id AND fallback_keys.device_id = taken.device_id
            AND fallback_keys.algorithm = taken.algorithm
        RETURNING fallback_keys.user_id, fallback_keys.device_id";
}

static INSERT_ONE_TIME_KEYS: Insert = Insert::new(
    "INSERT_ONE_TIME_KEYS",
    "one_time_keys",
    &[
        ("user_id", ColumnType::Text),
        ("device_id", ColumnType::Text),
        ("algorithm", ColumnType::Text),
        ("sequence", ColumnType::Int),
        ("key_id", ColumnType::Text),
        ("json", ColumnType::Text),
        ("claimed", ColumnType::Bool),
    ],
    "",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&INSERT_ONE_TIME_KEYS];

/// Which clients look for even where there is none.
const USUAL: &str = "signed_curve25519";

/// What a device has left to hand out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyCounts {
    /// By algorithm. `signed_curve25519` is always there.
    pub(crate) one_time: BTreeMap<String, i64>,
    /// The algorithms with a fallback key that nobody has been given, in order.
    pub(crate) unused_fallback: Vec<String>,
}

/// A key as it is uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewKey {
    pub(crate) algorithm: String,
    /// What follows the algorithm in its identifier.
    pub(crate) key_id: String,
    /// Canonical.
    pub(crate) json: String,
}

/// What is there of one algorithm of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// The number of its newest key.
    pub(crate) newest: i64,
    pub(crate) unclaimed: i64,
}

/// Of which device a key is wanted, and which.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Wanted {
    pub(crate) user_id: OwnedUserId,
    pub(crate) device_id: OwnedDeviceId,
    pub(crate) algorithm: String,
}

/// A key that is handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IssuedKey {
    pub(crate) key_id: String,
    pub(crate) json: String,
}

/// A fallback key that is handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FallbackKey {
    pub(crate) key: IssuedKey,
    /// Whether it was handed out before.
    pub(crate) used: bool,
}

/// What a device has left to hand out, in one statement.
pub(crate) async fn count(conn: &mut Conn, user_id: &UserId, device_id: &DeviceId) -> DbResult<KeyCounts> {
    let mut counts = KeyCounts { one_time: BTreeMap::from([(USUAL.to_owned(), 0)]), unused_fallback: Vec::new() };
    for row in conn.list(&COUNT_KEYS, args![user_id, device_id]).await? {
        let algorithm: String = row.get(0)?;
        match row.get::<Option<i64>>(1)? {
            Some(count) => {
                counts.one_time.insert(algorithm, count);
            }
            None => counts.unused_fallback.push(algorithm),
        }
    }
    counts.unused_fallback.sort_unstable();
    Ok(counts)
}

/// What a device holds of each algorithm, those included of which everything was claimed lately.
pub(crate) async fn list_held(
    conn: &mut Conn,
    user_id: &UserId,
    device_id: &DeviceId,
) -> DbResult<BTreeMap<String, Held>> {
    let held = |row: &Row| -> DbResult<_> { Ok((row.get(0)?, Held { newest: row.get(1)?, unclaimed: row.get(2)? })) };
    conn.list(&LIST_HELD, args![user_id, device_id]).await?.iter().map(held).collect()
}

/// The algorithms of which a device has a fallback key.
pub(crate) async fn list_fallback_algorithms(
    conn: &mut Conn,
    user_id: &UserId,
    device_id: &DeviceId,
) -> DbResult<Vec<String>> {
    conn.list(&LIST_FALLBACK_ALGORITHMS, args![user_id, device_id]).await?.iter().map(|row| row.get(0)).collect()
}

/// The keys of a device that are called so, each with whether it was claimed. Of any algorithm.
pub(crate) async fn list_by_id(
    conn: &mut Conn,
    user_id: &UserId,
    device_id: &DeviceId,
    key_ids: &[&str],
) -> DbResult<Vec<(NewKey, bool)>> {
    let key = |row: &Row| -> DbResult<_> {
        let key = NewKey { algorithm: row.get(0)?, key_id: row.get(1)?, json: row.get(2)? };
        Ok((key, row.get(3)?))
    };
    conn.list(&LIST_ONE_TIME_KEYS_BY_ID, args![user_id, device_id, key_ids]).await?.iter().map(key).collect()
}

/// Adds keys under their numbers.
pub(crate) async fn insert(
    tx: &mut Tx,
    user_id: &UserId,
    device_id: &DeviceId,
    keys: &[(i64, &NewKey)],
) -> DbResult<()> {
    let columns = [
        Column::texts(keys.iter().map(|_| user_id.as_str())),
        Column::texts(keys.iter().map(|_| device_id.as_str())),
        Column::texts(keys.iter().map(|(_, key)| key.algorithm.as_str())),
        Column::ints(keys.iter().map(|(sequence, _)| *sequence)),
        Column::texts(keys.iter().map(|(_, key)| key.key_id.as_str())),
        Column::texts(keys.iter().map(|(_, key)| key.json.as_str())),
        Column::Bools(vec![false; keys.len()]),
    ];
    tx.insert(&INSERT_ONE_TIME_KEYS, &columns).await
}

/// Forgets that a key of this name was claimed, for another takes its place.
pub(crate) async fn delete_claimed(
    conn: &mut Conn,
    user_id: &UserId,
    device_id: &DeviceId,
    key: &NewKey,
) -> DbResult<()> {
    conn.execute(&DELETE_CLAIMED_KEY, args![user_id, device_id, &key.algorithm, &key.key_id]).await.map(drop)
}

/// Forgets the claimed keys of an algorithm up to a number.
pub(crate) async fn delete_old_claimed(
    conn: &mut Conn,
    user_id: &UserId,
    device_id: &DeviceId,
    algorithm: &str,
    until: i64,
) -> DbResult<()> {
    conn.execute(&DELETE_OLD_CLAIMED_KEYS, args![user_id, device_id, algorithm, until]).await.map(drop)
}

/// Deletes all keys of these devices that are handed out. Whether there were any.
pub(crate) async fn delete(conn: &mut Conn, user_id: &UserId, device_ids: &[&str]) -> DbResult<bool> {
    let one_time = conn.execute(&DELETE_ONE_TIME_KEYS, args![user_id, device_ids]).await?;
    let fallback = conn.execute(&DELETE_FALLBACK_KEYS, args![user_id, device_ids]).await?;
    Ok(one_time + fallback > 0)
}

/// Puts a fallback key in place of another of its algorithm. False where it is there already. Several are put in the
/// order of their algorithms.
pub(crate) async fn upsert_fallback(
    conn: &mut Conn,
    user_id: &UserId,
    device_id: &DeviceId,
    key: &NewKey,
) -> DbResult<bool> {
    let args = args![user_id, device_id, &key.algorithm, &key.key_id, &key.json];
    Ok(conn.execute(&UPSERT_FALLBACK_KEY, args).await? > 0)
}

/// Takes one key for each that is wanted, the oldest first, and returns those that there were. Nobody else is ever given
/// them. What is wanted is in no two of them the same.
pub(crate) async fn claim(conn: &mut Conn, wanted: &[Wanted]) -> DbResult<BTreeMap<Wanted, IssuedKey>> {
    let wanted = serde_json::to_string(wanted).map_err(DbError::decode)?;
    let key =
        |row: &Row| -> DbResult<_> { Ok((self::wanted(row)?, IssuedKey { key_id: row.get(3)?, json: row.get(4)? })) };
    conn.list(&CLAIM_ONE_TIME_KEYS, args![&wanted]).await?.iter().map(key).collect()
}

/// The fallback keys of what is wanted, as far as there are any.
pub(crate) async fn list_fallback(conn: &mut Conn, wanted: &[Wanted]) -> DbResult<BTreeMap<Wanted, FallbackKey>> {
    let wanted = serde_json::to_string(wanted).map_err(DbError::decode)?;
    let key = |row: &Row| -> DbResult<_> {
        let key = IssuedKey { key_id: row.get(3)?, json: row.get(4)? };
        Ok((self::wanted(row)?, FallbackKey { key, used: row.get(5)? }))
    };
    conn.list(&LIST_FALLBACK_KEYS, args![&wanted]).await?.iter().map(key).collect()
}

/// Notes that fallback keys were handed out, and returns the devices of those that had not been.
pub(crate) async fn use_fallback(
    conn: &mut Conn,
    keys: &[(&Wanted, &str)],
) -> DbResult<Vec<(OwnedUserId, OwnedDeviceId)>> {
    #[derive(Serialize)]
    struct Taken<'a> {
        #[serde(flatten)]
        wanted: &'a Wanted,
        key_id: &'a str,
    }
    let taken: Vec<Taken<'_>> = keys.iter().map(|(wanted, key_id)| Taken { wanted, key_id }).collect();
    let taken = serde_json::to_string(&taken).map_err(DbError::decode)?;
    conn.list(&USE_FALLBACK_KEYS, args![&taken]).await?.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

fn wanted(row: &Row) -> DbResult<Wanted> {
    Ok(Wanted { user_id: row.get(0)?, device_id: row.get(1)?, algorithm: row.get(2)? })
}
