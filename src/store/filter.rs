//! `filters`: what clients want to hear of, stored under a short name.

use ruma::UserId;

use crate::db::{Conn, DbResult, args, statements};

statements! {
    INSERT_FILTER = "INSERT INTO filters (user_id, filter_id, definition) VALUES ($1, $2, $3)
        ON CONFLICT (user_id, filter_id) DO NOTHING";
    FIND_FILTER = "SELECT definition FROM filters WHERE user_id = $1 AND filter_id = $2";
    DELETE_FILTERS = "DELETE FROM filters WHERE user_id = $1";
}

/// Stores a filter; one that is there already stays as it is.
pub(crate) async fn insert(conn: &mut Conn, user_id: &UserId, filter_id: &str, definition: &str) -> DbResult<()> {
    conn.execute(&INSERT_FILTER, args![user_id, filter_id, definition]).await.map(drop)
}

/// The JSON of a filter.
pub(crate) async fn find(conn: &mut Conn, user_id: &UserId, filter_id: &str) -> DbResult<Option<String>> {
    conn.find(&FIND_FILTER, args![user_id, filter_id]).await?.map(|row| row.get(0)).transpose()
}

/// Forgets a user's filters, when their account ends.
pub(crate) async fn delete_all(conn: &mut Conn, user_id: &UserId) -> DbResult<()> {
    conn.execute(&DELETE_FILTERS, args![user_id]).await.map(drop)
}
