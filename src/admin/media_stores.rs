//! What an operator does about stores from the command line: looking for what a crash has left, moving media, having them
//! go by another master key.
//!
//! As much of the content repository is made as that takes, beside servers that may be running: nothing of it relies on
//! being alone.

use std::time::Duration;

use crate::{
    config::Config,
    db::Db,
    edge::{metrics::Metrics, object_store::Stores},
    error::{Error, Result},
    ground::{clock::Clock, random::Random, tasks::Tasks},
    media::{
        library::Library,
        moving::{MoveReport, RotateReport},
        objects::Objects,
        seal::MasterKeys,
        spool::Spool,
        sweep::{MediaUpkeep, SweepReport},
    },
};

/// What no row names is deleted when it is so old: by then whoever has written it would have added the row.
const OLD: Duration = Duration::from_hours(24);

/// The stores of the configuration, and what is in them.
pub struct MediaStores {
    objects: Objects,
    upkeep: MediaUpkeep,
}

/// What was found in a store, and done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepSummary {
    pub stored: u64,
    pub stored_bytes: u64,
    /// What of that no media and no thumbnail has.
    pub unnamed: u64,
    pub unnamed_bytes: u64,
    /// What of that was deleted: the rest is too young, or was only to be counted.
    pub deleted: u64,
    pub deleted_bytes: u64,
    /// What else is there, which is left alone.
    pub foreign: u64,
    /// How many files have lost their bytes. Equal ones count once.
    pub lost: u64,
    /// Thumbnails that have, which are made again.
    pub lost_thumbnails: u64,
    /// Addresses of some of those that are lost, or their SHA-256 where nothing has them any more.
    pub losses: Vec<String>,
}

/// How far a move has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MoveSummary {
    /// Equal ones count once.
    pub files: u64,
    pub thumbnails: u64,
    /// Of both.
    pub bytes: u64,
    /// What could not be read, and is where it was.
    pub failed: u64,
    /// How many files there were when it began, and their bytes without those of thumbnails.
    pub all_files: u64,
    pub all_bytes: u64,
}

/// How many keys are sealed with another master key than before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RotateSummary {
    pub files: u64,
    pub thumbnails: u64,
    /// Those whose master key is not in the configuration.
    pub failed: u64,
}

impl MediaStores {
    /// Makes folders that are missing. No bucket is asked for anything yet.
    pub(super) async fn open(config: &Config, (db, clock, random): (Db, Clock, Random)) -> Result<Self> {
        let metrics = Metrics::new();
        let stores = Stores::open(&config.media, &config.data_dir, metrics.clone()).map_err(Error::broken)?;
        let spool = Spool::open(&config.data_dir).await?;
        let keys = MasterKeys::of(&config.media);
        let parts = (db.clone(), clock.clone(), random);
        let objects = Objects::new(parts, stores, spool, keys, metrics, Tasks::new());
        let library = Library::new(db.clone(), objects.clone(), clock.clone());
        let upkeep = MediaUpkeep::new((db, clock), library, (&config.media, &config.url_previews));
        Ok(Self { objects, upkeep })
    }

    /// Of all stores.
    pub fn names(&self) -> Vec<String> {
        self.objects.stores().names().map(str::to_owned).collect()
    }

    /// The one that new media go to, by this configuration.
    pub fn current(&self) -> &str {
        self.objects.stores().current()
    }

    /// Compares a store with the database, and deletes what is left there from long ago unless it is only to be counted.
    /// Says now and then what there is so far.
    pub async fn sweep(
        &self,
        store: &str,
        delete: bool,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<SweepSummary> {
        self.check(store)?;
        let mut looked_at = |report: &SweepReport| progress(report.stored);
        Ok(Box::pin(self.upkeep.sweep(store, OLD, delete, &mut looked_at)).await?.into())
    }

    /// Moves all that is in one store to another. Says now and then how far it has come.
    pub async fn move_media(
        &self,
        from: &str,
        to: &str,
        progress: &mut (dyn FnMut(MoveSummary) + Send),
    ) -> Result<MoveSummary> {
        self.check(from)?;
        self.check(to)?;
        let mut show = |report: &MoveReport| progress((*report).into());
        Ok(Box::pin(self.upkeep.move_media(from, to, &mut show)).await?.into())
    }

    /// Has everything that is encrypted go by the first of the master keys. Says now and then how far it has come.
    pub async fn rotate(&self, progress: &mut (dyn FnMut(RotateSummary) + Send)) -> Result<RotateSummary> {
        if self.objects.keys().current().is_none() {
            let message = "There are no `media.master_keys` in this configuration, by which media could go";
            return Err(Error::invalid_param(message));
        }
        let mut show = |report: &RotateReport| progress((*report).into());
        Ok(Box::pin(self.upkeep.rotate(&mut show)).await?.into())
    }

    /// The operator may have mistyped it.
    fn check(&self, store: &str) -> Result<()> {
        if self.objects.stores().has(store) {
            return Ok(());
        }
        let names = self.names().join(", ");
        Err(Error::not_found(format!("There is no store {store} in `media.stores`; there are: {names}")))
    }
}

impl From<SweepReport> for SweepSummary {
    fn from(report: SweepReport) -> Self {
        let losses = report.losses.into_iter();
        Self {
            stored: report.stored,
            stored_bytes: report.stored_bytes,
            unnamed: report.unnamed,
            unnamed_bytes: report.unnamed_bytes,
            deleted: report.deleted,
            deleted_bytes: report.deleted_bytes,
            foreign: report.foreign,
            lost: report.lost,
            lost_thumbnails: report.lost_thumbnails,
            losses: losses.map(|loss| loss.uri.unwrap_or_else(|| loss.digest.to_string())).collect(),
        }
    }
}

impl From<MoveReport> for MoveSummary {
    fn from(report: MoveReport) -> Self {
        let MoveReport { objects, thumbnails, bytes, failed, of_objects, of_bytes } = report;
        Self { files: objects, thumbnails, bytes, failed, all_files: of_objects, all_bytes: of_bytes }
    }
}

impl From<RotateReport> for RotateSummary {
    fn from(report: RotateReport) -> Self {
        let RotateReport { objects, thumbnails, failed } = report;
        Self { files: objects, thumbnails, failed }
    }
}
