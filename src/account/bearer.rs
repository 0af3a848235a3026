//! From a token to its caller: the first step of every request, so mostly a look into memory.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens>

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{
    DeviceId, OwnedUserId, UserId,
    api::error::{ErrorKind, UnknownTokenErrorData},
};

use super::{Accounts, Caller};
use crate::{
    error::{Error, Result},
    store::{
        account,
        token::{self, TokenHash},
    },
};

const CAPACITY: usize = 50_000;

/// After so many milliseconds a token is looked up again: the worst that a lost wake-up can do.
const MAX_AGE: i64 = 5 * 60 * 1000;

/// What is known of a token.
pub(super) struct Bearer {
    pub(super) caller: Caller,
    expires_ts: Option<i64>,
    read_ts: i64,
    /// When its device was last noted as seen.
    pub(super) noted_ts: AtomicI64,
    /// Shared by all tokens of a user, so that one store makes memory forget them all.
    forgotten: Arc<AtomicBool>,
}

/// The tokens that were used lately, as they stood in the database.
pub(crate) struct Bearers {
    tokens: Cache<TokenHash, Arc<Bearer>>,
    users: Mutex<Users>,
}

#[derive(Default)]
struct Users {
    /// How often somebody was forgotten: what was read before that may be outdated.
    epoch: u64,
    flags: HashMap<OwnedUserId, Weak<AtomicBool>>,
}

impl Default for Bearers {
    fn default() -> Self {
        Self { tokens: Cache::new(CAPACITY), users: Mutex::default() }
    }
}

impl Bearers {
    fn find(&self, token: &TokenHash, now: i64) -> Option<Arc<Bearer>> {
        let bearer = self.tokens.get(token)?;
        let fresh = !bearer.forgotten.load(Ordering::Acquire) && now.saturating_sub(bearer.read_ts) < MAX_AGE;
        fresh.then_some(bearer)
    }

    fn epoch(&self) -> u64 {
        self.users.lock().epoch
    }

    /// Remembers what was read since `epoch`, unless somebody was forgotten in the meantime.
    fn insert(&self, token: TokenHash, epoch: u64, found: token::Bearer, now: i64) -> Arc<Bearer> {
        let token::Bearer { user_id, device_id, admin, guest, rate_limited, restrictions, expires_ts, .. } = found;
        let mut users = self.users.lock();
        let current = users.epoch == epoch;
        let forgotten = if current { users.flag(&user_id) } else { Arc::default() };
        let caller = Caller { user_id, device_id, admin, guest, rate_limited, restrictions };
        let bearer =
            Arc::new(Bearer { caller, expires_ts, read_ts: now, noted_ts: AtomicI64::new(i64::MIN), forgotten });
        if current {
            self.tokens.insert(token, Arc::clone(&bearer));
        }
        bearer
    }

    /// A user's devices changed: their tokens are looked up again.
    pub(crate) fn forget(&self, user_id: &UserId) {
        let mut users = self.users.lock();
        users.epoch += 1;
        if let Some(flag) = users.flags.remove(user_id).and_then(|flag| flag.upgrade()) {
            flag.store(true, Ordering::Release);
        }
    }
}

impl Users {
    fn flag(&mut self, user_id: &UserId) -> Arc<AtomicBool> {
        if let Some(flag) = self.flags.get(user_id).and_then(Weak::upgrade) {
            return flag;
        }
        if self.flags.len() >= 2 * CAPACITY {
            self.flags.retain(|_, flag| flag.strong_count() > 0);
        }
        let flag = Arc::default();
        self.flags.insert(user_id.to_owned(), Arc::downgrade(&flag));
        flag
    }
}

impl Accounts {
    /// Who holds this access token, whatever their account may do.
    pub(crate) async fn caller(&self, token: &str, address: IpAddr) -> Result<Caller> {
        let token = TokenHash::of(token);
        let now = self.now();
        let bearer = match self.0.bearers.find(&token, now) {
            Some(bearer) => bearer,
            None => self.read_bearer(token, now).await?,
        };
        if bearer.expires_ts.is_some_and(|expires_ts| expires_ts <= now) {
            return Err(unknown_token(true, "This access token has expired: refresh it or log in again"));
        }
        self.0.last_seen.note(&bearer, now, address);
        Ok(bearer.caller.clone())
    }

    async fn read_bearer(&self, token: TokenHash, now: i64) -> Result<Arc<Bearer>> {
        let epoch = self.0.bearers.epoch();
        let mut conn = self.0.db.read().await?;
        let found = token::find_bearer(&mut conn, &token).await?.ok_or_else(nobodys)?;
        drop(conn);
        let alive = found.expires_ts.is_none_or(|expires_ts| expires_ts > now);
        if found.has_predecessor && alive {
            self.confirm_refresh(&token, &found.user_id, &found.device_id).await?;
        }
        if found.is_unconfirmed {
            self.confirm_registration(&token).await?;
        }
        Ok(self.0.bearers.insert(token, epoch, found, now))
    }
}

impl Accounts {
    /// Refuses as a new request would be if the device was logged out or the account locked in the meantime.
    pub(crate) async fn check_logged_in(&self, user_id: &UserId, device_id: &DeviceId) -> Result<()> {
        let mut conn = self.0.db.read().await?;
        if !token::has_access_token(&mut conn, user_id, device_id).await? {
            return Err(nobodys());
        }
        match account::find(&mut conn, user_id).await? {
            Some(account) => account.restrictions.check_unlocked(),
            None => Err(nobodys()),
        }
    }
}

pub(super) fn nobodys() -> Error {
    unknown_token(false, "This access token is not known or was logged out: log in again")
}

/// `soft_logout`: whether the device is still there, so that the client should keep its keys.
pub(super) fn unknown_token(soft_logout: bool, message: &str) -> Error {
    let mut data = UnknownTokenErrorData::new();
    data.soft_logout = soft_logout;
    Error::refused(ErrorKind::UnknownToken(data), message)
}
