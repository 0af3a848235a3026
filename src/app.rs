//! The whole server: every layer, started from the ground up on those below it.
//!
//! A layer holds the one below it and gives access to it by `Deref`, so a handler finds `app.rooms` and `app.accounts`
//! in one place, and a new module is one line in its layer.
//!
//! Caches are made first and the layers after them, because the log has to know its readers before it reads anything: a
//! cache that began to follow later would have missed what came before.

#[cfg(test)]
mod tests;

use std::{ops::Deref, sync::Arc};

use crate::{
    config::{Config, discovery::Discovery, turn::Turn},
    db::Db,
    edge::{
        metrics::Metrics,
        serve::{answers::Answers, budget::Budget},
    },
    ephemeral::{self, Ephemeral},
    error::Result,
    federation::Federation,
    ground::{clock::Clock, random::Random, sizes::Sizes, tasks::Tasks, weighed::Weighed},
    log::{Ground, Reader},
    media::Media,
    people::{self, People},
    reader::{self, Readers},
    room::{RoomCache, Rooms},
    worker::Workers,
};

/// The server. Whatever its layers hold is at hand in it. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

/// What [`App`] holds: the topmost layer, which stands on the others, and what the API alone needs.
pub struct Inner {
    workers: Workers,
    pub(crate) discovery: Discovery,
    /// None where no TURN server is configured.
    pub(crate) turn: Option<Turn>,
    /// The memory of what is under way between clients and this node.
    pub(crate) budget: Budget,
    pub(crate) answers: Answers,
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Deref for Inner {
    type Target = Workers;

    fn deref(&self) -> &Workers {
        &self.workers
    }
}

impl App {
    /// Brings the schema up to date and starts every layer.
    pub async fn start(
        config: Config,
        db: Db,
        clock: Clock,
        random: Random,
        tasks: Tasks,
        metrics: Metrics,
    ) -> Result<Self> {
        let starting = Self::start_with((config, Sizes::default()), db, (clock, random), tasks, metrics);
        Box::pin(starting).await
    }

    /// The sizes are a parameter for tests, in which memory is to be small.
    pub(crate) async fn start_with(
        (config, sizes): (Config, Sizes),
        db: Db,
        (clock, random): (Clock, Random),
        tasks: Tasks,
        metrics: Metrics,
    ) -> Result<Self> {
        let caches = Caches::new(&config, &sizes);
        let mut weighed = caches.weighed();
        // From here on the log is followed, by readers that know nothing yet: each reads what it needs when it is
        // asked.
        let ground = Ground::start((config, sizes), db, (clock, random), tasks, metrics, caches.readers()).await?;
        let rooms = Rooms::start(&ground, caches.rooms).await?;
        let people = People::start(ground, rooms, caches.people).await?;
        let federation = Federation::start(people)?;
        let media = Box::pin(Media::start(federation)).await?;
        let ephemeral = Ephemeral::start(media, caches.ephemeral).await?;
        let readers = Readers::start(ephemeral, caches.readers).await?;
        let workers = Box::pin(Workers::start(readers)).await?;
        let tail: Arc<dyn Weighed> = Arc::clone(workers.log.tail()) as _;
        weighed.extend([tail, workers.filters.cache(), workers.accounts.seen_devices(), workers.server_keys.cache()]);
        weighed.extend(workers.remote.cache());
        weighed.push(workers.reach.cache());
        workers.metrics.watch_caches(weighed);
        let (discovery, turn) = (Discovery::of(&workers.config), Turn::find(&workers.config.turn));
        let limits = &workers.config.connections;
        let budget = Budget::new(limits.held_megabytes, limits.held_megabytes_per_caller, workers.metrics.clone());
        let answers = Answers::new(budget.clone(), workers.config.patience(), workers.metrics.clone());
        workers.tasks.spawn("unread answers", answers.clone().give_up_unread(workers.tasks.shutdown().clone()));
        Ok(Self(Arc::new(Inner { workers, discovery, turn, budget, answers })))
    }

    /// Whether anybody has an account yet.
    pub async fn has_accounts(&self) -> Result<bool> {
        self.accounts.any(self.config.notices_sender().as_deref()).await
    }
}

/// What is kept in memory and follows the log, by layer.
struct Caches {
    rooms: Arc<RoomCache>,
    people: people::Caches,
    ephemeral: ephemeral::Caches,
    readers: reader::Caches,
}

impl Caches {
    fn new(config: &Config, sizes: &Sizes) -> Self {
        let bytes = u64::from(config.rooms.cache_megabytes) * 1024 * 1024;
        let rooms = Arc::new(RoomCache::with_limit(bytes));
        let ephemeral = ephemeral::Caches::new(&sizes.caches);
        let readers = reader::Caches::new(Arc::clone(&ephemeral.presence), sizes);
        Self { rooms, people: people::Caches::new(sizes), ephemeral, readers }
    }

    /// Those that tell what they take.
    fn weighed(&self) -> Vec<Arc<dyn Weighed>> {
        let mut weighed: Vec<Arc<dyn Weighed>> = vec![Arc::clone(&self.rooms) as _];
        weighed.extend(self.people.weighed());
        weighed.extend(self.ephemeral.weighed());
        weighed.extend(self.readers.weighed());
        weighed
    }

    /// In the order in which they read a batch: lower layers first, so that whoever is woken by a higher one finds what
    /// it reads there.
    fn readers(&self) -> Vec<Arc<dyn Reader>> {
        let mut readers: Vec<Arc<dyn Reader>> = vec![Arc::clone(&self.rooms) as _];
        readers.extend(self.people.readers());
        readers.extend(self.ephemeral.readers());
        readers.extend(self.readers.readers());
        readers
    }
}
