//! Unread counts against a model that keeps everything in a list and counts it whenever it is asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::prelude::*;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, events::receipt::ReceiptThread};
use serde_json::json;

use super::{Count, Counts};
use crate::{
    app::App,
    db::{args, statements},
    ephemeral::receipt::ReadMarkers,
    event::{Draft, fact::Receipt},
    ground::{position::Position, sizes::Sizes},
    store,
    testing::{World, user},
};

const USERS: usize = 3;
/// In place of a user who is mentioned: everybody.
const EVERYBODY: usize = USERS;

/// What happens in a room. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    /// A message, in a thread or not, that mentions somebody or not, or one that does not notify.
    Say {
        sender: usize,
        thread: Option<usize>,
        mentions: Option<usize>,
        notice: bool,
    },
    Read {
        reader: usize,
        event: usize,
        scope: Scope,
        private: bool,
    },
    /// Something that relates to an earlier event in another way than by being in its thread.
    Relate {
        sender: usize,
        event: usize,
        how: How,
        mentions: Option<usize>,
    },
    Redact {
        sender: usize,
        event: usize,
    },
    /// Somebody ignores another, or does so no longer.
    Ignore {
        user: usize,
        other: usize,
    },
    /// In or out; the first user stays.
    Move {
        user: usize,
    },
    /// A new name, which says nothing about what was read.
    Rename {
        user: usize,
    },
    Ask {
        user: usize,
    },
}

#[derive(Clone, Copy, Debug)]
enum Scope {
    Everything,
    ItsThread,
}

/// How an event relates to another.
#[derive(Clone, Copy, Debug)]
enum How {
    Edit,
    Reaction,
    Reference,
}

fn step() -> impl Strategy<Value = Step> {
    let user = 0..USERS;
    let mentioned = 0..=EVERYBODY;
    let say = (user.clone(), prop::option::weighted(0.4, 0..9_usize), prop::option::of(mentioned), 0..6_u8)
        .prop_map(|(sender, thread, mentions, notice)| Step::Say { sender, thread, mentions, notice: notice == 0 });
    let scope = prop_oneof![Just(Scope::Everything), Just(Scope::ItsThread)];
    let read = (user.clone(), 0..50_usize, scope, any::<bool>())
        .prop_map(|(reader, event, scope, private)| Step::Read { reader, event, scope, private });
    let redact = (user.clone(), 0..50_usize).prop_map(|(sender, event)| Step::Redact { sender, event });
    let how = prop_oneof![Just(How::Edit), Just(How::Reaction), Just(How::Reference)];
    let relate = (user.clone(), 0..50_usize, how, prop::option::of(user.clone()))
        .prop_map(|(sender, event, how, mentions)| Step::Relate { sender, event, how, mentions });
    let ignore = (user.clone(), user.clone()).prop_map(|(user, other)| Step::Ignore { user, other });
    prop_oneof![
        12 => say,
        5 => relate,
        6 => read,
        2 => redact,
        2 => ignore,
        1 => user.clone().prop_map(|user| Step::Move { user }),
        1 => user.clone().prop_map(|user| Step::Rename { user }),
        4 => user.prop_map(|user| Step::Ask { user }),
    ]
}

/// An event of the model. Its place is its index.
#[expect(clippy::struct_excessive_bools, reason = "a naive model tells everything apart")]
struct Event {
    id: OwnedEventId,
    sender: usize,
    thread: Option<OwnedEventId>,
    notifies: bool,
    mentions: Option<usize>,
    redacted: bool,
    /// That the sender said it means that they have read up to here.
    speaks: bool,
    is_message: bool,
    /// Whether a thread may begin there.
    is_alone: bool,
}

/// One room and what everybody has read in it.
struct Model {
    world: World,
    room: OwnedRoomId,
    /// How many events the room had in the beginning.
    before: usize,
    users: Vec<OwnedUserId>,
    events: Vec<Event>,
    /// Reader, thread id and index of the event.
    receipts: Vec<(usize, String, usize)>,
    joined: Vec<Option<usize>>,
    /// Who ignores whom.
    ignored: BTreeSet<(usize, usize)>,
}

impl Model {
    async fn new(world: World) -> Self {
        let users: Vec<_> = ["alice", "bob", "carol"].map(user).into();
        let everybody: Vec<_> = users.iter().map(AsRef::as_ref).collect();
        let room = world.room(&everybody).await;
        let before = world.app.rooms.find(&room).await.unwrap().unwrap().view(|view| view.head.head);
        let before = usize::try_from(before).unwrap();
        Self {
            world,
            room,
            before,
            users,
            events: Vec::new(),
            receipts: Vec::new(),
            joined: vec![Some(0); USERS],
            ignored: BTreeSet::new(),
        }
    }

    /// Straight from the rules.
    fn counts(&self, user: usize) -> Counts {
        let Some(joined) = self.joined[user] else { return Counts::default() };
        let mut counts = Counts::default();
        let stretch = usize::try_from(Sizes::little().unread.stretch).unwrap();
        let beyond_reach = ((self.before + self.events.len()) / stretch).saturating_sub(1) * stretch;
        let first = joined.max(beyond_reach.saturating_sub(self.before));
        for (at, event) in self.events.iter().enumerate().skip(first) {
            let is_mentioned = event.mentions == Some(user) || event.mentions == Some(EVERYBODY);
            let highlights = is_mentioned && event.sender != user && !event.redacted;
            let notifies = event.notifies && !event.redacted && event.sender != user;
            let is_ignored = self.ignored.contains(&(user, event.sender));
            if is_ignored || !(highlights || notifies) || self.has_read(user, at, event.thread.as_ref()) {
                continue;
            }
            let count = match &event.thread {
                None => &mut counts.main,
                Some(root) => counts.threads.entry(root.clone()).or_default(),
            };
            count.notifications += 1;
            count.highlights += u64::from(highlights);
        }
        counts
    }

    fn has_read(&self, user: usize, at: usize, thread: Option<&OwnedEventId>) -> bool {
        let thread_id = thread.map_or("main", |root| root.as_str());
        let by_receipt = self
            .receipts
            .iter()
            .any(|(reader, scope, until)| *reader == user && *until >= at && (scope.is_empty() || scope == thread_id));
        let mut later = self.events.iter().skip(at);
        by_receipt || later.any(|event| event.sender == user && event.speaks && event.thread.as_ref() == thread)
    }

    async fn check(&self, user: usize) {
        let counts = self.world.app.syncs.unread().counts(&self.users[user], &self.room).await.unwrap();
        assert_eq!(counts, self.counts(user), "what {} has not read", self.users[user]);
    }

    fn push(&mut self, id: OwnedEventId, sender: usize, speaks: bool) {
        self.events.push(Event {
            id,
            sender,
            thread: None,
            notifies: false,
            mentions: None,
            redacted: false,
            speaks,
            is_message: false,
            is_alone: false,
        });
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Say { sender, thread, mentions, notice } if self.joined[sender].is_some() => {
                self.say(sender, thread, mentions, notice).await;
            }
            Step::Relate { sender, event, how, mentions } if self.joined[sender].is_some() => {
                self.relate(sender, event, how, mentions).await;
            }
            Step::Ignore { user, other } if user != other => {
                if !self.ignored.remove(&(user, other)) {
                    self.ignored.insert((user, other));
                }
                let others = self.ignored.iter().filter(|(one, _)| *one == user).map(|(_, other)| &self.users[*other]);
                let list: BTreeMap<_, _> = others.map(|other| (other, json!({}))).collect();
                let content = serde_json::value::to_raw_value(&json!({ "ignored_users": list })).unwrap();
                let data = &self.world.app.account_data;
                data.set(&self.users[user], None, "m.ignored_user_list", content).await.unwrap();
            }
            Step::Read { reader, event, scope, private } if self.joined[reader].is_some() => {
                self.read(reader, event, scope, private).await;
            }
            Step::Redact { sender, event } if self.joined[sender].is_some() && !self.events.is_empty() => {
                // Mostly a recent one, and now and then one that has been redacted before.
                let target = self.events.len() - 1 - event % self.events.len().min(8);
                if !self.events[target].is_message {
                    return;
                }
                let id = self.events[target].id.clone();
                let redaction = self.world.redact(&self.room, &self.users[sender], &id).await;
                self.events[target].redacted = true;
                self.push(redaction, sender, true);
            }
            Step::Move { user } if user > 0 => {
                let membership = if self.joined[user].is_some() { "leave" } else { "join" };
                let id = self.world.membership(&self.room, &self.users[user], membership).await;
                self.push(id, user, false);
                self.joined[user] = if self.joined[user].is_some() { None } else { Some(self.events.len()) };
            }
            Step::Rename { user } if self.joined[user].is_some() => {
                let name = json!({ "membership": "join", "displayname": self.events.len().to_string() });
                let id = self.world.profile(&self.room, &self.users[user], name).await;
                self.push(id, user, false);
            }
            Step::Ask { user } => self.check(user).await,
            _ => {}
        }
    }

    async fn say(&mut self, sender: usize, thread: Option<usize>, mentions: Option<usize>, notice: bool) {
        // Two messages can be the root of a thread, so that several are under way at once.
        let roots = self.events.iter().filter(|event| event.is_alone);
        let roots: Vec<_> = roots.take(2).map(|event| event.id.clone()).collect();
        let thread = thread.filter(|_| !roots.is_empty()).map(|n| roots[n % roots.len()].clone());
        let mentions = self.highlighted(sender, mentions).filter(|_| !notice);
        let mut content = json!({ "msgtype": if notice { "m.notice" } else { "m.text" }, "body": "…" });
        if let Some(root) = &thread {
            content["m.relates_to"] = json!({ "rel_type": "m.thread", "event_id": root });
        }
        if let Some(mentioned) = mentions {
            content["m.mentions"] = self.mention(mentioned);
        }
        let id = self.world.message(&self.room, &self.users[sender], content).await;
        self.push(id, sender, true);
        let event = self.events.last_mut().unwrap();
        event.is_alone = thread.is_none();
        (event.thread, event.notifies, event.mentions, event.is_message) = (thread, !notice, mentions, true);
    }

    fn mention(&self, mentioned: usize) -> serde_json::Value {
        if mentioned == EVERYBODY { json!({ "room": true }) } else { json!({ "user_ids": [self.users[mentioned]] }) }
    }

    /// Whom a mention highlights.
    fn highlighted(&self, sender: usize, mentions: Option<usize>) -> Option<usize> {
        mentions.filter(|mentioned| match *mentioned {
            // Only the first user may.
            EVERYBODY => sender == 0,
            mentioned => mentioned != sender && self.joined[mentioned].is_some(),
        })
    }

    async fn relate(&mut self, sender: usize, event: usize, how: How, mentions: Option<usize>) {
        if self.events.is_empty() {
            return;
        }
        let parent = &self.events[self.events.len() - 1 - event % self.events.len().min(12)];
        let (parent, thread) = (parent.id.clone(), parent.thread.clone());
        let mentions = self.highlighted(sender, mentions);
        let (kind, rel_type) = match how {
            How::Edit => ("m.room.message", "m.replace"),
            How::Reaction => ("m.reaction", "m.annotation"),
            How::Reference => ("m.room.message", "m.reference"),
        };
        let key = self.events.len().to_string();
        let relation = json!({ "rel_type": rel_type, "event_id": parent, "key": key });
        let mut content = json!({ "msgtype": "m.text", "body": "…", "m.new_content": {}, "m.relates_to": relation });
        if let Some(mentioned) = mentions {
            content["m.mentions"] = self.mention(mentioned);
        }
        let content = serde_json::from_value(content).unwrap();
        let draft = Draft::message(self.users[sender].clone(), kind.into(), content);
        let id = self.world.send(&self.room, draft).await;
        self.push(id, sender, true);
        let event = self.events.last_mut().unwrap();
        event.notifies = matches!(how, How::Reference);
        (event.thread, event.mentions, event.is_message) = (thread, mentions, true);
    }

    async fn read(&mut self, reader: usize, event: usize, scope: Scope, private: bool) {
        if self.events.is_empty() {
            return;
        }
        let at = event % self.events.len();
        let event = &self.events[at];
        let thread = match (scope, &event.thread) {
            (Scope::Everything, _) => None,
            (Scope::ItsThread, None) => Some("main".to_owned()),
            (Scope::ItsThread, Some(root)) => Some(root.to_string()),
        };
        let id = Some(event.id.clone());
        let marks = ReadMarkers { thread: ReceiptThread::try_from(thread.clone()).unwrap(), ..ReadMarkers::default() };
        let marks = if private { ReadMarkers { read_private: id, ..marks } } else { ReadMarkers { read: id, ..marks } };
        self.world.app.receipts.mark(&self.users[reader], &self.room, marks).await.unwrap();
        self.receipts.push((reader, thread.unwrap_or_default(), at));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn counts_are_what_a_recount_gives_after_any_history_and_after_a_restart(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            for world in World::on_each_engine().await {
                let mut model = Model::new(world).await;
                for step in steps.clone() {
                    model.step(step).await;
                }
                for user in 0..USERS {
                    model.check(user).await;
                }
                model.world = model.world.restart().await;
                for user in 0..USERS {
                    model.check(user).await;
                }
                model.world.close().await;
            }
        });
    }
}

#[tokio::test]
async fn threads_are_counted_apart_and_add_up_for_clients_that_do_not_know_them() {
    let (alice, bob) = (user("alice"), user("bob"));
    let world = World::new().await;
    let room = world.room(&[&alice, &bob]).await;
    let root = world.say(&room, &alice, "root").await;
    world.reply(&room, &alice, &root).await;
    let mention = json!({ "msgtype": "m.text", "body": "bob!", "m.mentions": { "user_ids": [bob] } });
    world.message(&room, &alice, mention).await;

    let counts = world.app.syncs.unread().counts(&bob, &room).await.unwrap();
    let one = Count { notifications: 1, highlights: 0 };
    let main = Count { notifications: 2, highlights: 1 };
    assert_eq!(counts, Counts { main, threads: BTreeMap::from([(root.clone(), one)]) });
    assert_eq!(counts.total(), Count { notifications: 3, highlights: 1 });
    assert_eq!(world.app.syncs.unread().counts(&alice, &room).await.unwrap(), Counts::default());

    // Bob answers in the thread: he has read that, and not the rest.
    world.reply(&room, &bob, &root).await;
    assert_eq!(world.app.syncs.unread().counts(&bob, &room).await.unwrap(), Counts { main, threads: BTreeMap::new() });
    assert_eq!(world.app.syncs.unread().counts(&alice, &room).await.unwrap().total(), one);
    world.membership(&room, &bob, "leave").await;
    assert_eq!(world.app.syncs.unread().counts(&bob, &room).await.unwrap(), Counts::default());
}

#[tokio::test]
async fn a_room_that_is_followed_costs_no_query() {
    let (alice, bob) = (user("alice"), user("bob"));
    let world = World::new().await;
    let room = world.room(&[&alice, &bob]).await;
    for n in 1..=30 {
        world.say(&room, &alice, "hello").await;
        let counts = world.app.syncs.unread().counts(&bob, &room).await.unwrap();
        assert_eq!(counts.main.notifications, n);
    }
    // Nothing can be asked of a database that is closed.
    world.app.db.close().await;
    let counts = world.app.syncs.unread().counts(&bob, &room).await.unwrap();
    assert_eq!(counts.main.notifications, 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_while_everybody_writes_is_what_a_restart_gives() {
    let users: Vec<_> = ["alice", "bob", "carol", "dave"].map(user).into();
    let everybody: Vec<_> = users.iter().map(AsRef::as_ref).collect();
    for mut world in World::on_each_engine().await {
        let room = world.room(&everybody).await;
        let root = world.say(&room, &users[0], "root").await;
        let busy = users.iter().enumerate().map(|(n, user)| {
            let (world, room, root, next) = (&world, &room, &root, &users[(n + 1) % users.len()]);
            async move {
                for turn in 0..25 {
                    let event = match turn % 5 {
                        0 => world.reply(room, user, root).await,
                        1 => {
                            let mentions = json!({ "user_ids": [next] });
                            let content = json!({ "msgtype": "m.text", "body": "hey", "m.mentions": mentions });
                            world.message(room, user, content).await
                        }
                        _ => world.say(room, user, "hello").await,
                    };
                    world.app.unread.counts(next, room).await.unwrap();
                    if turn % 4 == n {
                        let marks = ReadMarkers { read: Some(event.clone()), ..ReadMarkers::default() };
                        // Whoever leaves for a moment has nobody else reading for them.
                        let reader = if n == 2 { user } else { next };
                        world.app.receipts.mark(reader, room, marks).await.unwrap();
                    }
                    if turn % 7 == 0 && event != *root {
                        world.redact(room, user, &event).await;
                    }
                    if turn == 20 && n == 3 {
                        world.membership(room, user, "leave").await;
                        world.membership(room, user, "join").await;
                    }
                }
            }
        });
        futures_util::future::join_all(busy).await;
        let mut warm = Vec::new();
        for user in &users {
            warm.push(world.app.unread.counts(user, &room).await.unwrap());
        }
        world = world.restart().await;
        for (user, warm) in users.iter().zip(warm) {
            assert_eq!(world.app.unread.counts(user, &room).await.unwrap(), warm, "{user}");
        }
        world.close().await;
    }
}

/// Waits until a node has read what has been written so far.
async fn reach(app: &App, position: Position) {
    app.log.tail().wait_for(position).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_tell_the_same() {
    let Some((world, other)) = World::two_nodes().await else { return };
    let (alice, bob) = (user("alice"), user("bob"));
    let room = world.room(&[&alice, &bob]).await;
    let root = world.say(&room, &alice, "root").await;
    reach(&other, world.reached()).await;
    other.unread.counts(&bob, &room).await.unwrap();
    for turn in 0..10 {
        let event =
            if turn % 3 == 0 { world.reply(&room, &alice, &root).await } else { world.say(&room, &alice, "hi").await };
        if turn % 4 == 3 {
            reach(&other, world.reached()).await;
            // Behind what was read on the first node a moment ago, or ahead of it.
            let marks = ReadMarkers { read: Some(event.clone()), ..ReadMarkers::default() };
            let behind = ReadMarkers { read: Some(root.clone()), ..ReadMarkers::default() };
            let (on_one, on_other) = tokio::join!(
                world.app.receipts.mark(&bob, &room, if turn == 3 { marks.clone() } else { behind.clone() }),
                other.receipts.mark(&bob, &room, if turn == 3 { behind } else { marks }),
            );
            on_one.and(on_other).unwrap();
            let at = store::log::last_position(&mut world.app.db.read().await.unwrap()).await.unwrap();
            tokio::join!(reach(&other, at), reach(&world.app, at));
        }
        if turn == 8 {
            world.redact(&room, &alice, &event).await;
        }
        reach(&other, world.reached()).await;
        let here = world.app.unread.counts(&bob, &room).await.unwrap();
        assert_eq!(other.unread.counts(&bob, &room).await.unwrap(), here, "turn {turn}");
        let end = Position(i64::MAX);
        let shown = |receipts: Vec<(Position, Arc<Receipt>)>| -> Vec<_> {
            receipts.into_iter().map(|(at, receipt)| (at, receipt.event_id.clone())).collect()
        };
        let on_one = world.app.receipts.since(&room, Position::START, end, &alice).await.unwrap();
        let on_other = other.receipts.since(&room, Position::START, end, &alice).await.unwrap();
        assert_eq!(shown(on_one), shown(on_other), "turn {turn}");
    }
    world.close_both(other).await;
}

#[tokio::test]
async fn whom_somebody_ignores_is_counted_without_asking_the_database() {
    let (alice, bob) = (user("alice"), user("bob"));
    let world = World::new().await;
    let room = world.room(&[&alice, &bob]).await;
    let count = || async { world.app.unread.counts(&bob, &room).await.unwrap().main.notifications };
    let ignore = |list: &'static str| {
        let content = serde_json::value::RawValue::from_string(list.to_owned()).unwrap();
        world.app.account_data.set(&bob, None, "m.ignored_user_list", content)
    };
    for n in 0..30 {
        world.say(&room, &alice, "hello").await;
        // More is not remembered in tests.
        if n == 3 {
            assert_eq!(count().await, 4);
            ignore(r#"{"ignored_users":{"@alice:localhost":{}}}"#).await.unwrap();
            assert_eq!(count().await, 0);
            ignore(r#"{"ignored_users":{}}"#).await.unwrap();
            assert_eq!(count().await, 4);
            ignore(r#"{"ignored_users":{"@alice:localhost":{}}}"#).await.unwrap();
        }
        assert_eq!(count().await, if n < 3 { n + 1 } else { 0 });
    }
    world.app.db.close().await;
    assert_eq!(count().await, 0);
}

statements! {
    LIST_HIGHLIGHTED = "SELECT user_id FROM highlights ORDER BY user_id";
    DELETE_HIGHLIGHTED = "DELETE FROM highlights";
    INSERT_HIGHLIGHTED = "INSERT INTO highlights (user_id, room_id, position) SELECT $1, room_id, position FROM events
        WHERE event_id = $2";
}

#[tokio::test]
async fn whoever_calls_everybody_leaves_one_row_and_rows_of_before_count_as_well() {
    let users = ["alice", "bob", "carol"].map(user);
    for mut world in World::on_each_engine().await {
        let room = world.room(&users.each_ref().map(|user| &**user)).await;
        let call = json!({ "msgtype": "m.text", "body": "@room", "m.mentions": { "room": true } });
        let called = world.message(&room, &users[0], call).await;
        let expected = [0, 1, 1].map(|highlights| Count { notifications: highlights, highlights });
        let rows = |world: &World| {
            let db = world.app.db.clone();
            async move {
                let rows = db.read().await.unwrap().list(&LIST_HIGHLIGHTED, args![]).await.unwrap();
                rows.iter().map(|row| row.get::<String>(0).unwrap()).collect::<Vec<_>>()
            }
        };
        assert_eq!(rows(&world).await, [""]);
        for before in [false, true] {
            if before {
                let mut tx = world.app.db.begin().await.unwrap();
                tx.execute(&DELETE_HIGHLIGHTED, args![]).await.unwrap();
                for user in &users[1..] {
                    tx.execute(&INSERT_HIGHLIGHTED, args![user, &called]).await.unwrap();
                }
                tx.commit().await.unwrap();
            }
            world = world.restart().await;
            for (user, expected) in users.iter().zip(expected) {
                assert_eq!(world.app.unread.counts(user, &room).await.unwrap().main, expected, "{user} {before}");
            }
        }
        world.redact(&room, &users[0], &called).await;
        assert!(rows(&world).await.is_empty());
        world.close().await;
    }
}
