//! What a user may have of something. The log holds a write to it: a write that would go beyond is refused, in the
//! transaction in which everything else that the user has is known.
//!
//! Who writes for a user names the quotas that apply; what the server writes on its own account is held to none.

use std::sync::Arc;

use ruma::OwnedUserId;

/// A bound on what a user has.
#[derive(Clone, Debug)]
pub struct WriteQuota {
    pub user_id: OwnedUserId,
    pub bound: Bound,
    /// Where the user reads about it.
    pub info_uri: Arc<str>,
}

/// How much it may be. A write that does not add to it is never refused.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// Of all rooms together: their bytes with those of their types, and how many pieces there are.
    AccountData { bytes: i64, pieces: i64 },
    /// Made by the user and not removed.
    Aliases(i64),
    /// Of what waits for each of the user's devices, in bytes. What others send beyond it is left out.
    Inbox(i64),
    /// Made by the user within 24 hours before `now`, in milliseconds since the Unix epoch.
    Rooms { a_day: i64, now: i64 },
}
