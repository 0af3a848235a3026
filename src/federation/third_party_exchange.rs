//! Invitations to addresses, when it turns out whose these are: an identity server says so to the server of that user,
//! which has the server of who offered the invitation make a real one of it.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#third-party-invites>

use futures_util::{StreamExt as _, stream};
use ruma::{
    CanonicalJsonObject, OwnedRoomId, OwnedUserId, ServerName, UserId, events::room::member::SignedContent, serde::Raw,
};

use super::entrance::Entrance;
use crate::{
    error::{Error, Result},
    people::third_party_invite::ThirdPartyInvites,
    room::{Redemption, Rooms},
};

/// How many invitations of one address are looked at, and how many of them at once.
const MOST: usize = 50;
const AT_ONCE: usize = 4;

/// Invitations to addresses that concern two servers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ThirdPartyExchange {
    rooms: Rooms,
    invites: ThirdPartyInvites,
    entrance: Entrance,
}

/// What another server asks to have made an invitation.
#[derive(Debug)]
pub(crate) struct AskedInvite {
    pub(crate) room_id: OwnedRoomId,
    /// Who is said to have offered it.
    pub(crate) sender: OwnedUserId,
    pub(crate) user_id: OwnedUserId,
    /// What an identity server has signed.
    pub(crate) signed: CanonicalJsonObject,
}

/// An invitation of which an identity server says that it is for a user of this server.
#[derive(Debug)]
pub(crate) struct BoundInvite {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) sender: OwnedUserId,
    pub(crate) signed: Raw<SignedContent>,
}

impl ThirdPartyExchange {
    pub(crate) fn new(rooms: Rooms, invites: ThirdPartyInvites, entrance: Entrance) -> Self {
        Self { rooms, invites, entrance }
    }

    /// Invites a user of another server who has proved that an address is theirs, in the name of the user of this server
    /// who offered it. Nothing happens where they are invited or in the room already.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1exchange_third_party_inviteroomid>
    pub(crate) async fn exchange(&self, from: &ServerName, asked: AskedInvite) -> Result<()> {
        let AskedInvite { room_id, sender, user_id, signed } = asked;
        if user_id.server_name() != from {
            return Err(Error::forbidden(format!("{user_id} is no user of {from}")));
        }
        self.rooms.get_for_handshake(&room_id, from).await?;
        self.invites.check_signed(&room_id, &user_id, &signed).await?;
        let Some(redemption) = self.rooms.redemption(&room_id, &user_id, &signed).await? else { return Ok(()) };
        let Redemption { sender: offering, content } = redemption;
        if offering != sender {
            return Err(Error::invalid_param(format!("{sender} has not offered this invitation")));
        }
        self.entrance.invite_elsewhere(&room_id, &offering, &user_id, content).await.map(drop)
    }

    /// Takes from an identity server that an address is a user's of this server. What becomes of each invitation is
    /// logged, since the identity server can't do anything about it.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv13pidonbind>
    pub(crate) async fn take_bound(&self, user_id: &UserId, invites: Vec<BoundInvite>) -> Result<()> {
        if user_id.server_name() != self.rooms.server_name() {
            return Err(Error::invalid_param(format!("{user_id} is no user of this server")));
        }
        self.rooms.check_invitee(user_id).await?;
        let redeemed = stream::iter(invites.into_iter().take(MOST)).map(|invite| async move {
            let room_id = invite.room_id.clone();
            if let Err(error) = self.redeem(user_id, invite).await {
                tracing::info!(%room_id, %error, "an invitation to an address was not redeemed");
            }
        });
        redeemed.buffer_unordered(AT_ONCE).collect::<()>().await;
        Ok(())
    }

    /// Has an invitation to an address made one to a user of this server: here, or by the server of who offered it.
    async fn redeem(&self, user_id: &UserId, invite: BoundInvite) -> Result<()> {
        let BoundInvite { room_id, sender, signed } = invite;
        let signed: CanonicalJsonObject = serde_json::from_str(signed.json().get())
            .map_err(|e| Error::bad_json(format!("`signed` can't be read: {e}")))?;
        if sender.server_name() == self.rooms.server_name() {
            return self.invites.accept_signed(&room_id, user_id, signed).await;
        }
        self.entrance.exchange(&room_id, &sender, user_id, signed).await
    }
}
