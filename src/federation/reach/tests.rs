//! What is made of the answers of other servers, honest and other ones.

use std::time::Duration;

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedServerName, UInt, api::Direction, directory::Filter, owned_server_name,
    room_alias_id, room_id, server_name, user_id,
};
use serde_json::{Value, json};

use super::{testing::Script, *};
use crate::{
    edge::federation_client::RemoteError,
    error::Error,
    event::Pdu,
    federation::fetcher::testing::{Elsewhere, Stage},
    fuzz::{cases, mutate},
    ground::position::Order,
};

impl Stage {
    fn reach(&self, script: &Arc<Script>) -> Reach {
        let (clock, tasks) = (self.ground.clock.clone(), self.ground.tasks.clone());
        let read = (self.rooms.clone(), self.fetcher.clone());
        Reach::new(Arc::clone(script) as _, read, (clock, tasks), &CacheSizes::default())
    }

    /// The newest of some events comes, and the others don't.
    async fn lose(&self, said: &[Pdu]) {
        let (room, servers) = (self.room().await, [Elsewhere::name()]);
        let last = said.last().unwrap();
        let state = self.fetcher.fetch_state(&room, last.event_id(), &servers).await.unwrap();
        self.rooms.append_after_gap(&room, last.clone(), &state).await.unwrap();
    }
}

/// What a client is told: status, if it says one, and code.
fn told<T: std::fmt::Debug>(result: crate::error::Result<T>) -> (u16, String) {
    match result.unwrap_err() {
        Error::Relayed { status, errcode, .. } => (status, errcode),
        Error::Refused { kind, .. } => (0, kind.errcode().to_string()),
        other => panic!("{other:?}"),
    }
}

fn refused(status: u16, errcode: &str) -> RemoteError {
    RemoteError::Refused { status, errcode: Some(errcode.to_owned()), message: "no".to_owned() }
}

fn silent() -> RemoteError {
    RemoteError::Unreachable("it says nothing".to_owned())
}

#[tokio::test]
async fn an_alias_of_another_server_is_asked_of_it() {
    let (stage, script) = (Stage::new().await, Arc::new(Script::default()));
    let (reach, alias) = (stage.reach(&script), room_alias_id!("#pub:far.example"));
    let answer = json!({ "room_id": "!a:b", "servers": ["x.example", 7, "not a name", "x.example", "far.example"] });
    script.answer("alias #pub:far.example", answer);
    let (room_id, servers) = reach.resolve_alias(alias).await.unwrap();
    assert_eq!(room_id, "!a:b");
    assert_eq!(servers, ["x.example", "far.example"]);
    for nonsense in [json!({}), json!([]), json!({ "room_id": 7 }), json!({ "room_id": "a" }), json!(null)] {
        script.answer("alias #pub:far.example", nonsense);
        assert_eq!(told(reach.resolve_alias(alias).await), (502, "M_UNKNOWN".to_owned()));
    }
    // Without servers there is still the one that knows the alias.
    script.answer("alias #pub:far.example", json!({ "room_id": "!a:b", "servers": {} }));
    assert_eq!(reach.resolve_alias(alias).await.unwrap().1, ["far.example"]);
    for (error, expected) in [
        (refused(401, "M_UNKNOWN_TOKEN"), (502, "M_UNKNOWN")),
        (refused(404, "M_NOT_FOUND"), (404, "M_NOT_FOUND")),
        (silent(), (504, "M_UNKNOWN")),
        (RemoteError::Off, (0, "M_NOT_FOUND")),
    ] {
        script.fail("alias #pub:far.example", error);
        assert_eq!(told(reach.resolve_alias(alias).await), (expected.0, expected.1.to_owned()));
    }
    let here = room_alias_id!("#nothing:localhost");
    script.asked();
    assert_eq!(told(reach.resolve_alias(here).await), (0, "M_NOT_FOUND".to_owned()));
    assert!(script.asked().is_empty(), "it is this server's own");
    drop(reach);
    stage.close().await;
}

/// Names and pictures that are no strings break lists (Synapse 1.157.2).
#[tokio::test]
async fn of_a_profile_what_makes_no_sense_is_left_out_and_the_rest_is_remembered() {
    let (stage, script) = (Stage::new().await, Arc::new(Script::default()));
    let (reach, anna) = (stage.reach(&script), user_id!("@anna:far.example"));
    let said = json!({
        "displayname": 7, "avatar_url": ["mxc://a/b"], "m.tz": {}, "org.example.pets": { "cats": 2 }, "nothing": null,
        "k".repeat(256): "long", "org.example.huge": "x".repeat(70_000),
    });
    script.answer("profile @anna:far.example", said);
    let profile = reach.profile(anna).await.unwrap();
    assert_eq!(json!(profile.fields), json!({ "org.example.pets": { "cats": 2 } }));
    script.answer("profile @anna:far.example", json!({ "displayname": "Anna" }));
    assert_eq!(reach.profile(anna).await.unwrap(), profile, "it was asked for a moment ago");
    assert_eq!(script.asked().len(), 1);
    stage.ground.clock.advance(Duration::from_mins(3));
    assert_eq!(json!(reach.profile(anna).await.unwrap().fields), json!({ "displayname": "Anna" }));

    // Who waits for a server that does not answer waits for the others, too.
    let bea = user_id!("@bea:far.example");
    script.fail("profile @bea:far.example", silent());
    script.asked();
    for _ in 0..3 {
        assert_eq!(told(reach.profile(bea).await), (504, "M_UNKNOWN".to_owned()));
    }
    assert_eq!(script.asked().len(), 1);
    stage.ground.clock.advance(Duration::from_mins(2));
    script.answer("profile @bea:far.example", json!([]));
    assert_eq!(told(reach.profile(bea).await), (502, "M_UNKNOWN".to_owned()));
    script.fail("profile @bea:far.example", refused(404, "M_NOT_FOUND"));
    assert_eq!(told(reach.profile(bea).await), (404, "M_NOT_FOUND".to_owned()));
    drop(reach);
    stage.close().await;
}

#[tokio::test]
async fn a_directory_is_read_room_by_room() {
    let (stage, script) = (Stage::new().await, Arc::new(Script::default()));
    let (reach, server) = (stage.reach(&script), server_name!("far.example"));
    let wanted = RoomsWanted {
        limit: 2,
        since: Some("next".to_owned()),
        filter: Filter::default(),
        network: ruma::directory::RoomNetwork::default(),
    };
    let room = |name: Value| json!({ "room_id": "!a:b", "name": name, "avatar_url": 7, "num_joined_members": "x" });
    let chunk = json!([room(json!("First")), room(json!({})), room(json!("beyond the limit"))]);
    let page = json!({ "chunk": chunk, "next_batch": "on", "total_room_count_estimate": -1 });
    script.answer("rooms far.example 2 Some(\"next\")", page);
    let page = reach.public_rooms(server, &wanted).await.unwrap();
    assert_eq!(page.chunk.iter().map(|room| room.name.as_deref()).collect::<Vec<_>>(), [Some("First"), None]);
    assert_eq!((page.next_batch.as_deref(), page.total_room_count_estimate), (Some("on"), None));
    script.answer("rooms far.example 2 Some(\"next\")", json!({ "chunk": 7 }));
    assert_eq!(told(reach.public_rooms(server, &wanted).await), (502, "M_UNKNOWN".to_owned()));
    drop(reach);
    stage.close().await;
}

fn space(room_id: &str, children: &[&str]) -> Value {
    let child = |child: &&str| {
        let content = json!({ "via": ["far.example"] });
        json!({ "type": "m.space.child", "state_key": child, "sender": "@a:b", "origin_server_ts": 1, "content": content })
    };
    let children_state: Vec<Value> = children.iter().map(child).collect();
    json!({ "room_id": room_id, "name": "Space", "room_type": "m.space", "children_state": children_state })
}

/// Rooms of others, claimed by somebody else.
#[tokio::test]
async fn what_a_server_says_of_a_room_is_its_own_word() {
    let (stage, script) = (Stage::new().await, Arc::new(Script::default()));
    let reach = stage.reach(&script);
    let (evil, good) = (owned_server_name!("evil.example"), owned_server_name!("good.example"));
    let (room, held, strange) = (room_id!("!a:good.example"), room_id!("!b:good.example"), room_id!("!c:good.example"));
    let claims = json!([
        { "room_id": held, "name": "held" },
        { "room_id": strange, "name": "not held" },
        { "room_id": room, "name": "itself" },
    ]);
    let said = json!({
        "room": space(room.as_str(), &[held.as_str()]), "children": claims,
        "inaccessible_children": [strange, held, 7],
    });
    script.answer("room evil.example !a:good.example", said.clone());
    let found = reach.find_room(room, std::slice::from_ref(&evil)).await.unwrap();
    assert_eq!(found.find_summary(held).unwrap().name.as_deref(), Some("held"));
    assert!(found.find_summary(strange).is_none() && found.find_summary(room).is_none());
    assert!(found.is_closed(held) && !found.is_closed(strange));
    // What it says counts for nobody who asks another server, nor for its children.
    assert!(reach.find_room(room, std::slice::from_ref(&good)).await.is_none());
    assert!(reach.find_room(held, std::slice::from_ref(&evil)).await.is_none());
    script.asked();
    assert!(reach.find_room(room, std::slice::from_ref(&evil)).await.is_some());
    assert!(script.asked().is_empty(), "its answer is remembered");

    // An answer about another room than the one that was asked about.
    script.answer("room evil.example !b:good.example", said);
    assert!(reach.find_room(held, &[evil.clone(), evil.clone()]).await.is_none());
    assert_eq!(script.asked().len(), 1, "nobody is asked twice");
    let here = owned_server_name!("localhost");
    let many: Vec<OwnedServerName> = (0..9).map(|n| format!("n{n}.example").try_into().unwrap()).collect();
    assert!(reach.find_room(held, &[vec![here], many].concat()).await.is_none());
    assert_eq!(script.asked().len(), 3, "not all are asked, and not this server");
    drop(reach);
    stage.close().await;
}

#[test]
fn whatever_is_said_of_a_space_is_read_without_harm() {
    let (room, server) = (room_id!("!a:b"), server_name!("far.example"));
    for mut case in cases("spaces", 1) {
        let mut said = json!({
            "room": space("!a:b", &["!b:b", "!a:b", "!c:b"]),
            "children": [{ "room_id": "!b:b", "name": "B", "allowed_room_ids": ["!a:b"], "join_rule": "restricted" }],
            "inaccessible_children": ["!c:b"],
        });
        for _ in 0..3 {
            mutate::json(&mut case.dice, &mut said);
        }
        let Some(read) = RoomElsewhere::read(&said, room, server) else { continue };
        assert_eq!(read.summary.room_id, room);
        for child in &read.children {
            let event: Value = serde_json::from_str(child.event.json().get()).unwrap();
            assert_eq!(event["state_key"], child.room_id.as_str());
            assert!(event["content"].is_object() && event["origin_server_ts"].is_u64() && !child.via.is_empty());
        }
    }
    let many: Vec<String> = (0..3_000).map(|n| format!("!r{n}:b")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let said = json!({ "room": space("!a:b", &[&many[..], &many[..]].concat()) });
    let read = RoomElsewhere::read(&said, room, server).unwrap();
    assert_eq!(read.children.len(), 2_000, "and each once");
}

#[tokio::test]
async fn who_reads_up_to_a_gap_has_it_filled() {
    let (stage, script) = (Stage::new().await, Arc::new(Script::default()));
    let reach = stage.reach(&script);
    let everything = (Order::START, Order::END);
    let room = stage.room().await;
    assert!(reach.find_gap(&room, Direction::Backward, everything).await.unwrap().is_none());
    let said: Vec<Pdu> = (0..30).map(|count| stage.elsewhere.say(&format!("number {count}"))).collect();
    stage.lose(&said).await;
    let room = stage.room().await;
    let gap = reach.find_gap(&room, Direction::Backward, everything).await.unwrap().unwrap();
    // Who has not come so far has met none.
    for (after, until) in [(gap.order, Order::END), (Order::START, gap.order.before())] {
        assert!(reach.find_gap(&room, Direction::Backward, (after, until)).await.unwrap().is_none());
    }
    stage.elsewhere.asked();
    let asking = || async { reach.fill(&mut Wait::begin(), &stage.room_id, &gap).await.unwrap() };
    let (one, other) = tokio::join!(asking(), asking());
    assert_eq!((one, other), (Filled::More, Filled::More));
    assert_eq!(stage.elsewhere.asked().iter().filter(|asked| **asked == "backfill").count(), 1, "for both");
    for pdu in &said {
        assert!(stage.has_placed(pdu).await);
    }
    assert!(reach.find_gap(&room, Direction::Backward, everything).await.unwrap().is_none());
    drop(reach);
    stage.close().await;
}

#[tokio::test]
async fn what_nobody_has_is_not_asked_for_again_and_again() {
    let (stage, script) = (Stage::new().await, Arc::new(Script::default()));
    let (reach, everything) = (stage.reach(&script), (Order::START, Order::END));
    let said: Vec<Pdu> = (0..5).map(|count| stage.elsewhere.say(&format!("number {count}"))).collect();
    stage.lose(&said).await;
    let room = stage.room().await;
    let gap = reach.find_gap(&room, Direction::Forward, everything).await.unwrap().unwrap();
    stage.elsewhere.script.lock().is_silent = true;
    assert_eq!(reach.fill(&mut Wait::begin(), &stage.room_id, &gap).await.unwrap(), Filled::Nothing);
    assert!(reach.find_gap(&room, Direction::Forward, everything).await.unwrap().is_none(), "for a while");
    stage.elsewhere.script.lock().is_silent = false;
    stage.ground.clock.advance(Duration::from_mins(2));
    let gap = reach.find_gap(&room, Direction::Forward, everything).await.unwrap().unwrap();
    // Who does not wait gets nothing of it, and it goes on all the same.
    assert_eq!(reach.fill(&mut Wait::for_no_time(), &stage.room_id, &gap).await.unwrap(), Filled::Later);
    reach.fill(&mut Wait::begin(), &stage.room_id, &gap).await.unwrap();
    assert!(stage.has_placed(&said[0]).await);
    drop(reach);
    stage.close().await;
}

#[tokio::test]
async fn an_event_far_back_is_dug_for() {
    let (stage, script) = (Stage::new().await, Arc::new(Script::default()));
    let reach = stage.reach(&script);
    let said: Vec<Pdu> = (0..250).map(|count| stage.elsewhere.say(&format!("number {count}"))).collect();
    let wanted = said[20].event_id();
    let room = stage.room().await;
    assert!(!reach.may_be_missing(&room, wanted).await.unwrap(), "nothing is known to be missing");
    stage.lose(&said).await;
    let room = stage.room().await;
    assert!(reach.may_be_missing(&room, wanted).await.unwrap());
    assert_eq!(reach.fetch_event(&mut Wait::begin(), &stage.room_id, wanted).await.unwrap(), Filled::More);
    assert!(stage.has_placed(&said[20]).await);

    let nothing = <&ruma::EventId>::try_from("$nothing").unwrap();
    let said: Vec<Pdu> = (0..5).map(|count| stage.elsewhere.say(&format!("more {count}"))).collect();
    stage.lose(&said).await;
    stage.elsewhere.asked();
    assert_eq!(reach.fetch_event(&mut Wait::begin(), &stage.room_id, nothing).await.unwrap(), Filled::Nothing);
    assert_eq!(stage.elsewhere.asked(), ["event"], "it is asked for before anything else is");
    let room = stage.room().await;
    assert!(!reach.may_be_missing(&room, nothing).await.unwrap(), "it has been looked for");
    drop(reach);
    stage.close().await;
}

#[tokio::test]
async fn of_what_is_closest_to_a_time_only_what_is_on_that_side_is_believed() {
    let (stage, script) = (Stage::new().await, Arc::new(Script::default()));
    let (reach, room_id) = (stage.reach(&script), stage.room_id.clone());
    let at = MilliSecondsSinceUnixEpoch(UInt::from(1_000_u32));
    let question = format!("time elsewhere {room_id} 1000");
    let closest = async |direction| reach.find_closest(&Wait::begin(), &room_id, (at, direction)).await.unwrap();
    assert_eq!(closest(Direction::Backward).await, None);
    script.answer(&question, json!({ "event_id": "$a", "ts": 900 }));
    assert_eq!(closest(Direction::Backward).await.unwrap(), "$a");
    assert_eq!(closest(Direction::Forward).await, None);
    drop(reach);
    stage.close().await;
}
