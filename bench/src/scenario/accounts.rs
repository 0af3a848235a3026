//! How fast users can register, password hashing and all.

use std::time::Duration;

use anyhow::Result;

use crate::client::Client;
use crate::message::micros;
use crate::meter::Meter;
use crate::report::Outcome;
use crate::stage::Stage;
use crate::tasks::Tasks;

/// No more users than this in one run.
const LIMIT: usize = 5_000;

pub(super) async fn register(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    let clients = usize::try_from(stage.options.concurrency)?;
    let names = stage.reserve_names(LIMIT);
    let clock = stage.clock;
    let meter = Meter::start(&stage.options).await?;
    let end = clock.micros() + micros(Duration::from_secs(stage.options.seconds));
    let registering = Tasks::start((0..clients).map(|first| {
        let (names, mut client) = (names.clone(), Client::anonymous(&stage.target));
        async move {
            let mut registered = Vec::new();
            for index in (first..LIMIT).step_by(clients) {
                let begun = clock.micros();
                if begun >= end {
                    break;
                }
                let user = names.register(&mut client, index).await?;
                registered.push((user, clock.micros() - begun));
            }
            Ok(registered)
        }
    }));
    let (users, latencies): (Vec<_>, Vec<_>) = registering.finish().await?.into_iter().flatten().unzip();
    let cost = meter.stop()?;
    let outcome = Outcome::new(name, "registrations", users.len(), latencies, cost);
    stage.keep_users(users);
    Ok(outcome)
}
