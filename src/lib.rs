//! Hearth, a Matrix homeserver. `ARCHITECTURE.md` shows the house and its floors.

mod account;
pub mod api;
pub mod app;
pub mod clock;
pub mod db;
pub mod error;
pub mod event;
pub mod position;
pub mod random;
pub mod serve;
mod store;
