use std::time::Duration;

use ruma::{DeviceId, OwnedUserId, UserId, presence::PresenceState};

use super::ConnectionGuard;
use crate::{
    config::Config,
    ground::position::Position,
    testing::{World, user},
};

const END: Position = Position(i64::MAX);
const SECOND: Duration = Duration::from_secs(1);
const PHONE: &str = "PHONE";
const LAPTOP: &str = "LAPTOP";

impl World {
    /// Lets time pass, with a look now and then.
    async fn pass(&self, seconds: u32) {
        for _ in 0..seconds.div_ceil(5) {
            self.clock.advance(SECOND * 5);
            self.app.presence.look().await;
            self.app.presence.write_queued().await;
        }
    }

    /// A request of a device, of which everybody has been told.
    async fn seen(&self, user_id: &UserId, device: &str, state: PresenceState) -> ConnectionGuard {
        let connected = self.app.presence.seen(user_id, <&DeviceId>::from(device), &state);
        self.app.presence.write_queued().await;
        connected
    }

    /// A user does something, of which everybody has been told.
    async fn act(&self, user_id: &UserId) {
        self.app.presence.active(user_id);
        self.app.presence.write_queued().await;
    }

    /// A user says from their telephone how they are.
    async fn say_presence(
        &self,
        user_id: &UserId,
        state: PresenceState,
        status: Option<&str>,
    ) -> crate::error::Result<()> {
        let status = status.map(ToOwned::to_owned);
        self.app.presence.set(user_id, <&DeviceId>::from(PHONE), state, status).await
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

    let poll = world.seen(&alice, PHONE, PresenceState::Online).await;
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
    let poll = world.seen(&alice, PHONE, PresenceState::Online).await;
    assert_eq!(world.state(&alice).await, PresenceState::Unavailable, "to go on syncing is to do nothing");
    world.act(&alice).await;
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
    let first = world.seen(&alice, PHONE, PresenceState::Online).await;
    let online = world.reached();
    for _ in 0..50 {
        drop(world.seen(&alice, PHONE, PresenceState::Online).await);
        world.act(&alice).await;
        world.clock.advance(SECOND);
    }
    assert_eq!(world.reached(), online);
    world.clock.advance(SECOND * 20);
    world.act(&alice).await;
    assert_eq!(world.reached(), online.next());
    assert!(world.changed(online).await.is_empty(), "clients know that she is active");
    drop(first);
}

#[tokio::test]
async fn of_two_devices_the_livelier_counts() {
    let alice = user("alice");
    let world = World::new().await;
    let idle = world.seen(&alice, LAPTOP, PresenceState::Unavailable).await;
    assert_eq!(world.state(&alice).await, PresenceState::Unavailable);
    let lively = world.seen(&alice, PHONE, PresenceState::Online).await;
    let reached = world.reached();
    for _ in 0..3 {
        drop(world.seen(&alice, LAPTOP, PresenceState::Unavailable).await);
        drop(world.seen(&alice, LAPTOP, PresenceState::Offline).await);
    }
    assert_eq!(world.state(&alice).await, PresenceState::Online);
    assert_eq!(world.reached(), reached);
    drop(lively);
    world.pass(35).await;
    assert_eq!(world.state(&alice).await, PresenceState::Unavailable);
    drop(idle);
}

#[tokio::test]
async fn the_newest_request_of_a_device_says_what_it_is() {
    let alice = user("alice");
    let world = World::new().await;
    let old = world.seen(&alice, PHONE, PresenceState::Online).await;
    let new = world.seen(&alice, PHONE, PresenceState::Unavailable).await;
    assert_eq!(world.state(&alice).await, PresenceState::Unavailable, "at once, though the first still waits");
    drop(old);
    let back = world.seen(&alice, PHONE, PresenceState::Online).await;
    assert_eq!(world.state(&alice).await, PresenceState::Online);
    // Whoever says so themselves is away for whatever their clients go on asking.
    world.clock.advance(SECOND);
    world.say_presence(&alice, PresenceState::Unavailable, None).await.unwrap();
    drop(world.seen(&alice, PHONE, PresenceState::Online).await);
    assert_eq!(world.state(&alice).await, PresenceState::Unavailable);
    drop((new, back));
    world.pass(35).await;
    assert_eq!(world.state(&alice).await, PresenceState::Offline);
    drop(world.seen(&alice, PHONE, PresenceState::Online).await);
    assert_eq!(world.state(&alice).await, PresenceState::Online, "to come back is to be there");
}

#[tokio::test]
async fn many_devices_are_as_good_as_some() {
    let alice = user("alice");
    let world = World::new().await;
    let mut polls = vec![world.seen(&alice, "ZULU", PresenceState::Online).await];
    for number in 0..60 {
        polls.push(world.seen(&alice, &format!("D{number}"), PresenceState::Unavailable).await);
    }
    assert_eq!(world.state(&alice).await, PresenceState::Online, "the livelier ones are kept");
    let reached = world.reached();
    world.pass(20).await;
    assert_eq!(world.reached(), reached, "who is not told of is not tried again");
}

#[tokio::test]
async fn what_nodes_say_of_one_user_adds_up() {
    let Some((world, other)) = World::two_nodes().await else { return };
    let (alice, here, there) = (user("alice"), &world.app, &other);
    let (phone, laptop) = (<&DeviceId>::from(PHONE), <&DeviceId>::from(LAPTOP));
    let seen = async |app: &crate::app::App, device: &DeviceId, state: PresenceState| {
        app.log.refresh().await.unwrap();
        let connected = app.presence.seen(&alice, device, &state);
        app.presence.write_queued().await;
        connected
    };
    let state = async || {
        let mut states = Vec::new();
        for app in [here, there] {
            app.log.refresh().await.unwrap();
            app.presence.look().await;
            app.presence.write_queued().await;
        }
        for app in [here, there] {
            app.log.refresh().await.unwrap();
            states.push(app.presence.get(&alice, &alice).await.unwrap().content.presence);
        }
        let [one, other] = &states[..] else { panic!("two nodes") };
        assert_eq!(one, other);
        one.clone()
    };
    let waits = seen(here, phone, PresenceState::Online).await;
    let idle = seen(there, laptop, PresenceState::Unavailable).await;
    assert_eq!(state().await, PresenceState::Online, "the best of her devices, wherever they are");
    let moved = seen(there, phone, PresenceState::Unavailable).await;
    assert_eq!(state().await, PresenceState::Unavailable, "the newest word, though an older request waits elsewhere");
    drop(seen(here, phone, PresenceState::Online).await);
    assert_eq!(state().await, PresenceState::Online);
    world.clock.advance(SECOND);
    there.presence.set(&alice, laptop, PresenceState::Unavailable, None).await.unwrap();
    drop(seen(here, phone, PresenceState::Online).await);
    assert_eq!(state().await, PresenceState::Unavailable, "she has said so, and all nodes know");
    drop((waits, idle, moved));
    for _ in 0..8 {
        world.clock.advance(SECOND * 5);
        state().await;
    }
    assert_eq!(state().await, PresenceState::Offline);
    world.close_both(other).await;
}

#[tokio::test]
async fn what_a_user_says_themselves_holds_with_its_message() {
    let alice = user("alice");
    let world = World::new().await;
    let poll = world.seen(&alice, PHONE, PresenceState::Online).await;
    let long = "x".repeat(3_000);
    let set = |state, status| world.say_presence(&alice, state, status);
    set(PresenceState::Unavailable, Some("lunch")).await.unwrap();
    world.pass(60).await;
    assert_eq!(world.state(&alice).await, PresenceState::Unavailable);
    world.act(&alice).await;
    let content = world.app.presence.get(&alice, &alice).await.unwrap().content;
    assert_eq!((content.presence, content.status_msg.as_deref()), (PresenceState::Online, Some("lunch")));

    set(PresenceState::Offline, Some("gone")).await.unwrap();
    world.act(&alice).await;
    world.pass(20).await;
    assert_eq!(world.state(&alice).await, PresenceState::Offline);
    assert!(set(PresenceState::Online, Some(&long)).await.is_err());
    assert!(set(PresenceState::from("busy"), None).await.is_err());
    drop(poll);
    world.clock.advance(SECOND);

    // The message outlives the server's memory.
    let world = world.restart().await;
    let poll = world.seen(&alice, PHONE, PresenceState::Online).await;
    let content = world.app.presence.get(&alice, &alice).await.unwrap().content;
    assert_eq!((content.presence, content.status_msg.as_deref()), (PresenceState::Online, Some("gone")));
    drop(poll);
}

#[tokio::test]
async fn what_a_user_says_is_not_undone_by_what_is_told_of_them_at_that_moment() {
    let alice = user("alice");
    let world = World::new().await;
    let laptop = world.seen(&alice, LAPTOP, PresenceState::Online).await;
    world.clock.advance(SECOND);
    let (announced, phone) = tokio::join!(
        world.say_presence(&alice, PresenceState::Unavailable, Some("lunch")),
        world.seen(&alice, PHONE, PresenceState::Online)
    );
    announced.unwrap();
    let content = world.app.presence.get(&alice, &alice).await.unwrap().content;
    assert_eq!((content.presence, content.status_msg.as_deref()), (PresenceState::Unavailable, Some("lunch")));
    drop((laptop, phone));

    // Her laptop was connected to a node that is gone.
    let world = world.restart().await;
    world.clock.advance(SECOND);
    let back = world.say_presence(&alice, PresenceState::Online, Some("back"));
    let (announced, ()) = tokio::join!(back, world.app.presence.write_lost());
    announced.unwrap();
    let content = world.app.presence.get(&alice, &alice).await.unwrap().content;
    assert_eq!((content.presence, content.status_msg.as_deref()), (PresenceState::Online, Some("back")));
    world.close().await;
}

#[tokio::test]
async fn who_does_not_come_back_after_a_restart_is_offline() {
    let (alice, bob, carol) = (user("alice"), user("bob"), user("carol"));
    let world = World::new().await;
    let mut polls = Vec::new();
    for user_id in [&alice, &bob] {
        polls.push(world.seen(user_id, PHONE, PresenceState::Online).await);
    }
    drop(world.seen(&carol, PHONE, PresenceState::Online).await);
    world.pass(300).await;
    assert_eq!(world.state(&bob).await, PresenceState::Unavailable);
    let before = world.reached();
    world.act(&alice).await;
    drop(polls);

    let world = world.restart().await;
    world.clock.advance(SECOND);
    assert_eq!(world.changed(before).await, [(alice.clone(), PresenceState::Online)], "from the database");
    let all = world.changed(Position::START).await;
    assert_eq!(all, [(bob.clone(), PresenceState::Unavailable), (alice.clone(), PresenceState::Online)]);
    let poll = world.seen(&bob, PHONE, PresenceState::Online).await;
    assert_eq!(world.state(&bob).await, PresenceState::Unavailable, "idle before, idle after");
    world.app.presence.write_lost().await;
    assert_eq!(world.state(&alice).await, PresenceState::Offline);
    assert_eq!(world.changed(Position::START).await, [(bob, PresenceState::Unavailable)]);
    drop(poll);
}

#[tokio::test]
async fn presence_is_for_those_who_share_a_room() {
    let (alice, bob, carol) = (user("alice"), user("bob"), user("carol"));
    let world = World::new().await;
    let room = world.room(&[&alice, &bob]).await;
    let poll = world.seen(&bob, PHONE, PresenceState::Online).await;
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
    let poll = world.seen(&alice, PHONE, PresenceState::Online).await;
    world.act(&alice).await;
    assert_eq!(world.state(&alice).await, PresenceState::Offline);
    assert!(world.say_presence(&alice, PresenceState::Online, None).await.is_err());
    assert!(world.changed(Position::START).await.is_empty());
    assert_eq!(world.reached(), Position::START);
    drop(poll);
}
