//! Server-side search: what is found, in which order and by whom, and what no longer is.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-side-search>

use hearth::config::RateLimitConfig;
use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, Reply, at, escape},
};

async fn try_search(user: &Client, next: Option<&str>, criteria: Value) -> Reply {
    let next = next.map_or_else(String::new, |token| format!("?next_batch={}", escape(token)));
    let body = json!({ "search_categories": { "room_events": criteria } });
    user.post(&format!("/_matrix/client/v3/search{next}"), body).await
}

async fn search(user: &Client, criteria: Value) -> Value {
    try_search(user, None, criteria).await.ok()["search_categories"]["room_events"].clone()
}

/// The bodies, names or topics of the results, in their order.
fn found(results: &Value) -> Vec<String> {
    let results = results["results"].as_array().cloned().unwrap_or_default();
    let said = |result: &Value| {
        let content = &result["result"]["content"];
        ["body", "name", "topic"].iter().find_map(|key| content[key].as_str()).unwrap().to_owned()
    };
    results.iter().map(said).collect()
}

/// What a user finds with a term, newest first.
async fn finds(user: &Client, term: &str) -> Vec<String> {
    found(&search(user, json!({ "search_term": term, "order_by": "recent" })).await)
}

on_both! {
    /// Clients take a page without a token for the last one; others wait for an empty one.
    async fn a_full_page_says_how_to_go_on_even_if_there_is_nothing(world) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        for number in 1..=4 {
            alice.say(&room, &format!("page {number}")).await;
        }
        for order in ["recent", "rank"] {
            let criteria = json!({ "search_term": "page", "order_by": order, "filter": { "limit": 2 } });
            let (mut next, mut pages) = (Some(String::new()), Vec::new());
            while let Some(token) = next {
                let answer = try_search(&alice, Some(&token), criteria.clone()).await.ok();
                let results = &answer["search_categories"]["room_events"];
                assert_eq!(results["count"], 4, "{results}");
                pages.push(found(results).len());
                next = results["next_batch"].as_str().map(ToOwned::to_owned);
            }
            assert_eq!(pages, [2, 2, 0], "{order}");
            let all = json!({ "search_term": "page", "order_by": order, "filter": { "limit": 5 } });
            assert_eq!(search(&alice, all).await.get("next_batch"), None);
        }
    }

    async fn messages_are_found_by_their_words(world) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        for text in [
            "Martians and men",
            "Crème brûlée for two",
            "東京タワーへ行く",
            "the end of the line",
            "Οδυσσεύς sleeps",
            "soft\u{ad}hyphens, zero\u{200b}widths",
            "a fox 🦊!",
        ] {
            alice.say(&room, text).await;
        }
        for (term, expected) in [
            ("martians", vec!["Martians and men"]),
            ("MEN martians", vec!["Martians and men"]),
            ("mart", vec!["Martians and men"]),
            ("mar", vec![]),
            ("mart men", vec![]),
            ("men mart", vec!["Martians and men"]),
            ("ΟΔΥΣΣΕΥΣ", vec!["Οδυσσεύς sleeps"]),
            ("softhyphens zerowidths", vec!["soft\u{ad}hyphens, zero\u{200b}widths"]),
            ("🦊", vec!["a fox 🦊!"]),
            ("martians women", vec![]),
            ("creme", vec!["Crème brûlée for two"]),
            ("タワー", vec!["東京タワーへ行く"]),
            ("京東", vec![]),
            ("\"end of the\"", vec!["the end of the line"]),
            ("\"the of end\"", vec![]),
            ("end-of", vec!["the end of the line"]),
            ("' \\ & | ! : * ( ) \" <->", vec![]),
            ("body : martians OR NEAR(men)", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(finds(&alice, term).await, expected, "{term}");
        }
        let results = search(&alice, json!({ "search_term": "Martians \"and men\"" })).await;
        assert_eq!(results["highlights"], json!(["martians", "and", "men"]));
        assert_eq!(results["count"], 1);
        assert!(results.get("next_batch").is_none(), "{results}");
        let result = &results["results"][0];
        assert!(result["rank"].as_f64().unwrap() > 0.0, "{result}");
        assert_eq!(result["result"]["room_id"], room.as_str());
        assert!(result.get("context").is_none(), "nobody asked for it: {result}");
    }

    async fn names_and_topics_are_found_and_each_key_by_itself(world) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({ "name": "Garden club", "topic": "Tulips and gardens" })).await;
        alice.say(&room, "the garden is wet").await;
        let all = found(&search(&alice, json!({ "search_term": "garden" })).await);
        assert_eq!(all, ["Garden club", "Tulips and gardens", "the garden is wet"], "the better matches first");
        for (key, expected) in [
            ("content.body", "the garden is wet"),
            ("content.name", "Garden club"),
            ("content.topic", "Tulips and gardens"),
        ] {
            let results = search(&alice, json!({ "search_term": "garden", "keys": [key] })).await;
            assert_eq!(found(&results), [expected], "{key}");
        }
        let plain = json!({ "m.text": [{ "body": "about orchids", "mimetype": "text/plain" }] });
        alice.put(&at(&room, "/state/m.room.topic/"), json!({ "topic": "Flowers", "m.topic": plain })).await.ok();
        assert_eq!(finds(&alice, "orchids").await, ["Flowers"]);
    }

    async fn only_what_the_searcher_may_see(world) {
        let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
        let room = alice.create_room(json!({ "preset": "private_chat" })).await;
        let hidden = json!({ "history_visibility": "joined" });
        alice.put(&at(&room, "/state/m.room.history_visibility/"), hidden).await.ok();
        alice.say(&room, "secret before").await;
        alice.invite(&room, &bob.user_id).await.ok();
        assert_eq!(finds(&bob, "secret").await, Vec::<String>::new(), "an invitation opens nothing");
        bob.join(&room).await.ok();
        alice.say(&room, "secret during").await;
        bob.leave(&room).await.ok();
        alice.say(&room, "secret after").await;
        assert_eq!(finds(&alice, "secret").await, ["secret after", "secret during", "secret before"]);
        assert_eq!(finds(&bob, "secret").await, ["secret during"], "rooms that one has left are searched as well");
        assert_eq!(finds(&carol, "secret").await, Vec::<String>::new());
        bob.post(&at(&room, "/forget"), json!({})).await.ok();
        assert_eq!(finds(&bob, "secret").await, Vec::<String>::new(), "forgotten rooms are not");

        // A room that somebody names is no more open to them than others.
        let filter = json!({ "rooms": [room] });
        assert_eq!(found(&search(&carol, json!({ "search_term": "secret", "filter": filter })).await).len(), 0);
    }

    async fn redactions_edits_ignored_users_and_encrypted_rooms(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let gone = alice.say(&room, "regret this").await;
        alice.say(&room, "regret nothing").await;
        assert_eq!(finds(&bob, "regret").await.len(), 2);
        alice.put(&at(&room, &format!("/redact/{}/r1", escape(&gone))), json!({})).await.ok();
        assert_eq!(finds(&bob, "regret").await, ["regret nothing"]);

        let original = alice.say(&room, "teh first").await;
        let edit = json!({ "msgtype": "m.text", "body": "* the corrected", "m.new_content": { "msgtype": "m.text", "body": "the corrected" }, "m.relates_to": { "rel_type": "m.replace", "event_id": original } });
        alice.put(&at(&room, "/send/m.room.message/e1"), edit).await.ok();
        assert_eq!(finds(&bob, "corrected").await, ["* the corrected"]);

        let ignored = json!({ "ignored_users": { &alice.user_id: {} } });
        let path = format!("/_matrix/client/v3/user/{}/account_data/m.ignored_user_list", escape(&bob.user_id));
        bob.put(&path, ignored).await.ok();
        assert_eq!(finds(&bob, "regret").await, Vec::<String>::new());

        let algorithm = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
        alice.put(&at(&room, "/state/m.room.encryption/"), algorithm).await.ok();
        assert_eq!(finds(&alice, "regret").await, Vec::<String>::new(), "encrypted rooms are not searched");
    }

    async fn pages_in_both_orders_hold_each_result_once(world) {
        let alice = world.user("alice").await;
        let rooms = [alice.create_room(json!({})).await, alice.create_room(json!({})).await];
        let text = |number: usize| format!("{}number {number}", "number ".repeat(number % 3));
        for number in 0..23 {
            alice.say(&rooms[number % 2], &text(number)).await;
        }
        let newest_first: Vec<String> = (0..23).rev().map(text).collect();
        for order in ["recent", "rank"] {
            let criteria = json!({ "search_term": "number", "order_by": order, "filter": { "limit": 5 } });
            let (mut next, mut all, mut ranks) = (None::<String>, Vec::new(), Vec::new());
            loop {
                let page = try_search(&alice, next.as_deref(), criteria.clone()).await.ok();
                let page = &page["search_categories"]["room_events"];
                all.extend(found(page));
                let results = page["results"].as_array().cloned().unwrap_or_default();
                ranks.extend(results.iter().map(|result| result["rank"].as_f64().unwrap()));
                assert!(results.len() <= 5);
                alice.say(&rooms[0], &format!("number late {order}")).await;
                match page["next_batch"].as_str() {
                    Some(token) => next = Some(token.to_owned()),
                    None => break,
                }
            }
            let late = format!("late {order}");
            assert!(!all.iter().any(|text| text.ends_with(&late)), "what comes later is no part of these: {all:?}");
            assert!(ranks.windows(2).all(|pair| order == "recent" || pair[0] >= pair[1]), "{ranks:?}");
            // What was said while the other order was looked at is part of these.
            all.retain(|text| !text.contains("late"));
            if order == "rank" {
                assert_eq!(all[0], "number number number 20", "{all:?}");
                all.sort_by_key(|text| text.rsplit(' ').next().and_then(|number| number.parse::<usize>().ok()));
                all.reverse();
            }
            assert_eq!(all, newest_first, "{order}");
        }
    }

    async fn a_page_goes_on_where_the_one_before_ended_whatever_is_redacted(world) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        for order in ["recent", "rank"] {
            let mut said = Vec::new();
            for number in 0..6 {
                said.push(alice.say(&room, &format!("{order} {number}")).await);
            }
            let criteria = json!({ "search_term": order, "order_by": order, "filter": { "limit": 2 } });
            let first = search(&alice, criteria.clone()).await;
            assert_eq!(found(&first), [format!("{order} 5"), format!("{order} 4")]);
            assert_eq!(first["count"], 6);
            alice.put(&at(&room, &format!("/redact/{}/{order}", escape(&said[5]))), json!({})).await.ok();
            let rest = try_search(&alice, first["next_batch"].as_str(), criteria).await.ok();
            let rest = &rest["search_categories"]["room_events"];
            assert_eq!(found(rest), [format!("{order} 3"), format!("{order} 2")]);
            assert_eq!(rest["count"], 6, "nothing is counted twice");
        }
    }

    async fn groups_and_filters(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let one = alice.create_room(json!({ "preset": "public_chat" })).await;
        let two = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&one).await.ok();
        bob.join(&two).await.ok();
        for number in 0..4 {
            alice.say(&one, &format!("apple {number}")).await;
            bob.say(&two, &format!("apple {number} too")).await;
        }
        let criteria = json!({
            "search_term": "apple", "order_by": "recent", "filter": { "limit": 3 },
            "groupings": { "group_by": [{ "key": "room_id" }, { "key": "sender" }] },
        });
        let page = search(&alice, criteria.clone()).await;
        assert_eq!(found(&page), ["apple 3 too", "apple 3", "apple 2 too"]);
        let groups = &page["groups"];
        assert_eq!(groups["room_id"][&two]["results"].as_array().unwrap().len(), 2, "{groups}");
        assert_eq!(groups["room_id"][&two]["order"], 0);
        assert_eq!(groups["room_id"][&one]["order"], 1);
        assert_eq!(groups["sender"][&alice.user_id]["results"].as_array().unwrap().len(), 1, "{groups}");
        // A group's token gives what is left of it.
        for (key, name, expected) in [
            ("room_id", one.as_str(), ["apple 2", "apple 1", "apple 0"].as_slice()),
            ("sender", bob.user_id.as_str(), &["apple 1 too", "apple 0 too"]),
        ] {
            let token = groups[key][name]["next_batch"].as_str().unwrap();
            let rest = try_search(&alice, Some(token), criteria.clone()).await.ok();
            assert_eq!(found(&rest["search_categories"]["room_events"]), expected, "{key}");
        }
        for (filter, count) in [
            (json!({ "rooms": [one] }), 4),
            (json!({ "not_rooms": [one, two] }), 0),
            (json!({ "senders": [bob.user_id] }), 4),
            (json!({ "types": ["m.room.name"] }), 0),
            (json!({ "contains_url": true }), 0),
        ] {
            let results = search(&alice, json!({ "search_term": "apple", "filter": filter })).await;
            assert_eq!(found(&results).len(), count, "{filter}");
        }
    }

    async fn what_was_said_around_a_result(world) {
        let alice = world.user("alice").await;
        let path = format!("/_matrix/client/v3/profile/{}/displayname", escape(&alice.user_id));
        alice.put(&path, json!({ "displayname": "Alice" })).await.ok();
        let room = alice.create_room(json!({ "name": "Kitchen" })).await;
        for text in ["one", "two", "needle", "three", "four"] {
            alice.say(&room, text).await;
        }
        let asked = json!({ "before_limit": 1, "after_limit": 2, "include_profile": true });
        let criteria = json!({ "search_term": "needle", "event_context": asked, "include_state": true });
        let results = search(&alice, criteria).await;
        let context = &results["results"][0]["context"];
        let bodies = |events: &Value| -> Vec<String> {
            events.as_array().unwrap().iter().map(|event| event["content"]["body"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(bodies(&context["events_before"]), ["two"]);
        assert_eq!(bodies(&context["events_after"]), ["three", "four"]);
        assert_eq!(context["profile_info"][&alice.user_id]["displayname"], "Alice");
        let start = context["start"].as_str().unwrap();
        let before = alice.get(&at(&room, &format!("/messages?dir=b&from={start}&limit=1"))).await.ok();
        assert_eq!(before["chunk"][0]["content"]["body"], "one", "the tokens go on from there");
        let state = results["state"][&room].as_array().unwrap();
        assert!(state.iter().any(|event| event["type"] == "m.room.name"), "{results}");

        let usual = search(&alice, json!({ "search_term": "needle", "event_context": {} })).await;
        assert_eq!(usual["results"][0]["context"]["events_before"].as_array().unwrap().len(), 5, "{usual}");
    }

    async fn results_and_what_is_around_them_come_with_what_relates_to_them(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let mut found = Vec::new();
        for _ in 0..2 {
            let room = alice.create_room(json!({ "preset": "public_chat" })).await;
            let root = alice.say(&room, "an apple").await;
            bob.join(&room).await.ok();
            let relates_to = json!({ "rel_type": "m.thread", "event_id": root });
            let reply = json!({ "msgtype": "m.text", "body": "a pear", "m.relates_to": relates_to });
            let reply = bob.put(&at(&room, "/send/m.room.message/pear"), reply).await.ok()["event_id"].clone();
            found.push((room, root, reply));
        }
        // What the server remembers does not reach back so far.
        let world = world.restarted().await;
        let bob = bob.at(&world);
        let around = json!({ "before_limit": 2, "after_limit": 0, "include_profile": true });
        for term in ["apple", "pear"] {
            let results = search(&bob, json!({ "search_term": term, "event_context": around })).await;
            for (room, root, reply) in &found {
                let of_room = |result: &&Value| result["result"]["room_id"] == room.as_str();
                let result = results["results"].as_array().unwrap().iter().find(of_room).unwrap();
                let (event, before) = (&result["result"], &result["context"]["events_before"]);
                let (expected, membership) = if term == "apple" { (&json!(root), "leave") } else { (reply, "join") };
                assert_eq!((&event["event_id"], &event["unsigned"]["membership"]), (expected, &json!(membership)));
                let is_root = |event: &&Value| event["event_id"] == root.as_str();
                let root = before.as_array().unwrap().iter().chain([event]).find(is_root).unwrap();
                let thread = &root["unsigned"]["m.relations"]["m.thread"];
                assert_eq!((&thread["count"], &thread["latest_event"]["event_id"]), (&json!(1), reply));
            }
        }
    }

    async fn searches_are_limited(world, config => {
        config.rate_limits.enabled = true;
        // Each costs two.
        config.rate_limits.search = RateLimitConfig { per_second: 0.001, burst: 8 };
    }) {
        let alice = world.user("alice").await;
        let criteria = json!({ "search_term": "anything" });
        for _ in 0..4 {
            try_search(&alice, None, criteria.clone()).await.ok();
        }
        try_search(&alice, None, criteria).await.refused(429, "M_LIMIT_EXCEEDED");
    }

    async fn bad_searches(world) {
        let alice = world.user("alice").await;
        alice.create_room(json!({ "name": "Kitchen" })).await;
        world.call("POST", "/_matrix/client/v3/search", None, Some(json!({}))).await.refused(401, "M_MISSING_TOKEN");
        alice.post("/_matrix/client/v3/search", json!({})).await.refused(400, "M_MISSING_PARAM");
        try_search(&alice, None, json!({})).await.refused(400, "M_MISSING_PARAM");
        try_search(&alice, None, json!({ "search_term": 7 })).await.refused(400, "M_BAD_JSON");
        for (key, value) in [
            ("order_by", json!("size")),
            ("keys", json!(["content.secret"])),
            ("groupings", json!({ "group_by": [{ "key": "colour" }] })),
        ] {
            let criteria = json!({ "search_term": "kitchen", key: value });
            try_search(&alice, None, criteria).await.refused(400, "M_INVALID_PARAM");
        }
        let many = "word ".repeat(65);
        try_search(&alice, None, json!({ "search_term": many })).await.refused(400, "M_INVALID_PARAM");
        let long = "w".repeat(20_000);
        try_search(&alice, None, json!({ "search_term": long })).await.ok();
        let nul = json!({ "search_term": "kit\u{0}chen" });
        try_search(&alice, None, nul).await.ok();
        for token in ["x", "1", "-1.0", "1.-1", "1.0.nobody", "99999999999999999999.0", "1.0.0.x", "1.0.0.1", "1.0.0.-1.1", "1.2.0", "1.0.0!room:x", "o1.2.0", "oo1.0.0"] {
            let criteria = json!({ "search_term": "kitchen" });
            try_search(&alice, Some(token), criteria).await.refused(400, "M_INVALID_PARAM");
        }
        let nothing = alice.post("/_matrix/client/v3/search", json!({ "search_categories": {} })).await.ok();
        assert_eq!(nothing, json!({ "search_categories": {} }));
    }
}
