//! Hearth, a Matrix homeserver. `ARCHITECTURE.md` draws the house.

pub mod clock;
pub mod config;
pub mod random;
pub mod tasks;
