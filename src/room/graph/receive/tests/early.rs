//! Redactions and their targets in either order, and how many events a new one follows.

use futures_util::future::join;

use super::*;

impl Stage {
    /// An event of somebody that follows all that is known, held back.
    fn held_back(&mut self, sender: &str, kind: &str, redacts: Option<&EventId>) -> Pdu {
        let mut draft = self.draft(sender, kind, None, json!({ "body": "regrettable" }));
        draft.redacts = redacts.map(ToOwned::to_owned);
        let prev_events: Vec<_> = self.model.extremities.iter().cloned().collect();
        let auth_events = self.model.auth_events(&draft, &self.model.after_all(&prev_events));
        self.sign(draft, prev_events, auth_events)
    }
}

#[tokio::test]
async fn a_redaction_that_comes_before_its_target_applies_when_that_comes() {
    let mut stage = Stage::new(RoomVersionId::V11).await;
    stage.receive_next("bob", "m.room.member", Some("@bob:here"), json!({ "membership": "join" })).await;
    let said = stage.held_back("bob", "m.room.message", None);
    let kept = stage.held_back("alice", "m.room.message", None);
    let redaction = stage.held_back("bob", "m.room.redaction", Some(said.event_id()));
    let mut stranger = stage.draft("bob", "m.room.member", Some("@carol:elsewhere"), json!({ "membership": "join" }));
    stranger.sender = "@carol:elsewhere".try_into().unwrap();
    let extremities: Vec<_> = stage.model.extremities.iter().cloned().collect();
    let stranger = stage.receive(stranger, &extremities, None).await;
    let mut presumption = stage.draft("bob", "m.room.redaction", None, json!({}));
    presumption.sender = stranger.sender().to_owned();
    presumption.redacts = Some(kept.event_id().to_owned());
    stage.receive(presumption, &[stranger.event_id().to_owned()], None).await;

    let rooms = &stage.world.rooms;
    for event in [&redaction, &said, &kept] {
        assert_eq!(rooms.take_in(event.clone()).await.unwrap(), Standing::Accepted);
    }
    let stage = Stage { world: stage.world.restart().await, ..stage };
    let stored = stage.stored(said.event_id()).await.pdu;
    assert_eq!(stored.content().get(), "{}");
    assert_eq!(stored.redacted_because().unwrap().event_id(), redaction.event_id());
    assert_eq!(stage.stored(kept.event_id()).await.pdu.content().get(), kept.content().get(), "carol may not");
    stage.world.close().await;
}

#[tokio::test]
async fn a_redaction_applies_whichever_of_the_two_is_first_by_a_hair() {
    let mut stage = Stage::new(RoomVersionId::V11).await;
    for round in 0..12 {
        let said = stage.held_back("alice", "m.room.message", None);
        let redaction = stage.held_back("alice", "m.room.redaction", Some(said.event_id()));
        let (first, second) = if round % 2 == 0 { (&said, &redaction) } else { (&redaction, &said) };
        let rooms = &stage.world.rooms;
        let (first, second) = join(rooms.take_in(first.clone()), rooms.take_in(second.clone())).await;
        assert_eq!((first.unwrap(), second.unwrap()), (Standing::Accepted, Standing::Accepted));
        assert!(stage.stored(said.event_id()).await.pdu.redacted_because().is_some(), "round {round}");
    }
    stage.world.close().await;
}

#[tokio::test]
async fn an_event_follows_ten_at_most_the_newest() {
    let mut stage = Stage::new(RoomVersionId::V12).await;
    let parting = vec![stage.event_before(0)];
    let mut ends = Vec::new();
    for _ in 0..13 {
        let draft = stage.draft("alice", "m.room.message", None, json!({ "body": "hello" }));
        ends.push(stage.receive(draft, &parting, None).await.event_id().to_owned());
    }
    let next = stage.world.say(&stage.room_id, "alice", &["all together"]).await.remove(0);
    assert_eq!(next.prev_events(), &ends[3..]);
    let room = stage.world.rooms.get(&stage.room_id).await.unwrap();
    let left = [&ends[..3], &[next.event_id().to_owned()]].concat();
    assert_eq!(room.view(|view| view.head.extremities.clone()), left);
    let last = stage.world.say(&stage.room_id, "alice", &["and the rest"]).await.remove(0);
    assert_eq!(last.prev_events(), left);
    stage.world.close().await;
}
