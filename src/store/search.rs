//! `search`: the full text of messages, names and topics, in the engine's own index. FTS5 on
//! SQLite, `tsvector` on `PostgreSQL`; what is a word and how well something matches is decided above, so that both find
//! the same in the same order. `history_to_index`: what waits for it.
//!
//! A document is called by the order of its event, which no two events have, of whatever rooms. Where the log told of the
//! event, and where history goes below everything that was known of a room, the order is the event's key times
//! [`Order::SPACE`], so a hit's event is found by a division. Only what came out of a gap has its key looked up, in an
//! index of such events alone, so that live messages pay nothing for history. On SQLite they have a full-text index of
//! their own as well: FTS5 writes how far each row is from the one before, so the others are called by their keys, which
//! are dense and in the same order.
//!
//! A room is a word too, for searches in few rooms and for those whose rooms hold little of what matches: with many
//! rooms both engines are slow. On `PostgreSQL` the stretch of the log is another: its index knows no order, and what
//! is newest is found stretch by stretch.
//!
//! <https://www.sqlite.org/fts5.html>, <https://www.postgresql.org/docs/current/textsearch.html>

use std::{cmp::Reverse, collections::HashMap, fmt::Write as _};

use aws_lc_rs::digest;
use ruma::{OwnedRoomId, OwnedUserId, RoomId};

use crate::{
    db::{Column, ColumnType, Conn, DbResult, Engine, Insert, Row, Tx, args, statements},
    ground::{
        position::{EventKey, Order, Position},
        sizes::IndexSizes,
    },
};

statements! {
    ADD_DOCUMENTS = "INSERT INTO search (rowid, room, body, name, topic) SELECT value ->> 0, value ->> 1, value ->> 2,
            value ->> 3, value ->> 4 FROM json_each($1)"
        | "INSERT INTO search (room_order, words) SELECT (value ->> 0)::bigint, (value ->> 1)::tsvector
            FROM jsonb_array_elements(CAST($1 AS jsonb)) ON CONFLICT (room_order) DO NOTHING";
    ADD_DOCUMENTS_OF_GAPS = "INSERT INTO search_of_gaps (rowid, room, body, name, topic) SELECT value ->> 0,
            value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each($1)"
        | "SELECT 1";
    REMOVE_DOCUMENTS = "DELETE FROM search WHERE rowid IN LIST($1)" | "DELETE FROM search WHERE room_order IN LIST($1)";
    REMOVE_DOCUMENTS_OF_GAPS = "DELETE FROM search_of_gaps WHERE rowid IN LIST($1)" | "SELECT 1";
    FIND_HISTORY = "SELECT 1 FROM history_to_index LIMIT 1";
    /// The $1 with the highest keys. Rows that another transaction has locked are skipped.
    TAKE_HISTORY = "DELETE FROM history_to_index WHERE event_key IN (
            SELECT event_key FROM history_to_index ORDER BY event_key DESC LIMIT $1) RETURNING event_key"
        | "WITH taken AS MATERIALIZED (
            SELECT event_key FROM history_to_index ORDER BY event_key DESC LIMIT $1 FOR UPDATE SKIP LOCKED)
        DELETE FROM history_to_index h USING taken t WHERE h.event_key = t.event_key RETURNING h.event_key";
    FORGET_HISTORY = "DELETE FROM history_to_index WHERE event_key IN LIST($1)";
    /// The newest of either index that match $1: below the key $2, or, out of gaps, below the order $4. 1048576 is
    /// [`Order::SPACE`].
    FIND_NEWEST_ON_SQLITE = "SELECT * FROM (
            SELECT search.rowid * 1048576, e.position, e.room_id, e.sender, e.redacted_by IS NULL
            FROM search CROSS JOIN events e ON e.position = search.rowid
            WHERE search MATCH $1 AND search.rowid < $2 ORDER BY search.rowid DESC LIMIT $3)
        UNION ALL SELECT * FROM (
            SELECT g.rowid, e.position, e.room_id, e.sender, e.redacted_by IS NULL
            FROM search_of_gaps g CROSS JOIN events e ON e.room_order = g.rowid AND e.room_order % 1048576 <> 0
            WHERE search_of_gaps MATCH $1 AND g.rowid < $4 ORDER BY g.rowid DESC LIMIT $3)"
        | "SELECT 1";
    /// The newest below $2 that match $1. What is not below is dropped on the way (`+ 0`): `PostgreSQL` would collect
    /// all that is older from the primary key first.
    FIND_NEWEST = "SELECT 1"
        | "WITH hits AS MATERIALIZED (
            SELECT room_order FROM search WHERE words @@ CAST($1 AS tsquery) AND room_order + 0 < $2),
        newest AS MATERIALIZED (SELECT room_order FROM hits ORDER BY room_order DESC LIMIT $3)
        SELECT n.room_order, e.position, e.room_id, e.sender, e.redacted_by IS NULL
        FROM newest n JOIN events e ON e.position = CASE
            WHEN n.room_order % 1048576 = 0 THEN n.room_order / 1048576
            ELSE (SELECT b.position FROM events b WHERE b.room_order = n.room_order AND b.room_order % 1048576 <> 0) END
        ORDER BY n.room_order DESC";
    /// The newest that match and also pass a comparison with $4: the function is not the operator, which would ask the
    /// index.
    FIND_NEWEST_COMPARED = "SELECT 1"
        | "WITH hits AS MATERIALIZED (
            SELECT room_order FROM search WHERE words @@ CAST($1 AS tsquery) AND room_order + 0 < $2
                AND ts_match_vq(words, CAST($4 AS tsquery))),
        newest AS MATERIALIZED (SELECT room_order FROM hits ORDER BY room_order DESC LIMIT $3)
        SELECT n.room_order, e.position, e.room_id, e.sender, e.redacted_by IS NULL
        FROM newest n JOIN events e ON e.position = CASE
            WHEN n.room_order % 1048576 = 0 THEN n.room_order / 1048576
            ELSE (SELECT b.position FROM events b WHERE b.room_order = n.room_order AND b.room_order % 1048576 <> 0) END
        ORDER BY n.room_order DESC";
    /// As many rows as match, $2 at most. (A limit that the planner sees would have it read the table.)
    LIST_SOME = "SELECT 1"
        | "WITH hits AS MATERIALIZED (SELECT 1 FROM search WHERE words @@ CAST($1 AS tsquery)) SELECT 1 FROM hits LIMIT $2";
}

static INSERT_HISTORY: Insert =
    Insert::new("INSERT_HISTORY", "history_to_index", &[("event_key", ColumnType::Int)], "ON CONFLICT DO NOTHING");

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&INSERT_HISTORY];

/// How many times as much of the log is looked through next at most, where hardly anything has been found.
const STEP: i64 = 64;
/// How many rooms are asked for at once.
const MOST_ROOMS: usize = 200;
/// Words at a greater distance from the beginning have no place of their own on `PostgreSQL`.
const MAX_PLACE: usize = 16_383;

/// What an event says, word by word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) body: Vec<String>,
    pub(crate) name: Vec<String>,
    pub(crate) topic: Vec<String>,
}

/// An event as it is searched.
#[derive(Clone, Debug)]
pub(crate) struct Document<'a> {
    pub(crate) order: Order,
    pub(crate) room_id: &'a RoomId,
    pub(crate) text: Text,
}

/// Documents on their way into the index of one engine, as JSON.
pub(crate) struct IndexRows {
    rows: Option<String>,
    /// On SQLite, those of what came out of a gap.
    of_gaps: Option<String>,
}

/// What a document is called, and in which index.
enum DocumentId {
    Of(i64),
    /// Only on SQLite.
    OfGap(i64),
}

impl DocumentId {
    fn new(engine: Engine, order: Order) -> Self {
        match (engine, order.key()) {
            (Engine::Postgres, _) => Self::Of(order.0),
            (Engine::Sqlite, Some(key)) => Self::Of(key.0),
            (Engine::Sqlite, None) => Self::OfGap(order.0),
        }
    }
}

/// Where a search looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) body: bool,
    pub(crate) name: bool,
    pub(crate) topic: bool,
}

/// Words that follow each other, one of the things that a search asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Phrase {
    pub(crate) words: Vec<String>,
    /// Whether the last word may be the beginning of a longer one.
    pub(crate) is_prefix: bool,
}

/// A room that is searched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SearchedRoom<'a> {
    pub(crate) room_id: &'a RoomId,
    /// First and last place of each stretch in which it is searched, ascending. None: in all of it.
    pub(crate) stretches: Option<&'a [(Order, Order)]>,
}

/// What is looked for: every one of these phrases.
pub(crate) struct SearchQuery<'a> {
    pub(crate) phrases: &'a [Phrase],
    pub(crate) fields: Fields,
    pub(crate) rooms: &'a [SearchedRoom<'a>],
    /// Only what stands before this place.
    pub(crate) below: Order,
    /// How many of the newest are given.
    pub(crate) most: usize,
    pub(crate) sizes: IndexSizes,
}

/// An event that matches.
#[derive(Clone, Debug)]
pub(crate) struct SearchHit {
    pub(crate) order: Order,
    pub(crate) key: EventKey,
    pub(crate) room_id: OwnedRoomId,
    pub(crate) sender: OwnedUserId,
    /// Whether it has been redacted since.
    pub(crate) is_gone: bool,
}

/// Documents as the rows of an engine, as they are made before the transaction that adds them.
pub(crate) fn rows(engine: Engine, documents: &[Document<'_>], sizes: &IndexSizes) -> IndexRows {
    let mut rooms: HashMap<&RoomId, String> = HashMap::new();
    let (mut rows, mut of_gaps) = (Vec::with_capacity(documents.len()), Vec::new());
    for document in documents {
        match engine {
            Engine::Sqlite => {
                let room = rooms.entry(document.room_id).or_insert_with(|| room_word(document.room_id));
                match DocumentId::new(engine, document.order) {
                    DocumentId::Of(id) => rows.push(fts_row(id, document, room)),
                    DocumentId::OfGap(id) => of_gaps.push(fts_row(id, document, room)),
                }
            }
            Engine::Postgres => rows.push(serde_json::json!([document.order, vector(document, sizes)])),
        }
    }
    let [rows, of_gaps] =
        [rows, of_gaps].map(|rows| (!rows.is_empty()).then(|| serde_json::Value::Array(rows).to_string()));
    IndexRows { rows, of_gaps }
}

/// Adds documents, each once. FTS5 is quick with what comes in ascending order.
pub(crate) async fn add(tx: &mut Tx, rows: &IndexRows) -> DbResult<()> {
    if let Some(rows) = &rows.rows {
        tx.execute(&ADD_DOCUMENTS, args![rows]).await?;
    }
    if let Some(rows) = &rows.of_gaps {
        tx.execute(&ADD_DOCUMENTS_OF_GAPS, args![rows]).await?;
    }
    Ok(())
}

/// Removes what there is at some places.
pub(crate) async fn remove(tx: &mut Tx, orders: &[Order]) -> DbResult<()> {
    let (mut rows, mut of_gaps) = (Vec::with_capacity(orders.len()), Vec::new());
    for order in orders {
        match DocumentId::new(tx.engine(), *order) {
            DocumentId::Of(id) => rows.push(id),
            DocumentId::OfGap(id) => of_gaps.push(id),
        }
    }
    if !rows.is_empty() {
        tx.execute(&REMOVE_DOCUMENTS, args![&rows]).await?;
    }
    if !of_gaps.is_empty() {
        tx.execute(&REMOVE_DOCUMENTS_OF_GAPS, args![&of_gaps]).await?;
    }
    Ok(())
}

/// Has events that the log does not tell of wait until they are indexed.
pub(crate) async fn add_history(tx: &mut Tx, keys: &[EventKey]) -> DbResult<()> {
    tx.insert(&INSERT_HISTORY, &[Column::ints(keys.iter().map(|key| key.0))]).await
}

/// Whether such events wait.
pub(crate) async fn is_history_waiting(conn: &mut Conn) -> DbResult<bool> {
    Ok(conn.find(&FIND_HISTORY, args![]).await?.is_some())
}

/// Takes some of those that wait, at most so many, and returns their keys.
pub(crate) async fn take_history(tx: &mut Tx, most: usize) -> DbResult<Vec<i64>> {
    tx.list(&TAKE_HISTORY, args![number(most)]).await?.iter().map(|row| row.get(0)).collect()
}

/// Takes events that go elsewhere out of what waits, and then out of the index: whoever is just adding one is waited for.
pub(crate) async fn forget_history(tx: &mut Tx, events: &[(EventKey, Order)]) -> DbResult<()> {
    if events.is_empty() {
        return Ok(());
    }
    let (keys, orders): (Vec<i64>, Vec<Order>) = events.iter().map(|(key, order)| (key.0, *order)).unzip();
    tx.execute(&FORGET_HISTORY, args![&keys]).await?;
    remove(tx, &orders).await
}

/// The newest that match, newest first.
pub(crate) async fn find(conn: &mut Conn, wanted: &SearchQuery<'_>) -> DbResult<Vec<SearchHit>> {
    let mut found = Vec::new();
    if wanted.rooms.is_empty() || wanted.phrases.is_empty() {
        return Ok(found);
    }
    let rooms: HashMap<&RoomId, &SearchedRoom<'_>> = wanted.rooms.iter().map(|room| (room.room_id, room)).collect();
    let is_wanted = |hit: &SearchHit| rooms.get(&*hit.room_id).is_some_and(|room| room.holds(hit.order));
    let lookup = Lookup::new(conn, wanted).await?;
    let (mut below, mut looked_at, mut look) = (wanted.below, 0, wanted.most);
    let IndexSizes { few_rooms, most_looked_at, .. } = wanted.sizes;
    // With many rooms, the newest of any room are looked at first and the wanted ones picked out; only what that does
    // not find is asked for room by room.
    while rooms.len() > few_rooms && looked_at + look <= most_looked_at {
        let matches = lookup.newest(conn, &[], below, look).await?;
        let is_all = matches.len() < look;
        below = matches.last().map_or(below, |hit| hit.order);
        looked_at += look;
        found.extend(matches.into_iter().filter(is_wanted));
        if is_all || found.len() >= wanted.most {
            found.truncate(wanted.most);
            return Ok(found);
        }
        look = still_needed(wanted.most, found.len(), looked_at);
    }
    found.extend(lookup.newest_of_rooms(conn, below, wanted.most - found.len()).await?);
    Ok(found)
}

/// How what is wanted is looked for.
struct Lookup<'a> {
    wanted: &'a SearchQuery<'a>,
    /// What the index is asked for.
    indexed: Vec<&'a Phrase>,
    /// What everything that the index gives is compared with.
    compared: Option<&'a Phrase>,
}

impl<'a> Lookup<'a> {
    /// On `PostgreSQL` the index gathers all words with one beginning, whatever they are asked for with. Where the rest
    /// of the term is said seldom, the few messages that have it are compared with the beginning instead.
    async fn new(conn: &mut Conn, wanted: &'a SearchQuery<'a>) -> DbResult<Self> {
        let (prefixes, others): (Vec<&Phrase>, Vec<_>) = wanted.phrases.iter().partition(|phrase| phrase.is_prefix);
        let compared = prefixes.first().copied().filter(|_| conn.engine() == Engine::Postgres && !others.is_empty());
        if compared.is_some() && is_seldom(conn, &ts_query(&others, wanted.fields, &[]), wanted).await? {
            return Ok(Self { wanted, indexed: others, compared });
        }
        Ok(Self { wanted, indexed: wanted.phrases.iter().collect(), compared: None })
    }

    /// The newest matches below some place, newest first; in any room if none is given.
    async fn newest(&self, conn: &mut Conn, rooms: &[&RoomId], below: Order, most: usize) -> DbResult<Vec<SearchHit>> {
        if conn.engine() == Engine::Sqlite {
            return self.newest_on_sqlite(conn, rooms, below, most).await;
        }
        // Every hit in what is asked for is read from its row before the newest are chosen. So it begins with the end
        // of the log, and goes on with as much as should do by what was found there.
        let query = ts_query(&self.indexed, self.wanted.fields, rooms);
        let (end, mut below) = (first_not_below(below), below);
        let mut found = Vec::new();
        let mut length = shortest(&self.wanted.sizes);
        while let Some((stretches, begin)) = stretches_below(below, length, &self.wanted.sizes) {
            found.extend(self.run(conn, &format!("{stretches} & {query}"), below, most - found.len()).await?);
            if found.len() >= most {
                return Ok(found);
            }
            below = begin;
            let looked_through = end - first_not_below(begin);
            let enough = looked_through.saturating_mul(number(most - found.len())) / number(found.len().max(1));
            length = (enough.saturating_mul(5) / 4).min(looked_through.saturating_mul(STEP));
        }
        found.extend(self.run(conn, &query, below, most - found.len()).await?);
        Ok(found)
    }

    async fn newest_on_sqlite(
        &self,
        conn: &mut Conn,
        rooms: &[&RoomId],
        below: Order,
        most: usize,
    ) -> DbResult<Vec<SearchHit>> {
        let query = fts_query(&self.indexed, self.wanted.fields, rooms);
        let args = args![&query, first_not_below(below), number(most), below.0];
        let rows = conn.list(&FIND_NEWEST_ON_SQLITE, args).await?;
        let mut hits: Vec<SearchHit> = rows.iter().map(hit).collect::<DbResult<_>>()?;
        hits.sort_unstable_by_key(|hit| Reverse(hit.order));
        hits.truncate(most);
        Ok(hits)
    }

    /// One question to the index, below a place. What is compared beside it is compared row by row.
    async fn run(&self, conn: &mut Conn, query: &str, below: Order, most: usize) -> DbResult<Vec<SearchHit>> {
        let rows = match self.compared {
            None => conn.list(&FIND_NEWEST, args![query, below.0, number(most)]).await?,
            Some(phrase) => {
                let compared = ts_query(&[phrase], self.wanted.fields, &[]);
                conn.list(&FIND_NEWEST_COMPARED, args![query, below.0, number(most), &compared]).await?
            }
        };
        rows.iter().map(hit).collect()
    }

    /// The newest matches in the rooms below some place, newest first.
    async fn newest_of_rooms(&self, conn: &mut Conn, below: Order, most: usize) -> DbResult<Vec<SearchHit>> {
        let (in_part, whole): (Vec<&SearchedRoom<'_>>, Vec<_>) =
            self.wanted.rooms.iter().partition(|room| room.stretches.is_some());
        let whole: Vec<&RoomId> = whole.iter().map(|room| room.room_id).collect();
        let mut found = Vec::new();
        let newest_of = |mut hits: Vec<SearchHit>| {
            hits.sort_unstable_by_key(|hit| Reverse(hit.order));
            hits.truncate(most);
            hits
        };
        for rooms in whole.chunks(MOST_ROOMS) {
            found.extend(self.newest(conn, rooms, below, most).await?);
        }
        found = newest_of(found);
        let stretches = in_part.iter().flat_map(|room| {
            room.stretches
                .into_iter()
                .flatten()
                .map(|(first, last)| ((*last).min(below.before()), *first, room.room_id))
        });
        let mut stretches: Vec<(Order, Order, &RoomId)> = stretches.collect();
        stretches.sort_unstable_by_key(|(last, ..)| Reverse(*last));
        for (last, first, room_id) in stretches {
            // What follows is older still.
            if found.len() == most && found.last().is_some_and(|hit| hit.order > last) {
                break;
            }
            if first <= last {
                let hits = self.newest(conn, &[room_id], last.next(), most).await?;
                found.extend(hits.into_iter().filter(|hit| hit.order >= first));
                found = newest_of(found);
            }
        }
        Ok(found)
    }
}

/// How much of the log is looked through first.
fn shortest(sizes: &IndexSizes) -> i64 {
    sizes.stretches.first().map_or(1, |(bits, _)| 1 << bits)
}

/// The first position whose place is not below another one; below zero, the first key of history. Not above zero where
/// only history is below it.
fn first_not_below(place: Order) -> i64 {
    place.before().block() + 1
}

/// Stretches of the log as words, of which one has to be there: those just below some place, together at least so long.
/// And where they begin. None where that is everything that the log has, or too much for the longest: what is left is
/// looked for without them, history below zero always.
fn stretches_below(below: Order, length: i64, sizes: &IndexSizes) -> Option<(String, Order)> {
    let (bits, letter) = sizes.stretches.iter().find(|(bits, _)| length <= sizes.few_stretches << bits)?;
    let end = first_not_below(below);
    let (first, last) = (end.saturating_sub(length) >> bits, (end - 1) >> bits);
    let words: Vec<String> = (first..=last).map(|stretch| format!("'#{letter}{stretch}'")).collect();
    (first > 0).then(|| (format!("({})", words.join(" | ")), Order::at(Position(first << bits))))
}

/// Whether so little below some place matches, by what is found at its end, that all of it can be read.
async fn is_seldom(
    conn: &mut Conn,
    query: &str,
    &SearchQuery { below, sizes, .. }: &SearchQuery<'_>,
) -> DbResult<bool> {
    let Some((stretches, begin)) = stretches_below(below, shortest(&sizes), &sizes) else { return Ok(false) };
    let end = first_not_below(below);
    let few = sizes.most_compared.saturating_mul(end - first_not_below(begin)) / end;
    let query = format!("{stretches} & {query}");
    let matches = conn.list(&LIST_SOME, args![&query, few + 1]).await?;
    Ok(number(matches.len()) <= few)
}

/// A number of rows as statements take it.
fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl SearchedRoom<'_> {
    /// Whether this place of the room is searched.
    pub(crate) fn holds(&self, at: Order) -> bool {
        self.stretches.is_none_or(|stretches| stretches.iter().any(|(first, last)| *first <= at && at <= *last))
    }
}

/// How much more has to be looked through, if it holds as many as what has been.
fn still_needed(wanted: usize, found: usize, looked_through: usize) -> usize {
    wanted.saturating_sub(found).saturating_mul(looked_through) / (found + 1)
}

fn hit(row: &Row) -> DbResult<SearchHit> {
    Ok(SearchHit {
        order: Order(row.get(0)?),
        key: EventKey(row.get(1)?),
        room_id: row.get(2)?,
        sender: row.get(3)?,
        is_gone: !row.get::<bool>(4)?,
    })
}

/// A row of the FTS5 table: its tokeniser splits at spaces and leaves the words as they are.
///
/// Words hold no spaces, so they come apart as they were put together.
fn fts_row(rowid: i64, document: &Document<'_>, room: &str) -> serde_json::Value {
    let Text { body, name, topic } = &document.text;
    serde_json::json!([rowid, room, body.join(" "), name.join(" "), topic.join(" ")])
}

/// <https://www.sqlite.org/fts5.html#full_text_query_syntax>
fn fts_query(phrases: &[&Phrase], Fields { body, name, topic }: Fields, rooms: &[&RoomId]) -> String {
    let fields: Vec<&str> = [("body", body), ("name", name), ("topic", topic)]
        .iter()
        .filter(|(_, is_in)| *is_in)
        .map(|(field, _)| *field)
        .collect();
    let phrase =
        |phrase: &&Phrase| format!("\"{}\"{}", phrase.words.join(" "), if phrase.is_prefix { " *" } else { "" });
    let words: Vec<String> = phrases.iter().map(phrase).collect();
    let words = format!("{{{}}} : ({})", fields.join(" "), words.join(" AND "));
    if rooms.is_empty() {
        return words;
    }
    let rooms: Vec<String> = rooms.iter().map(|room| format!("\"{}\"", room_word(room))).collect();
    format!("(room : ({})) AND ({words})", rooms.join(" OR "))
}

/// A room as a word of letters and digits.
fn room_word(room_id: &RoomId) -> String {
    let hash = digest::digest(&digest::SHA256, room_id.as_bytes());
    hash.as_ref().iter().take(12).fold(String::from("r"), |mut word, byte| {
        write!(word, "{byte:02x}").unwrap_or_default();
        word
    })
}

/// A document as a `tsvector` is written. No word of a text begins as those of rooms and stretches do.
///
/// <https://www.postgresql.org/docs/current/datatype-textsearch.html>
fn vector(document: &Document<'_>, sizes: &IndexSizes) -> String {
    let mut vector = ts_quoted(&format!("!{}", document.room_id));
    for &(bits, letter) in sizes.stretches {
        write!(vector, " '#{letter}{}'", document.order.block() >> bits).unwrap_or_default();
    }
    let mut place = 0;
    let Text { body, name, topic } = &document.text;
    for (words, label) in [(name, "A"), (topic, "B"), (body, "D")] {
        for word in words {
            place += 1;
            write!(vector, " {}:{}{label}", ts_quoted(word), place.min(MAX_PLACE)).unwrap_or_default();
        }
        // Nothing follows what is said elsewhere.
        place += 2;
    }
    vector
}

/// <https://www.postgresql.org/docs/current/datatype-textsearch.html#DATATYPE-TSQUERY>
fn ts_query(phrases: &[&Phrase], Fields { body, name, topic }: Fields, rooms: &[&RoomId]) -> String {
    // Labels are not in the index: asking for all of them has every match read from the table, for nothing.
    let is_anywhere = body && name && topic;
    let labels: String = [('A', name), ('B', topic), ('D', body)]
        .iter()
        .filter(|(_, is_in)| *is_in && !is_anywhere)
        .map(|(label, _)| *label)
        .collect();
    let phrase = |phrase: &&Phrase| {
        let last = phrase.words.len().saturating_sub(1);
        let word = |(number, word): (usize, &String)| {
            let prefix = if phrase.is_prefix && number == last { "*" } else { "" };
            // Nothing behind the colon is no condition.
            format!("{}:{prefix}{labels}", ts_quoted(word))
        };
        let words: Vec<String> = phrase.words.iter().enumerate().map(word).collect();
        format!("({})", words.join(" <-> "))
    };
    let phrases: Vec<String> = phrases.iter().map(phrase).collect();
    let words = phrases.join(" & ");
    if rooms.is_empty() {
        return words;
    }
    let rooms: Vec<String> = rooms.iter().map(|room| ts_quoted(&format!("!{room}"))).collect();
    format!("({}) & {words}", rooms.join(" | "))
}

fn ts_quoted(word: &str) -> String {
    format!("'{}'", word.replace('\\', "\\\\").replace('\'', "''"))
}
