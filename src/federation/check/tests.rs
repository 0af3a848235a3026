use std::sync::Arc;

use ruma::{CanonicalJsonObject, serde::Base64, server_name, signatures::sign_json};
use serde_json::json;
use tokio::sync::mpsc;

use super::*;
use crate::{
    db::testing::{self, TestDatabase},
    edge::{
        discovery::{
            Names, Ports,
            testing::{Authority, TestNames},
        },
        federation_client::Went,
        outside_client::testing::{Asked, Scripted, Site},
    },
    event::SigningKey,
};

/// Behind which nobody speaks HTTP.
const NO_PORT: u16 = 9;
const DAY: i64 = 24 * 60 * 60 * 1_000;

/// A network in which `here.example` looks around.
struct World {
    authority: Authority,
    names: Arc<TestNames>,
    // It goes with the world.
    _folder: tempfile::TempDir,
    config: Config,
    ports: Ports,
    own: SigningKeys,
    database: TestDatabase,
}

impl World {
    async fn new() -> Self {
        let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
        let mut config = Config { server_name: server_name!("here.example").to_owned(), ..Config::default() };
        config.federation.enabled = true;
        config.federation.allowed_networks = vec!["127.0.0.0/8".parse().unwrap()];
        config.federation.certificate_authorities = vec![authority.write(&folder)];
        config.federation.trusted_key_servers = Vec::new();
        let ports = Ports { https: NO_PORT, matrix: NO_PORT };
        let (names, database) = (TestNames::new(), testing::sqlite().await);
        Self { authority, names, _folder: folder, config, ports, own: SigningKeys::of(key("here")), database }
    }

    /// A server on this machine to which the SRV record of a name leads, and its certificate is for it.
    fn site(&self, name: &str, script: impl Fn(&Asked) -> Scripted + Send + Sync + 'static) -> Site {
        let site = Site::start_tls(self.authority.tls(&[name]), script);
        self.names.service(&format!("_matrix-fed._tcp.{name}"), (10, site.port()), "target.example");
        self.names.address("target.example", &["127.0.0.1"]);
        site
    }

    /// What is told of another server, or of this one.
    async fn check(&self, server: Option<&ServerName>) -> Vec<Step> {
        let (names, clock) = (Arc::clone(&self.names), Clock::system());
        let client = FederationClient::new_with(
            (&self.config, &CacheSizes::default()),
            self.config.server_name.clone(),
            self.own.clone(),
            (clock.clone(), Random::seeded(1)),
            Metrics::new(),
            (|| names as Arc<dyn Names>, self.ports),
        );
        let check =
            FederationCheck::over(client.unwrap(), &self.config, (self.database.db().clone(), clock), self.own.clone());
        let (told, mut steps) = mpsc::unbounded_channel();
        match server {
            Some(server) => check.server(server, &told).await.unwrap(),
            None => check.itself(&told).await.unwrap(),
        }
        drop(told);
        let mut all = Vec::new();
        while let Some(step) = steps.recv().await {
            all.push(step);
        }
        all
    }
}

fn key(name: &str) -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), &format!("ed25519:{name}")).unwrap()
}

/// What a server says of its key.
fn document(server: &str, key: &SigningKey) -> String {
    let public_key: Base64 = Base64::new(key.public_key().to_vec());
    let now: i64 = Clock::system().now().get().into();
    let document = json!({
        "server_name": server,
        "verify_keys": { key.id().as_str(): { "key": public_key.encode() } },
        "old_verify_keys": {},
        "valid_until_ts": now + DAY,
    });
    let mut document: CanonicalJsonObject = serde_json::from_value(document).unwrap();
    sign_json(server, key, &mut document).unwrap();
    serde_json::to_string(&document).unwrap()
}

fn refusal(status: &str, errcode: &str, message: &str) -> Scripted {
    let body = json!({ "errcode": errcode, "error": message }).to_string();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    Scripted::Bytes(format!("{head}Connection: close\r\n\r\n{body}").into_bytes())
}

/// A server as it should be, with these keys of its own and of whom it is asked about.
fn answer(asked: &Asked, own: &str, of_others: &str) -> Scripted {
    let path = asked.path.split('?').next().unwrap();
    match path {
        "/_matrix/federation/v1/version" => {
            Scripted::ok("application/json", r#"{"server":{"name":"Far","version":"1.0"}}"#)
        }
        "/_matrix/key/v2/server" => Scripted::ok("application/json", own),
        "/_matrix/key/v2/query/here.example" => {
            Scripted::ok("application/json", format!(r#"{{"server_keys":[{of_others}]}}"#))
        }
        "/_matrix/federation/v1/query/directory" => refusal("404 Not Found", "M_NOT_FOUND", "no"),
        path if path.starts_with("/_matrix/federation/v1/event/") && path.ends_with("federation%2Fcheck") => {
            refusal("401 Unauthorized", "M_UNAUTHORIZED", CALLS_ITSELF)
        }
        _ => refusal("404 Not Found", "M_UNRECOGNIZED", "no"),
    }
}

#[track_caller]
fn says(steps: &[Step], went: Went, words: &str) {
    assert!(steps.iter().any(|step| step.went == went && step.text.contains(words)), "{words}: {steps:#?}");
}

fn bad(steps: &[Step]) -> Vec<&str> {
    steps.iter().filter(|step| step.went == Went::Badly).map(|step| step.text.as_str()).collect()
}

#[tokio::test]
async fn two_servers_that_reach_each_other_are_told_so() {
    let world = World::new().await;
    let (own, theirs) = (document("here.example", &world.own.current()), document("far.example", &key("far")));
    let site = world.site("far.example", move |asked| answer(asked, &theirs, &own));
    let steps = world.check(Some(server_name!("far.example"))).await;
    assert_eq!(bad(&steps), [""; 0], "{steps:#?}");
    for words in [
        "has a good certificate for far.example",
        "far.example signs with ed25519:far",
        "far.example takes what this server signs",
        "far.example has just fetched this server's keys",
    ] {
        says(&steps, Went::Well, words);
    }
    says(&steps, Went::Oddly, "nothing has come from far.example");
    let signed = site.asked().into_iter().find(|asked| asked.path.contains("query/directory")).unwrap();
    assert!(signed.headers["authorization"].starts_with("X-Matrix"), "{signed:?}");
}

#[tokio::test]
async fn a_server_looks_at_itself_as_others_do() {
    let world = World::new().await;
    let own = document("here.example", &world.own.current());
    let _site = world.site("here.example", move |asked| answer(asked, &own, ""));
    let steps = world.check(None).await;
    assert_eq!(bad(&steps), [""; 0], "{steps:#?}");
    says(&steps, Went::Well, "these are the keys in this database");
    says(&steps, Went::Well, "arrives as it was sent");
    says(&steps, Went::Oddly, "only this machine has looked");
}

#[tokio::test]
async fn a_well_known_file_that_makes_no_sense_is_noticed() {
    for (file, found) in [("garbage", "nowhere"), (r#"{"m.server":"else.example:443"}"#, "else.example:443")] {
        let mut world = World::new().await;
        world.config.well_known.server = Some(server_name!("matrix.example:443").to_owned());
        let well_known =
            Site::start_tls(world.authority.tls(&["here.example"]), move |_| Scripted::ok("application/json", file));
        world.ports.https = well_known.port();
        world.names.address("here.example", &["127.0.0.1"]);
        let steps = world.check(None).await;
        let step = &steps[0];
        assert!(
            step.went == Went::Badly && step.text.contains("matrix.example:443") && step.text.contains(found),
            "{step:?}"
        );
        assert!(step.advice.as_ref().unwrap().contains(r#"{"m.server": "matrix.example:443"}"#), "{step:?}");
    }
}

#[tokio::test]
async fn whoever_answers_in_another_name_is_noticed() {
    let mut world = World::new().await;
    let (other, mine) = (document("else.example", &key("else")), document("here.example", &key("lost")));
    let _site = world.site("far.example", move |asked| answer(asked, &other, ""));
    let steps = world.check(Some(server_name!("far.example"))).await;
    assert_eq!(bad(&steps), ["what answers there is else.example, and not far.example"], "{steps:#?}");

    let _site = world.site("here.example", move |asked| answer(asked, &mine, ""));
    let steps = world.check(None).await;
    says(&steps, Went::Badly, "these are not the keys in this database");

    world.config.well_known.server = Some(server_name!("here.example:443").to_owned());
    world.config.server_name = server_name!("here.example:8448").to_owned();
    says(&world.check(None).await, Went::Oddly, "`well_known.server` counts for nothing");
}

#[tokio::test]
async fn what_stands_in_front_of_a_server_is_noticed() {
    let world = World::new().await;
    let own = document("here.example", &world.own.current());
    let _site = world.site("here.example", move |asked| match &*asked.path {
        path if path.contains("/event/") => refusal("404 Not Found", "M_UNRECOGNIZED", "no"),
        _ => answer(asked, &own, ""),
    });
    let steps = world.check(None).await;
    assert_eq!(bad(&steps).len(), 1, "{steps:#?}");
    says(&steps, Went::Badly, "does not arrive as it was sent");

    let _site = world.site("far.example", |_| Scripted::ok("text/html", "<html>Welcome</html>"));
    says(&world.check(Some(server_name!("far.example"))).await, Went::Badly, "no Matrix server behind it");
    let unknown = world.check(Some(server_name!("nowhere.example"))).await;
    says(&unknown, Went::Badly, "nowhere.example has no address");
}
