//! An S3 server in this process that keeps its buckets in a folder, for a server that is being configured.

use hearth::config::Config;
use tokio::net::TcpListener;

use crate::s3_server::{BUCKET, router, store_at};

/// Starts one, and has media kept there.
pub(super) fn start(config: &mut Config) {
    let router = router(&config.data_dir.join("s3"));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let listener = TcpListener::from_std(listener).unwrap();
    #[expect(clippy::disallowed_methods, reason = "nobody waits for it: it ends with the test")]
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    config.media.stores = vec![store_at("s3", BUCKET, &url)];
}

/// Has media kept in a store at which nobody answers.
pub(super) fn none(config: &mut Config) {
    // A port that was free a moment ago.
    let url = format!("http://{}", std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    config.media.stores = vec![store_at("s3", BUCKET, &url)];
}
