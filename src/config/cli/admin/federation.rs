//! `hearth admin …-destination`: the commands about other servers.

use clap::{Args, Subcommand};
use ruma::OwnedServerName;

use super::listing::ListFormat;

#[derive(Clone, Debug, Subcommand)]
pub enum FederationCommand {
    /// List the servers that something was sent to, and how it stands with them
    ///
    /// Of a server that can't be reached it is shown how often in a row that has failed, why, and when it is tried again. It
    /// gets what it missed then, and whenever something comes from it before. Times are in UTC.
    ListDestinations(ListDestinations),

    /// Have a server that can't be reached be tried again now
    ///
    /// A running server does that within seconds.
    RetryDestination(NamedServer),
}

#[derive(Clone, Copy, Debug, Args)]
pub struct ListDestinations {
    /// Only those that have not got everything
    #[arg(long)]
    pub owed: bool,

    #[command(flatten)]
    pub listing: ListFormat,
}

#[derive(Clone, Debug, Args)]
pub struct NamedServer {
    /// The name of the server, such as `example.org`
    #[arg(value_name = "SERVER", value_parser = parse_server)]
    pub server: OwnedServerName,
}

fn parse_server(text: &str) -> Result<OwnedServerName, String> {
    OwnedServerName::try_from(text).map_err(|error| error.to_string())
}
