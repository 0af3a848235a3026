//! What one caller may have done, by what it costs, and who is made to wait for it and who is not.
//!
//! Rates are a unit in a thousand seconds here, so that nothing is made good while a test runs.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#rate-limiting>

use std::time::Duration;

use hearth::config::{Config, RateLimitConfig};
use serde_json::{Map, Value, json};

use crate::{
    on_both,
    world::{Client, Reply, World, at, escape, http_client, next, password},
};

const LOGIN: &str = "/_matrix/client/v3/login";

fn slow(burst: u32) -> RateLimitConfig {
    RateLimitConfig { per_second: 0.001, burst }
}

/// Limits are on, and accounts are made as fast as the test likes. Addresses are believed as tests claim them.
fn limit(config: &mut Config) {
    config.rate_limits.enabled = true;
    config.rate_limits.registration = RateLimitConfig { per_second: 1_000.0, burst: 1_000 };
    config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
}

/// A request by a stranger from elsewhere.
async fn from(world: &World, address: &str, method: &str, path: &str, body: Option<Value>) -> Reply {
    let http = http_client(Duration::from_secs(30));
    let mut request = http.request(method.parse().unwrap(), format!("{}{path}", world.url));
    if let Some(body) = body {
        request = request.body(body.to_string());
    }
    let response = request.header("x-forwarded-for", address).send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Reply { status, headers, body: response.json().await.unwrap() }
}

async fn guess(world: &World, address: &str, name: &str, guess: &str) -> u16 {
    from(world, address, "POST", LOGIN, Some(password(name, guess))).await.status
}

/// How long somebody has to wait, in seconds.
#[track_caller]
fn wait(refused: &Reply) -> u64 {
    refused.refused(429, "M_LIMIT_EXCEEDED");
    let seconds: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert_eq!(refused.body["retry_after_ms"], json!(seconds * 1_000));
    seconds
}

async fn name(client: &Client, name: &str) -> Reply {
    let path = format!("/_matrix/client/v3/profile/{}/displayname", escape(&client.user_id));
    client.put(&path, json!({ "displayname": name })).await
}

async fn keep(client: &Client, kind: &str, bytes: usize) -> Reply {
    let path = format!("/_matrix/client/v3/user/{}/account_data/{kind}", escape(&client.user_id));
    client.put(&path, json!({ "text": "x".repeat(bytes) })).await
}

on_both! {
    async fn a_room_costs_as_many_events_as_it_begins_with(world, config => {
        limit(config);
        config.rate_limits.create_room = RateLimitConfig { per_second: 0.01, burst: 20 };
    }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let state: Vec<Value> = (0..30)
            .map(|number| json!({ "type": "org.example.state", "state_key": number.to_string(), "content": {} }))
            .collect();
        // Larger than the bucket: it is made, and owed.
        let room = alice.create_room(json!({ "initial_state": state })).await;
        let refused = alice.post("/_matrix/client/v3/createRoom", json!({})).await;
        // Eighteen are owed, and one is needed, each a hundred seconds.
        let seconds = wait(&refused);
        assert!(seconds > 1_000 && seconds <= 1_900, "{seconds}");
        // It is no more than rooms that she has to wait for.
        alice.say(&room, "here").await;
        bob.create_room(json!({})).await;
        bob.create_room(json!({ "invite": [alice.user_id] })).await;
        // Of his twenty three are left.
        bob.create_room(json!({ "initial_state": state })).await;
        assert!(wait(&bob.post("/_matrix/client/v3/createRoom", json!({})).await) > 1_900);
    }

    async fn memberships_are_limited_whoever_they_are_of(world, config => {
        limit(config);
        config.rate_limits.membership = slow(5);
    }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let ban = async |number: u32| {
            alice.post(&at(&room, "/ban"), json!({ "user_id": format!("@nobody{number}:localhost") })).await
        };
        alice.invite(&room, &bob.user_id).await.ok();
        alice.post(&at(&room, "/kick"), json!({ "user_id": bob.user_id })).await.ok();
        ban(1).await.ok();
        alice.post(&at(&room, "/unban"), json!({ "user_id": "@nobody1:localhost" })).await.ok();
        ban(2).await.ok();
        let seconds = wait(&ban(3).await);
        assert!(seconds <= 1_000, "{seconds}");
        alice.leave(&room).await.refused(429, "M_LIMIT_EXCEEDED");
        // What is refused is not done.
        let banned = at(&room, "/members?membership=ban");
        assert_eq!(alice.get(&banned).await.ok()["chunk"].as_array().unwrap().len(), 1);
        bob.join(&room).await.ok();
        bob.leave(&room).await.ok();
    }

    async fn what_users_keep_counts_by_its_size(world, config => {
        limit(config);
        config.rate_limits.account_data = slow(10);
    }) {
        let alice = world.user("alice").await;
        keep(&alice, "org.example.small", 100).await.ok();
        keep(&alice, "org.example.medium", 5_000).await.ok();
        // Four units are left, and 200 are spent.
        keep(&alice, "org.example.large", 200_000).await.ok();
        assert!(wait(&keep(&alice, "org.example.small", 1).await) > 3_000);
        let filters = format!("/_matrix/client/v3/user/{}/filter", escape(&alice.user_id));
        wait(&alice.post(&filters, json!({})).await);
        let data = format!("/_matrix/client/v3/user/{}/account_data/org.example.small", escape(&alice.user_id));
        assert_eq!(alice.get(&data).await.ok()["text"].as_str().unwrap().len(), 100);
        keep(&world.user("bob").await, "org.example.small", 1).await.ok();
    }

    async fn a_name_costs_as_many_rooms_as_hear_of_it(world, config => {
        limit(config);
        config.rate_limits.profile = slow(4);
    }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        for _ in 0..3 {
            alice.create_room(json!({})).await;
        }
        name(&alice, "Alice").await.ok();
        wait(&name(&alice, "Alicia").await);
        for number in 0..4 {
            name(&bob, &number.to_string()).await.ok();
        }
        wait(&name(&bob, "Robert").await);
        let shown = alice.get(&format!("/_matrix/client/v3/profile/{}", escape(&alice.user_id))).await.ok();
        assert_eq!(shown["displayname"], "Alice");
    }

    async fn long_messages_cost_more(world, config => {
        limit(config);
        config.rate_limits.message = slow(4);
    }) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        alice.say(&room, &"x".repeat(50_000)).await;
        let path = at(&room, "/send/m.room.message/more");
        wait(&alice.put(&path, json!({ "msgtype": "m.text", "body": "short" })).await);
    }

    async fn receipts_typing_and_presence_are_limited_together(world, config => {
        limit(config);
        config.rate_limits.ephemeral = slow(4);
    }) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        let event = alice.say(&room, "here").await;
        let receipt = at(&room, &format!("/receipt/m.read/{}", escape(&event)));
        let typing = at(&room, &format!("/typing/{}", escape(&alice.user_id)));
        let presence = format!("/_matrix/client/v3/presence/{}/status", escape(&alice.user_id));
        alice.post(&receipt, json!({})).await.ok();
        alice.put(&typing, json!({ "typing": true, "timeout": 30_000 })).await.ok();
        alice.put(&presence, json!({ "presence": "online" })).await.ok();
        alice.post(&at(&room, "/read_markers"), json!({ "m.fully_read": event })).await.ok();
        wait(&alice.post(&receipt, json!({})).await);
        wait(&alice.put(&typing, json!({ "typing": false })).await);
    }

    async fn a_sync_from_the_beginning_costs_as_many_rooms_as_it_sends(world, config => {
        limit(config);
        config.rate_limits.sync = slow(20);
    }) {
        let alice = world.user("alice").await;
        for _ in 0..5 {
            alice.create_room(json!({})).await;
        }
        let since = next(&alice.sync(None).await);
        alice.sync(None).await;
        wait(&alice.get("/_matrix/client/v3/sync").await);
        wait(&alice.get("/_matrix/client/v3/initialSync").await);
        wait(&alice.get(&format!("/_matrix/client/v3/sync?since={since}&full_state=true")).await);
        // A client that goes on does not have to wait.
        for _ in 0..10 {
            alice.sync(Some(&since)).await;
        }
    }

    async fn a_sync_after_a_long_time_costs_as_many_rooms_as_it_brings_news_of(world, config => {
        limit(config);
        config.rate_limits.read = slow(8);
    }) {
        let alice = world.user("alice").await;
        let mut rooms = Vec::new();
        for _ in 0..4 {
            rooms.push(alice.create_room(json!({})).await);
        }
        let since = next(&alice.sync(None).await);
        for room in &rooms {
            alice.say(room, "news").await;
        }
        let caught_up = next(&alice.sync(Some(&since)).await);
        // Three are left of eight.
        let sync = alice.sync(Some(&since)).await;
        assert_eq!(sync["rooms"]["join"].as_object().unwrap().len(), 4);
        wait(&alice.get(&format!("/_matrix/client/v3/sync?since={caught_up}&timeout=0")).await);
    }

    /// Of one room as of the whole backup.
    async fn keys_of_a_backup_cost_as_much_as_there_is_to_read(world, config => {
        limit(config);
        config.rate_limits.read = slow(20);
        config.rate_limits.account_data = RateLimitConfig { per_second: 1_000.0, burst: 1_000 };
    }) {
        let alice = world.user("alice").await;
        let keys = "/_matrix/client/v3/room_keys";
        let setup = json!({ "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {} });
        let made = alice.post(&format!("{keys}/version"), setup).await.ok();
        let version = made["version"].as_str().unwrap();
        let room = format!("{keys}/keys/{}?version={version}", escape("!room:localhost"));
        // Four pages of a MiB.
        let key = json!({
            "first_message_index": 0, "forwarded_count": 0, "is_verified": false,
            "session_data": { "ciphertext": "x".repeat(60_000) },
        });
        let sessions: Map<String, Value> = (0..60).map(|n| (format!("session{n}"), key.clone())).collect();
        alice.put(&room, json!({ "sessions": sessions })).await.ok();
        for path in [&room, &format!("{keys}/keys?version={version}")] {
            alice.get(path).await.ok();
        }
        // Twice 5 for the first, and 3 for the others.
        for _ in 0..4 {
            alice.get(&format!("{keys}/version")).await.ok();
        }
        wait(&alice.get(&room).await);
    }

    async fn strangers_are_limited_by_their_address_and_users_are_not(world, config => {
        limit(config);
        config.rate_limits.lookup = slow(4);
    }) {
        let alice = world.user("alice").await;
        let profile = format!("/_matrix/client/v3/profile/{}", escape(&alice.user_id));
        for _ in 0..4 {
            from(&world, "192.0.2.1", "GET", &profile, None).await.ok();
        }
        wait(&from(&world, "192.0.2.1", "GET", &profile, None).await);
        wait(&from(&world, "192.0.2.1", "GET", "/_matrix/client/v3/publicRooms", None).await);
        from(&world, "192.0.2.2", "GET", "/_matrix/client/v3/publicRooms", None).await.ok();
        wait(&from(&world, "192.0.2.2", "GET", &profile, None).await);
        // Each node that she has spoken to knows that it is she.
        for node in 0..world.nodes.len() {
            let alice = alice.clone().at_node(&world, node);
            alice.get("/_matrix/client/v3/account/whoami").await.ok();
        }
        for _ in 0..10 {
            alice.get(&profile).await.ok();
        }
        for _ in 0..4 {
            world.call("GET", &profile, Some("no token of anybody's"), None).await.ok();
        }
        wait(&world.call("GET", &profile, Some("no token of anybody's"), None).await);
        wait(&world.call("GET", "/_matrix/client/v3/sync", Some("no token of anybody's"), None).await);
    }

    async fn nonces_and_tokens_that_nobody_has_are_limited(world, config => {
        limit(config);
        config.registration.shared_secret = Some("a long random text".to_owned().try_into().unwrap());
        config.rate_limits.lookup = slow(2);
    }) {
        let nonce = "/_synapse/admin/v1/register";
        from(&world, "192.0.2.1", "GET", nonce, None).await.ok();
        from(&world, "192.0.2.1", "GET", nonce, None).await.ok();
        wait(&from(&world, "192.0.2.1", "GET", nonce, None).await);
        let refresh = async |address: &str| {
            let body = json!({ "refresh_token": "guess" });
            from(&world, address, "POST", "/_matrix/client/v3/refresh", Some(body)).await
        };
        refresh("192.0.2.2").await.refused(401, "M_UNKNOWN_TOKEN");
        refresh("192.0.2.2").await.refused(401, "M_UNKNOWN_TOKEN");
        wait(&refresh("192.0.2.2").await);
    }

    async fn refreshes_are_limited_for_the_account(world, config => {
        limit(config);
        config.rate_limits.lookup = slow(20);
    }) {
        let mut body = json!({ "username": "alice", "password": "password of alice", "refresh_token": true });
        body["auth"] = json!({ "type": "m.login.dummy" });
        let mut tokens = world.call("POST", "/_matrix/client/v3/register", None, Some(body)).await.ok();
        for number in 0..3 {
            let body = json!({ "refresh_token": tokens["refresh_token"] });
            let address = format!("192.0.2.{number}");
            let reply = from(&world, &address, "POST", "/_matrix/client/v3/refresh", Some(body)).await;
            if number == 2 {
                wait(&reply);
            } else {
                tokens = reply.ok();
            }
        }
    }

    /// Alice has registered from this machine, where her device was seen last.
    async fn strangers_do_not_lock_the_owner_out(world, config => {
        limit(config);
        config.rate_limits.login = slow(3);
    }) {
        let alice = world.user("alice").await;
        // One stranger, however often they try.
        for number in 0..8 {
            let status = guess(&world, "192.0.2.1", "alice", "guess").await;
            assert_eq!(status, if number < 3 { 403 } else { 429 });
        }
        assert_eq!(guess(&world, "198.51.100.1", "alice", "password of alice").await, 200, "from a new address");
        // Many of them together are bounded: four times as much as one.
        let mut guesses = 3;
        for number in 2..60 {
            guesses += u32::from(guess(&world, &format!("192.0.2.{number}"), "alice", "guess").await == 403);
        }
        assert_eq!(guesses, 12);
        // From where she was seen, she comes in. That was this machine, and where she has just logged in.
        world.call("POST", LOGIN, None, Some(alice.password())).await.ok();
        assert_eq!(guess(&world, "198.51.100.1", "alice", "password of alice").await, 200);
        // And who is logged in can do what takes the password.
        let body = json!({ "devices": ["STOLEN"], "auth": alice.password() });
        alice.post("/_matrix/client/v3/delete_devices", body).await.ok();
        // Others come in from anywhere.
        world.user("bob").await;
        assert_eq!(guess(&world, "192.0.2.200", "bob", "password of bob").await, 200);
    }

    async fn an_ipv6_network_is_one_stranger(world, config => {
        limit(config);
        config.rate_limits.login = slow(3);
    }) {
        world.user("alice").await;
        for (host, status) in [("1", 403), ("2:0:0:1", 403), ("ffff", 403), ("3", 429)] {
            assert_eq!(guess(&world, &format!("2001:db8::{host}"), "alice", "guess").await, status, "{host}");
        }
        assert_eq!(guess(&world, "2001:db8:0:1::1", "alice", "guess").await, 403);
    }

    /// A stolen session guesses at the password for itself.
    async fn one_session_that_guesses_does_not_stop_another(world, config => {
        limit(config);
        config.rate_limits.login = slow(3);
    }) {
        let alice = world.user("alice").await;
        let stolen = world.login(&alice).await;
        let confirm = async |client: &Client, auth: Value| {
            client.post("/_matrix/client/v3/delete_devices", json!({ "devices": ["X"], "auth": auth })).await
        };
        for _ in 0..3 {
            confirm(&stolen, password("alice", "guess")).await.refused(401, "M_FORBIDDEN");
        }
        wait(&confirm(&stolen, password("alice", "guess")).await);
        confirm(&alice, alice.password()).await.ok();
    }

    /// About what Element asks for when somebody logs in for the first time, and a room list full of pictures.
    async fn the_defaults_let_a_client_start(world, config => { limit(config); }) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        alice.sync(None).await;
        let profile = format!("/_matrix/client/v3/profile/{}", escape(&alice.user_id));
        for number in 0..40 {
            for path in ["/_matrix/client/v3/capabilities", "/_matrix/client/v3/pushrules/", &profile] {
                alice.get(path).await.ok();
            }
            alice.get(&at(&room, "/members")).await.ok();
            alice.get(&at(&room, "/messages?dir=b")).await.ok();
            keep(&alice, &format!("org.example.{number}"), 300).await.ok();
        }
        for number in 0..20 {
            alice.say(&room, &number.to_string()).await;
        }
    }
}
