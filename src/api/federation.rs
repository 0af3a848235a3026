//! What other servers ask this one: a file for each section of the server-server API.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/>

mod keys;
pub(super) mod openid;
mod version;

use super::route::Endpoints;

/// Adds a section's endpoints to the others.
type Section = fn(Endpoints) -> Endpoints;

const SECTIONS: &[Section] = &[keys::routes, openid::routes, version::routes];

/// Every endpoint that servers call.
pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    SECTIONS.iter().fold(endpoints, |endpoints, section| section(endpoints))
}
