use std::time::Duration;

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
    user_id,
};
use serde_json::{Value, json};

use super::*;
use crate::{
    db::Tx,
    event::Draft,
    ground::position::Position,
    store::membership::{Before, MembershipRow},
    testing::{World, user},
};

const NOBODY: [(String, Option<String>); 0] = [];

/// A user of this server.
async fn person(world: &World, name: &str, display_name: &str) -> OwnedUserId {
    let user_id = user(name);
    let mut tx = world.app.db.begin().await.unwrap();
    store::account::insert(&mut tx, &user_id, None, false, 0).await.unwrap();
    store::user_directory::add(&mut tx, &user_id, None).await.unwrap();
    tx.commit().await.unwrap();
    world.app.profiles.change(&user_id, "displayname", Some(&json!(display_name))).await.unwrap();
    user_id
}

async fn set(world: &World, room_id: &RoomId, sender: &UserId, kind: TimelineEventType, content: Value) {
    let content = serde_json::from_value(content).unwrap();
    world.send(room_id, Draft::state(sender.to_owned(), kind, "", content)).await;
}

async fn join_rule(world: &World, room_id: &RoomId, sender: &UserId, rule: &str) {
    set(world, room_id, sender, TimelineEventType::RoomJoinRules, json!({ "join_rule": rule })).await;
}

async fn found(world: &World, searcher: &UserId, term: &str) -> Vec<(String, Option<String>)> {
    let found = world.app.user_directory.search(searcher, term, 10).await.unwrap();
    assert!(!found.limited);
    found.people.into_iter().map(|person| (person.user_id.to_string(), person.display_name)).collect()
}

#[tokio::test]
async fn users_of_other_servers_are_found_by_what_a_room_calls_them() {
    for world in World::on_each_engine().await {
        let (alice, bob) = (person(&world, "alice", "Alice").await, person(&world, "bob", "Bob").await);
        let eve = user_id!("@eve:elsewhere.example.org");
        let closed = world.room(&[&alice]).await;
        let open = world.room(&[&alice]).await;
        let join = |name: &str| json!({ "membership": "join", "displayname": name, "avatar_url": 7 });
        let secret = world.profile(&closed, eve, join("Secret Agent")).await;
        join_rule(&world, &closed, &alice, "invite").await;
        let called = |name: &str| vec![(eve.to_string(), Some(name.to_owned()))];
        assert_eq!(found(&world, &alice, "agent").await, called("Secret Agent"));
        assert_eq!(found(&world, &bob, "agent").await, NOBODY);
        assert_eq!(found(&world, &bob, "eve").await, NOBODY);

        world.profile(&open, eve, join("Eve")).await;
        assert_eq!(found(&world, &bob, "eve").await, called("Eve"));
        assert_eq!(found(&world, &bob, "@eve:elsewhere").await, called("Eve"));
        assert_eq!(found(&world, &bob, "secret").await, NOBODY, "what a closed room calls somebody is its own");
        assert_eq!(found(&world, &alice, "secret").await, called("Secret Agent"));

        world.redact(&closed, &alice, &secret).await;
        assert_eq!(found(&world, &alice, "agent").await, NOBODY, "a redacted name is gone");
        world.profile(&open, eve, join("Evelyn")).await;
        assert_eq!(found(&world, &bob, "evelyn").await, called("Evelyn"));
        join_rule(&world, &open, &alice, "invite").await;
        assert_eq!(found(&world, &bob, "evelyn").await, NOBODY, "the room is closed");
        assert_eq!(found(&world, &alice, "evelyn").await, called("Evelyn"));
        for room_id in [&open, &closed] {
            world.membership(room_id, eve, "leave").await;
        }
        assert_eq!(found(&world, &alice, "eve").await, NOBODY);
        world.close().await;
    }
}

#[tokio::test]
async fn the_members_of_a_large_room_follow_when_it_is_opened_or_closed() {
    for world in World::on_each_engine().await {
        let alice = person(&world, "alice", "Alice").await;
        let stranger = person(&world, "stranger", "Stranger").await;
        let eve = user_id!("@eve:elsewhere.example.org");
        let large = world.room(&[&alice, eve]).await;
        for n in 0..100 {
            world.membership(&large, &user(&format!("extra{n}")), "join").await;
        }
        let is_found = async || {
            let names = ["alice", "eve"].map(|name| found(&world, &stranger, name));
            let [alice, eve] = futures_util::future::join_all(names).await.try_into().unwrap();
            assert_eq!(alice.is_empty(), eve.is_empty());
            !alice.is_empty()
        };
        assert!(is_found().await);
        join_rule(&world, &large, &alice, "invite").await;
        assert!(is_found().await, "the log does not wait for so many");
        world.app.user_directory.settle().await.unwrap();
        assert!(!is_found().await);

        join_rule(&world, &large, &alice, "public").await;
        join_rule(&world, &large, &alice, "invite").await;
        let visibility = TimelineEventType::RoomHistoryVisibility;
        set(&world, &large, &alice, visibility, json!({ "history_visibility": "world_readable" })).await;
        world.app.user_directory.settle().await.unwrap();
        assert!(is_found().await, "who can't enter can read");
        // Nothing is left to do.
        let mut conn = world.app.db.read().await.unwrap();
        assert!(store::user_directory::find_put_off(&mut conn, None).await.unwrap().is_none());
        drop(conn);
        world.close().await;
    }
}

/// Whoever opens and closes a large room all the time keeps nobody from looking at the other rooms, and not for ever.
#[tokio::test]
async fn a_room_that_is_opened_and_closed_all_the_time_has_one_turn() {
    for world in World::on_each_engine().await {
        let alice = person(&world, "alice", "Alice").await;
        let mut rooms = vec![world.room(&[&alice]).await, world.room(&[&alice]).await];
        rooms.sort();
        let [restless, large] = &rooms[..] else { panic!("two rooms") };
        for room_id in &rooms {
            for n in 0..100 {
                world.membership(room_id, &user(&format!("extra{n}")), "join").await;
            }
            join_rule(&world, room_id, &alice, "invite").await;
        }
        let toggle = async {
            loop {
                join_rule(&world, restless, &alice, "public").await;
                join_rule(&world, restless, &alice, "invite").await;
            }
        };
        let settled = tokio::time::timeout(Duration::from_secs(20), async {
            tokio::select! {
                settled = world.app.user_directory.settle() => settled.unwrap(),
                () = toggle => {}
            }
        });
        Box::pin(settled).await.expect("it has not ended");
        let mut conn = world.app.db.read().await.unwrap();
        let left = store::user_directory::find_put_off(&mut conn, None).await.unwrap();
        assert!(left.is_none_or(|(room_id, _)| room_id != *large), "the other room had its turn");
        drop(conn);
        world.close().await;
    }
}

/// Somebody as the model knows them.
#[derive(Clone, Debug)]
struct Known {
    user_id: OwnedUserId,
    display_name: Option<String>,
    rooms: Vec<OwnedRoomId>,
    is_public: bool,
}

/// Writes people into the database as they would stand there after everything that made them so.
async fn write(tx: &mut Tx, people: &[Known]) {
    let words = |known: &Known| words::of_user(&known.user_id, known.display_name.as_deref());
    for known in people {
        if let Some(name) = &known.display_name {
            store::profile::upsert(tx, &known.user_id, "displayname", &json!(name).to_string()).await.unwrap();
        }
    }
    let entries: Vec<_> = people
        .iter()
        .map(|known| store::user_directory::DirectoryEntry {
            user_id: &known.user_id,
            room_id: None,
            words: words(known),
            is_public: known.is_public,
        })
        .collect();
    store::user_directory::insert(tx, &entries).await.unwrap();
    let memberships: Vec<_> = people
        .iter()
        .flat_map(|known| known.rooms.iter().map(|room_id| (&*known.user_id, room_id)))
        .map(|(user_id, room_id)| MembershipRow {
            user_id,
            room_id,
            state: MembershipState::Join,
            position: Position(1),
        })
        .map(|row| (row, Before::Nobody))
        .collect();
    store::membership::upsert(tx, &memberships).await.unwrap();
}

/// What a search finds, by looking at everybody.
fn expected(people: &[Known], searcher: &Known, term: &str, limit: usize) -> FoundPeople {
    let mut matches = Vec::new();
    for known in people {
        let shares = known.user_id != searcher.user_id && known.rooms.iter().any(|room| searcher.rooms.contains(room));
        if !known.is_public && !shares {
            continue;
        }
        let words = words::of_user(&known.user_id, known.display_name.as_deref());
        let best = words::wanted(term).into_iter().find_map(|wanted| {
            let with = wanted.with.as_deref().unwrap_or_default();
            let has_other = words.iter().any(|word| word.text.starts_with(with));
            let hits = words.iter().filter(|word| has_other && word.text.starts_with(&wanted.beginning));
            let (rank, text) = hits.map(|word| (word.rank, &word.text)).min()?;
            let closeness = match (wanted.with, rank.begins_name()) {
                (Some(_), _) => 3,
                (None, false) => 2,
                (None, true) => i32::from(*text != wanted.beginning),
            };
            Some((closeness, !shares, rank, text.clone()))
        });
        matches.extend(best.map(|best| (best, known)));
    }
    matches.sort_by(|(a, one), (b, other)| a.cmp(b).then_with(|| one.user_id.cmp(&other.user_id)));
    let limited = matches.len() > limit;
    let person = |known: &Known| Person {
        user_id: known.user_id.clone(),
        display_name: known.display_name.clone(),
        avatar_url: None,
    };
    FoundPeople { people: matches.into_iter().take(limit).map(|(_, known)| person(known)).collect(), limited }
}

/// Localpart, display name, rooms, and whether anybody may find them.
type Drawn = (&'static str, Option<String>, Vec<usize>, bool);

fn crowd() -> impl Strategy<Value = Vec<Known>> {
    let word = prop::sample::select(vec!["an", "Anna", "ann", "BERG", "Annab", "b", "太郎", "🦊"]);
    let name = prop::option::of(prop::collection::vec(word, 1..4).prop_map(|words| words.join(" ")));
    let rooms = prop::collection::vec(0..6_usize, 0..3);
    let drawn = (prop::sample::select(vec!["anna", "an.b", "berg", "x"]), name, rooms, any::<bool>());
    let known = |(nth, (localpart, display_name, rooms, is_public)): (usize, Drawn)| {
        let mut rooms: Vec<_> =
            rooms.into_iter().map(|room| RoomId::parse(format!("!room{room}:localhost")).unwrap()).collect();
        rooms.sort();
        rooms.dedup();
        Known { user_id: user(&format!("{localpart}{nth}")), display_name, rooms, is_public }
    };
    let known = move |people: Vec<Drawn>| people.into_iter().enumerate().map(known).collect();
    prop::collection::vec(drawn, 1..60).prop_map(known)
}

/// Either way to find those who share a room finds the same as looking at everybody, in the same order.
#[tokio::test]
async fn a_search_finds_what_looking_at_everybody_finds() {
    for world in World::on_each_engine().await {
        let mut runner = TestRunner::new(Config::default());
        for round in 0..20 {
            let people = crowd().new_tree(&mut runner).unwrap().current();
            // Each round has users and rooms of its own.
            let renamed = |known: Known| Known {
                user_id: user(&format!("{}.{round}", known.user_id.localpart())),
                rooms: known.rooms.iter().map(|room| RoomId::parse(format!("{room}{round}")).unwrap()).collect(),
                ..known
            };
            let people: Vec<Known> = people.into_iter().map(renamed).collect();
            let mut tx = world.app.db.begin().await.unwrap();
            write(&mut tx, &people).await;
            tx.commit().await.unwrap();
            for crowd in [0, CROWD] {
                let directory = UserDirectory { crowd, ..world.app.user_directory.clone() };
                for term in ["an", "ANNA", "anna berg", "berg anna", "b", "郎", "🦊", "anna9", "zzz"] {
                    for (searcher, limit) in people.iter().take(3).zip([1, 5, 100]) {
                        let found = directory.search(&searcher.user_id, term, limit).await.unwrap();
                        let expected = expected(&people, searcher, term, limit);
                        assert_eq!(found, expected, "{term} by {searcher:?} among {people:#?}");
                    }
                }
            }
            let mut tx = world.app.db.begin().await.unwrap();
            for known in &people {
                store::user_directory::remove(&mut tx, &known.user_id).await.unwrap();
            }
            tx.commit().await.unwrap();
        }
        world.close().await;
    }
}

/// 100,000 people, and how long it takes to find some of them. Run it alone and optimised:
/// `cargo test --release --lib a_hundred_thousand_people -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, of some minutes"]
async fn a_hundred_thousand_people() {
    const PEOPLE: usize = 100_000;
    const FIRST: [&str; 12] =
        ["Alice", "Bob", "Carol", "Dave", "Erin", "Frank", "Grace", "Heidi", "Ivan", "Judy", "Åsa", "Олег"];
    const LAST: [&str; 10] = ["Adams", "Baker", "Clark", "Davis", "Evans", "Frank", "Green", "Hill", "Ивáнов", "李"];
    let room = |name: &str, n: usize| RoomId::parse(format!("!{name}{n}:localhost")).unwrap();
    let known = |n: usize| {
        let name = format!("{} {}{}", FIRST[n % FIRST.len()], LAST[n / 7 % LAST.len()], n / 100);
        // Half of them are in one closed room, all of them in some small ones, four in five in an open one.
        let mut rooms = vec![room("small", n / 5), room("other", n % 20_000), room("third", n % 33_331)];
        rooms.extend(n.is_multiple_of(2).then(|| room("half", 0)));
        Known { user_id: user(&format!("person{n}")), display_name: Some(name), rooms, is_public: !n.is_multiple_of(5) }
    };
    for world in World::on_each_engine().await {
        let begun = std::time::Instant::now();
        for first in (0..PEOPLE).step_by(1_000) {
            let people: Vec<Known> = (first..first + 1_000).map(known).collect();
            let mut tx = world.app.db.begin().await.unwrap();
            write(&mut tx, &people).await;
            tx.commit().await.unwrap();
        }
        println!("{:?}: {PEOPLE} people written in {:?}", world.app.db.engine(), begun.elapsed());
        let terms =
            ["a", "person", "alice", "frank", "alice clark", "clark alice", "person777", "олег", "李", "zzz", "p q"];
        for (place, first) in [("in small rooms", 1), ("in a crowd", 2), ("in no room", PEOPLE)] {
            let mut all = Vec::new();
            for term in terms {
                let mut times = Vec::new();
                let mut last = FoundPeople::default();
                for n in 0..50 {
                    let nth = if first < PEOPLE { (first + 2 * 997 * n) % PEOPLE } else { first };
                    let searcher = user(&format!("person{nth}"));
                    let begun = std::time::Instant::now();
                    last = world.app.user_directory.search(&searcher, term, 10).await.unwrap();
                    times.push(begun.elapsed());
                }
                times.sort();
                let (p50, max) = (times[times.len() / 2], times[times.len() - 1]);
                let (people, limited) = (last.people.len(), last.limited);
                println!("  {place}, {term:?}: p50 {p50:?}, max {max:?}, {people} people, limited {limited}");
                all.extend(times);
            }
            all.sort();
            println!("  {place}: p50 {:?}, p99 {:?}", all[all.len() / 2], all[all.len() * 99 / 100]);
        }
        world.close().await;
    }
}
