//! Rows of somebody's own and the entries that notify of them in one transaction, so that neither is there without the
//! other, whatever breaks.
//!
//! Such a transaction does not become part of a batch: what its owner waits for, such as somebody's account, would hold
//! up the messages of everybody else. The owner does their part first, on a connection of their own. What is left then
//! takes the log's lock, a few statements and a commit, as a batch does.
//!
//! Lock order: the owner's rows, then the log. A batch takes the log's lock before it writes, so an owner who touches a
//! table that batches write to has to call [`crate::store::log::lock`] before.
//!
//! On SQLite, whose only writing connection the owner has held since they began, nobody else commits meanwhile. What
//! they do before is therefore kept short there too.

use std::{slice, sync::Arc, time::Instant};

use super::{
    Log,
    commit::{CommitError, Committed, Committer, WriteVerdict},
};
use crate::{
    db::Tx,
    event::fact::{Fact, Write},
};

impl Log {
    /// Commits a transaction together with facts, and waits until this node's readers have been notified of them. If a
    /// fact is refused, or anything fails, nothing of the transaction remains.
    ///
    /// It is seen through also where whoever waits for it goes away. Errors are the refusals of facts (`AliasTaken`,
    /// `AliasGone`, `Conflict`), `Unavailable`, and `Closed` if the commit has panicked.
    pub async fn commit(&self, tx: Tx, facts: Vec<Fact>) -> Result<Committed, CommitError> {
        let committer = Arc::clone(&self.committer);
        // A request may be dropped at any await. Dropped between COMMIT and the tail, the batch would be durable and
        // unread.
        let committing = async move { committer.commit_own(tx, facts).await };
        let verdict = self.tasks.see_through("committing with rows", committing).await;
        let committed = verdict.unwrap_or(Err(CommitError::Closed))?;
        self.tail.wait_for(committed.last).await;
        Ok(committed)
    }
}

impl Committer {
    async fn commit_own(&self, tx: Tx, facts: Vec<Fact>) -> WriteVerdict {
        let started = Instant::now();
        let write = Write::facts(facts);
        let attempted = self.attempt_in(tx, slice::from_ref(&write)).await;
        self.verdicts(attempted, 1, started).pop().unwrap_or(Err(CommitError::Closed))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use ruma::{room_alias_id, room_id, user_id};

    use super::*;
    use crate::{
        db::{
            Engine,
            testing::{self, TestDatabase},
        },
        edge::{hub::Hub, metrics::Metrics},
        event::fact::{AccountChange, ListingChange, Write},
        ground::{position::Position, random::Random, tasks::Tasks},
        log::Tail,
        store::profile,
    };

    async fn log(database: &TestDatabase) -> Log {
        let (tail, tasks, random) = (Arc::new(Tail::default()), Tasks::new(), Random::system());
        Log::start(database.db().clone(), tail, random, Metrics::new(), Hub::disconnected(), &tasks).await.unwrap()
    }

    /// Somebody's own row.
    async fn begin(database: &TestDatabase, value: &str) -> Tx {
        let mut tx = database.db().begin().await.unwrap();
        profile::upsert(&mut tx, user_id!("@alice:here"), "org.example.word", value).await.unwrap();
        tx
    }

    async fn value(database: &TestDatabase) -> Option<String> {
        let mut conn = database.db().read().await.unwrap();
        profile::find(&mut conn, user_id!("@alice:here"), "org.example.word").await.unwrap()
    }

    fn devices() -> Vec<Fact> {
        vec![Fact::AccountChange(AccountChange::Devices(user_id!("@alice:here").to_owned()))]
    }

    fn alias() -> Vec<Fact> {
        let (alias, room_id) = (room_alias_id!("#a:here").to_owned(), room_id!("!a:here").to_owned());
        let creator = user_id!("@alice:here").to_owned();
        vec![Fact::Listing(ListingChange::AliasAdded { alias, room_id, creator })]
    }

    #[tokio::test]
    async fn what_the_log_refuses_takes_the_rows_with_it() {
        for database in testing::databases().await {
            let log = log(&database).await;
            let committed = log.commit(begin(&database, "1").await, alias()).await.unwrap();
            assert_eq!((committed.last, log.tail().reached()), (Position(1), Position(1)));
            let refused = log.commit(begin(&database, "2").await, alias()).await;
            assert!(matches!(refused, Err(CommitError::AliasTaken)), "{refused:?}");
            assert_eq!(value(&database).await.as_deref(), Some("1"));

            database.refuse_log().await;
            let failed = log.commit(begin(&database, "3").await, devices()).await;
            assert!(matches!(failed, Err(CommitError::Unavailable(_))), "{failed:?}");
            database.accept_log().await;
            assert_eq!((value(&database).await.as_deref(), log.tail().reached()), (Some("1"), Position(1)));
            log.commit(begin(&database, "4").await, devices()).await.unwrap();
            assert_eq!((value(&database).await.as_deref(), log.tail().reached()), (Some("4"), Position(2)));
            drop(log);
            database.close().await;
        }
    }

    /// As a request whose client hangs up. On SQLite nobody would look for what was committed and not read.
    #[tokio::test]
    async fn a_commit_that_is_given_up_is_seen_through() {
        for database in testing::databases().await {
            let log = log(&database).await;
            let tx = begin(&database, "1").await;
            assert!(log.commit(tx, devices()).now_or_never().is_none(), "it takes a while");
            log.tail().wait_for(Position(1)).await;
            assert_eq!(value(&database).await.as_deref(), Some("1"));
            drop(log);
            database.close().await;
        }
    }

    /// SQLite has one writer at a time, whatever it writes.
    #[tokio::test]
    async fn whoever_takes_their_time_with_their_rows_holds_nobody_up() {
        for database in testing::databases().await {
            if database.db().engine() == Engine::Postgres {
                let log = log(&database).await;
                let slow = begin(&database, "1").await;
                let [fact] = <[Fact; 1]>::try_from(devices()).unwrap();
                log.append(Write::fact(fact)).await.unwrap();
                assert_eq!(log.commit(slow, devices()).await.unwrap().last, Position(2));
                drop(log);
            }
            database.close().await;
        }
    }
}
