//! Migrations: numbered SQL files, equal names for both engines, run in order at start.
//!
//! Each file runs in a transaction of its own together with the row that records it. A database that
//! records a migration this binary does not know comes from a newer release and is refused.

use sqlx::Executor as _;

use super::{Db, DbError, DbResult, Engine, EngineRef, Tx, args, statements};

/// One step of the schema, as both engines spell it.
struct Migration {
    version: i64,
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

macro_rules! migrations {
    ($($version:literal $name:literal),* $(,)?) => {
        &[$(Migration {
            version: $version,
            name: $name,
            sqlite: include_str!(concat!("../../migrations/sqlite/", $name, ".sql")),
            postgres: include_str!(concat!("../../migrations/postgres/", $name, ".sql")),
        }),*]
    };
}

static MIGRATIONS: &[Migration] = migrations![
    1 "0001_first_light",
    2 "0002_nodes",
    3 "0003_relations",
    4 "0004_reports",
    5 "0005_openid",
    6 "0006_search",
    10 "0010_moderation",
    11 "0011_delayed_events",
];

statements! {
    CREATE_MIGRATIONS = "CREATE TABLE IF NOT EXISTS migrations (version BIGINT PRIMARY KEY, name TEXT NOT NULL)";
    /// One process at a time; the others wait and then find the work done.
    LOCK_MIGRATIONS = "SELECT 1" | "SELECT pg_advisory_xact_lock(4720318)::text";
    LIST_MIGRATIONS = "SELECT version, name FROM migrations ORDER BY version";
    RECORD_MIGRATION = "INSERT INTO migrations (version, name) VALUES ($1, $2)";
}

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error(
        "the database was last used by a newer Hearth: it has migration {name}, this one knows only {known}. \
         Start the newer release, or restore a backup from before the upgrade"
    )]
    FromTheFuture { name: String, known: i64 },
    #[error("migration {name} failed and was rolled back: {source}")]
    Failed { name: &'static str, source: DbError },
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
            apply(&mut tx, next).await.map_err(|source| MigrateError::Failed { name: next.name, source })?;
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
            apply(&mut tx, migration).await.map_err(|source| MigrateError::Failed { name: migration.name, source })?;
        }
        Ok(pending.iter().map(|m| m.name).collect())
    }
}

async fn pending(tx: &mut Tx) -> Result<Vec<&'static Migration>, MigrateError> {
    let known = MIGRATIONS.last().map_or(0, |m| m.version);
    let mut done = Vec::new();
    for row in tx.list(&LIST_MIGRATIONS, args![]).await? {
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
    use super::*;
    use crate::db::testing;

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

    statements! {
        DROP_RELATIONS = "DROP TABLE relations";
        FORGET_RELATIONS = "DELETE FROM migrations WHERE name = '0003_relations'";
        INSERT_EVENT = "INSERT INTO events (position, event_id, room_id, sender, standing, notifies, json)
            VALUES ($1, $2, '!room:example.org', '@alice:example.org', $3, FALSE, $4)";
        LIST_RELATIONS = "SELECT position, parent, rel_type, type, origin_server_ts, is_edit FROM relations ORDER BY position";
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
            tx.execute(&DROP_RELATIONS, args![]).await.unwrap();
            tx.execute(&FORGET_RELATIONS, args![]).await.unwrap();
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
}
