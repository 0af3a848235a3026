//! For how long a well-known file is good.
//!
//! What says nothing of that expires at a time of its own for each server, or all would be asked for again at once a day
//! after a start.
//!
//! <https://www.rfc-editor.org/rfc/rfc9111#section-5.2>

use std::time::Duration;

use http::{HeaderMap, header};

use crate::ground::random::Random;

/// Where the headers say nothing, more or less a tenth of it.
const USUAL: Duration = Duration::from_hours(24);
/// Whatever the headers say.
const SHORTEST: Duration = Duration::from_mins(5);
const LONGEST: Duration = Duration::from_hours(48);
/// For how long it is remembered that there is no file.
pub(super) const ABSENT: Duration = Duration::from_hours(1);
/// That nobody answers.
pub(super) const SILENT: Duration = Duration::from_mins(2);
/// For how much longer what a file said is believed if it is not there any more.
pub(super) const REMEMBERED: Duration = Duration::from_hours(2);

/// `now`: in milliseconds since the Unix epoch.
pub(super) fn of(headers: &HeaderMap, now: i64, random: &Random) -> Duration {
    match of_cache_control(headers).or_else(|| of_expires(headers, now)) {
        Some(lifetime) => lifetime.clamp(SHORTEST, LONGEST),
        None => usual(random),
    }
}

/// From nine tenths of it to eleven.
fn usual(random: &Random) -> Duration {
    let fraction = f64::from(u16::from_le_bytes(random.bytes())) / f64::from(u16::MAX);
    USUAL.mul_f64(0.9 + 0.2 * fraction)
}

/// None where there is none of the directives that say it.
fn of_cache_control(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
    let mut lifetime = None;
    for directive in lines.flat_map(|line| line.split(',')).map(|directive| directive.trim().to_ascii_lowercase()) {
        match directive.split_once('=') {
            None if matches!(&*directive, "no-cache" | "no-store") => return Some(Duration::ZERO),
            Some(("max-age", seconds)) => {
                let seconds = seconds.trim_matches('"');
                // What is more than a number holds is long.
                let is_number = !seconds.is_empty() && seconds.bytes().all(|b| b.is_ascii_digit());
                lifetime = is_number.then(|| Duration::from_secs(seconds.parse().unwrap_or(u64::MAX)));
            }
            _ => {}
        }
    }
    lifetime
}

/// A time that can't be read is over.
fn of_expires(headers: &HeaderMap, now: i64) -> Option<Duration> {
    let expires = headers.get(header::EXPIRES)?.to_str().ok().and_then(parse_http_date);
    let left = expires.unwrap_or(now).saturating_sub(now);
    Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
}

/// In milliseconds since the Unix epoch. Of the three forms the one that is written:
/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn parse_http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split(' ').skip(1);
    let (day, month, year, time) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let midnight = crate::ground::date::parse_day(&format!("{year}-{month:02}-{day}"))?;
    let mut parts = time.splitn(3, ':').map(|part| part.parse::<i64>().ok().filter(|part| (0..=60).contains(part)));
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    Some(midnight + ((hours * 60 + minutes) * 60 + seconds) * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 784_111_777_000;

    fn lifetime(lines: &[(&str, &str)]) -> Duration {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
        }
        of(&headers, NOW, &Random::seeded(3))
    }

    #[test]
    fn headers_say_it_within_bounds() {
        let (hour, minutes) = (Duration::from_hours(1), Duration::from_mins);
        for (lines, expected) in [
            (&[("cache-control", "max-age=3600")][..], hour),
            (&[("cache-control", "public, Max-Age=\"3600\"")], hour),
            (&[("cache-control", "public"), ("cache-control", "max-age=3600")], hour),
            (&[("cache-control", "max-age=3600"), ("expires", "Sun, 06 Nov 1994 08:49:37 GMT")], hour),
            (&[("cache-control", "max-age=1")], minutes(5)),
            (&[("cache-control", "max-age=0")], minutes(5)),
            (&[("cache-control", "no-store, max-age=3600")], minutes(5)),
            (&[("cache-control", "no-cache")], minutes(5)),
            (&[("cache-control", "max-age=31536000")], LONGEST),
            (&[("cache-control", "max-age=99999999999999999999999")], LONGEST),
            (&[("expires", "Sun, 06 Nov 1994 09:49:37 GMT")], hour),
            (&[("expires", "Sun, 06 Nov 1994 07:49:37 GMT")], minutes(5)),
            (&[("expires", "0")], minutes(5)),
            (&[("cache-control", "public"), ("expires", "Sun, 06 Nov 1994 09:49:37 GMT")], hour),
        ] {
            assert_eq!(lifetime(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn without_headers_it_is_about_a_day() {
        let random = Random::seeded(4);
        let all: Vec<Duration> = (0..200).map(|_| of(&HeaderMap::new(), NOW, &random)).collect();
        let (least, most) = (USUAL.mul_f64(0.9), USUAL.mul_f64(1.1));
        assert!(all.iter().all(|one| (least..=most).contains(one)), "{all:?}");
        assert!(all.iter().any(|one| *one < USUAL.mul_f64(0.95)) && all.iter().any(|one| *one > USUAL.mul_f64(1.05)));
        for nothing in ["public", "max-age", "max-age=", "max-age=soon", "max-age=-1"] {
            assert!((least..=most).contains(&lifetime(&[("cache-control", nothing)])), "{nothing}");
        }
    }

    #[test]
    fn times_of_http_are_read() {
        assert_eq!(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(NOW));
        for nonsense in ["", "0", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun, 31 Feb 1994 08:49:37 GMT", "a b c d e f"] {
            assert_eq!(parse_http_date(nonsense), None, "{nonsense}");
        }
    }
}
