//! Times as people read them, in UTC.

/// The day of a time in milliseconds since the Unix epoch, in UTC: `2026-11-28`.
pub(crate) fn day(ts: i64) -> String {
    // By hand, since it is all the calendar that the program needs.
    let (mut year, mut left) = (1970, ts.div_euclid(DAY).max(0));
    // Nothing here is older than Matrix, and nobody plans for longer than a calendar.
    while year < 9_999 && left >= days_of(year) {
        left -= days_of(year);
        year += 1;
    }
    // 28 or 29: the other eleven months have 337 days.
    let february = days_of(year) - 337;
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if left < days {
            break;
        }
        left -= days;
        month += 1;
    }
    // December has no end to look for.
    format!("{year:04}-{month:02}-{:02}", left.min(30) + 1)
}

/// When a day begins that is written as [`day`] writes it. None for what is no day since 1970.
pub(crate) fn parse_day(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, in_month) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1970..=9_999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&in_month) {
        return None;
    }
    let years: i64 = (1970..year).map(days_of).sum();
    // As if every month had 31 days: seven days too many at most.
    let most = years + (month - 1) * 31 + in_month - 1;
    // No day is written like one that there is not.
    ((most - 7).max(0)..=most).map(|days| days * DAY).find(|ts| day(*ts) == text)
}

/// A day with hour and minute: `2026-11-28 14:03`.
pub(crate) fn minute(ts: i64) -> String {
    let minutes = ts.rem_euclid(DAY) / 60_000;
    format!("{} {:02}:{:02}", day(ts), minutes / 60, minutes % 60)
}

/// A time with seconds: `2026-11-28 19:03:07 UTC`.
pub(crate) fn second(ts: i64) -> String {
    format!("{}:{:02} UTC", minute(ts), ts.rem_euclid(60_000) / 1_000)
}

/// In milliseconds.
const DAY: i64 = 24 * 60 * 60 * 1_000;

fn days_of(year: i64) -> i64 {
    if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) { 366 } else { 365 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_read_as_it_is_written() {
        for days in (0..60_000).step_by(7) {
            assert_eq!(parse_day(&day(days * DAY)), Some(days * DAY));
        }
        assert_eq!(parse_day("2000-02-29"), Some(951_782_400_000));
        for text in
            ["", "2026", "2026-11", "1969-12-31", "2026-02-29", "2026-13-01", "2026-1-1", "2026-01-01T00", "-1-1-1"]
        {
            assert_eq!(parse_day(text), None, "{text}");
        }
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (ts, shown) in [
            (0, "1970-01-01 00:00"),
            (951_782_399_999, "2000-02-28 23:59"),
            (951_782_400_000, "2000-02-29 00:00"),
            (951_868_800_000, "2000-03-01 00:00"),
            (1_767_225_599_999, "2025-12-31 23:59"),
            (1_767_225_600_000, "2026-01-01 00:00"),
            (4_107_542_400_000, "2100-03-01 00:00"),
        ] {
            assert_eq!(minute(ts), shown);
        }
        assert_eq!(second(951_782_399_999), "2000-02-28 23:59:59 UTC");
        assert_eq!(second(1_795_892_587_000), "2026-11-28 19:03:07 UTC");
        assert!(day(i64::MAX).starts_with("9999-12-"), "{}", day(i64::MAX));
    }
}
