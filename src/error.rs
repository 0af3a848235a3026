//! What can go wrong below the API: a refusal that the caller should read, or something that broke.
//!
//! A refusal carries the specification's error code, without HTTP; `api/error.rs` alone turns it into a status. What
//! broke is logged there, and its caller learns no more than that something did.
//!
//! Absence is no error: what may be missing is an `Option`, and only who needs it makes a refusal of that.

use std::{sync::Arc, time::Duration};

use ruma::api::error::{ErrorKind, LimitExceededErrorData, RetryAfter, UserLimitExceededErrorData};

use crate::{
    db::{DbError, MigrateError},
    ground::position::InvalidToken,
};

/// With this module's error unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller asked for something that isn't allowed or isn't there. The message says what to do.
    #[error("{message}")]
    Refused { kind: ErrorKind, message: String },
    /// The database failed. Whether the caller may try again, [`DbError::is_unavailable`] says.
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// Another server was asked on the caller's behalf and refused, or gave no answer that makes sense. What it said is
    /// the caller's to read, with the HTTP status that goes with it.
    #[error("{message}")]
    Relayed { status: u16, errcode: String, message: String },
    /// The database can't say whether a write took place, or can't be reached: the caller may try again.
    #[error("{0}")]
    Unavailable(String),
    /// What was to be replaced has changed since it was read, and nothing was written: read it again and build on that.
    #[error("somebody else changed it at the same moment")]
    Conflict,
    /// Something that must not happen.
    #[error("{0}")]
    Broken(String),
}

impl From<InvalidToken> for Error {
    fn from(error: InvalidToken) -> Self {
        Self::invalid_param(error.to_string())
    }
}

/// An error code that ruma has no name for.
pub fn kind_of(errcode: &str) -> ErrorKind {
    serde_json::from_value(serde_json::json!({ "errcode": errcode })).unwrap_or(ErrorKind::Unknown)
}

impl Error {
    /// A refusal. The message is for the person at the client: what is wrong, and what they can do.
    pub fn refused(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::Refused { kind, message: message.into() }
    }

    /// `M_FORBIDDEN`, also where to say that something is there would say too much.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::refused(ErrorKind::Forbidden, message)
    }

    /// `M_NOT_FOUND`.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::refused(ErrorKind::NotFound, message)
    }

    /// `M_INVALID_PARAM`: the request can be read, and one of its values can't be.
    pub fn invalid_param(message: impl Into<String>) -> Self {
        Self::refused(ErrorKind::InvalidParam, message)
    }

    /// `M_BAD_JSON`: the body is JSON of another shape than the endpoint's.
    pub fn bad_json(message: impl Into<String>) -> Self {
        Self::refused(ErrorKind::BadJson, message)
    }

    /// Somebody has to wait. The header counts whole seconds, so the time is rounded up to them.
    pub fn wait(message: &str, time: Duration) -> Self {
        let seconds = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0)).max(1);
        let mut data = LimitExceededErrorData::new();
        data.retry_after = Some(RetryAfter::Delay(Duration::from_secs(seconds)));
        Self::refused(ErrorKind::LimitExceeded(data), format!("{message}: try again in {seconds} s"))
    }

    /// `M_USER_LIMIT_EXCEEDED`: somebody has as much of something as they may have. Waiting does not help, which is why it
    /// is no `M_LIMIT_EXCEEDED`. The message says what does; `info_uri` is where they can read or ask about it.
    pub fn over_quota(message: impl Into<String>, info_uri: &str) -> Self {
        Self::refused(ErrorKind::UserLimitExceeded(UserLimitExceededErrorData::new(info_uri.to_owned())), message)
    }

    /// `errcode` has no name in ruma: it is one of the Identity Service API's.
    pub fn named(errcode: &str, message: impl Into<String>) -> Self {
        Self::refused(kind_of(errcode), message)
    }

    /// The error of what several have waited for. It can't be copied: the last one of them gets it itself, the others get
    /// what they can act on.
    pub(crate) fn of_shared(error: Arc<Self>) -> Self {
        Arc::try_unwrap(error).unwrap_or_else(|error| match &*error {
            Self::Db(error) if error.is_unavailable() => Self::Unavailable(error.to_string()),
            Self::Unavailable(message) => Self::Unavailable(message.clone()),
            Self::Refused { kind, message } => Self::refused(kind.clone(), message.clone()),
            Self::Relayed { status, errcode, message } => {
                Self::Relayed { status: *status, errcode: errcode.clone(), message: message.clone() }
            }
            error => Self::broken(error),
        })
    }

    /// Nothing that a caller could do better. It is logged, and answered without what it says.
    pub fn broken(what: impl std::fmt::Display) -> Self {
        Self::Broken(what.to_string())
    }
}
