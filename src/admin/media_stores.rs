//! What an operator does about stores from the command line: looking for what a crash has left, moving media, having them
//! go by another master key.
//!
//! As much of the content repository is made as that takes, beside servers that may be running: nothing of it relies on
//! being alone.

use crate::{
    config::Config,
    db::Db,
    edge::{metrics::Metrics, object_store::Stores},
    error::{Error, Result},
    ground::{clock::Clock, random::Random},
    media::{moving::Moving, objects::Objects, seal::MasterKeys, spool::Spool, sweep::Sweep},
};

/// The stores of the configuration, and what is in them.
pub struct MediaStores {
    objects: Objects,
    moving: Moving,
    sweep: Sweep,
}

/// What was found in a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepSummary {
    pub looked_at: u64,
    /// What no row names, as far as it was old enough to be deleted.
    pub removed: u64,
    pub removed_bytes: u64,
    /// Addresses of media whose bytes are gone.
    pub lost: Vec<String>,
}

/// How far a move has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MoveProgress {
    pub files: u64,
    pub bytes: u64,
    pub all_files: u64,
    pub all_bytes: u64,
}

impl MediaStores {
    /// Makes folders that are missing. No bucket is asked for anything yet.
    pub(super) async fn open(config: &Config, (db, clock, random): (Db, Clock, Random)) -> Result<Self> {
        let metrics = Metrics::new();
        let stores = Stores::open(&config.media, &config.data_dir, metrics.clone()).map_err(Error::broken)?;
        let spool = Spool::open(&config.data_dir).await?;
        let keys = MasterKeys::of(&config.media);
        let parts = (db.clone(), clock.clone(), random);
        let objects = Objects::new(parts, stores, spool, keys, metrics);
        let moving = Moving::new(db.clone(), clock.clone(), objects.clone());
        let sweep = Sweep::new(db, clock, objects.clone());
        Ok(Self { objects, moving, sweep })
    }

    /// Of all stores.
    pub fn names(&self) -> Vec<String> {
        self.objects.stores().names().map(str::to_owned).collect()
    }

    /// The one that new media go to, by this configuration.
    pub fn current(&self) -> &str {
        self.objects.stores().current()
    }
}
