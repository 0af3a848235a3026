//! For whoever watches the process: is it alive, and should it get requests?
//!
//! `/health` is for whoever restarts processes, so it fails only where the process does not answer at all. `/ready` is
//! for load balancers: it fails as soon as this node serves worse than another would, a slow database and the time
//! before stopping included. A node that can read and not write is not ready.

use std::time::Duration;

use axum::response::IntoResponse as _;
use http::{StatusCode, header::CONTENT_TYPE};
use ruma::api::auth_scheme::NoAuthentication;

use super::{
    endpoint::RawAnswer,
    error::ApiResult,
    extract::Call,
    json::Json,
    own::{Download, own_request},
    route::Endpoints,
};
use crate::app::App;

/// A database that takes longer than this to say anything is not there.
const PATIENCE: Duration = Duration::from_secs(2);

const STOPPING: &str = "stopping";
const SILENT: &str = "the database does not answer";
const CANT_WRITE: &str = "the database can not be written";

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<Download<Alive>, _, _>(health).endpoint::<Download<Ready>, _, _>(ready)
}

own_request!(Alive {}: GET NoAuthentication path "/health" -> Json, |_request, _path| Ok(Self {}));
own_request!(Ready {}: GET NoAuthentication path "/ready" -> Json, |_request, _path| Ok(Self {}));

/// The process runs and answers.
async fn health(_: App, _: Call<Download<Alive>>) -> ApiResult<RawAnswer> {
    Ok(answer(StatusCode::OK, "alive"))
}

/// The process can do what clients ask of it: its database answers and it is not stopping.
async fn ready(app: App, _: Call<Download<Ready>>) -> ApiResult<RawAnswer> {
    if let Some(trouble) = not_ready_reason(&app) {
        if trouble != STOPPING {
            tracing::warn!("not ready: {trouble}");
        }
        return Ok(answer(StatusCode::SERVICE_UNAVAILABLE, trouble));
    }
    let asked = async { app.db.spare().await?.ping().await };
    // Both at once, so that the answer comes in time for whoever asks every few seconds.
    let (answered, writable) = tokio::join!(tokio::time::timeout(PATIENCE, asked), app.log.is_writable());
    let trouble = match answered {
        Ok(Ok(())) if writable => return Ok(answer(StatusCode::OK, "ready")),
        Ok(Ok(())) => CANT_WRITE,
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready");
            SILENT
        }
        Err(_elapsed) => {
            tracing::warn!("not ready: the database takes longer than {PATIENCE:?} to answer");
            SILENT
        }
    };
    Ok(answer(StatusCode::SERVICE_UNAVAILABLE, trouble))
}

/// Why the process can't do what clients ask of it, as far as it knows without asking anybody, in a few words. That it
/// has lost PostgreSQL is known within seconds. For strangers: nothing that they ask for costs the database anything.
pub(super) fn not_ready_reason(app: &App) -> Option<&'static str> {
    if app.tasks.shutdown().is_leaving() { Some(STOPPING) } else { app.nodes.find_not_ready_reason() }
}

fn answer(status: StatusCode, word: &'static str) -> RawAnswer {
    let body = format!("{{\"status\":\"{word}\"}}\n");
    (status, [(CONTENT_TYPE, "application/json")], body).into_response().into()
}
