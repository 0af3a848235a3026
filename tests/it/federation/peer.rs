//! Homeservers on one [`Internet`].

use std::time::Duration;

use hearth::config::Config;
use serde_json::Value;

use super::internet::Internet;
use crate::world::{Client, Engine, World, at, escape, next};

/// A homeserver among others.
pub(crate) struct Peer {
    pub(crate) world: World,
    pub(crate) name: String,
    internet: Internet,
}

/// Declares tests between two homeservers: `between! { async fn name(internet, one, two) { … } }`. They run with both on
/// SQLite, with both on PostgreSQL, and with the first as a cluster of three nodes.
#[macro_export]
macro_rules! between {
    ($($(#[$doc:meta])* async fn $name:ident($internet:ident, $one:ident, $two:ident) $body:block)*) => {$(
        $(#[$doc])*
        mod $name {
            #[allow(unused_imports, reason = "not every test needs what its file imports")]
            use super::*;

            async fn run(engines: [$crate::world::Engine; 2]) {
                let $internet = $crate::federation::internet::Internet::new();
                let peers = (
                    $crate::federation::peer::Peer::start(&$internet, "one.test", engines[0]).await,
                    $crate::federation::peer::Peer::start(&$internet, "two.test", engines[1]).await,
                );
                let (Some($one), Some($two)) = peers else {
                    eprintln!("skipped: ./test starts a PostgreSQL and a Redis for this");
                    return;
                };
                $body
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                run([$crate::world::Engine::Sqlite; 2]).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                run([$crate::world::Engine::Postgres; 2]).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn cluster() {
                run([$crate::world::Engine::Cluster, $crate::world::Engine::Sqlite]).await;
            }
        }
    )*};
}

impl Peer {
    /// None where there is no PostgreSQL or Redis.
    pub(crate) async fn start(internet: &Internet, name: &str, engine: Engine) -> Option<Self> {
        Self::start_with(internet, name, engine, |_| ()).await
    }

    /// With a configuration of its own. None where there is no PostgreSQL or Redis.
    pub(crate) async fn start_with(
        internet: &Internet,
        name: &str,
        engine: Engine,
        configure: impl FnOnce(&mut Config),
    ) -> Option<Self> {
        let configured = |config: &mut Config| {
            internet.configure(name, config);
            configure(config);
        };
        let world = World::on(engine, configured).await?;
        let peer = Self { world, name: name.to_owned(), internet: internet.clone() };
        peer.announce();
        Some(peer)
    }

    /// Has the others find it where it listens.
    fn announce(&self) {
        let port = |url: &String| url.rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap();
        self.internet.announce(&self.name, self.world.tls_urls().iter().map(port).collect());
    }

    /// Nobody reaches it any more.
    pub(crate) fn vanish(&self) {
        self.internet.announce(&self.name, Vec::new());
    }

    pub(crate) fn reappear(&self) {
        self.announce();
    }

    pub(crate) async fn user(&self, name: &str) -> Client {
        self.world.user(name).await
    }
}

impl Client {
    /// Joins a room of which another server knows.
    pub(crate) async fn join_via(&self, room: &str, server: &str) -> crate::world::Reply {
        let path = format!("/_matrix/client/v3/join/{}?via={server}", escape(room));
        self.post(&path, serde_json::json!({})).await
    }

    /// Syncs until something is so, for a minute at most.
    pub(crate) async fn until(&self, mut since: String, what: &str, mut is_so: impl FnMut(&Value) -> bool) -> String {
        let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
        loop {
            let sync = self.wait(&since).await;
            since = next(&sync);
            if is_so(&sync) {
                return since;
            }
            assert!(tokio::time::Instant::now() < deadline, "{} was not told {what}", self.user_id);
        }
    }

    /// Waits until a message is in a room's timeline.
    pub(crate) async fn hears(&self, room: &str, text: &str) {
        let is_there = |chunk: &Value| {
            chunk.as_array().is_some_and(|events| events.iter().any(|event| event["content"]["body"] == text))
        };
        let since = next(&self.sync(None).await);
        let page = self.get(&at(room, "/messages?dir=b&limit=100")).await;
        if is_there(&page.body["chunk"]) {
            return;
        }
        let timeline = |sync: &Value| sync["rooms"]["join"][room]["timeline"]["events"].clone();
        self.until(since, text, |sync| is_there(&timeline(sync))).await;
    }

    /// The room's state as this user is shown it: the identifiers of its events, in the order of their types and keys.
    pub(crate) async fn state_ids(&self, room: &str) -> Vec<String> {
        let state = self.get(&at(room, "/state")).await.ok();
        let mut ids: Vec<String> = state
            .as_array()
            .unwrap()
            .iter()
            .map(|event| {
                let text = |field: &str| event[field].as_str().unwrap().to_owned();
                format!("{} {} {}", text("type"), text("state_key"), text("event_id"))
            })
            .collect();
        ids.sort();
        ids
    }
}

/// Waits until the servers of these users agree on a room's state, for a minute at most.
pub(crate) async fn until_they_agree(users: &[&Client], room: &str) {
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    loop {
        let mut states = Vec::new();
        for user in users {
            states.push(user.state_ids(room).await);
        }
        if states.windows(2).all(|pair| pair[0] == pair[1]) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "they do not agree: {states:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A room of the first user that the second one is in, too.
pub(crate) async fn shared_room(one: &Client, two: &Client, version: &str) -> String {
    let body = serde_json::json!({ "preset": "public_chat", "room_version": version });
    let room = one.create_room(body).await;
    let server = one.user_id.split_once(':').unwrap().1;
    two.join_via(&room, server).await.ok();
    room
}

/// Waits for something while time goes on at some homeservers, so that whoever has given up for a while tries again.
pub(crate) async fn as_time_goes_by<T>(peers: [&Peer; 2], something: impl Future<Output = T>) -> T {
    let time = async {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            for peer in peers {
                peer.world.clock.advance(Duration::from_secs(30));
            }
        }
    };
    tokio::select! {
        done = something => done,
        () = time => unreachable!(),
    }
}
