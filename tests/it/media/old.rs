//! Endpoints for which nobody needs a token: closed, or open for what was there when they were frozen.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#content-repo-client-behaviour>

use std::time::Duration;

use serde_json::json;

use super::{CREATE, OLD, name};
use crate::{on_both, world::World};

/// What the clock of a test begins with, in milliseconds, and an hour later.
const START: u64 = 1_767_225_600_000;
const LATER: u64 = START + 60 * 60 * 1000;
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0";

async fn all_refuse(world: &World, uri: &str) {
    for version in ["r0", "v3"] {
        for path in [
            format!("/_matrix/media/{version}/download/{}", name(uri)),
            format!("/_matrix/media/{version}/download/{}/name.png", name(uri)),
            format!("/_matrix/media/{version}/thumbnail/{}?width=32&height=32&method=crop", name(uri)),
        ] {
            world.ask_as_stranger(&path).await.refused(404, "M_NOT_FOUND");
        }
    }
}

on_both! {
    async fn without_a_token_there_is_nothing(world) {
        let alice = world.user("alice").await;
        let uri = world.upload(&alice, "image/png", PNG).await;
        all_refuse(&world, &uri).await;
        all_refuse(&world, "mxc://localhost/nonesuch").await;
        // A token does not open them either.
        alice.get(&format!("{OLD}/download/{}", name(&uri))).await.refused(404, "M_NOT_FOUND");
    }

    async fn what_was_there_before_the_freeze_stays_open(world, config => { config.media.open_until = LATER; }) {
        let alice = world.user("alice").await;
        let before = world.upload(&alice, "image/png", PNG).await;
        let path = format!("{OLD}/download/{}", name(&before));
        let answer = world.ask_as_stranger(&path).await;
        assert_eq!(answer.header("cache-control"), "public, max-age=86400, immutable");
        assert_eq!(answer.file(), PNG);
        world.clock.advance(Duration::from_hours(2));
        let after = world.upload(&alice, "image/png", b"after").await;
        assert_eq!(world.ask_as_stranger(&path).await.file(), PNG);
        assert_eq!(world.ask_as_stranger(&format!("{path}/other.png")).await.file(), PNG);
        all_refuse(&world, &after).await;
        // Nor is it said that something is still to come.
        let pending = alice.post(CREATE, json!({})).await.ok()["content_uri"].as_str().unwrap().to_owned();
        all_refuse(&world, &pending).await;
        // Nobody fetches for strangers what would be closed to them.
        world.ask_as_stranger(&format!("{OLD}/download/elsewhere.example/abc")).await.refused(404, "M_NOT_FOUND");
        // Equal bytes that came later are no way round.
        let twin = world.upload(&alice, "image/png", PNG).await;
        all_refuse(&world, &twin).await;
    }
}
