//! What other servers send.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// What this node has received from other servers.
#[derive(Default)]
pub(super) struct InboundMetrics {
    pub(super) pdus: Family<OutcomeLabel, Counter>,
    pub(super) edus: Family<KindLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OutcomeLabel {
    pub(super) outcome: &'static str,
}

/// Other servers choose the kind, so what is unknown is one kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct KindLabel {
    pub(super) kind: &'static str,
}

impl InboundMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "Events that other servers have sent, by what became of them";
        registry.register("inbound_pdus", help, metrics.pdus.clone());
        registry.register("inbound_edus", "What other servers have sent beside events", metrics.edus.clone());
        // There from the start, so that nobody takes what has not happened for what is not counted.
        drop(metrics.pdus.get_or_create(&OutcomeLabel { outcome: "accepted" }));
        drop(metrics.edus.get_or_create(&KindLabel { kind: "unknown" }));
        metrics
    }
}
