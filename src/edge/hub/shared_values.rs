//! Values that nodes share in Redis: rate limits, which devices were seen by which node, and who goes on typing. They
//! expire, and nothing correct depends on them.
//!
//! Whoever asks gets an answer within a few milliseconds or none at all. After a failure Redis is left alone for a
//! moment, so that an outage does not slow every request down.
//!
//! A value is a few bytes under a key with the server's name in it, and always has an expiry: nobody cleans up. Nodes
//! of different releases may share a Redis, so what a key means never changes; another meaning gets another key.
//!
//! Locks: none is held while another is taken, and `connection` is the only one that is held across an await, while a
//! connection is made. So whoever asks meanwhile waits for that connection, at most for [`PATIENCE`].

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use redis::{Client, FromRedisValue, Pipeline, RedisError, aio::MultiplexedConnection};
use tokio::time::{Instant, timeout};

use super::{outage::Outage, timeout::in_time};
use crate::ground::tasks::Shutdown;

/// An answer that takes longer is none. A request does without then, so this is what an outage costs each request that
/// tries.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long Redis is left alone after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// The one way on which these values can lose Redis, as a place in [`Inner::outage`].
const ASKING: usize = 0;

/// The values that the nodes of one database share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SharedValues(Option<Arc<Inner>>);

struct Inner {
    client: Client,
    /// `hearth:` and the name of the server, with a colon at the end.
    prefix: String,
    /// One connection for all: the protocol lets commands of several requests be under way on it at once.
    connection: tokio::sync::Mutex<Option<MultiplexedConnection>>,
    /// No command is sent before then. After a failure requests do without Redis for [`PAUSE`]; those that come then
    /// wait for it again, until one of them has failed or been answered.
    down_until: Mutex<Option<Instant>>,
    outage: Outage<1>,
}

impl SharedValues {
    /// No Redis: whoever asks gets no answer.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    pub(super) fn new(client: Client, name: &str) -> Self {
        let (connection, down_until) = (tokio::sync::Mutex::default(), Mutex::default());
        let prefix = format!("hearth:{name}:");
        Self(Some(Arc::new(Inner { client, prefix, connection, down_until, outage: Outage::none() })))
    }

    /// Connects, so that whoever asks first need not wait for that. While it tries nobody waits for it; where it fails,
    /// whoever asks tries again.
    pub(super) async fn open(self, shutdown: Shutdown) {
        let Some(inner) = self.0 else { return };
        let connected = tokio::select! {
            () = shutdown.requests_done() => return,
            connected = in_time(inner.client.get_multiplexed_async_connection()) => connected,
        };
        match connected {
            Ok(connection) => {
                inner.connection.lock().await.get_or_insert(connection);
            }
            Err(error) => tracing::debug!(%error, "Redis does not answer at start"),
        }
    }

    /// Whether there is a Redis that has not just failed. Only a hint, for whoever would have to prepare much for a
    /// question: the next one may fail all the same.
    pub(crate) fn is_there(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| !inner.is_down())
    }

    /// The name under which this server keeps something. What a release has written under a name, later ones may still
    /// find. Empty without Redis, where no command is sent.
    pub(crate) fn key(&self, name: &str) -> String {
        self.0.as_ref().map_or_else(String::new, |inner| format!("{}{name}", inner.prefix))
    }

    /// Runs commands, all in one go. None if there is no Redis, or none that answers. The type must be that of the
    /// pipeline's answers that are not ignored. Whether a command that got no answer was carried out is not known, so
    /// commands must be such as may be repeated.
    pub(crate) async fn ask<T: FromRedisValue>(&self, commands: &Pipeline) -> Option<T> {
        let inner = self.0.as_ref()?;
        if inner.is_down() {
            return None;
        }
        let error = match timeout(PATIENCE, inner.run(commands)).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => {
                // It may be open on this side only, and never fail by itself.
                *inner.connection.lock().await = None;
                "no answer in time".to_owned()
            }
        };
        if inner.outage.begins(ASKING) {
            tracing::warn!(%error, "Redis does not answer: each node goes by what it knows itself until it does");
        }
        *inner.down_until.lock() = Some(Instant::now() + PAUSE);
        None
    }
}

impl Inner {
    fn is_down(&self) -> bool {
        self.down_until.lock().is_some_and(|until| Instant::now() < until)
    }

    async fn run<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, RedisError> {
        let mut connection = self.connect().await?;
        match commands.query_async(&mut connection).await {
            Ok(answer) => {
                self.down_until.lock().take();
                if self.outage.ends(ASKING) {
                    tracing::info!("Redis answers again: nodes go by what they share");
                }
                Ok(answer)
            }
            Err(error) => {
                // An answer that is an error, such as a wrong type of value, leaves the connection as good as it was.
                if error.is_unrecoverable_error() {
                    *self.connection.lock().await = None;
                }
                Err(error)
            }
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let mut open = self.connection.lock().await;
        if let Some(connection) = &*open {
            return Ok(connection.clone());
        }
        let connection = self.client.get_multiplexed_async_connection().await?;
        *open = Some(connection.clone());
        Ok(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::tasks::Tasks;

    #[tokio::test]
    async fn it_connects_before_anybody_asks_and_nobody_waits_for_that() {
        // A Redis that takes connections and never says a word.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::open(format!("redis://{}", listener.local_addr().unwrap())).unwrap();
        let (shared_values, tasks) = (SharedValues::new(client, "test"), Tasks::new());
        tasks.spawn("hub shared values", shared_values.clone().open(tasks.shutdown().clone()));
        let _opening = timeout(Duration::from_secs(30), listener.accept()).await.unwrap().unwrap();
        let mut ping = redis::pipe();
        ping.cmd("PING");
        let asked = timeout(Duration::from_secs(2), shared_values.ask::<(String,)>(&ping));
        assert_eq!(asked.await.unwrap(), None);
        assert!(!shared_values.is_there());
        assert_eq!(tasks.join_all(Duration::from_secs(2)).await, [""; 0]);
    }
}
