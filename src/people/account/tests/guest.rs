//! Guests, and who may make a full account of one.

use super::*;
use crate::store::{token::TokenHash, user_directory};

async fn guest(house: &House) -> Session {
    let session = NewSession { device_id: None, display_name: None, refreshable: false, address: HERE };
    house.accounts.register_guest(session).await.unwrap()
}

fn name(session: &Session) -> &str {
    session.user_id.localpart()
}

/// Makes a user of a guest.
async fn upgrade(house: &House, of: &Session, token: &str, password: &str) -> Result<Option<Session>> {
    let new = house.registration(of.user_id.clone(), password, Some(on("LAPTOP"))).await;
    house.accounts.upgrade_guest(&TokenHash::of(token), new).await
}

#[tokio::test]
async fn a_guest_becomes_a_user_and_stays_logged_in() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        let guest = guest(&house).await;
        assert!(guest.refresh_token.is_none() && guest.expires_in.is_none());
        let is_guest = async || {
            let caller = house.accounts.caller(&guest.access_token, HERE).await.unwrap();
            matches!(caller, Caller::Guest(_))
        };
        assert!(is_guest().await);
        for password in ["", "secret"] {
            let login = house.accounts.login_with_password(name(&guest), password, on("X")).await;
            assert_eq!(kind(login), ErrorKind::Forbidden, "a guest has no password");
        }

        let token = TokenHash::of(&guest.access_token);
        assert_eq!(house.accounts.check_guest(name(&guest), &token).await.unwrap(), guest.user_id);
        let laptop = upgrade(&house, &guest, &guest.access_token, "secret").await.unwrap();
        assert!(house.is_in(&laptop.unwrap()).await && house.is_in(&guest).await);
        assert!(!is_guest().await, "what was remembered of the token is forgotten");
        assert_eq!(*house.heard.0.lock(), std::slice::from_ref(&guest.user_id));
        house.accounts.login_with_password(name(&guest), "secret", on("PHONE")).await.unwrap();
        database.close().await;
    }
}

/// A migration has put everybody into the directory who had an account then.
#[tokio::test]
async fn a_guest_from_before_there_was_a_directory_becomes_a_user() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        let guest = guest(&house).await;
        let mut tx = database.db().begin().await.unwrap();
        user_directory::add(&mut tx, &guest.user_id, None).await.unwrap();
        tx.commit().await.unwrap();
        upgrade(&house, &guest, &guest.access_token, "secret").await.unwrap();
        let mut tx = database.db().begin().await.unwrap();
        assert_eq!(user_directory::lock(&mut tx, &guest.user_id).await.unwrap(), Some(false));
        drop(tx);
        database.close().await;
    }
}

#[tokio::test]
async fn account_takeover_by_a_guest_access_token_of_somebody_else() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        let (guest, other) = (guest(&house).await, guest(&house).await);
        let alice = house.register("alice", "secret").await;
        let openid = house.accounts.create_openid_token(&guest.user_id, &guest.device_id).await.unwrap();
        for (of, token) in [
            (&guest, &other.access_token),
            (&guest, &alice.access_token),
            (&guest, &openid),
            (&guest, &String::new()),
            (&alice, &alice.access_token),
            (&alice, &guest.access_token),
        ] {
            let checked = house.accounts.check_guest(name(of), &TokenHash::of(token)).await;
            assert_eq!(kind(checked), ErrorKind::Forbidden);
            // Whoever skips that check, or loses a race after it, is refused as well.
            assert_eq!(kind(upgrade(&house, of, token, "thief").await), ErrorKind::Forbidden);
        }
        let unknown = house.accounts.check_guest("nobody", &TokenHash::of(&guest.access_token)).await;
        assert_eq!(kind(unknown), ErrorKind::Forbidden);
        assert!(house.accounts.login_with_password("alice", "thief", on("X")).await.is_err());

        // A token is good for it as long as it is good for anything, and once.
        upgrade(&house, &guest, &guest.access_token, "secret").await.unwrap();
        let again = upgrade(&house, &guest, &guest.access_token, "thief").await;
        assert_eq!(kind(again), ErrorKind::Forbidden);
        house.accounts.logout_all(&other.user_id).await.unwrap();
        let late = upgrade(&house, &other, &other.access_token, "thief").await;
        assert_eq!(kind(late), ErrorKind::Forbidden);
        database.close().await;
    }
}

#[tokio::test]
async fn a_registration_token_that_is_used_up_leaves_a_guest_a_guest() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Token).await;
        let guest = guest(&house).await;
        let token = house.accounts.create_registration_token(Some(0), None).await.unwrap();
        let new = house.registration(guest.user_id.clone(), "secret", Some(on("LAPTOP"))).await;
        let (new, held) = (Registration { token: Some(&token), ..new }, TokenHash::of(&guest.access_token));
        assert_eq!(kind(house.accounts.upgrade_guest(&held, new).await), ErrorKind::Forbidden);
        assert!(matches!(house.accounts.caller(&guest.access_token, HERE).await.unwrap(), Caller::Guest(_)));
        assert!(house.accounts.login_with_password(name(&guest), "secret", on("X")).await.is_err());
        database.close().await;
    }
}
