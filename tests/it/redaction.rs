//! What a redaction leaves, on every way to read it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#redactions>

use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, at, escape, next},
};

async fn redact(user: &Client, room: &str, event: &str, transaction: &str, body: Value) -> String {
    let path = at(room, &format!("/redact/{}/{transaction}", escape(event)));
    user.put(&path, body).await.ok()["event_id"].as_str().unwrap().to_owned()
}

/// Sets the name or the topic of a room.
async fn set(user: &Client, room: &str, what: &str, text: &str) -> String {
    let set = user.put(&at(room, &format!("/state/m.room.{what}")), json!({ what: text })).await.ok();
    set["event_id"].as_str().unwrap().to_owned()
}

/// Everything in which an event may be read.
async fn everywhere(user: &Client, room: &str, event: &str, since: &str) -> Vec<(&'static str, Value)> {
    let (get, event) = (|rest: String| async move { user.get(&at(room, &rest)).await.ok() }, escape(event));
    let few = format!("&filter={}", escape(r#"{"room":{"timeline":{"limit":1}}}"#));
    vec![
        ("event", get(format!("/event/{event}")).await),
        ("initial sync", user.sync(None).await),
        ("short sync", user.sync_with(None, &few).await),
        ("sync", user.sync(Some(since)).await),
        ("limited sync", user.sync_with(Some(since), &few).await),
        ("messages", get("/messages?dir=b&limit=100".to_owned()).await),
        ("messages forward", get("/messages?dir=f&limit=100".to_owned()).await),
        ("context", get(format!("/context/{event}")).await),
        ("state", get("/state".to_owned()).await),
        ("initialSync", get("/initialSync".to_owned()).await),
        ("stream", user.get(&format!("/_matrix/client/v3/events?timeout=0&from={since}")).await.ok()),
    ]
}

on_both! {
    async fn the_reason_of_a_redacted_redaction_is_gone_everywhere(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        // Up to version 10 a redacted redaction no longer names what it redacted.
        for version in ["10", "11", "12"] {
            let room = alice.create_room(json!({ "preset": "public_chat", "room_version": version })).await;
            bob.join(&room).await.ok();
            let topic = set(&alice, &room, "topic", "first").await;
            let replaced = set(&alice, &room, "topic", "second").await;
            set(&alice, &room, "topic", "third").await;
            let message = alice.say(&room, "x").await;
            // So that every node has it in memory.
            for _ in 0..3 {
                bob.get(&at(&room, "/messages?dir=b")).await.ok();
            }
            let since = next(&bob.sync(None).await);
            let held = set(&alice, &room, "name", "held").await;
            for (number, target) in [message, held, replaced, topic].into_iter().enumerate() {
                let redaction = redact(&alice, &room, &target, &format!("a{number}"), json!({ "reason": "REASON" })).await;
                let told = everywhere(&bob, &room, &target, &since).await;
                assert!(told[0].1.to_string().contains("REASON"), "{version}: {}", told[0].1);
                redact(&alice, &room, &redaction, &format!("b{number}"), json!({ "reason": "because" })).await;
                for _ in 0..3 {
                    for (way, answer) in everywhere(&bob, &room, &target, &since).await {
                        assert!(!answer.to_string().contains("REASON"), "version {version}, event {number}, {way}: {answer}");
                    }
                }
                let event = bob.get(&at(&room, &format!("/event/{}", escape(&target)))).await.ok();
                let because = &event["unsigned"]["redacted_because"];
                assert_eq!((&because["event_id"], &because["content"]["reason"]), (&json!(redaction), &Value::Null));
            }
        }
    }
}
