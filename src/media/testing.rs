//! Files that come, are read and are counted, for tests.

use std::path::PathBuf;

use bytes::Bytes;
use futures_util::{FutureExt as _, TryStreamExt as _};
use ruma::{OwnedUserId, UserId, api::error::ErrorKind};

use super::{
    library::{self, Found, Item, MediaId, MediaUri, Origin},
    objects::Object,
    quarantine::Quarantine,
    spool::Received,
};
use crate::{
    app::App,
    db::{Tx, args, statements},
    error::{Error, Result},
    store::{
        media::{self, NewMedia},
        media_object,
        media_thumbnail::{self, StoredThumbnail},
    },
};

statements! {
    COUNT_ALL = "SELECT (SELECT COUNT(*) FROM media), (SELECT COUNT(*) FROM media_objects),
        (SELECT COUNT(*) FROM media_thumbnails), (SELECT COUNT(*) FROM media_removals)";
}

/// How many rows there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) media: i64,
    pub(crate) objects: i64,
    pub(crate) thumbnails: i64,
    pub(crate) removals: i64,
}

/// Somebody with an account.
pub(crate) async fn new_user(app: &App, name: &str) -> OwnedUserId {
    app.accounts.create_user(name, "a password", false).await.unwrap()
}

pub(crate) async fn upload(app: &App, user_id: &UserId, bytes: &[u8]) -> Result<MediaUri> {
    let mut uploading = app.uploads.begin(user_id, None).await?;
    uploading.write(Bytes::copy_from_slice(bytes)).await?;
    uploading.finish(Some("text/plain"), None).await
}

/// What a URI names, which somebody may have.
pub(crate) async fn item(app: &App, uri: &MediaUri) -> Item {
    match app.library.find(uri).await.unwrap() {
        Found::Item(item) => *item,
        other => panic!("{other:?}"),
    }
}

/// The bytes of what a URI names. None where nobody gets it.
pub(crate) async fn read(app: &App, uri: &MediaUri) -> Option<Vec<u8>> {
    let Found::Item(item) = app.library.find(uri).await.unwrap() else { return None };
    let stream = app.library.open(&item, 0..item.object.bytes).await.unwrap();
    let parts: Vec<Bytes> = stream.try_collect().await.unwrap();
    Some(parts.concat())
}

pub(crate) async fn count(app: &App) -> Counted {
    let row = app.db.read().await.unwrap().find(&COUNT_ALL, args![]).await.unwrap().unwrap();
    let count = |column| row.get(column).unwrap();
    Counted { media: count(0), objects: count(1), thumbnails: count(2), removals: count(3) }
}

/// How many media, objects and removals there are.
pub(crate) async fn tally(app: &App) -> (i64, i64, i64) {
    let Counted { media, objects, removals, .. } = count(app).await;
    (media, objects, removals)
}

/// Why something was refused.
pub(crate) fn refusal<T>(result: Result<T>) -> ErrorKind {
    match result {
        Err(Error::Refused { kind, .. }) => kind,
        Err(error) => panic!("broken: {error}"),
        Ok(_) => panic!("not refused"),
    }
}

/// Says false where a URI names nothing.
pub(crate) async fn delete(app: &App, uri: &MediaUri) -> bool {
    library::delete(&app.db, uri, app.clock.now().get().into()).await.unwrap()
}

/// As operators have it.
pub(crate) fn quarantine(app: &App) -> Quarantine {
    Quarantine::new(app.db.clone(), app.clock.clone(), app.server_name.clone())
}

/// Where everything is that a store has.
pub(crate) async fn stored(app: &App, store: &str) -> Vec<String> {
    let listed = app.library.objects().stores().list(store).unwrap().map_ok(|listed| listed.location);
    let mut locations: Vec<String> = listed.try_collect().await.unwrap();
    locations.sort();
    locations
}

/// Where the default store has its files.
pub(crate) fn media_folder(app: &App) -> PathBuf {
    app.config.data_dir.join("media")
}

pub(crate) fn uri(server_name: &str, media_id: &str) -> MediaUri {
    MediaUri { server_name: server_name.try_into().unwrap(), media_id: MediaId::parse(media_id).unwrap() }
}

/// Bytes that have come and are not kept yet.
pub(crate) async fn receive(app: &App, bytes: &[u8]) -> Received {
    let mut incoming = app.library.objects().spool().begin().await.unwrap();
    incoming.write(bytes).await.unwrap();
    incoming.finish().await.unwrap()
}

/// Adds media that name an object, whose row is locked.
pub(crate) async fn name(tx: &mut Tx, object: &Object, uri: &MediaUri, origin: Origin, now: i64) -> Result<()> {
    let (server_name, media_id) = uri.columns();
    let new = NewMedia {
        server_name,
        media_id,
        origin,
        user_id: None,
        digest: &object.digest,
        bytes: object.bytes,
        content_type: None,
        file_name: None,
        now,
    };
    assert!(media::insert(tx, &new).await?);
    Ok(())
}

/// Keeps bytes as media that have come in another way than by an upload.
pub(crate) async fn keep(app: &App, uri: &MediaUri, origin: Origin, bytes: &[u8]) -> Object {
    let (received, uri) = (receive(app, bytes).await, uri.clone());
    let now = app.clock.now().get().into();
    let kept = app.library.objects().keep(received, "text/plain", move |tx, object| {
        async move {
            name(tx, object, &uri, origin, now).await?;
            Ok(object.clone())
        }
        .boxed()
    });
    kept.await.unwrap()
}

/// Keeps bytes as a thumbnail of an object.
pub(crate) async fn keep_thumbnail(app: &App, object: &Object, variant: &str, bytes: &[u8]) {
    let received = receive(app, bytes).await;
    let place = app.library.objects().put(received.path()).await.unwrap().to_stored();
    let thumbnail = StoredThumbnail::Made { place, bytes: received.bytes, content_type: "image/png".to_owned() };
    let mut tx = app.db.begin().await.unwrap();
    media_object::lock(&mut tx, &object.digest).await.unwrap().unwrap();
    assert!(media_thumbnail::insert(&mut tx, &object.digest, variant, &thumbnail, 1).await.unwrap());
    tx.commit().await.unwrap();
}
