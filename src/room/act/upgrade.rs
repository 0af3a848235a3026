//! Replacing a room by one of another version.
//!
//! The new room's first events and the old room's tombstone are one write, so there is no moment at which one of them
//! is missing. What is too much for one write (bans, the children of a space) follows, and may be cut short; nothing
//! depends on it.
//!
//! Of several upgrades of a room at once the log takes one. The others are built again, find its tombstone and return
//! the room that this names, provided that the room says itself that it replaces the old one.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-upgrades>
//!
//! Locks: only the old room's is held while both are built; of the new one nobody knows yet. That of the new room is
//! taken later, when the rest is carried over.

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
    create::{FirstEvents, InitialState},
    member_profile::MemberProfile,
    power::{find_map, read_levels, set_level, with_integers},
    predecessor::{RoomSettings, successor_in},
    preset::TOMBSTONE,
    send::check_joined,
    successor::Succession,
};
use crate::{
    error::{Error, Result},
    event::{
        Content, Draft, content,
        fact::{Fact, ListingChange},
    },
    ground::room_version,
    room::{
        Rooms, State,
        graph::{
            append::{ATTEMPTS, Appended, NewRoomEvents, Plan, Proposal, unsupported},
            head::Head,
        },
    },
    store,
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
    ///
    /// `M_UNSUPPORTED_ROOM_VERSION`, `M_FORBIDDEN` for who is not in the room or may not send `m.room.tombstone`.
    ///
    /// The caller has to see it through where the client hangs up: the rest is carried over after the write.
    pub async fn upgrade(&self, upgrade: &Upgrade) -> Result<OwnedRoomId> {
        let new_rules = room_version::rules(&upgrade.version).ok_or_else(|| unsupported(&upgrade.version))?;
        // A tombstone that was looked into and names no successor of this room: it does not count the next time.
        let mut void = None;
        let mut brings_settings = true;
        for _ in 0..ATTEMPTS {
            let attempt = self.replace(upgrade, new_rules, void.as_deref(), brings_settings);
            let tombstone = match attempt.await {
                // Whoever upgrades has no space for what they would take along, and goes without it. If it is rooms that
                // they may not make more of, the next attempt fails as well.
                Err(Error::Refused { kind: ErrorKind::UserLimitExceeded(_), .. }) if brings_settings => {
                    brings_settings = false;
                    continue;
                }
                // An alias has been taken from the room at the same moment.
                Err(Error::Refused { kind: ErrorKind::NotFound, .. })
                    if self.find_held(&upgrade.room_id).await?.is_some() =>
                {
                    continue;
                }
                // Another device of whoever upgrades has changed what they take along, or what they are called.
                Err(Error::Conflict) => continue,
                Err(error) => return Err(error),
                Ok(Ok(new)) => {
                    self.carry_over_rest(upgrade, &new).await;
                    self.update_referring_rooms(Succession { by: &upgrade.by, old: &upgrade.room_id, new: &new }).await;
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
    /// The outer error is that of the attempt.
    async fn replace(
        &self,
        upgrade: &Upgrade,
        new_rules: &RoomVersionRules,
        void: Option<&EventId>,
        brings_settings: bool,
    ) -> Result<Result<OwnedRoomId, OwnedEventId>> {
        let profile = self.profile(&upgrade.by).await?;
        let settings = if brings_settings {
            self.settings_in(&upgrade.by, &upgrade.room_id).await?
        } else {
            RoomSettings::default()
        };
        let mut conn = self.0.db.read().await?;
        let aliases = store::alias::list(&mut conn, &upgrade.room_id).await?;
        let published = store::room::is_published(&mut conn, &upgrade.room_id).await?;
        // Not held while the room is loaded, which takes a connection of its own, or its lock is waited for.
        drop(conn);
        let nonce = self.0.random.token(12);
        self.create_successor(&upgrade.room_id, |head| {
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
            let proposals = upgrade.first_events(head, new_rules, &profile, &nonce)?;
            let (state, old_rules) = (head.state.clone(), head.rules);
            let (aliases, settings) = (&aliases, &settings);
            let made = self.0.quotas.rooms(&upgrade.by, self.now().get().into());
            let kept = self.0.quotas.account_data(&upgrade.by);
            let then = move |new: &RoomId| {
                let mut facts = moved(&upgrade.room_id, new, aliases, published);
                facts.extend(settings.carried_to(new));
                let proposals = upgrade.last_events(&state, old_rules, new);
                Plan { proposals, facts, ..Plan::default() }.within(made).within(kept)
            };
            Ok(Ok((NewRoomEvents { version: upgrade.version.clone(), proposals }, then)))
        })
        .await
    }

    /// The room that a tombstone names, if that says itself that it takes the old one's place and somebody of this
    /// server is in it. Whatever else a tombstone may name keeps nobody from upgrading the room. Looked up outside of
    /// the old room's lock, as it may have to be loaded.
    async fn find_successor(&self, old: &RoomId, tombstone: &EventId) -> Result<Option<OwnedRoomId>> {
        let tombstone = store::event::find(&mut self.0.db.read().await?, tombstone).await?;
        let Some(new) = tombstone.and_then(|event| successor_in(&event.pdu)) else { return Ok(None) };
        let Some(room) = self.find(&new).await? else { return Ok(None) };
        let predecessor = room.view(|view| view.state.predecessor());
        Ok(predecessor.is_some_and(|predecessor| predecessor == old).then_some(new))
    }

    /// Hands on what was too much for one write, as far as whoever upgrades still has the power. The upgrade stands
    /// whatever becomes of this. What the first write took is not looked at again: the order of what is carried is
    /// always the same.
    async fn carry_over_rest(&self, upgrade: &Upgrade, new: &RoomId) {
        let Ok(old) = self.get(&upgrade.room_id).await else { return };
        let carried_state = carried_state(&old.state());
        let mut left_out = 0;
        for some in carried_state.get(AT_ONCE..).unwrap_or_default().chunks(AT_ONCE) {
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
    ///
    /// Where whoever upgrades lacks the power for some of the state, they have it for the time of this write: power
    /// levels are set twice, at last to what they are to be.
    fn first_events(
        &self,
        old: &Head,
        new_rules: &RoomVersionRules,
        profile: &MemberProfile,
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
        for state in carried_state(&old.state).into_iter().take(AT_ONCE) {
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

    /// `m.room.create` of the new room: the old one's type and whether it federates, and which room it replaces.
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

    /// Whether whoever upgrades may hand on a ban, a space or a child. Asked beforehand, because one event that the
    /// rules refuse would fail the whole write.
    fn may_set(&self, power: &RoomPowerLevels, state: &InitialState) -> bool {
        let InitialState { kind, state_key, .. } = state;
        if *kind == TimelineEventType::RoomMember {
            return <&UserId>::try_from(&**state_key).is_ok_and(|user| power.user_can_ban_user(&self.by, user));
        }
        // What is kept under a user's name is theirs to say.
        let is_anothers = state_key.starts_with('@') && state_key.as_str() != self.by.as_str();
        !is_anothers && power.user_can_send_state(&self.by, kind.to_string().into())
    }

    /// Power in the new room, whose creators are known before it exists.
    fn power(&self, levels: RoomPowerLevelsEventContent, new_rules: &RoomVersionRules) -> RoomPowerLevels {
        let creators: BTreeSet<OwnedUserId> = self.creators(new_rules).iter().chain([&self.by]).cloned().collect();
        RoomPowerLevels::new(RoomPowerLevelsSource::Original(levels), &new_rules.authorization, creators)
    }

    /// What closes the old room: the sign on the door and, as far as power goes, nobody speaks or invites any more.
    /// What whoever upgrades may not do is left out: only the tombstone has to be.
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
        // The specification's rule: 50, or one above what everybody has.
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
/// come first, because they may take power that whoever upgrades has only for the first write. In an order that depends
/// on nothing but the state, so that what follows the first [`AT_ONCE`] can be found again.
fn carried_state(old: &State) -> Vec<InitialState> {
    let mut carried_state = Vec::new();
    for kind in [TimelineEventType::SpaceChild, TimelineEventType::SpaceParent] {
        for (state_key, pdu) in old.of_kind(&kind.to_string()) {
            let content: Content = pdu.content_as().unwrap_or_default();
            // One without `via` has been removed.
            if content.contains_key("via") {
                carried_state.push(InitialState { kind: kind.clone(), state_key: state_key.to_owned(), content });
            }
        }
    }
    for member in old.members() {
        if member.membership() == MembershipState::Ban {
            let content = member.pdu().content_as().unwrap_or_default();
            let (kind, state_key) = (TimelineEventType::RoomMember, member.user_id.to_string());
            carried_state.push(InitialState { kind, state_key, content });
        }
    }
    let order = |state: &InitialState| (state.kind != TimelineEventType::RoomMember, state.state_key.clone());
    carried_state.sort_by_cached_key(order);
    carried_state
}

/// The old room's names and its place in the directory, moved to the new one. An alias is removed before it is added,
/// as the judge goes through the facts in their order.
fn moved(old: &RoomId, new: &RoomId, aliases: &[(OwnedRoomAliasId, OwnedUserId)], published: bool) -> Vec<Fact> {
    let mut changes = Vec::new();
    for (alias, creator) in aliases {
        changes.push(ListingChange::AliasRemoved { alias: alias.clone(), room_id: old.to_owned() });
        let (alias, creator) = (alias.clone(), creator.clone());
        changes.push(ListingChange::AliasAdded { alias, room_id: new.to_owned(), creator });
    }
    if published {
        changes.push(ListingChange::Published { room_id: old.to_owned(), listed: false });
        changes.push(ListingChange::Published { room_id: new.to_owned(), listed: true });
    }
    changes.into_iter().map(Fact::Listing).collect()
}
