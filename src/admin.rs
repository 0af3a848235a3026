//! `hearth admin …`: what each command does and what the operator reads of it. What is asked for goes to standard
//! output, everything else to standard error: which database it is, questions, and how far it has come.
//!
//! Commands that change something need no running server and disturb none: rows are changed in the server's database,
//! in the same transactions as a request's, and running nodes are notified through it. A command that fails says so by its
//! exit code. It has changed nothing, unless it was broken off, or failed, once the change was made and it only waited for
//! running servers to notice.

mod administration;
mod departure;
mod failure;
mod federation;
mod federation_administration;
mod federation_check;
mod lists;
mod media;
mod media_administration;
mod media_stores;
mod media_summary;
mod password;
mod progress;
mod units;

use std::io::{self, IsTerminal as _, Write as _};

use futures_util::future::select_all;
use ruma::OwnedUserId;
use tokio::signal::unix::{SignalKind, signal};

pub use self::{
    administration::{
        AccountFilter, AccountSummary, Administration, ListedAccount, Noticed, SessionSummary, TokenSummary,
    },
    failure::Failure,
    federation_administration::{DestinationState, DestinationSummary, FederationAdministration},
    media_administration::MediaAdministration,
    media_stores::{MediaStores, MoveSummary, RotateSummary, SweepSummary},
    media_summary::{
        MediaCount, MediaDetails, MediaFilter, MediaSummary, ObjectDetails, OriginSummary, QuarantineChange,
        QuarantineSummary, StoreSummary, UsageSummary, UserSummary,
    },
};
use self::{
    lists::{Line, render},
    password::{Password, read_line},
};
use crate::{
    config::{
        Config,
        cli::{AdminCommand, CreateUser, EndSessions, ListFormat, ListUsers, ListedUsers, ResetPassword, SendNotice},
    },
    error::Error,
    ground::{clock::Clock, random::Random},
    node::database,
};

pub use crate::edge::federation_client::{Step as CheckStep, Went};

/// What a command needs.
struct AdminContext<'a> {
    /// It says where the database is, and stands in messages about it.
    config: &'a Config,
    /// On a database that has been found to be this server's.
    administration: Administration,
    /// On the same.
    media: MediaAdministration,
    /// On the same.
    federation: FederationAdministration,
    /// For passwords that are made up.
    random: Random,
}

/// Does what an operator asks for.
///
/// Fails where there is no database, where it is another server's, or of another release: only a start makes or
/// migrates one.
pub async fn run(config: &Config, command: AdminCommand) -> Result<(), Failure> {
    let db = database::open_existing(config).await?;
    // Before anything is asked or changed: an operator with several servers sees which one it is.
    writeln!(io::stderr(), "Database: {} of the server {}", database::shown(config), config.server_name)?;
    let (random, clock) = (Random::system(), Clock::system());
    let opened = Administration::open(config, db.clone(), clock.clone(), &random).await;
    let done = match opened {
        Ok(administration) => {
            let federation = FederationAdministration::new(db.clone(), clock.clone());
            let media = MediaAdministration::new(config, db.clone(), clock);
            let context = AdminContext { config, administration, media, federation, random };
            unless_broken_off(context.carry_out(command)).await
        }
        Err(error) => Err(database::explain(config, &error).into()),
    };
    // That waits for the database, which may be why it was broken off.
    // A connection that is still at work goes with the process, and the database rolls back what it had begun.
    if !matches!(done, Err(Failure::BrokenOff)) {
        db.close().await;
    }
    done
}

/// Waits until a command is done, or until somebody breaks it off, as with Ctrl-C. Then it is dropped before the
/// process ends, and with it what it has changed about the terminal.
async fn unless_broken_off(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    // Before the command begins: from here on a signal ends nothing by itself.
    let mut signals = Vec::new();
    for kind in [SignalKind::interrupt(), SignalKind::quit(), SignalKind::terminate()] {
        signals.push(signal(kind)?);
    }
    let broken_off = select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv())));
    tokio::select! {
        // A command that is done is done, even if it is broken off in the same moment.
        biased;
        done = command => return done,
        _ = broken_off => {}
    }
    if io::stderr().is_terminal() {
        // Behind the question that nobody answers.
        writeln!(io::stderr())?;
    }
    Err(Failure::BrokenOff)
}

/// Standard output is flushed at once, so that a script that reads line by line has each when it is there.
fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Asks whether what can't be undone is meant, which `answer` says.
async fn confirm(warning: &str, answer: &str) -> Result<(), Failure> {
    // A script has to say so beforehand: there is nobody to ask.
    if !io::stdin().is_terminal() {
        return Err(Failure::new(format!("{warning} If that is meant, add --yes")));
    }
    write!(io::stderr(), "{warning}\nType {answer} if that is meant: ")?;
    if read_line().await?.trim() != answer {
        return Err(Failure::new("nothing was done"));
    }
    Ok(())
}

impl AdminContext<'_> {
    async fn carry_out(&self, command: AdminCommand) -> Result<(), Failure> {
        use AdminCommand as Asked;
        match command {
            Asked::CreateUser(create) => self.create_user(&create).await,
            Asked::ListUsers(list) => self.list_users(&list).await,
            Asked::ShowAccount(account) => self.show_account(&account.name).await,
            Asked::ResetPassword(reset) => self.reset_password(&reset).await,
            Asked::MakeAdmin(account) => self.set_admin(&account.name, true).await,
            Asked::UnmakeAdmin(account) => self.set_admin(&account.name, false).await,
            Asked::ListSessions(list) => {
                let sessions = self.administration.list_sessions(&list.account.name).await;
                Self::list(&sessions.map_err(self.explain())?, list.listing, "No sessions: they are logged in nowhere.")
            }
            Asked::EndSessions(end) => self.end_sessions(&end).await,
            Asked::LockAccount(account) => self.set_locked(&account.name, true).await,
            Asked::UnlockAccount(account) => self.set_locked(&account.name, false).await,
            Asked::SuspendAccount(account) => self.set_suspended(&account.name, true).await,
            Asked::UnsuspendAccount(account) => self.set_suspended(&account.name, false).await,
            Asked::DeactivateAccount(deactivate) => self.deactivate(&deactivate).await,
            Asked::CreateRegistrationToken(create) => {
                let token = self.administration.create_registration_token(create.uses, create.expires_in).await;
                say(&format!("{}\n", token.map_err(self.explain())?))
            }
            Asked::ListRegistrationTokens(listing) => {
                let tokens = self.administration.list_registration_tokens().await.map_err(self.explain())?;
                Self::list(&tokens, listing, "No tokens: `hearth admin create-registration-token` makes one.")
            }
            Asked::RevokeRegistrationToken(revoke) => {
                self.administration.revoke_registration_token(&revoke.token).await.map_err(self.explain())?;
                say("Revoked: nobody else registers with it.\n")
            }
            Asked::SendNotice(notice) => self.send_notice(&notice).await,
            Asked::RotateSigningKey => {
                let rotated = self.administration.rotate_signing_key().await.map_err(self.explain())?;
                say(&format!("Made the key {}. Every running server signs with it in a minute.\n", rotated.key_id))
            }
            Asked::ListReports(list) => {
                for report in self.administration.list_reports(list.limit).await.map_err(self.explain())? {
                    say(&format!("{}\n", serde_json::to_string(&report)?))?;
                }
                Ok(())
            }
            Asked::Media(command) => Box::pin(self.carry_out_on_media(command)).await,
            Asked::Federation(command) => Box::pin(self.carry_out_on_federation(command)).await,
        }
    }

    /// In the operator's words.
    fn explain(&self) -> impl Fn(Error) -> Failure {
        |error| database::explain(self.config, &error).into()
    }

    async fn create_user(&self, create: &CreateUser) -> Result<(), Failure> {
        // Asked for first: an account without its password would be of no use.
        let password = Password::get(create.password, &self.random).await?;
        let made = self.administration.create_user(&create.account.name, &password.text, create.admin).await;
        // Only once it is made is the password shown, and nowhere else again.
        let role = if create.admin { "administrator" } else { "user" };
        say(&format!("Made the {role} {}.\n{}", made.map_err(self.explain())?, password.shown()))
    }

    async fn list_users(&self, list: &ListUsers) -> Result<(), Failure> {
        let who = match list.who {
            ListedUsers { admins: true, .. } => AccountFilter::Administrators,
            ListedUsers { guests: true, .. } => AccountFilter::Guests,
            ListedUsers { deactivated: true, .. } => AccountFilter::Deactivated,
            ListedUsers { all: true, .. } => AccountFilter::Everybody,
            _ => AccountFilter::Users,
        };
        // Page by page, so that the list of a large server begins at once and needs no memory.
        let mut last: Option<OwnedUserId> = None;
        loop {
            let page = self.administration.list_users(who, last.as_deref()).await.map_err(self.explain())?;
            say(&render(&page, list.listing.json, last.is_none())?)?;
            let Some(end) = page.into_iter().next_back() else { break };
            last = Some(end.user_id);
        }
        if last.is_none() {
            writeln!(io::stderr(), "There are none.")?;
        }
        Ok(())
    }

    /// Says a list that comes whole. That there is nothing goes to standard error, so that scripts read an empty list.
    fn list<T: Line>(list: &[T], listing: ListFormat, none: &str) -> Result<(), Failure> {
        if list.is_empty() {
            writeln!(io::stderr(), "{none}")?;
        }
        say(&render(list, listing.json, true)?)
    }

    /// An account, as one line of JSON.
    async fn show_account(&self, name: &str) -> Result<(), Failure> {
        let account = self.administration.show_account(name).await.map_err(self.explain())?;
        say(&format!("{}\n", lists::write_json(&account)?))
    }

    async fn reset_password(&self, reset: &ResetPassword) -> Result<(), Failure> {
        let name = &reset.account.name;
        // Nobody should type a password for an account that isn't there.
        // The name may be wrong, too.
        self.administration.show_account(name).await.map_err(self.explain())?;
        let password = Password::get(reset.password, &self.random).await?;
        let done = self.administration.reset_password(name, &password.text, reset.keep_sessions).await;
        let user_id = done.map_err(self.explain())?;
        // Before what is waited for: if that fails, the new password has been shown.
        say(&password.shown())?;
        let sessions = if reset.keep_sessions { "Their sessions go on." } else { "They are logged out everywhere." };
        self.report_done(&user_id, &format!("{user_id} has a new password. {sessions}")).await
    }

    async fn set_admin(&self, name: &str, admin: bool) -> Result<(), Failure> {
        let (user_id, changed) = self.administration.set_admin(name, admin).await.map_err(self.explain())?;
        self.report_done(
            &user_id,
            &match (admin, changed) {
                (true, true) => format!("{user_id} is an administrator now."),
                (true, false) => format!("{user_id} was an administrator before."),
                (false, true) => format!("{user_id} is no administrator any more."),
                (false, false) => format!("{user_id} was no administrator."),
            },
        )
        .await
    }

    async fn end_sessions(&self, end: &EndSessions) -> Result<(), Failure> {
        let done = self.administration.end_sessions(&end.account.name, end.device.as_deref()).await;
        let (user_id, count) = done.map_err(self.explain())?;
        let sessions = if count == 1 { "one session".to_owned() } else { format!("{count} sessions") };
        self.report_done(&user_id, &format!("Ended {sessions} of {user_id}.")).await
    }

    async fn set_locked(&self, name: &str, locked: bool) -> Result<(), Failure> {
        let user_id = self.administration.set_locked(name, locked).await.map_err(self.explain())?;
        self.report_done(&user_id, &format!("{} {user_id}.", if locked { "Locked" } else { "Unlocked" })).await
    }

    async fn set_suspended(&self, name: &str, suspended: bool) -> Result<(), Failure> {
        let user_id = self.administration.set_suspended(name, suspended).await.map_err(self.explain())?;
        let done = if suspended { "Suspended" } else { "Ended the suspension of" };
        self.report_done(&user_id, &format!("{done} {user_id}.")).await
    }

    /// Says what was done to an account, and whether running servers go by it already.
    async fn report_done(&self, user_id: &OwnedUserId, done: &str) -> Result<(), Failure> {
        // What is done is done: only whether nodes have noticed is waited for, and that not for long.
        let taken = match self.administration.until_noticed(user_id).await.map_err(self.explain())? {
            Noticed::Everywhere => "Every running server goes by it.",
            Noticed::NotYet => "No server runs, or it has not noticed yet: it will, at the latest with its next start.",
        };
        say(&format!("{done} {taken}\n"))
    }

    async fn send_notice(&self, notice: &SendNotice) -> Result<(), Failure> {
        // Nothing is sent from here: that would take the log, which only a node writes.
        let sent = self.administration.send_notice(notice.name.as_deref(), &notice.text).await;
        let count = sent.map_err(self.explain())?;
        let whom = if count == 1 { "one user".to_owned() } else { format!("{count} users") };
        say(&format!("The notice to {whom} is on its way: a running server sends it within seconds.\n"))
    }
}
