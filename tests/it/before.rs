//! A database of the release before events had an order of their own in their room: every table has rows in it, and whoever
//! was logged in goes on after the upgrade as if nothing had happened.
//!
//! The dumps in `tests/it/before/` were made by that release, which was filled through its own API and the command line and
//! then killed. Two things were written into them by hand, because nobody can bring them about from outside: an event that
//! saw another state than that of its room (`state_forks`), and a large room whose members were still to be looked at
//! (`user_directory_rooms`). Beside each stands what its clients had: their tokens, the events in the order of each room,
//! and what the release answered to requests that only read.

use std::{collections::BTreeSet, time::Duration};

use hearth::{config::Config, ground::clock::Clock};
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _};

use crate::world::{Client, Reply, World, at, escape, new_postgres_database, next, password, texts};

const CLIENT: &str = "/_matrix/client/v3";

/// The server of today on a database of then.
struct Upgraded {
    world: World,
    /// What the clients of then have.
    then: Value,
    /// Where the database is that is a file.
    _folder: Option<tempfile::TempDir>,
}

const DUMPS: [(&str, &str); 2] = [
    (include_str!("before/sqlite.sql"), include_str!("before/sqlite.json")),
    (include_str!("before/postgres.sql"), include_str!("before/postgres.json")),
];

/// One of each engine that is at hand, started as soon as the server of then is gone.
async fn upgraded() -> Vec<Upgraded> {
    upgraded_after(Duration::ZERO, |_| ()).await
}

async fn upgraded_after(pause: Duration, configure: fn(&mut Config)) -> Vec<Upgraded> {
    let [(sqlite, of_sqlite), (postgres, of_postgres)] = DUMPS;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("hearth.sqlite3").display());
    let mut connection = sqlx::SqliteConnection::connect(&format!("{url}?mode=rwc")).await.unwrap();
    connection.execute(sqlx::raw_sql(sqlite)).await.unwrap();
    connection.close().await.unwrap();
    let mut all = vec![Upgraded::start(&url, of_sqlite, Some(folder), pause, configure).await];
    match new_postgres_database().await {
        Some(url) => {
            let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
            connection.execute(sqlx::raw_sql(postgres)).await.unwrap();
            connection.close().await.unwrap();
            all.push(Upgraded::start(&url, of_postgres, None, pause, configure).await);
        }
        None => eprintln!("skipped on PostgreSQL: ./test starts one for this"),
    }
    all
}

impl Upgraded {
    async fn start(
        url: &str,
        then: &str,
        folder: Option<tempfile::TempDir>,
        pause: Duration,
        configure: fn(&mut Config),
    ) -> Self {
        let then: Value = serde_json::from_str(&spelled_out(then)).unwrap();
        let pause = u64::try_from(pause.as_millis()).unwrap();
        let clock = Clock::manual(then["now"].as_u64().unwrap() + pause);
        Self { world: World::on_database_with(url, clock, configure).await, then, _folder: folder }
    }

    /// Somebody who is still logged in.
    fn user(&self, name: &str) -> Client {
        self.world.client(&self.then["users"][name])
    }

    fn room(&self, name: &str) -> &str {
        self.then["rooms"][name].as_str().unwrap()
    }

    /// Where a client had synced to, oldest first.
    fn tokens(&self, name: &str) -> Vec<&str> {
        self.then["tokens"][name].as_array().unwrap().iter().map(|token| token.as_str().unwrap()).collect()
    }

    fn text(&self, pointer: &str) -> &str {
        self.then.pointer(pointer).unwrap().as_str().unwrap()
    }

    async fn ask(&self, asked: &Value) -> Reply {
        let token = asked["user"].as_str().map(|name| self.text(&format!("/users/{name}/access_token")));
        let body = asked.get("body").cloned();
        let method = if body.is_some() { "POST" } else { "GET" };
        self.world.call(method, asked["path"].as_str().unwrap(), token, body).await
    }
}

/// Identifiers are long and stand in many places: the first line lists them, and the others name them by their number,
/// with a `%` where they are a part of a path.
fn spelled_out(then: &str) -> String {
    let (ids, then) = then.split_once('\n').unwrap();
    let ids: Vec<String> = serde_json::from_str(ids).unwrap();
    let mut pieces = then.split('<');
    let mut out = pieces.next().unwrap().to_owned();
    for piece in pieces {
        let (number, rest) = piece.split_once('>').unwrap();
        match number.strip_suffix('%') {
            Some(number) => out += &escape(&ids[number.parse::<usize>().unwrap()]),
            None => out += &ids[number.parse::<usize>().unwrap()],
        }
        out += rest;
    }
    out
}

/// What is left out of that: one process has its SQLite database for itself, so it neither enters itself among the nodes nor
/// takes leases.
const EMPTY: [&[&str]; 2] = [&["leases", "nodes"], &[]];

/// Every table has something that could be lost.
#[test]
fn no_table_of_the_dumps_is_empty() {
    for ((dump, _), empty) in DUMPS.into_iter().zip(EMPTY) {
        let names = |before: &str| -> BTreeSet<&str> {
            let lines = dump.lines().filter_map(|line| line.strip_prefix(before));
            lines.map(|rest| rest.trim_start_matches("public.").split([' ', '(']).next().unwrap()).collect()
        };
        let mut tables = names("CREATE TABLE ");
        // SQLite keeps the rows of the full-text index in tables of its own.
        tables.extend(names("CREATE VIRTUAL TABLE ").into_iter().map(|_| "search_data"));
        assert!(tables.len() > 40, "{tables:?}");
        let filled = names("INSERT INTO ");
        assert_eq!(tables.difference(&filled).copied().collect::<Vec<_>>(), empty);
    }
}

/// Tokens may be spelled in another way, and what tells how long ago something was is another number by now.
const TOKENS: [&str; 6] = ["next_batch", "prev_batch", "start", "end", "next_token", "pos"];
const TIMES: [&str; 6] = ["age", "last_active_ago", "last_seen", "last_seen_ts", "expires_in", "currently_active"];

/// An answer as it is written down: events by their identifiers, unless they look another way than in `events`.
fn reduce(value: &Value, events: &Value) -> Value {
    let object = match value {
        Value::Array(list) => return list.iter().map(|value| reduce(value, events)).collect(),
        Value::Object(object) => object,
        _ => return value.clone(),
    };
    let mut out = serde_json::Map::new();
    for (key, value) in object {
        let reduced = match key.as_str() {
            key if TOKENS.contains(&key) => true.into(),
            key if TIMES.contains(&key) => continue,
            // Everybody has gone offline, and nobody is typing any more.
            "presence" if !value.is_string() => continue,
            "ephemeral" => {
                let told = value["events"].as_array().cloned().unwrap_or_default();
                told.iter().filter(|event| event["type"] != "m.typing").map(|event| reduce(event, events)).collect()
            }
            _ => reduce(value, events),
        };
        out.insert(key.clone(), reduced);
    }
    if !["event_id", "content", "sender"].iter().all(|key| object.contains_key(*key)) {
        return out.into();
    }
    let unsigned = out.remove("unsigned");
    out.remove("room_id");
    let event = Value::from(out);
    let name = if events[event["event_id"].as_str().unwrap()] == event { event["event_id"].clone() } else { event };
    match unsigned {
        Some(unsigned) if unsigned != json!({}) => json!([name, unsigned]),
        _ => name,
    }
}

/// An answer without what may differ: states and members are in no particular order, `/sync` says by now what the user was
/// when an event was sent (`unsigned.membership`) and how the devices and keys are, and that nobody types any more is news: a
/// room that has only that, and its unread counts, is left out.
fn compared(answer: &Value, path: &str) -> Value {
    let mut answer = without_news(answer);
    let path = path.split('?').next().unwrap();
    if path.ends_with("/members") {
        sort(&mut answer["chunk"]);
    } else if path.ends_with("/state") {
        sort(&mut answer);
    } else if path.ends_with("/sync")
        && let Some(parts) = answer.as_object_mut()
    {
        // Nothing was said of keys and devices then.
        parts.retain(|part, _| !part.contains("device"));
    }
    answer
}

fn without_news(value: &Value) -> Value {
    match value {
        Value::Array(pair) if matches!(&**pair, [event, unsigned] if event.get("room_id").is_none() && unsigned.get("membership").is_some()) =>
        {
            let mut unsigned = pair[1].clone();
            unsigned.as_object_mut().unwrap().remove("membership");
            let event = without_news(&pair[0]);
            if unsigned == json!({}) { event } else { json!([event, without_news(&unsigned)]) }
        }
        Value::Array(list) => list.iter().map(without_news).collect(),
        Value::Object(object) => {
            let mut out = serde_json::Map::new();
            for (key, value) in object {
                let mut value = without_news(value);
                match key.as_str() {
                    "state" | "invite_state" | "knock_state" if value.is_array() => sort(&mut value),
                    "state" | "invite_state" | "knock_state" => sort(&mut value["events"]),
                    "join" if value.is_object() => value.as_object_mut().unwrap().retain(|_, room| has_news(room)),
                    _ => {}
                }
                let nothing = match key.as_str() {
                    "ephemeral" => json!([]),
                    "join" | "rooms" => json!({}),
                    _ => Value::Null,
                };
                if value != nothing || nothing.is_null() {
                    out.insert(key.clone(), value);
                }
            }
            out.into()
        }
        _ => value.clone(),
    }
}

/// Whether there is anything in what a sync has of a room, but for how much is unread there.
fn has_news(room: &Value) -> bool {
    let is_some = |list: &str| room[list]["events"].as_array().is_some_and(|events| !events.is_empty());
    ["timeline", "state", "account_data"].into_iter().any(is_some) || room.get("ephemeral").is_some()
}

fn sort(list: &mut Value) {
    list.as_array_mut().into_iter().for_each(|list| list.sort_by_key(Value::to_string));
}

/// Sync from every token and from nothing, with filters, pages, contexts, relations, threads, members, state, search,
/// directories, profiles, account data, devices: all that a client can read is as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_answered_as_before() {
    for upgraded in upgraded().await {
        let answers = upgraded.then["answers"].as_array().unwrap();
        assert!(answers.len() > 100);
        let mut other = Vec::new();
        for asked in answers {
            let reply = upgraded.ask(asked).await;
            let answer = reduce(&reply.body, &upgraded.then["events"]);
            let path = asked["path"].as_str().unwrap();
            let is_same = compared(&answer, path) == compared(&asked["answer"], path);
            if !is_same || u64::from(reply.status) != asked["status"] {
                other.push(format!("{} {}\n  then {}\n  now  {answer}", asked["user"], asked["path"], asked["answer"]));
            }
        }
        assert!(other.is_empty(), "{} answers differ:\n{}", other.len(), other.join("\n"));
    }
}

/// Every page that follows a token, until there is none.
async fn walk(client: &Client, room: &str, direction: &str, from: Option<&str>) -> Vec<String> {
    let (mut found, mut from) = (Vec::new(), from.map(ToOwned::to_owned));
    loop {
        let from_here = from.map(|from| format!("&from={from}")).unwrap_or_default();
        let page = client.get(&at(room, &format!("/messages?dir={direction}&limit=3{from_here}"))).await.ok();
        let ids = page["chunk"].as_array().unwrap().iter().map(|event| event["event_id"].as_str().unwrap().to_owned());
        found.extend(ids);
        match page["end"].as_str() {
            Some(end) => from = Some(end.to_owned()),
            None => return found,
        }
    }
}

/// Whoever pages reads every event of a room once, in the order that it had, from either end and from where they were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_have_every_event_once_and_in_the_order_of_then() {
    for upgraded in upgraded().await {
        for (whose, order) in upgraded.then["orders"].as_object().unwrap() {
            let (name, room) = whose.split_once(' ').unwrap();
            let (client, room) = (upgraded.user(name), upgraded.room(room));
            let order: Vec<String> = order.as_array().unwrap().iter().map(|id| id.as_str().unwrap().into()).collect();
            assert_eq!(walk(&client, room, "f", None).await, order, "{whose}");
            let mut back = walk(&client, room, "b", None).await;
            back.reverse();
            assert_eq!(back, order, "{whose}");
            for token in upgraded.tokens(name) {
                let mut both = walk(&client, room, "b", Some(token)).await;
                both.reverse();
                both.extend(walk(&client, room, "f", Some(token)).await);
                assert_eq!(both, order, "{whose} from {token}");
            }
        }
    }
}

/// What is said from now on stands behind what was said, and arrives wherever a client had synced to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_go_on_behind_what_was_said() {
    for upgraded in upgraded().await {
        let (alice, bob) = (upgraded.user("alice"), upgraded.user("bob"));
        let since = *upgraded.tokens("alice").last().unwrap();
        for name in ["main", "v6", "v10", "v12", "direct", "upgraded_to", "private"] {
            let room = upgraded.room(name);
            let said = bob.say(room, &format!("news in {name}")).await;
            let sync = alice.sync(Some(since)).await;
            assert_eq!(texts(&sync, room).last(), Some(&format!("news in {name}")), "{name}");
            assert!(sync["rooms"]["join"][room]["unread_notifications"]["notification_count"].as_u64() > Some(0));
            let mut order = upgraded.then["orders"][format!("alice {name}")].as_array().unwrap().clone();
            order.push(said.into());
            let mut now = walk(&alice, room, "f", None).await;
            assert_eq!(json!(now), json!(order), "{name}");
            now.reverse();
            assert_eq!(walk(&alice, room, "b", None).await, now, "{name}");
        }
        let sync = bob.sync(Some(upgraded.tokens("bob")[0])).await;
        assert_eq!(texts(&sync, upgraded.room("main")).last().map(String::as_str), Some("news in main"));
        alice.post(&at(upgraded.room("upgraded_from"), "/leave"), json!({})).await.ok();
    }
}

fn unread(sync: &Value, room: &str) -> (u64, u64) {
    let counts = &sync["rooms"]["join"][room]["unread_notifications"];
    (counts["notification_count"].as_u64().unwrap(), counts["highlight_count"].as_u64().unwrap())
}

/// What relates to events of then is put beside them; what was read then stays read, and the rest can be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_new_relates_to_what_was_said() {
    for upgraded in upgraded().await {
        let (alice, bob) = (upgraded.user("alice"), upgraded.user("bob"));
        let room = upgraded.room("main");
        let (edited, root) = (upgraded.text("/edited"), upgraded.text("/said/2"));
        let send = async |kind: &str, content: Value| {
            let path = at(room, &format!("/send/{kind}/{}", content["m.relates_to"]["rel_type"].as_str().unwrap()));
            bob.put(&path, content).await.ok()["event_id"].as_str().unwrap().to_owned()
        };
        let relates = |rel_type: &str, to: &str| json!({ "rel_type": rel_type, "event_id": to });
        let edit = json!({ "msgtype": "m.text", "body": "* again", "m.relates_to": relates("m.replace", edited),
            "m.new_content": { "msgtype": "m.text", "body": "again" } });
        let edit = send("m.room.message", edit).await;
        let event = alice.get(&at(room, &format!("/event/{}", escape(edited)))).await.ok();
        assert_eq!(event["unsigned"]["m.relations"]["m.replace"]["event_id"], json!(edit));
        let reply = json!({ "msgtype": "m.text", "body": "new reply", "m.relates_to": relates("m.thread", root) });
        let reply = send("m.room.message", reply).await;
        let event = alice.get(&at(room, &format!("/event/{}", escape(root)))).await.ok();
        let thread = &event["unsigned"]["m.relations"]["m.thread"];
        assert_eq!((&thread["latest_event"]["event_id"], &thread["count"]), (&json!(reply), &json!(7)));
        let threads = alice.get(&format!("/_matrix/client/v1/rooms/{}/threads", escape(room))).await.ok();
        assert_eq!(threads["chunk"][0]["event_id"], *root, "the thread that was last said something in");
        // Carol annotated this with the same already.
        let mut again = relates("m.annotation", upgraded.text("/threads/0/0"));
        again["key"] = "🎉".into();
        let path = at(room, "/send/m.reaction/again");
        upgraded
            .user("carol")
            .put(&path, json!({ "m.relates_to": again }))
            .await
            .refused(400, "M_DUPLICATE_ANNOTATION");

        let (count, highlights) = unread(&alice.sync(None).await, room);
        assert!(count > 0 && highlights > 0, "{count} {highlights}");
        let redact = at(room, &format!("/redact/{}/now", escape(upgraded.text("/unread"))));
        alice.put(&redact, json!({})).await.ok();
        assert_eq!(unread(&alice.sync(None).await, room).1, highlights - 1);
        // A receipt of something older than what was read changes nothing.
        let read = async |event: &str| {
            let path = at(room, &format!("/receipt/m.read/{}", escape(event)));
            alice.post(&path, json!({})).await.ok();
            unread(&alice.sync(None).await, room)
        };
        let before = unread(&alice.sync(None).await, room);
        assert_eq!(read(upgraded.text("/said/4")).await, before);
        assert_eq!(read(&reply).await, (0, 0));
    }
}

/// A transaction of then is not sent again, and tokens of every kind are good for what they were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_go_on_where_they_were() {
    let with_mail = |config: &mut Config| {
        config.mail.host = Some("127.0.0.1".to_owned().try_into().unwrap());
        config.mail.from = Some("Hearth <noreply@example.org>".to_owned().try_into().unwrap());
    };
    for upgraded in upgraded_after(Duration::ZERO, with_mail).await {
        let (world, alice) = (&upgraded.world, upgraded.user("alice"));
        let path = at(upgraded.room("main"), "/send/m.room.message/again");
        let again = alice.put(&path, json!({ "msgtype": "m.text", "body": "said once" })).await.ok();
        assert_eq!(again["event_id"], upgraded.text("/txn"));
        let refreshed = json!({ "refresh_token": upgraded.text("/refreshed/refresh_token") });
        let tokens = world.call("POST", &format!("{CLIENT}/refresh"), None, Some(refreshed)).await.ok();
        let laptop = world.client(&json!({ "user_id": alice.user_id, "access_token": tokens["access_token"] }));
        assert_eq!(laptop.get(&format!("{CLIENT}/account/whoami")).await.ok()["device_id"], "LAPTOP");
        let login = async |body: Value| world.call("POST", &format!("{CLIENT}/login"), None, Some(body)).await;
        assert_eq!(login(alice.password()).await.ok()["user_id"], *alice.user_id);
        let body = json!({ "type": "m.login.token", "token": upgraded.text("/login_token") });
        assert_eq!(login(body).await.ok()["user_id"], *alice.user_id);
        // Grace registered and may have missed the answer.
        let auth = json!({ "type": "m.login.terms", "session": upgraded.text("/uia/session") });
        let body = json!({ "username": "grace", "password": "password of grace", "auth": auth });
        let grace = world.call("POST", &format!("{CLIENT}/register"), None, Some(body)).await.ok();
        assert_eq!(grace["user_id"], "@grace:localhost");
        // Alice had confirmed that it is her who has forgotten her password.
        let proof = json!({ "sid": upgraded.text("/reset_sid"), "client_secret": "secret2" });
        let auth = json!({ "type": "m.login.email.identity", "threepid_creds": proof });
        let body = json!({ "new_password": "another password", "logout_devices": false, "auth": auth });
        world.call("POST", &format!("{CLIENT}/account/password"), None, Some(body)).await.ok();
        assert_eq!(login(password("alice", "another password")).await.status, 200);
        let status = alice.get(&format!("{CLIENT}/presence/{}/status", escape(&alice.user_id))).await.ok();
        assert_eq!(status["status_msg"], "at home");
        // Who was locked still is, and who was suspended.
        let frank = upgraded.user("frank").get(&format!("{CLIENT}/account/whoami")).await;
        frank.refused(401, "M_USER_LOCKED");
        let path = at(upgraded.room("main"), "/send/m.room.message/suspended");
        upgraded.user("dave").put(&path, json!({ "body": "" })).await.refused(403, "M_USER_SUSPENDED");
        upgraded.user("guest").say(upgraded.room("readable"), "still a guest").await;
        // Invitations, knocks and rooms that were left can be answered, and a room can be upgraded.
        let bob = upgraded.user("bob");
        bob.join(upgraded.room("invited")).await.ok();
        alice.invite(upgraded.room("knocked"), &bob.user_id).await.ok();
        bob.join(upgraded.room("knocked")).await.ok();
        alice.join(upgraded.room("left")).await.ok();
        let path = at(upgraded.room("v10"), "/upgrade");
        let upgrade = alice.post(&path, json!({ "new_version": "12" })).await.ok();
        bob.join(upgrade["replacement_room"].as_str().unwrap()).await.ok();
    }
}

/// What the server had still to do then it does now: an event that was scheduled, a notice to somebody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_left_to_do_is_done() {
    let with_notices = |config: &mut Config| config.server_notices.localpart = Some("notices".to_owned());
    for upgraded in upgraded_after(Duration::from_hours(24), with_notices).await {
        let bob = upgraded.user("bob");
        let (main, notices) = (upgraded.room("main"), upgraded.room("notices"));
        let (mut since, mut told) = (upgraded.tokens("bob").last().copied().unwrap().to_owned(), Vec::new());
        while !["sent a day later", "The server has moved"].iter().all(|text| told.iter().any(|t| t == text)) {
            let sync = bob.wait(&since).await;
            assert_ne!(next(&sync), since, "told only {told:?}");
            told.extend([main, notices].iter().flat_map(|room| texts(&sync, room)));
            since = next(&sync);
        }
        assert!(!told.iter().any(|text| text == "never sent"));
    }
}
