//! A wire between a node and PostgreSQL or Redis that is cut: exactly at COMMIT, so that nobody says whether it took
//! place, or for as long as it pleases, with a word or without.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
};

use crate::world::{Engine, World, escape, http_client, new_postgres_database};

const NEVER: u8 = 0;
/// The server never gets to see the COMMIT.
const BEFORE: u8 = 1;
/// The server commits, and its answer is lost.
const AFTER: u8 = 2;

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

#[expect(clippy::disallowed_methods, reason = "the wire ends with the test")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
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
