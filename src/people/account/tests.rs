//! Sessions and tokens from their beginning to their end.

mod guest;
mod takeover;
mod whole;

use std::net::{IpAddr, Ipv4Addr};

use parking_lot::Mutex;
use ruma::{OwnedUserId, api::error::ErrorKind, device_id, server_name, user_id};

use super::*;
use crate::{
    config::Config,
    db::testing::{self, TestDatabase},
    edge::hub::Hub,
    event::fact::{AccountChange, Batch, News},
    ground::{sizes::CacheSizes, tasks::Tasks},
    log::{Quotas, Reader, Tail},
    people::account::password::PasswordCost,
    store::device,
};

pub(crate) const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

const SECRET: &str = "open sesame";

/// Accounts with a clock that stands still, passwords that cost nothing and a log of their own.
pub(crate) struct House {
    pub(crate) accounts: Accounts,
    pub(crate) clock: Clock,
    pub(crate) heard: Arc<Heard>,
}

/// Whose devices have changed, as a reader of the log.
#[derive(Default)]
pub(crate) struct Heard(pub(crate) Mutex<Vec<OwnedUserId>>);

impl Reader for Heard {
    fn read(&self, batch: &Batch) {
        for (_, news) in batch.entries() {
            if let News::AccountChange(change) = news
                && let AccountChange::Devices(user_id) = &**change
            {
                self.0.lock().push(user_id.clone());
            }
        }
    }
}

pub(crate) async fn house(database: &TestDatabase, registration: RegistrationMode) -> House {
    let clock = Clock::manual(1_800_000_000_000);
    let settings = AccountSettings {
        registration,
        guests: true,
        shared_secret: Some(SECRET.to_owned()),
        access_token_lifetime: Duration::from_mins(1),
        password_cost: PasswordCost { memory_kib: 8, passes: 1 },
        password_min_length: 1,
        quotas: Quotas::of(&Config::default()),
    };
    let (db, here, random) = (database.db(), server_name!("example.org").to_owned(), Random::system());
    let (tail, tasks, metrics) = (Arc::new(Tail::default()), Tasks::new(), Metrics::new());
    let (token_cache, heard): (Arc<TokenCache>, Arc<Heard>) = Default::default();
    tail.follow_with(vec![Arc::clone(&token_cache) as _, Arc::clone(&heard) as _]);
    let log = Log::start(db.clone(), tail, random.clone(), metrics.clone(), Hub::disconnected(), &tasks).await.unwrap();
    let parts = (db.clone(), clock.clone(), random);
    let accounts =
        Accounts::new(parts, here, settings, metrics, (token_cache, &CacheSizes::default()), Notify::Log(log)).unwrap();
    House { accounts, clock, heard }
}

pub(crate) fn on(device_id: &str) -> NewSession {
    NewSession { device_id: Some(device_id.into()), display_name: None, refreshable: false, address: HERE }
}

fn refreshable(device_id: &str) -> NewSession {
    NewSession { refreshable: true, ..on(device_id) }
}

impl House {
    pub(crate) async fn register(&self, name: &str, password: &str) -> Session {
        let user_id = self.accounts.check_username(name).await.unwrap();
        let registration = self.registration(user_id, password, Some(on("PHONE"))).await;
        self.accounts.register(registration).await.unwrap().unwrap()
    }

    /// What permits itself.
    async fn registration(
        &self,
        user_id: OwnedUserId,
        password: &str,
        session: Option<NewSession>,
    ) -> Registration<'static> {
        let password_hash = self.accounts.hash_password(password).await.unwrap();
        Registration {
            user_id,
            password_hash,
            admin: false,
            token: None,
            terms: None,
            proof: None,
            session,
            confirmed_in: None,
        }
    }

    /// Who is logged in, and no guest.
    async fn user(&self, session: &Session) -> User {
        self.accounts.caller(&session.access_token, HERE).await.unwrap().into_user().unwrap()
    }

    async fn is_in(&self, session: &Session) -> bool {
        match self.accounts.caller(&session.access_token, HERE).await {
            Ok(caller) => {
                assert_eq!((caller.user_id(), caller.device_id()), (&*session.user_id, &*session.device_id));
                true
            }
            Err(error) => {
                assert!(matches!(error, Error::Refused { kind: ErrorKind::UnknownToken(_), .. }), "{error:?}");
                false
            }
        }
    }
}

#[track_caller]
fn kind<T>(result: Result<T>) -> ErrorKind {
    match result {
        Err(Error::Refused { kind, .. }) => kind,
        Err(other) => panic!("broke: {other:?}"),
        Ok(_) => panic!("was let in"),
    }
}

#[tokio::test]
async fn a_session_from_registration_to_logout() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        let phone = house.register("Alice", "secret").await;
        assert_eq!(phone.user_id, "@alice:example.org");
        assert!(house.is_in(&phone).await);
        let laptop = house.accounts.login_with_password("@Alice:example.org", "secret", on("LAPTOP")).await.unwrap();
        assert!(house.is_in(&laptop).await && house.is_in(&phone).await);

        house.accounts.logout(&house.user(&phone).await).await.unwrap();
        assert!(!house.is_in(&phone).await && house.is_in(&laptop).await);
        house.accounts.logout_all(&laptop.user_id).await.unwrap();
        assert!(!house.is_in(&laptop).await);
        assert_eq!(house.heard.0.lock().len(), 3);
        let mut conn = database.db().read().await.unwrap();
        assert_eq!(device::list(&mut conn, &phone.user_id).await.unwrap(), vec![]);
        drop(conn);
        database.close().await;
    }
}

/// As a long poll does, before it answers.
#[tokio::test]
async fn whoever_goes_on_for_long_is_looked_up_again_once_something_has_changed() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        let phone = house.register("alice", "secret").await;
        let caller = house.accounts.caller(&phone.access_token, HERE).await.unwrap();
        assert!(!caller.changed().is_raised());
        house.accounts.check_still_logged_in(&caller).await.unwrap();
        house.accounts.login_with_password("alice", "secret", on("LAPTOP")).await.unwrap();
        assert!(caller.changed().is_raised());
        house.accounts.check_still_logged_in(&caller).await.unwrap();
        assert!(!house.accounts.caller(&phone.access_token, HERE).await.unwrap().changed().is_raised());

        house.accounts.restrict_from_outside(&phone.user_id, Restriction::Locked, true).await.unwrap();
        house.accounts.changed_from_outside(&phone.user_id).await.unwrap();
        assert_eq!(kind(house.accounts.check_still_logged_in(&caller).await), ErrorKind::UserLocked);
        let user = house.user(&phone).await;
        assert_eq!(kind(house.accounts.change_password(&user, "other", false, HERE).await), ErrorKind::UserLocked);
        house.accounts.restrict_from_outside(&phone.user_id, Restriction::Locked, false).await.unwrap();
        house.accounts.logout(&user).await.unwrap();
        let gone = house.accounts.check_still_logged_in(&caller).await;
        assert!(matches!(kind(gone), ErrorKind::UnknownToken(_)));
        let change = house.accounts.change_password(&user, "other", false, HERE).await;
        assert!(matches!(kind(change), ErrorKind::UnknownToken(_)), "who was logged out meanwhile changes nothing");
        house.accounts.login_with_password("alice", "secret", on("PHONE")).await.unwrap();
        database.close().await;
    }
}

#[tokio::test]
async fn an_old_refresh_token_lasts_until_its_successors_are_used() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        house.register("alice", "secret").await;
        let first = house.accounts.login_with_password("alice", "secret", refreshable("TABLET")).await.unwrap();
        let refresh = |session: &Session| {
            let (accounts, token) = (house.accounts.clone(), session.refresh_token.clone().unwrap());
            async move { accounts.refresh(&token).await }
        };
        let lost = refresh(&first).await.unwrap();
        // The answer got lost: the client asks again, and what got lost is worth nothing.
        let second = refresh(&first).await.unwrap();
        assert!(!house.is_in(&lost).await && refresh(&lost).await.is_err());
        assert!(house.is_in(&first).await, "an access token lives until it expires");
        // The new access token is used.
        assert!(house.is_in(&second).await);
        assert!(refresh(&first).await.is_err());
        // Or the new refresh token is.
        let third = refresh(&second).await.unwrap();
        let fourth = refresh(&third).await.unwrap();
        assert!(refresh(&second).await.is_err());
        assert_eq!(fourth.expires_in, Some(Duration::from_mins(1)));
        assert!(house.is_in(&fourth).await);
        assert!(refresh(&third).await.is_err());

        house.clock.advance(Duration::from_mins(1));
        let Err(Error::Refused { kind: ErrorKind::UnknownToken(data), .. }) =
            house.accounts.caller(&fourth.access_token, HERE).await
        else {
            panic!("it has expired")
        };
        assert!(data.soft_logout);
        let fifth = refresh(&fourth).await.unwrap();
        assert!(house.is_in(&fifth).await);
        database.close().await;
    }
}

#[tokio::test]
async fn refreshing_at_once_leaves_one_successor() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        house.register("alice", "secret").await;
        let first = house.accounts.login_with_password("alice", "secret", refreshable("TABLET")).await.unwrap();
        let token = first.refresh_token.clone().unwrap();
        let refreshed = futures_util::future::join_all((0..6).map(|_| house.accounts.refresh(&token))).await;
        let mut alive = 0;
        for session in refreshed {
            alive += usize::from(house.is_in(&session.unwrap()).await);
        }
        assert_eq!(alive, 1);
        database.close().await;
    }
}

/// The password was hashed as it was typed, before passwords were brought to one form.
#[tokio::test]
async fn an_old_hash_lets_in_and_is_replaced() {
    use argon2::{Argon2, PasswordHasher as _};

    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        let alice = house.register("alice", "another").await.user_id;
        let (typed, composed) = ("cafe\u{301}", "caf\u{e9}");
        let old = Argon2::default().hash_password_with_salt(typed.as_bytes(), b"0123456789abcdef").unwrap();
        let mut tx = database.db().begin().await.unwrap();
        crate::store::account::set_password(&mut tx, &alice, &old.to_string()).await.unwrap();
        tx.commit().await.unwrap();
        let login = |password| house.accounts.login_with_password("alice", password, on("A"));
        assert_eq!(kind(login(composed).await), ErrorKind::Forbidden);
        assert!(house.accounts.is_password_of(&alice, "alice", typed, HERE).await.unwrap());
        login(typed).await.unwrap();
        login(composed).await.unwrap();
        login(typed).await.unwrap();
        assert_eq!(kind(login("cafe").await), ErrorKind::Forbidden);
        database.close().await;
    }
}

/// The phone and the laptop of somebody, after an upgrade.
#[tokio::test]
async fn of_two_logins_with_an_old_hash_none_is_refused() {
    use argon2::{Argon2, PasswordHasher as _};

    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        let alice = house.register("alice", "another").await.user_id;
        let typed = "cafe\u{301}";
        let old = Argon2::default().hash_password_with_salt(typed.as_bytes(), b"0123456789abcdef").unwrap();
        let mut tx = database.db().begin().await.unwrap();
        crate::store::account::set_password(&mut tx, &alice, &old.to_string()).await.unwrap();
        tx.commit().await.unwrap();
        let login = |device| house.accounts.login_with_password("alice", typed, on(device));
        let (phone, laptop) = tokio::join!(login("PHONE"), login("LAPTOP"));
        assert!(house.is_in(&phone.unwrap()).await && house.is_in(&laptop.unwrap()).await);
        let (right, wrong) = tokio::join!(login("TABLET"), house.accounts.login_with_password("alice", "no", on("X")));
        right.unwrap();
        assert_eq!(kind(wrong), ErrorKind::Forbidden);
        database.close().await;
    }
}

#[tokio::test]
async fn a_registration_token_lets_in_as_many_as_it_says() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Token).await;
        let token = house.accounts.create_registration_token(Some(3), None).await.unwrap();
        let register = async |number: usize| {
            let user_id = house.accounts.check_username(&format!("user{number}")).await?;
            let new = house.registration(user_id, "secret", Some(on("A"))).await;
            house.accounts.register(Registration { token: Some(&token), ..new }).await
        };
        let registered = futures_util::future::join_all((0..8).map(register)).await;
        assert_eq!(registered.iter().filter(|result| result.is_ok()).count(), 3);
        for refused in registered.into_iter().filter(Result::is_err) {
            assert_eq!(kind(refused), ErrorKind::Forbidden);
        }
        assert!(!house.accounts.is_registration_token_usable(&token).await.unwrap());
        // Whoever was refused has no account.
        let mut free = 0;
        for number in 0..8 {
            free += usize::from(house.accounts.check_username(&format!("user{number}")).await.is_ok());
        }
        assert_eq!(free, 5);

        // The operator needs none, and may say the name in full.
        let user_id = house.accounts.create_user("@Root:example.org", "secret", true).await.unwrap();
        assert_eq!(user_id, "@root:example.org");
        assert!(house.accounts.create_user("@root:elsewhere.org", "secret", true).await.is_err());

        let expires_ts = i64::from(house.clock.now().get()) + 1000;
        let token = house.accounts.create_registration_token(None, Some(expires_ts)).await.unwrap();
        assert!(house.accounts.is_registration_token_usable(&token).await.unwrap());
        house.clock.advance(Duration::from_secs(1));
        assert!(!house.accounts.is_registration_token_usable(&token).await.unwrap());
        for never in ["", "\0", "a b", &"x".repeat(65)] {
            assert!(!house.accounts.is_registration_token_usable(never).await.unwrap(), "{never:?}");
        }
        database.close().await;
    }
}

/// Should it not read the log, it finds out all the same. Nobody follows another node's log on SQLite.
#[tokio::test]
async fn a_node_that_hears_nothing_looks_a_token_up_again_after_a_while() {
    let database = testing::sqlite().await;
    let here = house(&database, RegistrationMode::Open).await;
    let there = house(&database, RegistrationMode::Open).await;
    let alice = here.register("alice", "secret").await;
    assert!(there.is_in(&alice).await);
    here.accounts.logout_all(&alice.user_id).await.unwrap();
    assert!(!here.is_in(&alice).await && there.is_in(&alice).await);
    there.clock.advance(Duration::from_mins(5));
    assert!(!there.is_in(&alice).await);
    database.close().await;
}

#[tokio::test]
async fn devices_are_seen_once_a_minute_and_stay_gone() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        let alice = house.register("alice", "secret").await;
        let laptop = house.accounts.login_with_password("alice", "secret", on("LAPTOP")).await.unwrap();
        let seen = || async {
            let mut conn = database.db().read().await.unwrap();
            let phone = device::find(&mut conn, user_id!("@alice:example.org"), device_id!("PHONE")).await.unwrap();
            phone.map(|device| (device.last_seen_ts.unwrap(), device.last_seen_ip.unwrap())).unwrap()
        };
        let away: IpAddr = "2001:db8::7".parse().unwrap();
        let start = i64::from(house.clock.now().get());
        house.clock.advance(Duration::from_secs(1));
        house.accounts.caller(&alice.access_token, away).await.unwrap();
        house.clock.advance(Duration::from_secs(58));
        house.accounts.caller(&alice.access_token, HERE).await.unwrap();
        assert!(house.is_in(&laptop).await);
        house.accounts.delete_devices(&alice.user_id, device::DeviceSelection::These(&["LAPTOP"])).await.unwrap();
        assert_eq!(seen().await, (start, "127.0.0.1".to_owned()));
        house.accounts.flush_last_seen().await.unwrap();
        assert_eq!(seen().await, (start + 1000, "2001:db8::7".to_owned()));
        let mut conn = database.db().read().await.unwrap();
        assert_eq!(device::list(&mut conn, &alice.user_id).await.unwrap().len(), 1);
        drop(conn);
        database.close().await;
    }
}
