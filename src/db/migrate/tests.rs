//! What earlier releases have left in a database is there afterwards as today's release would have written it: each test
//! fills a database as it was before one migration and brings it up to date.

use serde_json::{Value, json};

use super::*;
use crate::{
    db::{
        Row, Statement,
        testing::{self, TestDatabase},
    },
    ground::words,
};

statements! {
    DROP_MIGRATIONS = "DROP TABLE migrations";
    FORGET_MIGRATION = "DELETE FROM migrations WHERE name = $1";

    INSERT_EVENT = "INSERT INTO events (position, event_id, room_id, sender, standing, notifies, json)
        VALUES ($1, $2, '!room:example.org', '@alice:example.org', $3, FALSE, $4)";
    INSERT_ROOM = "INSERT INTO rooms (room_id, version, trunk, head, depth, extremities)
        VALUES ($1, '12', $2, 1, 1, '[]')";
    INSERT_STATE = "INSERT INTO state_versions (lineage, type, state_key, from_position, event_position)
        VALUES ($1, $2, '', $3, $3)";
    INSERT_PERSON = "INSERT INTO accounts (user_id, admin, guest, rate_limited, created_ts, deactivated_ts, erased)
        VALUES ($1, FALSE, FALSE, TRUE, 0, $2, FALSE)";
    INSERT_NAME = "INSERT INTO profiles (user_id, field, value) VALUES ($1, 'displayname', $2)";
    INSERT_MEMBER = "INSERT INTO memberships (user_id, room_id, membership, position, forgotten)
        VALUES ($1, $2, $3, 1, FALSE)";
    INSERT_BATCH = "INSERT INTO batches (last_position, first_position, batch_id, entries) VALUES (7, 1, 'one', '[]')";

    LIST_RELATIONS = "SELECT e.position, r.parent, r.rel_type, r.type, r.origin_server_ts, r.is_edit
        FROM relations r JOIN events e ON e.event_id = r.event_id ORDER BY r.room_order";

    LIST_WORDS = "SELECT user_id, word, rank, is_public FROM user_directory_words ORDER BY user_id, word";
    COUNT_LISTED = "SELECT COUNT(*) FROM user_directory";
    INSERT_LISTED = "INSERT INTO user_directory (user_id, is_public) VALUES ($1, TRUE)";
    INSERT_WORD = "INSERT INTO user_directory_words (user_id, room_id, word, rank, is_public)
        VALUES ($1, $2, $3, 0, TRUE)";
    INSERT_SEARCHED = "INSERT INTO search (rowid, room, body) VALUES (7, 'r', 'old')"
        | "INSERT INTO search (position, words) VALUES (7, 'old')";
    COUNT_SEARCHED = "SELECT COUNT(*) FROM search WHERE search MATCH 'old'"
        | "SELECT COUNT(*) FROM search WHERE words @@ CAST('old' AS tsquery)";
    SET_PROGRESS = "UPDATE search_progress SET position = 7";
    FIND_PROGRESS = "SELECT position FROM search_progress";
    LIST_CURSORS = "SELECT name, position, epoch FROM cursors WHERE name NOT LIKE 'federation %' ORDER BY name";
    LIST_BUCKETS = "SELECT position FROM cursors WHERE name LIKE 'federation %'";

    LIST_MOMENTS = "SELECT newest_ts, late_ts FROM events ORDER BY position";
    FIND_NEWEST = "SELECT newest_ts FROM rooms";

    SET_THREAD = "UPDATE events SET thread_root = $2 WHERE event_id = $1";
    INSERT_RELATION = "INSERT INTO relations
        (parent, position, event_id, room_id, sender, rel_type, type, origin_server_ts, is_edit)
        VALUES ($1, $2, $3, '!room:example.org', '@alice:example.org', $4, 'm.room.message', 5, FALSE)";
    LIST_THREADS = "SELECT thread_root FROM events ORDER BY position";

    SET_ERASED = "UPDATE accounts SET erased = TRUE WHERE user_id = $1";
    LIST_ERASURES = "SELECT user_id, position FROM erasures";
    LIST_ROOM_SERVERS = "SELECT room_id, server_name, members FROM room_servers ORDER BY room_id, server_name";

    INSERT_CHANGE = "INSERT INTO state_versions (lineage, type, state_key, from_position, event_position)
        VALUES (1, 'm.room.topic', '', $1, $2)";
    INSERT_FORK = "INSERT INTO state_forks (fork, lineage, base_position) VALUES ($1, 1, $1)";
    INSERT_FORK_CHANGE = "INSERT INTO state_fork_changes (fork, type, state_key, event_position)
        VALUES ($1, 'm.room.topic', '', $1)";
    INSERT_RECEIPT = "INSERT INTO receipts
        (room_id, user_id, receipt_type, thread_id, event_id, event_position, ts, position)
        VALUES ('!room:example.org', $1, 'm.read', '', $2, $3, 5, 9)";
    LIST_EVENT_ORDERS = "SELECT position, room_order, missing FROM events ORDER BY room_order";
    LIST_CHANGE_ORDERS = "SELECT from_order, event_position FROM state_versions ORDER BY from_order";
    LIST_FORK_ORDERS = "SELECT base_order, fork FROM state_forks ORDER BY base_order";
    LIST_FORK_CHANGES = "SELECT event_position, fork FROM state_fork_changes ORDER BY fork";
    LIST_RELATION_ORDERS = "SELECT room_order, event_id FROM relations ORDER BY room_order";
    LIST_RECEIPT_ORDERS = "SELECT event_order, event_id, position FROM receipts ORDER BY event_order";
    FIND_LAST_KEY = "SELECT last FROM event_keys";

    INSERT_PLACED = "INSERT INTO events (position, room_order, event_id, room_id, sender, standing, notifies, json)
        VALUES ($1, $2, $3, '!room:example.org', '@alice:example.org', $4, FALSE, '{}')";
    SET_CURSOR = "UPDATE cursors SET position = $2, epoch = 3 WHERE name = $1";
    INSERT_DATA = "INSERT INTO account_data (user_id, room_id, type, content, position) VALUES ($1, $2, $3, $4, $5)";
    LIST_USAGE = "SELECT user_id, pieces, deleted, bytes FROM account_data_usage ORDER BY user_id";
    LIST_WAITING = "SELECT event_key FROM history_to_index ORDER BY event_key";
}

/// Databases that were filled by the release before a migration and have been brought up to date since.
async fn upgraded_from_before(migration: &str, fill: impl AsyncFn(&mut Tx)) -> Vec<TestDatabase> {
    let databases = testing::databases_before(migration).await;
    for database in &databases {
        let db = database.db();
        let mut tx = db.begin().await.unwrap();
        fill(&mut tx).await;
        tx.commit().await.unwrap();
        assert_eq!(db.migrate().await.unwrap().first(), Some(&migration));
        db.check_migrated().await.unwrap();
    }
    databases
}

async fn run(tx: &mut Tx, statement: &'static Statement) {
    tx.execute(statement, args![]).await.unwrap();
}

async fn list<T>(db: &Db, statement: &'static Statement, read: impl Fn(&Row) -> DbResult<T>) -> Vec<T> {
    let rows = db.read().await.unwrap().list(statement, args![]).await.unwrap();
    rows.iter().map(|row| read(row).unwrap()).collect()
}

async fn find_number(db: &Db, statement: &'static Statement) -> i64 {
    let row = db.read().await.unwrap().find(statement, args![]).await.unwrap();
    row.unwrap().get(0).unwrap()
}

#[tokio::test]
async fn a_database_from_the_future_is_refused_and_left_alone() {
    for database in testing::databases().await {
        let db = database.db();
        let mut tx = db.begin().await.unwrap();
        tx.execute(&RECORD_MIGRATION, args![7_000_i64, "7000_flying_cars"]).await.unwrap();
        tx.commit().await.unwrap();
        for refusal in [db.migrate().await.unwrap_err(), db.try_migrate().await.unwrap_err()] {
            assert!(matches!(refusal, MigrateError::FromTheFuture { .. }));
            let message = refusal.to_string();
            assert!(message.contains("7000_flying_cars") && message.contains("newer Hearth"), "{message}");
        }
        let rows = db.read().await.unwrap().list(&LIST_MIGRATIONS, args![]).await.unwrap();
        assert_eq!(rows.len(), MIGRATIONS.len() + 1);
        database.close().await;
    }
}

#[tokio::test]
async fn who_migrates_nothing_refuses_what_is_not_migrated() {
    for database in testing::databases().await {
        let db = database.db();
        db.check_migrated().await.unwrap();
        let mut tx = db.begin().await.unwrap();
        tx.execute(&FORGET_MIGRATION, args!["0014_errands_in_order"]).await.unwrap();
        tx.commit().await.unwrap();
        let old = db.check_migrated().await.unwrap_err().to_string();
        assert!(old.contains("0014_errands_in_order") && old.contains("older Hearth"), "{old}");
        let mut tx = db.begin().await.unwrap();
        run(&mut tx, &DROP_MIGRATIONS).await;
        tx.commit().await.unwrap();
        assert!(matches!(db.check_migrated().await, Err(MigrateError::Empty)));
        database.close().await;
    }
}

/// What was said before there was a table for it is in the table afterwards, whatever else clients have written.
#[tokio::test]
async fn relations_of_old_events_are_found() {
    let event = |kind: &str, content: Value| json!({ "type": kind, "origin_server_ts": 5, "content": content });
    let to = |rel_type: &str| json!({ "rel_type": rel_type, "event_id": "$root" });
    let related = |rel_type: &str| event("m.room.message", json!({ "m.relates_to": to(rel_type) }));
    let mut state = event("m.room.topic", json!({ "m.relates_to": to("m.replace"), "m.new_content": {} }));
    state["state_key"] = "".into();
    let events = [
        (0_i64, related("m.thread")),
        (1, related("m.thread")),
        (0, related("m.replace")),
        (0, event("m.room.message", json!({ "m.relates_to": to("m.replace"), "m.new_content": {} }))),
        (0, event("m.room.encrypted", json!({ "m.relates_to": to("m.replace") }))),
        (0, state),
        (0, event("m.room.message", json!({ "body": "say \"m.relates_to\" to me" }))),
        (0, event("m.room.message", json!({ "m.relates_to": "m.thread" }))),
        (0, event("m.room.message", json!({ "m.relates_to": { "rel_type": 1, "event_id": "$root" } }))),
        (0, related(&"x".repeat(256))),
        (0, event("m.room.message", json!({ "body": "\u{0}", "m.relates_to": to("m.thread") }))),
    ];
    let fill = async |tx: &mut Tx| {
        for (at, (standing, json)) in (1_i64..).zip(&events) {
            let (id, json) = (format!("${at}"), json.to_string());
            tx.execute(&INSERT_EVENT, args![at, &id, *standing, &json]).await.unwrap();
        }
    };
    let row = |at: i64, rel_type: &str, kind: &str, is_edit: bool| {
        (at, "$root".to_owned(), rel_type.to_owned(), kind.to_owned(), 5_i64, is_edit)
    };
    let expected = [
        row(1, "m.thread", "m.room.message", false),
        row(3, "m.replace", "m.room.message", false),
        row(4, "m.replace", "m.room.message", true),
        row(5, "m.replace", "m.room.encrypted", true),
        row(6, "m.replace", "m.room.topic", false),
    ];
    for database in upgraded_from_before("0003_relations", fill).await {
        let found = list(database.db(), &LIST_RELATIONS, |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
        });
        assert_eq!(found.await, expected);
        database.close().await;
    }
}

/// Whoever had an account is found, by the name that they had, and by whom the rooms as they were allow.
#[tokio::test]
async fn people_of_old_are_in_the_user_directory() {
    let state = |content: Value| json!({ "origin_server_ts": 1, "content": content }).to_string();
    let events = [
        ("m.room.join_rules", 10_i64, state(json!({ "join_rule": "public" }))),
        ("m.room.join_rules", 20, state(json!({ "join_rule": "public" }))),
        ("m.room.join_rules", 20, state(json!({ "join_rule": "invite" }))),
        ("m.room.history_visibility", 30, state(json!({ "history_visibility": "world_readable", "nul": "\0" }))),
        ("m.room.history_visibility", 20, state(json!({ "history_visibility": ["world_readable"] }))),
    ];
    let people = [
        ("anna", Some(json!("Anna Berg")), "!open:here", "join"),
        ("bob", Some(json!(7)), "!closed:here", "join"),
        ("carla", Some(json!("C\0")), "!readable:here", "join"),
        ("dave", None, "!open:here", "invite"),
    ];
    let fill = async |tx: &mut Tx| {
        for (room_id, trunk) in [("!open:here", 10_i64), ("!closed:here", 20), ("!readable:here", 30)] {
            tx.execute(&INSERT_ROOM, args![room_id, trunk]).await.unwrap();
        }
        for (at, (kind, trunk, json)) in (1_i64..).zip(&events) {
            let id = format!("${at}");
            tx.execute(&INSERT_EVENT, args![at, &id, 0_i64, json]).await.unwrap();
            tx.execute(&INSERT_STATE, args![*trunk, *kind, at]).await.unwrap();
        }
        for (name, display_name, room_id, membership) in &people {
            let user_id = format!("@{name}:here");
            tx.execute(&INSERT_PERSON, args![&user_id, None::<i64>]).await.unwrap();
            tx.execute(&INSERT_MEMBER, args![&user_id, *room_id, *membership]).await.unwrap();
            if let Some(display_name) = display_name {
                tx.execute(&INSERT_NAME, args![&user_id, &display_name.to_string()]).await.unwrap();
            }
        }
        tx.execute(&INSERT_PERSON, args!["@gone:here", 5_i64]).await.unwrap();
        tx.execute(&INSERT_MEMBER, args!["@gone:here", "!open:here", "join"]).await.unwrap();
        // More than are read at once.
        for n in 0..1_100 {
            tx.execute(&INSERT_PERSON, args![&format!("@x{n}:here"), None::<i64>]).await.unwrap();
        }
    };
    let of = |name: &str, display_name: Option<&str>, is_public: bool| {
        let user_id = ruma::UserId::parse(format!("@{name}:here")).unwrap();
        let words = words::of_user(&user_id, display_name).into_iter();
        words.map(|word| (user_id.to_string(), word.text, word.rank.0, is_public)).collect::<Vec<_>>()
    };
    let expected = [
        of("anna", Some("Anna Berg"), true),
        of("bob", None, false),
        of("carla", Some("C\0"), true),
        of("dave", None, false),
    ]
    .concat();
    for database in upgraded_from_before("0007_user_directory", fill).await {
        let db = database.db();
        let words: Vec<(String, String, i64, bool)> =
            list(db, &LIST_WORDS, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).await;
        assert_eq!(words.len(), expected.len() + 2 * 1_100);
        let named: Vec<_> = words.into_iter().filter(|row| !row.0.starts_with("@x")).collect();
        assert_eq!(named, expected);
        assert_eq!(find_number(db, &COUNT_LISTED).await, 1_104);
        database.close().await;
    }
}

/// What was said before there was a column for it has its time afterwards.
#[tokio::test]
async fn old_events_are_found_by_their_time() {
    let events = [(0_i64, 100_i64), (0, 100), (2, 900), (0, 300), (0, 200), (1, 950), (0, 301)];
    let moments = [(100, None), (100, Some(100)), (100, None), (300, None), (300, Some(200)), (300, None), (301, None)];
    let fill = async |tx: &mut Tx| {
        tx.execute(&INSERT_ROOM, args!["!room:example.org", 1_i64]).await.unwrap();
        for (at, (standing, ts)) in (1_i64..).zip(events) {
            let json = json!({ "origin_server_ts": ts, "content": { "body": "\0 \\u0000", "origin_server_ts": 7 } });
            tx.execute(&INSERT_EVENT, args![at, &format!("${at}"), standing, &json.to_string()]).await.unwrap();
        }
    };
    for database in upgraded_from_before("0009_event_timestamps", fill).await {
        let db = database.db();
        let found: Vec<(i64, Option<i64>)> = list(db, &LIST_MOMENTS, |row| Ok((row.get(0)?, row.get(1)?))).await;
        assert_eq!(found, moments);
        assert_eq!(find_number(db, &FIND_NEWEST).await, 301);
        database.close().await;
    }
}

/// What was kept by its words as they were cut once is kept by them as they are cut now.
#[tokio::test]
async fn words_of_old_are_made_anew() {
    let fill = async |tx: &mut Tx| {
        run(tx, &INSERT_SEARCHED).await;
        run(tx, &SET_PROGRESS).await;
        tx.execute(&INSERT_PERSON, args!["@x:here", None::<i64>]).await.unwrap();
        tx.execute(&INSERT_LISTED, args!["@x:here"]).await.unwrap();
        tx.execute(&INSERT_NAME, args!["@x:here", "\"José\""]).await.unwrap();
        tx.execute(&INSERT_WORD, args!["@x:here", "", "josé"]).await.unwrap();
        assert_eq!(tx.find(&COUNT_SEARCHED, args![]).await.unwrap().unwrap().get::<i64>(0).unwrap(), 1);
    };
    for database in upgraded_from_before("0013_words", fill).await {
        let db = database.db();
        assert_eq!(find_number(db, &COUNT_SEARCHED).await, 0);
        assert_eq!(find_number(db, &FIND_PROGRESS).await, 0);
        let is_search = |cursor: &(String, i64, i64)| cursor.0 == "search";
        let search = cursors(db).await.into_iter().find(is_search).unwrap();
        assert_eq!((search.1, search.2), (0, 0), "it is all taken into the index again");
        let words: Vec<String> = list(db, &LIST_WORDS, |row| row.get(1)).await;
        assert_eq!(words, ["@x:here", "jose", "x"]);
        database.close().await;
    }
}

/// What relates to a thread's messages belongs to the thread, whenever it was said; a thread on nothing is none.
#[tokio::test]
async fn what_related_to_threads_before_belongs_to_them() {
    let relations = [
        ("$2", "m.thread", "$1"),
        ("$3", "m.replace", "$2"),
        ("$4", "m.annotation", "$3"),
        ("$5", "m.reference", "$4"),
        ("$6", "m.thread", "$nowhere"),
        ("$7", "m.annotation", "$6"),
        ("$8", "m.reference", "$1"),
    ];
    let fill = async |tx: &mut Tx| {
        for at in 1_i64..=8 {
            tx.execute(&INSERT_EVENT, args![at, &format!("${at}"), 0_i64, "{}"]).await.unwrap();
        }
        for (at, (event, rel_type, parent)) in (2_i64..).zip(relations) {
            tx.execute(&INSERT_RELATION, args![parent, at, event, rel_type]).await.unwrap();
            if rel_type == "m.thread" {
                tx.execute(&SET_THREAD, args![event, parent]).await.unwrap();
            }
        }
    };
    let root = || Some("$1".to_owned());
    for database in upgraded_from_before("0016_relating", fill).await {
        let threads: Vec<Option<String>> = list(database.db(), &LIST_THREADS, |row| row.get(0)).await;
        assert_eq!(threads, [None, root(), root(), root(), root(), None, None, None]);
        database.close().await;
    }
}

#[tokio::test]
async fn whoever_was_erased_before_is_erased_from_here_on() {
    let fill = async |tx: &mut Tx| {
        for user_id in ["@kept:here", "@erased:here"] {
            tx.execute(&INSERT_PERSON, args![user_id, 5_i64]).await.unwrap();
        }
        tx.execute(&SET_ERASED, args!["@erased:here"]).await.unwrap();
        run(tx, &INSERT_BATCH).await;
    };
    for database in upgraded_from_before("0017_erasures", fill).await {
        let erased: Vec<(String, i64)> =
            list(database.db(), &LIST_ERASURES, |row| Ok((row.get(0)?, row.get(1)?))).await;
        assert_eq!(erased, [("@erased:here".to_owned(), 7)]);
        database.close().await;
    }
}

/// What was said before there was federation is sent to nobody.
#[tokio::test]
async fn nothing_of_before_is_sent_to_other_servers() {
    let fill = async |tx: &mut Tx| run(tx, &INSERT_BATCH).await;
    for database in upgraded_from_before("0037_destinations", fill).await {
        let places: Vec<i64> = list(database.db(), &LIST_BUCKETS, |row| row.get(0)).await;
        assert_eq!(places, [7; 16]);
        database.close().await;
    }
}

async fn cursors(db: &Db) -> Vec<(String, i64, i64)> {
    list(db, &LIST_CURSORS, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).await
}

/// The directory, which has had everything until then, goes on from the end of the log. The index goes on where it was,
/// but on `PostgreSQL`, where it is made anew later.
#[tokio::test]
async fn readers_of_the_log_go_on_where_they_were() {
    let fill = async |tx: &mut Tx| {
        run(tx, &SET_PROGRESS).await;
        run(tx, &INSERT_BATCH).await;
    };
    for (databases, place) in [
        (upgraded_from_before("0021_cursors", async |_: &mut Tx| ()).await, 0_i64),
        (upgraded_from_before("0021_cursors", fill).await, 7),
    ] {
        for database in databases {
            let indexed = if database.db().engine() == Engine::Sqlite { place } else { 0 };
            let expected = [("pruned", 0), ("search", indexed), ("user directory", place)];
            assert_eq!(cursors(database.db()).await, expected.map(|(name, place)| (name.to_owned(), place, 0)));
            database.close().await;
        }
    }
}

#[tokio::test]
async fn members_of_before_are_counted_by_their_servers() {
    let members = [
        ("@alice:here", "!one", "join"),
        ("@bob:here", "!one", "join"),
        ("@carol:there:8448", "!one", "join"),
        ("@dan:there:8448", "!one", "leave"),
        ("@alice:here", "!two", "invite"),
        ("@bob:here", "!two", "join"),
    ];
    let fill = async |tx: &mut Tx| {
        for (user_id, room_id, membership) in members {
            tx.execute(&INSERT_MEMBER, args![user_id, room_id, membership]).await.unwrap();
        }
    };
    let expected = [("!one", "here", 2_i64), ("!one", "there:8448", 1), ("!two", "here", 1)]
        .map(|(room, server, members)| (room.to_owned(), server.to_owned(), members));
    for database in upgraded_from_before("0022_rooms_under_load", fill).await {
        let counted: Vec<(String, String, i64)> =
            list(database.db(), &LIST_ROOM_SERVERS, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).await;
        assert_eq!(counted, expected);
        database.close().await;
    }
}

/// Positions of which one is what another becomes, so that rows would meet on their way.
const POSITIONS: [i64; 5] = [1, 2, STEP, 2 * STEP, STEP * STEP];
/// How far apart the orders are of events whose positions follow each other.
const STEP: i64 = 1 << 20;

/// Whatever compares events along their room compares their orders afterwards, and rows go on referring to events by
/// what was their position.
#[tokio::test]
async fn events_of_before_have_the_order_of_their_positions() {
    let fill = async |tx: &mut Tx| {
        for (at, position) in POSITIONS.into_iter().enumerate() {
            let id = format!("${position}");
            tx.execute(&INSERT_EVENT, args![position, &id, 0_i64, "{}"]).await.unwrap();
            tx.execute(&INSERT_CHANGE, args![position, (at > 0).then_some(position)]).await.unwrap();
            tx.execute(&INSERT_FORK, args![position]).await.unwrap();
            tx.execute(&INSERT_FORK_CHANGE, args![position]).await.unwrap();
            tx.execute(&INSERT_RELATION, args!["$root", position, &id, "m.thread"]).await.unwrap();
            tx.execute(&INSERT_RECEIPT, args![&format!("@{position}:here"), &id, position]).await.unwrap();
        }
        // The room's first state is that before anything was said.
        tx.execute(&INSERT_CHANGE, args![0_i64, 1_i64]).await.unwrap();
    };
    let id = |position: i64| format!("${position}");
    for database in upgraded_from_before("0023_orders", fill).await {
        let db = database.db();
        let events: Vec<(i64, i64, Option<String>)> =
            list(db, &LIST_EVENT_ORDERS, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).await;
        assert_eq!(events, POSITIONS.map(|position| (position, position * STEP, None)));
        let changes: Vec<(i64, Option<i64>)> =
            list(db, &LIST_CHANGE_ORDERS, |row| Ok((row.get(0)?, row.get(1)?))).await;
        let mut expected = POSITIONS.map(|position| (position * STEP, Some(position))).to_vec();
        expected[0].1 = None;
        expected.insert(0, (0, Some(1)));
        assert_eq!(changes, expected);
        let forks: Vec<(i64, i64)> = list(db, &LIST_FORK_ORDERS, |row| Ok((row.get(0)?, row.get(1)?))).await;
        assert_eq!(forks, POSITIONS.map(|position| (position * STEP, position)));
        let forked: Vec<(i64, i64)> = list(db, &LIST_FORK_CHANGES, |row| Ok((row.get(0)?, row.get(1)?))).await;
        assert_eq!(forked, POSITIONS.map(|position| (position, position)));
        let relations: Vec<(i64, String)> = list(db, &LIST_RELATION_ORDERS, |row| Ok((row.get(0)?, row.get(1)?))).await;
        assert_eq!(relations, POSITIONS.map(|position| (position * STEP, id(position))));
        let receipts: Vec<(i64, String, i64)> =
            list(db, &LIST_RECEIPT_ORDERS, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).await;
        assert_eq!(receipts, POSITIONS.map(|position| (position * STEP, id(position), 9)));
        assert_eq!(find_number(db, &FIND_LAST_KEY).await, 0);
        database.close().await;
    }
}

/// What the log does not tell of waits for the index: history that was fetched later and is part of its room. On `PostgreSQL`
/// the log is taken into it once more, and what it has been pruned of waits as well.
#[tokio::test]
async fn what_was_indexed_by_its_position_is_indexed_by_its_order() {
    for (pruned, waiting) in [(0_i64, vec![-5_i64, -1]), (7, vec![-5, -1, 7])] {
        let fill = async |tx: &mut Tx| {
            run(tx, &INSERT_SEARCHED).await;
            for (key, order, standing) in [
                (7_i64, 7 * STEP, 0_i64),
                (8, 8 * STEP, 0),
                (-1, -STEP, 0),
                (-2, -2 * STEP, 2),
                (-3, i64::MIN, 3),
                (-5, 7 * STEP - 64, 0),
            ] {
                tx.execute(&INSERT_PLACED, args![key, order, &format!("${key}"), standing]).await.unwrap();
            }
            for (name, place) in [("search", 8_i64), ("user directory", 8), ("pruned", pruned)] {
                tx.execute(&SET_CURSOR, args![name, place]).await.unwrap();
            }
        };
        for database in upgraded_from_before("0026_search_by_order", fill).await {
            let db = database.db();
            let stays = db.engine() == Engine::Sqlite;
            assert_eq!(find_number(db, &COUNT_SEARCHED).await, i64::from(stays));
            let indexed = if stays { 8 } else { pruned };
            let expected = [("pruned", pruned), ("search", indexed), ("user directory", 8)];
            assert_eq!(cursors(db).await, expected.map(|(name, place)| (name.to_owned(), place, 3)));
            let found: Vec<i64> = list(db, &LIST_WAITING, |row| row.get(0)).await;
            let waiting: Vec<i64> = waiting.iter().copied().filter(|key| !stays || *key < 0).collect();
            assert_eq!(found, waiting);
            database.close().await;
        }
    }
}

/// A node of the release before, which is still there during an upgrade, would write events that have no order.
#[tokio::test]
async fn nodes_of_before_can_not_write_events_without_an_order() {
    for database in testing::databases().await {
        let mut tx = database.db().begin().await.unwrap();
        let written = tx.execute(&INSERT_EVENT, args![1_i64, "$1", 0_i64, "{}"]).await;
        // Nothing else runs on a SQLite database while a release upgrades it.
        assert_eq!(written.is_err(), tx.engine() == Engine::Postgres, "{written:?}");
        drop(tx);
        database.close().await;
    }
}

/// What users have kept so far counts from now on.
#[tokio::test]
async fn account_data_is_counted_as_it_is() {
    let fill = async |tx: &mut Tx| {
        let pieces = [
            ("@alice:example.org", "", "kind", r#"{"a":"ä"}"#),
            ("@alice:example.org", "!room:example.org", "kind", r#"{"a":1}"#),
            ("@alice:example.org", "!room:example.org", "gone", "{}"),
            ("@alice:example.org", "!room:example.org", "m.fully_read", r#"{"event_id":"$1"}"#),
            ("@bob:example.org", "!room:example.org", "m.fully_read", r#"{"event_id":"$1"}"#),
        ];
        for ((user_id, room_id, kind, content), position) in pieces.into_iter().zip(1_i64..) {
            tx.execute(&INSERT_DATA, args![user_id, room_id, kind, content, position]).await.unwrap();
        }
    };
    for database in upgraded_from_before("0028_quotas", fill).await {
        let usage: Vec<(String, i64, i64, i64)> =
            list(database.db(), &LIST_USAGE, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).await;
        assert_eq!(usage, [("@alice:example.org".to_owned(), 2, 1, 4 + 10 + 4 + 7)]);
        database.close().await;
    }
}
