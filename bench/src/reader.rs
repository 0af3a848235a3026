//! A client that follows its rooms with `/sync`
//! (<https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync>).

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::client::{Client, User};
use crate::inbox::Inbox;
use crate::message::next_batch;

/// How long a waiting reader lets the server wait, in milliseconds: what clients use.
const LONG_POLL_MS: u64 = 30_000;
/// Events a room may bring at once. The usual default of 10 would let a busy reader see gaps, not deliveries.
const TIMELINE_LIMIT: u32 = 100;

/// One device in its endless `/sync`.
///
/// It asks for no presence: a crowd that comes online at once would be measured instead of the messages.
#[derive(Debug)]
pub(crate) struct Reader {
    client: Client,
    position: Position,
}

/// Where a device is in its `/sync`.
#[derive(Debug, Clone)]
pub(crate) struct Position {
    filter: String,
    since: String,
}

impl Reader {
    /// Stores a filter and catches up; whatever happens afterwards will be delivered.
    pub(crate) async fn new(mut client: Client, user: &User) -> Result<Self> {
        let filter = store_filter(&mut client, user).await?;
        let path = format!("/_matrix/client/v3/sync?set_presence=offline&filter={filter}");
        let answer = client.call(&Method::GET, &path, Bytes::new()).await?;
        let position = Position { filter, since: next_batch(&answer)? };
        Ok(Self { client, position })
    }

    /// Goes on from a known position, on a new connection.
    pub(crate) fn at(client: Client, position: Position) -> Self {
        Self { client, position }
    }

    pub(crate) fn position(&self) -> Position {
        self.position.clone()
    }

    /// One incremental `/sync`.
    pub(crate) async fn sync(&mut self, timeout_ms: u64) -> Result<Bytes> {
        let Position { filter, since } = &self.position;
        let since = utf8_percent_encode(since, NON_ALPHANUMERIC);
        let path =
            format!("/_matrix/client/v3/sync?set_presence=offline&timeout={timeout_ms}&filter={filter}&since={since}");
        let answer = self.client.call(&Method::GET, &path, Bytes::new()).await?;
        self.position.since = next_batch(&answer)?;
        Ok(answer)
    }

    /// Reads into the inbox for as long as the scenario lasts.
    pub(crate) async fn follow(mut self, inbox: Arc<Inbox>) -> Result<Infallible> {
        self.follow_with(&inbox, LONG_POLL_MS).await
    }

    /// Reads into the inbox, with a timeout of one's own.
    pub(crate) async fn follow_with(&mut self, inbox: &Inbox, timeout_ms: u64) -> Result<Infallible> {
        loop {
            inbox.reader_waits(true);
            let answer = self.sync(timeout_ms).await?;
            inbox.reader_waits(false);
            inbox.take(&answer);
        }
    }
}

/// Stores the filter as clients do, so that no request carries it.
async fn store_filter(client: &mut Client, user: &User) -> Result<String> {
    #[derive(Serialize)]
    struct Filter {
        room: RoomFilter,
    }
    #[derive(Serialize)]
    struct RoomFilter {
        timeline: TimelineFilter,
    }
    #[derive(Serialize)]
    struct TimelineFilter {
        limit: u32,
    }
    #[derive(Deserialize)]
    struct Stored {
        filter_id: String,
    }
    let id = utf8_percent_encode(&user.id, NON_ALPHANUMERIC);
    let filter = Filter { room: RoomFilter { timeline: TimelineFilter { limit: TIMELINE_LIMIT } } };
    let stored: Stored = client.post(&format!("/_matrix/client/v3/user/{id}/filter"), &filter).await?;
    Ok(utf8_percent_encode(&stored.filter_id, NON_ALPHANUMERIC).to_string())
}
