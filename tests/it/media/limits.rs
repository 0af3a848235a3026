//! How much may be uploaded.

use futures_util::future::join_all;
use hearth::config::RateLimitConfig;
use serde_json::json;

use super::{Ask, CREATE, UPLOAD, bytes};
use crate::on_both;

const MIB: usize = 1024 * 1024;

on_both! {
    async fn a_file_that_is_too_large(world, config => { config.media.max_upload_megabytes = 1; }) {
        let alice = world.user("alice").await;
        world.upload(&alice, "image/png", &bytes(MIB)).await;
        let before = world.files("media");
        world.put_file(&alice, "POST", UPLOAD, "image/png", &bytes(MIB + 1)).await.refused(413, "M_TOO_LARGE");
        let uri = alice.post(CREATE, json!({})).await.ok()["content_uri"].as_str().unwrap().to_owned();
        let path = format!("{UPLOAD}/{}", crate::media::name(&uri));
        world.put_file(&alice, "PUT", &path, "image/png", &bytes(MIB + 1)).await.refused(413, "M_TOO_LARGE");
        // Nor where nobody says beforehand how much comes.
        let url = format!("{}{UPLOAD}", world.nodes[0].url);
        let headers = [("transfer-encoding", "chunked")];
        let ask = Ask { method: "POST", url, token: Some(&alice.token), headers: &headers, body: Some(bytes(MIB + 1)) };
        ask.send().await.refused(413, "M_TOO_LARGE");
        assert_eq!(world.files("media"), before);
        // The URI is still good.
        world.put_file(&alice, "PUT", &path, "image/png", b"small").await.reply().ok();
    }

    async fn a_user_has_so_much_a_day_and_so_much_in_all(world, config => {
        config.media.user_megabytes_per_day = Some(2);
        config.media.user_megabytes = Some(3);
    }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        // Of many at once no more are taken than may be, on whichever node.
        let uploads = (0..6).map(|number| {
            let file = [vec![number; 1], bytes(MIB / 2)].concat();
            let (world, alice) = (&world, &alice);
            async move { world.put_file(alice, "POST", UPLOAD, "image/png", &file).await.reply() }
        });
        let (taken, refused): (Vec<_>, Vec<_>) =
            join_all(uploads).await.into_iter().partition(|reply| reply.status == 200);
        assert_eq!((taken.len(), refused.len()), (3, 3));
        for reply in refused {
            reply.refused(403, "M_USER_LIMIT_EXCEEDED");
            assert_eq!(reply.body["info_uri"], "https://localhost", "{}", reply.body);
        }
        world.upload(&bob, "image/png", &bytes(MIB)).await;
        world.clock.advance(std::time::Duration::from_hours(25));
        world.upload(&alice, "image/png", &bytes(MIB)).await;
        world.put_file(&alice, "POST", UPLOAD, "image/png", &bytes(MIB)).await.refused(403, "M_USER_LIMIT_EXCEEDED");
        world.upload(&alice, "image/png", b"small").await;
    }

    /// The rate limit `media`, in MiB.
    async fn who_uploads_too_fast_waits(world, config => {
        config.rate_limits.enabled = true;
        config.rate_limits.registration = RateLimitConfig { per_second: 1_000.0, burst: 1_000 };
        config.rate_limits.media = RateLimitConfig { per_second: 0.001, burst: 4 };
    }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        world.upload(&alice, "image/png", &bytes(3 * MIB)).await;
        // One is left: whoever says nothing of the length is let in, and owes what comes.
        let url = format!("{}{UPLOAD}", world.nodes[0].url);
        let headers = [("transfer-encoding", "chunked")];
        let ask = Ask { method: "POST", url, token: Some(&alice.token), headers: &headers, body: Some(bytes(2 * MIB)) };
        ask.send().await.reply().ok();
        let refused = world.put_file(&alice, "POST", UPLOAD, "image/png", b"small").await;
        refused.refused(429, "M_LIMIT_EXCEEDED");
        alice.post(CREATE, json!({})).await.refused(429, "M_LIMIT_EXCEEDED");
        world.upload(&bob, "image/png", b"small").await;
        // It keeps nobody from talking.
        let room = alice.create_room(json!({})).await;
        alice.say(&room, "hello").await;
    }

    async fn what_is_refused_for_its_length_costs_little(world, config => {
        config.rate_limits.enabled = true;
        config.rate_limits.registration = RateLimitConfig { per_second: 1_000.0, burst: 1_000 };
        config.rate_limits.media = RateLimitConfig { per_second: 0.001, burst: 2 };
        config.media.max_upload_megabytes = 1;
    }) {
        let alice = world.user("alice").await;
        world.put_file(&alice, "POST", UPLOAD, "image/png", &bytes(MIB + 1)).await.refused(413, "M_TOO_LARGE");
        world.upload(&alice, "image/png", b"small").await;
        world.put_file(&alice, "POST", UPLOAD, "image/png", b"more").await.refused(429, "M_LIMIT_EXCEEDED");
    }
}
