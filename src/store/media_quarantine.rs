//! `media_quarantines`: what nobody may have, also where it comes in again.

use ruma::UserId;

use crate::{
    db::{Conn, DbError, DbResult, args, statements},
    ground::digest::Digest,
};

statements! {
    FIND_QUARANTINE = "SELECT created_at FROM media_quarantines WHERE kind = $1 AND name = $2";
    LIST_QUARANTINES_OF_UPLOAD = "SELECT kind FROM media_quarantines WHERE kind = 'user' AND name = $1
        UNION ALL SELECT kind FROM media_quarantines WHERE kind = 'digest' AND name = $2";
    INSERT_QUARANTINE = "INSERT INTO media_quarantines (kind, name, created_at) VALUES ($1, $2, $3)
        ON CONFLICT (kind, name) DO NOTHING";
    DELETE_QUARANTINE = "DELETE FROM media_quarantines WHERE kind = $1 AND name = $2";
    PAGE_OF_QUARANTINES = "SELECT kind, name, created_at FROM media_quarantines WHERE (kind, name) > ($1, $2)
        ORDER BY kind, name LIMIT $3";
}

/// By what something is quarantined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QuarantineKind {
    /// Whatever has these bytes. Its name is a digest in hexadecimal digits, small ones.
    Digest,
    /// Whatever a user of this server has uploaded, or will.
    User,
    /// Whatever comes from a server.
    Server,
}

impl QuarantineKind {
    /// As rows have it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Digest => "digest",
            Self::User => "user",
            Self::Server => "server",
        }
    }

    fn parse(text: &str) -> DbResult<Self> {
        match text {
            "digest" => Ok(Self::Digest),
            "user" => Ok(Self::User),
            "server" => Ok(Self::Server),
            _ => Err(DbError::decode("a quarantine of no known kind")),
        }
    }
}

/// Whether somebody or something is quarantined.
pub(crate) async fn is_quarantined(conn: &mut Conn, kind: QuarantineKind, name: &str) -> DbResult<bool> {
    Ok(conn.find(&FIND_QUARANTINE, args![kind.as_str(), name]).await?.is_some())
}

/// Why a user may not upload something, if so.
pub(crate) async fn find_of_upload(
    conn: &mut Conn,
    user_id: &UserId,
    digest: &Digest,
) -> DbResult<Option<QuarantineKind>> {
    let rows = conn.list(&LIST_QUARANTINES_OF_UPLOAD, args![user_id, &digest.to_string()]).await?;
    rows.first().map(|row| QuarantineKind::parse(&row.get::<String>(0)?)).transpose()
}

/// Says false where it was there.
pub(crate) async fn insert(conn: &mut Conn, kind: QuarantineKind, name: &str, now: i64) -> DbResult<bool> {
    Ok(conn.execute(&INSERT_QUARANTINE, args![kind.as_str(), name, now]).await? == 1)
}

/// Says false where it was not there.
pub(crate) async fn delete(conn: &mut Conn, kind: QuarantineKind, name: &str) -> DbResult<bool> {
    Ok(conn.execute(&DELETE_QUARANTINE, args![kind.as_str(), name]).await? == 1)
}

/// The next quarantines after a kind and a name, as they are in the rows, with when each was made. Both are empty to begin
/// with.
pub(crate) async fn page(
    conn: &mut Conn,
    after: (&str, &str),
    limit: i64,
) -> DbResult<Vec<(QuarantineKind, String, i64)>> {
    let rows = conn.list(&PAGE_OF_QUARANTINES, args![after.0, after.1, limit]).await?;
    rows.iter().map(|row| Ok((QuarantineKind::parse(&row.get::<String>(0)?)?, row.get(1)?, row.get(2)?))).collect()
}
