//! A server that is told to stop before it has started.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};

use crate::world::new_postgres_database;

/// Whoever migrates holds it.
const LOCK: &str = "SELECT pg_advisory_xact_lock(4720318)";
const WAITING: &str = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
    WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted";
/// Longer than the server gives its tasks and its database.
const PATIENCE: Duration = Duration::from_secs(30);

/// Gone at the latest with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_waits_for_a_migration_stops_when_it_is_told_to() {
    let Some(database) = new_postgres_database().await else {
        eprintln!("skipped: ./test starts a PostgreSQL for this");
        return;
    };
    for signal in ["TERM", "INT"] {
        let mut migrating = PgConnection::connect(&database).await.unwrap();
        migrating.execute("BEGIN").await.unwrap();
        migrating.execute(LOCK).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let server = Command::new(env!("CARGO_BIN_EXE_hearth"))
            .arg("serve")
            .env_clear()
            .env("HEARTH_DATA_DIR", dir.path())
            .env("HEARTH_LISTEN", "127.0.0.1:0")
            .env("HEARTH_DATABASE__URL", &database)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Server(server);
        let waits = async {
            while migrating.fetch_one(WAITING).await.unwrap().get::<i64, _>(0) == 0 {
                assert!(server.0.try_wait().unwrap().is_none(), "it has ended by itself");
            }
        };
        tokio::time::timeout(PATIENCE, waits).await.expect("it waits for the migration");
        assert!(Command::new("kill").args(["-s", signal, &server.0.id().to_string()]).status().unwrap().success());
        let ends = async {
            loop {
                match server.0.try_wait().unwrap() {
                    Some(status) => return status,
                    None => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let ended = tokio::time::timeout(PATIENCE, ends).await.expect("it stops, although the migration does not end");
        assert_eq!(ended.code(), Some(0), "it was asked to");
        migrating.execute("ROLLBACK").await.unwrap();
        migrating.close().await.unwrap();
    }
}
