//! `signing_keys`: what this server signs with.
//!
//! Old keys stay, because events that they signed have to be verified for as long as anybody holds them.

use crate::db::{Conn, DbResult, args, statements};

statements! {
    /// Until the transaction ends no other node looks for a key either, so that one of them makes it.
    LOCK_SIGNING_KEYS = "SELECT 1" | "SELECT pg_advisory_xact_lock(4720321)::text";
    LIST_SIGNING_KEYS = "SELECT key_id, private_key, created_ts FROM signing_keys ORDER BY created_ts, key_id";
    INSERT_SIGNING_KEY = "INSERT INTO signing_keys (key_id, private_key, created_ts) VALUES ($1, $2, $3)";
}

/// To be taken before looking for a key that may have to be made.
pub(crate) async fn lock(conn: &mut Conn) -> DbResult<()> {
    conn.execute(&LOCK_SIGNING_KEYS, args![]).await.map(drop)
}

/// All keys, oldest first: the id of each, its PKCS #8 document, and when it was made.
pub(crate) async fn list(conn: &mut Conn) -> DbResult<Vec<(String, Vec<u8>, i64)>> {
    let rows = conn.list(&LIST_SIGNING_KEYS, args![]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).collect()
}

/// The private key is a PKCS #8 document, `now` in milliseconds since the Unix epoch.
pub(crate) async fn insert(conn: &mut Conn, key_id: &str, private_key: &[u8], now: i64) -> DbResult<()> {
    conn.execute(&INSERT_SIGNING_KEY, args![key_id, private_key, now]).await.map(drop)
}
