//! Who and what there is on the server: values for the parameters of every endpoint, and a scene of its own for what
//! can be done only once.

mod media;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use hearth::config::{Config, Contact};
use ruma::api::client::discovery::discover_support::ContactRole;
use serde_json::{Value, json};

use crate::{
    identity_server::IdentityServer,
    keys::{CrossSigning, Pair},
    mail_server::MailServer,
    world::{Client, World, escape, http_client},
};

/// A server with people who have something to lose.
pub(super) struct Fixture {
    pub(super) world: World,
    pub(super) http: reqwest::Client,
    people: BTreeMap<&'static str, Client>,
    /// A private room of Alice, Bob and Gina, in which something was said, and a space with it.
    pub(super) room: String,
    space: String,
    /// The root of a thread.
    pub(super) message: String,
    /// What the parameters of endpoints name.
    standing: BTreeMap<&'static str, String>,
    next: AtomicU64,
}

/// What a valid request is made of.
pub(super) struct Scene {
    pub(super) token: String,
    /// By the names of parameters. Those of the others come from the specification's examples.
    pub(super) values: BTreeMap<&'static str, String>,
    /// Where the schema's own example would not do.
    pub(super) body: Option<Value>,
    /// A success ends it: the next request needs another one.
    pub(super) once: bool,
    /// Passwords are hashed for each request, which takes its time by design.
    pub(super) costly: bool,
}

/// Everything that an operator can switch on is there.
pub(super) fn configure(config: &mut Config) {
    config.turn.uris = vec!["turn:turn.example.org?transport=udp".to_owned().try_into().unwrap()];
    config.turn.shared_secret = Some("north wind".to_owned().try_into().unwrap());
    config.well_known.client_base_url = Some("https://matrix.example.org".to_owned().try_into().unwrap());
    config.well_known.support.page = Some("https://example.org/support".to_owned().try_into().unwrap());
    let contact = Contact {
        role: ContactRole::Admin,
        matrix_id: Some("@alice:localhost".try_into().unwrap()),
        email_address: Some("alice@example.org".to_owned()),
    };
    config.well_known.support.contacts = vec![contact];
    // As many as the walk makes.
    config.quotas.key_backups = 1_000_000;
    media::configure(config);
    MailServer::start(config);
    IdentityServer::start(config);
}

impl Fixture {
    pub(super) async fn set_up(world: World) -> Self {
        let mut people = BTreeMap::new();
        for name in ["alice", "bob", "carol", "dan", "erin", "fred", "gina", "olga", "pat"] {
            people.insert(name, world.user(name).await);
        }
        people.insert("root", world.administrator("root").await);
        let (alice, bob, fred, gina) = (&people["alice"], &people["bob"], &people["fred"], &people["gina"]);
        let own = |user: &Client, rest: &str| format!("/_matrix/client/v3/user/{}/{rest}", escape(&user.user_id));
        let name = format!("/_matrix/client/v3/profile/{}/displayname", escape(&alice.user_id));
        alice.put(&name, json!({ "displayname": "Alice" })).await.ok();

        let wishes =
            json!({ "name": "The room", "topic": "What lasts", "invite": [bob.user_id, fred.user_id, gina.user_id] });
        let room = alice.create_room(wishes).await;
        for user in [bob, fred, gina] {
            user.join(&room).await.ok();
        }
        let message = alice.say(&room, "the root of a thread").await;
        let at = |room: &str, rest: &str| format!("/_matrix/client/v3/rooms/{}/{rest}", escape(room));
        let in_thread = json!({ "rel_type": "m.thread", "event_id": message });
        let answer = json!({ "msgtype": "m.text", "body": "an answer", "m.relates_to": in_thread });
        bob.put(&at(&room, "send/m.room.message/answer"), answer).await.ok();
        let liked = json!({ "rel_type": "m.annotation", "event_id": message, "key": "\u{1F44D}" });
        bob.put(&at(&room, "send/m.reaction/liked"), json!({ "m.relates_to": liked })).await.ok();
        bob.post(&at(&room, &format!("receipt/m.read/{}", escape(&message))), json!({})).await.ok();
        fred.leave(&room).await.ok();
        let space = alice.create_room(json!({ "creation_content": { "type": "m.space" }, "name": "The space" })).await;
        let child = at(&space, &format!("state/m.space.child/{}", escape(&room)));
        alice.put(&child, json!({ "via": ["localhost"] })).await.ok();
        alice.put("/_matrix/client/v3/directory/room/%23standing:localhost", json!({ "room_id": room })).await.ok();

        let of_room = format!("rooms/{}", escape(&room));
        gina.put(&own(gina, "account_data/org.example.data"), json!({ "kept": true })).await.ok();
        gina.put(&own(gina, &format!("{of_room}/account_data/org.example.data")), json!({ "kept": true })).await.ok();
        gina.put(&own(gina, &format!("{of_room}/tags/u.work")), json!({ "order": 0.25 })).await.ok();
        for user in [gina, bob] {
            let version = user.post("/_matrix/client/v3/room_keys/version", backup_of_keys()).await.ok();
            assert_eq!(version["version"], "1");
            let key = format!("/_matrix/client/v3/room_keys/keys/{}/session?version=1", escape(&room));
            let session_data = json!({ "ephemeral": "a", "ciphertext": "b", "mac": "c" });
            let data = json!({
                "first_message_index": 1, "forwarded_count": 0, "is_verified": false, "session_data": session_data,
            });
            user.put(&key, data).await.ok();
        }
        let filter = alice.post(&own(alice, "filter"), json!({ "room": { "timeline": { "limit": 5 } } })).await.ok();
        let device = device_of(alice).await;
        let picture = media::upload_picture(&world, alice).await;

        let standing = BTreeMap::from([
            ("roomId", room.clone()),
            ("roomIdOrAlias", room.clone()),
            ("eventId", message.clone()),
            ("roomAlias", "#standing:localhost".to_owned()),
            ("type", "org.example.data".to_owned()),
            ("deviceId", device),
            ("filterId", filter["filter_id"].as_str().unwrap().to_owned()),
            ("eventType", "m.room.message".to_owned()),
            ("stateKey", String::new()),
            ("relType", "m.thread".to_owned()),
            ("tag", "u.work".to_owned()),
            ("sessionId", "session".to_owned()),
            ("version", "1".to_owned()),
            ("user_id", bob.user_id.clone()),
            ("serverName", "localhost".to_owned()),
            ("mediaId", picture),
            // Nothing waits: there may be nothing to come.
            ("timeout", "0".to_owned()),
        ]);
        // Whoever waits longer than this was forgotten.
        let http = http_client(Duration::from_secs(30));
        Self { world, http, people, room, space, message, standing, next: AtomicU64::new(0) }
    }

    /// Somebody by name. Carol is a stranger to everybody, Fred has left the room.
    pub(super) fn person(&self, name: &str) -> &Client {
        &self.people[name]
    }

    pub(super) fn everybody(&self) -> impl Iterator<Item = (&'static str, &Client)> {
        self.people.iter().map(|(name, client)| (*name, client))
    }

    /// A number that was not there before.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }

    /// What a request to the endpoint needs to be a good one. By Alice in her room, unless the endpoint wants
    /// something else.
    pub(super) async fn scene(&self, operation_id: &str) -> Scene {
        if let Some(scene) = self.scene_among_friends(operation_id) {
            return scene;
        }
        if let Some(scene) = Box::pin(self.scene_of_an_account(operation_id)).await {
            return scene;
        }
        if let Some(scene) = Box::pin(self.scene_of_an_address(operation_id)).await {
            return scene;
        }
        if let Some(scene) = Box::pin(self.scene_of_keys(operation_id)).await {
            return scene;
        }
        if let Some(scene) = self.scene_of_a_backup(operation_id).await {
            return scene;
        }
        if let Some(scene) = self.scene_of_media(operation_id).await {
            return scene;
        }
        let scene = Box::pin(self.scene_in_a_room_of_its_own(operation_id)).await;
        scene.unwrap_or_else(|| self.by("alice"))
    }

    fn by(&self, name: &str) -> Scene {
        self.by_client(self.person(name))
    }

    fn by_client(&self, client: &Client) -> Scene {
        let mut values = self.standing.clone();
        values.insert("userId", client.user_id.clone());
        Scene { token: client.token.clone(), values, body: None, once: false, costly: false }
    }

    /// Where everybody stays who they are. What Gina keeps for herself may be as strange as it gets: nobody else
    /// reads it.
    fn scene_among_friends(&self, operation_id: &str) -> Option<Scene> {
        let scene = match operation_id {
            "setAccountData" | "setAccountDataPerRoom" => self.by("gina").with("type", "org.example.written"),
            "getAccountData" | "getAccountDataPerRoom" | "getRoomTags" | "setRoomTag" | "setPresence" => {
                self.by("gina")
            }
            "getPushRule" | "getPushRuleActions" | "isPushRuleEnabled" => {
                self.by("alice").with("kind", "override").with("ruleId", ".m.rule.master")
            }
            "deleteRoomTag" => self.by("gina").with("tag", "u.gone"),
            "setProfileField" => self
                .by("gina")
                .with("keyName", "org.example.mood")
                .body(json!({ "org.example.mood": { "is": "fine" } })),
            "deleteProfileField" => self.by("gina").with("keyName", "org.example.gone"),
            "getRoomStateWithKey" => self.by("alice").with("eventType", "m.room.name"),
            "setRoomStateWithKey" => self
                .by("alice")
                .with("eventType", "org.example.note")
                .with("stateKey", "note")
                .body(json!({ "is": "x" })),
            "getSpaceHierarchy" => self.by("alice").with("roomId", &self.space).with("suggested_only", "false"),
            "peekEvents" => self.by("alice").with("room_id", &self.room),
            "getKeysChanges" => self.by("alice").with("from", "s1").with("to", "s2"),
            "sync" => self.by("alice").with("filter", &self.standing["filterId"]),
            "getEventContext" | "getRoomEvents" => self.by("alice").with("filter", r#"{"lazy_load_members":true}"#),
            "createRoom" => {
                self.by("dan").body(json!({ "name": "Another", "topic": "Else", "preset": "private_chat" }))
            }
            "queryPublicRooms" => {
                self.by("alice").body(json!({ "limit": 10, "filter": { "generic_search_term": "room" } }))
            }
            "setRoomVisibilityOnDirectory" => self.by("alice").body(json!({ "visibility": "private" })),
            "setReadMarker" => {
                let read = &self.message;
                self.by("bob").body(json!({ "m.fully_read": read, "m.read": read, "m.read.private": read }))
            }
            "postReceipt" => self.by("bob"),
            "setRoomAlias" => {
                let alias = format!("#a{}:localhost", self.number());
                self.by("alice").with("roomAlias", alias).body(json!({ "room_id": self.room })).once()
            }
            _ => return None,
        };
        Some(scene)
    }

    /// Gina keeps her keys, Bob deletes his, and Dan makes one backup after the other.
    async fn scene_of_a_backup(&self, operation_id: &str) -> Option<Scene> {
        let scene = match operation_id {
            "getRoomKeysVersion"
            | "getRoomKeysVersionCurrent"
            | "getRoomKeys"
            | "getRoomKeysByRoomId"
            | "getRoomKeyBySessionId"
            | "putRoomKeys"
            | "putRoomKeysByRoomId"
            | "putRoomKeyBySessionId"
            | "putRoomKeysVersion" => self.by("gina"),
            "deleteRoomKeys" | "deleteRoomKeysByRoomId" | "deleteRoomKeyBySessionId" => self.by("bob"),
            "postRoomKeysVersion" => self.by("dan"),
            "deleteRoomKeysVersion" => {
                let dan = self.person("dan");
                let made = dan.post("/_matrix/client/v3/room_keys/version", backup_of_keys()).await.ok();
                self.by("dan").with("version", made["version"].as_str().unwrap()).once()
            }
            _ => return None,
        };
        Some(scene)
    }

    /// Where somebody logs in, out, or is gone for good.
    async fn scene_of_an_account(&self, operation_id: &str) -> Option<Scene> {
        let erin = self.person("erin");
        let scene = match operation_id {
            "login" => self.by("erin").body(erin.password()).costly(),
            "generateLoginToken" => self.by("alice").body(json!({ "auth": self.person("alice").password() })).costly(),
            "logout" => self.by_client(&self.world.login(erin).await).once().costly(),
            "deleteDevice" | "deleteDevices" => {
                let device = self.world.login(erin).await;
                let id = device_of(&device).await;
                let body = json!({ "devices": [id], "auth": erin.password() });
                self.by_client(&device).with("deviceId", id).body(body).once().costly()
            }
            "refresh" => {
                let mut body = erin.password();
                body["refresh_token"] = true.into();
                let session = self.world.call("POST", "/_matrix/client/v3/login", None, Some(body)).await.ok();
                self.by("erin").body(json!({ "refresh_token": session["refresh_token"] })).once().costly()
            }
            "register" => {
                let name = format!("r{}", self.number());
                let auth = json!({ "type": "m.login.dummy" });
                self.by("erin")
                    .body(json!({ "username": name, "password": "open sesame", "auth": auth }))
                    .once()
                    .costly()
            }
            "logout_all" => self.by_client(&self.newcomer().await).once().costly(),
            "deactivateAccount" => {
                let user = self.newcomer().await;
                self.by_client(&user).body(json!({ "auth": user.password(), "erase": false })).once().costly()
            }
            "changePassword" => {
                let user = self.newcomer().await;
                let body = json!({ "new_password": "another one", "logout_devices": true, "auth": user.password() });
                self.by_client(&user).body(body).once().costly()
            }
            "getAdminSuspendUser" | "setAdminSuspendUser" | "getAdminLockUser" | "setAdminLockUser" => {
                self.by("root").with("userId", self.newcomer().await.user_id)
            }
            _ => return None,
        };
        Some(scene)
    }

    /// Where somebody encrypts.
    async fn scene_of_keys(&self, operation_id: &str) -> Option<Scene> {
        let scene = match operation_id {
            "queryKeys" => self.by("alice").body(json!({ "device_keys": { &self.person("bob").user_id: [] } })),
            "claimKeys" => {
                let device = device_of(self.person("bob")).await;
                let asked = json!({ &self.person("bob").user_id: { device: "signed_curve25519" } });
                self.by("alice").body(json!({ "one_time_keys": asked }))
            }
            "uploadKeys" => {
                let user = self.newcomer().await;
                let device = Pair::new(&device_of(&user).await);
                let body = json!({
                    "device_keys": device.device_keys(&user.user_id),
                    "one_time_keys": { "signed_curve25519:AAAA": device.one_time_key(&user.user_id) },
                });
                self.by_client(&user).body(body).once()
            }
            "uploadCrossSigningKeys" => {
                let user = self.newcomer().await;
                self.by_client(&user).body(CrossSigning::new().keys(&user.user_id)).once()
            }
            "uploadCrossSigningSignatures" => {
                let user = self.newcomer().await;
                let (id, keys) = (device_of(&user).await, CrossSigning::new());
                let device = Pair::new(&id);
                user.upload_keys(json!({ "device_keys": device.device_keys(&user.user_id) })).await.ok();
                user.vouch(keys.keys(&user.user_id)).await.ok();
                let signed = keys.self_signing.sign(&user.user_id, &device.device_keys(&user.user_id));
                self.by_client(&user).body(json!({ &user.user_id: { id: signed } })).once()
            }
            _ => return None,
        };
        Some(scene)
    }

    /// Where somebody proves an address, publishes it or is known by it.
    async fn scene_of_an_address(&self, operation_id: &str) -> Option<Scene> {
        let (erin, olga) = (self.person("erin"), self.person("olga"));
        let name = format!("e{}", self.number());
        let email = format!("{name}@example.org");
        let identity = IdentityServer::of(&self.world);
        let binding = json!({
            "id_server": identity.name(), "id_access_token": "secret", "sid": name, "client_secret": "d0nt-T3ll",
        });
        let scene = match operation_id {
            "requestTokenTo3PIDEmail" | "requestTokenToRegisterEmail" | "requestTokenToResetPasswordEmail" => {
                let body = json!({ "client_secret": "d0nt-T3ll", "email": email, "send_attempt": 1 });
                self.by("erin").body(body).once()
            }
            "requestTokenTo3PIDMSISDN" | "requestTokenToRegisterMSISDN" | "requestTokenToResetPasswordMSISDN" => {
                self.by("erin").body(json!({
                    "client_secret": "d0nt-T3ll", "country": "GB", "phone_number": "07700900001", "send_attempt": 1,
                }))
            }
            "add3PID" => {
                let mut body = self.prove(&email).await;
                body["auth"] = erin.password();
                self.by("erin").body(body).once().costly()
            }
            "bind3PID" => self.by("erin").body(binding),
            "post3PIDs" => self.by("erin").body(json!({ "three_pid_creds": binding })),
            "unbind3pidFromAccount" | "delete3pidFromAccount" => {
                erin.post("/_matrix/client/v3/account/3pid/bind", binding).await.ok();
                let body = json!({ "medium": "email", "address": email, "id_server": identity.name() });
                self.by("erin").body(body).once()
            }
            "inviteBy3PID" => {
                let body = json!({
                    "id_server": identity.name(), "id_access_token": "secret", "medium": "email", "address": email,
                });
                self.by("olga").in_room(&olga.create_room(json!({})).await).body(body)
            }
            _ => return None,
        };
        Some(scene)
    }

    /// Proves an address, and tells what its client has to show for it.
    async fn prove(&self, email: &str) -> Value {
        let body = json!({ "client_secret": "d0nt-T3ll", "email": email, "send_attempt": 1 });
        let path = "/_matrix/client/v3/account/3pid/email/requestToken";
        let asked = self.world.call("POST", path, None, Some(body)).await.ok();
        let mail = MailServer::of(&self.world).take().into_iter().find(|mail| mail.to == email).unwrap();
        let proof = json!({ "client_secret": "d0nt-T3ll", "sid": asked["sid"] });
        let mut submission = proof.clone();
        submission["token"] = mail.token().into();
        let submit_url = asked["submit_url"].as_str().unwrap().trim_start_matches("https://matrix.example.org");
        self.world.call("POST", submit_url, None, Some(submission)).await.ok();
        proof
    }

    /// Where a room is not what it was before: Olga's, with Pat.
    async fn scene_in_a_room_of_its_own(&self, operation_id: &str) -> Option<Scene> {
        let (alice, olga, pat) = (self.person("alice"), self.person("olga"), self.person("pat"));
        let public = || olga.create_room(json!({ "preset": "public_chat" }));
        let about_pat = json!({ "user_id": pat.user_id, "reason": "because" });
        let scene = match operation_id {
            "joinRoomById" | "joinRoom" => self.by("pat").in_room(&public().await).body(json!({ "reason": "because" })),
            "knockRoom" => {
                let knock = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
                let room = olga.create_room(json!({ "initial_state": [knock] })).await;
                self.by("pat").in_room(&room).body(json!({ "reason": "because" }))
            }
            "inviteUser" => self.by("olga").in_room(&olga.create_room(json!({})).await).body(about_pat).once(),
            "upgradeRoom" => {
                let room = olga.create_room(json!({})).await;
                self.by("olga").in_room(&room).body(json!({ "new_version": "12" })).once()
            }
            "ban" | "kick" | "unban" => {
                let room = public().await;
                pat.join(&room).await.ok();
                if operation_id == "unban" {
                    let ban = format!("/_matrix/client/v3/rooms/{}/ban", escape(&room));
                    olga.post(&ban, about_pat.clone()).await.ok();
                }
                self.by("olga").in_room(&room).body(about_pat).once()
            }
            "leaveRoom" | "forgetRoom" => {
                let room = public().await;
                pat.join(&room).await.ok();
                if operation_id == "forgetRoom" {
                    pat.leave(&room).await.ok();
                }
                self.by("pat").in_room(&room).once()
            }
            "redactEvent" => self.by("alice").with("eventId", alice.say(&self.room, "not for long").await).once(),
            "deleteRoomAlias" => {
                let alias = format!("#b{}:localhost", self.number());
                let path = format!("/_matrix/client/v3/directory/room/{}", escape(&alias));
                alice.put(&path, json!({ "room_id": self.room })).await.ok();
                self.by("alice").with("roomAlias", alias).once()
            }
            _ => return None,
        };
        Some(scene)
    }

    /// Somebody who was not there before.
    async fn newcomer(&self) -> Client {
        self.world.user(&format!("n{}", self.number())).await
    }
}

impl Scene {
    pub(super) fn with(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        self.values.insert(name, value.as_ref().to_owned());
        self
    }

    fn in_room(self, room: &str) -> Self {
        self.with("roomId", room).with("roomIdOrAlias", room)
    }

    pub(super) fn body(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }

    fn once(self) -> Self {
        Self { once: true, ..self }
    }

    fn costly(self) -> Self {
        Self { costly: true, ..self }
    }
}

fn backup_of_keys() -> Value {
    json!({ "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": { "public_key": "abcdefg" } })
}

async fn device_of(client: &Client) -> String {
    let whoami = client.get("/_matrix/client/v3/account/whoami").await.ok();
    whoami["device_id"].as_str().unwrap().to_owned()
}
