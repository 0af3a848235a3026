//! Every endpoint, one after the other: its valid request, and everything that is done to that.

use std::{
    panic::AssertUnwindSafe,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, stream};
use parking_lot::Mutex;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    NOT_YET,
    data::Operation,
    fixture::{Fixture, Scene},
    judge::{Answer, Expect},
    mutate::{Draft, Mutation, Others, Share, mutations},
};
use crate::world::{escape, texts};

/// How many endpoints are tried at once.
const AT_ONCE: usize = 8;

/// How often a request is sent at most to a server that says it should come again.
const TRIES: u32 = 5;

/// Endpoints whose valid request this server refuses, and how.
const REFUSED: [(&str, u16, &str); 9] = [
    // Nobody here is an application service.
    ("pingAppservice", 403, "M_FORBIDDEN"),
    ("updateAppserviceRoomDirectoryVisibility", 403, "M_FORBIDDEN"),
    // No policy server is configured.
    ("getWellknownPolicy", 404, "M_NOT_FOUND"),
    // It sends no text messages.
    ("requestTokenTo3PIDMSISDN", 400, "M_THREEPID_MEDIUM_NOT_SUPPORTED"),
    ("requestTokenToRegisterMSISDN", 403, "M_THREEPID_DENIED"),
    ("requestTokenToResetPasswordMSISDN", 403, "M_THREEPID_DENIED"),
    // It is connected to no other network.
    ("getProtocolMetadata", 404, "M_NOT_FOUND"),
    ("queryLocationByProtocol", 404, "M_NOT_FOUND"),
    ("queryUserByProtocol", 404, "M_NOT_FOUND"),
];

/// What everybody must still be able to read when the walk is over, whatever was sent meanwhile.
const AFTERWARDS: [&str; 9] = [
    "getDevices",
    "getJoinedMembersByRoom",
    "getMembersByRoom",
    "getRoomEvents",
    "getRoomState",
    "getSpaceHierarchy",
    "getThreadRoots",
    "getUserProfile",
    "queryPublicRooms",
];

pub(super) struct Walk {
    fixture: Fixture,
    share: Share,
    faults: Mutex<Vec<String>>,
    requests: AtomicUsize,
}

impl Walk {
    pub(super) fn new(fixture: Fixture, share: Share) -> Self {
        Self { fixture, share, faults: Mutex::default(), requests: AtomicUsize::new(0) }
    }

    /// Walks over all endpoints, and tells how many requests that took and what was wrong with their answers.
    pub(super) async fn over(self, operations: &[Operation]) -> (usize, Vec<String>) {
        let walk = &self;
        stream::iter(operations.iter().zip(1..))
            .for_each_concurrent(AT_ONCE, |(operation, seed)| async move {
                let tried = AssertUnwindSafe(Box::pin(walk.try_operation(operation, seed))).catch_unwind().await;
                if tried.is_err() {
                    walk.note(format!("{}: the walk could not go on, see above", operation.id));
                }
            })
            .await;
        let looked = AssertUnwindSafe(Box::pin(walk.look_afterwards(operations))).catch_unwind().await;
        if looked.is_err() {
            walk.note("afterwards: what was there before is not as it was, see above".to_owned());
        }
        let mut faults = self.faults.into_inner();
        faults.sort_unstable();
        (self.requests.into_inner(), faults)
    }

    fn note(&self, fault: String) {
        self.faults.lock().push(fault);
    }

    async fn try_operation(&self, operation: &Operation, seed: u64) {
        let mut scene = self.fixture.scene(operation.id).await;
        if NOT_YET.iter().any(|(_, ids)| ids.contains(&operation.id)) {
            return self.try_missing(operation, &scene).await;
        }
        let others =
            Others { stranger: &self.fixture.person("carol").token, former: &self.fixture.person("fred").token };
        let mutations = mutations(operation, &scene, &others, &self.share, seed);
        for mutation in [Mutation::none("valid")].iter().chain(&mutations) {
            let answer = self.try_mutation(operation, &scene, mutation).await;
            if scene.once && answer.is_none_or(|answer| answer.status == 200) {
                scene = self.fixture.scene(operation.id).await;
            }
        }
    }

    async fn try_mutation(&self, operation: &Operation, scene: &Scene, mutation: &Mutation) -> Option<Answer> {
        let mut draft = Draft::new(operation, scene, self.fixture.number());
        mutation.apply(&mut draft);
        let answer = match self.send(&draft).await {
            Ok(answer) => answer,
            Err(error) => {
                self.note(format!("{} [{}]: no answer: {error}", of(operation), mutation.name));
                return None;
            }
        };
        let mut faults = answer.faults(operation);
        faults.extend(mutation.expect.unmet(&answer, expected(operation)));
        if !faults.is_empty() {
            faults.truncate(3);
            let (status, said) = (answer.status, answer.excerpt());
            self.note(format!("{} [{}]: {}: {status} {said}", of(operation), mutation.name, faults.join("; ")));
        }
        Some(answer)
    }

    /// An endpoint that is not there yet says so.
    async fn try_missing(&self, operation: &Operation, scene: &Scene) {
        let draft = Draft::new(operation, scene, self.fixture.number());
        let answer = self.send(&draft).await.unwrap();
        if answer.errcode().as_deref() != Some("M_UNRECOGNIZED") {
            let (status, said) = (answer.status, answer.excerpt());
            self.note(format!("{}: is routed by now: take it out of NOT_YET: {status} {said}", of(operation)));
        }
    }

    /// Sends a request, and a few times more where the server asks for that because it is busy.
    async fn send(&self, draft: &Draft) -> Result<Answer, reqwest::Error> {
        let mut tries = 0;
        let response = loop {
            let response = self.send_once(draft).await?;
            tries += 1;
            let is_asked_for = response.status() == 503 && response.headers().contains_key(RETRY_AFTER);
            if !is_asked_for || tries == TRIES {
                break response;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let (status, content_type) = (response.status().as_u16(), content_type.unwrap_or_default().to_owned());
        Ok(Answer { status, content_type, body: response.bytes().await?.to_vec() })
    }

    async fn send_once(&self, draft: &Draft) -> Result<reqwest::Response, reqwest::Error> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let url = format!("{}{}", self.fixture.world.url, draft.path_and_query());
        let mut request = self.fixture.http.request(draft.method().clone(), url);
        if let Some(authorization) = &draft.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(content_type) = draft.content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        if let Some(body) = &draft.body {
            request = request.body(body.clone());
        }
        request.send().await
    }

    /// The server goes on, everybody reads what they read before, and the room is as it was.
    async fn look_afterwards(&self, operations: &[Operation]) {
        self.send_too_long_a_line().await;
        for operation in operations.iter().filter(|operation| AFTERWARDS.contains(&operation.id)) {
            let mut scene = self.fixture.scene(operation.id).await;
            if operation.id == "getUserProfile" {
                scene.values.insert("userId", self.fixture.person("gina").user_id.clone());
            }
            self.try_mutation(operation, &scene, &Mutation::none("afterwards")).await;
        }
        let sync = operations.iter().find(|operation| operation.id == "sync").unwrap();
        for (name, person) in self.fixture.everybody() {
            let mut scene = self.fixture.scene(sync.id).await;
            scene.token.clone_from(&person.token);
            scene.values.insert("filter", "{}".to_owned());
            self.try_mutation(sync, &scene, &Mutation::none(format!("afterwards, {name}"))).await;
        }

        let (alice, bob, room) = (self.fixture.person("alice"), self.fixture.person("bob"), &self.fixture.room);
        let at = |rest: &str| format!("/_matrix/client/v3/rooms/{}/{rest}", escape(room));
        assert_eq!(alice.get(&at("state/m.room.name/")).await.ok()["name"], "The room");
        let members = alice.get(&at("joined_members")).await.ok();
        let members: Vec<_> = members["joined"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(members, ["@alice:localhost", "@bob:localhost", "@gina:localhost"]);
        let root = bob.get(&at(&format!("event/{}", escape(&self.fixture.message)))).await.ok();
        assert_eq!(root["content"]["body"], "the root of a thread");
        alice.say(room, "goodbye").await;
        assert_eq!(texts(&bob.sync(None).await, room).last().map(String::as_str), Some("goodbye"));
    }

    /// A request line that HTTP itself does not take: no endpoint ever sees it. Whatever becomes of it, the server has
    /// not failed.
    async fn send_too_long_a_line(&self) {
        let node = &self.fixture.world.nodes[0].url;
        let mut stream = TcpStream::connect(node.trim_start_matches("http://")).await.unwrap();
        let line =
            format!("GET /_matrix/client/v3/profile/%40{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "x".repeat(70_000));
        let mut answer = vec![0; 200];
        // The server may hang up before it has heard everything.
        let heard = tokio::time::timeout(Duration::from_secs(20), async {
            if let Err(error) = stream.write_all(line.as_bytes()).await {
                eprintln!("a request line of 70,000 bytes was not read to its end: {error}");
            }
            stream.read(&mut answer).await.unwrap_or_default()
        });
        let heard = heard.await.expect("a connection that is neither answered nor closed");
        let answer = String::from_utf8_lossy(&answer[..heard]);
        if heard > 0 && !answer.starts_with("HTTP/1.1 4") {
            self.note(format!("a request line of 70,000 bytes: {answer}"));
        }
    }
}

fn of(operation: &Operation) -> String {
    format!("{} {}", operation.method, operation.path)
}

/// What the valid request leads to.
fn expected(operation: &Operation) -> Expect {
    let refused = REFUSED.iter().find(|(id, ..)| *id == operation.id);
    refused.map_or(Expect::Success, |(_, status, code)| Expect::Refusal(*status, code))
}
