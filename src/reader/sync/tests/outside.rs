//! Invitations and knocks from outside: what `/sync` shows of them, without a room, and what users can do with them.

use std::sync::Arc;

use ruma::{
    OwnedRoomId, OwnedUserId, RoomVersionId, UserId,
    events::{AnyTimelineEvent, StateEventType},
    room_id,
    serde::Raw,
};
use serde_json::{Value, json, value::to_raw_value};

use super::gather_all;
use crate::{
    app::App,
    error::{Error, Result},
    event::{
        Draft, GraphPlace, SigningKey,
        fact::{OutsideEvent, OutsideState, Write},
    },
    ground::{position::Position, room_version::rules},
    people::filter::StoredFilter,
    reader::sync::{Client, Listener, StateAfter, SyncBody, SyncRequest, SyncWriter},
    room::{Ending, FromOutside},
    store,
    testing::{World, user},
};

/// Somebody on another server, who invites.
fn stranger() -> OwnedUserId {
    UserId::parse("@mallory:elsewhere").unwrap()
}

fn there() -> OwnedRoomId {
    room_id!("!there:elsewhere").to_owned()
}

/// A membership event of the room elsewhere, as its server makes it.
fn event(sender: &UserId, target: &UserId, membership: &str) -> OutsideEvent {
    let (version, key) = (RoomVersionId::V11, SigningKey::generate().unwrap());
    let key = SigningKey::from_pkcs8(&key, "ed25519:a").unwrap();
    let content = serde_json::from_value(json!({ "membership": membership })).unwrap();
    let draft = Draft::state(sender.to_owned(), "m.room.member".into(), target.as_str(), content);
    let place = GraphPlace { room_id: Some(there()), depth: 7, prev_events: Vec::new(), auth_events: Vec::new() };
    let now = ruma::MilliSecondsSinceUnixEpoch(1_700_000_000_000_u64.try_into().unwrap());
    let pdu = draft.sign(&place, now, sender.server_name(), &key, rules(&version).unwrap()).unwrap();
    OutsideEvent { version, pdu: Arc::new(pdu) }
}

/// What comes with an invitation: a whole event, a stripped one, and what is neither.
fn invitation(target: &UserId) -> FromOutside {
    let create = json!({
        "type": "m.room.create", "state_key": "", "sender": stranger(), "content": { "room_version": "11" },
        "origin_server_ts": 5, "depth": 1, "prev_events": [], "auth_events": [], "room_id": there(),
        "hashes": { "sha256": "thishashcoversallfields" }, "signatures": {},
    });
    let name = json!({ "type": "m.room.name", "state_key": "", "sender": stranger(), "content": { "name": "There" } });
    let old = json!({
        "type": "m.room.member", "state_key": target, "sender": target, "content": { "membership": "ban" },
    });
    let message = json!({ "type": "m.room.message", "sender": stranger(), "content": {} });
    let huge = json!({ "type": "m.room.topic", "state_key": "", "sender": stranger(), "content": { "topic": "x".repeat(70_000) } });
    let room_state = [create, name, old, message, json!("no event"), huge];
    FromOutside {
        user_id: target.to_owned(),
        room_id: there(),
        sender: stranger(),
        event: Some(event(&stranger(), target, "invite")),
        room_state: room_state.iter().map(|event| to_raw_value(event).unwrap()).collect(),
    }
}

fn knock(user_id: &UserId) -> FromOutside {
    let event = Some(event(user_id, user_id, "knock"));
    FromOutside { sender: user_id.to_owned(), event, ..invitation(user_id) }
}

fn ending(sender: &UserId, target: &UserId) -> Ending {
    Ending { sender: sender.to_owned(), event: Some(event(sender, target, "leave")) }
}

/// The rooms of a classic `/sync`, and up to where it goes.
async fn sync(app: &App, user_id: &UserId, since: Option<Position>) -> (Value, Position) {
    sync_with(app, user_id, since, StoredFilter::default()).await
}

/// The rooms that a client that knows nothing gets, with those that were left.
async fn everything(app: &App, user_id: &UserId) -> Value {
    let mut filter = StoredFilter::default();
    filter.events.room.include_leave = true;
    sync_with(app, user_id, None, filter).await.0
}

async fn sync_with(app: &App, user_id: &UserId, since: Option<Position>, filter: StoredFilter) -> (Value, Position) {
    sync_as(app, user_id, since, filter, None).await
}

async fn sync_as(
    app: &App,
    user_id: &UserId,
    since: Option<Position>,
    filter: StoredFilter,
    state_after: Option<StateAfter>,
) -> (Value, Position) {
    let filter = Arc::new(filter);
    let client = Client { user_id: user_id.to_owned(), device_id: "DEVICE".into() };
    let request = SyncRequest {
        client: client.clone(),
        wanted: (&*filter).into(),
        since,
        delivered: None,
        begins_anew: false,
        full_state: false,
        state_after: state_after.is_some(),
    };
    let gathered = gather_all(&app.syncs, &request).await;
    let (until, is_empty) = (gathered.until, gathered.is_empty());
    let tokens = app.syncs.tokens(&gathered).await.unwrap();
    let writer = SyncWriter { client, filter, state_after, begins_anew: false };
    let mut body = SyncBody::new(tokens.of(until));
    writer.write(&mut body, gathered, &tokens, app.clock.now()).unwrap();
    let response: Value = serde_json::from_slice(&body.end()).unwrap();
    let rooms = response.get("rooms").cloned().unwrap_or(json!({}));
    assert!(!is_empty || rooms == json!({}), "whoever waits would not be answered: {rooms}");
    (rooms, until)
}

/// What stands in a room's stripped state, by type.
fn stripped<'a>(rooms: &'a Value, list: &str) -> Vec<(&'a str, &'a Value)> {
    let events = &rooms[list][there().as_str()][format!("{list}_state")]["events"];
    events.as_array().unwrap().iter().map(|event| (event["type"].as_str().unwrap(), &event["content"])).collect()
}

fn errcode<T: std::fmt::Debug>(result: Result<T>) -> String {
    match result.unwrap_err() {
        Error::Refused { kind, .. } => kind.errcode().to_string(),
        other => panic!("not a refusal: {other:?}"),
    }
}

impl World {
    async fn account(&self, name: &str) -> OwnedUserId {
        self.app.accounts.create_user(name, "correct horse", false).await.unwrap()
    }
}

#[tokio::test]
async fn an_invitation_from_outside_is_shown_without_a_room() {
    for world in World::on_each_engine().await {
        let (alice, rooms) = (world.account("alice").await, world.rooms());
        let (nothing, before) = sync(&world.app, &alice, None).await;
        assert_eq!(nothing, json!({}));
        let mut wakes = world.app.syncs.watcher(&alice).await.unwrap().wakes();
        wakes.borrow_and_update();
        rooms.take_invite(invitation(&alice)).await.unwrap();
        assert!(wakes.has_changed().unwrap(), "whoever waits is woken");

        let check = async |app: &App| {
            for since in [Some(before), None] {
                let (told, until) = sync(app, &alice, since).await;
                let expected = [
                    ("m.room.create", &json!({ "room_version": "11" })),
                    ("m.room.name", &json!({ "name": "There" })),
                    ("m.room.member", &json!({ "membership": "invite" })),
                ];
                assert_eq!(stripped(&told, "invite"), expected);
                let create = &told["invite"][there().as_str()]["invite_state"]["events"][0];
                let fields: Vec<&String> = create.as_object().unwrap().keys().collect();
                assert_eq!(fields, ["content", "origin_server_ts", "sender", "state_key", "type"]);
                assert_eq!(sync(app, &alice, Some(until)).await.0, json!({}), "once");
            }
        };
        check(&world.app).await;
        let world = world.restart().await;
        check(&world.app).await;

        let rooms = world.rooms();
        assert!(rooms.find_held(&there()).await.unwrap().is_none());
        assert!(rooms.list_joined_rooms(&alice).await.unwrap().is_empty());
        assert_eq!(errcode(rooms.join(&there(), &alice, None).await), "M_FORBIDDEN", "it can't be reached");
        assert_eq!(errcode(rooms.open(&there(), &alice).await.map(drop)), "M_FORBIDDEN");
        world.close().await;
    }
}

#[tokio::test]
async fn whoever_turns_an_invitation_down_is_told_that_it_is_over_and_can_forget_it() {
    for world in World::on_each_engine().await {
        let (alice, rooms) = (world.account("alice").await, world.rooms());
        assert_eq!(errcode(rooms.leave(&there(), &alice, None).await), "M_FORBIDDEN");
        assert_eq!(errcode(rooms.forget(&there(), &alice).await), "M_FORBIDDEN");
        rooms.take_invite(invitation(&alice)).await.unwrap();
        assert_eq!(errcode(rooms.forget(&there(), &alice).await), "M_UNKNOWN", "not before it is turned down");
        let invited = world.reached();
        rooms.leave(&there(), &alice, None).await.unwrap();
        rooms.leave(&there(), &alice, None).await.unwrap();

        let is_left = |told: &Value| {
            let room = &told["leave"][there().as_str()];
            let empty = json!({ "events": [] });
            room["state"] == empty && room["timeline"]["events"] == json!([]) && told["invite"].is_null()
        };
        let (told, over) = sync(&world.app, &alice, Some(invited)).await;
        assert!(is_left(&told), "{told}");
        assert_eq!(sync(&world.app, &alice, Some(over)).await.0, json!({}));
        assert_eq!(sync(&world.app, &alice, None).await.0, json!({}));
        assert!(is_left(&everything(&world.app, &alice).await));

        rooms.forget(&there(), &alice).await.unwrap();
        let forgotten = async |app: &App| {
            assert_eq!(everything(app, &alice).await, json!({}));
            let (told, _) = sync(app, &alice, Some(invited)).await;
            assert!(is_left(&told), "a client that still shows the invitation: {told}");
        };
        forgotten(&world.app).await;
        let world = world.restart().await;
        forgotten(&world.app).await;
        world.rooms().take_invite(invitation(&alice)).await.unwrap();
        assert_eq!(stripped(&everything(&world.app, &alice).await, "invite").len(), 3, "invited again");
        world.close().await;
    }
}

#[tokio::test]
async fn a_knock_from_outside_is_shown_until_it_is_answered() {
    for world in World::on_each_engine().await {
        let (alice, rooms) = (world.account("alice").await, world.rooms());
        let start = world.reached();
        rooms.take_knock(knock(&alice)).await.unwrap();
        let (told, knocked) = sync(&world.app, &alice, Some(start)).await;
        assert_eq!(stripped(&told, "knock").last(), Some(&("m.room.member", &json!({ "membership": "knock" }))));
        let denied = ending(&stranger(), &alice);
        let denial = denied.event.as_ref().unwrap().pdu.event_id().to_owned();
        rooms.end_outside(&there(), &alice, denied.clone()).await.unwrap();
        let (told, over) = sync(&world.app, &alice, Some(knocked)).await;
        let timeline = &told["leave"][there().as_str()]["timeline"];
        assert_eq!(timeline["events"][0]["event_id"], denial.as_str(), "{told}");
        assert!(timeline["events"][0]["hashes"].is_null() && timeline["prev_batch"].is_string());
        let (told, _) =
            sync_as(&world.app, &alice, Some(knocked), StoredFilter::default(), Some(StateAfter::Stable)).await;
        let after = &told["leave"][there().as_str()]["state_after"]["events"];
        assert_eq!(after[0]["event_id"], denial.as_str(), "the state at the end of the timeline: {told}");
        rooms.end_outside(&there(), &alice, denied).await.unwrap();
        assert_eq!(world.reached(), over, "it is over once");

        rooms.take_knock(knock(&alice)).await.unwrap();
        rooms.take_invite(invitation(&alice)).await.unwrap();
        let (told, _) = sync(&world.app, &alice, Some(over)).await;
        assert_eq!(stripped(&told, "invite").len(), 3);
        assert!(told["knock"].is_null() && told["leave"].is_null());
        rooms.take_knock(knock(&alice)).await.unwrap();
        let (told, _) = sync(&world.app, &alice, None).await;
        assert!(told["knock"].is_null(), "the answer was quicker: {told}");
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_holds_however_close_to_the_knock_it_comes() {
    for world in World::on_each_engine().await {
        let rooms = &world.app.rooms;
        for round in 0..10 {
            let alice = world.account(&format!("alice{round}")).await;
            let (knocked, invited) =
                tokio::join!(rooms.take_knock(knock(&alice)), rooms.take_invite(invitation(&alice)));
            knocked.unwrap();
            invited.unwrap();
            let mut conn = world.app.db.read().await.unwrap();
            let known = store::outside_membership::find(&mut conn, &alice, &there()).await.unwrap().unwrap();
            assert_eq!(known.state, OutsideState::Invited);
        }
        world.close().await;
    }
}

#[tokio::test]
async fn the_syncs_of_old_show_what_came_from_outside() {
    for world in World::on_each_engine().await {
        let (alice, rooms, syncs) = (world.account("alice").await, world.rooms(), &world.app.syncs);
        let client = Client { user_id: alice.clone(), device_id: "DEVICE".into() };
        let listener = Listener { client: client.clone(), room: None };
        let initial = async || -> Value {
            let (mut body, asked) = syncs.initial(client.clone(), None, false);
            body.write_part(gather_all(syncs, &asked).await).await.unwrap();
            serde_json::from_slice(&body.into_text()).unwrap()
        };
        let heard = async |from| {
            let page = syncs.read_stream(&listener, from).await.unwrap();
            assert!(!page.more);
            let said = |event: &Raw<AnyTimelineEvent>| {
                let event: Value = event.deserialize_as_unchecked().unwrap();
                assert_eq!((&event["room_id"], &event["state_key"]), (&json!(there()), &json!(alice)));
                event["content"]["membership"].as_str().unwrap().to_owned()
            };
            (page.events.iter().map(said).collect::<Vec<_>>(), page.until)
        };
        let start = world.reached();
        rooms.take_knock(knock(&alice)).await.unwrap();
        let (said, knocked) = heard(start).await;
        assert_eq!(said, ["knock"]);
        assert_eq!(initial().await["rooms"], json!([]), "the specification knows of no knocks there");
        rooms.take_invite(invitation(&alice)).await.unwrap();
        let (said, invited) = heard(knocked).await;
        assert_eq!(said, ["invite"]);
        let shown = &initial().await["rooms"];
        assert_eq!(shown.as_array().unwrap().len(), 1, "{shown}");
        assert_eq!((&shown[0]["room_id"], &shown[0]["membership"]), (&json!(there()), &json!("invite")));
        assert_eq!(shown[0]["invite"]["sender"], json!(stranger()), "{shown}");
        rooms.end_outside(&there(), &alice, ending(&stranger(), &alice)).await.unwrap();
        assert_eq!(heard(invited).await.0, ["leave"]);
        assert_eq!(initial().await["rooms"], json!([]));
        world.close().await;
    }
}

#[tokio::test]
async fn nobody_is_bothered_by_invitations_that_they_do_not_want() {
    for world in World::on_each_engine().await {
        let (alice, bob, rooms) = (world.account("alice").await, world.account("bob").await, world.rooms());
        world.ignore(&alice, &[&stranger()]).await;
        let before = world.reached();
        rooms.take_invite(invitation(&alice)).await.unwrap();
        assert_eq!(sync(&world.app, &alice, Some(before)).await.0, json!({}));
        assert_eq!(sync(&world.app, &alice, None).await.0, json!({}));

        let blocks = to_raw_value(&json!({ "default_action": "block" })).unwrap();
        world.app.account_data.set(&bob, None, "m.invite_permission_config", blocks).await.unwrap();
        assert_eq!(errcode(rooms.take_invite(invitation(&bob)).await), "M_INVITE_BLOCKED");
        for nobody in [user("nobody"), stranger()] {
            assert!(rooms.take_invite(invitation(&nobody)).await.is_err());
        }
        let other = FromOutside { event: Some(event(&stranger(), &bob, "invite")), ..invitation(&alice) };
        assert_eq!(errcode(rooms.take_invite(other).await), "M_BAD_JSON", "it is another's invitation");
        world.close().await;
    }
}

#[tokio::test]
async fn what_came_from_outside_ends_with_the_account() {
    for world in World::on_each_engine().await {
        let (alice, rooms) = (world.account("alice").await, world.rooms());
        let start = world.reached();
        rooms.take_invite(invitation(&alice)).await.unwrap();
        let elsewhere = room_id!("!another:elsewhere").to_owned();
        let bare = FromOutside { room_id: elsewhere.clone(), event: None, room_state: Vec::new(), ..knock(&alice) };
        rooms.take_knock(bare).await.unwrap();
        world.app.accounts.deactivate(&alice, false).await.unwrap();
        rooms.leave_all(&alice, None).await.unwrap();
        let (told, _) = sync(&world.app, &alice, Some(start)).await;
        let left: Vec<&String> = told["leave"].as_object().unwrap().keys().collect();
        assert_eq!(left, [elsewhere.as_str(), there().as_str()]);
        assert!(told["invite"].is_null() && told["knock"].is_null());
        assert_eq!(errcode(rooms.take_invite(invitation(&alice)).await), "M_NOT_FOUND", "there is no such account");
        world.close().await;
    }
}

/// A room that was left has a history of its own, in which the user is somebody who has left.
#[tokio::test]
async fn of_a_room_that_was_left_and_an_invitation_to_it_the_later_counts() {
    for world in World::on_each_engine().await {
        let (alice, rooms) = (world.account("alice").await, world.rooms());
        let room_id = world.room(&[&alice, &stranger()]).await;
        let invite = || FromOutside { room_id: room_id.clone(), event: None, ..invitation(&alice) };
        assert_eq!(errcode(rooms.take_invite(invite()).await), "M_UNKNOWN", "the room itself says who is invited");
        let inside = world.reached();
        rooms.leave(&room_id, &alice, None).await.unwrap();
        let left = world.reached();
        rooms.take_invite(invite()).await.unwrap();
        for since in [Some(inside), Some(left), None] {
            let (told, _) = sync(&world.app, &alice, since).await;
            assert!(told["invite"][room_id.as_str()].is_object() && told["leave"].is_null(), "{told}");
        }
        assert!(everything(&world.app, &alice).await["leave"].is_null());
        assert_eq!(errcode(rooms.join(&room_id, &alice, None).await), "M_FORBIDDEN", "it goes on elsewhere");

        let invited = world.reached();
        rooms.leave(&room_id, &alice, None).await.unwrap();
        let (told, over) = sync(&world.app, &alice, Some(invited)).await;
        assert!(told["leave"][room_id.as_str()].is_object() && told["invite"].is_null(), "{told}");
        let (told, _) = sync(&world.app, &alice, Some(inside)).await;
        assert_eq!(told["leave"][room_id.as_str()]["timeline"]["events"].as_array().unwrap().len(), 1, "{told}");
        rooms.open(&room_id, &alice).await.unwrap();
        rooms.forget(&room_id, &alice).await.unwrap();
        assert_eq!(errcode(rooms.open(&room_id, &alice).await.map(drop)), "M_FORBIDDEN");
        assert_eq!(sync(&world.app, &alice, Some(over)).await.0, json!({}));

        // Nobody is in it any more, so that this server may let people in again.
        rooms.take_invite(invite()).await.unwrap();
        world.membership(&room_id, &stranger(), "leave").await;
        let invited = world.reached();
        rooms.join(&room_id, &alice, None).await.unwrap();
        for since in [Some(invited), None] {
            let (told, _) = sync(&world.app, &alice, since).await;
            assert!(told["join"][room_id.as_str()].is_object() && told["invite"].is_null(), "{told}");
        }
        world.close().await;
    }
}

#[tokio::test]
async fn once_this_server_takes_part_in_a_room_its_history_says_who_is_invited() {
    for world in World::on_each_engine().await {
        let (alice, bob, rooms) = (world.account("alice").await, world.account("bob").await, world.rooms());
        let room_id = world.room(&[&alice, &stranger()]).await;
        rooms.invite(&room_id, &alice, &bob, None).await.unwrap();
        let carol = world.account("carol").await;
        rooms.leave(&room_id, &alice, None).await.unwrap();
        for user_id in [&bob, &carol] {
            let invite = FromOutside { room_id: room_id.clone(), event: None, ..invitation(user_id) };
            rooms.take_invite(invite).await.unwrap();
        }
        let before = world.reached();
        let state = rooms.get_held(&room_id).await.unwrap().state();
        assert!(state.get(&StateEventType::RoomMember.to_string(), carol.as_str()).is_none());
        let facts = rooms.end_all_outside(&room_id, &state).await.unwrap();
        world.app.log.append(Write::facts(facts)).await.unwrap();
        assert_eq!(sync(&world.app, &bob, Some(before)).await.0, json!({}), "he is invited by the room itself");
        let (told, _) = sync(&world.app, &carol, Some(before)).await;
        assert!(told["leave"][room_id.as_str()].is_object(), "{told}");
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_shows_what_came_from_outside() {
    let Some((world, other)) = World::two_nodes().await else { return };
    let alice = world.account("alice").await;
    let reach = async || {
        let at = store::log::last_position(&mut world.app.db.read().await.unwrap()).await.unwrap();
        tokio::join!(other.log.tail().wait_for(at), world.app.log.tail().wait_for(at));
    };
    reach().await;
    let (_, start) = sync(&other, &alice, None).await;
    world.rooms().take_invite(invitation(&alice)).await.unwrap();
    reach().await;
    let (told, invited) = sync(&other, &alice, Some(start)).await;
    assert_eq!(stripped(&told, "invite").len(), 3);
    other.rooms.leave(&there(), &alice, None).await.unwrap();
    reach().await;
    for app in [&world.app, &other] {
        let (told, _) = sync(app, &alice, Some(invited)).await;
        assert!(told["leave"][there().as_str()].is_object(), "{told}");
        assert_eq!(sync(app, &alice, None).await.0, json!({}));
    }
    world.rooms().forget(&there(), &alice).await.unwrap();
    reach().await;
    assert_eq!(everything(&other, &alice).await, json!({}));
    world.close_both(other).await;
}
