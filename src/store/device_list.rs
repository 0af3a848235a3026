//! `device_list_changes`: when which user's devices and keys have changed.
//!
//! A row stands at its place in the log and stays: a device that has been away for months asks what has changed since.
//! Only the log writes here.

use ruma::{DeviceId, OwnedUserId, RoomId, UserId};

use crate::{
    db::{Column, ColumnType, Conn, DbResult, Insert, Tx, args, statements},
    ground::position::Position,
};

statements! {
    LIST_NEWEST_CHANGES = "SELECT position, user_id, seen_by FROM device_list_changes
        ORDER BY position DESC LIMIT $1";
    /// Of those who are in one of the rooms, or may have been at $4, and of $2, who has changed after $3, up to $4, as
    /// far as $2 is shown it. By the users and not by the places: what changed since may be many times what changed of
    /// these. Each is looked up once, however many of the rooms they are in.
    LIST_CHANGED_IN = "SELECT n.user_id FROM (SELECT user_id FROM memberships
                WHERE room_id IN LIST($1) AND (membership = 'join' OR position > $4)
            UNION SELECT CAST($2 AS TEXT)) n
        WHERE EXISTS (SELECT 1 FROM device_list_changes c
            WHERE c.user_id = n.user_id AND c.position > $3 AND c.position <= $4
                AND (c.seen_by IS NULL OR c.seen_by = $2))";
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

/// Who has changed after a place, up to another: of the user, and of all who were in one of these rooms at the second
/// place. Some may not have been: whose membership has become another since. What the user is not shown does not count.
pub(crate) async fn list_changed_in(
    conn: &mut Conn,
    user_id: &UserId,
    rooms: &[&RoomId],
    (after, until): (Position, Position),
) -> DbResult<Vec<OwnedUserId>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    let rows = conn.list(&LIST_CHANGED_IN, args![&rooms, user_id, after.0, until.0]).await?;
    rows.iter().map(|row| row.get(0)).collect()
}
