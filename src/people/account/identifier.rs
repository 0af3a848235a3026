//! How somebody says who they are: by their user ID, its localpart, or an e-mail address of theirs.
//!
//! A name is not looked up before it is known what for: an attempt to log in has to take as long for a name that nobody
//! has.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#identifier-types>

use ruma::{OwnedUserId, UserId, api::client::uiaa::UserIdentifier};

use super::{Accounts, localpart};
use crate::{
    error::Result,
    people::threepid,
    store::account::{self, Account},
};

/// A name for somebody, as it was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoginIdentifier<'a> {
    User(&'a str),
    Email(&'a str),
}

impl<'a> LoginIdentifier<'a> {
    /// None for telephone numbers, which no account has.
    pub(crate) fn of(identifier: &'a UserIdentifier) -> Option<Self> {
        match identifier {
            UserIdentifier::Matrix(name) => Some(Self::User(&name.user)),
            UserIdentifier::Email(email) => Some(Self::Email(&email.address)),
            _ => None,
        }
    }
}

impl<'a> From<&'a str> for LoginIdentifier<'a> {
    fn from(name: &'a str) -> Self {
        Self::User(name)
    }
}

impl Accounts {
    /// Whom somebody means who types `name` to log in, in small letters: one key for all spellings.
    pub(crate) fn meant(&self, name: &str) -> Option<OwnedUserId> {
        localpart::meant(&name.to_ascii_lowercase(), &self.0.server_name)
    }

    /// Whether a name is another local user's for certain, who need not exist. Whose an address is, is not given away.
    pub(crate) fn is_name_of_another(&self, user_id: &UserId, name: LoginIdentifier<'_>) -> bool {
        let LoginIdentifier::User(name) = name else { return false };
        let mut meant =
            [localpart::meant(name, &self.0.server_name), self.meant(name)].into_iter().flatten().peekable();
        meant.peek().is_some() && meant.all(|meant| meant != user_id)
    }

    /// A user ID as it was typed, else in small letters: nobody is refused for a capital at the start of the name.
    pub(super) async fn find_account(&self, name: LoginIdentifier<'_>) -> Result<Option<Account>> {
        let candidates = match name {
            LoginIdentifier::User(name) => [localpart::meant(name, &self.0.server_name), self.meant(name)],
            LoginIdentifier::Email(email) => [threepid::find_owner(&mut self.0.db.read().await?, email).await?, None],
        };
        for user_id in candidates.into_iter().flatten() {
            if let Some(account) = account::find(&mut self.0.db.read().await?, &user_id).await? {
                return Ok(Some(account));
            }
        }
        Ok(None)
    }
}
