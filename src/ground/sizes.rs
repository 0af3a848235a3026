//! How much is done or kept at once where that only shows once there is much. Tests make it little.
//!
//! They are a value that is handed in rather than constants, so that a test reaches with ten events what takes ten
//! thousand otherwise. None of them changes what a client is answered.

/// What bounds memory and time, but no answer.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// By how many keys a state may differ from one that is stored, or by an eighth of its own.
    pub(crate) state_difference: usize,
    pub(crate) unread: UnreadSizes,
    pub(crate) search: SearchSizes,
    pub(crate) prune: PruneSizes,
    /// How many earlier lists of ignored users are remembered of one user.
    pub(crate) ignored_lists: usize,
    pub caches: CacheSizes,
}

/// How many bytes each cache may take, about, the rooms apart: of those the operator decides
/// (`rooms.cache_megabytes`). A cache forgets what is beyond it, whoever has filled it.
#[derive(Clone, Copy, Debug)]
pub struct CacheSizes {
    /// Account data of the users who are connected.
    pub account_data: u64,
    /// Filters that clients name.
    pub filters: u64,
    /// Whom access tokens belong to.
    pub tokens: u64,
    /// When devices were last seen, until that is written.
    pub last_seen: u64,
    /// How rooms look from outside.
    pub room_cards: u64,
    pub unread: u64,
    pub receipts: u64,
    pub typing: u64,
    pub presence: u64,
    /// Which rooms those are in who are connected. Whoever waits for news at this moment is not forgotten.
    pub connected: u64,
    /// Which rooms others are in, of whose presence or devices somebody has to hear.
    pub strangers: u64,
    /// What others are shown of the keys of users and their devices.
    pub device_keys: u64,
    /// Whose devices and keys have changed lately.
    pub device_lists: u64,
    /// How many one-time keys the devices have that are connected.
    pub key_counts: u64,
    /// For which devices messages wait.
    pub inboxes: u64,
    /// What other servers sign with.
    pub server_keys: u64,
    /// Where other servers are, as far as their names do not say it.
    pub servers: u64,
    /// What other servers have said of profiles and rooms.
    pub elsewhere: u64,
    /// The newest entries of the log, for readers that load while it moves on.
    pub log: u64,
}

const MIB: u64 = 1024 * 1024;

impl CacheSizes {
    /// What all of them may take.
    #[cfg(test)]
    pub(crate) fn sum(&self) -> u64 {
        // Without `..`: who adds a cache is made to add it here.
        let Self {
            account_data,
            filters,
            tokens,
            last_seen,
            room_cards,
            unread,
            receipts,
            typing,
            presence,
            connected,
            strangers,
            device_keys,
            device_lists,
            key_counts,
            inboxes,
            server_keys,
            servers,
            elsewhere,
            log,
        } = *self;
        let of_people = account_data + filters + tokens + last_seen + presence + connected + strangers;
        let of_keys = device_keys + device_lists + key_counts + inboxes + server_keys;
        of_people + of_keys + room_cards + unread + receipts + typing + servers + elsewhere + log
    }
}

impl Default for CacheSizes {
    fn default() -> Self {
        Self {
            account_data: 32 * MIB,
            filters: 12 * MIB,
            tokens: 16 * MIB,
            last_seen: 4 * MIB,
            room_cards: 16 * MIB,
            unread: 24 * MIB,
            receipts: 16 * MIB,
            typing: 3 * MIB,
            presence: 24 * MIB,
            connected: 60 * MIB,
            strangers: 16 * MIB,
            device_keys: 64 * MIB,
            device_lists: MIB,
            key_counts: 6 * MIB,
            inboxes: 4 * MIB,
            server_keys: MIB,
            servers: MIB,
            elsewhere: 4 * MIB,
            log: 16 * MIB,
        }
    }
}

/// How the log is pruned, in entries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PruneSizes {
    /// How many of the newest are left in any case.
    pub(crate) kept: i64,
    /// How many are pruned at once: nobody else writes meanwhile on SQLite.
    pub(crate) step: i64,
}

/// How far back unread counts reach.
#[derive(Clone, Copy, Debug)]
pub struct UnreadSizes {
    /// Counts reach back into the stretch of a room's events before the newest one: whoever never reads shall not have
    /// the whole history counted each time.
    pub(crate) stretch: i64,
    /// How many events of a room are remembered.
    pub(crate) remembered: usize,
}

/// How a search goes through the log.
#[derive(Clone, Copy, Debug)]
pub struct SearchSizes {
    /// How many matches are looked up and put in order at once.
    pub(crate) window: usize,
    /// How many events are read at once where a filter may drop most of them.
    pub(crate) step: usize,
    /// How many entries of the log are taken into the index at once.
    pub(crate) taken: usize,
    pub(crate) index: IndexSizes,
}

/// How an index is asked.
#[derive(Clone, Copy, Debug)]
pub struct IndexSizes {
    /// How long the stretches of the log are that are words on `PostgreSQL`, as powers of two, and their letters. The
    /// shortest first: as much of the log is looked through first. These are part of what is stored.
    pub(crate) stretches: &'static [(u32, char)],
    /// How many stretches of one length are asked for, or one more, before longer ones are.
    pub(crate) few_stretches: i64,
    /// How many messages are compared with the beginning of a word at most, by estimate, before the index gathers all
    /// words that begin with it.
    pub(crate) most_compared: i64,
    /// How many of the newest matches are looked at whatever room they are in, before the rooms are asked for: those
    /// cost both engines more the more they are, and most people find most of what is said where they are.
    pub(crate) most_looked_at: usize,
    /// With so few rooms there is no need for that: they are a few words more.
    pub(crate) few_rooms: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        let stretches = &[(13, 'b'), (16, 'c'), (19, 'd'), (22, 'e')];
        let index =
            IndexSizes { stretches, few_stretches: 6, most_compared: 10_000, most_looked_at: 5_000, few_rooms: 4 };
        Self {
            state_difference: 256,
            unread: UnreadSizes { stretch: 5_000, remembered: 256 },
            search: SearchSizes { window: 200, step: 100, taken: 500, index },
            prune: PruneSizes { kept: 100_000, step: 2_000 },
            ignored_lists: 8,
            caches: CacheSizes::default(),
        }
    }
}

impl Sizes {
    /// So little that a room of a test has much, and that each way of doing something is gone.
    #[cfg(test)]
    pub(crate) fn little() -> Self {
        let stretches = &[(3, 'b'), (4, 'c'), (5, 'd')];
        let index = IndexSizes { stretches, few_stretches: 2, most_compared: 40, most_looked_at: 24, few_rooms: 1 };
        Self {
            state_difference: 3,
            unread: UnreadSizes { stretch: 24, remembered: 8 },
            search: SearchSizes { window: 6, step: 2, taken: 3, index },
            prune: Self::default().prune,
            ignored_lists: 2,
            caches: CacheSizes::default(),
        }
    }
}
