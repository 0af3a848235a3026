//! The HTTP API: parse → one domain call → reply. Nothing here decides anything.

pub(crate) mod auth;
mod body;
mod client;
pub(crate) mod content;
pub(crate) mod delay;
pub(crate) mod error;
pub(crate) mod extract;
mod federation;
pub(crate) mod forward;
mod guest;
mod health;
pub(crate) mod in_room;
pub(crate) mod interactive;
pub(crate) mod json;
pub(crate) mod own;
pub(crate) mod restriction;
pub(crate) mod route;

use axum::{Router, middleware};
use http::{HeaderName, Method, StatusCode, header};
use ruma::api::error::ErrorKind;
use tower_http::cors::{Any, CorsLayer};

use self::error::ApiError;
use crate::app::App;

/// Everything that the server answers.
pub fn router(app: App) -> Router {
    let forward = middleware::from_fn_with_state(app.clone(), forward::forward);
    let router = health::routes(federation::routes(client::routes(Router::new()).layer(forward)));
    router.fallback(unrecognized).method_not_allowed_fallback(wrong_method).layer(cors()).with_state(app)
}

async fn unrecognized() -> ApiError {
    let message = "There is no such endpoint on this server: check the path and its version".to_owned();
    ApiError::Status(StatusCode::NOT_FOUND, ErrorKind::Unrecognized, message)
}

async fn wrong_method() -> ApiError {
    let message = "This endpoint is called with another method".to_owned();
    ApiError::Status(StatusCode::METHOD_NOT_ALLOWED, ErrorKind::Unrecognized, message)
}

/// Clients that run in a browser call from other origins.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#web-browser-clients>
fn cors() -> CorsLayer {
    let headers = [HeaderName::from_static("x-requested-with"), header::CONTENT_TYPE, header::AUTHORIZATION];
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS])
        .allow_headers(headers)
}
