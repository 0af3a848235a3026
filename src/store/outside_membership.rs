//! `outside_memberships`: who is invited to rooms of which this server holds no history, or knocks on them.
//!
//! A room may have been left, so that its own history says something of the user as well. What was said later holds,
//! and whoever has joined a room is nothing but in it.

use std::sync::Arc;

use ruma::{OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, UserId};

use crate::{
    db::{Column, ColumnType, Conn, DbError, DbResult, Insert, Row, Tx, args, statements},
    event::{
        Pdu,
        fact::{OutsideEvent, OutsideMembership, OutsideState},
    },
    ground::{position::Position, room_version},
};

// Whatever leaves out what a room's own history has overtaken compares positions: both are of the same log.
statements! {
    LIST_OUTSIDE_OF_USER = "SELECT room_id, membership, position, forgotten FROM outside_memberships WHERE user_id = $1";
    FIND_OUTSIDE = "SELECT o.room_id, o.membership, o.position, o.forgotten FROM outside_memberships o
        WHERE o.user_id = $1 AND o.room_id = $2 AND NOT EXISTS (SELECT 1 FROM memberships m
            WHERE m.user_id = o.user_id AND m.room_id = o.room_id
                AND (m.membership = 'join' OR m.position > o.position))";
    FIND_OUTSIDE_POSITION = "SELECT position FROM outside_memberships WHERE user_id = $1 AND room_id = $2";
    /// Those that a user has not turned down or taken back.
    LIST_OUTSIDE_PRESENT = "SELECT o.room_id, o.position FROM outside_memberships o
        WHERE o.user_id = $1 AND o.membership <> 'leave' AND NOT EXISTS (SELECT 1 FROM memberships m
            WHERE m.user_id = o.user_id AND m.room_id = o.room_id
                AND (m.membership = 'join' OR m.position > o.position))";
    /// Who is invited to a room or knocks on it.
    LIST_OUTSIDE_OF_ROOM = "SELECT o.user_id FROM outside_memberships o
        WHERE o.room_id = $1 AND o.membership <> 'leave' AND NOT EXISTS (SELECT 1 FROM memberships m
            WHERE m.user_id = o.user_id AND m.room_id = o.room_id
                AND (m.membership = 'join' OR m.position > o.position))";
    READ_OUTSIDE = "SELECT user_id, room_id, membership, sender, stripped_state, event_id, event, version, position
        FROM outside_memberships WHERE user_id = $1 AND room_id IN LIST($2)";
    OUTSIDE_BETWEEN = "SELECT user_id, room_id, membership, sender, stripped_state, event_id, event, version, position
        FROM outside_memberships WHERE position >= $1 AND position <= $2";
    /// Whoever is invited again in the meantime has not forgotten.
    FORGET_OUTSIDE = "UPDATE outside_memberships SET forgotten = TRUE
        WHERE user_id = $1 AND room_id = $2 AND membership = 'leave'";
}

/// A row keeps what was said last. Whoever has forgotten the room hears of it again with the next invitation.
static UPSERT_OUTSIDE: Insert = Insert::new(
    "UPSERT_OUTSIDE",
    "outside_memberships",
    &[
        ("user_id", ColumnType::Text),
        ("room_id", ColumnType::Text),
        ("membership", ColumnType::Text),
        ("sender", ColumnType::Text),
        ("stripped_state", ColumnType::Text),
        ("event_id", ColumnType::Text),
        ("event", ColumnType::Text),
        ("version", ColumnType::Text),
        ("position", ColumnType::Int),
        ("forgotten", ColumnType::Bool),
    ],
    "ON CONFLICT (user_id, room_id) DO UPDATE SET membership = excluded.membership, sender = excluded.sender,
        stripped_state = excluded.stripped_state, event_id = excluded.event_id, event = excluded.event,
        version = excluded.version, position = excluded.position,
        forgotten = outside_memberships.forgotten AND excluded.membership = 'leave'",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&UPSERT_OUTSIDE];

/// What a user is in a room of which this server holds no history, without what is known of the room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutsideStanding {
    pub(crate) state: OutsideState,
    /// Where in the log it became so.
    pub(crate) position: Position,
    pub(crate) forgotten: bool,
}

/// Writes memberships, at most one of each user in each room.
///
/// `stripped_state` is a JSON array; `event`, its id and its room version are there together or not at all.
pub(crate) async fn upsert(tx: &mut Tx, rows: &[(Position, &OutsideMembership)]) -> DbResult<()> {
    let stripped: Vec<String> = rows.iter().map(|(_, row)| serde_json::json!(row.stripped_state).to_string()).collect();
    let events = || rows.iter().map(|(_, row)| row.event.as_ref());
    let columns = [
        Column::texts(rows.iter().map(|(_, row)| row.user_id.as_str())),
        Column::texts(rows.iter().map(|(_, row)| row.room_id.as_str())),
        Column::texts(rows.iter().map(|(_, row)| row.state.as_str())),
        Column::texts(rows.iter().map(|(_, row)| row.sender.as_str())),
        Column::texts(stripped.iter().map(String::as_str)),
        Column::Texts(events().map(|event| Some(event?.pdu.event_id().as_str())).collect()),
        Column::Texts(events().map(|event| Some(event?.pdu.json().get())).collect()),
        Column::Texts(events().map(|event| Some(event?.version.as_str())).collect()),
        Column::ints(rows.iter().map(|(at, _)| at.0)),
        Column::Bools(vec![false; rows.len()]),
    ];
    tx.insert(&UPSERT_OUTSIDE, &columns).await
}

/// Everything that ever came of a user from outside, also what the rooms' own histories have overtaken.
///
/// For whoever holds the memberships beside it and compares by themselves.
pub(crate) async fn list_of_user(conn: &mut Conn, user_id: &UserId) -> DbResult<Vec<(OwnedRoomId, OutsideStanding)>> {
    conn.list(&LIST_OUTSIDE_OF_USER, args![user_id]).await?.iter().map(standing).collect()
}

/// What a user is in a room, if that is known from outside.
pub(crate) async fn find(conn: &mut Conn, user_id: &UserId, room_id: &RoomId) -> DbResult<Option<OutsideStanding>> {
    let row = conn.find(&FIND_OUTSIDE, args![user_id, room_id]).await?;
    row.map(|row| standing(&row).map(|(_, standing)| standing)).transpose()
}

/// The place of what came last of a user in a room from outside, whether or not the room's own history has overtaken it.
pub(crate) async fn find_position(conn: &mut Conn, user_id: &UserId, room_id: &RoomId) -> DbResult<Option<Position>> {
    conn.find(&FIND_OUTSIDE_POSITION, args![user_id, room_id]).await?.map(|row| row.get(0).map(Position)).transpose()
}

/// The rooms outside that a user is invited to, or knocks on, each with the place of that.
pub(crate) async fn list_present(conn: &mut Conn, user_id: &UserId) -> DbResult<Vec<(OwnedRoomId, Position)>> {
    let rows = conn.list(&LIST_OUTSIDE_PRESENT, args![user_id]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, Position(row.get(1)?)))).collect()
}

/// Those who are known from outside to be invited to a room, or to knock on it.
pub(crate) async fn list_of_room(conn: &mut Conn, room_id: &RoomId) -> DbResult<Vec<OwnedUserId>> {
    conn.list(&LIST_OUTSIDE_OF_ROOM, args![room_id]).await?.iter().map(|row| row.get(0)).collect()
}

/// All that came of a user in some rooms, each with its place.
pub(crate) async fn list(
    conn: &mut Conn,
    user_id: &UserId,
    rooms: &[&RoomId],
) -> DbResult<Vec<(Position, OutsideMembership)>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    conn.list(&READ_OUTSIDE, args![user_id, &rooms]).await?.iter().map(membership).collect()
}

/// What stands in a stretch of the log.
///
/// First and last are part of it.
pub(crate) async fn list_between(
    conn: &mut Conn,
    first: Position,
    last: Position,
) -> DbResult<Vec<(Position, OutsideMembership)>> {
    conn.list(&OUTSIDE_BETWEEN, args![first.0, last.0]).await?.iter().map(membership).collect()
}

/// Hides that an invitation or a knock has ended.
pub(crate) async fn forget(conn: &mut Conn, user_id: &UserId, room_id: &RoomId) -> DbResult<()> {
    conn.execute(&FORGET_OUTSIDE, args![user_id, room_id]).await.map(drop)
}

/// Only three memberships are known from outside: see [`OutsideState`].
fn state(row: &Row, column: usize) -> DbResult<OutsideState> {
    let membership: String = row.get(column)?;
    OutsideState::of(&membership).ok_or_else(|| DbError::decode(format!("nobody is {membership} outside a room")))
}

fn standing(row: &Row) -> DbResult<(OwnedRoomId, OutsideStanding)> {
    let standing = OutsideStanding { state: state(row, 1)?, position: Position(row.get(2)?), forgotten: row.get(3)? };
    Ok((row.get(0)?, standing))
}

fn membership(row: &Row) -> DbResult<(Position, OutsideMembership)> {
    let membership = OutsideMembership {
        user_id: row.get(0)?,
        room_id: row.get(1)?,
        state: state(row, 2)?,
        sender: row.get(3)?,
        stripped_state: row.json(4)?,
        event: event(row)?,
    };
    Ok((Position(row.get(8)?), membership))
}

/// The event that says so, if another server has sent one: it is read by the rules of its room's version.
fn event(row: &Row) -> DbResult<Option<OutsideEvent>> {
    let (event_id, json, version): (Option<_>, Option<_>, Option<RoomVersionId>) =
        (row.get(5)?, row.get(6)?, row.get(7)?);
    let (Some(event_id), Some(json), Some(version)) = (event_id, json, version) else { return Ok(None) };
    // A newer version of this server may have known the room's version. What the event said stands beside it.
    let Some(rules) = room_version::rules(&version) else { return Ok(None) };
    let pdu = Pdu::from_stored(event_id, json, rules).map_err(DbError::decode)?;
    Ok(Some(OutsideEvent { version, pdu: Arc::new(pdu) }))
}
