//! Backups of encryption keys: made, written, read, replaced and deleted, by several devices on several nodes.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups>

use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use crate::{
    on_both,
    world::{Client, Reply, World, escape},
};

const VERSION: &str = "/_matrix/client/v3/room_keys/version";
const ALGORITHM: &str = "m.megolm_backup.v1.curve25519-aes-sha2";
const ROOM: &str = "!room:localhost";

fn setup(public_key: &str) -> Value {
    json!({ "algorithm": ALGORITHM, "auth_data": { "public_key": public_key, "signatures": {} } })
}

/// `text` makes keys differ that stand alike.
fn key(is_verified: bool, first_message_index: u64, forwarded_count: u64, text: &str) -> Value {
    let session_data = json!({ "ephemeral": "a", "ciphertext": text, "mac": "c" });
    json!({
        "first_message_index": first_message_index, "forwarded_count": forwarded_count, "is_verified": is_verified,
        "session_data": session_data,
    })
}

/// A path below `/room_keys/keys`, of a version.
fn keys(rest: &str, version: &str) -> String {
    format!("/_matrix/client/v3/room_keys/keys{rest}?version={version}")
}

fn of_room(room: &str) -> String {
    format!("/{}", escape(room))
}

fn of_session(room: &str, session: &str) -> String {
    format!("/{}/{}", escape(room), escape(session))
}

impl Client {
    async fn new_backup(&self, public_key: &str) -> String {
        let made = self.post(VERSION, setup(public_key)).await.ok();
        made["version"].as_str().unwrap().to_owned()
    }

    async fn backup(&self, version: &str) -> Value {
        self.get(&format!("{VERSION}/{version}")).await.ok()
    }

    /// The etag and the count that came of it.
    async fn put_key(&self, version: &str, session: &str, key: Value) -> (String, u64) {
        update(&self.put(&keys(&of_session(ROOM, session), version), key).await.ok())
    }
}

fn update(answer: &Value) -> (String, u64) {
    (answer["etag"].as_str().unwrap().to_owned(), answer["count"].as_u64().unwrap())
}

/// So many sessions of a room.
fn sessions(count: usize) -> Value {
    let sessions: Map<String, Value> = (0..count).map(|n| (format!("s{n}"), key(false, 0, 0, "text"))).collect();
    json!({ "sessions": sessions })
}

#[track_caller]
fn wrong_version(reply: &Reply, current: &str) {
    reply.refused(403, "M_WRONG_ROOM_KEYS_VERSION");
    assert_eq!(reply.body["current_version"], current, "{}", reply.body);
}

on_both! {
    async fn a_backup_is_made_changed_and_deleted(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        alice.get(VERSION).await.refused(404, "M_NOT_FOUND");
        alice.put(&keys("", "1"), json!({ "rooms": {} })).await.refused(404, "M_NOT_FOUND");
        let first = alice.new_backup("first").await;
        let info = alice.get(VERSION).await.ok();
        assert_eq!((&info["algorithm"], &info["count"], &info["version"]), (&json!(ALGORITHM), &json!(0), &json!(first)));
        assert_eq!(info["auth_data"], setup("first")["auth_data"]);
        assert!(info["etag"].as_str().is_some_and(|etag| !etag.is_empty()));

        let path = format!("{VERSION}/{first}");
        alice.put(&path, setup("signed by another device")).await.ok();
        assert_eq!(alice.get(&path).await.ok()["auth_data"]["public_key"], "signed by another device");
        let mut other = setup("other");
        other["algorithm"] = "m.other".into();
        alice.put(&path, other).await.refused(400, "M_INVALID_PARAM");
        let mut named = setup("named");
        named["version"] = "another".into();
        alice.put(&path, named.clone()).await.refused(400, "M_INVALID_PARAM");
        named["version"] = first.clone().into();
        alice.put(&path, named).await.ok();
        alice.put(&format!("{VERSION}/7"), setup("x")).await.refused(404, "M_NOT_FOUND");

        let second = alice.new_backup("second").await;
        assert_ne!(first, second);
        assert_eq!(alice.get(VERSION).await.ok()["version"], second);
        assert_eq!(alice.backup(&first).await["auth_data"]["public_key"], "named");
        bob.get(&path).await.refused(404, "M_NOT_FOUND");
        bob.delete(&path).await.refused(404, "M_NOT_FOUND");

        let world = world.restarted().await;
        let alice = alice.at(&world);
        assert_eq!(alice.get(VERSION).await.ok()["version"], second);
        for _ in 0..2 {
            alice.delete(&format!("{VERSION}/{second}")).await.ok();
        }
        alice.get(&format!("{VERSION}/{second}")).await.refused(404, "M_NOT_FOUND");
        assert_eq!(alice.get(VERSION).await.ok()["version"], first);
        alice.delete(&format!("{VERSION}/99")).await.refused(404, "M_NOT_FOUND");
        assert_ne!(alice.new_backup("third").await, second, "a client would take it for its own");
    }

    async fn keys_are_put_and_read_at_each_granularity(world) {
        let alice = world.user("alice").await;
        let version = alice.new_backup("a").await;
        let (other, session) = ("!other:localhost", "a session/with \"signs\"");
        let (etag, count) = alice.put_key(&version, session, key(true, 1, 2, "one")).await;
        assert_eq!(count, 1);
        let of_other = json!({ "sessions": { "x": key(false, 0, 0, "x"), "y": key(false, 0, 0, "y") } });
        let put = alice.put(&keys(&of_room(other), &version), of_other.clone()).await.ok();
        let (changed, count) = update(&put);
        assert!(count == 3 && changed != etag, "{put}");
        let all = json!({ "rooms": { ROOM: { "sessions": { "z": key(false, 0, 0, "z") } }, other: of_other } });
        let (again, count) = update(&alice.put(&keys("", &version), all).await.ok());
        assert!(count == 4 && again != changed, "one of them is new");
        let info = alice.get(VERSION).await.ok();
        assert_eq!((info["etag"].as_str(), info["count"].as_u64()), (Some(&*again), Some(4)));

        assert_eq!(alice.get(&keys(&of_session(ROOM, session), &version)).await.ok(), key(true, 1, 2, "one"));
        let in_room = json!({ "sessions": { session: key(true, 1, 2, "one"), "z": key(false, 0, 0, "z") } });
        assert_eq!(alice.get(&keys(&of_room(ROOM), &version)).await.ok(), in_room);
        assert_eq!(
            alice.get(&keys("", &version)).await.ok(),
            json!({ "rooms": { ROOM: in_room, other: of_other } })
        );
        alice.get(&keys(&of_session(ROOM, "nonesuch"), &version)).await.refused(404, "M_NOT_FOUND");
        let nowhere = alice.get(&keys(&of_room("!nowhere:localhost"), &version)).await.ok();
        assert_eq!(nowhere, json!({ "sessions": {} }));
        for path in ["", &*of_room(ROOM), &*of_session(ROOM, "z")] {
            alice.get(&keys(path, "7")).await.refused(404, "M_NOT_FOUND");
            alice.delete(&keys(path, "7")).await.refused(404, "M_NOT_FOUND");
        }

        let (etag, count) = update(&alice.delete(&keys(&of_session(ROOM, "z"), &version)).await.ok());
        assert!(count == 3 && etag != again);
        assert_eq!(update(&alice.delete(&keys(&of_session(ROOM, "z"), &version)).await.ok()), (etag, 3));
        assert_eq!(update(&alice.delete(&keys(&of_room(other), &version)).await.ok()).1, 1);
        assert_eq!(update(&alice.delete(&keys("", &version)).await.ok()).1, 0);
        assert_eq!(alice.get(&keys("", &version)).await.ok(), json!({ "rooms": {} }));
    }

    async fn of_two_keys_of_a_session_the_better_one_stays(world) {
        let alice = world.user("alice").await;
        let version = alice.new_backup("a").await;
        let (first, _) = alice.put_key(&version, "s", key(false, 5, 1, "first")).await;
        for worse in [key(false, 6, 0, "worse"), key(false, 5, 2, "worse"), key(false, 5, 1, "as good")] {
            assert_eq!(alice.put_key(&version, "s", worse).await, (first.clone(), 1));
        }
        let mut etag = first;
        for better in [key(false, 5, 0, "b"), key(false, 4, 9, "c"), key(true, 99, 9, "d"), key(true, 98, 9, "e")] {
            let (changed, count) = alice.put_key(&version, "s", better.clone()).await;
            assert!(count == 1 && changed != etag);
            etag = changed;
            assert_eq!(alice.get(&keys(&of_session(ROOM, "s"), &version)).await.ok(), better);
        }
        assert_eq!(alice.put_key(&version, "s", key(false, 0, 0, "not verified")).await, (etag, 1));
    }

    async fn keys_go_into_the_newest_backup_alone(world) {
        let alice = world.user("alice").await;
        let old = alice.new_backup("old").await;
        alice.put_key(&old, "s", key(false, 0, 0, "kept")).await;
        let new = alice.new_backup("new").await;
        let put = alice.put(&keys(&of_session(ROOM, "t"), &old), key(false, 0, 0, "x")).await;
        wrong_version(&put, &new);
        wrong_version(&alice.put(&keys(&of_room(ROOM), &old), sessions(1)).await, &new);
        wrong_version(&alice.put(&keys("", "no version"), json!({ "rooms": {} })).await, &new);
        assert_eq!(alice.get(&keys(&of_session(ROOM, "s"), &old)).await.ok(), key(false, 0, 0, "kept"));
        // An old one can be tidied all the same.
        assert_eq!(update(&alice.delete(&keys("", &old)).await.ok()).1, 0);
        alice.delete(&format!("{VERSION}/{new}")).await.ok();
        wrong_version(&alice.put(&keys("", &new), json!({ "rooms": {} })).await, &old);
        alice.put_key(&old, "s", key(false, 0, 0, "in use again")).await;
    }

    /// More than one page, put by several devices at once.
    async fn a_large_backup_is_downloaded_whole(world) {
        let alice = world.user("alice").await;
        let devices = [alice.clone(), world.login(&alice).await, world.login(&alice).await];
        let version = alice.new_backup("a").await;
        let rooms: Vec<String> = (0..6).map(|n| format!("!room{n}:localhost")).collect();
        let paths: Vec<String> = rooms.iter().map(|room| keys(&of_room(room), &version)).collect();
        let puts = paths.iter().enumerate().map(|(n, path)| devices[n % devices.len()].put(path, sessions(200)));
        for reply in join_all(puts).await {
            reply.ok();
        }
        let info = alice.backup(&version).await;
        assert_eq!(info["count"], 1200);
        let all = alice.get(&keys("", &version)).await.ok();
        let expected: Map<String, Value> = rooms.iter().map(|room| (room.clone(), sessions(200))).collect();
        assert_eq!(all["rooms"], Value::Object(expected));
        alice.put(&paths[0], sessions(1_100)).await.ok();
        assert_eq!(alice.get(&paths[0]).await.ok(), sessions(1_100));
    }

    /// A few keys are more than is in memory at once where each is as large as it may be.
    async fn a_backup_of_large_keys_is_downloaded_whole(world) {
        let alice = world.user("alice").await;
        let version = alice.new_backup("a").await;
        let rooms: Vec<String> = (0..3).map(|n| format!("!room{n}:localhost")).collect();
        let large: Map<String, Value> =
            (0..30).map(|n| (format!("s{n}"), key(false, 0, 0, &n.to_string().repeat(30_000)))).collect();
        let large = json!({ "sessions": large });
        for room in &rooms {
            alice.put(&keys(&of_room(room), &version), large.clone()).await.ok();
        }
        let all: Map<String, Value> = rooms.iter().map(|room| (room.clone(), large.clone())).collect();
        assert!(alice.get(&keys("", &version)).await.ok() == json!({ "rooms": all }), "not what was put");
        assert!(alice.get(&keys(&of_room(&rooms[1]), &version)).await.ok() == large, "not what was put");
        assert_eq!(update(&alice.delete(&keys(&of_room(&rooms[1]), &version)).await.ok()).1, 60);
        assert_eq!(update(&alice.delete(&keys("", &version)).await.ok()).1, 0);
    }

    async fn bad_keys_are_refused_and_nothing_of_them_is_stored(world) {
        let alice = world.user("alice").await;
        let version = alice.new_backup("a").await;
        let good = key(false, 0, 0, "good");
        let bad = |name: &str, value: Value| {
            let mut key = good.clone();
            key[name] = value;
            key
        };
        let cases = [
            (400, "M_BAD_JSON", bad("first_message_index", json!(-1))),
            (400, "M_BAD_JSON", bad("first_message_index", json!("1"))),
            (400, "M_BAD_JSON", bad("forwarded_count", json!(1.5))),
            (400, "M_BAD_JSON", bad("is_verified", json!(1))),
            (400, "M_BAD_JSON", bad("session_data", json!("text"))),
            (400, "M_BAD_JSON", json!([])),
            (400, "M_MISSING_PARAM", json!({})),
            (413, "M_TOO_LARGE", bad("session_data", json!({ "ciphertext": "x".repeat(70_000) }))),
        ];
        for (status, code, bad) in cases {
            let together = json!({ "sessions": { "a": good, "b": bad, "c": good } });
            alice.put(&keys(&of_room(ROOM), &version), together).await.refused(status, code);
            alice.put(&keys(&of_session(ROOM, "b"), &version), bad).await.refused(status, code);
        }
        for session in ["x".repeat(256), "a\u{0}b".to_owned(), String::new()] {
            let together = json!({ "sessions": { session: good, "c": good } });
            alice.put(&keys(&of_room(ROOM), &version), together).await.refused(400, "M_INVALID_PARAM");
        }
        // What no parser could read again would break the whole backup.
        let path = keys(&of_session(ROOM, "s"), &version);
        for unreadable in [r#"{"n":1e999}"#, r#"{"n":"\ud800"}"#] {
            let body = good.to_string().replace(&good["session_data"].to_string(), unreadable);
            world.call_raw("PUT", &path, Some(&alice.token), &body).await.refused(400, "M_BAD_JSON");
        }
        for setup in [json!({}), json!({ "algorithm": "a" }), json!({ "auth_data": {} })] {
            alice.post(VERSION, setup).await.refused(400, "M_MISSING_PARAM");
        }
        for setup in [json!([]), json!({ "algorithm": 1, "auth_data": {} }), json!({ "algorithm": "a", "auth_data": 1 })] {
            alice.post(VERSION, setup).await.refused(400, "M_BAD_JSON");
        }
        let all = alice.get(&keys("", &version)).await.ok();
        assert_eq!((all, alice.backup(&version).await["count"].as_u64()), (json!({ "rooms": {} }), Some(0)));
    }

    /// On three nodes too, where all of them are asked at once.
    async fn a_user_has_so_many_backups_and_keys(world, config => {
        config.quotas.key_backups = 3;
        config.quotas.key_backup_sessions = 10;
        config.quotas.key_backup_megabytes = 1;
    }) {
        let alice = world.user("alice").await;
        let made = join_all((0..6).map(|_| alice.post(VERSION, setup("a")))).await;
        assert_eq!(made.iter().filter(|reply| reply.status == 200).count(), 3);
        for reply in made.iter().filter(|reply| reply.status != 200) {
            reply.refused(403, "M_USER_LIMIT_EXCEEDED");
        }
        let newest = alice.get(VERSION).await.ok()["version"].as_str().unwrap().to_owned();
        let paths: Vec<String> = (0..4).map(|n| keys(&of_room(&format!("!r{n}:localhost")), &newest)).collect();
        let puts = join_all(paths.iter().map(|path| alice.put(path, sessions(3)))).await;
        assert_eq!(puts.iter().filter(|reply| reply.status == 200).count(), 3);
        let refused = puts.iter().find(|reply| reply.status != 200).unwrap();
        refused.refused(403, "M_USER_LIMIT_EXCEEDED");
        assert_eq!(alice.backup(&newest).await["count"], 9);
        // Replacing adds none. The other backups count as well.
        let there = paths.iter().zip(&puts).find(|(_, reply)| reply.status == 200).unwrap().0;
        alice.put(there, json!({ "sessions": { "s0": key(true, 0, 0, "better") } })).await.ok();
        alice.delete(&format!("{VERSION}/1")).await.ok();
        let newer = alice.new_backup("newer").await;
        alice.put(&keys(&of_room(ROOM), &newer), sessions(2)).await.refused(403, "M_USER_LIMIT_EXCEEDED");
        alice.put(&keys(&of_room(ROOM), &newer), sessions(1)).await.ok();
        alice.delete(&format!("{VERSION}/{newest}")).await.ok();
        alice.put(&keys(&of_room(ROOM), &newer), sessions(9)).await.ok();
    }

    async fn a_users_keys_take_so_many_bytes(world, config => {
        config.quotas.key_backup_megabytes = 1;
    }) {
        let alice = world.user("alice").await;
        let version = alice.new_backup("a").await;
        let path = keys(&of_room(ROOM), &version);
        let large = |count: usize, is_verified: bool, length: usize| {
            let key = key(is_verified, 0, 0, &"x".repeat(length));
            let sessions: Map<String, Value> = (0..count).map(|n| (format!("large{n}"), key.clone())).collect();
            json!({ "sessions": sessions })
        };
        alice.put(&path, large(17, false, 60_000)).await.ok();
        alice.put(&path, large(18, false, 60_000)).await.refused(403, "M_USER_LIMIT_EXCEEDED");
        alice.put(&path, large(17, true, 64_000)).await.refused(403, "M_USER_LIMIT_EXCEEDED");
        assert_eq!(alice.get(&path).await.ok(), large(17, false, 60_000), "nothing of what is refused is written");
        alice.put(&path, large(17, true, 50_000)).await.ok();
        alice.put_key(&version, "another", key(false, 0, 0, "x")).await;
    }

    async fn a_deactivated_account_has_no_backup(world) {
        let alice = world.user("alice").await;
        let version = alice.new_backup("a").await;
        alice.put_key(&version, "s", key(false, 0, 0, "x")).await;
        let body = json!({ "auth": alice.password(), "erase": false });
        alice.post("/_matrix/client/v3/account/deactivate", body).await.ok();
        alice.get(VERSION).await.refused(401, "M_UNKNOWN_TOKEN");
    }
}

/// What a device of a user writes on one node, another reads on the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_on_other_nodes_see_the_same_backup() {
    let Some(world) = World::on(crate::world::Engine::Cluster, |_| ()).await else { return };
    let alice = world.user("alice").await;
    let nodes: Vec<Client> = (0..world.nodes.len()).map(|index| alice.clone().at_node(&world, index)).collect();
    let version = nodes[0].new_backup("a").await;
    for round in 0..20_u64 {
        let node = usize::try_from(round).unwrap() % nodes.len();
        // Each is better than the one before, so that whoever is last stays.
        let put = key(false, 100 - round, 0, &round.to_string());
        let (etag, _) = nodes[node].put_key(&version, "s", put.clone()).await;
        let next = &nodes[(node + 1) % nodes.len()];
        assert_eq!(next.get(&keys(&of_session(ROOM, "s"), &version)).await.ok(), put);
        assert_eq!(next.backup(&version).await["etag"].as_str(), Some(&*etag));
    }
}
