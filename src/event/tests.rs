//! What differs between room versions: identifiers, hashes, redaction. A table for each.

use std::sync::Arc;

use ruma::{
    CanonicalJsonObject, OwnedEventId, RoomVersionId, owned_server_name,
    serde::Base64,
    signatures::{PublicKeyMap, Verified, verify_event},
};
use serde_json::{Value, json};

use super::*;
use crate::ground::room_version::{STABLE, rules};

const SERVER: &str = "here";
const TARGET: &str = "$target";

fn number(version: &RoomVersionId) -> u8 {
    version.as_str().parse().unwrap()
}

fn key() -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "ed25519:a").unwrap()
}

fn keys(key: &SigningKey) -> PublicKeyMap {
    let public = Base64::new(key.public_key().to_vec());
    [(SERVER.to_owned(), [("ed25519:a".to_owned(), public)].into())].into()
}

fn sign(key: &SigningKey, version: &RoomVersionId, draft: Draft) -> Pdu {
    let create = draft.kind == "m.room.create".into();
    let room_id = (!create || number(version) < 12).then(|| "!room:here".try_into().unwrap());
    let place = GraphPlace { room_id, depth: 1, prev_events: Vec::new(), auth_events: Vec::new() };
    let now = ruma::MilliSecondsSinceUnixEpoch(ruma::uint!(1_000));
    draft.sign(&place, now, &owned_server_name!("here"), key, rules(version).unwrap()).unwrap()
}

fn draft(kind: &str, state_key: Option<&str>, content: Value) -> Draft {
    let content = serde_json::from_value(content).unwrap();
    let mut draft = Draft::message("@alice:here".try_into().unwrap(), kind.into(), content);
    draft.state_key = state_key.map(ToOwned::to_owned);
    draft
}

/// An event with some fields added or replaced, whatever that does to its hashes.
fn altered(pdu: &Pdu, fields: &Value) -> CanonicalJsonObject {
    let mut object = serde_json::to_value(pdu.to_object().unwrap()).unwrap();
    object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value(object).unwrap()
}

#[test]
fn an_identifier_is_the_hash_of_what_redaction_leaves() {
    let key = key();
    for version in STABLE {
        let rules = rules(&version).unwrap();
        let pdu = sign(&key, &version, draft("m.room.topic", Some(""), json!({ "topic": "hello" })));
        let id = pdu.event_id().as_str();
        assert!(id.len() == 44 && id.starts_with('$') && !id.contains(['+', '/', '=']), "{version}: {id}");

        let because = Arc::new(sign(&key, &version, draft("m.room.redaction", None, json!({}))));
        let redacted = pdu.redacted(because).unwrap();
        let again = Pdu::from_canonical(&redacted.to_object().unwrap(), rules).unwrap();
        assert_eq!(again.event_id(), pdu.event_id(), "{version}: redaction keeps the identifier");
        assert_eq!(redacted.event_id(), pdu.event_id());
        let with_unsigned = altered(&pdu, &json!({ "unsigned": { "age": 1 } }));
        assert_eq!(Pdu::from_canonical(&with_unsigned, rules).unwrap().event_id(), pdu.event_id(), "{version}");
        let deeper = altered(&pdu, &json!({ "depth": 2 }));
        assert_ne!(Pdu::from_canonical(&deeper, rules).unwrap().event_id(), pdu.event_id(), "{version}");
    }
}

#[test]
fn hashes_and_signatures_hold_until_something_is_changed() {
    let key = key();
    for version in STABLE {
        let rules = rules(&version).unwrap();
        let verify = |object: &CanonicalJsonObject| verify_event(&keys(&key), object, rules);
        let pdu = sign(&key, &version, draft("m.room.message", None, json!({ "body": "hello" })));
        assert_eq!(verify(&pdu.to_object().unwrap()).unwrap(), Verified::All, "{version}");
        let other_words = altered(&pdu, &json!({ "content": { "body": "goodbye" } }));
        assert_eq!(verify(&other_words).unwrap(), Verified::Signatures, "{version}: the content hash differs");
        assert!(verify(&altered(&pdu, &json!({ "depth": 2 }))).is_err(), "{version}: the signature covers it");
    }
}

#[test]
fn a_room_is_named_by_its_create_event_since_version_12() {
    let key = key();
    for version in STABLE {
        let create = sign(&key, &version, draft("m.room.create", Some(""), json!({ "room_version": version })));
        let names_room = create.to_object().unwrap().contains_key("room_id");
        let expected = match number(&version) {
            12 => create.event_id().as_str().replace('$', "!"),
            _ => "!room:here".to_owned(),
        };
        assert_eq!((create.room_id().as_str(), names_room), (expected.as_str(), number(&version) < 12), "{version}");
    }
}

#[test]
fn a_redaction_names_its_target_where_its_version_wants_it_and_to_clients_everywhere() {
    let key = key();
    for version in STABLE {
        let mut redaction = draft("m.room.redaction", None, json!({ "reason": "typo" }));
        redaction.redacts = Some(OwnedEventId::try_from(TARGET).unwrap());
        let pdu = sign(&key, &version, redaction);
        assert_eq!(pdu.redacts().unwrap(), TARGET, "{version}");
        let json: Value = serde_json::from_str(pdu.json().get()).unwrap();
        let (outside, inside) = (json.get("redacts"), json["content"].get("redacts"));
        let target = json!(TARGET);
        let expected = if number(&version) < 11 { (Some(&target), None) } else { (None, Some(&target)) };
        assert_eq!((outside, inside), expected, "{version}");

        let client = client_event::<Value>(&pdu, &ClientFormat::default());
        let client: Value = serde_json::from_str(client.json().get()).unwrap();
        assert_eq!((&client["redacts"], &client["content"]["redacts"]), (&target, &target), "{version}");
        assert_eq!(client["content"]["reason"], "typo", "{version}");
    }
}

/// What redaction leaves of a content, by the first version in which it does.
///
/// <https://spec.matrix.org/v1.19/rooms/v12/#redactions>
#[test]
fn redaction_table() {
    type Row<'a> = (&'a str, Value, &'a [(u8, Value)]);
    let table: [Row<'_>; 9] = [
        (
            "m.room.member",
            json!({
                "membership": "join",
                "displayname": "Alice",
                "join_authorised_via_users_server": "@bob:here",
                "third_party_invite": { "display_name": "a", "signed": { "token": "t" } },
            }),
            &[
                (6, json!({ "membership": "join" })),
                (9, json!({ "membership": "join", "join_authorised_via_users_server": "@bob:here" })),
                (
                    11,
                    json!({
                        "membership": "join",
                        "join_authorised_via_users_server": "@bob:here",
                        "third_party_invite": { "signed": { "token": "t" } },
                    }),
                ),
            ],
        ),
        (
            "m.room.create",
            json!({ "creator": "@alice:here", "m.federate": false, "type": "m.space" }),
            &[
                (6, json!({ "creator": "@alice:here" })),
                (11, json!({ "creator": "@alice:here", "m.federate": false, "type": "m.space" })),
            ],
        ),
        (
            "m.room.join_rules",
            json!({ "join_rule": "restricted", "allow": [], "other": 1 }),
            &[(6, json!({ "join_rule": "restricted" })), (8, json!({ "join_rule": "restricted", "allow": [] }))],
        ),
        (
            "m.room.power_levels",
            json!({
                "ban": 1, "events": { "a": 2 }, "events_default": 3, "invite": 4, "kick": 5, "notifications": { "room": 6 },
                "redact": 7, "state_default": 8, "users": { "@alice:here": 9 }, "users_default": 10,
            }),
            &[
                (
                    6,
                    json!({
                        "ban": 1, "events": { "a": 2 }, "events_default": 3, "kick": 5, "redact": 7,
                        "state_default": 8, "users": { "@alice:here": 9 }, "users_default": 10,
                    }),
                ),
                (
                    11,
                    json!({
                        "ban": 1, "events": { "a": 2 }, "events_default": 3, "invite": 4, "kick": 5, "redact": 7,
                        "state_default": 8, "users": { "@alice:here": 9 }, "users_default": 10,
                    }),
                ),
            ],
        ),
        (
            "m.room.history_visibility",
            json!({ "history_visibility": "joined", "other": 1 }),
            &[(6, json!({ "history_visibility": "joined" }))],
        ),
        (
            "m.room.redaction",
            json!({ "redacts": TARGET, "reason": "typo" }),
            &[(6, json!({})), (11, json!({ "redacts": TARGET }))],
        ),
        ("m.room.aliases", json!({ "aliases": ["#a:here"] }), &[(6, json!({}))]),
        ("m.room.message", json!({ "body": "hello" }), &[(6, json!({}))]),
        ("m.room.name", json!({ "name": "Kitchen" }), &[(6, json!({}))]),
    ];
    let key = key();
    for version in STABLE {
        let because = Arc::new(sign(&key, &version, draft("m.room.redaction", None, json!({}))));
        for (kind, content, kept) in &table {
            let pdu = sign(&key, &version, draft(kind, Some(""), content.clone()));
            let redacted = pdu.redacted(Arc::clone(&because)).unwrap();
            let (_, expected) = kept.iter().rev().find(|(since, _)| *since <= number(&version)).unwrap();
            let left: Value = serde_json::from_str(redacted.content().get()).unwrap();
            assert_eq!(left, *expected, "{kind} in version {version}");
        }
    }
}

#[test]
fn redaction_keeps_the_fields_that_make_an_event() {
    let key = key();
    let extra =
        json!({ "origin": "here", "membership": "join", "prev_state": [], "unsigned": { "age": 1 }, "other": 1 });
    for version in STABLE {
        let pdu = sign(&key, &version, draft("m.room.name", Some(""), json!({ "name": "Kitchen" })));
        let pdu = Pdu::from_canonical(&altered(&pdu, &extra), rules(&version).unwrap()).unwrap();
        let because = Arc::new(sign(&key, &version, draft("m.room.redaction", None, json!({}))));
        let redacted = pdu.redacted(because).unwrap().to_object().unwrap();
        let mut expected = vec![
            "auth_events",
            "content",
            "depth",
            "hashes",
            "origin_server_ts",
            "prev_events",
            "room_id",
            "sender",
            "signatures",
            "state_key",
            "type",
        ];
        if number(&version) < 11 {
            expected.extend(["membership", "origin", "prev_state"]);
            expected.sort_unstable();
        }
        assert_eq!(redacted.keys().collect::<Vec<_>>(), expected, "version {version}");
    }
}
