//! Whatever changes an account happens together with the entry that has every node look it up again, or not at all.

use super::*;
use crate::{
    people::threepid::Proof,
    store::{device::DeviceSelection, token::TokenHash},
};

/// What an act may change, except what it takes before it begins.
const TABLES: [&str; 14] = [
    "accounts",
    "devices",
    "access_tokens",
    "refresh_tokens",
    "login_tokens",
    "openid_tokens",
    "profiles",
    "filters",
    "delayed_events",
    "threepids",
    "uia_sessions",
    "user_directory",
    "erasures",
    "errands",
];

async fn rows(database: &TestDatabase) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for table in TABLES {
        rows.push(database.dump(table).await);
    }
    rows
}

/// Has an act fail where the log is written, which is between the rows and the commit, and then succeed.
async fn is_whole<T>(house: &House, database: &TestDatabase, act: &str, run: impl AsyncFn() -> Result<T>) {
    let before = rows(database).await;
    let heard = house.heard.0.lock().len();
    database.refuse_log().await;
    assert!(matches!(run().await, Err(Error::Broken(_))), "{act}: the log can't take it");
    database.accept_log().await;
    assert_eq!(rows(database).await, before, "{act}: nothing is left of it");
    assert_eq!(house.heard.0.lock().len(), heard, "{act}: nobody is notified of what did not happen");
    run().await.unwrap_or_else(|error| panic!("{act}: {error}"));
    assert_ne!(rows(database).await, before, "{act}: it has happened");
    assert_eq!(house.heard.0.lock().len(), heard + 1, "{act}: and every node is to look");
}

#[tokio::test]
async fn what_changes_an_account_is_in_the_log_or_has_not_happened() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        let House { accounts, .. } = &house;
        let admin = accounts.create_user("root", "secret", true).await.unwrap();
        let admin = accounts.login_with_password(admin.as_str(), "secret", on("DESK")).await.unwrap();
        let admin = house.user(&admin).await.into_administrator().unwrap();
        let phone = house.register("alice", "secret").await;
        let alice = &phone.user_id;
        let caller = house.user(&phone).await;

        let login = async || accounts.login_with_password("alice", "secret", on("LAPTOP")).await;
        is_whole(&house, &database, "a login", login).await;
        let login = async || {
            let token = accounts.create_login_token(alice, &phone.device_id).await?;
            accounts.login_with_token(&token, on("TABLET")).await
        };
        is_whole(&house, &database, "a login by token", login).await;
        let change = async || accounts.change_password(&caller, "better", true, HERE).await;
        is_whole(&house, &database, "a change of the password", change).await;
        database
            .run(
                "INSERT INTO threepids (medium, address, user_id, validated_ts, added_ts)
                    VALUES ('email', 'alice@example.org', '@alice:example.org', 1, 1);
                INSERT INTO threepid_sessions (sid, operation, medium, address, secret_hash, send_attempt,
                        sending_until_ts, failures, validated_ts, changed_ts)
                    VALUES ('proof', 'reset_password', 'email', 'alice@example.org', '', 1, 0, 0, 1800000000000,
                        1800000000000)",
            )
            .await;
        let proof: Proof = serde_json::from_str(r#""proof""#).unwrap();
        let reset = async || accounts.reset_password(&proof, "best", false, HERE).await;
        is_whole(&house, &database, "a reset of the password", reset).await;
        let lock = async || accounts.restrict(&admin, alice, Restriction::Suspended, true).await;
        is_whole(&house, &database, "a suspension", lock).await;
        accounts.login_with_password("alice", "best", on("LAPTOP")).await.unwrap();
        let delete = async || accounts.delete_devices(alice, DeviceSelection::These(&["LAPTOP"])).await;
        is_whole(&house, &database, "the removal of a device", delete).await;
        is_whole(&house, &database, "a logout", async || accounts.logout(&caller).await).await;
        accounts.login_with_password("alice", "best", on("LAPTOP")).await.unwrap();
        is_whole(&house, &database, "a logout of all", async || accounts.logout_all(alice).await).await;
        accounts.login_with_password("alice", "best", on("LAPTOP")).await.unwrap();
        is_whole(&house, &database, "a deactivation", async || accounts.deactivate(alice, false).await).await;
        is_whole(&house, &database, "an erasure", async || accounts.deactivate(alice, true).await).await;
        assert_eq!(database.dump("erasures").await.len(), 1);
        accounts.deactivate(alice, true).await.unwrap();
        assert_eq!(database.dump("erasures").await.len(), 1, "once is enough");
        database.close().await;
    }
}

#[tokio::test]
async fn a_registration_is_answered_again_in_the_log_or_not_at_all() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        database
            .run(
                "INSERT INTO uia_sessions (session_id, operation, params, completed, created_ts)
                    VALUES ('session', 'register', '', '[]', 1800000000000)",
            )
            .await;
        let alice = house.accounts.check_username("alice").await.unwrap();
        let new = house.registration(alice, "secret", Some(on("PHONE"))).await;
        let confirmed_in = Some(Confirmation { session_id: "session", with_password: true });
        house.accounts.register(Registration { confirmed_in, ..new }).await.unwrap();
        let again = Repetition {
            session_id: "session",
            username: Some("alice"),
            password: Some("secret"),
            device_id: None,
            inhibit_login: None,
            address: HERE,
        };
        let repeat = async || house.accounts.register_again(&again).await.map(|made| made.unwrap());
        is_whole(&house, &database, "a repetition", repeat).await;
        database.close().await;
    }
}

#[tokio::test]
async fn a_guest_becomes_a_user_in_the_log_or_stays_a_guest() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        let session = NewSession { device_id: None, display_name: None, refreshable: false, address: HERE };
        let guest = house.accounts.register_guest(session).await.unwrap();
        let upgrade = async || {
            let new = house.registration(guest.user_id.clone(), "secret", Some(on("LAPTOP"))).await;
            house.accounts.upgrade_guest(&TokenHash::of(&guest.access_token), new).await
        };
        is_whole(&house, &database, "an upgrade", upgrade).await;
        database.close().await;
    }
}
