//! Logins that fail, for the log and for the metrics: operators look for them there, and so do programs that shut
//! addresses out.
//!
//! Passwords and tokens are not logged, and neither is a name that nobody has: some people type their password there.

use std::net::IpAddr;

use ruma::UserId;

use super::{Accounts, login, restriction};
use crate::{edge::metrics::LoginFailure, error::Error};

impl Accounts {
    /// Notes that somebody could not log in, and returns what they are answered. `user`: who has the account that was
    /// meant, if anybody has.
    pub(super) fn login_failed(&self, user: Option<&str>, address: IpAddr, why: LoginFailure) -> Error {
        self.0.metrics.login_failed(why);
        tracing::info!(target: login::LOGIN, user, %address, reason = why.as_str(), "a login failed");
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

    /// Notes that a user who is logged in was asked for their password, and that what was given was not theirs.
    pub(super) fn confirmation_failed(&self, user_id: &UserId, address: IpAddr) {
        let (user, why) = (user_id.as_str(), LoginFailure::NotConfirmed);
        self.0.metrics.login_failed(why);
        tracing::info!(
            target: login::LOGIN,
            user,
            %address,
            reason = why.as_str(),
            "a password was asked for again and was wrong"
        );
    }
}
