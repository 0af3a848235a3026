//! Hearth, a Matrix homeserver. `ARCHITECTURE.md` shows the house and its floors.

pub mod cli;
pub mod clock;
pub mod config;
pub mod metrics;
pub mod random;
pub mod serve;
pub mod tasks;
pub mod telemetry;
