//! Requests to every endpoint, with paths, queries, heads and bodies that are wrong in some way, into a server that
//! remembers: what one case leaves behind, the next ones meet.

use axum::body::Body;
use http::{
    HeaderName, HeaderValue, Request,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use serde_json::Value;

use super::{
    Case, Cases, cases,
    corpus::{Template, templates},
    dice::Dice,
    mutate,
    scene::{Actor, Answer, Scene, escape},
};
use crate::{
    db::{Engine, testing},
    node::FORWARDED,
};

/// After so many requests there is a new room, and after so many a new server, so that what one may have is bounded.
const ROOM_EVERY: u64 = 200;
const SERVER_EVERY: u64 = 10_000;
/// How often a request may have to be looked after until it is answered, and how much an answer may have, whatever is
/// asked of a server of this size.
const MOST_POLLS: usize = 5_000;
const MOST_BYTES: usize = 4 * 1024 * 1024;
/// Header fields that the server reads.
const FIELDS: &[&str] = &[
    "x-forwarded-for",
    "x-forwarded-proto",
    "host",
    "origin",
    "user-agent",
    "expect",
    "range",
    "if-range",
    "if-none-match",
    "accept-language",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_answered_on_sqlite() {
    Box::pin(try_all(cases("requests", 35), Engine::Sqlite)).await;
}

/// What only PostgreSQL stumbles over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_answered_on_postgres() {
    Box::pin(try_all(cases("requests-postgres", 20), Engine::Postgres)).await;
}

/// A server on an empty database, if there is such an engine.
async fn scene(engine: Engine, seed: u64) -> Option<Scene> {
    let mut found = None;
    for database in testing::databases().await {
        if database.db().engine() == engine {
            found = Some(Box::pin(Scene::set(database, seed)).await);
        } else {
            database.close().await;
        }
    }
    found
}

async fn try_all(mut cases: Cases, engine: Engine) {
    let (templates, seed) = (templates(), cases.seed());
    let (mut most, mut answers) = ((0, 0), (0_u64, 0_u64));
    let mut next = cases.next();
    while next.is_some() {
        let Some(mut scene) = scene(engine, seed).await else {
            eprintln!("skipped: ./test starts a PostgreSQL for this");
            return;
        };
        for number in 0..SERVER_EVERY {
            let Some(mut case) = next.take().or_else(|| cases.next()) else { break };
            if number % ROOM_EVERY == 0 || scene.actors.len() < 3 {
                scene.make_room().await;
            }
            if let Some(answer) = try_one(&mut scene, &templates, &mut case).await {
                most = (answer.polls.max(most.0), answer.bytes.max(most.1));
                answers = (answers.0 + 1, answers.1 + u64::from(answer.status.is_success()));
            }
        }
        scene.close().await;
        next = cases.next();
    }
    let ((polls, bytes), (all, granted)) = (most, answers);
    eprintln!("{all} answers, {granted} of them successes, of {polls} polls and {bytes} bytes at the most");
}

async fn try_one(scene: &mut Scene, templates: &[Template], case: &mut Case) -> Option<Answer> {
    let dice = &mut case.dice;
    let template = dice.of(templates);
    let actor = dice.of(&scene.actors).clone();
    let (request, said) = draw(dice, scene, template, &actor)?;
    let waits = matches!(template.name().as_str(), "GET /sync" | "GET /events");
    let is_known =
        request.headers().get(AUTHORIZATION).is_some_and(|value| value.as_bytes().ends_with(actor.token.as_bytes()));
    let said = Shown(said);
    let answer = scene.send(request, waits).await?;
    judge(&said.0, &answer);
    if is_known && answer.status == 401 && answer.body["errcode"] == "M_UNKNOWN_TOKEN" {
        scene.forget(&actor);
    }
    scene.learn(dice, &answer.body);
    Some(answer)
}

/// The request in words, for whoever looks into a failure.
struct Shown(String);

impl Drop for Shown {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

fn judge(said: &str, answer: &Answer) {
    let Answer { status, bytes, body, polls } = answer;
    assert!(status.as_u16() < 500, "{said}\nis answered {status} {body}");
    assert!(*polls <= MOST_POLLS && *bytes <= MOST_BYTES, "{said}\ntakes {polls} polls and {bytes} bytes");
    if status.is_client_error() && body.get("flows").is_none() && !said.contains("submitToken") {
        let is_error = body["errcode"].is_string() && body["error"].as_str().is_some_and(|error| !error.is_empty());
        assert!(is_error, "{said}\nis answered {status} {body}");
    }
}

/// A request, and how it is described. None where HTTP itself has no such request.
fn draw(dice: &mut Dice, scene: &Scene, template: &Template, actor: &Actor) -> Option<(Request<Body>, String)> {
    // Some have only the path wrong, some only the query, some only the body, and some nothing.
    let wrong = [dice.one_in(3), dice.one_in(3), dice.one_in(2)];
    let mut uri = path(dice, scene, template, actor, wrong[0]);
    uri += &query(dice, scene, template, actor, wrong[1]);
    let body = template.body.as_ref().map(|body| filled(dice, scene, body, actor));
    let body = match body {
        Some(body) if wrong[2] => mutate::written(dice, body),
        Some(body) => body.to_string().into_bytes(),
        None if dice.one_in(10) => mutate::junk(dice).into_bytes(),
        None => Vec::new(),
    };
    let said = format!("{} {uri} {}", template.endpoint.method, String::from_utf8_lossy(&body));
    let mut request = Request::builder().method(template.endpoint.method.clone()).uri(uri);
    if !dice.one_in(15) {
        let token = if dice.one_in(15) { mutate::text(dice, &actor.token) } else { actor.token.clone() };
        request = request.header(AUTHORIZATION, HeaderValue::from_bytes(format!("Bearer {token}").as_bytes()).ok()?);
    }
    if dice.one_in(10) {
        let kind = dice.pick(&["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "a"]);
        request = request.header(CONTENT_TYPE, kind);
    }
    if dice.one_in(10) {
        let (field, value) = (dice.pick(FIELDS), mutate::junk(dice));
        request = request.header(HeaderName::try_from(field).ok()?, HeaderValue::from_bytes(value.as_bytes()).ok()?);
    }
    if dice.one_in(20) {
        request = request
            .header(FORWARDED, HeaderValue::from_bytes(mutate::text(dice, "1000 a 192.0.2.7 00 00").as_bytes()).ok()?);
    }
    Some((request.body(Body::from(body)).ok()?, said))
}

fn path(dice: &mut Dice, scene: &Scene, template: &Template, actor: &Actor, wrong: bool) -> String {
    let path = dice.of(&template.endpoint.paths).clone();
    let parts = path.split('/').map(|part| {
        let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else {
            return if dice.one_in(300) {
                dice.pick(&["..", "%2e", "", "v3", "r0"]).to_owned()
            } else {
                part.to_owned()
            };
        };
        let value = scene.find(dice, name, actor).unwrap_or_else(|| mutate::junk(dice));
        in_uri(dice, &value, wrong)
    });
    parts.collect::<Vec<_>>().join("/")
}

fn query(dice: &mut Dice, scene: &Scene, template: &Template, actor: &Actor, wrong: bool) -> String {
    let mut pairs = Vec::new();
    for (name, value) in &template.query {
        if dice.one_in(3) {
            continue;
        }
        let value = match value.strip_prefix('{').and_then(|value| value.strip_suffix('}')) {
            Some(placeholder) => {
                let found = scene.find(dice, placeholder, actor).unwrap_or_default();
                in_uri(dice, &found, wrong)
            }
            None if wrong && dice.one_in(2) => in_uri(dice, value, true),
            None => (*value).to_owned(),
        };
        pairs.push(format!("{name}={value}"));
        if wrong && dice.one_in(10) {
            pairs.push(format!("{name}={}", escape(&mutate::junk(dice))));
        }
    }
    if wrong && dice.one_in(5) {
        let name =
            dice.pick(&["user_id", "access_token", "org.matrix.msc4140.delay", "ts", "filter", "limit", "server_name"]);
        pairs.push(format!("{name}={}", escape(&mutate::junk(dice))));
    }
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// A value as a part of a path or a query, sometimes with something wrong in it or in how it is written.
fn in_uri(dice: &mut Dice, value: &str, wrong: bool) -> String {
    if !wrong {
        return escape(value);
    }
    match dice.below(4) {
        0 => mutate::text(dice, &escape(value)),
        1 => escape(&mutate::junk(dice)),
        2 => escape(value),
        _ => escape(&mutate::text(dice, value)),
    }
}

/// An example with what the scene knows in it.
fn filled(dice: &mut Dice, scene: &Scene, body: &Value, actor: &Actor) -> Value {
    match body {
        Value::String(text) => fill(dice, scene, text, actor).into(),
        Value::Array(items) => items.iter().map(|item| filled(dice, scene, item, actor)).collect(),
        Value::Object(object) => {
            let entries = object.iter();
            entries.map(|(key, value)| (fill(dice, scene, key, actor), filled(dice, scene, value, actor))).collect()
        }
        plain => plain.clone(),
    }
}

fn fill(dice: &mut Dice, scene: &Scene, text: &str, actor: &Actor) -> String {
    match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        Some(placeholder) => scene.find(dice, placeholder, actor).unwrap_or_default(),
        None => text.to_owned(),
    }
}
