//! Answers with more keys than should be in memory at once.

use super::*;
use crate::store::device_key;

/// In bytes. What is read at once is 4 MiB, and what is around it comes on top.
const MOST: usize = 6 * 1024 * 1024;

/// Gives somebody many devices, and returns what they are called.
async fn add_devices(app: &App, user: &User, count: usize, size: usize) -> BTreeSet<String> {
    let json = json!({ "more": "x".repeat(size) }).to_string();
    let names: BTreeSet<String> = (0..count).map(|n| format!("DEVICE{n}")).collect();
    let mut tx = app.db.begin().await.unwrap();
    for name in &names {
        device_key::upsert(&mut tx, &user.user_id, device_id(name), &json, "a signature").await.unwrap();
    }
    tx.commit().await.unwrap();
    names
}

fn devices_of(answer: &Value, user: &User) -> BTreeSet<String> {
    answer["device_keys"][user.user_id.as_str()].as_object().unwrap().keys().cloned().collect()
}

#[tokio::test]
async fn what_is_too_much_comes_in_parts() {
    for world in World::on_each_engine().await {
        let app = &world.app;
        let (alice, bob) = (person(&world, "alice", "PHONE").await, person(&world, "bob", "PHONE").await);
        let (carol, dan) = (person(&world, "carol", "PHONE").await, person(&world, "dan", "PHONE").await);
        for user in [&alice, &bob, &carol] {
            let keys = Vouching::new().keys(&user.user_id);
            vouch(app, user, &keys, Confirmation::Missing).await.unwrap();
        }
        let of_alice = add_devices(app, &alice, 2, 100).await;
        let of_bob = add_devices(app, &bob, 600, 15 * 1024).await;
        let of_dan = add_devices(app, &dan, 3, 100).await;
        let nobody = OwnedUserId::try_from("@nobody:localhost").unwrap();
        let users = [&alice, &bob, &carol, &dan].map(|user| (user.user_id.clone(), Vec::new()));
        let mut asked = BTreeMap::from(users);
        asked.insert(nobody, Vec::new());
        asked.insert(OwnedUserId::try_from("@erin:elsewhere.example").unwrap(), Vec::new());

        let (answer, parts) = query_all(app, &alice.user_id, &asked).await;
        assert!(parts.len() > 2 && parts.iter().all(|size| *size < MOST), "{parts:?}");
        assert_eq!(answer["device_keys"].as_object().unwrap().len(), 4);
        assert_eq!(devices_of(&answer, &alice), of_alice);
        assert_eq!(devices_of(&answer, &bob), of_bob);
        assert_eq!(devices_of(&answer, &carol), BTreeSet::new());
        assert_eq!(devices_of(&answer, &dan), of_dan);
        let users_of = |field: &str| answer[field].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let vouching = [&alice, &bob, &carol].map(|user| user.user_id.to_string());
        assert_eq!((users_of("master_keys"), users_of("self_signing_keys")), (vouching.to_vec(), vouching.to_vec()));
        assert_eq!(users_of("user_signing_keys"), [alice.user_id.to_string()]);
        assert_eq!(users_of("failures"), ["elsewhere.example"]);

        // Those who are asked for alone are the same, and of Bob one device among all of them.
        asked.remove(&bob.user_id);
        let (without, parts) = query_all(app, &alice.user_id, &asked).await;
        assert_eq!(parts.len(), 1);
        for user in [&alice, &carol, &dan] {
            let name = user.user_id.as_str();
            assert_eq!(without["device_keys"][name], answer["device_keys"][name]);
            assert_eq!(without["master_keys"][name], answer["master_keys"][name]);
        }
        let asked = BTreeMap::from([(bob.user_id.clone(), vec!["DEVICE500".into(), "NONE".into()])]);
        let (answer, _) = query_all(app, &alice.user_id, &asked).await;
        assert_eq!(devices_of(&answer, &bob), BTreeSet::from(["DEVICE500".to_owned()]));
        assert_eq!(answer["user_signing_keys"], json!({}));
        world.close().await;
    }
}
