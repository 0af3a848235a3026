//! Migrations: numbered SQL files, equal names for both engines, run in order at start.
//!
//! Each file runs in a transaction of its own together with the row that records it. A database that
//! records a migration this binary does not know comes from a newer release and is refused.

mod user_directory;

use futures_util::future::BoxFuture;
use sqlx::Executor as _;

use super::{Conn, Db, DbError, DbResult, Engine, EngineRef, Tx, args, statements};

/// One step of the schema, as both engines spell it.
struct Migration {
    version: i64,
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
    /// What SQL can't say, done after it in the same transaction.
    then: Option<Then>,
}

type Then = for<'a> fn(&'a mut Tx) -> BoxFuture<'a, DbResult<()>>;

macro_rules! migrations {
    ($($version:literal $name:literal $(then $then:path)?),* $(,)?) => {
        &[$(Migration {
            version: $version,
            name: $name,
            sqlite: include_str!(concat!("../../migrations/sqlite/", $name, ".sql")),
            postgres: include_str!(concat!("../../migrations/postgres/", $name, ".sql")),
            then: migrations!(@then $($then)?),
        }),*]
    };
    (@then) => { None };
    (@then $then:path) => { Some($then) };
}

static MIGRATIONS: &[Migration] = migrations![
    1 "0001_first_light",
    2 "0002_nodes",
    3 "0003_relations",
    4 "0004_reports",
    5 "0005_openid",
    6 "0006_search",
    7 "0007_user_directory" then user_directory::fill,
    8 "0008_threepids",
    9 "0009_event_timestamps",
    10 "0010_moderation",
    11 "0011_delayed_events",
    12 "0012_threads",
    13 "0013_words" then user_directory::fill,
    14 "0014_errands_in_order",
    15 "0015_presence_of_devices",
    16 "0016_relating",
    17 "0017_erasures",
    18 "0018_registration_again",
    19 "0019_proofs_taken",
    20 "0020_server",
];

statements! {
    CREATE_MIGRATIONS = "CREATE TABLE IF NOT EXISTS migrations (version BIGINT PRIMARY KEY, name TEXT NOT NULL)";
    /// One process at a time; the others wait and then find the work done.
    LOCK_MIGRATIONS = "SELECT 1" | "SELECT pg_advisory_xact_lock(4720318)::text";
    LIST_MIGRATIONS = "SELECT version, name FROM migrations ORDER BY version";
    RECORD_MIGRATION = "INSERT INTO migrations (version, name) VALUES ($1, $2)";
    FIND_TABLE = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = $1"
        | "SELECT 1 WHERE to_regclass($1) IS NOT NULL";
}

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error(
        "the database was last used by a newer Hearth: it has migration {name}, this one knows only {known}. \
         Start the newer release, or restore a backup from before the upgrade"
    )]
    FromTheFuture { name: String, known: i64 },
    #[error("migration {name} failed and was rolled back: {error}")]
    Failed { name: &'static str, error: DbError },
    #[error(
        "there is no Hearth in this database yet: start the server once, or see that this command has the same --config \
         and HEARTH_ variables as the server"
    )]
    Empty,
    #[error(
        "the database was last used by an older Hearth: it lacks migration {0}. Start this release's server once, \
         which migrates it, or use the hearth that the server runs"
    )]
    FromThePast(&'static str),
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Db {
    /// Brings the schema up to date and tells which migrations ran.
    pub async fn migrate(&self) -> Result<Vec<&'static str>, MigrateError> {
        let mut ran = Vec::new();
        loop {
            let mut tx = self.begin().await?;
            tx.execute(&LOCK_MIGRATIONS, args![]).await?;
            tx.execute(&CREATE_MIGRATIONS, args![]).await?;
            let Some(next) = pending(&mut tx).await?.into_iter().next() else {
                tx.commit().await?;
                return Ok(ran);
            };
            apply(&mut tx, next).await.map_err(|error| MigrateError::Failed { name: next.name, error })?;
            tx.commit().await?;
            ran.push(next.name);
        }
    }

    /// Runs what [`Db::migrate`] would run, tells the names and leaves the database as it was.
    pub async fn try_migrate(&self) -> Result<Vec<&'static str>, MigrateError> {
        let mut tx = self.begin().await?;
        tx.execute(&CREATE_MIGRATIONS, args![]).await?;
        let pending = pending(&mut tx).await?;
        for migration in &pending {
            apply(&mut tx, migration).await.map_err(|error| MigrateError::Failed { name: migration.name, error })?;
        }
        Ok(pending.iter().map(|m| m.name).collect())
    }

    /// Refuses a database whose schema is not this release's, and changes nothing.
    pub async fn check_migrated(&self) -> Result<(), MigrateError> {
        let mut conn = self.read().await?;
        if !conn.has_table("migrations").await? {
            return Err(MigrateError::Empty);
        }
        match pending(&mut conn).await?.as_slice() {
            [] => Ok(()),
            all if all.len() == MIGRATIONS.len() => Err(MigrateError::Empty),
            [next, ..] => Err(MigrateError::FromThePast(next.name)),
        }
    }
}

impl Conn {
    /// Whether there is a table of that name.
    pub(crate) async fn has_table(&mut self, name: &str) -> DbResult<bool> {
        Ok(self.find(&FIND_TABLE, args![name]).await?.is_some())
    }
}

async fn pending(conn: &mut Conn) -> Result<Vec<&'static Migration>, MigrateError> {
    let known = MIGRATIONS.last().map_or(0, |m| m.version);
    let mut done = Vec::new();
    for row in conn.list(&LIST_MIGRATIONS, args![]).await? {
        let version: i64 = row.get(0)?;
        if version > known {
            return Err(MigrateError::FromTheFuture { name: row.get(1)?, known });
        }
        done.push(version);
    }
    Ok(MIGRATIONS.iter().filter(|m| !done.contains(&m.version)).collect())
}

async fn apply(tx: &mut Tx, migration: &'static Migration) -> DbResult<()> {
    let fail = |e| DbError::new(migration.name, e);
    match tx.engine_ref() {
        EngineRef::Sqlite(c) => c.execute(sqlx::raw_sql(migration.sqlite)).await.map(drop).map_err(fail)?,
        EngineRef::Postgres(c) => c.execute(sqlx::raw_sql(migration.postgres)).await.map(drop).map_err(fail)?,
    }
    if let Some(then) = migration.then {
        then(tx).await?;
    }
    tx.execute(&RECORD_MIGRATION, args![migration.version, migration.name]).await?;
    Ok(())
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        db::{Statement, testing},
        words,
    };

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
            tx.execute(&DROP_MIGRATIONS, args![]).await.unwrap();
            tx.commit().await.unwrap();
            assert!(matches!(db.check_migrated().await, Err(MigrateError::Empty)));
            database.close().await;
        }
    }

    statements! {
        DROP_MIGRATIONS = "DROP TABLE migrations";
        DROP_RELATIONS = "DROP TABLE relations";
        FORGET_MIGRATION = "DELETE FROM migrations WHERE name = $1";
        INSERT_EVENT = "INSERT INTO events (position, event_id, room_id, sender, standing, notifies, json)
            VALUES ($1, $2, '!room:example.org', '@alice:example.org', $3, FALSE, $4)";
        LIST_RELATIONS = "SELECT position, parent, rel_type, type, origin_server_ts, is_edit FROM relations ORDER BY position";

        DROP_DIRECTORY = "DROP TABLE user_directory";
        DROP_WORDS = "DROP TABLE user_directory_words";
        DROP_PUT_OFF = "DROP TABLE user_directory_rooms";
        DROP_JOINABLE = "ALTER TABLE rooms DROP COLUMN joinable";
        DROP_WORLD_READABLE = "ALTER TABLE rooms DROP COLUMN world_readable";
        INSERT_ROOM = "INSERT INTO rooms (room_id, version, trunk, head, depth, extremities)
            VALUES ($1, '12', $2, 1, 1, '[]')";
        INSERT_STATE = "INSERT INTO state_versions (lineage, type, state_key, from_position, event_position)
            VALUES ($1, $2, '', $3, $3)";
        INSERT_PERSON = "INSERT INTO accounts (user_id, admin, guest, rate_limited, created_ts, deactivated_ts, erased)
            VALUES ($1, FALSE, FALSE, TRUE, 0, $2, FALSE)";
        INSERT_NAME = "INSERT INTO profiles (user_id, field, value) VALUES ($1, 'displayname', $2)";
        INSERT_MEMBER = "INSERT INTO memberships (user_id, room_id, membership, position, forgotten)
            VALUES ($1, $2, $3, 1, FALSE)";
        LIST_WORDS = "SELECT user_id, word, rank, is_public FROM user_directory_words ORDER BY user_id, word";
        COUNT_LISTED = "SELECT COUNT(*) FROM user_directory";
        INSERT_LISTED = "INSERT INTO user_directory (user_id, is_public) VALUES ($1, TRUE)";
        INSERT_WORD = "INSERT INTO user_directory_words (user_id, room_id, word, rank, is_public)
            VALUES ($1, $2, $3, 0, TRUE)";
        INSERT_SEARCHED = "INSERT INTO search (rowid, room, body) VALUES (7, 'r', 'old')"
            | "INSERT INTO search (position, words) VALUES (7, 'old')";
        SET_PROGRESS = "UPDATE search_progress SET position = 7";
        FIND_PROGRESS = "SELECT position FROM search_progress";
        COUNT_SEARCHED = "SELECT COUNT(*) FROM search WHERE search MATCH 'old'"
            | "SELECT COUNT(*) FROM search WHERE words @@ CAST('old' AS tsquery)";

        DROP_LATE = "DROP INDEX late_events";
        DROP_LATE_TS = "ALTER TABLE events DROP COLUMN late_ts";
        DROP_NEWEST_TS = "ALTER TABLE events DROP COLUMN newest_ts";
        DROP_NEWEST_TS_OF_ROOMS = "ALTER TABLE rooms DROP COLUMN newest_ts";
        LIST_MOMENTS = "SELECT newest_ts, late_ts FROM events ORDER BY position";
        FIND_NEWEST = "SELECT newest_ts FROM rooms";

        DROP_ANNOTATIONS = "DROP INDEX annotations";
        DROP_KEY_HASH = "ALTER TABLE relations DROP COLUMN key_hash";
        DROP_BY_REDACTION = "DROP INDEX events_by_redaction";
        SET_THREAD = "UPDATE events SET thread_root = $2 WHERE event_id = $1";
        INSERT_RELATION = "INSERT INTO relations
            (parent, position, event_id, room_id, sender, rel_type, type, origin_server_ts, is_edit)
            VALUES ($1, $2, $3, '!room:example.org', '@alice:example.org', $4, 'm.room.message', 5, FALSE)";
        LIST_THREADS = "SELECT thread_root FROM events ORDER BY position";

        DROP_ERASURES = "DROP TABLE erasures";
        DROP_ERASED = "DROP INDEX erased_accounts";
        SET_ERASED = "UPDATE accounts SET erased = TRUE WHERE user_id = $1";
        INSERT_BATCH = "INSERT INTO batches (last_position, first_position, batch_id, entries) VALUES (7, 1, 'one', '[]')";
        LIST_ERASURES = "SELECT user_id, position FROM erasures";
    }

    /// As it was before this migration.
    async fn undo(tx: &mut Tx, name: &str, statements: &[&'static Statement]) {
        for statement in statements {
            tx.execute(statement, args![]).await.unwrap();
        }
        tx.execute(&FORGET_MIGRATION, args![name]).await.unwrap();
    }

    /// What was said before there was a table for it is in the table afterwards, whatever else clients have written.
    #[tokio::test]
    async fn relations_of_old_events_are_found() {
        let event = |kind: &str, content: serde_json::Value| serde_json::json!({ "type": kind, "origin_server_ts": 5, "content": content });
        let to = |rel_type: &str| serde_json::json!({ "rel_type": rel_type, "event_id": "$root" });
        let related = |rel_type: &str| event("m.room.message", serde_json::json!({ "m.relates_to": to(rel_type) }));
        let mut state =
            event("m.room.topic", serde_json::json!({ "m.relates_to": to("m.replace"), "m.new_content": {} }));
        state["state_key"] = "".into();
        let events = [
            (0, related("m.thread")),
            (1, related("m.thread")),
            (0, related("m.replace")),
            (0, event("m.room.message", serde_json::json!({ "m.relates_to": to("m.replace"), "m.new_content": {} }))),
            (0, event("m.room.encrypted", serde_json::json!({ "m.relates_to": to("m.replace") }))),
            (0, state),
            (0, event("m.room.message", serde_json::json!({ "body": "say \"m.relates_to\" to me" }))),
            (0, event("m.room.message", serde_json::json!({ "m.relates_to": "m.thread" }))),
            (0, event("m.room.message", serde_json::json!({ "m.relates_to": { "rel_type": 1, "event_id": "$root" } }))),
            (0, related(&"x".repeat(256))),
            (0, event("m.room.message", serde_json::json!({ "body": "\u{0}", "m.relates_to": to("m.thread") }))),
        ];
        for database in testing::databases().await {
            let db = database.db();
            let mut tx = db.begin().await.unwrap();
            undo(&mut tx, "0003_relations", &[&DROP_RELATIONS]).await;
            for (at, (standing, json)) in (1_i64..).zip(&events) {
                let (id, json) = (format!("${at}"), json.to_string());
                tx.execute(&INSERT_EVENT, args![at, &id, *standing, &json]).await.unwrap();
            }
            tx.commit().await.unwrap();
            assert_eq!(db.migrate().await.unwrap(), ["0003_relations"]);
            let rows = db.read().await.unwrap().list(&LIST_RELATIONS, args![]).await.unwrap();
            let found: Vec<(i64, String, String, String, i64, bool)> = rows
                .iter()
                .map(|row| {
                    let get = |column| row.get::<String>(column).unwrap();
                    (row.get(0).unwrap(), get(1), get(2), get(3), row.get(4).unwrap(), row.get(5).unwrap())
                })
                .collect();
            let row = |at, rel_type: &str, kind: &str, is_edit| {
                (at, "$root".to_owned(), rel_type.to_owned(), kind.to_owned(), 5, is_edit)
            };
            let expected = [
                row(1, "m.thread", "m.room.message", false),
                row(3, "m.replace", "m.room.message", false),
                row(4, "m.replace", "m.room.message", true),
                row(5, "m.replace", "m.room.encrypted", true),
                row(6, "m.replace", "m.room.topic", false),
            ];
            assert_eq!(found, expected);
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
        for database in testing::databases().await {
            let db = database.db();
            let mut tx = db.begin().await.unwrap();
            undo(&mut tx, "0016_relating", &[&DROP_ANNOTATIONS, &DROP_KEY_HASH, &DROP_BY_REDACTION]).await;
            for at in 1_i64..=8 {
                tx.execute(&INSERT_EVENT, args![at, &format!("${at}"), 0_i64, "{}"]).await.unwrap();
            }
            for (at, (event, rel_type, parent)) in (2_i64..).zip(relations) {
                tx.execute(&INSERT_RELATION, args![parent, at, event, rel_type]).await.unwrap();
                if rel_type == "m.thread" {
                    tx.execute(&SET_THREAD, args![event, parent]).await.unwrap();
                }
            }
            tx.commit().await.unwrap();
            assert_eq!(db.migrate().await.unwrap(), ["0016_relating"]);
            let rows = db.read().await.unwrap().list(&LIST_THREADS, args![]).await.unwrap();
            let threads: Vec<Option<String>> = rows.iter().map(|row| row.get(0).unwrap()).collect();
            let root = || Some("$1".to_owned());
            assert_eq!(threads, [None, root(), root(), root(), root(), None, None, None]);
            database.close().await;
        }
    }

    #[tokio::test]
    async fn whoever_was_erased_before_is_erased_from_here_on() {
        for database in testing::databases().await {
            let db = database.db();
            let mut tx = db.begin().await.unwrap();
            undo(&mut tx, "0017_erasures", &[&DROP_ERASURES, &DROP_ERASED]).await;
            for user_id in ["@kept:here", "@erased:here"] {
                tx.execute(&INSERT_PERSON, args![user_id, 5_i64]).await.unwrap();
            }
            tx.execute(&SET_ERASED, args!["@erased:here"]).await.unwrap();
            tx.execute(&INSERT_BATCH, args![]).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(db.migrate().await.unwrap(), ["0017_erasures"]);
            let rows = db.read().await.unwrap().list(&LIST_ERASURES, args![]).await.unwrap();
            let erased: Vec<(String, i64)> =
                rows.iter().map(|row| (row.get(0).unwrap(), row.get(1).unwrap())).collect();
            assert_eq!(erased, [("@erased:here".to_owned(), 7)]);
            database.close().await;
        }
    }

    /// Whoever had an account is found, by the name that they had, and by whom the rooms as they were allow.
    #[tokio::test]
    async fn people_of_old_are_in_the_user_directory() {
        let state = |content: serde_json::Value| json!({ "origin_server_ts": 1, "content": content }).to_string();
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
        for database in testing::databases().await {
            let db = database.db();
            let mut tx = db.begin().await.unwrap();
            let statements = [&DROP_DIRECTORY, &DROP_WORDS, &DROP_PUT_OFF, &DROP_JOINABLE, &DROP_WORLD_READABLE];
            undo(&mut tx, "0007_user_directory", &statements).await;
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
            tx.commit().await.unwrap();
            assert_eq!(db.migrate().await.unwrap(), ["0007_user_directory"]);

            let mut conn = db.read().await.unwrap();
            let rows = conn.list(&LIST_WORDS, args![]).await.unwrap();
            let found: Vec<(String, String, i64, bool)> = rows
                .iter()
                .map(|row| (row.get(0).unwrap(), row.get(1).unwrap(), row.get(2).unwrap(), row.get(3).unwrap()))
                .collect();
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
            ];
            assert_eq!(
                found.iter().filter(|row| !row.0.starts_with("@x")).cloned().collect::<Vec<_>>(),
                expected.concat()
            );
            assert_eq!(found.len(), expected.concat().len() + 2 * 1_100);
            let row = conn.find(&COUNT_LISTED, args![]).await.unwrap().unwrap();
            assert_eq!(row.get::<i64>(0).unwrap(), 1_104);
            drop(conn);
            database.close().await;
        }
    }

    /// What was kept by its words as they were cut once is kept by them as they are cut now.
    #[tokio::test]
    async fn words_of_old_are_made_anew() {
        for database in testing::databases().await {
            let db = database.db();
            let mut tx = db.begin().await.unwrap();
            undo(&mut tx, "0013_words", &[&INSERT_SEARCHED, &SET_PROGRESS]).await;
            tx.execute(&INSERT_PERSON, args!["@x:here", None::<i64>]).await.unwrap();
            tx.execute(&INSERT_LISTED, args!["@x:here"]).await.unwrap();
            tx.execute(&INSERT_NAME, args!["@x:here", "\"José\""]).await.unwrap();
            tx.execute(&INSERT_WORD, args!["@x:here", "", "josé"]).await.unwrap();
            tx.commit().await.unwrap();
            let count = async || {
                let row = db.read().await.unwrap().find(&COUNT_SEARCHED, args![]).await.unwrap().unwrap();
                row.get::<i64>(0).unwrap()
            };
            assert_eq!(count().await, 1);
            assert_eq!(db.migrate().await.unwrap(), ["0013_words"]);
            assert_eq!(count().await, 0);
            let mut conn = db.read().await.unwrap();
            let progress = conn.find(&FIND_PROGRESS, args![]).await.unwrap().unwrap();
            assert_eq!(progress.get::<i64>(0).unwrap(), 0);
            let rows = conn.list(&LIST_WORDS, args![]).await.unwrap();
            let found: Vec<String> = rows.iter().map(|row| row.get(1).unwrap()).collect();
            assert_eq!(found, ["@x:here", "jose", "x"]);
            drop(conn);
            database.close().await;
        }
    }

    /// What was said before there was a column for it has its time afterwards.
    #[tokio::test]
    async fn old_events_are_found_by_their_time() {
        let events = [(0_i64, 100_i64), (0, 100), (2, 900), (0, 300), (0, 200), (1, 950), (0, 301)];
        let moments =
            [(100, None), (100, Some(100)), (100, None), (300, None), (300, Some(200)), (300, None), (301, None)];
        for database in testing::databases().await {
            let db = database.db();
            let mut tx = db.begin().await.unwrap();
            let statements = [&DROP_LATE, &DROP_LATE_TS, &DROP_NEWEST_TS, &DROP_NEWEST_TS_OF_ROOMS];
            undo(&mut tx, "0009_event_timestamps", &statements).await;
            tx.execute(&INSERT_ROOM, args!["!room:example.org", 1_i64]).await.unwrap();
            for (at, (standing, ts)) in (1_i64..).zip(events) {
                let json =
                    json!({ "origin_server_ts": ts, "content": { "body": "\0 \\u0000", "origin_server_ts": 7 } });
                tx.execute(&INSERT_EVENT, args![at, &format!("${at}"), standing, &json.to_string()]).await.unwrap();
            }
            tx.commit().await.unwrap();
            assert_eq!(db.migrate().await.unwrap(), ["0009_event_timestamps"]);
            let mut conn = db.read().await.unwrap();
            let rows = conn.list(&LIST_MOMENTS, args![]).await.unwrap();
            let found: Vec<(i64, Option<i64>)> =
                rows.iter().map(|row| (row.get(0).unwrap(), row.get(1).unwrap())).collect();
            assert_eq!(found, moments);
            let row = conn.find(&FIND_NEWEST, args![]).await.unwrap().unwrap();
            assert_eq!(row.get::<i64>(0).unwrap(), 301);
            drop(conn);
            database.close().await;
        }
    }
}
