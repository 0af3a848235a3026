//! The integration suite: a real server on a real database, spoken to over HTTP, once on each engine.
//!
//! It mirrors the API: one file for each section of the specification. `./test` runs it on SQLite and on a
//! throwaway PostgreSQL; plain `cargo test` runs the SQLite half and says so.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that can not go on should fail where it stands"
)]

mod account_data;
mod account_moderation;
mod acts;
mod administration;
mod bad_input;
mod before;
mod cluster;
mod counting;
mod cut;
mod dehydrated_device;
mod delayed_event;
mod deprecated;
mod device_lists;
mod directory;
mod disk;
mod durable;
mod durable_acts;
mod encryption;
mod erasure;
mod federation;
mod files;
mod forwarding;
mod guests;
mod holding;
mod http2;
mod identity_server;
mod images;
mod invite_permission;
mod key_backup;
mod keys;
mod layers;
mod mail_server;
mod media;
mod media_abuse;
mod media_admin;
mod media_bounds;
mod media_stores;
mod moderation;
mod notices;
mod odd_paths;
mod odd_state;
mod operating;
mod operator;
mod outage;
mod owned_state;
mod pictures;
mod presence;
mod program;
mod proxy;
mod push_rules;
mod quota;
mod rate_limits;
mod reading;
mod receipt;
mod redaction;
mod registration;
mod relations;
mod restore;
mod rooms;
mod rtc;
mod s3_server;
mod search;
mod service;
mod specification;
mod start;
mod sync;
mod sync_model;
mod sync_telling;
mod terms;
mod third_party_invite;
mod threepid;
mod timestamp;
mod to_device;
mod to_device_model;
mod typing;
mod upgrade;
mod user_directory;
mod world;
mod writing;
