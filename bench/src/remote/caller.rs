//! What a homeserver of the generator asks of the server under test.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::RemoteServer;
use super::event::{End, Event, JoinedRoom, New, now};
use crate::client::{Client, Room, success};
use crate::connection::{Connection, Target};

/// Whoever joins is called this.
const LOCALPART: &str = "bench";

/// One homeserver on one connection.
#[derive(Debug)]
pub(crate) struct Caller {
    server: Arc<RemoteServer>,
    connection: Connection,
    /// The name of the server under test.
    destination: String,
    transactions: u64,
}

impl Caller {
    pub(crate) fn new(target: &Target, server: &Arc<RemoteServer>, destination: &str) -> Self {
        Self {
            server: Arc::clone(server),
            connection: Connection::new(target),
            destination: destination.to_owned(),
            transactions: 0,
        }
    }

    /// Has a user join a public room (<https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>). `member`, a user of
    /// the server under test who is in the room, looks its state up.
    pub(crate) async fn join(&mut self, member: &mut Client, room: &Room) -> Result<JoinedRoom> {
        #[derive(Deserialize)]
        struct Answer {
            room_version: String,
            event: Template,
        }
        #[derive(Deserialize)]
        struct Template {
            room_id: String,
            auth_events: Vec<String>,
            prev_events: Vec<String>,
            depth: u64,
        }
        let user_id = self.server.identity.user_id(LOCALPART);
        let escaped = utf8_percent_encode(&user_id, NON_ALPHANUMERIC);
        let path = format!("/_matrix/federation/v1/make_join/{}/{escaped}?ver=11&ver=12", room.id());
        let answer = self.call(&Method::GET, &path, String::new()).await?;
        let answer: Answer = serde_json::from_slice(&answer).context("make_join was answered with unexpected JSON")?;
        let Template { room_id, auth_events, prev_events, depth } = answer.event;
        let mut end = End { room_id, prev_events, depth };
        let join = New {
            sender: &user_id,
            kind: "m.room.member",
            state_key: Some(&user_id),
            content: json!({ "membership": "join" }),
            auth_events: &auth_events,
        };
        let join = end.append(&self.server.identity, join)?;
        let event_id = join.id();
        let escaped = utf8_percent_encode(&event_id, NON_ALPHANUMERIC);
        let path = format!("/_matrix/federation/v2/send_join/{}/{escaped}", room.id());
        self.call(&Method::PUT, &path, join.json).await?;

        let mut auth_events = vec![member.state_event_id(room, "m.room.power_levels").await?, event_id];
        // Since version 12 the room itself is called by it.
        if answer.room_version == "11" {
            auth_events.push(member.state_event_id(room, "m.room.create").await?);
        }
        Ok(JoinedRoom { room: room.clone(), user_id, auth_events, end })
    }

    /// Sends a transaction, of which everything has to be taken
    /// (<https://spec.matrix.org/v1.19/server-server-api/#transactions>).
    pub(crate) async fn send(&mut self, events: &[Event]) -> Result<()> {
        #[derive(Deserialize)]
        struct Answer {
            pdus: Map<String, Value>,
        }
        let pdus: Vec<&str> = events.iter().map(|event| event.json.as_str()).collect();
        let body = format!(
            r#"{{"edus":[],"origin":"{}","origin_server_ts":{},"pdus":[{}]}}"#,
            self.server.identity.name,
            now(),
            pdus.join(",")
        );
        self.transactions += 1;
        let path = format!("/_matrix/federation/v1/send/{}-{}", now(), self.transactions);
        let answer = self.call(&Method::PUT, &path, body).await?;
        let answer: Answer =
            serde_json::from_slice(&answer).context("a transaction was answered with unexpected JSON")?;
        match answer.pdus.iter().find(|(_, result)| result.get("error").is_some()) {
            Some((event_id, refused)) => bail!("the server did not take {event_id}: {refused}"),
            None => Ok(()),
        }
    }

    /// One signed request that must succeed. `body` is canonical JSON or empty.
    async fn call(&mut self, method: &Method, path: &str, body: String) -> Result<Bytes> {
        let authorization = self.server.identity.authorization(&self.destination, method, path, &body)?;
        let answer = self.connection.request(method, path, Some(&authorization), body.into()).await?;
        success(method, path, answer)
    }
}
