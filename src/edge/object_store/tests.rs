//! Every kind of store keeps the same promises, and one that does not work is known to within a bounded time.

mod scripted;

use std::fs;

use axum::{Router, error_handling::HandleError};
use futures_util::TryStreamExt as _;
use http::StatusCode;
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::{net::TcpListener, time::timeout};

use self::scripted::Script;
use super::*;
use crate::{config::HttpUrl, ground::tasks::Tasks};

const BUCKET: &str = "media";
const KEY_ID: &str = "hearth";
const SECRET: &str = "not a secret";
const LOCATION: &str = "ab/cd/0123456789abcdefghijklmnopqrstuv";
/// Whatever a store does, nobody waits longer. On a busy machine, too.
const BOUND: Duration = Duration::from_secs(20);
const SHORT: Patience = Patience {
    connect: Duration::from_millis(500),
    stall: Duration::from_millis(500),
    retries: Duration::from_millis(700),
    answer: Duration::from_secs(2),
    whole: Duration::from_secs(3),
};

/// A store of one kind, and what it needs.
struct World {
    stores: Stores,
    folder: TempDir,
    metrics: Metrics,
}

impl World {
    fn on_files() -> Self {
        Self::with(Vec::new(), tempfile::tempdir().unwrap(), Patience::default())
    }

    async fn on_s3() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = serve_s3(&folder.path().join("s3")).await;
        Self::with(vec![bucket(&url, Some("of/a server"))], folder, Patience::default())
    }

    /// On an S3 store that is out of order.
    async fn on_broken(script: Script) -> Self {
        let url = scripted::serve(script).await;
        Self::with(vec![bucket(&url, None)], tempfile::tempdir().unwrap(), SHORT)
    }

    fn with(stores: Vec<MediaStoreConfig>, folder: TempDir, patience: Patience) -> Self {
        let (config, metrics) = (MediaConfig { stores, ..MediaConfig::default() }, Metrics::new());
        let stores = Stores::open_with(&config, folder.path(), metrics.clone(), patience).unwrap();
        Self { stores, folder, metrics }
    }

    fn name(&self) -> &str {
        self.stores.current()
    }

    fn write(&self, bytes: &[u8]) -> PathBuf {
        let file = self.folder.path().join("incoming");
        fs::remove_file(&file).unwrap_or_else(drop);
        fs::write(&file, bytes).unwrap();
        file
    }

    async fn put(&self, location: &str, bytes: &[u8]) {
        self.stores.put(self.name(), location, &self.write(bytes)).await.unwrap();
    }

    async fn read(&self, location: &str, range: Range<u64>) -> Result<Vec<u8>, StoreFault> {
        let bytes = self.stores.get(self.name(), location, range).await?;
        Ok(bytes.try_collect::<Vec<_>>().await.unwrap().concat())
    }

    fn failures(&self, operation: &str) -> String {
        let begin = format!("hearth_media_store_failures_total{{store=\"s3\",operation=\"{operation}\"}} ");
        let all = self.metrics.render().unwrap();
        all.lines().find_map(|line| line.strip_prefix(&begin)).unwrap().to_owned()
    }
}

/// An S3 server in this process that keeps its buckets in a folder.
async fn serve_s3(root: &Path) -> String {
    fs::create_dir_all(root.join(BUCKET)).unwrap();
    let mut service = S3ServiceBuilder::new(FileSystem::new(root).unwrap());
    service.set_auth(SimpleAuth::from_single(KEY_ID, SECRET));
    let service = HandleError::new(service.build(), in_words);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback_service(service);
    Tasks::new().spawn("S3 server", async move { axum::serve(listener, router).await.unwrap() });
    url
}

async fn in_words(error: s3s::HttpError) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:?}"))
}

fn bucket(url: &str, prefix: Option<&str>) -> MediaStoreConfig {
    MediaStoreConfig {
        name: "s3".to_owned(),
        path: None,
        bucket: Some(BUCKET.to_owned()),
        endpoint: Some(HttpUrl::try_from(url.to_owned()).unwrap()),
        region: None,
        prefix: prefix.map(str::to_owned),
        access_key_id: Some(KEY_ID.to_owned().try_into().unwrap()),
        secret_access_key: Some(SECRET.to_owned().try_into().unwrap()),
    }
}

/// So many bytes that say where they are.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|place| u8::try_from(place % 251).unwrap()).collect()
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap()
}

async fn returns_what_it_was_given(world: World) {
    // With one part, with several, and with a last one that is full.
    for (number, size) in [1, 1_000, 256 * 1024 + 1, 8 * 1024 * 1024, 16 * 1024 * 1024 + 5].into_iter().enumerate() {
        let (location, given) = (format!("{LOCATION}{number}"), bytes(size));
        world.put(&location, &given).await;
        assert_eq!(world.stores.size(world.name(), &location).await.unwrap(), Some(length(&given)));
        assert!(world.read(&location, 0..length(&given)).await.unwrap() == given, "{size}");
    }
}

async fn returns_any_range(world: World) {
    let given = bytes(600_000);
    world.put(LOCATION, &given).await;
    for range in [0..1, 1..2, 5..300_000, 262_143..262_145, 262_144..524_288, 599_999..600_000, 7..7] {
        let place = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        assert!(world.read(LOCATION, range.clone()).await.unwrap() == given[place], "{range:?}");
    }
    // There is less than that.
    let answer = world.stores.get(world.name(), LOCATION, 599_990..600_010).await;
    let read = match answer {
        Ok(bytes) => bytes.try_collect::<Vec<_>>().await.map(drop).map_err(|error| error.to_string()),
        Err(fault) => Err(fault.to_string()),
    };
    assert!(read.is_err());
}

async fn keeps_an_empty_file(world: World) {
    world.put(LOCATION, &[]).await;
    assert_eq!(world.stores.size(world.name(), LOCATION).await.unwrap(), Some(0));
    assert_eq!(world.read(LOCATION, 0..0).await.unwrap(), b"");
}

async fn forgets_what_is_deleted(world: World) {
    world.put(LOCATION, b"bytes").await;
    for _ in 0..2 {
        world.stores.delete(world.name(), LOCATION).await.unwrap();
        assert_eq!(world.stores.size(world.name(), LOCATION).await.unwrap(), None);
        let missing = world.read(LOCATION, 0..5).await.unwrap_err();
        assert!(matches!(missing, StoreFault::Missing), "{missing:?}");
    }
}

async fn lists_what_it_has(world: World) {
    let list = async || {
        let mut listed: Vec<Listed> = world.stores.list(world.name()).unwrap().try_collect().await.unwrap();
        listed.sort_by(|one, other| one.location.cmp(&other.location));
        listed
    };
    assert!(list().await.is_empty());
    for (location, size) in [("ab/cd/one", 3), ("ab/ce/two", 0), ("xy/cd/three", 70_000)] {
        world.put(location, &bytes(size)).await;
    }
    let listed = list().await;
    let found: Vec<_> = listed.iter().map(|listed| (&*listed.location, listed.bytes)).collect();
    assert_eq!(found, [("ab/cd/one", 3), ("ab/ce/two", 0), ("xy/cd/three", 70_000)]);
    // In milliseconds, of this century.
    assert!(
        listed.iter().all(|listed| (1_700_000_000_000..4_000_000_000_000).contains(&listed.modified)),
        "{listed:?}"
    );
    world.stores.delete(world.name(), "ab/ce/two").await.unwrap();
    assert_eq!(list().await.len(), 2);
}

async fn knows_only_locations_of_its_own(world: World) {
    fs::write(world.folder.path().join("outside"), "a secret").unwrap();
    for location in ["../outside", "ab/../../outside", "", "/", "a//b", ".", "ab/./cd"] {
        let fault = world.read(location, 0..5).await.unwrap_err();
        assert!(matches!(fault, StoreFault::Missing), "{location}: {fault:?}");
        let file = world.write(b"bytes");
        assert!(world.stores.put(world.name(), location, &file).await.is_err(), "{location}");
    }
    let unknown = world.stores.get("elsewhere", LOCATION, 0..1).await.err().unwrap();
    assert!(matches!(unknown, StoreFault::UnknownStore(name) if name == "elsewhere"));
    assert!(world.stores.list("elsewhere").is_err());
}

async fn takes_many_at_once(world: World) {
    let given = bytes(100_000);
    let file = world.write(&given);
    let locations: Vec<String> = (0..100).map(|number| format!("{number:02}/cd/{number}")).collect();
    let puts = locations.iter().map(|location| world.stores.put(world.name(), location, &file));
    let put = futures_util::future::join_all(puts).await;
    assert!(put.iter().all(Result::is_ok), "{put:?}");
    let reads = locations.iter().map(|location| world.read(location, 0..100_000));
    for read in futures_util::future::join_all(reads).await {
        assert!(read.unwrap() == given);
    }
}

macro_rules! each_kind {
    ($($promise:ident,)*) => {
        mod on_files {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(super::World::on_files()).await;
            })*
        }
        mod on_s3 {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(super::World::on_s3().await).await;
            })*
        }
    };
}

each_kind! {
    returns_what_it_was_given,
    returns_any_range,
    keeps_an_empty_file,
    forgets_what_is_deleted,
    lists_what_it_has,
    knows_only_locations_of_its_own,
    takes_many_at_once,
}

#[tokio::test]
async fn a_signed_url_needs_no_key_and_is_answered_as_it_says() {
    let files = World::on_files();
    let lifetime = Duration::from_mins(1);
    let of_files = files.stores.signed_url("files", LOCATION, lifetime, "image/png", "inline").await.unwrap();
    assert_eq!(of_files, None);

    let world = World::on_s3().await;
    world.put(LOCATION, b"bytes").await;
    let disposition = "inline; filename=\"a b.png\"";
    let url = world.stores.signed_url("s3", LOCATION, lifetime, "image/png", disposition).await.unwrap().unwrap();
    let options = ClientOptions {
        whom: "a test",
        connect: BOUND,
        answer: BOUND,
        proxy: false,
        certificates: Certificates::Unused,
    };
    let client = http_client::new(options).unwrap();
    let answer = client.get(&url).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "image/png");
    assert_eq!(answer.headers()["content-disposition"], disposition);
    assert_eq!(answer.bytes().await.unwrap(), "bytes");
    // Whoever changes what it is answered as has no signature for that.
    let changed = url.replace("image%2Fpng", "text%2Fhtml");
    assert_ne!(changed, url);
    assert_eq!(client.get(&changed).send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn several_stores_are_there_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let url = serve_s3(&folder.path().join("s3")).await;
    let files = MediaStoreConfig {
        name: "old".to_owned(),
        path: Some(folder.path().join("old")),
        bucket: None,
        endpoint: None,
        region: None,
        prefix: None,
        access_key_id: None,
        secret_access_key: None,
    };
    let stores = vec![files, bucket(&url, None)];
    let mut config = MediaConfig { stores, store: Some("s3".to_owned()), ..MediaConfig::default() };
    let stores = Stores::open(&config, folder.path(), Metrics::new()).unwrap();
    assert_eq!(stores.current(), "s3");
    assert_eq!(stores.names().collect::<Vec<_>>(), ["old", "s3"]);
    assert!(stores.has("old") && !stores.has("files"));
    assert!(folder.path().join("old").is_dir() && !folder.path().join("media").exists());

    config.store = Some("elsewhere".to_owned());
    assert!(matches!(
        Stores::open(&config, folder.path(), Metrics::new()).err(),
        Some(StoresError::NoSuchStore(name)) if name == "elsewhere"
    ));
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_no_lost_file() {
    let answer = "Server returned non-2xx status code: 404 Not Found: <Error><Code>NoSuchBucket</Code></Error>";
    let error = ::object_store::Error::NotFound { path: LOCATION.to_owned(), source: answer.into() };
    assert!(matches!(s3::fault(&error), StoreFault::Unavailable(_)));
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("s3");
    let url = serve_s3(&root).await;
    fs::remove_dir(root.join(BUCKET)).unwrap();
    let world = World::with(vec![bucket(&url, None)], folder, SHORT);
    unavailable("list", async { world.stores.list("s3")?.try_collect::<Vec<_>>().await }).await;
}

/// Whatever is asked of a store that is out of order.
async fn fails_in_time(script: Script) {
    let world = World::on_broken(script).await;
    let stores = &world.stores;
    unavailable("put", stores.put("s3", LOCATION, &world.write(b"bytes"))).await;
    unavailable("put", stores.put("s3", LOCATION, &world.write(&bytes(9 * 1024 * 1024)))).await;
    unavailable("size", stores.size("s3", LOCATION)).await;
    unavailable("delete", stores.delete("s3", LOCATION)).await;
    unavailable("get", async {
        let bytes = stores.get("s3", LOCATION, 0..100).await?;
        let read: io::Result<Vec<_>> = bytes.try_collect().await;
        read.map_err(|error| error.downcast::<StoreFault>().unwrap())
    })
    .await;
    unavailable("list", async { stores.list("s3")?.try_collect::<Vec<_>>().await }).await;
    for operation in ["put", "get", "size", "delete", "list"] {
        assert_ne!(world.failures(operation), "0", "{operation}");
    }
    assert_eq!(world.failures("sign"), "0");
}

async fn unavailable<T>(operation: &str, work: impl Future<Output = Result<T, StoreFault>>) {
    let done = timeout(BOUND, work).await.unwrap_or_else(|_| panic!("{operation} has no end"));
    let fault = done.err().unwrap_or_else(|| panic!("{operation} has worked"));
    assert!(matches!(fault, StoreFault::Unavailable(_)), "{operation}: {fault:?}");
    assert!(matches!(crate::error::Error::from(fault), crate::error::Error::Unavailable(_)));
}

#[tokio::test]
async fn a_store_that_nobody_listens_for_fails_in_time() {
    fails_in_time(Script::Refuse).await;
}

#[tokio::test]
async fn a_silent_store_fails_in_time() {
    fails_in_time(Script::Silence).await;
}

#[tokio::test]
async fn a_store_that_answers_with_errors_fails_in_time() {
    fails_in_time(Script::Errors).await;
}

#[tokio::test]
async fn a_store_that_hangs_up_fails_in_time() {
    fails_in_time(Script::HangUp).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_stops_is_an_error() {
    for script in [Script::BreakOff, Script::Stop] {
        let world = World::on_broken(script).await;
        let bytes = world.stores.get("s3", LOCATION, 0..100).await.unwrap();
        let read = timeout(BOUND, bytes.try_collect::<Vec<_>>()).await.unwrap();
        let fault = read.unwrap_err().downcast::<StoreFault>().unwrap();
        assert!(matches!(fault, StoreFault::Unavailable(_)), "{script:?}: {fault:?}");
        assert_eq!(world.failures("get"), "1");
    }
}

#[tokio::test]
async fn a_slow_answer_that_moves_is_waited_for_and_an_endless_list_is_not() {
    let world = World::on_broken(Script::Trickle).await;
    assert_eq!(world.read(LOCATION, 0..100).await.unwrap(), [b'.'; 100]);
    let endless = World::on_broken(Script::Endless).await;
    unavailable("list", async { endless.stores.list("s3")?.try_collect::<Vec<_>>().await }).await;
}
