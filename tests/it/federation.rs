//! Rooms that homeservers share: two or three Hearths with names, certificates and wires of their own, and one with a server
//! that does what a test tells it.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/>

mod access;
mod arrivals;
mod check;
mod failures;
mod handshakes;
mod heal;
pub(crate) mod internet;
mod joining;
mod messages;
mod on_receipt;
pub(crate) mod peer;
mod proofs;
mod reads;
pub(crate) mod scripted;
mod successors;
mod templates;
mod transactions;
