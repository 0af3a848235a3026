//! `state_versions`, `state_forks`, `state_fork_changes`: a room's state at any place, as changes.
//!
//! The trunk holds one row for each change of the resolved state. A state that is not the trunk's is a fork:
//! a line at a base position with a few changes. A fork that would need too many of them starts a line of its
//! own, which stands whole at a place where no event is.
//!
//! `event_position` is the key of the event that holds a key of the state, NULL where the key is gone; `from_order` is
//! the place in the room's order from which on that holds. The state at any place is, for each key, the newest row up to
//! it. Rows stay as they are, but for the key of an event that was an outlier, and for what history left where it no
//! longer stands.

use std::{collections::HashMap, sync::Arc};

use ruma::{OwnedEventId, OwnedRoomId, RoomId, UserId};

use crate::{
    db::{Column, ColumnType, Conn, DbResult, Insert, Row, Tx, args, statements},
    event::{Pdu, StateChange, Stored},
    ground::position::{EventKey, Order, Position},
    store::room::Lineage,
};

statements! {
    /// Everything at $2: for each key the newest row, unless that says that the key is gone.
    STATE_IDS_AT = "SELECT v.type, v.state_key, v.event_position, e.event_id FROM state_versions v
        JOIN (SELECT type, state_key, MAX(from_order) AS newest FROM state_versions
            WHERE lineage = $1 AND from_order <= $2 GROUP BY type, state_key) n
        ON v.type = n.type AND v.state_key = n.state_key AND v.from_order = n.newest
        JOIN events e ON e.position = v.event_position WHERE v.lineage = $1";
    /// What the keys that changed after $2, up to $3, held before that.
    BEFORE_CHANGES = "SELECT c.type, c.state_key, (SELECT v.event_position FROM state_versions v
            WHERE v.lineage = $1 AND v.type = c.type AND v.state_key = c.state_key AND v.from_order <= $2
            ORDER BY v.from_order DESC LIMIT 1)
        FROM (SELECT DISTINCT type, state_key FROM state_versions
            WHERE lineage = $1 AND from_order > $2 AND from_order <= $3) c";
    /// Whole events, as `store::event` reads them; so below.
    FIND_AT = "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces, e.room_order, e.missing IS NOT NULL
        FROM events e JOIN rooms r ON r.room_id = e.room_id
        WHERE e.position = (SELECT event_position FROM state_versions
            WHERE lineage = $1 AND type = $2 AND state_key = $3 AND from_order <= $4 ORDER BY from_order DESC LIMIT 1)";
    /// For each of the keys the newest row at $4; none where that says that the key is gone.
    KEYS_AT = "SELECT e.position, e.event_id, e.json, r.version, e.standing, e.fork, e.device_id, e.txn_id, e.notifies, e.thread_root, e.redacted_by, e.replaces, e.room_order, e.missing IS NOT NULL
        FROM (SELECT state_key, MAX(from_order) AS newest FROM state_versions
            WHERE lineage = $1 AND type = $2 AND state_key IN LIST($3) AND from_order <= $4 GROUP BY state_key) n
        CROSS JOIN state_versions v CROSS JOIN events e CROSS JOIN rooms r
        WHERE v.lineage = $1 AND v.type = $2 AND v.state_key = n.state_key AND v.from_order = n.newest
            AND e.position = v.event_position AND r.room_id = e.room_id";
    /// The events of one type at places of their own, each with the number that it was asked for by.
    EACH_AT = "SELECT w.key, e.event_id, e.json, r.version FROM json_each($1) w CROSS JOIN events e CROSS JOIN rooms r
        WHERE e.position = (SELECT v.event_position FROM state_versions v
                WHERE v.lineage = w.value ->> 0 AND v.type = $2 AND v.state_key = w.value ->> 1
                    AND v.from_order <= w.value ->> 2 ORDER BY v.from_order DESC LIMIT 1)
            AND r.room_id = e.room_id"
        | "SELECT w.number - 1, e.event_id, e.json, r.version
        FROM jsonb_array_elements(CAST($1 AS jsonb)) WITH ORDINALITY AS w(value, number)
        JOIN events e ON e.position = (SELECT v.event_position FROM state_versions v
            WHERE v.lineage = CAST(w.value ->> 0 AS BIGINT) AND v.type = $2 AND v.state_key = w.value ->> 1
                AND v.from_order <= CAST(w.value ->> 2 AS BIGINT) ORDER BY v.from_order DESC LIMIT 1)
        JOIN rooms r ON r.room_id = e.room_id";
    /// What stands now under some types in some rooms.
    LIST_CURRENT = "SELECT v.event_position FROM rooms r
        JOIN state_versions v ON v.lineage = r.trunk AND v.type IN LIST($2)
        WHERE r.room_id IN LIST($1) AND v.event_position IS NOT NULL AND NOT EXISTS (SELECT 1 FROM state_versions later
            WHERE later.lineage = v.lineage AND later.type = v.type AND later.state_key = v.state_key
                AND later.from_order > v.from_order)";
    /// What stands now under some keys of one type in some rooms.
    LIST_CURRENT_OF = "SELECT v.event_position FROM rooms r
        JOIN state_versions v ON v.lineage = r.trunk AND v.type = $2 AND v.state_key IN LIST($3)
        WHERE r.room_id IN LIST($1) AND v.event_position IS NOT NULL AND NOT EXISTS (SELECT 1 FROM state_versions later
            WHERE later.lineage = v.lineage AND later.type = v.type AND later.state_key = v.state_key
                AND later.from_order > v.from_order)";
    /// The rooms that $1 is in and that have or had something under a key.
    LIST_ROOMS_WITH = "SELECT DISTINCT r.room_id FROM memberships m JOIN rooms r ON r.room_id = m.room_id
        JOIN state_versions v ON v.lineage = r.trunk AND v.type = $2 AND v.state_key = $3
        WHERE m.user_id = $1 AND m.membership = 'join'";
    VERSIONS_OF = "SELECT v.from_order, v.event_position, e.event_id, e.json, r.version FROM state_versions v
        LEFT JOIN events e ON e.position = v.event_position LEFT JOIN rooms r ON r.room_id = e.room_id
        WHERE v.lineage = $1 AND v.type = $2 AND v.state_key = $3 ORDER BY v.from_order";
    VERSIONS_OF_KEYS = "SELECT v.from_order, v.event_position, e.event_id, e.json, r.version, v.state_key FROM state_versions v
        LEFT JOIN events e ON e.position = v.event_position LEFT JOIN rooms r ON r.room_id = e.room_id
        WHERE v.lineage = $1 AND v.type = $2 AND v.state_key IN LIST($3) ORDER BY v.from_order";
    VERSIONS_OF_LINES = "SELECT v.from_order, v.event_position, e.event_id, e.json, r.version, v.lineage FROM state_versions v
        LEFT JOIN events e ON e.position = v.event_position LEFT JOIN rooms r ON r.room_id = e.room_id
        WHERE v.lineage IN LIST($1) AND v.type = $2 AND v.state_key = $3 ORDER BY v.from_order";
    /// What changed on some lines, each after a place of its own, with what was there before.
    CHANGES_AFTER = "SELECT v.lineage, v.from_order, v.type, v.state_key, (SELECT b.event_position FROM state_versions b
            WHERE b.lineage = v.lineage AND b.type = v.type AND b.state_key = v.state_key
                AND b.from_order < v.from_order ORDER BY b.from_order DESC LIMIT 1)
        FROM json_each($1) w CROSS JOIN state_versions v
        WHERE v.lineage = w.value ->> 0 AND v.from_order > w.value ->> 1 ORDER BY v.from_order"
        | "SELECT v.lineage, v.from_order, v.type, v.state_key, (SELECT b.event_position FROM state_versions b
            WHERE b.lineage = v.lineage AND b.type = v.type AND b.state_key = v.state_key
                AND b.from_order < v.from_order ORDER BY b.from_order DESC LIMIT 1)
        FROM jsonb_array_elements(CAST($1 AS jsonb)) w
        JOIN state_versions v ON v.lineage = CAST(w.value ->> 0 AS BIGINT) AND v.from_order > CAST(w.value ->> 1 AS BIGINT)
        ORDER BY v.from_order";
    /// Everything that some lines hold now.
    LIST_HELD = "SELECT v.lineage, v.event_position FROM state_versions v
        WHERE v.lineage IN LIST($1) AND v.event_position IS NOT NULL AND NOT EXISTS (SELECT 1 FROM state_versions later
            WHERE later.lineage = v.lineage AND later.type = v.type AND later.state_key = v.state_key
                AND later.from_order > v.from_order)";
    /// Of two keys in some rooms, at one moment.
    VERSIONS_OF_BOTH = "SELECT v.from_order, v.event_position, e.event_id, e.json, r.version, v.lineage, CAST(0 AS BIGINT)
        FROM state_versions v
        LEFT JOIN events e ON e.position = v.event_position LEFT JOIN rooms r ON r.room_id = e.room_id
        WHERE v.lineage IN LIST($1) AND v.type = $2 AND v.state_key = $3
        UNION ALL SELECT v.from_order, v.event_position, e.event_id, e.json, r.version, v.lineage, CAST(1 AS BIGINT)
        FROM state_versions v
        LEFT JOIN events e ON e.position = v.event_position LEFT JOIN rooms r ON r.room_id = e.room_id
        WHERE v.lineage IN LIST($1) AND v.type = $4 AND v.state_key = $5
        ORDER BY 1";
    CHANGES_BETWEEN = "SELECT type, state_key, from_order, event_position FROM state_versions
        WHERE lineage = $1 AND from_order > $2 AND from_order <= $3 ORDER BY from_order";
    /// Of the trunks of these rooms, for the readers of a stretch of the log.
    CHANGES_AT = "SELECT v.type, v.state_key, v.from_order, v.event_position FROM rooms r
        JOIN state_versions v ON v.lineage = r.trunk AND v.from_order >= $2 AND v.from_order <= $3
        WHERE r.room_id IN LIST($1)";
    FIND_FORK = "SELECT lineage, base_order FROM state_forks WHERE fork = $1";
    DELETE_VERSIONS = "DELETE FROM state_versions WHERE lineage = $1 AND from_order > $2 AND from_order < $3";
    DELETE_FORK = "DELETE FROM state_forks WHERE fork = $1";
    DELETE_FORK_CHANGES = "DELETE FROM state_fork_changes WHERE fork = $1";
    LIST_FORK_CHANGES = "SELECT type, state_key, event_position FROM state_fork_changes WHERE fork = $1";
}

/// A line holds one row at most for a key and a place, so nothing conflicts.
static INSERT_VERSIONS: Insert = Insert::new(
    "INSERT_VERSIONS",
    "state_versions",
    &[
        ("lineage", ColumnType::Int),
        ("type", ColumnType::Text),
        ("state_key", ColumnType::Text),
        ("from_order", ColumnType::Int),
        ("event_position", ColumnType::Int),
    ],
    "",
);

/// What is known by now of a place from which on nothing or something else was known.
///
/// History that is fetched later tells of places on the trunk that lie before what is known (`room/graph/history.rs`).
static UPSERT_VERSIONS: Insert = Insert::new(
    "UPSERT_VERSIONS",
    "state_versions",
    &[
        ("lineage", ColumnType::Int),
        ("type", ColumnType::Text),
        ("state_key", ColumnType::Text),
        ("from_order", ColumnType::Int),
        ("event_position", ColumnType::Int),
    ],
    "ON CONFLICT (lineage, type, state_key, from_order) DO UPDATE SET event_position = excluded.event_position",
);

static INSERT_FORKS: Insert = Insert::new(
    "INSERT_FORKS",
    "state_forks",
    &[("fork", ColumnType::Int), ("lineage", ColumnType::Int), ("base_order", ColumnType::Int)],
    "",
);

/// NULL for the event of a key that the base holds and the fork does not.
static INSERT_FORK_CHANGES: Insert = Insert::new(
    "INSERT_FORK_CHANGES",
    "state_fork_changes",
    &[
        ("fork", ColumnType::Int),
        ("type", ColumnType::Text),
        ("state_key", ColumnType::Text),
        ("event_position", ColumnType::Int),
    ],
    "",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&INSERT_VERSIONS, &UPSERT_VERSIONS, &INSERT_FORKS, &INSERT_FORK_CHANGES];

/// A change of a line, on its way into the table: from a place on, a key holds an event, or nothing.
pub(crate) struct Version<'a> {
    pub(crate) line: Lineage,
    pub(crate) change: &'a StateChange,
    pub(crate) from: Order,
    pub(crate) event: Option<EventKey>,
}

/// How a fork differs from its base in one key.
pub(crate) struct ForkChange<'a> {
    pub(crate) fork: EventKey,
    pub(crate) change: &'a StateChange,
    pub(crate) event: Option<EventKey>,
}

/// A key of the state and that of its event; none where it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyAt {
    pub(crate) kind: String,
    pub(crate) state_key: String,
    pub(crate) event: Option<EventKey>,
}

/// Adds changes to lines at places that have none yet.
pub(crate) async fn insert_versions(tx: &mut Tx, versions: &[Version<'_>]) -> DbResult<()> {
    tx.insert(&INSERT_VERSIONS, &version_columns(versions)).await
}

/// Writes changes of a line at places where it may have some already: what it holds there from now on.
///
/// For history alone: the log only ever adds.
pub(crate) async fn upsert_versions(tx: &mut Tx, versions: &[Version<'_>]) -> DbResult<()> {
    tx.insert(&UPSERT_VERSIONS, &version_columns(versions)).await
}

fn version_columns<'a>(versions: &[Version<'a>]) -> [Column<'a>; 5] {
    [
        Column::ints(versions.iter().map(|v| v.line.0)),
        Column::texts(versions.iter().map(|v| v.change.kind.as_str())),
        Column::texts(versions.iter().map(|v| v.change.state_key.as_str())),
        Column::ints(versions.iter().map(|v| v.from.0)),
        Column::Ints(versions.iter().map(|v| v.event.map(|at| at.0)).collect()),
    ]
}

/// Writes forks, each with its base: what it does not change is as the line has it just after that place.
pub(crate) async fn insert_forks(
    tx: &mut Tx,
    forks: &[(EventKey, Lineage, Order)],
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

/// The whole state of a line just after `at`, with the identifiers of its events.
///
/// All of it is read: for a large room these are tens of thousands of rows, and the events are not among them.
pub(crate) async fn list_ids_at(conn: &mut Conn, line: Lineage, at: Order) -> DbResult<Vec<(KeyAt, OwnedEventId)>> {
    let rows = conn.list(&STATE_IDS_AT, args![line.0, at.0]).await?;
    rows.iter().map(|row| Ok((key_at(row)?, row.get(3)?))).collect()
}

/// The keys of a line that changed after `at`, up to `until`, as they were just after `at`.
///
/// By these a state of some time ago is made of the present one, without reading what has not changed.
pub(crate) async fn list_before_changes(
    conn: &mut Conn,
    line: Lineage,
    at: Order,
    until: Order,
) -> DbResult<Vec<KeyAt>> {
    conn.list(&BEFORE_CHANGES, args![line.0, at.0, until.0]).await?.iter().map(key_at).collect()
}

/// The event that a key has just after `at`.
pub(crate) async fn find_at(
    conn: &mut Conn,
    line: Lineage,
    kind: &str,
    state_key: &str,
    at: Order,
) -> DbResult<Option<Stored>> {
    Ok(super::event::read(conn, &FIND_AT, args![line.0, kind, state_key, at.0]).await?.pop())
}

/// The events that some keys of one type have just after `at`.
///
/// Keys that hold nothing there are left out, and no order is kept.
pub(crate) async fn list_keys_at(
    conn: &mut Conn,
    line: Lineage,
    kind: &str,
    state_keys: &[&str],
    at: Order,
) -> DbResult<Vec<Stored>> {
    super::event::read(conn, &KEYS_AT, args![line.0, kind, state_keys, at.0]).await
}

/// The events that keys of one type have just after places of their own, by their number. What redacted them is not
/// read.
pub(crate) async fn list_each_at(
    conn: &mut Conn,
    kind: &str,
    wanted: &[(Lineage, &str, Order)],
) -> DbResult<HashMap<usize, Arc<Pdu>>> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    // As one JSON array, since neither engine takes a list of triples.
    let wanted: Vec<_> = wanted.iter().map(|(line, state_key, at)| (line.0, state_key, at)).collect();
    let wanted = serde_json::json!(wanted).to_string();
    let rows = conn.list(&EACH_AT, args![&wanted, kind]).await?;
    let event = |row: &Row| Ok((usize::try_from(row.get::<i64>(0)?).unwrap_or(usize::MAX), super::event::pdu(row, 1)?));
    rows.iter().map(event).collect()
}

/// What a key held from some place on.
///
/// Until the next of the same key. `from` is a place in the room's order.
#[derive(Clone, Debug)]
pub(crate) struct HeldSince {
    pub(crate) from: Order,
    /// The event and its own key; none where the key of the state is gone. What redacted it is not read.
    pub(crate) event: Option<(EventKey, Arc<Pdu>)>,
}

/// Everything that a key has held, oldest first.
pub(crate) async fn versions_of(
    conn: &mut Conn,
    line: Lineage,
    (kind, state_key): (&str, &str),
) -> DbResult<Vec<HeldSince>> {
    conn.list(&VERSIONS_OF, args![line.0, kind, state_key]).await?.iter().map(held).collect()
}

/// Everything that each of some keys of one type has held, oldest first.
pub(crate) async fn versions_of_keys(
    conn: &mut Conn,
    line: Lineage,
    kind: &str,
    state_keys: &[&str],
) -> DbResult<HashMap<String, Vec<HeldSince>>> {
    let mut versions: HashMap<String, Vec<HeldSince>> = HashMap::new();
    for row in conn.list(&VERSIONS_OF_KEYS, args![line.0, kind, state_keys]).await? {
        versions.entry(row.get(5)?).or_default().push(held(&row)?);
    }
    Ok(versions)
}

/// Everything that a key has held on some lines, oldest first.
pub(crate) async fn versions_of_lines(
    conn: &mut Conn,
    lines: &[Lineage],
    (kind, state_key): (&str, &str),
) -> DbResult<HashMap<Lineage, Vec<HeldSince>>> {
    let mut versions: HashMap<Lineage, Vec<HeldSince>> = HashMap::new();
    let lines: Vec<i64> = lines.iter().map(|line| line.0).collect();
    for row in conn.list(&VERSIONS_OF_LINES, args![&lines, kind, state_key]).await? {
        versions.entry(Lineage(row.get(5)?)).or_default().push(held(&row)?);
    }
    Ok(versions)
}

/// What changed on some lines, each after a place of its own: where, and what the key held before. Oldest first.
pub(crate) async fn list_changes_after(
    conn: &mut Conn,
    lines: &[(Lineage, Order)],
) -> DbResult<Vec<(Lineage, Order, KeyAt)>> {
    let wanted: Vec<_> = lines.iter().map(|(line, after)| (line.0, after.0)).collect();
    let wanted = serde_json::json!(wanted).to_string();
    let rows = conn.list(&CHANGES_AFTER, args![&wanted]).await?;
    let change = |row: &Row| {
        let event = row.get::<Option<i64>>(4)?.map(EventKey);
        let before = KeyAt { kind: row.get(2)?, state_key: row.get(3)?, event };
        Ok((Lineage(row.get(0)?), Order(row.get(1)?), before))
    };
    rows.iter().map(change).collect()
}

/// The keys of the events that some lines hold now, each with its line.
pub(crate) async fn list_held(conn: &mut Conn, lines: &[Lineage]) -> DbResult<Vec<(Lineage, EventKey)>> {
    let lines: Vec<i64> = lines.iter().map(|line| line.0).collect();
    let rows = conn.list(&LIST_HELD, args![&lines]).await?;
    rows.iter().map(|row| Ok((Lineage(row.get(0)?), EventKey(row.get(1)?)))).collect()
}

/// How two keys went along some lines, read at one moment.
///
/// Between two statements a key might change: what somebody may see follows from visibility and membership together.
pub(crate) async fn versions_of_both(
    conn: &mut Conn,
    lines: &[Lineage],
    [first, second]: [(&str, &str); 2],
) -> DbResult<HashMap<Lineage, [Vec<HeldSince>; 2]>> {
    let mut versions: HashMap<Lineage, [Vec<HeldSince>; 2]> = HashMap::new();
    let lines: Vec<i64> = lines.iter().map(|line| line.0).collect();
    for row in conn.list(&VERSIONS_OF_BOTH, args![&lines, first.0, first.1, second.0, second.1]).await? {
        let [of_first, of_second] = versions.entry(Lineage(row.get(5)?)).or_default();
        let versions = if row.get::<i64>(6)? == 0 { of_first } else { of_second };
        versions.push(held(&row)?);
    }
    Ok(versions)
}

fn held(row: &Row) -> DbResult<HeldSince> {
    let place: Option<i64> = row.get(1)?;
    let event = place.map(|place| Ok((EventKey(place), super::event::pdu(row, 2)?))).transpose()?;
    Ok(HeldSince { from: Order(row.get(0)?), event })
}

/// The changes of a line after `after`, up to `until`, each with its place, oldest first.
pub(crate) async fn changes_between(
    conn: &mut Conn,
    line: Lineage,
    after: Order,
    until: Order,
) -> DbResult<Vec<(Order, KeyAt)>> {
    conn.list(&CHANGES_BETWEEN, args![line.0, after.0, until.0]).await?.iter().map(change_at).collect()
}

/// The keys of the events that hold state of these types in these rooms now.
///
/// Read by the trunks, so it is what the rooms' states are by now, whichever event changed them last.
pub(crate) async fn list_current(conn: &mut Conn, rooms: &[&RoomId], kinds: &[&str]) -> DbResult<Vec<i64>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    conn.list(&LIST_CURRENT, args![&rooms, kinds]).await?.iter().map(|row| row.get(0)).collect()
}

/// The keys of the events that hold state under some keys of one type in these rooms now.
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

/// What a stretch of the log changed in the resolved state of these rooms, each change with the position of its event.
///
/// First and last are part of it.
pub(crate) async fn changes_of(
    conn: &mut Conn,
    rooms: &[&RoomId],
    first: Position,
    last: Position,
) -> DbResult<Vec<(Position, KeyAt)>> {
    let rooms: Vec<&str> = rooms.iter().map(|room| room.as_str()).collect();
    let mut changes = Vec::new();
    for row in conn.list(&CHANGES_AT, args![&rooms, Order::at(first).0, Order::at(last).0]).await? {
        let (order, key) = change_at(&row)?;
        // Between two positions stands what was fetched later, which did not come through the log.
        changes.extend(order.position().map(|at| (at, key)));
    }
    Ok(changes)
}

/// Forgets what a line changed after one place and before another.
///
/// Only history does that, where no event stands between the two.
pub(crate) async fn delete_versions(tx: &mut Tx, line: Lineage, after: Order, before: Order) -> DbResult<()> {
    tx.execute(&DELETE_VERSIONS, args![line.0, after.0, before.0]).await.map(drop)
}

/// Forgets a fork, if there is one of that name.
///
/// Only history does that, for events that are taken from where they stood.
pub(crate) async fn delete_fork(tx: &mut Tx, fork: EventKey) -> DbResult<()> {
    tx.execute(&DELETE_FORK, args![fork.0]).await?;
    tx.execute(&DELETE_FORK_CHANGES, args![fork.0]).await.map(drop)
}

/// The base of a fork and how it differs from it.
pub(crate) async fn find_fork(
    conn: &mut Conn,
    fork: EventKey,
) -> DbResult<Option<(Lineage, Order, HashMap<(String, String), Option<EventKey>>)>> {
    let Some(row) = conn.find(&FIND_FORK, args![fork.0]).await? else { return Ok(None) };
    let base = (Lineage(row.get(0)?), Order(row.get(1)?));
    let mut changes = HashMap::new();
    for row in conn.list(&LIST_FORK_CHANGES, args![fork.0]).await? {
        let key = key_at(&row)?;
        changes.insert((key.kind, key.state_key), key.event);
    }
    Ok(Some((base.0, base.1, changes)))
}

/// From the three columns with which each such row begins.
fn key_at(row: &Row) -> DbResult<KeyAt> {
    Ok(KeyAt { kind: row.get(0)?, state_key: row.get(1)?, event: row.get::<Option<i64>>(2)?.map(EventKey) })
}

/// From four columns, in which the place stands before the event.
fn change_at(row: &Row) -> DbResult<(Order, KeyAt)> {
    let key = KeyAt { kind: row.get(0)?, state_key: row.get(1)?, event: row.get::<Option<i64>>(3)?.map(EventKey) };
    Ok((Order(row.get(2)?), key))
}
