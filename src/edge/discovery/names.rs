//! DNS, as far as federation needs it: addresses and SRV records.
//!
//! Answers are remembered for as long as DNS says, what is not there as well. A name that does not exist is no error: it
//! has no records.

use std::{net::IpAddr, time::Duration};

use futures_util::future::{BoxFuture, FutureExt as _, ready};
use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::RData,
};

use crate::config::NameServer;

/// How long one name server has for an answer, and how many times it is asked.
const PATIENCE: Duration = Duration::from_secs(3);
const ATTEMPTS: usize = 2;
/// How many answers are remembered, of a few hundred bytes each.
const REMEMBERED: u64 = 8_192;
/// For how long at most it is remembered that something is not there: who has mended their records wants to see it.
const ABSENCE: Duration = Duration::from_mins(5);
/// How many questions one connection may carry at once.
const AT_ONCE: usize = 512;

/// Where names are looked up. Handed in, because tests have names of their own.
pub(crate) trait Names: Send + Sync {
    /// The addresses of a host, best first. None where it has none or does not exist.
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, NameError>>;

    /// The SRV records of a name such as `_matrix-fed._tcp.example.org`, in no order.
    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<Service>, NameError>>;
}

/// An SRV record (<https://www.rfc-editor.org/rfc/rfc2782>).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    /// The lowest first.
    pub(crate) priority: u16,
    /// Among those of one priority: how often this one comes first.
    pub(crate) weight: u16,
    pub(crate) port: u16,
    /// Without a dot at the end. Empty where the record says that there is no such service.
    pub(crate) target: String,
}

/// Nobody has answered, or not with what makes sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NameError(pub(crate) String);

/// Why there is nothing to look names up with.
#[derive(Debug, thiserror::Error)]
#[error("the name servers of this machine can't be used, set `federation.name_servers`: {0}")]
pub(crate) struct NamesError(NetError);

/// Nobody is asked, and every name is as if nobody had answered. For a machine without name servers: its server still
/// works for those who are on it.
pub(crate) struct NoNameServers(pub(crate) NamesError);

impl Names for NoNameServers {
    fn addresses<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, NameError>> {
        ready(Err(NameError(self.0.to_string()))).boxed()
    }

    fn services<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<Service>, NameError>> {
        ready(Err(NameError(self.0.to_string()))).boxed()
    }
}

/// The name servers of the machine, or those that the operator has named.
pub(crate) struct SystemNameServers(TokioResolver);

impl SystemNameServers {
    /// With no name servers given, those of the machine.
    pub(crate) fn new(name_servers: &[NameServer]) -> Result<Self, NamesError> {
        let mut builder = if name_servers.is_empty() {
            TokioResolver::builder_tokio().map_err(NamesError)?
        } else {
            let servers = name_servers.iter().copied().map(config_of).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.timeout = PATIENCE;
        options.attempts = ATTEMPTS;
        options.cache_size = REMEMBERED;
        options.negative_max_ttl = Some(ABSENCE);
        options.max_active_requests = AT_ONCE;
        options.try_tcp_on_error = true;
        builder.build().map(Self).map_err(NamesError)
    }
}

fn config_of(server: NameServer) -> NameServerConfig {
    let mut config = NameServerConfig::udp_and_tcp(server.address().ip());
    for connection in &mut config.connections {
        connection.port = server.address().port();
    }
    config
}

impl Names for SystemNameServers {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, NameError>> {
        async move {
            match self.0.lookup_ip(whole(host)).await {
                Ok(found) => Ok(found.iter().collect()),
                Err(error) if error.is_no_records_found() => Ok(Vec::new()),
                Err(error) => Err(NameError(error.to_string())),
            }
        }
        .boxed()
    }

    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<Service>, NameError>> {
        async move {
            match self.0.srv_lookup(whole(name)).await {
                Ok(found) => Ok(found.answers().iter().filter_map(|record| service(&record.data)).collect()),
                Err(error) if error.is_no_records_found() => Ok(Vec::new()),
                Err(error) => Err(NameError(error.to_string())),
            }
        }
        .boxed()
    }
}

/// None of what is no SRV record, such as the alias that leads to one.
fn service(data: &RData) -> Option<Service> {
    let RData::SRV(record) = data else { return None };
    let target = record.target.to_ascii();
    Some(Service {
        priority: record.priority,
        weight: record.weight,
        port: record.port,
        target: target.trim_end_matches('.').to_owned(),
    })
}

/// With a dot at the end, so that no domain of the machine's own is tried in front of it.
fn whole(name: &str) -> String {
    if name.ends_with('.') { name.to_owned() } else { format!("{name}.") }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};

    use hickory_resolver::proto::rr::{Name, rdata::SRV};

    use super::*;

    #[test]
    fn names_are_looked_up_as_they_are() {
        assert_eq!(whole("example.org"), "example.org.");
        assert_eq!(whole("example.org."), "example.org.");
    }

    #[test]
    fn a_record_is_read_with_its_target_or_without() {
        let record = |target: &str| RData::SRV(SRV::new(10, 5, 443, Name::from_ascii(target).unwrap()));
        let read = |target: &str| service(&record(target)).unwrap();
        let expected = Service { priority: 10, weight: 5, port: 443, target: "matrix.example.org".to_owned() };
        assert_eq!(read("matrix.example.org."), expected);
        assert_eq!(read(".").target, "");
        assert_eq!(service(&RData::A(Ipv4Addr::LOCALHOST.into())), None);
    }

    /// An answer to a question about SRV records: 10 5 443 matrix.example.
    fn answer_to(question: &[u8]) -> Vec<u8> {
        let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
        let mut answer = question[..end].to_vec();
        answer[2] |= 0x80;
        answer[3] = 0;
        // One answer, and nothing of what is beside the question.
        answer[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
        answer.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, 22, 0, 10, 0, 5, 1, 187]);
        answer.extend(b"\x06matrix\x07example\x00");
        answer
    }

    #[tokio::test]
    async fn the_name_servers_that_are_given_are_asked() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let address = socket.local_addr().unwrap();
        let names = SystemNameServers::new(&[address.to_string().parse().unwrap()]).unwrap();
        let answering = tokio::task::spawn_blocking(move || {
            let mut question = [0; 1_500];
            let (length, from) = socket.recv_from(&mut question).unwrap();
            socket.send_to(&answer_to(&question[..length]), from).unwrap();
            String::from_utf8_lossy(&question[..length]).into_owned()
        });
        let found = names.services("_matrix-fed._tcp.example.org").await.unwrap();
        let expected = Service { priority: 10, weight: 5, port: 443, target: "matrix.example".to_owned() };
        assert_eq!(found, [expected]);
        let asked = answering.await.unwrap().to_ascii_lowercase();
        assert!(asked.contains("_matrix-fed\u{4}_tcp\u{7}example\u{3}org\0"), "{asked:?}");
    }
}
