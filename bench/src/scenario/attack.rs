//! An attack within the default limits: one user and one stranger, each on many connections, do whatever is expensive,
//! while two others talk as people do.
//!
//! What counts is what the server grows by, in memory and on disk, and how long the others wait. They have a thread of
//! their own here, so that their waiting is the server's and not the generator's. This is the one scenario that wants a
//! server as it comes, with its rate limits on; it leaves much behind, so it is played only when it is asked for.

mod chat;
mod deed;
mod wire;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::Instant;

use self::chat::{Chat, Talk};
use self::deed::{Attacker, Deed};
use crate::client::User;
use crate::latency::number;
use crate::meter::{self, Meter, Peak};
use crate::procfs::Memory;
use crate::report::Outcome;
use crate::stage::Stage;
use crate::tasks::Tasks;

/// How long the attack goes on before the others are measured, and after it the server may come to rest.
const LEAD: Duration = Duration::from_secs(1);
const SETTLING: Duration = Duration::from_secs(5);

/// Where everybody comes from, if the server is on this machine: limits may go by address.
const USERS_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);
const STRANGERS_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 77);
const OTHERS_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 88);

/// What came of the requests of one kind.
#[derive(Debug, Default)]
struct Tally {
    done: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
}

pub(super) async fn withstand(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let users = stage.new_users(3).await?;
    let [mallory, alice, bob] = users.as_slice() else { anyhow::bail!("three users are needed") };
    let room = stage.room_of(&[alice.clone(), bob.clone()]).await?;
    let length = Duration::from_secs(stage.options.seconds);
    let chat = Chat {
        target: Arc::clone(&stage.target),
        source: stage.target.is_loopback().then_some(OTHERS_ADDRESS),
        speaks: alice.clone(),
        reads: bob.clone(),
        room,
        run: stage.next_run(),
    };
    let before = meter::server_memory(&stage.options.pids)?;
    let meter = Meter::start(&stage.options).await?;
    let (tallies, peak) = (tallies(), Arc::new(Peak::default()));
    let mut attack = attackers(stage, mallory, &tallies, Instant::now() + LEAD + length);
    attack.add(Arc::clone(&peak).watch(stage.options.pids.clone(), Instant::now() + LEAD + length));
    tokio::time::sleep(LEAD).await;
    let talking = tokio::task::spawn_blocking(move || chat.talk(length));
    attack.finish().await?;
    let talk = talking.await.context("those who talk broke down")??;
    tokio::time::sleep(SETTLING).await;
    let cost = meter.stop()?;
    let after = cost.server_memory;
    let outcome = outcome(name, talk, cost);
    Ok(with_tallies(with_memory(outcome, before, after, &peak), &tallies))
}

fn outcome(name: &'static str, talk: Talk, cost: meter::Cost) -> Outcome {
    let Talk { deliveries, answers, failed, missed } = talk;
    let disk = cost.disk_growth_bytes;
    let outcome = Outcome::new(name, "sends", answers.len(), deliveries, cost)
        .with("sends_failed", number(failed))
        .with("deliveries_missed", number(missed))
        .with_latency("answer", answers);
    disk.into_iter().fold(outcome, |outcome, bytes| outcome.with("disk_growth_mib", bytes / 1024.0 / 1024.0))
}

fn with_memory(outcome: Outcome, before: Option<Memory>, after: Option<Memory>, peak: &Peak) -> Outcome {
    let Some((before, after)) = before.zip(after) else { return outcome };
    let growth = |kib: u64| (number(kib) - number(before.rss_kib)) / 1024.0;
    let peak = peak.rss_kib().max(after.rss_kib);
    outcome.with("memory_growth_mib_peak", growth(peak)).with("memory_growth_mib_after", growth(after.rss_kib))
}

fn with_tallies(outcome: Outcome, tallies: &BTreeMap<Deed, Arc<Tally>>) -> Outcome {
    tallies.iter().fold(outcome, |outcome, (deed, tally)| {
        let count = |count: &AtomicU64| number(count.load(Ordering::Relaxed));
        outcome
            .with(&format!("{}_done", deed.name()), count(&tally.done))
            .with(&format!("{}_refused", deed.name()), count(&tally.refused))
            .with(&format!("{}_broken", deed.name()), count(&tally.broken))
    })
}

fn tallies() -> BTreeMap<Deed, Arc<Tally>> {
    Deed::all().map(|deed| (deed, Arc::default())).collect()
}

/// Each connection does one kind of thing, over and over.
fn attackers(stage: &Stage, user: &User, tallies: &BTreeMap<Deed, Arc<Tally>>, end: Instant) -> Tasks<()> {
    let connections = usize::try_from(stage.options.attack_connections).unwrap_or(usize::MAX);
    let mut attack = Tasks::none();
    let parties = [(Deed::OF_USER, Some(user), USERS_ADDRESS), (Deed::OF_STRANGER, None, STRANGERS_ADDRESS)];
    for (deeds, user, source) in parties {
        for (place, deed) in deeds.iter().cycle().take(connections).enumerate() {
            let attacker = Attacker {
                target: Arc::clone(&stage.target),
                source: stage.target.is_loopback().then_some(source),
                user: user.cloned(),
                place,
                end,
            };
            let tally = tallies.get(deed).map(Arc::clone).unwrap_or_default();
            attack.add(attacker.attack(*deed, tally));
        }
    }
    attack
}
