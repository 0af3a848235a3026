//! What guests may call: what the specification lists for them and what asks nobody for a token. Whatever is not in
//! the list is closed to them, so that a new endpoint is too.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#guest-access>

use http::Method;
use ruma::api::error::ErrorKind;

use crate::{
    account::Caller,
    error::{Error, Result},
};

const ROOT: &str = "/_matrix/client/";

/// Guests are let in at the stable paths only.
const VERSIONS: [&str; 3] = ["r0", "v1", "v3"];

/// Method and path behind the version, in the order of the specification. `{}` is any one part of a path.
const OPEN: [(&str, &str); 30] = [
    ("GET", "rooms/{}/state"),
    ("GET", "rooms/{}/context/{}"),
    ("GET", "rooms/{}/event/{}"),
    ("GET", "rooms/{}/state/{}"),
    ("GET", "rooms/{}/state/{}/{}"),
    ("GET", "rooms/{}/messages"),
    ("GET", "rooms/{}/members"),
    ("GET", "rooms/{}/initialSync"),
    ("GET", "sync"),
    ("GET", "events"),
    ("GET", "media/download/{}/{}"),
    ("GET", "media/download/{}/{}/{}"),
    ("GET", "media/thumbnail/{}/{}"),
    ("POST", "rooms/{}/join"),
    ("POST", "rooms/{}/leave"),
    ("PUT", "rooms/{}/send/{}/{}"),
    ("PUT", "rooms/{}/state/{}"),
    ("PUT", "rooms/{}/state/{}/{}"),
    ("PUT", "sendToDevice/{}/{}"),
    ("PUT", "profile/{}/displayname"),
    ("GET", "devices"),
    ("GET", "devices/{}"),
    ("PUT", "devices/{}"),
    ("GET", "account/whoami"),
    ("POST", "keys/upload"),
    ("POST", "keys/query"),
    ("POST", "keys/claim"),
    // Not in the list, but it is the way that clients join by.
    ("POST", "join/{}"),
    // What strangers may ask is not refused to somebody for sending a token along.
    ("GET", "versions"),
    ("GET", "room_summary/{}"),
];

/// Refuses a guest a call that is not for them.
pub(super) fn check(caller: &Caller, method: &Method, path: &str) -> Result<()> {
    if caller.guest && is_open(method, path) { Ok(()) } else { refuse(caller) }
}

/// Refuses a guest whatever they want.
pub(super) fn refuse(caller: &Caller) -> Result<()> {
    if caller.guest {
        let message = "Guests can't do this: register an account";
        return Err(Error::refused(ErrorKind::GuestAccessForbidden, message));
    }
    Ok(())
}

/// `path`: as the client wrote it, or as a route has it.
fn is_open(method: &Method, path: &str) -> bool {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    let Some(path) = path.strip_prefix(ROOT) else { return false };
    let rest = match path.split_once('/') {
        Some((version, rest)) if VERSIONS.contains(&version) => rest,
        Some(_) => return false,
        None => path,
    };
    // An empty state key may leave its slash behind.
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    OPEN.iter().any(|(allowed, pattern)| method.as_str() == *allowed && fits(rest, pattern))
}

fn fits(path: &str, pattern: &str) -> bool {
    let (mut path, mut pattern) = (path.split('/'), pattern.split('/'));
    loop {
        match (path.next(), pattern.next()) {
            (None, None) => return true,
            (Some(part), Some(wanted)) if wanted == "{}" || part == wanted => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api::route;

    /// The section's endpoints, as routes have them.
    fn listed() -> BTreeSet<String> {
        let of_old = [
            "GET rooms/{room_id}/state",
            "GET rooms/{room_id}/context/{event_id}",
            "GET rooms/{room_id}/event/{event_id}",
            "GET rooms/{room_id}/state/{event_type}",
            "GET rooms/{room_id}/state/{event_type}/",
            "GET rooms/{room_id}/state/{event_type}/{state_key}",
            "GET rooms/{room_id}/messages",
            "GET rooms/{room_id}/members",
            "GET rooms/{room_id}/initialSync",
            "GET sync",
            "GET events",
            "POST rooms/{room_id}/join",
            "POST join/{room_id_or_alias}",
            "POST rooms/{room_id}/leave",
            "PUT rooms/{room_id}/send/{event_type}/{txn_id}",
            "PUT rooms/{room_id}/state/{event_type}",
            "PUT rooms/{room_id}/state/{event_type}/",
            "PUT rooms/{room_id}/state/{event_type}/{state_key}",
            "PUT sendToDevice/{event_type}/{txn_id}",
            "GET devices",
            "GET devices/{device_id}",
            "PUT devices/{device_id}",
            "GET account/whoami",
            "POST keys/upload",
            "POST keys/query",
            "POST keys/claim",
        ];
        let of_late = [
            "GET /_matrix/client/v1/media/download/{server_name}/{media_id}",
            "GET /_matrix/client/v1/media/download/{server_name}/{media_id}/{filename}",
            "GET /_matrix/client/v1/media/thumbnail/{server_name}/{media_id}",
            "GET /_matrix/client/v1/room_summary/{room_id_or_alias}",
            "GET /_matrix/client/versions",
        ];
        let versions = ["r0", "v3"]
            .into_iter()
            .flat_map(|version| of_old.iter().map(move |line| line.replacen(' ', &format!(" {ROOT}{version}/"), 1)));
        versions.chain(of_late.map(ToOwned::to_owned)).collect()
    }

    #[test]
    fn of_all_routes_exactly_those_of_the_section_are_open() {
        let (listed, routes) = (listed(), route::list());
        for (method, path) in &routes {
            let line = format!("{method} {path}");
            assert_eq!(is_open(method, path), listed.contains(&line), "{line}");
        }
        let open = routes.iter().filter(|(method, path)| is_open(method, path)).count();
        assert!(open >= 44, "only {open} routes are open: do the patterns fit them?");
    }

    #[test]
    fn of_a_profile_only_the_display_name_is_open() {
        let own = |version: &str, field: &str| format!("{ROOT}{version}/profile/@me:here/{field}");
        assert!(is_open(&Method::PUT, &own("v3", "displayname")) && is_open(&Method::PUT, &own("r0", "displayname")));
        assert!(!is_open(&Method::PUT, &own("v3", "avatar_url")) && !is_open(&Method::PUT, &own("v3", "{field}")));
        assert!(!is_open(&Method::DELETE, &own("v3", "displayname")));
        assert!(!is_open(&Method::PUT, &own("unstable/uk.tcpip.msc4133", "displayname")));
    }

    #[test]
    fn what_looks_like_an_open_path_is_none() {
        for path in [
            "/_matrix/client/v3/rooms/!a/state/..%2Finvite/x/y",
            "/_matrix/client/v3/sync/more",
            "/_matrix/client/unstable/sync",
            "/_matrix/media/v3/sync",
            "/_matrix/client/v3//sync",
            "/_matrix/client/v3/rooms//",
        ] {
            assert!(!is_open(&Method::GET, path), "{path}");
        }
        assert!(is_open(&Method::HEAD, "/_matrix/client/v3/sync"));
        assert!(!is_open(&Method::POST, "/_matrix/client/v3/sync"));
    }
}
