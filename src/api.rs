//! The HTTP API: parse → one domain call → reply. Nothing here decides anything.

pub(crate) mod auth;
pub(crate) mod client;
pub(crate) mod content;
pub(crate) mod error;
pub(crate) mod extract;
pub(crate) mod route;

pub use self::client::router;
