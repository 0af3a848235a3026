//! `url_previews`: what pages say of themselves, for as long as that is believed.

use crate::db::{Conn, DbResult, args, statements};

statements! {
    FIND_URL_PREVIEW = "SELECT preview FROM url_previews WHERE url = $1 AND language = $2 AND expires_at > $3";
    UPSERT_URL_PREVIEW = "INSERT INTO url_previews (url, language, preview, created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT (url, language) DO UPDATE
        SET preview = excluded.preview, created_at = excluded.created_at, expires_at = excluded.expires_at";
    DELETE_EXPIRED_URL_PREVIEWS = "DELETE FROM url_previews WHERE expires_at <= $1";
}

/// The preview of a URL in a language, as JSON, unless it has expired.
pub(crate) async fn find(conn: &mut Conn, url: &str, language: &str, now: i64) -> DbResult<Option<String>> {
    conn.find(&FIND_URL_PREVIEW, args![url, language, now]).await?.map(|row| row.get(0)).transpose()
}

/// Keeps a preview, in place of an earlier one.
pub(crate) async fn insert(
    conn: &mut Conn,
    (url, language): (&str, &str),
    preview: &str,
    now: i64,
    expires_at: i64,
) -> DbResult<()> {
    conn.execute(&UPSERT_URL_PREVIEW, args![url, language, preview, now, expires_at]).await.map(drop)
}

/// Removes those that have expired.
pub(crate) async fn delete_expired(conn: &mut Conn, now: i64) -> DbResult<u64> {
    conn.execute(&DELETE_EXPIRED_URL_PREVIEWS, args![now]).await
}
