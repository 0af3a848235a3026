//! The client-server API, one file for each section of the specification.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/>

mod context;
mod members;
mod message;
mod room_event;
mod room_state;

use axum::Router;

use crate::app::App;

/// Adds a section's endpoints to the router.
type Section = fn(Router<App>) -> Router<App>;

const SECTIONS: &[Section] =
    &[context::routes, members::routes, message::routes, room_event::routes, room_state::routes];

/// Every endpoint that clients call.
pub fn router(app: App) -> Router {
    SECTIONS.iter().fold(Router::new(), |router, section| section(router)).with_state(app)
}
