//! `cross_signing_keys`, `key_signatures`: the keys by which users vouch for their devices and for each other, and what
//! they have signed.
//!
//! Whoever writes them holds the account of the signer. A signature is deleted with the key that has made it, and with
//! the key that it is of: so whoever signs the master key of somebody else holds that key's row ([`lock_master`]), and
//! whoever replaces or deletes theirs holds it, too.
//!
//! Two users who have signed each other's master keys delete rows of each other. So rows of signatures are locked in the
//! order of their bytes, whatever order the database sorts text in, and all that one change deletes in one statement.

use ruma::{DeviceId, OwnedUserId, UserId};

use crate::db::{Conn, DbError, DbResult, Row, args, statements};

statements! {
    UPSERT_CROSS_SIGNING_KEY = "INSERT INTO cross_signing_keys (user_id, usage, public_key, json, signature)
        VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (user_id, usage) DO UPDATE
        SET public_key = excluded.public_key, json = excluded.json, signature = excluded.signature";
    LIST_CROSS_SIGNING_KEYS = "SELECT user_id, usage, public_key, json, signature FROM cross_signing_keys
        WHERE user_id = $1";
    LOCK_MASTER_KEY = "SELECT user_id, usage, public_key, json, signature FROM cross_signing_keys
        WHERE user_id = $1 AND usage = 'master' FOR UPDATE";
    /// Without the user-signing keys of others than $2.
    LIST_VISIBLE_KEYS = "SELECT user_id, usage, public_key, json, signature FROM cross_signing_keys
        WHERE user_id IN LIST($1) AND (usage <> 'user_signing' OR user_id = $2)";
    FIND_BY_PUBLIC_KEY = "SELECT usage FROM cross_signing_keys WHERE user_id = $1 AND public_key = $2";
    DELETE_CROSS_SIGNING_KEY = "DELETE FROM cross_signing_keys WHERE user_id = $1 AND usage = $2";
    DELETE_CROSS_SIGNING_KEYS = "DELETE FROM cross_signing_keys WHERE user_id = $1";
    INSERT_KEY_SIGNATURE = "INSERT INTO key_signatures
            (target_user_id, target, signer_user_id, signer_key_id, signature)
        VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (target_user_id, target, signer_user_id, signer_key_id) DO UPDATE
        SET signature = excluded.signature WHERE key_signatures.signature <> excluded.signature";
    /// On master keys, by the users themselves and by $2.
    LIST_VISIBLE_SIGNATURES = "SELECT s.target_user_id, s.signer_user_id, s.signer_key_id, s.signature
        FROM cross_signing_keys m
        JOIN key_signatures s ON s.target_user_id = m.user_id AND s.target = m.public_key
            AND s.signer_user_id IN (m.user_id, $2)
        WHERE m.user_id IN LIST($1) AND m.usage = 'master'";
    DELETE_SIGNATURES = "DELETE FROM key_signatures
        WHERE (target_user_id = $1 AND target IN LIST($2)) OR (signer_user_id = $1 AND signer_key_id IN LIST($3))"
        | "WITH locked AS MATERIALIZED (
            SELECT target_user_id, target, signer_user_id, signer_key_id FROM key_signatures
            WHERE (target_user_id = $1 AND target IN LIST($2)) OR (signer_user_id = $1 AND signer_key_id IN LIST($3))
            ORDER BY target_user_id COLLATE \"C\", target COLLATE \"C\", signer_user_id COLLATE \"C\",
                signer_key_id COLLATE \"C\" FOR UPDATE)
        DELETE FROM key_signatures s USING locked
        WHERE s.target_user_id = locked.target_user_id AND s.target = locked.target
            AND s.signer_user_id = locked.signer_user_id AND s.signer_key_id = locked.signer_key_id";
    DELETE_ALL_SIGNATURES = "DELETE FROM key_signatures WHERE target_user_id = $1 OR signer_user_id = $1"
        | "WITH locked AS MATERIALIZED (
            SELECT target_user_id, target, signer_user_id, signer_key_id FROM key_signatures
            WHERE target_user_id = $1 OR signer_user_id = $1
            ORDER BY target_user_id COLLATE \"C\", target COLLATE \"C\", signer_user_id COLLATE \"C\",
                signer_key_id COLLATE \"C\" FOR UPDATE)
        DELETE FROM key_signatures s USING locked
        WHERE s.target_user_id = locked.target_user_id AND s.target = locked.target
            AND s.signer_user_id = locked.signer_user_id AND s.signer_key_id = locked.signer_key_id";
}

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Usage {
    Master,
    SelfSigning,
    UserSigning,
}

impl Usage {
    /// As the specification writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::SelfSigning => "self_signing",
            Self::UserSigning => "user_signing",
        }
    }

    fn read(row: &Row, index: usize) -> DbResult<Self> {
        let usage: String = row.get(index)?;
        let all = [Self::Master, Self::SelfSigning, Self::UserSigning];
        let found = all.into_iter().find(|known| known.as_str() == usage);
        found.ok_or_else(|| DbError::decode(format!("no key is for {usage}")))
    }
}

/// A cross-signing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CrossSigningKey {
    pub(crate) usage: Usage,
    /// In unpadded base64, which is also its name.
    pub(crate) public_key: String,
    /// Canonical JSON of what is signed.
    pub(crate) json: String,
    /// The master key's. None of the master key itself.
    pub(crate) signature: Option<String>,
}

/// A signature that was made of somebody's device or master key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeySignature {
    pub(crate) target_user_id: OwnedUserId,
    /// A device's identifier, or the public key of a master key.
    pub(crate) target: String,
    pub(crate) signer_user_id: OwnedUserId,
    /// With its algorithm: `ed25519:…`.
    pub(crate) signer_key_id: String,
    pub(crate) signature: String,
}

/// Puts a key in place of another of its usage.
pub(crate) async fn upsert(conn: &mut Conn, user_id: &UserId, key: &CrossSigningKey) -> DbResult<()> {
    let args = args![user_id, key.usage.as_str(), &key.public_key, &key.json, &key.signature];
    conn.execute(&UPSERT_CROSS_SIGNING_KEY, args).await.map(drop)
}

/// All keys of a user.
pub(crate) async fn list(conn: &mut Conn, user_id: &UserId) -> DbResult<Vec<CrossSigningKey>> {
    let rows = conn.list(&LIST_CROSS_SIGNING_KEYS, args![user_id]).await?;
    rows.iter().map(|row| key(row).map(|(_, key)| key)).collect()
}

/// The master key of a user, which nobody else signs, replaces or deletes until the transaction ends. Several are locked
/// in the order of their users.
pub(crate) async fn lock_master(conn: &mut Conn, user_id: &UserId) -> DbResult<Option<CrossSigningKey>> {
    let row = conn.find(&LOCK_MASTER_KEY, args![user_id]).await?;
    row.map(|row| key(&row).map(|(_, key)| key)).transpose()
}

/// The keys of these users that `reader` may see.
pub(crate) async fn list_visible(
    conn: &mut Conn,
    users: &[&str],
    reader: &UserId,
) -> DbResult<Vec<(OwnedUserId, CrossSigningKey)>> {
    conn.list(&LIST_VISIBLE_KEYS, args![users, reader]).await?.iter().map(key).collect()
}

/// Whether a user has a cross-signing key of this name.
pub(crate) async fn is_public_key(conn: &mut Conn, user_id: &UserId, public_key: &str) -> DbResult<bool> {
    Ok(conn.find(&FIND_BY_PUBLIC_KEY, args![user_id, public_key]).await?.is_some())
}

/// Deletes the key of a usage.
pub(crate) async fn delete(conn: &mut Conn, user_id: &UserId, usage: Usage) -> DbResult<()> {
    conn.execute(&DELETE_CROSS_SIGNING_KEY, args![user_id, usage.as_str()]).await.map(drop)
}

/// Deletes the keys of a user, and all signatures by them and of them. Whether there were any keys.
pub(crate) async fn delete_all(conn: &mut Conn, user_id: &UserId) -> DbResult<bool> {
    lock_master(conn, user_id).await?;
    conn.execute(&DELETE_ALL_SIGNATURES, args![user_id]).await?;
    Ok(conn.execute(&DELETE_CROSS_SIGNING_KEYS, args![user_id]).await? > 0)
}

/// Keeps a signature. False where it is there already.
pub(crate) async fn insert_signature(conn: &mut Conn, signature: &KeySignature) -> DbResult<bool> {
    let KeySignature { target_user_id, target, signer_user_id, signer_key_id, signature } = signature;
    let args = args![target_user_id, target, signer_user_id, signer_key_id, signature];
    Ok(conn.execute(&INSERT_KEY_SIGNATURE, args).await? > 0)
}

/// Who has signed the master keys of these users, as far as `reader` may see it: the users' own devices, and the reader.
pub(crate) async fn list_visible_signatures(
    conn: &mut Conn,
    users: &[&str],
    reader: &UserId,
) -> DbResult<Vec<(OwnedUserId, OwnedUserId, String, String)>> {
    let rows = conn.list(&LIST_VISIBLE_SIGNATURES, args![users, reader]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).collect()
}

/// Deletes the signatures of a user's devices and cross-signing keys, and those that they have made. Each is named by the
/// device's identifier or the public key.
pub(crate) async fn delete_signatures(conn: &mut Conn, user_id: &UserId, names: &[&str]) -> DbResult<()> {
    let key_ids: Vec<String> = names.iter().map(|name| format!("ed25519:{name}")).collect();
    let key_ids: Vec<&str> = key_ids.iter().map(String::as_str).collect();
    conn.execute(&DELETE_SIGNATURES, args![user_id, names, &key_ids]).await.map(drop)
}

/// Deletes the signatures of a device whose keys say something else by now. What it has signed itself stays.
pub(crate) async fn delete_signatures_of_device(
    conn: &mut Conn,
    user_id: &UserId,
    device_id: &DeviceId,
) -> DbResult<()> {
    let (device_ids, none): ([&str; 1], [&str; 0]) = ([device_id.as_str()], []);
    conn.execute(&DELETE_SIGNATURES, args![user_id, device_ids.as_slice(), none.as_slice()]).await.map(drop)
}

fn key(row: &Row) -> DbResult<(OwnedUserId, CrossSigningKey)> {
    let key = CrossSigningKey {
        usage: Usage::read(row, 1)?,
        public_key: row.get(2)?,
        json: row.get(3)?,
        signature: row.get(4)?,
    };
    Ok((row.get(0)?, key))
}
