//! The event stream of old: what was said in a user's rooms, or in one room that they look into, in the order of the
//! log. Unlike `/sync` it leaves nothing out: what is too much for one answer comes with the next.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3events> and, for room previews,
//! <https://spec.matrix.org/v1.19/client-server-api/#peeking_get_matrixclientv3events>

use ruma::{
    OwnedRoomId, RoomId,
    api::Direction,
    events::{AnyTimelineEvent, TimelineEventType, room::member::MembershipState},
    serde::Raw,
};
use tokio::sync::watch;

use super::{
    Syncs,
    client::Client,
    waits::Wait,
    watcher::{WatchedMembership, Watcher},
};
use crate::{
    error::{Error, Result},
    event::{ClientFormat, client_event, fact::OutsideState},
    ground::position::{Order, Position},
    room::read::{reading::ReadableRoom, timeline::Walk},
};

/// How many events come at once.
const LIMIT: usize = 100;

/// Who listens, and to what.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) client: Client,
    /// The room that they look into. None for all that they are in.
    pub(crate) room: Option<OwnedRoomId>,
}

/// What was said.
#[derive(Debug)]
pub(crate) struct StreamPage {
    /// Oldest first.
    pub(crate) events: Vec<Raw<AnyTimelineEvent>>,
    /// Up to here.
    pub(crate) until: Position,
    /// Whether there may be more behind that already.
    pub(crate) more: bool,
}

/// A stretch of the log, with what is known of it so far.
struct StreamStretch {
    /// Where the client goes on.
    from: Position,
    /// What has been heard up to here is all there was.
    until: Position,
    /// Each with its place, in no order until [`StreamStretch::trim`].
    events: Vec<(Position, Raw<AnyTimelineEvent>)>,
}

impl StreamStretch {
    /// Puts the events in order, and cuts the stretch off behind as many as go into one answer.
    fn trim(&mut self) {
        self.events.retain(|(at, _)| *at <= self.until);
        // An event may come twice: as part of a room, and as what changed the listener's membership.
        self.events.sort_by_key(|(at, _)| *at);
        self.events.dedup_by_key(|(at, _)| *at);
        if self.events.len() > LIMIT {
            self.events.truncate(LIMIT);
            // The rest is heard with the next request.
            self.until = self.events.last().map_or(self.until, |(at, _)| *at);
        }
    }
}

impl Syncs {
    /// Rings whenever there may be something to hear. `M_FORBIDDEN` where the listener may not look into the room.
    pub(crate) async fn wake_ups(&self, listener: &Listener) -> Result<watch::Receiver<Position>> {
        match &listener.room {
            Some(room_id) => {
                self.0.rooms.open(room_id, &listener.client.user_id).await?;
                Ok(self.0.watchers.watch_room(room_id))
            }
            None => Ok(self.watcher(&listener.client.user_id).await?.wakes()),
        }
    }

    /// Begins to wait for news as one of so many requests of a device, see [`super::waits`].
    pub(crate) fn begin_to_wait(&self, client: &Client) -> Wait {
        self.0.waits.begin(client)
    }

    /// What was said after `from`, which has been checked, up to where this node has read.
    pub(crate) async fn read_stream(&self, listener: &Listener, from: Position) -> Result<StreamPage> {
        let reached = self.0.rooms.log().tail().reached();
        let mut stretch = StreamStretch { from, until: reached, events: Vec::new() };
        if let Some(room_id) = &listener.room {
            let reading = self.0.rooms.open(room_id, &listener.client.user_id).await?;
            self.listen(listener, reading, reached, &mut stretch).await?;
        } else {
            let watcher = self.watcher(&listener.client.user_id).await?;
            self.listen_from_outside(listener, &watcher, &mut stretch).await?;
            for (room_id, membership) in watcher.changed_rooms(from) {
                self.listen_as_member(listener, &room_id, &membership, &mut stretch).await?;
                // With the stretch cut off, the rooms that follow are asked for less.
                if stretch.events.len() > 2 * LIMIT {
                    stretch.trim();
                }
            }
        }
        stretch.trim();
        let events = stretch.events.into_iter().map(|(_, event)| event).collect();
        Ok(StreamPage { events, until: stretch.until, more: stretch.until < reached })
    }

    /// Adds what concerns the listener of a room that they have to do with.
    async fn listen_as_member(
        &self,
        listener: &Listener,
        room_id: &RoomId,
        membership: &WatchedMembership,
        stretch: &mut StreamStretch,
    ) -> Result<()> {
        let is_in = membership.state == MembershipState::Join;
        // Of a room that was left nothing is heard that came later, but what changed the membership.
        let last = if is_in { stretch.until } else { stretch.until.min(membership.position) };
        if membership.forgotten || last <= stretch.from {
            return Ok(());
        }
        match self.0.rooms.open(room_id, &listener.client.user_id).await {
            Ok(reading) if reading.sight.was_member() => self.listen(listener, reading, last, stretch).await?,
            // Nothing but their own membership is for them, and that comes below.
            Ok(_) | Err(Error::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
        if is_in { Ok(()) } else { self.listen_outside(listener, room_id, membership, stretch).await }
    }

    /// Adds what the listener may read of a room, up to `last`.
    async fn listen(
        &self,
        listener: &Listener,
        reading: ReadableRoom,
        last: Position,
        stretch: &mut StreamStretch,
    ) -> Result<()> {
        let mut reading = reading.ignoring(self.0.account_data.ignored(&listener.client.user_id).await?);
        // What was before everything that the log has told of is not heard.
        let from = Order::at(stretch.from).max(Order(0));
        let between = (Some(from), Some(Order::at(last.min(stretch.until))));
        let mut walk = Walk::over_everything(&reading, Direction::Forward, between, LIMIT);
        let mut page = self.0.rooms.page(&mut reading, &walk).await?;
        // A page on which nothing is heard leads on, so that the stretch does not end with it.
        while let Some(end) = page.end
            && page.events.iter().all(|event| event.order.position().is_none())
        {
            walk.from = end;
            page = self.0.rooms.page(&mut reading, &walk).await?;
        }
        let now = self.0.clock.now();
        // What was fetched from other servers later stands between positions, and is not heard.
        let written = page.events.iter().filter_map(|event| {
            let format = reading.format(event, &listener.client.device_id, now);
            Some((event.order.position()?, client_event(&event.pdu, &format)))
        });
        stretch.events.extend(written);
        // Where this room is not heard to the end, no room is heard beyond that place.
        stretch.until = page.end.map_or(stretch.until, |end| end.floor().min(stretch.until));
        Ok(())
    }

    /// Adds the event that made the listener's membership what it is, which they get whatever else is hidden from them:
    /// an invitation, or the end of one.
    async fn listen_outside(
        &self,
        listener: &Listener,
        room_id: &RoomId,
        membership: &WatchedMembership,
        stretch: &mut StreamStretch,
    ) -> Result<()> {
        let at = membership.position;
        if at <= stretch.from || at > stretch.until {
            return Ok(());
        }
        let Some(room) = self.0.rooms.find_held(room_id).await? else { return Ok(()) };
        let (mut events, _) = self.0.rooms.newest(&room, Order::at(at).before(), Order::at(at), 1).await?;
        self.0.rooms.withhold(room_id, &listener.client.user_id, &mut events).await?;
        let own = events.iter().find(|event| {
            *event.pdu.kind() == TimelineEventType::RoomMember
                && event.pdu.state_key() == Some(listener.client.user_id.as_str())
        });
        let Some(own) = own else { return Ok(()) };
        let is_invite = membership.state == MembershipState::Invite;
        if is_invite && !self.0.shows_invite(&listener.client.user_id, Some(own.pdu.sender())).await? {
            return Ok(());
        }
        let now = Some(self.0.clock.now());
        let format = ClientFormat { with_room_id: true, now, ..ClientFormat::default() };
        stretch.events.push((at, client_event(&own.pdu, &format)));
        Ok(())
    }

    /// Adds the events that make the listener invited to rooms that this server holds no history of, or knock on them,
    /// or end that, where they are known.
    async fn listen_from_outside(
        &self,
        listener: &Listener,
        watcher: &Watcher,
        stretch: &mut StreamStretch,
    ) -> Result<()> {
        let news = watcher.outside_after(stretch.from);
        if news.is_empty() {
            return Ok(());
        }
        let rooms: Vec<&RoomId> = news.iter().map(|(room_id, _)| &**room_id).collect();
        let format = ClientFormat { with_room_id: true, now: Some(self.0.clock.now()), ..ClientFormat::default() };
        for (at, told) in self.0.watchers.look_up_outside(&listener.client.user_id, &rooms).await? {
            let is_invite = told.state == OutsideState::Invited;
            if is_invite && !self.0.shows_invite(&listener.client.user_id, Some(&told.sender)).await? {
                continue;
            }
            stretch.events.extend(told.event.map(|event| (at, client_event(&event.pdu, &format))));
        }
        Ok(())
    }
}
