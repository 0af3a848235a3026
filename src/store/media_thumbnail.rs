//! `media_thumbnails`: smaller pictures of what objects show, and why of some there are none.
//!
//! Written with the object's row locked ([`super::media_object::lock`]), with which they go.

use super::media_object::StoredPlace;
use crate::{
    db::{Conn, DbError, DbResult, Row, Tx, args, statements},
    ground::digest::Digest,
};

statements! {
    FIND_THUMBNAIL = "SELECT store, location, key_id, sealed_key, bytes, content_type, failure FROM media_thumbnails
        WHERE digest = $1 AND variant = $2";
    INSERT_THUMBNAIL = "INSERT INTO media_thumbnails
        (digest, variant, bytes, store, location, key_id, sealed_key, content_type, failure, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (digest, variant) DO NOTHING";
    DELETE_THUMBNAIL = "DELETE FROM media_thumbnails WHERE digest = $1 AND variant = $2
        RETURNING store, location, key_id, sealed_key";
    DELETE_THUMBNAILS = "DELETE FROM media_thumbnails WHERE digest = $1
        RETURNING store, location, key_id, sealed_key";
    MOVE_THUMBNAIL = "UPDATE media_thumbnails SET store = $5, location = $6, key_id = $7, sealed_key = $8
        WHERE digest = $1 AND variant = $2 AND store = $3 AND location = $4";
    PAGE_OF_THUMBNAILS = "SELECT store, location, key_id, sealed_key, bytes, content_type, failure, digest, variant
        FROM media_thumbnails WHERE store = $1 AND (digest, variant) > ($2, $3) ORDER BY digest, variant LIMIT $4";
    SUM_THUMBNAILS = "SELECT COUNT(*), CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM media_thumbnails
        WHERE store IS NOT NULL";
}

/// What came of making a thumbnail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoredThumbnail {
    Made {
        place: StoredPlace,
        bytes: u64,
        content_type: String,
    },
    /// There is none, and why.
    Failed(String),
}

/// A thumbnail that has bytes, with what it is of.
#[derive(Clone, Debug)]
pub(crate) struct PlacedThumbnail {
    pub(crate) digest: Digest,
    pub(crate) variant: String,
    pub(crate) place: StoredPlace,
    pub(crate) bytes: u64,
}

pub(crate) async fn find(conn: &mut Conn, digest: &Digest, variant: &str) -> DbResult<Option<StoredThumbnail>> {
    let found = conn.find(&FIND_THUMBNAIL, args![&digest.to_string(), variant]).await?;
    found.map(|row| thumbnail(&row)).transpose()
}

/// Notes what came of making a thumbnail, or says false where somebody else has made it. The object's row is locked.
pub(crate) async fn insert(
    tx: &mut Tx,
    digest: &Digest,
    variant: &str,
    thumbnail: &StoredThumbnail,
    now: i64,
) -> DbResult<bool> {
    let digest = digest.to_string();
    let inserted = match thumbnail {
        StoredThumbnail::Made { place, bytes, content_type } => {
            let bytes = i64::try_from(*bytes).map_err(DbError::decode)?;
            let (key_id, sealed) = (place.key_id(), place.sealed_key());
            let (store, location) = (&place.store, &place.location);
            let none: Option<&str> = None;
            let args = args![&digest, variant, bytes, store, location, key_id, sealed, content_type, none, now];
            tx.execute(&INSERT_THUMBNAIL, args).await?
        }
        StoredThumbnail::Failed(why) => {
            let none: Option<&str> = None;
            let args = args![&digest, variant, 0_i64, none, none, none, none, "", why, now];
            tx.execute(&INSERT_THUMBNAIL, args).await?
        }
    };
    Ok(inserted == 1)
}

/// Removes one thumbnail, and returns where its bytes are.
pub(crate) async fn delete(tx: &mut Tx, digest: &Digest, variant: &str) -> DbResult<Option<StoredPlace>> {
    let deleted = tx.find(&DELETE_THUMBNAIL, args![&digest.to_string(), variant]).await?;
    Ok(deleted.map(|row| StoredPlace::read(&row, 0)).transpose()?.flatten())
}

/// Removes what there is of an object, and returns where the bytes are.
pub(crate) async fn delete_of(tx: &mut Tx, digest: &Digest) -> DbResult<Vec<StoredPlace>> {
    let rows = tx.list(&DELETE_THUMBNAILS, args![&digest.to_string()]).await?;
    // Failures have none.
    rows.iter().filter_map(|row| StoredPlace::read(row, 0).transpose()).collect()
}

/// Notes that the bytes of a thumbnail are elsewhere now, or that their key is sealed anew. Says false where they are not
/// at `from` any more.
pub(crate) async fn set_place(
    conn: &mut Conn,
    (digest, variant): (&Digest, &str),
    from: &StoredPlace,
    to: &StoredPlace,
) -> DbResult<bool> {
    let (digest, key_id, sealed) = (digest.to_string(), to.key_id(), to.sealed_key());
    let args = args![&digest, variant, &from.store, &from.location, &to.store, &to.location, key_id, sealed];
    Ok(conn.execute(&MOVE_THUMBNAIL, args).await? == 1)
}

/// The thumbnails in a store after one, in the order of digests and variants. Both are empty to begin with.
pub(crate) async fn page(
    conn: &mut Conn,
    store: &str,
    after: (&str, &str),
    limit: i64,
) -> DbResult<Vec<PlacedThumbnail>> {
    let rows = conn.list(&PAGE_OF_THUMBNAILS, args![store, after.0, after.1, limit]).await?;
    rows.iter().map(placed).collect()
}

/// How many there are, and their bytes.
pub(crate) async fn usage(conn: &mut Conn) -> DbResult<(i64, i64)> {
    let Some(row) = conn.find(&SUM_THUMBNAILS, args![]).await? else { return Ok((0, 0)) };
    Ok((row.get(0)?, row.get(1)?))
}

fn thumbnail(row: &Row) -> DbResult<StoredThumbnail> {
    match StoredPlace::read(row, 0)? {
        Some(place) => Ok(StoredThumbnail::Made { place, bytes: bytes(row)?, content_type: row.get(5)? }),
        None => Ok(StoredThumbnail::Failed(row.get::<Option<String>>(6)?.unwrap_or_default())),
    }
}

pub(super) fn placed(row: &Row) -> DbResult<PlacedThumbnail> {
    let place = StoredPlace::read(row, 0)?.ok_or_else(|| DbError::decode("a thumbnail has no store"))?;
    let digest = super::media_object::digest(&row.get::<String>(7)?)?;
    Ok(PlacedThumbnail { digest, variant: row.get(8)?, place, bytes: bytes(row)? })
}

fn bytes(row: &Row) -> DbResult<u64> {
    u64::try_from(row.get::<i64>(4)?).map_err(DbError::decode)
}
