use std::net::Ipv4Addr;

use http::{HeaderValue, Request, header::AUTHORIZATION};
use ruma::{CanonicalJsonObject, signatures::KeyPair as _};

use super::*;
use crate::{
    api::error::ApiError,
    config::Config,
    event::SigningKey,
    store::server_key::{self, KeySource, NewServerKey},
    testing::World,
};

const PATH: &str = "/_matrix/federation/v1/send/a%2Fb?x=%20y&z";

/// A server of which another one has a key.
struct Peer {
    name: &'static str,
    key: SigningKey,
}

impl Peer {
    fn new(name: &'static str, key: &str) -> Self {
        let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), &format!("ed25519:{key}")).unwrap();
        Self { name, key }
    }

    /// Has a server know of the key, as if it had been fetched.
    async fn introduce(&self, world: &World, valid_until: i64) {
        let public_key: Base64 = Base64::new(self.key.public_key().to_vec());
        let key = NewServerKey {
            server_name: self.name.try_into().unwrap(),
            key_id: self.key.id().as_str(),
            public_key: public_key.encode(),
            expired: false,
            valid_until,
            document: "{}",
        };
        let mut tx = world.app.db.begin().await.unwrap();
        server_key::insert(&mut tx, &[key], KeySource::Itself, 0).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// The header over a request, in the form of today or in that of years ago.
    fn header(&self, (method, uri): (&str, &str), content: Option<&str>, named: bool) -> String {
        let content = content.map(|content| format!("\"content\":{content},")).unwrap_or_default();
        let signed = format!(
            r#"{{{content}"destination":"localhost","method":"{method}","origin":"{}","uri":"{uri}"}}"#,
            self.name
        );
        let destination = if named { "destination=\"localhost\"," } else { "" };
        let signature = self.key.sign(signed.as_bytes()).base64();
        format!("X-Matrix origin=\"{}\",{destination}key=\"{}\",sig=\"{signature}\"", self.name, self.key.id())
    }
}

/// When keys are good that nothing else is said of.
const LATER: i64 = 1_800_000_000_001;

async fn world() -> World {
    Box::pin(world_with(|_| {})).await
}

async fn world_with(change: impl FnOnce(&mut Config)) -> World {
    let mut config = Config::default();
    config.federation.enabled = true;
    change(&mut config);
    Box::pin(World::with(config)).await
}

async fn judge(
    world: &World,
    (method, uri): (&str, &str),
    headers: &[String],
    body: &str,
) -> Result<OwnedServerName, Refused> {
    let mut request = Request::builder().method(method).uri(uri).body(()).unwrap();
    for header in headers {
        request.headers_mut().append(AUTHORIZATION, HeaderValue::from_str(header).unwrap());
    }
    let (parts, ()) = request.into_parts();
    let rules = Servers::rules(&parts.method);
    let claim = Servers::judge_head(&world.app, &parts, Ipv4Addr::LOCALHOST.into(), &rules).await?;
    Ok(Servers::judge_body(claim, body.as_bytes())?.name)
}

/// Why somebody was refused.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    Unauthorized,
    Forbidden,
    NotJson,
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Domain(Error::Refused { kind: ErrorKind::Unauthorized, .. }) => Self::Unauthorized,
            ApiError::Domain(Error::Refused { kind: ErrorKind::Forbidden, .. }) => Self::Forbidden,
            ApiError::Domain(Error::Refused { kind: ErrorKind::NotJson, .. }) => Self::NotJson,
            error => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn both_forms_of_the_header_prove_who_sends_a_request() {
    let (world, there) = (world().await, Peer::new("there", "a"));
    there.introduce(&world, LATER).await;
    let body = r#"{ "pdus": [], "b": {"z": 1, "a": "\u00e9/"} }"#;
    let canonical = r#"{"b":{"a":"é/","z":1},"pdus":[]}"#;
    for named in [true, false] {
        let header = there.header(("PUT", PATH), Some(canonical), named);
        assert_eq!(judge(&world, ("PUT", PATH), &[header], body).await.unwrap(), "there");
        let header = there.header(("GET", PATH), None, named);
        assert_eq!(judge(&world, ("GET", PATH), &[header], "").await.unwrap(), "there");
    }
    world.close().await;
}

/// What is sent from device to device may hold any numbers, and a server that relays it has signed it.
#[tokio::test]
async fn a_body_with_numbers_that_are_not_canonical_is_verified_all_the_same() {
    let (world, there) = (world().await, Peer::new("there", "a"));
    there.introduce(&world, LATER).await;
    let body = r#"{"edus":[{"x":1.5,"y":1.0,"z":18446744073709551615}]}"#;
    let header = there.header(("PUT", PATH), Some(body), true);
    assert_eq!(judge(&world, ("PUT", PATH), &[header], body).await.unwrap(), "there");
    world.close().await;
}

/// Malformed transactions never block the good part of them.
#[tokio::test]
async fn a_body_in_which_something_goes_too_deep_is_verified_all_the_same() {
    let (world, there) = (world().await, Peer::new("there", "a"));
    there.introduce(&world, LATER).await;
    let body = format!(r#"{{"pdus":[{}1{}]}}"#, r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
    let header = there.header(("PUT", PATH), Some(&body), true);
    assert_eq!(judge(&world, ("PUT", PATH), std::slice::from_ref(&header), &body).await.unwrap(), "there");
    let longer = body.replacen('{', "{\"b\":1,", 1);
    assert_eq!(judge(&world, ("PUT", PATH), &[header], &longer).await.unwrap_err(), Refused::NotJson);
    world.close().await;
}

#[tokio::test]
async fn a_request_that_is_not_as_it_was_signed_is_refused() {
    let (world, there) = (world().await, Peer::new("there", "a"));
    there.introduce(&world, LATER).await;
    let signed = || vec![there.header(("PUT", PATH), Some(r#"{"a":1}"#), true)];
    let put = ("PUT", PATH);
    judge(&world, put, &signed(), r#"{"a":1}"#).await.unwrap();
    let elsewhere = "/_matrix/federation/v1/send/a%2Fb?x=%20y";
    let decoded = "/_matrix/federation/v1/send/a/b?x=%20y&z";
    for (request, body) in [
        (put, r#"{"a":2}"#),
        (put, "{}"),
        (put, ""),
        (("POST", PATH), r#"{"a":1}"#),
        (("GET", PATH), r#"{"a":1}"#),
        (("PUT", elsewhere), r#"{"a":1}"#),
        (("PUT", decoded), r#"{"a":1}"#),
    ] {
        assert_eq!(judge(&world, request, &signed(), body).await, Err(Refused::Unauthorized), "{request:?} {body}");
    }
    assert_eq!(judge(&world, put, &signed(), r#"{"a":"#).await, Err(Refused::NotJson));

    let for_another = signed()[0].replace("destination=\"localhost\"", "destination=\"elsewhere\"");
    let of_another = signed()[0].replace("origin=\"there\"", "origin=\"localhost\"");
    for headers in [vec![], vec!["Bearer token".to_owned()], vec![for_another], vec![of_another]] {
        assert_eq!(judge(&world, put, &headers, r#"{"a":1}"#).await, Err(Refused::Unauthorized), "{headers:?}");
    }
    world.close().await;
}

#[tokio::test]
async fn one_good_signature_is_enough_and_all_must_be_of_one_server() {
    let world = world().await;
    let (old, new, other) = (Peer::new("there", "a"), Peer::new("there", "b"), Peer::new("elsewhere", "a"));
    old.introduce(&world, LATER).await;
    other.introduce(&world, LATER).await;
    let header = |peer: &Peer| peer.header(("GET", PATH), None, true);
    let both = [header(&new), header(&old)];
    assert_eq!(judge(&world, ("GET", PATH), &both, "").await.unwrap(), "there");
    let mixed = [header(&old), header(&other)];
    assert_eq!(judge(&world, ("GET", PATH), &mixed, "").await, Err(Refused::Unauthorized));
    world.close().await;
}

/// Nobody is asked beyond this machine: the address that stands in the name is not a public one.
#[tokio::test]
async fn a_key_that_is_unknown_or_has_expired_proves_nothing() {
    let (world, there) = (world().await, Peer::new("127.0.0.1:1", "a"));
    let header = [there.header(("GET", PATH), None, true)];
    assert_eq!(judge(&world, ("GET", PATH), &header, "").await, Err(Refused::Unauthorized));
    there.introduce(&world, LATER - 2).await;
    assert_eq!(judge(&world, ("GET", PATH), &header, "").await, Err(Refused::Unauthorized));
    there.introduce(&world, LATER).await;
    assert_eq!(judge(&world, ("GET", PATH), &header, "").await.unwrap(), "127.0.0.1:1");
    world.close().await;
}

#[tokio::test]
async fn whom_the_operator_shuts_out_is_refused_whatever_they_sign() {
    let there = Peer::new("there", "a");
    let shut_out = world_with(|config| config.federation.denied_servers = vec!["the*".to_owned().try_into().unwrap()]);
    let off = world_with(|config| config.federation.enabled = false);
    for world in [shut_out.await, off.await] {
        there.introduce(&world, LATER).await;
        let header = [there.header(("GET", PATH), None, true)];
        assert_eq!(judge(&world, ("GET", PATH), &header, "").await, Err(Refused::Forbidden));
        world.close().await;
    }
}

#[test]
fn what_is_signed_is_in_the_order_of_its_keys() {
    let head = SignedHead {
        origin: ServerName::parse("there").unwrap(),
        signatures: Vec::new(),
        method: Method::POST,
        uri: "/x".to_owned(),
        destination: ServerName::parse("here").unwrap(),
    };
    let body = r#"{"é":1,"z":{"b":null,"a":[]},"a":true}"#;
    let expected = r#"{"content":{"a":true,"z":{"a":[],"b":null},"é":1},"destination":"here","method":"POST","origin":"there","uri":"/x"}"#;
    let signed = head.signed_json(body.as_bytes()).unwrap();
    assert_eq!(std::str::from_utf8(&signed).unwrap(), expected);
    let canonical: CanonicalJsonObject = serde_json::from_slice(&signed).unwrap();
    assert_eq!(serde_json::to_vec(&canonical).unwrap(), signed);
}
