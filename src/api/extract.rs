//! From an HTTP request to a typed one: ruma reads path, query and body; here their errors get names.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#api-standards>

use std::net::{IpAddr, Ipv4Addr};

use axum::{
    RequestPartsExt as _,
    body::{Body, Bytes},
    extract::RawPathParams,
};
use http::{Method, request::Parts};
use ruma::api::{
    IncomingRequest, IncomingRequestExt as _,
    error::{DeserializationError, ErrorKind, FromHttpRequestError},
};
use serde::de::IgnoredAny;

use super::{
    auth::Authenticate,
    body::collect,
    error::{ApiError, ApiResult},
};
use crate::{app::App, error::Error, serve::ClientAddress};

/// A call of endpoint `R`, by somebody whom the type names.
pub(crate) struct Call<R: IncomingRequest>
where
    R::Authentication: Authenticate,
{
    pub(crate) request: R,
    pub(crate) caller: <R::Authentication as Authenticate>::Caller,
    /// Where the call came from, as far as trusted proxies tell.
    pub(crate) address: IpAddr,
}

impl<R: IncomingRequest> Call<R>
where
    R::Authentication: Authenticate,
{
    /// Authenticates first, so that a stranger learns nothing from how a body is judged.
    pub(super) async fn read(app: &App, request: http::Request<Body>, body_limit: usize) -> ApiResult<Self> {
        let (mut parts, body) = request.into_parts();
        let address = parts.extensions.get::<ClientAddress>().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |a| a.0);
        let caller = R::Authentication::authenticate(app, &parts, address).await?;
        let body = collect(body, body_limit).await?;
        let path = parts
            .extract::<RawPathParams>()
            .await
            .map_err(|e| Error::invalid_param(format!("The path can't be read: {e}")))?;
        let path: Vec<&str> = path.iter().map(|(_, value)| value).collect();
        check_json(&parts.method, &body)?;
        let request = read_ruma(&mut parts, &body, &path)?;
        Ok(Self { request, caller, address })
    }
}

/// An absent body is read as an empty object; anything else must be JSON.
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

fn read_ruma<R: IncomingRequest>(parts: &mut Parts, body: &Bytes, path: &[&str]) -> ApiResult<R> {
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
