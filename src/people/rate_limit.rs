//! Rate limits: how much the same user, device or address may have done.
//!
//! A bucket for each of them (`bucket.rs`): shared by all nodes where there is a Redis, else in the memory of this node.
//! When Redis fails, each node counts by itself: N nodes then allow up to N times as much, which still bounds abuse.
//!
//! An act is counted before it is done, by what it costs, and whether or not it succeeds. Whoever has to wait is answered
//! with 429 and for how many whole seconds. Buckets in memory are lost at a restart, which lets through one burst more.
//!
//! Which endpoint takes how much of what is said in `api/policy.rs`, and for operators in `docs/operating.md`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#rate-limiting>

mod bucket;
mod guess;
mod network;
mod shared;

use std::{
    collections::HashSet,
    fmt::Arguments,
    net::IpAddr,
    time::{Duration, Instant},
};

use ruma::{DeviceId, OwnedUserId, ServerName, UserId};

pub(crate) use self::{
    bucket::Rate,
    guess::{Guess, GuessedName},
};
use self::{
    bucket::{Buckets, Charge},
    network::Network,
};
use crate::{
    config::{RateLimitConfig, RateLimitsConfig},
    edge::{hub::SharedValues, metrics::Metrics},
    error::{Error, Result},
    people::account::Pace,
};

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
    /// Changing a membership by anything but joining: one's own or somebody else's.
    Membership,
    /// The events that new rooms begin with.
    CreateRoom,
    /// The rooms that hear of a new name or avatar.
    Profile,
    /// What users keep for themselves, in KiB.
    AccountData,
    /// Receipts, typing and presence.
    Ephemeral,
    /// Messages to devices, by recipients.
    ToDevice,
    /// Uploading files, in MiB.
    Media,
    /// Reading anything.
    Read,
    /// The rooms that a client gets whole.
    Sync,
    /// Searching for people and messages.
    Search,
    /// What strangers look up.
    Lookup,
    /// What another server asks, or sends.
    Server,
}

impl Limit {
    pub(crate) const ALL: [Self; 17] = [
        Self::Login,
        Self::Registration,
        Self::Challenge,
        Self::Message,
        Self::Join,
        Self::Membership,
        Self::CreateRoom,
        Self::Profile,
        Self::AccountData,
        Self::Ephemeral,
        Self::ToDevice,
        Self::Media,
        Self::Read,
        Self::Sync,
        Self::Search,
        Self::Lookup,
        Self::Server,
    ];

    /// As the metrics and the configuration call it. `challenge` has no key of its own.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Registration => "registration",
            Self::Challenge => "challenge",
            Self::Message => "message",
            Self::Join => "join",
            Self::Membership => "membership",
            Self::CreateRoom => "create_room",
            Self::Profile => "profile",
            Self::AccountData => "account_data",
            Self::Ephemeral => "ephemeral",
            Self::ToDevice => "to_device",
            Self::Media => "media",
            Self::Read => "read",
            Self::Sync => "sync",
            Self::Search => "search",
            Self::Lookup => "lookup",
            Self::Server => "server",
        }
    }

    /// What the operator allows.
    pub(crate) fn rate(self, limits: &RateLimitsConfig) -> Rate {
        let rate = |limit: RateLimitConfig| Rate { per_second: limit.per_second, burst: limit.burst };
        match self {
            Self::Login => rate(limits.login),
            Self::Registration => rate(limits.registration),
            Self::Challenge => rate(limits.registration).times(CHALLENGES_PER_REGISTRATION),
            Self::Message => rate(limits.message),
            Self::Join => rate(limits.join),
            Self::Membership => rate(limits.membership),
            Self::CreateRoom => rate(limits.create_room),
            Self::Profile => rate(limits.profile),
            Self::AccountData => rate(limits.account_data),
            Self::Ephemeral => rate(limits.ephemeral),
            Self::ToDevice => rate(limits.to_device),
            Self::Media => rate(limits.media),
            Self::Read => rate(limits.read),
            Self::Sync => rate(limits.sync),
            Self::Search => rate(limits.search),
            Self::Lookup => rate(limits.lookup),
            Self::Server => rate(limits.server),
        }
    }
}

/// Clients ask once or twice before they register, and again for each name that is taken.
const CHALLENGES_PER_REGISTRATION: u32 = 4;

/// The buckets of every limit.
pub(crate) struct RateLimits {
    config: RateLimitsConfig,
    exempt_users: HashSet<OwnedUserId>,
    shared_values: SharedValues,
    metrics: Metrics,
    buckets: Buckets,
}

impl RateLimits {
    pub(crate) fn new(config: &RateLimitsConfig, shared_values: SharedValues, metrics: Metrics) -> Self {
        // So that each is in the metrics from the start, with zero.
        for limit in Limit::ALL {
            metrics.rate_limited(limit.name(), 0);
        }
        let exempt_users = config.exempt_users.iter().cloned().collect();
        Self { config: config.clone(), exempt_users, shared_values, metrics, buckets: Buckets::default() }
    }

    /// Counts an act by somebody who is logged in. `cost`: in the limit's units.
    pub(crate) async fn check(&self, limit: Limit, cost: u32, user_id: &UserId, pace: Pace) -> Result<()> {
        match pace {
            Pace::Limited => self.check_user(limit, cost, user_id).await,
            Pace::Unlimited => Ok(()),
        }
    }

    /// Counts an act in a user's name, theirs or not.
    pub(crate) async fn check_user(&self, limit: Limit, cost: u32, user_id: &UserId) -> Result<()> {
        if self.exempt_users.contains(user_id) {
            return Ok(());
        }
        let charge = self.charge(limit, 1, cost, format_args!("{user_id}"));
        self.take(limit, &[charge]).await
    }

    /// Counts what somebody was let do and what has turned out to cost more. They have it, so it is owed, whatever is
    /// left.
    pub(crate) async fn owe(&self, limit: Limit, cost: u32, user_id: &UserId, pace: Pace) -> Result<()> {
        if cost == 0 || pace == Pace::Unlimited || self.exempt_users.contains(user_id) {
            return Ok(());
        }
        let charge = self.charge(limit, 1, cost, format_args!("{user_id}"));
        self.take(limit, &[Charge { is_done: true, ..charge }]).await
    }

    /// Counts an act by whoever is at this address, and against the networks around it.
    pub(crate) async fn check_address(&self, limit: Limit, cost: u32, address: IpAddr) -> Result<()> {
        let networks = Network::all_of(address).into_iter();
        let charges: Vec<_> =
            networks.map(|(network, room)| self.charge(limit, room, cost, format_args!("{network}"))).collect();
        self.take(limit, &charges).await
    }

    /// Counts a request of another server, whatever address it comes from.
    pub(crate) async fn check_server(&self, limit: Limit, cost: u32, server: &ServerName) -> Result<()> {
        let charge = self.charge(limit, 1, cost, format_args!("{server}"));
        self.take(limit, &[charge]).await
    }

    /// Counts a guess at the password of somebody who is logged in, for the device that guesses: who has stolen one of
    /// them does not keep the owner from locking it out by another. Nobody is exempt, since it may not be the owner.
    pub(crate) async fn check_confirmation(&self, user_id: &UserId, device_id: &DeviceId) -> Result<()> {
        let charge = self.charge(Limit::Login, 1, 1, format_args!("{user_id} {device_id}"));
        self.take(Limit::Login, &[charge]).await
    }

    /// What an act takes out of one bucket, which has `room` times as much room as others of its limit.
    fn charge(&self, limit: Limit, room: u32, cost: u32, of: Arguments<'_>) -> Charge {
        let name = format!("{}:{of}", limit.name());
        Charge { name, rate: limit.rate(&self.config).times(room), cost: cost.max(1), is_done: false }
    }

    /// Takes out of all of these buckets or of none: the shared ones where Redis answers, else this node's.
    async fn take(&self, limit: Limit, charges: &[Charge]) -> Result<()> {
        if !self.config.enabled {
            return Ok(());
        }
        let taken = match shared::take(&self.shared_values, charges).await {
            Some(taken) => taken,
            None => self.buckets.take(charges, Instant::now()),
        };
        taken.map_err(too_fast).inspect_err(|_| self.metrics.rate_limited(limit.name(), 1))
    }

    /// Puts back what was taken, where it turns out that nothing is to be counted.
    async fn put_back(&self, charges: &[Charge]) {
        if !self.config.enabled {
            return;
        }
        for charge in charges {
            shared::put_back(&self.shared_values, charge).await;
            self.buckets.put_back(charge);
        }
    }
}

/// 429 with `Retry-After`.
fn too_fast(wait: Duration) -> Error {
    Error::wait("Too many requests", wait)
}

#[cfg(test)]
mod tests {
    use ruma::{
        api::error::{ErrorKind, RetryAfter},
        device_id, user_id,
    };

    use super::*;

    fn limits(enabled: bool) -> RateLimits {
        let rate = RateLimitConfig { per_second: 0.001, burst: 2 };
        let config = RateLimitsConfig {
            enabled,
            exempt_users: vec![user_id!("@bot:example.org").to_owned()],
            // So slow that in a provider's network, too, nothing is made good while the test runs.
            login: RateLimitConfig { per_second: 0.000_02, burst: 2 },
            registration: rate,
            message: rate,
            join: rate,
            ..RateLimitsConfig::default()
        };
        RateLimits::new(&config, SharedValues::none(), Metrics::new())
    }

    #[tokio::test]
    async fn whoever_has_to_wait_learns_how_long() {
        let limits = limits(true);
        let alice = user_id!("@alice:example.org");
        limits.check(Limit::Message, 1, alice, Pace::Limited).await.unwrap();
        limits.check(Limit::Message, 2, alice, Pace::Limited).await.unwrap();
        let Err(Error::Refused { kind: ErrorKind::LimitExceeded(data), .. }) =
            limits.check(Limit::Message, 1, alice, Pace::Limited).await
        else {
            panic!("more than two were allowed")
        };
        let Some(RetryAfter::Delay(wait)) = data.retry_after else { panic!("{data:?}") };
        // One is owed and one is needed, at a thousand seconds each.
        assert!(wait > Duration::from_secs(1_000) && wait <= Duration::from_secs(2_000), "{wait:?}");

        limits.check(Limit::Join, 1, alice, Pace::Limited).await.unwrap();
        limits.check(Limit::Message, 1, user_id!("@bob:example.org"), Pace::Limited).await.unwrap();
        let metrics = limits.metrics.render().unwrap();
        assert!(metrics.contains("hearth_rate_limited_requests_total{limit=\"message\"} 1\n"), "{metrics}");
    }

    #[tokio::test]
    async fn an_ipv6_network_counts_as_one_address_and_so_do_those_around_it_with_more_room() {
        let limits = limits(true);
        let check = async |address: &str| limits.check_address(Limit::Login, 1, address.parse().unwrap()).await;
        check("2001:db8::1").await.unwrap();
        check("2001:db8::2:0:0:1").await.unwrap();
        check("2001:db8::3").await.unwrap_err();
        check("192.0.2.1").await.unwrap();
        check("::ffff:192.0.2.1").await.unwrap();
        check("192.0.2.1").await.unwrap_err();
        check("192.0.2.2").await.unwrap();
        // Two of the 32 that a network of 48 bits has are spent.
        for house in 1..=30 {
            check(&format!("2001:db8:0:{house:x}::1")).await.unwrap();
        }
        check("2001:db8:0:ffff::1").await.unwrap_err();
        check("2001:db8:1::1").await.unwrap();
        // Of the provider's 512, 33.
        for street in 2..=480 {
            check(&format!("2001:db8:{street:x}::1")).await.unwrap();
        }
        check("2001:db8:ffff::1").await.unwrap_err();
        check("2001:db9::1").await.unwrap();
    }

    #[tokio::test]
    async fn some_are_not_limited() {
        let bot = user_id!("@bot:example.org");
        let bridge = user_id!("@bridge:example.org");
        let alice = user_id!("@alice:example.org");
        let (limits_on, limits_off) = (limits(true), limits(false));
        for _ in 0..10 {
            limits_on.check(Limit::Message, 1, bot, Pace::Limited).await.unwrap();
            limits_on.check(Limit::Message, 1, bridge, Pace::Unlimited).await.unwrap();
            limits_off.check(Limit::Message, 1, alice, Pace::Limited).await.unwrap();
            limits_off.check_address(Limit::Login, 1, "192.0.2.1".parse().unwrap()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn one_device_that_guesses_does_not_stop_another() {
        let limits = limits(true);
        let bot = user_id!("@bot:example.org");
        for _ in 0..2 {
            limits.check_confirmation(bot, device_id!("STOLEN")).await.unwrap();
        }
        limits.check_confirmation(bot, device_id!("STOLEN")).await.unwrap_err();
        limits.check_confirmation(bot, device_id!("OWN")).await.unwrap();
    }
}
