//! Remote events against replay: every state that is stored is the one that the specification gives.

mod costly;
mod early;
mod hostile;
mod merge;

use std::collections::BTreeMap;

use proptest::prelude::*;
use ruma::{OwnedRoomId, RoomVersionId, events::room::member::MembershipState};
use serde_json::{Value, json};

use super::{
    model::{Map, Model},
    *,
};
use crate::{
    event::{Draft, GraphPlace, SigningKey},
    ground::{
        position::{Lineage, Order},
        room_version::{STABLE, rules},
    },
    room::{
        View,
        graph::state::Member,
        world::{RoomWorld, json as content, user},
    },
};

const USERS: [&str; 3] = ["alice", "bob", "carol"];

/// A room of this server into which other servers send, and the model of it.
struct Stage {
    world: RoomWorld,
    room_id: OwnedRoomId,
    rules: &'static ruma::room_version_rules::RoomVersionRules,
    model: Model,
    key: SigningKey,
    count: u64,
}

impl Stage {
    async fn new(version: RoomVersionId) -> Self {
        let rules = rules(&version).unwrap();
        let world = RoomWorld::new().await;
        let room_id = world.create_room(version, "shared").await;
        let mut model = Model::new(rules);
        let mut conn = world.db.read().await.unwrap();
        let first = store::event::list_forward(&mut conn, &room_id, Order::START, Order::END, 100).await.unwrap();
        for event in first {
            assert_eq!(model.add(event.pdu), Standing::Accepted);
        }
        let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "ed25519:a").unwrap();
        Self { world, room_id, rules, model, key, count: 0 }
    }

    /// The newest event, or one some steps before it.
    fn event_before(&self, steps: usize) -> OwnedEventId {
        let history = &self.model.history;
        history[history.len().saturating_sub(steps + 1)].0.clone()
    }

    fn draft(&mut self, sender: &str, kind: &str, state_key: Option<&str>, mut value: Value) -> Draft {
        self.count += 1;
        value["count"] = self.count.into();
        let mut draft = Draft::message(user(sender), kind.into(), content(value));
        draft.state_key = state_key.map(ToOwned::to_owned);
        draft
    }

    /// An event as another server makes it.
    fn sign(&self, draft: Draft, prev_events: Vec<OwnedEventId>, auth_events: Vec<OwnedEventId>) -> Pdu {
        let depth = prev_events.iter().map(|id| self.model.events[id].pdu.depth()).max().unwrap_or(0) + 1;
        let place = GraphPlace { room_id: Some(self.room_id.clone()), depth, prev_events, auth_events };
        let now = self.world.clock.now();
        draft.sign(&place, now, &ruma::owned_server_name!("elsewhere"), &self.key, self.rules).unwrap()
    }

    /// Receives an event that follows others, in the room and in the model.
    async fn receive(&mut self, draft: Draft, prev_events: &[OwnedEventId], auth_state: Option<Map>) -> Arc<Pdu> {
        let auth_state = auth_state.unwrap_or_else(|| self.model.after_all(prev_events));
        let auth_events = self.model.auth_events(&draft, &auth_state);
        let pdu = self.sign(draft, prev_events.to_vec(), auth_events);
        let standing = self.world.rooms.take_in(pdu.clone()).await.unwrap();
        let pdu = Arc::new(pdu);
        assert_eq!(standing, self.model.add(Arc::clone(&pdu)), "{}", pdu.json());
        pdu
    }

    /// Receives an event as the sender's server would make it where it knows everything that is known here.
    async fn receive_next(&mut self, sender: &str, kind: &str, state_key: Option<&str>, value: Value) -> Arc<Pdu> {
        let draft = self.draft(sender, kind, state_key, value);
        let prev_events: Vec<_> = self.model.extremities.iter().cloned().collect();
        self.receive(draft, &prev_events, None).await
    }

    async fn stored(&self, event_id: &EventId) -> Stored {
        store::event::find(&mut self.world.db.read().await.unwrap(), event_id).await.unwrap().unwrap()
    }

    fn standing(&self, pdu: &Pdu) -> Standing {
        self.model.events[pdu.event_id()].standing
    }

    /// Everything that is stored is what the model has.
    async fn check(&self) {
        let rooms = &self.world.rooms;
        let room = rooms.get_held(&self.room_id).await.unwrap();
        for (event_id, current) in &self.model.history {
            let (known, stored) = (&self.model.events[event_id], self.stored(event_id).await);
            assert_eq!(stored.standing, known.standing);
            assert_eq!(ids(&rooms.state_before(&room, &stored).await.unwrap()), known.before, "before {event_id}");
            assert_eq!(ids(&rooms.state_after(&room, &stored).await.unwrap()), known.after, "after {event_id}");
            assert_eq!(ids(&rooms.state_at(&room, stored.order).await.unwrap()), *current, "at {event_id}");
            let members = USERS.map(user);
            let members: Vec<&str> = members.iter().map(|user| user.as_str()).collect();
            let listed = rooms.list_state_events_at(&room, stored.order, "m.room.member", &members).await.unwrap();
            let listed: Map = ids(&listed.into_iter().collect());
            let expected = current.iter().filter(|((kind, _), _)| kind == "m.room.member");
            assert!(listed.iter().eq(expected));
        }
        let state = room.state();
        assert_eq!(ids(&state), self.model.current);
        let head = room.view(|view| view.head.clone());
        assert!(
            head.extremities.iter().collect::<std::collections::BTreeSet<_>>().into_iter().eq(&self.model.extremities)
        );
        let count = |wanted| USERS.iter().filter(|name| state.membership(&user(name)) == wanted).count();
        assert_eq!(room.view(View::joined), count(MembershipState::Join));
        assert_eq!(room.view(View::invited), count(MembershipState::Invite));
        self.check_readers(&room).await;
    }

    async fn check_readers(&self, room: &Room) {
        let rooms = &self.world.rooms;
        self.check_servers(room).await;
        for name in USERS {
            let user = user(name);
            let (sight, whole) =
                (rooms.sight(room, &user).await.unwrap(), rooms.whole_sight(room, &user).await.unwrap());
            for (event_id, _) in &self.model.history {
                let stored = self.stored(event_id).await;
                assert_eq!(sight.sees(&stored), whole.sees(&stored), "{name} {event_id}");
            }
            let membership = room.state().membership(&user);
            let mut conn = self.world.db.read().await.unwrap();
            let listed = store::membership::find(&mut conn, &user, &self.room_id).await.unwrap();
            assert_eq!(listed.map_or(MembershipState::Leave, |listed| listed.membership), membership);
        }
    }
}

impl Stage {
    /// How many members each server has is what counting them gives, in memory and in the database.
    async fn check_servers(&self, room: &Room) {
        let mut counted = BTreeMap::new();
        for member in room.state().members().filter(Member::has_joined) {
            *counted.entry(member.user_id.server_name().to_owned()).or_insert(0) += 1;
        }
        assert_eq!(room.view(|view| view.servers().clone()), counted);
        let mut conn = self.world.db.read().await.unwrap();
        let stored = store::membership::list_servers(&mut conn, &self.room_id).await.unwrap();
        let counted: BTreeMap<_, _> =
            counted.into_iter().map(|(server, count)| (server, i64::try_from(count).unwrap())).collect();
        assert_eq!(stored, counted);
    }
}

fn ids(state: &State) -> Map {
    let key = |pdu: &Arc<Pdu>| (pdu.kind().to_string(), pdu.state_key().unwrap().to_owned());
    state.iter().map(|pdu| (key(&pdu), pdu.event_id().to_owned())).collect()
}

/// What somebody tries to do, whether they may or not.
#[derive(Clone, Debug)]
enum Deed {
    Say,
    Set(&'static str, u8),
    Member(usize, &'static str),
    Power(usize, i64, i64),
    JoinRule(&'static str),
}

#[derive(Clone, Debug)]
struct Step {
    who: usize,
    deed: Deed,
    /// Which events it follows, counted back from the newest. On this server's own: all that it knows.
    follows: Vec<usize>,
    /// Cites the room's state instead of the state that it follows.
    cites_current: bool,
    later: u64,
}

fn deed() -> impl Strategy<Value = Deed> {
    let someone = 0..USERS.len();
    prop_oneof![
        2 => Just(Deed::Say),
        4 => (prop_oneof![Just("m.room.name"), Just("m.room.topic"), Just("x.other")], 0..3_u8)
            .prop_map(|(kind, key)| Deed::Set(kind, key)),
        5 => (someone.clone(), prop_oneof![3 => Just("join"), 1 => Just("leave"), 1 => Just("invite"), 1 => Just("ban")])
            .prop_map(|(who, membership)| Deed::Member(who, membership)),
        2 => (someone, prop_oneof![Just(0), Just(50), Just(100)], prop_oneof![Just(0), Just(50)])
            .prop_map(|(who, level, state_default)| Deed::Power(who, level, state_default)),
        1 => prop_oneof![Just("public"), Just("invite")].prop_map(Deed::JoinRule),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let follows = prop::collection::vec(0..8_usize, 0..3);
    (0..USERS.len(), deed(), follows, prop::bool::weighted(0.1), 0..3_u64)
        .prop_map(|(who, deed, follows, cites_current, later)| Step { who, deed, follows, cites_current, later })
}

impl Stage {
    fn draft_of(&mut self, step: &Step) -> Draft {
        let sender = USERS[step.who];
        match &step.deed {
            Deed::Say => self.draft(sender, "m.room.message", None, json!({ "body": "hello" })),
            Deed::Set(kind, key) => {
                let key = if *kind == "x.other" { key.to_string() } else { String::new() };
                self.draft(sender, kind, Some(&key), json!({}))
            }
            Deed::Member(target, membership) => {
                let target = user(if *membership == "join" { sender } else { USERS[*target] });
                self.draft(sender, "m.room.member", Some(target.as_str()), json!({ "membership": membership }))
            }
            Deed::Power(target, level, state_default) => {
                let mut users = json!({ user("alice"): 100, user(USERS[*target]): level });
                if self.rules.authorization.explicitly_privilege_room_creators {
                    users.as_object_mut().unwrap().remove(user("alice").as_str());
                }
                let value = json!({ "users": users, "state_default": state_default });
                self.draft(sender, "m.room.power_levels", Some(""), value)
            }
            Deed::JoinRule(rule) => self.draft(sender, "m.room.join_rules", Some(""), json!({ "join_rule": rule })),
        }
    }

    async fn take(&mut self, step: &Step) {
        self.world.clock.advance(std::time::Duration::from_secs(step.later));
        let draft = self.draft_of(step);
        if step.follows.is_empty() {
            if let Some(pdu) = self.world.append(&self.room_id, &draft).await {
                assert_eq!(self.model.add(pdu), Standing::Accepted);
            }
            return;
        }
        let mut prev_events: Vec<_> = step.follows.iter().map(|steps| self.event_before(*steps)).collect();
        prev_events.sort_unstable();
        prev_events.dedup();
        let auth_state = step.cites_current.then(|| self.model.current.clone());
        self.receive(draft, &prev_events, auth_state).await;
    }
}

/// `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default().cases } else { 28 };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn state_at_every_event_is_what_replay_gives(
        version in prop::sample::select(STABLE.to_vec()),
        steps in prop::collection::vec(step(), 1..28),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut stage = Stage::new(version).await;
            for name in ["bob", "carol"] {
                let join = json!({ "membership": "join" });
                stage.receive_next(name, "m.room.member", Some(user(name).as_str()), join).await;
            }
            for step in &steps {
                stage.take(step).await;
            }
            stage.check().await;
            stage.world = stage.world.restart().await;
            stage.check().await;
            stage.world.close().await;
        });
    }
}

#[tokio::test]
async fn soft_failure_keeps_a_banned_user_silent() {
    let mut stage = Stage::new(RoomVersionId::V12).await;
    let join = stage.receive_next("bob", "m.room.member", Some("@bob:here"), json!({ "membership": "join" })).await;
    stage.world.member(&stage.room_id, "alice", "bob", "ban").await;
    let ban = stage.world.rooms.get(&stage.room_id).await.unwrap().view(|view| view.head.extremities.clone());
    let pdu = stage.stored(&ban[0]).await.pdu;
    stage.model.add(pdu);

    let evasion = stage.draft("bob", "m.room.topic", Some(""), json!({ "topic": "still here" }));
    let evasion = stage.receive(evasion, &[join.event_id().to_owned()], None).await;
    assert_eq!(stage.standing(&evasion), Standing::SoftFailed);
    let mut reading = stage.world.rooms.open(&stage.room_id, &user("alice")).await.unwrap();
    assert!(stage.world.rooms.find_event(&mut reading, evasion.event_id()).await.unwrap().is_none(), "hidden");
    let room = stage.world.rooms.get(&stage.room_id).await.unwrap();
    assert_eq!(room.view(|view| view.head.extremities.clone()), ban, "nothing is built on it");
    assert_eq!(stage.stored(evasion.event_id()).await.pdu.json().get(), evasion.json().get(), "kept for peers");
    stage.check().await;
}

#[tokio::test]
async fn an_event_that_cites_a_rejected_or_foreign_event_is_rejected() {
    let mut stage = Stage::new(RoomVersionId::V11).await;
    stage.receive_next("bob", "m.room.member", Some("@bob:here"), json!({ "membership": "join" })).await;
    let levels = json!({ "users": { "@alice:here": 100 }, "state_default": 50 });
    stage.receive_next("alice", "m.room.power_levels", Some(""), levels).await;
    let usurpation = json!({ "users": { "@alice:here": 100, "@bob:here": 100 } });
    let usurpation = stage.receive_next("bob", "m.room.power_levels", Some(""), usurpation).await;
    assert_eq!(stage.standing(&usurpation), Standing::Rejected);

    let mut state = stage.model.current.clone();
    state.insert(("m.room.power_levels".to_owned(), String::new()), usurpation.event_id().to_owned());
    let topic = stage.draft("bob", "m.room.topic", Some(""), json!({ "topic": "mine" }));
    let extremities: Vec<_> = stage.model.extremities.iter().cloned().collect();
    let topic = stage.receive(topic, &extremities, Some(state)).await;
    assert_eq!(stage.standing(&topic), Standing::Rejected);

    let elsewhere = stage.world.create_room(RoomVersionId::V11, "shared").await;
    let foreign = stage.world.rooms.get(&elsewhere).await.unwrap().state();
    let draft = stage.draft("alice", "m.room.topic", Some(""), json!({ "topic": "mine" }));
    let foreign =
        ["m.room.create", "m.room.power_levels"].map(|kind| foreign.get(kind, "").unwrap().event_id().to_owned());
    let member = stage.world.rooms.get(&stage.room_id).await.unwrap().state().member(&user("alice")).cloned().unwrap();
    let cited = foreign.into_iter().chain([member.event_id().to_owned()]).collect();
    let topic = stage.sign(draft, extremities, cited);
    assert_eq!(stage.world.rooms.take_in(topic).await.unwrap(), Standing::Rejected);
}

#[tokio::test]
async fn what_cannot_be_placed_is_dropped_and_what_is_known_stays_as_it_is() {
    let mut stage = Stage::new(RoomVersionId::V12).await;
    let said = stage.receive_next("alice", "m.room.message", None, json!({ "body": "hello" })).await;
    assert_eq!(stage.world.rooms.take_in(Pdu::clone(&said)).await.unwrap(), Standing::Accepted);
    assert_eq!(stage.world.rooms.get(&stage.room_id).await.unwrap().view(|view| view.head.head), 6);

    let unknown = OwnedEventId::try_from("$unknown").unwrap();
    let draft = stage.draft("alice", "m.room.message", None, json!({ "body": "lost" }));
    let auth_events = stage.model.auth_events(&draft, &stage.model.current);
    let depth = 1;
    let place =
        GraphPlace { room_id: Some(stage.room_id.clone()), depth, prev_events: vec![unknown.clone()], auth_events };
    let now = stage.world.clock.now();
    let lost = draft.clone().sign(&place, now, &ruma::owned_server_name!("here"), &stage.key, stage.rules).unwrap();
    let error = stage.world.rooms.take_in(lost).await.unwrap_err();
    assert!(error.to_string().contains("$unknown"), "{error}");

    let place = GraphPlace { room_id: Some("!nowhere:here".try_into().unwrap()), ..place };
    let astray = draft.sign(&place, now, &ruma::owned_server_name!("here"), &stage.key, stage.rules).unwrap();
    assert!(stage.world.rooms.take_in(astray).await.is_err(), "the room is not known");
    stage.check().await;
}

#[tokio::test]
async fn a_remote_redaction_needs_the_power_or_the_same_server() {
    let mut stage = Stage::new(RoomVersionId::V11).await;
    stage.receive_next("bob", "m.room.member", Some("@bob:here"), json!({ "membership": "join" })).await;
    let said = stage.receive_next("bob", "m.room.message", None, json!({ "body": "oops" })).await;
    let carol: ruma::OwnedUserId = "@carol:elsewhere".try_into().unwrap();
    let mut join = stage.draft("carol", "m.room.member", Some(carol.as_str()), json!({ "membership": "join" }));
    join.sender.clone_from(&carol);
    let extremities: Vec<_> = stage.model.extremities.iter().cloned().collect();
    stage.receive(join, &extremities, None).await;
    for (sender, redacted) in [(carol, false), (user("alice"), true)] {
        let mut redaction = stage.draft("alice", "m.room.redaction", None, json!({}));
        redaction.sender = sender;
        redaction.redacts = Some(said.event_id().to_owned());
        let extremities: Vec<_> = stage.model.extremities.iter().cloned().collect();
        stage.receive(redaction, &extremities, None).await;
        assert_eq!(stage.stored(said.event_id()).await.pdu.redacted_because().is_some(), redacted);
    }
    assert_eq!(stage.stored(said.event_id()).await.pdu.content().get(), "{}");
}

#[tokio::test]
async fn a_fork_that_outgrows_its_bounds_starts_a_line_of_its_own() {
    let mut stage = Stage::new(RoomVersionId::V12).await;
    let parting = stage.event_before(0);
    for key in 0..6 {
        stage.receive_next("alice", "x.here", Some(&key.to_string()), json!({})).await;
    }
    let mut newest = vec![parting];
    let mut lines = Vec::new();
    for key in 0..9 {
        let draft = stage.draft("alice", "x.there", Some(&key.to_string()), json!({}));
        let event = stage.receive(draft, &newest, None).await;
        newest = vec![event.event_id().to_owned()];
        let at = stage.stored(event.event_id()).await.key;
        let fork = store::state::find_fork(&mut stage.world.db.read().await.unwrap(), at).await.unwrap();
        let (line, _, changes) = fork.expect("the branch is not the trunk");
        assert!(changes.len() <= 3);
        lines.push((line, Lineage(at.0)));
    }
    let trunk = stage.world.rooms.get(&stage.room_id).await.unwrap().view(|view| view.trunk);
    assert_eq!(lines[0].0, trunk, "the branch begins at a place of the trunk");
    let own = lines.iter().filter(|(line, at)| line == at).count();
    assert!((1..=3).contains(&own), "{own} lines for nine events");
    assert!(lines.iter().any(|(line, at)| *line != trunk && line != at), "later events lean on it");
    stage.check().await;
    stage.world = stage.world.restart().await;
    stage.check().await;
}

/// Ruma's rules refuse such keys, so that both would be gone if it saw them.
#[tokio::test]
async fn what_belongs_to_somebody_survives_a_fork() {
    let mut stage = Stage::new(RoomVersionId::try_from("org.matrix.msc3757.11").unwrap()).await;
    let join = stage.receive_next("bob", "m.room.member", Some("@bob:here"), json!({ "membership": "join" })).await;
    let prev_events = vec![join.event_id().to_owned()];
    let state = stage.model.after_all(&prev_events);
    let mut sent = Vec::new();
    for sender in ["bob", "bob", "alice", "carol"] {
        let draft = stage.draft(sender, "x.beacon", Some("@bob:here_phone"), json!({}));
        let auth_events = stage.model.auth_events(&draft, &state);
        let pdu = stage.sign(draft, prev_events.clone(), auth_events);
        sent.push((pdu.event_id().to_owned(), stage.world.rooms.take_in(pdu).await.unwrap()));
    }
    let standings: Vec<_> = sent.iter().map(|(_, standing)| *standing).collect();
    let (accepted, rejected) = (Standing::Accepted, Standing::Rejected);
    assert_eq!(
        standings,
        [accepted, accepted, accepted, rejected],
        "alice has more power than bob, carol is not there"
    );
    let room = stage.world.rooms.get(&stage.room_id).await.unwrap();
    let state = room.state();
    let holder = state.get("x.beacon", "@bob:here_phone").expect("one of them stands").event_id();
    assert!(sent.iter().take(2).any(|(event_id, _)| event_id == holder), "the owner's word");
    stage.world.close().await;
}
