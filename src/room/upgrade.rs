//! Replacing a room by one of another version.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-upgrades>

use std::collections::BTreeSet;

use ruma::{
    CanonicalJsonValue, EventId, Int, OwnedEventId, OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId,
    UserId,
    api::error::ErrorKind,
    events::{
        StateEventType, TimelineEventType,
        room::{
            member::MembershipState,
            power_levels::{RoomPowerLevels, RoomPowerLevelsEventContent, RoomPowerLevelsSource, UserPowerLevel},
        },
    },
    room_version_rules::RoomVersionRules,
};

use super::{
    Rooms, State,
    append::{ATTEMPTS, Appended, Founding, Head, Plan, Proposal, unsupported},
    create::{FirstEvents, InitialState},
    power::{find_map, read_levels, set_level, with_integers},
    predecessor::successor_in,
    preset::TOMBSTONE,
    profile_of::Profile,
    send::check_joined,
    state::membership_of,
    successor::Succession,
};
use crate::{
    error::{Error, Result},
    event::{Content, Draft, content},
    fact::Fact,
    room_version, store,
};

/// The state that a room hands on, beside power levels, bans, the spaces that it is in and the rooms that it holds.
const TRANSFERRED: [&str; 9] = [
    "m.room.server_acl",
    "m.room.encryption",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
    "m.room.canonical_alias",
];

/// How many bans, spaces and children are handed on in one write. The others follow.
const AT_ONCE: usize = 400;

/// An upgrade that somebody asks for.
#[derive(Clone, Debug)]
pub struct Upgrade {
    pub room_id: OwnedRoomId,
    pub by: OwnedUserId,
    pub version: RoomVersionId,
    /// Who is to have the creator's power too, where the version knows of that.
    pub additional_creators: Vec<OwnedUserId>,
}

impl Rooms {
    /// Founds the successor of a room and closes the old one, in one write. Returns the new identifier.
    ///
    /// A room has one successor: whoever comes later, or at the same time, gets the identifier of that, whatever version
    /// they ask for.
    pub async fn upgrade(&self, upgrade: &Upgrade) -> Result<OwnedRoomId> {
        let new_rules = room_version::rules(&upgrade.version).ok_or_else(|| unsupported(&upgrade.version))?;
        let profile = self.profile(&upgrade.by).await?;
        let mut void = None;
        for _ in 0..ATTEMPTS {
            let tombstone = match self.replace(upgrade, new_rules, &profile, void.as_deref()).await {
                // An alias has been taken from the room at the same moment.
                Err(Error::Refused { kind: ErrorKind::NotFound, .. })
                    if self.find(&upgrade.room_id).await?.is_some() =>
                {
                    continue;
                }
                Err(error) => return Err(error),
                Ok(Ok(new)) => {
                    self.hand_on_the_rest(upgrade, &new).await;
                    self.announce(Succession { by: &upgrade.by, old: &upgrade.room_id, new: &new }).await;
                    return Ok(new);
                }
                Ok(Err(tombstone)) => tombstone,
            };
            if let Some(successor) = self.find_successor(&upgrade.room_id, &tombstone).await? {
                return Ok(successor);
            }
            void = Some(tombstone);
        }
        Err(Error::Unavailable(format!("room {} gets new tombstones faster than it can be upgraded", upgrade.room_id)))
    }

    /// Founds the successor of a room, unless a tombstone other than `void` names one: then that is the inner error.
    async fn replace(
        &self,
        upgrade: &Upgrade,
        new_rules: &RoomVersionRules,
        profile: &Profile,
        void: Option<&EventId>,
    ) -> Result<Result<OwnedRoomId, OwnedEventId>> {
        let settings = self.settings_in(&upgrade.by, &upgrade.room_id).await?;
        let mut conn = self.0.db.read().await?;
        let aliases = store::alias::list(&mut conn, &upgrade.room_id).await?;
        let published = store::room::is_published(&mut conn, &upgrade.room_id).await?;
        drop(conn);
        let nonce = self.0.random.token(12);
        self.succeed(&upgrade.room_id, |head| {
            check_joined(&head.state, &upgrade.by)?;
            if !head.state.power_levels(head.rules).user_can_send_state(&upgrade.by, StateEventType::RoomTombstone) {
                return Err(Error::forbidden("You don't have the power to send m.room.tombstone in this room"));
            }
            let tombstone = head.state.find(&StateEventType::RoomTombstone);
            if let Some(tombstone) = tombstone.filter(|tombstone| Some(tombstone.event_id()) != void)
                && head.state.successor().is_some()
            {
                return Ok(Err(tombstone.event_id().to_owned()));
            }
            let proposals = upgrade.first_events(head, new_rules, profile, &nonce)?;
            let (state, old_rules) = (head.state.clone(), head.rules);
            let (aliases, settings) = (&aliases, &settings);
            let then = move |new: &RoomId| {
                let mut facts = moved(&upgrade.room_id, new, aliases, published);
                facts.extend(settings.carried_to(new));
                Plan { proposals: upgrade.last_events(&state, old_rules, new), facts, done_by: None }
            };
            Ok(Ok((Founding { version: upgrade.version.clone(), proposals }, then)))
        })
        .await
    }

    /// The room that a tombstone names, if that says itself that it takes the old one's place and somebody is in it.
    /// Whatever else a tombstone may name keeps nobody from upgrading the room.
    async fn find_successor(&self, old: &RoomId, tombstone: &EventId) -> Result<Option<OwnedRoomId>> {
        let tombstone = store::event::find(&mut self.0.db.read().await?, tombstone).await?;
        let Some(new) = tombstone.and_then(|event| successor_in(&event.pdu)) else { return Ok(None) };
        let Some(room) = self.find(&new).await? else { return Ok(None) };
        let (state, joined) = room.view(|view| (view.state.clone(), view.joined()));
        let takes_its_place = state.predecessor().is_some_and(|predecessor| predecessor == old);
        Ok((takes_its_place && joined > 0).then_some(new))
    }

    /// Hands on what was too much for one write, as far as whoever upgrades still has the power. The upgrade stands
    /// whatever becomes of this.
    async fn hand_on_the_rest(&self, upgrade: &Upgrade, new: &RoomId) {
        let Ok(old) = self.get(&upgrade.room_id).await else { return };
        let crowd = crowd(&old.state());
        let mut left_out = 0;
        for some in crowd.get(AT_ONCE..).unwrap_or_default().chunks(AT_ONCE) {
            let plan = |head: &Head| {
                let power = head.state.power_levels(head.rules);
                let allowed = some.iter().filter(|state| upgrade.may_set(&power, state));
                let proposals = allowed.map(|InitialState { kind, state_key, content }| {
                    Draft::state(upgrade.by.clone(), kind.clone(), &**state_key, content.clone()).into()
                });
                Ok(Plan { proposals: proposals.collect(), ..Plan::default() })
            };
            let handed_on = match self.append(new, plan).await {
                Ok(Appended::Done(events)) => events.len(),
                Ok(Appended::Before(_)) => 0,
                Err(error) => {
                    tracing::warn!(%error, room_id = %new, "a new room could not be given more of the old one");
                    0
                }
            };
            left_out += some.len() - handed_on;
        }
        if left_out > 0 {
            tracing::warn!(left_out, room_id = %new, "a new room did not get every ban, space and child of the old one");
        }
    }
}

impl Upgrade {
    /// How the new room begins.
    fn first_events(
        &self,
        old: &Head,
        new_rules: &RoomVersionRules,
        profile: &Profile,
        nonce: &str,
    ) -> Result<Vec<Proposal>> {
        let mut events = FirstEvents { creator: &self.by, proposals: Vec::new() };
        events.create(self.creation_content(old, new_rules), &self.version, new_rules, self.creators(new_rules), nonce);
        events.join(profile);
        let levels = self.power_levels(old, new_rules)?;
        let raised = self.raised_to_transfer(&levels, new_rules)?;
        let at_first = raised.as_ref().unwrap_or(&levels);
        events.state("m.room.power_levels", at_first.clone());
        for kind in TRANSFERRED {
            if let Some(content) = old.state.content(&StateEventType::from(kind)) {
                events.state(kind, content);
            }
        }
        let power = self.power(read_levels(at_first)?, new_rules);
        for state in crowd(&old.state).into_iter().take(AT_ONCE) {
            if self.may_set(&power, &state) {
                events.push(state.kind, state.state_key, state.content);
            }
        }
        if raised.is_some() {
            events.state("m.room.power_levels", levels);
        }
        Ok(events.proposals)
    }

    /// Who shares the creator's power, where the version knows of that.
    fn creators(&self, new_rules: &RoomVersionRules) -> &[OwnedUserId] {
        if new_rules.authorization.additional_room_creators { &self.additional_creators } else { &[] }
    }

    fn creation_content(&self, old: &Head, new_rules: &RoomVersionRules) -> Content {
        let mut predecessor = content([("room_id", self.room_id.as_str().into())]);
        // Since room version 12 the identifiers of the two rooms would depend on each other.
        if new_rules.event_format.require_room_create_room_id
            && let Some(last) = old.room.extremities.first()
        {
            predecessor.insert("event_id".to_owned(), last.as_str().into());
        }
        let mut new = content([("predecessor", predecessor.into())]);
        let created: Content = old.state.content(&StateEventType::RoomCreate).unwrap_or_default();
        for key in ["type", "m.federate"] {
            new.extend(created.get(key).map(|value| (key.to_owned(), value.clone())));
        }
        new
    }

    /// The old room's power levels, with whatever else is written there, as far as the new room's version allows.
    fn power_levels(&self, old: &Head, new_rules: &RoomVersionRules) -> Result<Content> {
        let written = old.state.content(&StateEventType::RoomPowerLevels);
        // Until somebody says otherwise, who made the room has power.
        let implied = || {
            let mut levels = Content::new();
            for (user, level) in old.state.power_levels(old.rules).users {
                set_level(&mut levels, "users", user.as_str(), level);
            }
            levels
        };
        let mut levels = written.map_or_else(implied, with_integers);
        let known = read_levels(&levels)?;
        if new_rules.authorization.explicitly_privilege_room_creators {
            if let Some(users) = find_map(&mut levels, "users") {
                let creators = self.creators(new_rules);
                users.retain(|user, _| *user != self.by && creators.iter().all(|creator| creator != user));
            }
            let above = known.state_default.saturating_add(Int::from(1));
            if known.events.get(&TimelineEventType::RoomTombstone).is_none_or(|level| *level < above) {
                let level = above.max(Int::from(TOMBSTONE));
                set_level(&mut levels, "events", "m.room.tombstone", level);
            }
        } else if old.state.power_levels(old.rules).for_user(&self.by) == UserPowerLevel::Infinite {
            let highest = known.users.values().chain(known.events.values()).copied().max().unwrap_or_default();
            set_level(&mut levels, "users", self.by.as_str(), highest.max(Int::from(100)));
        }
        Ok(levels)
    }

    /// Power levels under which the new room's state can be sent, if it takes more power than who upgrades has.
    fn raised_to_transfer(&self, levels: &Content, new_rules: &RoomVersionRules) -> Result<Option<Content>> {
        let known = read_levels(levels)?;
        let highest = known.events.values().copied().fold(known.state_default.max(known.ban), Int::max);
        if self.power(known, new_rules).for_user(&self.by) >= highest {
            return Ok(None);
        }
        let mut raised = levels.clone();
        set_level(&mut raised, "users", self.by.as_str(), highest);
        Ok(Some(raised))
    }

    /// Whether whoever upgrades may hand on a ban, a space or a child.
    fn may_set(&self, power: &RoomPowerLevels, state: &InitialState) -> bool {
        let InitialState { kind, state_key, .. } = state;
        if *kind == TimelineEventType::RoomMember {
            return <&UserId>::try_from(&**state_key).is_ok_and(|user| power.user_can_ban_user(&self.by, user));
        }
        // What is kept under a user's name is theirs to say.
        let is_anothers = state_key.starts_with('@') && state_key.as_str() != self.by.as_str();
        !is_anothers && power.user_can_send_state(&self.by, kind.to_string().into())
    }

    fn power(&self, levels: RoomPowerLevelsEventContent, new_rules: &RoomVersionRules) -> RoomPowerLevels {
        let creators: BTreeSet<OwnedUserId> = self.creators(new_rules).iter().chain([&self.by]).cloned().collect();
        RoomPowerLevels::new(RoomPowerLevelsSource::Original(levels), &new_rules.authorization, creators)
    }

    /// What closes the old room: the sign on the door and, as far as power goes, nobody speaks or invites any more.
    fn last_events(&self, old: &State, old_rules: &RoomVersionRules, new: &RoomId) -> Vec<Proposal> {
        let power = old.power_levels(old_rules);
        let mut events = FirstEvents { creator: &self.by, proposals: Vec::new() };
        let sign = [("body", "This room has been replaced".into()), ("replacement_room", new.as_str().into())];
        events.state("m.room.tombstone", content(sign));
        if old.find(&StateEventType::RoomCanonicalAlias).is_some()
            && power.user_can_send_state(&self.by, StateEventType::RoomCanonicalAlias)
        {
            events.state("m.room.canonical_alias", Content::new());
        }
        let silent = Int::from(50).max(power.users_default.saturating_add(Int::from(1)));
        let mut levels: Content = old.content(&StateEventType::RoomPowerLevels).unwrap_or_default();
        let mut changed = false;
        for (key, level) in [("events_default", power.events_default), ("invite", power.invite)] {
            if level < silent {
                levels.insert(key.to_owned(), CanonicalJsonValue::Integer(silent));
                changed = true;
            }
        }
        let can =
            power.user_can_send_state(&self.by, StateEventType::RoomPowerLevels) && power.for_user(&self.by) >= silent;
        if changed && can {
            events.state("m.room.power_levels", levels);
        }
        events.proposals
    }
}

/// State that there may be much of: who is banned, the children of a space, and the spaces that the room is in. Bans
/// come first, because they may take power that whoever upgrades has only for the first write.
fn crowd(old: &State) -> Vec<InitialState> {
    let mut crowd = Vec::new();
    for kind in [TimelineEventType::SpaceChild, TimelineEventType::SpaceParent] {
        for (state_key, pdu) in old.of_kind(&kind.to_string()) {
            let content: Content = pdu.content_as().unwrap_or_default();
            // One without `via` has been removed.
            if content.contains_key("via") {
                crowd.push(InitialState { kind: kind.clone(), state_key: state_key.to_owned(), content });
            }
        }
    }
    for (user, pdu) in old.members() {
        if membership_of(pdu) == MembershipState::Ban {
            let content = pdu.content_as().unwrap_or_default();
            crowd.push(InitialState { kind: TimelineEventType::RoomMember, state_key: user.to_string(), content });
        }
    }
    let order = |state: &InitialState| (state.kind != TimelineEventType::RoomMember, state.state_key.clone());
    crowd.sort_by_cached_key(order);
    crowd
}

/// The old room's names and its place in the directory, moved to the new one.
fn moved(old: &RoomId, new: &RoomId, aliases: &[(OwnedRoomAliasId, OwnedUserId)], published: bool) -> Vec<Fact> {
    let mut facts = Vec::new();
    for (alias, creator) in aliases {
        facts.push(Fact::AliasRemoved { alias: alias.clone(), room_id: old.to_owned() });
        facts.push(Fact::AliasAdded { alias: alias.clone(), room_id: new.to_owned(), creator: creator.clone() });
    }
    if published {
        facts.push(Fact::Published { room_id: old.to_owned(), listed: false });
        facts.push(Fact::Published { room_id: new.to_owned(), listed: true });
    }
    facts
}
