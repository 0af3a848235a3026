//! A look at files before anybody gets them, by a program of the operator's or by clamd.
//!
//! A file is looked at when it is uploaded, and what came in another way when somebody first asks for it. That it is
//! harmless stands in the row of its bytes. What is not is quarantined by its digest, so it does not come in again.
//! Whatever goes wrong, the file is not served: the caller may try again.

mod clamd;
mod command;
#[cfg(test)]
mod tests;
mod verdict;

use std::{path::Path, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use self::{clamd::ClamdAddress, verdict::Verdict};
use super::{
    objects::{Object, Objects},
    spool::Received,
};
use crate::{
    config::ScannerConfig,
    db::Db,
    error::{Error, Result},
    ground::{
        clock::Clock,
        digest::Digest,
        flights::{Flights, Landing},
        tasks::Tasks,
    },
    store::{
        media_object,
        media_quarantine::{self, QuarantineKind},
    },
};

/// How many files are looked at at once on this node. Scanners take much memory and time.
const AT_ONCE: usize = 4;
/// How many wait for that. Whoever comes then is asked to try again.
const WAITING: usize = 200;

/// Has files looked at. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Scanner(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Clock,
    objects: Objects,
    tasks: Tasks,
    /// None where nobody looks at anything.
    engine: Option<Engine>,
    /// For one file.
    patience: Duration,
    places: Semaphore,
    queue: Semaphore,
    flights: Flights<Digest, Verdict>,
}

enum Engine {
    /// A program and its arguments.
    Command(Vec<String>),
    Clamd(ClamdAddress),
}

/// The right to have a file looked at, as long as this is there.
struct Turn<'a> {
    _queue: SemaphorePermit<'a>,
    _place: SemaphorePermit<'a>,
}

impl Scanner {
    pub(crate) fn new((db, clock): (Db, Clock), objects: Objects, config: &ScannerConfig, tasks: Tasks) -> Self {
        let engine = if config.command.is_empty() {
            config.clamd.as_deref().map(|address| Engine::Clamd(ClamdAddress::of(address)))
        } else {
            Some(Engine::Command(config.command.clone()))
        };
        Self(Arc::new(Inner {
            db,
            clock,
            objects,
            tasks,
            engine,
            patience: Duration::from_secs(config.timeout_seconds),
            places: Semaphore::new(AT_ONCE),
            queue: Semaphore::new(AT_ONCE + WAITING),
            flights: Flights::default(),
        }))
    }

    /// Looks at a file that has come in, before it is kept. Returns when it was found harmless, which is to be written into
    /// the row of its bytes ([`media_object::set_scanned`]), in milliseconds since the Unix epoch; None where nobody looks.
    ///
    /// `M_FORBIDDEN` for one that is not harmless, `Error::Unavailable` where it can't be looked at now.
    pub(crate) async fn check(&self, received: &Received) -> Result<Option<i64>> {
        if self.0.engine.is_none() {
            return Ok(None);
        }
        if let Some(scanned_at) = self.scanned_at(&received.digest).await? {
            return Ok(Some(scanned_at));
        }
        let verdict = match self.turn().await {
            Ok(_turn) => self.look(&received.digest, received.path()).await,
            Err(reason) => Verdict::Unknown(reason.to_owned()),
        };
        answer(&received.digest, verdict).map(|()| Some(self.now()))
    }

    /// Makes sure that bytes are harmless that somebody is about to get. Once for all who ask at the same time.
    ///
    /// `M_FORBIDDEN` if they are not, `Error::Unavailable` where they can't be looked at now.
    pub(crate) async fn ensure_clean(&self, object: &Object) -> Result<()> {
        if self.0.engine.is_none() || object.scanned_at.is_some() {
            return Ok(());
        }
        let here = self.clone();
        let flight = self.0.flights.join(object.digest, |landing| here.fly(object.digest, landing));
        answer(&object.digest, flight.await)
    }

    /// Goes on although whoever has asked goes away: the next one does not begin anew.
    async fn fly(self, digest: Digest, landing: Landing<Digest, Verdict>) -> Verdict {
        let tasks = self.0.tasks.clone();
        let work = async move {
            let verdict = self.scan(&digest).await;
            drop(landing);
            verdict
        };
        let seen = tasks.see_through("looking at a file", work).await;
        seen.unwrap_or_else(|| Verdict::Unknown("looking at it has panicked, or the server ends".to_owned()))
    }

    async fn scan(&self, digest: &Digest) -> Verdict {
        let scanning = async {
            // First, so that few files are brought here at once.
            let _turn = match self.turn().await {
                Ok(turn) => turn,
                Err(reason) => return Ok(Verdict::Unknown(reason.to_owned())),
            };
            // It may have been looked at or moved since the caller read the row.
            let found = media_object::find(&mut self.0.db.read().await?, digest).await?;
            let Some(object) = found.map(Object::from) else {
                return Ok(Verdict::Unknown("it was deleted".to_owned()));
            };
            if object.scanned_at.is_some() {
                return Ok(Verdict::Clean);
            }
            let received = self.0.objects.fetch_to_spool(&object).await?;
            let verdict = self.look(digest, received.path()).await;
            if verdict == Verdict::Clean {
                let mut tx = self.0.db.begin().await?;
                media_object::set_scanned(&mut tx, digest, self.now()).await?;
                tx.commit().await?;
            }
            Ok::<_, Error>(verdict)
        };
        // It holds a transaction, and is moved into a task.
        Box::pin(scanning).await.unwrap_or_else(|error| Verdict::Unknown(error.to_string()))
    }

    /// Waits until one more file may be looked at. Or says why none will be.
    async fn turn(&self) -> Result<Turn<'_>, &'static str> {
        let queue = self.0.queue.try_acquire().map_err(|_full| "too many files wait to be looked at")?;
        let place = self.0.places.acquire().await.map_err(|_closed| "nothing is looked at any more")?;
        Ok(Turn { _queue: queue, _place: place })
    }

    /// Has a file looked at, and quarantines what it is made of if it is not harmless.
    async fn look(&self, digest: &Digest, path: &Path) -> Verdict {
        let looking = async {
            match &self.0.engine {
                Some(Engine::Command(command)) => command::look(command, path).await,
                Some(Engine::Clamd(address)) => clamd::look(address, path).await,
                None => Ok(Verdict::Clean),
            }
        };
        let verdict = match timeout(self.0.patience, looking).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(error)) => Verdict::Unknown(error.to_string()),
            Err(_elapsed) => Verdict::Unknown(format!("it took more than {} s", self.0.patience.as_secs())),
        };
        if let Verdict::Infected(what) = &verdict {
            tracing::warn!(%digest, %what, "a file is not harmless and is quarantined");
            if let Err(error) = self.quarantine(digest).await {
                tracing::warn!(%digest, %error, "it could not be quarantined: it is looked at again next time");
            }
        }
        verdict
    }

    async fn quarantine(&self, digest: &Digest) -> Result<()> {
        let mut tx = self.0.db.begin().await?;
        media_quarantine::insert(&mut tx, QuarantineKind::Digest, &digest.to_string(), self.now()).await?;
        Ok(tx.commit().await?)
    }

    async fn scanned_at(&self, digest: &Digest) -> Result<Option<i64>> {
        let found = media_object::find(&mut self.0.db.read().await?, digest).await?;
        Ok(found.and_then(|object| object.scanned_at))
    }

    fn now(&self) -> i64 {
        self.0.clock.now().get().into()
    }
}

/// As whoever waits for a file hears of it.
fn answer(digest: &Digest, verdict: Verdict) -> Result<()> {
    match verdict {
        Verdict::Clean => Ok(()),
        Verdict::Infected(_) => Err(Error::forbidden("This file is not allowed on this server")),
        Verdict::Unknown(reason) => {
            tracing::warn!(%digest, %reason, "a file could not be looked at");
            Err(Error::Unavailable("This file can't be checked at this moment: try again later".to_owned()))
        }
    }
}
