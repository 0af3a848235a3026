//! The event stream of old: what was said in a user's rooms, or in one room that they look into, in the order of the
//! log. Unlike `/sync` it leaves nothing out: what is too much for one answer comes with the next.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3events> and, for room previews,
//! <https://spec.matrix.org/v1.19/client-server-api/#peeking_get_matrixclientv3events>

use ruma::{
    OwnedDeviceId, OwnedRoomId, OwnedUserId, RoomId,
    api::{Direction, client::filter::RoomEventFilter},
    events::{AnyTimelineEvent, TimelineEventType, room::member::MembershipState},
    serde::Raw,
};
use tokio::sync::watch;

use super::{Syncs, watch::Membership};
use crate::{
    error::{Error, Result},
    event::{ClientFormat, client_event},
    position::Position,
    room::{reading::Reading, timeline::Walk},
};

/// How many events come at once.
const LIMIT: usize = 100;

/// Who listens, and to what.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) user_id: OwnedUserId,
    pub(crate) device_id: OwnedDeviceId,
    /// The room that they look into. None for all that they are in.
    pub(crate) room: Option<OwnedRoomId>,
}

/// What was said.
#[derive(Debug)]
pub(crate) struct Heard {
    /// Oldest first.
    pub(crate) events: Vec<Raw<AnyTimelineEvent>>,
    /// Up to here.
    pub(crate) until: Position,
    /// Whether there may be more behind that already.
    pub(crate) more: bool,
}

/// A stretch of the log, with what is known of it so far.
struct Stretch {
    from: Position,
    until: Position,
    events: Vec<(Position, Raw<AnyTimelineEvent>)>,
}

impl Stretch {
    /// Puts the events in order, and cuts the stretch off behind as many as go into one answer.
    fn trim(&mut self) {
        self.events.retain(|(at, _)| *at <= self.until);
        self.events.sort_by_key(|(at, _)| *at);
        self.events.dedup_by_key(|(at, _)| *at);
        if self.events.len() > LIMIT {
            self.events.truncate(LIMIT);
            self.until = self.events.last().map_or(self.until, |(at, _)| *at);
        }
    }
}

impl Syncs {
    /// Rings whenever there may be something to hear. `M_FORBIDDEN` where the listener may not look into the room.
    pub(crate) async fn bell(&self, listener: &Listener) -> Result<watch::Receiver<Position>> {
        match &listener.room {
            Some(room_id) => {
                self.0.rooms.open(room_id, &listener.user_id).await?;
                Ok(self.0.watchers.onlook(room_id))
            }
            None => Ok(self.watcher(&listener.user_id).await?.wakes()),
        }
    }

    /// What was said after `from`, which has been checked, up to where this node has read.
    pub(crate) async fn hear(&self, listener: &Listener, from: Position) -> Result<Heard> {
        let reached = self.0.rooms.log().tail().reached();
        let mut stretch = Stretch { from, until: reached, events: Vec::new() };
        match &listener.room {
            Some(room_id) => {
                let reading = self.0.rooms.open(room_id, &listener.user_id).await?;
                self.listen(listener, reading, reached, &mut stretch).await?;
            }
            None => {
                for (room_id, membership) in self.watcher(&listener.user_id).await?.changed_rooms(from) {
                    self.listen_as_member(listener, &room_id, &membership, &mut stretch).await?;
                    if stretch.events.len() > 2 * LIMIT {
                        stretch.trim();
                    }
                }
            }
        }
        stretch.trim();
        let events = stretch.events.into_iter().map(|(_, event)| event).collect();
        Ok(Heard { events, until: stretch.until, more: stretch.until < reached })
    }

    /// Adds what concerns the listener of a room that they have to do with.
    async fn listen_as_member(
        &self,
        listener: &Listener,
        room_id: &RoomId,
        membership: &Membership,
        stretch: &mut Stretch,
    ) -> Result<()> {
        let is_in = membership.state == MembershipState::Join;
        let last = if is_in { stretch.until } else { stretch.until.min(membership.position) };
        if membership.forgotten || last <= stretch.from {
            return Ok(());
        }
        match self.0.rooms.open(room_id, &listener.user_id).await {
            Ok(reading) if reading.sight.was_member() => self.listen(listener, reading, last, stretch).await?,
            Ok(_) | Err(Error::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
        if is_in { Ok(()) } else { self.listen_outside(listener, room_id, membership, stretch).await }
    }

    /// Adds what the listener may read of a room, up to `last`.
    async fn listen(&self, listener: &Listener, reading: Reading, last: Position, stretch: &mut Stretch) -> Result<()> {
        let mut reading = reading.ignoring(self.0.account_data.ignored(&listener.user_id).await?);
        let filter = RoomEventFilter::default();
        let between = (Some(stretch.from), Some(last.min(stretch.until)));
        let walk = Walk::new(&reading, Direction::Forward, between, LIMIT, &filter);
        let page = self.0.rooms.page(&mut reading, &walk).await?;
        let now = self.0.clock.now();
        let written = page.events.iter().map(|event| {
            let format = reading.format(event, &listener.device_id, now);
            (event.position, client_event(&event.pdu, &format))
        });
        stretch.events.extend(written);
        stretch.until = page.end.map_or(stretch.until, |end| end.min(stretch.until));
        Ok(())
    }

    /// Adds the event that made the listener's membership what it is, which they are told of whatever else is hidden
    /// from them: an invitation, or the end of one.
    async fn listen_outside(
        &self,
        listener: &Listener,
        room_id: &RoomId,
        membership: &Membership,
        stretch: &mut Stretch,
    ) -> Result<()> {
        let at = membership.position;
        if at <= stretch.from || at > stretch.until {
            return Ok(());
        }
        let Some(room) = self.0.rooms.find(room_id).await? else { return Ok(()) };
        let (mut events, _) = self.0.rooms.newest(&room, at.before(), at, 1).await?;
        self.0.rooms.withhold(room_id, &listener.user_id, &mut events).await?;
        let own = events.iter().find(|event| {
            *event.pdu.kind() == TimelineEventType::RoomMember
                && event.pdu.state_key() == Some(listener.user_id.as_str())
        });
        let Some(own) = own else { return Ok(()) };
        let is_invite = membership.state == MembershipState::Invite;
        if is_invite && !self.0.shows_invite(&listener.user_id, Some(own.pdu.sender())).await? {
            return Ok(());
        }
        let now = Some(self.0.clock.now());
        let format = ClientFormat { with_room_id: true, now, ..ClientFormat::default() };
        stretch.events.push((at, client_event(&own.pdu, &format)));
        Ok(())
    }
}
