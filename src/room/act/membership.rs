//! Who is in a room: inviting, leaving, kicking, banning, knocking, forgetting. Joining has a file of its own.
//!
//! Each is one event of type `m.room.member`. Whether it is allowed, the authorization rules decide on the head that it
//! is built on; what is checked here before is for better messages, and for what the rules do not know.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-membership>
//!
//! Each may be repeated: where the membership says already what is asked for, by the same sender, the event that is
//! there is returned and none is sent.

use futures_util::{StreamExt as _, stream};
use ruma::{
    CanonicalJsonValue, OwnedEventId, RoomId, UserId,
    api::error::ErrorKind,
    events::{
        TimelineEventType,
        room::{join_rules::JoinRule, member::MembershipState},
    },
};

use super::member_profile::{MemberProfile, fill_in, member_content};
use crate::{
    error::{Error, Result},
    event::{
        Content, Draft, Pdu, Transaction,
        fact::{Fact, Forgotten},
    },
    room::{
        Author, Rooms, State,
        graph::{
            append::{Appended, Plan, Proposal},
            head::Head,
            rooms::{no_entry, not_in_room},
        },
    },
    store,
};

/// How many rooms somebody leaves at once.
const ROOMS_AT_ONCE: usize = 16;

/// What somebody wants to become of a membership, their own or another's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change<'a> {
    /// In whose name the event is sent; the target's own for joining, leaving and knocking.
    pub(super) sender: &'a UserId,
    pub(super) target: &'a UserId,
    pub(super) content: &'a Content,
    /// Of a request that has one, so that a retry finds the event.
    pub(super) transaction: Option<&'a Transaction>,
}

impl Change<'_> {
    /// The event, unless the one that is there already says the same.
    pub(super) fn plan(self, head: &Head) -> Plan {
        let Self { sender, target, content, transaction } = self;
        match head.state.member(target) {
            Some(current) if current.sender() == sender && says(current, content) => Plan::done_by(current.event_id()),
            _ => {
                let draft =
                    Draft::state(sender.to_owned(), TimelineEventType::RoomMember, target.as_str(), content.clone());
                Plan::of(Proposal { transaction: transaction.cloned(), ..draft.into() })
            }
        }
    }

    /// Plans how somebody leaves. Who has left already may leave again. `M_FORBIDDEN` for who was never there and for
    /// who is banned, which must stay a ban.
    fn plan_leaving(self, head: &Head) -> Result<Plan> {
        match head.state.membership(self.target) {
            MembershipState::Leave => {
                let left = head.state.member(self.target).map(|left| Plan::done_by(left.event_id()));
                left.ok_or_else(not_in_room)
            }
            MembershipState::Ban => Err(Error::forbidden("You are banned from this room")),
            _ => Ok(self.plan(head)),
        }
    }
}

/// Whose membership a piece of state is, and what it says.
pub(super) fn read_membership<'a>(state_key: &'a str, content: &Content) -> Result<(&'a UserId, MembershipState)> {
    let target = <&UserId>::try_from(state_key)
        .map_err(|e| Error::invalid_param(format!("The state key of m.room.member is a user's identifier: {e}")))?;
    let membership = content.get("membership").and_then(CanonicalJsonValue::as_str);
    let membership = membership.ok_or_else(|| Error::bad_json("An m.room.member event says the `membership`"))?;
    Ok((target, MembershipState::from(membership)))
}

/// Whether an event has exactly this content. Compared as canonical JSON, which both are.
pub(super) fn says(pdu: &Pdu, content: &Content) -> bool {
    serde_json::to_string(content).is_ok_and(|json| json == pdu.content().get())
}

impl Rooms {
    /// Invites somebody of this server. Users of others take another way (`outgoing_invite.rs`).
    ///
    /// `M_FORBIDDEN` where the target is in the room, is banned or can't be invited by this user, and what
    /// [`Rooms::check_invited`] refuses.
    pub async fn invite(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        target: &UserId,
        reason: Option<String>,
    ) -> Result<()> {
        let content = member_content(&MembershipState::Invite, &MemberProfile::default(), reason);
        self.invite_with(room_id, sender, target, content, None).await.map(drop)
    }

    async fn invite_with(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        target: &UserId,
        mut content: Content,
        transaction: Option<&Transaction>,
    ) -> Result<OwnedEventId> {
        self.check_invited(&[target.to_owned()]).await?;
        fill_in(&mut content, &self.profile(target).await?);
        let change = Change { sender, target, content: &content, transaction };
        self.change(room_id, change, |before| check_invitable(target, before)).await
    }

    /// Leaves, turns down an invitation, or takes back a knock. Who has left already may leave again.
    ///
    /// Of a room outside only the invitation or knock ends. `M_CANNOT_LEAVE_SERVER_NOTICE_ROOM` for the invitation to
    /// the server's own.
    pub async fn leave(&self, room_id: &RoomId, user_id: &UserId, reason: Option<String>) -> Result<()> {
        if self.leave_outside(room_id, user_id).await? {
            return Ok(());
        }
        let content = member_content(&MembershipState::Leave, &MemberProfile::default(), reason);
        self.leave_with(room_id, user_id, &content, None).await.map(drop)
    }

    async fn leave_with(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        content: &Content,
        transaction: Option<&Transaction>,
    ) -> Result<OwnedEventId> {
        let appended = self.append(room_id, |head| {
            self.check_leaving(&head.state, user_id)?;
            Change { sender: user_id, target: user_id, content, transaction }.plan_leaving(head)
        });
        event_id(&appended.await?)
    }

    /// Makes somebody leave who is in the room, invited or knocking. Whoever does that to themselves leaves.
    /// `M_FORBIDDEN` for who is not there, for who is banned, and without the power.
    pub async fn kick(&self, room_id: &RoomId, sender: &UserId, target: &UserId, reason: Option<String>) -> Result<()> {
        if sender == target {
            return self.leave(room_id, sender, reason).await;
        }
        let content = member_content(&MembershipState::Leave, &MemberProfile::default(), reason);
        let change = Change { sender, target, content: &content, transaction: None };
        let kicked = self.change(room_id, change, |before| match before {
            MembershipState::Leave => Err(Error::forbidden(format!("{target} is not in the room"))),
            MembershipState::Ban => {
                Err(Error::forbidden(format!("{target} is banned: unban them to let them back in")))
            }
            _ => Ok(()),
        });
        kicked.await.map(drop)
    }

    /// Makes somebody leave and stay out. Also somebody who was never there.
    pub async fn ban(&self, room_id: &RoomId, sender: &UserId, target: &UserId, reason: Option<String>) -> Result<()> {
        let content = member_content(&MembershipState::Ban, &MemberProfile::default(), reason);
        let change = Change { sender, target, content: &content, transaction: None };
        self.change(room_id, change, |_| Ok(())).await.map(drop)
    }

    /// Lets somebody who was banned come back, if the room takes them. Their membership becomes `leave`. `M_FORBIDDEN`
    /// for who is not banned.
    pub async fn unban(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        target: &UserId,
        reason: Option<String>,
    ) -> Result<()> {
        let content = member_content(&MembershipState::Leave, &MemberProfile::default(), reason);
        let change = Change { sender, target, content: &content, transaction: None };
        let unbanned = self.change(room_id, change, |before| match before {
            MembershipState::Ban => Ok(()),
            _ => Err(Error::forbidden(format!("{target} is not banned"))),
        });
        unbanned.await.map(drop)
    }

    /// Asks to be let in. `M_FORBIDDEN` where nobody here could answer, the join rules know no knocking or the user has
    /// no need to.
    pub async fn knock(&self, room_id: &RoomId, user_id: &UserId, reason: Option<String>) -> Result<()> {
        let content = member_content(&MembershipState::Knock, &MemberProfile::default(), reason);
        self.knock_with(room_id, user_id, content, None).await.map(drop)
    }

    async fn knock_with(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        mut content: Content,
        transaction: Option<&Transaction>,
    ) -> Result<OwnedEventId> {
        let state = self.get_enterable(room_id).await?.state();
        if state.member(user_id).is_none() && !is_known_to_strangers(&state) {
            return Err(no_entry());
        }
        fill_in(&mut content, &self.profile(user_id).await?);
        let change = Change { sender: user_id, target: user_id, content: &content, transaction };
        self.change(room_id, change, |before| match before {
            MembershipState::Join => Err(Error::forbidden("You are in this room already")),
            MembershipState::Invite => Err(Error::forbidden("You are invited to this room: join it")),
            MembershipState::Ban => Err(Error::forbidden("You are banned from this room")),
            _ => Ok(()),
        })
        .await
    }

    /// Sets a membership by its event's content, as clients do that send it as state: to the same effect as
    /// the act that it stands for. `target` is the event's state key: `M_INVALID_PARAM` if it is no user, `M_BAD_JSON`
    /// without a `membership`.
    pub(super) async fn set_membership(
        &self,
        room_id: &RoomId,
        author: &Author,
        target: &str,
        content: Content,
        transaction: Option<&Transaction>,
    ) -> Result<OwnedEventId> {
        let sender = author.user_id();
        let (target, membership) = read_membership(target, &content)?;
        match (membership, sender == target) {
            (MembershipState::Join, true) => self.set_joined(room_id, author, content, transaction).await,
            (MembershipState::Invite, _) => self.invite_with(room_id, sender, target, content, transaction).await,
            (MembershipState::Knock, true) => self.knock_with(room_id, sender, content, transaction).await,
            (MembershipState::Leave, true) => self.leave_with(room_id, sender, &content, transaction).await,
            _ => self.change(room_id, Change { sender, target, content: &content, transaction }, |_| Ok(())).await,
        }
    }

    /// Hides a room that somebody has left from them.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#leaving-rooms>
    ///
    /// `M_UNKNOWN` for who is still in the room or invited, `M_FORBIDDEN` for who never was. Joining again shows it
    /// again.
    pub async fn forget(&self, room_id: &RoomId, user_id: &UserId) -> Result<()> {
        if self.forget_outside(room_id, user_id).await? {
            return Ok(());
        }
        let forgotten = self.append(room_id, |head| match head.state.membership(user_id) {
            MembershipState::Leave if head.state.member(user_id).is_none() => Err(not_in_room()),
            MembershipState::Leave | MembershipState::Ban => {
                let (user_id, room_id) = (user_id.to_owned(), room_id.to_owned());
                Ok(Plan::facts(vec![Fact::Forgotten(Forgotten { user_id, room_id })]))
            }
            _ => Err(leave_first(room_id, user_id)),
        });
        forgotten.await.map(drop)
    }

    /// Takes somebody out of every room that they are in, invited to or knocking on: also of the one in which the
    /// server speaks to them, whose invitation they could not turn down themselves.
    ///
    /// Where something breaks, the other rooms are left all the same. Returns the first error, for whoever keeps it as
    /// an errand.
    pub async fn leave_all(&self, user_id: &UserId, reason: Option<&str>) -> Result<()> {
        let memberships = store::membership::list_of_user(&mut self.0.db.read().await?, user_id).await?;
        let present = memberships.into_iter().filter(|row| {
            matches!(row.membership, MembershipState::Join | MembershipState::Invite | MembershipState::Knock)
        });
        let content = member_content(&MembershipState::Leave, &MemberProfile::default(), reason.map(ToOwned::to_owned));
        let change = Change { sender: user_id, target: user_id, content: &content, transaction: None };
        let left = stream::iter(present)
            .map(|row| async move {
                match self.append(&row.room_id, |head| change.plan_leaving(head)).await {
                    Err(error) if !matches!(error, Error::Refused { .. }) => {
                        tracing::warn!(room_id = %row.room_id, %error, "a room could not be left");
                        Err(error)
                    }
                    // Somebody else was faster.
                    _ => Ok(()),
                }
            })
            .buffer_unordered(ROOMS_AT_ONCE);
        let left = left.fold(Ok(()), |so_far, left| async { so_far.and(left) }).await;
        left.and(self.leave_all_outside(user_id).await)
    }

    /// Changes a membership if `check` finds nothing against it in what it was before. `check` is only given the
    /// membership; what power it takes, the authorization rules say.
    async fn change(
        &self,
        room_id: &RoomId,
        change: Change<'_>,
        check: impl Fn(&MembershipState) -> Result<()>,
    ) -> Result<OwnedEventId> {
        let appended = self.append(room_id, |head| {
            if change.sender != change.target && head.state.membership(change.sender) != MembershipState::Join {
                return Err(not_in_room());
            }
            check(&head.state.membership(change.target))?;
            Ok(change.plan(head))
        });
        event_id(&appended.await?)
    }
}

/// Whether the rules by which people come in let anybody know of the room. They may then not be let in all the same.
fn is_known_to_strangers(state: &State) -> bool {
    matches!(state.join_rule(), JoinRule::Public | JoinRule::Knock | JoinRule::KnockRestricted(_))
}

/// Refuses to invite somebody who is there already, or must not come.
pub(super) fn check_invitable(target: &UserId, before: &MembershipState) -> Result<()> {
    match before {
        MembershipState::Join => Err(Error::forbidden(format!("{target} is in the room already"))),
        MembershipState::Ban => Err(Error::forbidden(format!("{target} is banned: unban them first"))),
        _ => Ok(()),
    }
}

/// The answer to somebody who would forget a room that they have something to do with.
pub(super) fn leave_first(room_id: &RoomId, user_id: &UserId) -> Error {
    Error::refused(ErrorKind::Unknown, format!("{user_id} is in room {room_id}: leave it first"))
}

/// The event by which it is as it was to be.
pub(super) fn event_id(appended: &Appended) -> Result<OwnedEventId> {
    let event_id = appended.event_id().map(ToOwned::to_owned);
    event_id.ok_or_else(|| Error::broken("nothing was appended, and nothing was there before"))
}
