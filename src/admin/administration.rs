//! What an operator does from the command line, beside a server that may be running: no more of the server is started
//! than that takes, and the log is not written. What takes more is left as an errand to a running node.
//!
//! It is what the commands of [`super`] and the tests call; nothing here prints.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ruma::{DeviceId, OwnedServerName, OwnedUserId, UserId};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    config::Config,
    db::{Db, Engine},
    edge::metrics::Metrics,
    error::{Error, Result},
    ground::{
        clock::{Clock, millis},
        random::Random,
        sizes::CacheSizes,
    },
    node::{
        self, server_name,
        signing::{self, RotatedKey},
    },
    people::{
        account::{AccountSettings, Accounts, Notify, Restriction},
        report::{self, Report},
    },
    store::{
        account::{self as accounts, Account},
        device,
        errand::{self as errands, ErrandKind},
        membership, outside_membership,
    },
    worker::errand,
};

pub use crate::store::account::AccountFilter;

/// How long a running node may take to note an errand.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often to see whether it has.
const LOOK: Duration = Duration::from_millis(50);
/// How many accounts are read at once.
const PAGE: i64 = 1_000;

/// What the operator can do. Cheap to make: nothing else of a server starts.
pub struct Administration {
    db: Db,
    accounts: Accounts,
    clock: Clock,
    random: Random,
    server_name: OwnedServerName,
    /// None where the operator has configured no server notices.
    notices_sender: Option<OwnedUserId>,
}

/// An account as its operator sees it.
#[derive(Debug, Serialize)]
pub struct AccountSummary {
    pub user_id: OwnedUserId,
    pub admin: bool,
    pub guest: bool,
    pub deactivated: bool,
    #[serde(flatten)]
    pub restrictions: RestrictionSummary,
    /// The documents that were accepted at registration, each with its version.
    pub accepted_terms: BTreeMap<String, String>,
}

/// What has been done to an account.
#[derive(Debug, Serialize)]
pub struct RestrictionSummary {
    pub locked: bool,
    pub suspended: bool,
}

/// An account in a list. Times are in milliseconds since the Unix epoch.
#[derive(Debug, Serialize)]
pub struct ListedAccount {
    pub user_id: OwnedUserId,
    pub admin: bool,
    pub guest: bool,
    pub deactivated: bool,
    #[serde(flatten)]
    pub restrictions: RestrictionSummary,
    pub created_ts: i64,
    /// How many devices it is logged in on.
    pub sessions: i64,
    /// When the last of these was seen.
    pub last_seen_ts: Option<i64>,
}

/// Where somebody is logged in. Times are in milliseconds since the Unix epoch.
#[derive(Debug, Serialize)]
pub struct SessionSummary {
    pub device_id: String,
    pub display_name: Option<String>,
    pub last_seen_ts: Option<i64>,
    pub last_seen_ip: Option<String>,
}

/// A registration token. Times are in milliseconds since the Unix epoch.
#[derive(Debug, Serialize)]
pub struct TokenSummary {
    pub token: String,
    /// Whether somebody could register with it now.
    pub usable: bool,
    /// How many accounts it may make; any number if none.
    pub uses_allowed: Option<i64>,
    pub completed: i64,
    pub expires_ts: Option<i64>,
}

/// Whether running nodes know what was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noticed {
    /// All of them.
    Everywhere,
    /// None runs, or none has got round to it; whichever does takes it up.
    NotYet,
}

impl Administration {
    /// On a database that is there, of this server and of this release. It is looked at and left as it is.
    pub async fn open(config: &Config, db: Db, clock: Clock, random: &Random) -> Result<Self> {
        server_name::check(&db, &config.server_name).await?;
        // Before anything else is read: tables of another release may mean something else.
        db.check_migrated().await?;
        let metrics = Metrics::new();
        let (settings, here) = (AccountSettings::of(config)?, config.server_name.clone());
        let parts = (db.clone(), clock.clone(), random.clone());
        let caches = (Arc::default(), &CacheSizes::default());
        // Without a log, changes of accounts are left as errands, by which running nodes notice them.
        let accounts = Accounts::new(parts, here.clone(), settings, metrics, caches, Notify::Errand)?;
        let notices_sender = config.notices_sender();
        Ok(Self { db, accounts, clock, random: random.clone(), server_name: here, notices_sender })
    }

    /// Makes an account; its rooms and devices come later. `name` may be a localpart or a whole user id.
    pub async fn create_user(&self, name: &str, password: &str, admin: bool) -> Result<OwnedUserId> {
        self.accounts.create_user(name, password, admin).await
    }

    /// The accounts after one, in the order of their ids, from the first where there is none. None are left after a
    /// page that is empty.
    pub async fn list_users(&self, who: AccountFilter, after: Option<&UserId>) -> Result<Vec<ListedAccount>> {
        let mut conn = self.db.read().await?;
        let page = accounts::list(&mut conn, who, after.map_or("", UserId::as_str), PAGE).await?;
        let listed = page.into_iter().map(|account| ListedAccount {
            user_id: account.user_id,
            admin: account.admin,
            guest: account.guest,
            deactivated: account.deactivated,
            restrictions: account.restrictions.into(),
            created_ts: account.created_ts,
            sessions: account.sessions,
            last_seen_ts: account.last_seen_ts,
        });
        Ok(listed.collect())
    }

    /// What there is to know of an account.
    pub async fn show_account(&self, name: &str) -> Result<AccountSummary> {
        let user_id = self.find(name).await?.user_id;
        let (account, accepted_terms) = self.accounts.describe(user_id.as_str()).await?;
        let Account { user_id, admin, guest, deactivated, restrictions, .. } = account;
        let (restrictions, accepted_terms) = (restrictions.into(), accepted_terms.into_iter().collect());
        Ok(AccountSummary { user_id, admin, guest, deactivated, restrictions, accepted_terms })
    }

    /// Gives a user another password and, unless they are to be kept, ends every session.
    pub async fn reset_password(&self, name: &str, password: &str, keep_sessions: bool) -> Result<OwnedUserId> {
        let user_id = self.find_somebody(name).await?;
        self.accounts.reset_password_from_outside(&user_id, password, keep_sessions).await?;
        Ok(user_id)
    }

    /// Makes a user an administrator, or an administrator a user. False where they were that before.
    pub async fn set_admin(&self, name: &str, admin: bool) -> Result<(OwnedUserId, bool)> {
        let user_id = self.find_somebody(name).await?;
        let changed = self.accounts.set_admin_from_outside(&user_id, admin).await?;
        Ok((user_id, changed))
    }

    /// Locks an account, or unlocks it.
    pub async fn set_locked(&self, name: &str, locked: bool) -> Result<OwnedUserId> {
        self.restrict(name, Restriction::Locked, locked).await
    }

    /// Suspends an account, or ends its suspension.
    pub async fn set_suspended(&self, name: &str, suspended: bool) -> Result<OwnedUserId> {
        self.restrict(name, Restriction::Suspended, suspended).await
    }

    async fn restrict(&self, name: &str, restriction: Restriction, restricted: bool) -> Result<OwnedUserId> {
        let user_id = self.find(name).await?.user_id;
        self.accounts.restrict_from_outside(&user_id, restriction, restricted).await?;
        Ok(user_id)
    }

    /// Where a user is logged in, oldest first.
    pub async fn list_sessions(&self, name: &str) -> Result<Vec<SessionSummary>> {
        let user_id = self.find(name).await?.user_id;
        let devices = device::list(&mut self.db.read().await?, &user_id).await?;
        let session = |device: device::Device| SessionSummary {
            device_id: device.id.into(),
            display_name: device.display_name,
            last_seen_ts: device.last_seen_ts,
            last_seen_ip: device.last_seen_ip,
        };
        Ok(devices.into_iter().map(session).collect())
    }

    /// Ends the sessions of a user, or that on one device, and returns how many there were.
    pub async fn end_sessions(&self, name: &str, device_id: Option<&str>) -> Result<(OwnedUserId, usize)> {
        let user_id = self.find(name).await?.user_id;
        let ended = self.accounts.end_sessions_from_outside(&user_id, device_id.map(<&DeviceId>::from)).await?;
        if let (Some(device_id), 0) = (device_id, ended) {
            let message =
                format!("{user_id} has no device {device_id}: `hearth admin list-sessions` shows those they have");
            return Err(Error::not_found(message));
        }
        Ok((user_id, ended))
    }

    /// Whose account would be deactivated, and in how many rooms they are.
    pub async fn look_at_departure(&self, name: &str) -> Result<(OwnedUserId, i64)> {
        let user_id = self.find_somebody(name).await?;
        let rooms = self.count_rooms(&user_id).await?;
        Ok((user_id, rooms))
    }

    /// Ends an account, for good; with `erase` also its profile and, for those who join rooms later, what it sent. A
    /// running node takes its user out of their rooms, see [`Self::count_rooms`] and [`Self::has_departed`].
    pub async fn deactivate(&self, name: &str, erase: bool) -> Result<OwnedUserId> {
        let user_id = self.find_somebody(name).await?;
        self.accounts.deactivate_from_outside(&user_id, erase).await?;
        Ok(user_id)
    }

    /// In how many rooms a user is, invited to how many, and knocking on how many, all together.
    pub async fn count_rooms(&self, user_id: &UserId) -> Result<i64> {
        let mut conn = self.db.read().await?;
        let outside = outside_membership::list_present(&mut conn, user_id).await?.len();
        Ok(membership::count_present(&mut conn, user_id).await? + i64::try_from(outside).unwrap_or(i64::MAX))
    }

    /// Whether a running node is done with taking somebody out of their rooms.
    pub async fn has_departed(&self, user_id: &UserId) -> Result<bool> {
        Ok(!errands::is_left(&mut self.db.read().await?, ErrandKind::Departure, user_id).await?)
    }

    /// Whether a node may be running. An embedded database does not show whether a process has it open.
    pub async fn may_run(&self) -> Result<bool> {
        Ok(self.db.engine() == Engine::Sqlite || node::any_alive(&self.db).await?)
    }

    /// Waits a little until running nodes have noted what was done to an account.
    pub async fn until_noticed(&self, user_id: &UserId) -> Result<Noticed> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if !errands::is_left(&mut self.db.read().await?, ErrandKind::Account, user_id).await? {
                return Ok(Noticed::Everywhere);
            }
            if Instant::now() >= deadline || !self.may_run().await? {
                return Ok(Noticed::NotYet);
            }
            sleep(LOOK).await;
        }
    }

    /// Has a running node send a notice to a user, or to everybody who has an account where no name is given. Returns
    /// to how many that is.
    pub async fn send_notice(&self, name: Option<&str>, text: &str) -> Result<u64> {
        let Some(sender) = &self.notices_sender else {
            let message = "The server has no voice of its own: set server_notices.localpart and start it again";
            return Err(Error::forbidden(message));
        };
        let to = match name {
            Some(name) => Some(self.find(name).await?),
            None => None,
        };
        if to.as_ref().is_some_and(|account| account.deactivated) {
            return Err(Error::forbidden("This account has been deactivated: nobody would read the notice"));
        }
        let to = to.as_ref().map(|account| &*account.user_id);
        errand::leave_notice(&self.db, to, sender, text, self.random.token(16), self.now()).await
    }

    /// The newest reports of users, newest first.
    pub async fn list_reports(&self, limit: u32) -> Result<Vec<Report>> {
        report::list(&self.db, limit).await
    }

    /// Makes a registration token, good for `uses` accounts and for `lifetime`; without limit where there is none.
    pub async fn create_registration_token(&self, uses: Option<u32>, lifetime: Option<Duration>) -> Result<String> {
        let expires = lifetime.map(|lifetime| self.now().saturating_add(millis(lifetime)));
        self.accounts.create_registration_token(uses.map(i64::from), expires).await
    }

    /// Every registration token, also those that are good for nothing any more.
    pub async fn list_registration_tokens(&self) -> Result<Vec<TokenSummary>> {
        let now = self.now();
        let tokens = self.accounts.list_registration_tokens().await?.into_iter().map(|token| TokenSummary {
            usable: token.is_usable(now),
            token: token.token,
            uses_allowed: token.uses_allowed,
            completed: token.completed,
            expires_ts: token.expires_ts,
        });
        Ok(tokens.collect())
    }

    /// Ends a registration token: nobody else registers with it, on whichever node.
    pub async fn revoke_registration_token(&self, token: &str) -> Result<()> {
        if self.accounts.revoke_registration_token(token).await? {
            return Ok(());
        }
        let message =
            "There is no such registration token: `hearth admin list-registration-tokens` shows those there are";
        Err(Error::not_found(message))
    }

    /// Makes a key that takes over from the one that the server signs with. Running nodes notice it by themselves.
    pub async fn rotate_signing_key(&self) -> Result<RotatedKey> {
        signing::rotate(&self.db, &self.random).await
    }

    /// The account that the operator means.
    async fn find(&self, name: &str) -> Result<Account> {
        match self.accounts.describe(name).await {
            Ok((account, _)) => Ok(account),
            Err(Error::Refused { kind, .. }) => {
                let server = &self.server_name;
                let message =
                    format!("There is no user {name} on {server}: `hearth admin list-users --all` shows whom there is");
                Err(Error::refused(kind, message))
            }
            Err(error) => Err(error),
        }
    }

    /// An account by its name, unless it is the one in whose name the server speaks, to which nobody logs in.
    async fn find_somebody(&self, name: &str) -> Result<OwnedUserId> {
        let user_id = self.find(name).await?.user_id;
        if self.notices_sender.as_ref() == Some(&user_id) {
            let message =
                format!("In the name of {user_id} the server speaks (server_notices.localpart): it is nobody's");
            return Err(Error::forbidden(message));
        }
        Ok(user_id)
    }

    /// Milliseconds since the Unix epoch.
    fn now(&self) -> i64 {
        self.clock.now().get().into()
    }
}

impl From<accounts::Restrictions> for RestrictionSummary {
    fn from(restrictions: accounts::Restrictions) -> Self {
        Self { locked: restrictions.locked, suspended: restrictions.suspended }
    }
}
