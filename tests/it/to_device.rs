//! Messages from device to device: what a device is told by `/sync`, until it has confirmed it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging>

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hearth::config::RateLimitConfig;
use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, Reply, escape, next},
};

const CLIENT: &str = "/_matrix/client/v3";
const NONE: [i64; 0] = [];

/// Sends to devices of somebody, in a transaction.
async fn send(sender: &Client, transaction: &str, to: &Client, device_id: &str, content: Value) -> Reply {
    send_all(sender, transaction, json!({ to.user_id.as_str(): { device_id: content } })).await
}

async fn send_all(sender: &Client, transaction: &str, messages: Value) -> Reply {
    let path = format!("{CLIENT}/sendToDevice/org.example.test/{transaction}");
    sender.put(&path, json!({ "messages": messages })).await
}

/// The device that somebody speaks from.
async fn device_id(client: &Client) -> String {
    let whoami = client.get(&format!("{CLIENT}/account/whoami")).await.ok();
    whoami["device_id"].as_str().unwrap().to_owned()
}

/// What a sync says was sent to the device.
fn told(sync: &Value) -> Vec<Value> {
    sync["to_device"]["events"].as_array().cloned().unwrap_or_default()
}

/// The numbers in it.
fn numbers(sync: &Value) -> Vec<i64> {
    told(sync).iter().map(|event| event["content"]["n"].as_i64().unwrap()).collect()
}

/// Everything that waits, as it is confirmed, and the token after it.
async fn drain(client: &Client, since: Option<&str>) -> (Vec<i64>, String) {
    let (mut all, mut since) = (Vec::new(), since.map(ToOwned::to_owned));
    loop {
        let sync = client.sync(since.as_deref()).await;
        all.extend(numbers(&sync));
        since = Some(next(&sync));
        if told(&sync).is_empty() {
            return (all, next(&sync));
        }
    }
}

on_both! {
    async fn a_message_wakes_its_device_and_comes_until_the_next_token_confirms_it(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let (device, since) = (device_id(&bob).await, next(&bob.sync(None).await));
        let content = json!({ "n": 1, "nested": { "a": [true, null, "b"] } });
        let (sync, sent) = tokio::join!(bob.wait(&since), send(&alice, "1", &bob, &device, content.clone()));
        assert_eq!(sent.ok(), json!({}));
        // That she is online may come alone before it.
        let sync = if told(&sync).is_empty() { bob.wait(&next(&sync)).await } else { sync };
        let expected = json!({ "sender": alice.user_id, "type": "org.example.test", "content": content });
        assert_eq!(told(&sync), [expected]);
        // Who repeats a token is told the same, and so is who comes with none.
        assert_eq!(numbers(&bob.sync(Some(&since)).await), [1]);
        assert_eq!(numbers(&bob.sync(None).await), [1]);
        let later = bob.sync(Some(&next(&sync))).await;
        assert!(later.get("to_device").is_none(), "{later}");
        // Once it is confirmed it is gone, whatever one comes with.
        assert_eq!(numbers(&bob.sync(None).await), NONE);
        assert_eq!(numbers(&bob.sync(Some(&since)).await), NONE);
    }

    async fn a_waiting_sync_confirms_before_it_waits(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let device = device_id(&bob).await;
        send(&alice, "1", &bob, &device, json!({ "n": 1 })).await.ok();
        let sync = bob.sync(None).await;
        assert_eq!(numbers(&sync), [1]);
        let waiting = format!("{CLIENT}/sync?timeout=1500&set_presence=offline&since={}", next(&sync));
        let (quiet, waits) = tokio::join!(bob.get(&waiting), async {
            world.until_a_sync_waits().await;
            numbers(&bob.sync(None).await)
        });
        assert_eq!(waits, NONE);
        assert!(quiet.ok().get("to_device").is_none());
    }

    async fn pages_come_in_order_each_at_once(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let device = device_id(&bob).await;
        let room = bob.create_room(json!({ "name": "Kitchen" })).await;
        let before = next(&bob.sync(None).await);
        for n in 0..250 {
            send(&alice, &n.to_string(), &bob, &device, json!({ "n": n })).await.ok();
        }
        bob.say(&room, "hello").await;
        let (mut all, mut since, mut rooms, mut answers) = (Vec::new(), before.clone(), 0, 0);
        while all.len() < 250 || rooms == 0 {
            // It would wait for ten seconds if there were nothing.
            let begun = Instant::now();
            let sync = bob.wait(&since).await;
            assert!(begun.elapsed() < Duration::from_secs(8), "it has waited");
            assert!(numbers(&sync).len() <= 100, "{}", numbers(&sync).len());
            all.extend(numbers(&sync));
            rooms += usize::from(!sync["rooms"]["join"][&room].is_null());
            answers += 1;
            since = next(&sync);
        }
        assert!(answers >= 3);
        assert_eq!(all, (0..250).collect::<Vec<_>>());
        assert_eq!(rooms, 1, "what happens in rooms comes once and does not wait for the last page");
        let quiet = bob.get(&format!("{CLIENT}/sync?timeout=100&since={since}")).await.ok();
        assert!(quiet.get("to_device").is_none() && quiet.get("rooms").is_none(), "{quiet}");
        // It is a token like any other.
        let path = format!("{CLIENT}/rooms/{}/messages?dir=b&from={before}", escape(&room));
        bob.get(&path).await.ok();
    }

    async fn each_device_has_an_inbox_of_its_own(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let laptop = world.login(&bob).await;
        let (first, second) = (device_id(&bob).await, device_id(&laptop).await);
        let messages = json!({
            bob.user_id.as_str(): { first.as_str(): { "n": 1 }, "*": { "n": 2 }, "UNKNOWN": { "n": 3 } },
            alice.user_id.as_str(): { "*": { "n": 4 } },
            "@nobody:localhost": { "*": { "n": 5 } },
            "@carol:elsewhere.example": { "D": { "n": 6 } },
        });
        send_all(&alice, "1", messages).await.ok();
        send_all(&alice, "2", json!({})).await.ok();
        for (client, expected) in [(&bob, 1), (&laptop, 2), (&alice, 4)] {
            assert_eq!(drain(client, None).await.0, [expected]);
        }
        // Neither has confirmed for the other, and a device that is gone has left nothing.
        send(&alice, "3", &bob, "*", json!({ "n": 7 })).await.ok();
        let body = json!({ "devices": [second], "auth": bob.password() });
        bob.post(&format!("{CLIENT}/delete_devices"), body).await.ok();
        let login = json!({ "type": "m.login.password", "device_id": second,
            "identifier": { "type": "m.id.user", "user": "bob" }, "password": "password of bob" });
        let again = world.call("POST", &format!("{CLIENT}/login"), None, Some(login)).await.ok();
        let again = world.client(&again);
        assert_eq!(device_id(&again).await, second);
        assert_eq!(drain(&again, None).await.0, NONE);
        assert_eq!(drain(&bob, None).await.0, [7]);
        send(&alice, "4", &bob, &first, json!({ "n": 8 })).await.ok();
        bob.post(&format!("{CLIENT}/logout"), json!({})).await.ok();
        send(&alice, "5", &bob, &first, json!({ "n": 9 })).await.ok();
        assert_eq!(drain(&again, None).await.0, NONE);
    }

    /// Trap: what was sent to a device is given to the next one of its name. However it was ended, and before anything that
    /// is left to others is done.
    async fn what_was_sent_to_a_device_is_not_for_the_next_one_of_its_name(world) {
        let (alice, mut bob) = (world.user("alice").await, world.user("bob").await);
        let device = device_id(&bob).await;
        let mut login = bob.password();
        login["device_id"] = json!(device);
        for round in 0..6 {
            for n in 0..3 {
                send(&alice, &format!("{round} before {n}"), &bob, &device, json!({ "n": n })).await.ok();
            }
            if round % 2 == 1 {
                assert_eq!(numbers(&bob.sync(None).await), [0, 1, 2], "got and not confirmed");
            }
            let body = json!({ "devices": [device], "auth": bob.password() });
            match round % 3 {
                0 => drop(bob.post(&format!("{CLIENT}/logout"), json!({})).await.ok()),
                1 => drop(bob.post(&format!("{CLIENT}/delete_devices"), body).await.ok()),
                _ => drop(world.administration().await.end_sessions("bob", Some(&device)).await.unwrap()),
            }
            bob = world.client(&world.call("POST", &format!("{CLIENT}/login"), None, Some(login.clone())).await.ok());
            send(&alice, &format!("{round} after"), &bob, &device, json!({ "n": 10 + round })).await.ok();
            assert_eq!(drain(&bob, None).await.0, [10 + round]);
        }
    }

    async fn a_request_that_is_repeated_sends_once_on_whichever_node(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let tablet = world.login(&alice).await;
        let device = device_id(&bob).await;
        let sends = (0..12).map(|_| send(&alice, "same", &bob, &device, json!({ "n": 1 })));
        for reply in join_all(sends).await {
            reply.ok();
        }
        let (told, since) = drain(&bob, None).await;
        assert_eq!(told, [1]);
        // Also once it has come, and with something else in it. Another device's transactions are others.
        send(&alice, "same", &bob, &device, json!({ "n": 2 })).await.ok();
        send(&tablet, "same", &bob, &device, json!({ "n": 3 })).await.ok();
        let path = format!("{CLIENT}/sendToDevice/org.example.other/same");
        let messages = json!({ bob.user_id.as_str(): { device.as_str(): { "n": 4 } } });
        alice.put(&path, json!({ "messages": messages })).await.ok();
        assert_eq!(drain(&bob, Some(&since)).await.0, [3, 4]);
    }

    async fn what_waits_outlives_a_restart_and_what_is_confirmed_does_not(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let device = device_id(&bob).await;
        for n in 0..150 {
            send(&alice, &n.to_string(), &bob, &device, json!({ "n": n })).await.ok();
        }
        let first = bob.sync(None).await;
        let world = world.restarted().await;
        let (alice, bob) = (alice.at(&world), bob.at(&world));
        send(&alice, "7", &bob, &device, json!({ "n": 7 })).await.ok();
        let second = bob.sync(Some(&next(&first))).await;
        assert_eq!(numbers(&second), (100..150).collect::<Vec<_>>());
        let world = world.restarted().await;
        let bob = bob.at(&world);
        assert_eq!(numbers(&bob.sync(Some(&next(&first))).await), (100..150).collect::<Vec<_>>());
        assert_eq!(numbers(&bob.sync(None).await).len(), 50, "the first page is gone, the second is not");
        assert_eq!(drain(&bob, Some(&next(&second))).await.0, NONE);
        assert_eq!(drain(&bob, None).await.0, NONE);
    }

    /// What its client had got may come again. Nothing of what is there is taken for something that is gone.
    async fn after_a_backup_is_restored_what_waits_comes_again(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let device = device_id(&bob).await;
        send(&alice, "1", &bob, &device, json!({ "n": 1 })).await.ok();
        let (world, backup) = world.backed_up().await;
        let (alice, bob) = (alice.at(&world), bob.at(&world));
        send(&alice, "2", &bob, &device, json!({ "n": 2 })).await.ok();
        send(&alice, "3", &bob, &device, json!({ "n": 3 })).await.ok();
        let (told, lost) = drain(&bob, None).await;
        assert_eq!(told, [1, 2, 3]);
        let world = world.restored(&backup).await;
        let (alice, bob) = (alice.at(&world), bob.at(&world));
        for n in 4..10 {
            send(&alice, &format!("new {n}"), &bob, &device, json!({ "n": n })).await.ok();
        }
        assert_eq!(drain(&bob, Some(&lost)).await.0, [1, 4, 5, 6, 7, 8, 9]);
    }

    async fn tokens_that_say_nothing_of_messages_confirm_none(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let device = device_id(&bob).await;
        send(&alice, "1", &bob, &device, json!({ "n": 1 })).await.ok();
        let initial = bob.get(&format!("{CLIENT}/initialSync")).await.ok();
        assert!(initial.get("to_device").is_none());
        let end = initial["end"].as_str().unwrap();
        assert_eq!(numbers(&bob.sync(Some(end)).await), [1]);
        assert_eq!(numbers(&bob.sync(Some(end)).await), [1]);
        let sync = bob.wait(end).await;
        assert_eq!(numbers(&sync), [1], "although nothing has happened since");
        assert_eq!(drain(&bob, Some(&next(&sync))).await.0, NONE);
    }

    async fn what_is_wrong_is_refused_and_sends_nothing(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let device = device_id(&bob).await;
        let content = |bytes: usize| json!({ "n": 1, "text": "x".repeat(bytes) });
        let (most, other) = (64 * 1024 - content(0).to_string().len(), device_id(&alice).await);
        let too_large = json!({ bob.user_id.as_str(): { device.as_str(): content(most + 1) },
            alice.user_id.as_str(): { other.as_str(): { "n": 2 } } });
        send_all(&alice, "1", too_large).await.refused(400, "M_TOO_LARGE");
        for (messages, code) in [
            (json!({ bob.user_id.as_str(): { "*": "text" } }), "M_BAD_JSON"),
            (json!({ bob.user_id.as_str(): { "*": { "n": 0.5 } } }), "M_BAD_JSON"),
            (json!({ bob.user_id.as_str(): [] }), "M_BAD_JSON"),
            (json!([]), "M_BAD_JSON"),
        ] {
            send_all(&alice, "1", messages).await.refused(400, code);
        }
        alice.put(&format!("{CLIENT}/sendToDevice/a/1"), json!({})).await.refused(400, "M_MISSING_PARAM");
        let long = format!("{CLIENT}/sendToDevice/{}/1", "x".repeat(256));
        let messages = json!({ bob.user_id.as_str(): { "*": {} } });
        alice.put(&long, json!({ "messages": messages })).await.refused(400, "M_INVALID_PARAM");
        assert_eq!(drain(&alice, None).await.0, NONE);
        send(&alice, "1", &bob, &device, content(most)).await.ok();
        assert_eq!(drain(&bob, None).await.0, [1], "the transaction was not used up");
    }

    async fn so_much_may_wait_for_a_device(world, config => { config.quotas.to_device_megabytes = 1; }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let device = device_id(&bob).await;
        let content = |n: i64| json!({ "n": n, "text": "x".repeat(60_000) });
        let names: Vec<String> = (0..24).map(|n| n.to_string()).collect();
        let sends = names.iter().zip(0..).map(|(name, n)| send(&alice, name, &bob, &device, content(n)));
        for reply in join_all(sends).await {
            reply.ok();
        }
        // Trap: a device that nobody comes back to keeps others from getting their keys in one request with it.
        let laptop = world.login(&bob).await;
        let other = device_id(&laptop).await;
        let messages = json!({
            bob.user_id.as_str(): { device.as_str(): content(30), other.as_str(): { "n": 31 } },
            alice.user_id.as_str(): { "*": { "n": 32 } },
        });
        send_all(&alice, "to three", messages).await.ok();
        assert_eq!(drain(&laptop, None).await.0, [31]);
        assert_eq!(drain(&alice, None).await.0, [32]);
        let left_out: u64 = world
            .metrics()
            .lines()
            .filter_map(|line| line.strip_prefix("hearth_to_device_inbox_full_total ")?.parse::<u64>().ok())
            .sum();
        assert_eq!(left_out, 8);
        // Nothing that waits is dropped for it, and what is fetched makes room.
        let (told, since) = drain(&bob, None).await;
        assert_eq!(told.len(), 17);
        send(&alice, "again", &bob, &device, content(33)).await.ok();
        assert_eq!(drain(&bob, Some(&since)).await.0, [33]);
    }

    async fn each_recipient_counts(world, config => {
        config.rate_limits.enabled = true;
        config.rate_limits.registration = RateLimitConfig { per_second: 1_000.0, burst: 1_000 };
        config.rate_limits.to_device = RateLimitConfig { per_second: 0.001, burst: 10 };
    }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let nobody = |count: usize| -> Value {
            let devices: serde_json::Map<_, _> = (0..count).map(|n| (format!("D{n}"), json!({}))).collect();
            json!({ bob.user_id.as_str(): devices })
        };
        send_all(&alice, "1", nobody(9)).await.ok();
        send_all(&alice, "2", nobody(1)).await.ok();
        send_all(&alice, "3", nobody(1)).await.refused(429, "M_LIMIT_EXCEEDED");
        // All of somebody's devices are as many as they are.
        for _ in 0..3 {
            world.login(&alice).await;
        }
        let all = json!({ alice.user_id.as_str(): { "*": {} }, bob.user_id.as_str(): { "*": {} } });
        for n in 0..2 {
            send_all(&bob, &n.to_string(), all.clone()).await.ok();
        }
        send_all(&bob, "2", all).await.refused(429, "M_LIMIT_EXCEEDED");
    }

    async fn guests_and_suspended_accounts_may(world, config => { config.registration.guests = true; }) {
        let (guest, bob) = (world.guest().await, world.user("bob").await);
        let root = world.administrator("root").await;
        let device = device_id(&bob).await;
        send(&guest, "1", &bob, &device, json!({ "n": 1 })).await.ok();
        send(&bob, "1", &guest, "*", json!({ "n": 2 })).await.ok();
        assert_eq!(drain(&guest, None).await.0, [2]);
        let (told, since) = drain(&bob, None).await;
        assert_eq!(told, [1]);
        let suspend = format!("/_matrix/client/v1/admin/suspend/{}", escape(&bob.user_id));
        root.put(&suspend, json!({ "suspended": true })).await.ok();
        send(&bob, "2", &bob, &device, json!({ "n": 3 })).await.ok();
        assert_eq!(drain(&bob, Some(&since)).await.0, [3], "verifying a device is open to them");
    }
}
