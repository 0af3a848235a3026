//! Where another server is, for those who know its name.
//!
//! The steps of the specification end in one of two ways ([`Way`]). Either the port is known: it stands in the name, or
//! the name is an IP address. Or it is to be looked up: by SRV records, else it is 8448. Only the steps before that, up to
//! the well-known file, are taken here; the others are taken when a connection is made (`locate.rs`), since all
//! that they depend on is the name, and they are for DNS to remember.
//!
//! Whichever way it is, the URL of a request has the name that the certificate has to be for, and so has `Host`: what an
//! SRV record leads to has to prove that it speaks for the name.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#server-discovery>

mod locate;
mod names;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod well_known;

use std::{net::IpAddr, sync::Arc};

use reqwest::{Certificate, Url};
use ruma::{OwnedServerName, ServerName};

pub(crate) use self::names::{NameError, Names, NoNameServers, SystemNameServers};
use self::{
    locate::{Found, HostNames, ServiceNames},
    well_known::{LookFailure, WellKnown},
};
use crate::{
    config::IpBlock,
    edge::{
        http_client::HttpClientError,
        outside_client::{Border, CheckedNames},
    },
    ground::{clock::Clock, random::Random, weighed::Weighed},
};

/// Where HTTPS is, and where servers are of which nothing else is known. Tests have their own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) https: u16,
    pub(crate) matrix: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { https: 443, matrix: 8448 }
    }
}

/// Where requests for a server go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// `https://` and what `Host` says.
    url: Url,
    way: Way,
}

/// How the port is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It is the URL's.
    ByPort,
    /// By SRV records of the name, else it is the usual one. The URL has none.
    ByService,
}

/// A name leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRoute {
    #[error("`{0}` is no name that DNS could know")]
    NotAName(String),
    #[error("no HTTP is spoken on port {0}")]
    Port(u16),
    /// Not to be told to whoever named the address: they would learn what there is in a network that they are not in.
    #[error("its address is not on the public internet, nor in one of `federation.allowed_networks`")]
    Inside,
}

impl Route {
    /// Without what follows the host. It ends with a slash.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn way(&self) -> Way {
        self.way
    }
}

/// Finds servers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ServerResolver(Arc<Inner>);

struct Inner {
    names: Arc<dyn Names>,
    ports: Ports,
    border: Arc<Border>,
    random: Random,
    well_known: WellKnown,
}

impl ServerResolver {
    /// `allowed`: networks that may be asked although they are not public. `most`: how much it may remember, in bytes.
    pub(crate) fn new(
        (names, ports): (Arc<dyn Names>, Ports),
        allowed: Vec<IpBlock>,
        authorities: Vec<Certificate>,
        (clock, random): (Clock, Random),
        most: u64,
    ) -> Result<Self, HttpClientError> {
        let hosts = Arc::new(HostNames::new(Arc::clone(&names), ports.https));
        let border = Border::new(allowed.clone());
        let client = well_known::client(hosts, allowed, authorities)?;
        let well_known = WellKnown::new(client, clock, random.clone(), most);
        Ok(Self(Arc::new(Inner { names, ports, border, random, well_known })))
    }

    /// Where requests for this server go. Asks for its well-known file, if that is not remembered, for some seconds at
    /// most.
    pub(crate) async fn find(&self, server: &ServerName) -> Result<Route, NoRoute> {
        if let Some(route) = self.find_direct(server)? {
            return Ok(route);
        }
        let delegate = self.0.well_known.find(server.host()).await;
        self.route(delegate.as_deref().unwrap_or(server))
    }

    /// Steps 1 and 2: where the name alone says it. None where the well-known file has to be asked for.
    pub(crate) fn find_direct(&self, server: &ServerName) -> Result<Option<Route>, NoRoute> {
        if server.is_ip_literal() || server.port().is_some() { self.route(server).map(Some) } else { Ok(None) }
    }

    /// Asks for the well-known file anew, whatever is remembered.
    pub(crate) async fn look_at_well_known(&self, host: &str) -> Result<OwnedServerName, LookFailure> {
        self.0.well_known.look(host).await.map(|delegation| delegation.server)
    }

    /// Where a name leads that nobody else answers for. Steps 1 and 2, 3.1 to 3.5, and 4 to 6 are alike in that.
    pub(crate) fn route(&self, name: &ServerName) -> Result<Route, NoRoute> {
        let (host, is_address) = (name.host(), name.is_ip_literal());
        let port = name.port().or(is_address.then_some(self.0.ports.matrix));
        let authority = port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let not_a_name = || NoRoute::NotAName(name.to_string());
        let url = Url::parse(&format!("https://{authority}/")).or(Err(not_a_name()))?;
        if let Some(port) = port.filter(|port| !Border::lets_port(*port)) {
            return Err(NoRoute::Port(port));
        }
        // The URL is read by the rules of browsers, for which `127.1` is an address. No resolver would see it.
        let address = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
        match address {
            Some(_) if !is_address => Err(not_a_name()),
            Some(address) if !self.0.border.lets(address) => Err(NoRoute::Inside),
            _ => Ok(Route { url, way: if port.is_some() { Way::ByPort } else { Way::ByService } }),
        }
    }

    /// What a client takes that goes by the port of the URL.
    pub(crate) fn names_by_port(&self) -> Arc<CheckedNames> {
        // Where the URL has none, the usual one is meant, which the library puts in for 0.
        let hosts = HostNames::new(Arc::clone(&self.0.names), 0);
        CheckedNames::new(Arc::new(hosts), Arc::clone(&self.0.border))
    }

    /// What a client takes that looks the port up.
    pub(crate) fn names_by_service(&self) -> Arc<CheckedNames> {
        CheckedNames::new(Arc::new(self.service_names()), Arc::clone(&self.0.border))
    }

    /// For who wants to know each step: the SRV records of a name and all addresses, whether they may be asked or not.
    pub(crate) async fn locate(&self, host: &str) -> Result<Found, NameError> {
        self.service_names().locate(host).await
    }

    /// The addresses of a host, whether they may be asked or not.
    pub(crate) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, NameError> {
        self.0.names.addresses(host).await
    }

    pub(crate) fn border(&self) -> &Border {
        &self.0.border
    }

    /// What is remembered of well-known files.
    pub(crate) fn cache(&self) -> Arc<dyn Weighed> {
        self.0.well_known.cache()
    }

    fn service_names(&self) -> ServiceNames {
        ServiceNames::new(Arc::clone(&self.0.names), self.0.ports.matrix, self.0.random.clone())
    }
}
