//! What other servers send, or don't, on each engine.

use std::{fs, io};

use bytes::Bytes;
use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{join, join_all, pending},
    stream,
};
use tokio::{sync::watch, time::sleep};

use super::*;
use crate::{
    app::App,
    ground::digest::Digest,
    media::{
        library::Item,
        quarantine::QuarantineTarget,
        testing::{Counted, count, quarantine, read, uri},
    },
    testing::World,
};

const WAIT: Duration = Duration::from_secs(20);
/// For tests in which nothing comes.
const LITTLE: Patience = Patience {
    upload: Duration::from_mins(1),
    answer: Duration::from_millis(50),
    stall: Duration::from_millis(50),
    whole: Duration::from_mins(1),
    bytes: Duration::from_mins(1),
};

type Answer = Result<Fetched, OriginError>;

/// Another server, which notes what it is asked for.
struct Fake {
    asked: Mutex<Vec<(MediaUri, Duration)>>,
    answer: Box<dyn Fn() -> BoxFuture<'static, Answer> + Send + Sync>,
}

impl OriginServers for Fake {
    fn fetch<'a>(&'a self, uri: &'a MediaUri, timeout: Duration) -> BoxFuture<'a, Answer> {
        self.asked.lock().push((uri.clone(), timeout));
        (self.answer)()
    }
}

impl Fake {
    fn new<F>(answer: impl Fn() -> F + Send + Sync + 'static) -> Arc<Self>
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        Arc::new(Self { asked: Mutex::default(), answer: Box::new(move || answer().boxed()) })
    }

    /// Sends `from afar`, whatever it is asked for.
    fn from_afar() -> Arc<Self> {
        Self::new(|| async { Ok(whole(b"from afar")) })
    }

    fn asked(&self) -> usize {
        self.asked.lock().len()
    }
}

fn fetched(parts: Vec<io::Result<Bytes>>, declared_bytes: Option<u64>) -> Fetched {
    Fetched {
        content_type: Some("Image/PNG".to_owned()),
        file_name: Some("../a\u{202e}name".to_owned()),
        declared_bytes,
        bytes: stream::iter(parts).boxed(),
    }
}

/// All of it, in two parts.
fn whole(bytes: &'static [u8]) -> Fetched {
    let (one, other) = bytes.split_at(bytes.len() / 2);
    fetched(vec![Ok(one.into()), Ok(other.into())], u64::try_from(bytes.len()).ok())
}

fn remote(app: &App, origin: &Arc<Fake>, patience: Patience) -> RemoteMedia {
    remote_with(app, origin, &app.config.media, patience)
}

fn remote_with(app: &App, origin: &Arc<Fake>, config: &MediaConfig, patience: Patience) -> RemoteMedia {
    let parts = (app.db.clone(), app.clock.clone());
    let origin: Arc<dyn OriginServers> = Arc::clone(origin) as _;
    let (library, here) = (app.library.clone(), app.server_name.clone());
    RemoteMedia::with_patience(parts, library, here, config, app.tasks.clone(), (Some(origin), patience))
}

fn item(found: Result<Found>) -> Item {
    match found.unwrap() {
        Found::Item(item) => *item,
        other => panic!("{other:?}"),
    }
}

/// The error code that a client would see, with its status.
fn relayed(found: Result<Found>) -> (u16, String) {
    match found {
        Err(Error::Relayed { status, errcode, .. }) => (status, errcode),
        other => panic!("{other:?}"),
    }
}

/// How many files are coming in.
fn spooled(app: &App) -> usize {
    let folders = fs::read_dir(app.config.data_dir.join("media-incoming")).unwrap();
    let files = folders.filter_map(|entry| fs::read_dir(entry.unwrap().path()).ok()).flatten();
    files.filter(|file| file.as_ref().unwrap().file_name() != "lock").count()
}

const NOTHING: Counted = Counted { media: 0, objects: 0, thumbnails: 0, removals: 0 };

#[tokio::test]
async fn something_is_fetched_once_however_many_ask() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let (open, gate) = watch::channel(false);
        let origin = Fake::new(move || {
            let mut gate = gate.clone();
            async move {
                gate.wait_for(|open| *open).await.unwrap();
                Ok(whole(b"from afar"))
            }
        });
        let remote = remote(app, &origin, Patience::default());
        let wanted = uri("far.org", "abc");
        // Who goes away does not end it.
        let asked = async {
            while origin.asked() == 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            found = remote.find(&wanted, WAIT, true) => panic!("{found:?}"),
            () = asked => {}
        }
        let asking = join_all((0..20).map(|_| remote.find(&wanted, WAIT, true)));
        let (found, ()) = join(asking, async { open.send(true).unwrap() }).await;
        for found in found {
            let item = item(found);
            assert_eq!((item.object.bytes, item.content_type.as_deref()), (9, Some("image/png")));
            assert!(!item.file_name.unwrap().contains(['/', '\u{202e}']));
        }
        assert_eq!(origin.asked(), 1);
        assert_eq!(read(app, &wanted).await, Some(b"from afar".to_vec()));
        item(remote.find(&wanted, WAIT, false).await);
        item(remote.find(&wanted, WAIT, true).await);
        assert_eq!(origin.asked(), 1);
        assert_eq!(count(app).await, Counted { media: 1, objects: 1, ..NOTHING });
        world.close().await;
    }
}

#[tokio::test]
async fn two_nodes_that_fetch_the_same_keep_it_once() {
    let Some((world, other)) = World::two_nodes().await else { return };
    let origin = Fake::from_afar();
    let wanted = uri("far.org", "abc");
    let remotes = [remote(&world.app, &origin, Patience::default()), remote(&other, &origin, Patience::default())];
    let found = join_all(remotes.iter().map(|remote| remote.find(&wanted, WAIT, true))).await;
    assert_eq!(found.into_iter().map(item).map(|item| item.object.bytes).collect::<Vec<_>>(), [9, 9]);
    let counted = count(&world.app).await;
    assert_eq!((counted.media, counted.objects), (1, 1));
    assert_eq!(read(&other, &wanted).await, Some(b"from afar".to_vec()));
    world.close_both(other).await;
}

#[tokio::test]
async fn other_servers_are_asked_only_for_what_is_theirs_and_only_where_that_is_wanted() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let origin = Fake::from_afar();
        let remote = remote(app, &origin, Patience::default());
        let far = uri("far.org", "abc");
        assert!(matches!(remote.find(&far, WAIT, false).await, Ok(Found::Absent)));
        assert!(matches!(remote.find(&uri("localhost", "abc"), WAIT, true).await, Ok(Found::Absent)));
        // Without federation there is only what is here.
        assert!(matches!(app.remote_library.find(&far, WAIT, true).await, Ok(Found::Absent)));
        assert_eq!((origin.asked(), count(app).await), (0, NOTHING));
        item(remote.find(&far, WAIT, true).await);
        item(app.remote_library.find(&far, WAIT, true).await);
        world.close().await;
    }
}

#[tokio::test]
async fn nothing_of_blocked_servers_is_fetched_or_served() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let origin = Fake::from_afar();
        let far = uri("far.org", "abc");
        item(remote(app, &origin, Patience::default()).find(&far, WAIT, true).await);
        let mut config = app.config.media.clone();
        config.blocked_servers = vec!["far.org".try_into().unwrap()];
        let blocking = remote_with(app, &origin, &config, Patience::default());
        for wanted in [&far, &uri("far.org", "other")] {
            assert!(matches!(blocking.find(wanted, WAIT, true).await, Ok(Found::Quarantined)));
        }
        item(blocking.find(&uri("near.org", "abc"), WAIT, true).await);
        // One that is quarantined is blocked on every node at once.
        let remote = remote(app, &origin, Patience::default());
        let target = QuarantineTarget::Server("far.org".try_into().unwrap());
        let report = quarantine(app).put(&target).await.unwrap();
        assert_eq!((report.media, report.bytes), (1, 9));
        for wanted in [&far, &uri("far.org", "other")] {
            assert!(matches!(remote.find(wanted, WAIT, true).await, Ok(Found::Quarantined)));
        }
        assert_eq!(origin.asked(), 2);
        quarantine(app).lift(&target).await.unwrap();
        item(remote.find(&far, WAIT, true).await);
        item(remote.find(&uri("far.org", "other"), WAIT, true).await);
        world.close().await;
    }
}

#[tokio::test]
async fn bytes_that_nobody_may_have_are_not_kept_and_not_fetched_again() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let origin = Fake::from_afar();
        let remote = remote(app, &origin, Patience::default());
        let target = QuarantineTarget::Digest(Digest::of(b"from afar"));
        quarantine(app).put(&target).await.unwrap();
        let far = uri("far.org", "abc");
        for _ in 0..2 {
            assert!(matches!(remote.find(&far, WAIT, true).await, Ok(Found::Quarantined)));
        }
        assert_eq!((origin.asked(), count(app).await), (1, Counted { media: 1, ..NOTHING }));
        quarantine(app).lift(&target).await.unwrap();
        assert_eq!(item(remote.find(&far, WAIT, true).await).object.bytes, 9);
        world.close().await;
    }
}

#[tokio::test]
async fn what_is_too_large_is_given_up_before_it_is_here() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let mut config = app.config.media.clone();
        config.max_upload_megabytes = 1;
        let declared = Fake::new(|| async {
            Ok(Fetched { bytes: stream::pending().boxed(), ..fetched(Vec::new(), Some(1024 * 1024 + 1)) })
        });
        let endless = Fake::new(|| async {
            let bytes = stream::repeat_with(|| Ok(Bytes::from_static(&[7; 1000]))).boxed();
            Ok(Fetched { bytes, ..fetched(Vec::new(), None) })
        });
        for origin in [&declared, &endless] {
            let remote = remote_with(app, origin, &config, Patience::default());
            let refused = relayed(remote.find(&uri("far.org", "abc"), WAIT, true).await);
            assert_eq!(refused, (502, "M_TOO_LARGE".to_owned()));
        }
        assert_eq!((count(app).await, spooled(app)), (NOTHING, 0));
        world.close().await;
    }
}

#[tokio::test]
async fn what_breaks_off_is_not_kept_and_comes_the_next_time() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        let broken = [
            Fake::new(move || async move { Ok(fetched(vec![Ok("half".into()), Err(reset())], None)) }),
            Fake::new(|| async { Ok(fetched(vec![Ok("half".into())], Some(8))) }),
            Fake::new(|| async { Ok(fetched(vec![Ok("more than that".into())], Some(8))) }),
            // Then nothing more.
            Fake::new(|| async {
                let bytes = stream::iter([Ok::<_, io::Error>(Bytes::from("half"))]).chain(stream::pending()).boxed();
                Ok(Fetched { bytes, ..fetched(Vec::new(), None) })
            }),
            Fake::new(pending),
            Fake::new(|| async { Err(OriginError::Unavailable("M_FORBIDDEN: who are you?".to_owned())) }),
        ];
        let far = uri("far.org", "abc");
        for origin in &broken {
            let found = remote(app, origin, LITTLE).find(&far, Duration::ZERO, true).await;
            // Whatever the other server has said.
            assert_eq!(relayed(found), (502, "M_UNKNOWN".to_owned()));
            assert_eq!((origin.asked(), count(app).await, spooled(app)), (1, NOTHING, 0));
        }
        let origin = Fake::from_afar();
        item(remote(app, &origin, LITTLE).find(&far, Duration::ZERO, true).await);
        world.close().await;
    }
}

#[tokio::test]
async fn it_is_said_that_there_is_nothing_or_nothing_yet() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let absent = Fake::new(|| async { Err(OriginError::Absent) });
        let far = uri("far.org", "abc");
        let found = remote(app, &absent, Patience::default()).find(&far, WAIT, true).await;
        assert!(matches!(found, Ok(Found::Absent)), "{found:?}");
        let not_yet = Fake::new(|| async { Err(OriginError::NotYet) });
        let waiting = remote(app, &not_yet, Patience::default());
        let found = waiting.find(&far, Duration::ZERO, true).await;
        assert!(matches!(found, Ok(Found::NotYet)), "{found:?}");
        // Nobody waits longer than a minute, and who has time left asks once more.
        let found = waiting.find(&far, Duration::MAX, true).await;
        assert!(matches!(found, Ok(Found::NotYet)), "{found:?}");
        let waits: Vec<Duration> = not_yet.asked.lock().iter().map(|(_, wait)| *wait).collect();
        assert_eq!((waits.len(), waits[0]), (3, Duration::ZERO));
        assert!(waits[1..].iter().all(|wait| (Duration::from_secs(50)..=Duration::from_mins(1)).contains(wait)));
        world.close().await;
    }
}

#[tokio::test]
async fn who_waits_for_slow_bytes_is_asked_to_try_again_and_finds_them_then() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let (open, gate) = watch::channel(false);
        let origin = Fake::new(move || {
            let mut gate = gate.clone();
            async move {
                let rest = async move { gate.wait_for(|open| *open).await.map(|_| Bytes::from_static(b"afar")) };
                let rest = stream::once(rest).map(|rest| rest.map_err(io::Error::other));
                let bytes = stream::iter([Ok(Bytes::from_static(b"from "))]).chain(rest).boxed();
                Ok(Fetched { bytes, ..fetched(Vec::new(), None) })
            }
        });
        let patience = Patience { answer: Duration::from_millis(20), bytes: Duration::ZERO, ..Patience::default() };
        let (remote, far) = (remote(app, &origin, patience), uri("far.org", "abc"));
        let found = remote.find(&far, Duration::from_millis(20), true).await;
        assert!(matches!(found, Err(Error::Unavailable(_))), "{found:?}");
        open.send(true).unwrap();
        while read(app, &far).await.is_none() {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(origin.asked(), 1);
        world.close().await;
    }
}
