//! What is done now and then so that nothing piles up. What concerns everybody is one node's duty.

use std::time::Duration;

use crate::{account::Accounts, delayed_event::DelayedEvents, error::Result, node::Duty, tasks::Shutdown, uia::Uia};

const INTERVAL: Duration = Duration::from_secs(30);

/// Tidies until the server stops, and once more then.
pub(crate) async fn run(tidied: (Accounts, Uia, DelayedEvents), duty: Duty, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = shutdown.requests_done() => break,
            () = tokio::time::sleep(INTERVAL) => tidy(&tidied, &duty).await,
        }
    }
    tidy(&tidied, &duty).await;
}

async fn tidy((accounts, uia, delayed_events): &(Accounts, Uia, DelayedEvents), duty: &Duty) {
    report("writing when devices were last seen", accounts.flush_last_seen().await);
    if !duty.is_mine() {
        return;
    }
    report("removing expired login tokens", accounts.clear_expired().await);
    report("removing abandoned authentication sessions", uia.clear_expired().await);
    report("removing delayed events of long ago", delayed_events.clear_finalised().await);
}

fn report(duty: &str, done: Result<()>) {
    if let Err(error) = done {
        tracing::warn!(%error, duty, "upkeep failed; it is tried again");
    }
}
