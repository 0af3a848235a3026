//! How this server and others reach each other, looked at step by step for an operator, each with what to do about it.
//!
//! A command does this beside a server that may be running, with its database and in its name. Nothing is written, neither
//! here nor elsewhere: others are only asked what they answer at any time.
//!
//! Whether another server reaches this one, only that server knows. It is found out by what it has of this server's keys,
//! which it can only have fetched here (`server.rs`).

mod judge;
mod room;
mod server;
#[cfg(test)]
mod tests;

use ruma::{OwnedServerName, ServerName};
use tokio::sync::mpsc::UnboundedSender;

pub(crate) use self::judge::CALLS_ITSELF;
use super::{destinations::Destinations, remote::Remote};
use crate::{
    config::Config,
    db::Db,
    edge::{
        federation_client::{FederationClient, Step},
        metrics::Metrics,
    },
    error::{Error, Result},
    event::SigningKeys,
    ground::{clock::Clock, date, random::Random, sizes::CacheSizes},
    node::signing,
    store::inbound,
};

/// Gets each step as soon as it has been taken. Whoever has stopped listening gets none.
pub(crate) type Told = UnboundedSender<Step>;

/// Looks at other servers, and at this one as they see it.
pub(crate) struct FederationCheck {
    db: Db,
    clock: Clock,
    server_name: OwnedServerName,
    own: SigningKeys,
    /// Where the configuration says that this server is.
    delegate: Option<OwnedServerName>,
    notaries: Vec<OwnedServerName>,
    remote: Remote,
}

impl FederationCheck {
    /// With the keys and the configuration of the server whose database this is.
    pub(crate) async fn open(config: &Config, db: Db, (clock, random): (Clock, Random)) -> Result<Self> {
        let own = signing::load(&db, &clock).await?;
        let client = FederationClient::new(
            config,
            &CacheSizes::default(),
            config.server_name.clone(),
            own.clone(),
            (clock.clone(), random),
            Metrics::new(),
        );
        let client = client.map_err(Error::broken)?;
        Ok(Self::over(client, config, (db, clock), own))
    }

    fn over(client: FederationClient, config: &Config, (db, clock): (Db, Clock), own: SigningKeys) -> Self {
        Self {
            db,
            clock,
            server_name: config.server_name.clone(),
            own,
            delegate: config.well_known.server.clone(),
            notaries: config.federation.trusted_key_servers.clone(),
            remote: Remote::new(client.asking_itself()),
        }
    }

    /// What has gone between the two lately, by what the running server has written down.
    async fn tell_standing(&self, server: &ServerName, told: &Told) -> Result<()> {
        let came = inbound::find_last_transaction(&mut self.db.read().await?, server).await?;
        tell(
            told,
            match came {
                Some(ts) => Step::well(format!("the last thing that came from {server} came at {}", date::second(ts))),
                None => Step::oddly(format!("nothing has come from {server} for two days"))
                    .advise("That is as it should be where no room is shared with it, or nothing happens there"),
            },
        );
        if let Some(owing) = self.find_owing(server).await? {
            let advice = format!("`hearth admin retry-destination {server}` has it tried at once");
            tell(told, Step::badly(owing).advise(advice));
        }
        Ok(())
    }

    /// That a server has not got everything, and since when. None where it has.
    async fn find_owing(&self, server: &ServerName) -> Result<Option<String>> {
        let destinations = Destinations::new(self.db.clone(), self.clock.clone());
        let standing = destinations.standing(server).await?.filter(|standing| standing.owed_from.is_some());
        Ok(standing.map(|standing| {
            let last = standing.succeeded_at.map_or("never".to_owned(), date::second);
            let reason = standing.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            let next = date::second(standing.retry_at.max(self.now()));
            format!("{server} has not got everything; it was last reached {last}, and is tried again at {next}{reason}")
        }))
    }

    /// Milliseconds since the Unix epoch.
    fn now(&self) -> i64 {
        self.clock.now().get().into()
    }
}

fn tell(told: &Told, step: Step) {
    // Nobody wants to know any more.
    drop(told.send(step));
}
