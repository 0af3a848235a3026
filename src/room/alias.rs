//! Names of rooms on this server, and whether the directory shows a room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-aliases>

use std::collections::{BTreeSet, HashSet};

use ruma::{
    CanonicalJsonValue, OwnedRoomAliasId, OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, RoomOrAliasId, UserId,
    api::error::ErrorKind,
    events::{
        StateEventType, TimelineEventType,
        room::{history_visibility::HistoryVisibility, member::MembershipState},
    },
};

use super::{
    Rooms, State,
    append::{Head, Plan},
    send::check_joined,
    state::membership_of,
};
use crate::{
    error::{Error, Result},
    event::{Content, Draft},
    fact::Fact,
    log::CommitError,
    store,
};

/// How many servers are named to somebody who looks for a way into a room.
const MAX_SERVERS: usize = 50;

/// Somebody who looks after names: of their rooms or, as an administrator, of the whole server.
#[derive(Clone, Copy, Debug)]
pub struct Moderator<'a> {
    pub user_id: &'a UserId,
    pub admin: bool,
}

impl Moderator<'_> {
    /// Whether they may name the room: whoever may say what it is called.
    fn may_name(self, head: &Head) -> bool {
        head.state.membership(self.user_id) == MembershipState::Join
            && head.state.power_levels(head.rules).user_can_send_state(self.user_id, StateEventType::RoomCanonicalAlias)
    }
}

impl Rooms {
    /// The room that an identifier or alias stands for.
    pub async fn resolve(&self, id: &RoomOrAliasId) -> Result<OwnedRoomId> {
        match <&RoomId>::try_from(id) {
            Ok(room_id) => Ok(room_id.to_owned()),
            Err(alias) => self.get_by_alias(alias).await,
        }
    }

    /// The room that an alias names.
    pub async fn get_by_alias(&self, alias: &RoomAliasId) -> Result<OwnedRoomId> {
        if alias.server_name() != self.server_name() {
            return Err(Error::not_found(format!(
                "{alias} is known to {}, and this server does not talk to others",
                alias.server_name()
            )));
        }
        let found = store::alias::find(&mut self.0.db.read().await?, alias).await?;
        found.map(|(room_id, _)| room_id).ok_or_else(|| Error::not_found(format!("There is no room {alias}")))
    }

    /// Refuses an alias that names a room already. Whether it is free when a room gets it, the log judges.
    pub(super) async fn check_alias_free(&self, alias: &RoomAliasId) -> Result<()> {
        match store::alias::find(&mut self.0.db.read().await?, alias).await? {
            Some(_) => Err(CommitError::AliasTaken.into()),
            None => Ok(()),
        }
    }

    /// The servers that can let somebody into a room; this one first.
    pub async fn list_servers(&self, room_id: &RoomId) -> Result<Vec<OwnedServerName>> {
        let state = self.get(room_id).await?.state();
        let joined = state.members().filter(|(_, pdu)| membership_of(pdu) == MembershipState::Join);
        let others: BTreeSet<_> = joined.map(|(user, _)| user.server_name()).collect();
        let others = others.into_iter().filter(|server| *server != self.server_name());
        Ok([self.server_name()].into_iter().chain(others).take(MAX_SERVERS).map(ToOwned::to_owned).collect())
    }

    /// Gives a room one more name.
    pub async fn add_alias(&self, by: Moderator<'_>, alias: &RoomAliasId, room_id: &RoomId) -> Result<()> {
        if alias.server_name() != self.server_name() {
            return Err(Error::invalid_param(format!("Aliases made here end in :{}", self.server_name())));
        }
        let added = self.append(room_id, |head| {
            if !by.admin {
                check_joined(&head.state, by.user_id)?;
            }
            Ok(Plan::facts(vec![Fact::AliasAdded {
                alias: alias.to_owned(),
                room_id: room_id.to_owned(),
                creator: by.user_id.to_owned(),
            }]))
        });
        added.await.map(drop)
    }

    /// Takes a name from its room, also out of `m.room.canonical_alias` where the caller may.
    pub async fn remove_alias(&self, by: Moderator<'_>, alias: &RoomAliasId) -> Result<()> {
        let found = store::alias::find(&mut self.0.db.read().await?, alias).await?;
        let (room_id, creator) = found.ok_or_else(|| Error::not_found(format!("There is no alias {alias}")))?;
        let removed = self.append(&room_id, |head| {
            let may_name = by.may_name(head);
            if !(may_name || by.admin || creator == by.user_id) {
                return Err(Error::forbidden(format!(
                    "{alias} can be removed by who made it, by who may send m.room.canonical_alias in the room, \
                     and by administrators"
                )));
            }
            let renamed = without_alias(&head.state, alias)
                .filter(|_| may_name)
                .map(|content| Draft::state(by.user_id.to_owned(), TimelineEventType::RoomCanonicalAlias, "", content));
            let removed = Fact::AliasRemoved { alias: alias.to_owned(), room_id: room_id.clone() };
            Ok(Plan { proposals: renamed.into_iter().map(Into::into).collect(), ..Plan::facts(vec![removed]) })
        });
        removed.await.map(drop)
    }

    /// This server's names for a room, for who is in it; for everybody where everybody may read it.
    pub async fn list_aliases(&self, by: Moderator<'_>, room_id: &RoomId) -> Result<Vec<OwnedRoomAliasId>> {
        let state = self.get(room_id).await?.state();
        if !by.admin && state.history_visibility() != HistoryVisibility::WorldReadable {
            check_joined(&state, by.user_id)?;
        }
        let aliases = store::alias::list(&mut self.0.db.read().await?, room_id).await?;
        Ok(aliases.into_iter().map(|(alias, _)| alias).collect())
    }

    /// Whether the directory shows a room.
    pub async fn is_published(&self, room_id: &RoomId) -> Result<bool> {
        self.get(room_id).await?;
        Ok(store::room::is_published(&mut self.0.db.read().await?, room_id).await?)
    }

    /// Those of the rooms that the directory shows.
    pub async fn list_published_among(&self, rooms: &[&RoomId]) -> Result<HashSet<OwnedRoomId>> {
        let published = store::room::list_published_among(&mut self.0.db.read().await?, rooms).await?;
        Ok(published.into_iter().collect())
    }

    /// Shows a room in the directory, or takes it out.
    pub async fn publish(&self, by: Moderator<'_>, room_id: &RoomId, listed: bool) -> Result<()> {
        let published = self.append(room_id, |head| {
            if !(by.admin || by.may_name(head)) {
                return Err(Error::forbidden(
                    "The directory is for who may send m.room.canonical_alias in the room, and for administrators",
                ));
            }
            Ok(Plan::facts(vec![Fact::Published { room_id: room_id.to_owned(), listed }]))
        });
        published.await.map(drop)
    }

    /// Refuses an `m.room.canonical_alias` with an alias that it did not have before and that does not name
    /// the room.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#mroomcanonical_alias>
    pub(super) async fn check_canonical_alias(&self, room_id: &RoomId, content: &Content) -> Result<()> {
        let state = self.get(room_id).await?.state();
        let known = state.find(&StateEventType::RoomCanonicalAlias).and_then(|pdu| pdu.content_as().ok());
        let known: Vec<String> = known.map(|known| aliases_in(&known)).transpose()?.unwrap_or_default();
        for alias in aliases_in(content)?.into_iter().filter(|alias| !known.contains(alias)) {
            let alias = RoomAliasId::parse(&*alias)
                .map_err(|e| Error::invalid_param(format!("{alias:?} is not a room alias: {e}")))?;
            let bad = |message| Error::refused(ErrorKind::BadAlias, message);
            match self.get_by_alias(&alias).await {
                Ok(named) if named == room_id => {}
                Ok(_) => return Err(bad(format!("{alias} names another room"))),
                Err(Error::Refused { message, .. }) => return Err(bad(message)),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Every alias in the content of an `m.room.canonical_alias`.
fn aliases_in(content: &Content) -> Result<Vec<String>> {
    let mut aliases = Vec::new();
    let text = |value: &CanonicalJsonValue| {
        let text = value.as_str().map(ToOwned::to_owned);
        text.ok_or_else(|| Error::invalid_param("An alias is a string that begins with #"))
    };
    match content.get("alias") {
        None | Some(CanonicalJsonValue::Null) => {}
        // How clients say that there is none.
        Some(CanonicalJsonValue::String(none)) if none.is_empty() => {}
        Some(alias) => aliases.push(text(alias)?),
    }
    match content.get("alt_aliases") {
        None | Some(CanonicalJsonValue::Null) => {}
        Some(CanonicalJsonValue::Array(others)) => {
            for alias in others {
                aliases.push(text(alias)?);
            }
        }
        Some(_) => return Err(Error::invalid_param("`alt_aliases` is a list")),
    }
    Ok(aliases)
}

/// What `m.room.canonical_alias` says without an alias, if it names that now.
fn without_alias(state: &State, alias: &RoomAliasId) -> Option<Content> {
    let mut content: Content = state.content(&StateEventType::RoomCanonicalAlias)?;
    let is_it = |value: &CanonicalJsonValue| value.as_str() == Some(alias.as_str());
    let mut named = content.get("alias").is_some_and(is_it);
    if named {
        content.remove("alias");
    }
    if let Some(CanonicalJsonValue::Array(others)) = content.get_mut("alt_aliases") {
        let before = others.len();
        others.retain(|other| !is_it(other));
        named |= others.len() < before;
    }
    named.then_some(content)
}
