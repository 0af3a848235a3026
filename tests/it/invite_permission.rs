//! Taking no invitations.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#invite-permission>

use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, escape, next},
};

async fn set_permission(user: &Client, content: Value) {
    let path = format!("/_matrix/client/v3/user/{}/account_data/m.invite_permission_config", escape(&user.user_id));
    user.put(&path, content).await.ok();
}

on_both! {
    async fn who_blocks_invitations_gets_none_whichever_way_they_are_sent(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({})).await;
        set_permission(&bob, json!({ "default_action": "block" })).await;

        alice.invite(&room, &bob.user_id).await.refused(403, "M_INVITE_BLOCKED");
        let state = format!("/_matrix/client/v3/rooms/{}/state/m.room.member/{}", escape(&room), escape(&bob.user_id));
        alice.put(&state, json!({ "membership": "invite" })).await.refused(403, "M_INVITE_BLOCKED");
        let create = alice.post("/_matrix/client/v3/createRoom", json!({ "invite": [bob.user_id] })).await;
        create.refused(403, "M_INVITE_BLOCKED");
        alice.get(&state).await.refused(404, "M_NOT_FOUND");

        // What means nothing blocks nothing.
        for content in [json!({}), json!({ "default_action": "allow" }), json!({ "default_action": ["block"] })] {
            set_permission(&bob, content).await;
            alice.invite(&room, &bob.user_id).await.ok();
            bob.leave(&room).await.ok();
        }
    }

    async fn invitations_from_before_are_not_shown_while_they_are_blocked(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let from = next(&bob.sync(None).await);
        let room = alice.create_room(json!({ "invite": [bob.user_id] })).await;
        assert!(bob.sync(None).await["rooms"]["invite"][&room].is_object());
        set_permission(&bob, json!({ "default_action": "block" })).await;
        let sync = bob.sync(None).await;
        assert!(sync["rooms"]["invite"][&room].is_null(), "{sync}");
        // It is as if it were not there for syncs, not for the room.
        let state = format!("/_matrix/client/v3/rooms/{}/state/m.room.member/{}", escape(&room), escape(&bob.user_id));
        assert_eq!(alice.get(&state).await.ok()["membership"], "invite");
        let more = bob.sync(Some(&next(&sync))).await;
        assert!(more["rooms"]["invite"][&room].is_null(), "{more}");
        let stream = format!("/_matrix/client/v3/events?timeout=0&from={from}");
        let hidden = bob.get(&stream).await.ok();
        assert_eq!(hidden["chunk"], json!([]));
        set_permission(&bob, json!({})).await;
        assert!(bob.sync(None).await["rooms"]["invite"][&room].is_object());
        let shown = bob.get(&stream).await.ok();
        assert_eq!(shown["chunk"][0]["content"]["membership"], "invite", "{shown}");
        bob.join(&room).await.ok();
    }
}
