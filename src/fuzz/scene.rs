//! A server with people and rooms, and what its answers have taught of them: requests name what is there, mostly.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use axum::{Router, body::Body};
use http::{Request, StatusCode, header::AUTHORIZATION};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::dice::Dice;
use crate::{
    admin::Administration,
    api,
    app::App,
    config::{Config, RegistrationMode},
    db::testing::TestDatabase,
    edge::metrics::Metrics,
    ground::{clock::Clock, random::Random, tasks::Tasks},
};

/// How many of each kind of thing are remembered.
const KEPT: usize = 40;
/// An answer that has not come by then never comes. It is no measure of anything.
const NEVER: Duration = Duration::from_mins(5);
/// How long somebody waits for news before they go on with something else.
const PATIENCE: Duration = Duration::from_millis(200);

/// Somebody who can log in with `password`.
#[derive(Clone)]
pub(super) struct Actor {
    pub(super) user_id: String,
    pub(super) token: String,
}

pub(super) struct Scene {
    router: Router,
    pub(super) app: App,
    database: TestDatabase,
    pub(super) actors: Vec<Actor>,
    /// By the names of placeholders.
    known: BTreeMap<&'static str, Vec<String>>,
    named: usize,
}

/// What came of a request.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) bytes: usize,
    pub(super) body: Value,
    /// How often the server had to look after the request until it was answered.
    pub(super) polls: usize,
}

/// Which members of answers are names of what.
const TAUGHT: [(&str, &[&str]); 12] = [
    ("room_id", &["room_id", "room_id_or_alias"]),
    ("event_id", &["event_id"]),
    ("next_batch", &["token"]),
    ("prev_batch", &["token"]),
    ("start", &["token"]),
    ("end", &["token"]),
    ("filter_id", &["filter_id"]),
    ("delay_id", &["delay_id"]),
    ("device_id", &["device_id"]),
    ("nonce", &["nonce"]),
    ("session", &["session"]),
    ("refresh_token", &["refresh_token"]),
];

impl Scene {
    pub(super) async fn set(database: TestDatabase, seed: u64) -> Self {
        let mut config = Config { data_dir: database.data_dir(), ..Config::default() };
        config.registration.mode = RegistrationMode::Open;
        config.registration.guests = true;
        config.registration.shared_secret = Some("a long and secret text".to_owned().try_into().unwrap());
        config.server_notices.localpart = Some("notices".to_owned());
        config.rate_limits.enabled = false;
        let (db, clock, random) = (database.db().clone(), Clock::manual(1_800_000_000_000), Random::seeded(seed));
        let started = App::start(config, db, clock.clone(), random.clone(), Tasks::new(), Metrics::new());
        let app = Box::pin(started).await.unwrap();
        let router = api::router(app.clone());
        let mut scene = Self { router, app, database, actors: Vec::new(), known: BTreeMap::new(), named: 0 };
        let administration =
            Administration::open(&scene.app.config, scene.app.db.clone(), clock, &random).await.unwrap();
        administration.create_user("root", "password", true).await.unwrap();
        drop(administration);
        scene.login("root").await;
        scene
    }

    pub(super) async fn close(self) {
        assert!(self.app.tasks.shutdown().find_reason().is_none(), "something in the background has failed");
        let tasks = self.app.tasks.clone();
        tasks.shutdown().start("the test is over");
        drop((self.router, self.app));
        let left = tasks.join_all(Duration::from_secs(20)).await;
        assert!(left.is_empty(), "{left:?} did not stop");
        self.database.close().await;
    }

    /// Something that a placeholder stands for; None where nothing of the kind is known.
    pub(super) fn find(&self, dice: &mut Dice, placeholder: &str, own: &Actor) -> Option<String> {
        Some(match placeholder {
            "own_id" => own.user_id.clone(),
            "user_id" if dice.one_in(2) => own.user_id.clone(),
            "user_id" => dice.of(&self.actors).user_id.clone(),
            "name" => format!("n{}", dice.below(100_000)),
            "txn_id" => dice.below(1_000).to_string(),
            "room_alias" => format!("#a{}:localhost", dice.below(20)),
            "event_type" => dice.pick(TYPES).to_owned(),
            "state_key" if dice.one_in(2) => String::new(),
            "state_key" if dice.one_in(2) => dice.of(&self.actors).user_id.clone(),
            "state_key" => dice.pick(&[own.user_id.as_str(), "a", "_b"]).to_owned(),
            "receipt_type" => dice.pick(&["m.read", "m.read.private", "m.fully_read"]).to_owned(),
            "rel_type" => dice.pick(&["m.thread", "m.annotation", "m.replace", "m.reference"]).to_owned(),
            "field" => dice.pick(&["displayname", "avatar_url", "org.example.mood", "m.tz"]).to_owned(),
            "tag" => "u.work".to_owned(),
            "version" => dice.pick(&["1", "2", "3"]).to_owned(),
            "session_id" => "session".to_owned(),
            "kind" => dice.pick(&["override", "underride", "content", "room", "sender"]).to_owned(),
            "rule_id" => ".m.rule.master".to_owned(),
            "action" => dice.pick(&["send", "cancel", "restart"]).to_owned(),
            other => {
                let known = self.known.get(other)?;
                known.get(dice.below(known.len()))?.clone()
            }
        })
    }

    /// A room with some life in it, of everybody.
    pub(super) async fn make_room(&mut self) {
        if !self.actors.iter().any(|actor| actor.user_id == "@root:localhost") {
            self.login("root").await;
        }
        while self.actors.len() < 5 {
            self.register().await;
        }
        let actors = self.actors.clone();
        let wishes = json!({ "preset": "public_chat", "visibility": "public", "name": "A room" });
        let made = self.post(&actors[1], "/_matrix/client/v3/createRoom", wishes).await;
        let Some(room) = made["room_id"].as_str().map(escape) else { return };
        let at = |rest: String| format!("/_matrix/client/v3/rooms/{room}/{rest}");
        for actor in &actors {
            self.post(actor, &at("join".to_owned()), json!({})).await;
        }
        let mut root = String::new();
        for (nth, actor) in actors.iter().enumerate() {
            let mut message = json!({ "msgtype": "m.text", "body": format!("hello world {nth}") });
            if !root.is_empty() {
                message["m.relates_to"] = json!({ "rel_type": "m.thread", "event_id": root });
            }
            self.named += 1;
            let path = at(format!("send/m.room.message/scene{}", self.named));
            let said = self.call("PUT", actor, &path, message).await;
            root = said["event_id"].as_str().unwrap_or_default().to_owned();
        }
    }

    async fn register(&mut self) {
        self.named += 1;
        let auth = json!({ "type": "m.login.dummy" });
        let wishes = json!({ "username": format!("user{}", self.named), "password": "password", "auth": auth });
        let request = request("POST", "/_matrix/client/v3/register", None, &wishes);
        let made = self.send(request, false).await.unwrap();
        assert_eq!(made.status, 200, "{}", made.body);
        self.meet(&made.body);
    }

    async fn login(&mut self, name: &str) {
        let identifier = json!({ "type": "m.id.user", "user": name });
        let wishes = json!({ "type": "m.login.password", "identifier": identifier, "password": "password" });
        let request = request("POST", "/_matrix/client/v3/login", None, &wishes);
        let answer = self.send(request, false).await.unwrap();
        self.meet(&answer.body);
    }

    /// Takes somebody in who has just got a token.
    fn meet(&mut self, answer: &Value) {
        if let (Some(user_id), Some(token)) = (answer["user_id"].as_str(), answer["access_token"].as_str()) {
            self.actors.push(Actor { user_id: user_id.to_owned(), token: token.to_owned() });
        }
    }

    /// Whoever has no token any more is not asked again.
    pub(super) fn forget(&mut self, actor: &Actor) {
        self.actors.retain(|known| known.token != actor.token);
    }

    async fn post(&mut self, by: &Actor, path: &str, body: Value) -> Value {
        self.call("POST", by, path, body).await
    }

    async fn call(&mut self, method: &str, by: &Actor, path: &str, body: Value) -> Value {
        let answer = self.send(request(method, path, Some(&by.token), &body), false).await.unwrap();
        self.learn(&mut Dice::of_case(0, "scene", u64::try_from(self.named).unwrap()), &answer.body);
        answer.body
    }

    /// None where the caller had no more patience, which only those who wait for news may lose.
    pub(super) async fn send(&self, request: Request<Body>, waits: bool) -> Option<Answer> {
        let polls = AtomicUsize::new(0);
        let answering = async {
            let (head, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
            (head.status, body.collect().await.unwrap().to_bytes())
        };
        let mut answering = Box::pin(answering);
        let counted = poll_fn(|context| {
            polls.fetch_add(1, Ordering::Relaxed);
            answering.as_mut().poll(context)
        });
        let answered = tokio::time::timeout(if waits { PATIENCE } else { NEVER }, counted).await;
        assert!(waits || answered.is_ok(), "there is no answer");
        let (status, body) = answered.ok()?;
        let polls = polls.into_inner();
        Some(Answer { status, bytes: body.len(), body: serde_json::from_slice(&body).unwrap_or_default(), polls })
    }

    /// Remembers what an answer names.
    pub(super) fn learn(&mut self, dice: &mut Dice, answer: &Value) {
        let mut left = 60;
        self.learn_within(dice, answer, &mut left);
    }

    fn learn_within(&mut self, dice: &mut Dice, value: &Value, left: &mut usize) {
        let Some(now_left) = left.checked_sub(1) else { return };
        *left = now_left;
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.learn_within(dice, item, left)),
            Value::Object(object) => {
                for (key, value) in object {
                    for placeholder in TAUGHT.iter().filter(|(name, _)| name == key).flat_map(|(_, all)| *all) {
                        if let Some(text) = value.as_str() {
                            keep(dice, self.known.entry(placeholder).or_default(), text);
                        }
                    }
                    self.learn_within(dice, value, left);
                }
            }
            _ => {}
        }
    }
}

const TYPES: &[&str] = &[
    "m.room.message",
    "m.room.message",
    "m.reaction",
    "m.room.member",
    "m.room.power_levels",
    "m.room.join_rules",
    "m.room.name",
    "m.room.topic",
    "m.room.canonical_alias",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.pinned_events",
    "m.room.server_acl",
    "m.room.tombstone",
    "m.room.create",
    "m.room.redaction",
    "m.room.third_party_invite",
    "m.room.encryption",
    "m.space.child",
    "m.space.parent",
    "m.direct",
    "m.ignored_user_list",
    "m.push_rules",
    "m.fully_read",
    "m.tag",
    "org.example.note",
];

fn keep(dice: &mut Dice, known: &mut Vec<String>, text: &str) {
    if known.iter().any(|known| known == text) {
        return;
    }
    if known.len() < KEPT {
        known.push(text.to_owned());
    } else {
        let place = dice.below(KEPT);
        text.clone_into(&mut known[place]);
    }
}

pub(super) fn request(method: &str, path: &str, token: Option<&str>, body: &Value) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    request.body(Body::from(body.to_string())).unwrap()
}

/// A text as a part of a path or of a query.
pub(super) fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |path, byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => path + &char::from(byte).to_string(),
        _ => path + &format!("%{byte:02X}"),
    })
}
