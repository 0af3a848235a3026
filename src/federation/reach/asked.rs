//! What other servers are asked on behalf of clients, and who asks them.

use futures_util::{FutureExt as _, future::BoxFuture};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, RoomAliasId, RoomId, ServerName, UInt, UserId,
    api::{
        Direction,
        federation::{
            directory::{get_public_rooms, get_public_rooms_filtered},
            event::get_event_by_timestamp,
            query::{get_profile_information, get_room_information},
            space::get_hierarchy,
        },
    },
    directory::{Filter, RoomNetwork},
};
use serde_json::Value;

use crate::{
    edge::federation_client::{Bounds, RemoteError, RemoteRequest},
    error::Error,
    federation::remote::Remote,
};

/// A client waits for it. What is read into memory whole may take many times as much there.
const BOUNDS: Bounds = Bounds { max_bytes: 4 * 1024 * 1024, ..Bounds::QUICK };
/// From so many bytes on an answer is read by a thread of its own: it would hold up others.
const LARGE: usize = 256 * 1024;

/// What another server says, or why it does not.
pub(crate) type Answer<'a, T> = BoxFuture<'a, Result<T, RemoteError>>;

/// What part of a directory is asked for.
#[derive(Clone, Debug)]
pub(crate) struct RoomsWanted {
    /// How many rooms at most.
    pub(crate) limit: usize,
    /// A token of that server's.
    pub(crate) since: Option<String>,
    pub(crate) filter: Filter,
    pub(crate) network: RoomNetwork,
}

/// Other servers, as they are asked on behalf of clients. Their answers are JSON of which nothing is known.
pub(crate) trait AskedServers: Send + Sync {
    /// Which room an alias of the server's names, and who is in it.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1querydirectory>
    fn alias<'a>(&'a self, alias: &'a RoomAliasId) -> Answer<'a, Value>;

    /// The profile of one of the server's users, whole.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1queryprofile>
    fn profile<'a>(&'a self, user_id: &'a UserId) -> Answer<'a, Value>;

    /// A page of the server's directory.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1publicrooms>
    fn public_rooms<'a>(&'a self, server: &'a ServerName, wanted: &'a RoomsWanted) -> Answer<'a, Value>;

    /// A room as it looks from outside, with those that it holds.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid>
    fn hierarchy<'a>(&'a self, server: &'a ServerName, room_id: &'a RoomId) -> Answer<'a, Value>;

    /// Which event of a room that the server knows is closest to a time.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1timestamp_to_eventroomid>
    fn event_by_timestamp<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        at: (MilliSecondsSinceUnixEpoch, Direction),
    ) -> Answer<'a, (OwnedEventId, MilliSecondsSinceUnixEpoch)>;
}

impl AskedServers for Remote {
    fn alias<'a>(&'a self, alias: &'a RoomAliasId) -> Answer<'a, Value> {
        let request = get_room_information::v1::Request::new(alias.to_owned());
        ask(self, alias.server_name(), request).boxed()
    }

    fn profile<'a>(&'a self, user_id: &'a UserId) -> Answer<'a, Value> {
        let request = get_profile_information::v1::Request::new(user_id.to_owned());
        ask(self, user_id.server_name(), request).boxed()
    }

    fn public_rooms<'a>(&'a self, server: &'a ServerName, wanted: &'a RoomsWanted) -> Answer<'a, Value> {
        let RoomsWanted { limit, since, filter, network } = wanted.clone();
        let limit = UInt::try_from(limit).ok();
        if filter.is_empty() {
            let mut request = get_public_rooms::v1::Request::new();
            request.limit = limit;
            request.since = since;
            request.room_network = network;
            return ask(self, server, request).boxed();
        }
        let mut request = get_public_rooms_filtered::v1::Request::new();
        request.limit = limit;
        request.since = since;
        request.filter = filter;
        request.room_network = network;
        ask(self, server, request).boxed()
    }

    fn hierarchy<'a>(&'a self, server: &'a ServerName, room_id: &'a RoomId) -> Answer<'a, Value> {
        // All of it, since it is remembered for whoever asks next.
        ask(self, server, get_hierarchy::v1::Request::new(room_id.to_owned())).boxed()
    }

    fn event_by_timestamp<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        (ts, direction): (MilliSecondsSinceUnixEpoch, Direction),
    ) -> Answer<'a, (OwnedEventId, MilliSecondsSinceUnixEpoch)> {
        async move {
            let request = get_event_by_timestamp::v1::Request::new(room_id.to_owned(), ts, direction);
            let answer = self.call(server, request, BOUNDS).await?;
            Ok((answer.event_id, answer.origin_server_ts))
        }
        .boxed()
    }
}

async fn ask<R: RemoteRequest>(remote: &Remote, server: &ServerName, request: R) -> Result<Value, RemoteError> {
    let body = remote.open(server, request, BOUNDS).await?.whole().await?.into_body();
    let no_json = || RemoteError::Malformed(format!("its answer to {} is no JSON", R::path()));
    if body.len() < LARGE {
        return serde_json::from_slice(&body).ok().ok_or_else(no_json);
    }
    let reading = tokio::task::spawn_blocking(move || serde_json::from_slice(&body).ok());
    reading.await.ok().flatten().ok_or_else(no_json)
}

/// What a client gets where a server did not answer. Without federation there is nothing elsewhere.
pub(super) fn failed(error: &RemoteError, server: &ServerName) -> Error {
    match error {
        RemoteError::Off => Error::not_found(format!("Only {server} knows, and this server does not talk to others")),
        error => error.for_client(server),
    }
}
