//! Erasures on every engine, after a restart and on another node.

use std::sync::Arc;

use ruma::{EventId, RoomId, UserId, api::Direction, api::client::filter::RoomEventFilter};

use crate::{
    app::App,
    ground::position::{Order, Position},
    room::{Resident, read::timeline::Walk},
    store,
    testing::{World, user},
};

/// Whether a reader gets what an event said, each way.
async fn reads(app: &App, room: &RoomId, reader: &UserId, event: &EventId) -> bool {
    let mut reading = app.rooms.open(room, reader).await.unwrap();
    let found = app.rooms.find_event(&mut reading, event).await.unwrap().unwrap();
    let filter = RoomEventFilter::default();
    let walk = Walk::new(&reading, Direction::Backward, (None, None), 50, &filter);
    let page = app.rooms.page(&mut reading, &walk).await.unwrap();
    let listed = page.events.iter().find(|listed| listed.pdu.event_id() == event).unwrap();
    assert_eq!(listed.pdu.content().get(), found.pdu.content().get());
    listed.pdu.content().get() != "{}"
}

/// Has somebody erased whose account says so: what a node does that finds it undone, too.
async fn erase(world: &World, name: &str) {
    let user_id = world.app.accounts.create_user(name, "correct horse battery", false).await.unwrap();
    world.app.accounts.deactivate(&user_id, true).await.unwrap();
    world.app.rooms.log_erasures().await.unwrap();
}

async fn erasures(world: &World) -> Vec<(ruma::OwnedUserId, Position)> {
    store::erasure::list(&mut world.app.db.read().await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn whoever_joins_later_reads_nothing_of_it_after_a_restart_either() {
    let (alice, bob, carol, dave) = (user("alice"), user("bob"), user("carol"), user("dave"));
    for mut world in World::on_each_engine().await {
        let room = world.room(&[&bob, &alice, &carol]).await;
        let first = world.say(&room, &alice, "for bob and carol").await;
        world.membership(&room, &carol, "leave").await;
        let second = world.say(&room, &alice, "for bob").await;
        assert!(reads(&world.app, &room, &bob, &second).await);

        erase(&world, "alice").await;
        let noted = erasures(&world).await;
        world.app.rooms.log_erasures().await.unwrap();
        assert_eq!(erasures(&world).await, noted, "once is enough");
        let third = world.say(&room, &alice, "said while bob was there").await;
        world.membership(&room, &carol, "join").await;
        world.membership(&room, &dave, "join").await;
        let others = world.say(&room, &bob, "bob's own").await;
        for _ in 0..2 {
            let who_reads = [(&bob, [true, true, true]), (&carol, [true, false, false]), (&dave, [false; 3])];
            for (reader, expected) in who_reads {
                for (event, expected) in [&first, &second, &third].into_iter().zip(expected) {
                    assert_eq!(reads(&world.app, &room, reader, event).await, expected, "{reader} {event}");
                }
                assert!(reads(&world.app, &room, reader, &others).await);
            }
            world = world.restart().await;
        }
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_knows_of_it() {
    let Some((world, other)) = World::two_nodes().await else { return };
    let (alice, bob, carol) = (user("alice"), user("bob"), user("carol"));
    let room = world.room(&[&alice, &bob]).await;
    let secret = world.say(&room, &alice, "secret").await;
    other.log.tail().wait_for(world.reached()).await;
    assert!(reads(&other, &room, &bob, &secret).await);
    erase(&world, "alice").await;
    world.membership(&room, &carol, "join").await;
    other.log.tail().wait_for(world.reached()).await;
    for app in [&world.app, &other] {
        assert!(reads(app, &room, &bob, &secret).await);
        assert!(!reads(app, &room, &carol, &secret).await);
    }
    world.close_both(other).await;
}

#[tokio::test]
async fn what_clients_need_is_left_in_the_state() {
    let (alice, bob) = (user("alice"), user("bob"));
    let world = World::new().await;
    let room = world.room(&[&alice]).await;
    let set = |kind: &'static str, content: serde_json::Value| {
        let content = serde_json::from_value(content).unwrap();
        world.send(&room, crate::event::Draft::state(alice.clone(), kind.into(), "", content))
    };
    set("m.room.encryption", serde_json::json!({ "algorithm": "m.megolm.v1.aes-sha2" })).await;
    set("m.room.topic", serde_json::json!({ "topic": "alice's" })).await;
    erase(&world, "alice").await;
    world.membership(&room, &bob, "join").await;
    let reading = world.app.rooms.open(&room, &bob).await.unwrap();
    let state = world.app.rooms.readable_state(&reading).await.unwrap();
    let content = |kind: &str| state.get(kind, "").unwrap().content().get().to_owned();
    assert!(content("m.room.create").contains("room_version") && content("m.room.encryption").contains("megolm"));
    assert_eq!(content("m.room.topic"), "{}");
    let topic = world.app.rooms.readable_state_event(&reading, "m.room.topic", "").await.unwrap();
    assert_eq!(topic.as_ref().map(Arc::as_ref).unwrap().content().get(), "{}");
    // The room itself goes on as it was.
    assert_ne!(reading.room.state().get("m.room.topic", "").unwrap().content().get(), "{}");
    world.close().await;
}

#[tokio::test]
async fn in_what_comes_from_several_rooms_each_has_its_own_readers() {
    let (alice, bob, nobody) = (user("alice"), user("bob"), user("nobody"));
    let world = World::new().await;
    let (shared, other) = (world.room(&[&alice, &bob]).await, world.room(&[&alice]).await);
    let mut said = Vec::new();
    for room in [&shared, &other] {
        world.profile(room, &alice, serde_json::json!({ "membership": "join", "displayname": "Alice" })).await;
        said.push(world.say(room, &alice, "secret").await);
    }
    erase(&world, "alice").await;
    world.membership(&other, &bob, "join").await;

    let rooms = [world.app.rooms.get(&other).await.unwrap(), world.app.rooms.get(&shared).await.unwrap()];
    let [other, shared] = rooms.map(Resident::into_room);
    let at = Order::at(world.reached());
    let wanted = [(&*other, at, &*alice), (&*shared, at, &*bob), (&*shared, at, &*alice)];
    let wanted = [&wanted[..], &[(&*shared, at, &*nobody), (&*other, at, &*bob)]].concat();
    let members = world.app.rooms.members_at(&bob, &wanted).await.unwrap();
    let found: Vec<Option<(&str, bool)>> = members
        .iter()
        .map(|pdu| pdu.as_ref().map(|pdu| (pdu.state_key().unwrap(), pdu.content().get().contains("Alice"))))
        .collect();
    let (hidden, told, own) = (("@alice:localhost", false), ("@alice:localhost", true), ("@bob:localhost", false));
    assert_eq!(found, [Some(hidden), Some(own), Some(told), None, Some(own)]);

    let ids: Vec<&EventId> = [&said[1], &said[0], &said[1]].map(|id| &**id).into();
    let mut events = Vec::new();
    for id in &ids {
        let found = store::event::find(&mut world.app.db.read().await.unwrap(), id).await.unwrap();
        events.push(Arc::new(found.unwrap()));
    }
    world.app.rooms.withhold_anywhere(&bob, &mut events).await.unwrap();
    let readable: Vec<(&EventId, bool)> =
        events.iter().map(|event| (event.pdu.event_id(), event.pdu.content().get() != "{}")).collect();
    assert_eq!(readable, [(ids[0], false), (ids[1], true), (ids[2], false)]);
    world.close().await;
}
