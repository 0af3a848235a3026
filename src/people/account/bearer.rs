//! From a token to its caller: the first step of every request, so mostly a look into memory.
//!
//! Two things wait for a token's first use, because only that shows that an answer has arrived: the refresh token that
//! it replaces ends, and a registration can't be answered again. Both are done when a token is read from the database,
//! which its first use does on whichever node.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens>

use std::{net::IpAddr, sync::Arc};

use ruma::{
    DeviceId, UserId,
    api::error::{ErrorKind, UnknownTokenErrorData},
};

use super::{Accounts, caller::Caller, token_cache::CachedCaller};
use crate::{
    error::{Error, Result},
    store::{
        account,
        token::{self, TokenHash},
    },
};

impl Accounts {
    /// Who holds this access token, whatever their account may do.
    pub(crate) async fn caller(&self, token: &str, address: IpAddr) -> Result<Caller> {
        let token = TokenHash::of(token);
        let now = self.now();
        let bearer = match self.0.token_cache.find(&token, now) {
            Some(bearer) => bearer,
            None => self.read_bearer(token, now).await?,
        };
        if bearer.expires_ts.is_some_and(|expires_ts| expires_ts <= now) {
            return Err(unknown_token(true, "This access token has expired: refresh it or log in again"));
        }
        let caller = &bearer.caller;
        self.0.last_seen.note((caller.user_id(), caller.device_id()), &bearer.noted_ts, now, address);
        Ok(bearer.caller.clone())
    }

    /// Who holds this access token, as far as this node has looked it up lately: only to know whose acts are counted.
    pub(crate) fn find_remembered(&self, token: &str) -> Option<Caller> {
        let now = self.now();
        let bearer = self.0.token_cache.find(&TokenHash::of(token), now)?;
        let expired = bearer.expires_ts.is_some_and(|expires_ts| expires_ts <= now);
        (!expired).then(|| bearer.caller.clone())
    }

    /// Looks the token up in the database. The epoch is taken before that, so that what changes meanwhile is not
    /// remembered as it was.
    async fn read_bearer(&self, token: TokenHash, now: i64) -> Result<Arc<CachedCaller>> {
        let epoch = self.0.token_cache.epoch();
        let mut conn = self.0.db.read().await?;
        let found = token::find_bearer(&mut conn, &token).await?.ok_or_else(unknown_access_token)?;
        drop(conn);
        let alive = found.expires_ts.is_none_or(|expires_ts| expires_ts > now);
        if found.has_predecessor && alive {
            self.confirm_refresh(&token, &found.user_id, &found.device_id).await?;
        }
        if found.is_unconfirmed {
            self.confirm_registration(&token).await?;
        }
        Ok(self.0.token_cache.insert(token, epoch, found, now))
    }
}

impl Accounts {
    /// Refuses a caller for whom something has gone on for a while, where the device was logged out or the account locked
    /// in the meantime. Who has logged in anew on the same device goes on: what waits with the token of before is answered
    /// once more. Costs a look into memory where nothing has changed.
    pub(crate) async fn check_still_logged_in(&self, caller: &Caller) -> Result<()> {
        if !caller.changed().is_raised() {
            return Ok(());
        }
        self.check_logged_in(caller.user_id(), caller.device_id()).await
    }

    /// Refuses where nobody is logged in on the device, or the account is locked.
    async fn check_logged_in(&self, user_id: &UserId, device_id: &DeviceId) -> Result<()> {
        let mut conn = self.0.db.read().await?;
        if !token::has_access_token(&mut conn, user_id, device_id).await? {
            return Err(unknown_access_token());
        }
        match account::find(&mut conn, user_id).await? {
            Some(account) => account.restrictions.check_unlocked(),
            None => Err(unknown_access_token()),
        }
    }
}

/// `M_UNKNOWN_TOKEN` without `soft_logout`: nothing of the device is left to come back to.
pub(crate) fn unknown_access_token() -> Error {
    unknown_token(false, "This access token is not known or was logged out: log in again")
}

/// `soft_logout`: whether the device is still there, so that the client should keep its keys.
pub(super) fn unknown_token(soft_logout: bool, message: &str) -> Error {
    let mut data = UnknownTokenErrorData::new();
    data.soft_logout = soft_logout;
    Error::refused(ErrorKind::UnknownToken(data), message)
}
