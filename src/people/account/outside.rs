//! What the operator does to accounts from the command line, beside running nodes. It is in the database at once; that
//! the nodes forget what they remember of the account is left to one of them as an errand, and taken up within a
//! second.
//!
//! The command line writes no log, which takes a node with a committer; where events are judged by what it changes, it
//! takes the log's lock. So these acts differ from those of a request in nothing but how nodes are notified.

use ruma::{DeviceId, UserId};

use super::{
    Accounts, Restriction,
    ended_keys::EndedKeys,
    last_words::End,
    login::{deactivated, set_password},
    no_such_user,
    session::EndedSessions,
};
use crate::{
    db::Tx,
    error::{Error, Result},
    event::fact::AccountChange,
    people::threepid::SecurityEvent,
    store::{
        account::{self, Account},
        device::DeviceSelection,
        erasure,
        errand::{self, Errand, ErrandKind},
        log, to_device,
    },
};

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
        self.leave(&mut tx, ErrandKind::Account, user_id).await?;
        Ok(tx.commit().await?)
    }

    /// Gives a user another password and, unless they are to be kept, ends every session.
    pub(crate) async fn reset_password_from_outside(
        &self,
        user_id: &UserId,
        password: &str,
        keep_sessions: bool,
    ) -> Result<()> {
        // No lock is held while it is hashed.
        let hash = self.0.passwords.hash(password).await?;
        let mut tx = self.0.db.begin().await?;
        users(alive(account::lock(&mut tx, user_id).await?)?, "A guest has no password")?;
        set_password(&mut tx, user_id, &hash).await?;
        self.report(&mut tx, user_id, SecurityEvent::PasswordSet, (None, None)).await?;
        let mut ended = EndedSessions::default();
        if !keep_sessions {
            ended = self.end_sessions(&mut tx, user_id, DeviceSelection::All, End::ThrownOut).await?;
        }
        self.leave_changed(&mut tx, user_id, &ended.keys).await?;
        self.commit_leaving(tx, user_id).await
    }

    /// Makes a user an administrator, or an administrator a user. False where nothing was to be changed.
    pub(crate) async fn set_admin_from_outside(&self, user_id: &UserId, admin: bool) -> Result<bool> {
        let mut tx = self.0.db.begin().await?;
        let account = users(alive(account::lock(&mut tx, user_id).await?)?, "A guest is no administrator")?;
        account::set_admin(&mut tx, user_id, admin).await?;
        self.leave(&mut tx, ErrandKind::Account, user_id).await?;
        tx.commit().await?;
        Ok(account.admin != admin)
    }

    /// Ends the sessions of a user, or that on one device, and returns how many there were.
    pub(crate) async fn end_sessions_from_outside(
        &self,
        user_id: &UserId,
        device_id: Option<&DeviceId>,
    ) -> Result<usize> {
        let mut tx = self.0.db.begin().await?;
        account::lock(&mut tx, user_id).await?.ok_or_else(no_such_user)?;
        let these = device_id.map(|device_id| [device_id.as_str()]);
        let which = these.as_ref().map_or(DeviceSelection::All, |ids| DeviceSelection::These(ids));
        let ended = self.end_sessions(&mut tx, user_id, which, End::ThrownOut).await?;
        self.leave_changed(&mut tx, user_id, &ended.keys).await?;
        self.commit_leaving(tx, user_id).await?;
        Ok(ended.count)
    }

    /// Ends an account, see [`Accounts::deactivate`]. That its user leaves their rooms is left to a running node.
    pub(crate) async fn deactivate_from_outside(&self, user_id: &UserId, erase: bool) -> Result<()> {
        let mut tx = self.0.db.begin().await?;
        let (_, keys) = self.deactivate_within(&mut tx, user_id, erase).await?;
        self.leave_changed(&mut tx, user_id, &keys).await?;
        // Who joins a room is judged by whether they have an account.
        self.commit_leaving(tx, user_id).await
    }

    /// Makes every node look an account up again that was changed from outside.
    pub(crate) async fn changed_from_outside(&self, user_id: &UserId) -> Result<()> {
        self.commit_from_outside(self.0.db.begin().await?, user_id, EndedKeys::default()).await
    }

    /// Does the errand by which every node looks an account up again.
    pub(crate) async fn take_up(&self, errand: &Errand) -> Result<()> {
        let mut tx = self.0.db.begin().await?;
        errand::delete(&mut tx, errand).await?;
        let keys = EndedKeys::of_errand(errand.body.as_deref())?;
        self.commit_from_outside(tx, &errand.user_id, keys).await
    }

    /// Whoever has been erased is so from then on, also where it takes a while until they have left their rooms.
    async fn commit_from_outside(&self, mut tx: Tx, user_id: &UserId, keys: EndedKeys) -> Result<()> {
        let is_unlogged = erasure::is_unlogged(&mut tx, user_id).await?;
        let erased = is_unlogged.then(|| AccountChange::Erased(user_id.to_owned()));
        self.commit_with(tx, user_id, keys, erased).await
    }

    /// Commits between two batches, as if it were one, what may have ended devices of a user: whatever was sent to those is
    /// nobody's, and not that of a device of the same name that there may be before the errand is taken up.
    pub(super) async fn commit_leaving(&self, mut tx: Tx, user_id: &UserId) -> Result<()> {
        // Last, because nobody writes while this has the log's lock.
        log::lock(&mut tx).await?;
        let end = log::last_position(&mut tx).await?;
        to_device::settle_ended(&mut tx, user_id, end).await?;
        Ok(tx.commit().await?)
    }

    /// Leaves word that every node has to look an account up again, and which of its keys have ended.
    pub(super) async fn leave_changed(&self, tx: &mut Tx, user_id: &UserId, keys: &EndedKeys) -> Result<()> {
        let (kind, body) = (ErrandKind::Account, keys.to_errand()?);
        errand::leave(tx, &self.0.random, kind, (user_id, body), self.now()).await?;
        Ok(())
    }

    /// Leaves an errand for the user, in the transaction of what it follows from.
    pub(super) async fn leave(&self, tx: &mut Tx, kind: ErrandKind, user_id: &UserId) -> Result<Errand> {
        Ok(errand::leave(tx, &self.0.random, kind, (user_id, None), self.now()).await?)
    }
}

/// Refuses where there is no account any more to be changed.
fn alive(account: Option<Account>) -> Result<Account> {
    let account = account.ok_or_else(no_such_user)?;
    if account.deactivated { Err(deactivated()) } else { Ok(account) }
}

/// Refuses a guest; `otherwise` says why.
fn users(account: Account, otherwise: &str) -> Result<Account> {
    if account.guest { Err(Error::forbidden(format!("{otherwise}: they have to register first"))) } else { Ok(account) }
}
