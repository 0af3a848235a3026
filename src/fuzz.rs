//! What strangers send, changed and made up: nothing of it makes the server panic, fail, or work more than the size of
//! what was sent allows, and what was read and written again is read as the same.
//!
//! Each target is a test of its own, a loop for a part of `HEARTH_FUZZ_SECONDS` (60 for all together). What it tries
//! follows from `HEARTH_FUZZ_SEED`; a failure prints it, with how to go the same way again. Without one every run goes the
//! same way, so that no change fails by what another has made; whoever gives the time to look for longer has it drawn. Work is bounded by what can be counted (bytes of an answer, pieces of a text, how often a request had to be
//! looked after), never by a clock, so that a slow machine finds nothing that is not there.
//!
//! `./test --fuzz 3600` looks for an hour.

mod corpus;
mod heads;
mod names;
mod pages;
mod parsers;
mod pictures;
mod requests;
mod scene;

pub(crate) mod dice;
pub(crate) mod mutate;

use std::time::{Duration, Instant};

use self::dice::Dice;
use crate::ground::random::Random;

/// Of all targets together, where nothing else is said.
const SECONDS: f64 = 60.0;
/// What is tried where neither a time nor a seed is said.
const SEED: u64 = 1;

/// The cases of one target, until its time is over. There is at least one.
pub(crate) struct Cases {
    target: &'static str,
    seed: u64,
    end: Instant,
    next: u64,
}

/// One case. If it ends in a panic, it says how it can be repeated.
pub(crate) struct Case {
    target: &'static str,
    seed: u64,
    pub(crate) number: u64,
    pub(crate) dice: Dice,
}

/// `percent` is the target's share of the time. Targets run beside each other where there are processors for it.
pub(crate) fn cases(target: &'static str, percent: u32) -> Cases {
    let wanted = setting("HEARTH_FUZZ_SECONDS");
    let drawn = || if wanted.is_some() { u64::from_le_bytes(Random::system().bytes()) } else { SEED };
    let (seconds, seed) = (wanted.unwrap_or(SECONDS), setting("HEARTH_FUZZ_SEED").unwrap_or_else(drawn));
    let length = Duration::from_secs_f64(seconds * f64::from(percent) / 100.0);
    eprintln!("fuzz {target}: HEARTH_FUZZ_SEED={seed} for {length:.1?}");
    Cases { target, seed, end: Instant::now() + length, next: 0 }
}

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")))
}

impl Cases {
    /// What is drawn before the first case, such as the secrets of a server.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }
}

impl Iterator for Cases {
    type Item = Case;

    fn next(&mut self) -> Option<Case> {
        if self.next > 0 && Instant::now() >= self.end {
            return None;
        }
        let (target, seed, number) = (self.target, self.seed, self.next);
        self.next += 1;
        Some(Case { target, seed, number, dice: Dice::of_case(seed, target, number) })
    }
}

impl Drop for Cases {
    fn drop(&mut self) {
        eprintln!("fuzz {}: {} cases", self.target, self.next);
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { target, seed, number, .. } = self;
            let seconds = setting::<u64>("HEARTH_FUZZ_SECONDS").unwrap_or(300) * 2;
            eprintln!("fuzz {target}: case {number} failed; again: HEARTH_FUZZ_SEED={seed} ./test --fuzz {seconds}");
        }
    }
}

#[test]
fn a_seed_leads_the_same_way_again() {
    let drawn = |seed, case| {
        let mut dice = Dice::of_case(seed, "target", case);
        (0..50).map(|_| mutate::junk(&mut dice)).collect::<Vec<_>>()
    };
    assert_eq!(drawn(1, 7), drawn(1, 7));
    assert_ne!(drawn(1, 7), drawn(1, 8));
    assert_ne!(drawn(1, 7), drawn(2, 7));
}
