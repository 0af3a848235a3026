//! A store that is out of order holds up nothing but media, and those only until it is back.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{CREATE, UPLOAD, bytes, name, s3_server};
use crate::on_both;

/// Deletes all files in a folder, as a disk may.
fn lose(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { lose(&path) } else { fs::remove_file(path).unwrap() }
    }
}

on_both! {
    /// Trap: an object store that does not answer.
    async fn without_the_store_text_goes_on(world, config => { s3_server::none(config); }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let uri = alice.post(CREATE, json!({})).await.ok()["content_uri"].as_str().unwrap().to_owned();
        let uploading = async {
            let mut answers = Vec::new();
            for (method, path) in [("POST", UPLOAD.to_owned()), ("PUT", format!("{UPLOAD}/{}", name(&uri)))] {
                answers.push(world.put_file(&alice, method, &path, "image/png", &bytes(1_000_000)).await);
            }
            answers
        };
        let talking = async {
            for number in 0..20 {
                let begun = Instant::now();
                bob.say(&room, &format!("message {number}")).await;
                assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
            }
        };
        let (answers, ()) = tokio::join!(uploading, talking);
        for answer in answers {
            let reply = answer.reply();
            reply.refused(503, "M_UNKNOWN");
            assert!(reply.headers.contains_key("retry-after"));
        }
        // Nothing is half there, and the URI can be used once the store is back.
        let path = format!("/_matrix/client/v1/media/download/{}?timeout_ms=0", name(&uri));
        alice.get(&path).await.refused(504, "M_NOT_YET_UPLOADED");
        assert!(world.metric("hearth_media_store_failures_total{store=\"s3\",operation=\"put\"}") >= 2);
    }

    async fn bytes_that_are_gone_are_no_broken_answer(world) {
        let alice = world.user("alice").await;
        let uri = world.upload(&alice, "image/png", &bytes(100_000)).await;
        lose(&world.config.data_dir.join("media"));
        let answer = world.download(&alice, &uri).await.reply();
        assert!(answer.status >= 500 && answer.body["errcode"] == "M_UNKNOWN", "{} {}", answer.status, answer.body);
        // Whoever has them brings them back.
        let again = world.upload(&alice, "image/png", &bytes(100_000)).await;
        assert!(world.download(&alice, &again).await.file() == bytes(100_000));
        assert!(world.download(&alice, &uri).await.file() == bytes(100_000));
    }
}
