//! The whole house: every room, built once, handed to whoever needs it.

use std::{ops::Deref, sync::Arc};

use ruma::{OwnedServerName, signatures::Ed25519KeyPair};

use crate::{
    account::Accounts,
    account_data::{self, AccountDataBook},
    clock::Clock,
    config::Config,
    db::Db,
    error::{Error, Result},
    log::{Log, Reader, Tail},
    metrics::Metrics,
    presence::{self, PresenceBook},
    random::Random,
    receipt::{self, Receipts},
    room::{Active, Rooms},
    tasks::Tasks,
    typing::{self, Typists},
    unread::{self, Unread},
};

/// The server's rooms. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<House>);

/// What [`App`] holds.
pub struct House {
    pub config: Config,
    pub server_name: OwnedServerName,
    pub db: Db,
    pub clock: Clock,
    pub random: Random,
    pub tasks: Tasks,
    pub metrics: Metrics,
    pub log: Log,
    pub(crate) rooms: Rooms,
    pub(crate) accounts: Accounts,
    pub(crate) account_data: AccountDataBook,
    pub(crate) receipts: Receipts,
    pub(crate) typists: Typists,
    pub(crate) presence: PresenceBook,
    pub(crate) unread: Unread,
}

impl Deref for App {
    type Target = House;

    fn deref(&self) -> &House {
        &self.0
    }
}

impl App {
    /// Opens the database, brings its schema up to date, and builds the rooms from the lowest floor up.
    pub async fn start(config: Config, db: Db, clock: Clock, random: Random, tasks: Tasks) -> Result<Self> {
        db.migrate().await?;
        let server_name = config.server_name.clone();
        let metrics = Metrics::default();
        let tail = Arc::new(Tail::default());
        let active = Arc::new(Active::default());
        let account_data = Arc::new(account_data::Book::default());
        let receipts = Arc::new(receipt::Book::default());
        let typing = Arc::new(typing::Book::default());
        let presence = Arc::new(presence::Book::default());
        let unread = Arc::new(unread::Book::default());
        let readers: [Arc<dyn Reader>; _] =
            [active.clone(), account_data.clone(), receipts.clone(), typing.clone(), presence.clone(), unread.clone()];
        tail.follow_with(readers.into());
        let log = Log::start(db.clone(), tail, random.clone(), metrics.clone(), &tasks).await?;
        let key = Ed25519KeyPair::from_der(&Ed25519KeyPair::generate(), "a".to_owned()).map_err(Error::broken)?;
        let rooms =
            Rooms::new(db.clone(), log.clone(), clock.clone(), random.clone(), server_name.clone(), key, active);
        let account_data = AccountDataBook::new(db.clone(), log.clone(), account_data);
        let receipts = Receipts::new(db.clone(), rooms.clone(), clock.clone(), receipts);
        let typists = Typists::start(db.clone(), rooms.clone(), clock.clone(), typing, &tasks).await?;
        let enabled = config.presence.enabled;
        let presence = PresenceBook::start(db.clone(), log.clone(), clock.clone(), enabled, presence, &tasks).await?;
        let unread = Unread::new(db.clone(), rooms.clone(), receipts.clone(), unread);
        Ok(Self(Arc::new(House {
            config,
            server_name,
            db,
            clock,
            random,
            tasks,
            metrics,
            log,
            rooms,
            accounts: Accounts,
            account_data,
            receipts,
            typists,
            presence,
            unread,
        })))
    }
}
