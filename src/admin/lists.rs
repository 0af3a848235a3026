//! Lists as an operator reads them: a line for each thing, its columns one below the other, or a JSON object a line for
//! scripts.
//!
//! Columns are made of ASCII and have fixed widths, except for the last one, where what people chose may stand. Names
//! of fields in JSON stay what they are: scripts go by them.

use serde::Serialize;

use super::{
    administration::{ListedAccount, SessionSummary, TokenSummary},
    failure::Failure,
};

/// Something that is listed.
pub(super) trait Line: Serialize {
    /// What stands above the columns.
    const HEAD: &'static str;

    /// Its columns, without the end of the line.
    fn line(&self) -> String;
}

impl Line for ListedAccount {
    const HEAD: &'static str = "CREATED     LAST SEEN   SESSIONS  ROLE   STATE        USER";

    fn line(&self) -> String {
        // An administrator is no guest, so the one says more than the other.
        let role = if self.admin {
            "admin"
        } else if self.guest {
            "guest"
        } else {
            "user"
        };
        // The strongest of them: whoever is locked need not know that they are suspended too.
        let state = match (self.deactivated, self.restrictions.locked, self.restrictions.suspended) {
            (true, _, _) => "deactivated",
            (_, true, _) => "locked",
            (_, _, true) => "suspended",
            _ => "active",
        };
        let (created, seen) = (day(Some(self.created_ts)), day(self.last_seen_ts));
        format!("{created:10}  {seen:10}  {:8}  {role:5}  {state:11}  {}", self.sessions, self.user_id)
    }
}

impl Line for SessionSummary {
    const HEAD: &'static str = "LAST SEEN         FROM             DEVICE      NAME";

    fn line(&self) -> String {
        let ip = self.last_seen_ip.as_deref().unwrap_or("-");
        let name = self.display_name.as_deref().unwrap_or("-");
        let line = format!("{:16}  {ip:15}  {:10}  {name}", minute(self.last_seen_ts), self.device_id);
        // Users choose both names, and a terminal obeys some characters.
        line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
    }
}

impl Line for TokenSummary {
    const HEAD: &'static str = "USED       EXPIRES           GOOD  TOKEN";

    fn line(&self) -> String {
        let allowed = self.uses_allowed.map_or("any".to_owned(), |allowed| allowed.to_string());
        let used = format!("{} of {allowed}", self.completed);
        let good = if self.usable { "yes" } else { "no" };
        format!(
            "{used:9}  {:16}  {good:4}  {}",
            self.expires_ts.map_or("never".to_owned(), |ts| minute(Some(ts))),
            self.token
        )
    }
}

/// What there is of something, with a line above it where that is `first`.
///
/// A list that comes page by page has its line once. As JSON it has none.
pub(super) fn render<T: Line>(list: &[T], json: bool, first: bool) -> Result<String, Failure> {
    let mut out = String::new();
    if first && !json && !list.is_empty() {
        out.push_str(T::HEAD);
        out.push('\n');
    }
    for thing in list {
        out.push_str(&if json { serde_json::to_string(thing)? } else { thing.line() });
        out.push('\n');
    }
    Ok(out)
}

/// The day of a time in milliseconds since the Unix epoch, in UTC: `2026-11-28`.
fn day(ts: Option<i64>) -> String {
    // By hand, since it is all the calendar that the program needs.
    let Some(ts) = ts else { return "-".to_owned() };
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

/// A day with hour and minute: `2026-11-28 14:03`.
fn minute(ts: Option<i64>) -> String {
    let Some(time) = ts else { return day(ts) };
    let minutes = time.rem_euclid(DAY) / 60_000;
    format!("{} {:02}:{:02}", day(ts), minutes / 60, minutes % 60)
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
            assert_eq!(minute(Some(ts)), shown);
        }
        assert_eq!(minute(None), "-");
        assert!(day(Some(i64::MAX)).starts_with("9999-12-"), "{}", day(Some(i64::MAX)));
    }

    #[test]
    fn what_users_chose_does_not_command_the_terminal() {
        let session = SessionSummary {
            device_id: "A\u{1b}[2J".to_owned(),
            display_name: Some("x\n\u{9b}".to_owned()),
            last_seen_ts: None,
            last_seen_ip: None,
        };
        assert!(!session.line().chars().any(char::is_control), "{:?}", session.line());
        let json = render(&[session], true, true).unwrap();
        assert_eq!(json.matches('\n').count(), 1, "{json}");
    }
}
