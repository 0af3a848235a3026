//! The database: one of two engines, its connections and its transactions.
//!
//! This module alone executes SQL. Everything above it names a [`Statement`] or an [`Insert`] and hands
//! over [`Value`]s; which engine runs it is decided here.
//!
//! Rules for those above: one act is one transaction; nobody waits for a network, or for anything but the database,
//! while one is open; who wants two rows locked locks them in the order that their module's documentation gives. A
//! value is read from a row by its place in the statement, and what does not fit is an error, never a default.

#![expect(clippy::disallowed_methods, reason = "this is the one place that executes SQL")]

mod connection;
mod engine;
mod error;
mod insert;
mod migrate;
mod open;
mod queue;
mod row;
mod statement;
#[cfg(test)]
pub(crate) mod testing;
mod value;
mod watch;

#[cfg(test)]
pub(crate) use self::migrate::STATEMENTS as MIGRATION_STATEMENTS;
pub use self::{
    connection::{Conn, Db, Tx},
    engine::Engine,
    error::{DbError, DbResult},
    migrate::MigrateError,
    open::{find_host, find_user},
};
pub(crate) use self::{
    insert::{Column, ColumnType, Insert},
    row::Row,
    statement::{Statement, statements},
    value::{Value, args},
};
