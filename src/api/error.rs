//! Domain errors as Matrix errors: the only place that knows which code has which HTTP status.
//!
//! Codes say what a client can do; messages are for the person in front of it, or for whoever writes the client. What
//! broke on this side is logged with the request's id and named to nobody. 503 means that the same request may succeed
//! soon, and comes with `Retry-After`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#standard-error-response>

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use http::{HeaderValue, StatusCode, header};
use ruma::api::{
    OutgoingResponseExt as _,
    client::uiaa::{UiaaInfo, UiaaResponse},
    error::{Error as MatrixError, ErrorBody, ErrorKind, StandardErrorBody},
};

use crate::{
    db::DbError,
    edge::serve::budget::Exhausted,
    error::{Error, kind_of},
};

/// How long somebody is asked to wait who holds too much, in seconds.
const WAIT_FOR_ROOM: Duration = Duration::from_secs(5);

/// What an endpoint answers instead of its response.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// Its status follows from its code.
    Domain(Error),
    /// More user-interactive authentication is needed.
    Interactive(Box<UiaaInfo>),
    /// A code with a status other than its usual one.
    Status(StatusCode, ErrorKind, String),
    /// Another node has forwarded something here that is not meant for this node, or is not of the sort that is
    /// forwarded. Reaches no client: the other node does the work itself.
    Misdirected,
    /// All callers together hold too much.
    Full,
    /// A body that ruma has no words for.
    Json(StatusCode, serde_json::Value),
}

pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self::Domain(error)
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        Self::Domain(error.into())
    }
}

/// Refuses what there is no room for in memory.
pub(crate) fn no_room(exhausted: Exhausted) -> ApiError {
    match exhausted {
        Exhausted::ByCaller => {
            let message = "You send or read too much at once";
            Error::wait(message, WAIT_FOR_ROOM).into()
        }
        Exhausted::ByAll => ApiError::Full,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match self {
            // Whether the caller may try again is decided here and nowhere else: by 503 they may, by 500 it would be in
            // vain.
            Self::Domain(Error::Refused { kind, message }) => matrix(status_of(&kind), kind, message),
            Self::Domain(Error::Db(e)) if e.is_unavailable() => unavailable(&e),
            // PostgreSQL's texts hold no NUL, which JSON may carry in any string.
            Self::Domain(Error::Db(e)) if e.is_unstorable_text() => {
                let message = "The request contains a NUL character where none is allowed".to_owned();
                matrix(StatusCode::BAD_REQUEST, ErrorKind::InvalidParam, message)
            }
            Self::Domain(Error::Unavailable(e)) => unavailable(&e),
            Self::Domain(e @ Error::Conflict) => unavailable(&e),
            Self::Domain(Error::Relayed { status, errcode, message }) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                matrix(status, kind_of(&errcode), message)
            }
            Self::Domain(e) => {
                tracing::error!(error = %e, "a request failed");
                let message = "The server failed to do this. Its operator finds the reason in the log".to_owned();
                matrix(StatusCode::INTERNAL_SERVER_ERROR, ErrorKind::Unknown, message)
            }
            Self::Interactive(info) => response(UiaaResponse::AuthResponse(*info)),
            Self::Status(status, kind, message) => matrix(status, kind, message),
            Self::Full => {
                let message = "Everybody together sends or reads too much at once";
                let wait = WAIT_FOR_ROOM;
                let mut response = Self::Domain(Error::wait(message, wait)).into_response();
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response
            }
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST.into_response(),
            Self::Json(status, body) => response(MatrixError::new(status, ErrorBody::Json(body))),
        }
    }
}

/// A standard error response: `errcode`, `error` and what the code brings along.
fn matrix(status: StatusCode, kind: ErrorKind, message: String) -> Response {
    response(MatrixError::new(status, ErrorBody::Standard(StandardErrorBody::new(kind, message))))
}

/// 503. It is a warning and no error: nothing is wrong with this program, and the request may be sent again in 2 s.
fn unavailable(error: &dyn std::fmt::Display) -> Response {
    tracing::warn!(%error, "a request could not be served now");
    let message = "The server can't do this at the moment. Try again soon".to_owned();
    let mut response = matrix(StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Unknown, message);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    response
}

/// A response that can't be written is a fault of this program, and is answered without a body.
fn response<R: ruma::api::OutgoingResponse>(answer: R) -> Response {
    match answer.try_into_http_response::<BytesMut>() {
        Ok(response) => response.map(|body| axum::body::Body::from(body.freeze())),
        Err(error) => {
            tracing::error!(%error, "an error response could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The usual status of an error code.
///
/// The specification names a status with each endpoint rather than with each code. Where one wants another status, its
/// handler says so with [`ApiError::Status`].
fn status_of(kind: &ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Forbidden
        | ErrorKind::GuestAccessForbidden
        | ErrorKind::UserDeactivated
        | ErrorKind::UserSuspended
        | ErrorKind::InviteBlocked
        | ErrorKind::ThreepidAuthFailed
        | ErrorKind::ThreepidDenied
        | ErrorKind::CannotLeaveServerNoticeRoom
        | ErrorKind::ResourceLimitExceeded(_)
        | ErrorKind::UserLimitExceeded(_)
        | ErrorKind::WrongRoomKeysVersion(_) => StatusCode::FORBIDDEN,
        ErrorKind::UnknownToken(_) | ErrorKind::MissingToken | ErrorKind::UserLocked | ErrorKind::Unauthorized => {
            StatusCode::UNAUTHORIZED
        }
        ErrorKind::NotFound | ErrorKind::Unrecognized => StatusCode::NOT_FOUND,
        ErrorKind::LimitExceeded(_) => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::CannotOverwriteMedia => StatusCode::CONFLICT,
        _ => StatusCode::BAD_REQUEST,
    }
}
