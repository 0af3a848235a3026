//! Thumbnails of every kind, as clients get them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#thumbnails>

use std::io::Cursor;

use futures_util::future::join_all;
use image::{DynamicImage, Frame, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage, codecs::gif::GifEncoder};

use super::{Answer, at, name};
use crate::{
    on_both,
    world::{Client, World},
};

/// A picture without transparency, red above and blue below.
fn opaque(width: u32, height: u32) -> DynamicImage {
    RgbImage::from_fn(width, height, |_, y| if y < height / 2 { Rgb([250, 0, 0]) } else { Rgb([0, 0, 250]) }).into()
}

fn half_clear(width: u32, height: u32) -> DynamicImage {
    RgbaImage::from_fn(width, height, |x, _| Rgba([0, 200, 0, if x < width / 2 { 0 } else { 255 }])).into()
}

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, format).unwrap();
    file.into_inner()
}

fn moving(width: u32, height: u32) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = GifEncoder::new(&mut file);
    for shade in [0, 100, 200] {
        encoder.encode_frame(Frame::new(RgbaImage::from_pixel(width, height, Rgba([shade, 0, 0, 255])))).unwrap();
    }
    drop(encoder);
    file
}

async fn ask(world: &World, client: &Client, uri: &str, query: &str) -> Answer {
    world.ask(client, &format!("/_matrix/client/v1/media/thumbnail/{}?{query}", name(uri)), &[]).await
}

/// The type and the size of a thumbnail, which has to be one.
async fn made(world: &World, client: &Client, uri: &str, query: &str) -> (String, u32, u32) {
    let answer = ask(world, client, uri, query).await;
    let kind = answer.header("content-type").to_owned();
    assert_eq!(answer.header("content-disposition").split(';').next(), Some("inline"), "{query}");
    let file = answer.file();
    let picture = image::load_from_memory(&file).unwrap();
    (kind, picture.width(), picture.height())
}

on_both! {
    async fn pictures_of_every_kind_become_smaller(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        for (format, kind) in [
            (ImageFormat::Jpeg, "image/jpeg"),
            (ImageFormat::Png, "image/png"),
            (ImageFormat::Bmp, "image/bmp"),
            (ImageFormat::Tiff, "image/tiff"),
            (ImageFormat::WebP, "image/webp"),
            (ImageFormat::Gif, "image/gif"),
        ] {
            let uri = world.upload(&alice, kind, &encoded(&opaque(1_000, 500), format)).await;
            let scaled = made(&world, &bob, &uri, "width=320&height=240&method=scale").await;
            assert_eq!((scaled.1, scaled.2), (320, 160), "{kind}");
            let cropped = made(&world, &bob, &uri, "width=96&height=96&method=crop").await;
            assert_eq!((cropped.1, cropped.2), (96, 96), "{kind}");
            // Without a method it is what the specification lists.
            let listed = made(&world, &bob, &uri, "width=32&height=32").await;
            assert_eq!((listed.1, listed.2), (32, 32), "{kind}");
        }
    }

    async fn the_type_is_by_what_is_seen(world) {
        let alice = world.user("alice").await;
        let scale = "width=320&height=240&method=scale";
        let uri = world.upload(&alice, "image/png", &encoded(&opaque(700, 500), ImageFormat::Png)).await;
        assert_eq!(made(&world, &alice, &uri, scale).await.0, "image/jpeg");
        let uri = world.upload(&alice, "image/png", &encoded(&half_clear(700, 500), ImageFormat::Png)).await;
        assert_eq!(made(&world, &alice, &uri, scale).await.0, "image/png");
        // What it is called is of no matter.
        let uri = world.upload(&alice, "text/html", &encoded(&opaque(701, 500), ImageFormat::Png)).await;
        assert_eq!(made(&world, &alice, &uri, scale).await.0, "image/jpeg");
        let uri = world.upload(&alice, "image/gif", &moving(700, 500)).await;
        assert_ne!(made(&world, &alice, &uri, scale).await.0, "image/gif");
        assert_ne!(made(&world, &alice, &uri, &format!("{scale}&animated=false")).await.0, "image/gif");
        let moves = ask(&world, &alice, &uri, &format!("{scale}&animated=true")).await;
        assert_eq!(moves.header("content-type"), "image/gif");
    }

    async fn what_is_small_is_the_original(world) {
        let alice = world.user("alice").await;
        let small = encoded(&opaque(20, 10), ImageFormat::Png);
        let uri = world.upload(&alice, "image/png", &small).await;
        assert!(ask(&world, &alice, &uri, "width=96&height=96&method=crop").await.file() == small);
        assert!(ask(&world, &alice, &uri, "width=4000&height=4000").await.file() == small);
    }

    /// What can't be read here is served as it is, and shown in place only if it may be.
    async fn what_is_not_read_here_is_shown_by_its_own_type(world) {
        let alice = world.user("alice").await;
        let heif = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic";
        let uri = world.upload(&alice, "image/png", heif).await;
        let answer = ask(&world, &alice, &uri, "width=320&height=240&method=scale").await;
        let said = (answer.header("content-type"), answer.header("content-disposition"));
        assert_eq!(said, ("image/heif", "attachment"));
        assert_eq!(answer.file(), heif);
    }

    async fn one_is_made_once_however_many_ask(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let file = encoded(&opaque(1_200, 900), ImageFormat::Jpeg);
        let uri = world.upload(&alice, "image/jpeg", &file).await;
        let query = "width=320&height=240&method=scale";
        let answers = join_all((0..12).map(|_| ask(&world, &bob, &uri, query))).await;
        let tag = answers[0].header("etag").to_owned();
        let first = answers[0].bytes.clone();
        for answer in answers {
            assert_eq!(answer.header("etag"), tag);
            assert!(answer.file() == first);
        }
        // It is another file than the original, and equal pictures share it.
        assert_ne!(world.download(&bob, &uri).await.header("etag"), tag);
        let twin = world.upload(&bob, "image/jpeg", &file).await;
        let path = format!("/_matrix/client/v1/media/thumbnail/{}?{query}", name(&twin));
        assert_eq!(world.ask(&alice, &path, &[("if-none-match", &tag)]).await.status, 304);
        let part = world.ask(&alice, &path, &[("range", "bytes=0-1")]).await;
        assert_eq!((part.status, &part.bytes[..]), (206, &first[..2]));
    }

    /// Trap: decoders, decompression bombs.
    async fn what_is_no_picture_has_no_thumbnail(world) {
        let alice = world.user("alice").await;
        let query = "width=320&height=240&method=scale";
        for (kind, file) in [
            ("text/plain", b"hello".as_slice()),
            ("image/png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
            ("image/png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
            ("image/jpeg", b"\xff\xd8\xff\xe0cut short"),
        ] {
            let uri = world.upload(&alice, kind, file).await;
            ask(&world, &alice, &uri, query).await.refused(400, "M_UNKNOWN");
            // It can be downloaded as ever.
            assert_eq!(world.ask(&alice, &at(&uri), &[]).await.file(), file);
        }
        let mut huge = encoded(&opaque(100, 100), ImageFormat::Bmp);
        // Of fifty thousand pixels each way, as far as it says.
        huge[18..22].copy_from_slice(&50_000_u32.to_le_bytes());
        huge[22..26].copy_from_slice(&50_000_u32.to_le_bytes());
        let uri = world.upload(&alice, "image/bmp", &huge).await;
        let refused = ask(&world, &alice, &uri, query).await.reply();
        assert!([(413, "M_TOO_LARGE"), (400, "M_UNKNOWN")].contains(&(refused.status, refused.body["errcode"].as_str().unwrap())));
    }

    async fn wishes_that_make_no_sense(world) {
        let alice = world.user("alice").await;
        let uri = world.upload(&alice, "image/png", &encoded(&opaque(100, 100), ImageFormat::Png)).await;
        for query in ["width=0&height=10", "width=-1&height=10", "width=1.5&height=10", "width=10", "width=10&height=10&method=melt"]
        {
            let refused = ask(&world, &alice, &uri, query).await.reply();
            assert_eq!(refused.status, 400, "{query}: {}", refused.body);
        }
    }
}
