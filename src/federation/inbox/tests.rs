//! What becomes of what another server sends.

use serde_json::json;

use super::*;
use crate::{
    event::{Pdu, Standing, fact::NodeId},
    federation::fetcher::testing::{Elsewhere, Stage, carol, raw},
};

/// One that takes nothing in by itself.
fn inbox(stage: &Stage) -> Inbox {
    Inbox::new(&stage.ground, stage.rooms.clone(), stage.fetcher.clone())
}

fn transaction(id: &str, pdus: &[&Pdu]) -> Transaction {
    Transaction { id: id.into(), pdus: pdus.iter().map(|pdu| raw(pdu)).collect(), edus: Vec::new() }
}

impl Inbox {
    async fn send(&self, id: &str, pdus: &[&Pdu]) -> Results {
        self.receive(&Elsewhere::name(), transaction(id, pdus)).await.unwrap()
    }

    /// Takes in whatever is due.
    async fn take_all(&self) {
        for room in self.look().await.unwrap() {
            self.take_turn(&room).await;
        }
    }

    async fn waiting(&self) -> i64 {
        inbound::count_of(&mut self.0.db.read().await.unwrap(), &Elsewhere::name(), 1_000).await.unwrap()
    }
}

async fn standing(stage: &Stage, pdu: &Pdu) -> Option<Standing> {
    stage.find(pdu.event_id()).await.map(|stored| stored.standing)
}

fn ok(pdus: &[&Pdu]) -> Results {
    pdus.iter().map(|pdu| (pdu.event_id().to_owned(), Ok(()))).collect()
}

#[tokio::test]
async fn a_transaction_is_taken_once() {
    let stage = Stage::new().await;
    let inbox = inbox(&stage);
    let (first, second) = (stage.elsewhere.say("first"), stage.elsewhere.say("second"));
    assert_eq!(inbox.send("1", &[&first, &first]).await, ok(&[&first]));
    assert_eq!(inbox.waiting().await, 1);
    // Whatever is in it the second time.
    assert_eq!(inbox.send("1", &[&second]).await, ok(&[&first]));
    assert_eq!(inbox.waiting().await, 1);
    inbox.take_all().await;
    assert_eq!(standing(&stage, &first).await, Some(Standing::Accepted));
    assert_eq!(inbox.waiting().await, 0);
    // It is known by itself as well.
    assert_eq!(inbox.send("2", &[&first]).await, ok(&[&first]));
    assert_eq!(inbox.waiting().await, 0);
    assert!(inbox.look().await.unwrap().is_empty(), "nothing is left to look at");
    drop(inbox);
    stage.close().await;
}

#[tokio::test]
async fn what_was_acknowledged_is_taken_in_although_the_process_ended_before() {
    for stage in Stage::on_each_engine().await {
        let said = stage.elsewhere.say("on the way");
        {
            let inbox = inbox(&stage);
            inbox.send("1", &[&said]).await;
            // Taken in hand, and then the node is gone.
            let mut tx = stage.ground.db.begin().await.unwrap();
            let waiting = inbound::list_rooms(&mut tx, inbox.now(), 10).await.unwrap();
            let gone = NodeId::from("gone".to_owned());
            assert!(inbound::claim(&mut tx, &waiting[0], &gone, i64::MAX).await.unwrap());
            tx.commit().await.unwrap();
        }
        assert_eq!(standing(&stage, &said).await, None);
        let inbox = inbox(&stage);
        inbox.take_all().await;
        assert_eq!(standing(&stage, &said).await, Some(Standing::Accepted));
        drop(inbox);
        stage.close().await;
    }
}

#[tokio::test]
async fn an_event_that_was_taken_in_before_a_crash_is_done() {
    let stage = Stage::new().await;
    let inbox = inbox(&stage);
    let said = stage.elsewhere.say("once");
    inbox.send("1", &[&said]).await;
    // As if the process had ended before it noted that.
    stage.rooms.append_remote(&stage.room().await, said.clone()).await.unwrap();
    inbox.take_all().await;
    assert_eq!(inbox.waiting().await, 0);
    assert_eq!(stage.ends().await, [said.event_id()]);
    drop(inbox);
    stage.close().await;
}

#[tokio::test]
async fn events_of_a_room_are_taken_in_in_order() {
    let stage = Stage::new().await;
    let inbox = inbox(&stage);
    let said: Vec<Pdu> = (0..10).map(|count| stage.elsewhere.say(&format!("number {count}"))).collect();
    let backwards: Vec<&Pdu> = said.iter().rev().collect();
    inbox.send("1", &backwards[..5]).await;
    inbox.send("2", &backwards[5..]).await;
    inbox.take_all().await;
    assert!(stage.elsewhere.asked().is_empty(), "nothing had to be fetched");
    let mut last = None;
    for pdu in &said {
        let stored = stage.find(pdu.event_id()).await.unwrap();
        assert_eq!(stored.standing, Standing::Accepted);
        assert!(Some(stored.order) > last);
        last = Some(stored.order);
    }
    drop(inbox);
    stage.close().await;
}

#[tokio::test]
async fn a_bad_event_does_not_hold_up_the_good_ones() {
    let stage = Stage::new().await;
    let inbox = inbox(&stage);
    let (first, second) = (stage.elsewhere.say("first"), stage.elsewhere.say("second"));
    let astray = stage.elsewhere.astray();
    let forged = raw(&second).get().replace("elsewhere", "localhost");
    let mut bad = transaction("1", &[&first, &astray, &second]);
    let bare = json!({ "room_id": stage.room_id }).to_string();
    for json in ["null", "[]", "{}", "{\"room_id\": 5}", "1.5", forged.as_str(), bare.as_str()] {
        bad.pdus.insert(1, RawValue::from_string(json.to_owned()).unwrap());
    }
    let results = inbox.receive(&Elsewhere::name(), bad).await.unwrap();
    for good in [&first, &second] {
        assert_eq!(results.get(good.event_id()), Some(&Ok(())));
    }
    inbox.take_all().await;
    for good in [&first, &second] {
        assert_eq!(standing(&stage, good).await, Some(Standing::Accepted));
    }
    assert_eq!(inbox.waiting().await, 0);
    assert_eq!(stage.ends().await, [second.event_id()]);
    drop(inbox);
    stage.close().await;
}

#[tokio::test]
async fn too_much_at_once_is_refused() {
    let stage = Stage::new().await;
    let inbox = inbox(&stage);
    let said = stage.elsewhere.say("again and again");
    let too_many = transaction("1", &[&said; MOST_PDUS + 1]);
    inbox.receive(&Elsewhere::name(), too_many).await.unwrap_err();
    let too_long = transaction(&"1".repeat(300), &[&said]);
    inbox.receive(&Elsewhere::name(), too_long).await.unwrap_err();
    assert_eq!(inbox.waiting().await, 0);
    drop(inbox);
    stage.close().await;
}

#[tokio::test]
async fn the_access_control_list_of_a_room_counts() {
    let stage = Stage::new().await;
    let inbox = inbox(&stage);
    stage.set("m.room.server_acl", json!({ "allow": ["*"], "deny": ["ELSE*"] })).await;
    let said = stage.elsewhere.say("kept out");
    let results = inbox.send("1", &[&said]).await;
    assert!(results.get(said.event_id()).is_some_and(Result::is_err), "{results:?}");
    assert_eq!(inbox.waiting().await, 0);
    drop(inbox);
    stage.close().await;
}

#[tokio::test]
async fn a_gap_is_filled_with_the_events_that_are_missing() {
    let stage = Stage::new().await;
    let inbox = inbox(&stage);
    let said: Vec<Pdu> = (0..30).map(|count| stage.elsewhere.say(&format!("number {count}"))).collect();
    let last = said.last().unwrap();
    inbox.send("1", &[last]).await;
    inbox.take_all().await;
    for pdu in &said {
        assert_eq!(standing(&stage, pdu).await, Some(Standing::Accepted));
    }
    assert!(!stage.find(last.event_id()).await.unwrap().follows_gap);
    assert_eq!(stage.ends().await, [last.event_id()]);
    assert_eq!(stage.elsewhere.asked(), ["missing_events"; 2]);
    drop(inbox);
    stage.close().await;
}

#[tokio::test]
async fn a_gap_that_nobody_fills_is_bridged_with_a_state() {
    let stage = Stage::new().await;
    let inbox = inbox(&stage);
    let topic = stage.elsewhere.set(&carol(), "m.room.topic", "", json!({ "topic": "apples" }));
    let missing = stage.elsewhere.say("lost");
    let last = stage.elsewhere.say("last");
    stage.elsewhere.script.lock().missing_events = Some(Vec::new());
    inbox.send("1", &[&last]).await;
    inbox.take_all().await;
    let stored = stage.find(last.event_id()).await.unwrap();
    assert_eq!(stored.standing, Standing::Accepted);
    assert!(stored.follows_gap);
    assert!(!stage.has_placed(&missing).await);
    let state = stage.room().await.state();
    assert!(state.holds("m.room.topic", "", topic.event_id()));
    assert_eq!(stage.elsewhere.asked(), ["missing_events", "state_ids", "event"]);
    drop(inbox);
    stage.close().await;
}

#[tokio::test]
async fn hostile_answers_put_an_event_off_and_change_nothing() {
    let stage = Stage::new().await;
    let inbox = inbox(&stage);
    let astray = stage.elsewhere.astray();
    let missing = stage.elsewhere.say("never returned");
    let last = stage.elsewhere.say("last");
    {
        let mut script = stage.elsewhere.script.lock();
        script.missing_events = Some(vec![raw(&astray); 1_000]);
        script.state = Some(vec![astray.event_id().to_owned(), missing.event_id().to_owned()]);
    }
    let ends = stage.ends().await;
    inbox.send("1", &[&last]).await;
    inbox.take_all().await;
    assert_eq!(stage.ends().await, ends);
    for pdu in [&astray, &last] {
        assert_eq!(standing(&stage, pdu).await, None);
    }
    assert_eq!(inbox.waiting().await, 1);
    assert!(inbox.look().await.unwrap().is_empty(), "it is not tried again at once");
    // In the end it is given up.
    for _ in 0..5 {
        stage.ground.clock.advance(Duration::from_hours(5));
        inbox.take_all().await;
    }
    assert_eq!(inbox.waiting().await, 0);
    drop(inbox);
    stage.close().await;
}

#[tokio::test]
async fn an_event_whose_keys_are_away_waits_and_others_do_not() {
    let stage = Stage::new().await;
    let inbox = inbox(&stage);
    let unknown = stage.elsewhere.say("whose is this");
    stage.elsewhere.script.lock().without_keys.insert(unknown.event_id().to_owned());
    let next = stage.elsewhere.say("next");
    inbox.send("1", &[&unknown, &next]).await;
    inbox.take_all().await;
    assert_eq!(standing(&stage, &unknown).await, None);
    assert_eq!(standing(&stage, &next).await, Some(Standing::Accepted), "with a gap before it");
    stage.elsewhere.script.lock().without_keys.clear();
    inbox.take_all().await;
    assert_eq!(standing(&stage, &unknown).await, None, "not yet");
    stage.ground.clock.advance(Duration::from_secs(15));
    inbox.take_all().await;
    assert_eq!(standing(&stage, &unknown).await, Some(Standing::Accepted));
    assert_eq!(inbox.waiting().await, 0);
    drop(inbox);
    stage.close().await;
}

/// The first copy may be one that somebody has spoilt.
#[tokio::test]
async fn a_bad_copy_does_not_keep_the_event_away() {
    let stage = Stage::new().await;
    let inbox = inbox(&stage);
    let said = stage.elsewhere.say("whole");
    let mut spoilt: serde_json::Value = serde_json::from_str(said.json().get()).unwrap();
    spoilt["signatures"] = json!({ "elsewhere": { "ed25519:a": "A".repeat(86) } });
    let pdus = vec![RawValue::from_string(spoilt.to_string()).unwrap()];
    let (id, stranger) = ("1".into(), ruma::owned_server_name!("stranger"));
    inbox.receive(&stranger, Transaction { id, pdus, edus: Vec::new() }).await.unwrap();
    inbox.send("1", &[&said]).await;
    inbox.take_all().await;
    assert_eq!(standing(&stage, &said).await, Some(Standing::Accepted));
    drop(inbox);
    stage.close().await;
}

#[tokio::test]
async fn what_a_transaction_brings_beside_events_is_counted() {
    let stage = Stage::new().await;
    let inbox = inbox(&stage);
    let edu = |kind: &str| RawValue::from_string(json!({ "edu_type": kind, "content": {} }).to_string()).unwrap();
    let edus = ["m.typing", "m.typing", "x.made_up"].map(|kind| Raw::from_json(edu(kind))).to_vec();
    for _ in 0..2 {
        let (id, edus) = ("1".into(), edus.clone());
        let results = inbox.receive(&Elsewhere::name(), Transaction { id, pdus: Vec::new(), edus }).await.unwrap();
        assert!(results.is_empty());
    }
    let written = stage.ground.metrics.render().unwrap();
    assert!(written.contains("hearth_inbound_edus_total{kind=\"m.typing\"} 2"), "{written}");
    assert!(written.contains("hearth_inbound_edus_total{kind=\"unknown\"} 1"), "{written}");
    drop(inbox);
    stage.close().await;
}
