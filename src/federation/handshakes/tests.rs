//! What other servers send to come in, go, knock and invite, with signatures.

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, RoomId, UserId, event_id, room_id,
    serde::{Base64, base64::Standard},
    server_name,
    signatures::hash_and_sign_event,
    user_id,
};
use serde_json::{Value, json, value::to_raw_value};

use super::*;
use crate::{
    event::SigningKey,
    ground::room_version::rules,
    room::{Asking, Template},
    store::{
        self,
        server_key::{self, KeySource, NewServerKey},
    },
    testing::{World, user},
};

const SPOKEN: [RoomVersionId; 2] = [RoomVersionId::V11, RoomVersionId::V12];
/// Events are sent before, and keys are good until then, in milliseconds since the Unix epoch.
const LATER: i64 = 1_800_000_000_001;

/// Another server, whose key this one knows.
struct Peer {
    name: OwnedServerName,
    key: SigningKey,
}

impl Peer {
    async fn meet(world: &World, name: &str) -> Self {
        let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "ed25519:a").unwrap();
        let peer = Self { name: ServerName::parse(name).unwrap(), key };
        let public_key: Base64<Standard> = Base64::new(peer.key.public_key().to_vec());
        let key = NewServerKey {
            server_name: &peer.name,
            key_id: peer.key.id().as_str(),
            public_key: public_key.encode(),
            expired: false,
            valid_until: LATER,
            document: "{}",
        };
        let mut tx = world.app.db.begin().await.unwrap();
        server_key::insert(&mut tx, &[key], KeySource::Itself, 0).await.unwrap();
        tx.commit().await.unwrap();
        peer
    }

    /// Signs an event and has it sent by a request of which it is.
    fn send(&self, event: Value, version: &RoomVersionId) -> SentEvent {
        let mut object: CanonicalJsonObject = serde_json::from_value(event).unwrap();
        let rules = rules(version).unwrap();
        hash_and_sign_event(self.name.as_str(), &self.key, &mut object, &rules.redaction).unwrap();
        let pdu = Pdu::from_canonical(&object, rules).unwrap();
        SentEvent {
            room_id: pdu.room_id().to_owned(),
            event_id: pdu.event_id().to_owned(),
            json: pdu.json().to_owned(),
        }
    }

    fn complete(&self, template: &Template) -> SentEvent {
        self.send(without_origin(template), &template.version)
    }
}

fn without_origin(template: &Template) -> Value {
    let mut event: Value = serde_json::from_str(template.event.get()).unwrap();
    event.as_object_mut().unwrap().remove("origin");
    event
}

fn carol() -> &'static UserId {
    user_id!("@carol:there")
}

fn there() -> &'static ServerName {
    server_name!("there")
}

fn asking(room_id: &RoomId) -> Asking<'_> {
    Asking { room_id, user_id: carol(), from: there() }
}

fn errcode<T>(result: Result<T>) -> String {
    match result.err().expect("it is refused") {
        Error::Refused { kind, .. } => kind.errcode().to_string(),
        other => panic!("not a refusal: {other:?}"),
    }
}

fn with_json(sent: &SentEvent, change: impl FnOnce(&mut Value)) -> SentEvent {
    let mut event: Value = serde_json::from_str(sent.json.get()).unwrap();
    change(&mut event);
    SentEvent { room_id: sent.room_id.clone(), event_id: sent.event_id.clone(), json: to_raw_value(&event).unwrap() }
}

fn signers(json: &str) -> Vec<String> {
    let event: Value = serde_json::from_str(json).unwrap();
    event["signatures"].as_object().unwrap().keys().cloned().collect()
}

#[tokio::test]
async fn a_join_is_taken_with_the_signature_of_its_server_and_given_back_with_this_ones() {
    let world = World::new().await;
    let peer = Peer::meet(&world, "there").await;
    let (alice, handshakes) = (user("alice"), &world.app.handshakes);
    let room_id = world.room(&[&alice]).await;
    let template = world.rooms().join_template(asking(&room_id), &SPOKEN).await.unwrap();
    let sent = peer.complete(&template);
    let joined = handshakes.join(there(), &sent, false).await.unwrap();
    assert_eq!(joined.join.event_id(), sent.event_id, "no signature changes what it is called");
    assert_eq!(signers(joined.join.json().get()), ["localhost", "there"]);
    let stored = store::event::find(&mut world.app.db.read().await.unwrap(), &sent.event_id).await.unwrap().unwrap();
    assert_eq!(signers(stored.pdu.json().get()), ["localhost", "there"]);

    let template = world.rooms().leave_template(asking(&room_id)).await.unwrap();
    let sent = peer.complete(&template);
    assert_eq!(errcode(handshakes.join(there(), &sent, false).await), "M_INVALID_PARAM", "it is no join");
    assert_eq!(errcode(handshakes.knock(there(), &sent).await), "M_INVALID_PARAM", "it is no knock");
    handshakes.leave(there(), &sent).await.unwrap();
    world.close().await;
}

/// The joining server has no way to get this server's signature before it sends the join.
#[tokio::test]
async fn a_join_by_condition_needs_no_signature_of_this_server_before_it_comes() {
    let world = World::new().await;
    let peer = Peer::meet(&world, "there").await;
    let (alice, handshakes) = (user("alice"), &world.app.handshakes);
    let (club, room_id) = (world.room(&[&alice]).await, world.room(&[&alice]).await);
    let rule = json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": club }] });
    let rule = serde_json::from_value(rule).unwrap();
    world.send(&room_id, crate::event::Draft::state(alice.clone(), "m.room.join_rules".into(), "", rule)).await;
    let join = async |room_id: &RoomId| {
        let template = world.rooms().join_template(asking(room_id), &SPOKEN).await?;
        handshakes.join(there(), &peer.complete(&template), false).await
    };
    assert_eq!(errcode(join(&room_id).await), "M_FORBIDDEN");
    join(&club).await.unwrap();
    let joined = join(&room_id).await.unwrap();
    let content: Value = joined.join.content_as().unwrap();
    assert_eq!(content["join_authorised_via_users_server"], json!(alice));
    assert_eq!(signers(joined.join.json().get()), ["localhost", "there"]);
    world.close().await;
}

#[tokio::test]
async fn what_is_not_signed_or_not_what_was_signed_is_not_taken() {
    let world = World::new().await;
    let peer = Peer::meet(&world, "there").await;
    let eve = Peer::meet(&world, "elsewhere").await;
    let (alice, handshakes) = (user("alice"), &world.app.handshakes);
    let room_id = world.room(&[&alice]).await;
    let template = world.rooms().join_template(asking(&room_id), &SPOKEN).await.unwrap();
    let good = peer.complete(&template);
    let join = async |sent: &SentEvent| errcode(handshakes.join(there(), sent, false).await);
    let by_another = eve.complete(&template);
    assert_eq!(join(&by_another).await, "M_INVALID_PARAM", "signed by another server");
    assert_eq!(errcode(handshakes.join(&eve.name, &good, false).await), "M_INVALID_PARAM", "sent by another server");
    let unsigned = with_json(&good, |event| event["signatures"] = json!({}));
    assert_eq!(join(&unsigned).await, "M_INVALID_PARAM");
    // A redaction would take that away, so it is the same event by its identifier.
    let changed = with_json(&good, |event| event["content"]["displayname"] = json!("Eve"));
    assert_eq!(join(&changed).await, "M_INVALID_PARAM", "the hash is wrong");
    let no_number = with_json(&good, |event| event["depth"] = json!(1.5));
    assert_eq!(join(&no_number).await, "M_BAD_JSON");
    let other = SentEvent { event_id: event_id!("$another").to_owned(), ..with_json(&good, |_| {}) };
    assert_eq!(join(&other).await, "M_INVALID_PARAM", "the path has another event");
    let other_room = world.room(&[&alice]).await;
    let other = SentEvent { room_id: other_room, ..with_json(&good, |_| {}) };
    assert_eq!(join(&other).await, "M_INVALID_PARAM", "the path has another room");
    let unknown = SentEvent { room_id: room_id!("!nowhere:there").to_owned(), ..with_json(&good, |_| {}) };
    assert_eq!(join(&unknown).await, "M_NOT_FOUND");
    let members = world.rooms().get(&room_id).await.unwrap().view(crate::room::View::joined);
    assert_eq!(members, 1);
    handshakes.join(there(), &good, false).await.unwrap();
    world.close().await;
}

#[tokio::test]
async fn a_knock_is_answered_with_whole_events_the_create_event_first() {
    let world = World::new().await;
    let peer = Peer::meet(&world, "there").await;
    let alice = user("alice");
    let room_id = world.room(&[&alice]).await;
    let rule = serde_json::from_value(json!({ "join_rule": "knock" })).unwrap();
    world.send(&room_id, crate::event::Draft::state(alice, "m.room.join_rules".into(), "", rule)).await;
    let template = world.rooms().knock_template(asking(&room_id), &SPOKEN).await.unwrap();
    let shown = world.app.handshakes.knock(there(), &peer.complete(&template)).await.unwrap();
    assert_eq!(shown[0].kind().to_string(), "m.room.create");
    assert!(shown.iter().all(|pdu| pdu.room_id() == room_id && !signers(pdu.json().get()).is_empty()));
    world.close().await;
}

/// Somebody else's room, and carol's invitation to it.
struct Outside {
    create: SentEvent,
    invite: Value,
    version: RoomVersionId,
}

impl Outside {
    fn new(peer: &Peer, version: RoomVersionId) -> Self {
        let is_nameless = version == RoomVersionId::V12;
        let event = |kind: &str, key: &str, content: Value| {
            json!({
                "type": kind,
                "state_key": key,
                "sender": carol(),
                "content": content,
                "origin_server_ts": 1,
                "depth": 1,
                "prev_events": [],
                "auth_events": [],
            })
        };
        let mut create = event("m.room.create", "", json!({ "room_version": version, "creator": carol() }));
        if !is_nameless {
            create["room_id"] = json!("!room:there");
        }
        let create = peer.send(create, &version);
        let bob = user("bob");
        let mut invite = event("m.room.member", bob.as_str(), json!({ "membership": "invite" }));
        invite["room_id"] = json!(create.room_id);
        Self { create, invite, version }
    }

    fn sent(&self, peer: &Peer, change: impl FnOnce(&mut Value), room_state: Vec<Box<RawValue>>) -> SentInvite {
        let mut invite = self.invite.clone();
        change(&mut invite);
        SentInvite { version: self.version.clone(), event: peer.send(invite, &self.version), room_state }
    }

    /// Another event of the room.
    fn name(&self, peer: &Peer) -> SentEvent {
        let mut event = self.invite.clone();
        event["type"] = json!("m.room.name");
        event["state_key"] = json!("");
        event["content"] = json!({ "name": "Outside" });
        peer.send(event, &self.version)
    }
}

async fn invited_world() -> (World, Peer) {
    let world = World::new().await;
    let peer = Peer::meet(&world, "there").await;
    let mut tx = world.app.db.begin().await.unwrap();
    store::account::insert(&mut tx, &user("bob"), None, false, 0).await.unwrap();
    tx.commit().await.unwrap();
    (world, peer)
}

/// The types of what bob is shown of a room.
async fn shown_to_bob(world: &World, room_id: &RoomId) -> Vec<String> {
    let mut conn = world.app.db.read().await.unwrap();
    let known = store::outside_membership::list(&mut conn, &user("bob"), &[room_id]).await.unwrap();
    let events = known.into_iter().flat_map(|(_, membership)| membership.stripped_state.clone());
    let kind = |json: &str| serde_json::from_str::<Value>(json).unwrap()["type"].as_str().unwrap().to_owned();
    events.map(|event| kind(event.json().get())).collect()
}

#[tokio::test]
async fn an_invitation_is_signed_and_shown_with_what_came_along() {
    let (world, peer) = invited_world().await;
    for version in SPOKEN {
        let outside = Outside::new(&peer, version);
        let room_state = vec![outside.create.json.clone(), outside.name(&peer).json];
        let sent = outside.sent(&peer, |_| {}, room_state);
        let event_id = sent.event.event_id.clone();
        let signed = world.app.handshakes.invite(there(), sent).await.unwrap();
        assert_eq!(signed.event_id(), event_id);
        assert_eq!(signers(signed.json().get()), ["localhost", "there"]);
        let shown = shown_to_bob(&world, &outside.create.room_id).await;
        assert_eq!(shown, ["m.room.create", "m.room.name", "m.room.member"]);
    }
    world.close().await;
}

/// CVE-2024-52815 and its kind.
#[tokio::test]
async fn what_comes_along_with_an_invitation_is_believed_as_far_as_it_is_valid() {
    let (world, peer) = invited_world().await;
    let old = Outside::new(&peer, RoomVersionId::V11);
    let stripped = |content: Value| {
        let event = json!({ "type": "m.room.topic", "state_key": "", "sender": carol(), "content": content });
        to_raw_value(&event).unwrap()
    };
    let forged = with_json(&old.name(&peer), |event| event["sender"] = json!("@alice:localhost"));
    let of_another =
        Outside { invite: with_room(&old.invite, "!other:there"), ..Outside::new(&peer, RoomVersionId::V11) };
    let room_state = vec![
        forged.json.clone(),
        of_another.name(&peer).json,
        stripped(json!({ "topic": "T" })),
        stripped(json!("no content")),
        to_raw_value(&json!(7)).unwrap(),
    ];
    world.app.handshakes.invite(there(), old.sent(&peer, |_| {}, room_state)).await.unwrap();
    assert_eq!(shown_to_bob(&world, &old.create.room_id).await, ["m.room.topic", "m.room.member"]);

    let new = Outside::new(&peer, RoomVersionId::V12);
    let name = new.name(&peer);
    let forged = with_json(&name, |event| event["sender"] = json!("@alice:localhost"));
    let create = || new.create.json.clone();
    for (what, room_state) in [
        ("nothing", Vec::new()),
        ("no create event", vec![name.json.clone()]),
        ("a stripped event", vec![create(), stripped(json!({ "topic": "T" }))]),
        ("an event that nobody has signed", vec![create(), forged.json.clone()]),
        ("an event of another room", vec![create(), Outside::new(&peer, RoomVersionId::V12).twin(&peer)]),
        ("no event", vec![create(), to_raw_value(&json!(7)).unwrap()]),
    ] {
        let refused = world.app.handshakes.invite(there(), new.sent(&peer, |_| {}, room_state)).await;
        assert_eq!(errcode(refused), "M_INVALID_PARAM", "{what}");
    }
    assert!(shown_to_bob(&world, &new.create.room_id).await.is_empty());
    world.close().await;
}

fn with_room(event: &Value, room_id: &str) -> Value {
    let mut event = event.clone();
    event["room_id"] = json!(room_id);
    event
}

impl Outside {
    /// An event of a room that was made in another moment.
    fn twin(&self, peer: &Peer) -> Box<RawValue> {
        let mut create: Value = serde_json::from_str(self.create.json.get()).unwrap();
        create["origin_server_ts"] = json!(2);
        let object = create.as_object_mut().unwrap();
        object.remove("signatures");
        object.remove("hashes");
        peer.send(create, &self.version).json
    }
}

#[tokio::test]
async fn nothing_is_signed_that_is_no_invitation_of_a_user_of_this_server() {
    let (world, peer) = invited_world().await;
    let outside = Outside::new(&peer, RoomVersionId::V11);
    let handshakes = &world.app.handshakes;
    let invite = async |sent: SentInvite| errcode(handshakes.invite(there(), sent).await);
    for (what, change) in [
        ("a ban", json!({ "content": { "membership": "ban" } })),
        ("a message", json!({ "type": "m.room.message" })),
        ("a user of another server", json!({ "state_key": "@dave:elsewhere" })),
        ("no user", json!({ "state_key": "bob" })),
        ("a sender of another server", json!({ "sender": "@eve:elsewhere" })),
        ("a sender of this server", json!({ "sender": "@alice:localhost" })),
    ] {
        let change = |event: &mut Value| {
            event.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        };
        assert_eq!(invite(outside.sent(&peer, change, Vec::new())).await, "M_INVALID_PARAM", "{what}");
    }
    let nobody = |event: &mut Value| event["state_key"] = json!("@nobody:localhost");
    assert_eq!(invite(outside.sent(&peer, nobody, Vec::new())).await, "M_NOT_FOUND");
    let sent = outside.sent(&peer, |_| {}, Vec::new());
    let other = SentEvent { room_id: room_id!("!other:there").to_owned(), ..with_json(&sent.event, |_| {}) };
    let of_another = SentInvite { event: other, version: RoomVersionId::V11, room_state: Vec::new() };
    assert_eq!(invite(of_another).await, "M_INVALID_PARAM", "the path has another room");
    let unspoken = SentInvite { version: RoomVersionId::V5, ..sent };
    assert_eq!(invite(unspoken).await, "M_INCOMPATIBLE_ROOM_VERSION");
    assert!(shown_to_bob(&world, &outside.create.room_id).await.is_empty());
    world.close().await;
}

#[tokio::test]
async fn an_invitation_is_taken_back_by_whose_it_is() {
    let (world, peer) = invited_world().await;
    let eve = Peer::meet(&world, "elsewhere").await;
    let outside = Outside::new(&peer, RoomVersionId::V11);
    let room_id = outside.create.room_id.clone();
    let handshakes = &world.app.handshakes;
    handshakes.invite(there(), outside.sent(&peer, |_| {}, Vec::new())).await.unwrap();
    let ending = |by: &Peer, sender: &str, depth: u32| {
        let mut event = outside.invite.clone();
        event["content"] = json!({ "membership": "leave" });
        event["sender"] = json!(sender);
        event["depth"] = json!(depth);
        vec![by.send(event, &RoomVersionId::V11).json]
    };
    for (what, from, events) in [
        ("of a stranger", &eve.name, ending(&eve, "@eve:elsewhere", 2)),
        ("signed by another server", &peer.name, ending(&eve, carol().as_str(), 2)),
        ("from before the invitation", &peer.name, ending(&peer, carol().as_str(), 1)),
        ("what is nothing", &peer.name, vec![to_raw_value(&json!([7])).unwrap()]),
    ] {
        handshakes.take_endings(from, &events).await.unwrap();
        assert!(!shown_to_bob(&world, &room_id).await.is_empty(), "{what}");
    }
    handshakes.take_endings(there(), &ending(&peer, carol().as_str(), 2)).await.unwrap();
    assert!(shown_to_bob(&world, &room_id).await.is_empty());
    world.close().await;
}

#[tokio::test]
async fn an_invitation_to_a_room_that_this_server_is_in_is_signed_and_comes_again() {
    let (world, peer) = invited_world().await;
    let alice = user("alice");
    let room_id = world.room(&[&alice]).await;
    let outside = Outside::new(&peer, RoomVersionId::V11);
    let sent = outside.sent(&peer, |event| event["room_id"] = json!(room_id), Vec::new());
    let signed = world.app.handshakes.invite(there(), sent).await.unwrap();
    assert_eq!(signers(signed.json().get()), ["localhost", "there"]);
    assert!(shown_to_bob(&world, &room_id).await.is_empty());
    let state = world.rooms().get(&room_id).await.unwrap().state();
    assert!(state.member(&user("bob")).is_none(), "carol is not even in the room: its rules are asked when it comes");
    world.close().await;
}

#[test]
fn signatures_change_nothing_else() {
    let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "ed25519:a").unwrap();
    let event = json!({
        "room_id": "!room:there",
        "type": "m.room.member",
        "state_key": carol(),
        "sender": carol(),
        "content": { "membership": "join", "displayname": "Carol" },
        "origin_server_ts": 1,
        "depth": 1,
        "prev_events": [],
        "auth_events": [],
        "org.example": [1],
    });
    let mut object: CanonicalJsonObject = serde_json::from_value(event).unwrap();
    let rules = rules(&RoomVersionId::V11).unwrap();
    hash_and_sign_event("there", &key, &mut object, &rules.redaction).unwrap();
    let pdu = Pdu::from_canonical(&object, rules).unwrap();
    let signed = pdu.countersigned(server_name!("here"), &key).unwrap();
    assert_eq!(signed.event_id(), pdu.event_id());
    let mut other = signed.to_object().unwrap();
    let Some(CanonicalJsonValue::Object(signatures)) = other.remove("signatures") else { panic!() };
    assert_eq!(signatures.keys().collect::<Vec<_>>(), ["here", "there"]);
    object.remove("signatures");
    assert_eq!(other, object);
    // Whoever hashes what they sign anew gets the same.
    let again = Pdu::from_canonical(&signed.to_object().unwrap(), rules).unwrap();
    assert_eq!(again.event_id(), pdu.event_id());
}
