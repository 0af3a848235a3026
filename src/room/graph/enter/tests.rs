//! Coming into rooms that began elsewhere: what is here then, on each node, and what others are told.

use std::collections::BTreeSet;

use futures_util::future::join;
use ruma::{OwnedUserId, events::room::member::MembershipState, user_id};
use serde_json::json;

use super::*;
use crate::{
    event::{
        Logged,
        fact::{News, OutsideMembership, OutsideState},
    },
    ground::position::{Lineage, Order, Position},
    room::{
        graph::{
            history::{
                Chunk,
                elsewhere::{Elsewhere, alice},
            },
            lanes::Lanes,
        },
        world::{RoomWorld, message, user},
    },
};

/// Somebody's membership becomes another. Returns which event that is.
fn become_member(elsewhere: &mut Elsewhere, user_id: &ruma::UserId, membership: &str) -> usize {
    elsewhere.say_next(user_id, "m.room.member", Some(user_id.as_str()), json!({ "membership": membership }));
    elsewhere.events.len() - 1
}

fn set_topic(elsewhere: &mut Elsewhere, topic: &str) -> usize {
    elsewhere.say_next(&alice(), "m.room.topic", Some(""), json!({ "topic": topic }));
    elsewhere.events.len() - 1
}

fn ids(state: &crate::room::State) -> BTreeSet<OwnedEventId> {
    state.iter().map(|pdu| pdu.event_id().to_owned()).collect()
}

/// Hears of an event as it happens.
async fn hear(rooms: &Rooms, elsewhere: &Elsewhere, place: usize) {
    let room = rooms.get(&elsewhere.room_id).await.unwrap();
    let standing = rooms.append_remote(&room, Pdu::clone(&elsewhere.events[place])).await;
    assert_eq!(standing.unwrap(), Standing::Accepted);
}

/// The room is what its own servers say it is after an event.
async fn check_after(rooms: &Rooms, elsewhere: &Elsewhere, place: usize) {
    rooms.log().refresh().await.unwrap();
    let room = rooms.get(&elsewhere.room_id).await.unwrap();
    let pdu = &elsewhere.events[place];
    let known = &elsewhere.model.events[pdu.event_id()];
    assert_eq!(ids(&room.state()), known.after.values().cloned().collect());
    assert_eq!(room.view(|view| view.head.extremities.clone()), [pdu.event_id()]);
    let stored = store::event::find(&mut rooms.0.db.read().await.unwrap(), pdu.event_id()).await.unwrap().unwrap();
    assert_eq!(ids(&rooms.state_before(&room, &stored).await.unwrap()), known.before.values().cloned().collect());
}

async fn membership(world: &RoomWorld, elsewhere: &Elsewhere, user_id: &ruma::UserId) -> Option<MembershipState> {
    let mut conn = world.db.read().await.unwrap();
    let found = store::membership::find(&mut conn, user_id, &elsewhere.room_id).await.unwrap();
    found.map(|found| found.membership)
}

/// How many keys a line holds.
async fn len_of(world: &RoomWorld, line: Lineage) -> usize {
    let mut conn = world.db.read().await.unwrap();
    store::state::list_ids_at(&mut conn, line, Order::END).await.unwrap().len()
}

/// The newest event as the log tells it.
async fn last_told(rooms: &Rooms) -> (Logged, Vec<News>) {
    let stretch = rooms.log().read_after(Position::START, 10_000).await.unwrap();
    let logged = stretch.events().last().unwrap().clone();
    let at_last = logged.at;
    let rest = stretch.entries.into_iter().filter(move |(at, _)| *at > at_last).map(|(_, news)| news);
    (logged, rest.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_nobody_here_was_in_is_there_whole() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        let other = world.another_node().await;
        let mut elsewhere = Elsewhere::new("shared");
        become_member(&mut elsewhere, user_id!("@carol:third"), "join");
        elsewhere.say_next(&alice(), "m.room.member", Some("@dave:third"), json!({ "membership": "ban" }));
        let join = become_member(&mut elsewhere, &user("bob"), "join");
        world.rooms.enter(elsewhere.entry(join)).await.unwrap();
        for rooms in [&world.rooms, &other] {
            check_after(rooms, &elsewhere, join).await;
        }
        for (user_id, expected) in [
            (&*alice(), MembershipState::Join),
            (user_id!("@carol:third"), MembershipState::Join),
            (user_id!("@dave:third"), MembershipState::Ban),
            (&*user("bob"), MembershipState::Join),
        ] {
            assert_eq!(membership(&world, &elsewhere, user_id).await, Some(expected), "{user_id}");
        }
        let mut conn = world.db.read().await.unwrap();
        let servers = store::membership::list_servers(&mut conn, &elsewhere.room_id).await.unwrap();
        assert_eq!(servers.values().copied().collect::<Vec<_>>(), [1, 1, 1], "{servers:?}");
        assert!(store::room::is_open(&mut conn, &elsewhere.room_id).await.unwrap(), "anybody may join it");
        let gaps = store::history::list_gaps(&mut conn, &elsewhere.room_id).await.unwrap();
        assert_eq!(gaps.len(), 1, "before the join");
        drop(conn);

        // Again it is what it was, and it goes on on any node.
        world.rooms.enter(elsewhere.entry(join)).await.unwrap();
        other.send(&message(&elsewhere.room_id, "bob", "hello")).await.unwrap();
        world.rooms.send(&message(&elsewhere.room_id, "bob", "hello again")).await.unwrap();
        drop(other);
        let world = world.restart().await;
        assert_eq!(world.rooms.get(&elsewhere.room_id).await.unwrap().view(|view| view.head.head), 3);
        world.close().await;
    }
}

/// Strangers' memberships are written and not told: only what concerns users of this server.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_whom_of_this_server_it_concerns_and_not_who_else_is_there() {
    let world = RoomWorld::new().await;
    let mut elsewhere = Elsewhere::new("joined");
    become_member(&mut elsewhere, user_id!("@carol:third"), "join");
    elsewhere.say_next(&alice(), "m.room.member", Some("@invited:here"), json!({ "membership": "invite" }));
    let join = become_member(&mut elsewhere, &user("bob"), "join");
    // Of whom that server has told, but who is not invited by now.
    let mut tx = world.db.begin().await.unwrap();
    for name in ["bob", "forgotten"] {
        let membership = OutsideMembership {
            user_id: user(name),
            room_id: elsewhere.room_id.clone(),
            state: OutsideState::Invited,
            sender: alice(),
            stripped_state: Vec::new(),
            event: None,
        };
        store::outside_membership::upsert(&mut tx, &[(Position(1), &membership)]).await.unwrap();
    }
    tx.commit().await.unwrap();

    world.rooms.enter(elsewhere.entry(join)).await.unwrap();
    let (logged, rest) = last_told(&world.rooms).await;
    assert!(logged.is_entry() && logged.stored.follows_gap);
    let told: BTreeSet<(&str, &str)> =
        logged.changes.iter().map(|change| (&*change.kind, &*change.state_key)).collect();
    let expected = [
        ("m.room.create", ""),
        ("m.room.history_visibility", ""),
        ("m.room.join_rules", ""),
        ("m.room.member", "@bob:here"),
        ("m.room.member", "@invited:here"),
    ];
    assert_eq!(told, BTreeSet::from(expected));
    assert_eq!(membership(&world, &elsewhere, &user("invited")).await, Some(MembershipState::Invite));
    let [News::OutsideMembership(ended)] = &*rest else { panic!("{rest:?}") };
    assert_eq!((&ended.user_id, ended.state), (&user("forgotten"), OutsideState::Ended));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_room_is_written_before_the_log_knows_of_it() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        let mut elsewhere = Elsewhere::new("shared");
        let join = become_member(&mut elsewhere, &user("bob"), "join");
        let mut entry = elsewhere.entry(join);
        for number in 0..1_200 {
            let stranger = OwnedUserId::try_from(format!("@number{number}:third")).unwrap();
            entry.state.push(elsewhere.stray_member(&stranger, if number % 3 == 0 { "leave" } else { "join" }));
        }
        let room = world.rooms.enter(entry).await.unwrap();
        assert_eq!(room.view(|view| (view.joined(), view.state.len())), (802, 1_206));
        let (logged, _) = last_told(&world.rooms).await;
        assert_eq!(logged.changes.len(), 4, "the log holds nobody up");
        let mut conn = world.db.read().await.unwrap();
        let servers = store::membership::list_servers(&mut conn, &elsewhere.room_id).await.unwrap();
        assert_eq!(servers.values().copied().collect::<Vec<_>>(), [1, 1, 800]);
        drop((conn, room));
        let world = world.restart().await;
        let room = world.rooms.get(&elsewhere.room_id).await.unwrap();
        assert_eq!(room.view(|view| (view.joined(), view.state.len())), (802, 1_206));
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_was_left_goes_on_with_what_has_become_of_it() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        let other = world.another_node().await;
        let mut elsewhere = Elsewhere::new("shared");
        set_topic(&mut elsewhere, "first");
        let join = become_member(&mut elsewhere, &user("bob"), "join");
        let leave = become_member(&mut elsewhere, &user("bob"), "leave");
        let carol = become_member(&mut elsewhere, user_id!("@carol:third"), "join");
        let topic = set_topic(&mut elsewhere, "second");
        let again = become_member(&mut elsewhere, &user("bob"), "join");
        world.rooms.enter(elsewhere.entry(join)).await.unwrap();
        hear(&world.rooms, &elsewhere, leave).await;
        other.log().refresh().await.unwrap();
        let left = other.find_held(&elsewhere.room_id).await.unwrap().unwrap();
        assert!(matches!(left, Held::Left(_)));

        world.rooms.enter(elsewhere.entry(again)).await.unwrap();
        for rooms in [&world.rooms, &other] {
            check_after(rooms, &elsewhere, again).await;
        }
        assert_eq!(membership(&world, &elsewhere, user_id!("@carol:third")).await, Some(MembershipState::Join));
        // What was before is what it was.
        let stored = async |place: usize| {
            let mut conn = world.db.read().await.unwrap();
            let event_id = elsewhere.events[place].event_id();
            store::event::find(&mut conn, event_id).await.unwrap().unwrap()
        };
        let check_state = async |place: usize| {
            let room = world.rooms.get(&elsewhere.room_id).await.unwrap();
            let before = world.rooms.state_before(&room, &stored(place).await).await.unwrap();
            let event_id = elsewhere.events[place].event_id();
            assert_eq!(ids(&before), elsewhere.ids_before(event_id).into_iter().collect(), "{place}");
        };
        check_state(leave).await;

        // The gap closes, in two pieces.
        for place in [topic, carol] {
            let pdu = &elsewhere.events[place];
            let states = [(pdu.event_id().to_owned(), elsewhere.ids_before(pdu.event_id()))].into();
            let chunk = Chunk { events: vec![Pdu::clone(pdu)], states };
            world.rooms.insert_history(&elsewhere.room_id, &chunk).await.unwrap();
            for place in [leave, place, again] {
                check_state(place).await;
            }
        }
        assert!(stored(carol).await.order > stored(leave).await.order);
        assert!(stored(topic).await.order < stored(again).await.order);
        let gaps = store::history::list_gaps(&mut world.db.read().await.unwrap(), &elsewhere.room_id).await.unwrap();
        assert_eq!(gaps.len(), 1, "before the first join");
        other.send(&message(&elsewhere.room_id, "bob", "back")).await.unwrap();
        drop((left, other));
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_come_at_once_are_both_in() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        let other = world.another_node().await;
        let mut elsewhere = Elsewhere::new("shared");
        let prev: Vec<OwnedEventId> = elsewhere.model.extremities.iter().cloned().collect();
        let mut come = |user_id: OwnedUserId| {
            let value = json!({ "membership": "join" });
            elsewhere.add(&user_id, "m.room.member", Some(user_id.as_str()), value, &prev);
            elsewhere.events.len() - 1
        };
        let (bob, carol) = (come(user("bob")), come(user("carol")));
        let (one, two) = (elsewhere.entry(bob), elsewhere.entry(carol));
        let (one, two) = join(world.rooms.enter(one), other.enter(two)).await;
        drop((one.unwrap(), two.unwrap()));
        for rooms in [&world.rooms, &other] {
            rooms.log().refresh().await.unwrap();
            let state = rooms.get(&elsewhere.room_id).await.unwrap().state();
            for name in ["bob", "carol"] {
                assert_eq!(state.membership(&user(name)), MembershipState::Join, "{name}");
            }
        }
        drop(other);
        world.close().await;
    }
}

/// What a process has written of a room that dies while it enters it is of no use to anybody, and does not stay.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_broken_off_counts_for_nothing() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        let mut elsewhere = Elsewhere::new("shared");
        let (carol, erin) = (user_id!("@carol:third"), user_id!("@erin:third"));
        let gone = become_member(&mut elsewhere, carol, "join");
        let join = become_member(&mut elsewhere, &user("bob"), "join");
        let mut broken = elsewhere.entry(join);
        broken.state.push(elsewhere.stray_member(erin, "join"));
        let begin = async || {
            let entering = Entering::new(&broken, world.rooms.server_name()).unwrap();
            world.rooms.keep_outliers(&elsewhere.room_id, &broken.state).await.unwrap();
            let prepared = world.rooms.prepare(&entering).await.unwrap().unwrap();
            (entering, prepared)
        };
        let (_, prepared) = begin().await;
        assert_eq!(len_of(&world, prepared.trunk).await, 7);
        assert!(world.rooms.find_held(&elsewhere.room_id).await.unwrap().is_none());
        assert_eq!(membership(&world, &elsewhere, &user("bob")).await, None, "nobody is shown it");
        // Not as long as it may be under way.
        world.rooms.clear_broken_entries().await.unwrap();
        assert_eq!(len_of(&world, prepared.trunk).await, 7);
        world.clock.advance(Duration::from_mins(3));
        world.rooms.clear_broken_entries().await.unwrap();
        assert_eq!(len_of(&world, prepared.trunk).await, 0);
        assert_eq!(membership(&world, &elsewhere, erin).await, None);

        // Who comes after that takes over, and it was no death after all.
        let (entering, prepared) = begin().await;
        world.clock.advance(Duration::from_mins(3));
        world.rooms.enter(elsewhere.entry(join)).await.unwrap();
        assert!(!world.rooms.enter_prepared(&entering, &prepared).await.unwrap());
        world.rooms.try_to_clear(&elsewhere.room_id, prepared.trunk).await;
        check_after(&world.rooms, &elsewhere, join).await;
        assert_eq!(len_of(&world, prepared.trunk).await, 0);
        assert_eq!(membership(&world, &elsewhere, erin).await, None);
        assert_eq!(membership(&world, &elsewhere, carol).await, Some(MembershipState::Join), "{gone}");
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lets_nobody_in_lets_nobody_in() {
    let world = RoomWorld::new().await;
    let mut elsewhere = Elsewhere::new("shared");
    elsewhere.say_next(&alice(), "m.room.member", Some("@eve:here"), json!({ "membership": "ban" }));
    let join = become_member(&mut elsewhere, &user("bob"), "join");
    let stranger = become_member(&mut elsewhere, user_id!("@carol:third"), "join");
    let code = async |entry: Entry| match world.rooms.enter(entry).await.map(drop).unwrap_err() {
        Error::Refused { kind, .. } => kind.errcode().to_string(),
        other => panic!("{other}"),
    };
    let mut of_another = elsewhere.entry(join);
    of_another.auth_chain.push(Arc::new(crate::room::testing::pdu_of(&json!({ "state_key": "" }))));
    assert_eq!(code(of_another).await, "M_BAD_JSON", "an event of another room");
    let without_create = elsewhere.entry(join);
    let state = without_create.state.into_iter().filter(|pdu| pdu.kind().to_string() != "m.room.create").collect();
    assert_eq!(code(Entry { state, ..elsewhere.entry(join) }).await, "M_BAD_JSON");
    let version = ruma::RoomVersionId::V10;
    assert_eq!(code(Entry { version, ..elsewhere.entry(join) }).await, "M_BAD_JSON", "another version");
    let version = ruma::RoomVersionId::try_from("org.example.unheard").unwrap();
    assert_eq!(code(Entry { version, ..elsewhere.entry(join) }).await, "M_UNSUPPORTED_ROOM_VERSION");
    assert_eq!(code(elsewhere.entry(stranger)).await, "M_BAD_JSON", "nobody of this server");
    let banned = elsewhere.stray_member(&user("eve"), "join");
    let mut forbidden = elsewhere.entry(join);
    forbidden.auth_chain.extend(forbidden.state.iter().cloned());
    forbidden.join = Pdu::clone(&banned);
    assert_eq!(code(forbidden).await, "M_FORBIDDEN");
    assert!(world.rooms.find_held(&elsewhere.room_id).await.unwrap().is_none());
    world.close().await;
}
