//! Accounts: who may speak here, and with which token.
//!
//! One file for each act. What counts is in the database; memory holds only facts that were read
//! there, until [`TokenCache::forget`] says that they changed. Lock order inside transactions: the account, then its
//! delayed events, then its device, then their tokens, and the account before sessions that prove an address of it.
//!
//! Whatever changes what nodes remember of an account has every node look it up again, by what it writes in the same
//! transaction ([`Notify`]). A token is known by its hash only; the text of one is seen when it is issued and when it
//! is used.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#client-authentication>

mod bearer;
mod caller;
mod deactivate;
mod ended_keys;
mod failed_login;
mod guest;
mod identifier;
mod last_seen;
mod last_words;
mod localpart;
mod login;
mod openid;
mod outside;
mod password;
mod refresh;
mod register;
mod registration_token;
mod restriction;
mod session;
mod settings;
mod shared_secret;
#[cfg(test)]
pub(crate) mod tests;
mod token_cache;
mod unseen_device;

use std::{sync::Arc, time::Duration};

use ruma::{OwnedServerName, UserId};

use self::{ended_keys::EndedKeys, last_seen::LastSeen, password::Passwords};
use crate::{
    config::RegistrationMode,
    db::{Db, Tx},
    edge::metrics::Metrics,
    error::{Error, Result},
    event::fact::{AccountChange, Fact},
    ground::{
        clock::{Clock, millis},
        random::Random,
        sizes::CacheSizes,
        weighed::Weighed,
    },
    log::Log,
    store::{account::Account, registration, token},
};

pub(crate) use self::{
    bearer::unknown_access_token,
    caller::{Administrator, Appservice, Caller, Pace, Rank, User, author_of},
    identifier::LoginIdentifier,
    login::LOGIN_TOKEN_LIFETIME,
    openid::OPENID_TOKEN_LIFETIME,
    register::{Confirmation, Registration, RegistrationRequest, Repetition, RequestedDevice},
    session::{NewSession, Session, hold_account},
    settings::AccountSettings,
    shared_secret::SharedSecretRegistration,
    token_cache::TokenCache,
};
pub(crate) use crate::store::account::{Restriction, Restrictions};

/// How running nodes are notified that an account is not what it was, or who is logged in to it: in the transaction
/// that changes it, so that none goes on with what it remembers.
#[derive(Clone)]
pub(crate) enum Notify {
    /// By an entry in the log: every node knows it before it answers the next request.
    Log(Log),
    /// From beside the nodes: by an errand, which one of them takes up.
    Errand,
}

/// The accounts of this server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Accounts(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Clock,
    random: Random,
    server_name: OwnedServerName,
    settings: AccountSettings,
    passwords: Passwords,
    token_cache: Arc<TokenCache>,
    last_seen: Arc<LastSeen>,
    metrics: Metrics,
    notify: Notify,
}

impl Accounts {
    pub(crate) fn new(
        (db, clock, random): (Db, Clock, Random),
        server_name: OwnedServerName,
        settings: AccountSettings,
        metrics: Metrics,
        (token_cache, sizes): (Arc<TokenCache>, &CacheSizes),
        notify: Notify,
    ) -> Result<Self> {
        let passwords = Passwords::new(settings.password_cost, settings.password_min_length, random.clone())?;
        let last_seen = Arc::new(LastSeen::new(sizes));
        Ok(Self(Arc::new(Inner {
            db,
            clock,
            random,
            server_name,
            settings,
            passwords,
            token_cache,
            last_seen,
            metrics,
            notify,
        })))
    }

    pub(crate) fn registration_mode(&self) -> RegistrationMode {
        self.0.settings.registration
    }

    /// Which devices were seen and are not written yet, in memory.
    pub(crate) fn seen_devices(&self) -> Arc<dyn Weighed> {
        Arc::clone(&self.0.last_seen) as _
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

    /// Writes which devices were seen since the last time. To be called about once a minute, and at the end.
    pub(crate) async fn flush_last_seen(&self) -> Result<()> {
        Ok(self.0.last_seen.flush(&self.0.db).await?)
    }

    /// Commits what has changed of an account or its devices, and with it that every node has to look them up again.
    async fn commit_changed(&self, tx: Tx, user_id: &UserId) -> Result<()> {
        self.commit_ended(tx, user_id, EndedKeys::default()).await
    }

    /// Commits what has changed where keys have ended with it, of which others hear.
    async fn commit_ended(&self, tx: Tx, user_id: &UserId, keys: EndedKeys) -> Result<()> {
        self.commit_with(tx, user_id, keys, None).await
    }

    /// Commits what has changed with more than that, of which only the log takes any.
    async fn commit_with(
        &self,
        mut tx: Tx,
        user_id: &UserId,
        keys: EndedKeys,
        more: Option<AccountChange>,
    ) -> Result<()> {
        match &self.0.notify {
            Notify::Log(log) => {
                // By this entry every node forgets the account's tokens.
                let changes = [AccountChange::Devices(user_id.to_owned())].into_iter().chain(more);
                let facts = changes.map(Fact::AccountChange).chain(keys.into_facts(user_id));
                log.commit(tx, facts.collect()).await?;
                Ok(())
            }
            Notify::Errand => {
                self.leave_changed(&mut tx, user_id, &keys).await?;
                self.commit_leaving(tx, user_id).await
            }
        }
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
