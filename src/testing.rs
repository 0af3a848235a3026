//! A server on a temporary database, for tests of what stands below the API: users speak without logging in.
//!
//! Events go through the log as ever, so what tests see is what the caches and tables make of it. Nothing is served,
//! and the time stands still unless a test moves it.

use std::sync::Arc;

use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, UserId, events::TimelineEventType};
use serde_json::{Value, json};

use crate::{
    app::App,
    config::Config,
    db::{
        Engine,
        testing::{TestDatabase, databases, sqlite},
    },
    edge::metrics::Metrics,
    event::Draft,
    ground::{
        clock::Clock,
        position::Position,
        random::Random,
        sizes::{CacheSizes, Sizes},
        tasks::Tasks,
    },
    room::{
        Rooms,
        graph::append::{NewRoomEvents, Plan, Proposal},
    },
    store,
};

/// A server at work, until it is closed.
pub(crate) struct World {
    pub(crate) app: App,
    /// Stands at a moment in 2027 until it is moved.
    pub(crate) clock: Clock,
    database: TestDatabase,
}

/// A local user.
pub(crate) fn user(name: &str) -> OwnedUserId {
    UserId::parse(format!("@{name}:localhost")).unwrap()
}

impl World {
    /// On SQLite, configured as a server is by default.
    pub(crate) async fn new() -> Self {
        Self::with(Config::default()).await
    }

    /// On SQLite, with this configuration.
    pub(crate) async fn with(config: Config) -> Self {
        Self::on(sqlite().await, config).await
    }

    /// On SQLite, with caches that may take so much.
    pub(crate) async fn with_caches(caches: CacheSizes, config: Config) -> Self {
        let (database, clock) = (sqlite().await, Clock::manual(1_800_000_000_000));
        let app = start_with((config, Sizes { caches, ..Sizes::little() }), &database, &clock).await;
        Self { app, clock, database }
    }

    /// One on each engine that is at hand.
    pub(crate) async fn on_each_engine() -> Vec<Self> {
        Self::on_each_engine_with(&Config::default()).await
    }

    /// One on each engine that is at hand, with this configuration.
    pub(crate) async fn on_each_engine_with(config: &Config) -> Vec<Self> {
        let mut worlds = Vec::new();
        for database in databases().await {
            worlds.push(Self::on(database, config.clone()).await);
        }
        worlds
    }

    async fn on(database: TestDatabase, config: Config) -> Self {
        // In milliseconds since the Unix epoch.
        let clock = Clock::manual(1_800_000_000_000);
        let app = start(config, &database, &clock).await;
        Self { app, clock, database }
    }

    /// Stops the server and starts it again on the same database, its memory empty.
    pub(crate) async fn restart(self) -> Self {
        let Self { app, clock, database } = self;
        let config = app.config.clone();
        stop(app).await;
        let app = start(config, &database, &clock).await;
        Self { app, clock, database }
    }

    /// Two servers on one database, where there is an engine at hand that allows it. The second has no database of
    /// its own to remove.
    pub(crate) async fn two_nodes() -> Option<(Self, App)> {
        for world in Self::on_each_engine().await {
            if world.app.db.engine() == Engine::Postgres {
                let other = start(Config::default(), &world.database, &world.clock).await;
                return Some((world, other));
            }
            world.close().await;
        }
        None
    }

    /// Stops the second of two servers, and then the first.
    pub(crate) async fn close_both(self, other: App) {
        stop(other).await;
        self.close().await;
    }

    /// Stops the server and removes its database.
    pub(crate) async fn close(self) {
        stop(self.app).await;
        self.database.close().await;
    }

    pub(crate) fn rooms(&self) -> &Rooms {
        &self.app.rooms
    }

    /// A public room of these users; the first has made it.
    ///
    /// Anybody may send state in it, so that tests need no power levels of their own.
    pub(crate) async fn room(&self, members: &[&UserId]) -> OwnedRoomId {
        let creator = members[0];
        let state = |kind: TimelineEventType, key: &str, content| {
            Proposal::from(Draft::state(creator.to_owned(), kind, key, object(content)))
        };
        let proposals = vec![
            state(TimelineEventType::RoomCreate, "", json!({ "room_version": "11" })),
            state(TimelineEventType::RoomMember, creator.as_str(), json!({ "membership": "join" })),
            state(
                TimelineEventType::RoomPowerLevels,
                "",
                json!({ "users": { creator.as_str(): 100 }, "state_default": 0, "redact": 0 }),
            ),
            state(TimelineEventType::RoomJoinRules, "", json!({ "join_rule": "public" })),
        ];
        let founding = NewRoomEvents { version: RoomVersionId::V11, proposals };
        let room_id = self.rooms().create_room(founding).await.unwrap();
        for member in &members[1..] {
            self.membership(&room_id, member, "join").await;
        }
        room_id
    }

    /// Up to where the log has been read.
    pub(crate) fn reached(&self) -> Position {
        self.rooms().log().tail().reached()
    }

    /// A user's own membership.
    pub(crate) async fn membership(&self, room_id: &RoomId, user_id: &UserId, membership: &str) -> OwnedEventId {
        self.profile(room_id, user_id, json!({ "membership": membership })).await
    }

    /// A user's own membership event.
    pub(crate) async fn profile(&self, room_id: &RoomId, user_id: &UserId, content: Value) -> OwnedEventId {
        let kind = TimelineEventType::RoomMember;
        self.send(room_id, Draft::state(user_id.to_owned(), kind, user_id.as_str(), object(content))).await
    }

    /// A text message.
    pub(crate) async fn say(&self, room_id: &RoomId, sender: &UserId, body: &str) -> OwnedEventId {
        self.message(room_id, sender, json!({ "msgtype": "m.text", "body": body })).await
    }

    /// A text message in a thread.
    pub(crate) async fn reply(&self, room_id: &RoomId, sender: &UserId, root: &EventId) -> OwnedEventId {
        let relation = json!({ "rel_type": "m.thread", "event_id": root });
        self.message(room_id, sender, json!({ "msgtype": "m.text", "body": "re", "m.relates_to": relation })).await
    }

    /// A message of any content.
    pub(crate) async fn message(&self, room_id: &RoomId, sender: &UserId, content: Value) -> OwnedEventId {
        self.send(room_id, Draft::message(sender.to_owned(), TimelineEventType::RoomMessage, object(content))).await
    }

    /// Takes back a message.
    pub(crate) async fn redact(&self, room_id: &RoomId, sender: &UserId, target: &EventId) -> OwnedEventId {
        let mut draft =
            Draft::message(sender.to_owned(), TimelineEventType::RoomRedaction, ruma::CanonicalJsonObject::new());
        // As a client would have it done: the event that is redacted is handed to the rules.
        draft.redacts = Some(target.to_owned());
        let stored = store::event::find(&mut self.app.db.read().await.unwrap(), target).await.unwrap().unwrap();
        self.append(room_id, Proposal { redacts: Some(stored.pdu), ..draft.into() }).await
    }

    /// Sends whatever a test has drafted, if the rules of the room let it.
    pub(crate) async fn send(&self, room_id: &RoomId, draft: Draft) -> OwnedEventId {
        self.append(room_id, draft.into()).await
    }

    // Related before it is planned, as the handlers' way leads too: threads are found out here.
    async fn append(&self, room_id: &RoomId, proposal: Proposal) -> OwnedEventId {
        let Proposal { draft, redacts, .. } = proposal;
        let related = self.rooms().relate(room_id, &draft.sender, &draft.kind, &draft.content).await.unwrap();
        let plan = |_: &_| {
            let redacts = redacts.as_ref().map(Arc::clone);
            Ok(Plan::of(Proposal { redacts, related: related.clone(), ..draft.clone().into() }))
        };
        self.rooms().append(room_id, plan).await.unwrap().event_id().unwrap().to_owned()
    }
}

/// Stops a server and waits for its tasks, so that nothing writes into the database any more.
async fn stop(app: App) {
    let (tasks, db) = (app.tasks.clone(), app.db.clone());
    tasks.shutdown().start("the test stops it");
    drop(app);
    tasks.join_all(std::time::Duration::from_secs(5)).await;
    db.close().await;
}

/// With caches so small that tests see them overflow.
async fn start(config: Config, database: &TestDatabase, clock: &Clock) -> App {
    start_with((config, Sizes::little()), database, clock).await
}

async fn start_with((mut config, sizes): (Config, Sizes), database: &TestDatabase, clock: &Clock) -> App {
    let db = database.reopen().await;
    config.data_dir = database.data_dir();
    let drawn = (clock.clone(), Random::system());
    Box::pin(App::start_with((config, sizes), db, drawn, Tasks::new(), Metrics::new())).await.unwrap()
}

fn object(content: Value) -> ruma::CanonicalJsonObject {
    serde_json::from_value(content).unwrap()
}
