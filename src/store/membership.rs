//! `memberships`: which user is what in which room, as the trunks say.

use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, UserId,
    events::{StateEventType, room::member::MembershipState},
};
use serde::Deserialize;

use crate::{
    db::{Column, Conn, DbResult, Insert, Kind, Row, Tx, args, statements},
    event::StateChange,
    position::Position,
};

statements! {
    LIST_OF_USER = "SELECT room_id, membership, position, forgotten FROM memberships WHERE user_id = $1";
    FIND_MEMBERSHIP = "SELECT room_id, membership, position, forgotten FROM memberships WHERE user_id = $1 AND room_id = $2";
    SHARED_ROOM = "SELECT a.room_id FROM memberships a JOIN memberships b ON b.room_id = a.room_id
        WHERE a.user_id = $1 AND b.user_id = $2 AND a.membership = 'join' AND b.membership = 'join' LIMIT 1";
    LIST_JOINED_AMONG = "SELECT room_id FROM memberships
        WHERE user_id = $1 AND membership = 'join' AND room_id IN LIST($2)";
    LIST_JOINED_ROOMS = "SELECT room_id FROM memberships WHERE user_id = $1 AND membership = 'join'";
    LIST_JOINED_OF = "SELECT user_id, room_id FROM memberships WHERE user_id IN LIST($1) AND membership = 'join'";
    LIST_SHARING = "SELECT DISTINCT b.user_id FROM memberships b JOIN memberships a ON a.room_id = b.room_id
        WHERE b.user_id IN LIST($2) AND b.membership = 'join' AND a.user_id = $1 AND a.membership = 'join'";
    LIST_JOINED_USERS = "SELECT user_id FROM memberships WHERE room_id = $1 AND membership = 'join' LIMIT $2";
    LIST_AMONG = "SELECT room_id, membership FROM memberships WHERE user_id = $1 AND room_id IN LIST($2)";
    COUNT_JOINED = "SELECT room_id, COUNT(*) FROM memberships
        WHERE room_id IN LIST($1) AND membership = 'join' GROUP BY room_id";
    LIST_SHARED = "SELECT a.room_id FROM memberships a JOIN memberships b ON b.room_id = a.room_id
        WHERE a.user_id = $1 AND b.user_id = $2 AND a.membership = 'join' AND b.membership = 'join'
        ORDER BY a.room_id";
    /// Whoever has come back in the meantime has not forgotten.
    FORGET = "UPDATE memberships SET forgotten = TRUE
        WHERE user_id = $1 AND room_id = $2 AND membership IN ('leave', 'ban')";
}

static UPSERT_MEMBERSHIPS: Insert = Insert::new(
    "UPSERT_MEMBERSHIPS",
    "memberships",
    &[
        ("user_id", Kind::Text),
        ("room_id", Kind::Text),
        ("membership", Kind::Text),
        ("position", Kind::Int),
        ("forgotten", Kind::Bool),
    ],
    // Who has forgotten a room hears no more of it until they are in it again, invited or knocking.
    "ON CONFLICT (user_id, room_id) DO UPDATE SET membership = excluded.membership, position = excluded.position,
        forgotten = memberships.forgotten AND excluded.membership IN ('leave', 'ban')",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&UPSERT_MEMBERSHIPS];

/// A membership as the trunk has it from a position on.
pub(crate) struct Membership<'a> {
    pub(crate) user_id: &'a UserId,
    pub(crate) room_id: &'a RoomId,
    pub(crate) state: MembershipState,
    pub(crate) position: Position,
}

impl<'a> Membership<'a> {
    /// What a change of the trunk says about somebody's membership, if it does.
    pub(crate) fn of(change: &'a StateChange, room_id: &'a RoomId, position: Position) -> Option<Self> {
        if change.kind != StateEventType::RoomMember.to_string() {
            return None;
        }
        let user_id = <&UserId>::try_from(change.state_key.as_str()).ok()?;
        let state = change.event.as_ref().map_or(MembershipState::Leave, |pdu| {
            pdu.content_as::<Content>().map_or(MembershipState::Leave, |content| content.membership)
        });
        Some(Self { user_id, room_id, state, position })
    }
}

#[derive(Deserialize)]
struct Content {
    membership: MembershipState,
}

/// A user's membership of one room.
#[derive(Clone, Debug)]
pub(crate) struct RoomMembership {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) membership: MembershipState,
    pub(crate) position: Position,
    pub(crate) forgotten: bool,
}

pub(crate) async fn upsert(tx: &mut Tx, rows: &[Membership<'_>]) -> DbResult<()> {
    let columns = [
        Column::texts(rows.iter().map(|row| row.user_id.as_str())),
        Column::texts(rows.iter().map(|row| row.room_id.as_str())),
        Column::texts(rows.iter().map(|row| row.state.as_str())),
        Column::ints(rows.iter().map(|row| row.position.0)),
        Column::Bools(vec![false; rows.len()]),
    ];
    tx.insert(&UPSERT_MEMBERSHIPS, &columns).await
}

/// Every room that a user is or was in.
pub(crate) async fn list_of_user(conn: &mut Conn, user_id: &UserId) -> DbResult<Vec<RoomMembership>> {
    conn.list(&LIST_OF_USER, args![user_id]).await?.iter().map(membership).collect()
}

pub(crate) async fn find(conn: &mut Conn, user_id: &UserId, room_id: &RoomId) -> DbResult<Option<RoomMembership>> {
    conn.find(&FIND_MEMBERSHIP, args![user_id, room_id]).await?.as_ref().map(membership).transpose()
}

/// Those of the rooms that a user is in.
pub(crate) async fn list_joined_among(
    conn: &mut Conn,
    user_id: &UserId,
    rooms: &[&RoomId],
) -> DbResult<Vec<OwnedRoomId>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    conn.list(&LIST_JOINED_AMONG, args![user_id, &rooms]).await?.iter().map(|row| row.get(0)).collect()
}

/// The rooms that a user is in.
pub(crate) async fn list_joined_rooms(conn: &mut Conn, user_id: &UserId) -> DbResult<Vec<OwnedRoomId>> {
    conn.list(&LIST_JOINED_ROOMS, args![user_id]).await?.iter().map(|row| row.get(0)).collect()
}

/// Which of these users is in which rooms.
pub(crate) async fn list_joined_of(conn: &mut Conn, users: &[&UserId]) -> DbResult<Vec<(OwnedUserId, OwnedRoomId)>> {
    let users: Vec<&str> = users.iter().map(|user| user.as_str()).collect();
    conn.list(&LIST_JOINED_OF, args![&users]).await?.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

/// Those of these users who are in a room that the first is in.
pub(crate) async fn list_sharing(conn: &mut Conn, one: &UserId, users: &[&UserId]) -> DbResult<Vec<OwnedUserId>> {
    let users: Vec<&str> = users.iter().map(|user| user.as_str()).collect();
    conn.list(&LIST_SHARING, args![one, &users]).await?.iter().map(|row| row.get(0)).collect()
}

/// Those who are in a room, at most so many.
pub(crate) async fn list_joined_users(conn: &mut Conn, room_id: &RoomId, limit: i64) -> DbResult<Vec<OwnedUserId>> {
    conn.list(&LIST_JOINED_USERS, args![room_id, limit]).await?.iter().map(|row| row.get(0)).collect()
}

/// Whether both users have joined some room.
pub(crate) async fn share_room(conn: &mut Conn, one: &UserId, other: &UserId) -> DbResult<bool> {
    Ok(conn.find(&SHARED_ROOM, args![one, other]).await?.is_some())
}

/// What a user is in those of the rooms that have to do with them.
pub(crate) async fn list_among(
    conn: &mut Conn,
    user_id: &UserId,
    rooms: &[&RoomId],
) -> DbResult<Vec<(OwnedRoomId, MembershipState)>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    let rows = conn.list(&LIST_AMONG, args![user_id, &rooms]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, MembershipState::from(row.get::<String>(1)?)))).collect()
}

/// How many are in each of the rooms that somebody is in.
pub(crate) async fn count_joined(conn: &mut Conn, rooms: &[&RoomId]) -> DbResult<Vec<(OwnedRoomId, i64)>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    conn.list(&COUNT_JOINED, args![&rooms]).await?.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

/// The rooms that both users are in, in the order of their identifiers.
pub(crate) async fn list_shared(conn: &mut Conn, one: &UserId, other: &UserId) -> DbResult<Vec<OwnedRoomId>> {
    conn.list(&LIST_SHARED, args![one, other]).await?.iter().map(|row| row.get(0)).collect()
}

/// Hides a room that a user has left.
pub(crate) async fn forget(conn: &mut Conn, user_id: &UserId, room_id: &RoomId) -> DbResult<()> {
    conn.execute(&FORGET, args![user_id, room_id]).await.map(drop)
}

fn membership(row: &Row) -> DbResult<RoomMembership> {
    Ok(RoomMembership {
        room_id: row.get(0)?,
        membership: MembershipState::from(row.get::<String>(1)?),
        position: Position(row.get(2)?),
        forgotten: row.get(3)?,
    })
}
