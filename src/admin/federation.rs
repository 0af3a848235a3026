//! `hearth admin …-destination`: what the commands about other servers print. What a check prints is in
//! `federation_check.rs`.

use super::{AdminContext, Failure, federation_administration::DestinationState, say};
use crate::{config::cli::FederationCommand, ground::date};

impl AdminContext<'_> {
    pub(super) async fn carry_out_on_federation(&self, command: FederationCommand) -> Result<(), Failure> {
        match command {
            FederationCommand::ListDestinations(list) => {
                let destinations = self.federation.list_destinations(list.owed).await.map_err(self.explain())?;
                let none =
                    if list.owed { "Everybody has everything." } else { "Nothing was ever sent to another server." };
                Self::list(&destinations, list.listing, none)
            }
            FederationCommand::RetryDestination(named) => {
                let server = &named.server;
                let before = self.federation.retry_destination(server).await.map_err(self.explain())?;
                let waited = before.retry_ts.map_or_else(String::new, |ts| {
                    format!(" It would have been left alone until {}.", date::second(ts))
                });
                say(&match before.state {
                    DestinationState::Live => format!("{server} has got everything, as far as is known.\n"),
                    DestinationState::CatchingUp | DestinationState::BackingOff => {
                        format!("A running server tries {server} within seconds.{waited}\n")
                    }
                })
            }
            FederationCommand::FederationCheck(check) => Box::pin(self.check_federation(check)).await,
        }
    }
}
