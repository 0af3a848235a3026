//! Every endpoint that servers call, asked by one that signs: its valid request, and everything that is done to that.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/>

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::atomic::{AtomicU64, Ordering},
};

use futures_util::{FutureExt as _, StreamExt as _, stream};
use parking_lot::Mutex;
use reqwest::header::CONTENT_TYPE;
use serde_json::json;

use super::{
    NOT_YET_BETWEEN_SERVERS,
    data::{Auth, Operation},
    fixture::Scene,
    judge::{Answer, Expect},
    mutate::{Draft, Mutation, Others, Share, mutations},
};
use crate::{
    federation::{
        internet::Internet,
        peer::Peer,
        scripted::{FarRoom, Scripted},
    },
    identity_server::IdentityServer,
    world::{Client, Engine, at, escape},
};

const TO: &str = "one.test";
/// How many endpoints are tried at once.
const AT_ONCE: usize = 4;
/// Endpoints whose valid request this server refuses, and how.
const REFUSED: [(&str, u16, &str); 1] = [
    // Rooms of the versions that have it alone are not spoken.
    ("sendInviteV1", 400, "M_INCOMPATIBLE_ROOM_VERSION"),
];

/// A server, one that asks it, and one that has no business there.
pub(super) struct ServerWalk {
    one: Peer,
    far: Scripted,
    near: Scripted,
    alice: Client,
    /// A public room of Alice's with a user of the other server, and one on which anybody knocks.
    room: FarRoom,
    knocked: String,
    /// One of the other server's, to which Bob is invited.
    theirs: FarRoom,
    /// What the parameters of endpoints name.
    standing: BTreeMap<&'static str, String>,
    share: Share,
    faults: Mutex<Vec<String>>,
    requests: AtomicU64,
}

impl ServerWalk {
    /// None where there is no PostgreSQL or Redis.
    pub(super) async fn set_up(engine: Engine, share: Share) -> Option<Self> {
        let internet = Internet::new();
        let one = Peer::start_with(&internet, TO, engine, |config| {
            config.well_known.server = Some("one.test:443".try_into().unwrap());
            IdentityServer::start(config);
        });
        let one = one.await?;
        let far = Scripted::start(&internet, "far.test", one.world.clock.clone()).await;
        let near = far.neighbour("near.test").await;
        let alice = one.user("alice").await;
        one.user("bob").await;
        let body = json!({ "preset": "public_chat", "room_version": "11", "name": "The room", "visibility": "public" });
        let room = alice.create_room(body).await;
        let alias = json!({ "room_id": room });
        alice.put("/_matrix/client/v3/directory/room/%23standing:one.test", alias).await.ok();
        let knock = json!({ "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "knock" } });
        let knocked = alice.create_room(json!({ "room_version": "11", "initial_state": [knock] })).await;
        let space = json!({ "preset": "public_chat", "creation_content": { "type": "m.space" } });
        let space = alice.create_room(space).await;
        let child = at(&space, &format!("/state/m.space.child/{}", escape(&room)));
        alice.put(&child, json!({ "via": [TO] })).await.ok();
        let far_room = far.join(TO, &room, &far.user("mallory")).await;
        let message = alice.say(&room, "something").await;
        let path = format!("/_matrix/client/v3/user/{}/openid/request_token", escape(&alice.user_id));
        let token = alice.post(&path, json!({})).await.ok();
        let theirs = far.create_room("11", json!({ "join_rule": "invite" }));
        let standing = BTreeMap::from([
            ("roomId", room.clone()),
            ("eventId", message.clone()),
            ("event_id", message.clone()),
            ("v", message),
            ("ver", "11".to_owned()),
            ("space", space),
            ("room_alias", "#standing:one.test".to_owned()),
            ("user_id", alice.user_id.clone()),
            ("serverName", "far.test".to_owned()),
            ("queryType", "org.example.unheard_of".to_owned()),
            ("access_token", token["access_token"].as_str().unwrap().to_owned()),
        ]);
        let (faults, requests) = (Mutex::default(), AtomicU64::default());
        Some(Self { one, far, near, alice, room: far_room, knocked, theirs, standing, share, faults, requests })
    }

    /// Walks over all endpoints, and tells how many requests that took and what was wrong with their answers.
    pub(super) async fn over(self, operations: &[Operation]) -> (u64, Vec<String>) {
        let walk = &self;
        stream::iter(operations.iter().zip(1..))
            .for_each_concurrent(AT_ONCE, |(operation, seed)| async move {
                let tried = AssertUnwindSafe(Box::pin(walk.try_operation(operation, seed))).catch_unwind().await;
                if tried.is_err() {
                    walk.note(format!("{}: the walk could not go on, see above", operation.id));
                }
            })
            .await;
        // The server goes on, and the room is as it was.
        walk.alice.say(&walk.room.id, "goodbye").await;
        walk.far.until_asked("send", |asked| asked.body.to_string().contains("goodbye")).await;
        let mut faults = self.faults.into_inner();
        faults.sort_unstable();
        (self.requests.into_inner(), faults)
    }

    fn note(&self, fault: String) {
        self.faults.lock().push(fault);
    }

    async fn try_operation(&self, operation: &Operation, seed: u64) {
        let mut scene = self.scene(operation.id).await;
        if NOT_YET_BETWEEN_SERVERS.iter().any(|(_, ids)| ids.contains(&operation.id)) {
            return self.try_missing(operation, &scene).await;
        }
        let others = Others { stranger: "near", former: &self.alice.token };
        let mutations = mutations(operation, &scene, &others, &self.share, seed);
        for mutation in [Mutation::none("valid")].iter().chain(&mutations) {
            let answer = self.try_mutation(operation, &scene, mutation).await;
            if scene.once && answer.is_none_or(|answer| answer.status == 200) {
                scene = self.scene(operation.id).await;
            }
        }
    }

    async fn try_mutation(&self, operation: &Operation, scene: &Scene, mutation: &Mutation) -> Option<Answer> {
        let mut draft = Draft::new(operation, scene, self.far.number());
        mutation.apply(&mut draft);
        let answer = match self.send(&draft).await {
            Ok(answer) => answer,
            Err(error) => {
                self.note(format!("{} [{}]: no answer: {error}", operation.id, mutation.name));
                return None;
            }
        };
        let refused = REFUSED.iter().find(|(id, ..)| *id == operation.id);
        let expected = refused.map_or(Expect::Success, |(_, status, code)| Expect::Refusal(*status, code));
        let mut faults = answer.faults(operation);
        faults.extend(mutation.expect.unmet(&answer, expected));
        if !faults.is_empty() {
            faults.truncate(3);
            let (status, said) = (answer.status, answer.excerpt());
            self.note(format!("{} [{}]: {}: {status} {said}", operation.id, mutation.name, faults.join("; ")));
        }
        Some(answer)
    }

    /// An endpoint that is not there yet says so.
    async fn try_missing(&self, operation: &Operation, scene: &Scene) {
        let answer = self.send(&Draft::new(operation, scene, self.far.number())).await.unwrap();
        if answer.errcode().as_deref() != Some("M_UNRECOGNIZED") {
            let (status, said) = (answer.status, answer.excerpt());
            self.note(format!("{}: is routed by now: take it out of NOT_YET: {status} {said}", operation.id));
        }
    }

    /// Sends a request, signed by whom its token names. Any other header stands as it is.
    async fn send(&self, draft: &Draft) -> Result<Answer, reqwest::Error> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let (method, uri) = (draft.method().as_str(), draft.path_and_query());
        let body = draft.body.clone().unwrap_or_default();
        let (sender, proof) = match draft.authorization.as_deref() {
            Some("Bearer far") => (&self.far, Some(self.far.proof_of_bytes(TO, method, &uri, &body))),
            Some("Bearer near") => (&self.near, Some(self.near.proof_of_bytes(TO, method, &uri, &body))),
            other => (&self.far, other.map(ToOwned::to_owned)),
        };
        let proofs: Vec<String> = proof.into_iter().collect();
        let body = draft.body.clone().map(|body| (body, draft.content_type));
        let response = sender.ask_bytes(TO, method, &uri, &proofs, body).await?;
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let (status, content_type) = (response.status().as_u16(), content_type.unwrap_or_default().to_owned());
        Ok(Answer { status, content_type, body: response.bytes().await?.to_vec() })
    }

    fn by_far(&self) -> Scene {
        Scene { token: "far".to_owned(), values: self.standing.clone(), body: None, once: false, costly: false }
    }

    /// Somebody of the other server who was not there before.
    fn newcomer(&self) -> String {
        self.far.user(&format!("u{}", self.far.number()))
    }

    /// What a request to the endpoint needs to be a good one.
    async fn scene(&self, operation_id: &str) -> Scene {
        let (scene, room) = (self.by_far(), &self.room.id);
        match operation_id {
            "makeJoin" => scene.with("userId", self.newcomer()),
            "makeKnock" => scene.with("userId", self.newcomer()).with("roomId", &self.knocked),
            "makeLeave" => scene.with("userId", self.far.user("mallory")),
            "sendJoinV2" => self.completed("make_join", room, &self.newcomer()).await,
            "sendKnock" => self.completed("make_knock", &self.knocked, &self.newcomer()).await,
            "sendLeaveV2" => {
                let user = self.newcomer();
                let join = self.completed("make_join", room, &user).await;
                let path =
                    format!("/_matrix/federation/v2/send_join/{}/{}", escape(room), escape(&join.values["eventId"]));
                self.far.put(TO, &path, join.body.as_ref().unwrap()).await.ok();
                self.completed("make_leave", room, &user).await
            }
            "sendInviteV1" | "sendInviteV2" => {
                let (mallory, membership) = (self.far.user("mallory"), json!({ "membership": "invite" }));
                let invite = self.theirs.event(&mallory, "m.room.member", Some("@bob:one.test"), membership);
                let (id, sent) = (self.theirs.id_of(&invite), self.theirs.invitation(&invite));
                let body = if operation_id == "sendInviteV1" { invite } else { sent };
                scene.with("roomId", &self.theirs.id).with("eventId", id).body(body)
            }
            "getMissingPreviousEvents" => {
                let latest = [&self.standing["eventId"]];
                scene.body(json!({ "earliest_events": [], "latest_events": latest, "limit": 10, "min_depth": 0 }))
            }
            "bulkPerspectivesKeyQuery" => scene.body(json!({ "server_keys": { "far.test": {} } })),
            "queryPublicRooms" => scene.body(json!({ "limit": 10, "filter": { "generic_search_term": "room" } })),
            "getSpaceHierarchy" => scene.with("roomId", &self.standing["space"]).with("suggested_only", "false"),
            "exchangeThirdPartyInvite" => self.scene_of_an_address().await,
            "onBindThirdPartyIdentifier" => scene.body(json!({
                "medium": "email", "address": "bob@example.org", "mxid": "@bob:one.test", "invites": [],
            })),
            "sendTransaction" => scene.body(self.far.transaction_of(&[self.room.message("sent by the walk")], &[])),
            _ => scene,
        }
    }

    /// A membership event that this server has proposed.
    async fn completed(&self, make: &str, room: &str, user: &str) -> Scene {
        let template = self.far.template(TO, make, room, user).await.ok();
        let (id, event) = self.far.complete(&template, "11");
        self.by_far().with("roomId", room).with("eventId", id).body(event)
    }

    /// Where somebody is invited by an address that turns out to be one of the other server's users.
    async fn scene_of_an_address(&self) -> Scene {
        let identity = IdentityServer::of(&self.one.world);
        let room = self.alice.create_room(json!({ "room_version": "11" })).await;
        let address = format!("a{}@example.org", self.far.number());
        let body = json!({
            "id_server": identity.name(), "id_access_token": "secret", "medium": "email", "address": address,
        });
        self.alice.post(&at(&room, "/invite"), body).await.ok();
        let state = self.alice.get(&at(&room, "/state")).await.ok();
        let offers = state.as_array().unwrap();
        let offer = offers.iter().find(|event| event["type"] == "m.room.third_party_invite").unwrap();
        let user = self.newcomer();
        let signed = identity.sign(offer["state_key"].as_str().unwrap(), &self.alice.user_id, &user);
        let invite = json!({ "display_name": offer["content"]["display_name"], "signed": signed });
        let body = json!({
            "type": "m.room.member",
            "room_id": room,
            "sender": self.alice.user_id,
            "state_key": user,
            "content": { "membership": "invite", "third_party_invite": invite },
        });
        let scene = self.by_far().with("roomId", &room).body(body);
        Scene { once: true, ..scene }
    }
}

#[test]
fn what_servers_sign_is_known_as_such() {
    let Some(data) = super::find_data() else { return };
    let operations = data.operations(super::SERVER_SERVER);
    let unsigned = operations.iter().filter(|operation| operation.auth != Auth::Servers).map(|operation| operation.id);
    let mut unsigned: Vec<&str> = unsigned.collect();
    unsigned.sort_unstable();
    let expected = [
        "bulkPerspectivesKeyQuery",
        "exchangeOpenIdToken",
        "getServerKey",
        "getVersion",
        "getWellKnown",
        "onBindThirdPartyIdentifier",
        "perspectivesKeyQuery",
    ];
    assert_eq!(unsigned, expected);
    let bodies = operations.iter().filter(|operation| operation.body.is_some()).count();
    assert!(bodies > 10, "{bodies}");
}
