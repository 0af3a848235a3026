//! Jumping to a date: the event of a room that is closest to a time.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event>

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, Reply, World, escape},
};

fn at(room: &str, query: &str) -> String {
    format!("/_matrix/client/v1/rooms/{}/timestamp_to_event{query}", escape(room))
}

async fn ask(user: &Client, room: &str, ts: u64, direction: &str) -> Reply {
    user.get(&at(room, &format!("?ts={ts}&dir={direction}"))).await
}

async fn closest(user: &Client, room: &str, ts: u64, direction: &str) -> (String, u64) {
    let found = ask(user, room, ts, direction).await.ok();
    (found["event_id"].as_str().unwrap().to_owned(), found["origin_server_ts"].as_u64().unwrap())
}

fn now(world: &World) -> u64 {
    world.clock.now().get().into()
}

/// Says something each minute and tells when it was.
async fn say(world: &World, user: &Client, room: &str, texts: &[&str]) -> Vec<(String, u64)> {
    let mut said = Vec::new();
    for text in texts {
        world.clock.advance(Duration::from_mins(1));
        said.push((user.say(room, text).await, now(world)));
    }
    said
}

async fn room(creator: &Client, visibility: &str) -> String {
    let content = json!({ "history_visibility": visibility });
    let state = json!({ "type": "m.room.history_visibility", "content": content });
    creator.create_room(json!({ "preset": "public_chat", "initial_state": [state] })).await
}

on_both! {
    async fn the_closest_event_in_either_direction(world) {
        let alice = world.user("alice").await;
        let before = now(&world);
        world.clock.advance(Duration::from_mins(1));
        let (room, other) = (room(&alice, "shared").await, room(&alice, "shared").await);
        let founded = now(&world);
        let said = say(&world, &alice, &room, &["one", "two", "three"]).await;
        say(&world, &alice, &other, &["elsewhere"]).await;
        for (event, ts) in &said {
            for direction in ["f", "b"] {
                assert_eq!(closest(&alice, &room, *ts, direction).await, (event.clone(), *ts), "the very moment");
            }
        }
        assert_eq!(closest(&alice, &room, said[0].1 + 1, "f").await, said[1]);
        assert_eq!(closest(&alice, &room, said[1].1 - 1, "b").await, said[0]);
        assert_eq!(closest(&alice, &room, 9_007_199_254_740_991, "b").await, said[2]);

        let (first, ts) = closest(&alice, &room, 0, "f").await;
        let create = alice.get(&format!("/_matrix/client/v3/rooms/{}/event/{}", escape(&room), escape(&first))).await.ok();
        assert_eq!((&create["type"], ts), (&json!("m.room.create"), founded));
        ask(&alice, &room, before, "b").await.refused(404, "M_NOT_FOUND");
        ask(&alice, &room, said[2].1 + 1, "f").await.refused(404, "M_NOT_FOUND");
        let old = format!(
            "/_matrix/client/unstable/org.matrix.msc3030/rooms/{}/timestamp_to_event?ts=0&dir=f",
            escape(&room)
        );
        assert_eq!(alice.get(&old).await.ok()["event_id"], first);

        let world = world.restarted().await;
        assert_eq!(closest(&alice.at(&world), &room, said[1].1, "f").await, said[1]);
    }

    /// The clock stands still, so that nothing is later than what came before.
    async fn events_of_one_moment(world) {
        let alice = world.user("alice").await;
        let room = room(&alice, "joined").await;
        world.clock.advance(Duration::from_mins(1));
        let mut said = Vec::new();
        for text in ["one", "two"] {
            said.push(alice.say(&room, text).await);
        }
        assert_eq!(closest(&alice, &room, now(&world), "b").await.0, said[1], "the last of them");
        let bob = world.user("bob").await;
        bob.join(&room).await.ok();
        let joined = closest(&bob, &room, now(&world), "f").await.0;
        let member = bob.get(&format!("/_matrix/client/v3/rooms/{}/event/{}", escape(&room), escape(&joined))).await.ok();
        assert_eq!((&member["type"], &member["state_key"]), (&json!("m.room.member"), &json!(bob.user_id)));
    }

    /// Trap: history visibility, leavers.
    async fn only_what_the_reader_sees_is_found(world) {
        let (alice, bob, eve) = (world.user("alice").await, world.user("bob").await, world.user("eve").await);
        for (visibility, sees_before) in [("shared", true), ("invited", false), ("joined", false)] {
            let room = room(&alice, visibility).await;
            let before = say(&world, &alice, &room, &["before"]).await;
            world.clock.advance(Duration::from_mins(1));
            bob.join(&room).await.ok();
            let joined = now(&world);
            let during = say(&world, &alice, &room, &["during"]).await;
            world.clock.advance(Duration::from_mins(1));
            bob.leave(&room).await.ok();
            let left = now(&world);
            let after = say(&world, &alice, &room, &["after"]).await;

            let first = if sees_before { before[0].1 } else { joined };
            assert_eq!(closest(&bob, &room, before[0].1, "f").await.1, first, "{visibility}");
            assert_eq!(closest(&bob, &room, during[0].1, "b").await, during[0], "{visibility}");
            assert_eq!(closest(&bob, &room, after[0].1, "b").await.1, left, "{visibility}");
            ask(&bob, &room, after[0].1, "f").await.refused(404, "M_NOT_FOUND");
            if sees_before {
                assert_eq!(closest(&bob, &room, before[0].1, "b").await, before[0]);
            } else {
                assert!(closest_before(&bob, &room, before[0].1).await.is_none_or(|ts| ts < before[0].1), "{visibility}");
            }
            assert_eq!(closest(&alice, &room, after[0].1, "f").await, after[0]);

            let hidden = ask(&eve, &room, after[0].1, "b").await;
            hidden.refused(403, "M_FORBIDDEN");
            assert_eq!(ask(&eve, "!nowhere:localhost", 0, "f").await.body, hidden.body);
            bob.join(&room).await.ok();
            let again = closest(&bob, &room, after[0].1, "f").await;
            assert_eq!(again == after[0], sees_before, "{visibility}: between two memberships");
        }
    }

    async fn the_world_jumps_in_what_is_world_readable(world) {
        let (alice, eve) = (world.user("alice").await, world.user("eve").await);
        let room = room(&alice, "world_readable").await;
        let said = say(&world, &alice, &room, &["open"]).await;
        assert_eq!(closest(&eve, &room, said[0].1, "b").await, said[0]);
        let redact = format!("/_matrix/client/v3/rooms/{}/redact/{}/t", escape(&room), escape(&said[0].0));
        alice.put(&redact, json!({})).await.ok();
        assert_eq!(closest(&eve, &room, said[0].1, "f").await, said[0], "a redacted event keeps its place");
    }

    async fn wrong_parameters_are_named(world) {
        let alice = world.user("alice").await;
        let room = room(&alice, "shared").await;
        for query in ["", "?ts=0", "?dir=f"] {
            alice.get(&at(&room, query)).await.refused(400, "M_MISSING_PARAM");
        }
        for query in [
            "?ts=-1&dir=f",
            "?ts=9007199254740992&dir=f",
            "?ts=99999999999999999999&dir=b",
            "?ts=1.5&dir=f",
            "?ts=yesterday&dir=f",
            "?ts=&dir=f",
            "?ts=0&dir=up",
            "?ts=0&dir=",
        ] {
            alice.get(&at(&room, query)).await.refused(400, "M_INVALID_PARAM");
        }
        alice.get(&at("nonsense", "?ts=0&dir=f")).await.refused(400, "M_INVALID_PARAM");
        let path = at(&room, "?ts=0&dir=f");
        world.call("GET", &path, None, None).await.refused(401, "M_MISSING_TOKEN");
        world.call("GET", &path, Some("nobodys"), None).await.refused(401, "M_UNKNOWN_TOKEN");
    }
}

/// When the last event was sent that the reader sees at or before a time, if there is one.
async fn closest_before(user: &Client, room: &str, ts: u64) -> Option<u64> {
    let reply = ask(user, room, ts, "b").await;
    if reply.status == 404 {
        return None;
    }
    reply.ok().get("origin_server_ts").and_then(Value::as_u64)
}
