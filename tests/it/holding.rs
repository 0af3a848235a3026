//! What one caller may hold by sending and reading slowly, and that others are served meanwhile.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    http2::{ENHANCE_YOUR_CALM, GOAWAY, Http2, MAX_CONCURRENT_STREAMS, SETTINGS},
    world::{Client, Engine, World, escape},
};

const MEGABYTE: i64 = 1024 * 1024;
/// How large a sync of [`with_much_to_read`] is, at least.
const SYNC_BYTES: usize = 1_200_000;
const SYNC: &str = "/_matrix/client/v3/sync";

/// A user whose every first sync is large.
async fn with_much_to_read(world: &World, name: &str) -> Client {
    let user = world.user(name).await;
    let much = "much ".repeat(SYNC_BYTES / 10 / 5);
    for number in 0..10 {
        let path = format!("/_matrix/client/v3/user/{}/account_data/org.example.{number}", user.user_id);
        user.put(&path, json!({ "much": much })).await.ok();
    }
    user
}

/// A metric without labels, or with those of the name.
fn metric(world: &World, name: &str) -> i64 {
    let metrics = world.metrics();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{metrics}")).parse().unwrap()
}

fn struck(world: &World, limit: &str) -> i64 {
    metric(world, &format!("hearth_limits_struck_total{{limit=\"{limit}\"}}"))
}

async fn until(world: &World, what: impl Fn(&World) -> bool) {
    let seen = async {
        while !what(world) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let seen = tokio::time::timeout(Duration::from_mins(1), seen).await;
    seen.unwrap_or_else(|_| panic!("it does not come to that:\n{}", world.metrics()));
}

/// Connections whose client asks for much and reads nothing of it.
async fn ask_and_do_not_read(world: &World, user: &Client) -> Vec<Http2> {
    let mut connections = Vec::new();
    for _ in 0..2 {
        let mut connection = Http2::connect(&world.url, 0).await;
        for _ in 0..15 {
            connection.get(SYNC, &user.token).await;
        }
        connections.push(connection);
    }
    connections
}

/// Trap: each stream of HTTP/2 that its client does not read keeps a whole answer in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_answers_of_one_user_take_no_more_than_their_share() {
    let configure = |config: &mut hearth::config::Config| {
        config.connections.held_megabytes = 8;
        config.connections.held_megabytes_per_caller = 3;
        config.connections.patience_seconds = 3600;
    };
    let world = World::on(Engine::Sqlite, configure).await.unwrap();
    let (alice, bob) = (with_much_to_read(&world, "alice").await, with_much_to_read(&world, "bob").await);
    let connections = ask_and_do_not_read(&world, &alice).await;
    until(&world, |world| {
        assert!(metric(world, "hearth_held_bytes") <= 3 * MEGABYTE);
        struck(world, "held_by_caller") == 28
    })
    .await;
    // Somebody else finds room for theirs, and alice is told to wait.
    assert!(bob.sync(None).await.to_string().len() > SYNC_BYTES);
    alice.get(SYNC).await.refused(429, "M_LIMIT_EXCEEDED");
    drop(connections);
    until(&world, |world| metric(world, "hearth_held_bytes") == 0).await;
    assert!(alice.sync(None).await.to_string().len() > SYNC_BYTES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_read_on_http_2_is_forgotten_in_time() {
    let world = World::on(Engine::Sqlite, |config| config.connections.patience_seconds = 1).await.unwrap();
    let alice = with_much_to_read(&world, "alice").await;
    let connections = ask_and_do_not_read(&world, &alice).await;
    until(&world, |world| struck(world, "slow_reader") + struck(world, "held_by_caller") == 30).await;
    // The connections are still there.
    until(&world, |world| metric(world, "hearth_held_bytes") == 0).await;
    assert!(alice.sync(None).await.to_string().len() > SYNC_BYTES);
    drop(connections);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_unread_answers_together_have_an_end() {
    let configure = |config: &mut hearth::config::Config| {
        config.connections.held_megabytes = 2;
        config.connections.patience_seconds = 3600;
    };
    let world = World::on(Engine::Sqlite, configure).await.unwrap();
    let (alice, bob) = (with_much_to_read(&world, "alice").await, with_much_to_read(&world, "bob").await);
    let mut connection = Http2::connect(&world.url, 0).await;
    connection.get(SYNC, &alice.token).await;
    until(&world, |world| metric(world, "hearth_held_bytes") > MEGABYTE).await;
    let reply = bob.get(SYNC).await;
    reply.refused(503, "M_LIMIT_EXCEEDED");
    assert!(reply.headers.contains_key("retry-after") && reply.body["retry_after_ms"].as_u64().is_some(), "{reply:?}");
    // What is small is answered all the same.
    bob.get("/_matrix/client/v3/account/whoami").await.ok();
    drop(connection);
    until(&world, |world| metric(world, "hearth_held_bytes") == 0).await;
    bob.get(SYNC).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_nothing_of_an_answer_is_cut() {
    let world = World::on(Engine::Sqlite, |config| config.connections.patience_seconds = 1).await.unwrap();
    let alice = with_much_to_read(&world, "alice").await;
    let mut stream = TcpStream::connect(world.url.strip_prefix("http://").unwrap()).await.unwrap();
    // More than the buffers of the system hold.
    let request = format!("GET {SYNC} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\r\n", alice.token);
    stream.write_all(request.repeat(50).as_bytes()).await.unwrap();
    until(&world, |world| struck(world, "slow_reader") == 1).await;
    until(&world, |world| metric(world, "hearth_held_bytes") == 0).await;
    assert!(alice.sync(None).await.to_string().len() > SYNC_BYTES);
    let mut read = Vec::new();
    drop(stream.read_to_end(&mut read).await);
    assert!(read.len() < 50 * SYNC_BYTES, "the connection ended before all was sent");
}

/// Whoever reads slowly but reads gets all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_is_whole_on_http_1_and_http_2() {
    let world = World::on(Engine::Sqlite, |_| ()).await.unwrap();
    let alice = with_much_to_read(&world, "alice").await;
    let mut connection = Http2::connect(&world.url, 10_000).await;
    connection.get(SYNC, &alice.token).await;
    let body = connection.read_body().await.unwrap();
    assert!(body.len() > SYNC_BYTES);
    let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["account_data"], alice.sync(None).await["account_data"]);
    until(&world, |world| metric(world, "hearth_held_bytes") == 0).await;
}

/// A user who is in rooms in which much has been said.
async fn with_large_rooms(world: &World, name: &str) -> (Client, Vec<String>) {
    let user = world.user(name).await;
    let (long, mut rooms) = ("long ".repeat(12_000), Vec::new());
    for _ in 0..6 {
        let room = user.create_room(json!({})).await;
        for number in 0..10 {
            user.say(&room, &format!("{number} {long}")).await;
        }
        rooms.push(room);
    }
    (user, rooms)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_sync_is_made_while_it_is_read() {
    let world = World::on(Engine::Sqlite, |_| ()).await.unwrap();
    let (alice, joined) = with_large_rooms(&world, "alice").await;
    let left = alice.create_room(json!({})).await;
    alice.leave(&left).await.ok();
    let bob = world.user("bob").await;
    let invited = bob.create_room(json!({ "invite": [alice.user_id] })).await;
    let sync = format!("{SYNC}?filter={}", escape(r#"{"room":{"include_leave":true}}"#));

    let mut connection = Http2::connect(&world.url, 10_000).await;
    connection.get(&sync, &alice.token).await;
    let first = connection.read_part().await.unwrap();
    assert!(metric(&world, "hearth_held_bytes") < 2 * MEGABYTE, "a part of it is in memory");
    connection.take_more(u32::try_from(first.payload.len()).unwrap()).await;
    let body = [first.payload, connection.read_body().await.unwrap()].concat();
    assert!(body.len() > 3_600_000, "{} bytes", body.len());
    let text = String::from_utf8(body).unwrap();
    let answer: Value = serde_json::from_str(&text).unwrap();
    for (list, rooms) in [("join", joined.clone()), ("leave", vec![left]), ("invite", vec![invited])] {
        let told = answer["rooms"][list].as_object().unwrap();
        assert_eq!(told.len(), rooms.len());
        assert_eq!(text.matches(&format!("\"{list}\":{{\"!")).count(), 1);
        for room in rooms {
            assert!(told.contains_key(&room), "{list} lacks {room}");
            assert_eq!(text.matches(&format!("\"{room}\":{{")).count(), 1);
        }
    }
    // As over HTTP/1.1, but for the ages of events.
    let other = alice.get(&sync).await.ok();
    for room in &joined {
        let ids = |answer: &Value| -> Vec<String> {
            let events = answer["rooms"]["join"][room]["timeline"]["events"].as_array().unwrap();
            events.iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!((ids(&answer), ids(&answer).len()), (ids(&other), 10));
    }
    assert_eq!(answer["account_data"], other["account_data"]);
    until(&world, |world| metric(world, "hearth_held_bytes") == 0).await;
    let since = answer["next_batch"].as_str().unwrap();
    assert!(alice.sync(Some(since)).await["rooms"].is_null(), "it is complete");
    // So is the one of old.
    let old = alice.get("/_matrix/client/v3/initialSync?archived=true&limit=10").await.ok();
    assert!(old.to_string().len() > 3_600_000);
    let mut told: Vec<&str> =
        old["rooms"].as_array().unwrap().iter().map(|room| room["room_id"].as_str().unwrap()).collect();
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_logged_out_reads_no_further() {
    let world = World::on(Engine::Sqlite, |_| ()).await.unwrap();
    let (alice, _) = with_large_rooms(&world, "alice").await;
    let laptop = world.login(&alice).await;
    let mut connection = Http2::connect(&world.url, 10_000).await;
    connection.get(SYNC, &laptop.token).await;
    let first = connection.read_part().await.unwrap();
    laptop.post("/_matrix/client/v3/logout", json!({})).await.ok();
    connection.take_more(u32::try_from(first.payload.len()).unwrap()).await;
    assert_eq!(connection.read_body().await, None, "the answer is broken off");
    until(&world, |world| metric(world, "hearth_held_bytes") == 0).await;
    assert!(alice.sync(None).await.to_string().len() > 3_600_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_does_not_come_is_given_up_and_others_are_served() {
    let world = World::on(Engine::Sqlite, |config| config.connections.patience_seconds = 1).await.unwrap();
    let alice = world.user("alice").await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(world.url.strip_prefix("http://").unwrap()).await.unwrap();
        let head = "POST /_matrix/client/v3/login HTTP/1.1\r\nhost: localhost\r\ncontent-length: 60\r\n\r\n{";
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    alice.sync(None).await;
    for mut stream in slow {
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 408");
    }
    assert_eq!(struck(&world, "slow_body"), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_carries_so_many_requests() {
    let world = World::on(Engine::Sqlite, |config| config.connections.max_streams = 7).await.unwrap();
    let mut connection = Http2::connect(&world.url, 65_535).await;
    let settings = connection.read_kind(SETTINGS).await.unwrap().settings();
    assert!(settings.contains(&(MAX_CONCURRENT_STREAMS, 7)), "{settings:?}");
    // Asking and taking it back at once would make work without end (CVE-2023-44487).
    connection.get_and_reset("/_matrix/client/versions", 500).await;
    let end = connection.read_kind(GOAWAY).await.expect("the server ends the connection");
    assert_eq!(end.reason(), ENHANCE_YOUR_CALM);
}

/// A client that has lost a connection begins anew, and is not kept out by what it has lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sync_too_many_ends_the_oldest_of_its_device() {
    let world = World::on(Engine::Sqlite, |config| config.connections.waiting_syncs_per_device = 2).await.unwrap();
    let alice = world.user("alice").await;
    let laptop = world.login(&alice).await;
    let since = alice.sync(None).await["next_batch"].as_str().unwrap().to_owned();
    // Nobody is to be woken by who is online.
    let quiet = alice.get(&format!("{SYNC}?since={since}&timeout=0&set_presence=offline")).await.ok();
    let since = quiet["next_batch"].as_str().unwrap().to_owned();
    let waiting = |count: i64| {
        let world = &world;
        async move { until(world, |world| metric(world, "hearth_waiting_syncs") == count).await }
    };
    let wait = format!("{SYNC}?since={since}&timeout=60000&set_presence=offline");
    let other = async {
        waiting(1).await;
        laptop.get(&wait).await.ok()
    };
    let second = async {
        waiting(2).await;
        alice.get(&wait).await.ok()
    };
    let third = async {
        waiting(3).await;
        alice.get(&wait).await.ok()
    };
    let news = async {
        until(&world, |world| struck(world, "syncs_of_device") == 1).await;
        let path = format!("/_matrix/client/v3/user/{}/account_data/org.example.news", alice.user_id);
        alice.put(&path, json!({})).await.ok();
    };
    let (first, other, second, third, ()) = tokio::join!(alice.get(&wait), other, second, third, news);
    let first = first.ok();
    assert_eq!(first["account_data"], serde_json::Value::Null, "{first}");
    assert_eq!(first["next_batch"], since.as_str());
    for answer in [other, second, third] {
        assert_eq!(answer["account_data"]["events"][0]["type"], "org.example.news", "{answer}");
    }
}
