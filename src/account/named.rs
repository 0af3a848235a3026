//! How somebody says who they are: by their user ID, its localpart, or an e-mail address of theirs.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#identifier-types>

use ruma::{OwnedUserId, api::client::uiaa::UserIdentifier};

use super::{Accounts, localpart};
use crate::{
    error::Result,
    store::account::{self, Account},
    threepid,
};

/// A name for somebody, as it was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named<'a> {
    User(&'a str),
    Email(&'a str),
}

impl<'a> Named<'a> {
    /// None for telephone numbers, which no account has.
    pub(crate) fn of(identifier: &'a UserIdentifier) -> Option<Self> {
        match identifier {
            UserIdentifier::Matrix(name) => Some(Self::User(&name.user)),
            UserIdentifier::Email(email) => Some(Self::Email(&email.address)),
            _ => None,
        }
    }
}

impl<'a> From<&'a str> for Named<'a> {
    fn from(name: &'a str) -> Self {
        Self::User(name)
    }
}

impl Accounts {
    /// Whom somebody means who types `name` to log in, in small letters: one key for all spellings.
    pub(crate) fn meant(&self, name: &str) -> Option<OwnedUserId> {
        localpart::meant(&name.to_ascii_lowercase(), &self.0.server_name)
    }

    /// A user ID as it was typed, else in small letters: nobody is refused for a capital at the start of the name.
    pub(super) async fn find_account(&self, name: Named<'_>) -> Result<Option<Account>> {
        let candidates = match name {
            Named::User(name) => [localpart::meant(name, &self.0.server_name), self.meant(name)],
            Named::Email(email) => [threepid::find_owner(&mut self.0.db.read().await?, email).await?, None],
        };
        for user_id in candidates.into_iter().flatten() {
            if let Some(account) = account::find(&mut self.0.db.read().await?, &user_id).await? {
                return Ok(Some(account));
            }
        }
        Ok(None)
    }
}
