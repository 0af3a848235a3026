//! `errands`: what is left for a running node to do, by the command line or as what follows from a change of an
//! account.

use ruma::{OwnedUserId, UserId};

use crate::{
    db::{Conn, DbResult, Row, args, statements},
    ground::random::Random,
};

statements! {
    INSERT_ERRAND = "INSERT INTO errands (errand_id, user_id, kind, body, created_ts) VALUES ($1, $2, $3, $4, $5)";
    /// For everybody who can be reached.
    INSERT_ERRAND_FOR_ALL = "INSERT INTO errands (errand_id, user_id, kind, body, created_ts)
        SELECT CAST($1 AS TEXT), user_id, CAST($2 AS TEXT), CAST($3 AS TEXT), CAST($4 AS BIGINT) FROM accounts
        WHERE deactivated_ts IS NULL AND NOT guest AND user_id <> $5";
    LIST_ERRANDS = "SELECT errand_id, user_id, body FROM errands WHERE kind = $1
        ORDER BY created_ts, errand_id, user_id LIMIT $2";
    FIND_ERRAND_FOR_USER = "SELECT errand_id FROM errands WHERE kind = $1 AND user_id = $2 LIMIT 1";
    DELETE_ERRAND = "DELETE FROM errands WHERE errand_id = $1 AND user_id = $2";
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrandKind {
    /// Has every node look an account up again.
    Account,
    /// Sending a server notice.
    Notice,
    /// Taking somebody out of every room.
    Departure,
    /// Having somebody's rooms say what they are called and look like.
    Profile,
    /// Writing to the owner of an account what has happened to it.
    Mail,
}

impl ErrandKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Notice => "notice",
            Self::Departure => "departure",
            Self::Profile => "profile",
            Self::Mail => "mail",
        }
    }
}

/// One errand, as far as it concerns one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Errand {
    /// One for everybody whom the errand concerns.
    pub(crate) id: String,
    pub(crate) user_id: OwnedUserId,
    /// The text of a notice, what a mail is about, or which keys have ended with a change of an account. None for the other
    /// kinds.
    pub(crate) body: Option<String>,
}

/// In characters.
const ID_LENGTH: usize = 16;

/// Leaves an errand under a new identifier, in the transaction from which it follows.
pub(crate) async fn leave(
    conn: &mut Conn,
    random: &Random,
    kind: ErrandKind,
    (user_id, body): (&UserId, Option<String>),
    now: i64,
) -> DbResult<Errand> {
    let errand = Errand { id: random.token(ID_LENGTH), user_id: user_id.to_owned(), body };
    insert(conn, kind, &errand, now).await?;
    Ok(errand)
}

/// Leaves an errand, in the transaction from which it follows. `now` decides whose turn comes first.
pub(crate) async fn insert(conn: &mut Conn, kind: ErrandKind, errand: &Errand, now: i64) -> DbResult<()> {
    let Errand { id, user_id, body } = errand;
    conn.execute(&INSERT_ERRAND, args![id, user_id, kind.as_str(), body, now]).await.map(drop)
}

/// One errand for each user of this server but `except`, guests left out. Returns how many that are.
pub(crate) async fn insert_for_all(
    conn: &mut Conn,
    kind: ErrandKind,
    id: &str,
    body: &str,
    except: &UserId,
    now: i64,
) -> DbResult<u64> {
    conn.execute(&INSERT_ERRAND_FOR_ALL, args![id, kind.as_str(), body, now, except]).await
}

/// The oldest errands of a kind, oldest first.
pub(crate) async fn list(conn: &mut Conn, kind: ErrandKind, limit: i64) -> DbResult<Vec<Errand>> {
    conn.list(&LIST_ERRANDS, args![kind.as_str(), limit]).await?.iter().map(errand).collect()
}

/// Whether something of this kind is still to be done for a user.
pub(crate) async fn is_left(conn: &mut Conn, kind: ErrandKind, user_id: &UserId) -> DbResult<bool> {
    Ok(conn.find(&FIND_ERRAND_FOR_USER, args![kind.as_str(), user_id]).await?.is_some())
}

/// It is done.
pub(crate) async fn delete(conn: &mut Conn, errand: &Errand) -> DbResult<()> {
    conn.execute(&DELETE_ERRAND, args![&errand.id, &errand.user_id]).await.map(drop)
}

fn errand(row: &Row) -> DbResult<Errand> {
    Ok(Errand { id: row.get(0)?, user_id: row.get(1)?, body: row.get(2)? })
}
