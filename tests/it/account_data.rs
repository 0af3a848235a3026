//! Account data, tags, ignored users and the push rules that everybody begins with.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#client-config>

use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, escape, next, texts},
};

impl Client {
    fn own(&self, rest: &str) -> String {
        format!("/_matrix/client/v3/user/{}/{rest}", escape(&self.user_id))
    }
}

fn senders_and_types(events: &Value) -> Vec<(&str, &str)> {
    events.as_array().unwrap().iter().map(|e| (e["sender"].as_str().unwrap(), e["type"].as_str().unwrap())).collect()
}

fn global(sync: &Value, kind: &str) -> Option<Value> {
    let events = sync["account_data"]["events"].as_array()?;
    events.iter().find(|e| e["type"] == kind).map(|e| e["content"].clone())
}

on_both! {
    async fn account_data_is_kept_and_synced_to_its_owner(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({})).await;
        let since = next(&alice.sync(None).await);
        alice.put(&alice.own("account_data/org.example.a"), json!({ "n": 1 })).await.ok();
        let sync = alice.sync(Some(&since)).await;
        assert_eq!(global(&sync, "org.example.a"), Some(json!({ "n": 1 })));
        let of_room = alice.own(&format!("rooms/{}/account_data/org.example.a", escape(&room)));
        alice.get(&of_room).await.refused(404, "M_NOT_FOUND");
        alice.put(&of_room, json!({ "n": 2 })).await.ok();
        let sync = alice.sync(Some(&next(&sync))).await;
        let event = json!({ "type": "org.example.a", "content": { "n": 2 } });
        assert_eq!(sync["rooms"]["join"][&room]["account_data"]["events"], json!([event]));
        assert_eq!(alice.get(&of_room).await.ok(), json!({ "n": 2 }));

        bob.get(&alice.own("account_data/org.example.a")).await.refused(403, "M_FORBIDDEN");
        bob.put(&alice.own("account_data/org.example.a"), json!({})).await.refused(403, "M_FORBIDDEN");
        let world = world.restarted().await;
        let alice = alice.at(&world);
        assert_eq!(alice.get(&alice.own("account_data/org.example.a")).await.ok(), json!({ "n": 1 }));
    }

    async fn what_the_server_manages_and_what_is_no_object_is_refused(world) {
        let alice = world.user("alice").await;
        let room = escape("!room:localhost");
        for kind in ["m.fully_read", "m.push_rules"] {
            for path in [format!("account_data/{kind}"), format!("rooms/{room}/account_data/{kind}")] {
                alice.put(&alice.own(&path), json!({})).await.refused(405, "M_BAD_JSON");
            }
        }
        let path = alice.own("account_data/a");
        for body in [json!([]), json!(1), json!("x")] {
            alice.put(&path, body).await.refused(400, "M_BAD_JSON");
        }
        world.call_raw("PUT", &path, Some(&alice.token), "{").await.refused(400, "M_NOT_JSON");
        alice.put(&alice.own("account_data/a%00b"), json!({})).await.refused(400, "M_INVALID_PARAM");
        alice.put(&alice.own(&format!("account_data/{}", "a".repeat(300))), json!({})).await.refused(400, "M_INVALID_PARAM");
        alice.get(&alice.own("rooms/nowhere/account_data/a")).await.refused(400, "M_INVALID_PARAM");
        alice.put(&path, json!({ "text": "NUL is \u{0} here" })).await.ok();
        assert_eq!(alice.get(&path).await.ok(), json!({ "text": "NUL is \u{0} here" }));
    }

    async fn tags_are_set_one_by_one(world) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        let tags = alice.own(&format!("rooms/{}/tags", escape(&room)));
        assert_eq!(alice.get(&tags).await.ok(), json!({ "tags": {} }));
        alice.put(&format!("{tags}/m.favourite"), json!({ "order": 0.25 })).await.ok();
        alice.put(&format!("{tags}/u.work"), json!({})).await.ok();
        assert_eq!(alice.get(&tags).await.ok(), json!({ "tags": { "m.favourite": { "order": 0.25 }, "u.work": {} } }));
        alice.delete(&format!("{tags}/u.work")).await.ok();
        let sync = alice.sync(None).await;
        let event = json!({ "type": "m.tag", "content": { "tags": { "m.favourite": { "order": 0.25 } } } });
        assert_eq!(sync["rooms"]["join"][&room]["account_data"]["events"], json!([event]));
        alice.put(&format!("{tags}/m.favourite"), json!({ "order": 2 })).await.refused(400, "M_INVALID_PARAM");
        alice.put(&format!("{tags}/m.favourite"), json!({ "order": "first" })).await.refused(400, "M_BAD_JSON");
    }

    async fn nobody_ignores_themselves(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({})).await;
        let list = json!({ "ignored_users": { &alice.user_id: {}, &bob.user_id: {} } });
        let path = alice.own("account_data/m.ignored_user_list");
        alice.put(&path, list.clone()).await.refused(400, "M_INVALID_PARAM");
        alice.get(&path).await.refused(404, "M_NOT_FOUND");
        // Anything else of that name is the client's own business.
        alice.put(&alice.own(&format!("rooms/{}/account_data/m.ignored_user_list", escape(&room))), list).await.ok();
        let since = next(&alice.sync(None).await);
        alice.say(&room, "mine").await;
        assert_eq!(texts(&alice.sync(Some(&since)).await, &room), ["mine"]);
    }

    /// <https://github.com/matrix-org/matrix-spec-proposals/pull/3391>
    async fn what_was_deleted_is_told_to_whoever_knew_it(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({})).await;
        let kind = "org.example.test";
        let unstable = "/_matrix/client/unstable/org.matrix.msc3391";
        let own = |rest: &str| format!("{unstable}/user/{}{rest}/account_data/{kind}", escape(&alice.user_id));
        let of_room = format!("/rooms/{}", escape(&room));
        let stable = alice.own(&format!("account_data/{kind}"));
        let stable_of_room = alice.own(&format!("rooms/{}/account_data/{kind}", escape(&room)));
        for (path, delete, is_global) in [(&stable, own(""), true), (&stable_of_room, own(&of_room), false)] {
            let told = |sync: &Value| {
                let of_room = &sync["rooms"]["join"][&room]["account_data"]["events"];
                let events = if is_global { &sync["account_data"]["events"] } else { of_room };
                let events = events.as_array().cloned().unwrap_or_default();
                events.iter().find(|event| event["type"] == kind).map(|event| event["content"].clone())
            };
            for by_put in [false, true] {
                alice.put(path, json!({ "a": 1 })).await.ok();
                let before = alice.sync(None).await;
                assert_eq!(told(&before), Some(json!({ "a": 1 })));
                if by_put {
                    alice.put(path, json!({})).await.ok();
                } else {
                    assert_eq!(alice.delete(&delete).await.ok(), json!({}));
                }
                alice.get(path).await.refused(404, "M_NOT_FOUND");
                assert_eq!(told(&alice.sync(Some(&next(&before))).await), Some(json!({})));
                let after = alice.sync(None).await;
                assert_eq!(told(&after), None);
                let initial = alice.get("/_matrix/client/v3/initialSync").await.ok();
                assert!(!initial.to_string().contains(kind), "{initial}");
                // What is not there any more is not deleted again.
                alice.delete(&delete).await.ok();
                assert_eq!(told(&alice.sync(Some(&next(&after))).await), None);
            }
        }
        bob.delete(&own("")).await.refused(403, "M_FORBIDDEN");
        for managed in ["m.push_rules", "m.fully_read"] {
            let path = own("").replace(kind, managed);
            assert_eq!(alice.delete(&path).await.status, 405, "{managed}");
        }
        let list = json!({ "ignored_users": { &bob.user_id: {} } });
        let ignored = own("").replace(kind, "m.ignored_user_list");
        alice.put(&alice.own("account_data/m.ignored_user_list"), list).await.ok();
        alice.delete(&ignored).await.ok();
        let public = bob.create_room(json!({ "preset": "public_chat" })).await;
        alice.join(&public).await.ok();
        let since = next(&alice.sync(None).await);
        bob.say(&public, "heard again").await;
        assert_eq!(texts(&alice.sync(Some(&since)).await, &public), ["heard again"]);
        let versions = world.call("GET", "/_matrix/client/versions", None, None).await.ok();
        assert_eq!(versions["unstable_features"]["org.matrix.msc3391"], true);
    }

    async fn who_is_ignored_is_not_heard(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let list = json!({ "ignored_users": { &bob.user_id: {} } });
        alice.put(&alice.own("account_data/m.ignored_user_list"), list).await.ok();
        let since = next(&alice.sync(None).await);
        bob.say(&room, "listen").await;
        alice.say(&room, "to me").await;
        assert_eq!(texts(&alice.sync(Some(&since)).await, &room), ["to me"]);

        // Nor in pages and around an event, while what they do to the room's state is told.
        let path = format!("/_matrix/client/v3/rooms/{}", escape(&room));
        let page = alice.get(&format!("{path}/messages?dir=b&limit=2")).await.ok();
        assert_eq!(senders_and_types(&page["chunk"]), [(&*alice.user_id, "m.room.message"), (&*bob.user_id, "m.room.member")]);
        let mine = page["chunk"][0]["event_id"].as_str().unwrap();
        let around = alice.get(&format!("{path}/context/{mine}?limit=2")).await.ok();
        assert_eq!(senders_and_types(&around["events_before"]), [(&*bob.user_id, "m.room.member")]);
    }

    async fn what_nobody_could_read_again_is_not_kept(world) {
        let alice = world.user("alice").await;
        let path = alice.own("account_data/org.example.odd");
        let token = Some(alice.token.as_str());
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(300), "]".repeat(300));
        for body in [deep.as_str(), r#"{"a":1e400}"#, r#"{"a":"\ud800"}"#] {
            world.call_raw("PUT", &path, token, body).await.refused(400, "M_BAD_JSON");
        }
        world.call_raw("PUT", &path, token, r#"{"a":0.25}"#).await.ok();
        assert_eq!(global(&alice.sync(None).await, "org.example.odd"), Some(json!({ "a": 0.25 })));
    }

    async fn the_first_sync_and_the_endpoint_have_the_default_push_rules(world) {
        let alice = world.user("alice").await;
        let rules = alice.get("/_matrix/client/v3/pushrules/").await.ok();
        assert!(rules["global"]["underride"].as_array().unwrap().iter().any(|rule| rule["rule_id"] == ".m.rule.message"));
        assert_eq!(alice.get("/_matrix/client/v3/pushrules/global/").await.ok(), rules["global"]);
        assert_eq!(alice.get(&alice.own("account_data/m.push_rules")).await.ok(), rules);
        assert_eq!(global(&alice.sync(None).await, "m.push_rules"), Some(rules));
    }
}
