//! Databases for tests: a fresh one of each engine that is at hand, gone afterwards.
//!
//! SQLite always; `PostgreSQL` where `HEARTH_TEST_POSTGRES` holds the URL of a server on which databases may
//! be created.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _, SqliteConnection};
use tempfile::TempDir;

use super::{Conn, Db, DbResult, Insert, Statement};

/// A database that is gone with the test. Only [`Self::close`] removes one on a server; a test that fails leaves its
/// own behind.
pub(crate) struct TestDatabase {
    db: Db,
    url: String,
    place: Place,
}

enum Place {
    Folder(TempDir),
    Server { admin_url: String, name: String, folder: TempDir },
}

/// One of each engine.
pub(crate) async fn databases() -> Vec<TestDatabase> {
    let databases = empty_databases().await;
    for database in &databases {
        database.db.migrate().await.unwrap();
    }
    databases
}

/// One of each engine as the release before a migration makes it.
pub(super) async fn databases_before(migration: &str) -> Vec<TestDatabase> {
    let databases = empty_databases().await;
    for database in &databases {
        database.db.migrate_before(migration).await.unwrap();
    }
    databases
}

async fn empty_databases() -> Vec<TestDatabase> {
    let mut databases = vec![empty_sqlite().await];
    if let Ok(admin_url) = std::env::var("HEARTH_TEST_POSTGRES") {
        databases.push(empty_postgres(admin_url).await);
    }
    databases
}

pub(crate) async fn sqlite() -> TestDatabase {
    let database = empty_sqlite().await;
    database.db.migrate().await.unwrap();
    database
}

async fn empty_sqlite() -> TestDatabase {
    let folder = TempDir::new().unwrap();
    let url = format!("sqlite:{}", folder.path().join("test.sqlite3").display());
    TestDatabase { db: connect(&url).await, url, place: Place::Folder(folder) }
}

async fn empty_postgres(admin_url: String) -> TestDatabase {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("hearth_unit_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    administer(&admin_url, format!("CREATE DATABASE {name}")).await;
    let (server, query) = admin_url.split_once('?').map_or((&*admin_url, ""), |(server, query)| (server, query));
    let (server, _) = server.rsplit_once('/').unwrap();
    let url = format!("{server}/{name}?{query}");
    TestDatabase {
        db: connect(&url).await,
        url,
        place: Place::Server { admin_url, name, folder: TempDir::new().unwrap() },
    }
}

/// How SQLite is going to answer a statement, step by step.
pub(crate) async fn plan(database: &TestDatabase, sql: &str) -> Vec<String> {
    let mut connection = SqliteConnection::connect(&database.url).await.unwrap();
    let rows =
        sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"))).fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    rows.iter().map(|row| row.get("detail")).collect()
}

/// How `PostgreSQL`, if there is one, is going to answer statements on tables of which it knows nothing yet, after `fill`
/// has filled them.
pub(crate) async fn plans_of_newcomer(fill: &str, statements: &[(&str, &str)]) -> Vec<String> {
    let Ok(admin_url) = std::env::var("HEARTH_TEST_POSTGRES") else { return Vec::new() };
    let database = empty_postgres(admin_url).await;
    database.db.migrate().await.unwrap();
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    let run = |sql: String| sqlx::raw_sql(AssertSqlSafe(sql));
    connection.execute(run(format!("{fill}; SET plan_cache_mode = force_generic_plan"))).await.unwrap();
    let mut plans = Vec::new();
    for (number, (sql, parameters)) in statements.iter().enumerate() {
        connection.execute(run(format!("PREPARE asked{number} AS {sql}"))).await.unwrap();
        let rows = connection.fetch_all(run(format!("EXPLAIN EXECUTE asked{number} ({parameters})"))).await.unwrap();
        plans.push(rows.iter().map(|row| row.get::<String, _>(0) + "\n").collect());
    }
    connection.close().await.unwrap();
    database.close().await;
    plans
}

async fn connect(url: &str) -> Db {
    Db::connect(url, 8).await.unwrap()
}

async fn administer(url: &str, sql: String) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    connection.close().await.unwrap();
}

impl TestDatabase {
    pub(crate) fn db(&self) -> &Db {
        &self.db
    }

    /// A folder for whatever a server keeps beside this database.
    pub(crate) fn data_dir(&self) -> PathBuf {
        match &self.place {
            Place::Folder(folder) | Place::Server { folder, .. } => folder.path().join("data"),
        }
    }

    /// Another way into the same database, for a server that is to be stopped and started again.
    pub(crate) async fn reopen(&self) -> Db {
        let db = connect(&self.url).await;
        db.migrate().await.unwrap();
        db
    }

    /// From now on no entry can be written into the log.
    pub(crate) async fn refuse_log(&self) {
        self.run("ALTER TABLE batches RENAME TO refused_batches").await;
    }

    /// Entries can be written into the log again.
    pub(crate) async fn accept_log(&self) {
        self.run("ALTER TABLE refused_batches RENAME TO batches").await;
    }

    /// Runs SQL that both engines read alike.
    pub(crate) async fn run(&self, sql: &'static str) {
        match &self.place {
            Place::Folder(_) => {
                let mut connection = SqliteConnection::connect(&self.url).await.unwrap();
                connection.execute(sqlx::raw_sql(sql)).await.unwrap();
                connection.close().await.unwrap();
            }
            Place::Server { .. } => administer(&self.url, sql.to_owned()).await,
        }
    }

    /// Every row of a table as text, in no order that means anything.
    pub(crate) async fn dump(&self, table: &str) -> Vec<String> {
        let mut rows: Vec<String> = match &self.place {
            Place::Folder(_) => {
                let mut connection = SqliteConnection::connect(&self.url).await.unwrap();
                let columns = format!(
                    "SELECT group_concat('quote(' || name || ')', ' || '','' || ') FROM pragma_table_info('{table}')"
                );
                let row = sqlx::query(AssertSqlSafe(columns)).fetch_one(&mut connection).await.unwrap();
                let sql = format!("SELECT {} FROM {table}", row.get::<String, _>(0));
                let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
                connection.close().await.unwrap();
                rows.iter().map(|row| row.get(0)).collect()
            }
            Place::Server { .. } => {
                let mut connection = PgConnection::connect(&self.url).await.unwrap();
                let sql = format!("SELECT CAST(t AS text) FROM {table} t");
                let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
                connection.close().await.unwrap();
                rows.iter().map(|row| row.get(0)).collect()
            }
        };
        rows.sort();
        rows
    }

    pub(crate) async fn close(self) {
        self.db.close().await;
        match self.place {
            Place::Folder(folder) => folder.close().unwrap(),
            Place::Server { admin_url, name, folder } => {
                administer(&admin_url, format!("DROP DATABASE {name}")).await;
                folder.close().unwrap();
            }
        }
    }
}

impl Conn {
    /// Has the engine parse and plan a statement without running it.
    pub(crate) async fn prepare(&mut self, statement: &'static Statement) -> DbResult<()> {
        statement.prepare(self.engine_ref()).await
    }

    pub(crate) async fn prepare_insert(&mut self, insert: &'static Insert) -> DbResult<()> {
        insert.prepare(self.engine_ref()).await
    }
}
