//! The well-known file of a server's name, which says where its server is.
//!
//! What it says is remembered for as long as its headers say, within bounds; a day where they don't. That it says nothing
//! is remembered for an hour, and where nobody answers for two minutes. A file that was there before is believed two hours
//! longer: who mends a web server would cut the Matrix server off otherwise.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#getwell-knownmatrixserver>

mod lifetime;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Weak},
    time::Duration,
};

use http::StatusCode;
use parking_lot::Mutex;
use quick_cache::{Weighter, sync::Cache};
use reqwest::{Certificate, Url, dns::Resolve};
use ruma::OwnedServerName;
use serde::Deserialize;
use tokio::time::timeout;

use self::lifetime::{ABSENT, REMEMBERED, SILENT};
use crate::{
    config::IpBlock,
    edge::{
        http_client::{self, HttpClientError},
        outside_client::{OutsideClient, OutsideError, OutsideOptions, OutsideRequest, OutsideResponse},
    },
    ground::{
        clock::{Clock, millis},
        random::Random,
        weighed::{self, CacheWeight, Weighed},
    },
};

/// For a connection, and for all of it with its redirects: whoever waits for a server waits for this first.
const CONNECT: Duration = Duration::from_secs(4);
const ANSWER: Duration = Duration::from_secs(6);
/// The longest file, in bytes.
const MAX_BYTES: usize = 50 * 1024;
/// How often one may be sent on.
const MAX_REDIRECTS: usize = 10;
/// How many names may be looked at before those are forgotten that nobody waits for.
const MAX_TURNS: usize = 1_024;
/// What a name takes in memory beside its letters, about.
const NAME_BYTES: usize = 200;
const SHARDS: usize = 4;

/// Asks for the files, and remembers what they say.
pub(super) struct WellKnown {
    client: OutsideClient,
    clock: Clock,
    random: Random,
    cache: Arc<WellKnownCache>,
    turns: Turns,
}

/// What a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delegation {
    pub(super) server: OwnedServerName,
    /// For how long that is good.
    pub(super) lifetime: Duration,
}

/// Why there is nothing to read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LookFailure {
    /// Nobody answers, or has anything to say at the moment.
    #[error("{0}")]
    Silent(String),
    /// There is no such file, or it makes no sense.
    #[error("{0}")]
    Absent(String),
}

/// What is remembered of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    /// Whose name to go on with. None for the name itself.
    server: Option<OwnedServerName>,
    /// When to look again, in milliseconds since the Unix epoch.
    until: i64,
    /// Up to when it is believed if nobody answers then. Of no meaning without a server.
    believed: i64,
}

impl WellKnown {
    /// `most`: how much it may remember, in bytes.
    pub(super) fn new(client: OutsideClient, clock: Clock, random: Random, most: u64) -> Self {
        let known = weighed::by_bytes(usize::try_from(most).unwrap_or(usize::MAX) / NAME_BYTES, most, SHARDS, ByBytes);
        Self { client, clock, random, cache: Arc::new(WellKnownCache { known, limit: most }), turns: Turns::default() }
    }

    /// To whom this host leaves the answering. None where it does so itself.
    pub(super) async fn find(&self, host: &str) -> Option<OwnedServerName> {
        let host = host.to_ascii_lowercase();
        if let Some(known) = self.find_fresh(&host) {
            return known.server;
        }
        // One looks for all who ask meanwhile. Whoever goes away leaves it to the next.
        let turn = self.turns.of(&host);
        let _turn = turn.lock().await;
        if let Some(known) = self.find_fresh(&host) {
            return known.server;
        }
        let looked = self.look(&host).await;
        let known = self.remember(self.cache.known.get(&host), looked);
        self.cache.known.insert(host, known.clone());
        known.server
    }

    fn find_fresh(&self, host: &str) -> Option<Known> {
        self.cache.known.get(host).filter(|known| self.now() < known.until)
    }

    fn remember(&self, before: Option<Known>, looked: Result<Delegation, LookFailure>) -> Known {
        let now = self.now();
        let later = |span: Duration| now.saturating_add(millis(span));
        match (looked, before) {
            (Ok(Delegation { server, lifetime }), _) => {
                let believed = later(lifetime.saturating_add(REMEMBERED));
                Known { server: Some(server), until: later(lifetime), believed }
            }
            (Err(_), Some(Known { server: Some(server), believed, .. })) if now < believed => {
                Known { server: Some(server), until: later(SILENT).min(believed), believed }
            }
            (Err(LookFailure::Silent(_)), _) => Known { server: None, until: later(SILENT), believed: now },
            (Err(LookFailure::Absent(_)), _) => Known { server: None, until: later(ABSENT), believed: now },
        }
    }

    fn now(&self) -> i64 {
        self.clock.now().get().into()
    }

    /// Asks for the file, whatever is remembered.
    pub(super) async fn look(&self, host: &str) -> Result<Delegation, LookFailure> {
        match timeout(ANSWER, self.fetch(host)).await {
            Ok(looked) => looked,
            Err(_) => Err(LookFailure::Silent("it takes too long to answer".to_owned())),
        }
    }

    async fn fetch(&self, host: &str) -> Result<Delegation, LookFailure> {
        let first = Url::parse(&format!("https://{host}/.well-known/matrix/server"));
        let mut url = first.or(Err(LookFailure::Absent("it is no name that DNS could know".to_owned())))?;
        let mut seen = BTreeSet::new();
        for _ in 0..=MAX_REDIRECTS {
            // By what is not secure anybody on the way could send this server elsewhere.
            if url.scheme() != "https" {
                return Err(LookFailure::Absent(format!("it leads to {url}, which is not https")));
            }
            if !seen.insert(url.clone()) {
                return Err(LookFailure::Absent(format!("it leads round in circles, by {url}")));
            }
            let answer = self.client.send(OutsideRequest::get(url)).await.map_err(|error| not_answered(&error))?;
            match answer.redirect() {
                Some(next) => url = next,
                None => return self.read(answer).await,
            }
        }
        Err(LookFailure::Absent("it leads on and on".to_owned()))
    }

    async fn read(&self, answer: OutsideResponse) -> Result<Delegation, LookFailure> {
        #[derive(Deserialize)]
        struct File {
            #[serde(rename = "m.server")]
            server: OwnedServerName,
        }
        let status = answer.status();
        if status != StatusCode::OK {
            let problem = format!("the answer has the status {status}");
            return Err(if status.is_server_error() {
                LookFailure::Silent(problem)
            } else {
                LookFailure::Absent(problem)
            });
        }
        let lifetime = lifetime::of(answer.headers(), self.now(), &self.random);
        let body = answer.whole(MAX_BYTES).await.map_err(|error| not_answered(&error))?;
        let file = serde_json::from_slice::<File>(&body);
        let file =
            file.or(Err(LookFailure::Absent("it is no JSON with an `m.server` that names a server".to_owned())))?;
        Ok(Delegation { server: file.server, lifetime })
    }

    pub(super) fn cache(&self) -> Arc<WellKnownCache> {
        Arc::clone(&self.cache)
    }
}

/// The client that asks. `names` leads to the port that HTTPS has.
pub(super) fn client(
    names: Arc<dyn Resolve>,
    allowed: Vec<IpBlock>,
    authorities: Vec<Certificate>,
) -> Result<OutsideClient, HttpClientError> {
    let options = OutsideOptions {
        whom: "other servers",
        user_agent: http_client::user_agent(),
        connect: CONNECT,
        answer: ANSWER,
        allowed,
        authorities,
    };
    OutsideClient::new(options, names)
}

/// An address inside stays so, and what is too long does not become shorter.
fn not_answered(error: &OutsideError) -> LookFailure {
    let problem = error.to_string();
    match error {
        OutsideError::Slow | OutsideError::Failed(_) => LookFailure::Silent(problem),
        _ => LookFailure::Absent(problem),
    }
}

/// What is remembered, by host in small letters.
pub(super) struct WellKnownCache {
    known: Cache<String, Known, ByBytes>,
    limit: u64,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<String, Known> for ByBytes {
    fn weight(&self, host: &String, known: &Known) -> u64 {
        (NAME_BYTES + host.len() + known.server.as_ref().map_or(0, |server| server.as_str().len())) as u64
    }
}

impl Weighed for WellKnownCache {
    fn weight(&self) -> CacheWeight {
        CacheWeight { name: "servers", bytes: self.known.weight(), limit: self.limit }
    }
}

/// Who looks at which host.
#[derive(Default)]
struct Turns(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    fn of(&self, host: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.0.lock();
        if let Some(turn) = turns.get(host).and_then(Weak::upgrade) {
            return turn;
        }
        if turns.len() >= MAX_TURNS {
            turns.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = Arc::default();
        turns.insert(host.to_owned(), Arc::downgrade(&turn));
        turn
    }
}
