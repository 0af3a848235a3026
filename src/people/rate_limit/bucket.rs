//! Buckets in the memory of one node.
//!
//! A bucket holds `burst` units and refills at a steady rate. What is kept of it is how much it lacks, as the time until
//! it is full again (the generic cell rate algorithm). An act is let through if the bucket holds one unit, whatever the
//! act costs: what it costs beyond that is owed, and nothing is let through until it is made good. So an act that is
//! larger than the bucket can be done, and has to be waited out.
//!
//! Of a bucket two numbers are kept, whatever it is called, and of all buckets a bounded number: a stranger who comes
//! from ever new addresses can't fill the memory.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher as _,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// The lowest rate is one unit in this time.
const SLOWEST: Duration = Duration::from_hours(24);

/// What is owed beyond this is forgiven, so that no act shuts anybody out for days.
const LONGEST_DEBT: Duration = Duration::from_hours(1);

/// So many buckets that are not full are kept, about 48 bytes each.
const CAPACITY: usize = 200_000;

/// A bucket of `burst` units that refills by `per_second` a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    /// How many are made good in a second; it may be less than one.
    pub(crate) per_second: f64,
    /// How many may be spent at once.
    pub(crate) burst: u32,
}

impl Rate {
    /// The time that one unit takes to be made good. Rates that make no sense are brought to the nearest that does: one
    /// a day at least, a million a second at most.
    fn interval(self) -> Duration {
        let interval = Duration::try_from_secs_f64(self.per_second.recip()).unwrap_or(SLOWEST);
        interval.clamp(Duration::from_micros(1), SLOWEST)
    }

    /// So many times as fast, and as many at once.
    pub(super) fn times(self, factor: u32) -> Self {
        Self { per_second: self.per_second * f64::from(factor), burst: self.burst.saturating_mul(factor) }
    }

    /// How much a bucket may lack for an act to be let through: all but one unit.
    fn allowance(self) -> Duration {
        self.interval().saturating_mul(self.burst.saturating_sub(1))
    }

    /// The time that so many units take to be made good.
    pub(super) fn price(self, cost: u32) -> Duration {
        self.interval().saturating_mul(cost)
    }

    /// The most that a bucket lacks.
    pub(super) fn ceiling(self) -> Duration {
        self.price(self.burst.max(1)).saturating_add(LONGEST_DEBT)
    }
}

/// What an act takes out of one bucket.
#[derive(Clone, Debug)]
pub(super) struct Charge {
    /// By this name every node knows the bucket.
    pub(super) name: String,
    pub(super) rate: Rate,
    /// In units, one at least.
    pub(super) cost: u32,
    /// Whether it has happened already, so that nobody can be refused any more.
    pub(super) is_done: bool,
}

impl Charge {
    /// How much the bucket may lack beforehand.
    pub(super) fn allowance(&self) -> Duration {
        if self.is_done { self.rate.ceiling() } else { self.rate.allowance() }
    }
}

/// Buckets that are not full, by the hash of their names.
pub(super) struct Buckets {
    /// Keyed by random numbers, so that nobody finds two names for one bucket.
    hasher: RandomState,
    /// When each is full.
    full: Mutex<HashMap<u64, Instant>>,
    capacity: usize,
}

impl Default for Buckets {
    fn default() -> Self {
        Self::with_capacity(CAPACITY)
    }
}

impl Buckets {
    fn with_capacity(capacity: usize) -> Self {
        Self { hasher: RandomState::new(), full: Mutex::default(), capacity }
    }

    /// Takes out of all buckets or, if one of them has nothing left, out of none. The error is how long to wait.
    pub(super) fn take(&self, charges: &[Charge], now: Instant) -> Result<(), Duration> {
        let mut full = self.full.lock();
        let lacking: Vec<_> = charges
            .iter()
            .map(|charge| {
                let key = self.hasher.hash_one(&charge.name);
                let lacks = full.get(&key).map_or(Duration::ZERO, |full| full.saturating_duration_since(now));
                (charge, key, lacks)
            })
            .collect();
        let waits = lacking.iter().map(|(charge, _, lacks)| lacks.saturating_sub(charge.allowance()));
        let wait = waits.max().unwrap_or_default();
        if !wait.is_zero() {
            return Err(wait);
        }
        if full.len().saturating_add(charges.len()) > self.capacity {
            make_room(&mut full, now, self.capacity / 2);
        }
        for (Charge { rate, cost, .. }, key, lacks) in lacking {
            let lacks = lacks.saturating_add(rate.price(*cost)).min(rate.ceiling());
            // A time that there is not is so far off that whoever waits for it has no need of a limit.
            full.extend(now.checked_add(lacks).map(|time| (key, time)));
        }
        Ok(())
    }

    /// Puts back what was taken.
    pub(super) fn put_back(&self, charge: &Charge) {
        let key = self.hasher.hash_one(&charge.name);
        if let Some(full) = self.full.lock().get_mut(&key) {
            *full = full.checked_sub(charge.rate.price(charge.cost)).unwrap_or(*full);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.full.lock().len()
    }
}

/// Forgets the buckets that are full and, where more than `keep` are left, those that are full soonest: they matter
/// least, and whoever owes much goes on owing it.
fn make_room(full: &mut HashMap<u64, Instant>, now: Instant, keep: usize) {
    full.retain(|_, full| *full > now);
    let Some(excess) = full.len().checked_sub(keep).filter(|excess| *excess > 0) else { return };
    let mut soonest: Vec<Instant> = full.values().copied().collect();
    let (_, &mut last, _) = soonest.select_nth_unstable(excess.saturating_sub(1));
    // Of many that are full at the same time no more go than have to.
    let mut going = excess;
    full.retain(|_, full| {
        let goes = *full <= last && going > 0;
        going -= usize::from(goes);
        !goes
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charge(name: &str, cost: u32) -> Charge {
        Charge { name: name.to_owned(), rate: Rate { per_second: 0.5, burst: 4 }, cost, is_done: false }
    }

    #[test]
    fn what_costs_more_than_there_is_is_owed() {
        let (buckets, mut now) = (Buckets::default(), Instant::now());
        buckets.take(&[charge("alice", 10)], now).unwrap();
        // Six are owed, and one has to be there.
        assert_eq!(buckets.take(&[charge("alice", 1)], now), Err(Duration::from_secs(14)));
        now += Duration::from_secs(13);
        assert_eq!(buckets.take(&[charge("alice", 1)], now), Err(Duration::from_secs(1)));
        now += Duration::from_secs(1);
        buckets.take(&[charge("alice", 1)], now).unwrap();
        assert_eq!(buckets.take(&[charge("alice", 1)], now), Err(Duration::from_secs(2)));
    }

    #[test]
    fn no_debt_lasts_for_days() {
        let (buckets, now) = (Buckets::default(), Instant::now());
        buckets.take(&[charge("alice", u32::MAX)], now).unwrap();
        // The bucket is empty after an hour, and has one unit two seconds later.
        assert_eq!(buckets.take(&[charge("alice", 1)], now), Err(LONGEST_DEBT + Duration::from_secs(2)));
    }

    #[test]
    fn whoever_is_refused_by_one_bucket_takes_from_none() {
        let (buckets, now) = (Buckets::default(), Instant::now());
        buckets.take(&[charge("street", 4)], now).unwrap();
        for _ in 0..10 {
            buckets.take(&[charge("house", 1), charge("street", 1)], now).unwrap_err();
        }
        assert_eq!(buckets.take(&[charge("house", 4)], now), Ok(()));
    }

    #[test]
    fn what_is_done_is_owed_however_little_is_left() {
        let (buckets, now) = (Buckets::default(), Instant::now());
        let done = Charge { is_done: true, ..charge("alice", 3) };
        for _ in 0..3 {
            buckets.take(std::slice::from_ref(&done), now).unwrap();
        }
        assert_eq!(buckets.take(&[charge("alice", 1)], now), Err(Duration::from_secs(12)));
    }

    #[test]
    fn what_was_put_back_can_be_taken_again() {
        let (buckets, now) = (Buckets::default(), Instant::now());
        for _ in 0..10 {
            buckets.take(&[charge("alice", 3)], now).unwrap();
            buckets.put_back(&charge("alice", 3));
        }
        buckets.take(&[charge("alice", 4)], now).unwrap();
        buckets.take(&[charge("alice", 1)], now).unwrap_err();
        buckets.put_back(&charge("nobody", 3));
    }

    #[test]
    fn ever_new_names_take_no_more_memory_and_free_nobody_of_a_debt() {
        let (buckets, mut now) = (Buckets::with_capacity(1_000), Instant::now());
        buckets.take(&[charge("alice", 50)], now).unwrap();
        for number in 0..20_000 {
            buckets.take(&[charge(&format!("stranger {number}"), 1)], now).unwrap();
            assert!(buckets.len() <= 1_000, "{}", buckets.len());
        }
        buckets.take(&[charge("alice", 1)], now).unwrap_err();
        now += Duration::from_mins(10);
        for number in 0..1_000 {
            buckets.take(&[charge(&format!("late {number}"), 1)], now).unwrap();
        }
        // The full ones have made room for these, and no more of these had to go than half.
        assert!((500..=1_000).contains(&buckets.len()), "{}", buckets.len());
    }

    #[test]
    fn nonsense_in_the_configuration_is_brought_to_sense() {
        for per_second in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-30, 1e30] {
            for burst in [0, 1, u32::MAX] {
                let rate = Rate { per_second, burst };
                assert!(rate.interval() >= Duration::from_micros(1) && rate.interval() <= SLOWEST, "{rate:?}");
                assert!(rate.allowance() <= rate.ceiling(), "{rate:?}");
            }
        }
    }
}
