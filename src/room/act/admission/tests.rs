//! Users of another server, `there`, come into rooms of this one, go, knock, and invite.

use ruma::{
    CanonicalJsonObject, OwnedRoomId, OwnedUserId, RoomVersionId, room_id, server_name,
    signatures::{hash_and_sign_event, sign_json},
    user_id,
};
use serde_json::{Value, json, value::to_raw_value};

use super::*;
use crate::{
    event::{
        SigningKey,
        fact::{AccountData, Fact, INVITE_PERMISSION, OutsideEvent, OutsideState, Write},
    },
    ground::room_version::rules,
    room::{
        Asking, Offer, OfferedKey, Preset, Template,
        graph::lanes::Lanes,
        testing::pdu_of,
        world::{RoomWorld, new_room, user},
    },
};

const SPOKEN: [RoomVersionId; 3] = [RoomVersionId::V6, RoomVersionId::V11, RoomVersionId::V12];

fn there() -> &'static ServerName {
    server_name!("there")
}

fn carol() -> &'static UserId {
    user_id!("@carol:there")
}

fn errcode<T>(result: Result<T>) -> String {
    match result.err().expect("it is refused") {
        Error::Refused { kind, .. } => kind.errcode().to_string(),
        other => panic!("not a refusal: {other:?}"),
    }
}

fn asking(room_id: &RoomId) -> Asking<'_> {
    Asking { room_id, user_id: carol(), from: there() }
}

fn key() -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "ed25519:theirs").unwrap()
}

/// What the other server makes of a template.
fn complete(template: &Template, change: impl FnOnce(&mut CanonicalJsonObject)) -> Pdu {
    let mut event: CanonicalJsonObject = serde_json::from_str(template.event.get()).unwrap();
    event.remove("origin");
    change(&mut event);
    let rules = rules(&template.version).unwrap();
    hash_and_sign_event("there", &key(), &mut event, &rules.redaction).unwrap();
    Pdu::from_canonical(&event, rules).unwrap()
}

fn as_it_is(_: &mut CanonicalJsonObject) {}

fn object(value: Value) -> CanonicalJsonObject {
    serde_json::from_value(value).unwrap()
}

/// Who lets somebody in, as a template says.
fn authorised_via(template: &Template) -> Value {
    let event: Value = serde_json::from_str(template.event.get()).unwrap();
    event["content"]["join_authorised_via_users_server"].clone()
}

fn kinds(pdus: &[Arc<Pdu>]) -> BTreeSet<String> {
    pdus.iter().map(|pdu| format!("{}|{}", pdu.kind(), pdu.state_key().unwrap_or_default())).collect()
}

impl RoomWorld {
    /// Carol comes in, as her server has it.
    async fn carol_joins(&self, room_id: &RoomId) -> Result<Joined> {
        let template = self.rooms.join_template(asking(room_id), &SPOKEN).await?;
        let room = self.rooms.get_for_handshake(room_id, there()).await?;
        let join = self.rooms.vouch_for(&room, &complete(&template, as_it_is)).await?;
        self.rooms.take_join(&room, join, there(), false).await
    }

    async fn membership_of(&self, room_id: &RoomId, user_id: &UserId) -> MembershipState {
        self.rooms.get(room_id).await.unwrap().state().membership(user_id)
    }

    /// A room of alice with one piece of state beside what [`RoomWorld::create_room`] has.
    async fn room_with(&self, version: RoomVersionId, kind: &str, content: Value) -> OwnedRoomId {
        let room_id = self.create_room(version, "shared").await;
        self.set(&room_id, "alice", kind, "", content).await;
        room_id
    }

    async fn account(&self, user_id: &UserId) {
        let mut tx = self.db.begin().await.unwrap();
        store::account::insert(&mut tx, user_id, None, false, 0).await.unwrap();
        tx.commit().await.unwrap();
    }
}

fn restricted(rooms: &[&RoomId]) -> Value {
    let allow: Vec<Value> = rooms.iter().map(|room| json!({ "type": "m.room_membership", "room_id": room })).collect();
    json!({ "join_rule": "restricted", "allow": allow })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_is_the_join_and_the_answer_the_room_before_it() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        for version in SPOKEN {
            let room_id = world.create_room(version.clone(), "shared").await;
            world.member(&room_id, "bob", "bob", "join").await;
            let template = world.rooms.join_template(asking(&room_id), &SPOKEN).await.unwrap();
            let event: Value = serde_json::from_str(template.event.get()).unwrap();
            assert_eq!(template.version, version);
            for (field, expected) in [
                ("type", json!("m.room.member")),
                ("room_id", json!(room_id)),
                ("sender", json!(carol())),
                ("state_key", json!(carol())),
                ("content", json!({ "membership": "join" })),
                ("origin", json!("here")),
            ] {
                assert_eq!(event[field], expected, "{field}");
            }
            assert!(event.get("hashes").is_none() && event.get("signatures").is_none());

            let joined = world.carol_joins(&room_id).await.unwrap();
            let expected = [
                "m.room.create|",
                "m.room.history_visibility|",
                "m.room.join_rules|",
                "m.room.member|@alice:here",
                "m.room.member|@bob:here",
                "m.room.power_levels|",
            ];
            assert_eq!(kinds(&joined.state), expected.map(String::from).into(), "before the join");
            // Since room version 12 no event cites the create event.
            let cites_create = joined.auth_chain.iter().any(|pdu| pdu.kind().to_string() == "m.room.create");
            assert_eq!(cites_create, version != RoomVersionId::V12);
            assert_eq!(joined.servers, [server_name!("here").to_owned()].into());
            let signatures = joined.join.to_object().unwrap()["signatures"].clone();
            let signatures: Vec<_> = signatures.as_object().unwrap().keys().cloned().collect();
            assert_eq!(signatures, ["here", "there"]);
            assert_eq!(world.membership_of(&room_id, carol()).await, MembershipState::Join);
            let servers = world.rooms.get(&room_id).await.unwrap().view(|view| view.servers().len());
            assert_eq!(servers, 2);
        }
        world.close().await;
    }
}

/// What a server asks for in vain, and which answer it gets.
#[tokio::test]
async fn who_may_not_come_in_gets_no_template() {
    let world = RoomWorld::new().await;
    let room_id = world.create_room(RoomVersionId::V11, "shared").await;
    let of_another = Asking { user_id: user_id!("@eve:elsewhere"), ..asking(&room_id) };
    assert_eq!(errcode(world.rooms.join_template(of_another, &SPOKEN).await), "M_FORBIDDEN");
    let unknown = asking(room_id!("!nowhere:here"));
    assert_eq!(errcode(world.rooms.join_template(unknown, &SPOKEN).await), "M_NOT_FOUND");
    assert_eq!(errcode(world.rooms.leave_template(unknown).await), "M_NOT_FOUND");
    let spoken = [RoomVersionId::V1, RoomVersionId::V12];
    let refused = world.rooms.join_template(asking(&room_id), &spoken).await;
    assert_eq!(errcode(refused), "M_INCOMPATIBLE_ROOM_VERSION");

    // A room that was left has gone on elsewhere.
    let left = world.create_room(RoomVersionId::V11, "shared").await;
    world.carol_joins(&left).await.unwrap();
    world.rooms.leave(&left, &user("alice"), None).await.unwrap();
    assert_eq!(errcode(world.rooms.join_template(asking(&left), &SPOKEN).await), "M_NOT_FOUND");

    let private = world.rooms.create(new_room("alice", Preset::PrivateChat)).await.unwrap();
    assert_eq!(errcode(world.rooms.join_template(asking(&private), &SPOKEN).await), "M_FORBIDDEN");
    world.set(&room_id, "alice", "m.room.member", carol().as_str(), json!({ "membership": "ban" })).await;
    assert_eq!(errcode(world.rooms.join_template(asking(&room_id), &SPOKEN).await), "M_FORBIDDEN");
    assert_eq!(errcode(world.rooms.leave_template(asking(&room_id)).await), "M_FORBIDDEN");
    world.close().await;
}

#[tokio::test]
async fn a_server_that_the_room_keeps_out_does_nothing_in_it() {
    let world = RoomWorld::new().await;
    let acl = json!({ "allow": ["*"], "deny": ["THERE"] });
    let room_id = world.create_room(RoomVersionId::V11, "shared").await;
    world.rooms.join_template(asking(&room_id), &SPOKEN).await.unwrap();
    world.set(&room_id, "alice", "m.room.server_acl", "", acl).await;
    assert_eq!(errcode(world.rooms.join_template(asking(&room_id), &SPOKEN).await), "M_FORBIDDEN");
    assert_eq!(errcode(world.rooms.leave_template(asking(&room_id)).await), "M_FORBIDDEN");
    assert_eq!(errcode(world.rooms.knock_template(asking(&room_id), &SPOKEN).await), "M_FORBIDDEN");
    // With the template that it got before it can't do anything, either.
    assert_eq!(errcode(world.rooms.get_for_handshake(&room_id, there()).await.map(drop)), "M_FORBIDDEN");
    world.rooms.get_for_handshake(&room_id, server_name!("elsewhere")).await.map(drop).unwrap();
    world.close().await;
}

/// CVE-2020-26257 and its kind: each field that a request names is held against the event.
#[test]
fn an_event_is_only_what_its_request_may_carry() {
    let event = |fields: Value| {
        let mut own = json!({
            "type": "m.room.member",
            "sender": carol(),
            "state_key": carol(),
            "content": { "membership": "join" },
        });
        own.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        pdu_of(&own)
    };
    let check = |pdu: &Pdu, membership: MembershipState| {
        let handshake =
            Handshake { room_id: room_id!("!room:here"), event_id: pdu.event_id(), membership, from: there() };
        handshake.check(pdu)
    };
    check(&event(json!({})), MembershipState::Join).unwrap();
    let invited = event(json!({ "content": { "membership": "invite" }, "state_key": "@bob:here" }));
    check(&invited, MembershipState::Invite).unwrap();
    for (what, fields) in [
        ("of another room", json!({ "room_id": "!other:here" })),
        ("no membership", json!({ "type": "m.room.power_levels" })),
        ("another membership", json!({ "content": { "membership": "ban" } })),
        ("none", json!({ "content": {} })),
        ("of another type", json!({ "content": { "membership": ["join"] } })),
        ("somebody else's", json!({ "state_key": "@dave:there" })),
        ("an event of another server's user", json!({ "sender": "@eve:elsewhere", "state_key": "@eve:elsewhere" })),
        ("in the name of a user of this server", json!({ "sender": "@alice:here", "state_key": "@alice:here" })),
    ] {
        assert_eq!(errcode(check(&event(fields), MembershipState::Join)), "M_INVALID_PARAM", "{what}");
    }
    let pdu = event(json!({}));
    let event_id = ruma::event_id!("$another");
    let other =
        Handshake { room_id: room_id!("!room:here"), event_id, membership: MembershipState::Join, from: there() };
    assert_eq!(errcode(other.check(&pdu)), "M_INVALID_PARAM", "another event than the path has");
    let handshake = Handshake { event_id: pdu.event_id(), room_id: room_id!("!other:here"), ..other };
    assert_eq!(errcode(handshake.check(&pdu)), "M_INVALID_PARAM", "another room than the path has");
}

#[tokio::test]
async fn a_room_with_conditions_is_joined_by_who_meets_one_and_is_vouched_for() {
    let world = RoomWorld::new().await;
    let club = world.create_room(RoomVersionId::V11, "shared").await;
    let room_id = world.room_with(RoomVersionId::V11, "m.room.join_rules", restricted(&[&club])).await;
    let template = || world.rooms.join_template(asking(&room_id), &SPOKEN);
    assert_eq!(errcode(template().await), "M_FORBIDDEN", "carol is not in the club");
    let elsewhere = room_id!("!unheard:elsewhere");
    let unknown = world.room_with(RoomVersionId::V11, "m.room.join_rules", restricted(&[elsewhere])).await;
    let refused = world.rooms.join_template(asking(&unknown), &SPOKEN).await;
    assert_eq!(errcode(refused), "M_UNABLE_TO_AUTHORISE_JOIN");

    world.carol_joins(&club).await.unwrap();
    let given = template().await.unwrap();
    assert_eq!(authorised_via(&given), json!(user("alice")));
    world.carol_joins(&room_id).await.unwrap();
    assert_eq!(world.membership_of(&room_id, carol()).await, MembershipState::Join);
    // Who is in the room already needs nobody.
    assert_eq!(authorised_via(&template().await.unwrap()), Value::Null);
    world.close().await;
}

#[tokio::test]
async fn a_room_with_conditions_is_not_joined_where_nobody_here_may_invite() {
    let world = RoomWorld::new().await;
    let club = world.create_room(RoomVersionId::V11, "shared").await;
    world.carol_joins(&club).await.unwrap();
    let room_id = world.room_with(RoomVersionId::V11, "m.room.join_rules", restricted(&[&club])).await;
    world.rooms.join(&club, &user("bob"), None).await.unwrap();
    world.rooms.join(&room_id, &user("bob"), None).await.unwrap();
    let levels = json!({ "users": { user("alice").as_str(): 100 }, "invite": 50 });
    world.set(&room_id, "alice", "m.room.power_levels", "", levels).await;
    let vouched = world.rooms.join_template(asking(&room_id), &SPOKEN).await.unwrap();
    // The authorising server leaves.
    world.rooms.leave(&room_id, &user("alice"), None).await.unwrap();
    let refused = world.rooms.join_template(asking(&room_id), &SPOKEN).await;
    assert_eq!(errcode(refused), "M_UNABLE_TO_GRANT_JOIN");
    let room = world.rooms.get_for_handshake(&room_id, there()).await.unwrap();
    let late = complete(&vouched, as_it_is);
    assert_eq!(errcode(world.rooms.vouch_for(&room, &late).await), "M_UNABLE_TO_GRANT_JOIN");
    world.close().await;
}

/// Whoever is in a room when this server leaves it may have gone since.
#[tokio::test]
async fn a_room_that_was_left_says_nothing_of_who_is_in_it() {
    let world = RoomWorld::new().await;
    let club = world.create_room(RoomVersionId::V11, "shared").await;
    let room_id = world.room_with(RoomVersionId::V11, "m.room.join_rules", restricted(&[&club])).await;
    world.carol_joins(&club).await.unwrap();
    world.rooms.leave(&club, &user("alice"), None).await.unwrap();
    let refused = world.rooms.join_template(asking(&room_id), &SPOKEN).await;
    assert_eq!(errcode(refused), "M_UNABLE_TO_AUTHORISE_JOIN");
    world.close().await;
}

/// A server need not ask for a template: what it says of who lets its user in is not believed.
#[tokio::test]
async fn nobody_is_vouched_for_who_meets_no_condition() {
    let world = RoomWorld::new().await;
    let club = world.create_room(RoomVersionId::V11, "shared").await;
    let open = world.create_room(RoomVersionId::V11, "shared").await;
    let room_id = world.room_with(RoomVersionId::V11, "m.room.join_rules", restricted(&[&club])).await;
    let template = world.rooms.join_template(asking(&open), &SPOKEN).await.unwrap();
    let forged = complete(&template, |event| {
        event.insert("room_id".to_owned(), room_id.as_str().into());
        let content = json!({ "membership": "join", "join_authorised_via_users_server": user("alice") });
        event.insert("content".to_owned(), ruma::CanonicalJsonValue::Object(object(content)));
    });
    let room = world.rooms.get_for_handshake(&room_id, there()).await.unwrap();
    assert_eq!(errcode(world.rooms.vouch_for(&room, &forged).await), "M_FORBIDDEN");
    world.close().await;
}

#[tokio::test]
async fn members_may_be_omitted_but_for_those_who_name_the_room() {
    let world = RoomWorld::new().await;
    let room_id = world.create_room(RoomVersionId::V11, "shared").await;
    for number in 0..9 {
        let name = format!("member{number}");
        world.member(&room_id, &name, &name, "join").await;
    }
    let take = async |name: Option<&str>| {
        if let Some(name) = name {
            world.set(&room_id, "alice", "m.room.name", "", json!({ "name": name })).await;
        }
        let template = world.rooms.join_template(asking(&room_id), &SPOKEN).await.unwrap();
        let room = world.rooms.get_for_handshake(&room_id, there()).await.unwrap();
        let join = world.rooms.vouch_for(&room, &complete(&template, as_it_is)).await.unwrap();
        world.rooms.take_join(&room, join, there(), true).await.unwrap()
    };
    let members =
        |joined: &Joined| kinds(&joined.state).iter().filter(|kind| kind.starts_with("m.room.member|")).count();
    let nameless = take(None).await;
    assert!(nameless.omits_members);
    assert_eq!(members(&nameless), 5);
    let told: HashSet<&EventId> = nameless.state.iter().map(|pdu| pdu.event_id()).collect();
    assert!(nameless.auth_chain.iter().all(|pdu| !told.contains(pdu.event_id())), "nothing is told twice");
    let named = take(Some("A room")).await;
    assert_eq!(members(&named), 0);
    assert_eq!(named.servers.len(), 2, "of a change to a membership: carol is in already");
    world.close().await;
}

#[tokio::test]
async fn a_join_that_is_over_lets_nobody_in_again() {
    let world = RoomWorld::new().await;
    let room_id = world.create_room(RoomVersionId::V11, "shared").await;
    let template = world.rooms.join_template(asking(&room_id), &SPOKEN).await.unwrap();
    let room = world.rooms.get_for_handshake(&room_id, there()).await.unwrap();
    let join = world.rooms.vouch_for(&room, &complete(&template, as_it_is)).await.unwrap();
    let first = world.rooms.take_join(&room, join.clone(), there(), false).await.unwrap();
    // The answer was lost.
    let again = world.rooms.take_join(&room, join.clone(), there(), false).await.unwrap();
    assert_eq!(kinds(&first.state), kinds(&again.state));
    world.rooms.kick(&room_id, &user("alice"), carol(), None).await.unwrap();
    assert_eq!(errcode(world.rooms.take_join(&room, join, there(), false).await), "M_FORBIDDEN");

    let banned = world.rooms.join_template(asking(&room_id), &SPOKEN).await.unwrap();
    world.rooms.ban(&room_id, &user("alice"), carol(), None).await.unwrap();
    let join = world.rooms.vouch_for(&room, &complete(&banned, as_it_is)).await.unwrap();
    assert_eq!(errcode(world.rooms.take_join(&room, join, there(), false).await), "M_FORBIDDEN", "soft-failed");
    world.close().await;
}

#[tokio::test]
async fn an_event_that_follows_what_nobody_knows_is_not_taken() {
    let world = RoomWorld::new().await;
    let room_id = world.create_room(RoomVersionId::V11, "shared").await;
    let template = world.rooms.join_template(asking(&room_id), &SPOKEN).await.unwrap();
    let stray = complete(&template, |event| {
        event.insert("prev_events".to_owned(), ruma::CanonicalJsonValue::Array(vec!["$unheard".into()]));
    });
    let room = world.rooms.get_for_handshake(&room_id, there()).await.unwrap();
    assert_eq!(errcode(world.rooms.take_from(&room, stray, there()).await), "M_INVALID_PARAM");
    world.close().await;
}

#[tokio::test]
async fn knocks_are_for_rooms_that_know_them_and_are_taken_back() {
    let world = RoomWorld::new().await;
    let knocking = json!({ "join_rule": "knock" });
    let room_id = world.room_with(RoomVersionId::V11, "m.room.join_rules", knocking).await;
    let open = world.create_room(RoomVersionId::V11, "shared").await;
    let old = world.create_room(RoomVersionId::V6, "shared").await;
    for room_id in [&open, &old] {
        assert_eq!(errcode(world.rooms.knock_template(asking(room_id), &SPOKEN).await), "M_FORBIDDEN");
    }
    let refused = world.rooms.knock_template(asking(&room_id), &[RoomVersionId::V7]).await;
    assert_eq!(errcode(refused), "M_INCOMPATIBLE_ROOM_VERSION");
    assert_eq!(errcode(world.rooms.join_template(asking(&room_id), &SPOKEN).await), "M_FORBIDDEN");
    assert_eq!(errcode(world.rooms.leave_template(asking(&room_id)).await), "M_FORBIDDEN", "there is nothing to leave");

    let template = world.rooms.knock_template(asking(&room_id), &SPOKEN).await.unwrap();
    let room = world.rooms.get_for_handshake(&room_id, there()).await.unwrap();
    world.rooms.take_from(&room, complete(&template, as_it_is), there()).await.unwrap();
    assert_eq!(world.membership_of(&room_id, carol()).await, MembershipState::Knock);
    let shown: Vec<String> = room.state().introduction().iter().map(|pdu| pdu.kind().to_string()).collect();
    assert_eq!(shown, ["m.room.create", "m.room.join_rules"]);

    let template = world.rooms.leave_template(asking(&room_id)).await.unwrap();
    world.rooms.take_from(&room, complete(&template, as_it_is), there()).await.unwrap();
    assert_eq!(world.membership_of(&room_id, carol()).await, MembershipState::Leave);
    world.close().await;
}

/// An invitation by carol, as her server sends it.
fn invitation(room_id: &RoomId, version: RoomVersionId, invitee: &UserId) -> FromOutside {
    let event = json!({
        "room_id": room_id,
        "type": "m.room.member",
        "sender": carol(),
        "state_key": invitee,
        "content": { "membership": "invite" },
        "origin_server_ts": 1,
        "depth": 9,
        "prev_events": ["$before"],
        "auth_events": ["$create"],
    });
    let rules = rules(&version).unwrap();
    let mut event = object(event);
    hash_and_sign_event("there", &key(), &mut event, &rules.redaction).unwrap();
    let pdu = Arc::new(Pdu::from_canonical(&event, rules).unwrap());
    FromOutside {
        user_id: invitee.to_owned(),
        room_id: room_id.to_owned(),
        sender: carol().to_owned(),
        event: Some(OutsideEvent { version, pdu }),
        room_state: Vec::new(),
    }
}

#[tokio::test]
async fn an_invitation_is_kept_of_rooms_outside_alone() {
    let world = RoomWorld::new().await;
    let (bob, dave): (OwnedUserId, OwnedUserId) = (user("bob"), user("dave"));
    world.account(&bob).await;
    world.account(&dave).await;
    let blocks = AccountData {
        user_id: dave.clone(),
        room_id: None,
        kind: INVITE_PERMISSION.to_owned(),
        content: to_raw_value(&json!({ "default_action": "block" })).unwrap().into(),
    };
    world.rooms.log().append(Write::fact(Fact::AccountData(blocks.into()))).await.unwrap();
    let outside = room_id!("!room:there");
    let receive = |invite: FromOutside| world.rooms.receive_invite(invite, there());
    receive(invitation(outside, RoomVersionId::V11, &bob)).await.unwrap();
    let found = async |room_id: &RoomId| {
        let mut conn = world.db.read().await.unwrap();
        store::outside_membership::find(&mut conn, &bob, room_id).await.unwrap().map(|found| found.state)
    };
    assert_eq!(found(outside).await, Some(OutsideState::Invited));
    assert_eq!(errcode(receive(invitation(outside, RoomVersionId::V11, &dave)).await), "M_INVITE_BLOCKED");
    assert_eq!(errcode(receive(invitation(outside, RoomVersionId::V11, &user("nobody"))).await), "M_NOT_FOUND");

    // In a room that this server is in, the room's own history says it, a moment later.
    let room_id = world.create_room(RoomVersionId::V11, "shared").await;
    let before = world.rooms.get(&room_id).await.unwrap().view(|view| view.head.head);
    receive(invitation(&room_id, RoomVersionId::V11, &bob)).await.unwrap();
    assert_eq!(found(&room_id).await, None);
    assert_eq!(world.rooms.get(&room_id).await.unwrap().view(|view| view.head.head), before);
    assert_eq!(errcode(receive(invitation(&room_id, RoomVersionId::V11, &dave)).await), "M_INVITE_BLOCKED");
    assert_eq!(errcode(receive(invitation(&room_id, RoomVersionId::V11, &user("nobody"))).await), "M_NOT_FOUND");
    assert_eq!(errcode(receive(invitation(&room_id, RoomVersionId::V10, &bob)).await), "M_INVALID_PARAM");
    let acl = json!({ "allow": ["*"], "deny": ["there"] });
    world.set(&room_id, "alice", "m.room.server_acl", "", acl).await;
    assert_eq!(errcode(receive(invitation(&room_id, RoomVersionId::V11, &bob)).await), "M_FORBIDDEN");
    world.close().await;
}

/// Third-party invites: signature, token and revocation.
#[tokio::test]
async fn an_offered_invitation_is_redeemed_once_and_for_whom_it_was_signed() {
    let world = RoomWorld::new().await;
    let (room_id, identity) = (world.create_room(RoomVersionId::V11, "shared").await, key());
    let public_key = ruma::serde::Base64::<ruma::serde::base64::Standard>::new(identity.public_key().to_vec()).encode();
    let offer = |token: &str, key: &str| Offer {
        token: token.to_owned(),
        display_name: "c...@there".to_owned(),
        keys: vec![OfferedKey { public_key: key.to_owned(), key_validity_url: None }],
    };
    world.rooms.offer(&room_id, &user("alice"), &offer("token", &public_key)).await.unwrap();
    let signed = |token: &str| {
        let mut signed = object(json!({ "mxid": carol(), "token": token }));
        sign_json("id.example.org", &identity, &mut signed).unwrap();
        signed
    };
    let find = async |signed: &CanonicalJsonObject| world.rooms.find_signing_key(&room_id, signed).await.map(drop);
    find(&signed("token")).await.unwrap();
    assert_eq!(errcode(find(&signed("another")).await), "M_FORBIDDEN", "nobody has offered that");
    let mut changed = signed("token");
    changed.insert("mxid".to_owned(), "@eve:elsewhere".into());
    assert_eq!(errcode(find(&changed).await), "M_FORBIDDEN", "it was signed for another user");
    world.rooms.offer(&room_id, &user("alice"), &offer("other", "A".repeat(43).as_str())).await.unwrap();
    assert_eq!(errcode(find(&signed("other")).await), "M_FORBIDDEN", "with a key that the offer does not name");

    let redemption = world.rooms.redemption(&room_id, carol(), &signed("token")).await.unwrap().unwrap();
    assert_eq!(redemption.sender, user("alice"));
    let content = serde_json::to_value(&redemption.content).unwrap();
    assert_eq!(content["third_party_invite"]["display_name"], "c...@there");
    assert_eq!(content["third_party_invite"]["signed"]["mxid"], json!(carol()));
    world.set(&room_id, "alice", "m.room.member", carol().as_str(), content).await;
    let redeem = || async { world.rooms.redemption(&room_id, carol(), &signed("token")).await };
    assert!(redeem().await.unwrap().is_none(), "carol is invited already");
    world.rooms.kick(&room_id, &user("alice"), carol(), None).await.unwrap();
    assert_eq!(errcode(redeem().await), "M_FORBIDDEN", "it has been used");

    // Taken back, and of somebody who may not invite any more.
    world.set(&room_id, "alice", "m.room.third_party_invite", "token", json!({})).await;
    assert_eq!(errcode(find(&signed("token")).await), "M_FORBIDDEN");
    world.rooms.offer(&room_id, &user("alice"), &offer("later", &public_key)).await.unwrap();
    world.rooms.join(&room_id, &user("bob"), None).await.unwrap();
    world.rooms.leave(&room_id, &user("alice"), None).await.unwrap();
    let late = world.rooms.redemption(&room_id, carol(), &signed("later")).await;
    assert_eq!(errcode(late), "M_FORBIDDEN");
    world.close().await;
}
