//! The border: which addresses may be asked, and names of which only those are left.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{address, port};
use crate::config::IpBlock;

/// How many addresses of a name are tried.
const MAX_ADDRESSES: usize = 8;

/// What may be asked: what is on the public internet, and what the operator allows besides.
#[derive(Debug)]
pub(crate) struct Border {
    allowed: Vec<IpBlock>,
}

impl Border {
    pub(crate) fn new(allowed: Vec<IpBlock>) -> Arc<Self> {
        Arc::new(Self { allowed })
    }

    pub(crate) fn lets(&self, address: IpAddr) -> bool {
        address::is_public(address) || self.allowed.iter().any(|block| block.contains(address))
    }

    /// Whether anything but HTTP is expected there.
    pub(crate) fn lets_port(port: u16) -> bool {
        port::is_for_http(port)
    }
}

/// Looks names up, and leaves out the addresses that may not be asked.
pub(crate) struct CheckedNames {
    names: Arc<dyn Resolve>,
    border: Arc<Border>,
}

impl CheckedNames {
    pub(crate) fn new(names: Arc<dyn Resolve>, border: Arc<Border>) -> Arc<Self> {
        Arc::new(Self { names, border })
    }
}

/// A name has no address that may be asked.
#[derive(Debug, thiserror::Error)]
#[error("no address of it may be asked")]
pub(crate) struct NothingOutside;

impl Resolve for CheckedNames {
    fn resolve(&self, name: Name) -> Resolving {
        let (looking, border) = (self.names.resolve(name), Arc::clone(&self.border));
        Box::pin(async move {
            // Port 0 is whichever the URL says, which is checked where that is.
            let is_outside = |address: &SocketAddr| {
                border.lets(address.ip()) && (address.port() == 0 || Border::lets_port(address.port()))
            };
            let outside: Vec<SocketAddr> = looking.await?.filter(is_outside).take(MAX_ADDRESSES).collect();
            if outside.is_empty() {
                return Err(NothingOutside.into());
            }
            Ok(Box::new(outside.into_iter()) as Addrs)
        })
    }
}
