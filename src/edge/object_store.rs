//! Where the bytes of media are kept: folders and S3 buckets, several at once, each under a name that the database knows.
//!
//! A location is made up for each writing and never used again, so nothing is ever written over and whatever no row names
//! can be deleted. When [`Stores::put`] returns, the bytes outlast whatever happens to this process or its machine.
//!
//! A store may be slow, broken or silent. Everything here ends within a bounded time with a [`StoreFault`], and holds up
//! nothing else: each store has threads, requests and memory of its own.

mod fault;
mod files;
mod part;
mod patience;
mod patient;
mod s3;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use ::object_store::{ObjectMeta, path::Path as Location};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::time::timeout;

pub(crate) use self::fault::{ByteStream, Listed, StoreFault};
use self::{files::FileStore, patience::Patience, s3::S3Store};
use crate::{
    config::{MediaConfig, MediaStoreConfig},
    edge::{
        http_client::{self, Certificates, ClientOptions, HttpClientError},
        metrics::Metrics,
    },
    ground::{cause, data_folder},
};

/// Where media are kept that nobody has configured a place for: the store's name and the folder in the data folder.
const DEFAULT_STORE: (&str, &str) = ("files", "media");
/// What is measured and counted.
const OPERATIONS: [&str; 6] = ["put", "get", "size", "delete", "list", "sign"];
/// Of a whole answer. What bounds it is that something has to move; this is for an answer that never ends.
const LONGEST_ANSWER: Duration = Duration::from_hours(24);

/// All stores of the configuration. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Stores(Arc<Inner>);

struct Inner {
    current: String,
    stores: BTreeMap<String, Store>,
    metrics: Metrics,
    patience: Patience,
}

enum Store {
    Files(FileStore),
    S3(Box<S3Store>),
}

/// Why there are no stores.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoresError {
    #[error("`media.store` names `{0}`, which is none of `media.stores`")]
    NoSuchStore(String),
    #[error("the store for media `{0}` has neither a path nor a bucket, or both")]
    NoKind(String),
    #[error("the folder {path} of the store for media `{name}` can't be used: {reason}")]
    Folder { name: String, path: PathBuf, reason: String },
    #[error("the store for media `{name}` can't be used: {reason}")]
    S3 { name: String, reason: ::object_store::Error },
    #[error("the store for media `{name}` can't be reached: {reason}")]
    Client { name: String, reason: HttpClientError },
}

impl Stores {
    /// Makes folders that are missing. Whether a bucket is there shows once it is used.
    pub(crate) fn open(config: &MediaConfig, data_dir: &Path, metrics: Metrics) -> Result<Self, StoresError> {
        Self::open_with(config, data_dir, metrics, Patience::default())
    }

    fn open_with(
        config: &MediaConfig,
        data_dir: &Path,
        metrics: Metrics,
        patience: Patience,
    ) -> Result<Self, StoresError> {
        let mut stores = BTreeMap::new();
        for store in &config.stores {
            stores.insert(store.name.clone(), Store::open(store, patience)?);
        }
        let (name, folder) = DEFAULT_STORE;
        let mut first = config.stores.first().map(|store| store.name.clone());
        if first.is_none() {
            stores.insert(name.to_owned(), open_folder(name, &data_dir.join(folder), patience)?);
            first = Some(name.to_owned());
        }
        let current = config.store.clone().or(first).unwrap_or_default();
        if !stores.contains_key(&current) {
            return Err(StoresError::NoSuchStore(current));
        }
        // There from the start, so that the first of each is seen as one more.
        for store in stores.keys() {
            for operation in OPERATIONS {
                metrics.media_store_shown(store, operation);
            }
        }
        Ok(Self(Arc::new(Inner { current, stores, metrics, patience })))
    }

    /// The name of the one that new media go to.
    pub(crate) fn current(&self) -> &str {
        &self.0.current
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.stores.keys().map(String::as_str)
    }

    pub(crate) fn has(&self, store: &str) -> bool {
        self.0.stores.contains_key(store)
    }

    /// Stores all of a file, durably. The file may be gone afterwards, but never changes any more: in a folder on the same
    /// disk it gets a second name. After a failure something may be there, which the sweep finds.
    pub(crate) async fn put(&self, store: &str, location: &str, file: &Path) -> Result<(), StoreFault> {
        let (chosen, place) = self.find(store, location)?;
        let putting = async {
            match chosen {
                Store::Files(files) => files.put(&place, file).await,
                Store::S3(s3) => s3.put(&place, file).await,
            }
        };
        self.measured(store, "put", putting).await
    }

    /// What a store has there, from a byte up to another, not including that. Fewer bytes than that end with an error.
    /// Bytes come as they are read.
    pub(crate) async fn get(&self, store: &str, location: &str, range: Range<u64>) -> Result<ByteStream, StoreFault> {
        let (chosen, place) = self.find(store, location)?;
        let getting = async {
            match chosen {
                Store::Files(files) => files.get(&place, range).await,
                Store::S3(s3) => s3.get(&place, range).await,
            }
        };
        let bytes = self.measured(store, "get", getting).await?;
        let (metrics, store) = (self.0.metrics.clone(), store.to_owned());
        Ok(bytes.inspect(move |part| count(&metrics, &store, "get", part.is_err())).boxed())
    }

    /// In bytes. None where nothing is.
    pub(crate) async fn size(&self, store: &str, location: &str) -> Result<Option<u64>, StoreFault> {
        let (chosen, place) = self.find(store, location)?;
        let sizing = async {
            match chosen {
                Store::Files(files) => files.size(&place).await,
                Store::S3(s3) => s3.size(&place).await,
            }
        };
        unless_missing(self.measured(store, "size", sizing).await)
    }

    /// Also where nothing is any more.
    pub(crate) async fn delete(&self, store: &str, location: &str) -> Result<(), StoreFault> {
        let (chosen, place) = self.find(store, location)?;
        let deleting = async {
            match chosen {
                Store::Files(files) => files.delete(&place).await,
                Store::S3(s3) => s3.delete(&place).await,
            }
        };
        unless_missing(self.measured(store, "delete", deleting).await).map(drop)
    }

    /// All that a store has, in no order. It ends with the first error.
    pub(crate) fn list(&self, store: &str) -> Result<BoxStream<'static, Result<Listed, StoreFault>>, StoreFault> {
        let chosen = self.get_store(store)?;
        let found = match chosen {
            Store::Files(files) => files.list(),
            Store::S3(s3) => s3.list(),
        };
        let (stores, name, longest) = (self.clone(), store.to_owned(), self.0.patience.answer);
        let listed = stream::unfold(Some(found), move |found| async move {
            let mut found = found?;
            match timeout(longest, found.next()).await {
                Ok(None) => None,
                Ok(Some(Ok(meta))) => Some((Ok(meta), Some(found))),
                Ok(Some(Err(error))) => Some((Err(s3::fault(&error)), None)),
                Err(_elapsed) => Some((Err(StoreFault::Unavailable("it does not list what it has".to_owned())), None)),
            }
        });
        let listed = listed.map(move |meta| {
            count(&stores.0.metrics, &name, "list", meta.is_err());
            meta.map(|meta| stores.listed(&name, &meta))
        });
        Ok(listed.boxed())
    }

    /// A URL by which whoever has it gets the bytes from the store itself, for a while. None where the store has no such.
    /// The answer there has the headers `Content-Type` and `Content-Disposition` that are named here.
    pub(crate) async fn signed_url(
        &self,
        store: &str,
        location: &str,
        lifetime: Duration,
        content_type: &str,
        disposition: &str,
    ) -> Result<Option<String>, StoreFault> {
        let (chosen, place) = self.find(store, location)?;
        let Store::S3(s3) = chosen else { return Ok(None) };
        let signing = s3.signed_url(&place, lifetime, content_type, disposition);
        self.measured(store, "sign", signing).await.map(Some)
    }

    fn get_store(&self, store: &str) -> Result<&Store, StoreFault> {
        self.0.stores.get(store).ok_or_else(|| StoreFault::UnknownStore(store.to_owned()))
    }

    /// Nothing is where no location leads.
    fn find(&self, store: &str, location: &str) -> Result<(&Store, Location), StoreFault> {
        let place = Location::parse(location).ok().filter(|place| !place.is_root());
        Ok((self.get_store(store)?, place.ok_or(StoreFault::Missing)?))
    }

    fn listed(&self, store: &str, meta: &ObjectMeta) -> Listed {
        let key: &str = meta.location.as_ref();
        let location = match self.0.stores.get(store) {
            Some(Store::S3(s3)) => s3.location(key),
            _ => key,
        };
        Listed { location: location.to_owned(), bytes: meta.size, modified: meta.last_modified.timestamp_millis() }
    }

    async fn measured<T>(
        &self,
        store: &str,
        operation: &'static str,
        work: impl Future<Output = Result<T, StoreFault>>,
    ) -> Result<T, StoreFault> {
        let started = Instant::now();
        // Requests to S3 are large.
        let done = Box::pin(work).await;
        self.0.metrics.media_store_took(store, operation, started.elapsed());
        let failed = matches!(&done, Err(StoreFault::Full | StoreFault::Unavailable(_)));
        count(&self.0.metrics, store, operation, failed);
        done
    }
}

impl Store {
    fn open(config: &MediaStoreConfig, patience: Patience) -> Result<Self, StoresError> {
        match (&config.path, &config.bucket) {
            (Some(path), None) => open_folder(&config.name, path, patience),
            (None, Some(bucket)) => open_bucket(config, bucket, patience),
            _ => Err(StoresError::NoKind(config.name.clone())),
        }
    }
}

fn open_folder(name: &str, path: &Path, patience: Patience) -> Result<Store, StoresError> {
    let cannot = |reason: String| StoresError::Folder { name: name.to_owned(), path: path.to_owned(), reason };
    data_folder::make(path).map_err(|error: io::Error| cannot(cause::in_words(&error)))?;
    FileStore::open(path, patience.stall).map(Store::Files).map_err(|error| cannot(error.to_string()))
}

/// What is reached without TLS is near, so it is reached without a proxy.
fn open_bucket(config: &MediaStoreConfig, bucket: &str, patience: Patience) -> Result<Store, StoresError> {
    let plain = config.endpoint.as_ref().is_some_and(|endpoint| endpoint.as_str().starts_with("http://"));
    let client = http_client::new(ClientOptions {
        whom: "stores for media",
        connect: patience.connect,
        answer: LONGEST_ANSWER,
        proxy: !plain,
        certificates: if plain { Certificates::Unused } else { Certificates::Required },
    });
    let client = client.map_err(|reason| StoresError::Client { name: config.name.clone(), reason })?;
    let s3 = S3Store::open(config, bucket, client, patience);
    let s3 = s3.map_err(|reason| StoresError::S3 { name: config.name.clone(), reason })?;
    Ok(Store::S3(Box::new(s3)))
}

fn unless_missing<T>(done: Result<T, StoreFault>) -> Result<Option<T>, StoreFault> {
    match done {
        Err(StoreFault::Missing) => Ok(None),
        done => done.map(Some),
    }
}

fn count(metrics: &Metrics, store: &str, operation: &'static str, failed: bool) {
    if failed {
        metrics.media_store_failed(store, operation);
    }
}
