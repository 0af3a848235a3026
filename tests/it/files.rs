//! Files that tests upload and download, as a client does that knows nothing but bytes.

use std::{fmt::Write as _, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use hearth::ground::random::Random;
use serde_json::Value;
use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};

use crate::world::http_client;

/// Far longer than a store is waited for.
const PATIENCE: Duration = Duration::from_mins(3);

/// Somebody's uploads and downloads.
#[derive(Clone)]
pub(crate) struct Files {
    http: reqwest::Client,
    url: String,
    token: String,
}

/// What came back, all of it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Files {
    pub(crate) fn of(url: &str, token: &str) -> Self {
        Self { http: http_client(PATIENCE), url: url.to_owned(), token: token.to_owned() }
    }

    /// None where the connection breaks before all of the answer has come.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Vec<u8>) -> Option<Answer> {
        let request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.url));
        let request = request.bearer_auth(&self.token).header("content-type", "application/octet-stream").body(body);
        // Whoever reads of a test that failed sees in its output what broke.
        let broken = |error: &reqwest::Error| eprintln!("{method} {path}: {error:?}");
        let answer = request.send().await.inspect_err(broken).ok()?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Some(Answer { status, headers, body: answer.bytes().await.inspect_err(broken).ok()?.to_vec() })
    }

    pub(crate) async fn upload(&self, bytes: Vec<u8>) -> Answer {
        self.ask("POST", UPLOAD, bytes).await.expect("an upload is answered")
    }

    pub(crate) async fn download(&self, uri: &str) -> Answer {
        self.ask("GET", &download_path(uri), Vec::new()).await.expect("a download is answered")
    }
}

pub(crate) const UPLOAD: &str = "/_matrix/media/v3/upload";

/// Where the file of an `mxc:` URI is to be had.
pub(crate) fn download_path(uri: &str) -> String {
    format!("/_matrix/client/v1/media/download/{}", uri.strip_prefix("mxc://").unwrap())
}

/// Where something is uploaded to an `mxc:` URI.
pub(crate) fn upload_path(uri: &str) -> String {
    format!("{UPLOAD}/{}", uri.strip_prefix("mxc://").unwrap())
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The URI of what was uploaded, or made to be uploaded to.
    #[track_caller]
    pub(crate) fn uri(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.json());
        self.json()["content_uri"].as_str().unwrap().to_owned()
    }

    /// The bytes of a download.
    #[track_caller]
    pub(crate) fn bytes(self) -> Vec<u8> {
        assert_eq!(self.status, 200, "{}", self.json());
        self.body
    }

    /// Checks that the client is told to try again.
    #[track_caller]
    pub(crate) fn is_retryable(&self) {
        assert_eq!(self.status, 503, "{}", self.json());
        assert!(self.json()["errcode"].is_string(), "{}", self.json());
        assert!(self.headers.contains_key("retry-after"), "{:?}", self.headers);
    }
}

/// So many bytes, which are the same for each number and others for every other.
pub(crate) fn content(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Random::seeded(number).fill(&mut bytes);
    bytes
}

/// SHA-256 in hexadecimal digits, as the database has it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Rows of two texts.
pub(crate) async fn list_rows(database: &str, select: &'static str) -> Vec<(String, String)> {
    if database.starts_with("sqlite:") {
        let mut connection = SqliteConnection::connect(database).await.unwrap();
        sqlx::query_as(select).fetch_all(&mut connection).await.unwrap()
    } else {
        let mut connection = PgConnection::connect(database).await.unwrap();
        sqlx::query_as(select).fetch_all(&mut connection).await.unwrap()
    }
}

/// Changes what a running server has, as time would.
pub(crate) async fn execute(database: &str, statement: &'static str) {
    if database.starts_with("sqlite:") {
        let mut connection = SqliteConnection::connect(database).await.unwrap();
        connection.execute(statement).await.unwrap();
    } else {
        let mut connection = PgConnection::connect(database).await.unwrap();
        connection.execute(statement).await.unwrap();
    }
}
