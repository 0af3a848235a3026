//! What of a room from elsewhere is found by its words, in which order.

use ruma::api::client::filter::RoomEventFilter;

use super::*;
use crate::{
    ground::sizes::Sizes,
    reader::search::{Criteria, Fields, ResultOrder, Searches},
    store::search::{Phrase, SearchHit, SearchQuery, SearchedRoom},
};

const EVERYWHERE: Fields = Fields { body: true, name: true, topic: true };

impl Elsewhere {
    /// Alice says something after the event at a place.
    fn say(&mut self, body: &str, after: usize) {
        let prev = self.events[after].event_id().to_owned();
        self.add(&alice(), "m.room.message", None, json!({ "msgtype": "m.text", "body": body }), &[prev]);
    }
}

impl Here {
    pub(super) fn searches(&self) -> Searches {
        Searches::new(self.world.db.clone(), self.world.rooms.clone(), Sizes::little().search)
    }

    /// What bob finds, page by page.
    async fn find(&self, order: ResultOrder, limit: usize) -> Vec<OwnedEventId> {
        let searches = self.searches();
        searches.take_everything().await.unwrap();
        let (bob, filter) = (user("bob"), RoomEventFilter::default());
        let (mut from, mut found) = (None, Vec::new());
        loop {
            let criteria = Criteria {
                reader: &bob,
                ignored: Arc::default(),
                term: "apple",
                fields: EVERYWHERE,
                filter: &filter,
                order,
                limit,
                from,
            };
            let page = searches.find(&criteria).await.unwrap();
            assert!(page.results.len() <= limit);
            found.extend(page.results.iter().map(|result| result.event.pdu.event_id().to_owned()));
            let Some(next) = page.next else { return found };
            from = Some(next.to_string().parse().unwrap());
        }
    }

    /// Bob finds every message that they may see once, from the newest of the room to the oldest.
    pub(super) async fn check_search(&self, limit: usize) {
        let seen = self.walk(Direction::Backward, None, 100).await;
        let is_message = |event: &&Arc<Stored>| {
            *event.pdu.kind() == TimelineEventType::RoomMessage && event.pdu.redacted_because().is_none()
        };
        let expected: Vec<OwnedEventId> =
            seen.iter().filter(is_message).map(|event| event.pdu.event_id().to_owned()).collect();
        for order in [ResultOrder::Recent, ResultOrder::Rank] {
            assert_eq!(self.find(order, limit).await, expected, "{order:?}");
        }
    }

    /// What bob finds, by its words.
    async fn find_bodies(&self) -> Vec<String> {
        let found = self.find(ResultOrder::Recent, 1).await;
        found.iter().map(|id| body(&self.elsewhere.model.events[id].pdu)).collect()
    }

    /// What the index holds, whoever may find it.
    async fn indexed(&self) -> Vec<SearchHit> {
        self.searches().take_everything().await.unwrap();
        let wanted = SearchQuery {
            phrases: &[Phrase { words: vec!["apple".to_owned()], is_prefix: false }],
            fields: EVERYWHERE,
            rooms: &[SearchedRoom { room_id: &self.elsewhere.room_id, stretches: None }],
            below: Order::END,
            most: 1_000,
            sizes: Sizes::little().search.index,
        };
        store::search::find(&mut self.world.db.read().await.unwrap(), &wanted).await.unwrap()
    }

    /// Hears that alice redacts what she said.
    async fn hear_redaction(&mut self, redacted: &str) {
        let is_it = |pdu: &&Arc<Pdu>| *pdu.kind() == TimelineEventType::RoomMessage && body(pdu) == redacted;
        let target = self.elsewhere.events.iter().find(is_it).unwrap().event_id().to_owned();
        self.elsewhere.say_next(&alice(), "m.room.redaction", None, json!({ "redacts": target }));
        let last = self.elsewhere.events.len() - 1;
        self.hear(last).await;
    }
}

fn body(pdu: &Pdu) -> String {
    pdu.content_as::<Value>().unwrap()["body"].as_str().unwrap().to_owned()
}

/// Alice has said twenty things one after the other, eight of them before bob came. This server has heard four.
async fn heard_in_part(world: RoomWorld) -> Here {
    let mut elsewhere = Elsewhere::new("shared");
    let mut joined_at = 0;
    for number in 0..20 {
        if number == 8 {
            joined_at = elsewhere.events.len();
            elsewhere.say_next(&user("bob"), "m.room.member", Some("@bob:here"), json!({ "membership": "join" }));
        }
        elsewhere.say(&format!("apple {number}"), elsewhere.events.len() - 1);
    }
    let mut here = Here::enter(world, elsewhere, joined_at).await;
    for later in [1, 2, 9, 12] {
        here.hear(joined_at + later).await;
    }
    here
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_found_between_what_was_heard() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        let mut here = heard_in_part(world).await;
        assert_eq!(here.find_bodies().await, ["apple 19", "apple 16", "apple 9", "apple 8"]);
        while here.fetch(1, 3).await {
            here.check_search(1).await;
        }
        let all: Vec<String> = (0..20).rev().map(|number| format!("apple {number}")).collect();
        assert_eq!(here.find_bodies().await, all);
        assert_eq!(here.indexed().await.len(), all.len());
        here.world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_that_is_redacted_is_found_no_more() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        let mut here = heard_in_part(world).await;
        while here.fetch(0, 4).await {}
        // Before it is indexed.
        here.hear_redaction("apple 5").await;
        assert_eq!(here.indexed().await.len(), 19);
        for redacted in ["apple 3", "apple 12"] {
            here.hear_redaction(redacted).await;
        }
        here.check_search(3).await;
        let indexed = here.indexed().await;
        assert!(indexed.len() == 17 && indexed.iter().all(|hit| !hit.is_gone), "{indexed:?}");
        here.world.close().await;
    }
}

/// The history before one event is fetched before it is known that it also leads to a lower one.
#[tokio::test(flavor = "multi_thread")]
async fn history_that_is_moved_is_found_once() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        let mut elsewhere = Elsewhere::new("shared");
        let joined_at = elsewhere.events.len();
        elsewhere.say_next(&user("bob"), "m.room.member", Some("@bob:here"), json!({ "membership": "join" }));
        for (body, after) in [("apple 1", 0), ("apple 2", 1), ("apple 3", 2), ("apple 4", 1), ("apple 5", 4)] {
            elsewhere.say(body, joined_at + after);
        }
        let mut here = Here::enter(world, elsewhere, joined_at).await;
        for later in [3, 5] {
            here.hear(joined_at + later).await;
        }
        assert!(here.fetch(2, 2).await);
        assert_eq!(here.find_bodies().await, ["apple 5", "apple 4", "apple 1", "apple 3"]);
        assert!(here.fetch(1, 1).await);
        assert_eq!(here.find_bodies().await, ["apple 5", "apple 4", "apple 3", "apple 2", "apple 1"]);
        assert_eq!(here.indexed().await.len(), 5);
        here.world.close().await;
    }
}
