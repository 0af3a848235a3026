//! Sending to other servers what happens in rooms that they are in.
//!
//! No row says what is still to be sent: it follows from the log. Destinations are dealt with in 16 buckets (`bucket.rs`).
//! Each is a duty of one node, and has a durable cursor: everything up to there has been delivered, or is noted as owed to
//! whoever could not be reached. The log is read from there on (`route.rs`) into queues in memory (`outbox.rs`), one for
//! each destination that has anything to get, and these are sent one transaction after the other (`deliver.rs`). Whoever was
//! away is sent the newest events of the rooms in which anything happened (`catch_up.rs`).
//!
//! What is sent twice does no harm: events are known by their identifiers. So a node may die at any time, and a bucket may
//! have two holders for a moment. Cursors and standings are written only in the name of the newest lease (`ledger.rs`).
//!
//! A cursor is written every few seconds while its bucket sends anything, else now and then, so that messages cost no
//! commit of their own, and pruning is not held up.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#transactions>

mod bucket;
mod catch_up;
mod deliver;
mod ledger;
mod outbox;
mod outgoing;
mod queue;
mod route;
#[cfg(test)]
mod tests;
mod transaction;
mod trouble;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    time::{Instant, MissedTickBehavior, interval},
};

use self::{
    bucket::Bucket,
    ledger::Ledger,
    outbox::{LaneKey, Outbox},
    transaction::Carrier,
};
use crate::{
    db::Db,
    edge::metrics::Metrics,
    error::Result,
    federation::remote::Remote,
    ground::{clock::Clock, random::Random, tasks::Tasks},
    node::{Duty, Epoch, Nodes},
    room::Rooms,
};

/// How often it is looked which buckets are this node's, and who may be tried again.
const LOOK: Duration = Duration::from_secs(1);
/// How often the cursors of buckets are written that send something, and of all others.
const WRITE: Duration = Duration::from_secs(5);
const WRITE_ALL: Duration = Duration::from_mins(1);
/// By how many entries a cursor lags at most before it is written although nothing was sent.
const MOST_UNWRITTEN: i64 = 2_000;
/// How long to wait after the database has failed.
const PAUSE: Duration = Duration::from_secs(2);
/// How many transactions are on their way at once.
const TRANSACTIONS_AT_ONCE: usize = 256;
/// How many destinations catch up at once: after a start, or a long outage of this server, they come back one after the
/// other.
const CATCH_UPS_AT_ONCE: usize = 32;
/// How many destinations are looked at that may be tried again.
const LOOKED_AT: i64 = 500;

/// Sends to other servers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct FederationSender(Arc<Inner>);

struct Inner {
    db: Db,
    rooms: Rooms,
    clock: Clock,
    random: Random,
    metrics: Metrics,
    tasks: Tasks,
    carrier: Arc<dyn Carrier>,
    outbox: Outbox,
    ledger: Ledger,
    /// One for each transaction that may be on its way.
    places: Semaphore,
    /// Whether anybody is tried again. Where federation is off, it is only noted who is owed what.
    is_enabled: bool,
}

/// When cursors were last written: of those that send something, and all.
struct LastWritten {
    some: Instant,
    all: Instant,
}

impl FederationSender {
    /// Starts to send, wherever it is this node's duty.
    pub(crate) async fn start(
        (db, rooms, clock, random): (Db, Rooms, Clock, Random),
        (metrics, remote): (Metrics, Remote),
        is_enabled: bool,
        nodes: &Nodes,
        tasks: &Tasks,
    ) -> Result<()> {
        let mut duties = Vec::new();
        for bucket in Bucket::all() {
            duties.push((bucket, nodes.duty(bucket.name()).await?));
        }
        let carrier = Arc::new(remote);
        let sender = Self::new((db, rooms, clock, random), (metrics, tasks.clone()), carrier, is_enabled);
        tasks.spawn("federation sender", sender.run(duties));
        Ok(())
    }

    fn new(
        (db, rooms, clock, random): (Db, Rooms, Clock, Random),
        (metrics, tasks): (Metrics, Tasks),
        carrier: Arc<dyn Carrier>,
        is_enabled: bool,
    ) -> Self {
        let ledger = Ledger::new(db.clone(), clock.clone(), random.clone());
        let (outbox, places) = (Outbox::default(), Semaphore::new(TRANSACTIONS_AT_ONCE));
        let inner = Inner { db, rooms, clock, random, metrics, tasks, carrier, outbox, ledger, places, is_enabled };
        Self(Arc::new(inner))
    }

    /// Sends until the server stops.
    async fn run(self, duties: Vec<(Bucket, Duty)>) {
        let shutdown = self.0.tasks.shutdown().clone();
        let mut steps = self.0.rooms.log().tail().watch();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = LastWritten { some: Instant::now(), all: Instant::now() };
        loop {
            let looked = tokio::select! {
                () = shutdown.started() => break,
                changed = steps.changed() => changed.map_err(crate::error::Error::broken),
                _ = looks.tick() => self.look(&duties, &mut last).await,
            };
            if let Err(error) = looked.and(self.send_news().await) {
                tracing::warn!(%error, "what other servers have to get could not be worked out; trying again");
                tokio::select! {
                    () = shutdown.started() => break,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
        // So that the next start repeats as little as possible.
        if let Err(error) = self.write_cursors(|_| true).await {
            tracing::warn!(%error, "how far other servers have got everything could not be written down");
        }
    }

    /// What is done now and then.
    async fn look(&self, duties: &[(Bucket, Duty)], last: &mut LastWritten) -> Result<()> {
        self.hold(duties.iter().map(|(bucket, duty)| (*bucket, duty.epoch()))).await?;
        self.spawn_all(self.wake().await?);
        if last.all.elapsed() >= WRITE_ALL {
            self.write_cursors(|_| true).await?;
            (last.some, last.all) = (Instant::now(), Instant::now());
        } else if last.some.elapsed() >= WRITE {
            let is_far = |step: &outbox::CursorStep| step.until.0.saturating_sub(step.from.0) >= MOST_UNWRITTEN;
            self.write_cursors(|step| step.is_urgent() || is_far(step)).await?;
            last.some = Instant::now();
        }
        let counts = self.0.outbox.counts();
        self.0.metrics.set_federation_destinations(counts.live, counts.catching_up, counts.owed);
        self.0.metrics.set_federation_queued(counts.queued);
        Ok(())
    }

    /// Has everything be sent that is new in the log.
    async fn send_news(&self) -> Result<()> {
        while let Some(woken) = self.route().await? {
            self.spawn_all(woken);
        }
        Ok(())
    }

    /// Takes buckets over that have become this node's, and gives up those that are no longer.
    async fn hold(&self, epochs: impl Iterator<Item = (Bucket, Option<Epoch>)>) -> Result<()> {
        let mut new = Vec::new();
        for (bucket, epoch) in epochs {
            let held = self.0.outbox.epoch(bucket);
            if held.is_some() && held != epoch {
                self.0.outbox.give_up(bucket);
            }
            new.extend(epoch.filter(|_| held != epoch).map(|epoch| (bucket, epoch)));
        }
        if new.is_empty() {
            return Ok(());
        }
        let taken = self.0.ledger.take_over(&new).await?;
        for (held, taken) in new.into_iter().zip(taken) {
            // Otherwise a later holder was there already, which this node will notice.
            if let Some(taken) = taken {
                self.0.outbox.take_over(held, taken.position, taken.owed);
            }
        }
        Ok(())
    }

    /// Those who are owed something and may be tried again, not too many at once.
    async fn wake(&self) -> Result<Vec<LaneKey>> {
        let owing = self.0.outbox.list_owing();
        if owing.is_empty() || !self.0.is_enabled {
            return Ok(Vec::new());
        }
        let under_way = self.0.outbox.counts().catching_up;
        let due = self.0.ledger.list_due(&owing, LOOKED_AT).await?;
        let woken = due.iter().filter_map(|server| self.0.outbox.wake(server));
        Ok(woken.take(CATCH_UPS_AT_ONCE.saturating_sub(under_way)).collect())
    }

    /// Moves the cursors of which that is wanted.
    async fn write_cursors(&self, is_wanted: impl Fn(&outbox::CursorStep) -> bool) -> Result<()> {
        let mut steps = self.0.outbox.steps();
        steps.retain(is_wanted);
        if steps.is_empty() {
            return Ok(());
        }
        let lost = self.0.ledger.step(&steps).await?;
        for step in &steps {
            if lost.contains(&step.bucket) {
                self.0.outbox.give_up(step.bucket);
            } else {
                self.0.outbox.stepped(step);
            }
        }
        Ok(())
    }
}
