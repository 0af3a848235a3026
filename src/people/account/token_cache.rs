//! A cache of access tokens and their callers.
//!
//! A change of a user's devices or standing comes as an entry of the log and sets one flag that all of their cached
//! tokens share, so forgetting costs the same however many there are. A reader that looked before the change and stores
//! after it would bring back what is outdated; the epoch keeps that from happening.
//!
//! Lock order: `users`, then the locks within the cache.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicI64},
    },
};

use parking_lot::Mutex;
use quick_cache::{Weighter, sync::Cache};
use ruma::{OwnedUserId, UserId};

use super::caller::{Caller, ChangedFlag, Guest, Pace, Rank, User};
use crate::{
    event::fact::{Batch, News},
    ground::{
        sizes::CacheSizes,
        weighed::{self, CacheWeight, Weighed},
    },
    log::Reader,
    store::token::{self, TokenHash},
};

/// About how many tokens are kept, and what one takes beside the names of its user and device, in bytes.
const CAPACITY: usize = 40_000;
const TOKEN_BYTES: u64 = 352;
const SHARDS: usize = 16;

/// After so many milliseconds a token is looked up again: the worst that a lost wake-up can do.
const MAX_AGE: i64 = 5 * 60 * 1000;

/// What is known of a token.
pub(super) struct CachedCaller {
    pub(super) caller: Caller,
    pub(super) expires_ts: Option<i64>,
    /// When it was read, in milliseconds since the Unix epoch, as are all times here.
    read_ts: i64,
    /// When its device was last noted as seen.
    pub(super) noted_ts: AtomicI64,
}

/// The tokens that were used lately, as they stood in the database.
pub(crate) struct TokenCache {
    tokens: Cache<TokenHash, Arc<CachedCaller>, ByBytes>,
    limit: u64,
    users: Mutex<ForgottenFlags>,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<TokenHash, Arc<CachedCaller>> for ByBytes {
    fn weight(&self, _: &TokenHash, cached: &Arc<CachedCaller>) -> u64 {
        let (user_id, device_id) = match &cached.caller {
            Caller::Guest(guest) => (&guest.user_id, &guest.device_id),
            Caller::User(user) => (&user.user_id, &user.device_id),
        };
        // The user's name is also that of their flag.
        TOKEN_BYTES + (2 * user_id.as_str().len() + device_id.as_str().len()) as u64
    }
}

impl Weighed for TokenCache {
    fn weight(&self) -> CacheWeight {
        CacheWeight { name: "tokens", bytes: self.tokens.weight(), limit: self.limit }
    }
}

#[derive(Default)]
struct ForgottenFlags {
    /// How often somebody was forgotten: what was read before that may be outdated.
    epoch: u64,
    flags: HashMap<OwnedUserId, Weak<AtomicBool>>,
}

impl Default for TokenCache {
    fn default() -> Self {
        Self::new(&CacheSizes::default())
    }
}

impl TokenCache {
    pub(in crate::people) fn new(sizes: &CacheSizes) -> Self {
        let (limit, users) = (sizes.tokens, Mutex::default());
        Self { tokens: weighed::by_bytes(CAPACITY, limit, SHARDS, ByBytes), limit, users }
    }

    /// Who holds a token, unless they were forgotten or this was read too long ago. `now` is in milliseconds.
    pub(super) fn find(&self, token: &TokenHash, now: i64) -> Option<Arc<CachedCaller>> {
        let bearer = self.tokens.get(token)?;
        let fresh = !bearer.caller.changed().is_raised() && now.saturating_sub(bearer.read_ts) < MAX_AGE;
        fresh.then_some(bearer)
    }

    /// To be taken before the database is read: see [`Self::insert`].
    pub(super) fn epoch(&self) -> u64 {
        self.users.lock().epoch
    }

    /// Remembers what was read since `epoch`, unless somebody was forgotten in the meantime.
    pub(super) fn insert(&self, token: TokenHash, epoch: u64, found: token::Bearer, now: i64) -> Arc<CachedCaller> {
        let token::Bearer { user_id, device_id, admin, guest, rate_limited, restrictions, expires_ts, .. } = found;
        let mut users = self.users.lock();
        let current = users.epoch == epoch;
        let changed = if current { users.flag(&user_id) } else { ChangedFlag::raised() };
        let pace = Pace::of(rate_limited);
        let caller = if guest {
            Caller::Guest(Guest { user_id, device_id, pace, restrictions, changed })
        } else {
            Caller::User(User { user_id, device_id, token, rank: Rank::of(admin), pace, restrictions, changed })
        };
        let bearer = Arc::new(CachedCaller { caller, expires_ts, read_ts: now, noted_ts: AtomicI64::new(i64::MIN) });
        if current {
            self.tokens.insert(token, Arc::clone(&bearer));
        }
        bearer
    }

    /// A user's devices changed: their tokens are looked up again.
    fn forget(&self, user_id: &UserId) {
        let mut users = self.users.lock();
        users.epoch += 1;
        if let Some(flag) = users.flags.remove(user_id).as_ref().and_then(ChangedFlag::upgrade) {
            flag.raise();
        }
    }
}

impl Reader for TokenCache {
    fn read(&self, batch: &Batch) {
        for (_, news) in batch.entries() {
            if let News::AccountChange(change) = news {
                self.forget(change.user_id());
            }
        }
    }
}

impl ForgottenFlags {
    /// Shared by all tokens of a user, so that one store makes memory forget them all.
    fn flag(&mut self, user_id: &UserId) -> ChangedFlag {
        if let Some(flag) = self.flags.get(user_id).and_then(ChangedFlag::upgrade) {
            return flag;
        }
        if self.flags.len() >= 2 * CAPACITY {
            self.flags.retain(|_, flag| flag.strong_count() > 0);
        }
        let flag = ChangedFlag::default();
        self.flags.insert(user_id.to_owned(), flag.downgrade());
        flag
    }
}
