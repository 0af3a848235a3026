//! What a scenario's readers have received: how long each delivery took, in order of arrival.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::sync::Notify;

use crate::message::{Clock, limited_in, sent_in};

/// Time that a reader's request is given to reach the server and to be parked there.
const PARKING: Duration = Duration::from_millis(200);
/// How long readers may take to come to rest.
const SETTLING: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(crate) struct Inbox {
    clock: Clock,
    run: u16,
    deliveries: Mutex<Deliveries>,
    complete: Notify,
    waiting: AtomicUsize,
    limited: AtomicUsize,
}

#[derive(Debug, Default)]
struct Deliveries {
    micros: Vec<u64>,
    last_at: u64,
    expected: Option<usize>,
}

impl Inbox {
    /// An inbox for the messages of one run; others are not counted.
    pub(crate) fn new(clock: Clock, run: u16) -> Self {
        Self {
            clock,
            run,
            deliveries: Mutex::default(),
            complete: Notify::new(),
            waiting: AtomicUsize::new(0),
            limited: AtomicUsize::new(0),
        }
    }

    /// The clock by which deliveries are measured.
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Takes a `/sync` answer that has just been read.
    pub(crate) fn take(&self, answer: &[u8]) {
        let now = self.clock.micros();
        let mut deliveries = self.deliveries();
        let before = deliveries.micros.len();
        deliveries.micros.extend(sent_in(answer, self.run).map(|sent| now.saturating_sub(sent)));
        if deliveries.micros.len() == before {
            return;
        }
        deliveries.last_at = now;
        self.limited.fetch_add(limited_in(answer), Ordering::Relaxed);
        if deliveries.expected.is_some_and(|expected| deliveries.micros.len() >= expected) {
            self.complete.notify_one();
        }
    }

    /// Waits until there are `expected` deliveries, but no longer than `patience`; returns whether they came.
    pub(crate) async fn wait_for(&self, expected: usize, patience: Duration) -> bool {
        {
            let mut deliveries = self.deliveries();
            deliveries.expected = Some(expected);
            if deliveries.micros.len() >= expected {
                return true;
            }
        }
        // A permit left over from an earlier wait must not end this one.
        let arrived = async {
            while self.deliveries().micros.len() < expected {
                self.complete.notified().await;
            }
        };
        tokio::time::timeout(patience, arrived).await.is_ok()
    }

    /// How many deliveries there are.
    pub(crate) fn count(&self) -> usize {
        self.deliveries().micros.len()
    }

    /// The deliveries so far in microseconds, and when the last one was read; the inbox is empty afterwards.
    pub(crate) fn empty(&self) -> (Vec<u64>, u64) {
        let mut deliveries = self.deliveries();
        (std::mem::take(&mut deliveries.micros), deliveries.last_at)
    }

    /// How often a room's timeline had a gap, so that messages reached a reader only as "there was more".
    pub(crate) fn limited(&self) -> usize {
        self.limited.load(Ordering::Relaxed)
    }

    /// A reader asks the server, or has its answer.
    pub(crate) fn reader_waits(&self, waits: bool) {
        if waits {
            self.waiting.fetch_add(1, Ordering::Relaxed);
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many readers have a request at the server.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Waits until all readers are parked in their long polls.
    pub(crate) async fn rest(&self, readers: usize) -> Result<()> {
        let begun = self.clock.micros();
        loop {
            tokio::time::sleep(PARKING).await;
            if self.waiting() >= readers {
                return Ok(());
            }
            if u128::from(self.clock.micros() - begun) > SETTLING.as_micros() {
                bail!("only {} of {readers} readers came to rest in /sync", self.waiting());
            }
        }
    }

    fn deliveries(&self) -> MutexGuard<'_, Deliveries> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
