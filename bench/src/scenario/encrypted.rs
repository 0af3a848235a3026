//! An encrypted room beside a plain one: what a message costs in each. The members are the same, all of them with device
//! keys and reading; the rooms take turns, so that neither meets a fuller database.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::client::{Client, Room, User};
use crate::inbox::Inbox;
use crate::keys::Device;
use crate::latency::number;
use crate::meter::{Cost, Meter};
use crate::reader::Reader;
use crate::report::Outcome;
use crate::sender::{Sender, send_closed_loop, warm_up};
use crate::stage::Stage;
use crate::tasks::Tasks;

const MEMBERS: usize = 50;
/// How often each of the rooms has its turn.
const TURNS: u32 = 4;
/// How long readers may still read after the last send of a turn.
const DRAINING: Duration = Duration::from_secs(10);

/// What was measured in one of the rooms, in all of its turns.
#[derive(Default)]
struct Measured {
    sends: Vec<u64>,
    deliveries: Vec<u64>,
    missed: usize,
    /// In which sends were sent.
    seconds: f64,
    cost: Option<Cost>,
}

impl Measured {
    fn outcome(self, name: &'static str) -> Result<Outcome> {
        let Self { sends, deliveries, missed, seconds, cost } = self;
        let cost = cost.context("nothing was measured")?;
        Ok(Outcome::new(name, "sends", sends.len(), sends, cost)
            .within(seconds)
            .with_disk()
            .with("deliveries_missed", number(u64::try_from(missed)?))
            .with_latency("delivery", deliveries))
    }
}

pub(super) async fn compare(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let members = stage.new_users(MEMBERS).await?;
    for member in &members {
        Device::upload(&mut stage.client(member), member).await?;
    }
    eprintln!("  making two rooms of {MEMBERS} members");
    let (plain, encrypted) = (stage.room_of(&members).await?, stage.room_of(&members).await?);
    stage.client(members.first().context("nobody is there")?).encrypt(&encrypted).await?;

    let run = stage.next_run();
    let inbox = Arc::new(Inbox::new(stage.clock, run));
    let mut readers = Vec::with_capacity(members.len());
    for member in &members {
        readers.push(Reader::new(stage.client(member), member).await?);
    }
    let mut reading = Tasks::start(readers.into_iter().map(|reader| reader.follow(Arc::clone(&inbox))));
    let (in_plain, in_encrypted) = reading
        .during(async {
            let (mut in_plain, mut in_encrypted) = (Measured::default(), Measured::default());
            for _ in 0..TURNS {
                let speaking = senders(stage, &members, &plain, Sender::new)?;
                turn(stage, speaking, run, &inbox, &mut in_plain).await?;
                let speaking = senders(stage, &members, &encrypted, Sender::encrypting)?;
                turn(stage, speaking, run, &inbox, &mut in_encrypted).await?;
            }
            Ok((in_plain, in_encrypted))
        })
        .await?;
    let plain = in_plain.outcome(name)?;
    let beside = [
        ("plain_per_second", plain.per_second),
        ("plain_p50_ms", plain.latency.map(|latency| latency.p50_ms)),
        ("plain_p99_ms", plain.latency.map(|latency| latency.p99_ms)),
        ("plain_server_cpu_us", plain.server_cpu_us_per_operation),
        ("plain_disk_bytes", plain.disk_bytes_per_operation),
    ];
    let own = plain.figures.into_iter().map(|(figure, value)| (format!("plain_{figure}"), Some(value)));
    let beside = beside.into_iter().map(|(figure, value)| (figure.to_owned(), value)).chain(own);
    let encrypted = in_encrypted.outcome(name)?;
    Ok(beside.fold(encrypted, |outcome, (figure, value)| match value {
        Some(value) => outcome.with(&figure, value),
        None => outcome,
    }))
}

fn senders(stage: &Stage, members: &[User], room: &Room, sender: fn(Client, Room) -> Sender) -> Result<Vec<Sender>> {
    let count = usize::try_from(stage.options.senders)?;
    Ok(members.iter().take(count).map(|user| sender(stage.client(user), room.clone())).collect())
}

/// Everybody speaks in one of the rooms for its share of the time, and all has been read before the next turn.
async fn turn(stage: &Stage, senders: Vec<Sender>, run: u16, inbox: &Inbox, measured: &mut Measured) -> Result<()> {
    let senders = warm_up(stage.clock, senders).await?;
    inbox.rest(MEMBERS).await?;
    let meter = Meter::start(&stage.options).await?;
    let length = Duration::from_secs(stage.options.seconds) / TURNS;
    let sent = send_closed_loop(stage.clock, run, senders, length).await?;
    inbox.wait_for(sent.count() * MEMBERS, DRAINING).await;
    let cost = meter.stop()?;
    let (deliveries, _) = inbox.empty();
    measured.missed += (sent.count() * MEMBERS).saturating_sub(deliveries.len());
    measured.deliveries.extend(deliveries);
    measured.seconds += sent.seconds;
    measured.sends.extend(sent.micros);
    measured.cost = Some(match measured.cost.take() {
        Some(before) => before.and(&cost),
        None => cost,
    });
    Ok(())
}
