//! `OpenID` tokens: with one, somebody proves to a third party who they are, which asks this server about it.
//!
//! Such a token is good for that one question and gives no access. It is stored as a hash, as all tokens are, and ends
//! with the session that has asked for it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#openid>

use std::time::Duration;

use ruma::{DeviceId, OwnedUserId, UserId};

use super::{Accounts, after, session::hold_session};
use crate::{
    error::Result,
    store::{
        account,
        token::{self, TokenHash},
    },
};

/// How long such a token proves anything.
pub(crate) const OPENID_TOKEN_LIFETIME: Duration = Duration::from_hours(1);

impl Accounts {
    /// A token that proves to others who this user is. It opens nothing here.
    pub(crate) async fn create_openid_token(&self, user_id: &UserId, device_id: &DeviceId) -> Result<String> {
        let (token, hash) = self.new_token("hoi");
        let expires_ts = after(self.now(), OPENID_TOKEN_LIFETIME);
        let mut tx = self.0.db.begin().await?;
        account::lock(&mut tx, user_id).await?;
        hold_session(&mut tx, user_id, device_id).await?;
        token::insert_openid_token(&mut tx, &hash, user_id, device_id, expires_ts).await?;
        if let Some(most) = self.0.settings.quotas.find(user_id, |quotas| quotas.openid_tokens) {
            token::delete_surplus_openid_tokens(&mut tx, user_id, &hash, most.into()).await?;
        }
        tx.commit().await?;
        Ok(token)
    }

    /// Whose token this is, while it lasts.
    pub(crate) async fn find_openid_user(&self, token: &str) -> Result<Option<OwnedUserId>> {
        let mut conn = self.0.db.read().await?;
        Ok(token::find_openid_user(&mut conn, &TokenHash::of(token), self.now()).await?)
    }
}
