//! Messages from device to device against a naive model: random senders, syncs whose answers are lost, requests that are
//! made again on whichever node, devices that end and come back by their old names.
//!
//! The model is a list for each device of what was acknowledged and not confirmed. Whatever a sync says is the beginning of
//! that list, each message once and in order.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use hearth::ground::random::Random;
use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, Reply, World, next},
};

const CLIENT: &str = "/_matrix/client/v3";
const STEPS: usize = 60;
const SEEDS: u64 = 2;
const DEVICES: [&str; 3] = ["PHONE", "LAPTOP", "TABLET"];
/// How many messages a device gets at once.
const PAGE: usize = 100;

on_both! {
    /// Trap: to-device lost or out of order.
    async fn each_message_comes_once_in_order_on_whichever_node(world) {
        for seed in 0..SEEDS {
            Play::begin(&world, seed).await.run().await;
        }
    }
}

/// One random history.
struct Play<'a> {
    world: &'a World,
    dice: Random,
    seed: u64,
    senders: Vec<Client>,
    devices: Vec<ModelDevice>,
    /// For each number, the first of those that were sent at the same moment.
    sent_with: Vec<usize>,
    made: Vec<Request>,
}

/// A request to send.
struct Request {
    sender: usize,
    path: String,
    messages: Value,
}

/// A device of the reader, as it should be.
struct ModelDevice {
    client: Client,
    since: Option<String>,
    /// The token before it.
    older: Option<String>,
    /// Not confirmed, oldest first. Those that were sent at once may come in any order among themselves.
    waiting: Vec<usize>,
    /// How many of these came with the token.
    got: usize,
}

/// By which token a device syncs, and whether the answer arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Next,
    /// As a client that the answer does not reach.
    Lost,
    /// As a client that has lost what it stored last.
    Older,
    /// As a client that has lost all that it stored.
    Anew,
}

impl<'a> Play<'a> {
    async fn begin(world: &'a World, seed: u64) -> Self {
        let senders = vec![world.user(&format!("sender0s{seed}")).await, world.user(&format!("sender1s{seed}")).await];
        let reader = world.user(&format!("reader{seed}")).await;
        let mut devices = Vec::new();
        for name in DEVICES {
            devices.push(ModelDevice::login(world, &reader, name).await);
        }
        let dice = Random::seeded(seed);
        Self { world, dice, seed, senders, devices, sent_with: Vec::new(), made: Vec::new() }
    }

    /// A number below `sides`.
    fn roll(&self, sides: usize) -> usize {
        u32::from_le_bytes(self.dice.bytes::<4>()) as usize % sides
    }

    async fn run(mut self) {
        for _ in 0..STEPS {
            let device = self.roll(DEVICES.len());
            match self.roll(12) {
                0..=2 => self.send().await,
                3 | 4 => self.send_at_once().await,
                5 => self.repeat().await,
                6..=8 => drop(self.sync(device, How::Next).await),
                9 => drop(self.sync(device, How::Lost).await),
                10 => {
                    let how = if self.roll(2) == 0 { How::Older } else { How::Anew };
                    self.sync(device, how).await;
                }
                _ => {
                    let ended = &self.devices[device].client;
                    ended.post(&format!("{CLIENT}/logout"), json!({})).await.ok();
                    self.devices[device] = ModelDevice::login(self.world, ended, DEVICES[device]).await;
                }
            }
        }
        for device in 0..DEVICES.len() {
            while !self.sync(device, How::Next).await.is_empty() {}
            assert_eq!(self.devices[device].waiting, [0_usize; 0], "seed {} {}", self.seed, DEVICES[device]);
        }
    }

    /// One request, made up to three times at the same moment.
    async fn send(&mut self) {
        let request = self.draw(self.sent_with.len());
        let times = 1 + self.roll(3);
        for reply in join_all((0..times).map(|_| self.put(&request, &request.messages))).await {
            reply.ok();
        }
        self.made.push(request);
    }

    /// Many requests at the same moment.
    async fn send_at_once(&mut self) {
        let moment = self.sent_with.len();
        let count = 1 + self.roll(50);
        let requests: Vec<Request> = (0..count).map(|_| self.draw(moment)).collect();
        for reply in join_all(requests.iter().map(|request| self.put(request, &request.messages))).await {
            reply.ok();
        }
        self.made.extend(requests);
    }

    /// A request of before, with something else in it.
    async fn repeat(&self) {
        if !self.made.is_empty() {
            let request = &self.made[self.roll(self.made.len())];
            self.put(request, &json!({ "*": { "n": 1_000_000 } })).await.ok();
        }
    }

    async fn put(&self, request: &Request, messages: &Value) -> Reply {
        let reader = self.devices[0].client.user_id.as_str();
        self.senders[request.sender].put(&request.path, json!({ "messages": { reader: messages } })).await
    }

    /// A new request: to one device, to all, or to all with a message of its own for one.
    fn draw(&mut self, moment: usize) -> Request {
        let number = self.sent_with.len();
        self.sent_with.extend([moment, moment]);
        let (kind, chosen) = (self.roll(3), self.roll(DEVICES.len()));
        let (all, own) = (json!({ "n": number }), json!({ "n": number + 1 }));
        let name = DEVICES[chosen];
        let messages = match kind {
            0 => json!({ name: own }),
            1 => json!({ "*": all }),
            _ => json!({ "*": all, name: own }),
        };
        for (index, device) in self.devices.iter_mut().enumerate() {
            match kind {
                0 | 2 if index == chosen => device.waiting.push(number + 1),
                0 => {}
                _ => device.waiting.push(number),
            }
        }
        let path = format!("{CLIENT}/sendToDevice/org.example.test/{}-{number}", self.seed);
        Request { sender: self.roll(self.senders.len()), path, messages }
    }

    /// Returns what the device was told, which is what the model says that waits.
    async fn sync(&mut self, index: usize, how: How) -> Vec<usize> {
        let device = &mut self.devices[index];
        let since = match how {
            How::Next | How::Lost => device.since.clone(),
            How::Older => device.older.clone(),
            How::Anew => None,
        };
        if matches!(how, How::Next | How::Lost) {
            // What came with the token is confirmed by it.
            drop(device.waiting.drain(..std::mem::take(&mut device.got)));
        }
        let sync = device.client.sync(since.as_deref()).await;
        let events = sync["to_device"]["events"].as_array().cloned().unwrap_or_default();
        let number = |event: &Value| usize::try_from(event["content"]["n"].as_u64().unwrap()).unwrap();
        let told: Vec<usize> = events.iter().map(number).collect();
        let context = format!("seed {} {} {how:?}: {told:?} of {:?}", self.seed, DEVICES[index], device.waiting);
        let moment = |number: &usize| self.sent_with.get(*number).copied();
        let expected: Vec<_> = device.waiting.iter().take(PAGE).map(moment).collect();
        assert_eq!(told.iter().map(moment).collect::<Vec<_>>(), expected, "{context}");
        assert!(told.iter().all(|number| device.waiting.contains(number)), "{context}");
        assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), told.len(), "{context}");
        assert!(
            told.starts_with(&device.waiting[..device.got.min(told.len())]),
            "in another order than before: {context}"
        );
        // From then on the order has to stay what it was told to be.
        let later = device.waiting.iter().filter(|number| !told.contains(number));
        device.waiting = told.iter().chain(later).copied().collect();
        if how == How::Next {
            (device.older, device.since, device.got) = (device.since.take(), Some(next(&sync)), told.len());
        }
        told
    }
}

impl ModelDevice {
    /// Somebody logs in on a device that is not there.
    async fn login(world: &World, user: &Client, name: &str) -> Self {
        let mut body = user.password();
        body["device_id"] = json!(name);
        let client = world.client(&world.call("POST", &format!("{CLIENT}/login"), None, Some(body)).await.ok());
        Self { client, since: None, older: None, waiting: Vec::new(), got: 0 }
    }
}
