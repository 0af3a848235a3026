//! What changed since: the reading side of the log, shaped for clients.
//!
//! [`gather`] finds what a user has not seen of what is [`wanted`]; [`v3`] writes it as classic `/sync`, [`initial`] as
//! clients of old expect it, who go on with [`stream`]. [`watch`] knows who is connected ([`watcher`]) and wakes
//! who waits.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#syncing>

mod client;
mod gather;
mod initial;
mod membership;
mod neighbours;
mod outside;
mod presence;
mod recent_joins;
mod sources;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod timeline;
mod turns;
mod unconnected;
mod v3;
mod waits;
mod wanted;
mod watch;
mod watcher;

pub(crate) use self::{
    client::Client,
    gather::{Gathered, Rest, Syncs},
    initial::InitialSyncBody,
    neighbours::wake_for_presence,
    sources::{Sources, SyncRequest},
    stream::{Listener, StreamPage},
    v3::{StateAfter, SyncBody, SyncWriter},
    waits::Waits,
    watch::{Registry, Strangers, Watchers},
};
