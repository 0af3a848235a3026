//! Rooms on a database of their own, for tests.

use std::{sync::Arc, time::Duration};

use ruma::{OwnedRoomId, OwnedUserId, RoomVersionId, events::TimelineEventType, owned_server_name};
use serde_json::Value;
use tempfile::TempDir;

use super::{Active, Message, NewRoom, Preset, Rooms};
use crate::{
    clock::Clock,
    db::Db,
    event::{Content, SigningKey, Transaction},
    hub::Hub,
    log::{Log, Reader, Tail},
    metrics::Metrics,
    random::Random,
    tasks::Tasks,
};

/// A server's rooms. Its name is `here`.
pub(super) struct World {
    pub(super) rooms: Rooms,
    pub(super) db: Db,
    pub(super) clock: Clock,
    tasks: Tasks,
    folder: TempDir,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::on(TempDir::new().unwrap()).await
    }

    /// The same database as another process finds it.
    pub(super) async fn restart(self) -> Self {
        let Self { rooms, db, tasks, folder, .. } = self;
        drop(rooms);
        tasks.shutdown().start("the test restarts it");
        assert!(tasks.join_all(Duration::from_secs(5)).await.is_empty());
        db.close().await;
        Self::on(folder).await
    }

    async fn on(folder: TempDir) -> Self {
        let url = format!("sqlite:{}", folder.path().join("test.sqlite3").display());
        let db = Db::connect(&url, 1).await.unwrap();
        db.migrate().await.unwrap();
        let (clock, tasks) = (Clock::manual(1_700_000_000_000), Tasks::new());
        let rooms = node(&db, &clock, &tasks, 1).await;
        Self { rooms, db, clock, tasks, folder }
    }

    /// The same rooms as another node of this server sees them.
    pub(super) async fn another_node(&self) -> Rooms {
        node(&self.db, &self.clock, &self.tasks, 2).await
    }

    /// Stops everything and removes what was written.
    pub(super) async fn close(self) {
        let Self { rooms, db, tasks, folder, .. } = self;
        drop(rooms);
        tasks.shutdown().start("the test is over");
        assert!(tasks.join_all(Duration::from_secs(5)).await.is_empty());
        db.close().await;
        folder.close().unwrap();
    }

    /// A room of the default version that anybody can join.
    pub(super) async fn public_room(&self, creator: &str) -> OwnedRoomId {
        self.rooms.create(new_room(creator, Preset::PublicChat)).await.unwrap()
    }

    /// The content of a piece of state, null where there is none.
    pub(super) async fn state(&self, room_id: &ruma::RoomId, kind: &str, state_key: &str) -> Value {
        let state = self.rooms.get(room_id).await.unwrap().state();
        state.get(kind, state_key).map_or(Value::Null, |pdu| pdu.content_as().unwrap())
    }
}

async fn node(db: &Db, clock: &Clock, tasks: &Tasks, seed: u64) -> Rooms {
    let (tail, active, random) = (Arc::new(Tail::default()), Arc::new(Active::default()), Random::seeded(seed));
    tail.follow_with(vec![Arc::clone(&active) as Arc<dyn Reader>]);
    let here = owned_server_name!("here");
    let log = Log::start(db.clone(), tail, here.clone(), random.clone(), Metrics::new(), Hub::silent(), tasks);
    let log = log.await.unwrap();
    let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "ed25519:a").unwrap();
    Rooms::new(db.clone(), log, clock.clone(), random, here, Arc::new(key), active)
}

/// Somebody on this server.
pub(super) fn user(name: &str) -> OwnedUserId {
    OwnedUserId::try_from(format!("@{name}:here")).unwrap()
}

pub(super) fn new_room(creator: &str, preset: Preset) -> NewRoom {
    NewRoom {
        creator: user(creator),
        version: RoomVersionId::V12,
        preset,
        published: false,
        alias: None,
        name: None,
        topic: None,
        invite: Vec::new(),
        is_direct: false,
        creation_content: Content::new(),
        initial_state: Vec::new(),
        power_level_content_override: Content::new(),
    }
}

pub(super) fn message(room_id: &ruma::RoomId, sender: &str, transaction_id: &str) -> Message {
    Message {
        room_id: room_id.to_owned(),
        sender: user(sender),
        admin: false,
        kind: TimelineEventType::RoomMessage,
        content: json(serde_json::json!({"msgtype": "m.text", "body": transaction_id})),
        transaction: Transaction { device_id: "DEVICE".into(), transaction_id: transaction_id.into() },
    }
}

pub(super) fn json(value: Value) -> Content {
    serde_json::from_value(value).unwrap()
}
