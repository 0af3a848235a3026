//! What was redacted stays so, and what is redacted by an event that comes late becomes so, whatever comes first.

use super::*;
use crate::db::{DbResult, Engine, Tx, args, statements};

/// A room with a message, a topic, a message after them, and what redacts the first two.
struct Redacted {
    here: Here,
    join: usize,
    said: usize,
    topic: usize,
    after: usize,
    by: [usize; 2],
}

impl Redacted {
    /// A user of this server joins before all that (`late`: after the message and the topic).
    async fn new(world: RoomWorld, late: bool) -> Self {
        let mut room = Elsewhere::new("shared");
        let join = |room: &mut Elsewhere| {
            room.say_next(&user("bob"), "m.room.member", Some("@bob:here"), json!({ "membership": "join" }));
            room.events.len() - 1
        };
        let early = (!late).then(|| join(&mut room));
        room.say_next(&alice(), "m.room.message", None, json!({ "msgtype": "m.text", "body": "apple, secret" }));
        room.say_next(&alice(), "m.room.topic", Some(""), json!({ "topic": "secret" }));
        let join = early.unwrap_or_else(|| join(&mut room));
        room.say_next(&alice(), "m.room.message", None, json!({ "msgtype": "m.text", "body": "apple, after" }));
        let after = room.events.len() - 1;
        let [said, topic] = if late { [after - 3, after - 2] } else { [after - 2, after - 1] };
        let by = [room.redact(&alice(), said), room.redact(&alice(), topic)];
        room.say_next(&alice(), "m.room.message", None, json!({ "msgtype": "m.text", "body": "apple, last" }));
        Self { here: Here::enter(world, room, join).await, join, said, topic, after, by }
    }

    fn pdu(&self, which: usize) -> &Arc<Pdu> {
        &self.here.elsewhere.events[which]
    }

    fn id(&self, which: usize) -> &EventId {
        self.here.elsewhere.events[which].event_id()
    }

    /// Hears of the last event, and fetches what is missing.
    async fn catch_up(&mut self) {
        self.here.hear(self.here.elsewhere.events.len() - 1).await;
        while self.here.fetch(0, 2).await {}
    }

    /// The room, with the message and the topic as they were fetched and looked at, before they are written.
    async fn look_at_what_was_fetched(&self) -> (Arc<Room>, Vec<Fetched>) {
        let chunk = self.here.chunk(&[self.pdu(self.said), self.pdu(self.topic)]).await;
        let rooms = &self.here.world.rooms;
        let room = rooms.get(&self.here.elsewhere.room_id).await.unwrap().into_room();
        let looked = rooms.look_into_chunk(&room, &chunk).await.unwrap();
        (room, looked)
    }

    async fn stored(&self, which: usize) -> Option<Stored> {
        store::event::find(&mut self.here.world.db.read().await.unwrap(), self.id(which)).await.unwrap()
    }

    /// Neither the message nor the topic says what it said, wherever one looks.
    async fn check(self) {
        for id in [self.said, self.topic].map(|which| self.id(which)) {
            let mut conn = self.here.world.db.read().await.unwrap();
            let stored = store::event::find(&mut conn, id).await.unwrap().unwrap();
            assert!(stored.pdu.redacted_because().is_some(), "{}", stored.pdu.json());
            assert!(store::redaction::list_early(&mut conn, id).await.unwrap().is_empty(), "nothing is left to do");
        }
        self.check_reading().await;
        let Self { here: Here { world, elsewhere, placed }, .. } = self;
        let restarted = Self { here: Here { world: world.restart().await, elsewhere, placed }, ..self };
        restarted.check_reading().await;
        restarted.here.world.close().await;
    }

    async fn check_reading(&self) {
        let here = &self.here;
        let room = here.world.rooms.get(&here.elsewhere.room_id).await.unwrap();
        let shown = room.view(|view| view.state.get("m.room.topic", "").cloned()).unwrap();
        assert_eq!(shown.event_id(), self.id(self.topic));
        let walked = here.walk(Direction::Backward, None, 2).await;
        assert_eq!(walked.len(), here.placed.len(), "everything is here");
        for pdu in walked.iter().map(|event| &event.pdu).chain([&shown]) {
            assert!(!pdu.json().get().contains("secret"), "{}", pdu.json());
        }
        here.check_search(2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redaction_that_was_missed_redacts_what_is_here() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        let mut room = Redacted::new(world, false).await;
        for which in room.join + 1..=room.after {
            room.here.hear(which).await;
        }
        room.here.check_search(2).await;
        room.catch_up().await;
        room.check().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_redacted_while_its_place_was_not_known_stays_redacted() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        let mut room = Redacted::new(world, true).await;
        for which in [room.after, room.by[0], room.by[1]] {
            room.here.hear(which).await;
        }
        room.catch_up().await;
        room.check().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redaction_and_its_target_on_the_way_at_once_meet() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        let mut room = Redacted::new(world, false).await;
        room.here.hear(room.after).await;
        // The redactions come in between, and the process that writes it dies then.
        let (known, looked) = room.look_at_what_was_fetched().await;
        for which in room.by {
            room.here.hear(which).await;
        }
        room.here.world.rooms.place_all(&known, looked).await.unwrap();
        room.here.placed.extend([room.said, room.topic].map(|which| room.id(which).to_owned()));
        room.here.world.rooms.settle_overdue_redactions().await.unwrap();
        drop(known);
        room.catch_up().await;
        room.check().await;
    }
}

/// Whether the redaction has an effect or not, and whether its target is an outlier before or after it: the target comes
/// through the log.
#[tokio::test(flavor = "multi_thread")]
async fn an_outlier_of_which_a_redaction_has_come_can_come_itself() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        let mut room = Redacted::new(world, false).await;
        // Bob redacts what alice says, which he may not.
        let more = json!({ "msgtype": "m.text", "body": "apple, more" });
        room.here.elsewhere.say_next(&alice(), "m.room.message", None, more);
        let kept = room.here.elsewhere.events.len() - 1;
        let powerless = room.here.elsewhere.redact(&user("bob"), kept);
        room.here.hear(room.after).await;
        let rooms = room.here.world.rooms.clone();
        let room_id = room.here.elsewhere.room_id.clone();
        let keep = async |pdu: &Arc<Pdu>| rooms.keep_outliers(&room_id, &[Arc::clone(pdu)]).await.unwrap();
        keep(room.pdu(room.topic)).await;
        room.here.hear(room.by[0]).await;
        room.here.hear(room.by[1]).await;
        keep(room.pdu(room.said)).await;
        room.here.hear(powerless).await;
        keep(room.pdu(kept)).await;
        for which in [room.said, room.topic, kept] {
            room.here.hear(which).await;
            let stored = room.stored(which).await.unwrap();
            assert!(stored.key > EventKey(0));
            assert_eq!(stored.pdu.redacted_because().is_some(), which != kept, "{}", stored.pdu.json());
        }
        drop(rooms);
        room.here.world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_tells_of_while_it_is_fetched_stays_where_it_is() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        let mut room = Redacted::new(world, false).await;
        room.here.hear(room.after).await;
        let (known, looked) = room.look_at_what_was_fetched().await;
        room.here.hear(room.said).await;
        let heard = room.stored(room.said).await.unwrap().key;
        assert!(heard > EventKey(0));
        room.here.world.rooms.place_all(&known, looked).await.unwrap();
        assert_eq!(room.stored(room.said).await.unwrap().key, heard);
        assert!(room.stored(room.topic).await.unwrap().key < EventKey(0));
        drop(known);
        room.here.world.close().await;
    }
}

/// It does not follow its target, so it may come first.
#[tokio::test(flavor = "multi_thread")]
async fn a_redaction_before_its_target_in_one_chunk_redacts_it() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        let mut room = Elsewhere::new("shared");
        room.say_next(&user("bob"), "m.room.member", Some("@bob:here"), json!({ "membership": "join" }));
        let join = room.events.len() - 1;
        let after = [room.events[join].event_id().to_owned()];
        room.add(&alice(), "m.room.message", None, json!({ "msgtype": "m.text", "body": "secret" }), &after);
        let said = room.events.len() - 1;
        let by = room.redact_after(&alice(), said, &after);
        room.say_next(&alice(), "m.room.message", None, json!({ "msgtype": "m.text", "body": "after both" }));
        let mut here = Here::enter(world, room, join).await;
        here.hear(by + 1).await;
        let chunk = here.chunk(&[&here.elsewhere.events[by], &here.elsewhere.events[said]]).await;
        here.world.rooms.insert_history(&here.elsewhere.room_id, &chunk).await.unwrap();
        let mut conn = here.world.db.read().await.unwrap();
        let stored = store::event::find(&mut conn, here.elsewhere.events[said].event_id()).await.unwrap().unwrap();
        assert!(stored.key < EventKey(0) && stored.pdu.redacted_because().is_some(), "{}", stored.pdu.json());
        drop(conn);
        here.world.close().await;
    }
}

/// The row that an event gets with a new key, as where it is placed.
async fn give_new_key(tx: &mut Tx, old: EventKey, new: EventKey, pdu: &Pdu) -> DbResult<()> {
    store::event::replace_outliers(tx, &[(old, new, pdu)]).await?;
    let row = store::event::NewRow {
        key: new,
        order: Order(new.0 * Order::SPACE),
        missing: &[],
        pdu,
        standing: Standing::Accepted,
        fork: None,
        notifies: false,
        thread_root: None,
        transaction: None,
        replaces: None,
        moment: None,
    };
    store::event::insert(tx, &[row]).await?;
    // What waits to be inserted is sent before anything is read.
    store::event::keys(tx, &[pdu.event_id()]).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outlier_that_has_been_redacted_gives_way_only_to_its_redacted_form() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        let mut room = Redacted::new(world, false).await;
        room.here.hear(room.after).await;
        room.here.hear(room.by[0]).await;
        room.here.hear(room.by[1]).await;
        let outlier = room.stored(room.topic).await.unwrap();
        assert!(outlier.standing == Standing::Outlier && outlier.pdu.redacted_because().is_some());
        let mut tx = room.here.world.db.begin().await.unwrap();
        let original = room.pdu(room.topic);
        let refused = give_new_key(&mut tx, outlier.key, EventKey(-1_000), original).await;
        assert!(refused.is_err_and(|error| error.is_conflict()), "what was read before it was redacted");
        drop(tx);
        let mut tx = room.here.world.db.begin().await.unwrap();
        give_new_key(&mut tx, outlier.key, EventKey(-1_000), &outlier.pdu).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(room.stored(room.topic).await.unwrap().key, EventKey(-1_000));
        room.here.world.close().await;
    }
}

statements! {
    /// Who waits for a row in this database.
    LIST_WAITING = "SELECT 1" | "SELECT 1 FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
        WHERE a.datname = current_database() AND NOT l.granted";
}

/// On SQLite one transaction writes at a time.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_row_moves_while_it_is_redacted_is_redacted() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        if world.db.engine() == Engine::Sqlite {
            world.close().await;
            continue;
        }
        let mut room = Redacted::new(world, false).await;
        room.here.hear(room.after).await;
        let outlier = room.stored(room.topic).await.unwrap();
        let redacted = outlier.pdu.redacted(Arc::clone(room.pdu(room.by[1]))).unwrap();
        let db = &room.here.world.db;
        let mut moving = db.begin().await.unwrap();
        give_new_key(&mut moving, outlier.key, EventKey(-1_000), &outlier.pdu).await.unwrap();
        let redact = async {
            let mut tx = db.begin().await.unwrap();
            store::redaction::replace(&mut tx, &redacted, room.id(room.by[1])).await.unwrap();
            tx.commit().await.unwrap();
        };
        let commit = async {
            while db.read().await.unwrap().list(&LIST_WAITING, args![]).await.unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
            moving.commit().await.unwrap();
        };
        tokio::join!(redact, commit);
        let mut conn = db.read().await.unwrap();
        let json = store::event::list_json_at(&mut conn, &[-1_000]).await.unwrap().remove(0).1;
        assert!(!json.contains("secret"), "{json}");
        drop(conn);
        room.here.world.close().await;
    }
}
