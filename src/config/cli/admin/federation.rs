//! `hearth admin …-destination` and `federation-check`: the commands about other servers.

use clap::{Args, Subcommand};
use ruma::{OwnedRoomId, OwnedServerName};

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

    /// Look step by step whether this server and others reach each other, and say what to do
    ///
    /// Without a name it looks at this server as others see it: discovery, addresses, the certificate, its keys. With the
    /// name of another server it looks at that one, at a request that this server signs, and whether that one reaches this
    /// server. With a room, at who of its servers has other newest events, lags behind or can't be reached. It runs beside
    /// the server and changes nothing. It exits with 1 if something has to be done.
    FederationCheck(CheckFederation),
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

#[derive(Clone, Debug, Args)]
pub struct CheckFederation {
    /// Another server, such as `example.org`, or a room by its id, which begins with `!`
    #[arg(value_name = "SERVER|ROOM", value_parser = parse_target)]
    pub target: Option<CheckTarget>,

    #[command(flatten)]
    pub listing: ListFormat,
}

/// What is looked at, if it is not this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckTarget {
    Server(OwnedServerName),
    Room(OwnedRoomId),
}

fn parse_target(text: &str) -> Result<CheckTarget, String> {
    match text.chars().next() {
        Some('!') => OwnedRoomId::try_from(text).map(CheckTarget::Room).map_err(|error| error.to_string()),
        Some('#') => {
            Err("give the room's id, which begins with `!`: clients show it in the room's settings".to_owned())
        }
        Some('@') => Err("give the name of the server, which is behind the colon".to_owned()),
        _ => parse_server(text).map(CheckTarget::Server),
    }
}

fn parse_server(text: &str) -> Result<OwnedServerName, String> {
    OwnedServerName::try_from(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_told_from_a_server() {
        for (text, is_room) in [
            ("example.org", false),
            ("example.org:8448", false),
            ("[2001:db8::1]", false),
            ("!room:example.org", true),
            ("!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM", true),
        ] {
            assert_eq!(matches!(parse_target(text), Ok(CheckTarget::Room(_))), is_room, "{text}");
            assert!(parse_target(text).is_ok(), "{text}");
        }
        for text in ["", "#room:example.org", "@alice:example.org", "https://example.org", "a b"] {
            assert!(parse_target(text).is_err(), "{text}");
        }
    }
}
