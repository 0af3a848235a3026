//! What is written in a room goes to the room's preferred node, where it becomes part of bigger batches.
//!
//! The client's own call is sent on as it came, token and all. Only calls that name their transaction are: a node that
//! is silent may have done the work or may do it yet, so this one does it too, and the database recognises the second
//! time. State names none. Set late, by a node that wakes up, it would undo what was set since.
//!
//! It is an optimisation and never needed: any node may write in any room. Nodes that disagree for a moment about who
//! is preferred only write smaller batches. A call is forwarded once: one that has arrived from another node
//! (`arrival.rs`) is served where it arrives.

use std::net::{IpAddr, Ipv4Addr};

use axum::{RequestPartsExt as _, body::Body, extract::RawPathParams, response::Response};
use bytes::Bytes;
use http::request::Parts;

use super::{
    body::{BodyLimits, BodyStream},
    delay::asks_for_delay,
    endpoint::{Forwarding, Rules},
    error::{ApiError, ApiResult},
};
use crate::{
    app::App,
    edge::serve::{ClientAddress, budget::Holder},
    node::{CallDigest, ForwardedAnswer, ForwardedCall, Hearing, Peer, SealedCall},
};

/// What becomes of a request.
pub(super) enum Routed {
    /// It is served here.
    Here(Body),
    Answered(Response),
}

/// In the extensions of a call that another node has forwarded here.
#[derive(Clone, Copy)]
pub(super) struct Arrived;

/// Forwards what is another node's.
///
/// A call that another node has forwarded is served, or refused with [`ApiError::Misdirected`] if it is not of the sort
/// that is forwarded.
pub(super) async fn route(app: &App, parts: &mut Parts, body: Body, rules: &Rules) -> ApiResult<Routed> {
    let may_be_forwarded = may_be_forwarded(parts, rules.forwarding);
    if parts.extensions.remove::<Arrived>().is_some() {
        return if may_be_forwarded { Ok(Routed::Here(body)) } else { Err(ApiError::Misdirected) };
    }
    // Nothing of a stranger's body is read, let alone sent on: whose token is not known here is judged here first.
    if !may_be_forwarded || app.nodes.is_alone() || app.remember_caller(parts).is_none() {
        return Ok(Routed::Here(body));
    }
    let Some(peer) = find_peer(app, parts).await else { return Ok(Routed::Here(body)) };
    // Read whole before it is sent on, because it may have to be served here after all.
    let limits = BodyLimits::new(app, parts, rules.body_limit, Holder::at(address_of(parts)));
    let body = BodyStream::new(body, limits).collect().await?;
    let Some(_place) = app.forwarder.find_place() else { return Ok(Routed::Here(Body::from(body))) };
    let call = ForwardedCall::pack(&parts.method, &parts.uri, &parts.headers, &body);
    // A refusal is an answer too. None: it is silent, has failed, or is not the node that was meant.
    if let Some(answer) = app.forwarder.forward(&peer, seal(app, &peer, call, address_of(parts))).await {
        app.metrics.request_forwarded();
        return Ok(Routed::Answered(response(answer)));
    }
    app.metrics.forward_given_up();
    Ok(Routed::Here(Body::from(body)))
}

fn may_be_forwarded(parts: &Parts, forwarding: Forwarding) -> bool {
    match forwarding {
        Forwarding::Here => false,
        Forwarding::ToRoom => true,
        Forwarding::ToRoomUnlessDelayed => !parts.uri.query().is_some_and(asks_for_delay),
    }
}

/// The node that the request should go to, if that is another one that answers.
async fn find_peer(app: &App, parts: &mut Parts) -> Option<Peer> {
    let path = parts.extract::<RawPathParams>().await.ok()?;
    let (_, room_id) = path.iter().next()?;
    let peer = app.nodes.find_preferred(room_id)?;
    match app.forwarder.hears(&peer) {
        Hearing::Answers => Some(peer),
        Hearing::Silent => None,
        Hearing::ToBeAsked => {
            app.tasks.spawn("question to a silent node", probe(app.clone(), peer));
            None
        }
    }
}

/// Nobody's request waits for whether a node that was silent is there again.
async fn probe(app: App, peer: Peer) {
    let call = seal(&app, &peer, Bytes::new(), Ipv4Addr::LOCALHOST.into());
    app.forwarder.probe(&peer, call).await;
}

fn seal(app: &App, peer: &Peer, call: Bytes, address: IpAddr) -> SealedCall {
    let now = i64::from(app.clock.now().get());
    SealedCall { seal: app.seal.close(&peer.id, &CallDigest::of(&call), address, now), call }
}

fn response(answer: ForwardedAnswer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    (*response.status_mut(), *response.headers_mut()) = (answer.status, answer.headers);
    response
}

/// Where a request comes from, as far as trusted proxies report it.
///
/// Where no listener has noted an address, as in tests, it is this machine's.
pub(super) fn address_of(parts: &Parts) -> IpAddr {
    parts.extensions.get::<ClientAddress>().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.0)
}
