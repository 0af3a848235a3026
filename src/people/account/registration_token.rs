//! Registration tokens: invitations that the operator hands out.
//!
//! How often a token was used is counted in the transaction that makes the account, so two people can't share its last
//! use.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#token-authenticated-registration>

use super::Accounts;
use crate::{
    error::Result,
    store::registration::{self, RegistrationToken},
};

/// Of 62 characters: short enough to be typed, and 95 bits.
const LENGTH: usize = 16;

/// What the specification allows.
const MAX_LENGTH: usize = 64;

impl Accounts {
    /// A new token for so many accounts, until a time in milliseconds since the Unix epoch.
    pub(crate) async fn create_registration_token(&self, uses: Option<i64>, expires_ts: Option<i64>) -> Result<String> {
        let token = self.0.random.token(LENGTH);
        let mut tx = self.0.db.begin().await?;
        registration::insert_token(&mut tx, &token, uses, expires_ts).await?;
        tx.commit().await?;
        Ok(token)
    }

    /// Every registration token, also those that are used up or have expired.
    pub(crate) async fn list_registration_tokens(&self) -> Result<Vec<RegistrationToken>> {
        Ok(registration::list_tokens(&mut self.0.db.read().await?).await?)
    }

    /// Ends a registration token for whoever has not registered with it yet, or says false where there is none.
    pub(crate) async fn revoke_registration_token(&self, token: &str) -> Result<bool> {
        let mut tx = self.0.db.begin().await?;
        let revoked = registration::delete_token(&mut tx, token).await?;
        tx.commit().await?;
        Ok(revoked)
    }

    /// Whether the token would let somebody register now. Only registering uses it.
    pub(crate) async fn is_registration_token_usable(&self, token: &str) -> Result<bool> {
        let opaque = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        if token.is_empty() || token.len() > MAX_LENGTH || !token.bytes().all(opaque) {
            return Ok(false);
        }
        let mut conn = self.0.db.read().await?;
        Ok(registration::is_usable(&mut conn, token, self.now()).await?)
    }
}
