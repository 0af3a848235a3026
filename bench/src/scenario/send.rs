//! Acknowledged sends: senders in rooms of their own, each sending as soon as it is answered.

use std::time::Duration;

use anyhow::Result;

use crate::meter::Meter;
use crate::report::Outcome;
use crate::sender::{Sender, send_closed_loop, warm_up};
use crate::stage::Stage;

pub(super) async fn own_rooms(name: &'static str, stage: &mut Stage, senders: usize) -> Result<Outcome> {
    let rooms = stage.rooms_of(senders, 1).await?;
    let senders = rooms
        .into_iter()
        .flat_map(|(members, room)| members.into_iter().map(move |user| (user, room.clone())))
        .map(|(user, room)| Sender::new(stage.client(&user), room))
        .collect();
    let senders = warm_up(stage.clock, senders).await?;

    let run = stage.next_run();
    let meter = Meter::start(&stage.options).await?;
    let length = Duration::from_secs(stage.options.seconds);
    let sent = send_closed_loop(stage.clock, run, senders, length).await?;
    let cost = meter.stop()?;
    Ok(Outcome::new(name, "sends", sent.count(), sent.micros, cost).within(sent.seconds).with_disk())
}
