//! How many bytes of pictures are taken in for whom.
//!
//! Whoever asks for a preview names the page, so they choose what comes onto this server's disk, and no quota of uploads
//! counts it: a page's picture is nobody's. Each node counts by itself, in memory, from one midnight (UTC) to the next.

use std::collections::HashMap;

use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId};

/// Some hundred pages with large pictures. Beyond it the pages are shown without.
const A_DAY: u64 = 256 * 1024 * 1024;
/// In milliseconds.
const DAY: i64 = 24 * 60 * 60 * 1000;

#[derive(Default)]
pub(super) struct Allowances(Mutex<Today>);

#[derive(Default)]
struct Today {
    /// Since the Unix epoch.
    day: i64,
    bytes: HashMap<OwnedUserId, u64>,
}

impl Allowances {
    /// Whether pictures are taken in for somebody. `now` is in milliseconds since the Unix epoch.
    pub(super) fn has_some(&self, user_id: &UserId, now: i64) -> bool {
        let today = self.0.lock();
        today.day != day(now) || today.bytes.get(user_id).is_none_or(|bytes| *bytes < A_DAY)
    }

    /// Counts what was taken in for somebody.
    pub(super) fn spend(&self, user_id: &UserId, bytes: u64, now: i64) {
        let mut today = self.0.lock();
        if today.day != day(now) {
            *today = Today { day: day(now), bytes: HashMap::new() };
        }
        let spent = today.bytes.entry(user_id.to_owned()).or_default();
        *spent = spent.saturating_add(bytes);
    }
}

fn day(now: i64) -> i64 {
    now.div_euclid(DAY)
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[test]
    fn what_is_spent_is_back_the_next_day() {
        let (allowances, anna, now) = (Allowances::default(), user_id!("@anna:here"), 20_000 * DAY + 5);
        assert!(allowances.has_some(anna, now));
        allowances.spend(anna, A_DAY - 1, now);
        assert!(allowances.has_some(anna, now));
        allowances.spend(anna, 1, now);
        assert!(!allowances.has_some(anna, now + DAY - 6));
        assert!(allowances.has_some(user_id!("@bob:here"), now));
        assert!(allowances.has_some(anna, now + DAY));
        allowances.spend(anna, 1, now + DAY);
        assert!(allowances.has_some(anna, now + DAY));
    }
}
