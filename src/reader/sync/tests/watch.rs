//! Who becomes a watcher while the log goes on: nothing is missed between the rows and what follows them.

use std::{collections::HashMap, sync::Arc};

use ruma::events::room::member::MembershipState;

use crate::{
    config::Config,
    ephemeral::presence::PresenceCache,
    ground::sizes::CacheSizes,
    reader::sync::Registry,
    testing::{World, user},
};

#[tokio::test]
async fn what_came_while_a_watcher_was_read_wakes_them_though_it_has_woken_others_before() {
    let (alice, bob) = (user("alice"), user("bob"));
    let sizes = CacheSizes::default();
    let world = World::with_caches(sizes, Config::default()).await;
    let room = world.room(&[&bob]).await;
    let read = world.reached();
    world.membership(&room, &alice, "join").await;
    world.say(&room, &bob, "hello").await;
    let missed = world.app.log.tail().catch_up(read, <[_]>::to_vec).unwrap();

    let registry = Registry::new(Arc::new(PresenceCache::new(&sizes)), &sizes);
    let watcher = registry.register(&alice, (Vec::new(), Vec::new()), (read, &missed));
    assert_eq!(watcher.membership(&room).unwrap().state, MembershipState::Join);
    assert_eq!(*watcher.wakes().borrow(), world.reached());
    assert_eq!(watcher.changed_rooms(read).len(), 1);
    // Of a user who is not connected, as well.
    registry.introduce(HashMap::from([(bob.clone(), [room.clone()].into())]), &missed);
    assert!(registry.index.read().strangers.rooms(&bob).unwrap().contains(&room));
    world.close().await;
}
