//! Two people who talk during the attack, on a thread of their own.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::Instant;

use crate::client::{Client, Room, User};
use crate::connection::Target;
use crate::inbox::Inbox;
use crate::message::{Clock, micros, text};
use crate::reader::{Position, Reader};

/// Between two messages: well within what one user may send.
const PACE: Duration = Duration::from_millis(200);
/// Before somebody tries again who was refused or cut off.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the reader may still read after the last message.
const DRAINING: Duration = Duration::from_secs(5);
/// How long a request may take; whoever waits for longer has been shut out.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of the reader's `/sync`, in milliseconds.
const LONG_POLL_MS: u64 = 5_000;

pub(super) struct Chat {
    pub(super) target: Arc<Target>,
    pub(super) source: Option<Ipv4Addr>,
    pub(super) speaks: User,
    pub(super) reads: User,
    pub(super) room: Room,
    pub(super) run: u16,
}

/// How it went, in microseconds.
pub(super) struct Talk {
    pub(super) deliveries: Vec<u64>,
    pub(super) answers: Vec<u64>,
    pub(super) failed: u64,
    pub(super) missed: u64,
}

impl Chat {
    /// Talks for so long.
    pub(super) fn talk(self, length: Duration) -> Result<Talk> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("a second runtime did not start")?.block_on(self.talk_and_listen(length))
    }

    async fn talk_and_listen(self, length: Duration) -> Result<Talk> {
        let inbox = Arc::new(Inbox::new(Clock::start(), self.run));
        let clock = inbox.clock();
        let position = self.catch_up(Instant::now() + length).await?;
        let speaking = async {
            let (answers, failed) = self.speak(clock, Instant::now() + length).await;
            inbox.wait_for(answers.len(), DRAINING).await;
            (answers, failed)
        };
        let (answers, failed) = tokio::select! {
            spoken = speaking => spoken,
            never = self.listen(&inbox, position) => match never {},
        };
        let (deliveries, _) = inbox.empty();
        let missed = u64::try_from(answers.len().saturating_sub(deliveries.len()))?;
        Ok(Talk { deliveries, answers, failed, missed })
    }

    fn client(&self, user: &User) -> Client {
        match self.source {
            Some(source) => Client::with_source(&self.target, user, source),
            None => Client::new(&self.target, user),
        }
    }

    /// Whoever comes while the attack goes on tries until they are in.
    async fn catch_up(&self, end: Instant) -> Result<Position> {
        loop {
            match Reader::new(self.client(&self.reads), &self.reads).await {
                Ok(reader) => return Ok(reader.position()),
                Err(error) if Instant::now() >= end => return Err(error.context("the reader never came in")),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn listen(&self, inbox: &Inbox, position: Position) -> std::convert::Infallible {
        let mut reader = Reader::at(self.client(&self.reads), position);
        loop {
            if reader.follow_with(inbox, LONG_POLL_MS).await.is_err() {
                tokio::time::sleep(PAUSE).await;
                reader = Reader::at(self.client(&self.reads), reader.position());
            }
        }
    }

    /// What has to wait for the message before it counts from when it should have been sent.
    async fn speak(&self, clock: Clock, end: Instant) -> (Vec<u64>, u64) {
        let (mut client, mut answers, mut failed) = (self.client(&self.speaks), Vec::new(), 0);
        let mut next = Instant::now();
        while next < end {
            tokio::time::sleep_until(next).await;
            let due = clock.micros().saturating_sub(micros(next.elapsed()));
            let words = text(self.run, due);
            let sent = tokio::time::timeout(PATIENCE, client.send(&self.room, &words)).await;
            if matches!(sent, Ok(Ok(()))) {
                answers.push(clock.micros() - due);
            } else {
                failed += 1;
                tokio::time::sleep(PAUSE).await;
                client = self.client(&self.speaks);
            }
            next += PACE;
        }
        (answers, failed)
    }
}
