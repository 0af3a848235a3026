//! Joining a room that this server holds.
//!
//! Who may join follows from the join rules and, where these name other rooms, from memberships there. These are looked
//! up before the event is built: a membership that ends in between counts still, as it would for an event that came a
//! moment earlier.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#joining-rooms>

use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId,
    api::error::ErrorKind,
    events::{
        StateEventType,
        room::{
            join_rules::{AllowRule, JoinRule, RoomJoinRulesEventContent},
            member::MembershipState,
        },
    },
};

use super::{
    member_profile::fill_in,
    membership::{Change, event_id},
};
use crate::{
    error::{Error, Result},
    event::{Content, Transaction, fact::CopiedFields},
    room::{
        Author, Rooms, State,
        graph::{
            append::{ATTEMPTS, Plan},
            head::Head,
            rooms::no_entry,
        },
    },
    store,
};

/// How somebody joins.
struct Joining<'a> {
    author: &'a Author,
    /// Whether what their membership says is to change if they are in the room already.
    again: bool,
    transaction: Option<&'a Transaction>,
}

impl State {
    /// How one can join. `invite` where there is no rule, or none that can be read.
    pub(super) fn join_rule(&self) -> JoinRule {
        let content: Option<RoomJoinRulesEventContent> = self.content(&StateEventType::RoomJoinRules);
        content.map_or(JoinRule::Invite, |content| content.join_rule)
    }

    /// The conditions under which one can join without an invitation.
    fn conditions(&self) -> Vec<AllowRule> {
        match self.join_rule() {
            JoinRule::Restricted(conditions) | JoinRule::KnockRestricted(conditions) => conditions.allow,
            _ => Vec::new(),
        }
    }

    /// The rooms whose members may join this one.
    fn allowed_rooms(&self) -> Vec<OwnedRoomId> {
        let room = |rule| if let AllowRule::RoomMembership(room) = rule { Some(room.room_id) } else { None };
        self.conditions().into_iter().filter_map(room).collect()
    }
}

impl Rooms {
    /// Joins a room as a user with nothing more to say than a reason.
    #[cfg(test)]
    pub(crate) async fn join(&self, room_id: &RoomId, user_id: &UserId, reason: Option<String>) -> Result<()> {
        let content = reason.map(|reason| ("reason".to_owned(), reason.into())).into_iter().collect();
        self.join_saying(room_id, &Author::User(user_id.to_owned()), content).await
    }

    /// Joins a room and says in the membership event what else `content` has. Who is in the room already stays in it as
    /// they are.
    ///
    /// `M_NOT_FOUND` where nobody here could let them in, `M_FORBIDDEN`, and for rooms with conditions
    /// `M_UNABLE_TO_AUTHORISE_JOIN` and `M_UNABLE_TO_GRANT_JOIN`.
    pub async fn join_saying(&self, room_id: &RoomId, author: &Author, mut content: Content) -> Result<()> {
        content.insert("membership".to_owned(), MembershipState::Join.as_str().into());
        // Who vouches for the user and which invitation they answer is for the server to say.
        content.remove(AUTHORISED_VIA);
        content.remove("third_party_invite");
        let joining = Joining { author, again: false, transaction: None };
        self.join_with(room_id, content, joining).await.map(drop)
    }

    /// Joins with a content of the user's choice, or changes what their membership says. As sending `m.room.member` as
    /// state does. Returns the event that is there if it says so already.
    pub(super) async fn set_joined(
        &self,
        room_id: &RoomId,
        author: &Author,
        mut content: Content,
        transaction: Option<&Transaction>,
    ) -> Result<OwnedEventId> {
        // Who vouches for the user is for the server to say.
        content.remove(AUTHORISED_VIA);
        self.join_with(room_id, content, Joining { author, again: true, transaction }).await
    }

    /// `content` is a membership event's, without what the server adds.
    async fn join_with(&self, room_id: &RoomId, content: Content, joining: Joining<'_>) -> Result<OwnedEventId> {
        let user_id = joining.author.user_id();
        let room = self.get_enterable(room_id).await?;
        let mut brings_settings = true;
        for _ in 0..ATTEMPTS {
            let mut content = content.clone();
            let copied = fill_in(&mut content, &self.profile(user_id).await?);
            match self.try_join(&room.state(), room_id, (&content, &copied), &joining, brings_settings).await {
                // Another device of theirs has changed what they bring along, or what they are called.
                Err(Error::Conflict) => {}
                // They have no space for what they would bring along, and come without it.
                Err(Error::Refused { kind: ErrorKind::UserLimitExceeded(_), .. }) if brings_settings => {
                    brings_settings = false;
                }
                joined => return joined,
            }
        }
        Err(Error::Unavailable(format!("what {user_id} has set changes faster than they can join a room with it")))
    }

    /// One try, on what is set and met now. `Error::Conflict` where what they bring along, or what the content has copied
    /// of their profile, has been changed by another device before it was written.
    async fn try_join(
        &self,
        state: &State,
        room_id: &RoomId,
        (content, copied): (&Content, &CopiedFields),
        Joining { author, again, transaction }: &Joining<'_>,
        brings_settings: bool,
    ) -> Result<OwnedEventId> {
        let user_id = author.user_id();
        let conditions = self.conditions_met(user_id, state).await?;
        let settings = if brings_settings { self.inherited(state, room_id, user_id).await? } else { Vec::new() };
        let appended = self.append(room_id, |head| {
            let current = head.state.member(user_id);
            let mut content = content.clone();
            let mut facts = Vec::new();
            if head.state.membership(user_id) == MembershipState::Join {
                if let Some(current) = current.filter(|_| !*again) {
                    return Ok(Plan::done_by(current.event_id()));
                }
            } else {
                let comer = (user_id, author.is_guest());
                if let Some(authorising_user) = admit(head, comer, &conditions, self.server_name())? {
                    content.insert(AUTHORISED_VIA.to_owned(), authorising_user.as_str().into());
                }
                // Only with a membership that is new: who is in the room already has their own settings by now.
                facts.clone_from(&settings);
            }
            let mut plan =
                Change { sender: user_id, target: user_id, content: &content, transaction: *transaction }.plan(head);
            for proposal in &mut plan.proposals {
                proposal.copied.clone_from(copied);
            }
            let quota = if facts.is_empty() { None } else { self.0.quotas.account_data(user_id) };
            Ok(Plan { facts, ..plan }.within(quota))
        });
        event_id(&appended.await?)
    }

    /// Which of the rooms whose members may join the user is in. One connection is held for two statements, and no
    /// room's lock.
    async fn conditions_met(&self, user_id: &UserId, state: &State) -> Result<Conditions> {
        let rooms = state.allowed_rooms();
        if rooms.is_empty() {
            return Ok(Conditions { is_in: Vec::new(), any_known: state.conditions().is_empty() });
        }
        let rooms: Vec<&RoomId> = rooms.iter().map(AsRef::as_ref).collect();
        let mut conn = self.0.db.read().await?;
        let is_in = store::membership::list_joined_among(&mut conn, user_id, &rooms).await?;
        let any_known = !is_in.is_empty() || store::room::any_exists(&mut conn, &rooms).await?;
        Ok(Conditions { is_in, any_known })
    }

    /// Whether a user of another server may come in as the room is, and who of this server's users vouches for them where
    /// the room asks for that. Who is in the room already may be.
    ///
    /// `M_FORBIDDEN`, and for rooms with conditions `M_UNABLE_TO_AUTHORISE_JOIN` and `M_UNABLE_TO_GRANT_JOIN`.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#restricted-rooms>
    pub(super) async fn admit_stranger(&self, head: &Head, user_id: &UserId) -> Result<Option<OwnedUserId>> {
        if head.state.membership(user_id) == MembershipState::Join {
            return Ok(None);
        }
        let conditions = self.conditions_met_by_stranger(user_id, &head.state).await?;
        admit(head, (user_id, false), &conditions, self.server_name())
    }

    /// Which of the rooms whose members may join a user of another server is in, as far as this server can tell. Of rooms
    /// that were left it is known only who was in them then.
    async fn conditions_met_by_stranger(&self, user_id: &UserId, state: &State) -> Result<Conditions> {
        let rooms = state.allowed_rooms();
        let none = Conditions { is_in: Vec::new(), any_known: state.conditions().is_empty() };
        if rooms.is_empty() {
            return Ok(none);
        }
        let rooms: Vec<&RoomId> = rooms.iter().map(AsRef::as_ref).collect();
        let mut conn = self.0.db.read().await?;
        let known = store::membership::list_with_server(&mut conn, self.server_name(), &rooms).await?;
        if known.is_empty() {
            return Ok(none);
        }
        let known: Vec<&RoomId> = known.iter().map(AsRef::as_ref).collect();
        let is_in = store::membership::list_joined_among(&mut conn, user_id, &known).await?;
        Ok(Conditions { is_in, any_known: true })
    }
}

/// What is known of somebody in the rooms whose members may join.
struct Conditions {
    is_in: Vec<OwnedRoomId>,
    /// Whether this server can know of any of the conditions whether it is met, or there are none.
    any_known: bool,
}

/// The field of a membership event that names who vouches for the user.
pub(super) const AUTHORISED_VIA: &str = "join_authorised_via_users_server";

/// Whether somebody may come in, and who of this server's users vouches for them where the room asks for that.
///
/// The authorization rules decide again on the event itself; here is what they can't know, and messages that say what
/// to do.
fn admit(
    head: &Head,
    (user_id, is_guest): (&UserId, bool),
    conditions: &Conditions,
    here: &ServerName,
) -> Result<Option<OwnedUserId>> {
    if is_unseen(head, user_id, conditions) {
        return Err(no_entry());
    }
    if is_guest && !head.state.admits_guests() {
        let message = "Guests can't join this room: register an account";
        return Err(Error::refused(ErrorKind::GuestAccessForbidden, message));
    }
    let membership = head.state.membership(user_id);
    if membership == MembershipState::Ban {
        return Err(Error::forbidden("You are banned from this room"));
    }
    match head.state.join_rule() {
        JoinRule::Public => Ok(None),
        _ if membership == MembershipState::Invite => Ok(None),
        JoinRule::Restricted(_) | JoinRule::KnockRestricted(_) => {
            if !head.state.allowed_rooms().iter().any(|room| conditions.is_in.contains(room)) {
                if !conditions.any_known {
                    let message = "This room is for those who meet conditions of which this server can't tell whether \
                                   you do: ask for an invitation";
                    return Err(Error::refused(ErrorKind::UnableToAuthorizeJoin, message));
                }
                return Err(Error::forbidden(
                    "This room is for members of certain other rooms: join one of those, or ask for an invitation",
                ));
            }
            let message = "You may join this room, but no user of this server has the power to let you in";
            authorising_user(head, here).map(Some).ok_or_else(|| Error::refused(ErrorKind::UnableToGrantJoin, message))
        }
        JoinRule::Knock => Err(Error::forbidden("You are not invited to this room: knock to ask for it")),
        _ => Err(Error::forbidden("You are not invited to this room")),
    }
}

/// Whether somebody who has never had to do with the room knows of it by nothing.
fn is_unseen(head: &Head, user_id: &UserId, conditions: &Conditions) -> bool {
    let is_closed = || match head.state.join_rule() {
        JoinRule::Public | JoinRule::Knock | JoinRule::KnockRestricted(_) => false,
        // Where it can't be told whether they may come in, the specification has a code for that.
        JoinRule::Restricted(_) => {
            conditions.any_known && !head.state.allowed_rooms().iter().any(|room| conditions.is_in.contains(room))
        }
        _ => true,
    };
    head.state.member(user_id).is_none() && is_closed()
}

/// A user of this server who is in the room and may invite.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms>
fn authorising_user(head: &Head, here: &ServerName) -> Option<OwnedUserId> {
    let power = head.state.power_levels(head.rules);
    let may = |user: &UserId| {
        user.server_name() == here
            && head.state.membership(user) == MembershipState::Join
            && power.user_can_invite(user)
    };
    let creators = head.state.creators(head.rules);
    let powerful = creators.iter().chain(power.users.keys()).find(|user| may(user)).cloned();
    // Only where inviting takes no special power is it worth asking everybody.
    powerful.or_else(|| {
        let everybody = power.users_default >= power.invite;
        head.state.members().map(|member| member.user_id).find(|user| everybody && may(user)).map(ToOwned::to_owned)
    })
}
