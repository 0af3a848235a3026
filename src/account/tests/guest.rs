//! Guests, and who may make a full account of one.

use super::*;
use crate::store::user_directory;

async fn guest(house: &House) -> Session {
    let session = NewSession { device_id: None, display_name: None, refreshable: false, address: HERE };
    house.accounts.register_guest(session).await.unwrap()
}

fn name(session: &Session) -> &str {
    session.user_id.localpart()
}

fn upgrade<'a>(of: &Session, password: &'a str) -> Registration<'a> {
    let session = Some(on("LAPTOP"));
    Registration { user_id: of.user_id.clone(), password, admin: false, token: None, terms: None, proof: None, session }
}

#[tokio::test]
async fn a_guest_becomes_a_user_and_stays_logged_in() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open);
        let guest = guest(&house).await;
        assert!(guest.refresh_token.is_none() && guest.expires_in.is_none());
        let caller = async || house.accounts.caller(&guest.access_token, HERE).await.unwrap();
        assert!(caller().await.guest && !caller().await.admin);
        for password in ["", "secret"] {
            let login = house.accounts.login_with_password(name(&guest), password, on("X")).await;
            assert_eq!(kind(login), ErrorKind::Forbidden, "a guest has no password");
        }

        let user_id = house.accounts.check_guest(name(&guest), &guest.access_token).await.unwrap();
        assert_eq!(user_id, guest.user_id);
        let laptop = house.accounts.upgrade_guest(&guest.access_token, upgrade(&guest, "secret")).await.unwrap();
        assert!(house.is_in(&laptop.unwrap()).await && house.is_in(&guest).await);
        assert!(!caller().await.guest, "what was remembered of the token is forgotten");
        assert_eq!(*house.changed.lock(), std::slice::from_ref(&guest.user_id));
        house.accounts.login_with_password(name(&guest), "secret", on("PHONE")).await.unwrap();
        database.close().await;
    }
}

/// A migration has put everybody into the directory who had an account then.
#[tokio::test]
async fn a_guest_from_before_there_was_a_directory_becomes_a_user() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open);
        let guest = guest(&house).await;
        let mut tx = database.db().begin().await.unwrap();
        user_directory::add(&mut tx, &guest.user_id, None).await.unwrap();
        tx.commit().await.unwrap();
        house.accounts.upgrade_guest(&guest.access_token, upgrade(&guest, "secret")).await.unwrap();
        let mut tx = database.db().begin().await.unwrap();
        assert_eq!(user_directory::lock(&mut tx, &guest.user_id).await.unwrap(), Some(false));
        drop(tx);
        database.close().await;
    }
}

#[tokio::test]
async fn account_takeover_by_a_guest_access_token_of_somebody_else() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open);
        let (guest, other) = (guest(&house).await, guest(&house).await);
        let alice = house.register("alice", "secret").await;
        let openid = house.accounts.create_openid_token(&guest.user_id).await.unwrap();
        for (of, token) in [
            (&guest, &other.access_token),
            (&guest, &alice.access_token),
            (&guest, &openid),
            (&guest, &String::new()),
            (&alice, &alice.access_token),
            (&alice, &guest.access_token),
        ] {
            assert_eq!(kind(house.accounts.check_guest(name(of), token).await), ErrorKind::Forbidden);
            // Whoever skips that check, or loses a race after it, is refused as well.
            assert_eq!(kind(house.accounts.upgrade_guest(token, upgrade(of, "thief")).await), ErrorKind::Forbidden);
        }
        assert_eq!(kind(house.accounts.check_guest("nobody", &guest.access_token).await), ErrorKind::Forbidden);
        assert!(house.accounts.login_with_password("alice", "thief", on("X")).await.is_err());

        // A token is good for it as long as it is good for anything, and once.
        house.accounts.upgrade_guest(&guest.access_token, upgrade(&guest, "secret")).await.unwrap();
        let again = house.accounts.upgrade_guest(&guest.access_token, upgrade(&guest, "thief")).await;
        assert_eq!(kind(again), ErrorKind::Forbidden);
        house.accounts.logout_all(&other.user_id).await.unwrap();
        let late = house.accounts.upgrade_guest(&other.access_token, upgrade(&other, "thief")).await;
        assert_eq!(kind(late), ErrorKind::Forbidden);
        database.close().await;
    }
}

#[tokio::test]
async fn a_registration_token_that_is_used_up_leaves_a_guest_a_guest() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Token);
        let guest = guest(&house).await;
        let token = house.accounts.create_registration_token(Some(0), None).await.unwrap();
        let new = Registration { token: Some(&token), ..upgrade(&guest, "secret") };
        assert_eq!(kind(house.accounts.upgrade_guest(&guest.access_token, new).await), ErrorKind::Forbidden);
        assert!(house.accounts.caller(&guest.access_token, HERE).await.unwrap().guest);
        assert!(house.accounts.login_with_password(name(&guest), "secret", on("X")).await.is_err());
        database.close().await;
    }
}
