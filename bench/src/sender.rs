//! Clients that send messages, as fast as they are answered or at a given pace.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use crate::client::{Client, Room};
use crate::message::{Clock, micros, text};
use crate::tasks::Tasks;

/// Messages that each sender sends before it counts: connections open, caches fill.
const WARM_UP: usize = 3;
/// No sender sends more in one scenario.
const LIMIT: usize = 200_000;

/// A member of a room, about to speak.
#[derive(Debug)]
pub(crate) struct Sender {
    client: Client,
    room: Room,
    encrypts: bool,
}

/// What all senders of a run have sent.
#[derive(Debug)]
pub(crate) struct Sent {
    /// From just before a request is written until its answer has been read, in microseconds.
    pub(crate) micros: Vec<u64>,
    /// From the first request to the last answer.
    pub(crate) seconds: f64,
}

impl Sent {
    pub(crate) fn count(&self) -> usize {
        self.micros.len()
    }

    fn gather(start: Instant, micros: Vec<Vec<u64>>) -> Self {
        Self { micros: micros.into_iter().flatten().collect(), seconds: start.elapsed().as_secs_f64() }
    }
}

impl Sender {
    pub(crate) fn new(client: Client, room: Room) -> Self {
        Self { client, room, encrypts: false }
    }

    /// Somebody who sends what looks encrypted.
    pub(crate) fn encrypting(client: Client, room: Room) -> Self {
        Self { encrypts: true, ..Self::new(client, room) }
    }

    /// Sends one message and returns how long its answer took.
    pub(crate) async fn send(&mut self, clock: Clock, run: u16) -> Result<u64> {
        let begun = clock.micros();
        let text = text(run, begun);
        if self.encrypts {
            self.client.send_encrypted(&self.room, &text).await?;
        } else {
            self.client.send(&self.room, &text).await?;
        }
        Ok(clock.micros() - begun)
    }

    async fn send_until(mut self, clock: Clock, run: u16, end: u64) -> Result<Vec<u64>> {
        let mut latencies = Vec::new();
        while clock.micros() < end && latencies.len() < LIMIT {
            latencies.push(self.send(clock, run).await?);
        }
        Ok(latencies)
    }

    /// A late sender catches up: it never sends less than it is set to, unless the server is too slow for it.
    async fn send_paced(mut self, clock: Clock, run: u16, mut next: Instant, pace: Pace) -> Result<Vec<u64>> {
        let mut latencies = Vec::new();
        while next < pace.end && Instant::now() < pace.end && latencies.len() < LIMIT {
            tokio::time::sleep_until(next).await;
            latencies.push(self.send(clock, run).await?);
            next += pace.interval;
        }
        Ok(latencies)
    }
}

#[derive(Debug, Clone, Copy)]
struct Pace {
    interval: Duration,
    end: Instant,
}

/// Sends a few messages that belong to no run.
pub(crate) async fn warm_up(clock: Clock, senders: Vec<Sender>) -> Result<Vec<Sender>> {
    let warm = senders.into_iter().map(|mut sender| async move {
        for _ in 0..WARM_UP {
            sender.send(clock, 0).await?;
        }
        Ok(sender)
    });
    Tasks::start(warm).finish().await
}

/// Every sender sends its next message when the last one has been acknowledged.
pub(crate) async fn send_closed_loop(clock: Clock, run: u16, senders: Vec<Sender>, length: Duration) -> Result<Sent> {
    let start = Instant::now();
    let end = clock.micros() + micros(length);
    let sending = Tasks::start(senders.into_iter().map(|sender| sender.send_until(clock, run, end)));
    Ok(Sent::gather(start, sending.finish().await?))
}

/// All senders together send so many messages a second, evenly spread.
pub(crate) async fn send_paced(
    clock: Clock,
    run: u16,
    senders: Vec<Sender>,
    length: Duration,
    per_second: u32,
) -> Result<Sent> {
    let start = Instant::now();
    let step = Duration::from_secs(1) / per_second;
    let interval = step * u32::try_from(senders.len())?;
    let pace = Pace { interval, end: start + length };
    let sending = Tasks::start(
        (0u32..).zip(senders).map(|(place, sender)| sender.send_paced(clock, run, start + step * place, pace)),
    );
    Ok(Sent::gather(start, sending.finish().await?))
}
