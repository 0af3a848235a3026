//! Inviting users of other servers, and being invited by one where somebody there has offered it to an address.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room>,
//! <https://spec.matrix.org/v1.19/server-server-api/#third-party-invites>

use std::time::Duration;

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId,
};
use serde_json::value::RawValue;

use super::{Entrance, residents::signatures_of};
use crate::{
    edge::federation_client::RemoteError,
    error::{Error, Result},
    event::{Content, Pdu, ReceivedPdu, content},
};

/// For how long whoever makes a room waits until everybody is invited. The rest are invited afterwards.
const PATIENCE: Duration = Duration::from_secs(20);

impl Entrance {
    /// Whether a user lives on another server.
    pub(crate) fn is_elsewhere(&self, user_id: &UserId) -> bool {
        user_id.server_name() != self.0.rooms.server_name()
    }

    /// Refuses users of servers with which this one has nothing to do.
    pub(crate) fn check_invitable<'a>(&self, users: impl IntoIterator<Item = &'a OwnedUserId>) -> Result<()> {
        let mut elsewhere = users.into_iter().filter(|user| self.is_elsewhere(user));
        elsewhere.try_for_each(|user| {
            let server = user.server_name();
            self.residents().may_ask(server).map_err(|error| error.for_client(server))
        })
    }

    /// Invites somebody, wherever they live.
    ///
    /// The errors are those of [`crate::room::Rooms::invite`] and, for users of other servers, [`Error::Relayed`].
    pub(crate) async fn invite(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        target: &UserId,
        reason: Option<String>,
    ) -> Result<()> {
        if !self.is_elsewhere(target) {
            return self.0.rooms.invite(room_id, sender, target, reason).await;
        }
        let reason = reason.map(|reason| ("reason".to_owned(), reason.into()));
        self.invite_elsewhere(room_id, sender, target, reason.into_iter().collect()).await.map(drop)
    }

    /// Invites a user of another server and says in the event what else `content` has. Returns the event; the one that is
    /// there where they are invited already by the same user in the same words.
    pub(crate) async fn invite_elsewhere(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        target: &UserId,
        mut content: Content,
    ) -> Result<OwnedEventId> {
        self.check_invitable([&target.to_owned()])?;
        content.insert("membership".to_owned(), "invite".into());
        let (entrance, room) = (self.clone(), room_id.to_owned());
        let (sender, target) = (sender.to_owned(), target.to_owned());
        // The other server may have shown it by the time that the client hangs up.
        let inviting = self.0.tasks.see_through("inviting a user of another server", async move {
            entrance.invite_through(&room, &sender, &target, &content).await
        });
        inviting.await.unwrap_or_else(|| Err(Error::broken("an invitation has panicked")))
    }

    /// Invites users of other servers to a room that was just made. The room is there whatever becomes of it, so who can't
    /// be invited is left out.
    pub(crate) async fn invite_all(
        &self,
        room_id: OwnedRoomId,
        sender: OwnedUserId,
        targets: Vec<OwnedUserId>,
        is_direct: bool,
    ) {
        if targets.is_empty() {
            return;
        }
        let mut said = content([("membership", "invite".into())]);
        if is_direct {
            said.insert("is_direct".to_owned(), true.into());
        }
        let entrance = self.clone();
        let inviting = self.0.tasks.see_through("inviting users of other servers", async move {
            // One after the other: each follows the one before.
            for target in targets {
                if let Err(error) = entrance.invite_through(&room_id, &sender, &target, &said).await {
                    tracing::info!(%room_id, %target, %error, "a user of another server was not invited to a new room");
                }
            }
        });
        if tokio::time::timeout(PATIENCE, inviting).await.is_err() {
            tracing::debug!("who has made a room does not wait until all are invited");
        }
    }

    async fn invite_through(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        target: &UserId,
        content: &Content,
    ) -> Result<OwnedEventId> {
        let outgoing = match self.0.rooms.prepare_invite(room_id, sender, target, content).await? {
            Ok(outgoing) => outgoing,
            Err(event_id) => return Ok(event_id),
        };
        let server = target.server_name();
        let inviting = async {
            let answered = self.residents().invite(server, &outgoing).await?;
            self.signed_by_both(server, &outgoing.invite, &answered).await
        };
        let invite = inviting.await.map_err(|error| error.for_client(server))?;
        self.0.rooms.complete_invite(invite).await
    }

    /// The invitation with the other server's signature, which is all that is taken of its answer.
    async fn signed_by_both(&self, server: &ServerName, invite: &Pdu, answered: &RawValue) -> Result<Pdu, RemoteError> {
        let malformed =
            |what: &dyn std::fmt::Display| RemoteError::Malformed(format!("the invitation as it signs it: {what}"));
        let received = ReceivedPdu::read(answered, invite.rules()).map_err(|error| malformed(&error))?;
        if received.event_id() != invite.event_id() {
            return Err(malformed(&"it is another event"));
        }
        let answered = received.unverified().to_object().map_err(|error| malformed(&error))?;
        let mut object = invite.to_object().map_err(|error| malformed(&error))?;
        if let Some(CanonicalJsonValue::Object(all)) = object.get_mut("signatures") {
            all.insert(server.to_string(), CanonicalJsonValue::Object(signatures_of(&answered, server)));
        }
        let signed = Pdu::from_canonical(&object, invite.rules()).map_err(|error| malformed(&error))?;
        self.residents().verify_signature(server, &signed).await.map_err(|error| malformed(&error))?;
        Ok(signed)
    }

    /// Has the server of `sender`, who has invited an address to a room, invite `user_id` of this server, for whom an
    /// identity server has signed that the address is theirs.
    pub(crate) async fn exchange(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        user_id: &UserId,
        signed: CanonicalJsonObject,
    ) -> Result<()> {
        // What the address is to be called, that server knows.
        let invite = content([("display_name", "".into()), ("signed", CanonicalJsonValue::Object(signed))]);
        let said =
            content([("membership", "invite".into()), ("third_party_invite", CanonicalJsonValue::Object(invite))]);
        let server = sender.server_name();
        let exchanged = self.residents().exchange(room_id, sender, user_id, &said).await;
        exchanged.map_err(|error| error.for_client(server))
    }
}
