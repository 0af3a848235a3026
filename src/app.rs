//! The whole house: every room, built once, handed to whoever needs it.

use std::{ops::Deref, sync::Arc};

use ruma::OwnedServerName;

use crate::{account::Accounts, clock::Clock, db::Db, random::Random};

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
}

impl Deref for App {
    type Target = Rooms;

    fn deref(&self) -> &Rooms {
        &self.0
    }
}
