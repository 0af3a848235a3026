use std::time::Duration;

use ruma::{OwnedEventId, OwnedRoomId, RoomId, UserId, events::TimelineEventType};
use serde_json::{Value, json};

use super::{Action, DelayedEvent, Finalised, NewDelayedEvent, TooLong, store};
use crate::{
    error::Error,
    event::{Content, Transaction},
    room::{Author, Message, NewState},
    store::{
        account,
        device::{self, DeviceSelection},
        event,
    },
    testing::{World, user},
};

fn content(value: Value) -> Content {
    serde_json::from_value(value).unwrap()
}

fn message(room_id: &RoomId, sender: &UserId, body: &str) -> NewDelayedEvent {
    NewDelayedEvent {
        sender: sender.to_owned(),
        device_id: "PHONE".into(),
        transaction_id: Some(body.into()),
        room_id: room_id.to_owned(),
        kind: TimelineEventType::RoomMessage,
        state_key: None,
        content: content(json!({ "msgtype": "m.text", "body": body })),
        delay: Duration::from_secs(10),
    }
}

fn topic(room_id: &RoomId, sender: &UserId, topic: &str) -> NewDelayedEvent {
    NewDelayedEvent {
        kind: TimelineEventType::RoomTopic,
        state_key: Some(String::new()),
        content: content(json!({ "topic": topic })),
        ..message(room_id, sender, topic)
    }
}

impl World {
    /// A room of somebody who has an account.
    async fn room_with_account(&self, user_id: &UserId) -> OwnedRoomId {
        let mut tx = self.app.db.begin().await.unwrap();
        assert!(account::insert(&mut tx, user_id, None, false, 0).await.unwrap());
        device::upsert(&mut tx, user_id, "PHONE".into(), None, 0, "127.0.0.1").await.unwrap();
        tx.commit().await.unwrap();
        self.room(&[user_id]).await
    }

    async fn schedule(&self, new: &NewDelayedEvent) -> String {
        self.app.delayed_events.schedule(new).await.unwrap().unwrap()
    }

    /// How an event has ended, once it has.
    async fn end_of(&self, delay_id: &str) -> DelayedEvent {
        let ended = async {
            loop {
                let event = self.app.delayed_events.find(delay_id, None).await.unwrap();
                if event.finalised.is_some() {
                    return event;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap()
    }

    async fn event_of(&self, delay_id: &str) -> Option<OwnedEventId> {
        self.end_of(delay_id).await.finalised.unwrap().event_id
    }

    /// What another node does that is about to send an event.
    async fn claim(&self, delay_id: &str) {
        let mut tx = self.app.db.begin().await.unwrap();
        let until = i64::from(self.clock.now().get()) + 5_000;
        assert!(store::claim_at_once(&mut tx, delay_id, until).await.unwrap());
        tx.commit().await.unwrap();
    }

    /// How many events the room has.
    async fn count(&self, room_id: &RoomId) -> i64 {
        self.rooms().get(room_id).await.unwrap().view(|view| view.head.head)
    }
}

fn goodbye(room_id: &RoomId, sender: &UserId) -> NewDelayedEvent {
    NewDelayedEvent {
        kind: "org.matrix.msc3401.call.member".into(),
        state_key: Some(sender.to_string()),
        content: content(json!({})),
        ..message(room_id, sender, "goodbye")
    }
}

/// A node has claimed what its session can't say any more. Whether it still sends it or dies, nothing is sent after.
#[tokio::test]
async fn a_session_that_is_thrown_out_says_nothing_more_but_goodbye() {
    for world in World::on_each_engine().await {
        let alice = user("alice");
        let room = world.room_with_account(&alice).await;
        let new = message(&room, &alice, "still here");
        let (said, claimed) = (world.schedule(&new).await, world.schedule(&message(&room, &alice, "claimed")).await);
        let sent = world.schedule(&message(&room, &alice, "sent")).await;
        let goodbye = world.schedule(&goodbye(&room, &alice)).await;
        for delay_id in [&claimed, &sent] {
            world.claim(delay_id).await;
        }
        let phone = DeviceSelection::These(&["PHONE"]);
        world.app.accounts.delete_devices(&alice, phone).await.unwrap();
        // It had left before.
        let before = Message {
            room_id: room.clone(),
            author: Author::User(alice.clone()),
            kind: new.kind.clone(),
            content: new.content.clone(),
            transaction: Transaction::delayed(&sent),
        };
        let event_id = world.rooms().send(&before).await.unwrap();
        let mut tx = world.app.db.begin().await.unwrap();
        let finalised = Finalised { ts: 1, event_id: Some(event_id.clone()), error: None };
        store::finalise(&mut tx, &sent, &finalised).await.unwrap();
        tx.commit().await.unwrap();

        // The clock stands still: it is not its time by which it is sent.
        assert!(world.event_of(&goodbye).await.is_some());
        assert_eq!(world.event_of(&sent).await, Some(event_id));
        world.clock.advance(Duration::from_mins(1));
        for delay_id in [&said, &claimed] {
            let ended = world.end_of(delay_id).await.finalised.unwrap();
            assert_eq!(ended.event_id, None);
            assert!(ended.error.unwrap().contains("ended from elsewhere"));
            let late = world.app.delayed_events.act(delay_id, None, Action::Send).await;
            assert!(matches!(late, Err(Error::Refused { .. })), "{late:?}");
        }
        let late = world.app.delayed_events.schedule(&message(&room, &alice, "late")).await;
        assert!(matches!(late, Err(Error::Refused { .. })), "a session that is over schedules nothing: {late:?}");
        world.close().await;
    }
}

/// The node has died between writing the event and saying so.
#[tokio::test]
async fn what_was_sent_before_a_crash_is_not_sent_again() {
    let alice = user("alice");
    let world = World::new().await;
    let room = world.room_with_account(&alice).await;
    let new = message(&room, &alice, "once");
    let delay_id = world.schedule(&new).await;
    world.claim(&delay_id).await;
    let sent = Message {
        room_id: room.clone(),
        author: Author::User(alice.clone()),
        kind: new.kind.clone(),
        content: new.content.clone(),
        transaction: Transaction::delayed(&delay_id),
    };
    let event_id = world.rooms().send(&sent).await.unwrap();
    let count = world.count(&room).await;

    let world = world.restart().await;
    world.clock.advance(Duration::from_secs(6));
    assert_eq!(world.event_of(&delay_id).await, Some(event_id));
    assert_eq!(world.count(&room).await, count);
    world.close().await;
}

#[tokio::test]
async fn state_that_was_set_before_a_crash_is_not_set_again_over_what_came_since() {
    let alice = user("alice");
    let world = World::new().await;
    let room = world.room_with_account(&alice).await;
    let new = topic(&room, &alice, "planned");
    let delay_id = world.schedule(&new).await;
    world.claim(&delay_id).await;
    let state = |content: &Content, transaction| NewState {
        room_id: room.clone(),
        author: Author::User(alice.clone()),
        kind: TimelineEventType::RoomTopic,
        state_key: String::new(),
        content: content.clone(),
        transaction,
    };
    let event_id = world.rooms().set_state(&state(&new.content, Some(Transaction::delayed(&delay_id)))).await.unwrap();
    let newer = content(json!({ "topic": "changed since" }));
    world.rooms().set_state(&state(&newer, None)).await.unwrap();
    let count = world.count(&room).await;

    world.clock.advance(Duration::from_secs(6));
    assert_eq!(world.event_of(&delay_id).await, Some(event_id));
    assert_eq!(world.count(&room).await, count);
    world.close().await;
}

#[tokio::test]
async fn what_a_node_has_claimed_and_not_sent_is_sent_when_the_claim_has_run_out() {
    let alice = user("alice");
    let world = World::new().await;
    let room = world.room_with_account(&alice).await;
    let (claimed, free) = (message(&room, &alice, "claimed"), message(&room, &alice, "free"));
    let (claimed, free) = (world.schedule(&claimed).await, world.schedule(&free).await);
    world.clock.advance(Duration::from_secs(9));
    world.claim(&claimed).await;
    world.clock.advance(Duration::from_secs(2));
    assert!(world.event_of(&free).await.is_some());
    assert!(world.app.delayed_events.find(&claimed, None).await.unwrap().sending, "nobody else touches it");
    world.clock.advance(Duration::from_secs(4));
    assert!(world.event_of(&claimed).await.is_some());
    world.close().await;
}

#[tokio::test]
async fn what_is_tried_again_still_comes_before_what_was_due_after_it() {
    let alice = user("alice");
    let world = World::new().await;
    let room = world.room_with_account(&alice).await;
    let mut scheduled = Vec::new();
    for (body, delay) in [("first", 10), ("second", 11), ("third", 12)] {
        let delay = Duration::from_secs(delay);
        scheduled.push(world.schedule(&NewDelayedEvent { delay, ..message(&room, &alice, body) }).await);
    }
    world.clock.advance(Duration::from_secs(9));
    world.claim(&scheduled[0]).await;
    // Everything is due at once, the first since its claim has run out.
    world.clock.advance(Duration::from_secs(6));
    let mut places = Vec::new();
    for delay_id in &scheduled {
        let event_id = world.event_of(delay_id).await.unwrap();
        let event = event::find(&mut world.app.db.read().await.unwrap(), &event_id).await.unwrap();
        places.push(event.unwrap().key);
    }
    assert!(places.is_sorted(), "{places:?}");
    world.close().await;
}

#[tokio::test]
async fn a_restart_waits_for_whoever_is_about_to_send() {
    let alice = user("alice");
    let world = World::new().await;
    let room = world.room_with_account(&alice).await;
    let delay_id = world.schedule(&message(&room, &alice, "now or later")).await;
    world.claim(&delay_id).await;
    let restarted = world.app.delayed_events.act(&delay_id, None, Action::Restart);
    let run_out = async { world.clock.advance(Duration::from_secs(6)) };
    let (restarted, ()) = tokio::join!(restarted, run_out);
    assert!(matches!(restarted, Err(Error::Refused { .. })), "it was sent: {restarted:?}");
    assert!(world.event_of(&delay_id).await.is_some());
    world.close().await;
}

#[tokio::test]
async fn what_comes_after_its_sender_has_been_deactivated_is_not_scheduled() {
    let alice = user("alice");
    let world = World::new().await;
    let room = world.room_with_account(&alice).await;
    world.app.accounts.deactivate(&alice, false).await.unwrap();
    let late = world.app.delayed_events.schedule(&message(&room, &alice, "late")).await;
    assert!(matches!(late, Err(Error::Refused { .. })), "{late:?}");
    world.close().await;
}

#[tokio::test]
async fn what_has_ended_is_forgotten_after_a_week() {
    let alice = user("alice");
    let world = World::new().await;
    let room = world.room_with_account(&alice).await;
    let delay_id = world.schedule(&message(&room, &alice, "never")).await;
    world.app.delayed_events.act(&delay_id, None, Action::Cancel).await.unwrap();
    world.clock.advance(Duration::from_hours(7 * 24 - 1));
    world.app.delayed_events.clear_finalised().await.unwrap();
    world.app.delayed_events.find(&delay_id, None).await.unwrap();
    world.clock.advance(Duration::from_hours(2));
    world.app.delayed_events.clear_finalised().await.unwrap();
    assert!(world.app.delayed_events.find(&delay_id, None).await.is_err());
    world.close().await;
}

#[tokio::test]
async fn the_longest_delay_is_a_day() {
    let alice = user("alice");
    let world = World::new().await;
    let room = world.room_with_account(&alice).await;
    let delayed = |delay| NewDelayedEvent { delay, ..message(&room, &alice, "far") };
    let day = Duration::from_hours(24);
    let too_long = world.app.delayed_events.schedule(&delayed(day + Duration::from_millis(1))).await;
    assert_eq!(too_long.unwrap(), Err(TooLong));
    world.schedule(&delayed(day)).await;
    world.close().await;
}
