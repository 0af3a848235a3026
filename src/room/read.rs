//! What is read of a room, and by whom.
//!
//! Every way to read a room begins with [`reading`], which opens it for somebody, goes by [`visibility`] for what they
//! see of it, and leads past [`erasure`] on its way out. For other servers it is [`for_server`]. A page reads the database without a room's lock: what is
//! committed meanwhile lies after the reading's `until` and is not part of it.

pub(super) mod erasure;
pub mod fields;
pub mod filter;
pub mod for_server;
pub(crate) mod gaps;
pub mod members;
pub(super) mod moment;
pub mod reading;
pub mod relation;
pub(crate) mod summary;
pub mod timeline;
pub mod visibility;
