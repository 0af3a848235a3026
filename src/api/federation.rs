//! What other servers ask this one: a file for each section of the server-server API.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/>

mod backfill;
mod directory;
mod event;
mod keys;
mod missing_events;
pub(super) mod openid;
mod pdus;
mod query;
mod space;
mod state;
mod timestamp;
mod transactions;
mod version;

use super::route::Endpoints;

/// Adds a section's endpoints to the others.
type Section = fn(Endpoints) -> Endpoints;

const SECTIONS: &[Section] = &[
    backfill::routes,
    directory::routes,
    event::routes,
    keys::routes,
    missing_events::routes,
    openid::routes,
    query::routes,
    space::routes,
    state::routes,
    timestamp::routes,
    transactions::routes,
    version::routes,
];

/// Every endpoint that servers call.
pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    SECTIONS.iter().fold(endpoints, |endpoints, section| section(endpoints))
}
