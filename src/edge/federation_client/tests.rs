use std::{future::ready, path::PathBuf};

use axum::{Router, extract::Request, routing::get};
use http::Method;
use ruma::{
    api::federation::{
        authentication::XMatrix,
        directory::get_public_rooms_filtered,
        discovery::{get_server_keys, get_server_version},
        query::get_profile_information,
    },
    serde::Base64,
    server_name,
    signatures::PublicKeyMap,
    user_id,
};
use serde_json::json;

use super::*;
use crate::{
    edge::{
        discovery::testing::{Authority, TestNames},
        outside_client::testing::{Asked, Scripted, Site},
        serve::Listeners,
    },
    event::SigningKey,
    ground::tasks::Tasks,
};

/// Behind which nobody speaks HTTP, so that there are no well-known files.
const NO_PORT: u16 = 9;
const VERSION: &str = r#"{"server":{"name":"Far","version":"1.0"}}"#;

/// What a client needs in a world of its own, in which `here.example` asks `far.example`.
struct World {
    authority: Authority,
    names: Arc<TestNames>,
    folder: tempfile::TempDir,
    config: Config,
    ports: Ports,
}

impl World {
    fn new() -> Self {
        let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
        let mut config = Config::default();
        config.federation.enabled = true;
        config.federation.allowed_networks = vec!["127.0.0.0/8".parse().unwrap()];
        config.federation.certificate_authorities = vec![authority.write(&folder)];
        Self { authority, names: TestNames::new(), folder, config, ports: Ports { https: NO_PORT, matrix: NO_PORT } }
    }

    /// A server on this machine with a certificate for these names.
    fn site(&self, names: &[&str], script: impl Fn(&Asked) -> Scripted + Send + Sync + 'static) -> Site {
        Site::start_tls(self.authority.tls(names), script)
    }

    /// Has the SRV record of `far.example` lead to a port of this machine.
    fn far_is_at(&self, port: u16) {
        self.names.service("_matrix-fed._tcp.far.example", (10, port), "target.example");
        self.names.address("target.example", &["127.0.0.1"]);
    }

    fn client(&self) -> FederationClient {
        self.client_with(signing_key(), &Metrics::new())
    }

    fn client_with(&self, key: SigningKey, metrics: &Metrics) -> FederationClient {
        let names = Arc::clone(&self.names);
        FederationClient::new_with(
            (&self.config, &CacheSizes::default()),
            server_name!("here.example").to_owned(),
            SigningKeys::of(key),
            (Clock::system(), Random::seeded(1)),
            metrics.clone(),
            (|| names as Arc<dyn Names>, self.ports),
        )
        .unwrap()
    }
}

fn signing_key() -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "ed25519:a_1").unwrap()
}

async fn ask_version(client: &FederationClient, server: &str) -> Result<String, RemoteError> {
    let server = OwnedServerName::try_from(server).unwrap();
    let answer = client.send(&server, get_server_version::v1::Request::new(), Bounds::QUICK).await?;
    Ok(answer.server.and_then(|server| server.name).unwrap_or_default())
}

#[tokio::test]
async fn a_request_arrives_as_it_was_signed() {
    let (world, key) = (World::new(), signing_key());
    let public = Base64::new(key.public_key().to_vec());
    let site = world.site(&["far.example"], |asked| match &*asked.method {
        "POST" => Scripted::ok("application/json", r#"{"chunk":[]}"#),
        _ => Scripted::ok("application/json", r#"{"displayname":"Alice"}"#),
    });
    world.far_is_at(site.port());
    let client = world.client_with(key, &Metrics::new());
    let far = server_name!("far.example");

    let alice = user_id!("@alice/+=:far.example").to_owned();
    let profile = get_profile_information::v1::Request::new(alice);
    client.send(far, profile, Bounds::QUICK).await.unwrap();
    let mut rooms = get_public_rooms_filtered::v1::Request::new();
    rooms.since = Some("a \"page\" of ünïcödé".to_owned());
    client.send(far, rooms, Bounds::ANSWER).await.unwrap();

    let keys = PublicKeyMap::from([("here.example".to_owned(), [("ed25519:a_1".to_owned(), public)].into())]);
    let asked = site.asked();
    assert_eq!(asked.len(), 2);
    for asked in asked {
        assert_eq!(asked.headers["host"], "far.example");
        assert!(asked.headers["user-agent"].starts_with("Hearth/"), "{:?}", asked.headers);
        let proof = XMatrix::parse(&asked.headers["authorization"]).unwrap();
        assert_eq!((&*proof.origin, proof.destination.as_deref()), (server_name!("here.example"), Some(far)));
        let method: Method = asked.method.parse().unwrap();
        let request = http::Request::builder().method(method).uri(&asked.path).body(asked.body).unwrap();
        proof.verify_http_request(&request, far, &keys).unwrap();
    }
}

/// The certificate's name is the one that the specification says, for each way to a server.
#[tokio::test]
async fn the_certificate_is_for_the_name_that_the_specification_says() {
    for (way, name, good, bad) in [
        // An SRV record does not vouch for what it leads to.
        ("service", "far.example", "far.example", "target.example"),
        ("deprecated service", "far.example", "far.example", "target.example"),
        ("usual port", "far.example", "far.example", "target.example"),
        ("port", "far.example:{port}", "far.example", "target.example"),
        ("address", "127.0.0.1:{port}", "127.0.0.1", "far.example"),
        ("address at the usual port", "127.0.0.1", "127.0.0.1", "far.example"),
        // A well-known file does.
        ("delegated", "far.example", "deleg.example", "far.example"),
        ("delegated to a port", "far.example", "deleg.example", "far.example"),
        ("delegated to an address", "far.example", "127.0.0.1", "far.example"),
    ] {
        for (has, is_good) in [(good, true), (bad, false)] {
            let mut world = World::new();
            let site = world.site(&[has], |_| Scripted::ok("application/json", VERSION));
            let port = site.port();
            let file = match way {
                "delegated" => Some("deleg.example".to_owned()),
                "delegated to a port" => Some(format!("deleg.example:{port}")),
                "delegated to an address" => Some(format!("127.0.0.1:{port}")),
                _ => None,
            };
            let well_known = world.site(&["far.example"], move |_| match &file {
                Some(server) => Scripted::ok("application/json", json!({ "m.server": server }).to_string()),
                None => Scripted::status("404 Not Found"),
            });
            world.ports.https = well_known.port();
            for host in ["far.example", "deleg.example", "target.example"] {
                world.names.address(host, &["127.0.0.1"]);
            }
            let target = (10, port);
            match way {
                "service" => world.names.service("_matrix-fed._tcp.far.example", target, "target.example"),
                "deprecated service" => world.names.service("_matrix._tcp.far.example", target, "target.example"),
                "usual port" | "address at the usual port" => world.ports.matrix = port,
                "delegated" => world.names.service("_matrix-fed._tcp.deleg.example", target, "target.example"),
                _ => {}
            }
            let asked = ask_version(&world.client(), &name.replace("{port}", &port.to_string())).await;
            if is_good {
                assert_eq!(asked.as_deref(), Ok("Far"), "{way}");
            } else {
                let Err(RemoteError::Unreachable(why)) = asked else { panic!("{way}: {asked:?}") };
                assert!(why.contains("certificate"), "{way}: {why}");
                assert!(site.asked().is_empty(), "{way}");
            }
        }
    }
}

#[tokio::test]
async fn only_authorities_that_are_known_vouch_for_a_server() {
    let (mut world, other) = (World::new(), Authority::new());
    let site = world.site(&["far.example"], |_| Scripted::ok("application/json", VERSION));
    world.far_is_at(site.port());
    assert!(ask_version(&world.client(), "far.example").await.is_ok());
    let folder = tempfile::tempdir().unwrap();
    world.config.federation.certificate_authorities = vec![other.write(&folder)];
    let asked = ask_version(&world.client(), "far.example").await;
    assert!(matches!(&asked, Err(RemoteError::Unreachable(why)) if why.contains("certificate")), "{asked:?}");
    world.config.federation.certificate_authorities = vec![PathBuf::from("/nowhere/ca.pem")];
    let names = Arc::clone(&world.names);
    let failed = FederationClient::new_with(
        (&world.config, &CacheSizes::default()),
        server_name!("here.example").to_owned(),
        SigningKeys::of(signing_key()),
        (Clock::system(), Random::seeded(1)),
        Metrics::new(),
        (|| names as Arc<dyn Names>, world.ports),
    );
    let failed = failed.err().unwrap().to_string();
    assert!(failed.contains("/nowhere/ca.pem"), "{failed}");
}

#[tokio::test]
async fn nobody_is_asked_who_may_not_be() {
    let mut world = World::new();
    let site = world.site(&["far.example", "127.0.0.1"], |_| Scripted::ok("application/json", VERSION));
    world.far_is_at(site.port());
    let by_address = format!("127.0.0.1:{}", site.port());

    world.config.federation.denied_servers = vec!["far.*".to_owned().try_into().unwrap()];
    assert_eq!(ask_version(&world.client(), "FAR.example").await, Err(RemoteError::NotAllowed));
    assert_eq!(ask_version(&world.client(), &by_address).await.as_deref(), Ok("Far"));
    let steps = world.client().explain(server_name!("far.example")).await;
    assert!(
        matches!(&steps[..], [Step { went: Went::Badly, text, .. }] if text.contains("denied_servers")),
        "{steps:?}"
    );

    world.config.federation.denied_servers = Vec::new();
    world.config.federation.allowed_networks = Vec::new();
    for server in ["far.example", &by_address] {
        assert_eq!(ask_version(&world.client(), server).await, Err(RemoteError::NotAllowed), "{server}");
    }
    let itself = ask_version(&world.client(), "here.example").await;
    assert!(matches!(itself, Err(RemoteError::Unreachable(_))), "{itself:?}");

    world.config.federation.enabled = false;
    let client = world.client();
    assert_eq!(ask_version(&client, "far.example").await, Err(RemoteError::Off));
    assert!(client.cache().is_none());
    assert_eq!(site.asked().len(), 1);
}

#[tokio::test]
async fn answers_that_make_no_sense_are_told_from_refusals() {
    let world = World::new();
    let site = world.site(&["far.example"], |asked| match &*asked.path {
        "/_matrix/federation/v1/version" => Scripted::ok("text/html", "<html>secret</html>"),
        "/_matrix/key/v2/server" => Scripted::redirect("https://far.example/elsewhere"),
        _ => {
            let body = r#"{"errcode":"M_UNKNOWN_TOKEN","error":"no"}"#;
            let head = format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\n", body.len());
            Scripted::Bytes(format!("{head}Connection: close\r\n\r\n{body}").into_bytes())
        }
    });
    world.far_is_at(site.port());
    let metrics = Metrics::new();
    let (client, far) = (world.client_with(signing_key(), &metrics), server_name!("far.example"));

    let asked = ask_version(&client, "far.example").await;
    assert!(matches!(&asked, Err(RemoteError::Malformed(why)) if !why.contains("secret")), "{asked:?}");
    let asked = client.send(far, get_server_keys::v2::Request::new(), Bounds::QUICK).await.map(drop);
    assert!(matches!(&asked, Err(RemoteError::Malformed(why)) if why.contains("302")), "{asked:?}");
    let profile = get_profile_information::v1::Request::new(user_id!("@a:far.example").to_owned());
    let asked = client.send(far, profile.clone(), Bounds::QUICK).await.map(drop);
    let refused =
        RemoteError::Refused { status: 401, errcode: Some("M_UNKNOWN_TOKEN".to_owned()), message: "no".to_owned() };
    assert_eq!(asked, Err(refused.clone()));
    assert_eq!(client.open(far, profile, Bounds::QUICK).await.err(), Some(refused));
    assert_eq!(site.asked().len(), 4, "no redirect is followed");

    let text = metrics.render().unwrap();
    for line in [
        r#"hearth_federation_requests_total{outcome="malformed"} 2"#,
        r#"hearth_federation_requests_total{outcome="refused"} 2"#,
        "hearth_federation_request_duration_seconds_count 4",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_to_be_so() {
    let world = World::new();
    let client = world.client();
    let asked = ask_version(&client, "far.example").await;
    assert_eq!(asked, Err(RemoteError::Unreachable("far.example has no address".to_owned())));
    // A port at which nobody listens any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    world.far_is_at(port);
    let asked = ask_version(&client, "far.example").await;
    assert!(matches!(&asked, Err(RemoteError::Unreachable(why)) if why.contains("refused")), "{asked:?}");
    // One that speaks no TLS.
    let plain = Site::start(|_| Scripted::ok("application/json", VERSION));
    let asked = ask_version(&client, &format!("127.0.0.1:{}", plain.port())).await;
    assert!(matches!(&asked, Err(RemoteError::Unreachable(_))), "{asked:?}");
}

#[tokio::test]
async fn an_answer_is_bounded_in_time_and_in_silence() {
    let world = World::new();
    let site = world.site(&["127.0.0.1"], |asked| match &*asked.method {
        "GET" if asked.path.ends_with("/version") => Scripted::Held(Vec::new()),
        _ => Scripted::Held(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"displayname\"".to_vec()),
    });
    let (client, there) = (world.client(), OwnedServerName::try_from(format!("127.0.0.1:{}", site.port())).unwrap());
    let (short, long) = (Duration::from_millis(400), Duration::from_mins(10));
    let slow = RemoteError::slow();
    let bounds = Bounds { timeout: short, ..Bounds::JOIN };
    let asked = client.send(&there, get_server_version::v1::Request::new(), bounds).await.map(drop);
    assert_eq!(asked, Err(slow.clone()));
    let profile = get_profile_information::v1::Request::new(user_id!("@a:far.example").to_owned());
    for bounds in [bounds, Bounds { timeout: long, idle: short, ..Bounds::JOIN }] {
        let asked = client.send(&there, profile.clone(), bounds).await.map(drop);
        assert_eq!(asked, Err(slow.clone()), "{bounds:?}");
        let mut body = client.open(&there, profile.clone(), bounds).await.unwrap();
        assert_eq!(body.chunk().await.unwrap().unwrap(), "{\"displayname\"");
        assert_eq!(body.chunk().await.err(), Some(slow.clone()), "{bounds:?}");
    }
}

#[tokio::test]
async fn an_answer_is_bounded_in_length_whatever_it_announces() {
    let head = |length: &str| format!("HTTP/1.1 200 OK\r\n{length}Connection: close\r\n\r\n").into_bytes();
    let world = World::new();
    let site = world.site(&["127.0.0.1"], move |asked| match &*asked.path {
        path if path.ends_with("announced") => Scripted::Held(head("Content-Length: 2001\r\n")),
        path if path.ends_with("endless") => Scripted::Endless(head(""), b' '),
        path if path.ends_with("error") => {
            Scripted::Endless(b"HTTP/1.1 500 Oh\r\nConnection: close\r\n\r\n".to_vec(), b' ')
        }
        _ => Scripted::ok("application/json", format!("{{\"displayname\":\"{}\"}}", "a".repeat(1_982))),
    });
    let (client, there) = (world.client(), OwnedServerName::try_from(format!("127.0.0.1:{}", site.port())).unwrap());
    let ask = async |user: &str, max_bytes: usize| {
        let user = ruma::OwnedUserId::try_from(format!("@a:{user}")).unwrap();
        let bounds = Bounds { max_bytes, ..Bounds::QUICK };
        client.send(&there, get_profile_information::v1::Request::new(user), bounds).await.map(drop)
    };
    let too_long = RemoteError::Malformed("its answer is longer than 2000 bytes".to_owned());
    for user in ["announced", "endless"] {
        assert_eq!(ask(user, 2_000).await, Err(too_long.clone()), "{user}");
    }
    ask("fits", 2_000).await.unwrap();
    let too_long = RemoteError::Malformed("its answer is longer than 1999 bytes".to_owned());
    assert_eq!(ask("fits", 1_999).await, Err(too_long));
    let refused = ask("error", 2_000).await;
    assert!(matches!(refused, Err(RemoteError::Refused { status: 500, errcode: None, .. })), "{refused:?}");
}

#[tokio::test]
async fn a_long_answer_is_read_like_a_short_one() {
    let world = World::new();
    let name = "x".repeat(2 * LARGE);
    let long = json!({ "server": { "name": name } }).to_string();
    let site = world.site(&["127.0.0.1"], move |_| Scripted::ok("application/json", &long));
    let asked = ask_version(&world.client(), &format!("127.0.0.1:{}", site.port())).await;
    assert_eq!(asked, Ok(name));
}

/// What would be tidied up is not sent: another path would be signed than is asked for.
#[tokio::test]
async fn what_can_be_no_part_of_a_url_is_not_asked() {
    let world = World::new();
    let site = world.site(&["127.0.0.1"], |_| Scripted::ok("application/json", "{}"));
    let there = OwnedServerName::try_from(format!("127.0.0.1:{}", site.port())).unwrap();
    let request = ruma::api::federation::discovery::get_remote_server_keys::v2::Request::new(
        OwnedServerName::try_from("..").unwrap(),
        ruma::MilliSecondsSinceUnixEpoch(ruma::uint!(0)),
    );
    let asked = world.client().send(&there, request, Bounds::QUICK).await.map(drop);
    assert!(matches!(&asked, Err(RemoteError::Malformed(_))), "{asked:?}");
    assert!(site.asked().is_empty());
}

/// Over the real listeners of a server.
#[tokio::test]
async fn connections_are_kept_and_speak_http_2() {
    let world = World::new();
    let made = world.authority.make(&["far.example"]);
    let path = |name: &str| world.folder.path().join(name);
    std::fs::write(path("cert.pem"), made.certificate).unwrap();
    std::fs::write(path("key.pem"), made.key).unwrap();
    let mut config = Config { listen: vec!["tls:127.0.0.1:0".parse().unwrap()], ..Config::default() };
    (config.tls.certificate, config.tls.key) = (Some(path("cert.pem")), Some(path("key.pem")));
    let listeners = Listeners::bind(&config.listen, &config).unwrap();
    let port = listeners.urls()[0].rsplit_once(':').unwrap().1.parse().unwrap();
    let version = |request: Request| {
        let spoken = format!("{:?}", request.version());
        ready(json!({ "server": { "name": spoken } }).to_string())
    };
    let router = Router::new().route("/_matrix/federation/v1/version", get(version));
    let (tasks, metrics) = (Tasks::new(), Metrics::new());
    tasks.spawn("serving", listeners.serve(router, &tasks, &metrics));
    world.far_is_at(port);

    let client = world.client();
    for _ in 0..3 {
        assert_eq!(ask_version(&client, "far.example").await.as_deref(), Ok("HTTP/2.0"));
    }
    let text = metrics.render().unwrap();
    assert!(text.lines().any(|line| line == "hearth_connections 1"), "{text}");
    drop(client);
    tasks.shutdown().start("the test has ended");
    assert!(tasks.join_all(Duration::from_secs(20)).await.is_empty());
}

#[tokio::test]
async fn an_operator_is_told_each_step_to_a_server() {
    let mut world = World::new();
    let site = world.site(&["far.example"], |_| Scripted::ok("application/json", VERSION));
    let well_known = world.site(&["far.example", "told.example"], |asked| match &*asked.headers["host"] {
        "told.example" => Scripted::ok("application/json", r#"{"m.server":"far.example"}"#),
        _ => Scripted::status("404 Not Found"),
    });
    world.ports.https = well_known.port();
    world.names.address("told.example", &["127.0.0.1"]);
    world.names.address("far.example", &["127.0.0.1"]);
    world.names.service("_matrix-fed._tcp.far.example", (10, site.port()), "target.example");
    world.names.address("target.example", &["127.0.0.1", "10.0.0.1"]);
    let port = site.port();
    let steps = world.client().explain(server_name!("told.example")).await;
    let told: Vec<(Went, &str)> = steps.iter().map(|step| (step.went, step.text.as_str())).collect();
    let [file, service, addresses, good, bad] = &told[..] else { panic!("{told:?}") };
    assert_eq!(*file, (Went::Well, "https://told.example/.well-known/matrix/server leads to far.example"));
    let leads_to = format!("_matrix-fed._tcp.far.example leads to target.example:{port}");
    assert_eq!(*service, (Went::Well, leads_to.as_str()));
    let listed = format!("its addresses are 127.0.0.1:{port}, 10.0.0.1:{port}");
    assert_eq!(*addresses, (Went::Well, listed.as_str()));
    let beginning = format!("127.0.0.1:{port} has a good certificate for far.example and answers in ");
    assert!(good.0 == Went::Well && good.1.starts_with(&beginning) && good.1.ends_with("ms: Far 1.0"), "{good:?}");
    assert!(bad.0 == Went::Badly && bad.1.contains("federation.allowed_networks"), "{bad:?}");

    let steps = world.client().explain(server_name!("far.example")).await;
    assert!(steps[0].went == Went::Oddly && steps[0].text.contains("404"), "{steps:?}");

    // Its certificate is for another name.
    let by_address = OwnedServerName::try_from(format!("127.0.0.1:{port}")).unwrap();
    let steps = world.client().explain(&by_address).await;
    assert_eq!(steps.iter().map(|step| step.went).collect::<Vec<_>>(), [Went::Well, Went::Badly]);
    assert!(steps[1].text.contains("certificate"), "{steps:?}");

    let steps = world.client().explain(server_name!("nowhere.example")).await;
    assert_eq!(steps.last().map(|step| step.text.as_str()), Some("nowhere.example has no address"));
}
