//! Media of other servers: fetched when somebody first asks, once however many do, and kept for as long as they are asked
//! for and there is room ([`super::sweep`]).
//!
//! Nothing is handed on while it comes in: what is too large or breaks off is not stored, and nobody has seen half of it.
//! Whatever the other server says, a client gets an answer of this one's: an error code of a stranger's would be taken for
//! ours.
//!
//! How bytes come from another server is not known here: that is for [`OriginServers`].

mod fetch;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::library::{Found, Library, MediaUri};
use crate::{
    config::MediaConfig,
    db::Db,
    edge::object_store::ByteStream,
    error::{Error, Result},
    ground::{
        clock::Clock,
        flights::{Flights, Landing},
        tasks::Tasks,
    },
    store::media_quarantine::{self, QuarantineKind},
};

/// How many files come in at once on this node.
const AT_ONCE: usize = 64;
/// And of them from one server: one that is slow leaves room for others.
const AT_ONCE_FROM_ONE: usize = 8;
/// How many wait for that. Whoever comes then is asked to try again.
const WAITING: usize = 2_000;
/// How often somebody who waits for longer than the first who asked has it asked for anew.
const ATTEMPTS: usize = 2;
const MIB: u64 = 1024 * 1024;

/// Where media of other servers come from.
pub(crate) trait OriginServers: Send + Sync {
    /// Asks the server whose media these are. `timeout` is how long that is to wait for something that has not been
    /// uploaded yet. Dropped, it lets go of the connection.
    fn fetch<'a>(&'a self, uri: &'a MediaUri, timeout: Duration) -> BoxFuture<'a, Result<Fetched, OriginError>>;
}

/// What comes from another server.
pub(crate) struct Fetched {
    /// As the other server says.
    pub(crate) content_type: Option<String>,
    pub(crate) file_name: Option<String>,
    /// How many bytes there will be. What ends before has broken off.
    pub(crate) declared_bytes: Option<u64>,
    pub(crate) bytes: ByteStream,
}

/// Why nothing comes.
#[cfg_attr(not(test), allow(dead_code, reason = "federation makes them"))]
#[derive(Debug, thiserror::Error)]
pub(crate) enum OriginError {
    #[error("the server does not have it")]
    Absent,
    #[error("nothing has been uploaded yet")]
    NotYet,
    /// The text is for the log.
    #[error("the server can't be asked, or does not answer as it should: {0}")]
    Unavailable(String),
}

/// How long somebody is waited for.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// For an upload to the other server, at most, whatever a client says.
    upload: Duration,
    /// For an answer, beyond that.
    answer: Duration,
    /// For the next bytes.
    stall: Duration,
    /// For all bytes.
    whole: Duration,
    /// How long somebody who asks waits for the bytes to come. They come in all the same.
    bytes: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            upload: Duration::from_mins(1),
            answer: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            whole: Duration::from_mins(15),
            bytes: Duration::from_mins(1),
        }
    }
}

/// Media of other servers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RemoteMedia(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Clock,
    library: Library,
    server_name: OwnedServerName,
    tasks: Tasks,
    /// None where this server asks no others.
    origin: Option<Arc<dyn OriginServers>>,
    blocked_servers: Vec<OwnedServerName>,
    max_bytes: u64,
    patience: Patience,
    places: Semaphore,
    queue: Semaphore,
    servers: Mutex<HashMap<OwnedServerName, Weak<Semaphore>>>,
    flights: Flights<MediaUri, Outcome>,
}

/// What came of fetching something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Look at its row.
    Done,
    Absent,
    /// Nothing was uploaded in time.
    NotYet,
    TooLarge,
    /// The other server is to blame.
    Failed,
    /// This one is.
    Unavailable,
    /// It has to wait for too many others.
    Busy,
}

impl RemoteMedia {
    /// Without an origin there is only what is here.
    pub(crate) fn new(
        (db, clock): (Db, Clock),
        library: Library,
        server_name: OwnedServerName,
        config: &MediaConfig,
        tasks: Tasks,
        origin: Option<Arc<dyn OriginServers>>,
    ) -> Self {
        Self::with_patience((db, clock), library, server_name, config, tasks, (origin, Patience::default()))
    }

    fn with_patience(
        (db, clock): (Db, Clock),
        library: Library,
        server_name: OwnedServerName,
        config: &MediaConfig,
        tasks: Tasks,
        (origin, patience): (Option<Arc<dyn OriginServers>>, Patience),
    ) -> Self {
        Self(Arc::new(Inner {
            db,
            clock,
            library,
            server_name,
            tasks,
            origin,
            blocked_servers: config.blocked_servers.clone(),
            max_bytes: u64::from(config.max_upload_megabytes) * MIB,
            patience,
            places: Semaphore::new(AT_ONCE),
            queue: Semaphore::new(AT_ONCE + WAITING),
            servers: Mutex::default(),
            flights: Flights::default(),
        }))
    }

    /// What a URI of another server names: what is here, or, where the caller wants that (`allow_remote`), what that server
    /// has. `timeout` is how long to wait where nothing has been uploaded there yet: [`Found::NotYet`] then.
    ///
    /// `M_TOO_LARGE` and `M_UNKNOWN`, both with 502, where the other server has too much or can't be asked;
    /// `Error::Unavailable` where this one is too busy, or the bytes take their time.
    pub(crate) async fn find(&self, uri: &MediaUri, timeout: Duration, allow_remote: bool) -> Result<Found> {
        let here = &self.0;
        if here.blocked_servers.contains(&uri.server_name) {
            return Ok(Found::Quarantined);
        }
        let found = here.library.find(uri).await?;
        if !matches!(found, Found::Absent) || !allow_remote || uri.server_name == here.server_name {
            return Ok(found);
        }
        let Some(origin) = &here.origin else { return Ok(Found::Absent) };
        if self.is_quarantined(QuarantineKind::Server, uri.server_name.as_str()).await? {
            return Ok(Found::Quarantined);
        }
        let deadline = Instant::now() + timeout.min(here.patience.upload);
        let patience_ends = deadline + here.patience.answer + here.patience.bytes;
        let mut outcome = Outcome::NotYet;
        for _ in 0..ATTEMPTS {
            let left = deadline.saturating_duration_since(Instant::now());
            let flight = self
                .0
                .flights
                .join(uri.clone(), |landing| self.clone().fly(Arc::clone(origin), uri.clone(), left, landing));
            outcome = match timeout_at(patience_ends, flight).await {
                Ok(outcome) => outcome,
                Err(_elapsed) => Outcome::Unavailable,
            };
            // Whoever has asked first may have wanted to wait for less.
            if outcome != Outcome::NotYet || Instant::now() >= deadline {
                break;
            }
        }
        match outcome {
            Outcome::Done => here.library.find(uri).await,
            outcome => self.answer(outcome),
        }
    }

    /// What the caller is answered who gets nothing.
    fn answer(&self, outcome: Outcome) -> Result<Found> {
        let of_others = |errcode: &str, message: String| Error::Relayed {
            status: http::StatusCode::BAD_GATEWAY.as_u16(),
            errcode: errcode.to_owned(),
            message,
        };
        match outcome {
            Outcome::Done | Outcome::Absent => Ok(Found::Absent),
            Outcome::NotYet => Ok(Found::NotYet),
            Outcome::TooLarge => {
                let most = self.0.max_bytes / MIB;
                let message =
                    format!("The file is another server's and has more than {most} MiB, which this one takes");
                Err(of_others("M_TOO_LARGE", message))
            }
            Outcome::Failed => {
                let message = "The server that has the file does not send it at this moment: try again later";
                Err(of_others("M_UNKNOWN", message.to_owned()))
            }
            Outcome::Unavailable | Outcome::Busy => {
                Err(Error::Unavailable("The file is not here yet: try again in a moment".to_owned()))
            }
        }
    }

    /// Goes on although whoever has asked goes away: the next one finds what has come.
    async fn fly(
        self,
        origin: Arc<dyn OriginServers>,
        uri: MediaUri,
        wait: Duration,
        landing: Landing<MediaUri, Outcome>,
    ) -> Outcome {
        let tasks = self.0.tasks.clone();
        let work = async move {
            // It is moved into a task.
            let fetched = Box::pin(self.fetch(&*origin, &uri, wait)).await;
            drop(landing);
            fetched.unwrap_or_else(|error| {
                tracing::warn!(%uri, %error, "media of another server could not be kept");
                Outcome::Unavailable
            })
        };
        tasks.see_through("fetching media", work).await.unwrap_or(Outcome::Unavailable)
    }

    async fn is_quarantined(&self, kind: QuarantineKind, name: &str) -> Result<bool> {
        Ok(media_quarantine::is_quarantined(&mut self.0.db.read().await?, kind, name).await?)
    }

    /// How many more may come from one server.
    fn places_of(&self, server_name: &ServerName) -> Arc<Semaphore> {
        let mut servers = self.0.servers.lock();
        if let Some(places) = servers.get(server_name).and_then(Weak::upgrade) {
            return places;
        }
        servers.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(AT_ONCE_FROM_ONE));
        servers.insert(server_name.to_owned(), Arc::downgrade(&places));
        places
    }

    fn now(&self) -> i64 {
        self.0.clock.now().get().into()
    }
}
