//! Whether the log can be written, for whoever decides if this node should get requests.
//!
//! What was committed a moment ago says it without a question, so a busy node is never asked. Else the writer itself is
//! tried, for all who ask at once: on SQLite one page is written and synced, on `PostgreSQL` the log's lock is taken and
//! given back. A reader would not notice a full disk, or a node that keeps the log's lock and says nothing.
//!
//! A writer at work is no trouble on SQLite, where it is this process: only if nothing at all is committed for long. On
//! `PostgreSQL` nobody keeps the log's lock for so long but by an accident.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use crate::{
    db::{Db, DbResult, Engine},
    store,
};

/// How long the trial may take before somebody is in its way.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long what was found out to be broken is taken to be so: asking often is no load.
const BROKEN: Duration = Duration::from_millis(500);
/// For how long after its last commit a writer at work is believed to come to an end, on SQLite.
const AT_WORK: Duration = Duration::from_secs(10);

/// What is known of the writer.
pub(super) struct Writable {
    db: Db,
    seen: Mutex<Seen>,
    /// Held while the writer is tried.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy)]
struct Seen {
    /// When something was last committed; at first, when this node started.
    done: Instant,
    /// Whether that was in fact a commit.
    known: bool,
    /// When a commit last failed, if none has succeeded since.
    failed: Option<Instant>,
}

impl Writable {
    pub(super) fn new(db: Db) -> Self {
        let seen = Seen { done: Instant::now(), known: false, failed: None };
        Self { db, seen: Mutex::new(seen), turn: tokio::sync::Mutex::default() }
    }

    /// Something was committed.
    pub(super) fn note_success(&self) {
        *self.seen.lock() = Seen { done: Instant::now(), known: true, failed: None };
    }

    /// The database could not commit.
    pub(super) fn note_failure(&self) {
        self.seen.lock().failed = Some(Instant::now());
    }

    /// Whether something can be written, within little more than two seconds.
    pub(super) async fn try_out(&self) -> bool {
        if let Err(error) = self.db.check_files() {
            tracing::error!(%error, "nothing is written any more: put the database back, or stop the server");
            return false;
        }
        let asked = Instant::now();
        let tried = timeout(PATIENCE, async {
            let _turn = self.turn.lock().await;
            match self.answer() {
                Some(answer) => answer,
                None => self.ask().await,
            }
        });
        match tried.await {
            Ok(answer) => answer,
            // Somebody was in the way and has come to an end meanwhile.
            Err(_elapsed) if self.seen.lock().done > asked => true,
            Err(_elapsed) => self.is_at_work(),
        }
    }

    /// What is known without asking. On SQLite the question is a page and an fsync, so the answer holds longer.
    fn answer(&self) -> Option<bool> {
        let relied_on = Duration::from_secs(match self.db.engine() {
            Engine::Sqlite => 5,
            Engine::Postgres => 1,
        });
        match *self.seen.lock() {
            Seen { failed: Some(failed), .. } => (failed.elapsed() < BROKEN).then_some(false),
            Seen { done, known, .. } => (known && done.elapsed() < relied_on).then_some(true),
        }
    }

    async fn ask(&self) -> bool {
        let written = self.write().await;
        match &written {
            Ok(()) => self.note_success(),
            Err(error) => {
                self.note_failure();
                tracing::warn!(%error, "nothing can be written");
            }
        }
        written.is_ok()
    }

    async fn write(&self) -> DbResult<()> {
        if self.seen.lock().failed.is_some() {
            self.db.check_room()?;
        }
        let mut tx = self.db.begin().await?;
        store::log::try_writing(&mut tx).await?;
        tx.commit().await
    }

    fn is_at_work(&self) -> bool {
        let seen = *self.seen.lock();
        let at_work =
            self.db.engine() == Engine::Sqlite && seen.failed.is_none() && seen.done.elapsed() < PATIENCE + AT_WORK;
        if !at_work {
            tracing::warn!("nothing can be written: somebody keeps the others from it");
        }
        at_work
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing;

    #[tokio::test]
    async fn a_failure_counts_until_something_was_written() {
        for database in testing::databases().await {
            let writable = Writable::new(database.db().clone());
            assert!(writable.try_out().await);
            writable.note_failure();
            assert_ne!(writable.answer(), Some(true));
            writable.seen.lock().failed = Instant::now().checked_sub(BROKEN);
            assert!(writable.try_out().await, "it is tried anew, and works");
            assert!(writable.seen.lock().failed.is_none());
            database.close().await;
        }
    }

    #[tokio::test]
    async fn who_keeps_the_others_from_writing_is_noticed() {
        for database in testing::databases().await {
            let db = database.db();
            let writable = Writable::new(db.clone());
            let mut silent = db.begin().await.unwrap();
            silent.take_time().await.unwrap();
            store::log::lock(&mut silent).await.unwrap();
            let may_be_at_work = db.engine() == Engine::Sqlite;
            assert_eq!(writable.try_out().await, may_be_at_work, "{}", db.engine());
            writable.seen.lock().done = Instant::now().checked_sub(PATIENCE + AT_WORK).unwrap();
            assert!(!writable.try_out().await);
            drop(silent);
            assert!(writable.try_out().await);
            database.close().await;
        }
    }
}
