//! Rooms of other servers that say that they take the place of others.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-upgrades>

use serde_json::{Value, json};

use crate::{
    with_scripted,
    world::{Client, at, escape},
};

fn data(user: &Client, rest: &str) -> String {
    format!("/_matrix/client/v3/user/{}/{rest}", escape(&user.user_id))
}

async fn tags(user: &Client, room: &str) -> Value {
    user.get(&data(user, &format!("rooms/{}/tags", escape(room)))).await.ok()["tags"].clone()
}

async fn is_direct(user: &Client, room: &str) -> bool {
    user.get(&data(user, "account_data/m.direct")).await.ok().to_string().contains(room)
}

with_scripted! {
    /// A predecessor that nobody confirmed (Synapse 1.157.2).
    async fn nothing_is_brought_along_that_the_old_room_has_not_confirmed(one, far) {
        let (alice, bob) = (one.user("alice").await, one.user("bob").await);
        for version in ["11", "12"] {
            let old = alice.create_room(json!({ "room_version": version, "invite": [bob.user_id] })).await;
            bob.join(&old).await.ok();
            alice.put(&data(&alice, "account_data/m.direct"), json!({ bob.user_id.as_str(): [old] })).await.ok();
            let tag = data(&alice, &format!("rooms/{}/tags/m.favourite", escape(&old)));
            alice.put(&tag, json!({ "order": 0.1 })).await.ok();
            let predecessor = json!({ "predecessor": { "room_id": old, "event_id": "$tombstone" } });
            let public = || json!({ "join_rule": "public" });
            let claims = far.create_room_saying(version, public(), predecessor.clone());
            alice.join_via(&claims.id, "far.test").await.ok();
            assert_eq!(tags(&alice, &claims.id).await, json!({}));
            assert!(!is_direct(&alice, &claims.id).await);
            // The old room names another one.
            let confirmed = far.create_room_saying(version, public(), predecessor.clone());
            let tombstone = json!({ "body": "Moved", "replacement_room": confirmed.id });
            alice.put(&at(&old, "/state/m.room.tombstone/"), tombstone).await.ok();
            let claims_too = far.create_room_saying(version, public(), predecessor);
            alice.join_via(&claims_too.id, "far.test").await.ok();
            assert_eq!(tags(&alice, &claims_too.id).await, json!({}));
            assert!(!is_direct(&alice, &claims_too.id).await);
            // And this one.
            alice.join_via(&confirmed.id, "far.test").await.ok();
            assert_eq!(tags(&alice, &confirmed.id).await, json!({ "m.favourite": { "order": 0.1 } }));
            assert!(is_direct(&alice, &confirmed.id).await);
        }
    }
}
