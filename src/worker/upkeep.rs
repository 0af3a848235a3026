//! What is done now and then so that nothing piles up. What concerns everybody is one node's duty.
//!
//! None of it is urgent, and all of it may be late by any time: what has expired is not valid any more whether or not
//! its row is there.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    error::Result,
    ground::{sizes::PruneSizes, tasks::Shutdown},
    log::{Log, Pruned},
    media::{library::Library, sweep::MediaUpkeep},
    node::Duty,
    people::{account::Accounts, key_backup::KeyBackups, threepid::Threepids, to_device::ToDeviceMessages, uia::Uia},
    reader::user_directory::UserDirectory,
    room::Rooms,
    worker::delayed_event::DelayedEvents,
};

/// How often it is looked what there is to do.
const INTERVAL: Duration = Duration::from_secs(30);
/// How often leftovers are cleared: what deactivated accounts have left with identity servers, and what processes that were
/// killed have left undone.
const LONG_INTERVAL: Duration = Duration::from_hours(1);
/// How many steps the log is pruned at once.
const PRUNING_STEPS: usize = 50;

/// Whatever has something to be tidied.
pub(crate) struct UpkeepTargets {
    pub(crate) accounts: Accounts,
    pub(crate) uia: Uia,
    pub(crate) delayed_events: DelayedEvents,
    pub(crate) key_backups: KeyBackups,
    pub(crate) library: Library,
    pub(crate) media: MediaUpkeep,
    pub(crate) threepids: Threepids,
    pub(crate) to_device: ToDeviceMessages,
    pub(crate) user_directory: UserDirectory,
    pub(crate) rooms: Rooms,
    pub(crate) log: Log,
    pub(crate) prune: PruneSizes,
}

/// Tidies until the server stops, and once more then.
pub(crate) async fn run(tidied: UpkeepTargets, duty: Duty, shutdown: Shutdown) {
    let mut cleared = None;
    loop {
        tokio::select! {
            () = shutdown.requests_done() => break,
            () = tokio::time::sleep(INTERVAL) => tidy(&tidied, &duty).await,
        }
        tokio::select! {
            () = shutdown.requests_done() => break,
            // Takes as long as rooms are large. What is broken off is begun again next time.
            () = settle(&tidied.user_directory, &duty) => {}
        }
        tokio::select! {
            () = shutdown.requests_done() => break,
            // There may be hundreds of thousands of keys. They go in steps, and each stays done.
            () = clear_key_backups(&tidied.key_backups, &duty) => {}
        }
        tokio::select! {
            () = shutdown.requests_done() => break,
            // There may be as many messages, and they go in the same way.
            () = clear_inboxes(&tidied.to_device, &duty) => {}
        }
        tokio::select! {
            () = shutdown.requests_done() => break,
            // A store takes its time, and each removal stays done.
            () = tidy_media(&tidied.media, &duty) => {}
        }
        tokio::select! {
            () = shutdown.requests_done() => break,
            // What is broken off is begun again next time.
            () = prune(&tidied, &duty) => {}
        }
        tokio::select! {
            () = shutdown.requests_done() => break,
            // Other servers take their time.
            () = clear_leftovers(&tidied, &duty, &mut cleared) => {}
        }
    }
    tidy(&tidied, &duty).await;
}

/// What is done stays done: each room is ticked off by itself.
async fn settle(directory: &UserDirectory, duty: &Duty) {
    if duty.is_mine() {
        report("looking at the members of rooms that were opened or closed", directory.settle().await);
    }
}

/// Of accounts that have ended, and where a request that has deleted one did not get to its end.
async fn clear_key_backups(key_backups: &KeyBackups, duty: &Duty) {
    if duty.is_mine() {
        report("removing the keys of deleted backups", key_backups.clear_deleted().await);
    }
}

/// Of devices that have ended.
async fn clear_inboxes(to_device: &ToDeviceMessages, duty: &Duty) {
    if duty.is_mine() {
        report("removing what was sent to devices that have ended", to_device.clear_ended().await);
    }
}

/// What has expired, and the bytes of what was deleted.
async fn tidy_media(media: &MediaUpkeep, duty: &Duty) {
    if duty.is_mine() {
        report("removing media that nobody has any more", media.tidy().await);
    }
}

/// Rests as long as it has worked, so that whoever writes gets on meanwhile.
async fn prune(tidied: &UpkeepTargets, duty: &Duty) {
    for _ in 0..PRUNING_STEPS {
        let (Some(epoch), begun) = (duty.epoch(), Instant::now()) else { return };
        let pruned = tidied.log.prune(epoch, tidied.prune).await;
        let more = matches!(pruned, Ok(Pruned::Some));
        report("pruning the log", pruned.map(drop));
        if !more {
            return;
        }
        tokio::time::sleep(begun.elapsed()).await;
    }
}

/// `last`: when it was done here.
async fn clear_leftovers(tidied: &UpkeepTargets, duty: &Duty, last: &mut Option<Instant>) {
    if duty.is_mine() && last.is_none_or(|last| last.elapsed() >= LONG_INTERVAL) {
        *last = Some(Instant::now());
        report("redacting what was left behind", tidied.rooms.settle_overdue_redactions().await);
        report("removing what was written of rooms that were not entered", tidied.rooms.clear_broken_entries().await);
        report("withdrawing addresses of deactivated accounts", tidied.threepids.withdraw_left().await);
    }
}

/// What takes a few statements. Only the first two are every node's own: they write what this node has seen.
async fn tidy(tidied: &UpkeepTargets, duty: &Duty) {
    let UpkeepTargets { accounts, uia, delayed_events, library, threepids, to_device, rooms, .. } = tidied;
    report("writing when devices were last seen", accounts.flush_last_seen().await);
    report("writing which media were used", library.flush_uses().await);
    if !duty.is_mine() {
        return;
    }
    report("removing expired login tokens", accounts.clear_expired().await);
    report("removing abandoned authentication sessions", uia.clear_expired().await);
    report("removing delayed events of long ago", delayed_events.clear_finalised().await);
    report("removing addresses that nobody confirmed", threepids.clear_expired().await);
    report("forgetting requests of long ago", to_device.clear_expired().await);
    report("erasing what somebody sent", rooms.log_erasures().await);
}

fn report(duty: &str, done: Result<()>) {
    if let Err(error) = done {
        tracing::warn!(%error, duty, "upkeep failed; it is tried again");
    }
}
