//! Whose devices are news, against a model that remembers who was in which room at every moment; and whom a change
//! wakes.

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;
use ruma::{OwnedRoomId, OwnedUserId, UserId, events::TimelineEventType};
use serde_json::json;

use crate::{
    config::Config,
    event::{
        Draft,
        fact::{DeviceListChange, Fact, KeyCountChange, Write},
    },
    ground::{position::Position, sizes::CacheSizes},
    reader::sync::{Client, Gathered, SyncRequest, device_lists::DeviceLists, wanted::Wanted},
    testing::{World, user},
};

const USERS: usize = 5;
const ROOMS: usize = 3;

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

    /// What a sync gathers for a device.
    async fn gathered(&self, user_id: &UserId, device: &str, since: Option<Position>) -> Gathered {
        let client = Client { user_id: user_id.to_owned(), device_id: device.into() };
        let wanted = Wanted::default();
        let request = SyncRequest {
            client,
            wanted,
            since,
            delivered: None,
            begins_anew: false,
            full_state: false,
            state_after: false,
        };
        let watcher = self.app.syncs.watcher(user_id).await.unwrap();
        self.app.syncs.gather_all(&request, &watcher).await.unwrap()
    }
}

/// What happens. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    /// In or out; the first user stays in all rooms. Out by themselves, or because the first user has them out.
    Move {
        user: usize,
        room: usize,
        kicked: bool,
    },
    Encrypt {
        room: usize,
    },
    /// A new name, by which nobody comes or goes.
    Rename {
        user: usize,
        room: usize,
    },
    Say {
        room: usize,
    },
    ChangeDevices {
        user: usize,
    },
    /// Of which the signer alone hears.
    Vouch {
        signer: usize,
        user: usize,
    },
    /// What is news to a user since some moment ago.
    Ask {
        user: usize,
        ago: usize,
    },
    /// The server begins anew, with nothing in memory.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let (user, room) = (0..USERS, 0..ROOMS);
    prop_oneof![
        10 => (1..USERS, room.clone(), any::<bool>()).prop_map(|(user, room, kicked)| Step::Move { user, room, kicked }),
        1 => room.clone().prop_map(|room| Step::Encrypt { room }),
        3 => (user.clone(), room.clone()).prop_map(|(user, room)| Step::Rename { user, room }),
        3 => room.prop_map(|room| Step::Say { room }),
        5 => user.clone().prop_map(|user| Step::ChangeDevices { user }),
        3 => (user.clone(), 1..USERS).prop_map(|(signer, other)| Step::Vouch { signer, user: (signer + other) % USERS }),
        12 => (user, 0..20_usize).prop_map(|(user, ago)| Step::Ask { user, ago }),
        1 => Just(Step::Restart),
    ]
}

/// How things stood at a moment.
#[derive(Clone)]
struct Moment {
    at: Position,
    joined: [BTreeSet<usize>; ROOMS],
    encrypted: [bool; ROOMS],
}

impl Moment {
    fn share(&self, one: usize, other: usize) -> bool {
        (0..ROOMS).any(|room| self.share_in(room, one, other))
    }

    fn share_in(&self, room: usize, one: usize, other: usize) -> bool {
        self.joined[room].contains(&one) && self.joined[room].contains(&other)
    }
}

struct Model {
    world: World,
    rooms: Vec<OwnedRoomId>,
    users: Vec<OwnedUserId>,
    /// After each step, oldest first.
    history: Vec<Moment>,
    /// Who has changed, and who alone is shown it, if it is not everybody.
    changes: Vec<(Position, usize, Option<usize>)>,
}

impl Model {
    async fn new(world: World) -> Self {
        let users: Vec<_> = ["alice", "bob", "carol", "dave", "erin"].map(user).into();
        let mut rooms = Vec::new();
        for _ in 0..ROOMS {
            rooms.push(world.room(&[&users[0]]).await);
        }
        let joined = [(); ROOMS].map(|()| BTreeSet::from([0]));
        let beginning = Moment { at: world.reached(), joined, encrypted: [false; ROOMS] };
        Self { world, rooms, users, history: vec![beginning], changes: Vec::new() }
    }

    fn now(&self) -> Moment {
        self.history.last().unwrap().clone()
    }

    /// Straight from the rules.
    fn expected(&self, one: usize, then: &Moment) -> DeviceLists {
        let now = self.now();
        let mut lists = DeviceLists::default();
        for other in 0..USERS {
            let has_changed = self.changes.iter().any(|(at, user, seen_by)| {
                *user == other && *at > then.at && seen_by.is_none_or(|signer| signer == one)
            });
            let is_new = (0..ROOMS).any(|room| {
                let is_encrypted_since = now.encrypted[room] && !then.encrypted[room];
                now.share_in(room, one, other) && (is_encrypted_since || !then.share_in(room, one, other))
            });
            let user_id = self.users[other].clone();
            if one == other {
                lists.changed.extend(has_changed.then_some(user_id));
            } else if now.share(one, other) && (has_changed || is_new) {
                lists.changed.insert(user_id);
            } else if then.share(one, other) && !now.share(one, other) {
                lists.left.insert(user_id);
            }
        }
        lists
    }

    async fn check(&self, one: usize, then: &Moment) {
        let (user_id, until) = (&self.users[one], self.world.reached());
        let expected = self.expected(one, then);
        let gathered = self.world.gathered(user_id, "PHONE", Some(then.at)).await;
        assert_eq!(gathered.device_lists, expected, "to {user_id} since {:?}", then.at);
        let lists = self.world.app.syncs.changed_device_lists(user_id, (then.at, until)).await.unwrap();
        assert_eq!(lists, expected, "by /keys/changes, to {user_id} since {:?}", then.at);
    }

    async fn step(&mut self, step: Step) {
        let mut now = self.now();
        match step {
            Step::Move { user, room, kicked } => {
                let (room_id, user_id) = (&self.rooms[room], &self.users[user]);
                if now.joined[room].remove(&user) {
                    let by = if kicked { &self.users[0] } else { user_id };
                    let content = serde_json::from_value(json!({ "membership": "leave" })).unwrap();
                    let kind = TimelineEventType::RoomMember;
                    self.world.send(room_id, Draft::state(by.clone(), kind, user_id.as_str(), content)).await;
                } else {
                    self.world.membership(room_id, user_id, "join").await;
                    now.joined[room].insert(user);
                }
            }
            Step::Encrypt { room } => {
                self.world.encrypt(&self.rooms[room], &self.users[0]).await;
                now.encrypted[room] = true;
            }
            Step::Rename { user, room } if now.joined[room].contains(&user) => {
                let name = json!({ "membership": "join", "displayname": self.history.len().to_string() });
                self.world.profile(&self.rooms[room], &self.users[user], name).await;
            }
            Step::Say { room } => drop(self.world.say(&self.rooms[room], &self.users[0], "hello").await),
            Step::ChangeDevices { user } => {
                let at = self.world.change_devices(&self.users[user]).await;
                self.changes.push((at, user, None));
            }
            Step::Vouch { signer, user } => {
                let at = self.world.vouch(&self.users[signer], &self.users[user]).await;
                self.changes.push((at, user, Some(signer)));
            }
            Step::Ask { user, ago } => {
                let then = &self.history[self.history.len() - 1 - ago % self.history.len()];
                self.check(user, then).await;
                return;
            }
            Step::Rename { .. } | Step::Restart => return,
        }
        now.at = self.world.reached();
        self.history.push(now);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Trap: device lists miss an update.
    #[test]
    fn device_lists_are_what_the_rules_say_after_any_history_and_restarts(
        steps in prop::collection::vec(step(), 1..100),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            for world in World::on_each_engine().await {
                let mut model = Model::new(world).await;
                for step in steps.clone() {
                    if matches!(step, Step::Restart) {
                        model.world = model.world.restart().await;
                    } else {
                        model.step(step).await;
                    }
                }
                for then in model.history.iter().rev().take(6) {
                    for user in 0..USERS {
                        model.check(user, then).await;
                    }
                }
                model.world.close().await;
            }
        });
    }
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
        let lists = world.app.syncs.changed_device_lists(&alice, (after, until)).await.unwrap();
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
        let lists = world.app.syncs.changed_device_lists(&alice, (since, until)).await.unwrap();
        assert_eq!(lists, expected, "{gone} has gone");
    }
    let left = world.app.syncs.changed_device_lists(&alice, (until, world.reached())).await.unwrap();
    assert_eq!(left, DeviceLists { changed: BTreeSet::new(), left: BTreeSet::from([bob]) });
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
    let lists = world.app.syncs.changed_device_lists(&bob, (since, until)).await.unwrap();
    assert_eq!(lists, DeviceLists::default());
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
        let lists = world.app.syncs.changed_device_lists(user_id, (before, at)).await.unwrap();
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
