//! The nodes beside this one, and which of them does what.
//!
//! Every node works out the same from the same rows. For a moment after a node has come or gone they may not agree: a
//! request is then forwarded to a node that serves it although it prefers another, and a duty has two holders or none.

use std::time::Duration;

use aws_lc_rs::digest;
use tokio::time::Instant;

use crate::{
    event::fact::NodeId,
    ground::{clock::millis, position::Position},
    store::node::NodeRow,
};

/// Who has been silent for so long is dead: others take their duties, and nobody forwards to them.
pub(super) const DEAD: Duration = Duration::from_secs(5);
/// For how long the users of a node that has gone silent may turn up elsewhere before they are offline.
const REMEMBERED: Duration = Duration::from_secs(30);

/// Another node that takes requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    /// `http://10.0.0.5:8008`
    pub(crate) address: String,
}

/// The other nodes, as the last successful beat found them.
#[derive(Default)]
pub(super) struct Peers {
    /// When it was sent.
    pub(super) sent: Option<Instant>,
    /// Whether every living node knew of this one after it last entered.
    pub(super) known_to_all: bool,
    pub(super) others: Vec<NodeRow>,
    /// Where there are no others: up to where they may have written before they left.
    pub(super) alone_from: Option<Position>,
    /// Whether another node hears Redis.
    pub(super) heard_elsewhere: bool,
}

impl Peers {
    /// Whether a node is alive or was a moment ago.
    pub(super) fn remember(&self, id: &NodeId) -> bool {
        self.others.iter().any(|row| row.id == *id && row.silent < millis(REMEMBERED))
    }

    /// The node that should do what belongs to `key`, if that is another than `here` and can be reached.
    pub(super) fn find_preferred(&self, here: &NodeId, key: &str) -> Option<Peer> {
        let mut best = (weight(here, key), None);
        for row in self.others.iter().filter(|row| is_alive(row)) {
            let Some(address) = &row.address else { continue };
            let weight = weight(&row.id, key);
            if weight > best.0 {
                best = (weight, Some((row, address)));
            }
        }
        best.1.map(|(row, address)| Peer { id: row.id.clone(), address: address.clone() })
    }

    /// Whether a duty's turn is that of `here`. Unlike for requests it does not matter whether a node can be reached.
    pub(super) fn prefer(&self, here: &NodeId, duty: &str) -> bool {
        let mine = weight(here, duty);
        self.others.iter().filter(|row| is_alive(row)).all(|row| weight(&row.id, duty) <= mine)
    }
}

pub(super) fn is_alive(row: &NodeRow) -> bool {
    row.silent < millis(DEAD)
}

/// How much a node wants a key (rendezvous hashing): the highest has it.
pub(super) fn weight(id: &NodeId, key: &str) -> u64 {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [id.as_str(), key] {
        context.update(part.as_bytes());
        context.update(b"\0");
    }
    let hash = context.finish();
    hash.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}
