//! A node is stopped again and again, at whatever it is doing, and goes on later with what it had in hand. Meanwhile the
//! others serve, and in the end nothing is lost, doubled or out of order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{
    Acknowledged, Server, Stubborn, check_chains, check_history, history, kill_cycles, read_events, register, start,
    start_nodes,
};
use crate::world::{escape, http_client, new_postgres_database};

const SENDERS: usize = 4;
/// By default; `HEARTH_KILL_CYCLES` sets it too.
const STOPS: u64 = 3;
/// Longer than the database lets anybody be silent within a transaction.
const STOPPED: Duration = Duration::from_secs(4);
/// In between. The nodes find each other again.
const RUNNING: Duration = Duration::from_secs(2);
/// Far above what is hoped for (3 s): a slow machine has more to do with it than the stopped node.
const STALL: Duration = Duration::from_secs(20);

impl Server {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

/// Sends one message after the other, and returns what was acknowledged and the longest wait for it.
async fn send_on(user: Stubborn, room: String, name: String, stop: Arc<AtomicBool>) -> (Acknowledged, Duration) {
    let (mut sent, mut worst): (Acknowledged, _) = (Vec::new(), Duration::ZERO);
    while !stop.load(Ordering::SeqCst) {
        let (text, begun) = (format!("{name}:{}", sent.len()), Instant::now());
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{}", escape(&room), escape(&text));
        let reply = user.call("PUT", &path, Some(json!({ "msgtype": "m.text", "body": text }))).await;
        sent.push((reply["event_id"].as_str().unwrap().to_owned(), text));
        worst = worst.max(begun.elapsed());
    }
    (sent, worst)
}

/// How often a node says that it is ready, and how often that it is not.
async fn ask_readiness(url: String, stop: Arc<AtomicBool>) -> (u32, u32) {
    let (http, mut said) = (http_client(Duration::from_secs(20)), (0, 0));
    while !stop.load(Ordering::SeqCst) {
        let status = http.get(format!("{url}/ready")).send().await.unwrap().status();
        *(if status.is_success() { &mut said.0 } else { &mut said.1 }) += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_stopped_holds_nobody_up_for_long_and_wakes_up_to_no_harm() {
    let Some(database) = new_postgres_database().await else {
        eprintln!("skipped: ./test starts a PostgreSQL for this");
        return;
    };
    let stops = kill_cycles(STOPS);
    let dir = tempfile::tempdir().unwrap();
    let servers = start_nodes(dir.path(), &[("HEARTH_DATABASE__URL", &*database)]);
    let http = http_client(Duration::from_secs(20));
    let user = register(&http, &servers[0].url, "alice").await;
    let mut rooms = Vec::new();
    for _ in 0..SENDERS {
        let created = user.call("POST", "/_matrix/client/v3/createRoom", Some(json!({}))).await;
        rooms.push(created["room_id"].as_str().unwrap().to_owned());
    }
    // The last node is the one that is stopped. Its clients wait for it, or try again.
    let stop = Arc::new(AtomicBool::new(false));
    let mut senders = Vec::new();
    for (node, server) in servers.iter().enumerate() {
        let user = Stubborn { url: server.url.clone(), ..user.clone() };
        user.call("GET", "/_matrix/client/v3/account/whoami", None).await;
        for (number, room) in rooms.iter().enumerate() {
            let name = format!("s{node}-{number}");
            senders.push((node, room.clone(), start(send_on(user.clone(), room.clone(), name, stop.clone()))));
        }
    }
    let asked: Vec<_> =
        servers.iter().take(2).map(|server| start(ask_readiness(server.url.clone(), stop.clone()))).collect();
    for _ in 0..stops {
        tokio::time::sleep(RUNNING).await;
        servers[2].signal(Signal::STOP);
        tokio::time::sleep(STOPPED).await;
        servers[2].signal(Signal::CONT);
    }
    tokio::time::sleep(RUNNING).await;
    stop.store(true, Ordering::SeqCst);

    let (mut told, mut worst, mut count) = (vec![Vec::new(); rooms.len()], Duration::ZERO, 0);
    for (node, room, sender) in senders {
        let (sent, longest) = sender.await.unwrap();
        if node < 2 {
            worst = worst.max(longest);
        }
        count += sent.len();
        told[rooms.iter().position(|known| *known == room).unwrap()].push(sent);
    }
    eprintln!("{count} sends through {stops} stops; the longest at a node that was not stopped took {worst:?}");
    for asked in asked {
        let (ready, unready) = asked.await.unwrap();
        eprintln!("a node that was not stopped said {ready} times that it was ready, and {unready} times not");
    }
    assert!(worst < STALL, "a send took {worst:?}");
    for (room, told) in rooms.iter().zip(&told) {
        check_history(room, &history(&user, room).await, told);
    }
    check_chains(&read_events(&database).await, SENDERS);
}
