//! URIs that are made before there is something to upload.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav1create>

use std::time::Duration;

use serde_json::json;

use super::{CREATE, UPLOAD, at, bytes, name};
use crate::{
    on_both,
    world::{Client, World},
};

async fn create(client: &Client) -> String {
    let created = client.post(CREATE, json!({})).await.ok();
    created["content_uri"].as_str().unwrap().to_owned()
}

async fn upload_to(world: &World, client: &Client, uri: &str, file: &[u8]) -> super::Answer {
    world.put_file(client, "PUT", &format!("{UPLOAD}/{}", name(uri)), "image/png", file).await
}

on_both! {
    async fn what_is_uploaded_later_is_there(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let created = alice.post(CREATE, json!({})).await.ok();
        let uri = created["content_uri"].as_str().unwrap();
        let expires_at = created["unused_expires_at"].as_u64().unwrap();
        assert_eq!(expires_at, 1_767_225_600_000 + 24 * 60 * 60 * 1000);
        let unready = format!("{}?timeout_ms=0", at(uri));
        bob.get(&unready).await.refused(504, "M_NOT_YET_UPLOADED");
        let thumbnail = format!("/_matrix/client/v1/media/thumbnail/{}?width=32&height=32&timeout_ms=0", name(uri));
        bob.get(&thumbnail).await.refused(504, "M_NOT_YET_UPLOADED");
        assert_eq!(upload_to(&world, &alice, uri, &bytes(70_000)).await.reply().ok(), json!({}));
        assert!(world.download(&bob, uri).await.file() == bytes(70_000));
    }

    async fn only_who_has_made_a_uri_uploads_to_it_and_once(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let uri = create(&alice).await;
        upload_to(&world, &bob, &uri, b"bob's").await.refused(403, "M_FORBIDDEN");
        upload_to(&world, &alice, &uri, b"alice's").await.reply().ok();
        upload_to(&world, &alice, &uri, b"another").await.refused(409, "M_CANNOT_OVERWRITE_MEDIA");
        upload_to(&world, &alice, "mxc://localhost/nonesuch", b"x").await.refused(404, "M_NOT_FOUND");
        upload_to(&world, &alice, "mxc://elsewhere.example/nonesuch", b"x").await.refused(404, "M_NOT_FOUND");
        assert_eq!(world.download(&bob, &uri).await.file(), b"alice's");
        // Nor to what was never to be uploaded to.
        let whole = world.upload(&alice, "image/png", b"whole").await;
        upload_to(&world, &alice, &whole, b"other").await.refused(409, "M_CANNOT_OVERWRITE_MEDIA");
        assert_eq!(world.download(&bob, &whole).await.file(), b"whole");
    }

    async fn a_uri_that_nobody_used_in_time_is_gone(world) {
        let alice = world.user("alice").await;
        let uri = create(&alice).await;
        world.clock.advance(Duration::from_hours(24) + Duration::from_secs(1));
        upload_to(&world, &alice, &uri, b"late").await.refused(404, "M_NOT_FOUND");
        alice.get(&at(&uri)).await.refused(404, "M_NOT_FOUND");
    }

    async fn five_at_most_wait(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let mut uris = Vec::new();
        for _ in 0..5 {
            uris.push(create(&alice).await);
        }
        let refused = alice.post(CREATE, json!({})).await;
        refused.refused(429, "M_LIMIT_EXCEEDED");
        assert!(refused.headers.contains_key("retry-after"));
        create(&bob).await;
        upload_to(&world, &alice, &uris[0], b"used").await.reply().ok();
        create(&alice).await;
        alice.post(CREATE, json!({})).await.refused(429, "M_LIMIT_EXCEEDED");
        world.clock.advance(Duration::from_hours(25));
        create(&alice).await;
    }

    /// On three nodes another one than that which the file comes to.
    async fn who_waits_for_a_file_gets_it(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let uri = create(&alice).await;
        let path = format!("{}?timeout_ms=30000", at(&uri));
        let waiting = async {
            let mut waiting = Vec::new();
            for node in &world.nodes {
                let url = format!("{}{path}", node.url);
                waiting.push(crate::media::Ask { method: "GET", url, token: Some(&bob.token), headers: &[], body: None }.send());
            }
            futures_util::future::join_all(waiting).await
        };
        let file = bytes(10_000);
        let (answers, uploaded) = tokio::join!(waiting, upload_to(&world, &alice, &uri, &file));
        uploaded.reply().ok();
        for answer in answers {
            assert!(answer.file() == file);
        }
    }
}
