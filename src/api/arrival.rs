//! Where calls arrive that other nodes have forwarded: one path, and everything else in a sealed body.
//!
//! The call inside is routed as if a client had sent it here, among those endpoints alone that are forwarded to. There
//! is no way from here to any other, whatever its path says. What does not belong here is answered with 421
//! (Misdirected Request) or 503, which the other node takes for no answer: it does the work itself.
//!
//! The answer begins within moments, with signs of life if the work takes longer, so that the other node can tell a
//! slow node from a dead one. A node that has lost touch with the database gives none: it will not get the work done.

use std::{net::IpAddr, panic::AssertUnwindSafe, pin::Pin};

use axum::{
    Router,
    body::Body,
    response::{IntoResponse as _, Response},
    routing::{MethodRouter, post},
};
use bytes::Bytes;
use futures_util::{FutureExt as _, stream};
use http::{Request, StatusCode, request::Parts};
use http_body_util::BodyExt as _;
use tokio::time::timeout;
use tower::ServiceExt as _;

use super::{
    body::{BodyLimits, BodyStream},
    error::{ApiError, ApiResult},
    forward::Arrived,
};
use crate::{
    app::App,
    edge::{
        serve::{ClientAddress, budget::Holder},
        telemetry::LoggedCaller,
    },
    node::{CallDigest, FORWARDED, ForwardedAnswer, ForwardedCall, Nodes, OpenedSeal, SIGN, SIGN_OF_LIFE},
};

/// The longest body of any endpoint that is forwarded to, and what goes with it, in bytes. The endpoint has its own
/// limit.
const LIMIT: usize = 512 * 1024;

/// A call that is being served. None if there is no answer to it.
type Serving = Pin<Box<dyn Future<Output = Option<Bytes>> + Send>>;

/// Serves forwarded calls by `endpoints`. To whoever has no seal there is nothing here: they are answered by `nothing`.
pub(super) fn accept(app: App, endpoints: Router<App>, nothing: fn() -> ApiError) -> MethodRouter<App> {
    let endpoints = endpoints.fallback(misdirected).method_not_allowed_fallback(misdirected).with_state(app.clone());
    post(move |request: Request<Body>| async move {
        let (parts, body) = request.into_parts();
        match open(&app, &parts) {
            Some(OpenedSeal::Ours(address, digest)) => serve(&app, endpoints, (&parts, address), body, &digest)
                .await
                .unwrap_or_else(axum::response::IntoResponse::into_response),
            Some(OpenedSeal::Misdirected) => ApiError::Misdirected.into_response(),
            None => nothing().into_response(),
        }
    })
    .fallback(move || async move { nothing() })
}

/// What the seal says, which is looked at before anything of the body is read: strangers have nothing read here.
fn open(app: &App, parts: &Parts) -> Option<OpenedSeal> {
    let seal = parts.headers.get(FORWARDED)?.to_str().ok()?;
    app.seal.open(seal, app.nodes.id(), i64::from(app.clock.now().get()))
}

async fn misdirected() -> ApiError {
    ApiError::Misdirected
}

async fn serve(
    app: &App,
    endpoints: Router,
    (parts, address): (&Parts, IpAddr),
    body: Body,
    digest: &CallDigest,
) -> ApiResult<Response> {
    let limits = BodyLimits::new(app, parts, LIMIT, Holder::at(address));
    let call = BodyStream::new(body, limits).collect().await?;
    if *digest != CallDigest::of(&call) {
        return Err(ApiError::Misdirected);
    }
    if !app.nodes.is_in_touch() {
        return Ok(StatusCode::SERVICE_UNAVAILABLE.into_response());
    }
    // One that carries nothing asks whether this node is there.
    if call.is_empty() {
        return Ok(marked(Body::empty()));
    }
    let call = ForwardedCall::unpack(call).ok_or(ApiError::Misdirected)?;
    let mut serving: Serving = Box::pin(answer(endpoints, request(call, parts, address)));
    Ok(match timeout(SIGN_OF_LIFE, &mut serving).await {
        Ok(Some(answer)) => marked(Body::from(answer)),
        Ok(None) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Err(_elapsed) => marked(alive_until_answered(serving, app.nodes.clone())),
    })
}

fn marked(body: Body) -> Response {
    ([(FORWARDED, "answer")], body).into_response()
}

/// The call as the endpoint gets it: as from the client.
fn request(call: ForwardedCall, parts: &Parts, address: IpAddr) -> Request<Body> {
    let mut request = Request::new(Body::from(call.body));
    (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (call.method, call.target, call.headers);
    request.extensions_mut().insert(Arrived);
    request.extensions_mut().insert(ClientAddress(address));
    if let Some(logged_caller) = parts.extensions.get::<LoggedCaller>() {
        logged_caller.set_address(address);
        request.extensions_mut().insert(logged_caller.clone());
    }
    request
}

/// What the endpoint answers, packed. None if it has panicked, which is logged where it happens.
async fn answer(endpoints: Router, request: Request<Body>) -> Option<Bytes> {
    let Ok(answered) = AssertUnwindSafe(endpoints.oneshot(request)).catch_unwind().await.ok()?;
    let (parts, body) = answered.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    Some(ForwardedAnswer::pack(parts.status, &parts.headers, &body))
}

/// Signs of life, and the answer. It ends before that, with an error, where there will be none.
fn alive_until_answered(serving: Serving, nodes: Nodes) -> Body {
    Body::from_stream(stream::unfold(Some(serving), move |serving| {
        let nodes = nodes.clone();
        async move {
            let mut serving = serving?;
            match timeout(SIGN_OF_LIFE, &mut serving).await {
                Ok(Some(answer)) => Some((Ok(answer), None)),
                Ok(None) => Some((Err("it can't be answered"), None)),
                Err(_elapsed) if nodes.is_in_touch() => Some((Ok(Bytes::from_static(SIGN)), Some(serving))),
                Err(_elapsed) => Some((Err("this node has lost touch with the database"), None)),
            }
        }
    }))
}
