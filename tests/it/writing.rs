//! Writing to rooms over HTTP: what each endpoint takes, and what it answers to what it does not take.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#rooms-1>

use serde_json::json;

use crate::{on_both, world::escape};

on_both! {
    /// Nothing is made of a request that can't be fulfilled whole.
    async fn create_room_says_what_is_wrong(world) {
        let alice = world.user("alice").await;
        let create = async |body| alice.post("/_matrix/client/v3/createRoom", body).await;
        create(json!({"room_version": "1"})).await.refused(400, "M_UNSUPPORTED_ROOM_VERSION");
        create(json!({"preset": "secret_chat"})).await.refused(400, "M_BAD_JSON");
        create(json!({"visibility": "hidden"})).await.refused(400, "M_BAD_JSON");
        create(json!({"room_alias_name": "a:b"})).await.refused(400, "M_INVALID_PARAM");
        create(json!({"room_alias_name": ""})).await.refused(400, "M_INVALID_PARAM");
        create(json!({"initial_state": [{"type": "m.room.name"}]})).await.refused(400, "M_BAD_JSON");
        create(json!({"initial_state": [{"type": "a", "content": {"n": 1.5}}]})).await.refused(400, "M_BAD_JSON");
        create(json!({"room_version": "12", "power_level_content_override": {"users": {&alice.user_id: 100}}}))
            .await
            .refused(400, "M_INVALID_ROOM_STATE");
        let invite = json!([{
            "id_server": "id.example", "id_access_token": "t", "medium": "email", "address": "bob@example.org",
        }]);
        create(json!({"invite_3pid": invite})).await.refused(400, "M_SERVER_NOT_TRUSTED");
        create(json!({"invite": ["@bob:elsewhere.example"]})).await.refused(403, "M_FORBIDDEN");
        create(json!({"room_alias_name": "pub"})).await.ok();
        create(json!({"room_alias_name": "pub"})).await.refused(400, "M_ROOM_IN_USE");
    }

    /// An empty state key is an empty last segment, or none.
    async fn a_state_key_that_is_empty_can_be_left_out(world) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        let path = format!("/_matrix/client/v3/rooms/{}/state/m.room.topic", escape(&room));
        let first = alice.put(&path, json!({"topic": "A"})).await.ok();
        assert_eq!(alice.put(&format!("{path}/"), json!({"topic": "A"})).await.ok(), first);
        assert_ne!(alice.put(&format!("{path}/other"), json!({"topic": "A"})).await.ok(), first);
        let slash = alice.put(&format!("{path}/a%2Fb"), json!({"topic": "B"})).await.ok();
        assert_eq!(alice.put(&format!("{path}/a%2Fb"), json!({"topic": "B"})).await.ok(), slash);
    }

    async fn the_directory_keeps_names_apart(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({"preset": "public_chat"})).await;
        let alias = format!("/_matrix/client/v3/directory/room/{}", escape("#pub:localhost"));
        bob.put(&alias, json!({"room_id": room})).await.refused(403, "M_FORBIDDEN");
        alice.put(&alias, json!({"room_id": room})).await.ok();
        alice.put(&alias, json!({"room_id": room})).await.refused(409, "M_UNKNOWN");
        let found = world.call("GET", &alias, None, None).await.ok();
        assert_eq!(found, json!({"room_id": room, "servers": ["localhost"]}));
        bob.join("#pub:localhost").await.ok();
        bob.delete(&alias).await.refused(403, "M_FORBIDDEN");
        alice.delete(&alias).await.ok();
        alice.delete(&alias).await.refused(404, "M_NOT_FOUND");

        let listed = format!("/_matrix/client/v3/directory/list/room/{}", escape(&room));
        assert_eq!(bob.get(&listed).await.ok(), json!({"visibility": "private"}));
        bob.put(&listed, json!({"visibility": "public"})).await.refused(403, "M_FORBIDDEN");
        alice.put(&listed, json!({"visibility": "public"})).await.ok();
        assert_eq!(bob.get(&listed).await.ok(), json!({"visibility": "public"}));
        alice.put(&listed, json!({"visibility": "private"})).await.ok();
        alice.put(&listed, json!({})).await.ok();
        assert_eq!(bob.get(&listed).await.ok(), json!({"visibility": "public"}));
        alice.put(&listed, json!({"visibility": 1})).await.refused(400, "M_BAD_JSON");
        let nowhere = format!("/_matrix/client/v3/directory/list/room/{}", escape("!nowhere:localhost"));
        bob.get(&nowhere).await.refused(404, "M_NOT_FOUND");
    }

    /// In every version a redaction can also be sent like any other event.
    async fn a_redaction_is_sent_either_way(world) {
        let alice = world.user("alice").await;
        for version in ["10", "11", "12"] {
            let room = alice.create_room(json!({"room_version": version})).await;
            let base = format!("/_matrix/client/v3/rooms/{}", escape(&room));
            let (one, other) = (alice.say(&room, "one").await, alice.say(&room, "other").await);
            alice.put(&format!("{base}/redact/{}/1", escape(&one)), json!({"reason": "typo"})).await.ok();
            alice.put(&format!("{base}/send/m.room.redaction/2"), json!({"redacts": other})).await.ok();
            for event in [one, other] {
                let event = alice.get(&format!("{base}/event/{}", escape(&event))).await.ok();
                assert_eq!(event["content"], json!({}));
                assert_eq!(event["unsigned"]["redacted_because"]["redacts"], event["event_id"]);
            }
            alice.put(&format!("{base}/send/m.room.redaction/3"), json!({})).await.refused(400, "M_MISSING_PARAM");
            // A type that is not state, and types that are nothing else.
            alice.put(&format!("{base}/state/m.room.redaction"), json!({})).await.refused(400, "M_BAD_JSON");
            alice.put(&format!("{base}/send/m.room.create/4"), json!({})).await.refused(400, "M_BAD_JSON");
            alice.put(&format!("{base}/send/m.room.member/5"), json!({})).await.refused(400, "M_BAD_JSON");
        }
    }
}
