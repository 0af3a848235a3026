//! What is read from text without a server: tokens, filters, events, seals and the configuration.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri, header, uri::PathAndQuery};
use ruma::{CanonicalJsonObject, RoomVersionId};
use serde_json::{Value, json};

use super::{cases, dice::Dice, mutate};
use crate::{
    config::Config,
    event::{Pdu, fact::NodeId},
    ground::{
        position::{PageToken, Token},
        room_version::{STABLE, rules},
    },
    node::{CallDigest, ForwardedCall, OpenedSeal, Seal},
    people::filter::StoredFilter,
};

#[test]
fn a_token_is_read_as_it_is_written_and_nothing_else_is_one() {
    const TOKENS: &[&str] = &[
        "s0",
        "s7",
        "s7~",
        "s7_aB3-x9",
        "s7_aB3-x9~",
        "s7d_aB3-x9",
        "s7d5_aB3-x9~",
        "s9223372036854775807",
        "s7.5",
        "s-3.12",
    ];
    for mut case in cases("tokens", 2) {
        let dice = &mut case.dice;
        let from = dice.pick(TOKENS);
        let text = if dice.one_in(4) { mutate::junk(dice) } else { mutate::text(dice, from) };
        if let Ok(token) = text.parse::<Token>() {
            assert_eq!(token.to_string(), text);
        }
        if let Ok(token) = text.parse::<PageToken>() {
            assert_eq!(token.to_string().parse::<PageToken>().unwrap(), token, "{text:?}");
        }
    }
}

fn filter() -> Value {
    let events = json!({
        "limit": 10, "types": ["m.*"], "not_types": ["m.room.*"], "senders": ["@a:b"], "not_senders": ["@c:d"],
        "rooms": ["!a:b"], "not_rooms": ["!c:d"], "contains_url": true, "lazy_load_members": true,
        "include_redundant_members": false, "unread_thread_notifications": true, "rel_types": ["m.thread"],
        "not_rel_types": ["m.replace"], "related_by_rel_types": ["m.annotation"], "related_by_senders": ["@a:b"],
    });
    json!({
        "event_fields": ["type", "content.body"], "event_format": "client", "presence": events,
        "account_data": { "types": ["m.direct"] },
        "room": {
            "rooms": ["!a:b"], "not_rooms": ["!c:d"], "include_leave": true, "timeline": events, "state": events,
            "ephemeral": events, "account_data": events,
        },
    })
}

#[test]
fn a_filter_is_read_again_as_it_was_stored() {
    for mut case in cases("filters", 3) {
        let written = mutate::written(&mut case.dice, filter());
        let Ok(text) = String::from_utf8(written) else { continue };
        let Ok(filter) = StoredFilter::from_json(&text) else { continue };
        let stored = filter.to_json().unwrap();
        assert!(stored.len() <= 2 * text.len() + 4096, "{} bytes become {}", text.len(), stored.len());
        let again = StoredFilter::from_json(&stored).unwrap_or_else(|error| panic!("{error}: {stored} of {text}"));
        assert_eq!(again.to_json().unwrap(), stored, "{text}");
    }
}

fn event(dice: &mut Dice) -> Value {
    let content = match dice.below(5) {
        0 => json!({ "membership": "join", "displayname": "Anna", "third_party_invite": { "signed": {} } }),
        1 => {
            json!({ "users": { "@alice:here": 100 }, "events": { "m.room.name": 50 }, "state_default": 50, "ban": "50" })
        }
        2 => json!({ "redacts": "$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "reason": "because" }),
        3 => json!({ "room_version": "11", "creator": "@alice:here", "predecessor": { "room_id": "!b:here" } }),
        _ => json!({ "body": "hello", "m.relates_to": { "rel_type": "m.thread", "event_id": "$a" } }),
    };
    let kind =
        dice.pick(&["m.room.member", "m.room.power_levels", "m.room.redaction", "m.room.create", "m.room.message"]);
    json!({
        "room_id": "!room:here", "sender": "@alice:here", "type": kind, "state_key": "", "content": content,
        "origin_server_ts": 1_700_000_000_000_i64, "depth": 5, "prev_events": ["$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"],
        "auth_events": ["$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"], "hashes": { "sha256": "aaaa" },
        "signatures": { "here": { "ed25519:a": "bbbb" } }, "unsigned": { "age": 4 },
        "redacts": "$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    })
}

#[test]
fn an_event_keeps_its_bytes_its_name_and_what_a_redaction_leaves() {
    for mut case in cases("pdus", 5) {
        let event = event(&mut case.dice);
        let written = mutate::written(&mut case.dice, event);
        let Ok(object) = serde_json::from_slice::<CanonicalJsonObject>(&written) else { continue };
        let version: RoomVersionId = case.dice.of(&STABLE).clone();
        let rules = rules(&version).unwrap();
        let Ok(pdu) = Pdu::from_canonical(&object, rules) else { continue };
        assert_eq!(serde_json::from_str::<CanonicalJsonObject>(pdu.json().get()).unwrap(), object, "{version}");
        let stored = Pdu::from_stored(pdu.event_id().to_owned(), pdu.json().get().to_owned(), rules).unwrap();
        assert_eq!((stored.json().get(), stored.sender()), (pdu.json().get(), pdu.sender()));
        assert_eq!((stored.kind(), stored.state_key()), (pdu.kind(), pdu.state_key()));
        let Ok(stripped) = pdu.stripped() else { continue };
        // Redaction changes no name, and a second one nothing.
        let named = Pdu::from_canonical(&stripped.to_object().unwrap(), rules).unwrap();
        assert_eq!(named.event_id(), pdu.event_id(), "{version}: {}", pdu.json());
        assert_eq!(stripped.stripped().unwrap().json().get(), stripped.json().get(), "{version}");
        assert!(stripped.json().get().len() <= pdu.json().get().len());
    }
}

#[test]
fn a_seal_opens_as_it_was_closed_and_no_other_opens() {
    let seal = Seal::new(b"secret of all nodes");
    let (here, now) = (NodeId::from("here".to_owned()), 1_000_000);
    let address: IpAddr = "192.0.2.7".parse().unwrap();
    for mut case in cases("seals", 3) {
        let dice = &mut case.dice;
        let call = CallDigest::of(&mutate::bytes(dice, br#"{"body":"hello"}"#.to_vec()));
        let closed = seal.close(&here, &call, address, now);
        assert_eq!(seal.open(&closed, &here, now), Some(OpenedSeal::Ours(address, call)));
        let other_seal = mutate::text(dice, &closed);
        // Figures may be written in capitals.
        if !other_seal.eq_ignore_ascii_case(&closed) {
            assert_eq!(seal.open(&other_seal, &here, now), None, "{closed} as {other_seal}");
        }
    }
}

/// Whatever a client has written arrives as it was, and what no node has written is none.
#[test]
fn a_forwarded_call_is_unpacked_as_it_was_packed() {
    for mut case in cases("forwarded calls", 3) {
        let dice = &mut case.dice;
        let target = mutate::text(dice, "/_matrix/client/v3/rooms/%21r/send/m.room.message/1?ts=7");
        // As the listener has it.
        let Some(target) = target.starts_with('/').then(|| target.parse::<PathAndQuery>().ok()).flatten() else {
            continue;
        };
        let target = Uri::from(target);
        let mut headers = HeaderMap::new();
        if let Ok(token) = HeaderValue::from_bytes(&mutate::bytes(dice, b"Bearer secret".to_vec())) {
            headers.insert(header::AUTHORIZATION, token);
        }
        let body = mutate::bytes(dice, br#"{"body":"hello"}"#.to_vec());
        let packed = ForwardedCall::pack(&Method::PUT, &target, &headers, &body);
        let call = ForwardedCall::unpack(packed.clone()).unwrap();
        assert_eq!(call, ForwardedCall { method: Method::PUT, target, headers, body: body.into() });
        let other = Bytes::from(mutate::bytes(dice, packed.to_vec()));
        if let Some(call) = ForwardedCall::unpack(other) {
            let again = ForwardedCall::pack(&call.method, &call.target, &call.headers, &call.body);
            assert_eq!(ForwardedCall::unpack(again), Some(call));
        }
    }
}

/// The example with everything switched on.
fn configuration() -> String {
    let switch_on = |line: &'static str| match line.strip_prefix('#') {
        Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => setting,
        _ => line,
    };
    include_str!("../../config.example.toml").lines().map(switch_on).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_configuration_is_taken_or_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let (file, whole) = (folder.path().join("hearth.toml"), configuration());
    let lines: Vec<&str> = whole.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    for mut case in cases("configuration", 5) {
        let dice = &mut case.dice;
        let begin = dice.below(lines.len());
        let end = (begin + 1 + dice.small(60)).min(lines.len());
        let text = mutate::bytes(dice, lines[begin..end].join("\n").into_bytes());
        std::fs::write(&file, &text).unwrap();
        let line = dice.of(&lines);
        let (key, value) = line.split_once(" = ").unwrap_or(("listen", "127.0.0.1:8008"));
        let variable = (format!("HEARTH_{}", key.to_uppercase()), mutate::text(dice, value));
        match Config::load(Some(&file), [variable].into_iter()) {
            Ok(config) => drop(serde_json::to_string(&config).unwrap()),
            Err(error) => {
                let said = error.to_string();
                assert!(!error.problems.is_empty() && !said.is_empty());
                assert!(said.len() <= 1000 * (text.len() + 100), "{} bytes of {}", said.len(), text.len());
            }
        }
    }
}
