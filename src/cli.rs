//! The command line. Parsing only: what a command does is said where it is done.

use std::{ffi::OsString, io, path::PathBuf, time::Duration};

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

const EXAMPLES: &str = "\
Examples:
  hearth                                          start with the defaults: an embedded database in
                                                  ./hearth-data, clients at http://127.0.0.1:8008
  hearth admin create-user alice --admin          make the first account; its password is printed
  HEARTH_SERVER_NAME=example.org hearth serve     set any key from the environment
  hearth check-config --config hearth.toml        see what a file leads to, before it counts
  hearth completions bash > /etc/bash_completion.d/hearth

Every key of the configuration is described in config.example.toml.";

const ADMIN_EXAMPLES: &str = "\
Examples:
  hearth admin create-user alice --admin
  pass show matrix/bob | hearth admin create-user bob --password-stdin
  hearth admin create-registration-token --uses 5 --expires-in 7d
  hearth admin suspend-account mallory
  hearth admin send-notice --all \"We are back at eight.\"";

/// A Matrix homeserver: one binary with an embedded database, or several of them over PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "hearth", version, about, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// The configuration file. Without one, everything has its default.
    #[arg(long, global = true, value_name = "FILE", env = "HEARTH_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the server (what happens without a command)
    Serve,

    /// Check the configuration and print what is in effect and where it comes from, secrets masked
    ///
    /// Exits with 1 and names every problem at once if the server would not start with it; else the last line says OK.
    CheckConfig(CheckConfig),

    /// Manage accounts on this server
    #[command(subcommand, after_help = ADMIN_EXAMPLES)]
    Admin(AdminCommand),

    /// Print a completion script for a shell
    Completions {
        /// The shell to complete for
        shell: Shell,
    },
}

#[derive(Clone, Debug, Args)]
pub struct CheckConfig {
    /// Also open the database and try its migrations, without keeping them
    #[arg(long)]
    pub database: bool,
}

#[derive(Clone, Debug, Subcommand)]
pub enum AdminCommand {
    /// Make an account
    ///
    /// Its password is made up and printed once, unless it is given with --password-stdin.
    CreateUser(CreateUser),

    /// Make a token with which people can register while `registration.mode` is "token"
    CreateRegistrationToken(CreateRegistrationToken),

    /// Show whose account it is and what has been done to it, as a JSON object
    ///
    /// Whether it is an administrator's or a guest's, locked, suspended or deactivated, and which terms its owner has
    /// accepted.
    ShowAccount(NamedAccount),

    /// Lock an account: it can only log out until it is unlocked, and keeps its sessions
    LockAccount(NamedAccount),

    /// Unlock an account
    UnlockAccount(NamedAccount),

    /// Suspend an account: it can read and leave rooms, but say nothing until the suspension ends
    SuspendAccount(NamedAccount),

    /// End the suspension of an account
    UnsuspendAccount(NamedAccount),

    /// Tell a user something in the name of the server, or everybody with --all
    ///
    /// A running server sends it within seconds, one that is stopped when it starts. `server_notices.localpart` must
    /// be set.
    SendNotice(SendNotice),

    /// Show what users have reported, newest first, as one JSON object a line
    ListReports(ListReports),
}

#[derive(Clone, Debug, Args)]
pub struct NamedAccount {
    /// The name in front of the colon, `alice`, or the whole user id, `@alice:example.org`
    pub name: String,
}

#[derive(Clone, Debug, Args)]
#[command(allow_missing_positional = true)]
pub struct SendNotice {
    /// Tell everybody who has an account
    #[arg(long, conflicts_with = "name")]
    pub all: bool,

    /// The name in front of the colon, `alice`, or the whole user id, `@alice:example.org`
    #[arg(required_unless_present = "all")]
    pub name: Option<String>,

    /// What to tell
    pub text: String,
}

#[derive(Clone, Debug, Args)]
pub struct CreateUser {
    /// The name in front of the colon, `alice`, or the whole user id, `@alice:example.org`
    pub name: String,

    /// Make the account an administrator of this server
    #[arg(long)]
    pub admin: bool,

    /// Read the password from standard input, up to the first end of line
    #[arg(long)]
    pub password_stdin: bool,
}

#[derive(Clone, Debug, Args)]
pub struct ListReports {
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: u32,
}

#[derive(Clone, Debug, Args)]
pub struct CreateRegistrationToken {
    /// How many accounts it is good for; any number if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub uses: Option<u32>,

    /// How long it is good for, such as 90s, 30m, 12h or 7d; for ever if not given
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub expires_in: Option<Duration>,
}

impl Cli {
    /// Reads the arguments of this process; help and mistakes are printed and end it.
    pub fn from_arguments() -> Self {
        Self::parse()
    }

    /// Reads `arguments`, the first being the name of the program.
    pub fn try_from_arguments<A: Into<OsString> + Clone>(
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self, clap::Error> {
        Self::try_parse_from(arguments)
    }

    /// What was asked for.
    pub fn chosen(&self) -> Command {
        self.command.clone().unwrap_or(Command::Serve)
    }
}

/// Writes the completion script for `shell`.
pub fn write_completions(shell: Shell, out: &mut impl io::Write) {
    clap_complete::generate(shell, &mut Cli::command(), "hearth", out);
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 60 * 60), ("d", 24 * 60 * 60)];
    let seconds = units.iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(*seconds)
    });
    match seconds {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err("give a number above 0 with s, m, h or d, such as 7d".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        let cli = Cli::try_from_arguments(line.split(' ')).map_err(|error| error.to_string())?;
        Ok(cli.chosen())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_a_command_the_server_runs() {
        assert!(matches!(parse("hearth"), Ok(Command::Serve)));
        assert!(matches!(parse("hearth serve"), Ok(Command::Serve)));
    }

    #[test]
    fn the_file_may_be_named_before_or_after_the_command() {
        for line in ["hearth --config a.toml serve", "hearth serve --config a.toml", "hearth --config a.toml"] {
            let cli = Cli::try_from_arguments(line.split(' ')).unwrap();
            assert_eq!(cli.config, Some(PathBuf::from("a.toml")), "{line}");
        }
    }

    #[test]
    fn admin_commands_carry_their_options() {
        let Ok(Command::Admin(AdminCommand::CreateUser(user))) =
            parse("hearth admin create-user alice --admin --password-stdin")
        else {
            panic!("not a user");
        };
        assert!(user.name == "alice" && user.admin && user.password_stdin);

        let Ok(Command::Admin(AdminCommand::CreateRegistrationToken(token))) =
            parse("hearth admin create-registration-token --uses 5 --expires-in 12h")
        else {
            panic!("not a token");
        };
        assert_eq!((token.uses, token.expires_in), (Some(5), Some(Duration::from_hours(12))));
    }

    #[test]
    fn a_notice_is_for_one_or_for_all() {
        let parse = |words: &[&str]| {
            let cli = Cli::try_from_arguments(["hearth", "admin", "send-notice"].iter().chain(words)).ok()?;
            match cli.chosen() {
                Command::Admin(AdminCommand::SendNotice(notice)) => Some((notice.all, notice.name, notice.text)),
                _ => None,
            }
        };
        let to_alice = Some((false, Some("alice".to_owned()), "good day".to_owned()));
        assert_eq!(parse(&["alice", "good day"]), to_alice);
        let to_all = Some((true, None, "good day".to_owned()));
        assert_eq!((parse(&["--all", "good day"]), parse(&["good day", "--all"])), (to_all.clone(), to_all));
        assert_eq!(
            (parse(&["good day"]), parse(&["--all", "alice", "good day"]), parse(&["--all"])),
            (None, None, None)
        );
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse_duration("7d"), Ok(Duration::from_hours(7 * 24)));
        for text in ["", "7", "d", "-1d", "0s", "1w", "1.5h", "99999999999999999999d", "999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_shell_gets_its_script() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            write_completions(shell, &mut script);
            assert!(String::from_utf8(script).unwrap().contains("create-user"), "{shell}");
        }
    }

    #[test]
    fn help_teaches_by_examples() {
        let help = parse("hearth --help").unwrap_err();
        assert!(help.contains("hearth admin create-user alice --admin"), "{help}");
        assert!(help.contains("check-config"), "{help}");
    }
}
