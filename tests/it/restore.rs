//! A restored backup: what was said after it is gone, other things come to stand in its place, and clients whose tokens
//! are of what is gone go on by themselves.

use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, World, escape, next, texts},
};

fn path(room: &str, rest: &str) -> String {
    format!("/_matrix/client/v3/rooms/{}/{rest}", escape(room))
}

fn is_limited(sync: &Value, room: &str) -> bool {
    sync["rooms"]["join"][room]["timeline"]["limited"] == true
}

async fn say_all(client: &Client, room: &str, what: &str, count: usize) -> Vec<String> {
    let said: Vec<String> = (0..count).map(|number| format!("{what} {number}")).collect();
    for text in &said {
        client.say(room, text).await;
    }
    said
}

/// The texts of a page of messages.
fn said(page: &Value) -> Vec<&str> {
    page["chunk"].as_array().unwrap().iter().filter_map(|event| event["content"]["body"].as_str()).collect()
}

/// Alice and Bob in a room whose backup was restored, at the address of the new server, with a token from before the
/// backup and one from what is gone.
struct Restored {
    /// Runs for as long as it is here.
    world: World,
    alice: Client,
    bob: Client,
    room: String,
    kept: String,
    lost: Value,
}

/// What is lost is `gone`: it happens between the backup and its restoration.
async fn restored(world: World, gone: impl AsyncFnOnce(&Client, &Client, &str)) -> Restored {
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await.ok();
    alice.say(&room, "kept").await;
    let kept = next(&bob.sync(None).await);
    let (world, backup) = world.backed_up().await;
    let (alice, bob) = (alice.at(&world), bob.at(&world));
    say_all(&alice, &room, "lost", 5).await;
    gone(&alice, &bob, &room).await;
    let lost = bob.sync(Some(&kept)).await;
    assert!(texts(&lost, &room).iter().any(|text| text == "lost 4"));
    let world = world.restored(&backup).await;
    let (alice, bob) = (alice.at(&world), bob.at(&world));
    Restored { world, alice, bob, room, kept, lost }
}

on_both! {
    async fn a_client_that_knows_what_is_gone_is_told_what_is_there(world) {
        let Restored { world: _world, alice, bob, room, lost, .. } = Box::pin(restored(world, async |_, _, _| ())).await;
        let since = next(&lost);
        // At once, though it would wait: both while the log is shorter than it was, and when it is longer.
        let sync = bob.wait(&since).await;
        assert!(is_limited(&sync, &room));
        assert_eq!(texts(&sync, &room), ["kept"]);
        let news = say_all(&alice, &room, "new", 8).await;
        let sync = bob.wait(&since).await;
        assert!(is_limited(&sync, &room), "though the token is no longer beyond the end");
        let told = texts(&sync, &room);
        assert!(told.ends_with(&news), "{told:?}");
        let state = sync["rooms"]["join"][&room]["state"]["events"].as_array().unwrap();
        assert!(sync["account_data"]["events"].as_array().is_some_and(|events| !events.is_empty()));
        assert!(state.iter().all(|event| event.get("state_key").is_some()));

        // From then on it is a client like any other.
        alice.say(&room, "go on").await;
        let sync = bob.sync(Some(&next(&sync))).await;
        assert_eq!((texts(&sync, &room), is_limited(&sync, &room)), (vec!["go on".to_owned()], false));
    }

    /// Devices of which it was told may be gone, and those that came since it was told nothing are others.
    async fn a_client_that_knows_what_is_gone_asks_for_all_devices_again(world) {
        let Restored { world: _world, alice, bob, room, lost, .. } = Box::pin(restored(world, async |_, _, _| ())).await;
        let sync = bob.sync(Some(&next(&lost))).await;
        let mut everybody = [&alice.user_id, &bob.user_id];
        everybody.sort();
        assert_eq!(sync["device_lists"], json!({ "changed": everybody, "left": [] }));
        alice.say(&room, "go on").await;
        assert_eq!(bob.sync(Some(&next(&sync))).await.get("device_lists"), None);
        assert_eq!(bob.sync(None).await.get("device_lists"), None, "whoever begins knows nothing");
    }

    async fn what_was_given_out_before_the_backup_holds(world) {
        let Restored { world: _world, alice, bob, room, kept, .. } = Box::pin(restored(world, async |_, _, _| ())).await;
        let news = say_all(&alice, &room, "new", 3).await;
        let sync = bob.sync(Some(&kept)).await;
        assert_eq!((texts(&sync, &room), is_limited(&sync, &room)), (news.clone(), false));
        // As tokens were before they said which log they are of.
        let (plain, mark) = kept.split_once('_').unwrap();
        assert_eq!(mark.len(), 6);
        let sync = bob.sync(Some(plain)).await;
        assert_eq!((texts(&sync, &room), is_limited(&sync, &room)), (news.clone(), false));
        let page = bob.get(&path(&room, &format!("messages?dir=f&from={kept}"))).await.ok();
        assert_eq!(said(&page), news);
        for broken in [format!("{plain}_"), format!("{kept}x"), format!("{plain}_{{}}|'\"")] {
            let path = format!("/_matrix/client/v3/sync?since={}", escape(&broken));
            bob.get(&path).await.refused(400, "M_INVALID_PARAM");
        }
    }

    async fn account_data_that_is_deleted_again_is_told_as_deleted(world) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        let own = format!("/_matrix/client/v3/user/{}", escape(&alice.user_id));
        let of_room = format!("{own}/rooms/{}", escape(&room));
        let paths = [own, of_room].map(|path| format!("{path}/account_data/org.example.test"));
        for path in &paths {
            alice.put(path, json!({ "n": 1 })).await.ok();
            alice.put(path, json!({})).await.ok();
        }
        let (world, backup) = world.backed_up().await;
        let alice = alice.at(&world);
        for path in &paths {
            alice.put(path, json!({ "n": 2 })).await.ok();
        }
        let since = next(&alice.sync(None).await);
        let world = world.restored(&backup).await;
        let alice = alice.at(&world);
        let sync = alice.sync(Some(&since)).await;
        let deleted = json!({ "type": "org.example.test", "content": {} });
        for events in [&sync["account_data"]["events"], &sync["rooms"]["join"][&room]["account_data"]["events"]] {
            assert!(events.as_array().is_some_and(|events| events.contains(&deleted)), "{sync}");
        }
        assert!(!alice.sync(None).await.to_string().contains("org.example.test"), "who knows nothing need not forget");
    }

    async fn rooms_that_are_left_again_are_told_as_left(world) {
        let (carol, dave) = (world.user("carol").await, world.user("dave").await);
        let kitchen = carol.create_room(json!({ "preset": "public_chat" })).await;
        let forgotten = carol.create_room(json!({ "preset": "public_chat" })).await;
        let invited = carol.create_room(json!({ "preset": "private_chat", "invite": [dave.user_id] })).await;
        for room in [&kitchen, &forgotten] {
            dave.join(room).await.ok();
            dave.leave(room).await.ok();
        }
        dave.post(&path(&forgotten, "forget"), json!({})).await.ok();
        let (world, backup) = world.backed_up().await;
        let dave = dave.at(&world);
        for room in [&kitchen, &invited] {
            dave.join(room).await.ok();
        }
        let garden = dave.create_room(json!({})).await;
        let since = next(&dave.sync(None).await);
        let world = world.restored(&backup).await;
        let sync = dave.clone().at(&world).sync(Some(&since)).await;
        let rooms = |section: &str| {
            let rooms = sync["rooms"][section].as_object();
            rooms.map_or_else(Vec::new, |rooms| rooms.keys().cloned().collect::<Vec<_>>())
        };
        assert_eq!(rooms("leave"), [kitchen], "it is not the client's any more");
        assert_eq!(rooms("invite"), [invited]);
        assert!(rooms("join").is_empty(), "nobody knows of {garden}");
    }

    async fn whoever_pages_with_a_token_of_what_is_gone_misses_nothing(world) {
        let mut root = None;
        let Restored { world: _world, alice, bob, room, kept, lost } = Box::pin(restored(world, async |alice, _, room| {
            root = Some(alice.say(room, "what will be gone").await);
        })).await;
        let lost_end = next(&lost);
        let lost_start = lost["rooms"]["join"][&room]["timeline"]["prev_batch"].as_str().unwrap().to_owned();
        let parent = alice.say(&room, "parent").await;
        let news = say_all(&alice, &room, "new", 9).await;
        let newest: Vec<&str> = news.iter().rev().map(String::as_str).take(3).collect();

        // Its place is that of the backup's end, which both logs have.
        let page = bob.get(&path(&room, &format!("messages?dir=b&limit=1&from={lost_start}"))).await.ok();
        assert_eq!(said(&page), ["kept"]);
        let page = bob.get(&path(&room, &format!("messages?dir=b&limit=3&from={lost_end}"))).await.ok();
        assert_eq!(said(&page), newest);
        let end = page["end"].as_str().unwrap();
        let page = bob.get(&path(&room, &format!("messages?dir=b&limit=100&from={end}&to={lost_end}"))).await.ok();
        assert_eq!(said(&page).last(), Some(&"kept"), "as far as there is anything");
        bob.get(&path(&room, &format!("messages?dir=f&from={lost_end}"))).await.refused(400, "M_INVALID_PARAM");
        let page = bob.get(&path(&room, &format!("messages?dir=f&from={kept}&to={lost_end}&limit=100"))).await.ok();
        assert_eq!(said(&page).last(), newest.first());

        let members = bob.get(&path(&room, &format!("members?at={lost_end}"))).await.ok();
        assert_eq!(members["chunk"].as_array().unwrap().len(), 2);
        let relations = format!("/_matrix/client/v1/rooms/{}/relations/{}", escape(&room), escape(&parent));
        bob.get(&format!("{relations}?dir=b&from={lost_end}")).await.ok();
        bob.get(&format!("{relations}?dir=f&from={lost_end}")).await.refused(400, "M_INVALID_PARAM");
        bob.get(&format!("/_matrix/client/v1/rooms/{}/threads?from={lost_end}", escape(&room))).await.ok();
        // The stream of old leaves nothing out, so it can't go on.
        bob.get(&format!("/_matrix/client/v3/events?timeout=0&from={lost_end}")).await.refused(400, "M_INVALID_PARAM");
        bob.get(&path(&room, &format!("context/{}", escape(&root.unwrap())))).await.refused(404, "M_NOT_FOUND");
    }
}
