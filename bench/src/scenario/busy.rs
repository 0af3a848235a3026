//! One room in which much is said, with and without readers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::client::{Room, User};
use crate::inbox::Inbox;
use crate::latency::number;
use crate::meter::Meter;
use crate::reader::Reader;
use crate::report::Outcome;
use crate::sender::{Sender, send_closed_loop, warm_up};
use crate::stage::Stage;
use crate::tasks::Tasks;

const MEMBERS: usize = 50;
/// How long readers may still read after the last send.
const DRAINING: Duration = Duration::from_secs(10);

pub(super) async fn quiet(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let (members, room) = busy_room(stage).await?;
    let senders = warm_up(stage.clock, senders(stage, &members, &room)?).await?;
    let run = stage.next_run();
    let meter = Meter::start(&stage.options).await?;
    let length = Duration::from_secs(stage.options.seconds);
    let sent = send_closed_loop(stage.clock, run, senders, length).await?;
    let cost = meter.stop()?;
    Ok(Outcome::new(name, "sends", sent.count(), sent.micros, cost).within(sent.seconds).with_disk())
}

pub(super) async fn read(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let (members, room) = busy_room(stage).await?;
    let senders = warm_up(stage.clock, senders(stage, &members, &room)?).await?;
    let run = stage.next_run();
    let inbox = Arc::new(Inbox::new(stage.clock, run));
    let mut readers = Tasks::start(readers(stage, &members).await?.into_iter().map(|reader| {
        let inbox = Arc::clone(&inbox);
        reader.follow(inbox)
    }));
    let length = Duration::from_secs(stage.options.seconds);
    let (sent, begun, cost) = readers
        .during(async {
            inbox.rest(MEMBERS).await?;
            let meter = Meter::start(&stage.options).await?;
            let begun = stage.clock.micros();
            let sent = send_closed_loop(stage.clock, run, senders, length).await?;
            inbox.wait_for(sent.count() * MEMBERS, DRAINING).await;
            Ok((sent, begun, meter.stop()?))
        })
        .await?;
    let (deliveries, last_at) = inbox.empty();
    let delivered = number(u64::try_from(deliveries.len())?);
    let expected = number(u64::try_from(sent.count() * MEMBERS)?);
    let reading = number(last_at.saturating_sub(begun)) / 1e6;
    Ok(Outcome::new(name, "sends", sent.count(), sent.micros, cost)
        .within(sent.seconds)
        .with_disk()
        .with("deliveries", delivered)
        .with("deliveries_missed", expected - delivered)
        .with("deliveries_per_second", if reading > 0.0 { delivered / reading } else { 0.0 })
        .with("syncs_with_a_gap", number(u64::try_from(inbox.limited())?))
        .with_latency("delivery", deliveries))
}

async fn busy_room(stage: &mut Stage) -> Result<(Vec<User>, Room)> {
    let members = stage.users(MEMBERS).await?;
    eprintln!("  making a room of {MEMBERS} members");
    let room = stage.room_of(&members).await?;
    Ok((members, room))
}

fn senders(stage: &Stage, members: &[User], room: &Room) -> Result<Vec<Sender>> {
    let count = usize::try_from(stage.options.senders)?;
    let speaking = members.iter().take(count);
    Ok(speaking.map(|user| Sender::new(stage.client(user), room.clone())).collect())
}

async fn readers(stage: &Stage, members: &[User]) -> Result<Vec<Reader>> {
    let mut readers = Vec::with_capacity(members.len());
    for user in members {
        readers.push(Reader::new(stage.client(user), user).await?);
    }
    Ok(readers)
}
