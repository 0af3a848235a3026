//! `device_list_changes`: when which user's devices and keys have changed.
//!
//! A row stands at its place in the log and stays: a device that has been away for months asks what has changed since.
//! Only the log writes here.

use ruma::{DeviceId, OwnedUserId, UserId};

use crate::{
    db::{Column, ColumnType, Conn, DbResult, Insert, Tx, args, statements},
    ground::position::Position,
};

statements! {
    LIST_NEWEST_CHANGES = "SELECT position, user_id, seen_by FROM device_list_changes
        ORDER BY position DESC LIMIT $1";
    /// Of those who share a room with $1, and of $1, who has changed after $2, up to $3, as far as $1 is shown it. By the
    /// users and not by the places: what changed since may be many times what changed of these.
    LIST_CHANGED_NEIGHBOURS = "SELECT theirs.user_id FROM memberships mine
        JOIN memberships theirs ON theirs.room_id = mine.room_id AND theirs.membership = 'join'
        WHERE mine.user_id = $1 AND mine.membership = 'join' AND EXISTS (SELECT 1 FROM device_list_changes c
            WHERE c.user_id = theirs.user_id AND c.position > $2 AND c.position <= $3
                AND (c.seen_by IS NULL OR c.seen_by = $1))
        UNION SELECT user_id FROM device_list_changes
            WHERE user_id = $1 AND position > $2 AND position <= $3 AND seen_by IS NULL";
}

/// A place holds one entry of the log, so nothing conflicts.
static INSERT_DEVICE_LIST_CHANGES: Insert = Insert::new(
    "INSERT_DEVICE_LIST_CHANGES",
    "device_list_changes",
    &[
        ("position", ColumnType::Int),
        ("user_id", ColumnType::Text),
        ("device_id", ColumnType::Text),
        ("seen_by", ColumnType::Text),
    ],
    "",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&INSERT_DEVICE_LIST_CHANGES];

/// Notes changes, each with its place, its user, the device unless it is of their cross-signing keys, and the only user
/// who is shown it, if it is not everybody.
pub(crate) async fn insert(
    tx: &mut Tx,
    rows: &[(Position, &UserId, Option<&DeviceId>, Option<&UserId>)],
) -> DbResult<()> {
    let columns = [
        Column::ints(rows.iter().map(|(at, ..)| at.0)),
        Column::texts(rows.iter().map(|(_, user_id, ..)| user_id.as_str())),
        Column::Texts(rows.iter().map(|(_, _, device_id, _)| device_id.map(DeviceId::as_str)).collect()),
        Column::Texts(rows.iter().map(|(.., seen_by)| seen_by.map(UserId::as_str)).collect()),
    ];
    tx.insert(&INSERT_DEVICE_LIST_CHANGES, &columns).await
}

/// The newest changes, at most so many, latest first: each with its user and the only one who is shown it, if there is
/// such a one.
pub(crate) async fn list_newest(
    conn: &mut Conn,
    limit: i64,
) -> DbResult<Vec<(Position, OwnedUserId, Option<OwnedUserId>)>> {
    let rows = conn.list(&LIST_NEWEST_CHANGES, args![limit]).await?;
    rows.iter().map(|row| Ok((Position(row.get(0)?), row.get(1)?, row.get(2)?))).collect()
}

/// Who has changed after a place, up to another, of the user and those who share a room with them. What the user is not
/// shown does not count.
pub(crate) async fn list_changed_neighbours(
    conn: &mut Conn,
    user_id: &UserId,
    after: Position,
    until: Position,
) -> DbResult<Vec<OwnedUserId>> {
    let rows = conn.list(&LIST_CHANGED_NEIGHBOURS, args![user_id, after.0, until.0]).await?;
    rows.iter().map(|row| row.get(0)).collect()
}
