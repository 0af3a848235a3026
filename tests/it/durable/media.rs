//! Uploads through `kill -9`: what was acknowledged is there byte for byte, nothing is there by half, and a sweep leaves
//! neither bytes without a row nor rows without bytes.
//!
//! Many users upload at once, equal bytes among them, at once and to URIs that were made before. Each looks at once
//! whether it got what it had uploaded, and has some of it deleted by `hearth admin` beside the server.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hearth::ground::random::Random;

use super::{PATIENCE, Server, kill_cycles, program, register, start};
use crate::{
    files::{Answer, Files, UPLOAD, content, download_path, execute, list_rows, sha256, upload_path},
    s3_server::{S3Server, age_files, list_files},
    world::{http_client, new_postgres_database},
};

const USERS: u64 = 8;
const UPLOADS: u64 = 500;
/// How often the server is killed; `HEARTH_KILL_CYCLES` sets it too.
const KILLS: u64 = 6;
/// In a long run as many between one kill and the next.
const UPLOADS_PER_KILL: u64 = 20;
/// After an upload is acknowledged, the kill comes within so many milliseconds.
const MOMENT: u64 = 60;
/// Of these the user's last one is deleted.
const DELETED: u64 = 9;
/// The duty that tidies looks every half minute, and a killed node keeps its duties for a while.
const TIDIED: Duration = Duration::from_mins(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_survive_on_sqlite_and_files() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("hearth.sqlite3").display());
    let stored = Stored::InFiles(dir.path().join("media"));
    uploads_survive(dir.path(), &url, stored).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_survive_on_postgres_and_s3() {
    let dir = tempfile::tempdir().unwrap();
    match new_postgres_database().await {
        Some(url) => uploads_survive(dir.path(), &url, Stored::InS3(S3Server::start().await)).await,
        None => eprintln!("skipped: ./test starts a PostgreSQL for this"),
    }
}

/// Where the bytes are.
enum Stored {
    InFiles(PathBuf),
    InS3(S3Server),
}

impl Stored {
    async fn list(&self) -> BTreeSet<String> {
        match self {
            Self::InFiles(folder) => list_files(folder),
            Self::InS3(server) => server.list().await,
        }
    }

    /// A sweep leaves what is new alone: somebody may be about to name it.
    fn age(&self) {
        match self {
            Self::InFiles(folder) => age_files(folder),
            Self::InS3(server) => server.age(),
        }
    }

    fn configure(&self) -> String {
        let stores = match self {
            Self::InFiles(_) => String::new(),
            Self::InS3(server) => format!("stores = [{}]\n", server.to_toml("s3")),
        };
        // Whoever is killed before they have the answer to a URI that was made has one more.
        format!("[media]\n{stores}pending_uploads = 1000\n")
    }
}

/// Whatever one user was told.
#[derive(Default)]
struct Told {
    /// By URI, the digest of what was uploaded to it and acknowledged.
    has: BTreeMap<String, String>,
    deleted: BTreeSet<String>,
}

/// Somebody who uploads until enough was.
struct Uploader {
    files: Files,
    dir: PathBuf,
    settings: Vec<(String, String)>,
    next: Arc<AtomicU64>,
    acknowledged: Arc<AtomicU64>,
    uploads: u64,
}

async fn uploads_survive(dir: &Path, database: &str, stored: Stored) {
    let config = dir.join("hearth.toml");
    std::fs::write(&config, stored.configure()).unwrap();
    let settings = [("HEARTH_DATABASE__URL", database), ("HEARTH_CONFIG", config.to_str().unwrap())];
    let mut server = Server::start(dir, &settings);
    let http = http_client(Duration::from_secs(20));

    let kills = kill_cycles(KILLS);
    let uploads = UPLOADS.max(kills * UPLOADS_PER_KILL);
    let (next, acknowledged): (Arc<AtomicU64>, Arc<AtomicU64>) = (Arc::default(), Arc::default());
    let mut uploading = Vec::new();
    for number in 0..USERS {
        let user = register(&http, &server.url, &format!("user{number}")).await;
        let files = Files::of(&server.url, &user.token);
        let (dir, settings) = (server.dir.clone(), server.settings.clone());
        let (next, acknowledged) = (Arc::clone(&next), Arc::clone(&acknowledged));
        let uploader = Uploader { files, dir, settings, next, acknowledged, uploads };
        uploading.push(start(uploader.upload_all()));
    }
    let observer = register(&http, &server.url, "observer").await;

    let random = Random::system();
    for kill in 1..=kills {
        let patience = Instant::now() + PATIENCE;
        while acknowledged.load(Ordering::SeqCst) < uploads * kill / (kills + 1) {
            assert!(Instant::now() < patience, "uploads are no longer acknowledged before kill {kill}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let moment = u64::from_be_bytes(random.bytes::<8>()) % MOMENT;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        server.kill_and_restart();
    }
    let mut told = Told::default();
    for user in uploading {
        let Told { has, deleted } = user.await.unwrap();
        told.has.extend(has);
        told.deleted.extend(deleted);
    }
    let (has, deleted) = (told.has.len(), told.deleted.len());
    eprintln!("{has} uploads acknowledged and there to be, {deleted} deleted, through {kills} kills");

    observer.call("GET", "/_matrix/client/v3/account/whoami", None).await;
    is_spool_empty(dir);
    until_swept(&server, database, &stored).await;
    check(database, &stored, &told, &Files::of(&observer.url, &observer.token)).await;
}

impl Uploader {
    async fn upload_all(self) -> Told {
        let mut told = Told::default();
        let mut mine = 0;
        loop {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            if number >= self.uploads {
                return told;
            }
            let bytes = bytes_of(number);
            let uri =
                if number.is_multiple_of(3) { self.upload_later(&bytes).await } else { self.upload(&bytes).await };
            self.acknowledged.fetch_add(1, Ordering::SeqCst);
            let answer = self.insist("GET", &download_path(&uri), &[], &[200]).await;
            assert!(answer.body == bytes, "{uri} is not what was uploaded");
            mine += 1;
            if mine % DELETED == 0 {
                self.delete(&uri).await;
                told.deleted.insert(uri);
            } else {
                told.has.insert(uri, sha256(&bytes));
            }
        }
    }

    async fn upload(&self, bytes: &[u8]) -> String {
        self.insist("POST", UPLOAD, bytes, &[200]).await.uri()
    }

    /// To a URI that is there before.
    async fn upload_later(&self, bytes: &[u8]) -> String {
        let uri = self.insist("POST", "/_matrix/media/v1/create", &[], &[200]).await.uri();
        // Where the first answer was lost, the second one says that it is done.
        let answer = self.insist("PUT", &upload_path(&uri), bytes, &[200, 409]).await;
        if answer.status == 409 {
            assert_eq!(answer.json()["errcode"], "M_CANNOT_OVERWRITE_MEDIA");
        }
        uri
    }

    /// Tries until the server answers, with what can be expected. It may be down, or say that it can't now.
    async fn insist(&self, method: &str, path: &str, body: &[u8], expected: &[u16]) -> Answer {
        let patience = Instant::now() + PATIENCE;
        loop {
            match self.files.ask(method, path, body.to_vec()).await {
                Some(answer) if expected.contains(&answer.status) => return answer,
                Some(answer) => assert_eq!(answer.status, 503, "{method} {path}: {}", answer.json()),
                None => {}
            }
            assert!(Instant::now() < patience, "{method} {path}: the server does not come back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Beside the server, whether it runs or not.
    async fn delete(&self, uri: &str) {
        let mut command = program(&self.dir, &self.settings);
        command.args(["admin", "delete-media", uri, "--yes"]).stdout(std::process::Stdio::null());
        let done = tokio::task::spawn_blocking(move || command.status().unwrap()).await.unwrap();
        assert!(done.success(), "{uri} is not deleted");
    }
}

/// What is uploaded the so manieth time: a fifth of all are four files that everybody has, a few come in parts.
fn bytes_of(number: u64) -> Vec<u8> {
    let file = if number.is_multiple_of(5) { number % 20 } else { number };
    let length = match file % 7 {
        _ if file % 97 == 1 => 9_000_000,
        0 => 1,
        1 | 2 => 4_000,
        3 | 4 => 70_000,
        5 => 130_000,
        _ => 300_000,
    };
    content(file, length)
}

/// No other process has left anything, and this one has nothing coming in.
fn is_spool_empty(dir: &Path) {
    let left = list_files(&dir.join("media-incoming"));
    let files: Vec<_> = left.iter().filter(|name| *name != "lock" && !name.ends_with("/lock")).collect();
    assert!(files.is_empty(), "{files:?}");
    let folders = std::fs::read_dir(dir.join("media-incoming")).unwrap();
    let folders = folders.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(folders, 1, "processes that are gone have left {left:?}");
}

/// Has everything swept and tidied as if it had been there for long.
async fn until_swept(server: &Server, database: &str, stored: &Stored) {
    stored.age();
    tokio::task::block_in_place(|| server.admin(&["sweep-media"], ""));
    let patience = Instant::now() + TIDIED;
    loop {
        execute(database, "UPDATE media_removals SET not_before = 1").await;
        execute(database, "UPDATE media SET expires_at = 1 WHERE digest IS NULL").await;
        let left = list_rows(database, "SELECT store, location FROM media_removals").await;
        let pending = list_rows(database, "SELECT media_id, origin FROM media WHERE digest IS NULL").await;
        if left.is_empty() && pending.is_empty() {
            return;
        }
        let (left, pending) = (left.len(), pending.len());
        assert!(Instant::now() < patience, "{left} removals and {pending} URIs are never tidied up");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn check(database: &str, stored: &Stored, told: &Told, files: &Files) {
    let objects = list_rows(database, "SELECT digest, location FROM media_objects").await;
    let media = list_rows(database, "SELECT 'mxc://' || server_name || '/' || media_id, digest FROM media").await;

    let locations: BTreeSet<String> = objects.iter().map(|(_, location)| location.clone()).collect();
    let kept = stored.list().await;
    assert_eq!(kept.difference(&locations).collect::<Vec<_>>(), Vec::<&String>::new(), "no row names these bytes");
    assert_eq!(locations.difference(&kept).collect::<Vec<_>>(), Vec::<&String>::new(), "these bytes are gone");
    let digests: BTreeSet<&String> = objects.iter().map(|(digest, _)| digest).collect();
    let named: BTreeSet<&String> = media.iter().map(|(_, digest)| digest).collect();
    assert_eq!(digests, named, "every object is named, and every name has its object");

    let media: BTreeMap<String, String> = media.into_iter().collect();
    for (uri, digest) in &told.has {
        assert_eq!(media.get(uri), Some(digest), "{uri} was acknowledged");
    }
    for uri in &told.deleted {
        assert!(!media.contains_key(uri), "{uri} was deleted");
        assert_eq!(files.download(uri).await.status, 404);
    }
    // Also what nobody was told of.
    for (uri, digest) in &media {
        assert_eq!(sha256(&files.download(uri).await.bytes()), *digest, "{uri}");
    }
    eprintln!("{} media of {} objects", media.len(), objects.len());
}
