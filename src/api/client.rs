//! The client-server API, one file for each section of the specification.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/>

mod account;
mod capabilities;
mod context;
mod device;
mod filter;
mod login;
mod members;
mod message;
mod profile;
mod register;
mod room_event;
mod room_state;
mod shared_secret;
#[cfg(test)]
mod tests;
mod versions;
mod well_known;

use axum::Router;

use crate::app::App;

/// Adds a section's endpoints to the router.
type Section = fn(Router<App>) -> Router<App>;

const SECTIONS: &[Section] = &[
    account::routes,
    capabilities::routes,
    context::routes,
    device::routes,
    filter::routes,
    login::routes,
    members::routes,
    message::routes,
    profile::routes,
    register::routes,
    room_event::routes,
    room_state::routes,
    shared_secret::routes,
    versions::routes,
    well_known::routes,
];

/// Every endpoint that clients call.
pub(super) fn routes(router: Router<App>) -> Router<App> {
    SECTIONS.iter().fold(router, |router, section| section(router))
}
