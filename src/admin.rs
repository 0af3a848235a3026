//! `hearth admin …`: what each command does and what the operator reads of it. What is asked for goes to standard output,
//! everything else to standard error: which database it is, questions, and how far it has come.

mod departure;
mod lists;
mod password;

use std::io::{self, Write as _};

use ruma::OwnedUserId;

use self::{
    lists::{Line, render},
    password::Password,
};
use crate::{
    app::{Administration, Taken, Who},
    cause,
    cli::{AdminCommand, CreateUser, EndSessions, ListUsers, ListedUsers, Listing, ResetPassword, SendNotice},
    clock::Clock,
    config::Config,
    database::{self, Trouble},
    error::Error,
    random::Random,
};

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Told(String),
    /// Whoever read standard output has read enough.
    #[error("standard output is closed")]
    Unheard,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self::Told(message.into())
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Self::Told(trouble.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unheard,
            _ => Self::Told(cause::in_words(&error)),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Told(error.to_string())
    }
}

/// What a command needs.
struct Desk<'a> {
    config: &'a Config,
    administration: Administration,
    random: Random,
}

/// Does what an operator asks for.
pub async fn run(config: &Config, command: AdminCommand) -> Result<(), Failure> {
    let db = database::open_existing(config).await?;
    writeln!(io::stderr(), "Database: {} of the server {}", database::shown(config), config.server_name)?;
    let random = Random::system();
    let opened = Administration::open(config, db.clone(), Clock::system(), &random).await;
    let done = match opened {
        Ok(administration) => Desk { config, administration, random }.carry_out(command).await,
        Err(error) => Err(database::explain(config, &error).into()),
    };
    db.close().await;
    done
}

fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

impl Desk<'_> {
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
                Self::list(&sessions.map_err(self.broke())?, list.listing, "No sessions: they are logged in nowhere.")
            }
            Asked::EndSessions(end) => self.end_sessions(&end).await,
            Asked::LockAccount(account) => self.set_locked(&account.name, true).await,
            Asked::UnlockAccount(account) => self.set_locked(&account.name, false).await,
            Asked::SuspendAccount(account) => self.set_suspended(&account.name, true).await,
            Asked::UnsuspendAccount(account) => self.set_suspended(&account.name, false).await,
            Asked::DeactivateAccount(deactivate) => self.deactivate(&deactivate).await,
            Asked::CreateRegistrationToken(create) => {
                let token = self.administration.create_registration_token(create.uses, create.expires_in).await;
                say(&format!("{}\n", token.map_err(self.broke())?))
            }
            Asked::ListRegistrationTokens(listing) => {
                let tokens = self.administration.list_registration_tokens().await.map_err(self.broke())?;
                Self::list(&tokens, listing, "No tokens: `hearth admin create-registration-token` makes one.")
            }
            Asked::RevokeRegistrationToken(revoke) => {
                self.administration.revoke_registration_token(&revoke.token).await.map_err(self.broke())?;
                say("Revoked: nobody else registers with it.\n")
            }
            Asked::SendNotice(notice) => self.send_notice(&notice).await,
            Asked::ListReports(list) => {
                for report in self.administration.list_reports(list.limit).await.map_err(self.broke())? {
                    say(&format!("{}\n", serde_json::to_string(&report)?))?;
                }
                Ok(())
            }
        }
    }

    /// In the operator's words.
    fn broke(&self) -> impl Fn(Error) -> Failure {
        |error| database::explain(self.config, &error).into()
    }

    async fn create_user(&self, create: &CreateUser) -> Result<(), Failure> {
        let password = Password::get(create.password, &self.random)?;
        let made = self.administration.create_user(&create.account.name, &password.text, create.admin).await;
        let role = if create.admin { "administrator" } else { "user" };
        say(&format!("Made the {role} {}.\n{}", made.map_err(self.broke())?, password.shown()))
    }

    async fn list_users(&self, list: &ListUsers) -> Result<(), Failure> {
        let who = match list.who {
            ListedUsers { admins: true, .. } => Who::Administrators,
            ListedUsers { guests: true, .. } => Who::Guests,
            ListedUsers { deactivated: true, .. } => Who::Deactivated,
            ListedUsers { all: true, .. } => Who::Everybody,
            _ => Who::Users,
        };
        let mut last: Option<OwnedUserId> = None;
        loop {
            let page = self.administration.list_users(who, last.as_deref()).await.map_err(self.broke())?;
            say(&render(&page, list.listing.json, last.is_none())?)?;
            let Some(end) = page.into_iter().next_back() else { break };
            last = Some(end.user_id);
        }
        if last.is_none() {
            writeln!(io::stderr(), "There are none.")?;
        }
        Ok(())
    }

    fn list<T: Line>(list: &[T], listing: Listing, none: &str) -> Result<(), Failure> {
        if list.is_empty() {
            writeln!(io::stderr(), "{none}")?;
        }
        say(&render(list, listing.json, true)?)
    }

    /// An account, as one line of JSON.
    async fn show_account(&self, name: &str) -> Result<(), Failure> {
        let account = self.administration.show_account(name).await.map_err(self.broke())?;
        say(&format!("{}\n", serde_json::to_string(&account)?))
    }

    async fn reset_password(&self, reset: &ResetPassword) -> Result<(), Failure> {
        let name = &reset.account.name;
        // Nobody should type a password for an account that isn't there.
        self.administration.show_account(name).await.map_err(self.broke())?;
        let password = Password::get(reset.password, &self.random)?;
        let done = self.administration.reset_password(name, &password.text, reset.keep_sessions).await;
        let user_id = done.map_err(self.broke())?;
        say(&password.shown())?;
        let sessions = if reset.keep_sessions { "Their sessions go on." } else { "They are logged out everywhere." };
        self.told(&user_id, &format!("{user_id} has a new password. {sessions}")).await
    }

    async fn set_admin(&self, name: &str, admin: bool) -> Result<(), Failure> {
        let (user_id, changed) = self.administration.set_admin(name, admin).await.map_err(self.broke())?;
        self.told(
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
        let (user_id, count) = done.map_err(self.broke())?;
        let sessions = if count == 1 { "one session".to_owned() } else { format!("{count} sessions") };
        self.told(&user_id, &format!("Ended {sessions} of {user_id}.")).await
    }

    async fn set_locked(&self, name: &str, locked: bool) -> Result<(), Failure> {
        let user_id = self.administration.set_locked(name, locked).await.map_err(self.broke())?;
        self.told(&user_id, &format!("{} {user_id}.", if locked { "Locked" } else { "Unlocked" })).await
    }

    async fn set_suspended(&self, name: &str, suspended: bool) -> Result<(), Failure> {
        let user_id = self.administration.set_suspended(name, suspended).await.map_err(self.broke())?;
        let done = if suspended { "Suspended" } else { "Ended the suspension of" };
        self.told(&user_id, &format!("{done} {user_id}.")).await
    }

    /// Says what was done to an account, and whether running servers go by it already.
    async fn told(&self, user_id: &OwnedUserId, done: &str) -> Result<(), Failure> {
        let taken = match self.administration.until_taken(user_id).await.map_err(self.broke())? {
            Taken::Everywhere => "Every running server goes by it.",
            Taken::NotYet => "No server runs, or it has not noticed yet: it will, at the latest with its next start.",
        };
        say(&format!("{done} {taken}\n"))
    }

    async fn send_notice(&self, notice: &SendNotice) -> Result<(), Failure> {
        let sent = self.administration.send_notice(notice.name.as_deref(), &notice.text).await;
        let count = sent.map_err(self.broke())?;
        let whom = if count == 1 { "one user".to_owned() } else { format!("{count} users") };
        say(&format!("The notice to {whom} is on its way: a running server sends it within seconds.\n"))
    }
}
