//! Rooms for tests: on a database of their own, with a clock that stands still and chance that repeats.

use std::sync::Arc;

use ruma::{
    OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, RoomVersionId, UserId, server_name, signatures::Ed25519KeyPair,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    Active, Rooms,
    append::{Appended, Founding, Head, Plan, Proposal},
};
use crate::{
    clock::Clock,
    db::Db,
    error::Error,
    event::{Content, Draft, Pdu, rules},
    hub::Hub,
    log::{Log, Reader, Tail},
    metrics::Metrics,
    random::Random,
    tasks::Tasks,
};

/// Rooms on a fresh database, gone with this value.
pub(crate) struct TestRooms {
    pub(crate) rooms: Rooms,
    pub(crate) clock: Clock,
    key: Ed25519KeyPair,
    tasks: Tasks,
    folder: TempDir,
}

pub(crate) fn here() -> OwnedServerName {
    server_name!("hearth").to_owned()
}

impl TestRooms {
    pub(crate) async fn new() -> Self {
        Self::on(TempDir::new().unwrap()).await
    }

    async fn on(folder: TempDir) -> Self {
        let url = format!("sqlite:{}", folder.path().join("hearth.sqlite3").display());
        let db = Db::connect(&url, 4).await.unwrap();
        db.migrate().await.unwrap();
        let (clock, random, tasks) = (Clock::manual(1_790_000_000_000), Random::seeded(1), Tasks::new());
        let (tail, active) = (Arc::new(Tail::default()), Arc::new(Active::default()));
        tail.follow_with(vec![Arc::clone(&active) as Arc<dyn Reader>]);
        let log = Log::start(db.clone(), tail, random.clone(), Metrics::new(), Hub::silent(), &tasks).await.unwrap();
        let rooms = Rooms::new(db, log, clock.clone(), random, here(), key_pair(), active);
        Self { rooms, clock, key: key_pair(), tasks, folder }
    }

    /// The same database as another process would find it.
    pub(crate) async fn restart(self) -> Self {
        let Self { rooms, tasks, folder, .. } = self;
        tasks.shutdown().start("the test restarts it");
        drop(rooms);
        assert!(tasks.join_all(std::time::Duration::from_secs(5)).await.is_empty());
        Self::on(folder).await
    }

    pub(crate) fn key(&self) -> &Ed25519KeyPair {
        &self.key
    }

    /// A public room of this version, founded by alice, in which everybody may set state.
    pub(crate) async fn found(&self, version: RoomVersionId, visibility: &str) -> OwnedRoomId {
        let alice = user("alice");
        let state = |kind: &str, key: &str, content: serde_json::Value| {
            Proposal::from(Draft::state(alice.clone(), kind.into(), key, canonical(content)))
        };
        let rules = rules(&version).unwrap();
        let users =
            if rules.authorization.explicitly_privilege_room_creators { json!({}) } else { json!({ &alice: 100 }) };
        let proposals = vec![
            state("m.room.create", "", json!({ "room_version": version, "creator": alice })),
            state("m.room.member", alice.as_str(), json!({ "membership": "join" })),
            state("m.room.power_levels", "", json!({ "users": users, "state_default": 0 })),
            state("m.room.join_rules", "", json!({ "join_rule": "public" })),
            state("m.room.history_visibility", "", json!({ "history_visibility": visibility })),
        ];
        self.rooms.found(Founding { version, proposals }, |_| Vec::new()).await.unwrap()
    }

    /// Appends what `draft` says; None if the room refuses it.
    pub(crate) async fn append(&self, room_id: &RoomId, draft: &Draft) -> Option<Arc<Pdu>> {
        match self.rooms.append(room_id, |_| Ok(Plan::of(draft.clone()))).await {
            Ok(Appended::Done(events)) => events.into_iter().next(),
            Ok(Appended::Before(_)) => None,
            Err(Error::Refused { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// A state event that the room takes.
    pub(crate) async fn set(&self, room_id: &RoomId, sender: &str, kind: &str, key: &str, content: Value) -> Arc<Pdu> {
        let draft = Draft::state(user(sender), kind.into(), key, canonical(content));
        self.append(room_id, &draft).await.expect("the room takes it")
    }

    /// A change of `target`'s membership.
    pub(crate) async fn member(&self, room_id: &RoomId, sender: &str, target: &str, membership: &str) -> Arc<Pdu> {
        let content = json!({ "membership": membership });
        self.set(room_id, sender, "m.room.member", user(target).as_str(), content).await
    }

    /// Messages, all in one write.
    pub(crate) async fn say(&self, room_id: &RoomId, sender: &str, bodies: &[&str]) -> Vec<Arc<Pdu>> {
        let plan = |_: &Head| {
            let draft = |body: &&str| Proposal::from(message(sender, body));
            Ok(Plan { proposals: bodies.iter().map(draft).collect(), ..Plan::default() })
        };
        match self.rooms.append(room_id, plan).await.unwrap() {
            Appended::Done(events) => events,
            Appended::Before(_) => Vec::new(),
        }
    }
}

pub(crate) fn user(name: &str) -> OwnedUserId {
    UserId::parse(format!("@{name}:{}", here())).unwrap()
}

pub(crate) fn canonical(content: Value) -> Content {
    serde_json::from_value(content).unwrap()
}

pub(crate) fn message(sender: &str, body: &str) -> Draft {
    let content = canonical(json!({ "msgtype": "m.text", "body": body }));
    Draft::message(user(sender), "m.room.message".into(), content)
}

fn key_pair() -> Ed25519KeyPair {
    let seed = [7; 32];
    let mut document = vec![48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32];
    document.extend(seed);
    Ed25519KeyPair::from_der(&document, "test".to_owned()).unwrap()
}

/// An event with these fields, of no real room and signed by nobody.
pub(crate) fn pdu_of(fields: &serde_json::Value) -> Pdu {
    let mut event = json!({
        "room_id": "!room:hearth",
        "sender": "@alice:hearth",
        "type": "m.room.message",
        "content": {},
        "origin_server_ts": 1,
        "depth": 1,
        "prev_events": [],
        "auth_events": [],
        "hashes": { "sha256": "" },
        "signatures": {},
    });
    let object = event.as_object_mut().unwrap();
    object.extend(fields.as_object().unwrap().clone());
    let canonical = serde_json::from_value(event).unwrap();
    Pdu::from_canonical(&canonical, rules(&RoomVersionId::V11).unwrap()).unwrap()
}
