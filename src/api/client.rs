//! The client-server API, one file for each section of the specification.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/>

use axum::Router;

use crate::app::App;

/// Every endpoint that clients call.
pub fn router(app: App) -> Router {
    Router::new().with_state(app)
}
