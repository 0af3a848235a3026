use std::time::Duration;

use ruma::{OwnedUserId, UserId, presence::PresenceState};

use crate::{
    config::Config,
    position::Position,
    testing::{World, user},
};

const END: Position = Position(i64::MAX);
const SECOND: Duration = Duration::from_secs(1);

impl World {
    /// Lets time pass, with a look now and then.
    async fn pass(&self, seconds: u32) {
        for _ in 0..seconds.div_ceil(5) {
            self.clock.advance(SECOND * 5);
            self.app.presence.look().await;
        }
    }

    async fn state(&self, user_id: &UserId) -> PresenceState {
        self.app.presence.get(user_id, user_id).await.unwrap().content.presence
    }

    async fn changed(&self, after: Position) -> Vec<(OwnedUserId, PresenceState)> {
        let since = self.app.presence.since(after, END, |_| true).await.unwrap();
        since.iter().map(|presence| (presence.user_id.clone(), presence.state.clone())).collect()
    }
}

#[tokio::test]
async fn a_client_that_comes_waits_idles_and_goes() {
    let alice = user("alice");
    let world = World::new().await;
    assert_eq!(world.state(&alice).await, PresenceState::Offline);

    let poll = world.app.presence.seen(&alice, &PresenceState::Online).await;
    assert_eq!(world.state(&alice).await, PresenceState::Online);
    let online = world.reached();
    world.pass(120).await;
    assert_eq!(world.state(&alice).await, PresenceState::Online, "a long poll may be long");
    let content = world.app.presence.get(&alice, &alice).await.unwrap().content;
    assert_eq!(content.currently_active, Some(false));
    assert_eq!(content.last_active_ago, Some(120_000_u32.into()));

    world.pass(180).await;
    assert_eq!(world.state(&alice).await, PresenceState::Unavailable, "connected and idle");
    drop(poll);
    let poll = world.app.presence.seen(&alice, &PresenceState::Online).await;
    assert_eq!(world.state(&alice).await, PresenceState::Unavailable, "to go on syncing is to do nothing");
    world.app.presence.active(&alice).await;
    assert_eq!(world.state(&alice).await, PresenceState::Online);

    drop(poll);
    world.pass(25).await;
    assert_eq!(world.state(&alice).await, PresenceState::Online, "the next poll may be on its way");
    world.pass(10).await;
    assert_eq!(world.state(&alice).await, PresenceState::Offline);
    assert_eq!(world.changed(online).await, [(alice, PresenceState::Offline)]);
}

#[tokio::test]
async fn heartbeats_write_nothing_and_activity_once_a_minute() {
    let alice = user("alice");
    let world = World::new().await;
    let first = world.app.presence.seen(&alice, &PresenceState::Online).await;
    let online = world.reached();
    for _ in 0..50 {
        drop(world.app.presence.seen(&alice, &PresenceState::Online).await);
        world.app.presence.active(&alice).await;
        world.clock.advance(SECOND);
    }
    assert_eq!(world.reached(), online);
    world.clock.advance(SECOND * 20);
    world.app.presence.active(&alice).await;
    assert_eq!(world.reached(), online.next());
    assert!(world.changed(online).await.is_empty(), "clients know that she is active");
    drop(first);
}

#[tokio::test]
async fn of_two_devices_the_livelier_counts() {
    let alice = user("alice");
    let world = World::new().await;
    let idle = world.app.presence.seen(&alice, &PresenceState::Unavailable).await;
    assert_eq!(world.state(&alice).await, PresenceState::Unavailable);
    let lively = world.app.presence.seen(&alice, &PresenceState::Online).await;
    let reached = world.reached();
    for _ in 0..3 {
        drop(world.app.presence.seen(&alice, &PresenceState::Unavailable).await);
        drop(world.app.presence.seen(&alice, &PresenceState::Offline).await);
    }
    assert_eq!(world.state(&alice).await, PresenceState::Online);
    assert_eq!(world.reached(), reached);
    drop(lively);
    world.pass(35).await;
    assert_eq!(world.state(&alice).await, PresenceState::Unavailable);
    drop(idle);
}

#[tokio::test]
async fn what_a_user_says_themselves_holds_with_its_message() {
    let alice = user("alice");
    let world = World::new().await;
    let poll = world.app.presence.seen(&alice, &PresenceState::Online).await;
    let set = |state, status: Option<&str>| world.app.presence.set(&alice, state, status.map(ToOwned::to_owned));
    set(PresenceState::Unavailable, Some("lunch")).await.unwrap();
    world.pass(60).await;
    assert_eq!(world.state(&alice).await, PresenceState::Unavailable);
    world.app.presence.active(&alice).await;
    let content = world.app.presence.get(&alice, &alice).await.unwrap().content;
    assert_eq!((content.presence, content.status_msg.as_deref()), (PresenceState::Online, Some("lunch")));

    set(PresenceState::Offline, Some("gone")).await.unwrap();
    world.app.presence.active(&alice).await;
    world.pass(20).await;
    assert_eq!(world.state(&alice).await, PresenceState::Offline);
    assert!(set(PresenceState::Online, Some(&"x".repeat(3_000))).await.is_err());
    assert!(set(PresenceState::from("busy"), None).await.is_err());
    drop(poll);

    // The message outlives the server's memory.
    let world = world.restart().await;
    let poll = world.app.presence.seen(&alice, &PresenceState::Online).await;
    let content = world.app.presence.get(&alice, &alice).await.unwrap().content;
    assert_eq!((content.presence, content.status_msg.as_deref()), (PresenceState::Online, Some("gone")));
    drop(poll);
}

#[tokio::test]
async fn who_does_not_come_back_after_a_restart_is_offline() {
    let (alice, bob, carol) = (user("alice"), user("bob"), user("carol"));
    let world = World::new().await;
    let mut polls = Vec::new();
    for user_id in [&alice, &bob] {
        polls.push(world.app.presence.seen(user_id, &PresenceState::Online).await);
    }
    drop(world.app.presence.seen(&carol, &PresenceState::Online).await);
    world.pass(300).await;
    assert_eq!(world.state(&bob).await, PresenceState::Unavailable);
    let before = world.reached();
    world.app.presence.active(&alice).await;
    drop(polls);

    let world = world.restart().await;
    world.clock.advance(SECOND);
    assert_eq!(world.changed(before).await, [(alice.clone(), PresenceState::Online)], "from the database");
    let all = world.changed(Position::START).await;
    assert_eq!(all, [(bob.clone(), PresenceState::Unavailable), (alice.clone(), PresenceState::Online)]);
    let poll = world.app.presence.seen(&bob, &PresenceState::Online).await;
    assert_eq!(world.state(&bob).await, PresenceState::Unavailable, "idle before, idle after");
    world.app.presence.tell_of_lost().await;
    assert_eq!(world.state(&alice).await, PresenceState::Offline);
    assert_eq!(world.changed(Position::START).await, [(bob, PresenceState::Unavailable)]);
    drop(poll);
}

#[tokio::test]
async fn presence_is_for_those_who_share_a_room() {
    let (alice, bob, carol) = (user("alice"), user("bob"), user("carol"));
    let world = World::new().await;
    let room = world.room(&[&alice, &bob]).await;
    let poll = world.app.presence.seen(&bob, &PresenceState::Online).await;
    assert_eq!(world.app.presence.get(&alice, &bob).await.unwrap().content.presence, PresenceState::Online);
    assert!(world.app.presence.get(&carol, &bob).await.is_err());
    assert!(world.app.presence.get(&carol, &user("nobody")).await.is_err());
    world.membership(&room, &bob, "leave").await;
    assert!(world.app.presence.get(&alice, &bob).await.is_err());
    let since = world.app.presence.since(Position::START, END, |user| user == alice).await.unwrap();
    assert!(since.is_empty());
    drop(poll);
}

#[tokio::test]
async fn switched_off_everybody_is_offline_and_nothing_is_written() {
    let alice = user("alice");
    let mut config = Config::default();
    config.presence.enabled = false;
    let world = World::with(config).await;
    let poll = world.app.presence.seen(&alice, &PresenceState::Online).await;
    world.app.presence.active(&alice).await;
    assert_eq!(world.state(&alice).await, PresenceState::Offline);
    assert!(world.app.presence.set(&alice, PresenceState::Online, None).await.is_err());
    assert!(world.changed(Position::START).await.is_empty());
    assert_eq!(world.reached(), Position::START);
    drop(poll);
}
