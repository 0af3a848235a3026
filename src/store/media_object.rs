//! `media_objects` and `media_removals`: the bytes that media are made of, where they are, and what is to be deleted there.
//!
//! The row of an object is locked by whoever adds a row of `media` that names it, and by whoever deletes one that may be
//! the last, so that neither misses the other. It comes before the account and after the row of `media` that is deleted.

use crate::{
    db::{Conn, DbError, DbResult, Row, Tx, args, statements},
    ground::digest::Digest,
};

statements! {
    FIND_OBJECT = "SELECT digest, bytes, store, location, key_id, sealed_key, sniffed_type, scanned_at
        FROM media_objects WHERE digest = $1";
    LOCK_OBJECT = "SELECT digest, bytes, store, location, key_id, sealed_key, sniffed_type, scanned_at
        FROM media_objects WHERE digest = $1 FOR UPDATE";
    INSERT_OBJECT = "INSERT INTO media_objects
        (digest, bytes, store, location, key_id, sealed_key, sniffed_type, created_at, scanned_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, NULL) ON CONFLICT (digest) DO NOTHING";
    DELETE_OBJECT = "DELETE FROM media_objects WHERE digest = $1";
    SET_SCANNED = "UPDATE media_objects SET scanned_at = $2 WHERE digest = $1";
    MOVE_OBJECT = "UPDATE media_objects SET store = $4, location = $5, key_id = $6, sealed_key = $7
        WHERE digest = $1 AND store = $2 AND location = $3";
    PAGE_OF_OBJECTS = "SELECT digest, bytes, store, location, key_id, sealed_key, sniffed_type, scanned_at
        FROM media_objects WHERE store = $1 AND digest > $2 ORDER BY digest LIMIT $3";
    SUM_OBJECTS = "SELECT store, COUNT(*), CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM media_objects
        GROUP BY store ORDER BY store";
    LIST_NAMED_LOCATIONS = "SELECT location FROM media_objects WHERE store = $1 AND location IN LIST($2)
        UNION SELECT location FROM media_thumbnails WHERE store = $1 AND location IN LIST($2)
        UNION SELECT location FROM media_removals WHERE store = $1 AND location IN LIST($2)";
    INSERT_REMOVAL = "INSERT INTO media_removals (store, location, not_before) VALUES ($1, $2, $3)
        ON CONFLICT (location, store) DO UPDATE SET not_before = excluded.not_before";
    LIST_DUE_REMOVALS = "SELECT location FROM media_removals WHERE store = $1 AND not_before <= $2
        ORDER BY not_before LIMIT $3";
    DELETE_REMOVAL = "DELETE FROM media_removals WHERE store = $1 AND location = $2";
}

/// Bytes, and where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredObject {
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
    pub(crate) place: StoredPlace,
    /// What the first bytes look like, as a media type.
    pub(crate) sniffed_type: String,
    /// When a scanner has found them harmless.
    pub(crate) scanned_at: Option<i64>,
}

/// Where bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredPlace {
    /// The name of a store.
    pub(crate) store: String,
    pub(crate) location: String,
    /// The name of a master key, and the key of these bytes, encrypted with it. None where they are plain.
    pub(crate) key: Option<(String, String)>,
}

impl StoredPlace {
    pub(super) fn key_id(&self) -> Option<&str> {
        self.key.as_ref().map(|(key_id, _)| key_id.as_str())
    }

    pub(super) fn sealed_key(&self) -> Option<&str> {
        self.key.as_ref().map(|(_, sealed)| sealed.as_str())
    }

    /// From four columns that follow each other: store, location, name of the master key, sealed key. None where the first
    /// is absent.
    pub(super) fn read(row: &Row, first: usize) -> DbResult<Option<Self>> {
        let Some(store) = row.get(first)? else { return Ok(None) };
        let key_id: Option<String> = row.get(first + 2)?;
        let key = key_id.map(|key_id| DbResult::Ok((key_id, row.get(first + 3)?))).transpose()?;
        Ok(Some(Self { store, location: row.get(first + 1)?, key }))
    }
}

/// What a store has of this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreUsage {
    pub(crate) store: String,
    pub(crate) objects: i64,
    pub(crate) bytes: i64,
}

pub(crate) async fn find(conn: &mut Conn, digest: &Digest) -> DbResult<Option<StoredObject>> {
    conn.find(&FIND_OBJECT, args![&digest.to_string()]).await?.map(|row| object(&row)).transpose()
}

/// Keeps the object as it is until the end of the transaction.
pub(crate) async fn lock(tx: &mut Tx, digest: &Digest) -> DbResult<Option<StoredObject>> {
    tx.find(&LOCK_OBJECT, args![&digest.to_string()]).await?.map(|row| object(&row)).transpose()
}

/// Adds an object, which is locked then, or says false where it is there. Waits for whoever is adding it.
pub(crate) async fn insert(tx: &mut Tx, object: &StoredObject, now: i64) -> DbResult<bool> {
    let StoredObject { digest, bytes, place, sniffed_type, .. } = object;
    let bytes = i64::try_from(*bytes).map_err(DbError::decode)?;
    let (digest, key_id, sealed) = (digest.to_string(), place.key_id(), place.sealed_key());
    let args = args![&digest, bytes, &place.store, &place.location, key_id, sealed, sniffed_type, now];
    Ok(tx.execute(&INSERT_OBJECT, args).await? == 1)
}

pub(crate) async fn delete(tx: &mut Tx, digest: &Digest) -> DbResult<()> {
    tx.execute(&DELETE_OBJECT, args![&digest.to_string()]).await.map(drop)
}

/// Notes when a scanner found an object harmless.
pub(crate) async fn set_scanned(conn: &mut Conn, digest: &Digest, at: i64) -> DbResult<()> {
    conn.execute(&SET_SCANNED, args![&digest.to_string(), at]).await.map(drop)
}

/// Notes that the bytes of an object are elsewhere now, or that their key is sealed anew. Says false where they are not at
/// `from` any more.
pub(crate) async fn set_place(
    conn: &mut Conn,
    digest: &Digest,
    from: &StoredPlace,
    to: &StoredPlace,
) -> DbResult<bool> {
    let (digest, key_id, sealed) = (digest.to_string(), to.key_id(), to.sealed_key());
    let args = args![&digest, &from.store, &from.location, &to.store, &to.location, key_id, sealed];
    Ok(conn.execute(&MOVE_OBJECT, args).await? == 1)
}

/// The objects of a store in the order of their digests, after one (empty for the first).
pub(crate) async fn page(conn: &mut Conn, store: &str, after: &str, limit: i64) -> DbResult<Vec<StoredObject>> {
    conn.list(&PAGE_OF_OBJECTS, args![store, after, limit]).await?.iter().map(object).collect()
}

/// What each store has, thumbnails left out.
pub(crate) async fn usage(conn: &mut Conn) -> DbResult<Vec<StoreUsage>> {
    let rows = conn.list(&SUM_OBJECTS, args![]).await?;
    rows.iter().map(|row| Ok(StoreUsage { store: row.get(0)?, objects: row.get(1)?, bytes: row.get(2)? })).collect()
}

/// Which of these locations in a store any row names, of one that is to be deleted too.
pub(crate) async fn list_named(conn: &mut Conn, store: &str, locations: &[&str]) -> DbResult<Vec<String>> {
    conn.list(&LIST_NAMED_LOCATIONS, args![store, locations]).await?.iter().map(|row| row.get(0)).collect()
}

/// Notes that what is at a place is to be deleted from a time on, or that it is to be deleted then and not at the time that
/// was noted. No row may name it any more, or by then [`delete_removal`] has to be called with that row.
pub(crate) async fn insert_removal(conn: &mut Conn, store: &str, location: &str, not_before: i64) -> DbResult<()> {
    conn.execute(&INSERT_REMOVAL, args![store, location, not_before]).await.map(drop)
}

/// The locations in a store of what is to be deleted there by now.
pub(crate) async fn list_due_removals(conn: &mut Conn, store: &str, now: i64, limit: i64) -> DbResult<Vec<String>> {
    conn.list(&LIST_DUE_REMOVALS, args![store, now, limit]).await?.iter().map(|row| row.get(0)).collect()
}

/// Notes that it was deleted, or that it is not to be.
pub(crate) async fn delete_removal(conn: &mut Conn, store: &str, location: &str) -> DbResult<()> {
    conn.execute(&DELETE_REMOVAL, args![store, location]).await.map(drop)
}

pub(super) fn object(row: &Row) -> DbResult<StoredObject> {
    read(row, 0)?.ok_or_else(|| DbError::decode("an object has no store"))
}

/// From eight columns that follow each other, as the statements of this file have them. None where the object is absent.
pub(super) fn read(row: &Row, first: usize) -> DbResult<Option<StoredObject>> {
    let Some(place) = StoredPlace::read(row, first + 2)? else { return Ok(None) };
    Ok(Some(StoredObject {
        digest: digest(&row.get::<String>(first)?)?,
        bytes: u64::try_from(row.get::<i64>(first + 1)?).map_err(DbError::decode)?,
        place,
        sniffed_type: row.get(first + 6)?,
        scanned_at: row.get(first + 7)?,
    }))
}

pub(super) fn digest(text: &str) -> DbResult<Digest> {
    Digest::from_hex(text).ok_or_else(|| DbError::decode("a digest is none"))
}
