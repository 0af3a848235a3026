//! What is written in a room goes to the room's preferred node, where it becomes part of bigger batches.
//!
//! The client's own request is sent on, token and all. Only requests that may be repeated are: if the other node
//! does not answer, this one does the same itself, and the database sees to it that it happens once.

use std::net::{IpAddr, Ipv4Addr};

use axum::{
    RequestPartsExt as _,
    body::Body,
    extract::{MatchedPath, RawPathParams, Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::{Method, StatusCode, request::Parts};

use super::{body::collect, error::ApiError, route::BODY_LIMIT};
use crate::{
    app::App,
    error::Error,
    node::{Opened, Parcel, Peer, SEAL},
    serve::ClientAddress,
};

/// The ends of the paths of requests that may be repeated: each names its transaction, or how things are to be.
const REPEATABLE: [&str; 3] =
    ["/send/{event_type}/{txn_id}", "/redact/{event_id}/{txn_id}", "/state/{event_type}/{state_key}"];

/// Middleware: answers what other nodes forward, forwards what is theirs, and refuses everything while the others
/// may have forgotten this node.
pub(super) async fn forward(State(app): State<App>, request: Request, next: Next) -> Response {
    if app.nodes.is_alone() && !request.headers().contains_key(SEAL) {
        return next.run(request).await;
    }
    if !app.nodes.is_member() {
        let message = "This node has lost touch with the database: try again".to_owned();
        return ApiError::from(Error::Unavailable(message)).into_response();
    }
    let (mut parts, body) = request.into_parts();
    let call = format!("{} {}", parts.method, path_and_query(&parts));
    let now = i64::from(app.clock.now().get());
    let seal = parts.headers.remove(SEAL);
    // A seal that does not open is no seal: anybody can send a header.
    match seal.as_ref().and_then(|seal| app.seal.open(seal.to_str().ok()?, app.nodes.id(), &call, now)) {
        Some(Opened::Astray) => return StatusCode::MISDIRECTED_REQUEST.into_response(),
        Some(Opened::Ours(address)) => {
            parts.extensions.insert(ClientAddress(address));
            return next.run(Request::from_parts(parts, body)).await;
        }
        None => {}
    }
    let Some(peer) = find_peer(&app, &mut parts).await else {
        return next.run(Request::from_parts(parts, body)).await;
    };
    let body = match collect(body, BODY_LIMIT).await {
        Ok(body) => body,
        Err(error) => return error.into_response(),
    };
    let address = parts.extensions.get::<ClientAddress>().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.0);
    let parcel = Parcel {
        seal: app.seal.close(&peer.id, &call, address, now),
        method: &parts.method,
        path_and_query: path_and_query(&parts),
        headers: &parts.headers,
        body: body.clone(),
    };
    if let Some(answer) = app.courier.deliver(&peer, parcel).await {
        app.metrics.request_forwarded();
        return answer.map(Body::from);
    }
    next.run(Request::from_parts(parts, Body::from(body))).await
}

/// The node that the request should go to, if that is another one that answers.
async fn find_peer(app: &App, parts: &mut Parts) -> Option<Peer> {
    let route = parts.extensions.get::<MatchedPath>()?.as_str();
    if parts.method != Method::PUT || !REPEATABLE.iter().any(|end| route.ends_with(end)) {
        return None;
    }
    // What is sent later is written in no room, and through `/state` it would be scheduled twice.
    if parts.uri.query().is_some_and(|query| query.contains("org.matrix.msc4140.")) {
        return None;
    }
    let path = parts.extract::<RawPathParams>().await.ok()?;
    let (_, room_id) = path.iter().find(|(name, _)| *name == "room_id")?;
    app.nodes.find_preferred(room_id).filter(|peer| !app.courier.rests(peer))
}

fn path_and_query(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("/", |path| path.as_str())
}
