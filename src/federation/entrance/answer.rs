//! The answer to a join, taken apart while it comes: it may be as long as the state of the largest rooms, and is never in
//! memory as a whole.
//!
//! It is one object with two lists of events. Only how braces and quotes pair is looked at here; each event is read as the
//! JSON that it is by itself.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid>

use std::mem;

use serde_json::value::RawValue;

use crate::edge::federation_client::RemoteError;

/// How long one of the events may be, in bytes: characters may be escaped, which takes up to six times as much.
const MAX_EVENT_BYTES: usize = 8 * 65_536;

/// A part of the answer.
#[derive(Debug)]
pub(super) enum Piece {
    State(Box<RawValue>),
    AuthChain(Box<RawValue>),
    /// The join as the other server has signed it.
    Join(Box<RawValue>),
    /// Some of the state is left out, which was not asked for.
    MembersOmitted,
}

/// To which field of the answer something belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Field {
    State,
    AuthChain,
    Join,
    MembersOmitted,
    #[default]
    Other,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Text {
    #[default]
    Outside,
    Inside,
    /// After a backslash.
    Escaped,
}

/// Takes an answer apart, byte by byte.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// How many braces and brackets are open.
    depth: usize,
    has_begun: bool,
    text: Text,
    field: Field,
    /// Whether the next text is the name of a field.
    awaits_name: bool,
    /// Whether the field is a list.
    is_list: bool,
    /// What is collected: an event, or the name of a field.
    kept: Option<Vec<u8>>,
    /// At which depth the event ends that is collected.
    kept_at: usize,
    pieces: Vec<Piece>,
}

impl Splitter {
    /// Takes the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), RemoteError> {
        bytes.iter().try_for_each(|byte| self.step(*byte))
    }

    /// What has come since this was last called.
    pub(super) fn take(&mut self) -> Vec<Piece> {
        mem::take(&mut self.pieces)
    }

    /// Nothing more comes. An error where more should have.
    pub(super) fn end(&self) -> Result<(), RemoteError> {
        if self.has_begun && self.depth == 0 { Ok(()) } else { Err(malformed("breaks off")) }
    }

    fn step(&mut self, byte: u8) -> Result<(), RemoteError> {
        if let Some(kept) = &mut self.kept {
            if kept.len() >= MAX_EVENT_BYTES {
                return Err(malformed("has an event that is too long"));
            }
            kept.push(byte);
        }
        match (self.text, byte) {
            (Text::Escaped, _) | (Text::Outside, b'"') => {
                if self.text == Text::Outside && self.depth == 1 && self.awaits_name {
                    self.kept = Some(vec![byte]);
                }
                self.text = Text::Inside;
            }
            (Text::Inside, b'\\') => self.text = Text::Escaped,
            (Text::Inside, b'"') => {
                self.text = Text::Outside;
                self.end_name()?;
            }
            (Text::Outside, b'{' | b'[') => self.open(byte)?,
            (Text::Outside, b'}' | b']') => self.close()?,
            (Text::Outside, b',') if self.depth == 1 => {
                (self.field, self.awaits_name) = (Field::Other, true);
            }
            // Of `true`: the other values have no such letter at their beginning, and `true` has no second one.
            (Text::Outside, b't') if self.depth == 1 && self.field == Field::MembersOmitted => {
                self.pieces.push(Piece::MembersOmitted);
            }
            _ => {}
        }
        Ok(())
    }

    /// At the end of a text that may have been a name.
    fn end_name(&mut self) -> Result<(), RemoteError> {
        if self.depth != 1 || !self.awaits_name {
            return Ok(());
        }
        self.awaits_name = false;
        let name = self.kept.take().unwrap_or_default();
        let name: String = serde_json::from_slice(&name).ok().ok_or_else(|| malformed("is no JSON"))?;
        self.field = match &*name {
            "state" => Field::State,
            "auth_chain" => Field::AuthChain,
            "event" => Field::Join,
            "members_omitted" => Field::MembersOmitted,
            _ => Field::Other,
        };
        Ok(())
    }

    fn open(&mut self, byte: u8) -> Result<(), RemoteError> {
        match self.depth {
            0 if self.has_begun || byte != b'{' => return Err(malformed("is no object")),
            0 => (self.has_begun, self.awaits_name) = (true, true),
            1 if self.awaits_name => return Err(malformed("is no JSON")),
            1 => self.is_list = byte == b'[',
            _ => {}
        }
        let is_event = match self.field {
            Field::State | Field::AuthChain => self.depth == 2 && self.is_list,
            Field::Join => self.depth == 1,
            Field::MembersOmitted | Field::Other => false,
        };
        if is_event && byte == b'{' {
            (self.kept, self.kept_at) = (Some(vec![byte]), self.depth);
        }
        self.depth += 1;
        Ok(())
    }

    fn close(&mut self) -> Result<(), RemoteError> {
        self.depth = self.depth.checked_sub(1).ok_or_else(|| malformed("is no JSON"))?;
        if self.depth != self.kept_at {
            return Ok(());
        }
        let Some(kept) = self.kept.take() else { return Ok(()) };
        let event = String::from_utf8(kept).ok().and_then(|json| RawValue::from_string(json).ok());
        let event = event.ok_or_else(|| malformed("has an event that is no JSON"))?;
        self.pieces.push(match self.field {
            Field::State => Piece::State(event),
            Field::AuthChain => Piece::AuthChain(event),
            Field::Join | Field::MembersOmitted | Field::Other => Piece::Join(event),
        });
        Ok(())
    }
}

fn malformed(what: &str) -> RemoteError {
    RemoteError::Malformed(format!("its answer to a join {what}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn split(answer: &str, at_once: usize) -> Result<Vec<String>, RemoteError> {
        let (mut splitter, mut pieces) = (Splitter::default(), Vec::new());
        for bytes in answer.as_bytes().chunks(at_once) {
            splitter.push(bytes)?;
            pieces.extend(splitter.take().into_iter().map(|piece| match piece {
                Piece::State(json) => format!("state {json}"),
                Piece::AuthChain(json) => format!("auth {json}"),
                Piece::Join(json) => format!("join {json}"),
                Piece::MembersOmitted => "omitted".to_owned(),
            }));
        }
        splitter.end().map(|()| pieces)
    }

    #[test]
    fn an_answer_is_taken_apart_wherever_it_is_cut() {
        let answer = json!({
            "origin": "there",
            "other": { "state": [{ "no": 1 }], "auth_chain": [] },
            "state": [{ "a": "}\"{\\" }, { "state": [{ "b": [] }] }, 5],
            "auth_chain": [{ "c": "[" }],
            "members_omitted": false,
            "event": { "d": { "event": {} } },
            "servers_in_room": ["true", "t"],
        });
        let mut expected = vec![
            format!("state {}", json!({ "a": "}\"{\\" })),
            format!("state {}", json!({ "state": [{ "b": [] }] })),
            format!("auth {}", json!({ "c": "[" })),
            format!("join {}", json!({ "d": { "event": {} } })),
        ];
        expected.sort();
        for at_once in [1, 2, 7, 1_000] {
            let mut pieces = split(&answer.to_string(), at_once).unwrap();
            pieces.sort();
            assert_eq!(pieces, expected);
        }
        let pretty = serde_json::to_string_pretty(&answer).unwrap();
        assert_eq!(split(&pretty, 5).unwrap().len(), expected.len());
    }

    #[test]
    fn names_may_be_escaped_and_members_left_out() {
        let pieces = split(r#"{"st\u0061te":[{}],"members_omitted" : true}"#, 1).unwrap();
        assert_eq!(pieces, ["state {}", "omitted"]);
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for answer in ["", "[]", "{", r#"{"state":["#, r#"{"state":[{"a":1]}"#, "{}{}", "}", r#"{"state":[{]}]}"#] {
            let split = split(answer, 3);
            assert!(matches!(split, Err(RemoteError::Malformed(_))), "{answer}: {split:?}");
        }
        let long = format!(r#"{{"state":[{{"a":"{}"}}]}}"#, "x".repeat(MAX_EVENT_BYTES));
        assert!(matches!(split(&long, 4_096), Err(RemoteError::Malformed(_))));
    }
}
