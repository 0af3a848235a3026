//! Presence.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#presence>

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
        let sync = alice.sync(Some(&since)).await;
        let content = of(&sync, &bob.user_id).unwrap();
        assert_eq!((&content["presence"], &content["currently_active"]), (&json!("online"), &json!(true)));

        bob.put(&path(&bob.user_id), json!({ "presence": "unavailable", "status_msg": "tea" })).await.ok();
        let sync = alice.sync(Some(&next(&sync))).await;
        let content = of(&sync, &bob.user_id).unwrap();
        assert_eq!((&content["presence"], &content["status_msg"]), (&json!("unavailable"), &json!("tea")));
        let reply = alice.presence(&bob.user_id).await.ok();
        assert_eq!((&reply["presence"], &reply["status_msg"]), (&json!("unavailable"), &json!("tea")));
    }

    async fn presence_is_for_those_who_share_a_room_and_set_by_oneself(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        alice.presence(&bob.user_id).await.refused(403, "M_FORBIDDEN");
        alice.presence("@nobody:localhost").await.refused(403, "M_FORBIDDEN");
        bob.online().await;
        alice.online().await;
        assert!(of(&alice.sync(None).await, &bob.user_id).is_none());
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
