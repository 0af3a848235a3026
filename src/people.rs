//! Users: their accounts, devices and profiles, what they keep on the server, and what they may do how often.
//!
//! Each module is one section of the specification. What they keep is in the database before it is acknowledged; what
//! is in memory besides follows the log, so that it is right on every node.

pub(crate) mod account;
pub mod account_data;
pub(crate) mod dehydrated_device;
pub(crate) mod device;
pub(crate) mod filter;
pub(crate) mod key_backup;
pub(crate) mod keys;
pub(crate) mod notice;
pub(crate) mod profile;
pub(crate) mod rate_limit;
pub mod report;
pub(crate) mod third_party_invite;
pub(crate) mod threepid;
pub(crate) mod to_device;
pub(crate) mod uia;

use std::{ops::Deref, sync::Arc};

use self::{
    account::{AccountSettings, Accounts, Notify, TokenCache},
    account_data::AccountDataOfUsers,
    dehydrated_device::DehydratedDevices,
    device::Devices,
    filter::Filters,
    key_backup::KeyBackups,
    keys::{KeyCache, Keys},
    notice::Notices,
    profile::Profiles,
    rate_limit::RateLimits,
    report::Reports,
    third_party_invite::ThirdPartyInvites,
    threepid::Threepids,
    to_device::{InboxCache, ToDeviceMessages},
    uia::Uia,
};
use crate::{
    config::terms::Terms,
    edge::identity::IdentityServers,
    error::Result,
    ground::{sizes::Sizes, weighed::Weighed},
    log::{Ground, Quotas, Reader},
    room::Rooms,
};

/// The modules of this layer at work, on those below.
pub struct People {
    ground: Ground,
    pub(crate) rooms: Rooms,
    pub(crate) terms: Terms,
    pub(crate) accounts: Accounts,
    pub(crate) account_data: AccountDataOfUsers,
    pub(crate) dehydrated_devices: DehydratedDevices,
    pub(crate) devices: Devices,
    pub(crate) filters: Filters,
    pub(crate) key_backups: KeyBackups,
    pub(crate) keys: Keys,
    /// None where the server has no voice of its own.
    pub(crate) notices: Option<Notices>,
    pub(crate) profiles: Profiles,
    pub(crate) rate_limits: RateLimits,
    pub(crate) reports: Reports,
    pub(crate) third_party_invites: ThirdPartyInvites,
    pub(crate) threepids: Threepids,
    pub(crate) to_device: ToDeviceMessages,
    pub(crate) uia: Uia,
}

impl Deref for People {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        &self.ground
    }
}

/// What this layer keeps in memory and follows the log.
///
/// They have to be among the log's readers before it reads anything.
#[derive(Clone)]
pub(crate) struct Caches {
    account_data: Arc<account_data::AccountDataCache>,
    bearers: Arc<TokenCache>,
    inboxes: Arc<InboxCache>,
    keys: Arc<KeyCache>,
}

impl Caches {
    pub(crate) fn new(sizes: &Sizes) -> Self {
        let account_data = Arc::new(account_data::AccountDataCache::new(sizes));
        let bearers = Arc::new(TokenCache::new(&sizes.caches));
        let inboxes = Arc::new(InboxCache::new(&sizes.caches));
        Self { account_data, bearers, inboxes, keys: Arc::new(KeyCache::new(&sizes.caches)) }
    }

    pub(crate) fn weighed(&self) -> Vec<Arc<dyn Weighed>> {
        let Self { account_data, bearers, inboxes, keys } = self.clone();
        vec![account_data as _, bearers as _, inboxes as _, keys as _]
    }

    pub(crate) fn readers(&self) -> Vec<Arc<dyn Reader>> {
        let Self { account_data, bearers, inboxes, keys } = self.clone();
        vec![account_data as _, bearers as _, inboxes as _, keys as _]
    }
}

impl People {
    /// Reserves the name of the server's own user, if it has one; everything else begins to work when it is first
    /// asked.
    pub(crate) async fn start(ground: Ground, rooms: Rooms, caches: Caches) -> Result<Self> {
        let Ground { config, sizes, db, log, clock, random, key, metrics, server_name, shared_values, tasks, .. } =
            &ground;
        let quotas = Quotas::of(config);
        let terms = Terms::of(&config.registration.terms);
        let identity = IdentityServers::new(&config.identity, server_name.clone(), key.clone())?;
        // With the log, so that what requests change is known to every node before they are answered.
        let accounts = Accounts::new(
            (db.clone(), clock.clone(), random.clone()),
            server_name.clone(),
            AccountSettings::of(config)?,
            metrics.clone(),
            (caches.bearers, &sizes.caches),
            Notify::Log(log.clone()),
        )?;
        let profiles = Profiles::new(db.clone(), clock.clone(), random.clone(), server_name.clone(), quotas.clone());
        let to_device = ToDeviceMessages::new(
            (db.clone(), log.clone(), clock.clone()),
            server_name.clone(),
            caches.inboxes,
            quotas.clone(),
            metrics.clone(),
        );
        let keys = Keys::new(db.clone(), log.clone(), tasks.clone(), server_name.clone(), caches.keys);
        let (secret, documents) = (key.first().shared_secret(), terms.clone());
        Ok(Self {
            account_data: AccountDataOfUsers::new(db.clone(), log.clone(), caches.account_data, quotas.clone()),
            dehydrated_devices: DehydratedDevices::new(
                (db.clone(), log.clone()),
                clock.clone(),
                accounts.clone(),
                keys.clone(),
            ),
            devices: Devices::new(db.clone(), log.clone()),
            filters: Filters::new(db.clone(), clock.clone(), quotas.clone(), &sizes.caches),
            key_backups: KeyBackups::new(db.clone(), random.clone(), quotas.clone()),
            keys,
            // Before anything is sent in somebody's name that may be a refusal of theirs to listen.
            notices: Notices::start(&ground, &rooms, &profiles).await?,
            rate_limits: RateLimits::new(&config.rate_limits, shared_values.clone(), metrics.clone()),
            reports: Reports::new(db.clone(), rooms.clone(), clock.clone(), random.clone(), quotas.clone()),
            threepids: Threepids::new(db.clone(), clock.clone(), random.clone(), config, identity.clone())?,
            third_party_invites: ThirdPartyInvites::new(rooms.clone(), identity),
            uia: Uia::new((db.clone(), clock.clone(), random.clone()), accounts.clone(), documents, secret, quotas),
            accounts,
            profiles,
            terms,
            to_device,
            rooms,
            ground,
        })
    }
}
