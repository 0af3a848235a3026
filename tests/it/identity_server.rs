//! An identity server for tests, as far as a homeserver asks one. It can be of bad intent.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use hearth::{config::Config, event::SigningKey};
use parking_lot::Mutex;
use ruma::CanonicalJsonObject;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::world::World;

const PEPPER: &str = "matrixrocks";

/// Clones are the same server.
#[derive(Clone)]
pub(crate) struct IdentityServer(Arc<Inner>);

struct Inner {
    name: String,
    key: SigningKey,
    /// Users by the addresses that they have bound.
    bound: Mutex<BTreeMap<String, String>>,
    invites: AtomicU32,
    asked: Mutex<Vec<Asked>>,
    mood: Mutex<Mood>,
}

/// What somebody asked of it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) authorization: String,
    pub(crate) body: Value,
}

#[derive(Clone, Default)]
pub(crate) enum Mood {
    #[default]
    Well,
    /// Its keys have been revoked.
    Revoked,
    /// Sends everybody elsewhere.
    Redirects,
    /// Does not stop talking.
    Babbles,
    Says(u16, &'static str),
    /// Has whoever asks about its keys go there.
    VouchesAt(String),
}

static SERVERS: LazyLock<Mutex<BTreeMap<String, IdentityServer>>> = LazyLock::new(Mutex::default);

impl IdentityServer {
    /// Starts one that the server that is configured trusts.
    pub(crate) fn start(config: &mut Config) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let name = listener.local_addr().unwrap().to_string();
        let listener = TcpListener::from_std(listener).unwrap();
        let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "ed25519:0").unwrap();
        let server = Self(Arc::new(Inner {
            name: name.clone(),
            key,
            bound: Mutex::default(),
            invites: AtomicU32::default(),
            asked: Mutex::default(),
            mood: Mutex::default(),
        }));
        let router = Router::new()
            .route("/_matrix/identity/v2/hash_details", get(hash_details))
            .route("/_matrix/identity/v2/lookup", post(lookup))
            .route("/_matrix/identity/v2/store-invite", post(store_invite))
            .route("/_matrix/identity/v2/3pid/bind", post(bind))
            .route("/_matrix/identity/v2/3pid/unbind", post(unbind))
            .route("/_matrix/identity/v2/pubkey/isvalid", get(is_valid))
            .layer(middleware::from_fn_with_state(server.clone(), receive))
            .with_state(server.clone());
        #[expect(clippy::disallowed_methods, reason = "nobody waits for it: it ends with the test")]
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        SERVERS.lock().insert(name.clone(), server);
        config.identity.servers = vec![format!("http://{name}").try_into().unwrap()];
    }

    /// The one that a world's server trusts.
    pub(crate) fn of(world: &World) -> Self {
        SERVERS.lock()[world.config.identity.servers[0].name()].clone()
    }

    /// As clients call it.
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// As rooms are told it.
    pub(crate) fn public_key(&self) -> String {
        STANDARD_NO_PAD.encode(self.0.key.public_key())
    }

    pub(crate) fn is(&self, mood: Mood) {
        *self.0.mood.lock() = mood;
    }

    /// Binds an address to a user.
    pub(crate) fn knows(&self, address: &str, user_id: &str) {
        self.0.bound.lock().insert(address.to_owned(), user_id.to_owned());
    }

    pub(crate) fn find(&self, address: &str) -> Option<String> {
        self.0.bound.lock().get(address).cloned()
    }

    /// What it was asked since this was asked last.
    pub(crate) fn take_asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.0.asked.lock())
    }

    /// Signs that an invitation is for a user.
    pub(crate) fn sign(&self, token: &str, sender: &str, user_id: &str) -> Value {
        self.sign_with(&self.0.key, token, sender, user_id)
    }

    /// Signs with another key, as if it were its own.
    pub(crate) fn sign_with(&self, key: &SigningKey, token: &str, sender: &str, user_id: &str) -> Value {
        let signed = json!({ "mxid": user_id, "sender": sender, "token": token });
        let mut signed: CanonicalJsonObject = serde_json::from_value(signed).unwrap();
        ruma::signatures::sign_json(self.name(), key, &mut signed).unwrap();
        serde_json::to_value(signed).unwrap()
    }
}

/// Keeps what was asked, and answers in its own way where it is not well.
async fn receive(State(server): State<IdentityServer>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let authorization = parts.headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    server.0.asked.lock().push(Asked {
        path: parts.uri.path().to_owned(),
        authorization: authorization.unwrap_or_default(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    });
    let mood = server.0.mood.lock().clone();
    match mood {
        Mood::Well | Mood::Revoked | Mood::VouchesAt(_) => next.run(Request::from_parts(parts, body.into())).await,
        Mood::Redirects => {
            let location = format!("http://{}/_matrix/identity/v2/elsewhere", server.name());
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response()
        }
        Mood::Babbles => format!("{{\"padding\":\"{}\"}}", "x".repeat(1 << 20)).into_response(),
        Mood::Says(status, body) => (StatusCode::from_u16(status).unwrap(), body).into_response(),
    }
}

async fn hash_details() -> Response {
    answer(&json!({ "lookup_pepper": PEPPER, "algorithms": ["none", "sha256"] }))
}

async fn lookup(State(server): State<IdentityServer>, body: Bytes) -> Response {
    let body = read(&body);
    assert_eq!((&body["algorithm"], &body["pepper"]), (&json!("sha256"), &json!(PEPPER)));
    let asked = body["addresses"].as_array().unwrap();
    let hash = |address: &str| {
        let text = format!("{address} email {PEPPER}");
        URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()))
    };
    let bound = server.0.bound.lock();
    let hashed = bound.iter().map(|(address, user_id)| (hash(address), user_id));
    let mappings: BTreeMap<_, _> = hashed.filter(|(hash, _)| asked.contains(&json!(hash))).collect();
    answer(&json!({ "mappings": mappings }))
}

async fn store_invite(State(server): State<IdentityServer>, body: Bytes) -> Response {
    assert_eq!(read(&body)["medium"], "email");
    let count = server.0.invites.fetch_add(1, Ordering::Relaxed);
    let url = match &*server.0.mood.lock() {
        Mood::VouchesAt(url) => url.clone(),
        _ => format!("http://{}/_matrix/identity/v2/pubkey/isvalid", server.name()),
    };
    let key = server.public_key();
    let keys = json!([{ "public_key": key, "key_validity_url": url }]);
    answer(&json!({ "token": format!("token{count}"), "public_keys": keys, "display_name": "b...@e..." }))
}

/// The session's identifier tells whose address it is: `bob` has proved bob@example.org.
async fn bind(State(server): State<IdentityServer>, body: Bytes) -> Response {
    let body = read(&body);
    let address = format!("{}@example.org", body["sid"].as_str().unwrap());
    let user_id = body["mxid"].as_str().unwrap();
    server.knows(&address, user_id);
    answer(&json!({ "medium": "email", "address": address, "mxid": user_id, "ts": 1, "not_before": 0, "not_after": 2 }))
}

async fn unbind(State(server): State<IdentityServer>, headers: HeaderMap, body: Bytes) -> Response {
    let body = read(&body);
    let address = body["threepid"]["address"].as_str().unwrap();
    let signed = headers[header::AUTHORIZATION].to_str().unwrap().starts_with("X-Matrix origin=\"localhost\",key=");
    let theirs = server.find(address).as_deref() == body["mxid"].as_str();
    if !signed || !theirs {
        return (StatusCode::FORBIDDEN, r#"{"errcode":"M_FORBIDDEN","error":"Not yours"}"#).into_response();
    }
    server.0.bound.lock().remove(address);
    answer(&json!({}))
}

async fn is_valid(State(server): State<IdentityServer>, uri: Uri) -> Response {
    assert!(uri.query().unwrap().starts_with("public_key="));
    answer(&json!({ "valid": !matches!(*server.0.mood.lock(), Mood::Revoked) }))
}

fn read(body: &Bytes) -> Value {
    serde_json::from_slice(body).unwrap()
}

fn answer(body: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
