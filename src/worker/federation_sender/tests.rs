//! A server with rooms that others are in, and others that take what it sends, or don't. Nothing waits for real time: what
//! the sender does now and then is called by the tests, and the clock stands still until they move it.

mod away;

use std::{collections::BTreeSet, pin::pin};

use futures_util::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use ruma::{
    OwnedServerName, OwnedUserId, RoomId, ServerName,
    api::federation::transactions::send_transaction_message::v1::Request, events::TimelineEventType, server_name,
    user_id,
};
use serde_json::{Value, json};

use super::{transaction::Refused, *};
use crate::{
    edge::federation_client::RemoteError,
    event::{Draft, GraphPlace, Pdu, SigningKey, Standing},
    room::{
        graph::{append::Plan, auth},
        world::RoomWorld,
    },
    store::destination::{self, Destination},
};

const BOB: &str = "@bob:elsewhere";
const CAROL: &str = "@carol:third";

/// What a server does with a transaction.
type Behaviour = Box<dyn Fn(&Request) -> Result<Refused, RemoteError> + Send + Sync>;

/// Every other server there is.
struct Peers {
    behaviour: Mutex<Behaviour>,
    /// What has been taken, by whom.
    taken: Mutex<Vec<(OwnedServerName, Request)>>,
    attempts: Mutex<usize>,
    /// One for each transaction that may arrive.
    gate: Semaphore,
}

impl Carrier for Peers {
    fn deliver<'a>(&'a self, to: &'a ServerName, transaction: Request) -> BoxFuture<'a, Result<Refused, RemoteError>> {
        Box::pin(async move {
            self.gate.acquire().await.unwrap().forget();
            *self.attempts.lock() += 1;
            let refused = (self.behaviour.lock())(&transaction)?;
            self.taken.lock().push((to.to_owned(), transaction));
            Ok(refused)
        })
    }
}

fn events(transaction: &Request) -> Vec<Value> {
    transaction.pdus.iter().map(|pdu| serde_json::from_str(pdu.get()).unwrap()).collect()
}

/// What an event is called here: what it says, or what it is.
fn name(event: &Value) -> String {
    let content = &event["content"];
    let name = content["body"].as_str().or(content["membership"].as_str()).or(event["type"].as_str());
    name.unwrap().to_owned()
}

impl Peers {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            behaviour: Mutex::new(Box::new(|_| Ok(Vec::new()))),
            taken: Mutex::default(),
            attempts: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        })
    }

    fn behave(&self, behaviour: impl Fn(&Request) -> Result<Refused, RemoteError> + Send + Sync + 'static) {
        *self.behaviour.lock() = Box::new(behaviour);
    }

    fn are_away(&self) {
        self.behave(|_| Err(RemoteError::Unreachable("nobody answers".to_owned())));
    }

    fn are_there(&self) {
        self.behave(|_| Ok(Vec::new()));
    }

    /// What a server has got since this was asked last, by transaction.
    fn got(&self, server: &ServerName) -> Vec<Vec<String>> {
        let mut taken = self.taken.lock();
        let (own, others): (Vec<_>, Vec<_>) = taken.drain(..).partition(|(to, _)| *to == server);
        *taken = others;
        own.iter().map(|(_, transaction)| events(transaction).iter().map(name).collect()).collect()
    }

    fn attempts(&self) -> usize {
        *self.attempts.lock()
    }
}

fn sender(world: &RoomWorld, peers: &Arc<Peers>) -> FederationSender {
    let parts = (world.db.clone(), world.rooms.clone(), world.clock.clone(), Random::seeded(7));
    FederationSender::new(parts, (Metrics::new(), Tasks::new()), Arc::clone(peers) as Arc<dyn Carrier>, true)
}

/// One that holds every bucket under a lease.
async fn holder(world: &RoomWorld, peers: &Arc<Peers>, epoch: i64) -> FederationSender {
    let sender = sender(world, peers);
    sender.hold(Bucket::all().map(|bucket| (bucket, Some(Epoch(epoch))))).await.unwrap();
    sender
}

impl FederationSender {
    /// Reads the log to its end and returns who has something to be sent.
    async fn route_all(&self) -> Vec<LaneKey> {
        let mut keys = Vec::new();
        while let Some(woken) = self.route().await.unwrap() {
            keys.extend(woken);
        }
        keys
    }

    async fn send_all(&self) {
        for key in self.route_all().await {
            self.serve(key).await;
        }
    }

    /// Tries those whose turn it is, and returns how many that were.
    async fn wake_all(&self) -> usize {
        let keys = self.wake().await.unwrap();
        let count = keys.len();
        for key in keys {
            self.serve(key).await;
        }
        count
    }

    async fn write_all(&self) {
        self.write_cursors(|_| true).await.unwrap();
    }
}

async fn append(world: &RoomWorld, room: &RoomId, draft: Draft) {
    world.rooms.append(room, |_| Ok(Plan::of(draft.clone()))).await.unwrap();
}

async fn say(world: &RoomWorld, room: &RoomId, sender: &str, body: &str) {
    let content = serde_json::from_value(json!({ "msgtype": "m.text", "body": body })).unwrap();
    append(world, room, Draft::message(id(sender), TimelineEventType::RoomMessage, content)).await;
}

/// Has somebody of whichever server become something in a room.
async fn member(world: &RoomWorld, room: &RoomId, sender: &str, target: &str, membership: &str) {
    let content = serde_json::from_value(json!({ "membership": membership })).unwrap();
    append(world, room, Draft::state(id(sender), TimelineEventType::RoomMember, target, content)).await;
}

fn id(user: &str) -> OwnedUserId {
    OwnedUserId::try_from(user).unwrap()
}

/// Of alice, and these of other servers.
async fn shared_room(world: &RoomWorld, others: &[&str]) -> ruma::OwnedRoomId {
    let room = world.public_room("alice").await;
    for other in others {
        member(world, &room, other, other, "join").await;
    }
    room
}

async fn standing(world: &RoomWorld, server: &ServerName) -> Option<Destination> {
    destination::find(&mut world.db.read().await.unwrap(), server).await.unwrap()
}

const ALICE: &str = "@alice:here";

fn elsewhere() -> &'static ServerName {
    server_name!("elsewhere")
}

fn third() -> &'static ServerName {
    server_name!("third")
}

#[tokio::test]
async fn events_arrive_in_order_fifty_at_a_time() {
    for world in RoomWorld::on_every_engine().await {
        let peers = Peers::new();
        let room = shared_room(&world, &[BOB]).await;
        let sender = holder(&world, &peers, 1).await;
        sender.send_all().await;
        assert_eq!(peers.got(elsewhere()), Vec::<Vec<String>>::new(), "they know what was before they came");
        let said: Vec<String> = (0..120).map(|number| number.to_string()).collect();
        for body in &said {
            say(&world, &room, ALICE, body).await;
        }
        say(&world, &room, BOB, "their own").await;
        sender.send_all().await;
        let ids: BTreeSet<String> =
            peers.taken.lock().iter().map(|(_, transaction)| transaction.transaction_id.to_string()).collect();
        let got = peers.got(elsewhere());
        assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [50, 50, 20]);
        assert_eq!((ids.len(), got.concat()), (3, said));
        assert_eq!(sender.0.outbox.counts(), outbox::Counts::default(), "nothing is remembered of who has everything");
        drop(sender);
        world.close().await;
    }
}

#[tokio::test]
async fn one_transaction_is_on_its_way_at_a_time() {
    let world = RoomWorld::new().await;
    let peers = Peers::new();
    let room = shared_room(&world, &[BOB]).await;
    {
        let sender = holder(&world, &peers, 1).await;
        peers.gate.forget_permits(Semaphore::MAX_PERMITS);
        say(&world, &room, ALICE, "one").await;
        let mut keys = sender.route_all().await;
        let mut serving = pin!(sender.serve(keys.pop().unwrap()));
        assert!(serving.as_mut().now_or_never().is_none() && keys.is_empty());
        for body in ["two", "three"] {
            say(&world, &room, ALICE, body).await;
            assert!(sender.route_all().await.is_empty(), "somebody is at work on it");
            assert!(serving.as_mut().now_or_never().is_none());
        }
        peers.gate.add_permits(10);
        serving.await;
    }
    assert_eq!(peers.got(elsewhere()), [vec!["one"], vec!["two", "three"]]);
    world.close().await;
}

#[tokio::test]
async fn each_event_goes_to_those_who_were_there() {
    for world in RoomWorld::on_every_engine().await {
        let peers = Peers::new();
        let room = shared_room(&world, &[BOB]).await;
        let sender = holder(&world, &peers, 1).await;
        // All of it before anything is sent.
        say(&world, &room, ALICE, "before carol").await;
        member(&world, &room, CAROL, CAROL, "join").await;
        say(&world, &room, ALICE, "to both").await;
        member(&world, &room, ALICE, BOB, "ban").await;
        say(&world, &room, ALICE, "after bob").await;
        member(&world, &room, ALICE, "@dan:fourth", "invite").await;
        member(&world, &room, ALICE, "@dan:fourth", "leave").await;
        let check = || {
            assert_eq!(peers.got(elsewhere()).concat(), ["before carol", "to both", "ban"]);
            assert_eq!(peers.got(third()).concat(), ["to both", "ban", "after bob", "invite", "leave"]);
            assert_eq!(peers.got(server_name!("fourth")).concat(), ["leave"]);
        };
        // As the log had it, and as it is read from the database.
        sender.send_all().await;
        check();
        drop(sender);
        let world = world.restart().await;
        let sender = holder(&world, &peers, 2).await;
        sender.send_all().await;
        check();
        drop(sender);
        world.close().await;
    }
}

#[tokio::test]
async fn a_node_that_dies_loses_nothing_and_repeats_little() {
    for world in RoomWorld::on_every_engine().await {
        let peers = Peers::new();
        let room = shared_room(&world, &[BOB, CAROL]).await;
        let sender = holder(&world, &peers, 1).await;
        sender.send_all().await;
        say(&world, &room, ALICE, "one").await;
        let keys = sender.route_all().await;
        assert_eq!(keys.len(), 2);
        for key in keys.into_iter().filter(|key| key.server == elsewhere()) {
            sender.serve(key).await;
        }
        // It has noted how far it is and dies, with what the third server should have got in memory.
        sender.write_all().await;
        drop(sender);
        assert_eq!((peers.got(elsewhere()).concat(), peers.got(third()).len()), (vec!["one".to_owned()], 0));
        let world = world.restart().await;
        let sender = holder(&world, &peers, 2).await;
        sender.send_all().await;
        assert_eq!(peers.got(third()), [["one"]]);
        assert_eq!(peers.got(elsewhere()).len(), 0, "that was noted");
        // This one dies before it has noted anything.
        drop(sender);
        let sender = holder(&world, &peers, 3).await;
        sender.send_all().await;
        assert_eq!((peers.got(third()), peers.got(elsewhere()).len()), (vec![vec!["one".to_owned()]], 0));
        sender.write_all().await;
        drop(sender);
        let sender = holder(&world, &peers, 4).await;
        sender.send_all().await;
        assert_eq!((peers.got(third()).len(), peers.got(elsewhere()).len()), (0, 0));
        drop(sender);
        world.close().await;
    }
}

#[tokio::test]
async fn two_holders_for_a_moment_do_no_harm() {
    for world in RoomWorld::on_every_engine().await {
        let peers = Peers::new();
        let room = shared_room(&world, &[BOB]).await;
        let (old, new) = (holder(&world, &peers, 1).await, holder(&world, &peers, 2).await);
        say(&world, &room, ALICE, "one").await;
        old.send_all().await;
        new.send_all().await;
        assert_eq!(peers.got(elsewhere()), [["one"], ["one"]]);
        // The old one believes that it has got further, and writes nothing of it.
        say(&world, &room, ALICE, "two").await;
        old.send_all().await;
        old.write_all().await;
        assert_eq!(peers.got(elsewhere()), [["two"]]);
        assert_eq!(old.0.outbox.routed(), None, "it has noticed");
        let another = holder(&world, &peers, 3).await;
        another.send_all().await;
        assert_eq!(peers.got(elsewhere()).concat(), ["one", "two"]);

        // Nor does it write down what it thinks of others.
        peers.are_away();
        say(&world, &room, ALICE, "three").await;
        new.send_all().await;
        assert_eq!(standing(&world, elsewhere()).await, None);
        assert_eq!(new.0.outbox.epoch(Bucket::of(elsewhere())), None);
        peers.are_there();
        another.send_all().await;
        assert_eq!(peers.got(elsewhere()).concat(), ["three"]);
        drop((old, new, another));
        world.close().await;
    }
}

/// Trap: a queue that its peer refuses something of, and that stands still for ever.
#[tokio::test]
async fn what_a_server_does_not_want_is_stepped_over() {
    for world in RoomWorld::on_every_engine().await {
        let peers = Peers::new();
        let room = shared_room(&world, &[BOB]).await;
        let sender = holder(&world, &peers, 1).await;
        sender.send_all().await;
        // Of one event it says that it does not want it.
        peers.behave(|_| Ok(vec![(ruma::event_id!("$some").to_owned(), "no \u{1b}[2J".repeat(10_000))]));
        say(&world, &room, ALICE, "one").await;
        sender.send_all().await;
        assert_eq!(peers.got(elsewhere()), [["one"]]);
        say(&world, &room, ALICE, "two").await;
        sender.send_all().await;
        assert_eq!(peers.got(elsewhere()), [["two"]]);

        // It refuses all of a transaction because of one.
        peers.behave(|transaction| {
            if events(transaction).iter().any(|event| name(event) == "bad") {
                let message = "I can't read that".to_owned();
                return Err(RemoteError::Refused { status: 400, errcode: None, message });
            }
            Ok(Vec::new())
        });
        let said: Vec<String> = (0..60).map(|n| if n == 30 { "bad".to_owned() } else { n.to_string() }).collect();
        for body in &said {
            say(&world, &room, ALICE, body).await;
        }
        sender.send_all().await;
        let wanted: Vec<String> = said.into_iter().filter(|body| body != "bad").collect();
        assert_eq!(peers.got(elsewhere()).concat(), wanted);
        assert_eq!(sender.0.outbox.counts(), outbox::Counts::default());
        sender.write_all().await;
        assert_eq!(standing(&world, elsewhere()).await.unwrap().owed_from, None);

        // One that refuses everything is as good as away. So is one that does not know us: nothing is stepped over.
        for status in [400, 403] {
            let refusal = RemoteError::Refused { status, errcode: None, message: "never".to_owned() };
            peers.behave(move |_| Err(refusal.clone()));
            for number in 0..20 {
                say(&world, &room, ALICE, &number.to_string()).await;
            }
            sender.send_all().await;
            let standing = standing(&world, elsewhere()).await.unwrap();
            assert!(standing.failures == 1 && standing.owed_from.is_some(), "{status}: {standing:?}");
            peers.are_there();
            world.clock.advance(Duration::from_secs(73));
            assert_eq!(sender.wake_all().await, 1);
            assert_eq!(peers.got(elsewhere()), [["19"]]);
        }
        drop(sender);
        world.close().await;
    }
}

/// Among ten thousand messages to a room of a thousand servers there would be ten million rows.
#[tokio::test]
async fn a_message_writes_no_row_for_each_server() {
    let world = RoomWorld::new().await;
    let peers = Peers::new();
    let others: Vec<String> = (0..40).map(|number| format!("@user:s{number}.example")).collect();
    let room = shared_room(&world, &others.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let sender = holder(&world, &peers, 1).await;
    sender.send_all().await;
    peers.taken.lock().clear();
    for number in 0..30 {
        say(&world, &room, ALICE, &number.to_string()).await;
        sender.send_all().await;
    }
    let taken = peers.taken.lock().len();
    assert_eq!(taken, 30 * 40);
    let rows = async || destination::list(&mut world.db.read().await.unwrap(), "", 1_000).await.unwrap();
    assert_eq!(rows().await.len(), 0, "nothing at all while they are there");
    sender.write_all().await;
    assert_eq!(rows().await.len(), 40);
    assert_eq!(sender.0.outbox.counts(), outbox::Counts::default());
    drop(sender);
    world.close().await;
}

#[tokio::test]
async fn what_a_server_hands_over_is_passed_on_to_the_others() {
    for world in RoomWorld::on_every_engine().await {
        let peers = Peers::new();
        let room = shared_room(&world, &[BOB]).await;
        let sender = holder(&world, &peers, 1).await;
        sender.send_all().await;
        sender.write_all().await;
        let join = join_of(&world, &room, user_id!("@carol:third").to_owned()).await;
        let resident = world.rooms.get(&room).await.unwrap();
        assert_eq!(world.rooms.append_relayed(&resident, join, third()).await.unwrap(), Standing::Accepted);
        drop(resident);
        sender.send_all().await;
        assert_eq!((peers.got(elsewhere()), peers.got(third()).len()), (vec![vec!["join".to_owned()]], 0));
        // It is in the log: whoever reads it there passes it on, too, also as what was missed.
        drop(sender);
        let world = world.restart().await;
        let sender = holder(&world, &peers, 2).await;
        peers.are_away();
        sender.send_all().await;
        peers.are_there();
        world.clock.advance(Duration::from_secs(73));
        assert_eq!(sender.wake_all().await, 1);
        assert_eq!((peers.got(elsewhere()), peers.got(third()).len()), (vec![vec!["join".to_owned()]], 0));
        drop(sender);
        world.close().await;
    }
}

/// Somebody's own join, as their server makes it.
async fn join_of(world: &RoomWorld, room: &RoomId, user_id: OwnedUserId) -> Pdu {
    let resident = world.rooms.get(room).await.unwrap();
    let (head, rules, state) = resident.view(|view| (view.head.clone(), view.rules, view.state.clone()));
    let content = json!({ "membership": "join" });
    let draft = Draft::state(
        user_id.clone(),
        TimelineEventType::RoomMember,
        user_id.as_str(),
        serde_json::from_value(content.clone()).unwrap(),
    );
    let raw = serde_json::value::to_raw_value(&content).unwrap();
    let auth_events = auth::auth_events(&state, &draft.kind, &user_id, Some(user_id.as_str()), &raw, rules).unwrap();
    let place = GraphPlace {
        room_id: Some(room.to_owned()),
        depth: head.depth + 1,
        prev_events: head.extremities.clone(),
        auth_events,
    };
    let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "ed25519:theirs").unwrap();
    draft.sign(&place, world.clock.now(), user_id.server_name(), &key, rules).unwrap()
}
