//! Searches against a list of what was said, in windows so small that there are many of them.

use std::sync::Arc;

use ruma::{OwnedEventId, OwnedUserId, UserId, api::client::filter::RoomEventFilter, events::TimelineEventType};
use serde_json::json;

use super::*;
use crate::{
    event::Draft,
    ground::{position::Position, sizes::Sizes},
    log::cursor::Mover,
    reader::search::{Fields, Group, feed::CURSOR},
    store::search::SearchedRoom,
    testing::{World, user},
};

const LIMIT: usize = 4;
const WINDOW: usize = 6;
/// `apple` is said so often that it does not stand for `apples`; `orchard` is said seldom, `orchards` often.
const TERMS: [&str; 7] = ["apple", "\"red apple\"", "apple red", "pear appl", "\"apples\"", "orchard", "nothing"];

/// A message of the list.
#[derive(Clone, Debug)]
struct Said {
    event_id: OwnedEventId,
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    text: String,
}

/// Two rooms of two users, and what was said there. The second is also in rooms where much is said that the first, who
/// searches, does not find: in one they are not, one they have left, one they come to late, to one they are invited.
struct Orchard {
    world: World,
    rooms: Vec<OwnedRoomId>,
    users: Vec<OwnedUserId>,
    said: Vec<Said>,
}

impl Orchard {
    async fn new(world: World) -> Self {
        let users = vec![user("alice"), user("bob")];
        let members: Vec<&UserId> = users.iter().map(AsRef::as_ref).collect();
        let rooms = vec![world.room(&members).await, world.room(&members).await];
        let elsewhere = world.room(&members[1..]).await;
        let left = world.room(&members).await;
        let (late, invited) = (world.room(&members[1..]).await, world.room(&members[1..]).await);
        let mut orchard = Self { world, rooms, users, said: Vec::new() };
        let [alice, bob] = [orchard.users[0].clone(), orchard.users[1].clone()];
        let content = json!({ "history_visibility": "joined" });
        orchard.state(&late, TimelineEventType::RoomHistoryVisibility, "", content).await;
        orchard.state(&invited, TimelineEventType::RoomMember, alice.as_str(), json!({ "membership": "invite" })).await;
        for number in 0..120 {
            orchard.say(number).await;
            match number {
                50 => drop(orchard.world.membership(&left, &alice, "leave").await),
                90 => drop(orchard.world.membership(&late, &alice, "join").await),
                _ => {}
            }
            for (room, is_seen) in [(&left, number < 50), (&late, number >= 90), (&invited, false)] {
                match (number % 5, is_seen) {
                    (0, true) => orchard.say_in(room, &bob, "pear red apple".to_owned()).await,
                    (0, false) => drop(orchard.world.say(room, &bob, "red apple apples orchard pear").await),
                    _ => {}
                }
            }
            // Here and there, and once more than is looked at before the rooms are asked for.
            for _ in 0..if number == 80 { 50 } else { number % 2 } {
                orchard.world.say(&elsewhere, &orchard.users[1], "red apple apples pear").await;
            }
        }
        orchard
    }

    /// Says something that depends on a number only, as do the room and the sender.
    async fn say(&mut self, number: usize) {
        const WORDS: [&str; 5] = ["apple", "red", "apples", "pear", "green"];
        let (room_id, sender) = (self.rooms[number / 3 % 2].clone(), self.users[number / 2 % 2].clone());
        let length = 1 + number * 7 % 6;
        let mut words: Vec<&str> =
            (0..length).map(|place| WORDS[(number * number + place * (number % 4 + 1)) % 5]).collect();
        words.extend(number.is_multiple_of(30).then_some("orchard"));
        words.extend(number.is_multiple_of(7).then_some("orchards"));
        self.say_in(&room_id, &sender, words.join(" ")).await;
    }

    async fn say_in(&mut self, room_id: &RoomId, sender: &UserId, text: String) {
        let event_id = self.world.say(room_id, sender, &text).await;
        self.said.push(Said { event_id, room_id: room_id.to_owned(), sender: sender.to_owned(), text });
    }

    /// State of a room that the second user has made.
    async fn state(&self, room_id: &RoomId, kind: TimelineEventType, key: &str, content: serde_json::Value) {
        let content = serde_json::from_value(content).unwrap();
        self.world.send(room_id, Draft::state(self.users[1].clone(), kind, key, content)).await;
    }

    async fn redact(&self, said: &Said) {
        self.world.redact(&said.room_id, &said.sender, &said.event_id).await;
    }

    /// Empties the index and starts the server again, which then remembers nothing of the log.
    async fn forget(self) -> Self {
        let Self { world, rooms, users, said } = self;
        let mut tx = world.app.db.begin().await.unwrap();
        // The task that takes the log may be quicker.
        let mut is_back = false;
        while !is_back {
            let from = CURSOR.position(&mut tx).await.unwrap();
            is_back = CURSOR.advance(&mut tx, from, Position::START, Mover::Anybody).await.unwrap();
        }
        let all: Vec<Order> = (1..=world.reached().0).map(|at| Order::at(Position(at))).collect();
        store::search::remove(&mut tx, &all).await.unwrap();
        tx.commit().await.unwrap();
        Self { world: world.restart().await, rooms, users, said }
    }

    async fn page(&self, asked: &Asked<'_>, from: Option<ResultPlace>) -> SearchPage {
        let everywhere = Fields { body: true, name: true, topic: true };
        let criteria = Criteria {
            reader: &self.users[0],
            ignored: Arc::default(),
            term: asked.term,
            fields: everywhere,
            filter: &asked.filter,
            order: asked.order,
            limit: LIMIT,
            from,
        };
        let searches = &self.world.app.searches;
        // However slow the machine is.
        while searches.catch_up(self.world.reached()).await.unwrap() < self.world.reached() {}
        let found = searches.find(&criteria).await.unwrap();
        assert!(found.results.len() <= LIMIT);
        found
    }

    /// Every page, as clients ask for them.
    async fn pages(&self, asked: &Asked<'_>, mut from: Option<ResultPlace>) -> Vec<SearchPage> {
        let mut pages = Vec::new();
        loop {
            let page = self.page(asked, from).await;
            from = page.next.as_ref().map(|next| next.to_string().parse().unwrap());
            pages.push(page);
            if from.is_none() {
                return pages;
            }
        }
    }

    /// What matches, newest first, with how often it says what is looked for. What is said often as it is stands for
    /// nothing longer.
    fn matching(&self, term: &str) -> Vec<(usize, &Said)> {
        let with = |may_go_on| {
            let ranked = self.said.iter().rev().map(move |said| (rank(&said.text, term, may_go_on), said));
            ranked.filter(|(rank, _)| *rank > 0).collect::<Vec<_>>()
        };
        let literally = with(false);
        if literally.len() >= WINDOW { literally } else { with(true) }
    }
}

/// A search for a term with nothing else to it.
struct Asked<'a> {
    term: &'a str,
    order: ResultOrder,
    filter: RoomEventFilter,
}

impl<'a> Asked<'a> {
    fn new(term: &'a str, order: ResultOrder) -> Self {
        Self { term, order, filter: RoomEventFilter::default() }
    }
}

/// How often a text says what the term asks for; not at all if anything is missing.
fn rank(text: &str, term: &str, may_go_on: bool) -> usize {
    let said: Vec<&str> = text.split(' ').collect();
    let quoted = term.strip_prefix('"').and_then(|term| term.strip_suffix('"'));
    let phrases: Vec<Vec<&str>> = match quoted {
        Some(phrase) => vec![phrase.split(' ').collect()],
        None => term.split(' ').map(|word| vec![word]).collect(),
    };
    let last = phrases.len() - 1;
    let mut counts = Vec::new();
    for (number, phrase) in phrases.iter().enumerate() {
        let may_go_on = may_go_on && quoted.is_none() && number == last && phrase[0].len() >= 4;
        let is_there = |words: &&[&str]| {
            let same = |(word, wanted): (&&str, &&str)| word == wanted || may_go_on && word.starts_with(*wanted);
            words.iter().zip(phrase).all(same)
        };
        counts.push(said.windows(phrase.len()).filter(is_there).count());
    }
    if counts.contains(&0) { 0 } else { counts.iter().sum() }
}

fn ids<'a>(pages: impl IntoIterator<Item = &'a SearchPage>) -> Vec<OwnedEventId> {
    let results = pages.into_iter().flat_map(|page| &page.results);
    results.map(|result| result.event.pdu.event_id().to_owned()).collect()
}

fn sorted(mut ids: Vec<OwnedEventId>) -> Vec<OwnedEventId> {
    ids.sort();
    ids
}

#[tokio::test]
async fn every_match_comes_once_and_in_order() {
    for world in World::on_each_engine().await {
        let orchard = Orchard::new(world).await;
        for term in TERMS {
            let matching = orchard.matching(term);
            assert_eq!(matching.is_empty(), term == "nothing");
            // By rank the newest come first, as many as are put in order at once.
            let mut ranked = matching.clone();
            for window in ranked.chunks_mut(WINDOW) {
                window.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
            }
            for (order, expected) in [(ResultOrder::Recent, &matching), (ResultOrder::Rank, &ranked)] {
                let pages = orchard.pages(&Asked::new(term, order), None).await;
                let expected_ids: Vec<_> = expected.iter().map(|(_, said)| said.event_id.clone()).collect();
                assert_eq!(ids(&pages), expected_ids, "{term} {order:?}");
                let ranks: Vec<u32> = pages.iter().flat_map(|page| &page.results).map(|result| result.rank).collect();
                let expected_ranks: Vec<u32> = expected.iter().map(|(rank, _)| u32::try_from(*rank).unwrap()).collect();
                assert_eq!(ranks, expected_ranks, "{term} {order:?}");
                let counts: Vec<usize> = pages.iter().map(|page| page.count).collect();
                assert!(counts.is_sorted(), "{term} {order:?}: {counts:?}");
                assert_eq!(counts.last(), Some(&matching.len()), "{term} {order:?}: {counts:?}");
                let (_, others) = pages.split_last().unwrap();
                assert!(others.iter().all(|page| page.results.len() == LIMIT), "{term} {order:?}");
            }
        }
        orchard.world.close().await;
    }
}

/// What was there in the beginning and has not been redacted comes once; what comes later does not.
#[tokio::test]
async fn redactions_and_new_messages_between_pages_neither_hide_nor_repeat_anything() {
    for world in World::on_each_engine().await {
        let mut orchard = Orchard::new(world).await;
        for order in [ResultOrder::Recent, ResultOrder::Rank] {
            for term in ["apple", "apple red"] {
                // In place of what has been redacted.
                for number in 0..60 {
                    orchard.say(number).await;
                }
                let asked = Asked::new(term, order);
                let mut pending: Vec<Said> = orchard.matching(term).into_iter().map(|(_, said)| said.clone()).collect();
                let (mut from, mut all, mut redacted, mut number) = (None, Vec::new(), HashSet::new(), 0);
                loop {
                    let page = orchard.page(&asked, from).await;
                    let given = ids([&page]);
                    assert!(given.iter().all(|event_id| !redacted.contains(event_id)), "{term} {order:?}");
                    pending.retain(|said| !given.contains(&said.event_id));
                    all.extend(given.clone());
                    let Some(next) = page.next else { break };
                    from = Some(next.to_string().parse().unwrap());
                    // One that has been given, the next that would be, and one that is further away.
                    let mut gone: Vec<Said> =
                        orchard.said.iter().filter(|said| given.first() == Some(&said.event_id)).cloned().collect();
                    if number % 2 == 0 {
                        gone.extend(pending.get(LIMIT * 3).cloned());
                        gone.extend(pending.first().cloned());
                    }
                    for said in &gone {
                        orchard.redact(said).await;
                        redacted.insert(said.event_id.clone());
                        orchard.said.retain(|other| other.event_id != said.event_id);
                        pending.retain(|other| other.event_id != said.event_id);
                    }
                    orchard.say(number).await;
                    number += 1;
                }
                assert_eq!(pending.iter().map(|said| &said.text).collect::<Vec<_>>(), [""; 0], "{term} {order:?}");
                let unique: HashSet<_> = all.iter().collect();
                assert_eq!(unique.len(), all.len(), "{term} {order:?}");
                let late = orchard.said.iter().rev().take(number).filter(|said| unique.contains(&said.event_id));
                assert_eq!(late.count(), 0, "{term} {order:?}");
                assert!(number > 5, "there were many pages");
            }
        }
        orchard.world.close().await;
    }
}

#[tokio::test]
async fn each_group_goes_on_by_itself() {
    for world in World::on_each_engine().await {
        let orchard = Orchard::new(world).await;
        for order in [ResultOrder::Recent, ResultOrder::Rank] {
            let asked = Asked::new("apple", order);
            let first = orchard.page(&asked, None).await;
            let second = orchard.page(&asked, first.next.clone()).await;
            let rooms = orchard.rooms.iter().cloned().map(Group::Room);
            let senders = orchard.users.iter().cloned().map(Group::Sender);
            for group in rooms.chain(senders) {
                let holds = |room_id: &RoomId, sender: &UserId| match &group {
                    Group::Room(room) => room == room_id,
                    Group::Sender(user_id) => user_id == sender,
                };
                let from = second.next.as_ref().unwrap().within(group.clone());
                let mut all = ids(&orchard.pages(&asked, Some(from)).await);
                let given = first.results.iter().chain(&second.results).map(|result| &result.event.pdu);
                let given = given.filter(|pdu| holds(pdu.room_id(), pdu.sender()));
                all.extend(given.map(|pdu| pdu.event_id().to_owned()));
                let matching = orchard.matching("apple").into_iter().map(|(_, said)| said);
                let expected: Vec<_> = matching
                    .filter(|said| holds(&said.room_id, &said.sender))
                    .map(|said| said.event_id.clone())
                    .collect();
                assert!(expected.len() > WINDOW);
                assert_eq!(sorted(all), sorted(expected), "{group:?} {order:?}");
            }
        }
        orchard.world.close().await;
    }
}

#[tokio::test]
async fn what_a_filter_drops_ends_no_search() {
    for world in World::on_each_engine().await {
        let orchard = Orchard::new(world).await;
        let filter = |json| serde_json::from_value::<RoomEventFilter>(json).unwrap();
        for order in [ResultOrder::Recent, ResultOrder::Rank] {
            for nothing in [json!({ "types": ["m.room.topic"] }), json!({ "senders": ["@carol:localhost"] })] {
                let asked = Asked { filter: filter(nothing.clone()), ..Asked::new("apple", order) };
                assert!(ids(&orchard.pages(&asked, None).await).is_empty(), "{nothing}");
            }
            let filter = filter(json!({ "senders": [orchard.users[1]], "rooms": [orchard.rooms[0]] }));
            let asked = Asked { filter, ..Asked::new("apple", order) };
            let found = ids(&orchard.pages(&asked, None).await);
            let matching = orchard.matching("apple").into_iter().map(|(_, said)| said);
            let of_both = |said: &&Said| said.sender == orchard.users[1] && said.room_id == orchard.rooms[0];
            let expected: Vec<_> = matching.filter(of_both).map(|said| said.event_id.clone()).collect();
            assert!(!expected.is_empty());
            assert_eq!(sorted(found), sorted(expected), "{order:?}");
        }
        orchard.world.close().await;
    }
}

/// What is indexed does not depend on whether a node remembers the log or reads it from the database. What was redacted
/// is not indexed.
#[tokio::test]
async fn the_index_holds_what_stands() {
    for from_memory in [true, false] {
        for world in World::on_each_engine().await {
            let mut orchard = Orchard::new(world).await;
            orchard.say(0).await;
            for nth in [120, 40, 0] {
                let said = orchard.said.remove(nth);
                orchard.redact(&said).await;
            }
            if !from_memory {
                orchard = orchard.forget().await;
            }
            let expected: Vec<_> =
                orchard.matching("apple").into_iter().map(|(_, said)| said.event_id.clone()).collect();
            let found = ids(&orchard.pages(&Asked::new("apple", ResultOrder::Recent), None).await);
            assert_eq!(found, expected);
            let rooms = orchard.rooms.iter().map(|room_id| SearchedRoom { room_id, stretches: None });
            let rooms: Vec<SearchedRoom<'_>> = rooms.collect();
            let wanted = SearchQuery {
                phrases: &words::phrases("\"apple\""),
                fields: Fields { body: true, name: true, topic: true },
                rooms: &rooms,
                below: Order::at(orchard.world.reached().next()),
                most: 1_000,
                sizes: Sizes::little().search.index,
            };
            let hits = store::search::find(&mut orchard.world.app.db.read().await.unwrap(), &wanted).await.unwrap();
            assert!(hits.iter().all(|hit| !hit.is_gone));
            let matching = orchard.matching("\"apple\"").into_iter().map(|(_, said)| said);
            assert_eq!(hits.len(), matching.filter(|said| orchard.rooms.contains(&said.room_id)).count());
            orchard.world.close().await;
        }
    }
}

#[test]
fn places_are_read_as_they_are_written() {
    let group = |group: &str| match group.strip_prefix('!') {
        Some(_) => Group::Room(group.try_into().unwrap()),
        None => Group::Sender(group.try_into().unwrap()),
    };
    for (last, is_literal) in [(None, false), (Some((7, Order(-3))), true)] {
        for (below, counted) in [(Order(5), Order(2)), (Order(-1), Order(-9)), (Order::END, Order::START)] {
            let place = ResultPlace { below, counted, count: 9, last, is_literal, group: None };
            for place in [place.clone(), place.within(group("!o.b:c.d")), place.within(group("@e.f:g.h:80"))] {
                assert_eq!(place.to_string().parse::<ResultPlace>().unwrap(), place);
            }
        }
    }
    let wrong =
        ["", ".", "5.2.9.", "5.2", "5.6.9", "5.2.9.7", "5.2.9.7.3.1", "5.2.-9", "5.2.9@e:f", "5.2.9.@", "5.2.=9"];
    let of_orders = wrong.map(|wrong| format!("o{wrong}"));
    let wrong = wrong.into_iter().chain(of_orders.iter().map(String::as_str));
    for wrong in wrong.chain(["oo5.2.9", "o=5.2.9", "5.o2.9", "5.-2.9", "-5.-6.9", "5.2.9.7.-3"]) {
        assert!(wrong.parse::<ResultPlace>().is_err(), "{wrong}");
    }
}

/// As tokens were written when places were those in the log.
fn in_positions(place: &ResultPlace) -> String {
    let position = |order: Order| if order == Order::START { 0 } else { order.position().unwrap().0 };
    let literal = if place.is_literal { "=" } else { "" };
    let last = place.last.map_or_else(String::new, |(rank, order)| format!(".{rank}.{}", position(order)));
    format!("{literal}{}.{}.{}{last}", position(place.below), position(place.counted), place.count)
}

#[test]
fn an_old_place_is_that_of_the_event_at_the_position() {
    let at = |position| Order::at(Position(position));
    let place = |token: &str| token.parse::<ResultPlace>().unwrap();
    let expected =
        ResultPlace { below: at(5), counted: at(2), count: 9, last: Some((7, at(3))), is_literal: true, group: None };
    assert_eq!(place("=5.2.9.7.3"), expected);
    assert_eq!(place("=5.2.9.7.3.!a:b").group, Some(Group::Room("!a:b".try_into().unwrap())));
    let end = place("0.0.9");
    assert_eq!((end.below, end.counted, end.last), (Order::START, Order::START, None), "nothing is left");
}

#[tokio::test]
async fn what_an_older_release_has_begun_goes_on() {
    for world in World::on_each_engine().await {
        let orchard = Orchard::new(world).await;
        for order in [ResultOrder::Recent, ResultOrder::Rank] {
            let asked = Asked::new("apple", order);
            let all = ids(&orchard.pages(&asked, None).await);
            let mut given = Vec::new();
            let mut from = None;
            for _ in 0..5 {
                let page = orchard.page(&asked, from).await;
                given.extend(ids([&page]));
                from = page.next.map(|next| in_positions(&next).parse().unwrap());
            }
            assert!(from.is_some() && given.len() < all.len());
            given.extend(ids(&orchard.pages(&asked, from).await));
            assert_eq!(given, all, "{order:?}");
        }
        orchard.world.close().await;
    }
}
