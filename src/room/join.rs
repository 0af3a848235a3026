//! Joining a room that this server knows.
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
    Rooms, State,
    append::{Head, Plan},
    membership::{Change, event_id, fill_in},
};
use crate::{
    error::{Error, Result},
    event::{Content, Transaction},
    store,
};

/// How somebody joins.
struct Joining<'a> {
    guest: bool,
    /// Whether what their membership says is to change if they are in the room already.
    again: bool,
    transaction: Option<&'a Transaction>,
}

impl State {
    /// How one can join.
    fn join_rule(&self) -> JoinRule {
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
    /// Joins a room with nothing more to say than a reason.
    #[cfg(test)]
    pub(crate) async fn join(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        guest: bool,
        reason: Option<String>,
    ) -> Result<()> {
        let content = reason.map(|reason| ("reason".to_owned(), reason.into())).into_iter().collect();
        self.join_saying(room_id, user_id, guest, content).await
    }

    /// Joins a room and says in the membership event what else `content` has. Who is in the room already stays in it as
    /// they are.
    pub async fn join_saying(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        guest: bool,
        mut content: Content,
    ) -> Result<()> {
        content.insert("membership".to_owned(), MembershipState::Join.as_str().into());
        // Who vouches for the user and which invitation they answer is for the server to say.
        content.remove(AUTHORISED_VIA);
        content.remove("third_party_invite");
        let joining = Joining { guest, again: false, transaction: None };
        self.join_with(room_id, user_id, content, joining).await.map(drop)
    }

    /// Joins with a content of the user's choice, or changes what their membership says.
    pub(super) async fn set_joined(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        guest: bool,
        mut content: Content,
        transaction: Option<&Transaction>,
    ) -> Result<OwnedEventId> {
        // Who vouches for the user is for the server to say.
        content.remove(AUTHORISED_VIA);
        self.join_with(room_id, user_id, content, Joining { guest, again: true, transaction }).await
    }

    async fn join_with(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        mut content: Content,
        Joining { guest, again, transaction }: Joining<'_>,
    ) -> Result<OwnedEventId> {
        let Some(room) = self.find(room_id).await? else {
            return Err(Error::not_found(format!(
                "This server does not know the room {room_id}, and it does not talk to others that may know it"
            )));
        };
        fill_in(&mut content, &self.profile(user_id).await?);
        let state = room.state();
        let conditions = self.conditions_met(user_id, &state).await?;
        let settings = self.inherited(&state, room_id, user_id).await?;
        let appended = self.append(room_id, |head| {
            let current = head.state.member(user_id);
            let mut content = content.clone();
            let mut facts = Vec::new();
            if head.state.membership(user_id) == MembershipState::Join {
                if let Some(current) = current.filter(|_| !again) {
                    return Ok(Plan::done_by(current.event_id()));
                }
            } else {
                if let Some(voucher) = admit(head, user_id, guest, &conditions, self.server_name())? {
                    content.insert(AUTHORISED_VIA.to_owned(), voucher.as_str().into());
                }
                facts.clone_from(&settings);
            }
            let plan = Change { sender: user_id, target: user_id, content: &content, transaction }.plan(head);
            Ok(Plan { facts, ..plan })
        });
        event_id(&appended.await?)
    }

    /// Which of the rooms whose members may join the user is in.
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
}

/// What is known of somebody in the rooms whose members may join.
struct Conditions {
    is_in: Vec<OwnedRoomId>,
    /// Whether this server can tell of any of the conditions whether it is met, or there are none.
    any_known: bool,
}

const AUTHORISED_VIA: &str = "join_authorised_via_users_server";

/// Whether somebody may come in, and who of this server's users vouches for them where the room asks for that.
fn admit(
    head: &Head,
    user_id: &UserId,
    guest: bool,
    conditions: &Conditions,
    here: &ServerName,
) -> Result<Option<OwnedUserId>> {
    if guest && !head.state.admits_guests() {
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
            voucher(head, here).map(Some).ok_or_else(|| Error::refused(ErrorKind::UnableToGrantJoin, message))
        }
        JoinRule::Knock => Err(Error::forbidden("You are not invited to this room: knock to ask for it")),
        _ => Err(Error::forbidden("You are not invited to this room")),
    }
}

/// A user of this server who is in the room and may invite.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms>
fn voucher(head: &Head, here: &ServerName) -> Option<OwnedUserId> {
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
        head.state.members().map(|(user, _)| user).find(|user| everybody && may(user)).map(ToOwned::to_owned)
    })
}
