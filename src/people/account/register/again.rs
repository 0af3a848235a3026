//! Answering a registration again whose answer was lost.
//!
//! Whoever knows the session can finish it, and so has the account: its identifier is a secret between client and
//! server until then. Afterwards it is worth less. The account is given again to whoever asks for the same and shows
//! the password. A client that finished without saying the password can't show it: it is answered again until the
//! access token that it was answered with is used, which shows that the answer has arrived. Either way the tokens of
//! before are good for nothing any more, so nobody shares a session without noticing.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-interactive-api-in-the-rest-api>

use std::net::IpAddr;

use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use crate::{
    db::Tx,
    error::{Error, Result},
    ground::clock::millis,
    people::{
        account::{
            Accounts, localpart,
            session::{NewSession, Session},
        },
        threepid::Operation,
    },
    store::{
        account::{self, Account},
        token::TokenHash,
        uia::{self, RegistrationOutcome},
    },
};

/// A session of user-interactive authentication in which somebody has completed every stage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Confirmation<'a> {
    pub(crate) session_id: &'a str,
    /// Whether the password came with the last request, so that it has to come again with a repetition.
    pub(crate) with_password: bool,
}

/// A finished registration that somebody asks for again.
pub(crate) struct Repetition<'a> {
    pub(crate) session_id: &'a str,
    pub(crate) username: Option<&'a str>,
    pub(crate) password: Option<&'a str>,
    pub(crate) device_id: Option<&'a DeviceId>,
    pub(crate) inhibit_login: Option<bool>,
    pub(crate) address: IpAddr,
}

/// What came of a registration, as it is written down.
#[derive(Serialize, Deserialize)]
struct MadeAccount {
    user_id: OwnedUserId,
    /// None where nobody was logged in.
    device_id: Option<OwnedDeviceId>,
    /// Whether the password has to be shown again.
    with_password: bool,
    /// Whether a refresh token was issued with it.
    refreshable: bool,
}

/// Ends a session with what came of it. Refuses where it has ended meanwhile: then it has made an account already.
pub(in crate::people::account) async fn note(
    tx: &mut Tx,
    confirmation: Confirmation<'_>,
    user_id: &UserId,
    session: Option<&Session>,
) -> Result<()> {
    let made = MadeAccount {
        user_id: user_id.to_owned(),
        device_id: session.map(|session| session.device_id.clone()),
        with_password: confirmation.with_password,
        refreshable: session.is_some_and(|session| session.refresh_token.is_some()),
    };
    let made = serde_json::to_string(&made).map_err(Error::broken)?;
    let token = session.map(|session| TokenHash::of(&session.access_token));
    if uia::end(tx, confirmation.session_id, &made, token.as_ref()).await? { Ok(()) } else { Err(localpart::in_use()) }
}

impl Accounts {
    /// Whose account was made in a session.
    pub(crate) async fn find_registered(&self, session_id: &str) -> Result<Option<OwnedUserId>> {
        let outcome = self.find_outcome(session_id).await?;
        Ok(outcome.map(|outcome| made(&outcome)).transpose()?.map(|made| made.user_id))
    }

    /// The account that was made in a session, logged in as before. None for whoever asks for something else or can't
    /// show that they are the same.
    pub(crate) async fn register_again(
        &self,
        again: &Repetition<'_>,
    ) -> Result<Option<(OwnedUserId, Option<Session>)>> {
        let Some(outcome) = self.find_outcome(again.session_id).await? else { return Ok(None) };
        let made = made(&outcome)?;
        if !again.fits(&made) {
            return Ok(None);
        }
        let read = account::find(&mut self.0.db.read().await?, &made.user_id).await?;
        let hash = read.and_then(|account| account.password_hash);
        let shown = match again.password {
            Some(password) => self.0.passwords.verify(password, hash.as_deref()).await?.is_right(),
            None => !made.with_password,
        };
        if !shown {
            return Ok(None);
        }
        let mut tx = self.0.db.begin().await?;
        // While the password was being verified it may have been changed, or the account deactivated.
        let is_same = |account: &Account| !account.deactivated && account.password_hash == hash;
        let account = account::lock(&mut tx, &made.user_id).await?.filter(is_same);
        let Some(account) = account else { return Ok(None) };
        account.restrictions.check_unlocked()?;
        // Made without logging in: there is nothing to give again but the name.
        let Some(device_id) = made.device_id else { return Ok(Some((made.user_id, None))) };
        let (operation, since) = (Operation::Register.as_str(), self.oldest_session());
        let outcome = uia::lock_outcome(&mut tx, again.session_id, operation, since).await?;
        let answerable = |outcome: &RegistrationOutcome| again.password.is_some() || outcome.unused_token.is_some();
        if !outcome.as_ref().is_some_and(answerable) {
            return Ok(None);
        }
        let new = NewSession {
            device_id: Some(device_id),
            display_name: None,
            refreshable: made.refreshable,
            address: again.address,
        };
        let session = self.open_session(&mut tx, &made.user_id, new).await?;
        uia::set_answered(&mut tx, again.session_id, &TokenHash::of(&session.access_token)).await?;
        self.commit_changed(tx, &made.user_id).await?;
        Ok(Some((made.user_id, Some(session))))
    }

    /// The access token that a registration was answered with is used for the first time: the answer has arrived.
    pub(in crate::people::account) async fn confirm_registration(&self, token: &TokenHash) -> Result<()> {
        let mut tx = self.0.db.begin().await?;
        uia::set_received(&mut tx, token).await?;
        Ok(tx.commit().await?)
    }

    async fn find_outcome(&self, session_id: &str) -> Result<Option<RegistrationOutcome>> {
        let mut conn = self.0.db.read().await?;
        Ok(uia::find_outcome(&mut conn, session_id, Operation::Register.as_str(), self.oldest_session()).await?)
    }

    /// Sessions opened until then have expired, in milliseconds since the Unix epoch.
    fn oldest_session(&self) -> i64 {
        self.now().saturating_sub(millis(uia::LIFETIME))
    }
}

impl Repetition<'_> {
    /// Whether nothing else is asked for than what was made.
    fn fits(&self, made: &MadeAccount) -> bool {
        let is_called = |username: &str| {
            localpart::new_user_id(username, made.user_id.server_name()).is_ok_and(|user_id| user_id == made.user_id)
        };
        let is_on = |device_id: &DeviceId| {
            device_id.as_str().is_empty() || made.device_id.as_deref().is_none_or(|made| made == device_id)
        };
        // What is not said this time was said then.
        self.username.is_none_or(is_called)
            && self.device_id.is_none_or(is_on)
            && self.inhibit_login.is_none_or(|inhibited| inhibited == made.device_id.is_none())
    }
}

fn made(outcome: &RegistrationOutcome) -> Result<MadeAccount> {
    serde_json::from_str(&outcome.json).map_err(Error::broken)
}
