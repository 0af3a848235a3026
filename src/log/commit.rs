//! The group committer: one task that merges what many requests want to write into one transaction.
//!
//! A request is answered after its batch is durable and this node has read it. Positions are assigned under
//! a lock that is held until the commit is visible, so that they are dense and nobody sees a later one first.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName};
use tokio::sync::{mpsc, oneshot};

use super::{
    Tail,
    judge::{Judged, Judgement, judge},
    marks::{Older, READ_AT_START, Recent},
    refresh::Refresher,
    replay,
    write::{NewBatch, write},
};
use crate::{
    db::{Db, DbError, DbResult, Tx},
    fact::{Batch, Write},
    hub::Hub,
    metrics::Metrics,
    position::{Mark, Position},
    random::Random,
    store,
    tasks::Tasks,
};

/// A batch is closed at this many entries. Measured: beyond 400 the time to commit grows with the batch.
const MAX_ENTRIES: usize = 400;
/// Writes that may wait before the next is turned away.
const QUEUE: usize = 16_384;

/// The way into the log. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    queue: mpsc::Sender<Job>,
    tail: Arc<Tail>,
    refresher: Arc<Refresher>,
    pub(super) db: Db,
    pub(super) older: Arc<Older>,
}

type Verdict = Result<Committed, CommitError>;
type Attempted = (Vec<Verdict>, Option<Batch>);

struct Job {
    write: Write,
    reply: oneshot::Sender<Verdict>,
}

/// Where a write stands in the log.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The place of its last entry.
    pub last: Position,
}

/// Why a write was not committed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// The room has moved on since the event was built: build it again on the new head.
    #[error("room {0} has a newer head")]
    Stale(OwnedRoomId),
    /// The transaction id has been used: this is the event that it made.
    #[error("already sent as {0}")]
    Duplicate(OwnedEventId),
    /// The sender has annotated the event with the same before.
    #[error("already annotated with this")]
    DuplicateAnnotation,
    #[error("the alias is taken")]
    AliasTaken,
    /// The alias that was to be removed names no room any more, or another.
    #[error("the alias is gone")]
    AliasGone,
    /// What the write was to replace has changed: read it again and build on that.
    #[error("somebody else changed it at the same moment")]
    Conflict,
    /// Nothing was written, or it is unknown whether it was.
    #[error("the database failed: {0}")]
    Unavailable(Arc<DbError>),
    #[error("too many writes are waiting")]
    Busy,
    #[error("the server is stopping")]
    Closed,
}

impl From<CommitError> for crate::error::Error {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::AliasTaken => {
                Self::refused(ruma::api::error::ErrorKind::RoomInUse, "The alias already names a room")
            }
            CommitError::DuplicateAnnotation => Self::refused(
                ruma::api::error::ErrorKind::DuplicateAnnotation,
                "You have already annotated the event with this",
            ),
            CommitError::AliasGone => Self::not_found("The alias does not name this room any more"),
            CommitError::Unavailable(e) if !e.is_unavailable() => Self::broken(e),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// A write that has its place in the queue: those submitted later come after it.
#[must_use = "a write is only durable once this has been awaited"]
pub struct Submitted {
    answer: Result<oneshot::Receiver<Verdict>, CommitError>,
    tail: Arc<Tail>,
}

impl Submitted {
    /// Waits until the write is durable and this node's readers have been told.
    pub async fn committed(self) -> Result<Committed, CommitError> {
        let committed = self.answer?.await.unwrap_or(Err(CommitError::Closed))?;
        self.tail.wait_for(committed.last).await;
        Ok(committed)
    }
}

impl Log {
    /// Starts the committer and the follower of other nodes' batches.
    pub async fn start(
        db: Db,
        tail: Arc<Tail>,
        server_name: OwnedServerName,
        random: Random,
        metrics: Metrics,
        hub: Hub,
        tasks: &Tasks,
    ) -> DbResult<Self> {
        let newest = store::log::newest_batches(&mut db.read().await?, READ_AT_START).await?;
        let last = newest.last().map_or(Position::START, |(_, last, _)| *last);
        tail.start_at(last, Recent::new(newest));
        let (queue, jobs) = mpsc::channel(QUEUE);
        let committer =
            Committer { db: db.clone(), tail: Arc::clone(&tail), server_name, random, metrics, hub: hub.clone() };
        tasks.spawn_essential("log committer", committer.run(jobs));
        tasks.spawn("log follower", replay::follow(db.clone(), Arc::clone(&tail), hub, tasks.shutdown().clone()));
        let refresher = Arc::new(Refresher::new(db.clone(), Arc::clone(&tail)));
        Ok(Self { queue, tail, refresher, db, older: Arc::default() })
    }

    pub fn tail(&self) -> &Arc<Tail> {
        &self.tail
    }

    /// Waits until this node has read whatever has been committed before now, on whichever node.
    pub async fn refresh(&self) -> Result<(), crate::error::Error> {
        self.refresher.refresh().await
    }

    /// Queues a write. Its place among other writes is decided here, not when the answer is awaited.
    pub fn submit(&self, write: Write) -> Submitted {
        let (reply, answer) = oneshot::channel();
        let answer = match self.queue.try_send(Job { write, reply }) {
            Ok(()) => Ok(answer),
            Err(mpsc::error::TrySendError::Full(_)) => Err(CommitError::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(CommitError::Closed),
        };
        Submitted { answer, tail: Arc::clone(&self.tail) }
    }

    /// Queues a write and waits for it.
    pub async fn append(&self, write: Write) -> Result<Committed, CommitError> {
        self.submit(write).committed().await
    }
}

struct Committer {
    db: Db,
    tail: Arc<Tail>,
    server_name: OwnedServerName,
    random: Random,
    metrics: Metrics,
    hub: Hub,
}

impl Committer {
    /// Runs until every [`Log`] is dropped.
    async fn run(self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.recv().await {
            let mut entries = first.write.len();
            let mut batch = vec![first];
            while entries < MAX_ENTRIES
                && let Ok(job) = jobs.try_recv()
            {
                entries += job.write.len();
                batch.push(job);
            }
            self.commit(batch).await;
        }
    }

    async fn commit(&self, jobs: Vec<Job>) {
        let started = Instant::now();
        let (writes, replies): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| (job.write, job.reply)).unzip();
        let verdicts = match self.attempt(&writes).await {
            // One write that the database can't take must not take the others with it.
            Err(error) if writes.len() > 1 && !error.is_unavailable() => {
                tracing::warn!(%error, "a batch was refused: its writes are tried one by one");
                let mut verdicts = Vec::with_capacity(writes.len());
                for write in &writes {
                    verdicts.extend(self.verdicts(self.attempt(std::slice::from_ref(write)).await, 1, started));
                }
                verdicts
            }
            attempted => self.verdicts(attempted, writes.len(), started),
        };
        for (reply, verdict) in replies.into_iter().zip(verdicts) {
            answer(reply, verdict);
        }
    }

    /// Tells the readers what was committed, and makes a database's failure everybody's verdict.
    fn verdicts(&self, attempted: DbResult<Attempted>, writes: usize, started: Instant) -> Vec<Verdict> {
        match attempted {
            Ok((verdicts, batch)) => {
                if let Some(batch) = batch {
                    self.metrics.batch_committed(batch.news.len(), started.elapsed());
                    let last = batch.last;
                    self.tail.publish(Arc::new(batch));
                    self.hub.announce(last);
                }
                verdicts
            }
            Err(error) => {
                tracing::error!(%error, writes, "a batch was not committed");
                vec![Err(CommitError::Unavailable(Arc::new(error))); writes]
            }
        }
    }

    /// One transaction. Writes that can't be part of it get their verdict, the rest is committed.
    async fn attempt(&self, writes: &[Write]) -> DbResult<Attempted> {
        let mut tx = self.db.begin().await?;
        let Judged { judgements, rooms } = judge(&mut tx, writes).await?;
        store::log::lock(&mut tx).await?;
        let mut last = store::log::last_position(&mut tx).await?;
        let first = last.next();
        let mut verdicts = Vec::with_capacity(writes.len());
        let mut accepted = Vec::with_capacity(writes.len());
        for (write, judgement) in writes.iter().zip(judgements) {
            verdicts.push(match judgement {
                Judgement::Accepted => {
                    last = Position(last.0 + i64::try_from(write.len()).unwrap_or(i64::MAX));
                    accepted.push(write);
                    Ok(Committed { last })
                }
                Judgement::Stale(room_id) => Err(CommitError::Stale(room_id)),
                Judgement::Duplicate(event_id) => Err(CommitError::Duplicate(event_id)),
                Judgement::DuplicateAnnotation => Err(CommitError::DuplicateAnnotation),
                Judgement::AliasTaken => Err(CommitError::AliasTaken),
                Judgement::AliasGone => Err(CommitError::AliasGone),
                Judgement::Conflict => Err(CommitError::Conflict),
            });
        }
        if accepted.is_empty() {
            return Ok((verdicts, None));
        }
        let batch_id = self.random.token(16);
        let batch = NewBatch { id: &batch_id, first, writes: &accepted, rooms, here: &self.server_name };
        let news = write(&mut tx, batch).await?;
        self.make_durable(tx, &batch_id).await?;
        Ok((verdicts, Some(Batch { first, last, mark: Mark::of(&batch_id), news })))
    }

    /// Commits. Where the connection broke at that very moment, the batch's id tells whether it took place.
    async fn make_durable(&self, tx: Tx, batch_id: &str) -> DbResult<()> {
        let Err(error) = tx.commit().await else { return Ok(()) };
        for pause in [50, 200, 500, 1_000, 2_000, 4_000] {
            let found = match self.db.read().await {
                Ok(mut conn) => store::log::batch_exists(&mut conn, batch_id).await,
                Err(e) => Err(e),
            };
            match found {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(error),
                Err(e) => tracing::warn!(error = %e, "looking for a batch whose commit broke"),
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        Err(error)
    }
}

/// A request that was given up no longer listens, which is fine: its write stands all the same.
fn answer(reply: oneshot::Sender<Verdict>, verdict: Verdict) {
    if reply.send(verdict).is_err() {
        tracing::debug!("nobody waits for this write any more");
    }
}
