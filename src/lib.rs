//! Hearth, a Matrix homeserver. `ARCHITECTURE.md` draws the house.

mod account;
pub mod api;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod db;
pub mod error;
pub mod event;
pub mod fact;
mod hub;
pub mod log;
pub mod metrics;
pub mod position;
pub mod random;
pub mod room;
pub mod serve;
mod store;
pub mod tasks;
pub mod telemetry;
