//! Typing notifications.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#typing-notifications>

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, Reply, at, escape, next},
};

impl Client {
    async fn type_as(&self, user_id: &str, room: &str, body: Value) -> Reply {
        self.put(&format!("/_matrix/client/v3/rooms/{}/typing/{}", escape(room), escape(user_id)), body).await
    }
}

fn typists(sync: &Value, room: &str) -> Option<Value> {
    let events = sync["rooms"]["join"][room]["ephemeral"]["events"].as_array()?;
    events.iter().find(|e| e["type"] == "m.typing").map(|e| e["content"]["user_ids"].clone())
}

on_both! {
    async fn typing_wakes_the_others_and_ends_when_its_time_is_up(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let since = next(&bob.sync(None).await);
        let typing = alice.type_as(&alice.user_id, &room, json!({ "typing": true }));
        let (sync, typed) = tokio::join!(bob.wait(&since), typing);
        typed.ok();
        assert_eq!(typists(&sync, &room), Some(json!([alice.user_id])), "{sync} after {since}");

        let token = next(&sync);
        let late = async {
            world.until_a_sync_waits().await;
            world.clock.advance(Duration::from_secs(31));
        };
        let (sync, ()) = tokio::join!(bob.wait(&token), late);
        assert_eq!(typists(&sync, &room), Some(json!([])));

        alice.type_as(&alice.user_id, &room, json!({ "typing": true, "timeout": 20_000 })).await.ok();
        let sync = bob.sync(Some(&next(&sync))).await;
        assert_eq!(typists(&sync, &room), Some(json!([alice.user_id])), "{sync}");
        alice.type_as(&alice.user_id, &room, json!({ "typing": false })).await.ok();
        assert_eq!(typists(&bob.sync(Some(&next(&sync))).await, &room), Some(json!([])));
        assert_eq!(typists(&bob.sync(None).await, &room), None);
    }

    async fn who_goes_on_typing_has_not_stopped(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let begin = json!({ "typing": true, "timeout": 10_000 });
        alice.type_as(&alice.user_id, &room, begin.clone()).await.ok();
        let token = next(&bob.sync(None).await);
        world.clock.advance(Duration::from_secs(6));
        alice.type_as(&alice.user_id, &room, begin).await.ok();
        world.clock.advance(Duration::from_secs(6));
        let still = async {
            while typists(&bob.sync(None).await, &room) != Some(json!([alice.user_id])) {}
        };
        tokio::time::timeout(Duration::from_secs(20), still).await.expect("typing still");
        alice.say(&room, "still writing").await;
        let sync = bob.sync(Some(&token)).await;
        assert_eq!(typists(&sync, &room), None, "nobody was told that it ended: {sync}");

        world.clock.advance(Duration::from_secs(11));
        let sync = bob.wait(&next(&sync)).await;
        assert_eq!(typists(&sync, &room), Some(json!([])));
    }

    async fn what_is_to_end_sooner_than_was_said_before_does(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let typing = |timeout: u32| json!({ "typing": true, "timeout": timeout });
        alice.type_as(&alice.user_id, &room, typing(30_000)).await.ok();
        world.clock.advance(Duration::from_secs(20));
        alice.type_as(&alice.user_id, &room, typing(30_000)).await.ok();
        alice.type_as(&alice.user_id, &room, typing(1_000)).await.ok();
        let sync = bob.sync(None).await;
        assert_eq!(typists(&sync, &room), Some(json!([alice.user_id])), "{sync}");
        world.clock.advance(Duration::from_secs(2));
        let sync = bob.wait(&next(&sync)).await;
        assert_eq!(typists(&sync, &room), Some(json!([])), "{sync}");
    }

    async fn whoever_is_gone_types_no_more(world) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        for how in ["leave", "kick", "ban", "deactivate"] {
            let gone = world.user(how).await;
            gone.join(&room).await.ok();
            gone.type_as(&gone.user_id, &room, json!({ "typing": true, "timeout": 60_000 })).await.ok();
            let sync = alice.sync(None).await;
            assert_eq!(typists(&sync, &room), Some(json!([gone.user_id])));
            match how {
                "leave" => drop(gone.leave(&room).await.ok()),
                "deactivate" => {
                    let auth = json!({ "auth": gone.password() });
                    gone.post("/_matrix/client/v3/account/deactivate", auth).await.ok();
                }
                _ => drop(alice.post(&at(&room, &format!("/{how}")), json!({ "user_id": gone.user_id })).await.ok()),
            }
            let sync = alice.sync(Some(&next(&sync))).await;
            assert_eq!(typists(&sync, &room), Some(json!([])), "{how}");
            assert_eq!(typists(&alice.sync(None).await, &room), None, "{how}");
        }
        // Who comes back does not go on.
        let bob = world.user("bob").await;
        bob.join(&room).await.ok();
        bob.type_as(&bob.user_id, &room, json!({ "typing": true, "timeout": 60_000 })).await.ok();
        bob.leave(&room).await.ok();
        bob.join(&room).await.ok();
        assert_eq!(typists(&alice.sync(None).await, &room), None);
        let world = world.restarted().await;
        let (alice, bob) = (alice.at(&world), bob.at(&world));
        assert_eq!(typists(&alice.sync(None).await, &room), None);
        bob.type_as(&bob.user_id, &room, json!({ "typing": true, "timeout": 60_000 })).await.ok();
        assert_eq!(typists(&alice.sync(None).await, &room), Some(json!([bob.user_id])));
    }

    async fn only_as_oneself_and_where_one_is(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.type_as(&alice.user_id, &room, json!({ "typing": true })).await.refused(403, "M_FORBIDDEN");
        bob.type_as(&bob.user_id, &room, json!({ "typing": true })).await.refused(403, "M_FORBIDDEN");
        alice.type_as(&alice.user_id, &room, json!({})).await.refused(400, "M_MISSING_PARAM");
        alice.type_as(&alice.user_id, &room, json!({ "typing": "yes" })).await.refused(400, "M_BAD_JSON");
        alice.type_as(&alice.user_id, &room, json!({ "typing": true, "timeout": -1 })).await.refused(400, "M_BAD_JSON");
    }
}
