//! The client-server API, one file for each section of the specification.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/>

mod ban;
mod create_room;
mod directory;
mod invite;
mod join;
mod kick;
mod knock;
mod leave;
mod redact;
mod room_state_send;
mod send;
mod upgrade;

use axum::Router;

use crate::app::App;

/// Adds a section's endpoints to the router.
type Section = fn(Router<App>) -> Router<App>;

const SECTIONS: &[Section] = &[
    ban::routes,
    create_room::routes,
    directory::routes,
    invite::routes,
    join::routes,
    kick::routes,
    knock::routes,
    leave::routes,
    redact::routes,
    room_state_send::routes,
    send::routes,
    upgrade::routes,
];

/// Every endpoint that clients call.
pub fn router(app: App) -> Router {
    SECTIONS.iter().fold(Router::new(), |router, section| section(router)).with_state(app)
}
