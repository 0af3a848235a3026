//! `memberships`: which user is what in which room, as the trunks say.
//!
//! It follows from the state of rooms and is kept beside it, because state can't be asked by user. It is written in the
//! transaction that changes the trunk, and only then: a change that resolution makes long after an event arrives here
//! as well. `room_servers` counts the members of each server, for whom events have to be sent to.

use std::collections::{BTreeMap, HashSet};

use ruma::{
    OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId,
    events::{StateEventType, room::member::MembershipState},
};
use serde::Deserialize;

use crate::{
    db::{Column, ColumnType, Conn, DbResult, Insert, Row, Tx, args, statements},
    event::StateChange,
    ground::position::{Order, Position},
};

statements! {
    LIST_OF_USER = "SELECT room_id, membership, position, forgotten FROM memberships WHERE user_id = $1";
    /// With the event by which it became so, where that is one event and has a place in the log.
    LIST_JOINED_EVENTS = "SELECT m.room_id, e.json FROM memberships m LEFT JOIN events e ON e.position = m.position
        WHERE m.user_id = $1 AND m.membership = 'join'";
    FIND_MEMBERSHIP = "SELECT room_id, membership, position, forgotten FROM memberships WHERE user_id = $1 AND room_id = $2";
    SHARED_ROOM = "SELECT a.room_id FROM memberships a JOIN memberships b ON b.room_id = a.room_id
        WHERE a.user_id = $1 AND b.user_id = $2 AND a.membership = 'join' AND b.membership = 'join' LIMIT 1";
    LIST_JOINED_AMONG = "SELECT room_id FROM memberships
        WHERE user_id = $1 AND membership = 'join' AND room_id IN LIST($2)";
    /// Those of the rooms that a user of a server is in.
    LIST_WITH_SERVER = "SELECT room_id FROM room_servers WHERE server_name = $1 AND room_id IN LIST($2)";
    LIST_JOINED_PAIRS = "SELECT room_id, user_id FROM memberships
        WHERE room_id IN LIST($1) AND user_id IN LIST($2) AND membership = 'join'";
    LIST_JOINED_ROOMS = "SELECT room_id FROM memberships WHERE user_id = $1 AND membership = 'join'";
    LIST_JOINED_OF = "SELECT user_id, room_id FROM memberships WHERE user_id IN LIST($1) AND membership = 'join'";
    LIST_ROOMS_OF = "SELECT DISTINCT room_id FROM memberships WHERE user_id IN LIST($1)";
    LIST_SHARING = "SELECT DISTINCT b.user_id FROM memberships b JOIN memberships a ON a.room_id = b.room_id
        WHERE b.user_id IN LIST($2) AND b.membership = 'join' AND a.user_id = $1 AND a.membership = 'join'";
    LIST_JOINED_USERS = "SELECT user_id FROM memberships WHERE room_id = $1 AND membership = 'join' LIMIT $2";
    /// Nobody of this server is in a room without an account.
    FIND_LOCAL_MEMBER = "SELECT m.user_id FROM memberships m JOIN accounts a ON a.user_id = m.user_id
        WHERE m.room_id = $1 AND m.membership = 'join' LIMIT 1";
    /// Whoever is in one of these rooms and has joined it, or changed their profile there, after $2.
    LIST_JOINED_SINCE = "SELECT DISTINCT m.user_id FROM rooms r
        JOIN state_versions v ON v.lineage = r.trunk AND v.from_order > $2
        JOIN memberships m ON m.room_id = r.room_id AND m.user_id = v.state_key AND m.membership = 'join'
        WHERE r.room_id IN LIST($1) AND v.type = 'm.room.member' LIMIT $3";
    /// Those of the users who are in one of the rooms.
    LIST_IN_ANY = "SELECT DISTINCT user_id FROM memberships
        WHERE user_id IN LIST($1) AND room_id IN LIST($2) AND membership = 'join'";
    /// In which of the rooms a membership has changed after $2, or the encryption.
    LIST_MOVED_ROOMS = "SELECT DISTINCT r.room_id, v.type FROM rooms r
        JOIN state_versions v ON v.lineage = r.trunk AND v.from_order > $2
        WHERE r.room_id IN LIST($1) AND v.type IN ('m.room.member', 'm.room.encryption')";
    /// Whose membership of a room has changed after $2, up to $3. A page of them, in their order, behind $4.
    LIST_MOVED = "SELECT DISTINCT v.state_key FROM rooms r
        JOIN state_versions v ON v.lineage = r.trunk AND v.type = 'm.room.member'
            AND v.from_order > $2 AND v.from_order <= $3 AND v.state_key > $4
        WHERE r.room_id = $1 ORDER BY v.state_key LIMIT $5";
    LIST_AMONG = "SELECT room_id, membership FROM memberships WHERE user_id = $1 AND room_id IN LIST($2)";
    COUNT_JOINED = "SELECT room_id, COUNT(*) FROM memberships
        WHERE room_id IN LIST($1) AND membership = 'join' GROUP BY room_id";
    COUNT_PRESENT = "SELECT COUNT(*) FROM memberships
        WHERE user_id = $1 AND membership IN ('join', 'invite', 'knock')";
    LIST_SHARED = "SELECT a.room_id FROM memberships a JOIN memberships b ON b.room_id = a.room_id
        WHERE a.user_id = $1 AND b.user_id = $2 AND a.membership = 'join' AND b.membership = 'join'
        ORDER BY a.room_id";
    LIST_ROOMS_WITH_SERVER = "SELECT room_id FROM room_servers
        WHERE room_id IN LIST($1) AND server_name = $2 AND members > 0";
    /// Those of the rooms in which users of another server than $2 are.
    LIST_SHARED_ROOMS = "SELECT DISTINCT room_id FROM room_servers WHERE room_id IN LIST($1) AND server_name <> $2";
    LIST_SERVERS = "SELECT server_name, members FROM room_servers WHERE room_id = $1";
    DROP_EMPTY_SERVERS = "DELETE FROM room_servers WHERE room_id IN LIST($1) AND members <= 0";
    /// Whoever has come back in the meantime has not forgotten.
    FORGET = "UPDATE memberships SET forgotten = TRUE
        WHERE user_id = $1 AND room_id = $2 AND membership IN ('leave', 'ban')";
}

// The position is that of the event which made somebody what they are now, and of their profile's change as well.
static UPSERT_MEMBERSHIPS: Insert = Insert::new(
    "UPSERT_MEMBERSHIPS",
    "memberships",
    &[
        ("user_id", ColumnType::Text),
        ("room_id", ColumnType::Text),
        ("membership", ColumnType::Text),
        ("position", ColumnType::Int),
        ("forgotten", ColumnType::Bool),
    ],
    // Who has forgotten a room hears no more of it until they are in it again, invited or knocking.
    "ON CONFLICT (user_id, room_id) DO UPDATE SET membership = excluded.membership, position = excluded.position,
        forgotten = memberships.forgotten AND excluded.membership IN ('leave', 'ban')",
);

/// What is inserted is by how many there are more, or fewer.
static CHANGE_SERVERS: Insert = Insert::new(
    "CHANGE_SERVERS",
    "room_servers",
    &[("room_id", ColumnType::Text), ("server_name", ColumnType::Text), ("members", ColumnType::Int)],
    "ON CONFLICT (room_id, server_name) DO UPDATE SET members = room_servers.members + excluded.members",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&UPSERT_MEMBERSHIPS, &CHANGE_SERVERS];

/// A membership as the trunk has it from a position on.
pub(crate) struct MembershipRow<'a> {
    pub(crate) user_id: &'a UserId,
    pub(crate) room_id: &'a RoomId,
    pub(crate) state: MembershipState,
    pub(crate) position: Position,
}

/// Whether anybody may have been in a room before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// It begins with what is being written.
    Nobody,
    Somebody,
}

impl<'a> MembershipRow<'a> {
    /// What a change of the trunk says about somebody's membership, if it does.
    pub(crate) fn of(change: &'a StateChange, room_id: &'a RoomId, position: Position) -> Option<Self> {
        if change.kind != StateEventType::RoomMember.to_string() {
            return None;
        }
        let user_id = <&UserId>::try_from(change.state_key.as_str()).ok()?;
        // No event, or one that can't be read: they are not in the room.
        let state = change.event.as_ref().map_or(MembershipState::Leave, |pdu| {
            pdu.content_as::<MembershipContent>().map_or(MembershipState::Leave, |content| content.membership)
        });
        Some(Self { user_id, room_id, state, position })
    }
}

/// What may have changed in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MovedKind {
    Member,
    Encryption,
}

#[derive(Deserialize)]
struct MembershipContent {
    membership: MembershipState,
}

/// A user's membership of one room.
///
/// `position` is where in the log it became so.
#[derive(Clone, Debug)]
pub(crate) struct RoomMembership {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) membership: MembershipState,
    pub(crate) position: Position,
    pub(crate) forgotten: bool,
}

/// Writes memberships, and how many members each server has in their rooms from then on.
///
/// At most one of each user in each room: PostgreSQL changes no row twice in one statement.
pub(crate) async fn upsert(tx: &mut Tx, rows: &[(MembershipRow<'_>, Before)]) -> DbResult<()> {
    count_by_server(tx, rows).await?;
    tx.insert(&UPSERT_MEMBERSHIPS, &membership_columns(rows.iter().map(|(row, _)| row))).await
}

/// Writes memberships of a room that there is not yet. How many members each server has there is counted once there is.
pub(crate) async fn prepare(tx: &mut Tx, rows: &[MembershipRow<'_>]) -> DbResult<()> {
    tx.insert(&UPSERT_MEMBERSHIPS, &membership_columns(rows.iter())).await
}

/// So many members more each server has in rooms.
pub(crate) async fn count_servers(tx: &mut Tx, changes: &[(&RoomId, &ServerName, i64)]) -> DbResult<()> {
    let columns = [
        Column::texts(changes.iter().map(|(room_id, ..)| room_id.as_str())),
        Column::texts(changes.iter().map(|(_, server, _)| server.as_str())),
        Column::ints(changes.iter().map(|(.., by)| *by)),
    ];
    tx.insert(&CHANGE_SERVERS, &columns).await
}

fn membership_columns<'a, 'b: 'a>(rows: impl Iterator<Item = &'a MembershipRow<'b>> + Clone) -> [Column<'a>; 5] {
    [
        Column::texts(rows.clone().map(|row| row.user_id.as_str())),
        Column::texts(rows.clone().map(|row| row.room_id.as_str())),
        Column::texts(rows.clone().map(|row| row.state.as_str())),
        Column::ints(rows.clone().map(|row| row.position.0)),
        Column::Bools(rows.map(|_| false).collect()),
    ]
}

/// Takes the memberships that are about to be written into account. Nobody else changes these rooms meanwhile: their
/// rows are locked.
///
/// Before the rows are written, because it has to be known who was in before.
async fn count_by_server(tx: &mut Tx, rows: &[(MembershipRow<'_>, Before)]) -> DbResult<()> {
    let older = || rows.iter().filter(|(_, before)| *before == Before::Somebody).map(|(row, _)| row);
    let rooms: HashSet<&RoomId> = older().map(|row| row.room_id).collect();
    let users: HashSet<&UserId> = older().map(|row| row.user_id).collect();
    let joined = if rooms.is_empty() {
        HashSet::new()
    } else {
        list_joined_pairs(tx, &rooms.into_iter().collect::<Vec<_>>(), &users.into_iter().collect::<Vec<_>>()).await?
    };
    let mut changes: BTreeMap<(&RoomId, &ServerName), i64> = BTreeMap::new();
    for (row, _) in rows {
        let was_in = joined.contains(&(row.room_id.to_owned(), row.user_id.to_owned()));
        let is_in = row.state == MembershipState::Join;
        // A member who changes their name was in and is in: that counts nothing.
        *changes.entry((row.room_id, row.user_id.server_name())).or_default() += i64::from(is_in) - i64::from(was_in);
    }
    changes.retain(|_, by| *by != 0);
    let counted: Vec<_> = changes.iter().map(|((room_id, server), by)| (*room_id, *server, *by)).collect();
    count_servers(tx, &counted).await?;
    let fewer: Vec<&str> =
        changes.iter().filter(|(_, by)| **by < 0).map(|((room_id, _), _)| room_id.as_str()).collect();
    if !fewer.is_empty() {
        tx.execute(&DROP_EMPTY_SERVERS, args![&fewer]).await?;
    }
    Ok(())
}

/// Which of these users are in which of these rooms.
///
/// The pairs that were not asked for are among them where both were: whoever asks looks only for their own.
async fn list_joined_pairs(
    conn: &mut Conn,
    rooms: &[&RoomId],
    users: &[&UserId],
) -> DbResult<HashSet<(OwnedRoomId, OwnedUserId)>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    let users: Vec<&str> = users.iter().map(|user| user.as_str()).collect();
    let rows = conn.list(&LIST_JOINED_PAIRS, args![&rooms, &users]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

/// Those of the rooms in which users of a server are.
pub(crate) async fn list_rooms_with_server(
    conn: &mut Conn,
    rooms: &[&RoomId],
    server: &ServerName,
) -> DbResult<Vec<OwnedRoomId>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    conn.list(&LIST_ROOMS_WITH_SERVER, args![&rooms, server.as_str()]).await?.iter().map(|row| row.get(0)).collect()
}

/// Those of the rooms in which users of other servers are than of this one.
pub(crate) async fn list_shared_rooms(
    conn: &mut Conn,
    rooms: &[&RoomId],
    here: &ServerName,
) -> DbResult<Vec<OwnedRoomId>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    conn.list(&LIST_SHARED_ROOMS, args![&rooms, here.as_str()]).await?.iter().map(|row| row.get(0)).collect()
}

/// How many members each server has in a room.
pub(crate) async fn list_servers(conn: &mut Conn, room_id: &RoomId) -> DbResult<BTreeMap<OwnedServerName, i64>> {
    conn.list(&LIST_SERVERS, args![room_id]).await?.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

/// Every room that a user is or was in.
pub(crate) async fn list_of_user(conn: &mut Conn, user_id: &UserId) -> DbResult<Vec<RoomMembership>> {
    conn.list(&LIST_OF_USER, args![user_id]).await?.iter().map(membership).collect()
}

/// The rooms that a user is in, each with the JSON of the event at the place where that became so. It is mostly their
/// membership event; where state was resolved it may be any other.
pub(crate) async fn list_joined_events(
    conn: &mut Conn,
    user_id: &UserId,
) -> DbResult<Vec<(OwnedRoomId, Option<String>)>> {
    let rows = conn.list(&LIST_JOINED_EVENTS, args![user_id]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

/// In how many rooms a user is, invited to how many, and knocking on how many, all together.
pub(crate) async fn count_present(conn: &mut Conn, user_id: &UserId) -> DbResult<i64> {
    conn.find(&COUNT_PRESENT, args![user_id]).await?.map_or(Ok(0), |row| row.get(0))
}

/// What a user is in a room, or none if they never had anything to do with it.
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

/// Those of the rooms that somebody of a server is in.
pub(crate) async fn list_with_server(
    conn: &mut Conn,
    server: &ServerName,
    rooms: &[&RoomId],
) -> DbResult<Vec<OwnedRoomId>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    conn.list(&LIST_WITH_SERVER, args![server.as_str(), &rooms]).await?.iter().map(|row| row.get(0)).collect()
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

/// The rooms that any of these users is or was in.
///
/// Left and banned from included: by whatever they were once, something of them may be in memory.
pub(crate) async fn list_rooms_of(conn: &mut Conn, users: &[&UserId]) -> DbResult<HashSet<OwnedRoomId>> {
    let users: Vec<&str> = users.iter().map(|user| user.as_str()).collect();
    conn.list(&LIST_ROOMS_OF, args![&users]).await?.iter().map(|row| row.get(0)).collect()
}

/// Those of these users who are in a room that the first is in.
pub(crate) async fn list_sharing(conn: &mut Conn, one: &UserId, users: &[&UserId]) -> DbResult<Vec<OwnedUserId>> {
    let users: Vec<&str> = users.iter().map(|user| user.as_str()).collect();
    conn.list(&LIST_SHARING, args![one, &users]).await?.iter().map(|row| row.get(0)).collect()
}

/// Those of these users who are in one of these rooms.
pub(crate) async fn list_in_any(conn: &mut Conn, users: &[&UserId], rooms: &[&RoomId]) -> DbResult<Vec<OwnedUserId>> {
    let users: Vec<&str> = users.iter().map(|user| user.as_str()).collect();
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    conn.list(&LIST_IN_ANY, args![&users, &rooms]).await?.iter().map(|row| row.get(0)).collect()
}

/// In which of these rooms something has changed after a place by which somebody may have come or gone, or the room may
/// have become encrypted: two rows of each at most.
///
/// Whether it has changed back, or was nobody's coming and going but their new name, is not looked at.
pub(crate) async fn list_moved_rooms(
    conn: &mut Conn,
    rooms: &[&RoomId],
    after: Position,
) -> DbResult<Vec<(OwnedRoomId, MovedKind)>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    let rows = conn.list(&LIST_MOVED_ROOMS, args![&rooms, Order::at(after).0]).await?;
    let kind = |name: String| if name == "m.room.member" { MovedKind::Member } else { MovedKind::Encryption };
    rows.iter().map(|row| Ok((row.get(0)?, kind(row.get(1)?)))).collect()
}

/// Whose membership of a room has changed after a place, up to another: the first `most` keys behind `beyond`, in
/// their order. Behind the empty one are all of them.
///
/// As the state has them, so that a page can be asked for behind what is no user's name.
pub(crate) async fn list_moved(
    conn: &mut Conn,
    room_id: &RoomId,
    (after, until): (Position, Position),
    (beyond, most): (&str, i64),
) -> DbResult<Vec<String>> {
    let places = (Order::at(after).0, Order::at(until).0);
    let rows = conn.list(&LIST_MOVED, args![room_id, places.0, places.1, beyond, most]).await?;
    rows.iter().map(|row| row.get(0)).collect()
}

/// Those who are in a room, at most so many.
pub(crate) async fn list_joined_users(conn: &mut Conn, room_id: &RoomId, limit: i64) -> DbResult<Vec<OwnedUserId>> {
    conn.list(&LIST_JOINED_USERS, args![room_id, limit]).await?.iter().map(|row| row.get(0)).collect()
}

/// Somebody of this server who is in a room, whoever it is.
pub(crate) async fn find_local_member(conn: &mut Conn, room_id: &RoomId) -> DbResult<Option<OwnedUserId>> {
    conn.find(&FIND_LOCAL_MEMBER, args![room_id]).await?.map(|row| row.get(0)).transpose()
}

/// Those who are in one of the rooms and have joined it, or changed their profile there, after a place; at most so
/// many.
pub(crate) async fn list_joined_since(
    conn: &mut Conn,
    rooms: &[&RoomId],
    after: Position,
    limit: i64,
) -> DbResult<Vec<OwnedUserId>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    conn.list(&LIST_JOINED_SINCE, args![&rooms, Order::at(after).0, limit])
        .await?
        .iter()
        .map(|row| row.get(0))
        .collect()
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
///
/// Rooms that nobody is in are left out.
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
