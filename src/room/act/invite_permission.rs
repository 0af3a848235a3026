//! Whether somebody can be invited at all.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#invite-permission>
//!
//! It is looked at when somebody is invited, not when the event is committed: a setting that changes in between counts
//! from the next invitation on.

use ruma::{OwnedUserId, UserId, api::error::ErrorKind};

use crate::{
    error::{Error, Result},
    event::fact::{INVITE_PERMISSION, blocks_invites},
    room::Rooms,
    store,
};

impl Rooms {
    /// Refuses unless everybody can be invited by this server alone: they live on it and take invitations. `M_FORBIDDEN`
    /// for users of other servers, `M_INVITE_BLOCKED` for those who take no invitations. A user who does not exist passes: nobody
    /// learns here who has an account.
    pub(super) async fn check_invited(&self, users: &[OwnedUserId]) -> Result<()> {
        if users.is_empty() {
            return Ok(());
        }
        if let Some(stranger) = users.iter().find(|user| user.server_name() != self.server_name()) {
            let message = format!("{stranger} lives on another server, which has to sign the invitation: use /invite");
            return Err(Error::forbidden(message));
        }
        let users: Vec<&UserId> = users.iter().map(AsRef::as_ref).collect();
        let mut conn = self.0.db.read().await?;
        for (user, json) in store::account_data::list_global(&mut conn, &users, INVITE_PERMISSION).await? {
            if blocks_invites(&json) {
                return Err(Error::refused(ErrorKind::InviteBlocked, format!("{user} takes no invitations")));
            }
        }
        Ok(())
    }
}
