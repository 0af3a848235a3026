//! How fast rooms can be created, each of them half a dozen events.

use std::time::Duration;

use anyhow::Result;

use crate::client::Preset;
use crate::message::micros;
use crate::meter::Meter;
use crate::report::Outcome;
use crate::stage::Stage;
use crate::tasks::Tasks;

/// No more rooms than this from one creator.
const LIMIT: usize = 2_000;

pub(super) async fn create(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    // Creators end up in hundreds of rooms, so no other scenario may have them.
    let creators = stage.new_users(usize::try_from(stage.options.concurrency)?).await?;
    let clock = stage.clock;
    let meter = Meter::start(&stage.options).await?;
    let end = clock.micros() + micros(Duration::from_secs(stage.options.seconds));
    let creating = Tasks::start(creators.iter().map(|creator| {
        let mut client = stage.client(creator);
        async move {
            let mut latencies = Vec::new();
            while latencies.len() < LIMIT {
                let begun = clock.micros();
                if begun >= end {
                    break;
                }
                client.create_room(Preset::PrivateChat, "Bench").await?;
                latencies.push(clock.micros() - begun);
            }
            Ok(latencies)
        }
    }));
    let latencies: Vec<u64> = creating.finish().await?.into_iter().flatten().collect();
    let cost = meter.stop()?;
    Ok(Outcome::new(name, "rooms", latencies.len(), latencies, cost))
}
