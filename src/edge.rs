//! Where the process meets the outside: listeners, logs, metrics, mail, other HTTP servers, stores for media,
//! and Redis.
//!
//! Everything here waits for somebody else's machine, so everything has a bound in time, and most of it one in size.
//! What a stranger sends is not repeated in the log as it is.
//!
//! Nothing here knows of rooms, users' rights or the log's contents: `log` and what lies above it call these modules,
//! never the other way round. Clients, the metrics and the hub are made once at start and are cheap to clone.

pub mod authorities;
pub(crate) mod discovery;
pub(crate) mod federation_client;
pub(crate) mod http_client;
pub(crate) mod hub;
pub(crate) mod identity;
pub(crate) mod mail;
pub mod metrics;
pub(crate) mod object_store;
pub(crate) mod outside_client;
pub mod serve;
pub mod telemetry;
