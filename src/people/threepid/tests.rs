//! What a user has published is withdrawn with their account, if not at once then later.

use std::time::Duration;

use axum::{Router, extract::State, response::IntoResponse, routing::post};
use http::StatusCode;
use parking_lot::Mutex;
use ruma::{ClientSecret, SessionId, server_name};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::{
    config::{IdentityConfig, RegistrationMode},
    db::testing::{self, TestDatabase},
    event::{SigningKey, SigningKeys},
    ground::tasks::Tasks,
    people::account::tests::{House, house},
    store::threepid::Binding,
};

/// An identity server. Clones are the same.
#[derive(Clone, Default)]
struct IdentityServer(Arc<Mutex<Knowledge>>);

#[derive(Default)]
struct Knowledge {
    users: Vec<String>,
    is_broken: bool,
}

impl IdentityServer {
    /// Tells under which name it is known.
    async fn start(&self, tasks: &Tasks) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = listener.local_addr().unwrap().to_string();
        let router = Router::new()
            .route("/_matrix/identity/v2/3pid/bind", post(bind))
            .route("/_matrix/identity/v2/3pid/unbind", post(unbind))
            .with_state(self.clone());
        tasks.spawn("identity server", async move { axum::serve(listener, router).await.unwrap() });
        name
    }

    fn is_broken(&self, is_broken: bool) {
        self.0.lock().is_broken = is_broken;
    }

    fn users(&self) -> Vec<String> {
        self.0.lock().users.clone()
    }
}

async fn bind(State(server): State<IdentityServer>, body: String) -> String {
    let body: Value = serde_json::from_str(&body).unwrap();
    server.0.lock().users.push(body["mxid"].as_str().unwrap().to_owned());
    json!({ "medium": "email", "address": "somebody@example.org" }).to_string()
}

async fn unbind(State(server): State<IdentityServer>, body: String) -> impl IntoResponse {
    let body: Value = serde_json::from_str(&body).unwrap();
    let mut knowledge = server.0.lock();
    if knowledge.is_broken {
        return (StatusCode::INTERNAL_SERVER_ERROR, "{}");
    }
    knowledge.users.retain(|user_id| *user_id != body["mxid"]);
    (StatusCode::OK, "{}")
}

/// What publishes addresses at one identity server.
struct Publisher {
    threepids: Threepids,
    name: String,
}

impl Publisher {
    async fn new(database: &TestDatabase, house: &House, server: &IdentityServer, tasks: &Tasks) -> Self {
        let name = server.start(tasks).await;
        let config = IdentityConfig { servers: vec![format!("http://{name}").try_into().unwrap()] };
        let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "ed25519:a").unwrap();
        let identity =
            IdentityServers::new(&config, server_name!("example.org").to_owned(), SigningKeys::of(key)).unwrap();
        let (db, clock) = (database.db().clone(), house.clock.clone());
        let threepids = Threepids::new(db, clock, Random::system(), &Config::default(), identity);
        Self { threepids: threepids.unwrap(), name }
    }

    async fn bind(&self, user_id: &UserId) -> Result<()> {
        let (sid, client_secret) = (SessionId::parse("sid").unwrap(), ClientSecret::parse("secret").unwrap());
        let credentials =
            Credentials { id_server: &self.name, id_access_token: "token", sid: &sid, client_secret: &client_secret };
        self.threepids.bind(user_id, credentials).await
    }

    async fn published(&self, user_id: &UserId) -> Vec<Binding> {
        self.threepids.list_published(user_id, None).await.unwrap()
    }
}

#[tokio::test]
async fn what_could_not_be_withdrawn_with_an_account_is_withdrawn_later() {
    for database in testing::databases().await {
        let (house, tasks, server) =
            (house(&database, RegistrationMode::Open).await, Tasks::new(), IdentityServer::default());
        let publisher = Publisher::new(&database, &house, &server, &tasks).await;
        let alice = house.register("alice", "secret").await.user_id;
        let bob = house.register("bob", "secret").await.user_id;
        for user_id in [&alice, &bob] {
            publisher.bind(user_id).await.unwrap();
        }
        server.is_broken(true);
        house.accounts.deactivate(&alice, true).await.unwrap();
        let published = publisher.published(&alice).await;
        assert_eq!(published.len(), 1);
        assert!(!publisher.threepids.unbind_all(&alice, published).await);
        publisher.threepids.withdraw_left().await.unwrap();
        assert_eq!(server.users(), [alice.as_str(), bob.as_str()]);

        server.is_broken(false);
        publisher.threepids.withdraw_left().await.unwrap();
        assert_eq!(server.users(), [bob.as_str()]);
        assert_eq!((publisher.published(&alice).await.len(), publisher.published(&bob).await.len()), (0, 1));
        tasks.shutdown().start("the test is over");
        database.close().await;
    }
}

#[tokio::test]
async fn what_nobody_withdraws_is_forgotten_in_the_end() {
    for database in testing::databases().await {
        let (house, tasks, server) =
            (house(&database, RegistrationMode::Open).await, Tasks::new(), IdentityServer::default());
        let publisher = Publisher::new(&database, &house, &server, &tasks).await;
        let alice = house.register("alice", "secret").await.user_id;
        publisher.bind(&alice).await.unwrap();
        server.is_broken(true);
        house.accounts.deactivate(&alice, false).await.unwrap();
        for left in [1, 0] {
            publisher.threepids.withdraw_left().await.unwrap();
            assert_eq!(publisher.published(&alice).await.len(), left);
            house.clock.advance(Duration::from_hours(7 * 24));
        }
        tasks.shutdown().start("the test is over");
        database.close().await;
    }
}

/// The identity server has published it by then.
#[tokio::test]
async fn what_is_published_while_an_account_is_deactivated_is_withdrawn_again() {
    for database in testing::databases().await {
        let (house, tasks, server) =
            (house(&database, RegistrationMode::Open).await, Tasks::new(), IdentityServer::default());
        let publisher = Publisher::new(&database, &house, &server, &tasks).await;
        let alice = house.register("alice", "secret").await.user_id;
        house.accounts.deactivate(&alice, false).await.unwrap();
        for is_broken in [false, true] {
            server.is_broken(is_broken);
            let refused = publisher.bind(&alice).await;
            assert!(matches!(refused, Err(Error::Refused { kind: ErrorKind::UserDeactivated, .. })), "{refused:?}");
            assert_eq!(
                (server.users().is_empty(), publisher.published(&alice).await.is_empty()),
                (!is_broken, !is_broken)
            );
        }
        server.is_broken(false);
        publisher.threepids.withdraw_left().await.unwrap();
        assert!(server.users().is_empty() && publisher.published(&alice).await.is_empty());
        tasks.shutdown().start("the test is over");
        database.close().await;
    }
}

#[tokio::test]
async fn an_account_has_so_many_addresses() {
    for database in testing::databases().await {
        let mut config = Config::default();
        config.quotas.addresses = 2;
        let quotas = Quotas::of(&config);
        let (alice, bob) = (ruma::user_id!("@alice:example.org"), ruma::user_id!("@bob:example.org"));
        let attach = async |user_id: &UserId, address: &str| -> Result<()> {
            let (medium, address) = ("email".to_owned(), address.to_owned());
            let threepid = Threepid { medium, address, validated_ts: 1, added_ts: 1 };
            let mut tx = database.db().begin().await.unwrap();
            attach(&mut tx, &quotas, user_id, &threepid).await?;
            Ok(tx.commit().await?)
        };
        attach(alice, "1@example.org").await.unwrap();
        attach(alice, "2@example.org").await.unwrap();
        let refused = attach(alice, "3@example.org").await;
        assert!(matches!(refused, Err(Error::Refused { kind: ErrorKind::UserLimitExceeded(_), .. })), "{refused:?}");
        // Nothing of it is there, what they have can be proved again, and others are not held to what she has.
        attach(bob, "3@example.org").await.unwrap();
        attach(alice, "2@example.org").await.unwrap();
        database.close().await;
    }
}
