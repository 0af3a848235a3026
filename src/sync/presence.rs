//! Whose presence is news to a client: of whoever shares a room with its user, what has changed since it last asked,
//! and how those are with whom a room has become shared since.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#presence>

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use ruma::{
    OwnedUserId, RoomId, UserId,
    events::{presence::PresenceEvent, room::member::MembershipState},
};

use super::{Request, Syncs, watch::Watcher};
use crate::{
    error::Result,
    fact::Presence,
    position::Position,
    room::{filter::EventFilter as _, state::membership_of},
};

type Found = BTreeMap<OwnedUserId, Arc<Presence>>;

impl Syncs {
    /// The presence of others that the client does not know yet, up to a place.
    pub(super) async fn presence(
        &self,
        request: &Request,
        watcher: &Watcher,
        until: Position,
    ) -> Result<Vec<PresenceEvent>> {
        let filter = &request.filter.presence;
        if !self.0.presence.is_enabled() || !filter.passes_kind("m.presence") {
            return Ok(Vec::new());
        }
        let mut found = match request.since {
            Some(since) => self.changed_presence(watcher, since, until).await?,
            None => self.0.presence.find_present(&request.user_id).map(by_user).into_iter().collect(),
        };
        self.add_newly_shared(request, watcher, &mut found).await?;
        found.retain(|user_id, _| filter.passes_sender(user_id));
        Ok(found.values().map(|presence| self.0.presence.event(presence)).collect())
    }

    /// Whose presence has changed, of those who share a room with the watcher.
    async fn changed_presence(&self, watcher: &Watcher, since: Position, until: Position) -> Result<Found> {
        let watchers = &self.0.watchers;
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
    async fn add_newly_shared(&self, request: &Request, watcher: &Watcher, found: &mut Found) -> Result<()> {
        let rooms = request.since.map_or_else(|| watcher.rooms(), |since| watcher.changed_rooms(since));
        let mut present = None;
        for (room_id, membership) in rooms {
            if membership.state != MembershipState::Join {
                continue;
            }
            let known = request.since.filter(|since| membership.entered <= *since);
            match known.and_then(|since| self.0.watchers.newcomers(&room_id, since)) {
                Some(newcomers) if newcomers.is_empty() => {}
                Some(newcomers) => {
                    let newcomers = newcomers.iter().filter_map(|user_id| self.0.presence.find_present(user_id));
                    self.add_members(&room_id, newcomers, found).await?;
                }
                None => {
                    let present = present.get_or_insert_with(|| self.0.presence.list_present());
                    self.add_all_members(&room_id, present, found).await?;
                }
            }
        }
        Ok(())
    }

    /// Adds those of these who are in a room.
    async fn add_members(
        &self,
        room_id: &RoomId,
        present: impl Iterator<Item = Arc<Presence>>,
        found: &mut Found,
    ) -> Result<()> {
        let Some(room) = self.0.rooms.find(room_id).await? else { return Ok(()) };
        let state = room.state();
        let members = present.filter(|presence| state.membership(&presence.user_id) == MembershipState::Join);
        found.extend(members.map(by_user));
        Ok(())
    }

    /// Adds everybody in a room who is not offline; `present` lists all of these, in any room.
    async fn add_all_members(&self, room_id: &RoomId, present: &[Arc<Presence>], found: &mut Found) -> Result<()> {
        let Some(room) = self.0.rooms.find(room_id).await? else { return Ok(()) };
        let (state, joined) = room.view(|view| (view.state.clone(), view.joined()));
        if joined < present.len() {
            let members = state.members().filter(|(_, pdu)| membership_of(pdu) == MembershipState::Join);
            let present = members.filter_map(|(user_id, _)| self.0.presence.find_present(user_id));
            found.extend(present.map(by_user));
            return Ok(());
        }
        self.add_members(room_id, present.iter().cloned(), found).await
    }
}

fn by_user(presence: Arc<Presence>) -> (OwnedUserId, Arc<Presence>) {
    (presence.user_id.clone(), presence)
}
