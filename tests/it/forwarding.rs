//! What one node sends on to another: a node that is silent is not waited for, one that lives may take its time, and
//! what two nodes have done has happened once.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::world::{Client, World, at, escape, new_postgres_database};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the wire in front of a node lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Open,
    /// Connections are taken, and what is said goes nowhere: the node is stopped, or was cut off without a farewell.
    Silent,
    /// What is said gets there, and nothing comes back.
    Deaf,
}

/// In front of a node, where the others reach it.
#[derive(Clone)]
struct Wire {
    node: SocketAddr,
    flow: watch::Sender<Flow>,
    /// What was said into the silence, on each connection.
    held: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Wire {
    /// Listens, and gives the address of this end.
    async fn to(node: SocketAddr) -> (Self, String) {
        let wire = Self { node, flow: watch::Sender::new(Flow::Open), held: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = format!("http://{}", listener.local_addr().unwrap());
        let carrier = wire.clone();
        spawn(async move {
            while let Ok((other, _)) = listener.accept().await {
                spawn(carrier.clone().carry(other));
            }
        });
        (wire, here)
    }

    async fn carry(self, mut other: TcpStream) {
        let mut node = TcpStream::connect(self.node).await.unwrap();
        let (mut from_other, mut from_node) = (vec![0; 65_536], vec![0; 65_536]);
        let mut said = Vec::new();
        loop {
            let carried = tokio::select! {
                read = other.read(&mut from_other) => match read {
                    Ok(length) if length > 0 && *self.flow.borrow() == Flow::Silent => {
                        said.extend_from_slice(&from_other[..length]);
                        continue;
                    }
                    Ok(length) if length > 0 => node.write_all(&from_other[..length]).await,
                    _ => break,
                },
                read = node.read(&mut from_node) => match read {
                    Ok(length) if length > 0 && *self.flow.borrow() == Flow::Deaf => continue,
                    Ok(length) if length > 0 => other.write_all(&from_node[..length]).await,
                    _ => break,
                },
            };
            if carried.is_err() {
                break;
            }
        }
        if !said.is_empty() {
            self.held.lock().push(said);
        }
    }

    /// The call with these words that was said into the silence, once whoever said it has given up.
    async fn held(&self, words: &str) -> Vec<u8> {
        let find = || {
            let held = self.held.lock();
            held.iter().find(|said| said.windows(words.len()).any(|part| part == words.as_bytes())).cloned()
        };
        until("they give up", async || find().is_some()).await;
        find().unwrap()
    }
}

#[expect(clippy::disallowed_methods, reason = "the wire ends with the test")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_elapsed| panic!("in vain: {what}"));
}

/// Two nodes, the second of which the first reaches over a wire, and a room that is written to there.
struct Pair {
    world: World,
    wire: Wire,
    alice: Client,
    room: String,
    /// What was given up before the test began: a slow machine may have been slow.
    given_up_before: u32,
}

impl Pair {
    async fn start() -> Option<Self> {
        let Some(database) = new_postgres_database().await else {
            eprintln!("skipped: ./test starts a PostgreSQL for this");
            return None;
        };
        let mut world = World::on_database(&database).await;
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (wire, here) = Wire::to(free).await;
        world.config.listen = vec![free.to_string().parse().unwrap()];
        world.config.cluster.advertise = Some(here.try_into().unwrap());
        world.add_node_on(&database).await;
        let alice = world.user("alice").await.at_node(&world, 0);
        let mut pair = Self { world, wire, alice, room: String::new(), given_up_before: 0 };
        while pair.count("hearth_forwarded_requests_total") == 0 {
            pair.room = pair.alice.create_room(json!({ "preset": "public_chat" })).await;
            pair.alice.say(&pair.room, "whose are you?").await;
        }
        pair.given_up_before = pair.given_up();
        Some(pair)
    }

    /// A counter of the first node.
    fn count(&self, name: &str) -> u32 {
        let metrics = self.world.nodes[0].app.metrics.render().unwrap();
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        value.parse().unwrap()
    }

    fn forwarded(&self) -> u32 {
        self.count("hearth_forwarded_requests_total")
    }

    fn given_up(&self) -> u32 {
        self.count("hearth_forwards_given_up_total") - self.given_up_before
    }

    fn send_path(&self, transaction: &str) -> String {
        at(&self.room, &format!("/send/m.room.message/{transaction}"))
    }

    /// Sends until the second node has been asked whether it is there again, and has been silent.
    async fn until_asked_in_vain(&self) {
        until("it is asked", async || {
            self.alice.say(&self.room, "go on").await;
            self.wire.held.lock().len() >= 2
        })
        .await;
    }

    /// The texts in the room, oldest first, as the second node tells them.
    async fn texts(&self) -> Vec<(String, String)> {
        let there = self.alice.clone().at_node(&self.world, 1);
        let page = there.get(&at(&self.room, "/messages?dir=f&limit=100")).await.ok();
        let messages = page["chunk"].as_array().unwrap().iter().filter(|event| event["type"] == "m.room.message");
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        messages.map(|event| (text(&event["event_id"]), text(&event["content"]["body"]))).skip(1).collect()
    }

    /// Delivers to the second node what the first has given up long ago, and gives what it answers.
    async fn deliver_late(&self, said: &[u8]) -> String {
        let mut connection = TcpStream::connect(self.wire.node).await.unwrap();
        connection.write_all(said).await.unwrap();
        let (mut answer, mut part) = (String::new(), vec![0; 4096]);
        let read = tokio::time::timeout(PATIENCE, async {
            // The answer ends with its JSON, and the connection stays.
            while !answer.contains('}') {
                let length = connection.read(&mut part).await.unwrap();
                assert!(length > 0, "it hung up: {answer}");
                answer.push_str(&String::from_utf8_lossy(&part[..length]));
            }
        });
        read.await.expect("it answers");
        answer
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_waits_for_a_silent_node_and_not_for_long() {
    let Some(pair) = Pair::start().await else { return };
    pair.wire.flow.send_replace(Flow::Silent);
    let mut sent = Vec::new();
    let started = Instant::now();
    for number in 0..5 {
        sent.push(pair.alice.say(&pair.room, &format!("{number}")).await);
        if number == 0 {
            eprintln!("the first send took {:?}", started.elapsed());
        }
    }
    assert!(started.elapsed() < Duration::from_secs(9), "five sends took {:?}", started.elapsed());
    pair.until_asked_in_vain().await;
    assert_eq!(pair.given_up(), 1, "who is silent is not waited for again, and no request asks after it");
    let texts = pair.texts().await;
    assert_eq!(texts.iter().map(|(id, _)| id).take(5).collect::<Vec<_>>(), sent.iter().collect::<Vec<_>>());

    // It is asked whether it is there again, and gets its share.
    pair.wire.flow.send_replace(Flow::Open);
    let before = pair.forwarded();
    until("it is forwarded to", async || {
        pair.alice.say(&pair.room, "again").await;
        pair.forwarded() > before
    })
    .await;
}

/// The node did the work, and nobody heard of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_both_nodes_have_done_has_happened_once() {
    let Some(pair) = Pair::start().await else { return };
    pair.wire.flow.send_replace(Flow::Deaf);
    let body = json!({ "msgtype": "m.text", "body": "once" });
    let answered = pair.alice.put(&pair.send_path("once"), body.clone()).await.ok();
    assert_eq!(pair.given_up(), 1, "the first node has done it");
    let target = answered["event_id"].as_str().unwrap().to_owned();
    assert_eq!(pair.texts().await, [(target.clone(), "once".to_owned())]);
    // A retry, wherever it goes, is the same message.
    for node in 0..2 {
        let retried = pair.alice.clone().at_node(&pair.world, node).put(&pair.send_path("once"), body.clone()).await;
        assert_eq!(retried.ok(), answered);
    }
    assert_eq!(pair.texts().await.len(), 1);
}

/// It was stopped with the call in hand, and does it when it wakes up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_does_late_changes_nothing() {
    let Some(pair) = Pair::start().await else { return };
    let name = at(&pair.room, "/state/m.room.name/");
    pair.wire.flow.send_replace(Flow::Silent);
    // A name is set and set anew. No call that names no transaction is in a silent node's hand: done late, it would
    // bring the old name back.
    pair.alice.put(&name, json!({ "name": "Kitchen" })).await.ok();
    pair.alice.put(&name, json!({ "name": "Bath" })).await.ok();
    assert_eq!(pair.given_up(), 0);

    let body = json!({ "msgtype": "m.text", "body": "once" });
    let answered = pair.alice.put(&pair.send_path("once"), body).await.ok();
    let event_id = answered["event_id"].as_str().unwrap();
    let redaction = at(&pair.room, &format!("/redact/{}/gone", escape(event_id)));
    pair.until_asked_in_vain().await;
    pair.wire.flow.send_replace(Flow::Open);
    until("it is forwarded to", async || {
        let before = pair.forwarded();
        pair.alice.say(&pair.room, "go on").await;
        pair.forwarded() > before
    })
    .await;
    let given_up = pair.given_up();
    pair.wire.flow.send_replace(Flow::Silent);
    let redacted = pair.alice.put(&redaction, json!({ "reason": "late" })).await.ok();
    assert_eq!(pair.given_up(), given_up + 1);
    let before = pair.texts_and_redactions().await;

    let redaction_id = redacted["event_id"].as_str().unwrap();
    for (said, expected) in [("/send/m.room.message/once", event_id), ("/redact/", redaction_id)] {
        let said = pair.wire.held(said).await;
        assert!(said.starts_with(b"POST /_hearth/forwarded HTTP/1.1\r\n"));
        let answer = pair.deliver_late(&said).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(expected), "{answer}");
    }
    assert_eq!(pair.texts_and_redactions().await, before, "nothing has happened twice");
    assert_eq!(pair.alice.get(&name).await.ok()["name"], "Bath");
}

impl Pair {
    /// The identifiers of all events in the room but its first state.
    async fn texts_and_redactions(&self) -> Vec<String> {
        let page = self.alice.get(&at(&self.room, "/messages?dir=b&limit=1000")).await.ok();
        let events = page["chunk"].as_array().unwrap().iter();
        events.map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
    }
}

/// The database keeps it waiting for longer than a node may be silent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lives_may_take_its_time() {
    let Some(pair) = Pair::start().await else { return };
    // A busy machine may miss a sign: of a few calls one is carried to its end.
    for number in 0..5 {
        let (forwarded, given_up) = (pair.forwarded(), pair.given_up());
        let text = format!("in good time {number}");
        let held = pair.world.hold_writes().await;
        let release = async {
            tokio::time::sleep(Duration::from_millis(1_400)).await;
            drop(held);
        };
        let (event_id, ()) = tokio::join!(pair.alice.say(&pair.room, &text), release);
        let said: Vec<_> = pair.texts().await.into_iter().filter(|(_, said)| *said == text).collect();
        assert_eq!(said, [(event_id, text)], "once, whoever wrote it");
        if (pair.forwarded(), pair.given_up()) == (forwarded + 1, given_up) {
            return;
        }
    }
    panic!("a node that lives is given up");
}

/// To whoever has no seal there is nothing at the address that nodes forward to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_find_nothing_where_nodes_forward_to() {
    let Some(pair) = Pair::start().await else { return };
    let there = pair.alice.clone().at_node(&pair.world, 1);
    there.post("/_hearth/forwarded", json!({})).await.refused(404, "M_UNRECOGNIZED");
    there.get("/_hearth/forwarded").await.refused(404, "M_UNRECOGNIZED");
    // Somebody has seen a call between nodes.
    pair.wire.flow.send_replace(Flow::Silent);
    pair.alice.say(&pair.room, "hello").await;
    let seen = pair.wire.held("/send/").await;
    let count = pair.texts().await.len();
    let altered = [&seen[..seen.len() - 1], b"?"].concat();
    let mut connection = TcpStream::connect(pair.wire.node).await.unwrap();
    connection.write_all(&altered).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = connection.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
    assert_eq!(pair.texts().await.len(), count);
}
