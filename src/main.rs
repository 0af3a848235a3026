//! The process: arguments, configuration, server.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use axum::Router;
use hearth::{
    cli::{self, Cli, Command},
    config::{self, Config},
    metrics::Metrics,
    random::Random,
    serve::{self, Listeners},
    tasks::{Reason, Tasks},
    telemetry,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long background tasks may take to end when no request is left.
const TASKS_PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    match run(&Cli::from_arguments()) {
        Ok(code) => code,
        Err(error) => {
            let told = writeln!(io::stderr(), "hearth: {error:#}");
            if told.is_ok() { ExitCode::FAILURE } else { ExitCode::from(2) }
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let load = || Config::load(cli.config.as_deref(), config::environment());
    match cli.chosen() {
        Command::Serve => serve(&load()?),
        Command::CheckConfig(check) => {
            anyhow::ensure!(!check.database, "the database is not part of this build");
            show(&load()?)
        }
        Command::Admin(_) => anyhow::bail!("accounts are not part of this build"),
        Command::Completions { shell } => {
            cli::write_completions(shell, &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn show(config: &Config) -> anyhow::Result<ExitCode> {
    for warning in config.warnings() {
        writeln!(io::stderr(), "warning: {warning}")?;
    }
    write!(io::stdout(), "{}", config.to_masked_toml()?)?;
    Ok(ExitCode::SUCCESS)
}

#[tokio::main]
async fn serve(config: &Config) -> anyhow::Result<ExitCode> {
    telemetry::init(&config.log)?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let (tasks, metrics, random) = (Tasks::new(), Metrics::new(), Random::system());
    serve::stop_on_signals(&tasks)?;
    let listeners = Listeners::bind(&config.listen, config)?;
    let metrics_listener = Listeners::bind(&config.metrics.listen, config)?;
    for url in listeners.urls() {
        tracing::info!("listening on {url}");
    }

    let router = serve::layer(Router::new(), &metrics, &random);
    tokio::join!(listeners.serve(router, &tasks), metrics_listener.serve(metrics.router(), &tasks));

    for task in tasks.join_all(TASKS_PATIENCE).await {
        tracing::warn!(%task, "a task did not end in time and was cut off");
    }
    match tasks.shutdown().find_reason() {
        Some(Reason::Failed(why)) => anyhow::bail!("{why}"),
        _ => Ok(ExitCode::SUCCESS),
    }
}
