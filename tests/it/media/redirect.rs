//! Bytes that pass by the server: clients get them from the object store, or from a CDN.

use std::io::Cursor;

use hearth::config::{Config, MediaRedirect};
use image::{ImageFormat, RgbImage};

use super::{Ask, OLD, at, bytes, name, s3_server};
use crate::on_both;

fn sign(config: &mut Config) {
    s3_server::start(config);
    config.media.redirect = MediaRedirect::Signed;
}

fn cdn(config: &mut Config) {
    config.media.redirect = MediaRedirect::Cdn;
    config.media.cdn_url = Some("https://cdn.example.org/media".to_owned().try_into().unwrap());
}

on_both! {
    async fn files_come_from_the_object_store(world, config => { sign(config); }) {
        let alice = world.user("alice").await;
        let file = bytes(300_000);
        let uri = world.upload(&alice, "image/png", &file).await;
        assert_eq!(world.files("media"), 0);
        let answer = world.download(&alice, &uri).await;
        assert_eq!((answer.status, answer.bytes.len()), (307, 0));
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert_eq!(answer.header("cache-control"), "no-store");
        let url = answer.header("location").to_owned();
        assert!(url.starts_with("http://127.0.0.1:") && url.contains("X-Amz-Expires=300"), "{url}");
        assert!(url.contains("response-content-disposition=inline"), "{url}");
        let stored = Ask { method: "GET", url: url.clone(), token: None, headers: &[], body: None }.send().await;
        assert!(stored.file() == file);
        // It is signed for a GET, so what a file says of itself it says here.
        // Asked of a node itself: the balancer of these tests has no length of what has no body.
        let url_here = format!("{}{}", world.nodes[0].url, at(&uri));
        let head = Ask { method: "HEAD", url: url_here, token: Some(&alice.token), headers: &[], body: None }.send().await;
        assert_eq!((head.status, head.header("content-length")), (200, "300000"));
        // Nobody changes what is signed.
        let other = url.replace("X-Amz-Expires=300", "X-Amz-Expires=3000");
        let refused = Ask { method: "GET", url: other, token: None, headers: &[], body: None }.send().await;
        assert_eq!(refused.status, 403);
        // From here, if that is what a client wants.
        assert!(world.ask(&alice, &format!("{}?allow_redirect=false", at(&uri)), &[]).await.file() == file);
    }

    async fn so_do_thumbnails(world, config => { sign(config); }) {
        let alice = world.user("alice").await;
        let mut picture = Cursor::new(Vec::new());
        RgbImage::new(500, 500).write_to(&mut picture, ImageFormat::Png).unwrap();
        let uri = world.upload(&alice, "image/png", &picture.into_inner()).await;
        let path = format!("/_matrix/client/v1/media/thumbnail/{}?width=32&height=32&method=crop", name(&uri));
        let answer = world.ask(&alice, &path, &[]).await;
        assert_eq!(answer.status, 307, "{}", String::from_utf8_lossy(&answer.bytes));
        let url = answer.header("location").to_owned();
        let thumbnail = Ask { method: "GET", url, token: None, headers: &[], body: None }.send().await.file();
        assert_eq!(image::load_from_memory(&thumbnail).unwrap().width(), 32);
    }

    async fn what_is_encrypted_in_the_store_comes_from_here(world, config => {
        sign(config);
        let key = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [7_u8; 32]);
        config.media.master_keys = vec![format!("first:{key}").try_into().unwrap()];
    }) {
        let alice = world.user("alice").await;
        let file = bytes(200_000);
        let uri = world.upload(&alice, "image/png", &file).await;
        assert!(world.download(&alice, &uri).await.file() == file);
        let part = world.ask(&alice, &at(&uri), &[("range", "bytes=65530-131080")]).await;
        assert_eq!(part.status, 206);
        assert!(part.bytes == file[65_530..131_081]);
    }

    async fn old_clients_are_asked_first(world, config => {
        sign(config);
        config.media.open_until = 4_000_000_000_000;
    }) {
        let alice = world.user("alice").await;
        let uri = world.upload(&alice, "image/png", b"of old").await;
        let path = format!("{OLD}/download/{}", name(&uri));
        assert_eq!(world.ask_as_stranger(&path).await.file(), b"of old");
        assert_eq!(world.ask_as_stranger(&format!("{path}?allow_redirect=false")).await.file(), b"of old");
        assert_eq!(world.ask_as_stranger(&format!("{path}?allow_redirect=true")).await.status, 307);
    }

    async fn files_come_from_a_cdn(world, config => { cdn(config); }) {
        let alice = world.user("alice").await;
        let uri = world.upload(&alice, "image/png", b"for many").await;
        let answer = world.download(&alice, &uri).await;
        assert_eq!(answer.status, 307);
        assert_eq!(answer.header("location"), format!("https://cdn.example.org/media/{}", name(&uri)));
        // As the CDN asks.
        let kept = world.ask(&alice, &format!("{}?allow_redirect=false", at(&uri)), &[]).await;
        assert_eq!(kept.header("cache-control"), "public, max-age=86400, immutable");
        assert_eq!(kept.file(), b"for many");
        // By another name than the CDN has it.
        let named = world.ask(&alice, &format!("{}/picture.png", at(&uri)), &[]).await;
        assert_eq!(named.header("cache-control"), "private, max-age=86400, immutable");
        assert_eq!(named.file(), b"for many");
        // Nobody is sent to what is not there.
        alice.get(&at("mxc://localhost/nonesuch")).await.refused(404, "M_NOT_FOUND");
    }
}
