//! Logins that fail, for the log and for the metrics: operators look for them there, and so do programs that shut
//! addresses out.
//!
//! Passwords and tokens are not told, and neither is what was given as a name unless it could be one here: some people
//! type their password there.

use std::net::IpAddr;

use super::{Accounts, Named, localpart, login, restriction};
use crate::{config::is_localpart, error::Error, metrics::LoginFailure, threepid::EmailAddress};

/// What the lines about logins are filtered by, in `log.level` and by those programs.
pub(super) const LOGIN: &str = "hearth::login";

impl Accounts {
    /// Notes that somebody could not log in, and returns what they hear.
    pub(super) fn login_failed(&self, user: Option<&str>, address: IpAddr, why: LoginFailure) -> Error {
        self.0.metrics.login_failed(why);
        tracing::info!(target: LOGIN, user, %address, reason = why.as_str(), "a login failed");
        match why {
            LoginFailure::NoSuchUser | LoginFailure::WrongPassword | LoginFailure::NotConfirmed => login::wrong(),
            LoginFailure::InvalidToken => login::invalid_token(),
            LoginFailure::Deactivated => login::deactivated(),
            LoginFailure::Locked => restriction::locked(),
            LoginFailure::WrongSecret => {
                Error::forbidden("The mac is wrong: check the shared secret and the order of the fields")
            }
        }
    }

    /// Who was to log in, where that is the name of nobody; none if nobody here can be called so.
    pub(super) fn claimed(&self, name: Named<'_>) -> Option<String> {
        match name {
            Named::User(name) => {
                let user_id = localpart::meant(name, &self.0.server_name)?;
                let is_name =
                    user_id.as_str().len() <= localpart::MAX_USER_ID_BYTES && is_localpart(user_id.localpart());
                is_name.then(|| user_id.to_string())
            }
            Named::Email(email) => EmailAddress::parse(email).ok().map(|email| email.as_str().to_owned()),
        }
    }
}
