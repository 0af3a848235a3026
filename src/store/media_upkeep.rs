//! What tidies the tables of media reads and writes beside what is asked of each: quarantine of many at once, and what is
//! encrypted with an old master key.

use ruma::{RoomId, ServerName, UserId};

use super::{
    media_object::{self, StoredObject},
    media_thumbnail::{self, PlacedThumbnail},
};
use crate::{
    db::{Conn, DbResult, Tx, args, statements},
    ground::digest::Digest,
};

statements! {
    /// Also of what is not here: the row keeps it from coming.
    QUARANTINE_ANY_MEDIA = "INSERT INTO media
            (server_name, media_id, origin, bytes, created_at, used_at, quarantined_by, quarantined_at)
        VALUES ($1, $2, 'remote', 0, $4, $4, $3, $4) ON CONFLICT (server_name, media_id) DO UPDATE
        SET quarantined_by = excluded.quarantined_by, quarantined_at = excluded.quarantined_at
        WHERE media.quarantined_by IS NULL";
    QUARANTINE_MEDIA = "UPDATE media SET quarantined_by = $3, quarantined_at = $4
        WHERE server_name = $1 AND media_id = $2 AND quarantined_by IS NULL";
    /// What only kept something away goes.
    DELETE_QUARANTINED_BY = "DELETE FROM media WHERE digest IS NULL AND expires_at IS NULL
            AND (server_name, media_id) IN
                (SELECT server_name, media_id FROM media WHERE quarantined_by = $1
                    AND digest IS NULL AND expires_at IS NULL LIMIT $2)"
        | "WITH lifted AS (SELECT server_name, media_id FROM media WHERE quarantined_by = $1
                AND digest IS NULL AND expires_at IS NULL
            ORDER BY server_name COLLATE \"C\", media_id COLLATE \"C\" LIMIT $2 FOR UPDATE)
        DELETE FROM media m USING lifted WHERE m.server_name = lifted.server_name AND m.media_id = lifted.media_id";
    /// Locked in the order of bytes on PostgreSQL, as by all who lock several.
    LIFT_QUARANTINED_BY = "UPDATE media SET quarantined_by = NULL, quarantined_at = NULL
        WHERE (server_name, media_id) IN
            (SELECT server_name, media_id FROM media WHERE quarantined_by = $1
                AND (digest IS NOT NULL OR expires_at IS NOT NULL) LIMIT $2)"
        | "WITH lifted AS (SELECT server_name, media_id FROM media WHERE quarantined_by = $1
                AND (digest IS NOT NULL OR expires_at IS NOT NULL)
            ORDER BY server_name COLLATE \"C\", media_id COLLATE \"C\" LIMIT $2 FOR UPDATE)
        UPDATE media m SET quarantined_by = NULL, quarantined_at = NULL FROM lifted
        WHERE m.server_name = lifted.server_name AND m.media_id = lifted.media_id";
    DELETE_QUARANTINED = "DELETE FROM media WHERE server_name = $1 AND media_id = $2 AND quarantined_by IS NOT NULL
            AND digest IS NULL AND expires_at IS NULL";
    LIFT_QUARANTINED = "UPDATE media SET quarantined_by = NULL, quarantined_at = NULL
        WHERE server_name = $1 AND media_id = $2 AND quarantined_by IS NOT NULL";
    SUM_MEDIA_OF_DIGEST = "SELECT COUNT(*), CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM media WHERE digest = $1";
    SUM_MEDIA_UPLOADED_BY = "SELECT COUNT(*), CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM media
        WHERE user_id = $1 AND digest IS NOT NULL";
    SUM_MEDIA_OF_SERVER = "SELECT COUNT(*), CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM media
        WHERE server_name = $1 AND digest IS NOT NULL";
    /// Whatever their standing. The JSON of those that may name media.
    PAGE_OF_EVENTS_WITH_MEDIA = "SELECT room_order, position, CASE WHEN json LIKE '%mxc:%' THEN json END FROM events
        WHERE room_id = $1 AND (room_order, position) > ($2, $3) ORDER BY room_order, position LIMIT $4";
    FIND_MEDIA_OF_DIGEST = "SELECT server_name, media_id FROM media WHERE digest = $1
        ORDER BY server_name, media_id LIMIT 1";
    PAGE_OF_OLD_SEALED_OBJECTS = "SELECT digest, bytes, store, location, key_id, sealed_key, sniffed_type, scanned_at
        FROM media_objects WHERE key_id <> $1 AND digest > $2 ORDER BY digest LIMIT $3";
    PAGE_OF_OLD_SEALED_THUMBNAILS = "SELECT store, location, key_id, sealed_key, bytes, content_type, failure, digest,
            variant
        FROM media_thumbnails WHERE key_id <> $1 AND store IS NOT NULL AND (digest, variant) > ($2, $3)
        ORDER BY digest, variant LIMIT $4";
}

/// How many media there are of something, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MediaSum {
    pub(crate) media: i64,
    pub(crate) bytes: i64,
}

/// An event on the way through a room.
pub(crate) struct WalkedEvent {
    /// Where to go on after it.
    pub(crate) place: (i64, i64),
    /// None where it names no media.
    pub(crate) json: Option<String>,
}

/// Quarantines media, unless they are already, and says whether it did. `is_ours`: they are this server's own, of which
/// nothing comes that is not here; of those of others, a row keeps away what has not come yet.
pub(crate) async fn quarantine(
    tx: &mut Tx,
    (server_name, media_id): (&str, &str),
    by: &str,
    is_ours: bool,
    now: i64,
) -> DbResult<bool> {
    let statement = if is_ours { &QUARANTINE_MEDIA } else { &QUARANTINE_ANY_MEDIA };
    Ok(tx.execute(statement, args![server_name, media_id, by, now]).await? == 1)
}

/// Lifts the quarantine of media, whatever it is for. Says false where there is none.
pub(crate) async fn lift(tx: &mut Tx, (server_name, media_id): (&str, &str)) -> DbResult<bool> {
    let deleted = tx.execute(&DELETE_QUARANTINED, args![server_name, media_id]).await?;
    Ok(deleted + tx.execute(&LIFT_QUARANTINED, args![server_name, media_id]).await? == 1)
}

/// Lifts the quarantine of so many media that are quarantined for one reason, and returns how many there were.
pub(crate) async fn lift_some(tx: &mut Tx, by: &str, limit: i64) -> DbResult<u64> {
    let deleted = tx.execute(&DELETE_QUARANTINED_BY, args![by, limit]).await?;
    Ok(deleted + tx.execute(&LIFT_QUARANTINED_BY, args![by, limit]).await?)
}

/// How many media have these bytes.
pub(crate) async fn sum_of_digest(conn: &mut Conn, digest: &Digest) -> DbResult<MediaSum> {
    let row = conn.find(&SUM_MEDIA_OF_DIGEST, args![&digest.to_string()]).await?;
    row.map_or(Ok(MediaSum::default()), |row| Ok(MediaSum { media: row.get(0)?, bytes: row.get(1)? }))
}

/// How many media a user has uploaded.
pub(crate) async fn sum_of_user(conn: &mut Conn, user_id: &UserId) -> DbResult<MediaSum> {
    let row = conn.find(&SUM_MEDIA_UPLOADED_BY, args![user_id]).await?;
    row.map_or(Ok(MediaSum::default()), |row| Ok(MediaSum { media: row.get(0)?, bytes: row.get(1)? }))
}

/// How many media of a server are here.
pub(crate) async fn sum_of_server(conn: &mut Conn, server_name: &ServerName) -> DbResult<MediaSum> {
    let row = conn.find(&SUM_MEDIA_OF_SERVER, args![server_name.as_str()]).await?;
    row.map_or(Ok(MediaSum::default()), |row| Ok(MediaSum { media: row.get(0)?, bytes: row.get(1)? }))
}

/// The next events of a room after one.
pub(crate) async fn walk(
    conn: &mut Conn,
    room_id: &RoomId,
    after: (i64, i64),
    limit: i64,
) -> DbResult<Vec<WalkedEvent>> {
    let rows = conn.list(&PAGE_OF_EVENTS_WITH_MEDIA, args![room_id, after.0, after.1, limit]).await?;
    rows.iter().map(|row| Ok(WalkedEvent { place: (row.get(0)?, row.get(1)?), json: row.get(2)? })).collect()
}

/// Some media that have these bytes: server name and media id.
pub(crate) async fn find_of_digest(conn: &mut Conn, digest: &Digest) -> DbResult<Option<(String, String)>> {
    let row = conn.find(&FIND_MEDIA_OF_DIGEST, args![&digest.to_string()]).await?;
    row.map(|row| Ok((row.get(0)?, row.get(1)?))).transpose()
}

/// Objects whose keys are sealed with another master key than this one, in the order of their digests, after one.
pub(crate) async fn page_of_old_objects(
    conn: &mut Conn,
    key_id: &str,
    after: &str,
    limit: i64,
) -> DbResult<Vec<StoredObject>> {
    let rows = conn.list(&PAGE_OF_OLD_SEALED_OBJECTS, args![key_id, after, limit]).await?;
    rows.iter().map(media_object::object).collect()
}

/// As [`page_of_old_objects`], of thumbnails, after a digest and a variant.
pub(crate) async fn page_of_old_thumbnails(
    conn: &mut Conn,
    key_id: &str,
    after: (&str, &str),
    limit: i64,
) -> DbResult<Vec<PlacedThumbnail>> {
    let rows = conn.list(&PAGE_OF_OLD_SEALED_THUMBNAILS, args![key_id, after.0, after.1, limit]).await?;
    rows.iter().map(media_thumbnail::placed).collect()
}
