//! Deactivating an account, for good.
//!
//! Tokens, sessions, keys and their backups, filters, delayed events and addresses go in the transaction that ends the
//! account. Rooms are left afterwards, because there may be thousands: an errand sees to it even if this process ends. The
//! keys that backups hold are nobody's from then on, and upkeep removes them.
//!
//! Once the account is ended, nobody comes into a room with it, is invited or knocks, on whichever node: the log's judge
//! looks (`log/judge/account.rs`). So what there is to leave afterwards is all that there will ever be.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate>

use ruma::UserId;

use super::{Accounts, ended_keys::EndedKeys, last_words::End};
use crate::{
    db::Tx,
    error::Result,
    event::fact::AccountChange,
    store::{
        account, cross_signing, delayed_event,
        device::DeviceSelection,
        errand::{self, Errand, ErrandKind},
        filter, key_backup, profile, threepid, uia, user_directory,
    },
};

impl Accounts {
    /// Nobody logs in to this account again or finds it, and nobody else gets its name. With `erase` its profile goes
    /// too, and its password, with which its owner could still have learned what happened; and what they sent is
    /// redacted for whoever joins their rooms later.
    ///
    /// The user's rooms are left by whoever calls this, and their addresses withdrawn from identity servers: where that
    /// has to be done is remembered until it is. Returns the errand by which a node takes the user out of their rooms,
    /// should whoever calls this not get round to it; see [`Self::has_left_rooms`].
    pub(crate) async fn deactivate(&self, user_id: &UserId, erase: bool) -> Result<Errand> {
        let mut tx = self.0.db.begin().await?;
        let (departure, keys) = self.deactivate_within(&mut tx, user_id, erase).await?;
        let erased = erase.then(|| AccountChange::Erased(user_id.to_owned()));
        self.commit_with(tx, user_id, keys, erased).await?;
        Ok(departure)
    }

    /// The user has been taken out of their rooms: nobody else has to.
    pub(crate) async fn has_left_rooms(&self, departure: &Errand) -> Result<()> {
        let mut tx = self.0.db.begin().await?;
        errand::delete(&mut tx, departure).await?;
        Ok(tx.commit().await?)
    }

    /// What there is to do in the database, and an errand for the rest: whoever asked can't ask again, without a token.
    /// May be done again, for instance to erase after all. Returns the keys that have ended as well.
    pub(super) async fn deactivate_within(
        &self,
        tx: &mut Tx,
        user_id: &UserId,
        erase: bool,
    ) -> Result<(Errand, EndedKeys)> {
        let account = account::lock(tx, user_id).await?.ok_or_else(super::no_such_user)?;
        if !account.deactivated {
            account::deactivate(tx, user_id, self.now()).await?;
        }
        let mut ended = self.end_sessions(tx, user_id, DeviceSelection::All, End::ThrownOut).await?;
        if cross_signing::delete_all(tx, user_id).await? {
            ended.keys.0.push(None);
        }
        uia::delete_of_user(tx, user_id).await?;
        filter::delete_all(tx, user_id).await?;
        key_backup::mark_all_deleted(tx, user_id).await?;
        delayed_event::delete_of_user(tx, user_id).await?;
        threepid::forget_resets(tx, user_id).await?;
        threepid::delete_of_user(tx, user_id).await?;
        if erase {
            account::erase(tx, user_id).await?;
            profile::delete_all(tx, user_id).await?;
        }
        user_directory::remove(tx, user_id).await?;
        Ok((self.leave(tx, ErrandKind::Departure, user_id).await?, ended.keys))
    }
}
