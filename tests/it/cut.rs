//! A wire between a node and PostgreSQL that is cut: exactly at COMMIT, so that nobody says whether it took place, or
//! for as long as it pleases.

use std::{
    path::PathBuf,
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

use crate::world::{World, escape, new_postgres_database};

const NEVER: u8 = 0;
/// The server never gets to see the COMMIT.
const BEFORE: u8 = 1;
/// The server commits, and its answer is lost.
const AFTER: u8 = 2;

/// Between a node and PostgreSQL.
#[derive(Clone)]
struct Wire {
    socket: PathBuf,
    /// Where the next COMMIT is cut.
    cut: Arc<AtomicU8>,
    /// Whether nothing gets through at all.
    down: watch::Sender<bool>,
}

impl Wire {
    /// Listens on this machine and carries everything to the server behind `url`. Gives the URL of this end.
    async fn start(url: &str) -> (Self, String) {
        let options: PgConnectOptions = url.parse().unwrap();
        let folder = options.get_socket().unwrap();
        let wire = Self { socket: folder.join(".s.PGSQL.5432"), cut: Arc::default(), down: watch::Sender::new(false) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here =
            format!("postgres://postgres@{}/{}", listener.local_addr().unwrap(), options.get_database().unwrap());
        let carrier = wire.clone();
        spawn(async move {
            while let Ok((node, _)) = listener.accept().await {
                spawn(carrier.clone().carry(node));
            }
        });
        (wire, here)
    }

    async fn carry(self, mut node: TcpStream) {
        let mut down = self.down.subscribe();
        if *down.borrow() {
            return;
        }
        let mut server = UnixStream::connect(&self.socket).await.unwrap();
        let (mut from_node, mut from_server) = (vec![0; 65_536], vec![0; 65_536]);
        loop {
            let carried = tokio::select! {
                _ = down.changed() => return,
                read = node.read(&mut from_node) => match read {
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
                read = server.read(&mut from_server) => match read {
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
    let (wire, url) = Wire::start(&database).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_is_not_ready_and_says_nothing_stale() {
    let Some(database) = new_postgres_database().await else {
        eprintln!("skipped: ./test starts a PostgreSQL for this");
        return;
    };
    let (wire, url) = Wire::start(&database).await;
    let mut world = World::on_database(&database).await;
    world.add_node_on(&url).await;
    let alice = world.user("alice").await.at_node(&world, 0);
    let room = alice.create_room(json!({ "name": "Kitchen" })).await;
    let name = format!("/_matrix/client/v3/rooms/{}/state/m.room.name/", escape(&room));
    let there = alice.clone().at_node(&world, 1);
    assert_eq!(there.get(&name).await.ok()["name"], "Kitchen");
    let ready = async || reqwest::get(format!("{}/ready", world.nodes[1].url)).await.unwrap().status().as_u16();
    let until = async |status: u16| {
        let waited = tokio::time::timeout(Duration::from_secs(30), async {
            while ready().await != status {
                tokio::task::yield_now().await;
            }
        });
        assert!(waited.await.is_ok(), "/ready never says {status}");
    };

    wire.down.send_replace(true);
    alice.put(&name, json!({ "name": "Bath" })).await.ok();
    // It remembers the room well, and knows that it may have changed.
    there.get(&name).await.refused(503, "M_UNKNOWN");
    until(503).await;
    wire.down.send_replace(false);
    until(200).await;
    // Connections that died meanwhile are found out before they are used.
    assert_eq!(there.get(&name).await.ok()["name"], "Bath");
}
