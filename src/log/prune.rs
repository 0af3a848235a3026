//! What batches say of their entries, pruned.
//!
//! The row of a batch lists its entries for whoever reads them from the database. Once nobody has to any more, the list is
//! emptied. How far, only [`Log::prune`] decides; it goes no further than
//! - each durable cursor stands, however long it has stood still and whoever moves it;
//! - each node has read, by its row among the nodes, where one that has not said it yet has read nothing;
//! - so many of the newest entries are left, for a node that was silent until it had no row any more, as one whose machine
//!   was asleep. A node that was away for longer than that stops ([`super::replay`]).
//!
//! The row itself stays: a token is known by the id of the batch that holds its place, and clients come back with
//! tokens of any age. What a sync returns since then is in the tables, so no token needs the list.

use super::{
    Log,
    cursor::{Cursor, Mover},
};
use crate::{
    error::Result,
    ground::{position::Position, sizes::PruneSizes},
    node::Epoch,
    store,
};

/// Up to where the lists are empty. Itself a cursor, so that one node prunes at a time. It is left out where the
/// slowest reader is looked for: it would hold itself back.
const PRUNED: Cursor = Cursor::new("pruned");

/// How a step of pruning has left the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pruned {
    /// There is nothing to prune any more, or it is for somebody else to do.
    All,
    /// There is more.
    Some,
}

impl Log {
    /// Goes a step further, in the name of a lease. Called now and then by the node whose duty it is, several times in
    /// a row while [`Pruned::Some`] is returned. At most `sizes.step` entries are emptied in one transaction.
    pub(crate) async fn prune(&self, epoch: Epoch, sizes: PruneSizes) -> Result<Pruned> {
        let mut tx = self.db.begin().await?;
        let Some(from) = PRUNED.claim(&mut tx, epoch).await? else { return Ok(Pruned::All) };
        // `reached` lags behind the database at worst, which prunes less.
        let kept_after = Position(self.tail.reached().0.saturating_sub(sizes.kept));
        // A node that enters after this look begins to read at the end of the log, so it needs nothing of what is
        // emptied here.
        let readers = store::log::find_last_reader(&mut tx, PRUNED.name()).await?;
        let limit = readers.map_or(kept_after, |position| position.min(kept_after));
        let until = limit.min(Position(from.0.saturating_add(sizes.step)));
        if until <= from {
            return Ok(Pruned::All);
        }
        store::log::empty_batches(&mut tx, from, until).await?;
        // Not the holder of the lease any more: the transaction is dropped, and with it what was emptied.
        if !PRUNED.advance(&mut tx, from, until, Mover::Holder(epoch)).await? {
            return Ok(Pruned::All);
        }
        tx.commit().await?;
        Ok(if until < limit { Pruned::Some } else { Pruned::All })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ruma::user_id;

    use super::*;
    use crate::{
        db::testing::{self, TestDatabase},
        edge::{hub::Hub, metrics::Metrics},
        event::fact::{AccountChange, Fact, NodeId, Write},
        ground::{random::Random, tasks::Tasks},
        log::Tail,
    };

    const LITTLE: PruneSizes = PruneSizes { kept: 0, step: 2 };
    const EPOCH: Epoch = Epoch(1);

    /// A log of which nothing is in memory, with so many entries, one in each batch.
    async fn log(database: &TestDatabase, entries: usize) -> Log {
        let start = async || {
            let (tail, tasks, random) = (Arc::new(Tail::default()), Tasks::new(), Random::system());
            Log::start(database.db().clone(), tail, random, Metrics::new(), Hub::disconnected(), &tasks).await.unwrap()
        };
        let log = start().await;
        for _ in 0..entries {
            let change = AccountChange::Devices(user_id!("@alice:here").to_owned());
            log.append(Write::fact(Fact::AccountChange(change))).await.unwrap();
        }
        start().await
    }

    async fn put_cursor(database: &TestDatabase, name: &str, from: i64, until: i64) {
        let mut tx = database.db().begin().await.unwrap();
        assert!(store::cursor::advance(&mut tx, name, Position(from), Position(until), None).await.unwrap());
        tx.commit().await.unwrap();
    }

    /// Lets every reader that keeps tables read everything.
    async fn put_cursors(database: &TestDatabase, until: i64) {
        for name in ["search", "user directory"] {
            put_cursor(database, name, 0, until).await;
        }
        put_buckets(database, until).await;
    }

    /// Lets everything be sent that other servers have to get.
    async fn put_buckets(database: &TestDatabase, until: i64) {
        for bucket in 0..16 {
            put_cursor(database, &format!("federation {bucket}"), 0, until).await;
        }
    }

    async fn prune_all(log: &Log, sizes: PruneSizes) {
        while log.prune(EPOCH, sizes).await.unwrap() == Pruned::Some {}
    }

    /// The first place after which everything can be read.
    async fn readable_after(log: &Log) -> i64 {
        let last = log.tail().reached();
        for after in 0..last.0 {
            if let Ok(stretch) = log.read_after(Position(after), 100).await {
                assert_eq!(stretch.until, last);
                assert_eq!(i64::try_from(stretch.entries.len()), Ok(last.0 - after));
                return after;
            }
        }
        last.0
    }

    #[tokio::test]
    async fn a_cursor_that_stands_still_holds_back_what_it_has_to_read() {
        for database in testing::databases().await {
            let log = log(&database, 9).await;
            prune_all(&log, LITTLE).await;
            assert_eq!(readable_after(&log).await, 0, "none has read anything");
            put_buckets(&database, 9).await;
            put_cursor(&database, "search", 0, 9).await;
            put_cursor(&database, "user directory", 0, 5).await;
            for _ in 0..3 {
                prune_all(&log, LITTLE).await;
                assert_eq!(readable_after(&log).await, 5, "the last of them counts, as often as one tries");
            }
            put_cursor(&database, "user directory", 5, 6).await;
            prune_all(&log, LITTLE).await;
            assert_eq!(readable_after(&log).await, 6);
            put_cursor(&database, "user directory", 6, 9).await;
            prune_all(&log, LITTLE).await;
            assert_eq!(readable_after(&log).await, 9);
            drop(log);
            database.close().await;
        }
    }

    #[tokio::test]
    async fn a_node_holds_back_what_it_has_to_read_until_it_is_gone() {
        for database in testing::databases().await {
            let log = log(&database, 9).await;
            put_cursors(&database, 9).await;
            let (slow, silent) = (NodeId::from("slow".to_owned()), NodeId::from("silent".to_owned()));
            let mut tx = database.db().begin().await.unwrap();
            store::node::enter(&mut tx, &slow, None, false, Position(3)).await.unwrap();
            store::node::enter(&mut tx, &silent, None, false, Position::START).await.unwrap();
            tx.commit().await.unwrap();
            prune_all(&log, LITTLE).await;
            assert_eq!(readable_after(&log).await, 0, "one that has not said how far it has read");
            let mut tx = database.db().begin().await.unwrap();
            store::node::leave(&mut tx, &silent).await.unwrap();
            tx.commit().await.unwrap();
            prune_all(&log, LITTLE).await;
            assert_eq!(readable_after(&log).await, 3);
            let mut tx = database.db().begin().await.unwrap();
            assert!(store::node::beat(&mut tx, &slow, false, &[], Position(7)).await.unwrap());
            tx.commit().await.unwrap();
            prune_all(&log, LITTLE).await;
            assert_eq!(readable_after(&log).await, 7);
            let mut tx = database.db().begin().await.unwrap();
            store::node::leave(&mut tx, &slow).await.unwrap();
            tx.commit().await.unwrap();
            prune_all(&log, PruneSizes { kept: 1, step: 100 }).await;
            assert_eq!(readable_after(&log).await, 8, "some are left for whoever had no row");
            drop(log);
            database.close().await;
        }
    }

    #[tokio::test]
    async fn tokens_outlive_what_is_pruned() {
        for database in testing::databases().await {
            let log = log(&database, 4).await;
            put_cursors(&database, 4).await;
            let before = log.token(Position(1)).await.unwrap();
            assert!(before.mark.is_some());
            prune_all(&log, LITTLE).await;
            assert_eq!(readable_after(&log).await, 4);
            drop(log);
            let log = self::log(&database, 0).await;
            assert_eq!(log.token(Position(1)).await.unwrap(), before);
            assert_eq!(log.place(&before).await.unwrap(), Some(Position(1)));
            drop(log);
            database.close().await;
        }
    }

    #[tokio::test]
    async fn whoever_has_lost_the_lease_prunes_nothing() {
        for database in testing::databases().await {
            let log = log(&database, 6).await;
            put_cursors(&database, 6).await;
            assert_eq!(log.prune(Epoch(2), LITTLE).await.unwrap(), Pruned::Some);
            assert_eq!(log.prune(Epoch(1), LITTLE).await.unwrap(), Pruned::All);
            assert_eq!(readable_after(&log).await, 2);
            drop(log);
            database.close().await;
        }
    }
}
