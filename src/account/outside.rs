//! What the operator does to accounts from the command line, beside running nodes. It is in the database at once; that
//! the nodes forget what they remember of the account is left to one of them as an errand, and taken up within a second.

use ruma::{DeviceId, OwnedUserId, UserId};

use super::{
    Accounts, Restriction,
    login::{deactivated, set_password},
    no_such_user,
};
use crate::{
    db::Tx,
    error::{Error, Result},
    store::{
        account::{self, Account},
        device::{self, Which},
        errand::{self, Errand, Kind},
        token,
    },
};

const ERRAND_ID_LENGTH: usize = 16;

impl Accounts {
    /// Restricts an account or frees it, also an administrator's.
    pub(crate) async fn restrict_from_outside(
        &self,
        user_id: &UserId,
        restriction: Restriction,
        restricted: bool,
    ) -> Result<()> {
        let mut tx = self.0.db.begin().await?;
        alive(account::lock(&mut tx, user_id).await?)?;
        account::restrict(&mut tx, user_id, restriction, restricted.then(|| self.now())).await?;
        self.leave(&mut tx, Kind::Account, user_id).await?;
        Ok(tx.commit().await?)
    }

    /// Gives a user another password and, unless they are to be kept, ends every session.
    pub(crate) async fn reset_password_from_outside(
        &self,
        user_id: &UserId,
        password: &str,
        keep_sessions: bool,
    ) -> Result<()> {
        let hash = self.0.passwords.hash(password).await?;
        let mut tx = self.0.db.begin().await?;
        users(alive(account::lock(&mut tx, user_id).await?)?, "A guest has no password")?;
        set_password(&mut tx, user_id, &hash).await?;
        if !keep_sessions {
            end_sessions(&mut tx, user_id, Which::All).await?;
        }
        self.leave(&mut tx, Kind::Account, user_id).await?;
        Ok(tx.commit().await?)
    }

    /// Makes a user an administrator, or an administrator a user. False where nothing was to be changed.
    pub(crate) async fn set_admin_from_outside(&self, user_id: &UserId, admin: bool) -> Result<bool> {
        let mut tx = self.0.db.begin().await?;
        let account = users(alive(account::lock(&mut tx, user_id).await?)?, "A guest is no administrator")?;
        account::set_admin(&mut tx, user_id, admin).await?;
        self.leave(&mut tx, Kind::Account, user_id).await?;
        tx.commit().await?;
        Ok(account.admin != admin)
    }

    /// Ends the sessions of a user, or that on one device, and returns how many there were.
    pub(crate) async fn end_sessions_from_outside(
        &self,
        user_id: &UserId,
        device_id: Option<&DeviceId>,
    ) -> Result<u64> {
        let mut tx = self.0.db.begin().await?;
        account::lock(&mut tx, user_id).await?.ok_or_else(no_such_user)?;
        let these = device_id.map(|device_id| [device_id.as_str()]);
        let ended = end_sessions(&mut tx, user_id, these.as_ref().map_or(Which::All, |ids| Which::These(ids))).await?;
        self.leave(&mut tx, Kind::Account, user_id).await?;
        tx.commit().await?;
        Ok(ended)
    }

    /// Ends an account, see [`Accounts::deactivate`]. That its user leaves their rooms is left to a running node, too.
    pub(crate) async fn deactivate_from_outside(&self, user_id: &UserId, erase: bool) -> Result<()> {
        let mut tx = self.0.db.begin().await?;
        self.deactivate_within(&mut tx, user_id, erase).await?;
        self.leave(&mut tx, Kind::Account, user_id).await?;
        self.leave(&mut tx, Kind::Departure, user_id).await?;
        Ok(tx.commit().await?)
    }

    /// Makes every node look an account up again that was changed from outside.
    pub(crate) async fn changed_from_outside(&self, user_id: &UserId) -> Result<()> {
        self.try_devices_changed(user_id).await
    }

    async fn leave(&self, tx: &mut Tx, kind: Kind, user_id: &UserId) -> Result<()> {
        let (id, user_id): (_, OwnedUserId) = (self.0.random.token(ERRAND_ID_LENGTH), user_id.to_owned());
        Ok(errand::insert(tx, kind, &Errand { id, user_id, body: None }, self.now()).await?)
    }
}

/// Ends sessions, and what could begin new ones without the password.
async fn end_sessions(tx: &mut Tx, user_id: &UserId, which: Which<'_>) -> Result<u64> {
    let ended = device::delete(tx, user_id, which).await?;
    token::delete_orphans(tx, user_id).await?;
    if matches!(which, Which::All) {
        token::delete_login_tokens(tx, user_id).await?;
    }
    Ok(ended)
}

fn alive(account: Option<Account>) -> Result<Account> {
    let account = account.ok_or_else(no_such_user)?;
    if account.deactivated { Err(deactivated()) } else { Ok(account) }
}

fn users(account: Account, otherwise: &str) -> Result<Account> {
    if account.guest { Err(Error::forbidden(format!("{otherwise}: they have to register first"))) } else { Ok(account) }
}
