//! The command line. Parsing only: what a command does is said where it is done.
//!
//! The doc comments of commands and arguments are what `--help` prints, so they speak to the operator.

mod admin;

use std::{ffi::OsString, io, path::PathBuf};

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

pub use self::admin::{
    AdminCommand, CheckFederation, CheckTarget, CreateUser, DeactivateAccount, DeleteMedia, EndSessions,
    FederationCommand, GivenPassword, ListFormat, ListMedia, ListUsers, ListedUsers, MediaCommand, MoveMedia,
    ResetPassword, SendNotice, ShowMediaUsage, SweepMedia,
};

const EXAMPLES: &str = "\
Examples:
  hearth                                          start with the defaults: an embedded database in
                                                  ./hearth-data, clients at http://127.0.0.1:8008
  hearth admin create-user alice --admin          make the first account; its password is printed
  HEARTH_SERVER_NAME=example.org hearth serve     set any key from the environment
  hearth check-config --config hearth.toml        see what a file leads to, before it counts
  hearth completions bash > /etc/bash_completion.d/hearth

Every key of the configuration is described in config.example.toml.";

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
    Serve(Serve),

    /// Check the configuration and print what is in effect and where it comes from, secrets masked
    ///
    /// Exits with 1 and names every problem at once if the server would not start with it; else the last line says OK.
    CheckConfig(CheckConfig),

    /// Manage accounts and media on this server, and see how it gets on with others
    #[command(subcommand, after_help = admin::EXAMPLES)]
    Admin(AdminCommand),

    /// Print a completion script for a shell
    Completions {
        /// The shell to complete for
        shell: Shell,
    },
}

#[derive(Clone, Debug, Default, Args)]
pub struct Serve {
    /// Go on from an embedded database that is older than what this server has written: a backup was restored
    #[arg(long)]
    pub restored: bool,
}

#[derive(Clone, Debug, Args)]
pub struct CheckConfig {
    /// Also open the database and try its migrations, without keeping them
    #[arg(long)]
    pub database: bool,
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
        self.command.clone().unwrap_or_else(|| Command::Serve(Serve::default()))
    }
}

/// Writes the completion script for `shell`.
pub fn write_completions(shell: Shell, out: &mut impl io::Write) {
    clap_complete::generate(shell, &mut Cli::command(), "hearth", out);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        for line in ["hearth", "hearth serve"] {
            assert!(matches!(parse(line), Ok(Command::Serve(Serve { restored: false }))), "{line}");
        }
        assert!(matches!(parse("hearth serve --restored"), Ok(Command::Serve(Serve { restored: true }))));
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
        assert!(user.account.name == "alice" && user.admin && user.password.password_stdin);

        let Ok(Command::Admin(AdminCommand::CreateRegistrationToken(token))) =
            parse("hearth admin create-registration-token --uses 5 --expires-in 12h")
        else {
            panic!("not a token");
        };
        assert_eq!((token.uses, token.expires_in), (Some(5), Some(Duration::from_hours(12))));
    }

    #[test]
    fn passwords_are_no_arguments_and_come_one_way() {
        for command in ["create-user", "reset-password"] {
            let parse = |rest: &str| parse(&format!("hearth admin {command} {rest}"));
            for rest in ["alice", "alice --ask", "--password-stdin alice"] {
                assert!(parse(rest).is_ok(), "{command} {rest}");
            }
            for rest in ["alice --ask --password-stdin", "alice secret", "alice --password secret"] {
                assert!(parse(rest).is_err(), "{command} {rest}");
            }
        }
        assert!(parse("hearth admin list-users --admins --guests").is_err());
    }

    #[test]
    fn commands_about_media_stand_beside_the_others() {
        let media = |line: &str| match parse(line) {
            Ok(Command::Admin(AdminCommand::Media(command))) => command,
            other => panic!("{line}: {other:?}"),
        };
        assert!(
            matches!(media("hearth admin quarantine-media mxc://a/b"), MediaCommand::QuarantineMedia(it) if it.target == "mxc://a/b")
        );
        assert!(
            matches!(media("hearth admin move-media files s3"), MediaCommand::MoveMedia(it) if it.from == "files" && it.to == "s3")
        );
        assert!(
            matches!(media("hearth admin list-media --user alice --json"), MediaCommand::ListMedia(it) if it.listing.json)
        );
        assert!(matches!(media("hearth admin sweep-media"), MediaCommand::SweepMedia(it) if it.store.is_none()));
        assert!(matches!(media("hearth admin rotate-media-key"), MediaCommand::RotateMediaKey));
        assert!(parse("hearth admin move-media files").is_err());
        assert!(parse("hearth admin delete-media").is_err());
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
    fn every_shell_gets_its_script() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            write_completions(shell, &mut script);
            let script = String::from_utf8(script).unwrap();
            let command = Cli::command();
            let admin = command.find_subcommand("admin").unwrap();
            for command in admin.get_subcommands().map(clap::Command::get_name) {
                assert!(script.contains(command), "{shell}: {command}");
            }
        }
    }

    #[test]
    fn help_teaches_by_examples() {
        let help = parse("hearth --help").unwrap_err();
        assert!(help.contains("hearth admin create-user alice --admin"), "{help}");
        assert!(help.contains("check-config"), "{help}");
    }
}
