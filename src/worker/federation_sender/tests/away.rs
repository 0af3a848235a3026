//! Servers that are away, and what they get when they are there again.

use std::collections::BTreeMap;

use super::*;

#[tokio::test]
async fn a_server_that_is_away_is_left_alone_and_catches_up_with_the_newest() {
    for world in RoomWorld::on_every_engine().await {
        let peers = Peers::new();
        let rooms = [shared_room(&world, &[BOB]).await, shared_room(&world, &[BOB]).await];
        let quiet = shared_room(&world, &[BOB]).await;
        let sender = holder(&world, &peers, 1).await;
        sender.send_all().await;
        peers.are_away();
        for room in &rooms {
            say(&world, room, ALICE, "missed").await;
        }
        sender.send_all().await;
        let now = i64::from(world.clock.now().get());
        let first = standing(&world, elsewhere()).await.unwrap();
        assert_eq!((first.failures, first.failed_at), (1, Some(now)));
        assert!((48_000..=72_000).contains(&(first.retry_at - now)), "{first:?}");
        assert!(first.reason.as_ref().unwrap().contains("nobody answers") && first.owed_from.is_some());

        // Nothing is tried before its time, whatever is said meanwhile, and by whichever node.
        let attempts = peers.attempts();
        for room in &rooms {
            say(&world, room, ALICE, "newest").await;
        }
        say(&world, &quiet, BOB, "nothing of ours").await;
        sender.send_all().await;
        assert_eq!((sender.wake_all().await, peers.attempts()), (0, attempts));
        sender.write_all().await;
        drop(sender);
        let sender = holder(&world, &peers, 2).await;
        sender.send_all().await;
        assert_eq!((sender.wake_all().await, peers.attempts()), (0, attempts));
        world.clock.advance(Duration::from_secs(73));
        assert_eq!(sender.wake_all().await, 1);
        let second = standing(&world, elsewhere()).await.unwrap();
        let now = i64::from(world.clock.now().get());
        assert_eq!((second.failures, second.owed_from, peers.attempts()), (2, first.owed_from, attempts + 1));
        assert!((96_000..=144_000).contains(&(second.retry_at - now)), "{second:?}");

        peers.are_there();
        world.clock.advance(Duration::from_secs(145));
        assert_eq!(sender.wake_all().await, 1);
        assert_eq!(peers.got(elsewhere()), [["newest", "newest"]], "they fetch what came before");
        let after = standing(&world, elsewhere()).await.unwrap();
        let now = i64::from(world.clock.now().get());
        assert_eq!((after.failures, after.owed_from, after.retry_at), (0, None, 0));
        assert_eq!((after.reason, after.succeeded_at), (None, Some(now)));
        say(&world, &quiet, ALICE, "as ever").await;
        sender.send_all().await;
        assert_eq!(peers.got(elsewhere()), [["as ever"]]);
        drop(sender);
        world.close().await;
    }
}

#[tokio::test]
async fn many_rooms_are_caught_up_with_in_rounds() {
    let world = RoomWorld::new().await;
    let peers = Peers::new();
    let mut rooms = Vec::new();
    for _ in 0..120 {
        rooms.push(shared_room(&world, &[BOB]).await);
    }
    let sender = holder(&world, &peers, 1).await;
    peers.are_away();
    for (number, room) in rooms.iter().enumerate() {
        say(&world, room, ALICE, &number.to_string()).await;
    }
    sender.send_all().await;
    // It goes away again after the first round, which need not be repeated.
    world.clock.advance(Duration::from_secs(73));
    let before = peers.attempts();
    let shared = Arc::clone(&peers);
    peers.behave(move |_| match shared.attempts() - before {
        1 => Ok(Vec::new()),
        _ => Err(RemoteError::Unreachable("gone again".to_owned())),
    });
    assert_eq!(sender.wake_all().await, 1);
    let numbers = |from: usize, until: usize| (from..until).map(|number| number.to_string()).collect::<Vec<_>>();
    assert_eq!(peers.got(elsewhere()), [numbers(0, 50)]);
    peers.are_there();
    world.clock.advance(Duration::from_secs(150));
    assert_eq!(sender.wake_all().await, 1);
    assert_eq!(peers.got(elsewhere()), [numbers(50, 100), numbers(100, 120)]);
    drop(sender);
    world.close().await;
}

/// It is in the room no longer when it is there again, and would believe for ever that it is.
#[tokio::test]
async fn a_server_that_was_away_hears_that_its_user_was_thrown_out() {
    for world in RoomWorld::on_every_engine().await {
        let peers = Peers::new();
        let rooms = [shared_room(&world, &[BOB]).await, shared_room(&world, &[BOB]).await];
        let sender = holder(&world, &peers, 1).await;
        peers.are_away();
        // One of the two before it is known to be away, one after that.
        member(&world, &rooms[0], ALICE, BOB, "ban").await;
        sender.send_all().await;
        member(&world, &rooms[1], ALICE, BOB, "leave").await;
        say(&world, &rooms[1], ALICE, "among ourselves").await;
        sender.send_all().await;
        sender.write_all().await;
        drop(sender);
        let world = world.restart().await;
        let sender = holder(&world, &peers, 2).await;
        sender.send_all().await;
        peers.are_there();
        world.clock.advance(Duration::from_secs(73));
        assert_eq!(sender.wake_all().await, 1);
        assert_eq!(peers.got(elsewhere()), [["ban", "leave"]]);
        let left = destination::list_owed_events(&mut world.db.read().await.unwrap(), elsewhere(), 10).await.unwrap();
        assert!(left.is_empty(), "{left:?}");
        drop(sender);
        world.close().await;
    }
}

/// They are owed what they have not got, and get it once federation is on.
#[tokio::test]
async fn where_federation_is_off_nobody_is_tried_again() {
    let world = RoomWorld::new().await;
    let peers = Peers::new();
    let room = shared_room(&world, &[BOB]).await;
    peers.behave(|_| Err(RemoteError::Off));
    let parts = (world.db.clone(), world.rooms.clone(), world.clock.clone(), Random::seeded(7));
    let off = FederationSender::new(parts, (Metrics::new(), Tasks::new()), Arc::clone(&peers) as _, false);
    off.hold(Bucket::all().map(|bucket| (bucket, Some(Epoch(1))))).await.unwrap();
    say(&world, &room, ALICE, "unheard").await;
    off.send_all().await;
    off.write_all().await;
    world.clock.advance(Duration::from_hours(1));
    assert_eq!(off.wake_all().await, 0);
    peers.are_there();
    let on = holder(&world, &peers, 2).await;
    on.send_all().await;
    assert_eq!(on.wake_all().await, 1);
    assert_eq!(peers.got(elsewhere()), [["unheard"]]);
    drop((off, on));
    world.close().await;
}

/// Of those who come back after a start, not all at once.
#[tokio::test]
async fn destinations_wake_gradually() {
    let world = RoomWorld::new().await;
    let peers = Peers::new();
    let others: Vec<String> = (0..80).map(|number| format!("@user:s{number}.example")).collect();
    let room = shared_room(&world, &others.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let sender = holder(&world, &peers, 1).await;
    peers.are_away();
    say(&world, &room, ALICE, "missed").await;
    sender.send_all().await;
    sender.write_all().await;
    drop(sender);
    peers.are_there();
    world.clock.advance(Duration::from_secs(73));
    let sender = holder(&world, &peers, 2).await;
    sender.send_all().await;
    let mut woken = BTreeMap::new();
    for look in 0..4 {
        woken.insert(look, sender.wake_all().await);
    }
    assert_eq!(woken.into_values().collect::<Vec<_>>(), [32, 32, 16, 0]);
    drop(sender);
    world.close().await;
}
