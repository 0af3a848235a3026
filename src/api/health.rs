//! For whoever watches the process: is it alive, and should it get requests?

use std::time::Duration;

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::get,
};

use http::header::CONTENT_TYPE;

use crate::app::App;

/// A database that takes longer than this to say anything is not there.
const PATIENCE: Duration = Duration::from_secs(2);

const STOPPING: &str = "stopping";

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.route("/health", get(health)).route("/ready", get(ready))
}

/// The process runs and answers.
async fn health() -> Response {
    answer(StatusCode::OK, "alive")
}

/// The process can do what clients ask of it: its database answers and it is not stopping.
async fn ready(State(app): State<App>) -> Response {
    if let Some(trouble) = known_trouble(&app) {
        if trouble != STOPPING {
            tracing::warn!("not ready: {trouble}");
        }
        return answer(StatusCode::SERVICE_UNAVAILABLE, trouble);
    }
    let asked = async { app.db.spare().await?.ping().await };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(())) => return answer(StatusCode::OK, "ready"),
        Ok(Err(error)) => tracing::warn!(%error, "not ready"),
        Err(_elapsed) => tracing::warn!("not ready: the database takes longer than {PATIENCE:?} to answer"),
    }
    answer(StatusCode::SERVICE_UNAVAILABLE, "the database does not answer")
}

/// Why the process can't do what clients ask of it, as far as it knows without asking anybody, in a few words. That it
/// has lost PostgreSQL is known within seconds. For strangers: nothing that they ask for costs the database anything.
pub(super) fn known_trouble(app: &App) -> Option<&'static str> {
    if app.tasks.shutdown().is_leaving() { Some(STOPPING) } else { app.nodes.find_trouble() }
}

fn answer(status: StatusCode, word: &'static str) -> Response {
    let body = format!("{{\"status\":\"{word}\"}}\n");
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}
