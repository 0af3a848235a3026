//! What a server gets whose user has joined: the whole state of a room, which may be large. It is written while it is
//! read, so that it is never there a second time as text.

use std::{io, iter, sync::Arc, vec};

use axum::body::Bytes;
use futures_util::{StreamExt as _, stream};
use ruma::ServerName;
use serde_json::json;

use crate::{
    api::endpoint::{AnswerBody, RawAnswer},
    event::Pdu,
    room::Joined,
};

/// How long a part of the answer is, about, in bytes.
const PART: usize = 64 * 1024;

/// What stands around the answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Envelope {
    Object,
    /// The first version has the answer in a list, behind a status.
    List,
}

impl Envelope {
    fn ends(self) -> (&'static str, &'static str) {
        match self {
            Self::Object => ("", ""),
            Self::List => ("[200,", "]"),
        }
    }
}

/// `origin` is this server.
pub(super) fn write(joined: Joined, origin: &ServerName, envelope: Envelope) -> RawAnswer {
    let parts = parts(joined, origin, envelope).map(Ok::<_, io::Error>);
    RawAnswer::json(AnswerBody::Parts(stream::iter(parts).boxed()))
}

fn parts(joined: Joined, origin: &ServerName, envelope: Envelope) -> impl Iterator<Item = Bytes> + Send + use<> {
    let Joined { join, state, auth_chain, servers, omits_members } = joined;
    let (before, behind) = envelope.ends();
    let head = format!(
        r#"{before}{{"origin":{},"event":{},"members_omitted":{omits_members},"servers_in_room":{},"state":["#,
        json!(origin),
        join.json(),
        json!(servers),
    );
    iter::once(Bytes::from(head))
        .chain(Events::of(state))
        .chain(iter::once(Bytes::from_static(br#"],"auth_chain":["#)))
        .chain(Events::of(auth_chain))
        .chain(iter::once(Bytes::from(format!("]}}{behind}"))))
}

/// Writes the elements of a list of events. Each event is let go of once it is written.
struct Events {
    left: vec::IntoIter<Arc<Pdu>>,
    has_begun: bool,
}

impl Events {
    fn of(events: Vec<Arc<Pdu>>) -> Self {
        Self { left: events.into_iter(), has_begun: false }
    }
}

impl Iterator for Events {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut part = Vec::new();
        for pdu in self.left.by_ref() {
            if self.has_begun {
                part.push(b',');
            }
            self.has_begun = true;
            part.extend_from_slice(pdu.json().get().as_bytes());
            if part.len() >= PART {
                break;
            }
        }
        (!part.is_empty()).then(|| part.into())
    }
}

#[cfg(test)]
mod tests {
    use ruma::{CanonicalJsonObject, RoomVersionId, owned_server_name, server_name};
    use serde_json::Value;

    use super::*;
    use crate::ground::room_version::rules;

    fn pdu(number: usize, body: &str) -> Arc<Pdu> {
        let event = json!({
            "room_id": "!room:here",
            "sender": "@alice:here",
            "type": "m.room.topic",
            "state_key": number.to_string(),
            "content": { "topic": body },
            "origin_server_ts": 1,
            "depth": 1,
            "prev_events": [],
            "auth_events": [],
        });
        let event: CanonicalJsonObject = serde_json::from_value(event).unwrap();
        Arc::new(Pdu::from_canonical(&event, rules(&RoomVersionId::V11).unwrap()).unwrap())
    }

    fn joined(state: usize, body: &str) -> Joined {
        Joined {
            join: pdu(0, "join"),
            state: (1..=state).map(|number| pdu(number, body)).collect(),
            auth_chain: vec![pdu(1, body)],
            servers: [owned_server_name!("here"), owned_server_name!("there")].into(),
            omits_members: false,
        }
    }

    fn text(parts: &[Bytes]) -> Value {
        serde_json::from_slice(&parts.concat()).unwrap()
    }

    #[test]
    fn an_answer_is_one_object_and_of_the_first_version_a_list() {
        let parts_of = |envelope| parts(joined(2, "\"quoted\""), server_name!("here"), envelope).collect::<Vec<_>>();
        let object = text(&parts_of(Envelope::Object));
        assert_eq!(object["state"].as_array().unwrap().len(), 2);
        assert_eq!(object["state"][1]["content"]["topic"], "\"quoted\"");
        assert_eq!(object["auth_chain"].as_array().unwrap().len(), 1);
        assert_eq!(object["event"]["content"]["topic"], "join");
        assert_eq!(object["servers_in_room"], json!(["here", "there"]));
        assert_eq!((&object["members_omitted"], &object["origin"]), (&json!(false), &json!("here")));
        let list = text(&parts_of(Envelope::List));
        assert_eq!(list, json!([200, object]));
    }

    #[test]
    fn no_part_is_much_longer_than_others_and_empty_lists_are_lists() {
        let body = "x".repeat(10_000);
        let parts_of = |state| parts(joined(state, &body), server_name!("here"), Envelope::Object).collect::<Vec<_>>();
        let many = parts_of(100);
        assert!(many.len() > 15, "{}", many.len());
        assert!(many.iter().all(|part| part.len() < PART + 11_000));
        assert_eq!(text(&many)["state"].as_array().unwrap().len(), 100);
        assert_eq!(text(&parts_of(0))["state"], json!([]));
    }
}
