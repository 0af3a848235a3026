//! `access_tokens`, `refresh_tokens`, `login_tokens`, `openid_tokens`: what lets somebody in, or proves who they are.
//! Only hashes are kept, so that a stolen copy of the database opens no door. All end with the session of the device
//! that has made them.
//!
//! A token is found by its SHA-256, in one look by a primary key; no text of one is ever in the database. Statements of
//! one device are run under the lock of its row ([`super::device::lock`]).

use aws_lc_rs::digest;
use ruma::{
    DeviceId, OwnedDeviceId, OwnedUserId, UserId,
    serde::{Base64, base64::UrlSafe},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::account::Restrictions;
use crate::db::{Conn, DbError, DbResult, Row, args, statements};

statements! {
    /// With whether a refresh token waits for this access token to be used, and then ends, and whether a registration
    /// can be repeated until then.
    FIND_BEARER = "SELECT a.user_id, t.device_id, a.admin, a.guest, a.rate_limited, t.expires_ts,
            EXISTS (SELECT 1 FROM refresh_tokens newer JOIN refresh_tokens older
                ON older.user_id = newer.user_id AND older.device_id = newer.device_id
                    AND older.next_hash = newer.token_hash
                WHERE newer.user_id = t.user_id AND newer.device_id = t.device_id
                    AND newer.access_token_hash = t.token_hash),
            a.locked_ts, a.suspended_ts,
            EXISTS (SELECT 1 FROM uia_sessions s WHERE s.token_hash = t.token_hash)
        FROM access_tokens t JOIN accounts a ON a.user_id = t.user_id
        WHERE t.token_hash = $1 AND a.deactivated_ts IS NULL";
    FIND_ACCESS_TOKEN_OF_DEVICE = "SELECT device_id FROM access_tokens WHERE user_id = $1 AND device_id = $2 LIMIT 1";
    FIND_ACCESS_TOKEN = "SELECT device_id FROM access_tokens
        WHERE token_hash = $1 AND user_id = $2 AND device_id = $3";
    INSERT_ACCESS_TOKEN = "INSERT INTO access_tokens (token_hash, user_id, device_id, expires_ts)
        VALUES ($1, $2, $3, $4)";
    DELETE_ACCESS_TOKEN = "DELETE FROM access_tokens WHERE token_hash = $1";
    DELETE_ACCESS_TOKENS = "DELETE FROM access_tokens WHERE user_id = $1 AND device_id = $2";
    DELETE_EXPIRED_ACCESS_TOKENS = "DELETE FROM access_tokens
        WHERE user_id = $1 AND device_id = $2 AND expires_ts <= $3";
    DELETE_ORPHANED_ACCESS_TOKENS = "DELETE FROM access_tokens WHERE user_id = $1 AND NOT EXISTS
        (SELECT 1 FROM devices d WHERE d.user_id = access_tokens.user_id AND d.device_id = access_tokens.device_id)";

    INSERT_REFRESH_TOKEN = "INSERT INTO refresh_tokens (token_hash, user_id, device_id, access_token_hash, next_hash)
        VALUES ($1, $2, $3, $4, NULL)";
    FIND_REFRESH_TOKEN = "SELECT token_hash, user_id, device_id, access_token_hash, next_hash FROM refresh_tokens
        WHERE token_hash = $1";
    FIND_REFRESH_TOKEN_BESIDE = "SELECT token_hash, user_id, device_id, access_token_hash, next_hash
        FROM refresh_tokens WHERE user_id = $1 AND device_id = $2 AND access_token_hash = $3";
    SET_NEXT = "UPDATE refresh_tokens SET next_hash = $2 WHERE token_hash = $1";
    DELETE_REFRESH_TOKEN = "DELETE FROM refresh_tokens WHERE token_hash = $1";
    DELETE_PREDECESSOR = "DELETE FROM refresh_tokens WHERE user_id = $1 AND device_id = $2 AND next_hash = $3";
    DELETE_REFRESH_TOKENS = "DELETE FROM refresh_tokens WHERE user_id = $1 AND device_id = $2";
    DELETE_ORPHANED_REFRESH_TOKENS = "DELETE FROM refresh_tokens WHERE user_id = $1 AND NOT EXISTS
        (SELECT 1 FROM devices d WHERE d.user_id = refresh_tokens.user_id AND d.device_id = refresh_tokens.device_id)";

    INSERT_OPENID_TOKEN = "INSERT INTO openid_tokens (token_hash, user_id, device_id, expires_ts)
        VALUES ($1, $2, $3, $4)";
    FIND_OPENID_USER = "SELECT t.user_id FROM openid_tokens t JOIN accounts a ON a.user_id = t.user_id
        WHERE t.token_hash = $1 AND t.expires_ts > $2 AND a.locked_ts IS NULL AND a.deactivated_ts IS NULL";
    DELETE_OPENID_TOKENS_OF_DEVICE = "DELETE FROM openid_tokens WHERE user_id = $1 AND device_id = $2";
    DELETE_ORPHANED_OPENID_TOKENS = "DELETE FROM openid_tokens WHERE user_id = $1 AND NOT EXISTS
        (SELECT 1 FROM devices d WHERE d.user_id = openid_tokens.user_id AND d.device_id = openid_tokens.device_id)";
    /// All but one ($2) and the newest $3 others of a user.
    DELETE_SURPLUS_OPENID_TOKENS = "DELETE FROM openid_tokens WHERE token_hash IN (
        SELECT token_hash FROM openid_tokens WHERE user_id = $1 AND token_hash <> $2
        ORDER BY expires_ts DESC, token_hash LIMIT 1000000 OFFSET $3)";
    DELETE_SURPLUS_LOGIN_TOKENS = "DELETE FROM login_tokens WHERE token_hash IN (
        SELECT token_hash FROM login_tokens WHERE user_id = $1 AND token_hash <> $2
        ORDER BY expires_ts DESC, token_hash LIMIT 1000000 OFFSET $3)";
    DELETE_EXPIRED_OPENID_TOKENS = "DELETE FROM openid_tokens WHERE expires_ts <= $1";
    INSERT_LOGIN_TOKEN = "INSERT INTO login_tokens (token_hash, user_id, device_id, expires_ts)
        VALUES ($1, $2, $3, $4)";
    TAKE_LOGIN_TOKEN = "DELETE FROM login_tokens WHERE token_hash = $1 RETURNING user_id, device_id, expires_ts";
    DELETE_LOGIN_TOKENS_OF_DEVICE = "DELETE FROM login_tokens WHERE user_id = $1 AND device_id = $2";
    DELETE_ORPHANED_LOGIN_TOKENS = "DELETE FROM login_tokens WHERE user_id = $1 AND NOT EXISTS
        (SELECT 1 FROM devices d WHERE d.user_id = login_tokens.user_id AND d.device_id = login_tokens.device_id)";
    DELETE_LOGIN_TOKENS = "DELETE FROM login_tokens WHERE user_id = $1";
    DELETE_EXPIRED_LOGIN_TOKENS = "DELETE FROM login_tokens WHERE expires_ts <= $1";
}

/// The SHA-256 of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenHash([u8; digest::SHA256_OUTPUT_LEN]);

/// As it is written into JSON.
impl Serialize for TokenHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Base64::<UrlSafe, _>::new(self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Base64::<UrlSafe, [u8; digest::SHA256_OUTPUT_LEN]>::deserialize(deserializer)?;
        Ok(Self(bytes.into_inner()))
    }
}

impl TokenHash {
    /// Tokens are random, so a hash without salt is enough: nobody tries them one by one.
    pub(crate) fn of(token: &str) -> Self {
        let mut hash = [0; digest::SHA256_OUTPUT_LEN];
        hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        Self(hash)
    }

    /// As the tables hold it: 32 bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// From a column of 32 bytes, or NULL.
    pub(super) fn read(row: &Row, index: usize) -> DbResult<Option<Self>> {
        let Some(bytes) = row.get::<Option<Vec<u8>>>(index)? else { return Ok(None) };
        let hash = bytes.try_into().ok().ok_or_else(|| DbError::decode("a token's hash is 32 bytes long"))?;
        Ok(Some(Self(hash)))
    }
}

/// Who holds an access token.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are columns, none excludes another")]
pub(crate) struct Bearer {
    pub(crate) user_id: OwnedUserId,
    pub(crate) device_id: OwnedDeviceId,
    pub(crate) admin: bool,
    pub(crate) guest: bool,
    pub(crate) rate_limited: bool,
    /// Milliseconds since the Unix epoch.
    pub(crate) expires_ts: Option<i64>,
    /// Whether the refresh token that gave rise to this access token is still valid.
    pub(crate) has_predecessor: bool,
    /// Whether it is not known yet if the answer to a registration that it came with has arrived.
    pub(crate) is_unconfirmed: bool,
    pub(crate) restrictions: Restrictions,
}

/// A refresh token, as its row has it.
#[derive(Debug)]
pub(crate) struct RefreshToken {
    pub(crate) hash: TokenHash,
    pub(crate) user_id: OwnedUserId,
    pub(crate) device_id: OwnedDeviceId,
    /// The access token that was issued together with it.
    pub(crate) access_token: TokenHash,
    /// The refresh token that it was last exchanged for.
    pub(crate) next: Option<TokenHash>,
}

/// The holder of an access token, expired or not, unless the account is deactivated.
///
/// Whether it has expired is for whoever asks: such a token is refused with `soft_logout`, an unknown one without.
pub(crate) async fn find_bearer(conn: &mut Conn, token: &TokenHash) -> DbResult<Option<Bearer>> {
    let Some(row) = conn.find(&FIND_BEARER, args![token.bytes()]).await? else { return Ok(None) };
    Ok(Some(Bearer {
        user_id: row.get(0)?,
        device_id: row.get(1)?,
        admin: row.get(2)?,
        guest: row.get(3)?,
        rate_limited: row.get(4)?,
        expires_ts: row.get(5)?,
        has_predecessor: row.get(6)?,
        restrictions: Restrictions::read(&row, 7)?,
        is_unconfirmed: row.get(9)?,
    }))
}

/// Adds an access token to a device. `expires_ts` is in milliseconds since the Unix epoch; without it the token holds
/// until somebody ends it.
pub(crate) async fn insert_access_token(
    conn: &mut Conn,
    token: &TokenHash,
    user_id: &UserId,
    device_id: &DeviceId,
    expires_ts: Option<i64>,
) -> DbResult<()> {
    conn.execute(&INSERT_ACCESS_TOKEN, args![token.bytes(), user_id, device_id, expires_ts]).await.map(drop)
}

/// Adds a refresh token, with the access token that is issued beside it.
pub(crate) async fn insert_refresh_token(
    conn: &mut Conn,
    token: &TokenHash,
    user_id: &UserId,
    device_id: &DeviceId,
    access_token: &TokenHash,
) -> DbResult<()> {
    let args = args![token.bytes(), user_id, device_id, access_token.bytes()];
    conn.execute(&INSERT_REFRESH_TOKEN, args).await.map(drop)
}

/// A login token that was just used.
#[derive(Debug)]
pub(crate) struct TakenLoginToken {
    pub(crate) user_id: OwnedUserId,
    /// Whose session has made it. None for one from before that was written down.
    pub(crate) device_id: Option<OwnedDeviceId>,
    /// Milliseconds since the Unix epoch.
    pub(crate) expires_ts: i64,
}

/// Every token of a device, and what its session has made.
pub(crate) async fn delete_of_device(conn: &mut Conn, user_id: &UserId, device_id: &DeviceId) -> DbResult<()> {
    conn.execute(&DELETE_ACCESS_TOKENS, args![user_id, device_id]).await?;
    conn.execute(&DELETE_REFRESH_TOKENS, args![user_id, device_id]).await?;
    conn.execute(&DELETE_LOGIN_TOKENS_OF_DEVICE, args![user_id, device_id]).await?;
    conn.execute(&DELETE_OPENID_TOKENS_OF_DEVICE, args![user_id, device_id]).await.map(drop)
}

/// The tokens of devices that are gone, and what their sessions have made.
pub(crate) async fn delete_orphans(conn: &mut Conn, user_id: &UserId) -> DbResult<()> {
    conn.execute(&DELETE_ORPHANED_ACCESS_TOKENS, args![user_id]).await?;
    conn.execute(&DELETE_ORPHANED_REFRESH_TOKENS, args![user_id]).await?;
    conn.execute(&DELETE_ORPHANED_LOGIN_TOKENS, args![user_id]).await?;
    conn.execute(&DELETE_ORPHANED_OPENID_TOKENS, args![user_id]).await.map(drop)
}

/// A refresh token, used or not, as long as it is good.
pub(crate) async fn find_refresh_token(conn: &mut Conn, token: &TokenHash) -> DbResult<Option<RefreshToken>> {
    conn.find(&FIND_REFRESH_TOKEN, args![token.bytes()]).await?.map(|row| refresh_token(&row)).transpose()
}

/// The refresh token that was issued together with an access token.
pub(crate) async fn find_refresh_token_beside(
    conn: &mut Conn,
    user_id: &UserId,
    device_id: &DeviceId,
    access_token: &TokenHash,
) -> DbResult<Option<RefreshToken>> {
    let args = args![user_id, device_id, access_token.bytes()];
    conn.find(&FIND_REFRESH_TOKEN_BESIDE, args).await?.map(|row| refresh_token(&row)).transpose()
}

/// Takes back a refresh token that nobody has used, with its access token.
pub(crate) async fn withdraw(conn: &mut Conn, token: &RefreshToken) -> DbResult<()> {
    conn.execute(&DELETE_ACCESS_TOKEN, args![token.access_token.bytes()]).await?;
    conn.execute(&DELETE_REFRESH_TOKEN, args![token.hash.bytes()]).await.map(drop)
}

/// Ends the refresh token that was exchanged for `token`, and clears away expired access tokens.
pub(crate) async fn retire_predecessor(conn: &mut Conn, token: &RefreshToken, now: i64) -> DbResult<()> {
    let RefreshToken { hash, user_id, device_id, .. } = token;
    if conn.execute(&DELETE_PREDECESSOR, args![user_id, device_id, hash.bytes()]).await? > 0 {
        conn.execute(&DELETE_EXPIRED_ACCESS_TOKENS, args![user_id, device_id, now]).await?;
    }
    Ok(())
}

/// Notes for what a refresh token was exchanged. It stays good until the new access token is used.
pub(crate) async fn set_next(conn: &mut Conn, token: &TokenHash, next: &TokenHash) -> DbResult<()> {
    conn.execute(&SET_NEXT, args![token.bytes(), next.bytes()]).await.map(drop)
}

/// Adds a token with which to log in once, until `expires_ts`.
pub(crate) async fn insert_login_token(
    conn: &mut Conn,
    token: &TokenHash,
    user_id: &UserId,
    device_id: &DeviceId,
    expires_ts: i64,
) -> DbResult<()> {
    conn.execute(&INSERT_LOGIN_TOKEN, args![token.bytes(), user_id, device_id, expires_ts]).await.map(drop)
}

/// Only so many of a user's login tokens go on being good: the newest, with the one that was just made.
pub(crate) async fn delete_surplus_login_tokens(
    conn: &mut Conn,
    user_id: &UserId,
    made: &TokenHash,
    kept: i64,
) -> DbResult<()> {
    conn.execute(&DELETE_SURPLUS_LOGIN_TOKENS, args![user_id, made.bytes(), kept - 1]).await.map(drop)
}

/// Only so many of a user's `OpenID` tokens go on being good: the newest, with the one that was just made.
pub(crate) async fn delete_surplus_openid_tokens(
    conn: &mut Conn,
    user_id: &UserId,
    made: &TokenHash,
    kept: i64,
) -> DbResult<()> {
    conn.execute(&DELETE_SURPLUS_OPENID_TOKENS, args![user_id, made.bytes(), kept - 1]).await.map(drop)
}

/// Whose login token this was, from which session, and until when; from now on it is nobody's.
///
/// Deleted by the statement that finds it: of two that show it at once, one gets in.
pub(crate) async fn take_login_token(conn: &mut Conn, token: &TokenHash) -> DbResult<Option<TakenLoginToken>> {
    let Some(row) = conn.find(&TAKE_LOGIN_TOKEN, args![token.bytes()]).await? else { return Ok(None) };
    let device_id = row.get::<Option<String>>(1)?.map(OwnedDeviceId::from);
    Ok(Some(TakenLoginToken { user_id: row.get(0)?, device_id, expires_ts: row.get(2)? }))
}

/// No login token of a user's is good any more.
pub(crate) async fn delete_login_tokens(conn: &mut Conn, user_id: &UserId) -> DbResult<()> {
    conn.execute(&DELETE_LOGIN_TOKENS, args![user_id]).await.map(drop)
}

/// Removes those that nobody came back with.
pub(crate) async fn delete_expired_login_tokens(conn: &mut Conn, now: i64) -> DbResult<()> {
    conn.execute(&DELETE_EXPIRED_LOGIN_TOKENS, args![now]).await.map(drop)
}

/// Adds a token by which others than clients learn who somebody is, until `expires_ts`. It may be shown more than once.
pub(crate) async fn insert_openid_token(
    conn: &mut Conn,
    token: &TokenHash,
    user_id: &UserId,
    device_id: &DeviceId,
    expires_ts: i64,
) -> DbResult<()> {
    conn.execute(&INSERT_OPENID_TOKEN, args![token.bytes(), user_id, device_id, expires_ts]).await.map(drop)
}

/// Whose `OpenID` token this is, if it has not expired and the account is not locked.
///
/// <https://spec.matrix.org/v1.19/server-server-api/#openid>
pub(crate) async fn find_openid_user(conn: &mut Conn, token: &TokenHash, now: i64) -> DbResult<Option<OwnedUserId>> {
    conn.find(&FIND_OPENID_USER, args![token.bytes(), now]).await?.map(|row| row.get(0)).transpose()
}

/// Removes those that have expired. They were good for nothing already.
pub(crate) async fn delete_expired_openid_tokens(conn: &mut Conn, now: i64) -> DbResult<()> {
    conn.execute(&DELETE_EXPIRED_OPENID_TOKENS, args![now]).await.map(drop)
}

fn refresh_token(row: &Row) -> DbResult<RefreshToken> {
    let hash = |index| TokenHash::read(row, index)?.ok_or_else(|| DbError::decode("a token's hash"));
    Ok(RefreshToken {
        hash: hash(0)?,
        user_id: row.get(1)?,
        device_id: row.get(2)?,
        access_token: hash(3)?,
        next: TokenHash::read(row, 4)?,
    })
}

/// Whether this access token still is one of the device, expired or not. With the device's row locked, it stays so.
pub(crate) async fn is_of_device(
    conn: &mut Conn,
    token: &TokenHash,
    user_id: &UserId,
    device_id: &DeviceId,
) -> DbResult<bool> {
    Ok(conn.find(&FIND_ACCESS_TOKEN, args![token.bytes(), user_id, device_id]).await?.is_some())
}

/// Whether anybody can still speak for a device.
pub(crate) async fn has_access_token(conn: &mut Conn, user_id: &UserId, device_id: &DeviceId) -> DbResult<bool> {
    Ok(conn.find(&FIND_ACCESS_TOKEN_OF_DEVICE, args![user_id, device_id]).await?.is_some())
}
