//! How a server is reached, step by step, for an operator who wants to know why it is not.
//!
//! Each address is tried by itself, while a request takes the first that answers: half of a server's addresses may be out
//! of order for years.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use reqwest::{Certificate, Client};
use ruma::ServerName;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::{
    bounds::Bounds,
    remote_body::RemoteBody,
    remote_error::RemoteError,
    step::{Step, remedy},
};
use crate::edge::{
    discovery::{NameError, Route, ServerResolver, Way},
    http_client::{self, Certificates, ClientOptions},
};

/// For the answer of one address.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many addresses are tried.
const MAX_ADDRESSES: usize = 8;
/// The longest answer that is read, in bytes.
const MAX_BYTES: usize = 64 * 1024;
/// In characters.
const MAX_NAME: usize = 60;

/// The steps up to the first that went badly, and then those of each address.
pub(super) async fn explain(resolver: &ServerResolver, authorities: &[Certificate], to: &ServerName) -> Vec<Step> {
    let mut steps = Steps(Vec::new());
    let Some(route) = find_route(resolver, to, &mut steps).await else { return steps.0 };
    let host = route.url().host_str().unwrap_or_default().to_owned();
    match find_addresses(resolver, &route, &host, &mut steps).await {
        Err(error) => steps.badly(
            error.to_string(),
            format!("DNS has to know {host}: an A or AAAA record, or an SRV record that leads to a name with one"),
        ),
        Ok(addresses) => {
            for address in addresses.into_iter().take(MAX_ADDRESSES) {
                if resolver.border().lets(address.ip()) {
                    try_address(authorities, &route, (&host, address), &mut steps).await;
                } else {
                    steps.badly(
                        format!("{address} is not on the public internet, nor in one of `federation.allowed_networks`"),
                        "Where others come from outside, DNS has to lead them to a public address. A network of your own \
                         in which there are servers goes into `federation.allowed_networks`",
                    );
                }
            }
        }
    }
    steps.0
}

struct Steps(Vec<Step>);

impl Steps {
    fn well(&mut self, text: impl Into<String>) {
        self.0.push(Step::well(text));
    }

    fn oddly(&mut self, text: impl Into<String>, advice: impl Into<String>) {
        self.0.push(Step::oddly(text).advise(advice));
    }

    fn badly(&mut self, text: impl Into<String>, advice: impl Into<String>) {
        self.0.push(Step::badly(text).advise(advice));
    }
}

/// None where there is none, which is the last step.
async fn find_route(resolver: &ServerResolver, to: &ServerName, steps: &mut Steps) -> Option<Route> {
    let found = match resolver.find_direct(to) {
        Ok(Some(route)) => {
            steps.well(format!("{to} says itself where the server is"));
            Ok(route)
        }
        Err(error) => Err(error),
        Ok(None) => {
            let file = format!("https://{}/.well-known/matrix/server", to.host());
            match resolver.look_at_well_known(to.host()).await {
                Ok(server) => {
                    steps.well(format!("{file} leads to {server}"));
                    resolver.route(&server)
                }
                Err(error) => {
                    steps.oddly(
                        format!("{file} leads nowhere ({error}), so the server is looked for at {to} itself"),
                        "That is as it should be where nothing is delegated. Else the answer has to have the status 200 and \
                         be JSON such as {\"m.server\": \"matrix.example.org:443\"}",
                    );
                    resolver.route(to)
                }
            }
        }
    };
    match found {
        Ok(route) => Some(route),
        Err(error) => {
            steps.badly(error.to_string(), "It has to be a name, or an address, that others can reach by HTTPS");
            None
        }
    }
}

async fn find_addresses(
    resolver: &ServerResolver,
    route: &Route,
    host: &str,
    steps: &mut Steps,
) -> Result<Vec<SocketAddr>, NameError> {
    let port = route.url().port_or_known_default().unwrap_or_default();
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let addresses: Vec<SocketAddr> = if route.way() == Way::ByPort {
        let addresses = resolver.addresses(host).await?;
        addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect()
    } else {
        let found = resolver.locate(host).await?;
        for unanswered in found.unanswered {
            steps.oddly(
                format!("nobody answers a question about DNS: {unanswered}"),
                "Look at the name servers of the domain, and at those that this machine asks (`federation.name_servers`)",
            );
        }
        match found.services {
            None => steps.well(format!("{host} has no SRV records, so the usual port is meant")),
            Some((name, records)) => {
                let targets = records.iter().map(|record| format!("{}:{}", record.target, record.port));
                steps.well(format!("{name} leads to {}", targets.collect::<Vec<_>>().join(", ")));
            }
        }
        found.addresses
    };
    if addresses.is_empty() {
        return Err(NameError(format!("{host} has no address")));
    }
    let listed: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    steps.well(format!("its addresses are {}", listed.join(", ")));
    Ok(addresses)
}

/// Connects, and asks for the version, which anybody may.
async fn try_address(
    authorities: &[Certificate],
    route: &Route,
    (host, address): (&str, SocketAddr),
    steps: &mut Steps,
) {
    let client = match client_for(authorities, (host, address)) {
        Ok(client) => client,
        Err(error) => return steps.badly(error.to_string(), "It is this machine that can't ask: see its certificates"),
    };
    let started = Instant::now();
    let asked = timeout(PATIENCE, ask_version(&client, route)).await.unwrap_or_else(|_| Err(RemoteError::slow()));
    let took = started.elapsed().as_millis();
    match asked {
        Ok(version) => {
            steps.well(format!("{address} has a good certificate for {host} and answers in {took} ms: {version}"));
        }
        Err(error @ (RemoteError::Refused { .. } | RemoteError::Malformed(_))) => steps.badly(
            format!(
                "{address} has a good certificate for {host}, but there seems to be no Matrix server behind it: {error}"
            ),
            remedy(&error, host, address),
        ),
        Err(error) => steps.badly(format!("{address}: {error}"), remedy(&error, host, address)),
    }
}

fn client_for(authorities: &[Certificate], (host, address): (&str, SocketAddr)) -> Result<Client, RemoteError> {
    let needs = ClientOptions {
        whom: "other servers",
        connect: PATIENCE,
        answer: PATIENCE,
        proxy: false,
        certificates: Certificates::Welcome,
    };
    let client = http_client::new_with(needs, |http| {
        let http = http.resolve_to_addrs(host, &[address]).user_agent(http_client::user_agent());
        http.https_only(true).referer(false).tls_certs_merge(authorities.iter().cloned())
    });
    client.map_err(|error| RemoteError::Unreachable(error.to_string()))
}

async fn ask_version(client: &Client, route: &Route) -> Result<String, RemoteError> {
    let url = route.url().join("/_matrix/federation/v1/version");
    let url = url.or(Err(RemoteError::Malformed("its address makes no URL".to_owned())))?;
    let response = client.get(url).send().await.map_err(|error| RemoteError::of(&error))?;
    let bounds = Bounds { max_bytes: MAX_BYTES, ..Bounds::QUICK };
    let body = RemoteBody::new(response, bounds, Instant::now() + PATIENCE).unless_refused().await?;
    let answer: Option<Value> = serde_json::from_slice(body.whole().await?.body()).ok();
    // Many a website answers whatever it is asked.
    let answer = answer.filter(Value::is_object);
    let answer = answer.ok_or_else(|| RemoteError::Malformed("its answer is no JSON".to_owned()))?;
    let text = |key: &str| {
        let text = answer.get("server").and_then(|server| server.get(key)).and_then(Value::as_str).unwrap_or("unknown");
        text.chars().filter(|character| !character.is_control()).take(MAX_NAME).collect::<String>()
    };
    Ok(format!("{} {}", text("name"), text("version")))
}
