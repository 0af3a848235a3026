//! `hearth admin …`: the commands and their arguments.

mod federation;
mod listing;
mod media;

use std::time::Duration;

use clap::{Args, Subcommand};

pub use self::{
    federation::{CheckFederation, CheckTarget, FederationCommand},
    listing::ListFormat,
    media::{DeleteMedia, ListMedia, MediaCommand, MoveMedia, ShowMediaUsage, SweepMedia},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  hearth admin create-user alice --admin
  pass show matrix/bob | hearth admin create-user bob --password-stdin
  hearth admin reset-password bob --ask
  hearth admin list-users --admins
  hearth admin list-sessions bob && hearth admin end-sessions bob --device ABCDEFGHIJ
  hearth admin create-registration-token --uses 5 --expires-in 7d
  hearth admin suspend-account mallory
  hearth admin deactivate-account mallory --erase
  hearth admin send-notice --all \"We are back at eight.\"
  hearth admin quarantine-media mxc://example.org/abc
  hearth admin move-media files s3
  hearth admin federation-check && hearth admin federation-check matrix.org

The commands work on the server's database, whether or not the server runs, so give them the
--config and HEARTH_ variables that it has. They never make a database; the first start of the
server does. What they print for you or for a script goes to standard output, the rest to standard
error. They exit with 0 if it was done, with 1 if not and with 2 if the arguments are wrong.";

#[derive(Clone, Debug, Subcommand)]
pub enum AdminCommand {
    /// Make an account
    ///
    /// Its password is made up and printed once, unless it is given with --ask or --password-stdin.
    CreateUser(CreateUser),

    /// List accounts, in the order of their user ids
    ///
    /// Without an option those that can be used, guests left out. Times are in UTC.
    ListUsers(ListUsers),

    /// Show whose account it is and what has been done to it, as a JSON object
    ///
    /// Whether it is an administrator's or a guest's, locked, suspended or deactivated, and which terms its owner has
    /// accepted.
    ShowAccount(NamedAccount),

    /// Give an account another password
    ///
    /// The password is made up and printed once, unless it is given with --ask or --password-stdin. The user is logged
    /// out everywhere, so that nobody stays who knew the old one; clients that have not backed up their keys can't read
    /// old encrypted messages then. --keep-sessions leaves them logged in.
    ResetPassword(ResetPassword),

    /// Make a user an administrator
    ///
    /// Administrators can lock and suspend accounts from their client, and see more of whom and what is here.
    MakeAdmin(NamedAccount),

    /// Make an administrator a user like any other
    UnmakeAdmin(NamedAccount),

    /// List where a user is logged in, oldest first
    ListSessions(ListOfAccount),

    /// Log a user out everywhere, or on one device
    ///
    /// Their tokens are good for nothing at once, and their devices gone.
    EndSessions(EndSessions),

    /// Lock an account: it can only log out until it is unlocked, and keeps its sessions
    LockAccount(NamedAccount),

    /// Unlock an account
    UnlockAccount(NamedAccount),

    /// Suspend an account: it can read and leave rooms, but say nothing until the suspension ends
    SuspendAccount(NamedAccount),

    /// End the suspension of an account
    UnsuspendAccount(NamedAccount),

    /// End an account, for good
    ///
    /// Nobody logs in to it again, nobody else gets its name, and it leaves all its rooms: a running server sees to that,
    /// one that is stopped when it starts. To shut somebody out for a time, lock the account instead.
    DeactivateAccount(DeactivateAccount),

    /// Make a token with which people can register while `registration.mode` is "token"
    CreateRegistrationToken(CreateRegistrationToken),

    /// List the registration tokens, also those that are used up or have expired
    ListRegistrationTokens(ListFormat),

    /// End a registration token: nobody else registers with it
    RevokeRegistrationToken(RevokeRegistrationToken),

    /// Send a user a notice in the name of the server, or everybody with --all
    ///
    /// A running server sends it within seconds, one that is stopped when it starts. `server_notices.localpart` must
    /// be set.
    SendNotice(SendNotice),

    /// Make a new key for the server to sign with
    ///
    /// Running servers notice it and sign with it after a minute; nothing has to be restarted. The old key stays published,
    /// so that whatever it has signed can be verified for good.
    RotateSigningKey,

    /// Show what users have reported, newest first, as one JSON object a line
    ListReports(ListReports),

    #[command(flatten)]
    Media(MediaCommand),

    #[command(flatten)]
    Federation(FederationCommand),
}

#[derive(Clone, Debug, Args)]
pub struct NamedAccount {
    /// The name in front of the colon, `alice`, or the whole user id, `@alice:example.org`
    pub name: String,
}

#[derive(Clone, Debug, Args)]
pub struct ListOfAccount {
    #[command(flatten)]
    pub account: NamedAccount,

    #[command(flatten)]
    pub listing: ListFormat,
}

#[derive(Clone, Debug, Args)]
pub struct ListUsers {
    #[command(flatten)]
    pub who: ListedUsers,

    #[command(flatten)]
    pub listing: ListFormat,
}

/// One of them, or none.
#[derive(Clone, Copy, Debug, Args)]
#[group(multiple = false)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag, and clap sees to it that there is one at most")]
pub struct ListedUsers {
    /// Only administrators
    #[arg(long)]
    pub admins: bool,

    /// Only guests
    #[arg(long)]
    pub guests: bool,

    /// Only accounts that were deactivated
    #[arg(long)]
    pub deactivated: bool,

    /// Everybody, guests and deactivated accounts among them
    #[arg(long)]
    pub all: bool,
}

/// Where a password comes from: never from an argument, which other users of the machine can see.
#[derive(Clone, Copy, Debug, Args)]
#[group(multiple = false)]
pub struct GivenPassword {
    /// Ask for the password on this terminal, without showing it
    #[arg(long)]
    pub ask: bool,

    /// Read the password from standard input, up to the first end of line
    #[arg(long)]
    pub password_stdin: bool,
}

#[derive(Clone, Debug, Args)]
pub struct CreateUser {
    #[command(flatten)]
    pub account: NamedAccount,

    /// Make the account an administrator of this server
    #[arg(long)]
    pub admin: bool,

    #[command(flatten)]
    pub password: GivenPassword,
}

#[derive(Clone, Debug, Args)]
pub struct ResetPassword {
    #[command(flatten)]
    pub account: NamedAccount,

    /// Leave the user logged in where they are
    #[arg(long)]
    pub keep_sessions: bool,

    #[command(flatten)]
    pub password: GivenPassword,
}

#[derive(Clone, Debug, Args)]
pub struct EndSessions {
    #[command(flatten)]
    pub account: NamedAccount,

    /// Only that on this device, as list-sessions shows it
    #[arg(long, value_name = "ID")]
    pub device: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct DeactivateAccount {
    #[command(flatten)]
    pub account: NamedAccount,

    /// Also forget name, picture and password, and hide what they said from those who join later
    #[arg(long)]
    pub erase: bool,

    /// Don't ask whether it is meant
    #[arg(long)]
    pub yes: bool,
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

#[derive(Clone, Debug, Args)]
pub struct RevokeRegistrationToken {
    /// The token, as list-registration-tokens shows it
    pub token: String,
}

#[derive(Clone, Debug, Args)]
#[command(allow_missing_positional = true)]
pub struct SendNotice {
    /// Send it to everybody who has an account
    #[arg(long, conflicts_with = "name")]
    pub all: bool,

    /// The name in front of the colon, `alice`, or the whole user id, `@alice:example.org`
    #[arg(required_unless_present = "all")]
    pub name: Option<String>,

    /// The text
    pub text: String,
}

#[derive(Clone, Debug, Args)]
pub struct ListReports {
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: u32,
}

/// Whole numbers of one unit, above 0 and not beyond what 64 bits of seconds hold.
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

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse_duration("7d"), Ok(Duration::from_hours(7 * 24)));
        for text in ["", "7", "d", "-1d", "0s", "1w", "1.5h", "99999999999999999999d", "999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
