//! Media that nobody gets, for each reason, and that come back.

use futures_util::future::join_all;
use ruma::{UserId, api::error::ErrorKind, events::TimelineEventType};
use serde_json::{Value, json};

use super::*;
use crate::{
    app::App,
    event::Draft,
    media::{
        library::Found,
        testing::{count, new_user, quarantine, read, refusal, upload, uri},
    },
    testing::World,
};

async fn is_quarantined(app: &App, uri: &MediaUri) -> bool {
    matches!(app.library.find(uri).await.unwrap(), Found::Quarantined)
}

async fn send_state(world: &World, room_id: &RoomId, sender: &UserId, kind: TimelineEventType, content: Value) {
    let content = serde_json::from_value(content).unwrap();
    world.send(room_id, Draft::state(sender.to_owned(), kind, "", content)).await;
}

#[test]
fn an_operator_writes_what_is_meant() {
    let digest = Digest::of(b"bytes");
    let hex = digest.to_string();
    let targets = [
        ("mxc://example.org/abc", Some(QuarantineTarget::Media(uri("example.org", "abc")))),
        (hex.as_str(), Some(QuarantineTarget::Digest(digest))),
        ("@alice:localhost", Some(QuarantineTarget::User("@alice:localhost".try_into().unwrap()))),
        ("!room:localhost", Some(QuarantineTarget::Room("!room:localhost".try_into().unwrap()))),
        ("example.org:8448", Some(QuarantineTarget::Server("example.org:8448".try_into().unwrap()))),
        ("mxc://example.org/../x", None),
        ("@", None),
        ("a b", None),
        ("", None),
    ];
    for (text, target) in targets {
        assert_eq!(QuarantineTarget::parse(text), target, "{text}");
    }
}

#[test]
fn uris_are_found_wherever_in_a_content() {
    let html = "<img src=\"mxc://a.org/html_1\"> and mxc://b.org:8448/bare, mxc://c.org/";
    let content = json!({
        "url": "mxc://a.org/url",
        "info": { "thumbnail_url": "mxc://a.org/thumb", "thumbnail_file": { "url": "mxc://a.org/tf", "v": "v2" } },
        "file": { "url": "mxc://a.org/file" },
        "avatar_url": "mxc://[::1]/avatar",
        "images": [{ "deep": ["mxc://a.org/deep"] }],
        "formatted_body": html,
        "wrong": ["mxc://", "mxc://a.org/../up", "mxc://a b/c", "http://a.org/x", 7, null],
        "mxc://a.org/name_of_a_field": true,
    });
    let mut uris = BTreeSet::new();
    collect_of_event(&json!({ "content": content, "unsigned": { "x": "mxc://a.org/outside" } }).to_string(), &mut uris);
    collect_of_event("no JSON mxc://a.org/no", &mut uris);
    let mut found: Vec<String> = uris.iter().map(ToString::to_string).collect();
    found.sort();
    let wanted = [
        "mxc://[::1]/avatar",
        "mxc://a.org/deep",
        "mxc://a.org/file",
        "mxc://a.org/html_1",
        "mxc://a.org/tf",
        "mxc://a.org/thumb",
        "mxc://a.org/url",
        "mxc://b.org:8448/bare",
    ];
    assert_eq!(found, wanted);
}

#[tokio::test]
async fn media_are_quarantined_by_their_uri_and_come_back() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let alice = new_user(app, "alice").await;
        let (one, other) = (upload(app, &alice, b"bytes").await.unwrap(), upload(app, &alice, b"bytes").await.unwrap());
        let target = QuarantineTarget::Media(one.clone());
        let report = quarantine(app).put(&target).await.unwrap();
        assert_eq!((report.changed, report.media), (true, 1));
        assert!(!quarantine(app).put(&target).await.unwrap().changed);
        assert!(is_quarantined(app, &one).await);
        assert_eq!(read(app, &other).await, Some(b"bytes".to_vec()), "it is only this one");
        assert!(quarantine(app).lift(&target).await.unwrap().changed);
        assert!(!quarantine(app).lift(&target).await.unwrap().changed);
        assert_eq!(read(app, &one).await, Some(b"bytes".to_vec()));
        // What another server has, and has not come yet. Of its own this server knows what there is.
        let (far, unknown) = (uri("far.org", "abc"), uri("localhost", "unknown"));
        assert!(quarantine(app).put(&QuarantineTarget::Media(far.clone())).await.unwrap().changed);
        assert!(!quarantine(app).put(&QuarantineTarget::Media(unknown.clone())).await.unwrap().changed);
        assert!(is_quarantined(app, &far).await && !is_quarantined(app, &unknown).await);
        assert!(quarantine(app).lift(&QuarantineTarget::Media(far.clone())).await.unwrap().changed);
        assert!(matches!(app.library.find(&far).await.unwrap(), Found::Absent));
        assert_eq!(count(app).await.media, 2, "nothing is left of it");
        world.close().await;
    }
}

#[tokio::test]
async fn bytes_are_quarantined_whoever_has_them_and_do_not_come_in_again() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let (alice, bob) = (new_user(app, "alice").await, new_user(app, "bob").await);
        let (one, other) = (upload(app, &alice, b"bytes").await.unwrap(), upload(app, &bob, b"bytes").await.unwrap());
        let target = QuarantineTarget::Digest(Digest::of(b"bytes"));
        let report = quarantine(app).put(&target).await.unwrap();
        assert_eq!(report, QuarantineReport { changed: true, media: 2, bytes: 10, events: 0 });
        assert!(is_quarantined(app, &one).await && is_quarantined(app, &other).await);
        assert_eq!(refusal(upload(app, &alice, b"bytes").await), ErrorKind::Forbidden);
        upload(app, &alice, b"others").await.unwrap();
        assert!(quarantine(app).lift(&target).await.unwrap().changed);
        assert!(!is_quarantined(app, &one).await && !is_quarantined(app, &other).await);
        upload(app, &alice, b"bytes").await.unwrap();
        world.close().await;
    }
}

#[tokio::test]
async fn all_of_a_user_is_quarantined_and_they_upload_nothing_more() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let (alice, bob) = (new_user(app, "alice").await, new_user(app, "bob").await);
        let (hers, his) = (upload(app, &alice, b"bytes").await.unwrap(), upload(app, &bob, b"bytes").await.unwrap());
        let target = QuarantineTarget::User(alice.clone());
        let report = quarantine(app).put(&target).await.unwrap();
        assert_eq!(report, QuarantineReport { changed: true, media: 1, bytes: 5, events: 0 });
        assert!(is_quarantined(app, &hers).await && !is_quarantined(app, &his).await);
        assert_eq!(refusal(upload(app, &alice, b"more").await), ErrorKind::Forbidden);
        quarantine(app).lift(&target).await.unwrap();
        assert!(!is_quarantined(app, &hers).await);
        upload(app, &alice, b"more").await.unwrap();
        let stranger = QuarantineTarget::User("@mallory:elsewhere".try_into().unwrap());
        assert_eq!(refusal(quarantine(app).put(&stranger).await), ErrorKind::InvalidParam);
        world.close().await;
    }
}

#[tokio::test]
async fn nothing_of_a_server_is_served_but_never_is_that_our_own() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let own = QuarantineTarget::Server("localhost".try_into().unwrap());
        assert_eq!(refusal(quarantine(app).put(&own).await), ErrorKind::InvalidParam);
        let target = QuarantineTarget::Server("far.org".try_into().unwrap());
        assert!(quarantine(app).put(&target).await.unwrap().changed);
        assert!(!quarantine(app).put(&target).await.unwrap().changed);
        assert!(quarantine(app).lift(&target).await.unwrap().changed);
        world.close().await;
    }
}

#[tokio::test]
async fn all_that_a_room_shows_is_quarantined() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let alice = new_user(app, "alice").await;
        let mut uris = Vec::new();
        for n in 0..6_u8 {
            uris.push(upload(app, &alice, &[n]).await.unwrap());
        }
        let (room_id, another) = (world.room(&[&alice]).await, world.room(&[&alice]).await);
        let link = |n: usize| uris[n].to_string();
        world.message(&room_id, &alice, json!({ "msgtype": "m.image", "body": "a", "url": link(0) })).await;
        let info = json!({ "thumbnail_url": link(1) });
        let far = "mxc://far.org/abc";
        world.message(&room_id, &alice, json!({ "msgtype": "m.file", "body": "b", "url": far, "info": info })).await;
        // More than are looked through at once.
        let (here, room, sender) = (&world, &room_id, &alice);
        let texts = (0..EVENTS).map(|n| async move { here.say(room, sender, &n.to_string()).await });
        join_all(texts).await;
        send_state(&world, &room_id, &alice, TimelineEventType::RoomAvatar, json!({ "url": link(2) })).await;
        let profile = json!({ "membership": "join", "avatar_url": link(3) });
        world.profile(&room_id, &alice, profile).await;
        world.message(&another, &alice, json!({ "msgtype": "m.image", "body": "c", "url": link(4) })).await;
        // For a reason of its own, which stays.
        quarantine(app).put(&QuarantineTarget::Media(uris[1].clone())).await.unwrap();

        let target = QuarantineTarget::Room(room_id.clone());
        let report = quarantine(app).put(&target).await.unwrap();
        assert!(report.changed && report.media == 4, "{report:?}");
        assert!(report.events > u64::try_from(EVENTS).unwrap(), "{report:?}");
        for (n, uri) in uris.iter().enumerate() {
            assert_eq!(is_quarantined(app, uri).await, n < 4, "{n}");
        }
        assert!(is_quarantined(app, &uri("far.org", "abc")).await);
        assert!(!quarantine(app).put(&target).await.unwrap().changed);
        assert_eq!(quarantine(app).lift(&target).await.unwrap().media, 4);
        for (n, uri) in uris.iter().enumerate() {
            assert_eq!(is_quarantined(app, uri).await, n == 1, "{n}");
        }
        assert!(matches!(app.library.find(&uri("far.org", "abc")).await.unwrap(), Found::Absent));
        assert_eq!(count(app).await.media, 6);
        world.close().await;
    }
}
