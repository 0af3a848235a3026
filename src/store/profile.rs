//! `profiles`: what users publish about themselves, a row for each field.
//!
//! A value is JSON of any kind, as clients may set fields of their own. What a room says of somebody is in its
//! membership events and is only made of this.

use ruma::{OwnedUserId, UserId};

use crate::db::{Conn, DbResult, args, statements};

statements! {
    /// What rooms see of users.
    LIST_FACES = "SELECT user_id, field, value FROM profiles
        WHERE user_id IN LIST($1) AND field IN ('displayname', 'avatar_url')";
    FIND_PROFILE_FIELD = "SELECT value FROM profiles WHERE user_id = $1 AND field = $2";
    LIST_PROFILE_FIELDS = "SELECT field, value FROM profiles WHERE user_id = $1";
    UPSERT_PROFILE_FIELD = "INSERT INTO profiles (user_id, field, value) VALUES ($1, $2, $3)
        ON CONFLICT (user_id, field) DO UPDATE SET value = excluded.value";
    DELETE_PROFILE_FIELD = "DELETE FROM profiles WHERE user_id = $1 AND field = $2";
    DELETE_PROFILE = "DELETE FROM profiles WHERE user_id = $1";
}

/// The JSON of a field.
pub(crate) async fn find(conn: &mut Conn, user_id: &UserId, field: &str) -> DbResult<Option<String>> {
    conn.find(&FIND_PROFILE_FIELD, args![user_id, field]).await?.map(|row| row.get(0)).transpose()
}

/// Every field with its JSON.
pub(crate) async fn list(conn: &mut Conn, user_id: &UserId) -> DbResult<Vec<(String, String)>> {
    let rows = conn.list(&LIST_PROFILE_FIELDS, args![user_id]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

/// Names and pictures of users: whose, which field, and its JSON.
pub(crate) async fn list_faces(
    conn: &mut Conn,
    users: &[&UserId],
) -> DbResult<Vec<(OwnedUserId, String, serde_json::Value)>> {
    let users: Vec<&str> = users.iter().map(|user| user.as_str()).collect();
    let rows = conn.list(&LIST_FACES, args![&users]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?, row.json(2)?))).collect()
}

/// Sets a field to some JSON, whatever it was before.
pub(crate) async fn upsert(conn: &mut Conn, user_id: &UserId, field: &str, json: &str) -> DbResult<()> {
    conn.execute(&UPSERT_PROFILE_FIELD, args![user_id, field, json]).await.map(drop)
}

/// Removes a field, or says false where there is none.
pub(crate) async fn delete(conn: &mut Conn, user_id: &UserId, field: &str) -> DbResult<bool> {
    Ok(conn.execute(&DELETE_PROFILE_FIELD, args![user_id, field]).await? == 1)
}

/// Removes everything that somebody has published, as erasure does.
pub(crate) async fn delete_all(conn: &mut Conn, user_id: &UserId) -> DbResult<()> {
    conn.execute(&DELETE_PROFILE, args![user_id]).await.map(drop)
}
