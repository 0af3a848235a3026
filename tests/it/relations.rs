//! Edits, threads, references and reactions: bundled, listed, taken back, and what nobody may do.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events>

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, Reply, at, escape},
};

static TRANSACTION: AtomicU64 = AtomicU64::new(0);

fn v1(room: &str, rest: &str) -> String {
    format!("/_matrix/client/v1/rooms/{}{rest}", escape(room))
}

async fn try_send(user: &Client, room: &str, kind: &str, content: Value) -> Reply {
    let transaction = TRANSACTION.fetch_add(1, Ordering::SeqCst);
    user.put(&at(room, &format!("/send/{kind}/r{transaction}")), content).await
}

async fn send(user: &Client, room: &str, kind: &str, content: Value) -> String {
    try_send(user, room, kind, content).await.ok()["event_id"].as_str().unwrap().to_owned()
}

/// Says something that relates to an event.
async fn relate(user: &Client, room: &str, rel_type: &str, parent: &str, body: &str) -> String {
    let relates_to = json!({ "rel_type": rel_type, "event_id": parent });
    let mut content = json!({ "msgtype": "m.text", "body": body, "m.relates_to": relates_to });
    if rel_type == "m.replace" {
        content["m.new_content"] = json!({ "msgtype": "m.text", "body": body });
    }
    send(user, room, "m.room.message", content).await
}

async fn react(user: &Client, room: &str, parent: &str, key: &str) -> Reply {
    let relates_to = json!({ "rel_type": "m.annotation", "event_id": parent, "key": key });
    try_send(user, room, "m.reaction", json!({ "m.relates_to": relates_to })).await
}

async fn redact(user: &Client, room: &str, event: &str) {
    let transaction = TRANSACTION.fetch_add(1, Ordering::SeqCst);
    user.put(&at(room, &format!("/redact/{}/r{transaction}", escape(event))), json!({})).await.ok();
}

async fn event(user: &Client, room: &str, event: &str) -> Value {
    user.get(&at(room, &format!("/event/{}", escape(event)))).await.ok()
}

/// What is bundled with an event.
async fn bundle(user: &Client, room: &str, parent: &str) -> Value {
    event(user, room, parent).await["unsigned"]["m.relations"].clone()
}

async fn relations(user: &Client, room: &str, parent: &str, rest: &str) -> Value {
    user.get(&v1(room, &format!("/relations/{}{rest}", escape(parent)))).await.ok()
}

fn ids(page: &Value) -> Vec<&str> {
    page["chunk"].as_array().unwrap().iter().map(|event| event["event_id"].as_str().unwrap()).collect()
}

/// Alice and Bob in a public room.
async fn room_of_two(world: &crate::world::World) -> (Client, Client, String) {
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await.ok();
    (alice, bob, room)
}

on_both! {
    async fn the_latest_edit_comes_with_the_event_everywhere(world) {
        let (alice, bob, room) = room_of_two(&world).await;
        let original = alice.say(&room, "cake").await;
        assert_eq!(bundle(&bob, &room, &original).await, Value::Null);
        relate(&alice, &room, "m.replace", &original, "chocolate cake").await;
        world.clock.advance(std::time::Duration::from_secs(1));
        let latest = relate(&alice, &room, "m.replace", &original, "carrot cake").await;

        let edited = event(&bob, &room, &original).await;
        assert_eq!(edited["content"]["body"], "cake", "the original is left as it is");
        let edit = &edited["unsigned"]["m.relations"]["m.replace"];
        assert_eq!((&edit["event_id"], &edit["sender"]), (&json!(latest), &json!(alice.user_id)));
        assert_eq!(edit["content"]["m.new_content"]["body"], "carrot cake");

        let has_it = |events: &Value| {
            let events = events.as_array().unwrap().iter();
            let event = events.clone().find(|event| event["event_id"] == original.as_str());
            assert_eq!(event.unwrap()["unsigned"]["m.relations"]["m.replace"]["event_id"], latest);
        };
        has_it(&bob.get(&at(&room, "/messages?dir=b")).await.ok()["chunk"]);
        let context = bob.get(&at(&room, &format!("/context/{}?limit=4", escape(&original)))).await.ok();
        has_it(&json!([context["event"]]));
        let filter = escape(r#"{"room":{"timeline":{"limit":3}}}"#);
        let sync = bob.get(&format!("/_matrix/client/v3/sync?filter={filter}")).await.ok();
        let timeline = &sync["rooms"]["join"][&room]["timeline"];
        assert_eq!(timeline["limited"], true);
        has_it(&timeline["events"]);
    }

    /// <https://spec.matrix.org/v1.19/client-server-api/#validity-of-replacement-events>
    async fn what_is_no_edit_is_not_bundled_as_one(world) {
        let (alice, bob, room) = room_of_two(&world).await;
        let original = alice.say(&room, "mine").await;
        relate(&bob, &room, "m.replace", &original, "not bob's").await;
        let relates_to = json!({ "rel_type": "m.replace", "event_id": original });
        send(&alice, &room, "m.room.message", json!({ "msgtype": "m.text", "body": "no new content", "m.relates_to": relates_to })).await;
        send(&alice, &room, "com.example.other", json!({ "m.new_content": {}, "m.relates_to": relates_to })).await;
        assert_eq!(bundle(&alice, &room, &original).await["m.replace"], Value::Null);

        let first = relate(&alice, &room, "m.replace", &original, "first edit").await;
        relate(&alice, &room, "m.replace", &first, "an edit of an edit").await;
        assert_eq!(bundle(&alice, &room, &first).await["m.replace"], Value::Null);
        assert_eq!(bundle(&alice, &room, &original).await["m.replace"]["event_id"], first);

        let elsewhere = alice.create_room(json!({})).await;
        world.clock.advance(std::time::Duration::from_secs(1));
        let content = json!({ "msgtype": "m.text", "body": "from another room", "m.relates_to": relates_to });
        try_send(&alice, &elsewhere, "m.room.message", content).await.refused(400, "M_INVALID_PARAM");
        assert_eq!(bundle(&alice, &room, &original).await["m.replace"]["event_id"], first);
    }

    async fn a_redacted_edit_gives_way_to_the_one_before(world) {
        let (alice, bob, room) = room_of_two(&world).await;
        let original = alice.say(&room, "one").await;
        let first = relate(&alice, &room, "m.replace", &original, "two").await;
        world.clock.advance(std::time::Duration::from_secs(1));
        let second = relate(&alice, &room, "m.replace", &original, "three").await;
        redact(&alice, &room, &second).await;
        assert_eq!(bundle(&bob, &room, &original).await["m.replace"]["event_id"], first);
        assert_eq!(ids(&relations(&bob, &room, &original, "").await), [first.as_str()]);
        redact(&alice, &room, &original).await;
        assert_eq!(bundle(&bob, &room, &original).await["m.replace"], Value::Null, "the original is gone");
        assert_eq!(ids(&relations(&bob, &room, &original, "").await), [first], "what related to it still does");
    }

    async fn a_thread_is_summed_up_for_each_reader(world) {
        let (alice, bob, room) = room_of_two(&world).await;
        let carol = world.user("carol").await;
        carol.join(&room).await.ok();
        let root = alice.say(&room, "a question").await;
        relate(&bob, &room, "m.thread", &root, "an answer").await;
        let last = relate(&bob, &room, "m.thread", &root, "another").await;
        let edit = relate(&bob, &room, "m.replace", &last, "a better one").await;
        let thread = &bundle(&bob, &room, &root).await["m.thread"];
        assert_eq!((&thread["count"], &thread["current_user_participated"]), (&json!(2), &json!(true)));
        assert_eq!((&thread["latest_event"]["event_id"], &thread["latest_event"]["room_id"]), (&json!(last), &json!(room)));
        assert_eq!(thread["latest_event"]["unsigned"]["m.relations"]["m.replace"]["event_id"], edit);
        let participates = |bundle: Value| bundle["m.thread"]["current_user_participated"].clone();
        assert_eq!(participates(bundle(&alice, &room, &root).await), true, "who began it takes part");
        assert_eq!(participates(bundle(&carol, &room, &root).await), false);

        let ignored = json!({ "ignored_users": { bob.user_id.clone(): {} } });
        let path = format!("/_matrix/client/v3/user/{}/account_data/m.ignored_user_list", escape(&carol.user_id));
        carol.put(&path, ignored).await.ok();
        assert_eq!(bundle(&carol, &room, &root).await, Value::Null, "whom one ignores is not counted");
        assert_eq!(ids(&relations(&carol, &room, &root, "").await), [""; 0]);

        redact(&bob, &room, &last).await;
        assert_eq!(bundle(&alice, &room, &root).await["m.thread"]["count"], 1);
    }

    async fn threads_begin_only_at_what_relates_to_nothing(world) {
        let (alice, bob, room) = room_of_two(&world).await;
        let root = alice.say(&room, "root").await;
        let reply = relate(&bob, &room, "m.thread", &root, "in the thread").await;
        let content = json!({ "msgtype": "m.text", "body": "nested", "m.relates_to": { "rel_type": "m.thread", "event_id": reply } });
        try_send(&alice, &room, "m.room.message", content.clone()).await.refused(400, "M_UNKNOWN");
        let eve = world.user("eve").await;
        try_send(&eve, &room, "m.room.message", content).await.refused(403, "M_FORBIDDEN");
    }

    async fn nobody_reacts_twice_with_the_same(world) {
        let (alice, bob, room) = room_of_two(&world).await;
        let event = alice.say(&room, "news").await;
        let first = react(&bob, &room, &event, "👍").await.ok()["event_id"].as_str().unwrap().to_owned();
        react(&bob, &room, &event, "👍").await.refused(400, "M_DUPLICATE_ANNOTATION");
        react(&bob, &room, &event, "🎉").await.ok();
        react(&alice, &room, &event, "👍").await.ok();
        redact(&bob, &room, &first).await;
        react(&bob, &room, &event, "👍").await.ok();
        assert_eq!(ids(&relations(&alice, &room, &event, "/m.annotation/m.reaction").await).len(), 3);
        assert_eq!(bundle(&alice, &room, &event).await, Value::Null, "reactions are not bundled");
    }

    async fn references_are_bundled_in_order(world) {
        let (alice, bob, room) = room_of_two(&world).await;
        let event = alice.say(&room, "poll").await;
        let one = relate(&bob, &room, "m.reference", &event, "yes").await;
        let two = relate(&alice, &room, "m.reference", &event, "no").await;
        let references = bundle(&bob, &room, &event).await["m.reference"]["chunk"].clone();
        assert_eq!(references, json!([{ "event_id": one }, { "event_id": two }]));
    }

    async fn relations_are_listed_by_type_in_pages_both_ways(world) {
        let (alice, bob, room) = room_of_two(&world).await;
        let root = alice.say(&room, "root").await;
        let mut sent = Vec::new();
        for n in 0..5 {
            sent.push(relate(&bob, &room, "m.thread", &root, &n.to_string()).await);
        }
        let reaction = react(&alice, &room, &root, "👀").await.ok()["event_id"].as_str().unwrap().to_owned();
        let newest_first: Vec<_> = sent.iter().rev().cloned().collect();

        let all = relations(&alice, &room, &root, "").await;
        assert_eq!(ids(&all).first(), Some(&reaction.as_str()));
        assert_eq!((ids(&all).len(), &all["next_batch"], &all["recursion_depth"]), (6, &Value::Null, &Value::Null));
        assert_eq!(ids(&relations(&alice, &room, &root, "/m.thread").await), newest_first);
        assert_eq!(ids(&relations(&alice, &room, &root, "/m.thread/m.room.message").await), newest_first);
        assert_eq!(ids(&relations(&alice, &room, &root, "/m.thread/m.reaction").await), [""; 0]);
        assert_eq!(ids(&relations(&alice, &room, &root, "/m.thread?dir=f").await), sent);

        for (direction, expected) in [("b", &newest_first), ("f", &sent)] {
            let (mut seen, mut from) = (Vec::new(), String::new());
            loop {
                let page = relations(&alice, &room, &root, &format!("/m.thread?dir={direction}&limit=2{from}")).await;
                assert!(ids(&page).len() <= 2);
                seen.extend(ids(&page).into_iter().map(ToOwned::to_owned));
                match page["next_batch"].as_str() {
                    Some(next) => from = format!("&from={next}"),
                    None => break,
                }
            }
            assert_eq!(seen, *expected, "{direction}");
        }
    }

    async fn relations_of_relations_are_found_on_request(world) {
        let (alice, bob, room) = room_of_two(&world).await;
        let root = alice.say(&room, "root").await;
        let reply = relate(&bob, &room, "m.thread", &root, "reply").await;
        let reaction = react(&alice, &room, &reply, "👍").await.ok()["event_id"].as_str().unwrap().to_owned();
        assert_eq!(ids(&relations(&alice, &room, &root, "").await), [reply.as_str()]);
        let found = relations(&alice, &room, &root, "?recurse=true").await;
        assert_eq!((ids(&found), &found["recursion_depth"]), (vec![reaction.as_str(), &reply], &json!(3)));
        // What does not pass is not followed either.
        assert_eq!(ids(&relations(&alice, &room, &root, "/m.annotation?recurse=true").await), [""; 0]);
    }

    async fn relations_are_told_to_those_who_see_the_event(world) {
        let (alice, bob, room) = room_of_two(&world).await;
        let eve = world.user("eve").await;
        let root = alice.say(&room, "root").await;
        let reply = relate(&bob, &room, "m.thread", &root, "reply").await;
        bob.post(&at(&room, "/leave"), json!({})).await.ok();
        relate(&alice, &room, "m.thread", &root, "bob is gone").await;
        let path = v1(&room, &format!("/relations/{}", escape(&root)));
        let hidden = eve.get(&path).await;
        hidden.refused(404, "M_NOT_FOUND");
        assert_eq!(eve.get(&v1("!nowhere:localhost", &format!("/relations/{}", escape(&root)))).await.body, hidden.body);
        assert_eq!(alice.get(&v1(&room, "/relations/%24unknown")).await.body, hidden.body);
        assert_eq!(ids(&relations(&bob, &room, &root, "").await), [reply.as_str()], "up to the leaving");
        assert_eq!(bundle(&bob, &room, &root).await["m.thread"]["count"], 1);
        alice.get(&format!("{path}?from=nonsense")).await.refused(400, "M_INVALID_PARAM");
        world.call("GET", &path, None, None).await.refused(401, "M_MISSING_TOKEN");
    }

    async fn threads_are_listed_by_their_last_words(world) {
        let (alice, bob, room) = room_of_two(&world).await;
        let (one, two, three) = (alice.say(&room, "1").await, bob.say(&room, "2").await, alice.say(&room, "3").await);
        relate(&alice, &room, "m.thread", &three, "a").await;
        relate(&bob, &room, "m.thread", &one, "b").await;
        relate(&alice, &room, "m.thread", &two, "c").await;
        relate(&alice, &room, "m.thread", &one, "d").await;
        let threads = async |rest: &str| alice.get(&v1(&room, &format!("/threads{rest}"))).await.ok();
        let all = threads("").await;
        assert_eq!((ids(&all), &all["next_batch"]), (vec![one.as_str(), &two, &three], &Value::Null));
        assert_eq!(all["chunk"][0]["unsigned"]["m.relations"]["m.thread"]["count"], 2);
        let page = threads("?limit=2").await;
        assert_eq!(ids(&page), [one.as_str(), &two]);
        let next = page["next_batch"].as_str().unwrap();
        let rest = threads(&format!("?limit=2&from={next}")).await;
        assert_eq!((ids(&rest), &rest["next_batch"]), (vec![three.as_str()], &Value::Null));
        let of_bob = bob.get(&v1(&room, "/threads?include=participated")).await.ok();
        assert_eq!(ids(&of_bob), [one.as_str(), &two]);

        let ignored = json!({ "ignored_users": { bob.user_id.clone(): {} } });
        let path = format!("/_matrix/client/v3/user/{}/account_data/m.ignored_user_list", escape(&alice.user_id));
        alice.put(&path, ignored).await.ok();
        let all = threads("").await;
        assert_eq!(ids(&all), [one.as_str(), &two, &three]);
        assert_eq!((&all["chunk"][0]["content"]["body"], &all["chunk"][1]["content"]), (&json!("1"), &json!({})));

        alice.get(&v1(&room, "/threads?limit=0")).await.refused(400, "M_INVALID_PARAM");
        alice.get(&v1(&room, "/threads?from=nonsense")).await.refused(400, "M_INVALID_PARAM");
        alice.get(&v1(&room, "/threads?include=some")).await.refused(400, "M_INVALID_PARAM");
        world.user("eve").await.get(&v1(&room, "/threads")).await.refused(403, "M_FORBIDDEN");
        alice.get(&v1("!nowhere:localhost", "/threads")).await.refused(403, "M_FORBIDDEN");
    }

    /// Whatever somebody writes where a relation stands, the event is an event.
    async fn relations_of_another_shape_are_none(world) {
        let (alice, _, room) = room_of_two(&world).await;
        let root = alice.say(&room, "root").await;
        for relates_to in [
            json!("m.thread"),
            json!({ "rel_type": 7, "event_id": root }),
            json!({ "rel_type": "m.thread" }),
            json!({ "rel_type": "", "event_id": root }),
            json!({ "rel_type": "a\u{0}b", "event_id": root }),
            json!({ "rel_type": "x".repeat(300), "event_id": root }),
            json!({ "rel_type": "m.thread", "event_id": "not an event" }),
        ] {
            let content = json!({ "msgtype": "m.text", "body": "odd", "m.relates_to": relates_to });
            send(&alice, &room, "m.room.message", content).await;
        }
        assert_eq!(ids(&relations(&alice, &room, &root, "?recurse=true").await), [""; 0]);
        assert_eq!(bundle(&alice, &room, &root).await, Value::Null);
    }
}
