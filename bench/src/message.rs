//! The messages that are sent, and how they are found again in a `/sync` answer.
//!
//! A message carries the moment at which it was sent, so a reader needs no table to find out how long it took; and a
//! mark is found by a plain search, because building JSON values would cost more than the server's work.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use memchr::memmem;
use serde::Deserialize;

const MARK: &str = "hearth-bench@";
const RUN_DIGITS: usize = 4;
const MICROS_DIGITS: usize = 14;
/// Bytes in a message's body.
const LENGTH: usize = 100;

/// Microseconds since the generator started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn micros(self) -> u64 {
        micros(self.start.elapsed())
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The text of a message of one scenario's run, sent at the given moment.
pub(crate) fn text(run: u16, micros: u64) -> String {
    let mark = format!("{MARK}{run:0RUN_DIGITS$}{micros:0MICROS_DIGITS$}@");
    format!("{mark:x<LENGTH$}")
}

/// When the messages of this run that the answer holds were sent.
pub(crate) fn sent_in(answer: &[u8], run: u16) -> impl Iterator<Item = u64> {
    memmem::find_iter(answer, MARK).filter_map(move |at| {
        let digits = answer.get(at + MARK.len()..)?.get(..RUN_DIGITS + MICROS_DIGITS)?;
        let (of_run, sent) = std::str::from_utf8(digits).ok()?.split_at_checked(RUN_DIGITS)?;
        (of_run.parse() == Ok(run)).then(|| sent.parse().ok()).flatten()
    })
}

/// How many rooms of the answer skip events of their timeline.
pub(crate) fn limited_in(answer: &[u8]) -> usize {
    memmem::find_iter(answer, r#""limited":true"#).count() + memmem::find_iter(answer, r#""limited": true"#).count()
}

/// The `next_batch` of a `/sync` answer.
///
/// None of the generator's own events holds this key, so the first one is the answer's own.
pub(crate) fn next_batch(answer: &[u8]) -> Result<String> {
    #[derive(Deserialize)]
    struct Sync {
        next_batch: String,
    }
    if let Some(token) = quick_next_batch(answer) {
        return Ok(token.to_owned());
    }
    let sync: Sync = serde_json::from_slice(answer).context("a /sync answer has no next_batch")?;
    Ok(sync.next_batch)
}

fn quick_next_batch(answer: &[u8]) -> Option<&str> {
    const KEY: &[u8] = br#""next_batch":"#;
    let value = answer.get(memmem::find(answer, KEY)? + KEY.len()..)?.trim_ascii_start().strip_prefix(b"\"")?;
    let token = value.get(..memchr::memchr(b'"', value)?)?;
    std::str::from_utf8(token).ok().filter(|token| !token.contains('\\'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_tells_when_it_was_sent() {
        let (old, new) = (text(1, 5), text(2, 1_234_567));
        assert_eq!(new.len(), LENGTH);
        let answer = format!(r#"{{"events":[{{"body":"{old}"}},{{"body":"{new}"}},{{"body":"{new}"#);
        assert_eq!(sent_in(answer.as_bytes(), 2).collect::<Vec<_>>(), [1_234_567, 1_234_567]);
        assert_eq!(sent_in(answer.as_bytes(), 3).count(), 0);
        assert_eq!(sent_in(b"hearth-bench@0002", 2).count(), 0);
    }

    #[test]
    fn next_batch_is_found_with_and_without_spaces() {
        assert_eq!(next_batch(br#"{"rooms":{},"next_batch":"s1_2"}"#).unwrap(), "s1_2");
        assert_eq!(next_batch(br#"{"next_batch": "s1_2", "rooms": {}}"#).unwrap(), "s1_2");
        assert_eq!(next_batch(br#"{"next_batch" : "a\"b"}"#).unwrap(), "a\"b");
        assert!(next_batch(b"{}").is_err());
    }
}
