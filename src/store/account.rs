//! `accounts`: who lives on this server.
//!
//! A row stays for good, also once its account is deactivated: so nobody else ever gets the name. Whoever changes an
//! account, or what hangs on it, locks its row first.

use ruma::{OwnedUserId, RoomId, UserId};

use crate::db::{Conn, DbResult, Row, args, statements};

// Rows keep since when something is so (`deactivated_ts`, `locked_ts`, `suspended_ts`); NULL where it is not.
statements! {
    ANY_ACCOUNT = "SELECT user_id FROM accounts WHERE user_id <> $1 LIMIT 1";
    INSERT_ACCOUNT = "INSERT INTO accounts
        (user_id, password_hash, admin, guest, rate_limited, created_ts, deactivated_ts, erased)
        VALUES ($1, $2, $3, FALSE, TRUE, $4, NULL, FALSE) ON CONFLICT (user_id) DO NOTHING";
    INSERT_GUEST = "INSERT INTO accounts
        (user_id, password_hash, admin, guest, rate_limited, created_ts, deactivated_ts, erased)
        VALUES ($1, NULL, FALSE, TRUE, TRUE, $2, NULL, FALSE) ON CONFLICT (user_id) DO NOTHING";
    /// A guest becomes a user like any other.
    UPGRADE_GUEST = "UPDATE accounts SET guest = FALSE, password_hash = $2 WHERE user_id = $1 AND guest";
    /// Whoever is or was in a room and is a guest.
    LIST_GUESTS_OF_ROOM = "SELECT a.user_id FROM memberships m JOIN accounts a ON a.user_id = m.user_id
        WHERE m.room_id = $1 AND a.guest ORDER BY a.user_id";
    FIND_ACCOUNT = "SELECT user_id, password_hash, deactivated_ts, admin, guest, locked_ts, suspended_ts FROM accounts
        WHERE user_id = $1";
    LOCK_ACCOUNT = "SELECT user_id, password_hash, deactivated_ts, admin, guest, locked_ts, suspended_ts FROM accounts
        WHERE user_id = $1 FOR UPDATE";
    SET_PASSWORD = "UPDATE accounts SET password_hash = $2 WHERE user_id = $1";
    SET_ADMIN = "UPDATE accounts SET admin = $2 WHERE user_id = $1";
    /// In the order of their ids, after one: `$3` administrators alone, `$4` everybody, else guests or not and
    /// deactivated or not.
    LIST_ACCOUNTS = "SELECT user_id, admin, guest, created_ts, deactivated_ts, locked_ts, suspended_ts,
            (SELECT COUNT(*) FROM devices d WHERE d.user_id = accounts.user_id),
            (SELECT MAX(last_seen_ts) FROM devices d WHERE d.user_id = accounts.user_id)
        FROM accounts
        WHERE user_id > $1 AND (admin OR NOT $3) AND ($4 OR guest = $5) AND ($4 OR (deactivated_ts IS NOT NULL) = $6)
        ORDER BY user_id LIMIT $2";
    DEACTIVATE = "UPDATE accounts SET deactivated_ts = $2 WHERE user_id = $1";
    SET_LOCKED = "UPDATE accounts SET locked_ts = $2 WHERE user_id = $1";
    SET_SUSPENDED = "UPDATE accounts SET suspended_ts = $2 WHERE user_id = $1";
    /// Those who have none any more, and what the others are called and look like.
    LIST_STANDINGS = "SELECT user_id, NULL, NULL FROM accounts
        WHERE user_id IN LIST($1) AND deactivated_ts IS NOT NULL
        UNION ALL SELECT user_id, field, value FROM profiles
        WHERE user_id IN LIST($2) AND field IN ('displayname', 'avatar_url')";
    ERASE = "UPDATE accounts SET erased = TRUE, password_hash = NULL WHERE user_id = $1";
}

/// What decides whether somebody may log in, and what they may do.
#[derive(Clone)]
pub(crate) struct Account {
    pub(crate) user_id: OwnedUserId,
    /// In the PHC string format. None for accounts that nobody logs in to with a password.
    pub(crate) password_hash: Option<String>,
    pub(crate) deactivated: bool,
    pub(crate) admin: bool,
    pub(crate) guest: bool,
    pub(crate) restrictions: Restrictions,
}

/// What administrators have done to an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Restrictions {
    /// It can only log out.
    pub(crate) locked: bool,
    /// It can do little but read.
    pub(crate) suspended: bool,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restriction {
    Locked,
    Suspended,
}

impl Restrictions {
    pub(crate) fn has(self, restriction: Restriction) -> bool {
        match restriction {
            Restriction::Locked => self.locked,
            Restriction::Suspended => self.suspended,
        }
    }

    /// From two columns that follow each other: since when an account is locked, and since when suspended.
    pub(super) fn read(row: &Row, first: usize) -> DbResult<Self> {
        let is_set = |index| Ok(row.get::<Option<i64>>(index)?.is_some());
        Ok(Self { locked: is_set(first)?, suspended: is_set(first + 1)? })
    }
}

/// Whom a list of accounts is to name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccountFilter {
    /// Whoever can use an account and is no guest.
    #[default]
    Users,
    /// Those of them who are administrators.
    Administrators,
    Guests,
    /// Whose account was deactivated, guests left out.
    Deactivated,
    Everybody,
}

/// An account as it stands in a list.
#[derive(Clone, Debug)]
pub(crate) struct AccountRow {
    pub(crate) user_id: OwnedUserId,
    pub(crate) admin: bool,
    pub(crate) guest: bool,
    pub(crate) deactivated: bool,
    pub(crate) restrictions: Restrictions,
    /// Milliseconds since the Unix epoch.
    pub(crate) created_ts: i64,
    pub(crate) sessions: i64,
    /// When the last of these was seen.
    pub(crate) last_seen_ts: Option<i64>,
}

/// The next accounts after one, in the order of their ids.
pub(crate) async fn list(conn: &mut Conn, who: AccountFilter, after: &str, limit: i64) -> DbResult<Vec<AccountRow>> {
    let (admins, everybody) = (who == AccountFilter::Administrators, who == AccountFilter::Everybody);
    let (guests, deactivated) = (who == AccountFilter::Guests, who == AccountFilter::Deactivated);
    let args = args![after, limit, admins, everybody, guests, deactivated];
    conn.list(&LIST_ACCOUNTS, args).await?.iter().map(listed).collect()
}

fn listed(row: &Row) -> DbResult<AccountRow> {
    Ok(AccountRow {
        user_id: row.get(0)?,
        admin: row.get(1)?,
        guest: row.get(2)?,
        created_ts: row.get(3)?,
        deactivated: row.get::<Option<i64>>(4)?.is_some(),
        restrictions: Restrictions::read(row, 5)?,
        sessions: row.get(7)?,
        last_seen_ts: row.get(8)?,
    })
}

/// Adds an account, or says false where the name is taken.
pub(crate) async fn insert(
    conn: &mut Conn,
    user_id: &UserId,
    password_hash: Option<&str>,
    admin: bool,
    now: i64,
) -> DbResult<bool> {
    let rows = conn.execute(&INSERT_ACCOUNT, args![user_id, password_hash, admin, now]).await?;
    Ok(rows == 1)
}

/// Adds a guest's account, or says false where the name is taken.
pub(crate) async fn insert_guest(conn: &mut Conn, user_id: &UserId, now: i64) -> DbResult<bool> {
    Ok(conn.execute(&INSERT_GUEST, args![user_id, now]).await? == 1)
}

/// Makes a full account of a guest's, or says false where it is none.
pub(crate) async fn upgrade_guest(conn: &mut Conn, user_id: &UserId, password_hash: &str) -> DbResult<bool> {
    Ok(conn.execute(&UPGRADE_GUEST, args![user_id, password_hash]).await? == 1)
}

/// The guests who have ever had a membership of a room.
pub(crate) async fn list_guests_of_room(conn: &mut Conn, room_id: &RoomId) -> DbResult<Vec<OwnedUserId>> {
    conn.list(&LIST_GUESTS_OF_ROOM, args![room_id]).await?.iter().map(|row| row.get(0)).collect()
}

/// An account, deactivated or not. What it says may be outdated by the time it is used: see [`lock`].
pub(crate) async fn find(conn: &mut Conn, user_id: &UserId) -> DbResult<Option<Account>> {
    conn.find(&FIND_ACCOUNT, args![user_id]).await?.map(|row| account(&row)).transpose()
}

/// An account, locked: until the transaction ends nobody else logs in, changes the password or deactivates.
pub(crate) async fn lock(conn: &mut Conn, user_id: &UserId) -> DbResult<Option<Account>> {
    conn.find(&LOCK_ACCOUNT, args![user_id]).await?.map(|row| account(&row)).transpose()
}

/// The hash is in the PHC string format.
pub(crate) async fn set_password(conn: &mut Conn, user_id: &UserId, password_hash: &str) -> DbResult<()> {
    conn.execute(&SET_PASSWORD, args![user_id, password_hash]).await.map(drop)
}

/// Makes somebody an administrator, or a member again. Done by the command line alone.
pub(crate) async fn set_admin(conn: &mut Conn, user_id: &UserId, admin: bool) -> DbResult<()> {
    conn.execute(&SET_ADMIN, args![user_id, admin]).await.map(drop)
}

/// Deactivates an account. Its password stays, with which its owner is told what happened to the account.
pub(crate) async fn deactivate(conn: &mut Conn, user_id: &UserId, now: i64) -> DbResult<()> {
    conn.execute(&DEACTIVATE, args![user_id, now]).await.map(drop)
}

/// Restricts an account since a time, or frees it.
pub(crate) async fn restrict(
    conn: &mut Conn,
    user_id: &UserId,
    restriction: Restriction,
    since: Option<i64>,
) -> DbResult<()> {
    let statement = match restriction {
        Restriction::Locked => &SET_LOCKED,
        Restriction::Suspended => &SET_SUSPENDED,
    };
    conn.execute(statement, args![user_id, since]).await.map(drop)
}

/// Which of some users have been deactivated, each once with no field, and the names and pictures of all of them, each
/// with its field and its JSON.
pub(crate) async fn list_standings(
    conn: &mut Conn,
    users: &[&UserId],
) -> DbResult<Vec<(OwnedUserId, Option<(String, serde_json::Value)>)>> {
    let users: Vec<&str> = users.iter().map(|user| user.as_str()).collect();
    let standing = |row: &Row| -> DbResult<_> {
        let named = match row.get(1)? {
            Some(field) => Some((field, row.json(2)?)),
            None => None,
        };
        Ok((row.get(0)?, named))
    };
    conn.list(&LIST_STANDINGS, args![&users, &users]).await?.iter().map(standing).collect()
}

/// Notes that what somebody has sent is to be hidden from who joins later, and takes away their password.
pub(crate) async fn erase(conn: &mut Conn, user_id: &UserId) -> DbResult<()> {
    conn.execute(&ERASE, args![user_id]).await.map(drop)
}

fn account(row: &Row) -> DbResult<Account> {
    let deactivated_ts: Option<i64> = row.get(2)?;
    Ok(Account {
        user_id: row.get(0)?,
        password_hash: row.get(1)?,
        deactivated: deactivated_ts.is_some(),
        admin: row.get(3)?,
        guest: row.get(4)?,
        restrictions: Restrictions::read(row, 5)?,
    })
}

/// Whether there is any account but `except`.
pub(crate) async fn any(conn: &mut Conn, except: Option<&UserId>) -> DbResult<bool> {
    Ok(conn.find(&ANY_ACCOUNT, args![except.map_or("", UserId::as_str)]).await?.is_some())
}
