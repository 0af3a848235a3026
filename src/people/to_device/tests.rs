//! Inboxes on a real log: what waits, in which order, for how long, and how much of it.

mod ended;

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use proptest::prelude::*;
use ruma::{OwnedUserId, UserId, api::error::ErrorKind};
use serde_json::{Value, json};

use super::{InboxPage, MAX_CONTENT, Messages, PAGE_MESSAGES, SendRequest};
use crate::{
    app::App,
    config::Config,
    error::{Error, Result},
    event::fact::{AccountChange, Entry, Fact},
    ground::position::Position,
    store::{
        self, account,
        device::{self, DeviceSelection},
    },
    testing::{World, user},
};

const KIND: &str = "org.example.test";
const NONE: [i64; 0] = [];

/// Logs somebody in, as far as inboxes go.
async fn add_device(app: &App, user_id: &UserId, device_id: &str) {
    let mut tx = app.db.begin().await.unwrap();
    device::upsert(&mut tx, user_id, device_id.into(), None, 0, "").await.unwrap();
    tx.commit().await.unwrap();
}

/// Logs them out.
async fn remove_device(app: &App, user_id: &UserId, device_id: &str) {
    let mut tx = app.db.begin().await.unwrap();
    device::delete(&mut tx, user_id, DeviceSelection::These(&[device_id])).await.unwrap();
    store::to_device::end_inboxes(&mut tx, user_id, &[device_id]).await.unwrap();
    let change = AccountChange::Devices(user_id.to_owned());
    app.log.commit(tx, vec![Fact::AccountChange(change)]).await.unwrap();
}

fn messages(messages: &Value) -> Messages {
    serde_json::from_str(&messages.to_string()).unwrap()
}

/// Alice sends from her phone.
async fn send(app: &App, transaction_id: &str, to: &Value) -> Result<()> {
    let addressed = app.to_device.address(messages(to)).await?;
    let request = SendRequest {
        sender: user("alice"),
        device_id: "PHONE".into(),
        kind: KIND.to_owned(),
        transaction_id: transaction_id.into(),
    };
    app.to_device.send(request, addressed).await
}

/// What a device gets that has everything up to a place.
async fn page(app: &App, user_id: &UserId, device_id: &str, after: Position) -> InboxPage {
    app.to_device.page(user_id, device_id.into(), after, app.log.tail().reached()).await.unwrap()
}

/// The numbers in messages.
fn numbers(page: &InboxPage) -> Vec<i64> {
    let number = |content: &str| serde_json::from_str::<Value>(content).unwrap()["n"].as_i64().unwrap();
    page.messages.iter().map(|message| number(message.content.get())).collect()
}

/// All numbers that wait for a device, without confirming any.
async fn waiting(app: &App, user_id: &UserId, device_id: &str) -> Vec<i64> {
    let (mut after, mut all) = (Position::START, Vec::new());
    loop {
        let page = page(app, user_id, device_id, after).await;
        all.extend(numbers(&page));
        if page.messages.is_empty() {
            return all;
        }
        after = page.until;
    }
}

/// How many rows there are for a device, whatever the cache says.
async fn count_rows(app: &App, user_id: &UserId, device_id: &str) -> usize {
    let (mut conn, whole) = (app.db.read().await.unwrap(), (Position::START, Position(i64::MAX)));
    let limits = (10_000, i64::MAX / 2);
    let page = store::to_device::list_page(&mut conn, (user_id, device_id.into()), whole, limits).await.unwrap();
    page.messages.len()
}

#[tokio::test]
async fn what_waits_comes_in_order_a_page_at_a_time_and_is_deleted_once_it_is_confirmed() {
    let bob = user("bob");
    for world in World::on_each_engine().await {
        let app = &world.app;
        add_device(app, &bob, "D").await;
        add_device(app, &bob, "E").await;
        for n in 0..250 {
            send(app, &n.to_string(), &json!({ bob.as_str(): { "D": { "n": n } } })).await.unwrap();
        }
        let first = page(app, &bob, "D", Position::START).await;
        assert_eq!(numbers(&first), (0..100).collect::<Vec<_>>());
        assert!(first.until < app.log.tail().reached());
        assert_eq!(numbers(&page(app, &bob, "D", Position::START).await), numbers(&first), "as often as one asks");
        assert_eq!(first.messages[0].sender, user("alice"));
        assert_eq!(first.messages[0].kind, KIND);
        assert_eq!(waiting(app, &bob, "D").await, (0..250).collect::<Vec<_>>());
        for _ in 0..2 {
            app.to_device.confirm(&bob, "D".into(), first.until).await.unwrap();
            assert_eq!(waiting(app, &bob, "D").await, (100..250).collect::<Vec<_>>());
        }
        assert_eq!(count_rows(app, &bob, "D").await, 150);
        let world = world.restart().await;
        let app = &world.app;
        let mut after = first.until;
        for expected in [100..200, 200..250] {
            let page = page(app, &bob, "D", after).await;
            assert_eq!(numbers(&page), expected.collect::<Vec<_>>());
            after = page.until;
        }
        assert_eq!(after, app.log.tail().reached(), "there is no more");
        app.to_device.confirm(&bob, "D".into(), after).await.unwrap();
        assert_eq!(waiting(app, &bob, "D").await, NONE);
        assert_eq!((count_rows(app, &bob, "D").await, count_rows(app, &bob, "E").await), (0, 0));
        world.close().await;
    }
}

#[tokio::test]
async fn a_page_has_about_a_mebibyte() {
    let bob = user("bob");
    for world in World::on_each_engine().await {
        let app = &world.app;
        add_device(app, &bob, "D").await;
        for n in 0..40 {
            let content = json!({ "n": n, "text": "x".repeat(MAX_CONTENT - 100) });
            send(app, &n.to_string(), &json!({ bob.as_str(): { "D": content } })).await.unwrap();
        }
        let mut after = Position::START;
        for expected in [0..16, 16..32, 32..40] {
            let page = page(app, &bob, "D", after).await;
            assert_eq!(numbers(&page), expected.collect::<Vec<_>>());
            after = page.until;
        }
        world.close().await;
    }
}

#[tokio::test]
async fn a_request_that_is_made_again_sends_nothing_even_at_the_same_moment() {
    let bob = user("bob");
    for world in World::on_each_engine().await {
        let app = &world.app;
        add_device(app, &bob, "D").await;
        add_device(app, &user("alice"), "PHONE").await;
        let to = json!({ bob.as_str(): { "D": { "n": 1 } } });
        for sent in join_all((0..20).map(|_| send(app, "once", &to))).await {
            sent.unwrap();
        }
        send(app, "once", &json!({ bob.as_str(): { "D": { "n": 2 } } })).await.unwrap();
        assert_eq!(waiting(app, &bob, "D").await, [1]);
        send(app, "twice", &to).await.unwrap();
        let world = world.restart().await;
        let app = &world.app;
        send(app, "once", &to).await.unwrap();
        assert_eq!(waiting(app, &bob, "D").await, [1, 1]);
        // Requests of so long ago are not repeated, and those of a device end with it.
        app.to_device.clear_expired().await.unwrap();
        send(app, "once", &to).await.unwrap();
        assert_eq!(waiting(app, &bob, "D").await.len(), 2);
        world.clock.advance(super::ended::REQUESTS_KEPT);
        app.to_device.clear_expired().await.unwrap();
        send(app, "once", &to).await.unwrap();
        assert_eq!(waiting(app, &bob, "D").await.len(), 3);
        remove_device(app, &user("alice"), "PHONE").await;
        add_device(app, &user("alice"), "PHONE").await;
        for _ in 0..2 {
            // Of the new device of that name it is the first; what is left of the old one is of no account.
            send(app, "once", &to).await.unwrap();
            send(app, "once", &to).await.unwrap();
            assert_eq!(waiting(app, &bob, "D").await.len(), 4);
            app.to_device.clear_ended().await.unwrap();
        }
        assert_eq!(world.dump("to_device_requests").await.len(), 1);
        world.close().await;
    }
}

#[tokio::test]
async fn on_two_nodes_too_a_request_sends_once_and_what_is_confirmed_is_gone() {
    let Some((world, other)) = World::two_nodes().await else { return };
    let (app, bob) = (&world.app, user("bob"));
    add_device(app, &bob, "D").await;
    let to = json!({ bob.as_str(): { "D": { "n": 1 } } });
    for _ in 0..5 {
        let (one, two) = tokio::join!(send(app, "once", &to), send(&other, "once", &to));
        one.unwrap();
        two.unwrap();
    }
    for node in [app, &other] {
        node.log.refresh().await.unwrap();
        assert_eq!(waiting(node, &bob, "D").await, [1]);
    }
    send(&other, "second", &json!({ bob.as_str(): { "D": { "n": 2 } } })).await.unwrap();
    app.log.refresh().await.unwrap();
    let last = app.log.tail().reached();
    app.to_device.confirm(&bob, "D".into(), last).await.unwrap();
    // Its cache does not know, and what it says is of no account.
    assert_eq!(waiting(&other, &bob, "D").await, NONE);
    other.to_device.confirm(&bob, "D".into(), last).await.unwrap();
    send(app, "third", &json!({ bob.as_str(): { "D": { "n": 3 } } })).await.unwrap();
    other.log.refresh().await.unwrap();
    assert_eq!(waiting(&other, &bob, "D").await, [3]);
    world.close_both(other).await;
}

#[tokio::test]
async fn a_star_is_all_devices_and_whom_nobody_knows_is_left_out() {
    let (alice, bob) = (user("alice"), user("bob"));
    for world in World::on_each_engine().await {
        let app = &world.app;
        for device_id in ["D", "E", "F"] {
            add_device(app, &bob, device_id).await;
        }
        add_device(app, &alice, "PHONE").await;
        let to = json!({
            bob.as_str(): { "*": { "n": 1 }, "E": { "n": 2 }, "NONE": { "n": 3 }, "with\u{0}nul": {} },
            alice.as_str(): { "*": { "n": 4 } },
            "@nobody:localhost": { "*": {}, "D": {} },
            "@carol:elsewhere.example": { "*": {}, "D": {} },
        });
        send(app, "1", &to).await.unwrap();
        for (device_id, expected) in [("D", 1), ("E", 2), ("F", 1)] {
            assert_eq!(waiting(app, &bob, device_id).await, [expected], "{device_id}");
        }
        assert_eq!(waiting(app, &alice, "PHONE").await, [4], "one's own device, too");
        assert_eq!(count_rows(app, &bob, "NONE").await, 0);
        assert!(app.metrics.render().unwrap().contains("hearth_to_device_unsent_total 2\n"));
        let before = app.log.tail().reached();
        send(app, "2", &json!({ "@carol:elsewhere.example": { "D": {} }, "@nobody:localhost": { "*": {} } }))
            .await
            .unwrap();
        assert_eq!(app.log.tail().reached(), before, "nothing of it is for anybody here");
        world.close().await;
    }
}

#[tokio::test]
async fn what_could_not_be_sent_on_is_refused_whole() {
    let world = World::new().await;
    let (app, bob) = (&world.app, user("bob"));
    add_device(app, &bob, "D").await;
    let many: serde_json::Map<_, _> = (0..=super::MAX_MESSAGES).map(|n| (n.to_string(), json!({}))).collect();
    let cases = [
        (json!({ bob.as_str(): { "D": { "n": 0.5 } } }), ErrorKind::BadJson),
        (json!({ bob.as_str(): { "D": [1] } }), ErrorKind::BadJson),
        (json!({ bob.as_str(): { "D": { "n": 1 }, "E": "text" } }), ErrorKind::BadJson),
        (json!({ bob.as_str(): many }), ErrorKind::InvalidParam),
    ];
    for (to, expected) in cases {
        let refused = send(app, "1", &to).await;
        assert!(matches!(&refused, Err(Error::Refused { kind, .. }) if *kind == expected), "{refused:?}");
    }
    let devices = 2 + super::MAX_BYTES / MAX_CONTENT;
    for n in 0..devices {
        add_device(app, &user("carol"), &n.to_string()).await;
    }
    let to_all = |length: usize| messages(&json!({ "@carol:localhost": { "*": { "text": "x".repeat(length) } } }));
    let refused = app.to_device.address(to_all(MAX_CONTENT - 100)).await;
    assert!(matches!(&refused, Err(Error::Refused { kind: ErrorKind::InvalidParam, .. })), "{refused:?}");
    let (asked, addressed) = (to_all(5_000), app.to_device.address(to_all(5_000)).await.unwrap());
    assert_eq!((super::cost(&asked), addressed.cost()), (2, 2 * u32::try_from(devices).unwrap()));
    for kind in ["a\0b".to_owned(), "x".repeat(256)] {
        let addressed = app.to_device.address(messages(&json!({ bob.as_str(): { "D": {} } }))).await.unwrap();
        let request =
            SendRequest { sender: user("alice"), device_id: "PHONE".into(), kind, transaction_id: "1".into() };
        app.to_device.send(request, addressed).await.unwrap_err();
    }
    assert_eq!(count_rows(app, &bob, "D").await, 0);
    world.close().await;
}

/// However many come at the same moment; and what was accepted stays. Nobody keeps others from getting theirs.
#[tokio::test]
async fn a_device_with_a_full_inbox_is_left_out_alone() {
    let mut config = Config::default();
    config.quotas.to_device_megabytes = 1;
    config.quotas.exempt_users = vec![user("carol")];
    let world = World::with(config).await;
    let (app, bob, carol) = (&world.app, user("bob"), user("carol"));
    for (user_id, device_id) in [(&bob, "D"), (&bob, "E"), (&carol, "D")] {
        add_device(app, user_id, device_id).await;
    }
    let content = |n: i64| json!({ "n": n, "text": "x".repeat(MAX_CONTENT - 1_000) });
    let left_out = |count: usize| {
        let metrics = app.metrics.render().unwrap();
        assert!(metrics.contains(&format!("hearth_to_device_inbox_full_total {count}\n")), "{metrics}");
    };
    left_out(0);
    let names: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    let sends: Vec<Value> = (0..40).map(|n| json!({ bob.as_str(): { "D": content(n) } })).collect();
    for sent in join_all(names.iter().zip(&sends).map(|(name, to)| send(app, name, to))).await {
        sent.unwrap();
    }
    let accepted = waiting(app, &bob, "D").await;
    assert_eq!(accepted.len(), 16);
    left_out(24);
    // Other devices, and those of others, have room of their own.
    let to = json!({ bob.as_str(): { "D": content(50), "E": content(50) }, carol.as_str(): { "*": content(50) } });
    send(app, "all", &to).await.unwrap();
    assert_eq!((waiting(app, &bob, "E").await, waiting(app, &carol, "D").await), (vec![50], vec![50]));
    left_out(25);
    // What was left out takes no room: a small message still fits.
    send(app, "small", &json!({ bob.as_str(): { "D": { "n": 51 } } })).await.unwrap();
    let with_small: Vec<i64> = accepted.iter().copied().chain([51]).collect();
    assert_eq!(waiting(app, &bob, "D").await, with_small);
    let first = page(app, &bob, "D", Position::START).await;
    app.to_device.confirm(&bob, "D".into(), first.messages[1].position).await.unwrap();
    // What was made is recognised, also where it was left out.
    for (name, to) in names.iter().zip(&sends) {
        send(app, name, to).await.unwrap();
    }
    assert_eq!(waiting(app, &bob, "D").await, with_small[2..]);
    send(app, "a", &json!({ bob.as_str(): { "D": content(52) } })).await.unwrap();
    send(app, "b", &json!({ bob.as_str(): { "D": content(53) } })).await.unwrap();
    send(app, "c", &json!({ bob.as_str(): { "D": content(54) } })).await.unwrap();
    let with_two: Vec<i64> = with_small[2..].iter().copied().chain([52, 53]).collect();
    assert_eq!(waiting(app, &bob, "D").await, with_two, "what was confirmed has made room");
    left_out(26);
    for n in 0..20 {
        send(app, &format!("carol {n}"), &json!({ carol.as_str(): { "D": content(n) } })).await.unwrap();
    }
    left_out(26);
    world.close().await;
}

/// The log of every node says for whom something waits: nobody looks for what was left out.
#[tokio::test]
async fn on_two_nodes_too_what_is_left_out_is_in_no_entry() {
    let mut config = Config::default();
    config.quotas.to_device_megabytes = 1;
    let Some((world, other)) = World::two_nodes_with(&config).await else { return };
    let (app, bob) = (&world.app, user("bob"));
    for device_id in ["D", "E"] {
        add_device(app, &bob, device_id).await;
    }
    for n in 0..20 {
        let content = json!({ "n": n, "text": "x".repeat(MAX_CONTENT - 1_000) });
        send(app, &n.to_string(), &json!({ bob.as_str(): { "D": content } })).await.unwrap();
    }
    // The other node remembers both inboxes from here on, and follows the log.
    other.log.refresh().await.unwrap();
    let full = waiting(&other, &bob, "D").await;
    assert_eq!(full.len(), 16);
    let before = app.log.tail().reached();
    let large = json!({ "n": 1, "text": "x".repeat(MAX_CONTENT - 1_000) });
    send(app, "both", &json!({ bob.as_str(): { "D": large, "E": { "n": 2 } } })).await.unwrap();
    let batches = store::log::batches_after(&mut app.db.read().await.unwrap(), before, 10).await.unwrap();
    let entries = batches.into_iter().flat_map(|batch| batch.entries);
    let to_device: Vec<_> = entries.filter(|entry| matches!(entry, Entry::ToDevice(_))).collect();
    assert_eq!(to_device, [Entry::ToDevice((bob.clone(), vec!["E".into()]))]);
    other.log.refresh().await.unwrap();
    assert_eq!(waiting(&other, &bob, "E").await, [2]);
    assert_eq!(waiting(&other, &bob, "D").await, full);
    world.close_both(other).await;
}

#[tokio::test]
async fn a_deactivated_account_has_no_inbox() {
    let bob = user("bob");
    for world in World::on_each_engine().await {
        let app = &world.app;
        let mut tx = app.db.begin().await.unwrap();
        assert!(account::insert(&mut tx, &bob, None, false, 0).await.unwrap());
        tx.commit().await.unwrap();
        add_device(app, &bob, "D").await;
        send(app, "1", &json!({ bob.as_str(): { "D": { "n": 1 } } })).await.unwrap();
        assert_eq!(count_rows(app, &bob, "D").await, 1);
        app.accounts.deactivate(&bob, false).await.unwrap();
        send(app, "2", &json!({ bob.as_str(): { "D": { "n": 2 }, "*": { "n": 3 } } })).await.unwrap();
        assert_eq!(count_rows(app, &bob, "D").await, 0);
        world.close().await;
    }
}

/// What happens to the inboxes of bob.
#[derive(Clone, Debug)]
enum Step {
    /// So many messages, one after the other or at once, to one of his devices or to all.
    Send {
        count: usize,
        device: Option<usize>,
        at_once: bool,
    },
    /// A device asks for what comes after all that it has, and may get that again.
    Read {
        device: usize,
        again: bool,
    },
    /// Its next token says what it has.
    Confirm {
        device: usize,
    },
    /// A token that it had before.
    ConfirmOld {
        device: usize,
    },
    LogOut {
        device: usize,
    },
    Restart,
}

const DEVICES: [&str; 3] = ["D", "E", "F"];

/// A device as it should be: what waits for it, and what it has got.
#[derive(Clone, Default)]
struct Model {
    /// Not confirmed, oldest first. Those that were sent at once may come in any order among themselves.
    waiting: Vec<i64>,
    /// Of these, how many it has got.
    got: usize,
    delivered: Position,
    older: Position,
}

impl Model {
    /// What the device was told is what comes next, all of a page.
    fn read(&mut self, told: &[i64], until: Position, sent_with: &[i64]) {
        let moment = |number: &i64| sent_with[usize::try_from(*number).unwrap()];
        let (got, rest) = self.waiting.split_at(self.got);
        let expected: Vec<i64> = rest.iter().take(PAGE_MESSAGES).map(moment).collect();
        assert_eq!(told.iter().map(moment).collect::<Vec<_>>(), expected);
        assert!(told.iter().all(|number| rest.contains(number)), "{told:?} of {rest:?}");
        assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), told.len(), "{told:?}");
        // From then on the order has to stay what it was told to be.
        let later = rest.iter().filter(|number| !told.contains(number));
        self.waiting = got.iter().chain(told).chain(later).copied().collect();
        self.got += told.len();
        (self.older, self.delivered) = (self.delivered, until);
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let device = 0..DEVICES.len();
    let step = prop_oneof![
        4 => (1..70_usize, prop::option::of(device.clone()), any::<bool>())
            .prop_map(|(count, device, at_once)| Step::Send { count, device, at_once }),
        4 => (device.clone(), any::<bool>()).prop_map(|(device, again)| Step::Read { device, again }),
        4 => device.clone().prop_map(|device| Step::Confirm { device }),
        1 => device.clone().prop_map(|device| Step::ConfirmOld { device }),
        1 => device.prop_map(|device| Step::LogOut { device }),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..30)
}

async fn play(mut world: World, steps: &[Step]) {
    let bob: OwnedUserId = user("bob");
    for device in DEVICES {
        add_device(&world.app, &bob, device).await;
    }
    let mut models = vec![Model::default(); DEVICES.len()];
    // For each number the first of those that were sent at the same moment.
    let mut sent_with: Vec<i64> = Vec::new();
    for step in steps {
        match step {
            Step::Restart => world = world.restart().await,
            Step::Send { count, device, at_once } => {
                let first = i64::try_from(sent_with.len()).unwrap();
                let numbers: Vec<i64> = (first..).take(*count).collect();
                sent_with.extend(numbers.iter().map(|number| if *at_once { first } else { *number }));
                post(&world.app, &bob, &numbers, device.map(|device| DEVICES[device]), *at_once).await;
                for (index, model) in models.iter_mut().enumerate() {
                    if device.is_none_or(|device| device == index) {
                        model.waiting.extend(&numbers);
                    }
                }
            }
            Step::Read { device, again } => {
                let model = &mut models[*device];
                let page = page(&world.app, &bob, DEVICES[*device], model.delivered).await;
                let told = numbers(&page);
                if *again {
                    // The answer is lost.
                    let again = self::page(&world.app, &bob, DEVICES[*device], model.delivered).await;
                    assert_eq!(numbers(&again), told);
                } else {
                    model.read(&told, page.until, &sent_with);
                }
            }
            Step::Confirm { device } => {
                let model = &mut models[*device];
                let (name, until) = (DEVICES[*device], model.delivered);
                world.app.to_device.confirm(&bob, name.into(), until).await.unwrap();
                drop(model.waiting.drain(..std::mem::take(&mut model.got)));
            }
            Step::ConfirmOld { device } => {
                let model = &models[*device];
                world.app.to_device.confirm(&bob, DEVICES[*device].into(), model.older).await.unwrap();
            }
            Step::LogOut { device } => {
                remove_device(&world.app, &bob, DEVICES[*device]).await;
                add_device(&world.app, &bob, DEVICES[*device]).await;
                models[*device] = Model::default();
            }
        }
    }
    for (device, model) in DEVICES.iter().zip(&models) {
        let page = page(&world.app, &bob, device, model.delivered).await;
        assert_eq!(numbers(&page).len(), (model.waiting.len() - model.got).min(PAGE_MESSAGES), "{device}");
        // Whatever was given out and not confirmed is there still, but for what an old token confirmed.
        assert!(count_rows(&world.app, &bob, device).await >= model.waiting.len() - model.got, "{device}");
        assert!(count_rows(&world.app, &bob, device).await <= model.waiting.len(), "{device}");
    }
    world.close().await;
}

/// Sends numbers to bob, one message each.
async fn post(app: &App, bob: &UserId, numbers: &[i64], device: Option<&str>, at_once: bool) {
    let device = device.unwrap_or("*");
    let messages: BTreeMap<String, Value> =
        numbers.iter().map(|n| (format!("number {n}"), json!({ bob.as_str(): { device: { "n": n } } }))).collect();
    if at_once {
        for sent in join_all(messages.iter().map(|(name, to)| send(app, name, to))).await {
            sent.unwrap();
        }
        return;
    }
    for n in numbers {
        let name = format!("number {n}");
        send(app, &name, &messages[&name]).await.unwrap();
        // As a client that lost the answer.
        send(app, &name, &messages[&name]).await.unwrap();
    }
}

fn in_a_runtime<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) })]

    /// Whoever sends, reads, confirms and goes away when.
    #[test]
    fn each_message_comes_in_order_until_it_is_confirmed_and_never_again(steps in steps()) {
        in_a_runtime(async { play(World::new().await, &steps).await });
    }
}

/// On each engine that is at hand.
#[tokio::test(flavor = "multi_thread")]
async fn inboxes_do_as_the_model_does_on_each_engine() {
    let steps: Vec<Step> = (0..40_usize)
        .map(|n| match n % 8 {
            0 | 3 => Step::Send { count: 20 + n, device: (n % 3 != 0).then_some(n % 2), at_once: n % 2 == 0 },
            1 | 4 | 6 => Step::Read { device: n % 3, again: n % 5 == 0 },
            2 | 5 => Step::Confirm { device: n % 3 },
            _ if n % 3 == 0 => Step::LogOut { device: n % 2 },
            _ if n % 3 == 1 => Step::Restart,
            _ => Step::ConfirmOld { device: n % 3 },
        })
        .collect();
    for world in World::on_each_engine().await {
        play(world, &steps).await;
    }
}
