//! What nodes write up for each other in Redis: values that expire, and that nothing correct depends on.
//!
//! Whoever asks gets an answer within a few milliseconds or none at all. After a failure Redis is left alone for a
//! moment, so that an outage does not slow every request down.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use redis::{Client, FromRedisValue, Pipeline, RedisError, aio::MultiplexedConnection};
use tokio::time::{Instant, timeout};

use super::in_time;
use crate::tasks::Shutdown;

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long Redis is left alone after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// The values that the nodes of one database share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Board(Option<Arc<Inner>>);

struct Inner {
    client: Client,
    prefix: String,
    connection: tokio::sync::Mutex<Option<MultiplexedConnection>>,
    down_until: Mutex<Option<Instant>>,
}

impl Board {
    /// A board on which nobody writes.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    pub(super) fn new(client: Client, name: &str) -> Self {
        let (connection, down_until) = (tokio::sync::Mutex::default(), Mutex::default());
        Self(Some(Arc::new(Inner { client, prefix: format!("hearth:{name}:"), connection, down_until })))
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

    /// Whether there is a Redis that has not just failed.
    pub(crate) fn is_there(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| !inner.is_down())
    }

    /// The name under which this server keeps something.
    pub(crate) fn key(&self, name: &str) -> String {
        self.0.as_ref().map_or_else(String::new, |inner| format!("{}{name}", inner.prefix))
    }

    /// Runs commands, all in one go. None if there is no Redis, or none that answers.
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
        let mut down_until = inner.down_until.lock();
        if down_until.is_none() {
            tracing::warn!(%error, "Redis does not answer: each node goes by what it knows itself until it does");
        }
        *down_until = Some(Instant::now() + PAUSE);
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
                Ok(answer)
            }
            Err(error) => {
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
    use crate::tasks::Tasks;

    #[tokio::test]
    async fn it_connects_before_anybody_asks_and_nobody_waits_for_that() {
        // A Redis that takes connections and never says a word.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::open(format!("redis://{}", listener.local_addr().unwrap())).unwrap();
        let (board, tasks) = (Board::new(client, "test"), Tasks::new());
        tasks.spawn("hub board", board.clone().open(tasks.shutdown().clone()));
        let _opening = timeout(Duration::from_secs(30), listener.accept()).await.unwrap().unwrap();
        let mut ping = redis::pipe();
        ping.cmd("PING");
        let asked = timeout(Duration::from_secs(2), board.ask::<(String,)>(&ping));
        assert_eq!(asked.await.unwrap(), None);
        assert!(!board.is_there());
        assert_eq!(tasks.join_all(Duration::from_secs(2)).await, [""; 0]);
    }
}
