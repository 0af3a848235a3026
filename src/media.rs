//! The content repository: pictures, videos and files, stored once however often they are sent, and safe to open.
//!
//! What a URI names is a row, its bytes are an object of a store, and nothing of either is remembered in memory: what is
//! deleted or quarantined is so on every node with the next request. Media write no entries into the log.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#content-repository>

pub(crate) mod file_name;
pub(crate) mod kind;
pub(crate) mod library;
pub(crate) mod moving;
pub(crate) mod objects;
pub(crate) mod page;
pub(crate) mod preview;
mod program;
pub(crate) mod quarantine;
pub(crate) mod remote;
pub(crate) mod scanner;
pub(crate) mod seal;
pub(crate) mod spool;
pub(crate) mod sweep;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod thumbnail;
pub(crate) mod thumbnails;
pub(crate) mod upload;

use std::ops::Deref;

use self::{
    library::Library, objects::Objects, preview::Previews, remote::RemoteMedia, scanner::Scanner, seal::MasterKeys,
    spool::Spool, sweep::MediaUpkeep, thumbnails::Thumbnails, upload::Uploads,
};
use crate::{
    edge::object_store::Stores,
    error::{Error, Result},
    federation::Federation,
    log::Quotas,
};

/// The modules of this layer at work, on those below.
pub struct Media {
    federation: Federation,
    pub(crate) library: Library,
    /// None where the server looks at no pages.
    pub(crate) previews: Option<Previews>,
    pub(crate) remote_library: RemoteMedia,
    pub(crate) scanner: Scanner,
    pub(crate) thumbnails: Thumbnails,
    pub(crate) upkeep: MediaUpkeep,
    pub(crate) uploads: Uploads,
}

impl Deref for Media {
    type Target = Federation;

    fn deref(&self) -> &Federation {
        &self.federation
    }
}

impl Media {
    /// Makes the folders that are missing. No store is asked for anything yet.
    pub(crate) async fn start(federation: Federation) -> Result<Self> {
        let (config, db, clock, random) = (&federation.config, &federation.db, &federation.clock, &federation.random);
        let (metrics, server_name) = (&federation.metrics, &federation.server_name);
        let stores = Stores::open(&config.media, &config.data_dir, metrics.clone()).map_err(Error::broken)?;
        let spool = Spool::open(&config.data_dir).await?;
        let keys = MasterKeys::of(&config.media);
        let parts = (db.clone(), clock.clone(), random.clone());
        let tasks = federation.tasks.clone();
        let objects = Objects::new(parts.clone(), stores, spool, keys, metrics.clone(), tasks.clone());
        let library = Library::new(db.clone(), objects.clone(), clock.clone());
        let scanner = Scanner::new((db.clone(), clock.clone()), objects.clone(), &config.media.scanner, tasks.clone());
        let uploads = Uploads::new(
            parts.clone(),
            server_name.clone(),
            (objects.clone(), library.clone(), scanner.clone()),
            (config, Quotas::of(config)),
            metrics.clone(),
        );
        let previews = Previews::start(parts, server_name.clone(), objects, &config.url_previews)?;
        let thumbnails = Thumbnails::new(db.clone(), clock.clone(), library.clone(), &config.media, tasks.clone());
        // No other server is asked for media yet.
        let (parts, origin) = ((db.clone(), clock.clone()), None);
        let remote_library =
            RemoteMedia::new(parts.clone(), library.clone(), server_name.clone(), &config.media, tasks, origin);
        let upkeep = MediaUpkeep::new(parts, library.clone(), (&config.media, &config.url_previews));
        Ok(Self { federation, library, previews, remote_library, scanner, thumbnails, upkeep, uploads })
    }
}
