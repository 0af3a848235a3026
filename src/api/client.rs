//! The client-server API, one file for each section of the specification.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/>

mod account_data;
mod presence;
mod push_rule;
mod read_marker;
mod receipt;
mod tag;
mod typing;

use axum::Router;

use crate::app::App;

/// Every endpoint that clients call.
pub fn router(app: App) -> Router {
    let router = Router::new();
    let router = account_data::routes(router);
    let router = presence::routes(router);
    let router = push_rule::routes(router);
    let router = read_marker::routes(router);
    let router = receipt::routes(router);
    let router = tag::routes(router);
    let router = typing::routes(router);
    router.with_state(app)
}
