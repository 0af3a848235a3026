//! Joining rooms, also those that this server is not in.
//!
//! A join is one piece of work for each user and room: it goes on when the client has stopped waiting, and who asks
//! meanwhile waits for it, too. What another server has taken can't be taken back, so of one that fails after that the
//! user is in the room for others and not here; asking again mends that.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>

use std::sync::Arc;

use ruma::{
    OwnedServerName, OwnedUserId, RoomId, ServerName, UserId, api::error::ErrorKind,
    events::room::member::MembershipState,
};
use serde_json::value::RawValue;

use super::{
    Entrance,
    arrival::{MOST_EVENTS, receive},
    failures::{Failed, Failures},
    template::{self, Proposed, Wanted},
};
use crate::{
    edge::federation_client::RemoteError,
    error::{Error, Result},
    event::{Content, Pdu, ReceivedPdu},
    room::{Author, Introduction},
};

impl Entrance {
    /// Joins a room and says in the membership event what else `content` has: by itself where this server can let the user
    /// in, else by the help of one of the servers that are known of the room, of which the client may name some (`via`).
    /// Who is in the room already stays in it as they are.
    ///
    /// The errors are those of [`crate::room::Rooms::join_saying`], and [`Error::Relayed`].
    pub(crate) async fn join(
        &self,
        author: &Author,
        room_id: &RoomId,
        via: &[OwnedServerName],
        content: Content,
    ) -> Result<()> {
        // Whether others may know better: that somebody meets a condition, or has the power to let the user in.
        let others_may =
            |kind: &ErrorKind| matches!(kind, ErrorKind::UnableToAuthorizeJoin | ErrorKind::UnableToGrantJoin);
        self.join_unless(author, room_id, via, content, others_may).await
    }

    /// Joins by an invitation that a server has given at this moment: it may not have come here yet.
    pub(crate) async fn join_by_invitation_of(
        &self,
        server: &ServerName,
        author: &Author,
        room_id: &RoomId,
        content: Content,
    ) -> Result<()> {
        let others_may = |kind: &ErrorKind| !matches!(kind, ErrorKind::GuestAccessForbidden);
        self.join_unless(author, room_id, &[server.to_owned()], content, others_may).await
    }

    /// `others_may`: of which refusals of this server another one might think otherwise.
    async fn join_unless(
        &self,
        author: &Author,
        room_id: &RoomId,
        via: &[OwnedServerName],
        content: Content,
        others_may: impl Fn(&ErrorKind) -> bool + Send,
    ) -> Result<()> {
        let is_on = self.residents().is_on();
        let mut refusal = None;
        if !is_on || self.can_let_in(room_id).await? {
            match self.0.rooms.join_saying(room_id, author, content.clone()).await {
                Err(Error::Refused { kind, message }) if is_on && others_may(&kind) => {
                    refusal = Some(Error::refused(kind, message));
                }
                joined => return joined,
            }
        }
        let servers = self.candidates(room_id, author.user_id(), via).await?;
        match refusal {
            Some(refusal) if servers.is_empty() => Err(refusal),
            _ => self.join_elsewhere(author, room_id, servers, content).await,
        }
    }

    async fn join_elsewhere(
        &self,
        author: &Author,
        room_id: &RoomId,
        servers: Vec<OwnedServerName>,
        content: Content,
    ) -> Result<()> {
        if let Author::Guest(_) = author {
            let message = "Guests can join rooms that this server is in: register an account";
            return Err(Error::refused(ErrorKind::GuestAccessForbidden, message));
        }
        let key: (OwnedUserId, _) = (author.user_id().to_owned(), room_id.to_owned());
        let (entrance, (user_id, room)) = (self.clone(), key.clone());
        let joining = self.0.joins.join(key, move |landing| async move {
            let joined = entrance.join_through_any(&user_id, &room, &servers, content).await;
            drop(landing);
            joined.map_err(Arc::new)
        });
        let joined = self.0.tasks.see_through("a join through another server", joining).await;
        joined.unwrap_or_else(|| Err(Arc::new(Error::broken("a join has panicked")))).map_err(Error::of_shared)
    }

    async fn join_through_any(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        servers: &[OwnedServerName],
        content: Content,
    ) -> Result<()> {
        let _place = self.0.places.acquire().await.map_err(Error::broken)?;
        let introduction = self.0.rooms.introduce(user_id, &MembershipState::Join, content).await?;
        let mut failures = Failures::default();
        for server in servers {
            match Box::pin(self.join_through(server, user_id, room_id, &introduction)).await {
                Ok(()) => {
                    // The join stands whatever becomes of this.
                    if let Err(error) = self.0.rooms.settle_in(room_id, user_id, &introduction).await {
                        tracing::warn!(%room_id, %user_id, %error, "settings were not carried into a room");
                    }
                    return Ok(());
                }
                Err(failed) => failures.note(server, failed)?,
            }
        }
        Err(failures.into_error())
    }

    async fn join_through(
        &self,
        server: &ServerName,
        user_id: &UserId,
        room_id: &RoomId,
        introduction: &Introduction,
    ) -> Result<(), Failed> {
        let membership = &MembershipState::Join;
        let template = self.residents().make(server, membership, room_id, user_id).await?;
        let proposed = template::read(server, &template, Wanted { room_id, user_id, membership })?;
        let Proposed { version, rules, place, authorised_by } = proposed;
        let authorised_by = authorised_by.as_deref();
        let join = self.0.rooms.sign_elsewhere(user_id, introduction, authorised_by, &place, rules)?;
        let body = self.residents().send_join(server, &join).await?;
        let mut arrival = receive(self.residents(), body, (room_id, rules), MOST_EVENTS).await?;
        let join = self.signed_by_all(join, arrival.join.take(), authorised_by.is_some()).await?;
        // Off the threads that answer requests.
        let judging = tokio::task::spawn_blocking(move || arrival.judge(version, join));
        let entry = judging.await.map_err(Error::broken)??;
        match self.0.rooms.enter(entry).await {
            Ok(_) => Ok(()),
            // What this server has said of the room is no way in; another may say something else.
            Err(Error::Refused { message, .. }) => {
                Err(RemoteError::Malformed(format!("the room as it has it can't be entered: {message}")).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The join with the signatures that it needs. `answered`: as the other server has signed it, which it must where one
    /// of its users lets the user in (`is_authorised`).
    async fn signed_by_all(
        &self,
        join: Pdu,
        answered: Option<Box<RawValue>>,
        is_authorised: bool,
    ) -> Result<Pdu, RemoteError> {
        let malformed =
            |what: &dyn std::fmt::Display| RemoteError::Malformed(format!("the join as it signs it: {what}"));
        let Some(answered) = answered else {
            return if is_authorised { Err(malformed(&"it is missing")) } else { Ok(join) };
        };
        let received = ReceivedPdu::read(&answered, join.rules()).map_err(|error| malformed(&error))?;
        if received.event_id() != join.event_id() {
            return Err(malformed(&"it is another event"));
        }
        let verified = self.residents().verify_all(vec![received]).await.pop();
        let verified = verified.ok_or_else(|| malformed(&"it was not verified"))?.map_err(|error| malformed(&error))?;
        // A changed content would come redacted, under the same identifier.
        if verified.content().get() == join.content().get() {
            Ok(verified)
        } else {
            Err(malformed(&"it has another content"))
        }
    }
}
