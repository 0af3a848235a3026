//! Registration by whoever knows the shared secret: scripts that set servers up, the way they do it with
//! Synapse.
//!
//! The nonce is used up before the MAC is looked at, so that nobody tries several MACs with one.
//!
//! <https://element-hq.github.io/synapse/latest/admin_api/register_api.html>

use std::{net::IpAddr, time::Duration};

use aws_lc_rs::hmac;

use ruma::{OwnedUserId, api::error::ErrorKind};

use super::{
    Accounts, after,
    register::Registration,
    session::{NewSession, Session},
};
use crate::{
    edge::metrics::LoginFailure,
    error::{Error, Result},
    store::registration,
};

/// In characters.
const NONCE_LENGTH: usize = 64;

const NONCE_LIFETIME: Duration = Duration::from_mins(1);

/// What the caller asks for and vouches for with `mac`.
pub(crate) struct SharedSecretRegistration<'a> {
    pub(crate) nonce: &'a str,
    pub(crate) username: &'a str,
    pub(crate) password: &'a str,
    pub(crate) admin: bool,
    pub(crate) user_type: Option<&'a str>,
    /// HMAC-SHA1 in hexadecimal, of the other fields joined by NUL.
    pub(crate) mac: &'a str,
    pub(crate) session: Option<NewSession>,
    pub(crate) address: IpAddr,
}

impl Accounts {
    /// A number to be used once, within a minute.
    pub(crate) async fn create_nonce(&self) -> Result<String> {
        self.shared_secret()?;
        let nonce = self.0.random.token(NONCE_LENGTH);
        let now = self.now();
        let mut tx = self.0.db.begin().await?;
        registration::insert_nonce(&mut tx, &nonce, now, after(now, NONCE_LIFETIME)).await?;
        tx.commit().await?;
        Ok(nonce)
    }

    /// Makes an account for whoever shows by `mac` that they know the secret.
    ///
    /// `M_UNKNOWN` for a nonce that is not good, or where this is switched off; `M_FORBIDDEN` for a mac that is wrong.
    /// No other permission is asked for: tokens, documents and proofs are for those who register by themselves.
    pub(crate) async fn register_with_shared_secret(
        &self,
        new: SharedSecretRegistration<'_>,
    ) -> Result<(OwnedUserId, Option<Session>)> {
        let secret = self.shared_secret()?;
        // Committed by itself: whatever comes of it, the nonce has been used.
        let mut tx = self.0.db.begin().await?;
        let fresh = registration::take_nonce(&mut tx, new.nonce, self.now()).await?;
        tx.commit().await?;
        if !fresh {
            return Err(unknown("This nonce is not known, was used before or has expired: GET another one"));
        }
        if !is_vouched_for(secret, &new) {
            return Err(self.login_failed(None, new.address, LoginFailure::WrongSecret));
        }
        let SharedSecretRegistration { password, admin, session, .. } = new;
        let user_id = self.check_username(new.username).await?;
        let user = user_id.clone();
        let registration = Registration {
            user_id: user,
            password_hash: self.hash_password(password).await?,
            admin,
            token: None,
            terms: None,
            proof: None,
            session,
            confirmed_in: None,
        };
        Ok((user_id, self.register(registration).await?))
    }

    /// The secret. An empty one is none: anybody would know it.
    fn shared_secret(&self) -> Result<&str> {
        let secret = self.0.settings.shared_secret.as_deref().filter(|secret| !secret.is_empty());
        secret.ok_or_else(|| {
            unknown("Registration with a shared secret is off: the operator can set registration.shared_secret")
        })
    }
}

/// Compares in constant time.
fn is_vouched_for(secret: &str, new: &SharedSecretRegistration<'_>) -> bool {
    let role = if new.admin { "admin" } else { "notadmin" };
    let fields = [new.nonce, new.username, new.password, role];
    // A NUL inside a field would let one field pass for two.
    if fields.into_iter().chain(new.user_type).any(|field| field.contains('\0')) {
        return false;
    }
    let mut message = fields.join("\0");
    if let Some(user_type) = new.user_type {
        message.extend(["\0", user_type]);
    }
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    from_hex(new.mac).is_some_and(|mac| hmac::verify(&key, message.as_bytes(), &mac).is_ok())
}

/// Bytes in hexadecimal, in whichever case.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

/// The mac that a client sends, for the tests of whoever needs an account.
#[cfg(test)]
pub(crate) fn mac(secret: &str, nonce: &str, username: &str, password: &str, admin: bool) -> String {
    use std::fmt::Write as _;

    let role = if admin { "admin" } else { "notadmin" };
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    let tag = hmac::sign(&key, [nonce, username, password, role].join("\0").as_bytes());
    tag.as_ref().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn unknown(message: &str) -> Error {
    Error::refused(ErrorKind::Unknown, message)
}
