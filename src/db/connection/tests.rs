use std::{env, process::Command};

use futures_util::FutureExt as _;

use super::*;
use crate::db::{
    args, statements,
    testing::{self, TestDatabase},
};

statements! {
    MAKE_PARENTS = "CREATE TABLE parents (id BIGINT PRIMARY KEY)";
    MAKE_CHILDREN = "CREATE TABLE children (parent BIGINT REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)";
    ADD_PARENT = "INSERT INTO parents (id) VALUES ($1)";
    ADD_CHILD = "INSERT INTO children (parent) VALUES ($1)";
    COUNT_PARENTS = "SELECT COUNT(*) FROM parents";
    /// What SQLite does by itself when a disk is full or memory runs out in the middle of a statement.
    ADD_PARENT_OR_ROLL_BACK = "INSERT OR ROLLBACK INTO parents (id) VALUES ($1)";
    /// Seen by this connection alone.
    MARK = "CREATE TEMP TABLE marked (id BIGINT)";
    IS_MARKED = "SELECT COUNT(*) FROM marked";
    ONLY_READ = "PRAGMA query_only = ON";
    NO_ROOM = "PRAGMA max_page_count = 1";
    LITTLE_MEMORY = "PRAGMA hard_heap_limit = 50000000";
    TAKE_MEMORY = "SELECT length(hex(zeroblob(60000000)))";
    FILL = "INSERT INTO accepted_terms (user_id, policy_id, version, accepted_ts)
        SELECT value, printf('%.5000c', 'x'), '', 0 FROM json_each('[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]')";
    LOCK = "SELECT 1" | "SELECT pg_advisory_xact_lock(77)::text";
}

async fn tables(database: &TestDatabase) {
    let mut tx = database.db().begin().await.unwrap();
    tx.execute(&MAKE_PARENTS, args![]).await.unwrap();
    tx.execute(&MAKE_CHILDREN, args![]).await.unwrap();
    tx.commit().await.unwrap();
}

async fn add_parent(database: &TestDatabase, id: i64) -> DbResult<()> {
    let mut tx = database.db().begin().await?;
    tx.execute(&ADD_PARENT, args![id]).await?;
    tx.commit().await
}

async fn count(database: &TestDatabase) -> i64 {
    database.db().read().await.unwrap().find(&COUNT_PARENTS, args![]).await.unwrap().unwrap().get(0).unwrap()
}

/// Whether the writing connection of SQLite is the one that was marked.
async fn is_marked(database: &TestDatabase) -> bool {
    database.db().begin().await.unwrap().find(&IS_MARKED, args![]).await.is_ok()
}

async fn mark(database: &TestDatabase) {
    let mut tx = database.db().begin().await.unwrap();
    tx.execute(&MARK, args![]).await.unwrap();
    tx.commit().await.unwrap();
    assert!(is_marked(database).await, "it is used again");
}

#[tokio::test]
async fn a_connection_whose_commit_failed_is_not_used_again() {
    for database in testing::databases().await {
        tables(&database).await;
        let embedded = database.db().engine() == Engine::Sqlite;
        if embedded {
            mark(&database).await;
        }
        for _ in 0..3 {
            let mut tx = database.db().begin().await.unwrap();
            tx.execute(&ADD_PARENT, args![1]).await.unwrap();
            tx.execute(&ADD_CHILD, args![2]).await.unwrap();
            tx.commit().await.unwrap_err();
        }
        assert!(!embedded || !is_marked(&database).await);
        add_parent(&database, 3).await.unwrap();
        assert_eq!(count(&database).await, 1, "nothing of what failed is there");
        database.close().await;
    }
}

#[tokio::test]
async fn a_connection_whose_rollback_failed_is_not_used_again() {
    let database = testing::sqlite().await;
    tables(&database).await;
    add_parent(&database, 1).await.unwrap();
    mark(&database).await;
    let mut tx = database.db().begin().await.unwrap();
    let refused = tx.execute(&ADD_PARENT_OR_ROLL_BACK, args![1]).await.unwrap_err();
    assert!(refused.is_conflict(), "{refused}");
    // There is nothing to roll back any more.
    drop(tx);
    add_parent(&database, 2).await.unwrap();
    assert!(!is_marked(&database).await);
    database.close().await;
}

/// What SQLite has rolled back by itself is gone, and what follows would be committed alone.
#[tokio::test]
async fn what_a_failed_statement_belongs_to_can_not_be_committed() {
    for database in testing::databases().await {
        tables(&database).await;
        add_parent(&database, 1).await.unwrap();
        let mut tx = database.db().begin().await.unwrap();
        tx.execute(&ADD_PARENT, args![2]).await.unwrap();
        tx.execute(&ADD_PARENT, args![1]).await.unwrap_err();
        // PostgreSQL would take a COMMIT and not say that it has rolled back.
        let refused = tx.commit().await.unwrap_err();
        assert!(refused.to_string().contains("has failed"), "{refused}");
        assert_eq!(count(&database).await, 1);
        add_parent(&database, 2).await.unwrap();
        database.close().await;
    }
}

#[tokio::test]
async fn a_database_that_only_reads_or_has_no_room_may_do_better_later() {
    let database = testing::sqlite().await;
    tables(&database).await;
    for trouble in [&ONLY_READ, &NO_ROOM] {
        for _ in 0..3 {
            let refused = fill_with(&database, Some(trouble)).await.unwrap_err();
            assert!(refused.is_unavailable(), "{refused}");
        }
        // Both are settings of a connection.
        database.db().watch.commit_failed();
        add_parent(&database, count(&database).await + 1).await.unwrap();
    }
    fill_with(&database, None).await.unwrap();
    database.close().await;
}

async fn fill_with(database: &TestDatabase, trouble: Option<&'static Statement>) -> DbResult<()> {
    let mut tx = database.db().begin().await?;
    if let Some(trouble) = trouble {
        tx.execute(trouble, args![]).await?;
    }
    tx.execute(&FILL, args![]).await?;
    tx.commit().await
}

/// The limit is the process's, so it is that of a process of its own.
#[tokio::test]
async fn out_of_memory_is_no_end() {
    const ALONE: &str = "HEARTH_TEST_ALONE";
    if env::var_os(ALONE).is_none() {
        let name = "db::connection::tests::out_of_memory_is_no_end";
        let run = Command::new(env::current_exe().unwrap()).args(["--exact", name]).env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let database = testing::sqlite().await;
    tables(&database).await;
    add_parent(&database, 1).await.unwrap();
    for id in 2..5 {
        let mut tx = database.db().begin().await.unwrap();
        tx.execute(&LITTLE_MEMORY, args![]).await.unwrap();
        tx.execute(&ADD_PARENT, args![id]).await.unwrap();
        let refused = tx.execute(&TAKE_MEMORY, args![]).await.unwrap_err();
        assert!(refused.is_unavailable() && refused.to_string().contains("memory"), "{refused}");
        drop(tx);
        add_parent(&database, id).await.unwrap();
    }
    assert_eq!(count(&database).await, 4);
    database.close().await;
}

/// As a node that is stopped or cut off in the middle of a transaction. What it had done is not there.
#[tokio::test]
async fn whoever_falls_silent_in_a_transaction_loses_it_before_others_stop_waiting() {
    for database in testing::databases().await {
        if database.db().engine() == Engine::Postgres {
            tables(&database).await;
            let mut silent = database.db().begin().await.unwrap();
            silent.execute(&LOCK, args![]).await.unwrap();
            silent.execute(&ADD_PARENT, args![1]).await.unwrap();
            let mut waiting = database.db().begin().await.unwrap();
            waiting.execute(&LOCK, args![]).await.unwrap();
            waiting.commit().await.unwrap();
            let lost = silent.commit().await.unwrap_err();
            assert!(lost.is_unavailable(), "{lost}");
            assert_eq!(count(&database).await, 0);
            add_parent(&database, 1).await.unwrap();
        }
        database.close().await;
    }
}

#[tokio::test]
async fn whoever_waits_for_a_lock_that_stays_is_told_to_come_again() {
    for database in testing::databases().await {
        if database.db().engine() == Engine::Postgres {
            let mut holder = database.db().begin().await.unwrap();
            holder.take_time().await.unwrap();
            holder.execute(&LOCK, args![]).await.unwrap();
            let mut waiting = database.db().begin().await.unwrap();
            let late = waiting.execute(&LOCK, args![]).await.unwrap_err();
            assert!(late.is_unavailable() && late.is_lock_timeout(), "{late}");
            drop(waiting);
            holder.commit().await.unwrap();
        }
        database.close().await;
    }
}

#[tokio::test]
async fn nothing_is_committed_into_files_that_nobody_finds_again() {
    let folder = tempfile::tempdir().unwrap();
    let (there, away) = (folder.path().join("there"), folder.path().join("away"));
    std::fs::create_dir(&there).unwrap();
    let db = Db::connect(&format!("sqlite:{}", there.join("a.sqlite3").display()), 1).await.unwrap();
    db.migrate().await.unwrap();
    std::fs::rename(&there, &away).unwrap();
    let lost = db.begin().await.unwrap().commit().await.unwrap_err();
    assert!(lost.is_unavailable() && lost.to_string().contains("is gone from under"), "{lost}");
    db.check_files().unwrap_err();
    std::fs::rename(&away, &there).unwrap();
    db.begin().await.unwrap().commit().await.unwrap();
    db.close().await;
}

/// As whoever has moved their database to another disk leaves it.
#[tokio::test]
async fn a_database_behind_a_link_is_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let (here, elsewhere) = (folder.path().join("here.sqlite3"), folder.path().join("elsewhere.sqlite3"));
    std::os::unix::fs::symlink(&elsewhere, &here).unwrap();
    std::fs::write(&elsewhere, "").unwrap();
    let db = Db::connect(&format!("sqlite:{}", here.display()), 1).await.unwrap();
    db.migrate().await.unwrap();
    db.begin().await.unwrap().commit().await.unwrap();
    db.check_files().unwrap();
    db.close().await;
}

/// A process that is stopped would be given a lock by each of its connections that wait for it, one after the other.
#[tokio::test]
async fn one_transaction_of_a_process_at_a_time_has_its_turn() {
    for database in testing::databases().await {
        if database.db().engine() == Engine::Postgres {
            let mut first = database.db().begin().await.unwrap();
            crate::store::log::lock(&mut first).await.unwrap();
            assert!(first.turn.is_some(), "the log's lock is waited for in turns");
            let mut second = database.db().begin().await.unwrap();
            {
                let mut waiting = Box::pin(second.take_turn());
                assert!(waiting.as_mut().now_or_never().is_none());
                first.commit().await.unwrap();
                waiting.await;
            }
            assert!(second.turn.is_some());
            let mut third = database.db().begin().await.unwrap();
            third.take_turn().await;
            assert!(third.turn.is_none(), "nobody waits for so long that the database ends what they do");
            drop((second, third));
        }
        database.close().await;
    }
}
