//! `threepids`, `threepid_bindings`, `threepid_sessions`, `threepid_mails`: addresses outside of Matrix, how they are
//! proved, and where they are published.
//!
//! An address belongs to one account at most, by the primary key. A session is one attempt to prove an address for one
//! purpose with one client secret; only hashes of secrets and tokens are kept. It serves once: `taken_ts` says when it
//! did. `changed_ts` is what it expires by. Mails are counted by address across all sessions, under a lock of their
//! own, because whoever asks chooses the sessions.

use ruma::{OwnedUserId, UserId};

use super::token::TokenHash;
use crate::db::{Conn, DbResult, Engine, Row, Tx, args, statements};

statements! {
    LIST_THREEPIDS = "SELECT medium, address, validated_ts, added_ts FROM threepids WHERE user_id = $1
        ORDER BY added_ts, medium, address";
    COUNT_THREEPIDS = "SELECT COUNT(*) FROM threepids WHERE user_id = $1";
    FIND_THREEPID_OWNER = "SELECT user_id FROM threepids WHERE medium = $1 AND address = $2";
    INSERT_THREEPID = "INSERT INTO threepids (medium, address, user_id, validated_ts, added_ts)
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT (medium, address) DO NOTHING";
    SET_THREEPID_VALIDATED = "UPDATE threepids SET validated_ts = $4
        WHERE medium = $1 AND address = $2 AND user_id = $3";
    DELETE_THREEPID = "DELETE FROM threepids WHERE medium = $1 AND address = $2 AND user_id = $3";
    DELETE_THREEPIDS_OF_USER = "DELETE FROM threepids WHERE user_id = $1";

    INSERT_BINDING = "INSERT INTO threepid_bindings (user_id, medium, address, id_server) VALUES ($1, $2, $3, $4)
        ON CONFLICT (user_id, medium, address, id_server) DO NOTHING";
    LIST_BINDINGS = "SELECT medium, address, id_server FROM threepid_bindings WHERE user_id = $1
        ORDER BY medium, address, id_server";
    DELETE_BINDING = "DELETE FROM threepid_bindings
        WHERE user_id = $1 AND medium = $2 AND address = $3 AND id_server = $4";
    /// In any order, so that no one row is always the last.
    LIST_LEFT_BINDINGS = "SELECT b.user_id, b.medium, b.address, b.id_server
        FROM threepid_bindings b JOIN accounts a ON a.user_id = b.user_id
        WHERE a.deactivated_ts > $1 ORDER BY random() LIMIT $2";
    DELETE_LEFT_BINDINGS = "DELETE FROM threepid_bindings
        WHERE user_id IN (SELECT user_id FROM accounts WHERE deactivated_ts <= $1)";

    DELETE_OLD_SESSION = "DELETE FROM threepid_sessions
        WHERE operation = $1 AND medium = $2 AND address = $3 AND secret_hash = $4
            AND (changed_ts <= $5 OR taken_ts IS NOT NULL)";
    INSERT_SESSION = "INSERT INTO threepid_sessions (sid, operation, medium, address, secret_hash, send_attempt,
            sending_until_ts, token_hash, failures, next_link, validated_ts, changed_ts)
        VALUES ($1, $2, $3, $4, $5, -1, 0, NULL, 0, NULL, NULL, $6)
        ON CONFLICT (operation, medium, address, secret_hash) DO NOTHING";
    LOCK_SENDING = "SELECT sid, send_attempt, sending_until_ts FROM threepid_sessions
        WHERE operation = $1 AND medium = $2 AND address = $3 AND secret_hash = $4 FOR UPDATE";
    BEGIN_SENDING = "UPDATE threepid_sessions SET sending_until_ts = $2, token_hash = $3, failures = 0, next_link = $4,
            changed_ts = CASE WHEN validated_ts IS NULL THEN $5 ELSE changed_ts END
        WHERE sid = $1";
    SET_SENT = "UPDATE threepid_sessions SET sending_until_ts = 0, send_attempt = $2
        WHERE sid = $1 AND send_attempt < $2";
    SET_NOT_SENT = "UPDATE threepid_sessions SET sending_until_ts = 0 WHERE sid = $1";
    FIND_THREEPID_SESSION = "SELECT sid, operation, address, token_hash, failures, next_link, validated_ts, changed_ts
        FROM threepid_sessions WHERE sid = $1 AND secret_hash = $2 AND taken_ts IS NULL";
    LOCK_THREEPID_SESSION = "SELECT sid, operation, address, token_hash, failures, next_link, validated_ts, changed_ts
        FROM threepid_sessions WHERE sid = $1 AND secret_hash = $2 AND taken_ts IS NULL FOR UPDATE";
    COUNT_FAILURE = "UPDATE threepid_sessions SET failures = failures + 1 WHERE sid = $1";
    SET_VALIDATED = "UPDATE threepid_sessions SET validated_ts = $2, changed_ts = $2 WHERE sid = $1";
    TAKE_VALIDATED = "UPDATE threepid_sessions SET taken_ts = $4, token_hash = NULL
        WHERE sid = $1 AND operation = $2 AND validated_ts IS NOT NULL AND changed_ts > $3 AND taken_ts IS NULL
        RETURNING medium, address, validated_ts";
    FIND_TAKEN = "SELECT address FROM threepid_sessions
        WHERE sid = $1 AND secret_hash = $2 AND operation = $3 AND taken_ts > $4";
    FIND_VALIDATED = "SELECT medium, address FROM threepid_sessions
        WHERE sid = $1 AND operation = $2 AND validated_ts IS NOT NULL AND changed_ts > $3 AND taken_ts IS NULL";
    FORGET_RESETS = "DELETE FROM threepid_sessions WHERE operation = 'reset_password' AND taken_ts IS NULL
        AND (medium, address) IN (SELECT medium, address FROM threepids WHERE user_id = $1)";
    DELETE_OLD_SESSIONS = "DELETE FROM threepid_sessions WHERE changed_ts <= $1";

    /// Held until the transaction ends. The two numbers are a space of their own beside those of one number.
    LOCK_MAILBOX = "SELECT 1" | "SELECT pg_advisory_xact_lock(4720320, hashtext($1))::text";
    INSERT_MAIL = "INSERT INTO threepid_mails (medium, address, sent_ts) VALUES ($1, $2, $3)";
    DELETE_MAIL = "DELETE FROM threepid_mails WHERE rowid =
            (SELECT rowid FROM threepid_mails WHERE medium = $1 AND address = $2 AND sent_ts = $3 LIMIT 1)"
        | "DELETE FROM threepid_mails WHERE ctid =
            (SELECT ctid FROM threepid_mails WHERE medium = $1 AND address = $2 AND sent_ts = $3 LIMIT 1)";
    COUNT_MAILS = "SELECT COUNT(*), MIN(sent_ts) FROM threepid_mails
        WHERE medium = $1 AND address = $2 AND sent_ts > $3";
    DELETE_OLD_MAILS = "DELETE FROM threepid_mails WHERE sent_ts <= $1";
}

/// An address on an account. Times are in milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Threepid {
    pub(crate) medium: String,
    pub(crate) address: String,
    pub(crate) validated_ts: i64,
    pub(crate) added_ts: i64,
}

/// An address as an identity server publishes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Binding {
    pub(crate) medium: String,
    pub(crate) address: String,
    pub(crate) id_server: String,
}

/// What keeps one attempt to prove an address apart from all others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ValidationKey<'a> {
    pub(crate) operation: &'a str,
    pub(crate) medium: &'a str,
    pub(crate) address: &'a str,
    pub(crate) secret: &'a TokenHash,
}

/// How far the mails of a session have come.
#[derive(Debug)]
pub(crate) struct ValidationAttempt {
    pub(crate) sid: String,
    /// The highest attempt whose mail has gone out.
    pub(crate) send_attempt: i64,
    /// Until when somebody else is sending one, in milliseconds since the Unix epoch.
    pub(crate) until_ts: i64,
}

/// A session in which an address is being proved.
#[derive(Debug)]
pub(crate) struct ValidationSession {
    pub(crate) sid: String,
    pub(crate) operation: String,
    pub(crate) address: String,
    /// None where the mail carries no token.
    pub(crate) token: Option<TokenHash>,
    pub(crate) failures: i64,
    pub(crate) next_link: Option<String>,
    pub(crate) validated_ts: Option<i64>,
    /// When it began or was completed, in milliseconds since the Unix epoch.
    pub(crate) changed_ts: i64,
}

/// The addresses of a user, the oldest first.
pub(crate) async fn list(conn: &mut Conn, user_id: &UserId) -> DbResult<Vec<Threepid>> {
    let threepid = |row: &Row| {
        Ok(Threepid { medium: row.get(0)?, address: row.get(1)?, validated_ts: row.get(2)?, added_ts: row.get(3)? })
    };
    conn.list(&LIST_THREEPIDS, args![user_id]).await?.iter().map(threepid).collect()
}

/// How many addresses a user has.
pub(crate) async fn count(conn: &mut Conn, user_id: &UserId) -> DbResult<i64> {
    conn.find(&COUNT_THREEPIDS, args![user_id]).await?.map_or(Ok(0), |row| row.get(0))
}

/// Whose address this is.
pub(crate) async fn find_owner(conn: &mut Conn, medium: &str, address: &str) -> DbResult<Option<OwnedUserId>> {
    conn.find(&FIND_THREEPID_OWNER, args![medium, address]).await?.map(|row| row.get(0)).transpose()
}

/// Gives an address to a user, or says false where it is somebody's already.
pub(crate) async fn insert(conn: &mut Conn, user_id: &UserId, threepid: &Threepid) -> DbResult<bool> {
    let Threepid { medium, address, validated_ts, added_ts } = threepid;
    let args = args![medium, address, user_id, *validated_ts, *added_ts];
    Ok(conn.execute(&INSERT_THREEPID, args).await? == 1)
}

/// Notes that a user has proved an address again, or says false where it is not theirs.
pub(crate) async fn set_validated_again(conn: &mut Conn, user_id: &UserId, threepid: &Threepid) -> DbResult<bool> {
    let Threepid { medium, address, validated_ts, .. } = threepid;
    let args = args![medium, address, user_id, *validated_ts];
    Ok(conn.execute(&SET_THREEPID_VALIDATED, args).await? == 1)
}

/// Takes an address from a user, or says false where it was not theirs.
pub(crate) async fn delete(conn: &mut Conn, user_id: &UserId, medium: &str, address: &str) -> DbResult<bool> {
    Ok(conn.execute(&DELETE_THREEPID, args![medium, address, user_id]).await? == 1)
}

/// Takes every address from a user. Where they are published is remembered until they are withdrawn.
pub(crate) async fn delete_of_user(conn: &mut Conn, user_id: &UserId) -> DbResult<()> {
    conn.execute(&DELETE_THREEPIDS_OF_USER, args![user_id]).await.map(drop)
}

/// Notes where an address is published, so that it can be withdrawn. Written when the identity server has taken it.
pub(crate) async fn insert_binding(conn: &mut Conn, user_id: &UserId, binding: &Binding) -> DbResult<()> {
    let Binding { medium, address, id_server } = binding;
    conn.execute(&INSERT_BINDING, args![user_id, medium, address, id_server]).await.map(drop)
}

/// Where a user's addresses are published, as far as this server had a part in it.
pub(crate) async fn list_bindings(conn: &mut Conn, user_id: &UserId) -> DbResult<Vec<Binding>> {
    conn.list(&LIST_BINDINGS, args![user_id]).await?.iter().map(|row| binding(row, 0)).collect()
}

/// Some of what accounts have left published that were deactivated after `since`.
pub(crate) async fn list_left_bindings(
    conn: &mut Conn,
    since: i64,
    limit: i64,
) -> DbResult<Vec<(OwnedUserId, Binding)>> {
    let rows = conn.list(&LIST_LEFT_BINDINGS, args![since, limit]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, binding(row, 1)?))).collect()
}

/// Forgets what accounts have left published that were deactivated until `until`.
pub(crate) async fn delete_left_bindings(conn: &mut Conn, until: i64) -> DbResult<()> {
    conn.execute(&DELETE_LEFT_BINDINGS, args![until]).await.map(drop)
}

/// Forgets where an address was published, once the identity server has withdrawn it.
pub(crate) async fn delete_binding(conn: &mut Conn, user_id: &UserId, binding: &Binding) -> DbResult<()> {
    let Binding { medium, address, id_server } = binding;
    conn.execute(&DELETE_BINDING, args![user_id, medium, address, id_server]).await.map(drop)
}

/// The session of an attempt, a new one with this `sid` if there is none since `expiry`. Until the transaction ends
/// nobody else sends a mail for it.
pub(crate) async fn open_session(
    conn: &mut Conn,
    attempt: ValidationKey<'_>,
    sid: &str,
    now: i64,
    expiry: i64,
) -> DbResult<Option<ValidationAttempt>> {
    let ValidationKey { operation, medium, address, secret } = attempt;
    let secret = secret.bytes();
    conn.execute(&DELETE_OLD_SESSION, args![operation, medium, address, secret, expiry]).await?;
    conn.execute(&INSERT_SESSION, args![sid, operation, medium, address, secret, now]).await?;
    let row = conn.find(&LOCK_SENDING, args![operation, medium, address, secret]).await?;
    row.map(|row| Ok(ValidationAttempt { sid: row.get(0)?, send_attempt: row.get(1)?, until_ts: row.get(2)? }))
        .transpose()
}

/// A mail is about to go out, with a token or without. The token of the mail before is good for nothing any more.
///
/// Until `until` nobody else sends one. Should this process die on the way, the mail can be asked for again from then
/// on.
pub(crate) async fn begin_sending(
    conn: &mut Conn,
    sid: &str,
    token: Option<&TokenHash>,
    next_link: Option<&str>,
    now: i64,
    until: i64,
) -> DbResult<()> {
    let token = crate::db::Value::Bytes(token.map(TokenHash::bytes));
    conn.execute(&BEGIN_SENDING, &[sid.into(), until.into(), token, next_link.into(), now.into()]).await.map(drop)
}

/// A mail was taken by the mail server. An attempt that is behind the last one changes nothing.
pub(crate) async fn set_sent(conn: &mut Conn, sid: &str, send_attempt: i64) -> DbResult<()> {
    conn.execute(&SET_SENT, args![sid, send_attempt]).await.map(drop)
}

/// No mail server took the mail: the next request may try again at once.
pub(crate) async fn set_not_sent(conn: &mut Conn, sid: &str) -> DbResult<()> {
    conn.execute(&SET_NOT_SENT, args![sid]).await.map(drop)
}

/// A session by its identifier and the client's secret, expired or not, unless it was used.
pub(crate) async fn find_session(
    conn: &mut Conn,
    sid: &str,
    secret: &TokenHash,
) -> DbResult<Option<ValidationSession>> {
    conn.find(&FIND_THREEPID_SESSION, args![sid, secret.bytes()]).await?.map(|row| session(&row)).transpose()
}

/// A session that was not used, locked: nobody else tries a token until the transaction ends.
pub(crate) async fn lock_session(
    conn: &mut Conn,
    sid: &str,
    secret: &TokenHash,
) -> DbResult<Option<ValidationSession>> {
    conn.find(&LOCK_THREEPID_SESSION, args![sid, secret.bytes()]).await?.map(|row| session(&row)).transpose()
}

/// Somebody tried a token that is wrong.
///
/// In the transaction that has locked the session, or two at once would count as one.
pub(crate) async fn count_failure(conn: &mut Conn, sid: &str) -> DbResult<()> {
    conn.execute(&COUNT_FAILURE, args![sid]).await.map(drop)
}

/// The address is proved. From here on the session expires anew.
pub(crate) async fn set_validated(conn: &mut Conn, sid: &str, now: i64) -> DbResult<()> {
    conn.execute(&SET_VALIDATED, args![sid, now]).await.map(drop)
}

/// The address that was proved for an operation.
pub(crate) async fn find_validated(
    conn: &mut Conn,
    sid: &str,
    operation: &str,
    expiry: i64,
) -> DbResult<Option<(String, String)>> {
    let row = conn.find(&FIND_VALIDATED, args![sid, operation, expiry]).await?;
    row.map(|row| Ok((row.get(0)?, row.get(1)?))).transpose()
}

/// Ends every session in which an address of a user is or was proved to reset their password.
pub(crate) async fn forget_resets(conn: &mut Conn, user_id: &UserId) -> DbResult<()> {
    conn.execute(&FORGET_RESETS, args![user_id]).await.map(drop)
}

/// The address that was proved for an operation, and when; from now on the session is good for nothing.
pub(crate) async fn take_validated(
    conn: &mut Conn,
    sid: &str,
    operation: &str,
    expiry: i64,
    now: i64,
) -> DbResult<Option<(String, String, i64)>> {
    let row = conn.find(&TAKE_VALIDATED, args![sid, operation, expiry, now]).await?;
    row.map(|row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).transpose()
}

/// The address of a session that was used for an operation after `since`.
pub(crate) async fn find_taken(
    conn: &mut Conn,
    sid: &str,
    secret: &TokenHash,
    operation: &str,
    since: i64,
) -> DbResult<Option<String>> {
    conn.find(&FIND_TAKEN, args![sid, secret.bytes(), operation, since]).await?.map(|row| row.get(0)).transpose()
}

/// Waits for the turn to count the mails to an address. To be called before that, with the session locked already.
pub(crate) async fn lock_mailbox(tx: &mut Tx, address: &str) -> DbResult<()> {
    match tx.engine() {
        Engine::Postgres => tx.execute(&LOCK_MAILBOX, args![address]).await.map(drop),
        // Whoever may write there is alone.
        Engine::Sqlite => Ok(()),
    }
}

/// Counts a mail to an address, before it is sent and under [`lock_mailbox`].
pub(crate) async fn insert_mail(conn: &mut Conn, medium: &str, address: &str, now: i64) -> DbResult<()> {
    conn.execute(&INSERT_MAIL, args![medium, address, now]).await.map(drop)
}

/// Forgets a mail that was not taken. To be called with the mailbox locked: of mails of the same time one is chosen.
pub(crate) async fn delete_mail(conn: &mut Conn, medium: &str, address: &str, sent: i64) -> DbResult<()> {
    conn.execute(&DELETE_MAIL, args![medium, address, sent]).await.map(drop)
}

/// How many mails went to an address after `since`, and when the first of them did.
///
/// By that whoever has to wait learns for how long.
pub(crate) async fn count_mails(
    conn: &mut Conn,
    medium: &str,
    address: &str,
    since: i64,
) -> DbResult<(i64, Option<i64>)> {
    let row = conn.find(&COUNT_MAILS, args![medium, address, since]).await?;
    row.map_or(Ok((0, None)), |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Removes the sessions that have not changed since `sessions`, and forgets the mails until `mails`.
pub(crate) async fn delete_old(conn: &mut Conn, sessions: i64, mails: i64) -> DbResult<()> {
    conn.execute(&DELETE_OLD_SESSIONS, args![sessions]).await?;
    conn.execute(&DELETE_OLD_MAILS, args![mails]).await.map(drop)
}

/// From three columns that follow each other.
fn binding(row: &Row, first: usize) -> DbResult<Binding> {
    Ok(Binding { medium: row.get(first)?, address: row.get(first + 1)?, id_server: row.get(first + 2)? })
}

fn session(row: &Row) -> DbResult<ValidationSession> {
    Ok(ValidationSession {
        sid: row.get(0)?,
        operation: row.get(1)?,
        address: row.get(2)?,
        token: TokenHash::read(row, 3)?,
        failures: row.get(4)?,
        next_link: row.get(5)?,
        validated_ts: row.get(6)?,
        changed_ts: row.get(7)?,
    })
}
