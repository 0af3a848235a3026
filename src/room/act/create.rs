//! Making a room: from what its creator wishes to its first events, all of them in one write.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#creation>
//!
//! Everything is built in memory, on a state that nobody else sees, and becomes visible with one commit. If the process
//! dies before that, there is no room, no alias and no invitation; only letters that an identity server has sent by
//! then remain.

use std::{collections::HashSet, future::ready};

use futures_util::future::BoxFuture;
use ruma::{
    CanonicalJsonValue, OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId,
    api::error::ErrorKind,
    events::{TimelineEventType, room::member::MembershipState},
    room_version_rules::RoomVersionRules,
};

use super::{
    member_profile::{MemberProfile, MemberProfiles, member_content},
    preset::{Preset, override_power_levels},
    third_party_invite::{Invitation, Offer},
};
use crate::{
    error::{Error, Result},
    event::{
        Content, Draft, content,
        fact::{Fact, ListingChange, WriteQuota},
    },
    ground::room_version,
    room::{
        Rooms, State,
        graph::append::{ATTEMPTS, NewRoomEvents, Proposal, unsupported},
    },
};

/// How many events a room may begin with. They are signed and committed together.
const MAX_FIRST_EVENTS: usize = 1_000;

/// A room as its creator wishes it. Nothing of it has been judged: what contradicts itself is found out when the events
/// are built.
#[derive(Clone, Debug)]
pub struct NewRoom {
    pub creator: OwnedUserId,
    pub version: RoomVersionId,
    pub preset: Preset,
    /// Whether the directory shows it.
    pub published: bool,
    /// Of this server. It becomes `m.room.canonical_alias` too.
    pub alias: Option<OwnedRoomAliasId>,
    /// These two take precedence over what `initial_state` says at the same places.
    pub name: Option<String>,
    pub topic: Option<String>,
    /// Each at most once and without the creator, which [`Rooms::create`] sees to. Those of other servers have the power
    /// that they are to have, but no invitation yet: their servers have to sign it, once there is a room.
    pub invite: Vec<OwnedUserId>,
    /// Whether the invitations say that it is a direct chat.
    pub is_direct: bool,
    /// Further fields of `m.room.create`. `room_version` and `creator` in it are overwritten.
    pub creation_content: Content,
    pub initial_state: Vec<InitialState>,
    /// Takes the place of the preset's power levels, key by key of the outermost object.
    pub power_level_content_override: Content,
}

/// A state event that a room begins with.
#[derive(Clone, Debug)]
pub struct InitialState {
    pub kind: TimelineEventType,
    pub state_key: String,
    pub content: Content,
}

/// What makes a new room's invitations to people who are known by an address only, of what there is to know of the room.
pub(super) type MakeOffers<'a> = Box<dyn FnOnce(Invitation) -> BoxFuture<'a, Result<Vec<Offer>>> + Send + 'a>;

impl Rooms {
    /// Makes a room and returns its identifier. The room, its alias and its place in the directory come into being
    /// together or not at all.
    ///
    /// `M_UNSUPPORTED_ROOM_VERSION`, `M_ROOM_IN_USE` for the alias, `M_INVALID_ROOM_STATE` where the rules allow no
    /// such room, and what [`Rooms::check_invited`] refuses.
    pub async fn create(&self, mut room: NewRoom) -> Result<OwnedRoomId> {
        self.check_first_invited(&mut room).await?;
        for _ in 0..ATTEMPTS {
            match self.create_with(self.quotas_of(&room), room.clone(), |_| Ok(Vec::new()), None).await {
                // The creator has got another name at the same moment.
                Err(Error::Conflict) => {}
                created => return created,
            }
        }
        Err(Error::Unavailable(format!("the profile of {} changes faster than a room can be made", room.creator)))
    }

    /// Makes a room with invitations to people who are known by an address only, at least one. What `offers` needs to
    /// know of the room is handed over before it is there; if it fails, the room never is. It is not called where it is
    /// known by then that the room can't be, can't have invitations, or is one too many: letters that were written are
    /// not taken back. So nothing is tried again, and `Error::Conflict` is returned where the creator's profile changes at
    /// the same moment.
    pub async fn create_with_offers<'a>(
        &self,
        mut room: NewRoom,
        offers: impl FnOnce(Invitation) -> BoxFuture<'a, Result<Vec<Offer>>> + Send + 'a,
    ) -> Result<OwnedRoomId> {
        self.check_first_invited(&mut room).await?;
        let offers: MakeOffers<'a> = Box::new(offers);
        self.create_with(self.quotas_of(&room), room, |_| Ok(Vec::new()), Some(offers)).await
    }

    /// What somebody is held to who makes a room.
    fn quotas_of(&self, room: &NewRoom) -> Vec<WriteQuota> {
        let (quotas, creator) = (&self.0.quotas, &room.creator);
        let alias = room.alias.as_ref().and_then(|_| quotas.aliases(creator));
        quotas.rooms(creator, self.now().get().into()).into_iter().chain(alias).collect()
    }

    /// Each is invited once, and the creator not at all.
    async fn check_first_invited(&self, room: &mut NewRoom) -> Result<()> {
        let mut known = HashSet::from([room.creator.clone()]);
        room.invite.retain(|user| known.insert(user.clone()));
        let is_ours = |user: &&OwnedUserId| user.server_name() == self.server_name();
        let ours: Vec<OwnedUserId> = room.invite.iter().filter(is_ours).cloned().collect();
        self.check_invited(&ours).await
    }

    /// Makes a room, the server's own included, whoever is invited, with facts that hold if and only if it is there. It
    /// is held to `quotas`. Where its creator can't invite to it, there are no `offers`, and no room.
    pub(super) async fn create_with<'a>(
        &self,
        quotas: Vec<WriteQuota>,
        room: NewRoom,
        more_facts: impl FnOnce(&RoomId) -> Result<Vec<Fact>>,
        offers: Option<MakeOffers<'a>>,
    ) -> Result<OwnedRoomId> {
        let version_rules = room_version::rules(&room.version).ok_or_else(|| unsupported(&room.version))?;
        if let Some(alias) = &room.alias {
            self.check_alias_free(alias).await?;
        }
        let people: Vec<_> = room.invite.iter().chain([&room.creator]).map(AsRef::as_ref).collect();
        let profiles = self.profiles(&people).await?;
        let (creator, version, alias) = (room.creator.clone(), room.version.clone(), room.alias.clone());
        let host = creator.clone();
        let published = room.published;
        let proposals = room.first_events(version_rules, &profiles, &self.0.random.token(12));
        if proposals.len() > MAX_FIRST_EVENTS {
            let message =
                format!("A room begins with at most {MAX_FIRST_EVENTS} events: send and invite the rest later");
            return Err(Error::invalid_param(message));
        }
        let facts = |room_id: &RoomId| -> Result<Vec<Fact>> {
            let mut facts = more_facts(room_id)?;
            let room_id = room_id.to_owned();
            facts
                .extend(alias.map(|alias| {
                    Fact::Listing(ListingChange::AliasAdded { alias, room_id: room_id.clone(), creator })
                }));
            facts.extend(published.then_some(Fact::Listing(ListingChange::Published { room_id, listed: true })));
            Ok(facts)
        };
        // Called with no lock held: whoever is asked may be another server.
        let more = offers.map(|offers| {
            move |room_id: &RoomId, state: &State| -> BoxFuture<'a, Result<Vec<Proposal>>> {
                let offers = match Invitation::from_member(state, version_rules, room_id, &host) {
                    Ok(invitation) => offers(invitation),
                    Err(error) => return Box::pin(ready(Err(error))),
                };
                let drafts = move |offers: Vec<Offer>| -> Vec<Proposal> {
                    offers.iter().map(|offer| offer.draft(&host).into()).collect()
                };
                Box::pin(async move { offers.await.map(drafts) })
            }
        });
        self.create_room_with((NewRoomEvents { version, proposals }, quotas), facts, more)
            .await
            .map_err(invalid_room_state)
    }
}

/// What the rules forbid in a room that does not exist yet is a wish that contradicts itself.
fn invalid_room_state(error: Error) -> Error {
    match error {
        Error::Refused { kind: ErrorKind::Forbidden | ErrorKind::BadJson, message } => {
            Error::refused(ErrorKind::InvalidRoomState, format!("Such a room can't exist. {message}"))
        }
        other => other,
    }
}

impl NewRoom {
    /// The first events, in the specification's order. The order matters beyond that: power levels come after the
    /// creator has joined, and what is sent later needs them. A preset's state gives way to `initial_state`.
    fn first_events(mut self, rules: &RoomVersionRules, profiles: &MemberProfiles, nonce: &str) -> Vec<Proposal> {
        let creator = self.creator.clone();
        let mut events = FirstEvents { creator: &creator, proposals: Vec::new() };
        events.create(std::mem::take(&mut self.creation_content), &self.version, rules, self.trusted(rules), nonce);
        events.join(profiles.of(&creator));
        events.state("m.room.power_levels", self.power_levels(rules));
        if let Some(alias) = &self.alias {
            events.state("m.room.canonical_alias", content([("alias", alias.as_str().into())]));
        }
        for (kind, content) in self.preset.state() {
            if !self.begins_with(kind) {
                events.state(kind, content);
            }
        }
        let named = |kind: &str| {
            (kind == "m.room.name" && self.name.is_some()) || (kind == "m.room.topic" && self.topic.is_some())
        };
        for InitialState { kind, state_key, content } in std::mem::take(&mut self.initial_state) {
            if !(state_key.is_empty() && named(&kind.to_string())) {
                events.push(kind, state_key, content);
            }
        }
        if let Some(name) = self.name {
            events.state("m.room.name", content([("name", name.into())]));
        }
        if let Some(topic) = self.topic {
            events.state("m.room.topic", topic_content(topic));
        }
        for user in self.invite.iter().filter(|user| user.server_name() == creator.server_name()) {
            let mut invite = member_content(&MembershipState::Invite, profiles.of(user), None);
            if self.is_direct {
                invite.insert("is_direct".to_owned(), true.into());
            }
            events.push(TimelineEventType::RoomMember, user.to_string(), invite);
        }
        events.proposals
    }

    /// Whom the preset makes creators, where there can be several. In older versions they get the creator's level
    /// instead ([`Preset::power_levels`]).
    fn trusted(&self, rules: &RoomVersionRules) -> &[OwnedUserId] {
        let several = rules.authorization.additional_room_creators;
        if several && self.preset == Preset::TrustedPrivateChat { &self.invite } else { &[] }
    }

    /// Takes the override out of the wish; called once.
    fn power_levels(&mut self, rules: &RoomVersionRules) -> Content {
        let mut levels = self.preset.power_levels(&rules.authorization, &self.creator, &self.invite);
        let wishes = std::mem::take(&mut self.power_level_content_override);
        override_power_levels(&mut levels, wishes, &rules.authorization);
        levels
    }

    /// Whether the creator says this piece of state themselves.
    fn begins_with(&self, kind: &str) -> bool {
        self.initial_state.iter().any(|state| state.state_key.is_empty() && state.kind.to_string() == kind)
    }
}

/// The events of a new room, each sent by its creator. In the order in which they are built, each on the one before.
pub(super) struct FirstEvents<'a> {
    pub(super) creator: &'a OwnedUserId,
    pub(super) proposals: Vec<Proposal>,
}

impl FirstEvents<'_> {
    /// The create event. `nonce` keeps apart two rooms that somebody makes in the same millisecond, where the
    /// event gives the room its name.
    pub(super) fn create(
        &mut self,
        mut content: Content,
        version: &RoomVersionId,
        rules: &RoomVersionRules,
        trusted: &[OwnedUserId],
        nonce: &str,
    ) {
        content.insert("room_version".to_owned(), version.as_str().into());
        content.remove("creator");
        if !rules.authorization.use_room_create_sender {
            content.insert("creator".to_owned(), self.creator.as_str().into());
        }
        if !trusted.is_empty() {
            let creators = content.entry("additional_creators".to_owned());
            // Where there is something else than a list, the rules refuse the event.
            if let CanonicalJsonValue::Array(creators) = creators.or_insert_with(|| CanonicalJsonValue::Array(vec![])) {
                for user in trusted {
                    if !creators.iter().any(|known| known.as_str() == Some(user.as_str())) {
                        creators.push(user.as_str().into());
                    }
                }
            }
        }
        if !rules.event_format.require_room_create_room_id {
            content.insert("hearth.nonce".to_owned(), nonce.into());
        }
        self.push(TimelineEventType::RoomCreate, String::new(), content);
    }

    /// The creator joins, so that they may send the rest.
    pub(super) fn join(&mut self, profile: &MemberProfile) {
        let join = member_content(&MembershipState::Join, profile, None);
        let draft = Draft::state(self.creator.clone(), TimelineEventType::RoomMember, self.creator.to_string(), join);
        self.proposals.push(Proposal { copied: profile.fields(), ..draft.into() });
    }

    /// State with an empty key.
    pub(super) fn state(&mut self, kind: &str, content: Content) {
        self.push(TimelineEventType::from(kind), String::new(), content);
    }

    pub(super) fn push(&mut self, kind: TimelineEventType, state_key: String, content: Content) {
        self.proposals.push(Draft::state(self.creator.clone(), kind, state_key, content).into());
    }
}

/// A topic as plain text, in the form for old clients and in that for new ones.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#mroomtopic>
fn topic_content(topic: String) -> Content {
    let plain = content([("body", topic.as_str().into()), ("mimetype", "text/plain".into())]);
    let block = content([("m.text", vec![CanonicalJsonValue::Object(plain)].into())]);
    content([("m.topic", block.into()), ("topic", topic.into())])
}

#[cfg(test)]
mod tests {
    use ruma::{owned_room_alias_id, owned_user_id};
    use serde_json::{Value, json};

    use super::*;

    fn room(version: RoomVersionId, preset: Preset) -> NewRoom {
        NewRoom {
            creator: owned_user_id!("@me:here"),
            version,
            preset,
            published: false,
            alias: None,
            name: None,
            topic: None,
            invite: vec![owned_user_id!("@friend:here")],
            is_direct: false,
            creation_content: Content::new(),
            initial_state: Vec::new(),
            power_level_content_override: Content::new(),
        }
    }

    fn events(room: NewRoom) -> Vec<(String, String, Value)> {
        let rules = room_version::rules(&room.version).unwrap();
        let proposals = room.first_events(rules, &MemberProfiles::default(), "random");
        let draft = |proposal: Proposal| {
            let Draft { kind, state_key, content, .. } = proposal.draft;
            (kind.to_string(), state_key.unwrap(), serde_json::to_value(content).unwrap())
        };
        proposals.into_iter().map(draft).collect()
    }

    #[test]
    fn the_first_events_come_in_the_specifications_order() {
        let state = |kind: &str| InitialState { kind: kind.into(), state_key: String::new(), content: Content::new() };
        let events = events(NewRoom {
            alias: Some(owned_room_alias_id!("#pub:here")),
            name: Some("The pub".to_owned()),
            topic: Some("Beer".to_owned()),
            is_direct: true,
            initial_state: vec![state("org.example"), state("m.room.guest_access"), state("m.room.name")],
            ..room(RoomVersionId::V12, Preset::PublicChat)
        });
        let kinds: Vec<_> = events.iter().map(|(kind, ..)| kind.as_str()).collect();
        assert_eq!(
            kinds,
            [
                "m.room.create",
                "m.room.member",
                "m.room.power_levels",
                "m.room.canonical_alias",
                "m.room.join_rules",
                "m.room.history_visibility",
                "org.example",
                "m.room.guest_access",
                "m.room.name",
                "m.room.topic",
                "m.room.member",
            ]
        );
        assert_eq!(events[8].2, json!({"name": "The pub"}));
        assert_eq!(
            events[9].2,
            json!({"topic": "Beer", "m.topic": {"m.text": [{"body": "Beer", "mimetype": "text/plain"}]}})
        );
        assert_eq!(events[10].2, json!({"membership": "invite", "is_direct": true}));
    }

    #[test]
    fn the_server_decides_creator_and_version_and_trusts_whom_the_preset_trusts() {
        let creation_content: Content = serde_json::from_value(json!({
            "creator": "@mallory:there", "room_version": "1", "type": "m.space",
            "additional_creators": ["@other:here", "@friend:here"],
        }))
        .unwrap();
        let create = |version| {
            let room =
                NewRoom { creation_content: creation_content.clone(), ..room(version, Preset::TrustedPrivateChat) };
            events(room).remove(0).2
        };
        assert_eq!(create(RoomVersionId::V10)["creator"], json!("@me:here"));
        assert_eq!(
            create(RoomVersionId::V12),
            json!({
                "room_version": "12", "type": "m.space", "hearth.nonce": "random",
                "additional_creators": ["@other:here", "@friend:here"],
            })
        );
    }
}
