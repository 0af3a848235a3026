//! What endpoints can be made of, shown with some that no client knows.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use aws_lc_rs::hmac;
use axum::{
    body::{Body, Bytes},
    response::Response,
};
use futures_util::{StreamExt as _, stream};
use http::{StatusCode, request::Parts};
use http_body_util::BodyExt as _;
use ruma::{
    OwnedServerName, UserId,
    api::{auth_scheme::NoAuthentication, error::ErrorKind},
    serde::{Base64, base64::UrlSafe},
};
use serde_json::json;
use tower::ServiceExt as _;

use super::{
    body::BodyStream,
    client::tests::Server,
    endpoint::{Callers, Policy, RawAnswer, Rules},
    error::ApiResult,
    extract::Call,
    json::Json,
    own::{Download, Upload, own_request},
    route::Endpoints,
};
use crate::{api::auth::Anybody, app::App, config::RegistrationMode, db::testing, error::Error, people::account::Pace};

const PART: usize = 64 * 1024;
const PARTS: usize = 4096;

own_request!(
    /// Sends back what it is sent.
    Echo {}: POST NoAuthentication path "/echo" -> Json, |_request, _path| Ok(Self {})
);

impl Policy for Echo {
    type Who = Anybody;

    fn rules() -> Rules {
        Rules::of(&http::Method::POST).body(PART * PARTS)
    }
}

async fn echo(_: App, call: Call<Upload<Download<Echo>>>) -> ApiResult<RawAnswer> {
    let parts = stream::unfold(call.request.body, |mut body: BodyStream| async move {
        let part = body.next().await.map_err(|_refused| "it ended early").transpose()?;
        Some((part, body))
    });
    Ok(Response::new(Body::from_stream(parts)).into())
}

/// Callers who sign what they send, as servers do.
pub(crate) struct Signed;

pub(crate) struct RemoteServer(OwnedServerName);

/// What a head says that is not proved yet.
pub(crate) struct Claimed {
    server: RemoteServer,
    signature: Vec<u8>,
}

fn key() -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, b"known to both")
}

impl Callers for Signed {
    type Claim = Claimed;
    type Caller = RemoteServer;

    async fn judge_head(_: &App, parts: &Parts, _: std::net::IpAddr, _: &Rules) -> ApiResult<Claimed> {
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let claimed =
            header("x-server").and_then(|server| OwnedServerName::try_from(server).ok()).zip(header("x-signature"));
        let (server, signature) =
            claimed.ok_or_else(|| Error::refused(ErrorKind::Unauthorized, "Servers sign what they send"))?;
        Ok(Claimed { server: RemoteServer(server), signature: signature.bytes().collect() })
    }

    fn judge_body(claim: Claimed, body: &[u8]) -> ApiResult<RemoteServer> {
        if sign(body).as_bytes() == claim.signature {
            return Ok(claim.server);
        }
        Err(Error::refused(ErrorKind::Unauthorized, "This is not what was signed").into())
    }

    fn has_changed(_: &Claimed) -> bool {
        false
    }

    fn sender(_: &Claimed) -> Option<&UserId> {
        None
    }

    fn account(_: &RemoteServer) -> Option<(&UserId, Pace)> {
        None
    }
}

fn sign(body: &[u8]) -> String {
    Base64::<UrlSafe, _>::new(hmac::sign(&key(), body).as_ref()).encode()
}

own_request!(
    /// Something that only servers say.
    Tell {}: PUT NoAuthentication path "/tell" -> Json, |_request, _path| Ok(Self {})
);

impl Policy for Tell {
    type Who = Signed;

    fn rules() -> Rules {
        Rules::of(&http::Method::PUT).body(100)
    }
}

async fn tell(_: App, call: Call<Tell>) -> ApiResult<Json> {
    Ok(Json::from(json!({ "from": call.caller.0 })))
}

/// Sends a request to those endpoints.
async fn send(server: &Server, request: http::request::Builder, body: Body) -> Response {
    let endpoints = Endpoints::default().endpoint::<Upload<Download<Echo>>, _, _>(echo).endpoint(tell);
    let router = endpoints.into_routers().0.with_state(server.app.clone());
    router.oneshot(request.body(body).unwrap()).await.unwrap()
}

fn request(method: &str, path: &str) -> http::request::Builder {
    http::Request::builder().method(method).uri(path)
}

/// Uploads and downloads of any size pass through with no more than a part of them in memory.
#[tokio::test]
async fn a_large_body_passes_through_part_by_part() {
    let database = testing::sqlite().await;
    let server = Server::start(&database, RegistrationMode::Open, false).await;
    let taken = Arc::new(AtomicUsize::new(0));
    let (counter, part) = (Arc::clone(&taken), Bytes::from(vec![7; PART]));
    let parts = stream::repeat(part).take(PARTS).inspect(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let answer = send(&server, request("POST", "/echo"), Body::from_stream(parts.map(Ok::<_, std::io::Error>))).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let (mut body, mut size, mut given) = (answer.into_body(), 0, 0);
    while let Some(frame) = body.frame().await {
        size += frame.unwrap().into_data().unwrap().len();
        given += 1;
        let within = taken.load(Ordering::SeqCst) - given;
        assert!(within <= 1, "{within} parts are held after {given} were sent back");
    }
    assert_eq!(size, PART * PARTS);
    server.stop().await;
    database.close().await;
}

#[tokio::test]
async fn a_stream_ends_where_its_limit_is() {
    let database = testing::sqlite().await;
    let server = Server::start(&database, RegistrationMode::Open, false).await;
    let parts = stream::repeat(Bytes::from(vec![7; PART])).take(PARTS + 1).map(Ok::<_, std::io::Error>);
    let answer = send(&server, request("POST", "/echo"), Body::from_stream(parts)).await;
    assert!(answer.into_body().collect().await.is_err());
    server.stop().await;
    database.close().await;
}

#[tokio::test]
async fn a_signed_body_proves_who_sends_it() {
    let database = testing::sqlite().await;
    let server = Server::start(&database, RegistrationMode::Open, false).await;
    let signed = |body: &str| {
        request("PUT", "/tell").header("x-server", "away.example").header("x-signature", sign(body.as_bytes()))
    };
    let answer = send(&server, signed("{\"a\":1}"), "{\"a\":1}".into()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "{\"from\":\"away.example\"}");
    // What was not signed is not even looked at: that it is no JSON is not said.
    for other in ["{\"a\":2}", "{", ""] {
        let answer = send(&server, signed("{\"a\":1}"), other.into()).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{other}");
    }
    // Whose head says nothing is answered before there is a body, and learns nothing from it.
    let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    assert_eq!(send(&server, request("PUT", "/tell"), never).await.status(), StatusCode::UNAUTHORIZED);
    let large = "x".repeat(101);
    assert_eq!(send(&server, signed(&large), large.clone().into()).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    server.stop().await;
    database.close().await;
}
