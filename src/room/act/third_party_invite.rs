//! Invitations to whoever proves that an address is theirs: how a room offers them, and how one is redeemed.
//!
//! What is offered is state of the room, with the keys by which it can be redeemed, so any server in the room can check
//! who redeems it without asking anybody. The rules of rooms check the signature and nothing else; this server also
//! wants an offer to serve each user once, and whoever made it to be in the room still, with the power to invite.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#mroomthird_party_invite>
//!
//! Nothing here asks an identity server: who does is `people/third_party_invite.rs`, before and after.

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, SigningKeyId,
    UserId,
    events::{TimelineEventType, room::member::MembershipState},
    room_version_rules::RoomVersionRules,
    serde::Base64,
    signatures::{to_canonical_json_string_for_signing, verify_canonical_json_bytes},
    third_party_invite::IdentityServerBase64PublicKey,
};
use serde::{Deserialize, Serialize};

use super::{
    member_profile::{MemberProfile, fill_in, member_content},
    send::check_joined,
};
use crate::{
    error::{Error, Result},
    event::{Content, Draft, Pdu, content},
    room::{
        Rooms, State,
        graph::{append::Plan, head::Head},
    },
    store,
};

const KIND: &str = "m.room.third_party_invite";
/// How often it is looked anew whether an offer was used, where a membership changes all the while.
const ATTEMPTS: usize = 5;

/// What an identity server gets to know of a room and of who invites to it, for the letter that it writes.
///
/// <https://spec.matrix.org/v1.19/identity-service-api/#post_matrixidentityv2store-invite>
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Invitation {
    pub room_id: OwnedRoomId,
    pub sender: OwnedUserId,
    /// This and what follows is read from the room's state, and left out where it is missing or no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_alias: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_avatar_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_join_rules: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_avatar_url: Option<String>,
}

/// An invitation that waits in a room for whoever it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The state key of the event, chosen by the identity server.
    pub token: String,
    /// What the room may read of the address.
    pub display_name: String,
    /// At least one. The first is written twice, also where old servers look for the only one.
    pub keys: Vec<OfferedKey>,
}

/// A key that vouches for whoever redeems an offer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct OfferedKey {
    /// Unpadded base64 of an Ed25519 key.
    pub public_key: String,
    /// Where to ask whether it is still good. Without one it is for ever.
    pub key_validity_url: Option<String>,
}

impl Invitation {
    /// What one of its members passes on of a room, if they may invite to it. `M_FORBIDDEN` otherwise. Whether they are
    /// in the room, the caller asks.
    pub(super) fn from_member(
        state: &State,
        rules: &RoomVersionRules,
        room_id: &RoomId,
        sender: &UserId,
    ) -> Result<Self> {
        if !state.power_levels(rules).user_can_invite(sender) {
            return Err(Error::forbidden("You don't have the power to invite to this room"));
        }
        Ok(Self::of(state, room_id, sender))
    }

    fn of(state: &State, room_id: &RoomId, sender: &UserId) -> Self {
        let text = |kind: &str, state_key: &str, field: &str| {
            let content: Content = state.get(kind, state_key)?.content_as().ok()?;
            content.get(field)?.as_str().map(ToOwned::to_owned)
        };
        Self {
            room_id: room_id.to_owned(),
            sender: sender.to_owned(),
            room_alias: text("m.room.canonical_alias", "", "alias"),
            room_avatar_url: text("m.room.avatar", "", "url"),
            room_join_rules: text("m.room.join_rules", "", "join_rule"),
            room_name: text("m.room.name", "", "name"),
            room_type: text("m.room.create", "", "type"),
            sender_display_name: text("m.room.member", sender.as_str(), "displayname"),
            sender_avatar_url: text("m.room.member", sender.as_str(), "avatar_url"),
        }
    }
}

impl Offer {
    /// The event with which the room offers it.
    pub(super) fn draft(&self, sender: &UserId) -> Draft {
        let key = |key: &OfferedKey| {
            let mut object = content([("public_key", key.public_key.as_str().into())]);
            if let Some(url) = &key.key_validity_url {
                object.insert("key_validity_url".to_owned(), url.as_str().into());
            }
            object
        };
        let keys: Vec<_> = self.keys.iter().map(key).collect();
        // Old clients and servers know of one key only.
        let mut content = keys.first().cloned().unwrap_or_default();
        content.insert("display_name".to_owned(), self.display_name.as_str().into());
        let keys = keys.into_iter().map(CanonicalJsonValue::Object).collect();
        content.insert("public_keys".to_owned(), CanonicalJsonValue::Array(keys));
        Draft::state(sender.to_owned(), TimelineEventType::from(KIND), &*self.token, content)
    }
}

impl Rooms {
    /// What is passed on of a room to an identity server, by somebody who may invite to it. `M_FORBIDDEN` for who is
    /// not in it or may not invite.
    pub async fn invitation(&self, room_id: &RoomId, sender: &UserId) -> Result<Invitation> {
        let room = self.get_held(room_id).await?;
        let (state, rules) = room.view(|view| (view.state.clone(), view.rules));
        check_joined(&state, sender)?;
        Invitation::from_member(&state, rules, room_id, sender)
    }

    /// Has the room offer an invitation. An offer with a token that is there already takes its place.
    pub async fn offer(&self, room_id: &RoomId, sender: &UserId, offer: &Offer) -> Result<()> {
        let offered = self.append(room_id, |head| {
            check_joined(&head.state, sender)?;
            Ok(Plan::of(offer.draft(sender)))
        });
        offered.await.map(drop)
    }

    /// The key of an offered invitation that has signed who redeems it. `M_FORBIDDEN` where there is no such offer, or
    /// no key of it has. Whether the key is still valid, the caller asks.
    pub async fn find_signing_key(&self, room_id: &RoomId, signed: &CanonicalJsonObject) -> Result<OfferedKey> {
        #[derive(Deserialize)]
        struct Offered {
            #[serde(flatten)]
            first: OfferedKey,
            #[serde(default)]
            public_keys: Vec<OfferedKey>,
        }
        // One answer for a room that is not there and for one that offers this to nobody.
        let state = self.find_held(room_id).await?.ok_or_else(no_such_offer)?.state();
        // An invitation that was taken back has no keys any more.
        let event = state.get(KIND, token(signed)).ok_or_else(no_such_offer)?;
        let offered: Offered = event.content_as().or(Err(no_such_offer()))?;
        let mut keys = offered.public_keys.into_iter().chain([offered.first]);
        let message = to_canonical_json_string_for_signing(signed).map_err(|e| Error::bad_json(e.to_string()))?;
        keys.find(|key| has_signed(key, signed, message.as_bytes()))
            .ok_or_else(|| Error::forbidden("This invitation was not signed with a key that the room knows"))
    }

    /// Invites the user whom an identity server has signed for, in the name of who offered the invitation. The
    /// signature must have been checked ([`Self::find_signing_key`]); the authorization rules check it again. Nothing
    /// happens where the user is in the room or invited already. `M_FORBIDDEN` where they have used it before, or who
    /// made it may not invite any more.
    pub async fn redeem(&self, room_id: &RoomId, user_id: &UserId, signed: CanonicalJsonObject) -> Result<()> {
        let profile = self.profile(user_id).await?;
        for _ in 0..ATTEMPTS {
            let past = self.past_of(room_id, user_id, token(&signed)).await?;
            match self.redeem_after(room_id, user_id, (&signed, &past), &profile).await {
                Err(Error::Conflict) => {}
                redeemed => return redeemed,
            }
        }
        Err(Error::Unavailable("the user's membership of the room is being changed from elsewhere".to_owned()))
    }

    /// Whether somebody has used an offer before. They may have left or been kicked since, so it is looked for in all
    /// that they have been in the room.
    async fn past_of(&self, room_id: &RoomId, user_id: &UserId, token: &str) -> Result<Past> {
        let trunk = self.get_held(room_id).await?.view(|view| view.trunk);
        let key = ("m.room.member", user_id.as_str());
        let held = store::state::versions_of(&mut self.0.db.read().await?, trunk, key).await?;
        let last = held.last().and_then(|held| held.event.as_ref()).map(|(_, pdu)| pdu.event_id().to_owned());
        let mut events = held.iter().filter_map(|held| held.event.as_ref());
        Ok(Past { is_used: events.any(|(_, pdu)| redeems(pdu, token)), last })
    }

    /// `Error::Conflict` where the user has become something else since their past was looked at.
    async fn redeem_after(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        (signed, past): (&CanonicalJsonObject, &Past),
        profile: &MemberProfile,
    ) -> Result<()> {
        let redeemed = self.append(room_id, |head| {
            let redemption = redemption_at(head, user_id, (signed, past), self.server_name())?;
            let Some(Redemption { sender, mut content }) = redemption else { return Ok(Plan::nothing()) };
            fill_in(&mut content, profile);
            Ok(Plan::of(Draft::state(sender, TimelineEventType::RoomMember, user_id.as_str(), content)))
        });
        redeemed.await.map(drop)
    }

    /// The invitation that somebody of another server is to get for whom an identity server has signed, in the name of who
    /// offered it. The signature must have been checked ([`Self::find_signing_key`]). None where they are in the room or
    /// invited already. `M_FORBIDDEN` where they have used it before, or who made it may not invite any more.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1exchange_third_party_inviteroomid>
    pub async fn redemption(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        signed: &CanonicalJsonObject,
    ) -> Result<Option<Redemption>> {
        for _ in 0..ATTEMPTS {
            let past = self.past_of(room_id, user_id, token(signed)).await?;
            let head = self.get(room_id).await?.view(Head::of);
            match redemption_at(&head, user_id, (signed, &past), self.server_name()) {
                Err(Error::Conflict) => {}
                redemption => return redemption,
            }
        }
        Err(Error::Unavailable("the user's membership of the room is being changed from elsewhere".to_owned()))
    }
}

/// An offered invitation that is redeemed.
#[derive(Clone, Debug)]
pub struct Redemption {
    /// A user of this server, who has offered it.
    pub sender: OwnedUserId,
    /// That of the membership event.
    pub content: Content,
}

/// What comes of an offer at a head. None where the user is in the room or invited already. `Error::Conflict` where they
/// have become something else since their past was looked at.
fn redemption_at(
    head: &Head,
    user_id: &UserId,
    (signed, past): (&CanonicalJsonObject, &Past),
    here: &ServerName,
) -> Result<Option<Redemption>> {
    match head.state.membership(user_id) {
        // The rules would let this be an invitation again.
        MembershipState::Join | MembershipState::Invite => return Ok(None),
        MembershipState::Ban => return Err(Error::forbidden("You are banned from this room")),
        _ => {}
    }
    if head.state.member(user_id).map(|pdu| pdu.event_id()) != past.last.as_deref() {
        return Err(Error::Conflict);
    }
    if past.is_used {
        return Err(Error::forbidden("You have used this invitation before: ask to be invited again"));
    }
    let offered = head.state.get(KIND, token(signed)).ok_or_else(no_such_offer)?;
    let sender = offered.sender();
    if sender.server_name() != here {
        return Err(Error::forbidden(format!("{sender} has made this invitation: only their server can redeem it")));
    }
    check_may_invite(&head.state, head.rules, sender)?;
    let shown: Content = offered.content_as().unwrap_or_default();
    let mut invite = content([("signed", CanonicalJsonValue::Object(signed.clone()))]);
    if let Some(name) = shown.get("display_name") {
        invite.insert("display_name".to_owned(), name.clone());
    }
    let mut content = member_content(&MembershipState::Invite, &MemberProfile::default(), None);
    content.insert("third_party_invite".to_owned(), CanonicalJsonValue::Object(invite));
    Ok(Some(Redemption { sender: sender.to_owned(), content }))
}

/// What somebody has been in a room.
struct Past {
    /// Whether they were invited by an offer.
    is_used: bool,
    /// The event that makes them what they are.
    last: Option<OwnedEventId>,
}

/// Whether a membership was given for an offer.
fn redeems(pdu: &Pdu, token: &str) -> bool {
    #[derive(Deserialize)]
    struct RedeemedContent {
        third_party_invite: RedeemedInvite,
    }
    #[derive(Deserialize)]
    struct RedeemedInvite {
        signed: RedeemedSignature,
    }
    #[derive(Deserialize)]
    struct RedeemedSignature {
        token: String,
    }
    pdu.content_as::<RedeemedContent>().is_ok_and(|content| content.third_party_invite.signed.token == token)
}

/// Refuses an offer of somebody who could not make it today.
fn check_may_invite(state: &State, rules: &RoomVersionRules, sender: &UserId) -> Result<()> {
    let is_joined = state.membership(sender) == MembershipState::Join;
    if is_joined && state.power_levels(rules).user_can_invite(sender) {
        return Ok(());
    }
    Err(Error::forbidden("Who made this invitation may not invite to this room any more: ask somebody else to"))
}

/// Empty where there is none, at which no offer stands.
fn token(signed: &CanonicalJsonObject) -> &str {
    signed.get("token").and_then(CanonicalJsonValue::as_str).unwrap_or_default()
}

/// Whether one of the signatures is by this key, whoever says that they made it.
fn has_signed(key: &OfferedKey, signed: &CanonicalJsonObject, message: &[u8]) -> bool {
    let Ok(public_key) = IdentityServerBase64PublicKey(key.public_key.clone()).decode() else { return false };
    let Some(CanonicalJsonValue::Object(servers)) = signed.get("signatures") else { return false };
    servers.values().filter_map(CanonicalJsonValue::as_object).flatten().any(|(key_id, signature)| {
        let key_id = SigningKeyId::<ruma::AnyKeyName>::parse(key_id.as_str());
        let signature =
            signature.as_str().and_then(|signature| Base64::<ruma::serde::base64::Standard>::parse(signature).ok());
        let (Ok(key_id), Some(signature)) = (key_id, signature) else { return false };
        verify_canonical_json_bytes(&key_id.algorithm(), &public_key, signature.as_bytes(), message).is_ok()
    })
}

fn no_such_offer() -> Error {
    Error::forbidden("There is no such invitation to this room, or it was taken back")
}
