//! What there is to find in an event.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room_events>

use ruma::events::TimelineEventType;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::words::words;
use crate::{
    event::{Standing, Stored},
    store::search::Text,
};

/// The words of an event, if it has any to be found by. What was redacted has none, and what was encrypted neither.
pub(super) fn text_of(event: &Stored) -> Option<Text> {
    (event.standing == Standing::Accepted).then(|| text(event.pdu.kind(), event.pdu.content())).flatten()
}

/// The same of the JSON of an accepted event.
pub(super) fn text_of_json(json: &str) -> Option<Text> {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(rename = "type")]
        kind: TimelineEventType,
        #[serde(borrow)]
        content: &'a RawValue,
    }
    let event: Event<'_> = serde_json::from_str(json).ok()?;
    text(&event.kind, event.content)
}

fn text(kind: &TimelineEventType, content: &RawValue) -> Option<Text> {
    let text = match kind {
        TimelineEventType::RoomMessage => Text { body: words(&body(content)?), ..Text::default() },
        TimelineEventType::RoomName => Text { name: words(&read::<Name>(content)?.name), ..Text::default() },
        TimelineEventType::RoomTopic => Text { topic: topic(content), ..Text::default() },
        _ => return None,
    };
    (text != Text::default()).then_some(text)
}

/// None where the content is another.
fn read<'a, T: Deserialize<'a>>(content: &'a RawValue) -> Option<T> {
    serde_json::from_str(content.get()).ok()
}

/// What a message says; of an edit, what it says instead.
fn body(content: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Message {
        body: String,
        #[serde(rename = "m.new_content")]
        new_content: Option<Box<Message>>,
    }
    match read::<Message>(content) {
        Some(Message { new_content: Some(new), .. }) => Some(new.body),
        Some(message) => Some(message.body),
        // Whatever else is wrong with it, the fallback is what clients show.
        None => read::<Fallback>(content).map(|message| message.body),
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
fn topic(content: &RawValue) -> Vec<String> {
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
    let mut found = read::<Topic>(content).map(|content| words(&content.topic)).unwrap_or_default();
    if let Some(rich) = read::<Rich>(content) {
        let plain = |text: &&Representation| text.mimetype.as_deref().is_none_or(|kind| kind == "text/plain");
        let plain = rich.topic.text.iter().find(plain).map(|text| words(&text.body)).unwrap_or_default();
        if plain != found {
            found.extend(plain);
        }
    }
    found
}
