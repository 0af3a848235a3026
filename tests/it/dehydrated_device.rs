//! Dehydrated devices: made with their keys, sent to, read by another device, and ended.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/3814>

use ruma::{
    CanonicalJsonObject,
    serde::{Base64, base64::Standard},
    signatures::{Ed25519KeyPair, sign_json},
};
use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, World, escape, next},
};

const DEVICE: &str = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device";

fn events(device_id: &str, query: &str) -> String {
    format!("{DEVICE}/{}/events{query}", escape(device_id))
}

/// What a client uploads: keys that the device has signed, one one-time key and a fallback key.
fn device(user_id: &str, device_id: &str) -> Value {
    let pair = Ed25519KeyPair::from_der(&Ed25519KeyPair::generate(), device_id.to_owned()).unwrap();
    let key = Base64::<Standard, _>::new(pair.public_key()).encode();
    let sign = |value: Value| {
        let mut object: CanonicalJsonObject = serde_json::from_value(value).unwrap();
        sign_json(user_id, &pair, &mut object).unwrap();
        serde_json::to_value(object).unwrap()
    };
    let device_keys = sign(json!({
        "user_id": user_id, "device_id": device_id, "dehydrated": true,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": { format!("curve25519:{device_id}"): key, format!("ed25519:{device_id}"): key },
    }));
    json!({
        "device_id": device_id,
        "device_data": { "algorithm": "org.matrix.msc3814.v2", "device_pickle": key, "nonce": "n" },
        "initial_device_display_name": "Dehydrated device",
        "device_keys": device_keys,
        "one_time_keys": { "signed_curve25519:AAAAAQ": sign(json!({ "key": key })) },
        "fallback_keys": { "signed_curve25519:AAAAAg": sign(json!({ "key": key, "fallback": true })) },
    })
}

impl Client {
    async fn send_to(&self, user: &str, device_id: &str, number: usize) {
        let path = format!("/_matrix/client/v3/sendToDevice/org.example.test/{}-{number}", escape(device_id));
        let body = json!({ "messages": { user: { device_id: { "number": number } } } });
        self.put(&path, body).await.ok();
    }

    async fn devices(&self) -> Vec<String> {
        let devices = self.get("/_matrix/client/v3/devices").await.ok();
        let ids = devices["devices"].as_array().unwrap().iter().map(|device| device["device_id"].as_str().unwrap());
        ids.map(ToOwned::to_owned).collect()
    }

    /// The devices of a user that have keys, as this one sees them.
    async fn devices_with_keys(&self, user: &str) -> Vec<String> {
        let body = json!({ "device_keys": { user: [] } });
        let found = self.post("/_matrix/client/v3/keys/query", body).await.ok();
        found["device_keys"][user].as_object().map_or_else(Vec::new, |keys| keys.keys().cloned().collect())
    }
}

fn numbers(page: &Value) -> Vec<u64> {
    page["events"].as_array().unwrap().iter().map(|event| event["content"]["number"].as_u64().unwrap()).collect()
}

on_both! {
    async fn a_dehydrated_device_is_kept_replaced_and_deleted(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        alice.get(DEVICE).await.refused(404, "M_NOT_FOUND");
        alice.delete(DEVICE).await.refused(404, "M_NOT_FOUND");
        let first = device(&alice.user_id, "FIRST");
        assert_eq!(alice.put(DEVICE, first.clone()).await.ok(), json!({ "device_id": "FIRST" }));
        let stored = json!({ "device_id": "FIRST", "device_data": first["device_data"] });
        assert_eq!(alice.get(DEVICE).await.ok(), stored);
        bob.get(DEVICE).await.refused(404, "M_NOT_FOUND");
        assert_eq!(bob.devices_with_keys(&alice.user_id).await, ["FIRST"]);
        assert!(alice.devices().await.contains(&"FIRST".to_owned()));
        let claim = json!({ "one_time_keys": { &alice.user_id: { "FIRST": "signed_curve25519" } } });
        let claimed = bob.post("/_matrix/client/v3/keys/claim", claim).await.ok();
        let claimed = &claimed["one_time_keys"][&alice.user_id]["FIRST"];
        assert_eq!(claimed["signed_curve25519:AAAAAQ"], first["one_time_keys"]["signed_curve25519:AAAAAQ"]);

        let second = device(&alice.user_id, "SECOND");
        alice.put(DEVICE, second).await.ok();
        assert_eq!(bob.devices_with_keys(&alice.user_id).await, ["SECOND"]);
        assert!(!alice.devices().await.contains(&"FIRST".to_owned()));
        alice.get(&events("FIRST", "")).await.refused(403, "M_FORBIDDEN");

        let world = world.restarted().await;
        let (alice, bob) = (alice.at(&world), bob.at(&world));
        assert_eq!(alice.get(DEVICE).await.ok()["device_id"], "SECOND");
        assert_eq!(alice.delete(DEVICE).await.ok(), json!({ "device_id": "SECOND" }));
        alice.get(DEVICE).await.refused(404, "M_NOT_FOUND");
        assert!(bob.devices_with_keys(&alice.user_id).await.is_empty());
        alice.get(&events("SECOND", "")).await.refused(404, "M_NOT_FOUND");
    }

    /// Some clients ask for such a device and understand `M_NOT_FOUND`; some look here first.
    async fn clients_learn_that_there_are_such_devices(world, config => {
        config.well_known.client_base_url = Some("https://matrix.example.org".to_owned().try_into().unwrap());
    }) {
        let found = world.call("GET", "/.well-known/matrix/client", None, None).await.ok();
        let homeserver = json!({ "base_url": "https://matrix.example.org" });
        assert_eq!(found, json!({ "m.homeserver": homeserver, "org.matrix.msc3814": true }));
        let versions = world.call("GET", "/_matrix/client/versions", None, None).await.ok();
        assert_eq!(versions["unstable_features"]["org.matrix.msc3814"], true);
    }

    /// By GET, in the shape of 2026, and by POST, as clients of before go on asking.
    async fn its_messages_are_read_in_order_and_stay(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        alice.put(DEVICE, device(&alice.user_id, "DRY")).await.ok();
        assert_eq!(alice.get(&events("DRY", "")).await.ok(), json!({ "events": [] }));
        for number in 0..5 {
            bob.send_to(&alice.user_id, "DRY", number).await;
        }
        // Those are for another device.
        let since = next(&alice.sync(None).await);
        assert_eq!(alice.sync(Some(&since)).await["to_device"]["events"].as_array().map_or(0, Vec::len), 0);
        for _ in 0..2 {
            let all = alice.get(&events("DRY", "")).await.ok();
            assert_eq!((numbers(&all), all.get("next_batch")), (vec![0, 1, 2, 3, 4], None));
            assert_eq!((&all["events"][0]["sender"], &all["events"][0]["type"]), (&json!(bob.user_id), &json!("org.example.test")));
            let (mut seen, mut from) = (Vec::new(), String::new());
            loop {
                let page = alice.get(&events("DRY", &format!("?limit=2{from}"))).await.ok();
                assert!(page["events"].as_array().unwrap().len() <= 2);
                seen.extend(numbers(&page));
                let Some(token) = page["next_batch"].as_str() else { break };
                from = format!("&from={}", escape(token));
            }
            assert_eq!(seen, [0, 1, 2, 3, 4]);
            let (mut seen, mut body) = (Vec::new(), json!({}));
            loop {
                let page = alice.post(&events("DRY", "?limit=3"), body).await.ok();
                if page["events"].as_array().unwrap().is_empty() {
                    assert!(page["next_batch"].is_string());
                    break;
                }
                seen.extend(numbers(&page));
                body = json!({ "next_batch": page["next_batch"] });
            }
            assert_eq!(seen, [0, 1, 2, 3, 4]);
        }
        bob.get(&events("DRY", "")).await.refused(404, "M_NOT_FOUND");
        alice.get(&events("DRY", "?from=nonsense")).await.refused(400, "M_INVALID_PARAM");

        // Whoever has not got the answer sends the request again: the messages are still there.
        let again = device(&alice.user_id, "WET");
        alice.put(DEVICE, again.clone()).await.ok();
        bob.send_to(&alice.user_id, "WET", 9).await;
        alice.put(DEVICE, again).await.ok();
        assert_eq!(numbers(&alice.get(&events("WET", "")).await.ok()), [9]);
        alice.put(DEVICE, device(&alice.user_id, "WET")).await.ok();
        assert!(numbers(&alice.get(&events("WET", "")).await.ok()).is_empty(), "another device of that name");
    }

    async fn it_lasts_longer_than_any_session_and_ends_with_all_of_them(world) {
        let alice = world.user("alice").await;
        alice.put(DEVICE, device(&alice.user_id, "DRY")).await.ok();
        alice.post("/_matrix/client/v3/logout", json!({})).await.ok();
        let alice = world.login(&alice).await;
        assert_eq!(alice.get(DEVICE).await.ok()["device_id"], "DRY");
        let body = json!({ "auth": alice.password() });
        let path = "/_matrix/client/v3/devices/DRY";
        let deleted = world.call("DELETE", path, Some(&alice.token), Some(body)).await;
        deleted.ok();
        alice.get(DEVICE).await.refused(404, "M_NOT_FOUND");

        alice.put(DEVICE, device(&alice.user_id, "DRY")).await.ok();
        alice.post("/_matrix/client/v3/logout/all", json!({})).await.ok();
        let alice = world.login(&alice).await;
        alice.get(DEVICE).await.refused(404, "M_NOT_FOUND");

        // Who logs in on it has a device like any other.
        alice.put(DEVICE, device(&alice.user_id, "DRY")).await.ok();
        let mut login = alice.password();
        login["device_id"] = "DRY".into();
        world.call("POST", "/_matrix/client/v3/login", None, Some(login)).await.ok();
        alice.get(DEVICE).await.refused(404, "M_NOT_FOUND");
        alice.put(DEVICE, device(&alice.user_id, "DRY")).await.refused(400, "M_INVALID_PARAM");
    }

    async fn what_is_no_device_is_refused_and_the_one_before_stays(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        alice.put(DEVICE, device(&alice.user_id, "DRY")).await.ok();
        let good = device(&alice.user_id, "NEW");
        let bad = |path: &str, value: Value| {
            let mut device = good.clone();
            *device.pointer_mut(path).unwrap() = value;
            device
        };
        let mut without_keys = good.clone();
        without_keys.as_object_mut().unwrap().remove("device_keys");
        let foreign = device(&bob.user_id, "NEW");
        let cases = [
            without_keys,
            foreign,
            bad("/device_id", json!("OTHER")),
            bad("/device_data", json!({ "device_pickle": "a" })),
            bad("/device_data", json!("text")),
            bad("/device_keys/keys/ed25519:NEW", json!("AAAA")),
            bad("/device_keys/algorithms", json!(["changed after it was signed"])),
            bad("/one_time_keys/signed_curve25519:AAAAAQ/key", json!("AAAA")),
        ];
        for case in cases {
            let reply = alice.put(DEVICE, case.clone()).await;
            assert_eq!(reply.status, 400, "{case}: {}", reply.body);
        }
        alice.put(DEVICE, bad("/device_data/device_pickle", json!("x".repeat(70_000)))).await.refused(413, "M_TOO_LARGE");
        assert_eq!(alice.get(DEVICE).await.ok()["device_id"], "DRY");
        assert_eq!(bob.devices_with_keys(&alice.user_id).await, ["DRY"]);
    }
}

/// Devices that replace each other's at once, on three nodes: one is left, with its keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_put_at_once_one_is_left() {
    let Some(world) = World::on(crate::world::Engine::Cluster, |_| ()).await else { return };
    let alice = world.user("alice").await;
    let puts = (0..9).map(|n| {
        let node = alice.clone().at_node(&world, n % world.nodes.len());
        let device = device(&alice.user_id, &format!("DRY{n}"));
        async move { node.put(DEVICE, device).await.ok() }
    });
    futures_util::future::join_all(puts).await;
    let left = alice.get(DEVICE).await.ok()["device_id"].as_str().unwrap().to_owned();
    assert_eq!(alice.devices_with_keys(&alice.user_id).await, [left]);
}
