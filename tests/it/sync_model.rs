//! `/sync` against a naive model: random histories, clients that sync now and then with random filters, and
//! walk back from `prev_batch` where a timeline was limited.
//!
//! The model is a list of all events in the order in which they were acknowledged. Whoever is in a room at the
//! end must hold exactly those of them that its history visibility allows, each once and in order, and the state
//! that replaying them gives.

use std::collections::{BTreeMap, HashMap};

use hearth::ground::random::Random;
use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, World, escape, next},
};

mod state;

const STEPS: usize = 70;
const SEEDS: u64 = 4;

on_both! {
    /// Trap: gaps in limited timelines.
    async fn random_walks_see_every_event_once(world) {
        for seed in 0..SEEDS {
            Play::begin(&world, seed).await.run().await;
        }
    }
}

/// One random history.
struct Play {
    dice: Random,
    seed: u64,
    users: Vec<Client>,
    rooms: Vec<ModelRoom>,
    clients: Vec<ModelClient>,
}

/// What the model knows of a room.
struct ModelRoom {
    id: String,
    shared: bool,
    /// How many events came before the history visibility was set, that event included.
    under_default: usize,
    /// Every event, with who was joined when it was sent, itself included.
    events: Vec<(String, Vec<usize>)>,
    joined: Vec<usize>,
}

/// A client with its own place in the log.
struct ModelClient {
    user: usize,
    since: Option<String>,
    limit: usize,
    state_after: bool,
    timelines: HashMap<String, Vec<String>>,
    states: HashMap<String, BTreeMap<(String, String), String>>,
}

impl Play {
    async fn begin(world: &World, seed: u64) -> Self {
        let mut users = Vec::new();
        for n in 0..3 {
            users.push(world.user(&format!("u{n}s{seed}")).await);
        }
        let dice = Random::seeded(seed);
        let mut play = Self { dice, seed, users, rooms: Vec::new(), clients: Vec::new() };
        for shared in [true, false] {
            play.create_room(shared).await;
        }
        for n in 0..6 {
            let (limit, state_after) = (1 + play.roll(5), play.roll(2) == 0);
            play.clients.push(ModelClient {
                user: n % 3,
                since: None,
                limit,
                state_after,
                timelines: HashMap::new(),
                states: HashMap::new(),
            });
        }
        play
    }

    async fn create_room(&mut self, shared: bool) {
        let visibility = if shared { "shared" } else { "joined" };
        let visibility =
            json!({ "type": "m.room.history_visibility", "content": { "history_visibility": visibility } });
        let id = self.users[0].create_room(json!({ "preset": "public_chat", "initial_state": [visibility] })).await;
        let history = messages(&self.users[0], &id, "dir=f&limit=100").await.0;
        // Before its creator has joined and the visibility is set, the default holds: shared.
        let events = history.iter().map(|event| (event_id(event), vec![0])).collect();
        let set = history.iter().position(|event| event["type"] == "m.room.history_visibility").unwrap();
        self.rooms.push(ModelRoom { id, shared, under_default: set + 1, events, joined: vec![0] });
    }

    /// A number below `sides`.
    fn roll(&self, sides: usize) -> usize {
        u32::from_le_bytes(self.dice.bytes::<4>()) as usize % sides
    }

    async fn run(mut self) {
        for _ in 0..STEPS {
            match self.roll(10) {
                0 | 1 => self.change_membership().await,
                2 => self.change_name().await,
                3..=6 => self.say().await,
                _ => {
                    let client = self.roll(self.clients.len());
                    self.sync(client).await;
                }
            }
        }
        for client in 0..self.clients.len() {
            self.sync(client).await;
            self.check(client).await;
        }
    }

    async fn say(&mut self) {
        let room = self.roll(self.rooms.len());
        let sender = self.rooms[room].joined[self.roll(self.rooms[room].joined.len())];
        let id = self.users[sender].say(&self.rooms[room].id, "hello").await;
        self.happened(room, id);
    }

    async fn change_name(&mut self) {
        let room = self.roll(self.rooms.len());
        let name = format!("name {}", self.roll(1_000_000));
        let path = format!("/_matrix/client/v3/rooms/{}/state/m.room.name/", escape(&self.rooms[room].id));
        let reply = self.users[0].put(&path, json!({ "name": name })).await.ok();
        self.happened(room, reply["event_id"].as_str().unwrap().to_owned());
    }

    /// Users 1 and 2 come and go; the creator stays.
    async fn change_membership(&mut self) {
        let (room, user) = (self.roll(self.rooms.len()), 1 + self.roll(2));
        let id = self.rooms[room].id.clone();
        let was_joined = self.rooms[room].joined.contains(&user);
        if was_joined {
            self.users[user].leave(&id).await.ok();
        } else {
            self.users[user].join(&id).await.ok();
            self.rooms[room].joined.push(user);
        }
        let path = format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=1", escape(&id));
        let newest = self.users[0].get(&path).await.ok();
        self.happened(room, event_id(&newest["chunk"][0]));
        if was_joined {
            self.rooms[room].joined.retain(|joined| *joined != user);
        }
    }

    fn happened(&mut self, room: usize, event_id: String) {
        let joined = self.rooms[room].joined.clone();
        self.rooms[room].events.push((event_id, joined));
    }

    async fn sync(&mut self, client: usize) {
        let ModelClient { user, since, limit, state_after, .. } = &self.clients[client];
        let user = self.users[*user].clone();
        let filter = escape(&json!({ "room": { "timeline": { "limit": limit } } }).to_string());
        let after = since.as_ref().map(|since| format!("&since={since}")).unwrap_or_default();
        let path = format!("/_matrix/client/v3/sync?timeout=0&filter={filter}&use_state_after={state_after}{after}");
        let sync = user.get(&path).await.ok();
        let model = &mut self.clients[client];
        let was_in_sync = model.since.is_some();
        model.since = Some(next(&sync));
        for (room, joined) in sync["rooms"]["join"].as_object().into_iter().flatten() {
            let timeline = &joined["timeline"];
            let events = timeline["events"].as_array().cloned().unwrap_or_default();
            let known = model.timelines.entry(room.clone()).or_default();
            if timeline["limited"] == true || known.is_empty() || !was_in_sync {
                let prev = timeline["prev_batch"].as_str().unwrap_or_else(|| panic!("no prev_batch: {joined}"));
                let gap = walk_back(&user, room, prev, known).await;
                known.extend(gap);
            }
            known.extend(events.iter().map(event_id));
            let state = model.states.entry(room.clone()).or_default();
            if model.state_after {
                apply(state, joined["state_after"]["events"].as_array().unwrap_or(&Vec::new()));
            } else {
                apply(state, joined["state"]["events"].as_array().unwrap_or(&Vec::new()));
                apply(state, &events);
            }
        }
        for (room, left) in sync["rooms"]["leave"].as_object().into_iter().flatten() {
            // Whoever comes back starts anew.
            assert!(left.is_object());
            model.timelines.remove(room);
            model.states.remove(room);
        }
    }

    async fn check(&self, client: usize) {
        let model = &self.clients[client];
        for room in self.rooms.iter().filter(|room| room.joined.contains(&model.user)) {
            let context = format!("seed {} client {client} room {} shared {}", self.seed, room.id, room.shared);
            let visible = room.events.iter().enumerate().filter(|(place, (_, joined))| {
                // The first events of a room were said while its default visibility held.
                room.shared || joined.contains(&model.user) || *place < room.under_default
            });
            let expected: Vec<_> = visible.map(|(_, (id, _))| id.clone()).collect();
            assert_eq!(model.timelines.get(&room.id).unwrap_or(&Vec::new()), &expected, "{context}");
            let history = messages(&self.users[0], &room.id, "dir=f&limit=200").await.0;
            let mut replayed = BTreeMap::new();
            apply(&mut replayed, &history);
            assert_eq!(model.states.get(&room.id), Some(&replayed), "{context}");
        }
    }
}

/// Everything before `from` that the client does not know yet, oldest first.
async fn walk_back(user: &Client, room: &str, from: &str, known: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let mut from = from.to_owned();
    loop {
        let (chunk, end) = messages(user, room, &format!("dir=b&limit=3&from={from}")).await;
        for event in &chunk {
            let id = event_id(event);
            if known.last() == Some(&id) {
                found.reverse();
                return found;
            }
            found.push(id);
        }
        let Some(end) = end else {
            // All of it: whatever was known before was found again.
            found.reverse();
            found.retain(|id| !known.contains(id));
            return found;
        };
        from = end;
    }
}

async fn messages(user: &Client, room: &str, query: &str) -> (Vec<Value>, Option<String>) {
    let page = user.get(&format!("/_matrix/client/v3/rooms/{}/messages?{query}", escape(room))).await.ok();
    (page["chunk"].as_array().unwrap().clone(), page["end"].as_str().map(ToOwned::to_owned))
}

fn event_id(event: &Value) -> String {
    event["event_id"].as_str().unwrap().to_owned()
}

fn apply(state: &mut BTreeMap<(String, String), String>, events: &[Value]) {
    for event in events {
        if let Some(key) = event["state_key"].as_str() {
            state.insert((event["type"].as_str().unwrap().to_owned(), key.to_owned()), event_id(event));
        }
    }
}
