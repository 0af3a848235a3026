//! Making an account, in one transaction with everything that permits it and follows from it.
//!
//! Everything is checked before the transaction, for good messages, and again in it by unique indexes and by rows that
//! are taken once: two requests that register one name, use one token or one proof end with one account.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#account-registration-and-management>

mod again;
mod request;

use ruma::{OwnedUserId, UserId};
use serde_json::json;

pub(crate) use self::{
    again::{Confirmation, Repetition},
    request::{RegistrationRequest, RequestedDevice},
};
use super::{
    Accounts, localpart,
    password::PasswordMatch,
    session::{NewSession, Session},
};
use crate::{
    config::{RegistrationMode, terms::Terms},
    db::Tx,
    error::{Error, Result},
    people::{
        profile::DISPLAYNAME,
        threepid::{self, Operation, Proof},
    },
    store::{account, profile, registration, user_directory},
};

/// In characters.
const GENERATED_LENGTH: usize = 12;

/// Who is to get an account.
pub(crate) struct Registration<'a> {
    pub(crate) user_id: OwnedUserId,
    /// In the PHC string format: see [`Accounts::hash_password`].
    pub(crate) password_hash: String,
    pub(crate) admin: bool,
    /// The registration token that permits it, where one is needed.
    pub(crate) token: Option<&'a str>,
    /// The documents that they have accepted.
    pub(crate) terms: Option<&'a Terms>,
    /// That an e-mail address was proved, which the account then has.
    pub(crate) proof: Option<&'a Proof>,
    /// None to make the account without logging in.
    pub(crate) session: Option<NewSession>,
    /// The session of user-interactive authentication that ends with this, where there is one.
    pub(crate) confirmed_in: Option<Confirmation<'a>>,
}

impl Accounts {
    /// Refuses, with advice, unless `/register` is for everybody or for holders of a token.
    pub(crate) fn check_registration_enabled(&self) -> Result<()> {
        match self.registration_mode() {
            RegistrationMode::Open | RegistrationMode::Token => Ok(()),
            RegistrationMode::Closed => {
                Err(Error::forbidden("Registration is closed on this server: ask its operator for an account"))
            }
        }
    }

    /// The user ID for a new account with this name, if it may be had.
    pub(crate) async fn check_username(&self, username: &str) -> Result<OwnedUserId> {
        let user_id = localpart::new_user_id(username, &self.0.server_name)?;
        let mut conn = self.0.db.read().await?;
        match account::find(&mut conn, &user_id).await? {
            Some(_) => Err(localpart::in_use()),
            None => Ok(user_id),
        }
    }

    /// A user ID for somebody who doesn't mind how they are called.
    pub(crate) fn generate_user_id(&self) -> Result<OwnedUserId> {
        localpart::new_user_id(&self.0.random.token(GENERATED_LENGTH), &self.0.server_name)
    }

    /// The hash of a new password, if that is good enough.
    pub(crate) async fn hash_password(&self, password: &str) -> Result<String> {
        self.0.passwords.hash(password).await
    }

    /// Hashes a new password, or returns the hash that is known of it: clients send everything again with each stage.
    pub(crate) async fn hash_password_once(&self, password: &str, known: Option<String>) -> Result<String> {
        if let Some(known) = known
            && self.0.passwords.verify(password, Some(&known)).await? == PasswordMatch::Right
        {
            return Ok(known);
        }
        self.hash_password(password).await
    }

    /// Makes the account, uses the token, notes what was accepted, logs in and ends the session in which all that was
    /// shown: all of it or nothing.
    pub(crate) async fn register(&self, new: Registration<'_>) -> Result<Option<Session>> {
        let mut tx = self.0.db.begin().await?;
        let hash = Some(new.password_hash.as_str());
        if !account::insert(&mut tx, &new.user_id, hash, new.admin, self.now()).await? {
            return Err(localpart::in_use());
        }
        name(&mut tx, &new.user_id).await?;
        user_directory::add(&mut tx, &new.user_id, Some(new.user_id.localpart())).await?;
        let session = self.welcome(&mut tx, new).await?;
        tx.commit().await?;
        Ok(session)
    }

    /// Everything that follows from an account, in the transaction that makes it: it uses up the token, has accepted
    /// the documents, gets the address that was proved, and is logged in.
    pub(super) async fn welcome(&self, tx: &mut Tx, new: Registration<'_>) -> Result<Option<Session>> {
        if let Some(token) = new.token
            && !registration::use_token(tx, token, self.now()).await?
        {
            return Err(Error::forbidden("This registration token has been used up or has expired"));
        }
        for (policy_id, version) in new.terms.into_iter().flat_map(Terms::versions) {
            registration::accept_terms(tx, &new.user_id, policy_id, version, self.now()).await?;
        }
        if let Some(proof) = new.proof {
            let proved = threepid::use_proof(tx, proof, Operation::Register, self.now()).await?;
            threepid::attach(tx, &self.0.settings.quotas, &new.user_id, &proved).await?;
        }
        let session = match new.session {
            Some(session) => Some(self.open_session(tx, &new.user_id, session).await?),
            None => None,
        };
        if let Some(confirmation) = new.confirmed_in {
            again::note(tx, confirmation, &new.user_id, session.as_ref()).await?;
        }
        Ok(session)
    }

    /// Makes an account for the operator, who needs nobody's permission. `name`: a user ID or its localpart.
    pub(crate) async fn create_user(&self, name: &str, password: &str, admin: bool) -> Result<OwnedUserId> {
        let whole = |name: &str| Some(name.strip_prefix('@')?.split_once(':')?.0.to_owned());
        let localpart = self.meant(name).and_then(|_| whole(name)).unwrap_or_else(|| name.to_owned());
        let user_id = self.check_username(&localpart).await?;
        let registration = Registration {
            user_id: user_id.clone(),
            password_hash: self.hash_password(password).await?,
            admin,
            token: None,
            terms: None,
            proof: None,
            session: None,
            confirmed_in: None,
        };
        self.register(registration).await?;
        Ok(user_id)
    }
}

/// A new account is called by its localpart, as clients show whoever has no name.
pub(super) async fn name(tx: &mut Tx, user_id: &UserId) -> Result<()> {
    Ok(profile::upsert(tx, user_id, DISPLAYNAME, &json!(user_id.localpart()).to_string()).await?)
}
