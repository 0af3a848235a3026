//! Whose devices are news, and whom a change wakes.

mod model;

use std::{collections::BTreeSet, time::Duration};

use ruma::{OwnedRoomId, OwnedUserId, UserId, events::TimelineEventType};
use serde_json::json;

use super::{gather_all, request};
use crate::{
    app::App,
    config::Config,
    event::{
        Draft,
        fact::{DeviceListChange, Fact, KeyCountChange, Write},
    },
    ground::{position::Position, sizes::CacheSizes},
    reader::sync::{Client, SyncRequest, device_lists::DeviceLists},
    testing::{World, user},
};

impl World {
    async fn change_devices(&self, user_id: &UserId) -> Position {
        let (user_id, device_id) = (user_id.to_owned(), Some("PHONE".into()));
        self.note(DeviceListChange { user_id, device_id, seen_by: None }).await
    }

    /// Somebody signs somebody else's master key.
    async fn vouch(&self, signer: &UserId, user_id: &UserId) -> Position {
        let (user_id, seen_by) = (user_id.to_owned(), Some(signer.to_owned()));
        self.note(DeviceListChange { user_id, device_id: None, seen_by }).await
    }

    async fn note(&self, change: DeviceListChange) -> Position {
        self.app.log.append(Write::fact(Fact::DeviceList(change))).await.unwrap();
        self.reached()
    }

    async fn encrypt(&self, room_id: &OwnedRoomId, sender: &UserId) {
        let content = serde_json::from_value(json!({ "algorithm": "m.megolm.v1.aes-sha2" })).unwrap();
        self.send(room_id, Draft::state(sender.to_owned(), TimelineEventType::RoomEncryption, "", content)).await;
    }

    /// What `/keys/changes` says.
    async fn changed_between(&self, user_id: &UserId, after: Position, until: Position) -> DeviceLists {
        changed_between(&self.app, user_id, (after, until)).await
    }
}

async fn changed_between(app: &App, user_id: &UserId, places: (Position, Position)) -> DeviceLists {
    app.syncs.changed_device_lists(user_id, places).await.unwrap().0
}

#[tokio::test]
async fn nothing_is_said_of_devices_to_a_client_that_knows_nothing() {
    let (alice, bob) = (user("alice"), user("bob"));
    let world = World::new().await;
    let room = world.room(&[&alice, &bob]).await;
    world.encrypt(&room, &alice).await;
    world.change_devices(&bob).await;
    let gathered = world.gathered(&alice, "PHONE", None).await;
    assert!(gathered.device_lists.is_empty());
    assert!(gathered.key_counts.is_some() && !gathered.has_new_key_counts, "how many keys there are is always said");
    world.close().await;
}

/// Nothing is remembered, as for a client that has been away for longer than the newest changes reach back.
#[tokio::test]
async fn what_is_forgotten_is_read_from_the_database() {
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(user);
    let caches = CacheSizes { device_lists: 1, ..CacheSizes::default() };
    let world = World::with_caches(caches, Config::default()).await;
    world.room(&[&alice, &bob]).await;
    let since = world.reached();
    world.change_devices(&carol).await;
    let first = world.change_devices(&bob).await;
    let second = world.change_devices(&alice).await;
    let third = world.vouch(&bob, &alice).await;
    let last = world.vouch(&alice, &bob).await;
    for (after, until, changed) in [
        (since, last, vec![&alice, &bob]),
        (since, first, vec![&bob]),
        (first, second, vec![&alice]),
        (second, third, vec![]),
        (third, last, vec![&bob]),
        (last, last, vec![]),
    ] {
        let lists = world.changed_between(&alice, after, until).await;
        let changed = changed.into_iter().cloned().collect();
        assert_eq!(lists, DeviceLists { changed, left: BTreeSet::new() }, "after {after:?} until {until:?}");
    }
    world.close().await;
}

/// As while a sync is gathered: the client follows them still, and may find them in the room again next time.
#[tokio::test]
async fn a_change_is_news_though_who_shared_the_room_then_has_gone_since() {
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(user);
    let world = World::new().await;
    let room = world.room(&[&alice, &bob]).await;
    world.room(&[&carol]).await;
    // Who has no watcher yet, remembers nothing.
    world.gathered(&alice, "PHONE", None).await;
    let since = world.reached();
    world.change_devices(&carol).await;
    let until = world.change_devices(&bob).await;
    let expected = DeviceLists { changed: BTreeSet::from([bob.clone()]), left: BTreeSet::new() };
    for gone in [&bob, &alice] {
        world.membership(&room, gone, "leave").await;
        let lists = world.changed_between(&alice, since, until).await;
        assert_eq!(lists, expected, "{gone} has gone");
    }
    let left = world.changed_between(&alice, until, world.reached()).await;
    assert_eq!(left, DeviceLists { changed: BTreeSet::new(), left: BTreeSet::from([bob]) });
    world.close().await;
}

/// Each in turn: what has become of them after the second place is for the next sync, however it is known by now.
#[tokio::test]
async fn who_comes_and_goes_after_a_place_has_not_come_or_gone_before_it() {
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(user);
    for caches in [CacheSizes::default(), CacheSizes { device_lists: 1, ..CacheSizes::default() }] {
        let world = World::with_caches(caches, Config::default()).await;
        let (room, other) = (world.room(&[&alice, &bob]).await, world.room(&[&alice, &bob]).await);
        world.gathered(&alice, "PHONE", None).await;
        let since = world.reached();
        world.membership(&room, &bob, "leave").await;
        world.change_devices(&carol).await;
        let until = world.change_devices(&bob).await;
        // He is in the other room then, which he leaves now; and she is nowhere then.
        world.membership(&other, &bob, "leave").await;
        world.membership(&other, &carol, "join").await;
        let end = world.reached();
        let only = |changed: &[&OwnedUserId], left: &[&OwnedUserId]| DeviceLists {
            changed: changed.iter().map(|one| (*one).clone()).collect(),
            left: left.iter().map(|one| (*one).clone()).collect(),
        };
        assert_eq!(world.changed_between(&alice, since, until).await, only(&[&bob], &[]));
        assert_eq!(world.changed_between(&alice, until, end).await, only(&[&carol], &[&bob]));
        // And he who has left altogether is back by now.
        world.membership(&other, &bob, "join").await;
        assert_eq!(world.changed_between(&alice, until, end).await, only(&[&carol], &[&bob]));
        assert_eq!(world.changed_between(&alice, end, world.reached()).await, only(&[&bob], &[]));
        world.close().await;
    }
}

/// More of them than are remembered, and than are read at once; and what it takes is owed.
#[tokio::test]
async fn an_old_token_is_paid_for() {
    let alice = user("alice");
    let world = World::new().await;
    let room = world.room(&[&alice]).await;
    let since = world.reached();
    let people: BTreeSet<OwnedUserId> = (0..450).map(|number| user(&format!("user{number}"))).collect();
    for user_id in &people {
        world.membership(&room, user_id, "join").await;
    }
    let until = world.reached();
    // Who has no watcher yet, remembers nothing.
    let (lists, effort) = world.app.syncs.changed_device_lists(&alice, (since, until)).await.unwrap();
    assert_eq!(lists, DeviceLists { changed: people, left: BTreeSet::new() });
    assert!(effort.cost() >= 4, "{effort:?}");
    assert_eq!(world.gathered(&alice, "PHONE", Some(since)).await.effort, effort);
    let (lists, effort) = world.app.syncs.changed_device_lists(&alice, (until, until)).await.unwrap();
    assert_eq!((lists, effort.cost()), (DeviceLists::default(), 0));
    world.close().await;
}

/// As after a restored backup.
#[tokio::test]
async fn whoever_begins_anew_but_knows_devices_fetches_those_of_everybody() {
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(user);
    let world = World::new().await;
    let room = world.room(&[&alice, &bob]).await;
    world.room(&[&carol]).await;
    let anew = SyncRequest { begins_anew: true, ..request(&alice, "PHONE", None) };
    let lists = gather_all(&world.app.syncs, &anew).await.device_lists;
    assert_eq!(lists, DeviceLists { changed: BTreeSet::from([alice.clone(), bob.clone()]), left: BTreeSet::new() });
    world.membership(&room, &bob, "leave").await;
    let lists = gather_all(&world.app.syncs, &anew).await.device_lists;
    assert_eq!(lists, DeviceLists { changed: BTreeSet::from([alice]), left: BTreeSet::new() });
    world.close().await;
}

#[tokio::test]
async fn messages_cost_no_query_for_devices() {
    let (alice, bob) = (user("alice"), user("bob"));
    let world = World::new().await;
    let room = world.room(&[&alice, &bob]).await;
    world.encrypt(&room, &alice).await;
    world.gathered(&bob, "PHONE", None).await;
    let since = world.reached();
    world.say(&room, &alice, "hello").await;
    let until = world.reached();
    // Nothing can be asked of a database that is closed.
    world.app.db.close().await;
    let (lists, effort) = world.app.syncs.changed_device_lists(&bob, (since, until)).await.unwrap();
    assert_eq!((lists, effort.cost()), (DeviceLists::default(), 0));
    let client = Client { user_id: bob, device_id: "PHONE".into() };
    assert!(world.app.syncs.gather_nothing(&client, until).await.unwrap().key_counts.is_some());
}

#[tokio::test]
async fn a_change_of_devices_wakes_those_who_share_a_room_and_the_user() {
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(user);
    let world = World::new().await;
    world.room(&[&alice, &bob]).await;
    world.room(&[&carol]).await;
    // Alice has not asked for anything: in which rooms she is has to be looked up.
    let (watcher, other) =
        (world.app.syncs.watcher(&bob).await.unwrap(), world.app.syncs.watcher(&carol).await.unwrap());
    for changed in [&alice, &bob] {
        let at = world.change_devices(changed).await;
        let mut wakes = watcher.wakes();
        let woken = tokio::time::timeout(Duration::from_secs(30), wakes.wait_for(|last| *last >= at)).await;
        woken.expect("he is woken").unwrap();
        assert!(*other.wakes().borrow() < at, "she has nothing to do with them");
    }
    world.close().await;
}

#[tokio::test]
async fn a_signature_on_somebody_elses_key_wakes_the_signer_alone() {
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(user);
    let world = World::new().await;
    world.room(&[&alice, &bob]).await;
    world.room(&[&bob, &carol]).await;
    let mut wakes = Vec::new();
    for user_id in [&alice, &bob, &carol] {
        wakes.push(world.app.syncs.watcher(user_id).await.unwrap().wakes());
    }
    let before = world.reached();
    // Bob and Carol sleep until something comes that concerns them.
    let first_wakes = futures_util::future::join_all(wakes.iter_mut().map(async |wakes| {
        let woken = tokio::time::timeout(Duration::from_secs(30), wakes.wait_for(|last| *last > before)).await;
        *woken.expect("everybody is woken").unwrap()
    }));
    let (woken, (at, next)) =
        tokio::join!(first_wakes, async { (world.vouch(&alice, &bob).await, world.change_devices(&carol).await) });
    assert_eq!(woken, [at, next, next]);
    for (user_id, expected) in [(&alice, BTreeSet::from([bob.clone()])), (&bob, BTreeSet::new())] {
        let lists = world.changed_between(user_id, before, at).await;
        assert_eq!(lists, DeviceLists { changed: expected, left: BTreeSet::new() }, "to {user_id}");
    }
    world.close().await;
}

#[tokio::test]
async fn only_the_device_whose_keys_were_claimed_is_answered() {
    let (alice, bob) = (user("alice"), user("bob"));
    let world = World::new().await;
    world.room(&[&alice, &bob]).await;
    for device in ["PHONE", "LAPTOP"] {
        world.gathered(&alice, device, None).await;
    }
    let since = world.reached();
    assert!(world.gathered(&alice, "PHONE", Some(since)).await.is_empty());
    let claimed = KeyCountChange { user_id: alice.clone(), device_id: "PHONE".into() };
    world.app.log.append(Write::fact(Fact::KeyCount(claimed))).await.unwrap();
    let gathered = world.gathered(&alice, "PHONE", Some(since)).await;
    assert!(gathered.has_new_key_counts && !gathered.is_empty());
    let gathered = world.gathered(&alice, "LAPTOP", Some(since)).await;
    assert!(gathered.key_counts.is_some() && gathered.is_empty());
    assert!(world.gathered(&alice, "PHONE", Some(world.reached())).await.is_empty());
    assert!(world.gathered(&bob, "PHONE", Some(since)).await.is_empty());
    world.close().await;
}
