//! Ending a device on which nobody is logged in, as a dehydrated one is.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/3814>

use ruma::{DeviceId, UserId};

use super::{Accounts, last_words::End};
use crate::{db::Tx, error::Result, event::fact::Fact, store::device::DeviceSelection};

impl Accounts {
    /// Ends a device of a locked account with its keys and whatever waits for it, and returns the entries by which others
    /// hear of that.
    pub(crate) async fn end_unseen_device(
        &self,
        tx: &mut Tx,
        user_id: &UserId,
        device_id: &DeviceId,
    ) -> Result<Vec<Fact>> {
        let ids = [device_id.as_str()];
        let ended = self.end_sessions(tx, user_id, DeviceSelection::These(&ids), End::ByItself).await?;
        Ok(ended.keys.into_facts(user_id).collect())
    }
}
