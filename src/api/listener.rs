//! What a listener is not for is not there: an address in `listen` may be for clients alone, or for other servers alone.
//!
//! What belongs to neither is served at all of them: the front page, health checks, what other nodes forward, and the
//! well-known URIs, which are asked for at the server's name.

use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use ruma::api::error::ErrorKind;

use super::error::ApiError;
use crate::config::ServedApis;

/// Paths of the one API.
const OF_SERVERS: [&str; 2] = ["/_matrix/federation/", "/_matrix/key/"];
/// Paths of the other. Servers of years ago fetch media where clients do.
const OF_CLIENTS: [&str; 2] = ["/_matrix/client/", "/_synapse/"];

/// Stands around everything. Routes match paths as they are written, and so does this.
pub(super) async fn restrict(request: Request, next: Next) -> Response {
    let served = request.extensions().get::<ServedApis>().copied().unwrap_or_default();
    if serves(served, request.uri().path()) {
        return next.run(request).await;
    }
    let message = "This API is not served at this address of the server".to_owned();
    ApiError::Status(StatusCode::NOT_FOUND, ErrorKind::Unrecognized, message).into_response()
}

fn serves(apis: ServedApis, path: &str) -> bool {
    let is_among = |prefixes: [&str; 2]| prefixes.iter().any(|prefix| path.starts_with(prefix));
    match apis {
        ServedApis::All => true,
        ServedApis::Client => !is_among(OF_SERVERS),
        ServedApis::Federation => !is_among(OF_CLIENTS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_for_some_is_for_nobody_else() {
        for (path, to_clients, to_servers) in [
            ("/_matrix/client/v3/sync", true, false),
            ("/_matrix/client/versions", true, false),
            ("/_synapse/admin/v1/register", true, false),
            ("/_matrix/federation/v1/version", false, true),
            ("/_matrix/federation/v2/send_join/!a:b/$c", false, true),
            ("/_matrix/key/v2/server", false, true),
            ("/_matrix/media/v3/download/example.org/abc", true, true),
            ("/.well-known/matrix/server", true, true),
            ("/.well-known/matrix/client", true, true),
            ("/health", true, true),
            ("/", true, true),
            ("/_hearth/forwarded", true, true),
        ] {
            assert!(serves(ServedApis::All, path), "{path}");
            assert_eq!(serves(ServedApis::Client, path), to_clients, "{path}");
            assert_eq!(serves(ServedApis::Federation, path), to_servers, "{path}");
        }
    }
}
