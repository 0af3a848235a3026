//! The signals of the operating system: SIGTERM and SIGINT end the server, gracefully the first time
//! and at once the second; SIGHUP ends nothing.
//!
//! Handlers are installed before anything listens, so no signal is missed.

use std::{io, process, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::ground::tasks::Tasks;

/// Starts shutdown on SIGTERM or SIGINT, after `/ready` has reported for a time that this node is leaving. `notice` is
/// how long load balancers are given to look. Fails where the system refuses a handler, which it does not in practice.
pub fn stop_on_signals(tasks: &Tasks, notice: Duration) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Certificates listen for themselves; without any, SIGHUP would kill the process.
    let hangup = signal(SignalKind::hangup())?;
    let shutdown = tasks.shutdown().clone();
    tasks.spawn("signals", async move {
        let second = async {
            let name = first_of(&mut terminate, &mut interrupt).await;
            tracing::info!("{name}: answering the requests in flight; a second {name} stops at once");
            // From here on the second signal ends the process, whether shutdown has started or still waits for load
            // balancers.
            shutdown.leave();
            let start = async {
                tokio::time::sleep(notice).await;
                shutdown.start(name);
                std::future::pending().await
            };
            tokio::select! {
                again = first_of(&mut terminate, &mut interrupt) => again,
                never = start => never,
            }
        };
        tokio::select! {
            name = second => {
                tracing::warn!("{name} again: stopping at once");
                // Nothing is lost by that: what was acknowledged is durable, and what was not, its client sends again.
                process::exit(1);
            }
            () = shutdown.requests_done() => drop(hangup),
        }
    });
    Ok(())
}

async fn first_of(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
