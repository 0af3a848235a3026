//! Names of rooms on this server, and whether the directory shows a room.
//!
//! An alias is a row with a unique index and comes into being by a fact in the log, together with the room where it is
//! made with one. Whether it is free is decided there.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-aliases>
//!
//! A room may have any number of names; which of them its members show is said by `m.room.canonical_alias`, a state
//! event like any other, which only names aliases and makes none.

use std::collections::HashSet;

use ruma::{
    CanonicalJsonValue, OwnedRoomAliasId, OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, RoomOrAliasId,
    api::error::ErrorKind,
    events::{
        StateEventType, TimelineEventType,
        room::{history_visibility::HistoryVisibility, member::MembershipState},
    },
};

use super::send::check_joined;
use crate::{
    error::{Error, Result},
    event::{
        Content, Draft,
        fact::{Fact, ListingChange},
    },
    log::CommitError,
    room::{
        Author, Rooms, State,
        graph::{append::Plan, head::Head},
    },
    store,
};

/// How many servers are named to somebody who looks for a way into a room. Whoever joins asks
/// one after the other, so more are of no use.
const MAX_SERVERS: usize = 50;

/// Whether somebody may name the room: whoever may say what it is called.
fn may_name(by: &Author, head: &Head) -> bool {
    let user_id = by.user_id();
    head.state.membership(user_id) == MembershipState::Join
        && head.state.power_levels(head.rules).user_can_send_state(user_id, StateEventType::RoomCanonicalAlias)
}

impl Rooms {
    /// The room that an identifier or alias stands for. An identifier is returned as it is, whether there is such a
    /// room or not. The errors are those of [`Self::get_by_alias`].
    pub async fn resolve(&self, id: &RoomOrAliasId) -> Result<OwnedRoomId> {
        match <&RoomId>::try_from(id) {
            Ok(room_id) => Ok(room_id.to_owned()),
            Err(alias) => self.get_by_alias(alias).await,
        }
    }

    /// The room that an alias of this server names. `M_NOT_FOUND` where it names none, and for aliases of other servers.
    pub async fn get_by_alias(&self, alias: &RoomAliasId) -> Result<OwnedRoomId> {
        if alias.server_name() != self.server_name() {
            return Err(Error::not_found(format!("{alias} is known to {}, and not here", alias.server_name())));
        }
        let found = store::alias::find(&mut self.0.db.read().await?, alias).await?;
        found.map(|(room_id, _)| room_id).ok_or_else(|| Error::not_found(format!("There is no room {alias}")))
    }

    /// The room that an alias names, whosever it is. The errors are those of [`Self::get_by_alias`], and of
    /// [`OtherAliases`](crate::room::OtherAliases).
    async fn find_named(&self, alias: &RoomAliasId) -> Result<OwnedRoomId> {
        match self.0.other_aliases.get().filter(|_| alias.server_name() != self.server_name()) {
            Some(others) => others.find(alias).await,
            None => self.get_by_alias(alias).await,
        }
    }

    /// Refuses an alias that names a room already. Whether it is free when a room gets it, the log judges. It spares
    /// building a room for nothing: of two that ask at once, both may pass here.
    pub(super) async fn check_alias_free(&self, alias: &RoomAliasId) -> Result<()> {
        match store::alias::find(&mut self.0.db.read().await?, alias).await? {
            Some(_) => Err(CommitError::AliasTaken.into()),
            None => Ok(()),
        }
    }

    /// The servers that can let somebody into a room; this one first. Those of joined members, at most [`MAX_SERVERS`].
    /// `M_FORBIDDEN` of a room that is not held here.
    pub async fn list_servers(&self, room_id: &RoomId) -> Result<Vec<OwnedServerName>> {
        let servers = self.get_held(room_id).await?.view(|view| view.servers().clone());
        let others = servers.into_keys().filter(|server| *server != self.server_name());
        Ok([self.server_name().to_owned()].into_iter().chain(others).take(MAX_SERVERS).collect())
    }

    /// Gives a room one more name. Any member may. `M_INVALID_PARAM` where it is not an alias of this server,
    /// `M_ROOM_IN_USE` where it names a room already, this one included.
    pub async fn add_alias(&self, by: &Author, alias: &RoomAliasId, room_id: &RoomId) -> Result<()> {
        if alias.server_name() != self.server_name() {
            return Err(Error::invalid_param(format!("Aliases made here end in :{}", self.server_name())));
        }
        let added = self.append(room_id, |head| {
            if !by.is_administrator() {
                check_joined(&head.state, by.user_id())?;
            }
            Ok(Plan::facts(vec![Fact::Listing(ListingChange::AliasAdded {
                alias: alias.to_owned(),
                room_id: room_id.to_owned(),
                creator: by.user_id().to_owned(),
            })])
            .within(self.0.quotas.aliases(by.user_id())))
        });
        added.await.map(drop)
    }

    /// Takes a name from its room, also out of `m.room.canonical_alias` where the caller may. `M_NOT_FOUND` where it
    /// names no room, or by now another than when it was looked up; `M_FORBIDDEN` for all but those whom the message
    /// lists.
    pub async fn remove_alias(&self, by: &Author, alias: &RoomAliasId) -> Result<()> {
        let found = store::alias::find(&mut self.0.db.read().await?, alias).await?;
        let (room_id, creator) = found.ok_or_else(|| Error::not_found(format!("There is no alias {alias}")))?;
        let removed = self.append(&room_id, |head| {
            let may_name = may_name(by, head);
            if !(may_name || by.is_administrator() || creator == by.user_id()) {
                return Err(Error::forbidden(format!(
                    "{alias} can be removed by who made it, by who may send m.room.canonical_alias in the room, \
                     and by administrators"
                )));
            }
            // In the write that removes the alias, so that the room never names one that is gone.
            let renamed = without_alias(&head.state, alias).filter(|_| may_name).map(|content| {
                Draft::state(by.user_id().to_owned(), TimelineEventType::RoomCanonicalAlias, "", content)
            });
            let removed = ListingChange::AliasRemoved { alias: alias.to_owned(), room_id: room_id.clone() };
            Ok(Plan {
                proposals: renamed.into_iter().map(Into::into).collect(),
                ..Plan::facts(vec![Fact::Listing(removed)])
            })
        });
        removed.await.map(drop)
    }

    /// This server's names for a room, for who is in it; for everybody where everybody may read it. `M_FORBIDDEN` for
    /// others.
    pub async fn list_aliases(&self, by: &Author, room_id: &RoomId) -> Result<Vec<OwnedRoomAliasId>> {
        let state = self.get_held(room_id).await?.state();
        if !by.is_administrator() && state.history_visibility() != HistoryVisibility::WorldReadable {
            check_joined(&state, by.user_id())?;
        }
        let aliases = store::alias::list(&mut self.0.db.read().await?, room_id).await?;
        Ok(aliases.into_iter().map(|(alias, _)| alias).collect())
    }

    /// Whether the directory shows a room. Not one that is not there, which it is not said to be.
    pub async fn is_published(&self, room_id: &RoomId) -> Result<bool> {
        Ok(store::room::is_published(&mut self.0.db.read().await?, room_id).await?)
    }

    /// Those of the rooms that the directory shows.
    pub async fn list_published_among(&self, rooms: &[&RoomId]) -> Result<HashSet<OwnedRoomId>> {
        let published = store::room::list_published_among(&mut self.0.db.read().await?, rooms).await?;
        Ok(published.into_iter().collect())
    }

    /// Shows a room in the directory, or takes it out. Done twice it writes a fact twice, to the same effect.
    pub async fn publish(&self, by: &Author, room_id: &RoomId, listed: bool) -> Result<()> {
        let published = self.append(room_id, |head| {
            if !by.is_administrator() {
                check_joined(&head.state, by.user_id())?;
            }
            if !(by.is_administrator() || may_name(by, head)) {
                return Err(Error::forbidden(
                    "The directory is for who may send m.room.canonical_alias in the room, and for administrators",
                ));
            }
            Ok(Plan::facts(vec![Fact::Listing(ListingChange::Published { room_id: room_id.to_owned(), listed })]))
        });
        published.await.map(drop)
    }

    /// Refuses an `m.room.canonical_alias` with an alias that it did not have before and that does not name
    /// the room.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#mroomcanonical_alias>
    pub(super) async fn check_canonical_alias(&self, room_id: &RoomId, content: &Content) -> Result<()> {
        let state = self.get_held(room_id).await?.state();
        let known = state.find(&StateEventType::RoomCanonicalAlias).and_then(|pdu| pdu.content_as().ok());
        let known: Vec<String> = known.map(|known| aliases_in(&known)).transpose()?.unwrap_or_default();
        for alias in aliases_in(content)?.into_iter().filter(|alias| !known.contains(alias)) {
            let alias = RoomAliasId::parse(&*alias)
                .map_err(|e| Error::invalid_param(format!("{alias:?} is not a room alias: {e}")))?;
            let bad = |message| Error::refused(ErrorKind::BadAlias, message);
            match self.find_named(&alias).await {
                Ok(named) if named == room_id => {}
                Ok(_) => return Err(bad(format!("{alias} names another room"))),
                // Gone, or not to be found out: whichever it is, the event may not name it.
                Err(Error::Refused { message, .. } | Error::Relayed { message, .. }) => return Err(bad(message)),
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

/// What `m.room.canonical_alias` says without an alias, if it names that now. None where it names it nowhere, and
/// nothing has to be sent.
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
