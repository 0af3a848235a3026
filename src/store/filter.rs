//! `filters`: what clients want to hear of, stored under a short name.

use ruma::UserId;

use crate::db::{Conn, DbResult, args, statements};

statements! {
    INSERT_FILTER = "INSERT INTO filters (user_id, filter_id, definition, stored_ts) VALUES ($1, $2, $3, $4)
        ON CONFLICT (user_id, filter_id) DO NOTHING";
    SET_FILTER_STORED = "UPDATE filters SET stored_ts = $3 WHERE user_id = $1 AND filter_id = $2";
    COUNT_FILTERS = "SELECT COUNT(*) FROM filters WHERE user_id = $1";
    DELETE_OLDEST_FILTER = "DELETE FROM filters WHERE user_id = $1 AND filter_id IN (
        SELECT filter_id FROM filters WHERE user_id = $1 AND filter_id <> $2
        ORDER BY stored_ts, filter_id LIMIT 1)";
    FIND_FILTER = "SELECT definition FROM filters WHERE user_id = $1 AND filter_id = $2";
    DELETE_FILTERS = "DELETE FROM filters WHERE user_id = $1";
}

/// Stores a filter, or says false where it is there already: then it was stored again at this time, which is in
/// milliseconds since the Unix epoch.
pub(crate) async fn insert(
    conn: &mut Conn,
    user_id: &UserId,
    filter_id: &str,
    definition: &str,
    now: i64,
) -> DbResult<bool> {
    let is_new = conn.execute(&INSERT_FILTER, args![user_id, filter_id, definition, now]).await? == 1;
    if !is_new {
        conn.execute(&SET_FILTER_STORED, args![user_id, filter_id, now]).await?;
    }
    Ok(is_new)
}

/// How many filters a user has stored.
pub(crate) async fn count(conn: &mut Conn, user_id: &UserId) -> DbResult<i64> {
    conn.find(&COUNT_FILTERS, args![user_id]).await?.map_or(Ok(0), |row| row.get(0))
}

/// Forgets the filter that a user has stored longest ago, but not this one.
pub(crate) async fn delete_oldest(conn: &mut Conn, user_id: &UserId, but: &str) -> DbResult<()> {
    conn.execute(&DELETE_OLDEST_FILTER, args![user_id, but]).await.map(drop)
}

/// The JSON of a filter.
pub(crate) async fn find(conn: &mut Conn, user_id: &UserId, filter_id: &str) -> DbResult<Option<String>> {
    conn.find(&FIND_FILTER, args![user_id, filter_id]).await?.map(|row| row.get(0)).transpose()
}

/// Forgets a user's filters, when their account ends.
pub(crate) async fn delete_all(conn: &mut Conn, user_id: &UserId) -> DbResult<()> {
    conn.execute(&DELETE_FILTERS, args![user_id]).await.map(drop)
}
