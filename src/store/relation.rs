//! `relations`: what relates to what.
//!
//! A row is written in the transaction that writes the event, and deleted when that is redacted. An event has one row
//! at most, since it relates to one other. The parent need not be known.
//!
//! Whatever is counted or listed is asked for by stretches of the room's order, so that the answer is what one reader
//! may see.

use std::collections::{HashMap, HashSet};

use aws_lc_rs::digest;
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId, events::TimelineEventType};

use crate::{
    db::{Column, ColumnType, Conn, DbResult, Insert, Row, Tx, args, statements},
    event::{ChildFilter, Pdu, Relation},
    ground::position::Order,
};

// Wherever a parent is named, few rows have it, but many may be of the same room: `room_id || ''` keeps SQLite, which
// does not know which are fewer, from reading all of those by their index.
statements! {
    DELETE_RELATION = "DELETE FROM relations WHERE event_id = $1";
    LIST_PARENTS = "SELECT DISTINCT parent FROM relations WHERE parent IN LIST($1)";
    /// Those to which something of the types $4, or of any, relates that was sent by $5, or by anybody, and not by $6.
    LIST_PARENTS_OF = "SELECT DISTINCT parent FROM relations
        WHERE parent IN LIST($7) AND room_id || '' = $1 AND room_order > $2 AND room_order <= $3
            AND ($8 OR rel_type IN LIST($4)) AND ($9 OR sender IN LIST($5)) AND NOT (sender IN LIST($6))";
    /// What bundles are made of: how many, the last of them, and how many are $4's, of those not sent by $5.
    SUMMARISE_RELATIONS = "SELECT parent, rel_type, COUNT(*), MAX(room_order), COUNT(CASE WHEN sender = $4 THEN 1 END)
        FROM relations WHERE parent IN LIST($6) AND room_id || '' = $1 AND room_order > $2 AND room_order <= $3
            AND rel_type IN ('m.thread', 'm.replace', 'm.reference') AND NOT (sender IN LIST($5))
        GROUP BY parent, rel_type";
    /// The latest edit of each parent by each sender and of each type.
    LATEST_EDITS = "SELECT parent, room_order, sender, type, origin_server_ts, event_id FROM (
            SELECT parent, room_order, sender, type, origin_server_ts, event_id,
                ROW_NUMBER() OVER (PARTITION BY parent, sender, type ORDER BY origin_server_ts DESC, event_id DESC) AS age
            FROM relations WHERE parent IN LIST($4) AND room_id || '' = $1 AND room_order > $2 AND room_order <= $3 AND is_edit
        ) ranked WHERE age = 1";
    LIST_REFERENCES = "SELECT parent, event_id FROM relations
        WHERE parent IN LIST($5) AND room_id || '' = $1 AND room_order > $2 AND room_order <= $3 AND rel_type = 'm.reference'
            AND NOT (sender IN LIST($4))
        ORDER BY room_order LIMIT $6";
    CHILDREN_FORWARD = "SELECT room_order FROM relations
        WHERE parent = $2 AND room_id || '' = $1 AND room_order > $3 AND room_order <= $4
            AND ($5 = '' OR rel_type = $5) AND ($6 = '' OR type = $6) ORDER BY room_order LIMIT $7";
    CHILDREN_BACKWARD = "SELECT room_order FROM relations
        WHERE parent = $2 AND room_id || '' = $1 AND room_order > $3 AND room_order <= $4
            AND ($5 = '' OR rel_type = $5) AND ($6 = '' OR type = $6) ORDER BY room_order DESC LIMIT $7";
    /// What relates to $2, or to what relates to it, $7 times at most; oldest first, or newest first where $9 is
    /// negative.
    LIST_DESCENDANTS = "WITH RECURSIVE tree(event_id, room_order, depth) AS (
            SELECT event_id, room_order, CAST(1 AS BIGINT) FROM relations
            WHERE parent = $2 AND room_id || '' = $1 AND ($5 = '' OR rel_type = $5) AND ($6 = '' OR type = $6)
            UNION
            SELECT r.event_id, r.room_order, tree.depth + 1 FROM tree JOIN relations r ON r.parent = tree.event_id
            WHERE tree.depth < $7 AND r.room_id || '' = $1 AND ($5 = '' OR r.rel_type = $5) AND ($6 = '' OR r.type = $6)
        ) SELECT room_order FROM tree WHERE room_order > $3 AND room_order <= $4 GROUP BY room_order ORDER BY room_order * $9 LIMIT $8";
    /// Threads by their last words, newest first: all of them, or those in which $4 has taken part.
    LIST_THREADS = "SELECT r.parent, r.room_order FROM relations r
        WHERE r.room_id = $1 AND r.rel_type = 'm.thread' AND r.room_order <= $2
            AND NOT EXISTS (SELECT 1 FROM relations later WHERE later.parent = r.parent AND later.room_order > r.room_order
                AND later.room_order <= $3 AND later.room_id || '' = $1 AND later.rel_type = 'm.thread')
            AND ($4 = ''
                OR EXISTS (SELECT 1 FROM events root WHERE root.event_id = r.parent AND root.sender = $4)
                OR EXISTS (SELECT 1 FROM relations own WHERE own.parent = r.parent AND own.rel_type = 'm.thread'
                    AND own.room_id || '' = $1 AND own.sender = $4))
        ORDER BY r.room_order DESC LIMIT $5";
    /// Those of some senders ($2) of some events ($1) with some keys ($3). Those that an older version has written have
    /// no `key_hash`, and come with their events.
    LIST_ANNOTATIONS = "SELECT r.room_id, r.parent, r.type, r.sender, r.key_hash, r.event_id, e.json
        FROM relations r LEFT JOIN events e ON e.event_id = r.event_id AND r.key_hash IS NULL
        WHERE r.parent IN LIST($1) AND r.sender IN LIST($2) AND r.rel_type = 'm.annotation'
            AND (r.key_hash IS NULL OR r.key_hash IN LIST($3))";
}

/// An event has one row, so nothing conflicts: whoever writes it again has deleted it before.
static INSERT_RELATIONS: Insert = Insert::new(
    "INSERT_RELATIONS",
    "relations",
    &[
        ("parent", ColumnType::Text),
        ("room_order", ColumnType::Int),
        ("event_id", ColumnType::Text),
        ("room_id", ColumnType::Text),
        ("sender", ColumnType::Text),
        ("rel_type", ColumnType::Text),
        ("type", ColumnType::Text),
        ("origin_server_ts", ColumnType::Int),
        ("is_edit", ColumnType::Bool),
        ("key_hash", ColumnType::Int),
    ],
    "",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&INSERT_RELATIONS];

/// Writes down to what events relate.
///
/// `key_hash` is NULL for all that is no annotation.
pub(crate) async fn insert(tx: &mut Tx, rows: &[(Order, &Pdu, Relation)]) -> DbResult<()> {
    let kinds: Vec<String> = rows.iter().map(|(_, pdu, _)| pdu.kind().to_string()).collect();
    let columns = [
        Column::texts(rows.iter().map(|(_, _, relation)| relation.parent.as_str())),
        Column::ints(rows.iter().map(|(at, ..)| at.0)),
        Column::texts(rows.iter().map(|(_, pdu, _)| pdu.event_id().as_str())),
        Column::texts(rows.iter().map(|(_, pdu, _)| pdu.room_id().as_str())),
        Column::texts(rows.iter().map(|(_, pdu, _)| pdu.sender().as_str())),
        Column::texts(rows.iter().map(|(_, _, relation)| relation.kind.as_str())),
        Column::texts(kinds.iter().map(String::as_str)),
        Column::ints(rows.iter().map(|(_, pdu, _)| i64::from(pdu.origin_server_ts().get()))),
        Column::Bools(rows.iter().map(|(_, _, relation)| relation.is_edit).collect()),
        Column::Ints(rows.iter().map(|(_, _, relation)| is_annotation(relation).then(|| key_hash(relation))).collect()),
    ];
    tx.insert(&INSERT_RELATIONS, &columns).await
}

/// What has been redacted relates to nothing any more.
pub(crate) async fn delete(conn: &mut Conn, event_id: &EventId) -> DbResult<()> {
    conn.execute(&DELETE_RELATION, args![event_id]).await.map(drop)
}

/// A stretch of a room: after the first place, up to the second.
///
/// Its ends are what a reader may see, so two readers ask the same question with other answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadRange<'a> {
    pub(crate) room_id: &'a RoomId,
    pub(crate) after: Order,
    pub(crate) until: Order,
}

/// How much of one type relates to one event.
#[derive(Clone, Debug)]
pub(crate) struct RelationSummary {
    pub(crate) parent: OwnedEventId,
    pub(crate) kind: String,
    pub(crate) count: i64,
    /// Where the last of them stands.
    pub(crate) last: Order,
    /// How many of them the reader has sent.
    pub(crate) own: i64,
}

/// Those of the events, of whatever rooms, to which something relates.
pub(crate) async fn list_parents(conn: &mut Conn, event_ids: &[&EventId]) -> DbResult<HashSet<OwnedEventId>> {
    let ids: Vec<&str> = event_ids.iter().map(|id| id.as_str()).collect();
    conn.list(&LIST_PARENTS, args![&ids]).await?.iter().map(|row| row.get(0)).collect()
}

/// Those of the events to which something relates as is wanted, without what is by `ignored`.
///
/// Whether what relates was redacted need not be asked: redacted events have no rows.
pub(crate) async fn list_parents_of(
    conn: &mut Conn,
    ThreadRange { room_id, after, until }: ThreadRange<'_>,
    event_ids: &[&EventId],
    wanted: &ChildFilter<'_>,
    ignored: &[&str],
) -> DbResult<Vec<OwnedEventId>> {
    let ids: Vec<&str> = event_ids.iter().map(|id| id.as_str()).collect();
    let rel_types: Vec<&str> = wanted.rel_types.unwrap_or_default().iter().map(String::as_str).collect();
    let senders: Vec<&str> = wanted.senders.unwrap_or_default().iter().map(|user| user.as_str()).collect();
    let (any_type, any_sender) = (wanted.rel_types.is_none(), wanted.senders.is_none());
    let args = args![room_id, after.0, until.0, &rel_types, &senders, ignored, &ids, any_type, any_sender];
    conn.list(&LIST_PARENTS_OF, args).await?.iter().map(|row| row.get(0)).collect()
}

/// Threads, edits and references of several events, without those by whom the reader ignores.
pub(crate) async fn summarise(
    conn: &mut Conn,
    ThreadRange { room_id, after, until }: ThreadRange<'_>,
    parents: &[&EventId],
    reader: &UserId,
    ignored: &[&str],
) -> DbResult<Vec<RelationSummary>> {
    let parents: Vec<&str> = parents.iter().map(|id| id.as_str()).collect();
    let rows = conn.list(&SUMMARISE_RELATIONS, args![room_id, after.0, until.0, reader, ignored, &parents]).await?;
    let summary = |row: &Row| {
        let (count, last, own) = (row.get(2)?, Order(row.get(3)?), row.get(4)?);
        Ok(RelationSummary { parent: row.get(0)?, kind: row.get(1)?, count, last, own })
    };
    rows.iter().map(summary).collect()
}

/// The latest event with the form of an edit, by one sender and of one type.
#[derive(Clone, Debug)]
pub(crate) struct Edit {
    pub(crate) parent: OwnedEventId,
    pub(crate) order: Order,
    pub(crate) sender: OwnedUserId,
    pub(crate) kind: String,
    /// Later edits have greater ages: the time at which they were sent, then their identifiers.
    pub(crate) age: (i64, OwnedEventId),
}

/// The latest edit of each event by each sender and of each type. Only those of the event's own sender and type count,
/// which is for whoever has read the event to say.
pub(crate) async fn latest_edits(
    conn: &mut Conn,
    ThreadRange { room_id, after, until }: ThreadRange<'_>,
    parents: &[&EventId],
) -> DbResult<Vec<Edit>> {
    let parents: Vec<&str> = parents.iter().map(|id| id.as_str()).collect();
    let rows = conn.list(&LATEST_EDITS, args![room_id, after.0, until.0, &parents]).await?;
    let edit = |row: &Row| {
        let (order, age) = (Order(row.get(1)?), (row.get(4)?, row.get(5)?));
        Ok(Edit { parent: row.get(0)?, order, sender: row.get(2)?, kind: row.get(3)?, age })
    };
    rows.iter().map(edit).collect()
}

/// The events that refer to others, oldest first: what they refer to, and themselves.
///
/// At most `limit` of all together.
pub(crate) async fn list_references(
    conn: &mut Conn,
    ThreadRange { room_id, after, until }: ThreadRange<'_>,
    parents: &[&EventId],
    ignored: &[&str],
    limit: i64,
) -> DbResult<Vec<(OwnedEventId, OwnedEventId)>> {
    let parents: Vec<&str> = parents.iter().map(|id| id.as_str()).collect();
    let rows = conn.list(&LIST_REFERENCES, args![room_id, after.0, until.0, ignored, &parents, limit]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

/// Which children of an event are wanted. Empty texts stand for any.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WantedRelations<'a> {
    pub(crate) parent: &'a EventId,
    pub(crate) rel_type: &'a str,
    pub(crate) kind: &'a str,
    /// 1 for the children alone.
    pub(crate) depth: i64,
}

/// Where the children of an event stand: newest first, or oldest first.
///
/// With a depth above 1 an event that is reached twice comes once.
pub(crate) async fn list_children(
    conn: &mut Conn,
    ThreadRange { room_id, after, until }: ThreadRange<'_>,
    WantedRelations { parent, rel_type, kind, depth }: WantedRelations<'_>,
    backward: bool,
    limit: i64,
) -> DbResult<Vec<Order>> {
    let rows = if depth > 1 {
        let order: i64 = if backward { -1 } else { 1 };
        let args = args![room_id, parent, after.0, until.0, rel_type, kind, depth, limit, order];
        conn.list(&LIST_DESCENDANTS, args).await?
    } else {
        let statement = if backward { &CHILDREN_BACKWARD } else { &CHILDREN_FORWARD };
        conn.list(statement, args![room_id, parent, after.0, until.0, rel_type, kind, limit]).await?
    };
    rows.iter().map(|row| row.get(0).map(Order)).collect()
}

/// The roots of threads with the places of their last words, newest first: those at or before `from`, seen as it was at
/// `now`. With a participant only those that they have said something in, or begun.
pub(crate) async fn list_threads(
    conn: &mut Conn,
    room_id: &RoomId,
    from: Order,
    now: Order,
    participant: Option<&UserId>,
    limit: i64,
) -> DbResult<Vec<(OwnedEventId, Order)>> {
    let participant = participant.map_or("", UserId::as_str);
    let rows = conn.list(&LIST_THREADS, args![room_id, from.0, now.0, participant, limit]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, Order(row.get(1)?)))).collect()
}

/// What somebody annotates, and with what: they do it only once.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#avoiding-duplicate-annotations>
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Annotation {
    room_id: OwnedRoomId,
    parent: OwnedEventId,
    kind: String,
    sender: OwnedUserId,
    key_hash: i64,
}

impl Annotation {
    /// What an event annotates, if it does.
    pub(crate) fn of(pdu: &Pdu) -> Option<Self> {
        Self::by(pdu.room_id(), pdu.sender(), pdu.kind(), Relation::of(pdu)?)
    }

    /// What somebody would annotate with an event of this type that relates so, if that is an annotation.
    pub(crate) fn by(room_id: &RoomId, sender: &UserId, kind: &TimelineEventType, relation: Relation) -> Option<Self> {
        is_annotation(&relation).then(|| Self {
            room_id: room_id.to_owned(),
            key_hash: key_hash(&relation),
            parent: relation.parent,
            kind: kind.to_string(),
            sender: sender.to_owned(),
        })
    }
}

fn is_annotation(relation: &Relation) -> bool {
    relation.kind == "m.annotation"
}

/// Keys are as long as clients like, and may hold what no database keeps in a text.
///
/// Eight bytes of SHA-256: two keys are taken for one by a chance of 1 in 2^64.
fn key_hash(relation: &Relation) -> i64 {
    // To have no key is not to have an empty one.
    let key = relation.key.as_ref().map_or_else(|| "-".to_owned(), |key| format!("={key}"));
    let hash = digest::digest(&digest::SHA256, key.as_bytes());
    hash.as_ref().first_chunk().map_or(0, |first| i64::from_be_bytes(*first))
}

/// Those of the annotations that there are already, each with its event.
pub(crate) async fn list_annotations(
    conn: &mut Conn,
    annotations: &[Annotation],
) -> DbResult<HashMap<Annotation, OwnedEventId>> {
    let parents: Vec<&str> = annotations.iter().map(|annotation| annotation.parent.as_str()).collect();
    let senders: Vec<&str> = annotations.iter().map(|annotation| annotation.sender.as_str()).collect();
    let hashes: Vec<i64> = annotations.iter().map(|annotation| annotation.key_hash).collect();
    let mut found = HashMap::new();
    for row in conn.list(&LIST_ANNOTATIONS, args![&parents, &senders, &hashes]).await? {
        let (known, json): (Option<i64>, Option<String>) = (row.get(4)?, row.get(6)?);
        let read = || json.as_deref().and_then(Relation::of_json).map(|relation| key_hash(&relation));
        let Some(key_hash) = known.or_else(read) else { continue };
        let (room_id, parent, kind, sender) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        found.insert(Annotation { room_id, parent, kind, sender, key_hash }, row.get(5)?);
    }
    Ok(found)
}
