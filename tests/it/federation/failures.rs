//! Servers that answer late, with garbage, with too much, with errors, or not at all: a bounded wait, and a message that
//! says whose fault it is.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#standard-error-response>

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{
    internet::Internet,
    peer::Peer,
    scripted::{Say, Scripted},
};
use crate::{
    with_scripted,
    world::{Client, Engine, Reply, at, escape},
};

/// How long a client waits at most for one that does not answer, with some time for the tests beside.
const BOUND: Duration = Duration::from_secs(45);

/// What clients ask that this server has to ask another one, by its name.
const QUESTIONS: [&str; 8] = ["join", "join by alias", "knock", "alias", "profile", "directory", "summary", "invite"];

/// Asks one of them. `room` is one of the other server's, and `own` one of this server's. What was asked before has
/// another number: some answers are remembered.
async fn ask(alice: &Client, what: &str, room: &str, own: &str, number: u64) -> Reply {
    let room = escape(room);
    match what {
        "join" => alice.post(&format!("/_matrix/client/v3/join/{room}?via=far.test"), json!({})).await,
        "join by alias" => alice.post(&format!("/_matrix/client/v3/join/%23b{number}%3Afar.test"), json!({})).await,
        "knock" => alice.post(&format!("/_matrix/client/v3/knock/{room}?via=far.test"), json!({})).await,
        "alias" => alice.get(&format!("/_matrix/client/v3/directory/room/%23a{number}%3Afar.test")).await,
        "profile" => alice.get(&format!("/_matrix/client/v3/profile/%40u{number}%3Afar.test")).await,
        "directory" => alice.get("/_matrix/client/v3/publicRooms?server=far.test").await,
        "summary" => alice.get(&format!("/_matrix/client/v1/room_summary/{room}?via=far.test")).await,
        "invite" => alice.invite(own, "@somebody:far.test").await,
        other => panic!("{other} is no question"),
    }
}

/// Asks all of them, and checks that the client stays logged in, and is told whose fault it is. `read`: what else may come
/// of those that only read.
async fn all_fail(alice: &Client, far: &Scripted, how: &str, read: &[u16]) {
    let room = far.create_room("11", json!({ "join_rule": "knock" })).id;
    let own = alice.create_room(json!({ "preset": "private_chat" })).await;
    let (began, number) = (Instant::now(), far.number());
    let asked = QUESTIONS.map(|what| {
        let (room, own) = (&room, &own);
        async move { (what, Box::pin(ask(alice, what, room, own, number)).await) }
    });
    for (what, answer) in join_all(asked).await {
        let is_read = ["alias", "profile", "directory"].contains(&what) && read.contains(&answer.status);
        // What can't be seen of a room is as if it was not there.
        let is_not_there = what == "summary" && answer.status == 404;
        if is_read || is_not_there {
            continue;
        }
        assert!([502, 504].contains(&answer.status), "{what}, where the other server {how}: {answer:?}");
        assert_eq!(answer.body["errcode"], "M_UNKNOWN", "{what}, where the other server {how}");
        let message = answer.body["error"].as_str().unwrap();
        assert!(message.contains("far.test"), "{what}, where the other server {how}: {message}");
    }
    assert!(began.elapsed() < BOUND, "where the other server {how}, that took {:?}", began.elapsed());
    alice.get("/_matrix/client/v3/account/whoami").await.ok();
}

/// A homeserver on SQLite, and a scripted one: for what takes long.
async fn two_servers() -> (Peer, Scripted) {
    let internet = Internet::new();
    let one = Peer::start(&internet, "one.test", Engine::Sqlite).await.unwrap();
    let far = Scripted::start(&internet, "far.test", one.world.clock.clone()).await;
    (one, far)
}

with_scripted! {
    /// Another server's `M_UNKNOWN_TOKEN` or 401 logs the client out (Synapse 1.157.2).
    async fn no_error_of_another_server_reaches_a_client_as_such(one, far) {
        let alice = one.user("alice").await;
        for (status, code) in [
            (401, "M_UNKNOWN_TOKEN"),
            (401, "M_MISSING_TOKEN"),
            (401, "M_UNAUTHORIZED"),
            (403, "M_UNKNOWN_TOKEN"),
            (403, "M_USER_SUSPENDED"),
            (401, "M_USER_LOCKED"),
            (403, "M_USER_DEACTIVATED"),
            (403, "M_CONSENT_NOT_GIVEN"),
            (429, "M_LIMIT_EXCEEDED"),
            (500, "M_UNKNOWN"),
            (503, "ORG.EXAMPLE.MADE_UP"),
        ] {
            far.says("*", Say::error(status, code));
            far.answers("key/server", |_, usual| Say::ok(usual));
            all_fail(&alice, &far, &format!("says {status} {code}"), &[]).await;
        }
    }

    async fn garbage_is_answered_with_whose_it_is(one, far) {
        let alice = one.user("alice").await;
        for (how, say) in [
            ("sends a page", Say::Text("<html>nginx</html>".to_owned())),
            ("sends nothing", Say::Text(String::new())),
            ("sends something else", Say::ok(json!([]))),
            ("sends numbers", Say::ok(json!({ "event": 7, "room_id": 7, "displayname": 7, "chunk": 7, "room": 7 }))),
            ("breaks off", Say::Half),
            ("redirects", Say::Json(302, Value::Null)),
        ] {
            far.says("*", say);
            far.answers("key/server", |_, usual| Say::ok(usual));
            // Profiles and directories are read as far as they can be.
            all_fail(&alice, &far, how, &[200, 404]).await;
        }
    }

    async fn a_server_that_is_gone_is_not_waited_for(one, far) {
        let alice = one.user("alice").await;
        far.internet().part("one.test", "far.test");
        all_fail(&alice, &far, "can't be reached", &[]).await;
        far.internet().mend("one.test", "far.test");
    }

    /// One slow server is in nobody else's way.
    async fn who_waits_for_a_slow_server_is_in_nobodys_way(one, far) {
        let (alice, bob) = (one.user("alice").await, one.user("bob").await);
        let near = far.neighbour("near.test").await;
        let slow = alice.create_room(json!({ "preset": "public_chat", "room_version": "11" })).await;
        let quick = alice.create_room(json!({ "preset": "public_chat", "room_version": "11" })).await;
        let slow_room = far.join("one.test", &slow, &far.user("mallory")).await;
        let quick_room = near.join("one.test", &quick, &near.user("mallory")).await;
        bob.join(&quick).await.ok();
        // What it follows nobody ever says.
        far.says("*", Say::Nothing);
        let gap = slow_room.changed(&slow_room.message("after a gap"), |event| {
            event["prev_events"] = json!(["$31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM"]);
        });
        let began = Instant::now();
        far.transaction("one.test", &[gap]).await.ok();
        for number in 0..5 {
            near.transaction("one.test", &[quick_room.say(&format!("quick {number}"))]).await.ok();
            bob.hears(&quick, &format!("quick {number}")).await;
            alice.say(&slow, &format!("here {number}")).await;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        far.forgets_scripts();
    }

    /// A page backwards over a gap whose other side nobody tells is a page of what is here.
    async fn history_that_nobody_tells_is_waited_for_and_not_for_ever(one, far) {
        let alice = one.user("alice").await;
        let room = far.create_room("11", json!({ "join_rule": "public" }));
        room.say("before");
        alice.join_via(&room.id, "far.test").await.ok();
        alice.say(&room.id, "after").await;
        for say in [Say::error(401, "M_UNKNOWN_TOKEN"), Say::Text("garbage".to_owned()), Say::Half] {
            far.says("backfill", say);
            let began = Instant::now();
            let page = alice.get(&at(&room.id, "/messages?dir=b&limit=50")).await.ok();
            assert!(page["chunk"].as_array().unwrap().iter().any(|event| event["content"]["body"] == "after"), "{page}");
            assert!(began.elapsed() < BOUND);
            one.world.clock.advance(Duration::from_hours(1));
        }
        far.forgets_scripts();
        alice.hears(&room.id, "before").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_stop_or_does_not_begin_is_not_waited_for() {
    let (one, far) = two_servers().await;
    let alice = one.user("alice").await;
    for (how, say) in [("does not stop", Say::Endlessly), ("says nothing", Say::Nothing)] {
        far.says("*", say);
        far.answers("key/server", |_, usual| Say::ok(usual));
        all_fail(&alice, &far, how, &[]).await;
    }
}

/// What was asked for comes late: who asks again finds it done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_that_takes_long_is_done_when_it_is_asked_for_again() {
    let (one, far) = two_servers().await;
    let alice = one.user("alice").await;
    let room = far.create_room("11", json!({ "join_rule": "public" }));
    let (go_on, told) = watch::channel(false);
    far.answers("send_join", move |_, usual| Say::When(told.clone(), Box::new(Say::ok(usual))));
    let path = format!("/_matrix/client/v3/join/{}?via=far.test", escape(&room.id));
    tokio::select! {
        answer = alice.post(&path, json!({})) => panic!("the join was answered before its time: {answer:?}"),
        _ = far.until_asked("send_join", |_| true) => {}
    }
    // The client has hung up.
    go_on.send_replace(true);
    alice.post(&path, json!({})).await.ok();
    assert_eq!(far.take_asked("send_join").len(), 1, "it was joined twice");
    alice.get(&at(&room.id, "/state")).await.ok();
}
