//! Third-party identifiers: e-mail addresses on accounts, how they are proved, and where they are published.
//!
//! An address belongs to one account. Whoever wants it there, or wants to use it in place of a password, shows that
//! they read what is sent to it, each time for one operation: what was confirmed to make an account resets no password.
//! No answer shows whether an address has an account; only the mail does.
//!
//! Lock order: the account, then the session that proves an address of it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#adding-account-administrative-contact-information>

mod address;
mod binding;
mod mail;
mod proof;
mod security_mail;
mod session;
#[cfg(test)]
mod tests;

use std::{net::IpAddr, sync::Arc};

use ruma::{
    ClientSecret, DeviceId, OwnedServerName, OwnedUserId, SessionId, UserId, api::error::ErrorKind, thirdparty::Medium,
};

use crate::{
    config::Config,
    db::{Conn, Db, Tx},
    edge::{
        identity::IdentityServers,
        mail::{MailError, Mailer},
    },
    error::{Error, Result},
    ground::{clock::Clock, random::Random},
    log::Quotas,
    store::{
        account, device,
        errand::Errand,
        threepid::{self as store, Threepid},
    },
};

pub(crate) use self::{
    address::{EmailAddress, canonical},
    binding::Credentials,
    proof::{Operation, Proof, check_proof, find_proof, unproved, use_proof},
    security_mail::{SecurityContext, SecurityEvent, leave_security_mails},
    session::{PendingValidation, SUBMIT_PATH, TokenRequest},
};

/// A user, and the device on which they do something to their account.
type Owner<'a> = (&'a UserId, &'a DeviceId);

/// The addresses of this server's users. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Threepids(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Clock,
    random: Random,
    server_name: OwnedServerName,
    /// Where links in mails lead.
    base_url: String,
    /// Where clients may send people on: hosts, with or without a port, in small letters.
    next_link_hosts: Vec<String>,
    /// None where no mail server is configured.
    mailer: Option<Mailer>,
    identity: IdentityServers,
    quotas: Quotas,
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
        Ok(Self(Arc::new(Inner {
            db,
            clock,
            random,
            server_name: config.server_name.clone(),
            base_url: config.public_base_url(),
            next_link_hosts: config.mail.next_link_hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            mailer: mailer.map_err(Error::broken)?,
            identity,
            quotas: Quotas::of(config),
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
    ///
    /// `M_THREEPID_IN_USE` where it belongs to another account, `M_THREEPID_AUTH_FAILED` where the proof is not good
    /// any more.
    pub(crate) async fn add(&self, (user_id, device_id): Owner<'_>, proof: &Proof, from: IpAddr) -> Result<()> {
        let mut tx = self.0.db.begin().await?;
        hold(&mut tx, (user_id, device_id)).await?;
        let proved = use_proof(&mut tx, proof, Operation::AddThreepid, self.now()).await?;
        attach(&mut tx, &self.0.quotas, user_id, &proved).await?;
        // Who has just read a mail there knows it.
        let new = Some(&*proved.address);
        self.report(&mut tx, (user_id, device_id), SecurityEvent::AddressAdded, new, from).await?;
        Ok(tx.commit().await?)
    }

    /// Whether a user has just added an address with this proof: the answer to the first request was lost.
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

    /// Takes an address from a user's account and from where it is published. Returns whether every identity server has
    /// forgotten it.
    pub(crate) async fn remove(
        &self,
        (user_id, device_id): Owner<'_>,
        (medium, address): (&Medium, &str),
        id_server: Option<&str>,
        from: IpAddr,
    ) -> Result<bool> {
        let address = canonical(medium, address)?;
        let mut tx = self.0.db.begin().await?;
        hold(&mut tx, (user_id, device_id)).await?;
        let owner = store::find_owner(&mut tx, medium.as_str(), &address).await?;
        if owner.is_some_and(|owner| owner == user_id) {
            // As long as it is there: whoever loses it is to hear of it too.
            self.report(&mut tx, (user_id, device_id), SecurityEvent::AddressRemoved, None, from).await?;
        }
        let removed = store::delete(&mut tx, user_id, medium.as_str(), &address).await?;
        tx.commit().await?;
        // Where it is published is remembered whether or not it was on the account.
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

    /// Leaves word for the owner of an account, at all its addresses but `except`.
    async fn report(
        &self,
        tx: &mut Tx,
        (user_id, device_id): Owner<'_>,
        event: SecurityEvent,
        except: Option<&str>,
        from: IpAddr,
    ) -> Result<()> {
        let device = device::find(tx, user_id, device_id).await?;
        let context = SecurityContext { now: self.now(), address: Some(from), device: device.as_ref() };
        leave_security_mails(tx, user_id, event, except, (context, &self.0.random)).await
    }

    /// Sends a mail that an errand was left for. A refusal if that is of no use any more.
    pub(crate) async fn send_security_mail(&self, errand: &Errand) -> Result<()> {
        let Some(mailer) = &self.0.mailer else {
            return Err(Error::not_found("no mail server is configured, so nobody is written to"));
        };
        match mailer.send(security_mail::read(errand, &self.0.server_name, self.now())?).await {
            Ok(()) => Ok(()),
            Err(MailError::Undeliverable(reason)) => Err(Error::invalid_param(reason)),
            Err(error @ MailError::NotSent(_)) => Err(Error::Unavailable(error.to_string())),
        }
    }

    /// Milliseconds since the Unix epoch.
    fn now(&self) -> i64 {
        self.0.clock.now().get().into()
    }
}

/// Locks the account, and makes sure that the session lasts which changes it.
async fn hold(tx: &mut Tx, (user_id, device_id): Owner<'_>) -> Result<()> {
    if account::lock(tx, user_id).await?.is_none_or(|account| account.deactivated) {
        return Err(deactivated());
    }
    if device::lock(tx, user_id, device_id).await? {
        Ok(())
    } else {
        Err(Error::forbidden("This session has been ended: nothing was changed"))
    }
}

/// Gives an address to a user, whose account is locked. One that they have already is proved again.
pub(crate) async fn attach(conn: &mut Conn, quotas: &Quotas, user_id: &UserId, threepid: &Threepid) -> Result<()> {
    if store::insert(conn, user_id, threepid).await? {
        let others = store::count(conn, user_id).await? - 1;
        let message = |most| format!("You have {most} addresses, as many as you may: remove one first");
        return quotas.check(user_id, |quotas| quotas.addresses, others, message);
    }
    if store::set_validated_again(conn, user_id, threepid).await? {
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
