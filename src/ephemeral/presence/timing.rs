//! How long what lasts, and who is how when nothing is known.

use std::{collections::BTreeMap, time::Duration};

use ruma::{MilliSecondsSinceUnixEpoch, UInt, UserId, presence::PresenceState};

use crate::event::fact::Presence;

/// Who has done nothing for so long is idle.
pub(super) const IDLE: Duration = Duration::from_mins(5);
/// Whose last client has gone for so long is offline.
pub(super) const OFFLINE: Duration = Duration::from_secs(30);
/// How often at most it is written that somebody still does things.
pub(super) const REFRESH: Duration = Duration::from_mins(1);
/// Who has done something within this time is currently active. Longer than the time between two refreshes.
pub(super) const ACTIVE: Duration = Duration::from_mins(2);
/// How often it is looked whose time is up.
pub(super) const LOOK: Duration = Duration::from_secs(5);

/// Somebody of whom nothing is known.
pub(super) fn offline(user_id: &UserId) -> Presence {
    Presence {
        user_id: user_id.to_owned(),
        state: PresenceState::Offline,
        status_msg: None,
        last_active: MilliSecondsSinceUnixEpoch(UInt::MIN),
        claimed: None,
        devices: BTreeMap::new(),
    }
}

/// Whether it is to be written again that a user still does things.
pub(super) fn is_refreshed(old: &Presence, new: &Presence) -> bool {
    u128::from(millis_between(old.last_active, new.last_active)) >= REFRESH.as_millis()
}

/// Zero where the later one is not later: the clocks of nodes differ.
pub(super) fn millis_between(earlier: MilliSecondsSinceUnixEpoch, later: MilliSecondsSinceUnixEpoch) -> u64 {
    u64::from(later.get()).saturating_sub(earlier.get().into())
}
