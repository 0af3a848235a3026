//! The nodes of one server name: who is alive, what time it is, who does which duty, and what they have in common.
//!
//! Nodes know each other by rows in the database and by nothing else; there is no leader, no vote and no list to
//! configure. What must be right for all of them is decided by a transaction; what only should be done by one of them
//! is a duty under a lease.

pub mod database;
mod duty;
mod forwarded;
mod forwarder;
mod last_written;
mod nodes;
mod peers;
mod seal;
pub mod server_name;
pub mod signing;

pub(crate) use self::{
    duty::{Duty, Epoch},
    forwarded::{ForwardedAnswer, ForwardedCall},
    forwarder::{FORWARDED, FORWARDED_PATH, Forwarder, Hearing, SIGN, SIGN_OF_LIFE, SealedCall},
    nodes::{Nodes, any_alive},
    peers::Peer,
    seal::{CallDigest, OpenedSeal, Seal},
};
