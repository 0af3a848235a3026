//! Rate limits: how often the same user or address may do the same thing.
//!
//! A bucket for each of them: shared by all nodes where there is a Redis, else in the memory of this node. When Redis
//! fails, each node counts by itself: N nodes then allow up to N times as much, which still bounds abuse.
//!
//! An act is counted before it is done and whether or not it succeeds. Whoever has to wait is answered with 429 and for
//! how many whole seconds. Buckets in memory are lost at a restart, which lets through one burst more.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#rate-limiting>

mod shared;

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, MonotonicClock},
    middleware::NoOpMiddleware,
    state::keyed::HashMapStateStore,
};
use ruma::{OwnedUserId, UserId};

use crate::{
    config::{self, RateLimitConfig},
    edge::{hub::SharedValues, metrics::Metrics},
    error::{Error, Result},
    people::{account::Pace, threepid::EmailAddress},
};

/// Every so many acts the buckets that are full again are thrown away.
const PRUNE_EVERY: u32 = 4096;

/// The lowest rate is one of these.
const SLOWEST: Duration = Duration::from_hours(24);

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Trying a password, or asking for a mail.
    Login,
    /// Making an account, or guessing at what permits it.
    Registration,
    /// Asking how one may register: costs less, may be done more often.
    Challenge,
    /// Sending an event, and what costs about as much.
    Message,
    /// Joining a room.
    Join,
}

impl Limit {
    /// As the metrics call it.
    fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Registration => "registration",
            Self::Challenge => "challenge",
            Self::Message => "message",
            Self::Join => "join",
        }
    }
}

/// Clients ask once or twice before they register, and again for each name that is taken.
const CHALLENGES_PER_REGISTRATION: u32 = 4;

/// A bucket of `burst` acts that refills by `per_second` a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// How many are made good in a second; it may be less than one.
    pub(crate) per_second: f64,
    /// How many may be done at once.
    pub(crate) burst: u32,
}

impl Rate {
    /// The time that one act takes to be made good. Rates that make no sense are brought to the nearest that does: one
    /// a day at least, a billion a second at most.
    fn interval(self) -> Duration {
        let interval = Duration::try_from_secs_f64(self.per_second.recip()).unwrap_or(SLOWEST);
        interval.clamp(Duration::from_nanos(1), SLOWEST)
    }

    /// So many times as fast, and as many at once.
    fn times(self, factor: u32) -> Self {
        Self { per_second: self.per_second * f64::from(factor), burst: self.burst.saturating_mul(factor) }
    }
}

/// What the operator allows.
#[derive(Clone, Debug)]
pub(crate) struct RateLimitSettings {
    /// Whether anything is limited at all.
    pub(crate) enabled: bool,
    /// Who is never made to wait by what counts for their user ID.
    pub(crate) exempt_users: HashSet<OwnedUserId>,
    pub(crate) login: Rate,
    pub(crate) registration: Rate,
    pub(crate) message: Rate,
    pub(crate) join: Rate,
}

impl From<&config::RateLimitsConfig> for RateLimitSettings {
    fn from(limits: &config::RateLimitsConfig) -> Self {
        let rate = |limit: RateLimitConfig| Rate { per_second: limit.per_second, burst: limit.burst };
        Self {
            enabled: limits.enabled,
            exempt_users: limits.exempt_users.iter().cloned().collect(),
            login: rate(limits.login),
            registration: rate(limits.registration),
            message: rate(limits.message),
            join: rate(limits.join),
        }
    }
}

/// The buckets of every limit. The clock is a parameter, so that tests need not wait.
pub(crate) struct RateLimits<C: Clock = MonotonicClock> {
    enabled: bool,
    exempt_users: HashSet<OwnedUserId>,
    shared_values: SharedValues,
    metrics: Metrics,
    login: Buckets<C>,
    registration: Buckets<C>,
    challenge: Buckets<C>,
    message: Buckets<C>,
    join: Buckets<C>,
}

/// Whose bucket it is.
#[derive(Clone, PartialEq, Eq, Hash)]
enum BucketKey {
    Address(IpAddr),
    User(OwnedUserId),
    /// In the spelling in which it is kept. It has an `@` within, where a user ID begins with one.
    Email(String),
}

impl std::fmt::Display for BucketKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::User(user_id) => user_id.fmt(f),
            Self::Email(email) => email.fmt(f),
        }
    }
}

impl RateLimits {
    pub(crate) fn new(settings: RateLimitSettings, shared_values: SharedValues, metrics: Metrics) -> Self {
        Self::with_clock(settings, shared_values, metrics, &MonotonicClock)
    }
}

impl<C: Clock + Clone> RateLimits<C> {
    fn with_clock(settings: RateLimitSettings, shared_values: SharedValues, metrics: Metrics, clock: &C) -> Self {
        let buckets = |rate| Buckets::new(rate, clock.clone());
        // So that each is in the metrics from the start, with zero.
        for limit in [Limit::Login, Limit::Registration, Limit::Challenge, Limit::Message, Limit::Join] {
            metrics.rate_limited(limit.name(), 0);
        }
        Self {
            enabled: settings.enabled,
            exempt_users: settings.exempt_users,
            shared_values,
            metrics,
            login: buckets(settings.login),
            registration: buckets(settings.registration),
            challenge: buckets(settings.registration.times(CHALLENGES_PER_REGISTRATION)),
            message: buckets(settings.message),
            join: buckets(settings.join),
        }
    }

    /// Counts an act by somebody who is logged in.
    pub(crate) async fn check(&self, limit: Limit, user_id: &UserId, pace: Pace) -> Result<()> {
        match pace {
            Pace::Limited => self.check_user(limit, user_id).await,
            Pace::Unlimited => Ok(()),
        }
    }

    /// Counts an act in a user's name, theirs or not.
    pub(crate) async fn check_user(&self, limit: Limit, user_id: &UserId) -> Result<()> {
        if !self.enabled || self.exempt_users.contains(user_id) {
            return Ok(());
        }
        self.check_key(limit, &BucketKey::User(user_id.to_owned())).await
    }

    /// Counts an act in the name of whoever has an e-mail address, apart from their user ID and whether or not there is
    /// anybody: who is made to wait learns nothing from it.
    pub(crate) async fn check_email(&self, limit: Limit, email: &EmailAddress) -> Result<()> {
        if !self.enabled {
            return Ok(());
        }
        self.check_key(limit, &BucketKey::Email(email.as_str().to_owned())).await
    }

    /// Counts an act by whoever is at this address. An IPv6 network counts as one: it belongs to one customer.
    pub(crate) async fn check_address(&self, limit: Limit, address: IpAddr) -> Result<()> {
        if !self.enabled {
            return Ok(());
        }
        let network = match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
            address @ IpAddr::V4(_) => address,
        };
        self.check_key(limit, &BucketKey::Address(network)).await
    }

    /// Counts an act in one bucket: the shared one where Redis answers, else this node's.
    async fn check_key(&self, limit: Limit, key: &BucketKey) -> Result<()> {
        let buckets = self.buckets(limit);
        let Rate { burst, .. } = buckets.rate;
        // By this name every node knows the bucket.
        let name = format!("{limit:?}:{key}");
        let checked = match shared::check(&self.shared_values, &name, buckets.rate.interval(), burst).await {
            Some(checked) => checked.map_err(too_fast),
            None => buckets.check(key),
        };
        checked.inspect_err(|_| self.metrics.rate_limited(limit.name(), 1))
    }

    fn buckets(&self, limit: Limit) -> &Buckets<C> {
        match limit {
            Limit::Login => &self.login,
            Limit::Registration => &self.registration,
            Limit::Challenge => &self.challenge,
            Limit::Message => &self.message,
            Limit::Join => &self.join,
        }
    }
}

/// The buckets of one limit, in the memory of this node.
struct Buckets<C: Clock> {
    rate: Rate,
    limiter: RateLimiter<BucketKey, HashMapStateStore<BucketKey>, C, NoOpMiddleware<C::Instant>>,
    /// For [`PRUNE_EVERY`].
    checks: AtomicU32,
}

impl<C: Clock> Buckets<C> {
    fn new(rate: Rate, clock: C) -> Self {
        let limiter = RateLimiter::hashmap_with_clock(quota(rate), clock);
        Self { rate, limiter, checks: AtomicU32::new(0) }
    }

    /// Counts an act, or says how long to wait.
    fn check(&self, key: &BucketKey) -> Result<()> {
        if self.checks.fetch_add(1, Ordering::Relaxed) % PRUNE_EVERY == PRUNE_EVERY - 1 {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(key).map_err(|until| too_fast(until.wait_time_from(self.limiter.clock().now())))
    }
}

/// At least one act is let through, whatever the configuration says.
fn quota(rate: Rate) -> Quota {
    let burst = NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::with_period(rate.interval());
    quota.unwrap_or_else(|| Quota::per_second(burst)).allow_burst(burst)
}

/// 429 with `Retry-After`.
fn too_fast(wait: Duration) -> Error {
    Error::wait("Too many requests", wait)
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;
    use ruma::{
        api::error::{ErrorKind, RetryAfter},
        user_id,
    };

    use super::*;

    fn limits(enabled: bool) -> (RateLimits<FakeRelativeClock>, FakeRelativeClock) {
        let rate = Rate { per_second: 0.5, burst: 2 };
        let settings = RateLimitSettings {
            enabled,
            exempt_users: HashSet::from([user_id!("@bot:example.org").to_owned()]),
            login: rate,
            registration: rate,
            message: rate,
            join: rate,
        };
        let clock = FakeRelativeClock::default();
        (RateLimits::with_clock(settings, SharedValues::none(), Metrics::new(), &clock), clock)
    }

    #[tokio::test]
    async fn a_bucket_empties_and_fills_again() {
        let (limits, clock) = limits(true);
        let alice = user_id!("@alice:example.org");
        limits.check(Limit::Message, alice, Pace::Limited).await.unwrap();
        limits.check(Limit::Message, alice, Pace::Limited).await.unwrap();
        let Err(Error::Refused { kind: ErrorKind::LimitExceeded(data), .. }) =
            limits.check(Limit::Message, alice, Pace::Limited).await
        else {
            panic!("three of two were allowed")
        };
        assert_eq!(data.retry_after, Some(RetryAfter::Delay(Duration::from_secs(2))));

        limits.check(Limit::Join, alice, Pace::Limited).await.unwrap();
        limits.check(Limit::Message, user_id!("@bob:example.org"), Pace::Limited).await.unwrap();

        clock.advance(Duration::from_secs(2));
        limits.check(Limit::Message, alice, Pace::Limited).await.unwrap();
        assert!(limits.check(Limit::Message, alice, Pace::Limited).await.is_err());
        let metrics = limits.metrics.render().unwrap();
        assert!(metrics.contains("hearth_rate_limited_requests_total{limit=\"message\"} 2\n"), "{metrics}");
    }

    #[tokio::test]
    async fn an_ipv6_network_counts_as_one_address() {
        let (limits, _) = limits(true);
        let check = async |address: &str| limits.check_address(Limit::Login, address.parse().unwrap()).await;
        check("2001:db8::1").await.unwrap();
        check("2001:db8::2:0:0:1").await.unwrap();
        assert!(check("2001:db8::3").await.is_err());
        check("2001:db8:0:1::1").await.unwrap();

        check("192.0.2.1").await.unwrap();
        check("::ffff:192.0.2.1").await.unwrap();
        assert!(check("192.0.2.1").await.is_err());
        check("192.0.2.2").await.unwrap();
    }

    #[tokio::test]
    async fn an_email_address_counts_apart_from_whoever_has_it() {
        let (limits, _) = limits(true);
        let check = async |email: &str| limits.check_email(Limit::Login, &EmailAddress::parse(email).unwrap()).await;
        check("alice@example.org").await.unwrap();
        check("Alice@Example.org").await.unwrap();
        assert!(check("alice@example.org").await.is_err());
        check("bob@example.org").await.unwrap();
        limits.check_user(Limit::Login, user_id!("@alice:example.org")).await.unwrap();
    }

    #[tokio::test]
    async fn some_are_not_limited() {
        let bot = user_id!("@bot:example.org");
        let bridge = user_id!("@bridge:example.org");
        let alice = user_id!("@alice:example.org");
        let (limits_on, _) = limits(true);
        let (limits_off, _) = limits(false);
        for _ in 0..10 {
            limits_on.check(Limit::Message, bot, Pace::Limited).await.unwrap();
            limits_on.check(Limit::Message, bridge, Pace::Unlimited).await.unwrap();
            limits_off.check(Limit::Message, alice, Pace::Limited).await.unwrap();
            limits_off.check_address(Limit::Login, "192.0.2.1".parse().unwrap()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn buckets_of_the_past_take_no_memory() {
        let (limits, clock) = limits(true);
        for number in 0..PRUNE_EVERY {
            limits.check_address(Limit::Login, IpAddr::V4(number.into())).await.unwrap();
        }
        clock.advance(Duration::from_mins(1));
        for _ in 0..PRUNE_EVERY {
            // Whether it was allowed doesn't matter here.
            limits.check_address(Limit::Login, IpAddr::V4(0.into())).await.unwrap_or_default();
        }
        assert_eq!(limits.login.limiter.len(), 1);
    }

    #[test]
    fn nonsense_in_the_configuration_is_brought_to_sense() {
        for per_second in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-30, 1e30] {
            let _quota: Quota = quota(Rate { per_second, burst: 0 });
        }
    }
}
