//! What is done now and then so that nothing piles up. What concerns everybody is one node's duty.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    account::Accounts, delayed_event::DelayedEvents, error::Result, node::Duty, room::Rooms, tasks::Shutdown,
    threepid::Threepids, uia::Uia, user_directory::UserDirectory,
};

const INTERVAL: Duration = Duration::from_secs(30);
/// How often identity servers are asked to forget what deactivated accounts have left with them.
const WITHDRAW_INTERVAL: Duration = Duration::from_hours(1);

/// Whatever has something to be tidied.
pub(crate) struct Tidied {
    pub(crate) accounts: Accounts,
    pub(crate) uia: Uia,
    pub(crate) delayed_events: DelayedEvents,
    pub(crate) threepids: Threepids,
    pub(crate) user_directory: UserDirectory,
    pub(crate) rooms: Rooms,
}

/// Tidies until the server stops, and once more then.
pub(crate) async fn run(tidied: Tidied, duty: Duty, shutdown: Shutdown) {
    let mut withdrawn = None;
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
            // Other servers take their time.
            () = withdraw(&tidied.threepids, &duty, &mut withdrawn) => {}
        }
    }
    tidy(&tidied, &duty).await;
}

async fn settle(directory: &UserDirectory, duty: &Duty) {
    if duty.is_mine() {
        report("looking at the members of rooms that were opened or closed", directory.settle().await);
    }
}

/// `last`: when it was done here.
async fn withdraw(threepids: &Threepids, duty: &Duty, last: &mut Option<Instant>) {
    if duty.is_mine() && last.is_none_or(|last| last.elapsed() >= WITHDRAW_INTERVAL) {
        *last = Some(Instant::now());
        report("withdrawing addresses of deactivated accounts", threepids.withdraw_left().await);
    }
}

async fn tidy(Tidied { accounts, uia, delayed_events, threepids, rooms, .. }: &Tidied, duty: &Duty) {
    report("writing when devices were last seen", accounts.flush_last_seen().await);
    if !duty.is_mine() {
        return;
    }
    report("removing expired login tokens", accounts.clear_expired().await);
    report("removing abandoned authentication sessions", uia.clear_expired().await);
    report("removing delayed events of long ago", delayed_events.clear_finalised().await);
    report("removing addresses that nobody confirmed", threepids.clear_expired().await);
    report("erasing what somebody sent", rooms.tell_erasures().await);
}

fn report(duty: &str, done: Result<()>) {
    if let Err(error) = done {
        tracing::warn!(%error, duty, "upkeep failed; it is tried again");
    }
}
