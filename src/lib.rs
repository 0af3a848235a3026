//! Hearth, a Matrix homeserver. `ARCHITECTURE.md` draws its layers.
//!
//! The library is all of the server; `main.rs` only starts it. Public is what the program and the integration tests
//! use.

pub mod admin;
pub mod api;
pub mod app;
pub mod config;
pub mod db;
pub mod edge;
pub mod ephemeral;
pub mod error;
pub mod event;
pub mod federation;
#[cfg(test)]
mod fuzz;
pub mod ground;
pub mod log;
pub mod media;
pub mod node;
pub mod people;
pub mod reader;
pub mod room;
mod store;
#[cfg(test)]
mod testing;
mod worker;
