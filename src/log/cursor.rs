//! Durable cursors: how far a reader has come that makes tables of its own from the log, such as an index.
//!
//! A cursor is a name and a place in the database. What is made of a stretch of the log is written in the transaction that
//! moves the cursor over it ([`Cursor::advance`]), so a stretch is taken once, whatever breaks, and however many nodes
//! take it at the same moment.
//!
//! Mostly one node moves it for all, whose duty that is. A lease may be lost without its holder noticing
//! ([`crate::node::Duty`]), so the cursor carries the lease's epoch: once a later holder has claimed it, an earlier one
//! does not move it any more. A reader that does nothing outside of the transaction may also be brought up to date by whoever
//! needs it at once, in nobody's name.
//!
//! The row of a cursor is made by a migration, which knows where its reader has to begin: not before what has been pruned.
//! From then on nothing is pruned that the reader has not read ([`super::prune`]).
//!
//! Nothing here may be asked for while a lock is held that a reader of the tail takes: each call waits for the
//! database.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::Log;
use crate::{
    db::{Conn, Db, DbResult, Tx},
    error::{Error, Result},
    ground::{position::Position, tasks::Shutdown},
    node::{Duty, Epoch},
    store,
};

/// How often a node looks whether a duty has become its own, and how long it waits after a failure.
const PAUSE: Duration = Duration::from_secs(2);

/// A reader's place in the log, by the reader's name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor(&'static str);

/// In whose name a cursor is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mover {
    /// The holder of the duty, under this lease. The move fails if the cursor has been claimed under a later lease,
    /// even where the place is still right.
    Holder(Epoch),
    /// Whoever needs the reader to have come further, for work that is all in the transaction. The epoch stays as it
    /// is, so that the holder's next move finds its claim untouched.
    Anybody,
}

/// A reader that makes tables of the log.
pub(crate) trait Follower: Send + Sync {
    /// Which row of `cursors` is its own. Two followers never share one.
    fn cursor(&self) -> Cursor;

    /// How far this node knows the reader to have come.
    fn known(&self) -> &KnownPlace;

    /// How long what was written may wait until it is taken, so that much is taken at once.
    fn rest(&self) -> Duration;

    /// Takes the next stretch of the log if the reader has not come to `until`, and returns how far it has come. What
    /// it returns may be less than `until`: a stretch is taken at a time. An answer that is not beyond the last one
    /// means that somebody else moves the cursor, or that there was nothing to take.
    fn take(&self, until: Position, mover: Mover) -> impl Future<Output = Result<Position>> + Send;
}

/// A place that a cursor has come to, as far as this node has seen. Cursors only move forward, so whoever needs no more than
/// that need not ask the database.
#[derive(Debug, Default)]
pub(crate) struct KnownPlace(AtomicI64);

impl KnownPlace {
    fn get(&self) -> Position {
        Position(self.0.load(Ordering::Acquire))
    }

    fn note(&self, reached: Position) {
        self.0.fetch_max(reached.0, Ordering::AcqRel);
    }
}

impl Cursor {
    /// The name is stored, so it stays what it is once it has been released.
    pub(crate) const fn new(name: &'static str) -> Self {
        Self(name)
    }

    pub(super) const fn name(self) -> &'static str {
        self.0
    }

    /// Up to where the reader has come. Without a row nothing has been taken. It may be out of date at once;
    /// [`Cursor::advance`] is what decides.
    pub(crate) async fn position(self, conn: &mut Conn) -> DbResult<Position> {
        Ok(store::cursor::find(conn, self.0).await?.unwrap_or(Position::START))
    }

    /// Takes the cursor over for the holder of a lease: nobody who held an earlier one moves it any more. None where
    /// somebody holds a later one.
    pub(crate) async fn claim(self, conn: &mut Conn, epoch: Epoch) -> DbResult<Option<Position>> {
        store::cursor::claim(conn, self.0, epoch.0).await
    }

    /// Keeps the cursor where it stands until the transaction ends. For those who write the reader's tables without reading
    /// the log: the reader waits meanwhile.
    pub(crate) async fn lock(self, tx: &mut Tx) -> DbResult<()> {
        store::cursor::lock(tx, self.0).await.map(drop)
    }

    /// Moves the cursor from where the reader has read. False where it stands elsewhere, because somebody was quicker, or
    /// belongs to a later lease: the transaction has to be given up then. Both bounds are places of entries: `from` was
    /// taken before, `until` is the last that is taken now.
    #[must_use = "whoever has not moved it must not commit"]
    pub(crate) async fn advance(self, tx: &mut Tx, from: Position, until: Position, mover: Mover) -> DbResult<bool> {
        let epoch = match mover {
            Mover::Holder(epoch) => Some(epoch.0),
            Mover::Anybody => None,
        };
        store::cursor::advance(tx, self.0, from, until, epoch).await
    }
}

/// Has a reader take the log as it grows, wherever that is this node's duty, until the server stops.
pub(crate) async fn follow(follower: impl Follower, db: Db, log: Log, duty: Duty, shutdown: Shutdown) {
    // Where the cursor stands is learned by the first step: one is tried as soon as the log holds anything.
    let mut taken = Position::START;
    let mut claimed = None;
    loop {
        tokio::select! {
            () = shutdown.started() => return,
            () = log.tail().wait_for(taken.next()) => {}
        }
        let begun = Instant::now();
        // Not only where the lease is new: another node may have claimed the cursor under a later epoch and lost it
        // again.
        let step = async {
            let Some(epoch) = duty.epoch() else { return Ok(None) };
            if claimed != Some(epoch) && !take_over(&db, follower.cursor(), epoch).await? {
                return Ok(None);
            }
            claimed = Some(epoch);
            follower.take(log.tail().reached(), Mover::Holder(epoch)).await.map(Some)
        };
        let pause = match step.await {
            Ok(Some(reached)) => {
                // Who has not got on may have lost the lease.
                claimed = claimed.filter(|_| reached > taken);
                follower.known().note(reached);
                taken = reached;
                // Where there is much to take, it rests as long as it has worked, so that whoever writes gets on meanwhile.
                // Who needs it at once does not wait for that.
                if reached < log.tail().reached() { begun.elapsed() } else { follower.rest() }
            }
            Ok(None) => PAUSE,
            Err(error) => {
                tracing::warn!(%error, cursor = follower.cursor().0, "could not follow the log; trying again");
                PAUSE
            }
        };
        tokio::select! {
            () = shutdown.started() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Claims a cursor in a transaction of its own. False where somebody holds a later lease.
async fn take_over(db: &Db, cursor: Cursor, epoch: Epoch) -> DbResult<bool> {
    let mut tx = db.begin().await?;
    let is_mine = cursor.claim(&mut tx, epoch).await?.is_some();
    tx.commit().await?;
    Ok(is_mine)
}

/// Has a reader come to `until` at once, or as far as it gets with some patience, and returns how far that is. Called
/// while a request waits, so it does not rest between stretches. Whoever is answered with less than `until` has a
/// result that lacks the newest entries, which is better than none.
///
/// Errors are the follower's: those of the database.
pub(crate) async fn bring_up(follower: &impl Follower, until: Position, patience: Duration) -> Result<Position> {
    if follower.known().get() >= until {
        return Ok(until);
    }
    let begun = Instant::now();
    loop {
        let reached = match follower.take(until, Mover::Anybody).await {
            // Another node is at work on it, or has fallen silent there.
            Err(Error::Db(error)) if error.is_lock_timeout() => {
                tracing::warn!(%error, cursor = follower.cursor().0, "is not brought up to date: what is newest may be missing");
                return Ok(follower.known().get());
            }
            taken => taken?,
        };
        follower.known().note(reached);
        if reached >= until {
            return Ok(until);
        }
        if begun.elapsed() >= patience {
            tracing::warn!(cursor = follower.cursor().0, "lags behind the log: what is newest may be missing");
            return Ok(reached);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Engine, testing};

    const CURSOR: Cursor = Cursor::new("search");
    const EARLIER: Mover = Mover::Holder(Epoch(3));
    const LATER: Mover = Mover::Holder(Epoch(4));

    async fn advance(db: &Db, from: i64, until: i64, mover: Mover) -> bool {
        let mut tx = db.begin().await.unwrap();
        let moved = CURSOR.advance(&mut tx, Position(from), Position(until), mover).await.unwrap();
        tx.commit().await.unwrap();
        moved
    }

    #[tokio::test]
    async fn whoever_has_lost_the_lease_moves_nothing() {
        for database in testing::databases().await {
            let db = database.db();
            let position = async || CURSOR.position(&mut db.read().await.unwrap()).await.unwrap();
            let claim = async |epoch| CURSOR.claim(&mut db.begin().await.unwrap(), Epoch(epoch)).await.unwrap();
            let take = async |epoch| {
                let mut tx = db.begin().await.unwrap();
                let place = CURSOR.claim(&mut tx, Epoch(epoch)).await.unwrap();
                tx.commit().await.unwrap();
                place
            };
            assert_eq!(take(3).await, Some(Position::START));
            assert!(advance(db, 0, 5, EARLIER).await);
            assert_eq!(claim(3).await, Some(Position(5)), "as often as they like");

            // The other takes the cursor over before they have moved it, and the first has noticed nothing.
            assert_eq!(take(4).await, Some(Position(5)));
            assert!(!advance(db, 5, 9, EARLIER).await);
            assert_eq!((position().await, take(3).await), (Position(5), None));
            assert!(advance(db, 5, 6, LATER).await);
            assert!(!advance(db, 6, 7, EARLIER).await && !advance(db, 5, 7, LATER).await);
            // In nobody's name it is moved from where it stands, and stays whose it was.
            assert!(!advance(db, 5, 7, Mover::Anybody).await && advance(db, 6, 7, Mover::Anybody).await);
            assert!(!advance(db, 7, 8, EARLIER).await && advance(db, 7, 8, LATER).await);
            assert_eq!(position().await, Position(8));
            database.close().await;
        }
    }

    /// Their transaction waits for the other's, and finds then that the lease is lost.
    #[tokio::test]
    async fn a_lease_that_is_lost_in_the_middle_of_a_step_undoes_the_step() {
        for database in testing::databases().await {
            let db = database.db();
            if db.engine() == Engine::Sqlite {
                // There one transaction writes at a time.
                database.close().await;
                continue;
            }
            let mut other = db.begin().await.unwrap();
            CURSOR.claim(&mut other, Epoch(4)).await.unwrap();
            let mut tx = db.begin().await.unwrap();
            let (moved, ()) = tokio::join!(
                async { CURSOR.advance(&mut tx, Position(0), Position(5), EARLIER).await.unwrap() },
                async { other.commit().await.unwrap() }
            );
            assert!(!moved);
            drop(tx);
            database.close().await;
        }
    }
}
