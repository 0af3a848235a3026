//! `inbound_pdus`, `inbound_rooms` and `inbound_transactions`: what other servers have sent and is not taken in yet.
//!
//! Rows are locked in this order: transactions, events, rooms. A room's row is there as long as one of its events is: who
//! adds an event writes the room after it, and who takes the last one away holds the room's row when looking for more.

use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName};

use crate::{
    db::{Column, ColumnType, Conn, DbResult, Insert, Row, Tx, args, statements},
    event::fact::NodeId,
};

statements! {
    INSERT_INBOUND_TRANSACTION = "INSERT INTO inbound_transactions (origin, transaction_id, answer, received_ts)
        VALUES ($1, $2, $3, $4) ON CONFLICT (origin, transaction_id) DO NOTHING";
    FIND_ANSWER = "SELECT answer FROM inbound_transactions WHERE origin = $1 AND transaction_id = $2";
    FIND_LAST_TRANSACTION = "SELECT MAX(received_ts) FROM inbound_transactions WHERE origin = $1";
    DELETE_OLD_TRANSACTIONS = "DELETE FROM inbound_transactions WHERE received_ts < $1";
    /// No more than $2 are counted.
    COUNT_OF_ORIGIN = "SELECT COUNT(*) FROM (SELECT event_id FROM inbound_pdus WHERE origin = $1 LIMIT $2) backlog";
    NOTE_ROOM = "INSERT INTO inbound_rooms (room_id, node_id, until_ts, due_ts) VALUES ($1, '', 0, $2)
        ON CONFLICT (room_id) DO UPDATE SET due_ts = excluded.due_ts WHERE inbound_rooms.due_ts > excluded.due_ts";
    LIST_WAITING_ROOMS = "SELECT room_id, node_id, until_ts, due_ts FROM inbound_rooms
        WHERE due_ts <= $1 ORDER BY due_ts, room_id LIMIT $2";
    /// If nobody has done so since it was listed.
    CLAIM_ROOM = "UPDATE inbound_rooms SET node_id = $2, until_ts = $3
        WHERE room_id = $1 AND node_id = $4 AND until_ts = $5";
    KEEP_ROOM = "UPDATE inbound_rooms SET until_ts = $3 WHERE room_id = $1 AND node_id = $2";
    LOCK_INBOUND_ROOM = "SELECT node_id FROM inbound_rooms WHERE room_id = $1 FOR UPDATE";
    RELEASE_ROOM = "UPDATE inbound_rooms SET node_id = '', until_ts = 0, due_ts = $2 WHERE room_id = $1";
    DELETE_INBOUND_ROOM = "DELETE FROM inbound_rooms WHERE room_id = $1";
    LIST_INBOUND_PDUS = "SELECT origin, event_id, json, tries FROM inbound_pdus
        WHERE room_id = $1 AND due_ts <= $2 ORDER BY number, event_id LIMIT $3";
    FIND_NEXT_DUE = "SELECT MIN(due_ts) FROM inbound_pdus WHERE room_id = $1";
    DELETE_INBOUND_PDUS = "DELETE FROM inbound_pdus WHERE origin = $1 AND event_id IN LIST($2)";
    POSTPONE_PDU = "UPDATE inbound_pdus SET due_ts = $3, tries = $4 WHERE origin = $1 AND event_id = $2";
}

/// One that its server has sent before stays as it is.
static INSERT_INBOUND_PDUS: Insert = Insert::new(
    "INSERT_INBOUND_PDUS",
    "inbound_pdus",
    &[
        ("origin", ColumnType::Text),
        ("event_id", ColumnType::Text),
        ("room_id", ColumnType::Text),
        ("number", ColumnType::Int),
        ("json", ColumnType::Text),
        ("due_ts", ColumnType::Int),
        ("tries", ColumnType::Int),
    ],
    "ON CONFLICT (origin, event_id) DO NOTHING",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&INSERT_INBOUND_PDUS];

/// A transaction that is to be acknowledged.
pub(crate) struct NewTransaction<'a> {
    pub(crate) origin: &'a ServerName,
    pub(crate) id: &'a str,
    /// JSON.
    pub(crate) answer: &'a str,
}

/// An event that is to be taken in.
pub(crate) struct NewPdu<'a> {
    pub(crate) origin: &'a ServerName,
    pub(crate) event_id: &'a OwnedEventId,
    pub(crate) room_id: &'a RoomId,
    pub(crate) json: &'a str,
    /// Events of a room are taken in by these numbers.
    pub(crate) number: i64,
}

/// An event that waits.
#[derive(Clone, Debug)]
pub(crate) struct InboundPdu {
    /// The server that has sent it, which need not be its sender's.
    pub(crate) origin: OwnedServerName,
    pub(crate) event_id: OwnedEventId,
    /// As it came.
    pub(crate) json: String,
    /// How often it could not be taken in.
    pub(crate) tries: i64,
}

/// A room with events that are due.
#[derive(Clone, Debug)]
pub(crate) struct WaitingRoom {
    pub(crate) room_id: OwnedRoomId,
    /// The node that has it. An empty name where none has.
    pub(crate) holder: NodeId,
    /// Until when it has it.
    pub(crate) until: i64,
    /// Since when something is to be done.
    pub(crate) due: i64,
}

/// Remembers that a transaction has come. False where it is known already.
pub(crate) async fn insert_transaction(tx: &mut Tx, new: &NewTransaction<'_>, now: i64) -> DbResult<bool> {
    let args = args![new.origin.as_str(), new.id, new.answer, now];
    Ok(tx.execute(&INSERT_INBOUND_TRANSACTION, args).await? == 1)
}

/// What was answered to a transaction, as JSON.
pub(crate) async fn find_answer(conn: &mut Conn, origin: &ServerName, id: &str) -> DbResult<Option<String>> {
    conn.find(&FIND_ANSWER, args![origin.as_str(), id]).await?.map(|row| row.get(0)).transpose()
}

/// When the last transaction of a server came, if one is remembered.
pub(crate) async fn find_last_transaction(conn: &mut Conn, origin: &ServerName) -> DbResult<Option<i64>> {
    conn.find(&FIND_LAST_TRANSACTION, args![origin.as_str()]).await?.map_or(Ok(None), |row| row.get(0))
}

/// Forgets transactions from before a time.
pub(crate) async fn delete_old_transactions(conn: &mut Conn, before: i64) -> DbResult<()> {
    conn.execute(&DELETE_OLD_TRANSACTIONS, args![before]).await.map(drop)
}

/// How many events of a server wait, up to `most`.
pub(crate) async fn count_of(conn: &mut Conn, origin: &ServerName, most: i64) -> DbResult<i64> {
    conn.find(&COUNT_OF_ORIGIN, args![origin.as_str(), most]).await?.map_or(Ok(0), |row| row.get(0))
}

/// Has events wait to be taken in, from `now` on.
pub(crate) async fn insert(tx: &mut Tx, pdus: &[NewPdu<'_>], now: i64) -> DbResult<()> {
    if pdus.is_empty() {
        return Ok(());
    }
    let columns = [
        Column::texts(pdus.iter().map(|pdu| pdu.origin.as_str())),
        Column::texts(pdus.iter().map(|pdu| pdu.event_id.as_str())),
        Column::texts(pdus.iter().map(|pdu| pdu.room_id.as_str())),
        Column::ints(pdus.iter().map(|pdu| pdu.number)),
        Column::texts(pdus.iter().map(|pdu| pdu.json)),
        Column::ints(pdus.iter().map(|_| now)),
        Column::ints(pdus.iter().map(|_| 0)),
    ];
    tx.insert(&INSERT_INBOUND_PDUS, &columns).await?;
    let mut rooms: Vec<&RoomId> = pdus.iter().map(|pdu| pdu.room_id).collect();
    rooms.sort_unstable();
    rooms.dedup();
    for room_id in rooms {
        tx.execute(&NOTE_ROOM, args![room_id, now]).await?;
    }
    Ok(())
}

/// Rooms in which something is to be done by `now`, those that have waited for longest first, whoever has them.
pub(crate) async fn list_rooms(conn: &mut Conn, now: i64, limit: i64) -> DbResult<Vec<WaitingRoom>> {
    let room = |row: &Row| {
        let holder = NodeId::from(row.get::<String>(1)?);
        Ok(WaitingRoom { room_id: row.get(0)?, holder, until: row.get(2)?, due: row.get(3)? })
    };
    conn.list(&LIST_WAITING_ROOMS, args![now, limit]).await?.iter().map(room).collect()
}

/// Takes a room for a node. False where another was faster.
pub(crate) async fn claim(conn: &mut Conn, room: &WaitingRoom, here: &NodeId, until: i64) -> DbResult<bool> {
    let args = args![&room.room_id, here.as_str(), until, room.holder.as_str(), room.until];
    Ok(conn.execute(&CLAIM_ROOM, args).await? == 1)
}

/// Goes on having a room. False where another has it.
pub(crate) async fn keep(conn: &mut Conn, room_id: &RoomId, here: &NodeId, until: i64) -> DbResult<bool> {
    Ok(conn.execute(&KEEP_ROOM, args![room_id, here.as_str(), until]).await? == 1)
}

/// The node that has a room, which stays so until the transaction ends. An empty name where none has, None where nothing
/// waits there.
pub(crate) async fn lock_room(tx: &mut Tx, room_id: &RoomId) -> DbResult<Option<NodeId>> {
    let row = tx.find(&LOCK_INBOUND_ROOM, args![room_id]).await?;
    row.map(|row| row.get::<String>(0).map(NodeId::from)).transpose()
}

/// Nobody has the room any more, in which something is to be done at `due`.
pub(crate) async fn release(tx: &mut Tx, room_id: &RoomId, due: i64) -> DbResult<()> {
    tx.execute(&RELEASE_ROOM, args![room_id, due]).await.map(drop)
}

/// Nothing waits there any more.
pub(crate) async fn delete_room(tx: &mut Tx, room_id: &RoomId) -> DbResult<()> {
    tx.execute(&DELETE_INBOUND_ROOM, args![room_id]).await.map(drop)
}

/// Events of a room that are due by `now`, in their order.
pub(crate) async fn list(conn: &mut Conn, room_id: &RoomId, now: i64, limit: i64) -> DbResult<Vec<InboundPdu>> {
    let pdu = |row: &Row| {
        Ok(InboundPdu { origin: row.get(0)?, event_id: row.get(1)?, json: row.get(2)?, tries: row.get(3)? })
    };
    conn.list(&LIST_INBOUND_PDUS, args![room_id, now, limit]).await?.iter().map(pdu).collect()
}

/// When the next event of a room is due. None where none waits.
pub(crate) async fn find_next_due(conn: &mut Conn, room_id: &RoomId) -> DbResult<Option<i64>> {
    conn.find(&FIND_NEXT_DUE, args![room_id]).await?.map_or(Ok(None), |row| row.get(0))
}

/// They wait no longer.
pub(crate) async fn delete(tx: &mut Tx, origin: &ServerName, event_ids: &[&str]) -> DbResult<()> {
    tx.execute(&DELETE_INBOUND_PDUS, args![origin.as_str(), event_ids]).await.map(drop)
}

/// Has an event be tried again at `due`, after so many tries.
pub(crate) async fn postpone(tx: &mut Tx, pdu: &InboundPdu, due: i64, tries: i64) -> DbResult<()> {
    tx.execute(&POSTPONE_PDU, args![pdu.origin.as_str(), &pdu.event_id, due, tries]).await.map(drop)
}
