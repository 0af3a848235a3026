//! What one user may have: each quota at its edge, asked for many times at once, on one node and on three.
//!
//! Who has as much as they may can go on replacing and deleting, and is told what to do.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, Reply, World, escape, next},
};

const CLIENT: &str = "/_matrix/client/v3";
const DAY: Duration = Duration::from_hours(24);

impl Client {
    fn data(&self, kind: &str) -> String {
        format!("{CLIENT}/user/{}/account_data/{kind}", escape(&self.user_id))
    }

    fn data_of_room(&self, room: &str, kind: &str) -> String {
        format!("{CLIENT}/user/{}/rooms/{}/account_data/{kind}", escape(&self.user_id), escape(room))
    }
}

fn alias(name: &str) -> String {
    format!("{CLIENT}/directory/room/{}", escape(&format!("#{name}:localhost")))
}

/// How many of several requests that were made at once were granted. The others were refused for a quota, in a way that
/// no client repeats.
#[track_caller]
fn granted(replies: &[Reply]) -> usize {
    let (granted, refused): (Vec<&Reply>, Vec<&Reply>) = replies.iter().partition(|reply| reply.status == 200);
    for reply in refused {
        over_quota(reply);
    }
    granted.len()
}

#[track_caller]
fn over_quota(reply: &Reply) {
    reply.refused(403, "M_USER_LIMIT_EXCEEDED");
    assert_eq!(reply.body["info_uri"], "https://localhost", "{}", reply.body);
    assert!(!reply.headers.contains_key("retry-after"));
}

/// A piece of account data of about so many bytes.
fn piece(kibibytes: usize) -> Value {
    json!({ "text": "x".repeat(kibibytes * 1024) })
}

async fn log_in(world: &World, user: &Client, device_id: Option<&str>) -> Reply {
    let mut body = user.password();
    if let Some(device_id) = device_id {
        body["device_id"] = device_id.into();
    }
    world.call("POST", &format!("{CLIENT}/login"), None, Some(body)).await
}

on_both! {
    async fn account_data_is_so_many_pieces(world, config => {
        config.quotas.account_data_pieces = 5;
    }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({})).await;
        // Of the room and global together.
        let path = |n: usize| {
            let kind = format!("org.example.{n}");
            if n.is_multiple_of(2) { alice.data(&kind) } else { alice.data_of_room(&room, &kind) }
        };
        let paths: Vec<String> = (0..12).map(path).collect();
        let replies = join_all(paths.iter().map(|path| alice.put(path, json!({ "n": 1 })))).await;
        assert_eq!(granted(&replies), 5);
        let (mut there, mut missing): (Vec<&String>, Vec<&String>) = (Vec::new(), Vec::new());
        for (path, reply) in paths.iter().zip(&replies) {
            if reply.status == 200 { there.push(path) } else { missing.push(path) }
        }
        for path in &there {
            alice.put(path, json!({ "n": 2, "more": "of it" })).await.ok();
        }
        // Reading a room is always noted.
        let event = alice.say(&room, "read").await;
        let marker = format!("{CLIENT}/rooms/{}/read_markers", escape(&room));
        alice.post(&marker, json!({ "m.fully_read": event })).await.ok();

        alice.put(there[0], json!({ "n": 3 })).await.ok();
        alice.put(there[0], json!({})).await.ok();
        alice.put(missing[0], json!({ "n": 1 })).await.ok();
        over_quota(&alice.put(missing[1], json!({ "n": 1 })).await);
        // What was deleted takes no place until it is there again.
        over_quota(&alice.put(there[0], json!({ "n": 4 })).await);
        let tags = format!("{CLIENT}/user/{}/rooms/{}/tags/u.work", escape(&alice.user_id), escape(&room));
        over_quota(&alice.put(&tags, json!({})).await);
        bob.put(&bob.data("org.example.mine"), json!({ "n": 1 })).await.ok();

        let world = world.restarted().await;
        let alice = alice.at(&world);
        over_quota(&alice.put(missing[1], json!({ "n": 1 })).await);
        alice.put(there[1], json!({ "n": 5 })).await.ok();
    }

    /// What somebody would bring along from a room that was replaced counts like everything else, and keeps nobody out.
    async fn who_has_no_space_left_comes_into_a_new_room_without_their_tags(world, config => {
        config.quotas.account_data_pieces = 1;
    }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let old = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&old).await.ok();
        let tags = |user: &Client, room: &str| format!("{CLIENT}/user/{}/rooms/{}/tags", escape(&user.user_id), escape(room));
        for user in [&alice, &bob] {
            user.put(&format!("{}/u.work", tags(user, &old)), json!({})).await.ok();
        }
        let upgrade = format!("{CLIENT}/rooms/{}/upgrade", escape(&old));
        let upgraded = alice.post(&upgrade, json!({ "new_version": "11" })).await.ok();
        let new = upgraded["replacement_room"].as_str().unwrap();
        bob.join(new).await.ok();
        for user in [&alice, &bob] {
            assert_eq!(user.get(&tags(user, new)).await.ok(), json!({ "tags": {} }));
            assert_eq!(user.get(&tags(user, &old)).await.ok(), json!({ "tags": { "u.work": {} } }));
        }
    }

    async fn account_data_is_so_many_bytes(world, config => {
        config.quotas.account_data_megabytes = 1;
    }) {
        let alice = world.user("alice").await;
        let paths: Vec<String> = (0..8).map(|n| alice.data(&format!("org.example.{n}"))).collect();
        let replies = join_all(paths.iter().map(|path| alice.put(path, piece(200)))).await;
        assert_eq!(granted(&replies), 5, "five times 200 KiB are less than one MiB, six are more");
        let of_status = |status: u16| paths.iter().zip(&replies).find(|(_, reply)| reply.status == status).unwrap().0;
        let (there, missing) = (of_status(200), of_status(403));
        // Twenty of the 24 KiB that are left.
        alice.put(there, piece(220)).await.ok();
        over_quota(&alice.put(there, piece(230)).await);
        assert_eq!(alice.get(there).await.ok(), piece(220), "nothing of what is refused is written");
        over_quota(&alice.put(missing, piece(100)).await);
        alice.put(there, piece(100)).await.ok();
        alice.put(missing, piece(100)).await.ok();
        let sync = alice.sync(None).await;
        assert!(sync.to_string().len() < 1_100_000);
    }

    /// The count is kept beside the data, through everything that can be done to it.
    async fn what_is_counted_is_what_is_there(world, config => {
        config.quotas.account_data_pieces = 3;
    }) {
        let alice = world.user("alice").await;
        let (one, two) = (alice.data("org.example.one"), alice.data("org.example.two"));
        for round in 0..4 {
            for content in [json!({ "round": round }), json!({}), json!({ "a": "b" }), json!({ "a": "b" })] {
                alice.put(&one, content.clone()).await.ok();
                alice.put(&two, content).await.ok();
            }
            let unstable = one.replace("/v3/", "/unstable/org.matrix.msc3391/");
            alice.delete(&unstable).await.ok();
            alice.delete(&unstable).await.ok();
        }
        // One is there and two may come.
        for kind in ["three", "four"] {
            alice.put(&alice.data(kind), json!({ "n": 1 })).await.ok();
        }
        over_quota(&alice.put(&one, json!({ "n": 1 })).await);
    }

    async fn a_room_has_so_many_tags(world, config => {
        config.quotas.tags_per_room = 4;
    }) {
        let alice = world.user("alice").await;
        let (room, other) = (alice.create_room(json!({})).await, alice.create_room(json!({})).await);
        let tag = |room: &str, n: usize| format!("{CLIENT}/user/{}/rooms/{}/tags/u.{n}", escape(&alice.user_id), escape(room));
        let paths: Vec<String> = (0..8).map(|n| tag(&room, n)).collect();
        let replies = join_all(paths.iter().map(|path| alice.put(path, json!({})))).await;
        assert_eq!(granted(&replies), 4);
        let of_status = |status: u16| paths.iter().zip(&replies).find(|(_, reply)| reply.status == status).unwrap().0;
        alice.put(of_status(200), json!({ "order": 0.5 })).await.ok();
        alice.put(&tag(&other, 0), json!({})).await.ok();
        alice.delete(of_status(200)).await.ok();
        alice.put(of_status(403), json!({})).await.ok();
        over_quota(&alice.put(of_status(200), json!({})).await);
    }

    /// Nobody can delete a filter, so a new one takes the place of the oldest.
    async fn the_oldest_filter_makes_room_for_the_newest(world, config => {
        config.quotas.filters = 3;
    }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let store = async |user: &Client, limit: u32| {
            let path = format!("{CLIENT}/user/{}/filter", escape(&user.user_id));
            let reply = user.post(&path, json!({ "room": { "timeline": { "limit": limit } } })).await.ok();
            format!("{path}/{}", reply["filter_id"].as_str().unwrap())
        };
        let of_bob = store(&bob, 1).await;
        let mut stored = Vec::new();
        for limit in 1..=3 {
            world.clock.advance(Duration::from_secs(1));
            stored.push(store(&alice, limit).await);
        }
        // Stored again, the first is not the oldest any more.
        world.clock.advance(Duration::from_secs(1));
        assert_eq!(store(&alice, 1).await, stored[0]);
        world.clock.advance(Duration::from_secs(1));
        stored.push(store(&alice, 4).await);
        alice.get(&stored[1]).await.refused(404, "M_NOT_FOUND");
        for path in [&stored[0], &stored[2], &stored[3]] {
            alice.get(path).await.ok();
        }
        let many = join_all((10..22).map(|limit| store(&alice, limit))).await;
        let found = join_all(many.iter().chain(&stored).map(|path| alice.get(path))).await;
        assert_eq!(found.iter().filter(|reply| reply.status == 200).count(), 3);
        bob.get(&of_bob).await.ok();
    }

    async fn a_user_has_so_many_devices(world, config => {
        config.quotas.devices = 3;
    }) {
        let alice = world.user("alice").await;
        let replies = join_all((0..6).map(|_| log_in(&world, &alice, None))).await;
        assert_eq!(granted(&replies), 2, "with the one on which they registered");
        // As one of those that are there.
        let there = replies.iter().find(|reply| reply.status == 200).unwrap().body["device_id"].as_str().unwrap();
        log_in(&world, &alice, Some(there)).await.ok();
        over_quota(&log_in(&world, &alice, Some("ANOTHER")).await);
        alice.post(&format!("{CLIENT}/logout"), json!({})).await.ok();
        log_in(&world, &alice, Some("ANOTHER")).await.ok();
        over_quota(&log_in(&world, &alice, None).await);
    }

    async fn a_profile_has_so_many_fields_and_bytes(world, config => {
        config.quotas.profile_fields = 4;
        config.quotas.profile_kilobytes = 2;
    }) {
        let alice = world.user("alice").await;
        let field = |name: &str| format!("{CLIENT}/profile/{}/org.example.{name}", escape(&alice.user_id));
        let paths: Vec<String> = (0..8).map(|n| field(&format!("field{n}"))).collect();
        let body = |path: &str, value: &str| json!({ path.rsplit('/').next().unwrap(): value });
        let replies = join_all(paths.iter().map(|path| alice.put(path, body(path, "short")))).await;
        assert_eq!(granted(&replies), 3, "with the display name");
        let of_status = |status: u16| paths.iter().zip(&replies).find(|(_, reply)| reply.status == status).unwrap().0;
        let (there, missing) = (of_status(200), of_status(403));
        alice.put(there, body(there, &"x".repeat(1_500))).await.ok();
        alice.put(there, body(there, &"x".repeat(2_048))).await.refused(400, "M_PROFILE_TOO_LARGE");
        alice.delete(there).await.ok();
        alice.put(missing, body(missing, "short")).await.ok();
        over_quota(&alice.put(there, body(there, "short")).await);
    }

    async fn a_user_makes_so_many_aliases(world, config => {
        config.quotas.aliases = 3;
    }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let rooms = join_all((0..2).map(|_| alice.create_room(json!({ "preset": "public_chat" })))).await;
        let added = (0..8).map(|n| {
            let (path, room) = (alias(&format!("alias{n}")), &rooms[n % 2]);
            let alice = &alice;
            async move { alice.put(&path, json!({ "room_id": room })).await }
        });
        let replies = join_all(added).await;
        assert_eq!(granted(&replies), 3);
        let named = json!({ "room_alias_name": "with_room" });
        over_quota(&alice.post(&format!("{CLIENT}/createRoom"), named.clone()).await);
        alice.get(&alias("with_room")).await.refused(404, "M_NOT_FOUND");
        let joined = alice.get(&format!("{CLIENT}/joined_rooms")).await.ok();
        assert_eq!(joined["joined_rooms"].as_array().unwrap().len(), 2, "there is no room without its alias");

        bob.join(&rooms[0]).await.ok();
        bob.put(&alias("of_bob"), json!({ "room_id": rooms[0] })).await.ok();
        let there = replies.iter().position(|reply| reply.status == 200).unwrap();
        alice.delete(&alias(&format!("alias{there}"))).await.ok();
        alice.post(&format!("{CLIENT}/createRoom"), named).await.ok();
        over_quota(&alice.put(&alias("one_more"), json!({ "room_id": rooms[0] })).await);
    }

    async fn a_user_makes_so_many_rooms_within_a_day(world, config => {
        config.quotas.rooms_per_day = 4;
    }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let create = format!("{CLIENT}/createRoom");
        let replies = join_all((0..10).map(|_| alice.post(&create, json!({})))).await;
        assert_eq!(granted(&replies), 4);
        let room = replies.iter().find(|reply| reply.status == 200).unwrap().body["room_id"].as_str().unwrap();
        let upgrade = format!("{CLIENT}/rooms/{}/upgrade", escape(room));
        over_quota(&alice.post(&upgrade, json!({ "new_version": "11" })).await);
        let path = format!("{CLIENT}/rooms/{}/state/m.room.tombstone", escape(room));
        alice.get(&path).await.refused(404, "M_NOT_FOUND");
        bob.create_room(json!({})).await;
        alice.say(room, "goes on").await;

        world.clock.advance(Duration::from_secs(24 * 3_600 - 1));
        over_quota(&alice.post(&create, json!({})).await);
        world.clock.advance(Duration::from_secs(1));
        alice.post(&upgrade, json!({ "new_version": "11" })).await.ok();
        let replies = join_all((0..5).map(|_| alice.post(&create, json!({})))).await;
        assert_eq!(granted(&replies), 3);
    }

    async fn a_user_reports_so_much_within_a_day(world, config => {
        config.quotas.reports_per_day = 3;
    }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let path = format!("{CLIENT}/users/{}/report", escape(&bob.user_id));
        let replies = join_all((0..8).map(|n| alice.post(&path, json!({ "reason": format!("{n}") })))).await;
        assert_eq!(granted(&replies), 3);
        bob.post(&path, json!({ "reason": "mine" })).await.ok();
        world.clock.advance(DAY);
        alice.post(&path, json!({ "reason": "again" })).await.ok();
        assert_eq!(world.administration().await.list_reports(20).await.unwrap().len(), 5);
    }

    /// Whoever asks for many tokens loses the oldest: they last for an hour at most, and are shown at once.
    async fn the_newest_tokens_and_authentications_are_good(world, config => {
        config.quotas.openid_tokens = 2;
        config.quotas.authentications = 2;
    }) {
        let alice = world.user("alice").await;
        let request = format!("{CLIENT}/user/{}/openid/request_token", escape(&alice.user_id));
        let device = format!("{CLIENT}/devices/UNKNOWN");
        let (mut tokens, mut sessions) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            world.clock.advance(Duration::from_secs(1));
            tokens.push(alice.post(&request, json!({})).await.ok()["access_token"].as_str().unwrap().to_owned());
            let asked = world.call("DELETE", &device, Some(&alice.token), Some(json!({}))).await;
            assert_eq!(asked.status, 401);
            sessions.push(asked.body["session"].as_str().unwrap().to_owned());
        }
        let mut proved = Vec::new();
        for token in &tokens {
            let path = format!("/_matrix/federation/v1/openid/userinfo?access_token={token}");
            proved.push(world.call("GET", &path, None, None).await.status);
        }
        assert_eq!(proved, [401, 200, 200]);
        // A session that is not known any more is replaced by a new one.
        let mut auth = alice.password();
        auth["session"] = sessions[0].as_str().into();
        let body = Some(json!({ "auth": auth }));
        let again = world.call("DELETE", &device, Some(&alice.token), body).await;
        assert_eq!(again.status, 401);
        assert!(!sessions.contains(&again.body["session"].as_str().unwrap().to_owned()));
        auth = alice.password();
        auth["session"] = sessions[2].as_str().into();
        assert_eq!(world.call("DELETE", &device, Some(&alice.token), Some(json!({ "auth": auth }))).await.status, 200);
    }

    async fn some_are_held_to_nothing(world, config => {
        config.quotas.exempt_users = vec!["@bridge:localhost".try_into().unwrap()];
        config.quotas.rooms_per_day = 1;
        config.quotas.account_data_pieces = 1;
        config.quotas.aliases = 1;
    }) {
        let bridge = world.user("bridge").await;
        for n in 0..3 {
            let room = bridge.create_room(json!({ "room_alias_name": format!("chat{n}") })).await;
            bridge.put(&bridge.data_of_room(&room, "org.example.chat"), json!({ "n": n })).await.ok();
        }
    }

    /// A quota that is lowered takes nothing away.
    async fn who_has_more_than_they_may_keeps_it(world, config => {
        config.quotas.account_data_pieces = 4;
        config.quotas.devices = 4;
    }) {
        let alice = world.user("alice").await;
        let since = next(&alice.sync(None).await);
        let path = |n: usize| alice.data(&format!("org.example.{n}"));
        for n in 0..4 {
            alice.put(&path(n), json!({ "n": n })).await.ok();
        }
        let others = [world.login(&alice).await, world.login(&alice).await];
        let mut world = world;
        world.config.quotas.account_data_pieces = 2;
        world.config.quotas.devices = 2;
        let world = world.restarted().await;
        let alice = alice.clone().at(&world);
        assert_eq!(alice.sync(Some(&since)).await["account_data"]["events"].as_array().unwrap().len(), 4);
        for other in others {
            other.at(&world).get(&format!("{CLIENT}/account/whoami")).await.ok();
        }
        alice.put(&path(0), json!({ "replaced": true })).await.ok();
        alice.put(&path(1), json!({})).await.ok();
        over_quota(&alice.put(&path(1), json!({ "n": 1 })).await);
        over_quota(&log_in(&world, &alice, None).await);
    }
}
