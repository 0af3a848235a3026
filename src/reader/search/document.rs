//! What there is to find in an event.
//!
//! What is found is what people read: the body of a message, and of an edit the new one.
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

/// The words of an accepted event by its JSON, if it has any to be found by.
pub(super) fn text_of_json(json: &str) -> Option<Text> {
    #[derive(Deserialize)]
    struct SearchedEvent<'a> {
        #[serde(rename = "type")]
        kind: TimelineEventType,
        #[serde(borrow)]
        content: &'a RawValue,
    }
    let event: SearchedEvent<'_> = serde_json::from_str(json).ok()?;
    text(&event.kind, event.content)
}

/// The words of an event by its type and content. Other types are not searched.
fn text(kind: &TimelineEventType, content: &RawValue) -> Option<Text> {
    let text = match kind {
        TimelineEventType::RoomMessage => Text { body: words(&body(content)?), ..Text::default() },
        TimelineEventType::RoomName => Text { name: words(&read::<NameContent>(content)?.name), ..Text::default() },
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
    struct MessageContent {
        body: String,
        #[serde(rename = "m.new_content")]
        new_content: Option<Box<MessageContent>>,
    }
    match read::<MessageContent>(content) {
        Some(MessageContent { new_content: Some(new), .. }) => Some(new.body),
        Some(message) => Some(message.body),
        // Whatever else is wrong with it, the fallback is what clients show.
        None => read::<Fallback>(content).map(|message| message.body),
    }
}

/// A message of which only the fallback can be read.
#[derive(Deserialize)]
struct Fallback {
    body: String,
}

/// An `m.room.name`.
#[derive(Deserialize)]
struct NameContent {
    name: String,
}

/// The topic and its representation as plain text, which usually say the same.
fn topic(content: &RawValue) -> Vec<String> {
    #[derive(Deserialize)]
    struct TopicContent {
        topic: String,
    }
    #[derive(Deserialize)]
    struct Rich {
        #[serde(rename = "m.topic")]
        topic: Representations,
    }
    // In the sender's order of preference.
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
    let mut found = read::<TopicContent>(content).map(|content| words(&content.topic)).unwrap_or_default();
    if let Some(rich) = read::<Rich>(content) {
        let plain = |text: &&Representation| text.mimetype.as_deref().is_none_or(|kind| kind == "text/plain");
        let plain = rich.topic.text.iter().find(plain).map(|text| words(&text.body)).unwrap_or_default();
        // Said twice, a topic would count twice.
        if plain != found {
            found.extend(plain);
        }
    }
    found
}
