//! Other servers that say what a test tells them to.

use std::collections::HashMap;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedEventId, RoomAliasId, RoomId, ServerName, UInt, UserId, api::Direction};
use serde_json::Value;

use super::asked::{Answer, AskedServers, RoomsWanted};
use crate::edge::federation_client::RemoteError;

/// All other servers.
#[derive(Default)]
pub(crate) struct Script {
    answers: Mutex<HashMap<String, Result<Value, RemoteError>>>,
    asked: Mutex<Vec<String>>,
}

impl Script {
    /// From now on this is the answer to a question, such as `room far.example !a:b`.
    pub(crate) fn answer(&self, question: &str, answer: Value) {
        self.answers.lock().insert(question.to_owned(), Ok(answer));
    }

    pub(crate) fn fail(&self, question: &str, error: RemoteError) {
        self.answers.lock().insert(question.to_owned(), Err(error));
    }

    /// What was asked since this was called last.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock())
    }

    fn find(&self, question: String) -> Result<Value, RemoteError> {
        let unknown = || {
            let errcode = Some("M_NOT_FOUND".to_owned());
            Err(RemoteError::Refused { status: 404, errcode, message: "it knows nothing of it".to_owned() })
        };
        let answer = self.answers.lock().get(&question).cloned().unwrap_or_else(unknown);
        self.asked.lock().push(question);
        answer
    }

    fn say(&self, question: String) -> Answer<'static, Value> {
        std::future::ready(self.find(question)).boxed()
    }
}

impl AskedServers for Script {
    fn alias<'a>(&'a self, alias: &'a RoomAliasId) -> Answer<'a, Value> {
        self.say(format!("alias {alias}"))
    }

    fn profile<'a>(&'a self, user_id: &'a UserId) -> Answer<'a, Value> {
        self.say(format!("profile {user_id}"))
    }

    fn public_rooms<'a>(&'a self, server: &'a ServerName, wanted: &'a RoomsWanted) -> Answer<'a, Value> {
        self.say(format!("rooms {server} {} {:?}", wanted.limit, wanted.since))
    }

    fn hierarchy<'a>(&'a self, server: &'a ServerName, room_id: &'a RoomId) -> Answer<'a, Value> {
        self.say(format!("room {server} {room_id}"))
    }

    fn event_by_timestamp<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        (ts, _): (MilliSecondsSinceUnixEpoch, Direction),
    ) -> Answer<'a, (OwnedEventId, MilliSecondsSinceUnixEpoch)> {
        let event = |said: Value| {
            let sent = said["ts"].as_u64().and_then(|sent| UInt::try_from(sent).ok()).unwrap();
            let event_id = OwnedEventId::try_from(said["event_id"].as_str().unwrap()).unwrap();
            (event_id, MilliSecondsSinceUnixEpoch(sent))
        };
        let answer = self.find(format!("time {server} {room_id} {}", ts.get()));
        std::future::ready(answer.map(event)).boxed()
    }
}
