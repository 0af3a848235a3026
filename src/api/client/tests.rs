//! Accounts as clients meet them, over HTTP.

mod hidden;

use std::time::Duration;

use axum::{
    Router,
    body::{Body, to_bytes},
};
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{
    api::{
        endpoint::{OpenTo, RateLimit},
        endpoints,
    },
    app::App,
    config::{Config, RateLimitConfig, RateLimitsConfig, RegistrationMode},
    db::testing::{self, TestDatabase},
    edge::metrics::Metrics,
    ground::{clock::Clock, random::Random, tasks::Tasks},
};

pub(crate) struct Server {
    router: Router,
    pub(crate) app: App,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Server {
    pub(crate) async fn start(database: &TestDatabase, registration: RegistrationMode, rate_limited: bool) -> Self {
        Self::start_with(database, |config| {
            config.registration.mode = registration;
            config.rate_limits.enabled = rate_limited;
            config.rate_limits.login = RateLimitConfig { per_second: 0.01, burst: 2 };
        })
        .await
    }

    async fn start_with(database: &TestDatabase, configure: impl FnOnce(&mut Config)) -> Self {
        let server_name = "example.org".try_into().unwrap();
        let mut config = Config { server_name, data_dir: database.data_dir(), ..Config::default() };
        config.registration.shared_secret = Some("open sesame".to_owned().try_into().unwrap());
        config.passwords.min_length = 1;
        configure(&mut config);
        let (db, clock, random) = (database.db().clone(), Clock::system(), Random::system());
        let app = App::start(config, db, clock, random, Tasks::new(), Metrics::new()).await.unwrap();
        Self { router: crate::api::router(app.clone()), app }
    }

    pub(crate) async fn stop(self) {
        let tasks = self.app.tasks.clone();
        tasks.shutdown().start("the test is over");
        // The log's committer ends once nobody is left who could write.
        drop(self);
        let left = tasks.join_all(Duration::from_secs(10)).await;
        assert!(left.is_empty(), "{left:?} did not stop");
    }

    async fn send(&self, method: Method, path: &str, token: Option<&str>, body: impl Into<Body>) -> Answer {
        let mut request = http::Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str, token: &str) -> Answer {
        self.send(Method::GET, path, Some(token), Body::empty()).await
    }

    async fn put(&self, path: &str, token: &str, body: Value) -> Answer {
        self.send(Method::PUT, path, Some(token), body.to_string()).await
    }

    async fn post(&self, path: &str, token: Option<&str>, body: Value) -> Answer {
        self.send(Method::POST, path, token, body.to_string()).await
    }

    /// Registers with what clients do: ask for the flows, then complete them.
    async fn register(&self, name: &str) -> String {
        let asked = self.post("/_matrix/client/v3/register", None, json!({})).await;
        let auth = json!({ "type": "m.login.dummy", "session": asked.body["session"] });
        let body = json!({ "username": name, "password": name, "device_id": "PHONE", "auth": auth });
        let answer = self.post("/_matrix/client/v3/register", None, body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body["access_token"].as_str().unwrap().to_owned()
    }
}

impl Answer {
    #[track_caller]
    fn refused(&self, status: u16, errcode: &str) {
        assert_eq!((self.status.as_u16(), self.body["errcode"].as_str()), (status, Some(errcode)), "{}", self.body);
        assert!(self.body["error"].as_str().is_some_and(|message| message.len() > 10), "{}", self.body);
    }

    #[track_caller]
    fn ok(&self) -> &Value {
        assert_eq!(self.status, 200, "{}", self.body);
        &self.body
    }
}

fn password(name: &str, session: &Value) -> Value {
    let identifier = json!({ "type": "m.id.user", "user": name });
    json!({ "type": "m.login.password", "identifier": identifier, "password": name, "session": session })
}

const REGISTER: &str = "/_matrix/client/v3/register";
const LOGIN: &str = "/_matrix/client/v3/login";

#[tokio::test]
async fn registration() {
    for database in testing::databases().await {
        let server = Server::start(&database, RegistrationMode::Open, false).await;
        let asked = server.post(REGISTER, None, json!({})).await;
        assert_eq!(asked.status, 401);
        assert_eq!(asked.body["flows"], json!([{ "stages": ["m.login.dummy"] }]));
        assert!(asked.body["session"].is_string() && asked.body["params"].is_object());
        let alice = server.register("Alice").await;
        let whoami = server.get("/_matrix/client/v3/account/whoami", &alice).await;
        assert_eq!(*whoami.ok(), json!({ "user_id": "@alice:example.org", "device_id": "PHONE" }));

        let auth = json!({ "type": "m.login.dummy" });
        server.post(REGISTER, None, json!({ "username": "alice" })).await.refused(400, "M_USER_IN_USE");
        server.post(REGISTER, None, json!({ "username": "b b" })).await.refused(400, "M_INVALID_USERNAME");
        server.post(REGISTER, None, json!({ "username": "bob", "auth": auth })).await.refused(400, "M_MISSING_PARAM");
        let weak = json!({ "username": "bob", "password": "", "auth": auth });
        server.post(REGISTER, None, weak).await.refused(400, "M_WEAK_PASSWORD");
        server.post(&format!("{REGISTER}?kind=guest"), None, json!({})).await.refused(403, "M_GUEST_ACCESS_FORBIDDEN");
        server.send(Method::POST, REGISTER, None, "{").await.refused(400, "M_NOT_JSON");
        server.send(Method::POST, REGISTER, None, "[]").await.refused(400, "M_BAD_JSON");
        server.post(REGISTER, None, json!({ "username": 1 })).await.refused(400, "M_BAD_JSON");
        let available = |name: &str| format!("{REGISTER}/available?username={name}");
        server.get(&available("alice"), "").await.refused(400, "M_USER_IN_USE");
        assert_eq!(*server.get(&available("bob"), "").await.ok(), json!({ "available": true }));

        let quiet = json!({ "password": "x", "inhibit_login": true, "auth": auth });
        let quiet = server.post(REGISTER, None, quiet).await;
        assert_eq!(quiet.ok().as_object().unwrap().keys().collect::<Vec<_>>(), ["user_id"]);
        let refreshing = json!({ "password": "x", "refresh_token": true, "auth": auth });
        let refreshing = server.post(REGISTER, None, refreshing).await;
        assert_eq!(refreshing.ok()["expires_in_ms"], json!(3_600_000));
        let refresh = json!({ "refresh_token": refreshing.body["refresh_token"] });
        let refreshed = server.post("/_matrix/client/v3/refresh", None, refresh).await;
        assert!(refreshed.ok()["refresh_token"].is_string() && refreshed.body["access_token"].is_string());
        server.stop().await;
        database.close().await;
    }
}

#[tokio::test]
async fn registration_by_token_and_not_at_all() {
    for database in testing::databases().await {
        let server = Server::start(&database, RegistrationMode::Token, false).await;
        let token = server.app.accounts.create_registration_token(Some(1), None).await.unwrap();
        let valid =
            |token: &str| format!("/_matrix/client/v1/register/m.login.registration_token/validity?token={token}");
        assert_eq!(*server.get(&valid(&token), "").await.ok(), json!({ "valid": true }));
        assert_eq!(*server.get(&valid("guess"), "").await.ok(), json!({ "valid": false }));
        let with = |auth: Value| server.post(REGISTER, None, json!({ "password": "x", "auth": auth }));
        with(json!({ "type": "m.login.dummy" })).await.refused(401, "M_FORBIDDEN");
        with(json!({ "type": "m.login.registration_token", "token": "guess" })).await.refused(401, "M_FORBIDDEN");
        with(json!({ "type": "m.login.registration_token", "token": token })).await.ok();
        with(json!({ "type": "m.login.registration_token", "token": token })).await.refused(401, "M_FORBIDDEN");

        server.stop().await;

        let server = Server::start(&database, RegistrationMode::Closed, false).await;
        server.post(REGISTER, None, json!({})).await.refused(403, "M_FORBIDDEN");
        server.get(&valid(&token), "").await.refused(403, "M_FORBIDDEN");
        server.get(&format!("{REGISTER}/available?username=bob"), "").await.refused(403, "M_FORBIDDEN");
        let nonce = server.get("/_synapse/admin/v1/register", "").await;
        let wrong = json!({ "nonce": nonce.ok()["nonce"], "username": "a", "password": "b", "mac": "00" });
        server.post("/_synapse/admin/v1/register", None, wrong).await.refused(403, "M_FORBIDDEN");
        server.post("/_synapse/admin/v1/register", None, json!({})).await.refused(400, "M_BAD_JSON");
        server.stop().await;
        database.close().await;
    }
}

#[tokio::test]
async fn login_and_logout() {
    for database in testing::databases().await {
        let server = Server::start(&database, RegistrationMode::Open, false).await;
        server.register("alice").await;
        let login = |body: Value| server.post(LOGIN, None, body);
        login(json!({})).await.refused(400, "M_MISSING_PARAM");
        server.send(Method::POST, LOGIN, None, "").await.refused(400, "M_MISSING_PARAM");
        login(json!({ "type": 1 })).await.refused(400, "M_MISSING_PARAM");
        login(json!({ "type": "m.login.password", "password": "x" })).await.refused(400, "M_MISSING_PARAM");
        login(json!({ "type": "m.login.telepathy" })).await.refused(400, "M_UNKNOWN");
        login(json!({ "type": "m.login.token", "token": "guess" })).await.refused(403, "M_FORBIDDEN");
        let third_party = json!({ "type": "m.id.thirdparty", "medium": "email", "address": "a@example.org" });
        let third_party = json!({ "type": "m.login.password", "identifier": third_party, "password": "x" });
        login(third_party).await.refused(403, "M_FORBIDDEN");
        let wrong = json!({ "type": "m.login.password", "user": "alice", "password": "x" });
        login(wrong).await.refused(403, "M_FORBIDDEN");
        let long = "x".repeat(300);
        let long = json!({ "type": "m.login.password", "user": "alice", "password": "alice", "device_id": long });
        login(long).await.refused(400, "M_INVALID_PARAM");

        let tablet = login(json!({ "type": "m.login.password", "user": "alice", "password": "alice" })).await;
        let token = tablet.ok()["access_token"].as_str().unwrap();
        let asked = server.post("/_matrix/client/v1/login/get_token", Some(token), json!({})).await;
        assert_eq!(asked.status, 401);
        let auth = json!({ "auth": password("alice", &asked.body["session"]) });
        let given = server.post("/_matrix/client/v1/login/get_token", Some(token), auth).await;
        let login_token = &given.ok()["login_token"];
        login(json!({ "type": "m.login.token", "token": login_token, "device_id": "TV" })).await.ok();
        login(json!({ "type": "m.login.token", "token": login_token })).await.refused(403, "M_FORBIDDEN");

        server.post("/_matrix/client/v3/logout", Some(token), json!({})).await.ok();
        let after = server.get("/_matrix/client/v3/account/whoami", token).await;
        after.refused(401, "M_UNKNOWN_TOKEN");
        server.send(Method::GET, "/_matrix/client/v3/devices", None, "").await.refused(401, "M_MISSING_TOKEN");
        server.stop().await;
        database.close().await;
    }
}

#[tokio::test]
async fn devices_and_the_password_that_guards_them() {
    for database in testing::databases().await {
        let server = Server::start(&database, RegistrationMode::Open, false).await;
        let (alice, mallory) = (server.register("alice").await, server.register("mallory").await);
        let devices = "/_matrix/client/v3/devices";
        let phone = format!("{devices}/PHONE");
        server.put(&phone, &alice, json!({ "display_name": "Pocket" })).await.ok();
        assert_eq!(server.get(&phone, &alice).await.ok()["display_name"], json!("Pocket"));
        assert_eq!(server.get(&phone, &mallory).await.ok()["display_name"], json!(null));
        server.put(&phone, &alice, json!({ "display_name": "x".repeat(101) })).await.refused(400, "M_INVALID_PARAM");
        server.put(&format!("{devices}/LAPTOP"), &alice, json!({})).await.refused(404, "M_NOT_FOUND");

        let delete = |token: String, body: Value| {
            let (server, phone) = (&server, &phone);
            async move { server.send(Method::DELETE, phone, Some(&token), body.to_string()).await }
        };
        let asked = delete(alice.clone(), json!({})).await;
        assert_eq!((asked.status.as_u16(), &asked.body["flows"][0]["stages"]), (401, &json!(["m.login.password"])));
        let theirs = json!({ "auth": password("mallory", &asked.body["session"]) });
        delete(alice.clone(), theirs.clone()).await.refused(403, "M_FORBIDDEN");
        delete(mallory.clone(), theirs).await.refused(403, "M_FORBIDDEN");
        let many = json!({ "devices": ["PHONE"], "auth": password("alice", &asked.body["session"]) });
        server.post("/_matrix/client/v3/delete_devices", Some(&alice), many).await.refused(403, "M_FORBIDDEN");
        delete(alice.clone(), json!({ "auth": password("alice", &asked.body["session"]) })).await.ok();
        server.get(devices, &alice).await.refused(401, "M_UNKNOWN_TOKEN");
        assert_eq!(server.get(devices, &mallory).await.ok()["devices"].as_array().unwrap().len(), 1);

        let change = "/_matrix/client/v3/account/password";
        server.post(change, None, json!({ "new_password": "x" })).await.refused(401, "M_MISSING_TOKEN");
        let legacy = json!({ "type": "m.login.password", "user": "mallory", "password": "mallory" });
        let body = json!({ "new_password": "better", "auth": legacy });
        server.post(change, Some(&mallory), body).await.ok();
        let deactivate = "/_matrix/client/v3/account/deactivate";
        let body = |password: &str| {
            let auth = json!({ "type": "m.login.password", "user": "mallory", "password": password });
            json!({ "erase": true, "auth": auth })
        };
        server.post(deactivate, Some(&mallory), body("mallory")).await.refused(401, "M_FORBIDDEN");
        let gone = server.post(deactivate, Some(&mallory), body("better")).await;
        assert_eq!(*gone.ok(), json!({ "id_server_unbind_result": "success" }));
        server.get(devices, &mallory).await.refused(401, "M_UNKNOWN_TOKEN");
        server.stop().await;
        database.close().await;
    }
}

#[tokio::test]
async fn profiles_and_filters_belong_to_their_users() {
    for database in testing::databases().await {
        let server = Server::start(&database, RegistrationMode::Open, false).await;
        let (alice, mallory) = (server.register("alice").await, server.register("mallory").await);
        let profile = "/_matrix/client/v3/profile/@alice:example.org";
        let name = format!("{profile}/displayname");
        assert_eq!(*server.get(&name, "").await.ok(), json!({ "displayname": "alice" }));
        server.get(&format!("{profile}/avatar_url"), "").await.refused(404, "M_NOT_FOUND");
        server.put(&name, &alice, json!({ "displayname": "Alice" })).await.ok();
        server.put(&format!("{profile}/org.example.x"), &alice, json!({ "org.example.x": [1] })).await.ok();
        server.put(&name, &mallory, json!({ "displayname": "Mallory" })).await.refused(403, "M_FORBIDDEN");
        server.send(Method::DELETE, &name, Some(&mallory), "").await.refused(403, "M_FORBIDDEN");
        server.put(&name, &alice, json!({ "avatar_url": "mxc://a/b" })).await.refused(400, "M_MISSING_PARAM");
        server.put(&name, &alice, json!({ "a": 1, "displayname": "Alice", "z": 1 })).await.ok();
        server.put(&name, &alice, json!({ "displayname": 1 })).await.refused(400, "M_BAD_JSON");
        server.put(&format!("{profile}/x"), &alice, json!({ "x": 1 })).await.refused(400, "M_INVALID_PARAM");
        let large = json!({ "org.example.x": "x".repeat(70_000) });
        server.put(&format!("{profile}/org.example.x"), &alice, large).await.refused(400, "M_PROFILE_TOO_LARGE");
        assert_eq!(*server.get(&name, "").await.ok(), json!({ "displayname": "Alice" }));
        assert_eq!(*server.get(profile, "").await.ok(), json!({ "displayname": "Alice", "org.example.x": [1] }));
        server.send(Method::DELETE, &name, Some(&alice), "").await.ok();
        server.get(&name, "").await.refused(404, "M_NOT_FOUND");
        server.get("/_matrix/client/v3/profile/@nobody:example.org", "").await.refused(404, "M_NOT_FOUND");
        server.get("/_matrix/client/v3/profile/nobody", "").await.refused(400, "M_INVALID_PARAM");

        let filters = "/_matrix/client/v3/user/@alice:example.org/filter";
        let filter = json!({ "room": { "timeline": { "limit": 10 } } });
        let stored = server.post(filters, Some(&alice), filter.clone()).await;
        let own = format!("{filters}/{}", stored.ok()["filter_id"].as_str().unwrap());
        assert_eq!(server.post(filters, Some(&alice), filter.clone()).await.ok(), stored.ok());
        assert_eq!(*server.get(&own, &alice).await.ok(), filter);
        server.get(&own, &mallory).await.refused(403, "M_FORBIDDEN");
        server.post(filters, Some(&mallory), json!({})).await.refused(403, "M_FORBIDDEN");
        server.get(&format!("{filters}/other"), &alice).await.refused(404, "M_NOT_FOUND");
        for bad in [json!({ "room": { "timeline": { "limit": "x" } } }), json!({ "room": { "rooms": ["x"] } })] {
            server.post(filters, Some(&alice), bad).await.refused(400, "M_BAD_JSON");
        }
        server.stop().await;
        database.close().await;
    }
}

#[tokio::test]
async fn what_the_server_tells_of_itself() {
    for database in testing::databases().await {
        let server = Server::start(&database, RegistrationMode::Open, false).await;
        let alice = server.register("alice").await;
        let versions = server.send(Method::GET, "/_matrix/client/versions", None, "").await;
        assert!(versions.ok()["versions"].as_array().unwrap().contains(&json!("v1.1")));
        let capabilities = server.get("/_matrix/client/v3/capabilities", &alice).await;
        let capabilities = &capabilities.ok()["capabilities"];
        assert_eq!(capabilities["m.room_versions"]["default"], json!("12"));
        assert_eq!(capabilities["m.room_versions"]["available"]["6"], json!("stable"));
        assert_eq!(capabilities["m.change_password"], json!({ "enabled": true }));
        assert_eq!(capabilities.get("m.account_moderation"), None);
        let threepids = server.get("/_matrix/client/v3/account/3pid", &alice).await;
        assert_eq!(*threepids.ok(), json!({ "threepids": [] }));
        assert_eq!(threepids.headers[header::CONTENT_TYPE], "application/json");
        let flows = server.get(LOGIN, "").await;
        assert_eq!(flows.ok()["flows"][1], json!({ "type": "m.login.token", "get_login_token": true }));
        for unset in ["client", "support"] {
            server.get(&format!("/.well-known/matrix/{unset}"), "").await.refused(404, "M_NOT_FOUND");
        }
        server.stop().await;
        database.close().await;
    }
}

#[tokio::test]
async fn strange_characters_break_nothing() {
    for database in testing::databases().await {
        let server = Server::start(&database, RegistrationMode::Open, false).await;
        let alice = server.register("alice").await;
        for path in ["devices/%00", "devices/%FF", "profile/@a%00:example.org", "profile/@alice:example.org/%00"] {
            let answer = server.get(&format!("/_matrix/client/v3/{path}"), &alice).await;
            assert!(answer.status.is_client_error(), "{path}: {} {}", answer.status, answer.body);
        }
        for (path, body) in [
            (LOGIN, json!({ "type": "m.login.password", "user": "\0", "password": "\0" })),
            (LOGIN, json!({ "type": "m.login.password", "user": "alice", "password": "alice", "device_id": "\0" })),
            (REGISTER, json!({ "auth": { "session": "\0" }, "password": "x" })),
            (REGISTER, json!({ "auth": { "type": "m.login.dummy", "session": "\0" }, "password": "x" })),
        ] {
            let answer = server.post(path, None, body).await;
            assert!(answer.status.is_client_error(), "{path}: {} {}", answer.status, answer.body);
        }
        server.stop().await;
        database.close().await;
    }
}

#[tokio::test]
async fn too_many_attempts_have_to_wait() {
    for database in testing::databases().await {
        let server = Server::start(&database, RegistrationMode::Open, true).await;
        server.register("alice").await;
        let login = || server.post(LOGIN, None, json!({ "type": "m.login.password", "user": "a", "password": "x" }));
        login().await.refused(403, "M_FORBIDDEN");
        login().await.refused(403, "M_FORBIDDEN");
        let limited = login().await;
        limited.refused(429, "M_LIMIT_EXCEEDED");
        let seconds: u64 = limited.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
        assert!((1..=100).contains(&seconds));
        assert_eq!(limited.body["retry_after_ms"], json!(seconds * 1000));
        server.stop().await;
        database.close().await;
    }
}

/// A server on which everything may be done once.
async fn server_that_allows_little(database: &TestDatabase) -> Server {
    Server::start_with(database, |config| {
        config.registration.mode = RegistrationMode::Open;
        let once = RateLimitConfig { per_second: 0.000_02, burst: 1 };
        config.rate_limits = RateLimitsConfig {
            enabled: true,
            exempt_users: Vec::new(),
            login: once,
            registration: once,
            message: once,
            join: once,
            membership: once,
            create_room: once,
            profile: once,
            account_data: once,
            ephemeral: once,
            to_device: once,
            media: once,
            read: once,
            sync: once,
            search: once,
            lookup: once,
            server: once,
        };
    })
    .await
}

#[tokio::test]
async fn every_limited_endpoint_is_refused_to_whoever_has_spent_what_it_costs() {
    for database in testing::databases().await {
        let server = server_that_allows_little(&database).await;
        let alice = server.register("alice").await;
        server.get("/_matrix/client/v3/account/whoami", &alice).await.ok();
        let (endpoints, mut limited) = (endpoints(), 0);
        for endpoint in endpoints.list().iter().filter(|endpoint| endpoint.who != "Administrators") {
            // Those that are for anybody are paid for by a stranger, too.
            let tokens: &[Option<&str>] = match endpoint.rules.rate_limit {
                RateLimit::PerAccount(_) => &[Some(&alice)],
                RateLimit::PerAddress(_) => &[None],
                RateLimit::Lookup => &[Some(&alice), None],
                // Whoever has no key is refused before that.
                RateLimit::PerServer(_) | RateLimit::InHandler(_) | RateLimit::Unlimited(_) | RateLimit::Undecided => {
                    continue;
                }
            };
            limited += 1;
            let path = filled(endpoint.paths.last().unwrap());
            for token in tokens {
                let send = async || server.send(endpoint.method.clone(), &path, *token, "{}").await;
                let _first = send().await;
                let answer = send().await;
                answer.refused(429, "M_LIMIT_EXCEEDED");
                let seconds: u64 = answer.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
                assert_eq!(answer.body["retry_after_ms"], json!(seconds * 1_000), "{path}");
            }
        }
        assert!(limited > 90, "{limited}");
        assert_eq!(server.get("/health", "").await.status, 200);
        server.post("/_matrix/client/v3/logout", Some(&alice), json!({})).await.ok();
        server.stop().await;
        database.close().await;
    }
}

/// What is closed to suspended accounts, by the name of one of its paths. Whoever adds an endpoint decides: it comes here,
/// or is open to them by its policy.
const CLOSED_TO_SUSPENDED: &[&str] = &[
    "POST /_synapse/admin/v1/send_server_notice",
    "PUT /_synapse/admin/v1/send_server_notice/{txn_id}",
    "POST /org.matrix.msc4140/delayed_events/{delay_id}",
    "POST /org.matrix.msc4140/delayed_events/{delay_id}/{action}",
    "PUT /org.matrix.msc4140/rooms/{room_id}/delayed_event/{event_type}/{txn_id}",
    "POST /account/3pid",
    "POST /account/3pid/add",
    "POST /account/3pid/bind",
    "POST /account/3pid/delete",
    "POST /account/3pid/unbind",
    "PUT /admin/lock/{user_id}",
    "PUT /admin/suspend/{user_id}",
    "POST /appservice/{appservice_id}/ping",
    "POST /createRoom",
    "PUT /devices/{device_id}",
    "PUT /directory/list/appservice/{network_id}/{room_id}",
    "PUT /directory/list/room/{room_id}",
    "DELETE /directory/room/{room_alias}",
    "PUT /directory/room/{room_alias}",
    "POST /knock/{room_id_or_alias}",
    "POST /_matrix/media/v1/create",
    "POST /_matrix/media/v3/upload",
    "PUT /_matrix/media/v3/upload/{server_name}/{media_id}",
    "PUT /presence/{user_id}/status",
    "DELETE /profile/{user_id}/{field}",
    "PUT /profile/{user_id}/{field}",
    "POST /rooms/{room_id}/ban",
    "POST /rooms/{room_id}/invite",
    "POST /rooms/{room_id}/kick",
    "PUT /rooms/{room_id}/state/{event_type}/{state_key}",
    "PUT /rooms/{room_id}/typing/{user_id}",
    "POST /rooms/{room_id}/unban",
    "POST /rooms/{room_id}/upgrade",
    "POST /user/{user_id}/openid/request_token",
];

/// What is open to them for one room only.
const HARDLY_OPEN: &[&str] = &["POST /join/{room_id_or_alias}", "POST /rooms/{room_id}/join"];

/// A path with something in the place of each parameter.
fn filled(path: &str) -> String {
    let filled = path.split('/').map(|segment| match segment {
        "{user_id}" => "@alice:example.org",
        "{room_id}" | "{room_id_or_alias}" => "!room:example.org",
        "{room_alias}" => "%23room:example.org",
        "{event_type}" => "m.room.redaction",
        "{field}" => "displayname",
        segment if segment.starts_with('{') => "x",
        segment => segment,
    });
    filled.collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn every_endpoint_is_sorted_for_suspended_and_for_locked_accounts() {
    for database in testing::databases().await {
        let server = Server::start(&database, RegistrationMode::Open, false).await;
        let endpoints = endpoints();
        let endpoints: Vec<_> =
            endpoints.list().iter().filter(|endpoint| !["Anybody", "Servers"].contains(&endpoint.who)).collect();
        assert!(endpoints.len() > 60, "{}", endpoints.len());
        let alice = server.register("alice").await;
        server.app.accounts.create_user("root", "root", true).await.unwrap();
        let root =
            server.post(LOGIN, None, json!({ "type": "m.login.password", "user": "root", "password": "root" })).await;
        let root = root.ok()["access_token"].as_str().unwrap().to_owned();
        let moderate = |act: &'static str, key: &'static str, on: bool| {
            let path = format!("/_matrix/client/v1/admin/{act}/@alice:example.org");
            let (server, root) = (&server, root.clone());
            async move { assert_eq!(*server.put(&path, &root, json!({ key: on })).await.ok(), json!({ key: on })) }
        };

        moderate("suspend", "suspended", true).await;
        for endpoint in &endpoints {
            let names = endpoint.names();
            let closed = names.iter().any(|name| CLOSED_TO_SUSPENDED.contains(&name.as_str()));
            assert_eq!(
                closed,
                endpoint.rules.open_to == OpenTo::Unrestricted,
                "{names:?} is either closed to them or open: CLOSED_TO_SUSPENDED and policy.rs differ"
            );
            if endpoint.rules.open_to == OpenTo::Locked {
                continue;
            }
            for path in &endpoint.paths {
                let answer = server.send(endpoint.method.clone(), &filled(path), Some(&alice), "{}").await;
                if closed || names.iter().any(|name| HARDLY_OPEN.contains(&name.as_str())) {
                    answer.refused(403, "M_USER_SUSPENDED");
                } else {
                    assert_ne!(answer.body["errcode"], json!("M_USER_SUSPENDED"), "{path}");
                }
            }
        }

        moderate("lock", "locked", true).await;
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.rules.open_to != OpenTo::Locked) {
            for path in &endpoint.paths {
                let answer = server.send(endpoint.method.clone(), &filled(path), Some(&alice), "{}").await;
                answer.refused(401, "M_USER_LOCKED");
                assert_eq!(answer.body["soft_logout"], json!(true));
            }
        }
        let whoami = "/_matrix/client/v3/account/whoami";
        moderate("lock", "locked", false).await;
        moderate("suspend", "suspended", false).await;
        server.get(whoami, &alice).await.ok();
        server.put("/_matrix/client/v3/devices/PHONE", &alice, json!({ "display_name": "Pocket" })).await.ok();
        moderate("lock", "locked", true).await;
        server.post("/_matrix/client/v3/logout", Some(&alice), json!({})).await.ok();
        server.get(whoami, &alice).await.refused(401, "M_UNKNOWN_TOKEN");
        server.stop().await;
        database.close().await;
    }
}
