//! Rooms that homeservers share: two or three Hearths with names, certificates and wires of their own.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/>

mod check;
mod heal;
pub(crate) mod internet;
mod joining;
mod messages;
pub(crate) mod peer;
