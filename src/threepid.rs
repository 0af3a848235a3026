//! Third-party identifiers: e-mail addresses on accounts, how they are proved, and where they are published.
//!
//! An address belongs to one account. Whoever wants it there, or wants to use it in place of a password, shows that
//! they read what is sent to it, each time for one operation: what was confirmed to make an account resets no
//! password. Nobody is told by an answer whether an address has an account; that is in the mail.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#adding-account-administrative-contact-information>

mod address;
mod binding;
mod letter;
mod session;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use ruma::{ClientSecret, OwnedServerName, OwnedUserId, SessionId, UserId, api::error::ErrorKind, thirdparty::Medium};

use crate::{
    clock::{Clock, millis},
    config::Config,
    db::{Conn, Db},
    error::{Error, Result},
    identity::IdentityServers,
    mail::Mailer,
    random::Random,
    store::{
        account,
        threepid::{self as store, Threepid},
    },
};

pub(crate) use self::{
    address::{EmailAddress, canonical},
    binding::Credentials,
    session::{Pending, Proof, SUBMIT_PATH, TokenRequest, find_proof, look_at, take, unproved},
};

/// What an address is proved for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Register,
    AddThreepid,
    ResetPassword,
}

impl Operation {
    /// As it is written down, here and for user-interactive authentication.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::AddThreepid => "add_threepid",
            Self::ResetPassword => "reset_password",
        }
    }

    pub(crate) fn find(name: &str) -> Option<Self> {
        [Self::Register, Self::AddThreepid, Self::ResetPassword]
            .into_iter()
            .find(|operation| operation.as_str() == name)
    }
}

/// The addresses of this server's users. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Threepids(Arc<Room>);

struct Room {
    db: Db,
    clock: Clock,
    random: Random,
    server_name: OwnedServerName,
    /// Where links in mails lead.
    base_url: String,
    next_link_hosts: Vec<String>,
    /// None where no mail server is configured.
    mailer: Option<Mailer>,
    identity: IdentityServers,
}

impl Threepids {
    pub(crate) fn new(
        db: Db,
        clock: Clock,
        random: Random,
        config: &Config,
        identity: IdentityServers,
    ) -> Result<Self> {
        let mailer = Mailer::new(&config.mail, &config.server_name, clock.clone(), random.clone());
        Ok(Self(Arc::new(Room {
            db,
            clock,
            random,
            server_name: config.server_name.clone(),
            base_url: config.public_base_url(),
            next_link_hosts: config.mail.next_link_hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            mailer: mailer.map_err(Error::broken)?,
            identity,
        })))
    }

    /// Whether anybody can prove an address here.
    pub(crate) fn are_mailed(&self) -> bool {
        self.0.mailer.is_some()
    }

    /// A user's addresses, the first first.
    pub(crate) async fn list(&self, user_id: &UserId) -> Result<Vec<Threepid>> {
        Ok(store::list(&mut self.0.db.read().await?, user_id).await?)
    }

    /// Adds the address that was proved to a user's account.
    pub(crate) async fn add(&self, user_id: &UserId, proof: &Proof) -> Result<()> {
        let mut tx = self.0.db.begin().await?;
        let account = account::lock(&mut tx, user_id).await?;
        if account.is_none_or(|account| account.deactivated) {
            return Err(deactivated());
        }
        let proved = take(&mut tx, proof, Operation::AddThreepid, self.now()).await?;
        attach(&mut tx, user_id, &proved).await?;
        Ok(tx.commit().await?)
    }

    /// Whether a user has just added an address with this proof: who is told so was not told the first time.
    pub(crate) async fn has_added(
        &self,
        user_id: &UserId,
        sid: &SessionId,
        client_secret: &ClientSecret,
    ) -> Result<bool> {
        let Some(address) = self.find_shown(Operation::AddThreepid, sid, client_secret).await? else {
            return Ok(false);
        };
        let owner = find_owner(&mut self.0.db.read().await?, &address).await?;
        Ok(owner.is_some_and(|owner| owner == user_id))
    }

    /// Takes an address from a user's account and from where it is published. Tells whether every identity server has
    /// forgotten it.
    pub(crate) async fn remove(
        &self,
        user_id: &UserId,
        medium: &Medium,
        address: &str,
        id_server: Option<&str>,
    ) -> Result<bool> {
        let address = canonical(medium, address)?;
        let mut tx = self.0.db.begin().await?;
        let removed = store::delete(&mut tx, user_id, medium.as_str(), &address).await?;
        tx.commit().await?;
        let bindings = self.list_bindings_of(user_id, medium.as_str(), &address).await?;
        if !removed && bindings.is_empty() {
            let message = "You have no such address: GET /account/3pid lists those that you have";
            return Err(Error::refused(ErrorKind::ThreepidNotFound, message));
        }
        let bindings = match id_server {
            Some(id_server) => vec![self.binding(medium, address, id_server)],
            None => bindings,
        };
        Ok(!bindings.is_empty() && self.unbind_all(user_id, bindings).await)
    }

    /// Removes what nobody will come back to. To be called now and then.
    pub(crate) async fn clear_expired(&self) -> Result<()> {
        let now = self.now();
        let mut tx = self.0.db.begin().await?;
        store::delete_old(&mut tx, before(now, session::KEPT), before(now, session::MAILS_WITHIN)).await?;
        Ok(tx.commit().await?)
    }

    /// Milliseconds since the Unix epoch.
    fn now(&self) -> i64 {
        self.0.clock.now().get().into()
    }
}

/// Gives an address to a user. One that they have already is proved again.
pub(crate) async fn attach(conn: &mut Conn, user_id: &UserId, threepid: &Threepid) -> Result<()> {
    if store::insert(conn, user_id, threepid).await? || store::set_validated_again(conn, user_id, threepid).await? {
        return Ok(());
    }
    Err(Error::refused(ErrorKind::ThreepidInUse, "This address belongs to another account on this server"))
}

/// Whose address this is. None for what is no address.
pub(crate) async fn find_owner(conn: &mut Conn, email: &str) -> Result<Option<OwnedUserId>> {
    let Ok(address) = EmailAddress::parse(email) else { return Ok(None) };
    Ok(store::find_owner(conn, Medium::Email.as_str(), address.as_str()).await?)
}

fn deactivated() -> Error {
    Error::refused(ErrorKind::UserDeactivated, "This account has been deactivated")
}

/// `duration` before `now`, in milliseconds since the Unix epoch.
fn before(now: i64, duration: Duration) -> i64 {
    now.saturating_sub(millis(duration))
}
