//! Duties that one node does for all, as long as it holds their lease.
//!
//! A lease is a promise, not a lock: for a moment two nodes may both believe that a duty is theirs, and must do no
//! harm. What a duty writes down of its progress carries the lease's epoch, so that the holder of an older one
//! can't move it back.
//!
//! Which node should have a duty follows from its name and the identifiers of the living (rendezvous hashing), so
//! duties spread over the nodes, and when one dies only its own move. A node takes a lease when it is its turn and
//! gives it up when it is another's. After a crash, the next holder waits until the lease has run out.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::time::{Duration, Instant};

use super::peers::Peers;
use crate::{
    db::{Conn, DbResult},
    event::fact::NodeId,
    ground::clock::millis,
    store::node,
};

/// For how long a duty is taken. It is renewed with every beat.
const LEASE: Duration = Duration::from_secs(5);
/// For how long after it was asked for a lease is relied on: a little shorter than the database grants it.
const RELIED_ON: Duration = Duration::from_secs(4);

/// Counts the holders of a duty. Each new holder's is greater than those before; renewing keeps it. On SQLite it is
/// always 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch(pub(crate) i64);

/// Something that one node does for all.
#[derive(Clone)]
pub(crate) struct Duty {
    held: Arc<Lease>,
    embedded: bool,
}

struct Lease {
    name: &'static str,
    /// The epoch, and when the lease was asked for: before the database granted it, so that relying on it ends early
    /// rather than late.
    lease: Mutex<Option<(Epoch, Instant)>>,
}

impl Duty {
    /// One that no other node could do.
    pub(super) fn without_lease(name: &'static str) -> Self {
        Self { held: Arc::new(Lease { name, lease: Mutex::default() }), embedded: true }
    }

    /// The epoch of the lease, if the duty is this node's.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        if self.embedded {
            return Some(Epoch(0));
        }
        self.held.lease.lock().filter(|(_, asked)| asked.elapsed() < RELIED_ON).map(|(epoch, _)| epoch)
    }

    /// At this moment: it may be another's before the answer is used. What must not be done twice goes by
    /// [`Self::epoch`].
    pub(crate) fn is_mine(&self) -> bool {
        self.epoch().is_some()
    }
}

/// The duties that this node takes when it is its turn.
#[derive(Default)]
pub(super) struct Duties(Mutex<Vec<Arc<Lease>>>);

impl Duties {
    /// Adds one, and takes it if its turn is that of `here`.
    pub(super) async fn add(
        &self,
        conn: &mut Conn,
        here: &NodeId,
        peers: &RwLock<Peers>,
        name: &'static str,
    ) -> DbResult<Duty> {
        let held = Arc::new(Lease { name, lease: Mutex::default() });
        self.0.lock().push(Arc::clone(&held));
        held.renew(conn, here, peers).await?;
        Ok(Duty { held, embedded: false })
    }

    /// Takes the duties whose turn is that of `here`, and gives up those whose turn is another's.
    pub(super) async fn renew(&self, conn: &mut Conn, here: &NodeId, peers: &RwLock<Peers>) -> DbResult<()> {
        let duties = self.0.lock().clone();
        for held in duties {
            held.renew(conn, here, peers).await?;
        }
        Ok(())
    }
}

impl Lease {
    async fn renew(&self, conn: &mut Conn, here: &NodeId, peers: &RwLock<Peers>) -> DbResult<()> {
        let asked = Instant::now();
        let mine = self.lease.lock().is_some();
        let preferred = peers.read().prefer(here, self.name);
        let lease = if preferred {
            let epoch = node::take_lease(conn, self.name, here, millis(LEASE)).await?;
            epoch.map(|epoch| (Epoch(epoch), asked))
        } else {
            if mine {
                node::release_lease(conn, self.name, here).await?;
            }
            None
        };
        *self.lease.lock() = lease;
        Ok(())
    }
}
