//! A wire between a node and PostgreSQL or Redis that is cut: exactly at COMMIT, so that nobody says whether it took
//! place, or for as long as it pleases, with a word or without.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
};

use crate::world::{Client, Engine, Reply, World, at, escape, http_client, new_postgres_database};

const NEVER: u8 = 0;
/// The server never gets to see the COMMIT.
const BEFORE: u8 = 1;
/// The server commits, and its answer is lost.
const AFTER: u8 = 2;
/// The wire falls silent with the COMMIT in hand, which the server gets once it is open again.
const SILENT: u8 = 3;

/// What a wire lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Open,
    /// Nothing: connections break, and none can be made.
    Cut,
    /// Nothing either, and nobody is told.
    Silent,
}

/// Between a node and a server.
#[derive(Clone)]
struct Wire {
    socket: PathBuf,
    /// Where the next COMMIT is cut.
    cut: Arc<AtomicU8>,
    flow: watch::Sender<Flow>,
}

impl Wire {
    /// Listens on this machine and carries everything to PostgreSQL behind `url`. Gives the URL of this end.
    async fn to_postgres(url: &str) -> (Self, String) {
        let options: PgConnectOptions = url.parse().unwrap();
        let (wire, here) = Self::start(&options.get_socket().unwrap().join(".s.PGSQL.5432")).await;
        (wire, format!("postgres://postgres@{here}/{}", options.get_database().unwrap()))
    }

    /// Carries everything to the Redis of the tests, if there is one. Gives the URL of this end.
    async fn to_redis() -> Option<(Self, String)> {
        let url = std::env::var("HEARTH_TEST_REDIS").ok()?;
        let (_, socket) = url.split_once("unix://").unwrap();
        let (wire, here) = Self::start(Path::new(socket)).await;
        Some((wire, format!("redis://{here}")))
    }

    async fn start(socket: &Path) -> (Self, SocketAddr) {
        let wire = Self { socket: socket.to_owned(), cut: Arc::default(), flow: watch::Sender::new(Flow::Open) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap();
        let carrier = wire.clone();
        spawn(async move {
            while let Ok((node, _)) = listener.accept().await {
                spawn(carrier.clone().carry(node));
            }
        });
        (wire, here)
    }

    async fn carry(self, mut node: TcpStream) {
        let mut flow = self.flow.subscribe();
        let mut server = UnixStream::connect(&self.socket).await.unwrap();
        let (mut from_node, mut from_server) = (vec![0; 65_536], vec![0; 65_536]);
        loop {
            let now = *flow.borrow_and_update();
            let carried = tokio::select! {
                changed = flow.changed(), if now != Flow::Cut => {
                    changed.unwrap();
                    continue;
                }
                () = std::future::ready(()), if now == Flow::Cut => return,
                read = node.read(&mut from_node), if now == Flow::Open => match read {
                    Ok(length) if length > 0 => {
                        let said = &from_node[..length];
                        let is_commit = said.windows(6).any(|window| window == b"COMMIT");
                        match if is_commit { self.cut.swap(NEVER, Ordering::SeqCst) } else { NEVER } {
                            BEFORE => return,
                            SILENT => {
                                self.flow.send_replace(Flow::Silent);
                                flow.wait_for(|flow| *flow != Flow::Silent).await.unwrap();
                                server.write_all(said).await
                            }
                            AFTER => {
                                server.write_all(said).await.unwrap();
                                assert!(server.read(&mut from_server).await.unwrap() > 0, "the commit is answered");
                                return;
                            }
                            _ => server.write_all(said).await,
                        }
                    }
                    _ => return,
                },
                read = server.read(&mut from_server), if now == Flow::Open => match read {
                    Ok(length) if length > 0 => node.write_all(&from_server[..length]).await,
                    _ => return,
                },
            };
            if carried.is_err() {
                return;
            }
        }
    }
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(start(task));
}

#[expect(clippy::disallowed_methods, reason = "the wire ends with the test")]
fn start<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_nobody_heard_of_happens_once_or_not_at_all() {
    let Some(database) = new_postgres_database().await else {
        eprintln!("skipped: ./test starts a PostgreSQL for this");
        return;
    };
    let (wire, url) = Wire::to_postgres(&database).await;
    let world = World::on_database(&url).await;
    let alice = world.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let path = format!("/_matrix/client/v3/rooms/{}", escape(&room));
    let mut told = Vec::new();
    for (number, cut) in [BEFORE, AFTER, AFTER, BEFORE, NEVER, AFTER].into_iter().enumerate() {
        wire.cut.store(cut, Ordering::SeqCst);
        let send = format!("{path}/send/m.room.message/{number}");
        let body = json!({ "msgtype": "m.text", "body": number.to_string() });
        let mut tries = 0;
        let reply = loop {
            let reply = alice.put(&send, body.clone()).await;
            tries += 1;
            if reply.status == 200 {
                break reply;
            }
            reply.refused(503, "M_UNKNOWN");
            assert!(reply.headers.contains_key("retry-after"));
            assert!(tries < 50, "it never comes back");
        };
        if cut == AFTER {
            assert_eq!(tries, 1, "what was committed is found by its batch's name");
        }
        assert_eq!(wire.cut.load(Ordering::SeqCst), NEVER, "the cut was made");
        told.push(reply.ok()["event_id"].clone());
    }
    let page = alice.get(&format!("{path}/messages?dir=f&limit=100")).await.ok();
    let messages = page["chunk"].as_array().unwrap().iter().filter(|event| event["type"] == "m.room.message");
    let found: Vec<_> = messages.map(|event| event["event_id"].clone()).collect();
    assert_eq!(found, told);
}

/// The rows and the entry that notifies of them share one COMMIT.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_whose_commit_nobody_heard_of_happens_whole_or_not_at_all() {
    let Some(database) = new_postgres_database().await else {
        eprintln!("skipped: ./test starts a PostgreSQL for this");
        return;
    };
    let (wire, url) = Wire::to_postgres(&database).await;
    let world = World::on_database(&url).await;
    let alice = world.user("alice").await;
    let whoami = "/_matrix/client/v3/account/whoami";
    let mut tries = 0;
    for cut in [BEFORE, AFTER] {
        loop {
            let laptop = world.login(&alice).await;
            laptop.get(whoami).await.ok();
            wire.cut.store(cut, Ordering::SeqCst);
            let reply = laptop.post("/_matrix/client/v3/logout", json!({})).await;
            assert_eq!(wire.cut.load(Ordering::SeqCst), NEVER, "the cut was made");
            if reply.status == 503 {
                assert_eq!(cut, BEFORE, "what was committed is found by its batch's name");
                reply.refused(503, "M_UNKNOWN");
                laptop.get(whoami).await.ok();
                break;
            }
            reply.ok();
            laptop.get(whoami).await.refused(401, "M_UNKNOWN_TOKEN");
            if cut == AFTER {
                break;
            }
            // A reader that follows the log has committed first, and was cut instead.
            tries += 1;
            assert!(tries < 50, "no logout is ever cut");
        }
    }
}

/// Within so long a node that is cut off tells load balancers so.
const NOTICED: Duration = Duration::from_secs(5);

impl World {
    /// Waits until a node's `/ready` answers so.
    pub(crate) async fn until_ready_says(&self, node: usize, status: u16, at_most: Duration) {
        let address = format!("{}/ready", self.nodes[node].url);
        let http = http_client(Duration::from_secs(5));
        let waited = tokio::time::timeout(at_most, async {
            while http.get(&address).send().await.unwrap().status().as_u16() != status {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(waited.await.is_ok(), "/ready did not say {status} within {at_most:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_postgres_stops_being_ready_within_five_seconds_and_says_nothing_stale() {
    let Some(database) = new_postgres_database().await else {
        eprintln!("skipped: ./test starts a PostgreSQL for this");
        return;
    };
    let (wire, url) = Wire::to_postgres(&database).await;
    let mut world = World::on_database(&database).await;
    world.add_node_on(&url).await;
    let alice = world.user("alice").await.at_node(&world, 0);
    let room = alice.create_room(json!({ "name": "Kitchen" })).await;
    let name = format!("/_matrix/client/v3/rooms/{}/state/m.room.name/", escape(&room));
    let there = alice.clone().at_node(&world, 1);
    for (flow, new) in [(Flow::Cut, "Bath"), (Flow::Silent, "Hall")] {
        let old = there.get(&name).await.ok()["name"].clone();
        assert_ne!(old, new, "it remembers the room well");
        wire.flow.send_replace(flow);
        let (asked, ()) = tokio::join!(
            async {
                alice.put(&name, json!({ "name": new })).await.ok();
                there.get(&name).await
            },
            world.until_ready_says(1, 503, NOTICED),
        );
        // It knows that the room may have changed.
        asked.refused(503, "M_UNKNOWN");
        wire.flow.send_replace(Flow::Open);
        world.until_ready_says(1, 200, Duration::from_secs(30)).await;
        // Connections that died meanwhile are found out before they are used.
        assert_eq!(there.get(&name).await.ok()["name"], new);
    }
}

/// The others hear it, so load balancers had better go there; whoever asks it all the same is told nothing old.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_alone_cannot_hear_redis_stops_being_ready_within_five_seconds_and_says_nothing_stale() {
    let Some(mut world) = World::on(Engine::Cluster, |_| {}).await else {
        eprintln!("skipped: ./test starts a PostgreSQL and a Redis for this");
        return;
    };
    let Some((wire, url)) = Wire::to_redis().await else { unreachable!("the cluster has one") };
    world.config.redis.url = Some(url.try_into().unwrap());
    world.add_node(world.clock.clone()).await;
    let alice = world.user("alice").await.at_node(&world, 0);
    let room = alice.create_room(json!({ "name": "Kitchen" })).await;
    let name = format!("/_matrix/client/v3/rooms/{}/state/m.room.name/", escape(&room));
    let there = alice.clone().at_node(&world, 3);
    assert_eq!(there.get(&name).await.ok()["name"], "Kitchen");
    for (flow, new) in [(Flow::Cut, "Bath"), (Flow::Silent, "Hall")] {
        world.until_ready_says(3, 200, Duration::from_secs(30)).await;
        wire.flow.send_replace(flow);
        world.until_ready_says(3, 503, NOTICED).await;
        world.until_ready_says(0, 200, NOTICED).await;
        alice.put(&name, json!({ "name": new })).await.ok();
        assert_eq!(there.get(&name).await.ok()["name"], new);
        wire.flow.send_replace(Flow::Open);
    }
}

/// Longer than the database takes to end a transaction in which nothing is said, by far, and less than it took where it
/// did not (28 s and more).
const STALL: Duration = Duration::from_secs(15);

/// Who holds the log's lock and says nothing, if somebody does.
async fn find_silent_holder(database: &str) -> Option<i32> {
    use sqlx::{Connection as _, PgConnection};
    let holder = "SELECT a.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE l.locktype = 'advisory' AND l.objid = 4720319 AND l.granted
          AND a.datname = current_database() AND a.state = 'idle in transaction'";
    let mut connection = PgConnection::connect(database).await.unwrap();
    let mut holders = Vec::new();
    for _ in 0..2 {
        holders.push(sqlx::query_scalar(holder).fetch_optional(&mut connection).await.unwrap());
        // Whoever is only between two statements goes on meanwhile.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    holders[0].filter(|_| holders[0] == holders[1])
}

/// Sends until it is acknowledged, and returns the event.
async fn insist(client: &Client, room: &str, text: &str) -> String {
    let path = at(room, &format!("/send/m.room.message/{text}"));
    loop {
        let reply = client.put(&path, json!({ "msgtype": "m.text", "body": text })).await;
        if reply.status == 200 {
            return reply.ok()["event_id"].as_str().unwrap().to_owned();
        }
        reply.refused(503, "M_UNKNOWN");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sends so many messages, and returns them and the longest time from one acknowledgement to the next.
async fn send_on(client: &Client, room: &str, name: &str, since: Instant) -> (Vec<String>, Duration) {
    let (mut sent, mut last, mut worst) = (Vec::new(), since, Duration::ZERO);
    for number in 0..40 {
        sent.push(insist(client, room, &format!("{name}{number}")).await);
        worst = worst.max(last.elapsed());
        last = Instant::now();
    }
    (sent, worst)
}

/// What a node's `/ready` said while `meanwhile` went on.
async fn readiness<T>(world: &World, node: usize, meanwhile: impl Future<Output = T>) -> (T, Vec<u16>) {
    let (address, http) = (format!("{}/ready", world.nodes[node].url), http_client(Duration::from_secs(20)));
    let mut said = Vec::new();
    let asking = async {
        loop {
            let status = http.get(&address).send().await.unwrap().status().as_u16();
            if said.last() != Some(&status) {
                said.push(status);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        done = meanwhile => (done, said),
        () = asking => unreachable!(),
    }
}

/// The identifiers of the room's messages, oldest first, as a node tells them.
async fn messages(client: &Client, room: &str) -> Vec<String> {
    let page = client.get(&at(room, "/messages?dir=f&limit=1000")).await.ok();
    let messages = page["chunk"].as_array().unwrap().iter().filter(|event| event["type"] == "m.room.message");
    messages.map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
}

/// It is cut off without a farewell at the worst moment, within a transaction that everybody waits for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_falls_silent_with_the_lock_of_the_log_holds_nobody_up_for_long() {
    let Some(database) = new_postgres_database().await else {
        eprintln!("skipped: ./test starts a PostgreSQL for this");
        return;
    };
    let (wire, url) = Wire::to_postgres(&database).await;
    let mut world = World::on_database(&database).await;
    world.add_node_on(&database).await;
    world.add_node_on(&url).await;
    let alice = world.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let [first, second, silent] = [0, 1, 2].map(|node| alice.clone().at_node(&world, node));

    let mut number = 0;
    let (doomed, since) = loop {
        number += 1;
        wire.cut.store(SILENT, Ordering::SeqCst);
        let (client, path) = (silent.clone(), at(&room, "/state/org.example.doomed/"));
        let set = start(async move { client.put(&path, json!({ "number": number })).await });
        wire.flow.subscribe().wait_for(|flow| *flow == Flow::Silent).await.unwrap();
        let since = Instant::now();
        if find_silent_holder(&database).await.is_some() {
            break (set, since);
        }
        // Another transaction of that node was caught.
        wire.flow.send_replace(Flow::Open);
        set.await.unwrap();
        assert!(number < 50, "the state is never caught");
    };
    let ((one, first_ready), (two, second_ready)) = tokio::join!(
        readiness(&world, 0, send_on(&first, &room, "one", since)),
        readiness(&world, 1, send_on(&second, &room, "two", since)),
    );
    for (node, (_, worst), ready) in [(0, &one, first_ready), (1, &two, second_ready)] {
        eprintln!("node {node} stalled for {worst:?} at most; /ready said {ready:?}");
        assert!(*worst < STALL, "node {node} stalled for {worst:?}");
    }

    // It wakes up, with a transaction that is over, and a client that may not even be there any more.
    wire.flow.send_replace(Flow::Open);
    let doomed: Reply = doomed.await.unwrap();
    if doomed.status != 200 {
        doomed.refused(503, "M_UNKNOWN");
        let set = first.get(&at(&room, "/state/org.example.doomed/")).await;
        assert_ne!(set.body["number"], number, "it was refused");
    }
    world.until_ready_says(2, 200, Duration::from_secs(30)).await;
    let last = insist(&silent, &room, "awake").await;
    let told = messages(&first, &room).await;
    for (sent, _) in [one, two] {
        let there: Vec<_> = told.iter().filter(|id| sent.contains(id)).cloned().collect();
        assert_eq!(there, sent, "what was acknowledged is there once and in order");
    }
    assert_eq!((told.len(), told.last()), (81, Some(&last)), "and nothing else");
    for node in [&second, &silent] {
        assert_eq!(messages(node, &room).await, told);
    }
}

/// It is reached by the other nodes as ever, and does not get done what they forward to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_postgres_gives_up_what_was_forwarded_to_it() {
    let Some(database) = new_postgres_database().await else {
        eprintln!("skipped: ./test starts a PostgreSQL for this");
        return;
    };
    let (wire, url) = Wire::to_postgres(&database).await;
    let mut world = World::on_database(&database).await;
    world.add_node_on(&url).await;
    let alice = world.user("alice").await.at_node(&world, 0);
    let mut rooms = Vec::new();
    // Some of them are written to by the second node.
    for _ in 0..8 {
        rooms.push(alice.create_room(json!({})).await);
    }
    wire.flow.send_replace(Flow::Silent);
    let started = Instant::now();
    let alice = &alice;
    let sends = rooms.iter().map(|room| async move { (room, insist(alice, room, "hello").await, started.elapsed()) });
    let sent = futures_util::future::join_all(sends).await;
    let worst = sent.iter().map(|(_, _, took)| *took).max().unwrap();
    eprintln!("the longest send took {worst:?}");
    assert!(worst < STALL, "a send took {worst:?}");
    wire.flow.send_replace(Flow::Open);
    world.until_ready_says(1, 200, Duration::from_secs(30)).await;
    let there = alice.clone().at_node(&world, 1);
    for (room, event_id, _) in sent {
        assert_eq!(messages(&there, room).await, [event_id]);
    }
}
