//! Whose presence is news to a client: of whoever shares a room with its user, what has changed since it last asked,
//! and how those are with whom a room has become shared since.
//!
//! It is worked out from what is in memory wherever possible. Where that does not reach back far enough, rather too
//! much is sent than too little: presence that a client knows already does no harm.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#presence>

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, UserId,
    events::{presence::PresenceEvent, room::member::MembershipState},
};

use super::{
    SyncRequest, Syncs,
    watcher::{WatchedMembership, Watcher},
};
use crate::{
    error::Result,
    event::fact::Presence,
    ground::position::Position,
    room::{graph::state::Member, read::filter::EventFilter as _},
};

/// At most one presence of each user: the newest.
type PresenceByUser = BTreeMap<OwnedUserId, Arc<Presence>>;

impl Syncs {
    /// The presence of others that the client does not know yet, up to a place. `news` are the rooms of which it does not
    /// know everything.
    pub(super) async fn presence(
        &self,
        request: &SyncRequest,
        watcher: &Watcher,
        news: Vec<(OwnedRoomId, WatchedMembership)>,
        until: Position,
    ) -> Result<Vec<PresenceEvent>> {
        let filter = &request.wanted.presence;
        if !self.0.presence.is_enabled() || !filter.passes_kind("m.presence") {
            return Ok(Vec::new());
        }
        let mut found = match request.since {
            Some(since) => self.changed_presence(watcher, since, until).await?,
            // Whoever begins hears of themselves; of others with their rooms.
            None => self.0.presence.find_present(&request.client.user_id).map(by_user).into_iter().collect(),
        };
        self.add_newly_shared(request, news, &mut found).await?;
        found.retain(|user_id, _| filter.passes_sender(user_id));
        Ok(found.values().map(|presence| self.0.presence.event(presence)).collect())
    }

    /// Whose presence has changed, of those who share a room with the watcher.
    async fn changed_presence(&self, watcher: &Watcher, since: Position, until: Position) -> Result<PresenceByUser> {
        let watchers = &self.0.watchers;
        // What is not known is let through here, and looked up together below.
        let may_share = |user_id: &UserId| watchers.share_room(watcher, user_id).unwrap_or(true);
        let mut changed = self.0.presence.since(since, until, may_share).await?;
        let unknown: Vec<OwnedUserId> = changed
            .iter()
            .filter(|presence| watchers.share_room(watcher, &presence.user_id).is_none())
            .map(|presence| presence.user_id.clone())
            .collect();
        if !unknown.is_empty() {
            let sharing = watchers.look_up_sharing(watcher, &unknown).await?;
            let unknown: HashSet<OwnedUserId> = unknown.into_iter().collect();
            changed.retain(|presence| !unknown.contains(&presence.user_id) || sharing.contains(&presence.user_id));
        }
        Ok(changed.into_iter().map(by_user).collect())
    }

    /// Adds those who are not offline in rooms that the user has entered since, and whoever has entered one of the
    /// user's rooms.
    ///
    /// Nothing is said of somebody's presence when they come into a room, so it has to be looked up.
    async fn add_newly_shared(
        &self,
        request: &SyncRequest,
        rooms: Vec<(OwnedRoomId, WatchedMembership)>,
        found: &mut PresenceByUser,
    ) -> Result<()> {
        let (mut new_to_user, mut forgotten) = (Vec::new(), Vec::new());
        for (room_id, membership) in rooms {
            if membership.state != MembershipState::Join {
                continue;
            }
            // Entered since, or not known at all: everybody there is new to the user.
            let Some(since) = request.since.filter(|since| membership.entered <= *since) else {
                new_to_user.push(room_id);
                continue;
            };
            // In a room that they knew, only who has come since.
            match self.0.watchers.newcomers(&room_id, since) {
                Some(newcomers) if newcomers.is_empty() => {}
                Some(newcomers) => {
                    let newcomers = newcomers.iter().filter_map(|user_id| self.0.presence.find_present(user_id));
                    self.add_members(&room_id, newcomers, found).await?;
                }
                None => forgotten.push(room_id),
            }
        }
        if let Some(since) = request.since.filter(|_| !forgotten.is_empty()) {
            // Whoever was away while this node was started need not hear again of everybody whom they know to be there.
            match self.0.watchers.look_up_newcomers(&forgotten, since).await? {
                Some(newcomers) => {
                    let newcomers = newcomers.iter().filter_map(|user_id| self.0.presence.find_present(user_id));
                    found.extend(newcomers.map(by_user));
                }
                // Too many to be read one by one, so as if the room were new.
                None => new_to_user.extend(forgotten),
            }
        }
        // Read once for all rooms, and only if there is one.
        let mut present = None;
        for room_id in new_to_user {
            let present = present.get_or_insert_with(|| self.0.presence.list_present());
            self.add_all_members(&room_id, present, found).await?;
        }
        Ok(())
    }

    /// Adds those of these who are in a room.
    async fn add_members(
        &self,
        room_id: &RoomId,
        present: impl Iterator<Item = Arc<Presence>>,
        found: &mut PresenceByUser,
    ) -> Result<()> {
        let Some(room) = self.0.rooms.find(room_id).await? else { return Ok(()) };
        let state = room.state();
        // By the room's state now, so that nobody is shown who has left again.
        let members = present.filter(|presence| state.membership(&presence.user_id) == MembershipState::Join);
        found.extend(members.map(by_user));
        Ok(())
    }

    /// Adds everybody in a room who is not offline; `present` lists all of these, in any room.
    async fn add_all_members(
        &self,
        room_id: &RoomId,
        present: &[Arc<Presence>],
        found: &mut PresenceByUser,
    ) -> Result<()> {
        let Some(room) = self.0.rooms.find(room_id).await? else { return Ok(()) };
        let (state, joined) = room.view(|view| (view.state.clone(), view.joined()));
        // Whichever are fewer, the members or those who are there, are gone through.
        if joined < present.len() {
            let members = state.members().filter(Member::has_joined);
            let present = members.filter_map(|member| self.0.presence.find_present(member.user_id));
            found.extend(present.map(by_user));
            return Ok(());
        }
        self.add_members(room_id, present.iter().cloned(), found).await
    }
}

fn by_user(presence: Arc<Presence>) -> (OwnedUserId, Arc<Presence>) {
    (presence.user_id.clone(), presence)
}
