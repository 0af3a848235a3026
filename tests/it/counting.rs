//! What counts as unread, and where: whom somebody ignores, and what relates to the messages of a thread.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications>

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, Reply, World, at, escape, next},
};

static TRANSACTION: AtomicU64 = AtomicU64::new(0);

/// Notifications and highlights of the main timeline, and of each thread.
type Unread = (u64, u64, Value);

impl Client {
    async fn try_tell(&self, room: &str, kind: &str, content: Value) -> Reply {
        let transaction = TRANSACTION.fetch_add(1, Ordering::SeqCst);
        self.put(&at(room, &format!("/send/{kind}/c{transaction}")), content).await
    }

    async fn tell(&self, room: &str, content: Value) -> String {
        self.try_tell(room, "m.room.message", content).await.ok()["event_id"].as_str().unwrap().to_owned()
    }

    async fn has_read(&self, room: &str, event: &str, thread: Option<&str>) -> Reply {
        let body = thread.map_or(json!({}), |thread| json!({ "thread_id": thread }));
        self.post(&at(room, &format!("/receipt/m.read/{}", escape(event))), body).await
    }

    async fn ignore(&self, others: &[&Client]) {
        let list: serde_json::Map<String, Value> =
            others.iter().map(|other| (other.user_id.clone(), json!({}))).collect();
        let path = format!("/_matrix/client/v3/user/{}/account_data/m.ignored_user_list", escape(&self.user_id));
        self.put(&path, json!({ "ignored_users": list })).await.ok();
    }

    async fn unread(&self, room: &str) -> Unread {
        let filter = escape(r#"{"room":{"timeline":{"unread_thread_notifications":true,"limit":1}}}"#);
        let sync = self.sync_with(None, &format!("&filter={filter}")).await;
        let joined = &sync["rooms"]["join"][room];
        let main = &joined["unread_notifications"];
        let threads = joined["unread_thread_notifications"].clone();
        (
            main["notification_count"].as_u64().unwrap(),
            main["highlight_count"].as_u64().unwrap(),
            if threads.is_null() { json!({}) } else { threads },
        )
    }
}

/// Alice, Bob and Carol in a public room.
async fn room_of_three(world: &World) -> (Client, Client, Client, String) {
    let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await.ok();
    carol.join(&room).await.ok();
    (alice, bob, carol, room)
}

fn nothing() -> Unread {
    (0, 0, json!({}))
}

fn ping(user: &Client) -> Value {
    json!({ "msgtype": "m.text", "body": "ping", "m.mentions": { "user_ids": [user.user_id] } })
}

fn relating(mut content: Value, rel_type: &str, parent: &str) -> Value {
    content["m.relates_to"] = json!({ "rel_type": rel_type, "event_id": parent });
    content
}

fn edit(parent: &str, more: &Value) -> Value {
    let mut content =
        json!({ "msgtype": "m.text", "body": "* x", "m.new_content": { "msgtype": "m.text", "body": "x" } });
    content.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    relating(content, "m.replace", parent)
}

on_both! {
    async fn what_ignored_users_say_counts_nowhere(world) {
        let (alice, bob, carol, room) = room_of_three(&world).await;
        let root = carol.say(&room, "root").await;
        bob.has_read(&room, &root, None).await.ok();
        alice.say(&room, "said before").await;
        assert_eq!(bob.unread(&room).await, (1, 0, json!({})));
        bob.ignore(&[&alice]).await;
        assert_eq!(bob.unread(&room).await, nothing(), "what was said before counts no more");

        alice.tell(&room, ping(&bob)).await;
        alice.tell(&room, json!({ "msgtype": "m.text", "body": "all!", "m.mentions": { "room": true } })).await;
        alice.tell(&room, relating(ping(&bob), "m.thread", &root)).await;
        let secret = alice.say(&room, "taken back").await;
        let transaction = TRANSACTION.fetch_add(1, Ordering::SeqCst);
        alice.put(&at(&room, &format!("/redact/{}/c{transaction}", escape(&secret))), json!({})).await.ok();
        assert_eq!(bob.unread(&room).await, nothing());
        carol.say(&room, "readable").await;
        assert_eq!(bob.unread(&room).await, (1, 0, json!({})));
        assert_eq!(carol.unread(&room).await.0, 0, "she has just spoken there");

        let world = world.restarted().await;
        let (alice, bob) = (alice.at(&world), bob.at(&world));
        assert_eq!(bob.unread(&room).await, (1, 0, json!({})));
        bob.ignore(&[]).await;
        let thread = json!({ &root: { "notification_count": 1, "highlight_count": 1 } });
        assert_eq!(bob.unread(&room).await, (4, 2, thread), "what they say counts again");
        let last = alice.say(&room, "and more").await;
        bob.has_read(&room, &last, None).await.ok();
        assert_eq!(bob.unread(&room).await, nothing());
    }

    async fn a_sync_brings_the_counts_that_another_list_of_ignored_users_changes(world) {
        let (alice, bob, carol, room) = room_of_three(&world).await;
        let root = carol.say(&room, "root").await;
        bob.has_read(&room, &root, None).await.ok();
        alice.say(&room, "one").await;
        carol.say(&room, "two").await;
        let since = next(&bob.sync(None).await);
        for (ignored, count) in [(vec![&alice], 1), (vec![&alice, &carol], 0), (vec![], 2)] {
            let since = next(&bob.sync(Some(&since)).await);
            bob.ignore(&ignored).await;
            let sync = bob.sync(Some(&since)).await;
            let joined = &sync["rooms"]["join"][&room];
            let unread = json!({ "notification_count": count, "highlight_count": 0 });
            assert_eq!(joined["unread_notifications"], unread, "{sync}");
            assert_eq!(joined["timeline"]["events"], json!([]), "nothing has happened there");
            let sync = bob.sync(Some(&next(&sync))).await;
            assert!(sync.get("rooms").is_none(), "{sync}");
        }
    }

    async fn state_of_those_whom_one_ignores_is_told_and_counts(world) {
        let (alice, bob, _, room) = room_of_three(&world).await;
        bob.ignore(&[&alice]).await;
        let last = alice.say(&room, "not for bob").await;
        bob.has_read(&room, &last, None).await.ok();
        let tombstone = json!({ "body": "moved", "replacement_room": room });
        alice.put(&at(&room, "/state/m.room.tombstone"), tombstone).await.ok();
        assert_eq!(bob.unread(&room).await, (1, 1, json!({})));
        let world = world.restarted().await;
        assert_eq!(bob.at(&world).unread(&room).await, (1, 1, json!({})));
    }

    async fn what_relates_to_a_threads_messages_counts_in_the_thread(world) {
        let (alice, bob, _, room) = room_of_three(&world).await;
        let root = alice.say(&room, "root").await;
        let reply = alice.tell(&room, relating(json!({ "msgtype": "m.text", "body": "re" }), "m.thread", &root)).await;
        let plain = alice.tell(&room, edit(&reply, &json!({}))).await;
        bob.has_read(&room, &plain, None).await.ok();
        assert_eq!(bob.unread(&room).await, nothing());

        let mentions = json!({ "m.mentions": { "user_ids": [bob.user_id] } });
        let mut reaction = relating(mentions.clone(), "m.annotation", &reply);
        reaction["m.relates_to"]["key"] = json!("x");
        let events = [
            ("m.room.message", edit(&reply, &mentions)),
            ("m.room.message", edit(&plain, &mentions)),
            ("m.reaction", reaction),
            ("m.room.message", relating(ping(&bob), "m.reference", &reply)),
            ("m.room.message", relating(ping(&bob), "org.example.other", &reply)),
        ];
        let in_thread = json!({ &root: { "notification_count": 1, "highlight_count": 1 } });
        for (kind, content) in events {
            let event = alice.try_tell(&room, kind, content.clone()).await.ok()["event_id"].as_str().unwrap().to_owned();
            assert_eq!(bob.unread(&room).await, (0, 0, in_thread.clone()), "{content}");
            bob.has_read(&room, &event, Some("main")).await.refused(400, "M_INVALID_PARAM");
            bob.has_read(&room, &event, Some(&root)).await.ok();
            assert_eq!(bob.unread(&room).await, nothing(), "{content}");
        }
        // What relates to the root is said in the main timeline.
        let event = alice.tell(&room, edit(&root, &mentions)).await;
        assert_eq!(bob.unread(&room).await, (1, 1, json!({})));
        bob.has_read(&room, &event, Some("main")).await.ok();
        assert_eq!(bob.unread(&room).await, nothing());

        alice.tell(&room, edit(&reply, &mentions)).await;
        let world = world.restarted().await;
        assert_eq!(bob.at(&world).unread(&room).await, (0, 0, in_thread));
    }

    async fn whoever_answers_in_a_thread_has_read_that_and_nothing_else(world) {
        let (alice, bob, _, room) = room_of_three(&world).await;
        let root = alice.say(&room, "root").await;
        let reply = alice.tell(&room, relating(json!({ "msgtype": "m.text", "body": "re" }), "m.thread", &root)).await;
        let mut reaction = relating(json!({}), "m.annotation", &reply);
        reaction["m.relates_to"]["key"] = json!("+1");
        bob.try_tell(&room, "m.reaction", reaction).await.ok();
        assert_eq!(bob.unread(&room).await, (1, 0, json!({})));
    }

    async fn nothing_relates_to_what_is_not_in_the_room(world) {
        let (alice, bob, _, room) = room_of_three(&world).await;
        let other = alice.create_room(json!({ "preset": "public_chat" })).await;
        let elsewhere = alice.say(&other, "elsewhere").await;
        let last = alice.say(&room, "last").await;
        bob.has_read(&room, &last, None).await.ok();
        let unknown = format!("${}", "A".repeat(43));
        for parent in [&*unknown, &*elsewhere] {
            for rel_type in ["m.thread", "m.reference", "m.replace", "m.annotation", "org.example.other"] {
                let content = relating(ping(&bob), rel_type, parent);
                alice.try_tell(&room, "m.room.message", content.clone()).await.refused(400, "M_INVALID_PARAM");
                let state = at(&room, &format!("/state/org.example.state/{rel_type}"));
                alice.put(&state, content).await.refused(400, "M_INVALID_PARAM");
            }
        }
        assert_eq!(bob.unread(&room).await, nothing());
        // A room may begin with such state: nobody has to read it in a thread that is not there.
        let state = json!({ "type": "org.example.state", "state_key": "", "content": relating(ping(&bob), "m.thread", &unknown) });
        let begun = bob.create_room(json!({ "preset": "public_chat", "initial_state": [state] })).await;
        alice.join(&begun).await.ok();
        alice.say(&begun, "hello").await;
        assert_eq!(bob.unread(&begun).await, (1, 0, json!({})));
        assert_eq!(alice.get(&format!("/_matrix/client/v1/rooms/{}/threads", escape(&begun))).await.ok()["chunk"], json!([]));
    }

    async fn of_the_same_annotations_at_once_one_is_taken(world) {
        let (alice, bob, _, room) = room_of_three(&world).await;
        for _ in 0..3 {
            let event = alice.say(&room, "news").await;
            let react = |user: &Client, key: &str| {
                let mut content = relating(json!({}), "m.annotation", &event);
                content["m.relates_to"]["key"] = json!(key);
                let (user, room) = (user.clone(), room.clone());
                async move { user.try_tell(&room, "m.reaction", content).await }
            };
            // Each to the next node, where there are several.
            let same = futures_util::future::join_all((0..8).map(|_| react(&bob, "+1")));
            let (same, other, others) = tokio::join!(same, react(&bob, "-1"), react(&alice, "+1"));
            other.ok();
            others.ok();
            let (taken, refused): (Vec<Reply>, Vec<Reply>) = same.into_iter().partition(|reply| reply.status == 200);
            assert_eq!(taken.len(), 1);
            for reply in refused {
                reply.refused(400, "M_DUPLICATE_ANNOTATION");
            }
            let listed = format!("/_matrix/client/v1/rooms/{}/relations/{}/m.annotation", escape(&room), escape(&event));
            assert_eq!(alice.get(&listed).await.ok()["chunk"].as_array().unwrap().len(), 3);
        }
    }

    async fn a_retry_of_an_annotation_is_answered_with_the_first(world) {
        let (alice, _, _, room) = room_of_three(&world).await;
        let event = alice.say(&room, "news").await;
        let mut content = relating(json!({}), "m.annotation", &event);
        content["m.relates_to"]["key"] = json!("+1");
        let path = at(&room, "/send/m.reaction/again");
        let first = alice.put(&path, content.clone()).await.ok();
        assert_eq!(alice.put(&path, content).await.ok(), first);
    }
}
