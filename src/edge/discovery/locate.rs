//! The last steps: from a name to the addresses and ports at which it is served.
//!
//! SRV records lead to other hosts and their ports; where there are none, it is the host itself and the usual port. A
//! question that nobody has answered counts as one to which there is nothing: whoever is at the usual port has to prove
//! that it speaks for the name, too.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names>

use std::{net::SocketAddr, sync::Arc};

use futures_util::future::{join, join_all};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::names::{NameError, Names, Service};
use crate::ground::random::Random;

/// The service, and as it was called before it was registered.
const SERVICES: [&str; 2] = ["_matrix-fed._tcp", "_matrix._tcp"];
/// How many records are looked at, and how many hosts are looked up of those that come first.
const MAX_RECORDS: usize = 20;
const MAX_TARGETS: usize = 4;

/// Addresses of a host alone, each with one port.
pub(crate) struct HostNames {
    names: Arc<dyn Names>,
    port: u16,
}

impl HostNames {
    pub(crate) fn new(names: Arc<dyn Names>, port: u16) -> Self {
        Self { names, port }
    }
}

impl Resolve for HostNames {
    fn resolve(&self, name: Name) -> Resolving {
        let (names, port) = (Arc::clone(&self.names), self.port);
        Box::pin(async move {
            let found = names.addresses(name.as_str()).await?;
            let found: Vec<SocketAddr> = found.into_iter().map(|address| SocketAddr::new(address, port)).collect();
            if found.is_empty() {
                return Err(no_address(name.as_str()).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Addresses and ports at which a name is served.
#[derive(Clone)]
pub(crate) struct ServiceNames {
    names: Arc<dyn Names>,
    /// Where there are no SRV records.
    port: u16,
    random: Random,
}

/// What was found of a name.
#[derive(Debug)]
pub(crate) struct Found {
    /// The name of its SRV records, and those in the order in which they are tried. None where there are none.
    pub(crate) services: Option<(String, Vec<Service>)>,
    /// Never empty.
    pub(crate) addresses: Vec<SocketAddr>,
    /// What nobody has answered.
    pub(crate) unanswered: Vec<String>,
}

impl ServiceNames {
    pub(crate) fn new(names: Arc<dyn Names>, port: u16, random: Random) -> Self {
        Self { names, port, random }
    }

    pub(crate) async fn locate(&self, host: &str) -> Result<Found, NameError> {
        let [current, deprecated] = SERVICES.map(|service| format!("{service}.{host}"));
        let looking = join(self.names.services(&current), self.names.services(&deprecated));
        let (by_current, by_deprecated) = looking.await;
        let mut unanswered = Vec::new();
        for (name, found) in [(current, by_current), (deprecated, by_deprecated)] {
            match found {
                Ok(records) if records.is_empty() => {}
                Ok(records) => return self.follow(name, records, unanswered).await,
                Err(error) => unanswered.push(format!("{name}: {error}")),
            }
        }
        let addresses = self.names.addresses(host).await?;
        if addresses.is_empty() {
            return Err(no_address(host));
        }
        let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, self.port)).collect();
        Ok(Found { services: None, addresses, unanswered })
    }

    /// The addresses of those that come first, in order.
    async fn follow(
        &self,
        name: String,
        records: Vec<Service>,
        mut unanswered: Vec<String>,
    ) -> Result<Found, NameError> {
        let mut records = in_order(records, &self.random);
        records.retain(|record| !record.target.is_empty());
        if records.is_empty() {
            return Err(NameError(format!("the SRV record {name} says that there is no such service")));
        }
        records.truncate(MAX_TARGETS);
        let mut addresses = Vec::new();
        let looking = records.iter().map(|record| self.names.addresses(&record.target));
        for (record, found) in records.iter().zip(join_all(looking).await) {
            match found {
                Ok(found) => addresses.extend(found.into_iter().map(|address| SocketAddr::new(address, record.port))),
                Err(error) => unanswered.push(format!("{}: {error}", record.target)),
            }
        }
        if addresses.is_empty() {
            let targets: Vec<&str> = records.iter().map(|record| record.target.as_str()).collect();
            let problem = format!("none of the hosts that {name} leads to has an address: {}", targets.join(", "));
            return Err(NameError(problem));
        }
        Ok(Found { services: Some((name, records)), addresses, unanswered })
    }
}

impl Resolve for ServiceNames {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.clone();
        Box::pin(async move {
            let found = names.locate(name.as_str()).await?;
            Ok(Box::new(found.addresses.into_iter()) as Addrs)
        })
    }
}

fn no_address(host: &str) -> NameError {
    NameError(format!("{host} has no address"))
}

/// By priority, and those of one priority drawn by lot, in proportion to their weights.
fn in_order(mut records: Vec<Service>, random: &Random) -> Vec<Service> {
    records.truncate(MAX_RECORDS);
    // Those without a weight first, so that they have a small chance.
    records.sort_by_key(|record| (record.priority, record.weight > 0));
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(priority) = records.first().map(|record| record.priority) {
        let alike = records.iter().take_while(|record| record.priority == priority);
        let sum: u64 = alike.map(|record| u64::from(record.weight)).sum();
        let mut lot = u64::from_le_bytes(random.bytes()) % (sum + 1);
        let drawn = records.iter().position(|record| {
            let weight = u64::from(record.weight);
            let is_drawn = lot <= weight;
            lot = lot.saturating_sub(weight);
            is_drawn
        });
        ordered.push(records.remove(drawn.unwrap_or(0)));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(priority: u16, weight: u16, target: &str) -> Service {
        Service { priority, weight, port: 8448, target: target.to_owned() }
    }

    #[test]
    fn records_come_by_priority_and_then_by_weight() {
        let random = Random::seeded(1);
        let mut first = [0; 3];
        for _ in 0..1_000 {
            let records =
                vec![record(20, 0, "last"), record(10, 90, "often"), record(10, 10, "seldom"), record(10, 0, "hardly")];
            let ordered: Vec<String> = in_order(records, &random).into_iter().map(|record| record.target).collect();
            assert_eq!(ordered.len(), 4);
            assert_eq!(ordered[3], "last");
            let place = ["often", "seldom", "hardly"].iter().position(|name| *name == ordered[0]).unwrap();
            first[place] += 1;
        }
        let [often, seldom, hardly] = first;
        assert!(often > 800 && (50..180).contains(&seldom) && hardly < 40, "{first:?}");
        assert_eq!(in_order(vec![record(1, 1, "a"); 1_000], &random).len(), MAX_RECORDS);
        assert!(in_order(Vec::new(), &random).is_empty());
    }
}
