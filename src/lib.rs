//! Hearth, a Matrix homeserver. `ARCHITECTURE.md` shows the house and its floors.

mod account;
pub mod api;
pub mod app;
pub mod clock;
pub mod db;
mod device;
mod discovery;
pub mod error;
pub mod event;
mod filter;
pub mod position;
mod profile;
pub mod random;
mod rate_limit;
pub mod serve;
pub mod signing;
mod store;
mod uia;
