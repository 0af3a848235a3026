use ruma::{RoomVersionId, serde::Base64, server_name, signatures::hash_and_sign_event};
use serde_json::{Value, json};

use super::*;
use crate::{
    event::SigningKey,
    ground::room_version::{STABLE, rules},
};

fn key(name: &str) -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), &format!("ed25519:{name}")).unwrap()
}

/// What somebody knows of the keys of one server.
fn known(server: &str, keys: &[&SigningKey]) -> PublicKeyMap {
    let keys = keys.iter().map(|key| (key.id().to_string(), Base64::new(key.public_key().to_vec())));
    [(server.to_owned(), keys.collect())].into()
}

/// A message of somebody on `there`, with other fields in the place of these.
fn event(fields: Value) -> CanonicalJsonObject {
    let mut event = json!({
        "room_id": "!room:there",
        "sender": "@bob:there",
        "type": "m.room.message",
        "content": { "body": "hello" },
        "origin_server_ts": 1_000,
        "depth": 5,
        "prev_events": ["$before"],
        "auth_events": ["$create"],
    });
    let Value::Object(fields) = fields else { panic!("{fields}") };
    event.as_object_mut().unwrap().extend(fields);
    serde_json::from_value(event).unwrap()
}

fn signed(mut event: CanonicalJsonObject, by: &[(&str, &SigningKey)], rules: &RoomVersionRules) -> CanonicalJsonObject {
    for (server, key) in by {
        hash_and_sign_event(server, *key, &mut event, &rules.redaction).unwrap();
    }
    event
}

fn read(event: &CanonicalJsonObject, rules: &'static RoomVersionRules) -> Result<ReceivedPdu, ReceivedError> {
    ReceivedPdu::read(&serde_json::value::to_raw_value(event).unwrap(), rules)
}

fn v11() -> &'static RoomVersionRules {
    rules(&RoomVersionId::V11).unwrap()
}

#[test]
fn an_event_that_is_signed_and_whole_is_taken_in_every_version() {
    let own = key("a");
    for version in STABLE {
        let rules = rules(&version).unwrap();
        let mut sent = signed(event(json!({})), &[("there", &own)], rules);
        sent.insert("unsigned".to_owned(), serde_json::from_value(json!({ "age": 7 })).unwrap());
        let received = read(&sent, rules).unwrap();
        let signers = received.signers().unwrap();
        assert_eq!(signers.keys().collect::<Vec<_>>(), ["there"], "{version}");
        assert_eq!(signers[server_name!("there")][0].as_str(), "ed25519:a");
        let pdu = received.verify(&known("there", &[&own])).unwrap();
        assert_eq!(pdu.event_id(), received.event_id());
        assert_eq!(pdu.content().get(), r#"{"body":"hello"}"#);
        assert!(!pdu.json().get().contains("unsigned"), "{version}: nobody has signed that");
    }
}

#[test]
fn whose_hash_differs_comes_redacted() {
    let own = key("a");
    let mut sent = signed(event(json!({})), &[("there", &own)], v11());
    sent.insert("content".to_owned(), serde_json::from_value(json!({ "body": "goodbye" })).unwrap());
    let received = read(&sent, v11()).unwrap();
    let pdu = received.verify(&known("there", &[&own])).unwrap();
    assert_eq!(pdu.content().get(), "{}");
    assert_eq!(pdu.event_id(), received.event_id());
}

#[test]
fn a_signature_that_is_missing_or_wrong_drops_the_event() {
    let (own, other) = (key("a"), key("a"));
    let sent = signed(event(json!({})), &[("there", &own)], v11());
    let received = read(&sent, v11()).unwrap();
    assert!(received.verify(&known("there", &[&other])).is_err(), "another key of the same name");
    assert!(received.verify(&known("elsewhere", &[&own])).is_err(), "nobody looked for that server's keys");
    assert!(received.verify(&known("there", &[])).is_err(), "no key was good at that time");

    let deeper = CanonicalJsonObject::from_iter([("depth".to_owned(), int!(9).into())]);
    let changed: CanonicalJsonObject = sent.clone().into_iter().chain(deeper).collect();
    assert!(read(&changed, v11()).unwrap().verify(&known("there", &[&own])).is_err());

    let by_another = signed(event(json!({})), &[("elsewhere", &own)], v11());
    let unsigned = read(&by_another, v11()).unwrap().signers().unwrap_err();
    assert!(matches!(unsigned, ReceivedError::Unsigned(server) if server == "there"));
}

/// A key that nobody knows, or that had expired, is skipped where another one has signed as well.
#[test]
fn one_good_signature_of_a_server_is_enough() {
    let (old, new) = (key("a"), key("b"));
    let mut sent = event(json!({}));
    for own in [&old, &new] {
        hash_and_sign_event("there", own, &mut sent, &v11().redaction).unwrap();
    }
    let received = read(&sent, v11()).unwrap();
    assert_eq!(received.signers().unwrap()[server_name!("there")].len(), 2);
    received.verify(&known("there", &[&new])).unwrap();
    received.verify(&known("there", &[&old])).unwrap();
}

#[test]
fn whoever_lets_somebody_into_a_restricted_room_signs_too() {
    let (own, host) = (key("a"), key("b"));
    let join = json!({
        "type": "m.room.member",
        "state_key": "@bob:there",
        "content": { "membership": "join", "join_authorised_via_users_server": "@host:resident" },
    });
    let alone = read(&signed(event(join.clone()), &[("there", &own)], v11()), v11()).unwrap();
    assert!(matches!(alone.signers(), Err(ReceivedError::Unsigned(server)) if server == "resident"));

    let both = read(&signed(event(join.clone()), &[("there", &own), ("resident", &host)], v11()), v11()).unwrap();
    assert_eq!(both.signers().unwrap().len(), 2);
    let mut keys = known("there", &[&own]);
    assert!(both.verify(&keys).is_err());
    keys.extend(known("resident", &[&host]));
    both.verify(&keys).unwrap();

    let v7 = rules(&RoomVersionId::V7).unwrap();
    let before = read(&signed(event(join), &[("there", &own)], v7), v7).unwrap();
    before.verify(&known("there", &[&own])).expect("version 7 knows no restricted rooms");
}

/// In a message such a field is nobody's business: to ask for a signature there would have us miss what all others have.
#[test]
fn nothing_but_a_membership_is_authorised_by_somebody() {
    let own = key("a");
    for named in [json!("@host:resident"), json!(7)] {
        let content = json!({ "join_authorised_via_users_server": named });
        let sent = signed(event(json!({ "content": content })), &[("there", &own)], v11());
        let received = read(&sent, v11()).unwrap();
        assert_eq!(received.signers().unwrap().len(), 1);
        received.verify(&known("there", &[&own])).unwrap();
    }
}

#[test]
fn an_invitation_by_a_third_party_may_come_from_any_server() {
    let own = key("a");
    let invite = json!({
        "type": "m.room.member",
        "state_key": "@carol:elsewhere",
        "content": { "membership": "invite", "third_party_invite": { "signed": {} } },
    });
    let received = read(&signed(event(invite), &[("elsewhere", &own)], v11()), v11()).unwrap();
    assert!(received.signers().unwrap().is_empty());
    received.verify(&PublicKeyMap::new()).unwrap();
}

#[test]
fn what_is_no_event_of_the_room_version_is_dropped() {
    let own = key("a");
    let ids = |count: usize| json!(vec!["$some"; count]);
    for fields in [
        json!({ "type": 7 }),
        json!({ "state_key": null }),
        json!({ "state_key": 7 }),
        json!({ "content": [] }),
        json!({ "content": null }),
        json!({ "depth": "5" }),
        json!({ "depth": -1 }),
        json!({ "origin_server_ts": -1 }),
        json!({ "sender": "bob" }),
        json!({ "room_id": null }),
        json!({ "room_id": "room" }),
        json!({ "prev_events": {} }),
        json!({ "prev_events": [7] }),
        json!({ "prev_events": ids(21) }),
        json!({ "auth_events": ids(11) }),
    ] {
        let mut sent = signed(event(json!({})), &[("there", &own)], v11());
        sent.extend(serde_json::from_value::<CanonicalJsonObject>(fields.clone()).unwrap());
        assert!(read(&sent, v11()).is_err(), "{fields}");
    }
    for missing in ["room_id", "sender", "hashes", "signatures", "prev_events", "auth_events", "depth", "content"] {
        let mut sent = signed(event(json!({})), &[("there", &own)], v11());
        sent.remove(missing);
        assert!(read(&sent, v11()).is_err(), "{missing}");
    }
    let most = signed(event(json!({ "prev_events": ids(20), "auth_events": ids(10) })), &[("there", &own)], v11());
    read(&most, v11()).unwrap();
    // Anything may stand where the version knows of nothing.
    read(&signed(event(json!({ "redacts": [7] })), &[("there", &own)], v11()), v11()).unwrap();
}

#[test]
fn a_room_is_named_by_all_events_but_its_create_event_since_version_12() {
    let own = key("a");
    for version in [RoomVersionId::V11, RoomVersionId::V12] {
        let rules = rules(&version).unwrap();
        let create = json!({ "type": "m.room.create", "state_key": "", "prev_events": [], "auth_events": [] });
        let named = signed(event(create), &[("there", &own)], rules);
        let mut unnamed = named.clone();
        unnamed.remove("room_id");
        let expected = version == RoomVersionId::V11;
        assert_eq!(read(&named, rules).is_ok(), expected, "{version}");
        assert_eq!(read(&unnamed, rules).is_ok(), !expected, "{version}");
        let mut message = signed(event(json!({})), &[("there", &own)], rules);
        message.remove("room_id");
        assert!(read(&message, rules).is_err(), "{version}");
    }
}

/// Trap: canonical JSON by room version. Every version that is spoken here enforces it.
#[test]
fn what_is_no_canonical_json_is_dropped_in_every_version() {
    let own = key("a");
    for version in STABLE {
        let rules = rules(&version).unwrap();
        let text = serde_json::to_string(&signed(event(json!({})), &[("there", &own)], rules)).unwrap();
        let with = |body: &str| {
            let text = text.replace(r#""body":"hello""#, body);
            ReceivedPdu::read(&RawValue::from_string(text).unwrap(), rules)
        };
        with(r#""body":"hello""#).unwrap();
        with(r#""body":9007199254740991"#).unwrap();
        for body in [
            r#""body":1.0"#,
            r#""body":1e3"#,
            r#""body":9007199254740992"#,
            r#""body":-9007199254740992"#,
            r#""body":"hello","body":"goodbye""#,
        ] {
            assert!(matches!(with(body), Err(ReceivedError::Json(_))), "{version}: {body}");
        }
    }
}

/// Trap: sizes (65,536-byte PDU, 255-byte fields, deep nesting).
#[test]
fn what_is_too_large_is_dropped() {
    let own = key("a");
    let of_length = |length: usize| {
        let body = |bytes: usize| json!({ "content": { "body": "x".repeat(bytes) } });
        let rest = serde_json::to_string(&signed(event(body(0)), &[("there", &own)], v11())).unwrap().len();
        signed(event(body(length - rest)), &[("there", &own)], v11())
    };
    read(&of_length(65_000), v11()).unwrap();
    read(&of_length(65_536), v11()).unwrap();
    let mut with_unsigned = of_length(65_536);
    with_unsigned.insert("unsigned".to_owned(), serde_json::from_value(json!({ "age": 7 })).unwrap());
    read(&with_unsigned, v11()).expect("that is no part of the event");
    // A signature more makes it larger without changing its hash.
    let mut larger = of_length(65_536);
    hash_and_sign_event("elsewhere", &own, &mut larger, &v11().redaction).unwrap();
    assert!(read(&larger, v11()).is_err());

    let long = |bytes: usize| "x".repeat(bytes);
    for (field, allowed) in [("type", 255), ("state_key", 255)] {
        for (bytes, taken) in [(allowed, true), (allowed + 1, false)] {
            let sent = signed(event(json!({ field: long(bytes) })), &[("there", &own)], v11());
            assert_eq!(read(&sent, v11()).is_ok(), taken, "{field} of {bytes}");
        }
    }
    let nul = signed(event(json!({ "state_key": "a\0b" })), &[("there", &own)], v11());
    assert!(read(&nul, v11()).is_err());
    let huge = format!("{{\"unsigned\":\"{}\"}}", long(MAX_RAW_BYTES));
    let huge = ReceivedPdu::read(&RawValue::from_string(huge).unwrap(), v11());
    assert!(matches!(huge, Err(ReceivedError::TooLarge { .. })));
}
