//! Inviting people of whom only an address is known.
//!
//! An identity server says who they are, and then they are invited as everybody else is; or it keeps the invitation
//! for them, and the room holds the keys with which it will sign who they turned out to be.
//!
//! Other servers are asked before anything is written: a room is locked only when all that they say is known. The room
//! knows an invitation by what the identity server calls it, which writes its letter as soon as it is asked, so a letter
//! can't wait until the room has the invitation. Instead nobody is written to as long as anything is known that will be
//! refused.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#third-party-invites>

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::StatusCode;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedRoomId, OwnedUserId, RoomId, UserId,
    api::client::membership::{Invite3pid, ThirdPartySigned},
};
use tokio::time::{Instant, timeout_at};

use crate::{
    edge::identity::{IdentityServer, IdentityServers, StoredInvite},
    error::{Error, Result},
    people::threepid::canonical,
    room::{Invitation, NewRoom, Offer, OfferedKey, Rooms},
};

/// How many people are invited by their address when a room is made: a letter is written to each on the way.
const MAX_AT_ONCE: usize = 10;
/// For how long identity servers may keep somebody waiting who makes a room, altogether.
const PATIENCE: Duration = Duration::from_secs(30);

/// Invitations by address. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ThirdPartyInvites {
    rooms: Rooms,
    identity: IdentityServers,
}

/// Somebody who is to be invited, by an address of theirs.
struct Invitee<'a> {
    server: IdentityServer<'a>,
    token: &'a str,
    medium: &'a str,
    address: String,
}

impl ThirdPartyInvites {
    pub(crate) fn new(rooms: Rooms, identity: IdentityServers) -> Self {
        Self { rooms, identity }
    }

    /// Invites whoever an address belongs to. Returns them without that where they live on another server, which has to
    /// sign the invitation: the caller invites them.
    ///
    /// Only who may invite has anybody asked about, so that nobody else is written to.
    pub(crate) async fn invite(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        invite: &Invite3pid,
    ) -> Result<Option<OwnedUserId>> {
        let invitee = self.invitee(invite)?;
        let invitation = self.rooms.invitation(room_id, sender).await?;
        let known = invitee.server.lookup(invitee.token, &[invitee.address()]).await?;
        if let Some(user_id) = known.into_iter().flatten().next() {
            if user_id.server_name() != self.rooms.server_name() {
                return Ok(Some(user_id));
            }
            return self.rooms.invite(room_id, sender, &user_id, None).await.map(|()| None);
        }
        let offer = invitee.leave(&invitation).await?;
        self.rooms.offer(room_id, sender, &offer).await.map(|()| None)
    }

    /// Makes a room to which people are invited by their addresses. If one of them can't be, there is no room. Returns
    /// also those of all whom the room is to have who live on other servers, each once: the caller invites them.
    pub(crate) async fn create_room(
        &self,
        mut room: NewRoom,
        invites: &[Invite3pid],
    ) -> Result<(OwnedRoomId, Vec<OwnedUserId>)> {
        if invites.len() > MAX_AT_ONCE {
            let message =
                format!("At most {MAX_AT_ONCE} people are invited by address with a room: invite others later");
            return Err(Error::invalid_param(message));
        }
        let invitees = invites.iter().map(|invite| self.invitee(invite)).collect::<Result<Vec<_>>>()?;
        let until = Instant::now() + PATIENCE;
        let mut unknown = Vec::new();
        for (invitee, found) in in_time(until, find_users(invitees)).await? {
            match found {
                Some(user_id) => room.invite.push(user_id),
                None => unknown.push(invitee),
            }
        }
        let is_elsewhere = |user: &&OwnedUserId| user.server_name() != self.rooms.server_name();
        let elsewhere: BTreeSet<OwnedUserId> = room.invite.iter().filter(is_elsewhere).cloned().collect();
        let elsewhere = elsewhere.into_iter().collect();
        if unknown.is_empty() {
            return Ok((self.rooms.create(room).await?, elsewhere));
        }
        let leave = |invitation: Invitation| -> BoxFuture<'_, Result<Vec<Offer>>> {
            let left = async move {
                let mut offers = Vec::with_capacity(unknown.len());
                for invitee in &unknown {
                    offers.push(invitee.leave(&invitation).await?);
                }
                Ok(offers)
            };
            Box::pin(in_time(until, left))
        };
        Ok((self.rooms.create_with_offers(room, leave).await?, elsewhere))
    }

    /// Turns an invitation to an address into one to the user who an identity server says is behind it.
    ///
    /// The rules of the room check that the signature is by one of its keys; here it is checked that the key is still
    /// good.
    pub(crate) async fn accept(&self, room_id: &RoomId, user_id: &UserId, signed: &ThirdPartySigned) -> Result<()> {
        let signed = read_signed(signed, user_id)?;
        self.accept_signed(room_id, user_id, signed).await
    }

    /// [`Self::accept`] with the proof as it was signed.
    pub(crate) async fn accept_signed(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        signed: CanonicalJsonObject,
    ) -> Result<()> {
        self.check_signed(room_id, user_id, &signed).await?;
        self.rooms.redeem(room_id, user_id, signed).await
    }

    /// Refuses a proof that is not of this user, or not signed with a key that the room's offer names and that is still
    /// good.
    pub(crate) async fn check_signed(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        signed: &CanonicalJsonObject,
    ) -> Result<()> {
        if signed.get("mxid").and_then(CanonicalJsonValue::as_str) != Some(user_id.as_str()) {
            return Err(Error::forbidden("This invitation was signed for another user"));
        }
        let key = self.rooms.find_signing_key(room_id, signed).await?;
        if let Some(url) = &key.key_validity_url
            && !self.identity.is_key_valid(url, &key.public_key).await?
        {
            return Err(Error::forbidden("The key with which this invitation was signed has been revoked"));
        }
        Ok(())
    }

    fn invitee<'a>(&'a self, invite: &'a Invite3pid) -> Result<Invitee<'a>> {
        let server = self.identity.get(&invite.id_server)?;
        let address = canonical(&invite.medium, &invite.address)?;
        Ok(Invitee { server, token: &invite.id_access_token, medium: invite.medium.as_str(), address })
    }
}

/// What an identity server has signed for a user, with its signatures. `M_FORBIDDEN` where that is another user.
pub(crate) fn read_signed(signed: &ThirdPartySigned, user_id: &UserId) -> Result<CanonicalJsonObject> {
    if signed.mxid != user_id {
        return Err(Error::forbidden("This invitation was signed for another user"));
    }
    let signed = serde_json::to_value(signed).and_then(serde_json::from_value::<CanonicalJsonObject>);
    signed.map_err(|e| Error::bad_json(format!("`third_party_signed` can't be read: {e}")))
}

/// Whom the identity servers know. Each is asked once, in the name of each of its users.
async fn find_users(invitees: Vec<Invitee<'_>>) -> Result<Vec<(Invitee<'_>, Option<OwnedUserId>)>> {
    let mut together: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for invitee in invitees {
        together.entry((invitee.server.name().to_owned(), invitee.token)).or_default().push(invitee);
    }
    let mut found = Vec::new();
    for ((_, token), invitees) in together {
        let addresses: Vec<_> = invitees.iter().map(Invitee::address).collect();
        let Some(first) = invitees.first() else { continue };
        let users = first.server.lookup(token, &addresses).await?;
        found.extend(invitees.into_iter().zip(users));
    }
    Ok(found)
}

/// What identity servers answer until a time comes.
async fn in_time<T>(until: Instant, asked: impl Future<Output = Result<T>>) -> Result<T> {
    timeout_at(until, asked).await.unwrap_or_else(|_elapsed| {
        let message = "The identity servers took too long: try again later, or invite fewer people by their addresses";
        let (status, errcode) = (StatusCode::GATEWAY_TIMEOUT.as_u16(), "M_UNKNOWN".to_owned());
        Err(Error::Relayed { status, errcode, message: message.to_owned() })
    })
}

impl Invitee<'_> {
    /// With its medium.
    fn address(&self) -> (&str, &str) {
        (self.medium, &self.address)
    }

    /// Leaves the invitation with the identity server.
    async fn leave(&self, invitation: &Invitation) -> Result<Offer> {
        let stored = self.server.store_invite(self.token, self.medium, &self.address, invitation).await?;
        let StoredInvite { token, public_keys, display_name } = stored;
        let keys = public_keys
            .into_iter()
            .map(|key| OfferedKey { public_key: key.public_key, key_validity_url: Some(key.key_validity_url) });
        Ok(Offer { token, display_name, keys: keys.collect() })
    }
}
