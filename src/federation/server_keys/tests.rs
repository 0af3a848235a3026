use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use ruma::{
    CanonicalJsonObject, OwnedServerSigningKeyId, RoomVersionId, ServerName, canonical_json::CanonicalJsonValue,
    owned_server_name, server_name,
};
use serde_json::{Value, json};

use super::{
    testing::{Peer, ScriptedServers},
    *,
};
use crate::{
    db::testing::{TestDatabase, databases, sqlite},
    event::{DatedKey, SigningKey, SigningKeys},
    ground::{clock::Clock, sizes::CacheSizes, tasks::Tasks},
};

const NOW: i64 = 1_800_000_000_000;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// This server among scripted others. Its name is `here`.
struct House {
    keys: ServerKeys,
    others: Arc<ScriptedServers>,
    clock: Clock,
    own: SigningKeys,
    database: TestDatabase,
}

impl House {
    async fn new(notaries: &[&str]) -> Self {
        Self::on(sqlite().await, notaries)
    }

    fn on(database: TestDatabase, notaries: &[&str]) -> Self {
        let (clock, others) = (Clock::manual(u64::try_from(NOW).unwrap()), Arc::new(ScriptedServers::default()));
        let first = Peer::new("here", "first").key;
        let own = SigningKeys::new(clock.clone(), DatedKey { key: Arc::new(first), created_ts: 0 }, Vec::new());
        let keys = keys(&database, &clock, &own, &others, notaries);
        Self { keys, others, clock, own, database }
    }

    /// The server after a restart, its memory empty.
    fn restarted(&self, notaries: &[&str]) -> ServerKeys {
        keys(&self.database, &self.clock, &self.own, &self.others, notaries)
    }

    fn now(&self) -> i64 {
        self.clock.now().get().into()
    }

    /// So that everybody may be asked again.
    fn wait(&self) {
        self.clock.advance(Duration::from_mins(1));
    }

    async fn close(self) {
        drop(self.keys);
        self.database.close().await;
    }
}

fn keys(
    database: &TestDatabase,
    clock: &Clock,
    own: &SigningKeys,
    others: &Arc<ScriptedServers>,
    notaries: &[&str],
) -> ServerKeys {
    let notaries = notaries.iter().map(|name| ServerName::parse(name).unwrap()).collect();
    ServerKeys::new(
        (database.db().clone(), clock.clone(), Tasks::new()),
        (owned_server_name!("here"), own.clone()),
        Arc::clone(others) as Arc<dyn KeyServers>,
        notaries,
        &CacheSizes::default(),
    )
}

fn is_invalid<T>(verified: &Result<T, VerifyError>) -> bool {
    matches!(verified, Err(VerifyError::Invalid(_)))
}

fn is_unavailable<T>(verified: &Result<T, VerifyError>) -> bool {
    matches!(verified, Err(VerifyError::KeysUnavailable(_)))
}

fn key_id(peer: &Peer) -> OwnedServerSigningKeyId {
    peer.key.id().as_str().try_into().unwrap()
}

#[tokio::test]
async fn keys_are_fetched_once_and_stay() {
    for database in databases().await {
        let (house, there) = (House::on(database, &[]), Peer::new("there", "a"));
        house.others.say(&there.name, there.document(NOW + DAY, &[]));
        let event = there.event(NOW - 5);
        let many = (0..20).map(|_| house.keys.verify(event.clone()));
        for verified in join_all(many).await {
            assert_eq!(verified.unwrap().event_id(), event.event_id());
        }
        assert_eq!(house.others.take_asked(), ["there"], "however many ask at once");

        house.others.silence(&there.name);
        house.restarted(&[]).verify(there.event(NOW - 9)).await.unwrap();
        house.restarted(&[]).request_key(&there.name, &key_id(&there)).await.unwrap();
        assert_eq!(house.others.take_asked(), [""; 0]);
        house.close().await;
    }
}

/// Trap: key validity (a key that had expired at the event's time).
#[tokio::test]
async fn a_key_verifies_what_was_sent_while_it_was_good() {
    let (house, there) = (House::new(&[]).await, Peer::new("there", "new"));
    let old = Peer::new("there", "old").key;
    house.others.say(&there.name, there.document(NOW + HOUR, &[(&old, NOW - DAY)]));
    house.keys.verify(there.event_by(&old, NOW - DAY)).await.unwrap();
    house.keys.verify(there.event(NOW - 2 * DAY)).await.unwrap();
    house.keys.verify(there.event(NOW + HOUR)).await.unwrap();

    house.wait();
    assert!(is_invalid(&house.keys.verify(there.event_by(&old, NOW - DAY + 1)).await));
    house.wait();
    assert!(is_invalid(&house.keys.verify(there.event(house.now() + 2 * HOUR)).await), "it is good for an hour");

    // Old keys sign no requests.
    house.wait();
    let old_id: OwnedServerSigningKeyId = "ed25519:old".try_into().unwrap();
    assert!(is_invalid(&house.keys.request_key(&there.name, &old_id).await));
    house.keys.request_key(&there.name, &key_id(&there)).await.unwrap();
    house.close().await;
}

#[tokio::test]
async fn no_key_is_believed_for_more_than_a_week() {
    let (house, there) = (House::new(&[]).await, Peer::new("there", "a"));
    house.others.say(&there.name, there.document(NOW + 900 * DAY, &[]));
    house.keys.verify(there.event(NOW + 7 * DAY)).await.unwrap();
    house.wait();
    assert!(is_invalid(&house.keys.verify(there.event(house.now() + 7 * DAY + 1)).await));

    // When the week is over it is asked again.
    house.others.take_asked();
    house.clock.advance(Duration::from_hours(8 * 24));
    house.keys.verify(there.event(house.now())).await.unwrap();
    assert_eq!(house.others.take_asked(), ["there"]);
    house.close().await;
}

#[tokio::test]
async fn an_old_key_is_not_good_for_what_is_made_after_it_was_fetched() {
    let (house, there) = (House::new(&[]).await, Peer::new("there", "new"));
    let old = Peer::new("there", "old").key;
    house.others.say(&there.name, there.document(NOW + HOUR, &[(&old, NOW + 900 * DAY)]));
    let old_id: OwnedServerSigningKeyId = "ed25519:old".try_into().unwrap();
    assert!(is_invalid(&house.keys.request_key(&there.name, &old_id).await));
    house.keys.verify(there.event_by(&old, NOW - 1)).await.unwrap();
    house.wait();
    assert!(is_invalid(&house.keys.verify(there.event_by(&old, house.now())).await));
    house.close().await;
}

#[tokio::test]
async fn what_can_not_be_verified_now_may_be_later() {
    let (house, there) = (House::new(&[]).await, Peer::new("there", "a"));
    assert!(is_unavailable(&house.keys.verify(there.event(NOW)).await));
    assert!(is_unavailable(&house.keys.verify(there.event(NOW)).await));
    assert_eq!(house.others.take_asked(), ["there"], "it is not asked again at once");

    house.others.say(&there.name, there.document(NOW + DAY, &[]));
    house.wait();
    house.keys.verify(there.event(NOW)).await.unwrap();

    // It has another key now, which nobody knows yet.
    let changed = Peer::new("there", "b");
    house.others.say(&there.name, changed.document(NOW + DAY, &[]));
    assert!(is_unavailable(&house.keys.verify(changed.event(NOW)).await), "it was asked a moment ago");
    house.wait();
    house.keys.verify(changed.event(NOW)).await.unwrap();
    // What it does not speak of any more was good once.
    house.keys.verify(there.event(NOW)).await.unwrap();
    house.close().await;
}

#[tokio::test]
async fn what_a_server_has_not_signed_with_its_own_key_is_not_believed() {
    let (there, other) = (Peer::new("there", "a"), Peer::new("there", "a"));
    let good = there.document(NOW + DAY, &[]);
    let with = |field: &str, value: Value| {
        let mut changed = good.clone();
        changed.insert(field.to_owned(), serde_json::from_value(value).unwrap());
        changed
    };
    let mut unsigned = good.clone();
    unsigned.remove("signatures");
    let elsewhere = Peer::new("elsewhere", "a");
    for (why, document) in [
        ("it was changed", with("valid_until_ts", json!(NOW + 2 * DAY))),
        ("another key was put in", with("verify_keys", json!({ "ed25519:a": { "key": other.public_key() } }))),
        ("it has no keys", with("verify_keys", json!({}))),
        ("it is not signed", unsigned),
        ("it is of another server", elsewhere.document(NOW + DAY, &[])),
        ("it is nothing", CanonicalJsonObject::new()),
    ] {
        let house = House::new(&[]).await;
        house.others.say(&there.name, document);
        assert!(is_unavailable(&house.keys.verify(there.event(NOW)).await), "{why}");
        assert_eq!(house.database.dump("server_keys").await, [""; 0], "{why}");
        house.close().await;
    }
}

#[tokio::test]
async fn a_notary_speaks_for_servers_that_are_gone() {
    let (house, there, notary) = (House::new(&["notary"]).await, Peer::new("there", "a"), Peer::new("notary", "n"));
    house.others.say(&notary.name, notary.document(NOW + DAY, &[]));
    house.others.notarise(&notary.name, vec![notary.sign(there.document(NOW + DAY, &[]))]);
    house.keys.verify(there.event(NOW)).await.unwrap();
    assert_eq!(house.others.take_asked(), ["there", "notary about there", "notary"]);

    // The server itself counts more, also later.
    let (changed, liar) = (Peer::new("there", "b"), Peer::new("there", "a"));
    house.wait();
    house.others.say(&there.name, changed.document(NOW + DAY, &[(&there.key, NOW - DAY)]));
    house.keys.verify(changed.event(NOW)).await.unwrap();
    house.wait();
    assert!(is_invalid(&house.keys.verify(there.event(NOW)).await), "it had given up that key");
    house.wait();
    house.others.silence(&there.name);
    house.others.notarise(&notary.name, vec![notary.sign(liar.document(NOW + DAY, &[]))]);
    assert!(house.keys.verify(liar.event(NOW)).await.is_err());
    house.keys.verify(there.event(NOW - 2 * DAY)).await.unwrap();
    house.close().await;
}

/// Trap: key validity (a notary that disagrees).
#[tokio::test]
async fn notaries_that_contradict_each_other_are_not_believed() {
    let house = House::new(&["one", "two"]).await;
    let (there, liar) = (Peer::new("there", "a"), Peer::new("there", "a"));
    let (one, two) = (Peer::new("one", "n"), Peer::new("two", "n"));
    for notary in [&one, &two] {
        house.others.say(&notary.name, notary.document(NOW + 9 * DAY, &[]));
    }
    house.others.notarise(&one.name, vec![one.sign(there.document(NOW + DAY, &[]))]);
    house.others.notarise(&two.name, vec![two.sign(liar.document(NOW + DAY, &[]))]);
    assert!(is_unavailable(&house.keys.verify(there.event(NOW)).await));
    assert!(is_unavailable(&house.keys.verify(liar.event(NOW)).await));

    house.wait();
    house.others.notarise(&two.name, vec![two.sign(there.document(NOW + DAY, &[]))]);
    house.keys.verify(there.event(NOW)).await.unwrap();
    assert!(house.keys.verify(liar.event(NOW)).await.is_err());
    house.close().await;
}

#[tokio::test]
async fn a_notary_is_believed_only_what_it_has_signed() {
    let (there, notary) = (Peer::new("there", "a"), Peer::new("notary", "n"));
    let document = there.document(NOW + DAY, &[]);
    let (stranger, other_key) = (Peer::new("stranger", "n"), Peer::new("notary", "n"));
    for (why, said) in [
        ("it is signed by nobody", document.clone()),
        ("it is signed by another", stranger.sign(document.clone())),
        ("it is signed with another key", other_key.sign(document.clone())),
        ("it is of somebody else", notary.sign(Peer::new("elsewhere", "a").document(NOW + DAY, &[]))),
    ] {
        let house = House::new(&["notary"]).await;
        house.others.say(&notary.name, notary.document(NOW + DAY, &[]));
        house.others.notarise(&notary.name, vec![said]);
        assert!(is_unavailable(&house.keys.verify(there.event(NOW)).await), "{why}");
        house.close().await;
    }
}

#[tokio::test]
async fn of_many_servers_those_that_are_gone_are_not_waited_for() {
    let (house, notary) = (House::new(&["notary"]).await, Peer::new("notary", "n"));
    house.others.say(&notary.name, notary.document(NOW + DAY, &[]));
    let peers: Vec<Peer> = (0..30).map(|n| Peer::new(&format!("server{n}"), "a")).collect();
    let (known, others) = peers.split_at(25);
    let documents = known.iter().map(|peer| notary.sign(peer.document(NOW + DAY, &[])));
    house.others.notarise(&notary.name, documents.collect());
    for peer in others {
        house.others.say(&peer.name, peer.document(NOW + DAY, &[]));
    }
    let events = peers.iter().map(|peer| peer.event(NOW)).collect();
    for verified in house.keys.verify_all(events).await {
        verified.unwrap();
    }
    let asked = house.others.take_asked();
    assert!(asked[0].starts_with("notary about ") && asked[1] == "notary", "{asked:?}");
    assert_eq!(asked.len(), 2 + others.len(), "{asked:?}");
    house.close().await;
}

#[tokio::test]
async fn each_event_stands_or_falls_by_itself() {
    let (house, there, gone) = (House::new(&[]).await, Peer::new("there", "a"), Peer::new("gone", "a"));
    let forger = Peer::new("there", "a");
    house.others.say(&there.name, there.document(NOW + DAY, &[]));
    let events: Vec<_> = (0..300)
        .map(|n| match n % 3 {
            0 => there.event(NOW - n),
            1 => forger.event(NOW - n),
            _ => gone.event(NOW - n),
        })
        .collect();
    let ids: Vec<_> = events.iter().map(|event| event.event_id().to_owned()).collect();
    let verified = house.keys.verify_all(events).await;
    assert_eq!(verified.len(), ids.len());
    for (n, (id, verified)) in ids.iter().zip(&verified).enumerate() {
        match n % 3 {
            0 => assert_eq!(verified.as_ref().unwrap().event_id(), &**id),
            1 => assert!(is_invalid(verified), "{n}"),
            _ => assert!(is_unavailable(verified), "{n}"),
        }
    }
    assert!(house.keys.verify_all(Vec::new()).await.is_empty());
    house.close().await;
}

#[tokio::test]
async fn what_this_server_has_sent_itself_is_verified_with_its_own_keys() {
    let house = House::new(&[]).await;
    let (here, second) = (Peer::new("here", "none"), Peer::new("here", "second").key);
    let first = Arc::clone(house.own.first());
    house.keys.verify(here.event_by(&first, NOW)).await.unwrap();
    house.own.replace_later(vec![DatedKey { key: Arc::new(second), created_ts: NOW }]);
    house.clock.advance(Duration::from_hours(1));
    let second = house.own.current();
    house.keys.verify(here.event_by(&second, house.now())).await.unwrap();
    house.keys.verify(here.event_by(&first, NOW)).await.unwrap();
    assert!(house.keys.verify(here.event_by(&first, house.now())).await.is_err(), "it has expired");
    assert!(house.keys.verify(here.event(NOW)).await.is_err(), "it never had that key");
    assert_eq!(house.others.take_asked(), [""; 0], "nobody is asked");
    house.close().await;
}

/// The keys in a document, by their names, and who has signed it.
fn shown(document: &serde_json::value::RawValue) -> (Vec<String>, Vec<String>, Vec<String>) {
    let document: CanonicalJsonObject = serde_json::from_str(document.get()).unwrap();
    let names = |field: &str| -> Vec<String> {
        document
            .get(field)
            .and_then(CanonicalJsonValue::as_object)
            .into_iter()
            .flatten()
            .map(|(id, _)| id.clone())
            .collect()
    };
    (names("verify_keys"), names("old_verify_keys"), names("signatures"))
}

#[tokio::test]
async fn this_server_publishes_what_it_signs_and_has_signed_with() {
    let house = House::new(&[]).await;
    let second: SigningKey = Peer::new("here", "second").key;
    house.own.replace_later(vec![DatedKey { key: Arc::new(second), created_ts: NOW }]);
    let of = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let document = house.keys.own_document().unwrap();
    assert_eq!(shown(&document), (of(&["ed25519:first", "ed25519:second"]), of(&[]), of(&["here"])));

    house.clock.advance(Duration::from_hours(1));
    let document = house.keys.own_document().unwrap();
    assert_eq!(shown(&document), (of(&["ed25519:second"]), of(&["ed25519:first"]), of(&["here"])));
    let read = super::document::KeyDocument::read(&document, house.now()).unwrap();
    assert_eq!(read.server_name(), "here");
    let said: Value = serde_json::from_str(document.get()).unwrap();
    assert!(said["valid_until_ts"].as_i64().unwrap() > house.now() + HOUR, "it can be relied on for an hour");
    house.close().await;
}

#[tokio::test]
async fn a_notary_hands_on_what_it_knows_with_both_signatures() {
    let (house, there) = (House::new(&[]).await, Peer::new("there", "a"));
    house.others.say(&there.name, there.document(NOW + DAY, &[]));
    let all = |server: &ServerName| KeyQuery::from([(server.to_owned(), AskedKeys::default())]);
    let one = |peer: &Peer, until| {
        let asked = AskedKeys { keys: [(key_id(peer), until)].into(), until: None };
        KeyQuery::from([(peer.name.clone(), asked)])
    };
    let answer = house.keys.query(&all(&there.name)).await.unwrap();
    assert_eq!(answer.len(), 1);
    assert_eq!(shown(&answer[0]).2, ["here", "there"]);
    house.keys.query(&one(&there, None)).await.unwrap();
    assert_eq!(house.others.take_asked(), ["there"], "what is here is good enough");

    // Asked for longer than it is good, or past half of its time, its server is asked again.
    house.wait();
    house.keys.query(&one(&there, Some(NOW + 2 * DAY))).await.unwrap();
    assert_eq!(house.others.take_asked(), ["there"]);
    house.clock.advance(Duration::from_hours(13));
    house.others.silence(&there.name);
    let answer = house.keys.query(&one(&there, None)).await.unwrap();
    assert_eq!(house.others.take_asked(), ["there"]);
    assert_eq!(answer.len(), 1, "what it said last is handed on");

    assert!(house.keys.query(&all(server_name!("elsewhere"))).await.unwrap().is_empty());
    assert!(house.keys.query(&KeyQuery::new()).await.unwrap().is_empty());
    let own = house.keys.query(&all(server_name!("here"))).await.unwrap();
    assert_eq!(shown(&own[0]).2, ["here"]);
    house.close().await;
}

#[tokio::test]
async fn an_unsigned_event_asks_nobody_for_anything() {
    let house = House::new(&[]).await;
    let event = json!({
        "room_id": "!room:there", "sender": "@bob:there", "type": "m.room.message", "content": {}, "depth": 1,
        "origin_server_ts": 1, "prev_events": [], "auth_events": [], "hashes": {}, "signatures": {},
    });
    let rules = crate::ground::room_version::rules(&RoomVersionId::V11).unwrap();
    let event = crate::event::ReceivedPdu::read(&serde_json::value::to_raw_value(&event).unwrap(), rules).unwrap();
    assert!(is_invalid(&house.keys.verify(event).await));
    assert_eq!(house.others.take_asked(), [""; 0]);
    house.close().await;
}
