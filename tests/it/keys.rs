//! Keys for end-to-end encryption as clients meet them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption>

use std::collections::BTreeSet;

use futures_util::future::join_all;
use ruma::{
    CanonicalJsonObject,
    serde::{Base64, base64::Standard},
    signatures::{Ed25519KeyPair, sign_json},
};
use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, Engine, Reply, World, escape},
};

/// A key of ed25519, as a device or somebody has it.
pub(crate) struct Pair(Ed25519KeyPair);

impl Pair {
    /// `name` is what its identifier has after `ed25519:`.
    pub(crate) fn new(name: &str) -> Self {
        Self(Ed25519KeyPair::from_der(&Ed25519KeyPair::generate(), name.to_owned()).unwrap())
    }

    /// One that is called by its public key.
    pub(crate) fn cross_signing() -> Self {
        let document = Ed25519KeyPair::generate();
        let name = Self(Ed25519KeyPair::from_der(&document, String::new()).unwrap()).public_key();
        Self(Ed25519KeyPair::from_der(&document, name).unwrap())
    }

    pub(crate) fn public_key(&self) -> String {
        Base64::<Standard, _>::new(self.0.public_key()).encode()
    }

    /// With one more signature.
    pub(crate) fn sign(&self, user_id: &str, value: &Value) -> Value {
        let mut object: CanonicalJsonObject = serde_json::from_value(value.clone()).unwrap();
        sign_json(user_id, &self.0, &mut object).unwrap();
        serde_json::to_value(object).unwrap()
    }

    /// What the device of this key uploads of itself.
    pub(crate) fn device_keys(&self, user_id: &str) -> Value {
        let (device_id, key) = (self.0.version(), self.public_key());
        let unsigned = json!({
            "user_id": user_id,
            "device_id": device_id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": { format!("curve25519:{device_id}"): key, format!("ed25519:{device_id}"): key },
        });
        self.sign(user_id, &unsigned)
    }

    pub(crate) fn one_time_key(&self, user_id: &str) -> Value {
        self.sign(user_id, &json!({ "key": Self::new("").public_key() }))
    }

    fn cross_signing_key(&self, user_id: &str, usage: &str) -> Value {
        let key = self.public_key();
        json!({ "user_id": user_id, "usage": [usage], "keys": { format!("ed25519:{key}"): key } })
    }
}

/// The keys by which somebody vouches for devices and others.
pub(crate) struct CrossSigning {
    pub(crate) master: Pair,
    pub(crate) self_signing: Pair,
    pub(crate) user_signing: Pair,
}

impl CrossSigning {
    pub(crate) fn new() -> Self {
        let pair = Pair::cross_signing;
        Self { master: pair(), self_signing: pair(), user_signing: pair() }
    }

    pub(crate) fn keys(&self, user_id: &str) -> Value {
        let by_master = |pair: &Pair, usage| self.master.sign(user_id, &pair.cross_signing_key(user_id, usage));
        json!({
            "master_key": self.master.cross_signing_key(user_id, "master"),
            "self_signing_key": by_master(&self.self_signing, "self_signing"),
            "user_signing_key": by_master(&self.user_signing, "user_signing"),
        })
    }
}

impl Client {
    pub(crate) async fn upload_keys(&self, keys: Value) -> Reply {
        self.post("/_matrix/client/v3/keys/upload", keys).await
    }

    pub(crate) async fn vouch(&self, keys: Value) -> Reply {
        self.post("/_matrix/client/v3/keys/device_signing/upload", keys).await
    }

    pub(crate) async fn sign(&self, signatures: Value) -> Value {
        self.post("/_matrix/client/v3/keys/signatures/upload", signatures).await.ok()["failures"].clone()
    }

    pub(crate) async fn query(&self, user_id: &str) -> Value {
        self.post("/_matrix/client/v3/keys/query", json!({ "device_keys": { user_id: [] } })).await.ok()
    }

    /// Claims a key of a device. Its identifier and the key.
    pub(crate) async fn claim(&self, user_id: &str, device_id: &str, algorithm: &str) -> Option<(String, Value)> {
        let asked = json!({ "one_time_keys": { user_id: { device_id: algorithm } } });
        let reply = self.post("/_matrix/client/v3/keys/claim", asked).await.ok();
        let keys = reply["one_time_keys"][user_id][device_id].as_object()?.clone();
        assert_eq!(keys.len(), 1, "{reply}");
        keys.into_iter().next()
    }

    pub(crate) async fn device(&self) -> String {
        let whoami = self.get("/_matrix/client/v3/account/whoami").await.ok();
        whoami["device_id"].as_str().unwrap().to_owned()
    }

    /// Uploads identity keys and so many one-time keys, and gives the device's name and key.
    pub(crate) async fn encrypt(&self, one_time_keys: usize) -> (String, Pair) {
        let id = self.device().await;
        let pair = Pair::new(&id);
        let keys = (0..one_time_keys).map(|n| (format!("signed_curve25519:A{n}"), pair.one_time_key(&self.user_id)));
        let keys: serde_json::Map<String, Value> = keys.collect();
        let body = json!({ "device_keys": pair.device_keys(&self.user_id), "one_time_keys": keys });
        let counts = self.upload_keys(body).await.ok();
        assert_eq!(counts, json!({ "one_time_key_counts": { "signed_curve25519": one_time_keys } }));
        (id, pair)
    }
}

on_both! {
    async fn a_device_is_found_by_others_and_its_keys_are_handed_out_once(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let (id, pair) = alice.encrypt(3).await;
        let path = format!("/_matrix/client/v3/devices/{}", escape(&id));
        alice.put(&path, json!({ "display_name": "Phone" })).await.ok();
        let mut expected = pair.device_keys(&alice.user_id);
        expected["unsigned"] = json!({ "device_display_name": "Phone" });
        let shown = bob.query(&alice.user_id).await;
        assert_eq!(shown["device_keys"], json!({ &alice.user_id: { &id: expected } }));
        assert_eq!(shown["failures"], json!({}));

        let claims = join_all((0..5).map(|_| bob.claim(&alice.user_id, &id, "signed_curve25519"))).await;
        let claimed: BTreeSet<String> = claims.into_iter().flatten().map(|(key_id, _)| key_id).collect();
        assert_eq!(claimed.len(), 3);
        let fallback = pair.sign(&alice.user_id, &json!({ "key": pair.public_key(), "fallback": true }));
        alice.upload_keys(json!({ "fallback_keys": { "signed_curve25519:F": fallback } })).await.ok();
        for _ in 0..2 {
            let expected = Some(("signed_curve25519:F".to_owned(), fallback.clone()));
            assert_eq!(bob.claim(&alice.user_id, &id, "signed_curve25519").await, expected);
        }
        let world = world.restarted().await;
        let (alice, bob) = (alice.at(&world), bob.at(&world));
        assert_eq!(bob.query(&alice.user_id).await["device_keys"], shown["device_keys"]);
        alice.post("/_matrix/client/v3/logout", json!({})).await.ok();
        assert_eq!(bob.query(&alice.user_id).await["device_keys"], json!({ &alice.user_id: {} }));
        assert_eq!(bob.claim(&alice.user_id, &id, "signed_curve25519").await, None);
    }

    /// Trap: malformed device keys stall federation (CVE-2025-61672).
    async fn what_is_wrong_with_keys_is_said_and_nothing_of_it_is_kept(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let (id, pair) = alice.encrypt(1).await;
        let good = pair.one_time_key(&alice.user_id);
        let with = |key_id: &str, key: &Value| json!({ "one_time_keys": { "signed_curve25519:B": good, key_id: key } });
        let stranger = Pair::new(&id).one_time_key(&alice.user_id);
        alice.upload_keys(with("signed_curve25519:C", &stranger)).await.refused(400, "M_INVALID_SIGNATURE");
        alice.upload_keys(with("signed_curve25519:A0", &good)).await.refused(400, "M_INVALID_PARAM");
        alice.upload_keys(with("nothing", &good)).await.refused(400, "M_BAD_JSON");
        alice.upload_keys(with("curve25519:C", &json!("short"))).await.refused(400, "M_INVALID_PARAM");
        let twice = json!({ "fallback_keys": { "signed_curve25519:D": good, "signed_curve25519:E": good } });
        alice.upload_keys(twice).await.refused(400, "M_INVALID_PARAM");
        let foreign = json!({ "device_keys": pair.device_keys(&bob.user_id) });
        alice.upload_keys(foreign).await.refused(400, "M_INVALID_PARAM");
        alice.upload_keys(json!({ "device_keys": [] })).await.refused(400, "M_BAD_JSON");
        alice.upload_keys(json!({ "one_time_keys": { "a:b": "x".repeat(300_000) } })).await.refused(413, "M_TOO_LARGE");
        let counts = alice.upload_keys(json!({})).await.ok();
        assert_eq!(counts, json!({ "one_time_key_counts": { "signed_curve25519": 1 } }));

        let query = "/_matrix/client/v3/keys/query";
        bob.post(query, json!({})).await.refused(400, "M_MISSING_PARAM");
        bob.post(query, json!({ "device_keys": { "alice": [] } })).await.refused(400, "M_BAD_JSON");
        let unknown = bob.post(query, json!({ "device_keys": { &alice.user_id: ["NONE"] } })).await.ok();
        assert_eq!(unknown["device_keys"], json!({ &alice.user_id: {} }));
        let claim = json!({ "one_time_keys": { "@carol:elsewhere.example": { "A": "signed_curve25519" } } });
        let claimed = bob.post("/_matrix/client/v3/keys/claim", claim).await.ok();
        assert_eq!(claimed["one_time_keys"], json!({}));
        assert!(claimed["failures"]["elsewhere.example"].is_object(), "{claimed}");
    }

    async fn cross_signing_keys_are_replaced_only_with_a_password(world) {
        let alice = world.user("alice").await;
        let (first, second) = (CrossSigning::new(), CrossSigning::new());
        alice.vouch(first.keys(&alice.user_id)).await.ok();
        alice.vouch(first.keys(&alice.user_id)).await.ok();
        let mut new = second.keys(&alice.user_id);
        let asked = alice.vouch(new.clone()).await;
        assert_eq!(asked.status, 401, "{}", asked.body);
        assert_eq!(asked.body["flows"], json!([{ "stages": ["m.login.password"] }]));
        let master = |keys: &CrossSigning| format!("ed25519:{}", keys.master.public_key());
        let shown = alice.query(&alice.user_id).await["master_keys"][&alice.user_id]["keys"].clone();
        assert!(shown.get(master(&first)).is_some(), "{shown}");
        let mut wrong = new.clone();
        wrong["user_signing_key"] = first.keys(&alice.user_id)["user_signing_key"].clone();
        alice.vouch(wrong).await.refused(400, "M_INVALID_SIGNATURE");

        new["auth"] = alice.password();
        new["auth"]["session"] = asked.body["session"].clone();
        alice.vouch(new).await.ok();
        let shown = alice.query(&alice.user_id).await["master_keys"][&alice.user_id]["keys"].clone();
        assert!(shown.get(master(&second)).is_some(), "{shown}");
        alice.vouch(second.keys(&alice.user_id)).await.ok();
    }

    async fn what_is_begun_on_one_device_is_not_confirmed_on_another(world) {
        let alice = world.user("alice").await;
        let other = world.login(&alice).await;
        alice.vouch(CrossSigning::new().keys(&alice.user_id)).await.ok();
        let mut new = CrossSigning::new().keys(&alice.user_id);
        let asked = alice.vouch(new.clone()).await;
        assert_eq!(asked.status, 401, "{}", asked.body);
        new["auth"] = alice.password();
        new["auth"]["session"] = asked.body["session"].clone();
        other.vouch(new.clone()).await.refused(403, "M_FORBIDDEN");
        alice.vouch(new).await.ok();
    }

    async fn two_people_verify_each_other(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let (id, device) = alice.encrypt(0).await;
        let (of_alice, of_bob) = (CrossSigning::new(), CrossSigning::new());
        alice.vouch(of_alice.keys(&alice.user_id)).await.ok();
        bob.vouch(of_bob.keys(&bob.user_id)).await.ok();
        let (a, b) = (&alice.user_id, &bob.user_id);
        let (alices, bobs) = (of_alice.keys(a)["master_key"].clone(), of_bob.keys(b)["master_key"].clone());
        let failures = alice.sign(json!({
            a: {
                &id: of_alice.self_signing.sign(a, &device.device_keys(a)),
                of_alice.master.public_key(): device.sign(a, &alices),
            },
            b: { of_bob.master.public_key(): of_alice.user_signing.sign(a, &bobs) },
        }))
        .await;
        assert_eq!(failures, json!({}));
        let failures = bob.sign(json!({
            b: { of_bob.master.public_key(): of_bob.self_signing.sign(b, &bobs) },
            a: { of_alice.master.public_key(): of_bob.user_signing.sign(b, &bobs) },
        }))
        .await;
        assert_eq!(failures[b][of_bob.master.public_key()]["errcode"], "M_INVALID_SIGNATURE", "{failures}");
        assert_eq!(failures[a].as_object().unwrap().len(), 1, "{failures}");

        let to_alice = alice.query(b).await;
        let of_user_signing = format!("ed25519:{}", of_alice.user_signing.public_key());
        assert!(to_alice["master_keys"][b]["signatures"][a][&of_user_signing].is_string(), "{to_alice}");
        assert_eq!(to_alice["user_signing_keys"], json!({}));
        let to_bob = bob.query(b).await;
        assert!(to_bob["master_keys"][b].get("signatures").is_none(), "who has verified them is nobody's business");
        assert!(to_bob["user_signing_keys"][b].is_object(), "{to_bob}");
        let to_bob = bob.query(a).await;
        let of_self_signing = format!("ed25519:{}", of_alice.self_signing.public_key());
        assert!(to_bob["device_keys"][a][&id]["signatures"][a][&of_self_signing].is_string(), "{to_bob}");
        assert!(to_bob["master_keys"][a]["signatures"][a][format!("ed25519:{id}")].is_string(), "{to_bob}");
        alice.post("/_matrix/client/v3/logout", json!({})).await.ok();
        let to_bob = bob.query(a).await;
        assert!(to_bob["master_keys"][a].get("signatures").is_none(), "the device is gone, and its word with it");
    }

    async fn whoever_ends_a_device_ends_its_keys(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let other = world.login(&alice).await;
        let (kept, _) = alice.encrypt(1).await;
        other.encrypt(1).await;
        let devices = async || {
            let shown = bob.query(&alice.user_id).await["device_keys"][&alice.user_id].clone();
            shown.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(devices().await.len(), 2);
        let body = json!({ "new_password": "another one", "logout_devices": true, "auth": alice.password() });
        alice.post("/_matrix/client/v3/account/password", body).await.ok();
        assert_eq!(devices().await, [kept]);
        world.administration().await.end_sessions("alice", None).await.unwrap();
        assert!(devices().await.is_empty());
    }
}

/// Trap: one-time keys used twice. Three nodes at once, each asked by somebody of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_hand_out_each_key_once() {
    let Some(world) = World::on(Engine::Cluster, |_| ()).await else {
        eprintln!("skipped: ./test starts a PostgreSQL and a Redis for this");
        return;
    };
    let alice = world.user("alice").await;
    let (id, _) = alice.encrypt(60).await;
    let mut claimers = Vec::new();
    for (index, name) in ["bob", "carol", "dave"].into_iter().enumerate() {
        claimers.push(world.user(name).await.at_node(&world, index));
    }
    let claims = (0..75).map(|n| claimers[n % 3].claim(&alice.user_id, &id, "signed_curve25519"));
    let claimed: Vec<String> = join_all(claims).await.into_iter().flatten().map(|(key_id, _)| key_id).collect();
    assert_eq!((claimed.len(), claimed.iter().collect::<BTreeSet<_>>().len()), (60, 60));
}
