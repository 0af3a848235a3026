//! The database of the configuration: opened for a start or for a command, and what is said where that fails. Only a
//! start makes or migrates a database. An operator reads in one message which database it is, what is wrong in words,
//! and what to do.
//!
//! Errors of the database come from several crates and layers, each with its own chain of causes. Here they become one
//! text, with no password in it.

use std::path::PathBuf;

use crate::{
    config::{Config, DatabaseUrl},
    db::{self, Db, DbError, MigrateError},
    error::Error,
    ground::{cause, data_folder},
};

/// Why the database can't be used, for the operator to read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DatabaseProblem(String);

/// Opens the database for a start: the data folder and an embedded database are made if they are missing.
pub async fn open(config: &Config) -> Result<Db, DatabaseProblem> {
    let folder = &config.data_dir;
    data_folder::make(folder).map_err(|error| {
        let (folder, error) = (folder.display(), cause::in_words(&error));
        DatabaseProblem(format!(
            "the data folder {folder} can't be made: {error}. Change `data_dir`, or the folder above it"
        ))
    })?;
    let url = config.database_url();
    Db::connect(&url.to_connect(), config.database.max_connections).await.map_err(|error| of_db(config, &error))
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
