//! Files that are looked at, on each engine.

use std::fs;

use futures_util::future::join_all;
use ruma::api::error::ErrorKind;
use tempfile::TempDir;

use super::*;
use crate::{
    app::App,
    config::Config,
    media::{
        library::{Found, Item, MediaUri},
        testing::{count, new_user, upload},
    },
    testing::World,
};

/// A program that notes each of its runs, and finds what has `EICAR` in it.
struct Program {
    folder: TempDir,
    config: ScannerConfig,
}

impl Program {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = "echo run >> \"$2\"; if grep -q EICAR \"$1\"; then exit 1; fi";
        let runs = folder.path().join("runs").display().to_string();
        let command = ["sh", "-c", script, "sh", "{}", &runs].map(str::to_owned).to_vec();
        Self { folder, config: ScannerConfig { command, clamd: None, timeout_seconds: 60 } }
    }

    fn runs(&self) -> usize {
        fs::read_to_string(self.folder.path().join("runs")).map_or(0, |runs| runs.lines().count())
    }
}

fn scanner(app: &App, config: &ScannerConfig) -> Scanner {
    let objects = app.library.objects().clone();
    Scanner::new((app.db.clone(), app.clock.clone()), objects, config, app.tasks.clone())
}

async fn item(app: &App, uri: &MediaUri) -> Item {
    match app.library.find(uri).await.unwrap() {
        Found::Item(item) => *item,
        other => panic!("{other:?}"),
    }
}

async fn receive(app: &App, bytes: &[u8]) -> Received {
    let mut incoming = app.library.objects().spool().begin().await.unwrap();
    incoming.write(bytes).await.unwrap();
    incoming.finish().await.unwrap()
}

fn is_forbidden<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Refused { kind: ErrorKind::Forbidden, .. }))
}

#[tokio::test]
async fn a_file_is_looked_at_once_however_many_ask_and_its_row_says_so() {
    for world in World::on_each_engine().await {
        let (app, program) = (&world.app, Program::new());
        let alice = new_user(app, "alice").await;
        let uri = upload(app, &alice, b"harmless").await.unwrap();
        let scanner = scanner(app, &program.config);
        let object = item(app, &uri).await.object;
        assert_eq!(object.scanned_at, None);
        let asked = join_all((0..10).map(|_| scanner.ensure_clean(&object))).await;
        assert!(asked.iter().all(Result::is_ok));
        assert_eq!(program.runs(), 1);
        // Who has read the row before finds out, and who reads it then need not ask.
        scanner.ensure_clean(&object).await.unwrap();
        let object = item(app, &uri).await.object;
        assert_eq!(object.scanned_at, Some(app.clock.now().get().into()));
        scanner.ensure_clean(&object).await.unwrap();
        assert_eq!(scanner.check(&receive(app, b"harmless").await).await.unwrap(), object.scanned_at);
        assert_eq!(program.runs(), 1);
        world.close().await;
    }
}

#[tokio::test]
async fn what_is_not_harmless_is_quarantined_whatever_way_it_comes() {
    for world in World::on_each_engine().await {
        let (app, program) = (&world.app, Program::new());
        let alice = new_user(app, "alice").await;
        // From before there was a scanner.
        let old = upload(app, &alice, b"an EICAR of old").await.unwrap();
        let scanner = scanner(app, &program.config);
        assert!(is_forbidden(&scanner.ensure_clean(&item(app, &old).await.object).await));
        assert!(matches!(app.library.find(&old).await.unwrap(), Found::Quarantined));
        assert!(is_forbidden(&scanner.check(&receive(app, b"a new EICAR").await).await));
        assert!(is_forbidden(&upload(app, &alice, b"a new EICAR").await), "it is known by its digest");
        world.close().await;
    }
}

#[tokio::test]
async fn uploads_are_looked_at_before_they_are_kept() {
    let program = Program::new();
    let mut config = Config::default();
    config.media.scanner = program.config.clone();
    for world in World::on_each_engine_with(&config).await {
        let app = &world.app;
        let alice = new_user(app, "alice").await;
        let uri = upload(app, &alice, b"harmless").await.unwrap();
        assert!(item(app, &uri).await.object.scanned_at.is_some());
        let before = count(app).await;
        assert!(is_forbidden(&upload(app, &alice, b"EICAR").await));
        assert_eq!(count(app).await, before, "nothing of it was stored");
        world.close().await;
    }
}

#[tokio::test]
async fn what_can_not_be_looked_at_is_not_served_until_it_can() {
    for world in World::on_each_engine().await {
        let (app, program) = (&world.app, Program::new());
        let alice = new_user(app, "alice").await;
        let uri = upload(app, &alice, b"harmless").await.unwrap();
        let object = item(app, &uri).await.object;
        let is_unavailable = |done: Result<()>| matches!(done, Err(Error::Unavailable(_)));
        let with = |command: &[&str], clamd: Option<&str>| ScannerConfig {
            command: command.iter().map(|&part| part.to_owned()).collect(),
            clamd: clamd.map(str::to_owned),
            timeout_seconds: 1,
        };
        let nowhere = format!("unix:{}", program.folder.path().join("nothing").display());
        let broken = [with(&["/nowhere/at/all"], None), with(&["sleep", "1000"], None), with(&[], Some(&nowhere))];
        for config in &broken {
            assert!(is_unavailable(scanner(app, config).ensure_clean(&object).await), "{config:?}");
            assert!(scanner(app, config).check(&receive(app, b"new").await).await.is_err());
        }
        assert!(matches!(app.library.find(&uri).await.unwrap(), Found::Item(_)));
        scanner(app, &program.config).ensure_clean(&object).await.unwrap();
        // Nobody is to look at anything.
        let none = scanner(app, &with(&[], None));
        assert_eq!(none.check(&receive(app, b"EICAR").await).await.unwrap(), None);
        world.close().await;
    }
}
