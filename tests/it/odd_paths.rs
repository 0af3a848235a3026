//! Whatever a client writes in a path means itself, on whichever node it arrives: a state key `..` is no way up, and a
//! transaction id with a backslash in it has no parts.
//!
//! The same calls go to each node of a cluster and to a server of one node, byte for byte over plain sockets: HTTP
//! libraries would tidy the paths up. All answers are the same.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::world::{Client, Engine, World, escape};

/// Parts of a path, as they are written.
const ODD: &[&str] = &[
    ".",
    "..",
    "...",
    "%2E",
    "%2e%2E",
    ".%2e",
    "%2E%2E%2F%2E%2E",
    "..%2F..%2Fadmin",
    "..%5C..",
    "..\\..\\..",
    "\\",
    "\\\\",
    "a\\..\\..\\..\\..\\..\\v1\\admin\\lock\\@bob:localhost",
    "..\\..\\..\\..\\..\\v3\\admin\\whois\\@alice:localhost",
    "/",
    "..//",
    "../..",
    "../../../../account/whoami",
    "./x",
    "x/../y",
    "a//b",
    "%2F",
    "%2F%2Fa",
    "a;b=c",
    "a%3Fb%23c",
    "a?b=c",
    "a?b=/../c&d=\\",
    "%25",
    "%252E%252E",
    "%",
    "%G1",
    "%00",
    "%FF",
    "%E2%98%95",
    "☕",
    "%0A%0D",
    "%20+",
    "~{x}|^`\"'",
    "*",
    ":x",
    "http://localhost/x",
];

/// A call with its path as it stands there.
async fn raw(url: &str, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let mut connection = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    let body = if method == "GET" { String::new() } else { body.to_string() };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(json!(body)))
}

/// A server, and the addresses of its nodes.
struct Site {
    world: World,
    alice: Client,
    /// Rooms for each of the nodes, or so: which node writes in a room is drawn by lot.
    rooms: Vec<String>,
}

impl Site {
    async fn start(engine: Engine) -> Option<Self> {
        let world = World::on(engine, |_| ()).await?;
        let alice = world.user("alice").await;
        world.user("bob").await;
        let mut rooms = Vec::new();
        for _ in 0..4 {
            rooms.push(alice.create_room(json!({})).await);
        }
        Some(Self { world, alice, rooms })
    }

    /// What node number `node`, or the only one, answers, without what differs from room to room.
    async fn ask(&self, node: usize, (method, path): (&str, &str), body: &Value) -> (u16, Value) {
        let url = &self.world.nodes[node % self.world.nodes.len()].url;
        let (status, mut answer) = raw(url, &self.alice.token, method, path, body).await;
        let unnamed = |text: String, room: &String| text.replace(room, "ROOM");
        let mut text = self.rooms.iter().fold(answer.to_string(), unnamed);
        if let Some(event_id) = answer.get_mut("event_id") {
            assert!(event_id.as_str().is_some_and(|id| id.starts_with('$')), "{answer}");
            text = json!({ "event_id": true }).to_string();
        }
        (status, serde_json::from_str(&text).unwrap())
    }

    /// The answers to one sort of call, with each odd part, at each node.
    async fn ask_all(&self, method: &str, path: &str) -> Vec<(String, (u16, Value))> {
        let mut answers = Vec::new();
        for (number, odd) in ODD.iter().enumerate() {
            let room = number % self.rooms.len();
            let mut of_part = Vec::new();
            for node in 0..3 {
                let path = path.replace("ROOM", &escape(&self.rooms[room])).replace("ODD", odd);
                let path = path.replace("NODE", &format!("{number}.{node}"));
                let body = json!({ "msgtype": "m.text", "body": odd, "room_id": self.rooms[room] });
                of_part.push(self.ask(node, (method, &path), &body).await);
            }
            let [first, others @ ..] = &*of_part else { unreachable!("three nodes") };
            for other in others {
                assert_eq!(other, first, "the nodes differ about {method} {path} with {odd}");
            }
            answers.push(((*odd).to_owned(), first.clone()));
        }
        answers
    }
}

/// Where an odd part can stand. Reads follow the writes that they read.
const CALLS: &[(&str, &str)] = &[
    ("PUT", "/_matrix/client/v3/rooms/ROOM/send/m.room.message/ODD"),
    ("PUT", "/_matrix/client/v3/rooms/ROOM/send/ODD/NODE"),
    ("PUT", "/_matrix/client/v3/rooms/ODD/send/m.room.message/NODE"),
    ("PUT", "/_matrix/client/v3/rooms/ROOM/state/org.example.odd/ODD"),
    ("GET", "/_matrix/client/v3/rooms/ROOM/state/org.example.odd/ODD"),
    ("PUT", "/_matrix/client/v3/rooms/ROOM/state/ODD/key"),
    ("GET", "/_matrix/client/v3/rooms/ROOM/state/ODD/key"),
    ("PUT", "/_matrix/client/v3/rooms/ROOM/redact/ODD/NODE"),
    ("PUT", "/_matrix/client/v3/user/@alice:localhost/account_data/ODD"),
    ("GET", "/_matrix/client/v3/user/@alice:localhost/account_data/ODD"),
    ("GET", "/_matrix/client/v3/directory/room/ODD"),
    ("GET", "/_matrix/client/v3/profile/ODD"),
    ("GET", "/_matrix/client/v3/rooms/ROOM/event/ODD"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_parts_of_a_path_mean_themselves_on_every_node() {
    let Some(cluster) = Site::start(Engine::Cluster).await else {
        eprintln!("skipped: ./test starts a PostgreSQL and a Redis for this");
        return;
    };
    let single = Site::start(Engine::Postgres).await.unwrap();
    for (method, path) in CALLS {
        let (there, here) = (cluster.ask_all(method, path).await, single.ask_all(method, path).await);
        for ((odd, there), (_, here)) in there.iter().zip(&here) {
            assert_eq!(there, here, "a cluster and a single node differ about {method} {path} with {odd}");
        }
    }
    let forwarded = cluster.world.metrics();
    let forwarded = forwarded.lines().filter_map(|line| line.strip_prefix("hearth_forwarded_requests_total "));
    let forwarded: u32 = forwarded.map(|count| count.parse::<u32>().unwrap()).sum();
    assert!(forwarded > 30, "only {forwarded} calls went to another node");
    assert!(!cluster.world.metrics().contains("/admin/"), "nobody has asked for that");
}

/// What was written is what is read: the names themselves, and not only the same ones everywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_names_are_kept_as_they_are() {
    let Some(site) = Site::start(Engine::Cluster).await else {
        eprintln!("skipped: ./test starts a PostgreSQL and a Redis for this");
        return;
    };
    for (number, (written, means)) in
        [("..", ".."), (".", "."), ("%2E%2E", ".."), ("\\..\\..", "\\..\\.."), ("%2F..%2F", "/../"), ("%252E", "%2E")]
            .into_iter()
            .enumerate()
    {
        for node in 0..3 {
            let (url, room) = (&site.world.nodes[node].url, &site.rooms[number % 4]);
            let path = format!("/_matrix/client/v3/rooms/{}", escape(room));
            let body = json!({ "node": node });
            let ask = async |method: &str, rest: &str| {
                let (status, answer) = raw(url, &site.alice.token, method, &format!("{path}{rest}"), &body).await;
                assert_eq!(status, 200, "{method} {rest}: {answer}");
                answer
            };
            let event_of = async |answer: Value| {
                ask("GET", &format!("/event/{}", escape(answer["event_id"].as_str().unwrap()))).await
            };
            let message = event_of(ask("PUT", &format!("/send/{written}/{written}{node}")).await).await;
            assert_eq!(message["type"], means);
            assert_eq!(message["unsigned"]["transaction_id"], format!("{means}{node}"));
            let state = event_of(ask("PUT", &format!("/state/{written}/{written}")).await).await;
            assert_eq!((&state["type"], &state["state_key"]), (&json!(means), &json!(means)));
            assert_eq!(ask("GET", &format!("/state/{written}/{written}")).await, body);
        }
    }
}
