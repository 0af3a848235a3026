//! `uia_sessions`: user-interactive authentication under way.

use ruma::{OwnedUserId, UserId};

use crate::db::{Conn, DbResult, Row, args, statements};

statements! {
    INSERT_UIA_SESSION = "INSERT INTO uia_sessions (session_id, user_id, operation, params, completed, created_ts)
        VALUES ($1, $2, $3, $4, $5, $6)";
    FIND_UIA_SESSION = "SELECT session_id, user_id, operation, params, completed FROM uia_sessions
        WHERE session_id = $1 AND created_ts > $2";
    LOCK_UIA_SESSION = "SELECT session_id, user_id, operation, params, completed FROM uia_sessions
        WHERE session_id = $1 AND created_ts > $2 FOR UPDATE";
    SET_COMPLETED = "UPDATE uia_sessions SET completed = $2 WHERE session_id = $1";
    DELETE_UIA_SESSION = "DELETE FROM uia_sessions WHERE session_id = $1";
    DELETE_UIA_SESSIONS_OF_USER = "DELETE FROM uia_sessions WHERE user_id = $1";
    DELETE_EXPIRED_UIA_SESSIONS = "DELETE FROM uia_sessions WHERE created_ts <= $1";
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) id: String,
    /// None where nobody is logged in yet.
    pub(crate) user_id: Option<OwnedUserId>,
    pub(crate) operation: String,
    /// What was asked for, as a keyed hash.
    pub(crate) params: String,
    /// JSON.
    pub(crate) completed: String,
}

pub(crate) async fn insert(conn: &mut Conn, session: &Session, now: i64) -> DbResult<()> {
    let Session { id, user_id, operation, params, completed } = session;
    let user_id = user_id.as_deref().map(UserId::as_str);
    conn.execute(&INSERT_UIA_SESSION, args![id, user_id, operation, params, completed, now]).await.map(drop)
}

/// A session that was opened after `since`.
pub(crate) async fn find(conn: &mut Conn, session_id: &str, since: i64) -> DbResult<Option<Session>> {
    conn.find(&FIND_UIA_SESSION, args![session_id, since]).await?.map(|row| session(&row)).transpose()
}

/// The same, and nobody else advances it until the transaction ends.
pub(crate) async fn lock(conn: &mut Conn, session_id: &str, since: i64) -> DbResult<Option<Session>> {
    conn.find(&LOCK_UIA_SESSION, args![session_id, since]).await?.map(|row| session(&row)).transpose()
}

pub(crate) async fn set_completed(conn: &mut Conn, session_id: &str, completed: &str) -> DbResult<()> {
    conn.execute(&SET_COMPLETED, args![session_id, completed]).await.map(drop)
}

/// Ends a session, or says false where it had ended already.
pub(crate) async fn delete(conn: &mut Conn, session_id: &str) -> DbResult<bool> {
    Ok(conn.execute(&DELETE_UIA_SESSION, args![session_id]).await? == 1)
}

pub(crate) async fn delete_of_user(conn: &mut Conn, user_id: &UserId) -> DbResult<()> {
    conn.execute(&DELETE_UIA_SESSIONS_OF_USER, args![user_id]).await.map(drop)
}

pub(crate) async fn delete_expired(conn: &mut Conn, until: i64) -> DbResult<()> {
    conn.execute(&DELETE_EXPIRED_UIA_SESSIONS, args![until]).await.map(drop)
}

fn session(row: &Row) -> DbResult<Session> {
    Ok(Session {
        id: row.get(0)?,
        user_id: row.get(1)?,
        operation: row.get(2)?,
        params: row.get(3)?,
        completed: row.get(4)?,
    })
}
