//! What a server of bad intent proposes to sign.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_joinroomiduserid>

use serde_json::{Value, json};

use super::scripted::{FarRoom, Say, Scripted};
use crate::{
    with_scripted,
    world::{Client, Reply, escape, next},
};

/// What a membership event has. `origin` is of no room version, but does no harm.
const FIELDS: [&str; 12] = [
    "auth_events",
    "content",
    "depth",
    "hashes",
    "origin",
    "origin_server_ts",
    "prev_events",
    "room_id",
    "sender",
    "signatures",
    "state_key",
    "type",
];

/// Adds to a proposal what nobody has asked for.
fn with_more(mut usual: Value) -> Say {
    let content = json!({
        "displayname": "Mallory",
        "avatar_url": "mxc://far.test/mallory",
        "reason": "because Mallory says so",
        "is_direct": true,
        "third_party_invite": { "display_name": "Mallory", "signed": {} },
        "org.example.content": "signed by nobody",
    });
    let fields = json!({
        "redacts": "$something",
        "unsigned": { "age": 1 },
        "hashes": { "sha256": "forged" },
        "signatures": { "one.test": { "ed25519:forged": "forged" } },
        "event_id": "$forged",
        "org.example.field": "signed by nobody",
        "origin_server_ts": 1,
    });
    let event = usual["event"].as_object_mut().unwrap();
    event["content"].as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
    event.extend(fields.as_object().unwrap().clone());
    Say::ok(usual)
}

/// Checks that what was signed is a membership event of the user and nothing else.
#[track_caller]
fn check_signed(event: &Value, membership: &str, user: &Client, room: &FarRoom) {
    let fields = event.as_object().unwrap();
    let unknown: Vec<&String> = fields.keys().filter(|key| !FIELDS.contains(&&***key)).collect();
    assert!(unknown.is_empty(), "{unknown:?} was signed: {event}");
    let content = event["content"].as_object().unwrap();
    let expected = ["membership", "displayname", "avatar_url"];
    assert!(content.keys().all(|key| expected.contains(&&**key)), "{event}");
    assert_ne!(event["content"]["displayname"], "Mallory");
    assert_ne!(event["content"]["avatar_url"], "mxc://far.test/mallory");
    assert_eq!(event["content"]["membership"], membership);
    assert_eq!((&event["sender"], &event["state_key"]), (&json!(user.user_id), &json!(user.user_id)));
    assert_eq!((&event["type"], &event["room_id"]), (&json!("m.room.member"), &json!(room.id)));
    assert_ne!(event["origin_server_ts"], 1);
    let signers: Vec<&String> = event["signatures"].as_object().unwrap().keys().collect();
    assert_eq!(signers, ["one.test"], "{event}");
    assert_ne!(event["hashes"]["sha256"], "forged");
}

/// What a proposal may be turned into that is none of a membership that was asked for.
fn other_proposals(far: &Scripted, alice: &Client) -> Vec<Value> {
    vec![
        json!({ "type": "m.room.power_levels" }),
        json!({ "type": "m.room.member", "state_key": far.user("mallory") }),
        json!({ "state_key": "" }),
        json!({ "sender": "@somebody:one.test", "state_key": "@somebody:one.test" }),
        json!({ "room_id": "!another:far.test" }),
        json!({ "content": { "membership": "ban" } }),
        json!({ "content": { "membership": "invite" } }),
        json!({ "content": {} }),
        json!({ "prev_events": [] }),
        json!({ "prev_events": vec!["$e"; 21] }),
        json!({ "auth_events": vec!["$e"; 11] }),
        json!({ "depth": "deep" }),
        json!({ "depth": 1.5 }),
        json!({ "filling": "x".repeat(70_000), "sender": alice.user_id }),
    ]
}

fn turned_into(mut usual: Value, fields: &Value) -> Say {
    usual["event"].as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    Say::ok(usual)
}

async fn knock(user: &Client, room: &FarRoom) -> Reply {
    user.post(&format!("/_matrix/client/v3/knock/{}?via=far.test", escape(&room.id)), json!({})).await
}

/// Has somebody invited, and waits until they know.
async fn invited(far: &Scripted, room: &FarRoom, user: &Client) {
    far.invite("one.test", room, &user.user_id).await.ok();
    let is_invited = |sync: &Value| sync["rooms"]["invite"][&room.id].is_object();
    let sync = user.sync(None).await;
    if !is_invited(&sync) {
        user.until(next(&sync), "of an invitation", is_invited).await;
    }
}

with_scripted! {
    /// Signing a remote template (CVE-2026-24471).
    async fn only_known_fields_of_a_proposal_to_join_are_signed(one, far) {
        let alice = one.user("alice").await;
        far.answers("make_join", |_, usual| with_more(usual));
        for version in ["6", "9", "10", "11", "12"] {
            let room = far.create_room(version, json!({ "join_rule": "public" }));
            alice.join_via(&room.id, "far.test").await.ok();
            let sent = far.take_asked("send_join").pop().unwrap();
            check_signed(&sent.body, "join", &alice, &room);
        }
    }

    /// Signing a remote template (CVE-2026-24471).
    async fn only_known_fields_of_a_proposal_to_knock_are_signed(one, far) {
        let alice = one.user("alice").await;
        far.answers("make_knock", |_, usual| with_more(usual));
        for version in ["7", "11", "12"] {
            let room = far.create_room(version, json!({ "join_rule": "knock" }));
            knock(&alice, &room).await.ok();
            let sent = far.take_asked("send_knock").pop().unwrap();
            check_signed(&sent.body, "knock", &alice, &room);
        }
    }

    /// Signing a remote template (CVE-2026-24471).
    async fn only_known_fields_of_a_proposal_to_leave_are_signed(one, far) {
        let alice = one.user("alice").await;
        far.answers("make_leave", |_, usual| with_more(usual));
        for version in ["6", "11", "12"] {
            let room = far.create_room(version, json!({ "join_rule": "invite" }));
            invited(&far, &room, &alice).await;
            alice.leave(&room.id).await.ok();
            let sent = far.until_asked("send_leave", |asked| asked.path[0] == room.id).await;
            check_signed(&sent.body, "leave", &alice, &room);
        }
    }

    /// Signing a remote template (CVE-2026-24471).
    async fn what_is_no_proposal_to_join_or_to_knock_is_not_signed(one, far) {
        let alice = one.user("alice").await;
        let open = far.create_room("11", json!({ "join_rule": "public" }));
        let closed = far.create_room("11", json!({ "join_rule": "knock" }));
        let others = other_proposals(&far, &alice);
        let authorised = json!({ "membership": "join", "join_authorised_via_users_server": alice.user_id });
        for fields in others.iter().chain([&json!({ "content": authorised })]) {
            let (for_join, for_knock) = (fields.clone(), fields.clone());
            far.answers("make_join", move |_, usual| turned_into(usual, &for_join));
            far.answers("make_knock", move |_, usual| turned_into(usual, &for_knock));
            for refused in [alice.join_via(&open.id, "far.test").await, knock(&alice, &closed).await] {
                refused.refused(502, "M_UNKNOWN");
                assert!(refused.body["error"].as_str().unwrap().contains("far.test"), "{}", refused.body);
            }
            for name in ["send_join", "send_knock"] {
                let signed = far.take_asked(name);
                assert!(signed.is_empty(), "{fields} was signed: {signed:?}");
            }
        }
        for version in ["1", "org.example.made-up"] {
            far.answers("make_join", move |_, mut usual| {
                usual["room_version"] = version.into();
                Say::ok(usual)
            });
            alice.join_via(&open.id, "far.test").await.refused(400, "M_UNSUPPORTED_ROOM_VERSION");
            assert!(far.take_asked("send_join").is_empty());
        }
        far.forgets_scripts();
        alice.join_via(&open.id, "far.test").await.ok();
    }

    /// Signing a remote template (CVE-2026-24471).
    async fn what_is_no_proposal_to_leave_is_not_signed_and_the_invitation_is_gone(one, far) {
        let alice = one.user("alice").await;
        for fields in other_proposals(&far, &alice) {
            let room = far.create_room("11", json!({ "join_rule": "invite" }));
            invited(&far, &room, &alice).await;
            let into = fields.clone();
            far.answers("make_leave", move |_, usual| turned_into(usual, &into));
            alice.leave(&room.id).await.ok();
            assert_eq!(far.take_asked("make_leave").len(), 1);
            assert!(far.take_asked("send_leave").is_empty(), "{fields} was signed");
            let sync = alice.sync(None).await;
            assert_eq!(sync["rooms"]["invite"][&room.id], Value::Null);
        }
    }
}
