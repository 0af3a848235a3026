//! Duties that one node does for all, as long as it holds their lease.
//!
//! A lease is a promise, not a lock: for a moment two nodes may both believe that a duty is theirs, and must do no
//! harm. What a duty writes down of its progress carries the lease's epoch, so that the holder of an older one
//! can't move it back.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

use super::{Nodes, weight};
use crate::{
    clock::millis,
    db::{Conn, DbResult},
    store::node,
};

/// For how long a duty is taken. It is renewed with every beat.
const LEASE: Duration = Duration::from_secs(5);
/// For how long after it was asked for a lease is relied on: a little shorter than the database grants it.
const RELIED_ON: Duration = Duration::from_secs(4);

/// Counts the holders of a duty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch(pub(crate) i64);

/// Something that one node does for all.
#[derive(Clone)]
pub(crate) struct Duty {
    held: Arc<Held>,
    embedded: bool,
}

pub(super) struct Held {
    name: &'static str,
    lease: Mutex<Option<(Epoch, Instant)>>,
}

impl Duty {
    /// The epoch of the lease, if the duty is this node's.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        if self.embedded {
            return Some(Epoch(0));
        }
        self.held.lease.lock().filter(|(_, asked)| asked.elapsed() < RELIED_ON).map(|(epoch, _)| epoch)
    }

    pub(crate) fn is_mine(&self) -> bool {
        self.epoch().is_some()
    }
}

impl Nodes {
    /// A duty that this node takes when it is its turn. Each has one name.
    pub(crate) async fn duty(&self, name: &'static str) -> DbResult<Duty> {
        let held = Arc::new(Held { name, lease: Mutex::default() });
        let embedded = self.is_embedded();
        if !embedded {
            self.0.duties.lock().push(Arc::clone(&held));
            self.renew(&mut self.0.db.spare().await?, &held).await?;
        }
        Ok(Duty { held, embedded })
    }

    pub(super) async fn renew_duties(&self, conn: &mut Conn) -> DbResult<()> {
        let duties = self.0.duties.lock().clone();
        for held in duties {
            self.renew(conn, &held).await?;
        }
        Ok(())
    }

    /// Takes a duty whose turn is this node's, and gives up one whose turn is another's.
    async fn renew(&self, conn: &mut Conn, held: &Held) -> DbResult<()> {
        let asked = Instant::now();
        let mine = held.lease.lock().is_some();
        let lease = if self.is_first_choice(held.name) {
            let epoch = node::take_lease(conn, held.name, &self.0.id, millis(LEASE)).await?;
            epoch.map(|epoch| (Epoch(epoch), asked))
        } else {
            if mine {
                node::release_lease(conn, held.name, &self.0.id).await?;
            }
            None
        };
        *held.lease.lock() = lease;
        Ok(())
    }

    /// Unlike for requests it does not matter whether a node can be reached.
    fn is_first_choice(&self, name: &str) -> bool {
        let mine = weight(&self.0.id, name);
        let view = self.0.view.read();
        view.others.iter().filter(|row| super::is_alive(row)).all(|row| weight(&row.id, name) <= mine)
    }
}
