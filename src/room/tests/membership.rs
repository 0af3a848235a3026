//! Who may come, who must go, and what their events say.

use futures_util::future::join_all;
use ruma::{OwnedRoomId, OwnedUserId, UserId, events::room::member::MembershipState, room_id, user_id};
use serde_json::{Value, json};

use super::errcode;
use crate::{
    event::{Content, Draft},
    room::{
        Author, InitialState, NewRoom, Preset, View,
        graph::{append::Plan, head::Head},
        world::{RoomWorld, json as content, new_room, user},
    },
    store,
};

/// Requests run on any thread.
fn sendable<F: Future + Send>(future: F) -> F {
    future
}

async fn room_with(world: &RoomWorld, join_rules: Value) -> OwnedRoomId {
    let rules =
        InitialState { kind: "m.room.join_rules".into(), state_key: String::new(), content: content(join_rules) };
    let room = NewRoom { initial_state: vec![rules], ..new_room("alice", Preset::PrivateChat) };
    world.rooms.create(room).await.unwrap()
}

#[tokio::test]
async fn an_invitation_opens_a_closed_room_and_a_ban_closes_it() {
    let world = RoomWorld::new().await;
    let room_id = world.rooms.create(new_room("alice", Preset::PrivateChat)).await.unwrap();
    let (alice, bob) = (user("alice"), user("bob"));
    let join = || world.rooms.join(&room_id, &bob, None);
    let invite = || world.rooms.invite(&room_id, &alice, &bob, None);
    assert_eq!(errcode(join().await), "M_FORBIDDEN");
    invite().await.unwrap();
    join().await.unwrap();
    assert_eq!(errcode(invite().await), "M_FORBIDDEN");
    world.rooms.kick(&room_id, &alice, &bob, Some("noise".to_owned())).await.unwrap();
    assert_eq!(
        world.state(&room_id, "m.room.member", bob.as_str()).await,
        json!({"membership": "leave", "reason": "noise"})
    );
    assert_eq!(errcode(world.rooms.kick(&room_id, &alice, &bob, None).await), "M_FORBIDDEN");
    assert_eq!(errcode(world.rooms.unban(&room_id, &alice, &bob, None).await), "M_FORBIDDEN");
    world.rooms.ban(&room_id, &alice, &bob, None).await.unwrap();
    assert_eq!(errcode(invite().await), "M_FORBIDDEN");
    assert_eq!(errcode(join().await), "M_FORBIDDEN");
    assert_eq!(errcode(world.rooms.leave(&room_id, &bob, None).await), "M_FORBIDDEN");
    world.rooms.unban(&room_id, &alice, &bob, None).await.unwrap();
    invite().await.unwrap();
    join().await.unwrap();
    assert_eq!(errcode(world.rooms.kick(&room_id, &bob, &alice, None).await), "M_FORBIDDEN");
    assert_eq!(errcode(world.rooms.ban(&room_id, &user("mallory"), &bob, None).await), "M_FORBIDDEN");
    let stranger = user_id!("@bob:there");
    assert_eq!(errcode(world.rooms.invite(&room_id, &alice, stranger, None).await), "M_FORBIDDEN");
    world.close().await;
}

#[tokio::test]
async fn joining_and_leaving_twice_is_doing_it_once() {
    let world = RoomWorld::new().await;
    let room_id = world.public_room("alice").await;
    let bob = user("bob");
    assert_eq!(errcode(world.rooms.leave(&room_id, &bob, None).await), "M_FORBIDDEN");
    let joined = join_all((0..20).map(|_| world.rooms.join(&room_id, &bob, None))).await;
    assert!(joined.iter().all(Result::is_ok));
    let count = world.events(&room_id).await.len();
    world.rooms.join(&room_id, &bob, Some("again".to_owned())).await.unwrap();
    assert_eq!(world.events(&room_id).await.len(), count);
    for _ in 0..2 {
        world.rooms.leave(&room_id, &bob, None).await.unwrap();
    }
    let members = world.events(&room_id).await.into_iter().filter(|event| event.pdu.state_key() == Some(bob.as_str()));
    assert_eq!(members.count(), 2);
    let nowhere = room_id!("!nowhere:there");
    assert_eq!(errcode(world.rooms.join(nowhere, &bob, None).await), "M_FORBIDDEN");
    world.close().await;
}

#[tokio::test]
async fn only_a_room_that_was_left_can_be_forgotten() {
    let world = RoomWorld::new().await;
    let room_id = world.public_room("alice").await;
    let bob = user("bob");
    let forgotten = async || {
        let mut conn = world.db.read().await.unwrap();
        store::membership::find(&mut conn, &bob, &room_id).await.unwrap().unwrap().forgotten
    };
    assert_eq!(errcode(world.rooms.forget(&room_id, &bob).await), "M_FORBIDDEN");
    world.rooms.join(&room_id, &bob, None).await.unwrap();
    assert_eq!(errcode(world.rooms.forget(&room_id, &bob).await), "M_UNKNOWN");
    world.rooms.leave(&room_id, &bob, None).await.unwrap();
    world.rooms.forget(&room_id, &bob).await.unwrap();
    assert!(forgotten().await);
    world.rooms.join(&room_id, &bob, None).await.unwrap();
    assert!(!forgotten().await);
    world.close().await;
}

#[tokio::test]
async fn a_knock_can_be_answered_or_taken_back() {
    let world = RoomWorld::new().await;
    let (alice, bob) = (user("alice"), user("bob"));
    let closed = world.rooms.create(new_room("alice", Preset::PrivateChat)).await.unwrap();
    assert_eq!(errcode(world.rooms.knock(&closed, &bob, None).await), "M_FORBIDDEN");
    let room_id = room_with(&world, json!({"join_rule": "knock"})).await;
    world.rooms.knock(&room_id, &bob, Some("hello?".to_owned())).await.unwrap();
    assert_eq!(errcode(world.rooms.join(&room_id, &bob, None).await), "M_FORBIDDEN");
    world.rooms.leave(&room_id, &bob, None).await.unwrap();
    world.rooms.knock(&room_id, &bob, None).await.unwrap();
    world.rooms.invite(&room_id, &alice, &bob, None).await.unwrap();
    assert_eq!(errcode(world.rooms.knock(&room_id, &bob, None).await), "M_FORBIDDEN");
    world.rooms.join(&room_id, &bob, None).await.unwrap();
    world.close().await;
}

#[tokio::test]
async fn a_restricted_room_takes_members_of_the_rooms_that_it_names() {
    let world = RoomWorld::new().await;
    let (alice, bob) = (user("alice"), user("bob"));
    let club = world.public_room("alice").await;
    for rule in ["restricted", "knock_restricted"] {
        let allow = json!([{"type": "m.room_membership", "room_id": club}, {"type": "org.example"}]);
        let room_id = room_with(&world, json!({"join_rule": rule, "allow": allow})).await;
        assert_eq!(errcode(world.rooms.join(&room_id, &bob, None).await), "M_FORBIDDEN");
        world.rooms.join(&club, &bob, None).await.unwrap();
        world.rooms.join(&room_id, &bob, None).await.unwrap();
        let member = world.state(&room_id, "m.room.member", bob.as_str()).await;
        assert_eq!(member["join_authorised_via_users_server"], alice.as_str());
        world.rooms.leave(&club, &bob, None).await.unwrap();
        // Whoever could vouch is gone.
        world.rooms.leave(&room_id, &bob, None).await.unwrap();
        world.rooms.join(&club, &bob, None).await.unwrap();
        world.rooms.leave(&room_id, &alice, None).await.unwrap();
        assert_eq!(errcode(world.rooms.join(&room_id, &bob, None).await), "M_UNABLE_TO_GRANT_JOIN");
        world.rooms.leave(&club, &bob, None).await.unwrap();
    }
    world.close().await;
}

#[tokio::test]
async fn guests_come_where_they_are_welcome() {
    let world = RoomWorld::new().await;
    let guest = Author::Guest(user("guest"));
    let public = world.public_room("alice").await;
    assert_eq!(errcode(world.rooms.join_saying(&public, &guest, Content::new()).await), "M_GUEST_ACCESS_FORBIDDEN");
    let welcome = room_with(&world, json!({"join_rule": "public"})).await;
    world.rooms.join_saying(&welcome, &guest, Content::new()).await.unwrap();
    world.close().await;
}

#[tokio::test]
async fn guests_leave_a_room_that_no_longer_lets_them_in_however_many_they_are() {
    let world = RoomWorld::new().await;
    let room_id = room_with(&world, json!({"join_rule": "public"})).await;
    let (alice, bob) = (user("alice"), user("bob"));
    world.rooms.join(&room_id, &bob, None).await.unwrap();
    let guests: Vec<_> = (0..900).map(|number| user(&format!("guest{number}"))).collect();
    let mut tx = world.db.begin().await.unwrap();
    for guest in &guests {
        assert!(store::account::insert_guest(&mut tx, guest, 1).await.unwrap());
    }
    tx.commit().await.unwrap();
    for some in guests.chunks(300) {
        let join = |guest: &OwnedUserId| {
            let join = content(json!({"membership": "join"}));
            Draft::state(guest.clone(), "m.room.member".into(), guest.as_str(), join).into()
        };
        let joins = |_: &Head| Ok(Plan { proposals: some.iter().map(join).collect(), ..Plan::default() });
        world.rooms.append(&room_id, joins).await.unwrap();
    }
    let joined = async || world.rooms.get(&room_id).await.unwrap().view(View::joined);
    assert_eq!(joined().await, 902);

    let set = async |sender: &UserId, access: &str| {
        let access = content(json!({"guest_access": access}));
        world
            .rooms
            .send_state(&room_id, &Author::User(sender.to_owned()), &"m.room.guest_access".into(), "", access)
            .await
    };
    assert_eq!(errcode(set(&bob, "forbidden").await), "M_FORBIDDEN");
    set(&alice, "can_join").await.unwrap();
    assert_eq!(joined().await, 902);
    let event_id = set(&alice, "forbidden").await.unwrap();
    assert_eq!(joined().await, 2);
    let state = world.rooms.get(&room_id).await.unwrap().state();
    assert_eq!(state.get("m.room.guest_access", "").unwrap().event_id(), event_id);
    assert_eq!(state.membership(&guests[0]), MembershipState::Leave);
    assert_eq!(set(&alice, "forbidden").await.unwrap(), event_id);
    world.close().await;
}

#[tokio::test]
async fn a_restricted_room_says_why_nobody_can_be_let_in() {
    let world = RoomWorld::new().await;
    let (alice, bob) = (user("alice"), user("bob"));
    let allow = json!([{"type": "m.room_membership", "room_id": "!nowhere:there"}]);
    let room_id = room_with(&world, json!({"join_rule": "restricted", "allow": allow})).await;
    assert_eq!(errcode(world.rooms.join(&room_id, &bob, None).await), "M_UNABLE_TO_AUTHORISE_JOIN");
    world.rooms.invite(&room_id, &alice, &bob, None).await.unwrap();
    world.rooms.join(&room_id, &bob, None).await.unwrap();
    // Without conditions it is for those who are invited.
    let carol = user("carol");
    for rules in [json!({"join_rule": "restricted"}), json!({"join_rule": "knock_restricted", "allow": []})] {
        let room_id = room_with(&world, rules).await;
        assert_eq!(errcode(world.rooms.join(&room_id, &carol, None).await), "M_FORBIDDEN");
    }
    world.close().await;
}

#[tokio::test]
async fn a_membership_set_as_state_goes_through_the_same_checks() {
    let world = RoomWorld::new().await;
    let room_id = world.public_room("alice").await;
    let (alice, bob) = (user("alice"), user("bob"));
    world.set_displayname("bob", "Bob").await;
    let set = async |sender: &ruma::UserId, target: &str, state: Value| {
        world
            .rooms
            .send_state(&room_id, &Author::User(sender.to_owned()), &"m.room.member".into(), target, content(state))
            .await
    };
    let stranger = json!({"membership": "invite"});
    assert_eq!(errcode(set(&alice, "@bob:there", stranger).await), "M_FORBIDDEN");
    assert_eq!(errcode(set(&alice, "bob", json!({"membership": "invite"})).await), "M_INVALID_PARAM");
    assert_eq!(errcode(set(&bob, bob.as_str(), json!({})).await), "M_BAD_JSON");
    assert_eq!(errcode(set(&alice, bob.as_str(), json!({"membership": "join"})).await), "M_FORBIDDEN");
    let join = json!({"membership": "join", "join_authorised_via_users_server": "@alice:here", "org.example": 1});
    set(&bob, bob.as_str(), join).await.unwrap();
    assert_eq!(
        world.state(&room_id, "m.room.member", bob.as_str()).await,
        json!({"membership": "join", "displayname": "Bob", "org.example": 1})
    );
    // A name for this room only.
    let nick = set(&bob, bob.as_str(), json!({"membership": "join", "displayname": "Bobby"})).await.unwrap();
    let again = set(&bob, bob.as_str(), json!({"membership": "join", "displayname": "Bobby"})).await.unwrap();
    assert_eq!(nick, again);
    world.close().await;
}

#[tokio::test]
async fn a_new_name_reaches_every_room_and_leaving_all_leaves_every_room() {
    let world = RoomWorld::new().await;
    let (alice, bob) = (user("alice"), user("bob"));
    let rooms = [world.public_room("alice").await, world.public_room("alice").await];
    for room_id in &rooms {
        world.rooms.join(room_id, &bob, None).await.unwrap();
    }
    let invited = world.rooms.create(new_room("alice", Preset::PrivateChat)).await.unwrap();
    world.rooms.invite(&invited, &alice, &bob, None).await.unwrap();
    world.set_displayname("bob", "Robert").await;
    sendable(world.rooms.update_profile(&bob)).await.unwrap();
    for room_id in &rooms {
        let member = world.state(room_id, "m.room.member", bob.as_str()).await;
        assert_eq!(member, json!({"membership": "join", "displayname": "Robert"}));
    }
    assert_eq!(world.state(&invited, "m.room.member", bob.as_str()).await, json!({"membership": "invite"}));
    let count = world.events(&rooms[0]).await.len();
    world.rooms.update_profile(&bob).await.unwrap();
    assert_eq!(world.events(&rooms[0]).await.len(), count);

    sendable(world.rooms.leave_all(&bob, Some("gone"))).await.unwrap();
    for room_id in rooms.iter().chain([&invited]) {
        let state = world.rooms.get(room_id).await.unwrap().state();
        assert_eq!(state.membership(&bob), MembershipState::Leave);
    }
    world.close().await;
}
