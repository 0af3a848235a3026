//! Rooms with more ends than an event can follow.

use super::*;

impl Stage {
    async fn extremities(&self) -> usize {
        let room = self.world.rooms.get(&self.room_id).await.unwrap();
        room.view(|view| view.head.extremities.len())
    }
}

/// So many events of somebody that all follow the same one.
async fn scatter(stage: &mut Stage, count: usize) {
    let prev = [stage.event_before(0)];
    for _ in 0..count {
        let draft = stage.draft("alice", "m.room.message", None, json!({ "msgtype": "m.text", "body": "apart" }));
        stage.receive(draft, &prev, None).await;
    }
}

#[tokio::test]
async fn more_than_ten_extremities_are_drawn_together() {
    let mut stage = Stage::new(RoomVersionId::V11).await;
    scatter(&mut stage, 10).await;
    let room = stage.world.rooms.get(&stage.room_id).await.unwrap();
    assert!(stage.world.rooms.merge_extremities(&room).await.unwrap());
    assert_eq!(stage.extremities().await, 10, "as many as the next event can follow");
    scatter(&mut stage, 25).await;
    assert!(stage.extremities().await > 25);
    let before = room.state();
    assert!(stage.world.rooms.merge_extremities(&room).await.unwrap());
    assert!(stage.extremities().await <= 10);
    assert!(before.changes_to(&room.state()).is_empty());
    let newest = room.view(|view| view.head.extremities.last().cloned()).unwrap();
    let dummy = stage.stored(&newest).await;
    assert_eq!(dummy.pdu.kind().to_string(), "org.matrix.dummy_event");
    assert!(!dummy.notifies && dummy.pdu.prev_events().len() == 10);
    drop(room);
    stage.world.close().await;
}

#[tokio::test]
async fn nobody_speaks_who_may_not() {
    let mut stage = Stage::new(RoomVersionId::V11).await;
    // Alice, who alone is here, says what nobody may.
    let levels = json!({ "users": { "@alice:here": 10 }, "events_default": 50, "events": { "m.room.message": 0 } });
    stage.receive_next("alice", "m.room.power_levels", Some(""), levels).await;
    scatter(&mut stage, 12).await;
    let room = stage.world.rooms.get(&stage.room_id).await.unwrap();
    assert!(!stage.world.rooms.merge_extremities(&room).await.unwrap());
    assert_eq!(stage.extremities().await, 12);
    drop(room);
    stage.world.close().await;
}
