use ruma::{EventId, OwnedEventId, RoomId, UserId, api::error::ErrorKind, events::receipt::ReceiptThread};
use serde_json::{Value, json};

use super::{ReadMarkers, receipt_events};
use crate::{
    error::Error,
    ground::position::Position,
    testing::{World, user},
};

const END: Position = Position(i64::MAX);

fn read(event_id: &EventId) -> ReadMarkers {
    ReadMarkers { read: Some(event_id.to_owned()), ..ReadMarkers::default() }
}

fn threaded(event_id: &EventId, thread: &str) -> ReadMarkers {
    ReadMarkers { thread: ReceiptThread::try_from(Some(thread)).unwrap(), ..read(event_id) }
}

impl World {
    async fn mark(&self, user_id: &UserId, room_id: &RoomId, marks: ReadMarkers) -> Result<(), ErrorKind> {
        match self.app.receipts.mark(user_id, room_id, marks).await {
            Ok(()) => Ok(()),
            Err(Error::Refused { kind, .. }) => Err(kind),
            Err(error) => panic!("{error}"),
        }
    }

    /// What `reader` sees: user, type, thread and event.
    async fn receipts(&self, room_id: &RoomId, reader: &UserId) -> Vec<(String, String, String, OwnedEventId)> {
        let since = self.app.receipts.since(room_id, Position::START, END, reader).await.unwrap();
        let shown = since.iter().map(|(_, r)| {
            (r.user_id.localpart().to_owned(), r.receipt_type.clone(), r.thread_id.clone(), r.event_id.clone())
        });
        shown.collect()
    }
}

fn shown(user: &str, kind: &str, thread: &str, event_id: &EventId) -> (String, String, String, OwnedEventId) {
    (user.to_owned(), kind.to_owned(), thread.to_owned(), event_id.to_owned())
}

#[tokio::test]
async fn a_private_receipt_is_shown_to_its_owner_alone_and_survives_a_restart() {
    let (alice, bob) = (user("alice"), user("bob"));
    let world = World::new().await;
    let room = world.room(&[&alice, &bob]).await;
    let event = world.say(&room, &alice, "hello").await;
    let marks = ReadMarkers { read_private: Some(event.clone()), ..ReadMarkers::default() };
    world.mark(&bob, &room, marks).await.unwrap();
    world.mark(&alice, &room, read(&event)).await.unwrap();

    let of_alice = shown("alice", "m.read", "", &event);
    let of_bob = shown("bob", "m.read.private", "", &event);
    let both = [of_bob, of_alice];
    assert_eq!(world.receipts(&room, &alice).await, both[1..]);
    assert_eq!(world.receipts(&room, &bob).await, both);

    let world = world.restart().await;
    assert_eq!(world.receipts(&room, &alice).await, both[1..]);
    assert_eq!(world.receipts(&room, &bob).await, both);
}

#[tokio::test]
async fn a_receipt_never_moves_back_and_nobody_is_told_that_it_would_have() {
    let (alice, bob) = (user("alice"), user("bob"));
    let world = World::new().await;
    let room = world.room(&[&alice, &bob]).await;
    let first = world.say(&room, &alice, "one").await;
    let second = world.say(&room, &alice, "two").await;
    world.mark(&bob, &room, read(&second)).await.unwrap();
    let reached = world.reached();
    world.mark(&bob, &room, read(&first)).await.unwrap();
    assert_eq!(world.receipts(&room, &alice).await, [shown("bob", "m.read", "", &second)]);
    assert_eq!(world.reached(), reached);

    // After a restart the server does not remember, and asks the database to decide.
    let world = world.restart().await;
    world.mark(&bob, &room, read(&first)).await.unwrap();
    assert_eq!(world.receipts(&room, &alice).await, [shown("bob", "m.read", "", &second)]);
    let since = world.app.receipts.since(&room, reached, END, &alice).await.unwrap();
    assert!(since.is_empty(), "{since:?}");
}

#[tokio::test]
async fn one_batch_with_a_receipt_before_and_one_behind_keeps_the_one_ahead() {
    let (alice, bob) = (user("alice"), user("bob"));
    let world = World::new().await;
    let room = world.room(&[&alice, &bob]).await;
    let mut events = Vec::new();
    for body in ["one", "two", "three"] {
        events.push(world.say(&room, &alice, body).await);
    }
    let marks = [2, 0, 1].map(|i: usize| world.app.receipts.mark(&bob, &room, read(&events[i])));
    futures_util::future::try_join_all(marks).await.unwrap();
    assert_eq!(world.receipts(&room, &alice).await, [shown("bob", "m.read", "", &events[2])]);
    let world = world.restart().await;
    assert_eq!(world.receipts(&room, &alice).await, [shown("bob", "m.read", "", &events[2])]);
}

#[tokio::test]
async fn a_threaded_receipt_needs_an_event_of_that_thread() {
    let (alice, bob) = (user("alice"), user("bob"));
    let world = World::new().await;
    let room = world.room(&[&alice, &bob]).await;
    let root = world.say(&room, &alice, "root").await;
    let reply = world.reply(&room, &bob, &root).await;
    let relation = json!({ "rel_type": "m.reference", "event_id": reply });
    let content = json!({ "msgtype": "m.text", "body": "about the reply", "m.relates_to": relation });
    let indirect = world.message(&room, &bob, content).await;
    let other = world.say(&room, &alice, "other").await;
    let thread = root.as_str();

    assert_eq!(world.mark(&bob, &room, threaded(&reply, thread)).await, Ok(()));
    assert_eq!(world.mark(&bob, &room, threaded(&indirect, thread)).await, Ok(()));
    assert_eq!(world.mark(&bob, &room, threaded(&root, thread)).await, Ok(()));
    assert_eq!(world.mark(&bob, &room, threaded(&root, "main")).await, Ok(()));
    assert_eq!(world.mark(&bob, &room, threaded(&other, "main")).await, Ok(()));
    for (event, thread) in [(&reply, "main"), (&indirect, "main"), (&other, thread), (&reply, ""), (&reply, "x")] {
        assert_eq!(world.mark(&bob, &room, threaded(event, thread)).await, Err(ErrorKind::InvalidParam), "{thread}");
    }
    let marks = ReadMarkers { fully_read: Some(other.clone()), ..threaded(&other, "main") };
    assert_eq!(world.mark(&bob, &room, marks).await, Err(ErrorKind::InvalidParam));
}

#[tokio::test]
async fn only_members_mark_and_only_events_of_the_room() {
    let (alice, bob) = (user("alice"), user("bob"));
    let world = World::new().await;
    let room = world.room(&[&alice]).await;
    let elsewhere = world.room(&[&alice]).await;
    let event = world.say(&room, &alice, "one").await;
    let foreign = world.say(&elsewhere, &alice, "two").await;

    assert_eq!(world.mark(&bob, &room, read(&event)).await, Err(ErrorKind::Forbidden));
    assert_eq!(world.mark(&alice, &room, read(&foreign)).await, Err(ErrorKind::NotFound));
    let unknown = EventId::parse("$unknown").unwrap();
    assert_eq!(world.mark(&alice, &room, read(&unknown)).await, Err(ErrorKind::NotFound));
    // All or nothing.
    let marks = ReadMarkers { fully_read: Some(unknown), ..read(&event) };
    assert_eq!(world.mark(&alice, &room, marks).await, Err(ErrorKind::NotFound));
    assert!(world.receipts(&room, &alice).await.is_empty());
}

#[tokio::test]
async fn the_fully_read_marker_is_account_data_and_moves_forward_only() {
    let alice = user("alice");
    let world = World::new().await;
    let room = world.room(&[&alice]).await;
    let first = world.say(&room, &alice, "one").await;
    let second = world.say(&room, &alice, "two").await;
    let marker = |event: &EventId| ReadMarkers { fully_read: Some(event.to_owned()), ..ReadMarkers::default() };
    let (one, two) = tokio::join!(
        world.app.receipts.mark(&alice, &room, marker(&second)),
        world.app.receipts.mark(&alice, &room, marker(&first)),
    );
    one.and(two).unwrap();
    world.mark(&alice, &room, marker(&first)).await.unwrap();
    let data = world.app.account_data.find(&alice, Some(&room), "m.fully_read").await.unwrap().unwrap();
    let content: Value = serde_json::from_str(data.content.get()).unwrap();
    assert_eq!(content, json!({ "event_id": second }));
}

#[tokio::test]
async fn each_thread_has_an_event_of_its_own() {
    let alice = user("alice");
    let world = World::new().await;
    let room = world.room(&[&alice]).await;
    let event = world.say(&room, &alice, "one").await;
    world.mark(&alice, &room, read(&event)).await.unwrap();
    world.mark(&alice, &room, threaded(&event, "main")).await.unwrap();
    let since = world.app.receipts.since(&room, Position::START, END, &alice).await.unwrap();
    let events: Vec<Value> =
        receipt_events(&since).iter().map(|raw| serde_json::from_str(raw.json().get()).unwrap()).collect();
    let receipt = |info: Value| json!({ "type": "m.receipt", "content": { event.as_str(): { "m.read": { alice.as_str(): info } } } });
    let ts = 1_800_000_000_000_u64;
    assert_eq!(events, [receipt(json!({ "ts": ts })), receipt(json!({ "ts": ts, "thread_id": "main" }))]);
}

#[tokio::test]
async fn a_room_with_more_receipts_than_are_remembered_shows_them_all() {
    let alice = user("alice");
    let world = World::new().await;
    let room = world.room(&[&alice]).await;
    let event = world.say(&room, &alice, "one").await;
    let at = crate::store::event::orders(&mut world.app.db.read().await.unwrap(), &[&event]).await.unwrap()[0].1;
    let facts = (0..600).map(|n| {
        crate::event::fact::Fact::Receipt(crate::event::fact::Receipt {
            room_id: room.clone(),
            user_id: user(&format!("u{n}")),
            receipt_type: "m.read".to_owned(),
            thread_id: String::new(),
            event_id: event.clone(),
            event_order: at,
            ts: world.clock.now(),
        })
    });
    let write = crate::event::fact::Write::facts(facts.collect());
    let last = world.rooms().log().append(write).await.unwrap().last;
    assert_eq!(world.receipts(&room, &alice).await.len(), 600);
    assert_eq!(world.app.receipts.since(&room, Position(last.0 - 10), last, &alice).await.unwrap().len(), 10);
}
