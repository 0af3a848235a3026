//! The HTTP API: parse → one domain call → reply. Nothing here decides anything.
//!
//! The way of a request: `route.rs` (is the node fit to answer, does the request belong on another one; what other nodes
//! have forwarded comes there by way of `arrival.rs`), `extract.rs` (head, body, proof, rate limit, parse), then the
//! handler in the file of its section. Who may call what stands in
//! `policy.rs` alone. A handler that needs more than a few lines of its own needs a function in a layer below.

mod arrival;
pub(crate) mod auth;
mod body;
mod client;
pub(crate) mod content;
pub(crate) mod delay;
pub(crate) mod endpoint;
pub(crate) mod error;
pub(crate) mod extract;
mod federation;
pub(crate) mod forward;
mod front_page;
mod headers;
mod health;
pub(crate) mod in_room;
pub(crate) mod interactive;
pub(crate) mod json;
mod listener;
pub(crate) mod own;
mod page;
mod policy;
mod read;
pub(crate) mod route;
pub(crate) mod suspension;
#[cfg(test)]
mod tests;

use std::time::Duration;

use axum::{Router, middleware};
use http::{HeaderName, Method, StatusCode, header};
use ruma::api::error::ErrorKind;
use tower_http::cors::{Any, CorsLayer};

use self::{error::ApiError, route::Endpoints};
use crate::{app::App, node::FORWARDED_PATH};

/// For how long a browser need not ask again whether it may ask. None believes it for longer than this.
const PREFLIGHT_LIFETIME: Duration = Duration::from_hours(24);

/// Everything that the server answers.
///
/// The CORS layer stands around all of it and answers OPTIONS by itself, so a preflight is neither routed nor
/// authenticated. Errors pass through it too: without its headers a browser hides from a client why it was refused.
pub fn router(app: App) -> Router {
    let (endpoints, forwarded) = endpoints().into_routers();
    endpoints
        .route(FORWARDED_PATH, arrival::accept(app.clone(), forwarded, no_such_endpoint))
        .fallback(|| async { no_such_endpoint() })
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(listener::restrict))
        .layer(cors())
        .layer(middleware::from_fn(headers::protect))
        .with_state(app)
}

/// Every endpoint there is.
///
/// They are a value before they become a router, so that tests can walk over what is known of each.
pub(crate) fn endpoints() -> Endpoints {
    front_page::routes(health::routes(federation::routes(client::routes(Endpoints::default()))))
}

/// 404 with `M_UNRECOGNIZED`, from which clients learn that a server lacks an endpoint.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#common-error-codes>
fn no_such_endpoint() -> ApiError {
    let message = "There is no such endpoint on this server: check the path and its version".to_owned();
    ApiError::Status(StatusCode::NOT_FOUND, ErrorKind::Unrecognized, message)
}

/// 405 with `M_UNRECOGNIZED`: the path is there, the method is not.
async fn wrong_method() -> ApiError {
    let message = "This endpoint is called with another method".to_owned();
    ApiError::Status(StatusCode::METHOD_NOT_ALLOWED, ErrorKind::Unrecognized, message)
}

/// Clients that run in a browser call from other origins.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#web-browser-clients>
///
/// Any origin may call, because no request is authenticated by a cookie: a foreign page has no access token to send.
fn cors() -> CorsLayer {
    let headers = [HeaderName::from_static("x-requested-with"), header::CONTENT_TYPE, header::AUTHORIZATION];
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS])
        .allow_headers(headers)
        .max_age(PREFLIGHT_LIFETIME)
}
