//! Each key once and in order, and no signature beside a key that it is not of, on both engines.

mod cache;
mod locks;
mod pages;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config as ProptestConfig, TestRunner},
};
use ruma::{
    DeviceId, OwnedDeviceId, OwnedUserId,
    api::client::keys::{upload_keys::v3::Request as Upload, upload_signing_keys::v3::Request as SigningKeys},
    serde::Raw,
};
use serde_json::{Value, json, value::to_raw_value};

use super::{testing::Pair, *};
use crate::{
    app::App,
    error::{Error, Result},
    people::account::{NewSession, User, tests::HERE},
    store::{
        device::{self, DeviceSelection},
        one_time_key::{self, KeyCounts},
    },
    testing::World,
};

/// Somebody who is logged in.
async fn person(world: &World, name: &str, device_id: &str) -> User {
    world.app.accounts.create_user(name, "correct horse", false).await.unwrap();
    log_in(world, name, device_id).await
}

async fn log_in(world: &World, name: &str, device_id: &str) -> User {
    let new = NewSession {
        device_id: Some(device_id.into()),
        display_name: Some("A device".to_owned()),
        refreshable: false,
        address: HERE,
    };
    let session = world.app.accounts.login_with_password(name, "correct horse", new).await.unwrap();
    world.app.accounts.caller(&session.access_token, HERE).await.unwrap().into_user().unwrap()
}

fn raw<T>(value: &Value) -> Raw<T> {
    Raw::from_json(to_raw_value(value).unwrap())
}

/// An upload of one-time keys, and of a fallback key if there is one.
fn keys_of(one_time: &[(String, Value)], fallback: Option<&(String, Value)>) -> Upload {
    let mut upload = Upload::new();
    for (id, key) in one_time {
        upload.one_time_keys.insert(id.as_str().try_into().unwrap(), raw(key));
    }
    if let Some((id, key)) = fallback {
        upload.fallback_keys.insert(id.as_str().try_into().unwrap(), raw(key));
    }
    upload
}

fn identity(pair: &Pair, user_id: &UserId) -> Upload {
    let mut upload = Upload::new();
    upload.device_keys = Some(raw(&pair.device_keys(user_id.as_str())));
    upload
}

/// Keys that nobody can verify, which are cheap to make.
fn plain(names: impl Iterator<Item = String>) -> Vec<(String, Value)> {
    names.map(|name| (format!("test:{name}"), json!(format!("key {name}")))).collect()
}

/// Claims one key of a device. Its identifier and the key.
async fn claim(app: &App, user_id: &UserId, device_id: &str, algorithm: &str) -> Option<(String, Value)> {
    let asked = BTreeMap::from([(user_id.to_owned(), BTreeMap::from([(device_id.into(), algorithm.into())]))]);
    let claimed = app.keys.claim(&asked).await.unwrap();
    let claimed: Value = serde_json::from_str(&serde_json::to_string(&claimed).unwrap()).unwrap();
    let keys = claimed["one_time_keys"][user_id.as_str()][device_id].as_object()?;
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys.iter().next().map(|(id, key)| (id.clone(), key.clone()))
}

async fn query(app: &App, reader: &UserId, user_id: &UserId) -> Value {
    query_all(app, reader, &BTreeMap::from([(user_id.to_owned(), Vec::new())])).await.0
}

/// The answer, and how large the parts were in which it came.
async fn query_all(
    app: &App,
    reader: &UserId,
    asked: &BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
) -> (Value, Vec<usize>) {
    let (mut query, mut text, mut sizes) = (app.keys.query(reader, asked), Vec::new(), Vec::new());
    loop {
        let (part, is_last) = query.part().await.unwrap();
        sizes.push(part.len());
        text.extend(part);
        if is_last {
            return (serde_json::from_slice(&text).unwrap(), sizes);
        }
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>) -> String {
    match result {
        Err(Error::Refused { kind, .. }) => kind.errcode().to_string(),
        other => panic!("was not refused: {other:?}"),
    }
}

fn device_id(text: &str) -> &DeviceId {
    text.into()
}

/// Trap: one-time keys used twice.
#[tokio::test]
async fn each_key_is_handed_out_once_and_then_the_fallback_key() {
    for world in World::on_each_engine().await {
        let alice = person(&world, "alice", "PHONE").await;
        let keys = plain((0..60).map(|n| n.to_string()));
        let fallback = ("test:fallback".to_owned(), json!("again and again"));
        world.app.keys.upload(&alice, &keys_of(&keys, Some(&fallback))).await.unwrap();
        let claims = (0..100).map(|_| claim(&world.app, &alice.user_id, "PHONE", "test"));
        let claimed: Vec<_> = join_all(claims).await.into_iter().flatten().collect();
        assert_eq!(claimed.len(), 100);
        let once: BTreeSet<&String> = claimed.iter().map(|(id, _)| id).filter(|id| *id != "test:fallback").collect();
        assert_eq!(once.len(), 60);
        assert_eq!(claimed.iter().filter(|(id, _)| id == "test:fallback").count(), 40);
        let counts =
            one_time_key::count(&mut world.app.db.read().await.unwrap(), &alice.user_id, device_id("PHONE")).await;
        let none =
            KeyCounts { one_time: BTreeMap::from([("signed_curve25519".to_owned(), 0)]), unused_fallback: Vec::new() };
        assert_eq!(counts.unwrap(), none);
        world.close().await;
    }
}

#[tokio::test]
async fn two_nodes_hand_out_no_key_twice() {
    let Some((world, other)) = World::two_nodes().await else { return };
    let alice = person(&world, "alice", "PHONE").await;
    let keys = plain((0..100).map(|n| n.to_string()));
    world.app.keys.upload(&alice, &keys_of(&keys, None)).await.unwrap();
    let claims = (0..100).map(|n| {
        let app = if n % 2 == 0 { &world.app } else { &other };
        claim(app, &alice.user_id, "PHONE", "test")
    });
    let claimed: BTreeSet<String> = join_all(claims).await.into_iter().flatten().map(|(id, _)| id).collect();
    assert_eq!(claimed.len(), 100);
    assert_eq!(claim(&other, &alice.user_id, "PHONE", "test").await, None);
    world.close_both(other).await;
}

/// What somebody does.
#[derive(Clone, Debug)]
enum Step {
    /// So many new keys.
    Upload(usize),
    /// All that were ever uploaded lately, as if the answer had been lost.
    UploadAgain,
    Claim,
}

/// A model: uploads in their order, of which the first that has any keys left gives one of them.
#[tokio::test]
async fn keys_are_handed_out_in_the_order_of_their_upload_whatever_is_repeated() {
    let step = prop_oneof![(1_usize..6).prop_map(Step::Upload), Just(Step::UploadAgain), Just(Step::Claim)];
    let steps = prop::collection::vec(step, 40..60);
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() });
    for world in World::on_each_engine().await {
        for round in 0..4 {
            let (name, phone) = (format!("alice{round}"), device_id("PHONE"));
            let alice = person(&world, &name, "PHONE").await;
            let steps = steps.new_tree(&mut runner).unwrap().current();
            let (mut model, mut last, mut next): (Vec<BTreeSet<String>>, Vec<_>, usize) = Default::default();
            for step in &steps {
                match step {
                    Step::Upload(count) => {
                        last = plain((next..next + count).map(|n| n.to_string()));
                        next += count;
                        world.app.keys.upload(&alice, &keys_of(&last, None)).await.unwrap();
                        model.push(last.iter().map(|(id, _)| id.clone()).collect());
                    }
                    Step::UploadAgain => {
                        world.app.keys.upload(&alice, &keys_of(&last, None)).await.map(drop).unwrap();
                    }
                    Step::Claim => {
                        model.retain(|keys| !keys.is_empty());
                        let claimed = claim(&world.app, &alice.user_id, "PHONE", "test").await.map(|(id, _)| id);
                        match model.first_mut() {
                            Some(first) => assert!(first.remove(&claimed.clone().unwrap()), "{claimed:?}: {steps:?}"),
                            None => assert_eq!(claimed, None, "{steps:?}"),
                        }
                    }
                }
                let left = model.iter().map(BTreeSet::len).sum::<usize>();
                let counts =
                    one_time_key::count(&mut world.app.db.read().await.unwrap(), &alice.user_id, phone).await.unwrap();
                assert_eq!(
                    counts.one_time.get("test").copied().unwrap_or(0),
                    i64::try_from(left).unwrap(),
                    "{steps:?}"
                );
            }
        }
        world.close().await;
    }
}

#[tokio::test]
async fn a_name_stands_for_one_key_and_there_are_not_too_many() {
    for world in World::on_each_engine().await {
        let alice = person(&world, "alice", "PHONE").await;
        let upload = async |keys: &[(String, Value)]| world.app.keys.upload(&alice, &keys_of(keys, None)).await;
        let of = |name: &str, key: &str| (format!("test:{name}"), json!(key));
        upload(&[of("a", "one"), of("b", "two")]).await.unwrap();
        assert_eq!(upload(&[of("a", "one")]).await.unwrap().one_time["test"], 2, "it is there already");
        assert_eq!(refused(upload(&[of("c", "three"), of("a", "other")]).await), "M_INVALID_PARAM");
        assert_eq!(upload(&[]).await.unwrap().one_time["test"], 2, "nothing of a refused upload is kept");
        let (id, _) = claim(&world.app, &alice.user_id, "PHONE", "test").await.unwrap();
        let again = if id == "test:a" { of("a", "one") } else { of("b", "two") };
        assert_eq!(upload(&[again]).await.unwrap().one_time["test"], 1, "it was handed out");

        let many = plain((0..499).map(|n| format!("n{n}")));
        assert_eq!(upload(&many).await.unwrap().one_time["test"], 500);
        assert_eq!(refused(upload(&[of("more", "x")]).await), "M_INVALID_PARAM");
        claim(&world.app, &alice.user_id, "PHONE", "test").await.unwrap();
        assert_eq!(upload(&[of("more", "x")]).await.unwrap().one_time["test"], 500);
        let odd: Vec<_> = (0..10).map(|n| (format!("other{n}:a"), json!("x"))).collect();
        assert_eq!(refused(upload(&odd).await), "M_INVALID_PARAM", "too many algorithms");
        world.close().await;
    }
}

#[tokio::test]
async fn a_device_with_other_identity_keys_begins_anew() {
    for world in World::on_each_engine().await {
        let alice = person(&world, "alice", "PHONE").await;
        let (old, new) = (Pair::new("PHONE"), Pair::new("PHONE"));
        let mut upload = identity(&old, &alice.user_id);
        let one_time = |pair: &Pair| raw(&pair.one_time_key(alice.user_id.as_str()));
        upload.one_time_keys.insert("signed_curve25519:A".try_into().unwrap(), one_time(&old));
        world.app.keys.upload(&alice, &upload).await.unwrap();
        // By the key of before, which the device still has.
        let mut foreign = Upload::new();
        foreign.one_time_keys.insert("signed_curve25519:B".try_into().unwrap(), one_time(&new));
        let foreign = world.app.keys.upload(&alice, &foreign).await;
        assert_eq!(refused(foreign), "M_INVALID_SIGNATURE");
        let counts = world.app.keys.upload(&alice, &identity(&old, &alice.user_id)).await.unwrap();
        assert_eq!(counts.one_time["signed_curve25519"], 1, "nothing has changed");
        let counts = world.app.keys.upload(&alice, &identity(&new, &alice.user_id)).await.unwrap();
        assert_eq!(counts.one_time["signed_curve25519"], 0, "another device has signed these");
        let shown = query(&world.app, &alice.user_id, &alice.user_id).await;
        let mut expected = new.device_keys(alice.user_id.as_str());
        expected["unsigned"] = json!({ "device_display_name": "A device" });
        assert_eq!(shown["device_keys"][alice.user_id.as_str()]["PHONE"], expected);
        world.close().await;
    }
}

/// Cross-signing keys of somebody.
struct Vouching {
    master: Pair,
    self_signing: Pair,
    user_signing: Pair,
}

impl Vouching {
    fn new() -> Self {
        let pair = Pair::cross_signing;
        Self { master: pair(), self_signing: pair(), user_signing: pair() }
    }

    fn keys(&self, user_id: &UserId) -> SigningKeys {
        let key = |pair: &Pair, usage, master| raw(&pair.cross_signing_key(user_id.as_str(), usage, master));
        let mut keys = SigningKeys::new();
        keys.master_key = Some(key(&self.master, "master", None));
        keys.self_signing_key = Some(key(&self.self_signing, "self_signing", Some(&self.master)));
        keys.user_signing_key = Some(key(&self.user_signing, "user_signing", Some(&self.master)));
        keys
    }
}

async fn vouch(app: &App, user: &User, keys: &SigningKeys, confirmation: Confirmation) -> Result<Outcome> {
    let new = NewCrossSigning::read(&user.user_id, keys)?;
    app.keys.upload_cross_signing(user, &new, confirmation).await
}

async fn sign(app: &App, signer: &User, signed: Value) -> Value {
    let signed = serde_json::from_value(signed).unwrap();
    serde_json::to_value(app.keys.upload_signatures(signer, &signed).await.unwrap()).unwrap()
}

#[tokio::test]
async fn only_the_first_cross_signing_keys_are_taken_without_a_confirmation() {
    for world in World::on_each_engine().await {
        let alice = person(&world, "alice", "PHONE").await;
        let (first, second) = (Vouching::new(), Vouching::new());
        let (app, missing) = (&world.app, Confirmation::Missing);
        let mut without_master = first.keys(&alice.user_id);
        without_master.master_key = None;
        assert_eq!(refused(vouch(app, &alice, &without_master, missing).await), "M_MISSING_PARAM");
        assert_eq!(refused(vouch(app, &alice, &SigningKeys::new(), missing).await), "M_MISSING_PARAM");
        assert_eq!(vouch(app, &alice, &first.keys(&alice.user_id), missing).await.unwrap(), Outcome::Done);
        assert_eq!(
            vouch(app, &alice, &first.keys(&alice.user_id), missing).await.unwrap(),
            Outcome::Done,
            "the same again"
        );
        assert_eq!(vouch(app, &alice, &second.keys(&alice.user_id), missing).await.unwrap(), Outcome::Unconfirmed);
        let shown = query(app, &alice.user_id, &alice.user_id).await;
        let master = serde_json::to_value(first.keys(&alice.user_id).master_key.unwrap()).unwrap();
        assert_eq!(shown["master_keys"][alice.user_id.as_str()], master);

        let mut mixed = first.keys(&alice.user_id);
        mixed.self_signing_key = second.keys(&alice.user_id).self_signing_key;
        assert_eq!(refused(vouch(app, &alice, &mixed, Confirmation::Given).await), "M_INVALID_SIGNATURE");
        // What only the master key vouches for goes with it.
        let mut alone = second.keys(&alice.user_id);
        (alone.self_signing_key, alone.user_signing_key) = (None, None);
        assert_eq!(vouch(app, &alice, &alone, Confirmation::Given).await.unwrap(), Outcome::Done);
        let shown = query(app, &alice.user_id, &alice.user_id).await;
        assert_eq!((&shown["self_signing_keys"], &shown["user_signing_keys"]), (&json!({}), &json!({})));
        world.close().await;
    }
}

#[tokio::test]
async fn cross_signing_keys_are_told_from_each_other_and_from_devices() {
    for world in World::on_each_engine().await {
        let alice = person(&world, "alice", "PHONE").await;
        let app = &world.app;
        let mut keys = Vouching::new();
        keys.user_signing = Pair::cross_signing();
        let twice = keys.self_signing.cross_signing_key(alice.user_id.as_str(), "user_signing", Some(&keys.master));
        let mut same = keys.keys(&alice.user_id);
        same.user_signing_key = Some(raw(&twice));
        assert_eq!(refused(vouch(app, &alice, &same, Confirmation::Missing).await), "M_INVALID_PARAM");
        log_in(&world, "alice", &keys.self_signing.public_key()).await;
        assert_eq!(refused(vouch(app, &alice, &keys.keys(&alice.user_id), Confirmation::Missing).await), "M_FORBIDDEN");
        let keys = Vouching::new();
        vouch(app, &alice, &keys.keys(&alice.user_id), Confirmation::Missing).await.unwrap();
        let new = NewSession {
            device_id: Some(keys.master.public_key().into()),
            display_name: None,
            refreshable: false,
            address: HERE,
        };
        assert!(app.accounts.login_with_password("alice", "correct horse", new).await.is_err());
        for odd in [
            json!({ "usage": ["self_signing"] }),
            json!({ "usage": [] }),
            json!({ "user_id": "@bob:localhost" }),
            json!({ "keys": {} }),
            json!({ "keys": { "ed25519:A": keys.master.public_key() } }),
            json!({ "keys": { "ed25519:AAAA": "AAAA" } }),
        ] {
            let mut key = keys.master.cross_signing_key(alice.user_id.as_str(), "master", None);
            key.as_object_mut().unwrap().extend(odd.as_object().unwrap().clone());
            let mut request = SigningKeys::new();
            request.master_key = Some(raw(&key));
            assert!(NewCrossSigning::read(&alice.user_id, &request).is_err(), "{odd}");
        }
        world.close().await;
    }
}

#[tokio::test]
async fn signatures_are_kept_between_those_who_vouch_for_each_other_and_shown_to_those_who_may_see_them() {
    for world in World::on_each_engine().await {
        let (alice, bob) = (person(&world, "alice", "PHONE").await, person(&world, "bob", "LAPTOP").await);
        let app = &world.app;
        let (phone, laptop) = (Pair::new("PHONE"), Pair::new("LAPTOP"));
        app.keys.upload(&alice, &identity(&phone, &alice.user_id)).await.unwrap();
        app.keys.upload(&bob, &identity(&laptop, &bob.user_id)).await.unwrap();
        let (of_alice, of_bob) = (Vouching::new(), Vouching::new());
        vouch(app, &alice, &of_alice.keys(&alice.user_id), Confirmation::Missing).await.unwrap();
        vouch(app, &bob, &of_bob.keys(&bob.user_id), Confirmation::Missing).await.unwrap();
        let (a, b) = (alice.user_id.as_str(), bob.user_id.as_str());
        let master_of = |keys: &Vouching, user_id: &str| keys.master.cross_signing_key(user_id, "master", None);
        let (alices, bobs) = (master_of(&of_alice, a), master_of(&of_bob, b));

        let failures = sign(
            app,
            &alice,
            json!({
                a: {
                    "PHONE": of_alice.self_signing.sign(a, &phone.device_keys(a)),
                    of_alice.master.public_key(): phone.sign(a, &alices),
                },
                b: {
                    of_bob.master.public_key(): of_alice.user_signing.sign(a, &bobs),
                    // Nobody vouches for somebody else's device.
                    "LAPTOP": of_alice.user_signing.sign(a, &laptop.device_keys(b)),
                },
                "@carol:elsewhere": { "TABLET": {} },
            }),
        )
        .await;
        assert_eq!(failures[b].as_object().unwrap().keys().collect::<Vec<_>>(), ["LAPTOP"], "{failures}");
        assert_eq!(failures["@carol:elsewhere"]["TABLET"]["errcode"], "M_NOT_FOUND");
        assert!(failures.get(a).is_none(), "{failures}");

        let wrong = sign(
            app,
            &alice,
            json!({
                a: {
                    "PHONE": of_alice.user_signing.sign(a, &phone.device_keys(a)),
                    of_alice.master.public_key(): of_alice.self_signing.sign(a, &alices),
                    of_alice.self_signing.public_key(): phone.sign(a, &alices),
                    "NONE": {},
                },
                b: { of_bob.master.public_key(): of_alice.user_signing.sign(a, &alices) },
            }),
        )
        .await;
        assert_eq!(wrong[a].as_object().unwrap().len(), 4, "{wrong}");
        assert_eq!(wrong[b].as_object().unwrap().len(), 1, "{wrong}");

        let signers = |shown: &Value| -> Vec<String> {
            let signatures = shown["signatures"].as_object().into_iter().flatten();
            signatures.flat_map(|(_, keys)| keys.as_object().unwrap().keys().cloned()).collect()
        };
        let ed25519 = |pair: &Pair| format!("ed25519:{}", pair.public_key());
        let (to_alice, to_bob) =
            (query(app, &alice.user_id, &bob.user_id).await, query(app, &bob.user_id, &bob.user_id).await);
        assert_eq!(signers(&to_alice["master_keys"][b]), [ed25519(&of_alice.user_signing)]);
        assert_eq!(signers(&to_bob["master_keys"][b]), [""; 0], "nobody learns who has verified them");
        assert_eq!((&to_alice["user_signing_keys"], to_bob["user_signing_keys"][b].is_object()), (&json!({}), true));
        let to_bob = query(app, &bob.user_id, &alice.user_id).await;
        assert_eq!(signers(&to_bob["master_keys"][a]), ["ed25519:PHONE"]);
        let mut expected = vec!["ed25519:PHONE".to_owned(), ed25519(&of_alice.self_signing)];
        expected.sort();
        assert_eq!(signers(&to_bob["device_keys"][a]["PHONE"]), expected);
        assert_eq!(signers(&to_bob["self_signing_keys"][a]), [ed25519(&of_alice.master)]);

        // With a key goes what it has signed.
        let again = Vouching { self_signing: Pair::cross_signing(), ..of_alice };
        vouch(app, &alice, &again.keys(&alice.user_id), Confirmation::Given).await.unwrap();
        let shown = query(app, &bob.user_id, &alice.user_id).await;
        assert_eq!(signers(&shown["device_keys"][a]["PHONE"]), ["ed25519:PHONE"]);
        assert_eq!(signers(&shown["master_keys"][a]), ["ed25519:PHONE"], "the master key has stayed");
        world.close().await;
    }
}

#[tokio::test]
async fn remote_users_are_failures_and_unknown_ones_are_left_out() {
    for world in World::on_each_engine().await {
        let alice = person(&world, "alice", "PHONE").await;
        let asked = ["@nobody:localhost", "@carol:elsewhere.example", "@dan:elsewhere.example", alice.user_id.as_str()];
        let asked = asked.map(|user_id| (OwnedUserId::try_from(user_id).unwrap(), Vec::new()));
        let (queried, _) = query_all(&world.app, &alice.user_id, &BTreeMap::from(asked)).await;
        assert_eq!(queried["device_keys"], json!({ alice.user_id.as_str(): {} }));
        assert_eq!(queried["failures"].as_object().unwrap().keys().collect::<Vec<_>>(), ["elsewhere.example"]);
        assert_eq!(claim(&world.app, &alice.user_id, "a\u{0}b", "test").await, None);
        assert_eq!(claim(&world.app, &alice.user_id, "PHONE", "a\u{0}b").await, None);
        world.close().await;
    }
}
