//! The networks that an address belongs to, as far as one customer or one provider has them.
//!
//! An IPv6 network of 64 bits is one household, and many get one of 48 bits for the asking. A provider has one of 32
//! bits, which is as many households as there are IPv4 addresses: so the networks around an address count too, with
//! more room in each.

use std::net::{IpAddr, Ipv6Addr};

use crate::edge::serve::block::block_of;

/// A network, by its first address and the length of its prefix in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    first: IpAddr,
    prefix: u32,
}

/// The prefixes that count, and how many times the room of the narrowest each has.
const PREFIXES: [(u32, u32); 3] = [(64, 1), (48, 16), (32, 256)];

impl Network {
    /// The narrowest: an IPv4 address, or an IPv6 network of 64 bits.
    pub(super) fn of(address: IpAddr) -> Self {
        let first = block_of(address);
        Self { first, prefix: if first.is_ipv4() { 32 } else { 64 } }
    }

    /// Every network around an address that counts, with the factor by which there is more room in it.
    pub(super) fn all_of(address: IpAddr) -> Vec<(Self, u32)> {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                PREFIXES.iter().map(|(prefix, room)| (Self::around(address, *prefix), *room)).collect()
            }
            IpAddr::V4(_) => vec![(Self::of(address), 1)],
        }
    }

    fn around(address: Ipv6Addr, prefix: u32) -> Self {
        let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix)).unwrap_or_default();
        Self { first: IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask)), prefix }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.first {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(address) => write!(f, "{address}/{}", self.prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_its_networks() {
        let names = |address: &str| -> Vec<String> {
            let networks = Network::all_of(address.parse().unwrap());
            networks.iter().map(|(network, room)| format!("{network} {room}")).collect()
        };
        assert_eq!(names("192.0.2.1"), ["192.0.2.1 1"]);
        assert_eq!(names("::ffff:192.0.2.1"), ["192.0.2.1 1"]);
        assert_eq!(names("2001:db8:1:2:3::4"), ["2001:db8:1:2::/64 1", "2001:db8:1::/48 16", "2001:db8::/32 256"]);
        assert_eq!(Network::of("2001:db8::1".parse().unwrap()), Network::of("2001:db8::2:0:0:1".parse().unwrap()));
    }
}
