//! That somebody reads what is sent to an address: good for one operation, once.
//!
//! A proof is used in the transaction of what it is used for, so that either both happen or neither. How long it is
//! good counts from when the link was followed.

use std::time::Duration;

use ruma::{ClientSecret, SessionId, api::error::ErrorKind};
use serde::{Deserialize, Serialize};

use crate::{
    db::Conn,
    error::{Error, Result},
    ground::clock::millis,
    store::{
        threepid::{self as store, Threepid, ValidationSession},
        token::TokenHash,
    },
};

/// How long a session can be completed after it began, and used after it was completed.
pub(super) const LIFETIME: Duration = Duration::from_hours(24);

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

    /// None for what a later release has written down.
    pub(crate) fn find(name: &str) -> Option<Self> {
        [Self::Register, Self::AddThreepid, Self::ResetPassword]
            .into_iter()
            .find(|operation| operation.as_str() == name)
    }
}

/// That an address was proved, to be used once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proof(pub(super) String);

/// What a client can show for an operation, if the session that it names has been completed.
pub(crate) async fn find_proof(
    conn: &mut Conn,
    operation: Operation,
    sid: &SessionId,
    client_secret: &ClientSecret,
    now: i64,
) -> Result<Option<Proof>> {
    let session = store::find_session(conn, sid.as_str(), &hash_secret(client_secret.as_str())?).await?;
    let proves = |session: &ValidationSession| {
        session.operation == operation.as_str() && session.validated_ts.is_some() && is_fresh(session, now)
    };
    Ok(session.filter(proves).map(|session| Proof(session.sid)))
}

/// The address that a proof is about, which stays good for use: its medium, and itself.
pub(crate) async fn check_proof(
    conn: &mut Conn,
    proof: &Proof,
    operation: Operation,
    now: i64,
) -> Result<(String, String)> {
    let found = store::find_validated(conn, &proof.0, operation.as_str(), before(now, LIFETIME)).await?;
    found.ok_or_else(unproved)
}

/// Uses a proof, once, and returns what it proves.
pub(crate) async fn use_proof(conn: &mut Conn, proof: &Proof, operation: Operation, now: i64) -> Result<Threepid> {
    let taken = store::take_validated(conn, &proof.0, operation.as_str(), before(now, LIFETIME), now).await?;
    let (medium, address, validated_ts) = taken.ok_or_else(unproved)?;
    Ok(Threepid { medium, address, validated_ts, added_ts: now })
}

/// The answer to whoever has not followed the link yet.
pub(crate) fn unproved() -> Error {
    let message = "This address has not been confirmed for this: follow the link in the mail first";
    Error::refused(ErrorKind::ThreepidAuthFailed, message)
}

/// Counted from its beginning or, once it was completed, from then.
pub(super) fn is_fresh(session: &ValidationSession, now: i64) -> bool {
    session.changed_ts > before(now, LIFETIME)
}

/// Only a hash of the client's secret is kept.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3registeremailrequesttoken>
pub(super) fn hash_secret(client_secret: &str) -> Result<TokenHash> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".=_-".contains(&byte);
    if client_secret.is_empty() || client_secret.len() > 255 || !client_secret.bytes().all(fits) {
        return Err(Error::invalid_param("`client_secret` is made of up to 255 of the characters 0-9a-zA-Z.=_-"));
    }
    Ok(TokenHash::of(client_secret))
}

/// `duration` before `now`, in milliseconds since the Unix epoch.
pub(super) fn before(now: i64, duration: Duration) -> i64 {
    now.saturating_sub(millis(duration))
}
