//! A homeserver that does what a test tells it: it has a name, a certificate and keys, signs what it sends, makes rooms of
//! its own and takes part in those of others, and answers as it is told, late, wrongly, or not at all.
//!
//! Of what no test has told it, it answers as a server should (`scripted/answers.rs`). It keeps what it was asked, and
//! believes everything.

mod answers;
mod request;
mod room;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use axum_server::tls_rustls::RustlsConfig;
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hearth::{event::SigningKey, ground::clock::Clock};
use parking_lot::Mutex;
use ruma::{CanonicalJsonObject, signatures::sign_json};
use serde_json::{Value, json};
use tokio::sync::watch;

use self::room::Shared;
pub(crate) use self::{
    request::{Asked, federation},
    room::{FarRoom, event_id, sign_event},
};
use super::internet::Internet;

/// How long a test waits until somebody asks it something.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long others may rely on its keys.
const KEYS_ARE_GOOD_FOR: Duration = Duration::from_hours(24);

/// Clones are the same server.
#[derive(Clone)]
pub(crate) struct Scripted(Arc<Inner>);

struct Inner {
    name: String,
    internet: Internet,
    clock: Clock,
    key: Arc<SigningKey>,
    /// It has signed with this one up to an hour ago.
    old_key: Arc<SigningKey>,
    http: reqwest::Client,
    rooms: Mutex<BTreeMap<String, Shared>>,
    scripts: Mutex<BTreeMap<String, Script>>,
    asked: Mutex<Vec<Asked>>,
    /// How often it was asked.
    count: watch::Sender<usize>,
    next: AtomicU64,
}

/// Gets what is asked, and the body of what the server would answer by itself.
type Script = Arc<dyn Fn(&Asked, Value) -> Say + Send + Sync>;

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) enum Say {
    Json(u16, Value),
    /// With 200, as it stands.
    Text(String),
    /// Without an end.
    Endlessly,
    /// Some of an answer, and then the connection is closed.
    Half,
    Nothing,
    /// That, once this has become true.
    When(watch::Receiver<bool>, Box<Self>),
}

impl Say {
    pub(crate) fn ok(body: Value) -> Self {
        Self::Json(200, body)
    }

    pub(crate) fn error(status: u16, errcode: &str) -> Self {
        Self::Json(status, json!({ "errcode": errcode, "error": "As the script has it" }))
    }

    async fn into_response(self) -> Response {
        let mut say = self;
        while let Self::When(mut told, then) = say {
            // Who would have told may be gone with the test.
            told.wait_for(|told| *told).await.map(drop).unwrap_or_default();
            say = *then;
        }
        let (status, body) = match say {
            Self::Json(status, body) => (status, Body::from(body.to_string())),
            Self::Text(text) => (200, Body::from(text)),
            Self::Endlessly => {
                let begin = stream::iter([Bytes::from_static(b"{\"origin\":\"")]);
                let rest = stream::repeat_with(|| Bytes::from(vec![b'x'; 64 * 1024]));
                (200, Body::from_stream(begin.chain(rest).map(Ok::<_, std::io::Error>)))
            }
            Self::Half => {
                let parts = [Ok(Bytes::from_static(b"{\"origin\":\"far")), Err(std::io::Error::other("it breaks off"))];
                (200, Body::from_stream(stream::iter(parts)))
            }
            Self::Nothing => std::future::pending().await,
            Self::When(..) => unreachable!("that was waited for"),
        };
        let status = StatusCode::from_u16(status).unwrap();
        (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}

/// Declares tests of a homeserver and a scripted one: `with_scripted! { async fn name(one, far) { … } }`. They run on
/// SQLite and on a cluster of three nodes.
#[macro_export]
macro_rules! with_scripted {
    ($($(#[$doc:meta])* async fn $name:ident($one:ident, $far:ident) $body:block)*) => {$(
        $(#[$doc])*
        mod $name {
            #[allow(unused_imports, reason = "not every test needs what its file imports")]
            use super::*;

            async fn run(engine: $crate::world::Engine) {
                let internet = $crate::federation::internet::Internet::new();
                let Some($one) = $crate::federation::peer::Peer::start(&internet, "one.test", engine).await else {
                    eprintln!("skipped: ./test starts a PostgreSQL and a Redis for this");
                    return;
                };
                let clock = $one.world.clock.clone();
                let $far = $crate::federation::scripted::Scripted::start(&internet, "far.test", clock).await;
                $body
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                Box::pin(run($crate::world::Engine::Sqlite)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn cluster() {
                Box::pin(run($crate::world::Engine::Cluster)).await;
            }
        }
    )*};
}

impl Scripted {
    /// A server that others find as they find every other. `clock` is that of the server that is tested.
    pub(crate) async fn start(internet: &Internet, name: &str, clock: Clock) -> Self {
        Self::listen(internet, name, clock, |_| name.to_owned()).await
    }

    /// A server whose name has a port.
    pub(crate) async fn start_with_port(internet: &Internet, host: &str, clock: Clock) -> Self {
        Self::listen(internet, host, clock, |port| format!("{host}:{port}")).await
    }

    async fn listen(internet: &Internet, host: &str, clock: Clock, name: impl FnOnce(u16) -> String) -> Self {
        // Another server of the test may have done so before.
        rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap_or_else(drop);
        let (certificate, key) = internet.certificate(host);
        let tls = RustlsConfig::from_pem_file(certificate, key).await.unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let new_key = |id| Arc::new(SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), id).unwrap());
        let server = Self(Arc::new(Inner {
            name: name(port),
            internet: internet.clone(),
            clock,
            key: new_key("ed25519:new"),
            old_key: new_key("ed25519:old"),
            http: request::client(internet),
            rooms: Mutex::default(),
            scripts: Mutex::default(),
            asked: Mutex::default(),
            count: watch::Sender::new(0),
            next: AtomicU64::new(1),
        }));
        let router = Router::new().fallback(receive).with_state(server.clone());
        let serving = axum_server::from_tcp_rustls(listener, tls).unwrap().serve(router.into_make_service());
        #[expect(clippy::disallowed_methods, reason = "nobody waits for it: it ends with the test")]
        tokio::spawn(async move { serving.await.unwrap() });
        internet.announce(host, vec![port]);
        server
    }

    /// Another server on the same internet.
    pub(crate) async fn neighbour(&self, name: &str) -> Self {
        Self::start(&self.0.internet, name, self.0.clock.clone()).await
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    pub(crate) fn internet(&self) -> &Internet {
        &self.0.internet
    }

    /// The identifier of one of its users.
    pub(crate) fn user(&self, localpart: &str) -> String {
        format!("@{localpart}:{}", self.0.name)
    }

    /// What it signs with.
    pub(crate) fn key(&self) -> &SigningKey {
        &self.0.key
    }

    /// What it has signed with up to [`Self::key_change`].
    pub(crate) fn old_key(&self) -> &SigningKey {
        &self.0.old_key
    }

    /// When it began to sign with another key, in milliseconds since the Unix epoch: an hour ago.
    pub(crate) fn key_change(&self) -> u64 {
        self.now() - 3_600_000
    }

    /// In milliseconds since the Unix epoch.
    pub(crate) fn now(&self) -> u64 {
        self.0.clock.now().get().into()
    }

    /// A number that was not there before.
    pub(crate) fn number(&self) -> u64 {
        self.0.next.fetch_add(1, Ordering::Relaxed)
    }

    /// From now on this is how it answers whatever is called so: `make_join`, `send`, `key/server`, or `*` for all of which
    /// nothing else is said.
    pub(crate) fn answers(&self, endpoint: &str, script: impl Fn(&Asked, Value) -> Say + Send + Sync + 'static) {
        self.0.scripts.lock().insert(endpoint.to_owned(), Arc::new(script));
    }

    /// From now on it says always the same.
    pub(crate) fn says(&self, endpoint: &str, say: Say) {
        self.answers(endpoint, move |_, _| say.clone());
    }

    /// It answers by itself again.
    pub(crate) fn forgets_scripts(&self) {
        self.0.scripts.lock().clear();
    }

    /// What it was asked under this name since this was last called.
    pub(crate) fn take_asked(&self, endpoint: &str) -> Vec<Asked> {
        self.0.asked.lock().extract_if(.., |asked| asked.endpoint == endpoint).collect()
    }

    /// Waits until it is asked something.
    pub(crate) async fn until_asked(&self, endpoint: &str, is_it: impl Fn(&Asked) -> bool) -> Asked {
        let mut count = self.0.count.subscribe();
        let waiting = tokio::time::timeout(PATIENCE, async {
            loop {
                count.mark_unchanged();
                let is_it = |asked: &&Asked| asked.endpoint == endpoint && is_it(asked);
                let found = self.0.asked.lock().iter().find(is_it).cloned();
                match found {
                    Some(found) => return found,
                    None => count.changed().await.unwrap(),
                }
            }
        });
        waiting.await.unwrap_or_else(|_| panic!("{} was never asked that of {endpoint}", self.name()))
    }

    /// What it says of its keys.
    pub(crate) fn key_document(&self) -> Value {
        let public = |key: &SigningKey| STANDARD_NO_PAD.encode(key.public_key());
        let document = json!({
            "server_name": self.0.name,
            "verify_keys": { "ed25519:new": { "key": public(&self.0.key) } },
            "old_verify_keys": {
                "ed25519:old": { "key": public(&self.0.old_key), "expired_ts": self.key_change() },
            },
            "valid_until_ts": self.now() + u64::try_from(KEYS_ARE_GOOD_FOR.as_millis()).unwrap(),
        });
        self.signed(document)
    }

    /// Some JSON with its signature beside those that it has.
    pub(crate) fn signed(&self, json: Value) -> Value {
        let mut object: CanonicalJsonObject = serde_json::from_value(json).unwrap();
        sign_json(&self.0.name, &*self.0.key, &mut object).unwrap();
        serde_json::to_value(object).unwrap()
    }
}

async fn receive(State(server): State<Scripted>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    // Who sends it may have gone away.
    let Ok(body) = axum::body::to_bytes(body, 64 << 20).await else { return StatusCode::BAD_REQUEST.into_response() };
    let asked = Asked::read(&parts, &body);
    let (status, usual) = server.usual(&asked);
    let script = {
        let scripts = server.0.scripts.lock();
        scripts.get(&asked.endpoint).or_else(|| scripts.get("*")).cloned()
    };
    let say = script.map_or_else(|| Say::Json(status, usual.clone()), |script| script(&asked, usual.clone()));
    server.0.asked.lock().push(asked);
    server.0.count.send_modify(|count| *count += 1);
    say.into_response().await
}
