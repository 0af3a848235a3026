//! What is done now and then so that nothing piles up. What concerns everybody is one node's duty.

use std::time::Duration;

use crate::{
    account::Accounts, delayed_event::DelayedEvents, error::Result, node::Duty, tasks::Shutdown, threepid::Threepids,
    uia::Uia, user_directory::UserDirectory,
};

const INTERVAL: Duration = Duration::from_secs(30);

/// Whatever has something to be tidied.
pub(crate) struct Tidied {
    pub(crate) accounts: Accounts,
    pub(crate) uia: Uia,
    pub(crate) delayed_events: DelayedEvents,
    pub(crate) threepids: Threepids,
    pub(crate) user_directory: UserDirectory,
}

/// Tidies until the server stops, and once more then.
pub(crate) async fn run(tidied: Tidied, duty: Duty, shutdown: Shutdown) {
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
    }
    tidy(&tidied, &duty).await;
}

async fn settle(directory: &UserDirectory, duty: &Duty) {
    if duty.is_mine() {
        report("looking at the members of rooms that were opened or closed", directory.settle().await);
    }
}

async fn tidy(Tidied { accounts, uia, delayed_events, threepids, .. }: &Tidied, duty: &Duty) {
    report("writing when devices were last seen", accounts.flush_last_seen().await);
    if !duty.is_mine() {
        return;
    }
    report("removing expired login tokens", accounts.clear_expired().await);
    report("removing abandoned authentication sessions", uia.clear_expired().await);
    report("removing delayed events of long ago", delayed_events.clear_finalised().await);
    report("removing addresses that nobody confirmed", threepids.clear_expired().await);
}

fn report(duty: &str, done: Result<()>) {
    if let Err(error) = done {
        tracing::warn!(%error, duty, "upkeep failed; it is tried again");
    }
}
