//! Logging in and out.
//!
//! A password is verified before the transaction begins, because that takes tens of milliseconds in which no lock is to
//! be held; then it is made sure, under the account's lock, that the hash is still the one that was verified. A failed
//! login is answered alike whether the name or the password was wrong, and takes the same time.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#login>

use std::{net::IpAddr, time::Duration};

use ruma::{DeviceId, UserId, api::error::ErrorKind, user_id};

use super::{
    Accounts, LoginIdentifier, User, after,
    bearer::unknown_access_token,
    last_words::End,
    password::PasswordMatch,
    session::{EndedSessions, NewSession, Session, hold_session},
};
use crate::{
    db::Tx,
    edge::metrics::LoginFailure,
    error::{Error, Result},
    people::threepid::{self, Operation, Proof, SecurityContext, SecurityEvent, leave_security_mails},
    store::{
        account::{self, Account},
        device::{self, Device, DeviceSelection},
        threepid as addresses,
        token::{self, TakenLoginToken, TokenHash},
    },
};

/// What the lines about logins are filtered by, in `log.level` and by those programs.
pub(super) const LOGIN: &str = "hearth::login";
/// How long somebody has to log in with a login token.
pub(crate) const LOGIN_TOKEN_LIFETIME: Duration = Duration::from_mins(2);

impl Accounts {
    /// Logs in whoever knows the password of an account. A password that was hashed under an older rule is hashed anew
    /// on the way.
    pub(crate) async fn login_with_password(
        &self,
        name: impl Into<LoginIdentifier<'_>>,
        password: &str,
        new: NewSession,
    ) -> Result<Session> {
        let address = new.address;
        let (account, mut matched) = self.verify_password(name.into(), password).await?;
        let Some(mut account) = account else {
            return Err(self.login_failed(None, address, LoginFailure::NoSuchUser));
        };
        let user_id = account.user_id.clone();
        let failed = |why| self.login_failed(Some(user_id.as_str()), address, why);
        // Again where the hash has changed meanwhile: each round takes another change.
        let mut tx = loop {
            if !matched.is_right() {
                return Err(failed(LoginFailure::WrongPassword));
            }
            let renewed = match matched {
                PasswordMatch::AsTyped => Some(self.0.passwords.hash_again(password).await?),
                _ => None,
            };
            let mut tx = self.0.db.begin().await?;
            // While the password was being verified it may have been changed, or the account deactivated.
            let current = account::lock(&mut tx, &user_id).await?;
            let current = current.ok_or_else(|| failed(LoginFailure::NoSuchUser))?;
            if current.deactivated {
                return Err(failed(LoginFailure::Deactivated));
            }
            if current.password_hash != account.password_hash {
                drop(tx);
                // It need not be another password: another login may have hashed it anew.
                matched = self.0.passwords.verify(password, current.password_hash.as_deref()).await?;
                account = current;
                continue;
            }
            if current.restrictions.locked {
                return Err(failed(LoginFailure::Locked));
            }
            if let Some(hash) = renewed {
                account::set_password(&mut tx, &user_id, &hash).await?;
            }
            break tx;
        };
        let session = self.open_session(&mut tx, &user_id, new).await?;
        self.commit_changed(tx, &user_id).await?;
        Ok(session)
    }

    /// The account with this name, and whether this is its password. A wrong name takes as long as a wrong password.
    async fn verify_password(
        &self,
        name: LoginIdentifier<'_>,
        password: &str,
    ) -> Result<(Option<Account>, PasswordMatch)> {
        let account = self.find_account(name).await?;
        let hash = account.as_ref().and_then(|account| account.password_hash.as_deref());
        let matched = self.0.passwords.verify(password, hash).await?;
        Ok((account, matched))
    }

    /// Whether `name` and `password` are those of `user_id`, who is logged in already. Where they are not, that is
    /// noted: somebody at `address` was asked for them.
    pub(crate) async fn is_password_of(
        &self,
        user_id: &UserId,
        name: impl Into<LoginIdentifier<'_>>,
        password: &str,
        address: IpAddr,
    ) -> Result<bool> {
        let (account, matched) = self.verify_password(name.into(), password).await?;
        let is_theirs = |account: Account| account.user_id == user_id && !account.deactivated;
        let confirmed = matched.is_right() && account.is_some_and(is_theirs);
        if !confirmed {
            self.confirmation_failed(user_id, address);
        }
        Ok(confirmed)
    }

    /// Whether this is the password of whoever has this name, for a question that nobody fails who has another.
    pub(crate) async fn has_password(&self, name: LoginIdentifier<'_>, password: &str) -> Result<bool> {
        let (account, matched) = self.verify_password(name, password).await?;
        Ok(matched.is_right() && account.is_some_and(|account| !account.deactivated))
    }

    /// A token with which another device can log in as this user, once and soon, as long as this session lasts.
    pub(crate) async fn create_login_token(&self, user_id: &UserId, device_id: &DeviceId) -> Result<String> {
        let (token, hash) = self.new_token("hlt");
        let expires_ts = after(self.now(), LOGIN_TOKEN_LIFETIME);
        let mut tx = self.0.db.begin().await?;
        account::lock(&mut tx, user_id).await?;
        hold_session(&mut tx, user_id, device_id).await?;
        token::insert_login_token(&mut tx, &hash, user_id, device_id, expires_ts).await?;
        if let Some(most) = self.0.settings.quotas.find(user_id, |quotas| quotas.login_tokens) {
            token::delete_surplus_login_tokens(&mut tx, user_id, &hash, most.into()).await?;
        }
        tx.commit().await?;
        Ok(token)
    }

    /// Logs in with a token that another session has made for that.
    pub(crate) async fn login_with_token(&self, token: &str, new: NewSession) -> Result<Session> {
        let address = new.address;
        let invalid = |user| self.login_failed(user, address, LoginFailure::InvalidToken);
        // Committed by itself: whatever comes of this login, the token has been used.
        let mut tx = self.0.db.begin().await?;
        let taken = token::take_login_token(&mut tx, &TokenHash::of(token)).await?;
        tx.commit().await?;
        let TakenLoginToken { user_id, device_id: maker, expires_ts } = taken.ok_or_else(|| invalid(None))?;
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
        // The session that made it may have been ended since it was taken. Whoever ends one holds the account.
        if let Some(maker) = maker
            && device::find(&mut tx, &user_id, &maker).await?.is_none()
        {
            return Err(invalid(user));
        }
        let session = self.open_session(&mut tx, &user_id, new).await?;
        self.commit_changed(tx, &user_id).await?;
        Ok(session)
    }

    /// Ends this session; its device is gone.
    pub(crate) async fn logout(&self, user: &User) -> Result<()> {
        self.end(&user.user_id, DeviceSelection::These(&[user.device_id.as_str()]), End::ByItself).await
    }

    /// Ends every session of the user.
    pub(crate) async fn logout_all(&self, user_id: &UserId) -> Result<()> {
        self.delete_devices(user_id, DeviceSelection::All).await
    }

    /// Removes devices with their tokens.
    pub(crate) async fn delete_devices(&self, user_id: &UserId, which: DeviceSelection<'_>) -> Result<()> {
        self.end(user_id, which, End::ThrownOut).await
    }

    async fn end(&self, user_id: &UserId, which: DeviceSelection<'_>, end: End) -> Result<()> {
        let mut tx = self.0.db.begin().await?;
        account::lock(&mut tx, user_id).await?.ok_or_else(super::no_such_user)?;
        let ended = self.end_sessions(&mut tx, user_id, which, end).await?;
        self.commit_ended(tx, user_id, ended.keys).await
    }

    /// Where the devices of whoever has this name were last seen, as of about a minute ago. Nowhere where nobody has it,
    /// which takes no less time to find out.
    pub(crate) async fn list_seen_addresses(&self, name: LoginIdentifier<'_>) -> Result<Vec<IpAddr>> {
        let account = self.find_account(name).await?;
        let user_id = account.as_ref().map_or(user_id!("@nobody:invalid"), |account| &account.user_id);
        let devices = device::list(&mut self.0.db.read().await?, user_id).await?;
        Ok(devices.iter().filter_map(|device| device.last_seen_ip.as_ref()?.parse().ok()).collect())
    }

    /// Gives a user another password and, where the client asks for that, ends every session but `keep`'s. Who has been
    /// logged out or locked since they showed the old one changes nothing.
    pub(crate) async fn change_password(
        &self,
        keep: &User,
        password: &str,
        logout_devices: bool,
        from: IpAddr,
    ) -> Result<()> {
        let user_id = &keep.user_id;
        // Before the transaction: no lock is held while it is hashed.
        let hash = self.0.passwords.hash(password).await?;
        let mut tx = self.0.db.begin().await?;
        let account = account::lock(&mut tx, user_id).await?.ok_or_else(super::no_such_user)?;
        account.restrictions.check_unlocked()?;
        if !device::lock(&mut tx, user_id, &keep.device_id).await? {
            return Err(unknown_access_token());
        }
        set_password(&mut tx, &account.user_id, &hash).await?;
        let device = device::find(&mut tx, user_id, &keep.device_id).await?;
        self.report(&mut tx, user_id, SecurityEvent::PasswordChanged, (Some(from), device.as_ref())).await?;
        let mut ended = EndedSessions::default();
        if logout_devices {
            let others = DeviceSelection::AllBut(&keep.device_id);
            ended = self.end_sessions(&mut tx, user_id, others, End::ThrownOut).await?;
        }
        self.commit_ended(tx, user_id, ended.keys).await
    }

    /// Gives another password to whoever's e-mail address was proved and, where the client asks for that, ends every
    /// session.
    pub(crate) async fn reset_password(
        &self,
        proof: &Proof,
        password: &str,
        logout_devices: bool,
        from: IpAddr,
    ) -> Result<()> {
        let hash = self.0.passwords.hash(password).await?;
        let mut tx = self.0.db.begin().await?;
        let (operation, now) = (Operation::ResetPassword, self.now());
        let unowned = || Error::refused(ErrorKind::ThreepidNotFound, "No account has this address any more");
        // Only looked at: the account is locked before its sessions are.
        let (medium, address) = threepid::check_proof(&mut tx, proof, operation, now).await?;
        let user_id = addresses::find_owner(&mut tx, &medium, &address).await?.ok_or_else(unowned)?;
        let account = account::lock(&mut tx, &user_id).await?.ok_or_else(unowned)?;
        if account.deactivated {
            return Err(deactivated());
        }
        account.restrictions.check_unlocked()?;
        let proved = threepid::use_proof(&mut tx, proof, operation, now).await?;
        // While the lock was waited for, the address may have changed hands.
        let owner = addresses::find_owner(&mut tx, &proved.medium, &proved.address).await?;
        owner.filter(|owner| *owner == user_id).ok_or_else(unowned)?;
        set_password(&mut tx, &user_id, &hash).await?;
        self.report(&mut tx, &user_id, SecurityEvent::PasswordReset, (Some(from), None)).await?;
        let mut ended = EndedSessions::default();
        if logout_devices {
            ended = self.end_sessions(&mut tx, &user_id, DeviceSelection::All, End::ThrownOut).await?;
        }
        self.commit_ended(tx, &user_id, ended.keys).await
    }
}

impl Accounts {
    /// Leaves word for the owner of an account that its password is another one, and who has changed it.
    pub(super) async fn report(
        &self,
        tx: &mut Tx,
        user_id: &UserId,
        event: SecurityEvent,
        (address, device): (Option<IpAddr>, Option<&Device>),
    ) -> Result<()> {
        let context = SecurityContext { now: self.now(), address, device };
        leave_security_mails(tx, user_id, event, None, (context, &self.0.random)).await
    }
}

/// With the old password go the mails that were to replace it, because somebody else may have read one of them, and the
/// login tokens, for which it was shown. That is so whether or not other devices stay logged in: those the user can see
/// and end, a mail or a token not.
pub(super) async fn set_password(tx: &mut Tx, user_id: &UserId, hash: &str) -> Result<()> {
    account::set_password(tx, user_id, hash).await?;
    token::delete_login_tokens(tx, user_id).await?;
    Ok(addresses::forget_resets(tx, user_id).await?)
}

/// For whoever has proved that the account was theirs.
pub(super) fn deactivated() -> Error {
    Error::refused(ErrorKind::UserDeactivated, "This account has been deactivated, for good")
}

/// For an unknown user as for a wrong password, so that neither gives the other away.
pub(super) fn wrong() -> Error {
    Error::forbidden("The user name or the password is wrong")
}

/// One answer for what was never a token, was used or has expired.
pub(super) fn invalid_token() -> Error {
    Error::forbidden("This login token is not valid, was used before or has expired")
}
