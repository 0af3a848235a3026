//! Files that users send: what comes in goes out as it was, to whom it may, and does no harm on the way.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#content-repository>

mod download;
mod harmless;
mod limits;
mod old;
mod outage;
mod page_server;
mod pending;
mod preview;
mod redirect;
mod s3_server;
mod thumbnail;
mod upload;

use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::Value;

pub(crate) use self::page_server::PageServer;
use crate::{
    files::{UPLOAD, download_path as at},
    world::{Client, Reply, World, http_client},
};

const CREATE: &str = "/_matrix/media/v1/create";
const OLD: &str = "/_matrix/media/v3";

/// An answer that need not be JSON.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    bytes: Vec<u8>,
}

impl Answer {
    /// The bytes of a file.
    #[track_caller]
    fn file(self) -> Vec<u8> {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.bytes));
        self.bytes
    }

    /// What a header says, and nothing where there is none.
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn reply(self) -> Reply {
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        Reply {
            status: self.status,
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
            headers: self.headers,
        }
    }

    #[track_caller]
    fn refused(self, status: u16, errcode: &str) -> Reply {
        let reply = self.reply();
        reply.refused(status, errcode);
        reply
    }
}

/// What a request is made of.
struct Ask<'a> {
    method: &'static str,
    url: String,
    token: Option<&'a str>,
    headers: &'a [(&'a str, &'a str)],
    body: Option<Vec<u8>>,
}

impl Ask<'_> {
    async fn send(self) -> Answer {
        let http = http_client(Duration::from_mins(2));
        let mut request = http.request(self.method.parse().unwrap(), self.url);
        if let Some(token) = self.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in self.headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = self.body {
            request = request.body(body);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, bytes: response.bytes().await.unwrap().to_vec() }
    }
}

impl World {
    /// A GET by somebody, at the proxy.
    async fn ask(&self, client: &Client, path: &str, headers: &[(&str, &str)]) -> Answer {
        let url = format!("{}{path}", self.url);
        Ask { method: "GET", url, token: Some(&client.token), headers, body: None }.send().await
    }

    /// A GET by nobody in particular.
    async fn ask_as_stranger(&self, path: &str) -> Answer {
        Ask { method: "GET", url: format!("{}{path}", self.url), token: None, headers: &[], body: None }.send().await
    }

    async fn put_file(&self, client: &Client, method: &'static str, path: &str, kind: &str, file: &[u8]) -> Answer {
        let (url, headers) = (format!("{}{path}", self.url), [("content-type", kind)]);
        Ask { method, url, token: Some(&client.token), headers: &headers, body: Some(file.to_vec()) }.send().await
    }

    /// Uploads a file and gives its URI.
    pub(crate) async fn upload(&self, client: &Client, kind: &str, file: &[u8]) -> String {
        let reply = self.put_file(client, "POST", UPLOAD, kind, file).await.reply().ok();
        reply["content_uri"].as_str().unwrap().to_owned()
    }

    /// The file that a URI names, for somebody.
    async fn download(&self, client: &Client, uri: &str) -> Answer {
        self.ask(client, &at(uri), &[]).await
    }

    /// A metric of all nodes together, with its labels if it has some.
    fn metric(&self, name: &str) -> u64 {
        let metrics = self.metrics();
        let lines = metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        lines.map(|number| number.parse::<u64>().unwrap()).sum()
    }

    /// How many files of media there are on the disk, by the folder that has them.
    fn files(&self, folder: &str) -> usize {
        fn count(folder: &std::path::Path) -> usize {
            let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
            let entries = entries.map(Result::unwrap);
            entries.map(|entry| if entry.file_type().unwrap().is_dir() { count(&entry.path()) } else { 1 }).sum()
        }
        count(&self.config.data_dir.join(folder))
    }
}

/// Server and media id of a URI.
fn name(uri: &str) -> &str {
    uri.strip_prefix("mxc://").unwrap()
}

/// So many bytes that say where they are, and are no text.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|place| u8::try_from(place % 251).unwrap() ^ 0x80).collect()
}
