//! Wake-ups between nodes: "the log has grown up to here".
//!
//! A wake-up is a hint. Whoever misses one notices by the next, or by looking at the log now and then; so
//! losing Redis costs latency and nothing else. Alone, a node needs no hub: its committer tells its readers.

use std::time::Duration;

use futures_util::StreamExt as _;
use redis::{AsyncCommands as _, Client, RedisError};
use ruma::ServerName;
use tokio::sync::watch;

use crate::{
    position::Position,
    tasks::{Shutdown, Tasks},
};

/// How long a broken connection to Redis is left alone before the next try.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells the other nodes, and hears them.
#[derive(Clone, Debug)]
pub struct Hub {
    /// What this node announces. Announcements that come faster than Redis takes them become one.
    said: watch::Sender<Position>,
    heard: watch::Receiver<Position>,
    /// Whether hints of other nodes arrive at present.
    connected: watch::Receiver<bool>,
}

impl Hub {
    /// A hub for a node that is alone, or that finds the others' batches by polling.
    pub fn silent() -> Self {
        Self {
            said: watch::Sender::default(),
            heard: watch::channel(Position::START).1,
            connected: watch::channel(false).1,
        }
    }

    /// A hub over Redis, for the nodes of one server name. It connects in the background, again and again.
    pub fn over_redis(url: &str, server_name: &ServerName, tasks: &Tasks) -> Result<Self, RedisError> {
        let client = Client::open(url)?;
        let channel = format!("hearth:{server_name}:log");
        let (said, to_say) = watch::channel(Position::START);
        let (hears, heard) = watch::channel(Position::START);
        let (connects, connected) = watch::channel(false);
        let shutdown = tasks.shutdown();
        tasks.spawn("hub speaker", speak(client.clone(), channel.clone(), to_say, shutdown.clone()));
        tasks.spawn("hub listener", listen(client, channel, hears, connects, shutdown.clone()));
        Ok(Self { said, heard, connected })
    }

    /// Tells the other nodes that the log has grown. Never waits.
    pub fn announce(&self, last: Position) {
        self.said.send_replace(last);
    }

    /// Waits until another node has announced something.
    pub async fn heard(&mut self) -> Position {
        match self.heard.changed().await {
            Ok(()) => *self.heard.borrow_and_update(),
            // Nobody will ever say anything.
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether hints arrive at present, so that looking at the log can be rare.
    pub fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }
}

async fn speak(client: Client, channel: String, mut to_say: watch::Receiver<Position>, shutdown: Shutdown) {
    let mut connection = None;
    loop {
        tokio::select! {
            () = shutdown.requests_done() => return,
            changed = to_say.changed() => if changed.is_err() { return },
        }
        let last = *to_say.borrow_and_update();
        if connection.is_none() {
            connection = client.get_multiplexed_async_connection().await.inspect_err(complain).ok();
        }
        if let Some(open) = &mut connection
            && let Err(error) = open.publish::<_, _, ()>(&channel, last.0).await
        {
            complain(&error);
            connection = None;
        }
        if connection.is_none() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn listen(
    client: Client,
    channel: String,
    hears: watch::Sender<Position>,
    connects: watch::Sender<bool>,
    shutdown: Shutdown,
) {
    loop {
        tokio::select! {
            () = shutdown.requests_done() => return,
            ended = listen_once(&client, &channel, &hears, &connects) => if let Err(error) = ended { complain(&error) },
        }
        connects.send_replace(false);
        tokio::time::sleep(PAUSE).await;
    }
}

async fn listen_once(
    client: &Client,
    channel: &str,
    hears: &watch::Sender<Position>,
    connects: &watch::Sender<bool>,
) -> Result<(), RedisError> {
    let mut subscription = client.get_async_pubsub().await?;
    subscription.subscribe(channel).await?;
    connects.send_replace(true);
    let mut messages = subscription.on_message();
    while let Some(message) = messages.next().await {
        hears.send_replace(Position(message.get_payload()?));
    }
    Ok(())
}

fn complain(error: &RedisError) {
    tracing::warn!(%error, "Redis does not answer: news of other nodes come by polling until it does");
}
