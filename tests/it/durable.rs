//! What was acknowledged survives `kill -9`.
//!
//! A server process is killed again and again while many clients send and others sync. In the end nothing
//! that was acknowledged is missing, no transaction happened twice, every sender's order holds, each
//! reader has seen exactly what the room's history holds, and every event was built on the one before it.
//!
//! A cluster is disturbed in more ways: its nodes are killed, its PostgreSQL crashes, its Redis is killed, paused,
//! emptied, out of memory, and in a long run away for a minute, while the clients' requests go to one node after the
//! other.
//!
//! `HEARTH_KILL_CYCLES` sets how often that happens; `./test --durability 100` is the long run, with an optimised
//! server.

mod device_lists;
mod media;
mod stopped;
mod to_device;

use std::{
    collections::{HashMap, HashSet},
    io::{Read as _, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    proxy::Proxy,
    world::{escape, http_client, new_postgres_database},
};

const ROOMS: usize = 8;
const SENDERS_PER_ROOM: usize = 6;
const READERS: usize = 4;
/// How long one call is tried. On a small machine a reader may lose many races against the next kill.
const PATIENCE: Duration = Duration::from_mins(5);
/// Sends that must be acknowledged between one disturbance and the next, in a short run and in a long one.
const FEW_SENDS: u64 = 600;
const MANY_SENDS: u64 = 1_500;
/// From so many cycles on a run is a long one.
const LONG_RUN: u64 = 20;
/// In a long run, the cycle before which Redis is away for [`OUTAGE`].
const OUTAGE_AT: u64 = 18;
const OUTAGE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("hearth.sqlite3").display());
    survives(Fleet::single(dir.path(), &url)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres() {
    let dir = tempfile::tempdir().unwrap();
    match new_postgres_database().await {
        Some(url) => survives(Fleet::single(dir.path(), &url)).await,
        None => eprintln!("skipped: ./test starts a PostgreSQL for this"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster() {
    let dir = tempfile::tempdir().unwrap();
    match std::env::var("HEARTH_TEST_VICTIMS") {
        Ok(victims) => survives(Fleet::cluster(dir.path(), Path::new(&victims)).await).await,
        Err(_) => eprintln!("skipped: ./test starts a PostgreSQL and a Redis for this"),
    }
}

/// What the clients speak to, and what is done to it.
struct Fleet {
    servers: Vec<Server>,
    url: String,
    database: String,
    /// The folder of the PostgreSQL and the Redis that may be disturbed.
    victims: Option<PathBuf>,
    /// Gone with the fleet.
    _proxy: Option<Proxy>,
}

impl Fleet {
    fn single(dir: &Path, database: &str) -> Self {
        let server = Server::start(dir, &[("HEARTH_DATABASE__URL", database)]);
        let database = database.to_owned();
        Self { url: server.url.clone(), servers: vec![server], database, victims: None, _proxy: None }
    }

    /// Three nodes whose PostgreSQL and Redis are disturbed, too.
    async fn cluster(dir: &Path, victims: &Path) -> Self {
        let read = |name: &str| std::fs::read_to_string(victims.join(name)).unwrap().trim().to_owned();
        let fleet = Self::nodes(dir, read("postgres-url"), &read("redis-url")).await;
        Self { victims: Some(victims.to_owned()), ..fleet }
    }

    /// Three nodes behind a proxy. What they stand on is left alone.
    async fn nodes(dir: &Path, database: String, redis: &str) -> Self {
        let servers = start_nodes(dir, &[("HEARTH_DATABASE__URL", &*database), ("HEARTH_REDIS__URL", redis)]);
        let proxy = Proxy::start(servers.iter().map(|server| server.url.clone()).collect()).await;
        Self { url: proxy.url.clone(), servers, database, victims: None, _proxy: Some(proxy) }
    }

    async fn disturb(&mut self, cycle: u64) {
        let count = u64::try_from(self.servers.len()).unwrap();
        match (cycle % 8, self.victims.is_some()) {
            (2, true) => {
                self.run("kill-redis");
                let outage = if cycle == OUTAGE_AT { OUTAGE } else { Duration::from_millis(500) };
                tokio::time::sleep(outage).await;
                self.run("start-redis");
            }
            (3, true) => self.run("restart-postgres"),
            (4, true) => {
                self.run("pause-redis");
                tokio::time::sleep(Duration::from_millis(1_500)).await;
                self.run("wake-redis");
            }
            (5, true) => self.tell_redis("FLUSHALL"),
            (6, true) => {
                // One byte: whatever is to be kept is refused.
                self.tell_redis("CONFIG SET maxmemory 1");
                tokio::time::sleep(Duration::from_millis(1_500)).await;
                self.tell_redis("CONFIG SET maxmemory 0");
            }
            _ => {
                let server = usize::try_from((cycle * 7 + cycle / 3) % count).unwrap();
                self.servers[server].kill_and_restart();
            }
        }
    }

    fn tell_redis(&self, command: &str) {
        let socket = self.victims.as_ref().unwrap().join("redis/socket");
        let mut redis = std::os::unix::net::UnixStream::connect(socket).unwrap();
        redis.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut answer = [0; 3];
        redis.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"+OK", "{command}");
    }

    fn run(&self, what: &str) {
        let script = self.victims.as_ref().unwrap().join("disturb");
        assert!(Command::new(script).arg(what).status().unwrap().success(), "{what}");
    }
}

/// Three servers, each with a folder of its own.
fn start_nodes(dir: &Path, settings: &[(&str, &str)]) -> Vec<Server> {
    let start_node = |node: u32| {
        let dir = dir.join(format!("node{node}"));
        std::fs::create_dir(&dir).unwrap();
        Server::start(&dir, settings)
    };
    (0..3).map(start_node).collect()
}

/// How often a server is killed, or something else is disturbed: `default` times, if nothing is said.
pub(crate) fn kill_cycles(default: u64) -> u64 {
    std::env::var("HEARTH_KILL_CYCLES").map_or(default, |cycles| cycles.parse().unwrap())
}

/// The server as a process of its own, at one address for all its lives.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    port: u16,
    dir: PathBuf,
    settings: Vec<(String, String)>,
}

impl Server {
    pub(crate) fn start(dir: &Path, settings: &[(&str, &str)]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings: Vec<_> = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let child = spawn(port, dir, &settings);
        Self { child, url: format!("http://127.0.0.1:{port}"), port, dir: dir.into(), settings }
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    pub(crate) fn kill_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(self.port, &self.dir, &self.settings);
    }

    /// Runs `hearth admin` beside it, with a line to read.
    pub(crate) fn admin(&self, words: &[&str], line: &str) {
        let mut command = program(&self.dir, &self.settings);
        let mut child = command.arg("admin").args(words).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "hearth admin {words:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn spawn(port: u16, dir: &Path, settings: &[(String, String)]) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    program(dir, settings)
        .arg("serve")
        .env("HEARTH_LISTEN", format!("127.0.0.1:{port}"))
        .stdout(Stdio::from(log.try_clone().unwrap()))
        .stderr(Stdio::from(log))
        .spawn()
        .unwrap()
}

fn program(dir: &Path, settings: &[(String, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    command
        .env_clear()
        .env("HEARTH_DATA_DIR", dir)
        .env("HEARTH_REGISTRATION__MODE", "open")
        .env("HEARTH_RATE_LIMITS__ENABLED", "false")
        .envs(settings.iter().cloned());
    command
}

/// A client that keeps trying while the server is down.
#[derive(Clone)]
pub(crate) struct Stubborn {
    http: reqwest::Client,
    pub(crate) url: String,
    pub(crate) token: String,
}

impl Stubborn {
    /// Tries until the server answers with success. Anything but a retryable failure is a bug.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let patience = Instant::now() + PATIENCE;
        loop {
            let mut request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.url));
            request = request.bearer_auth(&self.token);
            if let Some(body) = &body {
                request = request.json(body);
            }
            match request.send().await {
                Ok(response) if response.status().is_success() => {
                    if let Ok(body) = response.json().await {
                        return body;
                    }
                }
                // 502 is the proxy's: the node died over the request.
                Ok(response) if ![502, 503].contains(&response.status().as_u16()) => {
                    panic!("{method} {path}: {} {}", response.status(), response.text().await.unwrap())
                }
                // It is starting, or gone at this moment.
                Ok(_) | Err(_) => {}
            }
            assert!(Instant::now() < patience, "{method} {path}: the server does not come back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What one sender was told: the event of each of its messages, in order.
type Acknowledged = Vec<(String, String)>;

async fn survives(mut fleet: Fleet) {
    // By default each kind of disturbance once.
    let default = if fleet.victims.is_some() { 7 } else { 3 };
    let cycles = kill_cycles(default);
    let sends_per_cycle = if cycles < LONG_RUN { FEW_SENDS } else { MANY_SENDS };
    let http = http_client(Duration::from_secs(20));
    let mut users = Vec::new();
    for name in 0..ROOMS {
        users.push(register(&http, &fleet.url, &format!("user{name}")).await);
    }
    let mut rooms = Vec::new();
    for user in &users {
        let created =
            user.call("POST", "/_matrix/client/v3/createRoom", Some(json!({ "preset": "public_chat" }))).await;
        let room = created["room_id"].as_str().unwrap().to_owned();
        for other in &users {
            other.call("POST", &format!("/_matrix/client/v3/join/{}", escape(&room)), Some(json!({}))).await;
        }
        rooms.push(room);
    }

    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let all_is_said = Arc::new(AtomicBool::new(false));
    let mut senders = Vec::new();
    for (n, room) in rooms.iter().enumerate() {
        for m in 0..SENDERS_PER_ROOM {
            let user = users[(n + m) % users.len()].clone();
            let send = send_until(user, room.clone(), format!("s{n}-{m}"), stop.clone(), acknowledged.clone());
            senders.push((room.clone(), start(send)));
        }
    }
    let readers: Vec<_> = (0..READERS).map(|n| start(read_until(users[n].clone(), all_is_said.clone()))).collect();

    let begun = Instant::now();
    // Sends, and the time they took, between the disturbances.
    let (mut undisturbed, mut counted) = (Duration::ZERO, 0);
    for cycle in 1..=cycles {
        let (before, quiet) = (acknowledged.load(Ordering::SeqCst), Instant::now());
        let enough = before + sends_per_cycle;
        let patience = Instant::now() + Duration::from_mins(2);
        while acknowledged.load(Ordering::SeqCst) < enough {
            assert!(Instant::now() < patience, "sends are no longer acknowledged in cycle {cycle}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        counted += acknowledged.load(Ordering::SeqCst) - before;
        undisturbed += quiet.elapsed();
        fleet.disturb(cycle).await;
        if cycle % 50 == 0 {
            eprintln!("{cycle} of {cycles} cycles");
        }
    }
    stop.store(true, Ordering::SeqCst);
    let mut told: HashMap<String, Vec<Acknowledged>> = HashMap::new();
    for (room, sender) in senders {
        told.entry(room).or_default().push(sender.await.unwrap());
    }
    all_is_said.store(true, Ordering::SeqCst);
    let sends = acknowledged.load(Ordering::SeqCst);
    let a_second = |sends: u64, time: Duration| sends * 1_000 / u64::try_from(time.as_millis()).unwrap().max(1);
    eprintln!(
        "{sends} sends acknowledged through {cycles} disturbances, {} a second; {} between a disturbance and the next",
        a_second(sends, begun.elapsed()),
        a_second(counted, undisturbed),
    );

    let mut histories = HashMap::new();
    for room in &rooms {
        let history = history(&users[0], room).await;
        check_history(room, &history, &told[room]);
        histories.insert(room.clone(), history);
    }
    for reader in readers {
        let seen = reader.await.unwrap();
        for room in &rooms {
            let messages: Vec<_> = histories[room].iter().map(|(id, _)| id.clone()).collect();
            let seen = seen.get(room).cloned().unwrap_or_default();
            assert!(!seen.is_empty(), "a reader was told nothing of {room}");
            let expected = &messages[messages.len() - seen.len().min(messages.len())..];
            assert_eq!(seen, expected, "a reader of {room} has a gap, a duplicate or another order");
        }
    }
    check_chains(&read_events(&fleet.database).await, ROOMS);
}

/// Each event's room and what it says, in the order of the log.
async fn read_events(database: &str) -> Vec<(String, String, String)> {
    use sqlx::{Connection as _, PgConnection, SqliteConnection};
    let events = "SELECT room_id, event_id, json FROM events ORDER BY position";
    if database.starts_with("sqlite:") {
        let mut connection = SqliteConnection::connect(database).await.unwrap();
        sqlx::query_as(events).fetch_all(&mut connection).await.unwrap()
    } else {
        let mut connection = PgConnection::connect(database).await.unwrap();
        sqlx::query_as(events).fetch_all(&mut connection).await.unwrap()
    }
}

/// Nobody but this server writes, so that each event follows the one before it and no other.
fn check_chains(events: &[(String, String, String)], rooms: usize) {
    let mut last: HashMap<&str, &str> = HashMap::new();
    for (room, event_id, event) in events {
        let event: Value = serde_json::from_str(event).unwrap();
        let before: Vec<&str> = last.insert(room, event_id).into_iter().collect();
        assert_eq!(event["prev_events"], json!(before), "{event_id} of {room} was built on another event");
    }
    assert!(last.len() >= rooms, "the rooms are in the database");
}

#[expect(clippy::disallowed_methods, reason = "the clients of this test are tasks of their own")]
fn start<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(task)
}

pub(crate) async fn register(http: &reqwest::Client, url: &str, name: &str) -> Stubborn {
    let nobody = Stubborn { http: http.clone(), url: url.to_owned(), token: String::new() };
    let body = json!({ "username": name, "password": "a long secret", "auth": { "type": "m.login.dummy" } });
    let registered = nobody.call("POST", "/_matrix/client/v3/register", Some(body)).await;
    Stubborn { token: registered["access_token"].as_str().unwrap().to_owned(), ..nobody }
}

/// Sends one message after the other, each with a transaction id of its own that is used again on every retry.
async fn send_until(
    user: Stubborn,
    room: String,
    name: String,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
) -> Acknowledged {
    let mut sent = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let text = format!("{name}:{}", sent.len());
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{}", escape(&room), escape(&text));
        let reply = user.call("PUT", &path, Some(json!({ "msgtype": "m.text", "body": text }))).await;
        sent.push((reply["event_id"].as_str().unwrap().to_owned(), text));
        acknowledged.fetch_add(1, Ordering::SeqCst);
    }
    sent
}

/// Syncs until all is said and read; fills every gap that a limited timeline leaves.
async fn read_until(user: Stubborn, all_is_said: Arc<AtomicBool>) -> HashMap<String, Vec<String>> {
    let filter = escape(r#"{"room":{"timeline":{"limit":50},"state":{"lazy_load_members":true}}}"#);
    let mut seen: HashMap<String, Vec<String>> = HashMap::new();
    let mut since = String::new();
    loop {
        let is_last = all_is_said.load(Ordering::SeqCst);
        // A sync that does not wait knows whatever was acknowledged before.
        let timeout = if is_last { 0 } else { 300 };
        let after = if since.is_empty() { String::new() } else { format!("&since={since}") };
        let path = format!("/_matrix/client/v3/sync?timeout={timeout}&filter={filter}{after}");
        let sync = user.call("GET", &path, None).await;
        let mut news = 0;
        for (room, joined) in sync["rooms"]["join"].as_object().into_iter().flatten() {
            let timeline = &joined["timeline"];
            if timeline["limited"] == true && !since.is_empty() {
                let prev = timeline["prev_batch"].as_str().unwrap();
                let gap = between(&user, room, &since, prev).await;
                news += gap.len();
                seen.entry(room.clone()).or_default().extend(gap.into_iter().map(|(id, _)| id));
            }
            let messages = messages(&timeline["events"]);
            news += messages.len();
            seen.entry(room.clone()).or_default().extend(messages.into_iter().map(|(id, _)| id));
        }
        since = sync["next_batch"].as_str().unwrap().to_owned();
        if is_last && news == 0 {
            return seen;
        }
    }
}

/// The messages after one token up to another, oldest first.
async fn between(user: &Stubborn, room: &str, from: &str, to: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut from = from.to_owned();
    loop {
        let path = format!("/_matrix/client/v3/rooms/{}/messages?dir=f&limit=200&from={from}&to={to}", escape(room));
        let page = user.call("GET", &path, None).await;
        found.extend(messages(&page["chunk"]));
        match page["end"].as_str() {
            Some(end) if end != from => end.clone_into(&mut from),
            _ => return found,
        }
    }
}

async fn history(user: &Stubborn, room: &str) -> Vec<(String, String)> {
    between(user, room, "s0", "s9000000000000000").await
}

fn messages(events: &Value) -> Vec<(String, String)> {
    let events = events.as_array().cloned().unwrap_or_default();
    let messages = events.iter().filter(|event| event["type"] == "m.room.message");
    messages
        .map(|e| (e["event_id"].as_str().unwrap().to_owned(), e["content"]["body"].as_str().unwrap().to_owned()))
        .collect()
}

/// Every acknowledged message is there under its identifier, once, and each sender's are in order.
fn check_history(room: &str, history: &[(String, String)], told: &[Acknowledged]) {
    let distinct: HashSet<&str> = history.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(distinct.len(), history.len(), "a transaction of {room} was applied twice");
    let place: HashMap<&str, usize> = history.iter().enumerate().map(|(at, (id, _))| (id.as_str(), at)).collect();
    for acknowledged in told {
        let mut last = None;
        for (event_id, text) in acknowledged {
            let at = place.get(event_id.as_str());
            assert!(at.is_some(), "{text} was acknowledged as {event_id} and is gone from {room}");
            assert!(at > last, "{text} is out of order in {room}");
            last = at;
        }
    }
}
