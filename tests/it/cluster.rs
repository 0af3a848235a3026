//! Identical nodes: any of them serves any request, and what one has answered all of them know.
//!
//! The rest of the suite runs on a cluster as well (`on_both!`); here is what only a cluster can get wrong.

use std::{collections::HashSet, time::Duration};

use hearth::{config::RateLimitConfig, ground::clock::Clock};
use serde_json::{Value, json};

use crate::world::{Client, Engine, World, escape, next, texts};

const HOUR: i64 = 3_600_000;

/// A cluster that the test changes a little, or none where there is no PostgreSQL and Redis.
async fn cluster(configure: impl FnOnce(&mut hearth::config::Config)) -> Option<World> {
    let world = World::on(Engine::Cluster, configure).await;
    if world.is_none() {
        eprintln!("skipped: ./test starts a PostgreSQL and a Redis for this");
    }
    world
}

/// How many requests were answered by another node than the one that got them.
fn count_forwarded(world: &World) -> u32 {
    let metrics = world.metrics();
    let counts = metrics.lines().filter_map(|line| line.strip_prefix("hearth_forwarded_requests_total "));
    counts.map(|count| count.parse::<u32>().unwrap()).sum()
}

/// Sends into a room until so many messages are acknowledged, and gives their identifiers.
async fn send_many(client: &Client, room: &str, name: &str, count: usize) -> Vec<String> {
    let mut sent = Vec::new();
    for number in 0..count {
        sent.push(client.say(room, &format!("{name} {number}")).await);
    }
    sent
}

async fn history(client: &Client, room: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut from = "s0".to_owned();
    loop {
        let path = format!("/_matrix/client/v3/rooms/{}/messages?dir=f&limit=100&from={from}", escape(room));
        let page = client.get(&path).await.ok();
        let messages = page["chunk"].as_array().unwrap().iter().filter(|event| event["type"] == "m.room.message");
        found.extend(messages.map(|event| event["event_id"].as_str().unwrap().to_owned()));
        match page["end"].as_str() {
            Some(end) => end.clone_into(&mut from),
            None => return found,
        }
    }
}

/// Syncs until so many messages of the room have come.
async fn read_many(client: Client, room: String, mut since: String, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let sync = client
            .sync_with(
                Some(&since),
                "&timeout=10000&filter=%7B%22room%22:%7B%22timeline%22:%7B%22limit%22:200%7D%7D%7D",
            )
            .await;
        let events = sync["rooms"]["join"][&room]["timeline"]["events"].as_array().cloned().unwrap_or_default();
        seen.extend(events.iter().map(|event| event["event_id"].as_str().unwrap().to_owned()));
        since = next(&sync);
    }
    seen
}

/// Nobody can reach the preferred node, so that all three write for themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_write_into_one_room_and_agree_on_its_order() {
    const EACH: usize = 40;
    let Some(world) = cluster(|config| {
        config.cluster.advertise = Some("http://127.0.0.1:1".to_owned().try_into().unwrap());
    })
    .await
    else {
        return;
    };
    let alice = world.user("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let mut clients = Vec::new();
    for (index, name) in ["bob", "carol", "dave"].into_iter().enumerate() {
        let client = world.user(name).await;
        client.join(&room).await.ok();
        clients.push(client.at_node(&world, index));
    }
    let mut readers = Vec::new();
    for client in &clients {
        let since = next(&client.sync(None).await);
        readers.push(read_many(client.clone(), room.clone(), since, 3 * EACH));
    }
    let [one, two, three] = &clients[..] else { panic!("three clients") };
    let sends = async {
        tokio::join!(
            send_many(one, &room, "one", EACH),
            send_many(two, &room, "two", EACH),
            send_many(three, &room, "three", EACH)
        )
    };
    let readers = futures_util::future::join_all(readers);
    let ((first, second, third), seen) = tokio::join!(sends, readers);

    let order = history(one, &room).await;
    assert_eq!(order.len(), 3 * EACH);
    assert_eq!(order.iter().collect::<HashSet<_>>().len(), order.len(), "nothing is there twice");
    for sent in [first, second, third] {
        let mine: Vec<_> = order.iter().filter(|id| sent.contains(id)).cloned().collect();
        assert_eq!(mine, sent, "each sender's messages are there in their order");
    }
    for client in [two, three] {
        assert_eq!(history(client, &room).await, order, "all nodes tell one order");
    }
    for seen in seen {
        assert_eq!(seen, order, "every waiting sync has seen that order, without gap or duplicate");
    }
    assert_eq!(count_forwarded(&world), 0, "nobody could be forwarded to");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_has_answered_the_others_know() {
    let Some(world) = cluster(|_| ()).await else { return };
    let whoami = "/_matrix/client/v3/account/whoami";
    for round in 0..8_usize {
        let node = |step: usize| (round + step) % 3;
        let alice = world.user(&format!("alice{round}")).await.at_node(&world, node(0));
        let elsewhere = alice.clone().at_node(&world, node(1));
        let room = elsewhere.create_room(json!({ "name": "Kitchen" })).await;
        let third = alice.clone().at_node(&world, node(2));
        let event = third.say(&room, "hello").await;
        let path = format!("/_matrix/client/v3/rooms/{}", escape(&room));
        assert_eq!(alice.get(&format!("{path}/event/{}", escape(&event))).await.ok()["content"]["body"], "hello");
        assert_eq!(alice.get(&format!("{path}/state/m.room.name/")).await.ok()["name"], "Kitchen");
        elsewhere.put(&format!("{path}/state/m.room.name/"), json!({ "name": "Bath" })).await.ok();
        assert_eq!(third.get(&format!("{path}/state/m.room.name/")).await.ok()["name"], "Bath");
        assert_eq!(texts(&third.sync(None).await, &room), ["hello"]);

        // A transaction id holds everywhere.
        let send = format!("{path}/send/m.room.message/once");
        let first = alice.put(&send, json!({ "msgtype": "m.text", "body": "once" })).await.ok();
        assert_eq!(third.put(&send, json!({ "msgtype": "m.text", "body": "once" })).await.ok(), first);

        alice.get(whoami).await.ok();
        third.post("/_matrix/client/v3/logout", json!({})).await.ok();
        for client in [&alice, &elsewhere, &third] {
            client.get(whoami).await.refused(401, "M_UNKNOWN_TOKEN");
        }
    }
    assert!(count_forwarded(&world) > 0, "rooms have preferred nodes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_come_and_go_under_way() {
    let Some(mut world) = cluster(|_| ()).await else { return };
    let alice = world.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let since = next(&alice.sync(None).await);
    alice.say(&room, "three").await;
    world.remove_node(0).await;
    alice.say(&room, "two").await;
    world.add_node(world.clock.clone()).await;
    alice.say(&room, "three again").await;
    world.remove_node(0).await;
    world.remove_node(0).await;
    alice.say(&room, "one").await;
    assert_eq!(texts(&alice.sync(Some(&since)).await, &room), ["three", "two", "three again", "one"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_an_hour_off_breaks_nothing() {
    let Some(world) = World::with_clocks(vec![Clock::system(), Clock::wrong_by(HOUR), Clock::wrong_by(-HOUR)]).await
    else {
        eprintln!("skipped: ./test starts a PostgreSQL and a Redis for this");
        return;
    };
    let alice = world.user("alice").await;
    let bob = world.user("bob").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await.ok();
    let path = format!("/_matrix/client/v3/rooms/{}", escape(&room));

    let mut times = Vec::new();
    for node in 0..3 {
        let event = alice.clone().at_node(&world, node).say(&room, "what time is it?").await;
        let event = bob.get(&format!("{path}/event/{}", escape(&event))).await.ok();
        times.push(event["origin_server_ts"].as_i64().unwrap());
    }
    let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(last - first < 60_000, "all nodes go by one time: {times:?}");

    // Somebody types for a second on one node; on the others that is neither over at once nor for ever.
    for node in 0..3 {
        let bob = bob.clone().at_node(&world, (node + 1) % 3);
        let mut since = next(&bob.sync(None).await);
        let typing = format!("{path}/typing/{}", escape(&alice.user_id));
        alice.clone().at_node(&world, node).put(&typing, json!({ "typing": true, "timeout": 1_000 })).await.ok();
        for expected in [json!([alice.user_id]), json!([])] {
            let mut typists = Value::Null;
            while typists.is_null() {
                let sync = bob.wait(&since).await;
                since = next(&sync);
                let events =
                    sync["rooms"]["join"][&room]["ephemeral"]["events"].as_array().cloned().unwrap_or_default();
                if let Some(event) = events.iter().find(|event| event["type"] == "m.typing") {
                    typists = event["content"]["user_ids"].clone();
                }
            }
            assert_eq!(typists, expected);
        }
    }
}

/// What clients say every few seconds is kept in Redis; beginnings and ends are news for the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_go_on_typing_costs_the_log_nothing() {
    let Some(world) = cluster(|config| config.presence.enabled = false).await else { return };
    let alice = world.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let typing = format!("/_matrix/client/v3/rooms/{}/typing/{}", escape(&room), escape(&alice.user_id));
    let says = async |body: Value| {
        alice.put(&typing, body).await.ok();
        next(&alice.sync(None).await)
    };
    let before = says(json!({ "typing": false })).await;
    let began = says(json!({ "typing": true })).await;
    assert_ne!(before, began);
    for _ in 0..5 {
        world.clock.advance(Duration::from_secs(4));
        assert_eq!(says(json!({ "typing": true })).await, began);
    }
    assert_ne!(says(json!({ "typing": false })).await, began);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_for_all_nodes_together() {
    let limits = |config: &mut hearth::config::Config| {
        config.rate_limits.enabled = true;
        config.rate_limits.message = RateLimitConfig { per_second: 0.001, burst: 4 };
    };
    let Some(world) = cluster(limits).await else { return };
    let alice = world.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message", escape(&room));
    let body = json!({ "msgtype": "m.text", "body": "quick" });
    for number in 0..4 {
        alice.put(&format!("{path}/{number}"), body.clone()).await.ok();
    }
    for number in 4..7 {
        let refused = alice.put(&format!("{path}/{number}"), body.clone()).await;
        refused.refused(429, "M_LIMIT_EXCEEDED");
        let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((900..=1_000).contains(&wait), "a thousand seconds for one act: {wait}");
    }
}

/// What one node let through beyond what there was is owed on all of them, and none of them forgets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_owed_is_owed_on_every_node() {
    let limits = |config: &mut hearth::config::Config| {
        config.rate_limits.enabled = true;
        config.rate_limits.account_data = RateLimitConfig { per_second: 0.01, burst: 10 };
    };
    let Some(world) = cluster(limits).await else { return };
    let alice = world.user("alice").await;
    let path = format!("/_matrix/client/v3/user/{}/account_data/org.example", escape(&alice.user_id));
    let put = async |node: usize, bytes: usize| {
        alice.clone().at_node(&world, node).put(&path, json!({ "text": "x".repeat(bytes) })).await
    };
    put(0, 30_000).await.ok();
    for node in 0..3 {
        let refused = put(node, 1).await;
        refused.refused(429, "M_LIMIT_EXCEEDED");
        let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
        // Twenty are owed and one is needed, each a hundred seconds.
        assert!((1_500..=2_100).contains(&wait), "{wait}");
    }
}

/// Without Redis the others' writes are found by looking for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_news_comes_a_little_later() {
    let Some(world) = cluster(|config| config.redis.url = None).await else { return };
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await.ok();
    for node in 0..3 {
        let reader = bob.clone().at_node(&world, node);
        let since = next(&reader.sync(None).await);
        let writer = alice.clone().at_node(&world, (node + 1) % 3);
        let text = format!("to node {node}");
        let (sync, _) = tokio::join!(reader.wait(&since), writer.say(&room, &text));
        assert_eq!(texts(&sync, &room), [text]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_says_so_first() {
    let Some(world) = cluster(|_| ()).await else { return };
    let ready = || async { reqwest::get(format!("{}/ready", world.nodes[0].url)).await.unwrap().status().as_u16() };
    assert_eq!(ready().await, 200);
    world.app().tasks.shutdown().leave();
    assert_eq!(ready().await, 503);
    let alice = world.user("alice").await.at_node(&world, 0);
    alice.get("/_matrix/client/v3/account/whoami").await.ok();
}
