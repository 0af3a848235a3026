//! What there is to find in an event.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room_events>

use ruma::events::TimelineEventType;
use serde::Deserialize;

use super::words::words;
use crate::{
    event::{Pdu, Standing, Stored},
    store::search::Text,
};

/// The words of an event, if it has any to be found by. What was redacted has none, and what was encrypted neither.
pub(super) fn text_of(event: &Stored) -> Option<Text> {
    if event.standing != Standing::Accepted {
        return None;
    }
    let pdu = &event.pdu;
    let text = match pdu.kind() {
        TimelineEventType::RoomMessage => Text { body: words(&body(pdu)?), ..Text::default() },
        TimelineEventType::RoomName => Text { name: words(&pdu.content_as::<Name>().ok()?.name), ..Text::default() },
        TimelineEventType::RoomTopic => Text { topic: topic(pdu), ..Text::default() },
        _ => return None,
    };
    (text != Text::default()).then_some(text)
}

/// What a message says; of an edit, what it says instead.
fn body(pdu: &Pdu) -> Option<String> {
    #[derive(Deserialize)]
    struct Message {
        body: String,
        #[serde(rename = "m.new_content")]
        new_content: Option<Box<Message>>,
    }
    match pdu.content_as::<Message>() {
        Ok(Message { new_content: Some(new), .. }) => Some(new.body),
        Ok(message) => Some(message.body),
        // Whatever else is wrong with it, the fallback is what clients show.
        Err(_) => pdu.content_as::<Fallback>().ok().map(|message| message.body),
    }
}

#[derive(Deserialize)]
struct Fallback {
    body: String,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

/// The topic and its representation as plain text, which usually say the same.
fn topic(pdu: &Pdu) -> Vec<String> {
    #[derive(Deserialize)]
    struct Topic {
        topic: String,
    }
    #[derive(Deserialize)]
    struct Rich {
        #[serde(rename = "m.topic")]
        topic: Representations,
    }
    #[derive(Deserialize)]
    struct Representations {
        #[serde(rename = "m.text")]
        text: Vec<Representation>,
    }
    #[derive(Deserialize)]
    struct Representation {
        body: String,
        mimetype: Option<String>,
    }
    let mut found = pdu.content_as::<Topic>().map(|content| words(&content.topic)).unwrap_or_default();
    if let Ok(rich) = pdu.content_as::<Rich>() {
        let plain = |text: &&Representation| text.mimetype.as_deref().is_none_or(|kind| kind == "text/plain");
        let plain = rich.topic.text.iter().find(plain).map(|text| words(&text.body)).unwrap_or_default();
        if plain != found {
            found.extend(plain);
        }
    }
    found
}
