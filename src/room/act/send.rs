//! Saying something in a room: messages, state and redactions.
//!
//! Messages have transaction ids, so one that is sent again is found before anything is built, and again by the judge,
//! who alone decides. State has none: setting what is set already is done already.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#sending-events-to-a-room>
//!
//! What relates to another event is looked up before the event is built ([`Rooms::relate`]): under the room's lock
//! nothing is read from the database.

use std::sync::Arc;

use ruma::{
    CanonicalJsonValue, EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, TransactionId, UserId,
    api::error::ErrorKind,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};

use super::{
    guest::admits_guests,
    membership::{event_id, says},
};
use crate::{
    error::{Error, Result},
    event::{Content, Draft, Pdu, Standing, Transaction},
    room::{
        Author, Related, Rooms, State,
        graph::{
            append::{Plan, Proposal},
            head::Head,
            rooms::not_in_room,
        },
    },
    store,
};

/// A piece of state as somebody sets it.
#[derive(Clone, Debug)]
pub struct NewState {
    pub room_id: OwnedRoomId,
    pub author: Author,
    pub kind: TimelineEventType,
    pub state_key: String,
    pub content: Content,
    /// Where it is to be set once only, however often that is tried.
    pub transaction: Option<Transaction>,
}

/// Something that is not state. Redactions are messages too.
#[derive(Clone, Debug)]
pub struct Message {
    pub room_id: OwnedRoomId,
    pub author: Author,
    pub kind: TimelineEventType,
    pub content: Content,
    pub transaction: Transaction,
}

impl Rooms {
    /// Sends a message, once for each transaction, and returns the event that it became.
    ///
    /// `M_FORBIDDEN` for who is not in the room or lacks the power, `M_TOO_LARGE`, `M_INVALID_PARAM` and `M_BAD_JSON`
    /// for what can't be an event, `M_DUPLICATE_ANNOTATION`.
    pub async fn send(&self, message: &Message) -> Result<OwnedEventId> {
        check_transaction_id(&message.transaction.transaction_id)?;
        let sent = if message.kind == TimelineEventType::RoomRedaction {
            self.send_redaction(message).await
        } else {
            self.send_plain(message).await
        };
        match sent {
            // A retry of a send that succeeded still succeeds, even if the sender may no longer send.
            Err(refusal @ Error::Refused { .. }) => {
                let Message { room_id, author, kind, transaction, .. } = message;
                self.find_sent(room_id, author.user_id(), kind, transaction).await?.ok_or(refusal)
            }
            sent => sent,
        }
    }

    /// As [`Self::send`], but a refusal may be of a retry.
    async fn send_plain(&self, message: &Message) -> Result<OwnedEventId> {
        let Message { room_id, author, kind, content, transaction } = message;
        let sender = author.user_id();
        let related = self.relate(room_id, sender, kind, content).await?;
        if related.annotates_once {
            self.check_annotation(room_id, sender, kind, content).await?;
        }
        let appended = self.append(room_id, |head| {
            check_joined(&head.state, sender)?;
            let draft = Draft::message(sender.to_owned(), kind.clone(), content.clone());
            Ok(Plan::of(Proposal { transaction: Some(transaction.clone()), related: related.clone(), ..draft.into() }))
        });
        event_id(&appended.await?)
    }

    /// Redacts the event that the content's `redacts` names.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#redactions>
    async fn send_redaction(&self, message: &Message) -> Result<OwnedEventId> {
        let Message { room_id, author, kind, content, transaction } = message;
        let sender = author.user_id();
        let mut content = content.clone();
        let target = take_redacts(&mut content)?;
        // Before the event is looked for, which others may know by its identifier.
        check_joined(&self.get_held(room_id).await?.state(), sender)?;
        let target = self.get_redactable(room_id, &target).await?;
        let administers_target = author.is_administrator() && target.sender().server_name() == self.server_name();
        let plan = |head: &Head| -> Result<Plan> {
            check_joined(&head.state, sender)?;
            check_redaction(head, sender, administers_target, &target)?;
            let draft = Draft::message(sender.to_owned(), kind.clone(), content.clone());
            let draft = Draft { redacts: Some(target.event_id().to_owned()), ..draft };
            // What has been redacted stays as it is, with the first reason.
            let redacts = target.redacted_because().is_none().then(|| Arc::clone(&target));
            Ok(Plan::of(Proposal { transaction: Some(transaction.clone()), redacts, ..draft.into() }))
        };
        // Without its content the room lets no guests in.
        if *target.kind() == TimelineEventType::RoomGuestAccess {
            let holds = |pdu: &Arc<Pdu>| pdu.event_id() == target.event_id();
            let ends = |head: &Head| head.state.find(&StateEventType::RoomGuestAccess).is_some_and(holds);
            return self.append_ending_guest_access(room_id, plan, ends).await;
        }
        event_id(&self.append(room_id, plan).await?)
    }

    /// The target of a redaction: `M_NOT_FOUND` where it is not in this room, `M_FORBIDDEN` for the create event,
    /// without which there would be no room.
    async fn get_redactable(&self, room_id: &RoomId, event_id: &EventId) -> Result<Arc<Pdu>> {
        let found = store::event::find(&mut self.0.db.read().await?, event_id).await?;
        let found = found.filter(|event| event.standing == Standing::Accepted && event.pdu.room_id() == room_id);
        let event = found.ok_or_else(|| Error::not_found(format!("There is no event {event_id} in this room")))?;
        if *event.pdu.kind() == TimelineEventType::RoomCreate {
            return Err(Error::forbidden("The event that made the room can't be redacted"));
        }
        Ok(event.pdu)
    }

    /// Who has sent an event, if there is such an event. Of whatever room, and whatever its standing: only for those
    /// who may know.
    pub async fn find_sender(&self, event_id: &EventId) -> Result<Option<OwnedUserId>> {
        let found = store::event::find(&mut self.0.db.read().await?, event_id).await?;
        Ok(found.map(|event| event.pdu.sender().to_owned()))
    }

    /// The event that an earlier request with this transaction id has made.
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

    /// Sets a piece of state and returns the event that holds it. If it says so already, that is the event.
    pub async fn send_state(
        &self,
        room_id: &RoomId,
        author: &Author,
        kind: &TimelineEventType,
        state_key: &str,
        content: Content,
    ) -> Result<OwnedEventId> {
        self.set_state(&NewState {
            room_id: room_id.to_owned(),
            author: author.clone(),
            kind: kind.clone(),
            state_key: state_key.to_owned(),
            content,
            transaction: None,
        })
        .await
    }

    /// Sets a piece of state and returns the event that holds it: once for each transaction, where there is one. The
    /// errors are those of [`Self::send`], `M_BAD_ALIAS` for `m.room.canonical_alias`, and for memberships those of the
    /// act.
    pub async fn set_state(&self, new: &NewState) -> Result<OwnedEventId> {
        match (self.try_set_state(new).await, &new.transaction) {
            (Err(refusal @ Error::Refused { .. }), Some(transaction)) => {
                self.find_sent(&new.room_id, new.author.user_id(), &new.kind, transaction).await?.ok_or(refusal)
            }
            (set, _) => set,
        }
    }

    async fn try_set_state(&self, new: &NewState) -> Result<OwnedEventId> {
        let NewState { room_id, author, kind, state_key, content, transaction } = new;
        let sender = author.user_id();
        match kind {
            TimelineEventType::RoomMember => {
                let transaction = transaction.as_ref();
                return self.set_membership(room_id, author, state_key, content.clone(), transaction).await;
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
                    let draft = Draft::state(sender.to_owned(), kind.clone(), state_key, content.clone());
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

/// A redaction with a state key would redact nothing.
pub(super) fn redaction_as_state() -> Error {
    Error::bad_json("A redaction is not state: send it through /redact or /send")
}

/// A transaction id is a string of the client's choice, as far as every database can store it.
pub fn check_transaction_id(id: &TransactionId) -> Result<()> {
    let id = id.as_str();
    if id.len() > 255 || id.contains('\0') {
        return Err(Error::invalid_param("A transaction id has at most 255 bytes, and none of them is zero"));
    }
    Ok(())
}

/// The authorization rules would refuse as well, but not say what to do.
pub(super) fn check_joined(state: &State, user_id: &UserId) -> Result<()> {
    match state.membership(user_id) {
        MembershipState::Join => Ok(()),
        MembershipState::Invite => Err(Error::forbidden("You are only invited to this room: join it first")),
        MembershipState::Ban => Err(Error::forbidden("You are banned from this room")),
        _ => Err(not_in_room()),
    }
}

/// Refuses whoever lacks the power to set state of this type. Asked before all guests are made to leave, where the
/// rules would only be asked afterwards.
fn check_may_set(head: &Head, sender: &UserId, kind: &StateEventType) -> Result<()> {
    check_joined(&head.state, sender)?;
    if head.state.power_levels(head.rules).user_can_send_state(sender, kind.clone()) {
        return Ok(());
    }
    Err(Error::forbidden(format!("You don't have the power to send {kind} in this room")))
}

/// Everybody may redact what they said themselves; it takes power, or to administer the server that `target`
/// came from, to redact what others said. The rules allow any redaction event of who may send one; whether it takes
/// effect is for servers to judge, so it is refused here before it is sent.
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
