//! `hearth admin federation-check`: what an operator is told of servers and rooms, and of what is set up wrong.

use hearth::{
    admin::{CheckStep, DestinationState, FederationAdministration, Went},
    config::{Config, cli::CheckTarget},
};
use tokio::{net::TcpListener, sync::mpsc};

use super::{
    internet::Internet,
    peer::{Peer, shared_room, until_they_agree},
};
use crate::{
    between,
    world::{Engine, World},
};

fn administration(peer: &Peer) -> FederationAdministration {
    FederationAdministration::new(peer.world.app().db.clone(), peer.world.clock.clone())
}

/// What an operator of a server is told of another, of a room, or of their own.
async fn check(peer: &Peer, target: Option<&str>) -> Vec<CheckStep> {
    let target = target.map(|target| match target.strip_prefix('!') {
        Some(_) => CheckTarget::Room(target.try_into().unwrap()),
        None => CheckTarget::Server(target.try_into().unwrap()),
    });
    let (app, (told, mut steps)) = (peer.world.app(), mpsc::unbounded_channel());
    let checking = administration(peer).check(&app.config, app.random.clone(), target.as_ref(), told).await;
    checking.unwrap();
    let mut all = Vec::new();
    while let Some(step) = steps.recv().await {
        all.push(step);
    }
    all
}

fn bad(steps: &[CheckStep]) -> Vec<&str> {
    steps.iter().filter(|step| step.went == Went::Badly).map(|step| step.text.as_str()).collect()
}

#[track_caller]
fn says(steps: &[CheckStep], went: Went, words: &str) {
    assert!(steps.iter().any(|step| step.went == went && step.text.contains(words)), "{words}: {steps:#?}");
}

/// A server of this name that is set up in another way than it should be.
async fn broken(internet: &Internet, name: &str, setup: impl FnOnce(&mut Config)) -> World {
    let world = World::on(Engine::Sqlite, |config| {
        internet.configure(name, config);
        setup(config);
    });
    world.await.unwrap()
}

fn ports(world: &World) -> Vec<u16> {
    let port = |url: &String| url.rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap();
    world.tls_urls().iter().map(port).collect()
}

async fn until_left_alone(peer: &Peer, other: &str) {
    for _ in 0..600 {
        let owed = administration(peer).list_destinations(true).await.unwrap();
        let is_it = |state| state == DestinationState::BackingOff;
        if owed.iter().any(|destination| destination.server.as_str() == other && is_it(destination.state)) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{} goes on trying {other}", peer.name);
}

between! {
    async fn servers_that_reach_each_other_are_told_so(internet, one, two) {
        let itself = check(&one, None).await;
        assert_eq!(bad(&itself), [""; 0], "{itself:#?}");
        for words in ["good certificate for one.test", "the keys in this database", "arrives as it was sent"] {
            says(&itself, Went::Well, words);
        }
        let other = check(&one, Some("two.test")).await;
        assert_eq!(bad(&other), [""; 0], "{other:#?}");
        for words in ["good certificate for two.test", "takes what this server signs", "has just fetched this server's keys"] {
            says(&other, Went::Well, words);
        }
        drop((internet, two));
    }

    async fn a_server_that_nobody_reaches_is_told_so(internet, one, two) {
        one.vanish();
        let itself = check(&one, None).await;
        says(&itself, Went::Badly, "127.0.0.1:");
        assert!(!itself.iter().any(|step| step.text.contains("the keys in this database")), "{itself:#?}");
        let other = check(&one, Some("two.test")).await;
        says(&other, Went::Well, "good certificate for two.test");
        says(&other, Went::Badly, "does not take what this server signs");
        says(&other, Went::Badly, "does not reach it");

        one.reappear();
        two.vanish();
        let other = check(&one, Some("two.test")).await;
        assert_eq!(bad(&other).len(), 1, "{other:#?}");
        assert!(other.iter().any(|step| step.went == Went::Badly && step.advice.is_some()), "{other:#?}");
        drop(internet);
    }

    async fn a_room_that_has_gone_different_ways_is_noticed(internet, one, two) {
        let (alice, bob) = (one.user("alice").await, two.user("bob").await);
        let room = shared_room(&alice, &bob, "11").await;
        alice.say(&room, "hello").await;
        bob.hears(&room, "hello").await;
        until_they_agree(&[&alice, &bob], &room).await;
        let told = check(&one, Some(&room)).await;
        assert_eq!(bad(&told), [""; 0], "{told:#?}");
        says(&told, Went::Well, "two.test has the same");

        internet.part("one.test", "two.test");
        alice.say(&room, "does anybody hear me?").await;
        bob.say(&room, "nobody is there").await;
        until_left_alone(&one, "two.test").await;
        until_left_alone(&two, "one.test").await;
        let told = check(&one, Some(&room)).await;
        says(&told, Went::Badly, "two.test does not answer");
        says(&told, Went::Badly, "two.test has not got everything");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_up_wrong_is_named() {
    let internet = Internet::new();
    let one = Peer::start(&internet, "one.test", Engine::Sqlite).await.unwrap();

    let unknown = check(&one, Some("nowhere.test")).await;
    assert_eq!(bad(&unknown), ["nowhere.test has no address"], "{unknown:#?}");

    // Nobody listens any more at the port that is announced.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    internet.announce("closed.test", vec![port]);
    let closed = check(&one, Some("closed.test")).await;
    says(&closed, Went::Well, "_matrix-fed._tcp.closed.test leads to closed.test:");
    says(&closed, Went::Badly, "can't be reached");

    let (certificate, key) = internet.certificate("wrong.test");
    let wrong = broken(&internet, "three.test", |config| {
        config.tls.certificate = Some(certificate);
        config.tls.key = Some(key);
    })
    .await;
    internet.announce("three.test", ports(&wrong));
    let steps = check(&one, Some("three.test")).await;
    let step = steps.iter().find(|step| step.went == Went::Badly).unwrap();
    assert!(step.text.contains("certificate"), "{step:?}");
    assert!(step.advice.as_ref().unwrap().contains("three.test"), "{step:?}");

    // It answers at another's name, with a certificate that says so, and with keys of its own.
    let (certificate, key) = internet.certificate("five.test");
    let other = broken(&internet, "four.test", |config| {
        config.tls.certificate = Some(certificate);
        config.tls.key = Some(key);
    })
    .await;
    internet.announce("five.test", ports(&other));
    let steps = check(&one, Some("five.test")).await;
    says(&steps, Went::Well, "good certificate for five.test");
    assert_eq!(bad(&steps), ["what answers there is four.test, and not five.test"], "{steps:#?}");

    let deaf = broken(&internet, "deaf.test", |config| {
        config.federation.denied_servers = vec!["one.*".to_owned().try_into().unwrap()];
    })
    .await;
    internet.announce("deaf.test", ports(&deaf));
    says(&check(&one, Some("deaf.test")).await, Went::Badly, "wants to have nothing to do with this server");
}
