//! The tables: SQL and the values that come out of it, one file for each family of tables. No policy.
//!
//! One file for each table or family of tables: its statements, the types that its rows are read as, and a function for
//! each thing that is asked of it. Functions take a connection, so whoever calls them decides what is one transaction.
//! `find_…` may find nothing, `list_…` may be empty; nothing here decides what that means. Times are milliseconds since
//! the Unix epoch.

pub(crate) mod account;
pub(crate) mod account_data;
pub(crate) mod alias;
pub(crate) mod attention;
pub(crate) mod cross_signing;
pub(crate) mod cursor;
pub(crate) mod dehydrated_device;
pub(crate) mod delayed_event;
pub(crate) mod destination;
pub(crate) mod device;
pub(crate) mod device_key;
pub(crate) mod device_list;
pub(crate) mod ephemeral;
pub(crate) mod erasure;
pub(crate) mod errand;
pub(crate) mod event;
pub(crate) mod filter;
pub(crate) mod history;
pub(crate) mod inbound;
pub(crate) mod key_backup;
pub(crate) mod log;
pub(crate) mod media;
pub(crate) mod media_object;
pub(crate) mod media_quarantine;
pub(crate) mod media_thumbnail;
pub(crate) mod media_upkeep;
pub(crate) mod membership;
pub(crate) mod moment;
pub(crate) mod node;
pub(crate) mod one_time_key;
pub(crate) mod outside_membership;
pub(crate) mod profile;
pub(crate) mod redaction;
pub(crate) mod registration;
pub(crate) mod relation;
pub(crate) mod report;
pub(crate) mod room;
pub(crate) mod room_entry;
pub(crate) mod search;
pub(crate) mod server;
pub(crate) mod server_key;
pub(crate) mod signing_key;
pub(crate) mod state;
pub(crate) mod threepid;
pub(crate) mod to_device;
pub(crate) mod token;
pub(crate) mod uia;
pub(crate) mod url_preview;
pub(crate) mod usage;
pub(crate) mod user_directory;

#[cfg(test)]
mod tests;
