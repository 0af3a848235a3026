//! A room that homeservers of the generator are in, and that others may join by their help: what they are answered is
//! written once.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::RemoteServer;
use super::event::{End, New, now};

const VERSION: &str = "12";

/// A public room of many members.
#[derive(Debug)]
pub(crate) struct ResidentRoom {
    pub(crate) room_id: String,
    /// What a join cites.
    auth_events: Vec<String>,
    end: End,
    /// To `send_join`.
    answer: Bytes,
}

impl ResidentRoom {
    /// A new room of so many members, of these servers in turn. The first one lets others in.
    pub(crate) fn new(servers: &[Arc<RemoteServer>], members: usize) -> Result<Self> {
        let first = &servers.first().context("a room needs a homeserver")?.identity;
        let creator = first.user_id("creator");
        let create = json!({
            "type": "m.room.create",
            "sender": creator,
            "state_key": "",
            "content": { "room_version": VERSION },
            "auth_events": [],
            "prev_events": [],
            "depth": 1,
            "origin_server_ts": now(),
        });
        let create = first.sign_event(create.as_object().cloned().unwrap_or_default())?;
        let mut end = End { room_id: format!("!{}", create.hash), prev_events: vec![create.id()], depth: 2 };
        let mut state = vec![create.json];

        let mut auth_events = Vec::new();
        let join = json!({ "membership": "join" });
        for (kind, state_key, content) in [
            ("m.room.member", creator.as_str(), join.clone()),
            ("m.room.power_levels", "", json!({ "users_default": 0 })),
            ("m.room.join_rules", "", json!({ "join_rule": "public" })),
        ] {
            let new = New { sender: &creator, kind, state_key: Some(state_key), content, auth_events: &auth_events };
            let event = end.append(first, new)?;
            auth_events.push(event.id());
            state.push(event.json);
        }
        // A join cites the power levels and the join rules.
        let cited = auth_events.split_off(1);
        let auth_chain = state.join(",");
        for (number, server) in (1..members).zip(servers.iter().cycle()) {
            let user_id = server.identity.user_id(&format!("member-{number}"));
            let new = New {
                sender: &user_id,
                kind: "m.room.member",
                state_key: Some(&user_id),
                content: join.clone(),
                auth_events: &cited,
            };
            state.push(end.append(&server.identity, new)?.json);
        }
        let answer = format!(
            r#"{{"origin":"{}","members_omitted":false,"auth_chain":[{auth_chain}],"state":[{}]}}"#,
            first.name,
            state.join(",")
        );
        Ok(Self { room_id: end.room_id.clone(), auth_events: cited, end, answer: answer.into() })
    }

    /// How many bytes whoever joins is sent.
    pub(crate) fn bytes(&self) -> usize {
        self.answer.len()
    }

    /// The answer to `make_join`. `user_id` is as it stands in the path.
    pub(super) fn template(&self, user_id: &str) -> Result<Bytes> {
        let user_id = percent_decode_str(user_id).decode_utf8().context("a user's name is no text")?;
        let template: Value = json!({
            "room_version": VERSION,
            "event": {
                "type": "m.room.member",
                "room_id": self.room_id,
                "sender": user_id,
                "state_key": user_id,
                "content": { "membership": "join" },
                "auth_events": self.auth_events,
                "prev_events": self.end.prev_events,
                "depth": self.end.depth,
                "origin_server_ts": now(),
            },
        });
        Ok(template.to_string().into())
    }

    /// The answer to `send_join`.
    pub(super) fn answer(&self) -> Bytes {
        self.answer.clone()
    }
}
