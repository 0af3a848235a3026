//! How long it takes to join a large room of other homeservers: from just before the client's request is written until it
//! has been answered, the room's whole state verified and kept.
//!
//! Each time it is another room of the same homeservers. The first time their keys are not known yet.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::client::Room;
use crate::inbox::Inbox;
use crate::latency::{millis, number};
use crate::message::micros;
use crate::meter::{Cost, Meter};
use crate::remote::RemoteServer;
use crate::remote::authority::Authority;
use crate::remote::resident_room::ResidentRoom;
use crate::report::Outcome;
use crate::stage::Stage;
use crate::tasks::Tasks;

/// Joins at least, after the first.
const JOINS: usize = 3;

pub(super) async fn join(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let authority = Authority::load(stage.options.authority.as_deref())?;
    let members = usize::try_from(stage.options.remote_members)?;
    let users = stage.new_users(1).await?;
    let user = users.first().context("somebody has to join")?;
    let (clock, run) = (stage.clock, stage.next_run());
    let mut listening: Tasks<Infallible> = Tasks::none();
    let count = usize::try_from(stage.options.remote_servers)?;
    let servers = RemoteServer::start(&authority, count, || Inbox::new(clock, run), &mut listening).await?;
    let resident = servers.first().context("a homeserver was started")?;
    let mut client = stage.client(user);
    listening
        .during(async {
            let (mut first, mut bytes) = (None, 0);
            let (mut latencies, mut cost): (Vec<u64>, Option<Cost>) = (Vec::new(), None);
            let end = clock.micros() + micros(Duration::from_secs(stage.options.seconds));
            while latencies.len() < JOINS || clock.micros() < end {
                let room = Arc::new(ResidentRoom::new(&servers, members)?);
                resident.host(Arc::clone(&room));
                bytes = room.bytes();
                let meter = Meter::start(&stage.options).await?;
                let begun = clock.micros();
                client.join_via(&Room::new(&room.room_id), &resident.identity.name).await?;
                let took = clock.micros() - begun;
                if first.is_none() {
                    first = Some(took);
                    continue;
                }
                latencies.push(took);
                let this = meter.stop()?;
                cost = Some(match cost {
                    Some(before) => before.and(&this),
                    None => this,
                });
            }
            let cost = cost.context("there were joins")?;
            let outcome = Outcome::new(name, "joins", latencies.len(), latencies, cost)
                .with_disk()
                .with("members", number(u64::try_from(members)?))
                .with("homeservers", number(u64::try_from(count)?))
                .with("bytes", number(u64::try_from(bytes)?));
            Ok(first.into_iter().fold(outcome, |outcome, micros| outcome.with("first_ms", millis(micros))))
        })
        .await
}
