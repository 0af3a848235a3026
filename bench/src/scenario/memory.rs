//! The server at rest: before the first request of the run, and after everything.

use std::time::Duration;

use anyhow::Result;

use crate::latency::number;
use crate::meter::Meter;
use crate::report::Outcome;
use crate::stage::Stage;

/// Time for connections to close and caches to be trimmed.
const SETTLING: Duration = Duration::from_secs(5);

pub(super) async fn compare(name: &'static str, stage: &mut Stage) -> Result<Outcome> {
    tokio::time::sleep(SETTLING).await;
    let meter = Meter::start(&stage.options).await?;
    tokio::time::sleep(SETTLING).await;
    let cost = meter.stop()?;
    let (before, after) = (stage.memory_at_start, cost.server_memory);
    let mut outcome = Outcome::at_rest(name, "", 0, cost);
    for (when, memory) in [("at_start", before), ("after", after)] {
        if let Some(memory) = memory {
            outcome = outcome.with(&format!("rss_mib_{when}"), number(memory.rss_kib) / 1024.0);
            if let Some(pss) = memory.pss_kib {
                outcome = outcome.with(&format!("pss_mib_{when}"), number(pss) / 1024.0);
            }
        }
    }
    Ok(outcome)
}
