//! Transactions on their way into the database. Those that come at the same time are written together.
//!
//! A transaction's row and those of its events are written in one go, so that a repetition is answered as the first one
//! was and adds nothing.

use std::{collections::BTreeMap, sync::Arc};

use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedTransactionId};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::{
    db::{Db, Tx},
    error::{Error, Result},
    ground::{
        clock::Clock,
        tasks::{Shutdown, Tasks},
    },
    store::inbound::{self, NewPdu, NewTransaction},
};

/// What became of a transaction's events: nothing, or why one was not taken.
pub(crate) type Results = BTreeMap<OwnedEventId, Result<(), String>>;

/// How many transactions wait to be written. Whoever comes then waits before that.
const WAITING: usize = 64;
/// How many are written together.
const TOGETHER: usize = 16;
/// More than how many events are written together.
const NUMBERS: i64 = 4_096;

/// A transaction that was looked at.
pub(super) struct Arrival {
    pub(super) origin: OwnedServerName,
    pub(super) id: OwnedTransactionId,
    pub(super) results: Results,
    /// Those that are to be taken in, in their order.
    pub(super) pdus: Vec<ArrivedPdu>,
}

/// An event that was looked at.
pub(super) struct ArrivedPdu {
    pub(super) event_id: OwnedEventId,
    pub(super) room_id: OwnedRoomId,
    pub(super) json: String,
}

/// A transaction that is in the database.
pub(super) struct Taken {
    /// As they were the first time.
    pub(super) results: Results,
    /// Whether this was the first time.
    pub(super) is_new: bool,
}

/// Has transactions written.
pub(super) struct Intake(mpsc::Sender<Waiting>);

struct Waiting {
    arrival: Arrival,
    reply: oneshot::Sender<Result<Taken, Arc<Error>>>,
}

/// The one who writes them.
struct Writer {
    db: Db,
    clock: Clock,
    wake: Arc<Notify>,
    /// The number of the last event.
    last: i64,
}

impl Intake {
    /// `wake` is notified whenever events were written.
    pub(super) fn start((db, clock): (Db, Clock), wake: Arc<Notify>, tasks: &Tasks) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let writer = Writer { db, clock, wake, last: 0 };
        // Requests wait for it.
        tasks.spawn_essential("inbound transactions", writer.write_on(receiver, tasks.shutdown().clone()));
        Self(sender)
    }

    /// Returns once the transaction is in the database.
    pub(super) async fn write(&self, arrival: Arrival) -> Result<Taken> {
        let (reply, replied) = oneshot::channel();
        let gone = |what: String| Error::Unavailable(format!("transactions are not written any more: {what}"));
        self.0.send(Waiting { arrival, reply }).await.map_err(|error| gone(error.to_string()))?;
        replied.await.map_err(|error| gone(error.to_string()))?.map_err(Error::of_shared)
    }
}

impl Writer {
    /// Ends once no request is left. Then nobody waits.
    async fn write_on(mut self, mut receiver: mpsc::Receiver<Waiting>, shutdown: Shutdown) {
        let mut batch = Vec::with_capacity(TOGETHER);
        loop {
            let count = tokio::select! {
                () = shutdown.requests_done() => return,
                count = receiver.recv_many(&mut batch, TOGETHER) => count,
            };
            if count == 0 {
                // Nobody can send any more: the server is going.
                shutdown.requests_done().await;
                return;
            }
            // In the order in which everybody locks them.
            batch.sort_unstable_by(|one, other| one.key().cmp(&other.key()));
            match self.write(&batch).await {
                Ok(taken) => {
                    for (waiting, taken) in batch.drain(..).zip(taken) {
                        waiting.reply(Ok(taken));
                    }
                }
                Err(error) => {
                    let error = Arc::new(error);
                    for waiting in batch.drain(..) {
                        waiting.reply(Err(Arc::clone(&error)));
                    }
                }
            }
            self.wake.notify_one();
        }
    }

    /// All of them, or none.
    async fn write(&mut self, batch: &[Waiting]) -> Result<Vec<Taken>> {
        let now = i64::from(self.clock.now().get());
        let first = now.saturating_mul(NUMBERS).max(self.last.saturating_add(1));
        let mut numbers = first..;
        let mut tx = self.db.begin().await?;
        let (mut taken, mut new) = (Vec::with_capacity(batch.len()), Vec::new());
        for Waiting { arrival, .. } in batch {
            let before = note(&mut tx, arrival, now).await?;
            if before.is_none() {
                new.extend(arrival.pdus.iter().zip(&mut numbers).map(|(pdu, number)| NewPdu {
                    origin: &arrival.origin,
                    event_id: &pdu.event_id,
                    room_id: &pdu.room_id,
                    json: &pdu.json,
                    number,
                }));
            }
            let is_new = before.is_none();
            taken.push(Taken { results: before.unwrap_or_else(|| arrival.results.clone()), is_new });
        }
        inbound::insert(&mut tx, &new, now).await?;
        tx.commit().await?;
        self.last = numbers.start;
        Ok(taken)
    }
}

impl Waiting {
    fn key(&self) -> (&str, &str) {
        (self.arrival.origin.as_str(), self.arrival.id.as_str())
    }

    fn reply(self, taken: Result<Taken, Arc<Error>>) {
        if self.reply.send(taken).is_err() {
            tracing::debug!("a server has gone away before its transaction was acknowledged");
        }
    }
}

/// Writes a transaction down. Where it is known, returns what was answered then.
async fn note(tx: &mut Tx, arrival: &Arrival, now: i64) -> Result<Option<Results>> {
    let reasons: BTreeMap<&OwnedEventId, Option<&String>> =
        arrival.results.iter().map(|(event_id, result)| (event_id, result.as_ref().err())).collect();
    let answer = serde_json::to_string(&reasons).map_err(Error::broken)?;
    let transaction = NewTransaction { origin: &arrival.origin, id: arrival.id.as_str(), answer: &answer };
    if inbound::insert_transaction(tx, &transaction, now).await? {
        return Ok(None);
    }
    let answer = inbound::find_answer(tx, &arrival.origin, arrival.id.as_str()).await?.unwrap_or_default();
    let reasons: BTreeMap<OwnedEventId, Option<String>> = serde_json::from_str(&answer).map_err(Error::broken)?;
    Ok(Some(reasons.into_iter().map(|(event_id, reason)| (event_id, reason.map_or(Ok(()), Err))).collect()))
}
