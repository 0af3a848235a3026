//! What other servers send: transactions of events, and of what is not kept.
//!
//! 1. [`Inbox::receive`] looks at each event of a transaction as far as that is cheap (`judge.rs`): whether it can be read,
//!    is of a room that this server is in, and comes from a server that may send there. Those that pass are in the database
//!    before the transaction is acknowledged (`intake.rs`).
//! 2. A node takes a room with events that wait (`claim.rs`): the room's preferred one, any other if that does not come.
//!    What a node that has died had taken is taken by others.
//! 3. It takes in the room's events, one after the other (`turn.rs`): signatures, what is missing of the event's past, and
//!    then all else that [`crate::room::Rooms`] checks (`take_in.rs`). What can't be taken in now is tried again later, and
//!    holds up nobody. Rooms that have to wait for other servers make way for those that have not (`lanes.rs`).
//!
//! Two nodes that take in the same event do no harm, and neither does one that does so again after a crash: the second
//! time, the event is known.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1sendtxnid>

mod claim;
mod edu;
mod intake;
mod judge;
mod lanes;
mod take_in;
#[cfg(test)]
mod tests;
mod turn;

use std::{collections::HashSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use ruma::{
    OwnedRoomId, OwnedTransactionId, ServerName, TransactionId, api::federation::transactions::edu::Edu, serde::Raw,
};
use serde_json::value::RawValue;
use tokio::sync::Notify;

pub(crate) use self::intake::Results;
use self::{
    intake::{Arrival, Intake},
    lanes::Lanes,
};
use super::fetcher::Fetcher;
use crate::{
    db::{Db, Engine},
    edge::metrics::Metrics,
    error::{Error, Result},
    ground::{clock::Clock, tasks::Tasks},
    log::Ground,
    node::Nodes,
    room::Rooms,
    store::inbound,
};

/// How many events a transaction may have, and how much else.
///
/// <https://spec.matrix.org/v1.19/server-server-api/#transactions>
const MOST_PDUS: usize = 50;
const MOST_EDUS: usize = 100;
/// In bytes.
const MAX_TRANSACTION_ID: usize = 255;
/// How many events of one server may wait. One that sends more is asked to wait itself.
const MOST_WAITING: i64 = 5_000;
/// For how long it is asked to.
const WAIT: Duration = Duration::from_secs(30);

/// What comes from other servers by itself. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Inbox(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Clock,
    nodes: Nodes,
    tasks: Tasks,
    metrics: Metrics,
    rooms: Rooms,
    fetcher: Fetcher,
    intake: Intake,
    lanes: Lanes,
    /// Something may be there to be taken in.
    wake: Arc<Notify>,
    /// The rooms that this node is at work on.
    at_work: Mutex<HashSet<OwnedRoomId>>,
}

/// What a server sends at once.
pub(crate) struct Transaction {
    pub(crate) id: OwnedTransactionId,
    /// Of which nothing is known.
    pub(crate) pdus: Vec<Box<RawValue>>,
    pub(crate) edus: Vec<Raw<Edu>>,
}

impl Inbox {
    /// Takes transactions, and takes in whatever waits, until the server stops.
    pub(crate) fn start(ground: &Ground, rooms: Rooms, fetcher: Fetcher) -> Self {
        let inbox = Self::new(ground, rooms, fetcher);
        let shutdown = ground.tasks.shutdown().clone();
        ground.tasks.spawn("inbound rooms", inbox.clone().look_on(shutdown));
        inbox
    }

    /// Nothing is taken in until somebody looks for it.
    fn new(ground: &Ground, rooms: Rooms, fetcher: Fetcher) -> Self {
        let Ground { db, clock, nodes, tasks, metrics, .. } = ground;
        let wake = Arc::new(Notify::new());
        let intake = Intake::start((db.clone(), clock.clone()), Arc::clone(&wake), tasks);
        Self(Arc::new(Inner {
            db: db.clone(),
            clock: clock.clone(),
            nodes: nodes.clone(),
            tasks: tasks.clone(),
            metrics: metrics.clone(),
            rooms,
            fetcher,
            intake,
            lanes: Lanes::default(),
            wake,
            at_work: Mutex::default(),
        }))
    }

    /// Receives a transaction, and returns for each of its events that has an identifier whether it was taken, or why not.
    /// From then on a taken one is this server's to take in; how it stands in its room shows later. A transaction that is
    /// known by its identifier is answered as it was, whatever is in it.
    pub(crate) async fn receive(&self, origin: &ServerName, transaction: Transaction) -> Result<Results> {
        let Transaction { id, pdus, edus } = transaction;
        check_size(&id, pdus.len(), edus.len())?;
        self.check_backlog(origin).await?;
        let (results, pdus) = self.judge(origin, &pdus).await?;
        let arrival = Arrival { origin: origin.to_owned(), id, results, pdus };
        let taken = self.0.intake.write(arrival).await?;
        if taken.is_new {
            edu::receive(&edus, &self.0.metrics);
        }
        Ok(taken.results)
    }

    /// `M_LIMIT_EXCEEDED` where so much of a server waits that it has to wait as well.
    async fn check_backlog(&self, origin: &ServerName) -> Result<()> {
        let waiting = inbound::count_of(&mut self.0.db.read().await?, origin, MOST_WAITING).await?;
        if waiting < MOST_WAITING {
            return Ok(());
        }
        Err(Error::wait("Too many events of your server wait to be taken in", WAIT))
    }

    /// In milliseconds since the Unix epoch.
    fn now(&self) -> i64 {
        i64::from(self.0.clock.now().get())
    }

    /// Whether there may be other nodes, so that it matters which has a room.
    fn is_shared(&self) -> bool {
        self.0.db.engine() != Engine::Sqlite
    }
}

/// `M_INVALID_PARAM` where a transaction has more than may be in one.
fn check_size(id: &TransactionId, pdus: usize, edus: usize) -> Result<()> {
    if pdus > MOST_PDUS || edus > MOST_EDUS {
        let message = format!("A transaction has {MOST_PDUS} PDUs and {MOST_EDUS} EDUs at most, not {pdus} and {edus}");
        return Err(Error::invalid_param(message));
    }
    if id.as_str().len() > MAX_TRANSACTION_ID || id.as_str().contains('\0') {
        return Err(Error::invalid_param("The transaction id is too long, or has a NUL character"));
    }
    Ok(())
}
