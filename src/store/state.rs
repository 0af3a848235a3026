//! `state_versions`, `state_forks`, `state_fork_changes`: a room's state at any place, as changes.
//!
//! The trunk holds one row for each change of the resolved state. A state that is not the trunk's is a fork:
//! a line at a base position with a few changes. A fork that would need too many of them starts a line of its
//! own, which stands whole at position 0, where no event is.

use std::{collections::HashMap, sync::Arc};

use ruma::{OwnedRoomId, RoomId, UserId};

use crate::{
    db::{Column, Conn, DbResult, Insert, Kind, Row, Tx, args, statements},
    event::{Pdu, StateChange, Stored},
    position::Position,
    store::room::Lineage,
};

statements! {
    /// Everything at $2: for each key the newest row, unless that says that the key is gone.
    STATE_AT = "SELECT v.type, v.state_key, v.event_position FROM state_versions v
        JOIN (SELECT type, state_key, MAX(from_position) AS newest FROM state_versions
            WHERE lineage = $1 AND from_position <= $2 GROUP BY type, state_key) n
        ON v.type = n.type AND v.state_key = n.state_key AND v.from_position = n.newest
        WHERE v.lineage = $1 AND v.event_position IS NOT NULL";
    /// Whole events, as `store::event` reads them; so below.
    FIND_AT = "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces
        FROM events e JOIN rooms r ON r.room_id = e.room_id
        WHERE e.position = (SELECT event_position FROM state_versions
            WHERE lineage = $1 AND type = $2 AND state_key = $3 AND from_position <= $4 ORDER BY from_position DESC LIMIT 1)";
    /// For each of the keys the newest row at $4; none where that says that the key is gone.
    KEYS_AT = "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces
        FROM (SELECT state_key, MAX(from_position) AS newest FROM state_versions
            WHERE lineage = $1 AND type = $2 AND state_key IN LIST($3) AND from_position <= $4 GROUP BY state_key) n
        CROSS JOIN state_versions v CROSS JOIN events e CROSS JOIN rooms r
        WHERE v.lineage = $1 AND v.type = $2 AND v.state_key = n.state_key AND v.from_position = n.newest
            AND e.position = v.event_position AND r.room_id = e.room_id";
    /// The events of one type at places of their own, each with the number that it was asked for by.
    EACH_AT = "SELECT w.key, e.event_id, e.json, r.version FROM json_each($1) w CROSS JOIN events e CROSS JOIN rooms r
        WHERE e.position = (SELECT v.event_position FROM state_versions v
                WHERE v.lineage = w.value ->> 0 AND v.type = $2 AND v.state_key = w.value ->> 1
                    AND v.from_position <= w.value ->> 2 ORDER BY v.from_position DESC LIMIT 1)
            AND r.room_id = e.room_id"
        | "SELECT w.number - 1, e.event_id, e.json, r.version
        FROM jsonb_array_elements(CAST($1 AS jsonb)) WITH ORDINALITY AS w(value, number)
        JOIN events e ON e.position = (SELECT v.event_position FROM state_versions v
            WHERE v.lineage = CAST(w.value ->> 0 AS BIGINT) AND v.type = $2 AND v.state_key = w.value ->> 1
                AND v.from_position <= CAST(w.value ->> 2 AS BIGINT) ORDER BY v.from_position DESC LIMIT 1)
        JOIN rooms r ON r.room_id = e.room_id";
    /// What stands now under some types in some rooms.
    LIST_CURRENT = "SELECT v.event_position FROM rooms r
        JOIN state_versions v ON v.lineage = r.trunk AND v.type IN LIST($2)
        WHERE r.room_id IN LIST($1) AND v.event_position IS NOT NULL AND NOT EXISTS (SELECT 1 FROM state_versions later
            WHERE later.lineage = v.lineage AND later.type = v.type AND later.state_key = v.state_key
                AND later.from_position > v.from_position)";
    /// The same of one type, under some keys.
    LIST_CURRENT_OF = "SELECT v.event_position FROM rooms r
        JOIN state_versions v ON v.lineage = r.trunk AND v.type = $2 AND v.state_key IN LIST($3)
        WHERE r.room_id IN LIST($1) AND v.event_position IS NOT NULL AND NOT EXISTS (SELECT 1 FROM state_versions later
            WHERE later.lineage = v.lineage AND later.type = v.type AND later.state_key = v.state_key
                AND later.from_position > v.from_position)";
    /// The rooms that $1 is in and that have or had something under a key.
    LIST_ROOMS_WITH = "SELECT DISTINCT r.room_id FROM memberships m JOIN rooms r ON r.room_id = m.room_id
        JOIN state_versions v ON v.lineage = r.trunk AND v.type = $2 AND v.state_key = $3
        WHERE m.user_id = $1 AND m.membership = 'join'";
    VERSIONS_OF = "SELECT v.from_position, v.event_position, e.event_id, e.json, r.version FROM state_versions v
        LEFT JOIN events e ON e.position = v.event_position LEFT JOIN rooms r ON r.room_id = e.room_id
        WHERE v.lineage = $1 AND v.type = $2 AND v.state_key = $3 ORDER BY v.from_position";
    /// Of two keys in some rooms, at one moment.
    VERSIONS_OF_BOTH = "SELECT v.from_position, v.event_position, e.event_id, e.json, r.version, v.lineage, CAST(0 AS BIGINT)
        FROM state_versions v
        LEFT JOIN events e ON e.position = v.event_position LEFT JOIN rooms r ON r.room_id = e.room_id
        WHERE v.lineage IN LIST($1) AND v.type = $2 AND v.state_key = $3
        UNION ALL SELECT v.from_position, v.event_position, e.event_id, e.json, r.version, v.lineage, CAST(1 AS BIGINT)
        FROM state_versions v
        LEFT JOIN events e ON e.position = v.event_position LEFT JOIN rooms r ON r.room_id = e.room_id
        WHERE v.lineage IN LIST($1) AND v.type = $4 AND v.state_key = $5
        ORDER BY 1";
    CHANGES_BETWEEN = "SELECT type, state_key, from_position, event_position FROM state_versions
        WHERE lineage = $1 AND from_position > $2 AND from_position <= $3 ORDER BY from_position";
    /// Of the trunks of these rooms, for the readers of a stretch of the log.
    CHANGES_AT = "SELECT v.type, v.state_key, v.from_position, v.event_position FROM rooms r
        JOIN state_versions v ON v.lineage = r.trunk AND v.from_position >= $2 AND v.from_position <= $3
        WHERE r.room_id IN LIST($1)";
    FIND_FORK = "SELECT lineage, base_position FROM state_forks WHERE fork = $1";
    LIST_FORK_CHANGES = "SELECT type, state_key, event_position FROM state_fork_changes WHERE fork = $1";
}

static INSERT_VERSIONS: Insert = Insert::new(
    "INSERT_VERSIONS",
    "state_versions",
    &[
        ("lineage", Kind::Int),
        ("type", Kind::Text),
        ("state_key", Kind::Text),
        ("from_position", Kind::Int),
        ("event_position", Kind::Int),
    ],
    "",
);

static INSERT_FORKS: Insert = Insert::new(
    "INSERT_FORKS",
    "state_forks",
    &[("fork", Kind::Int), ("lineage", Kind::Int), ("base_position", Kind::Int)],
    "",
);

static INSERT_FORK_CHANGES: Insert = Insert::new(
    "INSERT_FORK_CHANGES",
    "state_fork_changes",
    &[("fork", Kind::Int), ("type", Kind::Text), ("state_key", Kind::Text), ("event_position", Kind::Int)],
    "",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&INSERT_VERSIONS, &INSERT_FORKS, &INSERT_FORK_CHANGES];

/// A change of a line, on its way into the table.
pub(crate) struct Version<'a> {
    pub(crate) line: Lineage,
    pub(crate) change: &'a StateChange,
    pub(crate) from: Position,
    pub(crate) event: Option<Position>,
}

/// How a fork differs from its base in one key.
pub(crate) struct ForkChange<'a> {
    pub(crate) fork: Position,
    pub(crate) change: &'a StateChange,
    pub(crate) event: Option<Position>,
}

/// A key of the state and the place of its event; none where the key is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyAt {
    pub(crate) kind: String,
    pub(crate) state_key: String,
    pub(crate) event: Option<Position>,
}

pub(crate) async fn insert_versions(tx: &mut Tx, versions: &[Version<'_>]) -> DbResult<()> {
    let columns = [
        Column::ints(versions.iter().map(|v| v.line.0)),
        Column::texts(versions.iter().map(|v| v.change.kind.as_str())),
        Column::texts(versions.iter().map(|v| v.change.state_key.as_str())),
        Column::ints(versions.iter().map(|v| v.from.0)),
        Column::Ints(versions.iter().map(|v| v.event.map(|at| at.0)).collect()),
    ];
    tx.insert(&INSERT_VERSIONS, &columns).await
}

pub(crate) async fn insert_forks(
    tx: &mut Tx,
    forks: &[(Position, Lineage, Position)],
    changes: &[ForkChange<'_>],
) -> DbResult<()> {
    let columns = [
        Column::ints(forks.iter().map(|(fork, ..)| fork.0)),
        Column::ints(forks.iter().map(|(_, lineage, _)| lineage.0)),
        Column::ints(forks.iter().map(|(_, _, base)| base.0)),
    ];
    tx.insert(&INSERT_FORKS, &columns).await?;
    let columns = [
        Column::ints(changes.iter().map(|c| c.fork.0)),
        Column::texts(changes.iter().map(|c| c.change.kind.as_str())),
        Column::texts(changes.iter().map(|c| c.change.state_key.as_str())),
        Column::Ints(changes.iter().map(|c| c.event.map(|at| at.0)).collect()),
    ];
    tx.insert(&INSERT_FORK_CHANGES, &columns).await
}

/// The whole state of a line just after `at`.
pub(crate) async fn list_at(conn: &mut Conn, line: Lineage, at: Position) -> DbResult<Vec<KeyAt>> {
    conn.list(&STATE_AT, args![line.0, at.0]).await?.iter().map(key_at).collect()
}

/// The event that a key has just after `at`.
pub(crate) async fn find_at(
    conn: &mut Conn,
    line: Lineage,
    kind: &str,
    state_key: &str,
    at: Position,
) -> DbResult<Option<Stored>> {
    Ok(super::event::read(conn, &FIND_AT, args![line.0, kind, state_key, at.0]).await?.pop())
}

/// The events that some keys of one type have just after `at`.
pub(crate) async fn list_keys_at(
    conn: &mut Conn,
    line: Lineage,
    kind: &str,
    state_keys: &[&str],
    at: Position,
) -> DbResult<Vec<Stored>> {
    super::event::read(conn, &KEYS_AT, args![line.0, kind, state_keys, at.0]).await
}

/// The events that keys of one type have just after places of their own, by their number. They do not tell what redacted
/// them.
pub(crate) async fn list_each_at(
    conn: &mut Conn,
    kind: &str,
    wanted: &[(Lineage, &str, Position)],
) -> DbResult<HashMap<usize, Arc<Pdu>>> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let wanted: Vec<_> = wanted.iter().map(|(line, state_key, at)| (line.0, state_key, at)).collect();
    let wanted = serde_json::json!(wanted).to_string();
    let rows = conn.list(&EACH_AT, args![&wanted, kind]).await?;
    let event = |row: &Row| Ok((usize::try_from(row.get::<i64>(0)?).unwrap_or(usize::MAX), super::event::pdu(row, 1)?));
    rows.iter().map(event).collect()
}

/// What a key held from some place on.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) from: Position,
    /// The event and its place; none where the key is gone. It does not tell what redacted it.
    pub(crate) event: Option<(Position, Arc<Pdu>)>,
}

/// Everything that a key has held, oldest first.
pub(crate) async fn versions_of(
    conn: &mut Conn,
    line: Lineage,
    (kind, state_key): (&str, &str),
) -> DbResult<Vec<Held>> {
    conn.list(&VERSIONS_OF, args![line.0, kind, state_key]).await?.iter().map(held).collect()
}

/// The same of two keys in some rooms, at one moment.
pub(crate) async fn versions_of_both(
    conn: &mut Conn,
    lines: &[Lineage],
    [first, second]: [(&str, &str); 2],
) -> DbResult<HashMap<Lineage, [Vec<Held>; 2]>> {
    let mut versions: HashMap<Lineage, [Vec<Held>; 2]> = HashMap::new();
    let lines: Vec<i64> = lines.iter().map(|line| line.0).collect();
    for row in conn.list(&VERSIONS_OF_BOTH, args![&lines, first.0, first.1, second.0, second.1]).await? {
        let [of_first, of_second] = versions.entry(Lineage(row.get(5)?)).or_default();
        let versions = if row.get::<i64>(6)? == 0 { of_first } else { of_second };
        versions.push(held(&row)?);
    }
    Ok(versions)
}

fn held(row: &Row) -> DbResult<Held> {
    let place: Option<i64> = row.get(1)?;
    let event = place.map(|place| Ok((Position(place), super::event::pdu(row, 2)?))).transpose()?;
    Ok(Held { from: Position(row.get(0)?), event })
}

/// The changes of a line after `after`, up to `until`, each with its place, oldest first.
pub(crate) async fn changes_between(
    conn: &mut Conn,
    line: Lineage,
    after: Position,
    until: Position,
) -> DbResult<Vec<(Position, KeyAt)>> {
    conn.list(&CHANGES_BETWEEN, args![line.0, after.0, until.0]).await?.iter().map(change_at).collect()
}

/// The places of the events that hold state of these types in these rooms now.
pub(crate) async fn list_current(conn: &mut Conn, rooms: &[&RoomId], kinds: &[&str]) -> DbResult<Vec<i64>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    conn.list(&LIST_CURRENT, args![&rooms, kinds]).await?.iter().map(|row| row.get(0)).collect()
}

/// The same for one type, of which some keys are wanted.
pub(crate) async fn list_current_of(
    conn: &mut Conn,
    rooms: &[&RoomId],
    kind: &str,
    state_keys: &[&str],
) -> DbResult<Vec<i64>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    conn.list(&LIST_CURRENT_OF, args![&rooms, kind, state_keys]).await?.iter().map(|row| row.get(0)).collect()
}

/// The rooms that a user is in and whose state has or had something under a key.
pub(crate) async fn list_rooms_with(
    conn: &mut Conn,
    user_id: &UserId,
    kind: &str,
    state_key: &str,
) -> DbResult<Vec<OwnedRoomId>> {
    conn.list(&LIST_ROOMS_WITH, args![user_id, kind, state_key]).await?.iter().map(|row| row.get(0)).collect()
}

/// What a stretch of the log changed in the resolved state of these rooms.
pub(crate) async fn changes_of(
    conn: &mut Conn,
    rooms: &[&RoomId],
    first: Position,
    last: Position,
) -> DbResult<Vec<(Position, KeyAt)>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    conn.list(&CHANGES_AT, args![&rooms, first.0, last.0]).await?.iter().map(change_at).collect()
}

/// The base of a fork and how it differs from it.
pub(crate) async fn find_fork(
    conn: &mut Conn,
    fork: Position,
) -> DbResult<Option<(Lineage, Position, HashMap<(String, String), Option<Position>>)>> {
    let Some(row) = conn.find(&FIND_FORK, args![fork.0]).await? else { return Ok(None) };
    let base = (Lineage(row.get(0)?), Position(row.get(1)?));
    let mut changes = HashMap::new();
    for row in conn.list(&LIST_FORK_CHANGES, args![fork.0]).await? {
        let key = key_at(&row)?;
        changes.insert((key.kind, key.state_key), key.event);
    }
    Ok(Some((base.0, base.1, changes)))
}

fn key_at(row: &Row) -> DbResult<KeyAt> {
    Ok(KeyAt { kind: row.get(0)?, state_key: row.get(1)?, event: row.get::<Option<i64>>(2)?.map(Position) })
}

fn change_at(row: &Row) -> DbResult<(Position, KeyAt)> {
    let key = KeyAt { kind: row.get(0)?, state_key: row.get(1)?, event: row.get::<Option<i64>>(3)?.map(Position) };
    Ok((Position(row.get(2)?), key))
}
