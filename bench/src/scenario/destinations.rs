//! How many PDUs the server sends a second to other homeservers that are in a room: members here say something, and it has
//! to come to each of the others.
//!
//! Whoever sends waits while more is on its way than a server may be expected to keep in memory: what comes after an outage
//! is less than what was said, and would be counted instead.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::client::Client;
use crate::inbox::Inbox;
use crate::latency::number;
use crate::message::{Clock, micros};
use crate::meter::Meter;
use crate::remote::RemoteServer;
use crate::remote::authority::Authority;
use crate::remote::caller::Caller;
use crate::report::Outcome;
use crate::sender::{Sender, warm_up};
use crate::stage::Stage;
use crate::tasks::Tasks;

/// Messages that may be on their way to a homeserver.
const AHEAD: usize = 200;
/// Between two looks whether they have come.
const LOOK: Duration = Duration::from_millis(1);
/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(30);

/// What has been said and what of it has come to each of the others.
struct Progress {
    clock: Clock,
    run: u16,
    end: u64,
    said: AtomicUsize,
    servers: Vec<Arc<RemoteServer>>,
}

pub(super) async fn send(name: &'static str, stage: &mut Stage, count: usize) -> Result<Outcome> {
    let authority = Authority::load(stage.options.authority.as_deref())?;
    let members = stage.users(usize::try_from(stage.options.senders)?).await?;
    let (clock, run) = (stage.clock, stage.next_run());
    let mut listening: Tasks<Infallible> = Tasks::none();
    let servers = RemoteServer::start(&authority, count, || Inbox::new(clock, run), &mut listening).await?;
    let room = stage.room_of(&members).await?;
    let creator = members.first().context("a room needs a creator")?;
    listening
        .during(async {
            eprintln!("  {count} other homeserver(s) join the room");
            let mut member: Client = stage.client(creator);
            for server in &servers {
                Caller::new(&stage.target, server, creator.server_name()?).join(&mut member, &room).await?;
            }
            let senders = members.iter().map(|user| Sender::new(stage.client(user), room.clone())).collect();
            let senders = warm_up(clock, senders).await?;
            let meter = Meter::start(&stage.options).await?;
            let begun = clock.micros();
            let end = begun + micros(Duration::from_secs(stage.options.seconds));
            let progress = Arc::new(Progress { clock, run, end, said: 0.into(), servers });
            let sending = Tasks::start(senders.into_iter().map(|sender| Arc::clone(&progress).say(sender)));
            let sends: Vec<u64> = sending.finish().await?.into_iter().flatten().collect();
            let all_came = progress.wait_for(sends.len()).await;
            let cost = meter.stop()?;
            let (mut deliveries, mut last) = (Vec::new(), begun);
            for server in &progress.servers {
                let (came, last_at) = server.inbox.empty();
                deliveries.extend(came);
                last = last.max(last_at);
            }
            if all_came.is_err() {
                eprintln!("  not everything came");
            }
            let missed = (sends.len() * count).saturating_sub(deliveries.len());
            let seconds = number(last - begun) / 1e6;
            Ok(Outcome::new(name, "PDUs", deliveries.len(), deliveries, cost)
                .within(seconds)
                .with("sends_per_second", number(u64::try_from(sends.len())?) / seconds)
                .with("deliveries_missed", number(u64::try_from(missed)?))
                .with_latency("answer", sends))
        })
        .await
}

impl Progress {
    /// Says one thing after the other until the end.
    async fn say(self: Arc<Self>, mut sender: Sender) -> Result<Vec<u64>> {
        let mut latencies = Vec::new();
        while self.clock.micros() < self.end {
            let said = self.said.fetch_add(1, Ordering::Relaxed);
            self.wait_for(said.saturating_sub(AHEAD)).await?;
            latencies.push(sender.send(self.clock, self.run).await?);
        }
        Ok(latencies)
    }

    /// Waits until so much has come to each of the others.
    async fn wait_for(&self, count: usize) -> Result<()> {
        let come = || self.servers.iter().map(|server| server.inbox.count()).min().unwrap_or(0);
        let (mut most, mut since) = (come(), self.clock.micros());
        loop {
            let now = come();
            if now >= count {
                return Ok(());
            }
            if now > most {
                (most, since) = (now, self.clock.micros());
            }
            if self.clock.micros() - since > micros(PATIENCE) {
                bail!("{now} of {count} messages came to the last of the other homeservers, and then no more");
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
