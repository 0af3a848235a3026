//! Why a command was not done, in words for the operator.
//!
//! What an operator reads is one sentence and mostly names the next step. How it came about is in no chain of causes
//! below it.

use std::io;

use crate::{ground::cause, node::database::DatabaseProblem};

/// How a command ended that was not done.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Message(String),
    /// Whoever read standard output has read enough.
    #[error("standard output is closed")]
    OutputClosed,
    /// By whoever asked for it.
    #[error("broken off")]
    BrokenOff,
}

impl Failure {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self::Message(message.into())
    }
}

impl From<DatabaseProblem> for Failure {
    fn from(trouble: DatabaseProblem) -> Self {
        Self::Message(trouble.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Message(cause::in_words(&error)),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Message(error.to_string())
    }
}
