//! A store that speaks S3, with faults that a test switches on and off, and counted requests.
//!
//! In front is a wire, behind it a server in this process that keeps its buckets in a folder, or the moto that
//! `HEARTH_TEST_MOTO` names.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use axum::{Router, error_handling::HandleError, http::StatusCode};
use hearth::{config::MediaStoreConfig, ground::random::Random};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};

use crate::world::http_client;

pub(crate) const BUCKET: &str = "media";
const KEY_ID: &str = "hearth";
const SECRET: &str = "not a secret";
/// What is carried at once, in bytes.
const PART: usize = 64 * 1024;
/// How long each part takes in a slow store.
const SLOWNESS: Duration = Duration::from_millis(60);
const METHODS: [&[u8]; 5] = [b"GET ", b"PUT ", b"POST ", b"HEAD ", b"DELETE "];
const ERROR: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbusy";

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Everything takes its time, and goes on.
    Slow,
    /// Every request is answered with 503.
    Errors,
    /// Requests come in, and nothing is said. They are done once it is over.
    Hangs,
    /// Connections are closed, and each that is made is closed at once.
    Refuses,
}

/// Gone when dropped.
pub(crate) struct S3Server {
    /// Where a node finds it.
    pub(crate) url: String,
    bucket: String,
    kept: Kept,
    wire: Wire,
    serving: Vec<tokio::task::AbortHandle>,
}

/// Who keeps the bytes.
enum Kept {
    /// A server of this process.
    Folder(tempfile::TempDir),
    /// A moto at this URL.
    Moto(String),
}

#[derive(Clone)]
struct Wire {
    /// `IP:PORT`.
    upstream: String,
    fault: watch::Sender<Fault>,
    requests: Arc<AtomicU64>,
    held: watch::Sender<u64>,
}

impl S3Server {
    /// In this process.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let router = router(folder.path());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = listener.local_addr().unwrap().to_string();
        let serving = start(async move { axum::serve(listener, router).await.unwrap() });
        Self::before(upstream, BUCKET.to_owned(), Kept::Folder(folder), vec![serving]).await
    }

    /// In front of the moto that `HEARTH_TEST_MOTO` names (`http://IP:PORT`), with a bucket of its own. None without one.
    pub(crate) async fn before_moto() -> Option<Self> {
        let Ok(url) = std::env::var("HEARTH_TEST_MOTO") else {
            eprintln!("skipped: HEARTH_TEST_MOTO names no moto server");
            return None;
        };
        let url = url.trim_end_matches('/').to_owned();
        let upstream = url.strip_prefix("http://").expect("HEARTH_TEST_MOTO is http://IP:PORT").to_owned();
        let bucket = format!("media-{}", Random::system().token(12).to_lowercase());
        let made = http_client(Duration::from_secs(20)).put(format!("{url}/{bucket}")).send().await.unwrap();
        assert!(made.status().is_success(), "moto makes no bucket: {}", made.status());
        Some(Self::before(upstream, bucket, Kept::Moto(url), Vec::new()).await)
    }

    async fn before(upstream: String, bucket: String, kept: Kept, mut serving: Vec<tokio::task::AbortHandle>) -> Self {
        let (fault, held) = (watch::Sender::new(Fault::None), watch::Sender::new(0));
        let wire = Wire { upstream, fault, requests: Arc::default(), held };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        serving.push(start(wire.clone().listen(listener)));
        Self { url, bucket, kept, wire, serving }
    }

    /// What the server does from now on, also with what it has in hand.
    pub(crate) fn set(&self, fault: Fault) {
        self.wire.fault.send_replace(fault);
    }

    /// How many requests have come, whatever became of them.
    pub(crate) fn count_requests(&self) -> u64 {
        self.wire.requests.load(Ordering::SeqCst)
    }

    /// Waits until so many requests have come while it hung, since it was started.
    pub(crate) async fn until_held(&self, count: u64) {
        let mut held = self.wire.held.subscribe();
        let all = timeout(Duration::from_mins(1), held.wait_for(|held| *held >= count)).await.is_ok();
        let come = *self.wire.held.borrow();
        assert!(all, "only {come} requests have come");
    }

    /// As a place for media.
    pub(crate) fn store(&self, name: &str) -> MediaStoreConfig {
        store_at(name, &self.bucket, &self.url)
    }

    /// As a value of `media.stores` in a configuration file.
    pub(crate) fn to_toml(&self, name: &str) -> String {
        let Self { url, bucket, .. } = self;
        format!(
            "{{ name = \"{name}\", bucket = \"{bucket}\", endpoint = \"{url}\", access_key_id = \"{KEY_ID}\", \
             secret_access_key = \"{SECRET}\" }}"
        )
    }

    /// The names of all that is kept.
    pub(crate) async fn list(&self) -> BTreeSet<String> {
        match &self.kept {
            Kept::Folder(folder) => list_files(&folder.path().join(&self.bucket)),
            Kept::Moto(url) => {
                let http = http_client(Duration::from_secs(20));
                let answer = http.get(format!("{url}/{}?list-type=2", self.bucket)).send().await.unwrap();
                let answer = answer.text().await.unwrap();
                assert!(!answer.contains("<IsTruncated>true"), "a test has few files");
                let keys = answer.split("<Key>").skip(1);
                keys.map(|rest| rest.split("</Key>").next().unwrap().to_owned()).collect()
            }
        }
    }

    /// Makes all that is kept as old as the hills, where that can be done.
    pub(crate) fn age(&self) {
        if let Kept::Folder(folder) = &self.kept {
            age_files(&folder.path().join(&self.bucket));
        }
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.serving.iter().for_each(tokio::task::AbortHandle::abort);
    }
}

impl Wire {
    async fn listen(self, listener: TcpListener) {
        while let Ok((client, _)) = listener.accept().await {
            if *self.fault.borrow() != Fault::Refuses {
                start(self.clone().carry(client));
            }
        }
    }

    /// Until either end has had enough, or the fault says so.
    async fn carry(self, mut client: TcpStream) {
        let mut fault = self.fault.subscribe();
        let Ok(mut server) = TcpStream::connect(&self.upstream).await else { return };
        let (mut asked, mut answered) = (vec![0; PART], vec![0; PART]);
        loop {
            let now = *fault.borrow_and_update();
            let carried = tokio::select! {
                () = std::future::ready(()), if now == Fault::Refuses => return,
                changed = fault.changed(), if now != Fault::Refuses => {
                    if changed.is_err() {
                        return;
                    }
                    continue;
                }
                read = client.read(&mut asked), if now != Fault::Refuses => {
                    let Some(part) = part_of(&asked, read) else { return };
                    let begins = METHODS.iter().any(|method| part.starts_with(method));
                    if begins {
                        self.requests.fetch_add(1, Ordering::SeqCst);
                    }
                    match now {
                        Fault::Errors if begins => return refuse(client).await,
                        Fault::Hangs => {
                            self.held.send_modify(|held| *held += u64::from(begins));
                            if fault.wait_for(|fault| *fault != Fault::Hangs).await.is_err() {
                                return;
                            }
                        }
                        Fault::Slow => sleep(SLOWNESS).await,
                        _ => {}
                    }
                    server.write_all(part).await
                }
                read = server.read(&mut answered), if !matches!(now, Fault::Refuses | Fault::Hangs) => {
                    let Some(part) = part_of(&answered, read) else { return };
                    if now == Fault::Slow {
                        sleep(SLOWNESS).await;
                    }
                    client.write_all(part).await
                }
            };
            if carried.is_err() {
                return;
            }
        }
    }
}

/// What was read. None at the end.
fn part_of(buffer: &[u8], read: std::io::Result<usize>) -> Option<&[u8]> {
    read.ok().filter(|length| *length > 0).map(|length| &buffer[..length])
}

/// Says no, and reads what is still coming, so that the answer is not lost.
async fn refuse(mut client: TcpStream) {
    let mut rest = vec![0; PART];
    let refusing = async {
        client.write_all(ERROR).await?;
        client.shutdown().await?;
        while client.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    drop(timeout(Duration::from_secs(5), refusing).await);
}

/// A server that keeps the bucket [`BUCKET`] in a folder.
pub(crate) fn router(folder: &Path) -> Router {
    fs::create_dir_all(folder.join(BUCKET)).unwrap();
    let mut service = S3ServiceBuilder::new(FileSystem::new(folder).unwrap());
    service.set_auth(SimpleAuth::from_single(KEY_ID, SECRET));
    Router::new().fallback_service(HandleError::new(service.build(), in_words))
}

/// A bucket at a URL, as a place for media.
pub(crate) fn store_at(name: &str, bucket: &str, url: &str) -> MediaStoreConfig {
    MediaStoreConfig {
        name: name.to_owned(),
        path: None,
        bucket: Some(bucket.to_owned()),
        endpoint: Some(url.to_owned().try_into().unwrap()),
        region: None,
        prefix: None,
        access_key_id: Some(KEY_ID.to_owned().try_into().unwrap()),
        secret_access_key: Some(SECRET.to_owned().try_into().unwrap()),
    }
}

async fn in_words(error: s3s::HttpError) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:?}"))
}

#[expect(clippy::disallowed_methods, reason = "it ends with the test")]
fn start(task: impl Future<Output = ()> + Send + 'static) -> tokio::task::AbortHandle {
    tokio::spawn(task).abort_handle()
}

/// The paths of all files below a folder, from there on.
pub(crate) fn list_files(root: &Path) -> BTreeSet<String> {
    let name = |path: &PathBuf| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    walk(root).iter().map(name).collect()
}

/// Makes all files below a folder as old as the hills.
pub(crate) fn age_files(root: &Path) {
    for path in walk(root) {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 365)).unwrap();
    }
}

/// The paths of all files below a folder.
pub(crate) fn walk(root: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}
