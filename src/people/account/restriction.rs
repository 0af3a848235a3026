//! Locking and suspending accounts, and undoing it. What a restricted account may still do is for the API to say.
//!
//! Locked is the stronger one: a locked account can only log out. Every node goes by a change before the request that
//! makes it is answered.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#account-locking> and
//! <https://spec.matrix.org/v1.19/client-server-api/#account-suspension>

use ruma::{UserId, api::error::ErrorKind};

use super::{Accounts, Administrator, Restriction, Restrictions, no_such_user};
use crate::{
    error::{Error, Result},
    store::account::{self, Account},
};

impl Accounts {
    /// Whether an account is restricted, for an administrator who asks.
    pub(crate) async fn is_restricted(
        &self,
        by: &Administrator,
        user_id: &UserId,
        restriction: Restriction,
    ) -> Result<bool> {
        self.check_local(user_id)?;
        let account = account::find(&mut self.0.db.read().await?, user_id).await?;
        Ok(restrictable(by, account)?.restrictions.has(restriction))
    }

    /// Restricts somebody else's account or frees it, as an administrator. Every node knows it before this returns.
    pub(crate) async fn restrict(
        &self,
        by: &Administrator,
        user_id: &UserId,
        restriction: Restriction,
        restricted: bool,
    ) -> Result<()> {
        self.check_local(user_id)?;
        let administrator = &by.user().user_id;
        if user_id == administrator {
            return Err(Error::forbidden("Nobody locks or suspends their own account: ask another administrator"));
        }
        let mut tx = self.0.db.begin().await?;
        let account = restrictable(by, account::lock(&mut tx, user_id).await?)?;
        if account.restrictions.has(restriction) != restricted {
            account::restrict(&mut tx, user_id, restriction, restricted.then(|| self.now())).await?;
        }
        self.commit_changed(tx, user_id).await?;
        tracing::info!(%user_id, by = %administrator, ?restriction, restricted, "an account was restricted or freed");
        Ok(())
    }

    fn check_local(&self, user_id: &UserId) -> Result<()> {
        if user_id.server_name() != self.0.server_name {
            return Err(Error::invalid_param(format!("{user_id} has their account on another server")));
        }
        Ok(())
    }
}

/// `M_NOT_FOUND` where nobody has the account any more, `M_FORBIDDEN` for another administrator's.
fn restrictable(by: &Administrator, account: Option<Account>) -> Result<Account> {
    let account = account.filter(|account| !account.deactivated).ok_or_else(no_such_user)?;
    if account.admin && account.user_id != by.user().user_id {
        return Err(Error::forbidden("Administrators don't lock or suspend each other: the operator can"));
    }
    Ok(account)
}

impl Restrictions {
    /// Refuses where the account is locked.
    pub(crate) fn check_unlocked(self) -> Result<()> {
        if self.locked { Err(locked()) } else { Ok(()) }
    }

    /// Refuses where the account is suspended.
    pub(crate) fn check_not_suspended(self) -> Result<()> {
        if self.suspended {
            let message =
                "This account is suspended: you can read, leave rooms and redact what you said, but not do this";
            return Err(Error::refused(ErrorKind::UserSuspended, message));
        }
        Ok(())
    }
}

/// For whoever has proved that the account is theirs.
pub(super) fn locked() -> Error {
    Error::refused(ErrorKind::UserLocked, "This account is locked: ask the operators of this server for the reason")
}
