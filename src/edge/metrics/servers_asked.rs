//! What other servers were asked, and what came of it. Not by server: there are thousands.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Seconds. The state of a large room takes minutes.
const BUCKETS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 300.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

pub(super) struct ServersAsked {
    requests: Family<OutcomeLabel, Counter>,
    duration: Histogram,
}

impl ServersAsked {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let asked = Self { requests: Family::default(), duration: Histogram::new(BUCKETS) };
        let help = "Requests to other servers by what came of them";
        registry.register("federation_requests", help, asked.requests.clone());
        let help = "Time from asking another server to its answer";
        registry.register_with_unit("federation_request_duration", help, Unit::Seconds, asked.duration.clone());
        // There from the start, so that nobody takes what has not happened for what is not counted.
        drop(asked.requests.get_or_create(&OutcomeLabel { outcome: "ok" }));
        asked
    }

    pub(super) fn asked(&self, outcome: &'static str, time: Duration) {
        self.requests.get_or_create(&OutcomeLabel { outcome }).inc();
        self.duration.observe(time.as_secs_f64());
    }
}
