//! A room that began elsewhere: what a user of this server finds in it, whatever was fetched when.
//!
//! The whole room is built first, as its servers have it. This server enters it at some event, hears of some later ones as
//! they happen and misses others, and fetches what is missing in chunks of any size, before, between and after that.

mod moved;
mod redactions;
mod search;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use ruma::{OwnedRoomId, OwnedUserId, RoomVersionId, UserId, api::Direction, owned_server_name};
use serde_json::{Value, json};

use super::*;
use crate::{
    event::{
        Draft, GraphPlace, SigningKey,
        fact::{Fork, ForkBase, NewEvent, RoomHead, Write},
    },
    ground::room_version::rules,
    room::{
        graph::{
            lanes::Lanes,
            receive::model::{Map, Model},
        },
        read::timeline::Walk,
        world::{RoomWorld, json as content, user},
    },
};

/// A room as the servers have it that are in it, all of whom know everything.
struct Elsewhere {
    model: Model,
    room_id: OwnedRoomId,
    rules: &'static ruma::room_version_rules::RoomVersionRules,
    key: SigningKey,
    /// In an order in which they may have happened.
    events: Vec<Arc<Pdu>>,
}

fn alice() -> OwnedUserId {
    "@alice:elsewhere".try_into().unwrap()
}

impl Elsewhere {
    fn new(visibility: &str) -> Self {
        let rules = rules(&RoomVersionId::V11).unwrap();
        let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "ed25519:a").unwrap();
        let room_id = "!room:elsewhere".try_into().unwrap();
        let mut room = Self { model: Model::new(rules), room_id, rules, key, events: Vec::new() };
        room.add(&alice(), "m.room.create", Some(""), json!({ "room_version": "11" }), &[]);
        room.say_next(&alice(), "m.room.member", Some("@alice:elsewhere"), json!({ "membership": "join" }));
        let powers = json!({ "users": { "@alice:elsewhere": 100 } });
        room.say_next(&alice(), "m.room.power_levels", Some(""), powers);
        room.say_next(&alice(), "m.room.join_rules", Some(""), json!({ "join_rule": "public" }));
        room.say_next(&alice(), "m.room.history_visibility", Some(""), json!({ "history_visibility": visibility }));
        room
    }

    /// Somebody does something after some events.
    fn add(&mut self, sender: &UserId, kind: &str, state_key: Option<&str>, value: Value, prev: &[OwnedEventId]) {
        let mut draft = Draft::message(sender.to_owned(), kind.into(), content(value));
        draft.state_key = state_key.map(ToOwned::to_owned);
        self.add_draft(draft, prev);
    }

    /// Somebody redacts one of the events, after everything else. Returns which event that is.
    fn redact(&mut self, sender: &UserId, target: usize) -> usize {
        let prev: Vec<OwnedEventId> = self.model.extremities.iter().cloned().collect();
        self.redact_after(sender, target, &prev)
    }

    fn redact_after(&mut self, sender: &UserId, target: usize, prev: &[OwnedEventId]) -> usize {
        let draft = Draft::message(sender.to_owned(), "m.room.redaction".into(), content(json!({})));
        self.add_draft(Draft { redacts: Some(self.events[target].event_id().to_owned()), ..draft }, prev);
        self.events.len() - 1
    }

    fn add_draft(&mut self, draft: Draft, prev: &[OwnedEventId]) {
        let auth_events = self.model.auth_events(&draft, &self.model.after_all(prev));
        let depth = prev.iter().map(|id| self.model.events[id].pdu.depth()).max().unwrap_or(0) + 1;
        let place = GraphPlace { room_id: Some(self.room_id.clone()), depth, prev_events: prev.to_vec(), auth_events };
        let now = ruma::MilliSecondsSinceUnixEpoch(ruma::UInt::try_from(self.events.len() + 1).unwrap());
        let pdu = draft.sign(&place, now, &owned_server_name!("elsewhere"), &self.key, self.rules).unwrap();
        let pdu = Arc::new(pdu);
        assert_eq!(self.model.add(Arc::clone(&pdu)), Standing::Accepted, "{}", pdu.json());
        self.events.push(pdu);
    }

    /// Alice says something after some of the events. Returns which event that is.
    fn say_after(&mut self, prev: &[usize]) -> usize {
        let content = json!({ "msgtype": "m.text", "body": format!("apple {}", self.events.len()) });
        let prev: Vec<OwnedEventId> = prev.iter().map(|place| self.events[*place].event_id().to_owned()).collect();
        self.add(&alice(), "m.room.message", None, content, &prev);
        self.events.len() - 1
    }

    /// So many messages, one after the other. Returns the last.
    fn say_many_after(&mut self, prev: usize, count: usize) -> usize {
        (0..count).fold(prev, |prev, _| self.say_after(&[prev]))
    }

    fn say_next(&mut self, sender: &UserId, kind: &str, state_key: Option<&str>, value: Value) {
        let prev: Vec<OwnedEventId> = self.model.extremities.iter().cloned().collect();
        self.add(sender, kind, state_key, value, &prev);
    }

    fn ids_before(&self, event_id: &EventId) -> Vec<OwnedEventId> {
        self.model.events[event_id].before.values().cloned().collect()
    }

    fn place_of(&self, event_id: &EventId) -> usize {
        self.events.iter().position(|pdu| pdu.event_id() == event_id).unwrap()
    }

    /// Chunks as another server gives them: so many events before some, the newest, oldest first.
    fn chunk_before(&self, missing: &[OwnedEventId], known: &BTreeSet<OwnedEventId>, most: usize) -> Vec<&Arc<Pdu>> {
        let mut found = BTreeSet::new();
        let mut todo: BTreeSet<usize> = missing.iter().map(|id| self.place_of(id)).collect();
        while let Some(newest) = todo.pop_last().filter(|_| found.len() < most) {
            let pdu = &self.events[newest];
            if !known.contains(pdu.event_id()) && found.insert(newest) {
                todo.extend(pdu.prev_events().iter().map(|id| self.place_of(id)));
            }
        }
        found.into_iter().map(|place| &self.events[place]).collect()
    }
}

/// This server, and what it has of the room.
struct Here {
    world: RoomWorld,
    elsewhere: Elsewhere,
    placed: BTreeSet<OwnedEventId>,
}

impl Here {
    /// Enters the room with an event of a user of this server.
    async fn enter(world: RoomWorld, elsewhere: Elsewhere, join: usize) -> Self {
        let mut here = Self { world, elsewhere, placed: BTreeSet::new() };
        let pdu = Arc::clone(&here.elsewhere.events[join]);
        let known = &here.elsewhere.model.events[pdu.event_id()];
        here.keep_what_leads_to(&pdu).await;
        let mut head = RoomHead::new(RoomVersionId::V11);
        let before = head.clone();
        head.follow(&pdu, Standing::Accepted);
        let state_before = here.elsewhere.model.state(&known.before);
        let changes = state_before.changes_to(&here.elsewhere.model.state(&known.after));
        let fork = Fork { base: ForkBase::Nothing, changes: State::default().changes_to(&state_before) };
        let write = Write::event(NewEvent {
            pdu: Arc::clone(&pdu),
            standing: Standing::Accepted,
            before,
            head,
            fork: Some(fork),
            changes,
            missing: pdu.prev_events().to_vec(),
            outlier: None,
            transaction: None,
            notifies: false,
            thread_root: None,
            annotates_once: false,
            highlights: Vec::new(),
            highlights_everybody: false,
            replaces: None,
            redacted: None,
            awaits: None,
            expects: None,
            is_sent: false,
        });
        here.world.rooms.log().append(write).await.unwrap();
        here.placed.insert(pdu.event_id().to_owned());
        here
    }

    /// Has the events that an event cites and those that were the state before it.
    async fn keep_what_leads_to(&self, pdu: &Pdu) {
        let state = self.elsewhere.ids_before(pdu.event_id());
        let ids: BTreeSet<&OwnedEventId> = state.iter().chain(pdu.auth_events()).collect();
        let pdus: Vec<Arc<Pdu>> = ids.iter().map(|id| Arc::clone(&self.elsewhere.model.events[*id].pdu)).collect();
        self.world.rooms.keep_outliers(&self.elsewhere.room_id, &pdus).await.unwrap();
    }

    /// Hears of an event as it happens.
    async fn hear(&mut self, place: usize) {
        let pdu = Arc::clone(&self.elsewhere.events[place]);
        self.keep_what_leads_to(&pdu).await;
        let is_whole = pdu.prev_events().iter().all(|id| self.placed.contains(id));
        let event = Pdu::clone(&pdu);
        let room = self.world.rooms.get(&self.elsewhere.room_id).await.unwrap();
        let standing = if is_whole {
            self.world.rooms.append_remote(&room, event).await
        } else {
            let state = self.elsewhere.ids_before(pdu.event_id());
            self.world.rooms.append_after_gap(&room, event, &state).await
        };
        assert_eq!(standing.unwrap(), Standing::Accepted);
        self.placed.insert(pdu.event_id().to_owned());
    }

    async fn gaps(&self) -> Vec<Gap> {
        let mut conn = self.world.db.read().await.unwrap();
        store::history::list_gaps(&mut conn, &self.elsewhere.room_id).await.unwrap()
    }

    /// Fetches a chunk before one of the gaps. False if there are none.
    async fn fetch(&mut self, which: usize, most: usize) -> bool {
        let gaps = self.gaps().await;
        let Some(gap) = gaps.get(which % gaps.len().max(1)) else { return false };
        let pdus = self.elsewhere.chunk_before(&gap.missing, &self.placed, most);
        let places: Vec<usize> = pdus.iter().map(|pdu| self.elsewhere.place_of(pdu.event_id())).collect();
        self.insert(&places).await;
        true
    }

    /// Takes in a chunk of these events.
    async fn insert(&mut self, places: &[usize]) {
        let pdus: Vec<&Arc<Pdu>> = places.iter().map(|place| &self.elsewhere.events[*place]).collect();
        let ids: Vec<OwnedEventId> = pdus.iter().map(|pdu| pdu.event_id().to_owned()).collect();
        let chunk = self.chunk(&pdus).await;
        self.world.rooms.insert_history(&self.elsewhere.room_id, &chunk).await.unwrap();
        self.placed.extend(ids);
        // Once more changes nothing.
        self.world.rooms.insert_history(&self.elsewhere.room_id, &chunk).await.unwrap();
    }

    /// These events as another server hands them out.
    async fn chunk(&self, pdus: &[&Arc<Pdu>]) -> Chunk {
        for pdu in pdus {
            self.keep_what_leads_to(pdu).await;
        }
        let states = pdus.iter().map(|pdu| (pdu.event_id().to_owned(), self.elsewhere.ids_before(pdu.event_id())));
        Chunk { states: states.collect(), events: pdus.iter().map(|pdu| Pdu::clone(pdu)).collect() }
    }

    /// Every event on one side of a place, in the order of the walk.
    async fn walk(&self, direction: Direction, from: Option<Order>, limit: usize) -> Vec<Arc<Stored>> {
        let filter = ruma::api::client::filter::RoomEventFilter::default();
        let (mut from, mut seen) = (from, Vec::new());
        loop {
            let mut reading = self.world.rooms.open(&self.elsewhere.room_id, &user("bob")).await.unwrap();
            let walk = Walk::new(&reading, direction, (from, None), limit, &filter);
            let page = self.world.rooms.page(&mut reading, &walk).await.unwrap();
            seen.extend(page.events);
            let Some(end) = page.end else { return seen };
            from = Some(end);
        }
    }

    /// What bob may see of what is here, by the room as its servers have it.
    fn visible(&self) -> BTreeSet<OwnedEventId> {
        let visible = |id: &&OwnedEventId| {
            let known = &self.elsewhere.model.events[*id];
            let sees = |state: &Map| {
                let content = |kind: &str, key: &str| {
                    let id = state.get(&(kind.to_owned(), key.to_owned()))?;
                    self.elsewhere.model.events[id].pdu.content_as::<Value>().ok()
                };
                let visibility = content("m.room.history_visibility", "");
                let membership = content("m.room.member", "@bob:here");
                let is_in = membership.is_some_and(|content| content["membership"] == "join");
                is_in || visibility.is_none_or(|content| content["history_visibility"] == "shared")
            };
            sees(&known.before) || (known.pdu.is_state() && sees(&known.after))
        };
        self.placed.iter().filter(visible).cloned().collect()
    }

    /// Whatever bob may see comes once, each event after those that it follows, both ways and from everywhere.
    async fn check(&self, limit: usize) {
        let ids = |events: &[Arc<Stored>]| -> Vec<OwnedEventId> {
            events.iter().map(|event| event.pdu.event_id().to_owned()).collect()
        };
        let all = self.walk(Direction::Forward, None, limit).await;
        let order = ids(&all);
        assert_eq!(order.iter().cloned().collect::<BTreeSet<_>>(), self.visible());
        assert_eq!(order.len(), self.visible().len(), "each once");
        let place: BTreeMap<&OwnedEventId, usize> = order.iter().enumerate().map(|(at, id)| (id, at)).collect();
        for event in &all {
            for prev in event.pdu.prev_events().iter().filter_map(|id| place.get(id)) {
                assert!(*prev < place[&event.pdu.event_id().to_owned()], "{} comes too early", event.pdu.event_id());
            }
        }
        let mut backward = ids(&self.walk(Direction::Backward, None, limit).await);
        backward.reverse();
        assert_eq!(backward, order);
        for (at, event) in all.iter().enumerate().step_by(3) {
            let mut before = ids(&self.walk(Direction::Backward, Some(event.order.before()), limit).await);
            before.reverse();
            assert_eq!(before, order[..at]);
            let after = self.walk(Direction::Forward, Some(event.order.before()), limit).await;
            assert_eq!(ids(&after), order[at..]);
        }
    }

    /// Every event has the state before it that it has on the room's own servers.
    async fn check_states(&self) {
        let rooms = &self.world.rooms;
        let room = rooms.get(&self.elsewhere.room_id).await.unwrap();
        let ids =
            |state: &State| -> BTreeSet<OwnedEventId> { state.iter().map(|pdu| pdu.event_id().to_owned()).collect() };
        for id in &self.placed {
            let stored = store::event::find(&mut self.world.db.read().await.unwrap(), id).await.unwrap().unwrap();
            let known = &self.elsewhere.model.events[id];
            let expected: BTreeSet<OwnedEventId> = known.before.values().cloned().collect();
            assert_eq!(ids(&rooms.state_before(&room, &stored).await.unwrap()), expected, "before {id}");
        }
        let current: BTreeSet<OwnedEventId> = self.elsewhere.model.current.values().cloned().collect();
        if self.placed.contains(self.elsewhere.events.last().unwrap().event_id()) {
            assert_eq!(ids(&room.state()), current);
        }
    }
}

/// What happens in the room, and which of it this server hears at once.
#[derive(Clone, Debug)]
struct Deed {
    is_state: bool,
    /// Which of the last events it follows, beside the newest.
    also: Option<usize>,
    is_heard: bool,
    /// Fetches a chunk of so many events after it, before one of the gaps.
    fetch: Option<(usize, usize)>,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let fetch = prop::option::weighted(0.3, (0..5_usize, 1..7_usize));
    let deed = (any::<bool>(), prop::option::weighted(0.4, 1..4_usize), any::<bool>(), fetch)
        .prop_map(|(is_state, also, is_heard, fetch)| Deed { is_state, also, is_heard, fetch });
    prop::collection::vec(deed, 4..40)
}

async fn play(world: RoomWorld, visibility: &str, join: usize, deeds: &[Deed], order: &[(usize, usize)]) {
    let join = join.min(deeds.len() - 1);
    let mut elsewhere = Elsewhere::new(visibility);
    let began = elsewhere.events.len();
    let mut joined_at = 0;
    for (number, deed) in deeds.iter().enumerate() {
        if number == join {
            joined_at = elsewhere.events.len();
            let membership = json!({ "membership": "join" });
            elsewhere.say_next(&user("bob"), "m.room.member", Some("@bob:here"), membership);
        }
        let mut prev: BTreeSet<OwnedEventId> = BTreeSet::new();
        let newest = elsewhere.events.len() - 1;
        // Nothing that happens later knows nothing of the joining.
        let floor = if number >= join { joined_at } else { began - 1 };
        prev.insert(elsewhere.events[newest].event_id().to_owned());
        if let Some(also) = deed.also {
            prev = BTreeSet::from([elsewhere.events[newest.saturating_sub(also).max(floor)].event_id().to_owned()]);
        }
        if number % 5 == 4 {
            prev = elsewhere.model.extremities.clone();
        }
        let prev: Vec<OwnedEventId> = prev.into_iter().collect();
        if deed.is_state {
            let (kind, key) = ("m.room.topic", "");
            elsewhere.add(&alice(), kind, Some(key), json!({ "topic": number }), &prev);
        } else {
            let content = json!({ "msgtype": "m.text", "body": format!("apple {number}") });
            elsewhere.add(&alice(), "m.room.message", None, content, &prev);
        }
    }
    elsewhere.say_next(&alice(), "m.room.message", None, json!({ "msgtype": "m.text", "body": "apple last" }));
    let last = elsewhere.events.len() - 1;
    let mut here = Here::enter(world, elsewhere, joined_at).await;
    let later = &deeds[join..];
    for (number, deed) in later.iter().enumerate() {
        if deed.is_heard {
            here.hear(joined_at + 1 + number).await;
        }
        if let Some((which, most)) = deed.fetch {
            here.fetch(which, most).await;
        }
    }
    here.hear(last).await;
    here.check(3).await;
    here.check_search(2).await;
    for (which, most) in order.iter().cycle() {
        if !here.fetch(*which, *most).await {
            break;
        }
        // So that what is moved later is in the index.
        here.searches().take_everything().await.unwrap();
    }
    assert_eq!(here.placed.len(), here.elsewhere.events.len(), "everything has been fetched");
    for limit in [1, 4, 100] {
        here.check(limit).await;
    }
    here.check_search(1).await;
    here.check_states().await;
    let Here { world, elsewhere, placed } = here;
    let here = Here { world: world.restart().await, elsewhere, placed };
    here.check(7).await;
    here.check_search(5).await;
    here.check_states().await;
    here.world.close().await;
}

fn in_a_runtime<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(16) })]

    /// Whatever was heard and fetched when.
    #[test]
    fn every_walk_sees_every_event_once_in_order(
        visibility in prop_oneof![Just("shared"), Just("joined")],
        join in 0..20_usize,
        deeds in deeds(),
        order in prop::collection::vec((0..7_usize, 1..12_usize), 1..6),
    ) {
        in_a_runtime(async { play(RoomWorld::new().await, visibility, join, &deeds, &order).await });
    }
}

/// On each engine that is at hand.
#[tokio::test(flavor = "multi_thread")]
async fn history_is_in_order_on_each_engine() {
    let deeds: Vec<Deed> = (0..30)
        .map(|n| Deed {
            is_state: n % 3 == 0,
            also: (n % 4 == 1).then_some(n % 3 + 1),
            is_heard: n % 7 < 3,
            fetch: (n % 6 == 5).then_some((n, 2)),
        })
        .collect();
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        play(world, "shared", 12, &deeds, &[(0, 3), (1, 5), (2, 1)]).await;
    }
}

/// A room that bob has joined. Returns the place of the joining.
fn joined_elsewhere() -> (Elsewhere, usize) {
    let mut elsewhere = Elsewhere::new("shared");
    let membership = json!({ "membership": "join" });
    elsewhere.say_next(&user("bob"), "m.room.member", Some("@bob:here"), membership);
    let joined = elsewhere.events.len() - 1;
    (elsewhere, joined)
}

/// What stands too high moves below what it leads to, but not below what it follows of the chunk itself.
#[tokio::test(flavor = "multi_thread")]
async fn what_moves_stays_above_what_it_follows_of_the_chunk() {
    let (mut elsewhere, joined) = joined_elsewhere();
    let first = elsewhere.say_after(&[joined]);
    let high = elsewhere.say_after(&[first]);
    let beside = elsewhere.say_after(&[first]);
    let both = elsewhere.say_after(&[high, beside]);
    let after_both = elsewhere.say_after(&[both]);
    let after_high = elsewhere.say_after(&[high]);
    let mut here = Here::enter(RoomWorld::new().await, elsewhere, joined).await;
    here.hear(after_both).await;
    here.hear(after_high).await;
    here.insert(&[high]).await;
    here.insert(&[first, beside, both]).await;
    here.check(2).await;
    here.check_states().await;
}

/// Where what moves stays above what it follows, although only a few events fit between that and what comes next.
#[tokio::test(flavor = "multi_thread")]
async fn what_moves_stays_above_what_it_follows_where_few_fit() {
    for count in [1, 15, 40, 300] {
        let (mut elsewhere, joined) = joined_elsewhere();
        let low = elsewhere.say_after(&[joined]);
        let beside = elsewhere.say_after(&[low]);
        let high = elsewhere.say_after(&[low]);
        let last = elsewhere.say_many_after(high, count);
        let after_last = elsewhere.say_after(&[last, beside]);
        let after_high = elsewhere.say_after(&[high]);
        let mut here = Here::enter(RoomWorld::new().await, elsewhere, joined).await;
        here.hear(after_last).await;
        here.hear(after_high).await;
        here.insert(&[beside]).await;
        here.insert(&[low]).await;
        here.insert(&[high]).await;
        here.insert(&(high + 1..=last).collect::<Vec<_>>()).await;
        here.check(100).await;
        here.check_states().await;
    }
}

/// Two long branches that meet, one of which was fetched whole before the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_branch_finds_room_beside_another() {
    let (mut elsewhere, joined) = joined_elsewhere();
    let fork = elsewhere.say_after(&[joined]);
    let one = elsewhere.say_many_after(fork, 1_100);
    let other = elsewhere.say_many_after(fork, 50);
    let both = elsewhere.say_after(&[one, other]);
    let mut here = Here::enter(RoomWorld::new().await, elsewhere, joined).await;
    here.hear(both).await;
    here.insert(&(fork..=one).collect::<Vec<_>>()).await;
    here.insert(&(one + 1..=other).collect::<Vec<_>>()).await;
    here.check(1_000).await;
}
