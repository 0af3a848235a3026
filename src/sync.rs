//! What changed since: the reading side of the log, shaped for clients.
//!
//! [`gather`] finds what a user has not seen; [`v3`] writes it as classic `/sync`. [`watch`] knows who is
//! waiting and wakes them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#syncing>

mod gather;
mod membership;
mod state;
mod timeline;
mod v3;
mod watch;

pub(crate) use self::{
    gather::{Gathered, Request, Sources, Syncs},
    v3::Writer,
    watch::{Registry, Watchers},
};
