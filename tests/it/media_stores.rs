//! Media in a store that speaks S3: shared by nodes without a common disk, moved there while people upload and download,
//! and a store that is slow, broken, silent or gone, while everybody goes on writing to each other.
//!
//! Each test runs on a server in this process, and on moto where `HEARTH_TEST_MOTO` names one.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::json;

use crate::{
    durable::{Server, register},
    files::{Answer, Files, content, download_path, list_rows, sha256, upload_path},
    s3_server::{Fault, S3Server},
    world::{Client, Engine, World, http_client, new_postgres_database},
};

/// Uploads that hang at once.
const HELD: u64 = 50;
/// What is sent meanwhile.
const SENDS: usize = 50;
/// Comes in parts.
const LARGE: usize = 17_000_000;

/// Runs tests on each store that there is, and each database.
macro_rules! on_each {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn s3s_sqlite() {
                super::$name(S3Server::start().await, Engine::Sqlite).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn s3s_postgres() {
                super::$name(S3Server::start().await, Engine::Postgres).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn moto_sqlite() {
                if let Some(s3) = S3Server::before_moto().await {
                    super::$name(s3, Engine::Sqlite).await;
                }
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn moto_postgres() {
                if let Some(s3) = S3Server::before_moto().await {
                    super::$name(s3, Engine::Postgres).await;
                }
            }
        }
    )*};
}

on_each! {
    files_come_back_as_they_went,
    a_silent_store_holds_up_nobody_who_writes,
    a_broken_store_is_a_retryable_error,
    media_move_while_they_are_used,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_share_media_without_a_common_disk_s3s() {
    nodes_share_media(S3Server::start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_share_media_without_a_common_disk_moto() {
    if let Some(s3) = S3Server::before_moto().await {
        nodes_share_media(s3).await;
    }
}

/// A server whose media are in the store, somebody, and a room of theirs.
struct Home {
    world: World,
    alice: Client,
    files: Files,
    room: String,
}

impl Home {
    /// None without a PostgreSQL.
    async fn on(engine: Engine, s3: &S3Server) -> Option<Self> {
        let world = World::on(engine, |config| config.media.stores = vec![s3.store("s3")]).await;
        let Some(world) = world else {
            eprintln!("skipped: ./test starts a PostgreSQL for this");
            return None;
        };
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        let files = Files::of(&world.url, &alice.token);
        Some(Self { world, alice, files, room })
    }

    async fn write(&self) {
        for number in 0..SENDS {
            self.alice.say(&self.room, &number.to_string()).await;
        }
    }

    /// Begins so many uploads, the bytes of each its own.
    fn begin_uploads(&self, first: u64, count: u64) -> Vec<tokio::task::JoinHandle<Answer>> {
        let begin = |number| {
            let files = self.files.clone();
            start(async move { files.upload(content(number, 40_000)).await })
        };
        (first..first + count).map(begin).collect()
    }

    /// Whatever the store has, a row names it or it is to be removed; whatever a row names is there, whole.
    async fn nothing_is_half_stored(&self, s3: &S3Server) {
        let database = &self.world.database;
        let locations = async |select: &'static str| -> BTreeSet<String> {
            list_rows(database, select).await.into_iter().map(|(_, location)| location).collect()
        };
        let objects = locations("SELECT store, location FROM media_objects").await;
        let removals = locations("SELECT store, location FROM media_removals").await;
        let kept = s3.list().await;
        let unknown: Vec<_> = kept.iter().filter(|key| !objects.contains(*key) && !removals.contains(*key)).collect();
        assert!(unknown.is_empty(), "no row names {unknown:?}");
        let missing: Vec<_> = objects.difference(&kept).collect();
        assert!(missing.is_empty(), "{missing:?} are not there");
        let select = "SELECT 'mxc://' || server_name || '/' || media_id, digest FROM media WHERE digest IS NOT NULL";
        for (uri, digest) in list_rows(database, select).await {
            assert_eq!(sha256(&self.files.download(&uri).await.bytes()), digest, "{uri}");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "clients of the test are tasks of their own")]
fn start<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(task)
}

async fn files_come_back_as_they_went(s3: S3Server, engine: Engine) {
    let Some(home) = Home::on(engine, &s3).await else { return };
    for (number, length) in (0..).zip([1, 262_144, 8 << 20, LARGE]) {
        let bytes = content(number, length);
        let uri = home.files.upload(bytes.clone()).await.uri();
        let again = home.files.upload(bytes.clone()).await.uri();
        assert_ne!(uri, again);
        assert!(home.files.download(&uri).await.bytes() == bytes, "{length}");
        assert!(home.files.download(&again).await.bytes() == bytes, "{length}");
        assert_eq!(s3.list().await.len(), usize::try_from(number).unwrap() + 1, "equal bytes are there once");
    }
    // What is slow is waited for.
    s3.set(Fault::Slow);
    let bytes = content(99, 1_000_000);
    let uri = home.files.upload(bytes.clone()).await.uri();
    assert!(home.files.download(&uri).await.bytes() == bytes);
    home.nothing_is_half_stored(&s3).await;
}

/// Trap: a store that does not answer stops the server. It is not measured how long a message takes: all of them are
/// acknowledged before a single upload is.
async fn a_silent_store_holds_up_nobody_who_writes(s3: S3Server, engine: Engine) {
    let Some(home) = Home::on(engine, &s3).await else { return };
    let kept = home.files.upload(content(1_000, 40_000)).await.uri();

    // Not for so long that anybody gives up: uploads go on by themselves.
    s3.set(Fault::Hangs);
    let uploads = home.begin_uploads(0, HELD);
    s3.until_held(HELD).await;
    home.write().await;
    assert!(uploads.iter().all(|upload| !upload.is_finished()), "the store has said nothing yet");
    s3.set(Fault::None);
    for (number, upload) in (0..).zip(uploads) {
        let uri = upload.await.unwrap().uri();
        assert!(home.files.download(&uri).await.bytes() == content(number, 40_000));
    }

    // For longer than that: whoever waits for it is told to try again, and the others still don't notice.
    s3.set(Fault::Hangs);
    let uploads = home.begin_uploads(100, 20);
    let files = home.files.clone();
    let download = start(async move { files.download(&kept).await });
    s3.until_held(HELD + 21).await;
    home.write().await;
    for upload in uploads {
        upload.await.unwrap().is_retryable();
    }
    download.await.unwrap().is_retryable();
    home.write().await;

    s3.set(Fault::None);
    for upload in home.begin_uploads(100, 20) {
        upload.await.unwrap().uri();
    }
    home.nothing_is_half_stored(&s3).await;
}

async fn a_broken_store_is_a_retryable_error(s3: S3Server, engine: Engine) {
    let Some(home) = Home::on(engine, &s3).await else { return };
    let kept = home.files.upload(content(1, 40_000)).await.uri();
    for (number, fault) in (2..).zip([Fault::Errors, Fault::Refuses]) {
        s3.set(fault);
        let pending = home.files.ask("POST", "/_matrix/media/v1/create", Vec::new()).await.unwrap().uri();
        let path = upload_path(&pending);
        let before = s3.count_requests();
        let (small, large) = (content(number, 40_000), content(number + 100, LARGE));
        let (first, second, third, download, ()) = tokio::join!(
            home.files.upload(small.clone()),
            home.files.upload(large.clone()),
            home.files.ask("PUT", &path, small.clone()),
            home.files.download(&kept),
            home.write(),
        );
        first.is_retryable();
        second.is_retryable();
        third.unwrap().is_retryable();
        download.is_retryable();
        if fault == Fault::Errors {
            let asked = s3.count_requests() - before;
            assert!((4..=60).contains(&asked), "{asked} requests of four: a store that is down is not beaten");
        }

        s3.set(Fault::None);
        let answer = home.files.ask("PUT", &path, small.clone()).await.unwrap();
        assert_eq!(answer.status, 200, "what failed has not used the URI up: {}", answer.json());
        assert!(home.files.download(&pending).await.bytes() == small);
        let uri = home.files.upload(large.clone()).await.uri();
        assert!(home.files.download(&uri).await.bytes() == large);
        assert!(home.files.download(&kept).await.bytes() == content(1, 40_000));
        home.nothing_is_half_stored(&s3).await;
    }
}

/// As three machines, each with a disk of its own.
async fn nodes_share_media(s3: S3Server) {
    let Some(database) = new_postgres_database().await else {
        eprintln!("skipped: ./test starts a PostgreSQL for this");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("hearth.toml");
    std::fs::write(&config, format!("[media]\nstores = [{}]\n", s3.to_toml("s3"))).unwrap();
    let settings = [("HEARTH_DATABASE__URL", &*database), ("HEARTH_CONFIG", config.to_str().unwrap())];
    let servers: Vec<_> = (0..3)
        .map(|node| {
            let dir = dir.path().join(format!("node{node}"));
            std::fs::create_dir(&dir).unwrap();
            Server::start(&dir, &settings)
        })
        .collect();
    let http = http_client(Duration::from_secs(20));
    let mut user = register(&http, &servers[0].url, "alice").await;
    let mut nodes = Vec::new();
    for server in &servers {
        user.url.clone_from(&server.url);
        user.call("GET", "/_matrix/client/v3/account/whoami", None).await;
        nodes.push(Files::of(&server.url, &user.token));
    }

    let mut uris = Vec::new();
    for (number, length) in (0_u64..).zip([7, 40_000, 1_000_000, LARGE]) {
        for (node, files) in nodes.iter().enumerate() {
            let bytes = content(number * 10 + u64::try_from(node).unwrap(), length);
            let uri = files.upload(bytes.clone()).await.uri();
            for other in &nodes {
                assert!(other.download(&uri).await.bytes() == bytes, "{uri} of node {node}");
            }
            uris.push(uri);
        }
    }
    assert_eq!(s3.list().await.len(), uris.len());

    // A URI that one has made is uploaded to at another, while a third is asked for it.
    let uri = nodes[0].ask("POST", "/_matrix/media/v1/create", Vec::new()).await.unwrap().uri();
    let path = format!("{}?timeout_ms=60000", download_path(&uri));
    let bytes = content(1_000, 40_000);
    let waiting = {
        let (files, path) = (nodes[2].clone(), path.clone());
        start(async move { files.ask("GET", &path, Vec::new()).await })
    };
    let put = nodes[1].ask("PUT", &upload_path(&uri), bytes.clone()).await.unwrap();
    assert_eq!(put.status, 200, "{}", put.json());
    assert!(waiting.await.unwrap().unwrap().bytes() == bytes);

    // What is deleted is gone everywhere, and equal bytes come back from anywhere.
    let gone = uris.pop().unwrap();
    tokio::task::block_in_place(|| servers[0].admin(&["delete-media", &gone, "--yes"], ""));
    for node in &nodes {
        assert_eq!(node.download(&gone).await.status, 404);
    }
    let uri = nodes[0].upload(content(32, LARGE)).await.uri();
    assert!(nodes[2].download(&uri).await.bytes() == content(32, LARGE));
    for node in 0..3 {
        let dir = dir.path().join(format!("node{node}"));
        assert!(!dir.join("media").exists(), "node {node} has a store of its own");
    }
}

/// Every download is right at every moment, and in the end nothing needs the disk.
async fn media_move_while_they_are_used(s3: S3Server, engine: Engine) {
    let dir = tempfile::tempdir().unwrap();
    let url = match engine {
        Engine::Sqlite => format!("sqlite:{}", dir.path().join("hearth.sqlite3").display()),
        Engine::Postgres | Engine::Cluster => match new_postgres_database().await {
            Some(url) => url,
            None => return eprintln!("skipped: ./test starts a PostgreSQL for this"),
        },
    };
    let disk = tempfile::tempdir().unwrap();
    let old = format!("{{ name = \"disk\", path = \"{}\" }}", disk.path().join("media").display());
    let new = s3.to_toml("s3");
    let config = dir.path().join("hearth.toml");
    let configure = |stores: &[&String], current: &str| {
        let stores = stores.iter().copied().map(String::as_str).collect::<Vec<_>>().join(", ");
        std::fs::write(&config, format!("[media]\nstores = [{stores}]\nstore = \"{current}\"\n")).unwrap();
    };
    configure(&[&old], "disk");
    let settings = [("HEARTH_DATABASE__URL", &*url), ("HEARTH_CONFIG", config.to_str().unwrap())];
    let mut server = Server::start(dir.path(), &settings);
    let user = register(&http_client(Duration::from_secs(20)), &server.url, "alice").await;
    let files = Files::of(&server.url, &user.token);
    let mut uris = Vec::new();
    for number in 0..60 {
        uris.push(files.upload(content(number, length_of(number))).await.uri());
    }

    // New ones go to the other store from now on, with the others still where they are.
    configure(&[&old, &new], "s3");
    server.kill_and_restart();
    user.call("GET", "/_matrix/client/v3/account/whoami", None).await;
    assert_eq!(s3.count_requests(), 0);
    let (moved, downloads): (Arc<AtomicBool>, Arc<AtomicUsize>) = (Arc::default(), Arc::default());
    let downloading: Vec<_> = (0..4)
        .map(|reader| {
            let (moved, downloads) = (Arc::clone(&moved), Arc::clone(&downloads));
            start(download_until(moved, files.clone(), uris.clone(), reader * 15, downloads))
        })
        .collect();
    let uploading = start(upload_until(Arc::clone(&moved), files.clone()));
    tokio::task::block_in_place(|| server.admin(&["move-media", "disk", "s3"], ""));
    moved.store(true, Ordering::SeqCst);
    for reader in downloading {
        reader.await.unwrap();
    }
    let uploaded = uploading.await.unwrap();
    eprintln!("{} downloads and {} uploads meanwhile", downloads.load(Ordering::SeqCst), uploaded.len());

    let left = list_rows(&url, "SELECT digest, location FROM media_objects WHERE store = 'disk'").await;
    assert!(left.is_empty(), "{} have not moved", left.len());
    // The disk is taken out.
    configure(&[&new], "s3");
    std::fs::rename(disk.path().join("media"), disk.path().join("elsewhere")).unwrap();
    server.kill_and_restart();
    user.call("GET", "/_matrix/client/v3/account/whoami", None).await;
    let before = uris.into_iter().zip(0..);
    let all: Vec<(String, u64)> = before.chain(uploaded).collect();
    let downloads = join_all(all.iter().map(|(uri, _)| files.download(uri))).await;
    for (answer, (uri, number)) in downloads.into_iter().zip(&all) {
        assert!(answer.bytes() == content(*number, length_of(*number)), "{uri}");
    }
}

/// Downloads one file after the other, and checks what comes. Returns after the first that is begun once media have moved.
async fn download_until(
    moved: Arc<AtomicBool>,
    files: Files,
    uris: Vec<String>,
    first: usize,
    downloads: Arc<AtomicUsize>,
) {
    for (number, uri) in (0..).zip(&uris).cycle().skip(first) {
        let is_last = moved.load(Ordering::SeqCst);
        let bytes = files.download(uri).await.bytes();
        assert!(bytes == content(number, length_of(number)), "{uri} while media move");
        downloads.fetch_add(1, Ordering::SeqCst);
        if is_last {
            return;
        }
    }
}

/// Uploads what is there and moves, and then what is new.
async fn upload_until(moved: Arc<AtomicBool>, files: Files) -> Vec<(String, u64)> {
    let (mut uploaded, mut number) = (Vec::new(), 30);
    while !moved.load(Ordering::SeqCst) {
        let uri = files.upload(content(number, length_of(number))).await.uri();
        uploaded.push((uri, number));
        number += 1;
    }
    uploaded
}

/// Some come in parts.
fn length_of(number: u64) -> usize {
    match number % 12 {
        0 => 9_000_000,
        rest => usize::try_from(rest * 20_000).unwrap(),
    }
}
