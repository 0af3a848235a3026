//! Headers that every answer has, whatever it is: what browsers and caches on the way may make of it.
//!
//! - No browser guesses a type other than the one that is named (`X-Content-Type-Options`).
//! - Nobody keeps what is somebody's own (`Cache-Control: no-store`): answers to whoever shows a token, answers to
//!   anything but a GET, since logging in is a POST, and refusals, which may be over at once. What is left is the same
//!   for everybody and may be kept.
//! - Pages for people are read by no other page: a client in a browser reads JSON and files, so only these are open to all
//!   origins.

use axum::{extract::Request, middleware::Next, response::Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};

/// Stands around everything, so that the headers of those within count where they have set them.
pub(super) async fn protect(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let (is_own, is_preflight) = (is_own(&parts), parts.method == Method::OPTIONS);
    let mut response = next.run(Request::from_parts(parts, body)).await;
    let status = response.status();
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let is_refusal = status.is_client_error() || status.is_server_error();
    if (is_own || is_refusal) && !is_preflight {
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
    if status == StatusCode::SEE_OTHER || is_page(headers) {
        for name in [header::ACCESS_CONTROL_ALLOW_ORIGIN, header::ACCESS_CONTROL_EXPOSE_HEADERS] {
            headers.remove(name);
        }
    }
    response
}

/// Whether an answer is for the caller alone. A token may stand in the query too, in the name of whichever endpoint.
fn is_own(request: &Parts) -> bool {
    let shows_token =
        request.headers.contains_key(header::AUTHORIZATION) || request.uri.query().is_some_and(|q| q.contains("token"));
    shows_token || ![Method::GET, Method::HEAD].contains(&request.method)
}

/// Whether an answer is for a person to look at. Files say how they are to be shown, and may be pages that somebody sent.
fn is_page(headers: &HeaderMap) -> bool {
    if headers.contains_key(header::CONTENT_DISPOSITION) {
        return false;
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|kind| kind.starts_with("text/html"))
}
