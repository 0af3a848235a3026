//! `hearth-bench` loads a Matrix homeserver and prints what it measured.
//!
//! It speaks only the client-server API (<https://spec.matrix.org/v1.19/client-server-api/>), and that of servers as
//! another homeserver does (<https://spec.matrix.org/v1.19/server-server-api/>), so that any homeserver can be measured
//! with the same tool. It shares the machine with the server under test, hence one thread, one task a simulated client,
//! and no more parsing of answers than a measurement needs.
//!
//! ```text
//! cargo run --release -p hearth-bench -- --url http://127.0.0.1:8008 --pid "$(pidof hearth)" --json result.json
//! ```

mod asking;
mod client;
mod connection;
mod inbox;
mod keys;
mod latency;
mod media;
mod message;
mod meter;
mod options;
mod pieces;
mod procfs;
mod reader;
mod register;
mod remote;
mod report;
mod scenario;
mod sender;
mod stage;
mod tasks;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Parser as _, ValueEnum as _};

use crate::client::Refused;
use crate::options::Options;
use crate::report::{Outcome, Report};
use crate::scenario::Scenario;
use crate::stage::Stage;

fn main() -> ExitCode {
    match start(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hearth-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(options: Options) -> Result<()> {
    if options.list {
        return list();
    }
    if let Some(folder) = &options.make_authority {
        return remote::authority::make(folder);
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the asynchronous runtime did not start")?
        .block_on(run(options))
}

/// Prints the scenarios in the order in which they run.
fn list() -> Result<()> {
    let mut out = std::io::stdout().lock();
    for scenario in Scenario::value_variants() {
        writeln!(out, "{:<21} {}", scenario.name(), scenario.about())?;
    }
    Ok(())
}

/// Plays the chosen scenarios, then writes the report, also when one of them failed.
async fn run(options: Options) -> Result<()> {
    let mut stage = Stage::set(options).await?;
    let conditions = report::conditions(&stage).await?;
    let mut report = Report::new(conditions);
    let mut rate_limited = false;
    for scenario in stage.options.scenarios() {
        let outcome = play(scenario, &mut stage).await;
        rate_limited = outcome.as_ref().is_err_and(Refused::is_rate_limit);
        match outcome {
            Ok(outcome) => report.outcomes.push(outcome),
            Err(error) => {
                eprintln!("{}: failed: {error:#}", scenario.name());
                report.failures.insert(scenario.name(), format!("{error:#}"));
            }
        }
        if rate_limited {
            break;
        }
    }
    report.print(&mut std::io::stdout().lock())?;
    if let Some(file) = &stage.options.json {
        report.save(file)?;
    }
    if rate_limited {
        bail!(
            "the server answered 429: switch off its rate limits (registration, login, sending, joining) for the \
             measurement, then run again"
        );
    }
    if !report.failures.is_empty() {
        bail!("{} scenario(s) failed, see above", report.failures.len());
    }
    Ok(())
}

/// One scenario, with an end to its patience: a server that stops answering must not hold the run for ever.
async fn play(scenario: Scenario, stage: &mut Stage) -> Result<Outcome> {
    let patience = Duration::from_secs(stage.options.give_up);
    eprintln!("{}: {}", scenario.name(), scenario.about());
    tokio::time::timeout(patience, scenario.play(stage))
        .await
        .with_context(|| format!("not finished after {} s (--give-up)", patience.as_secs()))?
}
