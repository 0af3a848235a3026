//! Guests: accounts without a password, for whoever asks, where the operator lets them in. A guest has one session;
//! with its token they can become a user like any other.
//!
//! A guest is an account like others, marked as one, so that everything that needs an account works. What guests may
//! not do is decided by the type of the caller and by rooms' `m.room.guest_access`. No user directory has them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#guest-access>

use ruma::{OwnedUserId, api::error::ErrorKind};

use super::{
    Accounts, localpart,
    register::{Registration, name},
    session::{NewSession, Session},
};
use crate::{
    db::Conn,
    error::{Error, Result},
    people::profile,
    store::{
        account, cursor,
        token::{self, TokenHash},
        user_directory,
    },
};

impl Accounts {
    /// Refuses unless this server has guests.
    pub(crate) fn check_guests_welcome(&self) -> Result<()> {
        if self.0.settings.guests {
            return Ok(());
        }
        Err(Error::refused(ErrorKind::GuestAccessForbidden, "This server has no guests: register an account"))
    }

    /// Makes a guest and logs them in.
    pub(crate) async fn register_guest(&self, session: NewSession) -> Result<Session> {
        self.check_guests_welcome()?;
        let user_id = self.generate_user_id()?;
        let mut tx = self.0.db.begin().await?;
        if !account::insert_guest(&mut tx, &user_id, self.now()).await? {
            return Err(localpart::in_use());
        }
        name(&mut tx, &user_id).await?;
        let session = self.open_session(&mut tx, &user_id, session).await?;
        tx.commit().await?;
        Ok(session)
    }

    /// The guest whose name and token these are: they may become a user like any other.
    pub(crate) async fn check_guest(&self, username: &str, token: &TokenHash) -> Result<OwnedUserId> {
        let user_id = localpart::new_user_id(username, &self.0.server_name)?;
        let mut conn = self.0.db.read().await?;
        let guest = self.find_guest(&mut conn, token).await?;
        guest.filter(|guest| *guest == user_id).ok_or_else(no_guest)
    }

    /// Makes a guest a user like any other. Their own session goes on.
    pub(crate) async fn upgrade_guest(&self, token: &TokenHash, new: Registration<'_>) -> Result<Option<Session>> {
        let user_id = new.user_id.clone();
        let mut tx = self.0.db.begin().await?;
        account::lock(&mut tx, &user_id).await?.ok_or_else(no_guest)?;
        // Again, now that nobody else is changing the account.
        self.find_guest(&mut tx, token).await?.filter(|guest| *guest == user_id).ok_or_else(no_guest)?;
        if !account::upgrade_guest(&mut tx, &user_id, &new.password_hash).await? {
            return Err(no_guest());
        }
        let session = self.welcome(&mut tx, new).await?;
        // Whoever joins meanwhile is looked at afterwards.
        cursor::lock(&mut tx, user_directory::CURSOR).await?;
        let display_name = profile::find_display_name(&mut tx, &user_id).await?;
        // Guests from before there was a directory are in it.
        user_directory::remove(&mut tx, &user_id).await?;
        user_directory::add(&mut tx, &user_id, display_name.as_deref()).await?;
        // Every node takes them for a guest who has seen their token before.
        self.commit_changed(tx, &user_id).await?;
        Ok(session)
    }

    /// The guest who holds an access token.
    async fn find_guest(&self, conn: &mut Conn, token: &TokenHash) -> Result<Option<OwnedUserId>> {
        let bearer = token::find_bearer(conn, token).await?;
        let alive = |expires_ts: Option<i64>| expires_ts.is_none_or(|expires_ts| expires_ts > self.now());
        Ok(bearer.filter(|bearer| bearer.guest && alive(bearer.expires_ts)).map(|bearer| bearer.user_id))
    }
}

/// One refusal whoever the token belongs to, so that nobody learns that.
fn no_guest() -> Error {
    Error::forbidden("`guest_access_token` is not the access token of a guest with this `username`")
}
