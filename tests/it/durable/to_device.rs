//! Messages from device to device through `kill -9`: each device gets each of them once, all in one order, as it confirms
//! them by the token that it syncs with. One that ends and comes back by its name gets nothing of what was sent before.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Fleet, Stubborn, kill_cycles, register, start};
use crate::world::{http_client, new_postgres_database, password};

const SENDERS: usize = 4;
/// Sends that have to be acknowledged between one disturbance and the next.
const SENDS: u64 = 150;
const PATIENCE: Duration = Duration::from_mins(2);
/// The device that comes and goes.
const TABLET: &str = "TABLET";

/// For each sender, how many of its messages were acknowledged.
type Counts = Arc<Vec<AtomicU64>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_device_on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("hearth.sqlite3").display());
    each_comes_once_in_order(Fleet::single(dir.path(), &url)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_device_on_postgres() {
    let dir = tempfile::tempdir().unwrap();
    match new_postgres_database().await {
        Some(url) => each_comes_once_in_order(Fleet::single(dir.path(), &url)).await,
        None => eprintln!("skipped: ./test starts a PostgreSQL for this"),
    }
}

/// Of which only nodes are killed: another test disturbs what they stand on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_device_on_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    match cluster(dir.path()).await {
        Some(fleet) => each_comes_once_in_order(fleet).await,
        None => eprintln!("skipped: ./test starts a PostgreSQL and a Redis for this"),
    }
}

/// Three nodes on a database of their own.
pub(super) async fn cluster(dir: &Path) -> Option<Fleet> {
    let (database, redis) = (new_postgres_database().await?, std::env::var("HEARTH_TEST_REDIS").ok()?);
    Some(Fleet::nodes(dir, database, &redis).await)
}

async fn each_comes_once_in_order(mut fleet: Fleet) {
    let cycles = kill_cycles(4);
    let http = http_client(Duration::from_secs(20));
    let phone = register(&http, &fleet.url, "inbox").await;
    let body = password("inbox", "a long secret");
    let login = phone.call("POST", "/_matrix/client/v3/login", Some(body)).await;
    let laptop = Stubborn { token: login["access_token"].as_str().unwrap().to_owned(), ..phone.clone() };
    let user_id = login["user_id"].as_str().unwrap().to_owned();

    let stop = Arc::new(AtomicBool::new(false));
    let sent: Counts = Arc::new((0..SENDERS).map(|_| AtomicU64::new(0)).collect());
    let total = |sent: &Counts| sent.iter().map(|count| count.load(Ordering::SeqCst)).sum::<u64>();
    let all_is_sent = Arc::new(AtomicBool::new(false));
    let mut senders = Vec::new();
    for n in 0..SENDERS {
        let sender = register(&http, &fleet.url, &format!("sender{n}")).await;
        senders.push(start(send_until(sender, user_id.clone(), n, stop.clone(), sent.clone())));
    }
    let tablet = start(come_and_go(phone.clone(), stop.clone(), sent.clone()));
    let readers: Vec<_> =
        [phone, laptop].into_iter().map(|device| start(read_until(device, all_is_sent.clone()))).collect();
    for cycle in 1..=cycles {
        let (enough, patience) = (total(&sent) + SENDS, Instant::now() + PATIENCE);
        while total(&sent) < enough {
            assert!(Instant::now() < patience, "sends are no longer acknowledged in cycle {cycle}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        fleet.disturb(cycle).await;
    }
    stop.store(true, Ordering::SeqCst);
    assert!(tablet.await.unwrap() > 0, "the device that comes and goes has never come");
    let mut counts = Vec::new();
    for sender in senders {
        counts.push(sender.await.unwrap());
    }
    all_is_sent.store(true, Ordering::SeqCst);
    let mut told = Vec::new();
    for reader in readers {
        told.push(reader.await.unwrap());
    }
    assert_eq!(told[0], told[1], "both devices are told one order");
    let distinct: HashSet<&(usize, u64)> = told[0].iter().collect();
    assert_eq!(distinct.len(), told[0].len(), "something came twice");
    let mut by_sender: HashMap<usize, Vec<u64>> = HashMap::new();
    for (sender, number) in &told[0] {
        by_sender.entry(*sender).or_default().push(*number);
    }
    for (sender, count) in counts.into_iter().enumerate() {
        let numbers = by_sender.remove(&sender).unwrap_or_default();
        assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "of sender {sender} something is lost or out of order");
    }
    assert_eq!(count_waiting(&fleet.database, &user_id).await, 0, "what was confirmed is gone");
}

/// Sends one message after the other to all devices of somebody. Returns how many were acknowledged.
async fn send_until(sender: Stubborn, user_id: String, name: usize, stop: Arc<AtomicBool>, sent: Counts) -> u64 {
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        let path = format!("/_matrix/client/v3/sendToDevice/org.example.test/{number}");
        let messages = json!({ &*user_id: { "*": { "sender": name, "number": number } } });
        sender.call("PUT", &path, Some(json!({ "messages": messages }))).await;
        number += 1;
        sent[name].fetch_add(1, Ordering::SeqCst);
    }
    number
}

/// A device that logs in, looks what there is and is ended by another, again and again. Returns how often.
async fn come_and_go(phone: Stubborn, stop: Arc<AtomicBool>, sent: Counts) -> usize {
    let mut body = password("inbox", "a long secret");
    body["device_id"] = json!(TABLET);
    let end = json!({ "devices": [TABLET], "auth": password("inbox", "a long secret") });
    let mut times = 0;
    while !stop.load(Ordering::SeqCst) {
        let before: Vec<u64> = sent.iter().map(|count| count.load(Ordering::SeqCst)).collect();
        let login = phone.call("POST", "/_matrix/client/v3/login", Some(body.clone())).await;
        let tablet = Stubborn { token: login["access_token"].as_str().unwrap().to_owned(), ..phone.clone() };
        let sync = tablet.call("GET", "/_matrix/client/v3/sync?timeout=0", None).await;
        for event in sync["to_device"]["events"].as_array().into_iter().flatten() {
            let number = |key: &str| event["content"][key].as_u64().unwrap();
            let sender = usize::try_from(number("sender")).unwrap();
            assert!(number("number") >= before[sender], "what was sent to an earlier device of the name: {event}");
        }
        phone.call("POST", "/_matrix/client/v3/delete_devices", Some(end.clone())).await;
        times += 1;
        // Each visit has two passwords hashed, and others are to get on.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    times
}

/// Syncs until everything is sent and read, and nothing more comes. Returns who has sent which number, as it came.
async fn read_until(device: Stubborn, all_is_sent: Arc<AtomicBool>) -> Vec<(usize, u64)> {
    let mut told = Vec::new();
    let mut since = String::new();
    loop {
        let is_last = all_is_sent.load(Ordering::SeqCst);
        let timeout = if is_last { 0 } else { 300 };
        let after = if since.is_empty() { String::new() } else { format!("&since={since}") };
        let sync = device.call("GET", &format!("/_matrix/client/v3/sync?timeout={timeout}{after}"), None).await;
        let events = sync["to_device"]["events"].as_array().cloned().unwrap_or_default();
        assert!(events.len() <= 100);
        let number = |event: &Value, key: &str| event["content"][key].as_u64().unwrap();
        told.extend(
            events.iter().map(|event| (usize::try_from(number(event, "sender")).unwrap(), number(event, "number"))),
        );
        sync["next_batch"].as_str().unwrap().clone_into(&mut since);
        if is_last && events.is_empty() {
            return told;
        }
    }
}

/// How many messages wait for somebody, by the database. What is left of devices that have ended goes later.
async fn count_waiting(database: &str, user_id: &str) -> i64 {
    use sqlx::{Connection as _, PgConnection, SqliteConnection};
    let count = "SELECT COUNT(*) FROM to_device_messages WHERE user_id = $1 AND device_id <> $2";
    let (count,): (i64,) = if database.starts_with("sqlite:") {
        let mut connection = SqliteConnection::connect(database).await.unwrap();
        sqlx::query_as(count).bind(user_id).bind(TABLET).fetch_one(&mut connection).await.unwrap()
    } else {
        let mut connection = PgConnection::connect(database).await.unwrap();
        sqlx::query_as(count).bind(user_id).bind(TABLET).fetch_one(&mut connection).await.unwrap()
    };
    count
}
