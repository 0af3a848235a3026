//! What is written down of sending: the cursors of the buckets, and how it stands with destinations.
//!
//! Each transaction begins with the cursor of its bucket, in the name of the lease. So a node that has lost a lease and has
//! not noticed writes nothing of what it believes. Lock order: the cursor, then rows of destinations.

use std::time::Duration;

use ruma::{OwnedServerName, ServerName};

use super::{
    bucket::Bucket,
    outbox::{CursorStep, LaneKey, Owing},
    queue::QueuedEvent,
};
use crate::{
    db::{Db, Tx},
    error::Result,
    federation::destinations::back_off,
    ground::{
        clock::{Clock, millis},
        position::Position,
        random::Random,
    },
    log::cursor::Mover,
    node::Epoch,
    store::destination::{self, Failure},
};

/// How many characters of the reason for a failure are kept.
const REASON_LENGTH: usize = 500;

/// Writes down what becomes of what is sent.
pub(super) struct Ledger {
    db: Db,
    clock: Clock,
    random: Random,
}

/// Where a bucket stands that is taken over.
pub(super) struct TakenBucket {
    pub(super) position: Position,
    /// Who is owed something, and from where on.
    pub(super) owed: Vec<(OwnedServerName, Position)>,
}

/// What was to be written down was not: the bucket is another node's by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost;

impl Ledger {
    pub(super) fn new(db: Db, clock: Clock, random: Random) -> Self {
        Self { db, clock, random }
    }

    /// Takes buckets over under their leases: none of a bucket that was taken over under a later one.
    pub(super) async fn take_over(&self, buckets: &[(Bucket, Epoch)]) -> Result<Vec<Option<TakenBucket>>> {
        let mut tx = self.db.begin().await?;
        let mut taken = Vec::with_capacity(buckets.len());
        for (bucket, epoch) in buckets {
            let position = bucket.cursor().claim(&mut tx, *epoch).await?;
            taken.push(match position {
                Some(position) => {
                    let owed = destination::list_owed(&mut tx, bucket.number()).await?;
                    Some(TakenBucket { position, owed })
                }
                None => None,
            });
        }
        tx.commit().await?;
        Ok(taken)
    }

    /// A destination could not be reached: it is owed what it has not got, and left alone for a while, which is returned.
    pub(super) async fn fail(&self, key: &LaneKey, owing: &Owing, reason: &str) -> Result<Result<Duration, Lost>> {
        let Some(mut tx) = self.begin(key).await? else { return Ok(Err(Lost)) };
        let server = &*key.server;
        let failures = destination::lock_failures(&mut tx, server).await?.saturating_add(1);
        let (failed_at, pause) = (self.now(), back_off(failures, &self.random));
        let reason: String = reason.chars().take(REASON_LENGTH).collect();
        let retry_at = failed_at.saturating_add(millis(pause));
        let failure = Failure { failures, failed_at, retry_at, reason: &reason };
        destination::note_failure(&mut tx, (server, key.bucket.number()), owing.from, failure).await?;
        insert_departures(&mut tx, owing.departures.iter().map(|event| (server, event))).await?;
        tx.commit().await?;
        Ok(Ok(pause))
    }

    /// A destination is owed something from a place on, which is no failure of its own.
    pub(super) async fn owe(&self, key: &LaneKey, from: Position) -> Result<Result<(), Lost>> {
        let Some(mut tx) = self.begin(key).await? else { return Ok(Err(Lost)) };
        destination::note_owed(&mut tx, (&key.server, key.bucket.number()), from).await?;
        tx.commit().await?;
        Ok(Ok(()))
    }

    /// From where on a destination is still owed something, and, where something was sent to it, that it could be reached.
    /// `departed`: up to where it has got what it was owed one by one.
    pub(super) async fn settle(
        &self,
        key: &LaneKey,
        from: Option<Position>,
        is_reached: bool,
        departed: Option<Position>,
    ) -> Result<Result<(), Lost>> {
        let Some(mut tx) = self.begin(key).await? else { return Ok(Err(Lost)) };
        let server = &*key.server;
        destination::set_owed(&mut tx, server, from).await?;
        if is_reached {
            destination::set_reached(&mut tx, server, self.now()).await?;
        }
        if let Some(until) = departed {
            destination::delete_owed_events(&mut tx, server, until).await?;
        }
        tx.commit().await?;
        Ok(Ok(()))
    }

    /// Moves cursors, each as far as everything before has arrived or follows from rows. Returns the buckets that are
    /// another node's by now, of which nothing is written.
    pub(super) async fn step(&self, steps: &[CursorStep]) -> Result<Vec<Bucket>> {
        let (mut lost, now) = (Vec::new(), self.now());
        let mut tx = self.db.begin().await?;
        for CursorStep { bucket, epoch, from, until, departures, reached, .. } in steps {
            if !bucket.cursor().advance(&mut tx, *from, *until, Mover::Holder(*epoch)).await? {
                lost.push(*bucket);
                continue;
            }
            insert_departures(&mut tx, departures.iter().map(|(server, event)| (&**server, event))).await?;
            let reached: Vec<(&ServerName, i64)> = reached.iter().map(|server| (&**server, bucket.number())).collect();
            destination::note_successes(&mut tx, &reached, now).await?;
        }
        tx.commit().await?;
        Ok(lost)
    }

    /// Who is owed something in some buckets and may be tried now.
    pub(super) async fn list_due(&self, buckets: &[Bucket], limit: i64) -> Result<Vec<OwnedServerName>> {
        let numbers: Vec<i64> = buckets.iter().map(|bucket| bucket.number()).collect();
        Ok(destination::list_due(&mut self.db.read().await?, &numbers, self.now(), limit).await?)
    }

    /// None where the bucket is another node's by now.
    async fn begin(&self, key: &LaneKey) -> Result<Option<Tx>> {
        let mut tx = self.db.begin().await?;
        let position = key.bucket.cursor().claim(&mut tx, key.epoch).await?;
        Ok(position.map(|_| tx))
    }

    /// Milliseconds since the Unix epoch.
    fn now(&self) -> i64 {
        self.clock.now().get().into()
    }
}

/// Events that destinations are owed one by one.
async fn insert_departures<'a>(
    tx: &mut Tx,
    departures: impl Iterator<Item = (&'a ServerName, &'a QueuedEvent)>,
) -> Result<()> {
    let rows: Vec<_> = departures.map(|(server, event)| (server, event.at, event.pdu.event_id())).collect();
    if !rows.is_empty() {
        destination::insert_owed_events(tx, &rows).await?;
    }
    Ok(())
}
