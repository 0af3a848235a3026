//! What is left of devices that have ended is nobody's, and goes in steps.

use super::*;

#[tokio::test]
async fn what_waits_for_a_device_goes_with_it_whenever_it_was_sent() {
    let bob = user("bob");
    for world in World::on_each_engine().await {
        let app = &world.app;
        for round in 0..5 {
            add_device(app, &bob, "D").await;
            add_device(app, &bob, "E").await;
            let names: Vec<String> = (0..30).map(|n| format!("{round} {n}")).collect();
            let to = json!({ bob.as_str(): { "D": { "n": round }, "E": { "n": round } } });
            let sends = join_all(names.iter().map(|name| send(app, name, &to)));
            let (sent, ()) = tokio::join!(sends, remove_device(app, &bob, "D"));
            assert!(sent.iter().all(Result::is_ok));
            assert_eq!(count_rows(app, &bob, "D").await, 0);
            // A new device of that name has nothing waiting.
            add_device(app, &bob, "D").await;
            assert_eq!(waiting(app, &bob, "D").await, NONE);
        }
        assert_eq!(count_rows(app, &bob, "E").await, 150);
        world.close().await;
    }
}

/// On SQLite nobody else writes while rows are deleted, and there may be hundreds of megabytes of them.
#[tokio::test]
async fn what_waits_for_a_device_that_ends_is_gone_at_once_and_removed_in_steps() {
    let bob = user("bob");
    for world in World::on_each_engine().await {
        let app = &world.app;
        add_device(app, &bob, "D").await;
        add_device(app, &bob, "E").await;
        let numbers: Vec<i64> = (0..1_200).collect();
        post(app, &bob, &numbers, None, true).await;
        remove_device(app, &bob, "D").await;
        assert_eq!(world.dump("to_device_messages").await.len(), 2_400, "whoever ends a device deletes nothing");
        add_device(app, &bob, "D").await;
        for n in [-1, -2] {
            assert!(!waiting(app, &bob, "D").await.contains(&n));
            send(app, &n.to_string(), &json!({ bob.as_str(): { "D": { "n": n } } })).await.unwrap();
        }
        let first = page(app, &bob, "D", Position::START).await;
        assert_eq!(self::numbers(&first), [-1, -2]);
        // What is confirmed is the new device's own.
        app.to_device.confirm(&bob, "D".into(), first.messages[0].position).await.unwrap();
        assert_eq!(waiting(app, &bob, "D").await, [-2]);
        let world = world.restart().await;
        let app = &world.app;
        app.to_device.clear_ended().await.unwrap();
        assert_eq!(waiting(app, &bob, "D").await, [-2]);
        assert_eq!(waiting(app, &bob, "E").await.len(), 1_200);
        assert_eq!(world.dump("to_device_messages").await.len(), 1_201);
        assert_eq!(world.dump("to_device_ended").await, Vec::<String>::new());
        // It has come to an end more than once before anything was removed.
        for n in 0..3 {
            remove_device(app, &bob, "D").await;
            add_device(app, &bob, "D").await;
            send(app, &format!("end {n}"), &json!({ bob.as_str(): { "D": { "n": n } } })).await.unwrap();
            assert_eq!(waiting(app, &bob, "D").await, [n]);
        }
        app.to_device.clear_ended().await.unwrap();
        assert_eq!(waiting(app, &bob, "D").await, [2]);
        assert_eq!(world.dump("to_device_messages").await.len(), 1_201);
        world.close().await;
    }
}

/// The inbox of a new device is empty, however full that of an earlier one of its name was.
#[tokio::test]
async fn a_new_device_has_room_though_the_rows_of_an_earlier_one_are_there() {
    let mut config = Config::default();
    config.quotas.to_device_megabytes = 1;
    let bob = user("bob");
    for world in World::on_each_engine_with(&config).await {
        let app = &world.app;
        let large = |n: i64| json!({ bob.as_str(): { "D": { "n": n, "text": "x".repeat(MAX_CONTENT - 1_000) } } });
        for round in 0..2 {
            add_device(app, &bob, "D").await;
            for n in 0..18 {
                send(app, &format!("{round} {n}"), &large(n)).await.unwrap();
            }
            assert_eq!(waiting(app, &bob, "D").await, (0..16).collect::<Vec<_>>());
            remove_device(app, &bob, "D").await;
        }
        world.close().await;
    }
}

/// As of a client that makes up its token: no more than a few pages are deleted in one transaction.
#[tokio::test]
async fn as_much_as_there_is_can_be_confirmed_at_once() {
    let bob = user("bob");
    for world in World::on_each_engine().await {
        let app = &world.app;
        add_device(app, &bob, "D").await;
        let numbers: Vec<i64> = (0..1_100).collect();
        post(app, &bob, &numbers, Some("D"), true).await;
        app.to_device.confirm(&bob, "D".into(), app.log.tail().reached()).await.unwrap();
        assert_eq!(count_rows(app, &bob, "D").await, 0);
        world.close().await;
    }
}
