//! A site on the web, so to say, for a server that may look at it although it is at home.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Redirect},
    routing::get,
};
use hearth::config::Config;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use crate::world::World;

/// Clones are the same site.
#[derive(Clone)]
pub(crate) struct PageServer {
    url: String,
    looks: Arc<AtomicUsize>,
}

static SITES: LazyLock<Mutex<BTreeMap<PathBuf, PageServer>>> = LazyLock::new(Mutex::default);

impl PageServer {
    /// Starts one that the server that is configured may look at.
    pub(crate) fn start(config: &mut Config) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let site =
            Self { url: format!("http://{}", listener.local_addr().unwrap()), looks: Arc::new(AtomicUsize::new(0)) };
        let listener = TcpListener::from_std(listener).unwrap();
        let router = Router::new()
            .route("/page", get(page))
            .route("/picture.png", get(|| async { ([(header::CONTENT_TYPE, "image/png")], PICTURE) }))
            .route("/there", get(|| async { Redirect::to("/page") }))
            .route("/inside", get(|| async { Redirect::to("http://192.168.0.1/") }))
            .route("/broken", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }))
            .with_state(site.clone());
        #[expect(clippy::disallowed_methods, reason = "nobody waits for it: it ends with the test")]
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        config.url_previews.enabled = true;
        config.url_previews.allowed_addresses = vec!["127.0.0.0/8".parse().unwrap()];
        SITES.lock().insert(config.data_dir.clone(), site);
    }

    /// The one that a world's server may look at.
    pub(crate) fn of(world: &World) -> Self {
        SITES.lock()[&world.config.data_dir].clone()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// How often somebody has looked at its page.
    pub(super) fn looks(&self) -> usize {
        self.looks.load(Ordering::SeqCst)
    }
}

/// A PNG of one pixel.
pub(super) const PICTURE: &[u8] = b"\
    \x89\x50\x4e\x47\x0d\x0a\x1a\x0a\x00\x00\x00\x0d\x49\x48\x44\x52\x00\x00\x00\x01\x00\x00\x00\x01\x08\
    \x06\x00\x00\x00\x1f\x15\xc4\x89\x00\x00\x00\x0d\x49\x44\x41\x54\x78\xda\x63\xf8\xcf\xc0\xf0\x1f\x00\
    \x05\x00\x01\xff\x56\xc7\x2f\x0d\x00\x00\x00\x00\x49\x45\x4e\x44\xae\x42\x60\x82";

async fn page(State(site): State<PageServer>, headers: HeaderMap) -> impl IntoResponse {
    site.looks.fetch_add(1, Ordering::SeqCst);
    let language = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let title = if language.starts_with("de") { "Eine Seite" } else { "A page" };
    Html(format!(
        "<!DOCTYPE html><html><head><meta property=\"og:title\" content=\"{title}\">\
         <meta property=\"og:image\" content=\"/picture.png\"></head><body>text</body></html>"
    ))
}
