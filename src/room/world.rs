//! Rooms on a database of their own, for tests.

use std::{sync::Arc, time::Duration};

use ruma::{OwnedRoomId, OwnedUserId, RoomVersionId, events::TimelineEventType, owned_server_name};
use serde_json::Value;
use tempfile::TempDir;

use super::{Author, Message, NewRoom, Preset, RoomCache, Rooms, graph::lanes::Lanes};
use crate::{
    config::Config,
    db::{
        Db,
        testing::{TestDatabase, databases},
    },
    edge::{hub::Hub, metrics::Metrics},
    event::{Content, SigningKey, SigningKeys, Transaction},
    ground::{clock::Clock, random::Random, sizes::Sizes, tasks::Tasks},
    log::{Log, Quotas, Reader, Tail},
};

/// A server's rooms. Its name is `here`. Its clock stands still until a test moves it, and its random numbers are the
/// same each time.
pub(crate) struct RoomWorld {
    pub(crate) rooms: Rooms,
    pub(crate) db: Db,
    pub(crate) clock: Clock,
    tasks: Tasks,
    home: Home,
}

/// Where a world's database is.
enum Home {
    Folder(TempDir),
    Database(TestDatabase),
}

impl RoomWorld {
    pub(crate) async fn new() -> Self {
        Self::on(Home::Folder(TempDir::new().unwrap()), RoomCache::default()).await
    }

    /// One that keeps about so many bytes of rooms in memory.
    pub(super) async fn with_cache(bytes: u64) -> Self {
        Self::on(Home::Folder(TempDir::new().unwrap()), RoomCache::with_limit(bytes)).await
    }

    /// One on each engine that is at hand, whose rooms' states are resolved on these lanes.
    pub(super) async fn on_each_engine(lanes: impl Fn() -> Lanes) -> Vec<Self> {
        let mut worlds = Vec::new();
        for database in databases().await {
            let mut world = Self::on(Home::Database(database), RoomCache::default()).await;
            world.rooms = world.rooms.with_lanes(lanes());
            worlds.push(world);
        }
        worlds
    }

    /// One on each engine that is at hand.
    pub(crate) async fn on_every_engine() -> Vec<Self> {
        Self::on_each_engine(Lanes::default).await
    }

    /// This world after a restart: its database as another process finds it.
    pub(crate) async fn restart(self) -> Self {
        let Self { rooms, db, tasks, home, .. } = self;
        drop(rooms);
        tasks.shutdown().start("the test restarts it");
        assert!(tasks.join_all(Duration::from_secs(5)).await.is_empty());
        db.close().await;
        Self::on(home, RoomCache::default()).await
    }

    async fn on(home: Home, active: RoomCache) -> Self {
        let db = match &home {
            Home::Folder(folder) => {
                let url = format!("sqlite:{}", folder.path().join("test.sqlite3").display());
                let db = Db::connect(&url, 1).await.unwrap();
                db.migrate().await.unwrap();
                db
            }
            Home::Database(database) => database.reopen().await,
        };
        let (clock, tasks) = (Clock::manual(1_700_000_000_000), Tasks::new());
        let rooms = node(&db, &clock, &tasks, 1, active).await;
        Self { rooms, db, clock, tasks, home }
    }

    /// This world's rooms as another node of the server sees them. They share the database and nothing else.
    pub(super) async fn another_node(&self) -> Rooms {
        node(&self.db, &self.clock, &self.tasks, 2, RoomCache::default()).await
    }

    /// Stops everything and removes what was written.
    pub(crate) async fn close(self) {
        let Self { rooms, db, tasks, home, .. } = self;
        drop(rooms);
        tasks.shutdown().start("the test is over");
        assert!(tasks.join_all(Duration::from_secs(5)).await.is_empty());
        db.close().await;
        match home {
            Home::Folder(folder) => folder.close().unwrap(),
            Home::Database(database) => database.close().await,
        }
    }

    /// A room of the default version that anybody can join.
    pub(crate) async fn public_room(&self, creator: &str) -> OwnedRoomId {
        self.rooms.create(new_room(creator, Preset::PublicChat)).await.unwrap()
    }

    /// The content of a piece of state, null where there is none.
    pub(super) async fn state(&self, room_id: &ruma::RoomId, kind: &str, state_key: &str) -> Value {
        let state = self.rooms.get(room_id).await.unwrap().state();
        state.get(kind, state_key).map_or(Value::Null, |pdu| pdu.content_as().unwrap())
    }
}

/// `seed` has to differ from node to node: batch ids must be unique.
async fn node(db: &Db, clock: &Clock, tasks: &Tasks, seed: u64, active: RoomCache) -> Rooms {
    let (tail, active, random) = (Arc::new(Tail::default()), Arc::new(active), Random::seeded(seed));
    tail.follow_with(vec![Arc::clone(&active) as Arc<dyn Reader>]);
    let here = owned_server_name!("here");
    let log = Log::start(db.clone(), tail, random.clone(), Metrics::new(), Hub::disconnected(), tasks);
    let log = log.await.unwrap();
    let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "ed25519:a").unwrap();
    let sizes = Sizes::little();
    let cached = (active, sizes.state_difference);
    let quotas = Quotas::of(&Config::default());
    Rooms::new((db.clone(), log), (clock.clone(), random), here, SigningKeys::of(key), cached, quotas)
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
        author: Author::User(user(sender)),
        kind: TimelineEventType::RoomMessage,
        content: json(serde_json::json!({"msgtype": "m.text", "body": transaction_id})),
        transaction: Transaction::of_device("DEVICE".into(), transaction_id.into()),
    }
}

pub(super) fn json(value: Value) -> Content {
    serde_json::from_value(value).unwrap()
}
