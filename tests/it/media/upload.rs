//! What comes in whole goes out whole, and of what does not nothing is left.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::header::{CONTENT_TYPE, TRANSFER_ENCODING};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{UPLOAD, at, bytes};
use crate::{
    on_both,
    world::{Client, World, http_client},
};

/// Where files are that come in.
const INCOMING: &str = "media-incoming";

/// The head of an upload to the first node that says it has so many bytes.
fn head(client: &Client, length: &str) -> String {
    format!(
        "POST {UPLOAD} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-length: {length}\r\n\r\n",
        client.token
    )
}

async fn connect(world: &World) -> TcpStream {
    TcpStream::connect(world.nodes[0].url.trim_start_matches("http://")).await.unwrap()
}

/// Waits until there are no more files than `before` where uploads come in.
async fn until_nothing_is_left(world: &World, before: usize) {
    let gone = async {
        while world.files(INCOMING) > before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("something of the upload is left");
}

on_both! {
    async fn a_file_is_the_same_byte_for_byte(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        for length in [0, 1, 4_095, 4_096, 65_537, 3_000_001] {
            let file = bytes(length);
            let uri = world.upload(&alice, "application/octet-stream", &file).await;
            assert!(uri.starts_with("mxc://localhost/"), "{uri}");
            // Every node has it.
            for _ in 0..world.nodes.len() {
                assert!(world.download(&bob, &uri).await.file() == file, "{length}");
            }
        }
    }

    async fn a_file_whose_length_nobody_said(world) {
        let alice = world.user("alice").await;
        let parts = (0..50_u8).map(|number| Ok::<_, std::io::Error>(vec![number; 10_000]));
        let body = reqwest::Body::wrap(http_body_util::StreamBody::new(futures_util::stream::iter(
            parts.map(|part| part.map(|part| hyper::body::Frame::data(bytes::Bytes::from(part)))),
        )));
        let http = http_client(Duration::from_secs(30));
        let request = http.post(format!("{}{UPLOAD}", world.nodes[0].url)).bearer_auth(&alice.token);
        let answer = request.header(TRANSFER_ENCODING, "chunked").header(CONTENT_TYPE, "image/png").body(body);
        let answer: serde_json::Value = answer.send().await.unwrap().json().await.unwrap();
        let file = world.download(&alice, answer["content_uri"].as_str().unwrap()).await.file();
        assert_eq!(file.len(), 500_000);
        assert!(file.chunks(10_000).zip(0..).all(|(chunk, number)| chunk.iter().all(|byte| *byte == number)));
    }

    /// Trap: upload memory, truncated and lying files.
    async fn of_an_upload_that_breaks_off_nothing_is_stored(world) {
        let (alice, before) = (world.user("alice").await, world.files(INCOMING));
        for sent in [0, 1_000, 700_000] {
            let mut stream = connect(&world).await;
            stream.write_all(head(&alice, "1000000").as_bytes()).await.unwrap();
            stream.write_all(&bytes(sent)).await.unwrap();
            stream.shutdown().await.unwrap();
            // Whatever it says, it ends.
            let mut said = Vec::new();
            stream.read_to_end(&mut said).await.unwrap_or_default();
            assert!(!said.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&said));
        }
        until_nothing_is_left(&world, before).await;
        assert_eq!(world.files("media"), 0);
    }

    /// Trap: `Content-Length` that lies.
    async fn lengths_that_are_none_are_refused(world) {
        let alice = world.user("alice").await;
        for length in ["-1", "x", "1, 2", "99999999999999999999999999"] {
            let mut stream = connect(&world).await;
            stream.write_all(head(&alice, length).as_bytes()).await.unwrap();
            let mut said = Vec::new();
            stream.read_to_end(&mut said).await.unwrap_or_default();
            assert!(said.starts_with(b"HTTP/1.1 4") || said.is_empty(), "{}", String::from_utf8_lossy(&said));
        }
        // Larger than anything, but a length: it is refused before anything of it is sent.
        let mut stream = connect(&world).await;
        stream.write_all(head(&alice, "9999999999999999").as_bytes()).await.unwrap();
        let mut said = vec![0; 1_000];
        let heard = stream.read(&mut said).await.unwrap();
        assert!(said[..heard].starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&said[..heard]));
        assert_eq!(world.files("media"), 0);
    }

    async fn equal_bytes_are_stored_once(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let file = bytes(100_000);
        let uploads = (0..12).map(|number| world.upload(if number % 2 == 0 { &alice } else { &bob }, "image/png", &file));
        let uris = join_all(uploads).await;
        for (number, uri) in uris.iter().enumerate() {
            assert!(!uris[..number].contains(uri), "{uri} was given away twice");
            assert!(world.download(&alice, uri).await.file() == file);
        }
        // What two wrote at the same moment is deleted later.
        assert!((1..=12).contains(&world.files("media")));
        let before = world.files("media");
        world.upload(&bob, "text/plain", &file).await;
        assert_eq!(world.files("media"), before);
    }

    async fn who_may_not_upload_does_not(world) {
        let (alice, root) = (world.user("alice").await, world.administrator("root").await);
        world.call("POST", UPLOAD, None, Some(json!({}))).await.refused(401, "M_MISSING_TOKEN");
        world.call("POST", UPLOAD, Some("nobodys"), Some(json!({}))).await.refused(401, "M_UNKNOWN_TOKEN");
        let uri = world.upload(&alice, "image/png", b"before").await;
        let suspend = "/_matrix/client/v1/admin/suspend/@alice:localhost";
        root.put(suspend, json!({ "suspended": true })).await.ok();
        alice.post(UPLOAD, json!({})).await.refused(403, "M_USER_SUSPENDED");
        // She may read.
        assert_eq!(world.download(&alice, &uri).await.file(), b"before");
        world.call("GET", &at(&uri), None, None).await.refused(401, "M_MISSING_TOKEN");
    }

    async fn clients_read_how_large_a_file_may_be(world, config => { config.media.max_upload_megabytes = 3; }) {
        let alice = world.user("alice").await;
        for path in ["/_matrix/client/v1/media/config", "/_matrix/media/v3/config", "/_matrix/media/r0/config"] {
            assert_eq!(alice.get(path).await.ok(), json!({ "m.upload.size": 3 * 1024 * 1024 }));
        }
    }
}
