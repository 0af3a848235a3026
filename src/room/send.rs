//! Saying something in a room: messages, state and redactions.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#sending-events-to-a-room>

use std::sync::Arc;

use ruma::{
    CanonicalJsonValue, EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId,
    api::error::ErrorKind,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};

use super::{
    Related, Rooms, State,
    append::{Head, Plan, Proposal},
    guest::admits_guests,
    membership::{event_id, says},
};
use crate::{
    error::{Error, Result},
    event::{Content, Draft, Pdu, Standing, Transaction},
    store,
};

/// A piece of state as somebody sets it.
#[derive(Clone, Debug)]
pub struct NewState {
    pub room_id: OwnedRoomId,
    pub sender: OwnedUserId,
    pub guest: bool,
    pub kind: TimelineEventType,
    pub state_key: String,
    pub content: Content,
    /// Where it is to be set once only, however often that is tried.
    pub transaction: Option<Transaction>,
}

/// Something that is not state.
#[derive(Clone, Debug)]
pub struct Message {
    pub room_id: OwnedRoomId,
    pub sender: OwnedUserId,
    /// Whether the sender administers this server.
    pub admin: bool,
    pub kind: TimelineEventType,
    pub content: Content,
    pub transaction: Transaction,
}

impl Rooms {
    /// Sends a message, once for each transaction, and tells the event that it became.
    pub async fn send(&self, message: &Message) -> Result<OwnedEventId> {
        check_transaction(&message.transaction)?;
        let sent = if message.kind == TimelineEventType::RoomRedaction {
            self.send_redaction(message).await
        } else {
            self.send_plain(message).await
        };
        match sent {
            // What could be said once is not unsaid because it can't be said again.
            Err(refusal @ Error::Refused { .. }) => {
                let Message { room_id, sender, kind, transaction, .. } = message;
                self.find_sent(room_id, sender, kind, transaction).await?.ok_or(refusal)
            }
            sent => sent,
        }
    }

    async fn send_plain(&self, message: &Message) -> Result<OwnedEventId> {
        let Message { room_id, sender, kind, content, transaction, .. } = message;
        let related = self.relate(room_id, sender, kind, content).await?;
        let appended = self.append(room_id, |head| {
            check_joined(&head.state, sender)?;
            let draft = Draft::message(sender.clone(), kind.clone(), content.clone());
            Ok(Plan::of(Proposal { transaction: Some(transaction.clone()), related: related.clone(), ..draft.into() }))
        });
        event_id(&appended.await?)
    }

    /// Redacts the event that the content's `redacts` names.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#redactions>
    async fn send_redaction(&self, message: &Message) -> Result<OwnedEventId> {
        let Message { room_id, sender, admin, kind, content, transaction } = message;
        let mut content = content.clone();
        let target = take_redacts(&mut content)?;
        let target = self.get_redactable(room_id, &target).await?;
        let plan = |head: &Head| -> Result<Plan> {
            check_joined(&head.state, sender)?;
            check_redaction(head, sender, *admin && target.sender().server_name() == self.server_name(), &target)?;
            let draft = Draft::message(sender.clone(), kind.clone(), content.clone());
            let draft = Draft { redacts: Some(target.event_id().to_owned()), ..draft };
            // What has been redacted stays as it is, with the first reason.
            let redacts = target.redacted_because().is_none().then(|| Arc::clone(&target));
            Ok(Plan::of(Proposal { transaction: Some(transaction.clone()), redacts, ..draft.into() }))
        };
        if *target.kind() == TimelineEventType::RoomGuestAccess {
            let holds = |pdu: &Arc<Pdu>| pdu.event_id() == target.event_id();
            let ends = |head: &Head| head.state.find(&StateEventType::RoomGuestAccess).is_some_and(holds);
            return self.append_ending_guest_access(room_id, plan, ends).await;
        }
        event_id(&self.append(room_id, plan).await?)
    }

    async fn get_redactable(&self, room_id: &RoomId, event_id: &EventId) -> Result<Arc<Pdu>> {
        let found = store::event::find(&mut self.0.db.read().await?, event_id).await?;
        let found = found.filter(|event| event.standing == Standing::Accepted && event.pdu.room_id() == room_id);
        let event = found.ok_or_else(|| Error::not_found(format!("There is no event {event_id} in this room")))?;
        if *event.pdu.kind() == TimelineEventType::RoomCreate {
            return Err(Error::forbidden("The event that made the room can't be redacted"));
        }
        Ok(event.pdu)
    }

    /// Who has sent an event, if there is such an event.
    pub async fn find_sender(&self, event_id: &EventId) -> Result<Option<OwnedUserId>> {
        let found = store::event::find(&mut self.0.db.read().await?, event_id).await?;
        Ok(found.map(|event| event.pdu.sender().to_owned()))
    }

    async fn find_sent(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        kind: &TimelineEventType,
        transaction: &Transaction,
    ) -> Result<Option<OwnedEventId>> {
        let mut conn = self.0.db.read().await?;
        Ok(store::event::find_by_transaction(&mut conn, sender, room_id, kind, transaction).await?)
    }

    /// Sets a piece of state and tells the event that holds it. If it says so already, that is the event.
    pub async fn send_state(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        guest: bool,
        kind: &TimelineEventType,
        state_key: &str,
        content: Content,
    ) -> Result<OwnedEventId> {
        self.set_state(&NewState {
            room_id: room_id.to_owned(),
            sender: sender.to_owned(),
            guest,
            kind: kind.clone(),
            state_key: state_key.to_owned(),
            content,
            transaction: None,
        })
        .await
    }

    /// The same, once for each transaction where there is one.
    pub async fn set_state(&self, new: &NewState) -> Result<OwnedEventId> {
        match (self.try_set_state(new).await, &new.transaction) {
            (Err(refusal @ Error::Refused { .. }), Some(transaction)) => {
                self.find_sent(&new.room_id, &new.sender, &new.kind, transaction).await?.ok_or(refusal)
            }
            (set, _) => set,
        }
    }

    async fn try_set_state(&self, new: &NewState) -> Result<OwnedEventId> {
        let NewState { room_id, sender, guest, kind, state_key, content, transaction } = new;
        match kind {
            TimelineEventType::RoomMember => {
                let transaction = transaction.as_ref();
                return self.set_membership(room_id, sender, *guest, state_key, content.clone(), transaction).await;
            }
            TimelineEventType::RoomRedaction => return Err(redaction_as_state()),
            TimelineEventType::RoomCanonicalAlias if state_key.is_empty() => {
                self.check_canonical_alias(room_id, content).await?;
            }
            _ => {}
        }
        // State may change back to what it was: that it annotates with the same again is no fault.
        let related = Related { annotates_once: false, ..self.relate(room_id, sender, kind, content).await? };
        let plan = |head: &Head| -> Result<Plan> {
            check_joined(&head.state, sender)?;
            match head.state.get(&kind.to_string(), state_key) {
                Some(current) if current.sender() == sender && says(current, content) => {
                    Ok(Plan::done_by(current.event_id()))
                }
                _ => {
                    let draft = Draft::state(sender.clone(), kind.clone(), state_key, content.clone());
                    Ok(Plan::of(Proposal {
                        transaction: transaction.clone(),
                        related: related.clone(),
                        ..draft.into()
                    }))
                }
            }
        };
        if *kind == TimelineEventType::RoomGuestAccess && state_key.is_empty() && !admits_guests(content) {
            let plan =
                |head: &Head| check_may_set(head, sender, &StateEventType::RoomGuestAccess).and_then(|()| plan(head));
            return self.append_ending_guest_access(room_id, plan, |_| true).await;
        }
        event_id(&self.append(room_id, plan).await?)
    }
}

/// Takes out of a content what it redacts: that has its place elsewhere.
pub(super) fn take_redacts(content: &mut Content) -> Result<OwnedEventId> {
    let target = match content.remove("redacts") {
        Some(CanonicalJsonValue::String(id)) => OwnedEventId::try_from(id),
        Some(_) => return Err(Error::bad_json("`redacts` is the identifier of an event")),
        None => {
            let message = "A redaction names in `redacts` the event that it redacts";
            return Err(Error::refused(ErrorKind::MissingParam, message));
        }
    };
    target.map_err(|e| Error::invalid_param(format!("`redacts` is not the identifier of an event: {e}")))
}

pub(super) fn redaction_as_state() -> Error {
    Error::bad_json("A redaction is not state: send it through /redact or /send")
}

/// A transaction id is a string of the client's choice, as far as every database can store it.
pub fn check_transaction(transaction: &Transaction) -> Result<()> {
    let id = transaction.transaction_id.as_str();
    if id.len() > 255 || id.contains('\0') {
        return Err(Error::invalid_param("A transaction id has at most 255 bytes, and none of them is zero"));
    }
    Ok(())
}

pub(super) fn check_joined(state: &State, user_id: &UserId) -> Result<()> {
    match state.membership(user_id) {
        MembershipState::Join => Ok(()),
        MembershipState::Invite => Err(Error::forbidden("You are only invited to this room: join it first")),
        MembershipState::Ban => Err(Error::forbidden("You are banned from this room")),
        _ => Err(Error::forbidden("You are not in this room: join it first")),
    }
}

/// Refuses whoever lacks the power to set state of this type.
fn check_may_set(head: &Head, sender: &UserId, kind: &StateEventType) -> Result<()> {
    check_joined(&head.state, sender)?;
    if head.state.power_levels(head.rules).user_can_send_state(sender, kind.clone()) {
        return Ok(());
    }
    Err(Error::forbidden(format!("You don't have the power to send {kind} in this room")))
}

/// Everybody may redact what they said themselves; it takes power, or to administer the server that `target`
/// came from, to redact what others said.
fn check_redaction(head: &Head, sender: &UserId, administers_target: bool, target: &Pdu) -> Result<()> {
    let power = head.state.power_levels(head.rules);
    if target.sender() == sender || administers_target {
        if power.user_can_redact_own_event(sender) {
            return Ok(());
        }
        return Err(Error::forbidden("You don't have the power to send m.room.redaction in this room"));
    }
    if power.user_can_redact_event_of_other(sender) {
        return Ok(());
    }
    Err(Error::forbidden("You don't have the power to redact what others said in this room"))
}
