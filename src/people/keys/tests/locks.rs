//! Whoever writes keys waits for others, and never for somebody who waits for them.

use super::*;
use crate::store::cross_signing;

/// What one user signs of the master key of another.
fn signature_on(user: &User, keys: &Vouching, other: &User, others: &Vouching) -> Value {
    let master = others.master.cross_signing_key(other.user_id.as_str(), "master", None);
    let signed = keys.user_signing.sign(user.user_id.as_str(), &master);
    json!({ other.user_id.as_str(): { others.master.public_key(): signed } })
}

/// Somebody with cross-signing keys.
async fn with_keys(world: &World, name: &str) -> (User, Vouching) {
    let (user, keys) = (person(world, name, "PHONE").await, Vouching::new());
    vouch(&world.app, &user, &keys.keys(&user.user_id), Confirmation::Missing).await.unwrap();
    (user, keys)
}

/// Two verify each other, and then replace their keys at once, again and again, each on a node: they delete what they
/// have signed of each other.
async fn replace_keys_at_once(world: &World, (here, there): (&App, &App)) {
    let (alice, mut of_alice) = with_keys(world, "alice").await;
    let (bob, mut of_bob) = with_keys(world, "bob").await;
    for _ in 0..20 {
        let failures = tokio::join!(
            sign(here, &alice, signature_on(&alice, &of_alice, &bob, &of_bob)),
            sign(there, &bob, signature_on(&bob, &of_bob, &alice, &of_alice)),
        );
        assert_eq!(failures, (json!({}), json!({})));
        (of_alice, of_bob) = (Vouching::new(), Vouching::new());
        let (new_of_alice, new_of_bob) = (of_alice.keys(&alice.user_id), of_bob.keys(&bob.user_id));
        let done = tokio::join!(
            vouch(here, &alice, &new_of_alice, Confirmation::Given),
            vouch(there, &bob, &new_of_bob, Confirmation::Given),
        );
        assert_eq!((done.0.unwrap(), done.1.unwrap()), (Outcome::Done, Outcome::Done));
    }
}

#[tokio::test]
async fn two_who_have_verified_each_other_replace_their_keys_at_once() {
    for world in World::on_each_engine().await {
        Box::pin(replace_keys_at_once(&world, (&world.app, &world.app))).await;
        world.close().await;
    }
}

#[tokio::test]
async fn they_do_so_on_two_nodes() {
    let Some((world, other)) = World::two_nodes().await else { return };
    Box::pin(replace_keys_at_once(&world, (&world.app, &other))).await;
    world.close_both(other).await;
}

/// A signature that came too late would be there again once its key is.
#[tokio::test]
async fn no_signature_is_kept_of_a_key_that_is_replaced_meanwhile() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let (alice, of_alice) = with_keys(&world, "alice").await;
        let (bob, of_bob) = with_keys(&world, "bob").await;
        for _ in 0..10 {
            let other = Vouching::new().keys(&bob.user_id);
            let (_, replaced) = tokio::join!(
                sign(app, &alice, signature_on(&alice, &of_alice, &bob, &of_bob)),
                vouch(app, &bob, &other, Confirmation::Given),
            );
            replaced.unwrap();
            vouch(app, &bob, &of_bob.keys(&bob.user_id), Confirmation::Given).await.unwrap();
            let shown = query(app, &alice.user_id, &bob.user_id).await;
            assert!(shown["master_keys"][bob.user_id.as_str()].get("signatures").is_none(), "{shown}");
        }
        world.close().await;
    }
}

/// As it is while its owner replaces it: whoever would sign it sees what becomes of it.
#[tokio::test]
async fn who_signs_a_master_key_waits_for_whoever_holds_it() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let (alice, of_alice) = with_keys(&world, "alice").await;
        let (bob, of_bob) = with_keys(&world, "bob").await;
        let mut tx = app.db.begin().await.unwrap();
        cross_signing::lock_master(&mut tx, &bob.user_id).await.unwrap().unwrap();
        let deleting = async {
            cross_signing::delete(&mut tx, &bob.user_id, cross_signing::Usage::Master).await.unwrap();
            tx.commit().await.unwrap();
        };
        let signing = sign(app, &alice, signature_on(&alice, &of_alice, &bob, &of_bob));
        let (failures, ()) = tokio::join!(signing, deleting);
        let failure = &failures[bob.user_id.as_str()][of_bob.master.public_key()];
        assert_eq!(failure["errcode"], "M_NOT_FOUND", "{failures}");
        world.close().await;
    }
}

/// `a-` sorts before `a:`, and after `a`.
#[tokio::test]
async fn fallback_keys_are_put_claimed_and_deleted_at_once() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let alice = person(&world, "alice", "LAPTOP").await;
        for round in 0..10 {
            let phone = log_in(&world, "alice", "PHONE").await;
            let mut upload = Upload::new();
            for algorithm in ["a", "a-b", "B"] {
                let id = format!("{algorithm}:{round}");
                upload.fallback_keys.insert(id.as_str().try_into().unwrap(), raw(&json!(round.to_string())));
            }
            app.keys.upload(&phone, &upload).await.unwrap();
            let claims = ["B", "a-b", "a"].map(|algorithm| claim(app, &phone.user_id, "PHONE", algorithm));
            let mut other = Upload::new();
            for algorithm in ["a", "a-b", "B"] {
                let id = format!("{algorithm}:other{round}");
                other.fallback_keys.insert(id.as_str().try_into().unwrap(), raw(&json!("other")));
            }
            let (claimed, uploaded) = tokio::join!(join_all(claims), app.keys.upload(&phone, &other));
            uploaded.unwrap();
            assert!(claimed.iter().all(Option::is_some), "{claimed:?}");
            let claims = ["B", "a-b", "a"].map(|algorithm| claim(app, &phone.user_id, "PHONE", algorithm));
            let devices = DeviceSelection::These(&["PHONE"]);
            let (_, ended) = tokio::join!(join_all(claims), app.accounts.delete_devices(&alice.user_id, devices));
            ended.unwrap();
        }
        world.close().await;
    }
}

#[tokio::test]
async fn a_name_that_no_database_takes_fails_alone() {
    for world in World::on_each_engine().await {
        let (app, alice) = (&world.app, person(&world, "alice", "PHONE").await);
        let (phone, keys, a) = (Pair::new("PHONE"), Vouching::new(), alice.user_id.as_str());
        app.keys.upload(&alice, &identity(&phone, &alice.user_id)).await.unwrap();
        vouch(app, &alice, &keys.keys(&alice.user_id), Confirmation::Missing).await.unwrap();
        let signed = json!({ a: {
            "PHONE": keys.self_signing.sign(a, &phone.device_keys(a)),
            "PH\u{0}ONE": keys.self_signing.sign(a, &phone.device_keys(a)),
        } });
        let failures = sign(app, &alice, signed).await;
        assert_eq!(failures[a]["PH\u{0}ONE"]["errcode"], "M_NOT_FOUND", "{failures}");
        assert_eq!(failures[a].as_object().unwrap().len(), 1, "{failures}");
        world.close().await;
    }
}
