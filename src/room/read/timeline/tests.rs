//! Pagination sees everything that the user may see, once, whichever way it goes.

use ruma::{OwnedRoomId, RoomVersionId, api::Direction};
use serde_json::json;

use super::*;
use crate::{
    error::Error,
    event::fact::{Fact, Forgotten, Write},
    room::{
        testing::text,
        world::{RoomWorld, json as canonical, user},
    },
};

fn of_types(types: &[&str]) -> RoomEventFilter {
    let mut filter = RoomEventFilter::default();
    filter.types = Some(types.iter().map(ToString::to_string).collect());
    filter
}

const NOBODY: &str = "nobody";

async fn walk(test: &RoomWorld, reading: &mut ReadableRoom, direction: Direction, limit: usize) -> Vec<Order> {
    walk_filtered(test, reading, direction, limit, &RoomEventFilter::default()).await.0
}

/// Every page to the end, with how many there were.
async fn walk_filtered(
    test: &RoomWorld,
    reading: &mut ReadableRoom,
    direction: Direction,
    limit: usize,
    filter: &RoomEventFilter,
) -> (Vec<Order>, usize) {
    let (mut seen, mut from, mut pages) = (Vec::new(), None, 0);
    loop {
        let walk = Walk::new(reading, direction, (from, None), limit, filter);
        let page = test.rooms.page(reading, &walk).await.unwrap();
        assert!(page.events.len() <= limit);
        assert!(page.events.iter().all(|event| reading.sight.membership_at(event.order).is_some()));
        seen.extend(page.events.iter().map(|event| event.order));
        pages += 1;
        let Some(end) = page.end else { return (seen, pages) };
        assert_ne!(from, Some(end), "a page must lead somewhere");
        from = Some(end);
    }
}

async fn visible(test: &RoomWorld, room_id: &OwnedRoomId, name: &str) -> Vec<Order> {
    let reading = test.rooms.open(room_id, &user(name)).await.unwrap();
    let mut conn = test.rooms.0.db.read().await.unwrap();
    let all = store::event::list_forward(&mut conn, room_id, Order::START, reading.until, 10_000).await.unwrap();
    all.iter().filter(|event| reading.sight.sees(event)).map(|event| event.order).collect()
}

/// A room with more events than memory holds, in which bob comes and goes under changing visibilities.
async fn eventful(test: &RoomWorld) -> OwnedRoomId {
    let room_id = test.create_room(RoomVersionId::V12, "shared").await;
    let bodies = vec!["hello"; 30];
    for visibility in ["joined", "invited", "shared", "world_readable", "joined"] {
        test.say(&room_id, "alice", &bodies).await;
        test.set(&room_id, "alice", "m.room.history_visibility", "", json!({ "history_visibility": visibility })).await;
        test.say(&room_id, "alice", &["alone"]).await;
        test.member(&room_id, "alice", "bob", "invite").await;
        test.say(&room_id, "alice", &["invited"]).await;
        test.member(&room_id, "bob", "bob", "join").await;
        test.say(&room_id, "bob", &["together"]).await;
        test.member(&room_id, "bob", "bob", "leave").await;
    }
    test.say(&room_id, "alice", &bodies).await;
    room_id
}

#[tokio::test]
async fn every_visible_event_is_seen_once_in_both_directions() {
    let mut test = RoomWorld::new().await;
    let room_id = eventful(&test).await;
    for _ in 0..2 {
        for name in ["alice", "bob"] {
            let expected = visible(&test, &room_id, name).await;
            assert!(expected.len() > 64, "more than memory holds");
            for limit in [1, 7, 100] {
                let mut reading = test.rooms.open(&room_id, &user(name)).await.unwrap();
                assert_eq!(walk(&test, &mut reading, Direction::Forward, limit).await, expected);
                let mut seen = walk(&test, &mut reading, Direction::Backward, limit).await;
                seen.reverse();
                assert_eq!(seen, expected);
            }
        }
        // Once from memory, once as another process finds it.
        test = test.restart().await;
    }
}

#[tokio::test]
async fn a_page_full_of_filtered_events_does_not_end_pagination() {
    let test = RoomWorld::new().await;
    let room_id = test.create_room(RoomVersionId::V11, "shared").await;
    let mut topics = Vec::new();
    for topic in ["one", "two", "three"] {
        topics.push(test.set(&room_id, "alice", "m.room.topic", "", json!({ "topic": topic })).await);
        test.say(&room_id, "alice", &vec!["noise"; MAX_SEARCH / 2]).await;
    }
    let filter = of_types(&["m.room.top*"]);
    let mut reading = test.rooms.open(&room_id, &user("alice")).await.unwrap();
    for direction in [Direction::Backward, Direction::Forward] {
        let (seen, pages) = walk_filtered(&test, &mut reading, direction, 10, &filter).await;
        assert_eq!(seen.len(), topics.len());
        assert!(pages > 1, "a search is bounded");
    }
}

#[tokio::test]
async fn a_filter_that_nothing_can_pass_ends_at_once() {
    let test = RoomWorld::new().await;
    let room_id = test.create_room(RoomVersionId::V11, "shared").await;
    let filter = of_types(&[]);
    let mut reading = test.rooms.open(&room_id, &user("alice")).await.unwrap();
    let (seen, pages) = walk_filtered(&test, &mut reading, Direction::Backward, 10, &filter).await;
    assert_eq!((seen, pages), (Vec::new(), 1));
}

#[tokio::test]
async fn unknown_and_forbidden_rooms_look_alike() {
    let test = RoomWorld::new().await;
    let room_id = test.create_room(RoomVersionId::V12, "shared").await;
    test.member(&room_id, "alice", "bob", "invite").await;
    let refusal = async |room: &str, name: &str| {
        let room = OwnedRoomId::try_from(room).unwrap();
        match test.rooms.open(&room, &user(name)).await {
            Err(Error::Refused { kind, message }) => (kind.errcode().to_string(), message),
            _ => panic!("{name} must not read this"),
        }
    };
    let unknown = refusal("!nowhere:here", NOBODY).await;
    assert_eq!(unknown.0, "M_FORBIDDEN");
    assert_eq!(refusal(room_id.as_str(), NOBODY).await, unknown);
    assert_eq!(refusal(room_id.as_str(), "bob").await, unknown, "an invitation opens nothing");

    test.member(&room_id, "bob", "bob", "join").await;
    test.member(&room_id, "bob", "bob", "leave").await;
    assert!(test.rooms.open(&room_id, &user("bob")).await.is_ok());
    let (user_id, room) = (user("bob"), room_id.clone());
    test.rooms.log().append(Write::fact(Fact::Forgotten(Forgotten { user_id, room_id: room }))).await.unwrap();
    assert_eq!(refusal(room_id.as_str(), "bob").await, unknown, "a forgotten room is gone");
}

#[tokio::test]
async fn a_leaver_reads_the_room_as_it_was() {
    let test = RoomWorld::new().await;
    let room_id = test.create_room(RoomVersionId::V12, "shared").await;
    test.member(&room_id, "bob", "bob", "join").await;
    test.set(&room_id, "alice", "m.room.name", "", json!({ "name": "old" })).await;
    let left = test.member(&room_id, "bob", "bob", "leave").await;
    let secret = test.say(&room_id, "alice", &["secret"]).await.remove(0);
    test.set(&room_id, "alice", "m.room.name", "", json!({ "name": "new" })).await;
    test.member(&room_id, "carol", "carol", "join").await;

    let mut reading = test.rooms.open(&room_id, &user("bob")).await.unwrap();
    let walk = Walk::new(&reading, Direction::Backward, (None, None), 1, &EVERYTHING);
    let newest = test.rooms.page(&mut reading, &walk).await.unwrap();
    assert_eq!(newest.events[0].pdu.event_id(), left.event_id());
    assert!(test.rooms.find_event(&mut reading, secret.event_id()).await.unwrap().is_none());
    assert!(test.rooms.context(&mut reading, secret.event_id(), 10, &EVERYTHING).await.unwrap().is_none());
    let name = test.rooms.readable_state_event(&reading, "m.room.name", "").await.unwrap().unwrap();
    assert!(name.content().get().contains("old"));
    let members =
        test.rooms.list_members(&reading, None, &crate::room::read::members::MemberFilter::default()).await.unwrap();
    assert_eq!(members.len(), 2, "alice and bob, not carol");
}

static EVERYTHING: std::sync::LazyLock<RoomEventFilter> = std::sync::LazyLock::new(RoomEventFilter::default);

#[tokio::test]
async fn the_context_of_an_event_joins_onto_pages_without_gap_or_overlap() {
    let test = RoomWorld::new().await;
    let room_id = test.create_room(RoomVersionId::V12, "shared").await;
    test.member(&room_id, "bob", "bob", "join").await;
    let said = test.say(&room_id, "alice", &vec!["hello"; 20]).await;
    let middle = &said[10];
    let all = visible(&test, &room_id, "bob").await;
    for limit in [0, 1, 2, 5, 200] {
        let mut reading = test.rooms.open(&room_id, &user("bob")).await.unwrap();
        let context = test.rooms.context(&mut reading, middle.event_id(), limit, &EVERYTHING).await.unwrap().unwrap();
        assert!(context.around.before.len() + context.around.after.len() <= limit);
        let earlier = Walk::new(&reading, Direction::Backward, (Some(context.around.start), None), 200, &EVERYTHING);
        let earlier = test.rooms.page(&mut reading, &earlier).await.unwrap();
        let later = Walk::new(&reading, Direction::Forward, (Some(context.around.end), None), 200, &EVERYTHING);
        let later = test.rooms.page(&mut reading, &later).await.unwrap();
        let mut seen: Vec<Order> = earlier.events.iter().rev().map(|event| event.order).collect();
        seen.extend(context.around.before.iter().rev().map(|event| event.order));
        seen.push(context.event.order);
        seen.extend(context.around.after.iter().chain(&later.events).map(|event| event.order));
        assert_eq!(seen, all, "limit {limit}");
    }
}

#[tokio::test]
async fn a_page_that_is_cut_at_a_gap_leads_on_from_there() {
    let test = RoomWorld::new().await;
    let room_id = test.create_room(RoomVersionId::V12, "shared").await;
    let said = test.say(&room_id, "alice", &["hello"; 10]).await;
    let reading = test.rooms.open(&room_id, &user("alice")).await.unwrap();
    for direction in [Direction::Backward, Direction::Forward] {
        let mut reading = test.rooms.open(&room_id, &user("alice")).await.unwrap();
        let all = walk(&test, &mut reading, direction, 200).await;
        let gap = test.rooms.find_event(&mut reading, said[5].event_id()).await.unwrap().unwrap().order;
        let first = Walk::new(&reading, direction, (None, None), 200, &EVERYTHING);
        let page = test.rooms.page(&mut reading, &first).await.unwrap();
        assert!(first.looked_at(&reading, &page).1 >= all.iter().copied().max().unwrap());
        let cut = page.until_gap(direction, gap);
        let mut seen: Vec<Order> = cut.events.iter().map(|event| event.order).collect();
        assert!(!seen.is_empty() && seen.len() < all.len());
        assert_eq!(seen.contains(&gap), direction == Direction::Backward, "what follows the gap is before it");
        let rest = Walk::new(&reading, direction, (cut.end, None), 200, &EVERYTHING);
        let rest = test.rooms.page(&mut reading, &rest).await.unwrap();
        // The gap lies just before that event, where this walk goes on.
        seen.extend(rest.events.iter().map(|event| event.order));
        assert_eq!(seen, all);
    }
    // Where nothing comes before the gap, all of the page is what there is to read.
    let page = || EventPage { events: Vec::new(), end: Some(reading.until) };
    assert_eq!(page().until_gap(Direction::Backward, Order::START).end, page().end);
}

#[tokio::test]
async fn the_sender_of_every_event_of_a_page_is_known() {
    let test = RoomWorld::new().await;
    let room_id = test.create_room(RoomVersionId::V12, "shared").await;
    for name in ["bob", "carol"] {
        test.member(&room_id, name, name, "join").await;
        test.say(&room_id, name, &["hello"]).await;
        test.member(&room_id, name, name, "leave").await;
    }
    // Further back than memory can undo.
    for number in 0..300 {
        test.set(&room_id, "alice", "m.room.topic", "", json!({ "topic": number })).await;
    }
    let mut reading = test.rooms.open(&room_id, &user("alice")).await.unwrap();
    let walk = Walk::new(&reading, Direction::Forward, (None, None), 20, &EVERYTHING);
    let page = test.rooms.page(&mut reading, &walk).await.unwrap();
    let members = test.rooms.list_senders(&reading, &page.events).await.unwrap();
    for event in &page.events {
        assert!(members.iter().any(|member| member.state_key() == Some(event.pdu.sender().as_str())));
    }
    assert_eq!(members.len(), 3);
}

#[tokio::test]
async fn redacted_content_is_not_told_as_previous_content() {
    let test = RoomWorld::new().await;
    let room_id = test.create_room(RoomVersionId::V12, "shared").await;
    let secret = test.set(&room_id, "alice", "m.room.topic", "", json!({ "topic": "secret" })).await;
    let next = test.set(&room_id, "alice", "m.room.topic", "", json!({ "topic": "harmless" })).await;
    let mut redaction = text("alice", "");
    redaction.kind = "m.room.redaction".into();
    redaction.content = canonical(json!({}));
    redaction.redacts = Some(secret.event_id().to_owned());
    let plan = |_: &crate::room::graph::head::Head| {
        let proposal =
            crate::room::graph::append::Proposal { redacts: Some(Arc::clone(&secret)), ..redaction.clone().into() };
        Ok(crate::room::graph::append::Plan::of(proposal))
    };
    test.rooms.append(&room_id, plan).await.unwrap();

    let mut reading = test.rooms.open(&room_id, &user("alice")).await.unwrap();
    let walk = Walk::new(&reading, Direction::Backward, (None, None), 10, &EVERYTHING);
    let page = test.rooms.page(&mut reading, &walk).await.unwrap();
    let event = page.events.iter().find(|event| event.pdu.event_id() == next.event_id()).unwrap();
    assert_eq!(event.replaces.as_ref().unwrap().content().get(), "{}");
}
