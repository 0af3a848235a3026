//! The process: arguments, configuration, server.
//!
//! Order of a start: signals are caught, addresses bound, the database opened and migrated, the layers started, and
//! only then connections taken. Whatever fails before that ends the process with one message. Stopping goes the other
//! way: requests, tasks, database.
//!
//! Exit codes: 0 for a stop that was asked for, 1 for a failure, 2 for arguments that are wrong or where standard error
//! can't be written to.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use hearth::{
    admin::{self, Failure},
    api,
    app::App,
    config::{
        self, Config, LogFormat, RegistrationMode, ValueSources,
        cli::{self, Cli, Command, Serve},
    },
    db,
    edge::{
        authorities,
        metrics::Metrics,
        serve::{self, Listeners},
        telemetry,
    },
    ground::{
        cause,
        clock::Clock,
        data_folder,
        random::Random,
        tasks::{Reason, Tasks},
    },
    node::{database, server_name},
};

/// Many small pieces come and go on many threads, which is what this allocator is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long background tasks may take to end when no request is left.
const TASKS_PATIENCE: Duration = Duration::from_secs(5);
/// How long the database may take to give up what a start has begun that was broken off.
const DATABASE_PATIENCE: Duration = Duration::from_secs(2);

/// Whatever fails is said on standard error: standard output is for what a command is asked for.
fn main() -> ExitCode {
    match run(&Cli::from_arguments()) {
        Ok(code) => code,
        Err(error) => {
            // Each error says its cause itself: a chain of them would say it again.
            let printed = match error.downcast_ref::<io::Error>() {
                Some(error) => writeln!(io::stderr(), "hearth: {}", cause::in_words(error)),
                None => writeln!(io::stderr(), "hearth: {error}"),
            };
            // Without standard error nobody has read why, so the exit code has to say it.
            if printed.is_ok() { ExitCode::FAILURE } else { ExitCode::from(2) }
        }
    }
}

/// Chooses what to do. Only the server writes a log; commands speak to whoever runs them.
#[tokio::main]
async fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    // Not before it is needed: `completions` and `--help` work without a configuration.
    let load = || Config::load(cli.config.as_deref(), config::environment());
    match cli.chosen() {
        Command::Serve(Serve { restored }) => {
            let config = load()?;
            telemetry::init(&config.log)?;
            Ok(Box::pin(serve_and_log(cli, config, restored)).await)
        }
        Command::CheckConfig(check_config) => {
            let (config, origins) = Config::load_with_origins(cli.config.as_deref(), config::environment())?;
            check(&config, &origins, check_config.database).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Admin(command) => match admin::run(&load()?, command).await {
            // Whoever reads the beginning of a list has got what they wanted.
            Ok(()) | Err(Failure::OutputClosed) => Ok(ExitCode::SUCCESS),
            Err(failure) => Err(failure.into()),
        },
        Command::Completions { shell } => {
            cli::write_completions(shell, &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Prints the configuration in effect, and tries what it names.
async fn check(config: &Config, origins: &ValueSources, database: bool) -> anyhow::Result<()> {
    // Warnings first, so that they stand above what may be long.
    for warning in config.warnings() {
        writeln!(io::stderr(), "warning: {warning}")?;
    }
    write!(io::stdout(), "{}", config.to_explained_toml(origins)?)?;
    let mut problems = Vec::new();
    // A certificate that is wrong is an error only where it would be used.
    match serve::check_certificate(config) {
        Ok(()) => {}
        Err(problem) if config.speaks_tls() => problems.push(problem.to_string()),
        Err(unused) => writeln!(io::stderr(), "warning: {unused}")?,
    }
    match authorities::check(config) {
        Ok(()) => {}
        Err(problem) if config.federation.enabled => problems.push(problem.to_string()),
        Err(unused) => writeln!(io::stderr(), "warning: {unused}")?,
    }
    if database && let Err(problem) = check_database(config).await {
        problems.push(format!("{problem:#}"));
    }
    // All of them at once: nobody wants to start again for each.
    anyhow::ensure!(problems.is_empty(), "{}", problems.join("\n"));
    writeln!(io::stdout(), "\n# OK")?;
    Ok(())
}

/// Opens the database, if there is one, and runs its migrations without keeping them.
async fn check_database(config: &Config) -> anyhow::Result<()> {
    let file = database::find_file(config);
    if file.as_ref().is_some_and(|file| !file.exists()) {
        writeln!(io::stderr(), "There is no database yet: the first start makes {}.", database::shown(config))?;
        return Ok(());
    }
    let db = database::open_existing(config).await?;
    let explain = |error| database::explain(config, &error);
    server_name::check(&db, &config.server_name).await.map_err(explain)?;
    // In a transaction that is rolled back.
    let pending = db.try_migrate().await.map_err(|error| explain(error.into()))?;
    let engine = db.engine();
    if pending.is_empty() {
        writeln!(io::stderr(), "The {engine} database is up to date.")?;
    } else {
        let names = pending.join(", ");
        writeln!(io::stderr(), "The {engine} database would be migrated at the next start: {names}. It works.")?;
    }
    if let Some(warning) = data_folder::find_warning(&config.data_dir, file.as_deref()) {
        writeln!(io::stderr(), "warning: {warning}")?;
    }
    db.close().await;
    Ok(())
}

/// Runs the server. From its first line to its last, all is said in the log.
async fn serve_and_log(cli: &Cli, config: Config, restored: bool) -> ExitCode {
    let (database, server_name) = (database::shown(&config), &config.server_name);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), configuration = sources(cli), database, %server_name, "starting");
    // Before any connection: each takes a file.
    serve::raise_open_files(&config);
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let code = match Box::pin(serve(cli, config, restored)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    };
    // The last line, so that a log that ends otherwise was cut off.
    tracing::info!("stopped");
    code
}

/// Where the configuration comes from: the file, and the names of the variables that somebody has set.
fn sources(cli: &Cli) -> String {
    let file = cli.config.as_ref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
    let file = file.map_or("no file".to_owned(), |path| path.display().to_string());
    let set = |(name, text): &(String, String)| name != "HEARTH_CONFIG" && !config::is_injected(name, text);
    let variables = config::environment().filter(set).map(|(name, _)| name);
    [file].into_iter().chain(variables).collect::<Vec<_>>().join(", ")
}

/// Starts the server, serves until it is to stop, and stops it in the order in which nothing is lost.
async fn serve(cli: &Cli, config: Config, restored: bool) -> anyhow::Result<()> {
    let (tasks, metrics, random, clock) = (Tasks::new(), Metrics::new(), Random::system(), Clock::system());
    // First of all: a start that takes long can be broken off.
    serve::stop_on_signals(&tasks, config.shutdown_notice())?;
    // Before the database is touched, so that a second process on this machine ends here.
    let listeners = Listeners::bind(&config.listen, &config)?;
    let metrics_listener = Listeners::bind(&config.metrics.listen, &config)?;
    let opening = async { anyhow::Ok(database::open(&config, &clock, restored).await?) };
    let Some((db, held)) = unless_stopped(&tasks, opening).await? else { return end(&tasks).await };
    if let Some(warning) = data_folder::find_warning(&config.data_dir, database::find_file(&config).as_deref()) {
        tracing::warn!("{warning}");
    }
    let mut config = config;
    // Where the operator does not say how other nodes reach this one, it is by the address that leads to the database.
    if config.cluster.advertise.is_none() {
        let database = db::find_host(&config.database_url().to_connect());
        let reachable = listeners.find_reachable(database.as_ref().map(|(host, port)| (host.as_str(), *port)));
        config.cluster.advertise = reachable.and_then(|url| url.try_into().ok());
    }
    let chance = random.clone();
    let starting = Box::pin(App::start(config.clone(), db.clone(), clock, chance, tasks.clone(), metrics.clone()));
    let starting = async { anyhow::Ok(starting.await.map_err(|error| database::explain(&config, &error))?) };
    let Some(app) = unless_stopped(&tasks, starting).await? else {
        let ended = end(&tasks).await;
        // Where a statement goes on for long it is left alone: nobody commits it any more.
        if tokio::time::timeout(DATABASE_PATIENCE, db.close()).await.is_err() {
            tracing::warn!("the database is still at work on what the start had begun, which is rolled back");
        }
        return ended;
    };
    held.follow(&db, &tasks);

    let urls = listeners.urls();
    let router = serve::layer(api::router(app.clone()), &metrics, &random);
    let serving = listeners.serve(router, &tasks, &metrics);
    let serving_metrics = metrics_listener.serve(metrics.router(), &tasks, &metrics);
    // Once it is true: whoever waits for this line may call at once.
    for url in &urls {
        tracing::info!("listening on {url}");
    }
    welcome(cli, &app, &urls).await?;
    // Both at once: metrics are answered for as long as requests are.
    tokio::join!(serving, serving_metrics);

    // The log's committer ends when nobody can write any more.
    drop(app);
    let ended = end(&tasks).await;
    // Last, since tasks write until they end.
    held.note_end(&db).await;
    db.close().await;
    ended
}

/// What comes of a step of the start; nothing where the server is to stop before.
async fn unless_stopped<T>(tasks: &Tasks, step: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<Option<T>> {
    // A transaction that a dropped step had open is rolled back.
    tokio::select! {
        done = step => done.map(Some),
        () = tasks.shutdown().started() => Ok(None),
    }
}

/// Waits for the tasks. An error where the server did not end because somebody asked for it.
async fn end(tasks: &Tasks) -> anyhow::Result<()> {
    for task in tasks.join_all(TASKS_PATIENCE).await {
        tracing::warn!(%task, "a task did not end in time and was cut off");
    }
    match tasks.shutdown().find_reason() {
        Some(Reason::Failed(why)) => anyhow::bail!("{why}"),
        _ => Ok(()),
    }
}

/// Shows somebody who has just started a new server how to go on.
async fn welcome(cli: &Cli, app: &App, urls: &[String]) -> anyhow::Result<()> {
    if app.has_accounts().await.map_err(|error| database::explain(&app.config, &error))? {
        return Ok(());
    }
    let url = urls.first().map_or("the address above", String::as_str);
    let name = &app.server_name;
    let join = match app.config.registration.mode {
        RegistrationMode::Open => "Anybody can register in their client.",
        RegistrationMode::Token => "People register with a token: hearth admin create-registration-token",
        RegistrationMode::Closed => "Nobody else can register until registration.mode is \"open\" or \"token\".",
    };
    let file = cli.config.as_ref().map(|path| format!(" --config {}", path.display())).unwrap_or_default();
    let make = format!("hearth{file} admin create-user --admin alice");
    // One entry, because whoever reads the log as JSON reads no text beside it.
    if app.config.log.format == LogFormat::Json {
        let first = format!("Make the first account: {make} (with the same HEARTH_ variables as this server)");
        tracing::info!(server_name = %name, url, first, then = join, "welcome: this is the first start, there are no accounts yet");
        return Ok(());
    }
    let mut out = io::stderr().lock();
    writeln!(out, "\nWelcome to Hearth. This is the first start of {name}; there are no accounts yet.\n")?;
    writeln!(out, "  1. Make yours:     {make}")?;
    writeln!(out, "                     (with the same HEARTH_ variables as this server)")?;
    writeln!(out, "  2. Open a client:  homeserver {url}, user name alice")?;
    writeln!(out, "  3. {join}\n")?;
    Ok(())
}
