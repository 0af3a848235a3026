//! Knocking on rooms that this server is not in.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#knocking-rooms>

use std::sync::Arc;

use ruma::{
    OwnedServerName, RoomId, ServerName, UserId, events::room::member::MembershipState,
    room_version_rules::RoomVersionRules,
};
use serde_json::value::RawValue;

use super::{
    Entrance,
    failures::{Failed, Failures},
    residents::Residents,
    template::{self, Proposed, Wanted},
};
use crate::{
    error::{Error, Result},
    event::{Content, ReceivedPdu, fact::OutsideEvent},
    room::{FromOutside, Introduction},
};

/// How many events of a room's state are looked at. The specification names seven.
const MOST_STATE: usize = 50;

impl Entrance {
    /// Asks to be let into a room, by the help of one of the servers that are known of it, of which the client may name
    /// some (`via`), where this server is not in it.
    ///
    /// The errors are those of [`crate::room::Rooms::knock`], and [`Error::Relayed`].
    pub(crate) async fn knock(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        via: &[OwnedServerName],
        reason: Option<String>,
    ) -> Result<()> {
        if !self.residents().is_on() || self.can_let_in(room_id).await? {
            return self.0.rooms.knock(room_id, user_id, reason).await;
        }
        let servers = self.candidates(room_id, user_id, via).await?;
        let (entrance, user, room) = (self.clone(), user_id.to_owned(), room_id.to_owned());
        let knocking = self.0.tasks.see_through("knocking through another server", async move {
            entrance.knock_through_any(&user, &room, &servers, reason).await
        });
        knocking.await.unwrap_or_else(|| Err(Error::broken("a knock has panicked")))
    }

    async fn knock_through_any(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        servers: &[OwnedServerName],
        reason: Option<String>,
    ) -> Result<()> {
        let content: Content = reason.map(|reason| ("reason".to_owned(), reason.into())).into_iter().collect();
        let introduction = self.0.rooms.introduce(user_id, &MembershipState::Knock, content).await?;
        let mut failures = Failures::default();
        for server in servers {
            match self.knock_through(server, user_id, room_id, &introduction).await {
                Ok(()) => return Ok(()),
                Err(failed) => failures.note(server, failed)?,
            }
        }
        Err(failures.into_error())
    }

    async fn knock_through(
        &self,
        server: &ServerName,
        user_id: &UserId,
        room_id: &RoomId,
        introduction: &Introduction,
    ) -> Result<(), Failed> {
        let membership = &MembershipState::Knock;
        let template = self.residents().make(server, membership, room_id, user_id).await?;
        let proposed = template::read(server, &template, Wanted { room_id, user_id, membership })?;
        let Proposed { version, rules, place, .. } = proposed;
        let knock = self.0.rooms.sign_elsewhere(user_id, introduction, None, &place, rules)?;
        let answered = self.residents().send_knock(server, &knock).await?;
        let taken = FromOutside {
            user_id: user_id.to_owned(),
            room_id: room_id.to_owned(),
            sender: user_id.to_owned(),
            event: Some(OutsideEvent { version, pdu: Arc::new(knock) }),
            room_state: credible(self.residents(), answered, (room_id, rules)).await,
        };
        Ok(self.0.rooms.take_knock(taken).await?)
    }
}

/// What may be shown of a room's state that another server has sent: whole events if they are of the room and valid, and
/// stripped ones, which nobody can verify, where the room is of a version in which there were such.
pub(super) async fn credible(
    residents: &dyn Residents,
    room_state: Vec<Box<RawValue>>,
    (room_id, rules): (&RoomId, &'static RoomVersionRules),
) -> Vec<Box<RawValue>> {
    let takes_stripped = rules.event_format.require_room_create_room_id;
    let (mut shown, mut events) = (Vec::new(), Vec::new());
    for json in room_state.into_iter().take(MOST_STATE) {
        match ReceivedPdu::read(&json, rules) {
            Ok(event) if event.room_id() == room_id => events.push(event),
            Ok(_) => {}
            Err(_) if takes_stripped => shown.push(json),
            Err(error) => tracing::debug!(%room_id, %error, "some of a room's state is not what its version has"),
        }
    }
    let verified = residents.verify_all(events).await;
    shown.extend(verified.into_iter().filter_map(|verified| Some(verified.ok()?.json().to_owned())));
    shown
}
