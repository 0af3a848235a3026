//! Who must know which list of devices, against a model: random histories in which people come and go, devices are added,
//! named and removed, rooms become encrypted, and nodes restart, while clients sync.
//!
//! In each round several things happen at once, on whichever nodes, and some clients sync meanwhile. When all is quiet,
//! other clients sync. A client keeps of others what it was shown when it was last told to ask, and forgets whom it is
//! told to forget: then it has to hold the devices of all with whom it shares a room, as they are, and of nobody else.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user>

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use hearth::ground::random::Random;
use serde_json::{Map, Value, json};

use crate::{
    on_both,
    world::{Client, World, at, escape, next},
};

const SEEDS: u64 = 3;
const ROUNDS: usize = 20;
const USERS: usize = 4;
const ROOMS: usize = 3;

on_both! {
    /// Trap: device lists miss an update.
    async fn everybody_holds_the_devices_of_those_they_share_a_room_with(world) {
        let mut world = world;
        for seed in 0..SEEDS {
            let play = Play::begin(&world, seed).await;
            world = Box::pin(play.run(world)).await;
        }
    }
}

/// How things stand when nothing is under way.
#[derive(Clone, Default)]
struct Moment {
    joined: [BTreeSet<usize>; ROOMS],
    encrypted: [bool; ROOMS],
    /// How often the devices of each user have changed.
    changes: [usize; USERS],
}

impl Moment {
    fn share_in(&self, room: usize, one: usize, other: usize) -> bool {
        self.joined[room].contains(&one) && self.joined[room].contains(&other)
    }

    fn share(&self, one: usize, other: usize) -> bool {
        (0..ROOMS).any(|room| self.share_in(room, one, other))
    }
}

/// What somebody does.
#[derive(Clone, Copy, Debug)]
enum Act {
    Join(usize),
    Leave(usize),
    AddDevice,
    RemoveDevice,
    NameDevice(usize),
    Encrypt(usize),
}

/// Somebody with a device that follows the others, and with devices that come and go.
struct ModelUser {
    client: Client,
    device_id: String,
    others: Vec<Client>,
    since: String,
    /// How things stood at `since`, where nothing was under way then.
    then: Option<Moment>,
    /// The devices of users as they were shown.
    known: BTreeMap<String, Value>,
}

impl ModelUser {
    async fn new(client: Client) -> Self {
        let (device_id, _) = client.encrypt(0).await;
        let since = next(&client.sync(None).await);
        let mut user = Self { client, device_id, others: Vec::new(), since, then: None, known: BTreeMap::new() };
        user.ask(BTreeSet::from([user.client.user_id.clone()])).await;
        user
    }

    /// The devices of some users, as they are.
    async fn look_up(&self, users: &BTreeSet<String>) -> BTreeMap<String, Value> {
        let asked: Map<String, Value> = users.iter().map(|user_id| (user_id.clone(), json!([]))).collect();
        let shown = self.client.post("/_matrix/client/v3/keys/query", json!({ "device_keys": asked })).await.ok();
        users.iter().map(|user_id| (user_id.clone(), shown["device_keys"][user_id].clone())).collect()
    }

    async fn ask(&mut self, users: BTreeSet<String>) {
        if !users.is_empty() {
            let devices = self.look_up(&users).await;
            self.known.extend(devices);
        }
    }

    /// Syncs and does as it is told. Returns whose devices have changed and who has left.
    async fn sync(&mut self) -> [BTreeSet<String>; 2] {
        let sync = self.client.sync(Some(&self.since)).await;
        self.since = next(&sync);
        let [changed, left] = ["changed", "left"].map(|list| {
            let users = sync["device_lists"][list].as_array().into_iter().flatten();
            users.map(|user_id| user_id.as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
        });
        self.known.retain(|user_id, _| !left.contains(user_id));
        self.ask(changed.clone()).await;
        [changed, left]
    }

    async fn act(&mut self, act: Act, rooms: &[String], world: &World) {
        match act {
            Act::Join(room) => drop(self.client.join(&rooms[room]).await.ok()),
            Act::Leave(room) => drop(self.client.leave(&rooms[room]).await.ok()),
            Act::AddDevice => {
                let other = world.login(&self.client).await;
                other.encrypt(0).await;
                self.others.push(other);
            }
            Act::RemoveDevice => {
                let other = self.others.pop().unwrap();
                other.post("/_matrix/client/v3/logout", json!({})).await.ok();
            }
            Act::NameDevice(number) => {
                let path = format!("/_matrix/client/v3/devices/{}", escape(&self.device_id));
                self.client.put(&path, json!({ "display_name": number.to_string() })).await.ok();
            }
            Act::Encrypt(room) => {
                let content = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
                self.client.put(&at(&rooms[room], "/state/m.room.encryption/"), content).await.ok();
            }
        }
    }

    /// A part in a round: a sync, an act and a sync, each or none.
    async fn take_part(&mut self, part: (bool, Option<Act>, bool), rooms: &[String], world: &World) {
        let (before, act, after) = part;
        if before {
            self.sync().await;
        }
        if let Some(act) = act {
            self.act(act, rooms, world).await;
        }
        if after {
            self.sync().await;
        }
        if before || after {
            self.then = None;
        }
    }
}

/// One random history.
struct Play {
    dice: Random,
    seed: u64,
    users: Vec<ModelUser>,
    rooms: Vec<String>,
    now: Moment,
}

impl Play {
    async fn begin(world: &World, seed: u64) -> Self {
        let mut users = Vec::new();
        for n in 0..USERS {
            users.push(ModelUser::new(world.user(&format!("w{n}s{seed}")).await).await);
        }
        let mut now = Moment::default();
        let mut rooms = Vec::new();
        for room in 0..ROOMS {
            let encryption = json!({ "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } });
            now.encrypted[room] = room == 0;
            let initial_state = if room == 0 { json!([encryption]) } else { json!([]) };
            let options = json!({ "preset": "public_chat", "initial_state": initial_state });
            rooms.push(users[0].client.create_room(options).await);
            now.joined[room].insert(0);
        }
        Self { dice: Random::seeded(seed), seed, users, rooms, now }
    }

    /// A number below `sides`.
    fn roll(&self, sides: usize) -> usize {
        u32::from_le_bytes(self.dice.bytes::<4>()) as usize % sides
    }

    /// What a user does next, if anything. The first stays in all rooms.
    fn choose(&self, user: usize, round: usize) -> Option<Act> {
        let room = self.roll(ROOMS);
        Some(match self.roll(12) {
            0..=4 if user == 0 => return None,
            0..=4 if self.now.joined[room].contains(&user) => Act::Leave(room),
            0..=4 => Act::Join(room),
            5 => Act::AddDevice,
            6 if !self.users[user].others.is_empty() => Act::RemoveDevice,
            7 => Act::NameDevice(round),
            8 if user == 0 && !self.now.encrypted[room] => Act::Encrypt(room),
            _ => return None,
        })
    }

    fn note(&mut self, user: usize, act: Act) {
        match act {
            Act::Join(room) => drop(self.now.joined[room].insert(user)),
            Act::Leave(room) => drop(self.now.joined[room].remove(&user)),
            Act::Encrypt(room) => self.now.encrypted[room] = true,
            Act::AddDevice | Act::RemoveDevice | Act::NameDevice(_) => self.now.changes[user] += 1,
        }
    }

    async fn run(mut self, mut world: World) -> World {
        for round in 0..ROUNDS {
            if self.roll(6) == 0 {
                world = self.restart(world).await;
            }
            let parts: Vec<_> =
                (0..USERS).map(|user| (self.roll(4) == 0, self.choose(user, round), self.roll(4) == 0)).collect();
            let (rooms, in_world) = (&self.rooms, &world);
            let taking_part =
                self.users.iter_mut().zip(&parts).map(|(user, part)| user.take_part(*part, rooms, in_world));
            join_all(taking_part).await;
            for (user, (_, act, _)) in parts.iter().enumerate() {
                if let Some(act) = act {
                    self.note(user, *act);
                }
            }
            for user in 0..USERS {
                if self.roll(3) == 0 {
                    self.check(user, round).await;
                }
            }
        }
        for user in 0..USERS {
            self.check(user, ROUNDS).await;
        }
        world
    }

    /// One node of several gives its place to a new one, or all begin anew.
    async fn restart(&mut self, mut world: World) -> World {
        if world.nodes.len() > 1 && self.roll(2) == 0 {
            world.add_node(world.clock.clone()).await;
            world.remove_node(0).await;
            return world;
        }
        let world = world.restarted().await;
        for user in &mut self.users {
            user.client = user.client.clone().at(&world);
            for other in &mut user.others {
                *other = other.clone().at(&world);
            }
        }
        world
    }

    fn name(&self, user: usize) -> String {
        self.users[user].client.user_id.clone()
    }

    /// Straight from the rules.
    fn expected(&self, one: usize, then: &Moment) -> [BTreeSet<String>; 2] {
        let now = &self.now;
        let (mut changed, mut left) = (BTreeSet::new(), BTreeSet::new());
        for other in 0..USERS {
            let has_changed = now.changes[other] > then.changes[other];
            let is_new = (0..ROOMS).any(|room| {
                let is_encrypted_since = now.encrypted[room] && !then.encrypted[room];
                now.share_in(room, one, other) && (is_encrypted_since || !then.share_in(room, one, other))
            });
            if one == other {
                changed.extend(has_changed.then(|| self.name(other)));
            } else if now.share(one, other) && (has_changed || is_new) {
                changed.insert(self.name(other));
            } else if then.share(one, other) && !now.share(one, other) {
                left.insert(self.name(other));
            }
        }
        [changed, left]
    }

    /// A user's client syncs while nothing else happens.
    async fn check(&mut self, user: usize, round: usize) {
        let context = format!("seed {} round {round}: {}", self.seed, self.name(user));
        let told = self.users[user].sync().await;
        if let Some(then) = &self.users[user].then {
            assert_eq!(told, self.expected(user, then), "changed and left, {context}");
        }
        let sharing = (0..USERS).filter(|other| *other == user || self.now.share(user, *other));
        let devices: BTreeMap<String, usize> =
            sharing.map(|other| (self.name(other), 1 + self.users[other].others.len())).collect();
        let names: BTreeSet<String> = devices.keys().cloned().collect();
        let actual = self.users[user].look_up(&names).await;
        let counts = actual.iter().map(|(user_id, shown)| (user_id.clone(), shown.as_object().unwrap().len()));
        assert_eq!(counts.collect::<BTreeMap<_, _>>(), devices, "{context}");
        // A sync while others come and go may show somebody too early, who has then not left either.
        let user = &mut self.users[user];
        if user.then.is_none() {
            user.known.retain(|user_id, _| names.contains(user_id));
        }
        assert_eq!(user.known, actual, "{context} holds what is not so");
        user.then = Some(self.now.clone());
    }
}
