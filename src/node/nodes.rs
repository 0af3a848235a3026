//! This node among the others.
//!
//! A node is a row that beats. All times are the database's, so that a machine's clock does not matter: a node
//! that has been silent for five seconds is dead to the others, one that has been silent for a minute is buried
//! and has to enter anew. Whoever enters waits until every living node has seen them; so a node that knows of
//! nobody else can be sure that nobody else writes, and needs to look at the log only when it writes itself.
//!
//! On SQLite a node is alone, and nothing of this is written.
//!
//! The times below depend on each other. A node relies on being alone for [`FRESH`] after a beat; others count it as
//! dead after [`DEAD`], which is longer, so it has stopped writing as if it were alone before they stop waiting for it.
//! It answers requests for [`MEMBER`] without a beat, and its row is kept for [`FORGOTTEN`], which is longer again: while
//! it answers, others wait for it to notice them.

use std::{sync::Arc, time::Duration};

use parking_lot::RwLock;
use tokio::{sync::watch, time::Instant};

use super::{
    duty::{Duties, Duty},
    peers::{DEAD, Peer, Peers, is_alive},
};
use crate::{
    db::{Conn, Db, DbResult, Engine},
    edge::{hub::Hub, metrics::Metrics},
    event::fact::NodeId,
    ground::{
        clock::{Clock, millis},
        position::Position,
        random::Random,
        tasks::{Shutdown, Tasks},
    },
    store::{
        log,
        node::{self, NodeRow},
    },
};

/// How often a node gives a sign of life.
const BEAT: Duration = Duration::from_secs(1);
/// Who has been silent for so long has missed a beat.
const MISSED: Duration = Duration::from_millis(1_500);
/// For how long after a beat the node relies on what it saw then. Shorter than [`DEAD`], so that it has stopped
/// believing itself alone before others stop waiting for it.
const FRESH: Duration = Duration::from_secs(4);
/// Who has heard nothing from Redis for so long while others do is not ready. By then the others would have said
/// that they hear nothing either: an outage for all makes nobody unready.
const REDIS_LOST: Duration = Duration::from_secs(4);
/// Who has been silent for so long has no row any more.
const FORGOTTEN: Duration = Duration::from_mins(1);
/// Who has not beaten for so long, with two beats missing, gives other nodes no sign of life: what they have forwarded
/// will not get done.
const IN_TOUCH: Duration = Duration::from_millis(2_500);
/// Who has not beaten for so long may be buried soon, and answers nobody until it has beaten again.
const MEMBER: Duration = Duration::from_secs(30);
/// From so many milliseconds on the log says that this machine's clock is wrong.
const WRONG_CLOCK: i64 = 1_000;

/// This node and those beside it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Nodes(Arc<Inner>);

struct Inner {
    db: Db,
    /// How far this node has read the log. What it has not is kept for it.
    reached: watch::Receiver<Position>,
    clock: Clock,
    hub: Hub,
    metrics: Metrics,
    id: NodeId,
    /// Where the others reach this node. None where they can't: no request is forwarded to it then, and it takes its
    /// duties all the same.
    address: Option<String>,
    started: Instant,
    peers: RwLock<Peers>,
    duties: Duties,
}

/// Whether a node is alive on this database. On SQLite nobody writes down that one is.
pub(crate) async fn any_alive(db: &Db) -> DbResult<bool> {
    Ok(node::list(&mut db.read().await?).await?.iter().any(is_alive))
}

impl Nodes {
    /// Enters the nodes of this database, and waits until all that live have noticed. `address` is where the others
    /// reach this one, `reached` how far it has read the log.
    pub(crate) async fn enter(
        (db, reached): (Db, watch::Receiver<Position>),
        clock: Clock,
        random: &Random,
        hub: Hub,
        address: Option<String>,
        metrics: Metrics,
        tasks: &Tasks,
    ) -> DbResult<Self> {
        let (peers, duties) = (RwLock::default(), Duties::default());
        let id = NodeId::from(random.token(12));
        let nodes = Self(Arc::new(Inner {
            db,
            reached,
            clock,
            hub,
            metrics,
            id,
            address,
            started: Instant::now(),
            peers,
            duties,
        }));
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

    /// Another one after each start.
    pub(crate) fn id(&self) -> &NodeId {
        &self.0.id
    }

    /// Whether nobody else can be writing to the database, and this node has read whatever others have written.
    pub(crate) fn is_alone(&self) -> bool {
        if self.is_embedded() {
            return true;
        }
        let peers = self.0.peers.read();
        let has_read = peers.alone_from.is_some_and(|from| *self.0.reached.borrow() >= from);
        peers.known_to_all && has_read && peers.sent.is_some_and(|sent| sent.elapsed() < FRESH)
    }

    /// Whether this node may answer: the others know of it, or will have noticed before it is forgotten.
    pub(crate) fn is_member(&self) -> bool {
        let peers = self.0.peers.read();
        self.is_embedded() || (peers.known_to_all && peers.sent.is_some_and(|sent| sent.elapsed() < MEMBER))
    }

    /// Whether this node gets done what others forward to it, as far as the database is concerned.
    pub(crate) fn is_in_touch(&self) -> bool {
        let peers = self.0.peers.read();
        self.is_embedded() || (peers.known_to_all && peers.sent.is_some_and(|sent| sent.elapsed() < IN_TOUCH))
    }

    /// Why load balancers should send nobody here, if they should not.
    pub(crate) fn find_not_ready_reason(&self) -> Option<&'static str> {
        if self.is_embedded() {
            return None;
        }
        let peers = self.0.peers.read();
        if !peers.known_to_all || peers.sent.is_none_or(|sent| sent.elapsed() >= FRESH) {
            return Some("the database does not answer");
        }
        let last_heard = self.0.hub.last_heard().unwrap_or(self.0.started);
        let deaf = peers.heard_elsewhere && last_heard.elapsed() >= REDIS_LOST;
        deaf.then_some("Redis does not answer here, and does on other nodes")
    }

    /// Whether a node is alive or was a moment ago, so that its users may still be there.
    pub(crate) fn remembers(&self, id: &NodeId) -> bool {
        *id == self.0.id || self.0.peers.read().remember(id)
    }

    /// Whether a node is alive, as far as is known here.
    pub(crate) fn lives(&self, id: &NodeId) -> bool {
        *id == self.0.id || self.0.peers.read().others.iter().any(|row| row.id == *id && is_alive(row))
    }

    /// The node that should do what belongs to `key`, if that is another one that can be reached. The living agree
    /// on it, and when one comes or goes only its own share moves.
    pub(crate) fn find_preferred(&self, key: &str) -> Option<Peer> {
        self.0.peers.read().find_preferred(&self.0.id, key)
    }

    /// A duty that this node takes when it is its turn. Each has one name.
    pub(crate) async fn duty(&self, name: &'static str) -> DbResult<Duty> {
        if self.is_embedded() {
            return Ok(Duty::without_lease(name));
        }
        let Inner { db, id, peers, duties, .. } = &*self.0;
        duties.add(&mut db.spare().await?, id, peers, name).await
    }

    /// Removes the row of this node, once it has answered everybody, so that the others need not wait until it is dead.
    async fn leave(&self) -> DbResult<()> {
        node::leave(&mut self.0.db.spare().await?, &self.0.id).await
    }

    /// Whether the database is a file of this process, which then is the only node.
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
                Err(_elapsed) => {
                    Db::note_silence();
                    tracing::warn!("no sign of life could be given: the database does not answer");
                }
            }
        }
        if let Err(error) = self.leave().await {
            tracing::warn!(%error, "could not say goodbye: the other nodes will notice by themselves");
        }
    }

    /// One sign of life, and a look at the others. Returns whether all that live know of this node.
    async fn beat(&self) -> DbResult<bool> {
        let Inner { hub, id, address, .. } = &*self.0;
        let sent = Instant::now();
        let mut conn = self.0.db.spare().await?;
        let knows: Vec<NodeId> = self.0.peers.read().others.iter().map(|row| row.id.clone()).collect();
        let (hears_redis, reached) = (hub.is_connected(), *self.0.reached.borrow());
        if !node::beat(&mut conn, id, hears_redis, &knows, reached).await? {
            self.0.peers.write().known_to_all = false;
            node::enter(&mut conn, id, address.as_deref(), hears_redis, reached).await?;
        }
        node::delete_dead(&mut conn, millis(FORGOTTEN)).await?;
        let mut others = node::list(&mut conn).await?;
        others.retain(|row| row.id != *id);
        for past in others.extract_if(.., |row| self.is_own_leftover(row)) {
            node::leave(&mut conn, &past.id).await?;
        }
        let strangers = others.iter().any(|row| is_alive(row) && !row.knows.contains(id));
        let heard_elsewhere = others.iter().any(|row| is_alive(row) && row.hears_redis);
        let alive = others.iter().filter(|row| is_alive(row)).count() + 1;
        self.agree_on_time(&mut conn).await?;
        let alone_from = if others.is_empty() { Some(self.find_end_of_others(&mut conn).await?) } else { None };
        {
            let mut peers = self.0.peers.write();
            peers.sent = Some(sent);
            peers.known_to_all |= !strangers;
            peers.others = others;
            peers.alone_from = alone_from;
            peers.heard_elsewhere = heard_elsewhere;
        }
        self.0.metrics.set_nodes(alive);
        self.0.duties.renew(&mut conn, id, &self.0.peers).await?;
        Ok(self.0.peers.read().known_to_all)
    }

    /// Up to where somebody else may have written, now that nobody else is there: the end of the log when that was seen
    /// first. Whoever was silent for a while may have missed somebody who came and went.
    async fn find_end_of_others(&self, conn: &mut Conn) -> DbResult<Position> {
        let known = {
            let peers = self.0.peers.read();
            peers.alone_from.filter(|_| peers.sent.is_some_and(|sent| sent.elapsed() < FRESH))
        };
        match known {
            Some(end) => Ok(end),
            None => log::last_position(conn).await,
        }
    }

    /// Whether a row is what a crash has left of this very node: only one process listens at an address, and whoever
    /// lives does not miss a beat.
    fn is_own_leftover(&self, row: &NodeRow) -> bool {
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

#[cfg(test)]
mod tests;
