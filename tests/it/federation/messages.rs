//! What is said in rooms of several servers, and what is read of them.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#transactions>

use serde_json::{Value, json};

use super::peer::{as_time_goes_by, shared_room, until_they_agree};
use crate::{
    between,
    world::{Client, at, escape},
};

/// The texts of a room's messages, from the newest, as far as one gets.
async fn texts_backwards(user: &Client, room: &str) -> Vec<String> {
    let (mut texts, mut from) = (Vec::new(), String::new());
    loop {
        let page = user.get(&at(room, &format!("/messages?dir=b&limit=100{from}"))).await.ok();
        let chunk = page["chunk"].as_array().unwrap();
        texts.extend(chunk.iter().filter_map(|event| event["content"]["body"].as_str().map(ToOwned::to_owned)));
        match page["end"].as_str() {
            Some(end) => from = format!("&from={end}"),
            None => return texts,
        }
    }
}

between! {
    async fn messages_go_both_ways_in_their_order(internet, one, two) {
        let (alice, bob) = (one.user("alice").await, two.user("bob").await);
        let room = shared_room(&alice, &bob, "12").await;
        for number in 0..20 {
            alice.say(&room, &format!("a{number}")).await;
            bob.say(&room, &format!("b{number}")).await;
        }
        let of = |texts: Vec<String>, who: char| -> Vec<String> {
            texts.into_iter().filter(|text| text.starts_with(who)).collect()
        };
        let expected = |who: char| (0..20).rev().map(|number| format!("{who}{number}")).collect::<Vec<_>>();
        alice.hears(&room, "b19").await;
        bob.hears(&room, "a19").await;
        for (user, other) in [(&alice, 'b'), (&bob, 'a')] {
            assert_eq!(of(texts_backwards(user, &room).await, other), expected(other));
        }
        drop(internet);
    }

    async fn what_is_redacted_here_is_redacted_there(internet, one, two) {
        let (alice, bob) = (one.user("alice").await, two.user("bob").await);
        for version in ["10", "12"] {
            let room = shared_room(&alice, &bob, version).await;
            let event = alice.say(&room, "something rash").await;
            bob.hears(&room, "something rash").await;
            alice.put(&at(&room, &format!("/redact/{}/{version}", escape(&event))), json!({})).await.ok();
            alice.say(&room, "never mind").await;
            bob.hears(&room, "never mind").await;
            let seen = bob.get(&at(&room, &format!("/event/{}", escape(&event)))).await.ok();
            assert_eq!(seen["content"], json!({}), "{seen}");
        }
        drop(internet);
    }

    async fn history_from_before_the_join_is_fetched(internet, one, two) {
        let (alice, bob) = (one.user("alice").await, two.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        for number in 0..150 {
            alice.say(&room, &format!("{number}")).await;
        }
        bob.join_via(&room, "one.test").await.ok();
        let expected: Vec<String> = (0..150).rev().map(|number| number.to_string()).collect();
        assert_eq!(texts_backwards(&bob, &room).await, expected);
        // And who asks again finds it here.
        internet.part("one.test", "two.test");
        assert_eq!(texts_backwards(&bob, &room).await, expected);
    }

    async fn what_is_hidden_from_a_server_is_not_fetched_by_it(internet, one, two) {
        let (alice, bob) = (one.user("alice").await, two.user("bob").await);
        let hidden = json!({ "history_visibility": "joined" });
        let state = json!([{ "type": "m.room.history_visibility", "state_key": "", "content": hidden }]);
        let room = alice.create_room(json!({ "preset": "public_chat", "initial_state": state })).await;
        let event = alice.say(&room, "before bob").await;
        bob.join_via(&room, "one.test").await.ok();
        alice.say(&room, "with bob").await;
        bob.hears(&room, "with bob").await;
        assert_eq!(texts_backwards(&bob, &room).await, ["with bob"]);
        bob.get(&at(&room, &format!("/event/{}", escape(&event)))).await.refused(404, "M_NOT_FOUND");
        drop(internet);
    }

    async fn profiles_and_public_rooms_of_another_server_are_read(internet, one, two) {
        let (alice, bob) = (one.user("alice").await, two.user("bob").await);
        let path = format!("/_matrix/client/v3/profile/{}/displayname", escape(&alice.user_id));
        alice.put(&path, json!({ "displayname": "Alice of One" })).await.ok();
        let profile = bob.get(&format!("/_matrix/client/v3/profile/{}", escape(&alice.user_id))).await.ok();
        assert_eq!(profile["displayname"], "Alice of One");
        bob.get("/_matrix/client/v3/profile/%40nobody%3Aone.test").await.refused(404, "M_NOT_FOUND");

        let body = json!({ "preset": "public_chat", "name": "The pub", "visibility": "public" });
        let room = alice.create_room(body).await;
        let listed = bob.get("/_matrix/client/v3/publicRooms?server=one.test").await.ok();
        assert_eq!(listed["chunk"][0]["room_id"], room.as_str(), "{listed}");
        let found = bob.post("/_matrix/client/v3/publicRooms?server=one.test", json!({ "filter": { "generic_search_term": "PUB" } }));
        assert_eq!(found.await.ok()["chunk"][0]["name"], "The pub");
        drop(internet);
    }

    async fn a_space_of_another_server_is_walked(internet, one, two) {
        let (alice, bob) = (one.user("alice").await, two.user("bob").await);
        let child = alice.create_room(json!({ "preset": "public_chat", "name": "Child" })).await;
        let space = json!({ "preset": "public_chat", "creation_content": { "type": "m.space" }, "name": "Space" });
        let space = alice.create_room(space).await;
        let path = at(&space, &format!("/state/m.space.child/{}", escape(&child)));
        alice.put(&path, json!({ "via": ["one.test"] })).await.ok();
        bob.join_via(&space, "one.test").await.ok();
        let walked = bob.get(&format!("/_matrix/client/v1/rooms/{}/hierarchy", escape(&space))).await.ok();
        let names: Vec<&Value> = walked["rooms"].as_array().unwrap().iter().map(|room| &room["name"]).collect();
        assert_eq!(names, ["Space", "Child"], "{walked}");
        drop(internet);
    }

    async fn what_was_sent_during_an_outage_comes_afterwards(internet, one, two) {
        let (alice, bob) = (one.user("alice").await, two.user("bob").await);
        let mut rooms = Vec::new();
        for _ in 0..3 {
            rooms.push(shared_room(&alice, &bob, "12").await);
        }
        two.vanish();
        for number in 0..60 {
            alice.say(&rooms[number % 3], &format!("{number}")).await;
        }
        two.reappear();
        // Whoever is heard from is there again.
        bob.say(&rooms[0], "back again").await;
        as_time_goes_by([&one, &two], async {
            alice.hears(&rooms[0], "back again").await;
            for (index, room) in rooms.iter().enumerate() {
                bob.hears(room, &format!("{}", 57 + index)).await;
            }
        })
        .await;
        for (index, room) in rooms.iter().enumerate() {
            let expected: Vec<String> = (0..60).rev().filter(|number| number % 3 == index).map(|n| n.to_string()).collect();
            let texts = texts_backwards(&bob, room).await;
            let texts: Vec<String> = texts.into_iter().filter(|text| text != "back again").collect();
            assert_eq!(texts, expected);
            until_they_agree(&[&alice, &bob], room).await;
        }
        drop(internet);
    }
}
