//! Logging in and out.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#login>

use std::time::Duration;

use ruma::{UserId, api::error::ErrorKind};

use super::{
    Accounts, Caller, Named, after,
    failed_login::LOGIN,
    password::Match,
    session::{NewSession, Session},
};
use crate::{
    db::Tx,
    error::{Error, Result},
    metrics::LoginFailure,
    store::{
        account::{self, Account},
        device::{self, Which},
        threepid as addresses,
        token::{self, TokenHash},
    },
    threepid::{self, Operation, Proof},
};

/// How long somebody has to log in with a login token.
pub(crate) const LOGIN_TOKEN_LIFETIME: Duration = Duration::from_mins(2);

impl Accounts {
    pub(crate) async fn login_with_password(
        &self,
        name: impl Into<Named<'_>>,
        password: &str,
        new: NewSession,
    ) -> Result<Session> {
        let (name, address) = (name.into(), new.address);
        let (account, matched) = self.verify_password(name, password).await?;
        let Some(account) = account else {
            return Err(self.login_failed(self.claimed(name).as_deref(), address, LoginFailure::NoSuchUser));
        };
        let failed = |why| self.login_failed(Some(account.user_id.as_str()), address, why);
        if !matched.is_right() {
            return Err(failed(LoginFailure::WrongPassword));
        }
        let renewed = match matched {
            Match::AsTyped => Some(self.0.passwords.hash_again(password).await?),
            _ => None,
        };
        let mut tx = self.0.db.begin().await?;
        // While the password was being verified it may have been changed, or the account deactivated.
        let current = account::lock(&mut tx, &account.user_id).await?;
        let current = current.ok_or_else(|| failed(LoginFailure::NoSuchUser))?;
        if current.deactivated {
            return Err(failed(LoginFailure::Deactivated));
        }
        if current.password_hash != account.password_hash {
            return Err(failed(LoginFailure::WrongPassword));
        }
        if current.restrictions.locked {
            return Err(failed(LoginFailure::Locked));
        }
        if let Some(hash) = renewed {
            account::set_password(&mut tx, &account.user_id, &hash).await?;
        }
        let session = self.open_session(&mut tx, &account.user_id, new).await?;
        tx.commit().await?;
        self.devices_changed(&account.user_id).await;
        Ok(session)
    }

    /// The account with this name, and whether this is its password. A wrong name takes as long as a wrong password.
    async fn verify_password(&self, name: Named<'_>, password: &str) -> Result<(Option<Account>, Match)> {
        let account = self.find_account(name).await?;
        let hash = account.as_ref().and_then(|account| account.password_hash.as_deref());
        let matched = self.0.passwords.verify(password, hash).await?;
        Ok((account, matched))
    }

    /// Whether `name` and `password` are those of `user_id`, who is logged in already.
    pub(crate) async fn is_password_of(
        &self,
        user_id: &UserId,
        name: impl Into<Named<'_>>,
        password: &str,
    ) -> Result<bool> {
        let (account, matched) = self.verify_password(name.into(), password).await?;
        let is_theirs = |account: Account| account.user_id == user_id && !account.deactivated;
        let confirmed = matched.is_right() && account.is_some_and(is_theirs);
        if !confirmed {
            let why = LoginFailure::NotConfirmed;
            self.0.metrics.login_failed(why);
            tracing::info!(
                target: LOGIN,
                user = user_id.as_str(),
                reason = why.as_str(),
                "a password was asked for again and was wrong"
            );
        }
        Ok(confirmed)
    }

    /// Whether this is the password of whoever has an e-mail address.
    pub(crate) async fn is_password_at(&self, email: &str, password: &str) -> Result<bool> {
        let (account, matched) = self.verify_password(Named::Email(email), password).await?;
        Ok(matched.is_right() && account.is_some_and(|account| !account.deactivated))
    }

    /// A token with which another device can log in as this user, once and soon.
    pub(crate) async fn create_login_token(&self, user_id: &UserId) -> Result<String> {
        let (token, hash) = self.new_token("hlt");
        let expires_ts = after(self.now(), LOGIN_TOKEN_LIFETIME);
        let mut tx = self.0.db.begin().await?;
        token::insert_login_token(&mut tx, &hash, user_id, expires_ts).await?;
        tx.commit().await?;
        Ok(token)
    }

    pub(crate) async fn login_with_token(&self, token: &str, new: NewSession) -> Result<Session> {
        let address = new.address;
        let invalid = |user| self.login_failed(user, address, LoginFailure::InvalidToken);
        // Committed by itself: whatever comes of this login, the token has been used.
        let mut tx = self.0.db.begin().await?;
        let taken = token::take_login_token(&mut tx, &TokenHash::of(token)).await?;
        tx.commit().await?;
        let (user_id, expires_ts) = taken.ok_or_else(|| invalid(None))?;
        let user = Some(user_id.as_str());
        if expires_ts <= self.now() {
            return Err(invalid(user));
        }
        let mut tx = self.0.db.begin().await?;
        let account = account::lock(&mut tx, &user_id).await?.ok_or_else(|| invalid(user))?;
        if account.deactivated {
            return Err(self.login_failed(user, address, LoginFailure::Deactivated));
        }
        if account.restrictions.locked {
            return Err(self.login_failed(user, address, LoginFailure::Locked));
        }
        let session = self.open_session(&mut tx, &user_id, new).await?;
        tx.commit().await?;
        self.devices_changed(&user_id).await;
        Ok(session)
    }

    /// Ends this session; its device is gone.
    pub(crate) async fn logout(&self, caller: &Caller) -> Result<()> {
        self.delete_devices(&caller.user_id, Which::These(&[caller.device_id.as_str()])).await
    }

    /// Ends every session of the user.
    pub(crate) async fn logout_all(&self, user_id: &UserId) -> Result<()> {
        self.delete_devices(user_id, Which::All).await
    }

    /// Removes devices with their tokens.
    pub(crate) async fn delete_devices(&self, user_id: &UserId, which: Which<'_>) -> Result<()> {
        let mut tx = self.0.db.begin().await?;
        device::delete(&mut tx, user_id, which).await?;
        token::delete_orphans(&mut tx, user_id).await?;
        tx.commit().await?;
        self.devices_changed(user_id).await;
        Ok(())
    }

    /// Gives a user another password and, if told so, ends every session but `keep`'s.
    pub(crate) async fn change_password(&self, keep: &Caller, password: &str, logout_devices: bool) -> Result<()> {
        let user_id = &keep.user_id;
        let hash = self.0.passwords.hash(password).await?;
        let mut tx = self.0.db.begin().await?;
        let account = account::lock(&mut tx, user_id).await?.ok_or_else(super::no_such_user)?;
        set_password(&mut tx, &account.user_id, &hash).await?;
        if logout_devices {
            device::delete(&mut tx, user_id, Which::AllBut(&keep.device_id)).await?;
            token::delete_orphans(&mut tx, user_id).await?;
            token::delete_login_tokens(&mut tx, user_id).await?;
        }
        tx.commit().await?;
        self.devices_changed(user_id).await;
        Ok(())
    }

    /// Gives another password to whoever's e-mail address was proved and, if told so, ends every session.
    pub(crate) async fn reset_password(&self, proof: &Proof, password: &str, logout_devices: bool) -> Result<()> {
        let hash = self.0.passwords.hash(password).await?;
        let mut tx = self.0.db.begin().await?;
        let (operation, now) = (Operation::ResetPassword, self.now());
        let nobodys = || Error::refused(ErrorKind::ThreepidNotFound, "No account has this address any more");
        // Only looked at: the account is locked before its sessions are.
        let (medium, address) = threepid::look_at(&mut tx, proof, operation, now).await?;
        let user_id = addresses::find_owner(&mut tx, &medium, &address).await?.ok_or_else(nobodys)?;
        let account = account::lock(&mut tx, &user_id).await?.ok_or_else(nobodys)?;
        if account.deactivated {
            return Err(deactivated());
        }
        account.restrictions.check_unlocked()?;
        let proved = threepid::take(&mut tx, proof, operation, now).await?;
        // While the lock was waited for, the address may have changed hands.
        let owner = addresses::find_owner(&mut tx, &proved.medium, &proved.address).await?;
        owner.filter(|owner| *owner == user_id).ok_or_else(nobodys)?;
        set_password(&mut tx, &user_id, &hash).await?;
        if logout_devices {
            device::delete(&mut tx, &user_id, Which::All).await?;
            token::delete_orphans(&mut tx, &user_id).await?;
            token::delete_login_tokens(&mut tx, &user_id).await?;
        }
        tx.commit().await?;
        self.devices_changed(&user_id).await;
        Ok(())
    }
}

/// With the old password, the mails go that were to replace it: somebody else may have read one of them. That is so
/// whether or not other devices stay logged in: those the user can see and end, a mail not.
pub(super) async fn set_password(tx: &mut Tx, user_id: &UserId, hash: &str) -> Result<()> {
    account::set_password(tx, user_id, hash).await?;
    Ok(addresses::forget_resets(tx, user_id).await?)
}

/// For whoever has proved that the account was theirs.
pub(super) fn deactivated() -> Error {
    Error::refused(ErrorKind::UserDeactivated, "This account has been deactivated, for good")
}

/// The same for an unknown user and for a wrong password, so that neither gives the other away.
pub(super) fn wrong() -> Error {
    Error::forbidden("The user name or the password is wrong")
}

pub(super) fn invalid_token() -> Error {
    Error::forbidden("This login token is not valid, was used before or has expired")
}
