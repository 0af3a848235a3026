//! Who is calling, as an address: the connection's peer, or what a trusted proxy says of it.
//!
//! A client can write anything into `X-Forwarded-For`, so the header is read from its end, where the
//! last proxy has added what it saw, and only as far as trusted proxies vouch for it.
//!
//! The address that is found is what rate limits count by and what the log shows, so whoever could choose it freely
//! could escape the one and lie in the other.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
};

use axum::{middleware::Next, response::Response};
use http::{HeaderMap, HeaderName, Request};
use tower::Service;

use super::admission::Place;
use crate::{
    config::{IpBlock, ServedApis},
    edge::telemetry::LoggedCaller,
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address that a request came from, as far as it is known. In every request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// Middleware: has the log's line about the request name the address. A layer of its own because
/// `telemetry` lies below this module and does not know [`ClientAddress`].
pub(super) async fn note(request: axum::extract::Request, next: Next) -> Response {
    let parts = request.extensions();
    if let (Some(logged_caller), Some(address)) = (parts.get::<LoggedCaller>(), parts.get::<ClientAddress>()) {
        logged_caller.set_address(address.0);
    }
    next.run(request).await
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum ConnectionPeer {
    Address(IpAddr),
    /// Whoever may open the unix socket, which is to say a trusted proxy.
    SameMachine,
}

impl ConnectionPeer {
    /// What its connections are counted by. None where that would count many people as one, as `uncounted` lists them.
    pub(super) fn counted_by(self, uncounted: &[IpBlock]) -> Option<IpAddr> {
        match self {
            Self::SameMachine => None,
            Self::Address(address) => {
                let is_many = uncounted.iter().any(|network| network.contains(address));
                (!is_many).then_some(address.to_canonical())
            }
        }
    }
}

/// Where many people may come from by one address: trusted proxies, and this machine, on which a proxy may be that
/// nobody has named.
pub(super) fn uncounted(trusted: &[IpBlock]) -> Arc<[IpBlock]> {
    let this_machine = ["127.0.0.0/8", "::1"].into_iter().filter_map(|block| block.parse().ok());
    trusted.iter().copied().chain(this_machine).collect()
}

/// Adds [`ClientAddress`] to the requests of one connection, and [`ServedApis`] where its listener does not serve all.
/// `trusted` is `trusted_proxies` of the configuration.
#[derive(Clone)]
pub(super) struct WithClientAddress<S> {
    inner: S,
    peer: ConnectionPeer,
    apis: ServedApis,
    trusted: Arc<[IpBlock]>,
    place: Arc<Place>,
}

impl<S> WithClientAddress<S> {
    pub(super) fn new(
        inner: S,
        (peer, apis): (ConnectionPeer, ServedApis),
        trusted: Arc<[IpBlock]>,
        place: Place,
    ) -> Self {
        Self { inner, peer, apis, trusted, place: Arc::new(place) }
    }

    /// The place of the connection, which is free again when neither this nor a clone is left.
    pub(super) fn place(&self) -> Arc<Place> {
        Arc::clone(&self.place)
    }
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for WithClientAddress<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let address = client_address(self.peer, request.headers(), &self.trusted);
        request.extensions_mut().insert(ClientAddress(address));
        if self.apis != ServedApis::All {
            request.extensions_mut().insert(self.apis);
        }
        self.inner.call(request)
    }
}

/// Goes from the connection's peer towards the client, one address of the header at a time, while the last one found is
/// a trusted proxy's. What can't be read as an address ends the walk: the proxy before it is the best that is known.
fn client_address(peer: ConnectionPeer, headers: &HeaderMap, trusted: &[IpBlock]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let (mut address, mut believed) = match peer {
        ConnectionPeer::Address(address) => (address, is_trusted(address)),
        ConnectionPeer::SameMachine => (Ipv4Addr::LOCALHOST.into(), true),
    };
    // Proxies may add a line of their own instead of adding to the last, so lines are read from the last to the first.
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    let mut hops = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
    while believed {
        let Some(hop) = hops.next().and_then(parse_hop) else { break };
        address = hop;
        believed = is_trusted(hop);
    }
    // An IPv4 address that came over an IPv6 socket is one client with the same address over IPv4.
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

    fn resolve(peer: ConnectionPeer, lines: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        let trusted: Vec<IpBlock> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        client_address(peer, &headers, &trusted).to_string()
    }

    fn from(address: &str) -> ConnectionPeer {
        ConnectionPeer::Address(address.parse().unwrap())
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
    fn whoever_carries_many_people_is_not_counted_as_one() {
        let uncounted = uncounted(&["10.0.0.0/8".parse().unwrap()]);
        let counted = |peer: ConnectionPeer| peer.counted_by(&uncounted).map(|address| address.to_string());
        assert_eq!(counted(from("203.0.113.9")), Some("203.0.113.9".to_owned()));
        assert_eq!(counted(from("::ffff:203.0.113.9")), Some("203.0.113.9".to_owned()));
        assert_eq!(counted(from("10.1.2.3")), None);
        assert_eq!(counted(from("127.0.0.1")), None);
        assert_eq!(counted(from("::1")), None);
        assert_eq!(counted(ConnectionPeer::SameMachine), None);
    }

    #[test]
    fn a_unix_socket_is_a_trusted_proxy() {
        assert_eq!(resolve(ConnectionPeer::SameMachine, &["6.6.6.6, 198.51.100.7"], &[]), "198.51.100.7");
        assert_eq!(resolve(ConnectionPeer::SameMachine, &[], &[]), "127.0.0.1");
    }
}
