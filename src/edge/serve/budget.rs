//! How much memory bodies and answers may take that are still under way: of one caller, and of all.
//!
//! Whoever sends a body slowly or does not read their answers has the server keep them. Each of these takes its size out
//! of one budget, for as long as it is in memory, and what finds no room is given up before anybody else is.
//!
//! What is small takes nothing, and costs nothing: the limits on connections and on their streams bound how much of it
//! there is.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use parking_lot::Mutex;
use ruma::OwnedUserId;

use super::block::block_of;
use crate::edge::metrics::{Metrics, Strike};

/// In bytes. What is not larger is not counted.
pub(crate) const SMALL: usize = 4 * 1024;

/// Whose memory it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    User(OwnedUserId),
    /// Of whoever is not logged in, or not yet known. Of IPv6 the first 64 bits.
    Address(IpAddr),
}

impl Holder {
    pub(crate) fn at(address: IpAddr) -> Self {
        Self::Address(block_of(address))
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user_id) => write!(formatter, "{user_id}"),
            Self::Address(address) => write!(formatter, "{address}"),
        }
    }
}

/// There is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exhausted {
    /// The caller holds too much already.
    ByCaller,
    /// All callers together do.
    ByAll,
}

/// The budget. Clones share it.
#[derive(Clone)]
pub(crate) struct Budget(Arc<Inner>);

struct Inner {
    /// In bytes, of all and of one caller.
    most: usize,
    most_per_caller: usize,
    held: Mutex<Held>,
    metrics: Metrics,
}

#[derive(Default)]
struct Held {
    total: usize,
    by_caller: HashMap<Holder, usize>,
}

impl Budget {
    /// Sizes in MiB.
    pub(crate) fn new(most: u32, most_per_caller: u32, metrics: Metrics) -> Self {
        let bytes = |megabytes| usize::try_from(megabytes).unwrap_or(usize::MAX).saturating_mul(1024 * 1024);
        let (most, most_per_caller) = (bytes(most), bytes(most_per_caller));
        Self(Arc::new(Inner { most, most_per_caller, held: Mutex::default(), metrics }))
    }

    /// Takes room for `bytes`. Whoever holds nothing gets it however much it is, unless it is the others who hold too
    /// much: an answer that is larger than the budget could never be given else.
    pub(crate) fn take(&self, caller: Holder, bytes: usize) -> Result<Share, Exhausted> {
        let mut share = Share { budget: self.clone(), caller, bytes: 0 };
        share.grow(bytes).map(|()| share)
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.0.held.lock().total
    }
}

/// A part of the budget, given back when it is dropped.
pub(crate) struct Share {
    budget: Budget,
    caller: Holder,
    bytes: usize,
}

impl Share {
    pub(super) fn caller(&self) -> &Holder {
        &self.caller
    }

    /// Takes room for `bytes` more.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let taken = self.budget.0.add(&self.caller, self.bytes, bytes);
        match taken {
            Ok(()) => {
                self.bytes += bytes;
                self.budget.0.metrics.hold_bytes(i64::try_from(bytes).unwrap_or(i64::MAX));
            }
            Err(Exhausted::ByCaller) => self.budget.0.metrics.limit_struck(Strike::HeldByCaller, &self.caller),
            Err(Exhausted::ByAll) => self.budget.0.metrics.limit_struck(Strike::HeldByAll, &self.caller),
        }
        taken
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.0.give_back(&self.caller, self.bytes);
            self.budget.0.metrics.hold_bytes(-i64::try_from(self.bytes).unwrap_or(i64::MAX));
        }
    }
}

impl Inner {
    /// `own`: how much of what the caller holds belongs to that which grows.
    fn add(&self, caller: &Holder, own: usize, bytes: usize) -> Result<(), Exhausted> {
        let mut held = self.held.lock();
        let of_caller = held.by_caller.get(caller).copied().unwrap_or_default();
        let has_room = |held: usize, most: usize| held == own || held.saturating_add(bytes) <= most;
        if !has_room(of_caller, self.most_per_caller) {
            return Err(Exhausted::ByCaller);
        }
        if !has_room(held.total, self.most) {
            return Err(Exhausted::ByAll);
        }
        held.total += bytes;
        *held.by_caller.entry(caller.clone()).or_default() += bytes;
        Ok(())
    }

    fn give_back(&self, caller: &Holder, bytes: usize) {
        let mut held = self.held.lock();
        held.total = held.total.saturating_sub(bytes);
        if let Entry::Occupied(mut of_caller) = held.by_caller.entry(caller.clone()) {
            let left = of_caller.get().saturating_sub(bytes);
            // Those who hold nothing are not remembered: anybody can come from many addresses.
            if left == 0 {
                of_caller.remove();
            } else {
                of_caller.insert(left);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEGABYTE: usize = 1024 * 1024;

    fn caller(address: &str) -> Holder {
        Holder::at(address.parse().unwrap())
    }

    #[test]
    fn one_caller_leaves_room_for_others() {
        let budget = Budget::new(3, 1, Metrics::new());
        let first = budget.take(caller("192.0.2.1"), MEGABYTE / 2).unwrap();
        let second = budget.take(caller("192.0.2.1"), MEGABYTE / 2).unwrap();
        assert_eq!(budget.take(caller("192.0.2.1"), 1).err(), Some(Exhausted::ByCaller));
        let _other = budget.take(caller("192.0.2.2"), MEGABYTE).unwrap();
        let _third = budget.take(caller("192.0.2.3"), MEGABYTE).unwrap();
        assert_eq!(budget.take(caller("192.0.2.4"), 1).err(), Some(Exhausted::ByAll));
        drop((first, second));
        assert!(budget.take(caller("192.0.2.1"), MEGABYTE).is_ok());
        assert_eq!(budget.held(), 2 * MEGABYTE, "what is dropped is given back");
    }

    #[test]
    fn neighbours_of_one_network_are_one_caller() {
        let budget = Budget::new(3, 1, Metrics::new());
        let _first = budget.take(caller("2001:db8:1:2::1"), MEGABYTE).unwrap();
        assert_eq!(budget.take(caller("2001:db8:1:2:ffff::9"), 1).err(), Some(Exhausted::ByCaller));
        assert!(budget.take(caller("2001:db8:1:3::1"), 1).is_ok());
    }

    #[test]
    fn a_single_thing_is_never_too_large() {
        let budget = Budget::new(1, 1, Metrics::new());
        let mut share = budget.take(caller("192.0.2.1"), 5 * MEGABYTE).unwrap();
        share.grow(MEGABYTE).unwrap();
        assert_eq!(budget.take(caller("192.0.2.1"), 1).err(), Some(Exhausted::ByCaller));
        assert_eq!(budget.take(caller("192.0.2.2"), 1).err(), Some(Exhausted::ByAll));
        drop(share);
        assert_eq!(budget.held(), 0);
    }
}
