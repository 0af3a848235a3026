//! One event, one line: whatever strangers get into a text that is logged (an error's message, the name of a room), it
//! neither looks like a line of its own nor fills the log.
//!
//! It works on what the formatter has written, byte by byte, rather than on each field: whatever a later field holds is
//! covered too. A line of plain ASCII, which nearly every line is, is passed on as it is.

use std::{borrow::Cow, io};

use serde_json::Value;
use tracing_subscriber::fmt::MakeWriter;

/// In bytes. A panic with its backtrace fits in.
const MAX_LINE: usize = 32 * 1024;
/// In bytes, of each text within a line that is too long.
const MAX_TEXT: usize = 1024;
/// Before what goes on in a new line, where it does: a log line begins with its time.
const CONTINUED: &str = "\n  | ";

/// How events are written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Format {
    /// With colours, there are sequences for the terminal in it.
    Human { colours: bool },
    /// As objects, which have no line breaks of their own.
    Json,
}

/// Writes events that the formatter hands over whole.
pub(super) struct LogLines<W> {
    inner: W,
    format: Format,
}

impl<W> LogLines<W> {
    pub(super) fn new(inner: W, format: Format) -> Self {
        Self { inner, format }
    }
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for LogLines<W> {
    type Writer = LogLines<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        LogLines { inner: self.inner.make_writer(), format: self.format }
    }

    fn make_writer_for(&'a self, metadata: &tracing::Metadata<'_>) -> Self::Writer {
        LogLines { inner: self.inner.make_writer_for(metadata), format: self.format }
    }
}

impl<W: io::Write> io::Write for LogLines<W> {
    /// One call is one event, as the formatter promises. The answer is the length that was handed over, not what was
    /// written.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = event.strip_suffix(b"\n").unwrap_or(event);
        // ASCII without control characters has no second line and nothing for the terminal.
        let is_plain = text.iter().all(|byte| (0x20..0x7f).contains(byte));
        match self.format {
            _ if is_plain && text.len() <= MAX_LINE => self.inner.write_all(event)?,
            Format::Human { colours } => {
                let line = one_line(&String::from_utf8_lossy(text), colours);
                self.inner.write_all(format!("{line}\n").as_bytes())?;
            }
            Format::Json if text.len() <= MAX_LINE => self.inner.write_all(event)?,
            Format::Json => {
                let line = shorten_object(&String::from_utf8_lossy(text));
                self.inner.write_all(format!("{line}\n").as_bytes())?;
            }
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A text whose further lines can't be taken for events, and in which nothing moves the cursor or turns letters around.
fn one_line(text: &str, colours: bool) -> String {
    let shortened = shorten(text, MAX_LINE);
    let mut line = String::with_capacity(shortened.len());
    let mut rest = shortened.chars();
    while let Some(character) = rest.next() {
        match character {
            '\n' => line.push_str(CONTINUED),
            '\x1b' if colours && is_colour(rest.as_str()) => line.push(character),
            _ if is_unseen(character) => line.extend(character.escape_default()),
            _ => line.push(character),
        }
    }
    line
}

/// Whether a text goes on with the rest of a sequence for a colour, which the formatter writes.
fn is_colour(text: &str) -> bool {
    let parameters = |c: char| c.is_ascii_digit() || c == ';';
    text.strip_prefix('[').is_some_and(|text| text.trim_start_matches(parameters).starts_with('m'))
}

/// What controls a terminal, or the direction in which it writes.
fn is_unseen(character: char) -> bool {
    let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || character.is_control() && character != '\t'
}

/// An object whose texts are not long. What is longer than [`MAX_LINE`] all the same, because it has many texts, is
/// left so: a broken object would be worse. What can't be read as JSON becomes a line of text.
fn shorten_object(text: &str) -> String {
    match serde_json::from_str(text) {
        Ok(mut value) => {
            shorten_texts(&mut value);
            value.to_string()
        }
        Err(_) => one_line(text, false),
    }
}

fn shorten_texts(value: &mut Value) {
    match value {
        Value::String(text) => *text = shorten(text, MAX_TEXT).into_owned(),
        Value::Array(values) => values.iter_mut().for_each(shorten_texts),
        Value::Object(fields) => fields.values_mut().for_each(shorten_texts),
        _ => {}
    }
}

/// Cut before the character that would go beyond `limit` bytes, with a note of how much is left out.
fn shorten(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return text.into();
    }
    let (kept, left) = text.split_at(text.floor_char_boundary(limit));
    format!("{kept}… ({} bytes more)", left.len()).into()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const HUMAN: Format = Format::Human { colours: false };

    fn written(event: &str, format: Format) -> String {
        let mut lines = LogLines::new(Vec::new(), format);
        lines.write_all(event.as_bytes()).unwrap();
        String::from_utf8(lines.inner).unwrap()
    }

    #[test]
    fn a_line_is_written_as_it_is() {
        assert_eq!(written("2026 INFO all is well\n", HUMAN), "2026 INFO all is well\n");
        assert_eq!(written("{\"message\":\"a\\nb\"}\n", Format::Json), "{\"message\":\"a\\nb\"}\n");
    }

    #[test]
    fn no_text_begins_a_line_of_its_own() {
        let forged = written("2026 WARN no such room: a\n2027 INFO all is well\r2028 INFO really\n", HUMAN);
        assert_eq!(forged, "2026 WARN no such room: a\n  | 2027 INFO all is well\\r2028 INFO really\n");
    }

    #[test]
    fn no_text_plays_with_the_terminal() {
        let event = "2026 \x1b[2m INFO\x1b[0m Grüße\tan \x1b[2J\u{9b}2J \u{202e}eno \x07\n";
        let told = "Grüße\tan \\u{1b}[2J\\u{9b}2J \\u{202e}eno \\u{7}\n";
        assert_eq!(written(event, HUMAN), format!("2026 \\u{{1b}}[2m INFO\\u{{1b}}[0m {told}"));
        assert_eq!(written(event, Format::Human { colours: true }), format!("2026 \x1b[2m INFO\x1b[0m {told}"));
    }

    #[test]
    fn what_is_long_is_cut() {
        let event = format!("2026 WARN {}\n", "é".repeat(MAX_LINE));
        let line = written(&event, HUMAN);
        assert!(line.len() < MAX_LINE + 100 && line.ends_with(" bytes more)\n"), "{}", line.len());

        let event = serde_json::json!({ "level": "WARN", "error": "é".repeat(MAX_LINE), "span": { "a": ["b"] } });
        let line = written(&format!("{event}\n"), Format::Json);
        let shortened: Value = serde_json::from_str(&line).unwrap();
        assert!(line.len() < 2 * MAX_TEXT);
        assert_eq!((&shortened["level"], &shortened["span"]), (&event["level"], &event["span"]));
        assert!(shortened["error"].as_str().unwrap().ends_with(" bytes more)"), "{line}");
    }
}
