//! What happens between the last deletion of bytes and the next upload of them, and where bytes were lost.

use futures_util::future::{FutureExt as _, join};
use tokio::sync::oneshot;

use super::*;
use crate::{
    app::App,
    config::Config,
    media::{
        library::Origin,
        testing::{self, receive, tally, uri},
    },
    testing::World,
};

const BYTES: &[u8] = b"bytes that come and go";

async fn name(tx: &mut Tx, object: &Object, media_id: &str) -> Result<()> {
    testing::name(tx, object, &uri("localhost", media_id), Origin::Preview, 1).await
}

/// Keeps bytes under a media id.
async fn keep(app: &App, bytes: &[u8], media_id: &str) -> Object {
    testing::keep(app, &uri("localhost", media_id), Origin::Preview, bytes).await
}

async fn read_all(app: &App, object: &Object) -> Vec<u8> {
    let stream = app.library.objects().read(&object.place, object.bytes, 0..u64::MAX).await.unwrap();
    stream.try_collect::<Vec<_>>().await.unwrap().concat()
}

async fn stands(app: &App, digest: &Digest) -> Object {
    media_object::find(&mut app.db.read().await.unwrap(), digest).await.unwrap().unwrap().into()
}

/// Deletes media in a transaction that is still open.
async fn delete(app: &App, media_id: &str) -> Tx {
    let mut tx = app.db.begin().await.unwrap();
    let digest = media::delete(&mut tx, "localhost", media_id).await.unwrap().unwrap().digest.unwrap();
    Objects::let_go(&mut tx, &digest, 1).await.unwrap();
    tx
}

#[tokio::test]
async fn bytes_that_come_while_their_last_media_are_deleted_are_written_anew() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let before = keep(app, BYTES, "before").await;
        let tx = delete(app, "before").await;
        // Finds the object, whose row is locked by then, and waits: the deletion is committed meanwhile.
        let (after, committed) = join(keep(app, BYTES, "after"), tx.commit()).await;
        committed.unwrap();
        assert_ne!(after.place.location, before.place.location);
        assert_eq!((tally(app).await, read_all(app, &after).await), ((1, 1, 1), BYTES.to_vec()));
        world.close().await;
    }
}

#[tokio::test]
async fn media_that_are_deleted_while_others_of_their_bytes_come_leave_the_bytes() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let before = keep(app, BYTES, "before").await;
        let ((held, is_held), (go, gone)) = (oneshot::channel(), oneshot::channel());
        let received = receive(app, BYTES).await;
        let keeping = app.library.objects().keep(received, "text/plain", move |tx, object| {
            async move {
                name(tx, object, "after").await?;
                held.send(()).unwrap();
                gone.await.unwrap();
                Ok(object.clone())
            }
            .boxed()
        });
        let deleting = async {
            is_held.await.unwrap();
            let deleted = async { delete(app, "before").await.commit().await.unwrap() };
            join(deleted, async { go.send(()).unwrap() }).await;
        };
        let (after, ()) = join(keeping, deleting).await;
        assert_eq!(after.unwrap().place.location, before.place.location);
        assert_eq!((tally(app).await, read_all(app, &before).await), ((1, 1, 0), BYTES.to_vec()));
        world.close().await;
    }
}

/// Whoever hangs up in time would otherwise leave bytes that nobody is charged for.
#[tokio::test]
async fn what_is_being_kept_is_kept_although_whoever_sent_it_goes_away() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let ((held, is_held), (go, gone)) = (oneshot::channel(), oneshot::channel::<()>());
        let received = receive(app, BYTES).await;
        let keeping = app.library.objects().keep(received, "text/plain", move |tx, object| {
            async move {
                held.send(()).unwrap();
                gone.await.unwrap();
                name(tx, object, "first").await
            }
            .boxed()
        });
        let mut keeping = Box::pin(keeping);
        tokio::select! {
            _ = &mut keeping => panic!("it waits"),
            held = is_held => held.unwrap(),
        }
        drop(keeping);
        go.send(()).unwrap();
        // Waits for the first, which has the object.
        keep(app, BYTES, "second").await;
        let (media, objects, _) = tally(app).await;
        assert_eq!((media, objects), (2, 1));
        world.close().await;
    }
}

/// Neither sees that the other deletes as well until one of them has the object to itself.
#[tokio::test]
async fn of_two_who_delete_the_last_media_at_once_one_lets_the_bytes_go() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        for round in 0..10 {
            keep(app, BYTES, "one").await;
            keep(app, BYTES, "other").await;
            let delete = async |media_id| delete(app, media_id).await.commit().await.unwrap();
            join(delete("one"), delete("other")).await;
            assert_eq!(tally(app).await, (0, 0, round + 1));
        }
        world.close().await;
    }
}

#[tokio::test]
async fn what_is_refused_at_the_end_leaves_only_a_removal() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let objects = app.library.objects();
        let received = receive(app, BYTES).await;
        let kept = objects.keep(received, "text/plain", |tx, object| {
            async move {
                name(tx, object, "refused").await?;
                Err::<(), _>(Error::forbidden("no"))
            }
            .boxed()
        });
        assert!(matches!(kept.await, Err(Error::Refused { .. })));
        assert_eq!(tally(app).await, (0, 0, 1));
        world.close().await;
    }
}

/// As after a disk has been lost and the database has not.
#[tokio::test]
async fn bytes_that_were_lost_come_back_with_the_next_upload() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let objects = app.library.objects();
        let lost = keep(app, BYTES, "lost").await;
        objects.stores().delete(&lost.place.store, &lost.place.location).await.unwrap();
        assert!(objects.find_bytes(&lost.place, lost.bytes, 0..1).await.unwrap().is_none());
        assert!(objects.read(&lost.place, lost.bytes, 0..1).await.is_err());
        let again = keep(app, BYTES, "again").await;
        assert_ne!(again.place.location, lost.place.location);
        // For all that were made of them.
        assert_eq!(read_all(app, &stands(app, &lost.digest).await).await, BYTES);
        assert_eq!(tally(app).await, (2, 1, 1));
        world.close().await;
    }
}

/// Plain ones and encrypted ones.
#[tokio::test]
async fn objects_are_read_in_part_and_brought_back_as_files() {
    let (plain, mut encrypted) = (Config::default(), Config::default());
    encrypted.media.master_keys = vec![format!("one:{}=", "A".repeat(43)).try_into().unwrap()];
    for config in [plain, encrypted] {
        for world in World::on_each_engine_with(&config).await {
            are_read_in_part_and_brought_back(&world.app).await;
            world.close().await;
        }
    }
}

async fn are_read_in_part_and_brought_back(app: &App) {
    let objects = app.library.objects();
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let object = keep(app, &bytes, "long").await;
    assert_eq!(object.place.sealed.is_some(), objects.keys().current().is_some());
    let reversed = Range { start: 5, end: 2 };
    for range in [0..0, 0..1, 7..100_000, 1_199_999..1_200_000, 1_199_990..u64::MAX, 1_200_000..1_200_001, reversed] {
        let stream = objects.read(&object.place, object.bytes, range.clone()).await.unwrap();
        let read = stream.try_collect::<Vec<_>>().await.unwrap().concat();
        let places = [range.start, range.end].map(|place| usize::try_from(place).unwrap().min(bytes.len()));
        assert_eq!(read, bytes.get(places[0]..places[1]).unwrap_or_default(), "{range:?}");
    }
    let received = objects.fetch_to_spool(&object).await.unwrap();
    assert_eq!((received.digest, received.bytes), (object.digest, object.bytes));
    assert_eq!(std::fs::read(received.path()).unwrap(), bytes);
    let wrong = Object { digest: Digest::of(b"others"), ..object };
    assert!(objects.fetch_to_spool(&wrong).await.is_err());
}
