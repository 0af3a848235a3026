//! Deactivating an account, for good.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate>

use ruma::UserId;

use super::Accounts;
use crate::{
    db::Tx,
    error::Result,
    store::{
        account, delayed_event,
        device::{self, Which},
        filter, profile, threepid, token, uia, user_directory,
    },
};

impl Accounts {
    /// Nobody logs in to this account again or finds it, and nobody else gets its name. With `erase` also what it told
    /// of itself is gone, and the password with which its owner could still be told what happened.
    ///
    /// The user's rooms are left by whoever calls this, and their addresses withdrawn from identity servers: where that
    /// has to be done is remembered until it is.
    pub(crate) async fn deactivate(&self, user_id: &UserId, erase: bool) -> Result<()> {
        let mut tx = self.0.db.begin().await?;
        self.deactivate_within(&mut tx, user_id, erase).await?;
        tx.commit().await?;
        self.devices_changed(user_id).await;
        Ok(())
    }

    /// What there is to do in the database. May be done again, for instance to erase after all.
    pub(super) async fn deactivate_within(&self, tx: &mut Tx, user_id: &UserId, erase: bool) -> Result<()> {
        let account = account::lock(tx, user_id).await?.ok_or_else(super::no_such_user)?;
        if !account.deactivated {
            account::deactivate(tx, user_id, self.now()).await?;
        }
        device::delete(tx, user_id, Which::All).await?;
        token::delete_orphans(tx, user_id).await?;
        token::delete_login_tokens(tx, user_id).await?;
        token::delete_openid_tokens(tx, user_id).await?;
        uia::delete_of_user(tx, user_id).await?;
        filter::delete_all(tx, user_id).await?;
        delayed_event::delete_of_user(tx, user_id).await?;
        threepid::forget_resets(tx, user_id).await?;
        threepid::delete_of_user(tx, user_id).await?;
        if erase {
            account::erase(tx, user_id).await?;
            profile::delete_all(tx, user_id).await?;
        }
        Ok(user_directory::remove(tx, user_id).await?)
    }
}
