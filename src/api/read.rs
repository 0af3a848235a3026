//! From an HTTP request to a typed one: ruma reads path, query and body; here their errors get names.
//!
//! The errors are the specification's: `M_NOT_JSON` for what is no JSON, `M_BAD_JSON` for what has another shape,
//! `M_MISSING_PARAM` and `M_INVALID_PARAM` for single fields.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#api-standards>

use http::{Method, request::Parts};
use ruma::api::{
    IncomingRequest, IncomingRequestExt as _,
    error::{DeserializationError, ErrorKind, FromHttpRequestError},
};
use serde::de::IgnoredAny;

use super::error::{ApiError, ApiResult};
use crate::error::Error;

/// Reads one of ruma's requests. An absent body is read as an empty object; anything else must be JSON.
pub(super) fn read<R: IncomingRequest>(parts: &Parts, path: &[&str], body: &[u8]) -> ApiResult<R> {
    check_json(&parts.method, body)?;
    let mut request = http::Request::builder().method(parts.method.clone()).uri(parts.uri.clone());
    if let Some(headers) = request.headers_mut() {
        headers.clone_from(&parts.headers);
    }
    // Many clients send nothing where every field of the body is optional.
    let has_body = !matches!(parts.method, Method::GET | Method::HEAD);
    let body: &[u8] = if body.is_empty() && has_body { b"{}" } else { body };
    let request = request.body(body).map_err(Error::broken)?;
    R::try_from_http_request(request, path).map_err(|error| match error {
        FromHttpRequestError::Deserialization(error) => named(&error),
        other => Error::refused(ErrorKind::Unrecognized, other.to_string()).into(),
    })
}

fn check_json(method: &Method, body: &[u8]) -> ApiResult<()> {
    if body.is_empty() || method == Method::GET || method == Method::HEAD {
        return Ok(());
    }
    // What is skipped would not be looked at.
    let text = std::str::from_utf8(body).map_err(not_json)?;
    Ok(serde_json::from_str::<IgnoredAny>(text).map(drop).map_err(not_json)?)
}

fn not_json(error: impl std::fmt::Display) -> Error {
    Error::refused(ErrorKind::NotJson, format!("The request body is not JSON: {error}"))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#common-error-codes>
pub(super) fn named(error: &DeserializationError) -> ApiError {
    let message = error.to_string();
    let kind = match error {
        _ if message.starts_with("missing field") => ErrorKind::MissingParam,
        DeserializationError::Json(_) => ErrorKind::BadJson,
        _ => ErrorKind::InvalidParam,
    };
    Error::refused(kind, message).into()
}
