//! Turning down invitations from outside, and taking back knocks.
//!
//! The user is rid of it at once, whether the room's servers can be reached or not: they are told afterwards, as far as
//! one of them answers. Rooms that are held here are left as ever.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#leaving-rooms-rejecting-invites>

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use ruma::{OwnedServerName, RoomId, ServerName, UserId, events::room::member::MembershipState};

use super::{
    Entrance,
    failures::{Failed, Failures},
    template::{self, Proposed, Wanted},
};
use crate::{
    error::Result,
    event::{Content, fact::OutsideState},
    room::Introduction,
};

/// For how long a client waits until another server knows it.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many rooms are left at once.
const ROOMS_AT_ONCE: usize = 8;

impl Entrance {
    /// Leaves a room, turns down an invitation, or takes back a knock.
    ///
    /// The errors are those of [`crate::room::Rooms::leave`].
    pub(crate) async fn leave(&self, room_id: &RoomId, user_id: &UserId, reason: Option<String>) -> Result<()> {
        let outside = self.0.rooms.find_outside_membership(room_id, user_id).await?;
        let is_present = outside.is_some_and(|outside| outside.state != OutsideState::Ended);
        let servers = if is_present && self.residents().is_on() {
            // While it is known who has invited them.
            self.candidates(room_id, user_id, &[]).await?
        } else {
            Vec::new()
        };
        self.0.rooms.leave(room_id, user_id, reason.clone()).await?;
        if servers.is_empty() {
            return Ok(());
        }
        let (entrance, user, room) = (self.clone(), user_id.to_owned(), room_id.to_owned());
        let telling = self.0.tasks.see_through("turning down an invitation", async move {
            if let Err(error) = entrance.leave_through_any(&user, &room, &servers, reason).await {
                tracing::info!(user_id = %user, room_id = %room, %error, "no server of the room knows that a user has left");
            }
        });
        if tokio::time::timeout(PATIENCE, telling).await.is_err() {
            tracing::debug!(%room_id, "the user does not wait until the room's servers know that they have left");
        }
        Ok(())
    }

    /// Takes somebody out of every room, as [`crate::room::Rooms::leave_all`] does, and has the servers of those outside
    /// know of it.
    pub(crate) async fn leave_all(&self, user_id: &UserId, reason: Option<&str>) -> Result<()> {
        let rooms = self.0.rooms.list_present_outside(user_id).await?;
        let left = stream::iter(rooms).map(|room_id| async move {
            if let Err(error) = self.leave(&room_id, user_id, reason.map(ToOwned::to_owned)).await {
                tracing::warn!(%room_id, %error, "an invitation could not be turned down");
            }
        });
        left.buffer_unordered(ROOMS_AT_ONCE).collect::<()>().await;
        // What is left of them is ended by this as well.
        self.0.rooms.leave_all(user_id, reason).await
    }

    async fn leave_through_any(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        servers: &[OwnedServerName],
        reason: Option<String>,
    ) -> Result<()> {
        let content: Content = reason.map(|reason| ("reason".to_owned(), reason.into())).into_iter().collect();
        let introduction = self.0.rooms.introduce(user_id, &MembershipState::Leave, content).await?;
        let mut failures = Failures::default();
        for server in servers {
            match self.leave_through(server, user_id, room_id, &introduction).await {
                Ok(()) => return Ok(()),
                Err(failed) => failures.note(server, failed)?,
            }
        }
        Err(failures.into_error())
    }

    async fn leave_through(
        &self,
        server: &ServerName,
        user_id: &UserId,
        room_id: &RoomId,
        introduction: &Introduction,
    ) -> Result<(), Failed> {
        let membership = &MembershipState::Leave;
        let template = self.residents().make(server, membership, room_id, user_id).await?;
        let proposed = template::read(server, &template, Wanted { room_id, user_id, membership })?;
        let Proposed { rules, place, .. } = proposed;
        let leave = self.0.rooms.sign_elsewhere(user_id, introduction, None, &place, rules)?;
        Ok(self.residents().send_leave(server, &leave).await?)
    }
}
