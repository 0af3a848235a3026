//! The signals of the operating system: SIGTERM and SIGINT end the server, gracefully the first time
//! and at once the second; SIGHUP ends nothing.

use std::{io, process, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::tasks::Tasks;

/// Starts shutdown on SIGTERM or SIGINT, after telling load balancers so for a time.
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
