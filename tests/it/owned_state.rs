//! State that belongs to a user, in rooms of the versions that a proposal has for it.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/3757>

use serde_json::json;

use crate::{
    on_both,
    world::{Client, at, escape},
};

const KIND: &str = "org.example.beacon";

/// A room of alice with bob, who moderates, and carol, in which everybody may place beacons.
async fn room_of(alice: &Client, bob: &Client, carol: &Client, version: &str) -> String {
    let body = json!({
        "room_version": version,
        "preset": "public_chat",
        "power_level_content_override": {
            "users": { &alice.user_id: 100, &bob.user_id: 50 },
            "events": { KIND: 0 },
        },
    });
    let room = alice.create_room(body).await;
    for user in [bob, carol] {
        user.join(&room).await.ok();
    }
    room
}

fn place(room: &str, key: &str) -> String {
    at(room, &format!("/state/{KIND}/{}", escape(key)))
}

on_both! {
    async fn state_belongs_to_whom_its_key_names(world) {
        let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
        for version in ["org.matrix.msc3757.10", "org.matrix.msc3757.11"] {
            let room = room_of(&alice, &bob, &carol, version).await;
            let put = async |user: &Client, key: &str, n: i32| user.put(&place(&room, key), json!({ "n": n })).await;
            let own = carol.user_id.clone();
            let (phone, laptop) = (format!("{own}_phone"), format!("{own}_lap:top @2"));

            // Several pieces of one type, each at its own key.
            for (n, key) in [(1, &own), (2, &phone), (3, &laptop)] {
                put(&carol, key, n).await.ok();
            }
            for (n, key) in [(1, &own), (2, &phone), (3, &laptop)] {
                assert_eq!(bob.get(&place(&room, key)).await.ok(), json!({ "n": n }));
            }
            // More power than the owner's is needed, not as much.
            put(&bob, &phone, 4).await.ok();
            put(&bob, &own, 5).await.ok();
            put(&carol, &phone, 6).await.ok();
            for key in [&bob.user_id, &format!("{}_phone", bob.user_id)] {
                put(&carol, key, 7).await.refused(403, "M_FORBIDDEN");
                put(&alice, key, 7).await.ok();
            }
            // Whom a key names is not decided by how it begins.
            put(&carol, &format!("{own}phone"), 9).await.refused(403, "M_FORBIDDEN");
            put(&carol, &format!("{own}.example_phone"), 9).await.refused(403, "M_FORBIDDEN");
            put(&alice, "@nobody:elsewhere.example_x", 9).await.ok();
            put(&carol, &format!("_{own}"), 9).await.ok();
            let levels = at(&room, "/state/m.room.power_levels");
            let mut equal = alice.get(&levels).await.ok();
            equal["users"][&carol.user_id] = json!(50);
            alice.put(&levels, equal).await.ok();
            put(&bob, &phone, 8).await.refused(403, "M_FORBIDDEN");
            put(&carol, &bob.user_id, 8).await.refused(403, "M_FORBIDDEN");
            assert_eq!(carol.get(&place(&room, &phone)).await.ok(), json!({ "n": 6 }));
            // Those who are gone own it still, and write no more.
            carol.leave(&room).await.ok();
            put(&carol, &phone, 10).await.refused(403, "M_FORBIDDEN");
            put(&alice, &phone, 10).await.ok();
        }
    }

    async fn a_key_that_nobody_could_own_is_refused(world) {
        let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
        let room = room_of(&alice, &bob, &carol, "org.matrix.msc3757.11").await;
        let put = async |key: &str| alice.put(&place(&room, key), json!({})).await;
        for key in ["@", "@alice", "@alice:", "@alice_localhost", &format!("{}@x", alice.user_id)] {
            put(key).await.refused(400, "M_BAD_JSON");
        }
        // 255 bytes as ever, or as many behind an identifier and its underscore.
        let long = "x".repeat(255);
        put(&long).await.ok();
        put(&format!("{}_{long}", alice.user_id)).await.ok();
        assert_eq!(bob.get(&place(&room, &format!("{}_{long}", alice.user_id))).await.ok(), json!({}));
        put(&format!("{long}x")).await.refused(400, "M_BAD_JSON");
        put(&format!("{}_{long}x", alice.user_id)).await.refused(400, "M_BAD_JSON");
        put(&"x".repeat(512)).await.refused(400, "M_INVALID_PARAM");
    }

    async fn in_other_rooms_everybody_owns_one_piece(world) {
        let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
        let room = room_of(&alice, &bob, &carol, "11").await;
        let own = carol.user_id.clone();
        carol.put(&place(&room, &own), json!({ "n": 1 })).await.ok();
        carol.put(&place(&room, &format!("{own}_phone")), json!({})).await.refused(403, "M_FORBIDDEN");
        alice.put(&place(&room, &own), json!({})).await.refused(403, "M_FORBIDDEN");
        alice.put(&place(&room, "@nobody"), json!({})).await.refused(403, "M_FORBIDDEN");
        alice.put(&place(&room, &"x".repeat(256)), json!({})).await.refused(400, "M_INVALID_PARAM");
    }

    /// Whoever asks for such a room knows what they get; nobody else does.
    async fn the_versions_are_offered_as_unstable(world) {
        let alice = world.user("alice").await;
        let offered = alice.get("/_matrix/client/v3/capabilities").await.ok();
        let available = &offered["capabilities"]["m.room_versions"]["available"];
        assert_eq!(available["org.matrix.msc3757.10"], json!("unstable"));
        assert_eq!(available["11"], json!("stable"));
        let room = alice.create_room(json!({ "room_version": "11" })).await;
        let new = alice.post(&at(&room, "/upgrade"), json!({ "new_version": "org.matrix.msc3757.11" })).await.ok();
        let new = new["replacement_room"].as_str().unwrap().to_owned();
        alice.put(&place(&new, &format!("{}_a", alice.user_id)), json!({})).await.ok();
    }
}
