//! `search` and `search_progress`: the full text of messages, names and topics, in the engine's own index. FTS5 on
//! SQLite, `tsvector` on `PostgreSQL`; what is a word and how well something matches is decided above, so that both find
//! the same in the same order.
//!
//! A room is a word too, for searches in few rooms and for those whose rooms hold little of what matches: with many
//! rooms both engines are slow. On `PostgreSQL` the stretch of the log is another: its index knows no order, and what is
//! newest is found stretch by stretch.
//!
//! <https://www.sqlite.org/fts5.html>, <https://www.postgresql.org/docs/current/textsearch.html>

use std::{cmp::Reverse, collections::HashMap, fmt::Write as _};

use aws_lc_rs::digest;
use ruma::{OwnedRoomId, OwnedUserId, RoomId};

use crate::{
    db::{Conn, DbResult, Engine, Row, Tx, args, statements},
    position::Position,
};

statements! {
    FIND_PROGRESS = "SELECT position FROM search_progress";
    /// Only whoever has read from where the index stands moves it on.
    MOVE_PROGRESS = "UPDATE search_progress SET position = $2 WHERE position = $1";
    ADD_DOCUMENTS = "INSERT INTO search (rowid, room, body, name, topic) SELECT value ->> 0, value ->> 1, value ->> 2,
            value ->> 3, value ->> 4 FROM json_each($1)"
        | "INSERT INTO search (position, words) SELECT (value ->> 0)::bigint, (value ->> 1)::tsvector
            FROM jsonb_array_elements(CAST($1 AS jsonb)) ON CONFLICT (position) DO NOTHING";
    REMOVE_DOCUMENTS = "DELETE FROM search WHERE rowid IN LIST($1)" | "DELETE FROM search WHERE position IN LIST($1)";
    /// The newest below $2 that match $1. What is not below is dropped on the way (`+ 0`): `PostgreSQL` would collect all
    /// that is older from the primary key first.
    FIND_NEWEST = "SELECT search.rowid, e.room_id, e.sender, e.redacted_by IS NULL
        FROM search CROSS JOIN events e ON e.position = search.rowid
        WHERE search MATCH $1 AND search.rowid < $2 ORDER BY search.rowid DESC LIMIT $3"
        | "WITH hits AS MATERIALIZED (
            SELECT position FROM search WHERE words @@ CAST($1 AS tsquery) AND position + 0 < $2),
        newest AS MATERIALIZED (SELECT position FROM hits ORDER BY position DESC LIMIT $3)
        SELECT n.position, e.room_id, e.sender, e.redacted_by IS NULL
        FROM newest n JOIN events e ON e.position = n.position ORDER BY n.position DESC";
    /// The same of what also passes a comparison with $4: the function is not the operator, which would ask the index.
    FIND_NEWEST_COMPARED = "SELECT 1"
        | "WITH hits AS MATERIALIZED (
            SELECT position FROM search WHERE words @@ CAST($1 AS tsquery) AND position + 0 < $2
                AND ts_match_vq(words, CAST($4 AS tsquery))),
        newest AS MATERIALIZED (SELECT position FROM hits ORDER BY position DESC LIMIT $3)
        SELECT n.position, e.room_id, e.sender, e.redacted_by IS NULL
        FROM newest n JOIN events e ON e.position = n.position ORDER BY n.position DESC";
    /// As many rows as match, $2 at most. (A limit that the planner sees would have it read the table.)
    LIST_SOME = "SELECT 1"
        | "WITH hits AS MATERIALIZED (SELECT 1 FROM search WHERE words @@ CAST($1 AS tsquery)) SELECT 1 FROM hits LIMIT $2";
}

/// How long the stretches of the log are that are words on `PostgreSQL`, as powers of two, and their letters. In tests so
/// short that a log has several.
const STRETCHES: &[(u32, char)] =
    if cfg!(test) { &[(3, 'b'), (4, 'c'), (5, 'd')] } else { &[(13, 'b'), (16, 'c'), (19, 'd'), (22, 'e')] };
/// How much of the log is looked through first.
const SHORTEST: i64 = if cfg!(test) { 1 << 3 } else { 1 << 13 };
/// How many stretches of one length are asked for, or one more, before longer ones are.
const FEW: i64 = if cfg!(test) { 2 } else { 6 };
/// How many messages are compared with the beginning of a word at most, by estimate, before the index gathers all words
/// that begin with it.
const MOST_COMPARED: i64 = if cfg!(test) { 40 } else { 10_000 };
/// How many times as much of the log is looked through next at most, where hardly anything has been found.
const STEP: i64 = 64;
/// How many of the newest matches are looked at whatever room they are in, before the rooms are asked for: those cost
/// both engines more the more they are, and most people find most of what is said where they are.
const MOST_LOOKED_AT: usize = if cfg!(test) { 24 } else { 5_000 };
/// With so few rooms there is no need for that: they are a few words more. In tests so few that both are tried.
const FEW_ROOMS: usize = if cfg!(test) { 1 } else { 4 };
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
    pub(crate) position: Position,
    pub(crate) room_id: &'a RoomId,
    pub(crate) text: Text,
}

/// Documents on their way into the index of one engine.
pub(crate) struct Rows(Option<String>);

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
    /// First and last place of each stretch of the log in which it is searched, ascending. None: in all of it.
    pub(crate) stretches: Option<&'a [(Position, Position)]>,
}

/// What is looked for: every one of these phrases.
pub(crate) struct Wanted<'a> {
    pub(crate) phrases: &'a [Phrase],
    pub(crate) fields: Fields,
    pub(crate) rooms: &'a [SearchedRoom<'a>],
    /// Only what stands before this place.
    pub(crate) below: Position,
    /// How many of the newest are given.
    pub(crate) most: usize,
}

/// An event that matches.
#[derive(Clone, Debug)]
pub(crate) struct Hit {
    pub(crate) position: Position,
    pub(crate) room_id: OwnedRoomId,
    pub(crate) sender: OwnedUserId,
    /// Whether it has been redacted since.
    pub(crate) is_gone: bool,
}

/// Up to where the log has been indexed.
pub(crate) async fn progress(conn: &mut Conn) -> DbResult<Position> {
    let row = conn.find(&FIND_PROGRESS, args![]).await?;
    Ok(row.map(|row| row.get(0)).transpose()?.map_or(Position::START, Position))
}

/// Notes that the index, which stood at `from`, now holds everything up to `until`. False if it stands elsewhere: then
/// somebody else has done this.
pub(crate) async fn move_progress(tx: &mut Tx, from: Position, until: Position) -> DbResult<bool> {
    Ok(tx.execute(&MOVE_PROGRESS, args![from.0, until.0]).await? == 1)
}

/// Documents as the rows of an engine, as they are made before the transaction that adds them.
pub(crate) fn rows(engine: Engine, documents: &[Document<'_>]) -> Rows {
    let mut rooms: HashMap<&RoomId, String> = HashMap::new();
    let mut rows = Vec::with_capacity(documents.len());
    for document in documents {
        rows.push(match engine {
            Engine::Sqlite => {
                let room = rooms.entry(document.room_id).or_insert_with(|| room_word(document.room_id));
                fts_row(document, room)
            }
            Engine::Postgres => serde_json::json!([document.position, vector(document)]),
        });
    }
    Rows((!rows.is_empty()).then(|| serde_json::Value::Array(rows).to_string()))
}

pub(crate) async fn add(tx: &mut Tx, rows: &Rows) -> DbResult<()> {
    match &rows.0 {
        Some(rows) => tx.execute(&ADD_DOCUMENTS, args![rows]).await.map(drop),
        None => Ok(()),
    }
}

pub(crate) async fn remove(tx: &mut Tx, positions: &[i64]) -> DbResult<()> {
    if positions.is_empty() {
        return Ok(());
    }
    tx.execute(&REMOVE_DOCUMENTS, args![positions]).await.map(drop)
}

/// The newest that match, newest first.
pub(crate) async fn find(conn: &mut Conn, wanted: &Wanted<'_>) -> DbResult<Vec<Hit>> {
    let mut found = Vec::new();
    if wanted.rooms.is_empty() || wanted.phrases.is_empty() {
        return Ok(found);
    }
    let rooms: HashMap<&RoomId, &SearchedRoom<'_>> = wanted.rooms.iter().map(|room| (room.room_id, room)).collect();
    let is_wanted = |hit: &Hit| rooms.get(&*hit.room_id).is_some_and(|room| room.holds(hit.position));
    let lookup = Lookup::new(conn, wanted).await?;
    let (mut below, mut looked_at, mut look) = (wanted.below, 0, wanted.most);
    while rooms.len() > FEW_ROOMS && looked_at + look <= MOST_LOOKED_AT {
        let matches = lookup.newest(conn, &[], below, look).await?;
        let is_all = matches.len() < look;
        below = matches.last().map_or(below, |hit| hit.position);
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
    wanted: &'a Wanted<'a>,
    /// What the index is asked for.
    indexed: Vec<&'a Phrase>,
    /// What everything that the index gives is compared with.
    compared: Option<&'a Phrase>,
}

impl<'a> Lookup<'a> {
    /// On `PostgreSQL` the index gathers all words with one beginning, whatever they are asked for with. Where the rest of
    /// the term is said seldom, the few messages that have it are compared with the beginning instead.
    async fn new(conn: &mut Conn, wanted: &'a Wanted<'a>) -> DbResult<Self> {
        let (prefixes, others): (Vec<&Phrase>, Vec<_>) = wanted.phrases.iter().partition(|phrase| phrase.is_prefix);
        let compared = prefixes.first().copied().filter(|_| conn.engine() == Engine::Postgres && !others.is_empty());
        if compared.is_some() && is_seldom(conn, &ts_query(&others, wanted.fields, &[]), wanted.below).await? {
            return Ok(Self { wanted, indexed: others, compared });
        }
        Ok(Self { wanted, indexed: wanted.phrases.iter().collect(), compared: None })
    }

    /// The newest matches below some place, newest first; in any room if none is given.
    async fn newest(&self, conn: &mut Conn, rooms: &[&RoomId], below: Position, most: usize) -> DbResult<Vec<Hit>> {
        if conn.engine() == Engine::Sqlite {
            let query = fts_query(&self.indexed, self.wanted.fields, rooms);
            let rows = conn.list(&FIND_NEWEST, args![&query, below.0, number(most)]).await?;
            return rows.iter().map(hit).collect();
        }
        // Every hit in what is asked for is read from its row before the newest are chosen. So it begins with the end of
        // the log, and goes on with as much as should do by what was found there.
        let query = ts_query(&self.indexed, self.wanted.fields, rooms);
        let (end, mut below) = (below.0, below);
        let mut found = Vec::new();
        let mut length = SHORTEST;
        while let Some((stretches, begin)) = stretches_below(below, length) {
            found.extend(self.run(conn, &format!("{stretches} & {query}"), below, most - found.len()).await?);
            if found.len() >= most {
                return Ok(found);
            }
            below = begin;
            let looked_through = end - begin.0;
            let enough = looked_through.saturating_mul(number(most - found.len())) / number(found.len().max(1));
            length = (enough.saturating_mul(5) / 4).min(looked_through.saturating_mul(STEP));
        }
        found.extend(self.run(conn, &query, below, most - found.len()).await?);
        Ok(found)
    }

    async fn run(&self, conn: &mut Conn, query: &str, below: Position, most: usize) -> DbResult<Vec<Hit>> {
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
    async fn newest_of_rooms(&self, conn: &mut Conn, below: Position, most: usize) -> DbResult<Vec<Hit>> {
        let (in_part, whole): (Vec<&SearchedRoom<'_>>, Vec<_>) =
            self.wanted.rooms.iter().partition(|room| room.stretches.is_some());
        let whole: Vec<&RoomId> = whole.iter().map(|room| room.room_id).collect();
        let mut found = Vec::new();
        let newest_of = |mut hits: Vec<Hit>| {
            hits.sort_unstable_by_key(|hit| Reverse(hit.position));
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
        let mut stretches: Vec<(Position, Position, &RoomId)> = stretches.collect();
        stretches.sort_unstable_by_key(|(last, ..)| Reverse(*last));
        for (last, first, room_id) in stretches {
            // What follows is older still.
            if found.len() == most && found.last().is_some_and(|hit| hit.position > last) {
                break;
            }
            if first <= last {
                let hits = self.newest(conn, &[room_id], last.next(), most).await?;
                found.extend(hits.into_iter().filter(|hit| hit.position >= first));
                found = newest_of(found);
            }
        }
        Ok(found)
    }
}

/// Stretches of the log as words, of which one has to be there: those just below some place, together at least so long.
/// And where they begin. None where that is everything, or too much for the longest.
fn stretches_below(below: Position, length: i64) -> Option<(String, Position)> {
    let (bits, letter) = STRETCHES.iter().find(|(bits, _)| length <= FEW << bits)?;
    let (first, last) = (below.0.saturating_sub(length) >> bits, below.before().0 >> bits);
    let words: Vec<String> = (first..=last).map(|stretch| format!("'#{letter}{stretch}'")).collect();
    (first > 0).then(|| (format!("({})", words.join(" | ")), Position(first << bits)))
}

/// Whether so little below some place matches, by what is found at its end, that all of it can be read.
async fn is_seldom(conn: &mut Conn, query: &str, below: Position) -> DbResult<bool> {
    let Some((stretches, begin)) = stretches_below(below, SHORTEST) else { return Ok(false) };
    let few = MOST_COMPARED.saturating_mul(below.0 - begin.0) / below.0;
    let query = format!("{stretches} & {query}");
    let matches = conn.list(&LIST_SOME, args![&query, few + 1]).await?;
    Ok(number(matches.len()) <= few)
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl SearchedRoom<'_> {
    /// Whether this place of the room is searched.
    pub(crate) fn holds(&self, at: Position) -> bool {
        self.stretches.is_none_or(|stretches| stretches.iter().any(|(first, last)| *first <= at && at <= *last))
    }
}

/// How much more has to be looked through, if it holds as many as what has been.
fn still_needed(wanted: usize, found: usize, looked_through: usize) -> usize {
    wanted.saturating_sub(found).saturating_mul(looked_through) / (found + 1)
}

fn hit(row: &Row) -> DbResult<Hit> {
    Ok(Hit {
        position: Position(row.get(0)?),
        room_id: row.get(1)?,
        sender: row.get(2)?,
        is_gone: !row.get::<bool>(3)?,
    })
}

/// A row of the FTS5 table: its tokeniser splits at spaces and leaves the words as they are.
fn fts_row(document: &Document<'_>, room: &str) -> serde_json::Value {
    let Text { body, name, topic } = &document.text;
    serde_json::json!([document.position, room, body.join(" "), name.join(" "), topic.join(" ")])
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
fn vector(document: &Document<'_>) -> String {
    let mut vector = ts_quoted(&format!("!{}", document.room_id));
    for &(bits, letter) in STRETCHES {
        write!(vector, " '#{letter}{}'", document.position.0 >> bits).unwrap_or_default();
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
