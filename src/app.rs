//! The whole house: every room, built once, handed to whoever needs it.

use std::{ops::Deref, sync::Arc};

use ruma::OwnedServerName;

use crate::{
    account::Accounts, clock::Clock, db::Db, device::Devices, discovery::Discovery, filter::Filters, profile::Profiles,
    random::Random, rate_limit::RateLimits, uia::Uia,
};

/// The server's rooms. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Rooms>);

/// What [`App`] holds.
pub struct Rooms {
    pub server_name: OwnedServerName,
    pub db: Db,
    pub clock: Clock,
    pub random: Random,
    pub(crate) accounts: Accounts,
    pub(crate) uia: Uia,
    pub(crate) devices: Devices,
    pub(crate) profiles: Profiles,
    pub(crate) filters: Filters,
    pub(crate) rate_limits: RateLimits,
    pub(crate) discovery: Discovery,
}

impl From<Rooms> for App {
    fn from(rooms: Rooms) -> Self {
        Self(Arc::new(rooms))
    }
}

impl Deref for App {
    type Target = Rooms;

    fn deref(&self) -> &Rooms {
        &self.0
    }
}
