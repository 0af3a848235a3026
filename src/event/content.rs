//! The content of an event as its sender writes it: JSON that every server reads alike.
//!
//! <https://spec.matrix.org/v1.19/appendices/#canonical-json>

use ruma::{CanonicalJsonObject, CanonicalJsonValue};
use serde_json::value::RawValue;

/// The JSON of an event's content, checked to be canonical: no floats, no integers beyond 2^53.
pub type Content = CanonicalJsonObject;

/// How deep a content may nest. Parsers give up at 128, and a content still goes into an event, into a room,
/// into a response.
const MAX_DEPTH: usize = 100;

/// Why some JSON can't be the content of an event.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    #[error("the content can't be part of an event: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the content is nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
}

/// Reads the content that somebody sends.
pub fn parse_content(json: &RawValue) -> Result<Content, ContentError> {
    let content: Content = serde_json::from_str(json.get())?;
    if content.values().all(|value| is_within(value, MAX_DEPTH - 1)) { Ok(content) } else { Err(ContentError::TooDeep) }
}

/// A content of our own making.
pub fn content<const N: usize>(fields: [(&str, CanonicalJsonValue); N]) -> Content {
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn is_within(value: &CanonicalJsonValue, depth: usize) -> bool {
    let below = |value: &CanonicalJsonValue| depth > 0 && is_within(value, depth - 1);
    match value {
        CanonicalJsonValue::Array(values) => values.iter().all(below),
        CanonicalJsonValue::Object(fields) => fields.values().all(below),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Content, ContentError> {
        parse_content(&RawValue::from_string(json.to_owned()).unwrap())
    }

    #[test]
    fn numbers_that_servers_read_differently_are_refused() {
        for number in ["1.5", "1.0", "1e3", "-0", "9007199254740992", "-9007199254740992", "99999999999999999999"] {
            assert!(parse(&format!(r#"{{"n":{number}}}"#)).is_err(), "{number}");
        }
        for number in ["0", "-1", "9007199254740991", "-9007199254740991"] {
            assert!(parse(&format!(r#"{{"n":{number}}}"#)).is_ok(), "{number}");
        }
    }

    #[test]
    fn only_an_object_is_a_content() {
        for json in ["[]", "null", "1", r#""text""#] {
            assert!(parse(json).is_err(), "{json}");
        }
    }

    #[test]
    fn depth_is_bounded_and_no_depth_breaks_anything() {
        let nested = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        assert!(parse(&nested(MAX_DEPTH)).is_ok());
        assert!(matches!(parse(&nested(MAX_DEPTH + 1)), Err(ContentError::TooDeep)));
        assert!(matches!(parse(&nested(100_000)), Err(ContentError::Json(_))));
    }
}
