//! Wake-ups between nodes: "the log has grown up to here".
//!
//! A wake-up is a hint. Whoever misses one notices by the next, or by looking at the log now and then; so losing Redis
//! costs latency and nothing else. Alone, a node needs no hub: its committer hands batches to its readers directly.
//!
//! Only the newest position matters, so both directions are `watch` channels: whatever is published faster than Redis
//! takes it, or arrives faster than it is read, becomes one. Each node hears itself too, and knows from that whether
//! its subscription is alive: `PUBLISH` to nobody succeeds as well.
//!
//! Three connections to Redis are kept by a node: one publishes, one is subscribed, and one asks for shared values. A
//! subscribed connection takes no other commands, and a slow answer to a question must not hold up wake-ups.

mod outage;
mod shared_values;
mod timeout;

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use redis::{AsyncCommands as _, Client, RedisError, aio::MultiplexedConnection};
use tokio::{sync::watch, time::Instant};

pub(crate) use self::shared_values::SharedValues;
use self::{
    outage::Outage,
    timeout::{SILENCE, in_time, no_answer},
};
use crate::{
    config::Config,
    event::SigningKey,
    ground::{
        position::Position,
        tasks::{Shutdown, Tasks},
    },
};

/// How long a broken connection to Redis is left alone before the next try.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a node publishes its position where nothing has changed, so that it hears at least itself.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// A node that has heard nothing for so long, itself included, polls as if there were no Redis. Two and a half times
/// [`HEARTBEAT`], so that one that is late does no harm.
const CONNECTED_FOR: Duration = Duration::from_millis(1_250);
/// The two connections by which a hub can lose Redis, as places in its [`Outage`]: the one that publishes and the one
/// that is subscribed.
const PUBLISHING: usize = 0;
const SUBSCRIBED: usize = 1;

/// Publishes to the other nodes how far the log has come, and hears it from them.
#[derive(Clone)]
pub struct Hub {
    /// What this node announces. Announcements that come faster than Redis takes them become one.
    outgoing: watch::Sender<Position>,
    /// The highest that was heard, from whichever node. Each repeats what it has announced itself, which may be less.
    heard: watch::Receiver<Position>,
    /// When anything was last heard, be it this node itself.
    last_heard: watch::Receiver<Option<Instant>>,
    /// Over a connection of its own.
    shared_values: SharedValues,
}

impl Hub {
    /// A hub for a node that is alone, or that finds the others' batches by polling.
    pub fn disconnected() -> Self {
        Self {
            outgoing: watch::Sender::default(),
            heard: watch::channel(Position::START).1,
            last_heard: watch::channel(None).1,
            shared_values: SharedValues::none(),
        }
    }

    /// The hub that the operator has decided on, for the nodes of the server whose signing key this is. Servers may
    /// share a Redis: channel and keys carry the server's name and the id of its key, so that another database of the
    /// same name hears nothing of this one. Fails where the URL can't be understood; whether Redis is there shows
    /// later.
    pub(crate) fn open(config: &Config, key: &SigningKey, tasks: &Tasks) -> Result<Self, RedisError> {
        let Some(url) = &config.redis.url else { return Ok(Self::disconnected()) };
        Self::over_redis(url.expose(), &format!("{}:{}", config.server_name, key.id()), tasks)
    }

    /// A hub over Redis, for the nodes of one database, whose name is theirs alone. It connects in the background,
    /// again and again. All three tasks end once no request is left.
    pub fn over_redis(url: &str, name: &str, tasks: &Tasks) -> Result<Self, RedisError> {
        let client = Client::open(url)?;
        // Nodes of other releases listen on it, so its name and its payload, a position in decimal digits, stay what
        // they are.
        let channel = format!("hearth:{name}:log");
        let (outgoing, to_publish) = watch::channel(Position::START);
        let (incoming, heard) = watch::channel(Position::START);
        let (arrival, last_heard) = watch::channel(None);
        let (shutdown, redis) =
            (tasks.shutdown().clone(), Arc::new(RedisLink { client: client.clone(), channel, outage: Outage::none() }));
        tasks.spawn("hub publisher", publish_wake_ups(Arc::clone(&redis), to_publish, shutdown.clone()));
        tasks.spawn("hub subscriber", subscribe(redis, incoming, arrival, shutdown.clone()));
        let shared_values = SharedValues::new(client, name);
        tasks.spawn("hub shared values", shared_values.clone().open(shutdown));
        Ok(Self { outgoing, heard, last_heard, shared_values })
    }

    /// What nodes share beside wake-ups.
    pub(crate) fn shared_values(&self) -> &SharedValues {
        &self.shared_values
    }

    /// Publishes to the other nodes that the log has grown. Never waits. Called after the commit, and after this node's
    /// readers have the batch.
    pub fn announce(&self, last: Position) {
        raise(&self.outgoing, last);
    }

    /// Waits until another node has announced something. This node's own announcements come back here too. Dropping
    /// this future loses none: the value stays marked as unseen.
    pub async fn heard(&mut self) -> Position {
        match self.heard.changed().await {
            Ok(()) => *self.heard.borrow_and_update(),
            // Nobody will ever say anything.
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether hints arrive at present, so that looking at the log can be rare.
    pub fn is_connected(&self) -> bool {
        self.last_heard().is_some_and(|at| at.elapsed() < CONNECTED_FOR)
    }

    /// When anything last arrived through Redis. A node hears at least itself, twice a second.
    pub(crate) fn last_heard(&self) -> Option<Instant> {
        *self.last_heard.borrow()
    }
}

/// The channel on which nodes publish, and whether it works. Shared by the two tasks, so that an outage that both
/// notice is logged once.
struct RedisLink {
    client: Client,
    channel: String,
    outage: Outage<2>,
}

impl RedisLink {
    /// At `warn` only the first time, until both ways work again.
    fn failed(&self, way: usize, error: &RedisError) {
        if self.outage.begins(way) {
            tracing::warn!(%error, "Redis does not answer: news of other nodes come by polling until it does");
        } else {
            tracing::debug!(%error, "Redis still does not answer");
        }
    }

    fn answered(&self, way: usize) {
        if self.outage.ends(way) {
            tracing::info!("Redis answers again: news of other nodes come through it");
        }
    }
}

/// Publishes whatever there is to publish, until no request is left: until then other nodes wait for what this one
/// writes.
async fn publish_wake_ups(redis: Arc<RedisLink>, mut to_publish: watch::Receiver<Position>, shutdown: Shutdown) {
    let mut connection = None;
    loop {
        tokio::select! {
            () = shutdown.requests_done() => return,
            changed = to_publish.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(HEARTBEAT) => {}
        }
        let last = *to_publish.borrow_and_update();
        if let Err(error) = publish(&redis, &mut connection, last).await {
            // A connection that has failed is never used again: what it would answer may belong to an earlier command.
            redis.failed(PUBLISHING, &error);
            connection = None;
            tokio::time::sleep(PAUSE).await;
        } else {
            redis.answered(PUBLISHING);
        }
    }
}

/// Says something through the connection that is open, or opens one.
async fn publish(
    redis: &RedisLink,
    connection: &mut Option<MultiplexedConnection>,
    last: Position,
) -> Result<(), RedisError> {
    let open = match connection {
        Some(open) => open,
        None => connection.insert(in_time(redis.client.get_multiplexed_async_connection()).await?),
    };
    in_time(open.publish::<_, _, ()>(&redis.channel, last.0)).await
}

/// Subscribes again and again. What was published in between is lost, which the next heartbeat makes good.
async fn subscribe(
    redis: Arc<RedisLink>,
    incoming: watch::Sender<Position>,
    arrival: watch::Sender<Option<Instant>>,
    shutdown: Shutdown,
) {
    loop {
        tokio::select! {
            () = shutdown.requests_done() => return,
            ended = subscribe_once(&redis, &incoming, &arrival) => if let Err(error) = ended {
                redis.failed(SUBSCRIBED, &error);
            },
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// One subscription, until it ends or nothing is heard for so long that it must be dead.
async fn subscribe_once(
    redis: &RedisLink,
    incoming: &watch::Sender<Position>,
    arrival: &watch::Sender<Option<Instant>>,
) -> Result<(), RedisError> {
    let mut subscription = in_time(redis.client.get_async_pubsub()).await?;
    in_time(subscription.subscribe(&redis.channel)).await?;
    // A subscription that was confirmed counts as heard from.
    arrival.send_replace(Some(Instant::now()));
    redis.answered(SUBSCRIBED);
    let mut messages = subscription.on_message();
    while let Ok(message) = tokio::time::timeout(SILENCE, messages.next()).await {
        let Some(message) = message else { return Ok(()) };
        arrival.send_replace(Some(Instant::now()));
        raise(incoming, Position(message.get_payload()?));
    }
    Err(no_answer())
}

/// Notifies of a position unless a later one has been seen: two commits may be announced in either order, and a heartbeat
/// of another node may say less than what was heard just before.
fn raise(seen: &watch::Sender<Position>, position: Position) {
    seen.send_if_modified(|seen| {
        let is_later = position > *seen;
        *seen = position.max(*seen);
        is_later
    });
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    /// Counts the lines of a log.
    #[derive(Clone, Default)]
    struct Lines(Arc<AtomicUsize>);

    impl io::Write for Lines {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.fetch_add(String::from_utf8_lossy(text).matches('\n').count(), Ordering::Relaxed);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    #[tokio::test]
    async fn an_outage_is_said_once_however_often_it_is_tried_and_so_is_its_end() {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(lines.clone());
        let _logging = tracing::subscriber::set_default(subscriber.finish());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::open(format!("redis://{}", listener.local_addr().unwrap())).unwrap();
        drop(listener);
        let redis = RedisLink { client, channel: "test".to_owned(), outage: Outage::none() };
        let said = || lines.0.load(Ordering::Relaxed);
        let (incoming, arrival) = (watch::Sender::default(), watch::Sender::default());
        for _ in 0..5 {
            let error = publish(&redis, &mut None, Position::START).await.unwrap_err();
            redis.failed(PUBLISHING, &error);
            let error = subscribe_once(&redis, &incoming, &arrival).await.unwrap_err();
            redis.failed(SUBSCRIBED, &error);
        }
        assert_eq!(said(), 1);
        redis.answered(PUBLISHING);
        assert_eq!(said(), 1, "nothing is heard yet");
        for _ in 0..5 {
            redis.answered(SUBSCRIBED);
            redis.answered(PUBLISHING);
        }
        assert_eq!(said(), 2);
    }
}
