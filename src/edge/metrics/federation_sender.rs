//! What is sent to other servers. They are too many for a label each: `hearth admin list-destinations` shows them.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

pub(super) struct SenderMetrics {
    destinations: Family<StateLabel, Gauge>,
    queued: Gauge,
    transactions: Family<OutcomeLabel, Counter>,
    pub(super) sent: Counter,
    pub(super) refused: Counter,
}

impl SenderMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            destinations: Family::default(),
            queued: Gauge::default(),
            transactions: Family::default(),
            sent: Counter::default(),
            refused: Counter::default(),
        };
        let help = "Other servers that this node has something for: `live` ones get it now, those `catching_up` what they \
                    missed, those `owed` are not there and tried again later";
        registry.register("federation_destinations", help, metrics.destinations.clone());
        let help = "Events that wait in memory for other servers, for each server one";
        registry.register("federation_queued_events", help, metrics.queued.clone());
        let help = "Transactions sent to other servers, by whether they were taken";
        registry.register("federation_transactions", help, metrics.transactions.clone());
        let help = "Events that other servers have taken, for each server one";
        registry.register("federation_events_sent", help, metrics.sent.clone());
        let help = "Events that other servers have refused, for each server one";
        registry.register("federation_events_refused", help, metrics.refused.clone());
        metrics.set_destinations(0, 0, 0);
        // There from the start, so that the first one is seen as one more.
        for outcome in ["taken", "failed"] {
            metrics.transactions.get_or_create(&OutcomeLabel { outcome }).inc_by(0);
        }
        metrics
    }

    pub(super) fn set_destinations(&self, live: usize, catching_up: usize, owed: usize) {
        for (state, count) in [("live", live), ("catching_up", catching_up), ("owed", owed)] {
            self.destinations.get_or_create(&StateLabel { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn set_queued(&self, events: usize) {
        self.queued.set(i64::try_from(events).unwrap_or(i64::MAX));
    }

    pub(super) fn transaction(&self, is_taken: bool) {
        let outcome = if is_taken { "taken" } else { "failed" };
        self.transactions.get_or_create(&OutcomeLabel { outcome }).inc();
    }
}
