//! Reading rooms: history, single events, state and members, and who may.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#getting-events-for-a-room>

use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, at, escape, next},
};

/// A public room with this history visibility.
async fn room(creator: &Client, visibility: &str) -> String {
    let content = json!({ "history_visibility": visibility });
    let state = json!({ "type": "m.room.history_visibility", "content": content });
    creator.create_room(json!({ "preset": "public_chat", "initial_state": [state] })).await
}

async fn set(user: &Client, room: &str, kind: &str, content: Value) {
    user.put(&at(room, &format!("/state/{kind}")), content).await.ok();
}

fn bodies(events: &Value) -> Vec<&str> {
    events.as_array().unwrap().iter().filter_map(|event| event["content"]["body"].as_str()).collect()
}

fn state_keys<'a>(events: &'a Value, kind: &str) -> Vec<&'a str> {
    let events = events.as_array().unwrap().iter().filter(|event| event["type"] == kind);
    let mut keys: Vec<_> = events.map(|event| event["state_key"].as_str().unwrap()).collect();
    keys.sort_unstable();
    keys
}

on_both! {
    async fn what_surrounds_an_event_is_there_even_if_nothing_does(world) {
        let alice = world.user("alice").await;
        let room = room(&alice, "shared").await;
        let create = alice.get(&at(&room, "/state/m.room.create/?format=event")).await.ok();
        let first = create["event_id"].as_str().unwrap().to_owned();
        let last = alice.say(&room, "newest").await;
        for (event, limit) in [(&first, 10), (&last, 10), (&last, 1), (&last, 0)] {
            let around = alice.get(&at(&room, &format!("/context/{}?limit={limit}", escape(event)))).await.ok();
            for list in ["events_before", "events_after", "state"] {
                assert!(around[list].is_array(), "{list} of {around}");
            }
            assert_eq!(around["event"]["event_id"], event.as_str());
        }
        let criteria = json!({ "search_term": "newest", "event_context": { "before_limit": 0, "after_limit": 0 } });
        let body = |criteria: &Value| json!({ "search_categories": { "room_events": criteria } });
        let found = alice.post("/_matrix/client/v3/search", body(&criteria)).await.ok();
        let results = &found["search_categories"]["room_events"];
        let context = &results["results"][0]["context"];
        assert_eq!((&context["events_before"], &context["events_after"]), (&json!([]), &json!([])));
        let nothing = alice.post("/_matrix/client/v3/search", body(&json!({ "search_term": "nonsense" }))).await.ok();
        let results = &nothing["search_categories"]["room_events"];
        assert_eq!((&results["results"], &results["count"]), (&json!([]), &json!(0)));
        assert!(results["highlights"].is_array());
    }

    /// Clients write what they have, and at first they have nothing.
    async fn an_empty_token_is_none(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = room(&alice, "shared").await;
        let root = alice.say(&room, "root").await;
        let root = escape(&root);
        for (path, query) in [
            (at(&room, "/messages"), "dir=b&from=&to="),
            (at(&room, "/members"), "at="),
            (format!("/_matrix/client/v1/rooms/{}/relations/{root}", escape(&room)), "from=&to="),
            (format!("/_matrix/client/v1/rooms/{}/threads", escape(&room)), "from="),
            (format!("/_matrix/client/v1/rooms/{}/hierarchy", escape(&room)), "from="),
            ("/_matrix/client/v3/publicRooms".to_owned(), "since="),
            ("/_matrix/client/v3/sync".to_owned(), "since="),
            ("/_matrix/client/v3/events".to_owned(), "from=&timeout=0"),
            ("/_matrix/client/unstable/org.matrix.msc4140/delayed_events".to_owned(), "from="),
            ("/_matrix/client/v1/mutual_rooms".to_owned(), &*format!("user_id={}&from=", escape(&bob.user_id))),
        ] {
            let answer = alice.get(&format!("{path}?{query}")).await;
            assert_eq!(answer.status, 200, "{path}?{query}: {}", answer.body);
        }
        let page = alice.get(&at(&room, "/messages?dir=b&from=")).await.ok();
        assert!(page["start"].as_str().is_some_and(|start| !start.is_empty()), "{page}");
        let relations = format!("/_matrix/client/v1/rooms/{}/relations/{root}?from=", escape(&room));
        assert_eq!(alice.get(&relations).await.ok().get("prev_batch"), None);
        let body = json!({ "since": "" });
        alice.post("/_matrix/client/v3/publicRooms", body).await.ok();
        let body = json!({ "search_categories": { "room_events": { "search_term": "root" } } });
        alice.post("/_matrix/client/v3/search?next_batch=", body).await.ok();
    }

    async fn state_is_read_by_key_however_an_empty_one_is_spelt(world) {
        let alice = world.user("alice").await;
        let room = room(&alice, "shared").await;
        set(&alice, &room, "m.room.topic", json!({ "topic": "hello" })).await;
        for path in ["/state/m.room.topic", "/state/m.room.topic/", "/state/m.room.topic?format=content"] {
            assert_eq!(alice.get(&at(&room, path)).await.ok()["topic"], "hello", "{path}");
        }
        let event = alice.get(&at(&room, "/state/m.room.topic/?format=event")).await.ok();
        assert_eq!((&event["content"]["topic"], &event["sender"]), (&json!("hello"), &json!(alice.user_id)));
        assert_eq!((&event["room_id"], &event["state_key"]), (&json!(room), &json!("")));
        alice.get(&at(&room, "/state/m.room.topic?format=poem")).await.refused(400, "M_INVALID_PARAM");
        alice.get(&at(&room, "/state/m.room.topic/else")).await.refused(404, "M_NOT_FOUND");
        let member = alice.get(&at(&room, &format!("/state/m.room.member/{}", escape(&alice.user_id)))).await.ok();
        assert_eq!(member["membership"], "join");
        let whole = alice.get(&at(&room, "/state")).await.ok();
        assert_eq!(state_keys(&whole, "m.room.topic"), [""]);
    }

    /// What is forbidden and what is not there are told in the same words.
    async fn a_stranger_learns_nothing(world) {
        let (alice, eve) = (world.user("alice").await, world.user("eve").await);
        let room = room(&alice, "shared").await;
        let event = alice.say(&room, "secret").await;
        alice.invite(&room, &eve.user_id).await.ok();
        let context = format!("/context/{}", escape(&event));
        for rest in ["/messages?dir=b", &context, "/state", "/state/m.room.name", "/members", "/joined_members"] {
            let forbidden = eve.get(&at(&room, rest)).await;
            forbidden.refused(403, "M_FORBIDDEN");
            assert_eq!(eve.get(&at("!nowhere:localhost", rest)).await.body, forbidden.body, "{rest}");
        }
        let path = format!("/event/{}", escape(&event));
        let hidden = eve.get(&at(&room, &path)).await;
        hidden.refused(404, "M_NOT_FOUND");
        assert_eq!(eve.get(&at("!nowhere:localhost", &path)).await.body, hidden.body);
        assert_eq!(alice.get(&at(&room, "/event/%24unknown")).await.body, hidden.body);
        let elsewhere = alice.create_room(json!({})).await;
        assert_eq!(alice.get(&at(&elsewhere, &path)).await.body, hidden.body, "an event of another room");
    }

    async fn the_world_reads_what_is_world_readable(world) {
        let (alice, eve) = (world.user("alice").await, world.user("eve").await);
        let room = room(&alice, "world_readable").await;
        let open = alice.say(&room, "open").await;
        let page = eve.get(&at(&room, "/messages?dir=b")).await.ok();
        assert_eq!(bodies(&page["chunk"]), ["open"]);
        assert_eq!(page["chunk"][0]["unsigned"]["membership"], "leave");
        eve.get(&at(&room, &format!("/event/{}", escape(&open)))).await.ok();
        eve.get(&at(&room, "/state")).await.ok();
        eve.get(&at(&room, "/members")).await.ok();
        eve.get(&at(&room, "/joined_members")).await.refused(403, "M_FORBIDDEN");
        set(&alice, &room, "m.room.history_visibility", json!({ "history_visibility": "joined" })).await;
        alice.say(&room, "closed").await;
        eve.get(&at(&room, "/messages?dir=b")).await.refused(403, "M_FORBIDDEN");
        eve.join(&room).await.ok();
        assert_eq!(bodies(&eve.get(&at(&room, "/messages?dir=b&limit=50")).await.ok()["chunk"]), ["open"]);
    }

    async fn each_visibility_shows_a_newcomer_its_part(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        for (visibility, seen) in [
            ("world_readable", vec!["joined", "invited", "before"]),
            ("shared", vec!["joined", "invited", "before"]),
            ("invited", vec!["joined", "invited"]),
            ("joined", vec!["joined"]),
        ] {
            let room = room(&alice, visibility).await;
            let before = alice.say(&room, "before").await;
            alice.invite(&room, &bob.user_id).await.ok();
            let invited = alice.say(&room, "invited").await;
            bob.join(&room).await.ok();
            let joined = alice.say(&room, "joined").await;
            bob.leave(&room).await.ok();
            let after = alice.say(&room, "after").await;
            let expected: Vec<&str> = if visibility == "world_readable" {
                [vec!["after"], seen.clone()].concat()
            } else {
                seen.clone()
            };
            let backward = bob.get(&at(&room, "/messages?dir=b&limit=50")).await.ok();
            assert_eq!(bodies(&backward["chunk"]), expected, "{visibility}");
            let forward = bob.get(&at(&room, "/messages?dir=f&limit=50")).await.ok();
            assert!(bodies(&forward["chunk"]).into_iter().rev().eq(expected.iter().copied()), "{visibility}");
            for (name, event) in [("before", before), ("invited", invited), ("joined", joined), ("after", after)] {
                for rest in ["/event/", "/context/"] {
                    let reply = bob.get(&at(&room, &format!("{rest}{}", escape(&event)))).await;
                    let status = if expected.contains(&name) { 200 } else { 404 };
                    assert_eq!(reply.status, status, "{visibility} {name} {rest}");
                }
            }
        }
    }

    async fn who_left_reads_the_room_as_it_was(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = room(&alice, "shared").await;
        bob.join(&room).await.ok();
        set(&alice, &room, "m.room.name", json!({ "name": "old" })).await;
        bob.leave(&room).await.ok();
        set(&alice, &room, "m.room.name", json!({ "name": "new" })).await;
        alice.say(&room, "secret").await;
        world.user("carol").await.join(&room).await.ok();
        assert_eq!(bob.get(&at(&room, "/state/m.room.name")).await.ok()["name"], "old");
        let members = bob.get(&at(&room, "/members")).await.ok();
        assert_eq!(state_keys(&members["chunk"], "m.room.member"), [&alice.user_id, &bob.user_id]);
        bob.get(&at(&room, "/joined_members")).await.refused(403, "M_FORBIDDEN");
        let page = bob.get(&at(&room, "/messages?dir=b&limit=1")).await.ok();
        assert_eq!(page["chunk"][0]["content"]["membership"], "leave");
        assert!(bob.get("/_matrix/client/v3/joined_rooms").await.ok()["joined_rooms"].as_array().unwrap().is_empty());
    }

    async fn members_by_membership_and_moment(world) {
        let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
        let name = format!("/_matrix/client/v3/profile/{}/displayname", escape(&alice.user_id));
        alice.put(&name, json!({ "displayname": "Alice" })).await.ok();
        let room = room(&alice, "shared").await;
        bob.join(&room).await.ok();
        let before = next(&alice.sync(None).await);
        bob.leave(&room).await.ok();
        alice.invite(&room, &carol.user_id).await.ok();
        let members = async |rest: &str| alice.get(&at(&room, &format!("/members{rest}"))).await.ok()["chunk"].clone();
        let (a, b, c) = (alice.user_id.as_str(), bob.user_id.as_str(), carol.user_id.as_str());
        assert_eq!(state_keys(&members("").await, "m.room.member"), [a, b, c]);
        assert_eq!(state_keys(&members("?membership=join").await, "m.room.member"), [a]);
        assert_eq!(state_keys(&members("?not_membership=leave").await, "m.room.member"), [a, c]);
        assert_eq!(state_keys(&members("?membership=leave&not_membership=invite").await, "m.room.member"), [a, b]);
        assert_eq!(state_keys(&members(&format!("?membership=join&at={before}")).await, "m.room.member"), [a, b]);
        alice.get(&at(&room, "/members?at=yesterday")).await.refused(400, "M_INVALID_PARAM");
        let joined = alice.get(&at(&room, "/joined_members")).await.ok();
        assert_eq!(joined["joined"], json!({ a: { "display_name": "Alice", "avatar_url": null } }));
    }

    /// A timeline that is told whole begins before the first event.
    async fn before_all_events_there_was_who_made_the_room(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = room(&alice, "joined").await;
        let sync = alice.sync(None).await;
        let start = sync["rooms"]["join"][&room]["timeline"]["prev_batch"].as_str().unwrap().to_owned();
        bob.join(&room).await.ok();
        for reader in [&alice, &bob] {
            let members = reader.get(&at(&room, &format!("/members?at={start}"))).await.ok();
            assert_eq!(state_keys(&members["chunk"], "m.room.member"), [&alice.user_id]);
        }
    }

    /// Whether they may read the room is looked at first: what is wrong with a stranger's request is none of their
    /// concern.
    async fn a_stranger_is_sent_away_whatever_they_ask_for(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let closed = room(&alice, "shared").await;
        let own = room(&bob, "shared").await;
        let event = escape(&bob.say(&own, "hello").await);
        for (path, from_a_member) in [
            ("/messages".to_owned(), "M_MISSING_PARAM"),
            ("/messages?dir=up".to_owned(), "M_INVALID_PARAM"),
            ("/messages?dir=b&from=x".to_owned(), "M_INVALID_PARAM"),
            ("/messages?dir=b&filter=x".to_owned(), "M_INVALID_PARAM"),
            ("/members?at=x".to_owned(), "M_INVALID_PARAM"),
            (format!("/context/{event}?limit=x"), "M_INVALID_PARAM"),
            (format!("/context/{event}?filter=x"), "M_INVALID_PARAM"),
            ("/context/x".to_owned(), "M_INVALID_PARAM"),
            ("/state/m.room.join_rules/?format=x".to_owned(), "M_INVALID_PARAM"),
        ] {
            bob.get(&at(&own, &path)).await.refused(400, from_a_member);
            for room in [&closed, "!nowhere:localhost"] {
                bob.get(&at(room, &path)).await.refused(403, "M_FORBIDDEN");
            }
        }
        for (path, from_a_member) in [
            ("/timestamp_to_event", "M_MISSING_PARAM"),
            ("/timestamp_to_event?ts=1&dir=up", "M_INVALID_PARAM"),
            ("/threads?include=x", "M_INVALID_PARAM"),
            ("/threads?from=x", "M_INVALID_PARAM"),
            ("/threads?limit=0", "M_INVALID_PARAM"),
            ("/hierarchy?limit=0", "M_INVALID_PARAM"),
            ("/hierarchy?from=x", "M_INVALID_PARAM"),
            ("/hierarchy?max_depth=x", "M_INVALID_PARAM"),
        ] {
            let path = |room: &str| format!("/_matrix/client/v1/rooms/{}{path}", escape(room));
            bob.get(&path(&own)).await.refused(400, from_a_member);
            let secret = alice.create_room(json!({})).await;
            bob.get(&path(&secret)).await.refused(403, "M_FORBIDDEN");
        }
        for path in [format!("/relations/{event}?dir=up"), format!("/relations/{event}?from=x"), "/relations/x".to_owned()] {
            let path = |room: &str| format!("/_matrix/client/v1/rooms/{}{path}", escape(room));
            bob.get(&path(&own)).await.refused(400, "M_INVALID_PARAM");
            bob.get(&path(&closed)).await.refused(404, "M_NOT_FOUND");
        }
        bob.get(&at(&own, "/event/x")).await.refused(400, "M_INVALID_PARAM");
        bob.get(&at(&closed, "/event/x")).await.refused(404, "M_NOT_FOUND");
    }

    async fn lazily_loaded_members_are_those_who_speak(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = room(&alice, "shared").await;
        bob.join(&room).await.ok();
        world.user("carol").await.join(&room).await.ok();
        let said = bob.say(&room, "hello").await;
        let filter = escape(r#"{"lazy_load_members":true,"types":["m.room.message","m.room.member"]}"#);
        let page = alice.get(&at(&room, &format!("/messages?dir=b&limit=1&filter={filter}"))).await.ok();
        assert_eq!(state_keys(&page["state"], "m.room.member"), [&bob.user_id]);
        let context = alice.get(&at(&room, &format!("/context/{}?limit=0&filter={filter}", escape(&said)))).await.ok();
        assert_eq!(state_keys(&context["state"], "m.room.member"), [&bob.user_id]);
        assert_eq!(context["state"].as_array().unwrap().len(), 1, "the filter holds for the state too");
        let eager = alice.get(&at(&room, "/messages?dir=b")).await.ok();
        assert!(eager.get("state").is_none());
    }

    async fn events_carry_what_the_reader_may_know_beside_them(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = room(&alice, "shared").await;
        let early = alice.say(&room, "early").await;
        bob.join(&room).await.ok();
        set(&alice, &room, "m.room.topic", json!({ "topic": "one" })).await;
        set(&alice, &room, "m.room.topic", json!({ "topic": "two" })).await;
        world.clock.advance(std::time::Duration::from_secs(3));
        let read = async |client: &Client, id: &str| client.get(&at(&room, &format!("/event/{}", escape(id)))).await.ok();
        let to_bob = read(&bob, &early).await;
        assert_eq!(to_bob["unsigned"]["membership"], "leave");
        assert_eq!(to_bob["unsigned"]["age"], 3_000);
        assert!(to_bob["unsigned"].get("transaction_id").is_none());
        let to_alice = read(&alice, &early).await;
        assert_eq!(to_alice["unsigned"]["membership"], "join");
        assert!(to_alice["unsigned"]["transaction_id"].is_string());
        let elsewhere = world.login(&alice).await;
        assert!(read(&elsewhere, &early).await["unsigned"].get("transaction_id").is_none());
        let page = bob.get(&at(&room, "/messages?dir=b&limit=1")).await.ok();
        let unsigned = &page["chunk"][0]["unsigned"];
        assert_eq!((&unsigned["prev_content"]["topic"], &unsigned["membership"]), (&json!("one"), &json!("join")));
    }

    async fn wrong_parameters_are_named(world) {
        let alice = world.user("alice").await;
        let room = room(&alice, "shared").await;
        let messages = async |query: &str| alice.get(&at(&room, &format!("/messages{query}"))).await;
        messages("").await.refused(400, "M_MISSING_PARAM");
        for query in ["?dir=up", "?dir=b&from=t1_2", "?dir=b&to=s-1", "?dir=b&limit=-1", "?dir=b&filter=x"] {
            messages(query).await.refused(400, "M_INVALID_PARAM");
        }
        let page = messages("?dir=b&limit=0").await.ok();
        assert_eq!((&page["chunk"], &page["end"]), (&json!([]), &page["start"]));
        assert!(messages("?dir=f&from=s999999999").await.ok().get("end").is_none());
        messages("?dir=b&from=s999999999&limit=1000000").await.ok();
    }
}
