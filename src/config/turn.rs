//! Credentials for a TURN server that shares a secret with this one: a name that holds when they end, and its MAC.
//!
//! The scheme of <https://datatracker.ietf.org/doc/html/draft-uberti-behave-turn-rest-00>, which coturn and others
//! call `use-auth-secret`.
//!
//! Nothing is kept of them: the TURN server recomputes the MAC from the name and the shared secret, and refuses a name
//! whose time is over.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ruma::{MilliSecondsSinceUnixEpoch, UserId};

/// A TURN server.
pub(crate) struct Turn {
    uris: Vec<String>,
    /// The secret itself is not kept beside it.
    key: hmac::Key,
    lifetime: Duration,
}

/// What lets one user through for a while.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TurnCredentials {
    pub(crate) username: String,
    pub(crate) password: String,
}

impl Turn {
    /// None where no TURN server is configured. Both the addresses and the secret have to be set.
    pub(crate) fn find(config: &super::TurnConfig) -> Option<Self> {
        let secret = config.shared_secret.as_ref().filter(|_| !config.uris.is_empty())?;
        let uris = config.uris.iter().map(ToString::to_string).collect();
        Some(Self::new(uris, secret.expose(), Duration::from_secs(config.lifetime_seconds)))
    }

    /// `lifetime` counts in whole seconds.
    pub(crate) fn new(uris: Vec<String>, secret: &str, lifetime: Duration) -> Self {
        // TURN servers know no other digest for this.
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
        Self { uris, key, lifetime }
    }

    /// As the operator wrote them.
    pub(crate) fn uris(&self) -> &[String] {
        &self.uris
    }

    /// For how long credentials are good that are made now. Clients ask again before that is over.
    pub(crate) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// The name is `TIME:USER`, with the time at which it ends in seconds since the Unix epoch; the password is the
    /// base64 of the name's HMAC.
    pub(crate) fn credentials(&self, user_id: &UserId, now: MilliSecondsSinceUnixEpoch) -> TurnCredentials {
        let ends = u64::from(now.get()) / 1_000 + self.lifetime.as_secs();
        let username = format!("{ends}:{user_id}");
        let password = STANDARD.encode(hmac::sign(&self.key, username.as_bytes()));
        TurnCredentials { username, password }
    }
}

#[cfg(test)]
mod tests {
    use ruma::{UInt, user_id};

    use super::*;

    /// Checked against `printf 1767312000:@alice:example.org | openssl dgst -sha1 -hmac 'north wind' -binary | base64`.
    #[test]
    fn a_pass_is_what_turn_servers_expect() {
        let turn = Turn::new(vec!["turn:turn.example.org".to_owned()], "north wind", Duration::from_hours(24));
        let now = MilliSecondsSinceUnixEpoch(UInt::try_from(1_767_225_600_000_u64).unwrap());
        let credentials = turn.credentials(user_id!("@alice:example.org"), now);
        assert_eq!(credentials.username, "1767312000:@alice:example.org");
        assert_eq!(credentials.password, "6vcpoEST38aA8GYr7XHYGSzAlXY=");
    }
}
