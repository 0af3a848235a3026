//! How long a message is on its way: from just before its send is written until the `/sync` answer that brings it
//! has been read by somebody who was waiting.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::inbox::Inbox;
use crate::latency::number;
use crate::meter::Meter;
use crate::reader::Reader;
use crate::report::Outcome;
use crate::sender::{Sender, send_paced, warm_up};
use crate::stage::Stage;
use crate::tasks::Tasks;

pub(super) const IDLE_RATE: u32 = 20;
pub(super) const LOADED_ROOMS: usize = 64;
/// How long readers may still read after the last send.
const DRAINING: Duration = Duration::from_secs(5);

pub(super) async fn idle(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    measure(name, stage, 1, IDLE_RATE).await
}

pub(super) async fn loaded(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    measure(name, stage, LOADED_ROOMS, stage.options.rate).await
}

/// Rooms of two, one who sends and one who reads; all senders together keep the rate.
async fn measure(name: &'static str, stage: &mut Stage, rooms: usize, rate: u32) -> Result<Outcome> {
    let pairs = stage.rooms_of(rooms, 2).await?;
    let (mut senders, mut readers) = (Vec::new(), Vec::new());
    for (members, room) in pairs {
        if let [speaks, reads] = members.as_slice() {
            senders.push(Sender::new(stage.client(speaks), room));
            readers.push(Reader::new(stage.client(reads), reads).await?);
        }
    }
    time(name, stage, senders, readers, rate).await
}

/// How long what the senders say together at this rate takes to the readers, each of whom hears one of them.
pub(super) async fn time(
    name: &'static str,
    stage: &mut Stage,
    senders: Vec<Sender>,
    readers: Vec<Reader>,
    rate: u32,
) -> Result<Outcome> {
    let run = stage.next_run();
    let inbox = Arc::new(Inbox::new(stage.clock, run));
    let rooms = readers.len();
    let mut reading = Tasks::start(readers.into_iter().map(|reader| reader.follow(Arc::clone(&inbox))));
    let length = Duration::from_secs(stage.options.seconds);
    let (sent, cost) = reading
        .during(async {
            let senders = warm_up(stage.clock, senders).await?;
            inbox.rest(rooms).await?;
            let meter = Meter::start(&stage.options).await?;
            let sent = send_paced(stage.clock, run, senders, length, rate).await?;
            inbox.wait_for(sent.count(), DRAINING).await;
            Ok((sent, meter.stop()?))
        })
        .await?;
    let (deliveries, _) = inbox.empty();
    let missed = sent.count().saturating_sub(deliveries.len());
    Ok(Outcome::new(name, "sends", sent.count(), deliveries, cost)
        .within(sent.seconds)
        .with("rate_asked_for", f64::from(rate))
        .with("deliveries_missed", number(u64::try_from(missed)?))
        .with_latency("answer", sent.micros))
}
