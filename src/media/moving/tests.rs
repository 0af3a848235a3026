//! Media move and are there all the while, on each engine.

use std::{collections::BTreeMap, fs, path::Path};

use futures_util::{TryStreamExt as _, future::join};
use tempfile::TempDir;

use super::*;
use crate::{
    app::App,
    config::{Config, MediaConfig, MediaStoreConfig},
    ground::random::Random,
    media::{
        library::{Found, Item, Library, MediaUri},
        objects::{Objects, STILL_READ},
        seal::MasterKeys,
        testing::{count, item, keep_thumbnail, new_user, read, stored, upload},
    },
    testing::World,
};

/// Two folders.
fn stores(folder: &Path) -> Vec<MediaStoreConfig> {
    ["one", "two"]
        .map(|name| MediaStoreConfig {
            name: name.to_owned(),
            path: Some(folder.join(name)),
            bucket: None,
            endpoint: None,
            region: None,
            prefix: None,
            access_key_id: None,
            secret_access_key: None,
        })
        .to_vec()
}

/// One with each engine, each with folders of its own.
async fn worlds(change: impl Fn(&mut MediaConfig)) -> Vec<(World, TempDir)> {
    let mut worlds = Vec::new();
    let engines = Box::pin(World::on_each_engine()).await;
    let count = engines.len();
    for world in engines {
        world.close().await;
    }
    for engine in 0..count {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.media.stores = stores(folder.path());
        change(&mut config.media);
        let mut made = Box::pin(World::on_each_engine_with(&config)).await;
        let world = made.swap_remove(engine);
        for other in made {
            other.close().await;
        }
        worlds.push((world, folder));
    }
    worlds
}

fn master(id: &str, letter: &str) -> String {
    format!("{id}:{}=", letter.repeat(42) + "A")
}

fn with_keys(keys: &[String]) -> MediaConfig {
    let master_keys = keys.iter().map(|key| key.clone().try_into().unwrap()).collect();
    MediaConfig { master_keys, ..MediaConfig::default() }
}

/// As a process has it that was started with other keys.
fn upkeep_with(app: &App, config: &MediaConfig) -> (Library, MediaUpkeep) {
    let before = app.library.objects();
    let parts = (app.db.clone(), app.clock.clone(), Random::system());
    let (stores, spool) = (before.stores().clone(), before.spool().clone());
    let (metrics, tasks) = (app.metrics.clone(), app.tasks.clone());
    let objects = Objects::new(parts, stores, spool, MasterKeys::of(config), metrics, tasks);
    let library = Library::new(app.db.clone(), objects, app.clock.clone());
    let parts = (app.db.clone(), app.clock.clone());
    let upkeep = MediaUpkeep::new(parts, library.clone(), (config, &app.config.url_previews));
    (library, upkeep)
}

async fn read_with(library: &Library, uri: &MediaUri) -> Result<Vec<u8>> {
    let Found::Item(item) = library.find(uri).await? else { panic!("it is gone") };
    let parts: Vec<_> = library.open(&item, 0..item.object.bytes).await?.try_collect().await.map_err(Error::broken)?;
    Ok(parts.concat())
}

#[tokio::test]
async fn media_move_while_they_are_read_and_are_not_where_they_were() {
    for (world, _folder) in worlds(|_| ()).await {
        let app = &world.app;
        let alice = new_user(app, "alice").await;
        let mut files = BTreeMap::new();
        for n in 0..10_u8 {
            let bytes = vec![n; usize::from(n) * 30_000];
            files.insert(upload(app, &alice, &bytes).await.unwrap(), bytes);
        }
        let (longest, all) = files.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
        let open = item(app, longest).await;
        keep_thumbnail(app, &open.object, "32x32-crop", b"small").await;
        assert_eq!((stored(app, "one").await.len(), stored(app, "two").await.len()), (11, 0));

        let (mut steps, mut last) = (0_u64, MoveReport::default());
        let mut progress = |report: &MoveReport| {
            steps += 1;
            last = *report;
        };
        let reading = async {
            for (uri, bytes) in &files {
                assert_eq!(read(app, uri).await.as_ref(), Some(bytes));
            }
        };
        let (moved, ()) = join(app.upkeep.move_media("one", "two", &mut progress), reading).await;
        let moved = moved.unwrap();
        assert_eq!((moved.objects, moved.thumbnails, moved.failed, moved.of_objects), (10, 1, 0, 10));
        assert_eq!((moved.bytes, moved.of_bytes), (45 * 30_000 + 5, 45 * 30_000));
        assert_eq!((last, steps), (moved, 12));
        for (uri, bytes) in &files {
            assert_eq!(read(app, uri).await.as_ref(), Some(bytes));
            assert_eq!(item(app, uri).await.object.place.store, "two");
        }
        // Whoever has found it before reads it, also when its old place is empty.
        assert_eq!(read_all(app, &open).await, *all);
        assert_eq!(count(app).await.removals, 11);
        world.clock.advance(STILL_READ);
        app.upkeep.tidy().await.unwrap();
        assert_eq!((stored(app, "one").await.len(), stored(app, "two").await.len()), (0, 11));
        assert_eq!(read_all(app, &open).await, *all);
        // There is nothing left to do.
        let again = app.upkeep.move_media("one", "two", &mut |_| {}).await.unwrap();
        assert_eq!(again, MoveReport::default());
        world.close().await;
    }
}

async fn read_all(app: &App, item: &Item) -> Vec<u8> {
    let parts: Vec<_> = app.library.open(item, 0..u64::MAX).await.unwrap().try_collect().await.unwrap();
    parts.concat()
}

#[tokio::test]
async fn what_is_lost_or_damaged_stays_and_holds_up_nothing() {
    for (world, folder) in worlds(|_| ()).await {
        let app = &world.app;
        let alice = new_user(app, "alice").await;
        let mut uris = Vec::new();
        for bytes in [&b"whole"[..], b"lost", b"damaged", b"cut off"] {
            uris.push(upload(app, &alice, bytes).await.unwrap());
        }
        let place = |location: &str| folder.path().join("one").join(location);
        fs::remove_file(place(&item(app, &uris[1]).await.object.place.location)).unwrap();
        fs::write(place(&item(app, &uris[2]).await.object.place.location), b"damages").unwrap();
        fs::write(place(&item(app, &uris[3]).await.object.place.location), b"cut").unwrap();
        let moved = app.upkeep.move_media("one", "two", &mut |_| {}).await.unwrap();
        assert_eq!((moved.objects, moved.failed, moved.bytes), (1, 3, 5));
        for (uri, store) in uris.iter().zip(["two", "one", "one", "one"]) {
            assert_eq!(item(app, uri).await.object.place.store, store);
        }
        assert_eq!((count(app).await.removals, stored(app, "two").await.len()), (1, 1));
        world.close().await;
    }
}

#[tokio::test]
async fn there_and_here_are_two_stores_that_there_are() {
    for (world, _folder) in worlds(|_| ()).await {
        for (from, to) in [("one", "three"), ("three", "two"), ("one", "one")] {
            let refused = world.app.upkeep.move_media(from, to, &mut |_| {}).await;
            assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
        }
        world.close().await;
    }
}

/// Two operators begin at once, or one begins again what has not ended.
#[tokio::test]
async fn who_moves_what_another_has_moved_leaves_it_there() {
    for (world, _folder) in worlds(|_| ()).await {
        let app = &world.app;
        let alice = new_user(app, "alice").await;
        let mut files = Vec::new();
        for n in 0..8_u8 {
            files.push((upload(app, &alice, &[n]).await.unwrap(), vec![n]));
        }
        let (mut one, mut other) = (|_: &MoveReport| {}, |_: &MoveReport| {});
        let moves =
            join(app.upkeep.move_media("one", "two", &mut one), app.upkeep.move_media("one", "two", &mut other));
        let (one, other) = moves.await;
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!((one.objects + other.objects, one.failed + other.failed), (8, 0));
        for (uri, bytes) in &files {
            assert_eq!(read(app, uri).await.as_ref(), Some(bytes));
        }
        world.clock.advance(STILL_READ);
        app.upkeep.tidy().await.unwrap();
        assert_eq!((stored(app, "one").await.len(), stored(app, "two").await.len()), (0, 8));
        for (uri, bytes) in &files {
            assert_eq!(read(app, uri).await.as_ref(), Some(bytes));
        }
        world.close().await;
    }
}

#[tokio::test]
async fn keys_are_sealed_anew_and_the_old_master_key_is_needed_no_more() {
    let (old, new) = (master("old", "B"), master("new", "C"));
    for (world, _folder) in worlds(|config| config.master_keys = with_keys(&[master("old", "B")]).master_keys).await {
        let app = &world.app;
        let alice = new_user(app, "alice").await;
        let bytes = vec![7; 100_000];
        let uri = upload(app, &alice, &bytes).await.unwrap();
        let object = item(app, &uri).await.object;
        keep_thumbnail(app, &object, "32x32-crop", b"small").await;
        let before = stored(app, "one").await;

        let (both, upkeep) = upkeep_with(app, &with_keys(&[new.clone(), old.clone()]));
        let rotated = upkeep.rotate(&mut |_| {}).await.unwrap();
        assert_eq!(rotated, RotateReport { objects: 1, thumbnails: 1, failed: 0 });
        assert_eq!(upkeep.rotate(&mut |_| {}).await.unwrap(), RotateReport::default());
        assert_eq!(stored(app, "one").await, before, "no bytes are touched");
        let (only_new, _) = upkeep_with(app, &with_keys(std::slice::from_ref(&new)));
        for library in [&both, &only_new] {
            assert_eq!(read_with(library, &uri).await.unwrap(), bytes);
        }
        // Without the key that they are sealed with.
        assert!(read_with(&app.library, &uri).await.is_err());
        let failed = app.upkeep.rotate(&mut |_| {}).await.unwrap();
        assert_eq!(failed, RotateReport { objects: 0, thumbnails: 0, failed: 2 });
        let moved = app.upkeep.move_media("one", "two", &mut |_| {}).await.unwrap();
        assert_eq!((moved.objects, moved.failed), (0, 2));
        assert_eq!(read_with(&only_new, &uri).await.unwrap(), bytes);
        let (_, none) = upkeep_with(app, &with_keys(&[]));
        assert!(matches!(none.rotate(&mut |_| {}).await, Err(Error::Refused { .. })));
        world.close().await;
    }
}

/// What was plain is encrypted where it comes to.
#[tokio::test]
async fn plain_media_are_encrypted_when_they_move() {
    for (world, folder) in worlds(|_| ()).await {
        let app = &world.app;
        let alice = new_user(app, "alice").await;
        let uri = upload(app, &alice, b"plain words").await.unwrap();
        let (library, upkeep) = upkeep_with(app, &with_keys(&[master("new", "C")]));
        upkeep.move_media("one", "two", &mut |_| {}).await.unwrap();
        let object = item(app, &uri).await.object;
        assert!(object.place.sealed.is_some());
        let stored = fs::read(folder.path().join("two").join(&object.place.location)).unwrap();
        assert!(!stored.windows(5).any(|part| part == b"plain"));
        assert_eq!(read_with(&library, &uri).await.unwrap(), b"plain words");
        world.close().await;
    }
}
