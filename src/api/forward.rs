//! What is written in a room goes to the room's preferred node, where it becomes part of bigger batches.
//!
//! The client's own request is sent on, token and all. Only requests that may be repeated are: if the other node
//! does not answer, this one does the same itself, and the database sees to it that it happens once.
//!
//! It is an optimisation and never needed: any node may write in any room. Nodes that disagree for a moment about who
//! is preferred only write smaller batches. A request is forwarded once: one with a seal is served where it arrives.

use std::net::{IpAddr, Ipv4Addr};

use axum::{RequestPartsExt as _, body::Body, extract::RawPathParams, response::Response};
use http::request::Parts;

use super::{
    body::{BodyLimits, BodyStream},
    delay::asks_for_delay,
    endpoint::{Forwarding, Rules},
    error::{ApiError, ApiResult},
};
use crate::{
    app::App,
    edge::{
        serve::{ClientAddress, budget::Holder},
        telemetry::LoggedCaller,
    },
    node::{BodyDigest, ForwardedRequest, OpenedSeal, Peer, SEAL},
};

/// What becomes of a request.
pub(super) enum Routed {
    /// It is served here.
    Here(Body, Option<SealedBody>),
    Answered(Response),
}

/// What another node has sealed of the body that it sends on.
pub(super) struct SealedBody(Option<BodyDigest>);

impl SealedBody {
    /// Refuses another body than the one that was sealed, so that whoever forwards it does the work themselves. `body`:
    /// None where it is not here yet, which no endpoint's is to which requests are forwarded.
    ///
    /// 421 (Misdirected Request) is for the node that has sent it on, and reaches no client.
    pub(super) fn check(&self, body: Option<&[u8]>) -> ApiResult<()> {
        match (&self.0, body) {
            (Some(digest), Some(body)) if *digest == BodyDigest::of(body) => Ok(()),
            // Nodes of the version before seal no body.
            (None, _) => Ok(()),
            _ => Err(ApiError::Misdirected),
        }
    }
}

/// Answers what another node has forwarded here by mistake, and forwards what is another node's.
pub(super) async fn route(app: &App, parts: &mut Parts, body: Body, rules: &Rules) -> ApiResult<Routed> {
    // Taken off in any case: nothing behind this sees a seal.
    let sealed = parts.headers.remove(SEAL);
    if rules.forwarding == Forwarding::Here || (sealed.is_none() && app.nodes.is_alone()) {
        return Ok(Routed::Here(body, None));
    }
    let call = format!("{} {}", parts.method, path_and_query(parts));
    let now = i64::from(app.clock.now().get());
    // A seal that does not open is no seal: anybody can send a header.
    // It covers method, path, query, time and this node's id, so none fits another request.
    match sealed.and_then(|seal| app.seal.open(seal.to_str().ok()?, app.nodes.id(), &call, now)) {
        Some(OpenedSeal::Misdirected) => return Err(ApiError::Misdirected),
        Some(OpenedSeal::Ours(address, digest)) => {
            parts.extensions.insert(ClientAddress(address));
            if let Some(logged_caller) = parts.extensions.get::<LoggedCaller>() {
                logged_caller.set_address(address);
            }
            return Ok(Routed::Here(body, Some(SealedBody(digest))));
        }
        None => {}
    }
    let Some(peer) = find_peer(app, parts, rules.forwarding).await else {
        return Ok(Routed::Here(body, None));
    };
    // Read whole before it is sent on, because it may have to be served here after all.
    let limits = BodyLimits::new(app, parts, rules.body_limit, Holder::at(address_of(parts)));
    let body = BodyStream::new(body, limits).collect().await?;
    let forwarded = ForwardedRequest {
        seal: app.seal.close(&peer.id, &call, address_of(parts), &BodyDigest::of(&body), now),
        method: &parts.method,
        path_and_query: path_and_query(parts),
        headers: &parts.headers,
        body: body.clone(),
    };
    // A refusal is an answer too. None: it did not answer, failed, or was not the node that was meant.
    if let Some(answer) = app.forwarder.forward(&peer, forwarded).await {
        app.metrics.request_forwarded();
        return Ok(Routed::Answered(answer.map(Body::from)));
    }
    Ok(Routed::Here(Body::from(body), None))
}

/// The node that the request should go to, if that is another one that answers.
async fn find_peer(app: &App, parts: &mut Parts, forwarding: Forwarding) -> Option<Peer> {
    if forwarding == Forwarding::ToRoomUnlessDelayed && parts.uri.query().is_some_and(asks_for_delay) {
        return None;
    }
    let path = parts.extract::<RawPathParams>().await.ok()?;
    let (_, room_id) = path.iter().next()?;
    app.nodes.find_preferred(room_id).filter(|peer| !app.forwarder.is_resting(peer))
}

/// Where a request comes from, as far as trusted proxies report it.
///
/// Where no listener has noted an address, as in tests, it is this machine's.
pub(super) fn address_of(parts: &Parts) -> IpAddr {
    parts.extensions.get::<ClientAddress>().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.0)
}

fn path_and_query(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("/", |path| path.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_served_that_was_sealed_and_no_other() {
        let sealed = SealedBody(Some(BodyDigest::of(b"{\"body\":\"hello\"}")));
        assert!(sealed.check(Some(b"{\"body\":\"hello\"}")).is_ok());
        for other in [Some(&b"{\"body\":\"goodbye\"}"[..]), Some(b""), None] {
            assert!(matches!(sealed.check(other), Err(ApiError::Misdirected)), "{other:?}");
        }
        assert!(SealedBody(None).check(Some(b"anything")).is_ok(), "the version before seals no body");
    }
}
