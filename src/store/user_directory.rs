//! `user_directory`, `user_directory_words`, `user_directory_rooms`: by what users are found, and who can be found by
//! anybody.

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};

use crate::{
    db::{Column, ColumnType, Conn, DbError, DbResult, Insert, Row, Tx, args, statements},
    ground::words::{self, WantedPrefix, Word, WordRank},
};

/// How far the log has been taken into the directory. Whoever looks at memberships and writes down what follows from
/// them for the directory holds it: what changes afterwards is looked at later.
pub(crate) const CURSOR: &str = "user directory";
/// How many rows a scan brings. It stands in the statements, so that they are planned for it.
pub(crate) const SCANNED: usize = 200;

statements! {
    LOCK_LISTED = "SELECT is_public FROM user_directory WHERE user_id = $1 FOR UPDATE";
    DELETE_LISTED = "DELETE FROM user_directory WHERE user_id = $1";
    DELETE_WORDS = "DELETE FROM user_directory_words WHERE user_id = $1 AND room_id = $2";
    DELETE_STRANGERS = "DELETE FROM user_directory_words WHERE user_id IN LIST($1) AND room_id = $2";
    /// Turns those round whose rooms say otherwise.
    REVIEW_LISTED = "UPDATE user_directory SET is_public = NOT is_public
        WHERE user_id IN LIST($1) AND is_public <> COALESCE((
            SELECT TRUE FROM memberships m JOIN rooms r ON r.room_id = m.room_id
            WHERE m.user_id = user_directory.user_id AND m.membership = 'join' AND (r.joinable OR r.world_readable)
            LIMIT 1), FALSE)
        RETURNING user_id, is_public";
    SHOW_WORDS = "UPDATE user_directory_words SET is_public = $3 WHERE user_id IN LIST($1) AND room_id = $2";
    PUT_OFF_ROOM = "INSERT INTO user_directory_rooms (room_id, head) VALUES ($1, $2)
        ON CONFLICT (room_id) DO UPDATE SET head = excluded.head";
    FIND_PUT_OFF = "SELECT room_id, head FROM user_directory_rooms WHERE room_id > $1 ORDER BY room_id LIMIT 1";
    DELETE_PUT_OFF = "DELETE FROM user_directory_rooms WHERE room_id = $1 AND head = $2";
    FIND_MEMBER_AFTER = "SELECT mine.room_id FROM memberships mine
        JOIN memberships theirs ON theirs.room_id = mine.room_id AND theirs.membership = 'join'
        WHERE mine.user_id = $1 AND mine.membership = 'join' LIMIT 1 OFFSET $2";
    LIST_PEERS = "SELECT DISTINCT user_id FROM memberships WHERE room_id IN LIST($1) AND membership = 'join'";
    /// Of those who can be found by anybody. What else is wanted is a subquery with a limit because PostgreSQL would
    /// rather read the whole table for an EXISTS.
    SCAN_PUBLIC = "SELECT w.user_id, w.room_id, w.word, w.rank, ($6 = '' OR COALESCE((
            SELECT TRUE FROM user_directory_words other WHERE other.user_id = w.user_id AND other.room_id = w.room_id
                AND other.word >= $6 AND other.word < $7 LIMIT 1), FALSE))
        FROM user_directory_words w
        WHERE w.is_public AND w.rank = $1 AND (w.word, w.user_id, w.room_id) > ($2, $3, $4) AND w.word < $5
        ORDER BY w.word, w.user_id, w.room_id LIMIT 200";
    /// Of all, with whether they are users of this server.
    SCAN_LOCALS = "SELECT w.user_id, w.room_id, w.word, w.rank, w.room_id = '' AND ($6 = '' OR COALESCE((
            SELECT TRUE FROM user_directory_words other WHERE other.user_id = w.user_id AND other.room_id = w.room_id
                AND other.word >= $6 AND other.word < $7 LIMIT 1), FALSE))
        FROM user_directory_words w
        WHERE w.rank = $1 AND (w.word, w.user_id, w.room_id) > ($2, $3, $4) AND w.word < $5
        ORDER BY w.word, w.user_id, w.room_id LIMIT 200";
    /// Of all, with whether they are in one of the rooms.
    SCAN_ALL = "SELECT w.user_id, w.room_id, w.word, w.rank, ($6 = '' OR COALESCE((
            SELECT TRUE FROM user_directory_words other WHERE other.user_id = w.user_id AND other.room_id = w.room_id
                AND other.word >= $6 AND other.word < $7 LIMIT 1), FALSE))
            AND (w.room_id IN LIST($8) OR w.room_id = '' AND COALESCE((SELECT TRUE FROM memberships m
                WHERE m.user_id = w.user_id AND m.room_id IN LIST($8) AND m.membership = 'join' LIMIT 1), FALSE))
        FROM user_directory_words w
        WHERE w.rank = $1 AND (w.word, w.user_id, w.room_id) > ($2, $3, $4) AND w.word < $5
        ORDER BY w.word, w.user_id, w.room_id LIMIT 200";
    /// The best of each of some users: by rank, but whole names first.
    SEARCH_AMONG = "SELECT user_id, room_id, word, rank FROM (
            SELECT w.user_id, w.room_id, w.word, w.rank,
                ROW_NUMBER() OVER (PARTITION BY w.user_id ORDER BY w.rank, w.word, w.room_id) AS nth
            FROM user_directory_words w
            WHERE w.user_id IN LIST($1) AND (w.room_id = '' OR w.room_id IN LIST($2)) AND w.word >= $3 AND w.word < $4
                AND ($5 = '' OR COALESCE((SELECT TRUE FROM user_directory_words other WHERE other.user_id = w.user_id
                    AND other.room_id = w.room_id AND other.word >= $5 AND other.word < $6 LIMIT 1), FALSE))
        ) found WHERE nth = 1
        ORDER BY CASE WHEN $5 = '' AND word = $3 AND rank < 2 THEN 0 ELSE 1 END, rank, word, user_id LIMIT $7";
}

/// Whoever is in the directory stays as they are.
static INSERT_LISTED: Insert = Insert::new(
    "INSERT_LISTED",
    "user_directory",
    &[("user_id", ColumnType::Text), ("is_public", ColumnType::Bool)],
    "ON CONFLICT DO NOTHING",
);

/// A name has a row for each word that begins in it, up to its end: so whoever types any of its words reads one range.
static INSERT_WORDS: Insert = Insert::new(
    "INSERT_WORDS",
    "user_directory_words",
    &[
        ("user_id", ColumnType::Text),
        ("room_id", ColumnType::Text),
        ("word", ColumnType::Text),
        ("rank", ColumnType::Int),
        ("is_public", ColumnType::Bool),
    ],
    "",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&INSERT_LISTED, &INSERT_WORDS];

/// By what somebody is found.
pub(crate) struct DirectoryEntry<'a> {
    pub(crate) user_id: &'a UserId,
    /// The room in which a user of another server is called so. None for users of this server.
    pub(crate) room_id: Option<&'a RoomId>,
    pub(crate) words: Vec<Word>,
    /// Whether anybody may find them.
    pub(crate) is_public: bool,
}

/// Of whom a scan brings hits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Among<'a> {
    /// Whom anybody may find.
    Public,
    /// Every user of this server.
    Locals,
    /// Whoever is in one of these rooms.
    Rooms(&'a [&'a str]),
}

/// Somebody who has been found.
#[derive(Clone, Debug)]
pub(crate) struct DirectoryHit {
    pub(crate) user_id: OwnedUserId,
    /// The room in which a user of another server is called so.
    pub(crate) room_id: Option<OwnedRoomId>,
    pub(crate) word: String,
    pub(crate) rank: WordRank,
}

/// Puts somebody who is not in the directory into it, as a user of this server who is called so and is in the rooms
/// that they are in now. Whoever may be in any is added by whoever holds [`CURSOR`].
pub(crate) async fn add(tx: &mut Tx, user_id: &UserId, display_name: Option<&str>) -> DbResult<()> {
    tx.insert(&INSERT_LISTED, &[Column::texts([user_id.as_str()]), Column::Bools(vec![false])]).await?;
    let words = words::of_user(user_id, display_name);
    insert(tx, &[DirectoryEntry { user_id, room_id: None, words, is_public: false }]).await?;
    review(tx, &[user_id.as_str()]).await
}

/// Takes a user of this server out of the directory.
pub(crate) async fn remove(conn: &mut Conn, user_id: &UserId) -> DbResult<()> {
    conn.execute(&DELETE_LISTED, args![user_id]).await?;
    conn.execute(&DELETE_WORDS, args![user_id, ""]).await.map(drop)
}

/// Until the transaction ends nobody else renames, shows or hides a user of this server, if they are in the directory.
/// Returns whether anybody may find them.
pub(crate) async fn lock(conn: &mut Conn, user_id: &UserId) -> DbResult<Option<bool>> {
    conn.find(&LOCK_LISTED, args![user_id]).await?.map(|row| row.get(0)).transpose()
}

/// Puts other words in place of those by which a locked user is found.
pub(crate) async fn rename(tx: &mut Tx, user_id: &UserId, display_name: Option<&str>, is_public: bool) -> DbResult<()> {
    tx.execute(&DELETE_WORDS, args![user_id, ""]).await?;
    let words = words::of_user(user_id, display_name);
    insert(tx, &[DirectoryEntry { user_id, room_id: None, words, is_public }]).await
}

/// Adds words by which somebody is found. Those that they were found by before are deleted first, by whoever calls
/// this.
pub(crate) async fn insert(tx: &mut Tx, entries: &[DirectoryEntry<'_>]) -> DbResult<()> {
    let rows: Vec<(&DirectoryEntry<'_>, &Word)> =
        entries.iter().flat_map(|entry| entry.words.iter().map(move |word| (entry, word))).collect();
    let columns = [
        Column::texts(rows.iter().map(|(entry, _)| entry.user_id.as_str())),
        Column::texts(rows.iter().map(|(entry, _)| entry.room_id.map_or("", RoomId::as_str))),
        Column::texts(rows.iter().map(|(_, word)| word.text.as_str())),
        Column::ints(rows.iter().map(|(_, word)| word.rank.0)),
        Column::Bools(rows.iter().map(|(entry, _)| entry.is_public).collect()),
    ];
    tx.insert(&INSERT_WORDS, &columns).await
}

/// Forgets what a room calls these users of other servers.
pub(crate) async fn forget_strangers(conn: &mut Conn, room_id: &RoomId, users: &[&str]) -> DbResult<()> {
    conn.execute(&DELETE_STRANGERS, args![users, room_id]).await.map(drop)
}

/// Lets anybody find those of these users of this server who are in an open room now, and nobody any more who is not.
pub(crate) async fn review(conn: &mut Conn, users: &[&str]) -> DbResult<()> {
    let (mut shown, mut hidden): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for row in conn.list(&REVIEW_LISTED, args![users]).await? {
        let list = if row.get(1)? { &mut shown } else { &mut hidden };
        list.push(row.get(0)?);
    }
    for (users, is_public) in [(shown, true), (hidden, false)] {
        if !users.is_empty() {
            let users: Vec<&str> = users.iter().map(String::as_str).collect();
            conn.execute(&SHOW_WORDS, args![&users, "", is_public]).await?;
        }
    }
    Ok(())
}

/// Notes that a large room has been opened or closed, at this place.
///
/// Later than its members, because there may be very many: their rows are turned round piece by piece.
pub(crate) async fn put_off(conn: &mut Conn, room_id: &RoomId, at: i64) -> DbResult<()> {
    conn.execute(&PUT_OFF_ROOM, args![room_id, at]).await.map(drop)
}

/// The next room after another that was put off, and where it was last opened or closed.
pub(crate) async fn find_put_off(conn: &mut Conn, after: Option<&RoomId>) -> DbResult<Option<(OwnedRoomId, i64)>> {
    let after = after.map_or("", RoomId::as_str);
    conn.find(&FIND_PUT_OFF, args![after]).await?.map(|row| Ok((row.get(0)?, row.get(1)?))).transpose()
}

/// Ticks a room off, unless it has been put off again since.
pub(crate) async fn tick_off(conn: &mut Conn, room_id: &RoomId, head: i64) -> DbResult<()> {
    conn.execute(&DELETE_PUT_OFF, args![room_id, head]).await.map(drop)
}

/// Whether somebody meets more than so many members in their rooms, themselves included, each counted in each room.
pub(crate) async fn meets_more_than(conn: &mut Conn, user_id: &UserId, members: i64) -> DbResult<bool> {
    Ok(conn.find(&FIND_MEMBER_AFTER, args![user_id, members]).await?.is_some())
}

/// Everybody who is in one of these rooms.
pub(crate) async fn list_peers(conn: &mut Conn, rooms: &[&str]) -> DbResult<Vec<String>> {
    conn.list(&LIST_PEERS, args![rooms]).await?.iter().map(|row| row.get(0)).collect()
}

/// The best hit on each of these users, of those that they are found by everywhere or in these rooms.
pub(crate) async fn search_among(
    conn: &mut Conn,
    wanted: &WantedPrefix,
    users: &[&str],
    rooms: &[&str],
    limit: i64,
) -> DbResult<Vec<DirectoryHit>> {
    let Bounds { beginning, end, with, with_end } = Bounds::of(wanted);
    let rows = conn.list(&SEARCH_AMONG, args![users, rooms, beginning, &end, with, &with_end, limit]).await?;
    rows.iter().map(hit).collect()
}

/// The next [`SCANNED`] rows of one rank after a place, and whether each is a hit: not where something else is missing
/// that is wanted, nor where the user is not among those who are searched.
pub(crate) async fn scan(
    conn: &mut Conn,
    wanted: &WantedPrefix,
    rank: WordRank,
    after: Option<&DirectoryHit>,
    among: Among<'_>,
) -> DbResult<Vec<(DirectoryHit, bool)>> {
    let Bounds { beginning, end, with, with_end } = Bounds::of(wanted);
    let (word, user_id, room_id) = match after {
        Some(hit) => (hit.word.as_str(), hit.user_id.as_str(), hit.room_id.as_deref().map_or("", RoomId::as_str)),
        None => (beginning, "", ""),
    };
    let args = args![rank.0, word, user_id, room_id, &end, with, &with_end];
    let rows = match among {
        Among::Public => conn.list(&SCAN_PUBLIC, args).await?,
        Among::Locals => conn.list(&SCAN_LOCALS, args).await?,
        Among::Rooms(rooms) => {
            conn.list(&SCAN_ALL, args![rank.0, word, user_id, room_id, &end, with, &with_end, rooms]).await?
        }
    };
    rows.iter().map(|row| Ok((hit(row)?, row.get(4)?))).collect()
}

/// What is wanted, as ranges of an index.
struct Bounds<'a> {
    beginning: &'a str,
    end: String,
    /// Empty where nothing else is wanted.
    with: &'a str,
    with_end: String,
}

impl<'a> Bounds<'a> {
    fn of(wanted: &'a WantedPrefix) -> Self {
        let with = wanted.with.as_deref().unwrap_or_default();
        let (end, with_end) = (words::end_of(&wanted.beginning), words::end_of(with));
        Self { beginning: &wanted.beginning, end, with, with_end }
    }
}

fn hit(row: &Row) -> DbResult<DirectoryHit> {
    let room_id: String = row.get(1)?;
    let room_id =
        if room_id.is_empty() { None } else { Some(OwnedRoomId::try_from(room_id).map_err(DbError::decode)?) };
    Ok(DirectoryHit { user_id: row.get(0)?, room_id, word: row.get(2)?, rank: WordRank(row.get(3)?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Engine;

    #[test]
    fn a_scan_brings_as_many_rows_as_it_says() {
        for statement in [&SCAN_PUBLIC, &SCAN_LOCALS, &SCAN_ALL] {
            for engine in [Engine::Sqlite, Engine::Postgres] {
                assert!(statement.sql(engine).ends_with(&format!(" LIMIT {SCANNED}")));
            }
        }
    }
}
