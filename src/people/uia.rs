//! User-interactive authentication: asking again who is there before something serious is done.
//!
//! A session is bound to one operation, one user and what exactly was asked for. It lives in the database, so that each
//! request may reach another node. Of what was asked for only a keyed hash is written down, because there may be a
//! password in it; beside that, what a client need not say again, a password as a hash.
//!
//! Passing ends no session: an answer may be lost, and who sends the last request again, with everything that completes
//! it, is answered again. What must not be done twice is seen to where it is done, in the same transaction: an account
//! is made once (`account/register/again.rs`), a registration token and the proof of an address are used once.
//!
//! Which flows there are is the caller's to say, by a [`Demand`]; this file knows how a stage is completed. Any one
//! flow is enough, and what was shown for another that was given up counts for nothing. A session lives for
//! [`LIFETIME`], and every request in it must have the operation, the user and the parameters of the first.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api>

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::IpAddr};

use aws_lc_rs::hmac;
use ruma::{
    UserId,
    api::{
        client::uiaa::{AuthData, AuthFlow, AuthType, Password, ThirdpartyIdCredentials, UiaaInfo},
        error::{ErrorKind, StandardErrorBody},
    },
    serde::{Base64, base64::UrlSafe},
};
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;

use crate::{
    config::terms::Terms,
    db::Db,
    error::{Error, Result},
    ground::{
        clock::{Clock, millis},
        random::Random,
    },
    log::Quotas,
    people::{
        account::{Accounts, LoginIdentifier},
        threepid::{self, Operation, Proof},
    },
    store::{
        account,
        uia::{self, LIFETIME, UiaSession},
    },
};

/// In characters.
const SESSION_ID_LENGTH: usize = 24;

/// The stages and sessions of user-interactive authentication. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Uia {
    db: Db,
    clock: Clock,
    random: Random,
    accounts: Accounts,
    terms: Terms,
    /// All nodes of a database have the same.
    key: hmac::Key,
    quotas: Quotas,
}

/// What has to be confirmed, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand<'a> {
    pub(crate) operation: &'static str,
    /// Where whoever asks is.
    pub(crate) address: IpAddr,
    /// None where nobody is logged in yet.
    pub(crate) user_id: Option<&'a UserId>,
    /// What exactly is asked for.
    pub(crate) params: &'a str,
    /// What is kept for a client that says it only once, as JSON. A password stands in it as a hash.
    pub(crate) request: Option<&'a str>,
    /// The ways to confirm it. One of them is enough, completed in the order of its stages.
    pub(crate) flows: &'a [Flow],
}

/// One way to confirm something: its stages, in the order in which they must be completed.
pub(crate) type Flow = Vec<AuthType>;

impl<'a> Demand<'a> {
    /// What an operation demands of somebody who is not logged in and need not ask for the same each time.
    pub(crate) fn new(operation: &'static str, flows: &'a [Flow], address: IpAddr) -> Self {
        Self { operation, address, user_id: None, params: "", request: None, flows }
    }

    /// The flow of which nothing is left to do, if there is one.
    fn find_complete(&self, completed: &[Completed]) -> Option<&'a Flow> {
        self.flows.iter().find(|flow| flow.iter().all(|stage| is_completed(completed, stage)))
    }

    /// Whether a stage comes next in any of the flows.
    fn allows(&self, completed: &[Completed], stage: &AuthType) -> bool {
        let next = |flow: &'a Flow| flow.iter().find(|stage| !is_completed(completed, stage));
        self.flows.iter().filter_map(next).any(|next| next == stage)
    }

    fn has_stage(&self, stage: &AuthType) -> bool {
        self.flows.iter().flatten().any(|known| known == stage)
    }
}

fn is_completed(completed: &[Completed], stage: &AuthType) -> bool {
    completed.iter().any(|done| done.stage == *stage)
}

/// What came of an attempt.
pub(crate) enum Verdict {
    /// Every stage of one of the flows is completed.
    Passed(Passed),
    /// There is more to do, or to do again.
    Continue(Box<UiaaInfo>),
}

/// What was shown on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) registration_token: Option<String>,
    /// That an e-mail address was proved, for this operation.
    pub(crate) proof: Option<Proof>,
    /// The session in which that was, unless it was one request.
    pub(crate) session_id: Option<String>,
}

/// A stage that was completed in a session, with what was shown in it. Kept as JSON in the session's row.
#[derive(Clone, Serialize, Deserialize)]
struct Completed {
    stage: AuthType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    registration_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proof: Option<Proof>,
}

/// Why a stage was not completed.
type StageError = StandardErrorBody;

impl Uia {
    /// `secret` is known to every node and to nobody else.
    pub(crate) fn new(
        (db, clock, random): (Db, Clock, Random),
        accounts: Accounts,
        terms: Terms,
        secret: &[u8],
        quotas: Quotas,
    ) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, b"requests to be confirmed").as_ref());
        Self { db, clock, random, accounts, terms, key, quotas }
    }

    /// Judges what a client sent as `auth`. Without a session it is judged all the same: many clients send the
    /// password at once.
    pub(crate) async fn authenticate(&self, demand: &Demand<'_>, auth: Option<&AuthData>) -> Result<Verdict> {
        let Some(auth) = auth else {
            return self.begin(demand, None).await;
        };
        let session = match auth.session() {
            Some(session_id) => self.find(session_id).await?,
            None => Some(self.new_session(demand)),
        };
        let Some(session) = session else {
            return self.begin(demand, Some(unknown_session())).await;
        };
        if !self.fits(demand, &session) {
            return Err(Error::forbidden("This authentication session was opened for another request: begin again"));
        }
        if let Some(request) = demand.request.filter(|request| session.request.as_deref() != Some(request)) {
            self.keep(&session.id, request).await?;
        }
        let completed: Vec<Completed> = serde_json::from_str(&session.completed).map_err(Error::broken)?;
        match self.attempt(demand, &completed, auth).await? {
            Ok(Some(stage)) => self.advance(demand, session, auth.session(), stage).await,
            Ok(None) => self.ask(demand, &session.id, &completed, None),
            Err(refusal) if auth.session().is_some() => self.ask(demand, &session.id, &completed, Some(refusal)),
            Err(refusal) => self.begin(demand, Some(refusal)).await,
        }
    }

    /// What was asked for in a session that is not over, where it need not be said again.
    pub(crate) async fn find_request(&self, operation: &str, session_id: &str) -> Result<Option<String>> {
        let session = self.find(session_id).await?.filter(|session| session.operation == operation);
        Ok(session.and_then(|session| session.request))
    }

    /// Removes sessions that nobody came back to. To be called now and then.
    pub(crate) async fn clear_expired(&self) -> Result<()> {
        let mut tx = self.db.begin().await?;
        uia::delete_expired(&mut tx, self.expiry()).await?;
        Ok(tx.commit().await?)
    }

    /// Opens a session, in which nothing is completed yet.
    async fn begin(&self, demand: &Demand<'_>, refusal: Option<StageError>) -> Result<Verdict> {
        let session = self.new_session(demand);
        self.insert(&session).await?;
        self.ask(demand, &session.id, &[], refusal)
    }

    /// Answers what is left to do, and where the documents are that have to be accepted.
    fn ask(
        &self,
        demand: &Demand<'_>,
        session_id: &str,
        completed: &[Completed],
        refusal: Option<StageError>,
    ) -> Result<Verdict> {
        let mut info = UiaaInfo::new(demand.flows.iter().cloned().map(AuthFlow::new).collect());
        info.completed = completed.iter().map(|done| done.stage.clone()).collect();
        // Clients look inside even where no stage needs any.
        let terms = demand.has_stage(&AuthType::Terms).then(|| (AuthType::Terms.to_string(), self.terms.params()));
        let params: BTreeMap<_, _> = terms.into_iter().collect();
        info.params = Some(to_raw_value(&params).map_err(Error::broken)?);
        info.session = Some(session_id.to_owned());
        info.auth_error = refusal.map(Box::new);
        Ok(Verdict::Continue(Box::new(info)))
    }

    /// Takes note of a completed stage, or lets go on whoever has completed a flow with it. The stage that completes
    /// one is not written down: it has to be shown by whoever sends the request again.
    async fn advance(
        &self,
        demand: &Demand<'_>,
        mut session: UiaSession,
        known_as: Option<&str>,
        stage: Completed,
    ) -> Result<Verdict> {
        let mut completed: Vec<Completed> = serde_json::from_str(&session.completed).map_err(Error::broken)?;
        completed.push(stage.clone());
        if let Some(flow) = demand.find_complete(&completed) {
            return Ok(passed(known_as, flow, completed));
        }
        if known_as.is_none() {
            session.completed = to_json(&completed)?;
            self.insert(&session).await?;
            return self.ask(demand, &session.id, &completed, None);
        }
        let mut tx = self.db.begin().await?;
        let Some(current) = uia::lock(&mut tx, &session.id, self.expiry()).await? else {
            drop(tx);
            return self.begin(demand, Some(unknown_session())).await;
        };
        let mut completed: Vec<Completed> = serde_json::from_str(&current.completed).map_err(Error::broken)?;
        if !is_completed(&completed, &stage.stage) {
            completed.push(stage);
        }
        // Another request may have completed the rest of a flow at the same time.
        if let Some(flow) = demand.find_complete(&completed) {
            return Ok(passed(known_as, flow, completed));
        }
        uia::set_completed(&mut tx, &session.id, &to_json(&completed)?).await?;
        tx.commit().await?;
        self.ask(demand, &session.id, &completed, None)
    }

    /// The stage that `auth` completes; none if it only asks how things stand.
    async fn attempt(
        &self,
        demand: &Demand<'_>,
        completed: &[Completed],
        auth: &AuthData,
    ) -> Result<Result<Option<Completed>, StageError>> {
        let Some(stage) = auth.auth_type().filter(|stage| !is_completed(completed, stage)) else {
            return Ok(Ok(None));
        };
        if !demand.allows(completed, &stage) {
            return Ok(Err(refusal(ErrorKind::Forbidden, "This is not a stage that comes next: see the flows")));
        }
        let mut done = Completed { stage, registration_token: None, proof: None };
        match auth {
            AuthData::Password(password) => {
                if let Err(refusal) = self.check_password(demand, password).await? {
                    return Ok(Err(refusal));
                }
            }
            AuthData::EmailIdentity(given) => {
                done.proof = self.find_proof(demand, &given.thirdparty_id_creds).await?;
                if done.proof.is_none() {
                    let message = "The address has not been confirmed yet: follow the link in the mail";
                    return Ok(Err(refusal(ErrorKind::ThreepidAuthFailed, message)));
                }
            }
            AuthData::RegistrationToken(given) => {
                if !self.accounts.is_registration_token_usable(&given.token).await? {
                    let message = "This registration token is not known, is used up or has expired";
                    return Ok(Err(refusal(ErrorKind::Forbidden, message)));
                }
                done.registration_token = Some(given.token.clone());
            }
            AuthData::Terms(given) if given.session.is_none() => {
                let message = "Read the documents first: `params` says where they are";
                return Ok(Err(refusal(ErrorKind::Forbidden, message)));
            }
            AuthData::Dummy(_) | AuthData::Terms(_) => {}
            _ => return Ok(Err(refusal(ErrorKind::Unrecognized, "This server has no such stage: see the flows"))),
        }
        Ok(Ok(Some(done)))
    }

    /// Where the link in a mail was followed, for this operation and none else.
    async fn find_proof(&self, demand: &Demand<'_>, given: &ThirdpartyIdCredentials) -> Result<Option<Proof>> {
        let Some(operation) = Operation::find(demand.operation) else { return Ok(None) };
        let mut conn = self.db.read().await?;
        let now = self.clock.now().get().into();
        threepid::find_proof(&mut conn, operation, &given.sid, &given.client_secret, now).await
    }

    /// It must be the password of the user who is asking, whomever the client names.
    ///
    /// Whoever names somebody else is refused for good, whatever the password: it is not looked at.
    async fn check_password(&self, demand: &Demand<'_>, given: &Password) -> Result<Result<(), StageError>> {
        if let (Some(user_id), Some(name)) = (demand.user_id, LoginIdentifier::of(&given.identifier))
            && self.accounts.is_name_of_another(user_id, name)
        {
            return Err(Error::forbidden("It takes your own password to do this, not that of somebody else"));
        }
        let right = match (demand.user_id, LoginIdentifier::of(&given.identifier)) {
            (Some(user_id), Some(name)) => {
                self.accounts.is_password_of(user_id, name, &given.password, demand.address).await?
            }
            _ => false,
        };
        Ok(if right { Ok(()) } else { Err(refusal(ErrorKind::Forbidden, "The user name or the password is wrong")) })
    }

    fn new_session(&self, demand: &Demand<'_>) -> UiaSession {
        UiaSession {
            id: self.random.token(SESSION_ID_LENGTH),
            user_id: demand.user_id.map(ToOwned::to_owned),
            operation: demand.operation.to_owned(),
            params: self.hash(demand.params),
            completed: "[]".to_owned(),
            request: demand.request.map(ToOwned::to_owned),
        }
    }

    /// Whether a session is of what is demanded now.
    fn fits(&self, demand: &Demand<'_>, session: &UiaSession) -> bool {
        session.operation == demand.operation
            && session.user_id.as_deref() == demand.user_id
            && session.params == self.hash(demand.params)
    }

    /// Keyed, so that nobody with a copy of the database can try passwords by it.
    fn hash(&self, params: &str) -> String {
        Base64::<UrlSafe, _>::new(hmac::sign(&self.key, params.as_bytes()).as_ref()).encode()
    }

    async fn find(&self, session_id: &str) -> Result<Option<UiaSession>> {
        let mut conn = self.db.read().await?;
        Ok(uia::find(&mut conn, session_id, self.expiry()).await?)
    }

    /// Replaces what was asked for before by what this request asks for.
    async fn keep(&self, session_id: &str, request: &str) -> Result<()> {
        let mut tx = self.db.begin().await?;
        uia::set_request(&mut tx, session_id, request).await?;
        Ok(tx.commit().await?)
    }

    async fn insert(&self, session: &UiaSession) -> Result<()> {
        let mut tx = self.db.begin().await?;
        if let Some(user_id) = &session.user_id {
            account::lock(&mut tx, user_id).await?;
        }
        uia::insert(&mut tx, session, self.clock.now().get().into()).await?;
        if let Some(user_id) = &session.user_id
            && let Some(most) = self.quotas.find(user_id, |quotas| quotas.authentications)
        {
            uia::delete_surplus(&mut tx, user_id, &session.id, most.into()).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Sessions opened until then have expired, in milliseconds since the Unix epoch.
    fn expiry(&self) -> i64 {
        i64::from(self.clock.now().get()).saturating_sub(millis(LIFETIME))
    }
}

/// What was shown in the stages of a flow, and the session, if the client knows it. What was shown for another flow
/// that was given up counts for nothing, and is not used up.
fn passed(session_id: Option<&str>, flow: &Flow, completed: Vec<Completed>) -> Verdict {
    let passed = Passed { session_id: session_id.map(ToOwned::to_owned), ..Passed::default() };
    let shown = completed.into_iter().filter(|done| flow.contains(&done.stage));
    Verdict::Passed(shown.fold(passed, |passed, done| Passed {
        registration_token: passed.registration_token.or(done.registration_token),
        proof: passed.proof.or(done.proof),
        ..passed
    }))
}

fn to_json(completed: &[impl Serialize]) -> Result<String> {
    serde_json::to_string(completed).map_err(Error::broken)
}

fn unknown_session() -> StageError {
    refusal(ErrorKind::Unknown, "This authentication session has ended or expired: here is a new one")
}

fn refusal(kind: ErrorKind, message: &str) -> StageError {
    StandardErrorBody::new(kind, message.to_owned())
}
