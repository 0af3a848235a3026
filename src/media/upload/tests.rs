//! Uploads and what is left of them, on each engine.

use futures_util::{
    TryStreamExt as _,
    future::{join, join_all, try_join},
};
use ruma::owned_server_name;

use super::*;
use crate::{
    app::App,
    ground::clock::millis,
    media::{
        library::Found,
        testing::{delete, item, new_user, read, refusal, stored, tally},
    },
    store::media_upkeep,
    testing::{World, user},
};

const KIB: usize = 1024;
const FILES: &str = "files";

async fn send(mut uploading: Uploading, bytes: &[u8]) -> Result<MediaUri> {
    for part in bytes.chunks(10_000) {
        uploading.write(Bytes::copy_from_slice(part)).await?;
    }
    uploading.finish(Some("text/plain"), Some("../a name.txt")).await
}

async fn upload(app: &App, user_id: &UserId, bytes: &[u8]) -> Result<MediaUri> {
    send(app.uploads.begin(user_id, None).await?, bytes).await
}

#[tokio::test]
async fn equal_bytes_are_stored_once_and_go_with_the_last_that_names_them() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let (alice, bob) = (new_user(app, "alice").await, new_user(app, "bob").await);
        let bytes = "a file of some length ".repeat(2_000).into_bytes();
        let first = upload(app, &alice, &bytes).await.unwrap();
        let place = stored(app, FILES).await;
        let (second, third) = Box::pin(try_join(upload(app, &bob, &bytes), upload(app, &alice, &bytes))).await.unwrap();
        assert_eq!((tally(app).await, stored(app, FILES).await), ((3, 1, 0), place));
        let now: i64 = app.clock.now().get().into();
        for (user_id, times) in [(&alice, 2), (&bob, 1)] {
            let mut conn = app.db.read().await.unwrap();
            let has = media::usage_of_user(&mut conn, user_id, now - 1).await.unwrap();
            let all = times * i64::try_from(bytes.len()).unwrap();
            assert_eq!((has.bytes, has.recent_bytes, has.count), (all, all, times));
        }
        for uri in [&first, &second] {
            assert_eq!(read(app, uri).await.as_ref(), Some(&bytes));
            assert!(delete(app, uri).await && !delete(app, uri).await);
            assert_eq!(read(app, uri).await, None);
        }
        assert_eq!((tally(app).await, read(app, &third).await), ((1, 1, 0), Some(bytes.clone())));
        let open = item(app, &third).await;
        assert_eq!((open.file_name.as_deref(), open.content_type.as_deref()), (Some("a name.txt"), Some("text/plain")));
        assert!(delete(app, &third).await);
        assert_eq!(tally(app).await, (0, 0, 1));
        // Whoever has found it before still reads it.
        let left = app.library.open(&open, 5..10).await.unwrap().try_collect::<Vec<_>>().await.unwrap().concat();
        assert_eq!(left, bytes[5..10]);
        // At another place than before, which is to be emptied.
        let again = upload(app, &bob, &bytes).await.unwrap();
        assert_eq!((tally(app).await, stored(app, FILES).await.len()), ((1, 1, 1), 2));
        assert_eq!(read(app, &again).await, Some(bytes));
        world.close().await;
    }
}

#[tokio::test]
async fn an_empty_file_is_a_file() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let alice = new_user(app, "alice").await;
        let uri = upload(app, &alice, b"").await.unwrap();
        assert_eq!(read(app, &uri).await, Some(Vec::new()));
        world.close().await;
    }
}

/// Uploads and deletions of the same bytes, on two nodes where there are two: each file that is there can be read, and
/// nothing is stored that no row names.
#[tokio::test]
async fn uploads_and_deletions_of_equal_bytes_never_miss_each_other() {
    let bytes = b"what everybody sends".repeat(100);
    let (world, other) = match World::two_nodes().await {
        Some((world, other)) => (world, Some(other)),
        None => (World::new().await, None),
    };
    let apps = [&world.app, other.as_ref().unwrap_or(&world.app)];
    let alice = new_user(&world.app, "alice").await;
    let mut there = Vec::new();
    for _ in 0..20 {
        let uploads = (0..4).map(|n| upload(apps[n % 2], &alice, &bytes));
        let gone = there.iter().enumerate().map(|(n, uri)| delete(apps[n % 2], uri));
        let (uploaded, deleted) = join(join_all(uploads), join_all(gone)).await;
        assert!(deleted.into_iter().all(|deleted| deleted));
        there = uploaded.into_iter().collect::<Result<Vec<_>>>().unwrap();
        for (n, uri) in there.iter().enumerate() {
            assert_eq!(read(apps[n % 2], uri).await.as_ref(), Some(&bytes));
        }
    }
    let (media, objects, removals) = tally(&world.app).await;
    assert_eq!((media, objects), (4, 1));
    assert_eq!(stored(&world.app, FILES).await.len(), usize::try_from(removals).unwrap() + 1);
    match other {
        Some(other) => world.close_both(other).await,
        None => world.close().await,
    }
}

#[tokio::test]
async fn nothing_is_left_of_what_was_not_finished_or_is_too_much() {
    let mut config = Config::default();
    config.media.max_upload_megabytes = 1;
    for world in World::on_each_engine_with(&config).await {
        let app = &world.app;
        let alice = new_user(app, "alice").await;
        let mut broken_off = app.uploads.begin(&alice, Some(10)).await.unwrap();
        broken_off.write(Bytes::from_static(b"half")).await.unwrap();
        drop(broken_off);
        let most = 1024 * 1024;
        assert_eq!(app.uploads.max_bytes(), most);
        assert_eq!(refusal(app.uploads.begin(&alice, Some(most + 1)).await), ErrorKind::TooLarge);
        // Who lies about the length is found out.
        let lying = app.uploads.begin(&alice, Some(1)).await.unwrap();
        assert_eq!(refusal(send(lying, &vec![1; 1024 * KIB + 1]).await), ErrorKind::TooLarge);
        assert_eq!((tally(app).await, stored(app, FILES).await.len()), ((0, 0, 0), 0));
        upload(app, &alice, &vec![1; 1024 * KIB]).await.unwrap();
        // An account that has ended meanwhile leaves nothing either, but for what is to be deleted.
        let late = app.uploads.begin(&alice, None).await.unwrap();
        app.accounts.deactivate(&alice, false).await.unwrap();
        assert!(matches!(refusal(send(late, b"late").await), ErrorKind::UnknownToken(_)));
        assert_eq!(tally(app).await, (1, 1, 1));
        world.close().await;
    }
}

#[tokio::test]
async fn a_user_uploads_so_much_a_day_and_has_so_much_in_all() {
    let mut config = Config::default();
    config.media.user_megabytes_per_day = Some(1);
    config.media.user_megabytes = Some(2);
    config.quotas.exempt_users = vec![user("root")];
    for world in World::on_each_engine_with(&config).await {
        let app = &world.app;
        let (alice, root) = (new_user(app, "alice").await, new_user(app, "root").await);
        let is_over =
            |kind: &ErrorKind| matches!(kind, ErrorKind::UserLimitExceeded(data) if !data.info_uri.is_empty());
        // All at once, and all different: as many as there is room for.
        let files: Vec<Vec<u8>> = (0..8).map(|n| vec![n; 300 * KIB]).collect();
        let uploads = join_all(files.iter().map(|file| upload(app, &alice, file))).await;
        assert_eq!(uploads.iter().filter(|uploaded| uploaded.is_ok()).count(), 3);
        for refused in uploads.into_iter().filter(Result::is_err) {
            assert!(is_over(&refusal(refused)));
        }
        let (media, objects, _) = tally(app).await;
        assert_eq!((media, objects), (3, 3));
        // Before the first byte.
        let declared = Some(u64::try_from(200 * KIB).unwrap());
        assert!(is_over(&refusal(app.uploads.begin(&alice, declared).await)));
        // Equal bytes count as well.
        assert!(is_over(&refusal(upload(app, &alice, &files[0]).await)));
        upload(app, &root, &files[0]).await.unwrap();
        world.clock.advance(Duration::from_hours(25));
        let second_day =
            [upload(app, &alice, &vec![20; 1000 * KIB]).await, upload(app, &alice, &vec![21; 50 * KIB]).await];
        assert!(second_day[0].is_ok() && second_day[1].is_err());
        world.clock.advance(Duration::from_hours(25));
        assert!(is_over(&refusal(upload(app, &alice, &vec![22; 200 * KIB]).await)));
        assert!(delete(app, second_day[0].as_ref().unwrap()).await);
        upload(app, &alice, &vec![22; 200 * KIB]).await.unwrap();
        world.close().await;
    }
}

#[tokio::test]
async fn a_server_takes_only_so_much() {
    let mut config = Config::default();
    config.media.server_megabytes_per_day = Some(1);
    for world in World::on_each_engine_with(&config).await {
        let app = &world.app;
        let (alice, bob) = (new_user(app, "alice").await, new_user(app, "bob").await);
        upload(app, &alice, &vec![1; 900 * KIB]).await.unwrap();
        let refused = refusal(upload(app, &bob, &vec![2; 200 * KIB]).await);
        assert!(matches!(refused, ErrorKind::UserLimitExceeded(_)), "{refused:?}");
        upload(app, &bob, &vec![2; 100 * KIB]).await.unwrap();
        world.close().await;
    }
}

#[tokio::test]
async fn a_server_takes_only_so_much_of_what_comes_at_once() {
    let mut config = Config::default();
    config.media.server_megabytes = Some(1);
    for world in World::on_each_engine_with(&config).await {
        let app = &world.app;
        let alice = new_user(app, "alice").await;
        let files: Vec<Vec<u8>> = (0..8).map(|n| vec![n; 300 * KIB]).collect();
        let uploads = join_all(files.iter().map(|file| upload(app, &alice, file))).await;
        assert_eq!(uploads.iter().filter(|uploaded| uploaded.is_ok()).count(), 3);
        world.close().await;
    }
}

/// Uploads that never end are on the disk, too.
#[tokio::test]
async fn what_a_user_is_sending_at_once_is_bounded() {
    let mut config = Config::default();
    config.media.user_megabytes_per_day = Some(1);
    let world = World::with(config).await;
    let app = &world.app;
    let (alice, bob) = (new_user(app, "alice").await, new_user(app, "bob").await);
    let part = |length: usize| Bytes::from(vec![7; length * KIB]);
    let mut first = app.uploads.begin(&alice, None).await.unwrap();
    first.write(part(900)).await.unwrap();
    let mut second = app.uploads.begin(&alice, None).await.unwrap();
    assert!(matches!(refusal(second.write(part(200)).await), ErrorKind::UserLimitExceeded(_)));
    app.uploads.begin(&bob, None).await.unwrap().write(part(200)).await.unwrap();
    drop(first);
    second.write(part(200)).await.unwrap();
    second.finish(None, None).await.unwrap();
    world.close().await;
}

#[tokio::test]
async fn something_is_uploaded_once_to_a_uri_that_was_made_before() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let (alice, bob) = (new_user(app, "alice").await, new_user(app, "bob").await);
        let Created { uri, unused_expires_at } = app.uploads.create(&alice).await.unwrap();
        assert_eq!(unused_expires_at, i64::from(app.clock.now().get()) + millis(Duration::from_hours(24)));
        assert!(matches!(app.library.find(&uri).await, Ok(Found::NotYet)));
        assert!(matches!(app.library.wait_for(&uri, Duration::ZERO).await, Ok(Found::NotYet)));
        assert_eq!(refusal(app.uploads.begin_into(&bob, &uri, None).await), ErrorKind::Forbidden);
        let elsewhere = MediaUri { server_name: owned_server_name!("elsewhere"), ..uri.clone() };
        let unknown = MediaUri { media_id: MediaId::parse("unknown").unwrap(), ..uri.clone() };
        for none in [&elsewhere, &unknown] {
            assert_eq!(refusal(app.uploads.begin_into(&alice, none, None).await), ErrorKind::NotFound);
        }
        // Whoever waits is woken. Of two who upload at once one is late.
        let (one, other) =
            join(app.uploads.begin_into(&alice, &uri, Some(3)), app.uploads.begin_into(&alice, &uri, None)).await;
        let waiting = app.library.wait_for(&uri, Duration::from_secs(30));
        let uploads = join(send(one.unwrap(), b"one"), send(other.unwrap(), b"other"));
        let (found, (one, other)) = Box::pin(join(waiting, uploads)).await;
        assert!(matches!(found.unwrap(), Found::Item(_)));
        let (won, lost, bytes) = match (one, other) {
            (Ok(won), lost) => (won, lost, "one"),
            (lost, won) => (won.unwrap(), lost, "other"),
        };
        assert_eq!((&won, refusal(lost)), (&uri, ErrorKind::CannotOverwriteMedia));
        assert_eq!(read(app, &uri).await, Some(bytes.as_bytes().to_vec()));
        assert_eq!(refusal(app.uploads.begin_into(&alice, &uri, None).await), ErrorKind::CannotOverwriteMedia);
        // What the late one wrote is to be deleted.
        assert_eq!(tally(app).await, (1, 1, 1));
        world.close().await;
    }
}

/// A node that has not received the upload looks by itself.
#[tokio::test]
async fn another_node_waits_for_an_upload_as_well() {
    let Some((world, other)) = World::two_nodes().await else { return };
    let alice = new_user(&world.app, "alice").await;
    let uri = world.app.uploads.create(&alice).await.unwrap().uri;
    let uploading = async {
        let uploading = world.app.uploads.begin_into(&alice, &uri, None).await.unwrap();
        send(uploading, b"from afar").await.unwrap();
    };
    let (found, ()) = join(other.library.wait_for(&uri, Duration::from_secs(30)), uploading).await;
    assert!(matches!(found.unwrap(), Found::Item(_)));
    assert_eq!(read(&other, &uri).await, Some(b"from afar".to_vec()));
    world.close_both(other).await;
}

#[tokio::test]
async fn a_user_has_few_unused_uris_and_they_expire() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let alice = new_user(app, "alice").await;
        let made = join_all((0..8).map(|_| app.uploads.create(&alice))).await;
        let (made, refused): (Vec<_>, Vec<_>) = made.into_iter().partition(Result::is_ok);
        assert_eq!((made.len(), refused.len()), (5, 3));
        for refused in refused {
            assert!(matches!(refusal(refused), ErrorKind::LimitExceeded(data) if data.retry_after.is_some()));
        }
        let uris: Vec<MediaUri> = made.into_iter().map(|made| made.unwrap().uri).collect();
        let into = app.uploads.begin_into(&alice, &uris[0], None).await.unwrap();
        send(into, b"something").await.unwrap();
        // That one is used, so there is room for another.
        app.uploads.create(&alice).await.unwrap();
        let late = app.uploads.begin_into(&alice, &uris[1], None).await.unwrap();
        world.clock.advance(Duration::from_hours(25));
        assert!(matches!(app.library.find(&uris[1]).await.unwrap(), Found::Absent));
        assert_eq!(refusal(app.uploads.begin_into(&alice, &uris[1], None).await), ErrorKind::NotFound);
        assert_eq!(refusal(send(late, b"too late").await), ErrorKind::NotFound);
        assert_eq!(read(app, &uris[0]).await, Some(b"something".to_vec()));
        app.uploads.create(&alice).await.unwrap();
        let mut tx = app.db.begin().await.unwrap();
        let now: i64 = app.clock.now().get().into();
        assert_eq!(media::delete_expired(&mut tx, now).await.unwrap(), 5);
        tx.commit().await.unwrap();
        world.close().await;
    }
}

#[tokio::test]
async fn what_is_quarantined_is_neither_found_nor_taken() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let (alice, bob) = (new_user(app, "alice").await, new_user(app, "bob").await);
        let (bad, good) = (upload(app, &alice, b"bad").await.unwrap(), upload(app, &alice, b"good").await.unwrap());
        let is_quarantined = async |uri: &MediaUri| matches!(app.library.find(uri).await.unwrap(), Found::Quarantined);
        let digest = item(app, &bad).await.object.digest.to_string();
        for (kind, name) in [(QuarantineKind::Digest, digest.as_str()), (QuarantineKind::User, alice.as_str())] {
            let mut tx = app.db.begin().await.unwrap();
            assert!(media_quarantine::insert(&mut tx, kind, name, 1).await.unwrap());
            tx.commit().await.unwrap();
            assert!(is_quarantined(&bad).await);
            assert_eq!(is_quarantined(&good).await, kind == QuarantineKind::User);
        }
        // Of both who want to, one may.
        assert_eq!(refusal(app.uploads.begin(&alice, None).await), ErrorKind::Forbidden);
        assert_eq!(refusal(app.uploads.create(&alice).await), ErrorKind::Forbidden);
        assert_eq!(refusal(upload(app, &bob, b"bad").await), ErrorKind::Forbidden);
        upload(app, &bob, b"good").await.unwrap();
        let mut tx = app.db.begin().await.unwrap();
        assert!(media_quarantine::delete(&mut tx, QuarantineKind::User, alice.as_str()).await.unwrap());
        assert!(media_upkeep::quarantine(&mut tx, good.columns(), "uri", true, 1).await.unwrap());
        tx.commit().await.unwrap();
        assert!(is_quarantined(&good).await && is_quarantined(&bad).await);
        upload(app, &alice, b"good").await.unwrap();
        world.close().await;
    }
}

/// The row says when media were last used, to a day, and only that they were is written.
#[tokio::test]
async fn uses_are_noted_to_a_day() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let alice = new_user(app, "alice").await;
        let uris = [upload(app, &alice, b"one").await.unwrap(), upload(app, &alice, b"two").await.unwrap()];
        let begun: i64 = app.clock.now().get().into();
        let unused = async |before: i64| {
            let mut conn = app.db.read().await.unwrap();
            media::list_unused(&mut conn, Origin::Upload, before, 10).await.unwrap().len()
        };
        world.clock.advance(Duration::from_hours(23));
        assert!(read(app, &uris[0]).await.is_some());
        app.library.flush_uses().await.unwrap();
        assert_eq!(unused(begun + 1).await, 2);
        world.clock.advance(Duration::from_hours(1));
        assert!(read(app, &uris[0]).await.is_some());
        app.library.flush_uses().await.unwrap();
        assert_eq!(unused(begun + 1).await, 1);
        // Used since: it stays.
        assert!(!app.library.delete_unused(&uris[0], begun).await.unwrap());
        assert!(app.library.delete_unused(&uris[1], begun).await.unwrap());
        assert_eq!(tally(app).await, (1, 1, 1));
        world.close().await;
    }
}
