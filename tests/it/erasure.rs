//! What somebody sent who has had it erased: whoever could read it before still can, whoever joins later gets redacted
//! copies, on every way to read it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate>

use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, at, escape, next},
};

const SECRET: &str = "xyzzysecret";

impl Client {
    async fn post_event(&self, room: &str, transaction: &str, content: Value) -> String {
        let sent = self.put(&at(room, &format!("/send/m.room.message/{transaction}")), content).await.ok();
        sent["event_id"].as_str().unwrap().to_owned()
    }

    async fn search_for(&self, term: &str) -> Value {
        let events =
            json!({ "search_term": term, "include_state": true, "event_context": { "include_profile": true } });
        let body = json!({ "search_categories": { "room_events": events } });
        self.post("/_matrix/client/v3/search", body).await.ok()["search_categories"]["room_events"].clone()
    }
}

/// Every way to read a room and an event of it, with what the reader gets.
async fn everywhere(reader: &Client, room: &str, event: &str, thread: &str, since: &str) -> Vec<(&'static str, Value)> {
    let (v1, event, thread) = (format!("/_matrix/client/v1/rooms/{}", escape(room)), escape(event), escape(thread));
    let get = |path: String| async move { reader.get(&path).await.ok() };
    let few = format!("&filter={}", escape(r#"{"room":{"timeline":{"limit":2}}}"#));
    let raw = format!("&filter={}", escape(r#"{"event_format":"federation","room":{"timeline":{"limit":200}}}"#));
    let all = format!("&filter={}", escape(r#"{"room":{"timeline":{"limit":200}}}"#));
    let lazy = escape(r#"{"lazy_load_members":true}"#);
    vec![
        ("sync", reader.sync_with(None, &all).await),
        ("short sync", reader.sync_with(None, &few).await),
        ("federation format", reader.sync_with(None, &raw).await),
        ("sync since", reader.sync_with(Some(since), &all).await),
        ("full state", reader.sync_with(Some(since), "&full_state=true").await),
        ("messages", get(at(room, &format!("/messages?dir=b&limit=200&filter={lazy}"))).await),
        ("messages forward", get(at(room, "/messages?dir=f&limit=200")).await),
        ("event", get(at(room, &format!("/event/{event}"))).await),
        ("old event", get(format!("/_matrix/client/v3/events/{event}")).await),
        ("context", get(at(room, &format!("/context/{event}?limit=50"))).await),
        ("relations", get(format!("{v1}/relations/{thread}")).await),
        ("relations recursively", get(format!("{v1}/relations/{thread}?recurse=true")).await),
        ("bundles", get(at(room, &format!("/event/{thread}"))).await),
        ("threads", get(format!("{v1}/threads")).await),
        ("state", get(at(room, "/state")).await),
        ("topic", get(at(room, "/state/m.room.topic")).await),
        ("members", get(at(room, "/members")).await),
        ("joined members", get(at(room, "/joined_members")).await),
        ("initialSync of the room", get(at(room, "/initialSync")).await),
        ("initialSync", get("/_matrix/client/v3/initialSync?limit=200".to_owned()).await),
        ("stream", get(format!("/_matrix/client/v3/events?timeout=0&from={since}")).await),
        ("search", reader.search_for("other").await),
    ]
}

on_both! {
    async fn whoever_joins_later_gets_redacted_copies(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let name = format!("/_matrix/client/v3/profile/{}/displayname", escape(&alice.user_id));
        alice.put(&name, json!({ "displayname": format!("{SECRET} name") })).await.ok();
        let room = bob.create_room(json!({ "preset": "public_chat" })).await;
        let powers = json!({ "users": { alice.user_id.clone(): 100 } });
        bob.put(&at(&room, "/state/m.room.power_levels"), powers).await.ok();
        alice.join(&room).await.ok();
        let since = next(&bob.sync(None).await);
        alice.put(&at(&room, "/state/m.room.topic"), json!({ "topic": SECRET })).await.ok();
        alice.put(&at(&room, "/state/m.room.name"), json!({ "name": SECRET })).await.ok();
        bob.put(&at(&room, "/state/m.room.name"), json!({ "name": "other name" })).await.ok();
        let event = alice.say(&room, &format!("{SECRET} other")).await;
        let thread = bob.say(&room, "other root").await;
        let relating = |rel_type: &str, parent: &str| {
            let relation = json!({ "rel_type": rel_type, "event_id": parent });
            json!({ "msgtype": "m.text", "body": SECRET, "m.new_content": { "body": SECRET }, "m.relates_to": relation })
        };
        alice.post_event(&room, "e1", relating("m.replace", &event)).await;
        alice.post_event(&room, "e2", relating("m.thread", &thread)).await;
        alice.post_event(&room, "e3", relating("m.reference", &thread)).await;
        let foolish = bob.say(&room, "foolish").await;
        let redact = at(&room, &format!("/redact/{}/e4", escape(&foolish)));
        alice.put(&redact, json!({ "reason": SECRET })).await.ok();
        let taken = alice.say(&room, "later").await;
        bob.say(&room, "nothing secret, other").await;

        let auth = json!({ "auth": alice.password(), "erase": true });
        alice.post("/_matrix/client/v3/account/deactivate", auth).await.ok();
        let later = world.user("later").await;
        later.join(&room).await.ok();
        bob.say(&room, "after").await;

        let world = world.restarted().await;
        let (bob, later) = (bob.at(&world), later.at(&world));
        for event in [&event, &taken, &foolish] {
            for (way, answer) in everywhere(&later, &room, event, &thread, &since).await {
                assert!(!answer.to_string().contains(SECRET), "{way}: {answer}");
            }
        }
        let named = later.search_for("name").await;
        assert!(named["count"] == 1 && !named.to_string().contains(SECRET), "what it replaced is not told: {named}");
        let copy = later.get(&at(&room, &format!("/event/{}", escape(&event)))).await.ok();
        assert_eq!((&copy["content"], &copy["sender"]), (&json!({}), &json!(alice.user_id)));
        assert_eq!(copy["unsigned"]["m.relations"], Value::Null);
        assert_eq!(later.search_for(SECRET).await["count"], 0, "nor are they told how often it was said");

        let ways = everywhere(&bob, &room, &event, &thread, &since).await;
        let without = ["short sync", "members", "joined members", "initialSync of the room", "full state"];
        for (way, answer) in ways.iter().filter(|(way, _)| !without.contains(way)) {
            assert!(answer.to_string().contains(SECRET), "{way}: {answer}");
        }
        assert!(bob.search_for(SECRET).await["count"].as_u64().unwrap() > 0);

        // Who is invited to it is told no more than those who join.
        let invited = world.user("invited").await;
        bob.invite(&room, &invited.user_id).await.ok();
        let sync = invited.sync(None).await;
        assert!(sync["rooms"]["invite"][&room].is_object() && !sync.to_string().contains(SECRET), "{sync}");
    }

    async fn who_only_deactivates_is_read_as_before(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = bob.create_room(json!({ "preset": "public_chat" })).await;
        alice.join(&room).await.ok();
        let event = alice.say(&room, "kept").await;
        alice.post("/_matrix/client/v3/account/deactivate", json!({ "auth": alice.password() })).await.ok();
        let later = world.user("later").await;
        later.join(&room).await.ok();
        assert_eq!(later.get(&at(&room, &format!("/event/{}", escape(&event)))).await.ok()["content"]["body"], "kept");
    }
}
