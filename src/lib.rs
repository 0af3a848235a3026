//! Hearth, a Matrix homeserver. `ARCHITECTURE.md` draws the house.

mod account;
pub mod account_data;
pub mod api;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod db;
mod device;
mod discovery;
pub mod error;
pub mod event;
pub mod fact;
mod filter;
mod hub;
pub mod log;
pub mod metrics;
pub mod position;
pub mod presence;
mod profile;
pub mod random;
mod rate_limit;
pub mod receipt;
pub mod room;
pub mod room_version;
pub mod serve;
pub mod signing;
mod store;
mod sync;
pub mod tasks;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod typing;
mod uia;
pub mod unread;
mod upkeep;
