//! What changed since: the reading side of the log, shaped for clients.
//!
//! [`gather`] finds what a user has not seen; [`v3`] writes it as classic `/sync`, [`initial`] as clients of old
//! expect it, who go on with [`stream`]. [`watch`] knows who is waiting and wakes them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#syncing>

mod gather;
mod initial;
mod membership;
mod neighbours;
mod presence;
mod state;
mod stream;
mod timeline;
mod v3;
mod watch;

pub(crate) use self::{
    gather::{Gathered, Request, Sources, Syncs},
    neighbours::wake_for_presence,
    stream::{Heard, Listener},
    v3::{StateAfter, Writer},
    watch::{Registry, Watchers},
};
