//! Thumbnails of what users have uploaded, on each engine.

use bytes::Bytes;
use futures_util::{TryStreamExt as _, future::join_all};
use image::ImageFormat;
use ruma::{OwnedUserId, UserId};

use super::*;
use crate::{
    app::App,
    config::Config,
    db::{args, statements},
    media::{
        library::{Found, MediaUri},
        testing::delete,
        thumbnail::{choose, examples},
    },
    testing::World,
};

statements! {
    COUNT_THUMBNAILS = "SELECT (SELECT COUNT(*) FROM media_thumbnails WHERE store IS NOT NULL),
        (SELECT COUNT(*) FROM media_thumbnails WHERE failure IS NOT NULL), (SELECT COUNT(*) FROM media_removals)";
}

async fn new_user(app: &App) -> OwnedUserId {
    app.accounts.create_user("alice", "a password", false).await.unwrap()
}

async fn upload(app: &App, user_id: &UserId, bytes: Vec<u8>) -> Item {
    let mut uploading = app.uploads.begin(user_id, None).await.unwrap();
    uploading.write(Bytes::from(bytes)).await.unwrap();
    item(app, &uploading.finish(None, None).await.unwrap()).await
}

async fn item(app: &App, uri: &MediaUri) -> Item {
    let Found::Item(item) = app.library.find(uri).await.unwrap() else { panic!("it is there") };
    *item
}

fn picture() -> Vec<u8> {
    examples::encode(&examples::quarters(640, 480), ImageFormat::Png)
}

async fn made(app: &App, item: &Item) -> Made {
    let Thumb::Made(made) = app.thumbnails.find_or_make(item, choose(320, 240, None, false)).await.unwrap() else {
        panic!("there is a thumbnail")
    };
    made
}

async fn refusal(app: &App, item: &Item) -> ErrorKind {
    match app.thumbnails.find_or_make(item, choose(32, 32, None, true)).await {
        Err(Error::Refused { kind, .. }) => kind,
        other => panic!("{other:?}"),
    }
}

/// How many thumbnails, failures and removals there are.
async fn count(app: &App) -> (i64, i64, i64) {
    let row = app.db.read().await.unwrap().find(&COUNT_THUMBNAILS, args![]).await.unwrap().unwrap();
    (row.get(0).unwrap(), row.get(1).unwrap(), row.get(2).unwrap())
}

#[tokio::test]
async fn a_thumbnail_is_made_once_however_many_ask() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let alice = new_user(app).await;
        let (first, second) = (upload(app, &alice, picture()).await, upload(app, &alice, picture()).await);
        let all = join_all([&first, &second, &first, &second, &first].map(|item| made(app, item))).await;
        assert_eq!(count(app).await, (1, 0, 0));
        assert!(all.iter().all(|made| made.place.location == all[0].place.location));
        let (content_type, bytes) = (all[0].content_type.as_str(), all[0].bytes);
        let parts: Vec<Bytes> = app.thumbnails.open(&all[0], 0..bytes).await.unwrap().try_collect().await.unwrap();
        let image = image::load_from_memory(&parts.concat()).unwrap();
        assert_eq!((content_type, image.width(), image.height()), ("image/jpeg", 320, 240));
        let part: Vec<Bytes> = app.thumbnails.open(&all[0], 10..30).await.unwrap().try_collect().await.unwrap();
        assert_eq!(part.concat(), parts.concat()[10..30]);
        // Nothing is left of the work.
        assert!(app.thumbnails.0.making.is_empty());
        world.close().await;
    }
}

#[tokio::test]
async fn a_thumbnail_goes_with_the_last_of_what_it_shows() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let alice = new_user(app).await;
        let (first, second) = (upload(app, &alice, picture()).await, upload(app, &alice, picture()).await);
        made(app, &first).await;
        assert!(delete(app, &first.uri).await);
        assert_eq!(count(app).await, (1, 0, 0));
        assert!(delete(app, &second.uri).await);
        assert_eq!(count(app).await, (0, 0, 2));
        // Whoever has found it before asks for a thumbnail of nothing.
        let gone = app.thumbnails.find_or_make(&second, choose(32, 32, None, false)).await;
        assert!(matches!(gone, Err(Error::Refused { kind: ErrorKind::NotFound, .. })), "{gone:?}");
        assert_eq!(count(app).await, (0, 0, 2));
        world.close().await;
    }
}

#[tokio::test]
async fn what_can_not_be_made_is_tried_once() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let alice = new_user(app).await;
        let mut bomb = upload(app, &alice, examples::png_of_size(50_000, 50_000)).await;
        let broken = upload(app, &alice, examples::png_of_size(500, 500)).await;
        let small = upload(app, &alice, examples::encode(&examples::quarters(20, 20), ImageFormat::Png)).await;
        for _ in 0..2 {
            assert_eq!(refusal(app, &bomb).await, ErrorKind::TooLarge);
            assert_eq!(refusal(app, &broken).await, ErrorKind::Unknown);
            let original = app.thumbnails.find_or_make(&small, choose(32, 32, None, true)).await.unwrap();
            assert!(matches!(original, Thumb::Original), "{original:?}");
            assert_eq!(count(app).await, (0, 3, 0));
        }
        bomb.origin = Origin::Remote;
        let refused = app.thumbnails.find_or_make(&bomb, choose(32, 32, None, true)).await;
        assert!(matches!(refused, Err(Error::Relayed { status: 502, .. })), "{refused:?}");
        world.close().await;
    }
}

#[tokio::test]
async fn what_is_no_picture_is_not_looked_at() {
    let world = World::new().await;
    let app = &world.app;
    let alice = new_user(app).await;
    let text = upload(app, &alice, b"just words".to_vec()).await;
    assert_eq!(refusal(app, &text).await, ErrorKind::Unknown);
    assert_eq!(count(app).await, (0, 0, 0));
    world.close().await;
}

#[tokio::test]
async fn a_thumbnail_that_was_lost_is_made_anew() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let alice = new_user(app).await;
        let item = upload(app, &alice, picture()).await;
        let lost = made(app, &item).await;
        let stores = app.library.objects().stores();
        stores.delete(&lost.place.store, &lost.place.location).await.unwrap();
        let opened = app.thumbnails.open(&lost, 0..lost.bytes).await;
        assert!(matches!(opened, Err(Error::Unavailable(_))));
        let again = made(app, &item).await;
        assert_ne!(again.place.location, lost.place.location);
        assert!(app.thumbnails.open(&again, 0..again.bytes).await.is_ok());
        world.close().await;
    }
}

#[tokio::test]
async fn a_program_makes_the_picture_of_a_video() {
    let folder = tempfile::tempdir().unwrap();
    let frame = folder.path().join("frame");
    std::fs::write(&frame, examples::encode(&examples::quarters(32, 24), ImageFormat::Png)).unwrap();
    let mut config = Config::default();
    // The video has to be there, or nothing is written.
    let script = format!("test -s \"$1\" && cat '{}'", frame.display());
    config.media.video_thumbnailer = ["sh", "-c", &script, "sh", "{}"].map(str::to_owned).into();
    let world = World::with(config).await;
    let app = &world.app;
    let alice = new_user(app).await;
    let mut video = upload(app, &alice, b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom and so on".to_vec()).await;
    video.object.sniffed_type = "video/mp4".to_owned();
    // Also where the picture is as small as what is wanted: it is not the video.
    let made = made(app, &video).await;
    assert_eq!(made.content_type, "image/jpeg");
    world.close().await;
}

#[test]
fn what_is_done_follows_from_what_the_bytes_look_like() {
    for (sniffed_type, expected) in [
        ("image/jpeg", Way::Picture),
        ("image/tiff", Way::Picture),
        ("image/gif", Way::Animation),
        ("image/avif", Way::Original),
        ("image/heif", Way::Original),
        ("image/svg+xml", Way::Nothing),
        ("text/html", Way::Nothing),
        ("video/mp4", Way::Video),
    ] {
        assert_eq!(way(sniffed_type, true), expected, "{sniffed_type}");
    }
    assert_eq!(way("video/mp4", false), Way::Nothing);
}

#[test]
fn a_reason_is_short_and_a_database_takes_it() {
    let why = reason(&NoThumbnail::Broken(format!("a\0b\n{}", "\u{1f4cd}".repeat(1000))));
    assert_eq!(why.chars().count(), BROKEN.len() + MAX_REASON);
    assert!(why.starts_with("broken: ab\u{1f4cd}"));
    assert!(matches!(failed(&why, Way::Picture, Origin::Upload), Err(Error::Refused { kind: ErrorKind::Unknown, .. })));
}
