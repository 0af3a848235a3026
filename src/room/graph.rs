//! A room's events, and the state that they make: how events come in, from this server (`append.rs`), from others
//! (`receive.rs`), from the room's past (`history.rs`) and with a room that this server comes into (`enter.rs`), and how
//! what was written side by side becomes one state again.
//!
//! Locks, in the order in which they are taken: a room's pending head (`Room::pending`, held over the building of
//! events and their way into the log's queue, never over the database), the cache's `loading` and `rooms`, a room's
//! view. The tail's own lock comes before all three of the cache ([`crate::log::Tail`]); so whoever holds one of those
//! must not ask the tail for anything.

pub mod append;
pub mod auth;
mod auth_chain;
pub mod cache;
pub(super) mod early;
pub mod enter;
pub(super) mod erasures;
pub(super) mod fork;
pub mod head;
pub(super) mod highlight;
pub mod history;
pub(super) mod lanes;
pub(super) mod load;
pub(super) mod loads;
mod merge;
pub(super) mod outlier;
pub(super) mod owned_state;
pub(super) mod packed;
mod placing;
pub(super) mod receive;
pub(super) mod recipients;
pub mod residency;
pub(super) mod resolve;
pub mod room;
pub mod rooms;
pub(super) mod rules_event;
mod server_acl;
pub mod servers;
pub mod state;
pub(super) mod state_at;
mod summary;
pub(super) mod thread;
mod trie;
pub mod view;
