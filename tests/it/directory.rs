//! Rooms from outside: the public directory, summaries, spaces, and the rooms that two users share.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#published-room-directory>

use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, World, at, escape},
};

const PUBLIC_ROOMS: &str = "/_matrix/client/v3/publicRooms";

/// A room that the directory shows.
async fn published(creator: &Client, name: &str, more: Value) -> String {
    let mut body = json!({ "preset": "public_chat", "visibility": "public", "name": name });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    creator.create_room(body).await
}

async fn space(creator: &Client, name: &str) -> String {
    let body = json!({ "preset": "public_chat", "name": name, "creation_content": { "type": "m.space" } });
    creator.create_room(body).await
}

async fn put_in(creator: &Client, space: &str, room: &str, content: Value) {
    creator.put(&at(space, &format!("/state/m.space.child/{}", escape(room))), content).await.ok();
}

fn names(page: &Value) -> Vec<&str> {
    page["chunk"].as_array().unwrap().iter().map(|room| room["name"].as_str().unwrap_or_default()).collect()
}

async fn hierarchy(user: &Client, space: &str, query: &str) -> Value {
    user.get(&format!("/_matrix/client/v1/rooms/{}/hierarchy{query}", escape(space))).await.ok()
}

fn rooms(hierarchy: &Value) -> Vec<&str> {
    hierarchy["rooms"].as_array().unwrap().iter().map(|room| room["name"].as_str().unwrap_or_default()).collect()
}

async fn anybody(world: &World, path: &str) -> Value {
    world.call("GET", path, None, None).await.ok()
}

on_both! {
    async fn the_directory_shows_the_greatest_rooms_first_in_pages(world) {
        let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
        let small = published(&alice, "Small", json!({ "topic": "few" })).await;
        let great = published(&alice, "Great", json!({ "room_alias_name": "great" })).await;
        let middle = published(&alice, "Middle", json!({})).await;
        alice.create_room(json!({ "preset": "public_chat", "name": "Unlisted" })).await;
        for user in [&bob, &carol] {
            user.join(&great).await.ok();
        }
        bob.join(&middle).await.ok();

        let all = anybody(&world, PUBLIC_ROOMS).await;
        assert_eq!(names(&all), ["Great", "Middle", "Small"]);
        assert_eq!((&all["total_room_count_estimate"], &all["next_batch"]), (&json!(3), &Value::Null));
        let first = &all["chunk"][0];
        assert_eq!((&first["room_id"], &first["num_joined_members"]), (&json!(great), &json!(3)));
        assert_eq!((&first["world_readable"], &first["guest_can_join"]), (&json!(false), &json!(false)));
        assert_eq!((&first["canonical_alias"], &first["join_rule"]), (&json!("#great:localhost"), &json!("public")));
        assert_eq!(all["chunk"][2]["topic"], "few");

        let page = anybody(&world, &format!("{PUBLIC_ROOMS}?limit=2")).await;
        assert_eq!((names(&page), &page["prev_batch"]), (vec!["Great", "Middle"], &Value::Null));
        let next = page["next_batch"].as_str().unwrap();
        let rest = anybody(&world, &format!("{PUBLIC_ROOMS}?limit=2&since={next}")).await;
        assert_eq!((names(&rest), &rest["next_batch"]), (vec!["Small"], &Value::Null));
        let back = rest["prev_batch"].as_str().unwrap();
        assert_eq!(names(&anybody(&world, &format!("{PUBLIC_ROOMS}?limit=2&since={back}")).await), ["Great", "Middle"]);

        // It follows what happens.
        bob.leave(&great).await.ok();
        carol.leave(&great).await.ok();
        carol.join(&small).await.ok();
        bob.join(&small).await.ok();
        alice.put(&at(&small, "/state/m.room.name"), json!({ "name": "Grown" })).await.ok();
        alice.put(&format!("/_matrix/client/v3/directory/list/room/{}", escape(&great)), json!({ "visibility": "private" })).await.ok();
        assert_eq!(names(&anybody(&world, PUBLIC_ROOMS).await), ["Grown", "Middle"]);
    }

    async fn the_directory_is_searched_by_words_and_types(world) {
        let alice = world.user("alice").await;
        published(&alice, "Überraschung", json!({})).await;
        published(&alice, "Second", json!({ "topic": "About CHEESE" })).await;
        published(&alice, "Third", json!({ "room_alias_name": "cheesy" })).await;
        published(&alice, "A space", json!({ "creation_content": { "type": "m.space" } })).await;
        let search = async |filter: Value| {
            let page = alice.post(PUBLIC_ROOMS, json!({ "filter": filter })).await.ok();
            let mut names: Vec<String> = names(&page).into_iter().map(ToOwned::to_owned).collect();
            names.sort();
            names
        };
        assert_eq!(search(json!({ "generic_search_term": "cheese" })).await, ["Second"]);
        assert_eq!(search(json!({ "generic_search_term": "CHEES" })).await, ["Second", "Third"]);
        for term in ["überr", "u\u{308}berr", "UBERR", "ｕｂｅｒｒ"] {
            assert_eq!(search(json!({ "generic_search_term": term })).await, ["Überraschung"], "{term}");
        }
        assert_eq!(search(json!({ "generic_search_term": "100%" })).await, [""; 0]);
        assert_eq!(search(json!({ "room_types": ["m.space"] })).await, ["A space"]);
        assert_eq!(search(json!({ "room_types": [null] })).await, ["Second", "Third", "Überraschung"]);
        assert_eq!(search(json!({ "room_types": [null, "m.space"] })).await.len(), 4);
        assert_eq!(search(json!({ "room_types": ["com.example.unknown"] })).await, [""; 0]);
        let bridged = json!({ "third_party_instance_id": "irc" });
        assert_eq!(names(&alice.post(PUBLIC_ROOMS, bridged).await.ok()), [""; 0]);

        world.call("POST", PUBLIC_ROOMS, None, Some(json!({}))).await.refused(401, "M_MISSING_TOKEN");
        alice.get(&format!("{PUBLIC_ROOMS}?since=nonsense")).await.refused(400, "M_INVALID_PARAM");
        alice.get(&format!("{PUBLIC_ROOMS}?server=elsewhere.example.org")).await.refused(404, "M_NOT_FOUND");
        alice.post(PUBLIC_ROOMS, json!({ "filter": 7 })).await.refused(400, "M_BAD_JSON");
    }

    async fn a_summary_is_for_those_who_may_know_of_the_room(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let summary = |room: &str| format!("/_matrix/client/v1/room_summary/{}", escape(room));
        let open = published(&alice, "Open", json!({ "room_alias_name": "open", "topic": "Welcome" })).await;
        let found = anybody(&world, &summary("#open:localhost")).await;
        assert_eq!((&found["room_id"], &found["name"], &found["topic"]), (&json!(open), &json!("Open"), &json!("Welcome")));
        assert_eq!((&found["num_joined_members"], &found["room_version"]), (&json!(1), &json!("12")));
        assert_eq!(found["membership"], Value::Null, "nobody asks");
        assert_eq!(bob.get(&summary(&open)).await.ok()["membership"], "leave");
        assert_eq!(alice.get(&summary(&open)).await.ok()["membership"], "join");

        let closed = alice.create_room(json!({ "preset": "private_chat", "name": "Closed" })).await;
        let hidden = bob.get(&summary(&closed)).await;
        hidden.refused(404, "M_NOT_FOUND");
        assert_eq!(bob.get(&summary("!nowhere:localhost")).await.body, hidden.body);
        world.call("GET", &summary(&closed), None, None).await.refused(404, "M_NOT_FOUND");
        alice.invite(&closed, &bob.user_id).await.ok();
        assert_eq!(bob.get(&summary(&closed)).await.ok()["membership"], "invite");

        let rule = json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": open }] });
        let state = json!({ "type": "m.room.join_rules", "content": rule });
        let restricted = alice.create_room(json!({ "preset": "private_chat", "initial_state": [state] })).await;
        bob.get(&summary(&restricted)).await.refused(404, "M_NOT_FOUND");
        bob.join(&open).await.ok();
        let found = bob.get(&summary(&restricted)).await.ok();
        assert_eq!((&found["join_rule"], &found["allowed_room_ids"]), (&json!("restricted"), &json!([open])));

        bob.get(&summary("#nothing:localhost")).await.refused(404, "M_NOT_FOUND");
        bob.get(&summary("nonsense")).await.refused(400, "M_INVALID_PARAM");
    }

    async fn a_space_is_walked_depth_first_in_the_order_of_its_children(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let (top, inner) = (space(&alice, "Top").await, space(&alice, "Inner").await);
        let first = published(&alice, "First", json!({})).await;
        let deep = published(&alice, "Deep", json!({})).await;
        let last = published(&alice, "Last", json!({})).await;
        let secret = alice.create_room(json!({ "preset": "private_chat", "name": "Secret" })).await;
        let via = json!(["localhost"]);
        put_in(&alice, &top, &last, json!({ "via": via, "suggested": true })).await;
        put_in(&alice, &top, &inner, json!({ "via": via, "order": "b" })).await;
        put_in(&alice, &top, &first, json!({ "via": via, "order": "a", "suggested": true })).await;
        // Without an order the older ones come first.
        world.clock.advance(std::time::Duration::from_secs(1));
        put_in(&alice, &top, &secret, json!({ "via": via })).await;
        put_in(&alice, &top, "!unknown:elsewhere.example.org", json!({ "via": ["elsewhere.example.org"] })).await;
        put_in(&alice, &inner, &deep, json!({ "via": via })).await;
        // A circle, and something that was taken out again.
        put_in(&alice, &inner, &top, json!({ "via": via })).await;
        put_in(&alice, &inner, &last, json!({})).await;

        let seen = hierarchy(&bob, &top, "").await;
        assert_eq!(rooms(&seen), ["Top", "First", "Inner", "Deep", "Last"], "a stranger sees no secret");
        assert_eq!(rooms(&hierarchy(&alice, &top, "").await), ["Top", "First", "Inner", "Deep", "Last", "Secret"]);
        let children = seen["rooms"][0]["children_state"].as_array().unwrap();
        let keys: Vec<_> = children.iter().map(|child| child["state_key"].as_str().unwrap()).collect();
        assert_eq!(keys[..2], [first.as_str(), &inner]);
        assert!(keys.contains(&"!unknown:elsewhere.example.org"), "what the space says is told whole");
        assert!(children[0]["origin_server_ts"].is_i64() && children[0]["sender"] == alice.user_id.as_str());
        assert_eq!(seen["rooms"][1]["children_state"], json!([]));
        assert_eq!(seen["rooms"][0]["room_type"], "m.space");

        assert_eq!(rooms(&hierarchy(&bob, &top, "?max_depth=1").await), ["Top", "First", "Inner", "Last"]);
        assert_eq!(rooms(&hierarchy(&bob, &top, "?max_depth=0").await), ["Top"]);
        let suggested = hierarchy(&bob, &top, "?suggested_only=true").await;
        assert_eq!(rooms(&suggested), ["Top", "First", "Last"]);
        assert_eq!(suggested["rooms"][0]["children_state"].as_array().unwrap().len(), 2);

        let (mut found, mut from) = (Vec::new(), String::new());
        loop {
            let page = hierarchy(&bob, &top, &format!("?limit=2{from}")).await;
            found.extend(rooms(&page).into_iter().map(ToOwned::to_owned));
            match page["next_batch"].as_str() {
                Some(next) => from = format!("&from={next}"),
                None => break,
            }
        }
        assert_eq!(found, rooms(&seen));

        let path = format!("/_matrix/client/v1/rooms/{}/hierarchy", escape(&top));
        bob.get(&format!("{path}?limit=0")).await.refused(400, "M_INVALID_PARAM");
        bob.get(&format!("{path}?from=nonsense")).await.refused(400, "M_INVALID_PARAM");
        bob.get(&format!("{path}?suggested_only=true{from}")).await.refused(400, "M_INVALID_PARAM");
        world.call("GET", &path, None, None).await.refused(401, "M_MISSING_TOKEN");
        let of_secret = bob.get(&format!("/_matrix/client/v1/rooms/{}/hierarchy", escape(&secret))).await;
        of_secret.refused(403, "M_FORBIDDEN");
        assert_eq!(bob.get("/_matrix/client/v1/rooms/!nowhere:localhost/hierarchy").await.body, of_secret.body);
    }

    async fn two_users_find_the_rooms_that_they_share(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let mut shared = Vec::new();
        for n in 0..3 {
            let room = alice.create_room(json!({ "preset": "public_chat" })).await;
            if n < 2 {
                bob.join(&room).await.ok();
                shared.push(room);
            }
        }
        shared.sort();
        let path = |user: &str| format!("/_matrix/client/v1/mutual_rooms?user_id={}", escape(user));
        assert_eq!(alice.get(&path(&bob.user_id)).await.ok(), json!({ "count": 2, "joined": shared }));
        let after = alice.get(&format!("{}&from={}", path(&bob.user_id), escape(&shared[0]))).await.ok();
        assert_eq!(after, json!({ "count": 2, "joined": [shared[1]] }));
        assert_eq!(alice.get(&path("@nobody:localhost")).await.ok(), json!({ "count": 0, "joined": [] }));
        alice.get(&path(&alice.user_id)).await.refused(400, "M_INVALID_PARAM");
        alice.get("/_matrix/client/v1/mutual_rooms").await.refused(400, "M_MISSING_PARAM");
        alice.get(&path("nonsense")).await.refused(400, "M_INVALID_PARAM");
        alice.get(&format!("{}&from=nonsense", path(&bob.user_id))).await.refused(400, "M_INVALID_PARAM");
    }
}
