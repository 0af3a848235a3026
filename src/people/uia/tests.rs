//! A session confirms what it was opened for, once.

use std::sync::LazyLock;

use ruma::{
    OwnedUserId,
    api::client::uiaa::{Dummy, FallbackAcknowledgement, MatrixUserIdentifier, RegistrationToken, UserIdentifier},
    user_id,
};

use super::*;
use crate::{
    config::{Config, RegistrationMode},
    db::testing,
    people::account::tests::{HERE, House, house},
};

static PASSWORD: LazyLock<[Flow; 1]> = LazyLock::new(|| [vec![AuthType::Password]]);

fn uia(house: &House, db: &Db) -> Uia {
    uia_with(house, db, b"secret")
}

fn uia_with(house: &House, db: &Db, secret: &[u8]) -> Uia {
    let (clock, accounts) = (house.clock.clone(), house.accounts.clone());
    let quotas = Quotas::of(&Config::default());
    Uia::new((db.clone(), clock, Random::system()), accounts, Terms::default(), secret, quotas)
}

fn demand<'a>(operation: &'static str, user_id: &'a OwnedUserId, params: &'a str) -> Demand<'a> {
    Demand { user_id: Some(user_id), params, ..Demand::new(operation, &*PASSWORD, HERE) }
}

fn registration_token(token: &str, session: Option<&str>) -> AuthData {
    let mut auth = RegistrationToken::new(token.to_owned());
    auth.session = session.map(ToOwned::to_owned);
    AuthData::RegistrationToken(auth)
}

fn password(name: &str, password: &str, session: Option<&str>) -> AuthData {
    let identifier = UserIdentifier::Matrix(MatrixUserIdentifier::new(name.to_owned()));
    let mut auth = Password::new(identifier, password.to_owned());
    auth.session = session.map(ToOwned::to_owned);
    AuthData::Password(auth)
}

fn dummy(session: Option<&str>) -> AuthData {
    let mut auth = Dummy::new();
    auth.session = session.map(ToOwned::to_owned);
    AuthData::Dummy(auth)
}

#[track_caller]
fn asked(verdict: Result<Verdict>) -> UiaaInfo {
    match verdict.unwrap() {
        Verdict::Continue(info) => *info,
        Verdict::Passed(_) => panic!("passed"),
    }
}

#[track_caller]
fn passed(verdict: Result<Verdict>) -> Passed {
    match verdict.unwrap() {
        Verdict::Passed(passed) => passed,
        Verdict::Continue(info) => panic!("{info:?}"),
    }
}

fn errcode(info: &UiaaInfo) -> Option<&ErrorKind> {
    info.auth_error.as_ref().map(|error| &error.kind)
}

#[tokio::test]
async fn account_takeover_by_a_session_opened_for_something_else() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        let uia = uia(&house, database.db());
        let alice = house.register("alice", "alice's").await.user_id;
        let mallory = house.register("mallory", "mallory's").await.user_id;

        let delete = demand("delete_device", &alice, "PHONE");
        let info = asked(uia.authenticate(&delete, None).await);
        let session = info.session.as_deref();
        assert!(session.is_some() && errcode(&info).is_none() && info.completed.is_empty());
        let right = password("alice", "alice's", session);
        for other in [
            demand("delete_device", &alice, "LAPTOP"),
            demand("deactivate", &alice, "PHONE"),
            demand("delete_device", &mallory, "PHONE"),
            Demand { user_id: None, ..delete },
        ] {
            let refused = uia.authenticate(&other, Some(&right)).await;
            assert!(matches!(refused, Err(Error::Refused { kind: ErrorKind::Forbidden, .. })));
        }
        for another in ["mallory", "@mallory:example.org", "Mallory", "nobody"] {
            let refused = uia.authenticate(&delete, Some(&password(another, "mallory's", session))).await;
            assert!(matches!(refused, Err(Error::Refused { kind: ErrorKind::Forbidden, .. })), "{another}");
        }
        for name in ["alice", "Alice", "@alice:example.org", "@alice:elsewhere.example.org"] {
            let info = asked(uia.authenticate(&delete, Some(&password(name, "mallory's", session))).await);
            assert_eq!((errcode(&info), info.session.as_deref()), (Some(&ErrorKind::Forbidden), session), "{name}");
        }
        let info = asked(uia.authenticate(&delete, Some(&dummy(session))).await);
        assert_eq!(errcode(&info), Some(&ErrorKind::Forbidden));

        // The answer may be lost: whoever shows the password again is answered again, and nobody else.
        for _ in 0..2 {
            passed(uia.authenticate(&delete, Some(&right)).await);
            let wrong = password("alice", "mallory's", session);
            let info = asked(uia.authenticate(&delete, Some(&wrong)).await);
            assert_eq!(errcode(&info), Some(&ErrorKind::Forbidden));
        }
        database.close().await;
    }
}

#[tokio::test]
async fn the_password_may_come_at_once() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        let uia = uia(&house, database.db());
        let alice = house.register("alice", "alice's").await.user_id;
        let demand = demand("deactivate", &alice, "");
        let info = asked(uia.authenticate(&demand, Some(&password("alice", "guess", None))).await);
        assert_eq!(errcode(&info), Some(&ErrorKind::Forbidden));
        passed(uia.authenticate(&demand, Some(&password("alice", "alice's", info.session.as_deref()))).await);
        passed(uia.authenticate(&demand, Some(&password("@alice:example.org", "alice's", None))).await);
        database.close().await;
    }
}

/// There may be a password in what was asked for.
#[tokio::test]
async fn what_was_asked_for_is_written_down_so_that_only_this_server_knows_it_again() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        let (uia, other_node) = (uia(&house, database.db()), uia(&house, database.db()));
        let alice = house.register("alice", "alice's").await.user_id;
        let demand = demand("change_password", &alice, "a new password");
        let info = asked(uia.authenticate(&demand, None).await);
        let session = info.session.as_deref();
        let mut conn = database.db().read().await.unwrap();
        let written = uia::find(&mut conn, session.unwrap(), 0).await.unwrap().unwrap().params;
        drop(conn);
        let stranger = uia_with(&house, database.db(), b"another secret");
        assert_ne!(written, stranger.hash("a new password"));
        assert_eq!(written, other_node.hash("a new password"));
        let auth = password("alice", "alice's", session);
        let refused = stranger.authenticate(&demand, Some(&auth)).await;
        assert!(matches!(refused, Err(Error::Refused { kind: ErrorKind::Forbidden, .. })));
        passed(other_node.authenticate(&demand, Some(&auth)).await);
        database.close().await;
    }
}

#[tokio::test]
async fn stages_are_completed_in_order_and_remembered() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Token).await;
        let (uia, other_node) = (uia(&house, database.db()), uia(&house, database.db()));
        let flows = [vec![AuthType::RegistrationToken, AuthType::Dummy]];
        let [stages] = &flows;
        let demand = Demand::new("register", &flows, HERE);
        let token = house.accounts.create_registration_token(Some(1), None).await.unwrap();
        let info = asked(uia.authenticate(&demand, None).await);
        let session = info.session.as_deref();
        for early in [dummy(session), registration_token("guess", session)] {
            let info = asked(uia.authenticate(&demand, Some(&early)).await);
            assert_eq!((errcode(&info), info.completed.len()), (Some(&ErrorKind::Forbidden), 0));
        }
        let info = asked(uia.authenticate(&demand, Some(&registration_token(&token, session))).await);
        assert_eq!((errcode(&info), &*info.completed), (None, &stages[..1]));
        // Whoever asks how things stand, or repeats a stage, hears the same.
        let poll = AuthData::FallbackAcknowledgement(FallbackAcknowledgement::new(session.unwrap().to_owned()));
        for auth in [poll, registration_token("guess", session)] {
            let info = asked(other_node.authenticate(&demand, Some(&auth)).await);
            assert_eq!((errcode(&info), &*info.completed), (None, &stages[..1]));
        }
        let passed = passed(other_node.authenticate(&demand, Some(&dummy(session))).await);
        assert_eq!(passed.registration_token, Some(token.clone()));

        // Without a session the first stage opens one.
        let info = asked(uia.authenticate(&demand, Some(&registration_token(&token, None))).await);
        assert_eq!((errcode(&info), &*info.completed), (None, &stages[..1]));
        database.close().await;
    }
}

/// <https://spec.matrix.org/v1.19/client-server-api/#user-interactive-api-in-the-rest-api>
#[tokio::test]
async fn any_one_of_several_flows_is_enough() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Token).await;
        let (uia, other_node) = (uia(&house, database.db()), uia(&house, database.db()));
        let alice = house.register("alice", "alice's").await.user_id;
        let flows =
            [vec![AuthType::RegistrationToken, AuthType::Dummy], vec![AuthType::RegistrationToken, AuthType::Password]];
        let flows = [&flows[..], &[vec![AuthType::Password]]].concat();
        let demand = Demand { user_id: Some(&alice), ..Demand::new("deactivate", &flows, HERE) };
        let token = house.accounts.create_registration_token(Some(1), None).await.unwrap();

        let info = asked(uia.authenticate(&demand, None).await);
        assert_eq!(info.flows.iter().map(|flow| &flow.stages).collect::<Vec<_>>(), flows.iter().collect::<Vec<_>>());
        // The last stage of a flow is none to begin with.
        let session = info.session.as_deref();
        let info = asked(uia.authenticate(&demand, Some(&dummy(session))).await);
        assert_eq!((errcode(&info), info.completed.len()), (Some(&ErrorKind::Forbidden), 0));
        // A flow of one stage is complete with it.
        let shown = passed(uia.authenticate(&demand, Some(&password("alice", "alice's", session))).await);
        assert_eq!(shown, Passed { session_id: session.map(ToOwned::to_owned), ..Passed::default() });

        // A stage that begins two flows is completed for both, and leaves a third where it was.
        let info = asked(other_node.authenticate(&demand, Some(&registration_token(&token, session))).await);
        assert_eq!((errcode(&info), &*info.completed), (None, &[AuthType::RegistrationToken][..]));
        let shown = passed(uia.authenticate(&demand, Some(&dummy(session))).await);
        assert_eq!(shown.registration_token.as_ref(), Some(&token));
        let shown = passed(uia.authenticate(&demand, Some(&password("alice", "alice's", session))).await);
        assert_eq!(shown.registration_token.as_ref(), Some(&token));
        database.close().await;
    }
}

/// What was shown in a flow that the client has given up is not used up by another one.
#[tokio::test]
async fn what_a_flow_does_not_ask_for_counts_for_nothing() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Token).await;
        let uia = uia(&house, database.db());
        let token = house.accounts.create_registration_token(Some(1), None).await.unwrap();
        let flows = [vec![AuthType::RegistrationToken, AuthType::EmailIdentity], vec![AuthType::Dummy]];
        let demand = Demand::new("register", &flows, HERE);
        let info = asked(uia.authenticate(&demand, Some(&registration_token(&token, None))).await);
        assert_eq!(*info.completed, [AuthType::RegistrationToken]);
        let shown = passed(uia.authenticate(&demand, Some(&dummy(info.session.as_deref()))).await);
        assert_eq!(shown.registration_token, None);
        database.close().await;
    }
}

/// Each of two requests may complete what the other one lacks.
#[tokio::test]
async fn stages_that_are_completed_at_once_complete_their_flow() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Token).await;
        let uia = uia(&house, database.db());
        let token = house.accounts.create_registration_token(Some(1), None).await.unwrap();
        let flows =
            [vec![AuthType::RegistrationToken, AuthType::Dummy], vec![AuthType::Dummy, AuthType::RegistrationToken]];
        let demand = Demand::new("register", &flows, HERE);
        let info = asked(uia.authenticate(&demand, None).await);
        let session = info.session.as_deref();
        let opened = uia.find(session.unwrap()).await.unwrap().unwrap();
        asked(uia.authenticate(&demand, Some(&registration_token(&token, session))).await);
        // As the slower of them found the session, before the other one was done.
        let stage = Completed { stage: AuthType::Dummy, registration_token: None, proof: None };
        let shown = passed(uia.advance(&demand, opened, session, stage).await);
        assert_eq!(shown.registration_token, Some(token));
        database.close().await;
    }
}

#[tokio::test]
async fn what_was_asked_for_is_kept_until_the_session_ends() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        let (uia, other_node) = (uia(&house, database.db()), uia(&house, database.db()));
        let flows = [vec![AuthType::Dummy]];
        let demand = |request| Demand { request, ..Demand::new("register", &flows, HERE) };
        let info = asked(uia.authenticate(&demand(Some("first")), None).await);
        let session = info.session.as_deref().unwrap();
        let kept = async |operation| other_node.find_request(operation, session).await.unwrap();
        assert_eq!(kept("register").await.as_deref(), Some("first"));
        assert_eq!(kept("delete_device").await, None);
        let poll = AuthData::FallbackAcknowledgement(FallbackAcknowledgement::new(session.to_owned()));
        asked(uia.authenticate(&demand(Some("second")), Some(&poll)).await);
        assert_eq!(kept("register").await.as_deref(), Some("second"));
        let passed = passed(uia.authenticate(&demand(Some("second")), Some(&dummy(Some(session)))).await);
        assert_eq!(passed.session_id.as_deref(), Some(session));

        let mut tx = database.db().begin().await.unwrap();
        assert!(uia::end(&mut tx, session, "{}", None).await.unwrap());
        assert!(!uia::end(&mut tx, session, "{}", None).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(kept("register").await, None);
        let late = asked(uia.authenticate(&demand(Some("third")), Some(&dummy(Some(session)))).await);
        assert_eq!(errcode(&late), Some(&ErrorKind::Unknown));
        assert_ne!(late.session.as_deref(), Some(session));
        database.close().await;
    }
}

#[tokio::test]
async fn sessions_expire() {
    for database in testing::databases().await {
        let house = house(&database, RegistrationMode::Open).await;
        let uia = uia(&house, database.db());
        let alice = user_id!("@alice:example.org").to_owned();
        let demand = demand("deactivate", &alice, "");
        let info = asked(uia.authenticate(&demand, None).await);
        house.clock.advance(LIFETIME);
        let late = asked(uia.authenticate(&demand, Some(&password("alice", "x", info.session.as_deref()))).await);
        assert_eq!(errcode(&late), Some(&ErrorKind::Unknown));
        uia.clear_expired().await.unwrap();
        let mut conn = database.db().read().await.unwrap();
        assert!(uia::find(&mut conn, info.session.as_deref().unwrap(), 0).await.unwrap().is_none());
        assert!(uia::find(&mut conn, late.session.as_deref().unwrap(), 0).await.unwrap().is_some());
        drop(conn);
        database.close().await;
    }
}
