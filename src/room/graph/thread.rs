//! What a new event relates to, found out before the event is built, and with that the thread that it belongs to.
//!
//! Which thread an event belongs to is decided here once, and stands with the event from then on: unread counts,
//! receipts and whoever relates to it later take it from there.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#threading>

use std::sync::Arc;

use ruma::{
    EventId, OwnedEventId, RoomId, UserId,
    api::error::ErrorKind,
    events::{TimelineEventType, room::member::MembershipState},
};

use super::{residency::Resident, room::Room, rooms::Rooms};
use crate::{
    error::{Error, Result},
    event::{Content, Pdu, Relation, Standing, Stored},
    log::CommitError,
    store::{self, relation::Annotation},
};

/// What an event has to do with an earlier one, as far as its content alone does not say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Related {
    /// The root of the thread that the event belongs to. None for the main timeline.
    pub(crate) thread_root: Option<OwnedEventId>,
    /// Whether it is refused if its sender has annotated the same event with the same before.
    pub(crate) annotates_once: bool,
}

impl Rooms {
    /// What a new event of a user of this server relates to.
    ///
    /// 400 where it relates to what is no event of the room, and where a thread would begin at an event that itself
    /// relates to another.
    ///
    /// Called before the event is built, without the room's lock. The parent may be redacted in between: it stays the
    /// parent.
    pub(crate) async fn relate(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        kind: &TimelineEventType,
        content: &Content,
    ) -> Result<Related> {
        let Some(relation) = Relation::of_content(kind, content) else { return Ok(Related::default()) };
        // Nobody else learns anything here: they are refused later.
        let is_joined = |room: &Resident| room.view(|view| view.state.membership(sender)) == MembershipState::Join;
        let Some(room) = self.find(room_id).await?.filter(is_joined) else { return Ok(Related::default()) };
        let Some(parent) = self.find_parent(&room, &relation.parent).await? else {
            let message = format!("There is no event {} in this room that another could relate to", relation.parent);
            return Err(Error::invalid_param(message));
        };
        if relation.is_thread() && !may_begin_thread(&parent.pdu, parent.thread_root.as_ref()) {
            let message = "A thread can't begin at an event that itself relates to another";
            return Err(Error::refused(ErrorKind::Unknown, message));
        }
        let annotates_once = relation.kind == "m.annotation";
        Ok(Related { thread_root: thread_of(&relation, &parent.pdu, parent.thread_root.as_ref()), annotates_once })
    }

    /// Refuses what annotates an event with the same as its sender has before, where that is there to be read. Only the
    /// judge knows for certain; but a write that it drops takes with it whatever was built on it meanwhile.
    /// `M_DUPLICATE_ANNOTATION` then.
    pub(in crate::room) async fn check_annotation(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        kind: &TimelineEventType,
        content: &Content,
    ) -> Result<()> {
        let relation = Relation::of_content(kind, content);
        let annotation = relation.and_then(|relation| Annotation::by(room_id, sender, kind, relation));
        let Some(annotation) = annotation else { return Ok(()) };
        let found =
            store::relation::list_annotations(&mut self.0.db.read().await?, std::slice::from_ref(&annotation)).await?;
        if found.contains_key(&annotation) { Err(CommitError::DuplicateAnnotation.into()) } else { Ok(()) }
    }

    /// The thread that an event from another server belongs to. Nobody can be refused there: what relates to nothing
    /// that is known in the room belongs to the main timeline.
    pub(super) async fn thread_of_remote(&self, room: &Room, pdu: &Pdu) -> Result<Option<OwnedEventId>> {
        let Some(relation) = Relation::of(pdu) else { return Ok(None) };
        let parent = self.find_parent(room, &relation.parent).await?;
        Ok(parent.and_then(|parent| thread_of(&relation, &parent.pdu, parent.thread_root.as_ref())))
    }

    /// An event of the room to which others may relate. Most are new, and in memory. Accepted events only: nobody
    /// relates to what nobody is shown.
    async fn find_parent(&self, room: &Room, event_id: &EventId) -> Result<Option<Arc<Stored>>> {
        let (room_id, remembered) = room.view(|view| (view.room_id.clone(), view.find_recent(event_id)));
        if remembered.is_some() {
            return Ok(remembered);
        }
        let found = store::event::find(&mut self.0.db.read().await?, event_id).await?;
        let is_here = |event: &Stored| event.standing == Standing::Accepted && event.pdu.room_id() == room_id;
        Ok(found.filter(is_here).map(Arc::new))
    }
}

/// The thread that an event belongs to which relates to another event of its room: the thread that the other belongs to
/// (`root`), or begins.
pub(super) fn thread_of(relation: &Relation, parent: &Pdu, root: Option<&OwnedEventId>) -> Option<OwnedEventId> {
    if relation.is_thread() {
        return may_begin_thread(parent, root).then(|| parent.event_id().to_owned());
    }
    root.cloned()
}

/// Only what relates to nothing does. What is redacted says no more whether it did, but for the thread that it was in.
fn may_begin_thread(event: &Pdu, root: Option<&OwnedEventId>) -> bool {
    root.is_none() && Relation::of(event).is_none()
}
