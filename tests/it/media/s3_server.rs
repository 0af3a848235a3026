//! An S3 server in this process that keeps its buckets in a folder, for a server that is being configured.

use std::fs;

use axum::{Router, error_handling::HandleError, http::StatusCode};
use hearth::config::{Config, HttpUrl, MediaStoreConfig};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;

const BUCKET: &str = "media";
const KEY_ID: &str = "hearth";
const SECRET: &str = "not a secret";

/// Starts one, and has media kept there.
pub(super) fn start(config: &mut Config) {
    let root = config.data_dir.join("s3");
    fs::create_dir_all(root.join(BUCKET)).unwrap();
    let mut service = S3ServiceBuilder::new(FileSystem::new(root).unwrap());
    service.set_auth(SimpleAuth::from_single(KEY_ID, SECRET));
    let router = Router::new().fallback_service(HandleError::new(service.build(), in_words));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let listener = TcpListener::from_std(listener).unwrap();
    #[expect(clippy::disallowed_methods, reason = "nobody waits for it: it ends with the test")]
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    keep_at(config, &url);
}

/// Has media kept in a store at which nobody answers.
pub(super) fn none(config: &mut Config) {
    // A port that was free a moment ago.
    let url = format!("http://{}", std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    keep_at(config, &url);
}

fn keep_at(config: &mut Config, url: &str) {
    config.media.stores = vec![MediaStoreConfig {
        name: "s3".to_owned(),
        path: None,
        bucket: Some(BUCKET.to_owned()),
        endpoint: Some(HttpUrl::try_from(url.to_owned()).unwrap()),
        region: None,
        prefix: None,
        access_key_id: Some(KEY_ID.to_owned().try_into().unwrap()),
        secret_access_key: Some(SECRET.to_owned().try_into().unwrap()),
    }];
}

async fn in_words(error: s3s::HttpError) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:?}"))
}
