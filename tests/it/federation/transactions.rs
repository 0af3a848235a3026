//! Transactions of which something is wrong, and those that come again.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#transactions>

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::scripted::{FarRoom, Scripted};
use crate::{
    with_scripted,
    world::{Client, at, texts},
};

async fn shared_with(far: &Scripted, alice: &Client) -> FarRoom {
    let room = alice.create_room(json!({ "preset": "public_chat", "room_version": "11" })).await;
    far.join("one.test", &room, &far.user("mallory")).await
}

/// How often a text was said in a room.
async fn times(user: &Client, room: &str, text: &str) -> usize {
    let page = user.get(&at(room, "/messages?dir=b&limit=100")).await.ok();
    page["chunk"].as_array().unwrap().iter().filter(|event| event["content"]["body"] == text).count()
}

with_scripted! {
    async fn what_is_malformed_is_in_nobodys_way(one, far) {
        let alice = one.user("alice").await;
        let room = shared_with(&far, &alice).await;
        let elsewhere = far.create_room("11", json!({ "join_rule": "public" }));
        let unreadable = |field: &str, value: Value| {
            let mut event = room.message("malformed");
            event[field] = value;
            event
        };
        let bad = [
            json!(null),
            json!(7),
            json!("event"),
            json!([]),
            json!({}),
            json!({ "room_id": room.id }),
            json!({ "room_id": 7 }),
            unreadable("room_id", json!("nonsense")),
            unreadable("room_id", json!("!nowhere:one.test")),
            unreadable("sender", json!("nobody")),
            unreadable("sender", json!(7)),
            unreadable("type", json!({})),
            unreadable("content", json!("text")),
            unreadable("depth", json!("deep")),
            unreadable("prev_events", json!(null)),
            unreadable("prev_events", json!([[]])),
            unreadable("auth_events", json!({ "a": 1 })),
            unreadable("hashes", json!([])),
            unreadable("signatures", json!("none")),
            unreadable("state_key", json!(7)),
            unreadable("origin_server_ts", json!("today")),
            elsewhere.message("in a room that nobody here is in"),
        ];
        for (number, bad) in bad.into_iter().enumerate() {
            let good = [room.say(&format!("before {number}")), room.say(&format!("after {number}"))];
            let pdus = [good[0].clone(), bad.clone(), good[1].clone()];
            let answer = far.transaction("one.test", &pdus).await.ok();
            for good in &good {
                assert_eq!(answer["pdus"][room.id_of(good)], json!({}), "{bad}: {answer}");
            }
            alice.hears(&room.id, &format!("after {number}")).await;
            assert_eq!(times(&alice, &room.id, &format!("before {number}")).await, 1, "{bad}");
        }
        assert_eq!(times(&alice, &room.id, "malformed").await, 0);
    }

    async fn a_transaction_that_comes_again_is_answered_as_before_and_done_once(one, far) {
        let alice = one.user("alice").await;
        let room = shared_with(&far, &alice).await;
        let (said, other) = (room.say("once"), room.message("in a transaction that was there before"));
        let body = far.transaction_of(&[said.clone(), json!(7)], &[]);
        let answers = join_all((0..8).map(|_| far.put("one.test", "/_matrix/federation/v1/send/again", &body))).await;
        let expected = json!({ "pdus": { room.id_of(&said): {} } });
        for answer in answers {
            assert_eq!(answer.ok(), expected);
        }
        let changed = far.transaction_of(&[other], &[]);
        assert_eq!(far.put("one.test", "/_matrix/federation/v1/send/again", &changed).await.ok(), expected);
        // The same event by another transaction, and by another server.
        far.transaction("one.test", &[said.clone(), said.clone()]).await.ok();
        let near = far.neighbour("near.test").await;
        near.transaction("one.test", &[said]).await.ok();
        // Its identifiers are its own.
        let theirs = near.transaction_of(&[room.say("by another server")], &[]);
        near.put("one.test", "/_matrix/federation/v1/send/again", &theirs).await.ok();
        alice.hears(&room.id, "by another server").await;
        assert_eq!(times(&alice, &room.id, "once").await, 1);
        assert_eq!(times(&alice, &room.id, "in a transaction that was there before").await, 0);
    }

    async fn a_transaction_is_of_who_sends_it_and_not_too_large(one, far) {
        let alice = one.user("alice").await;
        let room = shared_with(&far, &alice).await;
        let mut claimed = far.transaction_of(&[room.message("as somebody else")], &[]);
        claimed["origin"] = "elsewhere.test".into();
        far.put("one.test", "/_matrix/federation/v1/send/claimed", &claimed).await.refused(403, "M_FORBIDDEN");
        let many: Vec<Value> = (0..51).map(|number| room.message(&format!("{number}"))).collect();
        far.transaction("one.test", &many).await.refused(400, "M_INVALID_PARAM");
        let edus: Vec<Value> = (0..101).map(|_| json!({ "edu_type": "org.example", "content": {} })).collect();
        let body = far.transaction_of(&[], &edus);
        far.put("one.test", "/_matrix/federation/v1/send/edus", &body).await.refused(400, "M_INVALID_PARAM");
        let said: Vec<Value> = (0..50).map(|number| room.say(&format!("number {number}"))).collect();
        let answer = far.transaction("one.test", &said).await.ok();
        assert_eq!(answer["pdus"].as_object().unwrap().len(), 50);
        alice.hears(&room.id, "number 49").await;
    }

    /// EDU for somebody else's user (CVE-2023-42453); a spoofed EDU is logged and then delivered (Synapse 1.157.2).
    async fn what_comes_beside_events_is_dropped_without_a_word(one, far) {
        let (alice, bob) = (one.user("alice").await, one.user("bob").await);
        let room = shared_with(&far, &alice).await;
        let message = json!({ "sender": bob.user_id, "type": "m.spoofed", "message_id": "1", "messages": {
            alice.user_id.as_str(): { "*": { "spoofed": true } },
        } });
        let receipt = json!({ room.id.as_str(): { "m.read": {
            bob.user_id.as_str(): { "data": { "ts": 1 }, "event_ids": ["$spoofed"] },
        } } });
        let typing = json!({ "room_id": room.id, "user_id": bob.user_id, "typing": true });
        let presence = json!({ "push": [{ "user_id": bob.user_id, "presence": "online", "status_msg": "spoofed" }] });
        let device = json!({ "user_id": bob.user_id, "device_id": "SPOOFED", "stream_id": 1, "prev_id": [] });
        let edu = |kind: &str, content: Value| json!({ "edu_type": kind, "content": content });
        let edus = [
            edu("m.direct_to_device", message),
            edu("m.receipt", receipt),
            edu("m.typing", typing),
            edu("m.presence", presence),
            edu("m.device_list_update", device),
            edu("m.signing_key_update", json!({ "user_id": bob.user_id })),
            edu("org.example.unheard_of", json!({ "a": [1, { "b": null }] })),
            edu("m.typing", json!("no object")),
            json!({ "edu_type": 7 }),
            json!({}),
            json!(null),
            json!(7),
        ];
        let since = crate::world::next(&alice.sync(None).await);
        let body = far.transaction_of(&[room.say("beside them")], &edus);
        far.put("one.test", "/_matrix/federation/v1/send/edus", &body).await.ok();
        let mut seen = String::new();
        alice.until(since, "a message", |sync| {
            seen += &sync.to_string();
            texts(sync, &room.id).contains(&"beside them".to_owned())
        }).await;
        assert!(!seen.to_lowercase().contains("spoofed"), "{seen}");
        assert!(!seen.contains(r#""m.typing""#), "{seen}");
        assert!(one.world.metrics().contains("m.direct_to_device"), "it is counted");
    }
}
