//! Refreshing access tokens. A refresh token stays valid until one of the tokens that it was exchanged for
//! is used, so that a client to which the answer got lost can ask again; there is never more than one
//! unused successor.
//!
//! Lock order: the device's row, under which its tokens change. Each token is read once to find the device and again
//! under its lock.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#refreshing-access-tokens>

use ruma::{DeviceId, OwnedUserId, UserId};

use super::{
    Accounts,
    bearer::{unknown_access_token, unknown_token},
    session::Session,
};
use crate::{
    error::{Error, Result},
    store::{
        account, device,
        token::{self, TokenHash},
    },
};

impl Accounts {
    /// Whose refresh token this is, if it is anybody's.
    pub(crate) async fn find_refreshing(&self, refresh_token: &str) -> Result<Option<OwnedUserId>> {
        let known = token::find_refresh_token(&mut self.0.db.read().await?, &TokenHash::of(refresh_token)).await?;
        Ok(known.map(|known| known.user_id))
    }

    /// Exchanges a refresh token for a new pair. The access token that it replaces lives on until it expires.
    pub(crate) async fn refresh(&self, refresh_token: &str) -> Result<Session> {
        let hash = TokenHash::of(refresh_token);
        let mut tx = self.0.db.begin().await?;
        let known = token::find_refresh_token(&mut tx, &hash).await?.ok_or_else(unknown_refresh_token)?;
        let account = account::find(&mut tx, &known.user_id).await?.ok_or_else(unknown_refresh_token)?;
        account.restrictions.check_unlocked()?;
        device::lock(&mut tx, &known.user_id, &known.device_id).await?;
        // Again, now that nobody else is changing this device's tokens.
        let current = token::find_refresh_token(&mut tx, &hash).await?.ok_or_else(unknown_refresh_token)?;
        token::retire_predecessor(&mut tx, &current, self.now()).await?;
        if let Some(next) = &current.next
            && let Some(unused) = token::find_refresh_token(&mut tx, next).await?
        {
            token::withdraw(&mut tx, &unused).await?;
        }
        let tokens = self.issue_tokens(&mut tx, &current.user_id, &current.device_id, true).await?;
        if let Some((_, next)) = &tokens.refresh {
            token::set_next(&mut tx, &hash, next).await?;
        }
        tx.commit().await?;
        Ok(Session {
            user_id: current.user_id,
            device_id: current.device_id,
            access_token: tokens.access,
            refresh_token: tokens.refresh.map(|(token, _)| token),
            expires_in: tokens.expires_in,
        })
    }

    /// An access token that came from refreshing is used for the first time: the old refresh token ends.
    pub(super) async fn confirm_refresh(
        &self,
        access_token: &TokenHash,
        user_id: &UserId,
        device_id: &DeviceId,
    ) -> Result<()> {
        let mut tx = self.0.db.begin().await?;
        device::lock(&mut tx, user_id, device_id).await?;
        // Refreshing once more may have withdrawn it in the meantime.
        let beside = token::find_refresh_token_beside(&mut tx, user_id, device_id, access_token).await?;
        let beside = beside.ok_or_else(unknown_access_token)?;
        token::retire_predecessor(&mut tx, &beside, self.now()).await?;
        Ok(tx.commit().await?)
    }
}

fn unknown_refresh_token() -> Error {
    unknown_token(false, "This refresh token is not known or was used before: log in again")
}
