//! Every way in, tried with somebody else's keys or with keys that were taken away.

use super::*;

#[tokio::test]
async fn account_takeover_by_registering_a_name_that_is_taken() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        let alice = house.register("alice", "secret").await;
        for name in ["alice", "ALICE", "Alice"] {
            assert_eq!(kind(house.accounts.check_username(name).await), ErrorKind::UserInUse);
        }
        // Whoever skips that check, or loses a race after it, is refused as well.
        let user_id = alice.user_id.clone();
        let thief = house.registration(user_id, "thief", Some(on("PHONE"))).await;
        let thief = Registration { admin: true, ..thief };
        assert_eq!(kind(house.accounts.register(thief).await), ErrorKind::UserInUse);
        assert!(house.is_in(&alice).await);
        assert_eq!(house.user(&alice).await.rank, Rank::Member);
        assert_eq!(kind(house.accounts.login_with_password("alice", "thief", on("X")).await), ErrorKind::Forbidden);
        // Not even the name of an account that is gone.
        house.accounts.deactivate(&alice.user_id, true).await.unwrap();
        assert_eq!(kind(house.accounts.check_username("alice").await), ErrorKind::UserInUse);
        database.close().await;
    }
}

#[tokio::test]
async fn account_takeover_by_logging_in_with_what_belongs_to_somebody_else() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        let alice = house.register("alice", "alice's").await;
        let mallory = house.register("mallory", "mallory's").await;
        let login = |name, password| house.accounts.login_with_password(name, password, on("PHONE"));

        let mut messages = Vec::new();
        for (name, password) in [
            ("alice", "mallory's"),
            ("alice", ""),
            ("nobody", "mallory's"),
            ("@alice:elsewhere.org", "alice's"),
            ("alice\0", "alice's"),
            ("@", "alice's"),
        ] {
            let Err(Error::Refused { kind, message }) = login(name, password).await else { panic!("{name} came in") };
            assert_eq!(kind, ErrorKind::Forbidden);
            messages.push(message);
        }
        messages.dedup();
        assert_eq!(messages.len(), 1, "unknown users and wrong passwords look alike");

        // The same device ID is another device when another user has it.
        let again = login("mallory", "mallory's").await.unwrap();
        assert!(house.is_in(&again).await && !house.is_in(&mallory).await && house.is_in(&alice).await);
        // A user confirms with their own name and password only.
        let confirm = |name, password| house.accounts.is_password_of(&alice.user_id, name, password, HERE);
        assert!(confirm("alice", "alice's").await.unwrap());
        assert!(!confirm("mallory", "mallory's").await.unwrap());
        assert!(!confirm("alice", "mallory's").await.unwrap());
        // No kind of token passes for another.
        let pair = house.accounts.login_with_password("alice", "alice's", refreshable("TABLET")).await.unwrap();
        let login_token = house.accounts.create_login_token(&alice.user_id, &alice.device_id).await.unwrap();
        let refresh_token = pair.refresh_token.clone().unwrap();
        for token in [&refresh_token, &login_token, &String::new()] {
            assert!(house.accounts.caller(token, HERE).await.is_err());
        }
        for token in [&pair.access_token, &login_token] {
            assert!(house.accounts.refresh(token).await.is_err());
        }
        for token in [&pair.access_token, &refresh_token] {
            assert_eq!(kind(house.accounts.login_with_token(token, on("X")).await), ErrorKind::Forbidden);
        }
        database.close().await;
    }
}

#[tokio::test]
async fn account_takeover_by_a_login_token_that_was_used_or_is_old() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        let alice = house.register("alice", "secret").await;
        let token = house.accounts.create_login_token(&alice.user_id, &alice.device_id).await.unwrap();
        let session = house.accounts.login_with_token(&token, on("TABLET")).await.unwrap();
        assert_eq!(session.user_id, alice.user_id);
        assert_eq!(kind(house.accounts.login_with_token(&token, on("X")).await), ErrorKind::Forbidden);

        let token = house.accounts.create_login_token(&alice.user_id, &alice.device_id).await.unwrap();
        house.clock.advance(LOGIN_TOKEN_LIFETIME);
        assert_eq!(kind(house.accounts.login_with_token(&token, on("X")).await), ErrorKind::Forbidden);

        let token = house.accounts.create_login_token(&alice.user_id, &alice.device_id).await.unwrap();
        let caller = house.user(&alice).await;
        house.accounts.change_password(&caller, "better", true, HERE).await.unwrap();
        assert_eq!(kind(house.accounts.login_with_token(&token, on("X")).await), ErrorKind::Forbidden);
        house.accounts.clear_expired().await.unwrap();
        database.close().await;
    }
}

/// What each end of a session leaves of the tokens that it has made, and of those of another session.
#[tokio::test]
async fn account_takeover_by_a_token_that_outlives_its_session() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        let phone = house.register("alice", "secret").await;
        let alice = &phone.user_id;
        let login =
            async |device: &str| house.accounts.login_with_password("alice", "secret", on(device)).await.unwrap();
        for (end, others_stay) in
            [("logout", true), ("deletion", true), ("login", true), ("logout of all", false), ("password", false)]
        {
            // Again where it was ended with the rest.
            let (phone, laptop) = (login("PHONE").await, login("LAPTOP").await);
            let caller = house.user(&laptop).await;
            let tokens = async |device_id: &ruma::DeviceId| {
                let login = house.accounts.create_login_token(alice, device_id).await.unwrap();
                (login, house.accounts.create_openid_token(alice, device_id).await.unwrap())
            };
            let (gone, kept) = (tokens(&laptop.device_id).await, tokens(&phone.device_id).await);
            match end {
                "logout" => house.accounts.logout(&caller).await.unwrap(),
                "deletion" => {
                    let which = device::DeviceSelection::These(&["LAPTOP"]);
                    house.accounts.delete_devices(alice, which).await.unwrap();
                }
                "login" => drop(login("LAPTOP").await),
                "logout of all" => house.accounts.logout_all(alice).await.unwrap(),
                _ => house.accounts.change_password(&house.user(&phone).await, "secret", true, HERE).await.unwrap(),
            }
            let proves = async |token: &str| house.accounts.find_openid_user(token).await.unwrap().is_some();
            assert!(!proves(&gone.1).await, "{end}");
            assert_eq!(kind(house.accounts.login_with_token(&gone.0, on("X")).await), ErrorKind::Forbidden, "{end}");
            // With the password the login tokens go for which it was shown.
            assert_eq!(proves(&kept.1).await, others_stay || end == "password", "{end}");
            assert_eq!(house.accounts.login_with_token(&kept.0, on("X")).await.is_ok(), others_stay, "{end}");
        }
        for table in ["login_tokens", "openid_tokens"] {
            house.accounts.logout_all(alice).await.unwrap();
            assert_eq!(database.dump(table).await, [""; 0], "{table}");
        }
        let late = house.accounts.create_openid_token(alice, &phone.device_id).await;
        assert!(matches!(kind(late), ErrorKind::UnknownToken(_)), "nothing begins after its session");
        let late = house.accounts.create_login_token(alice, &phone.device_id).await;
        assert!(matches!(kind(late), ErrorKind::UnknownToken(_)));
        database.close().await;
    }
}

#[tokio::test]
async fn a_changed_password_ends_the_other_sessions_if_asked() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        let phone = house.register("alice", "old").await;
        let laptop = house.accounts.login_with_password("alice", "old", refreshable("LAPTOP")).await.unwrap();
        let caller = house.user(&phone).await;
        assert_eq!(kind(house.accounts.change_password(&caller, "", false, HERE).await), ErrorKind::WeakPassword);

        house.accounts.change_password(&caller, "new", false, HERE).await.unwrap();
        assert!(house.is_in(&phone).await && house.is_in(&laptop).await);
        assert!(house.accounts.login_with_password("alice", "old", on("X")).await.is_err());

        house.accounts.change_password(&caller, "newer", true, HERE).await.unwrap();
        assert!(house.is_in(&phone).await && !house.is_in(&laptop).await);
        assert!(house.accounts.refresh(laptop.refresh_token.as_deref().unwrap()).await.is_err());
        database.close().await;
    }
}

#[tokio::test]
async fn a_deactivated_account_is_closed_for_good() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        let alice = house.register("alice", "secret").await;
        let laptop = house.accounts.login_with_password("alice", "secret", refreshable("LAPTOP")).await.unwrap();
        let login_token = house.accounts.create_login_token(&alice.user_id, &alice.device_id).await.unwrap();
        house.accounts.deactivate(&alice.user_id, false).await.unwrap();

        assert!(!house.is_in(&alice).await && !house.is_in(&laptop).await);
        // Asked for before, and a moment too late to be written down.
        assert!(house.accounts.create_openid_token(&alice.user_id, &alice.device_id).await.is_err());
        assert!(house.accounts.create_login_token(&alice.user_id, &alice.device_id).await.is_err());
        assert!(house.accounts.refresh(laptop.refresh_token.as_deref().unwrap()).await.is_err());
        assert_eq!(kind(house.accounts.login_with_token(&login_token, on("X")).await), ErrorKind::Forbidden);
        // Only who knows the password is told.
        let login = |password| house.accounts.login_with_password("alice", password, on("X"));
        assert_eq!(kind(login("secret").await), ErrorKind::UserDeactivated);
        assert_eq!(kind(login("guess").await), ErrorKind::Forbidden);
        assert!(!house.accounts.is_password_of(&alice.user_id, "alice", "secret", HERE).await.unwrap());
        house.accounts.deactivate(&alice.user_id, true).await.unwrap();
        assert_eq!(kind(login("secret").await), ErrorKind::Forbidden);
        database.close().await;
    }
}

#[tokio::test]
async fn the_shared_secret_vouches_for_one_account_once() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Closed).await;
        let register = |nonce: String, name: &'static str, admin: bool, mac: String| {
            let accounts = house.accounts.clone();
            async move {
                let new = SharedSecretRegistration {
                    nonce: &nonce,
                    username: name,
                    password: "secret",
                    admin,
                    user_type: None,
                    mac: &mac,
                    session: Some(on("PHONE")),
                    address: HERE,
                };
                accounts.register_with_shared_secret(new).await
            }
        };
        let mac = |nonce: &str, name: &str, admin: bool| shared_secret::mac(SECRET, nonce, name, "secret", admin);
        let nonce = || async { house.accounts.create_nonce().await.unwrap() };

        let n = nonce().await;
        let (user_id, session) = register(n.clone(), "root", true, mac(&n, "root", true)).await.unwrap();
        assert_eq!(user_id, "@root:example.org");
        assert_eq!(house.user(&session.unwrap()).await.rank, Rank::Administrator);
        assert_eq!(kind(register(n.clone(), "root2", true, mac(&n, "root2", true)).await), ErrorKind::Unknown);

        for (name, admin, vouched) in [("eve", false, ("bob", false)), ("eve", true, ("eve", false))] {
            let n = nonce().await;
            let mac = mac(&n, vouched.0, vouched.1);
            assert_eq!(kind(register(n, name, admin, mac).await), ErrorKind::Forbidden);
        }
        for bad in ["", "zz", "abc", "0", "é"] {
            assert_eq!(kind(register(nonce().await, "eve", false, bad.to_owned()).await), ErrorKind::Forbidden);
        }
        let n = nonce().await;
        house.clock.advance(Duration::from_mins(1));
        assert_eq!(kind(register(n.clone(), "eve", false, mac(&n, "eve", false)).await), ErrorKind::Unknown);
        database.close().await;
    }
}
