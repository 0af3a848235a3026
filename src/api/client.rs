//! The client-server API, one file for each section of the specification.
//!
//! Every file has a function `routes`, which adds its endpoints, and a handler for each. A handler has ruma's request
//! type in its signature wherever ruma's type does what clients need; where it does not, the file says why beside the
//! type of its own.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/>

mod account;
pub(super) mod account_data;
mod account_moderation;
mod appservice;
mod ban;
mod capabilities;
mod context;
mod create_room;
pub(super) mod dehydrated_device;
mod delayed_event;
mod device;
mod directory;
mod event_by_timestamp;
pub(super) mod event_stream;
mod filter;
pub(super) mod initial_sync;
mod invite;
mod join;
mod key_backup;
mod key_changes;
mod keys;
mod kick;
mod knock;
mod leave;
mod login;
pub(super) mod media;
mod members;
mod message;
mod mutual_rooms;
mod news;
mod openid;
mod parts;
mod presence;
mod profile;
mod public_rooms;
mod push_rule;
mod pusher;
mod reaching;
mod read_marker;
mod receipt;
mod redact;
mod register;
mod relation;
mod report;
mod request_token;
mod room_event;
mod room_state;
mod room_state_send;
mod room_summary;
mod rtc;
mod search;
mod send;
pub(super) mod server_notice;
pub(super) mod shared_secret;
mod space;
pub(super) mod submit_token;
mod sync;
mod tag;
#[cfg(test)]
pub(super) mod tests;
mod third_party;
mod thread;
pub(super) mod threepid;
mod to_device;
mod token;
mod typing;
mod upgrade;
mod user_directory;
mod versions;
mod voip;
mod well_known;
mod whois;

use super::route::Endpoints;

/// Adds a section's endpoints to the others.
type Section = fn(Endpoints) -> Endpoints;

/// Their order has no effect: what is routed twice, by path and method, makes axum panic when the process starts.
const SECTIONS: &[Section] = &[
    account::routes,
    account_data::routes,
    account_moderation::routes,
    appservice::routes,
    ban::routes,
    capabilities::routes,
    context::routes,
    create_room::routes,
    dehydrated_device::routes,
    delayed_event::routes,
    device::routes,
    directory::routes,
    event_stream::routes,
    event_by_timestamp::routes,
    filter::routes,
    initial_sync::routes,
    invite::routes,
    join::routes,
    key_backup::routes,
    keys::routes,
    key_changes::routes,
    kick::routes,
    knock::routes,
    leave::routes,
    login::routes,
    media::routes,
    members::routes,
    message::routes,
    mutual_rooms::routes,
    openid::routes,
    presence::routes,
    profile::routes,
    public_rooms::routes,
    push_rule::routes,
    pusher::routes,
    read_marker::routes,
    receipt::routes,
    redact::routes,
    register::routes,
    relation::routes,
    report::routes,
    request_token::routes,
    room_event::routes,
    room_state::routes,
    room_state_send::routes,
    room_summary::routes,
    search::routes,
    rtc::routes,
    send::routes,
    server_notice::routes,
    shared_secret::routes,
    space::routes,
    submit_token::routes,
    sync::routes,
    tag::routes,
    third_party::routes,
    thread::routes,
    threepid::routes,
    to_device::routes,
    typing::routes,
    upgrade::routes,
    user_directory::routes,
    versions::routes,
    voip::routes,
    well_known::routes,
    whois::routes,
];

/// Every endpoint that clients call.
pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    SECTIONS.iter().fold(endpoints, |endpoints, section| section(endpoints))
}
