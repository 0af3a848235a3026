//! The group committer: one task that merges what many requests want to write into one transaction.
//!
//! A request is answered after its batch is durable and this node has read it. Positions are assigned under
//! a lock that is held until the commit is visible, so that they are dense and nobody sees a later one first.
//!
//! Only one batch of this node is on its way at a time, because [`Committer::run`] awaits each. What comes in meanwhile
//! waits in the queue and makes the next batch larger: the slower the disk, the more is written at once. Transactions
//! of [`Log::commit`] run beside it and meet it at the log's lock.
//!
//! If the process dies before COMMIT, nothing of the batch is there and nobody was answered. If it dies after, the
//! batch is there, other nodes read it, and a client that sends again is recognised by its transaction id.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout_at},
};

use super::{
    judge::{Judged, Judgement, OverQuota, find_over_quota, judge},
    kind::typing::list_begun,
    marks::{Older, READ_AT_START, Recent},
    refresh::Refresher,
    replay,
    tail::Tail,
    writable::Writable,
    write::{NewBatch, write},
};
use crate::{
    db::{Db, DbError, DbResult, Engine, Tx},
    edge::{hub::Hub, metrics::Metrics},
    event::fact::{Batch, Write},
    ground::{
        position::{Mark, Position},
        random::Random,
        tasks::Tasks,
    },
    store,
};

/// A batch is closed at this many entries, or at what takes as long to write. Measured: beyond 400 the time to commit
/// grows with the batch.
const MAX_ENTRIES: usize = 400;
/// Writes that may wait before the next is turned away.
const QUEUE: usize = 16_384;
/// For how long it is found out whether a batch is there whose commit broke.
const DOUBT: Duration = Duration::from_secs(8);

/// The way into the log. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    /// What is submitted, in the order of submission. A room's events are submitted under that room's lock, so they are
    /// queued in the order in which they were built on each other.
    queue: mpsc::Sender<Job>,
    pub(super) committer: Arc<Committer>,
    pub(super) tasks: Tasks,
    pub(super) tail: Arc<Tail>,
    refresher: Arc<Refresher>,
    pub(super) db: Db,
    /// A cache of places that were looked up for tokens, shared by all clones.
    pub(super) older: Arc<Older>,
}

/// What became of one write. An error never means that a part of it was written.
pub(super) type WriteVerdict = Result<Committed, CommitError>;
/// What became of each write, in order, and the batch that was committed, if any write was accepted.
type Attempted = (Vec<WriteVerdict>, Option<Batch>);

/// A write in the queue, and where its verdict goes.
struct Job {
    write: Write,
    reply: oneshot::Sender<WriteVerdict>,
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
    /// The request has been made before, and what it sends was sent.
    #[error("already sent")]
    Repeated,
    /// The sender has annotated the event with the same before.
    #[error("already annotated with this")]
    DuplicateAnnotation,
    /// The alias that was to be added names a room already, perhaps since an earlier write of this batch.
    #[error("the alias is taken")]
    AliasTaken,
    /// The alias that was to be removed names no room any more, or another.
    #[error("the alias is gone")]
    AliasGone,
    /// What the write was to replace, or was copied from, has changed: read it again and build on that.
    #[error("somebody else changed it at the same moment")]
    Conflict,
    /// Somebody would come into a room whose account has been ended.
    #[error("the account of {0} has been deactivated")]
    Deactivated(OwnedUserId),
    /// The user would have more of something than they may.
    #[error("{message}")]
    OverQuota { message: String, info_uri: Arc<str> },
    /// Nothing was written, or it is unknown whether it was.
    #[error("the database failed: {0}")]
    Unavailable(Arc<DbError>),
    /// The queue is full. Nothing was written.
    #[error("too many writes are waiting")]
    Busy,
    /// The committer has ended or has panicked: whether the write took place is known only from the database.
    #[error("the server is stopping")]
    Closed,
}

/// For callers that don't handle a verdict themselves. `Stale` and `Duplicate` are answered where events are built,
/// and `Repeated` where messages are sent to devices, which is why they are not refusals here: whoever lets one through can only ask the client to try again.
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
            CommitError::Conflict => Self::Conflict,
            CommitError::Deactivated(user_id) => Self::forbidden(format!(
                "The account of {user_id} has been deactivated: they can't be in a room any more"
            )),
            CommitError::OverQuota { message, info_uri } => Self::over_quota(message, &info_uri),
            CommitError::Unavailable(e) if !e.is_unavailable() => Self::broken(e),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// A write that has its place in the queue: those submitted later come after it.
#[must_use = "a write is only durable once this has been awaited"]
pub struct Submitted {
    /// An error where the write never got into the queue.
    answer: Result<oneshot::Receiver<WriteVerdict>, CommitError>,
    tail: Arc<Tail>,
}

impl Submitted {
    /// Waits until the write is durable and this node's readers have read it. Dropping this future does not take the
    /// write back: it is committed all the same.
    pub async fn committed(self) -> Result<Committed, CommitError> {
        let committed = self.answer?.await.unwrap_or(Err(CommitError::Closed))?;
        self.tail.wait_for(committed.last).await;
        Ok(committed)
    }
}

impl Log {
    /// Starts the committer and the follower of other nodes' batches. `tail` must have its readers by then: they are
    /// handed everything after the end of the log that is looked up here. What was written before, they read from the
    /// database.
    pub async fn start(
        db: Db,
        tail: Arc<Tail>,
        random: Random,
        metrics: Metrics,
        hub: Hub,
        tasks: &Tasks,
    ) -> DbResult<Self> {
        // The end of the log and the marks come from one statement, so that no batch lies between the two.
        let newest = store::log::newest_batches(&mut db.read().await?, READ_AT_START).await?;
        let last = newest.last().map_or(Position::START, |(_, last, _)| *last);
        tail.start_at(last, Recent::new(newest));
        let (queue, jobs) = mpsc::channel(QUEUE);
        let writable = Writable::new(db.clone());
        let committer = Arc::new(Committer {
            db: db.clone(),
            tail: Arc::clone(&tail),
            random,
            metrics,
            hub: hub.clone(),
            writable,
        });
        tasks.spawn_essential("log committer", Arc::clone(&committer).run(jobs));
        tasks.spawn_essential(
            "log follower",
            replay::follow(db.clone(), Arc::clone(&tail), hub, tasks.shutdown().clone()),
        );
        let refresher = Arc::new(Refresher::new(db.clone(), Arc::clone(&tail)));
        Ok(Self { queue, committer, tasks: tasks.clone(), tail, refresher, db, older: Arc::default() })
    }

    pub fn tail(&self) -> &Arc<Tail> {
        &self.tail
    }

    /// Waits until this node has read whatever has been committed before now, on whichever node. Fails with
    /// `Unavailable` if the database does not answer within five seconds, or this node has not read so far within five
    /// more.
    pub async fn refresh(&self) -> Result<(), crate::error::Error> {
        self.refresher.refresh().await
    }

    /// Whether the log can be written, tried within little more than two seconds unless something was written just now.
    pub(crate) async fn is_writable(&self) -> bool {
        self.committer.writable.try_out().await
    }

    /// Queues a write. Its place among other writes is decided here, not when the answer is awaited. Never waits. A
    /// full queue is an error at once ([`CommitError::Busy`]), because a caller may hold a room's lock.
    pub fn submit(&self, write: Write) -> Submitted {
        let (reply, answer) = oneshot::channel();
        let answer = match self.queue.try_send(Job { write, reply }) {
            Ok(()) => Ok(answer),
            Err(mpsc::error::TrySendError::Full(_)) => Err(CommitError::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(CommitError::Closed),
        };
        Submitted { answer, tail: Arc::clone(&self.tail) }
    }

    /// Queues a write and waits for it. For whoever doesn't care what is queued before or after it.
    pub async fn append(&self, write: Write) -> Result<Committed, CommitError> {
        self.submit(write).committed().await
    }

    /// Refuses a write that goes beyond a quota as things stand, before something is done for it that can't be undone. The
    /// judge looks again.
    pub async fn check_quotas(&self, write: &Write) -> Result<(), crate::error::Error> {
        match find_over_quota(&mut self.db.read().await?, write).await? {
            Some(OverQuota { message, info_uri }) => Err(CommitError::OverQuota { message, info_uri }.into()),
            None => Ok(()),
        }
    }
}

/// Commits batches and hands them to the readers.
pub(super) struct Committer {
    db: Db,
    tail: Arc<Tail>,
    random: Random,
    metrics: Metrics,
    hub: Hub,
    writable: Writable,
}

impl Committer {
    /// Runs until every [`Log`] is dropped. A write is never cut, so a batch may exceed [`MAX_ENTRIES`] by the length
    /// of its last write less one. Nothing waits for a batch to fill up: whoever writes alone is written at once.
    async fn run(self: Arc<Self>, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.recv().await {
            let mut entries = first.write.load();
            let mut batch = vec![first];
            while entries < MAX_ENTRIES
                && let Ok(job) = jobs.try_recv()
            {
                entries += job.write.load();
                batch.push(job);
            }
            self.commit(batch).await;
        }
    }

    /// Commits one batch, and answers everybody in it only after the readers of this node have been handed it.
    async fn commit(&self, jobs: Vec<Job>) {
        let started = Instant::now();
        let (writes, replies): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| (job.write, job.reply)).unzip();
        let verdicts = match self.attempt(&writes).await {
            // One write that the database can't take must not take the others with it.
            Err(error) if writes.len() > 1 && !error.is_unavailable() => {
                // Nothing of the batch was written, so no write is made twice. Where the database is unavailable each
                // single write would fail in the same way, after a wait of its own.
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

    /// Hands the readers what was committed, and makes a database's failure everybody's verdict.
    pub(super) fn verdicts(
        &self,
        attempted: DbResult<Attempted>,
        writes: usize,
        started: Instant,
    ) -> Vec<WriteVerdict> {
        match attempted {
            Ok((verdicts, batch)) => {
                if let Some(batch) = batch {
                    self.writable.note_success();
                    self.metrics.batch_committed(batch.news.len(), started.elapsed());
                    let last = batch.last;
                    // Before the answer, and before other nodes hear of it: whoever asks here next finds it.
                    self.tail.publish(Arc::new(batch));
                    self.hub.announce(last);
                }
                verdicts
            }
            Err(error) => {
                tracing::error!(%error, writes, "a batch was not committed");
                if error.is_unavailable() {
                    self.writable.note_failure();
                }
                vec![Err(CommitError::Unavailable(Arc::new(error))); writes]
            }
        }
    }

    async fn attempt(&self, writes: &[Write]) -> DbResult<Attempted> {
        self.attempt_in(self.db.begin().await?, writes).await
    }

    /// Ends a transaction. Writes that can't be part of it get their verdict, the rest is committed. If all drop out, so
    /// does whatever else was done in it. Two writes of one batch are judged one after the other, so that one may be
    /// built on an event of the other.
    pub(super) async fn attempt_in(&self, mut tx: Tx, writes: &[Write]) -> DbResult<Attempted> {
        // The rooms' rows first, which a slow writer elsewhere may hold: nobody else is to wait for that behind the
        // log's lock, which the judge takes after them.
        let Judged { judgements, rooms, holdings, deliveries } = judge(&mut tx, writes).await?;
        // Everybody waits, so that what depends on nobody writing meanwhile is asked at once.
        let (typed_in, typists) = list_begun(writes);
        let (mut last, joined) = store::log::last_position_and_joined(&mut tx, &typed_in, &typists).await?;
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
                Judgement::Repeated => Err(CommitError::Repeated),
                Judgement::DuplicateAnnotation => Err(CommitError::DuplicateAnnotation),
                Judgement::AliasTaken => Err(CommitError::AliasTaken),
                Judgement::AliasGone => Err(CommitError::AliasGone),
                Judgement::Conflict => Err(CommitError::Conflict),
                Judgement::Deactivated(user_id) => Err(CommitError::Deactivated(user_id)),
                Judgement::OverQuota(OverQuota { message, info_uri }) => {
                    Err(CommitError::OverQuota { message, info_uri })
                }
            });
        }
        if accepted.is_empty() {
            return Ok((verdicts, None));
        }
        // A dropped transaction is rolled back, and the locks are gone with it. Up to here no position was used up, so
        // none is left empty.
        let batch_id = self.random.token(16);
        let batch = NewBatch { id: &batch_id, first, writes: &accepted, rooms, joined, deliveries: &deliveries };
        let news = write(&mut tx, batch).await?;
        holdings.write(&mut tx).await?;
        self.make_durable(tx, &batch_id).await?;
        for (user_id, device_id) in deliveries.full() {
            self.metrics.to_device_inbox_full(user_id, device_id);
        }
        Ok((verdicts, Some(Batch { first, last, mark: Mark::of(&batch_id), news })))
    }

    /// Commits. Where the connection broke at that very moment, it is looked up by the batch's id whether it took place.
    /// At most [`DOUBT`] is spent on that, in which no other batch is taken from the queue. If it is still unknown then,
    /// the writers are answered that the database is unavailable. Should the batch turn out to be there, this node reads
    /// it like one of another node: on SQLite only once its next write leaves a gap before it.
    async fn make_durable(&self, tx: Tx, batch_id: &str) -> DbResult<()> {
        let Err(error) = tx.commit().await else { return Ok(()) };
        let end = tokio::time::Instant::now() + DOUBT;
        let mut pause = Duration::from_millis(50);
        loop {
            match timeout_at(end, self.is_there(batch_id)).await {
                Ok(Ok(true)) => return Ok(()),
                Ok(Ok(false)) | Err(_) => return Err(error),
                Ok(Err(e)) => tracing::warn!(error = %e, "looking for a batch whose commit broke"),
            }
            if timeout_at(end, sleep(pause)).await.is_err() {
                return Err(error);
            }
            pause = (pause * 4).min(Duration::from_secs(1));
        }
    }

    /// Whether a batch is there, and if not, that it never will be: on `PostgreSQL` whoever works for a connection may go
    /// on after it broke, and holds the log's lock until then.
    async fn is_there(&self, batch_id: &str) -> DbResult<bool> {
        match self.db.engine() {
            Engine::Sqlite => store::log::batch_exists(&mut self.db.read().await?, batch_id).await,
            Engine::Postgres => {
                let mut tx = self.db.begin().await?;
                store::log::lock(&mut tx).await?;
                store::log::batch_exists(&mut tx, batch_id).await
            }
        }
    }
}

/// A request that was given up no longer listens, which is fine: its write stands all the same.
fn answer(reply: oneshot::Sender<WriteVerdict>, verdict: WriteVerdict) {
    if reply.send(verdict).is_err() {
        tracing::debug!("nobody waits for this write any more");
    }
}
