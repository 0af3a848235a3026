//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum as _};

use crate::scenario::Scenario;

/// Load a Matrix homeserver by its base URL and print what was measured
///
/// Works against any homeserver through the client-server API. Switch off the server's rate limits and open its
/// registration first. Run a release build: the generator shares the machine with the server.
#[derive(Debug, Clone, Parser)]
#[command(name = "hearth-bench", version)]
pub(crate) struct Options {
    /// Base URL of the client API (plain http), such as `http://127.0.0.1:8008`. Repeat it for the nodes of a
    /// cluster: connections go to one after the other, so that whoever reads is on another node than whoever sends
    #[arg(long = "url", value_name = "URL", required_unless_present_any = ["list", "make_authority"])]
    pub(crate) urls: Vec<String>,

    /// Process of the server (repeat it for its database); its children count too. Without it no server cost
    /// is reported
    #[arg(long = "pid", value_name = "PID")]
    pub(crate) pids: Vec<u32>,

    /// Folder in which the server keeps its data (repeatable), to report its growth a message. For PostgreSQL
    /// name PGDATA/base: write-ahead segments are recycled, not kept
    #[arg(long = "data-dir", value_name = "PATH")]
    pub(crate) data_dirs: Vec<PathBuf>,

    /// Also write everything as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Length of the measured part of each scenario
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seconds: u64,

    /// Give a scenario up after so many seconds, its preparation included
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    pub(crate) give_up: u64,

    /// Only this scenario (repeatable); all of them by default, but for those that want a server of another kind:
    /// `attack`, `media_redirect` and all of federation
    #[arg(long = "scenario", value_name = "NAME")]
    chosen: Vec<Scenario>,

    /// List the scenarios and leave
    #[arg(long)]
    pub(crate) list: bool,

    /// Register users through `/_synapse/admin/v1/register` with this secret
    #[arg(long, value_name = "SECRET")]
    pub(crate) shared_secret: Option<String>,

    /// Token for the `m.login.registration_token` stage of registration
    #[arg(long, value_name = "TOKEN", conflicts_with = "shared_secret")]
    pub(crate) registration_token: Option<String>,

    /// Concurrent clients of `register` and `create_room`
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) concurrency: u32,

    /// Senders of `busy_quiet` and `busy_read`, members of the room of 50
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub(crate) senders: u32,

    /// Sends a second of `delivery_loaded`, over all of its rooms
    #[arg(long, value_name = "PER_SECOND", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: u32,

    /// People that `search_users` registers, names and brings into one public room before it searches; none, to search
    /// among those who are there. Many take long (raise --give-up): each of them has a password to be hashed
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    pub(crate) people: u32,

    /// Rooms that `public_rooms` puts into the public directory before it looks; none, to look among those that are
    /// there
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    pub(crate) rooms: u32,

    /// Rooms of the user of `initial_sync` and `sync_idle`. In thousands they take minutes to make: raise --give-up
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) joined_rooms: u32,

    /// Messages that `search_messages` has said before it searches (a million take some minutes: raise --give-up)
    #[arg(long, value_name = "COUNT", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) messages: u32,

    /// Users whom `keys_query` asks for, each with three devices and cross-signing keys. For each device a password is
    /// hashed: a thousand users take most of a minute to prepare
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) queried_users: u32,

    /// Files that the scenarios of media transfer at once, each by a user of its own. Long runs want a server without
    /// quotas
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) transfers: u32,

    /// Long polls that `idle_polls` holds. For their memory start the server afresh and play nothing else: a
    /// server first uses up what earlier load has left free
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) polls: u32,

    /// Users that `idle_polls` spreads its polls over
    #[arg(long, value_name = "COUNT", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) poll_users: u32,

    /// Connections of each of the two attackers of `attack`, which wants a server with its default limits
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) attack_connections: u32,

    /// Base URL of the client API of another homeserver with which the first one federates, for `remote_delivery` and
    /// `remote_delivery_busy`. Repeat it for the nodes of a cluster
    #[arg(long = "other-url", value_name = "URL")]
    pub(crate) other_urls: Vec<String>,

    /// Make a certificate authority and a certificate for 127.0.0.1 in this folder, and leave. The server under test has
    /// to believe its `authority.pem` when it starts
    #[arg(long, value_name = "FOLDER")]
    pub(crate) make_authority: Option<PathBuf>,

    /// Folder that --make-authority has made, for the homeservers that the scenarios of federation play themselves. They
    /// are called 127.0.0.1 and a port each
    #[arg(long, value_name = "FOLDER")]
    pub(crate) authority: Option<PathBuf>,

    /// Members of the room that `join_remote` joins
    #[arg(long, value_name = "COUNT", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(crate) remote_members: u32,

    /// Homeservers that these members are spread over, each with a key to be asked for
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) remote_servers: u32,

    /// Date to note in the report
    #[arg(long)]
    pub(crate) date: Option<String>,

    /// Remark to note in the report, such as the server's configuration
    #[arg(long)]
    pub(crate) note: Option<String>,
}

impl Options {
    /// The scenarios to play, always in the one order that makes sense: idle memory first, accounts before rooms.
    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        Scenario::value_variants()
            .iter()
            .copied()
            .filter(|scenario| match self.chosen.as_slice() {
                [] => !scenario.is_for_itself(),
                chosen => chosen.contains(scenario),
            })
            .collect()
    }
}
