//! What follows from an act follows everywhere: beside other acts of the same user on other nodes, and for what is
//! under way while it happens. That it follows although a process is killed is in `durable_acts.rs`.

use std::time::Duration;

use ruma::UserId;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    on_both,
    world::{Client, Reply, World, at, escape, next},
};

const WHOAMI: &str = "/_matrix/client/v3/account/whoami";
const LOGOUT: &str = "/_matrix/client/v3/logout";

/// The same user at a node, counted on around the cluster.
fn at_node(world: &World, client: &Client, number: usize) -> Client {
    client.clone().at_node(world, number % world.nodes.len())
}

fn name_of(client: &Client) -> String {
    format!("/_matrix/client/v3/profile/{}/displayname", escape(&client.user_id))
}

async fn set_name(client: &Client, name: &str) -> Reply {
    client.put(&name_of(client), json!({ "displayname": name })).await
}

/// What a room says of one of its members.
async fn member(reader: &Client, room: &str, user_id: &str) -> Reply {
    reader.get(&at(room, &format!("/state/m.room.member/{}", escape(user_id)))).await
}

/// Checks that all rooms call somebody what their profile does, and returns what that is.
async fn agreed_name(client: &Client, rooms: &[String]) -> Value {
    let name = client.get(&name_of(client)).await.ok()["displayname"].clone();
    for room in rooms {
        let member = member(client, room, &client.user_id).await.ok();
        assert_eq!((&member["membership"], &member["displayname"]), (&json!("join"), &name), "in {room}");
    }
    name
}

on_both! {
    async fn names_at_once_are_one_name_in_every_room(world) {
        let (alice, host) = (world.user("alice").await, world.user("host").await);
        let mut rooms = Vec::new();
        for _ in 0..5 {
            rooms.push(alice.create_room(json!({})).await);
        }
        for round in 0..6 {
            let open = host.create_room(json!({ "preset": "public_chat" })).await;
            let node = |number: usize| at_node(&world, &alice, round + number);
            let (one, other, third) = (node(0), node(1), node(2));
            let names = [format!("One {round}"), format!("Other {round}")];
            let (first, second, joined, made) = tokio::join!(
                set_name(&one, &names[0]),
                set_name(&other, &names[1]),
                third.join(&open),
                third.create_room(json!({})),
            );
            for reply in [first, second, joined] {
                reply.ok();
            }
            rooms.extend([open, made]);
            let name = agreed_name(&node(round), &rooms).await;
            assert!(names.iter().any(|given| name == **given), "{name}");
        }
    }

    async fn whoever_joins_while_they_are_renamed_is_called_by_the_new_name(world) {
        let (alice, host) = (world.user("alice").await, world.user("host").await);
        let mut rooms = Vec::new();
        for round in 0..8 {
            let mut open = Vec::new();
            for _ in 0..3 {
                open.push(host.create_room(json!({ "preset": "public_chat" })).await);
            }
            let (renamed, joining) = (at_node(&world, &alice, round), at_node(&world, &alice, round + 1));
            let name = format!("Name {round}");
            let joins = futures_util::future::join_all(open.iter().map(|room| joining.join(room)));
            let (renamed, joined) = tokio::join!(set_name(&renamed, &name), joins);
            renamed.ok();
            for reply in joined {
                reply.ok();
            }
            rooms.extend(open);
            assert_eq!(agreed_name(&alice, &rooms).await, *name);
        }
    }

    /// However it came that a room lacks it.
    async fn a_name_that_is_set_again_reaches_the_rooms_that_lack_it(world) {
        let alice = world.user("alice").await;
        let rooms = [alice.create_room(json!({})).await, alice.create_room(json!({})).await];
        set_name(&alice, "Alice").await.ok();
        let since = next(&alice.sync(None).await);
        set_name(&alice, "Alice").await.ok();
        let sync = alice.sync(Some(&since)).await;
        assert_eq!(sync["rooms"], Value::Null, "where nothing is lacking, nobody hears of it");
        let own = at(&rooms[1], &format!("/state/m.room.member/{}", escape(&alice.user_id)));
        alice.put(&own, json!({ "membership": "join", "displayname": "Somebody" })).await.ok();
        set_name(&alice, "Alice").await.ok();
        agreed_name(&alice, &rooms).await;
    }

    async fn whoever_is_deactivated_is_in_no_room_whatever_happens_beside(world) {
        let (operator, host) = (world.administration().await, world.user("host").await);
        let open = host.create_room(json!({ "preset": "public_chat" })).await;
        let other = host.create_room(json!({ "preset": "public_chat" })).await;
        let closed = host.create_room(json!({})).await;
        let knocking = host.create_room(json!({ "initial_state": [
            { "type": "m.room.join_rules", "content": { "join_rule": "knock" } },
        ] })).await;
        for round in 0..6 {
            let user = world.user(&format!("user{round}")).await;
            user.join(&other).await.ok();
            let node = |number: usize| at_node(&world, &user, round + number);
            let (ending, joining, elsewhere) = (node(0), node(1), node(2));
            let inviting = at_node(&world, &host, round + 2);
            let deactivate = json!({ "auth": user.password() });
            let knock = format!("/_matrix/client/v3/knock/{}", escape(&knocking));
            let (ended, ..) = tokio::join!(
                ending.post("/_matrix/client/v3/account/deactivate", deactivate),
                // What these are answered depends on who was first.
                joining.join(&open),
                joining.post(&knock, json!({})),
                elsewhere.post("/_matrix/client/v3/createRoom", json!({})),
                inviting.invite(&closed, &user.user_id),
                inviting.post("/_matrix/client/v3/createRoom", json!({ "invite": [user.user_id] })),
            );
            ended.ok();
            let user_id = UserId::parse(&user.user_id).unwrap();
            assert_eq!(operator.count_rooms(&user_id).await.unwrap(), 0, "in round {round}");
            inviting.invite(&closed, &user.user_id).await.refused(403, "M_FORBIDDEN");
            joining.join(&open).await.refused(401, "M_UNKNOWN_TOKEN");
        }
    }

    /// On each node waits one who syncs and one who looks into a room that they are not in.
    async fn whatever_waits_ends_with_the_session_on_every_node(world) {
        let (alice, host) = (world.user("alice").await, world.user("host").await);
        let room = host.create_room(json!({ "preset": "public_chat", "initial_state": [
            { "type": "m.room.history_visibility", "content": { "history_visibility": "world_readable" } },
        ] })).await;
        for round in 0..world.nodes.len() {
            let session = world.login(&alice).await;
            let since = next(&session.sync(None).await);
            let sync = format!("/_matrix/client/v3/sync?set_presence=offline&timeout=120000&since={since}");
            let look = format!("/_matrix/client/v3/events?timeout=120000&room_id={}&from={since}", escape(&room));
            let clients: Vec<_> = (0..world.nodes.len()).map(|node| at_node(&world, &session, node)).collect();
            let waiting = clients.iter().flat_map(|client| [client.get(&sync), client.get(&look)]);
            let waiting = futures_util::future::join_all(waiting);
            let logout = async {
                until(|| world.nodes.iter().all(|node| {
                    node.app.metrics.render().unwrap().contains("hearth_waiting_syncs 2")
                })).await;
                at_node(&world, &session, round).post(LOGOUT, json!({})).await.ok();
                for client in &clients {
                    client.get(WHOAMI).await.refused(401, "M_UNKNOWN_TOKEN");
                }
            };
            let (replies, ()) = tokio::join!(waiting, logout);
            for reply in replies {
                reply.refused(401, "M_UNKNOWN_TOKEN");
            }
        }
        alice.get(WHOAMI).await.ok();
    }

    /// A body may take minutes. Whoever has no session any more when it is there does nothing.
    async fn whoever_is_logged_out_while_their_body_comes_does_nothing(world) {
        let (alice, root) = (world.user("alice").await, world.administrator("root").await);
        let room = alice.create_room(json!({})).await;
        let [said, locked] = ["said", "locked"].map(|id| at(&room, &format!("/send/m.room.message/{id}")));
        let mut slow = SlowCall::begin(&world, &alice, "PUT", &locked).await;
        let lock = format!("/_matrix/client/v1/admin/lock/{}", escape(&alice.user_id));
        root.put(&lock, json!({ "locked": true })).await.ok();
        assert!(slow.finish().await.contains("M_USER_LOCKED"));
        root.put(&lock, json!({ "locked": false })).await.ok();

        let session = world.login(&alice).await;
        let mut slow = SlowCall::begin(&world, &session, "PUT", &said).await;
        session.post(LOGOUT, json!({})).await.ok();
        assert!(slow.finish().await.contains("M_UNKNOWN_TOKEN"));
        let messages = alice.get(&at(&room, "/messages?dir=b&limit=50")).await.ok();
        let chunk = messages["chunk"].as_array().unwrap();
        assert!(chunk.iter().all(|event| event["type"] != "m.room.message"), "{chunk:?}");
    }
}

/// Waits for something that another task brings about.
async fn until(holds: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("it never comes to that");
}

/// A call whose body has not been sent yet.
struct SlowCall(TcpStream);

const BODY: &str = r#"{"msgtype":"m.text","body":"too late"}"#;

impl SlowCall {
    /// Sends the head, and waits until the first node has judged it and wants the body.
    async fn begin(world: &World, client: &Client, method: &str, path: &str) -> Self {
        let address = world.nodes[0].url.trim_start_matches("http://").to_owned();
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
            client.token,
            BODY.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 64];
        let length = stream.read(&mut answer).await.unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&answer[..length]));
        Self(stream)
    }

    /// Sends the body and returns the whole answer.
    async fn finish(&mut self) -> String {
        self.0.write_all(BODY.as_bytes()).await.unwrap();
        let mut answer = String::new();
        self.0.read_to_string(&mut answer).await.unwrap();
        answer
    }
}
