//! A crowd that waits: how long until one event has reached the last of them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::inbox::Inbox;
use crate::latency::millis;
use crate::message::micros;
use crate::meter::{self, Meter};
use crate::reader::Reader;
use crate::report::Outcome;
use crate::sender::{Sender, warm_up};
use crate::stage::Stage;
use crate::tasks::Tasks;

const CROWD: usize = 250;
const MIN_ROUNDS: usize = 3;
const MAX_ROUNDS: usize = 30;
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) async fn crowd(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let rooms = stage.rooms_of(1, CROWD).await?;
    let (mut senders, mut readers) = (Vec::new(), Vec::new());
    for (members, room) in rooms {
        let speaker = members.first().map(|user| Sender::new(stage.client(user), room));
        senders.extend(speaker);
        for user in &members {
            readers.push(Reader::new(stage.client(user), user).await?);
        }
    }
    let senders = warm_up(stage.clock, senders).await?;
    let run = stage.next_run();
    let inbox = Arc::new(Inbox::new(stage.clock, run));
    let mut reading = Tasks::start(readers.into_iter().map(|reader| reader.follow(Arc::clone(&inbox))));
    let length = Duration::from_secs(stage.options.seconds);
    let (rounds, cost) = reading
        .during(async {
            inbox.rest(CROWD).await?;
            let meter = Meter::start(&stage.options).await?;
            let rounds = wake(stage, run, senders, &inbox, length).await?;
            Ok((rounds, meter.stop()?))
        })
        .await?;
    let Rounds { first, last, all } = rounds;
    Ok(Outcome::new(name, "wakes", last.len(), last, cost).with("first_ms", millis(first)).with_latency("reader", all))
}

#[derive(Default)]
struct Rounds {
    /// The first round, which finds the server cold, in microseconds; it counts nowhere else.
    first: u64,
    /// When the last reader had the event, one for each further round.
    last: Vec<u64>,
    /// When any reader had it, over all of these rounds.
    all: Vec<u64>,
}

async fn wake(stage: &Stage, run: u16, senders: Vec<Sender>, inbox: &Inbox, length: Duration) -> Result<Rounds> {
    let clock = stage.clock;
    let end = clock.micros() + micros(length);
    let mut rounds = Rounds::default();
    for mut sender in senders {
        let first = round(stage, run, &mut sender, inbox).await?;
        rounds.first = first.into_iter().max().unwrap_or(0);
        while rounds.last.len() < MIN_ROUNDS || (clock.micros() < end && rounds.last.len() < MAX_ROUNDS) {
            let deliveries = round(stage, run, &mut sender, inbox).await?;
            rounds.last.extend(deliveries.iter().max());
            rounds.all.extend(deliveries);
        }
    }
    Ok(rounds)
}

/// One event into the resting crowd, and how long each reader waited for it.
async fn round(stage: &Stage, run: u16, sender: &mut Sender, inbox: &Inbox) -> Result<Vec<u64>> {
    inbox.rest(CROWD).await?;
    meter::quiet(&stage.options.pids).await?;
    sender.send(stage.clock, run).await?;
    let woken = inbox.wait_for(CROWD, PATIENCE).await;
    let (deliveries, _) = inbox.empty();
    if !woken {
        let (reached, patience) = (deliveries.len(), PATIENCE.as_secs());
        bail!("the event reached only {reached} of {CROWD} readers in {patience} s");
    }
    Ok(deliveries)
}
