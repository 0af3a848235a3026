//! The whole house: every room, built once from the lowest floor up, handed to whoever needs it.

mod administration;

use std::{ops::Deref, sync::Arc, time::Duration};

use ruma::{
    OwnedServerName,
    api::client::{
        discovery::discover_support::Contact,
        uiaa::{PolicyDefinition, PolicyTranslation},
    },
};

pub use self::administration::{AccountSummary, Administration, Listed, Session, Taken, TokenSummary, Who};
use crate::{
    account::{AccountSettings, Accounts, Bearers, OnDevicesChanged, PasswordCost},
    account_data::{self, AccountDataBook},
    clock::Clock,
    config::{self, Config, DatabaseUrl, RateLimit},
    db::Db,
    delayed_event::{self, DelayedEvents},
    device::Devices,
    directory::{self, Directory},
    discovery::Discovery,
    errand::{Errands, LeaveRooms},
    error::{Error, Result},
    event::SigningKey,
    fact::{Batch, Fact, News, Write},
    filter::Filters,
    hub::Hub,
    identity::IdentityServers,
    log::{Log, Reader, Tail},
    metrics::{Metrics, Pool, Surroundings},
    node::{Courier, Nodes, Seal},
    notice::Notices,
    presence::{self, PresenceBook},
    profile::Profiles,
    random::Random,
    rate_limit::{Rate, RateLimitSettings, RateLimits},
    receipt::{self, Receipts},
    report::Reports,
    room::{Active, NoticeRoom, Rooms},
    search::Searches,
    server_name, signing,
    sync::{Registry, Sources, Syncs, Watchers, wake_for_presence},
    tasks::Tasks,
    terms::Terms,
    third_party_invite::ThirdPartyInvites,
    threepid::Threepids,
    turn::Turn,
    typing::{self, Typists},
    uia::Uia,
    unread::{self, Unread},
    upkeep::{self, Tidied},
    user_directory::UserDirectory,
};

/// How long an access token lasts whose client knows how to refresh it.
const ACCESS_TOKEN_LIFETIME: Duration = Duration::from_hours(1);

/// The reason that other members of a room read.
pub(crate) const DEPARTURE: &str = "The account was deactivated";

/// The server's rooms. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<House>);

/// What [`App`] holds.
pub struct House {
    pub config: Config,
    pub server_name: OwnedServerName,
    pub db: Db,
    pub clock: Clock,
    pub random: Random,
    pub tasks: Tasks,
    pub metrics: Metrics,
    pub log: Log,
    pub(crate) nodes: Nodes,
    pub(crate) seal: Seal,
    pub(crate) courier: Courier,
    pub(crate) rooms: Rooms,
    pub(crate) accounts: Accounts,
    pub(crate) uia: Uia,
    pub(crate) devices: Devices,
    pub(crate) directory: Directory,
    pub(crate) profiles: Profiles,
    pub(crate) filters: Filters,
    pub(crate) rate_limits: RateLimits,
    pub(crate) discovery: Discovery,
    pub(crate) account_data: AccountDataBook,
    pub(crate) receipts: Receipts,
    pub(crate) reports: Reports,
    pub(crate) searches: Searches,
    pub(crate) terms: Terms,
    /// None where the server has no voice of its own.
    pub(crate) notices: Option<Notices>,
    pub(crate) third_party_invites: ThirdPartyInvites,
    pub(crate) threepids: Threepids,
    /// None where no TURN server is configured.
    pub(crate) turn: Option<Turn>,
    pub(crate) typists: Typists,
    pub(crate) delayed_events: DelayedEvents,
    pub(crate) syncs: Syncs,
    pub(crate) presence: PresenceBook,
    pub(crate) user_directory: UserDirectory,
    #[cfg(test)]
    pub(crate) unread: Unread,
}

impl Deref for App {
    type Target = House;

    fn deref(&self) -> &House {
        &self.0
    }
}

impl App {
    /// Brings the schema up to date and builds the rooms.
    #[expect(clippy::too_many_lines, reason = "one row of rooms, each built of those before it")]
    pub async fn start(
        config: Config,
        db: Db,
        clock: Clock,
        random: Random,
        tasks: Tasks,
        metrics: Metrics,
    ) -> Result<Self> {
        server_name::check(&db, &config.server_name).await?;
        for migration in db.migrate().await? {
            tracing::info!(migration, engine = %db.engine(), "migrated the database");
        }
        server_name::claim(&db, &config.server_name).await?;
        let server_name = config.server_name.clone();
        let key = signing::load_or_create(&db, &clock, &random).await?;
        let key = Arc::new(key);
        let seal = Seal::new(key.shared_secret());
        let identity = IdentityServers::new(&config.identity, server_name.clone(), Arc::clone(&key))?;
        let hub = hub(&config, &key, &tasks)?;
        let board = hub.board().clone();
        let address = config.cluster.advertise.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned());
        let nodes =
            Nodes::enter(db.clone(), clock.clone(), &random, hub.clone(), address, metrics.clone(), &tasks).await?;
        let tail = Arc::new(Tail::default());
        let (here, chance) = (server_name.clone(), random.clone());
        let log = Log::start(db.clone(), Arc::clone(&tail), here, chance, metrics.clone(), hub, &tasks).await?;
        let books = Books::new();
        let rooms = Rooms::new(
            db.clone(),
            log.clone(),
            clock.clone(),
            random.clone(),
            server_name.clone(),
            Arc::clone(&key),
            Arc::clone(&books.rooms),
        );
        let accounts = accounts(&config, (&db, &clock, &random, &metrics), tell_of_devices(log.clone()))?;
        let (terms, secret) = (terms(&config.registration.terms), key.shared_secret());
        let uia = Uia::new(db.clone(), clock.clone(), random.clone(), accounts.clone(), terms.clone(), secret);
        let threepids = Threepids::new(db.clone(), clock.clone(), random.clone(), &config, identity.clone())?;
        books.follow(&tail, accounts.bearers());
        rooms.load_erasures().await?;
        let profiles = Profiles::new(db.clone(), server_name.clone());
        // Before anything is sent in somebody's name that may be a refusal of theirs to listen.
        let notices = notices(&config, &db, &clock, &rooms, &profiles).await?;
        let parts = (db.clone(), rooms.clone(), clock.clone(), random.clone());
        let limits = delayed_event_limits(&config.delayed_events);
        let delayed_events = DelayedEvents::start(parts, limits, &nodes, &tasks).await?;
        let user_directory = UserDirectory::new(db.clone(), config.user_directory.search_all);
        let tidied = Tidied {
            accounts: accounts.clone(),
            uia: uia.clone(),
            delayed_events: delayed_events.clone(),
            threepids: threepids.clone(),
            user_directory: user_directory.clone(),
            rooms: rooms.clone(),
        };
        tasks.spawn("upkeep", upkeep::run(tidied, nodes.duty("upkeep").await?, tasks.shutdown().clone()));
        let account_data = AccountDataBook::new(db.clone(), log.clone(), books.account_data);
        let receipts = Receipts::new(db.clone(), rooms.clone(), clock.clone(), books.receipts);
        let typists =
            Typists::start((db.clone(), rooms.clone(), clock.clone()), books.typing, &nodes, board.clone(), &tasks)
                .await?;
        let enabled = config.presence.enabled;
        let presence = PresenceBook::start(
            (db.clone(), log.clone(), clock.clone()),
            enabled,
            books.presence,
            nodes.clone(),
            board.clone(),
            &tasks,
        )
        .await?;
        let searches = Searches::start(db.clone(), rooms.clone(), nodes.duty("search index").await?, &tasks);
        let unread = Unread::new(db.clone(), rooms.clone(), receipts.clone(), account_data.clone(), books.unread);
        let waking =
            wake_for_presence(db.clone(), Arc::clone(&tail), Arc::clone(&books.watchers), tasks.shutdown().clone());
        tasks.spawn("presence wakes", waking);
        let syncs = Syncs::new(Sources {
            rooms: rooms.clone(),
            watchers: Watchers::new(db.clone(), tail, books.watchers),
            receipts: receipts.clone(),
            typists: typists.clone(),
            presence: presence.clone(),
            unread: unread.clone(),
            account_data: account_data.clone(),
            clock: clock.clone(),
        });
        watch(&metrics, &config, &db);
        let (leave, duty) = (leave_rooms(rooms.clone()), nodes.duty("errands").await?);
        let errands = Errands::new(db.clone(), accounts.clone(), leave, notices.clone(), duty);
        tasks.spawn("errands", errands.run(tasks.shutdown().clone()));
        Ok(Self(Arc::new(House {
            reports: Reports::new(db.clone(), rooms.clone(), clock.clone(), random.clone()),
            searches,
            third_party_invites: ThirdPartyInvites::new(rooms.clone(), identity),
            threepids,
            turn: turn(&config.turn),
            directory: Directory::new(db.clone(), log.clone(), books.directory),
            devices: Devices::new(db.clone()),
            profiles,
            terms,
            notices,
            filters: Filters::new(db.clone()),
            rate_limits: RateLimits::new(rate_limits(&config), board, metrics.clone()),
            discovery: discovery(&config),
            config,
            server_name,
            db,
            clock,
            random,
            tasks,
            metrics,
            log,
            nodes,
            seal,
            courier: Courier::new().map_err(Error::broken)?,
            rooms,
            accounts,
            uia,
            account_data,
            receipts,
            typists,
            delayed_events,
            syncs,
            presence,
            user_directory,
            #[cfg(test)]
            unread,
        })))
    }

    /// Whether anybody has an account yet.
    pub async fn has_accounts(&self) -> Result<bool> {
        self.accounts.any(self.config.notices_sender().as_deref()).await
    }
}

/// What is kept in memory and follows the log.
struct Books {
    rooms: Arc<Active>,
    account_data: Arc<account_data::Book>,
    receipts: Arc<receipt::Book>,
    typing: Arc<typing::Book>,
    presence: Arc<presence::Book>,
    unread: Arc<unread::Book>,
    watchers: Arc<Registry>,
    directory: Arc<directory::Book>,
}

impl Books {
    fn new() -> Self {
        let presence: Arc<presence::Book> = Arc::default();
        Self {
            rooms: Arc::default(),
            account_data: Arc::default(),
            receipts: Arc::default(),
            typing: Arc::default(),
            unread: Arc::default(),
            watchers: Arc::new(Registry::new(Arc::clone(&presence))),
            directory: Arc::default(),
            presence,
        }
    }

    fn follow(&self, tail: &Tail, bearers: Arc<Bearers>) {
        let readers: [Arc<dyn Reader>; _] = [
            Arc::clone(&self.rooms) as _,
            Arc::clone(&self.account_data) as _,
            Arc::clone(&self.receipts) as _,
            Arc::clone(&self.typing) as _,
            Arc::clone(&self.presence) as _,
            Arc::clone(&self.unread) as _,
            Arc::new(DeviceReader(bearers)),
            Arc::clone(&self.directory) as _,
            Arc::clone(&self.watchers) as _,
        ];
        tail.follow_with(readers.into());
    }
}

/// Writes into the log that a user's devices have changed, so that every node forgets their tokens.
fn tell_of_devices(log: Log) -> OnDevicesChanged {
    Arc::new(move |user_id| {
        let log = log.clone();
        Box::pin(async move {
            log.append(Write::fact(Fact::Devices { user_id })).await?;
            Ok(())
        })
    })
}

/// Takes whoever has been deactivated out of their rooms.
fn leave_rooms(rooms: Rooms) -> LeaveRooms {
    Arc::new(move |user_id| {
        let rooms = rooms.clone();
        Box::pin(async move { rooms.leave_all(&user_id, Some(DEPARTURE)).await })
    })
}

fn accounts(
    config: &Config,
    (db, clock, random, metrics): (&Db, &Clock, &Random, &Metrics),
    tell: OnDevicesChanged,
) -> Result<Accounts> {
    let settings = AccountSettings {
        registration: config.registration.mode,
        guests: config.registration.guests,
        shared_secret: config.registration.shared_secret.as_ref().map(|secret| secret.expose().to_owned()),
        access_token_lifetime: ACCESS_TOKEN_LIFETIME,
        password_cost: PasswordCost::default(),
        password_min_length: usize::try_from(config.passwords.min_length).map_err(Error::broken)?,
    };
    let (here, metrics) = (config.server_name.clone(), metrics.clone());
    Accounts::new(db.clone(), clock.clone(), random.clone(), here, settings, metrics, tell)
}

/// Has the metrics tell of the database's connections and of the disk.
fn watch(metrics: &Metrics, config: &Config, db: &Db) {
    let database_file = match config.database_url() {
        DatabaseUrl::Sqlite(path) => Some(path),
        DatabaseUrl::Postgres(_) => None,
    };
    let folder = database_file.as_ref().and_then(|file| file.parent()).unwrap_or(&config.data_dir).to_owned();
    let db = db.clone();
    let pools = move || db.pools().into_iter().map(|(name, open, idle, max)| Pool { name, open, idle, max }).collect();
    metrics.watch(Surroundings { folder, database_file, pools: Box::new(pools) });
}

fn hub(config: &Config, key: &SigningKey, tasks: &Tasks) -> Result<Hub> {
    let Some(url) = &config.redis.url else { return Ok(Hub::silent()) };
    let server = format!("{}:{}", config.server_name, key.id());
    Hub::over_redis(url.expose(), &server, tasks).map_err(Error::broken)
}

fn terms(policies: &[config::Policy]) -> Terms {
    let translated = |(language, text): (&String, &config::Translation)| {
        (language.clone(), PolicyTranslation::new(text.name.clone(), text.url.clone()))
    };
    let policy = |policy: &config::Policy| {
        let translations = policy.translations.iter().map(translated).collect();
        (policy.id.clone(), PolicyDefinition::new(policy.version.clone(), translations))
    };
    Terms::new(policies.iter().map(policy).collect())
}

/// The server's own voice, where it is to have one that nobody else has.
async fn notices(
    config: &Config,
    db: &Db,
    clock: &Clock,
    rooms: &Rooms,
    profiles: &Profiles,
) -> Result<Option<Notices>> {
    let Some(sender) = config.notices_sender() else { return Ok(None) };
    let config::ServerNotices { name, avatar_url, .. } = config.server_notices.clone();
    let room = NoticeRoom { sender, name, avatar_url, version: config.rooms.default_version.clone() };
    let notices = Notices::new(db.clone(), clock.clone(), rooms.clone(), profiles.clone(), room);
    match notices.reserve().await {
        Ok(()) => Ok(Some(notices)),
        Err(Error::Refused { message, .. }) => {
            tracing::error!(reason = message, "there are no server notices");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn turn(config: &config::Turn) -> Option<Turn> {
    let secret = config.shared_secret.as_ref().filter(|_| !config.uris.is_empty())?;
    let uris = config.uris.iter().map(ToString::to_string).collect();
    Some(Turn::new(uris, secret.expose(), Duration::from_secs(config.lifetime_seconds)))
}

fn delayed_event_limits(config: &config::DelayedEvents) -> delayed_event::Limits {
    delayed_event::Limits {
        max_delay: Duration::from_secs(config.max_delay_seconds),
        max_scheduled: config.max_scheduled,
    }
}

fn rate_limits(config: &Config) -> RateLimitSettings {
    let limits = &config.rate_limits;
    let rate = |limit: RateLimit| Rate { per_second: limit.per_second, burst: limit.burst };
    RateLimitSettings {
        enabled: limits.enabled,
        exempt_users: limits.exempt_users.iter().cloned().collect(),
        login: rate(limits.login),
        registration: rate(limits.registration),
        message: rate(limits.message),
        join: rate(limits.join),
    }
}

fn discovery(config: &Config) -> Discovery {
    let support = &config.well_known.support;
    Discovery {
        client_base_url: config.well_known.client_base_url.as_ref().map(|url| url.as_str().to_owned()),
        support_contacts: support.contacts.iter().filter_map(contact).collect(),
        support_page: support.page.as_ref().map(|url| url.as_str().to_owned()),
        rtc_transports: config.rtc.transports.clone(),
        policy_server_key: config.well_known.policy_server.ed25519.as_ref().map(|key| key.base64().clone()),
        default_room_version: config.rooms.default_version.clone(),
    }
}

/// A contact without an address to turn to is none.
fn contact(contact: &config::Contact) -> Option<Contact> {
    let (role, address) = (contact.role.clone(), contact.email_address.clone());
    match (contact.matrix_id.clone(), address) {
        (Some(matrix_id), address) => {
            let mut out = Contact::with_matrix_id(role, matrix_id);
            out.email_address = address;
            Some(out)
        }
        (None, Some(address)) => Some(Contact::with_email_address(role, address)),
        (None, None) => None,
    }
}

/// Forgets the tokens of a user whose devices have changed, on whichever node.
struct DeviceReader(Arc<Bearers>);

impl Reader for DeviceReader {
    fn read(&self, batch: &Batch) {
        for (_, news) in batch.entries() {
            if let News::Devices { user_id } | News::Erased { user_id } = news {
                self.0.forget(user_id);
            }
        }
    }
}
