//! The rooms in memory: which are forgotten, and how they are read.

use std::sync::Arc;

use futures_util::{
    FutureExt as _,
    future::{join, join_all},
};
use ruma::{OwnedRoomId, RoomId};

use crate::{
    db::{Conn, args, statements},
    ground::position::Order,
    room::{
        Resident,
        world::{RoomWorld, message},
    },
};

statements! {
    SET_EXTREMITIES = "UPDATE rooms SET extremities = $2 WHERE room_id = $1";
}

impl RoomWorld {
    async fn rooms_of_alice(&self, count: usize) -> Vec<OwnedRoomId> {
        let mut rooms = Vec::new();
        for _ in 0..count {
            rooms.push(self.public_room("alice").await);
        }
        rooms
    }

    fn is_in_memory(&self, room_id: &RoomId) -> bool {
        self.rooms.0.active.has(room_id)
    }

    fn loads(&self) -> u64 {
        self.rooms.0.active.loading.lock().count()
    }

    /// Every connection to read with: as long as they are held, no load ends.
    async fn hold_readers(&self) -> Vec<Conn> {
        let pools = self.db.pools();
        let (.., count) = pools.into_iter().find(|(name, ..)| *name == "read").unwrap();
        join_all((0..count).map(|_| self.db.read())).await.into_iter().map(Result::unwrap).collect()
    }

    async fn set_extremities(&self, room_id: &RoomId, extremities: &str) {
        let mut tx = self.db.begin().await.unwrap();
        tx.execute(&SET_EXTREMITIES, args![room_id, extremities]).await.unwrap();
        tx.commit().await.unwrap();
    }
}

/// How much a new room takes.
async fn bytes_of_a_room() -> u64 {
    let world = RoomWorld::new().await;
    world.public_room("alice").await;
    let bytes = world.rooms.0.active.bytes();
    world.close().await;
    bytes
}

#[tokio::test]
async fn beyond_the_limit_the_rooms_are_forgotten_that_were_asked_for_longest_ago() {
    let limit = bytes_of_a_room().await * 11 / 2;
    let world = RoomWorld::with_cache(limit).await;
    let rooms = world.rooms_of_alice(5).await;
    assert!(rooms.iter().all(|room_id| world.is_in_memory(room_id)), "five fit");
    world.rooms.get(&rooms[0]).await.unwrap();
    let last = world.public_room("alice").await;
    assert!(!world.is_in_memory(&rooms[1]), "the one that nobody has asked for since it was made");
    assert!(world.is_in_memory(&rooms[0]) && world.is_in_memory(&last));
    assert!(world.rooms.0.active.bytes() <= limit);

    world.rooms.send(&message(&rooms[1], "alice", "still there")).await.unwrap();
    assert!(world.is_in_memory(&rooms[1]));
    world.one_chain(&rooms[1]).await;
    world.close().await;
}

#[tokio::test]
async fn a_room_that_grows_makes_others_go() {
    let limit = bytes_of_a_room().await * 7 / 2;
    let world = RoomWorld::with_cache(limit).await;
    let rooms = world.rooms_of_alice(3).await;
    let words = "many words ".repeat(200);
    for _ in 0..40 {
        world.say(&rooms[0], "alice", &[&words]).await;
    }
    assert!(!world.is_in_memory(&rooms[1]) && !world.is_in_memory(&rooms[2]));
    world.close().await;
}

#[tokio::test]
async fn what_somebody_holds_or_writes_to_stays() {
    let world = RoomWorld::with_cache(1).await;
    let rooms = world.rooms_of_alice(2).await;
    assert!(!world.is_in_memory(&rooms[0]), "nothing fits");
    let held = world.rooms.get(&rooms[0]).await.unwrap();
    world.public_room("alice").await;
    assert!(world.is_in_memory(&rooms[0]), "it is held");

    // Something is on its way, and whoever sent it has gone.
    let ahead = {
        let mut pending = held.pending.lock().await;
        let mut head = held.head(&pending);
        head.room.head += 1;
        pending.head.insert(head).room.head
    };
    drop(held);
    world.public_room("alice").await;
    assert!(world.is_in_memory(&rooms[0]), "something is on its way");
    let held = world.rooms.get(&rooms[0]).await.unwrap();
    assert_eq!(held.pending.lock().await.head.take().map(|head| head.room.head), Some(ahead));
    drop(held);
    world.public_room("alice").await;
    assert!(!world.is_in_memory(&rooms[0]));
    world.close().await;
}

#[tokio::test]
async fn a_room_is_read_once_however_many_wait() {
    let world = RoomWorld::new().await;
    let rooms = world.rooms_of_alice(3).await;
    let world = world.restart().await;
    let found = join_all((0..20).map(|_| world.rooms.get(&rooms[0]))).await;
    let found: Vec<Resident> = found.into_iter().map(Result::unwrap).collect();
    assert!(found.iter().all(|room| Arc::ptr_eq(room, &found[0])));
    assert_eq!(world.loads(), 1);

    let unknown = ruma::owned_room_id!("!nowhere:here");
    let wanted: Vec<&RoomId> = rooms.iter().chain([&unknown]).map(|room_id| &**room_id).collect();
    let readers = world.hold_readers().await;
    let mut waiting = Box::pin(join(world.rooms.find_each_held(&wanted), world.rooms.find_each_held(&wanted)));
    assert!((&mut waiting).now_or_never().is_none(), "they have begun");
    drop(readers);
    let (some, others) = waiting.await;
    assert_eq!(world.loads(), 2, "the other two rooms together, for both");
    let (some, others) = (some.unwrap(), others.unwrap());
    assert_eq!(some.len(), 3);
    assert!(some.iter().all(|(room_id, room)| Arc::ptr_eq(room, &others[room_id])));
    world.close().await;
}

#[tokio::test]
async fn rooms_that_are_read_together_are_as_they_were() {
    let world = RoomWorld::new().await;
    let rooms = world.rooms_of_alice(3).await;
    for (number, room_id) in rooms.iter().enumerate() {
        for n in 0..number * 20 {
            world.say(room_id, "alice", &[&n.to_string()]).await;
        }
        world.member(room_id, "bob", "bob", "join").await;
    }
    let mut before = Vec::new();
    for room_id in &rooms {
        before.push(world.rooms.get(room_id).await.unwrap().view(Clone::clone));
    }
    let world = world.restart().await;
    let wanted: Vec<&RoomId> = rooms.iter().map(|room_id| &**room_id).collect();
    let found = world.rooms.find_each_held(&wanted).await.unwrap();
    for (room_id, before) in rooms.iter().zip(before) {
        let after = found[room_id].view(Clone::clone);
        assert_eq!((&after.head, after.trunk, after.position >= before.position), (&before.head, before.trunk, true));
        assert!(before.state.changes_to(&after.state).is_empty());
        assert_eq!((after.joined(), after.last_event()), (2, before.last_event()));
        let newest = |view: &crate::room::View| {
            let (events, more) = view.timeline(Order::START, Order::at(view.position), 20).unwrap();
            (events.iter().map(|event| event.pdu.event_id().to_owned()).collect::<Vec<_>>(), more)
        };
        assert_eq!(newest(&after), newest(&before));
        let start = after.timeline(Order::START, Order::at(after.position), 20).unwrap().0[0].order.before();
        let (then, expected) = (after.state_at(start).expect("it is remembered"), before.state_at(start).unwrap());
        assert!(then.changes_to(&expected).is_empty() && then.len() == expected.len());
        assert!(after.state_at(Order::START).is_none_or(|nothing| nothing.is_empty()));
    }
    world.close().await;
}

#[tokio::test]
async fn a_load_that_fails_fails_for_all_who_waited_and_the_next_one_tries_again() {
    let world = RoomWorld::new().await;
    let room_id = world.public_room("alice").await;
    let extremities = world.rooms.get(&room_id).await.unwrap().view(|view| view.head.extremities.clone());
    let world = world.restart().await;
    world.set_extremities(&room_id, "no list").await;
    let readers = world.hold_readers().await;
    let mut waiting = Box::pin(join_all((0..3).map(|_| world.rooms.find(&room_id))));
    assert!((&mut waiting).now_or_never().is_none(), "they have begun");
    drop(readers);
    let failed = waiting.await;
    assert!(failed.iter().all(Result::is_err));
    assert_eq!(world.loads(), 1);
    world.set_extremities(&room_id, &serde_json::json!(extremities).to_string()).await;
    assert!(world.rooms.find(&room_id).await.unwrap().is_some());
    assert_eq!(world.loads(), 2);
    world.close().await;
}

#[tokio::test]
async fn a_load_that_nobody_waits_for_any_more_stands_in_nobodys_way() {
    let world = RoomWorld::new().await;
    let room_id = world.public_room("alice").await;
    let world = world.restart().await;
    let readers = world.hold_readers().await;
    let given_up = world.rooms.find(&room_id);
    assert!(given_up.now_or_never().is_none(), "it has begun");
    drop(readers);
    assert!(world.rooms.find(&room_id).await.unwrap().is_some());
    assert_eq!(world.loads(), 2);
    world.close().await;
}
