//! A store that speaks S3: Amazon's or anybody else's.
//!
//! Every request has a bound in time and is made again twice at most, so that a store that is down is known to be within
//! half a minute. How much of files is in memory on its way there is bounded for all of them together.

use std::{io, ops::Range, path::Path, sync::Arc, time::Duration};

use ::object_store::{
    BackoffConfig, Error as S3Error, GetOptions, GetRange, MultipartId, ObjectMeta, ObjectStore as _,
    ObjectStoreExt as _, PutOptions, PutPayload, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey},
    multipart::{MultipartStore as _, PartId},
    path::Path as Location,
    signer::{SignedUrlOptions, Signer as _},
};
use bytes::Bytes;
use futures_util::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use http::Method;
use reqwest::Client;
use tokio::{sync::Semaphore, time::timeout};

use super::{
    fault::{ByteStream, StoreFault},
    part::FilePart,
    patience::Patience,
    patient::PatientClient,
};
use crate::{config::MediaStoreConfig, ground::cause};

/// In bytes: what is sent in one request. Other stores than Amazon's want all parts but the last of equal size.
const PART: u64 = 8 * 1024 * 1024;
/// S3 takes 10,000 parts of a file. Of larger files they are larger.
const MOST_PARTS: u64 = 9_000;
/// Of one file.
const PARTS_AT_ONCE: usize = 8;
/// What is in memory of all files on their way, in units, and a unit in bytes.
const MEMORY: u16 = 1_024;
const MEMORY_UNIT: u64 = 64 * 1024;
/// Requests that wait for the head of an answer.
const REQUESTS: usize = 64;
/// Answers that are read.
const BODIES: usize = 512;
/// Of an error, in characters, for the log.
const MAX_WORDS: usize = 300;
/// How a machine or a container gets its keys where the configuration has none.
const OF_ENVIRONMENT: [AmazonS3ConfigKey; 12] = [
    AmazonS3ConfigKey::AccessKeyId,
    AmazonS3ConfigKey::SecretAccessKey,
    AmazonS3ConfigKey::Token,
    AmazonS3ConfigKey::ImdsV1Fallback,
    AmazonS3ConfigKey::MetadataEndpoint,
    AmazonS3ConfigKey::ContainerCredentialsRelativeUri,
    AmazonS3ConfigKey::ContainerCredentialsFullUri,
    AmazonS3ConfigKey::ContainerAuthorizationTokenFile,
    AmazonS3ConfigKey::WebIdentityTokenFile,
    AmazonS3ConfigKey::RoleArn,
    AmazonS3ConfigKey::RoleSessionName,
    AmazonS3ConfigKey::StsEndpoint,
];

pub(super) struct S3Store {
    s3: AmazonS3,
    prefix: Option<Location>,
    requests: Semaphore,
    bodies: Arc<Semaphore>,
    memory: Semaphore,
    patience: Patience,
}

impl S3Store {
    pub(super) fn open(
        config: &MediaStoreConfig,
        bucket: &str,
        client: Client,
        patience: Patience,
    ) -> ::object_store::Result<Self> {
        let prefix =
            config.prefix.as_deref().map(|prefix| prefix.trim_matches('/')).filter(|prefix| !prefix.is_empty());
        Ok(Self {
            s3: build(config, bucket, client, &patience)?,
            prefix: prefix.map(Location::parse).transpose()?,
            requests: Semaphore::new(REQUESTS),
            bodies: Arc::new(Semaphore::new(BODIES)),
            memory: Semaphore::new(usize::from(MEMORY)),
            patience,
        })
    }

    pub(super) async fn put(&self, location: &Location, file: &Path) -> Result<(), StoreFault> {
        let key = self.key(location);
        let bytes = tokio::fs::metadata(file).await.map_err(|error| unreadable(&error))?.len();
        if bytes <= PART {
            let part = FilePart { file: file.to_owned(), range: 0..bytes };
            return self.send(part, |payload| self.s3.put_opts(&key, payload, PutOptions::default())).await.map(drop);
        }
        let id = self.ask(self.patience.answer, self.s3.create_multipart(&key)).await.map_err(not_missing)?;
        let sent = Box::pin(self.put_parts(&key, &id, file, bytes)).await;
        if sent.is_err() {
            // Parts that are left cost their owner money until the bucket's own rules delete them.
            let given_up = self.ask(self.patience.answer, self.s3.abort_multipart(&key, &id)).await;
            given_up.unwrap_or_else(|fault| tracing::warn!("parts of an upload are left in a store: {fault}"));
        }
        sent.map_err(not_missing)
    }

    async fn put_parts(&self, key: &Location, id: &MultipartId, file: &Path, bytes: u64) -> Result<(), StoreFault> {
        let length = PART.max(bytes.div_ceil(MOST_PARTS));
        let parts = (0..bytes.div_ceil(length)).map(|number| {
            let start = number * length;
            let part = FilePart { file: file.to_owned(), range: start..bytes.min(start + length) };
            let number = usize::try_from(number).unwrap_or(usize::MAX);
            self.send(part, move |payload| self.s3.put_part(key, id, number, payload))
        });
        let sent: Vec<PartId> = stream::iter(parts).buffered(PARTS_AT_ONCE).try_collect().await?;
        // Some put the parts together before they answer.
        self.ask(self.patience.whole, self.s3.complete_multipart(key, id, sent)).await.map(drop)
    }

    /// Waits until there is memory for a part before it is read.
    async fn send<T, F>(&self, part: FilePart, request: impl FnOnce(PutPayload) -> F) -> Result<T, StoreFault>
    where
        F: Future<Output = ::object_store::Result<T>>,
    {
        let units = u32::try_from(part.length().div_ceil(MEMORY_UNIT)).unwrap_or(u32::MAX);
        let units = units.clamp(1, u32::from(MEMORY));
        let room = timeout(self.patience.whole, self.memory.acquire_many(units)).await;
        let room = room.map_err(|_elapsed| busy())?.map_err(|_closed| busy())?;
        let payload = part.read().await.map_err(|error| unreadable(&error))?;
        let sent = self.ask(self.patience.whole, request(payload)).await.map_err(not_missing);
        drop(room);
        sent
    }

    /// What is read holds one of the places for answers until it is dropped.
    pub(super) async fn get(&self, location: &Location, range: Range<u64>) -> Result<ByteStream, StoreFault> {
        if range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        let place = timeout(self.patience.answer, Arc::clone(&self.bodies).acquire_owned()).await;
        let place = place.map_err(|_elapsed| busy())?.map_err(|_closed| busy())?;
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let answer = self.ask(self.patience.answer, self.s3.get_opts(&self.key(location), options)).await?;
        if answer.range != range {
            return Err(StoreFault::Unavailable("a file ends before its end".to_owned()));
        }
        let parts = answer.into_stream().map(move |part: ::object_store::Result<Bytes>| {
            let _held = &place;
            part.map_err(|error| io::Error::from(fault(&error)))
        });
        Ok(parts.boxed())
    }

    pub(super) async fn size(&self, location: &Location) -> Result<u64, StoreFault> {
        Ok(self.ask(self.patience.answer, self.s3.head(&self.key(location))).await?.size)
    }

    pub(super) async fn delete(&self, location: &Location) -> Result<(), StoreFault> {
        self.ask(self.patience.answer, self.s3.delete(&self.key(location))).await
    }

    pub(super) fn list(&self) -> BoxStream<'static, ::object_store::Result<ObjectMeta>> {
        self.s3.list(self.prefix.as_ref())
    }

    /// A location of this store from a key of the bucket.
    pub(super) fn location<'a>(&self, key: &'a str) -> &'a str {
        let prefix = self.prefix.as_ref().map_or("", |prefix| prefix.as_ref());
        key.strip_prefix(prefix).unwrap_or(key).trim_start_matches('/')
    }

    pub(super) async fn signed_url(
        &self,
        location: &Location,
        lifetime: Duration,
        content_type: &str,
        disposition: &str,
    ) -> Result<String, StoreFault> {
        let answered = [("response-content-type", content_type), ("response-content-disposition", disposition)];
        let options = SignedUrlOptions::default().with_query(answered);
        let key = self.key(location);
        // The machine may have to be asked for its keys.
        let signed = self.s3.signed_url_opts(Method::GET, &key, lifetime, &options);
        Ok(self.ask(self.patience.answer, signed).await.map_err(not_missing)?.to_string())
    }

    fn key(&self, location: &Location) -> Location {
        let Some(prefix) = &self.prefix else { return location.clone() };
        location.parts().fold(prefix.clone(), Location::join)
    }

    /// One request, repetitions included, in its turn.
    async fn ask<T>(
        &self,
        longest: Duration,
        request: impl Future<Output = ::object_store::Result<T>>,
    ) -> Result<T, StoreFault> {
        let asking = async {
            let _turn = self.requests.acquire().await.map_err(|_closed| busy())?;
            request.await.map_err(|error| fault(&error))
        };
        timeout(longest, asking).await.unwrap_or_else(|_elapsed| {
            let words = format!("it has not answered within {} s", longest.as_secs_f32());
            Err(StoreFault::Unavailable(words))
        })
    }
}

fn build(
    config: &MediaStoreConfig,
    bucket: &str,
    client: Client,
    patience: &Patience,
) -> ::object_store::Result<AmazonS3> {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(2), base: 2.0 };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_http_connector(PatientClient::new(client, patience.stall))
        .with_retry(RetryConfig { backoff, max_retries: 2, retry_timeout: patience.retries })
        // Not all stores know how to delete several at once.
        .with_disable_bulk_delete(true);
    // TLS keeps bytes as they are on their way; without it their sum is signed with them.
    let plain = config.endpoint.as_ref().is_some_and(|endpoint| endpoint.as_str().starts_with("http://"));
    builder = builder.with_allow_http(plain).with_unsigned_payload(!plain);
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint.as_str());
    }
    if let Some(region) = &config.region {
        builder = builder.with_region(region);
    }
    if config.access_key_id.is_none() && config.secret_access_key.is_none() {
        let environment = AmazonS3Builder::from_env();
        for key in OF_ENVIRONMENT {
            if let Some(value) = environment.get_config_value(&key) {
                builder = builder.with_config(key, value);
            }
        }
    }
    if let Some(id) = &config.access_key_id {
        builder = builder.with_access_key_id(id.expose());
    }
    if let Some(secret) = &config.secret_access_key {
        builder = builder.with_secret_access_key(secret.expose());
    }
    builder.build()
}

/// `NoSuchBucket` has the status of an object that is not there. Taken for that, all media would seem to be lost.
pub(super) fn fault(error: &S3Error) -> StoreFault {
    match error {
        S3Error::NotFound { source, .. } if !source.to_string().contains("NoSuchBucket") => StoreFault::Missing,
        error => StoreFault::Unavailable(in_words(&error.to_string())),
    }
}

/// On one line and not too long: the server wrote it.
fn in_words(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).take(MAX_WORDS).collect()
}

/// Nothing has to be there for what was asked.
fn not_missing(fault: StoreFault) -> StoreFault {
    match fault {
        StoreFault::Missing => StoreFault::Unavailable("it has no such bucket, or no such upload".to_owned()),
        fault => fault,
    }
}

fn busy() -> StoreFault {
    StoreFault::Unavailable("too much is asked of it at once".to_owned())
}

fn unreadable(error: &io::Error) -> StoreFault {
    StoreFault::Unavailable(format!("what is to be stored can't be read: {}", cause::in_words(error)))
}
