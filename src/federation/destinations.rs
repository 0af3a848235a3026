//! How it stands with the servers that something is sent to: who could be reached, who is left alone for how long, and why.
//!
//! All of it is in rows, so that it is the same on every node and outlives them. Whoever sends to a server notes what came
//! of it (`worker/federation_sender`). Here is what everybody else has to do with it: anything that comes from a server shows
//! that it is there, and ends the waiting for it.

#[cfg(test)]
mod tests;

use std::{collections::HashSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::Notify;

pub(crate) use crate::store::destination::Destination;
use crate::{
    db::Db,
    error::Result,
    ground::{
        clock::{Clock, millis},
        random::Random,
        tasks::{Shutdown, Tasks},
    },
    store::destination,
};

/// For how long a server is left alone after a first failure, about, and after any number of them.
const FIRST_PAUSE: Duration = Duration::from_mins(1);
const LONGEST_PAUSE: Duration = Duration::from_hours(7 * 24);
/// How often what was heard is written down, so that much is written at once.
const REST: Duration = Duration::from_secs(1);
/// How often something that comes from a server may end the waiting. A server that speaks without end and can't be reached
/// would be tried without end otherwise.
const PATIENCE: Duration = Duration::from_mins(1);
/// Of how many servers is remembered at once that they were heard. Whoever is forgotten is heard again, or tried in their time.
const REMEMBERED: usize = 10_000;
/// How many rows are read at once.
const PAGE: i64 = 1_000;

/// The servers that something is sent to. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Destinations(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Clock,
    /// Who was heard since that was last written down.
    heard: Mutex<HashSet<OwnedServerName>>,
    /// Rung when somebody was.
    news: Notify,
}

/// For how long a server is left alone after so many failures in a row, the newest included: a minute, doubled with each
/// further one up to seven days, and up to a fifth more or less by chance, so that not all who lost sight of a server come
/// back to it in one moment.
pub(crate) fn back_off(failures: i64, random: &Random) -> Duration {
    let doublings = u32::try_from(failures.clamp(1, 32) - 1).unwrap_or(0);
    let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    let chance = f64::from(u16::from_be_bytes(random.bytes())) / f64::from(u16::MAX);
    pause.mul_f64(0.8 + 0.4 * chance)
}

impl Destinations {
    /// Starts the task that writes down who was heard.
    pub(crate) fn start((db, clock): (Db, Clock), tasks: &Tasks) -> Self {
        let destinations = Self::new(db, clock);
        tasks.spawn("heard servers", destinations.clone().note_heard_on(tasks.shutdown().clone()));
        destinations
    }

    /// Without the task: for who does not listen, such as a command.
    pub(crate) fn new(db: Db, clock: Clock) -> Self {
        Self(Arc::new(Inner { db, clock, heard: Mutex::default(), news: Notify::new() }))
    }

    /// Something came from a server: a request that it has signed, or an answer. If it was left alone, it is tried again
    /// within seconds. Costs nothing to speak of and may be called as often as something comes.
    pub(crate) fn heard(&self, server: &ServerName) {
        let is_first = {
            let mut heard = self.0.heard.lock();
            if heard.contains(server) || heard.len() >= REMEMBERED {
                return;
            }
            heard.insert(server.to_owned());
            heard.len() == 1
        };
        if is_first {
            self.0.news.notify_one();
        }
    }

    /// How it stands with a server. None if nothing was ever sent to it.
    pub(crate) async fn standing(&self, server: &ServerName) -> Result<Option<Destination>> {
        Ok(destination::find(&mut self.0.db.read().await?, server).await?)
    }

    /// All servers that something was sent to, in the order of their names.
    pub(crate) async fn list(&self) -> Result<Vec<Destination>> {
        let mut all: Vec<Destination> = Vec::new();
        loop {
            let after = all.last().map_or("", |last| last.server_name.as_str());
            let page = destination::list(&mut self.0.db.read().await?, after, PAGE).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// Has a server be tried again within seconds, however often it could not be reached. False if nothing was ever sent to
    /// it.
    pub(crate) async fn retry_now(&self, server: &ServerName) -> Result<bool> {
        let mut tx = self.0.db.begin().await?;
        let is_known = destination::retry_now(&mut tx, server).await?;
        tx.commit().await?;
        Ok(is_known)
    }

    async fn note_heard_on(self, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.started() => return,
                () = self.0.news.notified() => {}
            }
            tokio::select! {
                () = shutdown.started() => return,
                () = tokio::time::sleep(REST) => {}
            }
            // They are heard again, or tried in their time.
            if let Err(error) = self.note_heard().await {
                tracing::warn!(%error, "could not write down which servers are there again");
            }
        }
    }

    /// Ends the waiting for those that were heard. Nearly always there are none to wait for, and nothing is written.
    async fn note_heard(&self) -> Result<()> {
        let heard = std::mem::take(&mut *self.0.heard.lock());
        let names: Vec<&str> = heard.iter().map(|server| server.as_str()).collect();
        if names.is_empty() {
            return Ok(());
        }
        let now: i64 = self.0.clock.now().get().into();
        let since = now.saturating_sub(millis(PATIENCE));
        let waiting = destination::list_backing_off(&mut self.0.db.read().await?, &names, now, since).await?;
        for server in waiting {
            // Each by itself, so that no two rows are ever locked together.
            let mut tx = self.0.db.begin().await?;
            destination::note_heard(&mut tx, &server, now, since).await?;
            tx.commit().await?;
            tracing::info!(%server, "a server that could not be reached is there again");
        }
        Ok(())
    }
}
