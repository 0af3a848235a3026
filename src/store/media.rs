//! `media`: what `mxc:` URIs name, whose it is, and what has been uploaded to them.
//!
//! Who may have something follows from its row and from `media_quarantines`, both read in one statement each time.

use ruma::{OwnedServerName, OwnedUserId, UserId};

use super::media_object::{self, StoredObject};
use crate::{
    db::{Conn, DbError, DbResult, Row, Tx, args, statements},
    ground::digest::Digest,
};

statements! {
    FIND_MEDIA = "SELECT o.digest, o.bytes, o.store, o.location, o.key_id, o.sealed_key, o.sniffed_type, o.scanned_at,
            m.origin, m.user_id, m.bytes, m.content_type, m.file_name, m.created_at, m.expires_at, m.used_at,
            m.quarantined_by IS NOT NULL
                OR EXISTS (SELECT 1 FROM media_quarantines q WHERE q.kind = 'digest' AND q.name = m.digest)
                OR EXISTS (SELECT 1 FROM media_quarantines q WHERE q.kind = 'user' AND q.name = m.user_id)
                OR EXISTS (SELECT 1 FROM media_quarantines q WHERE q.kind = 'server' AND q.name = m.server_name)
        FROM media m LEFT JOIN media_objects o ON o.digest = m.digest
        WHERE m.server_name = $1 AND m.media_id = $2";
    INSERT_MEDIA = "INSERT INTO media
        (server_name, media_id, origin, user_id, digest, bytes, content_type, file_name, created_at, used_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9) ON CONFLICT (server_name, media_id) DO NOTHING";
    INSERT_PENDING_MEDIA = "INSERT INTO media
        (server_name, media_id, origin, user_id, bytes, created_at, expires_at, used_at)
        VALUES ($1, $2, 'upload', $3, 0, $4, $5, $4) ON CONFLICT (server_name, media_id) DO NOTHING";
    FILL_PENDING_MEDIA = "UPDATE media
        SET digest = $5, bytes = $6, content_type = $7, file_name = $8, created_at = $4, used_at = $4, expires_at = NULL
        WHERE server_name = $1 AND media_id = $2 AND user_id = $3 AND digest IS NULL AND expires_at > $4";
    COUNT_PENDING_MEDIA = "SELECT COUNT(*), MIN(expires_at) FROM media
        WHERE user_id = $1 AND digest IS NULL AND expires_at > $2";
    DELETE_EXPIRED_MEDIA = "DELETE FROM media WHERE digest IS NULL AND expires_at <= $1";
    DELETE_MEDIA = "DELETE FROM media WHERE server_name = $1 AND media_id = $2 RETURNING digest";
    /// Unless it was asked for meanwhile, or quarantined.
    DELETE_UNUSED_MEDIA = "DELETE FROM media WHERE server_name = $1 AND media_id = $2 AND used_at <= $3
            AND quarantined_by IS NULL RETURNING digest";
    FIND_NAMED = "SELECT media_id FROM media WHERE digest = $1 LIMIT 1";
    SUM_MEDIA_OF_USER = "SELECT CAST(COALESCE(SUM(CASE WHEN created_at > $2 THEN bytes ELSE 0 END), 0) AS BIGINT),
            CAST(COALESCE(SUM(bytes), 0) AS BIGINT), COUNT(*)
        FROM media WHERE user_id = $1";
    SUM_MEDIA_SINCE = "SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM media
        WHERE created_at > $1 AND user_id IS NOT NULL";
    SUM_MEDIA_BY_ORIGIN = "SELECT origin, COUNT(*), CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM media
        WHERE digest IS NOT NULL GROUP BY origin ORDER BY origin";
    SUM_MEDIA_OF_ORIGIN = "SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM media WHERE origin = $1";
    SUM_MEDIA_BY_USER = "SELECT user_id, COUNT(*), CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM media
        WHERE user_id IS NOT NULL AND digest IS NOT NULL GROUP BY user_id ORDER BY 3 DESC, user_id LIMIT $1";
    /// Locked in the order of bytes on PostgreSQL, as by all who lock several: two nodes may note uses of the same media at
    /// once, and an operator may put them under quarantine.
    SET_MEDIA_USED = "UPDATE media SET used_at = $2 WHERE used_at < $2
            AND (server_name, media_id) IN (SELECT value ->> 0, value ->> 1 FROM json_each($1))"
        | "WITH used AS (SELECT m.server_name, m.media_id FROM json_array_elements($1::text::json) AS asked (value)
            JOIN media m ON m.server_name = asked.value ->> 0 AND m.media_id = asked.value ->> 1
            WHERE m.used_at < $2 ORDER BY m.server_name COLLATE \"C\", m.media_id COLLATE \"C\" FOR UPDATE OF m)
        UPDATE media m SET used_at = $2 FROM used WHERE m.server_name = used.server_name AND m.media_id = used.media_id";
    LIST_UNUSED_MEDIA = "SELECT server_name, media_id, used_at, bytes FROM media
        WHERE origin = $1 AND used_at < $2 AND digest IS NOT NULL AND quarantined_by IS NULL
        ORDER BY used_at LIMIT $3";
    PAGE_OF_MEDIA = "SELECT server_name, media_id, origin, user_id, digest, bytes, content_type, file_name, created_at,
            used_at, quarantined_by
        FROM media WHERE (server_name, media_id) > ($1, $2) AND server_name = COALESCE($4, server_name)
            AND (CAST($5 AS TEXT) IS NULL OR user_id = $5) AND (CAST($6 AS TEXT) IS NULL OR digest = $6)
            AND (quarantined_by IS NOT NULL OR NOT $7)
        ORDER BY server_name, media_id LIMIT $3";
}

/// How something came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A user of this server has uploaded it, or will.
    Upload,
    /// A page shows it that this server has looked at.
    Preview,
    /// It is another server's.
    Remote,
}

impl Origin {
    /// As rows have it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Preview => "preview",
            Self::Remote => "remote",
        }
    }

    fn parse(text: &str) -> DbResult<Self> {
        match text {
            "upload" => Ok(Self::Upload),
            "preview" => Ok(Self::Preview),
            "remote" => Ok(Self::Remote),
            _ => Err(DbError::decode("media of no known origin")),
        }
    }
}

/// What there is of a URI.
#[derive(Clone, Debug)]
pub(crate) struct MediaRow {
    pub(crate) origin: Origin,
    pub(crate) user_id: Option<OwnedUserId>,
    pub(crate) content_type: Option<String>,
    pub(crate) file_name: Option<String>,
    pub(crate) created_at: i64,
    /// Set as long as nothing was uploaded.
    pub(crate) expires_at: Option<i64>,
    pub(crate) used_at: i64,
    /// Whether nobody may have it, for whatever reason.
    pub(crate) quarantined: bool,
    /// None as long as nothing was uploaded.
    pub(crate) object: Option<StoredObject>,
}

/// What is said of bytes that come in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewMedia<'a> {
    pub(crate) server_name: &'a str,
    pub(crate) media_id: &'a str,
    pub(crate) origin: Origin,
    /// Who has uploaded it here.
    pub(crate) user_id: Option<&'a UserId>,
    pub(crate) digest: &'a Digest,
    pub(crate) bytes: u64,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) file_name: Option<&'a str>,
    pub(crate) now: i64,
}

/// How many bytes somebody has, and how many of them are new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MediaUsage {
    pub(crate) recent_bytes: i64,
    pub(crate) bytes: i64,
    pub(crate) count: i64,
}

/// What is left of media that were deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeletedMedia {
    /// None where nothing had been uploaded.
    pub(crate) digest: Option<Digest>,
}

/// One row of a list for administrators.
#[derive(Clone, Debug)]
pub(crate) struct ListedMedia {
    pub(crate) server_name: OwnedServerName,
    pub(crate) media_id: String,
    pub(crate) origin: Origin,
    pub(crate) user_id: Option<OwnedUserId>,
    pub(crate) digest: Option<String>,
    pub(crate) bytes: i64,
    pub(crate) content_type: Option<String>,
    pub(crate) file_name: Option<String>,
    pub(crate) created_at: i64,
    pub(crate) used_at: i64,
    pub(crate) quarantined_by: Option<String>,
}

/// Which media a list is to have: those for which all holds that is set.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MediaSelection<'a> {
    pub(crate) server_name: Option<&'a str>,
    pub(crate) user_id: Option<&'a str>,
    pub(crate) digest: Option<&'a str>,
    /// Those that are quarantined by themselves, not by user, server or digest.
    pub(crate) quarantined: bool,
}

pub(crate) async fn find(conn: &mut Conn, server_name: &str, media_id: &str) -> DbResult<Option<MediaRow>> {
    let Some(row) = conn.find(&FIND_MEDIA, args![server_name, media_id]).await? else { return Ok(None) };
    Ok(Some(MediaRow {
        object: media_object::read(&row, 0)?,
        origin: Origin::parse(&row.get::<String>(8)?)?,
        user_id: row.get(9)?,
        content_type: row.get(11)?,
        file_name: row.get(12)?,
        created_at: row.get(13)?,
        expires_at: row.get(14)?,
        used_at: row.get(15)?,
        quarantined: row.get(16)?,
    }))
}

/// Adds media whose object's row is locked. Says false where the URI names something already.
pub(crate) async fn insert(tx: &mut Tx, media: &NewMedia<'_>) -> DbResult<bool> {
    let NewMedia { server_name, media_id, origin, user_id, digest, bytes, content_type, file_name, now } = *media;
    let (digest, bytes) = (digest.to_string(), i64::try_from(bytes).map_err(DbError::decode)?);
    let (origin, user_id) = (origin.as_str(), user_id.map(UserId::as_str));
    let args = args![server_name, media_id, origin, user_id, &digest, bytes, content_type, file_name, now];
    Ok(tx.execute(&INSERT_MEDIA, args).await? == 1)
}

/// Adds a URI to which something can be uploaded until it expires.
pub(crate) async fn insert_pending(
    tx: &mut Tx,
    (server_name, media_id): (&str, &str),
    user_id: &UserId,
    now: i64,
    expires_at: i64,
) -> DbResult<bool> {
    let args = args![server_name, media_id, user_id, now, expires_at];
    Ok(tx.execute(&INSERT_PENDING_MEDIA, args).await? == 1)
}

/// As [`insert`], for a URI that its user has made before. Says false where that is gone or names something already.
pub(crate) async fn fill_pending(tx: &mut Tx, media: &NewMedia<'_>) -> DbResult<bool> {
    let NewMedia { server_name, media_id, user_id, digest, bytes, content_type, file_name, now, .. } = *media;
    let (digest, bytes) = (digest.to_string(), i64::try_from(bytes).map_err(DbError::decode)?);
    let user_id = user_id.map(UserId::as_str);
    let args = args![server_name, media_id, user_id, now, &digest, bytes, content_type, file_name];
    Ok(tx.execute(&FILL_PENDING_MEDIA, args).await? == 1)
}

/// How many URIs a user has to which nothing was uploaded yet, and when the first of them expires.
pub(crate) async fn count_pending(conn: &mut Conn, user_id: &UserId, now: i64) -> DbResult<(i64, Option<i64>)> {
    let Some(row) = conn.find(&COUNT_PENDING_MEDIA, args![user_id, now]).await? else { return Ok((0, None)) };
    Ok((row.get(0)?, row.get(1)?))
}

/// Removes URIs to which nothing was uploaded in time.
pub(crate) async fn delete_expired(conn: &mut Conn, now: i64) -> DbResult<u64> {
    conn.execute(&DELETE_EXPIRED_MEDIA, args![now]).await
}

/// Deletes what a URI names. None where there is nothing.
pub(crate) async fn delete(tx: &mut Tx, server_name: &str, media_id: &str) -> DbResult<Option<DeletedMedia>> {
    tx.find(&DELETE_MEDIA, args![server_name, media_id]).await?.map(|row| deleted(&row)).transpose()
}

/// As [`delete`], unless it was used after a time or is quarantined.
pub(crate) async fn delete_unused(
    tx: &mut Tx,
    (server_name, media_id): (&str, &str),
    used_at: i64,
) -> DbResult<Option<DeletedMedia>> {
    let found = tx.find(&DELETE_UNUSED_MEDIA, args![server_name, media_id, used_at]).await?;
    found.map(|row| deleted(&row)).transpose()
}

/// Whether any media are made of these bytes.
pub(crate) async fn is_named(tx: &mut Tx, digest: &Digest) -> DbResult<bool> {
    Ok(tx.find(&FIND_NAMED, args![&digest.to_string()]).await?.is_some())
}

/// What a user has, and of that what is newer than a time.
pub(crate) async fn usage_of_user(conn: &mut Conn, user_id: &UserId, since: i64) -> DbResult<MediaUsage> {
    let Some(row) = conn.find(&SUM_MEDIA_OF_USER, args![user_id, since]).await? else {
        return Ok(MediaUsage::default());
    };
    Ok(MediaUsage { recent_bytes: row.get(0)?, bytes: row.get(1)?, count: row.get(2)? })
}

/// How many bytes users have uploaded since.
pub(crate) async fn bytes_since(conn: &mut Conn, since: i64) -> DbResult<i64> {
    conn.find(&SUM_MEDIA_SINCE, args![since]).await?.map_or(Ok(0), |row| row.get(0))
}

/// How many media of each origin there are, and their bytes.
pub(crate) async fn usage_by_origin(conn: &mut Conn) -> DbResult<Vec<(Origin, i64, i64)>> {
    let rows = conn.list(&SUM_MEDIA_BY_ORIGIN, args![]).await?;
    rows.iter().map(|row| Ok((Origin::parse(&row.get::<String>(0)?)?, row.get(1)?, row.get(2)?))).collect()
}

/// The bytes of media of one origin.
pub(crate) async fn bytes_of_origin(conn: &mut Conn, origin: Origin) -> DbResult<i64> {
    conn.find(&SUM_MEDIA_OF_ORIGIN, args![origin.as_str()]).await?.map_or(Ok(0), |row| row.get(0))
}

/// Who has most: users with how many media they have and how many bytes those are.
pub(crate) async fn usage_by_user(conn: &mut Conn, limit: i64) -> DbResult<Vec<(OwnedUserId, i64, i64)>> {
    let rows = conn.list(&SUM_MEDIA_BY_USER, args![limit]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).collect()
}

/// Notes that somebody has asked for these media, each a pair of server name and media id.
pub(crate) async fn set_used(conn: &mut Conn, media: &[(&str, &str)], at: i64) -> DbResult<()> {
    let media = serde_json::json!(media).to_string();
    conn.execute(&SET_MEDIA_USED, args![&media, at]).await.map(drop)
}

/// Media of an origin that nobody has asked for since a time, longest ago first: server name, media id, when somebody last
/// did, and bytes.
pub(crate) async fn list_unused(
    conn: &mut Conn,
    origin: Origin,
    before: i64,
    limit: i64,
) -> DbResult<Vec<(OwnedServerName, String, i64, i64)>> {
    let rows = conn.list(&LIST_UNUSED_MEDIA, args![origin.as_str(), before, limit]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).collect()
}

/// The next media after a server's name and a media id, in the order of both. Both are empty to begin with.
pub(crate) async fn page(
    conn: &mut Conn,
    which: MediaSelection<'_>,
    after: (&str, &str),
    limit: i64,
) -> DbResult<Vec<ListedMedia>> {
    let MediaSelection { server_name, user_id, digest, quarantined } = which;
    let args = args![after.0, after.1, limit, server_name, user_id, digest, quarantined];
    conn.list(&PAGE_OF_MEDIA, args).await?.iter().map(listed).collect()
}

fn listed(row: &Row) -> DbResult<ListedMedia> {
    Ok(ListedMedia {
        server_name: row.get(0)?,
        media_id: row.get(1)?,
        origin: Origin::parse(&row.get::<String>(2)?)?,
        user_id: row.get(3)?,
        digest: row.get(4)?,
        bytes: row.get(5)?,
        content_type: row.get(6)?,
        file_name: row.get(7)?,
        created_at: row.get(8)?,
        used_at: row.get(9)?,
        quarantined_by: row.get(10)?,
    })
}

fn deleted(row: &Row) -> DbResult<DeletedMedia> {
    let digest = row.get::<Option<String>>(0)?.map(|text| media_object::digest(&text)).transpose()?;
    Ok(DeletedMedia { digest })
}
