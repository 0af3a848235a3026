//! The tables: SQL and the values that come out of it, one file for each family of tables. No policy.

pub(crate) mod account;
pub(crate) mod device;
pub(crate) mod filter;
pub(crate) mod profile;
pub(crate) mod registration;
pub(crate) mod signing_key;
pub(crate) mod token;
pub(crate) mod uia;

#[cfg(test)]
mod tests;
