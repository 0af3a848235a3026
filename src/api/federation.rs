//! What other servers ask this one: a file for each section of the server-server API.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/>

mod backfill;
mod directory;
mod event;
mod invite;
pub(super) mod join;
mod keys;
mod knock;
pub(super) mod leave;
mod missing_events;
pub(super) mod openid;
mod pdus;
mod query;
mod sent;
mod space;
mod state;
mod third_party_invite;
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
    invite::routes,
    join::routes,
    keys::routes,
    knock::routes,
    leave::routes,
    missing_events::routes,
    openid::routes,
    query::routes,
    space::routes,
    state::routes,
    third_party_invite::routes,
    timestamp::routes,
    transactions::routes,
    version::routes,
];

/// Every endpoint that servers call.
pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    SECTIONS.iter().fold(endpoints, |endpoints, section| section(endpoints))
}
