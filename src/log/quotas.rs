//! What each user may have here, as the operator decides it.
//!
//! What is counted under a row's lock is checked by [`Quotas::check`], in the transaction that adds to it. What the log
//! writes is held to a [`WriteQuota`], which the judge looks at under the log's lock.

use std::{collections::HashSet, sync::Arc};

use ruma::{OwnedUserId, UserId};

use crate::{
    config::{Config, QuotasConfig},
    error::{Error, Result},
    event::fact::{Bound, WriteQuota},
};

/// The quotas of every user. Cheap to clone.
#[derive(Clone)]
pub struct Quotas(Arc<Inner>);

struct Inner {
    config: QuotasConfig,
    exempt_users: HashSet<OwnedUserId>,
    /// Where whoever meets a quota reads about it.
    info_uri: Arc<str>,
}

/// Which quota.
pub type WhichQuota = fn(&QuotasConfig) -> u32;

impl Quotas {
    /// Whoever meets one is sent to the operator's page for users, else to the server's own.
    pub fn of(config: &Config) -> Self {
        let support = config.well_known.support.page.as_ref().map(|page| page.as_str().to_owned());
        Self(Arc::new(Inner {
            exempt_users: config.quotas.exempt_users.iter().cloned().collect(),
            config: config.quotas.clone(),
            info_uri: support.unwrap_or_else(|| config.public_base_url()).into(),
        }))
    }

    /// How much a user may have. None for those to whom no quota applies.
    pub fn find(&self, user_id: &UserId, which: WhichQuota) -> Option<u32> {
        (!self.is_exempt(user_id)).then(|| which(&self.0.config))
    }

    /// Refuses somebody one more who has so many already, with a message made of what they may have. Both have to be
    /// looked at in the transaction that adds one, with a lock that keeps others from doing so.
    pub fn check(
        &self,
        user_id: &UserId,
        which: WhichQuota,
        has: i64,
        message: impl FnOnce(u32) -> String,
    ) -> Result<()> {
        match self.find(user_id, which) {
            Some(most) if has >= i64::from(most) => Err(Error::over_quota(message(most), &self.0.info_uri)),
            _ => Ok(()),
        }
    }

    /// Refuses what makes it more in all than somebody may have. The quota counts in pieces of `unit`, and `total` is what
    /// there would be with what is to be added, looked at as for [`Self::check`].
    pub fn check_total(
        &self,
        user_id: &UserId,
        which: WhichQuota,
        (total, unit): (i64, i64),
        message: impl FnOnce(u32) -> String,
    ) -> Result<()> {
        match self.find(user_id, which) {
            Some(most) if total > i64::from(most).saturating_mul(unit) => {
                Err(Error::over_quota(message(most), &self.0.info_uri))
            }
            _ => Ok(()),
        }
    }

    /// Whether no quota applies to a user.
    pub fn is_exempt(&self, user_id: &UserId) -> bool {
        self.0.exempt_users.contains(user_id)
    }

    /// A refusal where a limit is not a quota of this section, with the page to read about it.
    pub fn refusal(&self, message: impl Into<String>) -> Error {
        Error::over_quota(message, &self.0.info_uri)
    }

    /// The bound on what a user keeps here.
    pub fn account_data(&self, user_id: &UserId) -> Option<WriteQuota> {
        let bytes = i64::from(self.find(user_id, |quotas| quotas.account_data_megabytes)?) * 1024 * 1024;
        let pieces = self.find(user_id, |quotas| quotas.account_data_pieces)?.into();
        Some(self.write_quota(user_id, Bound::AccountData { bytes, pieces }))
    }

    /// The bound on the aliases that a user makes.
    pub fn aliases(&self, user_id: &UserId) -> Option<WriteQuota> {
        let most = self.find(user_id, |quotas| quotas.aliases)?;
        Some(self.write_quota(user_id, Bound::Aliases(most.into())))
    }

    /// The bound on the rooms that a user makes. `now` is in milliseconds since the Unix epoch.
    pub fn rooms(&self, user_id: &UserId, now: i64) -> Option<WriteQuota> {
        let a_day = self.find(user_id, |quotas| quotas.rooms_per_day)?.into();
        Some(self.write_quota(user_id, Bound::Rooms { a_day, now }))
    }

    /// The bound on what waits for each of a user's devices.
    pub fn inbox(&self, user_id: &UserId) -> Option<WriteQuota> {
        let bytes = i64::from(self.find(user_id, |quotas| quotas.to_device_megabytes)?) * 1024 * 1024;
        Some(self.write_quota(user_id, Bound::Inbox(bytes)))
    }

    fn write_quota(&self, user_id: &UserId, bound: Bound) -> WriteQuota {
        WriteQuota { user_id: user_id.to_owned(), bound, info_uri: Arc::clone(&self.0.info_uri) }
    }
}
