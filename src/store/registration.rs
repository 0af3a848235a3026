//! `registration_tokens` and `registration_nonces`: permission to make an account. `accepted_terms`: what was agreed
//! to.

use ruma::UserId;

use crate::db::{Conn, DbResult, Row, args, statements};

statements! {
    INSERT_REGISTRATION_TOKEN = "INSERT INTO registration_tokens (token, uses_allowed, completed, expires_ts)
        VALUES ($1, $2, 0, $3)";
    FIND_USABLE_REGISTRATION_TOKEN = "SELECT token FROM registration_tokens WHERE token = $1
        AND (uses_allowed IS NULL OR completed < uses_allowed) AND (expires_ts IS NULL OR expires_ts > $2)";
    USE_REGISTRATION_TOKEN = "UPDATE registration_tokens SET completed = completed + 1 WHERE token = $1
        AND (uses_allowed IS NULL OR completed < uses_allowed) AND (expires_ts IS NULL OR expires_ts > $2)";
    LIST_REGISTRATION_TOKENS = "SELECT token, uses_allowed, completed, expires_ts FROM registration_tokens ORDER BY token";
    DELETE_REGISTRATION_TOKEN = "DELETE FROM registration_tokens WHERE token = $1";
    INSERT_ACCEPTED_TERMS = "INSERT INTO accepted_terms (user_id, policy_id, version, accepted_ts)
        VALUES ($1, $2, $3, $4)";
    LIST_ACCEPTED_TERMS = "SELECT policy_id, version FROM accepted_terms WHERE user_id = $1
        ORDER BY policy_id, version";
    INSERT_NONCE = "INSERT INTO registration_nonces (nonce, expires_ts) VALUES ($1, $2)";
    TAKE_NONCE = "DELETE FROM registration_nonces WHERE nonce = $1 AND expires_ts > $2";
    DELETE_EXPIRED_NONCES = "DELETE FROM registration_nonces WHERE expires_ts <= $1";
}

/// Permission to make accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegistrationToken {
    pub(crate) token: String,
    /// How many accounts it may make; any number if none.
    pub(crate) uses_allowed: Option<i64>,
    /// How many it has made.
    pub(crate) completed: i64,
    /// Until when it is good, in milliseconds since the Unix epoch.
    pub(crate) expires_ts: Option<i64>,
}

impl RegistrationToken {
    /// As the database judges whether somebody may register.
    pub(crate) fn is_usable(&self, now: i64) -> bool {
        self.uses_allowed.is_none_or(|allowed| self.completed < allowed) && self.expires_ts.is_none_or(|ts| ts > now)
    }
}

/// `uses`: how many accounts it may make; `expires_ts`: until when, in milliseconds since the Unix epoch.
pub(crate) async fn insert_token(
    conn: &mut Conn,
    token: &str,
    uses: Option<i64>,
    expires_ts: Option<i64>,
) -> DbResult<()> {
    conn.execute(&INSERT_REGISTRATION_TOKEN, args![token, uses, expires_ts]).await.map(drop)
}

/// All of them, also those that are good for nothing any more.
pub(crate) async fn list_tokens(conn: &mut Conn) -> DbResult<Vec<RegistrationToken>> {
    let rows = conn.list(&LIST_REGISTRATION_TOKENS, args![]).await?;
    let token = |row: &Row| {
        let (uses_allowed, completed) = (row.get(1)?, row.get(2)?);
        Ok(RegistrationToken { token: row.get(0)?, uses_allowed, completed, expires_ts: row.get(3)? })
    };
    rows.iter().map(token).collect()
}

/// Removes a token, or says false where there is none.
pub(crate) async fn delete_token(conn: &mut Conn, token: &str) -> DbResult<bool> {
    Ok(conn.execute(&DELETE_REGISTRATION_TOKEN, args![token]).await? == 1)
}

/// Whether the token would let somebody in now.
pub(crate) async fn is_usable(conn: &mut Conn, token: &str, now: i64) -> DbResult<bool> {
    Ok(conn.find(&FIND_USABLE_REGISTRATION_TOKEN, args![token, now]).await?.is_some())
}

/// Uses the token once, or says false where it has no use left.
pub(crate) async fn use_token(conn: &mut Conn, token: &str, now: i64) -> DbResult<bool> {
    Ok(conn.execute(&USE_REGISTRATION_TOKEN, args![token, now]).await? == 1)
}

/// Somebody has accepted a version of a document.
pub(crate) async fn accept_terms(
    conn: &mut Conn,
    user_id: &UserId,
    policy_id: &str,
    version: &str,
    now: i64,
) -> DbResult<()> {
    conn.execute(&INSERT_ACCEPTED_TERMS, args![user_id, policy_id, version, now]).await.map(drop)
}

/// The documents that somebody has accepted, each with its version.
pub(crate) async fn list_accepted_terms(conn: &mut Conn, user_id: &UserId) -> DbResult<Vec<(String, String)>> {
    let rows = conn.list(&LIST_ACCEPTED_TERMS, args![user_id]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

/// Adds a nonce and clears away those that nobody came back with.
pub(crate) async fn insert_nonce(conn: &mut Conn, nonce: &str, now: i64, expires_ts: i64) -> DbResult<()> {
    conn.execute(&DELETE_EXPIRED_NONCES, args![now]).await?;
    conn.execute(&INSERT_NONCE, args![nonce, expires_ts]).await.map(drop)
}

/// Whether the nonce was good; from now on it is not.
pub(crate) async fn take_nonce(conn: &mut Conn, nonce: &str, now: i64) -> DbResult<bool> {
    Ok(conn.execute(&TAKE_NONCE, args![nonce, now]).await? == 1)
}
