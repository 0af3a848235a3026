//! What changed since: the reading side of the log, shaped for clients.
//!
//! [`gather`] finds what a user has not seen of what is [`wanted`]; [`v3`] writes it as classic `/sync`, [`initial`] as
//! clients of old expect it, who go on with [`stream`]. [`watch`] knows who is connected ([`watcher`]) and wakes
//! who waits; [`watchers`] asks it, or the database.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#syncing>

mod client;
mod device_changes;
mod device_lists;
mod effort;
mod gather;
mod gathered;
mod initial;
mod key_counts;
mod membership;
mod neighbours;
mod outside;
mod presence;
mod recent_moves;
mod sharing;
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
mod watchers;

pub(crate) use self::{
    client::Client,
    device_changes::DeviceChangeCache,
    effort::Effort,
    gather::Syncs,
    gathered::{Gathered, Rest},
    initial::InitialSyncBody,
    key_counts::{KeyCountCache, KeyCountsOfDevices},
    neighbours::wake_neighbours,
    sources::{Sources, SyncRequest},
    stream::{Listener, StreamPage},
    v3::{StateAfter, SyncBody, SyncWriter},
    waits::Waits,
    watch::{Registry, Strangers},
    watchers::Watchers,
};
