//! Which servers are being asked for their keys, and which were a moment ago.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::Semaphore;

use crate::ground::{clock::millis, flights::Flights};

/// How long nobody is asked again.
const PAUSE: Duration = Duration::from_mins(1);
/// Of how many servers it is remembered that they were asked.
const MAX_ASKED: usize = 10_000;
/// How many servers are asked at once.
const AT_ONCE: usize = 64;

/// What came of asking a server for its keys: they are stored, or why they are not.
pub(super) type Answer = Result<(), String>;

/// What is being asked, and what was asked a moment ago.
pub(super) struct Fetches {
    pub(super) flights: Flights<OwnedServerName, Answer>,
    pub(super) themselves: Asked,
    pub(super) of_notaries: Asked,
    pub(super) places: Semaphore,
}

impl Default for Fetches {
    fn default() -> Self {
        Self {
            flights: Flights::default(),
            themselves: Asked::default(),
            of_notaries: Asked::default(),
            places: Semaphore::new(AT_ONCE),
        }
    }
}

/// Servers whose keys were asked for, when, and why in vain.
#[derive(Default)]
pub(super) struct Asked(Mutex<HashMap<OwnedServerName, (i64, Option<String>)>>);

impl Asked {
    pub(super) fn note(&self, server: &ServerName, now: i64, failure: Option<String>) {
        let mut asked = self.0.lock();
        if asked.len() >= MAX_ASKED {
            asked.retain(|_, (at, _)| is_recent(*at, now));
        }
        if asked.len() >= MAX_ASKED {
            asked.clear();
        }
        asked.insert(server.to_owned(), (now, failure));
    }

    /// Why a server is not asked for now: that it was a moment ago, and what came of that.
    pub(super) fn find(&self, server: &ServerName, now: i64) -> Option<String> {
        let asked = self.0.lock();
        let (_, failure) = asked.get(server).filter(|(at, _)| is_recent(*at, now))?;
        let said = "they were asked for a moment ago, and are not there";
        Some(failure.as_deref().unwrap_or(said).to_owned())
    }
}

fn is_recent(at: i64, now: i64) -> bool {
    now.saturating_sub(at) < millis(PAUSE)
}
