//! Keys end with their device, also where they are uploaded beside a login or a logout.

use super::*;

/// Keys of each sort.
fn one_time_and_identity(pair: &Pair, user: &User) -> Upload {
    let mut upload = keys_of(&plain((0..3).map(|n| n.to_string())), Some(&("test:f".to_owned(), json!("x"))));
    upload.device_keys = identity(pair, &user.user_id).device_keys;
    upload
}

/// Whether anything is left of the keys of a device.
async fn has_keys(app: &App, user: &User) -> bool {
    let counts = one_time_key::count(&mut app.db.read().await.unwrap(), &user.user_id, &user.device_id).await.unwrap();
    let shown = query(app, &user.user_id, &user.user_id).await;
    counts.one_time.contains_key("test")
        || !counts.unused_fallback.is_empty()
        || shown["device_keys"][user.user_id.as_str()].get(user.device_id.as_str()).is_some()
}

#[tokio::test]
async fn keys_end_with_their_device_and_account() {
    for world in World::on_each_engine().await {
        let (alice, bob) = (person(&world, "alice", "PHONE").await, person(&world, "bob", "LAPTOP").await);
        let (app, phone) = (&world.app, Pair::new("PHONE"));
        let upload = one_time_and_identity(&phone, &alice);
        app.keys.upload(&alice, &upload).await.unwrap();
        let keys = Vouching::new();
        vouch(app, &alice, &keys.keys(&alice.user_id), Confirmation::Missing).await.unwrap();
        let master = keys.master.cross_signing_key(alice.user_id.as_str(), "master", None);
        let signed = phone.sign(alice.user_id.as_str(), &master);
        sign(app, &alice, json!({ alice.user_id.as_str(): { keys.master.public_key(): signed } })).await;

        app.accounts.delete_devices(&alice.user_id, DeviceSelection::These(&["PHONE"])).await.unwrap();
        let shown = query(app, &bob.user_id, &alice.user_id).await;
        assert_eq!(shown["device_keys"][alice.user_id.as_str()], json!({}));
        assert!(shown["master_keys"][alice.user_id.as_str()].get("signatures").is_none(), "{shown}");
        assert_eq!(claim(app, &alice.user_id, "PHONE", "test").await, None);
        let gone = app.keys.upload(&alice, &upload).await;
        assert_eq!(refused(gone), "M_UNKNOWN_TOKEN");

        app.accounts.deactivate(&alice.user_id, false).await.unwrap();
        assert_eq!(query(app, &bob.user_id, &alice.user_id).await["master_keys"], json!({}));
        let mut conn = app.db.read().await.unwrap();
        assert!(device::list(&mut conn, &alice.user_id).await.unwrap().is_empty());
        drop(conn);
        world.close().await;
    }
}

/// A request that has been on its way since before somebody logged in anew under the same device ID.
#[tokio::test]
async fn a_session_of_before_does_not_replace_the_keys_of_the_one_after_it() {
    for world in World::on_each_engine().await {
        let before = person(&world, "alice", "PHONE").await;
        let (old, new) = (Pair::new("PHONE"), Pair::new("PHONE"));
        world.app.keys.upload(&before, &identity(&old, &before.user_id)).await.unwrap();
        let after = log_in(&world, "alice", "PHONE").await;
        let shown = async || {
            let shown = query(&world.app, &after.user_id, &after.user_id).await;
            shown["device_keys"][after.user_id.as_str()]["PHONE"]["keys"]["ed25519:PHONE"].clone()
        };
        assert_eq!(shown().await, old.public_key(), "who logs in again under the same name may have kept the keys");
        world.app.keys.upload(&after, &identity(&new, &after.user_id)).await.unwrap();
        let late = world.app.keys.upload(&before, &identity(&old, &before.user_id)).await;
        assert!(matches!(late, Err(Error::Unavailable(_))), "{late:?}");
        assert_eq!(shown().await, new.public_key());
        // Deleted and made again, it is another device.
        world.app.accounts.delete_devices(&after.user_id, DeviceSelection::These(&["PHONE"])).await.unwrap();
        let again = log_in(&world, "alice", "PHONE").await;
        let late = world.app.keys.upload(&after, &identity(&new, &after.user_id)).await;
        assert!(matches!(late, Err(Error::Unavailable(_))), "{late:?}");
        assert!(!has_keys(&world.app, &again).await);
        world.close().await;
    }
}

#[tokio::test]
async fn who_was_thrown_out_leaves_no_keys_behind() {
    for world in World::on_each_engine().await {
        let phone = person(&world, "alice", "PHONE").await;
        let laptop = log_in(&world, "alice", "LAPTOP").await;
        world.app.accounts.delete_devices(&laptop.user_id, DeviceSelection::These(&["PHONE"])).await.unwrap();
        let keys = Vouching::new().keys(&phone.user_id);
        for confirmation in [Confirmation::Missing, Confirmation::Given] {
            assert_eq!(refused(vouch(&world.app, &phone, &keys, confirmation).await), "M_UNKNOWN_TOKEN");
        }
        let signed = serde_json::from_value(json!({})).unwrap();
        assert_eq!(refused(world.app.keys.upload_signatures(&phone, &signed).await), "M_UNKNOWN_TOKEN");
        assert_eq!(query(&world.app, &laptop.user_id, &laptop.user_id).await["master_keys"], json!({}));
        world.close().await;
    }
}

#[tokio::test]
async fn an_upload_beside_a_logout_leaves_no_keys_behind() {
    for world in World::on_each_engine().await {
        let laptop = person(&world, "alice", "LAPTOP").await;
        for _ in 0..10 {
            let phone = log_in(&world, "alice", "PHONE").await;
            let upload = one_time_and_identity(&Pair::new("PHONE"), &phone);
            let (uploaded, ended) = tokio::join!(
                world.app.keys.upload(&phone, &upload),
                world.app.accounts.delete_devices(&laptop.user_id, DeviceSelection::These(&["PHONE"])),
            );
            ended.unwrap();
            if let Err(error) = uploaded {
                assert_eq!(refused::<()>(Err(error)), "M_UNKNOWN_TOKEN");
            }
            assert!(!has_keys(&world.app, &phone).await);
        }
        world.close().await;
    }
}

/// Nobody could say whether the device that comes to be called so has signed them.
#[tokio::test]
async fn keys_from_before_any_identity_keys_are_not_those_of_the_device() {
    for world in World::on_each_engine().await {
        let alice = person(&world, "alice", "PHONE").await;
        let (other, phone) = (Pair::new("PHONE"), Pair::new("PHONE"));
        let mut early = Upload::new();
        let key = raw(&other.one_time_key(alice.user_id.as_str()));
        early.one_time_keys.insert("signed_curve25519:A".try_into().unwrap(), key);
        world.app.keys.upload(&alice, &early).await.unwrap();
        let counts = world.app.keys.upload(&alice, &identity(&phone, &alice.user_id)).await.unwrap();
        assert_eq!(counts.one_time["signed_curve25519"], 0);
        assert_eq!(claim(&world.app, &alice.user_id, "PHONE", "signed_curve25519").await, None);
        world.close().await;
    }
}

/// What has changed is what others may encrypt to it with, and not by which key it signs.
#[tokio::test]
async fn a_device_that_knows_more_algorithms_has_still_signed_what_it_has() {
    for world in World::on_each_engine().await {
        let (app, alice) = (&world.app, person(&world, "alice", "PHONE").await);
        let (phone, keys, a) = (Pair::new("PHONE"), Vouching::new(), alice.user_id.as_str());
        app.keys.upload(&alice, &one_time_and_identity(&phone, &alice)).await.unwrap();
        vouch(app, &alice, &keys.keys(&alice.user_id), Confirmation::Missing).await.unwrap();
        let master = phone.sign(a, &keys.master.cross_signing_key(a, "master", None));
        let device = keys.self_signing.sign(a, &phone.device_keys(a));
        let failures = sign(app, &alice, json!({ a: { keys.master.public_key(): master, "PHONE": device } })).await;
        assert_eq!(failures, json!({}));
        let mut more = phone.device_keys(a);
        more["algorithms"] = json!(["org.example.new"]);
        let mut upload = Upload::new();
        upload.device_keys = Some(raw(&phone.sign(a, &more)));
        let counts = app.keys.upload(&alice, &upload).await.unwrap();
        assert_eq!(counts.one_time["test"], 3);
        let shown = query(app, &alice.user_id, &alice.user_id).await;
        assert!(shown["master_keys"][a]["signatures"][a]["ed25519:PHONE"].is_string(), "{shown}");
        assert_eq!(shown["device_keys"][a]["PHONE"]["signatures"][a].as_object().unwrap().len(), 1, "{shown}");
        world.close().await;
    }
}

/// Whatever its node remembers of the session.
#[tokio::test]
async fn a_login_on_another_node_ends_the_session_of_before_as_well() {
    let Some((world, other)) = World::two_nodes().await else { return };
    let before = person(&world, "alice", "PHONE").await;
    let new = NewSession { device_id: Some("PHONE".into()), display_name: None, refreshable: false, address: HERE };
    other.accounts.login_with_password("alice", "correct horse", new).await.unwrap();
    let late = world.app.keys.upload(&before, &identity(&Pair::new("PHONE"), &before.user_id)).await;
    assert!(matches!(late, Err(Error::Unavailable(_))), "{late:?}");
    assert!(!has_keys(&other, &before).await);
    world.close_both(other).await;
}
