//! What an operator does to accounts from the command line, beside a server that runs: every node goes by it as soon as the
//! command says so.

use std::time::Duration;

use hearth::admin::{AccountFilter, Administration, Noticed};
use ruma::UserId;
use serde_json::json;

use crate::{
    on_both,
    world::{Client, World, escape, next, password},
};

const WHOAMI: &str = "/_matrix/client/v3/account/whoami";
const LOGIN: &str = "/_matrix/client/v3/login";
const REGISTER: &str = "/_matrix/client/v3/register";
/// How often a command on a busy machine may say that nobody has noticed yet, at three seconds each.
const TRIES: usize = 20;

/// Waits until the command would say that every server goes by it.
pub(crate) async fn until_noticed(operator: &Administration, user: &Client) {
    let user_id = UserId::parse(&user.user_id).unwrap();
    for _ in 0..TRIES {
        if operator.until_noticed(&user_id).await.unwrap() == Noticed::Everywhere {
            return;
        }
    }
    panic!("no node has taken it up")
}

/// A user at each node, behind no proxy.
fn at_each_node(world: &World, user: &Client) -> Vec<Client> {
    (0..world.nodes.len()).map(|node| user.clone().at_node(world, node)).collect()
}

async fn is_logged_out(world: &World, user: &Client) {
    for node in at_each_node(world, user) {
        node.get(WHOAMI).await.refused(401, "M_UNKNOWN_TOKEN");
    }
}

async fn is_logged_in(world: &World, user: &Client) {
    for node in at_each_node(world, user) {
        node.get(WHOAMI).await.ok();
    }
}

on_both! {
    async fn a_password_that_is_reset_ends_the_sessions_unless_they_are_to_be_kept(world) {
        let (operator, bob) = (world.administration().await, world.user("bob").await);
        is_logged_in(&world, &bob).await;
        let login = |given: &'static str| world.call("POST", LOGIN, None, Some(password("bob", given)));

        assert_eq!(operator.reset_password("bob", "the second", true).await.unwrap(), bob.user_id.as_str());
        until_noticed(&operator, &bob).await;
        is_logged_in(&world, &bob).await;
        login("password of bob").await.refused(403, "M_FORBIDDEN");
        login("the second").await.ok();

        let since = next(&bob.sync(None).await);
        let waiting = format!("/_matrix/client/v3/sync?set_presence=offline&timeout=60000&since={since}");
        let reset = async {
            world.until_a_sync_waits().await;
            operator.reset_password("@bob:localhost", "the third", false).await.unwrap();
        };
        let (sync, ()) = tokio::join!(bob.get(&waiting), reset);
        sync.refused(401, "M_UNKNOWN_TOKEN");
        until_noticed(&operator, &bob).await;
        is_logged_out(&world, &bob).await;
        login("the second").await.refused(403, "M_FORBIDDEN");
        login("the third").await.ok();

        let weak = operator.reset_password("bob", "short", false).await.unwrap_err().to_string();
        assert!(weak.contains("at least 8"), "{weak}");
        let unknown = operator.reset_password("bobby", "the fourth", false).await.unwrap_err().to_string();
        assert!(unknown.contains("no user bobby on localhost"), "{unknown}");
        login("the third").await.ok();
    }

    async fn administrators_are_made_and_unmade_on_every_node(world) {
        let (operator, root, bob) = (world.administration().await, world.user("root").await, world.user("bob").await);
        let lock = format!("/_matrix/client/v1/admin/lock/{}", escape(&bob.user_id));
        for node in at_each_node(&world, &root) {
            node.get(&lock).await.refused(403, "M_FORBIDDEN");
        }
        assert!(operator.set_admin("root", true).await.unwrap().1);
        until_noticed(&operator, &root).await;
        for node in at_each_node(&world, &root) {
            node.get(&lock).await.ok();
        }
        assert!(!operator.set_admin("root", true).await.unwrap().1, "nothing changes");
        let admins = operator.list_users(AccountFilter::Administrators, None).await.unwrap();
        assert_eq!(admins.iter().map(|admin| admin.user_id.as_str()).collect::<Vec<_>>(), [&root.user_id]);
        assert!(operator.set_admin("root", false).await.unwrap().1);
        until_noticed(&operator, &root).await;
        for node in at_each_node(&world, &root) {
            node.get(&lock).await.refused(403, "M_FORBIDDEN");
        }
    }

    async fn sessions_are_listed_and_ended_all_or_one(world) {
        let (operator, bob) = (world.administration().await, world.user("bob").await);
        let (tablet, phone) = (world.login(&bob).await, world.login(&bob).await);
        is_logged_in(&world, &tablet).await;
        let sessions = operator.list_sessions("bob").await.unwrap();
        assert_eq!(sessions.len(), 3);
        let device = tablet.get(WHOAMI).await.ok()["device_id"].as_str().unwrap().to_owned();
        assert!(sessions.iter().any(|session| session.device_id == device));

        let unknown = operator.end_sessions("bob", Some("NOWHERE")).await.unwrap_err().to_string();
        assert!(unknown.contains("no device NOWHERE"), "{unknown}");
        assert_eq!(operator.end_sessions("bob", Some(&device)).await.unwrap().1, 1);
        until_noticed(&operator, &bob).await;
        is_logged_out(&world, &tablet).await;
        is_logged_in(&world, &phone).await;
        assert_eq!(operator.end_sessions("bob", None).await.unwrap().1, 2);
        until_noticed(&operator, &bob).await;
        for gone in [&bob, &phone] {
            is_logged_out(&world, gone).await;
        }
        assert!(operator.list_sessions("bob").await.unwrap().is_empty());
        world.login(&bob).await.get(WHOAMI).await.ok();
    }

    async fn whoever_is_deactivated_leaves_their_rooms(world) {
        let (operator, alice, bob) = (world.administration().await, world.user("alice").await, world.user("bob").await);
        let name = format!("/_matrix/client/v3/profile/{}/displayname", escape(&bob.user_id));
        bob.put(&name, json!({ "displayname": "Bob" })).await.ok();
        let mut rooms = Vec::new();
        for _ in 0..12 {
            let room = alice.create_room(json!({ "preset": "public_chat" })).await;
            bob.join(&room).await.ok();
            rooms.push(room);
        }
        alice.create_room(json!({ "invite": [bob.user_id] })).await;
        let user_id = UserId::parse(&bob.user_id).unwrap();
        assert_eq!(operator.look_at_departure("bob").await.unwrap(), (user_id.clone(), 13));

        assert_eq!(operator.deactivate("bob", true).await.unwrap(), user_id);
        until_noticed(&operator, &bob).await;
        is_logged_out(&world, &bob).await;
        let departed = tokio::time::timeout(Duration::from_mins(1), async {
            while !operator.has_departed(&user_id).await.unwrap() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        departed.await.expect("no node takes them out of their rooms");
        assert_eq!(operator.count_rooms(&user_id).await.unwrap(), 0);
        for room in &rooms {
            let member = format!("/_matrix/client/v3/rooms/{}/state/m.room.member/{}", escape(room), escape(&bob.user_id));
            assert_eq!(alice.get(&member).await.ok()["membership"], "leave");
        }
        let login = world.call("POST", LOGIN, None, Some(bob.password())).await;
        login.refused(403, "M_FORBIDDEN");
        world.call("GET", &name, None, None).await.refused(404, "M_NOT_FOUND");
        let again = json!({ "username": "bob", "password": "password", "auth": { "type": "m.login.dummy" } });
        world.call("POST", REGISTER, None, Some(again)).await.refused(400, "M_USER_IN_USE");
        let refused = operator.reset_password("bob", "a new password", false).await.unwrap_err().to_string();
        assert!(refused.contains("deactivated"), "{refused}");
    }

    async fn whoever_is_erased_is_so_once_the_command_says_it(world) {
        let (operator, alice, bob) = (world.administration().await, world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let event = bob.say(&room, "xyzzysecret").await;
        operator.deactivate("bob", true).await.unwrap();
        until_noticed(&operator, &bob).await;
        let carol = world.user("carol").await;
        carol.join(&room).await.ok();
        let event = format!("/_matrix/client/v3/rooms/{}/event/{}", escape(&room), escape(&event));
        assert_eq!(carol.get(&event).await.ok()["content"], json!({}));
        assert_eq!(alice.get(&event).await.ok()["content"]["body"], "xyzzysecret");
    }

    async fn a_registration_token_that_is_revoked_lets_nobody_in(world, config => {
        config.registration.mode = hearth::config::RegistrationMode::Token;
    }) {
        let operator = world.administration().await;
        let token = operator.create_registration_token(Some(5), None).await.unwrap();
        let expired = operator.create_registration_token(None, Some(Duration::from_secs(1))).await.unwrap();
        world.clock.advance(Duration::from_secs(2));
        let mut shown = Vec::new();
        for token in operator.list_registration_tokens().await.unwrap() {
            shown.push((token.token, token.usable, token.uses_allowed, token.completed));
        }
        let mut expected = vec![(token.clone(), true, Some(5), 0), (expired.clone(), false, None, 0)];
        expected.sort();
        shown.sort();
        assert_eq!(shown, expected);

        let register = |name: &str, session: &str| {
            let auth = json!({ "type": "m.login.registration_token", "token": token, "session": session });
            let body = json!({ "username": name, "password": "a password", "auth": auth });
            world.call("POST", REGISTER, None, Some(body))
        };
        let session = || async {
            let asked = world.call("POST", REGISTER, None, Some(json!({}))).await;
            asked.body["session"].as_str().unwrap().to_owned()
        };
        register("alice", &session().await).await.ok();
        let begun = session().await;
        operator.revoke_registration_token(&token).await.unwrap();
        assert_ne!(register("bob", &begun).await.status, 200);
        for _ in 0..world.nodes.len() {
            let valid = format!("/_matrix/client/v1/register/m.login.registration_token/validity?token={token}");
            assert_eq!(world.call("GET", &valid, None, None).await.ok(), json!({ "valid": false }));
        }
        assert!(operator.revoke_registration_token(&token).await.is_err(), "it is gone");
        operator.revoke_registration_token(&expired).await.unwrap();
        assert!(operator.list_registration_tokens().await.unwrap().is_empty());
    }

    async fn accounts_are_listed_by_what_they_are(world, config => {
        config.registration.guests = true;
        config.server_notices.localpart = Some("notices".to_owned());
    }) {
        let operator = world.administration().await;
        let users = [world.user("alice").await, world.user("bob").await, world.user("carol").await];
        let guest = world.guest().await;
        operator.deactivate("carol", false).await.unwrap();
        operator.set_suspended("bob", true).await.unwrap();
        let names = async |who, after: Option<&str>| {
            let after = after.map(|after| UserId::parse(after).unwrap());
            let listed = operator.list_users(who, after.as_deref()).await.unwrap();
            listed.into_iter().map(|user| user.user_id.to_string()).collect::<Vec<_>>()
        };
        let (alice, bob, carol) = (&users[0].user_id, &users[1].user_id, &users[2].user_id);
        let notices = &"@notices:localhost".to_owned();
        assert_eq!(names(AccountFilter::Users, None).await.iter().collect::<Vec<_>>(), [alice, bob, notices]);
        assert_eq!(names(AccountFilter::Users, Some(alice)).await.iter().collect::<Vec<_>>(), [bob, notices]);
        assert_eq!(names(AccountFilter::Users, Some(notices)).await, [""; 0]);
        assert_eq!(names(AccountFilter::Guests, None).await, [guest.user_id.as_str()]);
        assert_eq!(names(AccountFilter::Deactivated, None).await, [carol.as_str()]);
        assert_eq!(names(AccountFilter::Everybody, None).await.len(), 5);
        let listed = operator.list_users(AccountFilter::Users, None).await.unwrap();
        assert!(listed[1].restrictions.suspended && !listed[0].restrictions.suspended);
        assert_eq!((listed[0].sessions, listed[2].sessions), (1, 0));

        // Nobody is in whose name the server speaks, and guests are only until they register.
        for name in ["notices", &guest.user_id] {
            assert!(operator.reset_password(name, "a password", false).await.is_err(), "{name}");
            assert!(operator.set_admin(name, true).await.is_err(), "{name}");
        }
        assert!(operator.deactivate("notices", false).await.is_err());
        operator.deactivate(&guest.user_id, false).await.unwrap();
    }
}
