//! Delayed events: scheduled, restarted, sent, cancelled, and sent by the server when their time has come.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/blob/main/proposals/4140-delayed-events-futures.md>

use std::{collections::HashSet, time::Duration};

use hearth::config::RateLimitConfig;
use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, Reply, at, escape, next},
};

const PREFIX: &str = "/_matrix/client/unstable/org.matrix.msc4140";
const MEMBER: &str = "org.matrix.msc3401.call.member";

fn send_path(room: &str, transaction: &str, delay: &str) -> String {
    let room = escape(room);
    format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/{transaction}?org.matrix.msc4140.delay={delay}")
}

fn state_path(room: &str, kind: &str, state_key: &str, delay: u64) -> String {
    let (room, state_key) = (escape(room), escape(state_key));
    format!("/_matrix/client/v3/rooms/{room}/state/{kind}/{state_key}?org.matrix.msc4140.delay={delay}")
}

fn own_path(room: &str, kind: &str, transaction: &str) -> String {
    format!("{PREFIX}/rooms/{}/delayed_event/{kind}/{transaction}", escape(room))
}

fn one(delay_id: &str) -> String {
    format!("{PREFIX}/delayed_events/{delay_id}")
}

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

fn delay_id(reply: Reply) -> String {
    let body = reply.ok();
    assert!(body.get("event_id").is_none(), "nothing has been sent yet: {body}");
    body["delay_id"].as_str().unwrap().to_owned()
}

impl Client {
    /// Schedules a message through `/send`.
    async fn say_later(&self, room: &str, body: &str, delay: u64) -> String {
        delay_id(self.put(&send_path(room, body, &delay.to_string()), text(body)).await)
    }

    async fn act(&self, delay_id: &str, action: &str) -> Reply {
        self.post(&format!("{}/{action}", one(delay_id)), json!({})).await
    }

    /// What has become of an event, once it has ended.
    async fn end_of(&self, delay_id: &str) -> Value {
        let ended = async {
            loop {
                let event = self.get(&one(delay_id)).await.ok();
                if event.get("finalised").is_some() {
                    return event;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(40), ended).await.expect("it has not ended")
    }

    async fn event_of(&self, delay_id: &str) -> String {
        let end = self.end_of(delay_id).await;
        assert!(end["finalised"].get("error").is_none(), "{end}");
        end["finalised"]["event_id"].as_str().unwrap_or_else(|| panic!("it was not sent: {end}")).to_owned()
    }

    async fn error_of(&self, delay_id: &str) -> String {
        let end = self.end_of(delay_id).await;
        assert!(end["finalised"].get("event_id").is_none(), "{end}");
        end["finalised"]["error"]["errcode"].as_str().unwrap_or_else(|| panic!("it has no error: {end}")).to_owned()
    }

    async fn is_scheduled(&self, delay_id: &str) -> bool {
        self.get(&one(delay_id)).await.ok().get("finalised").is_none()
    }

    async fn event(&self, room: &str, event_id: &str) -> Value {
        self.get(&format!("/_matrix/client/v3/rooms/{}/event/{}", escape(room), escape(event_id))).await.ok()
    }

    /// The texts in a room, oldest first.
    async fn history(&self, room: &str) -> Vec<String> {
        let page = self.get(&format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=200", escape(room))).await.ok();
        let chunk = page["chunk"].as_array().unwrap();
        chunk.iter().rev().filter_map(|event| event["content"]["body"].as_str().map(ToOwned::to_owned)).collect()
    }
}

on_both! {
    async fn a_message_is_sent_when_its_time_has_come(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let since = next(&bob.sync(None).await);
        let later = alice.say_later(&room, "later", 5_000).await;
        let sooner = alice.say_later(&room, "sooner", 4_000).await;
        assert_eq!(
            alice.get(&one(&later)).await.ok(),
            json!({
                "delay_id": later, "room_id": room, "type": "m.room.message", "content": text("later"),
                "delay_ms": 5_000, "delayed_since_ts": 1_767_225_600_000_u64,
            })
        );
        bob.get(&one(&later)).await.refused(404, "M_NOT_FOUND");
        alice.get(&one("nonsense")).await.refused(404, "M_NOT_FOUND");

        world.clock.advance(Duration::from_millis(4_999));
        alice.event_of(&sooner).await;
        assert!(alice.is_scheduled(&later).await, "not before its time");
        world.clock.advance(Duration::from_millis(1));
        assert_eq!(bob.hear(&room, &since, 2).await, ["sooner", "later"]);

        let event_id = alice.event_of(&later).await;
        let (own, others) = (alice.event(&room, &event_id).await, bob.event(&room, &event_id).await);
        assert_eq!(own["unsigned"]["org.matrix.msc4140.delay_id"], later.as_str());
        assert!(own["unsigned"].get("transaction_id").is_none(), "{own}");
        assert!(others["unsigned"].get("org.matrix.msc4140.delay_id").is_none(), "{others}");
        assert_eq!(own["origin_server_ts"], 1_767_225_605_000_u64);
        assert_eq!(world.login(&alice).await.event(&room, &event_id).await["unsigned"], own["unsigned"]);
    }

    async fn state_is_set_when_its_time_has_come(world) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        let key = format!("_{}_PHONE_m.call", alice.user_id);
        let state = format!("/_matrix/client/v3/rooms/{}/state/{MEMBER}/{}", escape(&room), escape(&key));
        let leave = delay_id(alice.put(&state_path(&room, MEMBER, &key, 8_000), json!({})).await);
        alice.put(&state, json!({ "application": "m.call" })).await.ok();
        assert_eq!(alice.get(&one(&leave)).await.ok()["state_key"], key.as_str());
        for _ in 0..3 {
            world.clock.advance(Duration::from_secs(5));
            assert_eq!(alice.act(&leave, "restart").await.ok(), json!({}));
        }
        // What it says now has replaced nothing: the same user has set it.
        assert_eq!(alice.get(&state).await.ok(), json!({ "application": "m.call" }));
        world.clock.advance(Duration::from_secs(8));
        let event_id = alice.event_of(&leave).await;
        assert_eq!(alice.get(&state).await.ok(), json!({}));
        let event = alice.event(&room, &event_id).await;
        assert_eq!(event["unsigned"]["org.matrix.msc4140.delay_id"], leave.as_str());
    }

    async fn the_endpoint_of_its_own_schedules_once_for_each_transaction(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let path = own_path(&room, "m.room.message", "t1");
        let body = json!({ "delay_ms": 60_000, "content": text("once") });
        let first = delay_id(alice.put(&path, body.clone()).await);
        assert_eq!(delay_id(alice.put(&path, body.clone()).await), first);
        assert_ne!(delay_id(alice.put(&own_path(&room, "m.room.message", "t2"), body.clone()).await), first);
        assert_ne!(delay_id(world.login(&alice).await.put(&path, body.clone()).await), first, "another device");
        // The name that the field had before.
        let before = json!({ "delay": 60_000, "content": text("as before") });
        alice.put(&own_path(&room, "m.room.message", "t3"), before).await.ok();
        let topic = json!({ "delay_ms": 60_000, "state_key": "", "content": { "topic": "planned" } });
        let topic = delay_id(alice.put(&own_path(&room, "m.room.topic", "t4"), topic).await);
        alice.act(&topic, "send").await.ok();
        let state = format!("/_matrix/client/v3/rooms/{}/state/m.room.topic/", escape(&room));
        assert_eq!(alice.get(&state).await.ok()["topic"], "planned");

        let put = async |kind: &str, body: Value| alice.put(&own_path(&room, kind, "bad"), body).await;
        put("m.room.message", json!({ "content": {} })).await.refused(400, "M_MISSING_PARAM");
        put("m.room.message", json!({ "delay_ms": 5 })).await.refused(400, "M_MISSING_PARAM");
        put("m.room.message", json!({ "delay_ms": 0, "content": {} })).await.refused(400, "M_INVALID_PARAM");
        put("m.room.message", json!({ "delay_ms": -5, "content": {} })).await.refused(400, "M_BAD_JSON");
        put("m.room.message", json!({ "delay_ms": 1.5, "content": {} })).await.refused(400, "M_BAD_JSON");
        put("m.room.message", json!({ "delay_ms": 5, "content": 7 })).await.refused(400, "M_BAD_JSON");
        put("m.room.message", json!({ "delay_ms": 5, "content": { "n": 1.5 } })).await.refused(400, "M_BAD_JSON");
        let large = json!({ "delay_ms": 5, "content": text(&"x".repeat(65_536)) });
        put("m.room.message", large).await.refused(413, "M_TOO_LARGE");
        put(&"k".repeat(256), json!({ "delay_ms": 5, "content": {} })).await.refused(400, "M_INVALID_PARAM");
        let long_key = json!({ "delay_ms": 5, "state_key": "k".repeat(256), "content": {} });
        put("org.example", long_key).await.refused(400, "M_INVALID_PARAM");
        let redaction = json!({ "delay_ms": 5, "state_key": "", "content": { "redacts": "$x" } });
        put("m.room.redaction", redaction).await.refused(400, "M_BAD_JSON");
        put("m.room.redaction", json!({ "delay_ms": 5, "content": {} })).await.refused(400, "M_MISSING_PARAM");
        let longest = own_path(&room, "m.room.message", &"t".repeat(256));
        alice.put(&longest, body.clone()).await.refused(400, "M_INVALID_PARAM");
        bob.put(&path, body.clone()).await.refused(403, "M_FORBIDDEN");
        let nowhere = own_path("!nowhere:localhost", "m.room.message", "t");
        alice.put(&nowhere, body.clone()).await.refused(403, "M_FORBIDDEN");
        alice.put(&own_path("nowhere", "m.room.message", "t"), body.clone()).await.refused(400, "M_INVALID_PARAM");
        world.call("PUT", &path, None, Some(body.clone())).await.refused(401, "M_MISSING_TOKEN");
        world.call("PUT", &path, Some("nobodys"), Some(body)).await.refused(401, "M_UNKNOWN_TOKEN");
        world.call_raw("PUT", &path, Some(&alice.token), "{").await.refused(400, "M_NOT_JSON");
    }

    /// Trap: a server that overlooks the delay has a call left while it is joined.
    async fn whoever_asks_for_a_delay_in_the_query_gets_it_or_an_error(world) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        let path = send_path(&room, "t", "60000");
        let first = delay_id(alice.put(&path, text("later")).await);
        assert_eq!(delay_id(alice.put(&path, text("later")).await), first);
        for delay in ["", "soon", "-1", "1.5", "0"] {
            alice.put(&send_path(&room, "u", delay), text("at once")).await.refused(400, "M_INVALID_PARAM");
        }
        let grouped = path.replace("msc4140.delay=60000", "msc4140.parent_delay_id=abc");
        alice.put(&grouped, text("at once")).await.refused(400, "M_INVALID_PARAM");
        let grouped = state_path(&room, "m.room.topic", "", 5).replace("delay=5", "parent_delay_id=abc");
        alice.put(&grouped, json!({ "topic": "at once" })).await.refused(400, "M_INVALID_PARAM");

        let day = 24 * 60 * 60 * 1_000;
        let too_long = alice.put(&send_path(&room, "v", &(day + 1).to_string()), text("at once")).await;
        too_long.refused(400, "M_UNKNOWN");
        assert_eq!(too_long.body["org.matrix.msc4140.errcode"], "M_MAX_DELAY_EXCEEDED");
        assert_eq!(too_long.body["org.matrix.msc4140.max_delay"], day);
        let body = json!({ "delay_ms": day + 1, "content": text("at once") });
        let too_long = alice.put(&own_path(&room, "m.room.message", "w"), body).await;
        too_long.refused(400, "ORG.MATRIX.MSC4140_DELAY_TOO_LARGE");
        assert_eq!(alice.history(&room).await, Vec::<String>::new());
    }

    async fn a_user_has_so_many_scheduled_and_no_more(world, config => {
        config.delayed_events.max_scheduled = 2;
        config.delayed_events.max_delay_seconds = 100;
    }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let capabilities = alice.get("/_matrix/client/v3/capabilities").await.ok();
        assert_eq!(
            capabilities["capabilities"]["org.matrix.msc4140.delayed_events"],
            json!({ "max_delay_ms": 100_000, "max_scheduled": 2 })
        );
        let first = alice.say_later(&room, "a", 30_500).await;
        alice.say_later(&room, "b", 60_000).await;
        let refused = alice.put(&send_path(&room, "c", "1000"), text("c")).await;
        refused.refused(429, "M_LIMIT_EXCEEDED");
        assert_eq!(refused.headers["retry-after"], "31");
        assert_eq!(delay_id(alice.put(&send_path(&room, "a", "30500"), text("a")).await), first, "that is no third");
        bob.say_later(&room, "d", 1_000).await;
        alice.act(&first, "cancel").await.ok();
        alice.say_later(&room, "c", 1_000).await;
    }

    async fn nothing_is_scheduled_where_the_operator_does_not_want_it(world, config => {
        config.delayed_events.max_scheduled = 0;
    }) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        alice.put(&send_path(&room, "t", "1000"), text("later")).await.refused(403, "M_FORBIDDEN");
        let versions = world.call("GET", "/_matrix/client/versions", None, None).await.ok();
        assert!(versions["unstable_features"].get("org.matrix.msc4140").is_none(), "{versions}");
        assert_eq!(alice.history(&room).await, Vec::<String>::new());
    }

    async fn an_event_is_restarted_sent_and_cancelled(world) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        let versions = world.call("GET", "/_matrix/client/versions", None, None).await.ok();
        assert_eq!(versions["unstable_features"]["org.matrix.msc4140"], true);
        let restarted = alice.say_later(&room, "restarted", 10_000).await;
        let control = alice.say_later(&room, "control", 10_000).await;
        let (sent, cancelled) =
            (alice.say_later(&room, "sent", 10_000).await, alice.say_later(&room, "cancelled", 10_000).await);
        world.clock.advance(Duration::from_secs(9));
        alice.act(&restarted, "restart").await.ok();
        alice.act(&sent, "send").await.ok();
        alice.act(&cancelled, "cancel").await.ok();
        let end = alice.get(&one(&sent)).await.ok();
        assert_eq!(end["finalised"]["finalised_ts"], 1_767_225_609_000_u64, "{end}");
        assert_eq!(alice.event(&room, end["finalised"]["event_id"].as_str().unwrap()).await["content"]["body"], "sent");
        let end = alice.get(&one(&cancelled)).await.ok();
        assert_eq!(end["finalised"], json!({ "finalised_ts": 1_767_225_609_000_u64 }));

        world.clock.advance(Duration::from_secs(9));
        alice.event_of(&control).await;
        let event = alice.get(&one(&restarted)).await.ok();
        assert!(event.get("finalised").is_none(), "{event}");
        assert_eq!(event["delayed_since_ts"], 1_767_225_609_000_u64);
        world.clock.advance(Duration::from_secs(1));
        alice.event_of(&restarted).await;
        assert_eq!(alice.history(&room).await, ["sent", "control", "restarted"]);

        // What is as it was asked for is a success, also a second time.
        alice.act(&sent, "send").await.ok();
        alice.act(&control, "send").await.ok();
        alice.act(&cancelled, "cancel").await.ok();
        let others = [(&sent, "cancel"), (&sent, "restart"), (&cancelled, "send"), (&cancelled, "restart")];
        for (delay_id, action) in others {
            alice.act(delay_id, action).await.refused(404, "M_NOT_FOUND");
        }
        assert_eq!(alice.history(&room).await, ["sent", "control", "restarted"]);
    }

    async fn whoever_knows_the_identifier_may_act_on_it_and_nobody_else(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let later = alice.say_later(&room, "later", 60_000).await;
        for action in ["restart", "send", "cancel"] {
            bob.act(&later, action).await.refused(404, "M_NOT_FOUND");
            bob.post(&one(&later), json!({ "action": action })).await.refused(404, "M_NOT_FOUND");
            let path = format!("{}/{action}", one(&later));
            world.call("POST", &path, Some("nobodys"), None).await.refused(401, "M_UNKNOWN_TOKEN");
            let path = format!("{}/{action}", one("nonsense"));
            world.call("POST", &path, None, None).await.refused(404, "M_NOT_FOUND");
        }
        assert!(alice.is_scheduled(&later).await);
        alice.act(&later, "forget").await.refused(404, "M_UNRECOGNIZED");
        // The service beside an SFU has no token.
        world.call("POST", &format!("{}/restart", one(&later)), None, None).await.ok();
        world.call("POST", &format!("{}/send", one(&later)), None, Some(json!({}))).await.ok();
        assert_eq!(bob.history(&room).await, ["later"]);

        // As the action was once said in the body, by the owner only.
        let body = json!({ "action": "restart" });
        world.call("POST", &one(&later), None, Some(body)).await.refused(401, "M_MISSING_TOKEN");
        let second = alice.say_later(&room, "second", 60_000).await;
        alice.post(&one(&second), json!({ "action": "restart" })).await.ok();
        alice.post(&one(&second), json!({ "action": "send" })).await.ok();
        let third = alice.say_later(&room, "third", 60_000).await;
        alice.post(&one(&third), json!({ "action": "cancel" })).await.ok();
        alice.post(&one(&third), json!({ "action": "forget" })).await.refused(400, "M_INVALID_PARAM");
        alice.post(&one(&third), json!({})).await.refused(400, "M_MISSING_PARAM");
        assert_eq!(bob.history(&room).await, ["later", "second"]);
    }

    async fn whoever_acts_without_a_token_is_limited_as_the_owner(world, config => {
        config.rate_limits.enabled = true;
        config.rate_limits.message = RateLimitConfig { per_second: 0.001, burst: 4 };
    }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let restart = async |delay_id: &str| {
            world.call("POST", &format!("{}/restart", one(delay_id)), None, None).await
        };
        // The scheduling is one act.
        let room = alice.create_room(json!({})).await;
        let alices = alice.say_later(&room, "later", 60_000).await;
        let room = bob.create_room(json!({})).await;
        let bobs = bob.say_later(&room, "later", 60_000).await;
        for _ in 0..3 {
            restart(&alices).await.ok();
        }
        restart(&alices).await.refused(429, "M_LIMIT_EXCEEDED");
        restart(&bobs).await.ok();
        for number in 0..4 {
            restart(&format!("guess{number}")).await.refused(404, "M_NOT_FOUND");
        }
        restart("guess").await.refused(429, "M_LIMIT_EXCEEDED");
    }

    async fn what_the_room_does_not_allow_then_is_not_sent(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let topic = state_path(&room, "m.room.topic", "", 5_000);
        bob.put(&topic, json!({ "topic": "no" })).await.refused(403, "M_FORBIDDEN");
        let powers = format!("/_matrix/client/v3/rooms/{}/state/m.room.power_levels/", escape(&room));
        let mut levels = alice.get(&powers).await.ok();
        levels["events_default"] = json!(50);

        let silenced = bob.say_later(&room, "silenced", 10_000).await;
        alice.put(&powers, levels.clone()).await.ok();
        bob.put(&send_path(&room, "x", "10000"), text("x")).await.refused(403, "M_FORBIDDEN");
        // It may be allowed again by then.
        bob.act(&silenced, "send").await.refused(403, "M_FORBIDDEN");
        assert!(bob.is_scheduled(&silenced).await);
        world.clock.advance(Duration::from_secs(10));
        assert_eq!(bob.error_of(&silenced).await, "M_FORBIDDEN");
        bob.act(&silenced, "cancel").await.ok();
        bob.act(&silenced, "send").await.refused(404, "M_NOT_FOUND");

        levels["events_default"] = json!(0);
        alice.put(&powers, levels).await.ok();
        let gone = bob.say_later(&room, "gone", 10_000).await;
        bob.leave(&room).await.ok();
        bob.put(&send_path(&room, "y", "10000"), text("y")).await.refused(403, "M_FORBIDDEN");
        world.clock.advance(Duration::from_secs(10));
        assert_eq!(bob.error_of(&gone).await, "M_FORBIDDEN");

        bob.join(&room).await.ok();
        let banned = bob.say_later(&room, "banned", 10_000).await;
        let ban = format!("/_matrix/client/v3/rooms/{}/ban", escape(&room));
        alice.post(&ban, json!({ "user_id": bob.user_id })).await.ok();
        world.clock.advance(Duration::from_secs(10));
        assert_eq!(bob.error_of(&banned).await, "M_FORBIDDEN");
        assert_eq!(alice.history(&room).await, Vec::<String>::new());
    }

    async fn redactions_and_memberships_can_wait_too(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let message = alice.say(&room, "for a moment").await;
        let body = json!({ "delay_ms": 5_000, "content": { "redacts": message } });
        let redaction = delay_id(alice.put(&own_path(&room, "m.room.redaction", "r"), body).await);
        let path = state_path(&room, "m.room.member", &bob.user_id, 5_000);
        let ban = delay_id(alice.put(&path, json!({ "membership": "ban" })).await);
        let path = state_path(&room, "m.room.member", &bob.user_id, 6_000);
        let join = delay_id(bob.put(&path, json!({ "membership": "join" })).await);
        let nobody = alice.put(&state_path(&room, "m.room.member", "nobody", 5), json!({ "membership": "ban" })).await;
        nobody.refused(400, "M_INVALID_PARAM");
        alice.put(&state_path(&room, "m.room.member", &alice.user_id, 5), json!({})).await.refused(400, "M_BAD_JSON");

        world.clock.advance(Duration::from_secs(5));
        alice.event_of(&redaction).await;
        assert_eq!(alice.event(&room, &message).await["content"], json!({}));
        let event_id = alice.event_of(&ban).await;
        let event = alice.event(&room, &event_id).await;
        assert_eq!((&event["content"]["membership"], &event["state_key"]), (&json!("ban"), &json!(bob.user_id)));
        world.clock.advance(Duration::from_secs(1));
        assert_eq!(bob.error_of(&join).await, "M_FORBIDDEN");
    }

    async fn a_user_lists_what_is_scheduled_and_what_has_ended(world, config => {
        config.delayed_events.max_scheduled = 1_000;
    }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        bob.say_later(&room, "bob's", 5_000).await;
        let sent = alice.say_later(&room, "sent", 1_000).await;
        world.clock.advance(Duration::from_secs(1));
        alice.event_of(&sent).await;
        let cancelled = alice.say_later(&room, "cancelled", 60_000).await;
        world.clock.advance(Duration::from_secs(1));
        alice.act(&cancelled, "cancel").await.ok();
        let mut expected = Vec::new();
        for number in (0..103_u64).rev() {
            expected.push(alice.say_later(&room, &format!("m{number}"), 600_000 + number).await);
        }
        expected.reverse();

        let list = format!("{PREFIX}/delayed_events");
        let first = alice.get(&list).await.ok();
        let ids = |events: &Value| -> Vec<String> {
            events.as_array().unwrap().iter().map(|event| event["delay_id"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(ids(&first["scheduled"]), expected[..100]);
        assert_eq!(first["delayed_events"], first["scheduled"]);
        assert_eq!(first["finalised"], json!([]));
        let shown = &first["scheduled"][0];
        assert_eq!((&shown["delay"], &shown["delay_ms"]), (&json!(600_000), &json!(600_000)));
        assert_eq!(shown["running_since"], shown["delayed_since_ts"]);
        let second = alice.get(&format!("{list}?from={}", first["next_batch"].as_str().unwrap())).await.ok();
        assert_eq!(ids(&second["scheduled"]), expected[100..]);
        assert!(second.get("next_batch").is_none(), "{second}");
        let finalised = second["finalised"].as_array().unwrap();
        let of = |event: &Value| event["delayed_event"]["delay_id"].as_str().unwrap().to_owned();
        let ended: Vec<_> = finalised.iter().map(of).collect();
        assert_eq!(ended, [cancelled.as_str(), sent.as_str()], "the latest first");
        let outcomes: Vec<_> = finalised.iter().map(|event| (&event["outcome"], &event["reason"])).collect();
        assert_eq!(outcomes, [(&json!("cancel"), &json!("action")), (&json!("send"), &json!("delay"))]);
        assert!(finalised[1]["event_id"].is_string() && finalised[0].get("event_id").is_none(), "{second}");

        let only = alice.get(&format!("{list}?status=finalised")).await.ok();
        assert_eq!(only["finalised"], second["finalised"]);
        assert!(only.get("scheduled").is_none() && only.get("delayed_events").is_none(), "{only}");
        let asked = alice.get(&format!("{list}?delay_id={sent}&delay_id={}", expected[7])).await.ok();
        assert_eq!(ids(&asked["scheduled"]), expected[7..8]);
        assert_eq!(asked["finalised"], json!([finalised[1]]));
        assert_eq!(bob.get(&format!("{list}?delay_id={sent}")).await.ok()["finalised"], json!([]));
        alice.get(&format!("{list}?status=lost")).await.refused(400, "M_INVALID_PARAM");
        alice.get(&format!("{list}?from=elsewhere")).await.refused(400, "M_INVALID_PARAM");
        world.call("GET", &list, None, None).await.refused(401, "M_MISSING_TOKEN");
    }

    async fn what_was_scheduled_is_sent_after_a_restart_and_once(world) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        let overdue = alice.say_later(&room, "overdue", 1_000).await;
        let first = alice.say_later(&room, "first", 20_000).await;
        let second = alice.say_later(&room, "second", 30_000).await;
        let cancelled = alice.say_later(&room, "cancelled", 25_000).await;
        alice.act(&cancelled, "cancel").await.ok();
        world.clock.advance(Duration::from_secs(1));
        let world = world.restarted().await;
        let alice = alice.at(&world);
        alice.event_of(&overdue).await;
        assert!(alice.is_scheduled(&first).await);
        world.clock.advance(Duration::from_secs(30));
        alice.event_of(&first).await;
        alice.event_of(&second).await;
        let world = world.restarted().await;
        let alice = alice.at(&world);
        alice.event_of(&second).await;
        assert_eq!(alice.history(&room).await, ["overdue", "first", "second"]);
    }

    /// What many nodes are asked for at once is sent once.
    async fn everything_is_sent_once_by_however_many_nodes(world) {
        let alice = world.user("alice").await;
        let mut rooms = Vec::new();
        for _ in 0..4 {
            rooms.push(alice.create_room(json!({})).await);
        }
        let mut scheduled = Vec::new();
        for number in 0..10_u64 {
            for room in &rooms {
                scheduled.push(alice.say_later(room, &format!("m{number}"), 10_000 + number).await);
            }
        }
        world.clock.advance(Duration::from_secs(11));
        // Some of them are asked for beside that, again and again.
        let sends = scheduled.iter().step_by(3).map(|delay_id| alice.act(delay_id, "send"));
        for sent in futures_util::future::join_all(sends).await {
            sent.ok();
        }
        let mut events = HashSet::new();
        for delay_id in &scheduled {
            assert!(events.insert(alice.event_of(delay_id).await), "two became one");
        }
        for room in &rooms {
            let mut history = alice.history(room).await;
            history.sort();
            assert_eq!(history, (0..10).map(|number| format!("m{number}")).collect::<Vec<_>>());
        }
    }

    async fn when_a_node_goes_another_takes_the_duty(world) {
        let mut world = world;
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        let mut scheduled = Vec::new();
        for number in 0..3_u64 {
            scheduled.push(alice.say_later(&room, &format!("m{number}"), 10_000 * (number + 1)).await);
        }
        for (number, delay_id) in scheduled.iter().enumerate() {
            if world.nodes.len() > 1 {
                world.remove_node(number % world.nodes.len()).await;
            }
            world.clock.advance(Duration::from_secs(10));
            alice.event_of(delay_id).await;
        }
        assert_eq!(alice.history(&room).await, ["m0", "m1", "m2"]);
    }

    async fn whoever_is_deactivated_says_nothing_any_more(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let from_beyond = bob.say_later(&room, "from beyond", 5_000).await;
        let control = alice.say_later(&room, "control", 6_000).await;
        bob.post("/_matrix/client/v3/account/deactivate", json!({ "auth": bob.password() })).await.ok();
        let path = format!("{}/send", one(&from_beyond));
        world.call("POST", &path, None, None).await.refused(404, "M_NOT_FOUND");
        world.clock.advance(Duration::from_secs(6));
        alice.event_of(&control).await;
        assert_eq!(alice.history(&room).await, ["control"]);
    }

    /// Of a call, whoever is in it hears at once that the session is over; of a message only if it went by itself.
    async fn a_session_that_ends_says_goodbye_and_nothing_else(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let levels = json!({ "events": { MEMBER: 0 } });
        let preset = json!({ "preset": "public_chat", "power_level_content_override": levels });
        let room = alice.create_room(preset).await;
        bob.join(&room).await.ok();
        for (end, is_thrown_out) in [("logout", false), ("elsewhere", true), ("logout/all", true)] {
            let session = world.login(&bob).await;
            let joined = json!({ "application": "m.call", "call_id": "" });
            session.put(&at(&room, &format!("/state/{MEMBER}/{}", escape(&bob.user_id))), joined).await.ok();
            let call = state_path(&room, MEMBER, &bob.user_id, 60_000);
            let goodbye = delay_id(session.put(&call, json!({})).await);
            // Nobody is to be brought back into a call.
            let hello = delay_id(session.put(&call, json!({ "application": "m.call", "call_id": "2" })).await);
            let words = session.say_later(&room, &end.replace('/', "-"), 60_000).await;
            match end {
                "elsewhere" => {
                    let device = session.get("/_matrix/client/v3/account/whoami").await.ok();
                    let path = format!("/_matrix/client/v3/devices/{}", device["device_id"].as_str().unwrap());
                    let (owner, auth) = (world.login(&bob).await, json!({ "auth": bob.password() }));
                    world.call("DELETE", &path, Some(&owner.token), Some(auth)).await.ok();
                }
                end => drop(session.post(&format!("/_matrix/client/v3/{end}"), json!({})).await.ok()),
            }
            let owner = world.login(&bob).await;
            // The clock stands still.
            let event_id = owner.event_of(&goodbye).await;
            assert_eq!(alice.event(&room, &event_id).await["content"], json!({}), "{end}");
            let restart = world.call("POST", &format!("{}/restart", one(&goodbye)), None, None).await;
            restart.refused(404, "M_NOT_FOUND");
            for message in [&hello, &words] {
                if is_thrown_out {
                    assert_eq!(owner.error_of(message).await, "M_UNKNOWN", "{end}");
                } else {
                    assert!(owner.is_scheduled(message).await, "{end}");
                    owner.act(message, "cancel").await.ok();
                }
            }
        }
        assert_eq!(alice.history(&room).await, [""; 0]);
    }

    async fn nothing_is_sent_for_whoever_is_locked_or_suspended_and_they_are_told_which(world) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        let (hushed, spoken) = (alice.say_later(&room, "hushed", 5_000).await, alice.say_later(&room, "spoken", 6_000).await);
        let operator = world.administration().await;
        let send = format!("{}/send", one(&hushed));
        operator.set_locked("alice", true).await.unwrap();
        world.call("POST", &send, None, None).await.refused(401, "M_USER_LOCKED");
        operator.set_locked("alice", false).await.unwrap();
        operator.set_suspended("alice", true).await.unwrap();
        world.call("POST", &send, None, None).await.refused(403, "M_USER_SUSPENDED");
        world.clock.advance(Duration::from_secs(5));
        assert_eq!(alice.error_of(&hushed).await, "M_USER_SUSPENDED");
        operator.set_suspended("alice", false).await.unwrap();
        world.clock.advance(Duration::from_secs(1));
        alice.event_of(&spoken).await;
        assert_eq!(alice.history(&room).await, ["spoken"]);
    }
}
