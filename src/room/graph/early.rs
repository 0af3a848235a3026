//! Redactions and the events that they redact, whichever comes first.
//!
//! Other servers' events come in any order. A redaction whose target is not known is remembered in `early_redactions`
//! with the target's identifier, and once that comes, it becomes part of the room as the redaction leaves it.
//!
//! <https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions>

use std::sync::Arc;

use ruma::{EventId, OwnedEventId};

use super::{
    head::{PendingHead, RECENT},
    room::Room,
    rooms::Rooms,
    state::State,
};
use crate::{
    error::{Error, Result},
    event::{
        Pdu, Standing,
        fact::{Fact, LateRedaction},
    },
    store,
};

/// How many events with redactions that were left behind are looked at in one go.
const SETTLED_AT_ONCE: i64 = 1_000;

/// What an event has to do with redactions, as far as was known when that was looked up.
#[derive(Default)]
pub(super) struct Redaction {
    /// The event that it redacts.
    pub(super) target: Option<Arc<Pdu>>,
    /// Whether it asks to redact an event that is not known, or has no place yet.
    pub(super) is_early: bool,
    /// The event itself as a redaction leaves it that came before it.
    pub(super) redacted: Option<Arc<Pdu>>,
    /// The redactions of it that came before it.
    considered: Vec<OwnedEventId>,
}

impl Rooms {
    /// Looks up what an event redacts, and what redacts it.
    pub(super) async fn look_for_redaction(&self, room: &Room, pdu: &Arc<Pdu>, before: &State) -> Result<Redaction> {
        let mut redaction = Redaction::default();
        if let Some(target) = pdu.redacts() {
            let target = store::event::find(&mut self.0.db.read().await?, target).await?;
            // An outlier may be placed at this moment, by somebody who does not know that it is redacted.
            redaction.is_early = target.as_ref().is_none_or(|target| target.standing == Standing::Outlier);
            redaction.target = target.map(|target| target.pdu).filter(|target| may_redact(pdu, target, before));
        }
        self.look_for_early(room, pdu, &mut redaction).await?;
        Ok(redaction)
    }

    /// Looks up what redacts an event and came before it.
    async fn look_for_early(&self, room: &Room, pdu: &Arc<Pdu>, redaction: &mut Redaction) -> Result<()> {
        let event_id = pdu.event_id();
        // No connection is held from here on: the state before each may have to be read.
        let came_before = store::redaction::list_early(&mut self.0.db.read().await?, event_id).await?;
        for early in came_before {
            redaction.considered.push(early.pdu.event_id().to_owned());
            if redaction.redacted.is_none() && early.standing == Standing::Accepted {
                let before = self.state_before(room, &early).await?;
                if may_redact(&early.pdu, pdu, &before) {
                    redaction.redacted = Some(Arc::new(pdu.redacted(early.pdu).map_err(Error::broken)?));
                }
            }
        }
        Ok(())
    }

    /// Has the redactions take effect that are remembered for events which are known by now. History is written without a
    /// look at the room's head, so redaction and target can miss each other. To be called after both are durable.
    pub(super) async fn settle_redactions(&self, targets: &[&EventId]) -> Result<()> {
        let targets = store::redaction::list_targets(&mut self.0.db.read().await?, targets).await?;
        for target in &targets {
            self.settle_target(target).await?;
        }
        Ok(())
    }

    /// Does what [`Rooms::settle_redactions`] does, for whoever has written the events: that holds, whatever becomes of this.
    /// What fails is left to the upkeep.
    pub(super) async fn try_to_settle_redactions(&self, targets: &[&EventId]) {
        if let Err(error) = self.settle_redactions(targets).await {
            tracing::warn!(%error, "redactions take effect later");
        }
    }

    /// Has the redactions take effect that have been left behind, because a process ended before it could do that. To be
    /// called now and then.
    pub(crate) async fn settle_overdue_redactions(&self) -> Result<()> {
        let mut last: Option<OwnedEventId> = None;
        loop {
            let mut conn = self.0.db.read().await?;
            let overdue = store::redaction::list_overdue(&mut conn, last.as_deref(), SETTLED_AT_ONCE).await?;
            drop(conn);
            for target in &overdue {
                // What is wrong with one is no reason to leave the others.
                if let Err(error) = self.settle_target(target).await {
                    tracing::warn!(%error, event_id = %target, "an event could not be redacted");
                }
            }
            let Some(end) = overdue.into_iter().last() else { return Ok(()) };
            last = Some(end);
        }
    }

    async fn settle_target(&self, target: &EventId) -> Result<()> {
        let Some(event) = store::event::find(&mut self.0.db.read().await?, target).await? else { return Ok(()) };
        let room = self.get_held(event.pdu.room_id()).await?.into_room();
        let mut redaction = Redaction::default();
        self.look_for_early(&room, &event.pdu, &mut redaction).await?;
        let mut tx = self.0.db.begin().await?;
        // Batches write to these tables too, so the log's lock comes first, then the event's row: as in a batch, and as
        // where history is placed, which takes only the second.
        store::log::lock(&mut tx).await?;
        let known = store::event::lock_known(&mut tx, &[target]).await?.remove(target);
        store::redaction::forget_early(&mut tx, target, &redaction.considered).await?;
        let redacted = redaction.redacted.filter(|_| known.is_some_and(|known| !known.is_redacted));
        let (Some(redacted), Some(known)) = (redacted, known) else { return Ok(tx.commit().await?) };
        let is_state = redacted.is_state();
        let fact = Fact::LateRedaction(LateRedaction { redacted, order: known.order });
        self.0.log.commit(tx, vec![fact]).await?;
        if is_state {
            // Events that were built on the unredacted state stay valid, but the pending head still holds the original.
            room.pending.lock().await.forget();
        }
        Ok(())
    }
}

impl Redaction {
    /// The event's target, if it has come since this was looked up, and redactions of the event that have.
    pub(super) fn list_news(&self, event: &Pdu, pending: &PendingHead, room: &Room) -> Vec<OwnedEventId> {
        let target = event.redacts().filter(|_| self.is_early);
        let is_news = |other: &&Pdu| {
            let redacts_it = || other.redacts() == Some(event.event_id());
            target.is_some_and(|target| target == other.event_id())
                || (redacts_it() && !self.considered.iter().any(|known| known == other.event_id()))
        };
        let id = |other: &Pdu| other.event_id().to_owned();
        let mut news: Vec<OwnedEventId> = pending.recent().filter(is_news).map(id).collect();
        news.extend(room.view(|view| view.recent().filter(is_news).map(id).collect::<Vec<_>>()));
        news
    }

    /// Notes that these have been durable when this was looked up: what they did to the event has been read, whether or not
    /// they are remembered.
    pub(super) fn consider(&mut self, news: Vec<OwnedEventId>) {
        self.considered.extend(news);
    }
}

/// Whether there is a redaction among so many events that were built or read last.
pub(super) fn is_redaction_among(newest: i64, pending: &PendingHead, room: &Room) -> bool {
    let newest = usize::try_from(newest).unwrap_or(usize::MAX);
    let redacts = |pdu: &Pdu| pdu.redacts().is_some();
    newest > RECENT
        || pending.recent().take(newest).any(redacts)
        || room.view(|view| view.recent().take(newest).any(redacts))
}

/// Whether a redaction has an effect on an event, in the state before the redaction.
pub(super) fn may_redact(redaction: &Pdu, target: &Pdu, before: &State) -> bool {
    let same_server = target.sender().server_name() == redaction.sender().server_name();
    let allowed =
        same_server || before.power_levels(redaction.rules()).user_can_redact_event_of_other(redaction.sender());
    allowed && target.room_id() == redaction.room_id() && target.redacted_because().is_none()
}
