//! `device_keys`: the identity keys of devices, with which others encrypt for them.
//!
//! Whoever writes them holds the account: signatures are compared with them. They end with their device, in the same
//! transaction.

use std::collections::BTreeMap;

use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use super::{cross_signing, one_time_key};
use crate::db::{Conn, DbResult, Row, args, statements};

statements! {
    UPSERT_DEVICE_KEYS = "INSERT INTO device_keys (user_id, device_id, json, signature) VALUES ($1, $2, $3, $4)
        ON CONFLICT (user_id, device_id) DO UPDATE SET json = excluded.json, signature = excluded.signature";
    FIND_DEVICE_KEYS = "SELECT json FROM device_keys WHERE user_id = $1 AND device_id = $2";
    /// Everybody who has an account, also without a device. A device is there once for each signature of its user.
    LIST_DEVICE_KEYS = "SELECT a.user_id, k.device_id, k.json, k.signature, d.display_name, s.signer_key_id, s.signature
        FROM accounts a
        LEFT JOIN device_keys k ON k.user_id = a.user_id
        LEFT JOIN devices d ON d.user_id = k.user_id AND d.device_id = k.device_id
        LEFT JOIN key_signatures s ON s.target_user_id = k.user_id AND s.target = k.device_id
            AND s.signer_user_id = k.user_id
        WHERE a.user_id IN LIST($1)";
    /// Of one user, the first $3 after a device, in whatever order the database sorts text in.
    LIST_NEXT_DEVICE_KEYS = "SELECT k.user_id, k.device_id, k.json, k.signature, d.display_name, s.signer_key_id,
            s.signature
        FROM (SELECT user_id, device_id, json, signature FROM device_keys WHERE user_id = $1 AND device_id > $2
            ORDER BY device_id LIMIT $3) AS k
        LEFT JOIN devices d ON d.user_id = k.user_id AND d.device_id = k.device_id
        LEFT JOIN key_signatures s ON s.target_user_id = k.user_id AND s.target = k.device_id
            AND s.signer_user_id = k.user_id
        ORDER BY k.device_id";
    /// By user, about how many bytes it takes to show the devices, and to show the other keys: with each key comes what is
    /// around it.
    LIST_KEY_SIZES = "SELECT user_id, SUM(OCTET_LENGTH(json)) + 400 * COUNT(*), 0 FROM device_keys
            WHERE user_id IN LIST($1) GROUP BY user_id
        UNION ALL SELECT user_id, 0, SUM(OCTET_LENGTH(json)) + 200 * COUNT(*) FROM cross_signing_keys
            WHERE user_id IN LIST($1) GROUP BY user_id
        UNION ALL SELECT m.user_id, 0, SUM(OCTET_LENGTH(s.signer_key_id)) + 100 * COUNT(*)
            FROM cross_signing_keys m JOIN key_signatures s ON s.target_user_id = m.user_id
                AND s.target = m.public_key AND s.signer_user_id = m.user_id
            WHERE m.user_id IN LIST($1) AND m.usage = 'master' GROUP BY m.user_id";
    DELETE_DEVICE_KEYS = "DELETE FROM device_keys WHERE user_id = $1 AND device_id IN LIST($2) RETURNING device_id";
}

/// A row of what others are shown of a user's devices.
pub(crate) struct ListedDevice {
    pub(crate) user_id: OwnedUserId,
    /// None where the user has no device with keys.
    pub(crate) keys: Option<ListedKeys>,
}

/// The keys of a device, and one of the signatures that its user's other keys have made of them.
pub(crate) struct ListedKeys {
    pub(crate) device_id: OwnedDeviceId,
    /// Canonical JSON of what is signed.
    pub(crate) json: String,
    /// The device's own.
    pub(crate) signature: String,
    pub(crate) display_name: Option<String>,
    /// By which key, and the signature.
    pub(crate) signed_by: Option<(String, String)>,
}

/// About how much it is to show somebody's keys, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeySizes {
    pub(crate) devices: i64,
    pub(crate) cross_signing: i64,
}

/// Puts a device's keys in place of those that it had.
pub(crate) async fn upsert(
    conn: &mut Conn,
    user_id: &UserId,
    device_id: &DeviceId,
    json: &str,
    signature: &str,
) -> DbResult<()> {
    conn.execute(&UPSERT_DEVICE_KEYS, args![user_id, device_id, json, signature]).await.map(drop)
}

/// Canonical JSON of what is signed of a device's keys.
pub(crate) async fn find(conn: &mut Conn, user_id: &UserId, device_id: &DeviceId) -> DbResult<Option<String>> {
    conn.find(&FIND_DEVICE_KEYS, args![user_id, device_id]).await?.map(|row| row.get(0)).transpose()
}

/// The devices of these users as others see them, in no order. Users who have no account are left out.
pub(crate) async fn list(conn: &mut Conn, users: &[&str]) -> DbResult<Vec<ListedDevice>> {
    conn.list(&LIST_DEVICE_KEYS, args![users]).await?.iter().map(listed).collect()
}

/// The first devices of a user after one, at most `limit`, as others see them.
pub(crate) async fn list_next(
    conn: &mut Conn,
    user_id: &UserId,
    after: &str,
    limit: i64,
) -> DbResult<Vec<ListedDevice>> {
    conn.list(&LIST_NEXT_DEVICE_KEYS, args![user_id, after, limit]).await?.iter().map(listed).collect()
}

/// About how much it is to show the keys of these users. Those who have none are left out.
pub(crate) async fn list_sizes(conn: &mut Conn, users: &[&str]) -> DbResult<BTreeMap<OwnedUserId, KeySizes>> {
    let mut sizes: BTreeMap<OwnedUserId, KeySizes> = BTreeMap::new();
    for row in conn.list(&LIST_KEY_SIZES, args![users]).await? {
        let size = sizes.entry(row.get(0)?).or_default();
        size.devices += row.get::<i64>(1)?;
        size.cross_signing += row.get::<i64>(2)?;
    }
    Ok(sizes)
}

/// Deletes everything that is kept of the keys of these devices, and returns those that had identity keys.
///
/// One-time keys go before fallback keys, as claims lock them.
pub(crate) async fn delete_with_all(
    conn: &mut Conn,
    user_id: &UserId,
    device_ids: &[&str],
) -> DbResult<Vec<OwnedDeviceId>> {
    one_time_key::delete(conn, user_id, device_ids).await?;
    cross_signing::delete_signatures(conn, user_id, device_ids).await?;
    let rows = conn.list(&DELETE_DEVICE_KEYS, args![user_id, device_ids]).await?;
    rows.iter().map(|row| row.get(0)).collect()
}

fn listed(row: &Row) -> DbResult<ListedDevice> {
    let user_id = row.get(0)?;
    // Read as text: NULL is no identifier.
    let device_id: Option<String> = row.get(1)?;
    let Some(device_id) = device_id else { return Ok(ListedDevice { user_id, keys: None }) };
    let (key_id, signature): (Option<String>, Option<String>) = (row.get(5)?, row.get(6)?);
    let keys = ListedKeys {
        device_id: device_id.into(),
        json: row.get(2)?,
        signature: row.get(3)?,
        display_name: row.get(4)?,
        signed_by: key_id.zip(signature),
    };
    Ok(ListedDevice { user_id, keys: Some(keys) })
}
