//! A room that another server is in, and that server, which answers as a test tells it to.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId,
    RoomVersionId, ServerName, UInt, UserId, events::TimelineEventType, owned_server_name, serde::Base64,
    signatures::PublicKeyMap,
};
use serde_json::{Value, json, value::RawValue};

use super::{EventSource, Fetcher, StateIds, Stretch, WholeState, source::Answer};
use crate::{
    config::Config,
    db::testing::{TestDatabase, databases, sqlite},
    edge::{federation_client::RemoteError, metrics::Metrics},
    event::{Content, Draft, GraphPlace, Pdu, ReceivedPdu, SigningKey, Stored},
    federation::server_keys::VerifyError,
    ground::{clock::Clock, random::Random, room_version::rules, sizes::Sizes, tasks::Tasks},
    log::{Ground, Reader},
    room::{
        Resident, RoomCache, Rooms, State,
        graph::{
            append::{NewRoomEvents, Plan, Proposal},
            auth,
        },
    },
    store,
};

/// A server with a room of alice's, which carol of another server has joined.
pub(in crate::federation) struct Stage {
    pub(in crate::federation) ground: Ground,
    pub(in crate::federation) rooms: Rooms,
    pub(in crate::federation) fetcher: Fetcher,
    pub(in crate::federation) room_id: OwnedRoomId,
    pub(in crate::federation) elsewhere: Arc<Elsewhere>,
    database: TestDatabase,
}

pub(in crate::federation) fn content(value: Value) -> Content {
    serde_json::from_value(value).unwrap()
}

pub(in crate::federation) fn carol() -> OwnedUserId {
    "@carol:elsewhere".try_into().unwrap()
}

fn alice() -> OwnedUserId {
    "@alice:localhost".try_into().unwrap()
}

impl Stage {
    pub(in crate::federation) async fn new() -> Self {
        Box::pin(Self::on(sqlite().await)).await
    }

    pub(in crate::federation) async fn on_each_engine() -> Vec<Self> {
        let mut stages = Vec::new();
        for database in databases().await {
            stages.push(Box::pin(Self::on(database)).await);
        }
        stages
    }

    async fn on(database: TestDatabase) -> Self {
        let cache = Arc::new(RoomCache::default());
        let config = Config { data_dir: database.data_dir(), ..Config::default() };
        let drawn = (Clock::manual(1_800_000_000_000), Random::system());
        let readers = vec![Arc::clone(&cache) as Arc<dyn Reader>];
        let db = database.reopen().await;
        let starting = Ground::start((config, Sizes::little()), db, drawn, Tasks::new(), Metrics::new(), readers);
        let ground = Box::pin(starting).await.unwrap();
        let rooms = Rooms::start(&ground, cache).await.unwrap();
        let room_id = create_room(&rooms).await;
        let elsewhere = Arc::new(Elsewhere::of(&rooms.get(&room_id).await.unwrap()));
        let source: Arc<dyn EventSource> = elsewhere.clone();
        let fetcher = Fetcher::new(ground.db.clone(), rooms.clone(), source);
        let stage = Self { ground, rooms, fetcher, room_id, elsewhere, database };
        let join = stage.elsewhere.set(&carol(), "m.room.member", carol().as_str(), json!({ "membership": "join" }));
        stage.rooms.append_remote(&stage.room().await, join).await.unwrap();
        stage
    }

    pub(in crate::federation) async fn room(&self) -> Resident {
        self.rooms.get(&self.room_id).await.unwrap()
    }

    pub(in crate::federation) async fn find(&self, event_id: &EventId) -> Option<Stored> {
        store::event::find(&mut self.ground.db.read().await.unwrap(), event_id).await.unwrap()
    }

    /// Whether the event has a place in its room.
    pub(in crate::federation) async fn has_placed(&self, pdu: &Pdu) -> bool {
        self.fetcher.list_unplaced(&[pdu.event_id().to_owned()]).await.unwrap().is_empty()
    }

    /// Where the room ends.
    pub(in crate::federation) async fn ends(&self) -> Vec<OwnedEventId> {
        self.room().await.view(|view| view.head.extremities.clone())
    }

    /// Alice of this server sets some state.
    pub(in crate::federation) async fn set(&self, kind: &str, value: Value) {
        let draft = Draft::state(alice(), kind.into(), "", content(value));
        self.rooms.append(&self.room_id, |_| Ok(Plan::of(draft.clone()))).await.unwrap();
    }

    pub(in crate::federation) fn close(self) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let Self { ground, rooms, fetcher, database, .. } = self;
            let (db, tasks) = (ground.db.clone(), ground.tasks.clone());
            tasks.shutdown().start("the test is over");
            // Whoever holds the log keeps it at work.
            drop((ground, rooms, fetcher));
            assert!(tasks.join_all(Duration::from_secs(5)).await.is_empty());
            db.close().await;
            database.close().await;
        })
    }
}

async fn create_room(rooms: &Rooms) -> OwnedRoomId {
    let state =
        |kind: &str, key: &str, value: Value| Proposal::from(Draft::state(alice(), kind.into(), key, content(value)));
    let proposals = vec![
        state("m.room.create", "", json!({ "room_version": "11" })),
        state("m.room.member", alice().as_str(), json!({ "membership": "join" })),
        state("m.room.power_levels", "", json!({ "users": { alice(): 100 }, "state_default": 0 })),
        state("m.room.join_rules", "", json!({ "join_rule": "public" })),
    ];
    rooms.create_room(NewRoomEvents { version: RoomVersionId::V11, proposals }).await.unwrap()
}

/// The server `elsewhere`, as far as it knows the room.
pub(in crate::federation) struct Elsewhere {
    key: SigningKey,
    room_id: OwnedRoomId,
    known: Mutex<Known>,
    pub(in crate::federation) script: Mutex<Script>,
}

struct Known {
    events: HashMap<OwnedEventId, Arc<Pdu>>,
    /// The state before each event of its own.
    before: HashMap<OwnedEventId, Vec<OwnedEventId>>,
    state: State,
    head: Vec<OwnedEventId>,
    depth: i64,
}

/// What it says instead of the truth, and what it was asked.
#[derive(Default)]
pub(in crate::federation) struct Script {
    pub(in crate::federation) asked: Vec<&'static str>,
    /// Says nothing to any question.
    pub(in crate::federation) is_silent: bool,
    /// Instead of the missing events.
    pub(in crate::federation) missing_events: Option<Vec<Box<RawValue>>>,
    /// Instead of a state.
    pub(in crate::federation) state: Option<Vec<OwnedEventId>>,
    /// Has no such events, nor those that follow them.
    pub(in crate::federation) without: HashSet<OwnedEventId>,
    /// Events whose signers' keys can't be had.
    pub(in crate::federation) without_keys: HashSet<OwnedEventId>,
}

impl Elsewhere {
    fn of(room: &Resident) -> Self {
        let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "ed25519:a").unwrap();
        let known = room.view(|view| Known {
            events: view.state.iter().map(|pdu| (pdu.event_id().to_owned(), pdu)).collect(),
            before: HashMap::new(),
            state: view.state.clone(),
            head: view.head.extremities.clone(),
            depth: view.head.depth,
        });
        let room_id = room.view(|view| view.room_id.clone());
        Self { key, room_id, known: Mutex::new(known), script: Mutex::default() }
    }

    pub(in crate::federation) fn name() -> OwnedServerName {
        owned_server_name!("elsewhere")
    }

    /// Carol says something, after all that is known there.
    pub(in crate::federation) fn say(&self, body: &str) -> Pdu {
        self.add(&Draft::message(carol(), TimelineEventType::RoomMessage, content(json!({ "body": body }))))
    }

    pub(in crate::federation) fn set(&self, sender: &UserId, kind: &str, state_key: &str, value: Value) -> Pdu {
        self.add(&Draft::state(sender.to_owned(), kind.into(), state_key, content(value)))
    }

    fn add(&self, draft: &Draft) -> Pdu {
        let mut known = self.known.lock();
        let pdu = self.sign(draft, &known, &self.room_id);
        let Known { events, before, state, head, depth } = &mut *known;
        before.insert(pdu.event_id().to_owned(), state.iter().map(|pdu| pdu.event_id().to_owned()).collect());
        let shared = Arc::new(pdu.clone());
        if pdu.is_state() {
            state.insert(Arc::clone(&shared));
        }
        *head = vec![pdu.event_id().to_owned()];
        *depth += 1;
        events.insert(pdu.event_id().to_owned(), shared);
        pdu
    }

    /// What carol would say next in another room, after this room's end.
    pub(in crate::federation) fn astray(&self) -> Pdu {
        let draft = Draft::message(carol(), TimelineEventType::RoomMessage, content(json!({ "body": "astray" })));
        self.sign(&draft, &self.known.lock(), <&RoomId>::try_from("!other:elsewhere").unwrap())
    }

    fn sign(&self, draft: &Draft, known: &Known, room_id: &RoomId) -> Pdu {
        let rules = rules(&RoomVersionId::V11).unwrap();
        let json = serde_json::value::to_raw_value(&draft.content).unwrap();
        let state_key = draft.state_key.as_deref();
        let auth_events = auth::auth_events(&known.state, &draft.kind, &draft.sender, state_key, &json, rules).unwrap();
        let prev_events = known.head.clone();
        let place = GraphPlace { room_id: Some(room_id.to_owned()), depth: known.depth + 1, prev_events, auth_events };
        let now = MilliSecondsSinceUnixEpoch(UInt::from(1_800_000_u32));
        draft.clone().sign(&place, now, &Self::name(), &self.key, rules).unwrap()
    }

    fn keys(&self) -> PublicKeyMap {
        let key = Base64::new(self.key.public_key().to_vec());
        BTreeMap::from([(Self::name().to_string(), BTreeMap::from([(self.key.id().to_string(), key)]))])
    }

    /// Those of its events that are reached from some over edges, the nearest first.
    fn reach(
        &self,
        from: &[OwnedEventId],
        edges: impl Fn(&Pdu) -> &[OwnedEventId],
        until: &[OwnedEventId],
        most: usize,
    ) -> Vec<Arc<Pdu>> {
        let (known, script) = (self.known.lock(), self.script.lock());
        let mut todo: VecDeque<OwnedEventId> = from.iter().cloned().collect();
        let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
        while let Some(id) = todo.pop_front().filter(|_| found.len() < most) {
            if until.contains(&id) || script.without.contains(&id) || !seen.insert(id.clone()) {
                continue;
            }
            if let Some(pdu) = known.events.get(&id) {
                todo.extend(edges(pdu).iter().cloned());
                found.push(Arc::clone(pdu));
            }
        }
        found
    }

    fn prev_of(&self, ids: &[OwnedEventId]) -> Vec<OwnedEventId> {
        let known = self.known.lock();
        ids.iter().filter_map(|id| known.events.get(id)).flat_map(|pdu| pdu.prev_events().to_vec()).collect()
    }

    fn answer<'a, T: Send + 'a>(&self, what: &'static str, answer: impl FnOnce() -> Option<T>) -> Answer<'a, T> {
        let is_silent = {
            let mut script = self.script.lock();
            script.asked.push(what);
            script.is_silent
        };
        let silence = || RemoteError::Unreachable("it says nothing".to_owned());
        let answer = if is_silent { Err(silence()) } else { answer().ok_or_else(silence) };
        std::future::ready(answer).boxed()
    }

    pub(in crate::federation) fn asked(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.script.lock().asked)
    }
}

pub(in crate::federation) fn raw(pdu: &Pdu) -> Box<RawValue> {
    pdu.json().to_owned()
}

fn raw_all(pdus: &[Arc<Pdu>]) -> Vec<Box<RawValue>> {
    pdus.iter().map(|pdu| raw(pdu)).collect()
}

impl EventSource for Elsewhere {
    fn missing_events<'a>(&'a self, _from: &'a ServerName, stretch: Stretch) -> Answer<'a, Vec<Box<RawValue>>> {
        self.answer("missing_events", || {
            if let Some(told) = self.script.lock().missing_events.clone() {
                return Some(told);
            }
            let from = self.prev_of(&stretch.latest);
            Some(raw_all(&self.reach(&from, Pdu::prev_events, &stretch.earliest, stretch.limit as usize)))
        })
    }

    fn backfill<'a>(
        &'a self,
        _from: &'a ServerName,
        _room_id: &'a RoomId,
        before: &'a [OwnedEventId],
        limit: u32,
    ) -> Answer<'a, Vec<Box<RawValue>>> {
        self.answer("backfill", || Some(raw_all(&self.reach(before, Pdu::prev_events, &[], limit as usize))))
    }

    fn event<'a>(&'a self, _from: &'a ServerName, event_id: &'a EventId) -> Answer<'a, Box<RawValue>> {
        self.answer("event", || {
            let hidden = self.script.lock().without.contains(event_id);
            self.known.lock().events.get(event_id).filter(|_| !hidden).map(|pdu| raw(pdu))
        })
    }

    fn event_auth<'a>(
        &'a self,
        _from: &'a ServerName,
        _room_id: &'a RoomId,
        event_id: &'a EventId,
    ) -> Answer<'a, Vec<Box<RawValue>>> {
        self.answer("event_auth", || {
            let cited = self.known.lock().events.get(event_id)?.auth_events().to_vec();
            Some(raw_all(&self.reach(&cited, Pdu::auth_events, &[], usize::MAX)))
        })
    }

    fn state_ids<'a>(
        &'a self,
        _from: &'a ServerName,
        _room_id: &'a RoomId,
        event_id: &'a EventId,
    ) -> Answer<'a, StateIds> {
        self.answer("state_ids", || {
            let told = self.script.lock().state.clone();
            let state = told.or_else(|| self.known.lock().before.get(event_id).cloned())?;
            let chain = self.reach(&state, Pdu::auth_events, &[], usize::MAX);
            Some(StateIds { state, auth_chain: chain.iter().map(|pdu| pdu.event_id().to_owned()).collect() })
        })
    }

    fn state<'a>(
        &'a self,
        _from: &'a ServerName,
        _room_id: &'a RoomId,
        event_id: &'a EventId,
    ) -> Answer<'a, WholeState> {
        self.answer("state", || {
            let state = self.known.lock().before.get(event_id).cloned()?;
            let chain = self.reach(&state, Pdu::auth_events, &[], usize::MAX);
            let known = self.known.lock();
            let state: Vec<Arc<Pdu>> = state.iter().filter_map(|id| known.events.get(id).cloned()).collect();
            Some(WholeState { state: raw_all(&state), auth_chain: raw_all(&chain) })
        })
    }

    fn verify_all(&self, events: Vec<ReceivedPdu>) -> BoxFuture<'_, Vec<Result<Pdu, VerifyError>>> {
        let keys = self.keys();
        let verify = |received: ReceivedPdu| {
            if self.script.lock().without_keys.contains(received.event_id()) {
                return Err(VerifyError::KeysUnavailable("the keys are away".to_owned()));
            }
            // What this server has sent itself comes back from there.
            let is_ours = received.sender().server_name() == "localhost";
            if is_ours && self.known.lock().events.contains_key(received.event_id()) {
                return Ok(received.unverified().clone());
            }
            received.verify(&keys).map_err(|error| VerifyError::Invalid(error.to_string()))
        };
        std::future::ready(events.into_iter().map(verify).collect()).boxed()
    }
}
