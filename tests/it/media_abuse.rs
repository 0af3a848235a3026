//! What whoever means harm, or has a bad line, does with uploads and downloads: nothing is half-stored, and others are
//! served meanwhile.

use std::{fs, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::{
    files::{Files, UPLOAD, content, download_path, list_rows, upload_path},
    s3_server::list_files,
    world::{Client, Engine, World},
};

const MEGABYTE: u64 = 1024 * 1024;
/// Of what is small but no header.
const SMALL: usize = 40_000;
/// Who reads nothing has at most so much on the way to them, in bytes.
const WINDOW: u32 = 32 * 1024;

/// A server, and somebody there.
async fn somebody(configure: impl FnOnce(&mut hearth::config::Config)) -> (World, Client, Files) {
    let world = World::on(Engine::Sqlite, configure).await.unwrap();
    let alice = world.user("alice").await;
    let files = Files::of(&world.url, &alice.token);
    (world, alice, files)
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let seen = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_mins(1), seen).await.is_ok(), "it does not come to that: {what}");
}

/// How many files are coming in.
fn count_incoming(world: &World) -> usize {
    let files = list_files(&world.config.data_dir.join("media-incoming"));
    files.iter().filter(|name| *name != "lock" && !name.ends_with("/lock")).count()
}

/// Waits until nothing comes in, and checks that so many media of so many objects are here: rows and files.
async fn has(world: &World, media: usize, objects: usize) {
    until("nothing comes in", async || count_incoming(world) == 0).await;
    let rows = list_rows(&world.database, "SELECT media_id, origin FROM media WHERE digest IS NOT NULL").await;
    assert_eq!(rows.len(), media, "rows of media");
    let rows = list_rows(&world.database, "SELECT digest, location FROM media_objects").await;
    assert_eq!(rows.len(), objects, "rows of objects");
    assert_eq!(list_files(&world.config.data_dir.join("media")).len(), objects, "files");
}

fn metric(world: &World, name: &str) -> u64 {
    let metrics = world.metrics();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{metrics}")).parse().unwrap()
}

fn struck(world: &World, limit: &str) -> u64 {
    metric(world, &format!("hearth_limits_struck_total{{limit=\"{limit}\"}}"))
}

async fn connect(url: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(WINDOW).unwrap();
    let address = url.trim_end_matches('/').strip_prefix("http://").unwrap();
    socket.connect(address.parse().unwrap()).await.unwrap()
}

/// The head of a request, with more fields, each ended.
fn head(method: &str, path: &str, token: &str, fields: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n{fields}\r\n").into_bytes()
}

/// Begins an upload that says it is so long.
pub(crate) async fn begin_upload(url: &str, path: &str, token: &str, length: &str) -> TcpStream {
    let mut stream = connect(url).await;
    let method = if path == UPLOAD { "POST" } else { "PUT" };
    stream.write_all(&head(method, path, token, &format!("content-length: {length}\r\n"))).await.unwrap();
    stream
}

/// The status of the next answer, and its JSON. 0 where there is none.
pub(crate) async fn answer(stream: &mut TcpStream) -> (u16, Value) {
    let mut read = Vec::new();
    let end = loop {
        let Ok(byte) = stream.read_u8().await else { return (0, Value::Null) };
        read.push(byte);
        if read.ends_with(b"\r\n\r\n") {
            break String::from_utf8(read).unwrap().to_lowercase();
        }
    };
    let status = end.split(' ').nth(1).unwrap().parse().unwrap();
    let length = end.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    drop(stream.read_exact(&mut body).await);
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_content_length_that_lies_is_not_believed() {
    let (world, alice, files) = somebody(|config| config.media.max_upload_megabytes = 1).await;
    let bytes = content(1, SMALL);
    // Longer than what comes.
    let mut stream = begin_upload(&world.url, UPLOAD, &alice.token, "100000").await;
    stream.write_all(&bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let (status, _) = answer(&mut stream).await;
    assert!(status == 0 || status == 400, "{status}");
    has(&world, 0, 0).await;

    // Shorter: what is beyond is no part of the file, and no request.
    let mut stream = begin_upload(&world.url, UPLOAD, &alice.token, "1000").await;
    stream.write_all(&bytes[..1_100]).await.unwrap();
    let (status, body) = answer(&mut stream).await;
    assert_eq!(status, 200, "{body}");
    let uri = body["content_uri"].as_str().unwrap();
    assert_eq!(files.download(uri).await.bytes(), bytes[..1_000]);
    has(&world, 1, 1).await;

    // More than is allowed: whoever says so is refused before they send it.
    for length in ["1048577", "10000000000", "9223372036854775807"] {
        let mut stream = begin_upload(&world.url, UPLOAD, &alice.token, length).await;
        let (status, body) = answer(&mut stream).await;
        assert_eq!((status, &body["errcode"]), (413, &json!("M_TOO_LARGE")), "{length}");
    }
    // No number, or two of them.
    for length in ["-1", "+5", "1e3", "99999999999999999999999", "5\r\ncontent-length: 6"] {
        let mut stream = begin_upload(&world.url, UPLOAD, &alice.token, length).await;
        assert_eq!(answer(&mut stream).await.0, 400, "{length}");
    }
    has(&world, 1, 1).await;
}

/// Trap: the memory of uploads. Nobody has said how long it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_without_a_length_ends_at_the_limit() {
    let (world, alice, files) = somebody(|config| config.media.max_upload_megabytes = 1).await;
    let mut stream = connect(&world.url).await;
    stream.write_all(&head("POST", UPLOAD, &alice.token, "transfer-encoding: chunked\r\n")).await.unwrap();
    let part = [format!("{SMALL:x}\r\n").as_bytes(), &content(1, SMALL), b"\r\n"].concat();
    for _ in 0..MEGABYTE / 40_000 + 2 {
        // The server may have had enough.
        if stream.write_all(&part).await.is_err() {
            break;
        }
    }
    let (status, body) = answer(&mut stream).await;
    assert_eq!((status, &body["errcode"]), (413, &json!("M_TOO_LARGE")));
    has(&world, 0, 0).await;

    let mut stream = connect(&world.url).await;
    stream.write_all(&head("POST", UPLOAD, &alice.token, "transfer-encoding: chunked\r\n")).await.unwrap();
    stream.write_all(&[part.as_slice(), b"0\r\n\r\n"].concat()).await.unwrap();
    let (status, body) = answer(&mut stream).await;
    assert_eq!(status, 200, "{body}");
    assert!(files.download(body["content_uri"].as_str().unwrap()).await.bytes() == content(1, SMALL));
    has(&world, 1, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_broken_off_leaves_nothing() {
    let (world, alice, files) = somebody(|_| ()).await;
    let pending = files.ask("POST", "/_matrix/media/v1/create", Vec::new()).await.unwrap().uri();
    let path = upload_path(&pending);
    for length in [0, 1, SMALL, 1_000_000, 2_999_999] {
        for path in [UPLOAD, &path] {
            let mut stream = begin_upload(&world.url, path, &alice.token, "3000000").await;
            stream.write_all(&content(2, length)).await.unwrap();
            until("it comes in", async || count_incoming(&world) > 0).await;
            drop(stream);
            has(&world, 0, 0).await;
        }
    }
    let put = files.ask("PUT", &path, content(3, SMALL)).await.unwrap();
    assert_eq!(put.status, 200, "the URI is as it was: {}", put.json());
    assert!(files.download(&pending).await.bytes() == content(3, SMALL));
    has(&world, 1, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_upload_is_cut_and_leaves_nothing() {
    let (world, alice, files) = somebody(|config| config.connections.patience_seconds = 1).await;
    let room = alice.create_room(json!({})).await;
    let pending = files.ask("POST", "/_matrix/media/v1/create", Vec::new()).await.unwrap().uri();
    let path = upload_path(&pending);
    let mut slow = Vec::new();
    for number in 0..20 {
        let path = if number == 0 { &*path } else { UPLOAD };
        let mut stream = begin_upload(&world.url, path, &alice.token, "3000000").await;
        stream.write_all(&content(number, 200_000)).await.unwrap();
        slow.push(stream);
    }
    // Somebody sends a byte now and then, as long as it is taken.
    let mut trickling = begin_upload(&world.url, UPLOAD, &alice.token, "3000000").await;
    let trickle = async {
        let (mut reads, mut writes) = trickling.split();
        let mut status = [0; 12];
        tokio::select! {
            read = reads.read_exact(&mut status) => assert!(read.is_ok()),
            () = async {
                while writes.write_all(b".").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                std::future::pending::<()>().await;
            } => {}
        }
        status
    };
    let (status, _) = tokio::join!(trickle, alice.say(&room, "meanwhile"));
    assert_eq!(&status, b"HTTP/1.1 408");
    for mut stream in slow {
        assert_eq!(answer(&mut stream).await.0, 408);
    }
    assert_eq!(struck(&world, "slow_body"), 21);
    has(&world, 0, 0).await;
    assert_eq!(files.ask("PUT", &path, content(3, SMALL)).await.unwrap().status, 200);
    has(&world, 1, 1).await;
}

/// Asks for a file and reads the head of the answer, and no more.
pub(crate) async fn begin_download(url: &str, uri: &str, token: &str) -> TcpStream {
    let mut stream = connect(url).await;
    stream.write_all(&head("GET", &download_path(uri), token, "")).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_downloads_are_cut_and_give_back_what_they_hold() {
    const READERS: usize = 40;
    const LENGTH: usize = 16_000_000;
    let (world, alice, files) = somebody(|config| config.connections.patience_seconds = 1).await;
    let room = alice.create_room(json!({})).await;
    let uri = files.upload(content(1, LENGTH)).await.uri();
    let small = files.upload(content(2, SMALL)).await.uri();
    let begin = (0..READERS).map(|_| begin_download(&world.url, &uri, &alice.token));
    let slow = join_all(begin).await;
    alice.say(&room, "meanwhile").await;
    assert!(files.download(&small).await.bytes() == content(2, SMALL));
    let all = u64::try_from(READERS).unwrap();
    let are_cut = async || struck(&world, "slow_reader") >= all && metric(&world, "hearth_held_bytes") == 0;
    until("all of them are cut", are_cut).await;
    for mut stream in slow {
        let mut read = Vec::new();
        drop(stream.read_to_end(&mut read).await);
        assert!(read.len() < LENGTH, "it was sent whole to somebody who did not read");
    }
    assert!(files.download(&uri).await.bytes() == content(1, LENGTH));
}

/// Trap: names that lead elsewhere (CVE-2021-41281).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_lead_nowhere_else() {
    let (world, alice, files) = somebody(|_| ()).await;
    fs::write(world.config.data_dir.join("secret"), "a secret").unwrap();
    let other = files.upload(content(1, SMALL)).await.uri();
    let server = other.strip_prefix("mxc://").unwrap().split('/').next().unwrap();
    for id in
        ["..%2Fsecret", "%2e%2e%2fsecret", "..%5Csecret", "..", ".", "%2Fetc%2Fpasswd", "a%00b", "a%2Fb", "%C3%A4"]
    {
        for server in [server, "..", "%2e%2e", "..%2F..", "%2Ftmp"] {
            for kind in ["download", "thumbnail"] {
                let path = format!("/_matrix/client/v1/media/{kind}/{server}/{id}?width=32&height=32");
                // As it stands: a client of HTTP would tidy the path up.
                let mut stream = connect(&world.url).await;
                stream.write_all(&head("GET", &path, &alice.token, "")).await.unwrap();
                let (status, body) = answer(&mut stream).await;
                assert!((400..500).contains(&status), "{path}: {status} {body}");
                assert!(body["errcode"].is_string(), "{path}: {body}");
            }
        }
    }
    for name in
        ["..%2F..%2Fsecret", "%2Fetc%2Fpasswd", "a%0D%0Aset-cookie:%20b", "..%5C..%5Csecret", "%E2%80%AEgnp.exe"]
    {
        let path = format!("{UPLOAD}?filename={name}");
        let uri = files.ask("POST", &path, content(2, SMALL)).await.unwrap().uri();
        let answer = files.download(&uri).await;
        let said = answer.headers["content-disposition"].to_str().unwrap().to_lowercase();
        for part in ["/", "\\", "%2f", "%5c", "%0d", "%0a", "%e2%80%ae", "\r", "\n"] {
            assert!(!said.contains(part), "{name}: {said}");
        }
        assert!(!answer.headers.contains_key("set-cookie"));
        assert!(answer.bytes() == content(2, SMALL));
    }
    has(&world, 6, 2).await;
}
