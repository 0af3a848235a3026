//! Proving an address: a mail with a link to it, and the session that the link completes.
//!
//! A session is for one address, one client and one operation, and serves once. It lives in the database, so that the
//! link, the client and the operation may each reach another node.
//!
//! Sending takes seconds, in which no transaction is open: one before it notes that this request is sending until a
//! time, one after it notes what came of it. A node that dies in between leaves a note that runs out.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3registeremailrequesttoken> and
//! <https://spec.matrix.org/v1.19/identity-service-api/#establishing-associations>

use std::time::Duration;

use reqwest::Url;
use ruma::{ClientSecret, OwnedUserId, SessionId, UInt, api::error::ErrorKind, thirdparty::Medium};

use super::{
    EmailAddress, Threepids,
    mail::{self, ConfirmationLink},
    proof::{LIFETIME, Operation, Proof, before, find_proof, hash_secret, is_fresh},
};
use crate::{
    edge::mail::{MailError, Mailer, OutgoingMail},
    error::{Error, Result},
    ground::clock::millis,
    store::{
        threepid::{self as store, ValidationKey, ValidationSession},
        token::TokenHash,
    },
};

/// For so long after a session was used, a request that used it is answered again.
const REPEATED_WITHIN: Duration = Duration::from_hours(1);
/// For so long a session is remembered, so that whoever comes too late is answered that.
const KEPT: Duration = Duration::from_hours(48);

/// So many mails go to one address at most …
const MAX_MAILS: i64 = 10;
/// … within this time.
const MAILS_WITHIN: Duration = Duration::from_hours(1);

/// After so many wrong tokens a session needs another mail.
const MAX_FAILURES: i64 = 10;

/// For so long one request keeps others from sending the same mail. Longer than any mail takes.
const SENDING: Duration = Duration::from_mins(1);

/// In characters.
const SID_LENGTH: usize = 24;
/// 20 characters of 62 are 119 bits: few enough to be typed, too many to be guessed.
const TOKEN_LENGTH: usize = 20;
/// In bytes, of the link on which a client wants people to go on.
const MAX_LINK: usize = 2_048;

/// Where the link in a mail leads, and where clients send the token: below what proxies let pass to this server.
pub(crate) const SUBMIT_PATH: &str = "/_matrix/client/unstable/hearth/validate/email/submitToken";

/// What a client asks for that wants to prove an address.
#[derive(Debug)]
pub(crate) struct TokenRequest<'a> {
    pub(crate) operation: Operation,
    pub(crate) email: &'a str,
    pub(crate) client_secret: &'a ClientSecret,
    pub(crate) send_attempt: UInt,
    pub(crate) next_link: Option<&'a str>,
}

/// A session that waits for its token.
#[derive(Debug)]
pub(crate) struct PendingValidation {
    pub(crate) operation: Operation,
    pub(crate) address: String,
    /// Where its client wants the user to go on, as far as the operator allows that.
    pub(crate) next_link: Option<String>,
}

impl Threepids {
    /// Sends a mail, and returns the identifier of the session that its token completes. An attempt that was mailed
    /// before is not mailed again.
    pub(crate) async fn request_token(&self, request: &TokenRequest<'_>) -> Result<String> {
        let mailer = self.mailer(request.operation)?;
        let address = EmailAddress::parse(request.email)?;
        let secret = hash_secret(request.client_secret.as_str())?;
        let (operation, send_attempt) = (request.operation, i64::from(request.send_attempt));
        let (medium, email, now) = (Medium::Email.as_str(), address.as_str(), self.now());
        let attempt = ValidationKey { operation: operation.as_str(), medium, address: email, secret: &secret };

        let mut tx = self.0.db.begin().await?;
        let sid = self.0.random.token(SID_LENGTH);
        let session = store::open_session(&mut tx, attempt, &sid, now, before(now, LIFETIME)).await?;
        let session = session.ok_or_else(|| Error::broken("a session is not there that was just opened"))?;
        if session.send_attempt >= send_attempt {
            return Ok(session.sid);
        }
        if session.until_ts > now {
            return Err(Error::wait("A mail for this attempt is on its way", Duration::from_secs(2)));
        }
        store::lock_mailbox(&mut tx, email).await?;
        let (mails, first) = store::count_mails(&mut tx, medium, email, before(now, MAILS_WITHIN)).await?;
        if mails >= MAX_MAILS {
            let free = first.unwrap_or(now).saturating_add(millis(MAILS_WITHIN)).saturating_sub(now);
            let patience = Duration::from_millis(u64::try_from(free).unwrap_or_default());
            return Err(Error::wait("This address was sent too many mails lately", patience));
        }
        let owner = store::find_owner(&mut tx, medium, email).await?;
        let (mail, token) = self.write(operation, owner.as_ref(), email, &session.sid, request.client_secret);
        let next_link = request.next_link.and_then(|link| self.allowed_next_link(link));
        let until = now.saturating_add(millis(SENDING));
        store::begin_sending(&mut tx, &session.sid, token.as_ref(), next_link.as_deref(), now, until).await?;
        store::insert_mail(&mut tx, medium, email, now).await?;
        tx.commit().await?;

        let sent = mailer.send(mail).await;
        let mut tx = self.0.db.begin().await?;
        if sent.is_ok() {
            store::set_sent(&mut tx, &session.sid, send_attempt).await?;
        } else {
            store::set_not_sent(&mut tx, &session.sid).await?;
            store::lock_mailbox(&mut tx, email).await?;
            store::delete_mail(&mut tx, medium, email, now).await?;
        }
        tx.commit().await?;
        sent.map_err(|error| match error {
            MailError::Undeliverable(reason) => {
                tracing::info!(%reason, "a mail was not taken");
                Error::invalid_param("The mail server takes no mail for this address: check how it is spelled")
            }
            error @ MailError::NotSent(_) => Error::Unavailable(error.to_string()),
        })?;
        Ok(session.sid)
    }

    fn mailer(&self, operation: Operation) -> Result<&Mailer> {
        // Each endpoint has its own code for it.
        let kind = match operation {
            Operation::AddThreepid => ErrorKind::ThreepidMediumNotSupported,
            Operation::Register | Operation::ResetPassword => ErrorKind::ThreepidDenied,
        };
        let refused = || Error::refused(kind, "This server sends no mail, so e-mail addresses are of no use on it");
        self.0.mailer.as_ref().ok_or_else(refused)
    }

    /// The mail for an operation, and the token in it. Nobody else learns from what is done here whether the address
    /// has an account.
    fn write(
        &self,
        operation: Operation,
        owner: Option<&OwnedUserId>,
        email: &str,
        sid: &str,
        client_secret: &ClientSecret,
    ) -> (OutgoingMail, Option<TokenHash>) {
        let server = &self.0.server_name;
        match (operation, owner) {
            (Operation::Register | Operation::AddThreepid, Some(owner)) => (mail::taken(server, owner, email), None),
            (Operation::ResetPassword, None) => (mail::unknown(server, email), None),
            _ => {
                let token = self.0.random.token(TOKEN_LENGTH);
                let link = format!("{}?sid={sid}&client_secret={client_secret}&token={token}", self.submit_url());
                let hash = TokenHash::of(&token);
                (mail::confirm(server, operation, owner, email, &ConfirmationLink { link, token }), Some(hash))
            }
        }
    }

    /// Where clients send the token.
    pub(crate) fn submit_url(&self) -> String {
        format!("{}{SUBMIT_PATH}", self.0.base_url)
    }

    /// A page to which the operator lets clients send people on.
    fn allowed_next_link(&self, link: &str) -> Option<String> {
        let url = Url::parse(link).ok().filter(|_| link.len() <= MAX_LINK)?;
        let host = url.host_str()?;
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let plain = ["http", "https"].contains(&url.scheme()) && url.username().is_empty() && url.password().is_none();
        (plain && self.0.next_link_hosts.contains(&host)).then(|| url.into())
    }

    /// What a client can show for an operation.
    pub(crate) async fn find_proof(
        &self,
        operation: Operation,
        sid: &SessionId,
        client_secret: &ClientSecret,
    ) -> Result<Option<Proof>> {
        find_proof(&mut self.0.db.read().await?, operation, sid, client_secret, self.now()).await
    }

    /// The address that a client has shown for an operation not long ago.
    pub(crate) async fn find_shown(
        &self,
        operation: Operation,
        sid: &SessionId,
        client_secret: &ClientSecret,
    ) -> Result<Option<String>> {
        let (secret, since) = (hash_secret(client_secret.as_str())?, before(self.now(), REPEATED_WITHIN));
        let mut conn = self.0.db.read().await?;
        Ok(store::find_taken(&mut conn, sid.as_str(), &secret, operation.as_str(), since).await?)
    }

    /// What a link is about, for whoever has followed it. Changes nothing: mail servers look at links too.
    pub(crate) async fn find_pending(&self, sid: &str, client_secret: &str) -> Result<PendingValidation> {
        let secret = hash_secret(client_secret)?;
        let session = store::find_session(&mut self.0.db.read().await?, sid, &secret).await?;
        let session = check_open(session, self.now())?;
        let operation = Operation::find(&session.operation).ok_or_else(|| Error::broken("an unknown operation"))?;
        Ok(PendingValidation { operation, address: session.address, next_link: session.next_link })
    }

    /// Completes a session, and returns where its client wants the user to go on. Once completed it stays so.
    ///
    /// <https://spec.matrix.org/v1.19/identity-service-api/#post_matrixidentityv2validateemailsubmittoken>
    pub(crate) async fn submit_token(&self, sid: &str, client_secret: &str, token: &str) -> Result<Option<String>> {
        let (secret, now) = (hash_secret(client_secret)?, self.now());
        let mut tx = self.0.db.begin().await?;
        let session = check_open(store::lock_session(&mut tx, sid, &secret).await?, now)?;
        if session.failures >= MAX_FAILURES {
            return Err(Error::named("M_SESSION_EXPIRED", "Too many wrong codes were tried: ask for another mail"));
        }
        if session.token != Some(TokenHash::of(token)) {
            store::count_failure(&mut tx, sid).await?;
            tx.commit().await?;
            let message = "This is not the code that was mailed last: look for a newer mail";
            return Err(Error::refused(ErrorKind::TokenIncorrect, message));
        }
        if session.validated_ts.is_none() {
            store::set_validated(&mut tx, sid, now).await?;
            tx.commit().await?;
        }
        Ok(session.next_link)
    }

    /// Removes what nobody will come back to. To be called now and then.
    pub(crate) async fn clear_expired(&self) -> Result<()> {
        let now = self.now();
        let mut tx = self.0.db.begin().await?;
        store::delete_old(&mut tx, before(now, KEPT), before(now, MAILS_WITHIN)).await?;
        Ok(tx.commit().await?)
    }
}

/// Refuses a session that is not there, was used, or is too old.
fn check_open(session: Option<ValidationSession>, now: i64) -> Result<ValidationSession> {
    let session = session.ok_or_else(|| Error::named("M_NO_VALID_SESSION", "There is no such session: begin again"))?;
    if is_fresh(&session, now) {
        return Ok(session);
    }
    Err(Error::named("M_SESSION_EXPIRED", "This link is too old: ask for another mail"))
}
