//! Hearth, a Matrix homeserver. `ARCHITECTURE.md` draws the house.

mod account;
pub mod account_data;
pub mod api;
pub mod app;
pub mod clock;
pub mod config;
pub mod db;
pub mod error;
pub mod event;
pub mod fact;
pub mod log;
pub mod metrics;
pub mod position;
pub mod presence;
pub mod random;
pub mod receipt;
pub mod room;
pub mod serve;
mod store;
pub mod tasks;
pub mod typing;
pub mod unread;
