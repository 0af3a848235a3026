//! The tables: SQL and the values that come out of it, one file for each family of tables. No policy.

pub(crate) mod account_data;
pub(crate) mod alias;
pub(crate) mod ephemeral;
pub(crate) mod event;
pub(crate) mod log;
pub(crate) mod membership;
pub(crate) mod room;
pub(crate) mod state;
