//! Receipts and the fully read marker.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#receipts>

use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, Reply, escape, next},
};

impl Client {
    async fn read(&self, room: &str, kind: &str, event: &str, body: Value) -> Reply {
        self.post(&format!("/_matrix/client/v3/rooms/{}/receipt/{kind}/{}", escape(room), escape(event)), body).await
    }

    async fn mark(&self, room: &str, body: Value) -> Reply {
        self.post(&format!("/_matrix/client/v3/rooms/{}/read_markers", escape(room)), body).await
    }
}

/// The receipts for an event in a room of a sync: by type, user and thread.
fn receipts(sync: &Value, room: &str, event: &str) -> Vec<Value> {
    let events = sync["rooms"]["join"][room]["ephemeral"]["events"].as_array().cloned().unwrap_or_default();
    let receipts = events.into_iter().filter(|e| e["type"] == "m.receipt").map(|e| e["content"][event].clone());
    receipts.filter(|receipt| !receipt.is_null()).collect()
}

fn unread(sync: &Value, room: &str) -> (Value, Value) {
    let counts = &sync["rooms"]["join"][room]["unread_notifications"];
    (counts["notification_count"].clone(), counts["highlight_count"].clone())
}

on_both! {
    async fn a_receipt_reaches_the_others_and_clears_what_is_unread(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let since = next(&alice.sync(None).await);
        alice.say(&room, "one").await;
        let two = alice.say(&room, "two").await;
        assert_eq!(unread(&bob.sync(None).await, &room), (json!(2), json!(0)));
        let bob_since = next(&bob.sync(None).await);

        bob.read(&room, "m.read", &two, json!({})).await.ok();
        let sync = alice.sync(Some(&since)).await;
        let ts = receipts(&sync, &room, &two)[0]["m.read"][&bob.user_id]["ts"].clone();
        assert_eq!(receipts(&sync, &room, &two), [json!({ "m.read": { &bob.user_id: { "ts": ts } } })]);
        let sync = bob.sync(Some(&bob_since)).await;
        assert_eq!(unread(&sync, &room), (json!(0), json!(0)));
        // Who comes later is told too.
        assert_eq!(receipts(&alice.sync(None).await, &room, &two).len(), 1);
    }

    async fn a_private_receipt_stays_private(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let event = alice.say(&room, "one").await;
        bob.read(&room, "m.read.private", &event, json!({})).await.ok();
        assert!(receipts(&alice.sync(None).await, &room, &event).is_empty());
        let sync = bob.sync(None).await;
        assert!(receipts(&sync, &room, &event)[0]["m.read.private"][&bob.user_id].is_object());
        assert_eq!(unread(&sync, &room), (json!(0), json!(0)));
    }

    async fn read_markers_are_set_together_or_not_at_all(world) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        let event = alice.say(&room, "one").await;
        let body = json!({ "m.fully_read": event, "m.read": "$nowhere" });
        alice.mark(&room, body).await.refused(404, "M_NOT_FOUND");
        let path = format!("/_matrix/client/v3/user/{}/rooms/{}/account_data/m.fully_read", escape(&alice.user_id), escape(&room));
        alice.get(&path).await.refused(404, "M_NOT_FOUND");
        alice.mark(&room, json!({ "m.fully_read": event, "m.read": event, "m.read.private": event })).await.ok();
        assert_eq!(alice.get(&path).await.ok(), json!({ "event_id": event }));
        let sync = alice.sync(None).await;
        assert_eq!(receipts(&sync, &room, &event)[0].as_object().unwrap().len(), 2);
        let data = sync["rooms"]["join"][&room]["account_data"]["events"].as_array().unwrap();
        assert!(data.contains(&json!({ "type": "m.fully_read", "content": { "event_id": event } })), "{data:?}");
        alice.read(&room, "m.fully_read", &event, json!({})).await.ok();
    }

    async fn what_is_wrong_with_a_receipt_is_said(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({})).await;
        let event = alice.say(&room, "one").await;
        bob.read(&room, "m.read", &event, json!({})).await.refused(403, "M_FORBIDDEN");
        alice.read(&room, "m.read", "$nowhere", json!({})).await.refused(404, "M_NOT_FOUND");
        alice.read(&room, "m.seen", &event, json!({})).await.refused(400, "M_INVALID_PARAM");
        alice.read(&room, "m.read", &event, json!({ "thread_id": "" })).await.refused(400, "M_INVALID_PARAM");
        alice.read(&room, "m.read", &event, json!({ "thread_id": "$other" })).await.refused(400, "M_INVALID_PARAM");
        alice.read(&room, "m.fully_read", &event, json!({ "thread_id": "main" })).await.refused(400, "M_INVALID_PARAM");
        alice.read(&room, "m.read", &event, json!({ "thread_id": "main" })).await.ok();
    }

    async fn threads_are_counted_apart_for_those_who_ask(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let root = alice.say(&room, "root").await;
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/reply", escape(&room));
        let relation = json!({ "rel_type": "m.thread", "event_id": root });
        let mentions = json!({ "user_ids": [bob.user_id] });
        let content = json!({ "msgtype": "m.text", "body": "bob!", "m.relates_to": relation, "m.mentions": mentions });
        let reply = alice.put(&path, content).await.ok()["event_id"].as_str().unwrap().to_owned();

        let filter = escape(&json!({ "room": { "timeline": { "unread_thread_notifications": true } } }).to_string());
        let threaded = format!("&filter={filter}");
        let sync = bob.sync_with(None, &threaded).await;
        assert_eq!(unread(&sync, &room), (json!(1), json!(0)));
        let of_thread = &sync["rooms"]["join"][&room]["unread_thread_notifications"][&root];
        assert_eq!(*of_thread, json!({ "notification_count": 1, "highlight_count": 1 }));
        assert_eq!(unread(&bob.sync(None).await, &room), (json!(2), json!(1)));

        bob.read(&room, "m.read", &reply, json!({ "thread_id": root })).await.ok();
        let sync = bob.sync_with(None, &threaded).await;
        assert_eq!(unread(&sync, &room), (json!(1), json!(0)));
        assert!(sync["rooms"]["join"][&room]["unread_thread_notifications"].get(&root).is_none());
        let world = world.restarted().await;
        assert_eq!(unread(&bob.at(&world).sync(None).await, &room), (json!(1), json!(0)));
    }
}
