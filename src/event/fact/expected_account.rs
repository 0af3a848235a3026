//! What a membership event takes for granted of its user's account: that they have one still, and that what it has
//! copied from their profile stands there still.
//!
//! Accounts and profiles lie in tables of their own, and whoever changes them does not know which events are being
//! built. So an event names what it was built on, and the log's judge compares.

use ruma::OwnedUserId;

/// Fields that were copied from a profile, each with what stood there. None: nothing, or no text.
pub type CopiedFields = Vec<(&'static str, Option<String>)>;

/// An account of this server as the event expects it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedAccount {
    /// Who must not have been deactivated. Somebody who never had an account passes: an invitation does not say who
    /// has one.
    pub user_id: OwnedUserId,
    /// Empty where the event may say of its user what it likes.
    pub copied: CopiedFields,
}
