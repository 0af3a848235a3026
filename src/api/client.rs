//! The client-server API, one file for each section of the specification.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/>

mod account;
mod capabilities;
mod device;
mod filter;
mod login;
mod profile;
mod register;
mod shared_secret;
#[cfg(test)]
mod tests;
mod versions;
mod well_known;

use axum::Router;

use crate::app::App;

/// Every endpoint that clients call.
pub(super) fn routes(router: Router<App>) -> Router<App> {
    let router = account::routes(router);
    let router = capabilities::routes(router);
    let router = device::routes(router);
    let router = filter::routes(router);
    let router = login::routes(router);
    let router = profile::routes(router);
    let router = register::routes(router);
    let router = shared_secret::routes(router);
    let router = versions::routes(router);
    well_known::routes(router)
}
