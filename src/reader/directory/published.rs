//! The public directory of this server, as clients and other servers read it.
//!
//! A token is the number of rooms that came before. The list is sorted by members, so between two pages a room may move
//! over the edge; whoever reads shows it twice or misses it until they look again.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#published-room-directory> and
//! <https://spec.matrix.org/v1.19/server-server-api/#published-room-directory>

use std::sync::Arc;

use ruma::{
    ServerName, UInt,
    directory::{Filter, RoomNetwork, RoomTypeFilter},
    room::RoomType,
};

use super::{Directory, RoomCard};
use crate::{
    error::{Error, Result},
    ground::words,
    room::read::summary::PublicRoomsPage,
};

/// How many rooms come in a page where nobody says, and at most.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 500;

/// What somebody looks for in the public directory.
#[derive(Debug, Default)]
pub(crate) struct PublicRoomsQuery<'a> {
    pub(crate) limit: Option<UInt>,
    pub(crate) since: Option<&'a str>,
    /// By part of a name, topic or alias, in whatever case, with its accents or without; and by types.
    pub(crate) filter: Filter,
    pub(crate) network: RoomNetwork,
    /// The other server that asks, if it is one.
    pub(crate) server: Option<&'a ServerName>,
}

impl PublicRoomsQuery<'_> {
    /// How many rooms come in a page. One of no rooms would lead nowhere: the next one would begin at the same place.
    pub(crate) fn limit(&self) -> usize {
        let limit = self.limit.map_or(DEFAULT_LIMIT, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        limit.clamp(1, MAX_LIMIT)
    }
}

impl Directory {
    /// The public rooms that match. One in which nobody is left is not shown: nobody there could let anybody in, or take it
    /// off the list. Nor are those shown to another server into which none of its users could come.
    ///
    /// `M_INVALID_PARAM` for a token of somewhere else.
    pub(crate) async fn public_rooms(&self, query: &PublicRoomsQuery<'_>) -> Result<PublicRoomsPage> {
        let limit = query.limit();
        let skip: usize = match query.since.filter(|since| !since.is_empty()) {
            Some(token) => {
                token.parse().map_err(|_unreadable| Error::invalid_param("`since` is no token of this directory"))?
            }
            None => 0,
        };
        if matches!(query.network, RoomNetwork::ThirdParty(_)) {
            // No room of this server belongs to another network.
            return Ok(PublicRoomsPage { total_room_count_estimate: Some(UInt::MIN), ..PublicRoomsPage::default() });
        }
        let rooms = self.list_matching(query).await?;
        let total = rooms.len();
        let chunk: Vec<_> = rooms.iter().skip(skip).take(limit).map(|card| card.summary.as_published()).collect();
        let returned = skip.saturating_add(chunk.len());
        Ok(PublicRoomsPage {
            chunk,
            next_batch: (returned < total).then(|| returned.to_string()),
            prev_batch: (skip > 0).then(|| skip.saturating_sub(limit).to_string()),
            total_room_count_estimate: UInt::try_from(total).ok(),
        })
    }

    /// All of them, the greatest first.
    async fn list_matching(&self, query: &PublicRoomsQuery<'_>) -> Result<Vec<Arc<RoomCard>>> {
        let term = query.filter.generic_search_term.as_deref().filter(|term| !term.is_empty()).map(words::fold);
        let types = &query.filter.room_types;
        let matches = |card: &RoomCard| {
            card.joined() > UInt::MIN
                && term.as_deref().is_none_or(|term| card.mentions(term))
                && (types.is_empty() || types.iter().any(|wanted| is_of(card, wanted)))
                && query.server.is_none_or(|server| card.admits(server))
        };
        let published = self.published().await?;
        let mut rooms: Vec<Arc<RoomCard>> =
            self.cards(&published).await?.into_values().filter(|card| matches(card)).collect();
        rooms.sort_unstable_by(|a, b| b.joined().cmp(&a.joined()).then_with(|| a.room_id().cmp(b.room_id())));
        Ok(rooms)
    }
}

fn is_of(card: &RoomCard, wanted: &RoomTypeFilter) -> bool {
    let kind = card.summary.room_type.as_ref();
    match wanted {
        RoomTypeFilter::Default => kind.is_none(),
        RoomTypeFilter::Space => kind == Some(&RoomType::Space),
        other => kind.is_some_and(|kind| Some(kind.as_str()) == other.as_str()),
    }
}
