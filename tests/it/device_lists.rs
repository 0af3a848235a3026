//! Whose devices are news: `device_lists` of `/sync`, and `/keys/changes`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user>

use serde_json::{Value, json};

use crate::{
    keys::CrossSigning,
    on_both,
    sync::moderate,
    world::{Client, Reply, at, next},
};

impl Client {
    async fn key_changes(&self, from: &str, to: &str) -> Reply {
        self.get(&format!("/_matrix/client/v3/keys/changes?from={from}&to={to}")).await
    }

    /// What a sync says of devices since a place, which `/keys/changes` says as well; and where it ends.
    async fn device_lists(&self, since: &str) -> (Value, String) {
        let sync = self.sync(Some(since)).await;
        let until = next(&sync);
        let lists = sync.get("device_lists").cloned().unwrap_or_else(|| json!({ "changed": [], "left": [] }));
        assert_eq!(self.key_changes(since, &until).await.ok(), lists);
        (lists, until)
    }
}

fn changed(user: &Client) -> Value {
    json!({ "changed": [user.user_id], "left": [] })
}

fn left(user: &Client) -> Value {
    json!({ "changed": [], "left": [user.user_id] })
}

fn nothing() -> Value {
    json!({ "changed": [], "left": [] })
}

on_both! {
    async fn whoever_comes_goes_and_encrypts_is_told(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let sync = alice.sync(None).await;
        assert_eq!(sync.get("device_lists"), None, "whoever begins asks for the keys of everybody");
        let (alice_since, bob_since) = (next(&sync), next(&bob.sync(None).await));

        bob.join(&room).await.ok();
        let (lists, alice_since) = alice.device_lists(&alice_since).await;
        assert_eq!(lists, changed(&bob));
        let (lists, bob_since) = bob.device_lists(&bob_since).await;
        assert_eq!(lists, changed(&alice));

        alice.say(&room, "hello").await;
        let (lists, bob_since) = bob.device_lists(&bob_since).await;
        assert_eq!(lists, nothing());
        alice.put(&at(&room, "/state/m.room.encryption/"), json!({ "algorithm": "m.megolm.v1.aes-sha2" })).await.ok();
        let (lists, bob_since) = bob.device_lists(&bob_since).await;
        assert_eq!(lists, changed(&alice));
        let (lists, alice_since) = alice.device_lists(&alice_since).await;
        assert_eq!(lists, changed(&bob));

        moderate(&alice, &room, "kick", &bob).await;
        let (lists, alice_since) = alice.device_lists(&alice_since).await;
        assert_eq!(lists, left(&bob));
        assert_eq!(bob.device_lists(&bob_since).await.0, left(&alice));
        assert_eq!(alice.device_lists(&alice_since).await.0, nothing());
    }

    async fn who_shares_another_room_has_not_left(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let mut rooms = Vec::new();
        for _ in 0..2 {
            rooms.push(alice.create_room(json!({ "preset": "public_chat" })).await);
            bob.join(&rooms[rooms.len() - 1]).await.ok();
        }
        let since = next(&alice.sync(None).await);
        bob.leave(&rooms[0]).await.ok();
        let (lists, since) = alice.device_lists(&since).await;
        assert_eq!(lists, nothing());
        bob.leave(&rooms[1]).await.ok();
        assert_eq!(alice.device_lists(&since).await.0, left(&bob));
    }

    /// Of both the next sync hears, on whichever node: what has become of them meanwhile is not said twice, nor left out.
    async fn what_is_between_two_places_stays_what_it_was(world) {
        let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let mut places = vec![next(&alice.sync(None).await)];
        let mut said = Vec::new();
        for step in 0..5 {
            match step {
                0 => drop(bob.encrypt(1).await),
                1 => drop(bob.leave(&room).await.ok()),
                2 => drop((bob.join(&room).await.ok(), carol.join(&room).await.ok())),
                3 => drop(carol.encrypt(1).await),
                _ => drop(carol.leave(&room).await.ok()),
            }
            let (lists, place) = alice.device_lists(&places[step]).await;
            said.push(lists);
            places.push(place);
        }
        let mut both = [&bob.user_id, &carol.user_id];
        both.sort();
        let came = json!({ "changed": both, "left": [] });
        let expected = [changed(&bob), left(&bob), came, changed(&carol), left(&carol)];
        assert_eq!(said, expected);
        // Long after, whoever asks again is told the same, with nothing in memory or with all of it.
        for _ in 0..2 {
            for (step, expected) in expected.iter().enumerate() {
                assert_eq!(alice.key_changes(&places[step], &places[step + 1]).await.ok(), *expected, "step {step}");
            }
        }
        let world = world.restarted().await;
        let alice = alice.at(&world);
        for (step, expected) in expected.iter().enumerate() {
            assert_eq!(alice.key_changes(&places[step], &places[step + 1]).await.ok(), *expected, "step {step}");
        }
        let sync = alice.sync(Some(&places[0])).await;
        assert_eq!(sync["device_lists"], changed(&bob), "she has come and gone");
    }

    /// Nobody else is shown it, and so nobody else may conclude from news of somebody's keys who has verified them.
    async fn a_signature_on_somebody_elses_key_is_news_to_the_signer_alone(world) {
        let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
        let laptop = world.login(&alice).await;
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        carol.join(&room).await.ok();
        let (of_alice, of_bob) = (CrossSigning::new(), CrossSigning::new());
        alice.vouch(of_alice.keys(&alice.user_id)).await.ok();
        bob.vouch(of_bob.keys(&bob.user_id)).await.ok();
        let mut since = Vec::new();
        for client in [&alice, &laptop, &bob, &carol] {
            since.push(next(&client.sync(None).await));
        }
        let (a, b) = (&alice.user_id, &bob.user_id);
        let signed = of_alice.user_signing.sign(a, &of_bob.keys(b)["master_key"]);
        assert_eq!(alice.sign(json!({ b: { of_bob.master.public_key(): signed } })).await, json!({}));
        let world = world.restarted().await;
        let expected = [(&alice, changed(&bob)), (&laptop, changed(&bob)), (&bob, nothing()), (&carol, nothing())];
        for ((client, expected), since) in expected.into_iter().zip(&since) {
            assert_eq!(client.clone().at(&world).device_lists(since).await.0, expected, "to {}", client.user_id);
        }
    }

    async fn every_sync_says_how_many_keys_there_are(world) {
        let alice = world.user("alice").await;
        let first = alice.sync(None).await;
        let second = alice.sync(Some(&next(&first))).await;
        let waited = alice.sync_with(Some(&next(&second)), "&timeout=100").await;
        for sync in [first, second, waited] {
            assert_eq!(sync["device_one_time_keys_count"], json!({ "signed_curve25519": 0 }), "{sync}");
            for name in ["device_unused_fallback_key_types", "org.matrix.msc2732.device_unused_fallback_key_types"] {
                assert_eq!(sync[name], json!([]), "{sync}");
            }
        }
    }

    async fn changes_between_what_are_no_two_places_are_refused(world) {
        let alice = world.user("alice").await;
        let from = next(&alice.sync(None).await);
        alice.create_room(json!({})).await;
        let to = next(&alice.sync(Some(&from)).await);
        alice.key_changes(&from, &to).await.ok();
        alice.key_changes(&to, &to).await.ok();
        let (from, to) = (from.as_str(), to.as_str());
        for (from, to) in [(to, from), (from, "s999999999"), ("here", to), ("", to), (from, "")] {
            alice.key_changes(from, to).await.refused(400, "M_INVALID_PARAM");
        }
        let path = format!("/_matrix/client/v3/keys/changes?from={from}&to={to}");
        world.call("GET", &path, None, None).await.refused(401, "M_MISSING_TOKEN");
    }
}
