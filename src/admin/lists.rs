//! Lists as an operator reads them: a line for each thing, its columns one below the other, or a JSON object a line for
//! scripts.
//!
//! Columns are made of ASCII and have fixed widths, except for the last one, where what people chose may stand. Names
//! of fields in JSON stay what they are: scripts go by them.

mod federation;
mod media;

use serde::Serialize;

use super::{
    administration::{ListedAccount, SessionSummary, TokenSummary},
    failure::Failure,
};
use crate::ground::date;

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
        // Users choose both names.
        printable(&format!("{:16}  {ip:15}  {:10}  {name}", minute(self.last_seen_ts), self.device_id))
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

/// Without the characters that a terminal obeys.
pub(super) fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
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
        out.push_str(&if json { write_json(thing)? } else { thing.line() });
        out.push('\n');
    }
    Ok(out)
}

/// One JSON object. JSON leaves DEL and what lies beyond ASCII as it is, and a terminal obeys some of that.
pub(super) fn write_json(thing: &impl Serialize) -> Result<String, Failure> {
    let mut json = String::new();
    for character in serde_json::to_string(thing)?.chars() {
        // Only texts have any: what JSON itself is made of has none.
        if character.is_control() {
            let escaped = format!("\\u{:04x}", u32::from(character));
            json.push_str(&escaped);
        } else {
            json.push(character);
        }
    }
    Ok(json)
}

/// A column of a list: a day where there is one.
fn day(ts: Option<i64>) -> String {
    ts.map_or_else(|| "-".to_owned(), date::day)
}

/// A column of a list: a day with hour and minute where there is one.
fn minute(ts: Option<i64>) -> String {
    ts.map_or_else(|| "-".to_owned(), date::minute)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let json = json.strip_suffix('\n').unwrap();
        assert!(!json.chars().any(char::is_control), "{json:?}");
        let read: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(read["display_name"], "x\n\u{9b}", "scripts read what was written");
    }
}
