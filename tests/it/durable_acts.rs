//! An act of an account whose process is killed has happened whole or not at all, and what follows from it follows.
//!
//! A server is killed a little later each time after a client has asked for something, so that it dies before, within
//! and after each of the steps. Of a cluster only the node that was asked dies; the others go on with what it has left.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    durable::{Server, kill_cycles},
    world::{escape, http_client, new_postgres_database, password},
};

/// How long it may take until a server is up and what was left is done. Leases run out by themselves.
const PATIENCE: Duration = Duration::from_mins(2);
const SECRET: &str = "a long secret";
const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("hearth.sqlite3").display());
    Town::new(vec![Server::start(dir.path(), &[("HEARTH_DATABASE__URL", url.as_str())])])
        .await
        .live_through_kills()
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster() {
    let (Some(database), Ok(redis)) = (new_postgres_database().await, std::env::var("HEARTH_TEST_REDIS")) else {
        eprintln!("skipped: ./test starts a PostgreSQL and a Redis for this");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let start = |node: u32| {
        let dir = dir.path().join(format!("node{node}"));
        std::fs::create_dir(&dir).unwrap();
        Server::start(&dir, &[("HEARTH_DATABASE__URL", database.as_str()), ("HEARTH_REDIS__URL", redis.as_str())])
    };
    Town::new((0..3).map(start).collect()).await.live_through_kills().await;
}

/// Some servers, and rooms in which somebody watches who is there.
struct Town {
    servers: Vec<Server>,
    http: reqwest::Client,
    host: String,
    root: String,
    rooms: Vec<String>,
    kills: AtomicU64,
}

/// An answer, if the server was there to give one.
type Answer = Option<(u16, Value)>;

/// Somebody with a session.
struct Citizen {
    user_id: String,
    token: String,
}

impl Town {
    async fn new(servers: Vec<Server>) -> Self {
        let (http, kills) = (http_client(Duration::from_secs(20)), AtomicU64::new(0));
        let mut town = Self { servers, http, host: String::new(), root: String::new(), rooms: Vec::new(), kills };
        town.are_up().await;
        town.servers[0].admin(&["create-user", "root", "--admin", "--password-stdin"], SECRET);
        town.root = town.login("root", SECRET).await.unwrap().token;
        town.host = town.register("host").await.token;
        for _ in 0..8 {
            let wish = json!({ "preset": "public_chat" });
            let made = town.ask(&town.host, "POST", "/_matrix/client/v3/createRoom", wish).await;
            town.rooms.push(made["room_id"].as_str().unwrap().to_owned());
        }
        town
    }

    async fn live_through_kills(mut self) {
        let alice = self.register("alice").await;
        self.join_all(&alice).await;
        for cycle in 0..kill_cycles(3) {
            self.change_profile(&alice, "displayname", &format!("Alice {cycle}")).await;
            self.change_profile(&alice, "avatar_url", &format!("mxc://example.org/{cycle}")).await;
            self.deactivate(&format!("bob{cycle}")).await;
            self.log_out(&format!("carol{cycle}")).await;
            self.log_out_everywhere(&format!("gwen{cycle}")).await;
            self.change_password(&format!("dave{cycle}")).await;
            self.lock(&format!("eve{cycle}")).await;
            self.suspend(&format!("hal{cycle}")).await;
            self.refresh(&format!("fred{cycle}")).await;
        }
    }

    async fn change_profile(&mut self, alice: &Citizen, field: &str, value: &str) {
        let path = format!("/_matrix/client/v3/profile/{}/{field}", escape(&alice.user_id));
        let body = json!({ field: value });
        self.kill_during(&alice.token, "PUT", &path, body.clone(), 5).await;
        self.until("the rooms agree with the profile", async || {
            // Not set yet, at first.
            let (_, said) = self.try_to_ask(&alice.token, "GET", &path, Value::Null).await;
            self.members(&alice.user_id).await.iter().all(|member| member[field] == said[field])
        })
        .await;
        self.ask(&alice.token, "PUT", &path, body).await;
        for member in self.members(&alice.user_id).await {
            assert_eq!(member[field], *value);
        }
    }

    async fn deactivate(&mut self, name: &str) {
        let bob = self.register(name).await;
        self.join_all(&bob).await;
        let (path, body) = ("/_matrix/client/v3/account/deactivate", json!({ "auth": password(name, SECRET) }));
        self.kill_during(&bob.token, "POST", path, body.clone(), 20).await;
        let are = async |membership: &str| {
            self.members(&bob.user_id).await.iter().all(|member| member["membership"] == membership)
        };
        match self.login(name, SECRET).await {
            Ok(back) => {
                assert!(are("join").await, "{name} has an account, and no room less");
                self.ask(&back.token, "POST", path, body).await;
                assert!(are("leave").await);
            }
            Err(errcode) => {
                assert_eq!(errcode, "M_USER_DEACTIVATED");
                self.until("the rooms are left", async || are("leave").await).await;
            }
        }
        self.is_the_same_everywhere(&bob.token, Some("M_UNKNOWN_TOKEN")).await;
    }

    async fn log_out(&mut self, name: &str) {
        let carol = self.register(name).await;
        let other = self.login(name, SECRET).await.unwrap();
        self.is_the_same_everywhere(&carol.token, None).await;
        let answer = self.kill_during(&carol.token, "POST", "/_matrix/client/v3/logout", json!({}), 3).await;
        let errcode = self.errcode(&carol.token).await;
        assert!(answer.is_none() || errcode.is_some(), "what was answered holds");
        self.is_the_same_everywhere(&carol.token, errcode.as_deref()).await;
        self.is_the_same_everywhere(&other.token, None).await;
    }

    async fn log_out_everywhere(&mut self, name: &str) {
        let gwen = self.register(name).await;
        let other = self.login(name, SECRET).await.unwrap();
        self.is_the_same_everywhere(&other.token, None).await;
        let answer = self.kill_during(&gwen.token, "POST", "/_matrix/client/v3/logout/all", json!({}), 3).await;
        let errcode = self.errcode(&gwen.token).await;
        assert!(answer.is_none() || errcode.is_some(), "what was answered holds");
        for token in [&gwen.token, &other.token] {
            self.is_the_same_everywhere(token, errcode.as_deref()).await;
        }
    }

    async fn change_password(&mut self, name: &str) {
        let dave = self.register(name).await;
        let other = self.login(name, SECRET).await.unwrap();
        let body = json!({ "new_password": "another secret", "auth": password(name, SECRET) });
        self.kill_during(&dave.token, "POST", "/_matrix/client/v3/account/password", body, 20).await;
        let (old, new) = (self.login(name, SECRET).await.is_ok(), self.login(name, "another secret").await.is_ok());
        assert_ne!(old, new, "one password is good");
        self.is_the_same_everywhere(&other.token, new.then_some("M_UNKNOWN_TOKEN")).await;
        self.is_the_same_everywhere(&dave.token, None).await;
    }

    async fn lock(&mut self, name: &str) {
        let eve = self.register(name).await;
        self.is_the_same_everywhere(&eve.token, None).await;
        let path = format!("/_matrix/client/v1/admin/lock/{}", escape(&eve.user_id));
        let root = self.root.clone();
        let answer = self.kill_during(&root, "PUT", &path, json!({ "locked": true }), 3).await;
        let errcode = self.errcode(&eve.token).await;
        assert!(errcode.as_deref() == Some("M_USER_LOCKED") || errcode.is_none() && answer.is_none());
        self.is_the_same_everywhere(&eve.token, errcode.as_deref()).await;
    }

    async fn suspend(&mut self, name: &str) {
        let hal = self.register(name).await;
        let path = format!("/_matrix/client/v1/admin/suspend/{}", escape(&hal.user_id));
        // Every node knows him.
        self.is_the_same_everywhere(&hal.token, None).await;
        let root = self.root.clone();
        let answer = self.kill_during(&root, "PUT", &path, json!({ "suspended": true }), 3).await;
        let said = self.ask(&root, "GET", &path, Value::Null).await["suspended"].as_bool().unwrap();
        assert!(said || answer.is_none(), "what was answered holds");
        for server in &self.servers {
            let make = ("POST", "/_matrix/client/v3/createRoom");
            let (_, refused) = call(&self.http, &server.url, &hal.token, make.0, make.1, json!({})).await.unwrap();
            assert_eq!(refused["errcode"].as_str(), said.then_some("M_USER_SUSPENDED"), "{refused}");
        }
        self.is_the_same_everywhere(&hal.token, None).await;
    }

    async fn refresh(&mut self, name: &str) {
        self.register(name).await;
        let mut login = password(name, SECRET);
        login["refresh_token"] = true.into();
        let session = self.ask("", "POST", "/_matrix/client/v3/login", login).await;
        let body = json!({ "refresh_token": session["refresh_token"] });
        self.kill_during("", "POST", "/_matrix/client/v3/refresh", body.clone(), 3).await;
        // Whether or not the tokens were made: nobody has used them.
        let refreshed = self.ask("", "POST", "/_matrix/client/v3/refresh", body).await;
        self.is_the_same_everywhere(refreshed["access_token"].as_str().unwrap(), None).await;
    }

    /// Asks the first server for something and kills it meanwhile, a few steps of so many milliseconds later. Returns what
    /// it answered, if it came to that, once all servers are up again.
    async fn kill_during(&mut self, token: &str, method: &str, path: &str, body: Value, step: u64) -> Answer {
        let number = self.kills.fetch_add(1, Ordering::Relaxed);
        // Few of each act, so that neighbours are far apart.
        let moment = Duration::from_millis(number.wrapping_mul(7) % 10 * step);
        let (http, url) = (self.http.clone(), self.servers[0].url.clone());
        let asked = call(&http, &url, token, method, path, body);
        let killed = async {
            tokio::time::sleep(moment).await;
            self.servers[0].kill_and_restart();
        };
        let (answer, ()) = tokio::join!(asked, killed);
        self.are_up().await;
        answer.filter(|(status, _)| *status < 500)
    }

    async fn are_up(&self) {
        self.until("all servers are up", async || {
            for server in &self.servers {
                if call(&self.http, &server.url, "", "GET", "/ready", Value::Null)
                    .await
                    .is_none_or(|(status, _)| status != 200)
                {
                    return false;
                }
            }
            true
        })
        .await;
    }

    async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let patience = Instant::now() + PATIENCE;
        while !holds().await {
            assert!(Instant::now() < patience, "{what}: not in {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the last server answers to a request that succeeds. It is another than the one that was killed, if there are
    /// several.
    async fn ask(&self, token: &str, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.try_to_ask(token, method, path, body).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    /// Until it answers with anything that can't be tried again.
    async fn try_to_ask(&self, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let patience = Instant::now() + PATIENCE;
        loop {
            let url = &self.servers.last().unwrap().url;
            match call(&self.http, url, token, method, path, body.clone()).await {
                Some((status, answer)) if status != 503 => return (status, answer),
                _ => assert!(Instant::now() < patience, "{method} {path}: the server does not come back"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Each room's event about a user.
    async fn members(&self, user_id: &str) -> Vec<Value> {
        let mut members = Vec::new();
        for room in &self.rooms {
            let path = format!("/_matrix/client/v3/rooms/{}/state/m.room.member/{}", escape(room), escape(user_id));
            members.push(self.ask(&self.host, "GET", &path, Value::Null).await);
        }
        members
    }

    async fn register(&self, name: &str) -> Citizen {
        let body = json!({ "username": name, "password": SECRET, "auth": { "type": "m.login.dummy" } });
        citizen(&self.ask("", "POST", "/_matrix/client/v3/register", body).await)
    }

    /// The error is the code of the refusal.
    async fn login(&self, name: &str, secret: &str) -> Result<Citizen, String> {
        match self.try_to_ask("", "POST", "/_matrix/client/v3/login", password(name, secret)).await {
            (200, answer) => Ok(citizen(&answer)),
            (_, answer) => Err(answer["errcode"].as_str().unwrap().to_owned()),
        }
    }

    async fn join_all(&self, citizen: &Citizen) {
        for room in &self.rooms {
            self.ask(&citizen.token, "POST", &format!("/_matrix/client/v3/join/{}", escape(room)), json!({})).await;
        }
    }

    /// Why a token is refused, if it is.
    async fn errcode(&self, token: &str) -> Option<String> {
        let (status, answer) = self.try_to_ask(token, "GET", WHOAMI, Value::Null).await;
        (status != 200).then(|| answer["errcode"].as_str().unwrap().to_owned())
    }

    /// Checks that each server refuses a token for this reason, or takes it.
    async fn is_the_same_everywhere(&self, token: &str, errcode: Option<&str>) {
        for server in &self.servers {
            let (_, answer) = call(&self.http, &server.url, token, "GET", WHOAMI, Value::Null).await.unwrap();
            assert_eq!(answer["errcode"].as_str(), errcode, "{answer}");
        }
    }
}

fn citizen(answer: &Value) -> Citizen {
    let text = |field: &str| answer[field].as_str().unwrap().to_owned();
    Citizen { user_id: text("user_id"), token: text("access_token") }
}

/// One call. None where the server is not there, or dies over it.
async fn call(http: &reqwest::Client, url: &str, token: &str, method: &str, path: &str, body: Value) -> Answer {
    let mut request = http.request(method.parse().unwrap(), format!("{url}{path}"));
    if !token.is_empty() {
        request = request.bearer_auth(token);
    }
    if !body.is_null() {
        request = request.json(&body);
    }
    let response = request.send().await.ok()?;
    let status = response.status().as_u16();
    let text = response.text().await.ok()?;
    Some((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
}
