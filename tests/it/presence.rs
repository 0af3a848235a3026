//! Presence.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#presence>

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, Reply, escape, next},
};

fn path(user_id: &str) -> String {
    format!("/_matrix/client/v3/presence/{}/status", escape(user_id))
}

impl Client {
    /// A sync that makes its user online, which that of other tests does not.
    async fn online(&self) {
        self.get("/_matrix/client/v3/sync?timeout=0").await.ok();
    }

    /// A sync that says that its user is not at this device.
    async fn unavailable(&self) {
        self.get("/_matrix/client/v3/sync?timeout=0&set_presence=unavailable").await.ok();
    }

    /// Waits until this user is told that another is in some state, after a place, and gives the place after that.
    async fn told(&self, since: &str, user_id: &str, presence: &str) -> (String, Value) {
        let told = tokio::time::timeout(Duration::from_secs(30), async {
            let mut since = since.to_owned();
            loop {
                let sync = self.wait(&since).await;
                since = next(&sync);
                if let Some(content) = of(&sync, user_id).filter(|content| content["presence"] == presence) {
                    return (since, content.clone());
                }
            }
        });
        told.await.unwrap_or_else(|_elapsed| panic!("{} was not told that {user_id} is {presence}", self.user_id))
    }

    async fn presence(&self, user_id: &str) -> Reply {
        self.get(&path(user_id)).await
    }
}

fn of<'a>(sync: &'a Value, user_id: &str) -> Option<&'a Value> {
    sync["presence"]["events"].as_array()?.iter().find(|e| e["sender"] == user_id).map(|e| &e["content"])
}

on_both! {
    async fn a_sync_makes_online_and_a_message_is_told(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        assert_eq!(alice.presence(&bob.user_id).await.ok(), json!({ "presence": "offline" }));
        let since = next(&alice.sync(None).await);
        bob.sync(None).await;
        assert_eq!(alice.presence(&bob.user_id).await.ok()["presence"], "offline");
        bob.online().await;
        let (since, content) = alice.told(&since, &bob.user_id, "online").await;
        assert_eq!(content["currently_active"], true);

        world.clock.advance(Duration::from_secs(1));
        bob.put(&path(&bob.user_id), json!({ "presence": "unavailable", "status_msg": "tea" })).await.ok();
        let sync = alice.sync(Some(&since)).await;
        let content = of(&sync, &bob.user_id).unwrap();
        assert_eq!((&content["presence"], &content["status_msg"]), (&json!("unavailable"), &json!("tea")));
        let reply = alice.presence(&bob.user_id).await.ok();
        assert_eq!((&reply["presence"], &reply["status_msg"]), (&json!("unavailable"), &json!("tea")));
    }

    async fn whoever_waits_is_told_of_somebody_who_has_never_asked_for_anything(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let since = next(&bob.sync(None).await);
        let (sync, ()) = tokio::join!(bob.wait(&since), async {
            world.until_a_sync_waits().await;
            alice.put(&path(&alice.user_id), json!({ "presence": "online", "status_msg": "hello" })).await.ok();
        });
        let content = of(&sync, &alice.user_id).expect("bob is woken by this, and by nothing else");
        assert_eq!((&content["presence"], &content["status_msg"]), (&json!("online"), &json!("hello")));

        // And of somebody who asks for the first time.
        let carol = world.user("carol").await;
        carol.join(&room).await.ok();
        let since = next(&bob.sync(Some(&next(&sync))).await);
        let (sync, ()) = tokio::join!(bob.wait(&since), async {
            world.until_a_sync_waits().await;
            carol.online().await;
        });
        assert_eq!(of(&sync, &carol.user_id).unwrap()["presence"], "online");
    }

    async fn whoever_comes_to_share_a_room_is_told_how_the_others_are(world) {
        let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let (since_alice, since_bob) = (next(&alice.sync(None).await), next(&bob.sync(None).await));
        for client in [&alice, &bob, &carol] {
            client.online().await;
        }
        let (since_alice, _) = alice.told(&since_alice, &alice.user_id, "online").await;
        let (since_bob, _) = bob.told(&since_bob, &bob.user_id, "online").await;
        bob.join(&room).await.ok();
        let joined = bob.sync(Some(&since_bob)).await;
        assert_eq!(of(&joined, &alice.user_id).unwrap()["presence"], "online");
        assert!(of(&joined, &carol.user_id).is_none(), "they share no room");
        let told = alice.sync(Some(&since_alice)).await;
        assert_eq!(of(&told, &bob.user_id).unwrap()["presence"], "online");
        for (client, sync) in [(&alice, &told), (&bob, &joined)] {
            let nothing = client.sync(Some(&next(sync))).await;
            assert!(nothing.get("presence").is_none(), "{nothing}");
        }
        // A filter drops whoever it drops, however their presence comes.
        carol.join(&room).await.ok();
        let filter = escape(&json!({ "presence": { "not_senders": [carol.user_id] } }).to_string());
        let filtered = alice.sync_with(Some(&next(&told)), &format!("&filter={filter}")).await;
        assert!(of(&filtered, &carol.user_id).is_none());
        assert!(of(&alice.sync(Some(&next(&told))).await, &carol.user_id).is_some());
    }

    async fn who_was_away_while_the_server_was_started_hears_only_of_those_who_have_joined(world) {
        let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let (since, since_carol) = (next(&alice.sync(None).await), next(&carol.sync(None).await));
        carol.online().await;
        carol.told(&since_carol, &carol.user_id, "online").await;
        bob.online().await;
        let (since, _) = alice.told(&since, &bob.user_id, "online").await;
        carol.join(&room).await.ok();
        let world = world.restarted().await;
        let (alice, bob) = (alice.at(&world), bob.at(&world));
        bob.say(&room, "hello").await;
        for _ in 0..4 {
            let sync = alice.sync(Some(&since)).await;
            assert!(of(&sync, &bob.user_id).is_none(), "she knows that: {sync}");
            assert_eq!(of(&sync, &carol.user_id).unwrap()["presence"], "online");
        }
    }

    async fn a_sync_is_answered_while_nothing_can_be_written(world) {
        let alice = world.user("alice").await;
        let since = next(&alice.sync(None).await);
        let holder = world.hold_writes().await;
        let answer = tokio::time::timeout(Duration::from_secs(20), alice.online()).await;
        drop(holder);
        answer.expect("the sync waits for somebody else to write");
        alice.told(&since, &alice.user_id, "online").await;
    }

    async fn unavailable_counts_at_once_and_for_one_device(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let since = next(&bob.sync(None).await);
        alice.online().await;
        let (since, _) = bob.told(&since, &alice.user_id, "online").await;
        alice.unavailable().await;
        let (since, _) = bob.told(&since, &alice.user_id, "unavailable").await;
        let laptop = world.login(&alice).await;
        laptop.online().await;
        let (since, _) = bob.told(&since, &alice.user_id, "online").await;
        // The telephone goes on saying so, which changes nothing. The message comes after what that might have led to.
        for _ in 0..4 {
            alice.unavailable().await;
        }
        laptop.unavailable().await;
        let (_, content) = bob.told(&since, &alice.user_id, "unavailable").await;
        assert!(content.get("currently_active").is_none());
    }

    async fn presence_is_for_those_who_share_a_room_and_set_by_oneself(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        alice.presence(&bob.user_id).await.refused(403, "M_FORBIDDEN");
        alice.presence("@nobody:localhost").await.refused(403, "M_FORBIDDEN");
        bob.online().await;
        alice.online().await;
        let sync = alice.sync(None).await;
        assert!(of(&sync, &bob.user_id).is_none());
        if of(&sync, &alice.user_id).is_none() {
            alice.told(&next(&sync), &alice.user_id, "online").await;
        }
        assert_eq!(alice.presence(&alice.user_id).await.ok()["presence"], "online");
        alice.put(&path(&bob.user_id), json!({ "presence": "online" })).await.refused(403, "M_FORBIDDEN");
        alice.put(&path(&alice.user_id), json!({ "presence": "asleep" })).await.refused(400, "M_INVALID_PARAM");
        alice.put(&path(&alice.user_id), json!({})).await.refused(400, "M_MISSING_PARAM");
    }

    async fn switched_off_nobody_is_online(world, config => { config.presence.enabled = false }) {
        let alice = world.user("alice").await;
        alice.online().await;
        assert_eq!(alice.presence(&alice.user_id).await.ok(), json!({ "presence": "offline" }));
        alice.put(&path(&alice.user_id), json!({ "presence": "online" })).await.refused(404, "M_UNRECOGNIZED");
    }
}
