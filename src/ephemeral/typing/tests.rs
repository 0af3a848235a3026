use std::time::Duration;

use ruma::{MilliSecondsSinceUnixEpoch, OwnedUserId, RoomId, UserId, events::TimelineEventType};
use serde_json::json;

use super::{later, typing_event};
use crate::{
    event::{
        Draft,
        fact::{Fact, Typing, Write},
    },
    ground::position::Position,
    room::graph::append::{Plan, Proposal},
    testing::{World, user},
};

const END: Position = Position(i64::MAX);

impl World {
    async fn typists(&self, room_id: &RoomId, after: Position) -> Option<Vec<OwnedUserId>> {
        self.app.typists.since(room_id, after, END, self.clock.now()).await.unwrap()
    }

    /// Waits for the task that tells who has stopped.
    async fn wait_for_news_after(&self, position: Position) {
        let tail = self.rooms().log().tail();
        tokio::time::timeout(Duration::from_secs(10), tail.wait_for(position.next())).await.unwrap();
    }
}

#[tokio::test]
async fn typing_begins_stops_and_ends_by_itself_when_its_time_is_up() {
    let (alice, bob) = (user("alice"), user("bob"));
    let world = World::new().await;
    let room = world.room(&[&alice, &bob]).await;
    let before = world.reached();
    assert_eq!(world.typists(&room, Position::START).await, None);

    world.app.typists.begin(&alice, &room, Some(Duration::from_secs(5))).await.unwrap();
    world.app.typists.begin(&bob, &room, Some(Duration::from_secs(5_000))).await.unwrap();
    assert_eq!(world.typists(&room, before).await, Some(vec![alice.clone(), bob.clone()]));
    let both = world.reached();
    assert_eq!(world.typists(&room, both).await, None);

    // To go on typing is no news.
    world.app.typists.begin(&alice, &room, Some(Duration::from_secs(5))).await.unwrap();
    assert_eq!(world.typists(&room, both).await, None);

    let typing = world.reached();
    world.clock.advance(Duration::from_secs(6));
    world.wait_for_news_after(typing).await;
    assert_eq!(world.typists(&room, typing).await, Some(vec![bob.clone()]));

    world.app.typists.stop(&bob, &room).await.unwrap();
    assert_eq!(world.typists(&room, typing).await, Some(vec![]));
    assert_eq!(world.typists(&room, Position::START).await, None);
    assert_eq!(world.typists(&room, world.reached()).await, None);
}

#[tokio::test]
async fn nobody_types_longer_than_two_minutes() {
    let alice = user("alice");
    let world = World::new().await;
    let room = world.room(&[&alice]).await;
    world.app.typists.begin(&alice, &room, Some(Duration::from_secs(5_000))).await.unwrap();
    world.clock.advance(Duration::from_secs(121));
    // Before the task has written it, and after.
    assert_eq!(world.typists(&room, Position::START).await, None);
    world.wait_for_news_after(world.reached().before()).await;
    assert_eq!(world.typists(&room, Position::START).await, None);
}

#[tokio::test]
async fn who_typed_before_a_restart_stops_after_it() {
    let (alice, bob) = (user("alice"), user("bob"));
    let world = World::new().await;
    let room = world.room(&[&alice, &bob]).await;
    let quiet = world.room(&[&alice]).await;
    world.app.typists.begin(&alice, &room, Some(Duration::from_mins(1))).await.unwrap();
    world.app.typists.begin(&bob, &room, Some(Duration::from_secs(100))).await.unwrap();
    world.app.typists.begin(&alice, &quiet, None).await.unwrap();
    let typing = world.reached();
    world.app.typists.stop(&alice, &quiet).await.unwrap();

    let world = world.restart().await;
    assert_eq!(world.typists(&room, Position::START).await, Some(vec![alice.clone(), bob.clone()]));
    assert_eq!(world.typists(&quiet, typing).await, Some(vec![]), "it stopped before the restart");
    assert_eq!(world.typists(&quiet, world.reached()).await, None);
    let restarted = world.reached();
    world.clock.advance(Duration::from_secs(61));
    world.wait_for_news_after(restarted).await;
    assert_eq!(world.typists(&room, restarted).await, Some(vec![bob]));
}

#[tokio::test]
async fn only_members_type() {
    let (alice, bob) = (user("alice"), user("bob"));
    let world = World::new().await;
    let room = world.room(&[&alice]).await;
    let refused = world.app.typists.begin(&bob, &room, None).await.unwrap_err();
    assert!(refused.to_string().contains("Join"), "{refused}");
    assert_eq!(world.typists(&room, Position::START).await, None);
}

impl World {
    /// Changes a user's membership several times in one write: each time who does it, and to what.
    async fn move_at_once(&self, room_id: &RoomId, user_id: &UserId, steps: &[(&UserId, &str)], facts: Vec<Fact>) {
        let step = |(sender, membership): &(&UserId, &str)| {
            let content = serde_json::from_value(json!({ "membership": membership })).unwrap();
            let kind = TimelineEventType::RoomMember;
            Proposal::from(Draft::state((*sender).to_owned(), kind, user_id.as_str(), content))
        };
        let plan = |_: &_| {
            let proposals = steps.iter().map(step).collect();
            Ok(Plan { proposals, facts: facts.clone(), ..Plan::default() })
        };
        self.rooms().append(room_id, plan).await.unwrap();
    }
}

fn begins(room_id: &RoomId, user_id: &UserId, until: MilliSecondsSinceUnixEpoch) -> Fact {
    Fact::Typing(Typing { room_id: room_id.to_owned(), user_id: user_id.to_owned(), until: Some(until) })
}

#[tokio::test]
async fn whoever_is_out_of_a_room_for_a_moment_does_not_type_there() {
    let (alice, bob, carol, dave) = (user("alice"), user("bob"), user("carol"), user("dave"));
    for world in World::on_each_engine().await {
        let room = world.room(&[&alice, &bob, &carol, &dave]).await;
        for typist in [&bob, &carol, &dave] {
            world.app.typists.begin(typist, &room, None).await.unwrap();
        }
        assert_eq!(world.typists(&room, Position::START).await.unwrap().len(), 3);
        world.move_at_once(&room, &bob, &[(&alice, "leave"), (&alice, "invite")], Vec::new()).await;
        world.move_at_once(&room, &carol, &[(&carol, "leave"), (&carol, "join")], Vec::new()).await;
        // What is said of them once they are back holds.
        let until = later(world.clock.now(), super::USUAL);
        let facts = vec![begins(&room, &dave, until)];
        world.move_at_once(&room, &dave, &[(&dave, "leave"), (&dave, "join")], facts).await;
        assert_eq!(world.typists(&room, Position::START).await, Some(vec![dave.clone()]));
        let world = world.restart().await;
        assert_eq!(world.typists(&room, Position::START).await, Some(vec![dave.clone()]), "the database says the same");
        world.close().await;
    }
}

#[tokio::test]
async fn whoever_leaves_while_it_is_on_its_way_that_they_type_does_not_type() {
    let (alice, bob, carol) = (user("alice"), user("bob"), user("carol"));
    for world in World::on_each_engine().await {
        let room = world.room(&[&alice, &bob]).await;
        let until = later(world.clock.now(), super::USUAL);
        let typing = world.rooms().log().submit(Write::fact(begins(&room, &bob, until)));
        world.move_at_once(&room, &bob, &[(&bob, "leave"), (&bob, "join")], Vec::new()).await;
        typing.committed().await.unwrap();
        let stranger = world.rooms().log().submit(Write::fact(begins(&room, &carol, until)));
        stranger.committed().await.unwrap();
        assert_eq!(world.typists(&room, Position::START).await, None);
        let world = world.restart().await;
        assert_eq!(world.typists(&room, Position::START).await, None, "the database says the same");
        world.close().await;
    }
}

#[test]
fn typing_as_clients_read_it() {
    let raw = typing_event(vec![user("alice")]).unwrap();
    assert_eq!(raw.json().get(), r#"{"type":"m.typing","content":{"user_ids":["@alice:localhost"]}}"#);
}
