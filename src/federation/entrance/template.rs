//! What another server proposes as a membership event of a user of this one.
//!
//! A template is not signed as it came, or another server could have this one sign anything. What the event says is written
//! here; of the template only what nobody outside can know is taken, the event's place in the room and who lets the user
//! in, after it has been found to be for what was asked for.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_joinroomiduserid>

use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, ServerName, UserId, api::error::ErrorKind,
    events::room::member::MembershipState, room_version_rules::RoomVersionRules,
};
use serde::Deserialize;

use super::{failures::Failed, residents::Template};
use crate::{edge::federation_client::RemoteError, error::Error, event::GraphPlace, ground::room_version};

const MAX_BYTES: usize = 65_536;
const MAX_PREV_EVENTS: usize = 20;
const MAX_AUTH_EVENTS: usize = 10;
/// As large as a number of canonical JSON is.
const MAX_DEPTH: i64 = (1 << 53) - 1;

/// Whose membership of which room was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) room_id: &'a RoomId,
    pub(super) user_id: &'a UserId,
    pub(super) membership: &'a MembershipState,
}

/// What is taken of a template.
#[derive(Debug)]
pub(super) struct Proposed {
    pub(super) version: RoomVersionId,
    pub(super) rules: &'static RoomVersionRules,
    pub(super) place: GraphPlace,
    /// Who lets the user into a restricted room. Of the server that proposes it.
    pub(super) authorised_by: Option<OwnedUserId>,
}

#[derive(Deserialize)]
struct TemplateEvent {
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    state_key: OwnedUserId,
    #[serde(rename = "type")]
    kind: String,
    content: TemplateContent,
    depth: i64,
    prev_events: Vec<OwnedEventId>,
    auth_events: Vec<OwnedEventId>,
}

#[derive(Deserialize)]
struct TemplateContent {
    membership: String,
    #[serde(default)]
    join_authorised_via_users_server: Option<OwnedUserId>,
}

/// Reads what a server proposes. A room version that is not spoken here ends the search for others.
pub(super) fn read(from: &ServerName, template: &Template, wanted: Wanted<'_>) -> Result<Proposed, Failed> {
    let malformed = |what: &str| RemoteError::Malformed(format!("the event that it proposes {what}"));
    let version = template.version.clone().ok_or_else(|| malformed("has no room version"))?;
    let rules = room_version::rules(&version).ok_or_else(|| unsupported(&version))?;
    if template.event.get().len() > MAX_BYTES {
        return Err(malformed("is too long").into());
    }
    // What serde says may quote what is there.
    let event: TemplateEvent =
        serde_json::from_str(template.event.get()).ok().ok_or_else(|| malformed("is not as specified"))?;
    if event.room_id != wanted.room_id {
        return Err(malformed("is of another room").into());
    }
    if event.sender != wanted.user_id || event.state_key != wanted.user_id {
        return Err(malformed("is of another user").into());
    }
    if event.kind != "m.room.member" || event.content.membership != wanted.membership.as_str() {
        return Err(malformed("is for something else").into());
    }
    let (prev_events, auth_events) = (event.prev_events, event.auth_events);
    if prev_events.is_empty() || prev_events.len() > MAX_PREV_EVENTS || auth_events.len() > MAX_AUTH_EVENTS {
        return Err(malformed("follows, or cites, too many events or none").into());
    }
    let is_restricted = rules.authorization.restricted_join_rule && *wanted.membership == MembershipState::Join;
    let authorised_by = event.content.join_authorised_via_users_server.filter(|_| is_restricted);
    if authorised_by.as_ref().is_some_and(|user| user.server_name() != from) {
        return Err(malformed("is authorised by a user of another server").into());
    }
    let depth = event.depth.clamp(0, MAX_DEPTH);
    let place = GraphPlace { room_id: Some(wanted.room_id.to_owned()), depth, prev_events, auth_events };
    Ok(Proposed { version, rules, place, authorised_by })
}

fn unsupported(version: &RoomVersionId) -> Error {
    let message = format!("The room has version {version}, which this server does not speak");
    Error::refused(ErrorKind::UnsupportedRoomVersion, message)
}

#[cfg(test)]
mod tests {
    use ruma::{room_id, server_name, user_id};
    use serde_json::{Value, json, value::to_raw_value};

    use super::*;

    fn wanted() -> Wanted<'static> {
        let membership = &MembershipState::Join;
        Wanted { room_id: room_id!("!room:there"), user_id: user_id!("@bob:here"), membership }
    }

    fn template(changes: &Value, version: &str) -> Template {
        let mut event = json!({
            "room_id": "!room:there",
            "sender": "@bob:here",
            "state_key": "@bob:here",
            "type": "m.room.member",
            "origin": "there",
            "origin_server_ts": 1,
            "content": { "membership": "join" },
            "depth": 7,
            "prev_events": ["$prev"],
            "auth_events": ["$create"],
        });
        event.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        Template { version: Some(version.try_into().unwrap()), event: to_raw_value(&event).unwrap() }
    }

    fn read_joining(changes: &Value) -> Result<Proposed, Failed> {
        read(server_name!("there"), &template(changes, "10"), wanted())
    }

    #[test]
    fn only_a_place_and_who_lets_in_is_taken_of_a_template() {
        // Signing a remote template (CVE-2026-24471).
        let hostile = json!({
            "content": {
                "membership": "join",
                "displayname": "Mallory",
                "third_party_invite": {},
                "join_authorised_via_users_server": "@alice:there",
            },
            "redacts": "$something",
            "org.example.field": "signed by nobody",
            "hashes": {},
            "signatures": { "here": { "ed25519:a": "forged" } },
        });
        let proposed = read_joining(&hostile).unwrap();
        assert_eq!(proposed.authorised_by.as_deref(), Some(user_id!("@alice:there")));
        let GraphPlace { room_id, depth, prev_events, auth_events } = proposed.place;
        assert_eq!((room_id.as_deref(), depth), (Some(wanted().room_id), 7));
        assert_eq!((prev_events.len(), auth_events.len()), (1, 1));
    }

    #[test]
    fn a_template_for_something_else_is_refused() {
        for changes in [
            json!({ "room_id": "!other:there" }),
            json!({ "sender": "@alice:here" }),
            json!({ "state_key": "@alice:here" }),
            json!({ "state_key": "" }),
            json!({ "type": "m.room.power_levels" }),
            json!({ "content": { "membership": "leave" } }),
            json!({ "content": { "membership": "ban" } }),
            json!({ "content": {} }),
            json!({ "content": { "membership": "join", "join_authorised_via_users_server": "@bob:here" } }),
            json!({ "prev_events": [] }),
            json!({ "prev_events": vec!["$e"; 21] }),
            json!({ "auth_events": vec!["$e"; 11] }),
            json!({ "auth_events": null }),
            json!({ "depth": "deep" }),
            json!({ "filling": "x".repeat(MAX_BYTES) }),
        ] {
            let read = read_joining(&changes);
            assert!(matches!(read, Err(Failed::There(RemoteError::Malformed(_)))), "{changes}: {read:?}");
        }
        assert_eq!(read_joining(&json!({ "depth": i64::MAX })).unwrap().place.depth, MAX_DEPTH);
    }

    #[test]
    fn a_room_of_an_unknown_version_is_not_entered() {
        for version in ["1", "5", "org.example.made-up"] {
            let read = read(server_name!("there"), &template(&json!({}), version), wanted());
            assert!(matches!(read, Err(Failed::Here(Error::Refused { .. }))), "{version}: {read:?}");
        }
        let nameless = Template { version: None, ..template(&json!({}), "10") };
        assert!(matches!(read(server_name!("there"), &nameless, wanted()), Err(Failed::There(_))));
    }
}
