//! Wake-ups between nodes: "the log has grown up to here".
//!
//! A wake-up is a hint. Whoever misses one notices by the next, or by looking at the log now and then; so
//! losing Redis costs latency and nothing else. Alone, a node needs no hub: its committer tells its readers.

mod board;

use std::{future::Future, time::Duration};

use futures_util::StreamExt as _;
use redis::{AsyncCommands as _, Client, ErrorKind, RedisError};
use tokio::{sync::watch, time::Instant};

pub(crate) use self::board::Board;
use crate::{
    position::Position,
    tasks::{Shutdown, Tasks},
};

/// How long a broken connection to Redis is left alone before the next try.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a node says something that has nothing to say, so that it hears at least itself.
const MURMUR: Duration = Duration::from_millis(500);
/// Who has heard nothing for so long, murmurs included, does not count on hearing what comes next.
const HEARING: Duration = Duration::from_millis(1_250);
/// After so much silence a connection is taken for dead, however open it looks.
const SILENCE: Duration = Duration::from_secs(3);

/// Tells the other nodes, and hears them.
#[derive(Clone)]
pub struct Hub {
    /// What this node announces. Announcements that come faster than Redis takes them become one.
    said: watch::Sender<Position>,
    heard: watch::Receiver<Position>,
    /// When anything was last heard, be it this node itself.
    last_heard: watch::Receiver<Option<Instant>>,
    board: Board,
}

impl Hub {
    /// A hub for a node that is alone, or that finds the others' batches by polling.
    pub fn silent() -> Self {
        Self {
            said: watch::Sender::default(),
            heard: watch::channel(Position::START).1,
            last_heard: watch::channel(None).1,
            board: Board::none(),
        }
    }

    /// A hub over Redis, for the nodes of one database, whose name is theirs alone. It connects in the background,
    /// again and again.
    pub fn over_redis(url: &str, name: &str, tasks: &Tasks) -> Result<Self, RedisError> {
        let client = Client::open(url)?;
        let channel = format!("hearth:{name}:log");
        let (said, to_say) = watch::channel(Position::START);
        let (hears, heard) = watch::channel(Position::START);
        let (ear, last_heard) = watch::channel(None);
        let shutdown = tasks.shutdown().clone();
        tasks.spawn("hub speaker", speak(client.clone(), channel.clone(), to_say, shutdown.clone()));
        tasks.spawn("hub listener", listen(client.clone(), channel, hears, ear, shutdown.clone()));
        let board = Board::new(client, name);
        tasks.spawn("hub board", board.clone().open(shutdown));
        Ok(Self { said, heard, last_heard, board })
    }

    /// What nodes share beside wake-ups.
    pub(crate) fn board(&self) -> &Board {
        &self.board
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
        self.last_heard().is_some_and(|at| at.elapsed() < HEARING)
    }

    /// When anything last arrived through Redis. A node hears at least itself, twice a second.
    pub(crate) fn last_heard(&self) -> Option<Instant> {
        *self.last_heard.borrow()
    }
}

async fn speak(client: Client, channel: String, mut to_say: watch::Receiver<Position>, shutdown: Shutdown) {
    let mut connection = None;
    loop {
        tokio::select! {
            () = shutdown.requests_done() => return,
            changed = to_say.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(MURMUR) => {}
        }
        let last = *to_say.borrow_and_update();
        if connection.is_none() {
            connection = in_time(client.get_multiplexed_async_connection()).await.inspect_err(complain).ok();
        }
        if let Some(open) = &mut connection
            && let Err(error) = in_time(open.publish::<_, _, ()>(&channel, last.0)).await
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
    ear: watch::Sender<Option<Instant>>,
    shutdown: Shutdown,
) {
    loop {
        tokio::select! {
            () = shutdown.requests_done() => return,
            ended = listen_once(&client, &channel, &hears, &ear) => if let Err(error) = ended { complain(&error) },
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn listen_once(
    client: &Client,
    channel: &str,
    hears: &watch::Sender<Position>,
    ear: &watch::Sender<Option<Instant>>,
) -> Result<(), RedisError> {
    let mut subscription = in_time(client.get_async_pubsub()).await?;
    in_time(subscription.subscribe(channel)).await?;
    ear.send_replace(Some(Instant::now()));
    let mut messages = subscription.on_message();
    while let Ok(message) = tokio::time::timeout(SILENCE, messages.next()).await {
        let Some(message) = message else { return Ok(()) };
        ear.send_replace(Some(Instant::now()));
        hears.send_replace(Position(message.get_payload()?));
    }
    Err(silent())
}

/// Redis may be paused or cut off without a word.
async fn in_time<T>(asked: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
    tokio::time::timeout(SILENCE, asked).await.unwrap_or_else(|_elapsed| Err(silent()))
}

fn silent() -> RedisError {
    RedisError::from((ErrorKind::Io, "no answer in time"))
}

fn complain(error: &RedisError) {
    tracing::warn!(%error, "Redis does not answer: news of other nodes come by polling until it does");
}
