//! Accounts: who may speak here, and with which token.
//!
//! One file for each act. What counts is in the database; this room keeps only facts that it has read
//! there, until [`Bearers::forget`] says that they changed. Lock order inside transactions: the
//! account, then its device, then their tokens, and the account before sessions that prove an address of it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#client-authentication>

mod bearer;
mod deactivate;
mod failed_login;
mod guest;
mod last_seen;
mod localpart;
mod login;
mod named;
mod openid;
mod outside;
mod password;
mod refresh;
mod register;
mod registration_token;
mod restriction;
mod session;
mod shared_secret;
#[cfg(test)]
pub(crate) mod tests;

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use ruma::{OwnedDeviceId, OwnedServerName, OwnedUserId, UserId};

use self::{last_seen::LastSeen, password::Passwords};
use crate::{
    clock::{Clock, millis},
    config::RegistrationMode,
    db::Db,
    error::{Error, Result},
    metrics::Metrics,
    random::Random,
    store::{account::Account, registration, token},
};

pub(crate) use self::{
    bearer::Bearers,
    login::LOGIN_TOKEN_LIFETIME,
    named::Named,
    openid::OPENID_TOKEN_LIFETIME,
    password::PasswordCost,
    register::{Asked, AskedDevice, Confirmation, Registration, Repetition},
    session::{NewSession, Session},
    shared_secret::SharedSecretRegistration,
};
pub(crate) use crate::store::account::{Restriction, Restrictions};

/// A user on one of their devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) user_id: OwnedUserId,
    pub(crate) device_id: OwnedDeviceId,
    /// Whether this account may use the admin API.
    pub(crate) admin: bool,
    /// Whether this is a guest, who may do less.
    pub(crate) guest: bool,
    /// Whether rate limits apply to this account.
    pub(crate) rate_limited: bool,
    pub(crate) restrictions: Restrictions,
}

/// What the operator decides.
#[derive(Clone)]
pub(crate) struct AccountSettings {
    pub(crate) registration: RegistrationMode,
    /// Whether strangers may come as guests.
    pub(crate) guests: bool,
    /// Whoever knows it may make accounts, admins too.
    pub(crate) shared_secret: Option<String>,
    /// How long an access token lasts whose client knows how to refresh it.
    pub(crate) access_token_lifetime: Duration,
    pub(crate) password_cost: PasswordCost,
    /// How many characters a password has at least.
    pub(crate) password_min_length: usize,
}

/// Called after each commit that changed who is logged in as a user, and waited for, so that every node knows it
/// before whoever did it is answered. Fails where other nodes were not told.
pub(crate) type OnDevicesChanged = Arc<dyn Fn(OwnedUserId) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// The accounts of this server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Accounts(Arc<Room>);

struct Room {
    db: Db,
    clock: Clock,
    random: Random,
    server_name: OwnedServerName,
    settings: AccountSettings,
    passwords: Passwords,
    bearers: Arc<Bearers>,
    last_seen: LastSeen,
    metrics: Metrics,
    on_devices_changed: OnDevicesChanged,
}

impl Accounts {
    pub(crate) fn new(
        db: Db,
        clock: Clock,
        random: Random,
        server_name: OwnedServerName,
        settings: AccountSettings,
        metrics: Metrics,
        on_devices_changed: OnDevicesChanged,
    ) -> Result<Self> {
        let passwords = Passwords::new(settings.password_cost, settings.password_min_length, random.clone())?;
        let (bearers, last_seen) = (Arc::default(), LastSeen::default());
        Ok(Self(Arc::new(Room {
            db,
            clock,
            random,
            server_name,
            settings,
            passwords,
            bearers,
            last_seen,
            metrics,
            on_devices_changed,
        })))
    }

    pub(crate) fn registration_mode(&self) -> RegistrationMode {
        self.0.settings.registration
    }

    /// Refuses a new password that is not good enough, and says what is wanted.
    pub(crate) fn check_password(&self, password: &str) -> Result<()> {
        self.0.passwords.check(password)
    }

    /// Whether somebody has or had an account.
    pub(crate) async fn exists(&self, user_id: &UserId) -> Result<bool> {
        Ok(crate::store::account::find(&mut self.0.db.read().await?, user_id).await?.is_some())
    }

    /// An account by its name, with the documents that were accepted, each with its version.
    pub(crate) async fn describe(&self, name: &str) -> Result<(Account, Vec<(String, String)>)> {
        let account = self.find_account(name.into()).await?.ok_or_else(no_such_user)?;
        let accepted = registration::list_accepted_terms(&mut self.0.db.read().await?, &account.user_id).await?;
        Ok((account, accepted))
    }

    /// Whether there is any account but `except`.
    pub(crate) async fn any(&self, except: Option<&UserId>) -> Result<bool> {
        Ok(crate::store::account::any(&mut self.0.db.read().await?, except).await?)
    }

    /// Removes what nobody will ask for any more. To be called now and then.
    pub(crate) async fn clear_expired(&self) -> Result<()> {
        let mut tx = self.0.db.begin().await?;
        token::delete_expired_login_tokens(&mut tx, self.now()).await?;
        token::delete_expired_openid_tokens(&mut tx, self.now()).await?;
        Ok(tx.commit().await?)
    }

    /// What memory holds of tokens, for whoever hears that a user's devices changed on another node. It does not
    /// hold the accounts: the log can hold it although the accounts write to the log.
    pub(crate) fn bearers(&self) -> Arc<Bearers> {
        Arc::clone(&self.0.bearers)
    }

    async fn devices_changed(&self, user_id: &UserId) {
        // What changed is committed already. Nodes that don't hear of it look tokens up again after a while.
        if let Err(error) = self.try_devices_changed(user_id).await {
            tracing::warn!(%error, "other nodes could not be told that somebody's devices have changed");
        }
    }

    async fn try_devices_changed(&self, user_id: &UserId) -> Result<()> {
        self.0.bearers.forget(user_id);
        (self.0.on_devices_changed)(user_id.to_owned()).await
    }

    /// Milliseconds since the Unix epoch.
    fn now(&self) -> i64 {
        self.0.clock.now().get().into()
    }
}

/// `duration` from `now` on, in milliseconds since the Unix epoch.
fn after(now: i64, duration: Duration) -> i64 {
    now.saturating_add(millis(duration))
}

fn no_such_user() -> Error {
    Error::not_found("There is no such user on this server")
}
