use ruma::server_name;

use super::*;
use crate::{
    db::testing::{self, TestDatabase},
    ground::position::Position,
    store::destination::Failure,
};

const START: u64 = 1_800_000_000_000;

fn destinations(database: &TestDatabase) -> (Destinations, Clock) {
    let clock = Clock::manual(START);
    (Destinations::new(database.db().clone(), clock.clone()), clock)
}

/// A server that could not be reached, and is to be tried so many milliseconds from the start on.
async fn fail(database: &TestDatabase, server: &ServerName, failures: i64, retry_at: i64) {
    let start = i64::try_from(START).unwrap();
    let failure = Failure { failures, failed_at: start, retry_at: start + retry_at, reason: "nobody answers" };
    let mut tx = database.db().begin().await.unwrap();
    destination::note_failure(&mut tx, (server, 3), Position(7), failure).await.unwrap();
    tx.commit().await.unwrap();
}

#[test]
fn a_server_is_left_alone_for_twice_as_long_each_time_up_to_a_week() {
    let random = Random::seeded(1);
    let mut spread = HashSet::new();
    for failures in 1..=40 {
        let expected = FIRST_PAUSE.as_secs_f64() * 2_f64.powi(i32::try_from(failures - 1).unwrap());
        let expected = expected.min(LONGEST_PAUSE.as_secs_f64());
        for _ in 0..50 {
            let pause = back_off(failures, &random).as_secs_f64();
            assert!((expected * 0.799..=expected * 1.201).contains(&pause), "{failures}: {pause} s");
            spread.insert((pause / expected * 20.0).round().to_string());
        }
    }
    assert!(spread.len() >= 8, "all come back in one moment: {spread:?}");
    assert!(back_off(i64::MAX, &random) <= LONGEST_PAUSE.mul_f64(1.21));
    assert!(back_off(0, &random) <= FIRST_PAUSE.mul_f64(1.21));
}

#[tokio::test]
async fn anything_that_is_heard_of_a_server_ends_the_waiting_for_it() {
    for database in testing::databases().await {
        let (destinations, clock) = destinations(&database);
        let (away, other) = (server_name!("away.example"), server_name!("other.example"));
        fail(&database, away, 9, 5_000_000).await;
        fail(&database, other, 9, 5_000_000).await;
        destinations.heard(away);
        destinations.heard(server_name!("never.seen"));
        destinations.note_heard().await.unwrap();
        let standing = destinations.standing(away).await.unwrap().unwrap();
        let now = i64::try_from(START).unwrap();
        assert_eq!((standing.failures, standing.retry_at, standing.owed_from), (0, now, Some(Position(7))));
        let standing = destinations.standing(other).await.unwrap().unwrap();
        assert_eq!((standing.failures, standing.retry_at), (9, now + 5_000_000));
        assert_eq!(destinations.standing(server_name!("never.seen")).await.unwrap(), None);

        // One that speaks and can't be reached is not tried each time it speaks.
        fail(&database, away, 1, 70_000).await;
        let mut waited = Vec::new();
        for _ in 0..4 {
            clock.advance(Duration::from_secs(20));
            destinations.heard(away);
            destinations.note_heard().await.unwrap();
            waited.push(destinations.standing(away).await.unwrap().unwrap().failures);
        }
        assert_eq!(waited, [1, 1, 0, 0]);
        database.close().await;
    }
}

/// A standing outlives whoever has written it.
#[tokio::test]
async fn how_it_stands_is_in_the_database_and_an_operator_can_have_a_server_tried() {
    for database in testing::databases().await {
        let (destinations, _) = destinations(&database);
        let away = server_name!("away.example");
        assert!(!destinations.retry_now(away).await.unwrap());
        fail(&database, away, 3, 240_000).await;
        let (again, _) = self::destinations(&database);
        let listed = again.list().await.unwrap();
        assert_eq!(listed, [destinations.standing(away).await.unwrap().unwrap()]);
        assert_eq!((listed[0].failures, listed[0].reason.as_deref()), (3, Some("nobody answers")));
        assert!(destinations.retry_now(away).await.unwrap());
        let standing = again.standing(away).await.unwrap().unwrap();
        assert_eq!((standing.failures, standing.retry_at, standing.owed_from), (0, 0, Some(Position(7))));
        database.close().await;
    }
}
