//! Finding people: who can be found by whom, by what, and in which order.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-directory>

use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, World, at, escape},
};

const SEARCH: &str = "/_matrix/client/v3/user_directory/search";

async fn call_themselves(user: &Client, name: &str) {
    let path = format!("/_matrix/client/v3/profile/{}/displayname", escape(&user.user_id));
    user.put(&path, json!({ "displayname": name })).await.ok();
}

/// A new user with a display name.
async fn person(world: &World, localpart: &str, name: &str) -> Client {
    let user = world.user(localpart).await;
    call_themselves(&user, name).await;
    user
}

async fn search(user: &Client, term: &str) -> Value {
    user.post(SEARCH, json!({ "search_term": term })).await.ok()
}

fn ids(found: &Value) -> Vec<&str> {
    found["results"].as_array().unwrap().iter().map(|user| user["user_id"].as_str().unwrap()).collect()
}

async fn finds(user: &Client, term: &str, other: &Client) -> bool {
    ids(&search(user, term).await).contains(&other.user_id.as_str())
}

async fn private_room(creator: &Client, members: &[&Client]) -> String {
    let invite: Vec<&str> = members.iter().map(|member| member.user_id.as_str()).collect();
    let room = creator.create_room(json!({ "preset": "private_chat", "invite": invite })).await;
    for member in members {
        member.join(&room).await.ok();
    }
    room
}

async fn public_room(creator: &Client, members: &[&Client]) -> String {
    let room = creator.create_room(json!({ "preset": "public_chat" })).await;
    for member in members {
        member.join(&room).await.ok();
    }
    room
}

on_both! {
    async fn everybody_on_this_server_is_found_where_the_operator_wants_it_so(world, config => {
        config.user_directory.search_all = true;
        config.registration.guests = true;
    }) {
        let (alice, bob) = (person(&world, "alice", "Alice Liddell").await, world.user("bob").await);
        let guest = world.guest().await;
        for term in ["alice", "lidd", "Alice Liddell", "alice lidd"] {
            assert_eq!(ids(&search(&bob, term).await), [&alice.user_id], "{term}");
        }
        assert!(ids(&search(&bob, guest.name()).await).is_empty());
        // Sharing a room as well changes nothing but the order.
        let other = person(&world, "another", "Alice Liddell").await;
        private_room(&other, &[&bob]).await;
        assert_eq!(ids(&search(&bob, "Alice Liddell").await), [&other.user_id, &alice.user_id]);
        alice.post("/_matrix/client/v3/account/deactivate", json!({ "auth": alice.password() })).await.ok();
        assert_eq!(ids(&search(&bob, "alice").await), [&other.user_id]);
    }

    async fn who_shares_a_room_is_found_until_they_leave_it(world) {
        let alice = person(&world, "alice", "Alice").await;
        let (bob, eve) = (world.user("bob").await, world.user("eve").await);
        let (one, two) = (private_room(&alice, &[&bob]).await, private_room(&alice, &[&bob]).await);
        let found = search(&bob, "Alice").await;
        assert_eq!(found, json!({ "results": [{ "user_id": alice.user_id, "display_name": "Alice" }], "limited": false }));
        assert_eq!(search(&eve, "Alice").await, json!({ "results": [], "limited": false }));
        assert!(!finds(&alice, "alice", &alice).await, "one does not share a room with oneself");
        bob.leave(&one).await.ok();
        assert!(finds(&bob, "alice", &alice).await, "there is another room");
        alice.leave(&two).await.ok();
        assert!(!finds(&bob, "alice", &alice).await);

        // An invitation opens nothing, either way.
        let invited = bob.create_room(json!({ "preset": "private_chat", "invite": [alice.user_id] })).await;
        assert!(!finds(&bob, "alice", &alice).await && !finds(&alice, "bob", &bob).await);
        alice.join(&invited).await.ok();
        assert!(finds(&bob, "alice", &alice).await && finds(&alice, "bob", &bob).await);
        bob.post(&at(&invited, "/kick"), json!({ "user_id": alice.user_id })).await.ok();
        assert!(!finds(&bob, "alice", &alice).await);
    }

    async fn who_is_in_a_public_room_is_found_by_anybody(world) {
        let (alice, bob) = (person(&world, "alice", "Alice").await, world.user("bob").await);
        let eve = world.user("eve").await;
        let room = bob.create_room(json!({ "preset": "public_chat" })).await;
        assert!(!finds(&eve, "alice", &alice).await);
        alice.join(&room).await.ok();
        assert!(finds(&eve, "alice", &alice).await);
        assert!(finds(&alice, "alice", &alice).await, "themselves included");
        let other = public_room(&alice, &[]).await;
        alice.leave(&room).await.ok();
        assert!(finds(&eve, "alice", &alice).await);
        alice.leave(&other).await.ok();
        assert!(!finds(&eve, "alice", &alice).await);
    }

    async fn people_appear_and_disappear_with_the_rules_of_their_rooms(world) {
        let (alice, bob) = (person(&world, "alice", "Alice").await, world.user("bob").await);
        let eve = world.user("eve").await;
        let room = private_room(&bob, &[&alice]).await;
        let set = async |kind: &str, content: Value| {
            bob.put(&at(&room, &format!("/state/{kind}")), content).await.ok();
            finds(&eve, "alice", &alice).await
        };
        assert!(!finds(&eve, "alice", &alice).await);
        assert!(set("m.room.join_rules", json!({ "join_rule": "public" })).await);
        assert!(set("m.room.history_visibility", json!({ "history_visibility": "world_readable" })).await);
        assert!(set("m.room.join_rules", json!({ "join_rule": "invite" })).await, "it is still world-readable");
        assert!(!set("m.room.history_visibility", json!({ "history_visibility": "shared" })).await);
        assert!(!set("m.room.join_rules", json!({ "join_rule": "knock" })).await);
        assert!(set("m.room.history_visibility", json!({ "history_visibility": "world_readable" })).await);
        assert!(!set("m.room.history_visibility", json!({ "history_visibility": 7 })).await);
    }

    async fn the_name_is_the_one_that_they_have_now(world) {
        let (alice, eve) = (person(&world, "alice", "Alice").await, world.user("eve").await);
        let room = public_room(&alice, &[]).await;
        call_themselves(&alice, "Wonderland").await;
        assert!(finds(&eve, "wonder", &alice).await);
        let found = search(&eve, "alice").await;
        assert_eq!(found["results"][0]["display_name"], "Wonderland", "by the localpart");
        let avatar = format!("/_matrix/client/v3/profile/{}/avatar_url", escape(&alice.user_id));
        alice.put(&avatar, json!({ "avatar_url": "mxc://localhost/picture" })).await.ok();
        assert_eq!(search(&eve, "wonder").await["results"][0]["avatar_url"], "mxc://localhost/picture");

        // What they are called in one room only is not theirs everywhere.
        let nickname = json!({ "membership": "join", "displayname": "Nickname" });
        alice.put(&at(&room, &format!("/state/m.room.member/{}", escape(&alice.user_id))), nickname).await.ok();
        assert!(!finds(&eve, "nickname", &alice).await);
        assert_eq!(search(&eve, "wonder").await["results"][0]["display_name"], "Wonderland");

        call_themselves(&alice, "").await;
        assert!(!finds(&eve, "wonder", &alice).await);
        assert_eq!(search(&eve, "alice").await["results"][0].get("display_name"), None);
        let world = world.restarted().await;
        assert!(finds(&eve.at(&world), "alice", &alice).await);
    }

    async fn the_best_match_comes_first_and_among_equals_who_shares_a_room(world) {
        let host = person(&world, "host", "Host").await;
        let hall = public_room(&host, &[]).await;
        let sam = person(&world, "sam", "Sam").await;
        let mut people = Vec::new();
        for (localpart, name) in [
            ("zoe", "Zoe Ann"),
            ("annatar", ""),
            ("u1", "Annabel"),
            ("u2", "Annika"),
            ("u3", "Ann"),
            ("u4", "Hannah"),
            ("u5", "Berta-Ann"),
        ] {
            let user = person(&world, localpart, name).await;
            user.join(&hall).await.ok();
            people.push(user);
        }
        let [zoe, annatar, annabel, annika, ann, _, berta] = &people[..] else { panic!() };
        private_room(&sam, &[annika, berta]).await;
        let order = [ann, annika, annabel, annatar, berta, zoe].map(|user| user.user_id.as_str());
        for term in ["ann", "ANN", " Ann "] {
            let found = search(&sam, term).await;
            assert_eq!((ids(&found), &found["limited"]), (order.to_vec(), &json!(false)), "{term}");
        }
        for limit in [0, 1, 5, 6, 100, 1_000_000] {
            let found = sam.post(SEARCH, json!({ "search_term": "ann", "limit": limit })).await.ok();
            let (most, limited) = (order.len().min(limit), limit < order.len());
            assert_eq!((ids(&found), &found["limited"]), (order[..most].to_vec(), &json!(limited)), "{limit}");
        }
    }

    async fn ten_are_found_and_a_hundred_at_most(world) {
        let eve = world.user("eve").await;
        let one = person(&world, "one", "Person 0").await;
        let room = public_room(&one, &[]).await;
        for n in 1..12 {
            person(&world, &format!("p{n}"), &format!("Person {n}")).await.join(&room).await.ok();
        }
        let found = search(&eve, "person").await;
        assert_eq!((ids(&found).len(), &found["limited"]), (10, &json!(true)));
        let names: Vec<_> = found["results"].as_array().unwrap().iter().map(|user| user["display_name"].clone()).collect();
        assert_eq!(names[..4], ["Person 0", "Person 1", "Person 10", "Person 11"]);
        assert_eq!(ids(&search(&eve, "person 11").await), ["@p11:localhost"]);
    }

    async fn words_are_found_in_any_order_and_identifiers_whole(world) {
        let eve = world.user("eve").await;
        let anna = person(&world, "anna.b", "Berg, Anna Maria").await;
        let other = person(&world, "maria", "Maria Tal").await;
        public_room(&anna, &[&other]).await;
        for term in ["anna berg", "Anna Maria", "berg", "mar an", "anna.b", "@anna.b:localhost", "@ANNA.b:local", "@anna"] {
            assert_eq!(ids(&search(&eve, term).await), [anna.user_id.as_str()], "{term}");
        }
        assert_eq!(ids(&search(&eve, "maria").await), [other.user_id.as_str(), &anna.user_id]);
        for term in ["nna", "anna tal", "annamaria", "@nna", "@anna.b:elsewhere", "localhost"] {
            assert_eq!(ids(&search(&eve, term).await), [""; 0], "{term}");
        }
    }

    async fn names_of_any_kind_are_found(world) {
        let eve = world.user("eve").await;
        let room = public_room(&eve, &[]).await;
        let long = "Þ".repeat(10_000);
        for (localpart, name, terms) in [
            ("u1", "Ærøskøbing ÅSE", vec!["åse", "ÆRØ"]),
            ("u2", "山田太郎", vec!["山田", "太郎"]),
            ("u3", "\u{202e}\u{200f}שרה לוי", vec!["שרה", "לוי", "\u{200f}לוי"]),
            ("u4", "Zed 🦊 👨‍👩‍👧", vec!["🦊", "👨‍👩‍👧", "zed 🦊"]),
            ("u5", "nul\0byte", vec!["nulbyte", "nul\0"]),
            ("u6", long.as_str(), vec!["þþþ", long.as_str()]),
            ("u7", "%_ \\' OR 1=1", vec!["or", "or 1=1"]),
            ("u8", "***", vec!["***", "*"]),
            ("u9", "Jos\u{e9} ＷＩＤＥ", vec!["jose", "jose\u{301}", "JOSÉ", "wide"]),
        ] {
            let user = person(&world, localpart, name).await;
            user.join(&room).await.ok();
            for term in terms {
                let found = search(&eve, term).await;
                assert_eq!(ids(&found), [user.user_id.as_str()], "{name} by {term}");
                assert_eq!(found["results"][0]["display_name"], name);
            }
        }
        for nothing in ["", " ", "\0", "\u{200f}", "%", "'; DROP TABLE users", "x OR 1=1"] {
            assert_eq!(search(&eve, nothing).await, json!({ "results": [], "limited": false }), "{nothing:?}");
        }
        let large = "x ".repeat(5_000);
        assert_eq!(ids(&search(&eve, &large).await), [""; 0]);
    }

    async fn who_has_left_for_good_is_not_found_and_who_is_ignored_is(world) {
        let (alice, bob, eve) = (world.user("alice").await, world.user("bob").await, world.user("eve").await);
        public_room(&alice, &[&bob, &eve]).await;
        let path = format!("/_matrix/client/v3/user/{}/account_data/m.ignored_user_list", escape(&eve.user_id));
        eve.put(&path, json!({ "ignored_users": { bob.user_id.clone(): {} } })).await.ok();
        assert!(finds(&eve, "alice", &alice).await && finds(&eve, "bob", &bob).await);
        alice.post("/_matrix/client/v3/account/deactivate", json!({ "auth": alice.password() })).await.ok();
        assert!(!finds(&eve, "alice", &alice).await);
        assert!(finds(&eve, "bob", &bob).await);
    }

    /// Who changes their name while they come and go is found in the end as they are.
    async fn names_and_memberships_that_change_at_once(world) {
        let (alice, host, eve) = (world.user("alice").await, world.user("host").await, world.user("eve").await);
        let room = public_room(&host, &[]).await;
        for round in 0..10 {
            let (name, joins) = (format!("Name{round}"), round % 2 == 0);
            let moves = async {
                if joins {
                    alice.join(&room).await.ok();
                } else {
                    alice.leave(&room).await.ok();
                }
            };
            futures_util::future::join(moves, call_themselves(&alice, &name)).await;
            assert_eq!(finds(&eve, &name, &alice).await, joins, "round {round}");
            if round > 0 {
                assert!(!finds(&eve, &format!("Name{}", round - 1), &alice).await, "round {round}");
            }
        }
    }

    async fn wrong_input_is_named(world) {
        let alice = world.user("alice").await;
        let body = json!({ "search_term": "alice" });
        world.call("POST", SEARCH, None, Some(body.clone())).await.refused(401, "M_MISSING_TOKEN");
        world.call("POST", SEARCH, Some("nobodys"), Some(body.clone())).await.refused(401, "M_UNKNOWN_TOKEN");
        world.call("GET", SEARCH, Some(&alice.token), None).await.refused(405, "M_UNRECOGNIZED");
        alice.post("/_matrix/client/r0/user_directory/search", body).await.ok();
        world.call_raw("POST", SEARCH, Some(&alice.token), "{").await.refused(400, "M_NOT_JSON");
        alice.post(SEARCH, json!({})).await.refused(400, "M_MISSING_PARAM");
        for wrong in [
            json!([]),
            json!({ "search_term": 7 }),
            json!({ "search_term": null }),
            json!({ "search_term": "a", "limit": -1 }),
            json!({ "search_term": "a", "limit": 1.5 }),
            json!({ "search_term": "a", "limit": "ten" }),
        ] {
            alice.post(SEARCH, wrong).await.refused(400, "M_BAD_JSON");
        }
        let huge = json!({ "search_term": "x".repeat(300_000) });
        alice.post(SEARCH, huge).await.refused(413, "M_TOO_LARGE");
    }
}
