//! What the stores for media take in time, and how often they fail.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Seconds.
const BUCKETS: [f64; 10] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0, 60.0];

/// Stores have names in the configuration, of which there are few.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreLabels {
    store: String,
    operation: &'static str,
}

pub(super) struct MediaStoreMetrics {
    durations: Family<StoreLabels, Histogram>,
    failures: Family<StoreLabels, Counter>,
}

impl MediaStoreMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let stores =
            Self { durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)), failures: Family::default() };
        let help = "Time that a store for media took; for `get` until the first bytes";
        registry.register_with_unit("media_store", help, Unit::Seconds, stores.durations.clone());
        let help = "What a store for media has not done because it is out of order or full";
        registry.register("media_store_failures", help, stores.failures.clone());
        stores
    }

    /// Shows a store's series before anything has happened there, so that the first of it is seen as one more.
    pub(super) fn show(&self, store: &str, operation: &'static str) {
        let labels = StoreLabels { store: store.to_owned(), operation };
        drop(self.durations.get_or_create(&labels));
        drop(self.failures.get_or_create(&labels));
    }

    pub(super) fn took(&self, store: &str, operation: &'static str, time: Duration) {
        let labels = StoreLabels { store: store.to_owned(), operation };
        self.durations.get_or_create(&labels).observe(time.as_secs_f64());
    }

    pub(super) fn failed(&self, store: &str, operation: &'static str) {
        let labels = StoreLabels { store: store.to_owned(), operation };
        self.failures.get_or_create(&labels).inc();
    }
}
