//! A panic in one request stays in that request: it becomes a 500 that names the request in the log
//! (<https://spec.matrix.org/v1.19/client-server-api/#standard-error-response>).
//!
//! A panic is a fault of this program. The others go on because nothing that a request holds is left in a half-done
//! state: locks here do not poison, and a transaction that is dropped is rolled back.

use std::panic::AssertUnwindSafe;

use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures_util::FutureExt as _;
use http::{StatusCode, header};
use serde_json::json;

use crate::edge::telemetry::RequestId;

/// Middleware: answers for a handler that has panicked. The connection stays open, and what the handler had locked is
/// released by unwinding.
pub(super) async fn catch(request: Request, next: Next) -> Response {
    let id = request.extensions().get::<RequestId>().cloned();
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => answer_for_panic(id.as_ref()),
    }
}

/// The panic's own text is in the log only ([`crate::edge::telemetry`]).
fn answer_for_panic(id: Option<&RequestId>) -> Response {
    tracing::error!("a request has panicked; it is answered with 500 and the others go on");
    let id = id.map_or("unknown", RequestId::as_str);
    let message = format!("The server failed to do this. Its operator finds the reason in the log under request {id}");
    let body = json!({ "errcode": "M_UNKNOWN", "error": message }).to_string();
    (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
