//! What is wrong with a configuration: all of it at once, each with the place to mend it.
//!
//! Whoever starts the server for the first time has several things to mend, and should not need a start for each of
//! them.

use std::{fmt, path::PathBuf};

/// A configuration that cannot be used. Never without a problem. Its text has a line for each.
#[derive(Debug)]
pub struct ConfigError {
    pub problems: Vec<Problem>,
}

/// One thing to mend.
#[derive(Debug)]
pub struct Problem {
    /// None where several values contradict each other.
    origin: Option<ValueSource>,
    /// A sentence that says what to do, and never repeats a secret.
    message: String,
}

/// Where a value came from.
#[derive(Clone, Debug)]
pub(super) enum ValueSource {
    /// A file, and the line where it is known, counted from 1.
    File(PathBuf, Option<usize>),
    /// By its name.
    Variable(String),
}

impl fmt::Display for ValueSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, Some(line)) => write!(formatter, "{}:{line}", path.display()),
            Self::File(path, None) => write!(formatter, "{}", path.display()),
            Self::Variable(name) => write!(formatter, "environment variable {name}"),
        }
    }
}

impl Problem {
    pub(super) fn at(origin: &ValueSource, message: impl Into<String>) -> Self {
        Self { origin: Some(origin.clone()), message: message.into() }
    }

    /// A problem of several values together, which may come from different places.
    pub(super) fn anywhere(message: impl Into<String>) -> Self {
        Self { origin: None, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(formatter, "{origin}: ")?;
        }
        formatter.write_str(&self.message)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => write!(formatter, "the configuration has a problem:")?,
            count => write!(formatter, "the configuration has {count} problems:")?,
        }
        for problem in &self.problems {
            write!(formatter, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
