//! Lists of media, of how much they take, and of what is under quarantine.

use super::{Line, day, printable};
use crate::admin::{
    media_summary::{MediaSummary, OriginSummary, QuarantineSummary, StoreSummary, UserSummary},
    units,
};

impl Line for MediaSummary {
    const HEAD: &'static str =
        "CREATED     LAST USED          SIZE  ORIGIN   STATE        ADDRESS, USER, TYPE AND NAME";

    fn line(&self) -> String {
        let state = match (&self.quarantined_by, &self.digest) {
            (Some(_), _) => "quarantined",
            (None, Some(_)) => "there",
            (None, None) => "awaited",
        };
        let (created, used) = (day(Some(self.created_ts)), day(Some(self.last_used_ts)));
        let (size, origin, mxc) = (size(self.bytes), self.origin, &self.mxc);
        let user = self.user_id.as_ref().map_or("-", |user_id| user_id.as_str());
        let (kind, name) = (self.content_type.as_deref().unwrap_or("-"), self.file_name.as_deref().unwrap_or("-"));
        printable(&format!(
            "{created:10}  {used:10}  {size:>11}  {origin:7}  {state:11}  {mxc}  {user}  {kind}  {name}"
        ))
    }
}

impl Line for StoreSummary {
    const HEAD: &'static str = "FILES             SIZE  STORE";

    fn line(&self) -> String {
        format!("{:9}  {:>11}  {}", self.files, size(self.bytes), self.store)
    }
}

impl Line for OriginSummary {
    const HEAD: &'static str = "FILES             SIZE  ORIGIN";

    fn line(&self) -> String {
        format!("{:9}  {:>11}  {}", self.files, size(self.bytes), self.origin)
    }
}

impl Line for UserSummary {
    const HEAD: &'static str = "FILES             SIZE     LAST DAY  USER";

    fn line(&self) -> String {
        let day = self.bytes_of_last_day.map_or_else(|| "-".to_owned(), size);
        format!("{:9}  {:>11}  {day:>11}  {}", self.files, size(self.bytes), self.user_id)
    }
}

impl Line for QuarantineSummary {
    const HEAD: &'static str = "SINCE       WHAT    NAME";

    fn line(&self) -> String {
        let by = self.by.as_ref().map_or_else(String::new, |by| format!("  ({by})"));
        printable(&format!("{:10}  {:6}  {}{by}", day(self.since_ts), self.kind, self.name))
    }
}

/// Sums are never below zero.
fn size(bytes: i64) -> String {
    units::size(u64::try_from(bytes).unwrap_or(0))
}
