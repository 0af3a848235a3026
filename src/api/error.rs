//! Domain errors as Matrix errors: the only place that knows which code has which HTTP status.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#standard-error-response>

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
    error::{Error, kind_of},
};

/// What an endpoint answers instead of its response.
#[derive(Debug)]
pub(crate) enum ApiError {
    Domain(Error),
    /// More user-interactive authentication is needed.
    Interactive(Box<UiaaInfo>),
    /// A code with a status other than its usual one.
    Status(StatusCode, ErrorKind, String),
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

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match self {
            Self::Domain(Error::Refused { kind, message }) => matrix(status_of(&kind), kind, message),
            Self::Domain(Error::Db(e)) if e.is_unavailable() => unavailable(&e),
            Self::Domain(Error::Db(e)) if e.is_unstorable_text() => {
                let message = "The request contains a NUL character where none is allowed".to_owned();
                matrix(StatusCode::BAD_REQUEST, ErrorKind::InvalidParam, message)
            }
            Self::Domain(Error::Unavailable(e)) => unavailable(&e),
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
            Self::Json(status, body) => response(MatrixError::new(status, ErrorBody::Json(body))),
        }
    }
}

fn matrix(status: StatusCode, kind: ErrorKind, message: String) -> Response {
    response(MatrixError::new(status, ErrorBody::Standard(StandardErrorBody::new(kind, message))))
}

fn unavailable(error: &dyn std::fmt::Display) -> Response {
    tracing::warn!(%error, "a request could not be served now");
    let message = "The server can't do this at the moment. Try again soon".to_owned();
    let mut response = matrix(StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Unknown, message);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    response
}

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
        | ErrorKind::ResourceLimitExceeded(_) => StatusCode::FORBIDDEN,
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
