//! `uia_sessions`: user-interactive authentication under way, and how registrations ended.

use std::time::Duration;

use ruma::{OwnedUserId, UserId};

use super::token::TokenHash;
use crate::db::{Conn, DbResult, Row, Value, args, statements};

statements! {
    INSERT_UIA_SESSION = "INSERT INTO uia_sessions
        (session_id, user_id, operation, params, completed, request, created_ts) VALUES ($1, $2, $3, $4, $5, $6, $7)";
    FIND_UIA_SESSION = "SELECT session_id, user_id, operation, params, completed, request FROM uia_sessions
        WHERE session_id = $1 AND created_ts > $2 AND outcome IS NULL";
    LOCK_UIA_SESSION = "SELECT session_id, user_id, operation, params, completed, request FROM uia_sessions
        WHERE session_id = $1 AND created_ts > $2 AND outcome IS NULL FOR UPDATE";
    SET_COMPLETED = "UPDATE uia_sessions SET completed = $2 WHERE session_id = $1";
    SET_REQUEST = "UPDATE uia_sessions SET request = $2 WHERE session_id = $1 AND outcome IS NULL";
    /// With everything forgotten that led to it.
    END_UIA_SESSION = "UPDATE uia_sessions SET outcome = $2, token_hash = $3, request = NULL, completed = '[]'
        WHERE session_id = $1 AND outcome IS NULL";
    FIND_OUTCOME = "SELECT outcome, token_hash FROM uia_sessions
        WHERE session_id = $1 AND operation = $2 AND created_ts > $3 AND outcome IS NOT NULL";
    LOCK_OUTCOME = "SELECT outcome, token_hash FROM uia_sessions
        WHERE session_id = $1 AND operation = $2 AND created_ts > $3 AND outcome IS NOT NULL FOR UPDATE";
    SET_ANSWERED = "UPDATE uia_sessions SET token_hash = $2 WHERE session_id = $1";
    SET_RECEIVED = "UPDATE uia_sessions SET token_hash = NULL WHERE token_hash = $1";
    /// All but one ($2) and the newest $3 others of a user.
    DELETE_SURPLUS_UIA_SESSIONS = "DELETE FROM uia_sessions WHERE session_id IN (
        SELECT session_id FROM uia_sessions WHERE user_id = $1 AND session_id <> $2
        ORDER BY created_ts DESC, session_id LIMIT 1000000 OFFSET $3)";
    DELETE_UIA_SESSIONS_OF_USER = "DELETE FROM uia_sessions WHERE user_id = $1";
    DELETE_EXPIRED_UIA_SESSIONS = "DELETE FROM uia_sessions WHERE created_ts <= $1";
}

/// How long after it was opened a session can be completed, and its outcome be answered again.
pub(crate) const LIFETIME: Duration = Duration::from_hours(1);

/// A session that has not ended.
#[derive(Clone, Debug)]
pub(crate) struct UiaSession {
    pub(crate) id: String,
    /// None where nobody is logged in yet.
    pub(crate) user_id: Option<OwnedUserId>,
    /// At which endpoint: a session is good at one alone.
    pub(crate) operation: String,
    /// What was asked for, as a keyed hash.
    pub(crate) params: String,
    /// JSON.
    pub(crate) completed: String,
    /// What was asked for, where it need not be said again. JSON, in which a password stands as a hash.
    pub(crate) request: Option<String>,
}

/// How a session ended, for whoever did not get the answer.
#[derive(Clone, Debug)]
pub(crate) struct RegistrationOutcome {
    /// JSON.
    pub(crate) json: String,
    /// The access token that it was answered with. None where there is none, or once it was used.
    pub(crate) unused_token: Option<TokenHash>,
}

/// Opens a session. `now` is when: its age counts from here, however often it is advanced.
pub(crate) async fn insert(conn: &mut Conn, session: &UiaSession, now: i64) -> DbResult<()> {
    let UiaSession { id, user_id, operation, params, completed, request } = session;
    let user_id = user_id.as_deref().map(UserId::as_str);
    conn.execute(&INSERT_UIA_SESSION, args![id, user_id, operation, params, completed, request, now]).await.map(drop)
}

/// A session that was opened after `since` and has not ended.
pub(crate) async fn find(conn: &mut Conn, session_id: &str, since: i64) -> DbResult<Option<UiaSession>> {
    conn.find(&FIND_UIA_SESSION, args![session_id, since]).await?.map(|row| session(&row)).transpose()
}

/// A session that has not ended, locked: nobody else advances it until the transaction ends.
pub(crate) async fn lock(conn: &mut Conn, session_id: &str, since: i64) -> DbResult<Option<UiaSession>> {
    conn.find(&LOCK_UIA_SESSION, args![session_id, since]).await?.map(|row| session(&row)).transpose()
}

/// Replaces the completed stages, by whoever has locked the session.
pub(crate) async fn set_completed(conn: &mut Conn, session_id: &str, completed: &str) -> DbResult<()> {
    conn.execute(&SET_COMPLETED, args![session_id, completed]).await.map(drop)
}

/// Replaces what was asked for, unless the session has ended.
pub(crate) async fn set_request(conn: &mut Conn, session_id: &str, request: &str) -> DbResult<()> {
    conn.execute(&SET_REQUEST, args![session_id, request]).await.map(drop)
}

/// Ends a session, or says false where it had ended already. `token`: the access token that is answered with.
pub(crate) async fn end(conn: &mut Conn, session_id: &str, outcome: &str, token: Option<&TokenHash>) -> DbResult<bool> {
    let args = [session_id.into(), outcome.into(), Value::Bytes(token.map(TokenHash::bytes))];
    Ok(conn.execute(&END_UIA_SESSION, &args).await? == 1)
}

/// How a session of an operation ended that was opened after `since`.
pub(crate) async fn find_outcome(
    conn: &mut Conn,
    session_id: &str,
    operation: &str,
    since: i64,
) -> DbResult<Option<RegistrationOutcome>> {
    conn.find(&FIND_OUTCOME, args![session_id, operation, since]).await?.map(|row| outcome(&row)).transpose()
}

/// How a session of an operation ended, locked: until the transaction ends nobody else is answered, or uses the token.
pub(crate) async fn lock_outcome(
    conn: &mut Conn,
    session_id: &str,
    operation: &str,
    since: i64,
) -> DbResult<Option<RegistrationOutcome>> {
    conn.find(&LOCK_OUTCOME, args![session_id, operation, since]).await?.map(|row| outcome(&row)).transpose()
}

/// Somebody gets the outcome once more, with another access token.
pub(crate) async fn set_answered(conn: &mut Conn, session_id: &str, token: &TokenHash) -> DbResult<()> {
    conn.execute(&SET_ANSWERED, args![session_id, token.bytes()]).await.map(drop)
}

/// An access token is used that somebody was answered with: the answer has arrived.
pub(crate) async fn set_received(conn: &mut Conn, token: &TokenHash) -> DbResult<()> {
    conn.execute(&SET_RECEIVED, args![token.bytes()]).await.map(drop)
}

/// Only so many sessions of a user go on: the newest, with the one that was just opened.
pub(crate) async fn delete_surplus(conn: &mut Conn, user_id: &UserId, opened: &str, kept: i64) -> DbResult<()> {
    conn.execute(&DELETE_SURPLUS_UIA_SESSIONS, args![user_id, opened, kept - 1]).await.map(drop)
}

/// Ends every session of a user's who was logged in when it began.
pub(crate) async fn delete_of_user(conn: &mut Conn, user_id: &UserId) -> DbResult<()> {
    conn.execute(&DELETE_UIA_SESSIONS_OF_USER, args![user_id]).await.map(drop)
}

/// Forgets sessions that were opened until then, outcomes included.
pub(crate) async fn delete_expired(conn: &mut Conn, until: i64) -> DbResult<()> {
    conn.execute(&DELETE_EXPIRED_UIA_SESSIONS, args![until]).await.map(drop)
}

fn session(row: &Row) -> DbResult<UiaSession> {
    Ok(UiaSession {
        id: row.get(0)?,
        user_id: row.get(1)?,
        operation: row.get(2)?,
        params: row.get(3)?,
        completed: row.get(4)?,
        request: row.get(5)?,
    })
}

fn outcome(row: &Row) -> DbResult<RegistrationOutcome> {
    Ok(RegistrationOutcome { json: row.get(0)?, unused_token: TokenHash::read(row, 1)? })
}
