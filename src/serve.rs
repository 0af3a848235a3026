//! placeholder until the edge branch is merged
/// Where a request came from, as far as trusted proxies tell.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub std::net::IpAddr);
