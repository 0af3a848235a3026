//! The whole house: every room, built once from the lowest floor up, handed to whoever needs it.

use std::{collections::BTreeMap, ops::Deref, sync::Arc, time::Duration};

use futures_util::future::ready;
use ruma::{
    OwnedServerName, OwnedUserId,
    api::client::{
        discovery::discover_support::Contact,
        uiaa::{PolicyDefinition, PolicyTranslation},
    },
};
use serde::Serialize;

use crate::{
    account::{AccountSettings, Accounts, Bearers, OnDevicesChanged, PasswordCost, Restriction},
    account_data::{self, AccountDataBook},
    clock::{Clock, millis},
    config::{self, Config, RateLimit},
    db::Db,
    delayed_event::{self, DelayedEvents},
    device::Devices,
    directory::{self, Directory},
    discovery::Discovery,
    errand::{self, Errands},
    error::{Error, Result},
    event::SigningKey,
    fact::{Batch, Fact, News, Write},
    filter::Filters,
    hub::Hub,
    identity::IdentityServers,
    log::{Log, Reader, Tail},
    metrics::Metrics,
    node::{Courier, Nodes, Seal},
    notice::Notices,
    presence::{self, PresenceBook},
    profile::Profiles,
    random::Random,
    rate_limit::{Rate, RateLimitSettings, RateLimits},
    receipt::{self, Receipts},
    report::{self, Report, Reports},
    room::{Active, NoticeRoom, Rooms},
    search::Searches,
    signing,
    store::account::Account,
    sync::{Registry, Sources, Syncs, Watchers},
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
        for migration in db.migrate().await? {
            tracing::info!(migration, engine = %db.engine(), "migrated the database");
        }
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
        let books = Books::default();
        let rooms = Rooms::new(
            db.clone(),
            log.clone(),
            clock.clone(),
            random.clone(),
            server_name.clone(),
            Arc::clone(&key),
            Arc::clone(&books.rooms),
        );
        let accounts = accounts(&config, &db, &clock, &random, tell_of_devices(log.clone()))?;
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
        let user_directory = UserDirectory::new(db.clone());
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
        let errands = Errands::new(db.clone(), accounts.clone(), notices.clone(), nodes.duty("errands").await?);
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
            rate_limits: RateLimits::new(rate_limits(&config), board),
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

/// What an operator does from the command line, beside a server that may be running: accounts only, so that
/// nothing else of a server starts. What takes more is left as an errand to a running node.
pub struct Administration {
    db: Db,
    accounts: Accounts,
    clock: Clock,
    random: Random,
    notices_sender: Option<OwnedUserId>,
}

/// An account as its operator sees it.
#[derive(Debug, Serialize)]
pub struct AccountSummary {
    pub user_id: OwnedUserId,
    pub admin: bool,
    pub guest: bool,
    pub deactivated: bool,
    #[serde(flatten)]
    pub restrictions: RestrictionSummary,
    /// The documents that were accepted at registration, each with its version.
    pub accepted_terms: BTreeMap<String, String>,
}

/// What has been done to an account.
#[derive(Debug, Serialize)]
pub struct RestrictionSummary {
    pub locked: bool,
    pub suspended: bool,
}

impl Administration {
    /// Brings the schema up to date.
    pub async fn open(config: &Config, db: Db, clock: Clock, random: &Random) -> Result<Self> {
        db.migrate().await?;
        // Nobody is logged in or out by these commands. Of what else they change, running nodes are told by an errand.
        let accounts = accounts(config, &db, &clock, random, Arc::new(|_| Box::pin(ready(Ok(())))))?;
        let (random, notices_sender) = (random.clone(), config.notices_sender());
        Ok(Self { db, accounts, clock, random, notices_sender })
    }

    /// Makes an account; its rooms and devices come later. `name` may be a localpart or a whole user id.
    pub async fn create_user(&self, name: &str, password: &str, admin: bool) -> Result<OwnedUserId> {
        self.accounts.create_user(name, password, admin).await
    }

    /// What there is to know of an account.
    pub async fn show_account(&self, name: &str) -> Result<AccountSummary> {
        let (account, accepted_terms) = self.accounts.describe(name).await?;
        let Account { user_id, admin, guest, deactivated, restrictions, .. } = account;
        let restrictions = RestrictionSummary { locked: restrictions.locked, suspended: restrictions.suspended };
        let accepted_terms = accepted_terms.into_iter().collect();
        Ok(AccountSummary { user_id, admin, guest, deactivated, restrictions, accepted_terms })
    }

    /// Locks an account, or unlocks it.
    pub async fn set_locked(&self, name: &str, locked: bool) -> Result<OwnedUserId> {
        self.accounts.restrict_from_outside(name, Restriction::Locked, locked).await
    }

    /// Suspends an account, or ends its suspension.
    pub async fn set_suspended(&self, name: &str, suspended: bool) -> Result<OwnedUserId> {
        self.accounts.restrict_from_outside(name, Restriction::Suspended, suspended).await
    }

    /// Has a running node tell something to a user, or to everybody who has an account where no name is given. Tells
    /// to how many that is.
    pub async fn send_notice(&self, name: Option<&str>, text: &str) -> Result<u64> {
        let Some(sender) = &self.notices_sender else {
            let message = "The server has no voice of its own: set server_notices.localpart and start it again";
            return Err(Error::forbidden(message));
        };
        let to = match name {
            Some(name) => Some(self.accounts.describe(name).await?.0),
            None => None,
        };
        if to.as_ref().is_some_and(|account| account.deactivated) {
            return Err(Error::forbidden("This account has been deactivated: nobody would read the notice"));
        }
        let to = to.as_ref().map(|account| &*account.user_id);
        let now = self.clock.now().get().into();
        errand::leave_notice(&self.db, to, sender, text, self.random.token(16), now).await
    }

    /// The newest reports of users, newest first.
    pub async fn list_reports(&self, limit: u32) -> Result<Vec<Report>> {
        report::list(&self.db, limit).await
    }

    /// Makes a registration token, good for `uses` accounts and for `lifetime`; without limit where there is none.
    pub async fn create_registration_token(&self, uses: Option<u32>, lifetime: Option<Duration>) -> Result<String> {
        let now = i64::from(self.clock.now().get());
        let expires = lifetime.map(|lifetime| now.saturating_add(millis(lifetime)));
        self.accounts.create_registration_token(uses.map(i64::from), expires).await
    }
}

/// What is kept in memory and follows the log.
#[derive(Default)]
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

fn accounts(config: &Config, db: &Db, clock: &Clock, random: &Random, tell: OnDevicesChanged) -> Result<Accounts> {
    let settings = AccountSettings {
        registration: config.registration.mode,
        guests: config.registration.guests,
        shared_secret: config.registration.shared_secret.as_ref().map(|secret| secret.expose().to_owned()),
        access_token_lifetime: ACCESS_TOKEN_LIFETIME,
        password_cost: PasswordCost::default(),
        password_min_length: usize::try_from(config.passwords.min_length).map_err(Error::broken)?,
    };
    Accounts::new(db.clone(), clock.clone(), random.clone(), config.server_name.clone(), settings, tell)
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
