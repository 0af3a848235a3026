//! What goes in time, and what a sweep finds, on each engine.

use std::{
    fs::{self, File},
    path::Path,
    time::SystemTime,
};

use futures_util::future::join_all;
use ruma::OwnedUserId;

use super::*;
use crate::{
    app::App,
    config::Config,
    media::{
        library::{Found, MediaUri, Origin},
        quarantine::QuarantineTarget,
        testing::{
            Counted, count, delete, item, keep, keep_thumbnail, media_folder, new_user, quarantine, read, receive,
            stored, upload, uri,
        },
    },
    store::{media, url_preview},
    testing::World,
};

const DAY: Duration = Duration::from_hours(24);
const LATER: Duration = Duration::from_mins(11);
const FILES: &str = "files";

/// A file in a store, as old as that.
fn write(app: &App, location: &str, bytes: &[u8], age: Duration) {
    let path = media_folder(app).join(location);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    set_age(app, &path, age);
}

/// By the clock of the test, which is not the machine's.
fn set_age(app: &App, path: &Path, age: Duration) {
    let now = Duration::from_millis(u64::from(app.clock.now().get()));
    File::options().write(true).open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH + now - age).unwrap();
}

async fn sweep(app: &App, older_than: Duration, delete: bool) -> SweepReport {
    let mut steps = 0;
    let report = app.upkeep.sweep(FILES, older_than, delete, &mut |_| steps += 1).await.unwrap();
    assert!(steps > 0 || report == SweepReport::default());
    report
}

/// Somebody asks for it.
async fn ask(app: &App, uri: &MediaUri) {
    assert!(matches!(app.library.find(uri).await.unwrap(), Found::Item(_)));
    app.library.flush_uses().await.unwrap();
}

/// Without asking for it.
async fn is_there(app: &App, uri: &MediaUri) -> bool {
    let mut conn = app.db.read().await.unwrap();
    let (server_name, media_id) = uri.columns();
    media::find(&mut conn, server_name, media_id).await.unwrap().is_some()
}

async fn upload_each(app: &App, user_id: &OwnedUserId, files: &[&[u8]]) -> Vec<MediaUri> {
    let mut uris = Vec::new();
    for bytes in files {
        uris.push(upload(app, user_id, bytes).await.unwrap());
    }
    uris
}

#[test]
fn a_location_is_known_by_its_form() {
    let name = "0123456789abcdef0123456789abcdef";
    assert!(is_location(&format!("ab/0f/{name}")));
    let wrong = [
        "README".to_owned(),
        format!("ab/{name}"),
        format!("ab/0f/0f/{name}"),
        format!("ab/0g/{name}"),
        format!("ab/0f/{name}0"),
        format!("AB/0f/{name}"),
    ];
    for location in wrong {
        assert!(!is_location(&location), "{location}");
    }
}

#[tokio::test]
async fn a_sweep_deletes_what_no_row_names_and_finds_what_is_lost() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let alice = new_user(app, "alice").await;
        assert_eq!(sweep(app, DAY, true).await, SweepReport::default());
        let uris = upload_each(app, &alice, &[b"whole", b"gone", b"cut off"]).await;
        keep_thumbnail(app, &item(app, &uris[0]).await.object, "32x32-crop", b"small").await;
        for location in stored(app, FILES).await {
            set_age(app, &media_folder(app).join(location), 10 * DAY);
        }
        let left = |n: u8| format!("ab/cd/{n:032x}");
        write(app, &left(1), b"left", 2 * DAY);
        write(app, &left(2), b"left again", 2 * DAY);
        write(app, &left(3), b"on its way", DAY / 2);
        write(app, "somebody/has_put/this_here", b"foreign", 9 * DAY);
        // What is to be deleted anyhow is not found.
        let deleted = upload(app, &alice, b"deleted").await.unwrap();
        assert!(delete(app, &deleted).await);
        let (gone, cut) = (item(app, &uris[1]).await.object, item(app, &uris[2]).await.object);
        fs::remove_file(media_folder(app).join(&gone.place.location)).unwrap();
        fs::write(media_folder(app).join(&cut.place.location), b"cut").unwrap();

        let found = sweep(app, DAY, false).await;
        assert_eq!((found.unnamed, found.unnamed_bytes, found.deleted, found.foreign), (3, 24, 0, 1), "{found:?}");
        assert_eq!((found.stored, found.rows, found.lost, found.lost_thumbnails), (7, 4, 2, 0), "{found:?}");
        let mut losses: Vec<_> = found.losses.iter().map(|loss| (loss.digest, loss.uri.clone())).collect();
        losses.sort();
        let mut wanted = vec![(gone.digest, Some(uris[1].to_string())), (cut.digest, Some(uris[2].to_string()))];
        wanted.sort();
        assert_eq!(losses, wanted);
        let done = sweep(app, DAY, true).await;
        assert_eq!((done.unnamed, done.deleted, done.deleted_bytes), (3, 2, 14), "{done:?}");
        // However young it is said to be.
        let done = sweep(app, Duration::ZERO, true).await;
        assert_eq!((done.unnamed, done.deleted), (1, 1), "{done:?}");
        write(app, &left(4), b"new", Duration::from_mins(30));
        assert_eq!(sweep(app, Duration::ZERO, true).await.deleted, 0);
        assert_eq!(sweep(app, DAY, false).await.foreign, 1);
        assert_eq!(read(app, &uris[0]).await, Some(b"whole".to_vec()));
        fs::remove_file(media_folder(app).join(left(4))).unwrap();
        world.close().await;
    }
}

/// Bytes may be long on their way, and the store's clock another.
#[tokio::test]
async fn what_is_reserved_is_not_swept_and_goes_if_nothing_comes_of_it() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let objects = app.library.objects();
        let received = receive(app, b"on its way").await;
        let place = objects.put(received.path()).await.unwrap();
        objects.reserve(&place).await.unwrap();
        set_age(app, &media_folder(app).join(&place.location), 2 * DAY);
        let swept = sweep(app, DAY, true).await;
        assert_eq!((swept.unnamed, swept.deleted), (0, 0), "{swept:?}");
        world.clock.advance(6 * DAY);
        app.upkeep.tidy().await.unwrap();
        assert_eq!(stored(app, FILES).await.len(), 1);
        world.clock.advance(2 * DAY);
        app.upkeep.tidy().await.unwrap();
        assert_eq!((stored(app, FILES).await.len(), count(app).await.removals), (0, 0));
        world.close().await;
    }
}

#[tokio::test]
async fn what_can_not_be_deleted_does_not_keep_the_rest() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let alice = new_user(app, "alice").await;
        let mut tx = app.db.begin().await.unwrap();
        for n in 0..=100_u8 {
            let location = format!("ab/cd/{n:032x}");
            // No file.
            fs::create_dir_all(media_folder(app).join(&location)).unwrap();
            media_object::insert_removal(&mut tx, FILES, &location, 0).await.unwrap();
        }
        tx.commit().await.unwrap();
        let gone = upload(app, &alice, b"bytes").await.unwrap();
        assert!(delete(app, &gone).await);
        world.clock.advance(LATER);
        assert!(app.upkeep.tidy().await.is_err());
        for _ in 0..20 {
            if app.upkeep.tidy().await.is_ok() {
                break;
            }
        }
        assert_eq!((stored(app, FILES).await.len(), count(app).await.removals), (0, 101));
        world.close().await;
    }
}

#[tokio::test]
async fn a_sweep_knows_how_long_encrypted_bytes_are() {
    let mut config = Config::default();
    config.media.master_keys = vec![format!("one:{}=", "A".repeat(43)).try_into().unwrap()];
    for world in World::on_each_engine_with(&config).await {
        let app = &world.app;
        let alice = new_user(app, "alice").await;
        upload_each(app, &alice, &[b"whole", &vec![7; 200_000]]).await;
        let found = sweep(app, DAY, true).await;
        assert_eq!((found.rows, found.lost, found.unnamed), (2, 0, 0), "{found:?}");
        world.close().await;
    }
}

#[tokio::test]
async fn an_unknown_store_is_not_swept() {
    let world = World::new().await;
    let swept = world.app.upkeep.sweep("none", DAY, true, &mut |_| {}).await;
    assert!(swept.is_err());
    world.close().await;
}

#[tokio::test]
async fn what_was_deleted_stays_for_whoever_reads_it_and_goes_then() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let alice = new_user(app, "alice").await;
        let gone = upload(app, &alice, b"bytes").await.unwrap();
        let stays = upload(app, &alice, b"others").await.unwrap();
        assert!(delete(app, &gone).await);
        // In a store that is not there any more.
        let mut tx = app.db.begin().await.unwrap();
        media_object::insert_removal(&mut tx, "a store of old", "ab/cd/e", 0).await.unwrap();
        tx.commit().await.unwrap();
        app.upkeep.tidy().await.unwrap();
        assert_eq!((stored(app, FILES).await.len(), count(app).await.removals), (2, 2));
        world.clock.advance(LATER);
        app.upkeep.tidy().await.unwrap();
        assert_eq!((stored(app, FILES).await.len(), count(app).await.removals), (1, 1));
        assert_eq!(read(app, &stays).await, Some(b"others".to_vec()));
        // What is gone already is gone.
        assert!(delete(app, &stays).await);
        fs::remove_file(media_folder(app).join(&stored(app, FILES).await[0])).unwrap();
        world.clock.advance(LATER);
        app.upkeep.tidy().await.unwrap();
        assert_eq!(count(app).await, Counted { media: 0, objects: 0, thumbnails: 0, removals: 1 });
        world.close().await;
    }
}

#[tokio::test]
async fn what_nobody_has_uploaded_to_and_old_previews_expire() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let alice = new_user(app, "alice").await;
        app.uploads.create(&alice).await.unwrap();
        let now = i64::from(app.clock.now().get());
        let mut tx = app.db.begin().await.unwrap();
        url_preview::insert(&mut tx, ("https://a.org", "en"), "{}", now, now + 1_000).await.unwrap();
        tx.commit().await.unwrap();
        app.upkeep.tidy().await.unwrap();
        assert_eq!(count(app).await.media, 1);
        world.clock.advance(2 * DAY);
        app.upkeep.tidy().await.unwrap();
        assert_eq!(count(app).await.media, 0);
        // Asked for as of before, so that it is the row that has gone.
        let preview = url_preview::find(&mut app.db.read().await.unwrap(), "https://a.org", "en", now).await.unwrap();
        assert_eq!(preview, None);
        world.close().await;
    }
}

#[tokio::test]
async fn media_live_as_long_as_somebody_asks_for_them() {
    let mut config = Config::default();
    config.media.local_lifetime_days = Some(30);
    config.media.remote_lifetime_days = Some(10);
    for world in World::on_each_engine_with(&config).await {
        let app = &world.app;
        let alice = new_user(app, "alice").await;
        let local = upload_each(app, &alice, &[b"asked for", b"forgotten", b"quarantined"]).await;
        let remote = [uri("far.org", "asked_for"), uri("far.org", "forgotten")];
        for uri in &remote {
            keep(app, uri, Origin::Remote, uri.media_id.as_str().as_bytes()).await;
        }
        let preview = uri("localhost", "preview");
        keep(app, &preview, Origin::Preview, b"a page's").await;
        quarantine(app).put(&QuarantineTarget::Media(local[2].clone())).await.unwrap();
        world.clock.advance(7 * DAY);
        ask(app, &remote[0]).await;
        ask(app, &local[0]).await;
        world.clock.advance(4 * DAY);
        app.upkeep.tidy().await.unwrap();
        assert!(is_there(app, &remote[0]).await && !is_there(app, &remote[1]).await);
        assert!(!is_there(app, &preview).await);
        assert!(is_there(app, &local[0]).await && is_there(app, &local[1]).await);
        world.clock.advance(20 * DAY);
        app.upkeep.tidy().await.unwrap();
        let there = [&local[0], &local[1], &local[2], &remote[0]].map(|uri| is_there(app, uri));
        assert_eq!(join_all(there).await, [true, false, true, false]);
        world.clock.advance(LATER);
        app.upkeep.tidy().await.unwrap();
        assert_eq!((stored(app, FILES).await.len(), count(app).await.objects), (2, 2));
        world.close().await;
    }
}

#[tokio::test]
async fn other_servers_media_take_no_more_than_they_may_and_those_used_last_stay() {
    let mut config = Config::default();
    config.media.remote_megabytes = 1;
    config.media.remote_lifetime_days = None;
    for world in World::on_each_engine_with(&config).await {
        let app = &world.app;
        let alice = new_user(app, "alice").await;
        let own = upload(app, &alice, &vec![9; 900 * 1024]).await.unwrap();
        let uris: Vec<MediaUri> = (0..4).map(|n| uri("far.org", &n.to_string())).collect();
        for (n, uri) in uris.iter().enumerate() {
            keep(app, uri, Origin::Remote, &vec![u8::try_from(n).unwrap(); 400 * 1024]).await;
            world.clock.advance(2 * DAY);
        }
        ask(app, &uris[0]).await;
        app.upkeep.tidy().await.unwrap();
        let there = uris.iter().map(|uri| is_there(app, uri));
        assert_eq!(join_all(there).await, [true, false, false, true]);
        assert!(is_there(app, &own).await);
        // It is counted now and then only.
        keep(app, &uris[1], Origin::Remote, &vec![1; 400 * 1024]).await;
        app.upkeep.tidy().await.unwrap();
        assert!(is_there(app, &uris[3]).await);
        world.clock.advance(LATER);
        app.upkeep.tidy().await.unwrap();
        let there = uris.iter().map(|uri| is_there(app, uri));
        assert_eq!(join_all(there).await, [true, true, false, false]);
        world.close().await;
    }
}
