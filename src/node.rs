//! The nodes of one server name: who is alive, what time it is, and who does which duty.
//!
//! A node is a row that beats. All times are the database's, so that a machine's clock does not matter: a node
//! that has been silent for five seconds is dead to the others, one that has been silent for a minute is buried
//! and has to enter anew. Whoever enters waits until every living node has seen them; so a node that knows of
//! nobody else can be sure that nobody else writes, and needs to look at the log only when it writes itself.
//!
//! On SQLite a node is alone, and nothing of this is written.

mod courier;
mod duty;
mod seal;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

#[cfg(test)]
use self::duty::Epoch;
pub(crate) use self::{
    courier::{Courier, Parcel, SEAL},
    duty::Duty,
    seal::{Opened, Seal},
};
use crate::{
    clock::{Clock, millis},
    db::{Conn, Db, DbResult, Engine},
    fact::NodeId,
    hub::Hub,
    metrics::Metrics,
    random::Random,
    store::node::{self, NodeRow},
    tasks::{Shutdown, Tasks},
};

/// How often a node gives a sign of life.
const BEAT: Duration = Duration::from_secs(1);
/// Who has been silent for so long has missed a beat.
const MISSED: Duration = Duration::from_millis(1_500);
/// Who has been silent for so long is dead: others take their duties, and nobody forwards to them.
const DEAD: Duration = Duration::from_secs(5);
/// For how long after a beat the node relies on what it saw then. Shorter than [`DEAD`], so that it has stopped
/// believing itself alone before others stop waiting for it.
const FRESH: Duration = Duration::from_secs(4);
/// Who has heard nothing from Redis for so long while others do is not ready. By then the others would have said
/// that they hear nothing either: an outage for all makes nobody unready.
const DEAF: Duration = Duration::from_secs(4);
/// Who has been silent for so long has no row any more.
const BURIED: Duration = Duration::from_mins(1);
/// Who has not beaten for so long may be buried soon, and answers nobody until it has beaten again.
const MEMBER: Duration = Duration::from_secs(30);
/// For how long the users of a node that has gone silent may turn up elsewhere before they are offline.
const REMEMBERED: Duration = Duration::from_secs(30);
/// From so many milliseconds on the operator is told that this machine's clock is wrong.
const WRONG_CLOCK: i64 = 1_000;

/// This node and those beside it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Nodes(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Clock,
    hub: Hub,
    metrics: Metrics,
    id: NodeId,
    address: Option<String>,
    started: Instant,
    view: RwLock<View>,
    duties: Mutex<Vec<Arc<duty::Held>>>,
}

/// What the last successful beat told.
#[derive(Default)]
struct View {
    /// When it was sent.
    sent: Option<Instant>,
    /// Whether every living node knew of this one after it last entered.
    acquainted: bool,
    others: Vec<NodeRow>,
    /// Whether another node hears Redis.
    heard_elsewhere: bool,
}

/// Another node that takes requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    /// `http://10.0.0.5:8008`
    pub(crate) address: String,
}

/// Whether a node is alive on this database. On SQLite nobody writes down that one is.
pub(crate) async fn any_alive(db: &Db) -> DbResult<bool> {
    Ok(node::list(&mut db.read().await?).await?.iter().any(is_alive))
}

impl Nodes {
    /// Enters the nodes of this database, and waits until all that live have noticed. `address` is where the others
    /// reach this one.
    pub(crate) async fn enter(
        db: Db,
        clock: Clock,
        random: &Random,
        hub: Hub,
        address: Option<String>,
        metrics: Metrics,
        tasks: &Tasks,
    ) -> DbResult<Self> {
        let (view, duties) = (RwLock::default(), Mutex::default());
        let id = NodeId::from(random.token(12));
        let nodes =
            Self(Arc::new(Inner { db, clock, hub, metrics, id, address, started: Instant::now(), view, duties }));
        nodes.0.metrics.set_nodes(1);
        if nodes.is_embedded() {
            return Ok(nodes);
        }
        while !nodes.beat().await? {
            tokio::time::sleep(BEAT / 4).await;
        }
        tasks.spawn("heartbeat", nodes.clone().beat_on(tasks.shutdown().clone()));
        Ok(nodes)
    }

    pub(crate) fn id(&self) -> &NodeId {
        &self.0.id
    }

    /// Whether nobody else can be writing to the database.
    pub(crate) fn is_alone(&self) -> bool {
        if self.is_embedded() {
            return true;
        }
        let view = self.0.view.read();
        view.acquainted && view.others.is_empty() && view.sent.is_some_and(|sent| sent.elapsed() < FRESH)
    }

    /// Whether this node may answer: the others know of it, or will have noticed before it is forgotten.
    pub(crate) fn is_member(&self) -> bool {
        let view = self.0.view.read();
        self.is_embedded() || (view.acquainted && view.sent.is_some_and(|sent| sent.elapsed() < MEMBER))
    }

    /// Why load balancers should send nobody here, if they should not.
    pub(crate) fn find_trouble(&self) -> Option<&'static str> {
        if self.is_embedded() {
            return None;
        }
        let view = self.0.view.read();
        if !view.acquainted || view.sent.is_none_or(|sent| sent.elapsed() >= FRESH) {
            return Some("the database does not answer");
        }
        let last_heard = self.0.hub.last_heard().unwrap_or(self.0.started);
        let deaf = view.heard_elsewhere && last_heard.elapsed() >= DEAF;
        deaf.then_some("Redis does not answer here, and does on other nodes")
    }

    /// Whether a node is alive or was a moment ago, so that its users may still be there.
    pub(crate) fn remembers(&self, id: &NodeId) -> bool {
        let remembered = |row: &NodeRow| row.id == *id && row.silent < millis(REMEMBERED);
        *id == self.0.id || self.0.view.read().others.iter().any(remembered)
    }

    /// The node that should do what belongs to `key`, if that is another one that can be reached. The living agree
    /// on it, and when one comes or goes only its own share moves.
    pub(crate) fn find_preferred(&self, key: &str) -> Option<Peer> {
        let view = self.0.view.read();
        let mut best = (weight(&self.0.id, key), None);
        for row in view.others.iter().filter(|row| is_alive(row)) {
            let Some(address) = &row.address else { continue };
            let weight = weight(&row.id, key);
            if weight > best.0 {
                best = (weight, Some((row, address)));
            }
        }
        best.1.map(|(row, address)| Peer { id: row.id.clone(), address: address.clone() })
    }

    /// Tells the others that this node is gone, once it has answered everybody.
    async fn leave(&self) -> DbResult<()> {
        node::leave(&mut self.0.db.spare().await?, &self.0.id).await
    }

    fn is_embedded(&self) -> bool {
        self.0.db.engine() == Engine::Sqlite
    }

    /// Beats until no request is left, and leaves.
    async fn beat_on(self, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.requests_done() => break,
                () = tokio::time::sleep(BEAT) => {}
            }
            match tokio::time::timeout(DEAD, self.beat()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "no sign of life could be given"),
                Err(_elapsed) => tracing::warn!("no sign of life could be given: the database does not answer"),
            }
        }
        if let Err(error) = self.leave().await {
            tracing::warn!(%error, "could not say goodbye: the other nodes will notice by themselves");
        }
    }

    /// One sign of life, and a look at the others. Tells whether all that live know of this node.
    async fn beat(&self) -> DbResult<bool> {
        let Inner { hub, id, address, .. } = &*self.0;
        let sent = Instant::now();
        let mut conn = self.0.db.spare().await?;
        let knows: Vec<NodeId> = self.0.view.read().others.iter().map(|row| row.id.clone()).collect();
        let hears_redis = hub.is_connected();
        if !node::beat(&mut conn, id, hears_redis, &knows).await? {
            self.0.view.write().acquainted = false;
            node::enter(&mut conn, id, address.as_deref(), hears_redis).await?;
        }
        node::bury(&mut conn, millis(BURIED)).await?;
        let mut others = node::list(&mut conn).await?;
        others.retain(|row| row.id != *id);
        for past in others.extract_if(.., |row| self.is_past_life(row)) {
            node::leave(&mut conn, &past.id).await?;
        }
        let strangers = others.iter().any(|row| is_alive(row) && !row.knows.contains(id));
        let heard_elsewhere = others.iter().any(|row| is_alive(row) && row.hears_redis);
        let alive = others.iter().filter(|row| is_alive(row)).count() + 1;
        self.agree_on_time(&mut conn).await?;
        {
            let mut view = self.0.view.write();
            view.sent = Some(sent);
            view.acquainted |= !strangers;
            view.others = others;
            view.heard_elsewhere = heard_elsewhere;
        }
        self.0.metrics.set_nodes(alive);
        self.renew_duties(&mut conn).await?;
        Ok(self.0.view.read().acquainted)
    }

    /// Whether a row is what a crash has left of this very node: only one process listens at an address, and whoever
    /// lives does not miss a beat.
    fn is_past_life(&self, row: &NodeRow) -> bool {
        row.address.is_some() && row.address == self.0.address && row.silent > millis(MISSED)
    }

    /// Sets this node's clock by the database's.
    async fn agree_on_time(&self, conn: &mut Conn) -> DbResult<()> {
        let asked = Instant::now();
        let theirs = node::now(conn).await?;
        let moved = self.0.clock.agree_with(theirs.saturating_add(millis(asked.elapsed() / 2)));
        if moved.abs() >= WRONG_CLOCK {
            let ahead = -moved;
            tracing::warn!(ahead_ms = ahead, "this machine's clock is wrong: the database's time is used instead");
        }
        Ok(())
    }
}

fn is_alive(row: &NodeRow) -> bool {
    row.silent < millis(DEAD)
}

/// How much a node wants a key (rendezvous hashing): the highest has it.
fn weight(id: &NodeId, key: &str) -> u64 {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [id.as_str(), key] {
        context.update(part.as_bytes());
        context.update(b"\0");
    }
    let hash = context.finish();
    hash.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}
