//! Who is calling, as an address: the connection's peer, or what a trusted proxy says of it.
//!
//! A client can write anything into `X-Forwarded-For`, so the header is read from its end, where the
//! last proxy has added what it saw, and only as far as trusted proxies vouch for it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
};

use axum::{middleware::Next, response::Response};
use http::{HeaderMap, HeaderName, Request};
use tower::Service;

use crate::{config::Network, telemetry::Visitor};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address that a request came from, as far as it is known. In every request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// Middleware: has the log's line about the request name the address.
pub(super) async fn note(request: axum::extract::Request, next: Next) -> Response {
    let parts = request.extensions();
    if let (Some(visitor), Some(address)) = (parts.get::<Visitor>(), parts.get::<ClientAddress>()) {
        visitor.comes_from(address.0);
    }
    next.run(request).await
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    Address(IpAddr),
    /// Whoever may open the unix socket, which is to say a trusted proxy.
    SameMachine,
}

/// Adds [`ClientAddress`] to the requests of one connection.
#[derive(Clone)]
pub(super) struct Addressed<S> {
    inner: S,
    peer: Peer,
    trusted: Arc<[Network]>,
}

impl<S> Addressed<S> {
    pub(super) fn new(inner: S, peer: Peer, trusted: Arc<[Network]>) -> Self {
        Self { inner, peer, trusted }
    }
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for Addressed<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let address = client_address(self.peer, request.headers(), &self.trusted);
        request.extensions_mut().insert(ClientAddress(address));
        self.inner.call(request)
    }
}

fn client_address(peer: Peer, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let (mut address, mut believed) = match peer {
        Peer::Address(address) => (address, is_trusted(address)),
        Peer::SameMachine => (Ipv4Addr::LOCALHOST.into(), true),
    };
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    let mut hops = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
    while believed {
        let Some(hop) = hops.next().and_then(parse_hop) else { break };
        address = hop;
        believed = is_trusted(hop);
    }
    address.to_canonical()
}

/// An address, which some proxies write with its port or in brackets.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    bare.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(peer: Peer, lines: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        let trusted: Vec<Network> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        client_address(peer, &headers, &trusted).to_string()
    }

    fn from(address: &str) -> Peer {
        Peer::Address(address.parse().unwrap())
    }

    #[test]
    fn without_trusted_proxies_the_header_is_a_claim() {
        assert_eq!(resolve(from("203.0.113.9"), &["1.2.3.4"], &[]), "203.0.113.9");
        assert_eq!(resolve(from("::ffff:203.0.113.9"), &[], &[]), "203.0.113.9");
    }

    #[test]
    fn only_what_trusted_proxies_have_seen_is_believed() {
        let trusted = &["10.0.0.0/8"];
        let proxy = from("10.0.0.1");
        assert_eq!(resolve(proxy, &["198.51.100.7"], trusted), "198.51.100.7");
        assert_eq!(resolve(proxy, &["6.6.6.6, 198.51.100.7, 10.0.0.2"], trusted), "198.51.100.7");
        assert_eq!(resolve(proxy, &["6.6.6.6", "198.51.100.7", "10.0.0.2"], trusted), "198.51.100.7");
        assert_eq!(resolve(proxy, &["10.0.0.3, 10.0.0.2"], trusted), "10.0.0.3");
        assert_eq!(resolve(from("203.0.113.9"), &["6.6.6.6"], trusted), "203.0.113.9");
    }

    #[test]
    fn a_hop_that_is_no_address_ends_the_search() {
        let proxy = from("10.0.0.1");
        assert_eq!(resolve(proxy, &["198.51.100.7, unknown"], &["10.0.0.0/8"]), "10.0.0.1");
        assert_eq!(resolve(proxy, &["198.51.100.7:4711"], &["10.0.0.0/8"]), "198.51.100.7");
        assert_eq!(resolve(proxy, &["[2001:db8::7]:4711"], &["10.0.0.0/8"]), "2001:db8::7");
        assert_eq!(resolve(proxy, &["[2001:db8::7]"], &["10.0.0.0/8"]), "2001:db8::7");
    }

    #[test]
    fn a_unix_socket_is_a_trusted_proxy() {
        assert_eq!(resolve(Peer::SameMachine, &["6.6.6.6, 198.51.100.7"], &[]), "198.51.100.7");
        assert_eq!(resolve(Peer::SameMachine, &[], &[]), "127.0.0.1");
    }
}
