//! Parts of files, files that a client has already, and what the head says of them.

use std::time::Duration;

use super::{Answer, Ask, at, bytes, name};
use crate::{
    http2::Http2,
    on_both,
    world::{Client, Engine, World},
};

/// A request to the first node: a proxy may leave headers out.
async fn ask_node(
    world: &World,
    client: &Client,
    method: &'static str,
    path: &str,
    headers: &[(&str, &str)],
) -> Answer {
    let url = format!("{}{path}", world.nodes[0].url);
    Ask { method, url, token: Some(&client.token), headers, body: None }.send().await
}

on_both! {
    async fn parts_of_a_file(world) {
        let alice = world.user("alice").await;
        let file = bytes(1_000_000);
        let path = at(&world.upload(&alice, "video/mp4", &file).await);
        for (range, first, end) in [
            ("bytes=0-0", 0, 1),
            ("bytes=262143-262144", 262_143, 262_145),
            ("bytes=999999-", 999_999, 1_000_000),
            ("bytes=500000-9999999999", 500_000, 1_000_000),
            ("bytes=-5", 999_995, 1_000_000),
            ("bytes=0-", 0, 1_000_000),
        ] {
            let answer = ask_node(&world, &alice, "GET", &path, &[("range", range)]).await;
            assert_eq!(answer.status, 206, "{range}");
            assert_eq!(answer.header("content-range"), format!("bytes {first}-{}/1000000", end - 1));
            assert_eq!(answer.header("content-length"), (end - first).to_string());
            assert!(answer.bytes == file[first..end], "{range}");
        }
        // All of it, where it is not one part.
        for range in ["bytes=0-1,5-6", "bytes=9-3", "lines=1-2", "x"] {
            assert!(world.ask(&alice, &path, &[("range", range)]).await.file() == file, "{range}");
        }
        for range in ["bytes=1000000-", "bytes=-0"] {
            let answer = world.ask(&alice, &path, &[("range", range)]).await;
            assert_eq!((answer.status, answer.header("content-range")), (416, "bytes */1000000"), "{range}");
        }
        let tag = ask_node(&world, &alice, "HEAD", &path, &[]).await.header("etag").to_owned();
        let part = world.ask(&alice, &path, &[("range", "bytes=3-4"), ("if-range", &tag)]).await;
        assert_eq!((part.status, &part.bytes[..]), (206, &file[3..5]));
        let whole = world.ask(&alice, &path, &[("range", "bytes=3-4"), ("if-range", "\"another\"")]).await;
        assert!(whole.file() == file);
    }

    async fn who_has_a_file_does_not_get_it_again(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let path = at(&world.upload(&alice, "image/png", &bytes(1_000)).await);
        let first = ask_node(&world, &alice, "GET", &path, &[]).await;
        let tag = first.header("etag").to_owned();
        assert!(tag.starts_with('"') && tag.len() > 10, "{tag}");
        let again = ask_node(&world, &bob, "GET", &path, &[("if-none-match", &tag)]).await;
        assert_eq!((again.status, again.bytes.len(), again.header("etag")), (304, 0, tag.as_str()));
        let other = ask_node(&world, &bob, "GET", &path, &[("if-none-match", "\"x\"")]).await;
        assert_eq!(other.file(), bytes(1_000));
        // Equal bytes have one tag, whatever they are called.
        let twin = at(&world.upload(&bob, "image/png", &bytes(1_000)).await);
        assert_eq!(ask_node(&world, &bob, "GET", &twin, &[("if-none-match", &tag)]).await.status, 304);
        let different = at(&world.upload(&bob, "image/png", &bytes(1_001)).await);
        assert_eq!(ask_node(&world, &bob, "GET", &different, &[("if-none-match", &tag)]).await.status, 200);
    }

    async fn a_head_says_the_same_without_the_bytes(world) {
        let alice = world.user("alice").await;
        let path = at(&world.upload(&alice, "image/png", &bytes(1_000)).await);
        let whole = ask_node(&world, &alice, "GET", &path, &[]).await;
        let head = ask_node(&world, &alice, "HEAD", &path, &[("range", "bytes=0-0")]).await;
        assert_eq!((head.status, head.bytes.len()), (200, 0));
        for header in ["content-length", "content-type", "content-disposition", "etag", "accept-ranges", "cache-control"] {
            assert_eq!(head.header(header), whole.header(header), "{header}");
            assert!(!head.header(header).is_empty(), "{header}");
        }
        assert_eq!(head.header("content-length"), "1000");
    }

    async fn what_is_not_there_is_not_found(world) {
        let alice = world.user("alice").await;
        let uri = world.upload(&alice, "image/png", b"here").await;
        let id = name(&uri).strip_prefix("localhost/").unwrap();
        for path in ["localhost/nonesuch", &format!("elsewhere.example/{id}"), &format!("localhost/{id}x")] {
            alice.get(&at(&format!("mxc://{path}"))).await.refused(404, "M_NOT_FOUND");
            let thumbnail = format!("/_matrix/client/v1/media/thumbnail/{path}?width=32&height=32");
            alice.get(&thumbnail).await.refused(404, "M_NOT_FOUND");
        }
    }

    async fn guests_see_what_is_shown_to_them(world, config => { config.registration.guests = true; }) {
        let alice = world.user("alice").await;
        let uri = world.upload(&alice, "text/plain", b"for all").await;
        let guest = world.guest().await;
        assert_eq!(world.download(&guest, &uri).await.file(), b"for all");
        let refused = world.put_file(&guest, "POST", crate::media::UPLOAD, "text/plain", b"by a guest").await;
        refused.refused(403, "M_GUEST_ACCESS_FORBIDDEN");
    }
}

/// Whoever reads nothing of a file holds a part of it, and not for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_that_nobody_reads_on_is_cut_and_holds_little() {
    let world = World::on(Engine::Sqlite, |config| config.connections.patience_seconds = 1).await.unwrap();
    let alice = world.user("alice").await;
    let path = at(&world.upload(&alice, "video/mp4", &bytes(20_000_000)).await);
    let mut connection = Http2::connect(&world.url, 0).await;
    for _ in 0..10 {
        connection.get(&path, &alice.token).await;
    }
    let slow = "hearth_limits_struck_total{limit=\"slow_reader\"}";
    let cut = async {
        while world.metric(slow) < 10 {
            assert!(world.metric("hearth_held_bytes") <= 10 * 512 * 1024, "{}", world.metrics());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), cut).await.expect("nothing is cut");
    assert_eq!(world.metric("hearth_held_bytes"), 0);
    // Who reads gets it.
    assert_eq!(world.ask(&alice, &path, &[]).await.file().len(), 20_000_000);
}
