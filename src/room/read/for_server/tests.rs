//! What other servers may read of a room.

use ruma::{OwnedRoomId, OwnedUserId, RoomVersionId, UInt, owned_server_name, server_name};
use serde_json::{Value, json};

use super::*;
use crate::{
    event::Draft,
    room::world::{RoomWorld, json as content, user},
};

/// Somebody of another server.
fn stranger(server: &str) -> OwnedUserId {
    OwnedUserId::try_from(format!("@carol:{server}")).unwrap()
}

impl RoomWorld {
    /// Somebody of another server does something.
    async fn hears(&self, room_id: &RoomId, server: &str, kind: &str, key: Option<&str>, value: Value) -> Arc<Pdu> {
        let mut draft = Draft::message(stranger(server), kind.into(), content(value));
        draft.state_key = key.map(ToOwned::to_owned);
        self.append(room_id, &draft).await.expect("the room allows it")
    }

    async fn comes(&self, room_id: &RoomId, server: &str, membership: &str) -> Arc<Pdu> {
        let key = stranger(server);
        self.hears(room_id, server, "m.room.member", Some(key.as_str()), json!({ "membership": membership })).await
    }

    async fn opened(&self, room_id: &RoomId, server: &str) -> Result<ServerReading> {
        self.rooms.open_to_server(room_id, <&ServerName>::try_from(server).unwrap()).await
    }

    async fn shared_room(&self, visibility: &str) -> OwnedRoomId {
        self.create_room(RoomVersionId::V11, visibility).await
    }
}

fn errcode<T>(result: Result<T>) -> String {
    match result.map(drop).unwrap_err() {
        Error::Refused { kind, .. } => kind.errcode().to_string(),
        other => panic!("{other}"),
    }
}

fn ids(pdus: &[Arc<Pdu>]) -> Vec<&EventId> {
    pdus.iter().map(|pdu| pdu.event_id()).collect()
}

fn is_whole(pdu: &Pdu) -> bool {
    pdu.content_as::<Value>().unwrap()["body"].is_string()
}

/// Reading over federation without asking who asks.
#[tokio::test]
async fn only_a_server_that_is_in_the_room_and_let_in_reads_it() {
    let world = RoomWorld::new().await;
    let room_id = world.shared_room("world_readable").await;
    world.comes(&room_id, "inside", "join").await;
    world.comes(&room_id, "gone", "join").await;
    world.comes(&room_id, "gone", "leave").await;
    world.comes(&room_id, "Denied.example", "join").await;
    world.member(&room_id, "alice", "bob", "invite").await;
    let list = json!({ "allow": ["*"], "deny": ["denied.*"] });
    world.set(&room_id, "alice", "m.room.server_acl", "", list).await;
    let said = world.say(&room_id, "alice", &["hello"]).await.remove(0);
    for server in ["gone", "stranger", "Denied.example", "denied.example:8448"] {
        assert_eq!(errcode(world.opened(&room_id, server).await), "M_FORBIDDEN", "{server}");
        let name = <&ServerName>::try_from(server).unwrap();
        assert_eq!(errcode(world.rooms.open_event_to_server(said.event_id(), name).await), "M_FORBIDDEN", "{server}");
    }
    world.opened(&room_id, "inside").await.unwrap();
    world.rooms.open_event_to_server(said.event_id(), server_name!("inside")).await.unwrap();
    let nowhere = ruma::room_id!("!nowhere:inside");
    assert_eq!(errcode(world.opened(nowhere, "inside").await), "M_NOT_FOUND");
    // What goes on there is not known here any more.
    world.rooms.leave(&room_id, &user("alice"), None).await.unwrap();
    assert_eq!(errcode(world.opened(&room_id, "inside").await), "M_NOT_FOUND");
    world.close().await;
}

/// History visibility, for servers.
#[tokio::test]
async fn what_nobody_of_a_server_may_see_comes_redacted() {
    for (visibility, expected) in [
        ("world_readable", [true, true, true, true]),
        ("shared", [true, true, true, true]),
        ("invited", [false, true, true, false]),
        ("joined", [false, false, true, false]),
    ] {
        let world = RoomWorld::new().await;
        let room_id = world.shared_room(visibility).await;
        let carol = stranger("elsewhere");
        let mut said = Vec::new();
        said.extend(world.say(&room_id, "alice", &["before"]).await);
        let invite = json!({ "membership": "invite" });
        world.set(&room_id, "alice", "m.room.member", carol.as_str(), invite).await;
        said.extend(world.say(&room_id, "alice", &["invited"]).await);
        world.comes(&room_id, "elsewhere", "join").await;
        let own = json!({ "msgtype": "m.text", "body": "own" });
        let own = world.hears(&room_id, "elsewhere", "m.room.message", None, own).await;
        said.extend(world.say(&room_id, "alice", &["joined"]).await);
        world.comes(&room_id, "elsewhere", "leave").await;
        said.extend(world.say(&room_id, "alice", &["left"]).await);
        world.comes(&room_id, "elsewhere", "join").await;

        let reading = world.opened(&room_id, "elsewhere").await.unwrap();
        let last = said.last().unwrap().event_id().to_owned();
        let page = reading.backfill(&[last], 100).await.unwrap();
        for (pdu, expected) in said.iter().zip(expected) {
            let event = reading.event(pdu.event_id()).await.unwrap();
            assert_eq!(is_whole(&event), expected, "{visibility} {}", pdu.json());
            let paged = page.iter().find(|paged| paged.event_id() == pdu.event_id()).unwrap();
            assert_eq!(is_whole(paged), expected, "{visibility}");
        }
        assert!(is_whole(&reading.event(own.event_id()).await.unwrap()), "what they said themselves");
        drop(reading);
        world.close().await;
    }
}

/// `{roomId}/{eventId}` with an event of another room.
#[tokio::test]
async fn an_event_of_another_room_is_not_known() {
    let world = RoomWorld::new().await;
    let (room_id, other) = (world.shared_room("shared").await, world.shared_room("shared").await);
    world.comes(&room_id, "elsewhere", "join").await;
    world.comes(&other, "elsewhere", "join").await;
    let said = world.say(&other, "alice", &["hello"]).await.remove(0);
    let reading = world.opened(&room_id, "elsewhere").await.unwrap();
    let of_other = [said.event_id().to_owned()];
    for event_id in [said.event_id(), ruma::event_id!("$nothing")] {
        assert_eq!(errcode(reading.event(event_id).await), "M_NOT_FOUND");
        assert_eq!(errcode(reading.state_before(event_id).await), "M_NOT_FOUND");
        assert_eq!(errcode(reading.state_ids_before(event_id).await), "M_NOT_FOUND");
        assert_eq!(errcode(reading.auth_chain(&[event_id.to_owned()]).await), "M_NOT_FOUND");
    }
    assert!(reading.backfill(&of_other, 10).await.unwrap().is_empty());
    assert!(reading.missing_events(&[], &of_other, 10, 0).await.unwrap().is_empty());
    drop(reading);
    world.close().await;
}

#[tokio::test]
async fn walks_give_what_was_asked_for_and_end() {
    let world = RoomWorld::new().await;
    let room_id = world.shared_room("shared").await;
    world.comes(&room_id, "elsewhere", "join").await;
    let bodies: Vec<String> = (0..1_300).map(|number| number.to_string()).collect();
    let said = world.say(&room_id, "alice", &bodies.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let reading = world.opened(&room_id, "elsewhere").await.unwrap();
    let id = |place: usize| said[place].event_id().to_owned();

    let page = reading.backfill(&[id(1_000)], 3).await.unwrap();
    assert_eq!(ids(&page), [id(1_000), id(999), id(998)], "with the event itself, newest first");
    assert_eq!(reading.backfill(&[id(1_200), id(3)], usize::MAX).await.unwrap().len(), MOST_BACKFILLED);
    assert!(reading.backfill(&[], 5).await.unwrap().is_empty());
    let all = reading.backfill(&[id(3)], 100).await.unwrap();
    assert_eq!(all.last().unwrap().kind().to_string(), "m.room.create", "up to the beginning");

    let missing = reading.missing_events(&[id(10)], &[id(14)], 10, 0).await.unwrap();
    assert_eq!(ids(&missing), [id(11), id(12), id(13)], "oldest first, without the ends");
    let newest = reading.missing_events(&[id(10)], &[id(1_000)], 2, 0).await.unwrap();
    assert_eq!(ids(&newest), [id(998), id(999)]);
    let deep = said[1_000].depth();
    let shallow = reading.missing_events(&[], &[id(1_000)], 10, deep - 2).await.unwrap();
    assert_eq!(ids(&shallow), [id(998), id(999)]);
    assert_eq!(reading.missing_events(&[], &[id(1_299)], usize::MAX, 0).await.unwrap().len(), MOST_MISSING);
    assert!(reading.missing_events(&[], &[id(1_299)], 10, i64::MAX).await.unwrap().is_empty());

    // A walk that finds nothing of use ends, too.
    let mut graph = reading.graph();
    let everything = graph.list_before(&[id(1_299)], usize::MAX).await.unwrap();
    assert!(everything.len() <= 1_000, "{}", everything.len());
    drop(reading);
    world.close().await;
}

#[tokio::test]
async fn state_comes_as_it_was_before_the_event_with_what_it_cites() {
    let world = RoomWorld::new().await;
    let room_id = world.shared_room("shared").await;
    world.comes(&room_id, "elsewhere", "join").await;
    let topic = world.set(&room_id, "alice", "m.room.topic", "", json!({ "topic": "new" })).await;
    let said = world.say(&room_id, "alice", &["hello"]).await.remove(0);
    let reading = world.opened(&room_id, "elsewhere").await.unwrap();
    let before_topic = reading.state_ids_before(topic.event_id()).await.unwrap();
    assert!(!before_topic.contains(&topic.event_id().to_owned()));
    let state = reading.state_before(said.event_id()).await.unwrap();
    assert_eq!(state.len(), before_topic.len() + 1);
    let chain = reading.auth_chain_of(&state).await.unwrap();
    for pdu in state.iter().chain(&chain) {
        let has = |id: &OwnedEventId| chain.iter().any(|cited| cited.event_id() == id);
        assert!(pdu.auth_events().iter().all(has), "{}", pdu.json());
    }
    let of_event = reading.auth_chain(&[said.event_id().to_owned()]).await.unwrap();
    assert!(said.auth_events().iter().all(|id| of_event.iter().any(|cited| cited.event_id() == id)));
    drop(reading);
    world.close().await;
}

#[tokio::test]
async fn the_event_closest_to_a_time_is_told_to_who_may_see_it() {
    let world = RoomWorld::new().await;
    let room_id = world.shared_room("joined").await;
    world.clock.advance(std::time::Duration::from_secs(10));
    let hidden = world.say(&room_id, "alice", &["hidden"]).await.remove(0);
    world.clock.advance(std::time::Duration::from_secs(10));
    world.comes(&room_id, "elsewhere", "join").await;
    world.clock.advance(std::time::Duration::from_secs(10));
    let said = world.say(&room_id, "alice", &["hello"]).await.remove(0);
    let reading = world.opened(&room_id, "elsewhere").await.unwrap();
    let at = |pdu: &Pdu, by: u32| MilliSecondsSinceUnixEpoch(pdu.origin_server_ts().get() - UInt::from(by));
    let found = reading.event_by_timestamp(at(&said, 5), Direction::Forward).await.unwrap().unwrap();
    assert_eq!(found.pdu.event_id(), said.event_id());
    assert!(reading.event_by_timestamp(at(&hidden, 5), Direction::Forward).await.unwrap().is_none());
    assert_eq!(reading.server, owned_server_name!("elsewhere"));
    drop(reading);
    world.close().await;
}
