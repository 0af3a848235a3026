//! What a scanner says.

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Clean,
    /// What it has, for the log.
    Infected(String),
    /// Why it is not known, for the log.
    Unknown(String),
}
