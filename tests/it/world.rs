//! A server of its own for each test: a temporary database, a clock that the test moves, users at hand.

use std::{sync::Arc, time::Duration};

use hearth::{
    admin::Administration,
    api,
    app::App,
    config::Config,
    db::Db,
    edge::{
        metrics::Metrics,
        serve::{self, Listeners},
    },
    ground::{clock::Clock, random::Random, tasks::Tasks},
};
use serde_json::{Value, json};

use crate::proxy::Proxy;

/// Which database a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
    /// Three nodes over PostgreSQL and Redis, and a proxy that sends every request to the next of them.
    Cluster,
}

/// A running server: one node, or several behind a proxy.
pub(crate) struct World {
    pub(crate) url: String,
    pub(crate) clock: Clock,
    pub(crate) nodes: Vec<Node>,
    pub(crate) config: Config,
    pub(crate) database: String,
    proxy: Option<Proxy>,
    http: reqwest::Client,
    /// Gone with the last world that uses it.
    dir: Arc<tempfile::TempDir>,
}

/// One process of a server, so to say.
pub(crate) struct Node {
    pub(crate) url: String,
    /// Of all its listeners.
    urls: Vec<String>,
    pub(crate) app: App,
    tasks: Tasks,
}

/// A user who is logged in.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) user_id: String,
    pub(crate) token: String,
    http: reqwest::Client,
    url: String,
}

/// An answer: its status and its JSON.
#[derive(Debug, PartialEq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) headers: reqwest::header::HeaderMap,
}

/// 2026-01-01, in milliseconds: far from every edge.
const START: u64 = 1_767_225_600_000;

/// Declares tests that run on both engines and on a cluster: `on_both! { async fn name(world) { … } }`.
#[macro_export]
macro_rules! on_both {
    ($($(#[$doc:meta])* async fn $name:ident($world:ident $(, $config:ident => $configure:block)?) $body:block)*) => {$(
        $(#[$doc])*
        mod $name {
            #[allow(unused_imports, reason = "not every test needs what its file imports")]
            use super::*;

            async fn run($world: $crate::world::World) {
                $body
            }

            #[allow(unused_variables, reason = "most tests take the configuration as it is")]
            fn configure() -> impl FnOnce(&mut hearth::config::Config) {
                |config: &mut hearth::config::Config| { $(let $config = config; $configure)? }
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                run($crate::world::World::on($crate::world::Engine::Sqlite, configure()).await.unwrap()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                match $crate::world::World::on($crate::world::Engine::Postgres, configure()).await {
                    Some(world) => run(world).await,
                    None => eprintln!("skipped: ./test starts a PostgreSQL for this"),
                }
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn cluster() {
                match $crate::world::World::on($crate::world::Engine::Cluster, configure()).await {
                    Some(world) => run(world).await,
                    None => eprintln!("skipped: ./test starts a PostgreSQL and a Redis for this"),
                }
            }
        }
    )*};
}

impl World {
    /// A server on an empty database. None where there is no PostgreSQL to make one in, or no Redis.
    pub(crate) async fn on(engine: Engine, configure: impl FnOnce(&mut Config)) -> Option<Self> {
        let (mut config, dir) = plain_config();
        let url = match engine {
            Engine::Sqlite => format!("sqlite:{}", dir.path().join("hearth.sqlite3").display()),
            Engine::Postgres | Engine::Cluster => new_postgres_database().await?,
        };
        let mut nodes = 1;
        if engine == Engine::Cluster {
            config.redis.url = Some(std::env::var("HEARTH_TEST_REDIS").ok()?.try_into().unwrap());
            nodes = 3;
        }
        configure(&mut config);
        let clock = Clock::manual(START);
        Some(Self::start(config, &url, &vec![clock; nodes], dir).await)
    }

    /// A cluster in which each node has a clock of its own.
    pub(crate) async fn with_clocks(clocks: Vec<Clock>) -> Option<Self> {
        let url = new_postgres_database().await?;
        let (mut config, dir) = plain_config();
        config.redis.url = Some(std::env::var("HEARTH_TEST_REDIS").ok()?.try_into().unwrap());
        Some(Self::start(config, &url, &clocks, dir).await)
    }

    /// One node on a database that is there already.
    pub(crate) async fn on_database(url: &str) -> Self {
        Self::on_database_with(url, Clock::manual(START), |_| ()).await
    }

    /// As [`World::on_database`], at another time and with another configuration.
    pub(crate) async fn on_database_with(url: &str, clock: Clock, configure: impl FnOnce(&mut Config)) -> Self {
        let (mut config, dir) = plain_config();
        configure(&mut config);
        Self::start(config, url, &[clock], dir).await
    }

    async fn start(config: Config, database: &str, clocks: &[Clock], dir: Arc<tempfile::TempDir>) -> Self {
        let starting = clocks.iter().map(|clock| Node::start(&config, database, clock.clone()));
        let nodes = futures_util::future::join_all(starting).await;
        let clock = clocks[0].clone();
        let urls: Vec<String> = nodes.iter().map(|node| node.url.clone()).collect();
        let proxy = if nodes.len() > 1 { Some(Proxy::start(urls.clone()).await) } else { None };
        let url = proxy.as_ref().map_or(urls[0].clone(), |proxy| proxy.url.clone());
        let http = http_client(Duration::from_mins(1));
        Self { url, clock, nodes, config, database: database.to_owned(), proxy, http, dir }
    }

    /// Stops the server and starts it again on the same database. Clients of before speak to the old address.
    pub(crate) async fn restarted(self) -> Self {
        let database = self.database.clone();
        self.stopped().await.start_on(&database).await
    }

    /// Backs the database up while the server is stopped, and names the backup. Clients of before speak to the old
    /// address.
    pub(crate) async fn backed_up(self) -> (Self, String) {
        let database = self.database.clone();
        let stopped = self.stopped().await;
        let backup = match database.strip_prefix("sqlite:") {
            Some(file) => {
                use sqlx::{Connection as _, Executor as _, SqliteConnection};
                let backup = format!("{file}.backup");
                // Not a copy of the file: what was written last may still be in the one beside it.
                let mut source = SqliteConnection::connect(&database).await.unwrap();
                let statement = sqlx::AssertSqlSafe(format!("VACUUM INTO '{backup}'"));
                source.execute(sqlx::raw_sql(statement)).await.unwrap();
                source.close().await.unwrap();
                format!("sqlite:{backup}")
            }
            None => copy_postgres_database(&database).await,
        };
        (stopped.start_on(&database).await, backup)
    }

    /// Stops the server and starts it on a backup. Clients of before speak to the old address.
    pub(crate) async fn restored(self, backup: &str) -> Self {
        self.stopped().await.start_on(backup).await
    }

    async fn stopped(mut self) -> Stopped {
        let nodes = std::mem::take(&mut self.nodes);
        let clocks = vec![self.clock.clone(); nodes.len()];
        for node in nodes {
            node.stop().await;
        }
        Stopped { config: self.config.clone(), clocks, dir: Arc::clone(&self.dir) }
    }

    /// Starts one more node, which reaches the database in its own way.
    pub(crate) async fn add_node_on(&mut self, database: &str) {
        self.nodes.push(Node::start(&self.config, database, self.clock.clone()).await);
    }

    /// Starts one more node, with a clock of its own if need be.
    pub(crate) async fn add_node(&mut self, clock: Clock) {
        self.nodes.push(Node::start(&self.config, &self.database, clock).await);
        self.tell_proxy();
    }

    /// Keeps everybody from writing into the log until what is returned is dropped.
    pub(crate) async fn hold_writes(&self) -> Box<dyn std::any::Any> {
        use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};
        if self.database.starts_with("sqlite:") {
            let mut holder = SqliteConnection::connect(&self.database).await.unwrap();
            holder.execute("BEGIN IMMEDIATE").await.unwrap();
            return Box::new(holder);
        }
        let mut holder = PgConnection::connect(&self.database).await.unwrap();
        // The lock that a batch is written under.
        holder.execute("SELECT pg_advisory_lock(4720319)").await.unwrap();
        Box::new(holder)
    }

    /// Stops a node: the others go on.
    pub(crate) async fn remove_node(&mut self, index: usize) {
        let node = self.nodes.remove(index);
        self.tell_proxy();
        node.stop().await;
    }

    fn tell_proxy(&self) {
        if let Some(proxy) = &self.proxy {
            proxy.set_nodes(self.nodes.iter().map(|node| node.url.clone()).collect());
        }
    }

    /// Where the nodes listen with TLS.
    pub(crate) fn tls_urls(&self) -> Vec<String> {
        let urls = self.nodes.iter().flat_map(|node| &node.urls);
        urls.filter(|url| url.starts_with("https:")).cloned().collect()
    }

    /// The first node's rooms.
    pub(crate) fn app(&self) -> &App {
        &self.nodes[0].app
    }

    /// Registers a user and logs in.
    pub(crate) async fn user(&self, name: &str) -> Client {
        let body =
            json!({ "username": name, "password": format!("password of {name}"), "auth": { "type": "m.login.dummy" } });
        self.client(&self.call("POST", "/_matrix/client/v3/register", None, Some(body)).await.ok())
    }

    /// Comes as a guest, where the configuration has them.
    pub(crate) async fn guest(&self) -> Client {
        self.client(&self.call("POST", "/_matrix/client/v3/register?kind=guest", None, Some(json!({}))).await.ok())
    }

    /// Whoever got this answer when they registered or logged in.
    pub(crate) fn client(&self, registered: &Value) -> Client {
        Client {
            user_id: registered["user_id"].as_str().unwrap().to_owned(),
            token: registered["access_token"].as_str().unwrap().to_owned(),
            http: self.http.clone(),
            url: self.url.clone(),
        }
    }

    /// A second device of a user.
    pub(crate) async fn login(&self, user: &Client) -> Client {
        let reply = self.call("POST", "/_matrix/client/v3/login", None, Some(user.password())).await.ok();
        Client { token: reply["access_token"].as_str().unwrap().to_owned(), ..user.clone() }
    }

    /// What the operator has from the command line.
    pub(crate) async fn administration(&self) -> Administration {
        let app = self.app();
        Administration::open(&self.config, app.db.clone(), self.clock.clone(), &app.random).await.unwrap()
    }

    /// Makes an administrator and logs them in.
    pub(crate) async fn administrator(&self, name: &str) -> Client {
        let secret = format!("password of {name}");
        self.administration().await.create_user(name, &secret, true).await.unwrap();
        let body = Some(password(name, &secret));
        self.client(&self.call("POST", "/_matrix/client/v3/login", None, body).await.ok())
    }

    /// Waits until somebody waits for news, on whichever node: with a sync, or at the event stream of old.
    pub(crate) async fn until_a_sync_waits(&self) {
        let waited = tokio::time::timeout(Duration::from_secs(30), async {
            while !self.metrics().contains("hearth_waiting_syncs 1") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.expect("nobody waits");
    }

    /// The metrics of all nodes as an operator's Prometheus reads them.
    pub(crate) fn metrics(&self) -> String {
        self.nodes.iter().map(|node| node.app.metrics.render().unwrap()).collect()
    }

    /// A call by nobody in particular, or with a token.
    pub(crate) async fn call(&self, method: &str, path: &str, token: Option<&str>, body: Option<Value>) -> Reply {
        call(&self.http, &self.url, method, path, token, body.map(|body| body.to_string())).await
    }

    /// A call with a body that need not be JSON.
    pub(crate) async fn call_raw(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> Reply {
        call(&self.http, &self.url, method, path, token, Some(body.to_owned())).await
    }
}

/// What a server leaves that has been stopped.
struct Stopped {
    config: Config,
    clocks: Vec<Clock>,
    dir: Arc<tempfile::TempDir>,
}

impl Stopped {
    async fn start_on(self, database: &str) -> World {
        World::start(self.config, database, &self.clocks, self.dir).await
    }
}

/// Anybody may register, nobody is slowed down.
fn plain_config() -> (Config, Arc<tempfile::TempDir>) {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let mut config = Config { data_dir: dir.path().to_owned(), ..Config::default() };
    config.registration.mode = hearth::config::RegistrationMode::Open;
    config.rate_limits.enabled = false;
    config.listen = vec!["127.0.0.1:0".parse().unwrap()];
    (config, dir)
}

impl Node {
    async fn start(config: &Config, database: &str, clock: Clock) -> Self {
        let db = Db::connect(database, 8).await.unwrap();
        let (tasks, random, metrics) = (Tasks::new(), Random::system(), Metrics::new());
        let listeners = Listeners::bind(&config.listen, config).unwrap();
        let mut config = config.clone();
        if config.cluster.advertise.is_none() {
            config.cluster.advertise = listeners.find_reachable(None).map(|url| url.try_into().unwrap());
        }
        let app = App::start(config, db, clock, random.clone(), tasks.clone(), metrics.clone()).await.unwrap();
        let urls = listeners.urls();
        let url = urls.first().unwrap().trim_end_matches('/').to_owned();
        let router = serve::layer(api::router(app.clone()), &metrics, &random);
        tasks.spawn("listeners", listeners.serve(router, &tasks, &metrics));
        Self { url, urls, app, tasks }
    }

    async fn stop(self) {
        self.tasks.shutdown().start("the test stops it");
        let tasks = self.tasks.clone();
        drop(self);
        tasks.join_all(Duration::from_secs(10)).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.shutdown().start("the test is over");
    }
}

async fn call(
    http: &reqwest::Client,
    url: &str,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<String>,
) -> Reply {
    let mut request = http.request(method.parse().unwrap(), format!("{url}{path}"));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body);
    }
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Reply { status, body, headers }
}

impl Reply {
    /// The body of a success.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, 200, "expected success, got {}", self.body);
        self.body
    }

    /// Checks that this is a refusal with the given status and error code.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, errcode: &str) {
        assert_eq!((self.status, self.body["errcode"].as_str()), (status, Some(errcode)), "{}", self.body);
        assert!(self.body["error"].as_str().is_some_and(|message| !message.is_empty()), "no message: {}", self.body);
    }
}

impl Client {
    /// This user, speaking to another server on the same data.
    pub(crate) fn at(self, world: &World) -> Self {
        Self { url: world.url.clone(), http: world.http.clone(), ..self }
    }

    /// This user, speaking to one node instead of the proxy.
    pub(crate) fn at_node(self, world: &World, index: usize) -> Self {
        Self { url: world.nodes[index].url.clone(), ..self }
    }

    /// The localpart of their identifier.
    pub(crate) fn name(&self) -> &str {
        self.user_id.trim_start_matches('@').split(':').next().unwrap()
    }

    /// How they show that it is them, by the password that they registered with.
    pub(crate) fn password(&self) -> Value {
        password(self.name(), &format!("password of {}", self.name()))
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        call(&self.http, &self.url, "GET", path, Some(&self.token), None).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Reply {
        call(&self.http, &self.url, "PUT", path, Some(&self.token), Some(body.to_string())).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        call(&self.http, &self.url, "POST", path, Some(&self.token), Some(body.to_string())).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        call(&self.http, &self.url, "DELETE", path, Some(&self.token), None).await
    }

    /// Creates a room and gives its identifier.
    pub(crate) async fn create_room(&self, body: Value) -> String {
        let reply = self.post("/_matrix/client/v3/createRoom", body).await.ok();
        reply["room_id"].as_str().unwrap().to_owned()
    }

    /// Sends a text message and gives the event's identifier.
    pub(crate) async fn say(&self, room: &str, text: &str) -> String {
        let transaction = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{transaction}", escape(room));
        let reply = self.put(&path, json!({ "msgtype": "m.text", "body": text })).await.ok();
        reply["event_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn join(&self, room: &str) -> Reply {
        self.post(&format!("/_matrix/client/v3/join/{}", escape(room)), json!({})).await
    }

    pub(crate) async fn leave(&self, room: &str) -> Reply {
        self.post(&format!("/_matrix/client/v3/rooms/{}/leave", escape(room)), json!({})).await
    }

    pub(crate) async fn invite(&self, room: &str, user_id: &str) -> Reply {
        self.post(&format!("/_matrix/client/v3/rooms/{}/invite", escape(room)), json!({ "user_id": user_id })).await
    }

    /// One `/sync`, which does not wait and tells of everything that was acknowledged before.
    pub(crate) async fn sync(&self, since: Option<&str>) -> Value {
        self.sync_with(since, "").await
    }

    /// One `/sync` that waits up to ten seconds for news. It tells what it hears first, and not what another node is
    /// about to hear.
    pub(crate) async fn wait(&self, since: &str) -> Value {
        self.sync_with(Some(since), "&timeout=10000").await
    }

    /// Waits until so many messages are in a room's timeline, from a place on.
    pub(crate) async fn hear(&self, room: &str, since: &str, count: usize) -> Vec<String> {
        let (mut since, mut all) = (since.to_owned(), Vec::new());
        for _ in 0..6 {
            let sync = self.wait(&since).await;
            since = next(&sync);
            all.extend(texts(&sync, room));
            if all.len() >= count {
                return all;
            }
        }
        panic!("{} was told only {all:?}", self.user_id)
    }

    /// One `/sync` with further parameters, each beginning with `&`.
    pub(crate) async fn sync_with(&self, since: Option<&str>, more: &str) -> Value {
        let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
        let timeout = if more.contains("&timeout=") { "" } else { "&timeout=0" };
        self.get(&format!("/_matrix/client/v3/sync?set_presence=offline{timeout}{since}{more}")).await.ok()
    }
}

/// An HTTP client that gives up after `patience`.
pub(crate) fn http_client(patience: Duration) -> reqwest::Client {
    // The server may have done so before.
    rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap_or_else(drop);
    // A redirection is an answer too, for whoever asked to judge.
    reqwest::Client::builder().timeout(patience).redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// An identifier as a part of a path.
pub(crate) fn escape(identifier: &str) -> String {
    identifier.bytes().fold(String::new(), |path, byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => path + &char::from(byte).to_string(),
        _ => path + &format!("%{byte:02X}"),
    })
}

/// A path below a room.
pub(crate) fn at(room: &str, rest: &str) -> String {
    format!("/_matrix/client/v3/rooms/{}{rest}", escape(room))
}

/// How somebody shows that it is them, at once, without asking for a session first.
pub(crate) fn password(name: &str, password: &str) -> Value {
    json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": name }, "password": password })
}

/// The texts of the messages in a room's timeline of a sync.
pub(crate) fn texts(sync: &Value, room: &str) -> Vec<String> {
    let events = sync["rooms"]["join"][room]["timeline"]["events"].as_array().cloned().unwrap_or_default();
    events.iter().filter_map(|e| e["content"]["body"].as_str().map(ToOwned::to_owned)).collect()
}

/// The token to sync on from.
pub(crate) fn next(sync: &Value) -> String {
    sync["next_batch"].as_str().unwrap().to_owned()
}

/// Copies a database that no server uses any more.
async fn copy_postgres_database(url: &str) -> String {
    let (head, query) = url.split_once('?').unwrap();
    let (server, name) = head.rsplit_once('/').unwrap();
    let copy = format!("{name}_backup");
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    on_postgres(&[end, format!("CREATE DATABASE {copy} TEMPLATE {name}")]).await.unwrap();
    format!("{server}/{copy}?{query}")
}

/// Runs statements in the PostgreSQL that `./test` started, if it did.
async fn on_postgres(statements: &[String]) -> Option<String> {
    use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, postgres::PgConnectOptions};
    let url = std::env::var("HEARTH_TEST_POSTGRES").ok()?;
    let options: PgConnectOptions = url.parse().unwrap();
    let mut connection = PgConnection::connect_with(&options).await.unwrap();
    for statement in statements {
        connection.execute(sqlx::raw_sql(AssertSqlSafe(statement.clone()))).await.unwrap();
    }
    connection.close().await.unwrap();
    Some(url)
}

/// Makes an empty database in the PostgreSQL that `./test` started. It goes away with that server.
pub(crate) async fn new_postgres_database() -> Option<String> {
    let name = format!("it_{}", Random::system().token(16).to_lowercase());
    let url = on_postgres(&[format!("CREATE DATABASE {name}")]).await?;
    let (head, query) = url.split_once('?').map_or((url.as_str(), ""), |(head, query)| (head, query));
    let server = head.rsplit_once('/').unwrap().0;
    Some(format!("{server}/{name}?{query}"))
}
