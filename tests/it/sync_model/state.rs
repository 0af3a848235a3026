//! What clients hold for a room's state: they build it from `state`, `state_after` and `timeline`, each with filters and
//! limits of its own, while people are kicked and banned, come back and forget, and the history is hidden and shown. At
//! every moment it has to be what `/state` says, and what the timeline leaves out has to be found behind `prev_batch`.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use hearth::ground::random::Random;
use serde_json::{Value, json};

use super::{apply, event_id};
use crate::world::{Client, Engine, World, at, escape, next};

const STEPS: usize = 24;
/// How many walks go on side by side.
const LANES: u64 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite() {
    walk(World::on(Engine::Sqlite, |_| {}).await, 320).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres() {
    walk(World::on(Engine::Postgres, |_| {}).await, 40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster() {
    walk(World::on(Engine::Cluster, |_| {}).await, 24).await;
}

/// Trap: gaps in limited timelines. `state_after` agrees with replay, and so does `state` with the timeline.
async fn walk(world: Option<World>, seeds: u64) {
    let Some(world) = &world else { return eprintln!("skipped: ./test starts a PostgreSQL and a Redis for this") };
    let lanes = (0..LANES).map(async |lane| {
        let mut users = Vec::new();
        for name in ["alice", "bob", "carol"] {
            users.push(world.user(&format!("{name}{lane}")).await);
        }
        let mut met = Met::default();
        for seed in (lane..seeds).step_by(usize::try_from(LANES).unwrap()) {
            let of_seed = Play::begin(&users, seed).await.run().await;
            met.iter_mut().zip(of_seed).for_each(|(count, more)| *count += more);
        }
        met
    });
    let met = join_all(lanes).await;
    // Few walks need not meet everything.
    if seeds >= 300 {
        for (number, what) in MET.iter().enumerate() {
            assert!(met.iter().any(|met| met[number] > 0), "no walk has met {what}");
        }
    }
}

/// What the walks are for, and how often one has met it.
const MET: [&str; 5] = [
    "state that no timeline tells",
    "a timeline that begins later than it could",
    "a room that was left and forgotten",
    "an invitation that replaces another",
    "somebody who comes back",
];
type Met = [usize; MET.len()];

/// One random history of a room that the first user makes and the others come to and go from.
struct Play<'a> {
    dice: Random,
    seed: u64,
    users: &'a [Client],
    room: String,
    members: [Member; 3],
    clients: Vec<ModelClient>,
    met: Met,
}

/// What somebody is to the room.
#[derive(Clone, Debug, Default)]
struct Member {
    membership: &'static str,
    /// How many events have said so.
    changes: usize,
    forgotten: bool,
    /// Who sent the last invitation.
    inviter: usize,
    ignores: Vec<usize>,
}

/// A device with its own place in the log, and what it knows.
#[derive(Debug)]
struct ModelClient {
    user: usize,
    /// Without its limit.
    timeline: Value,
    limit: usize,
    /// The types of state that it wants, if not all.
    types: Option<Vec<&'static str>>,
    lazy: bool,
    /// How it asks for the state after the timeline, and finds it.
    state_after: Option<&'static str>,
    since: Option<String>,
    state: BTreeMap<(String, String), String>,
    own: Option<String>,
    /// What the user was when it synced last.
    then: Member,
    /// Whether it knows the state of a time at which the user was in the room.
    complete: bool,
    /// Whether the user has come in since.
    came: bool,
}

impl<'a> Play<'a> {
    async fn begin(users: &'a [Client], seed: u64) -> Self {
        let dice = Random::seeded(seed);
        let mut play = Self {
            dice,
            seed,
            users,
            room: String::new(),
            members: Default::default(),
            clients: Vec::new(),
            met: Met::default(),
        };
        let visibility = play.visibility();
        let version = play.one_of(&["11", "12"]);
        let options = json!({ "preset": "public_chat", "room_version": version, "name": "A room",
            "power_level_content_override": { "state_default": 0, "events": {}, "invite": 0 },
            "initial_state": [{ "type": "m.room.history_visibility", "content": visibility }] });
        play.room = users[0].create_room(options).await;
        play.members[0] = Member { membership: "join", changes: 1, ..Member::default() };
        for user in [1, 2] {
            play.members[user].membership = "leave";
            play.ignore(user, Vec::new()).await;
        }
        for n in 0..6 {
            let client = play.client(n % 3);
            play.clients.push(client);
        }
        play
    }

    fn client(&self, user: usize) -> ModelClient {
        let timeline = self.one_of(&[
            json!({}),
            json!({}),
            json!({ "types": ["m.room.message"] }),
            json!({ "not_types": ["m.room.topic", "m.room.member"] }),
            json!({ "types": ["m.room.topic", "org.example"] }),
            json!({ "not_senders": [self.users[0].user_id] }),
            json!({ "senders": [self.users[1].user_id] }),
            json!({ "org.matrix.msc3874.rel_types": ["m.thread"] }),
        ]);
        ModelClient {
            user,
            timeline,
            limit: self.one_of(&[0, 1, 1, 2, 3, 5, 50]),
            types: self.one_of(&[None, None, Some(vec!["m.room.topic", "org.example", "m.room.member"])]),
            lazy: self.roll(3) == 0,
            state_after: self.one_of(&[None, None, Some(""), Some("org.matrix.msc4222.")]),
            since: None,
            state: BTreeMap::new(),
            own: None,
            then: Member::default(),
            complete: false,
            came: false,
        }
    }

    /// A number below `sides`.
    fn roll(&self, sides: usize) -> usize {
        u32::from_le_bytes(self.dice.bytes::<4>()) as usize % sides
    }

    fn one_of<T: Clone>(&self, all: &[T]) -> T {
        all[self.roll(all.len())].clone()
    }

    fn visibility(&self) -> Value {
        json!({ "history_visibility": self.one_of(&["joined", "joined", "invited", "shared", "world_readable"]) })
    }

    /// Somebody who is in the room.
    fn inside(&self) -> usize {
        let inside: Vec<usize> = (0..3).filter(|user| self.members[*user].membership == "join").collect();
        self.one_of(&inside)
    }

    async fn run(mut self) -> Met {
        for _ in 0..STEPS {
            match self.roll(12) {
                0..=3 => self.change_membership().await,
                4..=6 => self.set().await,
                7 | 8 => self.say().await,
                _ => {
                    let client = self.roll(self.clients.len());
                    self.sync(client).await;
                }
            }
        }
        for client in 0..self.clients.len() {
            self.sync(client).await;
        }
        self.met
    }

    async fn say(&self) {
        let (sender, relates) = (self.inside(), self.roll(3) == 0);
        let event = self.users[sender].say(&self.room, "hello").await;
        if relates {
            let content = json!({ "msgtype": "m.text", "body": "hello",
                "m.relates_to": { "rel_type": "m.thread", "event_id": event } });
            let path = at(&self.room, &format!("/send/m.room.message/{}", escape(&event)));
            self.users[sender].put(&path, content).await.ok();
        }
    }

    /// State of two keys and of the room itself, by anybody. How visible the history is, is for its creator.
    async fn set(&self) {
        let (sender, value) = (self.inside(), self.roll(1_000_000).to_string());
        let own = format!("/state/m.room.member/{}", escape(&self.users[sender].user_id));
        let (sender, path, content) = match self.roll(7) {
            0 | 1 => (sender, "/state/m.room.topic/".to_owned(), json!({ "topic": value })),
            2 | 3 => (sender, format!("/state/org.example/{}", self.roll(2)), json!({ "value": value })),
            4 => (sender, own, json!({ "membership": "join", "displayname": value })),
            5 => (0, "/state/m.room.history_visibility/".to_owned(), self.visibility()),
            _ => (0, "/state/m.room.encryption/".to_owned(), json!({ "algorithm": value })),
        };
        self.users[sender].put(&at(&self.room, &path), content).await.ok();
    }

    async fn change_membership(&mut self) {
        let user = 1 + self.roll(2);
        let inviter = self.inside();
        let (name, was) = (self.users[user].user_id.clone(), self.members[user].clone());
        let action = match was.membership {
            "join" => self.one_of(&["kick", "kick", "ban", "leave"]),
            "invite" => self.one_of(&["join", "join", "kick", "leave"]),
            "ban" => self.one_of(&["unban", "forget"]),
            _ => self.one_of(&["join", "join", "join", "invite", "ban", "forget", "ignore"]),
        };
        let (actor, body) = match action {
            "kick" | "ban" | "unban" => (0, json!({ "user_id": name })),
            "invite" => (inviter, json!({ "user_id": name })),
            "ignore" => return self.ignore(user, self.one_of(&[Vec::new(), vec![0], vec![3 - user]])).await,
            "forget" if was.changes == 0 => return,
            _ => (user, json!({})),
        };
        self.users[actor].post(&at(&self.room, &format!("/{action}")), body).await.ok();
        let member = &mut self.members[user];
        if action == "forget" {
            member.forgotten = true;
            return;
        }
        member.membership = match action {
            "join" | "invite" | "ban" => action,
            _ => "leave",
        };
        member.changes += 1;
        member.forgotten &= matches!(member.membership, "leave" | "ban");
        member.inviter = actor;
        for client in self.clients.iter_mut().filter(|client| client.user == user) {
            client.came |= action == "join";
        }
    }

    async fn ignore(&mut self, user: usize, ignored: Vec<usize>) {
        let list: BTreeMap<&str, Value> = ignored.iter().map(|user| (&*self.users[*user].user_id, json!({}))).collect();
        let user_id = escape(&self.users[user].user_id);
        let path = format!("/_matrix/client/v3/user/{user_id}/account_data/m.ignored_user_list");
        self.users[user].put(&path, json!({ "ignored_users": list })).await.ok();
        self.members[user].ignores = ignored;
    }

    async fn sync(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let (user, now) = (&self.users[client.user], &self.members[client.user]);
        let mut filter = json!({ "room": { "rooms": [self.room], "timeline": client.timeline,
            "state": { "lazy_load_members": client.lazy } } });
        filter["room"]["timeline"]["limit"] = json!(client.limit);
        if let Some(types) = &client.types {
            filter["room"]["state"]["types"] = json!(types);
        }
        let after = client.state_after.map(|prefix| format!("&{prefix}use_state_after=true")).unwrap_or_default();
        let more = format!("&filter={}{after}", escape(&filter.to_string()));
        let sync = user.sync_with(client.since.as_deref(), &more).await;
        let told = |section: &str| sync["rooms"][section].get(&self.room);
        let context = format!(
            "seed {} client {number} {client:?}\nis {now:?} in {}\nand was told {sync:#}",
            self.seed, self.room
        );

        let is_news = client.since.is_none() || now.changes != client.then.changes;
        let outside = |member: &Member| matches!(member.membership, "leave" | "ban");
        let is_told = now.membership == "invite" && is_news && !now.ignores.contains(&now.inviter);
        assert_eq!(told("invite").is_some(), is_told, "{context}");
        if let Some(invite) = told("invite") {
            let events = invite["invite_state"]["events"].as_array().unwrap();
            let own = events.iter().find(|event| event["state_key"] == *user.user_id).unwrap();
            assert_eq!(own["sender"], *self.users[now.inviter].user_id, "{context}");
            assert!(own["origin_server_ts"].is_u64(), "{context}");
            self.met[3] += usize::from(client.then.membership == "invite");
        }
        let left = outside(now) && client.since.is_some() && is_news;
        if left && now.forgotten && outside(&client.then) {
            // Whether there was anything between that a client could have heard of is not looked at here.
            client.complete = false;
        } else {
            assert_eq!(told("leave").is_some(), left, "{context}");
        }
        assert!(told("join").is_none() || now.membership == "join", "{context}");
        self.met[2] += usize::from(told("leave").is_some() && now.forgotten);

        let knew = client.since.is_some() && client.then.membership == "join";
        let section = told("join").or_else(|| told("leave"));
        if let Some(section) = section {
            if told("join").is_some() && !knew {
                client.state.clear();
            }
            client.take(section, &user.user_id, &context);
            client.complete = match now.membership {
                "join" => true,
                _ if now.forgotten => false,
                _ => client.complete || knew || client.came,
            };
        }
        if let Some(joined) = told("join") {
            let begins_later = check_timeline(client, user, &self.room, joined, knew, &next(&sync), &context).await;
            let state = joined["state"]["events"].as_array().is_some_and(|state| !state.is_empty());
            let untold = knew && state && !client.lazy && joined["timeline"]["limited"] == false;
            self.met[0] += usize::from(untold);
            self.met[1] += usize::from(begins_later);
            self.met[4] += usize::from(knew && client.came);
        }
        // Nobody outside asks for the state after they have forgotten the room, or were invited again.
        client.complete &= now.membership == "join" || (outside(now) && !now.forgotten);
        if client.complete {
            let state = user.get(&at(&self.room, "/state")).await.ok();
            check_state(client, user, now, &state, section, &context);
        }
        assert!(now.membership != "join" || client.complete, "{context}");
        (client.since, client.then, client.came) = (Some(next(&sync)), now.clone(), false);
    }
}

impl ModelClient {
    fn wants(&self, kind: &str) -> bool {
        self.types.as_ref().is_none_or(|types| types.contains(&kind))
    }

    /// Builds the state from what is told of a room.
    fn take(&mut self, room: &Value, user_id: &str, context: &str) {
        let timeline = room["timeline"]["events"].as_array().unwrap_or_else(|| panic!("{context}"));
        let key = self.state_after.map_or_else(|| "state".to_owned(), |prefix| format!("{prefix}state_after"));
        let state = room[&key]["events"].as_array().unwrap_or_else(|| panic!("no {key}: {context}"));
        apply(&mut self.state, state);
        if self.state_after.is_none() {
            apply(&mut self.state, timeline);
        }
        let timeline = timeline.iter().filter(|_| self.state_after.is_none());
        for event in state.iter().chain(timeline).filter(|event| event["state_key"] == *user_id) {
            self.own = event["content"]["membership"].as_str().map(ToOwned::to_owned).or(self.own.take());
        }
    }
}

/// What the timeline leaves out is found behind `prev_batch`, and `limited` says whether there is any. Gives whether it
/// leaves out more than its limit wants.
async fn check_timeline(
    client: &ModelClient,
    user: &Client,
    room: &str,
    joined: &Value,
    knew: bool,
    until: &str,
    context: &str,
) -> bool {
    let timeline = &joined["timeline"];
    let told: Vec<String> = timeline["events"].as_array().unwrap().iter().map(event_id).collect();
    let to = client.since.as_deref().filter(|_| knew).map(|since| format!("&to={since}")).unwrap_or_default();
    let filter = escape(&client.timeline.to_string());
    let before = async |from: &str| {
        let path = at(room, &format!("/messages?dir=b&limit=200&from={from}{to}&filter={filter}"));
        let page = user.get(&path).await.ok();
        let mut events: Vec<String> = page["chunk"].as_array().unwrap().iter().map(event_id).collect();
        events.reverse();
        events
    };
    let (all, rest) = (before(until).await, before(timeline["prev_batch"].as_str().unwrap()).await);
    assert_eq!(rest.iter().chain(&told).collect::<Vec<_>>(), all.iter().collect::<Vec<_>>(), "{context}");
    let limited = timeline["limited"].as_bool().unwrap_or_else(|| panic!("not said whether limited: {context}"));
    let entered = client.since.is_some() && !knew;
    assert!(limited != rest.is_empty() || (limited && entered), "limited, but {rest:?} is left: {context}");
    let most = client.limit.min(all.len());
    // Without `state_after` a timeline may have to begin later.
    assert!(told.len() == most || (told.len() < most && limited && client.state_after.is_none()), "{context}");
    told.len() < most
}

/// The client knows what `/state` says, as far as it wants to.
fn check_state(client: &ModelClient, user: &Client, now: &Member, state: &Value, told: Option<&Value>, context: &str) {
    let is_inside = now.membership == "join";
    let own = ("m.room.member".to_owned(), user.user_id.clone());
    let mut real = BTreeMap::new();
    apply(&mut real, state.as_array().unwrap());
    let mut known = client.state.clone();
    for all in [&mut real, &mut known] {
        // Of somebody who has left and was banned then, the state is told of the time before that.
        all.retain(|key, _| client.wants(&key.0) && (is_inside || *key != own));
    }
    if client.lazy {
        let senders: Vec<String> = told
            .and_then(|told| told["timeline"]["events"].as_array())
            .into_iter()
            .flatten()
            .map(|event| event["sender"].as_str().unwrap().to_owned())
            .chain([user.user_id.clone()])
            .filter(|_| is_inside)
            .collect();
        for sender in senders {
            assert!(known.contains_key(&("m.room.member".to_owned(), sender)), "a sender is unknown: {context}");
        }
        real.retain(|key, _| key.0 != "m.room.member" || known.contains_key(key));
    }
    assert_eq!(known, real, "{context}");
    if is_inside || told.is_some() {
        assert_eq!(client.own.as_deref(), Some(now.membership), "{context}");
    }
}
