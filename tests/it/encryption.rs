//! Conversations that are encrypted by what clients encrypt with: every message decrypts for whom it should, and for
//! nobody else.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption>

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use futures_util::future::join_all;
use serde_json::{Value, json};

use self::device::{Device, Identity};
use crate::{
    on_both,
    world::{Client, World, escape},
};

mod device;
mod walk;

/// How often a device and a member come and go.
const ROUNDS: usize = 3;
/// How many one-time keys are claimed at once, and how many claims come too late for one.
const KEYS: usize = 40;
const TOO_MANY: usize = 10;

/// The kind of an Olm message by which a session begins, and of one in a session that the other side has answered in.
const PRE_KEY: i64 = 0;
const NORMAL: i64 = 1;

/// Sends a greeting and has it received. Returns the kind of message that it was.
async fn greet(sender: &mut Device, recipient: &mut Device, number: usize) -> i64 {
    let devices = sender.devices_of(&BTreeSet::from([recipient.identity.user_id.clone()])).await;
    assert_eq!(devices, BTreeSet::from([recipient.identity.clone()]));
    sender.send(&devices, "org.example.greeting", &json!({ "number": number })).await;
    let sync = recipient.sync(0).await;
    assert_eq!(recipient.received.last(), Some(&json!({ "number": number })), "{sync}");
    let events = sync["to_device"]["events"].as_array().unwrap();
    assert_eq!(events.len(), 1, "{sync}");
    assert_eq!(events[0]["sender"], sender.identity.user_id);
    events[0]["content"]["ciphertext"][&recipient.identity.curve25519]["type"].as_i64().unwrap()
}

/// A moment in a history in which several things happen at once. Of two moments, the later has the larger number.
fn moment(clock: &AtomicU64) -> u64 {
    clock.fetch_add(1, Ordering::SeqCst)
}

/// Something that was said in a room.
struct Said {
    text: String,
    /// What the encrypted event holds.
    content: Value,
    /// Before its sender looked who is in the room.
    began: u64,
    /// After the server had acknowledged it.
    sent: u64,
}

/// A time in which a device is to hear what is said.
#[derive(Clone, Copy)]
struct Period {
    /// Before and after it had its place in the room.
    begins: (u64, u64),
    /// Before it synced for the last time, and after it had lost its place.
    ends: Option<(u64, u64)>,
}

impl Period {
    /// Whether all of it happened while the device had its place.
    fn covers(&self, said: &Said) -> bool {
        self.begins.1 < said.began && self.ends.is_none_or(|(stops, _)| said.sent < stops)
    }

    /// Whether some of it may have.
    fn touches(&self, said: &Said) -> bool {
        self.begins.0 < said.sent && self.ends.is_none_or(|(_, gone)| said.began < gone)
    }
}

/// Checks that a device has decrypted what it should, and can't decrypt anything else even if somebody hands it over.
fn check(device: &mut Device, periods: &[Period], all: &[Said]) {
    for said in all {
        let (must, may) = (periods.iter().any(|p| p.covers(said)), periods.iter().any(|p| p.touches(said)));
        let name = format!("{:?}: {:?}", device.identity, said.text);
        assert!(!must || device.has_heard(&said.text), "{name} could not be decrypted when it came");
        let read = device.read(&said.content);
        assert!(may || read.is_none(), "{name} is none of its business");
        assert!(read.is_none_or(|text| text == said.text), "{name} was another text");
    }
}

/// Says one thing after the other until it is over, and then a last one.
async fn talk(device: &mut Device, room: &str, clock: &AtomicU64, is_over: &AtomicBool) -> Vec<Said> {
    let mut all = Vec::new();
    loop {
        let is_last = is_over.load(Ordering::SeqCst);
        let text = format!("{} says {}", device.identity.user_id, all.len());
        let began = moment(clock);
        let content = device.say(room, &text).await;
        all.push(Said { text, content, began, sent: moment(clock) });
        if is_last {
            return all;
        }
    }
}

/// A member comes and goes, and a device of somebody who stays, while others talk. Returns when the member was there, and
/// the devices.
async fn come_and_go(
    world: &World,
    host: &Client,
    guest: &mut Device,
    room: &str,
    clock: &AtomicU64,
) -> (Vec<Period>, Vec<(Device, Period)>) {
    let (mut visits, mut tablets) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let before = moment(clock);
        let mut tablet = Device::new(world.login(host).await, 10).await;
        let tablet_begins = (before, moment(clock));
        let before = moment(clock);
        guest.client.join(room).await.ok();
        let visit_begins = (before, moment(clock));
        tablet.hear(2).await;
        guest.hear(2).await;

        let stops = moment(clock);
        guest.sync(0).await;
        guest.client.leave(room).await.ok();
        visits.push(Period { begins: visit_begins, ends: Some((stops, moment(clock))) });
        let stops = moment(clock);
        tablet.sync(0).await;
        if round % 2 == 0 {
            tablet.client.post("/_matrix/client/v3/logout", json!({})).await.ok();
        } else {
            let body = json!({ "auth": host.password() });
            let path = format!("/_matrix/client/v3/devices/{}", escape(&tablet.identity.device_id));
            world.call("DELETE", &path, Some(&host.token), Some(body)).await.ok();
        }
        tablets.push((tablet, Period { begins: tablet_begins, ends: Some((stops, moment(clock))) }));
    }
    (visits, tablets)
}

on_both! {
    async fn two_devices_write_to_each_other(world) {
        let mut alice = Device::new(world.user("alice").await, 10).await;
        let mut bob = Device::new(world.user("bob").await, 10).await;
        assert_eq!(greet(&mut alice, &mut bob, 1).await, PRE_KEY);
        assert_eq!(bob.sync(0).await["device_one_time_keys_count"]["signed_curve25519"], 9);
        // Whoever was not answered yet says once more how the session began.
        assert_eq!(greet(&mut alice, &mut bob, 2).await, PRE_KEY);
        assert_eq!(greet(&mut bob, &mut alice, 3).await, NORMAL);
        assert_eq!(greet(&mut alice, &mut bob, 4).await, NORMAL);
        let world = world.restarted().await;
        alice.move_to(&world);
        bob.move_to(&world);
        for number in 5..9 {
            assert_eq!(greet(&mut alice, &mut bob, number).await, NORMAL);
            assert_eq!(greet(&mut bob, &mut alice, number).await, NORMAL);
        }
        let counts = bob.sync(0).await["device_one_time_keys_count"].clone();
        assert_eq!(counts, json!({ "signed_curve25519": 9 }), "one session is enough");
    }

    async fn each_message_decrypts_for_whom_it_should_while_members_and_devices_come_and_go(world) {
        let mut alice = Device::new(world.user("alice").await, 10).await;
        let mut bob = Device::new(world.user("bob").await, 10).await;
        let mut carol = Device::new(world.user("carol").await, 10).await;
        let mut dave = Device::new(world.user("dave").await, 10).await;
        let encryption = json!({ "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } });
        let options = json!({ "preset": "public_chat", "initial_state": [encryption] });
        let room = alice.client.create_room(options.clone()).await;
        bob.client.join(&room).await.ok();
        // He shares another room with all of them.
        let other = dave.client.create_room(options).await;
        for device in [&alice, &bob, &carol] {
            device.client.join(&other).await.ok();
        }
        for device in [&mut carol, &mut dave] {
            device.sync(0).await;
        }

        let (clock, is_over) = (AtomicU64::new(1), AtomicBool::new(false));
        let host = bob.client.clone();
        let (of_alice, of_bob, (visits, tablets)) = tokio::join!(
            Box::pin(talk(&mut alice, &room, &clock, &is_over)),
            Box::pin(talk(&mut bob, &room, &clock, &is_over)),
            async {
                let gone = Box::pin(come_and_go(&world, &host, &mut carol, &room, &clock)).await;
                is_over.store(true, Ordering::SeqCst);
                gone
            },
        );
        let all: Vec<Said> = of_alice.into_iter().chain(of_bob).collect();
        let always = Period { begins: (0, 0), ends: None };
        for device in [&mut alice, &mut bob] {
            device.sync(0).await;
            check(device, &[always], &all);
        }
        carol.sync(0).await;
        check(&mut carol, &visits, &all);
        for (mut tablet, period) in tablets {
            check(&mut tablet, &[period], &all);
        }
        let sync = dave.sync(0).await;
        check(&mut dave, &[], &all);
        assert!(sync.get("to_device").is_none(), "{sync}");
    }

    /// <https://spec.matrix.org/v1.19/client-server-api/#sharing-keys-between-devices>
    async fn a_new_device_asks_for_a_secret_and_it_alone_is_answered(world) {
        let phone = world.user("alice").await;
        let (tablet, watch) = (world.login(&phone).await, world.login(&phone).await);
        let mut phone = Device::new(phone, 10).await;
        let mut tablet = Device::new(tablet, 10).await;
        let mut watch = Device::new(watch, 10).await;
        let ask = json!({
            "action": "request", "name": "m.megolm_backup.v1", "request_id": "1",
            "requesting_device_id": tablet.identity.device_id,
        });
        tablet.ask_for_secret(&ask).await;
        phone.sync(0).await;
        assert_eq!(phone.received, [ask.clone()]);
        let own = phone.devices_of(&BTreeSet::from([phone.identity.user_id.clone()])).await;
        assert_eq!(own, BTreeSet::from([tablet.identity.clone(), watch.identity.clone()]));
        let secret = json!({ "request_id": "1", "secret": "of all of them" });
        phone.send(&BTreeSet::from([tablet.identity.clone()]), "m.secret.send", &secret).await;
        let cancel = json!({
            "action": "request_cancellation", "request_id": "1", "requesting_device_id": tablet.identity.device_id,
        });
        tablet.ask_for_secret(&cancel).await;
        tablet.sync(0).await;
        assert_eq!(tablet.received, [ask.clone(), secret, cancel.clone()]);
        watch.sync(0).await;
        assert_eq!(watch.received, [ask, cancel]);
    }

    /// Whoever invites hands over the keys to what was said before. Clients put them into a file, which the message names;
    /// here the message holds them.
    ///
    /// <https://github.com/matrix-org/matrix-spec-proposals/pull/4268>
    async fn who_is_invited_reads_what_was_said_before(world) {
        let mut alice = Device::new(world.user("alice").await, 10).await;
        let mut carol = Device::new(world.user("carol").await, 10).await;
        let encryption = json!({ "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } });
        let options = json!({ "preset": "private_chat", "initial_state": [encryption] });
        let room = alice.client.create_room(options).await;
        for text in ["first", "second"] {
            alice.say(&room, text).await;
        }
        // They share no room yet.
        let devices = alice.devices_of(&BTreeSet::from([carol.identity.user_id.clone()])).await;
        assert_eq!(devices, BTreeSet::from([carol.identity.clone()]));
        let bundle = json!({ "room_id": room, "room_keys": alice.export_keys() });
        alice.send(&devices, "io.element.msc4268.room_key_bundle", &bundle).await;
        alice.client.invite(&room, &carol.identity.user_id).await.ok();

        let sync = carol.sync(0).await;
        assert!(sync["rooms"]["invite"].get(&room).is_some(), "{sync}");
        assert_eq!(carol.received, [bundle.clone()]);
        carol.import_keys(&bundle["room_keys"]);
        carol.client.join(&room).await.ok();
        alice.say(&room, "third").await;
        carol.sync(0).await;
        assert!(["first", "second", "third"].iter().all(|text| carol.has_heard(text)));
    }

    /// Trap: one-time keys used twice. A session begins with a key that its owner then forgets.
    async fn each_key_begins_one_session(world) {
        let mut bob = Device::new(world.user("bob").await, KEYS).await;
        let mut claimers = Vec::new();
        for (n, name) in ["alice", "carol", "dave"].into_iter().enumerate() {
            let client = world.user(name).await.at_node(&world, n % world.nodes.len());
            claimers.push(Device::new(client, 0).await);
        }
        let Identity { user_id, device_id, .. } = bob.identity.clone();
        let claim = |n: usize| claimers[n % 3].client.claim(&user_id, &device_id, "signed_curve25519");
        let claims = (0..KEYS + TOO_MANY).map(claim);
        let claimed: Vec<Value> = join_all(claims).await.into_iter().map(|claimed| claimed.unwrap().1).collect();
        let (fallback, one_time): (Vec<&Value>, Vec<&Value>) = claimed.iter().partition(|key| key["fallback"] == true);
        let distinct: BTreeSet<&str> = one_time.iter().map(|key| key["key"].as_str().unwrap()).collect();
        assert_eq!((one_time.len(), distinct.len(), fallback.len()), (KEYS, KEYS, TOO_MANY));
        assert!(fallback.iter().all(|key| *key == fallback[0]));

        let to = BTreeSet::from([bob.identity.clone()]);
        for (n, key) in claimed.iter().enumerate() {
            let claimer = &mut claimers[n % 3];
            claimer.begin(&bob.identity, key);
            claimer.send(&to, "org.example.greeting", &json!({ "number": n })).await;
        }
        let sync = bob.sync(0).await;
        assert_eq!(sync["device_unused_fallback_key_types"], json!([]));
        let numbers: Vec<u64> = bob.received.iter().map(|content| content["number"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (0..claimed.len() as u64).collect::<Vec<_>>());
    }
}
