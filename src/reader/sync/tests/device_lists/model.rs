//! Whose devices are news, against a model that remembers who was in which room at every moment.

use std::collections::BTreeSet;

use proptest::prelude::*;
use ruma::{OwnedRoomId, OwnedUserId, events::TimelineEventType};
use serde_json::json;

use super::changed_between;
use crate::{
    app::App,
    config::Config,
    event::Draft,
    ground::{position::Position, sizes::CacheSizes},
    reader::sync::{
        device_lists::DeviceLists,
        tests::{gather_all, request},
    },
    testing::{World, user},
};

const USERS: usize = 5;
const ROOMS: usize = 3;

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
    /// What is news to a user since some moment ago, up to now, and up to a moment between the two.
    Ask {
        user: usize,
        ago: usize,
        until: usize,
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
        12 => (user, 0..20_usize, 0..20_usize).prop_map(|(user, ago, until)| Step::Ask { user, ago, until }),
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
    /// Another node on the same database.
    other: Option<App>,
    rooms: Vec<OwnedRoomId>,
    users: Vec<OwnedUserId>,
    /// After each step, oldest first.
    history: Vec<Moment>,
    /// Who has changed, and who alone is shown it, if it is not everybody.
    changes: Vec<(Position, usize, Option<usize>)>,
}

impl Model {
    async fn new(world: World, other: Option<App>) -> Self {
        let users: Vec<_> = ["alice", "bob", "carol", "dave", "erin"].map(user).into();
        let mut rooms = Vec::new();
        for _ in 0..ROOMS {
            rooms.push(world.room(&[&users[0]]).await);
        }
        let joined = [(); ROOMS].map(|()| BTreeSet::from([0]));
        let beginning = Moment { at: world.reached(), joined, encrypted: [false; ROOMS] };
        Self { world, other, rooms, users, history: vec![beginning], changes: Vec::new() }
    }

    fn now(&self) -> Moment {
        self.history.last().unwrap().clone()
    }

    /// Straight from the rules.
    fn expected(&self, one: usize, then: &Moment, now: &Moment) -> DeviceLists {
        let mut lists = DeviceLists::default();
        for other in 0..USERS {
            let has_changed = self.changes.iter().any(|(at, user, seen_by)| {
                *user == other && *at > then.at && *at <= now.at && seen_by.is_none_or(|signer| signer == one)
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

    /// What is said up to now, by a sync on each node.
    async fn check(&self, one: usize, then: &Moment) {
        let (user_id, now) = (&self.users[one], self.now());
        let expected = self.expected(one, then, &now);
        for app in [&self.world.app].into_iter().chain(&self.other) {
            app.log.tail().wait_for(now.at).await;
            let gathered = gather_all(&app.syncs, &request(user_id, "PHONE", Some(then.at))).await;
            assert_eq!(gathered.device_lists, expected, "to {user_id} since {:?}", then.at);
        }
        self.check_between(one, then, &now).await;
    }

    /// What is said by `/keys/changes` on each node. The second moment may be long ago.
    async fn check_between(&self, one: usize, then: &Moment, now: &Moment) {
        let user_id = &self.users[one];
        let expected = self.expected(one, then, now);
        for app in [&self.world.app].into_iter().chain(&self.other) {
            app.log.tail().wait_for(now.at).await;
            let lists = changed_between(app, user_id, (then.at, now.at)).await;
            assert_eq!(lists, expected, "to {user_id} after {:?} up to {:?}", then.at, now.at);
        }
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
            Step::Ask { user, ago, until } => {
                let ago = ago % self.history.len();
                let then = &self.history[self.history.len() - 1 - ago];
                self.check(user, then).await;
                let now = &self.history[self.history.len() - 1 - until % (ago + 1)];
                self.check_between(user, then, now).await;
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
            let mut worlds = World::on_each_engine().await;
            // One that remembers no change of devices.
            let caches = CacheSizes { device_lists: 1, ..CacheSizes::default() };
            worlds.push(World::with_caches(caches, Config::default()).await);
            for world in worlds {
                let model = after(Model::new(world, None).await, &steps).await;
                model.world.close().await;
            }
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Of what one node has written the other has only read, and the first begins anew now and then.
    #[test]
    fn every_node_says_the_same_of_devices(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let Some((world, other)) = World::two_nodes().await else { return };
            let Model { world, other, .. } = after(Model::new(world, Some(other)).await, &steps).await;
            world.close_both(other.unwrap()).await;
        });
    }
}

/// Takes the steps, and asks each user in the end what is news since the latest of them.
async fn after(mut model: Model, steps: &[Step]) -> Model {
    for step in steps {
        if matches!(step, Step::Restart) {
            model.world = model.world.restart().await;
        } else {
            model.step(step.clone()).await;
        }
    }
    for then in model.history.iter().rev().take(6) {
        for user in 0..USERS {
            model.check(user, then).await;
        }
    }
    model
}
