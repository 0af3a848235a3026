//! However large somebody makes what is kept in memory, no cache takes more than its budget.

use std::collections::BTreeMap;

use ruma::{device_id, events::TimelineEventType, presence::PresenceState};
use serde_json::{json, value::to_raw_value};

use crate::{
    config::Config,
    ephemeral::receipt::ReadMarkers,
    event::Draft,
    ground::{
        position::Position,
        sizes::{CacheSizes, Sizes},
    },
    people::filter::StoredFilter,
    testing::{World, user},
};

const KIB: u64 = 1024;

/// What each cache takes and may take, as an operator reads it.
fn weights(world: &World) -> BTreeMap<String, (u64, u64)> {
    let metrics = world.app.metrics.render().unwrap();
    let read = |metric: &str| -> BTreeMap<String, u64> {
        let prefix = format!("{metric}{{cache=\"");
        let lines = metrics.lines().filter_map(|line| line.strip_prefix(&prefix)?.split_once("\"} "));
        lines.map(|(name, bytes)| (name.to_owned(), bytes.parse().unwrap())).collect()
    };
    let limits = read("hearth_cache_max_bytes");
    read("hearth_cache_bytes").into_iter().map(|(name, bytes)| (name.clone(), (bytes, limits[&name]))).collect()
}

#[tokio::test]
async fn no_cache_takes_more_than_it_may() {
    let caches = CacheSizes {
        account_data: 64 * KIB,
        filters: 512 * KIB,
        tokens: 16 * KIB,
        last_seen: 4 * KIB,
        room_cards: 512 * KIB,
        unread: 64 * KIB,
        receipts: 16 * KIB,
        typing: 4 * KIB,
        presence: 32 * KIB,
        connected: 32 * KIB,
        strangers: 4 * KIB,
        device_keys: 64 * KIB,
        device_lists: KIB,
        key_counts: 4 * KIB,
        inboxes: 4 * KIB,
        server_keys: 4 * KIB,
        servers: 4 * KIB,
        elsewhere: 4 * KIB,
        log: 512 * KIB,
    };
    let mut config = Config::default();
    config.rooms.cache_megabytes = 1;
    let world = World::with_caches(caches, config).await;
    let users: Vec<_> = (0..24).map(|n| user(&format!("user{n}"))).collect();
    let (alice, bob) = (&users[0], &users[1]);
    let crowd: Vec<String> = (0..600).map(|n| format!("@{n}:localhost")).collect();
    let ignored: serde_json::Map<_, _> = crowd.iter().map(|name| (name.clone(), json!({}))).collect();
    let mut most: BTreeMap<String, u64> = BTreeMap::new();
    for (n, one) in users.iter().enumerate() {
        let room = world.room(&[alice, bob, one]).await;
        let big = json!({ "topic": "x".repeat(40_000), "name": "y".repeat(10_000) });
        let big = serde_json::from_value(big).unwrap();
        let state = Draft::state(alice.clone(), TimelineEventType::RoomTopic, "", big);
        world.send(&room, state).await;
        let mentions = json!({ "body": "all of you", "msgtype": "m.text", "m.mentions": { "user_ids": crowd } });
        let event = world.message(&room, alice, mentions).await;
        for piece in 0..4 {
            let content = to_raw_value(&json!({ "text": "x".repeat(8_000) })).unwrap();
            world.app.account_data.set(one, Some(&room), &format!("k{piece}"), content).await.unwrap();
        }
        let list = to_raw_value(&json!({ "ignored_users": ignored })).unwrap();
        world.app.account_data.set(bob, None, "m.ignored_user_list", list).await.unwrap();
        let rooms = vec![format!("!{n}:a"); 1_000];
        let filter = StoredFilter::from_json(&json!({ "room": { "rooms": rooms } }).to_string()).unwrap();
        let filter = world.app.filters.create(one, &filter).await.unwrap();
        world.app.filters.definition(one, &filter).await.unwrap();
        for reader in [alice, bob, one] {
            let marks = ReadMarkers { read: Some(event.clone()), ..ReadMarkers::default() };
            world.app.receipts.mark(reader, &room, marks).await.unwrap();
            world.app.receipts.since(&room, Position::START, Position(i64::MAX), reader).await.unwrap();
            world.app.unread.counts(reader, &room).await.unwrap();
            world.app.syncs.watcher(reader).await.unwrap();
        }
        world.app.typists.begin(one, &room, None).await.unwrap();
        world.app.typists.stop(one, &room).await.unwrap();
        let status = Some("z".repeat(2_000));
        world.app.presence.set(one, device_id!("D"), PresenceState::Offline, status).await.unwrap();
        world.app.directory.summary(&room, Some(one)).await.unwrap();
        for (name, (bytes, limit)) in weights(&world) {
            // Two batches of the log are kept whatever they take, a room in use stays, and so does who is connected.
            let slack = match name.as_str() {
                "log" | "rooms" => 256 * KIB,
                "connected" => 16 * KIB,
                _ => 2 * KIB,
            };
            assert!(bytes <= limit + slack, "{name} takes {bytes} bytes of {limit} after {n}");
            let seen = most.entry(name).or_default();
            *seen = bytes.max(*seen);
        }
    }
    let weighed: Vec<&str> = most.keys().map(String::as_str).collect();
    let all = [
        "account_data",
        "connected",
        "device_keys",
        "device_lists",
        "elsewhere",
        "filters",
        "inboxes",
        "key_counts",
        "last_seen",
        "log",
        "presence",
        "receipts",
        "room_cards",
        "rooms",
        "server_keys",
        "strangers",
        "tokens",
        "typing",
        "unread",
    ];
    assert_eq!(weighed, all);
    for filled in
        ["account_data", "connected", "filters", "log", "presence", "receipts", "room_cards", "rooms", "unread"]
    {
        assert!(most[filled] > 0, "{filled} was not tried: {most:?}");
    }
    world.close().await;
}

/// What one user can fill is bounded by what all may fill together, and so is the whole.
#[test]
fn all_caches_together_take_no_more_than_five_sixteenths_of_a_gigabyte() {
    assert!(Sizes::default().caches.sum() <= 320 * KIB * KIB);
}
