//! What events take for granted of accounts: that they are there, and called what the event says.

use ruma::{RoomId, events::TimelineEventType};

use super::errcode;
use crate::{
    event::{
        Draft, content,
        fact::{CopiedFields, Write},
    },
    log::CommitError,
    room::{
        graph::{append::Proposal, head::Head, lanes::Lanes},
        world::{RoomWorld, user},
    },
    store,
};

/// How bob comes in, built on the room as it is now.
async fn entering(world: &RoomWorld, room_id: &RoomId, by: &str, membership: &str, copied: CopiedFields) -> Write {
    let content = content([("membership", membership.into())]);
    let draft = Draft::state(user(by), TimelineEventType::RoomMember, user("bob").as_str(), content);
    let mut head = world.rooms.get(room_id).await.unwrap().view(Head::of);
    let proposal = Proposal { copied, ..draft.into() };
    Write::event(world.rooms.build_event(&mut head, Some(room_id), proposal).unwrap())
}

fn called(name: Option<&str>) -> CopiedFields {
    vec![("displayname", name.map(ToOwned::to_owned)), ("avatar_url", None)]
}

#[tokio::test]
async fn whoever_comes_in_is_called_what_their_profile_says_by_then() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        let room_id = world.public_room("alice").await;
        let log = world.rooms.log();
        let nameless = entering(&world, &room_id, "bob", "join", called(None)).await;
        let mut tx = world.db.begin().await.unwrap();
        store::profile::upsert(&mut tx, &user("bob"), "displayname", "\"Bob\"").await.unwrap();
        tx.commit().await.unwrap();
        assert!(matches!(log.append(nameless).await, Err(CommitError::Conflict)));
        log.append(entering(&world, &room_id, "bob", "join", called(Some("Bob"))).await).await.unwrap();
        let other = entering(&world, &room_id, "bob", "join", called(Some("Rob"))).await;
        assert!(matches!(log.append(other).await, Err(CommitError::Conflict)));
        // Where nothing was copied, they are called what they like.
        log.append(entering(&world, &room_id, "bob", "join", CopiedFields::new()).await).await.unwrap();
        world.rooms.update_profile(&user("bob")).await.unwrap();
        assert_eq!(world.state(&room_id, "m.room.member", user("bob").as_str()).await["displayname"], "Bob");
        world.close().await;
    }
}

#[tokio::test]
async fn nobody_comes_in_whose_account_has_been_ended_by_then() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        let (room_id, bob) = (world.public_room("alice").await, user("bob"));
        let log = world.rooms.log();
        let joins = entering(&world, &room_id, "bob", "join", CopiedFields::new()).await;
        let is_invited = entering(&world, &room_id, "alice", "invite", CopiedFields::new()).await;
        let mut tx = world.db.begin().await.unwrap();
        store::account::insert(&mut tx, &bob, None, false, 0).await.unwrap();
        store::account::deactivate(&mut tx, &bob, 1).await.unwrap();
        tx.commit().await.unwrap();
        for write in [joins, is_invited] {
            let refused = log.append(write).await;
            assert!(matches!(&refused, Err(CommitError::Deactivated(who)) if *who == bob), "{refused:?}");
        }
        assert_eq!(errcode(world.rooms.join(&room_id, &bob, None).await), "M_FORBIDDEN");
        assert_eq!(errcode(world.rooms.invite(&room_id, &user("alice"), &bob, None).await), "M_FORBIDDEN");
        world.close().await;
    }
}

#[tokio::test]
async fn whoever_has_gone_can_still_be_let_go() {
    let world = RoomWorld::new().await;
    let (room_id, bob) = (world.public_room("alice").await, user("bob"));
    world.rooms.join(&room_id, &bob, None).await.unwrap();
    let mut tx = world.db.begin().await.unwrap();
    store::account::insert(&mut tx, &bob, None, false, 0).await.unwrap();
    store::account::deactivate(&mut tx, &bob, 1).await.unwrap();
    tx.commit().await.unwrap();
    // A name that is carried into rooms no longer finds them there, whichever comes first.
    world.rooms.update_profile(&bob).await.unwrap();
    world.rooms.leave_all(&bob, None).await.unwrap();
    let member = world.state(&room_id, "m.room.member", bob.as_str()).await;
    assert_eq!(member["membership"], "leave");
    world.close().await;
}
