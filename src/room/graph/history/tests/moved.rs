//! What history that moves leaves where it stood: nothing that others see who come to stand there.

use super::*;

/// Alice changes a piece of the state after an event. Returns which event that is.
fn set_after(room: &mut Elsewhere, prev: usize, kind: &str) -> usize {
    let prev = [room.events[prev].event_id().to_owned()];
    room.add(&alice(), kind, Some(""), json!({ "topic": kind }), &prev);
    room.events.len() - 1
}

/// Before and after a restart: from memory and from the database.
async fn check_all(here: Here) {
    here.check(2).await;
    here.check_states().await;
    let Here { world, elsewhere, placed } = here;
    let here = Here { world: world.restart().await, elsewhere, placed };
    here.check(2).await;
    here.check_states().await;
    here.world.close().await;
}

/// A state event that was placed high moves below what it leads to. Two events that do not follow it are placed around
/// where it stood.
#[tokio::test(flavor = "multi_thread")]
async fn what_moved_away_is_no_state_of_what_comes_to_stand_there() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        let (mut elsewhere, joined) = joined_elsewhere();
        let topic = set_after(&mut elsewhere, joined, "m.room.topic");
        let after_topic = elsewhere.say_after(&[topic]);
        let low = elsewhere.say_after(&[after_topic]);
        let beside = elsewhere.say_many_after(joined, 2);
        let both = elsewhere.say_after(&[topic, beside]);
        let high = elsewhere.say_after(&[both]);
        let mut here = Here::enter(world, elsewhere, joined).await;
        here.hear(low).await;
        here.hear(high).await;
        here.insert(&[topic, both]).await;
        here.insert(&[after_topic]).await;
        here.insert(&[beside - 1, beside]).await;
        check_all(here).await;
    }
}

/// An event follows one that was fetched, in a state that is far from the room's own. What it follows moves away, and
/// others are placed around where that stood.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_far_from_the_trunk_does_not_depend_on_where_history_stood() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        let (mut elsewhere, joined) = joined_elsewhere();
        let kinds = ["here.one", "here.two", "here.three", "here.four"];
        let own = kinds.iter().fold(joined, |prev, kind| set_after(&mut elsewhere, prev, kind));
        let fetched = elsewhere.say_after(&[joined]);
        let after_fetched = elsewhere.say_after(&[fetched]);
        let low = elsewhere.say_after(&[after_fetched]);
        let topic = set_after(&mut elsewhere, joined, "m.room.topic");
        let beside = elsewhere.say_after(&[topic]);
        let both = elsewhere.say_after(&[fetched, beside]);
        let high = elsewhere.say_after(&[both]);
        let far = elsewhere.say_after(&[fetched]);
        let mut here = Here::enter(world, elsewhere, joined).await;
        for place in joined + 1..=own {
            here.hear(place).await;
        }
        here.hear(low).await;
        here.hear(high).await;
        here.insert(&[fetched, both]).await;
        here.hear(far).await;
        here.insert(&[after_fetched]).await;
        here.insert(&[topic, beside]).await;
        check_all(here).await;
    }
}
