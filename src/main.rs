//! The process: arguments, configuration, server.

use std::{
    io::{self, BufRead as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use hearth::{
    api,
    app::{Administration, App},
    cli::{self, AdminCommand, Cli, Command, CreateUser, SendNotice},
    clock::Clock,
    config::{self, Config, Origins, RegistrationMode},
    db::{self, Db},
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
/// How long the database may take to give up what a start has begun that was broken off.
const DATABASE_PATIENCE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    match run(&Cli::from_arguments()) {
        Ok(code) => code,
        Err(error) => {
            let told = writeln!(io::stderr(), "hearth: {error:#}");
            if told.is_ok() { ExitCode::FAILURE } else { ExitCode::from(2) }
        }
    }
}

#[tokio::main]
async fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let load = || Config::load(cli.config.as_deref(), config::environment());
    match cli.chosen() {
        Command::Serve => serve(load()?).await,
        Command::CheckConfig(check_config) => {
            let (config, origins) = Config::load_with_origins(cli.config.as_deref(), config::environment())?;
            check(&config, &origins, check_config.database).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Admin(command) => administrate(load()?, command).await,
        Command::Completions { shell } => {
            cli::write_completions(shell, &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Prints the configuration in effect, and tries what it names.
async fn check(config: &Config, origins: &Origins, database: bool) -> anyhow::Result<()> {
    for warning in config.warnings() {
        writeln!(io::stderr(), "warning: {warning}")?;
    }
    write!(io::stdout(), "{}", config.to_explained_toml(origins)?)?;
    let mut problems = Vec::new();
    match serve::check_certificate(config) {
        Ok(()) => {}
        Err(problem) if config.speaks_tls() => problems.push(problem.to_string()),
        Err(unused) => writeln!(io::stderr(), "warning: {unused}")?,
    }
    if database && let Err(problem) = check_database(config).await {
        problems.push(format!("{problem:#}"));
    }
    anyhow::ensure!(problems.is_empty(), "{}", problems.join("\n"));
    writeln!(io::stdout(), "\n# OK")?;
    Ok(())
}

/// Opens the database and runs its migrations without keeping them.
async fn check_database(config: &Config) -> anyhow::Result<()> {
    let db = open(config).await?;
    let pending = db.try_migrate().await?;
    let engine = db.engine();
    if pending.is_empty() {
        writeln!(io::stderr(), "The {engine} database is up to date.")?;
    } else {
        let names = pending.join(", ");
        writeln!(io::stderr(), "The {engine} database would be migrated at the next start: {names}. It works.")?;
    }
    db.close().await;
    Ok(())
}

async fn open(config: &Config) -> anyhow::Result<Db> {
    std::fs::create_dir_all(&config.data_dir).with_context(|| {
        format!("the data folder {} can't be made: change data_dir or its permissions", config.data_dir.display())
    })?;
    let url = config.database_url();
    let opened = Db::connect(&url.to_connect(), config.database.max_connections).await;
    opened.with_context(|| format!("the database {url} can't be opened: check database.url"))
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    telemetry::init(&config.log)?;
    serve::raise_open_files();
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let (tasks, metrics, random) = (Tasks::new(), Metrics::new(), Random::system());
    serve::stop_on_signals(&tasks, config.shutdown_notice())?;
    let listeners = Listeners::bind(&config.listen, &config)?;
    let metrics_listener = Listeners::bind(&config.metrics.listen, &config)?;
    let Some(db) = unless_stopped(&tasks, open(&config)).await? else { return end(&tasks).await };
    let mut config = config;
    if config.cluster.advertise.is_none() {
        let database = db::find_host(&config.database_url().to_connect());
        let reachable = listeners.find_reachable(database.as_ref().map(|(host, port)| (host.as_str(), *port)));
        config.cluster.advertise = reachable.and_then(|url| url.try_into().ok());
    }
    let (clock, chance) = (Clock::system(), random.clone());
    let starting = Box::pin(App::start(config.clone(), db.clone(), clock, chance, tasks.clone(), metrics.clone()));
    let Some(app) = unless_stopped(&tasks, async { anyhow::Ok(starting.await?) }).await? else {
        let ended = end(&tasks).await;
        // Where a statement goes on for long it is left alone: nobody commits it any more.
        if tokio::time::timeout(DATABASE_PATIENCE, db.close()).await.is_err() {
            tracing::warn!("the database is still at work on what the start had begun, which is rolled back");
        }
        return ended;
    };
    for url in listeners.urls() {
        tracing::info!("listening on {url}");
    }
    welcome(&app, &listeners.urls()).await?;

    let router = serve::layer(api::router(app.clone()), &metrics, &random);
    tokio::join!(listeners.serve(router, &tasks), metrics_listener.serve(metrics.router(), &tasks));

    // The log's committer ends when nobody can write any more.
    drop(app);
    let ended = end(&tasks).await;
    db.close().await;
    ended
}

/// What comes of a step of the start; nothing where the server is told to stop before.
async fn unless_stopped<T>(tasks: &Tasks, step: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<Option<T>> {
    tokio::select! {
        done = step => done.map(Some),
        () = tasks.shutdown().started() => Ok(None),
    }
}

/// Waits for the tasks, and tells whether it was an end as it should be.
async fn end(tasks: &Tasks) -> anyhow::Result<ExitCode> {
    for task in tasks.join_all(TASKS_PATIENCE).await {
        tracing::warn!(%task, "a task did not end in time and was cut off");
    }
    match tasks.shutdown().find_reason() {
        Some(Reason::Failed(why)) => anyhow::bail!("{why}"),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Tells somebody who has just started a new server how to go on.
async fn welcome(app: &App, urls: &[String]) -> anyhow::Result<()> {
    if app.has_accounts().await? {
        return Ok(());
    }
    let url = urls.first().map_or("the address above", String::as_str);
    let name = &app.server_name;
    let join = match app.config.registration.mode {
        RegistrationMode::Open => "Anybody can register in their client.",
        RegistrationMode::Token => "People register with a token: hearth admin create-registration-token",
        RegistrationMode::Closed => "Nobody else can register until registration.mode is \"open\" or \"token\".",
    };
    let mut out = io::stderr().lock();
    writeln!(out, "\nWelcome to Hearth. This is the first start of {name}; there are no accounts yet.\n")?;
    writeln!(out, "  1. Make yours:     hearth admin create-user --admin alice")?;
    writeln!(out, "                     (with the same --config and HEARTH_ variables as this server)")?;
    writeln!(out, "  2. Open a client:  homeserver {url}, user name alice")?;
    writeln!(out, "  3. {join}\n")?;
    Ok(())
}

async fn administrate(config: Config, command: AdminCommand) -> anyhow::Result<ExitCode> {
    let db = open(&config).await?;
    let random = Random::system();
    let administration = Administration::open(&config, db.clone(), Clock::system(), &random).await?;
    let done = match command {
        AdminCommand::CreateUser(create) => create_user(&administration, &random, &create).await,
        AdminCommand::CreateRegistrationToken(create) => {
            let token = administration.create_registration_token(create.uses, create.expires_in).await;
            token.map_err(Into::into).map(|token| format!("{token}\n"))
        }
        AdminCommand::ShowAccount(account) => show_account(&administration, &account.name).await,
        AdminCommand::LockAccount(account) => set_locked(&administration, &account.name, true).await,
        AdminCommand::UnlockAccount(account) => set_locked(&administration, &account.name, false).await,
        AdminCommand::SuspendAccount(account) => set_suspended(&administration, &account.name, true).await,
        AdminCommand::UnsuspendAccount(account) => set_suspended(&administration, &account.name, false).await,
        AdminCommand::SendNotice(notice) => send_notice(&administration, &notice).await,
        AdminCommand::ListReports(list) => list_reports(&administration, list.limit).await,
    };
    drop(administration);
    db.close().await;
    write!(io::stdout(), "{}", done?)?;
    Ok(ExitCode::SUCCESS)
}

/// An account, as one line of JSON.
async fn show_account(administration: &Administration, name: &str) -> anyhow::Result<String> {
    Ok(format!("{}\n", serde_json::to_string(&administration.show_account(name).await?)?))
}

async fn set_locked(administration: &Administration, name: &str, locked: bool) -> anyhow::Result<String> {
    let user_id = administration.set_locked(name, locked).await?;
    let done = if locked { "Locked" } else { "Unlocked" };
    Ok(format!("{done} {user_id}. A running server knows it within seconds.\n"))
}

async fn set_suspended(administration: &Administration, name: &str, suspended: bool) -> anyhow::Result<String> {
    let user_id = administration.set_suspended(name, suspended).await?;
    let done = if suspended { "Suspended" } else { "Ended the suspension of" };
    Ok(format!("{done} {user_id}. A running server knows it within seconds.\n"))
}

async fn send_notice(administration: &Administration, notice: &SendNotice) -> anyhow::Result<String> {
    let count = administration.send_notice(notice.name.as_deref(), &notice.text).await?;
    let whom = if count == 1 { "one user".to_owned() } else { format!("{count} users") };
    Ok(format!("The notice to {whom} is on its way: a running server sends it within seconds.\n"))
}

/// The reports, a line of JSON each.
async fn list_reports(administration: &Administration, limit: u32) -> anyhow::Result<String> {
    let mut lines = String::new();
    for report in administration.list_reports(limit).await? {
        lines.push_str(&serde_json::to_string(&report)?);
        lines.push('\n');
    }
    Ok(lines)
}

/// Makes an account and tells what its owner needs to know.
async fn create_user(administration: &Administration, random: &Random, create: &CreateUser) -> anyhow::Result<String> {
    let given = if create.password_stdin {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        let password = line.trim_end_matches(['\r', '\n']).to_owned();
        anyhow::ensure!(!password.is_empty(), "standard input holds no password");
        Some(password)
    } else {
        None
    };
    let password = given.clone().unwrap_or_else(|| random.token(20));
    let user_id = administration.create_user(&create.name, &password, create.admin).await?;
    let role = if create.admin { "administrator" } else { "user" };
    Ok(match given {
        Some(_) => format!("Made the {role} {user_id}.\n"),
        None => format!("Made the {role} {user_id}.\nPassword: {password}\n"),
    })
}
