//! What an operator does about other servers from the command line, beside servers that may be running: it is read and
//! changed in their database, and other servers are asked only by a check.
//!
//! It is what the commands of [`super`] and the tests call; nothing here prints.

use ruma::{OwnedServerName, ServerName};
use serde::Serialize;
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    config::{Config, cli::CheckTarget},
    db::Db,
    edge::federation_client::Step,
    error::{Error, Result},
    federation::{
        check::FederationCheck,
        destinations::{Destination, Destinations},
    },
    ground::{clock::Clock, random::Random},
};

/// What the operator can do about other servers. Cheap to make.
pub struct FederationAdministration {
    db: Db,
    destinations: Destinations,
    clock: Clock,
}

/// How it stands with a server that something was sent to. Times are in milliseconds since the Unix epoch.
#[derive(Debug, Serialize)]
pub struct DestinationSummary {
    pub server: OwnedServerName,
    pub state: DestinationState,
    /// When something was last sent to it, to a minute.
    pub last_success_ts: Option<i64>,
    /// How often in a row it could not be reached.
    pub failures: i64,
    pub last_failure_ts: Option<i64>,
    /// Why it could not.
    pub reason: Option<String>,
    /// When it is tried again, where that is not at once.
    pub retry_ts: Option<i64>,
}

/// What becomes of what is sent to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DestinationState {
    /// It has everything, or gets it at this moment.
    Live,
    /// It has not got everything, and gets it as soon as its turn comes.
    CatchingUp,
    /// It could not be reached and is left alone for a while.
    BackingOff,
}

impl FederationAdministration {
    /// On a database that has been found to be this server's.
    pub fn new(db: Db, clock: Clock) -> Self {
        Self { destinations: Destinations::new(db.clone(), clock.clone()), db, clock }
    }

    /// Looks at another server, at a room, or at this server as others see it, in the name of the one with this
    /// configuration. Each step is told as soon as it has been taken.
    pub async fn check(
        &self,
        config: &Config,
        random: Random,
        target: Option<&CheckTarget>,
        told: UnboundedSender<Step>,
    ) -> Result<()> {
        let check = FederationCheck::open(config, self.db.clone(), (self.clock.clone(), random)).await?;
        match target {
            None => check.itself(&told).await,
            Some(CheckTarget::Server(server)) if *server == config.server_name => check.itself(&told).await,
            Some(CheckTarget::Server(server)) => check.server(server, &told).await,
            Some(CheckTarget::Room(room_id)) => check.room(room_id, &told).await,
        }
    }

    /// The servers that something was sent to, in the order of their names; those alone that have not got everything where
    /// `owed` is set.
    pub async fn list_destinations(&self, owed: bool) -> Result<Vec<DestinationSummary>> {
        let now: i64 = self.clock.now().get().into();
        let all = self.destinations.list().await?.into_iter().map(|destination| summary(destination, now));
        Ok(all.filter(|summary| !owed || summary.state != DestinationState::Live).collect())
    }

    /// Has a server be tried again by a running server, and returns how it stood with it.
    pub async fn retry_destination(&self, server: &ServerName) -> Result<DestinationSummary> {
        let now: i64 = self.clock.now().get().into();
        let before = self.destinations.standing(server).await?;
        match before {
            Some(before) if self.destinations.retry_now(server).await? => Ok(summary(before, now)),
            _ => Err(Error::not_found(format!(
                "Nothing was ever sent to {server}: `hearth admin list-destinations` shows the servers there are"
            ))),
        }
    }
}

fn summary(destination: Destination, now: i64) -> DestinationSummary {
    let Destination { server_name, owed_from, failures, failed_at, retry_at, succeeded_at, reason } = destination;
    let state = match owed_from {
        None => DestinationState::Live,
        Some(_) if retry_at <= now => DestinationState::CatchingUp,
        Some(_) => DestinationState::BackingOff,
    };
    DestinationSummary {
        server: server_name,
        state,
        last_success_ts: succeeded_at,
        failures,
        last_failure_ts: failed_at,
        reason,
        retry_ts: (state == DestinationState::BackingOff).then_some(retry_at),
    }
}
