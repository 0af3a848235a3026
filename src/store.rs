//! The tables: SQL and the values that come out of it, one file for each family of tables. No policy.

pub(crate) mod account;
pub(crate) mod account_data;
pub(crate) mod alias;
pub(crate) mod delayed_event;
pub(crate) mod device;
pub(crate) mod ephemeral;
pub(crate) mod errand;
pub(crate) mod event;
pub(crate) mod filter;
pub(crate) mod log;
pub(crate) mod membership;
pub(crate) mod node;
pub(crate) mod profile;
pub(crate) mod registration;
pub(crate) mod relation;
pub(crate) mod report;
pub(crate) mod room;
pub(crate) mod search;
pub(crate) mod server;
pub(crate) mod signing_key;
pub(crate) mod state;
pub(crate) mod threepid;
pub(crate) mod token;
pub(crate) mod uia;
pub(crate) mod user_directory;

#[cfg(test)]
mod tests;
