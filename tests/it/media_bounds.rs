//! The memory of the server while many upload, many read slowly, and pictures are meant to do harm: it has a bound, and
//! whoever writes meanwhile is answered.
//!
//! Each test has a server in a process of its own. Where the system does not say how much memory that has, the rest of what
//! is tested is.

use std::{fs, time::Duration};

use futures_util::future::join_all;
use tokio::io::AsyncWriteExt as _;

use crate::{
    durable::register,
    files::{Files, UPLOAD, content},
    media_abuse::{answer, begin_download, begin_upload},
    pictures,
    program::{Installation, Server},
    world::{escape, http_client},
};

const MEGABYTE: u64 = 1024 * 1024;
/// Of what is small but no header.
const SMALL: usize = 40_000;

/// A server in a process of its own, whose memory can be looked at.
struct Process {
    server: Server,
    url: String,
    /// Eight of them.
    users: Vec<(String, Files)>,
    _installation: Installation,
}

impl Process {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let mut installation = Installation::new();
        installation.set("REGISTRATION__MODE", "open");
        installation.set("RATE_LIMITS__ENABLED", "false");
        for (key, value) in settings {
            installation.set(key, value);
        }
        let server = tokio::task::block_in_place(|| installation.start());
        let url = server.url.trim_end_matches('/').to_owned();
        let http = http_client(Duration::from_secs(20));
        let mut users = Vec::new();
        for number in 0..8 {
            let user = register(&http, &url, &format!("user{number}")).await;
            users.push((user.token.clone(), Files::of(&url, &user.token)));
        }
        Self { server, url, users, _installation: installation }
    }

    /// The most memory that it has had at once, in bytes. 0 where the system does not say.
    fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024)
    }

    /// Does something, and checks how much more memory that has taken than there was ever before.
    async fn takes_at_most<T>(&self, megabytes: u64, what: impl Future<Output = T>) -> T {
        let before = self.peak();
        let done = what.await;
        let more = (self.peak() - before) / MEGABYTE;
        eprintln!("{more} MiB more than before");
        assert!(more <= megabytes, "{more} MiB more, {megabytes} at most");
        done
    }
}

/// Trap: 200 of whom each holds all of a file, or a large part of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_of_two_hundred_slow_readers_is_bounded() {
    let process = Process::start(&[("CONNECTIONS__PATIENCE_SECONDS", "3600")]).await;
    let files = &process.users[0].1;
    let uri = files.upload(content(1, 32_000_000)).await.uri();
    let small = files.upload(content(2, SMALL)).await.uri();
    // So that what this takes is not counted.
    assert!(files.download(&small).await.bytes() == content(2, SMALL));
    let slow = process.takes_at_most(200, async {
        let mut slow = Vec::new();
        for number in 0..200 {
            let (token, _) = &process.users[number % process.users.len()];
            slow.push(begin_download(&process.url, &uri, token).await);
        }
        for (_, files) in &process.users {
            assert!(files.download(&small).await.bytes() == content(2, SMALL));
        }
        slow
    });
    assert_eq!(slow.await.len(), 200);
}

/// Trap: the memory of uploads (CVE-2024-52805).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_of_many_uploads_is_bounded() {
    const LENGTH: usize = 10_000_000;
    let process = Process::start(&[]).await;
    let bytes = content(1, LENGTH);
    let uploads = (0..48).map(|number| {
        let (token, _) = &process.users[number % process.users.len()];
        let (url, bytes) = (&process.url, &bytes);
        async move {
            let mut stream = begin_upload(url, UPLOAD, token, &LENGTH.to_string()).await;
            stream.write_all(bytes).await.unwrap();
            answer(&mut stream).await
        }
    });
    for (status, body) in process.takes_at_most(150, join_all(uploads)).await {
        assert_eq!(status, 200, "{body}");
    }
}

fn thumbnail_path(uri: &str, (width, height): (u32, u32), method: &str) -> String {
    let media = uri.strip_prefix("mxc://").unwrap();
    format!("/_matrix/client/v1/media/thumbnail/{media}?width={width}&height={height}&method={method}")
}

/// Traps: decompression bombs, and decoders (CVE-2024-53863).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decompression_bombs_harm_nobody() {
    const SIZES: [((u32, u32), &str); 4] =
        [((32, 32), "crop"), ((96, 96), "crop"), ((320, 240), "scale"), ((800, 600), "scale")];
    let whole = pictures::png(1_000, 800);
    let bombs: [(&str, Vec<u8>, &[u16]); 13] = [
        ("50,000 pixels each way", pictures::png(50_000, 50_000), &[413]),
        ("as many, of which none are there", pictures::png_without_pixels(50_000, 50_000), &[413]),
        ("more than there are numbers for", pictures::png_without_pixels(0x7fff_ffff, 0x7fff_ffff), &[400, 413]),
        ("a GIF of that size", pictures::gif(50_000, 50_000, 1), &[200, 400, 413]),
        ("a GIF of 20,000 frames", pictures::gif(2_000, 2_000, 20_000), &[200, 400, 413]),
        ("a BMP of that size", pictures::bmp_without_pixels(50_000, 50_000), &[400, 413]),
        ("a BMP of less than nothing", pictures::bmp_without_pixels(i32::MIN, i32::MIN), &[400, 413]),
        ("a long text", pictures::png_with_text(400, 300, 500_000_000), &[200, 400, 413]),
        ("50,000 pixels in a row", pictures::png(50_000, 1), &[200]),
        ("50,000 pixels in a column", pictures::png(1, 50_000), &[200]),
        ("what is cut off", whole[..whole.len() / 2].to_vec(), &[200, 400]),
        // A kind that is known by its first bytes and can't be read is shown as it is.
        ("no picture", b"\x89PNG, more or less".to_vec(), &[200, 400]),
        ("a picture", whole.clone(), &[200]),
    ];
    let process = Process::start(&[("MEDIA__THUMBNAIL_MEGABYTES", "128")]).await;
    let files = &process.users[0].1;
    let mut asked = Vec::new();
    for (what, bytes, expected) in bombs {
        let uri = files.upload(bytes.clone()).await.uri();
        // It is kept as it is, and comes back so.
        assert!(files.download(&uri).await.bytes() == bytes, "{what}");
        let paths = SIZES.iter().map(|(size, method)| thumbnail_path(&uri, *size, method));
        let animated = format!("{}&animated=true", thumbnail_path(&uri, (96, 96), "crop"));
        asked.extend(paths.chain([animated]).map(|path| (what, path, expected)));
    }
    let thumbnails = join_all(asked.iter().map(|(what, path, expected)| async move {
        // Where there is too much to do, it is said so, and asking again helps.
        for _ in 0..200 {
            let answer = files.ask("GET", path, Vec::new()).await.expect("it is answered");
            if answer.status != 503 {
                assert!(expected.contains(&answer.status), "{what}, {path}: {} {}", answer.status, answer.json());
                return;
            }
            answer.is_retryable();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{what}, {path}: there is always too much to do");
    }));
    // Whoever writes is not held up: all of it is done whether or not the thumbnails are.
    let meanwhile = async {
        let (_, other) = &process.users[1];
        let room = other.ask("POST", "/_matrix/client/v3/createRoom", b"{}".to_vec()).await.unwrap().json();
        let room = escape(room["room_id"].as_str().unwrap());
        for number in 0..50 {
            let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/{number}");
            let sent = other.ask("PUT", &path, br#"{"msgtype":"m.text","body":"meanwhile"}"#.to_vec()).await.unwrap();
            assert_eq!(sent.status, 200, "{}", sent.json());
        }
    };
    process.takes_at_most(300, async { tokio::join!(thumbnails, meanwhile) }).await;
}
