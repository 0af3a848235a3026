//! Rooms that take the place of others: by an upgrade, or because they say so.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-upgrades>

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, Reply, at, escape},
};

async fn upgrade(user: &Client, room: &str, version: &str) -> Reply {
    user.post(&at(room, "/upgrade"), json!({ "new_version": version })).await
}

async fn upgraded(user: &Client, room: &str, version: &str) -> String {
    upgrade(user, room, version).await.ok()["replacement_room"].as_str().unwrap().to_owned()
}

async fn state(user: &Client, room: &str, kind: &str) -> Value {
    user.get(&at(room, &format!("/state/{kind}/"))).await.ok()
}

/// A direct chat with mallory, as somebody has it in their account data, and a tag.
async fn cherish(user: &Client, room: &str, friend: &str) {
    let own = format!("/_matrix/client/v3/user/{}", escape(&user.user_id));
    user.put(&format!("{own}/account_data/m.direct"), json!({ friend: [room] })).await.ok();
    user.put(&format!("{own}/rooms/{}/tags/m.favourite", escape(room)), json!({ "order": 0.1 })).await.ok();
}

/// Whether a room has the tag, and whether it counts as a direct chat.
async fn cherishes(user: &Client, room: &str) -> (bool, bool) {
    let own = format!("/_matrix/client/v3/user/{}", escape(&user.user_id));
    let tags = user.get(&format!("{own}/rooms/{}/tags", escape(room))).await.ok();
    let direct = user.get(&format!("{own}/account_data/m.direct")).await.ok();
    let chats = direct.as_object().unwrap().values().flat_map(|rooms| rooms.as_array().unwrap());
    (tags["tags"].get("m.favourite").is_some(), chats.into_iter().any(|chat| chat == room))
}

/// A room that claims to take the place of another.
async fn claim(user: &Client, old: &str) -> String {
    let predecessor = json!({ "predecessor": { "room_id": old, "event_id": "$x" } });
    user.create_room(json!({ "preset": "public_chat", "creation_content": predecessor })).await
}

on_both! {
    /// Trap: a predecessor that nobody confirmed.
    async fn a_room_that_claims_to_replace_another_takes_nothing_over(world) {
        let (alice, bob, mallory) = (world.user("alice").await, world.user("bob").await, world.user("mallory").await);
        let room = alice.create_room(json!({ "preset": "trusted_private_chat", "invite": [bob.user_id] })).await;
        bob.join(&room).await.ok();
        cherish(&alice, &room, &bob.user_id).await;

        let evil = claim(&mallory, &room).await;
        alice.join(&evil).await.ok();
        assert_eq!(cherishes(&alice, &evil).await, (false, false));

        // The old room has been replaced, but by another one.
        let real = upgraded(&bob, &room, "11").await;
        let late = claim(&mallory, &room).await;
        alice.join(&late).await.ok();
        assert_eq!(cherishes(&alice, &late).await, (false, false));

        alice.leave(&evil).await.ok();
        alice.join(&evil).await.ok();
        assert_eq!(cherishes(&alice, &evil).await, (false, false));
        bob.invite(&real, &alice.user_id).await.ok();
        alice.join(&real).await.ok();
        assert_eq!(cherishes(&alice, &real).await, (true, true));
    }

    /// By hand: the new room is there before the old one says so.
    async fn a_tombstone_of_the_old_room_makes_a_claim_good(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = bob.create_room(json!({ "preset": "public_chat" })).await;
        alice.join(&room).await.ok();
        cherish(&alice, &room, &bob.user_id).await;
        let new = claim(&bob, &room).await;
        let tombstone = at(&room, "/state/m.room.tombstone/");
        let named = bob.put(&tombstone, json!({ "body": "Moved", "replacement_room": new })).await.ok();
        // What was redacted names nothing.
        let redacted = at(&room, &format!("/redact/{}/1", escape(named["event_id"].as_str().unwrap())));
        bob.put(&redacted, json!({})).await.ok();
        alice.join(&new).await.ok();
        assert_eq!(cherishes(&alice, &new).await, (false, false));
        alice.leave(&new).await.ok();
        bob.put(&tombstone, json!({ "body": "Moved", "replacement_room": new })).await.ok();
        alice.join(&new).await.ok();
        assert_eq!(cherishes(&alice, &new).await, (true, true));
    }

    /// This server does not know the state of a room that all its users have left.
    async fn a_room_that_everybody_has_left_confirms_nothing(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = bob.create_room(json!({ "preset": "public_chat" })).await;
        alice.join(&room).await.ok();
        cherish(&alice, &room, &bob.user_id).await;
        let new = upgraded(&bob, &room, "12").await;
        bob.leave(&room).await.ok();
        alice.leave(&room).await.ok();
        alice.join(&new).await.ok();
        assert_eq!(cherishes(&alice, &new).await, (false, false));
    }

    async fn of_upgrades_at_once_one_wins_and_later_ones_are_told_of_it(world) {
        let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
        let room = alice.create_room(json!({
            "preset": "public_chat", "room_version": "11", "room_alias_name": "pub", "visibility": "public",
            "power_level_content_override": { "users": { &alice.user_id: 100, &bob.user_id: 100 } },
        }));
        let room = room.await;
        bob.join(&room).await.ok();
        carol.join(&room).await.ok();
        let attempts = (0..3).flat_map(|_| [&alice, &bob]).enumerate();
        let attempts = attempts.map(|(n, user)| upgraded(user, &room, if n % 2 == 0 { "12" } else { "10" }));
        let found: BTreeSet<String> = join_all(attempts).await.into_iter().collect();
        let [new] = found.iter().collect::<Vec<_>>()[..] else { panic!("several rooms: {found:?}") };
        for version in ["12", "11"] {
            assert_eq!(upgraded(&bob, &room, version).await, *new);
        }
        upgrade(&bob, &room, "1").await.refused(400, "M_UNSUPPORTED_ROOM_VERSION");
        upgrade(&carol, &room, "12").await.refused(403, "M_FORBIDDEN");
        assert_eq!(state(&alice, &room, "m.room.tombstone").await["replacement_room"], *new);
        let named = alice.get("/_matrix/client/v3/directory/room/%23pub%3Alocalhost").await.ok();
        assert_eq!(named["room_id"], *new);
        let shown = world.call("GET", "/_matrix/client/v3/publicRooms", None, None).await.ok();
        assert_eq!((&shown["chunk"][0]["room_id"], &shown["total_room_count_estimate"]), (&json!(new), &json!(1)));
        // Nothing else was made of it.
        let rooms = alice.get("/_matrix/client/v3/joined_rooms").await.ok()["joined_rooms"].clone();
        let rooms_of_bob = bob.get("/_matrix/client/v3/joined_rooms").await.ok()["joined_rooms"].clone();
        let all: BTreeSet<&str> =
            [&rooms, &rooms_of_bob].iter().flat_map(|rooms| rooms.as_array().unwrap()).filter_map(Value::as_str).collect();
        assert_eq!(all, BTreeSet::from([room.as_str(), new.as_str()]));
    }

    async fn a_tombstone_that_leads_nowhere_keeps_nobody_from_upgrading(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let elsewhere = bob.create_room(json!({ "preset": "public_chat" })).await;
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let given_up = claim(&bob, &room).await;
        bob.leave(&given_up).await.ok();
        for named in [json!(elsewhere), json!(given_up), json!("!nowhere:example.org"), json!(room), json!(7), json!("x")] {
            let room = alice.create_room(json!({ "preset": "public_chat" })).await;
            let tombstone = json!({ "body": "Moved", "replacement_room": named });
            alice.put(&at(&room, "/state/m.room.tombstone/"), tombstone).await.ok();
            let new = upgraded(&alice, &room, "12").await;
            assert_eq!(state(&alice, &new, "m.room.create").await["predecessor"]["room_id"], room);
            assert_eq!(state(&alice, &room, "m.room.tombstone").await["replacement_room"], new);
        }
    }

    async fn power_levels_move_with_all_that_is_written_there(world) {
        let alice = world.user("alice").await;
        for (from, to) in [("9", "9"), ("9", "12"), ("11", "11"), ("11", "12"), ("12", "12"), ("12", "10")] {
            let room = alice.create_room(json!({ "preset": "public_chat", "room_version": from })).await;
            let mut levels = state(&alice, &room, "m.room.power_levels").await;
            levels["notifications"] = json!({ "room": 33, "org.example.alarm": 44 });
            levels["org.example.level"] = json!({ "7": ["as it was"] });
            levels["users"]["@bob:localhost"] = json!(50);
            let moved = levels.clone();
            if from == "9" {
                levels["kick"] = json!("50");
                levels["users"]["@bob:localhost"] = json!(" +50");
                levels["notifications"]["room"] = json!("33");
            }
            alice.put(&at(&room, "/state/m.room.power_levels/"), levels).await.ok();
            let new = upgraded(&alice, &room, to).await;
            let mut kept = state(&alice, &new, "m.room.power_levels").await;
            let mut moved = moved;
            // The version decides whether who makes a room is listed, and what a tombstone takes.
            for levels in [&mut kept, &mut moved] {
                levels["users"].as_object_mut().unwrap().remove(&alice.user_id);
                levels["events"].as_object_mut().unwrap().remove("m.room.tombstone");
            }
            assert_eq!(kept, moved, "from version {from} to {to}");
        }
    }
}
