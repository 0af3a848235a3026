//! Whose devices a client knows, through `kill -9`: people come into rooms and go, and log devices with keys in and out,
//! while each of them follows the others by what `/sync` says.
//!
//! In the end everybody follows exactly those with whom they share a room, and knows the devices that these have. One
//! thing that is not said, on whichever node and however often the client had to ask, and that is not so.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Fleet, Stubborn, kill_cycles, register, start, to_device};
use crate::{
    keys::Pair,
    world::{escape, http_client, new_postgres_database, password},
};

const PEOPLE: usize = 4;
const ROOMS: usize = 3;
/// Acts that have to be done between one disturbance and the next.
const ACTS: u64 = 120;
/// Devices that somebody has beside the one that they follow others with.
const DEVICES: usize = 3;
const PATIENCE: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn device_lists_on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("hearth.sqlite3").display());
    everybody_knows_whom_they_follow(Fleet::single(dir.path(), &url)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn device_lists_on_postgres() {
    let dir = tempfile::tempdir().unwrap();
    match new_postgres_database().await {
        Some(url) => everybody_knows_whom_they_follow(Fleet::single(dir.path(), &url)).await,
        None => eprintln!("skipped: ./test starts a PostgreSQL for this"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn device_lists_on_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    match to_device::cluster(dir.path()).await {
        Some(fleet) => everybody_knows_whom_they_follow(fleet).await,
        None => eprintln!("skipped: ./test starts a PostgreSQL and a Redis for this"),
    }
}

/// Somebody at the device that they follow others with.
#[derive(Clone)]
struct Person {
    name: String,
    user_id: String,
    device: Stubborn,
}

async fn everybody_knows_whom_they_follow(mut fleet: Fleet) {
    let cycles = kill_cycles(4);
    let http = http_client(Duration::from_secs(20));
    let host = Person::new(&http, &fleet.url, "host").await;
    let mut people = Vec::new();
    for number in 0..PEOPLE {
        people.push(Person::new(&http, &fleet.url, &format!("person{number}")).await);
    }
    let (stop, acts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let all_is_done = Arc::new(AtomicBool::new(false));
    // From when nobody shares a room with anybody.
    let mut followers = Vec::new();
    for person in &people {
        let since = person.sync(0, None).await["next_batch"].as_str().unwrap().to_owned();
        followers.push(start(follow_until(person.clone(), since, all_is_done.clone())));
    }
    let mut rooms = Vec::new();
    for _ in 0..ROOMS {
        let body = json!({ "preset": "public_chat" });
        let created = host.device.call("POST", "/_matrix/client/v3/createRoom", Some(body)).await;
        rooms.push(created["room_id"].as_str().unwrap().to_owned());
    }
    let actors: Vec<_> = people
        .iter()
        .zip(1..)
        .map(|(person, seed)| start(act_until(person.clone(), rooms.clone(), seed, stop.clone(), acts.clone())))
        .collect();
    for cycle in 1..=cycles {
        let (enough, patience) = (acts.load(Ordering::SeqCst) + ACTS, Instant::now() + PATIENCE);
        while acts.load(Ordering::SeqCst) < enough {
            assert!(Instant::now() < patience, "nothing more is done in cycle {cycle}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        fleet.disturb(cycle).await;
    }
    stop.store(true, Ordering::SeqCst);
    for actor in actors {
        actor.await.unwrap();
    }
    all_is_done.store(true, Ordering::SeqCst);

    let mut members = Vec::new();
    for room in &rooms {
        let path = format!("/_matrix/client/v3/rooms/{}/joined_members", escape(room));
        let joined = host.device.call("GET", &path, None).await;
        members.push(joined["joined"].as_object().unwrap().keys().cloned().collect::<BTreeSet<String>>());
    }
    for (person, follower) in people.iter().zip(followers) {
        let followed = follower.await.unwrap();
        let own = members.iter().filter(|members| members.contains(&person.user_id));
        let others: BTreeSet<&String> = own.flatten().filter(|other| **other != person.user_id).collect();
        assert_eq!(followed.keys().collect::<BTreeSet<_>>(), others, "whom {} follows", person.user_id);
        for (other, known) in &followed {
            assert_eq!(*known, host.devices_of(other).await, "what {} knows of {other}", person.user_id);
        }
    }
}

impl Person {
    async fn new(http: &reqwest::Client, url: &str, name: &str) -> Self {
        let device = register(http, url, name).await;
        let whoami = device.call("GET", "/_matrix/client/v3/account/whoami", None).await;
        Self { name: name.to_owned(), user_id: whoami["user_id"].as_str().unwrap().to_owned(), device }
    }

    async fn sync(&self, timeout: u64, since: Option<&str>) -> Value {
        let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
        self.device.call("GET", &format!("/_matrix/client/v3/sync?timeout={timeout}{since}"), None).await
    }

    /// The devices of somebody, with their keys.
    async fn devices_of(&self, user_id: &str) -> Value {
        let body = json!({ "device_keys": { user_id: [] } });
        let found = self.device.call("POST", "/_matrix/client/v3/keys/query", Some(body)).await;
        found["device_keys"].get(user_id).cloned().unwrap_or_else(|| json!({}))
    }

    /// Another device, which has keys.
    async fn log_in(&self) -> (String, Stubborn) {
        let body = password(&self.name, "a long secret");
        let login = self.device.call("POST", "/_matrix/client/v3/login", Some(body)).await;
        let id = login["device_id"].as_str().unwrap().to_owned();
        let device = Stubborn { token: login["access_token"].as_str().unwrap().to_owned(), ..self.device.clone() };
        let keys = json!({ "device_keys": Pair::new(&id).device_keys(&self.user_id) });
        device.call("POST", "/_matrix/client/v3/keys/upload", Some(keys)).await;
        (id, device)
    }
}

/// Does one thing after the other, drawn from a seed: whether a room may be entered or left was not looked at before.
async fn act_until(person: Person, rooms: Vec<String>, seed: u64, stop: Arc<AtomicBool>, acts: Arc<AtomicU64>) {
    let (mut drawn, mut devices) = (seed, Vec::new());
    while !stop.load(Ordering::SeqCst) {
        drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let dice = usize::try_from(drawn >> 40).unwrap();
        let room = format!("/_matrix/client/v3/rooms/{}", escape(&rooms[dice / 8 % rooms.len()]));
        match dice % 8 {
            0..=2 => attempt(&person.device, "POST", &format!("{room}/join"), json!({})).await,
            3..=4 => attempt(&person.device, "POST", &format!("{room}/leave"), json!({})).await,
            5 if devices.len() < DEVICES => devices.push(person.log_in().await),
            6 => {
                if let Some((_, device)) = devices.pop() {
                    attempt(&device, "POST", "/_matrix/client/v3/logout", json!({})).await;
                }
            }
            _ => {
                if let Some((id, device)) = devices.last() {
                    let path = format!("/_matrix/client/v3/devices/{}", escape(id));
                    attempt(device, "PUT", &path, json!({ "display_name": format!("device {dice}") })).await;
                }
            }
        }
        acts.fetch_add(1, Ordering::SeqCst);
    }
}

/// Asks until there is an answer, which may be a refusal: what was asked for may have been done before, when the answer
/// was lost.
async fn attempt(device: &Stubborn, method: &str, path: &str, body: Value) {
    let patience = Instant::now() + PATIENCE;
    loop {
        let request = device.http.request(method.parse().unwrap(), format!("{}{path}", device.url));
        match request.bearer_auth(&device.token).json(&body).send().await {
            Ok(response) if response.status().is_success() || [401, 403, 404].contains(&response.status().as_u16()) => {
                return;
            }
            Ok(response) if ![502, 503].contains(&response.status().as_u16()) => {
                panic!("{method} {path}: {} {}", response.status(), response.text().await.unwrap())
            }
            Ok(_) | Err(_) => {}
        }
        assert!(Instant::now() < patience, "{method} {path}: the server does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Follows others as a client does that encrypts for them, until everything is done and nothing more is said. Returns
/// whom it follows, with the devices of each.
async fn follow_until(person: Person, mut since: String, all_is_done: Arc<AtomicBool>) -> BTreeMap<String, Value> {
    let mut followed: BTreeMap<String, Value> = BTreeMap::new();
    loop {
        let is_last = all_is_done.load(Ordering::SeqCst);
        let sync = person.sync(if is_last { 0 } else { 300 }, Some(&since)).await;
        let users = |list: &str| {
            let users = sync["device_lists"][list].as_array().cloned().unwrap_or_default();
            users.iter().map(|user| user.as_str().unwrap().to_owned()).collect::<Vec<String>>()
        };
        let (changed, left) = (users("changed"), users("left"));
        for other in &left {
            assert!(followed.remove(other).is_some(), "{other} left {}, who did not follow them", person.user_id);
        }
        for other in &changed {
            if *other != person.user_id {
                followed.insert(other.clone(), person.devices_of(other).await);
            }
        }
        sync["next_batch"].as_str().unwrap().clone_into(&mut since);
        if is_last && changed.is_empty() && left.is_empty() {
            return followed;
        }
    }
}
