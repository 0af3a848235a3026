//! What is asked of other servers about events, and who asks them.

use std::sync::Arc;

use futures_util::{FutureExt as _, future::BoxFuture};
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, RoomId, ServerName, UInt,
    api::federation::{
        authorization::get_event_authorization,
        backfill::get_backfill,
        event::{get_event, get_missing_events, get_room_state, get_room_state_ids},
    },
};
use serde_json::value::RawValue;

use crate::{
    edge::federation_client::{Bounds, RemoteError},
    event::{Pdu, ReceivedPdu},
    federation::{
        remote::Remote,
        server_keys::{ServerKeys, VerifyError},
    },
};

/// Where events of other servers come from. Nothing of an answer is verified but by [`EventSource::verify_all`].
pub(crate) trait EventSource: Send + Sync {
    /// What lies between events that are known and events that are not yet.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid>
    fn missing_events<'a>(&'a self, from: &'a ServerName, stretch: Stretch) -> Answer<'a, Vec<Box<RawValue>>>;

    /// The newest events before some, and those themselves.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1backfillroomid>
    fn backfill<'a>(
        &'a self,
        from: &'a ServerName,
        room_id: &'a RoomId,
        before: &'a [OwnedEventId],
        limit: u32,
    ) -> Answer<'a, Vec<Box<RawValue>>>;

    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1eventeventid>
    fn event<'a>(&'a self, from: &'a ServerName, event_id: &'a EventId) -> Answer<'a, Box<RawValue>>;

    /// The auth chain of an event.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1event_authroomideventid>
    fn event_auth<'a>(
        &'a self,
        from: &'a ServerName,
        room_id: &'a RoomId,
        event_id: &'a EventId,
    ) -> Answer<'a, Vec<Box<RawValue>>>;

    /// The state before an event, by identifiers.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1state_idsroomid>
    fn state_ids<'a>(
        &'a self,
        from: &'a ServerName,
        room_id: &'a RoomId,
        event_id: &'a EventId,
    ) -> Answer<'a, StateIds>;

    /// The state before an event.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1stateroomid>
    fn state<'a>(&'a self, from: &'a ServerName, room_id: &'a RoomId, event_id: &'a EventId) -> Answer<'a, WholeState>;

    /// Looks at signatures and hashes of events, of each by itself. In the order given.
    fn verify_all(&self, events: Vec<ReceivedPdu>) -> BoxFuture<'_, Vec<Result<Pdu, VerifyError>>>;
}

/// What another server says.
pub(crate) type Answer<'a, T> = BoxFuture<'a, Result<T, RemoteError>>;

/// A part of a room's history of which neither end is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    pub(crate) room_id: OwnedRoomId,
    /// What is known.
    pub(crate) earliest: Vec<OwnedEventId>,
    /// What is to be led to.
    pub(crate) latest: Vec<OwnedEventId>,
    /// How many events at most.
    pub(crate) limit: u32,
}

/// A state by the identifiers of its events.
#[derive(Clone, Debug, Default)]
pub(crate) struct StateIds {
    pub(crate) state: Vec<OwnedEventId>,
    pub(crate) auth_chain: Vec<OwnedEventId>,
}

/// A state.
#[derive(Clone, Debug, Default)]
pub(crate) struct WholeState {
    pub(crate) state: Vec<Box<RawValue>>,
    pub(crate) auth_chain: Vec<Box<RawValue>>,
}

/// The other servers, over the network.
pub(crate) struct OtherServers {
    remote: Remote,
    server_keys: ServerKeys,
}

impl OtherServers {
    /// As a [`super::Fetcher`] takes them.
    pub(crate) fn over(remote: Remote, server_keys: ServerKeys) -> Arc<dyn EventSource> {
        Arc::new(Self { remote, server_keys })
    }
}

impl EventSource for OtherServers {
    fn missing_events<'a>(&'a self, from: &'a ServerName, stretch: Stretch) -> Answer<'a, Vec<Box<RawValue>>> {
        async move {
            let Stretch { room_id, earliest, latest, limit } = stretch;
            let mut request = get_missing_events::v1::Request::new(room_id, earliest, latest);
            request.limit = UInt::from(limit);
            Ok(self.remote.call(from, request, Bounds::ANSWER).await?.events)
        }
        .boxed()
    }

    fn backfill<'a>(
        &'a self,
        from: &'a ServerName,
        room_id: &'a RoomId,
        before: &'a [OwnedEventId],
        limit: u32,
    ) -> Answer<'a, Vec<Box<RawValue>>> {
        async move {
            let request = get_backfill::v1::Request::new(room_id.to_owned(), before.to_vec(), UInt::from(limit));
            Ok(self.remote.call(from, request, Bounds::ANSWER).await?.pdus)
        }
        .boxed()
    }

    fn event<'a>(&'a self, from: &'a ServerName, event_id: &'a EventId) -> Answer<'a, Box<RawValue>> {
        async move {
            let request = get_event::v1::Request::new(event_id.to_owned());
            Ok(self.remote.call(from, request, Bounds::QUICK).await?.pdu)
        }
        .boxed()
    }

    fn event_auth<'a>(
        &'a self,
        from: &'a ServerName,
        room_id: &'a RoomId,
        event_id: &'a EventId,
    ) -> Answer<'a, Vec<Box<RawValue>>> {
        async move {
            let request = get_event_authorization::v1::Request::new(room_id.to_owned(), event_id.to_owned());
            Ok(self.remote.call(from, request, Bounds::ANSWER).await?.auth_chain)
        }
        .boxed()
    }

    fn state_ids<'a>(
        &'a self,
        from: &'a ServerName,
        room_id: &'a RoomId,
        event_id: &'a EventId,
    ) -> Answer<'a, StateIds> {
        async move {
            let request = get_room_state_ids::v1::Request::new(event_id.to_owned(), room_id.to_owned());
            let answer = self.remote.call(from, request, Bounds::ANSWER).await?;
            Ok(StateIds { state: answer.pdu_ids, auth_chain: answer.auth_chain_ids })
        }
        .boxed()
    }

    fn state<'a>(&'a self, from: &'a ServerName, room_id: &'a RoomId, event_id: &'a EventId) -> Answer<'a, WholeState> {
        async move {
            let request = get_room_state::v1::Request::new(event_id.to_owned(), room_id.to_owned());
            let answer = self.remote.call(from, request, Bounds::ANSWER).await?;
            Ok(WholeState { state: answer.pdus, auth_chain: answer.auth_chain })
        }
        .boxed()
    }

    fn verify_all(&self, events: Vec<ReceivedPdu>) -> BoxFuture<'_, Vec<Result<Pdu, VerifyError>>> {
        self.server_keys.verify_all(events).boxed()
    }
}
