//! The database of the configuration: opened for a start or for a command, and what is said where that fails. Only a
//! start makes or migrates a database. An operator reads in one message which database it is, what is wrong in words,
//! and what to do.
//!
//! Errors of the database come from several crates and layers, each with its own chain of causes. Here they become one
//! text, with no password in it.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::last_written::{LastWritten, NotTheLast};
use crate::{
    config::{Config, DatabaseUrl},
    db::{self, Db, DbError, MigrateError},
    error::Error,
    ground::{
        cause,
        claim::{Claim, ClaimError},
        clock::Clock,
        data_folder, date,
        tasks::Tasks,
    },
};

/// Why the database can't be used, for the operator to read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DatabaseProblem(String);

/// What a server has of a database that is its own alone. Nothing of it with `PostgreSQL`.
#[derive(Debug)]
pub struct Held(Option<(Option<Claim>, LastWritten)>);

impl Held {
    /// Notes from now on how far the log goes.
    pub fn follow(&self, db: &Db, tasks: &Tasks) {
        if let Some((_, last_written)) = &self.0 {
            let following = last_written.clone().follow(db.clone(), tasks.shutdown().clone());
            tasks.spawn("note of the log's end", following);
        }
    }

    /// Notes how far the log goes, once nobody writes any more.
    pub async fn note_end(&self, db: &Db) {
        if let Some((_, last_written)) = &self.0
            && let Err(error) = last_written.note(db, None).await
        {
            tracing::warn!(%error, "could not note how far the log goes");
        }
    }
}

/// Opens the database for a start: the data folder and an embedded database are made if they are missing. An embedded
/// one is refused where another server runs on it, or where it is not the one that was written last, unless that is
/// because it was `restored`.
pub async fn open(config: &Config, clock: &Clock, restored: bool) -> Result<(Db, Held), DatabaseProblem> {
    let folder = &config.data_dir;
    data_folder::make(folder).map_err(|error| {
        let (folder, error) = (folder.display(), cause::in_words(&error));
        DatabaseProblem(format!(
            "the data folder {folder} can't be made: {error}. Change `data_dir`, or the folder above it"
        ))
    })?;
    let url = config.database_url();
    let DatabaseUrl::Sqlite(file) = &url else { return Ok((connect(config, &url).await?, Held(None))) };
    let claim = claim(config, file, clock)?;
    let last_written = LastWritten::new(folder, file, clock.clone());
    let refuse = |problem| refuse_to_go_on(config, &last_written, &problem);
    if !restored {
        last_written.check_file(file).map_err(refuse)?;
    }
    let db = connect(config, &url).await?;
    if restored {
        last_written.forget().map_err(|error| {
            let path = last_written.path().display();
            DatabaseProblem(format!("{path} can't be removed: {}", cause::in_words(&error)))
        })?;
    }
    if !restored && let Err(problem) = last_written.check(&db).await.map_err(|error| of_db(config, &error))? {
        db.close().await;
        return Err(refuse(problem));
    }
    Ok((db, Held(Some((claim, last_written)))))
}

async fn connect(config: &Config, url: &DatabaseUrl) -> Result<Db, DatabaseProblem> {
    let opened = Db::connect(&url.to_connect(), config.database.max_connections).await;
    opened.map_err(|error| of_db(config, &error))
}

/// Sees to it that no other server runs on the same file. None where the disk knows no locks.
fn claim(config: &Config, file: &Path, clock: &Clock) -> Result<Option<Claim>, DatabaseProblem> {
    // One file has one lock, by whatever link it is reached. At a first start it is not there yet.
    let mut path = file.canonicalize().unwrap_or_else(|_| file.to_owned()).into_os_string();
    path.push(".lock");
    let path = PathBuf::from(path);
    match Claim::take(&path, &date::second(clock.now().get().into())) {
        Ok(claim) => Ok(Some(claim)),
        Err(ClaimError::Held(holder)) => Err(DatabaseProblem(format!(
            "the database {} is in use by {holder}. Two servers on one file would destroy it: end that one first, or give \
             this one another `data_dir`. With PostgreSQL any number of them run side by side",
            shown(config)
        ))),
        Err(ClaimError::Io(error)) if knows_no_locks(&error) => {
            let path = path.display();
            tracing::warn!(%error, %path, "this disk knows no locks: see to it that no other server uses the database");
            Ok(None)
        }
        Err(ClaimError::Io(error)) => Err(DatabaseProblem(format!(
            "{} can't be used: {}. It and its folder must belong to the user that runs Hearth, see `data_dir`",
            path.display(),
            cause::in_words(&error)
        ))),
    }
}

fn knows_no_locks(error: &io::Error) -> bool {
    // The second is what NFS says without its lock service.
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(rustix::io::Errno::NOLCK.raw_os_error())
}

fn refuse_to_go_on(config: &Config, last_written: &LastWritten, problem: &NotTheLast) -> DatabaseProblem {
    DatabaseProblem(format!(
        "the database {} is not the one that was written last: {problem}. If a file or a disk is missing, put it back. If \
         a backup was restored, or all is to begin anew, say so once: `hearth serve --restored`, or remove {}",
        shown(config),
        last_written.path().display()
    ))
}

/// Opens the database for a command. What is not there is not made.
pub async fn open_existing(config: &Config) -> Result<Db, DatabaseProblem> {
    let url = config.database_url();
    let opened = Db::connect_to_existing(&url.to_connect(), config.database.max_connections).await;
    opened.map_err(|error| match &url {
        DatabaseUrl::Sqlite(_) if error.is_missing_file() => DatabaseProblem(format!(
            "there is no database {}, and only the server makes one: start it once, or see that this command has the same \
             --config and HEARTH_ variables as the server",
            shown(config)
        )),
        _ => of_db(config, &error),
    })
}

/// The database as it is shown: without a password, and with the whole path of a file.
pub fn shown(config: &Config) -> String {
    match config.database_url() {
        DatabaseUrl::Sqlite(path) => {
            let whole = std::path::absolute(&path).unwrap_or(path);
            DatabaseUrl::Sqlite(whole).to_string()
        }
        url @ DatabaseUrl::Postgres(_) => url.to_string(),
    }
}

/// The file of an embedded database.
pub fn find_file(config: &Config) -> Option<PathBuf> {
    match config.database_url() {
        DatabaseUrl::Sqlite(path) => Some(path),
        DatabaseUrl::Postgres(_) => None,
    }
}

/// What broke, in words. What has nothing to do with the database says so itself.
pub fn explain(config: &Config, error: &Error) -> DatabaseProblem {
    match error {
        Error::Db(error) | Error::Migrate(MigrateError::Db(error)) => of_db(config, error),
        Error::Migrate(MigrateError::Failed { name, error }) => {
            let DatabaseProblem(what) = of_db(config, error);
            DatabaseProblem(format!("migration {name} failed and was rolled back: {what}"))
        }
        Error::Migrate(_) => DatabaseProblem(format!("{}: {error}", shown(config))),
        error => DatabaseProblem(error.to_string()),
    }
}

fn of_db(config: &Config, error: &DbError) -> DatabaseProblem {
    let (database, url) = (shown(config), config.database_url());
    let mut cause = error.cause();
    if error.is_permission()
        && let Some(user) = db::find_user(&url.to_connect())
    {
        cause = format!("{cause}, for user {user}");
    }
    let advice = match &url {
        // What a server that can't be reached would need is no help with a file.
        DatabaseUrl::Sqlite(path) if error.is_io() => {
            let folder = path.parent().unwrap_or(path).display();
            Some(format!("The file and its folder {folder} must belong to the user that runs Hearth, see `data_dir`."))
        }
        _ => error.find_advice().map(ToOwned::to_owned),
    };
    DatabaseProblem(match advice {
        Some(advice) => format!("the database {database} can't be used: {cause}. {advice}"),
        None => format!("the database {database} can't be used: {}: {cause}", error.context()),
    })
}
