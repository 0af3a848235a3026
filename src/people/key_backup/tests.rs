//! The rules of replacement against a model, and what is counted of a backup.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::future::join_all;
use proptest::prelude::*;
use ruma::{OwnedUserId, api::error::ErrorKind};
use serde_json::{json, value::to_raw_value};

use super::*;
use crate::{
    app::App,
    db::{args, statements},
    testing::World,
};

statements! {
    COUNT_ALL = "SELECT COUNT(*), (SELECT COUNT(*) FROM key_backups) FROM key_backup_sessions";
}

const ROOMS: [&str; 3] = ["!a:localhost", "!b:localhost", "!c:localhost"];
const SESSIONS: usize = 5;

fn room(n: usize) -> &'static RoomId {
    <&RoomId>::try_from(ROOMS[n % ROOMS.len()]).unwrap()
}

fn standing(is_verified: bool, first_message_index: i64, forwarded_count: i64) -> Standing {
    Standing { first_message_index, forwarded_count, is_verified }
}

/// `text` makes keys differ that stand alike.
fn key(room_id: &RoomId, session: usize, standing: Standing, text: &str) -> SessionKey {
    let session_data = to_raw_value(&json!({ "ciphertext": text })).unwrap();
    let data = KeyBackupData { standing, session_data };
    SessionKey { room_id: room_id.to_owned(), session_id: format!("session {session}"), data }
}

/// Keys of so many sessions of one room.
fn keys(count: usize) -> Vec<SessionKey> {
    (0..count).map(|n| key(room(0), n, standing(false, 0, 0), "as it is")).collect()
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    match result {
        Err(Error::Refused { kind, .. }) => kind,
        other => panic!("not refused: {other:?}"),
    }
}

async fn new_user(app: &App) -> OwnedUserId {
    app.accounts.create_user("alice", "a password", false).await.unwrap()
}

async fn new_backup(app: &App, user_id: &UserId) -> String {
    app.key_backups.create(user_id, "m.some", &to_raw_value(&json!({})).unwrap()).await.unwrap().to_string()
}

/// All keys of a backup, or of a room in it.
async fn read_all(app: &App, user_id: &UserId, version: &str, room_id: Option<&RoomId>) -> Vec<SessionKey> {
    let mut all: Vec<SessionKey> = Vec::new();
    loop {
        let page = app.key_backups.page(user_id, version, room_id, all.last()).await.unwrap();
        all.extend(page.keys);
        if page.is_last {
            return all;
        }
    }
}

#[test]
fn of_two_keys_the_one_stays_that_the_specification_says() {
    // Each is better than all that follow.
    let order = [
        standing(true, 0, 0),
        standing(true, 0, 1),
        standing(true, 1, 0),
        standing(true, 7, 9),
        standing(false, 0, 0),
        standing(false, 0, 5),
        standing(false, 2, 0),
    ];
    for (n, better) in order.iter().enumerate() {
        for (m, worse) in order.iter().enumerate() {
            assert_eq!(is_better(*better, *worse), n < m, "{better:?} and {worse:?}");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Room, session, standing, text.
    Put(Vec<(usize, usize, Standing, u8)>),
    DeleteKey(usize, usize),
    DeleteRoom(usize),
    DeleteAll,
}

fn step() -> impl Strategy<Value = Step> {
    let standings = (any::<bool>(), 0_i64..3, 0_i64..3);
    let standings = standings.prop_map(|(verified, index, forwarded)| standing(verified, index, forwarded));
    let key = (0..ROOMS.len(), 0..SESSIONS, standings, any::<u8>());
    prop_oneof![
        8 => prop::collection::vec(key, 0..12).prop_map(Step::Put),
        2 => (0..ROOMS.len(), 0..SESSIONS).prop_map(|(room, session)| Step::DeleteKey(room, session)),
        1 => (0..ROOMS.len()).prop_map(Step::DeleteRoom),
        1 => Just(Step::DeleteAll),
    ]
}

/// What is to be in a backup: standing and text, by room and session.
type Model = BTreeMap<(String, String), (Standing, String)>;

fn contents_of(model: &Model) -> (i64, i64) {
    let bytes = |((room, session), (_, data)): (&(String, String), &(Standing, String))| {
        i64::try_from(room.len() + session.len() + data.len()).unwrap()
    };
    (i64::try_from(model.len()).unwrap(), model.iter().map(bytes).sum())
}

/// Takes a step in a backup and in its model, and returns what the backup answers.
async fn take(app: &App, user_id: &UserId, version: &str, model: &mut Model, step: Step) -> Contents {
    match step {
        Step::Put(keys) => {
            // The last of each session, as in a request.
            let keys = keys
                .into_iter()
                .map(|(n, session, standing, text)| ((n, session), key(room(n), session, standing, &text.to_string())));
            let keys: Vec<SessionKey> = keys.collect::<BTreeMap<_, _>>().into_values().collect();
            for key in &keys {
                let place = (key.room_id.to_string(), key.session_id.clone());
                let new = (key.data.standing, key.data.session_data.get().to_owned());
                // As the specification says it, one field after the other.
                let replaces = model.get(&place).is_none_or(|(old, _)| {
                    if new.0.is_verified != old.is_verified {
                        new.0.is_verified
                    } else if new.0.first_message_index != old.first_message_index {
                        new.0.first_message_index < old.first_message_index
                    } else {
                        new.0.forwarded_count < old.forwarded_count
                    }
                });
                if replaces {
                    model.insert(place, new);
                }
            }
            app.key_backups.put_keys(user_id, version, &keys).await.unwrap()
        }
        Step::DeleteKey(n, session) => {
            let session = format!("session {session}");
            model.remove(&(room(n).to_string(), session.clone()));
            let which = KeySelection::OfSession(room(n), &session);
            app.key_backups.delete_keys(user_id, version, which).await.unwrap()
        }
        Step::DeleteRoom(n) => {
            model.retain(|(room_id, _), _| *room_id != ROOMS[n]);
            app.key_backups.delete_keys(user_id, version, KeySelection::OfRoom(room(n))).await.unwrap()
        }
        Step::DeleteAll => {
            model.clear();
            app.key_backups.delete_keys(user_id, version, KeySelection::All).await.unwrap()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_backup_holds_the_best_key_of_each_session_and_counts_them(steps in prop::collection::vec(step(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            for world in World::on_each_engine().await {
                let app = &world.app;
                let alice = new_user(app).await;
                let version = new_backup(app, &alice).await;
                let (mut model, mut etag) = (Model::new(), String::new());
                for step in steps.clone() {
                    let before = model.clone();
                    let contents = take(app, &alice, &version, &mut model, step).await;
                    assert_eq!((contents.sessions, contents.bytes), contents_of(&model));
                    assert_eq!(contents.etag == etag, before == model && !etag.is_empty());
                    assert_eq!(app.key_backups.get(&alice, &version).await.unwrap().contents, contents);
                    etag = contents.etag;
                }
                let all = read_all(app, &alice, &version, None).await;
                let read: Model = all.iter().map(|key| {
                    let place = (key.room_id.to_string(), key.session_id.clone());
                    (place, (key.data.standing, key.data.session_data.get().to_owned()))
                }).collect();
                assert_eq!((all.len(), read), (model.len(), model));
                world.close().await;
            }
        });
    }
}

/// Devices of one user that upload at once, on two nodes where there are two: the best key of each stays, whoever was
/// last.
#[tokio::test]
async fn devices_that_upload_at_once_keep_the_best_key() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let alice = new_user(app).await;
        let version = new_backup(app, &alice).await;
        let puts = (0..12_i64).map(|index| {
            let keys: Vec<_> =
                (0..20).map(|n| key(room(0), n, standing(false, index, 0), &index.to_string())).collect();
            let (alice, version) = (&alice, &version);
            async move { app.key_backups.put_keys(alice, version, &keys).await.unwrap() }
        });
        join_all(puts).await;
        let all = read_all(app, &alice, &version, None).await;
        assert!(all.iter().all(|key| key.data.standing.first_message_index == 0), "{all:?}");
        let contents = app.key_backups.get(&alice, &version).await.unwrap().contents;
        assert_eq!((contents.sessions, contents.bytes), (20, all.iter().map(SessionKey::bytes).sum()));
        world.close().await;
    }
}

#[tokio::test]
async fn two_nodes_count_the_same_keys_once() {
    let Some((world, other)) = World::two_nodes().await else { return };
    let alice = new_user(&world.app).await;
    let version = new_backup(&world.app, &alice).await;
    let uploaded = keys(300);
    let puts = (0..8).map(|n| {
        let app = if n % 2 == 0 { &world.app } else { &other };
        app.key_backups.put_keys(&alice, &version, &uploaded)
    });
    let answers: Vec<Contents> = join_all(puts).await.into_iter().collect::<Result<_>>().unwrap();
    assert!(answers.iter().all(|contents| contents == &answers[0]), "only the first of them changed anything");
    assert_eq!(answers[0].sessions, 300);
    world.close_both(other).await;
}

#[tokio::test]
async fn many_keys_are_written_read_and_deleted_in_pieces() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let alice = new_user(app).await;
        let version = new_backup(app, &alice).await;
        let many = 2 * usize::try_from(DELETED_AT_ONCE.keys).unwrap() + 3;
        let mut uploaded = keys(many);
        uploaded.push(key(room(1), 0, standing(true, 0, 0), "of another room"));
        let contents = app.key_backups.put_keys(&alice, &version, &uploaded).await.unwrap();
        assert_eq!(contents.bytes, uploaded.iter().map(SessionKey::bytes).sum::<i64>());
        let read = read_all(app, &alice, &version, None).await;
        let mut sessions: Vec<&String> = read.iter().map(|key| &key.session_id).collect();
        sessions.sort_unstable();
        sessions.dedup();
        assert_eq!((read.len(), sessions.len()), (many + 1, many));
        assert_eq!(read_all(app, &alice, &version, Some(room(0))).await.len(), many);
        let left = app.key_backups.delete_keys(&alice, &version, KeySelection::OfRoom(room(0))).await.unwrap();
        assert_eq!((left.sessions, left.bytes), (1, uploaded.last().unwrap().bytes()));
        world.close().await;
    }
}

/// Some hundred keys may be as large as a hundred thousand others.
#[tokio::test]
async fn large_keys_are_read_and_deleted_by_their_bytes() {
    let large = |n| key(room(n), n, standing(false, 0, 0), &"x".repeat(60_000));
    for world in World::on_each_engine().await {
        let app = &world.app;
        let alice = new_user(app).await;
        let version = new_backup(app, &alice).await;
        let uploaded: Vec<SessionKey> = (0..90).map(large).collect();
        app.key_backups.put_keys(&alice, &version, &uploaded).await.unwrap();
        let largest = uploaded[0].bytes() + 1;
        for room_id in [None, Some(room(1))] {
            let (mut all, mut pages): (Vec<SessionKey>, _) = (Vec::new(), 0);
            loop {
                let page = app.key_backups.page(&alice, &version, room_id, all.last()).await.unwrap();
                let bytes: i64 = page.keys.iter().map(SessionKey::bytes).sum();
                assert!(bytes < PAGE.bytes + largest && (page.is_last || bytes >= PAGE.bytes), "{bytes}");
                (pages, all) = (pages + 1, all.into_iter().chain(page.keys).collect());
                if page.is_last {
                    break;
                }
            }
            let expected = uploaded.iter().filter(|key| room_id.is_none_or(|room_id| *key.room_id == *room_id));
            let expected: BTreeSet<&String> = expected.map(|key| &key.session_id).collect();
            let seen: BTreeSet<&String> = all.iter().map(|key| &key.session_id).collect();
            assert_eq!((all.len(), seen), (expected.len(), expected));
            assert!(pages > 1, "{pages}");
        }
        let mut tx = app.db.begin().await.unwrap();
        let most = Portion { keys: 1_000, bytes: 3 * largest - 10 };
        for which in [KeySelection::All, KeySelection::OfRoom(room(0))] {
            let deleted = key_backup::delete_some_keys(&mut tx, &alice, 1, which, most).await.unwrap();
            assert_eq!((deleted.count, deleted.is_all), (3, false));
        }
        drop(tx);
        let left = app.key_backups.delete_keys(&alice, &version, KeySelection::OfRoom(room(1))).await.unwrap();
        assert_eq!(left.sessions, 60);
        let left = app.key_backups.delete_keys(&alice, &version, KeySelection::All).await.unwrap();
        assert_eq!((left.sessions, left.bytes), (0, 0));
        world.close().await;
    }
}

#[tokio::test]
async fn a_version_is_never_given_out_again_and_a_deleted_one_leaves_nothing() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let alice = new_user(app).await;
        let (first, second) = (new_backup(app, &alice).await, new_backup(app, &alice).await);
        assert_eq!((first.as_str(), second.as_str()), ("1", "2"));
        app.key_backups.put_keys(&alice, &second, &keys(3)).await.unwrap();
        for _ in 0..2 {
            app.key_backups.delete(&alice, &second).await.unwrap();
        }
        assert_eq!(kind(app.key_backups.delete(&alice, "3").await), ErrorKind::NotFound);
        assert_eq!(kind(app.key_backups.page(&alice, &second, None, None).await), ErrorKind::NotFound);
        assert_eq!(count_all(app).await, (0, 1));
        // The one before is in use again.
        assert_eq!(app.key_backups.find_newest(&alice).await.unwrap().unwrap().version, 1);
        let wrong = kind(app.key_backups.put_keys(&alice, &second, &keys(1)).await);
        assert_eq!(wrong, ErrorKind::WrongRoomKeysVersion(WrongRoomKeysVersionErrorData::new("1".to_owned())));
        app.key_backups.put_keys(&alice, &first, &keys(1)).await.unwrap();
        assert_eq!(new_backup(app, &alice).await, "3");
        for version in ["0", "-1", "01", "+1", "one", "", " 1", "99999999999999999999"] {
            assert_eq!(kind(app.key_backups.get(&alice, version).await), ErrorKind::NotFound, "{version:?}");
        }
        world.close().await;
    }
}

#[tokio::test]
async fn an_account_that_ends_leaves_no_keys_and_takes_none() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let alice = new_user(app).await;
        let version = new_backup(app, &alice).await;
        app.key_backups.put_keys(&alice, &version, &keys(5)).await.unwrap();
        app.accounts.deactivate(&alice, false).await.unwrap();
        assert_eq!(kind(app.key_backups.page(&alice, &version, None, None).await), ErrorKind::NotFound);
        // As a request that was let in just before.
        let put = app.key_backups.put_keys(&alice, &version, &keys(5)).await;
        assert!(matches!(kind(put), ErrorKind::UnknownToken(_)));
        app.key_backups.clear_deleted().await.unwrap();
        assert_eq!(count_all(app).await, (0, 0));
        world.close().await;
    }
}

/// As a process leaves it that ends between the two.
#[tokio::test]
async fn what_a_deletion_left_behind_is_removed_later() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let alice = new_user(app).await;
        let version = new_backup(app, &alice).await;
        app.key_backups.put_keys(&alice, &version, &keys(5)).await.unwrap();
        let mut tx = app.db.begin().await.unwrap();
        assert!(key_backup::mark_deleted(&mut tx, &alice, 1).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(count_all(app).await, (5, 1));
        assert_eq!(kind(app.key_backups.find_key(&alice, &version, (room(0), "session 1")).await), ErrorKind::NotFound);
        tokio::time::timeout(Duration::from_mins(1), app.key_backups.clear_deleted()).await.unwrap().unwrap();
        assert_eq!(count_all(app).await, (0, 0));
        world.close().await;
    }
}

/// How many keys and how many backups there are, of everybody.
async fn count_all(app: &App) -> (i64, i64) {
    let row = app.db.read().await.unwrap().find(&COUNT_ALL, args![]).await.unwrap().unwrap();
    (row.get(0).unwrap(), row.get(1).unwrap())
}
