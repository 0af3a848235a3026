//! What every module stands on that writes or reads the log.
//!
//! It is handed up by value from layer to layer. Everything in it is cheap to clone, so modules take the parts that
//! they need.

use std::sync::Arc;

use ruma::OwnedServerName;

use super::{
    commit::Log,
    tail::{Reader, Tail},
};
use crate::{
    config::Config,
    db::Db,
    edge::{
        hub::{Hub, SharedValues},
        metrics::{Metrics, ProcessResources},
    },
    error::{Error, Result},
    ground::{clock::Clock, random::Random, sizes::Sizes, tasks::Tasks},
    node::{
        Forwarder, Nodes, Seal, server_name,
        signing::{self, SigningKeys},
    },
};

/// The layers up to the log, at work.
pub struct Ground {
    pub config: Config,
    /// Smaller than by default in tests.
    pub(crate) sizes: Sizes,
    pub server_name: OwnedServerName,
    pub db: Db,
    pub clock: Clock,
    pub random: Random,
    pub tasks: Tasks,
    pub metrics: Metrics,
    pub log: Log,
    pub(crate) nodes: Nodes,
    pub(crate) shared_values: SharedValues,
    /// With which this server signs, the same on every node. The first was made by the first start on this database.
    pub(crate) key: SigningKeys,
    pub(crate) seal: Seal,
    pub(crate) forwarder: Forwarder,
}

impl Ground {
    /// Brings the schema up to date, enters the nodes of the database and starts the log, which `readers` follow.
    ///
    /// The order matters. The name is checked before anything is migrated, so that a wrong configuration changes
    /// nothing. Readers are named before the log starts, or they would miss its first batches. The node is entered
    /// before its log begins to read: what it has not read yet is not pruned from then on.
    pub(crate) async fn start(
        (config, sizes): (Config, Sizes),
        db: Db,
        (clock, random): (Clock, Random),
        tasks: Tasks,
        metrics: Metrics,
        readers: Vec<Arc<dyn Reader>>,
    ) -> Result<Self> {
        let server_name = config.server_name.clone();
        server_name::check(&db, &server_name).await?;
        for migration in db.migrate().await? {
            tracing::info!(migration, engine = %db.engine(), "migrated the database");
        }
        server_name::claim(&db, &server_name).await?;
        let key = signing::start(&db, &clock, &random, &tasks).await?;
        let hub = Hub::open(&config, key.first(), &tasks).map_err(Error::broken)?;
        let shared_values = hub.shared_values().clone();
        let address = config.cluster.advertise.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned());
        let tail = Arc::new(Tail::new(&sizes.caches));
        tail.follow_with(readers);
        // Its row says at first that nothing has been read, which holds pruning back until the first beat after the
        // log's start.
        let place = (db.clone(), tail.watch());
        let nodes = Nodes::enter(place, clock.clone(), &random, hub.clone(), address, metrics.clone(), &tasks).await?;
        let log = Log::start(db.clone(), tail, random.clone(), metrics.clone(), hub, &tasks).await?;
        metrics.watch(ProcessResources::of(&config, &db));
        let (seal, forwarder) = (Seal::new(key.first().shared_secret()), Forwarder::new().map_err(Error::broken)?);
        Ok(Self {
            config,
            sizes,
            server_name,
            db,
            clock,
            random,
            tasks,
            metrics,
            log,
            nodes,
            shared_values,
            key,
            seal,
            forwarder,
        })
    }
}
