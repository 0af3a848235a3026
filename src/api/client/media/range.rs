//! Parts of a file, and files that a client has already.
//!
//! One range is answered as such. Several are answered with all of it, as the standard allows: nobody who plays a video
//! asks for them, and what they cost is easily made absurd.
//!
//! <https://www.rfc-editor.org/rfc/rfc9110#name-range-requests> and
//! <https://www.rfc-editor.org/rfc/rfc9110#name-conditional-requests>

use std::ops::Range;

use http::{HeaderMap, HeaderName, header};

/// What of a file is to be sent, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    All,
    Some(Range<u64>),
    /// None of it: it is shorter than that.
    Beyond,
}

/// On what a client makes the answer depend.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions {
    range: Option<String>,
    if_range: Option<String>,
    if_none_match: Vec<String>,
}

impl Conditions {
    /// What can't be read is as if it were not there, as the standard wants it.
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let texts = |name: HeaderName| -> Vec<String> {
            headers.get_all(name).iter().filter_map(|value| value.to_str().ok().map(ToOwned::to_owned)).collect()
        };
        let one = |name: HeaderName| texts(name).into_iter().next();
        Self { range: one(header::RANGE), if_range: one(header::IF_RANGE), if_none_match: texts(header::IF_NONE_MATCH) }
    }

    /// Whether the client has what this tag names.
    pub(super) fn has(&self, etag: &str) -> bool {
        let mut tags = self.if_none_match.iter().flat_map(|list| list.split(',')).map(str::trim);
        tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
    }

    /// The part of a file that is asked for, which has this tag and so many bytes.
    pub(super) fn part(&self, etag: &str, bytes: u64) -> Part {
        let Some(range) = &self.range else { return Part::All };
        // A part of what has become another file would not fit to the rest. A date is compared with none.
        if self.if_range.as_ref().is_some_and(|tag| tag.trim() != etag) {
            return Part::All;
        }
        parse(range, bytes).unwrap_or(Part::All)
    }
}

/// None for what is no single range of bytes.
fn parse(range: &str, bytes: u64) -> Option<Part> {
    let (unit, range) = range.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let range = if first.is_empty() {
        // So many from the end.
        bytes.saturating_sub(number(last)?)..bytes
    } else {
        let first = number(first)?;
        let last = if last.is_empty() { u64::MAX } else { number(last)? };
        if last < first {
            return None;
        }
        first..last.saturating_add(1).min(bytes)
    };
    Some(if range.is_empty() { Part::Beyond } else { Part::Some(range) })
}

/// What is too large for a number is larger than every file.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const TAG: &str = "\"abc\"";

    fn conditions(fields: &[(HeaderName, &'static str)]) -> Conditions {
        let fields = fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        Conditions::read(&fields.collect())
    }

    fn part(range: &'static str, bytes: u64) -> Part {
        conditions(&[(header::RANGE, range)]).part(TAG, bytes)
    }

    #[test]
    fn one_range_is_a_part() {
        for (range, first, end) in [
            ("bytes=0-0", 0, 1),
            ("bytes=0-", 0, 10),
            ("bytes=3-5", 3, 6),
            ("bytes=9-9", 9, 10),
            ("bytes=3-99999999999999999999999", 3, 10),
            ("Bytes = 3-5", 3, 6),
            ("bytes=-4", 6, 10),
            ("bytes=-99", 0, 10),
        ] {
            assert_eq!(part(range, 10), Part::Some(first..end), "{range}");
        }
    }

    #[test]
    fn what_is_beyond_the_end_is_refused() {
        for range in ["bytes=10-", "bytes=10-20", "bytes=99999999999999999999999-", "bytes=-0"] {
            assert_eq!(part(range, 10), Part::Beyond, "{range}");
        }
        assert_eq!(part("bytes=0-", 0), Part::Beyond);
        assert_eq!(part("bytes=-1", 0), Part::Beyond);
    }

    /// Trap: many ranges of one file.
    #[test]
    fn what_is_no_range_or_several_is_not_heeded() {
        for range in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5-3",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=-1-2",
            "bytes=1.5-2",
            "bytes=0-0,2-3",
            "bytes=0-,0-,0-,0-",
            "items=0-1",
        ] {
            assert_eq!(part(range, 10), Part::All, "{range}");
        }
        assert_eq!(conditions(&[]).part(TAG, 10), Part::All);
    }

    #[test]
    fn a_part_is_of_the_file_that_the_client_has() {
        let part = |tag| conditions(&[(header::RANGE, "bytes=0-0"), (header::IF_RANGE, tag)]).part(TAG, 10);
        assert_eq!(part("\"abc\""), Part::Some(0..1));
        for other in ["\"abd\"", "W/\"abc\"", "Thu, 01 Jan 2026 00:00:00 GMT", ""] {
            assert_eq!(part(other), Part::All, "{other}");
        }
    }

    #[test]
    fn what_a_client_has_is_known_by_its_tag() {
        let has = |tags| conditions(&[(header::IF_NONE_MATCH, tags)]).has(TAG);
        for tags in ["\"abc\"", "W/\"abc\"", "\"x\", \"abc\"", "*"] {
            assert!(has(tags), "{tags}");
        }
        for tags in ["", "abc", "\"abcd\"", "\"x\", \"y\""] {
            assert!(!has(tags), "{tags}");
        }
        assert!(!conditions(&[]).has(TAG));
    }
}
