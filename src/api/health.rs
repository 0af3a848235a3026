//! For whoever watches the process: is it alive, and should it get requests?

use std::time::Duration;

use axum::{Json, Router, extract::State, routing::get};
use http::StatusCode;
use serde_json::{Value, json};

use crate::app::App;

/// A database that takes longer than this to say anything is not there.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.route("/health", get(health)).route("/ready", get(ready))
}

/// The process runs and answers.
async fn health() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// The process can do what clients ask of it: its database answers and it is not stopping.
async fn ready(State(app): State<App>) -> (StatusCode, Json<Value>) {
    if app.tasks.shutdown().is_started() {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "stopping" })));
    }
    let asked = async { app.db.read().await?.ping().await };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(())) => (StatusCode::OK, Json(json!({ "status": "ready" }))),
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "the database does not answer" })))
        }
        Err(_elapsed) => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "the database does not answer" }))),
    }
}
