//! `/sync` tells everything: state that a timeline hides, rooms that were left and forgotten, invitations; and it says
//! what it leaves out.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#syncing>

use serde_json::{Value, json};

use crate::{
    on_both,
    sync::{moderate, of},
    world::{Client, at, escape, next, texts},
};

on_both! {
    /// What is hidden from a timeline is still state.
    async fn who_comes_back_learns_what_has_changed(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        for visibility in ["joined", "invited", "shared"] {
            let options = json!({ "preset": "private_chat", "invite": [bob.user_id], "initial_state": [
                { "type": "m.room.history_visibility", "content": { "history_visibility": visibility } }] });
            let room = alice.create_room(options).await;
            bob.join(&room).await.ok();
            let since = next(&bob.sync(None).await);
            moderate(&alice, &room, "kick", &bob).await;
            let encryption = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
            alice.put(&at(&room, "/state/m.room.encryption/"), encryption).await.ok();
            alice.invite(&room, &bob.user_id).await.ok();
            bob.join(&room).await.ok();
            for (parameter, key) in [
                ("", "state"),
                ("&use_state_after=true", "state_after"),
                ("&org.matrix.msc4222.use_state_after=true", "org.matrix.msc4222.state_after"),
            ] {
                let sync = bob.sync_with(Some(&since), parameter).await;
                let joined = &sync["rooms"]["join"][&room];
                let told = of(joined, key).iter().chain(of(joined, "timeline"));
                assert!(told.into_iter().any(|e| e["type"] == "m.room.encryption"), "{visibility} {key} {joined}");
                assert_eq!(joined["timeline"]["limited"], false, "{joined}");
                let states = joined.as_object().unwrap().keys().filter(|key| key.contains("state"));
                assert_eq!(states.collect::<Vec<_>>(), [key]);
            }
        }
    }

    /// Bob's topic is told and Alice's, which replaced it, is not wanted in the timeline: nobody may go by Bob's.
    async fn a_timeline_does_not_contradict_the_state(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let open = json!({ "preset": "public_chat", "power_level_content_override": { "state_default": 0, "events": {} } });
        let room = alice.create_room(open).await;
        bob.join(&room).await.ok();
        let since = next(&bob.sync(None).await);
        bob.say(&room, "one").await;
        bob.put(&at(&room, "/state/m.room.topic/"), json!({ "topic": "bob's" })).await.ok();
        alice.put(&at(&room, "/state/m.room.topic/"), json!({ "topic": "alice's" })).await.ok();
        bob.say(&room, "two").await;
        let filter = escape(&json!({ "room": { "timeline": { "not_senders": [alice.user_id] } } }).to_string());
        let joined = bob.sync_with(Some(&since), &format!("&filter={filter}")).await["rooms"]["join"][&room].clone();
        assert_eq!(of(&joined, "timeline").len(), 1, "{joined}");
        assert_eq!(joined["timeline"]["limited"], true);
        assert_eq!(of(&joined, "state")[0]["content"]["topic"], "alice's", "{joined}");
        let back = format!("/messages?dir=b&from={}&to={since}", joined["timeline"]["prev_batch"].as_str().unwrap());
        let page = bob.get(&at(&room, &back)).await.ok();
        assert_eq!(page["chunk"].as_array().unwrap().len(), 3, "{page}");
        let joined = bob.sync_with(Some(&since), &format!("&filter={filter}&use_state_after=true")).await;
        let joined = &joined["rooms"]["join"][&room];
        assert_eq!((of(joined, "timeline").len(), &joined["timeline"]["limited"]), (3, &json!(false)), "{joined}");
        assert_eq!(of(joined, "state_after")[0]["content"]["topic"], "alice's", "{joined}");
    }

    async fn a_timeline_is_limited_where_something_is_left_out(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let before = next(&bob.sync(None).await);
        alice.say(&room, "one").await;
        alice.put(&at(&room, "/state/m.room.topic/"), json!({ "topic": "between" })).await.ok();
        let timeline = async |user: &Client, since: Option<&str>, limit: usize, types: &Value| {
            let filter = json!({ "room": { "timeline": { "limit": limit, "types": types } } }).to_string();
            let sync = user.sync_with(since, &format!("&filter={}", escape(&filter))).await;
            let timeline = sync["rooms"]["join"][&room]["timeline"].clone();
            (timeline["events"].as_array().unwrap().len(), timeline["limited"].as_bool().unwrap())
        };
        let messages = json!(["m.room.message"]);
        assert_eq!(timeline(&alice, None, 1, &messages).await, (1, false));
        assert_eq!(timeline(&alice, None, 0, &messages).await, (0, true));
        assert_eq!(timeline(&alice, None, 5, &json!(["org.example"])).await, (0, false));
        assert_eq!(timeline(&alice, None, 0, &json!([])).await, (0, false));
        alice.say(&room, "two").await;
        assert_eq!(timeline(&alice, None, 1, &messages).await, (1, true));
        assert_eq!(timeline(&alice, None, 2, &messages).await, (2, false));
        // A room that is new: told from its beginning, with its end alone, and with a filter that may hide the rest.
        bob.join(&room).await.ok();
        let everything = json!(["*"]);
        let (all, limited) = timeline(&bob, Some(&before), 50, &everything).await;
        assert!(all > 8 && !limited, "{all}");
        assert_eq!(timeline(&bob, Some(&before), all, &everything).await, (all, false));
        assert_eq!(timeline(&bob, Some(&before), all - 1, &everything).await, (all - 1, true));
        assert_eq!(timeline(&bob, Some(&before), 50, &messages).await, (2, true));
        assert_eq!(timeline(&bob, None, 50, &messages).await, (2, false));
    }

    async fn every_device_hears_of_a_room_that_was_left_and_forgotten(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let left = |sync: &Value, room: &str| sync["rooms"]["leave"].get(room).is_some();
        for how in ["leave", "ban", "decline", "invited and declined"] {
            let room = alice.create_room(json!({ "preset": "public_chat" })).await;
            match how {
                "leave" | "ban" => drop(bob.join(&room).await.ok()),
                "decline" => drop(alice.invite(&room, &bob.user_id).await.ok()),
                _ => {}
            }
            let since = next(&bob.sync(None).await);
            alice.say(&room, "not for those who forget").await;
            match how {
                "ban" => moderate(&alice, &room, "ban", &bob).await,
                "invited and declined" => {
                    alice.invite(&room, &bob.user_id).await.ok();
                    bob.leave(&room).await.ok();
                }
                _ => drop(bob.leave(&room).await.ok()),
            }
            bob.post(&at(&room, "/forget"), json!({})).await.ok();
            let sync = bob.sync(Some(&since)).await;
            assert!(left(&sync, &room), "{how}: {sync}");
            assert_eq!(of(&sync["rooms"]["leave"][&room], "timeline").len(), 1, "{how}: {sync}");
            let later = bob.sync(Some(&next(&sync))).await;
            assert!(!left(&later, &room), "{how}: {later}");
            // Of what comes then they hear nothing, until they are invited again.
            if how == "leave" {
                moderate(&alice, &room, "ban", &bob).await;
                moderate(&alice, &room, "unban", &bob).await;
                let later = bob.sync(Some(&next(&later))).await;
                assert!(!left(&later, &room), "{later}");
                assert!(left(&bob.sync(Some(&since)).await, &room), "who did not know hears that still");
            }
            let filter = escape(r#"{"room":{"include_leave":true}}"#);
            assert!(!left(&bob.sync_with(None, &format!("&filter={filter}")).await, &room));
        }
    }

    async fn an_invitation_that_replaces_another_is_told(world) {
        let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
        let ignore = async |users: Value| {
            let user = escape(&bob.user_id);
            let path = format!("/_matrix/client/v3/user/{user}/account_data/m.ignored_user_list");
            bob.put(&path, json!({ "ignored_users": users })).await.ok();
        };
        for ignored in [json!({}), json!({ &alice.user_id: {} })] {
            ignore(ignored.clone()).await;
            let options = json!({ "preset": "public_chat", "invite": [bob.user_id],
                "power_level_content_override": { "invite": 0 } });
            let room = alice.create_room(options).await;
            carol.join(&room).await.ok();
            let since = next(&bob.sync(None).await);
            moderate(&alice, &room, "kick", &bob).await;
            carol.invite(&room, &bob.user_id).await.ok();
            let sync = bob.sync(Some(&since)).await;
            let invited = sync["rooms"]["invite"][&room]["invite_state"]["events"].as_array().cloned().unwrap_or_default();
            let own = invited.iter().find(|event| event["state_key"] == *bob.user_id);
            assert_eq!(own.map(|own| &own["sender"]), Some(&json!(carol.user_id)), "{ignored}: {sync}");
            assert!(bob.sync(Some(&next(&sync))).await.get("rooms").is_none(), "it is told once");
        }
    }

    /// Clients show that they are catching up until the second answer, which comes whether there is news or not.
    async fn who_is_catching_up_does_not_wait(world) {
        let alice = world.user("alice").await;
        let sync = async |more: &str| {
            // Longer than this client has patience for an answer.
            alice.get(&format!("/_matrix/client/v3/sync?{more}")).await.ok()
        };
        let first = sync("timeout=120000").await;
        let second = sync(&format!("timeout=120000&since={}", next(&first))).await;
        // The token is one like any other.
        let room = alice.create_room(json!({})).await;
        let page = alice.get(&at(&room, &format!("/messages?dir=b&from={}", next(&first)))).await.ok();
        assert_eq!(page["chunk"], json!([]), "{page}");
        assert!(sync(&format!("timeout=120000&since={}", next(&second))).await["rooms"]["join"][&room].is_object());
        // Whoever comes back asks without patience first.
        let back = sync(&format!("timeout=0&since={}", next(&second))).await;
        let again = sync(&format!("timeout=120000&since={}", next(&back))).await;
        assert!(!next(&again).ends_with('~') && next(&back).ends_with('~'), "{back} {again}");
        // From now on it waits for news.
        let say = async {
            world.until_a_sync_waits().await;
            alice.say(&room, "news").await;
        };
        let since = next(&again);
        let waiting = async {
            let mut since = since.clone();
            loop {
                let sync = sync(&format!("timeout=50000&since={since}")).await;
                if !texts(&sync, &room).is_empty() {
                    return sync;
                }
                since = next(&sync);
            }
        };
        let (news, ()) = tokio::join!(waiting, say);
        assert_eq!(texts(&news, &room), ["news"]);
        // A client that does not want to be seen has nobody to show anything to.
        assert!(!next(&alice.sync(None).await).ends_with('~'));
    }

    /// <https://github.com/matrix-org/matrix-spec-proposals/pull/3874>
    async fn filters_look_at_relations(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let since = next(&alice.sync(None).await);
        let root = alice.say(&room, "root").await;
        for (user, kind) in [(&alice, "m.thread"), (&bob, "m.reference")] {
            let content = json!({ "msgtype": "m.text", "body": kind,
                "m.relates_to": { "rel_type": kind, "event_id": root } });
            user.put(&at(&room, &format!("/send/m.room.message/{kind}")), content).await.ok();
        }
        for (filter, expected) in [
            (json!({ "org.matrix.msc3874.rel_types": ["m.thread"] }), vec!["m.thread"]),
            (json!({ "org.matrix.msc3874.rel_types": ["m.thread", "m.reference"] }), vec!["m.thread", "m.reference"]),
            (json!({ "org.matrix.msc3874.not_rel_types": ["m.thread"] }), vec!["root", "m.reference"]),
            (json!({ "related_by_rel_types": ["m.thread"] }), vec!["root"]),
            (json!({ "related_by_rel_types": ["m.annotation"] }), vec![]),
            (json!({ "related_by_senders": [bob.user_id] }), vec!["root"]),
            (json!({ "related_by_senders": [bob.user_id], "related_by_rel_types": ["m.thread"] }), vec![]),
        ] {
            let path = format!("/messages?dir=f&from={since}&filter={}", escape(&filter.to_string()));
            let page = alice.get(&at(&room, &path)).await.ok();
            let bodies = page["chunk"].as_array().unwrap().iter().map(|event| event["content"]["body"].as_str().unwrap());
            assert_eq!(bodies.collect::<Vec<_>>(), expected, "{filter}");
            let whole = json!({ "room": { "timeline": filter } });
            let path = format!("/_matrix/client/v3/user/{}/filter", escape(&alice.user_id));
            let stored = alice.post(&path, whole.clone()).await.ok()["filter_id"].as_str().unwrap().to_owned();
            assert_eq!(alice.get(&format!("{path}/{stored}")).await.ok(), whole);
            for filter in [whole.to_string(), stored] {
                let sync = alice.sync_with(Some(&since), &format!("&filter={}", escape(&filter))).await;
                assert_eq!(texts(&sync, &room), expected, "{filter}");
            }
        }
    }
}
